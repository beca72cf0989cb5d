/* The loop of a run. Each iteration: ask the planner who takes a step, write their rows as one
 * ragged batch, forward, score, commit, then look at what was committed: a block may be complete,
 * an answer may be complete, and the planner hears of it.
 *
 * Where it pays (backend.n_steps_ahead) and the settings say how many tokens each step commits, the
 * planner hears of it before the results are there, and the next iteration is submitted:
 *
 *     host     submit k | look at k-1, report k | plan and submit k+1 | look at k, report k+1 | ...
 *     device   k-1 ....|k ............................|k+1 ..........................|
 *
 * What only results tell, a stop token or numbers that broke, takes effect one iteration late: the
 * step that was in flight by then is computed for nothing, and counted in no answer. */
#include "engine/executor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "engine/executor_parts.h"
#include "engine/sampler.h"

static bool has_masks(const struct request *request, int32_t mask_id)
{
    for (int32_t i = 0; i < request->n_prompt; i++)
        if (request->prompt_ids[i] == mask_id) return true;
    return false;
}

struct phases_model executor_phases_model(const struct model_config *config)
{
    assert(config->n_positions > 0);
    return (struct phases_model){.n_positions = config->n_positions, .shift = config->shift};
}

bool executor_check(const struct executor *executor, const struct request *request,
                    struct error *err)
{
    const struct model_config *config = &executor->model->config;
    const struct phases_model model = executor_phases_model(config);
    struct phases phases;
    for (int32_t i = 0; i < request->n_prompt; i++)
        if (request->prompt_ids[i] < 0 || request->prompt_ids[i] >= config->n_vocab)
            return error_set(err, ERROR_FORMAT, "prompt token %d is %d, must be from 0 to %d", i,
                             request->prompt_ids[i], config->n_vocab - 1);
    if (!phases_init(&phases, request->n_prompt, has_masks(request, config->mask_id),
                     &request->decode, &model, err))
        return false;
    if (!planner_check(&executor->limits.planning, &phases, err)) return false;
    assert(phases_full_rows(&phases) <= executor->limits.n_cells_max);
    return true;
}

/* ---- a request's life ---- */

int32_t *executor_canvas(const struct executor *executor, const struct running *running)
{
    assert(running->canvas_begin + running->phases.n_canvas <= executor->limits.n_cells_max);
    return executor->cells + running->canvas_begin;
}

/* Moves on to the next block that has masks; false: there is none. */
static bool enter_block(const struct executor *executor, struct running *running)
{
    const int32_t *canvas = executor_canvas(executor, running);
    for (; running->block_index < running->phases.n_blocks; running->block_index++) {
        phases_block(&running->phases, running->block_index, &running->block_begin,
                     &running->block_end);
        int32_t n = 0;
        for (int32_t i = running->block_begin; i < running->block_end; i++)
            n += canvas[i] == executor->model->config.mask_id;
        if (n == 0) continue;
        running->n_block_start = running->n_block_masked = n;
        running->step = 0;
        return true;
    }
    return false;
}

/* Lays the request's canvas at `cell`; returns the first cell after it. */
static int32_t start_request(struct executor *executor, struct running *running,
                             const struct request *request, int32_t cell)
{
    const struct model_config *config = &executor->model->config;
    const struct phases_model model = executor_phases_model(config);
    bool infill = has_masks(request, config->mask_id);
    *running = (struct running){
        .request = request, .canvas_begin = cell, .twin_begin = -1, .stop_cell = -1};
    bool ok =
        phases_init(&running->phases, request->n_prompt, infill, &request->decode, &model, NULL);
    assert(ok);
    int32_t n = running->phases.n_canvas;
    int32_t *canvas = executor->cells + cell;
    for (int32_t i = 0; i < n; i++) {
        canvas[i] = i < request->n_prompt ? request->prompt_ids[i] : config->mask_id;
        executor->log_probs[cell + i] = 0;
        running->n_masks_given += canvas[i] == config->mask_id;
    }
    running->prefix_end = request->n_prompt;
    cell += n;
    if (running->phases.n_twins == 2) {
        running->twin_begin = cell;
        for (int32_t i = 0; i < n; i++)
            executor->cells[cell + i] = config->mask_id;
        cell += n;
    }
    assert(cell <= executor->limits.n_cells_max);
    bool entered = enter_block(executor, running);
    assert(entered);
    return cell;
}

