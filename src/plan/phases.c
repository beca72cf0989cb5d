/* Cuts a canvas into blocks and checks that the decode settings make sense together. */
#include "plan/phases.h"

#include <assert.h>

#define CELLS_MAX (1 << 24)

static int32_t divide_up(int32_t a, int32_t b)
{
    assert(a > 0);
    assert(b > 0);
    return a / b + (a % b != 0);
}

static bool check_lengths(int32_t n_prompt, bool has_masks, const struct decode_settings *decode,
                          int32_t n_positions, struct error *err)
{
    if (n_prompt < 1) return error_set(err, ERROR_FORMAT, "the prompt is empty");
    if (has_masks && decode->gen_length > 0)
        return error_set(err, ERROR_FORMAT,
                         "the prompt holds mask tokens, so its masks are filled in; gen_length is "
                         "%d, must be 0 or not given",
                         decode->gen_length);
    if (!has_masks && decode->gen_length < 1)
        return error_set(err, ERROR_FORMAT,
                         "gen_length is %d, must be at least 1 for a prompt without mask tokens",
                         decode->gen_length);
    if (n_prompt > CELLS_MAX || decode->gen_length > CELLS_MAX ||
        n_prompt + decode->gen_length > n_positions)
        return error_set(err, ERROR_FORMAT,
                         "%d prompt tokens + gen_length %d are more than the "
                         "model's %d positions",
                         n_prompt, decode->gen_length, n_positions);
    return true;
}

/* Settings that only one way of decoding knows. */
static bool check_rules(const struct decode_settings *decode, struct error *err)
{
    bool low_confidence = decode->remasking == REMASKING_LOW_CONFIDENCE;
    if (decode->threshold > 0 && decode->factor > 0)
        return error_set(err, ERROR_FORMAT, "threshold and factor exclude each other");
    if ((decode->threshold > 0 || decode->factor > 0) && !low_confidence)
        return error_set(err, ERROR_FORMAT, "threshold and factor need remasking low_confidence");
    if (decode->alg_temp > 0 && (low_confidence || decode->remasking == REMASKING_RANDOM ||
                                 decode->remasking == REMASKING_ORIGIN))
        return error_set(err, ERROR_FORMAT,
                         "alg_temp needs remasking maskgit_plus, topk_margin or entropy");
    return true;
}

static bool cut_steps(struct phases *phases, bool infill, const struct decode_settings *decode,
                      struct error *err)
{
    assert(phases->n_blocks > 0);
    if (decode->steps == 0) return true;
    if (infill) {
        phases->steps_per_block = divide_up(decode->steps, phases->n_blocks);
        return true;
    }
    if (decode->steps % phases->n_blocks != 0)
        return error_set(
            err, ERROR_FORMAT,
            "steps is %d, must be a multiple of the %d blocks (gen_length %d in blocks "
            "of %d)",
            decode->steps, phases->n_blocks, decode->gen_length, phases->block_length);
    phases->steps_per_block = decode->steps / phases->n_blocks;
    return true;
}

bool phases_init(struct phases *phases, int32_t n_prompt, bool has_masks,
                 const struct decode_settings *decode, int32_t n_positions, struct error *err)
{
    assert(phases);
    assert(decode->steps >= 0);
    if (!check_lengths(n_prompt, has_masks, decode, n_positions, err)) return false;
    if (!check_rules(decode, err)) return false;
    struct phases found = {.n_canvas = n_prompt + decode->gen_length,
                           .blocks_begin = has_masks ? 0 : n_prompt,
                           .n_twins = decode->cfg_scale > 0 ? 2 : 1};
    int32_t n_cells = found.n_canvas - found.blocks_begin;
    if (decode->block_length < 0)
        return error_set(err, ERROR_FORMAT, "block_length is %d, must be at least 1",
                         decode->block_length);
    found.block_length = decode->block_length == 0 || decode->block_length > n_cells
                             ? n_cells
                             : decode->block_length;
    found.n_blocks = divide_up(n_cells, found.block_length);
    if (!cut_steps(&found, has_masks, decode, err)) return false;
    *phases = found;
    return true;
}

void phases_block(const struct phases *phases, int32_t block_index, int32_t *begin, int32_t *end)
{
    assert(block_index >= 0);
    assert(block_index < phases->n_blocks);
    *begin = phases->blocks_begin + block_index * phases->block_length;
    *end = *begin + phases->block_length;
    if (*end > phases->n_canvas) *end = phases->n_canvas;
}

int32_t phases_full_rows(const struct phases *phases)
{
    assert(phases->n_twins == 1 || phases->n_twins == 2);
    return phases->n_canvas * phases->n_twins;
}
