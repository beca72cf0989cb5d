/* How a canvas is cut into blocks, and which settings are refused with which words. */
#include <criterion/criterion.h>
#include <string.h>

#include "plan/phases.h"

static const struct phases_model model = {.n_positions = 100};

static struct decode_settings settings(int32_t gen_length, int32_t block_length, int32_t steps)
{
    return (struct decode_settings){
        .gen_length = gen_length, .block_length = block_length, .steps = steps};
}

static void expect_refused(int32_t n_prompt, bool masks, struct decode_settings decode,
                           const char *words)
{
    struct phases phases = {.n_canvas = -7};
    struct error err = {0};
    cr_assert_not(phases_init(&phases, n_prompt, masks, &decode, &model, &err));
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert(strstr(err.message, words), "'%s' lacks '%s'", err.message, words);
    cr_assert_eq(phases.n_canvas, -7, "outputs are untouched on failure");
}

Test(phases, blocks_follow_the_prompt_and_the_last_one_may_be_short)
{
    struct decode_settings decode = settings(20, 8, 0);
    struct phases phases;
    int32_t begin, end;
    cr_assert(phases_init(&phases, 5, false, &decode, &model, NULL));
    cr_assert_eq(phases.n_blocks, 3);
    phases_block(&phases, 0, &begin, &end);
    cr_assert(begin == 5 && end == 13);
    phases_block(&phases, 2, &begin, &end);
    cr_assert(begin == 21 && end == 25);
    cr_assert_eq(phases_full_rows(&phases), 25);
}

Test(phases, blocks_tile_the_generated_region)
{
    for (int32_t gen = 1; gen < 70; gen += 3) {
        for (int32_t block = 1; block < 80; block += 5) {
            struct decode_settings decode = settings(gen, block, 0);
            struct phases phases;
            int32_t at = 3, begin, end;
            cr_assert(phases_init(&phases, 3, false, &decode, &model, NULL));
            for (int32_t i = 0; i < phases.n_blocks; i++) {
                phases_block(&phases, i, &begin, &end);
                cr_assert_eq(begin, at);
                cr_assert_gt(end, begin);
                at = end;
            }
            cr_assert_eq(at, 3 + gen);
        }
    }
}

Test(phases, infill_cuts_the_whole_canvas_and_rounds_steps_up)
{
    struct decode_settings decode = settings(0, 8, 5);
    struct phases phases;
    cr_assert(phases_init(&phases, 20, true, &decode, &model, NULL));
    cr_assert_eq(phases.blocks_begin, 0);
    cr_assert_eq(phases.n_blocks, 3);
    cr_assert_eq(phases.steps_per_block, 2);
}

Test(phases, guidance_doubles_the_rows)
{
    struct decode_settings decode = settings(10, 10, 0);
    struct phases phases;
    decode.cfg_scale = 1.5;
    cr_assert(phases_init(&phases, 5, false, &decode, &model, NULL));
    cr_assert_eq(phases_full_rows(&phases), 30);
}

Test(phases, impossible_settings_are_refused_with_the_setting_and_the_wish)
{
    struct decode_settings decode = settings(16, 8, 3);
    expect_refused(5, false, decode, "steps is 3, must be a multiple of the 2 blocks");
    expect_refused(0, false, settings(16, 8, 0), "prompt is empty");
    expect_refused(90, false, settings(16, 8, 0), "more than the model's 100 positions");
    expect_refused(2000000000, false, settings(2000000000, 8, 0), "positions");
    expect_refused(5, true, settings(16, 8, 0), "gen_length is 16, must be 0");
    expect_refused(5, false, settings(0, 8, 0), "gen_length is 0, must be at least 1");
    decode = settings(16, 8, 0);
    decode.threshold = 0.9;
    decode.factor = 1.0;
    expect_refused(5, false, decode, "exclude each other");
    decode.factor = 0;
    decode.remasking = REMASKING_ENTROPY;
    expect_refused(5, false, decode, "need remasking low_confidence");
    decode = settings(16, 8, 0);
    decode.alg_temp = 0.1;
    expect_refused(5, false, decode, "alg_temp needs");
}
