/* When a run has to be over: --time-limit, or the end that the scheduler told its job. A run stops
 * by itself some time before, so that it ends in order and not by SIGKILL. Pure: times are given.
 */
#ifndef APP_DEADLINE_H
#define APP_DEADLINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Or a twentieth of the limit, if that is less. */
#define DEADLINE_MARGIN_NS UINT64_C(30000000000)

struct deadline {
    const char *origin;       /* whose limit it is, for people; NULL: there is none */
    uint64_t stop_ns, end_ns; /* monotonic; UINT64_MAX: never. They lie the margin apart */
    uint64_t expected_ns;     /* of an iteration: the longest of late */
};

/* `limit`: a number of seconds, or with s, m, h or d behind it; NULL: not given, and `job_end`, if
 * not NULL, counts: seconds since 1970, and nothing if it is no such number. A limit counts from
 * `now_ns`, which is `unix_ns` on the wall clock. False: ERROR_USAGE, the limit is no duration. */
bool deadline_set(struct deadline *deadline, const char *limit, const char *job_end,
                  uint64_t now_ns, uint64_t unix_ns, struct error *err);

/* Told after each iteration what it took: whether another one would end too late. */
bool deadline_is_near(struct deadline *deadline, uint64_t now_ns, uint64_t iteration_ns);

#endif
