/* Workloads from traces, devices as the program sizes them, and plans of both. */
#include "tools/bench_scene.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/planning.h"
#include "app/trace.h"

#define BLOCK        32
#define MACHINES_MAX 64

/* A device as the program sizes it, kept between scenes. */
struct machine {
    const char *profile;
    int32_t n_rows_max;
    double half_rows;
    bool is_monolithic;
    struct options flags;
    struct planning planning;
};

static struct machine machines[MACHINES_MAX];
static int32_t n_machines;
static struct phases phases[SCENE_REQUESTS_MAX];
static uint64_t arrival_ns[SCENE_REQUESTS_MAX];
static int32_t stop_after[SCENE_REQUESTS_MAX];

static void stop_at(bool failed, const struct error *err)
{
    if (!failed) return;
    fprintf(stderr, "bench_plan: %s\n", err->message);
    exit(1);
}

/* ---- workloads ---- */

static void add_row(struct workload *workload, const struct trace_row *row)
{
    int32_t i = workload->n_requests;
    bool fits = row->n_prompt > 0 && row->n_prompt + workload->n_output_max <= 4096;
    workload->n_skipped += !fits;
    if (!fits) return;
    workload->n_requests++;
    workload->n_prompt[i] = row->n_prompt;
    int32_t n_output = row->n_output < 1 ? 1 : row->n_output;
    workload->n_output[i] = n_output < workload->n_output_max ? n_output : workload->n_output_max;
    workload->stamp_ns[i] = row->stamp_ns;
}

bool workload_read(struct workload *workload, const char *name, int32_t n_output_max,
                   const char *path)
{
    static char line[1 << 16];
    struct trace trace = {0};
    struct error err = {0};
    struct arena arena;
    FILE *file = fopen(path, "r");
    *workload = (struct workload){.name = name, .n_output_max = n_output_max};
    if (!file) return false;
    stop_at(!arena_create(&arena, 1 << 20, &err), &err);
    for (bool is_first = true; workload->n_requests < WORKLOAD_ROWS_MAX; is_first = false) {
        if (!fgets(line, sizeof line, file)) break;
        struct bytes text = {.data = line, .n = strcspn(line, "\r\n")};
        if (is_first) stop_at(!trace_learn(&trace, text, &arena, &err), &err);
        bool is_csv = trace.n_columns > 0;
        if (is_csv && is_first) continue;
        struct trace_row row;
        json_t *object = is_csv ? trace_parse(&trace, text, &err)
                                : json_loadb(text.data, text.n, JSON_ALLOW_NUL, NULL);
        stop_at(!object || !trace_read(&trace, object, &row, &err), &err);
        json_decref(object);
        add_row(workload, &row);
    }
    arena_destroy(&arena);
    fclose(file);
    return true;
}

/* ---- machines ---- */

/* The best rate stays, half of it is reached at `half_rows`. */
static void bend(struct cost_profile *profile, double half_rows)
{
    double best = profile->rates[profile->n_rates - 1].flops_per_s;
    profile->n_rates = 0;
    for (int32_t rows = 1; rows <= 65536; rows *= 2)
        profile->rates[profile->n_rates++] =
            (struct cost_rate){rows, best * rows / (rows + half_rows)};
}

static struct planning *machine_of(const struct scene *scene, int32_t n_rows_max)
{
    struct error err = {0};
    for (int32_t i = 0; i < n_machines; i++) {
        struct machine *machine = &machines[i];
        if (machine->profile == scene->profile && machine->n_rows_max == n_rows_max &&
            machine->half_rows == scene->half_rows &&
            machine->is_monolithic == scene->is_monolithic)
            return &machine->planning;
    }
    if (n_machines == MACHINES_MAX) exit(puts("too many machines"));
    struct machine *machine = &machines[n_machines++];
    *machine = (struct machine){.profile = scene->profile,
                                .n_rows_max = n_rows_max,
                                .half_rows = scene->half_rows,
                                .is_monolithic = scene->is_monolithic};
    options_init(&machine->flags, SUBCOMMAND_REPLAY);
    machine->flags.model = "llada-8b";
    machine->flags.profile = scene->profile;
    machine->flags.rows = n_rows_max;
    machine->flags.is_set[OPTION_rows] = true;
    machine->flags.logits = scene->is_monolithic ? "monolithic" : "tiled";
    struct planning *planning = &machine->planning;
    stop_at(!planning_open(planning, &machine->flags, &err), &err);
    if (scene->half_rows > 0) {
        struct cost_shape shape = planning->cost.shape;
        bend(&planning->profile, scene->half_rows);
        cost_init(&planning->cost, &planning->profile, &shape);
    }
    stop_at(!planning_size(planning, (int64_t)WORKLOAD_ROWS_MAX * 4096, &err), &err);
    return planning;
}

