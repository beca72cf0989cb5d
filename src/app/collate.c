/* Two caches stand between a place and its line: open readers, for a reader has a window of two
 * megabytes, and decoded groups. Each has one place for what it holds, and what is wanted there
 * next takes it over: lines that follow each other come from few files and groups.
 *
 *     entry ─ group not decoded yet ─► reader ─ seek, decode ─► group ─► line
 */
#include "app/collate.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/frames.h"
#include "base/sort.h"

enum { READERS_MAX = 16, GROUP_BITS = 9, GROUPS_MAX = 512, PLACE_BITS = 28, OFFSET_BITS = 55 };

/* Compared as two numbers, without the key, an entry sorts by index. */
struct entry {
    uint64_t line;  /* 36 bits of index, 28 of the place in what the group holds */
    uint64_t group; /* 8 bits of file, 55 of the group's place in it, one for an error line */
    uint64_t key;   /* of the id */
};

struct reader {
    struct frames *frames; /* NULL: free */
    int32_t file;
};

struct group {
    char *text; /* [n] on the heap; NULL: free */
    size_t n;
    uint64_t key; /* entry.group, without its last bit */
};

struct collate {
    const char *const *paths; /* [n_files] */
    int32_t n_files;
    struct entry *entries; /* [n_max] on the heap */
    size_t n, n_max;
    size_t cached_bytes;
    struct reader readers[READERS_MAX];
    struct group groups[GROUPS_MAX];
};

/* ---- open, close ---- */

bool collate_open(struct collate **collate, const char *const *paths, int32_t n_files,
                  struct error *err)
{
    assert(n_files > 0 && n_files <= COLLATE_FILES_MAX);
    struct collate *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to merge");
    opened->paths = paths;
    opened->n_files = n_files;
    *collate = opened;
    return true;
}

void collate_close(struct collate *collate)
{
    if (collate == NULL) return;
    assert(collate->n <= collate->n_max);
    for (int i = 0; i < READERS_MAX; i++)
        frames_close(collate->readers[i].frames);
    for (int i = 0; i < GROUPS_MAX; i++)
        free(collate->groups[i].text);
    free(collate->entries);
    free(collate);
}

/* ---- places ---- */

bool collate_add(struct collate *collate, int32_t file, const struct scan_record *record,
                 struct error *err)
{
    assert(file >= 0 && file < collate->n_files);
    assert(record->kind == SCAN_ANSWER);
    if (record->index > COLLATE_INDEX_MAX || record->group_bytes >> OFFSET_BITS != 0)
        return error_set(err, ERROR_FORMAT, "%s: index %lld is too large", collate->paths[file],
                         (long long)record->index);
    if (record->content_bytes > (int64_t)COLLATE_GROUP_BYTES)
        return error_set(err, ERROR_FORMAT,
                         "%s was packed anew, with more in a frame than can be put in order; "
                         "'zstd -d' makes a file of it that can",
                         collate->paths[file]);
    if (collate->n == collate->n_max) {
        size_t n_max = collate->n_max > 0 ? 2 * collate->n_max : 1024;
        struct entry *entries = reallocarray(collate->entries, n_max, sizeof *entries);
        if (entries == NULL)
            return error_set(err, ERROR_UNAVAILABLE,
                             "not enough memory for the places of %zu "
                             "lines",
                             n_max);
        collate->entries = entries;
        collate->n_max = n_max;
    }
    collate->entries[collate->n++] = (struct entry){
        .line = (uint64_t)record->index << PLACE_BITS | (uint64_t)record->content_bytes,
        .group = ((uint64_t)file << OFFSET_BITS | (uint64_t)record->group_bytes) << 1 |
                 record->is_failed,
        .key = record->key};
    return true;
}

int64_t collate_index(const struct collate *collate, size_t at)
{
    assert(at < collate->n);
    return (int64_t)(collate->entries[at].line >> PLACE_BITS);
}

int32_t collate_file(const struct collate *collate, size_t at)
{
    assert(at < collate->n);
    return (int32_t)(collate->entries[at].group >> 1 >> OFFSET_BITS);
}

bool collate_is_twin(const struct collate *collate, size_t at)
{
    assert(at < collate->n);
    return at > 0 && collate_index(collate, at - 1) == collate_index(collate, at) &&
           collate->entries[at - 1].key == collate->entries[at].key;
}

