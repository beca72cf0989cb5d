/* Lines to records. A line is an answer if it has timing, a failure if it has an error; anything
 * else is not the output of a run. */
#include "app/records.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "app/describe.h"
#include "base/json.h"
#include "base/stream.h"

#define LINE_BYTES_MAX ((size_t)64 << 20)

enum { RUNS_MAX = 10000 }; /* of one output */

/* One line while it is read; the first error sticks. */
struct reader {
    const char *path;
    int64_t line;
    bool failed;
    struct error *err;
};

enum { REQUIRED = 1 };

/* `object`.`key`, or `missing` when it is absent or null; REQUIRED: it must be there. */
static double read_number(struct reader *reader, const json_t *object, const char *key,
                          double missing)
{
    const json_t *value = json_object_get(object, key);
    bool is_absent = value == NULL || json_is_null(value);
    assert(key[0] != '\0');
    if (is_absent && missing != REQUIRED) return missing;
    if (json_is_number(value) && json_number_value(value) >= 0) return json_number_value(value);
    char text[DESCRIBE_BYTES_MAX];
    if (!reader->failed)
        error_set(reader->err, ERROR_FORMAT, "%s:%" PRId64 ": %s is %s, must be a number from 0 on",
                  reader->path, reader->line, key,
                  value != NULL ? describe_json(value, text) : "missing");
    reader->failed = true;
    return 0;
}

/* A time; null: did not happen. */
static double read_time(struct reader *reader, const json_t *timing, const char *key)
{
    assert(timing != NULL);
    double ns = read_number(reader, timing, key, -1);
    return ns < 0 ? ns : ns * 1e-9;
}

/* Negative: did not happen. */
static double since_arrival(const struct record *record, double time_s)
{
    assert(record != NULL);
    return time_s < 0 ? -1 : fmax(time_s - record->arrival_s, 0);
}

static void read_answer(struct reader *reader, struct record *record, const json_t *usage,
                        const json_t *facts)
{
    const json_t *decode = json_object_get(facts, "decode");
    const json_t *timing = json_object_get(facts, "timing");
    assert(record != NULL);
    *record = (struct record){
        .n_prompt = read_number(reader, usage, "prompt_tokens", REQUIRED),
        .n_tokens = read_number(reader, usage, "completion_tokens", REQUIRED),
        .refresh_steps = read_number(reader, decode, "refresh_steps", REQUIRED),
        .reuse_steps = read_number(reader, decode, "reuse_steps", REQUIRED),
        .positions = read_number(reader, decode, "positions", -1),
        .arrival_s = read_time(reader, timing, "arrival_ns"),
        .first_forward_s = read_time(reader, timing, "first_forward_ns"),
        .first_block_s = read_time(reader, timing, "first_block_ns"),
        .finished_s = read_number(reader, timing, "finished_ns", REQUIRED) * 1e-9,
    };
    if (record->arrival_s < 0)
        record->arrival_s = read_number(reader, timing, "admitted_ns", REQUIRED) * 1e-9;
    record->finished_s = fmax(record->finished_s, record->arrival_s); /* where a line lies */
    record->latency_s = record->finished_s - record->arrival_s;
    record->queue_s = since_arrival(record, record->first_forward_s);
    record->block_s = since_arrival(record, record->first_block_s);
}

/* The run with this start; -1: one too many, or out of memory. Most lines are of the run of the one
 * before. */
static int32_t find_run(struct records *records, int64_t start_unix_ns)
{
    int32_t n = records->n_runs;
    for (int32_t i = n; i-- > 0;)
        if (records->runs[i].start_unix_ns == start_unix_ns) return i;
    assert(n >= 0 && n <= RUNS_MAX);
    if (n == RUNS_MAX) return -1;
    if ((n & (n - 1)) == 0) { /* full */
        struct run_span *runs = reallocarray(records->runs, 2 * (size_t)n + 1, sizeof *runs);
        if (runs == NULL) return -1;
        records->runs = runs;
    }
    records->runs[n] = (struct run_span){.start_unix_ns = start_unix_ns, .begin_s = INFINITY};
    return records->n_runs++;
}

