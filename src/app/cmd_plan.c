/* dllm-batch plan: prompts to a plan on a profile's clock. Nothing is computed and no weights are
 * read:
 *
 *     model shape, profile ─► cost model, memory ─┐
 *     prompts ─► phases of each request ──────────┴► plan by each policy ─► tables, files
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/figures.h"
#include "app/plan_summary.h"
#include "app/plan_view.h"
#include "app/profile.h"
#include "app/prompts.h"
#include "app/settings.h"
#include "app/sink.h"
#include "backend/backend.h"
#include "base/clock.h"
#include "plan/memory.h"
#include "plan/plan.h"

#define FACTS_BYTES_MAX ((size_t)16 << 30) /* of address space */

enum { POLICIES = 3, ROWS_MIN = 1024, ROWS_MAX = 4096 };

struct planning {
    const struct options *options;
    const char *label;  /* of the input */
    struct arena facts; /* configuration; scratch */
    struct model_config config;
    struct tokenizer *tokenizer; /* NULL: none */
    struct cost_profile profile;
    struct cost_model cost;
    struct memory_shape shape;
    struct memory_plan memory;
    uint64_t memory_limit;
    int32_t n_requests, n_requests_max;
    struct phases *phases; /* [n_requests] and below: heap */
    int64_t *line_indexes;
    int64_t n_bad, n_cells, n_generate;
    struct plan_input input;
    int32_t n_results; /* the chosen policy first */
    struct plan results[POLICIES];
    struct plan_summary summaries[POLICIES];
};

/* ---- what is planned for ---- */

static bool open_model(struct planning *planning, struct error *err)
{
    const struct options *options = planning->options;
    struct error problem = {0};
    assert(options->model != NULL);
    if (!profile_read_model(&planning->config, options->model, &planning->facts, err)) return false;
    if (!profile_read(&planning->profile, options->profile, err)) return false;
    struct cost_shape shape =
        profile_shape(&planning->config, sizeof(uint16_t), planning->profile.kv_element_bytes);
    cost_init(&planning->cost, &planning->profile, &shape);
    if (!tokenizer_open(&planning->tokenizer, options->model, &problem)) {
        planning->tokenizer = NULL;
        if (problem.code == ERROR_NO_INPUT) return true;
        *err = problem;
        return false;
    }
    app_learn_turn_end(&planning->config, planning->tokenizer);
    return true;
}

static int32_t choose_rows(const struct planning *planning)
{
    int32_t n_positions = planning->config.n_positions;
    assert(n_positions > 0);
    if (options_is_set(planning->options, OPTION_rows)) return planning->options->rows;
    if (n_positions < ROWS_MIN) return ROWS_MIN;
    return n_positions < ROWS_MAX ? n_positions : ROWS_MAX;
}

/* Sizes everything; the pool gets what is left, or what was asked for. */
static bool size_memory(struct planning *planning, struct error *err)
{
    const struct options *options = planning->options;
    const struct model_config *config = &planning->config;
    int32_t n_rows_max = planning->input.options.n_rows_max;
    struct memory_shape *shape = &planning->shape;
    bool is_limited = options_is_set(options, OPTION_memory);
    planning->memory_limit = is_limited ? options->memory : planning->profile.memory_bytes;
    *shape = (struct memory_shape){
        .n_layers = config->n_layers,
        .hidden = config->hidden,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .ffn = config->ffn,
        .n_positions = config->n_positions,
        .weight_bytes = (size_t)config_n_parameters(config) * sizeof(uint16_t),
        .n_rows_max = n_rows_max,
        .n_picks_max = n_rows_max,
        .pick_bytes = sizeof(struct pick),
        .n_cells_max = planning->n_cells,
        .n_monolithic_ids = strcmp(options->logits, "monolithic") == 0 ? config->n_vocab : 0,
        .kv_element_bytes = (int32_t)planning->profile.kv_element_bytes,
    };
    assert(planning->n_cells > 0);
    memory_size(&planning->memory, shape);
    if (!memory_check(&planning->memory, planning->memory_limit, err)) return false;
    size_t pool = planning->memory_limit - planning->memory.total_bytes;
    if (options_is_set(options, OPTION_kv_memory)) pool = options->kv_memory;
    shape->n_slots = (int64_t)(pool / planning->memory.slot_bytes);
    planning->input.options.n_slots = shape->n_slots;
    memory_size(&planning->memory, shape);
    return memory_check(&planning->memory, planning->memory_limit, err);
}

