/* base/stream: the same lines come out whether the bytes are plain, zstd or gzip, arrive at once or
 * one by one; and every way in which an input can be wrong is told apart. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/stream.h"

enum encoding { PLAIN, ZSTD, GZIP, N_ENCODINGS };

static const char *const encoding_names[] = {"plain", "zstd", "gzip"};

/* What the tests make lies here, so that a leak that is told is one of the reader's. */
static struct arena memory;

static void memory_create(void)
{
    cr_assert(arena_create(&memory, (size_t)1 << 30, NULL));
}

static void memory_destroy(void)
{
    arena_destroy(&memory);
}

TestSuite(stream, .init = memory_create, .fini = memory_destroy);

struct blob {
    char *data;
    size_t n;
};

static struct blob blob_of(const void *data, size_t n)
{
    return (struct blob){.data = arena_try_copy(&memory, data, n), .n = n};
}

static struct blob join(struct blob first, struct blob second)
{
    struct blob joined = {.data = arena_push(&memory, first.n + second.n, 1)};
    memcpy(joined.data, first.data, first.n);
    memcpy(joined.data + first.n, second.data, second.n);
    joined.n = first.n + second.n;
    return joined;
}

static struct blob encode_zstd(const void *data, size_t n)
{
    size_t n_bytes_max = ZSTD_compressBound(n);
    struct blob blob = {.data = arena_push(&memory, n_bytes_max, 1)};
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
    blob.n = ZSTD_compress2(zstd, blob.data, n_bytes_max, data, n);
    cr_assert_not(ZSTD_isError(blob.n));
    ZSTD_freeCCtx(zstd);
    return blob;
}