static bool join_run(struct records *records, struct record *record, const json_t *timing,
                     struct error *err)
{
    int32_t run = find_run(records, json_integer_value(json_object_get(timing, "start_unix_ns")));
    if (run < 0)
        return error_set(err, ERROR_UNAVAILABLE,
                         "%s: lines of more than %d runs, or not enough memory", records->path,
                         RUNS_MAX);
    struct run_span *span = &records->runs[run];
    assert(run < records->n_runs);
    record->run = run;
    span->begin_s = fmin(span->begin_s, record->arrival_s);
    span->end_s = fmax(span->end_s, record->finished_s);
    return true;
}

static int compare_runs(const void *left, const void *right)
{
    const struct run_span *const *a = left, *const *b = right;
    assert(*a != NULL && *b != NULL);
    double a_s = (*a)->begin_s + (*a)->offset_s, b_s = (*b)->begin_s + (*b)->offset_s;
    return (a_s > b_s) - (a_s < b_s);
}

/* Puts all runs on one clock without pauses: of the wall clock, what some run was at work in. */
static bool align_runs(struct records *records, struct error *err)
{
    int32_t n = records->n_runs;
    double covered_s = -INFINITY, paused_s = 0;
    struct run_span **order = calloc((size_t)n, sizeof(struct run_span *));
    if (order == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to summarise %s",
                         records->path);
    assert(n > 0);
    int64_t first_ns = records->runs[0].start_unix_ns;
    for (int32_t i = 1; i < n; i++)
        if (first_ns > records->runs[i].start_unix_ns) first_ns = records->runs[i].start_unix_ns;
    for (int32_t i = 0; i < n; i++) {
        order[i] = &records->runs[i];
        order[i]->offset_s = (double)order[i]->start_unix_ns * 1e-9 - (double)first_ns * 1e-9;
    }
    qsort(order, (size_t)n, sizeof(struct run_span *), compare_runs);
    for (int32_t i = 0; i < n; i++) {
        double begin_s = order[i]->offset_s + order[i]->begin_s;
        double end_s = order[i]->offset_s + order[i]->end_s;
        if (i > 0) paused_s += fmax(begin_s - covered_s, 0);
        covered_s = fmax(covered_s, end_s);
        order[i]->offset_s -= paused_s;
    }
    free(order);
    return true;
}

static void shift(double *time_s, double offset_s)
{
    assert(isfinite(offset_s));
    if (*time_s >= 0) *time_s += offset_s;
}

static bool grow(struct records *records, struct error *err)
{
    assert(records->n <= records->n_max);
    if (records->n < records->n_max) return true;
    int64_t n_max = records->n_max > 0 ? 2 * records->n_max : 1024;
    struct record *items = reallocarray(records->items, (size_t)n_max, sizeof *items);
    if (items == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for %" PRId64 " records",
                         n_max);
    records->items = items;
    records->n_max = n_max;
    return true;
}

static bool read_iteration(struct iterations *passes, struct reader *reader, const json_t *root)
{
    double took_ns = read_number(reader, root, "end_ns", REQUIRED) -
                     read_number(reader, root, "begin_ns", REQUIRED);
    double predicted_ns = read_number(reader, root, "predicted_ns", REQUIRED);
    int64_t n = passes->n_errors;
    assert(n <= passes->n);
    if (reader->failed) return false;
    passes->n++;
    passes->took_s += took_ns * 1e-9;
    passes->predicted_s += predicted_ns * 1e-9;
    if (predicted_ns <= 0 || took_ns <= 0) return true;
    if ((n & (n - 1)) == 0) { /* full */
        double *errors = reallocarray(passes->errors, (size_t)(2 * n + 1), sizeof *errors);
        if (errors == NULL)
            return error_set(reader->err, ERROR_UNAVAILABLE, "not enough memory for %s",
                             reader->path);
        passes->errors = errors;
    }
    passes->errors[passes->n_errors++] = 100 * fabs(predicted_ns / took_ns - 1);
    return true;
}

