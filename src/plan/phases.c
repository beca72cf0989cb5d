/* Cuts a canvas into blocks and checks that the decode settings make sense together. */
#include "plan/phases.h"

#include <assert.h>

#define CELLS_MAX (1 << 24)

static int32_t divide_up(int32_t a, int32_t b)
{
    assert(a > 0);
    assert(b > 0);
    return a / b + (a % b != 0);
}

static bool check_lengths(int32_t n_prompt, bool has_masks, const struct decode_settings *decode,
                          int32_t n_positions, struct error *err)
{
    if (n_prompt < 1) return error_set(err, ERROR_FORMAT, "the prompt is empty");
    if (has_masks && decode->gen_length > 0)
        return error_set(err, ERROR_FORMAT,
                         "the prompt holds mask tokens, so its masks are filled in; gen_length is "
                         "%d, must be 0 or not given",
                         decode->gen_length);
    if (!has_masks && decode->gen_length < 1)
        return error_set(err, ERROR_FORMAT,
                         "gen_length is %d, must be at least 1 for a prompt without mask tokens",
                         decode->gen_length);
    if (n_prompt > CELLS_MAX || decode->gen_length > CELLS_MAX ||
        n_prompt + decode->gen_length > n_positions)
        return error_set(err, ERROR_FORMAT,
                         "%d prompt tokens + gen_length %d are more than the "
                         "model's %d positions",
                         n_prompt, decode->gen_length, n_positions);
    return true;
}

/* Settings that only one way of decoding knows. */
static bool check_rules(const struct decode_settings *decode, struct error *err)
{
    bool low_confidence = decode->remasking == REMASKING_LOW_CONFIDENCE;
    if (decode->threshold > 0 && decode->factor > 0)
        return error_set(err, ERROR_FORMAT, "threshold and factor exclude each other");
    if ((decode->threshold > 0 || decode->factor > 0) && !low_confidence)
        return error_set(err, ERROR_FORMAT, "threshold and factor need remasking low_confidence");
    if (decode->alg_temp > 0 && (low_confidence || decode->remasking == REMASKING_RANDOM ||
                                 decode->remasking == REMASKING_ORIGIN))
        return error_set(err, ERROR_FORMAT,
                         "alg_temp needs remasking maskgit_plus, topk_margin or entropy");
    return true;
}

static bool cut_steps(struct phases *phases, bool infill, const struct decode_settings *decode,
                      struct error *err)
{
    assert(phases->n_blocks > 0);
    if (decode->steps == 0) return true;
    if (infill) {
        phases->steps_per_block = divide_up(decode->steps, phases->n_blocks);
        return true;
    }
    if (decode->steps % phases->n_blocks != 0)
        return error_set(
            err, ERROR_FORMAT,
            "steps is %d, must be a multiple of the %d blocks (gen_length %d in blocks "
            "of %d)",
            decode->steps, phases->n_blocks, decode->gen_length, phases->block_length);
    phases->steps_per_block = decode->steps / phases->n_blocks;
    return true;
}

/* Caches: ranges, and what they cannot be combined with. */
static bool check_cache(const struct decode_settings *decode, bool infill, struct error *err)
{
    assert(decode->delay >= 0);
    assert(decode->suffix_window >= 0);
    bool keeps = decode->cache != CACHE_NONE || decode->prompt_refresh_every > 1;
    if (infill && (keeps || decode->suffix_window > 0))
        return error_set(err, ERROR_FORMAT,
                         "a prompt with mask tokens needs cache none, without prompt_refresh_every "
                         "and suffix_window: its blocks cover the prompt");
    if (decode->cache == CACHE_SPARSE && !(decode->retention > 0 && decode->retention <= 1))
        return error_set(err, ERROR_FORMAT, "retention is %g, must be above 0 and at most 1",
                         decode->retention);
    return true;
}

