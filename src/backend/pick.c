/* The passes over a row's logits. Order keys of the f32 logits stand for z = l / T, since dividing
 * by a positive T keeps the order; probabilities and noise are in double. */
#include "backend/pick.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "backend/noise.h"

static bool contains(const int32_t *ids, int32_t n, int32_t id)
{
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] == id) return true;
    }
    return false;
}

void pick_init(struct pick_state *state, const struct score_row *row, int32_t mask_id)
{
    assert(row->temperature >= 0);
    assert(row->top_p >= 0);
    struct pick_sum empty = {.max = -INFINITY};
    state->row = row;
    state->mask_id = mask_id;
    state->pass = PICK_STATISTICS;
    state->scale = row->temperature > 0 ? row->temperature : 1;
    state->best_id = state->second_id = state->drawn_id = -1;
    state->best = state->second = state->drawn = -INFINITY;
    state->broken = false;
    state->plain = state->unsuppressed = state->scaled = empty;
    state->top_p_key = state->cut_key = 0;
    state->top_p_ties = INT32_MAX;
    state->cut_id = INT32_MAX;
    state->n_ties = 0;
    state->drawn_noisy = -INFINITY;
    state->entropy = 0;
}

/* ---- what a pass does with one logit ---- */

static void add_to_sum(struct pick_sum *total, double l, double scale)
{
    if (l > total->max) {
        total->sum = total->sum * exp((total->max - l) / scale) + 1;
        total->max = l;
    } else {
        total->sum += exp((l - total->max) / scale);
    }
}

static void rank_logit(struct pick_state *state, int32_t id, float l)
{
    if (l > state->best) {
        state->second = state->best;
        state->second_id = state->best_id;
        state->best = l;
        state->best_id = id;
    } else if (l > state->second) {
        state->second = l;
        state->second_id = id;
    }
}

static void draw(struct pick_state *state, int32_t id, float l)
{
    const struct score_row *row = state->row;
    double u = noise_uniform(row->noise_key, row->step, row->position, (uint32_t)id);
    double noisy = l - row->temperature * log(-log(u));
    if (noisy > state->drawn_noisy) {
        state->drawn_noisy = noisy;
        state->drawn_id = id;
        state->drawn = l;
    }
}

static void see_statistics(struct pick_state *state, int32_t id, float l)
{
    const struct score_row *row = state->row;
    rank_logit(state, id, l);
    add_to_sum(&state->plain, l, 1);
    if (pick_has_confidence_suppressed(row) &&
        !contains(row->confidence_suppressed, row->n_confidence_suppressed, id))
        add_to_sum(&state->unsuppressed, l, 1);
    if (pick_wants_scaled(row)) add_to_sum(&state->scaled, l, state->scale);
    if (row->temperature > 0 && !pick_has_filter(row)) draw(state, id, l);
}

/* exp(z - largest z): a probability up to the sum. */
static double mass(const struct pick_state *state, float l)
{
    return exp(((double)l - state->best) / state->scale);
}

/* Settles which ids stay, and sums their masses. */
static void see_tie(struct pick_state *state, int32_t id, float l)
{
    uint32_t key = cut_key(l);
    if (key < state->cut_key) return;
    if (key == state->cut_key) {
        if (state->n_ties == 0) return;
        state->n_ties--;
        state->cut_id = id;
    }
    state->scaled.sum += mass(state, l);
}

static bool stays(const struct pick_state *state, int32_t id, float l)
{
    uint32_t key = cut_key(l);
    return key > state->cut_key || (key == state->cut_key && id <= state->cut_id);
}

static void see_last(struct pick_state *state, int32_t id, float l)
{
    const struct score_row *row = state->row;
    if (!stays(state, id, l)) return;
    if (row->temperature > 0 && pick_has_filter(row)) draw(state, id, l);
    if (row->confidence == CONFIDENCE_ENTROPY) {
        double p = mass(state, l) / state->scaled.sum;
        state->entropy += p * log(p + 1e-10);
    }
}

static void see_logit(struct pick_state *state, int32_t id, float l)
{
    switch (state->pass) {
    case PICK_STATISTICS: see_statistics(state, id, l); return;
    case PICK_TOP_P: cut_add(&state->cut, cut_key(l), mass(state, l)); return;
    case PICK_TOP_K:
        if (cut_key(l) >= state->top_p_key) cut_add(&state->cut, cut_key(l), 1);
        return;
    case PICK_TIES: see_tie(state, id, l); return;
    case PICK_LAST: see_last(state, id, l); return;
    case PICK_DONE: return;
    }
}

static void suppress(float *logits, int32_t first_id, int32_t n, int32_t id)
{
    if (id >= first_id && id < first_id + n) logits[id - first_id] = -INFINITY;
}

void pick_feed(struct pick_state *state, int32_t first_id, float *logits, int32_t n)
{
    const struct score_row *row = state->row;
    assert(state->pass != PICK_DONE);
    suppress(logits, first_id, n, state->mask_id);
    for (int32_t i = 0; i < row->n_suppressed; i++)
        suppress(logits, first_id, n, row->suppressed[i]);
    for (int32_t i = 0; i < n; i++) {
        if (logits[i] == -INFINITY) continue;
        if (isfinite(logits[i])) see_logit(state, first_id + i, logits[i]);
        else state->broken = true;
    }
}

