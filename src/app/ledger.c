/* An open hash table of ids and tags; a tag is two flags and 30 bits of a line's hash. */
#include "app/ledger.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS_MIN = 1024 };

#define WAS_READ    UINT32_C(1)
#define IS_ANSWERED UINT32_C(2)
#define LINE_BITS   UINT32_C(0xFFFFFFFC)

uint64_t ledger_hash(char kind, struct bytes id)
{
    assert(id.data != NULL || id.n == 0);
    uint64_t hash = hash_bytes(hash_bytes(HASH_START, (struct bytes){&kind, 1}), id);
    return hash != 0 ? hash : 1;
}

uint64_t ledger_line_key(char kind, int64_t index)
{
    char text[24];
    assert(kind != 'i' && kind != 's');
    int n = snprintf(text, sizeof text, "%" PRId64, index);
    return ledger_hash(kind, (struct bytes){text, (size_t)n});
}

/* Where the id is, or the free slot where it would be. */
static size_t find_slot(const uint64_t *ids, size_t n_slots, uint64_t key)
{
    assert(n_slots > 0);
    size_t index = (size_t)(key ^ key >> 32) & (n_slots - 1);
    while (ids[index] != 0 && ids[index] != key)
        index = (index + 1) & (n_slots - 1);
    return index;
}

static bool grow(struct ledger *ledger, struct error *err)
{
    size_t n_slots = ledger->n_slots > 0 ? 2 * ledger->n_slots : SLOTS_MIN;
    uint64_t *ids = calloc(n_slots, sizeof *ids);
    uint32_t *tags = calloc(n_slots, sizeof *tags);
    if (ids == NULL || tags == NULL) {
        free(ids);
        free(tags);
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to remember %zu ids",
                         ledger->n_used);
    }
    for (size_t i = 0; i < ledger->n_slots; i++) {
        if (ledger->ids[i] == 0) continue;
        size_t at = find_slot(ids, n_slots, ledger->ids[i]);
        ids[at] = ledger->ids[i];
        tags[at] = ledger->tags[i];
    }
    free(ledger->ids);
    free(ledger->tags);
    ledger->ids = ids;
    ledger->tags = tags;
    ledger->n_slots = n_slots;
    return true;
}

/* The tag of the id, which becomes known. */
static uint32_t *tag_of(struct ledger *ledger, uint64_t key, struct error *err)
{
    assert(key != 0);
    if (4 * (ledger->n_used + 1) > 3 * ledger->n_slots && !grow(ledger, err)) return NULL;
    size_t at = find_slot(ledger->ids, ledger->n_slots, key);
    ledger->n_used += ledger->ids[at] == 0;
    ledger->ids[at] = key;
    assert(ledger->n_used < ledger->n_slots);
    return &ledger->tags[at];
}

static uint32_t line_bits(uint64_t line_hash)
{
    return (uint32_t)(line_hash ^ line_hash >> 32) & LINE_BITS;
}

bool ledger_read(struct ledger *ledger, uint64_t key, uint64_t line_hash,
                 enum ledger_verdict *verdict, struct error *err)
{
    uint32_t *tag = tag_of(ledger, key, err);
    if (tag == NULL) return false;
    bool is_same = ledger->any_line || (*tag & LINE_BITS) == line_bits(line_hash);
    if (*tag & WAS_READ) *verdict = LEDGER_REPEATED;
    else if (!(*tag & IS_ANSWERED)) *verdict = LEDGER_NEW;
    else *verdict = is_same ? LEDGER_ANSWERED : LEDGER_CHANGED;
    *tag |= WAS_READ;
    return true;
}

bool ledger_answer(struct ledger *ledger, uint64_t key, uint64_t line_hash, bool *is_new,
                   struct error *err)
{
    uint32_t *tag = tag_of(ledger, key, err);
    if (tag == NULL) return false;
    *is_new = !(*tag & IS_ANSWERED);
    if (*is_new) *tag |= IS_ANSWERED | line_bits(line_hash);
    return true;
}

void ledger_clear(struct ledger *ledger)
{
    assert(ledger != NULL);
    free(ledger->ids);
    free(ledger->tags);
    *ledger = (struct ledger){0};
}
