/* score between its passes over the vocabulary, as pick_again and pick_finish of backend/pick.h:
 * which pass a row needs next, where a filter cuts, and at last the pick. */
#include "backend/noise.h"
#include "cuda/score_state.cuh"

#define THREADS   256
#define BINS_EACH (CUT_N_BINS / THREADS)

/* ---- from pass to pass ---- */

static __device__ void start_cut(score_state *state, double limit, double fraction)
{
    state->key = 0;
    state->shift = 32 - CUT_BIN_BITS;
    state->limit = limit;
    state->fraction = fraction;
    state->before = 0;
}

/* cut_narrow of backend/cut.h, up to the next digit's place: a thread walks BINS_EACH bins
 * downwards. Clears the weights. */
static __device__ void narrow(score_state *state)
{
    __shared__ int32_t chosen;
    int32_t first = CUT_N_BINS - 1 - (int32_t)threadIdx.x * BINS_EACH, mine = CUT_N_BINS;
    uint64_t weight[BINS_EACH], sum = 0, total, mine_before = 0;
#pragma unroll
    for (int i = 0; i < BINS_EACH; i++) {
        weight[i] = state->weight[first - i];
        state->weight[first - i] = 0;
        sum += weight[i];
    }
    uint64_t before = state->before + block_scan(sum, &total);
    bool is_first = state->shift == 32 - CUT_BIN_BITS && state->fraction >= 0;
    double limit = is_first ? state->fraction * (double)total : state->limit;
    if (threadIdx.x == 0) chosen = CUT_N_BINS;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < BINS_EACH; i++) {
        if (weight[i] > 0 && (double)before <= limit) {
            mine = first - i;
            mine_before = before;
        }
        before += weight[i];
    }
    if (mine < CUT_N_BINS) atomicMin(&chosen, mine);
    __syncthreads();
    if (mine == chosen) {
        state->key |= (uint32_t)chosen << state->shift;
        state->before = mine_before;
        state->limit = limit;
    }
    __syncthreads();
}

/* Goes to the next digit, if there is one. */
static __device__ bool next_digit(score_state *state)
{
    const int32_t last_bits = 32 - 2 * CUT_BIN_BITS;
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

static __device__ int32_t after_top_p(score_state *state, const score_row &row)
{
    if (next_digit(state)) return PASS_TOP_P;
    uint64_t one = whole_mass(masses_of(*state), cut_value(state->key));
    double n = floor((state->limit - (double)state->before) / (double)(one > 0 ? one : 1)) + 1;
    state->top_p_key = state->key;
    state->top_p_ties = n < INT_MAX ? (int32_t)n : INT_MAX;
    if (row.top_k > 0) return start_top_k(state, row);
    return start_ties(state, state->top_p_key, state->top_p_ties);
}

static __device__ int32_t after_top_k(score_state *state)
{
    if (next_digit(state)) return PASS_TOP_K;
    if (state->key > state->top_p_key) return start_ties(state, state->key, INT_MAX);
    return start_ties(state, state->top_p_key, state->top_p_ties);
}

static __device__ int32_t pass_after(score_state *state, const score_row &row)
{
    switch (state->pass) {
    case PASS_STATISTICS: return after_statistics(state, row);
    case PASS_TOP_P: return after_top_p(state, row);
    case PASS_TOP_K: return after_top_k(state);
    case PASS_TIES:
        return row.temperature > 0 || row.confidence == CONFIDENCE_ENTROPY ? PASS_LAST : PASS_DONE;
    default: return PASS_DONE;
    }
}

/* A block ends one row's pass; after a pass of a filter it is bound by reading the weights. */
static __global__ void __launch_bounds__(THREADS)
    next_pass(score_state *states, const score_row *rows)
{
    score_state *state = &states[blockIdx.x];
    const int32_t pass = state->pass;
    __syncthreads(); /* all have read it */
    if (pass == PASS_DONE) return;
    if (pass == PASS_TOP_P || pass == PASS_TOP_K) narrow(state);
    if (threadIdx.x == 0) state->pass = pass_after(state, rows[blockIdx.x]);
}

/* A block starts one row. Bound by clearing the weights, where a filter needs them. */
static __global__ void __launch_bounds__(THREADS) start(score_state *states, const score_row *rows)
{
    score_state *state = &states[blockIdx.x];
    const score_row &row = rows[blockIdx.x];
    for (int i = (int)threadIdx.x; i < CUT_N_BINS && pick_has_filter(&row); i += THREADS)
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

/* ---- the result ---- */

static __device__ double confidence_of(const score_state &state, const score_row &row, int32_t id,
                                       float l)
{
    double lead = 1;
    switch (row.confidence) {
    case CONFIDENCE_PROBABILITY: {
        if (!pick_has_confidence_suppressed(&row))
            return exp((double)l - state.plain.max) / state.plain.sum;
        if (contains(row.confidence_suppressed, row.n_confidence_suppressed, id)) return 0;
        return exp((double)l - state.unsuppressed.max) / state.unsuppressed.sum;
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
        found.log_prob = (float)((double)l - state.plain.max - log(state.plain.sum));
        found.confidence = confidence_of(state, row, found.id, l);
    }
    picks[r] = found;
}

/* ---- launchers ---- */

size_t score_state_bytes(int32_t n_rows)
{
    return (size_t)n_rows * sizeof(score_state);
}

cudaError_t launch_score_init(void *states, const struct score_row *rows, int32_t n_rows,
                              cudaStream_t stream)
{
    start<<<(unsigned)n_rows, THREADS, 0, stream>>>((score_state *)states, rows);
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
