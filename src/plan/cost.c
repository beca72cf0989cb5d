/* The formulas of the header. Rates are interpolated between the rows at which they were measured;
 * what is saved in the last layer, where only picked rows go on, is not counted. */
#include "plan/cost.h"

#include <assert.h>
#include <math.h>

void cost_init(struct cost_model *model, const struct cost_profile *profile,
               const struct cost_shape *shape)
{
    assert(profile->n_rates > 0);
    assert(profile->bytes_per_s > 0);
    double heads = (double)shape->n_heads * shape->head_dim;
    double kv = (double)shape->n_kv_heads * shape->head_dim;
    double weights = (2 * heads + 2 * kv + 3 * (double)shape->ffn) * shape->hidden;
    double head = (double)shape->hidden * shape->n_vocab;
    *model = (struct cost_model){
        .profile = *profile,
        .shape = *shape,
        .linear_flops_per_row = 2 * weights * shape->n_layers,
        .linear_bytes = weights * shape->n_layers * shape->weight_element_bytes,
        .head_flops_per_pick = 2 * head,
        .head_bytes = head * shape->weight_element_bytes,
        .attention_flops_per_row_key = 4 * heads * shape->n_layers,
        .slot_bytes = 2 * kv * shape->n_layers * shape->kv_element_bytes,
    };
}

void cost_add_step(struct iteration_load *load, const struct phases *phases,
                   const struct step_shape *shape, int32_t n_picks)
{
    int64_t n_twins = phases->n_twins;
    assert(n_picks >= 0);
    load->n_rows += n_twins * shape->n_rows;
    load->n_picks += n_twins * n_picks;
    load->row_keys += n_twins * shape->n_rows * ((int64_t)shape->n_rows + shape->n_cached);
    load->cached_rows += n_twins * shape->n_cached;
}

double cost_flops(const struct cost_model *model, const struct iteration_load *load)
{
    assert(load->n_rows >= 0);
    return (double)load->n_rows * model->linear_flops_per_row +
           (double)load->n_picks * model->head_flops_per_pick +
           (double)load->row_keys * model->attention_flops_per_row_key;
}

/* pi(n): linear between the rows of the table, flat outside. */
static double rate_at(const struct cost_profile *profile, double n_rows)
{
    const struct cost_rate *rates = profile->rates;
    int32_t i = 0, last = profile->n_rates - 1;
    assert(last >= 0);
    if (n_rows <= rates[0].n_rows) return rates[0].flops_per_s;
    if (n_rows >= rates[last].n_rows) return rates[last].flops_per_s;
    while (rates[i + 1].n_rows < n_rows)
        i++;
    double share = (n_rows - rates[i].n_rows) / (rates[i + 1].n_rows - rates[i].n_rows);
    return rates[i].flops_per_s + share * (rates[i + 1].flops_per_s - rates[i].flops_per_s);
}

/* The best rate that up to n_rows rows can reach. */
static double best_rate(const struct cost_profile *profile, int32_t n_rows)
{
    double best = rate_at(profile, n_rows);
    assert(profile->n_rates <= COST_RATES_MAX);
    for (int32_t i = 0; i < profile->n_rates && profile->rates[i].n_rows <= n_rows; i++)
        best = fmax(best, profile->rates[i].flops_per_s);
    return best;
}

static double linear_s(const struct cost_model *model, double n_rows)
{
    const struct cost_profile *profile = &model->profile;
    assert(n_rows >= 0);
    return fmax(n_rows * model->linear_flops_per_row / rate_at(profile, n_rows),
                model->linear_bytes / profile->bytes_per_s);
}

static double attention_s(const struct cost_model *model, const struct iteration_load *load)
{
    const struct cost_profile *profile = &model->profile;
    assert(load->row_keys >= 0);
    double flops = (double)load->row_keys * model->attention_flops_per_row_key;
    double bytes = (double)load->cached_rows * model->slot_bytes;
    return fmax(flops / profile->attention_flops_per_s, bytes / profile->bytes_per_s);
}

static double head_s(const struct cost_model *model, double n_picks)
{
    const struct cost_profile *profile = &model->profile;
    if (!(n_picks > 0)) return 0;
    assert(model->head_bytes > 0);
    return fmax(n_picks * model->head_flops_per_pick / rate_at(profile, n_picks),
                model->head_bytes / profile->bytes_per_s);
}

uint64_t cost_iteration_ns(const struct cost_model *model, const struct iteration_load *load)
{
    assert(load->n_rows >= 0);
    if (load->n_rows == 0) return 0;
    double s = linear_s(model, (double)load->n_rows) + attention_s(model, load) +
               head_s(model, (double)load->n_picks);
    return (uint64_t)fmin(model->profile.base_ns + 1e9 * s + 0.5, COST_NS_MAX);
}