bool phases_init(struct phases *phases, int32_t n_prompt, bool has_masks,
                 const struct decode_settings *decode, const struct phases_model *model,
                 struct error *err)
{
    assert(phases);
    assert(decode->steps >= 0);
    assert(model->shift == 0 || model->shift == 1);
    if (!check_lengths(n_prompt, has_masks, decode, model->n_positions, err)) return false;
    if (!check_rules(decode, err) || !check_cache(decode, has_masks, err)) return false;
    struct phases found = {
        .n_canvas = n_prompt + decode->gen_length,
        .blocks_begin = has_masks ? 0 : n_prompt,
        .n_twins = decode->cfg_scale > 0 ? 2 : 1,
        .shift = model->shift,
        .is_open_ended = decode->threshold > 0 || decode->factor > 0,
        .is_by_chance = decode->remasking == REMASKING_ORIGIN,
        .cache = decode->cache,
        .retention = decode->retention,
        .delay = decode->cache == CACHE_SPARSE ? decode->delay : 0,
        .refresh_every = decode->refresh_every,
        .prompt_refresh_every = decode->prompt_refresh_every > 1 ? decode->prompt_refresh_every : 1,
        .suffix_window = decode->suffix_window,
    };
    int32_t n_cells = found.n_canvas - found.blocks_begin;
    if (decode->block_length < 0)
        return error_set(err, ERROR_FORMAT, "block_length is %d, must be at least 1",
                         decode->block_length);
    found.block_length = decode->block_length == 0 || decode->block_length > n_cells
                             ? n_cells
                             : decode->block_length;
    found.n_blocks = divide_up(n_cells, found.block_length);
    if (!cut_steps(&found, has_masks, decode, err)) return false;
    *phases = found;
    return true;
}

void phases_block(const struct phases *phases, int32_t block_index, int32_t *begin, int32_t *end)
{
    assert(block_index >= 0);
    assert(block_index < phases->n_blocks);
    *begin = phases->blocks_begin + block_index * phases->block_length;
    *end = *begin + phases->block_length;
    if (*end > phases->n_canvas) *end = phases->n_canvas;
}

int32_t phases_full_rows(const struct phases *phases)
{
    assert(phases->n_twins == 1 || phases->n_twins == 2);
    return phases->n_canvas * phases->n_twins;
}

int32_t phases_steps_max(const struct phases *phases, int32_t n_masked)
{
    assert(n_masked > 0);
    if (phases->is_open_ended || phases->steps_per_block == 0) return n_masked;
    /* Exact quotas: the steps that commit nothing are not run. By chance: any may commit nothing.
     */
    if (phases->is_by_chance || phases->steps_per_block < n_masked) return phases->steps_per_block;
    return n_masked;
}

/* ---- one step ---- */

static bool keeps_prompt(const struct phases *phases)
{
    return phases->prompt_refresh_every > 1;
}

int32_t phases_prompt_slots(const struct phases *phases)
{
    assert(phases->prompt_refresh_every >= 1);
    return keeps_prompt(phases) ? phases->blocks_begin - phases->shift : 0;
}

bool phases_is_free_start(const struct phases *phases, int32_t block_index)
{
    assert(block_index >= 0);
    return !keeps_prompt(phases) || block_index % phases->prompt_refresh_every == 0;
}

/* Steps of a block after its opening ones that are full again. */
static bool is_again(const struct phases *phases, int32_t step_index)
{
    int32_t since = step_index - phases->delay;
    return since > 0 && phases->refresh_every > 0 && since % phases->refresh_every == 0;
}

static void add_span(struct step_shape *shape, int32_t begin, int32_t end)
{
    if (begin >= end) return;
    assert(shape->n_spans < PHASES_SPANS_MAX);
    struct span *last = shape->n_spans > 0 ? &shape->spans[shape->n_spans - 1] : NULL;
    shape->n_rows += end - begin;
    if (last && last->end == begin) last->end = end;
    else shape->spans[shape->n_spans++] = (struct span){begin, end};
}

/* Generated cells from `begin` on that a full step of the block feeds: those behind the next w
 * blocks are left out, all but the last block. */
static void add_generated(const struct phases *phases, int32_t block_index, int32_t begin,
                          struct step_shape *shape)
{
    int32_t last_begin, end, at;
    assert(begin <= phases->n_canvas);
    phases_block(phases, phases->n_blocks - 1, &last_begin, &end);
    int32_t near = phases->n_blocks - 1;
    if (phases->suffix_window > 0 && phases->suffix_window < near - block_index)
        near = block_index + phases->suffix_window;
    int32_t near_begin, near_end;
    phases_block(phases, near, &near_begin, &near_end);
    at = near_end;
    add_span(shape, begin, at);
    add_span(shape, at > last_begin ? at : last_begin, end);
}

/* Rows that are kept out of `n` candidates: dLLM-Serve's floor(retention n), at least 1. */
static int32_t kept_of(const struct phases *phases, int32_t n)
{
    assert(n >= 0);
    if (phases->cache == CACHE_NONE || n == 0) return 0;
    if (phases->cache != CACHE_SPARSE) return n;
    int32_t kept = (int32_t)(phases->retention * (double)n);
    if (kept < 1) kept = 1;
    return kept < n ? kept : n;
}

