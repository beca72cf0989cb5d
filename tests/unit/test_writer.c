/* base/stream's writer: what comes back is what went in, in whole frames; nothing is overwritten
 * unasked; and a write that fails is told once and for all. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
#include <zstd.h>

#include "base/stream.h"

enum { CONTENT_BYTES = 1000003 };

static struct arena memory;
static char directory[64];
static char path[96]; /* a file in the directory that does not exist yet */
static int n_syncs;

/* Stands before the C library's, for the writer too. */
int fsync(int fd)
{
    n_syncs++;
    return (int)syscall(SYS_fsync, fd);
}

static void directory_create(void)
{
    cr_assert(arena_create(&memory, (size_t)1 << 26, NULL));
    snprintf(directory, sizeof directory, "/tmp/test_writer.XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/out.jsonl", directory);
    signal(SIGPIPE, SIG_IGN);
}

static void directory_destroy(void)
{
    unlink(path);
    rmdir(directory);
    arena_destroy(&memory);
}

TestSuite(writer, .init = directory_create, .fini = directory_destroy);

static struct writer *writer_of(const struct writer_options *options)
{
    struct writer *writer = NULL;
    struct error err = {0};
    cr_assert(writer_open(&writer, options, &err), "%s", err.message);
    return writer;
}

static void append(struct writer *writer, const char *data, size_t n)
{
    struct error err = {0};
    cr_assert(writer_append(writer, data, n, &err), "%s", err.message);
}

static void flush(struct writer *writer)
{
    struct error err = {0};
    cr_assert(writer_flush(writer, &err), "%s", err.message);
    cr_assert_eq(writer_pending_bytes(writer), 0);
}

static void finish(struct writer *writer)
{
    struct error err = {0};
    cr_assert(writer_close(writer, &err), "%s", err.message);
}

/* The bytes of the file as they lie there, or NULL. */
static struct bytes file_bytes(const char *file)
{
    struct stat status;
    if (stat(file, &status) != 0) return (struct bytes){0};
    struct bytes bytes = {.n = (size_t)status.st_size};
    char *data = arena_push(&memory, bytes.n + 1, 1);
    int fd = open(file, O_RDONLY);
    cr_assert_eq(read(fd, data, bytes.n), status.st_size);
    close(fd);
    bytes.data = data;
    return bytes;
}

static void expect_file(const char *file, const char *content, size_t n)
{
    struct bytes read = file_bytes(file);
    cr_assert_not_null(read.data, "%s does not exist", file);
    cr_assert_eq(read.n, n, "%zu bytes, expected %zu", read.n, n);
    cr_assert_eq(memcmp(read.data, content, n), 0);
}

/* What the compressed file unpacks to; fails unless it is whole frames from end to end. */
static void expect_unpacked(const char *file, const char *content, size_t n, size_t n_frames)
{
    struct error err = {0};
    struct bytes read;
    cr_assert(stream_read_file(file, CONTENT_BYTES, &memory, &read, &err), "%s", err.message);
    cr_assert_eq(read.n, n, "%zu bytes, expected %zu", read.n, n);
    cr_assert_eq(memcmp(read.data, content, n), 0);

    struct bytes raw = file_bytes(file);
    size_t n_found = 0;
    for (size_t at = 0; at < raw.n; n_found++) {
        size_t frame_bytes = ZSTD_findFrameCompressedSize(raw.data + at, raw.n - at);
        cr_assert_not(ZSTD_isError(frame_bytes));
        cr_assert_eq(raw.data[at + 4] & 4, 4, "frame %zu has no checksum", n_found);
        at += frame_bytes;
    }
    cr_assert_eq(n_found, n_frames);
}

/* Bytes that do not compress, so that every buffer on the way is filled. */
static char *noise(void)
{
    char *content = arena_push(&memory, CONTENT_BYTES, 1);
    uint32_t state = 1;
    for (size_t i = 0; i < CONTENT_BYTES; i++) {
        state = state * 1664525 + 1013904223;
        content[i] = (char)(state >> 24);
    }
    return content;
}

static void append_in_pieces(struct writer *writer, const char *content)
{
    static const size_t sizes[] = {1, 131071, 131072, 131073, 7, 400000};
    size_t at = 0;
    for (size_t i = 0; at < CONTENT_BYTES; i = (i + 1) % 6) {
        size_t n = sizes[i] < CONTENT_BYTES - at ? sizes[i] : CONTENT_BYTES - at;
        append(writer, content + at, n);
        at += n;
        cr_assert_eq(writer_pending_bytes(writer), at);
    }
}

/* ---- bytes ---- */

Test(writer, plain_bytes_arrive_as_they_are)
{
    const char *content = noise();
    struct writer *writer = writer_of(&(struct writer_options){.path = path});
    append_in_pieces(writer, content);
    finish(writer);
    expect_file(path, content, CONTENT_BYTES);
}

