/* The loop of a run. Each iteration: ask the planner who takes a step, write their rows as one
 * ragged batch, forward, score, commit, then look at what was committed: a block may be complete,
 * an answer may be complete, and the planner hears of it.
 *
 *     canvases   |request 0 . . . .|twin of 0|request 1 . .|request 2 . . . . . .|   cells
 *     batch      [rows of 0][rows of 2][rows of twin 0][padding]                     rows
 *     picks      [masked rows of the active blocks, same order]
 *
 * Twins (CFG's unconditional canvases) come last, so that pick i of a request is row i of score.
 * Rows are the cells that the step feeds (plan/phases.h), all of the canvas or only a window. */
#include "engine/executor.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "engine/sampler.h"
#include "model/forward.h"

/* A request on its way from prompt to answer. */
struct running {
    const struct request *request;
    struct phases phases;
    int32_t canvas_begin, twin_begin; /* cells; twin -1: none */
    int32_t n_masks_given;            /* masks at the start: what is to be generated */
    int32_t block_index, block_begin, block_end, n_block_start, n_block_masked, step;
    int32_t prefix_end; /* cells before it are all committed */
    int32_t stop_cell;  /* first stop token of the complete prefix, or -1 */
    int32_t n_forwards, n_refreshes, n_blocks_entered;
    int64_t n_positions;
    int32_t pick_begin; /* in the current batch */
    char failure[160];  /* why it cannot go on; "": it can */
    struct answer_times times;
};

struct executor {
    struct model *model;
    struct forward forward;
    struct executor_limits limits;
    struct executor_counts counts;
    struct matrix canvas; /* [n_cells_max, 1], backend memory */
    struct pick *device_picks;
    float *logits; /* monolithic: [n_rows_max, n_vocab]; else NULL */
    struct planner *planner;
    struct running *running; /* [n_requests_max], by the planner's numbers */
    int32_t n_running;       /* requests that are not finished */
    /* Host copies, cell by cell. */
    int32_t *cells;   /* [n_cells_max] */
    float *log_probs; /* [n_cells_max] */
    /* The batch being built; arrays of n_rows_max. */
    struct batch batch;
    int32_t *canvas_index, *position, *visible_end, *picked_row;
    struct sequence *sequences; /* n_rows_max: a sequence has at least one row */
    struct store_row *stores;
    struct select_sequence *by_head, *shared;
    struct forward_keeps keeps;
    struct score_row *score_rows;
    int32_t *pick_cell, *pick_twin_cell;
    uint32_t *pick_position;
    struct pick *picks;
    struct commit_request *commits;
    int32_t n_commits, n_score;
    struct iteration_load load; /* for the cost model */
};

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

static int32_t *canvas_of(const struct executor *executor, const struct running *running)
{
    assert(running->canvas_begin + running->phases.n_canvas <= executor->limits.n_cells_max);
    return executor->cells + running->canvas_begin;
}

/* Moves on to the next block that has masks; false: there is none. */
static bool enter_block(const struct executor *executor, struct running *running)
{
    const int32_t *canvas = canvas_of(executor, running);
    for (; running->block_index < running->phases.n_blocks; running->block_index++) {
        phases_block(&running->phases, running->block_index, &running->block_begin,
                     &running->block_end);
        int32_t n = 0;
        for (int32_t i = running->block_begin; i < running->block_end; i++)
            n += canvas[i] == executor->model->config.mask_id;
        if (n == 0) continue;
        running->n_block_start = running->n_block_masked = n;
        running->step = 0;
        running->n_blocks_entered++;
        return true;
    }
    return false;
}

/* Steps that the active block's schedule has. */
static int32_t block_steps(const struct running *running)
{
    int32_t steps = running->phases.steps_per_block;
    assert(running->n_block_start > 0);
    return steps > 0 ? steps : running->n_block_start;
}

