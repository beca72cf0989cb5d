/* select_kv: which rows outside a sequence's window stay visible, per KV head (or one choice for
 * all heads), and their move to the target extent. One block does all of a choice: scores in shared
 * memory, max-pool on the fly, radix selection of the n_keep-th score, an ordered scan, the copies.
 * The order of every sum depends on the candidate alone. */
#include "cuda/device.cuh"
#include "cuda/kernels.cuh"

#define THREADS  256
#define N_WARPS  (THREADS / WARP)
#define HEAD_MAX 256 /* numbers of a head */
#define N_BINS   256 /* of a pass of the radix selection: a byte of the key */

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

/* The mean over the window of one query head, in f32, into shared memory. */
static __device__ void take_mean(float *mean, const select_launch &launch, const choice &work,
                                 int32_t head)
{
    int32_t head_dim = launch.fresh.head_dim;
    int32_t begin = work.select.window_begin, end = work.select.window_end;
    for (int32_t i = (int32_t)threadIdx.x; i < head_dim; i += THREADS) {
        float sum = 0;
        for (int32_t r = begin; r < end; r++)
            sum += __bfloat162float(launch.query[(int64_t)r * launch.query_cols + launch.query_col +
                                                 head * head_dim + i]);
        mean[i] = sum / (float)(end - begin);
    }
    __syncthreads();
}

/* scores[j] = weight * (max over the group's heads of mean . key j * scale), added when `adds`. A
 * warp takes one candidate at a time. */
