/* app/prompts reading a trace: rows become requests with arrivals and forced stops, what is too
 * long becomes what was asked for, and no token gets lost in between. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/prompts.h"
#include "app/window.h"

enum { MASK_ID = 90, N_VOCAB = 100, N_POSITIONS = 128, BLOCK = 16 };

static struct options flags;
static struct model_config config;
static struct prompts *prompts;
static struct prompt prompt;
static bool may_be_prompts;
static struct error err;

static void set_up(void)
{
    options_init(&flags, SUBCOMMAND_REPLAY);
    config = (struct model_config){.family = FAMILY_LLADA,
                                   .chat_name = "llada",
                                   .n_vocab = N_VOCAB,
                                   .n_positions = N_POSITIONS,
                                   .mask_id = MASK_ID,
                                   .gen_length = 32,
                                   .block_length = BLOCK,
                                   .remasking = "low_confidence"};
}

static void tear_down(void)
{
    prompts_close(prompts);
}

TestSuite(prompts_trace, .init = set_up, .fini = tear_down);

static bool open_trace(const char *text, bool only_shapes)
{
    char path[] = "/tmp/test-trace-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    const struct prompts_options options = {.path = path,
                                            .flags = &flags,
                                            .config = &config,
                                            .is_trace = true,
                                            .may_be_prompts = may_be_prompts,
                                            .only_shapes = only_shapes};
    prompts_close(prompts);
    prompts = NULL;
    bool is_open = prompts_open(&prompts, &options, &err);
    unlink(path);
    return is_open;
}

static void read_row(enum prompt_code code)
{
    enum prompts_status status = prompts_next(prompts, &prompt, &err);
    cr_assert_eq(status, PROMPTS_READ, "%s", err.message);
    cr_assert_str_eq(prompts_code_name(prompt.code), prompts_code_name(code), "%s", prompt.message);
}

static void expect_end(void)
{
    cr_assert_eq(prompts_next(prompts, &prompt, &err), PROMPTS_END);
}

static void expect_lengths(int32_t n_prompt, int32_t gen_length, int32_t stop_after)
{
    cr_expect_eq(prompt.request.n_prompt, n_prompt, "%d", prompt.request.n_prompt);
    cr_expect_eq(prompt.request.decode.gen_length, gen_length, "%d",
                 prompt.request.decode.gen_length);
    cr_expect_eq(prompt.request.stop_after, stop_after, "%d", prompt.request.stop_after);
}

static void expect_sum(const struct prompts_sum *sum, int64_t n, int64_t n_prompt, int64_t n_output)
{
    cr_expect_eq(sum->n_requests, n);
    cr_expect_eq(sum->n_prompt, n_prompt);
    cr_expect_eq(sum->n_output, n_output);
}

static const char vidur[] = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
                            "0.5,10,20\r\n\n"
                            "0.75,100,30\n"
                            "1,300,200\n"
                            "2,5,0";

Test(prompts_trace, an_output_is_rounded_up_to_blocks_and_stops_where_it_did)
{
    cr_assert(open_trace(vidur, true), "%s", err.message);
    read_row(PROMPT_GOOD);
    expect_lengths(10, 32, 20);
    cr_expect_eq(prompt.request.arrival_ns, 500000000);
    cr_expect_null(prompt.request.prompt_ids);
    cr_expect_eq(prompt.index, 0);
    cr_expect_eq(prompt.line, 2);
    read_row(PROMPT_TOO_LONG);
    cr_expect_eq(prompt.index, 2, "blank lines count");
    read_row(PROMPT_INVALID_SETTING); /* the output alone is longer than the model */
    expect_end();
    const struct prompts_trace *sums = prompts_trace(prompts);
    expect_sum(&sums->read, 4, 415, 250);
    expect_sum(&sums->refused, 2, 400, 230);
    expect_sum(&sums->skipped, 1, 5, 0);
    expect_sum(&sums->cut, 0, 0, 0);
}

Test(prompts_trace, what_is_too_long_can_be_cut_to_what_fits)
{
    flags.over_length = "clip";
    cr_assert(open_trace(vidur, true), "%s", err.message);
    read_row(PROMPT_GOOD);
    read_row(PROMPT_GOOD);
    expect_lengths(96, 32, 30);
    read_row(PROMPT_GOOD);
    expect_lengths(16, 112, 200); /* beyond the canvas: nothing stops */
    cr_expect_eq(prompt.n_output, 112);
    expect_end();
    expect_sum(&prompts_trace(prompts)->cut, 2, 4 + 284, 88);
}

Test(prompts_trace, what_is_too_long_can_be_left_out)
{
    flags.over_length = "skip";
    cr_assert(open_trace(vidur, true), "%s", err.message);
    read_row(PROMPT_GOOD);
    expect_end();
    expect_sum(&prompts_trace(prompts)->skipped, 3, 405, 230);
}

Test(prompts_trace, a_given_gen_length_is_the_canvas_and_cuts_longer_outputs)
{
    cr_assert(options_set(&flags, OPTION_gen_length, "--gen-length", "24", &err));
    cr_assert(open_trace(vidur, true), "%s", err.message);
    read_row(PROMPT_GOOD);
    expect_lengths(10, 24, 20);
    read_row(PROMPT_GOOD);
    expect_lengths(100, 24, 30);
    expect_sum(&prompts_trace(prompts)->cut, 1, 0, 6);
}

Test(prompts_trace, without_early_stop_nothing_stops)
{
    cr_assert(options_set(&flags, OPTION_no_early_stop, "--no-early-stop", "true", &err));
    cr_assert(open_trace(vidur, true), "%s", err.message);
    read_row(PROMPT_GOOD);
    expect_lengths(10, 32, INT32_MAX);
}

