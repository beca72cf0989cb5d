/* What an instruction set provides to the cpu backend: the blocked product that `linear` and
 * `score` are made of, one task of `attend`, and the loops over a row. One table per instruction
 * set, all three compiled from the same text (cpu_kernels_body.h) with another vector; cpu.c
 * chooses one at open, splits the work among threads and owns all memory. Private to backend/.
 *
 * Every function computes a row from that row alone, in an order that depends on the shapes only:
 * which rows share a call never changes a bit (I3). */
#ifndef BACKEND_CPU_KERNELS_H
#define BACKEND_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/host.h"

/* Rows of one product, so that their slice of x [rows, K block] stays in the second-level cache
 * while the panels pass by. */
#define CPU_ROW_BLOCK 192
/* Floats of a panel's slice [K block, panel width]: 16 KB, which stays in the first-level cache
 * while the rows pass by. So the K block is 256 terms on avx2. */
#define CPU_SLICE_FLOATS 4096
/* Widest and narrowest panel of any instruction set. */
#define CPU_PANEL_MAX 32
#define CPU_PANEL_MIN 8
/* Most rows of a register tile. */
#define CPU_TILE_ROWS_MAX 12
/* Keys that attend handles between two updates of a row's running softmax. */
#define CPU_KEY_BLOCK 256
/* Ids that `score` handles at a time. */
#define CPU_ID_BLOCK 256

/* Floats of scratch that one call needs. product: a slice of x, a panel's slice (and the caller a
 * panel's outputs behind it). attend: a block of keys, a block of values, sums of the rows, scores
 * of a tile of rows. */
#define CPU_PRODUCT_FLOATS (CPU_ROW_BLOCK * (CPU_SLICE_FLOATS / CPU_PANEL_MIN) + CPU_SLICE_FLOATS)
#define CPU_ATTEND_FLOATS                                                                          \
    ((2 * CPU_KEY_BLOCK + CPU_ROW_BLOCK) * HOST_HEAD_DIM_MAX + CPU_TILE_ROWS_MAX * CPU_KEY_BLOCK)
#define CPU_EDGE_FLOATS (CPU_ROW_BLOCK * CPU_PANEL_MAX)
#define CPU_THREAD_FLOATS                                                                          \
    (CPU_PRODUCT_FLOATS + CPU_EDGE_FLOATS > CPU_ATTEND_FLOATS                                      \
         ? CPU_PRODUCT_FLOATS + CPU_EDGE_FLOATS                                                    \
         : CPU_ATTEND_FLOATS)

/* out[i][j] = sum over k of x[row i][k] * w[j][k], then + bias[j]: one chain of fused multiply-adds
 * per element (the generic table: multiply, then add), k ascending.
 *
 * Weights are packed as [panel][k][width]: width outputs lie side by side, the last panel is padded
 * with zeros; so the innermost loop reads them front to back. */
struct cpu_product {
    float *out; /* [n_rows, n_panels * width], rows out_stride apart */
    size_t out_stride;
    const float *x; /* rows of n_in, x_stride apart */
    size_t x_stride;
    const int32_t *row_index; /* [n_rows] row of x for each row of out; NULL: the same */
    int32_t n_rows;           /* 1 to CPU_ROW_BLOCK */
    int32_t n_in, n_panels;
    const void *panels; /* the first panel: bf16 or f32 */
    bool is_bf16;
    const float *bias; /* [n_panels * width]; NULL: zeros */
    float *scratch;    /* [CPU_PRODUCT_FLOATS] */
};

/* Rows of keys and values of one KV head, head_dim floats each, `stride` floats apart. */
struct cpu_key_run {
    const float *keys, *values;
    size_t stride;
    int32_t n;
};

/* One task of attend: consecutive queries of one sequence, for query heads that share a KV head.
 * Keys are numbered through the runs: cached first, then fresh. */
struct cpu_attention {
    float *out; /* [n_queries] rows out_stride apart; head h at column h * head_dim */
    size_t out_stride;
    const float *query; /* the same with query_stride */
    size_t query_stride;
    int32_t n_queries, n_heads; /* n_queries * n_heads <= CPU_ROW_BLOCK */
    struct cpu_key_run runs[2];
    const int32_t *visible; /* [n_queries] the query sees keys [0, visible) */
    int32_t head_dim;
    float scale;
    float *scratch; /* [CPU_ATTEND_FLOATS] */
};

/* One row of rms_norm; sum and add may be NULL. */
struct cpu_norm {
    float *out, *sum;              /* [n] */
    const float *x, *add, *weight; /* [n] */
    int32_t n;
    float epsilon;
};

struct cpu_kernels {
    const char *name;
    int32_t panel_width, tile_rows; /* 0: this build has no code for the instruction set */
    void (*multiply)(const struct cpu_product *product);
    void (*attend)(const struct cpu_attention *task);
    void (*normalize)(const struct cpu_norm *norm);
    /* One head of rope: x [2 * half], table row: half cosines, then half sines. */
    void (*rotate)(float *x, const float *table, int32_t half);
    /* out = silu(gate) * up, [n]. */
    void (*activate)(float *out, const float *gate, const float *up, int32_t n);
    /* out = f32 of bf16, [n]. */
    void (*widen)(float *out, const uint16_t *in, int32_t n);
    float (*dot)(const float *a, const float *b, int32_t n);
    /* Largest of l [n]; is_broken: some l is NaN or +inf (then the result means nothing). */
    float (*largest)(const float *l, int32_t n, bool *is_broken);
    /* out = exp((l - max) * factor), [n]. */
    void (*exp_all)(float *out, const float *l, int32_t n, float max, float factor);
    /* Sum of exp((l - max) * factor) over l [n], l <= max; -inf counts as 0. */
    double (*sum_exp)(const float *l, int32_t n, float max, float factor);
};

extern const struct cpu_kernels cpu_kernels_generic;
extern const struct cpu_kernels cpu_kernels_avx2;
extern const struct cpu_kernels cpu_kernels_avx512;

#endif