/* ---- scenes ---- */

static int32_t set_up(const struct scene *scene)
{
    const struct phases_model model = {.n_positions = 4096};
    const struct workload *workload = scene->workload;
    struct error err = {0};
    int32_t n = scene->n_requests > 0 ? scene->n_requests : workload->n_requests;
    for (int32_t i = 0; i < n; i++) {
        int32_t row = i % workload->n_requests, n_output = workload->n_output[row];
        bool knows = scene->outputs == OUTPUTS_LENGTHS;
        const struct decode_settings decode = {
            .gen_length = knows ? (n_output + BLOCK - 1) / BLOCK * BLOCK : workload->n_output_max,
            .block_length = BLOCK,
            .threshold = scene->tokens_per_step > 1 ? 0.9 : 0,
            .cache = scene->cache,
            .retention = 0.5,
            .delay = scene->delay,
            .prompt_refresh_every = scene->prompt_refresh_every,
            .suffix_window = scene->suffix_window};
        stop_at(!phases_init(&phases[i], workload->n_prompt[row], false, &decode, &model, &err),
                &err);
        stop_after[i] = n_output;
        arrival_ns[i] = workload->stamp_ns[row];
    }
    const struct trace_schedule schedule = {.rate = scene->rate};
    if (scene->rate > 0) stop_at(!trace_arrange(arrival_ns, n, &schedule, &err), &err);
    return n;
}

static struct score score_of(const struct scene *scene, const struct plan *plan,
                             const struct plan_input *input)
{
    struct arena scratch;
    struct plan_bounds bounds = {0};
    struct plan_input planned = *input;
    int64_t n_tokens = 0;
    if (!arena_create(&scratch, (size_t)1 << 24, NULL)) exit(1);
    planned.options = plan->options;
    if (scene->rate == 0) plan_bounds(&bounds, &planned);
    for (int32_t i = 0; i < input->n_requests; i++)
        n_tokens += scene->workload->n_output[i % scene->workload->n_requests];
    double s = (double)plan->makespan_ns;
    struct score score = {.tokens_per_s = 1e9 * (double)plan->n_tokens / s,
                          .useful_per_s = 1e9 * (double)n_tokens / s,
                          .positions_per_token =
                              (double)plan->total.n_rows / (double)plan->n_tokens,
                          .makespan_s = 1e-9 * s,
                          .of_bound_memory = s / (double)bounds.memory_ns,
                          .of_bound = s / (double)bounds.plain_ns,
                          .latency = plan_latency(plan, &scratch),
                          .options = plan->options};
    arena_destroy(&scratch);
    return score;
}

struct plan_input scene_input(const struct scene *scene, int32_t n_rows_max)
{
    struct planning *planning = machine_of(scene, n_rows_max);
    struct plan_input input = planning->input;
    input.keeps_runs = false;
    input.n_requests = set_up(scene);
    input.phases = phases;
    input.arrival_ns = scene->rate > 0 ? arrival_ns : NULL;
    input.is_online = scene->rate > 0;
    input.stop_after = scene->outputs == OUTPUTS_FULL ? NULL : stop_after;
    input.tokens_per_step = scene->tokens_per_step;
    input.options = scene->options;
    input.options.n_rows_max = n_rows_max;
    input.options.n_slots = planning->input.options.n_slots;
    input.options.tokens_per_step = scene->tokens_per_step;
    return input;
}

static struct score play_with(const struct scene *scene, int32_t n_rows_max)
{
    struct plan_input input = scene_input(scene, n_rows_max);
    struct error err = {0};
    struct plan plan;
    bool ok = scene->has_one_candidate ? plan_make(&plan, &input, &err)
                                       : plan_make_best(&plan, &input, &err);
    stop_at(!ok, &err);
    struct score score = score_of(scene, &plan, &input);
    plan_clear(&plan);
    return score;
}

static bool is_better(const struct score *a, const struct score *b, enum objective objective)
{
    if (objective == OBJECTIVE_MEAN) return a->latency.mean_s < b->latency.mean_s;
    if (objective == OBJECTIVE_TAIL) return a->latency.p99_s < b->latency.p99_s;
    return a->makespan_s < b->makespan_s;
}

struct score scene_play(const struct scene *scene)
{
    struct score best = play_with(scene, scene->n_rows_max);
    if (scene->options.policy != POLICY_STATIC) return best;
    for (int32_t rows = 2 * scene->n_rows_max; rows <= 32768; rows *= 2) {
        struct score score = play_with(scene, rows);
        if (is_better(&score, &best, scene->options.objective)) best = score;
    }
    return best;
}
