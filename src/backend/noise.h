/* Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): a number depends on the
 * request's key, the step, the position and the vocabulary id, on nothing else, so a sampled answer
 * is the same in any batch, on any thread and after a restart. */
#ifndef BACKEND_NOISE_H
#define BACKEND_NOISE_H

#include <stdint.h>

#include "backend/inline.h"

/* Streams that are not vocabulary ids. */
#define NOISE_CONFIDENCE 0xFFFFFFFFu /* random remasking */
#define NOISE_ORDER      0xFFFFFFFEu /* order_temperature */
#define NOISE_EACH       0xFFFFFFFDu /* COMMIT_EACH */

/* Uniform in (0, 1), 52 random bits: never 0, never 1. key = {seed, hash of the request id}. */
BACKEND_INLINE double noise_uniform(const uint64_t key[2], uint32_t step, uint32_t position,
                                    uint32_t stream)
{
    uint32_t c0 = stream, c1 = position, c2 = step, c3 = (uint32_t)(key[1] >> 32);
    uint32_t k0 = (uint32_t)key[0], k1 = (uint32_t)(key[0] >> 32) ^ (uint32_t)key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint64_t bits = ((uint64_t)c0 << 32 | c1) >> 12;
    return ((double)bits + 0.5) * (1.0 / 4503599627370496.0); /* 2^-52 */
}

/* Number `number` of the sequence of struct dummy_args (backend.h), not yet rounded to bf16:
 * SplitMix64 (Steele et al. 2014) by number. */
BACKEND_INLINE float noise_dummy(uint64_t seed, uint64_t number, float scale)
{
    uint64_t z = seed + (number + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    double u = (double)((z ^ z >> 31) >> 11) * (1.0 / 9007199254740992.0); /* 2^-53 */
    return ((float)u - 0.5f) * scale;
}

#endif
