/* dllm-batch replay: a trace on a clock. The requests are the same whoever serves them:
 *
 *     trace ─► struct request with arrivals ─┬─ virtual: planner and cost model ─┬─► records,
 * summary └─ real, scaled: engine (not yet)  ─┘
 *
 * Latency counts from the scheduled arrival. Times of the virtual clock start at START_NS, since 0
 * stands for what did not happen. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/figures.h"
#include "app/output.h"
#include "app/planning.h"
#include "app/prompts.h"
#include "app/trace.h"
#include "app/window.h"

#define ROWS_MAX          (1 << 22)          /* of a trace */
#define CELLS_MAX         (INT64_C(1) << 34) /* prompts of a trace that has them */
#define SCRATCH_BYTES_MAX ((size_t)64 << 20) /* a line of output */
#define START_NS          UINT64_C(1)

struct replay {
    const struct options *options;
    const char *path, *label; /* of the input; "-", "standard input" */
    struct planning planning;
    struct prompts *prompts;
    struct window window; /* all rows, good and bad */
    struct arena scratch;
    struct output_place place;
    struct output *output;
    /* Of the requests that are served, in order of arrival. */
    int32_t n_requests;
    struct request *requests; /* [n_requests], the window's, sorted */
    struct phases *phases;    /* [n_requests], and below: planning's arena */
    uint64_t *arrivals_ns;    /* since the first */
    int32_t *stops;
    struct prompts_trace sums; /* of the rows; refusals that come later are added */
    struct prompts_sum served;
    int64_t n_bad;
};

/* ---- requests ---- */

