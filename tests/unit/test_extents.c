/* Extents never overlap while they are held, use what will be free in time, and come back whole. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "plan/extents.h"

#define N_SLOTS 200
#define N_HELD  64

static struct arena arena;
static struct extents *extents;

static void make(int64_t n_slots)
{
    cr_assert(arena_create(&arena, (size_t)1 << 20, NULL));
    extents_create(&extents, n_slots, N_HELD, &arena);
}

static int64_t place(int64_t n, int64_t now, int64_t from, int64_t until)
{
    return extents_place(extents, n, now, (struct extent_time){.from = from, .until = until});
}

Test(extents, a_pool_holds_what_fits_and_no_more)
{
    make(10);
    cr_assert_eq(place(6, 0, 0, 5), 0);
    cr_assert_eq(place(5, 0, 0, 5), -1);
    cr_assert_eq(place(4, 0, 0, 5), 6);
    cr_assert_eq(place(11, 5, 5, 6), -1);
    cr_assert_eq(place(10, 5, 5, 6), 0);
    arena_destroy(&arena);
}

Test(extents, slots_are_promised_before_they_are_free)
{
    make(10);
    cr_assert_eq(place(10, 0, 0, 3), 0);
    cr_assert_eq(place(10, 1, 2, 9), -1, "held until iteration 3");
    cr_assert_eq(place(10, 1, 3, 9), 0);
    cr_assert_eq(place(1, 4, 4, 5), -1, "promised until iteration 9");
    arena_destroy(&arena);
}

Test(extents, the_shortest_gap_that_is_long_enough_is_taken)
{
    make(30);
    cr_assert_eq(place(5, 0, 0, 2), 0);
    cr_assert_eq(place(5, 0, 0, 9), 5);
    cr_assert_eq(place(3, 0, 0, 2), 10);
    cr_assert_eq(place(5, 0, 0, 9), 13);
    cr_assert_eq(place(3, 3, 3, 9), 10, "not the first gap of 5, nor the last of 12");
    arena_destroy(&arena);
}

Test(extents, a_release_before_time_frees_the_slots_but_no_promise)
{
    make(10);
    cr_assert_eq(place(10, 0, 0, 8), 0);
    cr_assert_eq(place(4, 0, 8, 20), 0);
    extents_release(extents, 0, 10, (struct extent_time){0, 8}, 2);
    cr_assert_eq(place(6, 2, 2, 5), 4);
    cr_assert_eq(place(4, 2, 2, 5), -1, "promised");
    cr_assert_eq(extents_held(extents, 2), 10);
    arena_destroy(&arena);
}

struct held {
    int64_t begin, n, from, until;
};

static bool overlap(const struct held *a, const struct held *b)
{
    bool in_space = a->begin < b->begin + b->n && b->begin < a->begin + a->n;
    return in_space && a->from < b->until && b->from < a->until;
}

Test(extents, random_placements_never_overlap_in_slots_and_time)
{
    struct held held[N_HELD] = {0};
    make(N_SLOTS);
    srand(7);
    int32_t n_placed = 0;
    for (int64_t now = 0; now < 20000; now++) {
        struct held *slot = &held[rand() % N_HELD];
        if (slot->until > now) {
            if (rand() % 3 != 0) continue;
            struct extent_time time = {.from = slot->from, .until = slot->until};
            extents_release(extents, slot->begin, slot->n, time, now);
            slot->until = now > slot->from ? now : slot->from;
            continue;
        }
        struct held next = {.n = 1 + rand() % 40, .from = now + rand() % 4};
        next.until = next.from + 1 + rand() % 50;
        next.begin = place(next.n, now, next.from, next.until);
        if (next.begin < 0) continue;
        n_placed++;
        cr_assert_leq(next.begin + next.n, N_SLOTS);
        for (int32_t i = 0; i < N_HELD; i++)
            cr_assert_not(overlap(&held[i], &next), "iteration %lld", (long long)now);
        *slot = next;
    }
    cr_assert_gt(n_placed, 1000);
    arena_destroy(&arena);
}
