/* Finds a model folder's tokenizer files and reads them. A folder with vocab.json and merges.txt (a
 * "slow" tokenizer, as Dream's) is rewritten as the tokenizer.json that it stands for, so that one
 * reader does for both; tokenizer_config.json adds tokens and the facts about chats. */
#include "text/tokenizer_private.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/json.h"
#include "base/stream.h"

/* The largest tokenizer.json in use has about 20 MB. */
#define FILE_BYTES_MAX   ((size_t)128 << 20)
#define CONFIG_BYTES_MAX ((size_t)16 << 20) /* which is held while the others are read */

enum { PATH_BYTES_MAX = 4096 };

/* The split of the slow Qwen2 tokenizer, which has it in its source, not in its files. */
static const char qwen2_regex[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static const char *const qwen2_classes[] = {"DreamTokenizer", "Qwen2Tokenizer",
                                            "Qwen2TokenizerFast"};

/* ---- files ---- */

struct path {
    char text[PATH_BYTES_MAX];
};

/* Cut when it is longer than the system opens anyway. */
static struct path path_in(const char *dir, const char *name)
{
    assert(dir != NULL);
    struct path path;
    snprintf(path.text, sizeof path.text, "%s/%s", dir, name);
    return path;
}

/* A file that is there but cannot be read is an error later, not a missing one. */
static bool is_there(const char *dir, const char *name)
{
    return stream_is_named(path_in(dir, name).text);
}

/* Reads `dir`/`name`, which is there, NUL-terminated, into `arena`. ERROR_NO_INPUT is left to those
 * that are not: without a tokenizer a run goes on. */
static bool read_text(const char *dir, const char *name, struct arena *arena, struct bytes *content,
                      struct error *err)
{
    assert(arena->base != NULL);
    if (stream_read_regular(path_in(dir, name).text, FILE_BYTES_MAX, arena, content, err))
        return true;
    if (err != NULL && err->code == ERROR_NO_INPUT) err->code = ERROR_IO;
    return false;
}

/* NULL: `err` names the file. The caller owns the value. */
static json_t *read_json(const char *dir, const char *name, size_t bytes_max, size_t flags,
                         struct error *err)
{
    json_t *json = json_read_object(path_in(dir, name).text, bytes_max, flags, err);
    assert(json == NULL || json_is_object(json));
    if (json == NULL && err != NULL && err->code == ERROR_NO_INPUT) err->code = ERROR_IO;
    return json;
}

/* ---- vocab.json and merges.txt ---- */

/* The lines of merges.txt, but for the "#version" one and empty ones, as a JSON list; NULL: `err`.
 */
static json_t *list_merges(struct bytes content, struct error *err)
{
    assert(content.data != NULL);
    json_t *list = json_array();
    bool ok = list != NULL;
    size_t line = 0;
    for (size_t at = 0, end; ok && at < content.n; at = end + 1) {
        const char *newline = memchr(content.data + at, '\n', content.n - at);
        end = newline == NULL ? content.n : (size_t)(newline - content.data);
        assert(end >= at);
        size_t n = end - at;
        if (n > 0 && content.data[at + n - 1] == '\r') n--;
        line++;
        if (n == 0 || (line == 1 && strncmp(content.data, "#version", 8) == 0)) continue;
        ok = json_array_append_new(list, json_stringn(content.data + at, n)) == 0 &&
             json_array_size(list) <= VOCABULARY_ID_MAX;
    }
    if (ok) return list;
    bool is_long = json_array_size(list) > VOCABULARY_ID_MAX;
    json_decref(list);
    if (is_long) error_set(err, ERROR_FORMAT, "more than %d merges", VOCABULARY_ID_MAX);
    else error_set(err, ERROR_FORMAT, "line %zu is not valid UTF-8", line);
    return NULL;
}

/* The same from the file. The caller owns the list; NULL: `err` names the file. */
static json_t *read_merges_text(const char *dir, struct error *err)
{
    struct arena arena;
    if (!arena_create(&arena, FILE_BYTES_MAX + PATH_BYTES_MAX, err)) return NULL;
    struct bytes content;
    json_t *merges = NULL;
    if (read_text(dir, "merges.txt", &arena, &content, err)) {
        merges = list_merges(content, err);
        if (merges == NULL) error_wrap(err, "%s/merges.txt", dir);
    }
    arena_destroy(&arena);
    return merges;
}

/* The files do not say how they split texts; the class that the configuration names does. */
static bool check_class(const char *dir, const json_t *config, struct error *err)
{
    const char *class_name = json_string_value(json_object_get(config, "tokenizer_class"));
    if (class_name == NULL) return true;
    for (size_t i = 0; i < sizeof qwen2_classes / sizeof *qwen2_classes; i++)
        if (strcmp(class_name, qwen2_classes[i]) == 0) return true;
    return error_set(
        err, ERROR_FORMAT,
        "%s/tokenizer_config.json: tokenizer_class is '%.60s', which needs a "
        "tokenizer.json; only the Qwen2 family is known from vocab.json and merges.txt",
        dir, class_name);
}

/* A tokenizer.json that means the same, which the caller owns; NULL: `err` names the file.
 * json_pack takes over what stands for an "o", also when it fails. */
static json_t *rewrite_slow(const char *dir, const json_t *config, struct error *err)
{
    assert(dir != NULL);
    if (!check_class(dir, config, err)) return NULL;
    json_t *vocab = read_json(dir, "vocab.json", FILE_BYTES_MAX, 0, err);
    if (vocab == NULL) return NULL;
    json_t *merges = read_merges_text(dir, err);
    if (merges == NULL) {
        json_decref(vocab);
        return NULL;
    }
    json_t *split = json_pack("{s:s, s:{s:s}, s:s}", "type", "Split", "pattern", "Regex",
                              qwen2_regex, "behavior", "Isolated");
    json_t *byte_level = json_pack("{s:s, s:b}", "type", "ByteLevel", "use_regex", 0);
    json_t *root = json_pack("{s:{s:s}, s:{s:s, s:[o, o]}, s:{s:o, s:o}}", "normalizer", "type",
                             "NFC", "pre_tokenizer", "type", "Sequence", "pretokenizers", split,
                             byte_level, "model", "vocab", vocab, "merges", merges);
    if (root == NULL) error_set(err, ERROR_UNAVAILABLE, "%s: no memory for its tokenizer", dir);
    return root;
}

/* ---- tokenizer_config.json ---- */

/* *kept = a copy of `text`, NULL for NULL. */
static bool keep(struct tokenizer *tokenizer, const char *text, const char **kept,
                 struct error *err)
{
    assert(kept != NULL);
    if (text == NULL) return true;
    *kept = arena_try_copy(&tokenizer->arena, text, strlen(text));
    return *kept != NULL || error_set(err, ERROR_FORMAT, "a text does not fit in memory");
}

/* A template stands alone, or in a list of named ones. NULL: there is none, or no "default" one.
 * Borrowed from `config`, which may be NULL. */
static const char *template_in(const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template");
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name != NULL && strcmp(name, "default") == 0) {
            return json_string_value(json_object_get(item, "template"));
        }
    }
    return json_string_value(value);
}

