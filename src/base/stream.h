/* Lines in, bytes out: a file, a standard stream, plain, zstd or gzip. What is inside is recognised
 * by its first bytes, not by its name; the caller cannot tell the difference. */
#ifndef BASE_STREAM_H
#define BASE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/arena.h"
#include "base/error.h"

/* ---- decoded bytes (stream.c) ---- */

struct stream;

/* The largest read; zstd's largest block comes out of it in one piece. */
enum { STREAM_CHUNK_BYTES = 128 * 1024 };

/* Opens `path` ("-" is standard input). Plain, .zst (several frames, skippable ones too) or .gz
 * (several members) by magic, which is looked at by the first read. Heap; close it. */
bool stream_open(struct stream **stream, const char *path, struct error *err);
void stream_close(struct stream *stream);

/* The next bytes, at most n_bytes_max <= STREAM_CHUNK_BYTES, as soon as there are any; 0 bytes mean
 * the end. False: the rest is lost; do not read on. */
bool stream_read(struct stream *stream, char *target, size_t n_bytes_max, size_t *n_bytes,
                 struct error *err);

/* Waits until stream_read would tell bytes, the end or a failure at once: a file does, a pipe when
 * its writer has written. False: `hurry_fd` could be read while there was nothing. Compressed data
 * that stops inside a block may still keep stream_read waiting. */
bool stream_wait(struct stream *stream, int hurry_fd);

/* Opens a file for reading, past interruptions, and waits for no pipe's writer; -1: errno says why
 * not. */
int stream_open_fd(const char *path);
/* At most `n` bytes from byte `begin` on, fewer at the file's end only; -1: errno says why. */
ssize_t stream_read_at(int fd, void *target, size_t n, int64_t begin);

/* Whether the name is there, be it that of a link which leads nowhere: then it is an error to read
 * it, not a file that is left out. */
bool stream_is_named(const char *path);

/* Reads a whole small file (JSON, say) into `arena`, NUL-terminated; refuses > bytes_max. */
bool stream_read_file(const char *path, size_t bytes_max, struct arena *arena,
                      struct bytes *content, struct error *err);

/* The same of a folder that came from elsewhere: a pipe or a device, whose reading might never end,
 * is refused, and so is a link that leads nowhere (ERROR_NO_INPUT). */
bool stream_read_regular(const char *path, size_t bytes_max, struct arena *arena,
                         struct bytes *content, struct error *err);

/* ---- lines (line_reader.c) ---- */

struct line_reader;

enum line_status {
    LINE_READ,     /* a line, without its "\n" or "\r\n"; the last one may lack the newline */
    LINE_TOO_LONG, /* longer than line_bytes_max; it was skipped, the next call goes on after it */
    LINE_END,      /* end of input */
    LINE_FAILED,   /* err says why: I/O error, damaged or torn compressed data */
};

/* Opens `path` like a stream. Heap; close it. A line holds at most `line_bytes_max` bytes. A
 * byte-order mark at the start is dropped. */
bool line_reader_open(struct line_reader **reader, const char *path, size_t line_bytes_max,
                      struct error *err);
void line_reader_close(struct line_reader *reader); /* NULL is fine */

/* The next line; `line` is borrowed until the next call (it is followed by a NUL in memory). Lines
 * before the place of a failure are read; then every call tells the same failure. */
enum line_status line_reader_next(struct line_reader *reader, struct bytes *line,
                                  struct error *err);

/* Waits until line_reader_next would tell a line, the end or a failure at once; reads what arrives
 * meanwhile, so the line borrowed last is gone. False: `hurry_fd` could be read before there was
 * one. Only after the first line, where a byte-order mark may stand. */
bool line_reader_wait(struct line_reader *reader, int hurry_fd);

/* ---- bytes out (writer.c) ---- */

struct writer;

struct writer_options {
    const char *path; /* "-" is standard output */
    bool compress;    /* zstd level 3, checksummed frames */
    bool overwrite;   /* an existing regular file is truncated; else refused with ERROR_CREATE */
    bool append;      /* an existing file keeps its first `keep_bytes`, and is written on there */
    int64_t keep_bytes;
    bool mark; /* a compressed file begins with FRAMES_MARK (base/frames.h) */
    bool sync; /* each flush of a regular file makes it durable */
};

/* Devices and pipes are opened whether `overwrite` says so or not. Heap; close it. The program must
 * ignore SIGPIPE. */
bool writer_open(struct writer **writer, const struct writer_options *options, struct error *err);

/* Appends bytes to the current frame. Buffered; may write. Once a write has failed, this and every
 * later call tell that failure and write nothing. */
bool writer_append(struct writer *writer, const char *data, size_t n, struct error *err);

/* The same for a line, which gets its newline. */
bool writer_append_line(struct writer *writer, const char *line, size_t n, struct error *err);

/* Bytes appended since the last flush: what a crash would lose. */
size_t writer_pending_bytes(const struct writer *writer);

/* Ends the current frame and writes everything to the file, so that a reader of the growing file
 * sees whole frames, also after a power cut with `sync`. Nothing pending: does nothing. EINTR and
 * short writes are retried. */
bool writer_flush(struct writer *writer, struct error *err);

/* Writes nothing any more, what is pending neither: every later call tells the failure `why`. */
void writer_give_up(struct writer *writer, const struct error *why);

/* Flushes, syncs a regular file, closes. Always frees, also when it returns false. NULL is fine.
 * Compressed output that never got a byte becomes one empty frame, so that it is valid zstd.
 * EPIPE comes back as ERROR_IO with writer_is_broken_pipe true before the close. */
bool writer_close(struct writer *writer, struct error *err);

/* True after a write failed with EPIPE: the reader went away, which is not worth a message. */
bool writer_is_broken_pipe(const struct writer *writer);

#endif
