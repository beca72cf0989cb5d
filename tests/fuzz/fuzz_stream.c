/* Arbitrary bytes through the line reader and the whole-file reader. The first byte picks the
 * longest line allowed, so that the limit is met often. Whatever comes, lines keep their promises,
 * the reader ends, and a failure has a message. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/stream.h"
#include "fuzz.h"

static void read_lines(const char *path, size_t line_bytes_max)
{
    struct line_reader *reader;
    struct error err = {0};
    require(line_reader_open(&reader, path, line_bytes_max, &err));
    enum line_status status = LINE_READ;
    while (status == LINE_READ || status == LINE_TOO_LONG) {
        struct bytes line = {0};
        status = line_reader_next(reader, &line, &err);
        if (status != LINE_READ) continue;
        require(line.n <= line_bytes_max);
        require(memchr(line.data, '\n', line.n) == NULL);
        require(line.data[line.n] == 0);
    }
    require((status == LINE_FAILED) == (err.code != ERROR_NONE));
    require((status == LINE_FAILED) == (err.message[0] != 0));

    struct bytes line;
    require(line_reader_next(reader, &line, &err) == status);
    line_reader_close(reader);
}

static void read_whole(const char *path)
{
    enum { BYTES_MAX = 1 << 16 };
    struct arena arena;
    struct error err = {0};
    require(arena_create(&arena, BYTES_MAX + 1, &err));
    struct bytes content = {0};
    if (stream_read_file(path, BYTES_MAX, &arena, &content, &err)) {
        require(content.n <= BYTES_MAX);
        require(content.data[content.n] == 0);
    } else {
        require(err.message[0] != 0);
    }
    arena_destroy(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    require(fd >= 0);
    require(write(fd, data + 1, size - 1) == (ssize_t)(size - 1));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    read_lines(path, (size_t)data[0] + 1);
    read_whole(path);
    close(fd);
    return 0;
}