/* Lays the request's canvas at `cell`; returns the first cell after it. */
static int32_t start_request(struct executor *executor, struct running *running,
                             const struct request *request, int32_t cell)
{
    const struct model_config *config = &executor->model->config;
    const struct phases_model model = executor_phases_model(config);
    bool infill = has_masks(request, config->mask_id);
    *running = (struct running){.request = request,
                                .canvas_begin = cell,
                                .twin_begin = -1,
                                .stop_cell = -1,
                                .pick_begin = -1};
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
    const int32_t *canvas = canvas_of(executor, running);
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
        .token_ids = canvas_of(executor, running) + begin,
        .n_effective =
            infill ? running->n_masks_given : (stopped ? running->stop_cell + 1 : end) - begin,
        .finish_reason = stopped ? FINISH_STOP : FINISH_LENGTH,
        .steps = running->n_forwards,
        .blocks = running->n_blocks_entered,
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

/* Rows before the one that feeds `cell`, or that would. */
static int32_t row_of(const struct step_shape *shape, int32_t cell)
{
    int32_t row = 0;
    assert(shape->n_spans > 0);
    for (int32_t i = 0; i < shape->n_spans && shape->spans[i].begin < cell; i++) {
        int32_t end = shape->spans[i].end;
        row += (end < cell ? end : cell) - shape->spans[i].begin;
    }
    return row;
}

static void add_rows(struct executor *executor, const struct step_shape *shape, int32_t cell_begin)
{
    int32_t at = executor->batch.n_rows, end = at + shape->n_rows;
    assert(end <= executor->limits.planning.n_rows_max);
    for (int32_t i = 0; i < shape->n_spans; i++) {
        for (int32_t cell = shape->spans[i].begin; cell < shape->spans[i].end; cell++, at++) {
            executor->canvas_index[at] = cell_begin + cell;
            executor->position[at] = cell;
            executor->visible_end[at] = end;
        }
    }
    assert(at == end);
    executor->batch.n_rows = end;
}

/* Masked cells of the active block, each with the row that predicts it. */
static void add_picks(struct executor *executor, const struct running *running,
                      const struct step_shape *shape, int32_t row_begin)
{
    const struct model_config *config = &executor->model->config;
    const int32_t *canvas = canvas_of(executor, running);
    assert(running->n_block_masked > 0);
    for (int32_t i = running->block_begin; i < running->block_end; i++) {
        if (canvas[i] != config->mask_id) continue;
        int32_t row = row_of(shape, i >= config->shift ? i - config->shift : 0);
        executor->picked_row[executor->batch.n_picks++] = row_begin + row;
    }
}

/* What the sequence leaves in the cache. A twin's extents lie behind its canvas's. */
static void add_keeps(struct executor *executor, const struct running *running,
                      const struct plan_item *item, bool is_twin)
{
    const struct step_shape *shape = &item->shape;
    struct forward_keeps *keeps = &executor->keeps;
    int32_t index = executor->batch.n_sequences - 1;
    int32_t row_begin = executor->sequences[index].row_begin;
    int32_t n_prompt = shape->stores_prompt ? phases_prompt_slots(&running->phases) : 0;
    assert(n_prompt <= shape->spans[0].end);
    for (int32_t i = 0; i < n_prompt; i++)
        executor->stores[keeps->n_stores++] =
            (struct store_row){.row = row_begin + i,
                               .index = i,
                               .n = n_prompt,
                               .cache_begin = item->prompt_begin + (is_twin ? n_prompt : 0)};
    if (shape->n_kept == 0) return;
    assert(item->kept_begin >= 0);
    struct select_sequence select = {
        .sequence = index,
        .window_begin = row_begin + row_of(shape, shape->hold_out.begin),
        .window_end = row_begin + row_of(shape, shape->hold_out.end),
        .n_keep = shape->n_kept,
        .target_begin = item->kept_begin + (is_twin ? shape->n_kept : 0)};
    if (running->request->decode.shared_select) executor->shared[keeps->n_shared++] = select;
    else executor->by_head[keeps->n_by_head++] = select;
}

static void add_sequence(struct executor *executor, struct running *running,
                         const struct plan_item *item, bool is_twin)
{
    struct batch *batch = &executor->batch;
    const struct step_shape *shape = &item->shape;
    int32_t row_begin = batch->n_rows, pick_begin = batch->n_picks;
    int64_t cache_begin = shape->sees_kept ? item->kept_begin : item->prompt_begin;
    assert(item->block == running->block_index);
    add_rows(executor, shape, is_twin ? running->twin_begin : running->canvas_begin);
    add_picks(executor, running, shape, row_begin);
    executor->sequences[batch->n_sequences++] = (struct sequence){
        .row_begin = row_begin,
        .n_rows = shape->n_rows,
        .pick_begin = pick_begin,
        .n_picks = batch->n_picks - pick_begin,
        .cache_begin = shape->n_cached == 0 ? -1 : cache_begin + (is_twin ? shape->n_cached : 0),
        .n_cached = shape->n_cached};
    add_keeps(executor, running, item, is_twin);
}

/* Rows that a batch in lockstep computes for nothing; each costs what a row costs in the matrices.
 */
static void add_padding(struct executor *executor, int32_t n_rows)
{
    struct batch *batch = &executor->batch;
    int32_t begin = batch->n_rows;
    assert(begin + n_rows <= executor->limits.planning.n_rows_max);
    if (n_rows == 0) return;
    for (int32_t i = begin; i < begin + n_rows; i++) {
        executor->canvas_index[i] = executor->canvas_index[0];
        executor->position[i] = 0;
        executor->visible_end[i] = begin + 1;
    }
    executor->sequences[batch->n_sequences++] = (struct sequence){
        .row_begin = begin, .n_rows = n_rows, .pick_begin = batch->n_picks, .cache_begin = -1};
    batch->n_rows += n_rows;
}

/* What becomes of the request's picks: how they are scored and which are committed. */
static void add_decisions(struct executor *executor, struct running *running)
{
    const struct model_config *config = &executor->model->config;
    const struct request *request = running->request;
    const int32_t *canvas = canvas_of(executor, running);
    int32_t pick = running->pick_begin;
    struct score_row row;
    sampler_score_row(&row, request, config, running->n_forwards);
    for (int32_t i = running->block_begin; i < running->block_end; i++) {
        if (canvas[i] != config->mask_id) continue;
        row.position = (uint32_t)i;
        executor->score_rows[pick] = row;
        executor->pick_cell[pick] = running->canvas_begin + i;
        executor->pick_twin_cell[pick] = running->twin_begin < 0 ? -1 : running->twin_begin + i;
        executor->pick_position[pick] = (uint32_t)i;
        pick++;
    }
    assert(pick == running->pick_begin + running->n_block_masked);
    running->step = sampler_next_step(&request->decode, running->n_block_start,
                                      running->n_block_masked, block_steps(running), running->step);
    struct commit_request *commit = &executor->commits[executor->n_commits++];
    sampler_commit_request(commit, request, running->n_block_start, running->n_block_masked,
                           block_steps(running), running->step);
    commit->pick_begin = running->pick_begin;
    commit->n_picks = running->n_block_masked;
    commit->step = (uint32_t)running->n_forwards;
}

/* The iteration's rows: its requests, then their twins, then padding. */
static void build_batch(struct executor *executor, const struct plan_iteration *iteration)
{
    struct batch *batch = &executor->batch;
    *batch = (struct batch){.canvas_index = executor->canvas_index,
                            .position = executor->position,
                            .visible_end = executor->visible_end,
                            .sequences = executor->sequences,
                            .picked_row = executor->picked_row};
    executor->keeps = (struct forward_keeps){
        .stores = executor->stores, .by_head = executor->by_head, .shared = executor->shared};
    executor->n_commits = 0;
    executor->load = (struct iteration_load){0};
    for (int32_t i = 0; i < iteration->n_items; i++) {
        const struct plan_item *item = &iteration->items[i];
        struct running *running = &executor->running[item->request];
        running->pick_begin = batch->n_picks;
        cost_add_step(&executor->load, &running->phases, &item->shape, running->n_block_masked);
        add_sequence(executor, running, item, false);
        add_decisions(executor, running);
        if (item->shape.phase == PHASE_REFRESH) {
            running->n_refreshes++;
            executor->counts.n_refresh_positions += item->shape.n_rows * running->phases.n_twins;
        }
        running->n_positions += item->shape.n_rows * running->phases.n_twins;
    }
    executor->n_score = batch->n_picks;
    for (int32_t i = 0; i < iteration->n_items; i++) {
        struct running *running = &executor->running[iteration->items[i].request];
        if (running->twin_begin < 0) continue;
        for (int32_t j = 0; j < running->n_block_masked; j++)
            executor->score_rows[running->pick_begin + j].uncond_row = batch->n_picks + j;
        add_sequence(executor, running, &iteration->items[i], true);
    }
    assert(batch->n_rows == iteration->n_rows);
    add_padding(executor, iteration->n_pad_rows);
    executor->counts.n_pad_positions += iteration->n_pad_rows;
    executor->load.n_rows += iteration->n_pad_rows;
}

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

static bool compute(struct executor *executor, struct error *err)
{
    struct backend *backend = executor->model->backend;
    const struct model_config *config = &executor->model->config;
    uint64_t device_ns;
    assert(executor->n_score > 0);
    assert(executor->n_score <= executor->batch.n_picks);
    backend_start_step(backend, &executor->batch, 0);
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
                                                  .cell = executor->pick_cell,
                                                  .twin_cell = executor->pick_twin_cell,
                                                  .position = executor->pick_position,
                                                  .requests = executor->commits,
                                                  .n = executor->n_commits,
                                                  .mask_id = config->mask_id});
    struct matrix picks = {.data = executor->device_picks,
                           .n_rows = executor->n_score,
                           .n_cols = (int32_t)(sizeof(struct pick) / sizeof(int32_t)),
                           .dtype = DTYPE_I32};
    backend_submit_step(backend, executor->picks, picks);
    if (!backend_finish_step(backend, &device_ns, err)) return false;
    executor->counts.n_iterations++;
    executor->counts.n_positions += executor->batch.n_rows;
    executor->counts.n_picks += executor->batch.n_picks;
    executor->counts.compute_ns += device_ns;
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
    bool ok = compute(executor, err);
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
        .pick_cell = arena_push(run, rows, sizeof *made->pick_cell),
        .pick_twin_cell = arena_push(run, rows, sizeof *made->pick_twin_cell),
        .pick_position = arena_push(run, rows, sizeof *made->pick_position),
        .picks = arena_push(run, rows, sizeof *made->picks),
        .commits = arena_push(run, rows, sizeof *made->commits),
    };
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

