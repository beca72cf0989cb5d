/* JSON from strangers, and for terminals. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/error.h"

/* The value of `text` as json_loadb reads it, or NULL: `where` (NULL: nobody asks) says why. That
 * may be memory: an empty object takes 70 times the letters it is written with, so texts of more
 * values than any file of ours, or of a model, are refused: no value takes more than 1 GiB, and
 * none that is short more than 64 MiB. The caller frees it. */
json_t *json_read(struct bytes text, size_t flags, json_error_t *where);

/* The object in a file of a model's folder, which has at most bytes_max; of two equal keys none is
 * the right one. The caller frees it. NULL: what stream_read_regular says, or ERROR_FORMAT. */
json_t *json_read_object(const char *path, size_t bytes_max, size_t flags, struct error *err);

/* The value as json_dumps writes it, but with escapes for every character that a terminal would
 * obey (base/error.h). Heap; NULL: out of memory, or no value. */
char *json_write(const json_t *value, size_t flags);

#endif
