/* Names a JSON value for messages. Strings are quoted, cut between characters and freed of control
 * bytes, since a message may end up in a terminal. */
#include "app/describe.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { STRING_BYTES_MAX = 40 };

static void describe_string(const json_t *value, char *text)
{
    static_assert(STRING_BYTES_MAX + sizeof "\"\"..." <= DESCRIBE_BYTES_MAX, "a string must fit");
    const char *string = json_string_value(value);
    size_t n = json_string_length(value);
    bool is_cut = n > STRING_BYTES_MAX;
    if (is_cut) n = STRING_BYTES_MAX;
    while (is_cut && n > 0 && ((unsigned char)string[n] & 0xC0) == 0x80)
        n--;
    char *at = text;
    *at++ = '"';
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)string[i];
        *at++ = byte < 0x20 || byte == 0x7F ? '?' : string[i];
    }
    memcpy(at, is_cut ? "\"..." : "\"", is_cut ? sizeof "\"..." : sizeof "\"");
}

const char *describe_json(const json_t *value, char *text)
{
    assert(value != NULL);
    assert(text != NULL);
    switch (json_typeof(value)) {
    case JSON_STRING: describe_string(value, text); break;
    case JSON_INTEGER:
        snprintf(text, DESCRIBE_BYTES_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL: snprintf(text, DESCRIBE_BYTES_MAX, "%.6g", json_real_value(value)); break;
    case JSON_TRUE: strcpy(text, "true"); break;
    case JSON_FALSE: strcpy(text, "false"); break;
    case JSON_NULL: strcpy(text, "null"); break;
    case JSON_ARRAY: strcpy(text, "an array"); break;
    case JSON_OBJECT: strcpy(text, "an object"); break;
    }
    return text;
}
