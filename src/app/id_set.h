/* A set of request ids, kept as 64-bit hashes: it tells whether an id was seen before for at most
 * 22 bytes an id, whatever the ids' lengths. Two different ids of one run share a hash with a
 * probability of n^2 / 2^65: 3e-8 for a million lines. */
#ifndef APP_ID_SET_H
#define APP_ID_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

/* Caller's struct; zeroed it is an empty set. */
struct id_set {
    uint64_t *slots; /* [n_slots] on the heap, open addressing; 0: free */
    size_t n_slots;  /* a power of two, or 0 */
    size_t n_used;   /* ids in it; at most three quarters of n_slots */
};

/* Hash of an id, never 0: FNV-1a, 64 bits, over the byte 'i' (integers, in decimal) or 's'
 * (strings) and the id's bytes. Part of the format: sampled answers depend on it. */
uint64_t id_set_hash(bool is_integer, struct bytes id);

/* Adds `hash` and says in `is_new` whether it was missing. False: out of memory. */
bool id_set_add(struct id_set *set, uint64_t hash, bool *is_new, struct error *err);

/* Frees the memory. The set is empty then and may be used again; a zeroed one is fine, too. */
void id_set_clear(struct id_set *set);

#endif
