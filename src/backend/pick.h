/* From a row's logits to its pick, the steps of struct score_row, fed in tiles of the vocabulary so
 * that the logits never exist as a whole. One pass for greedy and plain sampling; top-k and top-p
 * need three more each, and one for their ties; entropy one more. Shared by ref and cpu, which
 * differ in how a tile's logits are made. Memory does not depend on the vocabulary.
 *
 *     pick_init(&state, row, mask_id);
 *     do {
 *         for tiles in ascending order of ids: pick_feed(&state, first_id, logits, n);
 *     } while (pick_again(&state));
 *     pick = pick_finish(&state);
 *
 * The same tiles must be fed in every pass. What a row gets depends on its logits alone: sums run
 * over ids in ascending order, whatever the tile size. Private to backend/. */
#ifndef BACKEND_PICK_H
#define BACKEND_PICK_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "backend/cut.h"
#include "backend/inline.h"

/* ---- what a row asks for ---- */

BACKEND_INLINE bool pick_has_filter(const struct score_row *row)
{
    return row->top_k > 0 || row->top_p < 1;
}

BACKEND_INLINE bool pick_has_confidence_suppressed(const struct score_row *row)
{
    return row->confidence == CONFIDENCE_PROBABILITY && row->n_confidence_suppressed > 0;
}

/* Does it need softmax(z) as a whole? */
BACKEND_INLINE bool pick_wants_scaled(const struct score_row *row)
{
    return row->confidence == CONFIDENCE_FILTERED || row->confidence == CONFIDENCE_MARGIN ||
           row->confidence == CONFIDENCE_ENTROPY;
}

/* ---- its pick ---- */

/* sum of exp((l - max) / scale) with the largest l so far as max. */
struct pick_sum {
    double max, sum;
};

enum pick_pass { PICK_STATISTICS, PICK_TOP_P, PICK_TOP_K, PICK_TIES, PICK_LAST, PICK_DONE };

struct pick_state {
    const struct score_row *row; /* borrowed */
    int32_t mask_id;
    enum pick_pass pass;
    double scale;               /* T, or 1 when greedy: z = l / scale */
    int32_t best_id, second_id; /* largest and second largest l; -1: none */
    float best, second;
    bool broken;                  /* a logit was NaN or +inf */
    struct pick_sum plain;        /* softmax(l) after suppression */
    struct pick_sum unsuppressed; /* the same without confidence_suppressed */
    struct pick_sum scaled;       /* softmax(z); under a filter, of what stays */
    uint32_t top_p_key;           /* l with a smaller key went with top-p; 0: none did */
    int32_t top_p_ties;           /* ids with that key that top-p keeps */
    uint32_t cut_key;             /* filter: larger keys stay, */
    int32_t cut_id;               /* equal keys stay up to this id */
    int32_t n_ties;               /* ids with cut_key that stay and are not yet seen */
    int32_t drawn_id;             /* argmax of l + gumbel noise over what stays */
    float drawn;                  /* its l */
    double drawn_noisy;
    double entropy; /* sum of p ln(p + 1e-10) */
    struct cut cut;
};

void pick_init(struct pick_state *state, const struct score_row *row, int32_t mask_id);

/* Logits of ids [first_id, first_id + n), CFG already applied (pick_guide). Overwrites those of
 * mask_id and of suppressed ids with -inf. */
void pick_feed(struct pick_state *state, int32_t first_id, float *logits, int32_t n);

/* Ends a pass. True: feed all tiles again. */
bool pick_again(struct pick_state *state);

/* The pick. id -1: no candidate has a finite logit, or some logit is NaN or +inf. */
struct pick pick_finish(const struct pick_state *state);

/* logits = uncond + (cfg_scale + 1) * (logits - uncond), in double, rounded once. */
void pick_guide(float *logits, const float *uncond, int32_t n, float cfg_scale);

#endif
