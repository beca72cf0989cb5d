/* Ops that look at one row at a time and do little arithmetic: embed, rope, gated_act, gather_rows,
 * and making dummy weights. All are bound by memory; rows whose length is a multiple of eight move
 * in 16-byte words. */
#include <cuda_fp16.h>

#include "backend/noise.h"
#include "cuda/device.cuh"
#include "cuda/kernels.cuh"

#define THREADS 256

static unsigned n_blocks(int64_t n_threads)
{
    return (unsigned)((n_threads + THREADS - 1) / THREADS);
}

static __device__ __forceinline__ int64_t thread_index()
{
    return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

/* ---- embed, gather_rows: copies of rows ---- */

static __device__ __forceinline__ bf16 to_bf16(bf16 value)
{
    return value;
}
static __device__ __forceinline__ bf16 to_bf16(float value)
{
    return __float2bfloat16_rn(value);
}
static __device__ __forceinline__ bf16 to_bf16(__half value)
{
    return __float2bfloat16_rn(__half2float(value));
}

/* A thread makes one number of embed (backend.h). */
template <typename stored>
static __global__ void __launch_bounds__(THREADS)
    embed_any(bf16 *out, const stored *table, embed_index index, int64_t n)
{
    int64_t at = thread_index();
    if (at >= n) return;
    int64_t row = at / index.n_cols, col = at % index.n_cols;
    int64_t id = index.canvas[index.canvas_index[row]];
    out[at] = to_bf16(table[id * index.n_cols + col]);
}

/* A thread copies eight numbers of a row of embed. */
static __global__ void __launch_bounds__(THREADS)
    embed_wide(bf16 *out, const bf16 *table, embed_index index, int64_t n)
{
    int64_t at = thread_index() * WIDE;
    if (at >= n) return;
    int64_t row = at / index.n_cols, col = at % index.n_cols;
    int64_t id = index.canvas[index.canvas_index[row]];
    wide_store(out + at, wide_load(table + id * index.n_cols + col));
}

cudaError_t launch_embed(bf16 *out, const void *table, enum dtype dtype, embed_index index,
                         cudaStream_t stream)
{
    int64_t n = (int64_t)index.n_rows * index.n_cols;
    if (dtype == DTYPE_BF16 && index.n_cols % WIDE == 0)
        embed_wide<<<n_blocks(n / WIDE), THREADS, 0, stream>>>(out, (const bf16 *)table, index, n);
    else if (dtype == DTYPE_BF16)
        embed_any<<<n_blocks(n), THREADS, 0, stream>>>(out, (const bf16 *)table, index, n);
    else if (dtype == DTYPE_F16)
        embed_any<<<n_blocks(n), THREADS, 0, stream>>>(out, (const __half *)table, index, n);
    else embed_any<<<n_blocks(n), THREADS, 0, stream>>>(out, (const float *)table, index, n);
    return cudaGetLastError();
}

/* A thread copies one number, or one word, of gather_rows (backend.h). */
template <typename word>
static __global__ void __launch_bounds__(THREADS)
    gather(word *out, const word *x, const int32_t *picked_row, int32_t n_words, int64_t n)
{
    int64_t at = thread_index();
    if (at >= n) return;
    out[at] = x[(int64_t)picked_row[at / n_words] * n_words + at % n_words];
}

cudaError_t launch_gather_rows(bf16 *out, const bf16 *x, const int32_t *picked_row, int32_t n_picks,
                               int32_t n_cols, cudaStream_t stream)
{
    int64_t n = (int64_t)n_picks * n_cols;
    if (n == 0) return cudaSuccess;
    if (n_cols % WIDE == 0)
        gather<<<n_blocks(n / WIDE), THREADS, 0, stream>>>((wide *)out, (const wide *)x, picked_row,
                                                           n_cols / WIDE, n / WIDE);
    else gather<<<n_blocks(n), THREADS, 0, stream>>>(out, x, picked_row, n_cols, n);
    return cudaGetLastError();
}

/* ---- rope ---- */

/* A thread rotates one pair of rope (backend.h), or WIDE pairs where they are aligned. */
template <int n_pairs>
static __global__ void __launch_bounds__(THREADS) rotate(bf16 *x, rope_shape shape, int64_t n)
{
    int64_t at = thread_index();
    if (at >= n) return;
    int32_t half = shape.head_dim / 2, per_head = half / n_pairs;
    int64_t row = at / (per_head * shape.n_heads);
    int32_t within = (int32_t)(at % (per_head * shape.n_heads));
    int32_t head = within / per_head, i = within % per_head * n_pairs;
    int32_t batch_row = shape.row_of ? shape.row_of[row] : (int32_t)row;
    const float *cosines = shape.table + (int64_t)shape.position[batch_row] * shape.head_dim + i;
    bf16 *low = x + row * shape.n_cols + shape.col_begin + head * shape.head_dim + i;
    float a[n_pairs], b[n_pairs];
    if constexpr (n_pairs == WIDE) {
        wide_unpack(a, wide_load(low));
        wide_unpack(b, wide_load(low + half));
    } else {
        a[0] = __bfloat162float(low[0]);
        b[0] = __bfloat162float(low[half]);
    }
#pragma unroll
    for (int k = 0; k < n_pairs; k++) {
        float c = cosines[k], s = cosines[half + k], first = a[k];
        a[k] = first * c - b[k] * s;
        b[k] = b[k] * c + first * s;
    }
    if constexpr (n_pairs == WIDE) {
        wide_store(low, wide_pack(a));
        wide_store(low + half, wide_pack(b));
    } else {
        low[0] = __float2bfloat16_rn(a[0]);
        low[half] = __float2bfloat16_rn(b[0]);
    }
}

cudaError_t launch_rope(bf16 *x, const rope_shape *shape, cudaStream_t stream)
{
    int64_t n = (int64_t)shape->n_rows * shape->n_heads * (shape->head_dim / 2);
    bool is_wide = shape->head_dim % (2 * WIDE) == 0 && shape->col_begin % WIDE == 0 &&
                   shape->n_cols % WIDE == 0;
    if (n == 0) return cudaSuccess;
    if (is_wide) rotate<WIDE><<<n_blocks(n / WIDE), THREADS, 0, stream>>>(x, *shape, n / WIDE);
    else rotate<1><<<n_blocks(n), THREADS, 0, stream>>>(x, *shape, n);
    return cudaGetLastError();
}

/* ---- gated_act ---- */

static __device__ __forceinline__ float gated(float gate, float up)
{
    return gate / (1.0f + __expf(-gate)) * up;
}

/* A thread makes eight numbers of gated_act (backend.h). */
static __global__ void __launch_bounds__(THREADS)
    gated_wide(bf16 *out, const bf16 *x, int32_t n_cols, int64_t n)
{
    int64_t at = thread_index() * WIDE;
    if (at >= n) return;
    const bf16 *gate = x + at / n_cols * 2 * n_cols + at % n_cols;
    float g[WIDE], u[WIDE];
    wide_unpack(g, wide_load(gate));
    wide_unpack(u, wide_load(gate + n_cols));
#pragma unroll
    for (int k = 0; k < WIDE; k++)
        g[k] = gated(g[k], u[k]);
    wide_store(out + at, wide_pack(g));
}

static __global__ void __launch_bounds__(THREADS)
    gated_any(bf16 *out, const bf16 *x, int32_t n_cols, int64_t n)
{
    int64_t at = thread_index();
    if (at >= n) return;
    const bf16 *gate = x + at / n_cols * 2 * n_cols + at % n_cols;
    out[at] = __float2bfloat16_rn(gated(__bfloat162float(gate[0]), __bfloat162float(gate[n_cols])));
}

cudaError_t launch_gated_act(bf16 *out, const bf16 *x, int32_t n_rows, int32_t n_cols,
                             cudaStream_t stream)
{
    int64_t n = (int64_t)n_rows * n_cols;
    if (n == 0) return cudaSuccess;
    if (n_cols % WIDE == 0)
        gated_wide<<<n_blocks(n / WIDE), THREADS, 0, stream>>>(out, x, n_cols, n);
    else gated_any<<<n_blocks(n), THREADS, 0, stream>>>(out, x, n_cols, n);
    return cudaGetLastError();
}

/* ---- weights ---- */

/* A thread makes every (grid size)th number of the sequence of struct dummy_args (backend.h). */
static __global__ void __launch_bounds__(THREADS)
    make_dummy(bf16 *out, int64_t n, uint64_t seed, uint64_t first, float scale)
{
    for (int64_t at = thread_index(); at < n; at += (int64_t)gridDim.x * THREADS)
        out[at] = __float2bfloat16_rn(noise_dummy(seed, first + (uint64_t)at, scale));
}

cudaError_t launch_dummy(bf16 *out, int64_t n, const struct dummy_args *args, cudaStream_t stream)
{
    if (n == 0) return cudaSuccess;
    int64_t blocks = (n + THREADS - 1) / THREADS;
    make_dummy<<<(unsigned)(blocks < 65536 ? blocks : 65536), THREADS, 0, stream>>>(
        out, n, args->seed, args->first, args->scale);
    return cudaGetLastError();
}

/* A thread rounds one number. */
static __global__ void __launch_bounds__(THREADS) round_all(bf16 *out, const float *in, int32_t n)
{
    int64_t at = thread_index();
    if (at < n) out[at] = __float2bfloat16_rn(in[at]);
}

cudaError_t launch_round(bf16 *out, const float *in, int32_t n, cudaStream_t stream)
{
    round_all<<<n_blocks(n), THREADS, 0, stream>>>(out, in, n);
    return cudaGetLastError();
}
