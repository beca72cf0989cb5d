/* app/records: lines of a run, in both forms, to figures; and what is no line of a run. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/records.h"

static char path[] = "/tmp/test_records_XXXXXX";
static struct records records;
static struct error err;

static void set_up(void)
{
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
    err = (struct error){0};
}

static void tear_down(void)
{
    records_free(&records);
    unlink(path);
}

TestSuite(records, .init = set_up, .fini = tear_down);

static bool read_text(const char *text)
{
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
    return records_read(&records, path, &err);
}

/* An answer; `timing` goes into its object. */
#define ANSWER(timing)                                                                             \
    "{\"id\":1,\"index\":0,\"text\":\"x\",\"finish_reason\":\"stop\",\"usage\":{\"prompt_"         \
    "tokens\":"                                                                                    \
    "10,\"completion_tokens\":4},\"decode\":{\"steps\":5,\"blocks\":1,\"refresh_steps\":2,"        \
    "\"reuse_steps\":3,\"positions\":80},\"timing\":{\"start_unix_ns\":1," timing "}}\n"
#define TIMES                                                                                      \
    "\"admitted_ns\":1000000000,\"first_forward_ns\":1500000000,\"first_block_ns\":2000000000,"    \
    "\"finished_ns\":4000000000"
#define FAILURE                                                                                    \
    "{\"id\":2,\"index\":1,\"error\":{\"code\":\"invalid_json\",\"message\":\"m\",\"line\":2}}\n"

Test(records, an_answer_gives_its_figures)
{
    cr_assert(read_text(ANSWER(TIMES)), "%s", err.message);
    cr_assert_eq(records.n, 1);
    cr_assert_eq(records.n_tokens, 4);
    cr_assert_eq(records.positions, 80);
    cr_assert_eq(records.refresh_steps, 2);
    cr_assert_eq(records.reuse_steps, 3);
    cr_assert_float_eq(records.latency_s.p50, 3, 1e-9);
    cr_assert_float_eq(records.queue_s.p50, 0.5, 1e-9);
    cr_assert_float_eq(records.block_s.p50, 1, 1e-9);
    cr_assert_float_eq(records.begin_s, 1, 1e-9);
    cr_assert_float_eq(records.end_s, 4, 1e-9);
}

Test(records, a_scheduled_arrival_counts_before_the_admission)
{
    cr_assert(read_text(ANSWER("\"arrival_ns\":500000000," TIMES)), "%s", err.message);
    cr_assert_float_eq(records.latency_s.p50, 3.5, 1e-9);
    cr_assert_float_eq(records.queue_s.p50, 1.0, 1e-9);
}

/* Found by fuzzing: a line may lie about its times. */
Test(records, an_end_before_the_arrival_is_the_arrival)
{
    cr_assert(read_text(ANSWER("\"admitted_ns\":3000000000,\"finished_ns\":1000000000")));
    cr_assert_float_eq(records.begin_s, 3, 1e-9);
    cr_assert_float_eq(records.end_s, 3, 1e-9);
    cr_assert_eq(records.latency_s.most, 0);
}

Test(records, header_and_manifest_are_no_answers)
{
    cr_assert(read_text("{\"header\":{\"format\":1}}\n" ANSWER(TIMES) FAILURE
                        "{\"manifest\":{\"lines\":2,\"e2e_ns\":{}}}\n"),
              "%s", err.message);
    cr_assert_eq(records.n, 1);
    cr_assert_eq(records.n_failed, 1);
}

Test(records, openai_envelopes_are_read_too)
{
    cr_assert(
        read_text("{\"id\":\"b\",\"custom_id\":\"c\",\"error\":null,\"response\":{\"status_code\":"
                  "200,\"body\":{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2},\"dllm\":"
                  "{\"decode\":{\"refresh_steps\":1,\"reuse_steps\":0},\"timing\":{" TIMES "}}}}}\n"
                  "{\"id\":\"b\",\"custom_id\":\"d\",\"error\":null,\"response\":{\"status_code\":"
                  "400,\"body\":{\"error\":{\"code\":\"x\"}}}}\n"),
        "%s", err.message);
    cr_assert_eq(records.n, 1);
    cr_assert_eq(records.n_failed, 1);
    cr_assert_eq(records.n_tokens, 2);
    cr_assert_lt(records.positions, 0, "unknown");
}

Test(records, failures_and_blank_lines_are_no_answers)
{
    cr_assert(read_text(FAILURE "\n" ANSWER(TIMES) ANSWER(TIMES)), "%s", err.message);
    cr_assert_eq(records.n, 2);
    cr_assert_eq(records.n_failed, 1);
    cr_assert_eq(records.positions, 160);
}

Test(records, what_did_not_happen_counts_nowhere)
{
    cr_assert(
        read_text(ANSWER("\"admitted_ns\":0,\"first_forward_ns\":null,\"first_block_ns\":null,"
                         "\"finished_ns\":9000000000") ANSWER(TIMES)),
        "%s", err.message);
    cr_assert_float_eq(records.queue_s.most, 0.5, 1e-9);
    cr_assert_float_eq(records.latency_s.most, 9, 1e-9);
}

/* Of a run that started at second `start`; its times in seconds since then. */
#define OF_RUN(start, admitted, finished)                                                          \
    "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1},\"decode\":{\"refresh_steps\":1,"    \
    "\"reuse_steps\":0},\"timing\":{\"start_unix_ns\":" start                                      \
    "000000000,\"admitted_ns\":" admitted "000000000,\"finished_ns\":" finished "000000000}}\n"

