/* score: the passes of backend/pick.h over tiles of logits, one block per row. A row's statistics
 * live in device memory between tiles; thread i of the block sees ids i, i + 512, .. of a tile and
 * partial results are joined in one fixed order, so a row's pick depends on its logits alone.
 * Exponentials are f32, sums f64; where masses are added by atomics they are whole numbers of
 * 2^-40, whose sum knows no order. */
#include <limits.h>

#include "backend/cut.h"
#include "backend/noise.h"
#include "cuda/device.cuh"
#include "cuda/kernels.cuh"

#define THREADS    512
#define N_WARPS    (THREADS / WARP)
#define PER_THREAD 16              /* ids of a tile: at most THREADS * PER_THREAD */
#define MASS_ONE   1099511627776.0 /* 2^40: the mass of the best id */

enum pass { PASS_STATISTICS, PASS_TOP_P, PASS_TOP_K, PASS_TIES, PASS_LAST, PASS_DONE };

struct mass_sum {
    double max, sum;
};

/* struct pick_state of backend/pick.h; `cut` in whole masses. */
struct score_state {
    int32_t pass, broken;
    int32_t best_id, second_id, drawn_id;
    float best, second, drawn;
    double scale, drawn_noisy, entropy;
    mass_sum plain, unsuppressed, scaled;
    uint32_t top_p_key, cut_key;
    int32_t top_p_ties, cut_id, n_ties;
    uint32_t key; /* struct cut of backend/cut.h */
    int32_t shift;
    double limit, fraction, before;
    unsigned long long weight[CUT_N_BINS];
};

size_t score_state_bytes(int32_t n_rows)
{
    return (size_t)n_rows * sizeof(score_state);
}

/* ---- settings of a row ---- */

static __device__ bool has_filter(const score_row &row)
{
    return row.top_k > 0 || row.top_p < 1;
}

static __device__ bool has_confidence_suppressed(const score_row &row)
{
    return row.confidence == CONFIDENCE_PROBABILITY && row.n_confidence_suppressed > 0;
}

static __device__ bool wants_scaled(const score_row &row)
{
    return row.confidence == CONFIDENCE_FILTERED || row.confidence == CONFIDENCE_MARGIN ||
           row.confidence == CONFIDENCE_ENTROPY;
}

static __device__ bool contains(const int32_t *ids, int32_t n, int32_t id)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == id) return true;
    return false;
}

