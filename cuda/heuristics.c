/* Choices of the cuda backend: loops over a batch's sequences and rows on the host. */
#include "cuda/heuristics.h"

#include <assert.h>

static int32_t divide_up(int32_t n, int32_t by)
{
    assert(by > 0);
    return n / by + (n % by > 0);
}

/* Not by the number of picks: that of a block may differ by one with what is known of its last
 * step, and more with padding, and neither may change a bit. */
static int32_t slices_of(const struct sequence *sequence, int32_t n_tiles)
{
    int32_t n = divide_up(n_tiles, ATTEND_SLICE_TILES);
    assert(n > 0);
    if (sequence->n_rows > ATTEND_SLICED_ROWS) return 1;
    return n < ATTEND_SLICES_MAX ? n : ATTEND_SLICES_MAX;
}

/* Slices differ by a tile at most: the longest is what a lone request waits for. */
static void add_slices(struct attend_item *items, struct attend_cut *cut, struct attend_item item,
                       int32_t n_tiles)
{
    for (item.slice = 0; item.slice < item.n_slices; item.slice++) {
        item.tile_begin = (int32_t)((int64_t)n_tiles * item.slice / item.n_slices);
        item.tile_end = (int32_t)((int64_t)n_tiles * (item.slice + 1) / item.n_slices);
        item.partial_begin = cut->n_partials;
        if (item.n_slices > 1) cut->n_partials += item.n_q;
        assert(item.tile_begin < item.tile_end);
        items[cut->n_items++] = item;
    }
}

/* The sequence's whole items, or its sliced ones. */
static void add_items(struct attend_item *items, struct attend_cut *cut,
                      const struct sequence *sequence, bool picked, bool sliced)
{
    int32_t begin = picked ? sequence->pick_begin : sequence->row_begin;
    int32_t n = picked ? sequence->n_picks : sequence->n_rows;
    int32_t n_tiles =
        divide_up(sequence->n_cached, ATTEND_TILE) + divide_up(sequence->n_rows, ATTEND_TILE);
    for (int32_t at = 0; at < n; at += ATTEND_ROWS) {
        int32_t n_q = n - at < ATTEND_ROWS ? n - at : ATTEND_ROWS;
        struct attend_item item = {
            .q_begin = begin + at,
            .n_q = n_q,
            .row_begin = sequence->row_begin,
            .n_rows = sequence->n_rows,
            .cache_begin = sequence->cache_begin,
            .n_cached = sequence->n_cached,
            .n_slices = slices_of(sequence, n_tiles),
        };
        if (sliced == (item.n_slices > 1)) add_slices(items, cut, item, n_tiles);
    }
}

/* Blocks start in this order: whole items can be much longer than a slice, so they come first. */
struct attend_cut heuristics_attend_items(struct attend_item *items, const struct batch *batch,
                                          bool picked)
{
    struct attend_cut cut = {0};
    assert(batch->n_sequences > 0);
    for (int32_t i = 0; i < batch->n_sequences; i++)
        add_items(items, &cut, &batch->sequences[i], picked, false);
    cut.n_whole = cut.n_items;
    for (int32_t i = 0; i < batch->n_sequences; i++)
        add_items(items, &cut, &batch->sequences[i], picked, true);
    return cut;
}

/* Every row a sequence of its own with many keys at worst. */
int32_t heuristics_items_max(int32_t n_rows_max)
{
    assert(n_rows_max > 0);
    assert(n_rows_max <= INT32_MAX / ATTEND_SLICES_MAX);
    return n_rows_max * ATTEND_SLICES_MAX;
}

/* A row is in one item, so in ATTEND_SLICES_MAX slices at most. Small batches get more than that,
 * so that a lone window of 32 rows has its heads (up to 128) attended at once. */
int32_t heuristics_partials_max(int32_t n_rows_max)
{
    const int32_t least = 128 * ATTEND_SLICED_ROWS * ATTEND_SLICES_MAX;
    int32_t most = heuristics_items_max(n_rows_max);
    return most < least ? least : most;
}

