/* score: the passes of backend/pick.h over tiles of logits, one block per row. A row's statistics
 * live in device memory between tiles. A tile is seen in stretches of fixed length, a stretch by
 * threads in a fixed pattern, and partial results are joined in one fixed order: a row's pick
 * depends on its logits alone. Exponentials are f32, sums f64; where masses are added by atomics
 * they are whole numbers of 2^-40, whose sum knows no order. */
#include "backend/noise.h"
#include "cuda/score_state.cuh"

#define THREADS    256
#define N_WARPS    (THREADS / WARP)
#define FOUR       4 /* logits of a 16-byte word */
#define N_FOURS    8 /* words that a thread sees of a stretch */
#define PER_THREAD (FOUR * N_FOURS)
#define STRETCH    SCORE_STRETCH

static_assert(STRETCH == THREADS * PER_THREAD, "a block sees a stretch at once");

/* ---- a block's view of a tile ---- */

/* A row's logits of a tile. Thread t sees words t, t + THREADS, .. of a stretch. */
struct view {
    const float *logits; /* [n_ids] */
    int32_t first_id, n_ids;
    bool is_wide; /* words are aligned and whole */
};

static __device__ __forceinline__ int32_t word_at(int32_t begin, int i)
{
    return begin + FOUR * (i * THREADS + (int)threadIdx.x);
}

static __device__ __forceinline__ void look_wide(float l[FOUR], const view &seen, int32_t at)
{
    float4 four = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    if (at < seen.n_ids) four = *(const float4 *)(seen.logits + at);
    l[0] = four.x;
    l[1] = four.y;
    l[2] = four.z;
    l[3] = four.w;
}

static __device__ __forceinline__ void look_narrow(float l[FOUR], const view &seen, int32_t at)
{
#pragma unroll
    for (int c = 0; c < FOUR; c++)
        l[c] = at + c < seen.n_ids ? seen.logits[at + c] : -INFINITY;
}

/* The logits of a word; -inf: no candidate. */
static __device__ __forceinline__ void look(float l[FOUR], const view &seen, int32_t at)
{
    if (seen.is_wide) look_wide(l, seen, at);
    else look_narrow(l, seen, at);
}

/* All that the thread sees of a stretch, loaded at once. */
static __device__ __forceinline__ void look_all(float l[PER_THREAD], const view &seen,
                                                int32_t begin)
{
    if (seen.is_wide) {
#pragma unroll
        for (int i = 0; i < N_FOURS; i++)
            look_wide(l + i * FOUR, seen, word_at(begin, i));
    } else {
#pragma unroll
        for (int i = 0; i < N_FOURS; i++)
            look_narrow(l + i * FOUR, seen, word_at(begin, i));
    }
}

/* pick_guide of backend/pick.h. */
static __device__ void guide(float *logits, const float *uncond, int32_t n, double weight)
{
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += THREADS) {
        double u = uncond[i];
        logits[i] = (float)(u + weight * (logits[i] - u));
    }
}

/* The id whose logit this thread overwrites; -1: none. */
static __device__ int32_t suppressed_id(const score_row &row, int32_t mask_id)
{
    int32_t at = (int32_t)threadIdx.x - 1;
    if (at < 0) return mask_id;
    if (at >= SCORE_SUPPRESSED_MAX) return -1;
    int32_t id = row.suppressed[at];
    return at < row.n_suppressed ? id : -1;
}

/* Guides the row's logits by those of `twin` (-1: none) and overwrites what is no candidate. */
static __device__ view prepare(const score_tile &tile, const score_row &row, int32_t twin,
                               int32_t suppressed)
{
    float *logits = tile.logits + (int64_t)blockIdx.x * tile.ld;
    int32_t at = suppressed - tile.first_id;
    if (twin >= 0) {
        guide(logits, tile.uncond + (int64_t)twin * tile.ld, tile.n_ids, (double)row.cfg_scale + 1);
        __syncthreads();
    }
    if (at >= 0 && at < tile.n_ids) logits[at] = -INFINITY;
    __syncthreads();
    bool is_wide = (uintptr_t)logits % sizeof(float4) == 0 && tile.n_ids % FOUR == 0;
    return {logits, tile.first_id, tile.n_ids, is_wide};
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

/* ---- the first pass ---- */

static __device__ __forceinline__ float largest(const float l[PER_THREAD])
{
    float max = -INFINITY;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++)
        max = fmaxf(max, l[i]);
    return max;
}

