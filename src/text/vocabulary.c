/* An array by id, and a hash table of ids by content: linear probing in a table at most half full.
 * With a decent hash the longest probe is about 90 slots at 2^24 pieces; a longer one than
 * PROBES_MAX means that the file was made to collide. */
#include "text/vocabulary.h"

#include <assert.h>
#include <string.h>

enum { PROBES_MAX = 256, QUOTED_MAX = 60 };

/* A finalizer follows, because the table uses the low bits. */
static uint64_t hash_of(struct bytes left, struct bytes right)
{
    uint64_t hash = hash_bytes(hash_bytes(HASH_START, left), right);
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93U;
    return hash ^ hash >> 32;
}

/* Whether the piece's content is both parts together; an empty part may have no data. */
static bool is_joined(struct piece piece, struct bytes left, struct bytes right)
{
    return piece.n_bytes == left.n + right.n &&
           (left.n == 0 || memcmp(piece.content, left.data, left.n) == 0) &&
           (right.n == 0 || memcmp(piece.content + left.n, right.data, right.n) == 0);
}

bool vocabulary_init(struct vocabulary *vocabulary, struct vocabulary_size size,
                     struct arena *arena, struct error *err)
{
    assert(size.n_ids >= 0);
    assert(size.n_ids <= VOCABULARY_ID_MAX + 1);
    assert(size.n_pieces <= UINT32_MAX / 4);
    uint32_t n_slots = 16;
    while (n_slots < 2 * size.n_pieces)
        n_slots *= 2;
    assert(n_slots >= 2 * size.n_pieces);
    *vocabulary = (struct vocabulary){
        .pieces = arena_try_push(arena, (size_t)size.n_ids, sizeof(struct piece)),
        .n_ids = size.n_ids,
        .slots = arena_try_push(arena, n_slots, sizeof(int32_t)),
        .slot_mask = n_slots - 1,
        .text = arena_try_push(arena, size.text_bytes, 1),
        .text_bytes_max = size.text_bytes,
    };
    if (!vocabulary->pieces || !vocabulary->slots || !vocabulary->text) {
        return error_set(err, ERROR_FORMAT, "%zu pieces of %zu bytes are more than %zu bytes hold",
                         size.n_pieces, size.text_bytes, arena->bytes_max);
    }
    return true;
}

/* The slot that holds the content, else the empty slot where it belongs; NULL: neither is near. */
static int32_t *find_slot(const struct vocabulary *vocabulary, struct bytes left,
                          struct bytes right)
{
    uint32_t at = (uint32_t)hash_of(left, right) & vocabulary->slot_mask;
    for (int probe = 0; probe < PROBES_MAX; probe++) {
        int32_t *slot = &vocabulary->slots[at];
        if (*slot == 0 || is_joined(vocabulary->pieces[*slot - 1], left, right)) return slot;
        at = (at + 1) & vocabulary->slot_mask;
    }
    return NULL;
}

bool vocabulary_add(struct vocabulary *vocabulary, struct bytes content, int32_t id, unsigned flags,
                    struct error *err)
{
    assert(id >= 0);
    assert(id < vocabulary->n_ids);
    assert(flags != 0);
    assert(content.data != NULL);
    struct piece *piece = &vocabulary->pieces[id];
    /* The slot tells whether the content is known, the piece whether the id is. */
    int32_t *slot = find_slot(vocabulary, content, (struct bytes){0});
    if (slot == NULL) {
        return error_set(err, ERROR_FORMAT, "too many pieces share their hash with '%.*s'",
                         QUOTED_MAX, content.data);
    }
    if (*slot != 0 && *slot - 1 != id) {
        return error_set(err, ERROR_FORMAT, "'%.*s' has id %d, and id %d as well", QUOTED_MAX,
                         content.data, *slot - 1, id);
    }
    if (*slot == 0 && piece->flags != 0) {
        return error_set(err, ERROR_FORMAT, "id %d is given to '%.*s' and to '%.*s'", id,
                         QUOTED_MAX, piece->content, QUOTED_MAX, content.data);
    }
    if (*slot == 0) {
        assert(content.n < vocabulary->text_bytes_max - vocabulary->text_bytes);
        piece->content = memcpy(vocabulary->text + vocabulary->text_bytes, content.data, content.n);
        piece->n_bytes = (uint32_t)content.n;
        vocabulary->text_bytes += content.n + 1;
        *slot = id + 1;
    }
    /* An added token that is a base piece, too: both flags hold, and decoding takes it as added. */
    piece->flags |= flags;
    return true;
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, struct bytes left, struct bytes right)
{
    assert(vocabulary->slots != NULL);
    /* In two parts, because a merge asks for both joined; nothing is copied for the question. */
    int32_t *slot = find_slot(vocabulary, left, right);
    return slot == NULL ? -1 : *slot - 1;
}

struct piece vocabulary_piece(const struct vocabulary *vocabulary, int32_t id)
{
    if (id < 0 || id >= vocabulary->n_ids) return (struct piece){0};
    return vocabulary->pieces[id];
}
