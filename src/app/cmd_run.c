/* dllm-batch run: prompts in, answers out. Read it from the bottom, where the run goes by:
 *
 *     options ─► output named ─► model, tokenizer ─► input ─► engine
 *     background:   read and encode window n+1, until it is full or wanted
 *     main:         window n: errors ─► executor ─► each answer to text, to JSON, to the file
 *     summary
 */
#include <assert.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/app.h"
#include "app/deadline.h"
#include "app/feed.h"
#include "app/header.h"
#include "app/interrupt.h"
#include "app/lock.h"
#include "app/output.h"
#include "app/profile.h"
#include "app/prompts.h"
#include "app/report.h"
#include "app/resume.h"
#include "app/settings.h"
#include "app/shard.h"
#include "app/shard_costs.h"
#include "app/sink.h"
#include "app/survey.h"
#include "app/window.h"
#include "base/clock.h"
#include "base/stream.h"
#include "engine/engine.h"
#include "plan/plan.h"
#include "text/chat.h"

#define RUN_BYTES_MAX     ((size_t)64 << 30) /* address space: file headers, executor */
#define SCRATCH_BYTES_MAX ((size_t)64 << 20) /* text of one answer */
#define COUNTED_BYTES_MAX ((off_t)1 << 30)   /* counting more lines for a progress bar takes long */

struct run {
    const struct options *options;
    const char *input; /* path or "-" */
    const char *label; /* the same for messages */
    struct arena arena, scratch;
    struct model_config config;
    struct tokenizer *tokenizer; /* NULL: the model has none */
    struct prompts *prompts;
    struct engine engine;
    struct shard shard; /* which lines are ours */
    struct output_place place;
    struct output_style style;
    json_t *header;                /* of an output file */
    struct resume resume;          /* what the output has already */
    struct output *_Atomic output; /* NULL until there is something to write */
    struct deadline deadline;
    struct report report;
    struct feed *feed; /* NULL: none yet */
    const struct window *current;
    struct error tick_failure; /* flushing between two answers failed */
    bool ignored_is_noted, overlooked_is_noted;
    bool is_idle;                  /* nothing is left to do */
    struct cost_model cost;        /* with --profile */
    struct planner_options chosen; /* for the current window */
    struct sink *iterations;       /* NULL: nobody wants to see them */
};

/* ---- answers ---- */

/* The line of a prompt of the current window; `answer` NULL: its error. */
static bool put_line(struct run *run, const struct prompt *prompt, const struct answer *answer,
                     struct error *err)
{
    assert(prompt >= run->current->prompts);
    char *line = output_line(&run->style, prompt, answer, &run->scratch);
    if (line == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for the answer to line %lld",
                         (long long)prompt->line);
    return output_put(run->output, (int32_t)(prompt - run->current->prompts), line, err);
}

static bool put_failure(struct run *run, const struct prompt *prompt, struct error *err)
{
    assert(prompt->code != PROMPT_GOOD);
    if (!put_line(run, prompt, NULL, err)) return false;
    if (run->report.n_failed == 0)
        report_note(&run->report, "the first bad line is %s:%lld: %s", run->label,
                    (long long)prompt->line, prompt->message);
    report_failed(&run->report);
    return true;
}

static bool handle_answer(void *context, const struct answer *answer, struct error *err)
{
    struct run *run = context;
    struct prompt *prompt = answer->request->line_state;
    assert(prompt->code == PROMPT_GOOD);
    if (answer->failure != NULL) {
        prompt->code = PROMPT_NOT_FINITE;
        prompt->message = answer->failure;
        return put_failure(run, prompt, err);
    }
    if (!put_line(run, prompt, answer, err)) return false;
    report_answered(&run->report, answer->n_effective, prompt->n_generate,
                    answer->times.finished_ns - answer->request->admitted_ns);
    return true;
}

