/* Walks a file group by group. Bytes wait in input[] until they are decoded, or copied, into text:
 *
 *     fd --read--> input[] --zstd, or up to a newline--> text
 *
 * Reading, not mapping: a file that somebody shortens meanwhile must not end the process. */
#include "base/frames.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/stream.h"

static const char magic[] = {'\x28', '\xB5', '\x2F', '\xFD'};

struct frames {
    char *path; /* for messages */
    int fd;
    ZSTD_DStream *zstd; /* NULL: plain */
    int64_t n_read;     /* bytes of the file that went through input[] */
    size_t input_index; /* bytes [input_index, n_input) wait */
    size_t n_input;
    char *text; /* [n_text_max] on the heap: the group's content so far */
    size_t n_text, n_text_max;
    char input[STREAM_CHUNK_BYTES];
};

/* ---- open, close ---- */

void frames_close(struct frames *frames)
{
    if (frames == NULL) return;
    assert(frames->input_index <= frames->n_input);
    if (frames->fd >= 0) close(frames->fd);
    ZSTD_freeDStream(frames->zstd);
    free(frames->text);
    free(frames->path);
    free(frames);
}

bool frames_is_zstd(const char *path)
{
    char start[sizeof magic];
    size_t n = strlen(path);
    assert(n > 0);
    if (n > 4 && strcmp(path + n - 4, ".zst") == 0) return true;
    struct stat status;
    int fd = stat(path, &status) == 0 && S_ISREG(status.st_mode) ? stream_open_fd(path) : -1;
    if (fd < 0) return false;
    bool is_zstd =
        stream_read_at(fd, start, sizeof start, 0) == sizeof start &&
        (memcmp(start, magic, sizeof magic) == 0 || memcmp(start, FRAMES_MARK, sizeof magic) == 0);
    close(fd);
    return is_zstd;
}

bool frames_open(struct frames **frames, const char *path, bool is_zstd, struct error *err)
{
    assert(path != NULL);
    struct frames *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read");
    opened->path = strdup(path);
    opened->zstd = is_zstd ? ZSTD_createDStream() : NULL;
    opened->fd = stream_open_fd(path);
    bool is_ok = opened->path != NULL && (opened->zstd != NULL || !is_zstd);
    if (!is_ok) error_set(err, ERROR_UNAVAILABLE, "not enough memory to read %s", path);
    else if (opened->fd < 0)
        is_ok = error_set(err, ERROR_NO_INPUT, "cannot read %s: %s", path, strerror(errno));
    if (is_ok) *frames = opened;
    else frames_close(opened);
    return is_ok;
}

/* ---- groups ---- */

static bool fail_read(const struct frames *frames, struct error *err)
{
    assert(frames->fd >= 0);
    return error_set(err, ERROR_IO, "reading %s failed: %s", frames->path, strerror(errno));
}

static int64_t offset(const struct frames *frames)
{
    assert(frames->input_index <= frames->n_input);
    return frames->n_read - (int64_t)(frames->n_input - frames->input_index);
}

/* What waits in input[] is not read again: lines near each other are often asked for in turn. */
bool frames_seek(struct frames *frames, int64_t begin_bytes, struct error *err)
{
    int64_t first_bytes = frames->n_read - (int64_t)frames->n_input;
    assert(begin_bytes >= 0);
    if (begin_bytes >= first_bytes && begin_bytes <= frames->n_read) {
        frames->input_index = (size_t)(begin_bytes - first_bytes);
        return true;
    }
    if (lseek(frames->fd, begin_bytes, SEEK_SET) < 0) return fail_read(frames, err);
    frames->n_read = begin_bytes;
    frames->n_input = frames->input_index = 0;
    return true;
}

