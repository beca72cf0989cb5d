/* select_kv: which rows outside a sequence's window stay visible, per KV head (or one choice for
 * all heads), and their move to the target extent. One block does all of a choice: scores in shared
 * memory, max-pool on the fly, radix selection of the n_keep-th score, an ordered scan, the copies.
 * The order of every sum depends on the candidate alone. */
#include "backend/cut.h"
#include "cuda/device.cuh"
#include "cuda/kernels.cuh"

#define THREADS    256
#define N_WARPS    (THREADS / WARP)
#define HEAD_MAX   256 /* numbers of a head */
#define N_BINS     256 /* of a pass of the radix selection: a byte of the key */
#define LANES      4   /* of a warp that share a key */
#define KEYS       2   /* of a lane at a time */
#define WARP_KEYS  (WARP / LANES * KEYS)
#define HEADS      8           /* query heads at a time */
#define COPIES     2           /* words of keys, and of values, that a thread moves at a time */
#define SHARED_OWN (16 * 1024) /* bytes of shared memory beside the scores, at most */
#define SHARED_ANY (48 * 1024) /* what a block gets without asking */

static_assert(THREADS == N_BINS, "a thread has a bin");

/* What a block works on. */
struct choice {
    sequence seen;
    select_sequence select;
    int32_t n_candidates;
};

/* Where candidate j's key (or value) under a KV head lies. */
static __device__ __forceinline__ const bf16 *
row_of(const select_launch &launch, const choice &work, int32_t kv_head, int32_t j, bool is_value)
{
    const fresh_kv &fresh = launch.fresh;
    if (j < work.seen.n_cached) {
        int64_t row =
            work.seen.cache_begin * fresh.n_kv_heads + (int64_t)kv_head * work.seen.n_cached + j;
        return (is_value ? launch.values : launch.keys) + row * fresh.head_dim;
    }
    int32_t row = work.seen.row_begin + j - work.seen.n_cached;
    if (row >= work.select.window_begin) row += work.select.window_end - work.select.window_begin;
    int32_t col = (is_value ? fresh.value_col : fresh.key_col) + kv_head * fresh.head_dim;
    return fresh.x + (int64_t)row * fresh.n_cols + col;
}

/* means[h][..] over the window of query heads [head, head + n_heads), in f32. */
static __device__ void take_means(float *means, const select_launch &launch, const choice &work,
                                  int32_t head, int32_t n_heads)
{
    int32_t head_dim = launch.fresh.head_dim, n_cols = launch.query_cols;
    int32_t begin = work.select.window_begin, n = work.select.window_end - begin;
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < n_heads * head_dim; i += THREADS) {
        const bf16 *at =
            launch.query + (int64_t)begin * n_cols + launch.query_col + head * head_dim + i;
        float sum = 0;
#pragma unroll 4
        for (int32_t r = 0; r < n; r++)
            sum += __bfloat162float(at[(int64_t)r * n_cols]);
        means[i] = sum / (float)n;
    }
    __syncthreads();
}

static __device__ __forceinline__ void unpack(float out[WIDE], wide word)
{
    wide_unpack(out, word);
}

static __device__ __forceinline__ void unpack(float out[1], bf16 word)
{
    out[0] = __bfloat162float(word);
}

static __device__ __forceinline__ void load_means(float out[WIDE], const float *from, wide *)
{
    *(float4 *)out = *(const float4 *)from;
    *(float4 *)(out + 4) = *(const float4 *)(from + 4);
}

static __device__ __forceinline__ void load_means(float out[1], const float *from, bf16 *)
{
    out[0] = *from;
}

/* best[k] = max over the heads of mean . keys[k]. LANES lanes share a key: lane i of them has words
 * i, i + LANES, .. of it. */
template <typename word>
static __device__ void best_dots(float best[KEYS], const float *means, int32_t n_heads,
                                 const bf16 *const keys[KEYS], int32_t head_dim)
{
    constexpr int per_word = sizeof(word) / sizeof(bf16);
    float sums[HEADS][KEYS] = {};
#pragma unroll 2
    for (int32_t w = (int32_t)threadIdx.x % LANES; w < head_dim / per_word; w += LANES) {
        alignas(16) float key[KEYS][per_word], mean[per_word];
#pragma unroll
        for (int k = 0; k < KEYS; k++)
            unpack(key[k], ((const word *)keys[k])[w]);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            if (h >= n_heads) break;
            load_means(mean, means + h * head_dim + w * per_word, (word *)NULL);
#pragma unroll
            for (int i = 0; i < per_word; i++)
                for (int k = 0; k < KEYS; k++)
                    sums[h][k] += mean[i] * key[k][i];
        }
    }
#pragma unroll
    for (int k = 0; k < KEYS; k++) {
        best[k] = -INFINITY;
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float sum = sums[h][k];
            for (int lane = LANES / 2; lane > 0; lane /= 2)
                sum += __shfl_xor_sync(WARP_ALL, sum, lane);
            if (h < n_heads) best[k] = fmaxf(best[k], sum);
        }
    }
}

