/* The planner, the world and a clock in a loop. Arrays grow at the end of arenas of their own,
 * whose address space is reserved and whose pages are taken as they fill. */
#include "plan/plan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "plan/world.h"

#define RUN_BYTES_MAX    ((size_t)1 << 36)
#define GROW_COUNT       4096 /* elements taken at a time: a multiple of 64 bytes for any size */
#define CANDIDATE_SAMPLE 2048 /* requests by which candidates are judged */
#define CANDIDATES_MAX   24
#define PLANNED_MAX      8 /* of them with another row target */
/* Under OBJECTIVE_MEAN, of the most rows per second: those that begin wait less for each other. */
#define MEAN_SHARE        0.9
#define PLANNER_BYTES_MAX ((size_t)1 << 34)

struct simulation {
    const struct plan_input *input;
    struct plan *plan;
    struct planner *planner;
    struct arena arena; /* planner, worlds, open runs */
    struct world_request *worlds;
    int64_t *open_runs; /* [n_requests] index of the run that may go on; -1: none */
    int32_t n_added;
    uint64_t now_ns;
};

/* ---- life ---- */

void plan_clear(struct plan *plan)
{
    arena_destroy(&plan->run_arena);
    arena_destroy(&plan->iteration_arena);
    arena_destroy(&plan->request_arena);
    *plan = (struct plan){0};
}

bool plan_open(struct plan *plan, const struct plan_input *input, struct error *err)
{
    assert(input->n_requests > 0);
    size_t n = (size_t)input->n_requests;
    *plan = (struct plan){.options = input->options, .n_requests = input->n_requests};
    if (!arena_create(&plan->run_arena, RUN_BYTES_MAX, err) ||
        !arena_create(&plan->iteration_arena, RUN_BYTES_MAX, err) ||
        !arena_create(&plan->request_arena, n * sizeof *plan->requests + 64, err))
        return false;
    plan->iterations = (void *)plan->iteration_arena.base;
    if (input->keeps_runs) plan->runs = (void *)plan->run_arena.base;
    plan->requests = arena_push(&plan->request_arena, n, sizeof *plan->requests);
    return true;
}

/* Room for element `n` of an array at the base of `arena`. */
static void grow(struct arena *arena, int64_t n, size_t size)
{
    assert(n >= 0);
    while (arena->used_bytes < ((size_t)n + 1) * size)
        arena_push(arena, GROW_COUNT, size);
}

struct plan_iteration_record *plan_add_iteration(struct plan *plan)
{
    assert(plan->iterations != NULL);
    grow(&plan->iteration_arena, plan->n_iterations, sizeof *plan->iterations);
    return &plan->iterations[plan->n_iterations++];
}

static uint64_t arrival_of(const struct plan_input *input, int32_t request)
{
    assert(request < input->n_requests);
    return input->arrival_ns ? input->arrival_ns[request] : 0;
}

static bool open_simulation(struct simulation *simulation, struct plan *plan,
                            const struct plan_input *input, struct error *err)
{
    size_t n = (size_t)input->n_requests;
    struct planner_options options = input->options;
    options.n_requests_max = input->n_requests;
    *simulation = (struct simulation){.input = input, .plan = plan};
    if (!arena_create(&simulation->arena, PLANNER_BYTES_MAX, err)) return false;
    simulation->worlds = arena_push(&simulation->arena, n, sizeof *simulation->worlds);
    simulation->open_runs = arena_push(&simulation->arena, n, sizeof *simulation->open_runs);
    for (int32_t i = 0; i < input->n_requests; i++) {
        if (!planner_check(&options, &input->phases[i], err))
            return error_wrap(err, "request %d", i);
        world_start(&simulation->worlds[i], input, i);
        simulation->open_runs[i] = -1;
        plan->requests[i] = (struct plan_request_record){
            .arrival_ns = arrival_of(input, i), .n_tokens = world_tokens(&simulation->worlds[i])};
        plan->n_tokens += plan->requests[i].n_tokens;
    }
    planner_create(&simulation->planner, &options, &simulation->arena);
    planner_reset(simulation->planner, NULL);
    return true;
}

/* ---- one iteration ---- */

static void record_run(struct simulation *simulation, const struct plan_item *item, int64_t index)
{
    struct plan *plan = simulation->plan;
    int64_t *open = &simulation->open_runs[item->request];
    if (!plan->runs) return;
    if (*open >= 0) {
        struct plan_run *run = &plan->runs[*open];
        bool goes_on = run->block == item->block && run->step_begin + run->n_steps == item->step &&
                       run->iteration_begin + run->n_steps == index;
        run->n_steps += goes_on;
        if (goes_on) return;
    }
    *open = plan->n_runs++;
    grow(&plan->run_arena, *open, sizeof *plan->runs);
    plan->runs[*open] = (struct plan_run){.request = item->request,
                                          .block = item->block,
                                          .step_begin = item->step,
                                          .n_steps = 1,
                                          .iteration_begin = index,
                                          .prompt_begin = item->prompt_begin,
                                          .kept_begin = item->kept_begin};
    assert(item->step >= 0);
}

