/* Making a header, which reads a little of every file of the model, and comparing two. */
#include "app/header.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/stream.h"

#define SAMPLE_BYTES       ((int64_t)64 << 10)
#define PATH_BYTES_MAX     4096
#define WEIGHTS_PREFIX_MAX ((int64_t)100 << 20) /* a safetensors header is no longer */

enum { VALUE_SHOWN = 60, CHANGES_BYTES_MAX = 600 };

const char *header_program(void)
{
    return "dllm-batch " DLLM_BATCH_VERSION;
}

/* ---- the model's hash ---- */

struct mixer {
    uint64_t hash;
    const char *folder;
    bool failed;
    struct error *err;
};

static void mix(struct mixer *mixer, const void *data, size_t n)
{
    assert(data != NULL);
    mixer->hash = hash_bytes(mixer->hash, (struct bytes){data, n});
}

/* Bytes [begin, end) of a file. */
static bool mix_span(struct mixer *mixer, int fd, int64_t begin, int64_t end)
{
    char buffer[16384];
    assert(begin >= 0);
    while (begin < end) {
        size_t n = end - begin < (int64_t)sizeof buffer ? (size_t)(end - begin) : sizeof buffer;
        ssize_t n_read = stream_read_at(fd, buffer, n, begin);
        if (n_read <= 0) return n_read == 0;
        mix(mixer, buffer, (size_t)n_read);
        begin += n_read;
    }
    return true;
}

/* Of weights: the header and three samples. Hashing all of them would take as long as loading. */
static bool mix_weights(struct mixer *mixer, int fd, int64_t n_bytes)
{
    uint64_t length = 0;
    assert(n_bytes >= 0);
    if (stream_read_at(fd, &length, sizeof length, 0) < 0) return false;
    int64_t begin = length < (uint64_t)WEIGHTS_PREFIX_MAX ? (int64_t)length + 8 : 8;
    if (begin > n_bytes) begin = n_bytes;
    int64_t middle = begin + (n_bytes - begin) / 2;
    int64_t last = n_bytes - begin > SAMPLE_BYTES ? n_bytes - SAMPLE_BYTES : begin;
    mix(mixer, &n_bytes, sizeof n_bytes);
    return mix_span(mixer, fd, 0, begin) && mix_span(mixer, fd, begin, begin + SAMPLE_BYTES) &&
           mix_span(mixer, fd, middle, middle + SAMPLE_BYTES) && mix_span(mixer, fd, last, n_bytes);
}

/* A file that is not there has no part in the model. */
static void mix_file(struct mixer *mixer, const char *name, bool is_weights)
{
    char path[PATH_BYTES_MAX];
    struct stat file;
    int n = snprintf(path, sizeof path, "%s/%s", mixer->folder, name);
    if (mixer->failed || n < 0 || (size_t)n >= sizeof path) return;
    int fd = stream_open_fd(path);
    if (fd < 0 && errno == ENOENT) return;
    mix(mixer, name, strlen(name) + 1);
    bool is_ok = fd >= 0 && fstat(fd, &file) == 0;
    assert(!is_ok || file.st_size >= 0);
    is_ok = is_ok && (is_weights ? mix_weights(mixer, fd, file.st_size)
                                 : mix_span(mixer, fd, 0, file.st_size));
    if (!is_ok) {
        mixer->failed = true;
        error_set(mixer->err, ERROR_NO_INPUT, "cannot read %s: %s", path, strerror(errno));
    }
    if (fd >= 0) close(fd);
}

static int is_weights_name(const struct dirent *entry)
{
    const char *suffix = strstr(entry->d_name, ".safetensors");
    return suffix != NULL && strcmp(suffix, ".safetensors") == 0;
}

static bool hash_model(uint64_t *hash, const char *folder, bool is_dummy, struct error *err)
{
    static const char *const tokenizers[] = {"tokenizer.json", "tokenizer_config.json",
                                             "vocab.json", "merges.txt"};
    struct mixer mixer = {.hash = HASH_START, .folder = folder, .err = err};
    struct dirent **weights = NULL;
    assert(folder != NULL);
    mix_file(&mixer, "config.json", false);
    mix_file(&mixer, "generation_config.json", false);
    for (size_t i = 0; i < sizeof tokenizers / sizeof *tokenizers && !is_dummy; i++)
        mix_file(&mixer, tokenizers[i], false);
    int n_weights = is_dummy ? 0 : scandir(folder, &weights, is_weights_name, alphasort);
    if (n_weights < 0 && !mixer.failed) {
        mixer.failed = true;
        error_set(err, errno == ENOMEM ? ERROR_UNAVAILABLE : ERROR_NO_INPUT, "cannot list %s: %s",
                  folder, strerror(errno));
    }
    for (int i = 0; i < n_weights; i++) {
        mix_file(&mixer, weights[i]->d_name, true);
        free(weights[i]);
    }
    free(weights);
    *hash = mixer.hash;
    return !mixer.failed;
}

/* ---- making one ---- */

/* Whether an answer depends on it. */
static bool is_setting(enum option_id id)
{
    assert((unsigned)id < OPTION_COUNT);
    return options_info(id)->in_line || id == OPTION_system || id == OPTION_no_chat ||
           id == OPTION_prompt_key || id == OPTION_load_format || id == OPTION_token_ids;
}

static json_t *make_settings(const struct options *options)
{
    json_t *settings = json_object();
    assert(options->subcommand == SUBCOMMAND_RUN);
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        char text[OPTIONS_VALUE_BYTES];
        if (!is_setting(id) || !options_is_set(options, id)) continue;
        const char *value = options_value(options, id, text);
        json_t *string = json_string(value);
        /* Words of a command line need not be UTF-8. */
        if (string == NULL) {
            uint64_t hash = hash_bytes(HASH_START, (struct bytes){value, strlen(value)});
            string = json_sprintf("not UTF-8, hash %016" PRIx64, hash);
        }
        json_object_set_new(settings, options_info(id)->name, string);
    }
    return settings;
}

