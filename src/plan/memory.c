/* Bytes of every region, from shapes alone. The formulas mirror what model and engine reserve. */
#include "plan/memory.h"

#include <assert.h>
#include <math.h>

#include "base/arena.h"

static size_t activations(const struct memory_shape *shape)
{
    size_t rows = (size_t)shape->n_rows_max, element = (size_t)shape->element_bytes;
    assert(shape->hidden > 0);
    assert(shape->head_dim > 0);
    size_t attention = 2 * (size_t)(shape->n_heads + shape->n_kv_heads) * (size_t)shape->head_dim;
    size_t mlp = 3 * (size_t)shape->ffn;
    return 4 * arena_round_up(rows * (size_t)shape->hidden * element) +
           arena_round_up(rows * (attention > mlp ? attention : mlp) * element);
}

void memory_size(struct memory_plan *plan, const struct memory_shape *shape)
{
    assert(shape->n_rows_max > 0);
    assert(shape->n_cells_max > 0);
    assert(shape->n_picks_max <= shape->n_rows_max);
    size_t numbers =
        2 * (size_t)shape->n_layers * (size_t)shape->n_kv_heads * (size_t)shape->head_dim;
    size_t slot_bytes = (size_t)ceil((double)numbers * shape->kv_element_bytes);
    assert(slot_bytes > 0);
    *plan = (struct memory_plan){
        .weights_bytes = shape->weight_bytes,
        .cache_bytes = arena_round_up((size_t)shape->n_slots * slot_bytes),
        .activation_bytes = activations(shape),
        .score_bytes = arena_round_up((size_t)shape->n_picks_max * shape->pick_bytes),
        .canvas_bytes = arena_round_up((size_t)shape->n_cells_max * sizeof(int32_t)),
        .slot_bytes = slot_bytes,
        .backend_bytes = arena_round_up(shape->backend_bytes),
    };
    plan->logits_bytes =
        arena_round_up((size_t)shape->n_rows_max * (size_t)shape->n_monolithic_ids * sizeof(float));
    plan->total_bytes = plan->weights_bytes + plan->cache_bytes + plan->activation_bytes +
                        plan->score_bytes + plan->canvas_bytes + plan->logits_bytes +
                        plan->backend_bytes;
}

bool memory_check(const struct memory_plan *plan, size_t limit_bytes, struct error *err)
{
    if (plan->total_bytes <= limit_bytes) return true;
    double mib = 1024.0 * 1024.0;
    assert(plan->total_bytes > 0);
    return error_set(
        err, ERROR_UNAVAILABLE,
        "needs %.1f MiB of memory (weights %.1f, KV cache %.1f, activations %.1f, "
        "canvases %.1f, logits %.1f, scratch %.1f), %.1f MiB allowed; lower --rows or --kv-memory, "
        "or raise --memory",
        (double)plan->total_bytes / mib, (double)plan->weights_bytes / mib,
        (double)plan->cache_bytes / mib, (double)plan->activation_bytes / mib,
        (double)plan->canvas_bytes / mib, (double)plan->logits_bytes / mib,
        (double)(plan->score_bytes + plan->backend_bytes) / mib, (double)limit_bytes / mib);
}