static struct blob encode_gzip(const void *data, size_t n)
{
    z_stream gzip = {0};
    cr_assert_eq(deflateInit2(&gzip, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    size_t n_bytes_max = deflateBound(&gzip, n);
    struct blob blob = {.data = arena_push(&memory, n_bytes_max, 1)};
    gzip.next_in = (Bytef *)blob_of(data, n).data;
    gzip.avail_in = (uInt)n;
    gzip.next_out = (Bytef *)blob.data;
    gzip.avail_out = (uInt)n_bytes_max;
    cr_assert_eq(deflate(&gzip, Z_FINISH), Z_STREAM_END);
    blob.n = n_bytes_max - gzip.avail_out;
    deflateEnd(&gzip);
    return blob;
}

static struct blob encode(enum encoding encoding, const void *data, size_t n)
{
    if (encoding == ZSTD) return encode_zstd(data, n);
    if (encoding == GZIP) return encode_gzip(data, n);
    return blob_of(data, n);
}

/* A path that opens to these bytes; the file lives in memory and dies with the test. */
static const char *file_of(struct blob blob)
{
    static char path[64];
    int fd = memfd_create("input", 0);
    cr_assert_geq(fd, 0);
    for (size_t n_written = 0; n_written < blob.n;) {
        ssize_t n = write(fd, blob.data + n_written, blob.n - n_written);
        cr_assert_gt(n, 0);
        n_written += (size_t)n;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static struct line_reader *reader_of(const char *path, size_t line_bytes_max)
{
    struct line_reader *reader = NULL;
    struct error err = {0};
    cr_assert(line_reader_open(&reader, path, line_bytes_max, &err), "%s", err.message);
    return reader;
}

/* Everything a reader says, as text: "line|", "<long>|", "$" at the end, "!" for a failure. */
static const char *transcript(const char *path, size_t line_bytes_max, struct error *err)
{
    static const char *const marks[] = {
        [LINE_READ] = "|", [LINE_TOO_LONG] = "<long>|", [LINE_END] = "$", [LINE_FAILED] = "!"};
    static char text[4096];
    FILE *out = fmemopen(text, sizeof text, "w");
    struct line_reader *reader = reader_of(path, line_bytes_max);
    enum line_status status = LINE_READ;
    while (status == LINE_READ || status == LINE_TOO_LONG) {
        struct bytes line = {0};
        status = line_reader_next(reader, &line, err);
        if (status == LINE_READ) {
            cr_assert_leq(line.n, line_bytes_max);
            cr_assert_eq(line.data[line.n], 0);
            fwrite(line.data, 1, line.n, out);
        }
        fputs(marks[status], out);
    }
    line_reader_close(reader);
    fclose(out);
    return text;
}

static void expect_transcript(struct blob blob, size_t line_bytes_max, const char *expected,
                              const char *label)
{
    struct error err = {0};
    const char *text = transcript(file_of(blob), line_bytes_max, &err);
    cr_expect_str_eq(text, expected, "%s: '%s', expected '%s'", label, text, expected);
}

/* ---- lines ---- */

Test(stream, lines_end_with_newline_or_the_input_in_every_encoding)
{
    static const struct {
        const char *content, *expected;
    } cases[] = {
        {"", "$"},
        {"\n", "|$"},
        {"\n\n", "||$"},
        {"a", "a|$"},
        {"a\n", "a|$"},
        {"a\nb", "a|b|$"},
        {"\r\n", "|$"},
        {"a\r\nb\r\n", "a|b|$"},
        {"a\rb\r\r\n", "a\rb\r|$"},
        {"a\r", "a\r|$"},
        {"(", "(|$"},
    };
    for (enum encoding e = PLAIN; e < N_ENCODINGS; e++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct blob blob = encode(e, cases[i].content, strlen(cases[i].content));
            expect_transcript(blob, 100, cases[i].expected, encoding_names[e]);
        }
    }
}

Test(stream, a_byte_order_mark_is_dropped_at_the_start_only)
{
    static const struct {
        const char *content, *expected;
    } cases[] = {
        {"\xEF\xBB\xBF", "$"},
        {"\xEF\xBB\xBF\n", "|$"},
        {"\xEF\xBB\xBF{}\n", "{}|$"},
        {"\xEF\xBB\xBF\xEF\xBB\xBFx", "\xEF\xBB\xBFx|$"},
        {"x\n\xEF\xBB\xBFy\n", "x|\xEF\xBB\xBFy|$"},
        {"\xEF\xBB", "\xEF\xBB|$"},
        {"\xEF\xBB\n", "\xEF\xBB|$"},
        {"\xEF\xBB\xBE\n", "\xEF\xBB\xBE|$"},
    };
    for (enum encoding e = PLAIN; e < N_ENCODINGS; e++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct blob blob = encode(e, cases[i].content, strlen(cases[i].content));
            expect_transcript(blob, 100, cases[i].expected, encoding_names[e]);
        }
    }
    /* The mark does not count: the first line may be as long as any other. */
    expect_transcript(blob_of("\xEF\xBB\xBF"
                              "123\n1234\n",
                              12),
                      3, "123|<long>|$", "limit");
}

Test(stream, nul_bytes_pass_through)
{
    for (enum encoding e = PLAIN; e < N_ENCODINGS; e++) {
        struct line_reader *reader = reader_of(file_of(encode(e, "a\0b\n\0\n", 6)), 100);
        struct bytes line;
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_READ);
        cr_assert_eq(line.n, 3);
        cr_assert_eq(memcmp(line.data, "a\0b", 4), 0);
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_READ);
        cr_assert_eq(line.n, 1);
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_END);
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_END, "the end stays the end");
        line_reader_close(reader);
    }
}

Test(stream, the_limit_counts_the_line_without_its_end)
{
    static const struct {
        const char *content, *expected;
    } cases[] = {
        {"12345\n", "12345|$"},
        {"12345\r\n", "12345|$"},
        {"12345", "12345|$"},
        {"123456\nab\n", "<long>|ab|$"},
        {"123456\r\nab\n", "<long>|ab|$"},
        {"12345\r\r\nab\n", "<long>|ab|$"},
        {"123456", "<long>|$"},
        {"12345\r", "<long>|$"}, /* no newline, so the "\r" is part of the line */
        {"a\n1234567890\n\n1234567890\nb", "a|<long>||<long>|b|$"},
    };
    for (enum encoding e = PLAIN; e < N_ENCODINGS; e++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct blob blob = encode(e, cases[i].content, strlen(cases[i].content));
            expect_transcript(blob, 5, cases[i].expected, encoding_names[e]);
        }
    }
}

