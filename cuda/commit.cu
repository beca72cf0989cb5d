/* commit: which picks are written into the canvas. The rules are those of backend/host.c: a
 * request's picks are walked in order of confidence without storing an order, each next one being
 * the best behind the last. */
#include "backend/noise.h"
#include "cuda/device.cuh"
#include "cuda/kernels.cuh"

#define THREADS 128 /* four requests */

/* One request and where its picks are. */
struct commit_state {
    commit_launch at;
    commit_request request;
};

static __device__ int lane_index()
{
    return (int)threadIdx.x % WARP;
}

static __device__ bool is_masked(const commit_state &state, int32_t at)
{
    return state.at.canvas[state.at.cell[at]] == state.at.mask_id;
}

/* What a request's picks are sorted by, descending. */
static __device__ double order_value(const commit_state &state, int32_t at)
{
    const commit_request &request = state.request;
    double value = state.at.picks[at].confidence;
    if (request.rule != COMMIT_TOP || !(request.order_temperature > 0)) return value;
    double u = noise_uniform(request.noise_key, request.step, state.at.position[at], NOISE_ORDER);
    return value / request.order_temperature - log(-log(u));
}

/* Equal values: the lower position, which is the lower index. Index -1 comes last. */
static __device__ bool is_before(double a_value, int32_t a, double b_value, int32_t b)
{
    if (a < 0 || b < 0) return a >= 0;
    return a_value > b_value || (a_value == b_value && a < b);
}

/* The first pick in order behind `last` (-1: the first of all), the same in every lane; -1: none.
 */
static __device__ int32_t next_pick(const commit_state &state, int32_t last)
{
    int32_t best = -1;
    double best_value = 0, last_value = last < 0 ? 0 : order_value(state, last);
    for (int32_t i = lane_index(); i < state.request.n_picks; i += WARP) {
        int32_t at = state.request.pick_begin + i;
        if (!is_masked(state, at)) continue;
        double value = order_value(state, at);
        if (last >= 0 && !is_before(last_value, last, value, at)) continue;
        if (!is_before(value, at, best_value, best)) continue;
        best = at;
        best_value = value;
    }
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        int32_t other = __shfl_xor_sync(WARP_ALL, best, lane);
        double other_value = __shfl_xor_sync(WARP_ALL, best_value, lane);
        if (!is_before(other_value, other, best_value, best)) continue;
        best = other;
        best_value = other_value;
    }
    return best;
}

static __device__ void write_pick(const commit_state &state, int32_t at)
{
    int32_t id = state.at.picks[at].id;
    state.at.canvas[state.at.cell[at]] = id;
    if (state.at.twin_cell[at] >= 0) state.at.canvas[state.at.twin_cell[at]] = id;
    state.at.picks[at].is_committed = 1;
}

static __device__ void commit_top(const commit_state &state)
{
    int32_t at = -1;
    for (int32_t i = 0; i < state.request.n_commit; i++) {
        at = next_pick(state, at);
        if (at < 0) return;
        if (lane_index() == 0) write_pick(state, at);
    }
}

static __device__ void commit_threshold(const commit_state &state)
{
    int32_t best = next_pick(state, -1);
    for (int32_t i = lane_index(); i < state.request.n_picks; i += WARP) {
        int32_t at = state.request.pick_begin + i;
        bool passes = at == best || state.at.picks[at].confidence >= state.request.threshold;
        if (passes && is_masked(state, at)) write_pick(state, at);
    }
}

/* The last rank always passes when it is reached (backend/host.c). */
static __device__ void commit_factor(const commit_state &state)
{
    int32_t at = next_pick(state, -1);
    for (int32_t rank = 1; at >= 0; rank++) {
        int32_t next = next_pick(state, at);
        double needed = 1 - state.request.factor / (rank + 1);
        bool passes = rank == 1 || state.at.picks[at].confidence >= needed;
        if (!passes && next >= 0) return;
        if (lane_index() == 0) write_pick(state, at);
        at = next;
    }
}

static __device__ void commit_each(const commit_state &state)
{
    const commit_request &request = state.request;
    for (int32_t i = lane_index(); i < request.n_picks; i += WARP) {
        int32_t at = request.pick_begin + i;
        double u =
            noise_uniform(request.noise_key, request.step, state.at.position[at], NOISE_EACH);
        if (u < request.threshold && is_masked(state, at)) write_pick(state, at);
    }
}

/* Unmarks all picks. False: one of them has no id, and its cell is masked. */
static __device__ bool clear_picks(const commit_state &state)
{
    bool has_ids = true;
    for (int32_t i = lane_index(); i < state.request.n_picks; i += WARP) {
        pick *at = &state.at.picks[state.request.pick_begin + i];
        at->is_committed = 0;
        has_ids = has_ids && (at->id >= 0 || !is_masked(state, state.request.pick_begin + i));
    }
    __syncwarp();
    return __all_sync(WARP_ALL, has_ids);
}

/* A warp commits one request's picks (commit of backend.h). Some hundred numbers: bound by
 * latency. */
static __global__ void __launch_bounds__(THREADS) commit(commit_launch launch)
{
    int32_t index = (int32_t)(blockIdx.x * THREADS + threadIdx.x) / WARP;
    if (index >= launch.n) return;
    const commit_state state = {launch, launch.requests[index]};
    if (state.request.n_picks == 0 || !clear_picks(state)) return;
    switch (state.request.rule) {
    case COMMIT_TOP: commit_top(state); break;
    case COMMIT_THRESHOLD: commit_threshold(state); break;
    case COMMIT_FACTOR: commit_factor(state); break;
    case COMMIT_EACH: commit_each(state); break;
    }
}

cudaError_t launch_commit(const struct commit_launch *launch, cudaStream_t stream)
{
    if (launch->n == 0) return cudaSuccess;
    unsigned n_blocks = (unsigned)(((int64_t)launch->n * WARP + THREADS - 1) / THREADS);
    commit<<<n_blocks, THREADS, 0, stream>>>(*launch);
    return cudaGetLastError();
}
