/* Which tensors a model must have, and how they become matrices in a backend's memory. One table
 * gives each part its name in every family and its shape; checking, sizing and loading walk it. */
#include "model/weights.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES 128
#define DUMMY_SEED 0x646C6C6D

/* Parts in the order in which they are checked; the fused ones are consecutive. */
enum part {
    PART_EMBEDDING,
    PART_FINAL_NORM,
    PART_HEAD,
    PART_LAYER_FIRST,
    PART_ATTN_NORM = PART_LAYER_FIRST,
    PART_Q,
    PART_K,
    PART_V,
    PART_Q_BIAS,
    PART_K_BIAS,
    PART_V_BIAS,
    PART_ATTN_OUT,
    PART_FF_NORM,
    PART_GATE,
    PART_UP,
    PART_FF_OUT,
    PART_COUNT,
};

#define LLADA_BLOCK "model.transformer.blocks.%d."
#define DREAM_LAYER "model.layers.%d."

/* %d is the layer. */
static const char *const PART_NAMES[PART_COUNT][2] = {
    [PART_EMBEDDING] = {"model.transformer.wte.weight", "model.embed_tokens.weight"},
    [PART_FINAL_NORM] = {"model.transformer.ln_f.weight", "model.norm.weight"},
    [PART_HEAD] = {"model.transformer.ff_out.weight", "lm_head.weight"},
    [PART_ATTN_NORM] = {LLADA_BLOCK "attn_norm.weight", DREAM_LAYER "input_layernorm.weight"},
    [PART_Q] = {LLADA_BLOCK "q_proj.weight", DREAM_LAYER "self_attn.q_proj.weight"},
    [PART_K] = {LLADA_BLOCK "k_proj.weight", DREAM_LAYER "self_attn.k_proj.weight"},
    [PART_V] = {LLADA_BLOCK "v_proj.weight", DREAM_LAYER "self_attn.v_proj.weight"},
    [PART_Q_BIAS] = {LLADA_BLOCK "q_proj.bias", DREAM_LAYER "self_attn.q_proj.bias"},
    [PART_K_BIAS] = {LLADA_BLOCK "k_proj.bias", DREAM_LAYER "self_attn.k_proj.bias"},
    [PART_V_BIAS] = {LLADA_BLOCK "v_proj.bias", DREAM_LAYER "self_attn.v_proj.bias"},
    [PART_ATTN_OUT] = {LLADA_BLOCK "attn_out.weight", DREAM_LAYER "self_attn.o_proj.weight"},
    [PART_FF_NORM] = {LLADA_BLOCK "ff_norm.weight", DREAM_LAYER "post_attention_layernorm.weight"},
    [PART_GATE] = {LLADA_BLOCK "ff_proj.weight", DREAM_LAYER "mlp.gate_proj.weight"},
    [PART_UP] = {LLADA_BLOCK "up_proj.weight", DREAM_LAYER "mlp.up_proj.weight"},
    [PART_FF_OUT] = {LLADA_BLOCK "ff_out.weight", DREAM_LAYER "mlp.down_proj.weight"},
};

static bool part_exists(const struct model_config *config, enum part part)
{
    assert(part < PART_COUNT);
    if (part == PART_HEAD) return !config->tied_head;
    if (part >= PART_Q_BIAS && part <= PART_V_BIAS) return config->qkv_bias;
    return true;
}

static bool part_is_vector(enum part part)
{
    return part == PART_FINAL_NORM || part == PART_ATTN_NORM || part == PART_FF_NORM ||
           (part >= PART_Q_BIAS && part <= PART_V_BIAS);
}