/* Lines of 0 .. 2 x 10^5 bytes from a fixed seed, a third of them ended by "\r\n". */
static struct blob many_lines(size_t n_lines, size_t *line_bytes)
{
    struct blob blob = {.data = arena_push(&memory, n_lines, 200002)};
    uint32_t state = 12345;
    for (size_t i = 0; i < n_lines; i++) {
        state = state * 1664525 + 1013904223;
        line_bytes[i] = i % 2 == 0 ? (state >> 8) % 200000 : (state >> 8) % 50;
        memset(blob.data + blob.n, 'a' + (int)(i % 26), line_bytes[i]);
        blob.n += line_bytes[i];
        if (i % 3 == 0) blob.data[blob.n++] = '\r';
        blob.data[blob.n++] = '\n';
    }
    return blob;
}

Test(stream, lines_longer_than_any_buffer_come_out_whole)
{
    enum { N_LINES = 60, LIMIT = 150000 };
    size_t line_bytes[N_LINES];
    struct blob content = many_lines(N_LINES, line_bytes);
    size_t n_too_long = 0;
    for (enum encoding e = PLAIN; e < N_ENCODINGS; e++) {
        struct line_reader *reader = reader_of(file_of(encode(e, content.data, content.n)), LIMIT);
        struct bytes line;
        for (size_t i = 0; i < N_LINES; i++) {
            enum line_status status = line_reader_next(reader, &line, NULL);
            cr_assert_eq(status, line_bytes[i] > LIMIT ? LINE_TOO_LONG : LINE_READ);
            if (status == LINE_TOO_LONG) n_too_long++;
            if (status == LINE_TOO_LONG) continue;
            cr_assert_eq(line.n, line_bytes[i]);
            for (size_t b = 0; b < line.n; b++) {
                if (line.data[b] != 'a' + (int)(i % 26)) cr_assert_fail("line %zu byte %zu", i, b);
            }
        }
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_END);
        line_reader_close(reader);
    }
    cr_assert_gt(n_too_long, 0);
}

Test(stream, a_limit_around_the_size_of_a_chunk_is_exact)
{
    for (size_t limit = 131071 - 3; limit <= 131072 + 3; limit++) {
        struct blob blob = {.data = arena_push(&memory, 600000, 1)};
        for (int i = 0; i < 4; i++) { /* fits, one too many, fits with "\r\n", fits */
            size_t n = limit + (i == 1 ? 1 : 0);
            memset(blob.data + blob.n, 'x', n);
            blob.n += n;
            if (i == 2) blob.data[blob.n++] = '\r';
            blob.data[blob.n++] = '\n';
        }
        struct line_reader *reader = reader_of(file_of(blob), limit);
        for (int i = 0; i < 4; i++) {
            struct bytes line = {0};
            enum line_status status = line_reader_next(reader, &line, NULL);
            cr_assert_eq(status, i == 1 ? LINE_TOO_LONG : LINE_READ, "limit %zu line %d", limit, i);
            cr_assert_eq(line.n, i == 1 ? 0 : limit);
        }
        line_reader_close(reader);
    }
}

/* 64 frames that unpack to 1 MiB of one byte each: together one long line. */
static struct blob long_line(void)
{
    enum { FRAME_BYTES = 1 << 20, N_FRAMES = 64 };
    size_t mark_bytes = memory.used_bytes;
    char *content = arena_push(&memory, FRAME_BYTES, 1);
    memset(content, 'a', FRAME_BYTES);
    struct blob frame = encode_zstd(content, FRAME_BYTES);
    char compressed[4096];
    cr_assert_leq(frame.n * N_FRAMES, sizeof compressed);
    for (size_t i = 0; i < N_FRAMES; i++)
        memcpy(compressed + i * frame.n, frame.data, frame.n);
    arena_rewind(&memory, mark_bytes);
    return blob_of(compressed, frame.n * N_FRAMES);
}

static long peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

