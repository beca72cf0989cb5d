/* app/trace: columns are found by their names, times are read in their unit, and what is wrong with
 * a row is told with the column's name. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "app/trace.h"

static struct arena arena;
static struct error err;

static void start(void)
{
    cr_assert(arena_create(&arena, (size_t)1 << 20, &err));
}

static void stop(void)
{
    arena_destroy(&arena);
}

TestSuite(trace, .init = start, .fini = stop);

static struct bytes bytes_of(const char *text)
{
    return (struct bytes){.data = text, .n = strlen(text)};
}

/* The row under `header` (NULL: a JSON line, which is its own header). */
static bool read_row(struct trace *trace, const char *header, const char *text,
                     struct trace_row *row)
{
    err = (struct error){0};
    cr_assert(trace_learn(trace, bytes_of(header != NULL ? header : text), &arena, &err), "%s",
              err.message);
    cr_assert_eq(trace->n_columns == 0, header == NULL);
    json_t *object =
        header != NULL ? trace_parse(trace, bytes_of(text), &err) : json_loads(text, 0, NULL);
    bool is_ok = object != NULL && trace_read(trace, object, row, &err);
    json_decref(object);
    return is_ok;
}

static void expect_row(const char *header, const char *text, uint64_t stamp_ns, int32_t n_prompt,
                       int32_t n_output)
{
    struct trace trace = {0};
    struct trace_row row;
    cr_assert(read_row(&trace, header, text, &row), "%s: %s", text, err.message);
    cr_expect_eq(row.stamp_ns, stamp_ns, "%s: %llu", text, (unsigned long long)row.stamp_ns);
    cr_expect_eq(row.n_prompt, n_prompt, "%s: %d", text, row.n_prompt);
    cr_expect_eq(row.n_output, n_output, "%s: %d", text, row.n_output);
}

static void expect_refusal(const char *header, const char *text, const char *part)
{
    struct trace trace = {0};
    struct trace_row row;
    cr_expect_not(read_row(&trace, header, text, &row), "%s", text);
    cr_expect_eq(err.code, ERROR_FORMAT);
    cr_expect(strstr(err.message, part) != NULL, "%s: '%s' lacks '%s'", text, err.message, part);
}

/* ---- formats ---- */

static const char azure[] = "TIMESTAMP,ContextTokens,GeneratedTokens";
static const char burst[] = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type";

Test(trace, azure_stamps_are_wall_clock_with_seven_digits)
{
    expect_row(azure, "2023-11-16 18:17:03.9799600,4808,10", UINT64_C(1700158623979960000), 4808,
               10);
    expect_row(azure, "2024-05-10 00:00:00.009930+00:00,2162,5", UINT64_C(1715299200009930000),
               2162, 5);
}

Test(trace, a_json_line_may_begin_with_blanks_and_its_times_hold_no_nul)
{
    expect_row(NULL, " \t{\"arrival_s\": 2, \"prompt_tokens\": 5, \"output_tokens\": 4}",
               UINT64_C(2000000000), 5, 4);
    struct trace trace = {0};
    cr_expect_not(
        trace_learn(&trace, bytes_of("{\"arrival_s\": 1, \"arrival_s\": 2}"), &arena, &err));
    cr_expect(strstr(err.message, "duplicate object key"), "%s", err.message);
    trace = (struct trace){0};
    struct trace_row row;
    json_t *value = json_loads("{\"arrival_s\": \"2023-11-16 18:17:03\\u0000x\", "
                               "\"prompt_tokens\": 5, \"output_tokens\": 4}",
                               JSON_ALLOW_NUL, NULL);
    cr_assert(trace_learn(&trace,
                          bytes_of("{\"arrival_s\": 2, \"prompt_tokens\": 5, "
                                   "\"output_tokens\": 4}"),
                          &arena, &err));
    cr_expect_not(trace_read(&trace, value, &row, &err));
    json_decref(value);
}

Test(trace, burst_times_are_seconds_with_or_without_sessions)
{
    expect_row(burst, "5,ChatGPT,472,18,490,Conversation log", UINT64_C(5000000000), 472, 18);
    expect_row("Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total "
               "tokens,Log Type",
               "0.5,7,1.25,GPT-4,1360,0,1360,API log", 500000000, 1360, 0);
}

Test(trace, mooncake_times_are_milliseconds)
{
    expect_row(NULL,
               "{\"timestamp\": 27482, \"input_length\": 6955, \"output_length\": 52, "
               "\"hash_ids\": [46, 47]}",
               UINT64_C(27482000000), 6955, 52);
}

