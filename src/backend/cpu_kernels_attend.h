/* One task of attention: Q K^T and P V through the register tiles of the product, and a running
 * softmax over blocks of CPU_KEY_BLOCK keys, which always start at the sequence's own key 0. A tile
 * multiplies the keys that all its rows see; what only some rows see is added row by row. So a
 * row's sums are one chain over the keys that it sees, whoever shares its tile. Included once per
 * instruction set; private to cpu_kernels_*.c. */
#ifndef BACKEND_CPU_KERNELS_ATTEND_H
#define BACKEND_CPU_KERNELS_ATTEND_H

#include "backend/cpu_kernels_product.h"
#include "backend/cpu_kernels_rows.h"

/* A block of keys, packed, and the state of the task's rows (row = head * n_queries + query). */
struct attend_state {
    const struct cpu_attention *task;
    int32_t n_wide;            /* head_dim, rounded up to whole panels */
    int32_t key_begin, n_keys; /* this block */
    float *keys;               /* [key panels][head_dim][PANEL]: transposed */
    float *values;             /* [n_wide / PANEL][n_keys][PANEL] */
    float *sums;               /* [rows, n_wide] P V so far */
    float *scores;             /* [TILE_ROWS, CPU_KEY_BLOCK] */
    float max[CPU_ROW_BLOCK];
    double weight[CPU_ROW_BLOCK];
};

/* Key `key` of the task's runs, and its value. */
static const float *find_key(const struct cpu_attention *task, int32_t key, const float **value)
{
    const struct cpu_key_run *run = &task->runs[key >= task->runs[0].n];
    size_t row = (size_t)(run == task->runs ? key : key - task->runs[0].n);
    *value = run->values + row * run->stride;
    return run->keys + row * run->stride;
}

/* Fills keys and values with the block that starts at key_begin. What pads the last panels is left
 * as it is: a padding column meets only sums that nobody reads. */
static void pack_block(struct attend_state *state)
{
    const struct cpu_attention *task = state->task;
    const int32_t n_keys = state->n_keys, head_dim = task->head_dim;
    for (int32_t j = 0; j < n_keys; j++) {
        const float *value, *key = find_key(task, state->key_begin + j, &value);
        float *column = state->keys + (size_t)(j / PANEL * PANEL) * (size_t)head_dim + j % PANEL;
        for (int32_t d = 0; d < head_dim; d++)
            column[(size_t)d * PANEL] = key[d];
        for (int32_t d = 0; d < head_dim; d += PANEL) {
            int32_t n = head_dim - d < PANEL ? head_dim - d : PANEL;
            float *row = state->values + (size_t)d * (size_t)n_keys + (size_t)j * PANEL;
            memcpy(row, value + d, (size_t)n * sizeof *row);
        }
    }
}

/* Keys of the block that query `query` sees. */
static int32_t count_visible(const struct attend_state *state, int32_t query)
{
    int32_t n = state->task->visible[query] - state->key_begin;
    if (n < 0) return 0;
    return n < state->n_keys ? n : state->n_keys;
}

/* sums[row ..] += scores x values over the block's keys [begin, end). */
static void add_values(const struct attend_state *state, int32_t row, int32_t n_rows,
                       const float *scores, int32_t begin, int32_t end)
{
    for (int32_t d = 0; d < state->n_wide; d += PANEL) {
        float *sums = state->sums + (size_t)row * (size_t)state->n_wide + d;
        const float *panel = state->values + (size_t)d * (size_t)state->n_keys;
        struct tile tile = {.x = scores + begin,
                            .x_stride = CPU_KEY_BLOCK,
                            .panel = panel + (size_t)begin * PANEL,
                            .n_k = end - begin,
                            .init = sums,
                            .init_stride = (size_t)state->n_wide,
                            .out = sums,
                            .out_stride = (size_t)state->n_wide};
        tile_multiply(tile, n_rows);
    }
}

/* scores = q . k for the tile's rows and the block's keys [0, n_keys). */
static void score_keys(const struct attend_state *state, const float *query, int32_t n_rows,
                       int32_t n_keys)
{
    const struct cpu_attention *task = state->task;
    for (int32_t j = 0; j < n_keys; j += PANEL) {
        struct tile tile = {.x = query,
                            .x_stride = task->query_stride,
                            .panel = state->keys + (size_t)j * (size_t)task->head_dim,
                            .n_k = task->head_dim,
                            .init = zeros,
                            .out = state->scores + j,
                            .out_stride = CPU_KEY_BLOCK};
        tile_multiply(tile, n_rows);
    }
}

