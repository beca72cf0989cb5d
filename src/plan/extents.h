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

/* Forgets every extent. */
void extents_reset(struct extents *extents);

/* When an extent is held: iterations [from, until). */
struct extent_time {
    int64_t from, until; /* until EXTENT_OPEN: until it is released */
};
#define EXTENT_OPEN INT64_MAX

/* Finds `n` > 0 slots that nobody holds or is promised from time.from on, and holds them for that
 * time; `now` is the current iteration, at most time.from. Returns the first slot, or -1: no room
 * in time. */
int64_t extents_place(struct extents *extents, int64_t n, int64_t now, struct extent_time time);

/* The holder of [begin, begin + n) for `time` is done before: free from iteration `now` on, unless
 * the slots are promised to somebody; and not before time.from, until which another may hold them.
 */
void extents_release(struct extents *extents, int64_t begin, int64_t n, struct extent_time time,
                     int64_t now);

/* Slots held or promised at iteration `now`. */
int64_t extents_held(const struct extents *extents, int64_t now);

#endif
