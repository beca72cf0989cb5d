/* The byte formulas on a shape that can be worked out by hand, and the refusal's words. */
#include <criterion/criterion.h>
#include <string.h>

#include "plan/memory.h"

static const struct memory_shape SHAPE = {.n_layers = 2,
                                          .hidden = 64,
                                          .n_heads = 4,
                                          .n_kv_heads = 2,
                                          .head_dim = 16,
                                          .ffn = 128,
                                          .n_positions = 256,
                                          .weight_bytes = 1000,
                                          .backend_bytes = 64,
                                          .n_rows_max = 32,
                                          .n_picks_max = 32,
                                          .pick_bytes = 16,
                                          .n_cells_max = 1024,
                                          .n_slots = 10,
                                          .element_bytes = 4,
                                          .kv_element_bytes = 4};

Test(memory, regions_follow_their_formulas)
{
    struct memory_plan plan;
    memory_size(&plan, &SHAPE);
    cr_assert_eq(plan.weights_bytes, 1000);
    cr_assert_eq(plan.cache_bytes, 2 * 10 * 2 * 2 * 16 * 4);
    cr_assert_eq(plan.activation_bytes, 4 * 32 * 64 * 4 + 32 * 3 * 128 * 4);
    cr_assert_eq(plan.score_bytes, 32 * 16);
    cr_assert_eq(plan.canvas_bytes, 1024 * 4);
    cr_assert_eq(plan.backend_bytes, 64);
    cr_assert_eq(plan.total_bytes, plan.weights_bytes + plan.cache_bytes + plan.activation_bytes +
                                       plan.score_bytes + plan.canvas_bytes + plan.backend_bytes);
}

Test(memory, monolithic_logits_cost_a_row_of_the_vocabulary_for_each_row)
{
    struct memory_shape shape = SHAPE;
    struct memory_plan tiled, plan;
    memory_size(&tiled, &shape);
    shape.n_monolithic_ids = 1000;
    memory_size(&plan, &shape);
    cr_assert_eq(plan.logits_bytes, 32 * 1000 * 4);
    cr_assert_eq(plan.total_bytes, tiled.total_bytes + plan.logits_bytes);
}

/* LLaDA-8B: 16.03 GB of weights, 512 KiB of K and V a position in bf16; logits of 2,048 rows would
 * take another gigabyte, tiles take nothing that grows with the vocabulary. */
Test(memory, llada_8b_has_the_published_sizes)
{
    struct memory_shape shape = {.n_layers = 32,
                                 .hidden = 4096,
                                 .n_heads = 32,
                                 .n_kv_heads = 32,
                                 .head_dim = 128,
                                 .ffn = 12288,
                                 .n_positions = 4096,
                                 .weight_bytes = 16031162368,
                                 .n_rows_max = 2048,
                                 .n_picks_max = 2048,
                                 .pick_bytes = 16,
                                 .n_cells_max = 65536,
                                 .n_slots = 1,
                                 .element_bytes = 2,
                                 .kv_element_bytes = 2};
    struct memory_plan tiled, monolithic;
    memory_size(&tiled, &shape);
    shape.n_monolithic_ids = 126464;
    memory_size(&monolithic, &shape);
    cr_assert_eq(tiled.slot_bytes, 512 * 1024);
    cr_assert_eq(monolithic.total_bytes - tiled.total_bytes, (size_t)2048 * 126464 * 4);
}

/* Two numbers of a cache may share a byte, on a machine that a profile describes. */
Test(memory, a_slot_may_hold_half_bytes)
{
    struct memory_shape shape = SHAPE;
    struct memory_plan plan;
    shape.kv_element_bytes = 0.5;
    memory_size(&plan, &shape);
    cr_assert_eq(plan.slot_bytes, 2 * 2 * 2 * 16 / 2);
    shape.n_layers = shape.n_kv_heads = 1;
    shape.head_dim = 3;
    shape.kv_element_bytes = 0.75;
    memory_size(&plan, &shape);
    cr_assert_eq(plan.slot_bytes, 5);
}

Test(memory, attention_sets_the_width_when_it_is_wider_than_the_mlp)
{
    struct memory_shape shape = SHAPE;
    struct memory_plan plan;
    shape.ffn = 16;
    memory_size(&plan, &shape);
    cr_assert_eq(plan.activation_bytes, 4 * 32 * 64 * 4 + 32 * 2 * 6 * 16 * 4);
}

Test(memory, one_byte_too_few_is_refused_with_both_figures)
{
    struct memory_plan plan;
    struct error err = {0};
    memory_size(&plan, &SHAPE);
    plan.total_bytes = (size_t)3 << 20;
    cr_assert(memory_check(&plan, plan.total_bytes, &err));
    cr_assert_not(memory_check(&plan, plan.total_bytes - 1, &err));
    cr_assert_eq(err.code, ERROR_UNAVAILABLE);
    cr_assert(strstr(err.message, "needs 3.0 MiB"), "%s", err.message);
    cr_assert(strstr(err.message, "--memory"), "%s", err.message);
}
