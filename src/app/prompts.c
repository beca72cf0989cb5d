/* Reads lines and turns each into a struct prompt: JSON, id, prompt and settings, ids, limits. The
 * first thing that is wrong decides; the line is then answered with an error, and the next one is
 * read. Only trouble with the input itself ends the run. */
#include "app/prompts.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/describe.h"
#include "app/prompts_parts.h"
#include "app/settings.h"
#include "app/trace.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/stream.h"
#include "plan/phases.h"

/* Address space for one line: its text rendered, encoded and in between, and the tokenizer's own
 * work. After a giant line its pages are given back. */
#define SCRATCH_BYTES_MAX  ((size_t)1 << 30)
#define SCRATCH_BYTES_KEPT ((size_t)64 << 20)
#define RUN_BYTES_MAX      ((size_t)64 << 20) /* special tokens of a large vocabulary */

struct prompts {
    struct prompts_options options;
    struct line_reader *reader;
    const struct executor *executor; /* NULL: limits are not checked */
    struct encoder encoder;
    struct ledger own, *ledger; /* of ids: `own`, or the options' */
    struct arena run, scratch;
    int64_t n_lines; /* blank ones, too */
    struct prompts_counts counts;
    bool is_waiting; /* prompts_wait has read `waiting`, which prompts_next has not seen yet */
    struct bytes waiting;
    enum line_status waiting_status;
    int64_t ignored_line;
    struct overlooked overlooked;
    struct trace trace;        /* of a trace: its format, */
    struct trace_row row;      /* the row that is being read, */
    struct prompts_trace sums; /* and what became of the rows */
    bool is_skipped;           /* the line, or row, gets no line of output */
    bool saw_openai;           /* so an unreadable line gets the envelope, too */
};

/* ---- open, close ---- */

static enum line_status next_line(struct prompts *prompts, struct bytes *line, struct error *err);

static bool has_trace_options(const struct options *flags)
{
    assert(flags != NULL);
    for (enum option_id id = 0; id < OPTION_COUNT; id++)
        if (options_is_set(flags, id) && strcmp(options_info(id)->section, "Trace") == 0)
            return true;
    return false;
}

/* Reads the first line, which is a CSV header or the first row. */
static bool learn_trace(struct prompts *prompts, struct error *err)
{
    static const struct unit {
        const char *name;
        uint64_t ns;
    } units[] = {{"s", 1000000000}, {"ms", 1000000}, {"us", 1000}, {"ns", 1}};
    const struct options *flags = prompts->options.flags;
    struct trace *trace = &prompts->trace;
    assert(!prompts->is_waiting);
    trace->names = (struct trace_names){
        .time = flags->time_column, .prompt = flags->prompt_column, .output = flags->output_column};
    for (size_t i = 0; i < sizeof units / sizeof *units && flags->time_unit != NULL; i++)
        if (strcmp(flags->time_unit, units[i].name) == 0) trace->names.unit_ns = units[i].ns;
    enum line_status status = next_line(prompts, &prompts->waiting, err);
    if (status == LINE_FAILED) return false;
    prompts->waiting_status = status;
    prompts->is_waiting = status != LINE_END;
    if (status == LINE_READ && trace_learn(trace, prompts->waiting, &prompts->run, err)) {
        prompts->is_waiting = trace->n_columns == 0;
        return true;
    }
    if (prompts->options.may_be_prompts && !has_trace_options(flags)) {
        prompts->options.is_trace = false;
        *trace = (struct trace){0};
        *err = (struct error){0};
        return true;
    }
    if (status == LINE_END)
        return error_set(err, ERROR_FORMAT, "%s has no rows", prompts->options.path);
    if (status == LINE_TOO_LONG)
        error_set(err, ERROR_FORMAT, "the line has more than %zu bytes", PROMPTS_LINE_BYTES_MAX);
    return error_wrap(err, "%s:%lld", prompts->options.path, (long long)prompts->n_lines);
}

