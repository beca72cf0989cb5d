/* One forward pass over an iteration's rows, written once, in backend ops: pre-norm transformer
 * with RoPE and gated MLP (LLaDA: arXiv 2502.09992; Dream: arXiv 2508.15487). No error branch: ops
 * cannot fail at the call. */
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "model/model.h"

/* Activations of one iteration, in REGION_SCRATCH. `wide` is used twice in a layer: as
 * [q k v | attention out], then as [gate up | act]. */
struct forward {
    const struct model *model;
    int32_t n_rows_max;
    void *x, *normed, *picked, *picked_normed; /* [n_rows_max, hidden] each */
    void *wide; /* [n_rows_max, max((2 n_heads + 2 n_kv_heads) * head_dim, 3 ffn)] */
    int64_t n_slots;
    uint8_t *cache; /* [n_layers, 2 (K, V), n_slots * n_kv_heads * head_dim]; no slots: NULL */
};

/* What an iteration leaves in the KV cache, in every layer alike; host memory. */
struct forward_keeps {
    const struct store_row *stores; /* [n_stores] */
    int32_t n_stores;
    const struct select_sequence *by_head, *shared; /* a choice per KV head, or one per layer */
    int32_t n_by_head, n_shared;
};

/* Bytes that forward_init takes from REGION_SCRATCH. */
size_t forward_bytes(const struct model *model, int32_t n_rows_max);

/* `n_slots`: of the KV cache, which takes REGION_CACHE; 0: no iteration keeps or sees any. */
void forward_init(struct forward *forward, const struct model *model, int32_t n_rows_max,
                  int64_t n_slots);

/* Runs the batch that the backend's current step holds, token ids from `canvas` [n_cells, 1]. The
 * result [n_picks, hidden] is the final norm of the picked rows: in the last layer, all other rows
 * give their keys and values and go no further. Valid until the next forward_run. */
struct matrix forward_run(struct forward *forward, struct matrix canvas,
                          const struct forward_keeps *keeps);

/* The same without that saving: all rows go through the last layer, and all their logits come to be
 * in `logits` [n_rows, n_vocab] f32, as in usual implementations: the baseline of `--logits
 * monolithic`. */
struct matrix forward_run_monolithic(struct forward *forward, struct matrix canvas,
                                     const struct forward_keeps *keeps, struct matrix logits);

#endif
