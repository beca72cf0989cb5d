/* The lines of several files, brought into the order of their indices without being held: of each
 * only its place and the hash of its id are kept, 24 bytes. The lines are then read again from
 * their places. Lines of files of ours lie near those that are answered with them, so
 * what was decoded last is kept, as much as COLLATE_CACHE_BYTES. */
#ifndef APP_COLLATE_H
#define APP_COLLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "app/scan.h"
#include "base/arena.h"
#include "base/error.h"

#define COLLATE_CACHE_BYTES ((size_t)32 << 20) /* or the last group, if it holds more */
#define COLLATE_GROUP_BYTES ((size_t)4 << 20)  /* of a group, before its last line */
#define COLLATE_FILES_MAX   256
#define COLLATE_INDEX_MAX   (((int64_t)1 << 36) - 1)

struct collate;

/* `paths` [n_files] is borrowed until close. Heap; close it. False: ERROR_UNAVAILABLE. */
bool collate_open(struct collate **collate, const char *const *paths, int32_t n_files,
                  struct error *err);
void collate_close(struct collate *collate); /* NULL is fine */

/* Remembers an answer of file number `file`. False: ERROR_FORMAT for an index that is out of all
 * bounds, or a group that is too large to be decoded again and again; ERROR_UNAVAILABLE. */
bool collate_add(struct collate *collate, int32_t file, const struct scan_record *record,
                 struct error *err);

struct collate_counts {
    size_t n;           /* lines */
    int64_t n_repeated; /* of them, those whose id another line has had */
    int64_t n_failed;   /* error lines, each id counted once */
    uint64_t keys;      /* sum of the ids' keys, each once */
};

/* Orders by index, and lines of one index by id, file and place. */
struct collate_counts collate_sort(struct collate *collate);

/* Whether the `at`-th line, sorted, has the index and the id of the one before. */
bool collate_is_twin(const struct collate *collate, size_t at);

/* Of the `at`-th line, sorted: the index, and the file. */
int64_t collate_index(const struct collate *collate, size_t at);
int32_t collate_file(const struct collate *collate, size_t at);

/* Reads the `at`-th line, without its newline; borrowed until the next call. False: ERROR_IO, or
 * ERROR_FORMAT for a file that was changed meanwhile. */
bool collate_line(struct collate *collate, size_t at, struct bytes *line, struct error *err);

#endif
