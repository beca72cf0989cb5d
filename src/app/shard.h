/* One of several runs that share an input: which of them this is, what its files are called, and
 * which lines are its own. Pure: the environment is looked up through a function, and a partition
 * depends on places and costs alone, so every run of a job finds the same one by itself. Shards are
 * counted from 0, as the ranks of schedulers are. dllm-batch(1) specifies the rules. */
#ifndef APP_SHARD_H
#define APP_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

#define SHARD_COUNT_MAX        99999
#define SHARD_ORIGIN_BYTES_MAX 256
#define SHARD_LINES_MAX        UINT32_MAX

/* Plain data; zeroed but for `count` 1 it is the whole. */
struct shard {
    int32_t index, count; /* index < count; count 1: all lines are ours, names stay as they are */
    bool is_found;        /* the environment said so, not the command line */
    char origin[SHARD_ORIGIN_BYTES_MAX]; /* found: "SLURM_ARRAY_TASK_ID=6, SLURM_PROCID=1" */
    const uint64_t *mine; /* bits, one a line; borrowed. NULL: lines are shared out by their ids */
    int64_t n_lines, n_mine; /* with `mine`: lines of the input, and our own */
    double imbalance;        /* with `mine`: of the fullest shard, over the mean, less 1 */
};

/* ---- which shard ---- */

/* The value of an environment variable, or NULL: getenv. An empty one counts as absent. */
typedef char *shard_lookup(const char *name);

/* Decides by the value of --shard: "i/n", "off", or "auto", which asks the environment. There,
 * DLLM_SHARD is like --shard. Else the first scheduler or launcher whose variables make more than
 * one shard counts: Slurm (a job array, a step of srun, or both multiplied; outside of srun a
 * step's variables do not count), Kubernetes, AWS Batch, Google Batch, Grid Engine, LSF, Flux, MPI,
 * torchrun, GNU parallel.
 * DLLM_SHARDS says the number of shards where a scheduler does not; where one does, both must
 * agree. False: ERROR_USAGE, naming variable and value: no number, an index that is not below its
 * count, an array with gaps, an index without a count, two launchers that contradict each other. */
bool shard_choose(struct shard *shard, const char *value, shard_lookup *lookup, struct error *err);

/* ---- names ---- */

/* Bytes of `path` without ".zst" or ".gz" and without the suffix before it. */
size_t shard_stem_bytes(const char *path);

/* Writes `path` with ".00003-of-00008" behind its stem. As it is: "-", and for the whole. False: it
 * does not fit. */
bool shard_name(const struct shard *shard, const char *path, char *name, size_t name_bytes_max);

/* The shard whose file a name is, as shard_name makes them. False, and nothing is touched: it is
 * that of no shard. */
bool shard_read_name(const char *path, int32_t *index, int32_t *count);

/* Whether files that have numbers of shards in their names are all of one output's, whatever other
 * files are among them. False: *missing of *count is none of them. */
bool shard_are_all(const char *const *paths, int32_t n_paths, int32_t *missing, int32_t *count);

/* ---- which lines ---- */

/* What a partition needs of a line. Seven digits of a cost are more than anyone can foresee. */
struct shard_line {
    float cost;     /* in any unit; 0: there is nothing to compute */
    uint32_t place; /* counted from 0 among the lines that are not blank */
};

/* Shares the lines out by cost: the most expensive one first, each to the shard that has least;
 * among equals the earlier line, and the lower shard. Lines without cost go by place modulo count.
 * Fills `mine`, which is pushed on `keep`, and the counts. `lines` [n_lines] is sorted in place.
 * False: out of memory. */
bool shard_partition(struct shard *shard, struct shard_line *lines, int64_t n_lines,
                     struct arena *keep, struct error *err);

/* Whether the line at `place` is ours: by the partition if there is one (place < n_lines), else by
 * its id's hash modulo count; by its place if the id is not known (hash 0). */
bool shard_has(const struct shard *shard, int64_t place, uint64_t id_hash);

#endif
