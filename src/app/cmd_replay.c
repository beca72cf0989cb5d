/* dllm-batch replay: a trace on a clock. The requests are the same whoever serves them:
 *
 *     trace ─► requests with arrivals ─┬─ virtual: planner and cost model ─┬─► records, summary
 *                                      └─ real, scaled: engine ────────────┘
 *
 * Latency counts from the scheduled arrival. Times of the virtual clock start at START_NS, since 0
 * stands for what did not happen. What the engine does is written down as a plan, so that one table
 * shows both. */
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/figures.h"
#include "app/interrupt.h"
#include "app/lock.h"
#include "app/output.h"
#include "app/planning.h"
#include "app/prompts.h"
#include "app/report.h"
#include "app/settings.h"
#include "app/trace.h"
#include "app/window.h"
#include "base/clock.h"
#include "engine/engine.h"

#define SCRATCH_BYTES_MAX ((size_t)64 << 20) /* a line of output */
#define SERVED_CELLS_MAX  (INT64_C(1) << 28) /* that an engine holds at a time */
#define START_NS          UINT64_C(1)
#define WAIT_NS           UINT64_C(1000000000) /* lines that are done are not kept for longer */

struct replay {
    const struct options *options;
    bool is_virtual, has_profile;
    double speed;             /* of the trace's time */
    struct planning planning; /* results[0]: what the engine did, if one serves */
    struct engine engine;
    struct error tick_failure; /* writing between two answers failed */
    struct arena scratch;
    struct output_place place;
    struct output_style style;
    struct output *_Atomic output; /* NULL until the engine may write */
    struct report report;          /* of the engine */
};

/* ---- requests ---- */

/* For each request; allowed to fail by what comes from outside, unlike other pushes. */
static void *push(struct replay *replay, size_t size, struct error *err)
{
    struct planning *planning = &replay->planning;
    void *array = arena_try_push(&planning->arena, (size_t)planning->input.n_requests, size);
    assert(size > 0);
    if (array == NULL) error_set(err, ERROR_UNAVAILABLE, "not enough memory for a summary");
    return array;
}

/* On the watching thread: the process ends before the iteration does. */
static void end_late(void *context)
{
    struct replay *replay = context;
    struct output *output = replay->output;
    assert(interrupt_requested());
    if (output != NULL) output_rescue(output);
    lock_release(replay->place.lock);
    report_error(&replay->report, "stopped; answers done: %lld",
                 (long long)replay->report.n_answered);
}

/* On the watching thread. */
static void tell_status(void *context)
{
    struct replay *replay = context;
    assert(replay->options != NULL);
    report_tick(&replay->report, clock_now_ns(), true);
}

static bool watch(struct replay *replay, struct error *err)
{
    assert(replay->output == NULL);
    return interrupt_install(err) &&
           interrupt_watch(&(struct interrupt_watch){.late = end_late,
                                                     .asked = tell_status,
                                                     .context = replay,
                                                     .stop_ns = UINT64_MAX,
                                                     .end_ns = UINT64_MAX},
                           err);
}

/* Rows and slots are then the engine's. */
static bool open_engine(struct replay *replay, struct error *err)
{
    struct planning *planning = &replay->planning;
    struct engine_options options;
    int64_t n_cells = planning->n_cells;
    assert(n_cells > 0);
    if (n_cells > SERVED_CELLS_MAX)
        return error_set(err, ERROR_UNAVAILABLE,
                         "%" PRId64 " positions are too many; --limit reads fewer", n_cells);
    settings_engine(&options, replay->options);
    options.n_requests_max = planning->window.n_requests > 0 ? planning->window.n_requests : 1;
    options.n_cells_max = n_cells;
    if (!watch(replay, err)) return false;
    if (!engine_open(&replay->engine, &options, &planning->config, &planning->arena, err))
        return false;
    planning->input.options.n_rows_max = replay->engine.limits.planning.n_rows_max;
    planning->input.options.n_slots = replay->engine.limits.planning.n_slots;
    if (!replay->has_profile) /* else the plan chooses */
        planning->input.options.n_rows_target = replay->engine.limits.planning.n_rows_target;
    planning->input.options.n_requests_max = options.n_requests_max;
    return true;
}

