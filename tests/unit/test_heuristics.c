/* The cuda backend's choices, which need no GPU: attention items and their slices, passes over the
 * vocabulary, chunks of rows that are scored together. */
#include <criterion/criterion.h>

#include "cuda/heuristics.h"

enum { N_ROWS = 1000 };

/* Three sequences: 300 rows (2 picked), 1 row, 129 rows (129 picked), 40 cached. */
static const struct sequence sequences[] = {
    {.row_begin = 0, .n_rows = 300, .pick_begin = 0, .n_picks = 2, .cache_begin = -1},
    {.row_begin = 300, .n_rows = 1, .pick_begin = 2, .n_picks = 0, .cache_begin = -1},
    {.row_begin = 301,
     .n_rows = 129,
     .pick_begin = 2,
     .n_picks = 129,
     .cache_begin = 7,
     .n_cached = 40},
};
static const struct batch batch = {
    .n_rows = 430, .n_sequences = 3, .sequences = sequences, .n_picks = 131};

Test(heuristics, items_cover_every_row_of_a_sequence_once_and_know_its_keys)
{
    struct attend_item items[N_ROWS];
    struct attend_cut cut = heuristics_attend_items(items, &batch, false);
    int32_t n = cut.n_items, next = 0;
    cr_assert_eq(n, 3 + 1 + 2);
    cr_assert_eq(cut.n_whole, n);
    cr_assert_eq(cut.n_partials, 0);
    cr_assert_leq(n, heuristics_items_max(batch.n_rows));
    for (int32_t i = 0; i < n; i++) {
        cr_assert_eq(items[i].q_begin, next);
        cr_assert_gt(items[i].n_q, 0);
        cr_assert_leq(items[i].n_q, ATTEND_ROWS);
        cr_assert_geq(items[i].q_begin, items[i].row_begin);
        cr_assert_leq(items[i].q_begin + items[i].n_q, items[i].row_begin + items[i].n_rows);
        next += items[i].n_q;
    }
    cr_assert_eq(next, batch.n_rows);
    cr_assert_eq(items[4].cache_begin, 7);
    cr_assert_eq(items[5].n_cached, 40);
    cr_assert_eq(items[5].n_q, 1);
}

Test(heuristics, items_of_picked_rows_leave_out_sequences_without_picks)
{
    struct attend_item items[N_ROWS];
    cr_assert_eq(heuristics_attend_items(items, &batch, true).n_items, 1 + 0 + 2);
    cr_assert_eq(items[0].n_q, 2);
    cr_assert_eq(items[0].n_rows, 300);
    cr_assert_eq(items[1].q_begin, 2);
    cr_assert_eq(items[1].row_begin, 301);
    cr_assert_eq(items[2].q_begin + items[2].n_q, batch.n_picks);
}

Test(heuristics, a_sequence_is_cut_the_same_way_in_any_batch)
{
    struct attend_item together[N_ROWS], alone[N_ROWS];
    struct sequence moved = sequences[2];
    moved.row_begin = moved.pick_begin = 0;
    const struct batch other = {
        .n_rows = 129, .n_sequences = 1, .sequences = &moved, .n_picks = 129};
    heuristics_attend_items(together, &batch, false);
    int32_t n = heuristics_attend_items(alone, &other, false).n_items;
    cr_assert_eq(n, 2);
    for (int32_t i = 0; i < n; i++) {
        cr_assert_eq(alone[i].n_q, together[4 + i].n_q);
        cr_assert_eq(alone[i].q_begin + sequences[2].row_begin, together[4 + i].q_begin);
    }
}

/* ---- slices ---- */

enum { SLICE_KEYS = ATTEND_SLICE_TILES * ATTEND_TILE };

/* A batch of one sequence, and what it is cut into. */
static struct attend_cut cut_one(struct attend_item *items, struct sequence sequence, bool picked)
{
    const struct batch one = {.n_rows = sequence.n_rows,
                              .n_sequences = 1,
                              .sequences = &sequence,
                              .n_picks = sequence.n_picks};
    return heuristics_attend_items(items, &one, picked);
}

/* The slices of one item: all its tiles in order, as long as each other or a tile longer, each with
 * partial rows of its own, one after the other. Returns their number. */
static int32_t walk_slices(const struct attend_item *items, int32_t n_tiles)
{
    int32_t n = items[0].n_slices, least = n_tiles / n, next = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t n_here = items[i].tile_end - items[i].tile_begin;
        cr_assert_eq(items[i].slice, i);
        cr_assert_eq(items[i].n_slices, n);
        cr_assert_eq(items[i].q_begin, items[0].q_begin);
        cr_assert_eq(items[i].n_q, items[0].n_q);
        cr_assert_eq(items[i].tile_begin, next);
        cr_assert(n_here == least || n_here == least + 1);
        cr_assert_eq(items[i].partial_begin, items[0].partial_begin + i * items[0].n_q);
        next = items[i].tile_end;
    }
    cr_assert_eq(next, n_tiles);
    return n;
}

