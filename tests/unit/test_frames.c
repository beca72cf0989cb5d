/* base/frames: wherever a file of answers was cut, and whatever stands there instead, the groups
 * before that place are told, and nothing else is. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/frames.h"

static char path[] = "/tmp/test_frames_XXXXXX";
static struct error err;
static char bytes[1 << 16]; /* of the file */
static size_t n_bytes;
static int64_t ends[8]; /* of its groups */
static int n_groups;
static const char *const texts[] = {"{\"header\":1}\n", "{\"a\":1}\n{\"b\":2}\n"};

static void set_up(void)
{
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
}

static void tear_down(void)
{
    unlink(path);
}

TestSuite(frames, .init = set_up, .fini = tear_down);

static void write_file(const char *data, size_t n)
{
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(data, 1, n, file), n);
    cr_assert_eq(fclose(file), 0);
}

/* A small file: two frames, or three lines. */
static void make_file(bool is_zstd)
{
    n_bytes = 0;
    n_groups = 0;
    for (int i = 0; i < 2; i++) {
        const char *at = texts[i];
        ZSTD_CCtx *context = ZSTD_createCCtx();
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
        if (is_zstd)
            n_bytes +=
                ZSTD_compress2(context, bytes + n_bytes, sizeof bytes - n_bytes, at, strlen(at));
        ZSTD_freeCCtx(context);
        for (; !is_zstd && *at != '\0'; at++) {
            bytes[n_bytes++] = *at;
            if (*at == '\n') ends[n_groups++] = (int64_t)n_bytes;
        }
        if (is_zstd) ends[n_groups++] = (int64_t)n_bytes;
    }
}

/* What a walk over the file finds: groups, how it ends, and whether more lies behind that. */
struct found {
    int n_groups;
    enum frames_status status;
    int64_t end_bytes, tail_bytes;
    bool goes_on;
};

static struct found walk(bool is_zstd)
{
    struct frames *frames;
    struct frames_group group;
    struct found found = {0};
    cr_assert(frames_open(&frames, path, is_zstd, &err), "%s", err.message);
    while ((found.status = frames_next(frames, &group, &err)) == FRAMES_GROUP) {
        cr_assert_eq(group.begin_bytes, found.end_bytes);
        found.end_bytes = group.end_bytes;
        cr_assert_eq(group.content.data[group.content.n - 1], '\n');
        const char *text = texts[found.n_groups < 2 ? found.n_groups : 1];
        found.n_groups++;
        if (!is_zstd) continue;
        cr_assert_eq(group.content.n, strlen(text));
        cr_assert_eq(memcmp(group.content.data, text, group.content.n), 0);
    }
    cr_assert_neq(found.status, FRAMES_FAILED, "%s", err.message);
    cr_assert_eq(group.begin_bytes, found.end_bytes);
    cr_assert(frames_tail(frames, group.begin_bytes, &found.tail_bytes, &found.goes_on, &err));
    frames_close(frames);
    return found;
}

static int groups_within(size_t n)
{
    int n_within = 0;
    while (n_within < n_groups && ends[n_within] <= (int64_t)n)
        n_within++;
    return n_within;
}

Test(frames, wherever_the_file_is_cut_the_whole_groups_before_are_told)
{
    for (int is_zstd = 0; is_zstd < 2; is_zstd++) {
        make_file(is_zstd);
        for (size_t n = 0; n <= n_bytes; n++) {
            write_file(bytes, n);
            struct found found = walk(is_zstd);
            int n_whole = groups_within(n);
            int64_t end = n_whole > 0 ? ends[n_whole - 1] : 0;
            cr_assert_eq(found.n_groups, n_whole, "cut at %zu", n);
            cr_assert_eq(found.end_bytes, end);
            cr_assert_eq(found.tail_bytes, (int64_t)n - end);
            cr_assert_eq(found.status, end == (int64_t)n ? FRAMES_END : FRAMES_BROKEN);
            cr_assert_not(found.goes_on);
        }
    }
}

Test(frames, zeros_and_garbage_behind_any_cut_are_a_broken_tail)
{
    for (int kind = 0; kind < 4; kind++) {
        bool is_zstd = kind % 2 == 1;
        make_file(is_zstd);
        for (size_t n = 0; n <= n_bytes; n++) {
            static char torn[2 * sizeof bytes];
            memcpy(torn, bytes, n);
            for (size_t i = 0; i < 5000; i++)
                torn[n + i] = kind < 2 ? '\0' : (char)(i * i * 31 + i / 7 + 128);
            write_file(torn, n + 5000);
            struct found found = walk(is_zstd);
            int n_whole = groups_within(n);
            cr_assert_eq(found.status, FRAMES_BROKEN);
            /* Garbage with a newline is a line, for all that this module knows. */
            if (kind != 2) cr_assert_eq(found.n_groups, n_whole, "kind %d, cut at %zu", kind, n);
            else cr_assert_geq(found.n_groups, n_whole);
            cr_assert_not(found.goes_on, "kind %d, cut at %zu", kind, n);
        }
    }
}