/* Requests, with rows and memory chosen for them. */
static bool prepare(struct replay *replay, struct error *err)
{
    struct planning *planning = &replay->planning;
    assert(replay->speed > 0);
    if (!planning_read(planning, true, replay->is_virtual, err)) return false;
    if (planning->sums.read.n_requests == 0)
        return error_set(err, ERROR_FORMAT, "%s has no rows", planning->label);
    bool is_sized = replay->is_virtual ? planning_size(planning, planning->n_cells, err)
                                       : open_engine(replay, err);
    return is_sized && planning_admit(planning, replay->speed, err);
}

/* ---- plans ---- */

/* On the virtual clock this is the replay. An engine is planned for if the profile is given, which
 * then chooses how the policy goes about it. */
static bool make_plans(struct replay *replay, struct error *err)
{
    struct planning *planning = &replay->planning;
    struct plan_input *input = &planning->input;
    assert(input->n_requests > 0);
    input->is_online = replay->options->online || !replay->has_profile;
    input->stop_after = planning->stops;
    if (replay->is_virtual) return planning_make(planning, err);
    planning->n_results = 1;
    input->options.policy = settings_policy(replay->options->policy);
    if (!plan_open(&planning->results[0], input, err)) return false;
    if (replay->has_profile && !planning_make(planning, err)) return false;
    if (replay->has_profile) planning->results[0].options = planning->results[1].options;
    return true;
}

/* Arrivals on the clock that starts at `start_ns`. */
static void schedule(struct replay *replay, uint64_t start_ns)
{
    assert(start_ns > 0);
    replay->style.start_ns = start_ns;
    const struct plan_input *input = &replay->planning.input;
    for (int32_t i = 0; i < input->n_requests; i++) {
        struct request *request = &replay->planning.requests[i];
        struct prompt *prompt = request->line_state;
        request->arrival_ns = request->admitted_ns = start_ns + input->arrival_ns[i];
        prompt->request = *request;
    }
}

/* ---- records ---- */