bool prompts_open(struct prompts **prompts, const struct prompts_options *options,
                  struct error *err)
{
    assert(options->path != NULL);
    struct prompts *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read");
    const struct options *flags = options->flags;
    const struct model_config *config = options->config;
    opened->options = *options;
    opened->ledger = options->ledger != NULL ? options->ledger : &opened->own;
    assert((config == NULL) == options->only_ids);
    if (config != NULL)
        opened->encoder = (struct encoder){
            .tokenizer = options->tokenizer,
            .chat = flags->no_chat ? NULL : chat_find(config->chat_name),
            .mask_id = config->mask_id,
            .n_vocab = config->n_vocab,
            .n_positions = config->n_positions,
        };
    if (flags->system != NULL)
        opened->encoder.system = (struct bytes){.data = flags->system, .n = strlen(flags->system)};
    bool is_ok = line_reader_open(&opened->reader, options->path, PROMPTS_LINE_BYTES_MAX, err) &&
                 arena_create(&opened->run, RUN_BYTES_MAX, err) &&
                 arena_create(&opened->scratch, SCRATCH_BYTES_MAX, err) &&
                 prompts_encode_init(&opened->encoder, &opened->run, err);
    if (is_ok && options->is_trace) is_ok = learn_trace(opened, err);
    if (!is_ok) {
        prompts_close(opened);
        return false;
    }
    *prompts = opened;
    return true;
}

void prompts_close(struct prompts *prompts)
{
    if (prompts == NULL) return;
    assert(prompts->counts.n <= prompts->n_lines);
    line_reader_close(prompts->reader);
    ledger_clear(&prompts->own);
    arena_destroy(&prompts->run);
    arena_destroy(&prompts->scratch);
    free(prompts);
}

void prompts_set_executor(struct prompts *prompts, const struct executor *executor)
{
    assert(executor != NULL);
    prompts->executor = executor;
}

int64_t prompts_ignored_line(const struct prompts *prompts)
{
    assert(prompts != NULL);
    return prompts->ignored_line;
}

const struct overlooked *prompts_overlooked(const struct prompts *prompts)
{
    assert(prompts != NULL);
    return &prompts->overlooked;
}

static void keep_overlooked(struct overlooked *overlooked, const struct prompt_parts *parts,
                            int64_t line)
{
    assert(parts->overlooked_key != NULL);
    if (overlooked->line > 0) return;
    overlooked->line = line;
    int n = snprintf(overlooked->text, sizeof overlooked->text, "\"%.40s\" is ignored; ",
                     parts->overlooked_key);
    char *rest = overlooked->text + n;
    size_t n_rest = sizeof overlooked->text - (size_t)n;
    if (parts->meant == OPTION_COUNT) {
        snprintf(rest, n_rest, "every line gets one answer");
        return;
    }
    int n_hint = snprintf(rest, n_rest, "did you mean \"%s\"?", options_info(parts->meant)->name);
    for (int i = 0; i < n_hint; i++)
        if (rest[i] == '-') rest[i] = '_';
}

const struct prompts_trace *prompts_trace(const struct prompts *prompts)
{
    assert(prompts != NULL);
    return prompts->options.is_trace ? &prompts->sums : NULL;
}

/* ---- ids ---- */

/* The id's text in the scratch arena. A line without id gets its index. */
static bool read_id(struct prompts *prompts, const json_t *line, struct prompt *prompt,
                    struct rejection *rejection)
{
    assert(!prompt->has_id);
    static const char *const keys[] = {"id", "custom_id", "question_id", "task_id"};
    const char *key = NULL;
    const json_t *value = NULL;
    for (size_t i = prompt->is_openai ? 1 : 0; value == NULL && i < sizeof keys / sizeof keys[0];
         i++) {
        key = keys[i];
        value = json_object_get(line, key);
        if (json_is_null(value)) value = NULL;
    }
    char text[DESCRIBE_BYTES_MAX];
    struct bytes id = {.data = text};
    if (value == NULL || json_is_integer(value)) {
        json_int_t number = value != NULL ? json_integer_value(value) : prompt->index;
        id.n = (size_t)snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, number);
    } else if (json_is_string(value) && json_string_length(value) <= PROMPTS_ID_BYTES_MAX) {
        id = (struct bytes){.data = json_string_value(value), .n = json_string_length(value)};
    } else {
        return prompts_reject(rejection, PROMPT_INVALID_REQUEST,
                              "%s is %s, must be an integer or a string of at most %d bytes", key,
                              describe_json(value, text), PROMPTS_ID_BYTES_MAX);
    }
    const char *copy = arena_try_copy(&prompts->scratch, id.data, id.n);
    assert(copy != NULL);
    prompt->has_id = true;
    prompt->id_is_integer = !json_is_string(value);
    prompt->id = (struct bytes){.data = copy, .n = id.n};
    return true;
}

