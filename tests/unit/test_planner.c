/* The planner on its own: who waits for whom, who is refused. What plans prove is in test_plan.c.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "plan/planner.h"

static struct arena arena;

static struct phases make_phases(int32_t n_prompt, int32_t gen_length, enum cache_kind cache)
{
    const struct phases_model model = {.n_positions = 4096};
    struct decode_settings decode = {
        .gen_length = gen_length, .block_length = 8, .cache = cache, .retention = 0.5, .delay = 1};
    struct phases phases;
    struct error err = {0};
    cr_assert(phases_init(&phases, n_prompt, false, &decode, &model, &err), "%s", err.message);
    return phases;
}

static struct planner *make(struct planner_options options)
{
    struct planner *planner;
    options.n_requests_max = 16;
    cr_assert(arena_create(&arena, (size_t)16 << 20, NULL));
    planner_create(&planner, &options, &arena);
    planner_reset(planner, NULL);
    return planner;
}

static enum planner_status next(struct planner *planner, struct plan_iteration *iteration)
{
    uint64_t next_ns;
    return planner_next(planner, 0, iteration, &next_ns);
}

Test(planner, what_can_never_run_is_refused_with_the_option)
{
    struct planner_options options = {.n_rows_max = 50, .n_slots = 20};
    struct phases phases = make_phases(60, 8, CACHE_NONE);
    struct error err = {0};
    cr_assert_not(planner_check(&options, &phases, &err));
    cr_assert(strstr(err.message, "needs 68 rows in one forward, --rows allows 50"));
    phases = make_phases(30, 8, CACHE_DUAL);
    cr_assert_not(planner_check(&options, &phases, &err));
    cr_assert(strstr(err.message, "keeps 30 positions in the KV cache, --kv-memory allows 20"));
    phases = make_phases(10, 8, CACHE_SPARSE);
    cr_assert(planner_check(&options, &phases, &err));
}

Test(planner, refreshes_are_staggered_where_rows_are_short)
{
    struct planner *planner = make((struct planner_options){
        .policy = POLICY_PLANNED, .objective = OBJECTIVE_TAIL, .n_rows_max = 60, .n_slots = 1000});
    struct phases phases = make_phases(32, 8, CACHE_DUAL);
    struct plan_iteration iteration;
    for (int32_t i = 0; i < 3; i++)
        planner_add(planner, &(struct planner_request){.phases = &phases});
    for (int32_t t = 0; t < 3; t++) {
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        cr_assert_eq(iteration.n_items, t + 1, "one more begins beside those in Reuse");
        cr_assert_eq(iteration.n_rows, 40 + 8 * t);
        for (int32_t i = 0; i < iteration.n_items; i++)
            planner_report(planner, iteration.items[i].request, STEP_GOES_ON, 0);
    }
    arena_destroy(&arena);
}

Test(planner, a_window_may_go_on_by_another_policy_and_row_target)
{
    struct planner *planner = make((struct planner_options){
        .policy = POLICY_FCFS, .objective = OBJECTIVE_TAIL, .n_rows_max = 100, .n_slots = 0});
    struct phases phases = make_phases(12, 8, CACHE_NONE);
    struct plan_iteration iteration;
    for (int32_t target = 100; target >= 40; target -= 20) {
        planner_reset(planner,
                      &(struct planner_options){.policy = POLICY_PLANNED, .n_rows_target = target});
        for (int32_t i = 0; i < 6; i++)
            planner_add(planner, &(struct planner_request){.phases = &phases});
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        cr_assert_eq(iteration.n_rows, target / 20 * 20);
    }
    arena_destroy(&arena);
}

Test(planner, one_that_does_not_fit_lets_others_pass_but_not_under_fcfs_or_for_the_tail)
{
    for (int turn = 0; turn < 3; turn++) {
        enum objective objective = turn == 2 ? OBJECTIVE_TAIL : OBJECTIVE_MAKESPAN;
        struct planner *planner =
            make((struct planner_options){.policy = turn == 0 ? POLICY_FCFS : POLICY_PLANNED,
                                          .objective = objective,
                                          .n_rows_max = 100,
                                          .n_slots = 0});
        struct phases small = make_phases(12, 8, CACHE_NONE),
                      large = make_phases(82, 8, CACHE_NONE);
        struct plan_iteration iteration;
        planner_add(planner, &(struct planner_request){.phases = &small});
        planner_add(planner, &(struct planner_request){.phases = &large});
        planner_add(planner, &(struct planner_request){.phases = &small});
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        cr_assert_eq(iteration.n_items, turn == 1 ? 2 : 1);
        arena_destroy(&arena);
    }
}

Test(planner, what_arrives_later_waits_and_the_time_is_told)
{
    struct planner *planner =
        make((struct planner_options){.policy = POLICY_PLANNED, .n_rows_max = 100});
    struct phases phases = make_phases(12, 8, CACHE_NONE);
    struct plan_iteration iteration;
    uint64_t next_ns = 0;
    planner_add(planner, &(struct planner_request){.phases = &phases, .arrival_ns = 70});
    cr_assert_eq(planner_next(planner, 69, &iteration, &next_ns), PLANNER_IDLE);
    cr_assert_eq(next_ns, 70);
    cr_assert_eq(planner_next(planner, 70, &iteration, &next_ns), PLANNER_ITERATION);
    planner_report(planner, 0, STEP_END, 0);
    cr_assert_eq(planner_next(planner, 71, &iteration, &next_ns), PLANNER_DONE);
    cr_assert_eq(planner_surprises(planner), 1);
    arena_destroy(&arena);
}

Test(planner, static_batches_are_padded_to_the_longest_until_the_last_ends)
{
    struct planner *planner = make(
        (struct planner_options){.policy = POLICY_STATIC, .n_rows_max = 100, .n_running_max = 2});
    struct phases small = make_phases(12, 8, CACHE_NONE), large = make_phases(32, 8, CACHE_NONE);
    struct plan_iteration iteration;
    planner_add(planner, &(struct planner_request){.phases = &small});
    planner_add(planner, &(struct planner_request){.phases = &large});
    cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
    cr_assert(iteration.n_rows == 60 && iteration.n_pad_rows == 20);
    planner_report(planner, 0, STEP_END, 0);
    planner_report(planner, 1, STEP_GOES_ON, 0);
    cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
    cr_assert(iteration.n_items == 1 && iteration.n_pad_rows == 40, "the ended one is computed on");
    arena_destroy(&arena);
}

Test(planner, shortest_first_when_the_mean_counts_longest_first_for_the_makespan)
{
    for (int objective = 0; objective < 2; objective++) {
        struct planner *planner = make((struct planner_options){
            .policy = POLICY_PLANNED, .objective = (enum objective)objective, .n_rows_max = 60});
        struct phases longer = make_phases(20, 24, CACHE_NONE),
                      shorter = make_phases(40, 16, CACHE_NONE);
        struct plan_iteration iteration;
        planner_add(planner, &(struct planner_request){.phases = &longer});
        planner_add(planner, &(struct planner_request){.phases = &shorter});
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        cr_assert_eq(iteration.n_items, 1);
        cr_assert_eq(iteration.items[0].request, objective == OBJECTIVE_MEAN ? 1 : 0);
        arena_destroy(&arena);
    }
}

/* One at a time, blocks of one step. `ends` are the blocks in which requests end, in the order in
 * which they are added; the order in which blocks were run, a request's number each. */
