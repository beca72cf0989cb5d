/* The transformer in backend ops. A layer reads as its formula; the last one narrows to the rows
 * that meet the vocabulary. */
#include "model/forward.h"

#include <assert.h>
#include <math.h>

/* Of one number of an activation. */
static size_t element_bytes(const struct model *model)
{
    return dtype_bytes(model->backend->activation);
}

static size_t hidden_bytes(const struct model *model, int32_t n_rows_max)
{
    return arena_round_up((size_t)n_rows_max * (size_t)model->config.hidden * element_bytes(model));
}

static size_t wide_bytes(const struct model *model, int32_t n_rows_max)
{
    const struct model_config *config = &model->config;
    size_t attention =
        2 * (size_t)(config->n_heads + config->n_kv_heads) * (size_t)config->head_dim;
    size_t mlp = 3 * (size_t)config->ffn;
    return arena_round_up((size_t)n_rows_max * (attention > mlp ? attention : mlp) *
                          element_bytes(model));
}

size_t forward_bytes(const struct model *model, int32_t n_rows_max)
{
    return 4 * hidden_bytes(model, n_rows_max) + wide_bytes(model, n_rows_max);
}

/* Of the keys of one layer; as many for its values. */
static size_t keys_bytes(const struct model *model, int64_t n_slots)
{
    const struct model_config *config = &model->config;
    assert(n_slots >= 0);
    return (size_t)n_slots * (size_t)config->n_kv_heads * (size_t)config->head_dim *
           element_bytes(model);
}

void forward_init(struct forward *forward, const struct model *model, int32_t n_rows_max,
                  int64_t n_slots)
{
    assert(n_rows_max > 0);
    struct backend *backend = model->backend;
    size_t n_bytes = hidden_bytes(model, n_rows_max);
    size_t cache_bytes = 2 * (size_t)model->config.n_layers * keys_bytes(model, n_slots);
    *forward = (struct forward){
        .model = model,
        .n_rows_max = n_rows_max,
        .x = backend_reserve(backend, REGION_SCRATCH, n_bytes),
        .normed = backend_reserve(backend, REGION_SCRATCH, n_bytes),
        .picked = backend_reserve(backend, REGION_SCRATCH, n_bytes),
        .picked_normed = backend_reserve(backend, REGION_SCRATCH, n_bytes),
        .wide = backend_reserve(backend, REGION_SCRATCH, wide_bytes(model, n_rows_max)),
        .n_slots = n_slots,
        .cache = n_slots > 0 ? backend_reserve(backend, REGION_CACHE, cache_bytes) : NULL,
    };
}

static struct matrix rows_of(const struct forward *forward, void *data, int32_t n_rows,
                             int32_t n_cols)
{
    assert(data);
    assert(n_cols > 0);
    enum dtype dtype = forward->model->backend->activation;
    return (struct matrix){.data = data, .n_rows = n_rows, .n_cols = n_cols, .dtype = dtype};
}

/* What lies behind a matrix. */
static void *end_of(struct matrix matrix)
{
    size_t n = (size_t)matrix.n_rows * (size_t)matrix.n_cols;
    assert(matrix.data);
    return (uint8_t *)matrix.data + n * dtype_bytes(matrix.dtype);
}

/* normed = norm of (x + add), x += add; `add` with data NULL adds nothing. */
static void norm(const struct forward *forward, struct matrix out, struct matrix x,
                 struct matrix add, struct matrix weight)
{
    backend_rms_norm(forward->model->backend,
                     &(struct rms_norm_args){.out = out,
                                             .sum = add.data ? x : (struct matrix){0},
                                             .x = x,
                                             .add = add,
                                             .weight = weight,
                                             .epsilon = forward->model->config.rms_epsilon});
}

static void linear(const struct forward *forward, struct matrix out, struct matrix x,
                   struct weight weight, struct matrix bias, int32_t out_begin)
{
    backend_linear(forward->model->backend,
                   &(struct linear_args){
                       .out = out, .x = x, .weight = weight, .bias = bias, .out_begin = out_begin});
}

static void rope(const struct forward *forward, struct matrix x, int32_t n_heads, bool picked)
{
    backend_rope(forward->model->backend,
                 &(struct rope_args){.x = x,
                                     .table = forward->model->weights.rope_table,
                                     .n_heads = n_heads,
                                     .head_dim = forward->model->config.head_dim,
                                     .picked = picked});
}

static struct kv_cache cache_of(const struct forward *forward, int32_t layer_index)
{
    size_t n_bytes = keys_bytes(forward->model, forward->n_slots);
    assert(layer_index < forward->model->config.n_layers);
    if (!forward->cache) return (struct kv_cache){0};
    uint8_t *keys = forward->cache + 2 * (size_t)layer_index * n_bytes;
    return (struct kv_cache){.keys = keys, .values = keys + n_bytes, .n_slots = forward->n_slots};
}

