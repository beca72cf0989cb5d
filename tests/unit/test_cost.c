/* The cost model's formulas on numbers that can be checked by hand, and bounds that bound. */
#include <criterion/criterion.h>

#include "plan/cost.h"

/* 1 layer of hidden 4: 2 heads of 2, 1 KV head, ffn 8: (2x4 + 2x2 + 3x8) x 4 = 144 weights. */
static const struct cost_shape shape = {.n_layers = 1,
                                        .hidden = 4,
                                        .n_heads = 2,
                                        .n_kv_heads = 1,
                                        .head_dim = 2,
                                        .ffn = 8,
                                        .n_vocab = 10,
                                        .weight_element_bytes = 2,
                                        .kv_element_bytes = 2};

static struct cost_profile make_profile(void)
{
    return (struct cost_profile){.base_ns = 100,
                                 .bytes_per_s = 1e9,
                                 .attention_flops_per_s = 1e9,
                                 .n_rates = 2,
                                 .rates = {{10, 1e9}, {30, 3e9}}};
}

Test(cost, formulas_are_those_of_the_header)
{
    struct cost_profile profile = make_profile();
    struct cost_model model;
    cost_init(&model, &profile, &shape);
    cr_assert_float_eq(model.linear_flops_per_row, 288, 1e-9);
    cr_assert_float_eq(model.linear_bytes, 288, 1e-9);
    cr_assert_float_eq(model.slot_bytes, 8, 1e-9);
    cr_assert_float_eq(model.attention_flops_per_row_key, 16, 1e-9);
    /* 20 rows at 2 GFLOP/s: 2880 ns > 288 ns; 3 picks of 80 at 1 GFLOP/s: 240 > 80; 50 x 16 > 8 */
    struct iteration_load load = {.n_rows = 20, .n_picks = 3, .row_keys = 50, .cached_rows = 1};
    cr_assert_eq(cost_iteration_ns(&model, &load), 100 + 2880 + 240 + 800);
    cr_assert_eq(cost_iteration_ns(&model, &(struct iteration_load){0}), 0);
}

Test(cost, few_rows_cost_the_weights)
{
    struct cost_profile profile = make_profile();
    struct cost_model model;
    profile.bytes_per_s = 1e8;
    cost_init(&model, &profile, &shape);
    struct iteration_load load = {.n_rows = 1, .n_picks = 0};
    cr_assert_eq(cost_iteration_ns(&model, &load), 100 + 2880);
    int32_t knee = cost_knee_rows(&model);
    cr_assert(knee > 10 && knee < 40, "%d", knee);
    load.n_rows = knee;
    cr_assert_gt(cost_iteration_ns(&model, &load), 100 + 2880);
}

Test(cost, the_knee_is_behind_the_last_edge_of_a_tile)
{
    struct cost_profile profile = make_profile();
    struct cost_model model;
    profile.n_rates = 4;
    profile.rates[0] = (struct cost_rate){.n_rows = 64, .flops_per_s = 64e9};
    profile.rates[1] = (struct cost_rate){.n_rows = 65, .flops_per_s = 32e9};
    profile.rates[2] = (struct cost_rate){.n_rows = 128, .flops_per_s = 200e9};
    profile.rates[3] = (struct cost_rate){.n_rows = 4096, .flops_per_s = 200e9};
    cost_init(&model, &profile, &shape);
    /* Reading takes as long as 150 rows at the last rate, 48 at the first: crossed at 48, back
     * below 128, and for good at 150. */
    model.profile.bytes_per_s = model.linear_bytes / (150 * model.linear_flops_per_row / 200e9);
    int32_t knee = cost_knee_rows(&model);
    struct iteration_load load = {.n_rows = knee};
    uint64_t read_ns = cost_iteration_ns(&model, &(struct iteration_load){.n_rows = 1});
    for (; load.n_rows < 5000; load.n_rows++)
        cr_assert_gt(cost_iteration_ns(&model, &load), read_ns, "%d", (int)load.n_rows);
    cr_assert(knee >= 150 && knee <= 151, "%d", knee);
}

Test(cost, more_work_never_takes_less_time)
{
    struct cost_profile profile = make_profile();
    struct cost_model model;
    profile.n_rates = 1;
    cost_init(&model, &profile, &shape);
    uint64_t last = 0;
    for (int32_t n = 1; n < 200; n++) {
        struct iteration_load load = {.n_rows = n, .n_picks = n / 2, .row_keys = n * n};
        uint64_t ns = cost_iteration_ns(&model, &load);
        cr_assert_geq(ns, last);
        last = ns;
    }
}

Test(cost, the_bound_with_memory_is_the_larger_one)
{
    struct cost_profile profile = make_profile();
    struct cost_model model;
    cost_init(&model, &profile, &shape);
    struct cost_totals totals = {.load = {.n_rows = 1000, .n_picks = 100, .row_keys = 10000},
                                 .longest_chain = 10,
                                 .slot_steps = 4000,
                                 .n_steps = 80};
    uint64_t plain = cost_bound_ns(&model, &totals);
    cr_assert_eq(cost_bound_memory_ns(&model, &totals, 400, 100), plain);
    cr_assert_gt(cost_bound_memory_ns(&model, &totals, 40, 100), plain);
    cr_assert_gt(cost_bound_memory_ns(&model, &totals, 400, 20), plain);
}
