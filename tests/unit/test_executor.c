/* The executor on a tiny model with dummy weights: every request gets exactly one answer, whatever
 * its neighbours and the room in a batch; settings that cannot be run are refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine.h"

#define N_REQUESTS 24
#define MASK_ID    50

static struct arena arena;
static struct engine engine;
static int32_t prompts[N_REQUESTS][16];

struct outcome {
    int32_t n_answers[N_REQUESTS], n_failures[N_REQUESTS];
    int32_t n_tokens[N_REQUESTS], steps[N_REQUESTS], n_effective[N_REQUESTS];
    int32_t blocks[N_REQUESTS], refreshes[N_REQUESTS];
    int64_t positions[N_REQUESTS];
    uint64_t first_ns[N_REQUESTS], begin_ns[4096]; /* of the first forward; of iterations */
    bool is_stopped[N_REQUESTS];
    int32_t ids[N_REQUESTS][64];
    int32_t n_iterations, n_iterations_max; /* 0: no limit */
    int64_t n_rows, n_picks;
};

static void open_engine_with(const struct engine_options *options, int32_t shift)
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
    struct error err = {0};
    cr_assert(arena_create(&arena, (size_t)256 << 20, NULL));
    cr_assert(engine_open(&engine, options, &config, &arena, &err), "%s", err.message);
}

static void open_engine(int32_t n_rows_max, int32_t shift)
{
    open_engine_with(&(struct engine_options){.model_dir = "dummy",
                                              .backend = "ref",
                                              .dummy_weights = true,
                                              .n_rows_max = n_rows_max,
                                              .n_requests_max = N_REQUESTS,
                                              .policy = POLICY_PLANNED},
                     shift);
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
    if (answer->failure) {
        outcome->n_failures[i]++;
        return true;
    }
    outcome->n_answers[i]++;
    outcome->n_tokens[i] = answer->n_tokens;
    outcome->n_effective[i] = answer->n_effective;
    outcome->steps[i] = answer->steps;
    outcome->blocks[i] = answer->blocks;
    outcome->refreshes[i] = answer->refresh_steps;
    outcome->positions[i] = answer->positions;
    outcome->first_ns[i] = answer->times.first_forward_ns;
    outcome->is_stopped[i] = answer->finish_reason == FINISH_STOP;
    memcpy(outcome->ids[i], answer->token_ids, (size_t)answer->n_tokens * sizeof(int32_t));
    return true;
}