int32_t heuristics_attend_heads(int32_t n_heads, int32_t n_partials, int32_t n_partials_max)
{
    assert(n_heads > 0);
    assert(n_partials <= n_partials_max);
    if (n_partials == 0) return n_heads;
    int32_t n_turns = divide_up(n_heads, n_partials_max / n_partials);
    return divide_up(n_heads, n_turns);
}

/* Statistics; top-p and top-k take three each, their ties one; entropy or a filtered draw one. */
static int32_t passes_of(const struct score_row *row)
{
    bool has_top_p = row->top_p < 1;
    bool has_top_k = row->top_k > 0;
    bool is_filtered = has_top_p || has_top_k;
    int32_t n = 1 + 3 * has_top_p + 3 * has_top_k + is_filtered;
    assert(row->top_k >= 0);
    if (row->confidence == CONFIDENCE_ENTROPY || (row->temperature > 0 && is_filtered)) n++;
    return n;
}

int32_t heuristics_score_passes(const struct score_row *rows, int32_t n)
{
    int32_t most = 1;
    assert(n >= 0);
    for (int32_t i = 0; i < n; i++) {
        int32_t passes = passes_of(&rows[i]);
        if (passes > most) most = passes;
    }
    return most;
}

int32_t heuristics_score_chunk(const struct score_row *rows, int32_t begin, int32_t n,
                               int32_t n_max, int32_t *uncond_begin, int32_t *n_uncond)
{
    int32_t first = INT32_MAX, last = -1, at = begin;
    assert(n_max > 0);
    for (; at < n && at - begin < n_max; at++) {
        int32_t uncond = rows[at].uncond_row;
        if (uncond < 0) continue;
        int32_t low = uncond < first ? uncond : first, high = uncond > last ? uncond : last;
        if (high - low >= n_max) break;
        first = low;
        last = high;
    }
    *uncond_begin = last < 0 ? -1 : first;
    *n_uncond = last < 0 ? 0 : last - first + 1;
    assert(at > begin || begin >= n);
    return at - begin;
}

/* The end of SplitMix64's step: a change of any bit changes about half of them. The product keeps
 * small keys apart before small values meet them. */
uint64_t heuristics_mix(uint64_t key, uint64_t value)
{
    uint64_t z = (key * UINT64_C(0x9E3779B97F4A7C15)) ^ value;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t mix_all(uint64_t key, const int32_t *values, size_t n)
{
    if (key == 0) return 0;
    for (size_t i = 0; i < n; i++)
        key = heuristics_mix(key, (uint64_t)(int64_t)values[i]);
    return key != 0 ? key : 1;
}

uint64_t heuristics_graph_key(uint64_t shape_key, const struct batch *batch,
                              const struct attend_cut cuts[2])
{
    const int32_t counts[] = {batch->n_rows,   batch->n_sequences, batch->n_picks,
                              cuts[0].n_items, cuts[0].n_whole,    cuts[0].n_partials,
                              cuts[1].n_items, cuts[1].n_whole,    cuts[1].n_partials};
    assert(batch->n_rows > 0);
    return mix_all(shape_key, counts, sizeof counts / sizeof counts[0]);
}

uint64_t heuristics_score_key(uint64_t graph_key, const struct score_row *rows, int32_t n,
                              int32_t n_max)
{
    uint64_t key = graph_key;
    assert(n >= 0);
    if (graph_key == 0) return 0;
    for (int32_t begin = 0; begin < n;) {
        int32_t chunk[4];
        chunk[0] = heuristics_score_chunk(rows, begin, n, n_max, &chunk[1], &chunk[2]);
        chunk[3] = heuristics_score_passes(rows + begin, chunk[0]);
        key = mix_all(key, chunk, sizeof chunk / sizeof chunk[0]);
        begin += chunk[0];
    }
    return key != graph_key ? key : mix_all(key, &n, 1);
}
