/* app/deadline: what a duration is, whose limit counts, and when an iteration would be one too
 * many. */
#include <criterion/criterion.h>

#include "app/deadline.h"

#define S UINT64_C(1000000000)

static const uint64_t now_ns = 1000 * S, unix_ns = 5000 * S;
static struct deadline deadline;

TestSuite(deadline);

static bool set(const char *limit, const char *job_end)
{
    struct error err = {0};
    bool is_ok = deadline_set(&deadline, limit, job_end, now_ns, unix_ns, &err);
    cr_expect_eq(err.code, is_ok ? ERROR_NONE : ERROR_USAGE);
    return is_ok;
}

Test(deadline, a_limit_is_a_number_with_or_without_a_unit)
{
    static const struct {
        const char *text;
        double seconds;
    } good[] = {{"2", 2}, {"2s", 2}, {".5m", 30}, {"2h", 7200}, {"1.5d", 129600}};
    static const char *const bad[] = {"",           "s",           "0",     "-1",  "1e3",
                                      "1 h",        "1hs",         "1.2.3", "inf", "0x10",
                                      "1-12:00:00", "99999999999", "."};
    for (int i = 0; i < 5; i++) {
        cr_expect(set(good[i].text, NULL), "%s", good[i].text);
        cr_expect_eq(deadline.end_ns - now_ns, (uint64_t)(good[i].seconds * 1e9));
        cr_expect_str_eq(deadline.origin, "--time-limit");
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(set(bad[i], NULL), "'%s'", bad[i]);
}

Test(deadline, the_option_counts_before_the_job_and_nothing_is_no_limit)
{
    static const char *const none[] = {"", "soon", "-7", "5e3", "99999999999", "123456789012"};
    cr_assert(set("60", "5010"));
    cr_expect_eq(deadline.end_ns, now_ns + 60 * S);
    cr_assert(set(NULL, "5010"));
    cr_expect_eq(deadline.end_ns, now_ns + 10 * S);
    cr_expect_str_eq(deadline.origin, "SLURM_JOB_END_TIME");
    cr_assert(set(NULL, "4000"), "over already");
    cr_expect_eq(deadline.stop_ns, now_ns);
    cr_assert(set(NULL, NULL));
    cr_expect_eq(deadline.end_ns, UINT64_MAX);
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        cr_expect(set(NULL, none[i]));
        cr_expect_eq(deadline.stop_ns, UINT64_MAX, "%s", none[i]);
        cr_expect_null(deadline.origin);
    }
}

Test(deadline, the_margin_is_a_twentieth_and_half_a_minute_at_most)
{
    cr_assert(set("100", NULL));
    cr_expect_eq(deadline.end_ns - deadline.stop_ns, 5 * S);
    cr_assert(set("2h", NULL));
    cr_expect_eq(deadline.end_ns - deadline.stop_ns, DEADLINE_MARGIN_NS);
}

Test(deadline, no_iteration_begins_that_would_end_too_late)
{
    cr_assert(set("100", NULL));
    cr_expect_not(deadline_is_near(&deadline, now_ns + 80 * S, 10 * S));
    cr_expect(deadline_is_near(&deadline, now_ns + 90 * S, S), "a long one may come again");
    cr_assert(set("100", NULL));
    cr_expect_not(deadline_is_near(&deadline, now_ns + 90 * S, S));
    cr_expect(deadline_is_near(&deadline, now_ns + 95 * S, 0));
    cr_assert(set(NULL, NULL));
    cr_expect_not(deadline_is_near(&deadline, now_ns, 1000000 * S));
}