static bool iterated(void *context, const struct executor_iteration *iteration)
{
    struct outcome *outcome = context;
    cr_assert_gt(iteration->end_ns, iteration->begin_ns);
    cr_assert_gt(iteration->load.n_rows, 0);
    outcome->n_rows += iteration->load.n_rows;
    outcome->n_picks += iteration->load.n_picks;
    outcome->begin_ns[outcome->n_iterations++ % 4096] = iteration->begin_ns;
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

static struct request (*make)(int32_t i) = make_request;

static bool run(struct outcome *outcome, struct error *err)
{
    struct request requests[N_REQUESTS];
    struct executor_events events = {
        .context = outcome, .answered = answered, .iterated = iterated};
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        requests[i] = make(i);
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

static bool is_answered_with(const struct outcome *outcome, int32_t id)
{
    for (int32_t i = 0; i < N_REQUESTS; i++)
        for (int32_t j = 0; j < outcome->n_tokens[i]; j++)
            if (outcome->ids[i][j] == id) return true;
    return false;
}

/* One token's embedding is not a number: only who has it in the prompt suffers. */
Test(executor, a_request_whose_numbers_break_fails_alone)
{
    static struct outcome good, outcome;
    struct error err = {0};
    open_engine(1024, 0);
    cr_assert(run(&good, &err), "%s", err.message);
    int32_t poison = 0; /* a token that no answer has: feeding it back would break that one, too */
    while (is_answered_with(&good, poison))
        poison++;
    struct matrix table = engine.model.weights.embedding;
    size_t row_bytes = (size_t)table.n_cols * dtype_bytes(table.dtype);
    memset((char *)table.data + (size_t)poison * row_bytes, 0xFF, row_bytes);
    cr_assert(run(&outcome, &err), "%s", err.message);
    int32_t n_failed = 0;
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        bool has_it = false;
        for (int32_t j = 0; j < 1 + i % 16; j++)
            has_it |= prompts[i][j] == poison;
        n_failed += has_it;
        cr_assert_eq(outcome.n_failures[i], has_it, "request %d", i);
        cr_assert_eq(outcome.n_answers[i], !has_it, "request %d", i);
        if (!has_it) cr_assert_arr_eq(outcome.ids[i], good.ids[i], sizeof good.ids[i]);
    }
    cr_assert(n_failed > 0 && n_failed < N_REQUESTS, "%d requests have the token", n_failed);
    close_engine();
}

/* ---- caches and policies ---- */

static struct request cache_request(int32_t i)
{
    struct request request = make_request(i);
    request.decode.cache = (enum cache_kind)(i % 4);
    request.decode.retention = 0.2 + 0.2 * (i % 5);
    request.decode.delay = i % 3;
    request.decode.shared_select = i % 6 == 3;
    request.decode.refresh_every = i % 5;
    request.decode.prompt_refresh_every = 1 + i % 3;
    request.decode.suffix_window = i % 4;
    return request;
}

static void open_tight(enum policy policy, int32_t n_rows_max, size_t kv_bytes, int32_t shift)
{
    open_engine_with(&(struct engine_options){.model_dir = "dummy",
                                              .backend = "ref",
                                              .dummy_weights = true,
                                              .n_rows_max = n_rows_max,
                                              .n_requests_max = N_REQUESTS,
                                              .kv_bytes = kv_bytes,
                                              .policy = policy,
                                              .n_running_max = policy == POLICY_STATIC ? 4 : 0},
                     shift);
}

Test(executor, caches_give_the_same_answers_under_every_policy_and_with_little_room)
{
    static struct outcome expected, outcome;
    struct error err = {0};
    make = cache_request;
    for (int32_t shift = 0; shift < 2; shift++) {
        open_tight(POLICY_PLANNED, 4096, SIZE_MAX, shift);
        memset(&expected, 0, sizeof expected);
        cr_assert(run(&expected, &err), "%s", err.message);
        close_engine();
        for (int policy = 0; policy < 3; policy++) {
            open_tight((enum policy)policy, 128, 40000, shift);
            memset(&outcome, 0, sizeof outcome);
            cr_assert(run(&outcome, &err), "%s", err.message);
            struct executor_counts counts = executor_counts(engine.executor);
            cr_assert_gt(outcome.n_iterations, expected.n_iterations);
            cr_assert_arr_eq(outcome.ids, expected.ids, sizeof expected.ids, "policy %d", policy);
            cr_assert_arr_eq(outcome.steps, expected.steps, sizeof expected.steps);
            cr_assert((policy == POLICY_STATIC) == (counts.n_pad_positions > 0));
            cr_assert_gt(counts.n_slots_peak, 0);
            cr_assert_leq(counts.n_slots_peak * 2 * 2 * 16 * 4, 40000, "slots within the pool");
            close_engine();
        }
    }
}

Test(executor, monolithic_logits_change_no_answer)
{
    static struct outcome tiled, whole;
    struct error err = {0};
    open_engine(1024, 1);
    cr_assert(run(&tiled, &err), "%s", err.message);
    close_engine();
    open_engine_with(&(struct engine_options){.model_dir = "dummy",
                                              .backend = "ref",
                                              .dummy_weights = true,
                                              .monolithic_logits = true,
                                              .n_rows_max = 1024,
                                              .n_requests_max = N_REQUESTS,
                                              .policy = POLICY_PLANNED},
                     1);
    cr_assert_eq(engine.memory.logits_bytes, 1024 * 51 * sizeof(float));
    cr_assert(run(&whole, &err), "%s", err.message);
    cr_assert_arr_eq(whole.ids, tiled.ids, sizeof tiled.ids);
    close_engine();
}

Test(executor, a_request_that_keeps_more_than_the_pool_is_refused_with_the_option)
{
    struct error err = {0};
    struct request request = cache_request(2);
    open_tight(POLICY_PLANNED, 1024, 256, 0);
    cr_assert_not(executor_check(engine.executor, &request, &err));
    cr_assert(strstr(err.message, "--kv-memory allows"), "%s", err.message);
    close_engine();
}

static void answer_one(const struct request *request, struct outcome *outcome)
{
    struct error err = {0};
    const struct executor_events events = {
        .context = outcome, .answered = answered, .iterated = iterated};
    cr_assert(executor_run(engine.executor, request, 1, &events, &err), "%s", err.message);
}

/* Opens the engine; the request's answer in full holds a stop token before token n_max. */
static struct request open_stopping(struct outcome *full, int32_t n_max)
{
    struct request request = make_request(13);
    request.index = 0;
    request.decode = (struct decode_settings){
        .gen_length = 60, .block_length = 4, .top_p = 1.0, .temperature = 5.0, .seed = 4};
    open_engine(1024, 0);
    answer_one(&request, full);
    cr_assert_lt(full->n_effective[0], n_max, "the seed must give a stop token for this test");
    request.decode.early_stop = true;
    return request;
}

Test(executor, early_stop_gives_the_prefix_of_the_full_answer)
{
    static struct outcome full, early;
    struct request request = open_stopping(&full, 60);
    answer_one(&request, &early);
    cr_assert_eq(early.n_tokens[0], full.n_effective[0]);
    cr_assert_arr_eq(early.ids[0], full.ids[0], (size_t)early.n_tokens[0] * sizeof(int32_t));
    cr_assert_lt(early.steps[0], full.steps[0]);
    close_engine();
}

Test(executor, a_forced_stop_takes_the_place_of_stop_tokens)
{
    static struct outcome full, forced;
    struct request request = open_stopping(&full, 40);
    const int32_t stops[] = {1, 7, 40, 60, 61, INT32_MAX};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        int32_t n = stops[i] < 60 ? stops[i] : 60;
        request.stop_after = stops[i];
        answer_one(&request, &forced);
        cr_assert_eq(forced.n_tokens[0], n);
        cr_assert_eq(forced.n_effective[0], n);
        cr_assert_eq(forced.is_stopped[0], stops[i] <= 60);
        cr_assert_arr_eq(forced.ids[0], full.ids[0], (size_t)n * sizeof(int32_t));
        cr_assert(forced.steps[0] >= n && forced.steps[0] <= (n + 3) / 4 * 4);
    }
    close_engine();
}