/* Extends the complete prefix and notes the first stop in it: a stop token, or the token where the
 * request wants to be stopped. Infill has no end to find. */
static void find_stop(const struct executor *executor, struct running *running)
{
    const struct model_config *config = &executor->model->config;
    const struct request *request = running->request;
    const int32_t *canvas = executor_canvas(executor, running);
    if (request->decode.gen_length == 0 || running->stop_cell >= 0) return;
    while (running->prefix_end < running->phases.n_canvas &&
           canvas[running->prefix_end] != config->mask_id) {
        int32_t cell = running->prefix_end++;
        bool is_stop = request->stop_after > 0
                           ? running->prefix_end - request->n_prompt == request->stop_after
                           : sampler_is_stop(config, canvas[cell]);
        if (!is_stop) continue;
        running->stop_cell = cell;
        return;
    }
}

static bool give_answer(const struct executor *executor, struct running *running,
                        const struct executor_events *events, struct error *err)
{
    const struct request *request = running->request;
    if (running->failure[0] != '\0') {
        struct answer none = {.request = request, .failure = running->failure};
        return events->answered(events->context, &none, err);
    }
    bool infill = request->decode.gen_length == 0;
    int32_t begin = infill ? 0 : request->n_prompt, end = running->phases.n_canvas;
    bool stopped = running->stop_cell >= 0;
    assert(stopped || running->n_block_masked == 0);
    assert(running->n_forwards > 0);
    struct answer answer = {
        .request = request,
        .token_ids = executor_canvas(executor, running) + begin,
        .n_effective =
            infill ? running->n_masks_given : (stopped ? running->stop_cell + 1 : end) - begin,
        .finish_reason = stopped ? FINISH_STOP : FINISH_LENGTH,
        .steps = running->n_forwards,
        .blocks = running->n_blocks,
        .refresh_steps = running->n_refreshes,
        .reuse_steps = running->n_forwards - running->n_refreshes,
        .positions = running->n_positions,
        .times = running->times,
    };
    answer.n_tokens = stopped && request->decode.early_stop ? answer.n_effective : end - begin;
    if (request->want_logprobs)
        answer.log_probs = executor->log_probs + running->canvas_begin + begin;
    return events->answered(events->context, &answer, err);
}

/* ---- one iteration ---- */

static struct matrix forward(struct executor *executor)
{
    const struct batch *batch = &executor->batch;
    const int32_t n_vocab = executor->model->config.n_vocab;
    if (!executor->logits)
        return forward_run(&executor->forward, executor->canvas, &executor->keeps);
    struct matrix logits = {executor->logits, batch->n_rows, n_vocab, DTYPE_F32};
    assert(batch->n_rows <= executor->limits.planning.n_rows_max);
    return forward_run_monolithic(&executor->forward, executor->canvas, &executor->keeps, logits);
}

/* Hands the batch to the backend, for the flight's picks. */
static void submit(struct executor *executor, const struct flight *flight, uint64_t shape_key)
{
    struct backend *backend = executor->model->backend;
    const struct model_config *config = &executor->model->config;
    assert(executor->n_score > 0);
    assert(executor->n_score <= executor->batch.n_picks);
    backend_start_step(backend, &executor->batch, shape_key);
    struct matrix hidden = forward(executor);
    backend_score(backend, &(struct score_args){.picks = executor->device_picks,
                                                .hidden = hidden,
                                                .head = executor->model->weights.head,
                                                .rows = executor->score_rows,
                                                .n = executor->n_score,
                                                .n_vocab = config->n_vocab,
                                                .mask_id = config->mask_id});
    backend_commit(backend, &(struct commit_args){.canvas = executor->canvas,
                                                  .picks = executor->device_picks,
                                                  .cell = flight->pick_cell,
                                                  .twin_cell = executor->pick_twin_cell,
                                                  .position = executor->pick_position,
                                                  .requests = executor->commits,
                                                  .n = executor->n_commits,
                                                  .mask_id = config->mask_id});
    struct matrix picks = {.data = executor->device_picks,
                           .n_rows = executor->n_score,
                           .n_cols = (int32_t)(sizeof(struct pick) / sizeof(int32_t)),
                           .dtype = DTYPE_I32};
    backend_submit_step(backend, flight->picks, picks);
    executor->counts.n_iterations++;
    executor->counts.n_positions += executor->batch.n_rows;
    executor->counts.n_picks += executor->batch.n_picks;
}