Test(trace, vidur_columns_are_known)
{
    expect_row("arrived_at,num_prefill_tokens,num_decode_tokens", "1.5,10,20", 1500000000, 10, 20);
}

Test(trace, our_lines_have_lengths_or_a_prompt)
{
    expect_row(NULL, "{\"arrival_s\": 1.25, \"prompt_tokens\": 3, \"output_tokens\": 4}",
               1250000000, 3, 4);
    expect_row(NULL, "{\"arrival_s\": 0, \"prompt\": \"1 + 2\"}", 0, -1, -1);
    expect_row(NULL, "{\"arrival_s\": 0, \"prompt\": \"1\", \"output_tokens\": null}", 0, -1, -1);
    expect_row("prompt_tokens,output_tokens,arrival_s", "3,4,0.125", 125000000, 3, 4);
}

Test(trace, names_and_unit_that_are_given_go_before_the_known_ones)
{
    struct trace trace = {.names = {.time = "t", .prompt = "in", .output = "out", .unit_ns = 1000}};
    struct trace_row row;
    cr_assert(read_row(&trace, "in,out,t,arrival_s", "1,2,7,99", &row), "%s", err.message);
    cr_expect_eq(row.stamp_ns, 7000);
    cr_expect_eq(row.n_prompt, 1);
    cr_expect_eq(row.n_output, 2);
    struct trace milliseconds = {.names = {.unit_ns = 1000000}};
    cr_assert(read_row(&milliseconds, burst, "5,ChatGPT,472,18,490,x", &row), "%s", err.message);
    cr_expect_eq(row.stamp_ns, 5000000);
}

Test(trace, what_is_no_trace_is_refused)
{
    static const char *const lines[] = {"",       "a,b,c",       "{\"prompt\": \"1\"}",
                                        "{\"a\"", "TIMESTAMP,x", "\xff,b",
                                        "a,a",    "[1, 2]",      "{\"timestamp\": 1}"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct trace trace = {0};
        err = (struct error){0};
        cr_expect_not(trace_learn(&trace, bytes_of(lines[i]), &arena, &err), "%s", lines[i]);
        cr_expect_eq(err.code, ERROR_FORMAT);
    }
    struct trace trace = {.names = {.time = "when"}};
    cr_expect_not(trace_learn(&trace, bytes_of(azure), &arena, &err));
    cr_expect(strstr(err.message, "\"when\"") != NULL, "%s", err.message);
}

/* ---- cells and values ---- */

Test(trace, cells_may_be_quoted_and_must_be_as_many_as_columns)
{
    expect_row(burst, "\"5\",\"Chat, GPT\",\"472\",18,490,\"\"", UINT64_C(5000000000), 472, 18);
    expect_refusal(azure, "2023-11-16 18:17:03,1", "fewer columns");
    expect_refusal(azure, "2023-11-16 18:17:03,1,2,3", "more columns");
    expect_refusal(azure, "\xff,1,2", "TIMESTAMP is not UTF-8");
}

Test(trace, times_that_are_none_are_refused_with_their_column)
{
    static const char *const times[] = {"-1",   "nan",
                                        "inf",  "2023-13-16 18:17:03",
                                        "",     "2023-11-16",
                                        "0x5",  "2023-11-16 25:17:03",
                                        "1e",   "2023-11-16 18:17:03.",
                                        "-0.5", "2023-11-16 18:17:03.1234567890"};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char row[64];
        snprintf(row, sizeof row, "%s,1,2", times[i]);
        expect_refusal(azure, row, "TIMESTAMP is ");
    }
    expect_refusal(NULL, "{\"timestamp\": 1e300, \"input_length\": 1, \"output_length\": 1}",
                   "--time-unit");
    expect_refusal(NULL, "{\"arrival_s\": true, \"prompt\": \"\"}", "arrival_s is true");
}

Test(trace, lengths_are_whole_and_in_range)
{
    expect_row(azure, "7,1024.0,1", UINT64_C(7000000000), 1024, 1);
    expect_row(azure, "7,1048576,0", UINT64_C(7000000000), 1048576, 0);
    expect_refusal(azure, "7,0,1", "ContextTokens is 0, must be a whole number from 1 to 1048576");
    expect_refusal(azure, "7,1.5,1", "ContextTokens is 1.5");
    expect_refusal(azure, "7,1,-1", "GeneratedTokens is -1");
    expect_refusal(azure, "7,1,1048577", "GeneratedTokens is 1048577");
    expect_refusal(azure, "7,many,1", "ContextTokens is \"many\"");
}

