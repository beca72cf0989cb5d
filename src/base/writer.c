/* Writing. Bytes pass through one buffer, as they are or as zstd frames; a flush ends the frame and
 * empties the buffer. The first failure is kept and told at every later call: after a lost write
 * nothing that follows would be in its place. */
#include "base/stream.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "base/frames.h"

enum { BUFFER_BYTES = 128 * 1024, ZSTD_LEVEL = 3 };

struct writer {
    char *label; /* for messages: the path, or "standard output" */
    int fd;
    bool is_regular;      /* a file that fsync can make durable */
    bool syncs;           /* at each flush */
    bool is_broken_pipe;  /* the failure is EPIPE */
    bool has_frame;       /* a frame was begun, so the output is valid zstd */
    ZSTD_CStream *zstd;   /* NULL: plain */
    size_t pending_bytes; /* appended since the last flush */
    struct error failure; /* the first one */
    size_t n_buffer;      /* bytes of buffer[] that are not written yet */
    char buffer[BUFFER_BYTES];
};

/* ---- open ---- */

/* Creates a file that must not exist. What exists and is no regular file, such as a device or a
 * pipe, holds nothing that could be lost, and is simply opened. */
static int open_new(const char *path)
{
    assert(path != NULL);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0 || errno != EEXIST) return fd;
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        return open(path, O_WRONLY | O_CLOEXEC);
    }
    errno = EEXIST;
    return -1;
}

/* A new file's name is durable when its directory is. Where directories cannot be synced, nothing
 * is lost by trying. */
static void sync_directory(const char *path)
{
    assert(path[0] != '\0');
    const char *slash = strrchr(path, '/');
    char *directory = slash != NULL ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    int fd = directory != NULL ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    free(directory);
}

static bool open_file(struct writer *writer, const struct writer_options *options,
                      struct error *err)
{
    assert(writer->fd < 0);
    do {
        int flags = O_WRONLY | O_CLOEXEC | (options->append ? 0 : O_CREAT);
        bool is_new = !options->append && !options->overwrite;
        writer->fd = is_new ? open_new(options->path) : open(options->path, flags, 0666);
    } while (writer->fd < 0 && errno == EINTR);
    if (writer->fd >= 0) return true;

    const char *path = options->path;
    switch (errno) {
    case EEXIST:
        return error_set(err, ERROR_CREATE, "%s exists already; use -f to overwrite it", path);
    case ENOENT:
        return error_set(err, ERROR_CREATE, "cannot create %s: its directory does not exist", path);
    default: return error_set(err, ERROR_CREATE, "cannot create %s: %s", path, strerror(errno));
    }
}

/* Cuts a regular file off behind what is kept. */
static bool take_file(struct writer *writer, const struct writer_options *options,
                      struct error *err)
{
    struct stat status;
    int64_t keep_bytes = options->append ? options->keep_bytes : 0;
    assert(keep_bytes >= 0);
    writer->is_regular = fstat(writer->fd, &status) == 0 && S_ISREG(status.st_mode);
    if (!writer->is_regular || writer->fd == STDOUT_FILENO) return true;
    int cut_status;
    do {
        cut_status = ftruncate(writer->fd, keep_bytes);
    } while (cut_status != 0 && errno == EINTR);
    if (cut_status == 0 && lseek(writer->fd, keep_bytes, SEEK_SET) >= 0) return true;
    return error_set(err, ERROR_CREATE, "cannot write %s: %s", options->path, strerror(errno));
}

/* A compressor with the checksums that let a reader tell a whole frame from a damaged one. */
static ZSTD_CStream *compressor_create(void)
{
    ZSTD_CStream *zstd = ZSTD_createCStream();
    if (zstd == NULL) return NULL;
    size_t level_status = ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
    size_t checksum_status = ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
    assert(!ZSTD_isError(level_status));
    assert(!ZSTD_isError(checksum_status));
    return zstd;
}

static void writer_free(struct writer *writer)
{
    assert(writer != NULL);
    ZSTD_freeCStream(writer->zstd);
    free(writer->label);
    free(writer);
}

/* The file comes last: what fails before it leaves nothing behind. */
bool writer_open(struct writer **writer, const struct writer_options *options, struct error *err)
{
    assert(writer != NULL);
    assert(options->path != NULL);
    bool is_standard = strcmp(options->path, "-") == 0;
    struct writer *opened = calloc(1, sizeof *opened);
    if (opened == NULL) goto out_of_memory;
    opened->fd = is_standard ? STDOUT_FILENO : -1;
    opened->label = strdup(is_standard ? "standard output" : options->path);
    opened->zstd = options->compress ? compressor_create() : NULL;
    if (opened->label == NULL || (options->compress && opened->zstd == NULL)) goto out_of_memory;

    if ((!is_standard && !open_file(opened, options, err)) || !take_file(opened, options, err)) {
        if (opened->fd > STDOUT_FILENO) close(opened->fd);
        writer_free(opened);
        return false;
    }
    opened->syncs = options->sync && opened->is_regular;
    opened->has_frame = options->append && options->keep_bytes > 0;
    if (options->compress && options->mark && !opened->has_frame) {
        memcpy(opened->buffer, FRAMES_MARK, FRAMES_MARK_BYTES);
        opened->n_buffer = FRAMES_MARK_BYTES;
    }
    if (opened->syncs && !is_standard && !options->append) sync_directory(options->path);
    *writer = opened;
    return true;

out_of_memory:
    if (opened != NULL) writer_free(opened);
    return error_set(err, ERROR_UNAVAILABLE, "not enough memory to write %s", options->path);
}

/* ---- write ---- */