/* Rows (outputs) and columns (inputs); a vector is one row of `cols` numbers. */
static void part_shape(const struct model_config *config, enum part part, int32_t *rows,
                       int32_t *cols)
{
    int32_t q = config->n_heads * config->head_dim, kv = config->n_kv_heads * config->head_dim;
    *rows = 1;
    *cols = config->hidden;
    switch (part) {
    case PART_EMBEDDING:
    case PART_HEAD: *rows = config->n_vocab; break;
    case PART_Q: *rows = q; break;
    case PART_K:
    case PART_V: *rows = kv; break;
    case PART_Q_BIAS: *cols = q; break;
    case PART_K_BIAS:
    case PART_V_BIAS: *cols = kv; break;
    case PART_ATTN_OUT: *rows = config->hidden, *cols = q; break;
    case PART_GATE:
    case PART_UP: *rows = config->ffn; break;
    case PART_FF_OUT: *rows = config->hidden, *cols = config->ffn; break;
    default: break;
    }
    assert(*rows > 0);
    assert(*cols > 0);
}

static void part_name(const struct model_config *config, enum part part, int32_t layer,
                      char name[NAME_BYTES])
{
    const char *pattern = PART_NAMES[part][config->family];
    assert(pattern);
    assert(layer < config->n_layers);
    const char *mark = strstr(pattern, "%d");
    if (!mark) snprintf(name, NAME_BYTES, "%s", pattern);
    else snprintf(name, NAME_BYTES, "%.*s%d%s", (int)(mark - pattern), pattern, layer, mark + 2);
}

/* The checked tensor of a part; NULL with err set when it is missing or wrong. */
static const struct tensor *part_find(const struct model_config *config,
                                      const struct safetensors *files, enum part part,
                                      int32_t layer, struct error *err)
{
    char name[NAME_BYTES];
    int32_t rows, cols;
    part_name(config, part, layer, name);
    part_shape(config, part, &rows, &cols);
    const struct tensor *tensor = safetensors_find(files, name);
    if (!tensor) {
        error_set(err, ERROR_FORMAT, "tensor %s is missing", name);
        return NULL;
    }
    bool right = part_is_vector(part)
                     ? tensor->n_dims == 1 && tensor->shape[0] == cols
                     : tensor->n_dims == 2 && tensor->shape[0] == rows && tensor->shape[1] == cols;
    if (!right) {
        error_set(err, ERROR_FORMAT,
                  "%s: tensor %s has %d dimension(s) [%" PRId64 ", %" PRId64
                  "], config.json asks for [%d, %d]",
                  tensor->file, name, tensor->n_dims, tensor->shape[0],
                  tensor->n_dims > 1 ? tensor->shape[1] : 1, part_is_vector(part) ? cols : rows,
                  part_is_vector(part) ? 1 : cols);
        return NULL;
    }
    if (!tensor->supported) {
        error_set(err, ERROR_FORMAT, "%s: tensor %s is %s; supported are BF16, F16 and F32",
                  tensor->file, name, tensor->type_name);
        return NULL;
    }
    return tensor;
}

/* ---- sizing ---- */

struct planner {
    const struct model_config *config;
    const struct safetensors *files; /* NULL: dummy */
    const struct backend *backend;
    size_t n_bytes; /* so far, each part rounded up to the alignment of a reserve */
    struct error *err;
    bool failed;
};

/* The type of `n` fused parts, which must agree. */
static enum dtype plan_type(struct planner *planner, enum part first, int32_t n, int32_t layer)
{
    enum dtype dtype = DTYPE_BF16;
    for (int32_t i = 0; i < n && planner->files && !planner->failed; i++) {
        enum part part = (enum part)((int32_t)first + i);
        const struct tensor *tensor =
            part_find(planner->config, planner->files, part, layer, planner->err);
        if (!tensor) {
            planner->failed = true;
        } else if (i > 0 && tensor->dtype != dtype) {
            planner->failed = !error_set(
                planner->err, ERROR_FORMAT,
                "%s: tensor %s: its type differs from the one it is fused with; they must agree",
                tensor->file, tensor->name);
        } else {
            dtype = tensor->dtype;
        }
    }
    return dtype;
}