static int compare_entries(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    uint64_t a_index = a->line >> PLACE_BITS, b_index = b->line >> PLACE_BITS;
    assert(a != NULL && b != NULL);
    if (a_index != b_index) return a_index < b_index ? -1 : 1;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    if (a->group != b->group) return a->group < b->group ? -1 : 1;
    return (a->line > b->line) - (a->line < b->line);
}

static int compare_keys(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    assert(a != NULL && b != NULL);
    return (a->key > b->key) - (a->key < b->key);
}

struct collate_counts collate_sort(struct collate *collate)
{
    struct collate_counts counts = {.n = collate->n};
    struct entry *entries = collate->entries;
    assert(collate->n <= collate->n_max);
    sort_in_place(entries, collate->n, sizeof *entries, compare_keys);
    for (size_t i = 0; i < collate->n; i++) {
        bool is_new = i == 0 || entries[i].key != entries[i - 1].key;
        counts.n_repeated += !is_new;
        counts.keys += is_new ? entries[i].key : 0;
        counts.n_failed += is_new && (entries[i].group & 1) != 0;
    }
    sort_in_place(entries, collate->n, sizeof *entries, compare_entries);
    return counts;
}

/* ---- reading again ---- */

static bool find_reader(struct collate *collate, int32_t file, struct frames **frames,
                        struct error *err)
{
    struct reader *reader = &collate->readers[file % READERS_MAX];
    const char *path = collate->paths[file];
    assert(file < collate->n_files);
    if (reader->frames == NULL || reader->file != file) {
        frames_close(reader->frames);
        *reader = (struct reader){.file = file};
        if (!frames_open(&reader->frames, path, frames_is_zstd(path), err)) return false;
    }
    *frames = reader->frames;
    return true;
}

static void drop(struct collate *collate, struct group *group)
{
    assert(collate->cached_bytes >= group->n);
    collate->cached_bytes -= group->n;
    free(group->text);
    *group = (struct group){0};
}

static bool fail_changed(const struct collate *collate, int32_t file, struct error *err)
{
    assert(file < collate->n_files);
    return error_set(err, ERROR_FORMAT, "%s was changed while it was read", collate->paths[file]);
}

/* Puts the group into its free place. */
static bool decode(struct collate *collate, uint64_t key, struct group *group, struct error *err)
{
    int32_t file = (int32_t)(key >> OFFSET_BITS);
    int64_t begin_bytes = (int64_t)(key & ((UINT64_C(1) << OFFSET_BITS) - 1));
    struct frames *frames;
    struct frames_group found;
    assert(group->text == NULL);
    if (!find_reader(collate, file, &frames, err) || !frames_seek(frames, begin_bytes, err))
        return false;
    enum frames_status status = frames_next(frames, &found, err);
    if (status == FRAMES_FAILED) return false;
    if (status != FRAMES_GROUP || found.content.n == 0) return fail_changed(collate, file, err);
    for (int i = 0; i < GROUPS_MAX; i++)
        if (collate->cached_bytes + found.content.n > COLLATE_CACHE_BYTES)
            drop(collate, &collate->groups[i]);
    char *text = malloc(found.content.n);
    if (text == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to merge");
    memcpy(text, found.content.data, found.content.n);
    *group = (struct group){.text = text, .n = found.content.n, .key = key};
    collate->cached_bytes += group->n;
    return true;
}

bool collate_line(struct collate *collate, size_t at, struct bytes *line, struct error *err)
{
    assert(at < collate->n);
    static_assert(GROUPS_MAX == 1 << GROUP_BITS, "a hash is a place");
    uint64_t key = collate->entries[at].group >> 1;
    size_t place = (size_t)(collate->entries[at].line & ((UINT64_C(1) << PLACE_BITS) - 1));
    size_t slot = (size_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> (64 - GROUP_BITS));
    struct group *group = &collate->groups[slot];
    if (group->text == NULL || group->key != key) {
        drop(collate, group);
        if (!decode(collate, key, group, err)) return false;
    }
    const char *start = group->text + place;
    const char *newline = place < group->n ? memchr(start, '\n', group->n - place) : NULL;
    if (newline == NULL) return fail_changed(collate, collate_file(collate, at), err);
    *line = (struct bytes){.data = start, .n = (size_t)(newline - start)};
    return true;
}
