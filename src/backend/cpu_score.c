/* score: groups of rows go through the vocabulary together, tile by tile. A tile's logits are one
 * product for all rows of the group; then every row looks at its own, in ascending order of ids, as
 * pick.h says. The first pass, which is all that greedy decoding needs, is vectorised here: what it
 * leaves in the state is what pick_feed would, up to rounding. */
#include <assert.h>
#include <float.h>
#include <math.h>

#include "backend/cpu.h"
#include "backend/noise.h"

/* ---- the first pass over a block of at most CPU_ID_BLOCK logits ---- */

static void suppress(float *logits, int32_t first_id, int32_t n, const int32_t *ids, int32_t n_ids)
{
    assert(n > 0);
    for (int32_t i = 0; i < n_ids; i++) {
        if (ids[i] >= first_id && ids[i] < first_id + n) logits[ids[i] - first_id] = -INFINITY;
    }
}

static bool holds_any(int32_t first_id, int32_t n, const int32_t *ids, int32_t n_ids)
{
    for (int32_t i = 0; i < n_ids; i++) {
        if (ids[i] >= first_id && ids[i] < first_id + n) return true;
    }
    return false;
}

/* The two largest logits so far, ties to the lower id. */
static void rank_block(struct pick_state *state, int32_t first_id, const float *logits, int32_t n)
{
    assert(n > 0);
    for (int32_t i = 0; i < n; i++) {
        if (!(logits[i] > state->second)) continue;
        if (logits[i] > state->best) {
            state->second = state->best;
            state->second_id = state->best_id;
            state->best = logits[i];
            state->best_id = first_id + i;
        } else {
            state->second = logits[i];
            state->second_id = first_id + i;
        }
    }
}

/* 1 / scale as a float that is no infinity, so that 0 times it is 0. */
static float factor_of(double scale)
{
    return (float)fmin(1 / scale, FLT_MAX);
}

/* Adds the block, whose largest logit is `largest`, to a running sum of exp((l - max) / scale). */
static void sum_block(struct pick_sum *total, const struct cpu_kernels *kernels,
                      const float *logits, int32_t n, float largest, double scale)
{
    if (largest == -INFINITY) return;
    if (largest > total->max) {
        total->sum *= exp((total->max - largest) / scale);
        total->max = largest;
    }
    assert(total->max >= largest);
    total->sum += kernels->sum_exp(logits, n, (float)total->max, factor_of(scale));
}

/* Gumbel sampling over the block. An id beats the best so far, b, when l - T ln(-ln u) > b, that is
 * -ln u < exp((l - b) / T). Since 1 - u <= -ln u, most ids are out before any logarithm. */
static void draw_block(struct pick_state *state, const struct cpu_kernels *kernels,
                       int32_t first_id, const float *logits, int32_t n)
{
    const struct score_row *row = state->row;
    const double slack = 1.001; /* far above the rounding of reach */
    float reach[CPU_ID_BLOCK], best = (float)state->drawn_noisy;
    if ((double)best > state->drawn_noisy) best = nextafterf(best, -INFINITY);
    assert(row->temperature > 0);
    kernels->exp_all(reach, logits, n, best, factor_of(row->temperature));
    for (int32_t i = 0; i < n; i++) {
        if (logits[i] == -INFINITY) continue;
        uint32_t id = (uint32_t)(first_id + i);
        double u = noise_uniform(row->noise_key, row->step, row->position, id);
        if (1 - u > slack * (double)reach[i]) continue;
        double noisy = logits[i] - row->temperature * log(-log(u));
        if (!(noisy > state->drawn_noisy)) continue;
        state->drawn_noisy = noisy;
        state->drawn_id = (int32_t)id;
        state->drawn = logits[i];
    }
}

static void sum_scaled(struct pick_state *state, const struct cpu_kernels *kernels,
                       const float *logits, int32_t n, float largest)
{
    const struct score_row *row = state->row;
    assert(state->scale > 0);
    if (!pick_wants_scaled(row)) return;
    if (row->temperature > 0) sum_block(&state->scaled, kernels, logits, n, largest, state->scale);
    else state->scaled = state->plain;
}