static bool handle_iteration(void *context, const struct executor_iteration *iteration)
{
    struct run *run = context;
    const struct iteration_load *load = &iteration->load;
    assert(run->output != NULL);
    if (run->iterations != NULL)
        fprintf(sink_file(run->iterations),
                "{\"begin_ns\":%" PRIu64 ",\"end_ns\":%" PRIu64 ",\"predicted_ns\":%" PRIu64
                ",\"rows\":%" PRId64 ",\"picks\":%" PRId64 ",\"row_keys\":%" PRId64
                ",\"cached_rows\":%" PRId64 "}\n",
                iteration->begin_ns - run->style.start_ns, iteration->end_ns - run->style.start_ns,
                iteration->predicted_ns, load->n_rows, load->n_picks, load->row_keys,
                load->cached_rows);
    uint64_t now_ns = clock_now_ns();
    report_tick(&run->report, now_ns, false);
    if (deadline_is_near(&run->deadline, now_ns, iteration->end_ns - iteration->begin_ns))
        interrupt_request();
    return output_tick(run->output, &run->tick_failure) && !interrupt_requested();
}

/* The phases of a window's requests, or NULL: it holds infill, whose steps nobody can foresee. */
static struct phases *window_phases(struct run *run, const struct window *window)
{
    const struct phases_model model = executor_phases_model(&run->config);
    struct phases *phases = arena_push(&run->arena, (size_t)window->n_requests, sizeof *phases);
    for (int32_t i = 0; i < window->n_requests; i++) {
        const struct request *request = &window->requests[i];
        assert(request->n_prompt > 0);
        if (request->decode.gen_length == 0 ||
            !phases_init(&phases[i], request->n_prompt, false, &request->decode, &model, NULL))
            return NULL;
    }
    return phases;
}

/* With a profile: the whole window ahead of time, by the best candidate. */
static bool plan_window(struct run *run, const struct window *window, struct error *err)
{
    size_t mark = run->arena.used_bytes;
    uint64_t begin_ns = clock_now_ns();
    struct plan plan = {0};
    run->chosen = run->engine.limits.planning;
    if (run->options->profile == NULL) return true;
    struct plan_input input = {.options = run->engine.limits.planning,
                               .cost = &run->cost,
                               .n_requests = window->n_requests,
                               .phases = window_phases(run, window),
                               .tokens_per_step = run->options->tokens_per_step,
                               .keeps_runs = true};
    bool is_ok = true;
    input.options.n_rows_target = 0; /* the plan chooses */
    if (input.phases != NULL) {
        is_ok = input.options.policy == POLICY_PLANNED ? plan_make_best(&plan, &input, err)
                                                       : plan_make(&plan, &input, err);
        input.options = plan.options;
        is_ok = is_ok && plan_check(&plan, &input, &run->arena, err);
        run->chosen = plan.options;
        run->report.planned_ns += plan.makespan_ns;
    }
    run->report.planning_ns += clock_now_ns() - begin_ns;
    plan_clear(&plan);
    arena_rewind(&run->arena, mark);
    return is_ok;
}

/* Every line of the window gets its line of output: first those that are no requests. */
static bool answer_window(struct run *run, const struct window *window, struct error *err)
{
    const struct executor_events events = {.context = run,
                                           .answered = handle_answer,
                                           .iterated = handle_iteration,
                                           .chosen = &run->chosen};
    assert(run->output != NULL);
    run->current = window;
    if (!output_start_window(run->output, window->n_prompts, err)) return false;
    for (int32_t i = 0; i < window->n_prompts; i++) {
        const struct prompt *prompt = &window->prompts[i];
        if (prompt->code == PROMPT_GOOD) continue;
        if (!put_failure(run, prompt, err)) return false;
    }
    if (window->n_requests > 0 && !plan_window(run, window, err)) return false;
    if (window->n_requests == 0 ||
        executor_run(run->engine.executor, window->requests, window->n_requests, &events, err))
        return true;
    if (run->tick_failure.code != ERROR_NONE) *err = run->tick_failure;
    return false;
}

