/* base/arena: zeroed, aligned, bounded; also the two clocks, which have nothing to go wrong. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"

static void arena_of(struct arena *arena, size_t bytes_max)
{
    struct error err = {0};
    cr_assert(arena_create(arena, bytes_max, &err), "%s", err.message);
}

static bool is_zero(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != 0) return false;
    }
    return true;
}

Test(arena, memory_is_zeroed_and_aligned)
{
    struct arena arena;
    arena_of(&arena, 1 << 20);
    static const size_t sizes[] = {1, 3, 64, 65, 4096, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *memory = arena_push(&arena, sizes[i], 1);
        cr_assert_eq((uintptr_t)memory % 64, 0);
        cr_assert(is_zero(memory, sizes[i]));
        memset(memory, 0xAA, sizes[i]);
    }
    arena_destroy(&arena);
}

Test(arena, pushes_do_not_overlap)
{
    struct arena arena;
    arena_of(&arena, 1 << 16);
    uint8_t *first = arena_push(&arena, 65, 1);
    uint8_t *second = arena_push(&arena, 10, 2);
    memset(first, 1, 65);
    memset(second, 2, 20);
    cr_assert_geq(second, first + 65);
    cr_assert_eq(first[64], 1);
    arena_destroy(&arena);
}

Test(arena, memory_is_zeroed_again_after_rewind)
{
    struct arena arena;
    arena_of(&arena, 1 << 20);
    memset(arena_push(&arena, 1000, 1), 0xAA, 1000);
    size_t mark = arena.used_bytes;
    memset(arena_push(&arena, 5000, 1), 0xBB, 5000);
    arena_rewind(&arena, mark);

    /* Within the dirty part, across its end, and behind it. */
    uint8_t *inside = arena_push(&arena, 100, 1);
    uint8_t *across = arena_push(&arena, 20000, 1);
    uint8_t *behind = arena_push(&arena, 20000, 1);
    cr_assert(is_zero(inside, 100));
    cr_assert(is_zero(across, 20000));
    cr_assert(is_zero(behind, 20000));

    memset(behind, 0xCC, 20000);
    arena_rewind(&arena, 0);
    cr_assert_eq(arena.used_bytes, 0);
    cr_assert(is_zero(arena_push(&arena, 1 << 20, 1), 1 << 20));
    arena_destroy(&arena);
}

Test(arena, rewind_keeps_what_lies_before_the_mark)
{
    struct arena arena;
    arena_of(&arena, 1 << 16);
    char *kept = arena_push(&arena, 10, 1);
    memcpy(kept, "kept", 5);
    size_t mark = arena.used_bytes;
    void *first = arena_push(&arena, 100, 1);
    arena_rewind(&arena, mark);
    cr_assert_eq(arena_push(&arena, 1, 1), first, "the place is handed out again");
    cr_assert_str_eq(kept, "kept");
    arena_destroy(&arena);
}

Test(arena, peak_is_the_largest_use_since_create)
{
    struct arena arena;
    arena_of(&arena, 1 << 16);
    arena_push(&arena, 3000, 1);
    arena_rewind(&arena, 0);
    arena_push(&arena, 10, 1);
    cr_assert_eq(arena.used_bytes, 10);
    cr_assert_eq(arena.peak_bytes, 3000);
    arena_destroy(&arena);
}

Test(arena, the_last_byte_fits_and_one_more_does_not)
{
    struct arena arena;
    arena_of(&arena, 1000); /* a ceiling within a page counts all the same */
    arena_push(&arena, 1, 1);
    cr_assert_null(arena_try_push(&arena, 1000 - 64 + 1, 1));
    cr_assert_eq(arena.used_bytes, 1, "a refused push changes nothing");
    uint8_t *rest = arena_try_push(&arena, 1000 - 64, 1);
    cr_assert_not_null(rest);
    rest[1000 - 64 - 1] = 1;
    cr_assert_eq(arena.used_bytes, 1000);
    cr_assert_null(arena_try_push(&arena, 1, 1));
    arena_destroy(&arena);
}