static void run_alone(struct planner *planner, const struct phases *phases, const char *ends,
                      char *order)
{
    struct plan_iteration iteration;
    for (size_t i = 0; i < strlen(ends); i++)
        planner_add(planner, &(struct planner_request){.phases = phases});
    while (next(planner, &iteration) == PLANNER_ITERATION) {
        const struct plan_item *item = &iteration.items[0];
        cr_assert_eq(iteration.n_items, 1);
        *order++ = (char)('0' + item->request);
        bool goes_on = item->block < ends[item->request] - '0';
        planner_report(planner, item->request, goes_on ? STEP_BLOCK : STEP_END, item->block + 1);
    }
    *order = '\0';
}

Test(planner, what_was_seen_of_stops_decides_who_is_likely_to_end_first)
{
    const struct {
        const char *ends, *order;
    } cases[] = {
        {"333", "000011112222"},             /* nobody stops: who has begun has least left */
        {"000030000", "012345678444"},       /* most stop in the first block: new ones go first, */
        {"111111111", "001122334455667788"}, /* in the second: who has begun; and the second */
    };                                       /* block is tried before all have seen the first */
    struct phases phases = make_phases(12, 32, CACHE_NONE);
    phases.steps_per_block = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct planner *planner = make((struct planner_options){
            .policy = POLICY_PLANNED, .objective = OBJECTIVE_MEAN, .n_rows_max = 44});
        char order[64];
        run_alone(planner, &phases, cases[i].ends, order);
        cr_expect_str_eq(order, cases[i].order, "%s: %s", cases[i].ends, order);
        arena_destroy(&arena);
    }
}

