/* Ours. A request is in a block, a step in every iteration until the block is complete, or it is
 * parked between two blocks and holds nothing but its token ids (with a kept prompt: parked freely
 * where the prompt is new, else it holds its extent and goes first). Since the steps of a block are
 * known when it begins, so are the rows of all coming iterations: a block begins where its own fit
 * beside those promised, which staggers Refreshes; and extents may be promised before they are
 * free.
 *
 * No deadlock: what outlives a block holds all that its next blocks need, and goes first; without
 * such, an idle machine is an empty pool, in which any request fits. */
#include <assert.h>
#include <string.h>

#include "plan/planner_parts.h"

#define LOOK_AHEAD 16 /* that do not fit, before the choice of an iteration ends */
#define HELD_OVER  (-1e300)

/* ---- rows ---- */

static int32_t *promised_at(struct planner *planner, int64_t index)
{
    return &planner->promised[index % PLANNER_STEPS_MAX];
}

/* Its first step has the most rows. */
static int32_t rows_of(const struct planner *planner, const struct member *member, int32_t step)
{
    struct step_shape shape;
    phases_step(member->phases, member->block, planner->options.no_staggering ? 0 : step, &shape);
    assert(shape.n_rows > 0);
    return shape.n_rows * member->phases->n_twins;
}

/* ---- the order of turns ---- */

static double work_left(const struct planner *planner, const struct member *member)
{
    int32_t n_full = member->phases->delay + 1, n_steps = member->n_steps;
    if (n_full > n_steps) n_full = n_steps;
    assert(n_steps > 0);
    double n_rows = (double)n_full * rows_of(planner, member, 0) +
                    (double)(n_steps - n_full) * rows_of(planner, member, n_steps - 1);
    return n_rows * planner_blocks_ahead(planner, member->phases, member->block);
}

static double key_of(const struct planner *planner, int32_t number)
{
    const struct member *member = &planner->members[number];
    if (member->is_held_over) return HELD_OVER;
    switch (planner->options.objective) {
    case OBJECTIVE_MAKESPAN:
        return -(double)(member->phases->n_blocks - member->block) * member->n_steps;
    case OBJECTIVE_MEAN: return work_left(planner, member);
    case OBJECTIVE_TAIL: return number;
    }
    assert(false && "no such objective");
    return 0;
}

void policy_planned_ready(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    assert(member->state == MEMBER_READY);
    member->key = key_of(planner, number);
    planner_push(planner, number);
}

/* ---- beginning a block ---- */

static bool rows_fit(struct planner *planner, const struct member *member)
{
    assert(member->n_steps <= PLANNER_STEPS_MAX);
    for (int32_t step = 0; step < member->n_steps; step++) {
        int32_t promised = *promised_at(planner, planner->index + step);
        if (promised + rows_of(planner, member, step) > planner->options.n_rows_max) return false;
        /* Behind the last promise, nothing else is. */
        if (promised == 0 && step > 0 && planner->n_running == 0) break;
    }
    return true;
}

/* Adds the rows of steps [begin, n_steps), the first of them at iteration `index`. */
static void promise(struct planner *planner, const struct member *member, int32_t begin,
                    int64_t index, int32_t sign)
{
    assert(sign == 1 || sign == -1);
    for (int32_t step = begin; step < member->n_steps; step++, index++)
        *promised_at(planner, index) += sign * rows_of(planner, member, step);
}

void policy_planned_shorten(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    assert(member->step <= member->n_steps);
    promise(planner, member, member->step, planner->index, -1);
    planner_drop(planner, number);
}

/* Blocks that keep nothing beyond themselves hold their extent from the step that selects to the
 * last one; others hold one for the largest of the blocks that share it. */
static bool start(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    const struct phases *phases = member->phases;
    bool outlives = phases_prompt_slots(phases) > 0 || planner->options.no_parking;
    int64_t n = outlives ? phases_most_slots(phases) : phases_block_slots(phases, member->block);
    struct extent_time time = {planner->index + phases->delay, planner->index + member->n_steps};
    assert(member->n_steps > 0);
    if (!outlives && phases->delay + 1 >= member->n_steps) n = 0; /* nothing would see it */
    if (outlives) time.until = EXTENT_OPEN;
    if (outlives || planner->options.no_promises) time.from = planner->index;
    if (!rows_fit(planner, member) || !planner_admit(planner, number, n, time)) return false;
    promise(planner, member, 0, planner->index, 1);
    return true;
}

/* Keys are as old as what was known when they were made: all anew once a quarter more is known. */
static void renew_keys(struct planner *planner)
{
    struct endings *endings = &planner->endings;
    int32_t n = planner->n_ready;
    if (planner->options.objective != OBJECTIVE_MEAN) return;
    if (endings->n_entered_all < endings->n_known + endings->n_known / 4 + 1) return;
    assert(n <= planner->options.n_requests_max);
    endings->n_known = endings->n_entered_all;
    memcpy(planner->aside, planner->ready, (size_t)n * sizeof *planner->aside);
    planner->n_ready = 0;
    for (int32_t i = 0; i < n; i++)
        policy_planned_ready(planner, planner->aside[i]);
}

static void start_all(struct planner *planner)
{
    const struct planner_options *options = &planner->options;
    const int32_t *promised = promised_at(planner, planner->index);
    int32_t target = options->n_rows_target > 0 ? options->n_rows_target : options->n_rows_max;
    int32_t n_aside = 0;
    while (planner->n_ready > 0 && n_aside < LOOK_AHEAD && *promised < target) {
        int32_t number = planner_pop(planner);
        if (start(planner, number)) continue;
        planner->aside[n_aside++] = number;
        if (options->no_backfill) break;
    }
    assert(n_aside <= LOOK_AHEAD);
    for (int32_t i = 0; i < n_aside; i++)
        planner_push(planner, planner->aside[i]);
}

void policy_planned_choose(struct planner *planner, struct plan_iteration *iteration)
{
    assert(iteration->n_items == 0);
    renew_keys(planner);
    start_all(planner);
    for (int32_t i = 0; i < planner->n_running; i++)
        planner_add_item(planner, planner->running[i], iteration);
    assert(iteration->n_rows <= *promised_at(planner, planner->index));
    *promised_at(planner, planner->index) = 0;
}