/* A weight of `n` parts, rows one after the other. */
static struct weight plan_weight(struct planner *planner, enum part first, int32_t n, int32_t layer)
{
    assert(n > 0);
    struct weight weight = {.dtype = plan_type(planner, first, n, layer)};
    for (int32_t i = 0; i < n; i++) {
        int32_t rows;
        part_shape(planner->config, (enum part)((int32_t)first + i), &rows, &weight.n_in);
        weight.n_out += rows;
    }
    planner->n_bytes += arena_round_up(
        backend_weight_bytes(planner->backend, weight.n_out, weight.n_in, weight.dtype));
    return weight;
}

/* A vector of `n` parts, kept in f32. */
static struct matrix plan_vector(struct planner *planner, enum part first, int32_t n, int32_t layer)
{
    assert(part_is_vector(first));
    struct matrix vector = {.n_rows = 1, .dtype = DTYPE_F32};
    for (int32_t i = 0; i < n; i++) {
        int32_t rows, cols;
        enum part part = (enum part)((int32_t)first + i);
        plan_type(planner, part, 1, layer);
        part_shape(planner->config, part, &rows, &cols);
        vector.n_cols += cols;
    }
    planner->n_bytes += arena_round_up((size_t)vector.n_cols * sizeof(float));
    return vector;
}

static void plan_layer(struct planner *planner, struct layer_weights *layer, int32_t index)
{
    layer->attn_norm = plan_vector(planner, PART_ATTN_NORM, 1, index);
    layer->qkv = plan_weight(planner, PART_Q, 3, index);
    if (planner->config->qkv_bias) layer->qkv_bias = plan_vector(planner, PART_Q_BIAS, 3, index);
    layer->attn_out = plan_weight(planner, PART_ATTN_OUT, 1, index);
    layer->ff_norm = plan_vector(planner, PART_FF_NORM, 1, index);
    layer->gate_up = plan_weight(planner, PART_GATE, 2, index);
    layer->ff_out = plan_weight(planner, PART_FF_OUT, 1, index);
}

bool weights_plan(struct weights *weights, const struct weights_source *source, struct arena *run,
                  size_t *n_bytes, struct error *err)
{
    const struct model_config *config = source->config;
    assert(source->n_positions > 0);
    assert(config->n_layers > 0);
    struct planner planner = {
        .config = config, .files = source->files, .backend = source->backend, .err = err};
    struct weights found = {0};
    found.layers = arena_push(run, (size_t)config->n_layers, sizeof *found.layers);
    found.embedding = (struct matrix){.n_rows = config->n_vocab,
                                      .n_cols = config->hidden,
                                      .dtype = plan_type(&planner, PART_EMBEDDING, 1, 0)};
    planner.n_bytes += arena_round_up((size_t)config->n_vocab * (size_t)config->hidden *
                                      dtype_bytes(found.embedding.dtype));
    found.final_norm = plan_vector(&planner, PART_FINAL_NORM, 1, 0);
    found.head = plan_weight(&planner, config->tied_head ? PART_EMBEDDING : PART_HEAD, 1, 0);
    found.rope_table = (struct matrix){
        .n_rows = source->n_positions, .n_cols = config->head_dim, .dtype = DTYPE_F32};
    planner.n_bytes +=
        arena_round_up((size_t)source->n_positions * (size_t)config->head_dim * sizeof(float));
    for (int32_t i = 0; i < config->n_layers && !planner.failed; i++)
        plan_layer(&planner, &found.layers[i], i);
    if (planner.failed) return false;
    *weights = found;
    *n_bytes = planner.n_bytes;
    return true;
}

/* ---- loading ---- */

struct loader {
    const struct model_config *config;
    const struct safetensors *files; /* NULL: dummy */
    struct backend *backend;
    struct arena *scratch;
    uint64_t n_dummies; /* numbers taken from the sequence so far */
};