/* Cells behind the window that a full step feeds. */
static int32_t cells_behind(const struct step_shape *shape)
{
    int32_t n = 0;
    for (int32_t i = 0; i < shape->n_spans; i++) {
        int32_t begin = shape->spans[i].begin, end = shape->spans[i].end;
        if (begin < shape->window.end) begin = shape->window.end;
        if (begin < end) n += end - begin;
    }
    return n;
}

static void fill_full(const struct phases *phases, int32_t block_index, bool feeds_prompt,
                      struct step_shape *shape)
{
    int32_t n_prompt_kept = phases_prompt_slots(phases);
    assert(shape->n_spans == 0);
    shape->phase = PHASE_REFRESH;
    if (feeds_prompt) add_span(shape, 0, phases->blocks_begin);
    else add_span(shape, n_prompt_kept, phases->blocks_begin);
    add_generated(phases, block_index, phases->blocks_begin, shape);
    shape->sees_prompt = !feeds_prompt && n_prompt_kept > 0;
    shape->n_cached = shape->sees_prompt ? n_prompt_kept : 0;
}

/* What a step that selects keeps; `shape` is a full step's. */
static void fill_kept(const struct phases *phases, struct step_shape *shape)
{
    shape->hold_out = shape->window;
    assert(shape->phase == PHASE_REFRESH);
    int32_t n_window = shape->window.end - shape->window.begin;
    int32_t n_candidates = shape->n_rows + shape->n_cached - n_window;
    if (phases->cache == CACHE_PREFIX) {
        shape->hold_out.end = phases->n_canvas;
        n_candidates -= cells_behind(shape);
    }
    shape->n_kept = kept_of(phases, n_candidates);
}

/* The block's step that selects, as a full one. */
static void fill_opening(const struct phases *phases, int32_t block_index, struct step_shape *shape)
{
    int32_t begin, end;
    phases_block(phases, block_index, &begin, &end);
    *shape = (struct step_shape){.window = {begin - phases->shift, end}};
    if (shape->window.begin < 0) shape->window.begin = 0;
    fill_full(phases, block_index, phases_is_free_start(phases, block_index), shape);
    fill_kept(phases, shape);
}

static void fill_reuse(const struct phases *phases, struct step_shape *shape)
{
    const struct step_shape full = *shape;
    assert(full.phase == PHASE_REFRESH);
    *shape = (struct step_shape){.phase = PHASE_REUSE,
                                 .window = full.window,
                                 .sees_kept = full.n_kept > 0,
                                 .n_cached = full.n_kept};
    if (phases->cache != CACHE_PREFIX) {
        add_span(shape, full.window.begin, full.window.end);
        return;
    }
    for (int32_t i = 0; i < full.n_spans; i++) {
        int32_t begin = full.spans[i].begin;
        add_span(shape, begin > full.window.begin ? begin : full.window.begin, full.spans[i].end);
    }
}

void phases_step(const struct phases *phases, int32_t block_index, int32_t step_index,
                 struct step_shape *shape)
{
    assert(step_index >= 0);
    bool opens = step_index <= phases->delay, again = is_again(phases, step_index);
    bool caches = phases->cache != CACHE_NONE;
    fill_opening(phases, block_index, shape);
    if (caches && !opens && !again) {
        fill_reuse(phases, shape);
        return;
    }
    bool feeds_prompt = phases_is_free_start(phases, block_index) && opens;
    if (!keeps_prompt(phases)) feeds_prompt = true;
    if (!feeds_prompt) { /* the same cells are seen, whether fed or kept */
        int32_t n_kept = shape->n_kept;
        shape->n_spans = shape->n_rows = 0;
        fill_full(phases, block_index, false, shape);
        shape->n_kept = n_kept;
    }
    /* Every opening step stores: a block may be complete before the last of them. */
    shape->stores_prompt = keeps_prompt(phases) && feeds_prompt && phases_prompt_slots(phases) > 0;
    if (step_index < phases->delay) shape->n_kept = 0;
}

int32_t phases_kept_slots(const struct phases *phases, int32_t block_index)
{
    struct step_shape shape;
    assert(block_index < phases->n_blocks);
    fill_opening(phases, block_index, &shape);
    return shape.n_kept;
}

int64_t phases_block_slots(const struct phases *phases, int32_t block_index)
{
    int64_t n = phases_prompt_slots(phases);
    assert(block_index < phases->n_blocks);
    return (n + phases_kept_slots(phases, block_index)) * phases->n_twins;
}

int64_t phases_most_slots(const struct phases *phases)
{
    int64_t most = 0;
    assert(phases->n_blocks > 0);
    for (int32_t block = 0; block < phases->n_blocks; block++) {
        int64_t n = phases_block_slots(phases, block);
        if (n > most) most = n;
    }
    return most;
}
