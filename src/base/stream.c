/* Reading. Two layers: a source gives the decoded bytes of one input, a line reader cuts them.
 *
 *     fd --read--> input[] --plain, zstd or gzip--> text[] --memchr--> lines
 *
 * Both buffers hold one chunk; text[] grows only by touching pages, up to the longest line allowed.
 * What does not fit is thrown away as it arrives. */
#include "base/stream.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

/* zstd's largest block: one decoding step always has room for a whole one. */
enum { CHUNK_BYTES = 128 * 1024 };

enum format { FORMAT_UNKNOWN, FORMAT_PLAIN, FORMAT_ZSTD, FORMAT_GZIP };

struct source {
    char *label; /* for messages: the path, or "standard input" */
    int fd;
    enum format format;
    bool is_ended;      /* the file's end was met; input[] may still hold bytes */
    bool is_in_frame;   /* the decoder is inside a frame or member: an end here is a tear */
    ZSTD_DStream *zstd; /* FORMAT_ZSTD only */
    z_stream gzip;      /* FORMAT_GZIP only */
    size_t input_index; /* bytes [input_index, n_input) wait for the decoder */
    size_t n_input;
    uint8_t input[CHUNK_BYTES];
};

/* ---- source: the decoded bytes of a file ---- */

static void source_close(struct source *source)
{
    assert(source != NULL);
    if (source->format == FORMAT_GZIP) inflateEnd(&source->gzip);
    ZSTD_freeDStream(source->zstd);
    if (source->fd > STDIN_FILENO) close(source->fd);
    free(source->label);
    free(source);
}

/* Sets fd; errno says why not. A directory opens well and fails at the first read: too late. */
static bool source_open_file(struct source *source, const char *path)
{
    assert(source->fd < 0);
    do {
        source->fd = open(path, O_RDONLY | O_CLOEXEC);
    } while (source->fd < 0 && errno == EINTR);
    struct stat status;
    if (source->fd < 0 || fstat(source->fd, &status) != 0) return false;
    errno = EISDIR;
    return !S_ISDIR(status.st_mode);
}

static bool source_open(struct source **source, const char *path, struct error *err)
{
    assert(path != NULL);
    bool is_standard = strcmp(path, "-") == 0;
    struct source *opened = calloc(1, sizeof *opened);
    char *label = strdup(is_standard ? "standard input" : path);
    if (opened == NULL || label == NULL) {
        free(opened);
        free(label);
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read %s", path);
    }
    opened->label = label;
    opened->fd = is_standard ? STDIN_FILENO : -1;
    if (!is_standard && !source_open_file(opened, path)) {
        error_set(err, ERROR_NO_INPUT, "cannot read %s: %s", path, strerror(errno));
        source_close(opened);
        return false;
    }
    *source = opened;
    return true;
}

/* Reads more raw bytes behind those that wait. */
static bool source_refill(struct source *source, struct error *err)
{
    assert(!source->is_ended);
    if (source->input_index == source->n_input) source->input_index = source->n_input = 0;
    assert(source->n_input < CHUNK_BYTES);
    ssize_t n_read;
    do {
        n_read = read(source->fd, source->input + source->n_input, CHUNK_BYTES - source->n_input);
    } while (n_read < 0 && errno == EINTR);
    if (n_read < 0) {
        return error_set(err, ERROR_IO, "reading %s failed: %s", source->label, strerror(errno));
    }
    source->is_ended = n_read == 0;
    source->n_input += (size_t)n_read;
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
    assert(n_input <= CHUNK_BYTES);
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
static bool source_recognise(struct source *source, struct error *err)
{
    assert(source->format == FORMAT_UNKNOWN);
    enum format format = FORMAT_UNKNOWN;
    while (format == FORMAT_UNKNOWN) {
        if (!source_refill(source, err)) return false;
        format = format_recognise(source->input, source->n_input, source->is_ended);
    }
    bool is_ready = true;
    if (format == FORMAT_ZSTD) is_ready = (source->zstd = ZSTD_createDStream()) != NULL;
    if (format == FORMAT_GZIP) is_ready = inflateInit2(&source->gzip, 16 + MAX_WBITS) == Z_OK;
    if (!is_ready) {
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to decompress %s",
                         source->label);
    }
    source->format = format;
    return true;
}

/* The three decoders: take input, put at most n_bytes_max into `target`, keep is_in_frame. */

static size_t decode_plain(struct source *source, char *target, size_t n_bytes_max)
{
    assert(!source->is_in_frame);
    size_t n_waiting = source->n_input - source->input_index;
    size_t n_bytes = n_waiting < n_bytes_max ? n_waiting : n_bytes_max;
    memcpy(target, source->input + source->input_index, n_bytes);
    source->input_index += n_bytes;
    return n_bytes;
}