Test(trace, calendar_times_count_leap_years_and_zones)
{
    expect_row(azure, "1970-01-01 00:00:00,1,1", 0, 1, 1);
    expect_row(azure, "2000-02-29T12:00:00Z,1,1", UINT64_C(951825600000000000), 1, 1);
    expect_row(azure, "2000-03-01 00:30:00.5+01:00,1,1", UINT64_C(951867000500000000), 1, 1);
    expect_row(azure, "1999-12-31 23:30:00-00:45,1,1", UINT64_C(946685700000000000), 1, 1);
    expect_refusal(azure, "1969-12-31 23:59:59,1,1", "TIMESTAMP");
    expect_refusal(azure, "2001-02-29 12:00:00,1,1", "TIMESTAMP");
    expect_refusal(azure, "2001-02-28 12:00:00+99:99,1,1", "TIMESTAMP");
    expect_refusal(azure, "2001-02-28 12:00:00+-1:00,1,1", "TIMESTAMP");
    expect_refusal(azure, "2023-11-31 12:00:00,1,1", "TIMESTAMP");
    expect_row(azure, "2023-12-31 00:00:00,1,1", UINT64_C(1703980800000000000), 1, 1);
}

/* ---- arrivals ---- */

static void expect_stamps(const uint64_t *stamps, const uint64_t *wanted, int n)
{
    for (int i = 0; i < n; i++)
        cr_expect_eq(stamps[i], wanted[i], "%d: %llu, wanted %llu", i,
                     (unsigned long long)stamps[i], (unsigned long long)wanted[i]);
}

Test(trace, time_starts_with_the_first_arrival)
{
    uint64_t stamps[] = {1000, 1000, 1500};
    cr_assert(trace_arrange(stamps, 3, &(struct trace_schedule){0}, &err));
    expect_stamps(stamps, (uint64_t[]){0, 0, 500}, 3);
}

Test(trace, equal_stamps_are_spread_until_the_next_one)
{
    uint64_t stamps[] = {0, 0, 0, 3000, 3000, 9000, 9000, 9000};
    cr_assert(trace_arrange(stamps, 8, &(struct trace_schedule){.spreads = true}, &err));
    expect_stamps(stamps, (uint64_t[]){0, 1000, 2000, 3000, 6000, 9000, 11000, 13000}, 8);
    uint64_t same[] = {5, 5};
    cr_assert(trace_arrange(same, 2, &(struct trace_schedule){.spreads = true}, &err));
    expect_stamps(same, (uint64_t[]){0, 0}, 2);
}

Test(trace, a_rate_scales_all_gaps_alike)
{
    uint64_t stamps[] = {0, UINT64_C(1000000000), UINT64_C(4000000000)};
    cr_assert(trace_arrange(stamps, 3, &(struct trace_schedule){.rate = 4}, &err));
    expect_stamps(stamps, (uint64_t[]){0, 125000000, 500000000}, 3);
    uint64_t same[] = {5, 5};
    cr_assert(trace_arrange(stamps, 3, &(struct trace_schedule){.speed = 0.5}, &err));
    cr_expect_eq(stamps[2], 1000000000);
    cr_assert(trace_arrange(stamps, 3, &(struct trace_schedule){.rate = 4, .speed = 2}, &err));
    cr_expect_eq(stamps[2], 250000000);
    cr_expect_not(trace_arrange(stamps, 3, &(struct trace_schedule){.speed = 1e-300}, &err));
    cr_expect_not(trace_arrange(same, 2, &(struct trace_schedule){.rate = 4}, &err));
    cr_expect(strstr(err.message, "--rate") != NULL);
}

/* ---- prompts ---- */

Test(trace, made_up_prompts_depend_on_key_and_place_alone)
{
    enum { N = 3000, VOCABULARY = 7, MASK = 6 };
    int32_t all[N], some[N], other[N];
    int n_same = 0, n_of[VOCABULARY] = {0};
    trace_fill_prompt(all, N, 1, VOCABULARY, MASK);
    trace_fill_prompt(some, 10, 1, VOCABULARY, MASK);
    trace_fill_prompt(other, N, 2, VOCABULARY, MASK);
    cr_expect_arr_eq(all, some, 10 * sizeof *all);
    for (int i = 0; i < N; i++) {
        cr_assert(all[i] >= 0 && all[i] < VOCABULARY);
        n_same += all[i] == other[i];
        n_of[all[i]]++;
    }
    cr_expect_eq(n_of[MASK], 0);
    cr_expect(n_same < N / 3, "%d of %d ids are the same for another key", n_same, N);
    for (int id = 1; id < MASK; id++) /* 0 stands in for the mask, too */
        cr_expect(fabs(n_of[id] - N / 7.0) < N / 20.0, "id %d: %d times", id, n_of[id]);
}