/* Takes over what the step committed in the request's active block. */
static void take_commits(struct executor *executor, struct running *running, uint64_t now_ns)
{
    int32_t mask_id = executor->model->config.mask_id;
    int32_t *canvas = canvas_of(executor, running), n_before = running->n_block_masked;
    const struct pick *pick = executor->picks + running->pick_begin;
    assert(running->pick_begin >= 0);
    for (int32_t i = running->block_begin; i < running->block_end; i++) {
        if (canvas[i] != mask_id) continue;
        if (pick->is_committed) {
            canvas[i] = pick->id;
            executor->log_probs[running->canvas_begin + i] = pick->log_prob;
            running->n_block_masked--;
        }
        pick++;
    }
    executor->counts.n_commits += n_before - running->n_block_masked;
    if (running->n_block_masked == n_before) return;
    if (!running->times.first_commit_ns) running->times.first_commit_ns = now_ns;
    running->times.last_commit_ns = now_ns;
}

/* A row of the request that has no finite logit: all suppressed, or the numbers overflowed. */
static bool is_broken(const struct executor *executor, struct running *running)
{
    const struct pick *picks = executor->picks + running->pick_begin;
    for (int32_t i = 0; i < running->n_block_masked; i++) {
        if (picks[i].id >= 0) continue;
        snprintf(running->failure, sizeof running->failure,
                 "step %d: no token can be chosen for position %u: its logits are not finite, or "
                 "every token is suppressed",
                 running->n_forwards, executor->pick_position[running->pick_begin + i]);
        return true;
    }
    assert(running->n_block_masked > 0);
    return false;
}

