/* JSON to struct request. Settings that a case does not give are the ones of the shared goldens:
 * greedy, low confidence, no early stop. */
#include "golden/cases.h"

#include <stdlib.h>
#include <string.h>

static double number(const json_t *json, const char *key, double fallback)
{
    const json_t *value = json_object_get(json, key);
    return json_is_number(value) ? json_number_value(value) : fallback;
}

static int32_t count(const json_t *json, const char *key, int32_t fallback)
{
    return (int32_t)number(json, key, fallback);
}

static const int32_t *ids(const json_t *list, struct arena *arena, int32_t *n)
{
    *n = (int32_t)json_array_size(list);
    int32_t *out = arena_push(arena, (size_t)*n, sizeof *out);
    for (int32_t i = 0; i < *n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return out;
}

static enum remasking remasking(const json_t *json)
{
    static const char *const names[REMASKING_COUNT] = {[REMASKING_LOW_CONFIDENCE] =
                                                           "low_confidence",
                                                       [REMASKING_RANDOM] = "random",
                                                       [REMASKING_ORIGIN] = "origin",
                                                       [REMASKING_MASKGIT_PLUS] = "maskgit_plus",
                                                       [REMASKING_TOPK_MARGIN] = "topk_margin",
                                                       [REMASKING_ENTROPY] = "entropy"};
    const char *name = json_string_value(json_object_get(json, "remasking"));
    for (int32_t i = 0; name && i < REMASKING_COUNT; i++)
        if (strcmp(names[i], name) == 0) return (enum remasking)i;
    return REMASKING_LOW_CONFIDENCE;
}

static enum cache_kind cache_kind(const json_t *json)
{
    static const char *const names[] = {"none", "prefix", "dual", "sparse"};
    const char *name = json_string_value(json_object_get(json, "cache"));
    for (int i = 0; name && i < 4; i++)
        if (strcmp(names[i], name) == 0) return (enum cache_kind)i;
    return CACHE_NONE;
}

static struct decode_settings settings(const json_t *json)
{
    return (struct decode_settings){
        .gen_length = count(json, "gen_length", 0),
        .block_length = count(json, "block_length", 0),
        .steps = count(json, "steps", 0),
        .remasking = remasking(json),
        .temperature = number(json, "temperature", 0),
        .top_p = number(json, "top_p", 1),
        .alg_temp = number(json, "alg_temp", 0),
        .cfg_scale = number(json, "cfg_scale", 0),
        .threshold = number(json, "threshold", 0),
        .factor = number(json, "factor", 0),
        .top_k = count(json, "top_k", 0),
        .seed = (uint64_t)number(json, "seed", 0),
        .early_stop = json_is_true(json_object_get(json, "early_stop")),
        .logits_eos_inf = json_is_true(json_object_get(json, "logits_eos_inf")),
        .confidence_eos_eot_inf = json_is_true(json_object_get(json, "confidence_eos_eot_inf")),
        .cache = cache_kind(json),
        .retention = number(json, "retention", 1),
        .delay = count(json, "delay", 1),
        .shared_select = json_is_false(json_object_get(json, "head_select")),
        .refresh_every = count(json, "refresh_every", 0),
        .prompt_refresh_every = count(json, "prompt_refresh_every", 1),
        .suffix_window = count(json, "suffix_window", 0),
    };
}

static void read_case(struct golden_case *out, const json_t *json, int32_t index,
                      struct arena *arena)
{
    const char *hash = json_string_value(json_object_get(json, "id_hash"));
    *out = (struct golden_case){.json = json};
    struct request *request = &out->request;
    request->index = index;
    request->id = json_string_value(json_object_get(json, "id"));
    request->id_hash = hash ? strtoull(hash, NULL, 16) : 0;
    request->decode = settings(json);
    request->want_logprobs = true;
    request->prompt_ids = ids(json_object_get(json, "prompt_token_ids"), arena, &request->n_prompt);
    out->expect = ids(json_object_get(json, "expect"), arena, &out->n_expect);
}

bool cases_read(const char *path, struct arena *arena, json_t **root, struct golden_case **cases,
                int32_t *n_cases, struct error *err)
{
    json_error_t where;
    *root = json_load_file(path, 0, &where);
    if (!json_is_array(*root))
        return error_set(err, ERROR_FORMAT, "%s:%d: %s", path, where.line, where.text);
    *cases = arena_push(arena, json_array_size(*root), sizeof **cases);
    *n_cases = 0;
    for (size_t i = 0; i < json_array_size(*root); i++) {
        const json_t *json = json_array_get(*root, i);
        read_case(&(*cases)[*n_cases], json, *n_cases, arena);
        (*n_cases)++;
    }
    return true;
}