/* Uniform with variance 1 / n_in (1 for the embedding), so that activations stay of order one
 * through the layers. */
static void load_dummy(struct loader *loader, struct weight target, bool is_matrix)
{
    assert(target.n_in > 0);
    struct dummy_args args = {.target = target,
                              .is_matrix = is_matrix,
                              .seed = DUMMY_SEED,
                              .first = loader->n_dummies,
                              .scale = sqrtf(12.0f / (is_matrix ? 1.0f : (float)target.n_in))};
    backend_fill_dummy(loader->backend, &args);
    loader->n_dummies += (uint64_t)target.n_out * (uint64_t)target.n_in;
}

static void load_weight(struct loader *loader, struct weight *weight, enum part first, int32_t n,
                        int32_t layer)
{
    weight->data = backend_reserve(
        loader->backend, REGION_WEIGHTS,
        backend_weight_bytes(loader->backend, weight->n_out, weight->n_in, weight->dtype));
    if (!loader->files) {
        load_dummy(loader, *weight, false);
        return;
    }
    int32_t begin = 0;
    for (int32_t i = 0; i < n; i++) {
        enum part part = (enum part)((int32_t)first + i);
        const struct tensor *tensor = part_find(loader->config, loader->files, part, layer, NULL);
        assert(tensor);
        backend_upload_weight(loader->backend, *weight, begin, (int32_t)tensor->shape[0],
                              tensor->data);
        begin += (int32_t)tensor->shape[0];
    }
    assert(begin == weight->n_out);
}

/* One stored number as f32; tensors in a mapped file may be unaligned. */
static float read_number(const struct tensor *tensor, size_t i)
{
    uint16_t half;
    float number;
    assert(tensor->supported);
    assert((i + 1) * dtype_bytes(tensor->dtype) <= tensor->n_bytes);
    if (tensor->dtype == DTYPE_F32) {
        memcpy(&number, (const char *)tensor->data + 4 * i, 4);
        return number;
    }
    memcpy(&half, (const char *)tensor->data + 2 * i, 2);
    return tensor->dtype == DTYPE_BF16 ? dtype_f32_from_bf16(half) : dtype_f32_from_f16(half);
}

static void load_vector(struct loader *loader, struct matrix *vector, enum part first, int32_t n,
                        int32_t layer)
{
    size_t mark = loader->scratch->used_bytes, filled = 0;
    float *numbers = arena_push(loader->scratch, (size_t)vector->n_cols, sizeof *numbers);
    for (int32_t i = 0; i < n; i++) {
        enum part part = (enum part)((int32_t)first + i);
        const struct tensor *tensor =
            loader->files ? part_find(loader->config, loader->files, part, layer, NULL) : NULL;
        int32_t rows, cols;
        part_shape(loader->config, part, &rows, &cols);
        bool is_norm = part < PART_Q_BIAS || part > PART_V_BIAS;
        for (size_t j = 0; j < (size_t)cols; j++)
            numbers[filled + j] = tensor ? read_number(tensor, j) : is_norm ? 1.0f : 0.0f;
        filled += (size_t)cols;
    }
    assert(filled == (size_t)vector->n_cols);
    vector->data =
        backend_reserve(loader->backend, REGION_WEIGHTS, (size_t)vector->n_cols * sizeof(float));
    backend_upload(loader->backend, *vector, numbers);
    arena_rewind(loader->scratch, mark);
}

static void load_embedding(struct loader *loader, struct matrix *embedding)
{
    size_t n = (size_t)embedding->n_rows * (size_t)embedding->n_cols;
    embedding->data =
        backend_reserve(loader->backend, REGION_WEIGHTS, n * dtype_bytes(embedding->dtype));
    if (loader->files) {
        const struct tensor *tensor =
            part_find(loader->config, loader->files, PART_EMBEDDING, 0, NULL);
        assert(tensor);
        backend_upload(loader->backend, *embedding, tensor->data);
        return;
    }
    load_dummy(loader,
               (struct weight){embedding->data, embedding->n_rows, embedding->n_cols, DTYPE_BF16},
               true);
}

