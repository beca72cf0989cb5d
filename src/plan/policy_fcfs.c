/* dLLM-Serve's scheduler as its authors describe it (arXiv 2512.17077): admission in
 * order of arrival while memory for the largest block is free, which is then held to the end; each
 * iteration is packed in order of admission, and the first request that does not fit ends it. */
#include <assert.h>

#include "plan/planner_parts.h"

#define RUNNING_MAX 512 /* their max_num_seqs */

/* `ready` has those not admitted, in order of arrival; `running` those admitted. */
void policy_fcfs_ready(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    assert(member->state == MEMBER_READY);
    member->key = number;
    if (member->is_held_over) member->state = MEMBER_RUNNING; /* its next block */
    else planner_push(planner, number);
}

static void admit_in_order(struct planner *planner)
{
    int32_t most =
        planner->options.n_running_max > 0 ? planner->options.n_running_max : RUNNING_MAX;
    assert(most > 0);
    while (planner->n_ready > 0 && planner->n_running < most) {
        int32_t number = planner_pop(planner);
        if (planner_admit_for_good(planner, number)) continue;
        planner_push(planner, number);
        return;
    }
}

void policy_fcfs_choose(struct planner *planner, struct plan_iteration *iteration)
{
    assert(iteration->n_items == 0);
    admit_in_order(planner);
    for (int32_t i = 0; i < planner->n_running; i++) {
        int32_t n_rows = iteration->n_rows;
        planner_add_item(planner, planner->running[i], iteration);
        if (iteration->n_rows <= planner->options.n_rows_max) continue;
        iteration->n_items--;
        iteration->n_rows = n_rows;
        return;
    }
}