static uint64_t id_hash(const struct prompt *prompt)
{
    assert(prompt->has_id);
    return ledger_hash(prompt->id_is_integer ? 'i' : 's', prompt->id);
}

/* Whether another shard answers it. As far as the line could be read: without an id its place
 * decides. */
static bool is_foreign(const struct prompts *prompts, const struct prompt *prompt)
{
    const struct shard *shard = prompts->options.shard;
    assert(prompts->counts.n > 0);
    if (shard == NULL) return false;
    return !shard_has(shard, prompts->counts.n - 1, prompt->has_id ? id_hash(prompt) : 0);
}

/* Looks the line up among those that were read and those that are answered. False: err says why. */
static bool look_up(struct prompts *prompts, struct prompt *prompt, uint64_t key, struct error *err)
{
    enum ledger_verdict verdict;
    if (!ledger_read(prompts->ledger, key, prompt->line_hash, &verdict, err)) return false;
    prompt->verdict = verdict;
    prompts->is_skipped = verdict == LEDGER_ANSWERED;
    prompts->counts.n_answered += prompts->is_skipped;
    if (verdict != LEDGER_REPEATED) prompts->counts.keys += key;
    assert(verdict != LEDGER_REPEATED || prompt->has_id);
    if (verdict != LEDGER_CHANGED || prompts->options.only_ids) return true;
    return error_set(err, ERROR_FORMAT,
                     "%s:%lld: the line is not what it was when the output got its answer (id "
                     "%.80s); -f begins anew, --resume=force keeps that answer",
                     prompts->options.path, (long long)prompt->line,
                     prompt->has_id ? prompt->id.data : "null");
}

/* False with a rejection: the id was used before. False without: skipped, or err says why. */
static bool check_id(struct prompts *prompts, struct prompt *prompt, struct rejection *rejection,
                     struct error *err)
{
    assert(prompt->has_id);
    uint64_t key = id_hash(prompt);
    if (!look_up(prompts, prompt, key, err)) return false;
    if (prompt->verdict != LEDGER_REPEATED) return !prompts->is_skipped;
    key = ledger_line_key('d', prompt->index);
    if (!look_up(prompts, prompt, key, err) || prompts->is_skipped) return false;
    if (!prompt->id_is_integer)
        return prompts_reject(rejection, PROMPT_DUPLICATE_ID,
                              "id \"%.80s\" was used by an earlier line", prompt->id.data);
    return prompts_reject(rejection, PROMPT_DUPLICATE_ID,
                          "id %s was used by an earlier line (a line without id has its index, "
                          "counted from 0)",
                          prompt->id.data);
}

/* ---- rows of a trace ---- */

/* A prompt of which only the length is known. */
static bool make_prompt(struct prompts *prompts, const struct prompt *prompt,
                        struct prompt_parts *parts, struct rejection *rejection)
{
    const struct model_config *config = prompts->options.config;
    uint64_t key = prompts->options.flags->seed ^ id_hash(prompt);
    assert(prompts->row.n_prompt > 0);
    parts->kind = PARTS_IDS;
    parts->n_ids = prompts->row.n_prompt;
    if (prompts->options.only_shapes) return true;
    parts->ids = arena_try_push(&prompts->scratch, (size_t)parts->n_ids, sizeof *parts->ids);
    if (parts->ids == NULL) return prompts_reject_memory(rejection);
    trace_fill_prompt(parts->ids, parts->n_ids, key, config->n_vocab, config->mask_id);
    return true;
}

