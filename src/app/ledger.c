/* Open hash tables of ids and tags; a tag is two flags and 30 bits of a line's hash. There are
 * several, each a share of all hashes, so that while one grows there are two of a share only. */
#include "app/ledger.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS_MIN = 64 };

#define MIXER       UINT64_C(0x9E3779B97F4A7C15) /* its products are spread over all bits */
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
static size_t find_slot(const struct ledger_table *table, uint64_t key)
{
    assert(table->n_used < table->n_slots);
    size_t index = (size_t)((key * MIXER << 4 >> 32) * table->n_slots >> 32);
    while (table->ids[index] != 0 && table->ids[index] != key)
        index = index + 1 < table->n_slots ? index + 1 : 0;
    return index;
}

static bool grow(struct ledger_table *table, struct error *err)
{
    struct ledger_table old = *table;
    size_t n_slots = old.n_slots > 0 ? old.n_slots + old.n_slots / 2 : SLOTS_MIN;
    uint64_t *ids = calloc(n_slots, sizeof *ids + sizeof *old.tags);
    assert(n_slots <= UINT32_MAX);
    if (ids == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to remember %zu ids",
                         LEDGER_TABLES * old.n_used);
    table->ids = ids;
    table->tags = (uint32_t *)(ids + n_slots);
    table->n_slots = n_slots;
    for (size_t i = 0; i < old.n_slots; i++) {
        if (old.ids[i] == 0) continue;
        size_t at = find_slot(table, old.ids[i]);
        table->ids[at] = old.ids[i];
        table->tags[at] = old.tags[i];
    }
    free(old.ids);
    return true;
}

static size_t table_of(uint64_t key)
{
    static_assert(LEDGER_TABLES == 1 << 4, "find_slot takes the other bits");
    assert(key != 0);
    return (size_t)(key * MIXER >> 60);
}

/* The tag of the id, which becomes known. */
static uint32_t *tag_of(struct ledger *ledger, uint64_t key, struct error *err)
{
    struct ledger_table *table = &ledger->tables[table_of(key)];
    if (5 * (table->n_used + 1) > 4 * table->n_slots && !grow(table, err)) return NULL;
    size_t at = find_slot(table, key);
    table->n_used += table->ids[at] == 0;
    table->ids[at] = key;
    return &table->tags[at];
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

bool ledger_was_read(const struct ledger *ledger, uint64_t key)
{
    const struct ledger_table *table = &ledger->tables[table_of(key)];
    return table->n_used > 0 && (table->tags[find_slot(table, key)] & WAS_READ) != 0;
}

void ledger_forget_reads(struct ledger *ledger)
{
    assert(ledger != NULL);
    for (int i = 0; i < LEDGER_TABLES; i++)
        for (size_t slot = 0; slot < ledger->tables[i].n_slots; slot++)
            ledger->tables[i].tags[slot] &= ~WAS_READ;
}

void ledger_clear(struct ledger *ledger)
{
    assert(ledger != NULL);
    for (int i = 0; i < LEDGER_TABLES; i++)
        free(ledger->tables[i].ids);
    *ledger = (struct ledger){0};
}
