/* Properties of plans over random sets of requests: the checker accepts every plan of every policy
 * and refuses broken ones, bounds bound, the same input gives the same plan. Seeds are in messages.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"

#define N_MAX 400

static struct arena scratch;
static struct cost_model cost;
static struct phases phases[N_MAX];
static uint64_t arrival_ns[N_MAX];
static int32_t stop_after[N_MAX];

static const struct cost_shape shape = {.n_layers = 32,
                                        .hidden = 4096,
                                        .n_heads = 32,
                                        .n_kv_heads = 32,
                                        .head_dim = 128,
                                        .ffn = 12288,
                                        .n_vocab = 126464,
                                        .weight_element_bytes = 2,
                                        .kv_element_bytes = 2};

static void setup(void)
{
    const struct cost_profile profile = {.base_ns = 1e6,
                                         .bytes_per_s = 1e12,
                                         .attention_flops_per_s = 8e13,
                                         .n_rates = 3,
                                         .rates = {{1, 5e12}, {128, 1e14}, {1024, 1.6e14}}};
    cost_init(&cost, &profile, &shape);
    cr_assert(arena_create(&scratch, (size_t)1 << 30, NULL));
}

static void teardown(void)
{
    arena_destroy(&scratch);
}

TestSuite(plan, .init = setup, .fini = teardown);

static struct decode_settings draw_settings(void)
{
    struct decode_settings decode = {.gen_length = 1 + rand() % 70,
                                     .block_length = 1 + rand() % 40,
                                     .cache = (enum cache_kind)(rand() % 4),
                                     .retention = 0.05 + (rand() % 20) * 0.05,
                                     .delay = rand() % 3,
                                     .refresh_every = rand() % 3 == 0 ? rand() % 9 : 0,
                                     .prompt_refresh_every = rand() % 3 == 0 ? 1 + rand() % 4 : 1,
                                     .suffix_window = rand() % 3 == 0 ? rand() % 3 : 0};
    int32_t n_blocks = (decode.gen_length + decode.block_length - 1) / decode.block_length;
    if (rand() % 3 == 0) decode.steps = n_blocks * (1 + rand() % 12);
    if (rand() % 4 == 0) decode.threshold = 0.9;
    if (rand() % 5 == 0) decode.cfg_scale = 1;
    return decode;
}

/* A random input; `n_slots` is as tight as its largest request allows when `is_tight`. */
static struct plan_input draw(unsigned seed, bool is_tight)
{
    const struct phases_model model = {.n_positions = 4096, .shift = (int32_t)(seed % 2)};
    struct plan_input input = {.cost = &cost,
                               .phases = phases,
                               .arrival_ns = seed % 3 == 0 ? arrival_ns : NULL,
                               .stop_after = seed % 4 == 0 ? stop_after : NULL,
                               .tokens_per_step = 1 + (seed % 5) * 0.7,
                               .keeps_runs = true,
                               .is_online = seed % 6 == 0};
    int64_t n_slots = 0;
    int32_t n_rows = 0;
    uint64_t now_ns = 0;
    srand(seed);
    input.n_requests = 1 + rand() % (seed % 7 == 0 ? N_MAX : 40);
    for (int32_t i = 0; i < input.n_requests; i++) {
        struct decode_settings decode = draw_settings();
        struct error err = {0};
        cr_assert(phases_init(&phases[i], 1 + rand() % 200, false, &decode, &model, &err), "%s",
                  err.message);
        now_ns += (uint64_t)(rand() % 3) * 50000000u;
        arrival_ns[i] = now_ns;
        stop_after[i] = 1 + rand() % 60;
        int64_t needs = phases_most_slots(&phases[i]);
        if (needs > n_slots) n_slots = needs;
        if (phases_full_rows(&phases[i]) > n_rows) n_rows = phases_full_rows(&phases[i]);
    }
    input.options = (struct planner_options){.objective = (enum objective)(seed % 3),
                                             .n_rows_max = is_tight ? n_rows : 3 * n_rows,
                                             .n_slots = is_tight ? n_slots : 8 * n_slots,
                                             .tokens_per_step = 1 + seed % 3,
                                             .no_backfill = seed % 11 == 0,
                                             .no_parking = seed % 13 == 0,
                                             .no_promises = seed % 17 == 0,
                                             .no_staggering = seed % 7 == 0};
    return input;
}

