/* How a canvas is cut into blocks, and which settings are refused with which words. */
#include <criterion/criterion.h>
#include <stdio.h>
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

/* ---- steps ---- */

static struct phases make(int32_t n_prompt, struct decode_settings decode, int32_t shift)
{
    const struct phases_model shifted = {.n_positions = 100, .shift = shift};
    struct phases phases;
    struct error err = {0};
    cr_assert(phases_init(&phases, n_prompt, false, &decode, &shifted, &err), "%s", err.message);
    return phases;
}

static struct step_shape step_of(const struct phases *phases, int32_t block, int32_t step)
{
    struct step_shape shape;
    phases_step(phases, block, step, &shape);
    return shape;
}

/* Spans as text: "0-5 8-12". */
static const char *spans_of(const struct step_shape *shape)
{
    static char text[96];
    int n = 0;
    text[0] = '\0';
    for (int32_t i = 0; i < shape->n_spans; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%d-%d", i > 0 ? " " : "",
                      shape->spans[i].begin, shape->spans[i].end);
    return text;
}

Test(phases, without_a_cache_every_step_feeds_the_whole_canvas)
{
    struct phases phases = make(5, settings(16, 8, 0), 0);
    for (int32_t step = 0; step < 8; step++) {
        struct step_shape shape = step_of(&phases, 1, step);
        cr_assert_eq(shape.phase, PHASE_REFRESH);
        cr_assert_eq(shape.n_rows, 21);
        cr_assert(shape.n_kept == 0 && shape.n_cached == 0);
    }
}

Test(phases, dual_opens_a_block_with_a_full_step_and_then_feeds_the_block)
{
    struct decode_settings decode = settings(16, 8, 0);
    decode.cache = CACHE_DUAL;
    struct phases phases = make(5, decode, 0);
    struct step_shape shape = step_of(&phases, 1, 0);
    cr_assert_str_eq(spans_of(&shape), "0-21");
    cr_assert_eq(shape.n_kept, 13);
    shape = step_of(&phases, 1, 1);
    cr_assert_eq(shape.phase, PHASE_REUSE);
    cr_assert_str_eq(spans_of(&shape), "13-21");
    cr_assert(shape.sees_kept && shape.n_cached == 13 && shape.n_kept == 0);
}

Test(phases, prefix_feeds_everything_from_the_block_on)
{
    struct decode_settings decode = settings(24, 8, 0);
    decode.cache = CACHE_PREFIX;
    struct phases phases = make(5, decode, 0);
    cr_assert_eq(step_of(&phases, 1, 0).n_kept, 13);
    struct step_shape shape = step_of(&phases, 1, 3);
    cr_assert_str_eq(spans_of(&shape), "13-29");
    cr_assert_eq(shape.n_cached, 13);
}

Test(phases, sparse_selects_at_the_delayed_step_a_share_of_the_candidates)
{
    struct decode_settings decode = settings(16, 8, 0);
    decode.cache = CACHE_SPARSE;
    decode.retention = 0.3;
    decode.delay = 1;
    struct phases phases = make(5, decode, 0);
    cr_assert(step_of(&phases, 0, 0).phase == PHASE_REFRESH && step_of(&phases, 0, 0).n_kept == 0);
    cr_assert(step_of(&phases, 0, 1).phase == PHASE_REFRESH);
    cr_assert_eq(step_of(&phases, 0, 1).n_kept, 3, "floor(0.3 x 13)");
    cr_assert_eq(step_of(&phases, 0, 2).phase, PHASE_REUSE);
    phases.retention = 1e-9;
    cr_assert_eq(phases_kept_slots(&phases, 0), 1, "at least one");
}

Test(phases, a_shifted_window_holds_the_cell_before_the_block)
{
    struct decode_settings decode = settings(16, 8, 0);
    decode.cache = CACHE_DUAL;
    struct phases phases = make(5, decode, 1);
    struct step_shape shape = step_of(&phases, 0, 1);
    cr_assert_str_eq(spans_of(&shape), "4-13");
    cr_assert_eq(shape.n_cached, 12);
}

