/* Runs requests on one model, iteration by iteration as the planner decides: rows of many requests
 * in one ragged batch, then forward, score, commit, and what came of it goes back to the planner.
 * Knows token ids, not text. */
#ifndef ENGINE_EXECUTOR_H
#define ENGINE_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "model/model.h"
#include "plan/cost.h"
#include "plan/phases.h"
#include "plan/planner.h"
#include "plan/request.h"

struct executor;

/* Sizes that fix the executor's memory; a request that needs more is refused by executor_check. */
struct executor_limits {
    struct planner_options planning; /* rows, requests of one executor_run (the window), slots */
    bool monolithic_logits;          /* engine_options */
    int64_t n_cells_max;             /* sum of the window's canvases (twins counted) */
    const struct cost_model *cost;   /* of this machine, borrowed; NULL: nothing is predicted */
};

/* An iteration that is over: from deciding it to giving the answers that it completed. */
struct executor_iteration {
    uint64_t begin_ns, end_ns, predicted_ns; /* the last: 0 without a cost model */
    struct iteration_load load;
    int64_t n_refresh_rows, n_pad_rows; /* of its rows */
    int64_t n_slots;                    /* KV slots held, per layer */
};

/* Where finished work goes, and how a run is stopped. `context` is handed back. */
struct executor_events {
    void *context;
    /* An answer is complete, or its request cannot go on (answer->failure); called in the order of
     * completion, from the caller's thread. False stops the run with `err`. */
    bool (*answered)(void *context, const struct answer *answer, struct error *err);
    /* After every iteration; false: stop now. Unfinished requests simply have no answer. */
    bool (*iterated)(void *context, const struct executor_iteration *iteration);
    /* Nothing can be computed before `until_ns`; returns then, or earlier. False: stop now. NULL:
     * no request has an arrival. */
    bool (*waited)(void *context, uint64_t until_ns);
    const struct planner_options *chosen; /* the policy for these requests; NULL: as before */
};

#define EXECUTOR_ERRORS 201

/* Totals since create. */
struct executor_counts {
    int64_t n_iterations;                         /* forwards */
    int64_t n_positions;                          /* rows fed through the layers, padding counted */
    int64_t n_refresh_positions, n_pad_positions; /* of them; the rest is Reuse */
    int64_t n_slots_peak;                         /* most KV slots held at a time, per layer */
    int64_t n_surprises;                 /* steps that ended otherwise than the plan expected */
    int64_t n_picks;                     /* rows that met the vocabulary */
    int64_t n_commits;                   /* tokens committed */
    uint64_t iterations_ns, compute_ns;  /* time that they took; inside the backend */
    uint64_t planning_ns;                /* time that deciding them took */
    uint64_t predicted_ns;               /* what the cost model says of them; 0 without one */
    int64_t n_by_error[EXECUTOR_ERRORS]; /* iterations by |predicted - actual| / actual, in whole
                                            percents; the last: and more */
};

/* What phases_init is to know of a model. */
struct phases_model executor_phases_model(const struct model_config *config);

/* Everything the executor ever needs is taken here, from `run` and the backend's scratch region. */
bool executor_create(struct executor **executor, struct model *model,
                     const struct executor_limits *limits, struct arena *run, struct error *err);

/* Checks a request against the model and the limits: token ids in range, length, settings. False:
 * ERROR_FORMAT with the reason; such a request must not be run. */
bool executor_check(const struct executor *executor, const struct request *request,
                    struct error *err);

/* Runs all requests (each has passed executor_check), in order of arrival, to their answers. False:
 * a failure of the run (ERROR_STOPPED when iterated or waited said so). */
bool executor_run(struct executor *executor, const struct request *requests, int32_t n_requests,
                  const struct executor_events *events, struct error *err);

struct executor_counts executor_counts(const struct executor *executor);

#endif
