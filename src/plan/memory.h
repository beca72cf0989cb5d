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
    int32_t n_positions;
    size_t weight_bytes;  /* all weights in the backend's layout */
    size_t backend_bytes; /* what the backend's ops need inside */
    int32_t n_rows_max;   /* rows of an iteration */
    int32_t n_picks_max;  /* rows that meet the vocabulary in an iteration */
    size_t pick_bytes;    /* what score leaves per such row */
    int64_t n_cells_max;  /* canvas cells of a window */
    int64_t n_slots;      /* KV slots per layer */
    int32_t kv_element_bytes;
};

struct memory_plan {
    size_t weights_bytes, cache_bytes, activation_bytes, score_bytes, canvas_bytes, backend_bytes;
    size_t total_bytes;
};

void memory_size(struct memory_plan *plan, const struct memory_shape *shape);

/* True when the plan fits `limit_bytes`; else ERROR_UNAVAILABLE with both figures and the option to
 * change. */
bool memory_check(const struct memory_plan *plan, size_t limit_bytes, struct error *err);

#endif
