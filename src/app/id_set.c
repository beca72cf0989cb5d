/* Open addressing with linear probing over bare hashes, at most three quarters full. */
#include "app/id_set.h"

#include <assert.h>
#include <stdlib.h>

enum { SLOTS_MIN = 1024 };

uint64_t id_set_hash(bool is_integer, struct bytes id)
{
    assert(id.data != NULL || id.n == 0);
    const uint64_t prime = 0x100000001B3;
    uint64_t hash = (0xCBF29CE484222325 ^ (is_integer ? 'i' : 's')) * prime;
    for (size_t i = 0; i < id.n; i++)
        hash = (hash ^ (unsigned char)id.data[i]) * prime;
    return hash != 0 ? hash : 1;
}

/* Slot that holds `hash`, or the free one where it belongs. FNV's low bits alone cluster for ids
 * that count up, so the high ones are folded in. */
static uint64_t *find_slot(uint64_t *slots, size_t n_slots, uint64_t hash)
{
    assert(n_slots > 0);
    size_t index = (size_t)(hash ^ hash >> 32) & (n_slots - 1);
    while (slots[index] != 0 && slots[index] != hash)
        index = (index + 1) & (n_slots - 1);
    return &slots[index];
}

static bool grow(struct id_set *set, struct error *err)
{
    size_t n_slots = set->n_slots > 0 ? 2 * set->n_slots : SLOTS_MIN;
    uint64_t *slots = calloc(n_slots, sizeof *slots);
    if (slots == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to remember %zu ids",
                         set->n_used);
    for (size_t i = 0; i < set->n_slots; i++)
        if (set->slots[i] != 0) *find_slot(slots, n_slots, set->slots[i]) = set->slots[i];
    free(set->slots);
    set->slots = slots;
    set->n_slots = n_slots;
    return true;
}

bool id_set_add(struct id_set *set, uint64_t hash, bool *is_new, struct error *err)
{
    assert(hash != 0);
    if (4 * (set->n_used + 1) > 3 * set->n_slots && !grow(set, err)) return false;
    uint64_t *slot = find_slot(set->slots, set->n_slots, hash);
    *is_new = *slot == 0;
    if (*is_new) set->n_used++;
    *slot = hash;
    assert(set->n_used < set->n_slots);
    return true;
}

void id_set_clear(struct id_set *set)
{
    assert(set != NULL);
    free(set->slots);
    *set = (struct id_set){0};
}