/* A layer's work as its functions need it. */
struct pass {
    const struct forward *forward;
    const struct forward_keeps *keeps;
    const struct layer_weights *layer;
    struct kv_cache cache;
};

static void attend(const struct pass *pass, struct matrix out, struct matrix query,
                   struct kv_rows fresh, bool picked)
{
    const struct forward *forward = pass->forward;
    const struct model_config *config = &forward->model->config;
    backend_attend(forward->model->backend,
                   &(struct attend_args){.out = out,
                                         .query = query,
                                         .n_heads = config->n_heads,
                                         .fresh = fresh,
                                         .cache = pass->cache,
                                         .scale = 1.0f / sqrtf((float)config->head_dim),
                                         .picked = picked});
}

static void select_kv(const struct pass *pass, struct matrix query, struct kv_rows fresh,
                      const struct select_sequence *sequences, int32_t n)
{
    const struct model_config *config = &pass->forward->model->config;
    if (n == 0) return;
    assert(pass->cache.keys);
    backend_select_kv(pass->forward->model->backend,
                      &(struct select_kv_args){.cache = pass->cache,
                                               .fresh = fresh,
                                               .query = query,
                                               .n_heads = config->n_heads,
                                               .sequences = sequences,
                                               .n = n,
                                               .scale = 1.0f / sqrtf((float)config->head_dim),
                                               .shared = sequences == pass->keeps->shared});
}

static bool selects(const struct forward_keeps *keeps)
{
    assert(keeps->n_by_head >= 0);
    return keeps->n_by_head + keeps->n_shared > 0;
}

/* What later iterations will see of this one's rows. `query` of all rows is read if something is
 * selected. */
static void keep(const struct pass *pass, struct matrix query, struct kv_rows fresh)
{
    const struct forward_keeps *keeps = pass->keeps;
    select_kv(pass, query, fresh, keeps->by_head, keeps->n_by_head);
    select_kv(pass, query, fresh, keeps->shared, keeps->n_shared);
    if (keeps->n_stores == 0) return;
    assert(pass->cache.keys);
    backend_store_kv(pass->forward->model->backend, &(struct store_kv_args){.cache = pass->cache,
                                                                            .fresh = fresh,
                                                                            .rows = keeps->stores,
                                                                            .n = keeps->n_stores});
}

/* Attention of all rows. Returns the projected output, which overwrites `normed`. */
static struct matrix attention_all(const struct pass *pass, struct matrix normed)
{
    const struct forward *forward = pass->forward;
    const struct layer_weights *layer = pass->layer;
    const struct model_config *config = &forward->model->config;
    int32_t q = config->n_heads * config->head_dim, kv = config->n_kv_heads * config->head_dim;
    int32_t n = normed.n_rows;
    struct matrix qkv = rows_of(forward, forward->wide, n, q + 2 * kv);
    struct matrix out = rows_of(forward, end_of(qkv), n, q);
    assert(n <= forward->n_rows_max);
    assert(layer->qkv.n_out == q + 2 * kv);
    linear(forward, qkv, normed, layer->qkv, layer->qkv_bias, 0);
    rope(forward, qkv, config->n_heads + config->n_kv_heads, false);
    struct kv_rows fresh = {.x = qkv,
                            .key_col = q,
                            .value_col = q + kv,
                            .n_kv_heads = config->n_kv_heads,
                            .head_dim = config->head_dim};
    attend(pass, out, qkv, fresh, false);
    keep(pass, qkv, fresh);
    linear(forward, normed, out, layer->attn_out, (struct matrix){0}, 0);
    return normed;
}

/* Attention of the picked rows over all rows; all rows give keys and values only. */
static struct matrix attention_picked(const struct pass *pass, struct matrix normed,
                                      struct matrix picked_normed)
{
    const struct forward *forward = pass->forward;
    const struct layer_weights *layer = pass->layer;
    const struct model_config *config = &forward->model->config;
    int32_t q = config->n_heads * config->head_dim, kv = config->n_kv_heads * config->head_dim;
    int32_t n = normed.n_rows, n_picks = picked_normed.n_rows;
    assert(n_picks <= n); /* so q and out fit where all rows' would */
    struct matrix key_value = rows_of(forward, forward->wide, n, 2 * kv);
    struct matrix query = rows_of(forward, end_of(key_value), n_picks, q);
    struct matrix all_queries = rows_of(forward, end_of(key_value), n, q);
    struct matrix out = rows_of(forward, end_of(query), n_picks, q);
    linear(forward, key_value, normed, layer->qkv, layer->qkv_bias, q);
    rope(forward, key_value, config->n_kv_heads, false);
    struct kv_rows fresh = {.x = key_value,
                            .value_col = kv,
                            .n_kv_heads = config->n_kv_heads,
                            .head_dim = config->head_dim};
    if (selects(pass->keeps)) { /* by the queries of whole windows, for which there is room now */
        linear(forward, all_queries, normed, layer->qkv, layer->qkv_bias, 0);
        rope(forward, all_queries, config->n_heads, false);
    }
    keep(pass, all_queries, fresh);
    linear(forward, query, picked_normed, layer->qkv, layer->qkv_bias, 0);
    rope(forward, query, config->n_heads, true);
    attend(pass, out, query, fresh, true);
    linear(forward, picked_normed, out, layer->attn_out, (struct matrix){0}, 0);
    return picked_normed;
}