bool header_make(json_t **header, const struct options *options, const char *model_name,
                 struct error *err)
{
    char hash[17];
    uint64_t number;
    assert(model_name != NULL);
    bool is_dummy = strcmp(options->load_format, "dummy") == 0;
    if (!hash_model(&number, options->model, is_dummy, err)) return false;
    snprintf(hash, sizeof hash, "%016" PRIx64, number);
    *header = json_pack("{s:i, s:s, s:{s:s, s:s}, s:o}", "format", (int)HEADER_FORMAT, "program",
                        header_program(), "model", "name", model_name, "hash", hash, "settings",
                        make_settings(options));
    if (*header != NULL) return true;
    return error_set(err, ERROR_UNAVAILABLE, "not enough memory for the output's header");
}

char *header_line(const json_t *header, const char *backend)
{
    assert(json_is_object(header));
    json_t *copy = json_copy((json_t *)(uintptr_t)header);
    json_object_set_new(copy, "backend", json_string(backend));
    json_t *root = json_pack("{s:o}", "header", copy);
    char *line = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return line;
}

void header_tell_input(json_t *manifest, int64_t n_lines, uint64_t keys)
{
    assert(n_lines >= 0);
    json_object_set_new(manifest, "input_lines", json_integer((json_int_t)n_lines));
    json_object_set_new(manifest, "input_keys", json_sprintf("%016" PRIx64, keys));
}

/* ---- comparing two ---- */

/* All that changed, as one half of a sentence. */
struct changes {
    const char *now; /* before what the second header has */
    char text[CHANGES_BYTES_MAX];
    size_t n;
};

__attribute__((format(printf, 2, 3))) static void say(struct changes *changes, const char *format,
                                                      ...)
{
    size_t n_free = sizeof changes->text - changes->n;
    va_list arguments;
    assert(n_free > 0);
    va_start(arguments, format);
    int n = vsnprintf(changes->text + changes->n, n_free, format, arguments);
    va_end(arguments);
    changes->n += n > 0 && (size_t)n < n_free ? (size_t)n : n_free - 1;
}

/* " 0.9"; nothing for a flag. */
static void say_value(struct changes *changes, const json_t *value)
{
    const char *text = json_string_value(value);
    assert(changes->n > 0);
    if (text == NULL || strcmp(text, "yes") == 0) return;
    say(changes, " %.*s%s", (int)VALUE_SHOWN, text, strlen(text) > VALUE_SHOWN ? "..." : "");
}

static void say_setting(struct changes *changes, const char *name, const json_t *found,
                        const json_t *wanted)
{
    assert(found != NULL || wanted != NULL);
    say(changes, "%swith%s --%s", changes->n > 0 ? ", and " : "", found == NULL ? "out" : "", name);
    if (found != NULL) say_value(changes, found);
    const char *text = json_string_value(wanted);
    bool is_flag = text != NULL && strcmp(text, "yes") == 0;
    say(changes, ", %s%s", changes->now, wanted == NULL ? " without" : is_flag ? " with it" : "");
    if (wanted != NULL) say_value(changes, wanted);
}

static void compare_settings(struct changes *changes, json_t *found, json_t *wanted)
{
    const char *name;
    json_t *value;
    assert(json_is_object(wanted));
    json_object_foreach(found, name, value)
    {
        const json_t *other = json_object_get(wanted, name);
        if (other == NULL || !json_equal(value, other)) say_setting(changes, name, value, other);
    }
    json_object_foreach(wanted, name, value)
    {
        if (json_object_get(found, name) == NULL) say_setting(changes, name, NULL, value);
    }
}

/* Whether this program can read it. */
static bool is_readable(const json_t *header)
{
    const json_t *model = json_object_get(header, "model");
    assert(header != NULL);
    return json_string_value(json_object_get(model, "hash")) != NULL &&
           json_string_value(json_object_get(model, "name")) != NULL &&
           json_is_object(json_object_get(header, "settings")) &&
           json_integer_value(json_object_get(header, "format")) == HEADER_FORMAT;
}

static void compare(struct changes *changes, const json_t *found, const json_t *wanted)
{
    const json_t *model = json_object_get(found, "model"), *ours = json_object_get(wanted, "model");
    const char *hash = json_string_value(json_object_get(model, "hash"));
    const char *our_hash = json_string_value(json_object_get(ours, "hash"));
    assert(hash != NULL && our_hash != NULL);
    if (strcmp(hash, our_hash) != 0)
        say(changes, "with the model %.*s (%.16s), %s %.*s (%.16s)", (int)VALUE_SHOWN,
            json_string_value(json_object_get(model, "name")), hash, changes->now, (int)VALUE_SHOWN,
            json_string_value(json_object_get(ours, "name")), our_hash);
    compare_settings(changes, json_object_get(found, "settings"),
                     json_object_get(wanted, "settings"));
}

bool header_agree(const json_t *found, const json_t *wanted, const char *now, const char *path,
                  struct error *err)
{
    struct changes changes = {.now = now};
    assert(found != NULL);
    if (!is_readable(found) || (wanted != NULL && !is_readable(wanted)))
        return error_set(err, ERROR_FORMAT, "%s has the header of another version of this program",
                         path);
    if (wanted != NULL) compare(&changes, found, wanted);
    if (changes.n == 0) return true;
    return error_set(err, ERROR_USAGE, "%s was begun %s", path, changes.text);
}
