/* The usual baseline: batches in lockstep, padded to the longest. Those with the longest canvas go
 * first, so that a batch pads little. All members are in the same block; who has completed it
 * waits, and who has ended stays: each place of the batch is computed with as many rows as the
 * widest member's step, until the last member ends. */
#include <assert.h>

#include "plan/planner_parts.h"

void policy_static_ready(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    assert(member->state == MEMBER_READY);
    if (member->is_held_over) return; /* its next block: waits in `running` for the others */
    member->key = -(double)member->phases->n_canvas;
    planner_push(planner, number);
}

/* Whether one more member fits beside n_places of at most `n_rows` rows each. */
static bool fits(const struct planner *planner, int32_t n_places, int32_t n_rows)
{
    const struct planner_options *options = &planner->options;
    assert(n_rows > 0);
    if (options->n_running_max > 0 && n_places >= options->n_running_max) return false;
    return (int64_t)(n_places + 1) * n_rows <= options->n_rows_max;
}

static void start_batch(struct planner *planner)
{
    int32_t n_rows = 0;
    planner->n_running = 0;
    while (planner->n_ready > 0) {
        int32_t number = planner_pop(planner);
        int32_t needed = phases_full_rows(planner->members[number].phases);
        if (needed > n_rows) n_rows = needed;
        if (fits(planner, planner->n_running, n_rows) && planner_admit_for_good(planner, number))
            continue;
        planner_push(planner, number);
        break;
    }
    planner->n_places = planner->n_running;
    assert(planner->n_places > 0 || planner->n_ready == 0);
}

/* The block that the batch is in: the first that somebody has not completed; INT32_MAX: all have
 * ended. */
static int32_t block_of(const struct planner *planner)
{
    int32_t block = INT32_MAX;
    for (int32_t i = 0; i < planner->n_running; i++) {
        const struct member *member = &planner->members[planner->running[i]];
        if (member->state != MEMBER_ENDED && member->block < block) block = member->block;
    }
    return block;
}

void policy_static_choose(struct planner *planner, struct plan_iteration *iteration)
{
    int32_t widest = 0;
    assert(iteration->n_items == 0);
    if (block_of(planner) == INT32_MAX) start_batch(planner);
    int32_t block = block_of(planner);
    for (int32_t i = 0; i < planner->n_running; i++) {
        int32_t number = planner->running[i], n_before = iteration->n_rows;
        struct member *member = &planner->members[number];
        if (member->state == MEMBER_ENDED || member->block != block) continue;
        member->state = MEMBER_RUNNING;
        planner_add_item(planner, number, iteration);
        if (iteration->n_rows - n_before > widest) widest = iteration->n_rows - n_before;
    }
    iteration->n_pad_rows = planner->n_places * widest - iteration->n_rows;
}
