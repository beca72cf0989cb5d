/* The input read whole, in order of arrival, and of it what can be served. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "app/planning.h"
#include "app/trace.h"

#define LINES_MAX (1 << 22)
#define CELLS_MAX (INT64_C(1) << 34)

static int compare_arrivals(const void *a, const void *b)
{
    const struct request *x = a, *y = b;
    if (x->arrival_ns != y->arrival_ns) return x->arrival_ns < y->arrival_ns ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

bool planning_read(struct planning *planning, bool only_traces, bool only_shapes, struct error *err)
{
    const struct prompts_options options = {
        .path = planning->options->operand != NULL ? planning->options->operand : "-",
        .flags = planning->options,
        .config = &planning->config,
        .tokenizer = planning->tokenizer,
        .is_trace = true,
        .may_be_prompts = !only_traces,
        .only_shapes = only_shapes};
    const struct window_limits limits = {.n_prompts_max = LINES_MAX, .n_cells_max = CELLS_MAX};
    struct window *window = &planning->window;
    assert(planning->prompts == NULL);
    if (!prompts_open(&planning->prompts, &options, err)) return false;
    if (!window_create(window, &limits, err)) return false;
    window_fill(window, &(struct intake){.prompts = planning->prompts, .hurry_fd = -1});
    *err = window->failure;
    if (err->code != ERROR_NONE) return false;
    if (!window->is_last)
        return error_set(err, ERROR_UNAVAILABLE, "%s has more than %d lines, --limit reads fewer",
                         planning->label, window->n_prompts);
    const struct prompts_trace *trace = prompts_trace(planning->prompts);
    planning->is_trace = trace != NULL;
    if (planning->is_trace) planning->sums = *trace;
    planning->n_cells = 1;
    for (int32_t i = 0; i < window->n_prompts; i++)
        if (window->prompts[i].code == PROMPT_GOOD) planning->n_cells += window->prompts[i].n_cells;
    planning->requests = window->requests;
    qsort(window->requests, (size_t)window->n_requests, sizeof *window->requests, compare_arrivals);
    return true;
}

static void add_sum(struct prompts_sum *sum, const struct request *request)
{
    const struct prompt *prompt = request->line_state;
    assert(sum->n_requests >= 0);
    sum->n_requests++;
    sum->n_prompt += request->n_prompt;
    sum->n_output += prompt->n_output;
}

static bool check(const struct planning *planning, const struct request *request,
                  struct phases *phases, struct error *problem)
{
    const struct phases_model model = executor_phases_model(&planning->config);
    const struct prompt *prompt = request->line_state;
    assert(request->n_prompt > 0);
    if (prompt->n_masks > 0)
        return error_set(problem, ERROR_FORMAT,
                         "a prompt that is filled in cannot be planned ahead of time");
    return phases_init(phases, request->n_prompt, false, &request->decode, &model, problem) &&
           planner_check(&planning->input.options, phases, problem);
}

static void refuse(struct planning *planning, const struct request *request, const char *message)
{
    struct prompt *prompt = request->line_state;
    char *copy = arena_try_copy(&planning->arena, message, strlen(message));
    assert(prompt->code == PROMPT_GOOD);
    prompt->code = prompt->n_masks > 0 ? PROMPT_INVALID_REQUEST : PROMPT_TOO_LONG;
    prompt->message = copy != NULL ? copy : "the request cannot be served";
    add_sum(&planning->sums.refused, request);
}

bool planning_admit(struct planning *planning, double speed, struct error *err)
{
    const struct options *options = planning->options;
    const struct trace_schedule schedule = {
        .spreads = options->spread, .rate = options->rate, .speed = speed};
    struct plan_input *input = &planning->input;
    struct arena *arena = &planning->arena;
    size_t n = (size_t)planning->window.n_requests;
    struct phases *phases = arena_try_push(arena, n, sizeof *phases);
    uint64_t *arrivals_ns = arena_try_push(arena, n, sizeof *arrivals_ns);
    int32_t *stops = arena_try_push(arena, n, sizeof *stops), n_kept = 0;
    if (phases == NULL || arrivals_ns == NULL || stops == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for %zu requests", n);
    assert(input->options.n_rows_max > 0);
    for (size_t i = 0; i < n; i++) {
        struct request request = planning->requests[i];
        struct error problem = {0};
        if (!check(planning, &request, &phases[n_kept], &problem)) {
            refuse(planning, &request, problem.message);
            continue;
        }
        add_sum(&planning->served, &request);
        arrivals_ns[n_kept] = request.arrival_ns;
        stops[n_kept] = request.stop_after > 0 ? request.stop_after : INT32_MAX;
        planning->requests[n_kept++] = request;
    }
    planning->stops = stops;
    input->n_requests = n_kept;
    input->phases = phases;
    if (!planning->is_trace || n_kept == 0) return true;
    input->arrival_ns = arrivals_ns;
    if (!options_is_set(options, OPTION_objective)) input->options.objective = OBJECTIVE_TAIL;
    return trace_arrange(arrivals_ns, n_kept, &schedule, err) ||
           error_wrap(err, "%s", planning->label);
}

void planning_note_bad(struct planning *planning, const struct prompt *prompt)
{
    assert(prompt->code != PROMPT_GOOD);
    if (planning->n_bad++ == 0 && !planning->options->quiet)
        error_print(stderr, "dllm-batch: the first bad line is %s:%" PRId64 ": %s", planning->label,
                    prompt->line, prompt->message);
}