/* cut_key of backend/cut.h, on the device. */
static __device__ uint32_t key_of(float value)
{
    uint32_t bits = __float_as_uint(value + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static __device__ float value_of(uint32_t key)
{
    return __uint_as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

/* exp(z - largest z) */
static __device__ float mass(const score_state &state, float l)
{
    return expf((float)(((double)l - state.best) / state.scale));
}

static __device__ unsigned long long whole_mass(const score_state &state, float l)
{
    return (unsigned long long)((double)mass(state, l) * MASS_ONE);
}

static __device__ bool stays(const score_state &state, int32_t id, float l)
{
    uint32_t key = key_of(l);
    return key > state.cut_key || (key == state.cut_key && id <= state.cut_id);
}

/* ---- a block's view of a tile ---- */

struct view {
    float values[PER_THREAD]; /* of ids first_id + i * THREADS + thread; -inf: no candidate */
    int32_t first_id;
};

static __device__ __forceinline__ int32_t id_of(const view &seen, int i)
{
    return seen.first_id + i * THREADS + (int)threadIdx.x;
}

static __device__ void suppress(float *logits, const score_tile &tile, int32_t id)
{
    int32_t at = id - tile.first_id;
    if (at >= 0 && at < tile.n_ids) logits[at] = -INFINITY;
}

/* Loads the row's logits, guided and suppressed. True: one of them is NaN or +inf. */
static __device__ bool look(view &seen, const score_tile &tile, const score_row &row,
                            int32_t mask_id)
{
    int64_t index = blockIdx.x;
    float *logits = (float *)tile.logits + index * tile.ld;
    int32_t twin = tile.uncond_index ? tile.uncond_index[index] : -1;
    const float *uncond = twin < 0 ? NULL : tile.uncond + (int64_t)twin * tile.ld;
    if (threadIdx.x == 0) {
        suppress(logits, tile, mask_id);
        for (int32_t i = 0; i < row.n_suppressed; i++)
            suppress(logits, tile, row.suppressed[i]);
    }
    __syncthreads();
    bool broken = false;
    seen.first_id = tile.first_id;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int32_t at = i * THREADS + (int)threadIdx.x;
        float l = at < tile.n_ids ? logits[at] : -INFINITY;
        if (uncond && l != -INFINITY) {
            double u = uncond[at];
            l = (float)(u + ((double)row.cfg_scale + 1) * (l - u));
        }
        broken |= !(l < INFINITY);
        seen.values[i] = l;
    }
    return __syncthreads_or(broken);
}

/* ---- joining threads ---- */

/* The sum of the threads' values, in thread 0, in one order. */
static __device__ double join_sum(double value)
{
    __shared__ double parts[N_WARPS];
    int warp = (int)threadIdx.x / WARP;
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        value += __shfl_down_sync(WARP_ALL, value, lane);
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[warp] = value;
    __syncthreads();
    double total = 0;
    for (int i = 0; i < N_WARPS && threadIdx.x == 0; i++)
        total += parts[i];
    return total;
}

/* The largest of the threads' values, in all threads. */
static __device__ float join_max(float value)
{
    __shared__ float parts[N_WARPS];
    int warp = (int)threadIdx.x / WARP;
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        value = fmaxf(value, __shfl_xor_sync(WARP_ALL, value, lane));
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[warp] = value;
    __syncthreads();
    for (int i = 0; i < N_WARPS; i++)
        value = fmaxf(value, parts[i]);
    return value;
}

/* The two best logits; ties to the lower id. id -1: none. */
struct best_two {
    float first, second;
    int32_t first_id, second_id;
};

static __device__ bool is_before(float a, int32_t a_id, float b, int32_t b_id)
{
    if (a_id < 0 || b_id < 0) return b_id < 0 && a_id >= 0;
    return a > b || (a == b && a_id < b_id);
}

static __device__ best_two join_two(best_two a, best_two b)
{
    bool a_leads = is_before(a.first, a.first_id, b.first, b.first_id);
    best_two lead = a_leads ? a : b, other = a_leads ? b : a;
    if (is_before(other.first, other.first_id, lead.second, lead.second_id)) {
        lead.second = other.first;
        lead.second_id = other.first_id;
    }
    return lead;
}

static __device__ best_two shuffled(best_two two, int lane)
{
    return {__shfl_down_sync(WARP_ALL, two.first, lane),
            __shfl_down_sync(WARP_ALL, two.second, lane),
            __shfl_down_sync(WARP_ALL, two.first_id, lane),
            __shfl_down_sync(WARP_ALL, two.second_id, lane)};
}

/* The block's two best, in thread 0. */
static __device__ best_two join_best(best_two two)
{
    __shared__ best_two parts[N_WARPS];
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        two = join_two(two, shuffled(two, lane));
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = two;
    __syncthreads();
    for (int i = 1; i < N_WARPS && threadIdx.x == 0; i++)
        two = join_two(two, parts[i]);
    return two;
}

/* A drawn id and its noisy logit; ties to the lower id. */
struct drawing {
    double noisy;
    float l;
    int32_t id;
};

static __device__ drawing join_two_drawings(drawing a, drawing b)
{
    bool b_wins =
        b.noisy > a.noisy || (b.noisy == a.noisy && b.id >= 0 && (a.id < 0 || b.id < a.id));
    return b_wins ? b : a;
}

/* The block's best drawing, in thread 0. */
static __device__ drawing join_drawing(drawing best)
{
    __shared__ drawing parts[N_WARPS];
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        drawing other = {__shfl_down_sync(WARP_ALL, best.noisy, lane),
                         __shfl_down_sync(WARP_ALL, best.l, lane),
                         __shfl_down_sync(WARP_ALL, best.id, lane)};
        best = join_two_drawings(best, other);
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = best;
    __syncthreads();
    for (int i = 1; i < N_WARPS && threadIdx.x == 0; i++)
        best = join_two_drawings(best, parts[i]);
    return best;
}

/* ---- the passes ---- */

static __device__ void rank(const view &seen, score_state *state)
{
    best_two two = {-INFINITY, -INFINITY, -1, -1};
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++)
        if (seen.values[i] != -INFINITY)
            two = join_two(two, {seen.values[i], -INFINITY, id_of(seen, i), -1});
    two = join_best(two);
    if (threadIdx.x > 0) return;
    two = join_two({state->best, state->second, state->best_id, state->second_id}, two);
    state->best = two.first;
    state->second = two.second;
    state->best_id = two.first_id;
    state->second_id = two.second_id;
}

/* total += sum of exp((l - max) / scale) over the ids that are not in `without`. */
static __device__ void add_masses(mass_sum *total, const view &seen, double scale,
                                  const score_row *without)
{
    float max = -INFINITY;
    bool in[PER_THREAD];
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        in[i] = seen.values[i] != -INFINITY &&
                !(without && contains(without->confidence_suppressed,
                                      without->n_confidence_suppressed, id_of(seen, i)));
        if (in[i]) max = fmaxf(max, seen.values[i]);
    }
    max = fmaxf(join_max(max), (float)total->max); /* maxima are logits, so f32 */
    __syncthreads();                               /* all have read total */
    if (max == -INFINITY) return;
    float inverse = (float)(1 / scale), sum = 0;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++)
        if (in[i]) sum += expf((seen.values[i] - max) * inverse);
    double joined = join_sum(sum);
    if (threadIdx.x > 0) return;
    total->sum = total->sum * exp((total->max - max) / scale) + joined;
    if (total->max == -INFINITY) total->sum = joined;
    total->max = max;
}

