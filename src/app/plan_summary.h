/* A plan in a few figures, for one policy or several side by side. */
#ifndef APP_PLAN_SUMMARY_H
#define APP_PLAN_SUMMARY_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "plan/plan.h"

#define PLAN_SUMMARY_FIGURES 24

struct plan_summary {
    enum policy policy;                  /* that was asked for; the plan may be another's */
    const char *clock;                   /* that its times are of */
    const struct plan *plan;             /* borrowed */
    double values[PLAN_SUMMARY_FIGURES]; /* in the order of the table in plan_summary.c */
    double efficiency;                   /* the better lower bound / the makespan */
};

/* Figures of `plan`, which has iterations; the lower bounds are the input's (unknown without a cost
 * model), and finding it took `spent_ns`. Policy and clock are the caller's. `scratch` is rewound.
 * False: out of memory, or an empty plan. */
bool plan_summary_take(struct plan_summary *summary, const struct plan *plan,
                       const struct plan_input *input, uint64_t spent_ns, struct arena *scratch);

/* A table with a column for each of `n` summaries. For people, not a format. */
void plan_summary_print(const struct plan_summary *summaries, int32_t n, FILE *stream);

/* The same as an object; dllm-batch(5) specifies it. */
json_t *plan_summary_json(const struct plan_summary *summary);

#endif
