/* What a JSON value is, in a few words for a message: `"hot"`, `3.5`, `an array`. A message shall
 * show what was found, but an input may hold megabytes there. */
#ifndef APP_DESCRIBE_H
#define APP_DESCRIBE_H

#include <jansson.h>

#define DESCRIBE_BYTES_MAX 80

/* NUL-terminated valid UTF-8 without control bytes: in `text` [DESCRIBE_BYTES_MAX], or constant.
 * Long values are cut and end with "...". */
const char *describe_json(const json_t *value, char *text);

#endif
