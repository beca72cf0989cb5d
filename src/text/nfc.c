/* Decompose every character, sort each run of combining marks by class, compose: UAX 15. The steps
 * share one array of code points, which is also where the UTF-8 comes back.
 *
 *     UTF-8 --decompose--> code points --order--> --compose--> --encode--> UTF-8
 *                                      \________ all in place ________/
 */
#include "text/nfc.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#include <utf8proc.h>

enum {
    LEAD_OF_U0300 = 0xCC,
    /* No character gives more than three code points for two bytes (U+0390). */
    CODES_PER_BYTE_MAX = 2,
    DECOMPOSED_MAX = 4,
    CLASSES = 256,
    ARENA_SLACK = 256, /* alignment of the two pushes */
};

bool nfc_is_plain(struct bytes text)
{
    for (size_t i = 0; i < text.n; i++) {
        if ((uint8_t)text.data[i] >= LEAD_OF_U0300) return false;
    }
    return true;
}

size_t nfc_arena_bytes(size_t n)
{
    assert(n < SIZE_MAX / 32);
    size_t n_codes = CODES_PER_BYTE_MAX * n + 1;
    return 2 * n_codes * sizeof(int32_t) + ARENA_SLACK;
}

/* Canonical combining class: 0 for what is no mark, and for marks that stay where they are. */
static uint8_t class_of(int32_t code)
{
    return (uint8_t)utf8proc_get_property(code)->combining_class;
}

/* Writes the code points of `text`, fully decomposed, to `codes` [n_codes_max]; returns their
 * number. Without UTF8PROC_COMPAT compatibility forms stay: NFC keeps a ligature. */
static size_t decompose(struct bytes text, int32_t *codes, size_t n_codes_max)
{
    size_t n_codes = 0;
    for (size_t at = 0; at < text.n;) {
        int32_t code;
        utf8proc_ssize_t n_bytes = utf8proc_iterate((const uint8_t *)text.data + at,
                                                    (utf8proc_ssize_t)(text.n - at), &code);
        assert(n_bytes > 0);
        at += (size_t)n_bytes;

        int32_t parts[DECOMPOSED_MAX];
        int boundary = 0;
        utf8proc_ssize_t n_parts = utf8proc_decompose_char(
            code, parts, DECOMPOSED_MAX, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        assert(n_parts > 0);
        assert(n_parts <= DECOMPOSED_MAX);
        assert((size_t)n_parts <= n_codes_max - n_codes);
        memcpy(codes + n_codes, parts, (size_t)n_parts * sizeof *parts);
        n_codes += (size_t)n_parts;
    }
    return n_codes;
}

/* Counting sort by combining class: stable, and linear in the length of the run. */
static void sort_marks(int32_t *codes, size_t n, struct arena *arena)
{
    assert(n > 1);
    size_t mark = arena->used_bytes;
    int32_t *unsorted = arena_push(arena, n, sizeof *unsorted);
    memcpy(unsorted, codes, n * sizeof *codes);

    size_t start[CLASSES + 1] = {0}; /* of each class in the sorted run */
    for (size_t i = 0; i < n; i++)
        start[class_of(codes[i]) + 1]++;
    for (int i = 0; i < CLASSES; i++)
        start[i + 1] += start[i];
    assert(start[CLASSES] == n);
    for (size_t i = 0; i < n; i++)
        codes[start[class_of(unsorted[i])]++] = unsorted[i];
    arena_rewind(arena, mark);
}

/* Sorts every run of marks that is out of order; nearly none is, so that the copy is seldom made.
 */
static void order_marks(int32_t *codes, size_t n_codes, struct arena *arena)
{
    assert(codes != NULL);
    for (size_t i = 0; i < n_codes;) {
        size_t run_start = i;
        bool sorted = true;
        for (uint8_t last = 0; i < n_codes && class_of(codes[i]) != 0; i++) {
            sorted = sorted && last <= class_of(codes[i]);
            last = class_of(codes[i]);
        }
        if (!sorted) sort_marks(codes + run_start, i - run_start, arena);
        if (i == run_start) i++; /* not a mark */
    }
}

struct bytes nfc_compose(struct bytes text, struct arena *arena)
{
    if (text.n == 0) return text;
    assert(text.data != NULL);
    size_t n_codes_max = CODES_PER_BYTE_MAX * text.n;
    int32_t *codes = arena_push(arena, n_codes_max + 1, sizeof *codes);
    size_t n_codes = decompose(text, codes, n_codes_max);
    assert(n_codes > 0);
    order_marks(codes, n_codes, arena);

    /* Composes, then encodes, with a NUL for which `codes` has one more. STABLE keeps the
     * composition exclusions, as NFC wants. */
    utf8proc_ssize_t n_bytes =
        utf8proc_reencode(codes, (utf8proc_ssize_t)n_codes, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    assert(n_bytes > 0);
    assert((size_t)n_bytes <= NFC_GROWTH_MAX * text.n);
    return (struct bytes){.data = (const char *)codes, .n = (size_t)n_bytes};
}