static void count_item(struct simulation *simulation, const struct plan_item *item,
                       struct plan_iteration_record *record, struct iteration_load *load)
{
    const struct world_request *world = &simulation->worlds[item->request];
    struct plan_request_record *request = &simulation->plan->requests[item->request];
    int32_t n_rows = item->shape.n_rows * world->phases->n_twins;
    assert(item->block == world->block);
    assert(item->step == world->step);
    bool is_first = request->refresh_steps + request->reuse_steps == 0;
    if (is_first) request->first_ns = record->start_ns;
    request->blocks += item->step == 0;
    request->positions += n_rows;
    if (item->shape.phase == PHASE_REFRESH) {
        request->refresh_steps++;
        record->n_refresh_rows += n_rows;
    } else {
        request->reuse_steps++;
    }
    cost_add_step(load, world->phases, &item->shape, world->n_left);
}

static void add_load(struct iteration_load *sum, const struct iteration_load *load)
{
    assert(load->n_rows > 0);
    sum->n_rows += load->n_rows;
    sum->n_picks += load->n_picks;
    sum->row_keys += load->row_keys;
    sum->cached_rows += load->cached_rows;
}

static void simulate_iteration(struct simulation *simulation,
                               const struct plan_iteration *iteration)
{
    struct plan *plan = simulation->plan;
    struct iteration_load load = {0};
    int64_t index = plan->n_iterations;
    struct plan_iteration_record *record = plan_add_iteration(plan);
    *record = (struct plan_iteration_record){.start_ns = simulation->now_ns,
                                             .n_rows = iteration->n_rows,
                                             .n_pad_rows = iteration->n_pad_rows,
                                             .n_items = iteration->n_items,
                                             .slots_held = planner_slots_held(simulation->planner)};
    assert(record->slots_held <= plan->options.n_slots);
    for (int32_t i = 0; i < iteration->n_items; i++) {
        count_item(simulation, &iteration->items[i], record, &load);
        record_run(simulation, &iteration->items[i], index);
    }
    load.n_rows += iteration->n_pad_rows;
    simulation->now_ns += cost_iteration_ns(simulation->input->cost, &load);
    record->end_ns = simulation->now_ns;
    add_load(&plan->total, &load);
    plan->n_refresh_rows += record->n_refresh_rows;
    plan->n_pad_rows += record->n_pad_rows;
    if (record->slots_held > plan->n_slots_peak) plan->n_slots_peak = record->slots_held;
    for (int32_t i = 0; i < iteration->n_items; i++) {
        int32_t number = iteration->items[i].request;
        struct plan_request_record *request = &plan->requests[number];
        enum step_outcome outcome = world_step(&simulation->worlds[number]);
        planner_report(simulation->planner, number, outcome, simulation->worlds[number].block);
        if (request->first_commit_ns == 0) request->first_commit_ns = record->end_ns;
        if (outcome == STEP_GOES_ON) continue;
        if (request->first_block_ns == 0) request->first_block_ns = record->end_ns;
        request->finished_ns = record->end_ns; /* of its last block in the end */
    }
}

/* Tells the planner of the requests that it may know by now. */
static void add_requests(struct simulation *simulation)
{
    const struct plan_input *input = simulation->input;
    assert(simulation->n_added <= input->n_requests);
    while (simulation->n_added < input->n_requests) {
        int32_t i = simulation->n_added;
        if (input->is_online && arrival_of(input, i) > simulation->now_ns) return;
        planner_add(simulation->planner,
                    &(struct planner_request){.phases = &input->phases[i],
                                              .arrival_ns = arrival_of(input, i)});
        simulation->n_added++;
    }
}

/* False: the clock does not go that far. */
static bool simulate(struct simulation *simulation, struct error *err)
{
    const struct plan_input *input = simulation->input;
    for (;;) {
        struct plan_iteration iteration;
        uint64_t next_ns = 0;
        add_requests(simulation);
        enum planner_status status =
            planner_next(simulation->planner, simulation->now_ns, &iteration, &next_ns);
        if (status == PLANNER_ITERATION) {
            simulate_iteration(simulation, &iteration);
            if ((double)simulation->now_ns <= 2 * COST_NS_MAX) continue;
            return error_set(err, ERROR_FORMAT, "by the profile this takes more than 73 years");
        }
        if (status == PLANNER_DONE && simulation->n_added == input->n_requests) break;
        if (status == PLANNER_DONE) next_ns = arrival_of(input, simulation->n_added);
        assert(next_ns > simulation->now_ns);
        simulation->now_ns = next_ns;
    }
    simulation->plan->makespan_ns = simulation->now_ns;
    simulation->plan->n_surprises = planner_surprises(simulation->planner);
    return true;
}