int32_t cost_rows_reaching(const struct cost_model *model, double share)
{
    int32_t most = model->profile.rates[model->profile.n_rates - 1].n_rows;
    struct iteration_load load = {.n_rows = most};
    double ns_per_row = (double)cost_iteration_ns(model, &load) / (share * most);
    assert(share > 0 && share <= 1);
    for (load.n_rows = 1; load.n_rows < most; load.n_rows++)
        if ((double)cost_iteration_ns(model, &load) <= ns_per_row * (double)load.n_rows) break;
    return (int32_t)load.n_rows;
}

/* Below the last row of the table a rate may fall at the edge of a tile, so that the work crosses
 * the time to read several times: the last crossing counts. */
int32_t cost_knee_rows(const struct cost_model *model)
{
    struct cost_rate last = model->profile.rates[model->profile.n_rates - 1];
    double read_s = model->linear_bytes / model->profile.bytes_per_s;
    double at_last_rate = read_s * last.flops_per_s / model->linear_flops_per_row;
    assert(read_s > 0);
    if (at_last_rate >= COST_KNEE_ROWS_MAX) return COST_KNEE_ROWS_MAX;
    int32_t n_rows = last.n_rows > at_last_rate ? last.n_rows : (int32_t)at_last_rate + 2;
    while (n_rows > 1 && linear_s(model, n_rows - 1) > read_s)
        n_rows--;
    return n_rows;
}

/* ---- lower bounds ---- */

/* At least what n_rows rows of `flops` each take in n_iterations or more, each of 1 to n_rows_max
 * rows: where r rows always take a + b r or more (a, b >= 0), all take a n_iterations + b n_rows or
 * more. Of the lines through two points of the curve the best one counts. Rates are taken as if
 * they never fell: between rows of the table the curve is then concave, or falls itself, so that it
 * is above every line that those rows are above. */
static double spread_s(const struct cost_profile *profile, double flops, double n_rows,
                       double n_iterations, int32_t n_rows_max)
{
    double rows[COST_RATES_MAX + 2] = {1, n_rows_max}, s[COST_RATES_MAX + 2];
    double least = n_rows * flops / best_rate(profile, n_rows_max);
    int32_t n = 2;
    for (int32_t i = 0; i < profile->n_rates; i++)
        if (profile->rates[i].n_rows < n_rows_max) rows[n++] = profile->rates[i].n_rows;
    assert(n <= COST_RATES_MAX + 2);
    for (int32_t i = 0; i < n; i++)
        s[i] = rows[i] * flops / best_rate(profile, (int32_t)rows[i]);
    for (int32_t i = 0; i < n * n; i++) {
        double from = rows[i / n], to = rows[i % n];
        if (from >= to) continue;
        double b = (s[i % n] - s[i / n]) / (to - from), a = s[i % n] - b * to;
        for (int32_t k = 0; k < n; k++)
            a = fmin(a, s[k] - b * rows[k]);
        if (a >= 0 && b >= 0) least = fmax(least, a * n_iterations + b * n_rows);
    }
    return least;
}

/* All work in n_iterations that each cost t0, the weights, and rates as low as their few rows have.
 * Within an iteration linear work and weights overlap, so the larger of the sums bounds. */
static double work_s(const struct cost_model *model, const struct cost_totals *totals,
                     double n_iterations, int32_t n_rows_max)
{
    const struct cost_profile *profile = &model->profile;
    const struct iteration_load *load = &totals->load;
    assert(n_iterations >= 1);
    double linear = fmax(spread_s(profile, model->linear_flops_per_row, (double)load->n_rows,
                                  n_iterations, n_rows_max),
                         n_iterations * model->linear_bytes / profile->bytes_per_s);
    double head = fmax(spread_s(profile, model->head_flops_per_pick, (double)load->n_picks,
                                n_iterations, n_rows_max),
                       n_iterations * model->head_bytes / profile->bytes_per_s);
    return n_iterations * profile->base_ns * 1e-9 + linear + head + attention_s(model, load);
}

uint64_t cost_bound_ns(const struct cost_model *model, const struct cost_totals *totals)
{
    assert(totals->n_steps >= totals->longest_chain);
    return (uint64_t)(1e9 * work_s(model, totals, (double)totals->longest_chain, INT32_MAX));
}

uint64_t cost_bound_memory_ns(const struct cost_model *model, const struct cost_totals *totals,
                              int64_t n_slots, int32_t n_rows_max)
{
    double n_iterations = (double)totals->longest_chain;
    assert(n_rows_max > 0);
    n_iterations = fmax(n_iterations, ceil((double)totals->load.n_rows / n_rows_max));
    if (n_slots > 0)
        n_iterations = fmax(n_iterations, ceil((double)totals->slot_steps / (double)n_slots));
    return (uint64_t)(1e9 * work_s(model, totals, n_iterations, n_rows_max));
}