static int compare_arrivals(const void *a, const void *b)
{
    const struct request *x = a, *y = b;
    if (x->arrival_ns != y->arrival_ns) return x->arrival_ns < y->arrival_ns ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static bool read_trace(struct replay *replay, struct error *err)
{
    struct planning *planning = &replay->planning;
    const struct prompts_options options = {.path = replay->path,
                                            .flags = replay->options,
                                            .config = &planning->config,
                                            .tokenizer = planning->tokenizer,
                                            .is_trace = true,
                                            .only_shapes = true};
    const struct window_limits limits = {.n_prompts_max = ROWS_MAX, .n_cells_max = CELLS_MAX};
    struct window *window = &replay->window;
    assert(replay->prompts == NULL);
    if (!prompts_open(&replay->prompts, &options, err)) return false;
    if (!window_create(window, &limits, err)) return false;
    window_fill(window, &(struct intake){.prompts = replay->prompts, .hurry_fd = -1});
    *err = window->failure;
    if (err->code != ERROR_NONE) return false;
    replay->sums = *prompts_trace(replay->prompts);
    if (replay->sums.read.n_requests == 0)
        return error_set(err, ERROR_FORMAT, "%s has no rows", replay->label);
    if (!window->is_last)
        return error_set(err, ERROR_UNAVAILABLE, "%s has more than %d rows, --limit reads fewer",
                         replay->label, window->n_prompts);
    replay->requests = window->requests;
    replay->n_requests = window->n_requests;
    qsort(replay->requests, (size_t)replay->n_requests, sizeof *replay->requests, compare_arrivals);
    return true;
}

/* Allowed to fail by what comes from outside, unlike other pushes. */
static void *push(struct replay *replay, size_t size, struct error *err)
{
    void *array = arena_try_push(&replay->planning.arena, (size_t)replay->n_requests, size);
    assert(size > 0);
    if (array == NULL)
        error_set(err, ERROR_UNAVAILABLE, "not enough memory for %" PRId32 " requests",
                  replay->n_requests);
    return array;
}

static void refuse(struct replay *replay, struct request *request, enum prompt_code code,
                   const char *message)
{
    struct prompt *prompt = request->line_state;
    struct prompts_sum *refused = &replay->sums.refused;
    char *copy = arena_try_copy(&replay->planning.arena, message, strlen(message));
    assert(prompt->code == PROMPT_GOOD);
    prompt->code = code;
    prompt->message = copy != NULL ? copy : "the request cannot be served";
    refused->n_requests++;
    refused->n_prompt += request->n_prompt;
    refused->n_output += prompt->n_output;
}

/* Keeps what `phases` and the planner can serve; room is known when `is_sized`. */
static void drop_impossible(struct replay *replay, bool is_sized)
{
    const struct model_config *config = &replay->planning.config;
    const struct phases_model model = {.n_positions = config->n_positions, .shift = config->shift};
    int32_t n_kept = 0;
    assert(replay->phases != NULL);
    for (int32_t i = 0; i < replay->n_requests; i++) {
        struct request request = replay->requests[i];
        const struct prompt *prompt = request.line_state;
        struct phases *phases = &replay->phases[n_kept];
        struct error problem = {0};
        bool is_good = prompt->n_masks == 0 ||
                       error_set(&problem, ERROR_FORMAT, "a prompt that is filled in is no row");
        is_good = is_good &&
                  phases_init(phases, request.n_prompt, false, &request.decode, &model, &problem);
        is_good = is_good &&
                  (!is_sized || planner_check(&replay->planning.input.options, phases, &problem));
        if (!is_good)
            refuse(replay, &request, is_sized ? PROMPT_TOO_LONG : PROMPT_INVALID_REQUEST,
                   problem.message);
        else replay->requests[n_kept++] = request;
    }
    replay->n_requests = n_kept;
}

static void add_served(struct replay *replay, int32_t i)
{
    struct request *request = &replay->requests[i];
    struct prompt *prompt = request->line_state;
    assert(request->stop_after >= 0);
    request->arrival_ns = request->admitted_ns = START_NS + replay->arrivals_ns[i];
    prompt->request = *request;
    replay->stops[i] = request->stop_after > 0 ? request->stop_after : INT32_MAX;
    replay->served.n_requests++;
    replay->served.n_prompt += request->n_prompt;
    replay->served.n_output += prompt->n_output;
}

/* Arrivals, stops and phases of what can be served, with rows and memory chosen for it. */
static bool prepare(struct replay *replay, struct error *err)
{
    const struct options *options = replay->options;
    const struct trace_schedule schedule = {.spreads = options->spread, .rate = options->rate};
    int64_t n_cells = 1;
    assert(replay->phases == NULL);
    if ((replay->phases = push(replay, sizeof *replay->phases, err)) == NULL) return false;
    if ((replay->arrivals_ns = push(replay, sizeof *replay->arrivals_ns, err)) == NULL)
        return false;
    if ((replay->stops = push(replay, sizeof *replay->stops, err)) == NULL) return false;
    drop_impossible(replay, false);
    for (int32_t i = 0; i < replay->n_requests; i++)
        n_cells += phases_full_rows(&replay->phases[i]);
    if (!planning_size(&replay->planning, n_cells, err)) return false;
    drop_impossible(replay, true);
    if (replay->n_requests == 0) return true;
    for (int32_t i = 0; i < replay->n_requests; i++)
        replay->arrivals_ns[i] = replay->requests[i].arrival_ns;
    if (!trace_arrange(replay->arrivals_ns, replay->n_requests, &schedule, err))
        return error_wrap(err, "%s", replay->label);
    for (int32_t i = 0; i < replay->n_requests; i++)
        add_served(replay, i);
    return true;
}

/* ---- the virtual clock ---- */

static bool serve(struct replay *replay, struct error *err)
{
    struct plan_input *input = &replay->planning.input;
    assert(replay->n_requests > 0);
    input->n_requests = replay->n_requests;
    input->phases = replay->phases;
    input->arrival_ns = replay->arrivals_ns;
    input->stop_after = replay->stops;
    input->is_online = replay->options->online;
    if (!options_is_set(replay->options, OPTION_objective))
        input->options.objective = OBJECTIVE_TAIL;
    return planning_make(&replay->planning, err);
}

/* ---- records ---- */

static bool put_line(struct replay *replay, const struct prompt *prompt,
                     const struct answer *answer, struct error *err)
{
    const struct output_style style = {.model_name = replay->options->model, .start_ns = START_NS};
    char *line = output_line(&style, prompt, answer, &replay->scratch);
    assert(prompt >= replay->window.prompts);
    if (line == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for a line of output");
    return output_put(replay->output, (int32_t)(prompt - replay->window.prompts), line, err);
}

static bool put_failures(struct replay *replay, struct error *err)
{
    assert(replay->n_bad == 0);
    for (int32_t i = 0; i < replay->window.n_prompts; i++) {
        const struct prompt *prompt = &replay->window.prompts[i];
        if (prompt->code == PROMPT_GOOD) continue;
        if (replay->n_bad++ == 0 && !replay->options->quiet)
            fprintf(stderr, "dllm-batch: the first bad line is %s:%" PRId64 ": %s\n", replay->label,
                    prompt->line, prompt->message);
        if (!put_line(replay, prompt, NULL, err)) return false;
    }
    return true;
}

/* A request on its way out. */
struct exit {
    uint64_t finished_ns, first_commit_ns, first_block_ns;
    int32_t request;
};

static int compare_exits(const void *a, const void *b)
{
    const struct exit *x = a, *y = b;
    if (x->finished_ns != y->finished_ns) return x->finished_ns < y->finished_ns ? -1 : 1;
    return (x->request > y->request) - (x->request < y->request);
}

/* In the order in which they end. A step commits a token at least, under all rules but origin. */
static void fill_exits(const struct plan *plan, struct exit *exits)
{
    assert(plan->runs != NULL);
    for (int32_t i = 0; i < plan->n_requests; i++)
        exits[i] = (struct exit){.finished_ns = plan->requests[i].finished_ns, .request = i};
    for (int64_t r = 0; r < plan->n_runs; r++) {
        const struct plan_run *run = &plan->runs[r];
        struct exit *exit = &exits[run->request];
        const struct plan_iteration_record *begin = &plan->iterations[run->iteration_begin];
        if (run->block > 0) continue;
        if (run->step_begin == 0) exit->first_commit_ns = begin->end_ns;
        exit->first_block_ns = begin[run->n_steps - 1].end_ns;
    }
    qsort(exits, (size_t)plan->n_requests, sizeof *exits, compare_exits);
}

static bool put_answer(struct replay *replay, const struct exit *exit, struct error *err)
{
    const struct request *request = &replay->requests[exit->request];
    const struct plan_request_record *record = &replay->planning.results[0].requests[exit->request];
    bool is_by_chance = replay->phases[exit->request].is_by_chance;
    assert(record->finished_ns >= record->first_ns);
    const struct answer answer = {
        .request = request,
        .n_effective = record->n_tokens,
        .finish_reason = request->stop_after > 0 ? FINISH_STOP : FINISH_LENGTH,
        .steps = record->refresh_steps + record->reuse_steps,
        .blocks = record->blocks,
        .refresh_steps = record->refresh_steps,
        .reuse_steps = record->reuse_steps,
        .positions = record->positions,
        .times = {.first_forward_ns = START_NS + record->first_ns,
                  .first_commit_ns = is_by_chance ? 0 : START_NS + exit->first_commit_ns,
                  .first_block_ns = START_NS + exit->first_block_ns,
                  .last_commit_ns = START_NS + record->finished_ns,
                  .finished_ns = START_NS + record->finished_ns}};
    return put_line(replay, request->line_state, &answer, err);
}

static bool put_answers(struct replay *replay, struct error *err)
{
    const struct plan *plan = &replay->planning.results[0];
    if (replay->n_requests == 0) return true;
    struct exit *exits = push(replay, sizeof *exits, err);
    if (exits == NULL) return false;
    assert(plan->n_requests == replay->n_requests);
    fill_exits(plan, exits);
    for (int32_t i = 0; i < replay->n_requests; i++)
        if (!put_answer(replay, &exits[i], err)) return false;
    return true;
}

static bool write_records(struct replay *replay, struct error *err)
{
    bool is_broken_pipe = false;
    struct error close_failure = {0};
    assert(replay->output == NULL);
    if (!output_open(&replay->output, &replay->place, replay->options->ordered, err)) return false;
    bool is_ok = output_start_window(replay->output, replay->window.n_prompts, err) &&
                 put_failures(replay, err) && put_answers(replay, err);
    bool is_closed = output_close(replay->output, &is_broken_pipe, &close_failure);
    if (is_ok && !is_closed) *err = close_failure;
    if (is_broken_pipe) err->message[0] = '\0';
    return is_ok && is_closed;
}

/* ---- summary ---- */

static const struct figure figures[] = {
    {"arrivals_per_s", "arrivals per s", 3},
    {"requests_per_s", "answers per s", 3},
    {"queue_mean_s", "to the first forward, mean s", 3},
    {"queue_p50_s", "  p50 s", 3},
    {"queue_p99_s", "  p99 s", 3},
    {"slo_percent", "answers within --slo, %", 1},
    {"goodput_per_s", "  per s", 3},
};

enum { FIGURES = sizeof figures / sizeof *figures };

static bool take_figures(struct replay *replay, const struct plan *plan, double values[FIGURES],
                         struct error *err)
{
    size_t mark_bytes = replay->planning.arena.used_bytes;
    double *queues = push(replay, sizeof *queues, err), slo_s = replay->options->slo;
    double makespan_s = (double)plan->makespan_ns * 1e-9, n = plan->n_requests, n_good = 0;
    struct figures_spread queue;
    if (queues == NULL) return false;
    assert(plan->n_requests > 0);
    for (int32_t i = 0; i < plan->n_requests; i++) {
        const struct plan_request_record *record = &plan->requests[i];
        queues[i] = (double)(record->first_ns - record->arrival_ns) * 1e-9;
        n_good += (double)(record->finished_ns - record->arrival_ns) * 1e-9 <= slo_s;
    }
    figures_spread(&queue, queues, plan->n_requests);
    arena_rewind(&replay->planning.arena, mark_bytes);
    double last_s = (double)replay->arrivals_ns[plan->n_requests - 1] * 1e-9;
    bool has_slo = slo_s > 0;
    const double all[FIGURES] = {last_s > 0 ? (n - 1) / last_s : NAN,
                                 n / makespan_s,
                                 queue.mean,
                                 queue.p50,
                                 queue.p99,
                                 has_slo ? 100 * n_good / n : NAN,
                                 has_slo ? n_good / makespan_s : NAN};
    memcpy(values, all, sizeof all);
    return true;
}

/* What became of the trace: every token of it is in one of the rows below the first. */
struct share {
    const char *key, *name;
    const struct prompts_sum *sum;
};

enum { SHARES = 5 };

static void list_shares(const struct replay *replay, struct share shares[SHARES])
{
    const struct prompts_trace *sums = &replay->sums;
    const struct share all[SHARES] = {{"read", "trace", &sums->read},
                                      {"served", "  served", &replay->served},
                                      {"cut", "  cut off", &sums->cut},
                                      {"refused", "  refused", &sums->refused},
                                      {"skipped", "  left out", &sums->skipped}};
    int64_t n_prompt = 0, n_output = 0;
    memcpy(shares, all, sizeof all);
    for (int i = 1; i < SHARES; i++) {
        n_prompt += shares[i].sum->n_prompt;
        n_output += shares[i].sum->n_output;
    }
    assert(n_prompt == sums->read.n_prompt);
    assert(n_output == sums->read.n_output);
}

static void print_shares(const struct replay *replay, FILE *out)
{
    struct share shares[SHARES];
    list_shares(replay, shares);
    assert(out != NULL);
    fprintf(out, "%-32s%13s%13s%13s\n", "", "requests", "prompt tok.", "output tok.");
    for (int i = 0; i < SHARES; i++)
        fprintf(out, "%-32s%13" PRId64 "%13" PRId64 "%13" PRId64 "\n", shares[i].name,
                shares[i].sum->n_requests, shares[i].sum->n_prompt, shares[i].sum->n_output);
}

static void print_tables(const struct replay *replay, double values[][FIGURES])
{
    const struct planning *planning = &replay->planning;
    const double *columns[PLANNING_POLICIES];
    assert(planning->n_results <= PLANNING_POLICIES);
    fprintf(stderr, "dllm-batch: %s replayed on the virtual clock of %s (%s), %s; records: %s\n",
            replay->label, planning->profile.name,
            planning->profile.is_measured ? "measured" : "from datasheets, not measured",
            replay->options->online ? "online" : "with the trace known ahead", replay->place.path);
    print_shares(replay, stderr);
    fputc('\n', stderr);
    if (planning->n_results == 0) return;
    for (int32_t i = 0; i < planning->n_results; i++)
        columns[i] = values[i];
    plan_summary_print(planning->summaries, planning->n_results, stderr);
    figures_print(figures, FIGURES, columns, planning->n_results, stderr);
}

static bool print_json(const struct replay *replay, double values[][FIGURES], struct error *err)
{
    const struct planning *planning = &replay->planning;
    struct share shares[SHARES];
    json_t *plans = json_array(), *trace = json_object();
    list_shares(replay, shares);
    assert(planning->n_results <= PLANNING_POLICIES);
    for (int i = 0; i < SHARES; i++)
        json_object_set_new(trace, shares[i].key,
                            json_pack("{s:I, s:I, s:I}", "requests",
                                      (json_int_t)shares[i].sum->n_requests, "prompt_tokens",
                                      (json_int_t)shares[i].sum->n_prompt, "output_tokens",
                                      (json_int_t)shares[i].sum->n_output));
    for (int32_t i = 0; i < planning->n_results; i++) {
        json_t *plan = plan_summary_json(&planning->summaries[i]);
        figures_add(plan, figures, FIGURES, values[i]);
        json_array_append_new(plans, plan);
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:b, s:s, s:b, s:i, s:I, s:i, s:I, s:o, s:o}", "model", replay->options->model,
        "profile", planning->profile.name, "measured", planning->profile.is_measured, "clock",
        "virtual", "online", replay->options->online, "requests", (int)replay->n_requests,
        "bad_lines", (json_int_t)replay->n_bad, "rows_max", (int)planning->shape.n_rows_max,
        "slots", (json_int_t)planning->shape.n_slots, "trace", trace, "plans", plans);
    return figures_dump(root, err);
}

static bool summarise(struct replay *replay, struct error *err)
{
    double values[PLANNING_POLICIES][FIGURES];
    for (int32_t i = 0; i < replay->planning.n_results; i++)
        if (!take_figures(replay, &replay->planning.results[i], values[i], err)) return false;
    assert(replay->served.n_requests == replay->n_requests);
    if (replay->options->json) return print_json(replay, values, err);
    if (!replay->options->quiet) print_tables(replay, values);
    return true;
}

/* ---- the command ---- */

static bool check_options(const struct replay *replay, struct error *err)
{
    const char *clock = replay->options->clock;
    char *end = NULL;
    double scale = strncmp(clock, "scaled=", 7) == 0 ? strtod(clock + 7, &end) : 0;
    bool is_scaled = end != NULL && end > clock + 7 && *end == '\0' && scale > 0 && isfinite(scale);
    assert(clock != NULL);
    if (strcmp(clock, "real") == 0 || is_scaled)
        return error_set(err, ERROR_UNAVAILABLE,
                         "--clock %s: this version's engine does not wait for arrivals; only "
                         "--clock virtual can be had",
                         clock);
    if (strcmp(clock, "virtual") != 0)
        return error_set(err, ERROR_USAGE,
                         "--clock is '%s', must be real, scaled=X with X above 0, or virtual",
                         clock);
    if (replay->options->json && strcmp(replay->place.path, "-") == 0)
        return error_set(err, ERROR_USAGE,
                         "--json and the records both want standard output; -o names a file");
    return true;
}

static bool replay_all(struct replay *replay, struct error *err)
{
    const struct options *options = replay->options;
    assert(replay->label != NULL);
    if (!output_choose(&replay->place, options, err) || !check_options(replay, err)) return false;
    if (!planning_open(&replay->planning, options, err)) return false;
    if (!arena_create(&replay->scratch, SCRATCH_BYTES_MAX, err)) return false;
    if (!read_trace(replay, err) || !prepare(replay, err)) return false;
    if (replay->n_requests > 0 && !serve(replay, err)) return false;
    return write_records(replay, err) && summarise(replay, err);
}

bool cmd_replay(const struct options *options, int *status, struct error *err)
{
    struct replay *replay = calloc(1, sizeof *replay);
    assert(options->model != NULL);
    if (replay == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to replay");
    replay->options = options;
    replay->path = options->operand != NULL ? options->operand : "-";
    replay->label = strcmp(replay->path, "-") == 0 ? "standard input" : replay->path;
    bool is_ok = replay_all(replay, err);
    *status = replay->n_bad > 0 ? 1 : 0;
    prompts_close(replay->prompts);
    window_destroy(&replay->window);
    arena_destroy(&replay->scratch);
    planning_close(&replay->planning);
    free(replay);
    return is_ok;
}
