/* text/utf8 and text/nfc: every code point, every damage of the standard's own examples, and the
 * normal form against utf8proc's, run lengths included that utf8proc itself is slow at. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/nfc.h"
#include "text/utf8.h"

static struct bytes bytes_of(const char *text)
{
    return (struct bytes){text, strlen(text)};
}

Test(utf8, every_character_is_valid_and_no_surrogate_is)
{
    for (int32_t code = 0; code < 0x110000; code++) {
        uint32_t c = (uint32_t)code;
        char text[4] = {(char)c};
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const uint32_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
        if (n > 1) text[0] = (char)(leads[n] | c >> 6 * (n - 1));
        for (size_t i = 1; i < n; i++)
            text[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3F));
        bool is_surrogate = code >= 0xD800 && code < 0xE000;
        cr_assert_eq(utf8_valid_prefix((struct bytes){text, n}), is_surrogate ? 0 : n, "U+%04X", c);
        if (!is_surrogate) cr_assert_eq(utf8_char_bytes((struct bytes){text, n}), n);
        if (n > 1) cr_assert_eq(utf8_valid_prefix((struct bytes){text, n - 1}), 0);
    }
}

static const char *repaired(const char *damaged)
{
    static char text[64];
    struct bytes bytes = bytes_of(damaged);
    size_t n = utf8_repaired_bytes(bytes);
    cr_assert_lt(n, sizeof text);
    utf8_repair(bytes, text);
    text[n] = 0;
    cr_assert_eq(utf8_valid_prefix((struct bytes){text, n}), n);
    return text;
}

/* Unicode 15, tables 3-8 to 3-11. */
Test(utf8, repair_replaces_maximal_subparts)
{
#define BAD "\xEF\xBF\xBD"
    cr_assert_str_eq(repaired("a\xF1\x80\x80\xE1\x80\xC2"
                              "b\x80"
                              "c\x80\xBF"
                              "d"),
                     "a" BAD BAD BAD "b" BAD "c" BAD BAD "d");
    cr_assert_str_eq(repaired("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"
                              "A"),
                     BAD BAD BAD BAD BAD BAD BAD BAD "A");
    cr_assert_str_eq(repaired("\xED\xA0\x80\xED\xBF\xBF\xED\xAF"
                              "A"),
                     BAD BAD BAD BAD BAD BAD BAD BAD "A");
    cr_assert_str_eq(repaired("\xF4\x91\x92\x93\xFF"
                              "A\x80\xBF"
                              "B"),
                     BAD BAD BAD BAD BAD "A" BAD BAD "B");
    cr_assert_str_eq(repaired("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
                              "A"),
                     BAD BAD BAD BAD "A");
    cr_assert_str_eq(repaired("\xE4\xB8\xAD"), "\xE4\xB8\xAD");
    cr_assert_str_eq(repaired(""), "");
}

/* ---- NFC ---- */

static void check_composed(struct arena *arena, struct bytes text)
{
    utf8proc_uint8_t *expected = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text.data, (utf8proc_ssize_t)text.n,
                                      &expected, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    cr_assert_geq(n, 0);
    struct bytes composed = nfc_compose(text, arena);
    cr_assert_eq(composed.n, (size_t)n);
    cr_assert_arr_eq(composed.data, expected, (size_t)n);
    cr_assert_leq(arena->used_bytes, nfc_arena_bytes(text.n));
    if (nfc_is_plain(text)) {
        cr_assert_eq(composed.n, text.n);
        cr_assert_arr_eq(composed.data, text.data, text.n);
    }
    free(expected);
    arena_rewind(arena, 0);
}

/* Alone, and among marks of several classes in the wrong order. */
Test(nfc, every_character_composes_as_in_utf8proc)
{
    struct arena arena;
    cr_assert(arena_create(&arena, 1 << 20, NULL));
    for (int32_t code = 0; code < 0x110000; code++) {
        if (code >= 0xD800 && code < 0xE000) continue;
        utf8proc_uint8_t c[4];
        int n = (int)utf8proc_encode_char(code, c);
        if (code != 0) check_composed(&arena, (struct bytes){(char *)c, (size_t)n});
        char text[64];
        n = snprintf(text, sizeof text, "a%.*s\u0301\u0323%.*s\u05B0\u1161\u11A8%.*s\u0338", n,
                     (char *)c, n, (char *)c, n, (char *)c);
        check_composed(&arena, (struct bytes){text, (size_t)n});
    }
    arena_destroy(&arena);
}

Test(nfc, a_long_run_of_marks_is_sorted_in_linear_time, .timeout = 60)
{
    enum { MARKS = 2000000 };
    struct arena arena;
    cr_assert(arena_create(&arena, nfc_arena_bytes(2 * MARKS + 1), NULL));
    char *text = malloc(2 * MARKS + 1);
    cr_assert_not_null(text);
    text[0] = 'q';
    for (size_t i = 0; i < MARKS; i++)
        memcpy(text + 1 + 2 * i, i % 2 == 0 ? "\u0307" : "\u0323", 2);
    struct bytes composed = nfc_compose((struct bytes){text, 2 * MARKS + 1}, &arena);
    cr_assert_eq(composed.n, 2 * MARKS + 1);
    for (size_t i = 0; i < MARKS; i++) {
        const char *mark = i < MARKS / 2 ? "\u0323" : "\u0307";
        cr_assert_eq(memcmp(composed.data + 1 + 2 * i, mark, 2), 0, "mark %zu", i);
    }
    free(text);
    arena_destroy(&arena);
}

Test(nfc, the_empty_text_stays)
{
    struct arena arena;
    cr_assert(arena_create(&arena, 4096, NULL));
    cr_assert_eq(nfc_compose((struct bytes){"", 0}, &arena).n, 0);
    arena_destroy(&arena);
}
