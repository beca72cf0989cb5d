/* A profile's file is an object of objects, {"bytes_per_s": {"value": 1e12, "source": "..."}}, so
 * that each figure says where it comes from. The first error sticks; readers need no branches. */
#include "app/profile.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "app/app.h"
#include "app/describe.h"
#include "base/json.h"
#include "base/stream.h"

enum { PROFILE_BYTES_MAX = 1 << 20, PATH_BYTES_MAX = 4096 };

struct reader {
    const char *path;
    const json_t *root;
    bool failed;
    struct error *err;
};

static void fail(struct reader *reader, const char *key, const json_t *value, const char *wish)
{
    assert(wish[0] != '\0');
    char text[DESCRIBE_BYTES_MAX];
    if (!reader->failed)
        error_set(reader->err, ERROR_FORMAT, "%s: \"%s\" is %s, must be %s", reader->path, key,
                  value != NULL ? describe_json(value, text) : "missing", wish);
    reader->failed = true;
}

/* The "value" of a field that also has a "source". */
static const json_t *field_value(struct reader *reader, const char *key)
{
    assert(key[0] != '\0');
    const json_t *field = json_object_get(reader->root, key);
    if (!json_is_object(field) || !json_is_string(json_object_get(field, "source")))
        fail(reader, key, field, "an object with \"value\" and \"source\"");
    return json_object_get(field, "value");
}

static double check_number(struct reader *reader, const char *key, const json_t *value, double min,
                           double max)
{
    assert(key[0] != '\0');
    double number = json_number_value(value);
    char wish[64];
    snprintf(wish, sizeof wish, "a number from %g to %g", min, max);
    if (json_is_number(value) && number >= min && number <= max) return number;
    fail(reader, key, value, wish);
    return min;
}

static double read_number(struct reader *reader, const char *key, double min, double max)
{
    assert(reader->path != NULL);
    return check_number(reader, key, field_value(reader, key), min, max);
}

static void read_rates(struct reader *reader, struct cost_profile *profile)
{
    const json_t *list = field_value(reader, "rates");
    size_t n = json_array_size(list);
    char wish[96];
    snprintf(wish, sizeof wish, "a list of 1 to %d objects with rows and flops_per_s",
             COST_RATES_MAX);
    if (n < 1 || n > COST_RATES_MAX) {
        fail(reader, "rates", list, wish);
        return;
    }
    int32_t n_rows_min = 1;
    for (size_t i = 0; i < n && !reader->failed; i++) {
        const json_t *row = json_array_get(list, i);
        assert(row != NULL);
        char key[48];
        snprintf(key, sizeof key, "rates[%zu].rows", i);
        profile->rates[i].n_rows =
            (int32_t)check_number(reader, key, json_object_get(row, "rows"), n_rows_min, 1 << 24);
        n_rows_min = profile->rates[i].n_rows + 1;
        snprintf(key, sizeof key, "rates[%zu].flops_per_s", i);
        profile->rates[i].flops_per_s =
            check_number(reader, key, json_object_get(row, "flops_per_s"), 1, 1e20);
    }
    profile->n_rates = (int32_t)n;
}

static void read_fields(struct reader *reader, struct cost_profile *profile)
{
    const json_t *name = json_object_get(reader->root, "name");
    const json_t *measured = json_object_get(reader->root, "measured");
    if (json_string_length(name) < 1 || json_string_length(name) >= COST_NAME_MAX)
        fail(reader, "name", name, "a text of 1 to 63 bytes");
    else strcpy(profile->name, json_string_value(name));
    if (!json_is_boolean(measured)) fail(reader, "measured", measured, "true or false");
    profile->is_measured = json_is_true(measured);
    profile->base_ns = read_number(reader, "base_ns", 0, 1e12);
    profile->bytes_per_s = read_number(reader, "bytes_per_s", 1, 1e18);
    profile->attention_flops_per_s = read_number(reader, "attention_flops_per_s", 1, 1e20);
    profile->memory_bytes = (uint64_t)read_number(reader, "memory_bytes", 1 << 20, 1e15);
    profile->kv_element_bytes = read_number(reader, "kv_element_bytes", 0.5, 8);
    read_rates(reader, profile);
    assert(reader->failed || profile->n_rates >= 1);
}