/* l - T ln(-ln u), where it can still win: f32 settles most ids, f64 the rest. */
static __device__ void draw_one(drawing &best, const score_row &row, int32_t id, float l)
{
    double u = noise_uniform(row.noise_key, row.step, row.position, (uint32_t)id);
    float log_u = u < 0.5 ? logf((float)u) : log1pf((float)(u - 1));
    float nearly = l - (float)row.temperature * logf(-log_u);
    float margin = 1e-3f * (float)row.temperature + 1e-5f * fabsf(l);
    if ((double)nearly + margin < best.noisy) return;
    double noisy = l - row.temperature * log(-log(u));
    best = join_two_drawings(best, {noisy, l, id});
}

static __device__ void draw(const view &seen, const score_row &row, score_state *state,
                            bool filtered)
{
    drawing best = {-INFINITY, -INFINITY, -1};
#pragma unroll 1
    for (int i = 0; i < PER_THREAD; i++) {
        float l = seen.values[i];
        if (l == -INFINITY || (filtered && !stays(*state, id_of(seen, i), l))) continue;
        draw_one(best, row, id_of(seen, i), l);
    }
    best = join_drawing(best);
    if (threadIdx.x > 0) return;
    best = join_two_drawings({state->drawn_noisy, state->drawn, state->drawn_id}, best);
    state->drawn_noisy = best.noisy;
    state->drawn = best.l;
    state->drawn_id = best.id;
}

static __device__ void see_statistics(const view &seen, const score_row &row, score_state *state)
{
    rank(seen, state);
    add_masses(&state->plain, seen, 1, NULL);
    if (has_confidence_suppressed(row)) add_masses(&state->unsuppressed, seen, 1, &row);
    if (wants_scaled(row)) add_masses(&state->scaled, seen, state->scale, NULL);
    if (row.temperature > 0 && !has_filter(row)) draw(seen, row, state, false);
}

/* cut_add of backend/cut.h: masses for top-p, ones for top-k. */
static __device__ void add_weights(const view &seen, score_state *state)
{
    __shared__ unsigned long long bins[CUT_N_BINS];
    int32_t bits = state->shift > 0 ? CUT_BIN_BITS : 32 - 2 * CUT_BIN_BITS;
    for (int i = (int)threadIdx.x; i < CUT_N_BINS; i += THREADS)
        bins[i] = 0;
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < PER_THREAD; i++) {
        float l = seen.values[i];
        uint32_t key = key_of(l);
        if (l == -INFINITY || (uint64_t)(key ^ state->key) >> (state->shift + bits) != 0) continue;
        if (state->pass == PASS_TOP_K && key < state->top_p_key) continue;
        unsigned long long weight = state->pass == PASS_TOP_K ? 1 : whole_mass(*state, l);
        atomicAdd(&bins[key >> state->shift & ((1u << bits) - 1)], weight);
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < CUT_N_BINS; i += THREADS)
        state->weight[i] += bins[i];
}

