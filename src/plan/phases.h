/* Decode settings to the request's sequence of steps: blocks of the canvas, steps per block, rows
 * of each step. Pure. In a later step rows may be fewer than the canvas (Reuse); today every step
 * is a Refresh, a full forward. */
#ifndef PLAN_PHASES_H
#define PLAN_PHASES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "plan/request.h"

/* A request's canvas: [0, n_canvas) cells, prompt first. Blocks cover [blocks_begin, n_canvas). */
struct phases {
    int32_t n_canvas;        /* prompt + generated region, in cells */
    int32_t blocks_begin;    /* first cell of block 0: n_prompt, or 0 for infill */
    int32_t block_length;    /* of all blocks but the last, which may be shorter */
    int32_t n_blocks;        /* at least 1 */
    int32_t steps_per_block; /* 0: as many as the block has masks */
    int32_t n_twins;         /* canvases in each step: 2 under CFG, else 1 */
};

/* Checks the settings against each other and the model's `n_positions`; infill (gen_length 0) cuts
 * the whole canvas into blocks. False: ERROR_FORMAT, which setting and what it
 * may be. `has_masks`: the prompt holds mask tokens. */
bool phases_init(struct phases *phases, int32_t n_prompt, bool has_masks,
                 const struct decode_settings *decode, int32_t n_positions, struct error *err);

/* Canvas cells [begin, end) of block `block_index`. */
void phases_block(const struct phases *phases, int32_t block_index, int32_t *begin, int32_t *end);

/* Rows that one full step of the request feeds. */
int32_t phases_full_rows(const struct phases *phases);

#endif