/* ---- steps ahead ---- */

/* A device that is late: it computes as ref does, but what a step found stays with it until
 * somebody waits for that step. Whether it pays not to wait changes from step to step. */
static struct {
    struct backend_ops ops;
    bool is_shifty;
    uint64_t keys[4096];
    int32_t n_steps, n_overlaps, n_keys;
    void *target[BACKEND_STEPS_MOST];
    size_t n_bytes[BACKEND_STEPS_MOST];
    char found[BACKEND_STEPS_MOST][64 << 10];
} late;

static void late_start_step(struct backend *backend, const struct batch *batch, uint64_t shape_key)
{
    late.n_steps++;
    late.n_overlaps += backend->n_submitted > 0;
    if (shape_key != 0) late.keys[late.n_keys++ % 4096] = shape_key;
    for (int32_t i = 0; i < batch->n_sequences && shape_key != 0; i++)
        cr_assert_gt(batch->sequences[i].n_cached, 0, "a Refresh is not to be replayed");
    if (shape_key != 0)
        cr_assert(batch->n_picks % backend->n_picks_multiple == 0 ||
                  batch->n_picks == batch->n_rows);
    if (late.is_shifty) backend->n_steps_ahead = late.n_steps % 7 < 5;
    backend_ref_ops.start_step(backend, batch, shape_key);
}

static void late_submit_step(struct backend *backend, void *target, struct matrix source)
{
    int32_t at = backend->n_submitted;
    size_t n_bytes = (size_t)source.n_rows * (size_t)source.n_cols * sizeof(int32_t);
    cr_assert_leq(n_bytes, sizeof late.found[0]);
    late.target[at] = target;
    late.n_bytes[at] = n_bytes;
    backend_ref_ops.submit_step(backend, late.found[at], source);
    memset(target, 0xA5, n_bytes);
}