/* `path` [PATH_BYTES_MAX]: the file that `name` means. */
static bool find_file(const char *name, char *path, struct error *err)
{
    size_t n = strlen(name);
    bool is_file = strchr(name, '/') != NULL || (n > 5 && strcmp(name + n - 5, ".json") == 0);
    char relative[PATH_BYTES_MAX];
    assert(path != NULL);
    snprintf(relative, sizeof relative, "profiles/%s.json", name);
    if (!is_file && app_find_data(relative, path, PATH_BYTES_MAX)) return true;
    if (!is_file)
        return error_set(err, ERROR_NO_INPUT,
                         "no profile '%s' ships with this program; give rtx4090, l40s, h200 or a "
                         "file NAME.json",
                         name);
    if (snprintf(path, PATH_BYTES_MAX, "%s", name) < PATH_BYTES_MAX) return true;
    return error_set(err, ERROR_NO_INPUT, "the profile's name is too long");
}

bool profile_read(struct cost_profile *profile, const char *name, struct error *err)
{
    char path[PATH_BYTES_MAX];
    struct arena arena;
    struct bytes text;
    struct cost_profile found = {0};
    assert(name != NULL);
    if (!find_file(name, path, err)) return false;
    if (!arena_create(&arena, PROFILE_BYTES_MAX + 64, err)) return false;
    json_t *root = NULL;
    json_error_t where;
    bool is_ok = stream_read_file(path, PROFILE_BYTES_MAX, &arena, &text, err);
    if (is_ok) {
        root = json_read(text, JSON_REJECT_DUPLICATES, &where);
        is_ok = json_is_object(root);
        if (!is_ok && root == NULL)
            error_set(err, ERROR_FORMAT, "%s:%d: %s", path, where.line, where.text);
        else if (!is_ok) error_set(err, ERROR_FORMAT, "%s: is not a JSON object", path);
    }
    if (is_ok) {
        struct reader reader = {.path = path, .root = root, .err = err};
        read_fields(&reader, &found);
        is_ok = !reader.failed;
    }
    json_decref(root);
    arena_destroy(&arena);
    if (is_ok) *profile = found;
    return is_ok;
}

/* ---- models ---- */

/* `path` [PATH_BYTES_MAX]: the folder of a shape that ships under this name. */
static bool find_shape(const char *name, char *path)
{
    char relative[PATH_BYTES_MAX];
    assert(name != NULL);
    snprintf(relative, sizeof relative, "shapes/%s/config.json", name);
    if (strchr(name, '/') != NULL || !app_find_data(relative, path, PATH_BYTES_MAX)) return false;
    *strrchr(path, '/') = '\0';
    return true;
}

bool profile_read_model(struct model_config *config, const char *name, struct arena *arena,
                        struct error *err)
{
    char path[PATH_BYTES_MAX];
    assert(arena != NULL);
    if (find_shape(name, path)) return config_read(config, path, arena, err);
    if (config_read(config, name, arena, err)) return true;
    if (err->code != ERROR_NO_INPUT || strchr(name, '/') != NULL) return false;
    return error_wrap(err, "no model '%s': give a folder, llada-8b or dream-7b", name);
}

struct cost_shape profile_shape(const struct model_config *config, double weight_element_bytes,
                                double kv_element_bytes)
{
    assert(weight_element_bytes > 0 && kv_element_bytes > 0);
    return (struct cost_shape){.n_layers = config->n_layers,
                               .hidden = config->hidden,
                               .n_heads = config->n_heads,
                               .n_kv_heads = config->n_kv_heads,
                               .head_dim = config->head_dim,
                               .ffn = config->ffn,
                               .n_vocab = config->n_vocab,
                               .weight_element_bytes = weight_element_bytes,
                               .kv_element_bytes = kv_element_bytes};
}
