/* Sorting where memory counts: qsort may take as much again as the items have. */
#ifndef BASE_SORT_H
#define BASE_SORT_H

#include <stddef.h>

#define SORT_ITEM_BYTES_MAX 32

/* Below 0, 0 or above 0 as `a` belongs before, beside or behind `b`. */
typedef int sort_compare(const void *a, const void *b);

/* Orders `items` [n] of `item_bytes` each in place: heapsort, n log n comparisons at worst. Equal
 * items end in any order. */
void sort_in_place(void *items, size_t n, size_t item_bytes, sort_compare *compare);

#endif
