/* The executor on a tiny model with dummy weights: every request gets exactly one answer, whatever
 * its neighbours and the room in a batch; settings that cannot be run are refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define N_REQUESTS 24
#define MASK_ID    50

static struct arena arena;
static struct engine engine;
static int32_t prompts[N_REQUESTS][16];

struct outcome {
    int32_t n_answers[N_REQUESTS];
    int32_t n_tokens[N_REQUESTS], steps[N_REQUESTS], n_effective[N_REQUESTS];
    int32_t ids[N_REQUESTS][64];
    int32_t n_iterations, n_iterations_max; /* 0: no limit */
};

static void open_engine(int32_t n_rows_max, int32_t shift)
{
    struct model_config config = {.family = FAMILY_LLADA,
                                  .n_layers = 2,
                                  .hidden = 32,
                                  .n_heads = 2,
                                  .n_kv_heads = 1,
                                  .head_dim = 16,
                                  .ffn = 48,
                                  .n_vocab = 51,
                                  .n_positions = 96,
                                  .rope_theta = 10000.0f,
                                  .rms_epsilon = 1e-5f,
                                  .shift = shift,
                                  .mask_id = MASK_ID,
                                  .eos_id = 7,
                                  .eot_id = -1,
                                  .n_stop_ids = 4,
                                  .stop_ids = {7, 11, 20, 33}};
    struct engine_options options = {.model_dir = "dummy",
                                     .backend = "ref",
                                     .dummy_weights = true,
                                     .n_rows_max = n_rows_max,
                                     .n_requests_max = N_REQUESTS};
    struct error err = {0};
    cr_assert(arena_create(&arena, (size_t)256 << 20, NULL));
    cr_assert(engine_open(&engine, &options, &config, &arena, &err), "%s", err.message);
}

static void close_engine(void)
{
    engine_close(&engine);
    arena_destroy(&arena);
}

static bool answered(void *context, const struct answer *answer, struct error *err)
{
    struct outcome *outcome = context;
    int64_t i = answer->request->index;
    (void)err;
    outcome->n_answers[i]++;
    outcome->n_tokens[i] = answer->n_tokens;
    outcome->n_effective[i] = answer->n_effective;
    outcome->steps[i] = answer->steps;
    memcpy(outcome->ids[i], answer->token_ids, (size_t)answer->n_tokens * sizeof(int32_t));
    return true;
}

static bool iterated(void *context)
{
    struct outcome *outcome = context;
    outcome->n_iterations++;
    return outcome->n_iterations_max == 0 || outcome->n_iterations < outcome->n_iterations_max;
}

static struct request make_request(int32_t i)
{
    int32_t n_prompt = 1 + i % 16;
    for (int32_t j = 0; j < n_prompt; j++)
        prompts[i][j] = (i * 7 + j * 3) % MASK_ID;
    struct request request = {
        .index = i,
        .id = "x",
        .id_hash = (uint64_t)i,
        .n_prompt = n_prompt,
        .prompt_ids = prompts[i],
        .decode = {.gen_length = 1 + i % 30, .block_length = 1 + i % 9, .top_p = 1.0, .seed = 5}};
    if (i % 4 == 1) request.decode.threshold = 0.05;
    if (i % 4 == 2) request.decode.temperature = 1.0;
    if (i % 4 == 3) request.decode.cfg_scale = 0.5;
    if (i % 5 == 0) request.decode.remasking = REMASKING_ENTROPY, request.decode.threshold = 0;
    if (i % 7 == 0) request.decode.remasking = REMASKING_ORIGIN, request.decode.threshold = 0;
    return request;
}

static bool run(struct outcome *outcome, struct error *err)
{
    struct request requests[N_REQUESTS];
    struct executor_events events = {
        .context = outcome, .answered = answered, .iterated = iterated};
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        requests[i] = make_request(i);
        cr_assert(executor_check(engine.executor, &requests[i], err), "%s", err->message);
    }
    return executor_run(engine.executor, requests, N_REQUESTS, &events, err);
}

Test(executor, every_request_gets_one_complete_answer)
{
    static struct outcome outcome;
    struct error err = {0};
    open_engine(1024, 0);
    cr_assert(run(&outcome, &err), "%s", err.message);
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        cr_assert_eq(outcome.n_answers[i], 1);
        cr_assert_eq(outcome.n_tokens[i], 1 + i % 30);
        cr_assert_leq(outcome.n_effective[i], outcome.n_tokens[i]);
        for (int32_t j = 0; j < outcome.n_tokens[i]; j++)
            cr_assert(outcome.ids[i][j] >= 0 && outcome.ids[i][j] < MASK_ID, "a mask is left");
        if (i % 4 == 0 && i % 5 != 0 && i % 7 != 0)
            cr_assert_eq(outcome.steps[i], outcome.n_tokens[i], "one token a step");
    }
    close_engine();
}

Test(executor, answers_do_not_depend_on_the_room_in_a_batch)
{
    static struct outcome wide, narrow;
    struct error err = {0};
    open_engine(1024, 1);
    cr_assert(run(&wide, &err), "%s", err.message);
    close_engine();
    open_engine(96, 1);
    cr_assert(run(&narrow, &err), "%s", err.message);
    cr_assert_gt(narrow.n_iterations, wide.n_iterations);
    cr_assert_arr_eq(narrow.ids, wide.ids, sizeof wide.ids);
    cr_assert_arr_eq(narrow.steps, wide.steps, sizeof wide.steps);
    close_engine();
}

