/* A model's weights in a backend's memory: q, k, v in one matrix, gate and up in one. Names, shapes
 * and types are checked against the configuration before a byte is used. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/error.h"
#include "model/config.h"
#include "model/safetensors.h"

/* One transformer block. */
struct layer_weights {
    struct matrix attn_norm, ff_norm; /* [1, hidden] f32 */
    struct weight qkv;                /* [(n_heads + 2 n_kv_heads) * head_dim, hidden] */
    struct matrix qkv_bias;           /* [1, same] f32, or data NULL */
    struct weight attn_out;           /* [hidden, n_heads * head_dim] */
    struct weight gate_up;            /* [2 ffn, hidden]: gate rows, then up rows */
    struct weight ff_out;             /* [hidden, ffn] */
};

/* All of them. After weights_plan: shapes and types; after weights_load: data in REGION_WEIGHTS. */
struct weights {
    struct matrix embedding;      /* [n_vocab, hidden] as stored */
    struct weight head;           /* [n_vocab, hidden] */
    struct matrix final_norm;     /* [1, hidden] f32 */
    struct matrix rope_table;     /* [n_positions, head_dim] f32: cosines, then sines */
    struct layer_weights *layers; /* [n_layers], in the run arena */
};

/* Where weights come from and where they go; everything borrowed. */
struct weights_source {
    const struct model_config *config;
    const struct safetensors *files; /* NULL: dummy weights, bf16 from a fixed seed */
    struct backend *backend;
    int32_t n_positions; /* rows of the RoPE table */
};

/* Shapes and types of all weights (no data yet) and the bytes they need in this backend's layout.
 * The table of layers lives in `run`. False: ERROR_FORMAT, which tensor is missing or wrong. */
bool weights_plan(struct weights *weights, const struct weights_source *source, struct arena *run,
                  size_t *n_bytes, struct error *err);

/* Takes the memory from REGION_WEIGHTS and fills it. Cannot fail: weights_plan has checked the same
 * source. `run` serves as scratch and is rewound. */
void weights_load(struct weights *weights, const struct weights_source *source, struct arena *run);

/* Checks every expected tensor of a folder and hands each problem to `problem`; goes on after the
 * first. Returns the tensors that are right; n_bytes: bytes of all tensors in the files. */
int32_t weights_inspect(const struct model_config *config, const char *model_dir,
                        struct arena *arena, void (*problem)(void *context, const char *message),
                        void *context, int64_t *n_bytes);

#endif
