/* Kernels for processors with AVX2 and FMA: vectors of 8, tiles of 6 x 16 sums in 12 of the 16
 * registers. */
#include "backend/cpu_kernels.h"

#if defined(__AVX2__) && defined(__FMA__)

#include <immintrin.h>

#define LANES     8
#define TILE_ROWS 6

typedef float vf __attribute__((vector_size(32)));

static inline vf vf_splat(float value)
{
    return (vf)_mm256_set1_ps(value);
}

static inline vf vf_fma(vf a, vf b, vf c)
{
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

#include "backend/cpu_kernels_body.h"

const struct cpu_kernels cpu_kernels_avx2 = CPU_KERNELS_TABLE("avx2");

#else

const struct cpu_kernels cpu_kernels_avx2 = {.name = "avx2"};

#endif