static bool decode_zstd(struct source *source, char *target, size_t n_bytes_max, size_t *n_bytes,
                        struct error *err)
{
    assert(source->zstd != NULL);
    ZSTD_inBuffer in = {source->input, source->n_input, source->input_index};
    ZSTD_outBuffer out = {target, n_bytes_max, 0};
    size_t hint = ZSTD_decompressStream(source->zstd, &out, &in);
    if (ZSTD_isError(hint)) {
        return error_set(err, ERROR_FORMAT, "%s is damaged zstd data: %s", source->label,
                         ZSTD_getErrorName(hint));
    }
    source->is_in_frame = hint != 0;
    source->input_index = in.pos;
    *n_bytes = out.pos;
    return true;
}

static bool decode_gzip(struct source *source, char *target, size_t n_bytes_max, size_t *n_bytes,
                        struct error *err)
{
    assert(n_bytes_max <= CHUNK_BYTES);
    z_stream *gzip = &source->gzip;
    gzip->next_in = source->input + source->input_index;
    gzip->avail_in = (uInt)(source->n_input - source->input_index);
    gzip->next_out = (Bytef *)target;
    gzip->avail_out = (uInt)n_bytes_max;
    int status = inflate(gzip, Z_NO_FLUSH);
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
        return error_set(err, ERROR_FORMAT, "%s is damaged gzip data: %s", source->label,
                         gzip->msg != NULL ? gzip->msg : zError(status));
    }
    source->is_in_frame = status != Z_STREAM_END;
    source->input_index = source->n_input - gzip->avail_in;
    *n_bytes = n_bytes_max - gzip->avail_out;
    if (status == Z_STREAM_END) inflateReset(gzip); /* another member may follow */
    return true;
}

static bool source_decode(struct source *source, char *target, size_t n_bytes_max, size_t *n_bytes,
                          struct error *err)
{
    assert(n_bytes_max > 0);
    switch (source->format) {
    case FORMAT_ZSTD: return decode_zstd(source, target, n_bytes_max, n_bytes, err);
    case FORMAT_GZIP: return decode_gzip(source, target, n_bytes_max, n_bytes, err);
    case FORMAT_PLAIN: *n_bytes = decode_plain(source, target, n_bytes_max); return true;
    case FORMAT_UNKNOWN: break;
    }
    assert(!"the format is known by now");
    return false;
}

/* The next bytes, at most n_bytes_max; none means the end. A decoder inside a frame is asked before
 * more is read, since it may hold back output that did not fit last time. */
static bool source_read(struct source *source, char *target, size_t n_bytes_max, size_t *n_bytes,
                        struct error *err)
{
    assert(n_bytes_max > 0);
    *n_bytes = 0;
    if (source->format == FORMAT_UNKNOWN && !source_recognise(source, err)) return false;
    for (;;) {
        if (source->input_index < source->n_input || source->is_in_frame) {
            if (!source_decode(source, target, n_bytes_max, n_bytes, err)) return false;
            if (*n_bytes > 0) return true;
        }
        if (source->input_index < source->n_input) continue;
        if (source->is_ended) break;
        if (!source_refill(source, err)) return false;
    }
    if (!source->is_in_frame) return true;
    return error_set(err, ERROR_FORMAT, "%s is truncated: it ends inside a %s", source->label,
                     source->format == FORMAT_ZSTD ? "zstd frame" : "gzip member");
}

/* ---- lines ---- */

static const char byte_order_mark[] = {'\xEF', '\xBB', '\xBF'};

struct line_reader {
    struct source *source;
    size_t line_bytes_max;
    bool is_begun;        /* past the byte-order mark */
    bool is_ended;        /* the source has no more */
    bool is_skipping;     /* inside a line that is too long */
    struct error failure; /* the first one; told at every later call */

    /*  0 .. line_index .. scan_index .. n_text           line_bytes_max + 2 + CHUNK_BYTES
     *  |   done  |  no newline  |  new   |      free     |    */
    size_t line_index;
    size_t scan_index;
    size_t n_text;
    char text[]; /* [line_bytes_max + 2 + CHUNK_BYTES] */
};

bool line_reader_open(struct line_reader **reader, const char *path, size_t line_bytes_max,
                      struct error *err)
{
    assert(reader != NULL);
    assert(line_bytes_max > 0);
    assert(line_bytes_max <= SIZE_MAX / 2);
    struct source *source;
    if (!source_open(&source, path, err)) return false;

    /* A line of the full length, "\r" and NUL, and behind them room for one chunk. */
    struct line_reader *opened = malloc(sizeof *opened + line_bytes_max + 2 + CHUNK_BYTES);
    if (opened == NULL) {
        source_close(source);
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for lines of %zu bytes in %s",
                         line_bytes_max, path);
    }
    *opened = (struct line_reader){.source = source, .line_bytes_max = line_bytes_max};
    *reader = opened;
    return true;
}

void line_reader_close(struct line_reader *reader)
{
    if (reader == NULL) return;
    assert(reader->source != NULL);
    source_close(reader->source);
    free(reader);
}

/* Appends a chunk, or sets is_ended. The line begun moves to the front first; as it lies behind a
 * newline of the last chunk, or at the front already, all moves together are linear. */
