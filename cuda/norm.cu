/* rms_norm, with the residual sum fused in. */
#include "cuda/device.cuh"
#include "cuda/kernels.cuh"

#define NORM_THREADS 256
#define NORM_PARTS   4 /* words of a thread that stay in registers: rows of up to 8,192 numbers */

struct norm_args {
    bf16 *out, *sum;
    const bf16 *x, *add;
    const float *weight;
    float epsilon;
    int32_t n_cols;
};

static __device__ float sum_of_squares(const float values[WIDE])
{
    float total = 0;
#pragma unroll
    for (int k = 0; k < WIDE; k++)
        total += values[k] * values[k];
    return total;
}

/* A block makes one row of rms_norm (backend.h); every number is read once. Memory-bound. */
static __global__ void __launch_bounds__(NORM_THREADS) norm_wide(norm_args args)
{
    int64_t row = (int64_t)blockIdx.x * args.n_cols;
    float values[NORM_PARTS][WIDE], squares = 0;
#pragma unroll
    for (int i = 0; i < NORM_PARTS; i++) {
        int col = (i * NORM_THREADS + (int)threadIdx.x) * WIDE;
        if (col >= args.n_cols) continue;
        wide_unpack(values[i], wide_load(args.x + row + col));
        if (args.add) {
            float added[WIDE];
            wide_unpack(added, wide_load(args.add + row + col));
#pragma unroll
            for (int k = 0; k < WIDE; k++)
                values[i][k] += added[k];
        }
        if (args.sum) wide_store(args.sum + row + col, wide_pack(values[i]));
        squares += sum_of_squares(values[i]);
    }
    float scale = 1.0f / sqrtf(block_sum(squares) / (float)args.n_cols + args.epsilon);
#pragma unroll
    for (int i = 0; i < NORM_PARTS; i++) {
        int col = (i * NORM_THREADS + (int)threadIdx.x) * WIDE;
        if (col >= args.n_cols) continue;
#pragma unroll
        for (int k = 0; k < WIDE; k++)
            values[i][k] = values[i][k] * scale * args.weight[col + k];
        wide_store(args.out + row + col, wide_pack(values[i]));
    }
}

/* The same for rows of any length and alignment, which are read twice. */
static __global__ void __launch_bounds__(NORM_THREADS) norm_any(norm_args args)
{
    int64_t row = (int64_t)blockIdx.x * args.n_cols;
    float squares = 0;
    for (int col = (int)threadIdx.x; col < args.n_cols; col += NORM_THREADS) {
        float value = __bfloat162float(args.x[row + col]);
        if (args.add) value += __bfloat162float(args.add[row + col]);
        squares += value * value;
    }
    float scale = 1.0f / sqrtf(block_sum(squares) / (float)args.n_cols + args.epsilon);
    for (int col = (int)threadIdx.x; col < args.n_cols; col += NORM_THREADS) {
        float value = __bfloat162float(args.x[row + col]);
        if (args.add) value += __bfloat162float(args.add[row + col]);
        if (args.sum) args.sum[row + col] = __float2bfloat16_rn(value);
        args.out[row + col] = __float2bfloat16_rn(value * scale * args.weight[col]);
    }
}

cudaError_t launch_rms_norm(const struct norm_shape *shape, bf16 *out, bf16 *sum, const bf16 *x,
                            const bf16 *add, cudaStream_t stream)
{
    if (shape->n_rows == 0) return cudaSuccess;
    norm_args args = {out, sum, x, add, shape->weight, shape->epsilon, shape->n_cols};
    bool is_wide = shape->n_cols % WIDE == 0 && shape->n_cols <= NORM_PARTS * NORM_THREADS * WIDE;
    if (is_wide) norm_wide<<<shape->n_rows, NORM_THREADS, 0, stream>>>(args);
    else norm_any<<<shape->n_rows, NORM_THREADS, 0, stream>>>(args);
    return cudaGetLastError();
}