/* Waits for the oldest step that was submitted. */
static bool finish(struct executor *executor, struct error *err)
{
    uint64_t device_ns = 0;
    if (!backend_finish_step(executor->model->backend, &device_ns, err)) return false;
    executor->counts.compute_ns += device_ns;
    return true;
}

/* The same step again: recorded, then replayed. A backend that cannot record here loses the step,
 * and records none from then on. */
static bool warm_graphs(struct executor *executor, struct error *err)
{
    struct backend_graphs *graphs = &executor->model->backend->graphs;
    struct error reason = {0};
    for (int i = 0; i < 2 && graphs->is_on; i++) {
        submit(executor, &executor->flights[0], 1);
        if (!finish(executor, &reason) && graphs->is_on)
            return error_set(err, reason.code, "%s", reason.message);
    }
    assert(!graphs->is_on || graphs->n_replayed > 0);
    *graphs = (struct backend_graphs){.is_on = graphs->is_on};
    return true;
}

/* One row through everything, so that a backend that chooses algorithms by the shapes it meets has
 * met them all before anybody waits. */
static bool warm_up(struct executor *executor, struct error *err)
{
    const struct model_config *config = &executor->model->config;
    static const struct sequence only = {.n_rows = 1, .n_picks = 1, .cache_begin = -1};
    struct matrix cell = executor->canvas;
    cell.n_rows = 1;
    executor->cells[0] = config->mask_id;
    backend_upload(executor->model->backend, cell, executor->cells);
    executor->canvas_index[0] = executor->position[0] = executor->picked_row[0] = 0;
    executor->visible_end[0] = 1;
    executor->score_rows[0] = (struct score_row){.uncond_row = -1, .top_p = 1};
    executor->batch = (struct batch){.n_rows = 1,
                                     .canvas_index = executor->canvas_index,
                                     .position = executor->position,
                                     .visible_end = executor->visible_end,
                                     .n_sequences = 1,
                                     .sequences = &only,
                                     .n_picks = 1,
                                     .picked_row = executor->picked_row};
    executor->n_score = 1;
    submit(executor, &executor->flights[0], 1);
    bool ok = finish(executor, err) && warm_graphs(executor, err);
    executor->counts = (struct executor_counts){0};
    return ok;
}