/* cos and sin at position * theta^(-2i/D); frequency and angle are f32 products, as the models were
 * trained (models' reference code; its cos and sin are then exact enough in double). */
static void load_rope_table(struct loader *loader, struct matrix *table)
{
    int32_t half = table->n_cols / 2;
    assert(table->n_cols % 2 == 0);
    assert(table->dtype == DTYPE_F32);
    size_t mark = loader->scratch->used_bytes;
    size_t n = (size_t)table->n_rows * (size_t)table->n_cols;
    float *numbers = arena_push(loader->scratch, n, sizeof *numbers);
    for (int32_t i = 0; i < half; i++) {
        double exponent = -2.0 * i / table->n_cols;
        float frequency = (float)pow(loader->config->rope_theta, exponent);
        for (int32_t position = 0; position < table->n_rows; position++) {
            float angle = (float)position * frequency;
            float *row = numbers + (size_t)position * (size_t)table->n_cols;
            row[i] = (float)cos((double)angle);
            row[half + i] = (float)sin((double)angle);
        }
    }
    table->data = backend_reserve(loader->backend, REGION_WEIGHTS, n * sizeof(float));
    backend_upload(loader->backend, *table, numbers);
    arena_rewind(loader->scratch, mark);
}

void weights_load(struct weights *weights, const struct weights_source *source, struct arena *run)
{
    const struct model_config *config = source->config;
    assert(weights->layers);
    assert(weights->embedding.data == NULL);
    struct loader loader = {
        .config = config, .files = source->files, .backend = source->backend, .scratch = run};
    load_embedding(&loader, &weights->embedding);
    load_vector(&loader, &weights->final_norm, PART_FINAL_NORM, 1, 0);
    load_weight(&loader, &weights->head, config->tied_head ? PART_EMBEDDING : PART_HEAD, 1, 0);
    load_rope_table(&loader, &weights->rope_table);
    for (int32_t i = 0; i < config->n_layers; i++) {
        struct layer_weights *layer = &weights->layers[i];
        load_vector(&loader, &layer->attn_norm, PART_ATTN_NORM, 1, i);
        load_weight(&loader, &layer->qkv, PART_Q, 3, i);
        if (config->qkv_bias) load_vector(&loader, &layer->qkv_bias, PART_Q_BIAS, 3, i);
        load_weight(&loader, &layer->attn_out, PART_ATTN_OUT, 1, i);
        load_vector(&loader, &layer->ff_norm, PART_FF_NORM, 1, i);
        load_weight(&loader, &layer->gate_up, PART_GATE, 2, i);
        load_weight(&loader, &layer->ff_out, PART_FF_OUT, 1, i);
    }
}

/* ---- inspection ---- */

int32_t weights_inspect(const struct model_config *config, const char *model_dir,
                        struct arena *arena, void (*problem)(void *context, const char *message),
                        void *context, int64_t *n_bytes)
{
    assert(problem);
    assert(n_bytes);
    struct safetensors files;
    struct error err = {0};
    int32_t n_right = 0;
    *n_bytes = 0;
    if (!safetensors_open(&files, model_dir, arena, &err)) {
        problem(context, err.message);
        return 0;
    }
    for (int32_t i = 0; i < files.n_tensors; i++)
        *n_bytes += (int64_t)files.tensors[i].n_bytes;
    for (int32_t layer = 0; layer < config->n_layers; layer++) {
        int32_t first = layer == 0 ? 0 : PART_LAYER_FIRST;
        for (int32_t part = first; part < PART_COUNT; part++) {
            if (!part_exists(config, (enum part)part)) continue;
            if (part_find(config, &files, (enum part)part, layer, &err)) n_right++;
            else problem(context, err.message);
        }
    }
    safetensors_close(&files);
    return n_right;
}