Test(stream, a_line_too_long_is_not_held_in_memory)
{
    enum { LIMIT = 64 << 20 };
    const char *path = file_of(long_line());
    struct error err = {0};
    long before_kib = peak_kib();
    cr_assert_str_eq(transcript(path, LIMIT / 64, &err), "<long>|$");
    cr_assert_lt(peak_kib() - before_kib, LIMIT / 4 / 1024);

    /* The figure would show it: the same line, allowed, is held. */
    struct line_reader *reader = reader_of(path, LIMIT);
    struct bytes line;
    cr_assert_eq(line_reader_next(reader, &line, &err), LINE_READ);
    cr_assert_eq(line.n, LIMIT);
    cr_assert_gt(peak_kib() - before_kib, LIMIT / 2 / 1024);
    line_reader_close(reader);
}

/* ---- arrival ---- */

struct feeder {
    int fd;
    struct blob blob;
    useconds_t pause_us; /* after each byte */
};

static void *feed_bytes(void *context)
{
    struct feeder *feeder = context;
    for (size_t i = 0; i < feeder->blob.n; i++) {
        if (write(feeder->fd, feeder->blob.data + i, 1) != 1) break;
        if (feeder->pause_us > 0) usleep(feeder->pause_us);
    }
    close(feeder->fd);
    return NULL;
}

/* What the reader says, with a limit of 5, when standard input delivers byte after byte: a pipe in
 * packet mode gives a read no more than one write put in. */
static const char *transcript_of_pipe(struct blob blob, useconds_t pause_us)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_DIRECT), 0);
    cr_assert_eq(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    close(ends[0]);
    struct feeder feeder = {.fd = ends[1], .blob = blob, .pause_us = pause_us};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, feed_bytes, &feeder), 0);
    struct error err = {0};
    const char *text = transcript("-", 5, &err);
    pthread_join(thread, NULL);
    return text;
}

Test(stream, standard_input_may_arrive_byte_by_byte, .timeout = 60)
{
    static const struct {
        const char *content, *expected;
    } cases[] = {
        {"\xEF\xBB\xBFone\r\ntwo", "one|two|$"},
        {"\xEF\xBBx", "\xEF\xBBx|$"},
        {"PPP\n(", "PPP|(|$"}, /* begin like magics, and are none */
        {"P*M\n", "P*M|$"},
        {"12345\r\n123456\r\nab", "12345|<long>|ab|$"},
    };
    for (enum encoding e = PLAIN; e < N_ENCODINGS; e++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct blob blob = encode(e, cases[i].content, strlen(cases[i].content));
            const char *text = transcript_of_pipe(blob, 0);
            cr_expect_str_eq(text, cases[i].expected, "%s: '%s'", encoding_names[e], text);
        }
    }
}

Test(stream, a_line_is_read_as_soon_as_it_is_there, .timeout = 60)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    struct line_reader *reader = reader_of("-", 100); /* says nothing yet, and need not */
    for (int i = 0; i < 3; i++) {
        struct bytes line;
        cr_assert_eq(write(ends[1], "x\n", 2), 2);
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_READ);
        cr_assert_str_eq(line.data, "x");
    }
    line_reader_close(reader);
    cr_assert_geq(fcntl(STDIN_FILENO, F_GETFD), 0, "standard input is not ours to close");
}

Test(stream, waiting_ends_with_a_whole_line_or_in_a_hurry, .timeout = 60)
{
    int fds[2], hurry[2];
    char path[64];
    struct bytes line;
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(pipe(hurry), 0);
    snprintf(path, sizeof path, "/dev/fd/%d", fds[0]);
    struct line_reader *reader = reader_of(path, 100);
    cr_assert_eq(write(fds[1], "one\ntwo\nth", 10), 10);
    cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_READ);
    cr_assert_eq(write(hurry[1], "!", 1), 1);
    cr_assert(line_reader_wait(reader, hurry[0]), "two is there");
    cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_READ);
    cr_assert(!line_reader_wait(reader, hurry[0]), "three is not");
    cr_assert_eq(write(fds[1], "ree\n", 4), 4);
    cr_assert(line_reader_wait(reader, hurry[0]), "now it is");
    cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_READ);
    cr_assert_str_eq(line.data, "three");
    close(fds[1]);
    cr_assert(line_reader_wait(reader, hurry[0]), "so is the end");
    cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_END);
    line_reader_close(reader);
}

