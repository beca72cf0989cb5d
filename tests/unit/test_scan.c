/* app/scan: records with their places and keys, and what a file is besides them. What a run makes
 * of it is in test_resume.c. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "app/header.h"
#include "app/ledger.h"
#include "app/scan.h"
#include "base/frames.h"

#define HEADER   "{\"header\":{\"format\":1}}\n"
#define HASH     "\"line_hash\":\"00000000000000ab\""
#define FIRST    "{\"id\":\"a\\u0000b\",\"index\":4," HASH ",\"text\":\"\\u0000\"}\n"
#define SECOND   "{\"id\":-7,\"index\":5," HASH ",\"error\":{\"code\":\"missing_prompt\"}}\n"
#define MANIFEST "{\"manifest\":{\"verdict\":\"complete\",\"lines\":2}}\n"

static char path[] = "/tmp/test_scan_XXXXXX";
static struct scan scan;
static struct error err;
static struct scan_record records[8]; /* as they came; what they borrow is gone */
static int n_records, n_max;

static void set_up(void)
{
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    close(fd);
    n_max = 8;
}

static void tear_down(void)
{
    unlink(path);
}

TestSuite(scan, .init = set_up, .fini = tear_down);

static void write_group(FILE *file, const char *text, bool is_zstd)
{
    char packed[4096];
    size_t n = strlen(text);
    if (is_zstd) n = ZSTD_compress(packed, sizeof packed, text, n, 3);
    cr_assert_eq(fwrite(is_zstd ? packed : text, 1, n, file), n);
}

static bool take(void *context, const struct scan_record *record, struct error *failure)
{
    cr_assert_eq(context, &records);
    records[n_records++] = *record;
    return n_records < n_max || error_set(failure, ERROR_USAGE, "enough");
}

static bool read_back(bool is_zstd)
{
    n_records = 0;
    err = (struct error){0};
    return scan_file(&scan, path, is_zstd, take, &records, &err);
}

/* Each group in a frame of its own. */
static void write_groups(const char *first, const char *second, const char *third, bool is_zstd)
{
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    const char *groups[] = {first, second, third};
    for (size_t i = 0; i < 3; i++)
        write_group(file, groups[i], is_zstd);
    fclose(file);
}

#define HEADER_OF(steps) "{\"header\":{\"model\":{},\"settings\":{\"steps\":\"" steps "\"}}}\n"

Test(scan, a_later_header_is_that_of_a_forced_run_if_it_is_another)
{
    write_groups(HEADER_OF("4"), FIRST HEADER_OF("5"), SECOND, false);
    cr_assert(read_back(false), "%s", err.message);
    cr_assert_eq(n_records, 4);
    cr_assert_eq(records[2].kind, SCAN_HEADER);
    cr_assert_eq(scan.torn_bytes, 0);
    /* An output behind an output. */
    write_groups(HEADER_OF("4"), FIRST MANIFEST, HEADER_OF("4") SECOND, false);
    cr_assert(read_back(false), "%s", err.message);
    cr_assert_eq(n_records, 3);
    cr_assert_gt(scan.torn_bytes, 0);
    cr_assert_not(scan.has_manifest);
}

Test(scan, records_come_with_their_places_and_keys)
{
    for (int is_zstd = 0; is_zstd < 2; is_zstd++) {
        write_groups(HEADER, FIRST SECOND, MANIFEST, is_zstd);
        cr_assert(read_back(is_zstd), "%s", err.message);
        cr_assert_eq(n_records, 4);
        cr_assert_eq(records[0].kind, SCAN_HEADER);
        cr_assert_eq(records[1].kind, SCAN_ANSWER);
        cr_assert_eq(records[1].key, ledger_hash('s', (struct bytes){"a\0b", 3}));
        cr_assert_eq(records[1].index, 4);
        cr_assert_eq(records[1].line_hash, 0xAB);
        cr_assert_not(records[1].is_failed);
        cr_assert_eq(records[2].key, ledger_hash('i', (struct bytes){"-7", 2}));
        cr_assert(records[2].is_failed);
        cr_assert_eq(records[2].line.n, strlen(SECOND) - 1);
        cr_assert_eq(records[2].content_bytes, is_zstd ? (int64_t)strlen(FIRST) : 0);
        cr_assert_eq(records[2].group_bytes == records[1].group_bytes, is_zstd);
        cr_assert_eq(records[3].kind, SCAN_MANIFEST);
        cr_assert(scan.has_header && scan.is_complete);
        cr_assert_eq(scan.n_records, 2);
        cr_assert_eq(scan.n_manifest, 2);
        cr_assert_eq(scan.torn_bytes, 0);
    }
}