Test(executor, early_stop_gives_the_prefix_of_the_full_answer)
{
    static struct outcome full, early;
    struct error err = {0};
    struct request request = make_request(13);
    struct executor_events events = {.context = &full, .answered = answered, .iterated = iterated};
    request.index = 0;
    request.decode = (struct decode_settings){
        .gen_length = 60, .block_length = 4, .top_p = 1.0, .temperature = 5.0, .seed = 4};
    open_engine(1024, 0);
    cr_assert(executor_run(engine.executor, &request, 1, &events, &err), "%s", err.message);
    cr_assert_lt(full.n_effective[0], 60, "the seed must give a stop token for this test");
    request.decode.early_stop = true;
    events.context = &early;
    cr_assert(executor_run(engine.executor, &request, 1, &events, &err), "%s", err.message);
    cr_assert_eq(early.n_tokens[0], full.n_effective[0]);
    cr_assert_arr_eq(early.ids[0], full.ids[0], (size_t)early.n_tokens[0] * sizeof(int32_t));
    cr_assert_lt(early.steps[0], full.steps[0]);
    close_engine();
}

Test(executor, infill_keeps_what_is_given_and_fills_the_rest)
{
    static struct outcome outcome;
    struct error err = {0};
    int32_t ids[] = {4, MASK_ID, 9, MASK_ID, MASK_ID, 2};
    struct request request = {
        .id = "x", .n_prompt = 6, .prompt_ids = ids, .decode = {.block_length = 2, .top_p = 1.0}};
    struct executor_events events = {
        .context = &outcome, .answered = answered, .iterated = iterated};
    open_engine(1024, 1);
    cr_assert(executor_check(engine.executor, &request, &err), "%s", err.message);
    cr_assert(executor_run(engine.executor, &request, 1, &events, &err), "%s", err.message);
    cr_assert_eq(outcome.n_tokens[0], 6);
    cr_assert_eq(outcome.n_effective[0], 3);
    for (int32_t i = 0; i < 6; i++) {
        cr_assert(ids[i] == MASK_ID || outcome.ids[0][i] == ids[i]);
        cr_assert_neq(outcome.ids[0][i], MASK_ID);
    }
    close_engine();
}

Test(executor, a_run_stops_when_it_is_told_to)
{
    static struct outcome outcome = {.n_iterations_max = 3};
    struct error err = {0};
    open_engine(1024, 0);
    cr_assert_not(run(&outcome, &err));
    cr_assert_eq(err.code, ERROR_STOPPED);
    cr_assert_eq(outcome.n_iterations, 3);
    close_engine();
}

Test(executor, requests_that_cannot_run_are_refused_with_the_reason)
{
    struct error err = {0};
    struct request request = make_request(5);
    int32_t bad[] = {3, 51};
    open_engine(40, 0);
    request.prompt_ids = bad;
    request.n_prompt = 2;
    cr_assert_not(executor_check(engine.executor, &request, &err));
    cr_assert(strstr(err.message, "prompt token 1 is 51, must be from 0 to 50"), "%s", err.message);
    bad[1] = -1;
    cr_assert_not(executor_check(engine.executor, &request, &err));
    bad[1] = 1;
    request.decode.gen_length = 50;
    cr_assert_not(executor_check(engine.executor, &request, &err));
    cr_assert(strstr(err.message, "--rows allows 40"), "%s", err.message);
    close_engine();
}

Test(executor, counts_add_up)
{
    static struct outcome outcome;
    struct error err = {0};
    int64_t n_tokens = 0;
    open_engine(1024, 0);
    cr_assert(run(&outcome, &err), "%s", err.message);
    struct executor_counts counts = executor_counts(engine.executor);
    for (int32_t i = 0; i < N_REQUESTS; i++)
        n_tokens += outcome.n_tokens[i];
    cr_assert_eq(counts.n_commits, n_tokens);
    cr_assert_eq(counts.n_iterations, outcome.n_iterations + 1);
    cr_assert_gt(counts.n_positions, counts.n_picks);
    close_engine();
}

Test(engine, memory_that_does_not_suffice_is_refused_with_figures)
{
    struct error err = {0};
    struct engine refused;
    struct model_config config = {.n_layers = 1,
                                  .hidden = 32,
                                  .n_heads = 2,
                                  .n_kv_heads = 2,
                                  .head_dim = 16,
                                  .ffn = 48,
                                  .n_vocab = 51,
                                  .n_positions = 96,
                                  .rope_theta = 1e4f,
                                  .mask_id = MASK_ID};
    struct engine_options options = {.model_dir = "dummy",
                                     .backend = "ref",
                                     .dummy_weights = true,
                                     .n_requests_max = 4,
                                     .memory_bytes_max = 100000};
    cr_assert(arena_create(&arena, (size_t)256 << 20, NULL));
    cr_assert_not(engine_open(&refused, &options, &config, &arena, &err));
    cr_assert_eq(err.code, ERROR_UNAVAILABLE);
    cr_assert(strstr(err.message, "MiB allowed"), "%s", err.message);
    arena_destroy(&arena);
}
