/* Launchers of the cuda backend: raw device pointers, shapes, a stream; the status of the launch
 * comes back. They check nothing, allocate nothing and choose nothing but a grid: shapes were
 * checked by the wrappers of backend.h, tiles and splits are chosen in heuristics.h. Formulas are
 * those of backend.h; what is said here is where values are rounded. Activations and the KV cache
 * are bf16, sums are f32 (statistics of the vocabulary f64), each op rounds its output once. */
#ifndef CUDA_KERNELS_CUH
#define CUDA_KERNELS_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "backend/backend.h"
}

#include "cuda/heuristics.h"

typedef __nv_bfloat16 bf16;

/* ---- pointwise.cu ---- */

struct embed_index {
    const int32_t *canvas, *canvas_index; /* [n_cells], [n_rows] */
    int32_t n_rows, n_cols;
};
cudaError_t launch_embed(bf16 *out, const void *table, enum dtype dtype, embed_index index,
                         cudaStream_t stream);

/* Rotates in f32. */
struct rope_shape {
    const float *table;      /* [n_positions, head_dim] */
    const int32_t *position; /* by batch row */
    const int32_t *row_of;   /* [n_rows] batch rows of x; NULL: row r is batch row r */
    int32_t n_rows, n_cols, col_begin, n_heads, head_dim;
};
cudaError_t launch_rope(bf16 *x, const struct rope_shape *shape, cudaStream_t stream);

/* silu and product in f32. */
cudaError_t launch_gated_act(bf16 *out, const bf16 *x, int32_t n_rows, int32_t n_cols,
                             cudaStream_t stream);

cudaError_t launch_gather_rows(bf16 *out, const bf16 *x, const int32_t *picked_row, int32_t n_picks,
                               int32_t n_cols, cudaStream_t stream);

/* n numbers of the sequence, one after the other. */
cudaError_t launch_dummy(bf16 *out, int64_t n, const struct dummy_args *args, cudaStream_t stream);

cudaError_t launch_round(bf16 *out, const float *in, int32_t n, cudaStream_t stream);

/* ---- norm.cu ---- */

/* The mean of squares is taken from the unrounded sum. `add` and `sum` may be NULL. */
struct norm_shape {
    const float *weight;
    float epsilon;
    int32_t n_rows, n_cols;
};
cudaError_t launch_rms_norm(const struct norm_shape *shape, bf16 *out, bf16 *sum, const bf16 *x,
                            const bf16 *add, cudaStream_t stream);

/* ---- attention.cu ---- */

/* Fresh keys and values: columns of one matrix with `n_cols` columns. */
struct fresh_kv {
    const bf16 *x;
    int32_t n_cols, key_col, value_col, n_kv_heads, head_dim;
};

/* What slices leave of their rows: sums of values, each probability being 2^(score - shift), and
 * the sum of the probabilities. */
struct attend_partials {
    float *out;         /* [n_heads_now, n, head_dim] */
    float *shift, *sum; /* [n_heads_now, n]; shift -inf: the row sees no key of the slice */
    int32_t n;
};

struct attend_launch {
    bf16 *out;         /* [n_q, n_heads * head_dim] */
    const bf16 *query; /* [n_q, query_cols], heads from query_col */
    int32_t query_cols, query_col, n_heads;
    int32_t head_begin, n_heads_now; /* those of this launch */
    struct fresh_kv fresh;
    const bf16 *cached_keys, *cached_values; /* as struct kv_cache; NULL: none */
    const struct attend_item *items;         /* [n_items], device; slices from n_whole on */
    int32_t n_items, n_whole;
    struct attend_partials partials;
    const int32_t *visible_end; /* [n_rows], device */
    const int32_t *row_of;      /* [n_q] batch rows of the queries; NULL: query i is row i */
    float scale;
};
cudaError_t launch_attend(const struct attend_launch *launch, cudaStream_t stream);

cudaError_t launch_store_kv(bf16 *keys, bf16 *values, const struct fresh_kv *fresh,
                            const struct store_row *rows, int32_t n, cudaStream_t stream);

/* ---- select.cu ---- */

struct select_launch {
    bf16 *keys, *values; /* the cache of one layer */
    struct fresh_kv fresh;
    const bf16 *query; /* [n_rows, query_cols], heads from query_col */
    int32_t query_cols, query_col, n_heads;
    const struct sequence *sequences;      /* device */
    const struct select_sequence *selects; /* [n], device */
    int32_t n;
    int32_t n_candidates_max; /* most candidates of any of them */
    float scale;
    bool shared;
};
cudaError_t launch_select_kv(const struct select_launch *launch, cudaStream_t stream);

/* ---- score.cu ---- */

#define SCORE_STRETCH 8192 /* ids that a block sees at once */

/* A tile of logits: rows [0, n_rows) x ids [first_id, first_id + n_ids). Tiles begin at multiples
 * of SCORE_STRETCH; where they end makes no difference to a pick. */
struct score_tile {
    float *logits;               /* [n_rows, ld]; guided and suppressed in place */
    const float *uncond;         /* [.., ld]; NULL: no row has one */
    const int32_t *uncond_index; /* [n_rows] row of `uncond`, -1: none; device; NULL as above */
    int32_t ld, first_id, n_ids, n_rows;
};

/* Bytes of the running statistics of `n_rows` rows (struct score_state of score.cu). */
size_t score_state_bytes(int32_t n_rows);
/* The passes of backend/pick.h, each over all tiles in ascending order:
 *     launch_score_init; for each of score_passes (heuristics.h): for tiles: launch_score_feed;
 *     launch_score_next; and launch_score_finish. A row that needs fewer passes ignores the rest.
 */
cudaError_t launch_score_init(void *states, const struct score_row *rows, int32_t n_rows,
                              cudaStream_t stream);
cudaError_t launch_score_feed(void *states, const struct score_row *rows, struct score_tile tile,
                              int32_t mask_id, cudaStream_t stream);
cudaError_t launch_score_next(void *states, const struct score_row *rows, int32_t n_rows,
                              cudaStream_t stream);
cudaError_t launch_score_finish(struct pick *picks, const void *states,
                                const struct score_row *rows, int32_t n_rows, cudaStream_t stream);

/* ---- commit.cu ---- */

/* Arguments of struct commit_args, in device memory. */
struct commit_launch {
    int32_t *canvas;
    struct pick *picks;
    const int32_t *cell, *twin_cell;
    const uint32_t *position;
    const struct commit_request *requests; /* [n] */
    int32_t n, mask_id;
};
cudaError_t launch_commit(const struct commit_launch *launch, cudaStream_t stream);

#endif