static bool read_line(struct records *records, struct reader *reader, const json_t *root)
{
    const json_t *response = json_object_get(root, "response");
    const json_t *body = response != NULL ? json_object_get(response, "body") : root;
    const json_t *facts = response != NULL ? json_object_get(body, "dllm") : root;
    assert(root != NULL);
    if (json_is_object(json_object_get(body, "error")) ||
        json_is_object(json_object_get(root, "error"))) {
        records->n_failed++;
        return true;
    }
    /* What an output begins and ends with (app/header.h). */
    if (json_is_object(json_object_get(root, "header")) ||
        json_is_object(json_object_get(root, "manifest")))
        return true;
    if (json_object_get(root, "row_keys") != NULL)
        return read_iteration(&records->passes, reader, root);
    if (!json_is_object(json_object_get(facts, "timing")))
        return error_set(reader->err, ERROR_FORMAT,
                         "%s:%" PRId64 ": is no line of output: it has neither timing nor error",
                         reader->path, reader->line);
    if (!grow(records, reader->err)) return false;
    struct record *record = &records->items[records->n];
    read_answer(reader, record, json_object_get(body, "usage"), facts);
    if (reader->failed) return false;
    records->n++;
    return join_run(records, record, json_object_get(facts, "timing"), reader->err);
}

static bool read_lines(struct records *records, struct line_reader *lines, struct error *err)
{
    struct reader reader = {.path = records->path, .err = err};
    struct bytes line;
    enum line_status status;
    bool is_ok = true;
    assert(records->n == 0);
    while (is_ok && (status = line_reader_next(lines, &line, err)) != LINE_END) {
        reader.line++;
        if (status == LINE_FAILED) return false;
        if (line.n == 0) continue;
        json_t *root = status == LINE_READ ? json_read(line, JSON_ALLOW_NUL, NULL) : NULL;
        if (!json_is_object(root))
            is_ok = error_set(err, ERROR_FORMAT, "%s:%" PRId64 ": is not a JSON object",
                              reader.path, reader.line);
        else is_ok = read_line(records, &reader, root);
        json_decref(root);
    }
    return is_ok;
}

/* ---- figures ---- */

/* `offset`: of a double in struct record; negative values did not happen. */
static void spread(struct figures_spread *target, const struct records *records, double *values,
                   size_t offset)
{
    int64_t n = 0;
    assert(records->n > 0);
    for (int64_t i = 0; i < records->n; i++) {
        memcpy(&values[n], (const char *)&records->items[i] + offset, sizeof *values);
        if (values[n] >= 0) n++;
    }
    if (n > 0) figures_spread(target, values, n);
}

static bool sum_up(struct records *records, struct error *err)
{
    double *values = calloc((size_t)records->n, sizeof *values);
    assert(records->n > 0);
    if (values == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to summarise %s",
                         records->path);
    if (!align_runs(records, err)) {
        free(values);
        return false;
    }
    records->begin_s = INFINITY;
    records->end_s = -INFINITY;
    for (int64_t i = 0; i < records->n; i++) {
        struct record *record = &records->items[i];
        double offset_s = records->runs[record->run].offset_s;
        record->arrival_s += offset_s;
        record->finished_s += offset_s;
        shift(&record->first_forward_s, offset_s);
        shift(&record->first_block_s, offset_s);
        records->begin_s = fmin(records->begin_s, record->arrival_s);
        records->end_s = fmax(records->end_s, record->finished_s);
        records->n_tokens += record->n_tokens;
        records->refresh_steps += record->refresh_steps;
        records->reuse_steps += record->reuse_steps;
        bool is_known = records->positions >= 0 && record->positions >= 0;
        records->positions = is_known ? records->positions + record->positions : -1;
    }
    spread(&records->prompt, records, values, offsetof(struct record, n_prompt));
    spread(&records->tokens, records, values, offsetof(struct record, n_tokens));
    spread(&records->latency_s, records, values, offsetof(struct record, latency_s));
    spread(&records->queue_s, records, values, offsetof(struct record, queue_s));
    spread(&records->block_s, records, values, offsetof(struct record, block_s));
    free(values);
    return true;
}

bool records_read(struct records *records, const char *path, struct error *err)
{
    struct line_reader *lines;
    assert(path != NULL);
    *records = (struct records){.path = path};
    if (!line_reader_open(&lines, path, LINE_BYTES_MAX, err)) return false;
    bool is_ok = read_lines(records, lines, err);
    line_reader_close(lines);
    if (!is_ok) return false;
    if (records->n > 0) return sum_up(records, err);
    if (records->passes.n > 0) return true;
    return error_set(err, ERROR_FORMAT, "%s: has no answers (%" PRId64 " failed lines)", path,
                     records->n_failed);
}

void records_free(struct records *records)
{
    assert(records != NULL);
    free(records->items);
    free(records->runs);
    free(records->passes.errors);
    *records = (struct records){0};
}
