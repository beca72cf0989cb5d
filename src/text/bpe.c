/* The symbols of a stretch are a doubly linked list inside an array; candidates for merging wait in
 * a binary heap. An entry that a later merge made untrue is recognised when it comes up and
 * dropped, so nothing is ever searched or moved: O(n log n) for any stretch, a 10 MB one, too.
 *
 *     symbols   [l] [o] [w] [e] [r]        heap of (rank, position of the left symbol)
 *                 \_______/                one merge: the left symbol takes the new id,
 *               [lo]   [w] [e] [r]         the right one is unlinked, two new pairs may enter
 */
#include "text/bpe.h"

#include <assert.h>
#include <string.h>

enum { PROBES_MAX = 256, QUOTED_MAX = 60 };

struct bpe_merge {
    int32_t left, right;
    int32_t rank_1; /* rank + 1; 0: empty slot */
};

struct bpe_symbol {
    int32_t id;             /* -1: merged into its left neighbour */
    int32_t previous, next; /* indices; -1: none */
};

/* ---- the byte alphabet ---- */

/* The characters that stand for themselves are 33..126, 161..172 and 174..255; the other bytes take
 * U+0100 and up, in order: 0..32, 127..160, 173. */
enum { STAND_IN_0 = 0x100, STAND_IN_127 = STAND_IN_0 + 33, STAND_IN_173 = STAND_IN_127 + 34 };

/* Each character takes one or two bytes of UTF-8, which is what sizes the buffers below. */
static_assert(STAND_IN_173 == 0x143, "the alphabet ends at U+0143, as GPT-2's does");

static uint32_t code_of_byte(uint8_t byte)
{
    if (byte <= 32) return STAND_IN_0 + byte;
    if (byte >= 127 && byte <= 160) return STAND_IN_127 + byte - 127U;
    return byte == 173 ? STAND_IN_173 : byte;
}

/* -1: not in the alphabet. */
static int byte_of_code(uint32_t code)
{
    if (code > STAND_IN_173) return -1;
    if (code == STAND_IN_173) return 173;
    if (code >= STAND_IN_127) return (int)(code - STAND_IN_127) + 127;
    if (code >= STAND_IN_0) return (int)(code - STAND_IN_0);
    return code_of_byte((uint8_t)code) == code ? (int)code : -1;
}

/* Writes to `target` [2 bytes.n]; returns the bytes written. */
static size_t spell(struct bytes bytes, char *target)
{
    assert(target != NULL || bytes.n == 0);
    size_t n = 0;
    for (size_t i = 0; i < bytes.n; i++) {
        uint32_t code = code_of_byte((uint8_t)bytes.data[i]);
        if (code >= 0x80) target[n++] = (char)(0xC0 | code >> 6);
        target[n++] = (char)(code >= 0x80 ? 0x80 | (code & 0x3F) : code);
    }
    assert(n <= 2 * bytes.n);
    return n;
}

size_t bpe_unspell(struct bytes spelled, char *target)
{
    assert(target != NULL || spelled.n == 0);
    size_t n = 0;
    for (size_t i = 0; i < spelled.n; i++) {
        uint32_t code = (uint8_t)spelled.data[i];
        /* A two-byte character; longer ones lie outside the alphabet. */
        if (code >= 0xC0 && code < 0xE0 && i + 1 < spelled.n) {
            code = (code & 0x1F) << 6 | ((uint8_t)spelled.data[++i] & 0x3F);
        } else if (code >= 0x80) {
            code = UINT32_MAX;
        }
        int byte = byte_of_code(code);
        if (byte < 0) {
            memcpy(target, spelled.data, spelled.n);
            return spelled.n;
        }
        target[n++] = (char)byte;
    }
    assert(n <= spelled.n);
    return n;
}

/* ---- the merges ---- */

/* A finalizer alone (MurmurHash3's): the pair is 64 bits already, and the table uses the low ones.
 * The table is in memory only, so the hash may change at any time. */
static uint64_t hash_of(int32_t left, int32_t right)
{
    uint64_t hash = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    hash = (hash ^ hash >> 33) * 0xFF51AFD7ED558CCDU;
    hash = (hash ^ hash >> 33) * 0xC4CEB9FE1A85EC53U;
    return hash ^ hash >> 33;
}

/* The slot of the pair, else the empty one where it belongs; NULL: neither is near, which a table
 * at most half full shows only to files made to collide (vocabulary.c). */