static void make(struct plan *plan, const struct plan_input *input, unsigned seed)
{
    struct error err = {0};
    cr_assert(plan_make(plan, input, &err), "seed %u: %s", seed, err.message);
    cr_assert(plan_check(plan, input, &scratch, &err), "seed %u policy %d: %s", seed,
              (int)input->options.policy, err.message);
}

Test(plan, a_block_at_once_has_the_load_of_its_steps)
{
    for (unsigned seed = 1; seed <= 300; seed++) {
        struct plan_input input = draw(seed, false);
        struct plan_bounds bounds;
        struct iteration_load load = {0};
        input.stop_after = NULL;
        plan_bounds(&bounds, &input);
        for (int32_t i = 0; i < input.n_requests; i++) {
            for (int32_t block = 0; block < phases[i].n_blocks; block++) {
                int32_t begin, end;
                phases_block(&phases[i], block, &begin, &end);
                plan_add_block(&load, &phases[i], block, end - begin, input.tokens_per_step);
            }
        }
        cr_assert_eq(load.n_rows, bounds.totals.load.n_rows, "seed %u", seed);
        cr_assert_eq(load.n_picks, bounds.totals.load.n_picks, "seed %u", seed);
        cr_assert_eq(load.row_keys, bounds.totals.load.row_keys, "seed %u", seed);
        cr_assert_eq(load.cached_rows, bounds.totals.load.cached_rows, "seed %u", seed);
    }
}

Test(plan, every_policy_makes_plans_that_hold_and_that_no_bound_exceeds)
{
    for (unsigned seed = 1; seed <= 150; seed++) {
        struct plan_input input = draw(seed, seed % 2 == 0);
        struct plan_bounds bounds;
        plan_bounds(&bounds, &input);
        cr_assert_geq(bounds.memory_ns, bounds.plain_ns);
        for (int policy = 0; policy < 3; policy++) {
            struct plan plan;
            input.options.policy = (enum policy)policy;
            make(&plan, &input, seed);
            cr_assert_geq(plan.makespan_ns, bounds.memory_ns, "seed %u policy %d", seed, policy);
            cr_assert_eq(plan.total.n_rows - plan.n_pad_rows, bounds.totals.load.n_rows, "seed %u",
                         seed);
            cr_assert_eq(plan.total.row_keys, bounds.totals.load.row_keys, "seed %u", seed);
            cr_assert(policy == POLICY_STATIC || plan.n_pad_rows == 0);
            plan_clear(&plan);
        }
    }
}

Test(plan, bounds_know_that_work_cannot_begin_before_it_arrives)
{
    const uint64_t late_ns = UINT64_C(3600000000000);
    struct plan_bounds at_once, bounds, lone;
    struct plan_input input = draw(7, false);
    int32_t n = input.n_requests;
    cr_assert_gt(n, 1);
    plan_bounds(&at_once, &input);
    cr_assert_eq(at_once.plain_ns, cost_bound_ns(&cost, &at_once.totals));
    cr_assert_eq(at_once.memory_ns,
                 cost_bound_memory_ns(&cost, &at_once.totals, input.options.n_slots,
                                      input.options.n_rows_max));

    /* All together, but later. */
    input.arrival_ns = arrival_ns;
    for (int32_t i = 0; i < n; i++)
        arrival_ns[i] = late_ns;
    plan_bounds(&bounds, &input);
    cr_assert_eq(bounds.plain_ns, late_ns + at_once.plain_ns);
    cr_assert_eq(bounds.memory_ns, late_ns + at_once.memory_ns);

    /* The last one alone, long after the others are done. */
    for (int32_t i = 0; i < n - 1; i++)
        arrival_ns[i] = 0;
    struct plan_input last = input;
    last.n_requests = 1;
    last.phases = &phases[n - 1];
    last.arrival_ns = NULL;
    plan_bounds(&lone, &last);
    plan_bounds(&bounds, &input);
    cr_assert_eq(bounds.plain_ns, late_ns + lone.plain_ns);
    cr_assert_eq(bounds.memory_ns, late_ns + lone.memory_ns);
    cr_assert_eq(bounds.totals.n_steps, at_once.totals.n_steps);
    struct plan plan;
    make(&plan, &input, 7);
    cr_assert_geq(plan.makespan_ns, bounds.memory_ns);
    cr_assert_lt(plan.makespan_ns - late_ns, 2 * lone.memory_ns, "which is not far from it");
    plan_clear(&plan);

    /* So early that all the work is what counts. */
    arrival_ns[n - 1] = 1;
    plan_bounds(&bounds, &input);
    cr_assert_eq(bounds.memory_ns, at_once.memory_ns);
}

