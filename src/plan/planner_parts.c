/* The heap of those that are ready, slots and turns, and what is known about stops. */
#include "plan/planner_parts.h"

#include <assert.h>

/* ---- ready: a heap by key, then number ---- */

static bool is_before(const struct planner *planner, int32_t a, int32_t b)
{
    double key_a = planner->members[a].key, key_b = planner->members[b].key;
    return key_a < key_b || (key_a == key_b && a < b);
}

void planner_push(struct planner *planner, int32_t number)
{
    int32_t *heap = planner->ready, i = planner->n_ready++;
    assert(i < planner->options.n_requests_max);
    for (; i > 0 && is_before(planner, number, heap[(i - 1) / 2]); i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = number;
}

int32_t planner_pop(struct planner *planner)
{
    int32_t *heap = planner->ready, n = --planner->n_ready, first = heap[0], last = heap[n];
    assert(n >= 0);
    int32_t i = 0;
    for (int32_t child = 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && is_before(planner, heap[child + 1], heap[child])) child++;
        if (!is_before(planner, heap[child], last)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return first;
}

void planner_withdraw(struct planner *planner, int32_t number)
{
    int32_t *heap = planner->ready, i = 0;
    while (heap[i] != number)
        i++;
    assert(i < planner->n_ready);
    for (; i > 0; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[0] = number;
    int32_t first = planner_pop(planner);
    assert(first == number);
}

/* ---- running ---- */

bool planner_admit(struct planner *planner, int32_t number, int64_t n, struct extent_time time)
{
    struct member *member = &planner->members[number];
    assert(member->state == MEMBER_READY);
    if (!member->is_held_over) {
        member->begin = n > 0 ? extents_place(planner->extents, n, planner->index, time) : 0;
        if (member->begin < 0) return false;
        member->n = n;
        planner->n_holding += n > 0;
        member->time = time;
        member->is_held_over = time.until == EXTENT_OPEN;
    }
    member->state = MEMBER_RUNNING;
    planner->running[planner->n_running++] = number;
    return true;
}

bool planner_admit_for_good(struct planner *planner, int32_t number)
{
    int64_t n = phases_most_slots(planner->members[number].phases);
    assert(!planner->members[number].is_held_over);
    return planner_admit(planner, number, n, (struct extent_time){planner->index, EXTENT_OPEN});
}

void planner_drop(struct planner *planner, int32_t number)
{
    int32_t n = 0;
    for (int32_t i = 0; i < planner->n_running; i++)
        if (planner->running[i] != number) planner->running[n++] = planner->running[i];
    assert(n + 1 == planner->n_running);
    planner->n_running = n;
}

/* ---- stops ---- */

double planner_blocks_ahead(const struct planner *planner, const struct phases *phases,
                            int32_t block)
{
    const struct endings *endings = &planner->endings;
    double expected = 0, survives = 1, least = phases->n_blocks - block;
    double usual = (double)endings->n_stopped_all / ((double)endings->n_entered_all + 1);
    assert(block < phases->n_blocks);
    for (int32_t b = block; b < phases->n_blocks; b++) {
        int32_t i = b < PLANNER_BLOCKS_MAX ? b : PLANNER_BLOCKS_MAX - 1;
        bool is_last = b + 1 == phases->n_blocks;
        expected += survives;
        /* One imagined request that went the usual way: few observations decide little, and blocks
         * that nobody has reached yet are worth a try. */
        survives *=
            1 - ((double)endings->n_stopped[i] + usual) / ((double)endings->n_entered[i] + 1);
        double ended = is_last ? 1 : 1 - survives;
        if (expected < least * ended) least = expected / ended;
    }
    return least;
}