Test(writer, compressed_bytes_arrive_in_one_checksummed_frame)
{
    const char *content = noise();
    struct writer *writer = writer_of(&(struct writer_options){.path = path, .compress = true});
    append_in_pieces(writer, content);
    finish(writer);
    expect_unpacked(path, content, CONTENT_BYTES, 1);
}

Test(writer, after_each_flush_the_growing_file_is_whole_frames)
{
    struct writer *writer = writer_of(&(struct writer_options){.path = path, .compress = true});
    append(writer, "one\n", 4);
    cr_assert_eq(file_bytes(path).n, 0, "small appends are buffered");
    flush(writer);
    expect_unpacked(path, "one\n", 4, 1);
    append(writer, "two", 3);
    append(writer, "\n", 1);
    cr_assert_eq(writer_pending_bytes(writer), 4);
    flush(writer);
    expect_unpacked(path, "one\ntwo\n", 8, 2);
    finish(writer);
    expect_unpacked(path, "one\ntwo\n", 8, 2);
}

Test(writer, plain_flushes_write_what_is_pending)
{
    struct writer *writer = writer_of(&(struct writer_options){.path = path});
    append(writer, "one\n", 4);
    cr_assert_eq(file_bytes(path).n, 0, "small appends are buffered");
    flush(writer);
    expect_file(path, "one\n", 4);
    append(writer, "two\n", 4);
    finish(writer);
    expect_file(path, "one\ntwo\n", 8);
}

Test(writer, a_flush_with_nothing_pending_does_nothing)
{
    struct writer *writer = writer_of(&(struct writer_options){.path = path, .compress = true});
    flush(writer);
    append(writer, "", 0);
    append(writer, NULL, 0);
    flush(writer);
    cr_assert_eq(file_bytes(path).n, 0);
    append(writer, "x", 1);
    flush(writer);
    size_t n_bytes = file_bytes(path).n;
    flush(writer);
    cr_assert_eq(file_bytes(path).n, n_bytes);
    finish(writer);
    cr_assert_eq(file_bytes(path).n, n_bytes);
}

Test(writer, output_that_never_got_a_byte_is_valid)
{
    finish(writer_of(&(struct writer_options){.path = path, .compress = true}));
    expect_unpacked(path, "", 0, 1);
    finish(writer_of(&(struct writer_options){.path = path, .overwrite = true}));
    expect_file(path, "", 0);
}

/* ---- what may be opened ---- */

Test(writer, an_existing_file_is_refused_with_the_way_out)
{
    struct writer *writer = writer_of(&(struct writer_options){.path = path});
    append(writer, "precious", 8);
    finish(writer);

    struct error err = {0};
    writer = NULL;
    cr_assert_not(writer_open(&writer, &(struct writer_options){.path = path}, &err));
    cr_assert_null(writer);
    cr_assert_eq(err.code, ERROR_CREATE);
    cr_assert_not_null(strstr(err.message, path));
    cr_assert_not_null(strstr(err.message, "use -f to overwrite"), "%s", err.message);
    expect_file(path, "precious", 8);
}

Test(writer, with_overwrite_the_old_content_is_gone)
{
    for (int i = 0; i < 2; i++) {
        struct writer *writer =
            writer_of(&(struct writer_options){.path = path, .overwrite = true});
        append(writer, "long and then short", i == 0 ? 19 : 4);
        finish(writer);
    }
    expect_file(path, "long", 4);
}

Test(writer, a_link_to_an_existing_file_is_refused_too)
{
    cr_assert_eq(symlink("/proc/self/status", path), 0);
    struct writer *writer = NULL;
    struct error err = {0};
    cr_assert_not(writer_open(&writer, &(struct writer_options){.path = path}, &err));
    cr_assert_eq(err.code, ERROR_CREATE);
}

Test(writer, a_device_is_opened_without_asking)
{
    struct writer *writer = writer_of(&(struct writer_options){.path = "/dev/null"});
    append(writer, "one\n", 4);
    flush(writer);
    finish(writer);
    cr_assert_eq(n_syncs, 0, "a device cannot be made durable");
}

Test(writer, a_place_where_no_file_can_be_is_told)
{
    static const struct {
        const char *path, *reason;
    } cases[] = {
        {"/nonexistent/out.jsonl", "directory does not exist"},
        {"/dev/null/out.jsonl", "Not a directory"},
        {"/", "Is a directory"},
        {"/proc/out.jsonl", ""},
    };
    for (int overwrite = 0; overwrite < 2; overwrite++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct writer *writer = NULL;
            struct error err = {0};
            struct writer_options options = {.path = cases[i].path, .overwrite = overwrite != 0};
            cr_assert_not(writer_open(&writer, &options, &err));
            cr_assert_null(writer);
            cr_assert_eq(err.code, ERROR_CREATE);
            cr_assert_not_null(strstr(err.message, cases[i].path));
            cr_assert_not_null(strstr(err.message, cases[i].reason), "%s", err.message);
        }
    }
}