Test(stream, a_file_never_keeps_anyone_waiting)
{
    const char text[] = "a\nb\nc";
    int hurry[2];
    struct bytes line;
    cr_assert_eq(pipe(hurry), 0);
    cr_assert_eq(write(hurry[1], "!", 1), 1);
    for (enum encoding encoding = 0; encoding < N_ENCODINGS; encoding++) {
        const char *path = file_of(encode(encoding, text, strlen(text)));
        struct line_reader *reader = reader_of(path, 100);
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_READ);
            cr_assert(line_reader_wait(reader, hurry[0]), "%s", encoding_names[encoding]);
        }
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_END);
        line_reader_close(reader);
    }
}

static void ignore_signal(int number)
{
    (void)number;
}

Test(stream, reads_that_signals_interrupt_go_on, .timeout = 60)
{
    struct sigaction action = {.sa_handler = ignore_signal}; /* without SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every_ms = {.it_interval = {.tv_usec = 1000}, .it_value = {.tv_usec = 1000}};
    setitimer(ITIMER_REAL, &every_ms, NULL);
    const char *text = transcript_of_pipe(blob_of("one\ntwo\nthree\n", 14), 5000);
    cr_assert_str_eq(text, "one|two|three|$");
}

/* ---- frames and members ---- */

static struct blob skippable_frame(uint8_t kind, const char *payload)
{
    struct blob blob = {.data = arena_push(&memory, 8 + strlen(payload), 1),
                        .n = 8 + strlen(payload)};
    uint8_t header[8] = {(uint8_t)(0x50 + kind), 0x2A, 0x4D, 0x18, (uint8_t)strlen(payload)};
    memcpy(blob.data, header, sizeof header);
    memcpy(blob.data + 8, payload, strlen(payload));
    return blob;
}

Test(stream, several_frames_read_as_one_and_skippable_ones_as_none)
{
    struct blob one = encode_zstd("one\ntw", 6), two = encode_zstd("o\nthree\n", 8);
    struct blob none = encode_zstd("", 0), skip = skippable_frame(15, "a\nb\n");
    expect_transcript(join(one, two), 100, "one|two|three|$", "two frames");
    expect_transcript(join(join(one, none), two), 100, "one|two|three|$", "an empty one between");
    expect_transcript(join(join(one, skip), two), 100, "one|two|three|$", "skippable between");
    expect_transcript(join(skippable_frame(0, "x"), join(one, two)), 100, "one|two|three|$",
                      "skippable first");
    expect_transcript(join(join(one, two), skippable_frame(7, "")), 100, "one|two|three|$",
                      "skippable last");
    expect_transcript(skip, 100, "$", "only skippable");
    expect_transcript(none, 100, "$", "only empty");
}

Test(stream, several_gzip_members_read_as_one)
{
    struct blob one = encode_gzip("one\ntw", 6), two = encode_gzip("o\nthree\n", 8);
    expect_transcript(join(one, two), 100, "one|two|three|$", "two members");
    expect_transcript(join(join(one, encode_gzip("", 0)), two), 100, "one|two|three|$", "empty");
}

/* Cuts `first` + `second` at every byte: whole pieces are fine, all else is called truncated. */
static void expect_tears_are_told(struct blob first, struct blob second, size_t n_magic)
{
    struct blob whole = join(first, second);
    for (size_t n = n_magic; n <= whole.n; n++) {
        struct error err = {0};
        const char *path = file_of(blob_of(whole.data, n));
        const char *text = transcript(path, 100, &err);
        bool is_torn = n != first.n && n != whole.n;
        cr_assert_eq(text[strlen(text) - 1], is_torn ? '!' : '$', "cut at %zu: '%s'", n, text);
        if (n >= first.n) cr_assert_eq(strncmp(text, "one|", 4), 0, "lines before are read");
        if (is_torn) {
            cr_assert_eq(err.code, ERROR_FORMAT);
            cr_assert_not_null(strstr(err.message, "truncated"), "cut at %zu: %s", n, err.message);
            cr_assert_not_null(strstr(err.message, path), "%s", err.message);
        }
        close(atoi(strrchr(path, '/') + 1));
    }
}

Test(stream, a_torn_zstd_frame_is_told_wherever_it_is_torn)
{
    expect_tears_are_told(encode_zstd("one\n", 4), encode_zstd("two\nthree\n", 10), 4);
    expect_tears_are_told(encode_zstd("one\n", 4), skippable_frame(3, "skipped"), 4);
}

Test(stream, a_torn_gzip_member_is_told_wherever_it_is_torn)
{
    expect_tears_are_told(encode_gzip("one\n", 4), encode_gzip("two\nthree\n", 10), 2);
}

Test(stream, damaged_data_is_told_and_stays_told)
{
    for (enum encoding e = ZSTD; e < N_ENCODINGS; e++) {
        struct blob blob = encode(e, "one\ntwo\n", 8);
        blob.data[blob.n - (e == ZSTD ? 1 : 5)] ^= 1; /* the checksum */
        const char *path = file_of(blob);
        struct line_reader *reader = reader_of(path, 100);
        struct bytes line;
        enum line_status status = LINE_READ;
        struct error err = {0};
        while (status == LINE_READ)
            status = line_reader_next(reader, &line, &err);
        cr_assert_eq(status, LINE_FAILED);
        cr_assert_eq(err.code, ERROR_FORMAT);
        cr_assert_not_null(strstr(err.message, "damaged"), "%s", err.message);
        cr_assert_not_null(strstr(err.message, path), "%s", err.message);

        struct error again = {0};
        cr_assert_eq(line_reader_next(reader, &line, &again), LINE_FAILED);
        cr_assert_str_eq(again.message, err.message);
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_FAILED);
        line_reader_close(reader);
    }
}