Test(planner, without_staggering_a_block_has_room_for_its_widest_step_throughout)
{
    for (int is_off = 0; is_off < 2; is_off++) {
        struct planner *planner = make((struct planner_options){.policy = POLICY_PLANNED,
                                                                .objective = OBJECTIVE_TAIL,
                                                                .n_rows_max = 60,
                                                                .n_slots = 1000,
                                                                .no_staggering = is_off == 1});
        struct phases phases = make_phases(32, 8, CACHE_DUAL);
        struct plan_iteration iteration;
        for (int32_t i = 0; i < 2; i++)
            planner_add(planner, &(struct planner_request){.phases = &phases});
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        planner_report(planner, iteration.items[0].request, STEP_GOES_ON, 0);
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        cr_expect_eq(iteration.n_items, is_off ? 1 : 2);
        arena_destroy(&arena);
    }
}

/* Takes iterations until all have ended, each block of all its steps; at most `n_max` iterations.
 * Calls `look` after each decision. */
static int32_t run_all(struct planner *planner, const struct phases *phases, int32_t n_max,
                       void (*look)(const struct planner *planner, const struct plan_iteration *it))
{
    struct plan_iteration iteration;
    for (int32_t t = 0; t < n_max; t++) {
        if (next(planner, &iteration) == PLANNER_DONE) return t;
        if (look) look(planner, &iteration);
        for (int32_t i = 0; i < iteration.n_items; i++) {
            const struct plan_item *item = &iteration.items[i];
            enum step_outcome outcome = STEP_GOES_ON;
            if (item->step == 7)
                outcome = item->block + 1 == phases->n_blocks ? STEP_END : STEP_BLOCK;
            planner_report(planner, item->request, outcome, item->block + 1);
        }
    }
    return n_max;
}

static int64_t most_held;

static void note_held(const struct planner *planner, const struct plan_iteration *iteration)
{
    int64_t held = planner_slots_held(planner);
    cr_assert_gt(iteration->n_items, 0);
    if (held > most_held) most_held = held;
}

Test(planner, parked_requests_hold_nothing_and_others_use_their_slots)
{
    struct phases phases = make_phases(24, 32, CACHE_SPARSE);
    int64_t needs = phases_most_slots(&phases);
    int32_t n_iterations[2];
    for (int stays = 0; stays < 2; stays++) {
        struct planner *planner = make((struct planner_options){.policy = POLICY_PLANNED,
                                                                .objective = OBJECTIVE_MAKESPAN,
                                                                .n_rows_max = 1000,
                                                                .n_slots = 2 * needs,
                                                                .no_parking = stays == 1});
        most_held = 0;
        for (int32_t i = 0; i < 5; i++)
            planner_add(planner, &(struct planner_request){.phases = &phases});
        n_iterations[stays] = run_all(planner, &phases, 1000, note_held);
        cr_assert_leq(most_held, 2 * needs);
        cr_assert_eq(planner_surprises(planner), 0);
        cr_assert_eq(planner_slots_held(planner), 0, "all is given back");
        arena_destroy(&arena);
    }
    cr_assert_lt(n_iterations[0], n_iterations[1], "%d and %d", n_iterations[0], n_iterations[1]);
}

Test(planner, for_the_tail_who_has_begun_keeps_its_slots)
{
    struct phases phases = make_phases(24, 32, CACHE_SPARSE);
    struct planner *planner =
        make((struct planner_options){.policy = POLICY_PLANNED,
                                      .objective = OBJECTIVE_TAIL,
                                      .n_rows_max = 1000,
                                      .n_slots = 2 * phases_most_slots(&phases)});
    struct plan_iteration iteration;
    for (int32_t i = 0; i < 5; i++)
        planner_add(planner, &(struct planner_request){.phases = &phases});
    for (int32_t t = 0; t < 32; t++) {
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        cr_assert_eq(iteration.n_items, 2);
        for (int32_t i = 0; i < 2; i++) {
            cr_assert_lt(iteration.items[i].request, 2, "iteration %d", t);
            enum step_outcome outcome = t % 8 < 7 ? STEP_GOES_ON : t < 31 ? STEP_BLOCK : STEP_END;
            planner_report(planner, iteration.items[i].request, outcome, t / 8 + 1);
        }
    }
    arena_destroy(&arena);
}