/* After a step: what came of it. `running->block_index` is then the block to go on with. */
static enum step_outcome advance(struct executor *executor, struct running *running,
                                 uint64_t now_ns)
{
    if (is_broken(executor, running)) return STEP_END;
    take_commits(executor, running, now_ns);
    running->n_forwards++;
    running->step++;
    find_stop(executor, running);
    bool finished = running->stop_cell >= 0 && running->request->decode.early_stop;
    if (running->n_block_masked > 0 && !finished) return STEP_GOES_ON;
    if (running->n_block_masked == 0 && !running->times.first_block_ns)
        running->times.first_block_ns = now_ns;
    if (!finished && enter_block(executor, running)) return STEP_BLOCK;
    running->times.finished_ns = now_ns;
    return STEP_END;
}

/* Looks at every request of the iteration; answers leave. */
static bool advance_all(struct executor *executor, const struct plan_iteration *iteration,
                        const struct executor_events *events, struct error *err)
{
    uint64_t now_ns = clock_now_ns();
    assert(iteration->n_items > 0);
    for (int32_t i = 0; i < iteration->n_items; i++) {
        int32_t request = iteration->items[i].request;
        struct running *running = &executor->running[request];
        enum step_outcome outcome = advance(executor, running, now_ns);
        planner_report(executor->planner, request, outcome, running->block_index);
        if (outcome != STEP_END) continue;
        executor->n_running--;
        if (!give_answer(executor, running, events, err)) return false;
    }
    return true;
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

static bool run_iteration(struct executor *executor, const struct plan_iteration *iteration,
                          const struct executor_events *events, struct error *err)
{
    uint64_t start_ns = clock_now_ns();
    int64_t n_slots = executor->counts.n_slots_held = planner_slots_held(executor->planner);
    assert(n_slots <= executor->limits.planning.n_slots);
    if (n_slots > executor->counts.n_slots_peak) executor->counts.n_slots_peak = n_slots;
    build_batch(executor, iteration);
    for (int32_t i = 0; i < iteration->n_items; i++) {
        struct running *running = &executor->running[iteration->items[i].request];
        if (running->n_forwards == 0) running->times.first_forward_ns = start_ns;
    }
    return compute(executor, err) && advance_all(executor, iteration, events, err);
}

/* Times it, and how far the cost model was off. */
static void compare_times(struct executor *executor, struct executor_iteration *done)
{
    struct executor_counts *counts = &executor->counts;
    uint64_t took_ns = clock_now_ns() - done->begin_ns;
    done->end_ns = done->begin_ns + took_ns;
    done->load = executor->load;
    counts->iterations_ns += took_ns;
    assert(done->load.n_rows > 0);
    if (!executor->limits.cost) return;
    done->predicted_ns = cost_iteration_ns(executor->limits.cost, &done->load);
    double off = took_ns > 0 ? fabs((double)done->predicted_ns / (double)took_ns - 1) : 0;
    counts->predicted_ns += done->predicted_ns;
    counts->n_by_error[(int)fmin(100 * off, EXECUTOR_ERRORS - 1)]++;
}

bool executor_run(struct executor *executor, const struct request *requests, int32_t n_requests,
                  const struct executor_events *events, struct error *err)
{
    assert(n_requests >= 0);
    assert(n_requests <= executor->limits.planning.n_requests_max);
    planner_reset(executor->planner, events->chosen);
    start_all(executor, requests, n_requests);
    for (;;) {
        struct plan_iteration iteration;
        struct executor_iteration done = {.begin_ns = clock_now_ns()};
        uint64_t next_ns;
        bool goes_on;
        enum planner_status status =
            planner_next(executor->planner, done.begin_ns, &iteration, &next_ns);
        executor->counts.planning_ns += clock_now_ns() - done.begin_ns;
        if (status == PLANNER_DONE) break;
        if (status == PLANNER_ITERATION) {
            if (!run_iteration(executor, &iteration, events, err)) return false;
            compare_times(executor, &done);
            goes_on = events->iterated(events->context, &done) || executor->n_running == 0;
        } else goes_on = events->waited(events->context, next_ns);
        if (!goes_on) return error_set(err, ERROR_STOPPED, "stopped on request");
    }
    executor->counts.n_surprises += planner_surprises(executor->planner);
    return true;
}

struct executor_counts executor_counts(const struct executor *executor)
{
    return executor->counts;
}
