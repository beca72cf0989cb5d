/* Answers to JSON lines in a growing file. A line is written as soon as its answer is complete;
 * lines go out in groups, each a zstd frame of its own and durable once it is written, so that a
 * reader of the file sees whole frames. dllm-batch(5) specifies the lines. */
#ifndef APP_OUTPUT_H
#define APP_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "app/options.h"
#include "app/prompts.h"
#include "app/report.h"
#include "app/shard.h"
#include "base/arena.h"
#include "base/error.h"
#include "plan/request.h"
#include "text/tokenizer.h"

#define OUTPUT_PATH_BYTES_MAX 4096
#define OUTPUT_GROUP_BYTES    ((size_t)64 << 10) /* 64-256 lines: a frame each costs 6-12 % */

/* ---- where ---- */

struct output_place {
    char path[OUTPUT_PATH_BYTES_MAX];  /* "-" is standard output */
    char whole[OUTPUT_PATH_BYTES_MAX]; /* what it would be called without shards */
    bool compress, overwrite;
    bool is_file;              /* neither standard output nor a pipe or device */
    bool exists;               /* the file may be gone on with: it holds its first `keep_bytes`, */
    int64_t keep_bytes;        /* which the caller finds out (app/resume.h); output_choose says 0 */
    struct lock *_Atomic lock; /* of output_lock; the caller releases it (app/lock.h) */
    _Atomic int64_t n_safe;    /* lines, headers apart, that were written and synced since */
};

/* Writes the name that a shard's file `path` has to `name` [OUTPUT_PATH_BYTES_MAX]; devices and
 * pipes that exist keep theirs. False: ERROR_CREATE, it is too long. */
bool output_number(const struct shard *shard, const char *path, char *name, struct error *err);

/* Decides by -o, --no-compress, -f, the input's name and the shard. False: ERROR_USAGE for flags
 * that contradict each other, ERROR_CREATE for a file that is the input or has no directory, or
 * exists (of run: `exists` says so). Creates nothing. */
bool output_choose(struct output_place *place, const struct options *options,
                   const struct shard *shard, struct error *err);

/* Keeps other runs away from a file (app/lock.h), waiting for one that may be dead, and then looks
 * again: it may have changed what is there. Before the file is read; nothing to do for what is no
 * file. False: as lock_take and output_choose. */
bool output_lock(struct output_place *place, const struct options *options, struct report *report,
                 struct error *err);

/* ---- lines ---- */

/* What lines depend on besides prompt and answer. */
struct output_style {
    const struct tokenizer *tokenizer; /* NULL: text is null */
    const char *model_name;            /* for the OpenAI envelope */
    bool token_ids;
    uint64_t start_unix_ns, start_ns; /* of the run: wall clock, and monotonic */
};

/* The JSON line of an answer, or of a prompt that has none (`answer` NULL): NUL-terminated without
 * newline, valid UTF-8. Heap; the caller frees it. NULL: out of memory. `scratch` is rewound. */
char *output_line(const struct output_style *style, const struct prompt *prompt,
                  const struct answer *answer, struct arena *scratch);

/* ---- writing: by one thread, and rescued by another ---- */

struct output;

/* Creates the file, or goes on with it. `options`: ordered (lines go out in the order of their
 * slots), flush_every. `header`: a line that goes first and at once, or NULL. Heap; close it. The
 * place is borrowed; once its lock is lost, nothing more is written, and every call fails. */
bool output_open(struct output **output, struct output_place *place, const struct options *options,
                 const char *header, struct error *err);

/* Begins a window of `n_slots` lines, after everything that is left of the one before. */
bool output_start_window(struct output *output, int32_t n_slots, struct error *err);

/* Takes a line (heap, not NULL) for slot `slot` of the window. */
bool output_put(struct output *output, int32_t slot, char *line, struct error *err);

/* Flushes what has been waiting for flush_every; cheap enough for every iteration. */
bool output_tick(struct output *output, struct error *err);

/* Writes everything out in a frame of its own: before a wait of unknown length. */
bool output_flush(struct output *output, struct error *err);

/* From another thread, before the process ends without output_close: writes out what is done, the
 * lines behind gaps too. Every other call waits from now on, for ever. */
void output_rescue(struct output *output);

/* Writes what is left, the lines behind gaps too, behind it the line `manifest` (NULL: none), and
 * closes. Always frees. `is_broken_pipe`: the failure is only that the reader went away. */
bool output_close(struct output *output, const char *manifest, bool *is_broken_pipe,
                  struct error *err);

#endif
