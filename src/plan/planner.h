/* Decides iterations, one after the other: which requests take a step, and where their extents lie.
 * One state machine with three policies behind it, driven alike by the simulation
 * that makes a plan ahead of time (plan/plan.h), by replay on the virtual clock and by the
 * executor.
 *
 *     add requests ──► next: items of iteration t ──► (somebody computes) ──► report each item ──►
 * next
 *
 * It knows lengths, phases and arrivals, never an answer: what came of a step is reported. As long
 * as reports are what was expected, what it decides is the plan that the simulation printed; from
 * the first other report on, the same rules decide from the state reached. Deterministic.
 *
 * POLICY_STATIC   batches of requests of similar prompts in lockstep, padded to the longest, rows
 * of finished requests computed on, the next batch when the last one ends. POLICY_FCFS dLLM-Serve's
 * scheduler (arXiv 2512.17077): in order of arrival; the first request that does not fit ends the
 * packing; KV is held from admission to the end. POLICY_PLANNED  ours: a request holds memory only
 * from the step that selects to its block's last one, is parked between blocks, and starts a block
 * when the rows of all its coming steps and its extents fit beside those already promised; others
 * go ahead of one that does not fit. Which goes first is the objective's choice. */
#ifndef PLAN_PLANNER_H
#define PLAN_PLANNER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "plan/phases.h"

enum policy { POLICY_STATIC, POLICY_FCFS, POLICY_PLANNED };

enum objective {
    OBJECTIVE_MAKESPAN, /* longest remaining chain first, so that all end together */
    OBJECTIVE_MEAN,     /* least work for a likely end first, by the ends that were seen */
    OBJECTIVE_TAIL,     /* in order of arrival; nobody passes, nobody is parked */
};

struct planner_options {
    enum policy policy;
    enum objective objective;
    int32_t n_rows_max;     /* rows of an iteration, twins and padding counted */
    int32_t n_requests_max; /* that planner_add may bring */
    int32_t n_running_max;  /* static: size of a batch; fcfs: requests admitted; 0: no limit */
    int64_t n_slots;        /* of the KV pool, per layer */
    int32_t n_rows_target;  /* planned: starts blocks below so many rows; 0: n_rows_max */
    double tokens_per_step; /* expected of open-ended blocks (threshold, factor); at least 1 */
    /* Mechanisms that can be switched off, for ablations. All false: the policy as it is meant. */
    bool no_parking;    /* planned: a request keeps its turn and its slots from block to block */
    bool no_backfill;   /* planned: the first that does not fit ends the choice */
    bool no_promises;   /* planned: extents are held from a block's first step on */
    bool no_staggering; /* planned: all of a block's iterations have room for its widest step */
};

/* Most steps of one block. */
#define PLANNER_STEPS_MAX 8192

struct planner;

/* A request as the planner sees it. */
struct planner_request {
    const struct phases *phases; /* borrowed until the planner is reset */
    uint64_t arrival_ns;         /* not before; 0: at once */
    int32_t first_block;         /* infill: the first one with masks; else 0 */
};

/* One request's step in an iteration. Slots count per canvas: a twin's extents lie directly behind.
 */
struct plan_item {
    int32_t request, block, step; /* step: forwards that the block has had before */
    struct step_shape shape;      /* of that step */
    int64_t prompt_begin;         /* first slot of the prompt's extent, or -1 */
    int64_t kept_begin;           /* first slot of the kept extent, or -1 */
};

struct plan_iteration {
    int64_t index;
    int32_t n_items;
    struct plan_item *items; /* [n_items], borrowed until the next call */
    int32_t n_rows;          /* of the items, twins counted */
    int32_t n_pad_rows;      /* static: computed for nothing besides */
    bool awaits_arrivals;    /* a request that was added has not arrived */
};

enum planner_status {
    PLANNER_ITERATION, /* there is work now */
    PLANNER_IDLE, /* nothing has arrived that is not finished; ask again at `next_arrival_ns` */
    PLANNER_DONE, /* every request has ended */
};

enum step_outcome {
    STEP_GOES_ON, /* the block has masks left */
    STEP_BLOCK,   /* the block is complete, the next one with masks follows */
    STEP_END,     /* the request is complete: its last block, or a stop */
};

/* Takes all it ever needs from `arena`. */
void planner_create(struct planner **planner, const struct planner_options *options,
                    struct arena *arena);

/* Forgets all requests: the next window. `options`: by another policy, objective, row target or
 * batch size, as the best candidate for the window had them (plan_make_best); NULL: as before. Room
 * and slots stay as they were. */
void planner_reset(struct planner *planner, const struct planner_options *options);

/* Whether a request can ever run: its rows and its extents alone fit. False: ERROR_FORMAT with
 * what it needs and which option (--rows, --kv-memory) allows it. */
bool planner_check(const struct planner_options *options, const struct phases *phases,
                   struct error *err);

/* Adds a request that passed planner_check; returns its number, 0, 1, ... Requests come in order of
 * arrival. More may be added between iterations (--online). */
int32_t planner_add(struct planner *planner, const struct planner_request *request);

/* Decides the next iteration at time `now_ns`. */
enum planner_status planner_next(struct planner *planner, uint64_t now_ns,
                                 struct plan_iteration *iteration, uint64_t *next_arrival_ns);

/* What came of an item of the last iteration; every item is reported, in any order. `next_block`
 * with STEP_BLOCK: the block that follows. */
void planner_report(struct planner *planner, int32_t request, enum step_outcome outcome,
                    int32_t next_block);

/* The request has ended in a step of `block` that was reported to go on, or to complete it: a stop
 * that was seen late. has_item: it took a step in vain in the last iteration, which is thereby
 * reported; else it has none in an iteration that is not reported. */
void planner_end(struct planner *planner, int32_t request, int32_t block, bool has_item);

/* Blocks that were complete before all their steps, and requests that ended before all blocks. */
int64_t planner_surprises(const struct planner *planner);

/* Slots held or promised now. */
int64_t planner_slots_held(const struct planner *planner);

#endif
