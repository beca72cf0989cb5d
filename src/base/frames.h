/* A growing file that ends where its writer was stopped, verified from the front: groups are whole
 * and right, or they are not there. A group is a zstd frame with its checksum, or, in a plain file,
 * a line. A power cut may leave half a group, or zeros where bytes were to be. */
#ifndef BASE_FRAMES_H
#define BASE_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

#define FRAMES_CONTENT_BYTES_MAX ((size_t)256 << 20) /* a group that holds more is refused */
#define FRAMES_TAIL_BYTES_MAX    ((int64_t)32 << 20) /* what a broken write can have left */

/* A zstd file of ours may begin with this (writer_options.mark), for zstd a frame to skip: of a
 * frame that is torn nothing can be read, so without it nobody could tell whose the start was. */
#define FRAMES_MARK       "\x50\x2A\x4D\x18\x10\0\0\0dllm-batch file\n"
#define FRAMES_MARK_BYTES (sizeof FRAMES_MARK - 1)

struct frames;

enum frames_status {
    FRAMES_GROUP,  /* a whole group */
    FRAMES_END,    /* the file ends behind the last one */
    FRAMES_BROKEN, /* bytes follow that are no whole group */
    FRAMES_FAILED, /* err says why: I/O error, too large a group */
};

struct frames_group {
    struct bytes content;           /* decoded, newlines included; borrowed until the next call */
    int64_t begin_bytes, end_bytes; /* in the file; where a broken group ends nobody knows */
};

/* Whether a file is to be read as zstd: its name ends in .zst, or it begins as a frame does. Where
 * something is to be written behind what is read, the name decides alone (app/output.h). */
bool frames_is_zstd(const char *path);

/* Opens a regular file. Heap; close it. False: ERROR_NO_INPUT or ERROR_UNAVAILABLE. */
bool frames_open(struct frames **frames, const char *path, bool is_zstd, struct error *err);
void frames_close(struct frames *frames); /* NULL is fine */

/* Goes to where a group is known to begin. False: ERROR_IO. */
bool frames_seek(struct frames *frames, int64_t begin_bytes, struct error *err);

/* The next group. After anything but FRAMES_GROUP do not call again. */
enum frames_status frames_next(struct frames *frames, struct frames_group *group,
                               struct error *err);

/* The file's first bytes as they lie there, at most STREAM_CHUNK_BYTES (base/stream.h); borrowed
 * until the next call. False: err. */
bool frames_start(struct frames *frames, struct bytes *start, struct error *err);

/* The bytes from `begin_bytes`, where a group is broken, to the file's end; and whether a whole
 * group lies somewhere in them, which no broken write leaves. More than FRAMES_TAIL_BYTES_MAX are
 * not searched. False: err. */
bool frames_tail(struct frames *frames, int64_t begin_bytes, int64_t *n_bytes, bool *goes_on,
                 struct error *err);

#endif
