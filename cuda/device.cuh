/* What kernels share: wide loads, and sums over a warp or a block in one fixed order, so that a sum
 * depends on its terms alone. */
#ifndef CUDA_DEVICE_CUH
#define CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <stdint.h>

#define WARP            32
#define WARP_ALL        0xFFFFFFFFu
#define WIDE            8 /* bf16 numbers of a 16-byte word */
#define BLOCK_WARPS_MAX 32

/* Eight bf16 numbers, loaded and stored as one word. */
struct alignas(16) wide {
    __nv_bfloat162 pair[WIDE / 2];
};

static __device__ __forceinline__ wide wide_load(const __nv_bfloat16 *from)
{
    return *reinterpret_cast<const wide *>(from);
}

static __device__ __forceinline__ void wide_store(__nv_bfloat16 *to, wide value)
{
    *reinterpret_cast<wide *>(to) = value;
}

static __device__ __forceinline__ void wide_unpack(float out[WIDE], wide value)
{
#pragma unroll
    for (int i = 0; i < WIDE / 2; i++) {
        float2 pair = __bfloat1622float2(value.pair[i]);
        out[2 * i] = pair.x;
        out[2 * i + 1] = pair.y;
    }
}

static __device__ __forceinline__ wide wide_pack(const float in[WIDE])
{
    wide value;
#pragma unroll
    for (int i = 0; i < WIDE / 2; i++)
        value.pair[i] = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
    return value;
}

/* The sum over the warp, the same in every lane. */
static __device__ __forceinline__ float warp_sum(float value)
{
#pragma unroll
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        value += __shfl_xor_sync(WARP_ALL, value, lane);
    return value;
}

/* The sum over the block, the same in every thread; blockDim.x is a multiple of WARP. */
static __device__ __forceinline__ float block_sum(float value)
{
    __shared__ float sums[BLOCK_WARPS_MAX];
    int warp = (int)threadIdx.x / WARP, n_warps = (int)blockDim.x / WARP;
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) sums[warp] = value;
    __syncthreads();
    float total = 0;
    for (int i = 0; i < n_warps; i++)
        total += sums[i];
    return total;
}

/* The sum of whole numbers over the threads before this one; *total over all. */
template <typename number>
static __device__ __forceinline__ number block_scan(number value, number *total)
{
    __shared__ number sums[BLOCK_WARPS_MAX];
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int n_warps = (int)blockDim.x / WARP;
    number sum = value, before = 0, all = 0;
#pragma unroll
    for (int step = 1; step < WARP; step *= 2) {
        number other = __shfl_up_sync(WARP_ALL, sum, step);
        if (lane >= step) sum += other;
    }
    __syncthreads();
    if (lane == WARP - 1) sums[warp] = sum;
    __syncthreads();
    for (int i = 0; i < n_warps; i++) {
        before += i < warp ? sums[i] : 0;
        all += sums[i];
    }
    *total = all;
    return before + sum - value;
}

#endif