static bool text_fill(struct line_reader *reader)
{
    assert(!reader->is_ended);
    assert(reader->n_text - reader->line_index <= reader->line_bytes_max + 1);
    if (reader->line_index > 0) {
        reader->n_text -= reader->line_index;
        reader->scan_index -= reader->line_index;
        memmove(reader->text, reader->text + reader->line_index, reader->n_text);
        reader->line_index = 0;
    }
    size_t n_bytes;
    if (!source_read(reader->source, reader->text + reader->n_text, CHUNK_BYTES, &n_bytes,
                     &reader->failure)) {
        return false;
    }
    reader->is_ended = n_bytes == 0;
    reader->n_text += n_bytes;
    return true;
}

/* Drops a byte-order mark; reads no further than it takes to tell. */
static bool text_begin(struct line_reader *reader)
{
    assert(reader->line_index == 0);
    size_t mark_bytes = sizeof byte_order_mark;
    while (reader->n_text < mark_bytes && !reader->is_ended &&
           memcmp(reader->text, byte_order_mark, reader->n_text) == 0) {
        if (!text_fill(reader)) return false;
    }
    if (reader->n_text >= mark_bytes && memcmp(reader->text, byte_order_mark, mark_bytes) == 0) {
        reader->line_index = reader->scan_index = mark_bytes;
    }
    reader->is_begun = true;
    return true;
}

/* The line that ends at `newline`, or with the input where it is NULL. */
static enum line_status text_take_line(struct line_reader *reader, char *newline,
                                       struct bytes *line)
{
    char *start = reader->text + reader->line_index;
    char *end = newline != NULL ? newline : reader->text + reader->n_text;
    assert(end >= start);
    bool is_skipped = reader->is_skipping;
    if (newline == NULL && end == start && !is_skipped) return LINE_END;

    reader->is_skipping = false;
    reader->line_index = (size_t)(end - reader->text) + (newline != NULL ? 1 : 0);
    reader->scan_index = reader->line_index;
    if (newline != NULL && end > start && end[-1] == '\r') end--;
    size_t n_bytes = (size_t)(end - start);
    if (is_skipped || n_bytes > reader->line_bytes_max) return LINE_TOO_LONG;
    *end = 0;
    *line = (struct bytes){.data = start, .n = n_bytes};
    return LINE_READ;
}

static enum line_status reader_fail(const struct line_reader *reader, struct error *err)
{
    assert(reader->failure.code != ERROR_NONE);
    error_set(err, reader->failure.code, "%s", reader->failure.message);
    return LINE_FAILED;
}

enum line_status line_reader_next(struct line_reader *reader, struct bytes *line, struct error *err)
{
    assert(line != NULL);
    if (reader->failure.code != ERROR_NONE) return reader_fail(reader, err);
    if (!reader->is_begun && !text_begin(reader)) return reader_fail(reader, err);
    for (;;) {
        char *scan = reader->text + reader->scan_index;
        char *newline = memchr(scan, '\n', reader->n_text - reader->scan_index);
        if (newline != NULL || reader->is_ended) return text_take_line(reader, newline, line);

        reader->scan_index = reader->n_text;
        /* Even if its last byte is the "\r" of the line's end. */
        if (reader->n_text - reader->line_index > reader->line_bytes_max + 1) {
            reader->is_skipping = true;
            reader->line_index = reader->scan_index = reader->n_text = 0;
        }
        if (!text_fill(reader)) return reader_fail(reader, err);
    }
}

/* ---- whole files ---- */

/* Reads until the end or past n_bytes_max into a heap buffer that the caller frees. */
static bool source_read_all(struct source *source, size_t n_bytes_max, char **content,
                            size_t *n_content, struct error *err)
{
    assert(*content == NULL);
    assert(*n_content == 0);
    size_t n_bytes = 1;
    for (size_t capacity = 0; n_bytes > 0 && *n_content <= n_bytes_max; *n_content += n_bytes) {
        if (capacity - *n_content < CHUNK_BYTES) {
            capacity = 2 * capacity + CHUNK_BYTES;
            char *grown = realloc(*content, capacity);
            if (grown == NULL) {
                return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read %s",
                                 source->label);
            }
            *content = grown;
        }
        if (!source_read(source, *content + *n_content, CHUNK_BYTES, &n_bytes, err)) return false;
    }
    if (*n_content <= n_bytes_max) return true;
    return error_set(err, ERROR_FORMAT, "%s is too large: at most %zu bytes are accepted",
                     source->label, n_bytes_max);
}

bool stream_read_file(const char *path, size_t bytes_max, struct arena *arena,
                      struct bytes *content, struct error *err)
{
    assert(content != NULL);
    struct source *source;
    if (!source_open(&source, path, err)) return false;
    char *read_bytes = NULL;
    size_t n_read = 0;
    bool is_ok = source_read_all(source, bytes_max, &read_bytes, &n_read, err);
    if (is_ok) {
        char *copy = arena_try_copy(arena, read_bytes, n_read);
        is_ok = copy != NULL;
        if (is_ok) *content = (struct bytes){.data = copy, .n = n_read};
        else error_set(err, ERROR_UNAVAILABLE, "not enough memory to hold %s", path);
    }
    free(read_bytes);
    source_close(source);
    return is_ok;
}