Test(phases, refresh_every_makes_later_steps_full_that_select_again)
{
    struct decode_settings decode = settings(16, 8, 0);
    decode.cache = CACHE_SPARSE;
    decode.retention = 0.5;
    decode.delay = 1;
    decode.refresh_every = 3;
    struct phases phases = make(5, decode, 0);
    const char expected[] = "FFRRFRRF";
    for (int32_t step = 0; step < 8; step++) {
        struct step_shape shape = step_of(&phases, 1, step);
        cr_assert_eq(shape.phase == PHASE_REFRESH ? 'F' : 'R', expected[step], "step %d", step);
        cr_assert_eq(shape.n_kept > 0, step == 1 || step == 4 || step == 7, "step %d", step);
    }
}

Test(phases, a_kept_prompt_is_fed_in_every_kth_block_only)
{
    struct decode_settings decode = settings(32, 8, 0);
    decode.cache = CACHE_DUAL;
    decode.prompt_refresh_every = 3;
    struct phases phases = make(5, decode, 0);
    cr_assert_eq(phases_prompt_slots(&phases), 5);
    struct step_shape shape = step_of(&phases, 0, 0);
    cr_assert(shape.stores_prompt && !shape.sees_prompt && shape.n_rows == 37);
    shape = step_of(&phases, 1, 0);
    cr_assert_str_eq(spans_of(&shape), "5-37");
    cr_assert(!shape.stores_prompt && shape.sees_prompt && shape.n_cached == 5);
    cr_assert_eq(shape.n_kept, 29, "the kept prompt is a candidate");
    cr_assert(step_of(&phases, 3, 0).stores_prompt);
    cr_assert(phases_is_free_start(&phases, 3) && !phases_is_free_start(&phases, 2));
}

Test(phases, a_suffix_window_leaves_out_far_blocks_but_the_last)
{
    struct decode_settings decode = settings(48, 8, 0);
    decode.cache = CACHE_DUAL;
    decode.suffix_window = 1;
    struct phases phases = make(5, decode, 0);
    struct step_shape shape = step_of(&phases, 1, 0);
    cr_assert_str_eq(spans_of(&shape), "0-29 45-53");
    cr_assert_eq(shape.n_kept, 29);
    shape = step_of(&phases, 4, 0);
    cr_assert_str_eq(spans_of(&shape), "0-53");
}

Test(phases, spans_hold_as_many_cells_as_rows_and_the_window_is_fed)
{
    for (int32_t seed = 0; seed < 4000; seed++) {
        struct decode_settings decode = settings(1 + seed % 37, 1 + seed % 11, 0);
        decode.cache = (enum cache_kind)(seed % 4);
        decode.retention = 0.1 + seed % 10 * 0.1;
        decode.delay = seed % 3;
        decode.refresh_every = seed % 5;
        decode.prompt_refresh_every = 1 + seed % 4;
        decode.suffix_window = seed % 3;
        struct phases phases = make(1 + seed % 9, decode, seed / 7 % 2);
        int32_t block = seed % phases.n_blocks, step = seed % 13, n = 0, window = 0, last = -1;
        struct step_shape shape = step_of(&phases, block, step);
        for (int32_t i = 0; i < shape.n_spans; i++) {
            cr_assert_gt(shape.spans[i].begin, last, "seed %d", seed);
            last = shape.spans[i].end;
            for (int32_t cell = shape.spans[i].begin; cell < last; cell++, n++)
                window += cell >= shape.window.begin && cell < shape.window.end;
        }
        cr_assert_eq(n, shape.n_rows, "seed %d", seed);
        cr_assert_leq(n, phases_full_rows(&phases), "seed %d", seed);
        cr_assert_eq(window, shape.window.end - shape.window.begin, "seed %d", seed);
        cr_assert_leq(shape.n_kept, phases_kept_slots(&phases, block), "seed %d", seed);
        if (shape.phase == PHASE_REUSE)
            cr_assert_eq(shape.n_cached, phases_kept_slots(&phases, block), "seed %d", seed);
    }
}

Test(phases, infill_knows_no_cache)
{
    struct decode_settings decode = settings(0, 8, 0);
    decode.cache = CACHE_DUAL;
    expect_refused(20, true, decode, "needs cache none");
}
