/* Seconds are doubles only while they are read: limits are whole nanoseconds. */
#include "app/deadline.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S    1e9
#define LIMIT_S_MAX 1e9 /* 31 years: whoever says more means no limit */

static bool parse_duration(const char *text, double *seconds)
{
    static const struct {
        const char *suffix;
        double seconds;
    } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    size_t n = strspn(text, "0123456789.");
    char *end;
    assert(seconds != NULL);
    *seconds = strtod(text, &end);
    if (n == 0 || end != text + n) return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].suffix) != 0) continue;
        *seconds *= units[i].seconds;
        return *seconds > 0 && *seconds <= LIMIT_S_MAX;
    }
    return false;
}

static void set_limit(struct deadline *deadline, const char *origin, uint64_t now_ns,
                      uint64_t limit_ns)
{
    uint64_t margin_ns = limit_ns / 20;
    assert(origin != NULL);
    if (margin_ns > DEADLINE_MARGIN_NS) margin_ns = DEADLINE_MARGIN_NS;
    deadline->origin = origin;
    deadline->end_ns = now_ns + limit_ns;
    deadline->stop_ns = deadline->end_ns - margin_ns;
}

bool deadline_set(struct deadline *deadline, const char *limit, const char *job_end,
                  uint64_t now_ns, uint64_t unix_ns, struct error *err)
{
    double seconds;
    *deadline = (struct deadline){.stop_ns = UINT64_MAX, .end_ns = UINT64_MAX};
    assert(unix_ns > 0);
    if (limit != NULL) {
        if (!parse_duration(limit, &seconds))
            return error_set(err, ERROR_USAGE,
                             "--time-limit is '%s', must be a number of seconds above 0, or one "
                             "with s, m, h or d behind it, such as 30m",
                             limit);
        set_limit(deadline, "--time-limit", now_ns, (uint64_t)(seconds * NS_PER_S));
        return true;
    }
    bool is_number = job_end != NULL && job_end[0] != '\0' && strlen(job_end) <= 11 &&
                     job_end[strspn(job_end, "0123456789")] == '\0';
    if (!is_number) return true;
    uint64_t end_unix_ns = strtoull(job_end, NULL, 10) * UINT64_C(1000000000);
    uint64_t left_ns = end_unix_ns > unix_ns ? end_unix_ns - unix_ns : 0;
    if (left_ns <= (uint64_t)(LIMIT_S_MAX * NS_PER_S))
        set_limit(deadline, "SLURM_JOB_END_TIME", now_ns, left_ns);
    return true;
}

bool deadline_is_near(struct deadline *deadline, uint64_t now_ns, uint64_t iteration_ns)
{
    assert(deadline->end_ns >= deadline->stop_ns);
    /* A full step among many small ones is still remembered when the next one is due. */
    deadline->expected_ns -= deadline->expected_ns / 16;
    if (deadline->expected_ns < iteration_ns) deadline->expected_ns = iteration_ns;
    return deadline->stop_ns <= now_ns || deadline->stop_ns - now_ns < deadline->expected_ns;
}
