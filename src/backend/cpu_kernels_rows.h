/* Loops over one row: norm, rope, gate, dot product, softmax statistics. Lanes and tails are the
 * same for every row of a shape, so a row's bits depend on nothing but the row. Included once per
 * instruction set; private to cpu_kernels_*.c. */
#ifndef BACKEND_CPU_KERNELS_ROWS_H
#define BACKEND_CPU_KERNELS_ROWS_H

#include "backend/cpu_kernels_vector.h"

static float row_dot(const float *a, const float *b, int32_t n)
{
    vf sum[2] = {vf_splat(0), vf_splat(0)};
    int32_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        sum[0] = vf_fma(vf_load(a + i), vf_load(b + i), sum[0]);
        sum[1] = vf_fma(vf_load(a + i + LANES), vf_load(b + i + LANES), sum[1]);
    }
    for (; i < n; i += LANES) {
        int32_t rest = n - i < LANES ? n - i : LANES;
        sum[0] = vf_fma(vf_load_some(a + i, rest, 0), vf_load_some(b + i, rest, 0), sum[0]);
    }
    return vf_sum_lanes(sum[0] + sum[1]);
}

static double row_squares(const float *x, int32_t n)
{
    vd sum = vf_fold(vf_splat(0));
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum += vf_fold_squares(vf_load(x + i));
    if (i < n) sum += vf_fold_squares(vf_load_some(x + i, n - i, 0));
    return vd_sum_lanes(sum);
}

static void row_normalize(const struct cpu_norm *norm)
{
    assert(norm->n > 0);
    const float *sum = norm->x;
    if (norm->add) {
        /* Without a place for the sum, out holds it until the weights are applied. */
        float *target = norm->sum ? norm->sum : norm->out;
        for (int32_t i = 0; i < norm->n; i++)
            target[i] = norm->x[i] + norm->add[i];
        sum = target;
    } else if (norm->sum && norm->sum != norm->x) {
        memcpy(norm->sum, norm->x, (size_t)norm->n * sizeof *norm->x);
    }
    double mean = row_squares(sum, norm->n) / norm->n;
    double factor = 1 / sqrt(mean + (double)norm->epsilon);
    for (int32_t i = 0; i < norm->n; i++)
        norm->out[i] = (float)(sum[i] * factor * norm->weight[i]);
}

static void row_rotate(float *x, const float *table, int32_t half)
{
    for (int32_t i = 0; i < half; i++) {
        float low = x[i], high = x[i + half], c = table[i], s = table[i + half];
        x[i] = low * c - high * s;
        x[i + half] = high * c + low * s;
    }
}

static void row_activate(float *out, const float *gate, const float *up, int32_t n)
{
    for (int32_t i = 0; i < n; i += LANES) {
        int32_t rest = n - i < LANES ? n - i : LANES;
        vf g = rest == LANES ? vf_load(gate + i) : vf_load_some(gate + i, rest, 0);
        vf u = rest == LANES ? vf_load(up + i) : vf_load_some(up + i, rest, 0);
        vf silu = g / (1 + vf_exp(-g)) * u;
        if (rest == LANES) vf_store(out + i, silu);
        else vf_store_some(out + i, silu, rest);
    }
}

static float row_largest(const float *l, int32_t n, bool *is_broken)
{
    vf largest = vf_splat(-INFINITY);
    vi is_finite = (vi)vf_splat(0) == 0; /* or -inf, which is a suppressed id */
    for (int32_t i = 0; i < n; i += LANES) {
        int32_t rest = n - i < LANES ? n - i : LANES;
        vf v = rest == LANES ? vf_load(l + i) : vf_load_some(l + i, rest, -INFINITY);
        is_finite &= v <= FLT_MAX;
        largest = vf_max(v, largest);
    }
    *is_broken = false;
    for (int i = 0; i < LANES; i++)
        *is_broken |= is_finite[i] == 0;
    return vf_largest_lane(largest);
}

static void row_exp_all(float *out, const float *l, int32_t n, float max, float factor)
{
    for (int32_t i = 0; i < n; i += LANES) {
        int32_t rest = n - i < LANES ? n - i : LANES;
        vf v = rest == LANES ? vf_load(l + i) : vf_load_some(l + i, rest, -INFINITY);
        vf power = vf_exp((v - max) * factor);
        if (rest == LANES) vf_store(out + i, power);
        else vf_store_some(out + i, power, rest);
    }
}

static double row_sum_exp(const float *l, int32_t n, float max, float factor)
{
    vd sum = vf_fold(vf_splat(0));
    for (int32_t i = 0; i < n; i += LANES) {
        int32_t rest = n - i < LANES ? n - i : LANES;
        vf v = rest == LANES ? vf_load(l + i) : vf_load_some(l + i, rest, -INFINITY);
        sum += vf_fold(vf_exp((v - max) * factor));
    }
    return vd_sum_lanes(sum);
}

/* One block of a running softmax: l [n] <- exp(scale * (l - max)) with max the largest l so far;
 * *sum follows. Differences are scaled, not values, so the largest weighs exactly 1. Returns what
 * earlier weights must be multiplied with for the new max. */
static float row_soften(float *l, int32_t n, float scale, float *max, double *sum)
{
    assert(n > 0);
    assert(scale > 0);
    vf largest = vf_splat(*max);
    for (int32_t i = 0; i < n; i += LANES) {
        int32_t rest = n - i < LANES ? n - i : LANES;
        vf v = rest == LANES ? vf_load(l + i) : vf_load_some(l + i, rest, -INFINITY);
        largest = vf_max(v, largest);
    }
    vf new_max = vf_splat(vf_largest_lane(largest));
    vf total = vf_splat(0);
    for (int32_t i = 0; i < n; i += LANES) {
        int32_t rest = n - i < LANES ? n - i : LANES;
        vf v = rest == LANES ? vf_load(l + i) : vf_load_some(l + i, rest, -INFINITY);
        vf p = vf_exp((v - new_max) * scale);
        total += p;
        if (rest == LANES) vf_store(l + i, p);
        else vf_store_some(l + i, p, rest);
    }
    float rescale = vf_exp((vf_splat(*max) - new_max) * scale)[0];
    *max = new_max[0];
    *sum = *sum * (double)rescale + vd_sum_lanes(vf_fold(total));
    return rescale;
}

#endif
