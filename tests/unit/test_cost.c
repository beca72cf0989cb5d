/* The cost model's formulas on numbers that can be checked by hand, and bounds that bound. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

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
    cr_assert_float_eq(cost_flops(&model, &load), 20 * 288 + 3 * 80 + 50 * 16, 1e-9);
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
    model.profile.bytes_per_s = 1e-12;
    cr_assert_eq(cost_knee_rows(&model), COST_KNEE_ROWS_MAX);
    cr_assert_eq(cost_iteration_ns(&model, &load), (uint64_t)COST_NS_MAX);
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

/* Rates that fall in places, as at the edges of tiles. */
static void draw_profile(struct cost_profile *profile)
{
    *profile = make_profile();
    profile->base_ns = rand() % 1000;
    profile->bytes_per_s = 1e7 * (1 + rand() % 100);
    profile->n_rates = 1 + rand() % 6;
    int32_t n_rows = 0;
    for (int32_t i = 0; i < profile->n_rates; i++) {
        n_rows += 1 + rand() % 40;
        profile->rates[i] = (struct cost_rate){n_rows, 1e8 * (1 + rand() % 50)};
    }
}

Test(cost, no_way_to_share_out_the_work_beats_the_bound)
{
    double closest = 1e9;
    for (unsigned seed = 1; seed <= 2000; seed++) {
        struct cost_profile profile;
        struct cost_model model;
        struct cost_totals totals = {0};
        uint64_t sum_ns = 0;
        srand(seed);
        draw_profile(&profile);
        cost_init(&model, &profile, &shape);
        int32_t n_rows_max = 1 + rand() % 150, few = 1 + rand() % n_rows_max, n = 1 + rand() % 30;
        for (int32_t i = 0; i < n; i++) {
            int32_t rows = rand() % 2 ? 1 + rand() % n_rows_max : few;
            struct iteration_load load = {.n_rows = rows,
                                          .n_picks = 1 + rand() % rows,
                                          .row_keys = (int64_t)rows * rows,
                                          .cached_rows = rows};
            sum_ns += cost_iteration_ns(&model, &load);
            totals.load.n_rows += load.n_rows;
            totals.load.n_picks += load.n_picks;
            totals.load.row_keys += load.row_keys;
            totals.load.cached_rows += load.cached_rows;
        }
        totals.slot_steps = 10 * n;
        totals.longest_chain = 1;
        totals.n_steps = n;
        uint64_t bound_ns = cost_bound_memory_ns(&model, &totals, 10, n_rows_max);
        cr_assert_geq(sum_ns + (uint64_t)n, bound_ns, "seed %u", seed); /* each is rounded */
        closest = fmin(closest, (double)sum_ns / (double)bound_ns);
    }
    cr_assert_lt(closest, 1.01);
}

Test(cost, few_rows_an_iteration_are_slow_in_the_bound_too)
{
    struct cost_profile profile = make_profile();
    struct cost_model model;
    profile.rates[0] = (struct cost_rate){1, 1e8};
    profile.rates[1] = (struct cost_rate){100, 1e10};
    cost_init(&model, &profile, &shape);
    /* 1000 rows in 100 iterations: 10 rows at 1e9 take as long as 1 at 1e8. */
    struct cost_totals totals = {.load = {.n_rows = 1000, .n_picks = 100},
                                 .longest_chain = 1,
                                 .slot_steps = 100,
                                 .n_steps = 100};
    struct iteration_load load = {.n_rows = 10, .n_picks = 1};
    double even = 100 * (double)cost_iteration_ns(&model, &load);
    double bound = (double)cost_bound_memory_ns(&model, &totals, 1, 100);
    cr_assert_float_eq(bound / even, 1, 0.05, "%g", bound / even);
}

Test(cost, rows_that_reach_a_share_of_the_best_throughput)
{
    struct cost_profile profile = make_profile();
    struct cost_model model;
    cost_init(&model, &profile, &shape);
    struct iteration_load most = {.n_rows = 30};
    double best = 30 / (double)cost_iteration_ns(&model, &most);
    cr_assert_eq(cost_rows_reaching(&model, 1), 30);
    for (int32_t tenths = 1; tenths < 10; tenths++) {
        int32_t n = cost_rows_reaching(&model, tenths / 10.0);
        for (int32_t i = 1; i <= n; i++) {
            struct iteration_load load = {.n_rows = i};
            double share = i / (double)cost_iteration_ns(&model, &load) / best;
            cr_assert_eq(share >= tenths / 10.0, i == n, "%d tenths, %d rows", tenths, i);
        }
    }
}
