/* Names a JSON value for messages: as JSON, which has no control bytes, cut between characters. */
#include "app/describe.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN_BYTES_MAX = 40 };

const char *describe_json(const json_t *value, char *text)
{
    static_assert(SHOWN_BYTES_MAX + sizeof "..." <= DESCRIBE_BYTES_MAX, "what is shown must fit");
    assert(value != NULL);
    if (json_is_array(value)) return "an array";
    if (json_is_object(value)) return "an object";
    char *json = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    if (json == NULL) return "something";
    size_t n = strlen(json);
    bool is_cut = n > SHOWN_BYTES_MAX;
    for (n = is_cut ? SHOWN_BYTES_MAX : n; is_cut && ((unsigned char)json[n] & 0xC0) == 0x80;)
        n--;
    snprintf(text, DESCRIBE_BYTES_MAX, "%.*s%s", (int)n, json, is_cut ? "..." : "");
    free(json);
    return text;
}