/* The block's part of the softmax and of P V for queries [first, first + n_rows) of a head. */
static void attend_tile(struct attend_state *state, int32_t head, int32_t first, int32_t n_rows)
{
    const struct cpu_attention *task = state->task;
    int32_t most = 0, common = state->n_keys;
    for (int32_t i = 0; i < n_rows; i++) {
        int32_t n = count_visible(state, first + i);
        most = n > most ? n : most;
        common = n < common ? n : common;
    }
    if (most == 0) return;
    score_keys(state, task->query + (size_t)first * task->query_stride + head * task->head_dim,
               n_rows, most);
    int32_t row = head * task->n_queries + first;
    for (int32_t i = 0; i < n_rows; i++) {
        int32_t n = count_visible(state, first + i);
        if (n == 0) continue;
        float *max = &state->max[row + i];
        bool is_first = *max == -INFINITY;
        float rescale = row_soften(state->scores + (size_t)i * CPU_KEY_BLOCK, n, task->scale, max,
                                   &state->weight[row + i]);
        if (is_first || rescale == 1) continue;
        float *sums = state->sums + (size_t)(row + i) * (size_t)state->n_wide;
        for (int32_t d = 0; d < state->n_wide; d++)
            sums[d] *= rescale;
    }
    if (common > 0) add_values(state, row, n_rows, state->scores, 0, common);
    for (int32_t i = 0; i < n_rows; i++) {
        int32_t n = count_visible(state, first + i);
        if (n > common)
            add_values(state, row + i, 1, state->scores + (size_t)i * CPU_KEY_BLOCK, common, n);
    }
}

static void write_means(const struct attend_state *state)
{
    const struct cpu_attention *task = state->task;
    for (int32_t row = 0; row < task->n_heads * task->n_queries; row++) {
        int32_t head = row / task->n_queries, query = row % task->n_queries;
        float *out = task->out + (size_t)query * task->out_stride + head * task->head_dim;
        const float *sums = state->sums + (size_t)row * (size_t)state->n_wide;
        double weight = state->weight[row];
        for (int32_t d = 0; d < task->head_dim; d++)
            out[d] = (float)(sums[d] / weight);
    }
}

static void attend_run(const struct cpu_attention *task)
{
    const int32_t n_rows = task->n_heads * task->n_queries;
    assert(n_rows <= CPU_ROW_BLOCK);
    assert(task->head_dim <= HOST_HEAD_DIM_MAX);
    struct attend_state state = {.task = task};
    state.n_wide = (task->head_dim + PANEL - 1) / PANEL * PANEL;
    state.keys = task->scratch;
    state.values = state.keys + CPU_KEY_BLOCK * HOST_HEAD_DIM_MAX;
    state.sums = state.values + CPU_KEY_BLOCK * HOST_HEAD_DIM_MAX;
    state.scores = state.sums + CPU_ROW_BLOCK * HOST_HEAD_DIM_MAX;
    memset(state.sums, 0, (size_t)n_rows * (size_t)state.n_wide * sizeof(float));
    for (int32_t i = 0; i < n_rows; i++)
        state.max[i] = -INFINITY;

    int32_t n_visible = 0;
    for (int32_t i = 0; i < task->n_queries; i++)
        n_visible = task->visible[i] > n_visible ? task->visible[i] : n_visible;
    for (int32_t key = 0; key < n_visible; key += CPU_KEY_BLOCK) {
        state.key_begin = key;
        state.n_keys = n_visible - key < CPU_KEY_BLOCK ? n_visible - key : CPU_KEY_BLOCK;
        pack_block(&state);
        for (int32_t head = 0; head < task->n_heads; head++) {
            for (int32_t i = 0; i < task->n_queries; i += TILE_ROWS) {
                int32_t n = task->n_queries - i;
                attend_tile(&state, head, i, n < TILE_ROWS ? n : TILE_ROWS);
            }
        }
    }
    write_means(&state);
}

#endif