/* The answer ends where the trace's did; gen_length is that in whole blocks unless it was given. */
static bool resolve_output(struct prompts *prompts, const struct prompt_parts *parts,
                           struct prompt *prompt, struct rejection *rejection)
{
    const struct options *flags = prompts->options.flags;
    struct decode_settings *decode = &prompt->request.decode;
    struct options line = parts->settings;
    int32_t n_output = prompts->row.n_output;
    assert(n_output > 0);
    bool is_given = options_is_set(flags, OPTION_gen_length) ||
                    options_is_set(&parts->settings, OPTION_gen_length);
    if (!is_given) {
        int32_t block_length = decode->block_length > 0 ? decode->block_length : 1;
        int32_t n_blocks = n_output / block_length + (n_output % block_length != 0);
        line.gen_length = n_blocks * block_length;
        line.is_set[OPTION_gen_length] = true;
        if (!settings_resolve(decode, prompts->options.config, flags, &line, false,
                              &rejection->error))
            return false;
    }
    prompt->n_output = n_output < decode->gen_length ? n_output : decode->gen_length;
    prompt->request.stop_after = decode->early_stop ? n_output : INT32_MAX;
    return true;
}

/* --over-length clip: as much of the answer as fits, in whole blocks; then the prompt's end. */
static void clip(struct prompts *prompts, struct prompt *prompt)
{
    struct request *request = &prompt->request;
    int32_t n_positions = prompts->options.config->n_positions;
    int32_t block_length = request->decode.block_length, *gen_length = &request->decode.gen_length;
    assert(n_positions > 1);
    if (*gen_length >= n_positions) {
        *gen_length = n_positions - 1;
        if (*gen_length > block_length) *gen_length -= *gen_length % block_length;
    }
    int32_t n_over = request->n_prompt + *gen_length - n_positions;
    if (n_over > 0 && request->prompt_ids != NULL) request->prompt_ids += n_over;
    if (n_over > 0) request->n_prompt -= n_over;
    if (prompt->n_output > *gen_length) prompt->n_output = *gen_length;
}

static void add_sum(struct prompts_sum *sum, int64_t n_prompt, int64_t n_output)
{
    assert(sum->n_requests >= 0);
    sum->n_requests++;
    sum->n_prompt += n_prompt > 0 ? n_prompt : 0;
    sum->n_output += n_output > 0 ? n_output : 0;
}

static void count_row(struct prompts *prompts, const struct prompt *prompt)
{
    const struct trace_row *row = &prompts->row;
    int64_t n_prompt = row->n_prompt - prompt->request.n_prompt;
    int64_t n_output = row->n_output > 0 ? row->n_output - prompt->n_output : 0;
    struct prompts_trace *sums = &prompts->sums;
    assert(prompt->index >= 0);
    add_sum(&sums->read, row->n_prompt, row->n_output);
    if (prompts->is_skipped) add_sum(&sums->skipped, row->n_prompt, row->n_output);
    else if (prompt->code != PROMPT_GOOD) add_sum(&sums->refused, row->n_prompt, row->n_output);
    else if (n_prompt > 0 || n_output > 0) add_sum(&sums->cut, n_prompt, n_output);
}

/* ---- from parts to a request ---- */

static int32_t count_masks(const int32_t *ids, int32_t n_ids, int32_t mask_id)
{
    assert(n_ids >= 0);
    int32_t n = 0;
    for (int32_t i = 0; i < n_ids; i++)
        n += ids[i] == mask_id;
    return n;
}

/* Lengths first, so that the code tells a prompt that is too long from a setting that is wrong. */
static bool check_length(const struct model_config *config, const struct request *request,
                         struct rejection *rejection)
{
    assert(request->n_prompt > 0);
    int64_t gen_length = request->decode.gen_length;
    if (gen_length > config->n_positions)
        return prompts_reject(rejection, PROMPT_INVALID_SETTING,
                              "gen_length is %d, the model has %d positions",
                              request->decode.gen_length, config->n_positions);
    if (request->n_prompt + gen_length <= config->n_positions) return true;
    return prompts_reject(rejection, PROMPT_TOO_LONG,
                          "the prompt has %d tokens, with gen_length %d more than the model's %d "
                          "positions",
                          request->n_prompt, request->decode.gen_length, config->n_positions);
}

/* What does not fit is refused, or what --over-length says. */
static bool fit_length(struct prompts *prompts, struct prompt *prompt, struct rejection *rejection)
{
    const struct model_config *config = prompts->options.config;
    const char *policy = prompts->options.flags->over_length;
    assert(rejection->code == PROMPT_GOOD);
    if (check_length(config, &prompt->request, rejection)) return true;
    if (!prompts->options.is_trace || strcmp(policy, "reject") == 0) return false;
    prompts->is_skipped = strcmp(policy, "skip") == 0;
    if (prompts->is_skipped) return false;
    *rejection = (struct rejection){0};
    clip(prompts, prompt);
    return true;
}

