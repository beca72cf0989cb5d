/* Radix selection by weight: each pass sums the weights of the entries by the next digit of their
 * keys, then walks the digits downwards to the last one that still begins within the limit. */
#include "backend/cut.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

/* Width of the last digit: what 32 bits leave after two digits of CUT_BIN_BITS. */
#define LAST_BITS (32 - 2 * CUT_BIN_BITS)

void cut_init(struct cut *cut, double limit)
{
    assert(limit >= 0);
    memset(cut, 0, sizeof *cut);
    cut->shift = 32 - CUT_BIN_BITS;
    cut->limit = limit;
    cut->fraction = -1;
}

void cut_init_fraction(struct cut *cut, double fraction)
{
    assert(fraction >= 0);
    cut_init(cut, 0);
    cut->fraction = fraction;
}

/* Bits of this pass's digit. */
static int32_t digit_bits(const struct cut *cut)
{
    return cut->shift > 0 ? CUT_BIN_BITS : LAST_BITS;
}

void cut_add(struct cut *cut, uint32_t key, double weight)
{
    assert(weight >= 0);
    uint64_t known = (uint64_t)(key ^ cut->key) >> (cut->shift + digit_bits(cut));
    if (known != 0) return;
    uint32_t digit = (key >> cut->shift) & ((1u << digit_bits(cut)) - 1);
    cut->weight[digit] += weight;
}

static double total_weight(const struct cut *cut)
{
    double total = 0;
    for (int32_t i = CUT_N_BINS - 1; i >= 0; i--)
        total += cut->weight[i];
    assert(total > 0);
    return total;
}

bool cut_narrow(struct cut *cut)
{
    assert(cut->shift >= 0);
    bool is_first = cut->shift == 32 - CUT_BIN_BITS;
    if (is_first && cut->fraction >= 0) cut->limit = cut->fraction * total_weight(cut);

    int32_t chosen = -1;
    double sum = cut->before;
    for (int32_t i = CUT_N_BINS - 1; i >= 0 && sum <= cut->limit; i--) {
        if (!(cut->weight[i] > 0)) continue;
        chosen = i;
        cut->before = sum;
        sum += cut->weight[i];
    }
    assert(chosen >= 0);
    cut->key |= (uint32_t)chosen << cut->shift;
    cut->at = cut->weight[chosen];
    if (cut->shift == 0) return false;
    cut->shift = cut->shift > LAST_BITS ? LAST_BITS : 0;
    memset(cut->weight, 0, sizeof cut->weight);
    return true;
}

int32_t cut_n_ties(const struct cut *cut, double weight)
{
    assert(weight > 0);
    double n = floor((cut->limit - cut->before) / weight) + 1;
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}