Test(records, runs_that_went_on_stand_behind_each_other_and_shards_beside)
{
    /* Two runs with 97 s in between: 1 to 4, and 101 to 103 become 1 to 6. */
    cr_assert(read_text(OF_RUN("1700000100", "1", "3") OF_RUN("1700000000", "1", "4")
                            OF_RUN("1700000000", "2", "3")),
              "%s", err.message);
    cr_assert_eq(records.n_runs, 2);
    cr_assert_float_eq(records.begin_s, 1, 1e-6);
    cr_assert_float_eq(records.end_s, 6, 1e-6);
    cr_assert_float_eq(records.items[0].arrival_s, 4, 1e-6);
    cr_assert_float_eq(records.items[1].finished_s, 4, 1e-6);
    cr_assert_float_eq(records.latency_s.most, 3, 1e-9);
    records_free(&records);
    /* Two that overlap: 1 to 5, 2 to 8; and one behind a pause. */
    cr_assert(read_text(OF_RUN("1700000001", "1", "7") OF_RUN("1700000000", "1", "5")
                            OF_RUN("1700000050", "1", "2")),
              "%s", err.message);
    cr_assert_eq(records.n_runs, 3);
    cr_assert_float_eq(records.end_s - records.begin_s, 8, 1e-6);
}

Test(records, many_lines_are_kept)
{
    FILE *file = fopen(path, "w");
    for (int i = 0; i < 3000; i++)
        fputs(ANSWER(TIMES), file);
    fclose(file);
    cr_assert(records_read(&records, path, &err), "%s", err.message);
    cr_assert_eq(records.n, 3000);
    cr_assert_eq(records.n_tokens, 12000);
}

static void expect_refused(const char *text, const char *words)
{
    records_free(&records);
    err = (struct error){0};
    cr_assert_not(read_text(text), "accepted: %s", text);
    cr_assert(strstr(err.message, words), "'%s' lacks '%s'", err.message, words);
    cr_assert_eq(err.code, ERROR_FORMAT);
}

#define ITERATION(end, predicted)                                                                  \
    "{\"begin_ns\":1000000000,\"end_ns\":" end ",\"predicted_ns\":" predicted                      \
    ",\"rows\":8,\"picks\":2,\"row_keys\":64,\"cached_rows\":0}\n"

Test(records, iterations_give_sums_and_how_far_off_each_was)
{
    cr_assert(read_text(ITERATION("2000000000", "1100000000") ITERATION("3000000000", "1000000000")
                            ITERATION("5000000000", "4040000000")),
              "%s", err.message);
    cr_assert_eq(records.n, 0);
    cr_assert_eq(records.passes.n, 3);
    cr_assert_float_eq(records.passes.took_s, 7, 1e-9);
    cr_assert_float_eq(records.passes.predicted_s, 6.14, 1e-9);
    cr_assert_eq(records.passes.n_errors, 3);
    const double wanted[] = {10, 50, 1};
    for (int i = 0; i < 3; i++)
        cr_assert_float_eq(records.passes.errors[i], wanted[i], 1e-6);
}

Test(records, iterations_that_nobody_predicted_have_no_errors)
{
    cr_assert(read_text(ITERATION("2000000000", "0")), "%s", err.message);
    cr_assert_eq(records.passes.n, 1);
    cr_assert_eq(records.passes.n_errors, 0);
    records_free(&records);
    cr_assert_not(read_text(ITERATION("2000000000", "\"x\"")));
    cr_assert(strstr(err.message, ":1: predicted_ns is"), "%s", err.message);
}

Test(records, what_is_no_line_of_a_run_is_named)
{
    expect_refused("", "has no answers");
    expect_refused(FAILURE, "has no answers (1 failed lines)");
    expect_refused(ANSWER(TIMES) "{\"prompt\":\"x\"}\n", ":2: is no line of output");
    expect_refused("[1]\n", ":1: is not a JSON object");
    expect_refused(ANSWER(TIMES) "{\"id\":\n", ":2: is not a JSON object");
    expect_refused(ANSWER("\"admitted_ns\":5"), ":1: finished_ns is missing");
    expect_refused(ANSWER("\"admitted_ns\":\"a\",\"finished_ns\":9"),
                   "admitted_ns is \"a\", must be a number");
    expect_refused(ANSWER("\"admitted_ns\":1,\"finished_ns\":-9"), "finished_ns is -9");
}

Test(records, a_missing_file_is_no_input)
{
    cr_assert_not(records_read(&records, "/tmp/no/such/file", &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
}

Test(records, a_torn_compressed_file_is_told)
{
    static const unsigned char torn[] = {0x28, 0xB5, 0x2F, 0xFD, 0x04, 0x00, 0x41};
    FILE *file = fopen(path, "w");
    fwrite(torn, 1, sizeof torn, file);
    fclose(file);
    cr_assert_not(records_read(&records, path, &err));
    cr_assert(strstr(err.message, path), "%s", err.message);
    cr_assert_eq(records.n, 0);
}

Test(records, one_line_that_is_silent_makes_positions_unknown)
{
    cr_assert(read_text(ANSWER(TIMES) "{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1},"
                                      "\"decode\":{\"refresh_steps\":1,\"reuse_steps\":0},"
                                      "\"timing\":{" TIMES "}}\n" ANSWER(TIMES)),
              "%s", err.message);
    cr_assert_eq(records.n, 3);
    cr_assert_lt(records.positions, 0);
}