/* The id of the n-th tie of a tile, by one thread: only where a cut goes through equal logits. */
static __device__ int32_t find_tie(const score_tile &tile, uint32_t key, const score_row &row,
                                   int32_t n)
{
    int64_t index = blockIdx.x;
    int32_t twin = tile.uncond_index ? tile.uncond_index[index] : -1, last = -1;
    for (int32_t at = 0; at < tile.n_ids && n > 0; at++) {
        float l = tile.logits[index * tile.ld + at];
        if (twin >= 0 && l != -INFINITY) {
            double u = tile.uncond[(int64_t)twin * tile.ld + at];
            l = (float)(u + ((double)row.cfg_scale + 1) * (l - u));
        }
        if (l == -INFINITY || key_of(l) != key) continue;
        last = tile.first_id + at;
        n--;
    }
    return last;
}

/* Settles which ids stay, and sums their masses. */
static __device__ void see_ties(const view &seen, const score_tile &tile, const score_row &row,
                                score_state *state)
{
    __shared__ int32_t tile_cut_id;
    int32_t n_equal = 0;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++)
        n_equal += seen.values[i] != -INFINITY && key_of(seen.values[i]) == state->cut_key;
    double n_ties = join_sum(n_equal);
    if (threadIdx.x == 0) {
        int32_t n_take = n_ties < state->n_ties ? (int32_t)n_ties : state->n_ties;
        tile_cut_id = -1;
        if (n_take > 0 && n_take == (int32_t)n_ties) tile_cut_id = INT_MAX;
        else if (n_take > 0) tile_cut_id = find_tie(tile, state->cut_key, row, n_take);
    }
    __syncthreads();
    double sum = 0;
#pragma unroll 1
    for (int i = 0; i < PER_THREAD; i++) {
        float l = seen.values[i];
        if (l == -INFINITY || key_of(l) < state->cut_key) continue;
        if (key_of(l) == state->cut_key && id_of(seen, i) > tile_cut_id) continue;
        sum += mass(*state, l);
    }
    sum = join_sum(sum);
    if (threadIdx.x > 0) return;
    state->scaled.sum += sum;
    if (tile_cut_id == -1) return;
    state->n_ties -= n_ties < state->n_ties ? (int32_t)n_ties : state->n_ties;
    state->cut_id = tile_cut_id == INT_MAX ? tile.first_id + tile.n_ids - 1 : tile_cut_id;
}

static __device__ void add_entropy(const view &seen, score_state *state)
{
    double sum = 0;
#pragma unroll 1
    for (int i = 0; i < PER_THREAD; i++) {
        float l = seen.values[i];
        if (l == -INFINITY || !stays(*state, id_of(seen, i), l)) continue;
        float p = (float)((double)mass(*state, l) / state->scaled.sum);
        sum += p * logf(p + 1e-10f);
    }
    sum = join_sum(sum);
    if (threadIdx.x == 0) state->entropy += sum;
}

/* A block sees one row's logits of one tile, in the row's pass of score (backend.h). In the first
 * pass of greedy rows it is bound by reading the tile. */
static __global__ void __launch_bounds__(THREADS)
    feed(score_state *states, const score_row *rows, score_tile tile, int32_t mask_id)
{
    score_state *state = &states[blockIdx.x];
    const score_row &row = rows[blockIdx.x];
    view seen;
    if (state->pass == PASS_DONE) return;
    if (look(seen, tile, row, mask_id)) {
        if (threadIdx.x == 0) state->broken = 1;
        return;
    }
    switch (state->pass) {
    case PASS_STATISTICS: see_statistics(seen, row, state); return;
    case PASS_TOP_P:
    case PASS_TOP_K: add_weights(seen, state); return;
    case PASS_TIES: see_ties(seen, tile, row, state); return;
    case PASS_LAST:
        if (row.temperature > 0 && has_filter(row)) draw(seen, row, state, true);
        if (row.confidence == CONFIDENCE_ENTROPY) add_entropy(seen, state);
        return;
    }
}