static bool late_finish_step(struct backend *backend, uint64_t *device_ns, struct error *err)
{
    memcpy(late.target[0], late.found[0], late.n_bytes[0]);
    late.target[0] = late.target[1];
    late.n_bytes[0] = late.n_bytes[1];
    memcpy(late.found[0], late.found[1], sizeof late.found[0]);
    return backend_ref_ops.finish_step(backend, device_ns, err);
}

static void become_late(bool is_shifty, int32_t n_picks_multiple)
{
    memset(&late, 0, sizeof late);
    late.ops = backend_ref_ops;
    late.ops.start_step = late_start_step;
    late.ops.submit_step = late_submit_step;
    late.ops.finish_step = late_finish_step;
    late.is_shifty = is_shifty;
    engine.backend.ops = &late.ops;
    engine.backend.n_steps_ahead = 1;
    engine.backend.n_picks_multiple = n_picks_multiple;
}

/* How many tokens a step commits is known; where they stop is not. */
static struct request certain_request(int32_t i)
{
    struct request request = cache_request(i);
    request.decode.threshold = 0;
    request.decode.early_stop = i % 3 != 0;
    request.decode.gen_length = 12 + i;
    if (i % 5 == 2) request.decode.temperature = 5;
    if (request.decode.remasking == REMASKING_ORIGIN)
        request.decode.remasking = REMASKING_LOW_CONFIDENCE;
    int32_t n_block = request.decode.block_length;
    if (i % 6 == 1) /* half as many steps as cells */
        request.decode.steps = (12 + i + n_block - 1) / n_block * ((n_block + 1) / 2);
    return request;
}

/* Among others whose thresholds make every iteration uncertain that they take part in. */
static struct request mixed_request(int32_t i)
{
    struct request request = certain_request(i);
    if (i % 8 == 0) request.decode.threshold = 0.05;
    return request;
}

static void assert_same(const struct outcome *found, const struct outcome *expected)
{
    cr_assert_arr_eq(found->n_answers, expected->n_answers, sizeof expected->n_answers);
    cr_assert_arr_eq(found->n_failures, expected->n_failures, sizeof expected->n_failures);
    cr_assert_arr_eq(found->ids, expected->ids, sizeof expected->ids);
    cr_assert_arr_eq(found->n_tokens, expected->n_tokens, sizeof expected->n_tokens);
    cr_assert_arr_eq(found->n_effective, expected->n_effective, sizeof expected->n_effective);
    cr_assert_arr_eq(found->is_stopped, expected->is_stopped, sizeof expected->is_stopped);
    cr_assert_arr_eq(found->steps, expected->steps, sizeof expected->steps);
    cr_assert_arr_eq(found->blocks, expected->blocks, sizeof expected->blocks);
    cr_assert_arr_eq(found->refreshes, expected->refreshes, sizeof expected->refreshes);
    cr_assert_arr_eq(found->positions, expected->positions, sizeof expected->positions);
}

/* Each request's first forward began when one of the iterations did. */
static void assert_times(const struct outcome *found)
{
    cr_assert_leq(found->n_iterations, 4096);
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        int32_t at = 0;
        while (at < found->n_iterations && found->begin_ns[at] != found->first_ns[i])
            at++;
        cr_assert_lt(at, found->n_iterations, "request %d", i);
    }
}

/* Runs the requests step by step and then ahead, in little room; both must agree. */
static void compare_ahead(enum policy policy, int32_t shift, bool is_shifty)
{
    static struct outcome expected, outcome;
    struct error err = {0};
    int64_t n_rows[2];
    for (int32_t ahead = 0; ahead < 2; ahead++) {
        struct outcome *found = ahead ? &outcome : &expected;
        memset(found, 0, sizeof *found);
        open_tight(policy, 256, 60000, shift);
        if (ahead) become_late(is_shifty, 1);
        cr_assert(run(found, &err), "%s", err.message);
        cr_assert_eq(engine.backend.n_submitted, 0);
        struct executor_counts counts = executor_counts(engine.executor);
        n_rows[ahead] = counts.n_positions - counts.n_pad_positions;
        close_engine();
    }
    assert_same(&outcome, &expected);
    assert_times(&expected);
    assert_times(&outcome);
    cr_assert_geq(n_rows[1], n_rows[0], "what was in flight at a stop was computed for nothing");
}

