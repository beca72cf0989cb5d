/* JSON from strangers. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "base/arena.h"

/* The value of `text` as json_loadb reads it, or NULL: `where` (NULL: nobody asks) says why. That
 * may be memory: an empty object takes 70 times the letters it is written with, so texts of more
 * values than any file of ours, or of a model, are refused: no value takes more than 1 GiB, and
 * none that is short more than 64 MiB. The caller frees it. */
json_t *json_read(struct bytes text, size_t flags, json_error_t *where);

#endif