/* ---- from pass to pass: pick_again of backend/pick.h, by one thread ---- */

static __device__ void start_cut(score_state *state, double limit, double fraction)
{
    state->key = 0;
    state->shift = 32 - CUT_BIN_BITS;
    state->limit = limit;
    state->fraction = fraction;
    state->before = 0;
}

/* cut_narrow of backend/cut.h. */
static __device__ bool narrow(score_state *state, const unsigned long long *weight)
{
    int32_t chosen = 0, last_bits = 32 - 2 * CUT_BIN_BITS;
    unsigned long long total = 0;
    for (int32_t i = 0; i < CUT_N_BINS; i++)
        total += weight[i];
    if (state->shift == 32 - CUT_BIN_BITS && state->fraction >= 0)
        state->limit = state->fraction * (double)total;
    double sum = state->before;
    for (int32_t i = CUT_N_BINS - 1; i >= 0 && sum <= state->limit; i--) {
        if (weight[i] == 0) continue;
        chosen = i;
        state->before = sum;
        sum += (double)weight[i];
    }
    state->key |= (uint32_t)chosen << state->shift;
    if (state->shift == 0) return false;
    state->shift = state->shift > last_bits ? last_bits : 0;
    return true;
}

static __device__ int32_t start_top_k(score_state *state, const score_row &row)
{
    start_cut(state, row.top_k - 1, -1);
    return PASS_TOP_K;
}

static __device__ int32_t start_ties(score_state *state, uint32_t key, int32_t n_ties)
{
    state->cut_key = key;
    state->cut_id = -1;
    state->n_ties = n_ties;
    state->scaled = {state->best, 0};
    return PASS_TIES;
}

static __device__ int32_t after_statistics(score_state *state, const score_row &row)
{
    if (state->broken || state->best_id < 0) return PASS_DONE;
    if (row.top_p < 1) {
        start_cut(state, 0, row.top_p);
        return PASS_TOP_P;
    }
    if (row.top_k > 0) return start_top_k(state, row);
    return row.confidence == CONFIDENCE_ENTROPY ? PASS_LAST : PASS_DONE;
}

static __device__ int32_t after_top_p(score_state *state, const score_row &row,
                                      const unsigned long long *weight)
{
    if (narrow(state, weight)) return PASS_TOP_P;
    unsigned long long one = whole_mass(*state, value_of(state->key));
    double n = floor((state->limit - state->before) / (double)(one > 0 ? one : 1)) + 1;
    state->top_p_key = state->key;
    state->top_p_ties = n < INT_MAX ? (int32_t)n : INT_MAX;
    if (row.top_k > 0) return start_top_k(state, row);
    return start_ties(state, state->top_p_key, state->top_p_ties);
}

static __device__ int32_t after_top_k(score_state *state, const unsigned long long *weight)
{
    if (narrow(state, weight)) return PASS_TOP_K;
    if (state->key > state->top_p_key) return start_ties(state, state->key, INT_MAX);
    return start_ties(state, state->top_p_key, state->top_p_ties);
}

static __device__ int32_t pass_after(score_state *state, const score_row &row,
                                     const unsigned long long *weight)
{
    switch (state->pass) {
    case PASS_STATISTICS: return after_statistics(state, row);
    case PASS_TOP_P: return after_top_p(state, row, weight);
    case PASS_TOP_K: return after_top_k(state, weight);
    case PASS_TIES:
        return row.temperature > 0 || row.confidence == CONFIDENCE_ENTROPY ? PASS_LAST : PASS_DONE;
    default: return PASS_DONE;
    }
}

/* A block ends one row's pass and clears its weights for the next. */
static __global__ void __launch_bounds__(THREADS)
    next_pass(score_state *states, const score_row *rows)
{
    __shared__ unsigned long long weight[CUT_N_BINS];
    score_state *state = &states[blockIdx.x];
    if (state->pass == PASS_DONE) return;
    bool has_weights = state->pass == PASS_TOP_P || state->pass == PASS_TOP_K;
    for (int i = (int)threadIdx.x; i < CUT_N_BINS && has_weights; i += THREADS) {
        weight[i] = state->weight[i];
        state->weight[i] = 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) state->pass = pass_after(state, rows[blockIdx.x], weight);
}