bool executor_create(struct executor **executor, struct model *model,
                     const struct executor_limits *limits, struct arena *run, struct error *err)
{
    const struct planner_options *planning = &limits->planning;
    assert(planning->n_rows_max > 0);
    assert(planning->n_requests_max > 0);
    size_t rows = (size_t)planning->n_rows_max, cells = (size_t)limits->n_cells_max;
    struct executor *made = arena_try_push(run, 1, sizeof *made);
    if (!made) return error_set(err, ERROR_UNAVAILABLE, "no memory for the executor");
    *made = (struct executor){
        .model = model,
        .limits = *limits,
        .running = arena_push(run, (size_t)planning->n_requests_max, sizeof *made->running),
        .cells = arena_push(run, cells, sizeof *made->cells),
        .log_probs = arena_push(run, cells, sizeof *made->log_probs),
        .canvas_index = arena_push(run, rows, sizeof *made->canvas_index),
        .position = arena_push(run, rows, sizeof *made->position),
        .visible_end = arena_push(run, rows, sizeof *made->visible_end),
        .picked_row = arena_push(run, rows, sizeof *made->picked_row),
        .sequences = arena_push(run, rows, sizeof *made->sequences),
        .stores = arena_push(run, rows, sizeof *made->stores),
        .by_head = arena_push(run, rows, sizeof *made->by_head),
        .shared = arena_push(run, rows, sizeof *made->shared),
        .score_rows = arena_push(run, rows, sizeof *made->score_rows),
        .pick_twin_cell = arena_push(run, rows, sizeof *made->pick_twin_cell),
        .pick_position = arena_push(run, rows, sizeof *made->pick_position),
        .commits = arena_push(run, rows, sizeof *made->commits),
    };
    for (int i = 0; i < BACKEND_STEPS_MOST; i++) {
        struct flight *flight = &made->flights[i];
        size_t n_items = (size_t)planning->n_requests_max;
        flight->items = arena_push(run, n_items, sizeof *flight->items);
        flight->pick_cell = arena_push(run, rows, sizeof *flight->pick_cell);
        flight->picks = arena_push(run, rows, sizeof *flight->picks);
    }
    planner_create(&made->planner, planning, run);
    forward_init(&made->forward, model, planning->n_rows_max, planning->n_slots);
    made->canvas = (struct matrix){
        .data = backend_reserve(model->backend, REGION_SCRATCH, cells * sizeof(int32_t)),
        .n_rows = (int32_t)limits->n_cells_max,
        .n_cols = 1,
        .dtype = DTYPE_I32};
    made->device_picks =
        backend_reserve(model->backend, REGION_SCRATCH, rows * sizeof *made->device_picks);
    if (limits->monolithic_logits) {
        size_t n_bytes = rows * (size_t)model->config.n_vocab * sizeof(float);
        made->logits = backend_reserve(model->backend, REGION_SCRATCH, n_bytes);
    }
    *executor = made;
    return !model->backend->learns_shapes || warm_up(made, err);
}

/* ---- what came of it ---- */

/* Takes over what the step committed. Returns the number; *n_left: masks of the block that it left.
 */
static int32_t take_commits(struct executor *executor, const struct flight *flight,
                            const struct flight_item *item, int32_t *n_left)
{
    int32_t n = 0;
    *n_left = 0;
    for (int32_t i = item->pick_begin; i < item->pick_begin + item->n_picks; i++) {
        const struct pick *pick = &flight->picks[i];
        int32_t cell = flight->pick_cell[i];
        if (executor->cells[cell] != executor->model->config.mask_id) continue;
        *n_left += !pick->is_committed;
        if (!pick->is_committed) continue;
        executor->cells[cell] = pick->id;
        executor->log_probs[cell] = pick->log_prob;
        n++;
    }
    executor->counts.n_commits += n;
    assert(!flight->is_reported || n == item->n_commits);
    return n;
}

/* A row of the request that has no finite logit: all suppressed, or the numbers overflowed. */
static bool is_broken(const struct executor *executor, const struct flight *flight,
                      const struct flight_item *item, struct running *running)
{
    assert(item->n_picks > 0);
    for (int32_t i = item->pick_begin; i < item->pick_begin + item->n_picks; i++) {
        int32_t cell = flight->pick_cell[i];
        if (flight->picks[i].id >= 0) continue;
        if (executor->cells[cell] != executor->model->config.mask_id) continue;
        snprintf(running->failure, sizeof running->failure,
                 "step %d: no token can be chosen for position %d: its logits are not finite, or "
                 "every token is suppressed",
                 running->n_forwards, cell - running->canvas_begin);
        return true;
    }
    return false;
}

/* The step has committed so many tokens, or will. `running->block_index` is then the block to go on
 * with. */
static enum step_outcome advance(const struct executor *executor, struct running *running,
                                 int32_t n_commits)
{
    running->n_block_masked -= n_commits;
    running->step++;
    assert(running->n_block_masked >= 0);
    if (running->n_block_masked > 0) return STEP_GOES_ON;
    running->block_index++;
    return enter_block(executor, running) ? STEP_BLOCK : STEP_END;
}

