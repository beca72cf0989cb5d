/* Reads config.json and generation_config.json into one struct. A table row per family says which
 * names the keys have and what the family's defaults are; everything else is the same code. */
#include "model/config.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/stream.h"

#define CONFIG_BYTES_MAX ((size_t)4 << 20)
#define HEAD_DIM_MAX     256 /* of the backends' kernels */
#define SUPPORTED        "LLaDAModelLM, DreamModel"

/* Key names differ per family; the first one present counts. */
struct family_row {
    const char *architecture, *name, *chat_name;
    int32_t shift;
    bool qkv_bias;
    int32_t gen_length, block_length;
    const char *remasking;
};

static const struct family_row FAMILIES[] = {
    [FAMILY_LLADA] = {.architecture = "LLaDAModelLM",
                      .name = "LLaDA",
                      .chat_name = "llada",
                      .gen_length = 128,
                      .block_length = 32,
                      .remasking = "low_confidence"},
    [FAMILY_DREAM] = {.architecture = "DreamModel",
                      .name = "Dream",
                      .chat_name = "dream",
                      .shift = 1,
                      .qkv_bias = true,
                      .gen_length = 128,
                      .remasking = "entropy"},
};

/* A JSON file while it is being read; the first error sticks, so that readers need no branches. */
struct reader {
    const char *path;
    const json_t *root;
    struct error *err;
    bool failed;
};

static void reader_fail(struct reader *reader, const char *key, const char *wish)
{
    if (!reader->failed)
        error_set(reader->err, ERROR_FORMAT, "%s: \"%s\" %s", reader->path, key, wish);
    reader->failed = true;
}

/* The value of the first of the two keys that is there and not null; NULL if none. */
static const json_t *reader_get(const struct reader *reader, const char *key, const char *other)
{
    assert(key);
    const json_t *value = json_object_get(reader->root, key);
    if ((!value || json_is_null(value)) && other) value = json_object_get(reader->root, other);
    return value && !json_is_null(value) ? value : NULL;
}

static int32_t read_count(struct reader *reader, const char *key, const char *other, int32_t max)
{
    assert(max > 0);
    const json_t *value = reader_get(reader, key, other);
    char wish[96];
    snprintf(wish, sizeof wish, "%s, must be an integer from 1 to %d",
             value ? "has a wrong value" : "is missing", max);
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > max) {
        reader_fail(reader, key, wish);
        return 1;
    }
    return (int32_t)json_integer_value(value);
}

static double read_number(struct reader *reader, const char *key, double fallback, double min,
                          double max)
{
    assert(min <= max);
    const json_t *value = reader_get(reader, key, NULL);
    char wish[96];
    snprintf(wish, sizeof wish, "must be a number from %g to %g", min, max);
    if (!value) return fallback;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) {
        reader_fail(reader, key, wish);
        return fallback;
    }
    return number;
}

/* A switch that must have one value, because the other is not implemented. */
static void require_bool(struct reader *reader, const char *key, bool wanted)
{
    const json_t *value = reader_get(reader, key, NULL);
    if (value && (!json_is_boolean(value) || json_boolean_value(value) != wanted))
        reader_fail(reader, key,
                    wanted ? "must be true; false is not supported"
                           : "must be false; true is not supported");
}

static void require_string(struct reader *reader, const char *key, const char *wanted)
{
    const json_t *value = reader_get(reader, key, NULL);
    char wish[96];
    snprintf(wish, sizeof wish, "must be \"%s\"; nothing else is supported", wanted);
    if (value && (!json_is_string(value) || strcmp(json_string_value(value), wanted) != 0))
        reader_fail(reader, key, wish);
}

/* A token id below n_vocab; -1 when the key is absent. */
static int32_t read_id(struct reader *reader, const char *key, int32_t n_vocab)
{
    const json_t *value = reader_get(reader, key, NULL);
    if (!value) return -1;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= n_vocab) {
        reader_fail(reader, key, "must be a token id below the vocabulary size");
        return -1;
    }
    return (int32_t)json_integer_value(value);
}

/* Adds every id of a key that holds an id or a list of ids. */
static int32_t read_stop_ids(struct reader *reader, const char *key, struct model_config *config)
{
    assert(config->n_vocab > 0);
    const json_t *value = reader_get(reader, key, NULL);
    if (!json_is_array(value)) {
        int32_t id = read_id(reader, key, config->n_vocab);
        config_add_stop_id(config, id);
        return id;
    }
    int32_t first = -1;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        if (!json_is_integer(item) || json_integer_value(item) < 0 ||
            json_integer_value(item) >= config->n_vocab) {
            reader_fail(reader, key, "must hold token ids below the vocabulary size");
            return -1;
        }
        config_add_stop_id(config, (int32_t)json_integer_value(item));
        if (first < 0) first = (int32_t)json_integer_value(item);
    }
    return first;
}