static bool check_plan(struct prompts *prompts, struct prompt *prompt, struct rejection *rejection)
{
    assert(prompt->request.n_prompt > 0);
    const struct model_config *config = prompts->options.config;
    const struct request *request = &prompt->request;
    const struct phases_model model = executor_phases_model(config);
    struct phases phases;
    if (!fit_length(prompts, prompt, rejection)) return false;
    rejection->code = PROMPT_INVALID_SETTING;
    if (!phases_init(&phases, request->n_prompt, prompt->n_masks > 0, &request->decode, &model,
                     &rejection->error))
        return false;
    prompt->n_cells = phases_full_rows(&phases);
    rejection->code = PROMPT_TOO_LONG;
    if (prompts->executor != NULL && !executor_check(prompts->executor, request, &rejection->error))
        return false;
    rejection->code = PROMPT_GOOD;
    return true;
}

static bool copy_stops(struct prompts *prompts, const struct prompt_parts *parts,
                       struct prompt *prompt)
{
    assert(parts->n_stops <= PROMPTS_STOPS_MAX);
    prompt->n_stops = parts->n_stops;
    for (int32_t i = 0; i < parts->n_stops; i++) {
        struct bytes stop = parts->stops[i];
        prompt->stops[i].data = arena_try_copy(&prompts->scratch, stop.data, stop.n);
        prompt->stops[i].n = stop.n;
        if (prompt->stops[i].data == NULL) return false;
    }
    return true;
}

static bool make_request(struct prompts *prompts, const struct prompt_parts *parts,
                         struct prompt *prompt, struct rejection *rejection)
{
    assert(prompt->has_id);
    const struct model_config *config = prompts->options.config;
    const struct options *flags = prompts->options.flags;
    struct request *request = &prompt->request;
    int32_t *ids, n_ids;
    if (!prompts_encode_ids(&prompts->encoder, parts, &prompts->scratch, &ids, &n_ids, rejection))
        return false;
    prompt->n_masks = ids != NULL ? count_masks(ids, n_ids, config->mask_id) : 0;
    *request = (struct request){
        .index = prompt->index,
        .line = prompt->line,
        .id = prompt->id.data,
        .id_hash = id_hash(prompt),
        .n_prompt = n_ids,
        .prompt_ids = prompts->options.only_shapes ? NULL : ids,
        .want_logprobs = flags->logprobs,
        .admitted_ns = clock_now_ns(),
        .arrival_ns = prompts->row.stamp_ns,
    };
    prompts->row.n_prompt = n_ids; /* of a line with a prompt only known now */
    if (options_is_set(&parts->settings, OPTION_logprobs))
        request->want_logprobs = parts->settings.logprobs;
    rejection->code = PROMPT_INVALID_SETTING;
    if (!settings_resolve(&request->decode, config, flags, &parts->settings, prompt->n_masks > 0,
                          &rejection->error))
        return false;
    bool has_output = prompts->row.n_output > 0 && prompt->n_masks == 0;
    if (has_output && !resolve_output(prompts, parts, prompt, rejection)) return false;
    rejection->code = PROMPT_GOOD;
    if (!check_plan(prompts, prompt, rejection)) return false;
    prompt->n_generate = prompt->n_masks > 0 ? prompt->n_masks : request->decode.gen_length;
    return copy_stops(prompts, parts, prompt) || prompts_reject_memory(rejection);
}

/* ---- one line ---- */

