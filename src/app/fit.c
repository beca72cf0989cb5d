/* Coordinate descent on the logarithms of the parameters: few of them, a cheap function, no
 * derivatives across its maxima. */
#include "app/fit.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "app/figures.h"

enum { OTHERS = 3, PARAMETERS_MAX = OTHERS + COST_RATES_MAX, SWEEPS_MAX = 400 };

#define STEP_FIRST 0.7 /* of a logarithm: a factor of two */
#define STEP_LAST  0.002
#define SMOOTHNESS 0.003 /* what a bend of the rates costs: decides where no sample does */

struct search {
    struct cost_profile profile;
    const struct cost_shape *shape;
    const struct fit_sample *samples;
    int32_t n_samples;
    int32_t n_parameters;
    double logs[PARAMETERS_MAX]; /* base, bandwidth, attention rate, rates */
};

static void apply(struct search *search)
{
    assert(search->n_parameters == OTHERS + search->profile.n_rates);
    search->profile.base_ns = exp(search->logs[0]);
    search->profile.bytes_per_s = exp(search->logs[1]);
    search->profile.attention_flops_per_s = exp(search->logs[2]);
    for (int32_t i = 0; i < search->profile.n_rates; i++)
        search->profile.rates[i].flops_per_s = exp(search->logs[OTHERS + i]);
}

/* Sum of squares of the logarithms of predicted / measured, plus the bends. */
static double loss(struct search *search)
{
    struct cost_model model;
    double sum = 0;
    apply(search);
    cost_init(&model, &search->profile, search->shape);
    for (int32_t i = 0; i < search->n_samples; i++) {
        const struct fit_sample *sample = &search->samples[i];
        if (sample->is_held_out) continue;
        double predicted_ns = (double)cost_iteration_ns(&model, &sample->load);
        double error = log(fmax(predicted_ns, 1) / sample->measured_ns);
        sum += error * error;
    }
    assert(isfinite(sum));
    for (int32_t i = OTHERS + 1; i + 1 < search->n_parameters; i++) {
        double bend = search->logs[i - 1] - 2 * search->logs[i] + search->logs[i + 1];
        sum += SMOOTHNESS * bend * bend;
    }
    return sum;
}

static void descend(struct search *search)
{
    double best = loss(search), step = STEP_FIRST;
    assert(search->n_parameters > OTHERS);
    for (int sweep = 0; sweep < SWEEPS_MAX && step > STEP_LAST; sweep++) {
        double before = best;
        for (int32_t i = 0; i < search->n_parameters; i++) {
            double kept = search->logs[i];
            for (int side = -1; side <= 1; side += 2) {
                search->logs[i] = kept + side * step;
                double now = loss(search);
                if (now < best) {
                    best = now;
                    break;
                }
                search->logs[i] = kept;
            }
        }
        if (best > before * 0.999) step *= 0.6;
    }
    apply(search);
}

void fit_profile(struct cost_profile *profile, const struct cost_shape *shape,
                 const struct fit_sample *samples, int32_t n_samples)
{
    struct search search = {
        .profile = *profile, .shape = shape, .samples = samples, .n_samples = n_samples};
    struct cost_model model;
    int64_t n_rows_max = 1;
    double least_ns = INFINITY, rate = 1;
    cost_init(&model, profile, shape);
    assert(n_samples > 0);
    for (int32_t i = 0; i < n_samples; i++) {
        const struct fit_sample *sample = &samples[i];
        double flops = model.linear_flops_per_row * (double)sample->load.n_rows;
        if (sample->is_held_out) continue;
        if (sample->load.n_rows > n_rows_max) n_rows_max = sample->load.n_rows;
        least_ns = fmin(least_ns, sample->measured_ns);
        rate = fmax(rate, flops / sample->measured_ns * 1e9);
    }
    int32_t n = 0;
    for (int64_t rows = 1; n < COST_RATES_MAX && rows < 2 * n_rows_max; rows *= 2)
        search.profile.rates[n++].n_rows = (int32_t)rows;
    search.profile.n_rates = n;
    search.n_parameters = OTHERS + n;
    search.logs[0] = log(least_ns / 3);
    search.logs[1] = log(model.linear_bytes / least_ns * 3e9);
    search.logs[2] = log(rate / 2);
    for (int32_t i = 0; i < n; i++)
        search.logs[OTHERS + i] = log(rate) - 0.35 * (n - 1 - i);
    descend(&search);
    *profile = search.profile;
}

struct fit_errors fit_errors(const struct cost_model *model, const struct fit_sample *samples,
                             int32_t n_samples, bool held_out)
{
    struct fit_errors errors = {0};
    double *values = calloc((size_t)n_samples + 1, sizeof *values);
    assert(values != NULL);
    for (int32_t i = 0; i < n_samples; i++) {
        if (samples[i].is_held_out != held_out) continue;
        double predicted_ns = (double)cost_iteration_ns(model, &samples[i].load);
        values[errors.n++] = fabs(predicted_ns / samples[i].measured_ns - 1);
    }
    struct figures_spread spread = {0};
    if (errors.n > 0) figures_spread(&spread, values, errors.n);
    errors.median = spread.p50;
    errors.most = spread.most;
    free(values);
    return errors;
}
