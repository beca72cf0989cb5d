/* Lines of a stream. text[] is large enough for the longest line allowed and one chunk behind it,
 * yet memory is touched only as far as lines really reach. What is longer is thrown away as it
 * arrives. */
#include "base/stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char byte_order_mark[] = {'\xEF', '\xBB', '\xBF'};

struct line_reader {
    struct stream *stream;
    size_t line_bytes_max;
    bool is_begun;        /* past the byte-order mark */
    bool is_ended;        /* the stream has no more */
    bool is_skipping;     /* inside a line that is too long */
    struct error failure; /* the first one; told at every later call */

    /*  0 .. line_index .. scan_index .. n_text           line_bytes_max + 2 + STREAM_CHUNK_BYTES
     *  |   done  |  no newline  |  new   |      free     |    */
    size_t line_index;
    size_t scan_index;
    size_t n_text;
    char text[]; /* [line_bytes_max + 2 + STREAM_CHUNK_BYTES] */
};

bool line_reader_open(struct line_reader **reader, const char *path, size_t line_bytes_max,
                      struct error *err)
{
    assert(reader != NULL);
    assert(line_bytes_max > 0);
    assert(line_bytes_max <= SIZE_MAX / 2);
    struct stream *stream = NULL;
    if (!stream_open(&stream, path, err)) return false;

    /* A line of the full length, "\r" and NUL, and behind them room for one chunk. */
    struct line_reader *opened = malloc(sizeof *opened + line_bytes_max + 2 + STREAM_CHUNK_BYTES);
    if (opened == NULL) {
        stream_close(stream);
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for lines of %zu bytes in %s",
                         line_bytes_max, path);
    }
    *opened = (struct line_reader){.stream = stream, .line_bytes_max = line_bytes_max};
    *reader = opened;
    return true;
}

void line_reader_close(struct line_reader *reader)
{
    if (reader == NULL) return;
    assert(reader->stream != NULL);
    stream_close(reader->stream);
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
    if (!stream_read(reader->stream, reader->text + reader->n_text, STREAM_CHUNK_BYTES, &n_bytes,
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

/* Whether text[] holds the line's end, or nothing follows; else a chunk more is needed. The
 * newline, if there is one, is then at scan_index. */
static bool text_has_line(struct line_reader *reader)
{
    assert(reader->scan_index >= reader->line_index);
    char *scan = reader->text + reader->scan_index;
    char *newline = memchr(scan, '\n', reader->n_text - reader->scan_index);
    reader->scan_index = newline != NULL ? (size_t)(newline - reader->text) : reader->n_text;
    if (newline != NULL || reader->is_ended) return true;

    /* Even if its last byte is the "\r" of the line's end. */
    if (reader->n_text - reader->line_index > reader->line_bytes_max + 1) {
        reader->is_skipping = true;
        reader->line_index = reader->scan_index = reader->n_text = 0;
    }
    return false;
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
    while (!text_has_line(reader))
        if (!text_fill(reader)) return reader_fail(reader, err);
    bool has_newline = reader->scan_index < reader->n_text;
    return text_take_line(reader, has_newline ? reader->text + reader->scan_index : NULL, line);
}

bool line_reader_wait(struct line_reader *reader, int hurry_fd)
{
    assert(reader->is_begun);
    while (reader->failure.code == ERROR_NONE && !text_has_line(reader)) {
        if (!stream_wait(reader->stream, hurry_fd)) return false;
        if (!text_fill(reader)) break; /* the next call tells why */
    }
    return true;
}
