/* Time from the C library. Both clocks exist on every system this builds for; a failure would be a
 * mistake in the program. */
#include "base/clock.h"

#include <assert.h>
#include <time.h>

static uint64_t read_ns(clockid_t clock)
{
    struct timespec now;
    int status = clock_gettime(clock, &now);
    assert(status == 0);
    (void)status;
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t clock_now_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_unix_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}
