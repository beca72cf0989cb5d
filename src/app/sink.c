/* A stdio stream whose bytes go to a base/writer. */
#include "app/sink.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/stream.h"

struct sink {
    struct writer *writer;
    FILE *file;
    struct error failure; /* the first one */
};

static ssize_t take_bytes(void *cookie, const char *data, size_t n)
{
    struct sink *sink = cookie;
    assert(sink->writer != NULL);
    if (sink->failure.code == ERROR_NONE) writer_append(sink->writer, data, n, &sink->failure);
    return (ssize_t)n; /* told by sink_close */
}

bool sink_open(struct sink **sink, const char *path, bool overwrite, struct error *err)
{
    assert(path[0] != '\0');
    size_t n = strlen(path);
    const struct writer_options options = {.path = path,
                                           .compress = n > 4 && strcmp(path + n - 4, ".zst") == 0,
                                           .overwrite = overwrite};
    struct sink *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to write");
    if (!writer_open(&opened->writer, &options, err)) {
        free(opened);
        return false;
    }
    opened->file = fopencookie(opened, "w", (cookie_io_functions_t){.write = take_bytes});
    *sink = opened;
    if (opened->file != NULL) return true;
    writer_close(opened->writer, NULL);
    free(opened);
    return error_set(err, ERROR_UNAVAILABLE, "not enough memory to write '%s'", path);
}

FILE *sink_file(struct sink *sink)
{
    assert(sink->file != NULL);
    return sink->file;
}

bool sink_close(struct sink *sink, struct error *err)
{
    assert(sink != NULL);
    fclose(sink->file);
    struct error *failure = &sink->failure, later = {0};
    if (failure->code == ERROR_NONE) writer_flush(sink->writer, failure);
    if (writer_is_broken_pipe(sink->writer)) failure->message[0] = '\0';
    bool is_closed = writer_close(sink->writer, &later);
    bool is_ok = is_closed && failure->code == ERROR_NONE;
    if (!is_ok && err != NULL) *err = failure->code != ERROR_NONE ? *failure : later;
    free(sink);
    return is_ok;
}