static bool parse_json(struct bytes line, json_t **value, struct rejection *rejection)
{
    assert(line.n <= PROMPTS_LINE_BYTES_MAX);
    json_error_t error;
    *value = json_read(line, JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (*value == NULL && json_error_code(&error) == json_error_invalid_utf8)
        return prompts_reject(rejection, PROMPT_INVALID_UTF8, "the line is not UTF-8: %s (byte %d)",
                              error.text, error.position);
    if (*value == NULL)
        return prompts_reject(rejection, PROMPT_INVALID_JSON, "the line is not JSON: %s (byte %d)",
                              error.text, error.position);
    if (json_is_object(*value)) return true;
    return prompts_reject(rejection, PROMPT_INVALID_REQUEST,
                          "the line is JSON, but must be an object");
}

/* The columns that make a line a row. False with is_skipped: it never got an answer. */
static bool read_row(struct prompts *prompts, const json_t *line, struct rejection *rejection)
{
    assert(prompts->options.is_trace);
    rejection->code = PROMPT_INVALID_REQUEST;
    if (!trace_read(&prompts->trace, line, &prompts->row, &rejection->error)) return false;
    rejection->code = PROMPT_GOOD;
    prompts->is_skipped = prompts->row.n_output == 0;
    return !prompts->is_skipped || prompts_reject(rejection, PROMPT_MISSING, "no answer came");
}

/* Everything after the line itself was read. False with an empty rejection: err says why. */
static bool read_line(struct prompts *prompts, const json_t *line, struct prompt *prompt,
                      struct rejection *rejection, struct error *err)
{
    assert(json_is_object(line));
    struct prompt_parts parts = {.kind = PARTS_NONE};
    struct arena *scratch = &prompts->scratch;
    bool is_openai = prompt->is_openai = prompts_openai_is(line);
    if (is_openai) prompts->saw_openai = true;
    if (!read_id(prompts, line, prompt, rejection)) return false;
    if (!check_id(prompts, prompt, rejection, err)) return false;
    if (is_foreign(prompts, prompt) || prompts->options.only_ids) return true;
    if (prompts->options.is_trace && !read_row(prompts, line, rejection)) return false;
    if (prompts->row.n_prompt > 0 && !make_prompt(prompts, prompt, &parts, rejection)) return false;
    const struct plain_options plain = {.prompt_key = prompts->options.flags->prompt_key,
                                        .prefers_ids = prompts->options.tokenizer == NULL,
                                        .has_prompt = prompts->row.n_prompt > 0};
    bool is_ok = is_openai ? prompts_openai_read(line, scratch, &parts, rejection)
                           : prompts_plain_read(line, &plain, scratch, &parts, rejection);
    if (parts.has_ignored && prompts->ignored_line == 0) prompts->ignored_line = prompt->line;
    if (parts.overlooked_key != NULL) keep_overlooked(&prompts->overlooked, &parts, prompt->line);
    return is_ok && make_request(prompts, &parts, prompt, rejection);
}

/* The scratch arena is the line's alone. */
static bool reset_scratch(struct prompts *prompts, struct error *err)
{
    struct arena *scratch = &prompts->scratch;
    arena_rewind(scratch, 0);
    if (scratch->peak_bytes <= SCRATCH_BYTES_KEPT) return true;
    arena_destroy(scratch);
    return arena_create(scratch, SCRATCH_BYTES_MAX, err);
}

static bool is_blank(struct bytes line)
{
    for (size_t i = 0; i < line.n; i++)
        if (strchr(" \t\r", line.data[i]) == NULL || line.data[i] == '\0') return false;
    return true;
}

/* The next line that is not blank, counted. */
static enum line_status next_line(struct prompts *prompts, struct bytes *line, struct error *err)
{
    enum line_status status = prompts->waiting_status;
    *line = prompts->waiting;
    if (prompts->is_waiting) {
        prompts->is_waiting = false;
        return status;
    }
    do {
        status = line_reader_next(prompts->reader, line, err);
        if (status == LINE_READ || status == LINE_TOO_LONG) prompts->n_lines++;
    } while (status == LINE_READ && is_blank(*line));
    return status;
}

/* Blank lines are read past: a writer may send one behind each line. */
bool prompts_wait(struct prompts *prompts, int hurry_fd)
{
    assert(prompts->counts.n > 0);
    const struct options *flags = prompts->options.flags;
    if (options_is_set(flags, OPTION_limit) && prompts->counts.n >= flags->limit) return true;
    while (!prompts->is_waiting) {
        if (!line_reader_wait(prompts->reader, hurry_fd)) return false;
        prompts->waiting_status = line_reader_next(prompts->reader, &prompts->waiting, NULL);
        enum line_status status = prompts->waiting_status;
        if (status == LINE_END || status == LINE_FAILED) return true; /* told again */
        prompts->n_lines++;
        prompts->is_waiting = status == LINE_TOO_LONG || !is_blank(prompts->waiting);
    }
    return true;
}

static bool parse_line(const struct prompts *prompts, struct bytes line, json_t **value,
                       struct rejection *rejection)
{
    assert(*value == NULL);
    if (prompts->trace.n_columns == 0) return parse_json(line, value, rejection);
    *value = trace_parse(&prompts->trace, line, &rejection->error);
    if (*value == NULL) rejection->code = PROMPT_INVALID_REQUEST;
    return *value != NULL;
}

/* The next line, be it skipped or not. */
static enum prompts_status read_next(struct prompts *prompts, struct prompt *prompt,
                                     struct error *err)
{
    const struct options *flags = prompts->options.flags;
    bool is_limited = options_is_set(flags, OPTION_limit);
    if (is_limited && prompts->counts.n >= flags->limit) return PROMPTS_END;
    if (!reset_scratch(prompts, err)) return PROMPTS_FAILED;
    struct bytes line = {.n = 0};
    enum line_status status = next_line(prompts, &line, err);
    if (status == LINE_TOO_LONG) line.n = 0;
    if (status == LINE_END) return PROMPTS_END;
    if (status == LINE_FAILED) return PROMPTS_FAILED;

    struct rejection rejection = {0};
    json_t *value = NULL;
    prompts->counts.n++;
    const struct shard *shard = prompts->options.shard;
    if (shard != NULL && shard->mine != NULL && prompts->counts.n > shard->n_lines) {
        error_set(err, ERROR_IO, "%s has grown since it was shared out", prompts->options.path);
        return PROMPTS_FAILED;
    }
    prompts->row = (struct trace_row){.n_prompt = -1, .n_output = -1};
    prompts->is_skipped = false;
    *prompt = (struct prompt){.index = prompts->n_lines - (prompts->trace.n_columns > 0 ? 2 : 1),
                              .line = prompts->n_lines,
                              .line_hash = ledger_hash('t', line),
                              .is_openai = prompts->saw_openai};
    bool is_ok = status == LINE_READ
                     ? parse_line(prompts, line, &value, &rejection)
                     : prompts_reject(&rejection, PROMPT_LINE_TOO_LONG,
                                      "the line has more than %zu bytes", PROMPTS_LINE_BYTES_MAX);
    if (is_ok) is_ok = read_line(prompts, value, prompt, &rejection, err);
    json_decref(value);
    if (!is_ok && rejection.error.code == ERROR_UNAVAILABLE) { /* no fault of the line */
        *err = rejection.error;
        return PROMPTS_FAILED;
    }
    if (!is_ok && !prompt->has_id && rejection.code != PROMPT_GOOD) { /* unreadable */
        uint64_t key = ledger_line_key('l', prompt->index);
        if (!look_up(prompts, prompt, key, err)) return PROMPTS_FAILED;
    }
    if (prompts->is_skipped && rejection.code == PROMPT_GOOD) return PROMPTS_READ;
    if (!is_ok && rejection.code == PROMPT_GOOD) return PROMPTS_FAILED;
    prompt->is_foreign = is_foreign(prompts, prompt);
    prompts->counts.n_foreign += prompt->is_foreign;
    prompt->code = rejection.code;
    prompt->message = arena_try_copy(&prompts->scratch, rejection.error.message,
                                     is_ok ? 0 : strlen(rejection.error.message));
    assert(is_ok == (prompt->code == PROMPT_GOOD));
    /* A line that used up its scratch memory has none left for its message. */
    if (prompt->message == NULL) prompt->message = "the line needs too much memory";
    if (prompts->options.is_trace) count_row(prompts, prompt);
    return PROMPTS_READ;
}

enum prompts_status prompts_next(struct prompts *prompts, struct prompt *prompt, struct error *err)
{
    enum prompts_status status;
    assert(prompt != NULL);
    do
        status = read_next(prompts, prompt, err);
    while (status == PROMPTS_READ && prompts->is_skipped && !prompts->options.only_ids);
    return status;
}

struct prompts_counts prompts_counts(const struct prompts *prompts)
{
    assert(prompts != NULL);
    return prompts->counts;
}
