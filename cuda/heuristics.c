/* Choices of the cuda backend: loops over a batch's sequences and rows on the host. */
#include "cuda/heuristics.h"

#include <assert.h>

static int32_t add_items(struct attend_item *items, const struct sequence *sequence, int32_t begin,
                         int32_t n)
{
    int32_t n_items = 0;
    for (int32_t at = 0; at < n; at += ATTEND_ROWS) {
        int32_t left = n - at;
        items[n_items++] = (struct attend_item){
            .q_begin = begin + at,
            .n_q = left < ATTEND_ROWS ? left : ATTEND_ROWS,
            .row_begin = sequence->row_begin,
            .n_rows = sequence->n_rows,
            .cache_begin = sequence->cache_begin,
            .n_cached = sequence->n_cached,
        };
    }
    return n_items;
}

int32_t heuristics_attend_items(struct attend_item *items, const struct batch *batch, bool picked)
{
    int32_t n_items = 0;
    assert(batch->n_sequences > 0);
    for (int32_t i = 0; i < batch->n_sequences; i++) {
        const struct sequence *sequence = &batch->sequences[i];
        int32_t begin = picked ? sequence->pick_begin : sequence->row_begin;
        int32_t n = picked ? sequence->n_picks : sequence->n_rows;
        n_items += add_items(items + n_items, sequence, begin, n);
    }
    return n_items;
}

/* Every row a sequence of its own at worst. */
int32_t heuristics_items_max(int32_t n_rows_max)
{
    assert(n_rows_max > 0);
    return n_rows_max;
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