Test(plan, the_same_input_gives_the_same_plan)
{
    for (unsigned seed = 500; seed < 520; seed++) {
        struct plan_input input = draw(seed, false);
        struct plan one, two;
        input.options.policy = POLICY_PLANNED;
        make(&one, &input, seed);
        make(&two, &input, seed);
        cr_assert_eq(one.n_runs, two.n_runs);
        cr_assert_eq(memcmp(one.runs, two.runs, (size_t)one.n_runs * sizeof *one.runs), 0);
        cr_assert_eq(one.makespan_ns, two.makespan_ns);
        plan_clear(&one);
        plan_clear(&two);
    }
}

/* Each damage is one that a careless planner could do. */
static bool damage(struct plan *plan, const struct plan_input *input, int kind)
{
    struct plan_run *last = &plan->runs[plan->n_runs - 1];
    switch (kind) {
    case 0: plan->n_runs--; return true;
    case 1: last->n_steps++; return true;
    case 2: last->iteration_begin = 0; return last->step_begin > 0 || last->block > 0;
    case 3:
        if (last->kept_begin < 0 || last->n_steps < phases[last->request].delay + 2) return false;
        last->kept_begin = input->options.n_slots - 1;
        return phases_kept_slots(&phases[last->request], last->block) > 1;
    case 4: plan->options.n_rows_max = plan->iterations[0].n_rows - 1; return true;
    case 5: plan->iterations[0].n_rows++; return true;
    case 6: last->block++; return true;
    case 7: plan->runs[0].iteration_begin = -1; return true;
    case 8: plan->runs[0].iteration_begin = plan->n_iterations; return true;
    case 9: plan->runs[0].n_steps = 0; return true;
    case 10: plan->iterations[plan->n_iterations - 1].end_ns--; return true;
    case 11: plan->iterations[0].start_ns++; return true;
    case 12: plan->makespan_ns--; return true;
    case 13: plan->requests[last->request].finished_ns--; return true;
    case 14: plan->requests[plan->runs[0].request].first_ns++; return true;
    case 15: plan->iterations[0].n_pad_rows--; return true;
    default: /* one more, of a request that there is not: in the room behind the last */
        arena_push(&plan->run_arena, 64, sizeof *plan->runs);
        plan->runs[plan->n_runs++] = (struct plan_run){
            .request = input->n_requests, .n_steps = 1, .iteration_begin = 0, .kept_begin = -1};
        return true;
    }
}

Test(plan, broken_plans_are_refused)
{
    int32_t n_tried = 0;
    for (unsigned seed = 700; seed < 740; seed++) {
        for (int kind = 0; kind < 17; kind++) {
            struct plan_input input = draw(seed, false);
            struct plan plan;
            struct error err = {0};
            input.options.policy = POLICY_PLANNED;
            make(&plan, &input, seed);
            if (damage(&plan, &input, kind)) {
                n_tried++;
                cr_assert_not(plan_check(&plan, &input, &scratch, &err), "seed %u damage %d", seed,
                              kind);
            }
            plan_clear(&plan);
        }
    }
    cr_assert_gt(n_tried, 500);
}

/* Requests of one kind, all at once. */
static struct plan_input alike(int32_t n, int64_t n_slots)
{
    const struct phases_model model = {.n_positions = 4096};
    const struct decode_settings decode = {
        .gen_length = 64, .block_length = 32, .cache = CACHE_SPARSE, .retention = 0.5, .delay = 1};
    for (int32_t i = 0; i < n; i++)
        cr_assert(phases_init(&phases[i], 100 + i % 50, false, &decode, &model, NULL));
    return (struct plan_input){
        .cost = &cost,
        .phases = phases,
        .n_requests = n,
        .keeps_runs = true,
        .options = {.policy = POLICY_PLANNED, .n_rows_max = 2048, .n_slots = n_slots}};
}

