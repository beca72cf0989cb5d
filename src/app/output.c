/* Where answers go, in which order, and when they are flushed. */
#include "app/output.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/lock.h"
#include "base/clock.h"
#include "base/stream.h"

/* ---- where ---- */

static bool has_suffix(const char *path, size_t n, const char *suffix)
{
    assert(suffix[0] != '\0');
    size_t n_suffix = strlen(suffix);
    return n > n_suffix && memcmp(path + n - n_suffix, suffix, n_suffix) == 0;
}

static bool choose_path(struct output_place *place, const struct options *options,
                        struct error *err)
{
    const char *input = options->operand != NULL ? options->operand : "-";
    bool is_given = options_is_set(options, OPTION_output);
    if (is_given && options->output[0] == '\0')
        return error_set(err, ERROR_USAGE, "--output is empty, must be a file name or '-'");
    const char *name = is_given ? options->output : input;
    bool is_named = is_given || strcmp(input, "-") == 0;
    const char *suffix = options->no_compress ? ".out.jsonl" : ".out.jsonl.zst";
    size_t n_name = is_named ? strlen(name) : shard_stem_bytes(name);
    int n = snprintf(place->path, sizeof place->path, "%.*s%s",
                     (int)(n_name < INT32_MAX ? n_name : INT32_MAX), name, is_named ? "" : suffix);
    if (n < 0 || (size_t)n >= sizeof place->path)
        return error_set(err, ERROR_CREATE, "the output's name is longer than %zu bytes",
                         sizeof place->path - 1);
    return true;
}

bool output_number(const struct shard *shard, const char *path, char *name, struct error *err)
{
    struct stat status;
    assert(path != name);
    bool is_special =
        stat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
    const struct shard whole = {.count = 1};
    if (shard_name(is_special ? &whole : shard, path, name, OUTPUT_PATH_BYTES_MAX)) return true;
    return error_set(err, ERROR_CREATE, "the output's name is longer than %d bytes",
                     OUTPUT_PATH_BYTES_MAX - 1);
}

static bool choose_compression(struct output_place *place, const struct options *options,
                               struct error *err)
{
    assert(place->path[0] != '\0');
    size_t n = strlen(place->path);
    if (strcmp(place->path, "-") == 0) {
        place->compress = !options->no_compress && isatty(STDOUT_FILENO) == 0;
        return true;
    }
    place->compress = has_suffix(place->path, n, ".zst");
    if (has_suffix(place->path, n, ".gz"))
        return error_set(err, ERROR_USAGE, "%s: gzip is not written, use a name that ends in .zst",
                         place->path);
    if (place->compress && options->no_compress)
        return error_set(err, ERROR_USAGE,
                         "%s is to be compressed by its name, but --no-compress "
                         "is given",
                         place->path);
    return true;
}