Test(heuristics, slices_of_a_few_rows_cover_their_keys_once_and_in_order)
{
    struct attend_item items[2 * ATTEND_SLICES_MAX];
    for (int32_t n_cached = 0; n_cached < 12 * SLICE_KEYS; n_cached += 37) {
        struct sequence sequence = {.n_rows = 32, .n_cached = n_cached};
        struct attend_cut cut = cut_one(items, sequence, false);
        int32_t n_tiles = (n_cached + ATTEND_TILE - 1) / ATTEND_TILE + 1;
        int32_t n = walk_slices(items, n_tiles);
        cr_assert_eq(cut.n_items, n);
        cr_assert_leq(n, ATTEND_SLICES_MAX);
        cr_assert_eq(cut.n_whole, n == 1);
        cr_assert_eq(cut.n_partials, n == 1 ? 0 : 32 * n);
        cr_assert(n == ATTEND_SLICES_MAX || items[0].tile_end <= ATTEND_SLICE_TILES);
    }
}

Test(heuristics, only_few_rows_with_more_keys_than_a_slice_are_cut)
{
    struct attend_item items[2 * ATTEND_SLICES_MAX];
    struct sequence full = {.n_rows = 32, .n_cached = SLICE_KEYS - ATTEND_TILE};
    struct sequence longer = {.n_rows = 32, .n_cached = SLICE_KEYS - ATTEND_TILE + 1};
    struct sequence wider = {.n_rows = ATTEND_SLICED_ROWS + 1, .n_cached = 20 * SLICE_KEYS};
    struct sequence picks = {.n_rows = 3 * SLICE_KEYS, .n_picks = 5};
    struct sequence padded = {.n_rows = 32, .n_picks = 70, .n_cached = 2 * SLICE_KEYS};
    cr_assert_eq(cut_one(items, full, false).n_items, 1);
    cr_assert_eq(cut_one(items, longer, false).n_items, 2);
    cr_assert_eq(cut_one(items, wider, false).n_items, 1);
    cr_assert_eq(cut_one(items, picks, true).n_items, 1, "picks of many rows");
    cr_assert_eq(cut_one(items, padded, true).n_partials, 3 * 70);
    cr_assert_eq(walk_slices(items, 2 * ATTEND_SLICE_TILES + 1), 3);
    padded.n_picks = 1;
    cr_assert_eq(cut_one(items, padded, true).n_items, 3, "whatever the number of picks");
}

Test(heuristics, slices_of_a_sequence_are_the_same_in_any_batch)
{
    struct attend_item alone[ATTEND_SLICES_MAX], together[4 * ATTEND_SLICES_MAX];
    const struct sequence mixed[] = {{.row_begin = 0, .n_rows = 32, .n_cached = 5000},
                                     {.row_begin = 32, .n_rows = 300, .n_cached = 0},
                                     {.row_begin = 332, .n_rows = 7, .n_cached = 3000},
                                     {.row_begin = 339, .n_rows = 1, .n_cached = 40}};
    const struct batch all = {.n_rows = 340, .n_sequences = 4, .sequences = mixed};
    struct sequence moved = mixed[2];
    moved.row_begin = 0;
    struct attend_cut cut = heuristics_attend_items(together, &all, false);
    int32_t n = cut_one(alone, moved, false).n_items;
    int32_t first = cut.n_items - n; /* whole items come first, then slices, in order of the rows */
    cr_assert_eq(cut.n_whole, 3 + 1);
    cr_assert_eq(n, 3);
    cr_assert_eq(together[first].partial_begin, 32 * 5);
    cr_assert_eq(walk_slices(together + first, 48), n);
    for (int32_t i = 0; i < n; i++) {
        cr_assert_eq(together[first + i].tile_begin, alone[i].tile_begin);
        cr_assert_eq(together[first + i].tile_end, alone[i].tile_end);
        cr_assert_eq(together[first + i].q_begin, 332);
    }
}