Test(plan, two_extents_in_one_place_are_refused)
{
    struct plan_input input = alike(4, 10000);
    struct plan plan;
    struct error err = {0};
    make(&plan, &input, 0);
    for (int64_t i = 0; i < plan.n_runs; i++)
        plan.runs[i].kept_begin = 0;
    cr_assert_not(plan_check(&plan, &input, &scratch, &err));
    cr_assert(strstr(err.message, "are also held by"), "%s", err.message);
    plan_clear(&plan);
}

Test(plan, what_starts_before_it_arrives_is_refused)
{
    struct plan_input input = alike(3, 10000);
    const uint64_t late[3] = {0, 0, 1000};
    struct plan plan;
    struct error err = {0};
    make(&plan, &input, 0);
    input.arrival_ns = late;
    cr_assert_not(plan_check(&plan, &input, &scratch, &err));
    cr_assert(strstr(err.message, "before its arrival"), "%s", err.message);
    plan_clear(&plan);
}

Test(plan, one_request_fits_and_the_others_take_turns)
{
    struct plan_input input = alike(20, 0);
    for (int32_t i = 0; i < 20; i++) {
        int64_t needs = phases_most_slots(&phases[i]);
        if (needs > input.options.n_slots) input.options.n_slots = needs;
    }
    struct plan plan;
    make(&plan, &input, 0);
    cr_assert_leq(plan.n_slots_peak, input.options.n_slots);
    plan_clear(&plan);
}

static double badness(const struct plan *plan, enum objective objective)
{
    if (objective == OBJECTIVE_MAKESPAN) return (double)plan->makespan_ns;
    struct plan_latency latency = plan_latency(plan, &scratch);
    return objective == OBJECTIVE_MEAN ? latency.mean_s : latency.p99_s;
}

Test(plan, the_best_of_the_candidates_is_never_worse_than_the_baselines)
{
    const int32_t sizes[] = {0, 1, 4, 16};
    for (unsigned seed = 900; seed < 930; seed++) {
        struct plan_input input = draw(seed, seed % 2 == 0);
        struct error err = {0};
        struct plan best, plain;
        enum objective objective = input.options.objective;
        input.options.policy = POLICY_PLANNED;
        input.stop_after = NULL;
        input.is_online = false;
        input.tokens_per_step = input.options.tokens_per_step;
        cr_assert(plan_make_best(&best, &input, &err), "%s", err.message);
        cr_assert(plan_check(&best, &input, &scratch, &err), "seed %u: %s", seed, err.message);
        double least = badness(&best, objective);
        for (int i = 0; i < 5; i++) {
            input.options.policy = i < 4 ? POLICY_STATIC : POLICY_FCFS;
            input.options.n_running_max = i < 4 ? sizes[i] : 0;
            cr_assert(plan_make(&plain, &input, &err));
            cr_assert_leq(least, badness(&plain, objective), "seed %u objective %d baseline %d",
                          seed, (int)objective, i);
            plan_clear(&plain);
        }
        plan_clear(&best);
    }
}

Test(plan, candidates_are_chosen_without_hindsight)
{
    int32_t n_aimed = 0;
    for (unsigned seed = 950; seed < 980; seed++) {
        struct plan_input input = draw(seed, seed % 2 == 0);
        struct planner_options chosen[3];
        input.options.policy = POLICY_PLANNED;
        for (int i = 0; i < 3; i++) {
            struct plan plan;
            struct error err = {0};
            input.stop_after = i == 1 ? stop_after : NULL;
            input.is_online = i == 2;
            input.tokens_per_step = 1 + i;
            cr_assert(plan_make_best(&plan, &input, &err), "seed %u: %s", seed, err.message);
            chosen[i] = plan.options;
            plan_clear(&plan);
        }
        cr_assert_eq(chosen[0].policy, chosen[1].policy, "seed %u", seed);
        cr_assert_eq(chosen[0].n_rows_target, chosen[1].n_rows_target, "seed %u", seed);
        cr_assert_eq(chosen[0].n_running_max, chosen[1].n_running_max, "seed %u", seed);
        cr_assert_eq(chosen[2].policy, POLICY_PLANNED, "seed %u", seed);
        cr_assert(chosen[2].n_rows_target == 0 || input.options.objective == OBJECTIVE_MEAN);
        cr_assert_leq(chosen[2].n_rows_target, input.options.n_rows_max);
        n_aimed += chosen[2].n_rows_target > 0;
    }
    cr_assert_gt(n_aimed, 0, "the mean aims at few rows");
}