static bool check_directory(const char *path, struct error *err)
{
    assert(strlen(path) < OUTPUT_PATH_BYTES_MAX);
    char directory[OUTPUT_PATH_BYTES_MAX];
    strcpy(directory, path);
    char *slash = strrchr(directory, '/');
    struct stat status;
    if (slash == NULL) return true;
    slash[slash == directory ? 1 : 0] = '\0';
    if (stat(directory, &status) != 0)
        return error_set(err, ERROR_CREATE, "cannot create %s: its directory: %s", path,
                         strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return error_set(err, ERROR_CREATE, "cannot create %s: %s is no directory", path,
                         directory);
    return true;
}

/* Before minutes of loading, what can be told beforehand. */
static bool check_file(struct output_place *place, const struct options *options, struct error *err)
{
    struct stat status, input_status;
    const char *input = options->operand;
    place->is_file = stat(place->path, &status) != 0;
    if (place->is_file) return check_directory(place->path, err);
    if (S_ISDIR(status.st_mode))
        return error_set(err, ERROR_CREATE, "cannot create %s: it is a directory", place->path);
    bool has_input = input != NULL && strcmp(input, "-") != 0 && stat(input, &input_status) == 0;
    if (has_input && S_ISREG(status.st_mode) && status.st_dev == input_status.st_dev &&
        status.st_ino == input_status.st_ino)
        return error_set(err, ERROR_CREATE, "%s is the input, answers must go elsewhere",
                         place->path);
    place->is_file = S_ISREG(status.st_mode);
    place->exists = place->is_file && !place->overwrite;
    if (place->exists && options->subcommand != SUBCOMMAND_RUN)
        return error_set(err, ERROR_CREATE, "%s exists already; use -f to overwrite it",
                         place->path);
    return true;
}

bool output_choose(struct output_place *place, const struct options *options,
                   const struct shard *shard, struct error *err)
{
    assert(place != NULL);
    /* A dry run writes nothing, so it may name what exists. */
    *place = (struct output_place){.overwrite = options->force || options->dry_run};
    if (!choose_path(place, options, err)) return false;
    strcpy(place->whole, place->path);
    return output_number(shard, place->whole, place->path, err) &&
           choose_compression(place, options, err) &&
           (strcmp(place->path, "-") == 0 || check_file(place, options, err));
}

bool output_lock(struct output_place *place, const struct options *options, struct report *report,
                 struct error *err)
{
    struct lock *lock = NULL;
    assert(place->lock == NULL);
    if (!place->is_file) return true;
    if (!lock_take(&lock, place->path, report, err)) return false;
    place->lock = lock;
    place->exists = false;
    return check_file(place, options, err);
}

/* ---- writing ---- */

struct output {
    pthread_mutex_t mutex;      /* recursive: the functions below call each other */
    struct output_place *place; /* borrowed */
    struct writer *writer;
    uint64_t flushed_ns, flush_every_ns;
    int64_t n_written; /* lines, headers apart */
    bool ordered;
    char **slots;                       /* [n_slots] lines that wait for earlier ones; heap */
    int32_t n_slots, n_slots_max, next; /* slots before `next` are written */
};

/* A run that slept for long may have lost its file to another, whose answers must not suffer. */
static bool may_write(struct output *output, struct error *err)
{
    struct error failure = {0};
    assert(output->writer != NULL);
    struct lock *lock = output->place->lock;
    if (lock == NULL || lock_renew(lock, &failure)) return true;
    writer_give_up(output->writer, &failure);
    *err = failure;
    return false;
}

bool output_flush(struct output *output, struct error *err)
{
    assert(output->writer != NULL);
    pthread_mutex_lock(&output->mutex);
    output->flushed_ns = clock_now_ns();
    bool is_ok = may_write(output, err) && writer_flush(output->writer, err);
    if (is_ok) output->place->n_safe = output->n_written;
    pthread_mutex_unlock(&output->mutex);
    return is_ok;
}

/* A line that is no answer, in a frame of its own. */
static bool write_apart(struct output *output, const char *line, struct error *err)
{
    assert(line[0] == '{');
    return output_flush(output, err) &&
           writer_append_line(output->writer, line, strlen(line), err) && output_flush(output, err);
}

bool output_open(struct output **output, struct output_place *place, const struct options *options,
                 const char *header, struct error *err)
{
    assert(place->path[0] != '\0');
    struct output *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to write");
    *opened = (struct output){.place = place,
                              .ordered = options->ordered,
                              .flushed_ns = clock_now_ns(),
                              .flush_every_ns = (uint64_t)(options->flush_every * 1e9)};
    const struct writer_options writer_options = {.path = place->path,
                                                  .compress = place->compress,
                                                  .overwrite = place->overwrite,
                                                  .append = place->exists,
                                                  .keep_bytes = place->keep_bytes,
                                                  .mark = header != NULL,
                                                  .sync = true};
    if (!writer_open(&opened->writer, &writer_options, err)) {
        free(opened);
        return false;
    }
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&opened->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    if (header != NULL && !write_apart(opened, header, err)) {
        writer_close(opened->writer, NULL);
        free(opened);
        return false;
    }
    *output = opened;
    return true;
}

bool output_tick(struct output *output, struct error *err)
{
    assert(output != NULL);
    size_t n_pending = writer_pending_bytes(output->writer);
    bool is_due = n_pending > 0 && clock_now_ns() - output->flushed_ns >= output->flush_every_ns;
    return !is_due || output_flush(output, err);
}

/* Takes the line. */
static bool write_line(struct output *output, char *line, struct error *err)
{
    assert(line != NULL);
    pthread_mutex_lock(&output->mutex);
    bool is_ok =
        may_write(output, err) && writer_append_line(output->writer, line, strlen(line), err);
    free(line);
    output->n_written += is_ok;
    bool is_full = writer_pending_bytes(output->writer) >= OUTPUT_GROUP_BYTES;
    is_ok = is_ok && (is_full ? output_flush(output, err) : output_tick(output, err));
    pthread_mutex_unlock(&output->mutex);
    return is_ok;
}

/* Writes waiting lines up to the first gap, or all of them. */
static bool drain(struct output *output, bool beyond_gaps, struct error *err)
{
    assert(output->next <= output->n_slots);
    for (; output->next < output->n_slots; output->next++) {
        char *line = output->slots[output->next];
        if (line == NULL && !beyond_gaps) return true;
        output->slots[output->next] = NULL;
        if (line != NULL && !write_line(output, line, err)) return false;
    }
    return true;
}

bool output_start_window(struct output *output, int32_t n_slots, struct error *err)
{
    assert(n_slots >= 0);
    if (!output->ordered) return true;
    pthread_mutex_lock(&output->mutex);
    bool is_ok = drain(output, true, err);
    if (is_ok) output->n_slots = output->next = 0;
    pthread_mutex_unlock(&output->mutex);
    if (!is_ok) return false;
    if (n_slots > output->n_slots_max) {
        free(output->slots);
        output->n_slots_max = 0;
        output->slots = calloc((size_t)n_slots, sizeof *output->slots);
        if (output->slots == NULL)
            return error_set(err, ERROR_UNAVAILABLE, "not enough memory to order %d lines",
                             n_slots);
        output->n_slots_max = n_slots;
    }
    pthread_mutex_lock(&output->mutex);
    output->n_slots = n_slots;
    pthread_mutex_unlock(&output->mutex);
    return true;
}

bool output_put(struct output *output, int32_t slot, char *line, struct error *err)
{
    assert(line != NULL);
    if (!output->ordered) return write_line(output, line, err);
    assert(slot >= output->next);
    assert(slot < output->n_slots);
    assert(output->slots[slot] == NULL);
    pthread_mutex_lock(&output->mutex);
    output->slots[slot] = line;
    bool is_ok = drain(output, false, err);
    pthread_mutex_unlock(&output->mutex);
    return is_ok;
}

void output_rescue(struct output *output)
{
    struct error ignored = {0}; /* the next run finds what was not written */
    pthread_mutex_lock(&output->mutex);
    assert(output->next <= output->n_slots);
    if (drain(output, true, &ignored)) output_flush(output, &ignored);
}

bool output_close(struct output *output, const char *manifest, bool *is_broken_pipe,
                  struct error *err)
{
    assert(output->next <= output->n_slots);
    bool is_ok = drain(output, true, err) && output_flush(output, err);
    if (is_ok && manifest != NULL) is_ok = write_apart(output, manifest, err);
    *is_broken_pipe = writer_is_broken_pipe(output->writer);
    /* The first failure is the one to tell. */
    struct error ignored = {0};
    is_ok = writer_close(output->writer, is_ok ? err : &ignored) && is_ok;
    for (int32_t i = output->next; i < output->n_slots; i++)
        free(output->slots[i]);
    pthread_mutex_destroy(&output->mutex);
    free(output->slots);
    free(output);
    return is_ok;
}