/* The block's sum of exp((l - max) * inverse), in thread 0. NaN: an l is NaN or +inf. */
static __device__ __forceinline__ double sum_exp(const float l[PER_THREAD], float max,
                                                 float inverse)
{
    float sum = 0, from = max == -INFINITY ? 0 : max;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++)
        sum += __expf((l[i] - from) * inverse);
    return join_sum(sum);
}

/* Adds a stretch's sum. */
static __device__ void add_sum(mass_sum *total, double sum, float max, float inverse)
{
    if (max == -INFINITY) return;
    float factor = expf(-fabsf(total->max - max) * inverse);
    if (max > total->max) {
        total->sum = total->sum * factor + sum;
        total->max = max;
    } else {
        total->sum += sum * factor;
    }
}

/* Thread t's l[i] is of id first + FOUR * (i / FOUR * THREADS + t) + i % FOUR. */
static __device__ __forceinline__ void rank(const float l[PER_THREAD], int32_t first,
                                            score_state *state)
{
    best_two two = {-INFINITY, -INFINITY, -1, -1};
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        if (!(l[i] > two.second)) continue;
        bool leads = l[i] > two.first;
        int32_t id = word_at(first, i / FOUR) + i % FOUR;
        two.second = leads ? two.first : l[i];
        two.second_id = leads ? two.first_id : id;
        two.first = leads ? l[i] : two.first;
        two.first_id = leads ? id : two.first_id;
    }
    two = join_best(two);
    if (threadIdx.x > 0) return;
    two = join_two({state->best, state->second, state->best_id, state->second_id}, two);
    state->best = two.first;
    state->second = two.second;
    state->best_id = two.first_id;
    state->second_id = two.second_id;
}

/* l - T ln(-ln u) where it can beat `bound`: when -ln u < exp((l - bound) / T). Since 1 - u <= -ln
 * u and 1 - u >= 2^-53, most ids are out before any logarithm. */
static __device__ __forceinline__ void draw_one(drawing &best, const score_row &row, int32_t id,
                                                float l, float bound)
{
    const float slack = 1.001f; /* far above the rounding of reach */
    float reach = slack * __expf((l - bound) * inverse_of(row.temperature));
    if (reach < 1e-16f) return;
    double u = noise_uniform(row.noise_key, row.step, row.position, (uint32_t)id);
    if ((float)(1 - u) > reach) return;
    double noisy = l - row.temperature * log(-log(u));
    if (noisy > best.noisy) best = {noisy, l, id};
}

static __device__ float warp_max(float value)
{
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        value = fmaxf(value, __shfl_xor_sync(WARP_ALL, value, lane));
    return value;
}

/* Gumbel sampling; `is_filtered`: over what stays. */
static __device__ void draw(const view &seen, int32_t begin, const score_row &row,
                            score_state *state, bool is_filtered)
{
    drawing best = {state->drawn_noisy, state->drawn, state->drawn_id};
#pragma unroll 1
    for (int i = 0; i < N_FOURS; i++) {
        float l[FOUR], bound = warp_max(__double2float_rd(best.noisy));
        int32_t at = word_at(begin, i);
        look(l, seen, at);
#pragma unroll
        for (int c = 0; c < FOUR; c++) {
            int32_t id = seen.first_id + at + c;
            if (l[c] == -INFINITY || (is_filtered && !stays(*state, id, l[c]))) continue;
            draw_one(best, row, id, l[c], bound);
        }
    }
    best = join_drawing(best);
    if (threadIdx.x > 0) return;
    state->drawn_noisy = best.noisy;
    state->drawn = best.l;
    state->drawn_id = best.id;
}

/* The sum without confidence_suppressed, which it hides in l. */
static __device__ __forceinline__ void add_unsuppressed(float l[PER_THREAD], int32_t first,
                                                        const score_row &row, score_state *state)
{
    for (int32_t n = 0; n < row.n_confidence_suppressed; n++) {
#pragma unroll
        for (int i = 0; i < PER_THREAD; i++)
            if (word_at(first, i / FOUR) + i % FOUR == row.confidence_suppressed[n])
                l[i] = -INFINITY;
    }
    float max = join_max(largest(l));
    double sum = sum_exp(l, max, 1);
    if (threadIdx.x == 0) add_sum(&state->unsuppressed, sum, max, 1);
}

