/* Memory that is freed together. An arena reserves address space up to a ceiling once and hands it
 * out front to back; pages cost memory when first touched. Three lives use it: run, window, step
 * (ARCHITECTURE.md). Nothing is freed singly: reset the arena, or rewind to a mark. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*     base          used_bytes        peak_bytes               bytes_max
 *     |  in use     |  may be dirty   |  never touched, zero   |           */
struct arena {
    uint8_t *base;
    size_t used_bytes;
    size_t peak_bytes; /* largest used_bytes since create */
    size_t bytes_max;  /* ceiling; the struct never grows past it */
};

/* A span of bytes that somebody else owns; not NUL-terminated unless said so. */
struct bytes {
    const char *data;
    size_t n;
};

/* FNV-1a, 64 bits: the hash, at first HASH_START, with these bytes added. */
#define HASH_START UINT64_C(0xCBF29CE484222325)
static inline uint64_t hash_bytes(uint64_t hash, struct bytes bytes)
{
    for (size_t i = 0; i < bytes.n; i++)
        hash = (hash ^ (uint8_t)bytes.data[i]) * UINT64_C(0x100000001B3);
    return hash;
}

/* What a push of `n_bytes` takes: the next multiple of 64, its alignment. */
size_t arena_round_up(size_t n_bytes);

/* Reserves `bytes_max` of address space. False (ERROR_UNAVAILABLE): the system refused. */
bool arena_create(struct arena *arena, size_t bytes_max, struct error *err);

/* Gives the memory back. A zeroed arena is fine. */
void arena_destroy(struct arena *arena);

/* `count` x `size` zeroed bytes, aligned to 64; count 0 gives a valid pointer to nothing. Memory is
 * borrowed until reset. Does not fit: a mistake in the program's own budget, asserts. */
void *arena_push(struct arena *arena, size_t count, size_t size);

/* The same for sizes that come from outside: NULL when it does not fit or the product overflows. */
void *arena_try_push(struct arena *arena, size_t count, size_t size);

/* A NUL-terminated copy of `n` bytes; NULL when it does not fit. */
char *arena_try_copy(struct arena *arena, const char *data, size_t n);

/* Frees everything pushed since `mark_bytes` (an earlier used_bytes); 0 frees all. */
void arena_rewind(struct arena *arena, size_t mark_bytes);

#endif
