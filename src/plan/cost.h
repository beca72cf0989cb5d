/* Device profile and model shape to the time of an iteration, and lower bounds on a makespan
 *. Pure: profiles are read and measured by the app.
 *
 *     t = t0 + max(F_linear / pi(rows), W / beta)
 *            + max(F_attention / pi_attention, bytes of K,V / beta)
 *            + max(F_head / pi(picks), W_head / beta)
 *
 * pi(n): the measured rate of the matrix products at n rows, interpolated; beta: bandwidth. */
#ifndef PLAN_COST_H
#define PLAN_COST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan/phases.h"

#define COST_RATES_MAX 24
#define COST_NAME_MAX  64

/* One machine, as data/profiles or `dllm-batch profile` describe it. */
struct cost_profile {
    char name[COST_NAME_MAX];
    bool is_measured; /* false: from a datasheet */
    double base_ns;   /* t0: what an iteration costs before any row */
    double bytes_per_s;
    double attention_flops_per_s;
    int32_t n_rates;
    struct cost_rate {
        int32_t n_rows; /* ascending */
        double flops_per_s;
    } rates[COST_RATES_MAX]; /* at least one; the rate is flat outside them */
    uint64_t memory_bytes;
    double kv_element_bytes; /* of K and V in that machine's cache: 2 for bf16 */
};

/* What of a model costs time and memory. */
struct cost_shape {
    int32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn, n_vocab;
    double weight_element_bytes; /* 2: bf16 */
    double kv_element_bytes;
};

/* What one iteration does; the sum over its requests' steps. */
struct iteration_load {
    int64_t n_rows;      /* through the layers, padding and twins counted */
    int64_t n_picks;     /* rows that meet the vocabulary, twins counted */
    int64_t row_keys;    /* sum over rows of the keys that each sees */
    int64_t cached_rows; /* rows per KV head read from the cache, in each layer */
};

struct cost_model {
    struct cost_profile profile;
    struct cost_shape shape;
    /* Derived once by cost_init. */
    double linear_flops_per_row, linear_bytes;      /* matrices of all layers */
    double head_flops_per_pick, head_bytes;         /* the vocabulary's matrix */
    double attention_flops_per_row_key, slot_bytes; /* all layers; one cached position */
};

void cost_init(struct cost_model *model, const struct cost_profile *profile,
               const struct cost_shape *shape);

/* Adds one step of a request; `n_picks` masked cells meet the vocabulary. */
void cost_add_step(struct iteration_load *load, const struct phases *phases,
                   const struct step_shape *shape, int32_t n_picks);

/* Floating-point operations of a load: what it costs on no machine in particular. The model's
 * profile does not matter. */
double cost_flops(const struct cost_model *model, const struct iteration_load *load);

#define COST_NS_MAX 0x1p60 /* 36 years: what a profile that means no machine comes to */

/* Nanoseconds of an iteration, at most COST_NS_MAX; 0 for an empty one. */
uint64_t cost_iteration_ns(const struct cost_model *model, const struct iteration_load *load);

#define COST_KNEE_ROWS_MAX (1 << 30)

/* Rows from which on the linear work of an iteration takes longer than reading the weights, at most
 * COST_KNEE_ROWS_MAX: a profile may say that memory is as slow as nothing is. */
int32_t cost_knee_rows(const struct cost_model *model);

/* Least rows of an iteration that get through at least this share of the rows per second that the
 * most of the table do. */
int32_t cost_rows_reaching(const struct cost_model *model, double share);

/* ---- lower bounds ---- */

/* Sums over all steps of all requests, filled by whoever knows the steps (plan/plan.c). */
struct cost_totals {
    struct iteration_load load;
    int64_t longest_chain; /* steps of the request that has most */
    int64_t slot_steps;    /* sum over steps of the KV slots that must be held during it */
    int64_t n_steps;
};

/* No schedule is faster (ns): in at least as many iterations as the longest chain has steps, each
 * of which costs t0 and reads the weights, all work at the best rates that so many allow. */
uint64_t cost_bound_ns(const struct cost_model *model, const struct cost_totals *totals);

/* The same, counting memory and room: also at least slot_steps / n_slots and rows / n_rows_max
 * iterations, and no rate that takes more than n_rows_max rows. */
uint64_t cost_bound_memory_ns(const struct cost_model *model, const struct cost_totals *totals,
                              int64_t n_slots, int32_t n_rows_max);

#endif