Test(heuristics, no_batch_outgrows_the_memory_of_its_items_and_partial_rows)
{
    static struct sequence rows[N_ROWS];
    static struct attend_item items[N_ROWS * ATTEND_SLICES_MAX];
    for (int32_t n_each = 1; n_each <= 64; n_each++) {
        int32_t n = N_ROWS / n_each;
        for (int32_t i = 0; i < n; i++)
            rows[i] = (struct sequence){
                .row_begin = i * n_each, .n_rows = n_each, .n_cached = 100 * SLICE_KEYS};
        const struct batch worst = {.n_rows = n * n_each, .n_sequences = n, .sequences = rows};
        struct attend_cut cut = heuristics_attend_items(items, &worst, false);
        cr_assert_leq(cut.n_items, heuristics_items_max(worst.n_rows));
        cr_assert_leq(cut.n_partials, worst.n_rows * ATTEND_SLICES_MAX);
        cr_assert_leq(cut.n_partials, heuristics_partials_max(worst.n_rows));
    }
}

Test(heuristics, heads_take_turns_where_partial_rows_are_too_many)
{
    cr_assert_eq(heuristics_attend_heads(32, 0, 1000), 32);
    cr_assert_eq(heuristics_attend_heads(32, 1000, 32000), 32);
    cr_assert_eq(heuristics_attend_heads(32, 1000, 31999), 16); /* 16 and 16, not 31 and 1 */
    cr_assert_eq(heuristics_attend_heads(32, 1000, 10000), 8);
    cr_assert_eq(heuristics_attend_heads(7, 1000, 2000), 2);
    cr_assert_eq(heuristics_attend_heads(7, 1000, 1000), 1);
}

Test(heuristics, a_lone_window_has_its_heads_attended_at_once)
{
    int32_t n_partials_max = heuristics_partials_max(32);
    cr_assert_eq(heuristics_attend_heads(128, 32 * ATTEND_SLICES_MAX, n_partials_max), 128);
}

/* ---- passes ---- */

static int32_t passes(struct score_row row)
{
    return heuristics_score_passes(&row, 1);
}

Test(heuristics, greedy_and_plain_sampling_see_the_vocabulary_once)
{
    cr_assert_eq(passes((struct score_row){.top_p = 1}), 1);
    cr_assert_eq(passes((struct score_row){.top_p = 1, .temperature = 1}), 1);
    cr_assert_eq(passes((struct score_row){.top_p = 1, .confidence = CONFIDENCE_MARGIN}), 1);
}

Test(heuristics, entropy_takes_one_pass_more)
{
    cr_assert_eq(passes((struct score_row){.top_p = 1, .confidence = CONFIDENCE_ENTROPY}), 2);
}

Test(heuristics, filters_take_three_passes_each_one_for_ties_and_one_to_draw)
{
    cr_assert_eq(passes((struct score_row){.top_p = 1, .top_k = 5}), 5);
    cr_assert_eq(passes((struct score_row){.top_p = 0.9, .temperature = 1}), 6);
    cr_assert_eq(passes((struct score_row){.top_p = 0.9, .top_k = 5, .temperature = 1}), 9);
}

Test(heuristics, rows_together_take_as_many_passes_as_the_neediest)
{
    const struct score_row rows[] = {{.top_p = 1}, {.top_p = 1, .top_k = 2}, {.top_p = 1}};
    cr_assert_eq(heuristics_score_passes(rows, 3), 5);
    cr_assert_eq(heuristics_score_passes(rows, 1), 1);
    cr_assert_eq(heuristics_score_passes(rows, 0), 1);
}

/* ---- chunks ---- */

static void fill(struct score_row rows[N_ROWS], int32_t (*uncond)(int32_t r))
{
    for (int32_t r = 0; r < N_ROWS; r++)
        rows[r].uncond_row = uncond(r);
}

static int32_t none(int32_t r)
{
    (void)r;
    return -1;
}

/* Every third row is guided; twins lie behind all rows, in order. */
static int32_t every_third(int32_t r)
{
    return r % 3 == 0 ? N_ROWS + r / 3 : -1;
}

static int32_t scattered(int32_t r)
{
    return N_ROWS + (r * 617) % N_ROWS;
}

Test(heuristics, chunks_without_guidance_are_as_long_as_allowed)
{
    struct score_row rows[N_ROWS] = {0};
    int32_t begin, n;
    fill(rows, none);
    cr_assert_eq(heuristics_score_chunk(rows, 0, N_ROWS, 256, &begin, &n), 256);
    cr_assert_eq(begin, -1);
    cr_assert_eq(n, 0);
    cr_assert_eq(heuristics_score_chunk(rows, 768, N_ROWS, 256, &begin, &n), 232);
}

