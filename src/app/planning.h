/* What plan and replay share: a model's shape and a device's profile as a cost model, the rows and
 * the KV pool that fit the device, and a plan by each policy that is asked for.
 *
 *     planning_open ──► planning_read ──► planning_size ──► planning_admit ──► planning_make
 */
#ifndef APP_PLANNING_H
#define APP_PLANNING_H

#include <stdbool.h>
#include <stdint.h>

#include "app/options.h"
#include "app/plan_summary.h"
#include "app/prompts.h"
#include "app/window.h"
#include "base/arena.h"
#include "base/error.h"
#include "model/config.h"
#include "plan/memory.h"
#include "plan/plan.h"
#include "text/tokenizer.h"

#define PLANNING_POLICIES 3
#define PLANNING_RESULTS  (1 + PLANNING_POLICIES)

struct planning {
    const struct options *options; /* borrowed */
    struct arena arena;            /* configuration; scratch */
    struct model_config config;
    struct tokenizer *tokenizer; /* NULL: none */
    struct cost_profile profile;
    struct cost_model cost;
    struct memory_shape shape;
    struct memory_plan memory;
    uint64_t memory_limit;
    /* The input. */
    const char *label; /* its name in messages */
    bool is_trace;
    struct prompts *prompts;
    struct window window; /* all its lines, good and bad */
    int64_t n_cells, n_bad;
    struct prompts_trace sums; /* of a trace; refusals that come later are added */
    struct prompts_sum served;
    /* What of it can be served, in order of arrival; arrivals count from the first. */
    struct request *requests; /* [input.n_requests], the window's */
    int32_t *stops;           /* [input.n_requests] as plan_input has them, where a trace says */
    struct plan_input input;  /* knows no stops unless the caller gives it some */
    /* What the caller may put first, then the chosen policy; more with --compare. */
    int32_t n_results;
    struct plan results[PLANNING_RESULTS];
    struct plan_summary summaries[PLANNING_RESULTS];
};

/* Reads model shape, tokenizer and profile that the options name, and checks the flags. Caller's
 * struct, to be closed whatever comes back. */
bool planning_open(struct planning *planning, const struct options *options, struct error *err);

/* Chooses the rows of an iteration and sizes everything for `n_cells` canvas cells; the KV pool
 * gets what is left, or what was asked for. Afterwards requests can be checked with planner_check.
 */
bool planning_size(struct planning *planning, int64_t n_cells, struct error *err);

/* Reads the whole input: a trace or, unless `only_traces`, prompts. `only_shapes`: requests have no
 * ids. */
bool planning_read(struct planning *planning, bool only_traces, bool only_shapes,
                   struct error *err);

/* Fills `input` with the requests that fit the rows and slots in its options; others become bad
 * lines. Arrivals are arranged as the options say and divided by `speed`; their objective is the
 * tail unless another was asked for. False: ERROR_FORMAT, arrivals that cannot be arranged. */
bool planning_admit(struct planning *planning, double speed, struct error *err);

/* Counts a bad line, and tells of the first one. */
void planning_note_bad(struct planning *planning, const struct prompt *prompt);

/* Plans the requests of `input`, which all passed planner_check. The policy of planning never sees
 * stops, nor when it is online arrivals, before they happen; static gets the batch size that turns
 * out best. */
bool planning_make(struct planning *planning, struct error *err);

void planning_close(struct planning *planning); /* a zeroed struct is fine */

#endif
