/* base/sort: the same order as qsort's, for items of several sizes, sorted ones and equal ones. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"

enum { ITEMS_MAX = 1000 };

/* By the first byte, then the last: with one byte many are equal. */
static size_t n_bytes;
static int compare(const void *left, const void *right)
{
    const uint8_t *a = left, *b = right;
    return a[0] != b[0] ? a[0] - b[0] : a[n_bytes - 1] - b[n_bytes - 1];
}

static void check(uint8_t *items, size_t n)
{
    static uint8_t expected[ITEMS_MAX * SORT_ITEM_BYTES_MAX];
    memcpy(expected, items, n * n_bytes);
    qsort(expected, n, n_bytes, compare);
    sort_in_place(items, n, n_bytes, compare);
    for (size_t i = 0; i < n; i++)
        cr_assert_eq(compare(items + i * n_bytes, expected + i * n_bytes), 0,
                     "%zu of %zu, %zu bytes", i, n, n_bytes);
}

Test(sort, orders_as_qsort_does)
{
    static uint8_t items[ITEMS_MAX * SORT_ITEM_BYTES_MAX];
    const size_t sizes[] = {1, 8, 24, SORT_ITEM_BYTES_MAX};
    uint32_t state = 1;
    for (size_t size = 0; size < sizeof sizes / sizeof *sizes; size++) {
        n_bytes = sizes[size];
        for (size_t n = 0; n <= ITEMS_MAX; n = n < 20 ? n + 1 : 7 * n) {
            for (size_t i = 0; i < n * n_bytes; i++)
                items[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
            check(items, n);
            check(items, n);               /* sorted already */
            for (size_t i = 0; i < n; i++) /* and backwards */
                items[i * n_bytes] = (uint8_t)(255 - items[i * n_bytes]);
            check(items, n);
        }
    }
}

Test(sort, no_item_is_lost_or_made_twice)
{
    uint32_t items[ITEMS_MAX];
    n_bytes = sizeof *items;
    for (uint32_t i = 0; i < ITEMS_MAX; i++)
        items[i] = i * 977 % ITEMS_MAX;
    sort_in_place(items, ITEMS_MAX, sizeof *items, compare);
    bool seen[ITEMS_MAX] = {false};
    for (uint32_t i = 0; i < ITEMS_MAX; i++) {
        cr_assert_not(seen[items[i]]);
        seen[items[i]] = true;
    }
}