/* scores[j] = max over the KV head's query heads of mean . key j * scale. */
template <typename word>
static __device__ void score_head(float *scores, const select_launch &launch, const choice &work,
                                  int32_t kv_head)
{
    alignas(16) __shared__ float means[HEADS * HEAD_MAX];
    int32_t group = launch.n_heads / launch.fresh.n_kv_heads, n = work.n_candidates;
    int32_t warp = (int32_t)threadIdx.x / WARP, lane = (int32_t)threadIdx.x % WARP;
    for (int32_t first = 0; first < group; first += HEADS) {
        int32_t n_heads = group - first < HEADS ? group - first : HEADS;
        take_means(means, launch, work, kv_head * group + first, n_heads);
        for (int32_t begin = warp * WARP_KEYS; begin < n; begin += N_WARPS * WARP_KEYS) {
            const bf16 *keys[KEYS];
            float best[KEYS];
#pragma unroll
            for (int k = 0; k < KEYS; k++) {
                int32_t j = begin + k * (WARP / LANES) + lane / LANES;
                keys[k] = row_of(launch, work, kv_head, j < n ? j : n - 1, false);
            }
            best_dots<word>(best, means, n_heads, keys, launch.fresh.head_dim);
#pragma unroll
            for (int k = 0; k < KEYS; k++) {
                int32_t j = begin + k * (WARP / LANES) + lane / LANES;
                float score = best[k] * launch.scale;
                if (lane % LANES == 0 && j < n)
                    scores[j] = first == 0 ? score : fmaxf(scores[j], score);
            }
        }
    }
    __syncthreads();
}

/* The order key of candidate j after max-pooling over its neighbours. */
static __device__ __forceinline__ uint32_t pooled_key(const float *scores, int32_t n, int32_t j)
{
    float value = scores[j];
    if (j > 0) value = fmaxf(value, scores[j - 1]);
    if (j + 1 < n) value = fmaxf(value, scores[j + 1]);
    return cut_key(value);
}

/* The n_keep-th largest key, byte by byte; *n_ties: how many with exactly that key stay. */
static __device__ uint32_t find_cut(const float *scores, const choice &work, int32_t *n_ties)
{
    __shared__ int32_t bins[N_BINS];
    __shared__ int32_t shared_left;
    __shared__ uint32_t shared_cut;
    int32_t left = work.select.n_keep, n_all, n = work.n_candidates;
    uint32_t cut = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        bins[threadIdx.x] = 0;
        __syncthreads();
        for (int32_t j = (int32_t)threadIdx.x; j < n; j += THREADS) {
            uint32_t key = pooled_key(scores, n, j);
            if ((uint64_t)(key ^ cut) >> (shift + 8) == 0) atomicAdd(&bins[key >> shift & 255], 1);
        }
        __syncthreads();
        int32_t bin = N_BINS - 1 - (int32_t)threadIdx.x, n_bin = bins[bin];
        int32_t n_before = block_scan(n_bin, &n_all);
        if (n_before < left && left <= n_before + n_bin) {
            shared_left = left - n_before;
            shared_cut = cut | (uint32_t)bin << shift;
        }
        __syncthreads();
        left = shared_left;
        cut = shared_cut;
    }
    *n_ties = left;
    return cut;
}

/* kept[index] = candidate, in order; ties to the lower candidate. */
static __device__ void list_kept(uint16_t *kept, const float *scores, const choice &work)
{
    const int32_t one_tie = 1 << 16; /* in the scan, ties are counted above the others */
    int32_t n_ties, n_ties_seen = 0, n_larger_seen = 0, n = work.n_candidates;
    uint32_t cut = find_cut(scores, work, &n_ties);
    for (int32_t begin = 0; begin < n; begin += THREADS) {
        int32_t j = begin + (int32_t)threadIdx.x, n_now;
        uint32_t key = j < n ? pooled_key(scores, n, j) : 0;
        bool is_larger = j < n && key > cut, is_tie = j < n && key == cut;
        int32_t n_before = block_scan(is_tie ? one_tie : (int32_t)is_larger, &n_now);
        int32_t tie = n_ties_seen + n_before / one_tie;
        int32_t index = n_larger_seen + n_before % one_tie + (tie < n_ties ? tie : n_ties);
        if (is_larger || (is_tie && tie < n_ties)) kept[index] = (uint16_t)j;
        n_ties_seen += n_now / one_tie;
        n_larger_seen += n_now % one_tie;
    }
    __syncthreads();
}

/* Where everything is kept (the dual cache), nothing is scored. */
static __device__ void list_all(uint16_t *kept, int32_t n)
{
    for (int32_t j = (int32_t)threadIdx.x; j < n; j += THREADS)
        kept[j] = (uint16_t)j;
    __syncthreads();
}