/* The sum without confidence_suppressed; hides them in the block, so it comes last. */
static void sum_unsuppressed(struct pick_state *state, const struct cpu_kernels *kernels,
                             int32_t first_id, float *logits, int32_t n)
{
    const struct score_row *row = state->row;
    const int32_t *ids = row->confidence_suppressed;
    int32_t n_ids = row->n_confidence_suppressed;
    if (!pick_has_confidence_suppressed(row)) return;
    assert(n > 0);
    bool is_broken;
    if (holds_any(first_id, n, ids, n_ids)) suppress(logits, first_id, n, ids, n_ids);
    sum_block(&state->unsuppressed, kernels, logits, n, kernels->largest(logits, n, &is_broken), 1);
}

static void see_block(struct pick_state *state, const struct cpu_kernels *kernels, int32_t first_id,
                      float *logits, int32_t n)
{
    const struct score_row *row = state->row;
    assert(n <= CPU_ID_BLOCK);
    suppress(logits, first_id, n, &state->mask_id, 1);
    suppress(logits, first_id, n, row->suppressed, row->n_suppressed);
    bool is_broken;
    float largest = kernels->largest(logits, n, &is_broken);
    state->broken |= is_broken;
    if (state->broken) return;

    if (largest > state->second) rank_block(state, first_id, logits, n);
    sum_block(&state->plain, kernels, logits, n, largest, 1);
    sum_scaled(state, kernels, logits, n, largest);
    if (row->temperature > 0 && !pick_has_filter(row))
        draw_block(state, kernels, first_id, logits, n);
    sum_unsuppressed(state, kernels, first_id, logits, n);
}

/* ---- groups of rows ---- */

/* Rows [pick_begin, pick_begin + n) of score that go through the vocabulary together, as many as
 * CPU_SCORE_ROWS lines of logits hold; with CFG a row has two lines, its own and the unconditional.
 */
struct group {
    struct cpu *cpu;
    const struct score_args *args;
    int32_t pick_begin, n;
    int32_t n_active; /* rows that need this pass, by index in the group */
    int32_t active[CPU_SCORE_ROWS], line[CPU_SCORE_ROWS];
    int32_t n_lines, hidden_row[CPU_SCORE_ROWS];
    int32_t first_id, n_ids, line_ids; /* this tile; logits are [n_lines, line_ids] */
};

static const struct score_row *row_of(const struct group *group, int32_t index)
{
    return &group->args->rows[group->pick_begin + index];
}

/* Takes rows from pick_begin on while their lines fit. */
static void fill_group(struct group *group)
{
    int32_t n_lines = 0;
    for (group->n = 0; group->pick_begin + group->n < group->args->n; group->n++) {
        n_lines += row_of(group, group->n)->uncond_row >= 0 ? 2 : 1;
        if (n_lines > CPU_SCORE_ROWS) break;
        group->active[group->n] = group->n;
        pick_init(&group->cpu->states[group->n], row_of(group, group->n), group->args->mask_id);
        group->cpu->kept[group->n].n = 0;
    }
    group->n_active = group->n;
    assert(group->n > 0);
}

/* ---- filters: from logits to few candidates ---- */

/* Has a pass of the filter told the first digits of its cut? */
static bool knows_cut(const struct pick_state *state)
{
    bool is_filter = state->pass == PICK_TOP_K || state->pass == PICK_TOP_P;
    return is_filter && state->cut.shift < 32 - CUT_BIN_BITS;
}

/* Notes the ids that this cut, or any later one, can keep. */
static void keep_candidates(struct cpu_kept *kept, const struct pick_state *state, int32_t first_id,
                            const float *logits, int32_t n)
{
    assert(knows_cut(state));
    for (int32_t i = 0; i < n && kept->n <= CPU_KEPT_MAX; i++) {
        if (cut_key(logits[i]) < state->cut.key) continue;
        if (kept->n < CPU_KEPT_MAX) {
            kept->id[kept->n] = first_id + i;
            kept->logit[kept->n] = logits[i];
        }
        kept->n++;
    }
}

/* The passes that are left, over the candidates alone: pick_feed would skip every other id. */
static void finish_kept(struct pick_state *state, struct cpu_kept *kept)
{
    assert(kept->n <= CPU_KEPT_MAX);
    do {
        for (int32_t i = 0; i < kept->n; i++)
            pick_feed(state, kept->id[i], &kept->logit[i], 1);
    } while (pick_again(state));
}

