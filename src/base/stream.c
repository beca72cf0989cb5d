/* The decoded bytes of one input. Raw bytes wait in input[] until the decoder of the format that
 * the first of them announce has taken them:
 *
 *     fd --read--> input[] --plain, zstd or gzip--> the caller's buffer */
#include "base/stream.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum format { FORMAT_UNKNOWN, FORMAT_PLAIN, FORMAT_ZSTD, FORMAT_GZIP };

struct stream {
    char *label; /* for messages: the path, or "standard input" */
    int fd;
    enum format format;
    bool is_ended;      /* the file's end was met; input[] may still hold bytes */
    bool is_in_frame;   /* the decoder is inside a frame or member: an end here is a tear */
    bool is_held_back;  /* the last target was filled: the decoder may have more */
    ZSTD_DStream *zstd; /* FORMAT_ZSTD only */
    z_stream gzip;      /* FORMAT_GZIP only */
    size_t input_index; /* bytes [input_index, n_input) wait for the decoder */
    size_t n_input;
    uint8_t input[STREAM_CHUNK_BYTES];
};

void stream_close(struct stream *stream)
{
    assert(stream != NULL);
    if (stream->format == FORMAT_GZIP) inflateEnd(&stream->gzip);
    ZSTD_freeDStream(stream->zstd);
    if (stream->fd > STDIN_FILENO) close(stream->fd);
    free(stream->label);
    free(stream);
}

static int open_fd(const char *path, int flags)
{
    int fd;
    assert(path != NULL);
    do {
        fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

int stream_open_fd(const char *path)
{
    assert(path != NULL);
    return open_fd(path, O_NONBLOCK);
}

ssize_t stream_read_at(int fd, void *target, size_t n, int64_t begin)
{
    size_t n_done = 0;
    assert(begin >= 0);
    while (n_done < n) {
        ssize_t n_read = pread(fd, (char *)target + n_done, n - n_done, begin + (off_t)n_done);
        if (n_read < 0 && errno == EINTR) continue;
        if (n_read <= 0) return n_read < 0 ? -1 : (ssize_t)n_done;
        n_done += (size_t)n_read;
    }
    return (ssize_t)n_done;
}

/* Sets fd; errno says why not. A directory opens well and fails at the first read: too late. */
static bool stream_open_file(struct stream *stream, const char *path)
{
    assert(stream->fd < 0);
    struct stat status;
    stream->fd = open_fd(path, 0); /* a pipe's writer is waited for */
    if (stream->fd < 0 || fstat(stream->fd, &status) != 0) return false;
    errno = EISDIR;
    return !S_ISDIR(status.st_mode);
}

bool stream_open(struct stream **stream, const char *path, struct error *err)
{
    assert(path != NULL);
    bool is_standard = strcmp(path, "-") == 0;
    struct stream *opened = calloc(1, sizeof *opened);
    char *label = strdup(is_standard ? "standard input" : path);
    if (opened == NULL || label == NULL) {
        free(opened);
        free(label);
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read %s", path);
    }
    opened->label = label;
    opened->fd = is_standard ? STDIN_FILENO : -1;
    if (!is_standard && !stream_open_file(opened, path)) {
        error_set(err, ERROR_NO_INPUT, "cannot read %s: %s", path, strerror(errno));
        stream_close(opened);
        return false;
    }
    *stream = opened;
    return true;
}

/* Reads more raw bytes behind those that wait. */
static bool stream_refill(struct stream *stream, struct error *err)
{
    assert(!stream->is_ended);
    if (stream->input_index == stream->n_input) stream->input_index = stream->n_input = 0;
    assert(stream->n_input < STREAM_CHUNK_BYTES);
    ssize_t n_read;
    size_t n_free = STREAM_CHUNK_BYTES - stream->n_input;
    do {
        n_read = read(stream->fd, stream->input + stream->n_input, n_free);
    } while (n_read < 0 && errno == EINTR);
    if (n_read < 0) {
        return error_set(err, ERROR_IO, "reading %s failed: %s", stream->label, strerror(errno));
    }
    stream->is_ended = n_read == 0;
    stream->n_input += (size_t)n_read;
    return true;
}

/* The format whose magic opens the input. Unknown while a longer input might still decide. */
static enum format format_recognise(const uint8_t *input, size_t n_input, bool is_ended)
{
    static const struct {
        enum format format;
        size_t n_bytes;
        uint8_t first_mask; /* zstd's skippable frames have sixteen magics */
        uint8_t magic[4];
    } formats[] = {
        {FORMAT_ZSTD, 4, 0xFF, {0x28, 0xB5, 0x2F, 0xFD}},
        {FORMAT_ZSTD, 4, 0xF0, {0x50, 0x2A, 0x4D, 0x18}},
        {FORMAT_GZIP, 2, 0xFF, {0x1F, 0x8B}},
    };
    assert(n_input <= STREAM_CHUNK_BYTES);
    if (n_input == 0) return is_ended ? FORMAT_PLAIN : FORMAT_UNKNOWN;

    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        size_t n_known = n_input < formats[i].n_bytes ? n_input : formats[i].n_bytes;
        if ((input[0] & formats[i].first_mask) != formats[i].magic[0]) continue;
        if (memcmp(input + 1, formats[i].magic + 1, n_known - 1) != 0) continue;
        if (n_known == formats[i].n_bytes) return formats[i].format;
        if (!is_ended) return FORMAT_UNKNOWN; /* no two magics share their first byte */
    }
    return FORMAT_PLAIN;
}

/* Reads just enough to know the format, then makes its decoder. At the first read, not at open: a
 * terminal or a pipe may have nothing to say yet. */
static bool stream_recognise(struct stream *stream, struct error *err)
{
    assert(stream->format == FORMAT_UNKNOWN);
    enum format format = FORMAT_UNKNOWN;
    while (format == FORMAT_UNKNOWN) {
        if (!stream_refill(stream, err)) return false;
        format = format_recognise(stream->input, stream->n_input, stream->is_ended);
    }
    bool is_ready = true;
    if (format == FORMAT_ZSTD) is_ready = (stream->zstd = ZSTD_createDStream()) != NULL;
    if (format == FORMAT_GZIP) is_ready = inflateInit2(&stream->gzip, 16 + MAX_WBITS) == Z_OK;
    if (!is_ready) {
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to decompress %s",
                         stream->label);
    }
    stream->format = format;
    return true;
}