Test(planner, slots_are_promised_to_the_next_before_they_are_free)
{
    struct phases phases = make_phases(24, 32, CACHE_SPARSE);
    int32_t n_iterations[2];
    for (int waits = 0; waits < 2; waits++) {
        struct planner *planner =
            make((struct planner_options){.policy = POLICY_PLANNED,
                                          .n_rows_max = 1000,
                                          .n_slots = phases_most_slots(&phases),
                                          .no_promises = waits == 1});
        for (int32_t i = 0; i < 4; i++)
            planner_add(planner, &(struct planner_request){.phases = &phases});
        n_iterations[waits] = run_all(planner, &phases, 1000, NULL);
        arena_destroy(&arena);
    }
    cr_assert_lt(n_iterations[0], n_iterations[1], "%d and %d", n_iterations[0], n_iterations[1]);
}

Test(planner, a_kept_prompt_holds_its_slots_between_blocks_and_goes_first)
{
    const struct phases_model model = {.n_positions = 4096};
    const struct decode_settings decode = {
        .gen_length = 32, .block_length = 8, .cache = CACHE_DUAL, .prompt_refresh_every = 4};
    struct phases phases;
    struct plan_iteration iteration;
    cr_assert(phases_init(&phases, 20, false, &decode, &model, NULL));
    struct planner *planner = make((struct planner_options){
        .policy = POLICY_PLANNED, .n_rows_max = 1000, .n_slots = phases_most_slots(&phases)});
    planner_add(planner, &(struct planner_request){.phases = &phases});
    planner_add(planner, &(struct planner_request){.phases = &phases});
    for (int32_t t = 0; t < 32; t++) {
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        cr_assert_eq(iteration.n_items, 1, "there is room for one");
        int32_t first = iteration.items[0].request;
        cr_assert_eq(first, 0, "it keeps its turn to the end of its prompt");
        bool is_last = iteration.items[0].step == 7;
        enum step_outcome outcome = is_last ? t == 31 ? STEP_END : STEP_BLOCK : STEP_GOES_ON;
        planner_report(planner, first, outcome, iteration.items[0].block + 1);
    }
    cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
    cr_assert_eq(iteration.items[0].request, 1);
    arena_destroy(&arena);
}

Test(planner, without_backfill_the_first_that_does_not_fit_ends_the_choice)
{
    struct phases small = make_phases(12, 8, CACHE_NONE), large = make_phases(82, 8, CACHE_NONE);
    for (int ends = 0; ends < 2; ends++) {
        struct planner *planner = make((struct planner_options){.policy = POLICY_PLANNED,
                                                                .objective = OBJECTIVE_MAKESPAN,
                                                                .n_rows_max = 100,
                                                                .no_backfill = ends == 1});
        struct plan_iteration iteration;
        planner_add(planner, &(struct planner_request){.phases = &small});
        planner_add(planner, &(struct planner_request){.phases = &large});
        planner_add(planner, &(struct planner_request){.phases = &small});
        cr_assert_eq(next(planner, &iteration), PLANNER_ITERATION);
        cr_assert_eq(iteration.n_items, ends == 1 ? 1 : 2);
        arena_destroy(&arena);
    }
}

/* Three requests of three blocks in turns; one of them, in work or between two blocks, turns out to
 * have ended. It gets no item more, its slots are free, and the others come to their ends. */
Test(planner, a_stop_that_is_seen_late_ends_whoever_is_in_work_or_waits)
{
    for (int32_t turn = 0; turn < 36; turn++) {
        int32_t victim = turn % 3, n_steps = 8 + turn / 6 % 2, n_left[3] = {24, 24, 24};
        struct planner *planner =
            make((struct planner_options){.policy = (enum policy)(turn / 12),
                                          .n_rows_max = turn / 3 % 2 ? 130 : 44,
                                          .n_slots = 120});
        struct phases phases = make_phases(16, 24, CACHE_DUAL);
        struct plan_iteration iteration;
        for (int32_t i = 0; i < 3; i++)
            planner_add(planner, &(struct planner_request){.phases = &phases});
        while (next(planner, &iteration) == PLANNER_ITERATION) {
            for (int32_t i = 0; i < iteration.n_items; i++) {
                int32_t at = iteration.items[i].request, left = --n_left[at];
                cr_assert_geq(left, 0, "an item of a request that has ended");
                enum step_outcome outcome = left % 8 ? STEP_GOES_ON : left ? STEP_BLOCK : STEP_END;
                planner_report(planner, at, outcome, iteration.items[i].block + 1);
            }
            if (n_left[victim] != 24 - n_steps) continue;
            planner_end(planner, victim, 0, false);
            n_left[victim] = 0;
        }
        cr_assert_eq(n_left[0] + n_left[1] + n_left[2], 0);
        cr_assert_eq(planner_slots_held(planner), 0);
        cr_assert_eq(planner_surprises(planner), 1);
        arena_destroy(&arena);
    }
}
