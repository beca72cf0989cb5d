/* Where to cut a list that is sorted by value, without storing or sorting it: radix selection over
 * passes. An entry stays while the weight of the entries before it is <= limit; weights of 1 with
 * limit k - 1 keep the k largest, probabilities with limit p keep a top-p nucleus.
 *
 *     cut_init(&cut, limit);
 *     do {
 *         for each entry: cut_add(&cut, cut_key(value), weight);
 *     } while (cut_narrow(&cut));
 *
 * Three passes; memory does not depend on the number of entries. Equal values must have equal
 * weights. Private to backend/. */
#ifndef BACKEND_CUT_H
#define BACKEND_CUT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "backend/inline.h"

#define CUT_BIN_BITS 11
#define CUT_N_BINS   (1 << CUT_BIN_BITS)

struct cut {
    uint32_t key;  /* the cut's key, as far as it is found; exact after the last pass */
    int32_t shift; /* bits of the key still unknown below this pass's digit */
    double limit;
    double fraction; /* >= 0: limit becomes fraction * total weight after the first pass */
    double before;   /* weight of all entries with a larger key */
    double at;       /* weight of the entries with the cut's key, after the last pass */
    double weight[CUT_N_BINS]; /* by digit, of the entries that share the known part of the key */
};

/* Order-preserving: a < b exactly when the keys are; -0 and +0 are one value. */
BACKEND_INLINE uint32_t cut_key(float value)
{
    uint32_t bits;
    float normal = value + 0.0f; /* -0 becomes +0 */
    memcpy(&bits, &normal, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* The value that a key stands for. */
BACKEND_INLINE float cut_value(uint32_t key)
{
    uint32_t bits = key & 0x80000000u ? key & 0x7FFFFFFFu : ~key;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Entries stay while the weight before them is <= limit. */
void cut_init(struct cut *cut, double limit);
/* The same with a share of the total weight as the limit. */
void cut_init_fraction(struct cut *cut, double fraction);

/* Adds an entry; every pass sees the same entries, in any order that is always the same. */
void cut_add(struct cut *cut, uint32_t key, double weight);

/* Ends a pass. True: another pass is needed. False: key, before and at are final; entries with a
 * larger key stay, of those with this key the first cut_n_ties. */
bool cut_narrow(struct cut *cut);

/* How many entries with exactly the cut's key stay, when each weighs `weight`; at least 1. */
int32_t cut_n_ties(const struct cut *cut, double weight);

#endif