static struct bpe_merge *find_merge(const struct bpe *bpe, int32_t left, int32_t right)
{
    uint32_t at = (uint32_t)hash_of(left, right) & bpe->merge_mask;
    for (int probe = 0; probe < PROBES_MAX; probe++) {
        struct bpe_merge *merge = &bpe->merges[at];
        if (merge->rank_1 == 0 || (merge->left == left && merge->right == right)) return merge;
        at = (at + 1) & bpe->merge_mask;
    }
    return NULL;
}

/* Rank of the pair; -1: it does not merge. */
static int32_t rank_of(const struct bpe *bpe, int32_t left, int32_t right)
{
    const struct bpe_merge *merge = find_merge(bpe, left, right);
    return merge == NULL ? -1 : merge->rank_1 - 1;
}

/* Id of the base piece that stands for `bytes`; -1: none. `spelled` [2 bytes.n] is work space. */
static int32_t find_spelled(const struct vocabulary *vocabulary, struct bytes bytes, char *spelled)
{
    assert(spelled != NULL);
    struct bytes content = {spelled, spell(bytes, spelled)};
    int32_t id = vocabulary_find(vocabulary, content, (struct bytes){0});
    return vocabulary_piece(vocabulary, id).flags & PIECE_BASE ? id : -1;
}

bool bpe_init(struct bpe *bpe, const struct vocabulary *vocabulary, size_t n_merges,
              struct arena *arena, struct error *err)
{
    assert(vocabulary->slots != NULL);
    if (n_merges > VOCABULARY_ID_MAX) {
        return error_set(err, ERROR_FORMAT, "%zu merges, at most %d are accepted", n_merges,
                         VOCABULARY_ID_MAX);
    }
    uint32_t n_slots = 16;
    while (n_slots < 2 * n_merges)
        n_slots *= 2;
    assert(n_slots >= 2 * n_merges);
    *bpe = (struct bpe){
        .vocabulary = vocabulary,
        .merges = arena_try_push(arena, n_slots, sizeof(struct bpe_merge)),
        .merge_mask = n_slots - 1,
        .merged_ids = arena_try_push(arena, n_merges, sizeof(int32_t)),
    };
    if (!bpe->merges || !bpe->merged_ids) {
        return error_set(err, ERROR_FORMAT, "%zu merges are more than %zu bytes hold", n_merges,
                         arena->bytes_max);
    }
    /* A vocabulary may lack bytes: that is an error of the texts that have them. */
    for (int byte = 0; byte < 256; byte++) {
        char raw = (char)byte, spelled[2];
        bpe->byte_ids[byte] = find_spelled(vocabulary, (struct bytes){&raw, 1}, spelled);
    }
    return true;
}

/* Precision for a "%.*s" in a message. */
static int quoted(struct bytes text)
{
    return text.n < QUOTED_MAX ? (int)text.n : QUOTED_MAX;
}

bool bpe_add_merge(struct bpe *bpe, struct bytes left, struct bytes right, struct error *err)
{
    assert(bpe->merges != NULL);
    assert((uint32_t)bpe->n_merges <= bpe->merge_mask / 2);
    struct bytes none = {0};
    int32_t left_id = vocabulary_find(bpe->vocabulary, left, none);
    int32_t right_id = vocabulary_find(bpe->vocabulary, right, none);
    int32_t merged_id = vocabulary_find(bpe->vocabulary, left, right);
    if (left_id < 0 || right_id < 0 || merged_id < 0) {
        return error_set(err, ERROR_FORMAT, "'%.*s' + '%.*s': the vocabulary lacks %s",
                         quoted(left), left.data, quoted(right), right.data,
                         left_id < 0    ? "the left part"
                         : right_id < 0 ? "the right part"
                                        : "the result");
    }
    struct bpe_merge *merge = find_merge(bpe, left_id, right_id);
    if (merge == NULL) {
        return error_set(err, ERROR_FORMAT, "too many pairs share their hash with ids %d and %d",
                         left_id, right_id);
    }
    bpe->merged_ids[bpe->n_merges++] = merged_id;
    *merge = (struct bpe_merge){.left = left_id, .right = right_id, .rank_1 = bpe->n_merges};
    return true;
}

/* ---- encoding ---- */

/* Heap of rank << 32 | position, the least on top. */
struct queue {
    uint64_t *entries; /* [n_max] */
    size_t n, n_max;
};

