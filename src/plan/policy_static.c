/* The usual baseline: batches in lockstep, padded to the longest. Those that wait are sorted by the
 * length of their canvas, so that a batch pads little. All members are in the same block; who has
 * completed it waits, and who has ended stays: each place of the batch is computed with as many
 * rows as the widest member's step, until the last member ends. */
#include <assert.h>
#include <stdlib.h>

#include "plan/planner_parts.h"

void policy_static_ready(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    assert(member->state == MEMBER_READY);
    if (member->is_held_over) return; /* its next block: waits in `running` for the others */
    planner->ready[planner->n_ready++] = number;
    planner->is_sorted = false;
}

static int32_t canvas_of(const struct planner *planner, int32_t number)
{
    return planner->members[number].phases->n_canvas;
}

/* By canvas, longest last, where batches are taken from; equal ones in order of arrival. Merge sort
 * with `aside` as room. */
static void sort_ready(struct planner *planner)
{
    int32_t n = planner->n_ready, *from = planner->ready, *to = planner->aside;
    for (int32_t width = 1; width < n; width *= 2) {
        for (int32_t begin = 0; begin < n; begin += 2 * width) {
            int32_t middle = begin + width < n ? begin + width : n;
            int32_t end = begin + 2 * width < n ? begin + 2 * width : n;
            int32_t a = begin, b = middle;
            for (int32_t i = begin; i < end; i++) {
                bool takes_a = a < middle && (b >= end || canvas_of(planner, from[a]) <=
                                                              canvas_of(planner, from[b]));
                to[i] = takes_a ? from[a++] : from[b++];
            }
        }
        int32_t *other = from;
        from = to;
        to = other;
    }
    planner->ready = from;
    planner->aside = to;
    planner->is_sorted = true;
}

/* Whether one more member fits beside n_places of at most `n_rows` rows each. */
static bool fits(const struct planner *planner, int32_t n_places, int32_t n_rows)
{
    const struct planner_options *options = &planner->options;
    assert(n_rows > 0);
    if (options->n_running_max > 0 && n_places >= options->n_running_max) return false;
    return (int64_t)(n_places + 1) * n_rows <= options->n_rows_max;
}

static bool take_place(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    int64_t n = phases_most_slots(member->phases);
    struct extent_time time = {.from = planner->index, .until = EXTENT_OPEN};
    assert(member->n == 0);
    if (n > 0) {
        member->begin = extents_place(planner->extents, n, planner->index, time);
        if (member->begin < 0) return false;
    }
    member->n = n;
    member->time = time;
    member->is_held_over = true;
    planner->running[planner->n_running++] = number;
    return true;
}

static void start_batch(struct planner *planner)
{
    int32_t n_rows = 0;
    if (!planner->is_sorted) sort_ready(planner);
    planner->n_running = 0;
    while (planner->n_ready > 0) {
        int32_t number = planner->ready[planner->n_ready - 1];
        int32_t needed = phases_full_rows(planner->members[number].phases);
        if (needed > n_rows) n_rows = needed;
        if (!fits(planner, planner->n_running, n_rows) || !take_place(planner, number)) break;
        planner->n_ready--;
    }
    planner->n_places = planner->n_running;
    assert(planner->n_places > 0 || planner->n_ready == 0);
}

static bool has_ended(const struct planner *planner)
{
    for (int32_t i = 0; i < planner->n_running; i++)
        if (planner->members[planner->running[i]].state != MEMBER_ENDED) return false;
    return true;
}

/* The block that the batch is in: the first that somebody has not completed. */
static int32_t block_of(const struct planner *planner)
{
    int32_t block = INT32_MAX;
    for (int32_t i = 0; i < planner->n_running; i++) {
        const struct member *member = &planner->members[planner->running[i]];
        if (member->state != MEMBER_ENDED && member->block < block) block = member->block;
    }
    assert(block < INT32_MAX);
    return block;
}

void policy_static_choose(struct planner *planner, struct plan_iteration *iteration)
{
    int32_t widest = 0;
    assert(iteration->n_items == 0);
    if (has_ended(planner)) start_batch(planner);
    if (planner->n_running == 0) return;
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
