/* Failures as text. A message is formatted aside and then stored, so that it may quote the one it
 * replaces; what is stored is always one line of valid UTF-8, whatever bytes a path or an input
 * line brought in, because it ends up in terminals and in JSON. */
#include "base/error.h"

#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the well-formed UTF-8 sequence at `at`, 0 if there is none. The NUL that ends the text
 * is no continuation byte, so nothing is read past it. */
static size_t utf8_sequence_bytes(const uint8_t *at)
{
    static const uint32_t code_min[] = {0, 0, 0x80, 0x800, 0x10000}; /* below: overlong */
    assert(*at != 0);
    if (*at < 0x80) return 1;
    if (*at < 0xC2 || *at > 0xF4) return 0;

    size_t n_bytes = *at >= 0xF0 ? 4 : *at >= 0xE0 ? 3 : 2;
    uint32_t code = *at & (0x7FU >> n_bytes);
    for (size_t i = 1; i < n_bytes; i++) {
        if ((at[i] & 0xC0) != 0x80) return 0;
        code = code << 6 | (at[i] & 0x3FU);
    }
    bool is_surrogate = code >= 0xD800 && code <= 0xDFFF;
    if (code < code_min[n_bytes] || code > 0x10FFFF || is_surrogate) return 0;
    return n_bytes;
}

/* Controls, C1 ones too, line separators, and marks that turn the direction of what follows. */
static bool is_control(const uint8_t *at, size_t n_bytes)
{
    uint32_t code = n_bytes == 1 ? at[0] : at[0] & (0x7FU >> n_bytes);
    for (size_t i = 1; i < n_bytes; i++)
        code = code << 6 | (at[i] & 0x3FU);
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x61C ||
           (code >= 0x200E && code <= 0x200F) || (code >= 0x2028 && code <= 0x202E) ||
           (code >= 0x2066 && code <= 0x2069);
}

enum error_shown error_next(const char *text, size_t *n_bytes)
{
    const uint8_t *at = (const uint8_t *)text;
    size_t n = *at == 0 ? 1 : utf8_sequence_bytes(at);
    assert(n_bytes != NULL);
    *n_bytes = n > 0 ? n : 1;
    if (n == 0) return ERROR_SHOWN_INVALID;
    return is_control(at, n) ? ERROR_SHOWN_CONTROL : ERROR_SHOWN_TEXT;
}

/* Stores `text`, cut to what fits: control characters become blanks, what is not UTF-8 (a sequence
 * torn by the cut, too) question marks. */
static void message_store(struct error *err, const char *text)
{
    assert(text != err->message);
    size_t n_bytes_max = sizeof err->message - 1, n_bytes;
    size_t length = strnlen(text, n_bytes_max);
    memcpy(err->message, text, length);
    err->message[length] = 0;
    for (char *at = err->message; *at != 0; at += n_bytes) {
        enum error_shown shown = error_next(at, &n_bytes);
        if (shown != ERROR_SHOWN_TEXT)
            memset(at, shown == ERROR_SHOWN_INVALID ? '?' : ' ', n_bytes);
    }
}

bool error_set(struct error *err, enum error_code code, const char *format, ...)
{
    assert(code != ERROR_NONE);
    if (err == NULL) return false;
    char text[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    err->code = code;
    message_store(err, text);
    return false;
}

void error_print(FILE *stream, const char *format, ...)
{
    struct error line;
    char text[sizeof line.message];
    va_list arguments;
    assert(stream != NULL);
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    message_store(&line, text);
    fprintf(stream, "%s\n", line.message);
}

bool error_wrap(struct error *err, const char *format, ...)
{
    assert(format != NULL);
    if (err == NULL) return false;
    assert(err->code != ERROR_NONE);
    char context[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);

    char text[sizeof context + sizeof ": " + sizeof err->message];
    snprintf(text, sizeof text, "%s: %s", context, err->message);
    message_store(err, text);
    return false;
}
