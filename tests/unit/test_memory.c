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