static bool find_family(struct reader *reader, struct model_config *config)
{
    const json_t *list = json_object_get(reader->root, "architectures");
    const char *architecture = json_string_value(json_array_get(list, 0));
    if (!architecture) {
        reader_fail(reader, "architectures", "is missing, must be a list with the model's class");
        return false;
    }
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++) {
        const struct family_row *row = &FAMILIES[i];
        if (strcmp(architecture, row->architecture) != 0) continue;
        config->family = (enum model_family)i;
        config->family_name = row->name;
        config->architecture = row->architecture;
        config->chat_name = row->chat_name;
        config->shift = row->shift;
        config->qkv_bias = row->qkv_bias;
        config->gen_length = row->gen_length;
        config->block_length = row->block_length;
        config->remasking = row->remasking;
        return true;
    }
    error_set(reader->err, ERROR_FORMAT,
              "%s: architecture \"%.80s\" is not supported; supported: %s", reader->path,
              architecture, SUPPORTED);
    reader->failed = true;
    return false;
}

static void read_switches(struct reader *reader, struct model_config *config)
{
    require_bool(reader, "include_bias", false);
    require_bool(reader, "alibi", false);
    require_bool(reader, "rope", true);
    require_bool(reader, "scale_logits", false);
    require_bool(reader, "input_emb_norm", false);
    require_bool(reader, "attention_layer_norm", false);
    require_bool(reader, "use_sliding_window", false);
    require_string(reader, "block_type", "llama");
    require_string(reader, "layer_norm_type", "rms");
    require_string(reader, "activation_type", "silu");
    require_string(reader, "hidden_act", "silu");
    if (reader_get(reader, "num_experts", "n_routed_experts"))
        reader_fail(reader, "num_experts", "marks a mixture of experts, which is not supported");
    if (reader_get(reader, "rope_scaling", NULL))
        reader_fail(reader, "rope_scaling", "must be null; scaled RoPE is not supported");
    const json_t *bias = reader_get(reader, "include_qkv_bias", "attention_bias");
    if (json_is_boolean(bias)) config->qkv_bias = json_boolean_value(bias);
    const json_t *tied = reader_get(reader, "weight_tying", "tie_word_embeddings");
    config->tied_head = json_is_true(tied);
}

static void read_shape(struct reader *reader, struct model_config *config)
{
    config->hidden = read_count(reader, "d_model", "hidden_size", 1 << 16);
    config->n_layers = read_count(reader, "n_layers", "num_hidden_layers", 1 << 10);
    config->n_heads = read_count(reader, "n_heads", "num_attention_heads", 1 << 10);
    config->ffn = read_count(reader, "mlp_hidden_size", "intermediate_size", 1 << 18);
    config->n_vocab = read_count(reader, "embedding_size", "vocab_size", 1 << 22);
    config->n_positions =
        read_count(reader, "max_sequence_length", "max_position_embeddings", 1 << 24);
    config->n_kv_heads = config->n_heads;
    if (reader_get(reader, "n_kv_heads", "num_key_value_heads"))
        config->n_kv_heads = read_count(reader, "n_kv_heads", "num_key_value_heads", 1 << 10);
    if (config->n_heads % config->n_kv_heads != 0)
        reader_fail(reader, "n_kv_heads", "must divide the number of heads");
    if (reader_get(reader, "head_dim", NULL))
        config->head_dim = read_count(reader, "head_dim", NULL, HEAD_DIM_MAX);
    else if (config->hidden % config->n_heads == 0)
        config->head_dim = config->hidden / config->n_heads;
    else reader_fail(reader, "n_heads", "must divide the hidden size when head_dim is not given");
    if (config->head_dim % 2 != 0 || config->head_dim > HEAD_DIM_MAX)
        reader_fail(reader, "head_dim", "must be even, for RoPE, and at most 256");
    config->rope_theta = (float)read_number(reader, "rope_theta", 10000.0, 1.0, 1e12);
    config->rms_epsilon = (float)read_number(reader, "rms_norm_eps", 1e-5, 0.0, 1.0);
}