bool plan_make(struct plan *plan, const struct plan_input *input, struct error *err)
{
    assert(input->cost);
    struct simulation simulation = {0};
    bool ok = plan_open(plan, input, err) && open_simulation(&simulation, plan, input, err);
    ok = ok && simulate(&simulation, err);
    arena_destroy(&simulation.arena);
    if (!ok) plan_clear(plan);
    return ok;
}

/* ---- sums ---- */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct plan_latency plan_latency(const struct plan *plan, struct arena *scratch)
{
    size_t mark = scratch->used_bytes, n = (size_t)plan->n_requests;
    double *latency = arena_push(scratch, n, sizeof *latency), sum = 0;
    assert(n > 0);
    for (size_t i = 0; i < n; i++) {
        const struct plan_request_record *request = &plan->requests[i];
        latency[i] = (double)(request->finished_ns - request->arrival_ns) * 1e-9;
        sum += latency[i];
    }
    qsort(latency, n, sizeof *latency, compare_doubles);
    struct plan_latency found = {.mean_s = sum / (double)n,
                                 .p50_s = latency[(size_t)(0.50 * (double)(n - 1) + 0.5)],
                                 .p90_s = latency[(size_t)(0.90 * (double)(n - 1) + 0.5)],
                                 .p99_s = latency[(size_t)(0.99 * (double)(n - 1) + 0.5)],
                                 .max_s = latency[n - 1]};
    arena_rewind(scratch, mark);
    return found;
}

static void add_request(struct cost_totals *totals, const struct plan_input *input, int32_t i)
{
    struct world_request world;
    int64_t n_steps = 0;
    enum step_outcome outcome = STEP_GOES_ON;
    bool was_reuse = false;
    world_start(&world, input, i);
    for (; outcome != STEP_END; n_steps++) {
        struct step_shape shape;
        phases_step(world.phases, world.block, world.step, &shape);
        cost_add_step(&totals->load, world.phases, &shape, world.n_left);
        int64_t n_slots = (int64_t)shape.n_cached * world.phases->n_twins;
        totals->slot_steps += shape.sees_kept && !was_reuse ? 2 * n_slots : n_slots;
        was_reuse = shape.sees_kept;
        outcome = world_step(&world);
    }
    assert(n_steps > 0);
    totals->n_steps += n_steps;
    if (n_steps > totals->longest_chain) totals->longest_chain = n_steps;
}

/* `n_steps` steps of a block that are like `step_index`, without their picks. */
static void add_alike(struct iteration_load *load, const struct phases *phases, int32_t block_index,
                      int32_t step_index, int32_t n_steps)
{
    struct step_shape shape;
    assert(n_steps >= 0);
    if (n_steps > 0) phases_step(phases, block_index, step_index, &shape);
    for (; n_steps > 0; n_steps--)
        cost_add_step(load, phases, &shape, 0);
}

/* Steps of a block are of three shapes: those that open it, those that are full again, others. */
void plan_add_block(struct iteration_load *load, const struct phases *phases, int32_t block_index,
                    int32_t n_masked, double tokens_per_step)
{
    struct world_request world = {.phases = phases,
                                  .stop_after = INT32_MAX,
                                  .tokens_per_step = tokens_per_step > 1 ? tokens_per_step : 1,
                                  .block = phases->n_blocks - 1,
                                  .n_start = n_masked,
                                  .n_left = n_masked};
    assert(n_masked > 0);
    do
        load->n_picks += (int64_t)phases->n_twins * world.n_left;
    while (world_step(&world) == STEP_GOES_ON);
    int32_t n_open = world.step <= phases->delay ? world.step : phases->delay + 1;
    int32_t n_later = world.step - n_open, every = phases->refresh_every;
    int32_t n_again = every > 0 ? n_later / every : 0;
    add_alike(load, phases, block_index, 0, n_open);
    add_alike(load, phases, block_index, phases->delay + every, n_again);
    add_alike(load, phases, block_index, phases->delay + 1, n_later - n_again);
}

static void raise_to(uint64_t *bound_ns, uint64_t ns)
{
    if (ns > *bound_ns) *bound_ns = ns;
}