/* ---- requests ---- */

static bool grow(struct planning *planning, struct error *err)
{
    if (planning->n_requests < planning->n_requests_max) return true;
    int32_t n = planning->n_requests_max > 0 ? 2 * planning->n_requests_max : 1024;
    assert(n > planning->n_requests);
    struct phases *phases = reallocarray(planning->phases, (size_t)n, sizeof *planning->phases);
    if (phases != NULL) planning->phases = phases;
    int64_t *indexes =
        reallocarray(planning->line_indexes, (size_t)n, sizeof *planning->line_indexes);
    if (indexes != NULL) planning->line_indexes = indexes;
    if (phases == NULL || indexes == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for %" PRId32 " requests", n);
    planning->n_requests_max = n;
    return true;
}

static void note_bad(struct planning *planning, int64_t line, const char *message)
{
    assert(message != NULL);
    if (planning->n_bad++ == 0)
        fprintf(stderr, "dllm-batch: the first bad line is %s:%" PRId64 ": %s\n", planning->label,
                line, message);
}

static bool add_prompt(struct planning *planning, const struct prompt *prompt, struct error *err)
{
    struct error problem = {0};
    const struct phases_model model = {.n_positions = planning->config.n_positions,
                                       .shift = planning->config.shift};
    if (prompt->code != PROMPT_GOOD) {
        note_bad(planning, prompt->line, prompt->message);
        return true;
    }
    if (prompt->n_masks > 0) {
        note_bad(planning, prompt->line, "a prompt that is filled in has no plan ahead of time");
        return true;
    }
    if (!grow(planning, err)) return false;
    struct phases *phases = &planning->phases[planning->n_requests];
    assert(prompt->request.n_prompt > 0);
    if (!phases_init(phases, prompt->request.n_prompt, false, &prompt->request.decode, &model,
                     &problem)) {
        note_bad(planning, prompt->line, problem.message);
        return true;
    }
    planning->line_indexes[planning->n_requests++] = prompt->index;
    planning->n_cells += prompt->n_cells;
    planning->n_generate += prompt->n_generate;
    return true;
}

static bool read_prompts(struct planning *planning, struct error *err)
{
    const struct prompts_options options = {
        .path = planning->options->operand != NULL ? planning->options->operand : "-",
        .flags = planning->options,
        .config = &planning->config,
        .tokenizer = planning->tokenizer};
    struct prompts *prompts = NULL;
    struct prompt prompt;
    enum prompts_status status;
    bool is_ok = true;
    assert(planning->n_requests == 0);
    if (!prompts_open(&prompts, &options, err)) return false;
    while (is_ok && (status = prompts_next(prompts, &prompt, err)) != PROMPTS_END)
        is_ok = status == PROMPTS_READ && add_prompt(planning, &prompt, err);
    prompts_close(prompts);
    if (is_ok && planning->n_requests == 0)
        return error_set(err, ERROR_FORMAT, "%s has no prompts that can be planned",
                         planning->label);
    return is_ok;
}

/* Takes out requests that can never run: with memory and rows known. */
static bool drop_impossible(struct planning *planning, struct error *err)
{
    int32_t n_kept = 0;
    assert(planning->n_requests > 0);
    for (int32_t i = 0; i < planning->n_requests; i++) {
        struct error problem = {0};
        if (!planner_check(&planning->input.options, &planning->phases[i], &problem)) {
            note_bad(planning, planning->line_indexes[i] + 1, problem.message);
            *err = problem;
            continue;
        }
        planning->phases[n_kept] = planning->phases[i];
        planning->line_indexes[n_kept++] = planning->line_indexes[i];
    }
    planning->n_requests = n_kept;
    return n_kept > 0;
}

/* ---- plans ---- */

static bool make_plan(struct planning *planning, enum policy policy, struct error *err)
{
    int32_t i = planning->n_results;
    struct plan *plan = &planning->results[i];
    struct plan_input input = planning->input;
    uint64_t begin_ns = clock_now_ns();
    assert(i < POLICIES);
    input.options.policy = policy;
    planning->n_results++;
    bool is_ok = plan_make_best(plan, &input, err);
    uint64_t spent_ns = clock_now_ns() - begin_ns;
    if (!is_ok) return false;
    input.options = plan->options;
    if (!plan_check(plan, &input, &planning->facts, err)) return false;
    if (plan_summary_take(&planning->summaries[i], plan, &input, spent_ns, &planning->facts)) {
        planning->summaries[i].policy = policy;
        return true;
    }
    return error_set(err, ERROR_UNAVAILABLE, "not enough memory to summarise the plan");
}

static bool make_plans(struct planning *planning, struct error *err)
{
    enum policy chosen = settings_policy(planning->options->policy);
    assert(planning->n_results == 0);
    planning->input.n_requests = planning->n_requests;
    planning->input.phases = planning->phases;
    planning->input.options.n_requests_max = planning->n_requests;
    if (!make_plan(planning, chosen, err)) return false;
    for (int i = POLICIES - 1; planning->options->compare && i >= 0; i--)
        if (i != (int)chosen && !make_plan(planning, (enum policy)i, err)) return false;
    return true;
}

/* ---- output ---- */

static const struct figure memory_figures[] = {
    {"weights", "weights", 1}, {"cache", "KV cache", 1},     {"activations", "activations", 1},
    {"scores", "scores", 1},   {"canvases", "canvases", 1},  {"logits", "logits as a whole", 1},
    {"total", "total", 1},     {"limit", "  of at most", 1},
};

enum { MEMORY_FIGURES = sizeof memory_figures / sizeof *memory_figures };

static void take_memory(const struct planning *planning, double unit, double values[MEMORY_FIGURES])
{
    const struct memory_plan *memory = &planning->memory;
    const size_t bytes[MEMORY_FIGURES] = {memory->weights_bytes,    memory->cache_bytes,
                                          memory->activation_bytes, memory->score_bytes,
                                          memory->canvas_bytes,     memory->logits_bytes,
                                          memory->total_bytes,      (size_t)planning->memory_limit};
    assert(unit > 0);
    for (int i = 0; i < MEMORY_FIGURES; i++)
        values[i] = (double)bytes[i] / unit;
}

static void print_tables(const struct planning *planning)
{
    const struct cost_profile *profile = &planning->profile;
    double values[MEMORY_FIGURES];
    const double *column = values;
    assert(planning->n_results > 0);
    printf("model    %s\n", planning->options->model);
    printf("profile  %s, %s; weights stop mattering from %" PRId32 " rows on\n", profile->name,
           profile->is_measured ? "measured" : "from datasheets, not measured",
           cost_knee_rows(&planning->cost));
    printf("input    %" PRId32 " requests, %" PRId64 " tokens to generate, %" PRId64 " bad lines\n",
           planning->n_requests, planning->n_generate, planning->n_bad);
    printf("room     %" PRId32 " rows, %" PRId64 " KV slots of %zu bytes\n\n%-32s%13s\n",
           planning->shape.n_rows_max, planning->shape.n_slots, planning->memory.slot_bytes,
           "memory", "MiB");
    take_memory(planning, 1024 * 1024, values);
    figures_print(memory_figures, MEMORY_FIGURES, &column, 1, stdout);
    putchar('\n');
    plan_summary_print(planning->summaries, planning->n_results, stdout);
}

static bool print_json(const struct planning *planning, struct error *err)
{
    double values[MEMORY_FIGURES];
    json_t *plans = json_array(), *memory = json_object();
    assert(planning->n_results > 0);
    take_memory(planning, 1, values);
    figures_add(memory, memory_figures, MEMORY_FIGURES, values);
    for (int32_t i = 0; i < planning->n_results; i++)
        json_array_append_new(plans, plan_summary_json(&planning->summaries[i]));
    json_t *root =
        json_pack("{s:s, s:s, s:b, s:i, s:I, s:I, s:i, s:i, s:I, s:o, s:o}", "model",
                  planning->options->model, "profile", planning->profile.name, "measured",
                  planning->profile.is_measured, "requests", (int)planning->n_requests, "bad_lines",
                  (json_int_t)planning->n_bad, "tokens_to_generate",
                  (json_int_t)planning->n_generate, "knee_rows",
                  (int)cost_knee_rows(&planning->cost), "rows_max", (int)planning->shape.n_rows_max,
                  "slots", (json_int_t)planning->shape.n_slots, "memory", memory, "plans", plans);
    return figures_dump(root, err);
}

/* `path` NULL: not asked for. */
static bool write_file(const struct planning *planning, const char *path,
                       bool (*write)(FILE *, const struct plan_view *), struct error *err)
{
    const struct plan_view view = {.plan = &planning->results[0],
                                   .input = &planning->input,
                                   .model = planning->options->model,
                                   .profile = planning->profile.name,
                                   .line_indexes = planning->line_indexes,
                                   .efficiency = planning->summaries[0].efficiency};
    struct sink *sink;
    assert(planning->n_results > 0);
    if (path == NULL) return true;
    if (!sink_open(&sink, path, planning->options->force, err)) return false;
    bool is_ok = write(sink_file(sink), &view);
    if (!is_ok) error_set(err, ERROR_UNAVAILABLE, "not enough memory to draw '%s'", path);
    return sink_close(sink, is_ok ? err : NULL) && is_ok;
}

static bool plan_all(struct planning *planning, struct error *err)
{
    const struct options *options = planning->options;
    assert(planning->label != NULL);
    if (!arena_create(&planning->facts, FACTS_BYTES_MAX, err)) return false;
    if (!open_model(planning, err)) return false;
    if (!settings_check_flags(options, &planning->config, err)) return false;
    if (!read_prompts(planning, err)) return false;
    planning->input.options.n_rows_max = choose_rows(planning);
    if (!size_memory(planning, err) || !drop_impossible(planning, err)) return false;
    if (!make_plans(planning, err)) return false;
    if (!write_file(planning, options->svg, plan_view_svg, err)) return false;
    if (!write_file(planning, options->out, plan_view_json, err)) return false;
    if (!write_file(planning, options->perfetto, plan_view_perfetto, err)) return false;
    if (options->json) return print_json(planning, err);
    print_tables(planning);
    return true;
}

bool cmd_plan(const struct options *options, int *status, struct error *err)
{
    assert(options->model != NULL);
    bool is_file = options->operand != NULL && strcmp(options->operand, "-") != 0;
    struct planning *planning = calloc(1, sizeof *planning);
    if (planning == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to plan");
    planning->options = options;
    planning->label = is_file ? options->operand : "standard input";
    planning->input =
        (struct plan_input){.options = {.objective = settings_objective(options->objective),
                                        .n_running_max = options->batch_size,
                                        .tokens_per_step = options->tokens_per_step},
                            .cost = &planning->cost,
                            .tokens_per_step = options->tokens_per_step,
                            .keeps_runs = true};
    bool is_ok = plan_all(planning, err);
    *status = planning->n_bad > 0 ? 1 : 0;
    tokenizer_close(planning->tokenizer);
    free(planning->phases);
    free(planning->line_indexes);
    for (int32_t i = 0; i < planning->n_results; i++)
        plan_clear(&planning->results[i]);
    arena_destroy(&planning->facts);
    free(planning);
    return is_ok;
}