Test(stream, rubbish_behind_a_frame_is_damage)
{
    for (enum encoding e = ZSTD; e < N_ENCODINGS; e++) {
        struct error err = {0};
        struct blob blob = join(encode(e, "one\n", 4), blob_of("plain text\n", 11));
        cr_assert_str_eq(transcript(file_of(blob), 100, &err), "one|!");
        cr_assert_not_null(strstr(err.message, "damaged"), "%s", err.message);
    }
}

/* ---- what cannot be opened or read ---- */

Test(stream, an_input_that_is_missing_or_no_file_is_no_input)
{
    static const struct {
        const char *path, *reason;
    } cases[] = {
        {"/nonexistent/prompts.jsonl", "No such file or directory"},
        {"/dev/null/prompts.jsonl", "Not a directory"},
        {"/", "Is a directory"},
        {"", "No such file or directory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct line_reader *reader = NULL;
        struct error err = {0};
        cr_assert_not(line_reader_open(&reader, cases[i].path, 100, &err));
        cr_assert_null(reader);
        cr_assert_eq(err.code, ERROR_NO_INPUT);
        cr_assert_not_null(strstr(err.message, cases[i].path));
        cr_assert_not_null(strstr(err.message, cases[i].reason), "%s", err.message);
    }
}

Test(stream, a_read_that_fails_is_an_io_error)
{
    struct error err = {0};
    cr_assert_str_eq(transcript("/proc/self/mem", 100, &err), "!"); /* nothing is mapped at 0 */
    cr_assert_eq(err.code, ERROR_IO);
    cr_assert_str_eq(err.message, "reading /proc/self/mem failed: Input/output error");
}

Test(stream, closing_gives_the_descriptor_back)
{
    struct blob blob = encode_gzip("one\n", 4);
    const char *path = file_of(blob);
    int fd_before = open("/dev/null", O_RDONLY);
    close(fd_before);
    struct bytes line;
    for (int i = 0; i < 10; i++) {
        struct line_reader *reader = reader_of(path, 100);
        if (i % 2 == 0) line_reader_next(reader, &line, NULL);
        line_reader_close(reader);
        cr_assert_not(line_reader_open(&reader, "/", 100, NULL));
    }
    line_reader_close(NULL);
    cr_assert_eq(open("/dev/null", O_RDONLY), fd_before);
}

/* ---- whole files ---- */

Test(stream, a_whole_file_is_read_byte_for_byte_in_every_encoding)
{
    struct arena arena;
    cr_assert(arena_create(&arena, 1 << 20, NULL));
    struct blob content = blob_of("\xEF\xBB\xBF{\r\n\0}", 8);
    for (enum encoding e = PLAIN; e < N_ENCODINGS; e++) {
        const char *path = file_of(encode(e, content.data, content.n));
        struct error err = {0};
        struct bytes read = {0};
        cr_assert(stream_read_file(path, 8, &arena, &read, &err), "%s", err.message);
        cr_assert_eq(read.n, 8);
        cr_assert_eq(memcmp(read.data, content.data, 8), 0);
        cr_assert_eq(read.data[8], 0);
    }
    struct bytes empty = {0};
    cr_assert(stream_read_file(file_of(blob_of("", 0)), 8, &arena, &empty, NULL));
    cr_assert_eq(empty.n, 0);
    cr_assert_str_eq(empty.data, "");
    arena_destroy(&arena);
}

Test(stream, a_file_of_many_chunks_is_read_whole)
{
    enum { N_BYTES = 1000003 };
    struct blob content = {.data = arena_push(&memory, N_BYTES, 1)};
    for (size_t i = 0; i < N_BYTES; i++)
        content.data[i] = (char)(i * 7 + i / 251);
    struct arena arena;
    cr_assert(arena_create(&arena, N_BYTES + 1, NULL));
    for (enum encoding e = PLAIN; e < N_ENCODINGS; e++) {
        struct bytes read = {0};
        const char *path = file_of(encode(e, content.data, N_BYTES));
        cr_assert(stream_read_file(path, N_BYTES, &arena, &read, NULL));
        cr_assert_eq(read.n, N_BYTES);
        cr_assert_eq(memcmp(read.data, content.data, N_BYTES), 0);
        arena_rewind(&arena, 0);
    }
    arena_destroy(&arena);
}

Test(stream, a_file_over_the_limit_or_the_arena_is_refused)
{
    struct arena arena;
    cr_assert(arena_create(&arena, 100, NULL));
    struct bytes read = {.n = 77};
    struct error err = {0};
    cr_assert_not(stream_read_file(file_of(blob_of("123456789", 9)), 8, &arena, &read, &err));
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert_not_null(strstr(err.message, "at most 8 bytes"), "%s", err.message);

    char *many = arena_push(&memory, 100, 1);
    cr_assert_not(stream_read_file(file_of(blob_of(many, 100)), 1000, &arena, &read, &err));
    cr_assert_eq(err.code, ERROR_UNAVAILABLE);
    cr_assert(stream_read_file(file_of(blob_of(many, 99)), 1000, &arena, &read, &err));
    cr_assert_eq(read.n, 99);
    arena_destroy(&arena);
}

Test(stream, a_small_file_that_unpacks_to_a_large_one_is_refused_early)
{
    struct blob bomb = long_line();
    bomb.n -= 1; /* torn at its far end, which nobody gets to see */
    struct arena arena;
    cr_assert(arena_create(&arena, 1000, NULL));
    struct bytes read = {0};
    struct error err = {0};
    cr_assert_not(stream_read_file(file_of(bomb), 1000, &arena, &read, &err));
    cr_assert_not_null(strstr(err.message, "too large"), "%s", err.message);
    arena_destroy(&arena);
}

Test(stream, a_whole_file_fails_like_its_lines)
{
    struct arena arena;
    cr_assert(arena_create(&arena, 1000, NULL));
    struct bytes read = {.n = 77};
    struct error err = {0};
    cr_assert_not(stream_read_file("/nonexistent", 100, &arena, &read, &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
    struct blob torn = encode_zstd("one\n", 4);
    torn.n -= 1;
    cr_assert_not(stream_read_file(file_of(torn), 100, &arena, &read, &err));
    cr_assert_not_null(strstr(err.message, "truncated"), "%s", err.message);
    cr_assert_eq(read.n, 77, "an output is untouched on failure");
    cr_assert_eq(arena.used_bytes, 0);
    arena_destroy(&arena);
}