/* x += attention; the MLP's output overwrites `normed` and is returned, to be added by the next
 * norm. */
static struct matrix mlp(const struct forward *forward, const struct layer_weights *layer,
                         struct matrix x, struct matrix attention)
{
    int32_t ffn = forward->model->config.ffn;
    struct matrix normed = attention;
    assert(layer->gate_up.n_out == 2 * ffn);
    assert(attention.n_rows == x.n_rows);
    struct matrix gate_up = rows_of(forward, forward->wide, x.n_rows, 2 * ffn);
    struct matrix act = rows_of(forward, end_of(gate_up), x.n_rows, ffn);
    norm(forward, normed, x, attention, layer->ff_norm);
    linear(forward, gate_up, normed, layer->gate_up, (struct matrix){0}, 0);
    backend_gated_act(forward->model->backend, &(struct gated_act_args){.out = act, .x = gate_up});
    linear(forward, normed, act, layer->ff_out, (struct matrix){0}, 0);
    return normed;
}

static struct matrix gather(const struct forward *forward, void *data, struct matrix x)
{
    struct backend *backend = forward->model->backend;
    struct matrix out = rows_of(forward, data, backend->batch->n_picks, x.n_cols);
    backend_gather_rows(backend, &(struct gather_rows_args){.out = out, .x = x});
    return out;
}

/* Layers [0, n) for all rows: x, and the last MLP's output, still to be added. */
static struct matrix run_layers(struct pass *pass, struct matrix x, struct matrix normed, int32_t n)
{
    const struct forward *forward = pass->forward;
    struct matrix add = {0};
    assert(n <= forward->model->config.n_layers);
    for (int32_t i = 0; i < n; i++) {
        pass->layer = &forward->model->weights.layers[i];
        pass->cache = cache_of(forward, i);
        norm(forward, normed, x, add, pass->layer->attn_norm);
        add = mlp(forward, pass->layer, x, attention_all(pass, normed));
    }
    return add;
}

struct matrix forward_run_monolithic(struct forward *forward, struct matrix canvas,
                                     const struct forward_keeps *keeps, struct matrix logits)
{
    const struct model *model = forward->model;
    const struct weights *weights = &model->weights;
    int32_t n = model->backend->batch->n_rows;
    struct matrix x = rows_of(forward, forward->x, n, model->config.hidden);
    struct matrix normed = rows_of(forward, forward->normed, n, model->config.hidden);
    struct pass pass = {.forward = forward, .keeps = keeps};
    assert(logits.n_rows == n);
    backend_embed(model->backend,
                  &(struct embed_args){.out = x, .table = weights->embedding, .canvas = canvas});
    struct matrix add = run_layers(&pass, x, normed, model->config.n_layers);
    norm(forward, normed, x, add, weights->final_norm);
    linear(forward, logits, normed, weights->head, (struct matrix){0}, 0);
    return gather(forward, forward->picked_normed, normed);
}

struct matrix forward_run(struct forward *forward, struct matrix canvas,
                          const struct forward_keeps *keeps)
{
    const struct model *model = forward->model;
    const struct weights *weights = &model->weights;
    const struct batch *batch = model->backend->batch;
    assert(batch);
    assert(batch->n_rows <= forward->n_rows_max);
    assert(batch->n_picks <= forward->n_rows_max);
    int32_t last = model->config.n_layers - 1;
    struct matrix x = rows_of(forward, forward->x, batch->n_rows, model->config.hidden);
    struct matrix normed = rows_of(forward, forward->normed, batch->n_rows, model->config.hidden);
    backend_embed(model->backend,
                  &(struct embed_args){.out = x, .table = weights->embedding, .canvas = canvas});
    struct pass pass = {.forward = forward, .keeps = keeps};
    struct matrix add = run_layers(&pass, x, normed, last);
    const struct layer_weights *layer = &weights->layers[last];
    pass.layer = layer;
    pass.cache = cache_of(forward, last);
    norm(forward, normed, x, add, layer->attn_norm);
    struct matrix picked = gather(forward, forward->picked, x);
    struct matrix picked_normed = gather(forward, forward->picked_normed, normed);
    add = mlp(forward, layer, picked, attention_picked(&pass, normed, picked_normed));
    norm(forward, picked_normed, picked, add, weights->final_norm);
    return picked_normed;
}
