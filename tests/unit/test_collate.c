/* app/collate: lines of several files by index, read again from their places, with more files and
 * groups than the caches hold. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "app/collate.h"

enum { FILES = 40, LINES = 50, GROUP = 7 };

static char folder[] = "/tmp/test_collate_XXXXXX";
static const char *paths[FILES];
static struct collate *collate;
static struct error err;

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
}

static void tear_down(void)
{
    char command[64];
    collate_close(collate);
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(collate, .init = set_up, .fini = tear_down);

static void add(int32_t file, int64_t index, int64_t group_bytes, int64_t content_bytes)
{
    const struct scan_record record = {.kind = SCAN_ANSWER,
                                       .index = index,
                                       .key = 1000 + (uint64_t)index,
                                       .is_failed = index == 5,
                                       .group_bytes = group_bytes,
                                       .content_bytes = content_bytes};
    cr_assert(collate_add(collate, file, &record, &err), "%s", err.message);
}

/* LINES lines in groups of GROUP, whose indices are those of all files in turn, backwards. */
static void write_file(int32_t number, bool is_zstd)
{
    char *path = malloc(32), text[GROUP * 32], packed[1024];
    snprintf(path, 32, "%d%s", (int)number, is_zstd ? ".zst" : "");
    paths[number] = path;
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    for (int line = 0; line < LINES;) {
        size_t n = 0;
        int64_t begin_bytes = ftell(file);
        for (int i = 0; i < GROUP && line < LINES; i++, line++) {
            int64_t index = (int64_t)(LINES - 1 - line) * FILES + number;
            add(number, index, begin_bytes + (is_zstd ? 0 : (int64_t)n), is_zstd ? (int64_t)n : 0);
            n += (size_t)snprintf(text + n, sizeof text - n, "line %lld\n", (long long)index);
        }
        size_t n_packed = is_zstd ? ZSTD_compress(packed, sizeof packed, text, n, 3) : 0;
        fwrite(is_zstd ? packed : text, 1, is_zstd ? n_packed : n, file);
    }
    fclose(file);
}

Test(collate, lines_of_many_files_come_in_order)
{
    cr_assert(collate_open(&collate, paths, FILES, &err));
    for (int32_t i = 0; i < FILES; i++)
        write_file(i, i % 3 != 0);
    cr_assert_eq(collate_sort(collate).n, FILES * LINES);
    for (size_t i = 0; i < FILES * LINES; i++) {
        char expected[32];
        struct bytes line;
        cr_assert_eq(collate_index(collate, i), (int64_t)i);
        cr_assert_eq(collate_file(collate, i), (int32_t)(i % FILES));
        cr_assert(collate_line(collate, i, &line, &err), "%s", err.message);
        size_t n = (size_t)snprintf(expected, sizeof expected, "line %zu", i);
        cr_assert_eq(line.n, n);
        cr_assert_eq(memcmp(line.data, expected, n), 0);
    }
}

Test(collate, equal_indices_are_ordered_by_file_and_place)
{
    const char *two[] = {"a", "b"};
    cr_assert(collate_open(&collate, two, 2, &err));
    add(1, 5, 0, 9);
    add(1, 5, 0, 3);
    add(0, 5, 7, 0);
    add(1, COLLATE_INDEX_MAX, 0, 0);
    add(1, 0, 70, 0);
    struct collate_counts counts = collate_sort(collate);
    cr_assert_eq(counts.n, 5);
    cr_assert_eq(counts.n_repeated, 2);
    cr_assert_eq(counts.n_failed, 1, "of three lines of one id");
    cr_assert_eq(collate_index(collate, 0), 0);
    cr_assert_eq(collate_file(collate, 1), 0);
    cr_assert_eq(collate_file(collate, 2), 1);
    cr_assert_eq(collate_index(collate, 4), COLLATE_INDEX_MAX);
}

Test(collate, what_is_out_of_bounds_or_gone_is_told)
{
    const char *one[] = {"gone"};
    const struct scan_record far = {.kind = SCAN_ANSWER, .index = COLLATE_INDEX_MAX + 1};
    struct bytes line;
    cr_assert(collate_open(&collate, one, 1, &err));
    cr_assert_not(collate_add(collate, 0, &far, &err));
    cr_assert_eq(err.code, ERROR_FORMAT);
    add(0, 0, 0, 0);
    cr_assert_eq(collate_sort(collate).n, 1);
    cr_assert_not(collate_line(collate, 0, &line, &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
    FILE *file = fopen("gone", "w");
    fputs("no newline", file);
    fclose(file);
    cr_assert_not(collate_line(collate, 0, &line, &err));
    cr_assert_str_eq(err.message, "gone was changed while it was read");
}