/* bos_token is a text, or an added token written out as an object. */
static bool read_config_facts(struct tokenizer *tokenizer, const json_t *config, struct error *err)
{
    assert(tokenizer->facts.bos_token == NULL);
    const json_t *bos = json_object_get(config, "bos_token");
    if (json_is_object(bos)) bos = json_object_get(bos, "content");
    return keep(tokenizer, json_string_value(bos), &tokenizer->facts.bos_token, err) &&
           keep(tokenizer, template_in(config), &tokenizer->facts.chat_template, err);
}

/* A chat_template.jinja goes before the configuration's template, as in the reference. */
static bool read_template_file(struct tokenizer *tokenizer, const char *dir, struct error *err)
{
    assert(tokenizer->facts.source != NULL);
    if (!is_there(dir, "chat_template.jinja")) return true;
    struct bytes content;
    if (!read_text(dir, "chat_template.jinja", &tokenizer->arena, &content, err)) return false;
    assert(content.data[content.n] == 0);
    tokenizer->facts.chat_template = content.data;
    return true;
}

/* ---- the whole ---- */

/* All but tokenizer_config.json, which is `config` or NULL: it may hold added tokens, so that it is
 * read first. tokenizer.json goes before the slow files when both are there, as in the reference.
 */
static bool read_folder(struct tokenizer *tokenizer, const char *dir, json_t *config,
                        struct error *err)
{
    assert(tokenizer->facts.source == NULL);
    bool is_fast = is_there(dir, "tokenizer.json");
    if (!is_fast && !(is_there(dir, "vocab.json") && is_there(dir, "merges.txt"))) {
        return error_set(
            err, ERROR_NO_INPUT,
            "'%s' has no tokenizer: neither tokenizer.json nor vocab.json + merges.txt", dir);
    }
    tokenizer->facts.source = is_fast ? "tokenizer.json" : "vocab.json + merges.txt";
    json_t *root = is_fast ? read_json(dir, "tokenizer.json", FILE_BYTES_MAX, 0, err)
                           : rewrite_slow(dir, config, err);
    if (root == NULL) return false;
    bool ok = tokenizer_json_read(tokenizer, root, config, err) ||
              error_wrap(err, "%s/%s", dir, tokenizer->facts.source);
    json_decref(root);
    return ok && read_config_facts(tokenizer, config, err) &&
           read_template_file(tokenizer, dir, err);
}

bool tokenizer_file_read(struct tokenizer *tokenizer, const char *model_dir, struct error *err)
{
    assert(model_dir != NULL);
    assert(tokenizer->arena.base != NULL);
    json_t *config = NULL;
    if (is_there(model_dir, "tokenizer_config.json")) {
        /* Integers as reals: model_max_length is often 10^30, which no integer holds. */
        config = read_json(model_dir, "tokenizer_config.json", CONFIG_BYTES_MAX,
                           JSON_DECODE_INT_AS_REAL, err);
        if (config == NULL) return false;
    }
    bool ok = read_folder(tokenizer, model_dir, config, err);
    json_decref(config);
    return ok;
}

bool tokenizer_file_parse(struct tokenizer *tokenizer, struct bytes json, struct error *err)
{
    assert(json.data != NULL);
    assert(tokenizer->arena.base != NULL);
    tokenizer->facts.source = "tokenizer.json";
    json_error_t where;
    json_t *root = json_read(json, JSON_REJECT_DUPLICATES, &where);
    if (root == NULL) return error_set(err, ERROR_FORMAT, "line %d: %s", where.line, where.text);
    bool ok = tokenizer_json_read(tokenizer, root, NULL, err);
    json_decref(root);
    return ok;
}
