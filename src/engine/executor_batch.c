/* An iteration as the planner decided it becomes a ragged batch: rows, picks, and which of them are
 * to be committed.
 *
 *     canvases   |request 0 . . . .|twin of 0|request 1 . .|request 2 . . . . . .|   cells
 *     batch      [rows of 0][rows of 2][rows of twin 0][padding]                     rows
 *     picks      [masked rows of the active blocks, same order]
 *
 * Twins (CFG's unconditional canvases) come last, so that pick i of a request is row i of score.
 * Rows are the cells that the step feeds (plan/phases.h), all of the canvas or only a window. Where
 * the last step's results are not known yet, its picks are there once more; commit passes over
 * those that have a token by then. */
#include <assert.h>

#include "engine/executor_parts.h"
#include "engine/sampler.h"

/* ---- rows ---- */

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

/* Masked cells of the active block, as far as is known, each with the row that predicts it. */
static void add_picks(struct executor *executor, const struct running *running,
                      const struct step_shape *shape, int32_t row_begin)
{
    const struct model_config *config = &executor->model->config;
    const int32_t *canvas = executor_canvas(executor, running);
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

/* ---- decisions ---- */

/* Steps that the active block's schedule has. */
static int32_t block_steps(const struct running *running)
{
    int32_t steps = running->phases.steps_per_block;
    assert(running->n_block_start > 0);
    return steps > 0 ? steps : running->n_block_start;
}

/* How the request's picks are scored. */
static void add_scores(struct executor *executor, const struct running *running,
                       struct flight *flight, const struct flight_item *item)
{
    const struct model_config *config = &executor->model->config;
    const int32_t *canvas = executor_canvas(executor, running);
    int32_t pick = item->pick_begin;
    struct score_row row;
    sampler_score_row(&row, running->request, config, running->n_asked);
    for (int32_t i = running->block_begin; i < running->block_end; i++) {
        if (canvas[i] != config->mask_id) continue;
        row.position = (uint32_t)i;
        executor->score_rows[pick] = row;
        flight->pick_cell[pick] = running->canvas_begin + i;
        executor->pick_twin_cell[pick] = running->twin_begin < 0 ? -1 : running->twin_begin + i;
        executor->pick_position[pick] = (uint32_t)i;
        pick++;
    }
    assert(pick == item->pick_begin + item->n_picks);
}

/* Which of them are committed. */
static void add_commit(struct executor *executor, struct running *running, struct flight *flight,
                       struct flight_item *item)
{
    const struct request *request = running->request;
    struct commit_request *commit = &executor->commits[executor->n_commits++];
    running->step = sampler_next_step(&request->decode, running->n_block_start,
                                      running->n_block_masked, block_steps(running), running->step);
    sampler_commit_request(commit, request, running->n_block_start, running->n_block_masked,
                           block_steps(running), running->step);
    commit->pick_begin = item->pick_begin;
    commit->n_picks = item->n_picks;
    commit->step = (uint32_t)running->n_asked;
    assert(item->n_picks >= running->n_block_masked);
    bool takes_all = commit->n_commit > running->n_block_masked;
    item->n_commits = takes_all ? running->n_block_masked : commit->n_commit;
    flight->is_certain = flight->is_certain && commit->rule == COMMIT_TOP;
}

/* ---- the batch ---- */

static void add_item(struct executor *executor, const struct plan_item *planned,
                     struct flight *flight)
{
    struct running *running = &executor->running[planned->request];
    struct flight_item *item = &flight->items[flight->n_items++];
    int32_t n_positions = planned->shape.n_rows * running->phases.n_twins;
    assert(!running->is_over);
    *item = (struct flight_item){.request = planned->request,
                                 .block = planned->block,
                                 .n_positions = n_positions,
                                 .pick_begin = executor->batch.n_picks,
                                 .is_refresh = planned->shape.phase == PHASE_REFRESH,
                                 .begins_block = planned->step == 0};
    add_sequence(executor, running, planned, false);
    item->n_picks = executor->batch.n_picks - item->pick_begin;
    add_scores(executor, running, flight, item);
    add_commit(executor, running, flight, item);
    cost_add_step(&flight->done.load, &running->phases, &planned->shape, item->n_picks);
    if (item->is_refresh) flight->done.n_refresh_rows += n_positions;
    running->n_asked++;
    running->n_in_flight++;
}

/* Requests, then their twins, then padding. */
void executor_build(struct executor *executor, const struct plan_iteration *iteration,
                    struct flight *flight)
{
    struct batch *batch = &executor->batch;
    *batch = (struct batch){.canvas_index = executor->canvas_index,
                            .position = executor->position,
                            .visible_end = executor->visible_end,
                            .sequences = executor->sequences,
                            .picked_row = executor->picked_row};
    executor->keeps = (struct forward_keeps){
        .stores = executor->stores, .by_head = executor->by_head, .shared = executor->shared};
    executor->n_commits = flight->n_items = 0;
    flight->is_certain = true;
    for (int32_t i = 0; i < iteration->n_items; i++)
        add_item(executor, &iteration->items[i], flight);
    executor->n_score = batch->n_picks;
    for (int32_t i = 0; i < iteration->n_items; i++) {
        const struct flight_item *item = &flight->items[i];
        struct running *running = &executor->running[item->request];
        if (running->twin_begin < 0) continue;
        for (int32_t j = 0; j < item->n_picks; j++)
            executor->score_rows[item->pick_begin + j].uncond_row = batch->n_picks + j;
        add_sequence(executor, running, &iteration->items[i], true);
    }
    assert(batch->n_rows == iteration->n_rows);
    add_padding(executor, iteration->n_pad_rows);
    flight->done.n_pad_rows = iteration->n_pad_rows;
    flight->done.load.n_rows += iteration->n_pad_rows;
    executor->counts.n_refresh_positions += flight->done.n_refresh_rows;
    executor->counts.n_pad_positions += flight->done.n_pad_rows;
}

uint64_t executor_shape_key(struct executor *executor)
{
    struct batch *batch = &executor->batch;
    int32_t multiple = executor->model->backend->n_picks_multiple, n = executor->n_score;
    const struct forward_keeps *keeps = &executor->keeps;
    struct sequence *last = &executor->sequences[batch->n_sequences - 1];
    assert(n > 0);
    if (multiple <= 1 || keeps->n_stores + keeps->n_by_head + keeps->n_shared > 0) return 0;
    if (executor->logits || last->n_picks == 0 || batch->n_picks != n) return 0; /* twins */
    for (int32_t i = 0; i < batch->n_sequences; i++)
        if (executor->sequences[i].n_cached == 0) return 0;
    int32_t n_padded = (n + multiple - 1) / multiple * multiple;
    if (n_padded > batch->n_rows) n_padded = batch->n_rows;
    for (int32_t i = n; i < n_padded; i++) {
        executor->picked_row[i] = executor->picked_row[n - 1];
        executor->score_rows[i] = executor->score_rows[n - 1];
    }
    last->n_picks += n_padded - n;
    executor->n_score = batch->n_picks = n_padded;
    return 1 + (uint64_t)executor->n_commits;
}