/* The three decoders: take input, put at most n_bytes_max into `target`, keep is_in_frame. */

static size_t decode_plain(struct stream *stream, char *target, size_t n_bytes_max)
{
    assert(!stream->is_in_frame);
    size_t n_waiting = stream->n_input - stream->input_index;
    size_t n_bytes = n_waiting < n_bytes_max ? n_waiting : n_bytes_max;
    memcpy(target, stream->input + stream->input_index, n_bytes);
    stream->input_index += n_bytes;
    return n_bytes;
}

static bool decode_zstd(struct stream *stream, char *target, size_t n_bytes_max, size_t *n_bytes,
                        struct error *err)
{
    assert(stream->zstd != NULL);
    ZSTD_inBuffer in = {stream->input, stream->n_input, stream->input_index};
    ZSTD_outBuffer out = {target, n_bytes_max, 0};
    size_t hint = ZSTD_decompressStream(stream->zstd, &out, &in);
    if (ZSTD_isError(hint)) {
        bool is_memory = ZSTD_getErrorCode(hint) == ZSTD_error_memory_allocation;
        if (ZSTD_getErrorCode(hint) == ZSTD_error_frameParameter_windowTooLarge)
            return error_set(
                err, ERROR_FORMAT,
                "%s needs a window above 128 MiB to be unpacked; pack it without --long",
                stream->label);
        return error_set(err, is_memory ? ERROR_UNAVAILABLE : ERROR_FORMAT,
                         "%s is damaged zstd data: %s", stream->label, ZSTD_getErrorName(hint));
    }
    stream->is_in_frame = hint != 0;
    stream->input_index = in.pos;
    *n_bytes = out.pos;
    return true;
}

static bool decode_gzip(struct stream *stream, char *target, size_t n_bytes_max, size_t *n_bytes,
                        struct error *err)
{
    assert(n_bytes_max <= STREAM_CHUNK_BYTES);
    z_stream *gzip = &stream->gzip;
    gzip->next_in = stream->input + stream->input_index;
    gzip->avail_in = (uInt)(stream->n_input - stream->input_index);
    gzip->next_out = (Bytef *)target;
    gzip->avail_out = (uInt)n_bytes_max;
    int status = inflate(gzip, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
        return error_set(err, status == Z_MEM_ERROR ? ERROR_UNAVAILABLE : ERROR_FORMAT,
                         "%s is damaged gzip data: %s", stream->label,
                         gzip->msg != NULL ? gzip->msg : zError(status));
    }
    stream->is_in_frame = status != Z_STREAM_END;
    stream->input_index = stream->n_input - gzip->avail_in;
    *n_bytes = n_bytes_max - gzip->avail_out;
    if (status == Z_STREAM_END) inflateReset(gzip); /* another member may follow */
    return true;
}

static bool stream_decode(struct stream *stream, char *target, size_t n_bytes_max, size_t *n_bytes,
                          struct error *err)
{
    assert(stream->format != FORMAT_UNKNOWN);
    assert(n_bytes_max > 0);
    switch (stream->format) {
    case FORMAT_ZSTD: return decode_zstd(stream, target, n_bytes_max, n_bytes, err);
    case FORMAT_GZIP: return decode_gzip(stream, target, n_bytes_max, n_bytes, err);
    case FORMAT_PLAIN: *n_bytes = decode_plain(stream, target, n_bytes_max); return true;
    case FORMAT_UNKNOWN: break;
    }
    return false;
}

