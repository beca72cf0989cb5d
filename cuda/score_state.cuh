/* The running statistics of a row of score between the kernels that feed and end its passes. */
#ifndef CUDA_SCORE_STATE_CUH
#define CUDA_SCORE_STATE_CUH

#include <float.h>
#include <limits.h>

#include "backend/pick.h"
#include "cuda/device.cuh"
#include "cuda/kernels.cuh"

#define MASS_ONE 1099511627776.0f /* 2^40: the mass of the best id */

enum pass { PASS_STATISTICS, PASS_TOP_P, PASS_TOP_K, PASS_TIES, PASS_LAST, PASS_DONE };

/* sum of exp((l - max) / scale) */
struct mass_sum {
    float max;
    double sum;
};

/* struct pick_state of backend/pick.h; masses of `cut` in whole numbers. */
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
    double limit, fraction;
    uint64_t before;
    uint64_t weight[CUT_N_BINS];
};

static __device__ __forceinline__ bool contains(const int32_t *ids, int32_t n, int32_t id)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == id) return true;
    return false;
}

/* 1 / scale as a float that is no infinity, so that 0 times it is 0. */
static __device__ __forceinline__ float inverse_of(double scale)
{
    return fminf((float)(1 / scale), FLT_MAX);
}

/* exp(z - largest z) */
struct masses {
    float best, inverse;
};

static __device__ __forceinline__ masses masses_of(const score_state &state)
{
    return {state.best, inverse_of(state.scale)};
}

static __device__ __forceinline__ float mass(const masses &of, float l)
{
    return expf((l - of.best) * of.inverse);
}

static __device__ __forceinline__ uint64_t whole_mass(const masses &of, float l)
{
    return (uint64_t)(mass(of, l) * MASS_ONE);
}

static __device__ __forceinline__ bool stays(const score_state &state, int32_t id, float l)
{
    uint32_t key = cut_key(l);
    return key > state.cut_key || (key == state.cut_key && id <= state.cut_id);
}

#endif
