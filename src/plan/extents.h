/* Places KV extents, planned like registers: intervals over (slots x iterations), no paging. Every
 * extent is one run of slots; since the iterations in which extents die are known, an extent may be
 * promised before its slots are free.
 *
 *     slots     0        n                              n_slots
 *               | A      | B    | free | C ..          |
 *     free at     t+7      t+2    now    t+30            first iteration in which nobody holds it
 *
 * A skyline of runs with the iteration from which each is free. Placement is best fit: of the runs
 * of neighbours that are free in time, the shortest that is long enough. */
#ifndef PLAN_EXTENTS_H
#define PLAN_EXTENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

struct extents;

/* For pools of `n_slots`; at most `n_extents_max` are held or promised at a time. Lives in `arena`;
 * never allocates again. */
void extents_create(struct extents **extents, int64_t n_slots, int32_t n_extents_max,
                    struct arena *arena);

/* Finds `n` slots that are free from iteration `from` on and holds them until iteration `until`
 * (exclusive). Returns the first slot, or -1: no room in time. n 0: returns 0. */
int64_t extents_place(struct extents *extents, int64_t n, int64_t from, int64_t until);

/* The holder of [begin, begin + n) is done before its time: free from iteration `at` on. */
void extents_release(struct extents *extents, int64_t begin, int64_t n, int64_t at);

/* Slots held or promised at iteration `at`. */
int64_t extents_held(const struct extents *extents, int64_t at);

/* Whether `n` slots could ever be placed: n <= n_slots. */
bool extents_can_hold(const struct extents *extents, int64_t n);

#endif
