/* app/fit: the search finds the machine that made the samples, and tells how far off it is. */
#include <criterion/criterion.h>
#include <math.h>

#include "app/fit.h"

enum { SAMPLES_MAX = 200 };

static const struct cost_shape shape = {.n_layers = 4,
                                        .hidden = 256,
                                        .n_heads = 4,
                                        .n_kv_heads = 4,
                                        .head_dim = 64,
                                        .ffn = 688,
                                        .n_vocab = 5000,
                                        .weight_element_bytes = 2,
                                        .kv_element_bytes = 4};
static struct fit_sample samples[SAMPLES_MAX];
static int32_t n_samples;

/* A machine that the search does not know. */
static struct cost_profile machine(void)
{
    return (struct cost_profile){.base_ns = 40000,
                                 .bytes_per_s = 2e10,
                                 .attention_flops_per_s = 3e10,
                                 .n_rates = 3,
                                 .rates = {{1, 2e9}, {64, 6e10}, {1024, 9e10}},
                                 .memory_bytes = 1u << 30};
}

static void add(int64_t n_rows, int64_t n_keys, bool is_held_out)
{
    struct cost_profile profile = machine();
    struct cost_model model;
    struct fit_sample *sample = &samples[n_samples++];
    cost_init(&model, &profile, &shape);
    *sample = (struct fit_sample){
        .load = {.n_rows = n_rows, .n_picks = (n_rows + 3) / 4, .row_keys = n_rows * n_keys},
        .is_held_out = is_held_out};
    sample->measured_ns = (double)cost_iteration_ns(&model, &sample->load);
}

static void make_samples(void)
{
    n_samples = 0;
    for (int64_t n_rows = 1; n_rows <= 1024; n_rows *= 2) {
        add(n_rows, 16, false);
        add(n_rows, 600, false);
        add(n_rows + n_rows / 2, 100, true);
    }
}

Test(fit, predicts_iterations_that_it_was_not_shown)
{
    struct cost_profile profile = {
        .n_rates = 1, .rates = {{1, 1}}, .bytes_per_s = 1, .attention_flops_per_s = 1};
    struct cost_model model;
    make_samples();
    fit_profile(&profile, &shape, samples, n_samples);
    cost_init(&model, &profile, &shape);
    struct fit_errors shown = fit_errors(&model, samples, n_samples, false);
    struct fit_errors others = fit_errors(&model, samples, n_samples, true);
    cr_assert_eq(shown.n, 22);
    cr_assert_eq(others.n, 11);
    cr_assert_lt(shown.median, 0.02, "%g", shown.median);
    cr_assert_lt(others.median, 0.05, "%g", others.median);
    cr_assert_lt(others.most, 0.25, "%g", others.most);
}

Test(fit, finds_the_rate_of_attention_and_of_many_rows)
{
    struct cost_profile profile = {
        .n_rates = 1, .rates = {{1, 1}}, .bytes_per_s = 1, .attention_flops_per_s = 1};
    make_samples();
    fit_profile(&profile, &shape, samples, n_samples);
    double best = profile.rates[profile.n_rates - 1].flops_per_s;
    cr_assert_eq(profile.rates[0].n_rows, 1);
    cr_assert_geq(profile.rates[profile.n_rates - 1].n_rows, 1024);
    cr_assert_float_eq(profile.attention_flops_per_s, 3e10, 0.1 * 3e10);
    cr_assert_float_eq(best, 9e10, 0.1 * 9e10, "%g", best);
}

Test(fit, errors_are_those_of_the_asked_half)
{
    struct cost_profile profile = machine();
    struct cost_model model;
    make_samples();
    cost_init(&model, &profile, &shape);
    samples[2].measured_ns *= 2; /* held out: predicted at half of it */
    struct fit_errors shown = fit_errors(&model, samples, n_samples, false);
    struct fit_errors others = fit_errors(&model, samples, n_samples, true);
    cr_assert_eq(shown.most, 0);
    cr_assert_float_eq(others.most, 0.5, 1e-3);
    cr_assert_eq(others.median, 0);
    cr_assert_eq(fit_errors(&model, samples, 2, true).n, 0);
}

Test(fit, noise_moves_the_figures_by_no_more_than_itself)
{
    struct cost_profile profile = {
        .n_rates = 1, .rates = {{1, 1}}, .bytes_per_s = 1, .attention_flops_per_s = 1};
    struct cost_model model;
    make_samples();
    for (int32_t i = 0; i < n_samples; i++)
        samples[i].measured_ns *= i % 3 == 0 ? 1.1 : i % 3 == 1 ? 0.9 : 1.0;
    fit_profile(&profile, &shape, samples, n_samples);
    cost_init(&model, &profile, &shape);
    cr_assert_lt(fit_errors(&model, samples, n_samples, false).median, 0.1);
    cr_assert_lt(fit_errors(&model, samples, n_samples, true).median, 0.15);
}

Test(fit, a_single_sample_is_met)
{
    struct cost_profile profile = {
        .n_rates = 1, .rates = {{1, 1}}, .bytes_per_s = 1, .attention_flops_per_s = 1};
    struct cost_model model;
    n_samples = 0;
    add(100, 50, false);
    fit_profile(&profile, &shape, samples, n_samples);
    cost_init(&model, &profile, &shape);
    cr_assert_lt(fit_errors(&model, samples, n_samples, false).most, 0.02);
    cr_assert_gt(profile.bytes_per_s, 0);
    cr_assert_gt(profile.attention_flops_per_s, 0);
}

Test(fit, what_is_held_out_changes_nothing)
{
    struct cost_profile first = {
        .n_rates = 1, .rates = {{1, 1}}, .bytes_per_s = 1, .attention_flops_per_s = 1};
    struct cost_profile second = first;
    make_samples();
    fit_profile(&first, &shape, samples, n_samples);
    for (int32_t i = 0; i < n_samples; i++)
        if (samples[i].is_held_out) samples[i].measured_ns *= 100;
    fit_profile(&second, &shape, samples, n_samples);
    cr_assert_eq(first.n_rates, second.n_rates);
    cr_assert_eq(first.base_ns, second.base_ns);
    for (int32_t i = 0; i < first.n_rates; i++)
        cr_assert_eq(first.rates[i].flops_per_s, second.rates[i].flops_per_s);
}