/* Sifts up: parents that are larger move down until the entry's place is free. */
static void queue_give(struct queue *queue, uint64_t entry)
{
    assert(queue->n < queue->n_max);
    size_t at = queue->n++;
    while (at > 0 && queue->entries[(at - 1) / 2] > entry) {
        queue->entries[at] = queue->entries[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    queue->entries[at] = entry;
}

/* Sifts down: the last entry takes the top's place, then smaller children move up past it. Entries
 * differ in their position when their ranks are equal, which is what makes ties go to the left. */
static uint64_t queue_take(struct queue *queue)
{
    assert(queue->n > 0);
    uint64_t least = queue->entries[0];
    uint64_t last = queue->entries[--queue->n];
    size_t at = 0;
    for (size_t child = 1; child < queue->n; child = 2 * at + 1) {
        if (child + 1 < queue->n && queue->entries[child + 1] < queue->entries[child]) child++;
        if (queue->entries[child] >= last) break;
        queue->entries[at] = queue->entries[child];
        at = child;
    }
    queue->entries[at] = last;
    return least;
}

/* Queues the pair that starts at `at`, if it is one that merges. */
static void consider(const struct bpe *bpe, const struct bpe_symbol *symbols, int32_t at,
                     struct queue *queue)
{
    if (at < 0 || symbols[at].next < 0) return;
    int32_t rank = rank_of(bpe, symbols[at].id, symbols[symbols[at].next].id);
    if (rank >= 0) queue_give(queue, (uint64_t)rank << 32 | (uint32_t)at);
}

/* Merges until the queue is empty. An entry names a position and a rank, not a pair: what lies at
 * the position by then is looked at again, and a stale entry is dropped. Each merge unlinks one
 * symbol and queues at most two pairs, so that the queue never holds more than 2 n entries. */
static void merge_all(const struct bpe *bpe, struct bpe_symbol *symbols, struct queue *queue)
{
    assert(queue->n <= queue->n_max);
    while (queue->n > 0) {
        uint64_t entry = queue_take(queue);
        int32_t at = (int32_t)(entry & UINT32_MAX);
        int32_t merged_id = bpe->merged_ids[entry >> 32];
        struct bpe_symbol *left = &symbols[at];
        if (left->id < 0 || left->next < 0) continue;

        /* The pair may have changed since. As in the reference, what counts is that it still gives
         * the same piece. */
        struct bpe_symbol *right = &symbols[left->next];
        int32_t rank = rank_of(bpe, left->id, right->id);
        if (rank < 0 || bpe->merged_ids[rank] != merged_id) continue;

        left->id = merged_id;
        right->id = -1;
        left->next = right->next;
        if (right->next >= 0) symbols[right->next].previous = at;
        consider(bpe, symbols, left->previous, queue);
        consider(bpe, symbols, at, queue);
    }
}

void bpe_scratch_init(struct bpe_scratch *scratch, size_t n_bytes_max, struct arena *arena)
{
    assert(n_bytes_max <= INT32_MAX);
    *scratch = (struct bpe_scratch){
        .symbols = arena_push(arena, n_bytes_max, sizeof(struct bpe_symbol)),
        .queue = arena_push(arena, 2 * n_bytes_max, sizeof(uint64_t)),
        .spelled = arena_push(arena, 2 * n_bytes_max, 1),
        .n_bytes_max = n_bytes_max,
    };
}

bool bpe_encode(const struct bpe *bpe, struct bytes stretch, struct bpe_scratch *scratch,
                int32_t *ids, int32_t *n_ids, struct error *err)
{
    assert(stretch.n > 0);
    assert(stretch.n <= scratch->n_bytes_max);
    assert(ids != NULL);
    if (bpe->ignore_merges) {
        ids[0] = find_spelled(bpe->vocabulary, stretch, scratch->spelled);
        *n_ids = 1;
        if (ids[0] >= 0) return true;
    }

    /* One symbol per byte, linked in order; then the pairs that merge, then the merging. */
    struct bpe_symbol *symbols = scratch->symbols;
    int32_t n = (int32_t)stretch.n;
    for (int32_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)stretch.data[i];
        int32_t next = i + 1 < n ? i + 1 : -1;
        symbols[i] = (struct bpe_symbol){bpe->byte_ids[byte], i - 1, next};
        if (symbols[i].id < 0) {
            return error_set(err, ERROR_FORMAT, "the vocabulary has no piece for byte 0x%02X",
                             byte);
        }
    }

    struct queue queue = {.entries = scratch->queue, .n_max = 2 * stretch.n};
    for (int32_t i = 0; i < n; i++)
        consider(bpe, symbols, i, &queue);
    merge_all(bpe, symbols, &queue);

    /* Symbol 0 has no left neighbour, so that it is never merged away: the list starts there. */
    *n_ids = 0;
    for (int32_t at = 0; at >= 0; at = symbols[at].next)
        ids[(*n_ids)++] = symbols[at].id;
    assert(*n_ids <= n);
    return true;
}