/* ---- from pass to pass ---- */

/* Every entry at the k-th value stays under top-k; top-p keeps only as many as its share takes. */
static enum pick_pass start_ties(struct pick_state *state, uint32_t key, int32_t n_ties)
{
    state->cut_key = key;
    state->cut_id = -1;
    state->n_ties = n_ties;
    state->scaled = (struct pick_sum){.max = state->best};
    return PICK_TIES;
}

static enum pick_pass start_top_k(struct pick_state *state)
{
    assert(state->row->top_k > 0);
    cut_init(&state->cut, state->row->top_k - 1);
    return PICK_TOP_K;
}

static enum pick_pass after_statistics(struct pick_state *state)
{
    const struct score_row *row = state->row;
    if (state->broken || state->best_id < 0) return PICK_DONE;
    if (row->top_p < 1) {
        cut_init_fraction(&state->cut, row->top_p);
        return PICK_TOP_P;
    }
    if (row->top_k > 0) return start_top_k(state);
    return row->confidence == CONFIDENCE_ENTROPY ? PICK_LAST : PICK_DONE;
}

static enum pick_pass after_top_p(struct pick_state *state)
{
    if (cut_narrow(&state->cut)) return PICK_TOP_P;
    state->top_p_key = state->cut.key;
    state->top_p_ties = cut_n_ties(&state->cut, mass(state, cut_value(state->cut.key)));
    if (state->row->top_k > 0) return start_top_k(state);
    return start_ties(state, state->top_p_key, state->top_p_ties);
}

/* Both filters keep a head of the sorted logits, so what both leave is the shorter one. */
static enum pick_pass after_top_k(struct pick_state *state)
{
    if (cut_narrow(&state->cut)) return PICK_TOP_K;
    if (state->cut.key > state->top_p_key) return start_ties(state, state->cut.key, INT32_MAX);
    return start_ties(state, state->top_p_key, state->top_p_ties);
}

static enum pick_pass after_ties(const struct pick_state *state)
{
    bool needs_last = state->row->temperature > 0 || state->row->confidence == CONFIDENCE_ENTROPY;
    return needs_last ? PICK_LAST : PICK_DONE;
}

bool pick_again(struct pick_state *state)
{
    switch (state->pass) {
    case PICK_STATISTICS: state->pass = after_statistics(state); break;
    case PICK_TOP_P: state->pass = after_top_p(state); break;
    case PICK_TOP_K: state->pass = after_top_k(state); break;
    case PICK_TIES: state->pass = after_ties(state); break;
    case PICK_LAST:
    case PICK_DONE: state->pass = PICK_DONE; break;
    }
    return state->pass != PICK_DONE;
}

/* ---- the result ---- */

static double probability(const struct pick_state *state, int32_t id, float l)
{
    const struct score_row *row = state->row;
    if (!pick_has_confidence_suppressed(row)) return exp(l - state->plain.max) / state->plain.sum;
    if (contains(row->confidence_suppressed, row->n_confidence_suppressed, id)) return 0;
    return exp(l - state->unsuppressed.max) / state->unsuppressed.sum;
}

/* p(1) - p(2): the two largest logits lead any filtered distribution, if the second stays. */
static double margin(const struct pick_state *state)
{
    double lead = 1;
    if (state->second_id >= 0 && stays(state, state->second_id, state->second))
        lead -= mass(state, state->second);
    return lead / state->scaled.sum;
}

static double confidence(const struct pick_state *state, int32_t id, float l)
{
    const struct score_row *row = state->row;
    switch (row->confidence) {
    case CONFIDENCE_PROBABILITY: return probability(state, id, l);
    case CONFIDENCE_RANDOM:
        return noise_uniform(row->noise_key, row->step, row->position, NOISE_CONFIDENCE);
    case CONFIDENCE_FILTERED: return mass(state, l) / state->scaled.sum;
    case CONFIDENCE_MARGIN: return margin(state);
    case CONFIDENCE_ENTROPY: return state->entropy;
    }
    return 0;
}

struct pick pick_finish(const struct pick_state *state)
{
    assert(state->pass == PICK_DONE);
    if (state->broken || state->best_id < 0) return (struct pick){.id = -1};
    bool is_drawn = state->row->temperature > 0;
    int32_t id = is_drawn ? state->drawn_id : state->best_id;
    float l = is_drawn ? state->drawn : state->best;
    double log_prob = l - state->plain.max - log(state->plain.sum);
    return (struct pick){
        .id = id, .log_prob = (float)log_prob, .confidence = confidence(state, id, l)};
}

void pick_guide(float *logits, const float *uncond, int32_t n, float cfg_scale)
{
    assert(n >= 0);
    double weight = (double)cfg_scale + 1;
    for (int32_t i = 0; i < n; i++) {
        double u = uncond[i];
        logits[i] = (float)(u + weight * (logits[i] - u));
    }
}