/* Enters the item's step into what is known of its request. Returns how many tokens it committed;
 * -1: the request is over, stopped or broken. */
static int32_t learn(struct executor *executor, const struct flight *flight,
                     const struct flight_item *item, struct running *running)
{
    uint64_t now_ns = flight->done.end_ns;
    int32_t n_left;
    if (is_broken(executor, flight, item, running)) return -1;
    int32_t n = take_commits(executor, flight, item, &n_left);
    if (running->n_forwards == 0) running->times.first_forward_ns = flight->done.begin_ns;
    running->n_forwards++;
    running->n_refreshes += item->is_refresh;
    running->n_blocks += item->begins_block;
    running->n_positions += item->n_positions;
    if (n > 0 && !running->times.first_commit_ns) running->times.first_commit_ns = now_ns;
    if (n > 0) running->times.last_commit_ns = now_ns;
    if (n_left == 0 && !running->times.first_block_ns) running->times.first_block_ns = now_ns;
    find_stop(executor, running);
    return running->stop_cell >= 0 && running->request->decode.early_stop ? -1 : n;
}

/* Tells the planner of an item whose step has committed so many tokens, or will; -1: its request is
 * over. */
static void report_item(struct executor *executor, struct flight_item *item,
                        struct running *running, int32_t n_commits)
{
    assert(n_commits >= -1);
    if (running->is_over) {
        planner_end(executor->planner, item->request, running->end_block, true);
        return;
    }
    item->outcome = n_commits < 0 ? STEP_END : advance(executor, running, n_commits);
    planner_report(executor->planner, item->request, item->outcome, running->block_index);
}

/* Looks at one request of a finished iteration; its answer may leave. */
static bool look_at(struct executor *executor, struct flight *flight, struct flight_item *item,
                    const struct executor_events *events, struct error *err)
{
    struct running *running = &executor->running[item->request];
    bool was_over = running->is_over;
    int32_t n = was_over ? -1 : learn(executor, flight, item, running);
    running->n_in_flight--;
    if (!flight->is_reported) report_item(executor, item, running, n);
    else if (n < 0 && !was_over && item->outcome != STEP_END && running->n_in_flight == 0)
        planner_end(executor->planner, item->request, item->block, false);
    if (was_over || (n >= 0 && item->outcome != STEP_END)) return true;
    running->is_over = true;
    running->end_block = item->block;
    running->times.finished_ns = flight->done.end_ns;
    executor->n_running--;
    return give_answer(executor, running, events, err);
}

/* Times it, and how far the cost model was off. */
static void compare_times(struct executor *executor, struct executor_iteration *done)
{
    struct executor_counts *counts = &executor->counts;
    uint64_t took_ns = done->end_ns - done->begin_ns;
    counts->iterations_ns += took_ns;
    assert(done->load.n_rows > 0);
    if (!executor->limits.cost) return;
    done->predicted_ns = cost_iteration_ns(executor->limits.cost, &done->load);
    double off = took_ns > 0 ? fabs((double)done->predicted_ns / (double)took_ns - 1) : 0;
    counts->predicted_ns += done->predicted_ns;
    counts->n_by_error[(int)fmin(100 * off, EXECUTOR_ERRORS - 1)]++;
}

/* Waits for the flight and looks at every request of it. */
static bool look(struct executor *executor, struct flight *flight,
                 const struct executor_events *events, struct error *err)
{
    struct executor_iteration *done = &flight->done;
    if (!finish(executor, err)) return false;
    /* Behind another one it began when that was over. */
    if (done->begin_ns < executor->looked_ns) done->begin_ns = executor->looked_ns;
    done->end_ns = clock_now_ns();
    assert(flight->n_items > 0);
    for (int32_t i = 0; i < flight->n_items; i++)
        if (!look_at(executor, flight, &flight->items[i], events, err)) return false;
    executor->looked_ns = done->end_ns = clock_now_ns();
    compare_times(executor, done);
    if (events->iterated(events->context, done) || executor->n_running == 0) return true;
    return error_set(err, ERROR_STOPPED, "stopped on request");
}