/* Ends the pass of an active row. */
static void end_row(void *context, int32_t item, int32_t worker)
{
    (void)worker;
    struct group *group = context;
    int32_t index = group->active[item];
    struct pick_state *state = &group->cpu->states[index];
    struct cpu_kept *kept = &group->cpu->kept[index];
    assert(state->pass != PICK_DONE);
    bool has_all = knows_cut(state) && kept->n <= CPU_KEPT_MAX;
    if (pick_again(state) && has_all) finish_kept(state, kept);
    kept->n = 0;
}

/* ---- passes ---- */

static void feed_row(void *context, int32_t item, int32_t worker)
{
    (void)worker;
    const struct group *group = context;
    struct cpu *cpu = group->cpu;
    struct pick_state *state = &cpu->states[group->active[item]];
    float *logits = cpu->logits + (size_t)group->line[item] * (size_t)group->line_ids;
    assert(group->line[item] < group->n_lines);
    if (state->row->uncond_row >= 0)
        pick_guide(logits, logits + group->line_ids, group->n_ids, state->row->cfg_scale);
    if (state->pass != PICK_STATISTICS) {
        struct cpu_kept *kept = &cpu->kept[group->active[item]];
        pick_feed(state, group->first_id, logits, group->n_ids);
        if (knows_cut(state)) keep_candidates(kept, state, group->first_id, logits, group->n_ids);
        return;
    }
    for (int32_t i = 0; i < group->n_ids; i += CPU_ID_BLOCK) {
        int32_t n = group->n_ids - i < CPU_ID_BLOCK ? group->n_ids - i : CPU_ID_BLOCK;
        see_block(state, cpu->kernels, group->first_id + i, logits + i, n);
    }
}

/* One pass over the vocabulary for the active rows. Tiles are whole blocks, so which logits share a
 * block does not depend on how many rows there are. */
static void run_pass(struct group *group)
{
    const struct score_args *args = group->args;
    struct cpu *cpu = group->cpu;
    group->n_lines = 0;
    for (int32_t i = 0; i < group->n_active; i++) {
        int32_t index = group->active[i];
        group->line[i] = group->n_lines;
        group->hidden_row[group->n_lines++] = group->pick_begin + index;
        int32_t uncond_row = row_of(group, index)->uncond_row;
        if (uncond_row >= 0) group->hidden_row[group->n_lines++] = uncond_row;
    }
    group->line_ids = CPU_SCORE_LOGITS / group->n_lines / CPU_ID_BLOCK * CPU_ID_BLOCK;
    assert(group->line_ids >= CPU_ID_BLOCK);
    for (group->first_id = 0; group->first_id < args->n_vocab; group->first_id += group->line_ids) {
        int32_t n_left = args->n_vocab - group->first_id;
        group->n_ids = n_left < group->line_ids ? n_left : group->line_ids;
        cpu_multiply(cpu, &(struct cpu_matmul){.out = cpu->logits,
                                               .out_stride = (size_t)group->line_ids,
                                               .x = args->hidden.data,
                                               .row_index = group->hidden_row,
                                               .n_rows = group->n_lines,
                                               .weight = args->head,
                                               .out_begin = group->first_id,
                                               .n_out = group->n_ids});
        workers_for(cpu->workers, group->n_active, feed_row, group);
    }
}

static void drop_done(struct group *group)
{
    int32_t n = 0;
    workers_for(group->cpu->workers, group->n_active, end_row, group);
    for (int32_t i = 0; i < group->n_active; i++) {
        int32_t index = group->active[i];
        if (group->cpu->states[index].pass != PICK_DONE) group->active[n++] = index;
    }
    assert(n <= group->n_active);
    group->n_active = n;
}

void cpu_score(struct backend *backend, const struct score_args *args)
{
    struct cpu *cpu = cpu_of(backend);
    assert(args->n_vocab <= args->head.n_out);
    struct group group = {.cpu = cpu, .args = args};
    for (; group.pick_begin < args->n; group.pick_begin += group.n) {
        fill_group(&group);
        while (group.n_active > 0) {
            run_pass(&group);
            drop_done(&group);
        }
        for (int32_t i = 0; i < group.n; i++)
            args->picks[group.pick_begin + i] = pick_finish(&cpu->states[i]);
    }
}
