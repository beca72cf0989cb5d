/* Lines in, bytes out: a file, a standard stream, plain, zstd or gzip. What is inside is recognised
 * by its first bytes, not by its name; the caller cannot tell the difference. */
#ifndef BASE_STREAM_H
#define BASE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

/* ---- reading ---- */

struct line_reader;

enum line_status {
    LINE_READ,     /* a line, without its "\n" or "\r\n"; the last one may lack the newline */
    LINE_TOO_LONG, /* longer than line_bytes_max; it was skipped, the next call goes on after it */
    LINE_END,      /* end of input */
    LINE_FAILED,   /* err says why: I/O error, damaged or torn compressed data */
};

/* Opens `path` ("-" is standard input). Plain, .zst (several frames, skippable ones too) or .gz
 * (several members) by magic. Heap; close it. A line holds at most `line_bytes_max` bytes.
 * A byte-order mark at the start is dropped. */
bool line_reader_open(struct line_reader **reader, const char *path, size_t line_bytes_max,
                      struct error *err);
void line_reader_close(struct line_reader *reader); /* NULL is fine */

/* The next line; `line` is borrowed until the next call (it is followed by a NUL in memory). Lines
 * before the place of a failure are read; then every call tells the same failure. */
enum line_status line_reader_next(struct line_reader *reader, struct bytes *line, struct error *err);

/* Reads a whole small file (JSON, say) into `arena`, NUL-terminated; refuses more than bytes_max. */
bool stream_read_file(const char *path, size_t bytes_max, struct arena *arena, struct bytes *content,
                      struct error *err);

/* ---- writing (writer.c) ---- */

struct writer;

struct writer_options {
    const char *path; /* "-" is standard output */
    bool compress;    /* zstd level 3, checksummed frames */
    bool overwrite;   /* an existing regular file is truncated; else refused with ERROR_CREATE */
};

/* Devices and pipes are opened whether `overwrite` says so or not. Heap; close it. The program must
 * ignore SIGPIPE. */
bool writer_open(struct writer **writer, const struct writer_options *options, struct error *err);

/* Appends bytes to the current frame. Buffered; may write. Once a write has failed, this and every
 * later call tell that failure and write nothing. */
bool writer_append(struct writer *writer, const char *data, size_t n, struct error *err);

/* Bytes appended since the last flush: what a crash would lose. */
size_t writer_pending_bytes(const struct writer *writer);

/* Ends the current frame and writes everything to the file, so that a reader of the growing file
 * sees whole frames. Nothing pending: does nothing. EINTR and short writes are retried. */
bool writer_flush(struct writer *writer, struct error *err);

/* Flushes, syncs a regular file, closes. Always frees, also when it returns false. NULL is fine.
 * Compressed output that never got a byte becomes one empty frame, so that it is valid zstd.
 * EPIPE comes back as ERROR_IO with writer_is_broken_pipe true before the close. */
bool writer_close(struct writer *writer, struct error *err);

/* True after a write failed with EPIPE: the reader went away, which is not worth a message. */
bool writer_is_broken_pipe(const struct writer *writer);

#endif
