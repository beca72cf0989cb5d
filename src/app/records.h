/* The output of a run read back: one record for each answer, and their figures. Both forms of lines
 * are known, plain ones and the OpenAI envelope; dllm-batch(5) specifies them. */
#ifndef APP_RECORDS_H
#define APP_RECORDS_H

#include <stdbool.h>
#include <stdint.h>

#include "app/figures.h"
#include "base/error.h"

/* One answer; times in seconds since the first run's start, negative: did not happen. Time in which
 * no run was at work, as before a preempted job is started again, is left out. */
struct record {
    int32_t run;               /* that gave it */
    double n_prompt, n_tokens; /* tokens, up to the stop */
    double refresh_steps, reuse_steps;
    double positions; /* computed for it; negative: the line does not say */
    double arrival_s; /* scheduled, in a replay; else when the line was read */
    double first_forward_s, first_block_s, finished_s;
    double latency_s, queue_s, block_s; /* since arrival: finished, first forward, first block */
};

/* Forward passes: sums, and a percentage for each of those whose time was predicted. */
struct iterations {
    int64_t n, n_errors;
    double took_s, predicted_s;
    double *errors; /* [n_errors], |predicted / took - 1| in percent; heap */
};

/* A run that wrote into the file, or a shard's that was merged. */
struct run_span {
    int64_t start_unix_ns;
    double begin_s, end_s; /* its first arrival and last finish, since its start */
    double offset_s;       /* of its start, in the records' time */
};

struct records {
    const char *path;      /* borrowed */
    struct run_span *runs; /* [n_runs], heap */
    int32_t n_runs;
    int64_t n, n_max, n_failed;
    struct record *items; /* [n], heap */
    /* Figures of them all, if there are any. */
    double begin_s, end_s; /* first arrival, last finish */
    double n_tokens, refresh_steps, reuse_steps;
    double positions; /* negative: some line does not say */
    struct figures_spread prompt, tokens, latency_s, queue_s, block_s;
    struct iterations passes; /* of a file of iterations, or zeros */
};

/* Reads a file, plain or compressed, of answers or of iterations (run --iterations), and takes the
 * figures. Free with records_free, also after a failure. False: ERROR_NO_INPUT, or ERROR_FORMAT
 * naming file, line and key. */
bool records_read(struct records *records, const char *path, struct error *err);
void records_free(struct records *records);

#endif
