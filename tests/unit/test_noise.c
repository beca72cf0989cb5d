/* Counter-based noise: the published Philox vectors, uniformity, and that a number depends on its
 * arguments alone. */
#include <criterion/criterion.h>
#include <stdint.h>

#include "backend/noise.h"

/* A uniform back to the 52 bits it was made from. */
static uint64_t bits_of(double uniform)
{
    return (uint64_t)(uniform * 4503599627370496.0);
}

/* Random123's known answers for philox4x32-10; the words are {stream, position, step, key}. */
Test(noise, gives_the_published_philox_vectors)
{
    uint64_t zero[2] = {0, 0};
    cr_assert_eq(bits_of(noise_uniform(zero, 0, 0, 0)), 0x6627e8d5e169c58dull >> 12);
    uint64_t pi[2] = {0x299f31d0a4093822ull, 0x0370734400000000ull};
    cr_assert_eq(bits_of(noise_uniform(pi, 0x13198a2e, 0x85a308d3, 0x243f6a88)),
                 0xd16cfe0994fdccebull >> 12);
}

Test(noise, depends_on_every_argument)
{
    uint64_t key[2] = {1, 2}, other_seed[2] = {3, 2}, other_request[2] = {1, 0x200000002ull};
    double base = noise_uniform(key, 5, 6, 7);
    cr_assert_neq(base, noise_uniform(other_seed, 5, 6, 7));
    cr_assert_neq(base, noise_uniform(other_request, 5, 6, 7));
    cr_assert_neq(base, noise_uniform(key, 6, 6, 7));
    cr_assert_neq(base, noise_uniform(key, 5, 7, 7));
    cr_assert_neq(base, noise_uniform(key, 5, 6, 8));
}

Test(noise, does_not_depend_on_the_order_of_calls)
{
    uint64_t key[2] = {42, 4711};
    double forward[64];
    for (uint32_t i = 0; i < 64; i++)
        forward[i] = noise_uniform(key, 3, i % 8, i);
    for (uint32_t i = 64; i-- > 0;)
        cr_assert_eq(forward[i], noise_uniform(key, 3, i % 8, i));
}

/* The seed is fixed, so this cannot fail by chance. */
Test(noise, is_uniform_over_ids_positions_and_steps)
{
    enum { N_BINS = 64, N_EACH = 40 };
    int32_t counts[N_BINS] = {0}, n = N_EACH * N_EACH * N_EACH;
    uint64_t key[2] = {7, 0x123456789abcdefull};
    double sum = 0;
    for (uint32_t step = 0; step < N_EACH; step++) {
        for (uint32_t position = 0; position < N_EACH; position++) {
            for (uint32_t id = 0; id < N_EACH; id++) {
                double u = noise_uniform(key, step, position, id);
                cr_assert(u > 0);
                cr_assert(u < 1);
                counts[(int)(u * N_BINS)]++;
                sum += u;
            }
        }
    }
    double chi_square = 0, expected = (double)n / N_BINS;
    for (int i = 0; i < N_BINS; i++)
        chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    cr_assert_lt(chi_square, 103.4, "chi-square %g", chi_square); /* 63 degrees, p = 0.001 */
    cr_assert_float_eq(sum / n, 0.5, 0.005);
}

Test(noise, of_neighbouring_ids_is_not_correlated)
{
    uint64_t key[2] = {11, 13};
    double product = 0;
    int32_t n = 20000;
    for (int32_t i = 0; i < n; i++) {
        double a = noise_uniform(key, 0, 0, (uint32_t)i) - 0.5;
        double b = noise_uniform(key, 0, 0, (uint32_t)i + 1) - 0.5;
        product += a * b;
    }
    /* The product of two such has deviation 1/12, so the mean of n has 1 / (12 sqrt(n)). */
    cr_assert_lt(product / n, 4.0 / (12 * 141.4));
    cr_assert_gt(product / n, -4.0 / (12 * 141.4));
}