/* Walks all chunks; each row's twin must lie in its chunk's range, which must fit. */
static int32_t walk(const struct score_row rows[N_ROWS], int32_t n_max)
{
    int32_t n_chunks = 0;
    for (int32_t at = 0; at < N_ROWS; n_chunks++) {
        int32_t begin, n_uncond;
        int32_t n = heuristics_score_chunk(rows, at, N_ROWS, n_max, &begin, &n_uncond);
        cr_assert_gt(n, 0);
        cr_assert_leq(n, n_max);
        cr_assert_leq(n_uncond, n_max);
        for (int32_t r = at; r < at + n; r++) {
            if (rows[r].uncond_row < 0) continue;
            cr_assert_geq(rows[r].uncond_row, begin);
            cr_assert_lt(rows[r].uncond_row, begin + n_uncond);
        }
        at += n;
    }
    return n_chunks;
}

Test(heuristics, twins_in_order_do_not_shorten_chunks)
{
    struct score_row rows[N_ROWS] = {0};
    fill(rows, every_third);
    cr_assert_eq(walk(rows, 250), 4);
}

Test(heuristics, twins_in_any_order_are_still_found)
{
    struct score_row rows[N_ROWS] = {0};
    fill(rows, scattered);
    cr_assert_gt(walk(rows, 250), 4);
    cr_assert_eq(walk(rows, 1), N_ROWS);
}

/* ---- graph keys ---- */

static uint64_t key_of(uint64_t shape_key, int32_t n_rows, int32_t n_picks, int32_t n_items)
{
    const struct attend_cut cuts[2] = {{.n_items = n_items}, {.n_items = n_items}};
    const struct batch step = {.n_rows = n_rows, .n_sequences = 2, .n_picks = n_picks};
    return heuristics_graph_key(shape_key, &step, cuts);
}

Test(heuristics, graph_keys_are_equal_for_equal_counts_and_no_others)
{
    const uint64_t keys[] = {key_of(7, 64, 32, 2), key_of(8, 64, 32, 2), key_of(8, 65, 32, 2),
                             key_of(7, 65, 32, 2), key_of(7, 64, 33, 2), key_of(7, 64, 32, 3),
                             key_of(7, 32, 64, 2)};
    cr_assert_eq(keys[0], key_of(7, 64, 32, 2));
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        cr_assert_neq(keys[i], 0);
        for (size_t j = 0; j < i; j++)
            cr_assert_neq(keys[i], keys[j]);
    }
}

Test(heuristics, graph_keys_tell_the_items_of_all_rows_from_those_of_picked_ones)
{
    const struct batch step = {.n_rows = 64, .n_sequences = 2, .n_picks = 32};
    const struct attend_cut cuts[] = {{3, 3, 0}, {4, 4, 0}, {3, 2, 0}, {3, 3, 1}};
    for (int i = 1; i < 4; i++) {
        const struct attend_cut one[2] = {cuts[0], cuts[i]}, other[2] = {cuts[i], cuts[0]};
        const struct attend_cut same[2] = {cuts[0], cuts[0]};
        uint64_t key = heuristics_graph_key(1, &step, one);
        cr_assert_neq(key, heuristics_graph_key(1, &step, other));
        cr_assert_neq(key, heuristics_graph_key(1, &step, same));
    }
}

Test(heuristics, steps_without_a_shape_key_have_no_graph_key)
{
    struct score_row rows[N_ROWS] = {0};
    fill(rows, every_third);
    cr_assert_eq(key_of(0, 64, 32, 2), 0);
    cr_assert_eq(heuristics_score_key(0, rows, N_ROWS, 250), 0);
}

Test(heuristics, score_keys_hold_the_passes_and_chunks_and_nothing_else_of_the_rows)
{
    struct score_row rows[N_ROWS] = {0};
    fill(rows, none);
    for (int32_t i = 0; i < N_ROWS; i++)
        rows[i].top_p = 1;
    uint64_t plain = heuristics_score_key(5, rows, N_ROWS, 250);
    cr_assert_neq(plain, 5);
    cr_assert_neq(plain, heuristics_score_key(6, rows, N_ROWS, 250));
    cr_assert_neq(plain, heuristics_score_key(5, rows, N_ROWS - 1, 250));
    cr_assert_neq(heuristics_score_key(5, rows, 0, 250), 5);
    rows[3].position = 9;
    rows[3].temperature = 0.5;
    cr_assert_eq(plain, heuristics_score_key(5, rows, N_ROWS, 250));
    rows[3].top_k = 2;
    cr_assert_neq(plain, heuristics_score_key(5, rows, N_ROWS, 250));
    rows[3].top_k = 0;
    rows[700].uncond_row = N_ROWS;
    cr_assert_neq(plain, heuristics_score_key(5, rows, N_ROWS, 250));
}