static void read_ids(struct reader *reader, struct model_config *config)
{
    config->mask_id = read_id(reader, "mask_token_id", config->n_vocab);
    if (config->mask_id < 0)
        reader_fail(reader, "mask_token_id", "is missing: a diffusion model needs a mask token");
    config->pad_id = read_id(reader, "pad_token_id", config->n_vocab);
    config->bos_id = read_id(reader, "bos_token_id", config->n_vocab);
    config->eos_id = read_stop_ids(reader, "eos_token_id", config);
    config->eot_id = -1;
}

static int32_t read_default(struct reader *reader, const char *key, const char *other,
                            int32_t fallback)
{
    return reader_get(reader, key, other) ? read_count(reader, key, other, 1 << 24) : fallback;
}

/* generation_config.json overlays the family's defaults. */
static void read_generation(struct reader *reader, struct model_config *config, struct arena *arena)
{
    config->gen_length = read_default(reader, "gen_length", "max_new_tokens", config->gen_length);
    config->block_length = read_default(reader, "block_length", NULL, config->block_length);
    config->steps = read_default(reader, "steps", NULL, config->steps);
    config->temperature = read_number(reader, "temperature", config->temperature, 0.0, 100.0);
    config->top_p = read_number(reader, "top_p", config->top_p, 0.0, 1.0);
    config->alg_temp = read_number(reader, "alg_temp", config->alg_temp, 0.0, 100.0);
    double top_k = read_number(reader, "top_k", config->top_k, 0.0, 1 << 22);
    config->top_k = (int32_t)top_k;
    if (config->top_k != top_k) reader_fail(reader, "top_k", "must be a whole number");
    int32_t eos = read_stop_ids(reader, "eos_token_id", config);
    int32_t bos = read_id(reader, "bos_token_id", config->n_vocab);
    if (config->eos_id < 0) config->eos_id = eos;
    if (config->bos_id < 0) config->bos_id = bos;
    const json_t *remasking = reader_get(reader, "remasking", "alg");
    if (json_is_string(remasking)) {
        const char *name = json_string_value(remasking);
        const char *copy = arena_try_copy(arena, name, strlen(name));
        if (copy) config->remasking = copy;
    } else if (remasking) reader_fail(reader, "remasking", "must be a string");
}

static void config_read_main(struct reader *reader, struct model_config *config)
{
    if (!find_family(reader, config)) return;
    read_shape(reader, config);
    read_switches(reader, config);
    read_ids(reader, config);
}

bool config_read(struct model_config *config, const char *model_dir, struct arena *arena,
                 struct error *err)
{
    assert(config);
    assert(model_dir);
    char path[4096];
    struct model_config found = {.top_p = 1.0};
    if (snprintf(path, sizeof path, "%s/config.json", model_dir) >= (int)sizeof path)
        return error_set(err, ERROR_NO_INPUT, "the model folder's name is too long");
    json_t *root = json_read_object(path, CONFIG_BYTES_MAX, 0, err);
    if (!root) return false;
    struct reader reader = {.path = path, .root = root, .err = err};
    config_read_main(&reader, &found);
    json_decref(root);
    if (reader.failed) return false;

    snprintf(path, sizeof path, "%s/generation_config.json", model_dir);
    if (stream_is_named(path)) {
        root = json_read_object(path, CONFIG_BYTES_MAX, 0, err);
        if (!root) return false;
        reader = (struct reader){.path = path, .root = root, .err = err};
        read_generation(&reader, &found, arena);
        json_decref(root);
        if (reader.failed) return false;
    }
    assert(found.n_kv_heads > 0);
    *config = found;
    return true;
}

int64_t config_n_parameters(const struct model_config *config)
{
    assert(config->hidden > 0);
    assert(config->n_layers > 0);
    int64_t d = config->hidden, q = (int64_t)config->n_heads * config->head_dim;
    int64_t kv = (int64_t)config->n_kv_heads * config->head_dim;
    int64_t layer = 2 * d + (q + 2 * kv) * d + d * q + 3 * d * config->ffn;
    if (config->qkv_bias) layer += q + 2 * kv;
    int64_t tables = (config->tied_head ? 1 : 2) * (int64_t)config->n_vocab * d;
    return tables + d + config->n_layers * layer;
}

void config_add_stop_id(struct model_config *config, int32_t id)
{
    assert(config->n_stop_ids >= 0);
    assert(config->n_stop_ids <= MODEL_STOP_IDS_MAX);
    if (id < 0 || config->n_stop_ids == MODEL_STOP_IDS_MAX) return;
    for (int32_t i = 0; i < config->n_stop_ids; i++)
        if (config->stop_ids[i] == id) return;
    config->stop_ids[config->n_stop_ids++] = id;
}
