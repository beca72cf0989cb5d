/* Sums are in the plan already; this adds distributions, bounds and print. */
#include "app/plan_summary.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "app/figures.h"
#include "app/plan_view.h"

static const struct figure figures[] = {
    {"iterations", "iterations", 0},
    {"rows_mean", "rows per iteration, mean", 1},
    {"rows_p10", "  10 %", 0},
    {"rows_p50", "  50 %", 0},
    {"rows_p90", "  90 %", 0},
    {"rows_max", "  most", 0},
    {"refresh_percent", "rows in Refresh, %", 1},
    {"reuse_percent", "rows in Reuse, %", 1},
    {"padding_percent", "rows of padding, %", 1},
    {"kv_mean_percent", "KV slots held, mean %", 1},
    {"kv_max_percent", "  most %", 1},
    {"positions_per_token", "positions per token (PPT)", 2},
    {"makespan_s", "makespan, s", 3},
    {"bound_s", "lower bound, s", 3},
    {"bound_memory_s", "  with memory and rows, s", 3},
    {"efficiency_percent", "efficiency, %", 1},
    {"tokens_per_s", "tokens per s", 1},
    {"latency_mean_s", "latency, mean s", 3},
    {"latency_p50_s", "  p50 s", 3},
    {"latency_p90_s", "  p90 s", 3},
    {"latency_p99_s", "  p99 s", 3},
    {"batch_size", "requests at a time (0: any)", 0},
    {"rows_target", "starts blocks below rows", 0},
    {"planning_s", "planning, s", 3},
};
static_assert(sizeof figures / sizeof *figures == PLAN_SUMMARY_FIGURES, "a name for each value");

static double percent(double part, double whole)
{
    assert(part >= 0);
    return whole > 0 ? 100 * part / whole : 0;
}

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

bool plan_summary_take(struct plan_summary *summary, const struct plan *plan,
                       const struct plan_input *input, uint64_t spent_ns, struct arena *scratch)
{
    assert(plan->iterations != NULL);
    size_t mark_bytes = scratch->used_bytes;
    double *values = arena_try_push(scratch, (size_t)plan->n_iterations, sizeof *values);
    double held = 0, peak = 0, pool = (double)plan->options.n_slots;
    struct figures_spread rows;
    struct plan_bounds bounds;
    if (values == NULL || plan->n_iterations == 0) return false;
    for (int64_t i = 0; i < plan->n_iterations; i++) {
        const struct plan_iteration_record *record = &plan->iterations[i];
        double slots = (double)record->slots_held;
        values[i] = record->n_rows + record->n_pad_rows;
        held += slots * seconds(record->end_ns - record->start_ns);
        if (slots > peak) peak = slots;
    }
    figures_spread(&rows, values, plan->n_iterations);
    arena_rewind(scratch, mark_bytes);
    struct plan_latency latency = plan_latency(plan, scratch);
    double makespan = seconds(plan->makespan_ns), bound = NAN, bound_room = NAN;
    if (input->cost != NULL) {
        plan_bounds(&bounds, input);
        bound = seconds(bounds.plain_ns);
        bound_room = seconds(bounds.memory_ns);
    }
    const struct planner_options *options = &plan->options;
    double n_rows = (double)plan->total.n_rows, n_tokens = (double)plan->n_tokens;
    double refresh = percent((double)plan->n_refresh_rows, n_rows);
    double pad = percent((double)plan->n_pad_rows, n_rows), reuse = 100 - refresh - pad;
    double kv_mean = percent(held, pool * makespan), kv_most = percent(peak, pool);
    double ppt = percent(n_rows, n_tokens) / 100, speed = n_tokens / makespan;
    double best = 100 * fmax(bound, bound_room) / makespan;
    double n = (double)plan->n_iterations, batch = options->n_running_max,
           spent = seconds(spent_ns);
    double target = options->n_rows_target > 0 ? options->n_rows_target : options->n_rows_max;
    double mean = latency.mean_s, p50 = latency.p50_s, p90 = latency.p90_s, p99 = latency.p99_s;
    const double all[] = {n,        rows.mean, rows.p10,   rows.p50, rows.p90, rows.most,
                          refresh,  reuse,     pad,        kv_mean,  kv_most,  ppt,
                          makespan, bound,     bound_room, best,     speed,    mean,
                          p50,      p90,       p99,        batch,    target,   spent};
    static_assert(sizeof all == sizeof summary->values, "a value for each name");
    summary->plan = plan;
    summary->efficiency = best / 100;
    memcpy(summary->values, all, sizeof all);
    return true;
}

void plan_summary_print(const struct plan_summary *summaries, int32_t n, FILE *stream)
{
    const double *columns[8];
    assert(n > 0 && n <= 8);
    fprintf(stream, "%-32s", "policy");
    for (int32_t i = 0; i < n; i++) {
        columns[i] = summaries[i].values;
        fprintf(stream, "%13s", plan_view_policy_name(summaries[i].policy));
    }
    fprintf(stream, "\n%-32s", "best found by");
    for (int32_t i = 0; i < n; i++)
        fprintf(stream, "%13s", plan_view_policy_name(summaries[i].plan->options.policy));
    fprintf(stream, "\n%-32s", "clock");
    for (int32_t i = 0; i < n; i++)
        fprintf(stream, "%13s", summaries[i].clock);
    fputc('\n', stream);
    figures_print(figures, PLAN_SUMMARY_FIGURES, columns, n, stream);
}

json_t *plan_summary_json(const struct plan_summary *summary)
{
    assert(summary->plan != NULL);
    const struct planner_options *options = &summary->plan->options;
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I}", "clock", summary->clock, "policy",
        plan_view_policy_name(summary->policy), "found_by", plan_view_policy_name(options->policy),
        "objective", plan_view_objective_name(options->objective), "positions",
        (json_int_t)summary->plan->total.n_rows, "tokens", (json_int_t)summary->plan->n_tokens);
    figures_add(object, figures, PLAN_SUMMARY_FIGURES, summary->values);
    return object;
}