Test(scan, a_manifest_counts_only_at_the_end)
{
    write_groups(HEADER, MANIFEST, FIRST, false);
    cr_assert(read_back(false));
    cr_assert_not(scan.has_manifest || scan.is_complete);
    cr_assert_eq(scan.n_manifest, -1);
}

Test(scan, lines_of_others_in_a_whole_frame_are_told)
{
    write_groups(HEADER, FIRST "{\"id\":1}\n", MANIFEST, true);
    cr_assert(read_back(true));
    cr_assert(scan.is_mixed);
    cr_assert(scan.goes_on);
    cr_assert_eq(scan.torn_at_bytes, scan.keep_bytes);
    cr_assert_eq(n_records, 2);
    write_groups(HEADER, "{\"id\":1}\n", "", true);
    cr_assert(read_back(true));
    cr_assert_not(scan.is_mixed);
    cr_assert_gt(scan.torn_bytes, 0);
}

Test(scan, a_file_without_header_is_foreign_and_an_empty_one_is_not)
{
    write_groups(FIRST, SECOND, MANIFEST, false);
    cr_assert(read_back(false));
    cr_assert(scan.is_foreign);
    cr_assert_eq(n_records, 0);
    write_groups("", "", "", false);
    cr_assert(read_back(false));
    cr_assert_not(scan.is_foreign || scan.has_header);
}

/* A start that is torn or zeroed is ours if what there is of it is. */
Test(scan, a_torn_start_is_ours_and_what_only_cannot_be_read_is_not)
{
    static const struct {
        bool is_zstd, is_ours;
        const char *bytes;
        size_t n;
    } cases[] = {
#define CASE(is_zstd, is_ours, text) {is_zstd, is_ours, text, sizeof text - 1}
        CASE(true, true, "\x50\x2A"),
        CASE(true, true, "\x50\x2A\x4D\0\0\0"),
        CASE(true, true, "\0\0\0"),
        CASE(true, true, FRAMES_MARK),
        CASE(true, true, FRAMES_MARK "\x28\xB5\x2F\xFD\x04"),
        CASE(true, true, FRAMES_MARK "\x28\xB5\x2F\xFD\x04\0\0\0\0"),
        CASE(true, false, "\x28\xB5\x2F\xFD\x04\x58\x30"),
        CASE(true, false, "\x50\x2A\x4D\0\0\0x"),
        CASE(true, false, "\0\0\0x"),
        CASE(true, false, HEADER FIRST),
        CASE(false, true, "{\"head"),
        CASE(false, true, HEADER_START "1"),
        CASE(false, true, "{\"head\0\0"),
        CASE(false, false, "{\"hand"),
        CASE(false, false, "\x50\x2A"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FILE *file = fopen(path, "w");
        cr_assert_eq(fwrite(cases[i].bytes, 1, cases[i].n, file), cases[i].n);
        fclose(file);
        cr_assert(read_back(cases[i].is_zstd), "%s", err.message);
        cr_assert_not(scan.has_header);
        cr_assert_eq(!scan.is_foreign, cases[i].is_ours, "case %zu", i);
    }
}

Test(scan, the_visitors_failure_ends_the_scan)
{
    write_groups(HEADER, FIRST, SECOND, false);
    n_max = 2;
    cr_assert_not(read_back(false));
    cr_assert_str_eq(err.message, "enough");
    cr_assert_eq(n_records, 2);
}

Test(scan, compression_is_told_by_name_or_first_bytes_and_pipes_are_refused)
{
    write_groups(HEADER, FIRST, MANIFEST, true);
    cr_assert(frames_is_zstd(path));
    write_groups(HEADER, FIRST, MANIFEST, false);
    cr_assert_not(frames_is_zstd(path));
    cr_assert(frames_is_zstd("nothing.zst"));
    cr_assert_not(frames_is_zstd("nothing"));
    cr_assert_not(scan_file(&scan, "/dev/null", false, take, &records, &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
}
