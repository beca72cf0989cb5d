/* Kernels for processors with AVX-512 (F, BW, DQ, VL): vectors of 16, tiles of 12 x 32 sums in 24
 * of the 32 registers. */
#include "backend/cpu_kernels.h"

#if defined(__AVX512F__)

#include <immintrin.h>

#define LANES     16
#define TILE_ROWS 12

typedef float vf __attribute__((vector_size(64)));

static inline vf vf_splat(float value)
{
    return (vf)_mm512_set1_ps(value);
}

static inline vf vf_fma(vf a, vf b, vf c)
{
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

#include "backend/cpu_kernels_body.h"

const struct cpu_kernels cpu_kernels_avx512 = CPU_KERNELS_TABLE("avx512");

#else

const struct cpu_kernels cpu_kernels_avx512 = {.name = "avx512"};

#endif
