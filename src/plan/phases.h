/* Decode settings to a request's sequence of steps: blocks of the canvas, steps per block, and what
 * each step feeds, sees, stores and selects. Pure: the planner, the executor and the cost model all
 * read a request's future from here.
 *
 *     canvas   | prompt            | generated: block 0 | active block | next w | ...    | last |
 *     full     [===== unless kept =][====================|==============|========]        [======]
 *     window   kept rows of everything the last full step saw           [========]
 *
 * A step is a Refresh (a full forward over the fed cells) or a Reuse (the window alone, which sees
 * the kept rows besides itself). The window is the active block; for shifted models (Dream) also
 * the cell before it, whose row predicts the block's first token. Fast-dLLM (arXiv
 * 2505.22618: prefix, dual), Sparse-dLLM and dLLM-Serve (2508.02558, 2512.17077: sparse, delay),
 * dLLM-Cache (2506.06295: prompt interval). */
#ifndef PLAN_PHASES_H
#define PLAN_PHASES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "plan/request.h"

/* What of the model decides about phases. */
struct phases_model {
    int32_t n_positions; /* longest canvas */
    int32_t shift;       /* 1: row i predicts cell i + 1; else 0 */
};

/* A request's canvas: [0, n_canvas) cells, prompt first. Blocks cover [blocks_begin, n_canvas). */
struct phases {
    int32_t n_canvas;        /* prompt + generated region, in cells */
    int32_t blocks_begin;    /* first cell of block 0: n_prompt, or 0 for infill */
    int32_t block_length;    /* of all blocks but the last, which may be shorter */
    int32_t n_blocks;        /* at least 1 */
    int32_t steps_per_block; /* 0: as many as the block has masks */
    int32_t n_twins;         /* canvases in each step: 2 under CFG, else 1 */
    int32_t shift;
    bool is_by_chance;  /* Dream's origin: a step commits each mask with a probability */
    bool is_open_ended; /* threshold or factor: a block ends when it is full, not by a count */
    enum cache_kind cache;
    double retention;
    int32_t delay, refresh_every, prompt_refresh_every, suffix_window; /* as in decode_settings */
};

enum phase { PHASE_REFRESH, PHASE_REUSE };

/* Cells [begin, end). */
struct span {
    int32_t begin, end;
};

#define PHASES_SPANS_MAX 3

/* One step of one canvas (a twin's is the same). Extents hold rows of the KV cache: the prompt's
 * extent has phases_prompt_slots() rows and lives from the first step that stores it to the last
 * full step before the next block that does; the kept extent lives from the step that selects it to
 * the block's last step. */
struct step_shape {
    enum phase phase;
    int32_t n_spans; /* fed cells, ascending and disjoint */
    struct span spans[PHASES_SPANS_MAX];
    int32_t n_rows;       /* cells in them */
    struct span window;   /* cells whose rows decide what is kept */
    bool sees_prompt;     /* full steps: the prompt's extent is seen, the prompt is not fed */
    bool sees_kept;       /* Reuse: the kept extent is seen */
    int32_t n_cached;     /* rows per KV head of the extent that is seen; 0: none */
    bool stores_prompt;   /* cells [0, phases_prompt_slots) go to the prompt's extent */
    int32_t n_kept;       /* > 0: selects the kept extent, this many rows per KV head, out of */
    struct span hold_out; /* all seen cells outside these; and for prefix, none behind them */
};

/* Checks the settings against each other and the model; infill (gen_length 0) cuts the whole canvas
 * into blocks and knows no cache. False: ERROR_FORMAT, which setting and what it may be.
 * `has_masks`: the prompt holds mask tokens. */
bool phases_init(struct phases *phases, int32_t n_prompt, bool has_masks,
                 const struct decode_settings *decode, const struct phases_model *model,
                 struct error *err);

/* Canvas cells [begin, end) of block `block_index`. */
void phases_block(const struct phases *phases, int32_t block_index, int32_t *begin, int32_t *end);

/* Rows that one full step over the whole canvas feeds, twins counted: the most of any step. */
int32_t phases_full_rows(const struct phases *phases);

/* What step `step_index` (forwards that the block has had before) of a block does. */
void phases_step(const struct phases *phases, int32_t block_index, int32_t step_index,
                 struct step_shape *shape);

/* Most steps that a block of `n_masked` masks can take. */
int32_t phases_steps_max(const struct phases *phases, int32_t n_masked);

/* Rows per KV head of the prompt's extent, of one canvas; 0: the prompt is never kept. Under shift
 * the prompt's last cell is fed anew each time, since its row predicts the first token. */
int32_t phases_prompt_slots(const struct phases *phases);

/* Most rows per KV head that a block's kept extent has, of one canvas; 0: nothing is kept. */
int32_t phases_kept_slots(const struct phases *phases, int32_t block_index);

/* Slots of the KV cache that block `block_index` needs: its kept rows and the prompt's, twins
 * counted; and the most that any block needs. */
int64_t phases_block_slots(const struct phases *phases, int32_t block_index);
int64_t phases_most_slots(const struct phases *phases);

/* Whether the prompt's extent that block `block_index` uses is the one that it stores itself. A
 * request may be parked before such a block at no cost: all it holds is its token ids. */
bool phases_is_free_start(const struct phases *phases, int32_t block_index);

#endif
