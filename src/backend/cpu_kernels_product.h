/* The blocked product. A tile of TILE_ROWS x 2 LANES sums lives in registers; a panel's slice of
 * weights lives in the first-level cache and is used by all rows before the next one is fetched.
 *
 *      x slice [rows, K block]        panel slice [K block, PANEL]         out
 *      +--------+                     +--+                                 +--+--+--
 *      | tile   |  TILE_ROWS          |  |  K block                        |##|  |
 *      +--------+                     |  |                                 +--+--+--
 *      |        |                     +--+                                 |  |  |
 *
 * Sums go through memory between K blocks, which rounds nothing, so every sum is one chain over k
 * whatever the blocks are. Included once per instruction set; private to cpu_kernels_*.c. */
#ifndef BACKEND_CPU_KERNELS_PRODUCT_H
#define BACKEND_CPU_KERNELS_PRODUCT_H

#include "backend/cpu_kernels_vector.h"

#define PANEL   (2 * LANES)
#define K_BLOCK (CPU_SLICE_FLOATS / PANEL)

_Static_assert(PANEL >= CPU_PANEL_MIN && PANEL <= CPU_PANEL_MAX, "scratch is sized for the panel");
_Static_assert(TILE_ROWS <= CPU_TILE_ROWS_MAX, "scratch is sized for the tile");

static const float zeros[PANEL];

/* out[i] = init[i] + sum over k of x[i][k] * panel[k], PANEL columns. */
struct tile {
    const float *x;
    size_t x_stride;
    const float *panel; /* [n_k, PANEL] */
    int32_t n_k;
    const float *init; /* may be out; stride 0: one row for all */
    size_t init_stride;
    float *out;
    size_t out_stride;
};

/* n_rows is a constant wherever this is called: the sums then are registers. */
INLINE void tile_sum(const struct tile *tile, const int n_rows)
{
    vf sum[TILE_ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++) {
        sum[i][0] = vf_load(tile->init + (size_t)i * tile->init_stride);
        sum[i][1] = vf_load(tile->init + (size_t)i * tile->init_stride + LANES);
    }
    const float *x = tile->x, *panel = tile->panel;
    const size_t stride = tile->x_stride, n_k = (size_t)tile->n_k;
#pragma GCC unroll 4
    for (size_t k = 0; k < n_k; k++) {
        vf left = vf_load(panel + k * PANEL), right = vf_load(panel + k * PANEL + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < n_rows; i++) {
            vf a = vf_splat(x[(size_t)i * stride + k]);
            sum[i][0] = vf_fma(a, left, sum[i][0]);
            sum[i][1] = vf_fma(a, right, sum[i][1]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++) {
        vf_store(tile->out + (size_t)i * tile->out_stride, sum[i][0]);
        vf_store(tile->out + (size_t)i * tile->out_stride + LANES, sum[i][1]);
    }
}

/* Takes n_rows at a time as long as there are that many. */
INLINE void tile_take(struct tile *tile, int32_t *n_left, const int n_rows)
{
    while (*n_left >= n_rows) {
        tile_sum(tile, n_rows);
        tile->x += (size_t)n_rows * tile->x_stride;
        tile->init += (size_t)n_rows * tile->init_stride;
        tile->out += (size_t)n_rows * tile->out_stride;
        *n_left -= n_rows;
    }
}

/* Any number of rows; the same chain for each, whichever tile it falls in. */
static void tile_multiply(struct tile tile, int32_t n_rows)
{
    assert(n_rows > 0);
    tile_take(&tile, &n_rows, TILE_ROWS);
    if (TILE_ROWS > 8) tile_take(&tile, &n_rows, TILE_ROWS > 8 ? 8 : TILE_ROWS);
    if (TILE_ROWS > 4) tile_take(&tile, &n_rows, 4);
    tile_take(&tile, &n_rows, 2);
    tile_take(&tile, &n_rows, 1);
}

/* ---- the product of struct cpu_product ---- */

static void product_widen(float *out, const uint16_t *in, int32_t n)
{
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vh narrow;
        memcpy(&narrow, in + i, sizeof narrow);
        vf_store(out + i, (vf)(__builtin_convertvector(narrow, vu) << 16));
    }
    for (; i < n; i++)
        out[i] = dtype_f32_from_bf16(in[i]);
}

/* Columns [k_begin, k_begin + n_k) of the product's rows, side by side: rows that lie a power of
 * two apart would push each other out of the cache. */
static void gather_slice(const struct cpu_product *product, int32_t k_begin, int32_t n_k)
{
    for (int32_t i = 0; i < product->n_rows; i++) {
        size_t row = (size_t)(product->row_index ? product->row_index[i] : i);
        memcpy(product->scratch + (size_t)i * (size_t)n_k,
               product->x + row * product->x_stride + k_begin, (size_t)n_k * sizeof(float));
    }
}

/* The slice of panel `panel_index` from k_begin on, as f32: widened into `wide`, or where it is. */
static const float *panel_slice(const struct cpu_product *product, int32_t panel_index,
                                int32_t k_begin, int32_t n_k, float *wide)
{
    size_t offset = ((size_t)panel_index * (size_t)product->n_in + (size_t)k_begin) * PANEL;
    if (!product->is_bf16) return (const float *)product->panels + offset;
    product_widen(wide, (const uint16_t *)product->panels + offset, n_k * PANEL);
    return wide;
}

/* The bias comes last: a large one at the start would cost every later sum its low bits. */
static void add_bias(const struct cpu_product *product)
{
    for (int32_t i = 0; i < product->n_rows; i++) {
        float *out = product->out + (size_t)i * product->out_stride;
        for (int32_t j = 0; j < product->n_panels * PANEL; j++)
            out[j] += product->bias[j];
    }
}

static void product_multiply(const struct cpu_product *product)
{
    assert(product->n_rows > 0);
    assert(product->n_rows <= CPU_ROW_BLOCK);
    float *wide = product->scratch + (size_t)CPU_ROW_BLOCK * K_BLOCK;
    for (int32_t k_begin = 0; k_begin < product->n_in; k_begin += K_BLOCK) {
        int32_t n_k = product->n_in - k_begin < K_BLOCK ? product->n_in - k_begin : K_BLOCK;
        gather_slice(product, k_begin, n_k);
        for (int32_t j = 0; j < product->n_panels; j++) {
            float *out = product->out + (size_t)j * PANEL;
            struct tile tile = {.x = product->scratch,
                                .x_stride = (size_t)n_k,
                                .panel = panel_slice(product, j, k_begin, n_k, wide),
                                .n_k = n_k,
                                .init = k_begin > 0 ? out : zeros,
                                .init_stride = k_begin > 0 ? product->out_stride : 0,
                                .out = out,
                                .out_stride = product->out_stride};
            tile_multiply(tile, product->n_rows);
        }
    }
    if (product->bias) add_bias(product);
}

#endif