Test(arena, a_product_that_overflows_does_not_fit)
{
    struct arena arena;
    arena_of(&arena, 1 << 16);
    cr_assert_null(arena_try_push(&arena, SIZE_MAX, 2));
    cr_assert_null(arena_try_push(&arena, SIZE_MAX / 4 + 2, 4)); /* wraps round to 4 */
    cr_assert_null(arena_try_push(&arena, SIZE_MAX, 1));
    arena_destroy(&arena);
}

Test(arena, nothing_is_a_valid_pointer_also_when_full)
{
    struct arena arena;
    arena_of(&arena, 1000);
    cr_assert_not_null(arena_push(&arena, 0, 8));
    cr_assert_not_null(arena_push(&arena, 8, 0));
    cr_assert_eq(arena.used_bytes, 0);
    arena_push(&arena, 1000, 1);
    cr_assert_not_null(arena_push(&arena, 0, 8));
    arena_destroy(&arena);
}

Test(arena, a_push_over_budget_is_a_mistake_in_the_program, .signal = SIGABRT)
{
    struct arena arena;
    arena_of(&arena, 1000);
    arena_push(&arena, 1001, 1);
}

Test(arena, rewinding_forward_is_a_mistake_in_the_program, .signal = SIGABRT)
{
    struct arena arena;
    arena_of(&arena, 1000);
    arena_push(&arena, 10, 1);
    arena_rewind(&arena, 11);
}

Test(arena, copies_end_with_a_nul)
{
    struct arena arena;
    arena_of(&arena, 128);
    memset(arena_push(&arena, 128, 1), 0xAA, 128);
    arena_rewind(&arena, 0);
    const char *copy = arena_try_copy(&arena, "abcdef", 3);
    cr_assert_str_eq(copy, "abc");
    cr_assert_str_eq(arena_try_copy(&arena, NULL, 0), "");
    cr_assert_null(arena_try_copy(&arena, "x", SIZE_MAX));
    arena_destroy(&arena);
}

Test(arena, a_copy_needs_room_for_its_nul)
{
    char text[64] = {0};
    struct arena arena;
    arena_of(&arena, 64);
    cr_assert_null(arena_try_copy(&arena, text, 64));
    cr_assert_not_null(arena_try_copy(&arena, text, 63));
    arena_destroy(&arena);
}

Test(arena, address_space_costs_nothing_until_touched)
{
    struct arena arena;
    arena_of(&arena, (size_t)1 << 37); /* 128 GiB */
    uint8_t *memory = arena_push(&arena, (size_t)1 << 36, 1);
    memory[((size_t)1 << 36) - 1] = 1;
    arena_destroy(&arena);
}

Test(arena, more_than_the_system_has_is_refused_with_the_figure)
{
    struct arena arena = {.used_bytes = 7};
    struct error err = {0};
    cr_assert_not(arena_create(&arena, SIZE_MAX / 2, &err));
    cr_assert_eq(err.code, ERROR_UNAVAILABLE);
    cr_assert_not_null(strstr(err.message, "9223372036854775807 bytes"), "%s", err.message);
    cr_assert_eq(arena.used_bytes, 7, "an output is untouched on failure");
}

Test(arena, destroy_clears_and_a_zeroed_arena_is_fine)
{
    struct arena arena;
    arena_of(&arena, 1000);
    arena_destroy(&arena);
    cr_assert_null(arena.base);
    arena_destroy(&arena);
}

Test(clock, monotonic_time_never_goes_back_and_moves)
{
    uint64_t start_ns = clock_now_ns();
    uint64_t last_ns = start_ns;
    while (last_ns == start_ns) {
        uint64_t now_ns = clock_now_ns();
        cr_assert_geq(now_ns, last_ns);
        last_ns = now_ns;
    }
}

Test(clock, wall_time_is_nanoseconds_since_1970)
{
    uint64_t year_2024_ns = 1704067200ULL * 1000000000;
    uint64_t year_2100_ns = 4102444800ULL * 1000000000;
    cr_assert_gt(clock_unix_ns(), year_2024_ns);
    cr_assert_lt(clock_unix_ns(), year_2100_ns);
}