static __device__ void see_statistics(const view &seen, int32_t begin, const score_row &row,
                                      score_state *state)
{
    float l[PER_THREAD], inverse = inverse_of(state->scale);
    int32_t first = seen.first_id + begin;
    look_all(l, seen, begin);
    float max = join_max(largest(l));
    double sum = sum_exp(l, max, 1), scaled = sum;
    if (max > state->second) rank(l, first, state);
    if (pick_wants_scaled(&row) && state->scale != 1) scaled = sum_exp(l, max, inverse);
    if (threadIdx.x == 0) {
        state->broken |= isnan(sum);
        add_sum(&state->plain, sum, max, 1);
        if (pick_wants_scaled(&row)) add_sum(&state->scaled, scaled, max, inverse);
    }
    if (pick_has_confidence_suppressed(&row)) add_unsuppressed(l, first, row, state);
    if (row.temperature > 0 && !pick_has_filter(&row)) draw(seen, begin, row, state, false);
}

/* ---- later passes ---- */

/* Adds to a 64-bit number in two halves of shared memory. */
static __device__ __forceinline__ void add_whole(uint32_t *low, uint32_t *high, uint64_t weight)
{
    uint32_t added = (uint32_t)weight, before = atomicAdd(low, added);
    uint32_t carried = (uint32_t)(weight >> 32) + (before + added < before);
    if (carried > 0) atomicAdd(high, carried);
}

/* cut_add of backend/cut.h: masses for top-p, ones for top-k. */
static __device__ void add_weights(const view &seen, int32_t begin, score_state *state)
{
    __shared__ uint32_t low[CUT_N_BINS], high[CUT_N_BINS];
    const masses of = masses_of(*state);
    const bool is_top_k = state->pass == PASS_TOP_K;
    const uint32_t known = state->key, least = is_top_k ? state->top_p_key : 0;
    const int32_t shift = state->shift, bits = shift > 0 ? CUT_BIN_BITS : 32 - 2 * CUT_BIN_BITS;
    for (int i = (int)threadIdx.x; i < CUT_N_BINS; i += THREADS)
        low[i] = high[i] = 0;
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < N_FOURS; i++) {
        float l[FOUR];
        look(l, seen, word_at(begin, i));
#pragma unroll
        for (int c = 0; c < FOUR; c++) {
            uint32_t key = cut_key(l[c]), bin = key >> shift & ((1u << bits) - 1);
            bool is_known = (uint64_t)(key ^ known) >> (shift + bits) == 0;
            if (l[c] == -INFINITY || !is_known || key < least) continue;
            add_whole(&low[bin], &high[bin], is_top_k ? 1 : whole_mass(of, l[c]));
        }
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < CUT_N_BINS; i += THREADS)
        state->weight[i] += (uint64_t)high[i] << 32 | low[i];
}

static __device__ __forceinline__ int32_t count_ties(const float l[FOUR], uint32_t key)
{
    int32_t n = 0;
#pragma unroll
    for (int c = 0; c < FOUR; c++)
        n += l[c] != -INFINITY && cut_key(l[c]) == key;
    return n;
}

/* The id of the n-th tie of a stretch, in all threads; words of a stretch lie in order of i, then
 * of the thread. */
static __device__ int32_t find_tie(const view &seen, int32_t begin, uint32_t key, int32_t n)
{
    __shared__ int32_t found;
    int32_t n_seen = 0, n_now;
#pragma unroll 1
    for (int i = 0; i < N_FOURS && n_seen < n; i++) {
        float l[FOUR];
        int32_t at = word_at(begin, i);
        look(l, seen, at);
        int32_t place = n_seen + block_scan(count_ties(l, key), &n_now);
#pragma unroll
        for (int c = 0; c < FOUR; c++)
            if (l[c] != -INFINITY && cut_key(l[c]) == key && ++place == n)
                found = seen.first_id + at + c;
        n_seen += n_now;
    }
    __syncthreads();
    return found;
}