Test(executor, steps_asked_for_ahead_of_results_change_no_answer_and_no_count)
{
    for (int32_t i = 0; i < 12; i++) {
        make = i < 6 ? certain_request : mixed_request;
        compare_ahead((enum policy)(i % 3), i / 3 % 2, false);
        if (i < 6) cr_assert_eq(late.n_overlaps, late.n_steps - 1, "all but the first overlap");
        else cr_assert_lt(late.n_overlaps, late.n_steps);
        cr_assert_gt(late.n_overlaps, 0);
        compare_ahead((enum policy)(i % 3), i / 3 % 2, true);
    }
}

Test(executor, a_request_that_breaks_while_its_next_step_is_in_flight_fails_alone)
{
    static struct outcome expected, outcome;
    struct error err = {0};
    int32_t n_failed = 0;
    make = certain_request;
    for (int32_t ahead = 0; ahead < 2; ahead++) {
        struct outcome *found = ahead ? &outcome : &expected;
        open_tight(POLICY_PLANNED, 1024, SIZE_MAX, 0);
        struct matrix table = engine.model.weights.embedding;
        size_t row_bytes = (size_t)table.n_cols * dtype_bytes(table.dtype);
        memset((char *)table.data + 3 * row_bytes, 0xFF, row_bytes);
        if (ahead) become_late(false, 1);
        cr_assert(run(found, &err), "%s", err.message);
        close_engine();
    }
    assert_same(&outcome, &expected);
    for (int32_t i = 0; i < N_REQUESTS; i++)
        n_failed += outcome.n_failures[i];
    cr_assert(n_failed > 0 && n_failed < N_REQUESTS, "%d failed", n_failed);
    cr_assert_gt(late.n_overlaps, 0);
}

Test(executor, a_run_that_stops_leaves_nothing_in_flight)
{
    static struct outcome outcome = {.n_iterations_max = 5}, whole;
    struct error err = {0};
    make = certain_request;
    open_tight(POLICY_PLANNED, 1024, SIZE_MAX, 0);
    become_late(false, 1);
    cr_assert_not(run(&outcome, &err));
    cr_assert_eq(err.code, ERROR_STOPPED);
    cr_assert_eq(engine.backend.n_submitted, 0);
    cr_assert_eq(late.n_steps, outcome.n_iterations + 1);
    cr_assert(run(&whole, &err), "%s", err.message);
    close_engine();
}

static struct request reuse_request(int32_t i)
{
    struct request request = make_request(i);
    request.decode = (struct decode_settings){.gen_length = 32,
                                              .block_length = 16,
                                              .top_p = 1.0,
                                              .cache = CACHE_DUAL,
                                              .early_stop = true,
                                              .seed = 5};
    return request;
}

/* One request after the other, so that many iterations are Reuse alone. */
Test(executor, shapes_padded_to_recur_change_no_answer)
{
    static struct outcome expected, outcome;
    struct error err = {0};
    int32_t n_distinct = 0;
    make = reuse_request;
    for (int32_t padded = 0; padded < 2; padded++) {
        struct outcome *found = padded ? &outcome : &expected;
        open_tight(POLICY_FCFS, 64, 40000, 0);
        if (padded) become_late(false, 8);
        cr_assert(run(found, &err), "%s", err.message);
        close_engine();
    }
    assert_same(&outcome, &expected);
    cr_assert_gt(late.n_keys, late.n_steps / 2);
    for (int32_t i = 0, j; i < late.n_keys; i++) {
        for (j = 0; j < i && late.keys[j] != late.keys[i];)
            j++;
        n_distinct += j == i;
    }
    cr_assert_leq(n_distinct, 8, "%d shapes", n_distinct);
}

/* ---- arrivals ---- */

#define GAP_NS UINT64_C(3000000)

static int32_t n_waits, n_waits_max;

static bool waited(void *context, uint64_t until_ns)
{
    (void)context;
    n_waits++;
    while (n_waits % 2 == 0 && clock_now_ns() < until_ns) /* every other time too short */
        ;
    return n_waits_max == 0 || n_waits < n_waits_max;
}

