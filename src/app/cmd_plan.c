/* dllm-batch plan: prompts, or a trace's arrivals, to a plan on a profile's clock. Nothing is
 * computed and no weights are read:
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
#include "app/plan_view.h"
#include "app/planning.h"
#include "app/sink.h"

struct command {
    struct planning planning;
    int64_t n_generate;
};

/* ---- requests ---- */

static bool read_requests(struct command *command, struct error *err)
{
    struct planning *planning = &command->planning;
    assert(planning->window.n_prompts == 0);
    if (!planning_read(planning, false, true, err)) return false;
    if (!planning_size(planning, planning->n_cells, err) || !planning_admit(planning, 1, err))
        return false;
    for (int32_t i = 0; i < planning->window.n_prompts; i++) {
        const struct prompt *prompt = &planning->window.prompts[i];
        if (prompt->code == PROMPT_GOOD) command->n_generate += prompt->n_generate;
        else planning_note_bad(planning, prompt);
    }
    return planning->input.n_requests > 0 ||
           error_set(err, ERROR_FORMAT, "%s has no prompts that can be planned", planning->label);
}

/* ---- output ---- */

static const struct figure memory_figures[] = {
    {"weights", "weights", 1}, {"cache", "KV cache", 1},     {"activations", "activations", 1},
    {"scores", "scores", 1},   {"canvases", "canvases", 1},  {"logits", "logits as a whole", 1},
    {"total", "total", 1},     {"limit", "  of at most", 1},
};

enum { MEMORY_FIGURES = sizeof memory_figures / sizeof *memory_figures };

static void take_memory(const struct command *command, double unit, double values[MEMORY_FIGURES])
{
    const struct memory_plan *memory = &command->planning.memory;
    const size_t bytes[MEMORY_FIGURES] = {
        memory->weights_bytes,    memory->cache_bytes,
        memory->activation_bytes, memory->score_bytes,
        memory->canvas_bytes,     memory->logits_bytes,
        memory->total_bytes,      (size_t)command->planning.memory_limit};
    assert(unit > 0);
    for (int i = 0; i < MEMORY_FIGURES; i++)
        values[i] = (double)bytes[i] / unit;
}

static void print_tables(const struct command *command)
{
    const struct cost_profile *profile = &command->planning.profile;
    double values[MEMORY_FIGURES];
    const double *column = values;
    assert(command->planning.n_results > 0);
    error_print(stdout, "model    %s", command->planning.options->model);
    error_print(stdout, "profile  %s, %s; weights stop mattering from %" PRId32 " rows on",
                profile->name, profile->is_measured ? "measured" : "from datasheets, not measured",
                cost_knee_rows(&command->planning.cost));
    printf("input    %" PRId32 " requests, %" PRId64 " tokens to generate, %" PRId64 " bad lines\n",
           command->planning.input.n_requests, command->n_generate, command->planning.n_bad);
    printf("room     %" PRId32 " rows, %" PRId64 " KV slots of %zu bytes\n\n%-32s%13s\n",
           command->planning.shape.n_rows_max, command->planning.shape.n_slots,
           command->planning.memory.slot_bytes, "memory", "MiB");
    take_memory(command, 1024 * 1024, values);
    figures_print(memory_figures, MEMORY_FIGURES, &column, 1, stdout);
    putchar('\n');
    plan_summary_print(command->planning.summaries, command->planning.n_results, stdout);
}

static bool print_json(const struct command *command, struct error *err)
{
    double values[MEMORY_FIGURES];
    json_t *plans = json_array(), *memory = json_object();
    assert(command->planning.n_results > 0);
    take_memory(command, 1, values);
    figures_add(memory, memory_figures, MEMORY_FIGURES, values);
    for (int32_t i = 0; i < command->planning.n_results; i++)
        json_array_append_new(plans, plan_summary_json(&command->planning.summaries[i]));
    json_t *root = json_pack(
        "{s:s, s:s, s:b, s:i, s:I, s:I, s:i, s:i, s:I, s:o, s:o}", "model",
        command->planning.options->model, "profile", command->planning.profile.name, "measured",
        command->planning.profile.is_measured, "requests", (int)command->planning.input.n_requests,
        "bad_lines", (json_int_t)command->planning.n_bad, "tokens_to_generate",
        (json_int_t)command->n_generate, "knee_rows", (int)cost_knee_rows(&command->planning.cost),
        "rows_max", (int)command->planning.shape.n_rows_max, "slots",
        (json_int_t)command->planning.shape.n_slots, "memory", memory, "plans", plans);
    return figures_dump(root, err);
}

/* `path` NULL: not asked for. */
static bool write_file(const struct command *command, const char *path,
                       bool (*write)(FILE *, const struct plan_view *), struct error *err)
{
    const struct plan_view view = {.plan = &command->planning.results[0],
                                   .input = &command->planning.input,
                                   .model = command->planning.options->model,
                                   .profile = command->planning.profile.name,
                                   .requests = command->planning.requests,
                                   .efficiency = command->planning.summaries[0].efficiency};
    struct sink *sink;
    assert(command->planning.n_results > 0);
    if (path == NULL) return true;
    if (!sink_open(&sink, path, command->planning.options->force, err)) return false;
    bool is_ok = write(sink_file(sink), &view);
    if (!is_ok) error_set(err, ERROR_UNAVAILABLE, "not enough memory to draw '%s'", path);
    return sink_close(sink, is_ok ? err : NULL) && is_ok;
}

static bool plan_all(struct command *command, const struct options *options, struct error *err)
{
    assert(options->model != NULL);
    if (!planning_open(&command->planning, options, err)) return false;
    if (!read_requests(command, err)) return false;
    if (!planning_make(&command->planning, err)) return false;
    if (!write_file(command, options->svg, plan_view_svg, err)) return false;
    if (!write_file(command, options->out, plan_view_json, err)) return false;
    if (!write_file(command, options->perfetto, plan_view_perfetto, err)) return false;
    if (options->json) return print_json(command, err);
    print_tables(command);
    return true;
}

bool cmd_plan(const struct options *options, int *status, struct error *err)
{
    assert(options->model != NULL);
    struct command *command = calloc(1, sizeof *command);
    if (command == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to plan");
    bool is_ok = plan_all(command, options, err);
    *status = command->planning.n_bad > 0 ? 1 : 0;
    planning_close(&command->planning);
    free(command);
    return is_ok;
}