Test(writer, a_regular_file_is_synced_when_closed)
{
    struct writer *writer = writer_of(&(struct writer_options){.path = path});
    append(writer, "one\n", 4);
    flush(writer);
    cr_assert_eq(n_syncs, 0, "syncing every flush would be slow");
    finish(writer);
    cr_assert_eq(n_syncs, 1);
}

Test(writer, standard_output_is_written_and_stays_open)
{
    int saved = dup(STDOUT_FILENO);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    dup2(fd, STDOUT_FILENO);
    struct writer *writer = writer_of(&(struct writer_options){.path = "-"});
    append(writer, "one\n", 4);
    finish(writer);
    bool is_open = fcntl(STDOUT_FILENO, F_GETFD) >= 0;
    dup2(saved, STDOUT_FILENO);
    close(fd);
    cr_assert(is_open);
    expect_file(path, "one\n", 4);
}

Test(writer, closing_gives_the_descriptor_back)
{
    int fd_before = open("/dev/null", O_RDONLY);
    close(fd_before);
    for (int i = 0; i < 5; i++)
        finish(writer_of(&(struct writer_options){.path = "/dev/null"}));
    finish(NULL);
    int fd_after = open("/dev/null", O_RDONLY);
    close(fd_after);
    cr_assert_eq(fd_after, fd_before);
}

/* ---- failures ---- */

Test(writer, a_full_disk_is_an_io_error_that_names_the_place)
{
    for (int compress = 0; compress < 2; compress++) {
        struct writer_options options = {.path = "/dev/full", .compress = compress != 0};
        struct writer *writer = writer_of(&options);
        struct error err = {0};
        append(writer, "one\n", 4);
        cr_assert_not(writer_flush(writer, &err));
        cr_assert_eq(err.code, ERROR_IO);
        cr_assert_str_eq(err.message, "writing /dev/full failed: No space left on device");
        cr_assert_not(writer_is_broken_pipe(writer));
        cr_assert_eq(writer_pending_bytes(writer), 4, "they are still not written");
        struct error again = {0};
        cr_assert_not(writer_close(writer, &again));
        cr_assert_str_eq(again.message, err.message);
    }
}

Test(writer, a_full_disk_is_also_told_by_append_and_by_close)
{
    const char *content = noise();
    struct error err = {0};
    struct writer *writer = writer_of(&(struct writer_options){.path = "/dev/full"});
    cr_assert_not(writer_append(writer, content, CONTENT_BYTES, &err));
    cr_assert_eq(err.code, ERROR_IO);
    cr_assert_not(writer_close(writer, NULL));

    writer = writer_of(&(struct writer_options){.path = "/dev/full", .compress = true});
    err = (struct error){0};
    cr_assert_not(writer_close(writer, &err), "not even the empty frame fits");
    cr_assert_eq(err.code, ERROR_IO);
}

