/* app/report: the figures of the summary, percentiles, and what is shown when. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "app/report.h"

#define SECOND UINT64_C(1000000000)

static struct options options;
static struct report report; /* large */
static char *text;
static size_t n_text;
static FILE *stream;

static void set_up(void)
{
    options_init(&options, SUBCOMMAND_RUN);
    unsetenv("NO_COLOR");
    setenv("TERM", "xterm", 1);
    stream = open_memstream(&text, &n_text);
}

static void start(bool is_terminal)
{
    report_init(&report, &options, stream, is_terminal, SECOND);
}

/* What was printed since the last call. */
static const char *printed(void)
{
    static char copy[4096];
    fflush(stream);
    snprintf(copy, sizeof copy, "%s", text);
    rewind(stream);
    return copy;
}

static void summarize(uint64_t now_ns, bool is_stopped)
{
    const struct executor_counts counts = {.n_iterations = 7, .n_positions = 300};
    report_summary(&report, &counts, now_ns, is_stopped);
}

TestSuite(report, .init = set_up);

/* ---- percentiles ---- */

Test(report, percentiles_are_exact_to_a_hundredth)
{
    start(false);
    for (uint64_t i = 1; i <= 1001; i++)
        report_answered(&report, 1, 1, i * 1000003);
    const double fractions[] = {0, 0.5, 0.9, 0.99, 1};
    const uint64_t ranks[] = {1, 501, 901, 991, 1001};
    for (int i = 0; i < 5; i++) {
        double expected = (double)ranks[i] * 1000003;
        double found = (double)report_percentile_ns(&report, fractions[i]);
        cr_assert_float_eq(found / expected, 1, 0.008, "%g: %g", fractions[i], found);
    }
}

Test(report, latencies_of_any_size_have_a_bucket)
{
    start(false);
    cr_assert_eq(report_percentile_ns(&report, 0.5), 0);
    for (int shift = 0; shift < 64; shift++) {
        uint64_t values[] = {UINT64_C(1) << shift, (UINT64_C(1) << shift) - 1,
                             (UINT64_C(1) << shift) * 2 - 1};
        for (int i = 0; i < 3; i++) {
            report_init(&report, &options, stream, false, 0);
            report_answered(&report, 1, 1, values[i]);
            double found = (double)report_percentile_ns(&report, 0.5);
            double error = found - (double)values[i];
            cr_assert_leq(error < 0 ? -error : error, (double)values[i] * 0.008);
        }
    }
}

/* ---- summary ---- */

Test(report, summary_counts_requests_tokens_and_rates)
{
    start(false);
    report_answered(&report, 40, 64, SECOND);
    report_answered(&report, 60, 64, SECOND);
    report_failed(&report);
    summarize(3 * SECOND, false);
    const char *summary = printed();
    cr_assert_not_null(strstr(summary, "3 requests in 2.00 s: 2 answered, 1 failed"), "%s",
                       summary);
    cr_assert_not_null(strstr(summary, "50.0 tokens/s  (100 tokens"), "%s", summary);
    cr_assert_not_null(strstr(summary, "64.0 tokens/s  (128 tokens"), "%s", summary);
    cr_assert_not_null(strstr(summary, "7           (300 positions, 3.0 per token"), "%s", summary);
    cr_assert_not_null(strstr(summary, "p50 1.00"), "%s", summary);
}

Test(report, summary_as_json_has_the_same_figures)
{
    options.log_format = "json";
    start(true);
    report_answered(&report, 40, 64, SECOND);
    report_failed(&report);
    summarize(3 * SECOND, true);
    json_t *root = json_loads(printed(), 0, NULL);
    cr_assert_not_null(root);
    const char *event;
    int answered, failed, requests, stopped;
    double rate, ppt;
    cr_assert_eq(json_unpack(root, "{s:s, s:i, s:i, s:i, s:b, s:F, s:F}", "event", &event,
                             "answered", &answered, "failed", &failed, "requests", &requests,
                             "stopped", &stopped, "effective_tokens_per_s", &rate,
                             "positions_per_token", &ppt),
                 0);
    cr_assert_str_eq(event, "summary");
    cr_assert_eq(answered * 100 + failed * 10 + requests, 112);
    cr_assert(stopped);
    cr_assert_float_eq(rate, 20, 1e-6);
    cr_assert_float_eq(ppt, 7.5, 1e-6);
    json_decref(root);
}

Test(report, with_a_profile_the_summary_says_how_far_off_it_was)
{
    struct executor_counts counts = {.n_iterations = 4,
                                     .iterations_ns = 10 * SECOND,
                                     .planning_ns = SECOND / 2,
                                     .n_surprises = 3,
                                     .n_by_error = {[2] = 1, [7] = 1, [50] = 1, [200] = 1}};
    start(false);
    report_answered(&report, 40, 64, SECOND);
    report_summary(&report, &counts, 12 * SECOND, false);
    const char *summary = printed();
    cr_assert_not_null(strstr(summary, "0.500 s           (3 steps ended otherwise"), "%s",
                       summary);
    cr_assert_null(strstr(summary, "off by"), "%s", summary);
    report.planned_ns = 12 * SECOND;
    counts.predicted_ns = 9 * SECOND;
    report_summary(&report, &counts, 12 * SECOND, false);
    summary = printed();
    cr_assert_not_null(strstr(summary, "9.00 s           (took 10.00 s: off by -10.0 %; planned "
                                       "ahead 12.00 s; half of the forwards within 8 %)"),
                       "%s", summary);
}

