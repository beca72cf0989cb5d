/* Vectors of LANES floats and what the kernels need of them. The including file defines LANES, the
 * type vf, vf_splat and vf_fma for its instruction set; the rest is the compiler's vector
 * arithmetic, the same text for all. Included once per instruction set; private to cpu_kernels_*.c.
 */
#ifndef BACKEND_CPU_KERNELS_VECTOR_H
#define BACKEND_CPU_KERNELS_VECTOR_H

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));
typedef float vf_half __attribute__((vector_size(LANES * 2)));
typedef double vd __attribute__((vector_size(LANES * 4)));

INLINE vf vf_load(const float *from)
{
    vf v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void vf_store(float *to, vf v)
{
    memcpy(to, &v, sizeof v);
}

/* The first n lanes, 0 < n < LANES; the others hold `rest`. */
INLINE vf vf_load_some(const float *from, int32_t n, float rest)
{
    vf v = vf_splat(rest);
    memcpy(&v, from, (size_t)n * sizeof *from);
    return v;
}

INLINE void vf_store_some(float *to, vf v, int32_t n)
{
    memcpy(to, &v, (size_t)n * sizeof *to);
}

INLINE vf vf_select(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* Keeps b where a is NaN. */
INLINE vf vf_max(vf a, vf b)
{
    return vf_select(a > b, a, b);
}

INLINE float vf_largest_lane(vf v)
{
    float largest = v[0];
    for (int i = 1; i < LANES; i++)
        largest = v[i] > largest ? v[i] : largest;
    return largest;
}

/* Lanes added in a fixed order: halves onto each other. */
INLINE float vf_sum_lanes(vf v)
{
    float lanes[LANES];
    memcpy(lanes, &v, sizeof lanes);
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

/* Both halves of v in double, added lane by lane. */
INLINE vd vf_fold(vf v)
{
    vf_half halves[2];
    memcpy(halves, &v, sizeof halves);
    return __builtin_convertvector(halves[0], vd) + __builtin_convertvector(halves[1], vd);
}

/* The same for the squares, which are exact in double. */
INLINE vd vf_fold_squares(vf v)
{
    vf_half halves[2];
    memcpy(halves, &v, sizeof halves);
    vd low = __builtin_convertvector(halves[0], vd), high = __builtin_convertvector(halves[1], vd);
    return low * low + high * high;
}

INLINE double vd_sum_lanes(vd v)
{
    double sum = 0;
    for (int i = 0; i < LANES / 2; i++)
        sum += v[i];
    return sum;
}

/* 2^n for whole n in [-126, 127], by its bits. */
INLINE vf vf_power_of_two(vi n)
{
    return (vf)((n + 127) << 23);
}

/* e^x within 2 ulp: x = n ln 2 + r, |r| <= ln 2 / 2; e^r by a polynomial (Cephes). 2^n comes as two
 * factors, so that results go down through the denormals to 0 and up to inf. NaN gives NaN. */
INLINE vf vf_exp(vf x)
{
    const vf lowest = vf_splat(-104), highest = vf_splat(89);
    vf inside = vf_select(x > lowest, x, lowest); /* NaN becomes lowest, so that n stays whole */
    inside = vf_select(inside < highest, inside, highest);

    /* Adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the mantissa. */
    const vf round = vf_splat(12582912);
    vf shifted = vf_fma(inside, vf_splat(1.44269504F), round);
    vf n = shifted - round;
    vf r = vf_fma(n, vf_splat(-0.693359375F), inside);
    r = vf_fma(n, vf_splat(2.12194440e-4F), r);

    vf p = vf_splat(1.9875691500e-4F);
    p = vf_fma(p, r, vf_splat(1.3981999507e-3F));
    p = vf_fma(p, r, vf_splat(8.3334519073e-3F));
    p = vf_fma(p, r, vf_splat(4.1665795894e-2F));
    p = vf_fma(p, r, vf_splat(1.6666665459e-1F));
    p = vf_fma(p, r, vf_splat(5.0000001201e-1F));
    p = vf_fma(p, r * r, r) + 1;

    vi whole = (vi)shifted - (vi)round, half = whole >> 1;
    vf power = p * vf_power_of_two(half) * vf_power_of_two(whole - half);
    return vf_select(x == x, power, x);
}

#endif
