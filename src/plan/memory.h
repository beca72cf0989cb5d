/* Model shape and limits to bytes: weights, KV cache, activations, score scratch, canvases. Every
 * region is sized here once, before any work, printed with -v and refused with figures when it does
 * not fit. Pure. */
#ifndef PLAN_MEMORY_H
#define PLAN_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* The model and the machine as far as bytes depend on them; plan knows neither layer. */
struct memory_shape {
    int32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn;
    int32_t n_positions;      /* longest canvas the model knows */
    size_t weight_bytes;      /* all weights in the backend's layout */
    size_t backend_bytes;     /* what the backend's ops need inside */
    int32_t n_rows_max;       /* rows of an iteration */
    int32_t n_picks_max;      /* rows that meet the vocabulary in an iteration */
    size_t pick_bytes;        /* what score leaves per such row */
    int64_t n_cells_max;      /* canvas cells of a window */
    int64_t n_slots;          /* KV slots per layer */
    int32_t n_monolithic_ids; /* vocabulary, where logits exist as a whole; 0: in tiles */
    int32_t element_bytes;    /* of activations: 4 where they are f32 */
    double kv_element_bytes;  /* of K and V: 0.5 where two share a byte */
};

/* Bytes by purpose; each multiple of 64, the alignment of a reserve.
 *
 *     REGION_WEIGHTS  | weights                                    |
 *     REGION_CACHE    | K and V slots of every layer               |
 *     REGION_SCRATCH  | activations | picks | canvases | logits | backend's |  */
struct memory_plan {
    size_t weights_bytes;    /* as given */
    size_t cache_bytes;      /* n_layers x n_slots x 2 x n_kv_heads x head_dim x kv_element */
    size_t activation_bytes; /* four hidden rows and one wide one per row (model/forward.h) */
    size_t score_bytes;      /* picks; independent of the vocabulary */
    size_t canvas_bytes;     /* token ids of a window */
    size_t logits_bytes;     /* monolithic: f32 logits of every row */
    size_t backend_bytes;    /* as given */
    size_t total_bytes;      /* the sum */
    size_t slot_bytes;       /* of the cache: K and V of one position in every layer */
};

/* Fills `plan` from the formulas above. */
void memory_size(struct memory_plan *plan, const struct memory_shape *shape);

/* True when the plan fits `limit_bytes`; else ERROR_UNAVAILABLE with both figures and the option to
 * change. */
bool memory_check(const struct memory_plan *plan, size_t limit_bytes, struct error *err);

#endif
