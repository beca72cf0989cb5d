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
#include "base/stream.h"

#define LINE_BYTES_MAX ((size_t)64 << 20)

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
    record->latency_s = fmax(record->finished_s - record->arrival_s, 0);
    record->queue_s = since_arrival(record, record->first_forward_s);
    record->block_s = since_arrival(record, record->first_block_s);
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
    read_answer(reader, &records->items[records->n], json_object_get(body, "usage"), facts);
    if (!reader->failed) records->n++;
    return !reader->failed;
}

static bool read_lines(struct records *records, struct line_reader *lines, struct error *err)
{
    struct reader reader = {.path = records->path, .err = err};
    struct bytes line;
    enum line_status status;
    bool is_ok = true;
    assert(records->n == 0);
    while (is_ok && (status = line_reader_next(lines, &line, err)) != LINE_END) {
        json_error_t where;
        reader.line++;
        if (status == LINE_FAILED) return false;
        if (line.n == 0) continue;
        json_t *root = status == LINE_READ ? json_loadb(line.data, line.n, 0, &where) : NULL;
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
    records->begin_s = records->items[0].arrival_s;
    for (int64_t i = 0; i < records->n; i++) {
        const struct record *record = &records->items[i];
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
    free(records->passes.errors);
    *records = (struct records){0};
}
