/* A schedule as data: made ahead of time by running a planner against expectations, printed, saved,
 * drawn, compared, checked. The world that answers the planner is a parameter: what is expected
 * (the plan), or the stops that a trace gives (replay on the virtual clock).
 *
 *     runs        request 3 block 0 steps 0..31 iterations 17..48 kept at slot 4096
 *     iterations  start, end, rows by phase, slots held
 *     requests    arrival, first iteration, end, steps, positions, tokens
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
    int32_t n_rows, n_refresh_rows, n_pad_rows, n_items; /* n_rows: without padding */
    int64_t slots_held;
};

struct plan_request_record {
    uint64_t arrival_ns, first_ns, finished_ns; /* first: start of its first iteration */
    uint64_t first_commit_ns, first_block_ns;   /* ends of its first step and of its first block */
    int32_t refresh_steps, reuse_steps, blocks;
    int32_t n_tokens; /* up to the stop */
    int64_t positions;
};

struct plan {
    struct planner_options options;
    int32_t n_requests;
    int64_t n_runs, n_iterations;
    struct plan_run *runs;                    /* [n_runs] in order of iteration_begin */
    struct plan_iteration_record *iterations; /* [n_iterations] */
    struct plan_request_record *requests;     /* [n_requests] */
    struct iteration_load total;              /* padding counted */
    int64_t n_refresh_rows, n_pad_rows, n_tokens, n_slots_peak;
    uint64_t makespan_ns; /* end of the last iteration */
    int64_t n_surprises;
    struct arena run_arena, iteration_arena, request_arena; /* hold the arrays */
};

/* What a plan is made of; all borrowed. */
struct plan_input {
    struct planner_options options;
    const struct cost_model *cost;
    int32_t n_requests;
    const struct phases *phases; /* [n_requests], in order of arrival; no infill */
    const uint64_t *arrival_ns;  /* [n_requests], or NULL: all at once */
    const int32_t *stop_after;   /* [n_requests] generated tokens up to the stop, which the world
                                    knows and the planner does not; NULL: none stops */
    double tokens_per_step;      /* of open-ended blocks, in the world; at least 1 */
    bool keeps_runs;             /* else `runs` stays NULL: sums, iterations and requests only */
    bool is_online;              /* the planner hears of a request when it arrives */
};

/* Runs the planner to the end of all requests on the cost model's clock. A stop counts when as many
 * tokens are committed as lead to it: blocks are taken to be committed from left to right. Caller's
 * struct, to be cleared. False: ERROR_FORMAT for a request that can never run (planner_check),
 * ERROR_UNAVAILABLE for want of memory. */
bool plan_make(struct plan *plan, const struct plan_input *input, struct error *err);
void plan_clear(struct plan *plan); /* a zeroed struct is fine */

/* A plan of no iterations, with room for the records of input->n_requests requests, to be filled
 * with what another clock showed: the caller adds up the sums. */
bool plan_open(struct plan *plan, const struct plan_input *input, struct error *err);
/* Its next iteration, zeroed. */
struct plan_iteration_record *plan_add_iteration(struct plan *plan);

/* Several candidates: row targets for POLICY_PLANNED, batch sizes for POLICY_STATIC. Keeps the one
 * that the objective likes best; under POLICY_PLANNED also fcfs and static are tried, so as far as
 * all ends as foreseen it is never worse than they are. `plan->options` says which it is.
 * Candidates are judged by the first requests where there are very many, and without stops; online,
 * where arrivals are not known either, there is one. But static, which others are compared with,
 * gets the size that is best in hindsight. */
bool plan_make_best(struct plan *plan, const struct plan_input *input, struct error *err);

/* Latencies from arrival to end. */
struct plan_latency {
    double mean_s, p50_s, p90_s, p99_s, max_s;
};
struct plan_latency plan_latency(const struct plan *plan, struct arena *scratch);

/* No schedule ends before: what arrives at some time or later is not begun before it, so that time
 * and the bound of cost.h on that work, for the time that gives most. */
struct plan_bounds {
    uint64_t plain_ns, memory_ns; /* memory: with the input's rows and slots counted */
    struct cost_totals totals;    /* of all steps that the world will take */
};
void plan_bounds(struct plan_bounds *bounds, const struct plan_input *input);

/* Adds all steps of one block of a request with `n_masked` masks, as the world takes them: all its
 * cells, or those to be filled in. Takes far less time than going from step to step. */
void plan_add_block(struct iteration_load *load, const struct phases *phases, int32_t block_index,
                    int32_t n_masked, double tokens_per_step);

/* Proves, for a plan with runs: each request's steps in order, exactly once, up to where the world
 * ends it; rows <= n_rows_max in each iteration; live extents never overlap and fit the pool;
 * nothing starts before its arrival; every request ends; iterations follow one another, each as
 * long as the cost model says, and requests start and end with theirs. False: ERROR_FORMAT, what is
 * broken and where. */
bool plan_check(const struct plan *plan, const struct plan_input *input, struct arena *scratch,
                struct error *err);

#endif
