/* The skyline as an array of runs, sorted by slot: neighbours that are free in time make a gap. */
#include "plan/extents.h"

#include <assert.h>
#include <string.h>

/* Slots [begin, begin of the next run), free from iteration free_at on. */
struct run {
    int64_t begin, free_at;
};

struct extents {
    int64_t n_slots;
    int32_t n_runs, n_runs_max;
    struct run *runs; /* [n_runs_max] */
};

void extents_create(struct extents **extents, int64_t n_slots, int32_t n_extents_max,
                    struct arena *arena)
{
    assert(n_slots >= 0);
    assert(n_extents_max > 0);
    struct extents *made = arena_push(arena, 1, sizeof *made);
    /* An extent splits a run in three at most; runs of the past are merged with each placement. */
    int32_t n_runs_max = 2 * n_extents_max + 3;
    *made = (struct extents){.n_slots = n_slots,
                             .n_runs_max = n_runs_max,
                             .runs = arena_push(arena, (size_t)n_runs_max, sizeof *made->runs)};
    extents_reset(made);
    *extents = made;
}

void extents_reset(struct extents *extents)
{
    assert(extents->n_runs_max > 0);
    extents->n_runs = 1;
    extents->runs[0] = (struct run){.begin = 0, .free_at = 0};
}

static int64_t run_end(const struct extents *extents, int32_t index)
{
    assert(index < extents->n_runs);
    return index + 1 < extents->n_runs ? extents->runs[index + 1].begin : extents->n_slots;
}

/* What is free now is free alike, and one run with free neighbours. Held neighbours stay apart,
 * even until the same iteration: each is released on its own. */
static void merge_runs(struct extents *extents, int64_t now)
{
    int32_t n = 0;
    assert(extents->n_runs > 0);
    for (int32_t i = 0; i < extents->n_runs; i++) {
        struct run run = extents->runs[i];
        if (run.free_at < now) run.free_at = now;
        if (n > 0 && extents->runs[n - 1].free_at == now && run.free_at == now) continue;
        extents->runs[n++] = run;
    }
    extents->n_runs = n;
}

/* The shortest gap of runs free from `from` on that holds n slots: runs [*first, *end). */
static bool find_gap(const struct extents *extents, int64_t n, int64_t from, int32_t *first,
                     int32_t *end)
{
    int64_t best = INT64_MAX;
    assert(n > 0);
    for (int32_t i = 0; i < extents->n_runs; i++) {
        if (extents->runs[i].free_at > from) continue;
        int32_t begin = i;
        while (i + 1 < extents->n_runs && extents->runs[i + 1].free_at <= from)
            i++;
        int64_t n_gap = run_end(extents, i) - extents->runs[begin].begin;
        if (n_gap < n || n_gap >= best) continue;
        best = n_gap;
        *first = begin;
        *end = i + 1;
    }
    return best < INT64_MAX;
}

/* Makes [begin, end), a head of the runs from `first` on, one run. */
static void cover(struct extents *extents, int32_t first, int64_t end, int64_t free_at)
{
    int32_t last = first;
    assert(end <= extents->n_slots);
    while (run_end(extents, last) < end)
        last++;
    bool has_rest = run_end(extents, last) > end;
    struct run rest = {.begin = end, .free_at = extents->runs[last].free_at};
    int32_t n_new = has_rest ? 2 : 1, n_old = last + 1 - first;
    assert(extents->n_runs + n_new - n_old <= extents->n_runs_max);
    memmove(&extents->runs[first + n_new], &extents->runs[last + 1],
            (size_t)(extents->n_runs - last - 1) * sizeof *extents->runs);
    extents->n_runs += n_new - n_old;
    extents->runs[first].free_at = free_at;
    if (has_rest) extents->runs[first + 1] = rest;
}

int64_t extents_place(struct extents *extents, int64_t n, int64_t now, struct extent_time time)
{
    int32_t first, end;
    assert(now <= time.from);
    assert(time.from < time.until);
    merge_runs(extents, now);
    if (n > extents->n_slots || !find_gap(extents, n, time.from, &first, &end)) return -1;
    int64_t begin = extents->runs[first].begin;
    cover(extents, first, begin + n, time.until);
    return begin;
}

void extents_release(struct extents *extents, int64_t begin, int64_t n, struct extent_time time,
                     int64_t now)
{
    assert(begin >= 0);
    assert(begin + n <= extents->n_slots);
    for (int32_t i = 0; i < extents->n_runs; i++) {
        struct run *run = &extents->runs[i];
        if (run->begin >= begin + n) break;
        if (run->begin < begin || run->free_at != time.until) continue;
        assert(run_end(extents, i) <= begin + n);
        run->free_at = now > time.from ? now : time.from;
    }
}

int64_t extents_held(const struct extents *extents, int64_t now)
{
    int64_t n = 0;
    assert(extents->n_runs > 0);
    for (int32_t i = 0; i < extents->n_runs; i++)
        if (extents->runs[i].free_at > now) n += run_end(extents, i) - extents->runs[i].begin;
    return n;
}
