/* Choices of the cuda backend as pure host functions, tested without a GPU: which rows of a batch
 * an attention block takes, how many passes over the vocabulary a batch's rows need, how rows of
 * score are cut into chunks. */
#ifndef CUDA_HEURISTICS_H
#define CUDA_HEURISTICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "backend/backend.h"

#define ATTEND_ROWS 128 /* query rows of an attention block: four warps of 32 */

/* Work of one attention block per head: rows [q_begin, q_begin + n_q) of the queries, all of one
 * sequence, against its cached and its fresh keys. */
struct attend_item {
    int32_t q_begin, n_q;
    int32_t row_begin, n_rows; /* the sequence's fresh rows */
    int64_t cache_begin;
    int32_t n_cached, pad;
};

/* Items of a batch for all its rows (or its picked rows), in order of the rows. Returns their
 * number, at most heuristics_items_max. */
int32_t heuristics_attend_items(struct attend_item *items, const struct batch *batch, bool picked);
int32_t heuristics_items_max(int32_t n_rows_max);

/* Passes over the vocabulary that these rows need at most (backend/pick.h): 1 to 9. */
int32_t heuristics_score_passes(const struct score_row *rows, int32_t n);

/* Rows [begin, begin + returned) can be scored together: at most `n_max`, and the rows of their
 * unconditional twins lie within `n_max` rows, which begin at *uncond_begin (-1: there are none).
 */
int32_t heuristics_score_chunk(const struct score_row *rows, int32_t begin, int32_t n,
                               int32_t n_max, int32_t *uncond_begin, int32_t *n_uncond);

#ifdef __cplusplus
}
#endif
#endif
