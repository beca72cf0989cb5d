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
    float *x, *normed, *picked, *picked_normed; /* [n_rows_max, hidden] each */
    float *wide; /* [n_rows_max, max((2 n_heads + 2 n_kv_heads) * head_dim, 3 ffn)] */
};

/* Bytes that forward_init takes from REGION_SCRATCH. */
size_t forward_bytes(const struct model_config *config, int32_t n_rows_max);

void forward_init(struct forward *forward, const struct model *model, int32_t n_rows_max);

/* Runs the batch that the backend's current step holds, token ids from `canvas` [n_cells, 1]. The
 * result [n_picks, hidden] is the final norm of the picked rows: in the last layer, all other rows
 * give their keys and values and go no further. Valid until the next forward_run. */
struct matrix forward_run(struct forward *forward, struct matrix canvas);

#endif