Test(frames, a_bit_that_changed_ends_the_groups_and_whole_ones_behind_are_noticed)
{
    make_file(true);
    for (size_t i = 0; i < n_bytes * 8; i++) {
        bytes[i / 8] ^= (char)(1 << i % 8);
        write_file(bytes, n_bytes);
        bytes[i / 8] ^= (char)(1 << i % 8);
        bool is_first = (int64_t)(i / 8) < ends[0];
        bool is_descriptor = i / 8 == 4 || (int64_t)(i / 8) == ends[0] + 4;
        struct found found = walk(true); /* which compares contents */
        /* The descriptor's bits say how the header lies there: some change nothing that counts. */
        if (is_descriptor) continue;
        cr_assert_eq(found.status, FRAMES_BROKEN, "bit %zu", i);
        cr_assert_eq(found.n_groups, is_first ? 0 : 1, "bit %zu", i);
        cr_assert_eq(found.goes_on, is_first, "bit %zu", i);
    }
}

Test(frames, a_whole_line_behind_a_broken_one_is_noticed)
{
    static const char holed[] = "{\"a\":1}\n\0\0\0\0,\"b\":2}\n{\"c\":3}\n";
    write_file(holed, sizeof holed - 1);
    struct found found = walk(false);
    cr_assert_eq(found.n_groups, 1);
    cr_assert_eq(found.end_bytes, 8);
    cr_assert(found.goes_on);
    write_file(holed, sizeof holed - 3);
    cr_assert_not(walk(false).goes_on);
}

Test(frames, a_tail_beyond_what_a_write_leaves_is_measured_and_not_searched)
{
    make_file(true);
    write_file(bytes, n_bytes);
    cr_assert_eq(truncate(path, (off_t)n_bytes + FRAMES_TAIL_BYTES_MAX + 1), 0);
    struct found found = walk(true);
    cr_assert_eq(found.n_groups, 2);
    cr_assert_eq(found.tail_bytes, FRAMES_TAIL_BYTES_MAX + 1);
    cr_assert_not(found.goes_on);
}

/* A frame of 300 MiB of zeros takes 10 kB. */
Test(frames, a_frame_that_holds_more_than_256_mib_is_refused)
{
    struct frames *frames;
    struct frames_group group;
    size_t n_zeros = (size_t)300 << 20, n_max = ZSTD_compressBound(1 << 20);
    char *zeros = calloc(n_zeros, 1), *packed = malloc(n_max);
    size_t n_packed = ZSTD_compress(packed, n_max, zeros, n_zeros, 1);
    cr_assert_not(ZSTD_isError(n_packed));
    write_file(packed, n_packed);
    cr_assert(frames_open(&frames, path, true, &err));
    cr_assert_eq(frames_next(frames, &group, &err), FRAMES_FAILED);
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert_not_null(strstr(err.message, "more than 256 MiB"), "%s", err.message);
    frames_close(frames);
    free(zeros);
    free(packed);
}

Test(frames, a_large_frame_comes_in_one_piece)
{
    struct frames *frames;
    struct frames_group group;
    size_t n = 3000000, n_max = ZSTD_compressBound(n);
    char *content = malloc(n), *packed = malloc(n_max);
    for (size_t i = 0; i < n; i++)
        content[i] = (char)(i * i >> 7);
    size_t n_packed = ZSTD_compress(packed, n_max, content, n, 1);
    write_file(packed, n_packed);
    cr_assert(frames_open(&frames, path, true, &err));
    cr_assert_eq(frames_next(frames, &group, &err), FRAMES_GROUP);
    cr_assert_eq(group.content.n, n);
    cr_assert_eq(memcmp(group.content.data, content, n), 0);
    cr_assert_eq(frames_next(frames, &group, &err), FRAMES_END);
    cr_assert_eq(group.end_bytes, (int64_t)n_packed);
    frames_close(frames);
    free(content);
    free(packed);
}

Test(frames, a_file_that_is_not_there_is_told)
{
    struct frames *frames;
    cr_assert_not(frames_open(&frames, "/nowhere/at/all", true, &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
}
