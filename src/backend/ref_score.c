/* score as backend.h defines it: one row after the other, its logits made a tile of the vocabulary
 * at a time, as often as the row's settings need them (pick.h). The logits never exist as a whole.
 */
#include <assert.h>

#include "backend/host.h"
#include "backend/pick.h"
#include "backend/ref.h"

/* Logits that exist at once. */
#define TILE_IDS 256

/* As linear sums: k ascending, in double, rounded once. */
static float make_logit(const float *hidden, struct weight head, int32_t id)
{
    size_t begin = (size_t)id * (size_t)head.n_in;
    double sum = 0;
    assert(id < head.n_out);
    for (int32_t k = 0; k < head.n_in; k++)
        sum += (double)hidden[k] * (double)host_element(head.data, head.dtype, begin + (size_t)k);
    return (float)sum;
}

static void make_logits(float *logits, const float *hidden, struct weight head, int32_t first_id,
                        int32_t n)
{
    assert(n <= TILE_IDS);
    for (int32_t i = 0; i < n; i++)
        logits[i] = make_logit(hidden, head, first_id + i);
}

static void feed_tile(struct pick_state *state, const struct score_args *args, int32_t row,
                      int32_t first_id)
{
    float logits[TILE_IDS], uncond[TILE_IDS];
    const struct score_row *settings = &args->rows[row];
    int32_t n = args->n_vocab - first_id < TILE_IDS ? args->n_vocab - first_id : TILE_IDS;
    assert(n > 0);
    make_logits(logits, host_row(args->hidden, row), args->head, first_id, n);
    if (settings->uncond_row >= 0) {
        make_logits(uncond, host_row(args->hidden, settings->uncond_row), args->head, first_id, n);
        pick_guide(logits, uncond, n, settings->cfg_scale);
    }
    pick_feed(state, first_id, logits, n);
}

void ref_score(struct backend *backend, const struct score_args *args)
{
    (void)backend;
    assert(args->n_vocab <= args->head.n_out);
    for (int32_t i = 0; i < args->n; i++) {
        struct pick_state state;
        pick_init(&state, &args->rows[i], args->mask_id);
        do {
            for (int32_t id = 0; id < args->n_vocab; id += TILE_IDS)
                feed_tile(&state, args, i, id);
        } while (pick_again(&state));
        args->picks[i] = pick_finish(&state);
    }
}
