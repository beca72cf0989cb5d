/* Choices of the cuda backend as pure host functions, tested without a GPU: which rows and keys of
 * a batch an attention block takes, how many passes over the vocabulary a batch's rows need, how
 * rows of score are cut into chunks, and which steps launch the same. */
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
#define ATTEND_TILE 64  /* keys that it sees at a time */

/* Few rows with many keys are cut over their keys, too. A slice of 1,024 keys reads 16 times the
 * bytes with which 32 partial rows of it are written and read again. Eight slices of 32 heads are
 * 256 blocks, which an H100 holds at once (132 processors, two blocks each); beyond, slices grow.
 */
#define ATTEND_SLICED_ROWS     64  /* sequences with more are never cut: windows have 32 or 33 */
#define ATTEND_SLICED_HEAD_DIM 128 /* heads of larger sizes are never cut (attention.cu) */
#define ATTEND_SLICE_TILES     16
#define ATTEND_SLICES_MAX      8

/* Work of one attention block per head: rows [q_begin, q_begin + n_q) of the queries, all of one
 * sequence, against tiles [tile_begin, tile_end) of its keys, which are its cached tiles and then
 * its fresh ones, the last of either cut short. */
struct attend_item {
    int32_t q_begin, n_q;
    int32_t row_begin, n_rows; /* the sequence's fresh rows */
    int64_t cache_begin;
    int32_t n_cached;
    int32_t tile_begin, tile_end;
    int32_t slice, n_slices; /* 0 of 1: all keys of these rows */
    int32_t partial_begin;   /* of a slice: where its n_q rows lie among the batch's partial rows */
};

/* What became of a batch: whole items, then slices, both in order of the rows. */
struct attend_cut {
    int32_t n_items, n_whole;
    int32_t n_partials; /* rows that slices leave to be joined, per head */
};

/* Items of a batch for all its rows (or its picked rows). How a sequence is cut depends on its own
 * rows and keys alone, so the order in which a row's keys are summed does, too. */
struct attend_cut heuristics_attend_items(struct attend_item *items, const struct batch *batch,
                                          bool picked);
int32_t heuristics_items_max(int32_t n_rows_max);

/* Partial rows (of a head) that memory is taken for: those of a whole batch for one head at least.
 */
int32_t heuristics_partials_max(int32_t n_rows_max);
/* Heads that can be attended together with memory for n_partials_max rows; the batch's other heads
 * follow in turns, which changes no result. */
int32_t heuristics_attend_heads(int32_t n_heads, int32_t n_partials, int32_t n_partials_max);

/* Passes over the vocabulary that these rows need at most (backend/pick.h): 1 to 9. */
int32_t heuristics_score_passes(const struct score_row *rows, int32_t n);

/* Rows [begin, begin + returned) can be scored together: at most `n_max`, and the rows of their
 * unconditional twins lie within `n_max` rows, which begin at *uncond_begin (-1: there are none).
 */
int32_t heuristics_score_chunk(const struct score_row *rows, int32_t begin, int32_t n,
                               int32_t n_max, int32_t *uncond_begin, int32_t *n_uncond);

/* A step's launches up to score are the same whenever this key is: the caller's shape_key, and the
 * counts that they take from the batch and how attend cuts it (all rows, and the picked ones). What
 * a launcher learns of a batch besides must be part of it. 0 for shape_key 0, and only then. */
uint64_t heuristics_graph_key(uint64_t shape_key, const struct batch *batch,
                              const struct attend_cut cuts[2]);
/* And from score on, whenever this one is: passes and chunks depend on what the rows hold. */
uint64_t heuristics_score_key(uint64_t graph_key, const struct score_row *rows, int32_t n,
                              int32_t n_max);
/* The key of what `key` stands for, then `value`. */
uint64_t heuristics_mix(uint64_t key, uint64_t value);

#ifdef __cplusplus
}
#endif
#endif