Test(prompts_trace, rows_of_ours_may_have_prompts_ids_and_settings)
{
    cr_assert(open_trace("{\"arrival_s\": 3, \"prompt_token_ids\": [1, 2], \"id\": \"x\"}\n"
                         "{\"arrival_s\": 1, \"prompt_tokens\": 5, \"output_tokens\": 9, "
                         "\"gen_length\": 8, \"block_length\": 4}\n"
                         "{\"arrival_s\": 1, \"output_tokens\": 9}\n"
                         "{\"arrival_s\": 2, \"prompt_tokens\": 5, \"id\": \"x\"}",
                         false),
              "%s", err.message);
    read_row(PROMPT_GOOD);
    expect_lengths(2, 32, 0);
    cr_expect_str_eq(prompt.id.data, "x");
    cr_expect_eq(prompt.request.prompt_ids[1], 2);
    read_row(PROMPT_GOOD);
    expect_lengths(5, 8, 9);
    cr_expect_eq(prompt.request.decode.block_length, 4);
    read_row(PROMPT_MISSING);
    read_row(PROMPT_DUPLICATE_ID);
    expect_sum(&prompts_trace(prompts)->read, 4, 2 + 5, 18);
}

Test(prompts_trace, made_up_prompts_depend_on_seed_and_id_alone)
{
    static const char text[] = "{\"arrival_s\": 0, \"prompt_tokens\": 6, \"id\": \"a\"}\n"
                               "{\"arrival_s\": 1, \"prompt_tokens\": 6, \"id\": \"b\"}";
    static const char turned[] = "{\"arrival_s\": 9, \"prompt_tokens\": 6, \"id\": \"b\"}\n"
                                 "{\"arrival_s\": 9, \"prompt_tokens\": 6, \"id\": \"a\"}";
    int32_t a[6], b[6];
    cr_assert(open_trace(text, false), "%s", err.message);
    read_row(PROMPT_GOOD);
    memcpy(a, prompt.request.prompt_ids, sizeof a);
    read_row(PROMPT_GOOD);
    memcpy(b, prompt.request.prompt_ids, sizeof b);
    cr_expect_neq(memcmp(a, b, sizeof a), 0);
    cr_assert(open_trace(turned, false), "%s", err.message);
    read_row(PROMPT_GOOD);
    cr_expect_arr_eq(prompt.request.prompt_ids, b, sizeof b);
    flags.seed = 1;
    cr_assert(open_trace(text, false), "%s", err.message);
    read_row(PROMPT_GOOD);
    cr_expect_neq(memcmp(prompt.request.prompt_ids, a, sizeof a), 0);
}

Test(prompts_trace, a_window_holds_prompts_of_which_only_the_length_is_known)
{
    const struct window_limits limits = {.n_prompts_max = 10, .n_cells_max = 1000};
    struct window window;
    cr_assert(open_trace(vidur, true), "%s", err.message);
    cr_assert(window_create(&window, &limits, &err), "%s", err.message);
    window_fill(&window, &(struct intake){.prompts = prompts, .hurry_fd = -1});
    cr_expect(window.is_last);
    cr_expect_eq(window.n_prompts, 3);
    cr_assert_eq(window.n_requests, 1);
    cr_expect_null(window.requests[0].prompt_ids);
    cr_expect_eq(window.requests[0].stop_after, 20);
    window_destroy(&window);
}

Test(prompts_trace, an_input_that_is_no_trace_is_refused_with_its_line)
{
    cr_expect_not(open_trace("\n\n{\"prompt\": \"1 + 2\"}", true));
    cr_expect_not_null(strstr(err.message, ":3: the first line"), "%s", err.message);
    cr_expect_not(open_trace("", true));
    cr_expect_not_null(strstr(err.message, "no rows"), "%s", err.message);
    flags.time_column = "when";
    cr_expect_not(open_trace(vidur, true));
    cr_expect_not_null(strstr(err.message, "no column \"when\""), "%s", err.message);
}

Test(prompts_trace, an_input_that_may_be_prompts_is_what_its_first_line_says)
{
    may_be_prompts = true;
    cr_assert(open_trace(vidur, true), "%s", err.message);
    cr_expect_not_null(prompts_trace(prompts));
    read_row(PROMPT_GOOD);
    cr_expect_eq(prompt.request.arrival_ns, 500000000);
    cr_assert(open_trace("\n{\"prompt_token_ids\": [1, 2], \"timestamp\": 3}\n"
                         "{\"arrival_s\": 1, \"prompt_token_ids\": [1]}",
                         true),
              "%s", err.message);
    cr_expect_null(prompts_trace(prompts));
    read_row(PROMPT_GOOD);
    expect_lengths(2, 32, 0);
    cr_expect_eq(prompt.line, 2);
    cr_expect_eq(prompt.request.arrival_ns, 0);
    cr_expect_null(prompt.request.prompt_ids);
    read_row(PROMPT_GOOD); /* a column that prompts do not know */
    cr_expect_eq(prompt.line, 3);
    expect_end();
    cr_assert(open_trace("a,b\nc,d", true), "%s", err.message);
    read_row(PROMPT_INVALID_JSON);
    read_row(PROMPT_INVALID_JSON);
    cr_assert(open_trace("", true), "%s", err.message);
    expect_end();
    cr_assert(options_set(&flags, OPTION_rate, "--rate", "2", &err)); /* only traces have one */
    cr_expect_not(open_trace("{\"prompt_token_ids\": [1, 2]}", true));
    cr_expect_not_null(strstr(err.message, ":1: the first line"), "%s", err.message);
}
