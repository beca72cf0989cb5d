/* Kernels for any processor: vectors of 4, which every 64-bit target has in some form, and multiply
 * then add, since not every one can fuse them. */
#include "backend/cpu_kernels.h"

#define LANES     4
#define TILE_ROWS 6

typedef float vf __attribute__((vector_size(16)));

static inline vf vf_splat(float value)
{
    return (vf){value, value, value, value};
}

static inline vf vf_fma(vf a, vf b, vf c)
{
    return a * b + c;
}

#include "backend/cpu_kernels_body.h"

const struct cpu_kernels cpu_kernels_generic = CPU_KERNELS_TABLE("generic");
