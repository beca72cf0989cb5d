/* Time. All times in the program are nanoseconds of the monotonic clock; the wall clock is read
 * once per run, as the anchor of its records. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/* Monotonic nanoseconds from an arbitrary origin. */
uint64_t clock_now_ns(void);

/* Nanoseconds since 1970-01-01 UTC. */
uint64_t clock_unix_ns(void);

#endif