static void note_ignored(struct run *run)
{
    assert(run->prompts != NULL);
    int64_t line = prompts_ignored_line(run->prompts);
    const struct overlooked *overlooked = prompts_overlooked(run->prompts);
    if (line > 0 && !run->ignored_is_noted)
        report_note(&run->report,
                    "%s:%lld: model, user, metadata and store in OpenAI lines change no answer and "
                    "are ignored",
                    run->label, (long long)line);
    if (overlooked->line > 0 && !run->overlooked_is_noted)
        report_note(&run->report, "%s:%lld: %s", run->label, (long long)overlooked->line,
                    overlooked->text);
    run->ignored_is_noted = line > 0;
    run->overlooked_is_noted = overlooked->line > 0;
}

/* "cpu avx512": without the number of threads or the device's. */
static void name_backend(const struct run *run, char name[RESUME_NAME_BYTES])
{
    const struct backend *backend = &run->engine.backend;
    const char *comma = strstr(backend->machine, ", ");
    assert(backend->ops != NULL);
    snprintf(name, RESUME_NAME_BYTES, "%s %s", backend->ops->name,
             comma != NULL ? comma + 2 : backend->machine);
}

static void note_resumption(struct run *run, const char *backend)
{
    const struct resume *resume = &run->resume;
    struct report *report = &run->report;
    const char *path = run->place.path;
    assert(run->place.exists);
    if (resume->torn_bytes > 0)
        report_note(report, "%s: the last %lld bytes are left from a broken write and are cut off",
                    path, (long long)resume->torn_bytes);
    if (!resume->has_header) return;
    if (strcmp(resume->backend, backend) != 0 || strcmp(resume->program, header_program()) != 0)
        report_note(
            report,
            "%s was begun by %s on %s, and %s goes on on %s: good answers, but for the same "
            "line not always the same ones",
            path, resume->program, resume->backend, header_program(), backend);
}

static void note_nothing_left(struct run *run, long long n_answered)
{
    assert(n_answered > 0);
    report_note(&run->report, "nothing is left to do: %s%s has the answers to all %lld lines",
                run->resume.n_elsewhere > 0 ? "with files of other shards, " : "", run->place.path,
                n_answered);
}