static bool put_line(struct replay *replay, const struct prompt *prompt,
                     const struct answer *answer, struct error *err)
{
    char *line = output_line(&replay->style, prompt, answer, &replay->scratch);
    assert(prompt >= replay->planning.window.prompts);
    if (line == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for a line of output");
    return output_put(replay->output, (int32_t)(prompt - replay->planning.window.prompts), line,
                      err);
}

static bool put_failure(struct replay *replay, const struct prompt *prompt, struct error *err)
{
    assert(prompt->code != PROMPT_GOOD);
    planning_note_bad(&replay->planning, prompt);
    return put_line(replay, prompt, NULL, err);
}

static bool put_failures(struct replay *replay, struct error *err)
{
    assert(replay->planning.n_bad == 0);
    for (int32_t i = 0; i < replay->planning.window.n_prompts; i++) {
        const struct prompt *prompt = &replay->planning.window.prompts[i];
        if (prompt->code != PROMPT_GOOD && !put_failure(replay, prompt, err)) return false;
    }
    return true;
}

/* ---- the virtual clock ---- */

static int compare_ends(const void *left, const void *right, void *context)
{
    const struct plan_request_record *requests = context;
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    assert(requests != NULL);
    uint64_t a_ns = requests[a].finished_ns, b_ns = requests[b].finished_ns;
    return a_ns != b_ns ? (a_ns > b_ns) - (a_ns < b_ns) : (a > b) - (a < b);
}

/* A step commits a token at least, under all rules but origin. */
static bool put_answer(struct replay *replay, int32_t i, struct error *err)
{
    const struct request *request = &replay->planning.requests[i];
    const struct plan_request_record *record = &replay->planning.results[0].requests[i];
    bool is_by_chance = replay->planning.input.phases[i].is_by_chance;
    assert(record->finished_ns >= record->first_ns);
    const struct answer answer = {
        .request = request,
        .n_effective = record->n_tokens,
        .finish_reason = record->n_tokens == request->stop_after ? FINISH_STOP : FINISH_LENGTH,
        .steps = record->refresh_steps + record->reuse_steps,
        .blocks = record->blocks,
        .refresh_steps = record->refresh_steps,
        .reuse_steps = record->reuse_steps,
        .positions = record->positions,
        .times = {.first_forward_ns = START_NS + record->first_ns,
                  .first_commit_ns = is_by_chance ? 0 : START_NS + record->first_commit_ns,
                  .first_block_ns = START_NS + record->first_block_ns,
                  .last_commit_ns = START_NS + record->finished_ns,
                  .finished_ns = START_NS + record->finished_ns}};
    return put_line(replay, request->line_state, &answer, err);
}

/* In the order in which they end. */
static bool put_answers(struct replay *replay, struct error *err)
{
    const struct plan *plan = &replay->planning.results[0];
    int32_t *order = push(replay, sizeof *order, err);
    if (order == NULL) return false;
    assert(plan->n_requests == replay->planning.input.n_requests);
    schedule(replay, START_NS);
    for (int32_t i = 0; i < plan->n_requests; i++)
        order[i] = i;
    qsort_r(order, (size_t)plan->n_requests, sizeof *order, compare_ends, plan->requests);
    for (int32_t i = 0; i < plan->n_requests; i++)
        if (!put_answer(replay, order[i], err)) return false;
    return true;
}

/* ---- the engine ---- */

static void note_iteration(struct replay *replay, const struct executor_iteration *iteration)
{
    struct plan *plan = &replay->planning.results[0];
    uint64_t start_ns = replay->style.start_ns;
    assert(iteration->begin_ns >= start_ns);
    *plan_add_iteration(plan) = (struct plan_iteration_record){
        .start_ns = iteration->begin_ns - start_ns,
        .end_ns = iteration->end_ns - start_ns,
        .n_rows = (int32_t)(iteration->load.n_rows - iteration->n_pad_rows),
        .n_refresh_rows = (int32_t)iteration->n_refresh_rows,
        .n_pad_rows = (int32_t)iteration->n_pad_rows,
        .slots_held = iteration->n_slots};
    plan->total.n_rows += iteration->load.n_rows;
    plan->n_refresh_rows += iteration->n_refresh_rows;
    plan->n_pad_rows += iteration->n_pad_rows;
}

static bool handle_iteration(void *context, const struct executor_iteration *iteration)
{
    struct replay *replay = context;
    assert(replay->output != NULL);
    note_iteration(replay, iteration);
    report_tick(&replay->report, clock_now_ns(), false);
    return output_tick(replay->output, &replay->tick_failure) && !interrupt_requested();
}

static bool handle_wait(void *context, uint64_t until_ns)
{
    struct replay *replay = context;
    uint64_t now_ns = clock_now_ns(), wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    assert(replay->output != NULL);
    if (!interrupt_wait(-1, wait_ns < WAIT_NS ? wait_ns : WAIT_NS)) return false;
    return output_tick(replay->output, &replay->tick_failure);
}

static bool handle_answer(void *context, const struct answer *answer, struct error *err)
{
    struct replay *replay = context;
    struct prompt *prompt = answer->request->line_state;
    struct plan *plan = &replay->planning.results[0];
    uint64_t start_ns = replay->style.start_ns;
    assert(plan->n_requests < replay->planning.input.n_requests);
    if (answer->failure != NULL) {
        prompt->code = PROMPT_NOT_FINITE;
        prompt->message = answer->failure;
        return put_failure(replay, prompt, err);
    }
    plan->requests[plan->n_requests++] =
        (struct plan_request_record){.arrival_ns = answer->request->arrival_ns - start_ns,
                                     .first_ns = answer->times.first_forward_ns - start_ns,
                                     .finished_ns = answer->times.finished_ns - start_ns};
    plan->n_tokens += answer->n_effective;
    plan->makespan_ns = answer->times.finished_ns - start_ns;
    report_answered(&replay->report, answer->n_effective, prompt->n_generate,
                    answer->times.finished_ns - answer->request->arrival_ns);
    return put_line(replay, prompt, answer, err);
}

static bool run_engine(struct replay *replay, struct error *err)
{
    const struct executor_events events = {.context = replay,
                                           .answered = handle_answer,
                                           .iterated = handle_iteration,
                                           .waited = handle_wait,
                                           .chosen = &replay->planning.results[0].options};
    struct planning *planning = &replay->planning;
    struct plan *plan = &planning->results[0];
    struct plan_input input = planning->input;
    assert(input.n_requests > 0);
    plan->n_requests = 0; /* as answers come */
    replay->report.n_expected = input.n_requests;
    replay->report.start_ns = replay->report.shown_ns = clock_now_ns();
    replay->style.start_unix_ns = clock_unix_ns();
    schedule(replay, clock_now_ns());
    bool is_ok =
        executor_run(replay->engine.executor, planning->requests, input.n_requests, &events, err);
    if (replay->tick_failure.code != ERROR_NONE) *err = replay->tick_failure;
    report_clear(&replay->report);
    if (!is_ok && err->code == ERROR_STOPPED && interrupt_requested())
        error_set(err, ERROR_STOPPED, "stopped; answers done: %" PRId32 " of %" PRId32,
                  plan->n_requests, input.n_requests);
    if (!is_ok || !replay->has_profile) input.cost = NULL;
    if (plan->n_requests == 0 || (!is_ok && err->code != ERROR_STOPPED)) return is_ok;
    planning->summaries[0] = (struct plan_summary){
        .policy = settings_policy(replay->options->policy), .clock = replay->options->clock};
    if (!plan_summary_take(&planning->summaries[0], plan, &input, 0, &planning->arena))
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for a summary");
    return is_ok;
}

/* Records that are done are written whatever happened. */
static bool write_records(struct replay *replay, struct error *err)
{
    bool is_broken_pipe;
    struct error close_failure = {0};
    struct output *output;
    assert(replay->output == NULL);
    if (!output_lock(&replay->place, replay->options, &replay->report, err)) return false;
    if (!output_open(&output, &replay->place, replay->options, NULL, err)) return false;
    replay->output = output;
    bool is_ok = output_start_window(replay->output, replay->planning.window.n_prompts, err) &&
                 put_failures(replay, err);
    if (is_ok && replay->planning.input.n_requests > 0)
        is_ok = replay->is_virtual ? put_answers(replay, err) : run_engine(replay, err);
    interrupt_unwatch();
    bool is_closed = output_close(output, NULL, &is_broken_pipe, &close_failure);
    if (!is_closed && (is_ok || err->code == ERROR_STOPPED)) *err = close_failure;
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
    uint64_t last_ns = 0;
    struct figures_spread queue;
    if (queues == NULL) return false;
    assert(plan->n_requests > 0);
    for (int32_t i = 0; i < plan->n_requests; i++) {
        const struct plan_request_record *record = &plan->requests[i];
        queues[i] = (double)(record->first_ns - record->arrival_ns) * 1e-9;
        n_good += (double)(record->finished_ns - record->arrival_ns) * 1e-9 <= slo_s;
        if (record->arrival_ns > last_ns) last_ns = record->arrival_ns;
    }
    figures_spread(&queue, queues, plan->n_requests);
    arena_rewind(&replay->planning.arena, mark_bytes);
    double last_s = (double)last_ns * 1e-9;
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
    const struct prompts_trace *sums = &replay->planning.sums;
    const struct share all[SHARES] = {{"read", "trace", &sums->read},
                                      {"served", "  served", &replay->planning.served},
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
    const struct cost_profile *profile = &planning->profile;
    const double *columns[PLANNING_RESULTS];
    assert(planning->n_results <= PLANNING_RESULTS);
    error_print(stderr, "dllm-batch: %s replayed %s%s%s, %s; records: %s", planning->label,
                replay->is_virtual ? "on the virtual clock of " : "by the engine, --clock ",
                replay->is_virtual ? profile->name : replay->options->clock,
                !replay->is_virtual    ? ""
                : profile->is_measured ? " (measured)"
                                       : " (from datasheets, not measured)",
                planning->input.is_online ? "online" : "with the trace known ahead",
                replay->place.path);
    print_shares(replay, stderr);
    fputc('\n', stderr);
    if (planning->results[0].n_requests == 0) return;
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
    assert(planning->n_results <= PLANNING_RESULTS);
    for (int i = 0; i < SHARES; i++)
        json_object_set_new(trace, shares[i].key,
                            json_pack("{s:I, s:I, s:I}", "requests",
                                      (json_int_t)shares[i].sum->n_requests, "prompt_tokens",
                                      (json_int_t)shares[i].sum->n_prompt, "output_tokens",
                                      (json_int_t)shares[i].sum->n_output));
    for (int32_t i = 0; planning->results[0].n_requests > 0 && i < planning->n_results; i++) {
        json_t *plan = plan_summary_json(&planning->summaries[i]);
        figures_add(plan, figures, FIGURES, values[i]);
        json_array_append_new(plans, plan);
    }
    json_t *root = json_pack(
        "{s:s, s:s?, s:b, s:s, s:b, s:i, s:I, s:i, s:I, s:o, s:o}", "model", replay->options->model,
        "profile", replay->has_profile ? planning->profile.name : NULL, "measured",
        planning->profile.is_measured, "clock", replay->options->clock, "online",
        planning->input.is_online, "requests", (int)replay->planning.input.n_requests, "bad_lines",
        (json_int_t)replay->planning.n_bad, "rows_max", (int)planning->input.options.n_rows_max,
        "slots", (json_int_t)planning->input.options.n_slots, "trace", trace, "plans", plans);
    return figures_dump(root, err);
}

static bool summarise(struct replay *replay, struct error *err)
{
    double values[PLANNING_RESULTS][FIGURES];
    const struct planning *planning = &replay->planning;
    for (int32_t i = 0; planning->results[0].n_requests > 0 && i < planning->n_results; i++)
        if (!take_figures(replay, &planning->results[i], values[i], err)) return false;
    assert(replay->planning.served.n_requests == replay->planning.input.n_requests);
    if (replay->options->json) return print_json(replay, values, err);
    if (!replay->options->quiet) print_tables(replay, values);
    return true;
}

/* ---- the command ---- */

static bool check_options(struct replay *replay, struct error *err)
{
    const struct options *options = replay->options;
    const char *clock = options->clock;
    char *end = NULL;
    assert(clock != NULL);
    replay->speed = strncmp(clock, "scaled=", 7) == 0 ? strtod(clock + 7, &end) : 1;
    bool is_scaled = end != NULL && end > clock + 7 && *end == '\0' && replay->speed > 0 &&
                     isnormal(replay->speed);
    replay->is_virtual = strcmp(clock, "virtual") == 0;
    replay->has_profile = replay->is_virtual || options->profile != NULL;
    if (!replay->is_virtual && strcmp(clock, "real") != 0 && !is_scaled)
        return error_set(err, ERROR_USAGE,
                         "--clock is '%s', must be real, scaled=X with X above 0, or virtual",
                         clock);
    if (options->json && strcmp(replay->place.path, "-") == 0)
        return error_set(err, ERROR_USAGE,
                         "--json and the records both want standard output; -o names a file");
    if (options->compare && !replay->has_profile)
        return error_set(err, ERROR_USAGE,
                         "--compare is between plans: with --clock %s it needs a --profile", clock);
    return true;
}

static bool replay_all(struct replay *replay, struct error *err)
{
    const struct options *options = replay->options;
    struct error ignored = {0};
    const struct shard whole = {.count = 1};
    assert(options->model != NULL);
    if (!output_choose(&replay->place, options, &whole, err)) return false;
    if (!check_options(replay, err)) return false;
    if (!planning_open(&replay->planning, options, err)) return false;
    if (!arena_create(&replay->scratch, SCRATCH_BYTES_MAX, err)) return false;
    replay->style =
        (struct output_style){.model_name = options->model,
                              .tokenizer = replay->is_virtual ? NULL : replay->planning.tokenizer,
                              .token_ids = options->token_ids && !replay->is_virtual};
    if (!prepare(replay, err)) return false;
    if (replay->planning.input.n_requests > 0 && !make_plans(replay, err)) return false;
    bool is_ok = write_records(replay, err);
    if (!is_ok && err->code != ERROR_STOPPED) return false;
    return summarise(replay, is_ok ? err : &ignored) && is_ok;
}

bool cmd_replay(const struct options *options, int *status, struct error *err)
{
    struct replay *replay = calloc(1, sizeof *replay);
    assert(options->model != NULL);
    if (replay == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to replay");
    replay->options = options;
    report_init(&replay->report, options, stderr, isatty(STDERR_FILENO) != 0, clock_now_ns());
    bool is_ok = replay_all(replay, err);
    interrupt_unwatch();
    *status = replay->planning.n_bad > 0 ? 1 : 0;
    lock_release(replay->place.lock);
    arena_destroy(&replay->scratch);
    engine_close(&replay->engine);
    planning_close(&replay->planning);
    free(replay);
    return is_ok;
}
