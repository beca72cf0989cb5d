/* dLLM-Serve's scheduler as its authors describe it (arXiv 2512.17077): admission in
 * order of arrival while memory for the largest block is free, which is then held to the end; each
 * iteration is packed in order of admission, and the first request that does not fit ends it. */
#include <assert.h>

#include "plan/planner_parts.h"

#define RUNNING_MAX 512 /* their max_num_seqs */

/* `ready` is a queue of those not admitted, in order of arrival; `running` those admitted. */
void policy_fcfs_ready(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    assert(member->state == MEMBER_READY);
    if (member->is_held_over) member->state = MEMBER_RUNNING; /* its next block */
    else planner->ready[planner->n_ready++] = number;
}

static bool admit(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    int64_t n = phases_most_slots(member->phases);
    assert(member->n == 0);
    struct extent_time time = {.from = planner->index, .until = EXTENT_OPEN};
    if (n > 0) {
        member->begin = extents_place(planner->extents, n, planner->index, time);
        if (member->begin < 0) return false;
    }
    member->n = n;
    member->time = time;
    member->is_held_over = true;
    member->state = MEMBER_RUNNING;
    planner->running[planner->n_running++] = number;
    return true;
}

static void drop_ended(struct planner *planner)
{
    int32_t n = 0;
    assert(planner->n_running >= 0);
    for (int32_t i = 0; i < planner->n_running; i++)
        if (planner->members[planner->running[i]].state != MEMBER_ENDED)
            planner->running[n++] = planner->running[i];
    planner->n_running = n;
}

static void admit_in_order(struct planner *planner)
{
    int32_t most =
        planner->options.n_running_max > 0 ? planner->options.n_running_max : RUNNING_MAX;
    int32_t n = 0;
    while (n < planner->n_ready && planner->n_running < most && admit(planner, planner->ready[n]))
        n++;
    assert(n <= planner->n_ready);
    planner->n_ready -= n;
    for (int32_t i = 0; n > 0 && i < planner->n_ready; i++)
        planner->ready[i] = planner->ready[i + n];
}

void policy_fcfs_choose(struct planner *planner, struct plan_iteration *iteration)
{
    assert(iteration->n_items == 0);
    drop_ended(planner);
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