/* The output is created when there is something to put into it. */
static bool start_output(struct run *run, const struct window *first, struct error *err)
{
    assert(run->output == NULL);
    bool has_work = first->n_prompts > 0;
    const struct prompts_counts counts = prompts_counts(run->prompts);
    long long n_answered = (long long)counts.n_answered;
    *err = first->failure;
    if (!has_work && err->code != ERROR_NONE) return false;
    /* A shard may have no lines: its file is written all the same, so that it is seen to be done.
     */
    if (!has_work && n_answered == 0 && counts.n_foreign == 0)
        return error_set(err, ERROR_FORMAT, "%s has no prompts", run->label);
    *err = (struct error){0};
    if (!has_work && n_answered > 0) note_nothing_left(run, n_answered);
    if (!has_work && run->resume.is_complete) return true;
    char backend[RESUME_NAME_BYTES], *header = NULL;
    name_backend(run, backend);
    if (run->place.exists) note_resumption(run, backend);
    if (run->place.is_file && (!run->resume.has_header || run->resume.is_otherwise)) {
        header = header_line(run->header, backend);
        if (header == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to write");
    }
    struct output *output = NULL;
    bool is_ok = output_open(&output, &run->place, run->options, header, err);
    run->output = output;
    free(header);
    return is_ok;
}

static bool set_stopped(struct run *run, struct error *err)
{
    assert(interrupt_requested());
    const struct report *report = &run->report;
    long long n_done = (long long)(report->n_found + report->n_answered + report->n_failed);
    return error_set(err, ERROR_STOPPED, "stopped%s%s; lines done: %lld, %s",
                     interrupt_is_timed() ? " by " : "",
                     interrupt_is_timed() ? run->deadline.origin : "", n_done,
                     run->place.is_file ? "the same command goes on with the others"
                                        : "the others have no answer");
}

/* On the watching thread: the process ends before the iteration does. */
static void end_late(void *context)
{
    struct run *run = context;
    struct output *output = run->output;
    struct error stop = {0};
    assert(interrupt_requested());
    if (output != NULL) output_rescue(output);
    lock_release(run->place.lock);
    set_stopped(run, &stop);
    report_error(&run->report, "%s", stop.message);
}

/* On the watching thread. */
static void tell_status(void *context)
{
    struct run *run = context;
    assert(run->options != NULL);
    if (run->place.is_file) run->report.n_safe = run->report.n_found + run->place.n_safe;
    report_tick(&run->report, clock_now_ns(), true);
}

static bool watch(struct run *run, uint64_t now_ns, uint64_t unix_ns, struct error *err)
{
    const struct options *options = run->options;
    struct deadline *deadline = &run->deadline;
    assert(run->output == NULL);
    if (!deadline_set(deadline, options->time_limit, getenv("SLURM_JOB_END_TIME"), now_ns, unix_ns,
                      err))
        return false;
    return interrupt_install(err) &&
           interrupt_watch(&(struct interrupt_watch){.late = end_late,
                                                     .asked = tell_status,
                                                     .context = run,
                                                     .stop_ns = deadline->stop_ns,
                                                     .end_ns = deadline->end_ns},
                           err);
}

static bool answer_all(struct run *run, struct error *err)
{
    assert(run->current == NULL);
    for (feed_start(run->feed);;) {
        /* Reading a slow pipe may take forever: what is done must not wait for it. */
        if (run->output != NULL && !feed_is_filled(run->feed, 0) && !output_flush(run->output, err))
            return false;
        const struct window *window = feed_take(run->feed);
        if (window == NULL) return set_stopped(run, err);
        if (run->output == NULL && !start_output(run, window, err)) return false;
        note_ignored(run);
        if (window->n_prompts == 0) { /* the rest was answered before */
            *err = window->failure;
            return err->code == ERROR_NONE;
        }
        if (!window->is_last) feed_start(run->feed);
        if (!answer_window(run, window, err))
            return interrupt_requested() && err->code == ERROR_STOPPED ? set_stopped(run, err)
                                                                       : false;
        if (!window->is_last) continue;
        *err = window->failure;
        return err->code == ERROR_NONE;
    }
}

/* ---- before ---- */

static bool is_regular(const char *path, off_t *n_bytes)
{
    assert(n_bytes != NULL);
    struct stat status;
    bool is_file = strcmp(path, "-") != 0 && stat(path, &status) == 0 && S_ISREG(status.st_mode);
    if (is_file) *n_bytes = status.st_size;
    return is_file;
}

static bool check_options(const struct run *run, struct error *err)
{
    const struct options *options = run->options;
    off_t n_bytes;
    if (options->no_chat && options_is_set(options, OPTION_system))
        return error_set(err, ERROR_USAGE,
                         "--system needs the chat template, but --no-chat is given");
    bool is_stream = !is_regular(run->input, &n_bytes);
    if (options->strict && is_stream && (access(run->input, F_OK) == 0 || run->label != run->input))
        return error_set(err, ERROR_USAGE,
                         "--strict reads the prompts twice, so they must be a file, not %s",
                         run->label);
    return true;
}

/* Which shard this is. A stream is read once, and by whom depends on the launcher: only the user
 * can know that each shard sees all of it. */
static bool choose_shard(struct run *run, struct error *err)
{
    struct shard *shard = &run->shard;
    off_t n_bytes;
    assert(run->prompts == NULL);
    if (!shard_choose(shard, run->options->shard, getenv, err)) return false;
    if (shard->count == 1) return true;
    bool needs_file = shard->is_found || strcmp(run->options->shard_by, "cost") == 0;
    bool is_stream = !is_regular(run->input, &n_bytes) &&
                     (run->label != run->input || access(run->input, F_OK) == 0);
    if (needs_file && is_stream)
        return error_set(err, ERROR_USAGE,
                         "shard %d of %d by %s needs a file, not %s: use --shard off, or, where "
                         "every shard reads the same, --shard i/n with --shard-by hash",
                         shard->index, shard->count, shard->is_found ? shard->origin : "cost",
                         run->label);
    if (shard->is_found)
        report_note(&run->report, "shard %d of %d, counted from 0, by %s", shard->index,
                    shard->count, shard->origin);
    return true;
}

static struct prompts_options prompts_of(const struct run *run)
{
    assert(run->input != NULL);
    return (struct prompts_options){.path = run->input,
                                    .flags = run->options,
                                    .config = &run->config,
                                    .tokenizer = run->tokenizer};
}

/* Before any line is read to be answered: what each shard computes, if costs decide. */
static bool share_lines(struct run *run, struct error *err)
{
    struct shard *shard = &run->shard;
    const struct prompts_options options = prompts_of(run);
    assert(shard->count >= 1);
    if (shard->count == 1 || strcmp(run->options->shard_by, "cost") != 0) return true;
    if (!shard_costs_read(shard, &options, &run->arena, err)) return false;
    if (run->options->verbose)
        report_note(&run->report,
                    "shard %d of %d has %lld of %lld lines, predicted imbalance %.2f %%",
                    shard->index, shard->count, (long long)shard->n_mine, (long long)shard->n_lines,
                    100 * shard->imbalance);
    return true;
}

static bool open_model(struct run *run, struct error *err)
{
    const char *folder = run->options->model;
    assert(folder != NULL);
    if (!config_read(&run->config, folder, &run->arena, err)) return false;
    if (!app_open_tokenizer(&run->tokenizer, folder, &run->config, err)) return false;
    const struct chat_template *chat = chat_find(run->config.chat_name);
    const char *jinja =
        run->tokenizer != NULL ? tokenizer_facts(run->tokenizer).chat_template : NULL;
    if (jinja != NULL && chat != NULL && !run->options->no_chat && !chat_matches(chat, jinja))
        report_note(&run->report,
                    "the chat template of %s differs from the built-in one of %s, which is used",
                    folder, run->config.family_name);
    return true;
}

/* Our own lines, without those that are answered. */
static struct prompts_options own_prompts_of(struct run *run)
{
    struct prompts_options options = prompts_of(run);
    assert(run->prompts == NULL);
    options.shard = &run->shard;
    options.ledger = &run->resume.ledger;
    return options;
}

/* Whether an output that says to be complete has the answers to all our lines: a task that is
 * started again for the sake of others need not load a model to see it. */
static bool look_for_work(struct run *run, struct error *err)
{
    struct prompts_options options = own_prompts_of(run);
    struct prompts *prompts;
    struct prompt prompt;
    enum prompts_status status = PROMPTS_READ;
    int64_t n_answered = 0, n_left = 0;
    off_t n_bytes;
    assert(!run->is_idle);
    bool wants_complaints = run->options->strict && run->resume.n_failed > 0;
    if (!run->resume.is_complete || wants_complaints || !is_regular(run->input, &n_bytes))
        return true;
    options.only_ids = true;
    options.config = NULL;
    if (!prompts_open(&prompts, &options, err)) return false;
    while (n_left == 0 && (status = prompts_next(prompts, &prompt, err)) == PROMPTS_READ) {
        n_answered += prompt.verdict == LEDGER_ANSWERED;
        n_left += prompt.verdict == LEDGER_CHANGED || /* to be told, whoever's it is */
                  (prompt.verdict != LEDGER_ANSWERED && !prompt.is_foreign);
    }
    prompts_close(prompts);
    ledger_forget_reads(&run->resume.ledger);
    run->is_idle = status == PROMPTS_END && n_answered > 0;
    if (run->is_idle) note_nothing_left(run, (long long)n_answered);
    return status != PROMPTS_FAILED;
}

static bool open_engine(struct run *run, struct error *err)
{
    const struct options *options = run->options;
    assert(run->prompts != NULL);
    struct engine_options engine_options;
    settings_engine(&engine_options, options);
    engine_options.n_requests_max = options->window;
    engine_options.cost = options->profile != NULL ? &run->cost : NULL;
    struct cost_profile profile;
    if (options->profile != NULL && !profile_read(&profile, options->profile, err)) return false;
    char path[OUTPUT_PATH_BYTES_MAX];
    if (options->iterations != NULL &&
        (!output_number(&run->shard, options->iterations, path, err) ||
         !sink_open(&run->iterations, path, options->force, err)))
        return false;
    if (!engine_open(&run->engine, &engine_options, &run->config, &run->arena, err)) return false;
    const struct backend *backend = &run->engine.backend;
    if (options->profile != NULL) {
        struct cost_shape shape =
            profile_shape(&run->config, sizeof(uint16_t), profile.kv_element_bytes);
        cost_init(&run->cost, &profile, &shape);
        if (!profile.is_measured)
            report_note(&run->report, "profile %s is a datasheet's: not measured, and not here",
                        profile.name);
    }
    if (options->verbose || strcmp(backend->ops->name, "cuda") == 0)
        report_note(&run->report, "backend %s: %s", backend->ops->name, backend->machine);
    if (engine_options.graphs && !backend->graphs.is_on)
        report_note(&run->report, "--graphs on: backend %s records no steps here",
                    backend->ops->name);
    report_memory(&run->report, &run->engine.memory);
    prompts_set_executor(run->prompts, run->engine.executor);
    const struct window_limits limits = {.n_prompts_max = options->window,
                                         .n_cells_max = run->engine.limits.n_cells_max};
    return feed_open(&run->feed, run->prompts, &limits, err);
}

/* --strict: a pass of its own over the file, the lines of other shards, too: none writes anything
 * if one is bad. */
static bool check_lines(struct run *run, struct error *err)
{
    assert(run->options->strict);
    struct prompts *prompts = NULL;
    struct survey survey;
    const struct prompts_options options = prompts_of(run);
    if (!prompts_open(&prompts, &options, err)) return false;
    prompts_set_executor(prompts, run->engine.executor);
    bool is_ok = survey_take(&survey, prompts, run->label, &run->scratch, err) &&
                 survey_check(&survey, run->label, &run->report, err);
    prompts_close(prompts);
    arena_rewind(&run->scratch, 0);
    if (is_ok && run->shard.count == 1) run->report.n_expected = survey.n_lines;
    return is_ok;
}

/* Lines to expect, if counting them is quick; 0: unknown, as where ids decide which are ours. */
static int64_t count_lines(const struct run *run)
{
    assert(run->report.n_expected == 0);
    struct line_reader *reader;
    struct bytes line;
    int64_t n_lines = 0;
    off_t n_bytes;
    bool is_wanted = run->report.progress != PROGRESS_NONE;
    if (run->shard.count > 1) return run->shard.n_mine;
    if (!is_wanted || !is_regular(run->input, &n_bytes) || n_bytes > COUNTED_BYTES_MAX) return 0;
    if (!line_reader_open(&reader, run->input, PROMPTS_LINE_BYTES_MAX, NULL)) return 0;
    enum line_status status;
    while ((status = line_reader_next(reader, &line, NULL)) == LINE_READ || status == LINE_TOO_LONG)
        n_lines += status == LINE_TOO_LONG || line.n > strspn(line.data, " \t\r");
    line_reader_close(reader);
    bool is_limited = options_is_set(run->options, OPTION_limit);
    return is_limited && n_lines > run->options->limit ? run->options->limit : n_lines;
}

/* --dry-run: what would run, on standard output. */
static bool preview(struct run *run, int *status, struct error *err)
{
    assert(run->output == NULL);
    struct survey survey;
    if (!survey_take(&survey, run->prompts, run->label, &run->arena, err)) return false;
    error_print(stdout, "model: %s (%s, %lld parameters)", run->options->model,
                run->config.architecture, (long long)config_n_parameters(&run->config));
    error_print(stdout, "output: %s%s",
                strcmp(run->place.path, "-") == 0 ? "standard output" : run->place.path,
                run->place.compress ? ", zstd" : "");
    survey_print(&survey, run->label, run->tokenizer, &run->scratch, stdout);
    note_ignored(run);
    puts("options:");
    options_print(run->options, stdout);
    *status = survey.n_bad > 0 ? 1 : 0;
    return true;
}

/* ---- the run ---- */

/* What the envelope calls the model: the folder's name, as UTF-8. */
static const char *name_model(struct run *run)
{
    struct error name = {0}; /* its setter makes any bytes valid */
    char folder[sizeof name.message];
    snprintf(folder, sizeof folder, "%s", run->options->model);
    error_set(&name, ERROR_FORMAT, "%s", basename(folder));
    const char *copy = arena_try_copy(&run->arena, name.message, strlen(name.message));
    assert(copy != NULL);
    return copy;
}

/* Others are kept away from an output file from here on. */
static bool claim_output(struct run *run, struct error *err)
{
    assert(run->header == NULL);
    if (!run->place.is_file || run->options->dry_run) return true;
    return header_make(&run->header, run->options, run->style.model_name, err) &&
           output_lock(&run->place, run->options, &run->report, err);
}

/* What the output has, before minutes of loading. */
static bool find_answers(struct run *run, struct error *err)
{
    const struct options *options = run->options;
    struct resume *resume = &run->resume;
    if (run->header == NULL) return true;
    assert(run->place.is_file);
    bool is_forced = strcmp(options->resume, "force") == 0;
    if (run->place.exists) {
        if (!resume_scan(resume, &run->place, run->header, is_forced, err)) return false;
        run->place.keep_bytes = resume->keep_bytes;
        run->report.n_found = resume->n_answered + resume->n_failed;
        if (run->report.n_found > 0)
            report_note(&run->report, "%s has the answers to %lld lines already", run->place.path,
                        (long long)run->report.n_found);
    }
    return run->place.overwrite ||
           resume_scan_others(resume, &run->place, run->header, is_forced, err);
}

/* Everything up to the first window. */
static bool run_open(struct run *run, struct error *err)
{
    const struct options *options = run->options;
    assert(run->prompts == NULL);
    uint64_t now_ns = clock_now_ns(), unix_ns = clock_unix_ns();
    report_init(&run->report, options, stderr, isatty(STDERR_FILENO) != 0, now_ns);
    if (options->verbose && !options->quiet && !run->report.is_json) options_print(options, stderr);
    if (!check_options(run, err) || !choose_shard(run, err)) return false;
    if (!output_choose(&run->place, options, &run->shard, err)) return false;
    if (!arena_create(&run->arena, RUN_BYTES_MAX, err)) return false;
    if (!arena_create(&run->scratch, SCRATCH_BYTES_MAX, err)) return false;
    if (!watch(run, now_ns, unix_ns, err) || !open_model(run, err)) return false;
    if (!settings_check_flags(options, &run->config, err)) return false;
    run->style = (struct output_style){.tokenizer = run->tokenizer,
                                       .model_name = name_model(run),
                                       .token_ids = options->token_ids,
                                       .start_unix_ns = unix_ns,
                                       .start_ns = now_ns};
    /* Sharing out comes first: it forgets the ids that it has seen before others are learnt. */
    if (!claim_output(run, err) || !share_lines(run, err) || !find_answers(run, err)) return false;
    if (!look_for_work(run, err)) return false;
    if (run->is_idle) return true;
    const struct prompts_options own = own_prompts_of(run);
    if (!prompts_open(&run->prompts, &own, err)) return false;
    if (strcmp(run->input, "-") == 0 && isatty(STDIN_FILENO))
        report_note(&run->report, "reading prompts from the terminal, one JSON object a line; "
                                  "Ctrl-D ends them");
    if (options->dry_run) return true;
    if (!open_engine(run, err)) return false;
    if (options->strict && !check_lines(run, err)) return false;
    if (run->report.n_expected == 0) run->report.n_expected = count_lines(run);
    return true;
}

/* The record that ends an output file; NULL: it has none. */
static char *make_manifest(const struct run *run, const struct executor_counts *counts,
                           bool is_complete)
{
    char backend[RESUME_NAME_BYTES];
    assert(run->output != NULL);
    if (!run->place.is_file) return NULL;
    name_backend(run, backend);
    struct prompts_counts input = {0};
    if (is_complete) input = prompts_counts(run->prompts); /* else it may still be read */
    const struct report_manifest manifest = {.program = header_program(),
                                             .backend = backend,
                                             .start_unix_ns = run->style.start_unix_ns,
                                             .n_found_failed = run->resume.n_failed,
                                             .input = input,
                                             .is_complete = is_complete};
    return report_manifest(&run->report, &manifest, counts, clock_now_ns());
}

/* Closes the output; a file that could not be written is still one to go on with. */
static bool close_output(struct run *run, const struct executor_counts *counts, bool is_ok,
                         struct error *err)
{
    bool is_broken_pipe;
    struct error failure = {0};
    char *manifest = make_manifest(run, counts, is_ok);
    assert(run->output != NULL);
    bool is_closed = output_close(run->output, manifest, &is_broken_pipe, &failure);
    free(manifest);
    if (!is_closed && run->place.is_file)
        error_set(&failure, failure.code,
                  "%s; lines that are safe in it: %lld, the same command "
                  "goes on with the others",
                  failure.message, (long long)(run->report.n_found + run->place.n_safe));
    /* Done lines that could not be written weigh more than the wish to stop. */
    bool is_ours = is_ok || err->code == ERROR_STOPPED || err->code == failure.code;
    if (!is_closed && is_ours) *err = failure;
    /* A reader that went away is not worth a message. */
    if (is_broken_pipe) err->message[0] = '\0';
    return is_ok && is_closed;
}

/* The answers that are done are written whatever happened; the first failure is the one to tell. */
static bool finish_output(struct run *run, bool is_ok, struct error *err)
{
    interrupt_unwatch();
    if (run->iterations != NULL) is_ok = sink_close(run->iterations, is_ok ? err : NULL) && is_ok;
    if (run->output == NULL) return is_ok;
    struct executor_counts counts = executor_counts(run->engine.executor);
    is_ok = close_output(run, &counts, is_ok, err);
    bool is_stopped = err->code == ERROR_STOPPED;
    report_clear(&run->report);
    bool is_summed_up = is_ok || is_stopped;
    /* A name that nobody chose. */
    if (is_summed_up && !options_is_set(run->options, OPTION_output) &&
        strcmp(run->place.path, "-") != 0)
        report_note(&run->report, "the answers are in %s", run->place.path);
    if (is_ok && run->shard.count > 1)
        report_note(&run->report,
                    "lines of other shards without an answer when this one began: %lld",
                    (long long)prompts_counts(run->prompts).n_foreign);
    run->report.graphs = run->engine.backend.graphs;
    if (is_summed_up) report_summary(&run->report, &counts, clock_now_ns(), is_stopped);
    return is_ok;
}

static void run_close(struct run *run)
{
    assert(run->options != NULL);
    feed_close(run->feed);
    engine_close(&run->engine);
    prompts_close(run->prompts);
    tokenizer_close(run->tokenizer);
    json_decref(run->header);
    resume_clear(&run->resume);
    arena_destroy(&run->scratch);
    arena_destroy(&run->arena);
    free(run);
}

bool cmd_run(const struct options *options, int *status, struct error *err)
{
    assert(options->model != NULL);
    struct run *run = calloc(1, sizeof *run);
    if (run == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to start");
    run->options = options;
    run->input = options->operand != NULL ? options->operand : "-";
    run->label = strcmp(run->input, "-") == 0 ? "standard input" : run->input;
    bool is_ok = run_open(run, err);
    if (is_ok && options->dry_run) is_ok = preview(run, status, err);
    else if (is_ok) {
        run->report.start_ns = run->report.shown_ns = clock_now_ns();
        is_ok = run->is_idle || answer_all(run, err);
        *status = run->report.n_failed + run->resume.n_failed > 0 ? 1 : 0;
    }
    is_ok = finish_output(run, is_ok, err);
    lock_release(run->place.lock);
    /* A reader that hangs on a silent pipe cannot be stopped; the process's end will. */
    if (feed_is_filled(run->feed, FEED_SETTLE_MS)) run_close(run);
    return is_ok;
}