void plan_bounds(struct plan_bounds *bounds, const struct plan_input *input)
{
    const struct planner_options *options = &input->options;
    struct cost_totals *totals = &bounds->totals;
    *bounds = (struct plan_bounds){0};
    for (int32_t i = input->n_requests - 1; i >= 0; i--) {
        uint64_t ns = arrival_of(input, i);
        add_request(totals, input, i);
        if (i > 0 && arrival_of(input, i - 1) == ns) continue;
        raise_to(&bounds->plain_ns, ns + cost_bound_ns(input->cost, totals));
        raise_to(
            &bounds->memory_ns,
            ns + cost_bound_memory_ns(input->cost, totals, options->n_slots, options->n_rows_max));
    }
    assert(bounds->totals.n_steps >= input->n_requests);
}

/* ---- candidates ---- */

/* What the objective wants little of. */
static double badness(const struct plan *plan, enum objective objective, struct arena *scratch)
{
    struct plan_latency latency = plan_latency(plan, scratch);
    assert(plan->n_iterations > 0);
    if (objective == OBJECTIVE_MEAN) return latency.mean_s;
    return objective == OBJECTIVE_TAIL ? latency.p99_s : (double)plan->makespan_ns;
}

/* Row targets from the knee on (or what is few), doubled, and large shares of all; fcfs besides. */
static int32_t list_planned(const struct plan_input *input, struct planner_options *out)
{
    struct planner_options base = input->options;
    int32_t n = 0, knee = cost_knee_rows(input->cost), few = base.n_rows_max / 64;
    assert(knee > 0);
    out[n++] = base;
    for (int32_t quarters = 2; quarters < 4; quarters++) {
        out[n] = base;
        out[n++].n_rows_target = (int32_t)((int64_t)base.n_rows_max * quarters / 4);
    }
    if (knee < few) knee = few;
    for (int32_t rows = knee; rows < base.n_rows_max && n < PLANNED_MAX; rows *= 2) {
        out[n] = base;
        out[n++].n_rows_target = rows;
    }
    out[n] = base;
    out[n++].policy = POLICY_FCFS;
    return n;
}

static int32_t list_candidates(const struct plan_input *input, struct planner_options *out)
{
    struct planner_options base = input->options;
    int32_t n = 1;
    out[0] = base;
    if (base.policy == POLICY_PLANNED) n = list_planned(input, out);
    if (base.policy == POLICY_FCFS || base.n_running_max > 0) return n;
    if (base.policy == POLICY_STATIC) n = 0; /* `base` is the size 0 below */
    for (int32_t size = 0; size <= 512; size = size > 0 ? 2 * size : 1) { /* 0: all that fit */
        assert(n < CANDIDATES_MAX);
        out[n] = base;
        out[n].policy = POLICY_STATIC;
        out[n++].n_running_max = size;
    }
    return n;
}

/* The input as a policy may judge candidates by it: without what it could not know. */
static struct plan_input foreseen(const struct plan_input *input)
{
    struct plan_input seen = *input;
    seen.keeps_runs = false;
    if (seen.n_requests > CANDIDATE_SAMPLE) seen.n_requests = CANDIDATE_SAMPLE;
    assert(seen.n_requests > 0);
    if (input->options.policy == POLICY_STATIC) return seen;
    seen.stop_after = NULL;
    seen.tokens_per_step = input->options.tokens_per_step;
    return seen;
}

bool plan_make_best(struct plan *plan, const struct plan_input *input, struct error *err)
{
    struct planner_options candidates[CANDIDATES_MAX];
    struct plan_input made_of = *input;
    struct planner_options *options = &made_of.options;
    struct arena scratch;
    bool looks_ahead = !input->is_online || options->policy == POLICY_STATIC;
    if (options->policy == POLICY_PLANNED && options->objective == OBJECTIVE_MEAN &&
        options->n_rows_target == 0)
        options->n_rows_target = cost_rows_reaching(input->cost, MEAN_SHARE);
    if (options->n_rows_target > options->n_rows_max) options->n_rows_target = 0; /* all */
    struct plan_input trial = foreseen(&made_of);
    int32_t n = looks_ahead ? list_candidates(&made_of, candidates) : 1, best = 0;
    double least = 0;
    if (n == 1) return plan_make(plan, &made_of, err);
    if (!arena_create(&scratch, (size_t)input->n_requests * sizeof(double) + 64, err)) return false;
    bool ok = true;
    for (int32_t i = 0; ok && i < n; i++) {
        struct plan made;
        trial.options = candidates[i];
        ok = plan_make(&made, &trial, err);
        if (!ok) break;
        double bad = badness(&made, input->options.objective, &scratch);
        if (i == 0 || bad < least) {
            least = bad;
            best = i;
        }
        plan_clear(&made);
    }
    arena_destroy(&scratch);
    *options = candidates[best];
    return ok && plan_make(plan, &made_of, err);
}
