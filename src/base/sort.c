/* A heap of items with the last one at its root; from the root the sorted end grows. */
#include "base/sort.h"

#include <assert.h>
#include <stdalign.h>
#include <stddef.h>
#include <string.h>

/* Puts `item` below `root` of a heap of `n` where it belongs, from the root down. */
static void sink(char *items, size_t n, size_t root, const char *item, size_t item_bytes,
                 sort_compare *compare)
{
    assert(root < n);
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        const char *at = items + child * item_bytes;
        if (child + 1 < n && compare(at, at + item_bytes) < 0) {
            child++;
            at += item_bytes;
        }
        if (compare(item, at) >= 0) break;
        memcpy(items + root * item_bytes, at, item_bytes);
    }
    memcpy(items + root * item_bytes, item, item_bytes);
}

void sort_in_place(void *items, size_t n, size_t item_bytes, sort_compare *compare)
{
    alignas(max_align_t) char item[SORT_ITEM_BYTES_MAX];
    char *all = items;
    assert(item_bytes > 0 && item_bytes <= sizeof item);
    for (size_t i = n / 2; i-- > 0;) {
        memcpy(item, all + i * item_bytes, item_bytes);
        sink(all, n, i, item, item_bytes, compare);
    }
    for (size_t i = n; i-- > 1;) {
        memcpy(item, all + i * item_bytes, item_bytes);
        memcpy(all + i * item_bytes, all, item_bytes);
        sink(all, i, 0, item, item_bytes, compare);
    }
}
