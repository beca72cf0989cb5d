/* A plan to look at: as a drawing, as data, as a trace for Perfetto (ui.perfetto.dev) and Chrome.
 * dllm-batch(5) specifies the data. */
#ifndef APP_PLAN_VIEW_H
#define APP_PLAN_VIEW_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "plan/plan.h"

/* What is shown; everything borrowed. The plan has runs and iterations, and at least one request.
 */
struct plan_view {
    const struct plan *plan;
    const struct plan_input *input; /* that it was made from */
    const char *model, *profile;    /* names, for titles */
    const struct request *requests; /* [n_requests]; their indexes are shown */
    double efficiency;              /* lower bound / makespan */
};

/* Names as on the command line. */
const char *plan_view_policy_name(enum policy policy);
const char *plan_view_objective_name(enum objective objective);

/* Time on x: rows of the iterations by phase, KV slots, requests as lanes in the order in which
 * they start, several to a lane when there are more than LANES_MAX. False: out of memory. */
bool plan_view_svg(FILE *out, const struct plan_view *view);

/* Requests, iterations and runs, as arrays in one JSON object. True. */
bool plan_view_json(FILE *out, const struct plan_view *view);

/* Chrome trace events: a thread for each request with a slice for each phase of each block, and
 * counters for rows and slots. True. */
bool plan_view_perfetto(FILE *out, const struct plan_view *view);

#endif
