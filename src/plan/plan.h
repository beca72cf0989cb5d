/* A schedule as data: made ahead of time by running a planner against expectations, printed, saved,
 * drawn, compared, checked. The world that answers the planner is a parameter: what is expected
 * (the plan), the stops that a trace gives (replay on the virtual clock), or the engine.
 *
 * A run is consecutive steps of one block in consecutive iterations: the unit in which plans are
 * kept, so that 100,000 requests of 256 steps fit a gigabyte. */
#ifndef PLAN_PLAN_H
#define PLAN_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "plan/cost.h"
#include "plan/planner.h"

struct plan_run {
    int32_t request, block;
    int32_t step_begin, n_steps;
    int64_t iteration_begin;
    int64_t prompt_begin, kept_begin; /* first slots, or -1 */
};

struct plan_iteration_record {
    uint64_t start_ns, end_ns;
    int32_t n_rows, n_refresh_rows, n_pad_rows, n_items;
    int64_t slots_held;
};

struct plan_request_record {
    uint64_t arrival_ns, first_ns, finished_ns; /* finished 0: never */
    int32_t refresh_steps, reuse_steps;
    int64_t positions;
    int32_t n_tokens; /* committed up to the stop */
};

/* Arrays live in the arena that made the plan. */
struct plan {
    struct planner_options options;
    int32_t n_requests;
    int64_t n_runs, n_iterations;
    struct plan_run *runs;                    /* ordered by iteration_begin; NULL: not kept */
    struct plan_iteration_record *iterations; /* NULL: not kept */
    struct plan_request_record *requests;     /* [n_requests] */
    struct iteration_load total;              /* padding counted */
    int64_t n_refresh_rows, n_pad_rows, n_tokens;
    uint64_t makespan_ns;
    int64_t n_surprises;
};

/* What plan_make works on. */
struct plan_input {
    struct planner_options options;
    const struct cost_model *cost;
    int32_t n_requests;
    const struct phases *phases;       /* [n_requests], in order of arrival */
    const uint64_t *arrival_ns;        /* [n_requests], or NULL: all at once */
    const int32_t *stop_after;         /* [n_requests] generated tokens up to the stop, which the
                                          world knows and the planner does not; NULL: none stops */
    double tokens_per_step;            /* of open-ended blocks, in the world */
    bool keeps_runs, keeps_iterations; /* else only sums and requests */
    bool is_online;                    /* the planner hears of a request when it arrives */
};

/* Runs the planner to the end of all requests on the cost model's clock. False: a request that can
 * never run (planner_check). Memory: `arena` grows with runs and iterations. */
bool plan_make(struct plan *plan, const struct plan_input *input, struct arena *arena,
               struct error *err);

/* For POLICY_PLANNED: several candidates (row targets, orders), the one that the objective likes
 * best, and never worse than static and fcfs. `n_tried` plans were made. */
bool plan_make_best(struct plan *plan, const struct plan_input *input, struct arena *arena,
                    int32_t *n_tried, struct error *err);

/* Proves, for a plan with runs: each request's steps in order, exactly once, up to where the world
 * ended it; rows <= n_rows_max in each iteration; live extents never overlap and fit the pool;
 * nothing starts before its arrival; every request ends. False: ERROR_FORMAT, which one is broken.
 */
bool plan_check(const struct plan *plan, const struct plan_input *input, struct arena *scratch,
                struct error *err);

/* Totals of all steps that the world will take, for cost_bound_ns. */
void plan_totals(struct cost_totals *totals, const struct plan_input *input);

#endif
