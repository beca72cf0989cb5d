/* What steps commit when no model runs: quotas, open-ended blocks, stops. */
#include <criterion/criterion.h>

#include "plan/world.h"

static struct phases phases;

static struct plan_input make(int32_t gen_length, int32_t block_length, int32_t steps,
                              double threshold)
{
    const struct phases_model model = {.n_positions = 4096};
    const struct decode_settings decode = {.gen_length = gen_length,
                                           .block_length = block_length,
                                           .steps = steps,
                                           .threshold = threshold};
    cr_assert(phases_init(&phases, 10, false, &decode, &model, NULL));
    return (struct plan_input){.n_requests = 1, .phases = &phases};
}

/* Steps that the request takes to its end; `blocks` [n_blocks]: in each of its blocks. */
static int32_t count_steps(const struct plan_input *input, int32_t *blocks)
{
    struct world_request world;
    enum step_outcome outcome = STEP_GOES_ON;
    int32_t n = 0;
    world_start(&world, input, 0);
    for (; outcome != STEP_END; n++) {
        blocks[world.block]++;
        outcome = world_step(&world);
    }
    return n;
}

Test(world, one_token_a_step_takes_as_many_steps_as_tokens)
{
    int32_t blocks[3] = {0};
    struct plan_input input = make(20, 8, 0, 0);
    cr_assert_eq(count_steps(&input, blocks), 20);
    cr_assert(blocks[0] == 8 && blocks[1] == 8 && blocks[2] == 4);
}

Test(world, quotas_fill_a_block_in_its_steps_or_in_as_many_as_it_has_masks)
{
    int32_t blocks[2] = {0};
    struct plan_input input = make(32, 16, 10, 0);
    cr_assert_eq(count_steps(&input, blocks), 10);
    int32_t many[2] = {0};
    input = make(32, 16, 64, 0);
    cr_assert_eq(count_steps(&input, many), 32);
}

Test(world, open_ended_blocks_earn_fractions_of_a_token)
{
    int32_t blocks[1] = {0};
    struct plan_input input = make(10, 10, 0, 0.9);
    input.tokens_per_step = 2.5; /* 2, 5, 7, 10 */
    cr_assert_eq(count_steps(&input, blocks), 4);
    int32_t slow[1] = {0};
    input.tokens_per_step = 0; /* not said: one */
    cr_assert_eq(count_steps(&input, slow), 10);
}

Test(world, a_stop_ends_the_request_when_its_tokens_are_there)
{
    const int32_t stop_after = 11;
    int32_t blocks[3] = {0};
    struct plan_input input = make(24, 8, 0, 0);
    struct world_request world;
    input.stop_after = &stop_after;
    cr_assert_eq(count_steps(&input, blocks), 11);
    cr_assert(blocks[1] == 3 && blocks[2] == 0);
    world_start(&world, &input, 0);
    cr_assert_eq(world_tokens(&world), 11);
}