/* Settles which ids stay, and sums their masses. */
static __device__ void see_ties(const view &seen, int32_t begin, score_state *state)
{
    const masses of = masses_of(*state);
    const uint32_t cut = state->cut_key;
    int32_t n_left = state->n_ties, n_mine = 0, n_equal, last = INT_MAX;
    float l[FOUR], sum = 0;
#pragma unroll 1
    for (int i = 0; i < N_FOURS; i++) {
        look(l, seen, word_at(begin, i));
        n_mine += count_ties(l, cut);
    }
    block_scan(n_mine, &n_equal);
    if (n_left < n_equal) last = n_left > 0 ? find_tie(seen, begin, cut, n_left) : -1;
#pragma unroll 1
    for (int i = 0; i < N_FOURS; i++) {
        int32_t at = word_at(begin, i);
        look(l, seen, at);
#pragma unroll
        for (int c = 0; c < FOUR; c++) {
            uint32_t key = l[c] == -INFINITY ? 0 : cut_key(l[c]);
            if (key > cut || (key == cut && seen.first_id + at + c <= last)) sum += mass(of, l[c]);
        }
    }
    double joined = join_sum(sum);
    if (threadIdx.x > 0) return;
    state->scaled.sum += joined;
    if (n_equal == 0 || n_left == 0) return;
    int32_t end = begin + STRETCH < seen.n_ids ? begin + STRETCH : seen.n_ids;
    state->n_ties = n_left > n_equal ? n_left - n_equal : 0;
    state->cut_id = last == INT_MAX ? seen.first_id + end - 1 : last;
}

static __device__ void add_entropy(const view &seen, int32_t begin, score_state *state)
{
    const masses of = masses_of(*state);
    const double total = state->scaled.sum;
    float sum = 0;
#pragma unroll 1
    for (int i = 0; i < N_FOURS; i++) {
        float l[FOUR];
        int32_t at = word_at(begin, i);
        look(l, seen, at);
#pragma unroll
        for (int c = 0; c < FOUR; c++) {
            if (l[c] == -INFINITY || !stays(*state, seen.first_id + at + c, l[c])) continue;
            float p = (float)(mass(of, l[c]) / total);
            sum += p * logf(p + 1e-10f);
        }
    }
    double joined = join_sum(sum);
    if (threadIdx.x == 0) state->entropy += joined;
}

static __device__ void see_stretch(const view &seen, int32_t begin, const score_row &row,
                                   score_state *state)
{
    switch (state->pass) {
    case PASS_STATISTICS: see_statistics(seen, begin, row, state); return;
    case PASS_TOP_P:
    case PASS_TOP_K: add_weights(seen, begin, state); return;
    case PASS_TIES: see_ties(seen, begin, state); return;
    case PASS_LAST:
        if (row.temperature > 0 && pick_has_filter(&row)) draw(seen, begin, row, state, true);
        if (row.confidence == CONFIDENCE_ENTROPY) add_entropy(seen, begin, state);
        return;
    }
}

/* A block sees one row's logits of one tile, in the row's pass of score (backend.h). In the first
 * pass of greedy rows it is bound by reading the tile. */
static __global__ void __launch_bounds__(THREADS)
    feed(score_state *states, const score_row *rows, score_tile tile, int32_t mask_id)
{
    score_state *state = &states[blockIdx.x];
    const score_row &row = rows[blockIdx.x];
    const int32_t twin = tile.uncond_index ? tile.uncond_index[blockIdx.x] : -1;
    const int32_t suppressed = suppressed_id(row, mask_id);
    if (state->pass == PASS_DONE) return;
    const view seen = prepare(tile, row, twin, suppressed);
    for (int32_t begin = 0; begin < tile.n_ids; begin += STRETCH) {
        see_stretch(seen, begin, row, state);
        __syncthreads(); /* thread 0 has written the state */
    }
}

cudaError_t launch_score_feed(void *states, const struct score_row *rows, struct score_tile tile,
                              int32_t mask_id, cudaStream_t stream)
{
    feed<<<(unsigned)tile.n_rows, THREADS, 0, stream>>>((score_state *)states, rows, tile, mask_id);
    return cudaGetLastError();
}
