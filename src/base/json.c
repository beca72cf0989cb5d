/* The one way to jansson for text that comes from a file, and from it for text that strangers may
 * have had a part in. */
#include "base/json.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/stream.h"

/* What jansson takes for an object, a list, a value in one of them, a key, and for a quote. */
enum { OBJECT_BYTES = 224, LIST_BYTES = 136, VALUE_BYTES = 56, KEY_BYTES = 110, QUOTE_BYTES = 20 };

/* What values may take, beside so much a letter; the merges of a tokenizer take 20. */
#define BASE_BYTES  ((size_t)64 << 20)
#define BYTES_MAX   ((size_t)1 << 30)
#define SMALL_BYTES ((size_t)256 << 10) /* of text that cannot take more */
enum { LETTER_BYTES = 28 };

/* What the values take, told by the signs outside of strings. */
static size_t estimate(struct bytes text)
{
    size_t n_bytes = 0;
    bool is_string = false;
    assert(text.data != NULL);
    for (size_t i = 0; i < text.n; i++) {
        char sign = text.data[i];
        if (sign == '"') {
            is_string = !is_string;
            n_bytes += QUOTE_BYTES;
        } else if (is_string) i += sign == '\\';
        else if (sign == '{') n_bytes += OBJECT_BYTES;
        else if (sign == '[') n_bytes += LIST_BYTES;
        else if (sign == ',') n_bytes += VALUE_BYTES;
        else if (sign == ':') n_bytes += KEY_BYTES;
    }
    return n_bytes;
}

static bool is_too_much(struct bytes text)
{
    size_t n_bytes_max = BASE_BYTES + LETTER_BYTES * text.n;
    assert(n_bytes_max > text.n);
    if (text.n <= SMALL_BYTES) return false;
    return estimate(text) > (n_bytes_max < BYTES_MAX ? n_bytes_max : BYTES_MAX);
}

json_t *json_read(struct bytes text, size_t flags, json_error_t *where)
{
    json_error_t aside;
    assert(text.data != NULL);
    if (where == NULL) where = &aside;
    bool is_large = is_too_much(text);
    json_t *value = is_large ? NULL : json_loadb(text.data, text.n, flags, where);
    if (value != NULL || (!is_large && where->text[0] != '\0')) return value;
    *where = (json_error_t){.line = 1};
    snprintf(where->text, sizeof where->text, "%s",
             is_large ? "holds more values than anything of its kind" : "not enough memory");
    return NULL;
}

json_t *json_read_object(const char *path, size_t bytes_max, size_t flags, struct error *err)
{
    struct arena arena;
    struct bytes text;
    json_error_t where;
    json_t *root = NULL;
    assert(bytes_max > 0);
    if (!arena_create(&arena, bytes_max + 4096, err)) return NULL;
    if (stream_read_regular(path, bytes_max, &arena, &text, err)) {
        root = json_read(text, flags | JSON_REJECT_DUPLICATES, &where);
        if (root == NULL)
            error_set(err, ERROR_FORMAT, "%s:%d: is not a JSON object: %s", path, where.line,
                      where.text);
        else if (!json_is_object(root)) {
            error_set(err, ERROR_FORMAT, "%s: is not a JSON object", path);
            json_decref(root);
            root = NULL;
        }
    }
    arena_destroy(&arena);
    return root;
}

/* The next character from `at` on that jansson leaves as it is and a terminal would obey; the end:
 * there is none. */
static const char *find_control(const char *at, size_t *n_bytes)
{
    assert(at != NULL);
    for (*n_bytes = 0; *at != '\0'; at += *n_bytes)
        if (error_next(at, n_bytes) == ERROR_SHOWN_CONTROL && (uint8_t)*at >= 0x7F) break;
    return at;
}

/* Such a character is DEL, or of two or three bytes. */
static unsigned code_of(const char *at, size_t n_bytes)
{
    unsigned first = (uint8_t)at[0], second = (uint8_t)at[1] & 0x3F;
    assert(n_bytes <= 3);
    if (n_bytes == 1) return first;
    if (n_bytes == 2) return (first & 0x1F) << 6 | second;
    return (first & 0x0F) << 12 | second << 6 | ((uint8_t)at[2] & 0x3F);
}

char *json_write(const json_t *value, size_t flags)
{
    char *text = value != NULL ? json_dumps(value, flags) : NULL, *written = NULL;
    size_t n_bytes, n_written;
    if (text == NULL || *find_control(text, &n_bytes) == '\0') return text;
    FILE *out = open_memstream(&written, &n_written);
    const char *rest = text;
    while (out != NULL && *rest != '\0') {
        const char *at = find_control(rest, &n_bytes);
        fwrite(rest, 1, (size_t)(at - rest), out);
        if (*at != '\0') fprintf(out, "\\u%04x", code_of(at, n_bytes));
        rest = *at != '\0' ? at + n_bytes : at;
    }
    free(text);
    if (out == NULL || fclose(out) == 0) return written;
    free(written);
    return NULL;
}