/* A block starts one row. */
static __global__ void __launch_bounds__(THREADS) start(score_state *states, const score_row *rows)
{
    score_state *state = &states[blockIdx.x];
    const score_row &row = rows[blockIdx.x];
    for (int i = (int)threadIdx.x; i < CUT_N_BINS; i += THREADS)
        state->weight[i] = 0;
    if (threadIdx.x > 0) return;
    const mass_sum empty = {-INFINITY, 0};
    state->pass = PASS_STATISTICS;
    state->broken = 0;
    state->scale = row.temperature > 0 ? row.temperature : 1;
    state->best_id = state->second_id = state->drawn_id = -1;
    state->best = state->second = state->drawn = -INFINITY;
    state->drawn_noisy = -INFINITY;
    state->entropy = 0;
    state->plain = state->unsuppressed = state->scaled = empty;
    state->top_p_key = state->cut_key = 0;
    state->top_p_ties = state->cut_id = INT_MAX;
    state->n_ties = 0;
}

/* ---- the result: pick_finish of backend/pick.h ---- */

static __device__ double confidence_of(const score_state &state, const score_row &row, int32_t id,
                                       float l)
{
    double lead = 1;
    switch (row.confidence) {
    case CONFIDENCE_PROBABILITY: {
        if (!has_confidence_suppressed(row)) return exp(l - state.plain.max) / state.plain.sum;
        if (contains(row.confidence_suppressed, row.n_confidence_suppressed, id)) return 0;
        return exp(l - state.unsuppressed.max) / state.unsuppressed.sum;
    }
    case CONFIDENCE_RANDOM:
        return noise_uniform(row.noise_key, row.step, row.position, NOISE_CONFIDENCE);
    case CONFIDENCE_FILTERED: return exp(((double)l - state.best) / state.scale) / state.scaled.sum;
    case CONFIDENCE_MARGIN:
        if (state.second_id >= 0 && stays(state, state.second_id, state.second))
            lead -= exp(((double)state.second - state.best) / state.scale);
        return lead / state.scaled.sum;
    case CONFIDENCE_ENTROPY: return state.entropy;
    }
    return 0;
}

/* A thread makes one row's pick. */
static __global__ void finish(pick *picks, const score_state *states, const score_row *rows,
                              int32_t n_rows)
{
    int32_t r = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (r >= n_rows) return;
    const score_state &state = states[r];
    const score_row &row = rows[r];
    pick found = {-1, 0, 0, 0, 0};
    if (!state.broken && state.best_id >= 0) {
        found.id = row.temperature > 0 ? state.drawn_id : state.best_id;
        float l = row.temperature > 0 ? state.drawn : state.best;
        found.log_prob = (float)(l - state.plain.max - log(state.plain.sum));
        found.confidence = confidence_of(state, row, found.id, l);
    }
    picks[r] = found;
}

/* ---- launchers ---- */

cudaError_t launch_score_init(void *states, const struct score_row *rows, int32_t n_rows,
                              cudaStream_t stream)
{
    start<<<(unsigned)n_rows, THREADS, 0, stream>>>((score_state *)states, rows);
    return cudaGetLastError();
}

cudaError_t launch_score_feed(void *states, const struct score_row *rows, struct score_tile tile,
                              int32_t mask_id, cudaStream_t stream)
{
    if (tile.n_ids > THREADS * PER_THREAD) return cudaErrorInvalidValue;
    feed<<<(unsigned)tile.n_rows, THREADS, 0, stream>>>((score_state *)states, rows, tile, mask_id);
    return cudaGetLastError();
}

cudaError_t launch_score_next(void *states, const struct score_row *rows, int32_t n_rows,
                              cudaStream_t stream)
{
    next_pass<<<(unsigned)n_rows, THREADS, 0, stream>>>((score_state *)states, rows);
    return cudaGetLastError();
}

cudaError_t launch_score_finish(struct pick *picks, const void *states,
                                const struct score_row *rows, int32_t n_rows, cudaStream_t stream)
{
    finish<<<(unsigned)(n_rows + 127) / 128, 128, 0, stream>>>(picks, (const score_state *)states,
                                                               rows, n_rows);
    return cudaGetLastError();
}