/* Copies the kept keys and values of a head to the target extent. */
template <typename word>
static __device__ void copy_kept(const select_launch &launch, const choice &work, int32_t kv_head,
                                 const uint16_t *kept)
{
    int32_t n_keep = work.select.n_keep;
    int32_t n_words = launch.fresh.head_dim * (int32_t)sizeof(bf16) / (int32_t)sizeof(word);
    int64_t row = work.select.target_begin * launch.fresh.n_kv_heads + (int64_t)kv_head * n_keep;
    word *keys = (word *)launch.keys + row * n_words;
    word *values = (word *)launch.values + row * n_words;
    for (int32_t begin = 0; begin < n_keep * n_words; begin += THREADS * COPIES) {
        word key[COPIES], value[COPIES];
#pragma unroll
        for (int c = 0; c < COPIES; c++) {
            int32_t i = begin + c * THREADS + (int32_t)threadIdx.x;
            if (i >= n_keep * n_words) continue;
            int32_t j = kept[i / n_words], at = i % n_words;
            key[c] = ((const word *)row_of(launch, work, kv_head, j, false))[at];
            value[c] = ((const word *)row_of(launch, work, kv_head, j, true))[at];
        }
#pragma unroll
        for (int c = 0; c < COPIES; c++) {
            int32_t i = begin + c * THREADS + (int32_t)threadIdx.x;
            if (i >= n_keep * n_words) continue;
            keys[i] = key[c];
            values[i] = value[c];
        }
    }
}

/* Bytes of shared memory of a block: the scores, their sums when shared, the list of the kept. */
static int32_t shared_bytes(const struct select_launch *launch)
{
    int32_t n_floats = launch->shared ? 2 : 1;
    return launch->n_candidates_max *
           (n_floats * (int32_t)sizeof(float) + (int32_t)sizeof(uint16_t));
}

/* A block chooses for one sequence and KV head, or (shared) for all heads of one sequence, as
 * select_kv of backend.h says. Bound by reading the candidates' keys once. */
template <typename word>
static __global__ void __launch_bounds__(THREADS) choose(select_launch launch)
{
    extern __shared__ float scores[]; /* as shared_bytes says */
    choice work;
    work.select = launch.selects[blockIdx.x];
    work.seen = launch.sequences[work.select.sequence];
    work.n_candidates =
        work.seen.n_cached + work.seen.n_rows - (work.select.window_end - work.select.window_begin);
    if (work.select.n_keep == 0) return;
    bool keeps_all = work.select.n_keep == work.n_candidates;
    float *sums = scores + launch.n_candidates_max;
    if (!launch.shared) {
        uint16_t *kept = (uint16_t *)sums;
        if (keeps_all) {
            list_all(kept, work.n_candidates);
        } else {
            score_head<word>(scores, launch, work, (int32_t)blockIdx.y);
            list_kept(kept, scores, work);
        }
        copy_kept<word>(launch, work, (int32_t)blockIdx.y, kept);
        return;
    }
    uint16_t *kept = (uint16_t *)(sums + launch.n_candidates_max);
    for (int32_t h = 0; h < launch.fresh.n_kv_heads; h++) {
        score_head<word>(scores, launch, work, h);
        for (int32_t j = (int32_t)threadIdx.x; j < work.n_candidates; j += THREADS)
            sums[j] = (h == 0 ? 0 : sums[j]) + scores[j];
    }
    __syncthreads();
    list_kept(kept, sums, work); /* the order of sums is that of means */
    for (int32_t h = 0; h < launch.fresh.n_kv_heads; h++)
        copy_kept<word>(launch, work, h, kept);
}

template <typename word>
static cudaError_t launch_words(const struct select_launch *launch, cudaStream_t stream)
{
    dim3 grid((unsigned)launch->n, launch->shared ? 1 : (unsigned)launch->fresh.n_kv_heads);
    int32_t n_bytes = shared_bytes(launch);
    if (n_bytes > SHARED_ANY - SHARED_OWN) {
        cudaError_t status = cudaFuncSetAttribute(
            choose<word>, cudaFuncAttributeMaxDynamicSharedMemorySize, n_bytes);
        if (status != cudaSuccess) return status;
    }
    choose<word><<<grid, THREADS, (size_t)n_bytes, stream>>>(*launch);
    return cudaGetLastError();
}

cudaError_t launch_select_kv(const struct select_launch *launch, cudaStream_t stream)
{
    const struct fresh_kv *fresh = &launch->fresh;
    bool is_wide = fresh->head_dim % WIDE == 0 && fresh->n_cols % WIDE == 0 &&
                   fresh->key_col % WIDE == 0 && fresh->value_col % WIDE == 0;
    if (launch->n == 0 || launch->n_candidates_max == 0) return cudaSuccess;
    if (fresh->head_dim > HEAD_MAX) return cudaErrorInvalidValue;
    return is_wide ? launch_words<wide>(launch, stream) : launch_words<bf16>(launch, stream);
}