static __device__ void score_head(float *scores, float *mean, const select_launch &launch,
                                  const choice &work, int32_t kv_head)
{
    int32_t head_dim = launch.fresh.head_dim, group = launch.n_heads / launch.fresh.n_kv_heads;
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    for (int32_t g = 0; g < group; g++) {
        __syncthreads();
        take_mean(mean, launch, work, kv_head * group + g);
        for (int32_t j = warp; j < work.n_candidates; j += N_WARPS) {
            const bf16 *key = row_of(launch, work, kv_head, j, false);
            float sum = 0;
            for (int32_t i = lane; i < head_dim; i += WARP)
                sum += mean[i] * __bfloat162float(key[i]);
            sum = warp_sum(sum) * launch.scale;
            if (lane == 0) scores[j] = g == 0 ? sum : fmaxf(scores[j], sum);
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
    uint32_t bits = __float_as_uint(value + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The n_keep-th largest key, byte by byte; *n_ties: how many with exactly that key stay. */
static __device__ uint32_t find_cut(const float *scores, const choice &work, int32_t *n_ties)
{
    __shared__ int32_t bins[N_BINS];
    __shared__ int32_t left;
    __shared__ uint32_t cut;
    if (threadIdx.x == 0) {
        left = work.select.n_keep;
        cut = 0;
    }
    for (int shift = 24; shift >= 0; shift -= 8) {
        bins[threadIdx.x] = 0;
        __syncthreads();
        uint32_t known = shift == 24 ? 0 : cut >> (shift + 8);
        for (int32_t j = (int32_t)threadIdx.x; j < work.n_candidates; j += THREADS) {
            uint32_t key = pooled_key(scores, work.n_candidates, j);
            if (shift == 24 || key >> (shift + 8) == known) atomicAdd(&bins[key >> shift & 255], 1);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int bin = N_BINS - 1;
            for (; bin > 0 && bins[bin] < left; bin--)
                left -= bins[bin];
            cut |= (uint32_t)bin << shift;
        }
        __syncthreads();
    }
    *n_ties = left;
    return cut;
}

/* Sum of `value` over the threads before this one; *total over all. */
static __device__ int32_t scan(int32_t value, int32_t *total)
{
    __shared__ int32_t parts[N_WARPS];
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int32_t sum = value;
    for (int step = 1; step < WARP; step *= 2) {
        int32_t other = __shfl_up_sync(WARP_ALL, sum, step);
        if (lane >= step) sum += other;
    }
    __syncthreads();
    if (lane == WARP - 1) parts[warp] = sum;
    __syncthreads();
    int32_t before = 0, all = 0;
    for (int i = 0; i < N_WARPS; i++) {
        before += i < warp ? parts[i] : 0;
        all += parts[i];
    }
    *total = all;
    return before + sum - value;
}

/* kept[index] = candidate, in order; ties to the lower candidate. */
static __device__ void list_kept(int32_t *kept, const float *scores, const choice &work)
{
    int32_t n_ties, n_ties_seen = 0, n_kept = 0;
    uint32_t cut = find_cut(scores, work, &n_ties);
    for (int32_t begin = 0; begin < work.n_candidates; begin += THREADS) {
        int32_t j = begin + (int32_t)threadIdx.x, n_tied_now, n_now;
        bool exists = j < work.n_candidates;
        uint32_t key = exists ? pooled_key(scores, work.n_candidates, j) : 0;
        bool is_tie = exists && key == cut;
        int32_t rank = n_ties_seen + scan(is_tie, &n_tied_now);
        bool stays = exists && (key > cut || (is_tie && rank < n_ties));
        int32_t index = n_kept + scan(stays, &n_now);
        if (stays) kept[index] = j;
        n_ties_seen += n_tied_now;
        n_kept += n_now;
    }
    __syncthreads();
}

/* Copies the kept keys and values of a head to the target extent. */
template <typename word>
static __device__ void copy_kept(const select_launch &launch, const choice &work, int32_t kv_head,
                                 const int32_t *kept)
{
    constexpr int32_t per_word = sizeof(word) / sizeof(bf16);
    int32_t n_words = launch.fresh.head_dim / per_word, n_keep = work.select.n_keep;
    int64_t row = work.select.target_begin * launch.fresh.n_kv_heads + (int64_t)kv_head * n_keep;
    word *keys = (word *)launch.keys + row * n_words;
    word *values = (word *)launch.values + row * n_words;
    for (int32_t i = (int32_t)threadIdx.x; i < n_keep * n_words; i += THREADS) {
        int32_t j = kept[i / n_words];
        keys[i] = ((const word *)row_of(launch, work, kv_head, j, false))[i % n_words];
        values[i] = ((const word *)row_of(launch, work, kv_head, j, true))[i % n_words];
    }
}

/* Copies every candidate of the block's head, or of all heads when one block has them all. */
template <typename word>
static __device__ void copy_all(const select_launch &launch, const choice &work)
{
    constexpr int32_t per_word = sizeof(word) / sizeof(bf16);
    int32_t n_words = launch.fresh.head_dim / per_word, n = work.n_candidates;
    int32_t first = launch.shared ? 0 : (int32_t)blockIdx.y;
    int32_t end = launch.shared ? launch.fresh.n_kv_heads : first + 1;
    for (int32_t h = first; h < end; h++) {
        int64_t row = work.select.target_begin * launch.fresh.n_kv_heads + (int64_t)h * n;
        word *keys = (word *)launch.keys + row * n_words;
        word *values = (word *)launch.values + row * n_words;
        for (int32_t i = (int32_t)threadIdx.x; i < n * n_words; i += THREADS) {
            int32_t j = i / n_words, at = i % n_words;
            keys[i] = ((const word *)row_of(launch, work, h, j, false))[at];
            values[i] = ((const word *)row_of(launch, work, h, j, true))[at];
        }
    }
}

/* A block chooses for one sequence and KV head, or (shared) for all heads of one sequence, as
 * select_kv of backend.h says. Bound by reading the candidates' keys once. */
template <typename word>
static __global__ void __launch_bounds__(THREADS) choose(select_launch launch)
{
    extern __shared__ float scores[]; /* [n_candidates], then the sums when shared, then `kept` */
    __shared__ float mean[HEAD_MAX];
    choice work;
    work.select = launch.selects[blockIdx.x];
    work.seen = launch.sequences[work.select.sequence];
    work.n_candidates =
        work.seen.n_cached + work.seen.n_rows - (work.select.window_end - work.select.window_begin);
    if (work.select.n_keep == 0) return;
    int32_t *kept = (int32_t *)(scores + launch.n_candidates_max * (launch.shared ? 2 : 1));
    if (work.select.n_keep == work.n_candidates) { /* nothing to choose: the dual cache */
        copy_all<word>(launch, work);
        return;
    }
    if (!launch.shared) {
        score_head(scores, mean, launch, work, (int32_t)blockIdx.y);
        list_kept(kept, scores, work);
        copy_kept<word>(launch, work, (int32_t)blockIdx.y, kept);
        return;
    }
    float *sums = scores + launch.n_candidates_max;
    for (int32_t h = 0; h < launch.fresh.n_kv_heads; h++) {
        score_head(scores, mean, launch, work, h);
        for (int32_t j = (int32_t)threadIdx.x; j < work.n_candidates; j += THREADS)
            sums[j] = (h == 0 ? 0 : sums[j]) + scores[j];
    }
    for (int32_t j = (int32_t)threadIdx.x; j < work.n_candidates; j += THREADS)
        sums[j] /= (float)launch.fresh.n_kv_heads;
    __syncthreads();
    list_kept(kept, sums, work);
    for (int32_t h = 0; h < launch.fresh.n_kv_heads; h++)
        copy_kept<word>(launch, work, h, kept);
}

template <typename word>
static cudaError_t launch_words(const struct select_launch *launch, cudaStream_t stream)
{
    dim3 grid((unsigned)launch->n, launch->shared ? 1 : (unsigned)launch->fresh.n_kv_heads);
    int n_bytes = launch->n_candidates_max * (launch->shared ? 3 : 2) * (int)sizeof(float);
    cudaError_t status =
        cudaFuncSetAttribute(choose<word>, cudaFuncAttributeMaxDynamicSharedMemorySize, n_bytes);
    if (status != cudaSuccess) return status;
    choose<word><<<grid, THREADS, (size_t)n_bytes, stream>>>(*launch);
    return cudaGetLastError();
}

cudaError_t launch_select_kv(const struct select_launch *launch, cudaStream_t stream)
{
    const struct fresh_kv *fresh = &launch->fresh;
    bool is_wide = fresh->head_dim % WIDE == 0 && fresh->n_cols % WIDE == 0 &&
                   fresh->key_col % WIDE == 0 && fresh->value_col % WIDE == 0;
    if (launch->n == 0 || launch->n_candidates_max == 0) return cudaSuccess;
    return is_wide ? launch_words<wide>(launch, stream) : launch_words<bf16>(launch, stream);
}