/* Tells the planner what the flight's steps will commit. */
static void report_ahead(struct executor *executor, struct flight *flight)
{
    assert(flight->is_certain);
    for (int32_t i = 0; i < flight->n_items; i++) {
        struct flight_item *item = &flight->items[i];
        report_item(executor, item, &executor->running[item->request], item->n_commits);
    }
    flight->is_reported = true;
}

static void start_all(struct executor *executor, const struct request *requests, int32_t n_requests)
{
    int32_t cell = 0;
    for (int32_t i = 0; i < n_requests; i++) {
        struct running *running = &executor->running[i];
        cell = start_request(executor, running, &requests[i], cell);
        struct planner_request planned = {.phases = &running->phases,
                                          .arrival_ns = requests[i].arrival_ns,
                                          .first_block = running->block_index};
        int32_t number = planner_add(executor->planner, &planned);
        assert(number == i);
    }
    executor->n_running = n_requests;
    assert(cell <= executor->limits.n_cells_max);
    struct matrix used = executor->canvas;
    used.n_rows = cell;
    if (cell > 0) backend_upload(executor->model->backend, used, executor->cells);
}

/* Submits the iteration, then looks at the one before it, which was in flight meanwhile. */
static bool run_iteration(struct executor *executor, const struct plan_iteration *iteration,
                          uint64_t begin_ns, const struct executor_events *events,
                          struct error *err)
{
    struct flight *flight = &executor->flights[executor->next_flight], *before = executor->pending;
    int64_t n_slots = planner_slots_held(executor->planner);
    assert(n_slots <= executor->limits.planning.n_slots);
    if (n_slots > executor->counts.n_slots_peak) executor->counts.n_slots_peak = n_slots;
    executor->next_flight = (executor->next_flight + 1) % BACKEND_STEPS_MOST;
    executor->pending = NULL;
    flight->done = (struct executor_iteration){.begin_ns = begin_ns, .n_slots = n_slots};
    flight->is_reported = false;
    executor_build(executor, iteration, flight);
    submit(executor, flight, executor_shape_key(executor));
    if (before && !look(executor, before, events, err)) return false;
    bool goes_ahead = flight->is_certain && executor->model->backend->n_steps_ahead > 0;
    /* Who arrives while this one runs is to take part in the next. */
    if (!goes_ahead || iteration->awaits_arrivals) return look(executor, flight, events, err);
    report_ahead(executor, flight);
    executor->pending = flight;
    return true;
}

static bool run_all(struct executor *executor, const struct executor_events *events,
                    struct error *err)
{
    for (;;) {
        struct plan_iteration iteration;
        struct flight *pending = executor->pending;
        uint64_t next_ns, begin_ns = clock_now_ns();
        enum planner_status status =
            planner_next(executor->planner, begin_ns, &iteration, &next_ns);
        executor->counts.planning_ns += clock_now_ns() - begin_ns;
        if (status == PLANNER_ITERATION) {
            if (!run_iteration(executor, &iteration, begin_ns, events, err)) return false;
        } else if (pending) {
            executor->pending = NULL;
            if (!look(executor, pending, events, err)) return false;
        } else if (status == PLANNER_DONE) {
            return true;
        } else if (!events->waited(events->context, next_ns)) {
            return error_set(err, ERROR_STOPPED, "stopped on request");
        }
    }
}

bool executor_run(struct executor *executor, const struct request *requests, int32_t n_requests,
                  const struct executor_events *events, struct error *err)
{
    assert(n_requests >= 0);
    assert(n_requests <= executor->limits.planning.n_requests_max);
    planner_reset(executor->planner, events->chosen);
    start_all(executor, requests, n_requests);
    bool ok = run_all(executor, events, err);
    executor->pending = NULL;
    while (executor->model->backend->n_submitted > 0)
        finish(executor, NULL); /* nobody waits for it any more */
    executor->counts.n_surprises += planner_surprises(executor->planner);
    return ok;
}

struct executor_counts executor_counts(const struct executor *executor)
{
    return executor->counts;
}