/* No bytes then: the file's end. */
static bool refill(struct frames *frames, struct error *err)
{
    assert(frames->input_index == frames->n_input);
    ssize_t n;
    do {
        n = read(frames->fd, frames->input, sizeof frames->input);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return fail_read(frames, err);
    frames->input_index = 0;
    frames->n_input = (size_t)n;
    frames->n_read += n;
    return true;
}

/* Makes room for `n` bytes more. */
static bool reserve(struct frames *frames, size_t n, struct error *err)
{
    assert(n <= STREAM_CHUNK_BYTES);
    if (frames->n_text > FRAMES_CONTENT_BYTES_MAX)
        return error_set(
            err, ERROR_FORMAT,
            "%s: what ends near byte %lld holds more than %zu MiB, and no answer does; "
            "if somebody packed it anew, 'zstd -d' makes a file that can be read",
            frames->path, (long long)offset(frames), FRAMES_CONTENT_BYTES_MAX >> 20);
    if (frames->n_text_max - frames->n_text >= n) return true;
    size_t n_max = 2 * frames->n_text_max + STREAM_CHUNK_BYTES;
    size_t n_most = FRAMES_CONTENT_BYTES_MAX + STREAM_CHUNK_BYTES;
    if (n_max > n_most) n_max = n_most;
    char *text = realloc(frames->text, n_max);
    if (text == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read %s", frames->path);
    frames->text = text;
    frames->n_text_max = n_max;
    return true;
}

/* zstd allocates while it decodes, and that it could not says nothing about the frame. */
static bool is_memory_error(size_t hint)
{
    assert(ZSTD_isError(hint));
    return ZSTD_getErrorCode(hint) == ZSTD_error_memory_allocation;
}

static enum frames_status next_frame(struct frames *frames, struct error *err)
{
    assert(frames->zstd != NULL);
    ZSTD_initDStream(frames->zstd);
    for (bool is_begun = false, is_held_back = false;; is_begun = true) {
        bool is_empty = frames->input_index == frames->n_input;
        if (is_empty && !is_held_back && !refill(frames, err)) return FRAMES_FAILED;
        if (frames->n_input == 0) return is_begun ? FRAMES_BROKEN : FRAMES_END;
        if (!reserve(frames, STREAM_CHUNK_BYTES, err)) return FRAMES_FAILED;
        ZSTD_inBuffer in = {frames->input, frames->n_input, frames->input_index};
        ZSTD_outBuffer out = {frames->text, frames->n_text_max, frames->n_text};
        size_t hint = ZSTD_decompressStream(frames->zstd, &out, &in);
        frames->n_text = out.pos;
        frames->input_index = in.pos;
        is_held_back = out.pos == out.size;
        if (ZSTD_isError(hint) && is_memory_error(hint)) {
            error_set(err, ERROR_UNAVAILABLE, "not enough memory to read %s", frames->path);
            return FRAMES_FAILED;
        }
        if (ZSTD_isError(hint)) return FRAMES_BROKEN;
        if (hint == 0) return FRAMES_GROUP;
    }
}

/* Zeros in a line were never written: JSON has none. */
static enum frames_status next_line(struct frames *frames, struct error *err)
{
    assert(frames->zstd == NULL);
    for (;;) {
        bool is_empty = frames->input_index == frames->n_input;
        if (is_empty && !refill(frames, err)) return FRAMES_FAILED;
        if (frames->n_input == 0) return frames->n_text > 0 ? FRAMES_BROKEN : FRAMES_END;
        const char *start = frames->input + frames->input_index;
        size_t n = frames->n_input - frames->input_index;
        const char *newline = memchr(start, '\n', n);
        if (newline != NULL) n = (size_t)(newline - start) + 1;
        if (!reserve(frames, n, err)) return FRAMES_FAILED;
        memcpy(frames->text + frames->n_text, start, n);
        frames->n_text += n;
        frames->input_index += n;
        if (newline == NULL) continue;
        return memchr(frames->text, 0, frames->n_text) != NULL ? FRAMES_BROKEN : FRAMES_GROUP;
    }
}

enum frames_status frames_next(struct frames *frames, struct frames_group *group, struct error *err)
{
    frames->n_text = 0;
    group->begin_bytes = offset(frames);
    enum frames_status status =
        frames->zstd != NULL ? next_frame(frames, err) : next_line(frames, err);
    group->content = (struct bytes){.data = frames->text, .n = frames->n_text};
    group->end_bytes = offset(frames);
    assert(group->end_bytes >= group->begin_bytes);
    return status;
}

/* ---- around a broken group ---- */

bool frames_start(struct frames *frames, struct bytes *start, struct error *err)
{
    frames->n_text = 0;
    if (!reserve(frames, STREAM_CHUNK_BYTES, err)) return false;
    ssize_t n = stream_read_at(frames->fd, frames->text, STREAM_CHUNK_BYTES, 0);
    if (n < 0) return fail_read(frames, err);
    assert(n <= STREAM_CHUNK_BYTES);
    *start = (struct bytes){.data = frames->text, .n = (size_t)n};
    return true;
}

/* Whether a whole frame stands at the start of `data`; for want of memory, or when the bytes that
 * went in and out are more than any write leaves, whether one might. */
static bool holds_frame(struct frames *frames, const char *data, size_t n, size_t *n_left)
{
    ZSTD_inBuffer in = {data, n, 0};
    assert(frames->n_text_max > 0);
    ZSTD_initDStream(frames->zstd);
    for (;;) {
        ZSTD_outBuffer out = {frames->text, frames->n_text_max, 0};
        size_t begin = in.pos, hint = ZSTD_decompressStream(frames->zstd, &out, &in);
        if (ZSTD_isError(hint)) return is_memory_error(hint);
        if (hint == 0) return true;
        if (in.pos == in.size && out.pos < out.size) return false;
        if (in.pos - begin + out.pos > *n_left) return true;
        *n_left -= in.pos - begin + out.pos;
    }
}

/* Behind the first byte, which is a broken frame's. */
static bool find_frame(struct frames *frames, const char *data, size_t n)
{
    assert(n > 0);
    const char *end = data + n, *at = data + 1;
    size_t n_left = FRAMES_CONTENT_BYTES_MAX;
    while ((at = memmem(at, (size_t)(end - at), magic, sizeof magic)) != NULL) {
        if (holds_frame(frames, at, (size_t)(end - at), &n_left)) return true;
        at++;
    }
    return false;
}

/* Behind the first newline, which ends a broken line: an object's braces, and no zeros. */
static bool find_line(const char *data, size_t n)
{
    assert(n > 0);
    const char *end = data + n, *line = memchr(data, '\n', n);
    while (line != NULL) {
        line++;
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        if (newline == NULL) return false;
        size_t n_line = (size_t)(newline - line);
        bool is_object = n_line > 2 && line[0] == '{' && line[1] == '"' && newline[-1] == '}';
        if (is_object && memchr(line, 0, n_line) == NULL) return true;
        line = newline;
    }
    return false;
}

bool frames_tail(struct frames *frames, int64_t begin_bytes, int64_t *n_bytes, bool *goes_on,
                 struct error *err)
{
    struct stat file;
    assert(begin_bytes >= 0);
    *goes_on = false;
    if (fstat(frames->fd, &file) != 0) return fail_read(frames, err);
    *n_bytes = file.st_size > begin_bytes ? file.st_size - begin_bytes : 0;
    if (*n_bytes == 0 || *n_bytes > FRAMES_TAIL_BYTES_MAX) return true;
    size_t n = (size_t)*n_bytes;
    char *tail = malloc(n);
    if (tail == NULL || !reserve(frames, STREAM_CHUNK_BYTES, NULL)) {
        free(tail);
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read %s", frames->path);
    }
    bool is_read = stream_read_at(frames->fd, tail, n, begin_bytes) == *n_bytes;
    if (is_read) *goes_on = frames->zstd != NULL ? find_frame(frames, tail, n) : find_line(tail, n);
    free(tail);
    return is_read || fail_read(frames, err);
}