/* A processor whose caches hold few rows: there, less at a time is more. */
Test(plan, few_rows_at_a_time_are_tried_where_weights_cost_nothing)
{
    struct plan_input input = alike(40, 100000);
    struct cost_model small = cost;
    struct plan plan;
    struct error err = {0};
    small.profile.n_rates = 2;
    small.profile.rates[0] = (struct cost_rate){.n_rows = 400, .flops_per_s = 1e12};
    small.profile.rates[1] = (struct cost_rate){.n_rows = 2048, .flops_per_s = 1e11};
    small.profile.base_ns = 1e9;
    small.linear_bytes = small.head_bytes = 1;
    input.cost = &small;
    cr_assert_lt(cost_knee_rows(&small), 3);
    cr_assert(plan_make_best(&plan, &input, &err), "%s", err.message);
    cr_assert_eq(plan.options.policy, POLICY_PLANNED);
    cr_assert_gt(plan.options.n_rows_target, 0, "all rows are slower");
    cr_assert_leq(plan.options.n_rows_target, 512, "the rate falls from 400 rows on");
    plan_clear(&plan);
}

Test(plan, a_batch_size_that_was_given_is_kept)
{
    struct plan_input input = alike(20, 100000);
    struct plan plan;
    struct error err = {0};
    input.options.policy = POLICY_STATIC;
    input.options.n_running_max = 3;
    cr_assert(plan_make_best(&plan, &input, &err), "%s", err.message);
    cr_assert_eq(plan.options.n_running_max, 3);
    for (int64_t i = 0; i < plan.n_iterations; i++)
        cr_assert_leq(plan.iterations[i].n_items, 3);
    plan_clear(&plan);
}

/* Found by fuzzing: the first request ends before the slots are its own that it was promised for
 * later; the second needs the whole pool, on a machine that has nothing else to do. */
Test(plan, what_was_promised_to_one_that_has_ended_does_not_stop_an_idle_machine)
{
    const struct phases_model model = {.n_positions = 256};
    const struct decode_settings first = {.gen_length = 1,
                                          .block_length = 1,
                                          .steps = 6,
                                          .remasking = REMASKING_ORIGIN,
                                          .cache = CACHE_SPARSE,
                                          .retention = 0.03,
                                          .delay = 4};
    const struct decode_settings second = {
        .gen_length = 3, .block_length = 3, .prompt_refresh_every = 3};
    const struct plan_input input = {.options = {.policy = POLICY_PLANNED,
                                                 .n_rows_max = 100,
                                                 .n_slots = 12,
                                                 .tokens_per_step = 1},
                                     .cost = &cost,
                                     .n_requests = 2,
                                     .phases = phases,
                                     .arrival_ns = arrival_ns,
                                     .stop_after = stop_after,
                                     .tokens_per_step = 1,
                                     .keeps_runs = true,
                                     .is_online = true};
    cr_assert(phases_init(&phases[0], 59, false, &first, &model, NULL));
    cr_assert(phases_init(&phases[1], 12, false, &second, &model, NULL));
    cr_assert(phases_block_slots(&phases[0], 0) > 0 && phases_most_slots(&phases[1]) == 12);
    arrival_ns[0] = 0;
    arrival_ns[1] = 1000000;
    stop_after[0] = stop_after[1] = 1;
    struct plan plan;
    make(&plan, &input, 0);
    cr_assert_eq(plan.requests[0].refresh_steps, 1, "it ended before it kept anything");
    plan_clear(&plan);
}
