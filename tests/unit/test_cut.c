/* Radix selection: order of keys, and cuts against a sort. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "backend/cut.h"

Test(cut, keys_order_like_the_floats_they_stand_for)
{
    const float ascending[] = {-INFINITY, -3e38f, -1.5f, -1.0f,  -1e-40f, 0.0f,
                               1e-45f,    1e-38f, 1.0f,  1.001f, 3e38f,   INFINITY};
    for (size_t i = 1; i < sizeof ascending / sizeof ascending[0]; i++)
        cr_assert_lt(cut_key(ascending[i - 1]), cut_key(ascending[i]), "%zu", i);
    cr_assert_eq(cut_key(-0.0f), cut_key(0.0f));
}

static void run_passes(struct cut *cut, const float *values, const double *weights, int32_t n)
{
    do {
        for (int32_t i = 0; i < n; i++)
            cut_add(cut, cut_key(values[i]), weights ? weights[i] : 1);
    } while (cut_narrow(cut));
}

static int compare_descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Few distinct values, so that most cuts fall into ties. */
Test(cut, keeps_the_k_largest_for_every_k_as_a_sort_does)
{
    enum { N = 97 };
    float values[N], sorted[N];
    srand(5);
    for (int32_t i = 0; i < N; i++)
        values[i] = sorted[i] = (float)(rand() % 23 - 11) * 0.3f;
    qsort(sorted, N, sizeof sorted[0], compare_descending);
    for (int32_t k = 1; k <= N; k++) {
        struct cut cut;
        int32_t n_larger = 0;
        cut_init(&cut, k - 1);
        run_passes(&cut, values, NULL, N);
        for (int32_t i = 0; i < N; i++)
            n_larger += sorted[i] > sorted[k - 1];
        cr_assert_eq(cut.key, cut_key(sorted[k - 1]), "k %d", k);
        cr_assert_eq((int32_t)cut.before, n_larger, "k %d", k);
        cr_assert_eq(cut_n_ties(&cut, 1), k - n_larger, "k %d", k);
    }
}

Test(cut, keeps_all_when_the_limit_is_beyond_the_end)
{
    const float values[] = {1, 5, -2, 5};
    struct cut cut;
    cut_init(&cut, 100);
    run_passes(&cut, values, NULL, 4);
    cr_assert_eq(cut.key, cut_key(-2));
}

Test(cut, takes_a_share_of_the_weight_up_to_the_entry_that_reaches_it)
{
    const float values[] = {0.5f, 3, 1, 2};
    const double weights[] = {1, 4, 2, 3};
    const struct {
        double fraction;
        float last;
    } cases[] = {{0, 3}, {0.39, 3}, {0.4, 2}, {0.69, 2}, {0.7, 1}, {0.89, 1}, {0.95, 0.5f}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cut cut;
        cut_init_fraction(&cut, cases[i].fraction);
        run_passes(&cut, values, weights, 4);
        cr_assert_eq(cut.key, cut_key(cases[i].last), "fraction %g", cases[i].fraction);
    }
}

Test(cut, tells_how_many_equal_entries_stay)
{
    const float values[] = {1, 1, 1, 1, 2, 1};
    struct cut cut;
    cut_init_fraction(&cut, 0.5); /* before the ones: 1 of 6; they stay while before <= 3 */
    run_passes(&cut, values, NULL, 6);
    cr_assert_eq(cut.key, cut_key(1));
    cr_assert_eq(cut_n_ties(&cut, 1), 3);
}