static bool tell_failure(const struct writer *writer, struct error *err)
{
    assert(writer->failure.code != ERROR_NONE);
    return error_set(err, writer->failure.code, "%s", writer->failure.message);
}

/* Keeps the failure that errno names. */
static bool fail_io(struct writer *writer)
{
    assert(writer->failure.code == ERROR_NONE);
    writer->is_broken_pipe = errno == EPIPE;
    return error_set(&writer->failure, ERROR_IO, "writing %s failed: %s", writer->label,
                     strerror(errno));
}

/* Empties the buffer into the file. */
static bool buffer_write(struct writer *writer)
{
    assert(writer->n_buffer <= BUFFER_BYTES);
    size_t n_written = 0;
    while (n_written < writer->n_buffer) {
        ssize_t n = write(writer->fd, writer->buffer + n_written, writer->n_buffer - n_written);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) { /* somebody else made the pipe non-blocking */
            poll(&(struct pollfd){.fd = writer->fd, .events = POLLOUT}, 1, -1);
            continue;
        }
        if (n < 0) return fail_io(writer);
        n_written += (size_t)n;
    }
    writer->n_buffer = 0;
    return true;
}

static bool append_plain(struct writer *writer, const char *data, size_t n)
{
    assert(writer->zstd == NULL);
    while (n > 0) {
        size_t n_free = BUFFER_BYTES - writer->n_buffer;
        size_t n_copied = n < n_free ? n : n_free;
        memcpy(writer->buffer + writer->n_buffer, data, n_copied);
        writer->n_buffer += n_copied;
        data += n_copied;
        n -= n_copied;
        if (writer->n_buffer == BUFFER_BYTES && !buffer_write(writer)) return false;
    }
    return true;
}

/* Compresses `n` bytes into the current frame, and ends it if `mode` says so. */
static bool append_zstd(struct writer *writer, const char *data, size_t n, ZSTD_EndDirective mode)
{
    assert(writer->zstd != NULL);
    writer->has_frame = true;
    ZSTD_inBuffer in = {data, n, 0};
    bool is_done = false;
    while (!is_done) {
        ZSTD_outBuffer out = {writer->buffer, BUFFER_BYTES, writer->n_buffer};
        size_t n_left = ZSTD_compressStream2(writer->zstd, &out, &in, mode);
        if (ZSTD_isError(n_left)) {
            return error_set(&writer->failure, ERROR_UNAVAILABLE, "compressing %s failed: %s",
                             writer->label, ZSTD_getErrorName(n_left));
        }
        writer->n_buffer = out.pos;
        is_done = mode == ZSTD_e_end ? n_left == 0 : in.pos == in.size;
        if (writer->n_buffer == BUFFER_BYTES && !buffer_write(writer)) return false;
    }
    return true;
}

bool writer_append(struct writer *writer, const char *data, size_t n, struct error *err)
{
    assert(data != NULL || n == 0);
    if (writer->failure.code != ERROR_NONE) return tell_failure(writer, err);
    if (n == 0) return true;
    writer->pending_bytes += n;
    bool is_ok = writer->zstd != NULL ? append_zstd(writer, data, n, ZSTD_e_continue)
                                      : append_plain(writer, data, n);
    return is_ok || tell_failure(writer, err);
}

bool writer_append_line(struct writer *writer, const char *line, size_t n, struct error *err)
{
    assert(line != NULL);
    return writer_append(writer, line, n, err) && writer_append(writer, "\n", 1, err);
}

size_t writer_pending_bytes(const struct writer *writer)
{
    assert(writer != NULL);
    return writer->pending_bytes;
}

/* Ends the frame, be it empty, and writes everything. */
static bool frame_finish(struct writer *writer)
{
    assert(writer->failure.code == ERROR_NONE);
    if (writer->zstd != NULL && !append_zstd(writer, NULL, 0, ZSTD_e_end)) return false;
    if (!buffer_write(writer)) return false;
    writer->pending_bytes = 0;
    return true;
}

/* Makes a regular file durable. */
static bool file_sync(struct writer *writer)
{
    assert(writer->fd >= 0);
    if (!writer->is_regular) return true;
    int status;
    do {
        status = fsync(writer->fd);
    } while (status != 0 && errno == EINTR);
    return status == 0 || fail_io(writer);
}

bool writer_flush(struct writer *writer, struct error *err)
{
    assert(writer != NULL);
    if (writer->failure.code != ERROR_NONE) return tell_failure(writer, err);
    if (writer->pending_bytes == 0) return true;
    bool is_ok = frame_finish(writer) && (!writer->syncs || file_sync(writer));
    return is_ok || tell_failure(writer, err);
}

void writer_give_up(struct writer *writer, const struct error *why)
{
    assert(why->code != ERROR_NONE);
    if (writer->failure.code == ERROR_NONE) writer->failure = *why;
}

bool writer_is_broken_pipe(const struct writer *writer)
{
    assert(writer != NULL);
    return writer->is_broken_pipe;
}

bool writer_close(struct writer *writer, struct error *err)
{
    if (writer == NULL) return true;
    bool is_ok = writer->failure.code == ERROR_NONE;
    /* An empty file is no valid zstd file; an empty frame is. */
    bool is_unfinished = writer->pending_bytes > 0 || (writer->zstd != NULL && !writer->has_frame);
    if (is_ok && is_unfinished) is_ok = frame_finish(writer);
    if (is_ok) is_ok = file_sync(writer);
    /* Standard output stays open: it is not ours. EINTR closes, too, on Linux. */
    bool is_closed = writer->fd == STDOUT_FILENO || close(writer->fd) == 0 || errno == EINTR;
    if (is_ok && !is_closed) is_ok = fail_io(writer);

    if (!is_ok) tell_failure(writer, err);
    writer_free(writer);
    return is_ok;
}
