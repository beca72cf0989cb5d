/* What becomes of a request's steps when no model runs: fixed quotas commit what they say,
 * open-ended blocks so many tokens a step, from left to right. Private to plan/: simulation and
 * checker must agree on it. */
#ifndef PLAN_WORLD_H
#define PLAN_WORLD_H

#include "plan/plan.h"

struct world_request {
    const struct phases *phases;
    int32_t stop_after;      /* generated tokens; INT32_MAX: none */
    double tokens_per_step;  /* of open-ended blocks */
    int32_t block, step;     /* steps of the block that are done */
    int32_t n_start, n_left; /* masks of the block: at its start, and now */
    int32_t n_before;        /* generated tokens before the block */
    double credit;           /* open-ended: tokens earned but not committed */
};

void world_start(struct world_request *request, const struct plan_input *input, int32_t index);

/* Takes the request's next step. */
enum step_outcome world_step(struct world_request *request);

/* Tokens up to the stop, or all. */
int32_t world_tokens(const struct world_request *request);

#endif