static bool answered_in_time(void *context, const struct answer *answer, struct error *err)
{
    cr_assert_geq(answer->times.first_forward_ns, answer->request->arrival_ns);
    cr_assert_gt(answer->times.finished_ns, answer->times.first_forward_ns);
    return answered(context, answer, err);
}

static bool run_arrivals(struct outcome *outcome, enum policy policy, uint64_t gap_ns,
                         struct error *err)
{
    struct request requests[N_REQUESTS];
    const struct planner_options options = {.policy = policy};
    struct executor_events events = {.context = outcome,
                                     .answered = answered_in_time,
                                     .iterated = iterated,
                                     .waited = waited,
                                     .chosen = &options};
    uint64_t start_ns = clock_now_ns();
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        requests[i] = make(i);
        requests[i].arrival_ns = start_ns + (uint64_t)(i / 3) * gap_ns;
    }
    return executor_run(engine.executor, requests, N_REQUESTS, &events, err);
}

Test(executor, requests_run_once_they_have_arrived_and_answers_are_the_same)
{
    static struct outcome at_once, in_time;
    struct error err = {0};
    open_engine(256, 0);
    cr_assert(run(&at_once, &err), "%s", err.message);
    for (int policy = POLICY_STATIC; policy <= POLICY_PLANNED; policy++) {
        memset(&in_time, 0, sizeof in_time);
        cr_assert(run_arrivals(&in_time, (enum policy)policy, GAP_NS, &err), "%s", err.message);
        cr_assert_arr_eq(in_time.n_answers, at_once.n_answers, sizeof at_once.n_answers);
        cr_assert_arr_eq(in_time.ids, at_once.ids, sizeof at_once.ids);
    }
    cr_assert_gt(n_waits, 0);
    close_engine();
}

/* An iteration that was asked for ahead would leave out who arrives while the one before it runs.
 */
Test(executor, no_step_is_asked_for_ahead_while_somebody_has_yet_to_arrive)
{
    static struct outcome outcome;
    struct request requests[2] = {certain_request(3), certain_request(4)};
    struct executor_events events = {
        .context = &outcome, .answered = answered_in_time, .iterated = iterated, .waited = waited};
    struct error err = {0};
    open_tight(POLICY_PLANNED, 1024, SIZE_MAX, 0);
    become_late(false, 1);
    requests[1].arrival_ns = clock_now_ns() + UINT64_C(1000000000);
    cr_assert(executor_run(engine.executor, requests, 2, &events, &err), "%s", err.message);
    cr_assert_gt(late.n_overlaps, 0, "once all have arrived");
    cr_assert_eq(late.n_overlaps, outcome.steps[4] - 1, "only then");
    close_engine();
}

Test(executor, a_run_stops_while_it_waits)
{
    static struct outcome outcome;
    struct error err = {0};
    n_waits_max = 1;
    open_engine(1024, 0);
    /* However slow the machine is, the second of them is an hour away. */
    cr_assert_not(run_arrivals(&outcome, POLICY_FCFS, UINT64_C(3600000000000), &err));
    cr_assert_eq(err.code, ERROR_STOPPED);
    cr_assert_eq(n_waits, 1);
    cr_assert_eq(outcome.n_answers[0], 1);
    cr_assert_eq(outcome.n_answers[N_REQUESTS - 1], 0);
    close_engine();
}

Test(executor, infill_keeps_what_is_given_and_fills_the_rest)
{
    static struct outcome outcome;
    struct error err = {0};
    int32_t ids[] = {4, MASK_ID, 9, MASK_ID, MASK_ID, 2};
    struct request request = {
        .id = "x", .n_prompt = 6, .prompt_ids = ids, .decode = {.block_length = 2, .top_p = 1.0}};
    open_engine(1024, 1);
    cr_assert(executor_check(engine.executor, &request, &err), "%s", err.message);
    answer_one(&request, &outcome);
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
    cr_assert_eq(counts.n_iterations, outcome.n_iterations);
    cr_assert_eq(counts.n_positions, outcome.n_rows);
    cr_assert_eq(counts.n_picks, outcome.n_picks);
    cr_assert_gt(counts.n_positions, counts.n_picks);
    cr_assert_eq(counts.predicted_ns, 0);
    cr_assert_leq(counts.compute_ns + counts.planning_ns, counts.iterations_ns);
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
