/* Runs requests on one model: each iteration packs rows of many requests into one ragged batch,
 * then forward, score, commit; requests leave as they finish and others take their rows. Knows
 * token ids, not text. */
#ifndef ENGINE_EXECUTOR_H
#define ENGINE_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "model/model.h"
#include "plan/request.h"

struct executor;

/* Sizes that fix the executor's memory; a request that needs more is refused by executor_check. */
struct executor_limits {
    int32_t n_rows_max;     /* rows of an iteration */
    int32_t n_requests_max; /* requests of one executor_run: the window */
    int64_t n_cells_max;    /* sum of their canvases (twins counted) */
};

/* Where finished work goes, and how a run is stopped. `context` is handed back. */
struct executor_events {
    void *context;
    /* An answer is complete; called in the order of completion, from the caller's thread. False
     * stops the run with `err`. */
    bool (*answered)(void *context, const struct answer *answer, struct error *err);
    /* After every iteration; false: stop now. Unfinished requests simply have no answer. */
    bool (*iterated)(void *context);
};

/* Totals since create. */
struct executor_counts {
    int64_t n_iterations; /* forwards */
    int64_t n_positions;  /* rows fed through the layers */
    int64_t n_picks;      /* rows that met the vocabulary */
    int64_t n_commits;    /* tokens committed */
    uint64_t compute_ns;  /* time inside iterations */
};

/* Everything the executor ever needs is taken here, from `run` and the backend's scratch region. */
bool executor_create(struct executor **executor, struct model *model,
                     const struct executor_limits *limits, struct arena *run, struct error *err);

/* Checks a request against the model and the limits: token ids in range, length, settings. False:
 * ERROR_FORMAT with the reason; such a request must not be run. */
bool executor_check(const struct executor *executor, const struct request *request,
                    struct error *err);

/* Runs all requests (each has passed executor_check) to their answers. False: a failure of the run
 * (ERROR_STOPPED when iterated said so). */
bool executor_run(struct executor *executor, const struct request *requests, int32_t n_requests,
                  const struct executor_events *events, struct error *err);

struct executor_counts executor_counts(const struct executor *executor);

#endif