static void limit_file_bytes(rlim_t n_bytes)
{
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = n_bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

Test(writer, after_a_failed_write_nothing_more_is_written)
{
    signal(SIGXFSZ, SIG_IGN);
    struct writer *writer = writer_of(&(struct writer_options){.path = path});
    append(writer, "one\n", 4);
    flush(writer);
    limit_file_bytes(6);
    append(writer, "two\n", 4);
    struct error err = {0};
    cr_assert_not(writer_flush(writer, &err)); /* two bytes fit, two do not */
    cr_assert_eq(err.code, ERROR_IO);
    limit_file_bytes(RLIM_INFINITY);

    struct error later = {0};
    cr_assert_not(writer_append(writer, "three\n", 6, &later));
    cr_assert_str_eq(later.message, err.message);
    cr_assert_not(writer_append(writer, "", 0, &later));
    cr_assert_not(writer_flush(writer, &later));
    cr_assert_not(writer_close(writer, &later));
    cr_assert_str_eq(later.message, err.message);
    expect_file(path, "one\ntw", 6);
    cr_assert_eq(n_syncs, 0);
}

/* A path that opens the writing end of a pipe whose reading end is `*read_end`. */
static const char *pipe_path(int *read_end)
{
    static char name[64];
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    *read_end = ends[0];
    snprintf(name, sizeof name, "/proc/self/fd/%d", ends[1]);
    return name;
}

Test(writer, a_reader_that_went_away_is_told_apart)
{
    int read_end;
    struct writer *writer = writer_of(&(struct writer_options){.path = pipe_path(&read_end)});
    append(writer, "one\n", 4);
    flush(writer);
    cr_assert_not(writer_is_broken_pipe(writer));
    close(read_end);
    append(writer, "two\n", 4);
    struct error err = {0};
    cr_assert_not(writer_flush(writer, &err));
    cr_assert_eq(err.code, ERROR_IO);
    cr_assert(writer_is_broken_pipe(writer));
    cr_assert_not(writer_close(writer, NULL));
}

/* ---- interruptions ---- */

struct drain {
    int fd;
    char *content; /* [CONTENT_BYTES] */
    size_t n;
};

/* Reads little by little, so that the writer has to wait, and gets interrupted while it does. */
static void *drain_slowly(void *context)
{
    struct drain *drain = context;
    sigset_t signals;
    sigfillset(&signals);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* they are for the writer */
    while (drain->n < CONTENT_BYTES) {
        size_t n_left = CONTENT_BYTES - drain->n;
        ssize_t n = read(drain->fd, drain->content + drain->n, n_left < 10000 ? n_left : 10000);
        if (n <= 0) break;
        drain->n += (size_t)n;
        usleep(500);
    }
    return NULL;
}

static volatile sig_atomic_t n_signals;

static void count_signal(int number)
{
    (void)number;
    n_signals = n_signals + 1;
}

Test(writer, short_and_interrupted_writes_go_on, .timeout = 60)
{
    struct drain drain = {.content = arena_push(&memory, CONTENT_BYTES, 1)};
    struct writer *writer = writer_of(&(struct writer_options){.path = pipe_path(&drain.fd)});
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, drain_slowly, &drain), 0);

    struct sigaction action = {.sa_handler = count_signal}; /* without SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every_ms = {.it_interval = {.tv_usec = 1000}, .it_value = {.tv_usec = 1000}};
    setitimer(ITIMER_REAL, &every_ms, NULL);
    const char *content = noise();
    append_in_pieces(writer, content);
    finish(writer);
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);

    pthread_join(thread, NULL);
    cr_assert_eq(drain.n, CONTENT_BYTES);
    cr_assert_eq(memcmp(drain.content, content, CONTENT_BYTES), 0);
    cr_assert_gt(n_signals, 0);
}

/* ---- files that grow over several runs ---- */

Test(writer, what_is_kept_stays_and_what_follows_it_is_cut_off)
{
    for (int compress = 0; compress < 2; compress++) {
        struct writer_options options = {.path = path, .compress = compress, .overwrite = true};
        struct writer *writer = writer_of(&options);
        append(writer, "one\n", 4);
        flush(writer);
        size_t n_kept = file_bytes(path).n;
        append(writer, "torn", 4);
        finish(writer);
        options.append = true;
        options.keep_bytes = (int64_t)n_kept;
        writer = writer_of(&options);
        cr_assert_eq(file_bytes(path).n, n_kept);
        append(writer, "two\n", 4);
        finish(writer);
        if (compress) expect_unpacked(path, "one\ntwo\n", 8, 2);
        else expect_file(path, "one\ntwo\n", 8);
        finish(writer_of(&options));
        cr_assert_eq(file_bytes(path).n, n_kept, "no frame was begun");
    }
}

Test(writer, a_file_that_is_no_longer_there_is_not_gone_on_with)
{
    struct writer *writer = NULL;
    struct error err = {0};
    const struct writer_options options = {.path = path, .append = true};
    cr_assert_not(writer_open(&writer, &options, &err));
    cr_assert_eq(err.code, ERROR_CREATE);
}

Test(writer, with_sync_each_flush_makes_the_file_durable_and_its_name_is_at_once)
{
    const struct writer_options options = {.path = path, .sync = true};
    struct writer *writer = writer_of(&options);
    cr_assert_eq(n_syncs, 1, "the directory");
    for (int i = 0; i < 3; i++) {
        append(writer, "a\n", 2);
        cr_assert_eq(n_syncs, 1 + i);
        flush(writer);
        cr_assert_eq(n_syncs, 2 + i);
    }
    finish(writer);
}

Test(writer, after_giving_up_nothing_is_written)
{
    const struct error why = {.code = ERROR_IO, .message = "gone"};
    struct error err = {0};
    const struct writer_options options = {.path = path, .sync = true};
    struct writer *writer = writer_of(&options);
    append(writer, "one\n", 4);
    flush(writer);
    append(writer, "two\n", 4);
    writer_give_up(writer, &why);
    cr_assert_not(writer_append(writer, "three\n", 6, &err));
    cr_assert_not(writer_flush(writer, &err));
    cr_assert_not(writer_close(writer, &err));
    cr_assert_str_eq(err.message, "gone");
    expect_file(path, "one\n", 4);
}