/* The next bytes, at most n_bytes_max; none means the end. A decoder inside a frame is asked before
 * more is read, since it may hold back output that did not fit last time. */
bool stream_read(struct stream *stream, char *target, size_t n_bytes_max, size_t *n_bytes,
                 struct error *err)
{
    assert(stream != NULL);
    assert(n_bytes_max > 0);
    assert(n_bytes_max <= STREAM_CHUNK_BYTES);
    *n_bytes = 0;
    if (stream->format == FORMAT_UNKNOWN && !stream_recognise(stream, err)) return false;
    for (;;) {
        if (stream->input_index < stream->n_input || stream->is_in_frame) {
            if (!stream_decode(stream, target, n_bytes_max, n_bytes, err)) return false;
            stream->is_held_back = *n_bytes == n_bytes_max;
            if (*n_bytes > 0) return true;
        }
        if (stream->input_index < stream->n_input) continue;
        if (stream->is_ended) break;
        if (!stream_refill(stream, err)) return false;
    }
    if (!stream->is_in_frame) return true;
    return error_set(err, ERROR_FORMAT, "%s is truncated: it ends inside a %s", stream->label,
                     stream->format == FORMAT_ZSTD ? "zstd frame" : "gzip member");
}

bool stream_wait(struct stream *stream, int hurry_fd)
{
    assert(hurry_fd >= 0);
    struct pollfd fds[] = {{.fd = stream->fd, .events = POLLIN},
                           {.fd = hurry_fd, .events = POLLIN}};
    if (stream->is_held_back || stream->is_ended || stream->input_index < stream->n_input)
        return true;
    int n_ready;
    do {
        n_ready = poll(fds, 2, -1);
    } while (n_ready < 0 && errno == EINTR);
    /* What poll cannot watch shall not keep anyone waiting, nor shall the end or an error. */
    return n_ready < 0 || fds[0].revents != 0;
}

/* ---- whole files ---- */

/* Reads until the end or past n_bytes_max into a heap buffer that the caller frees. */
static bool stream_read_all(struct stream *stream, size_t n_bytes_max, char **content,
                            size_t *n_content, struct error *err)
{
    assert(stream != NULL);
    assert(*content == NULL);
    assert(*n_content == 0);
    size_t n_bytes = 1;
    for (size_t capacity = 0; n_bytes > 0 && *n_content <= n_bytes_max; *n_content += n_bytes) {
        if (capacity - *n_content < STREAM_CHUNK_BYTES) {
            capacity = 2 * capacity + STREAM_CHUNK_BYTES;
            char *grown = realloc(*content, capacity);
            if (grown == NULL) {
                return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read %s",
                                 stream->label);
            }
            *content = grown;
        }
        char *target = *content + *n_content;
        if (!stream_read(stream, target, STREAM_CHUNK_BYTES, &n_bytes, err)) return false;
    }
    if (*n_content <= n_bytes_max) return true;
    return error_set(err, ERROR_FORMAT, "%s is too large: at most %zu bytes are accepted",
                     stream->label, n_bytes_max);
}

bool stream_read_file(const char *path, size_t bytes_max, struct arena *arena,
                      struct bytes *content, struct error *err)
{
    assert(content != NULL);
    struct stream *stream = NULL;
    if (!stream_open(&stream, path, err)) return false;
    char *read_bytes = NULL;
    size_t n_read = 0;
    bool is_ok = stream_read_all(stream, bytes_max, &read_bytes, &n_read, err);
    if (is_ok) {
        char *copy = arena_try_copy(arena, read_bytes, n_read);
        is_ok = copy != NULL;
        if (is_ok) *content = (struct bytes){.data = copy, .n = n_read};
        else error_set(err, ERROR_UNAVAILABLE, "not enough memory to hold %s", path);
    }
    free(read_bytes);
    stream_close(stream);
    return is_ok;
}

bool stream_is_named(const char *path)
{
    struct stat status;
    assert(path != NULL);
    return lstat(path, &status) == 0 || errno != ENOENT;
}

bool stream_read_regular(const char *path, size_t bytes_max, struct arena *arena,
                         struct bytes *content, struct error *err)
{
    struct stat status;
    assert(path != NULL);
    bool is_there = stat(path, &status) == 0;
    if (!is_there && errno == ENOENT && stream_is_named(path))
        return error_set(err, ERROR_NO_INPUT, "cannot read %s: it is a link that leads nowhere",
                         path);
    /* A directory, or what is not there, is told by the reading. */
    if (is_there && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return error_set(err, ERROR_NO_INPUT, "cannot read %s: it is no regular file", path);
    return stream_read_file(path, bytes_max, arena, content, err);
}