Test(report, recorded_steps_are_counted_where_steps_are_recorded)
{
    start(false);
    report_answered(&report, 1, 1, 1);
    summarize(2 * SECOND, false);
    cr_assert_null(strstr(printed(), "replayed"));
    report.graphs = (struct backend_graphs){true, 2, 90, 8};
    summarize(2 * SECOND, false);
    cr_assert(strstr(printed(), "90 steps replayed, 2 recorded, 8 launched singly"));
    report.is_json = true;
    summarize(2 * SECOND, false);
    cr_assert(strstr(printed(), "\"steps_replayed\": 90"));
}

Test(report, a_run_without_answers_divides_by_nothing)
{
    start(false);
    summarize(SECOND, true);
    cr_assert_str_eq(printed(), "dllm-batch: stopped after 0 requests in 0.00 s: 0 answered, 0 "
                                "failed\n");
}

Test(report, quiet_prints_nothing)
{
    options.quiet = true;
    options.progress = "always";
    start(true);
    report_note(&report, "note");
    report_answered(&report, 1, 1, 1);
    report_tick(&report, 100 * SECOND, false);
    summarize(100 * SECOND, false);
    cr_assert_str_eq(printed(), "");
}

/* ---- notes ---- */

Test(report, notes_carry_no_control_bytes)
{
    start(false);
    report_note(&report, "file %s", "\033[2J\n\xff");
    const char *note = printed();
    cr_assert_null(strchr(note, '\033'));
    cr_assert_eq(strchr(note, '\n'), note + strlen(note) - 1);
    cr_assert_null(strchr(note, '\xff'));
}

Test(report, errors_are_told_even_when_quiet)
{
    options.quiet = true;
    start(false);
    report_error(&report, "p.jsonl:%d: bad", 3);
    cr_assert_str_eq(printed(), "dllm-batch: error: p.jsonl:3: bad\n");
}

/* ---- progress ---- */

Test(report, without_a_terminal_a_line_comes_every_ten_seconds)
{
    start(false);
    report.n_expected = 4;
    report_answered(&report, 55, 64, 1);
    report_tick(&report, 10 * SECOND, false); /* 9 s after the start */
    cr_assert_str_eq(printed(), "");
    report_tick(&report, 12 * SECOND, false);
    cr_assert_str_eq(printed(), "dllm-batch: 1 of 4 lines, 5.0 tokens/s, 0:33 left\n");
    report_tick(&report, 13 * SECOND, false);
    cr_assert_eq(strlen(printed()), strlen("dllm-batch: 1 of 4 lines, 5.0 tokens/s, 0:33 left\n"));
}

Test(report, on_a_terminal_a_bar_is_redrawn_ten_times_a_second_at_most)
{
    start(true);
    report.n_expected = 2;
    report_answered(&report, 1, 1, 1);
    report_tick(&report, SECOND + 99000000, false);
    cr_assert_str_eq(printed(), "");
    report_tick(&report, SECOND + 100000000, false);
    const char *bar = printed();
    cr_assert_not_null(strstr(bar, "###############---------------"), "%s", bar);
    cr_assert_not_null(strstr(bar, "\033[32m"));
    cr_assert_not_null(strstr(bar, "1 of 2 lines"));
}

Test(report, no_color_and_dumb_terminals_are_respected)
{
    setenv("NO_COLOR", "1", 1);
    start(true);
    report.n_expected = 2;
    report_tick(&report, 2 * SECOND, false);
    cr_assert_null(strstr(printed(), "\033[32m"));
    setenv("TERM", "dumb", 1);
    start(true);
    cr_assert_eq(report.progress, PROGRESS_LINES);
}

Test(report, a_bar_goes_away_before_other_messages)
{
    options.progress = "always";
    start(false);
    report_tick(&report, 2 * SECOND, false);
    printed();
    report_note(&report, "x");
    cr_assert_not_null(strstr(printed(), "\r\033[Kdllm-batch: x\n"));
}

Test(report, progress_never_and_json_choose_the_kind)
{
    options.progress = "never";
    start(true);
    cr_assert_eq(report.progress, PROGRESS_NONE);
    options.progress = "always";
    options.log_format = "json";
    start(true);
    report_tick(&report, 20 * SECOND, false);
    json_t *root = json_loads(printed(), 0, NULL);
    cr_assert_str_eq(json_string_value(json_object_get(root, "event")), "progress");
    json_decref(root);
}
