/* dllm-batch merge: the outputs of shards, joined in the order of the input. The first pass scans
 * them: headers must agree, manifests be complete, and of each line its index, place and id are
 * remembered. After a sort the second pass copies the lines, byte for byte (app/collate.h), so the
 * memory does not depend on the answers: 24 bytes a line, beside the caches. */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/collate.h"
#include "app/header.h"
#include "app/output.h"
#include "app/report.h"
#include "app/scan.h"
#include "app/shard.h"
#include "base/clock.h"
#include "base/frames.h"
#include "base/json.h"
#include "base/stream.h"

static_assert(OPTIONS_OPERANDS_MAX <= COLLATE_FILES_MAX, "every shard has a number");

struct merge {
    const struct options *options;
    struct output_place place;
    struct report report;
    int32_t shard;   /* that is scanned; */
    bool has_header; /* it had one */
    struct collate *collate;
    json_t *header;    /* of the first shard; NULL: none yet */
    char *header_line; /* the same as a record */
    json_t *manifest;  /* of the shard; NULL: none yet */
    json_t *sums;      /* of manifests */
    struct collate_counts counts;
    struct scan_input input;
    bool backend_noted;
};

static const char *shard_path(const struct merge *merge, int32_t shard)
{
    assert(shard < merge->options->n_operands);
    return merge->options->operands[shard];
}

/* ---- the first pass ---- */

static bool take_header(struct merge *merge, const struct scan_record *record, struct error *err)
{
    const char *path = shard_path(merge, merge->shard);
    assert(record->kind == SCAN_HEADER);
    if (merge->has_header)
        return error_set(err, ERROR_FORMAT,
                         "%s was gone on with past another model or other settings "
                         "(--resume=force), and answers of both kinds are not merged",
                         path);
    merge->has_header = true;
    if (!header_agree(record->value, merge->header, "the first file", path, err)) {
        err->code = ERROR_FORMAT;
        return false;
    }
    if (merge->header == NULL) {
        merge->header = json_deep_copy(record->value);
        merge->header_line = header_line(
            record->value, json_string_value(json_object_get(record->value, "backend")));
        if (merge->header != NULL && merge->header_line != NULL) return true;
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to merge");
    }
    bool is_same = json_equal(json_object_get(merge->header, "backend"),
                              json_object_get(record->value, "backend"));
    if (!is_same && !merge->backend_noted)
        report_note(&merge->report,
                    "%s was computed on another backend than %s: good answers, but for the same "
                    "line not always the same ones",
                    path, shard_path(merge, 0));
    merge->backend_noted = merge->backend_noted || !is_same;
    return true;
}

static bool take_record(void *context, const struct scan_record *record, struct error *err)
{
    struct merge *merge = context;
    assert(record->value != NULL);
    if (record->kind == SCAN_HEADER) return take_header(merge, record, err);
    if (record->kind == SCAN_MANIFEST) {
        json_decref(merge->manifest);
        merge->manifest = json_deep_copy(record->value);
        return true;
    }
    return collate_add(merge->collate, merge->shard, record, err);
}

/* Times and numbers of several runs as those of one. What cannot be added, shares and percentiles,
 * is left out. */
static void add_manifest(json_t *sums, json_t *manifest)
{
    const char *key;
    json_t *value;
    assert(json_is_object(sums));
    json_object_foreach(manifest, key, value)
    {
        const json_t *known = json_object_get(sums, key);
        json_int_t sum = json_integer_value(known), more = json_integer_value(value);
        uint64_t total = (uint64_t)sum + (uint64_t)more; /* wraps where a manifest lies */
        bool is_peak = strcmp(key, "wall_ns") == 0 || strcmp(key, "kv_bytes_peak") == 0;
        if (!json_is_integer(value)) continue;
        if (known == NULL) sum = more;
        else if (strcmp(key, "start_unix_ns") == 0) sum = more < sum ? more : sum;
        else if (is_peak) sum = more > sum ? more : sum;
        else sum = (json_int_t)total;
        json_object_set_new(sums, key, json_integer(sum));
    }
}

/* Only what is whole may be joined: afterwards nobody could go on with it. */
static bool check_shard(const char *path, const struct scan *scan, struct error *err)
{
    assert(scan->torn_bytes >= 0);
    if (scan->is_foreign)
        return error_set(err, ERROR_FORMAT, "%s is no output file of run: it has no header", path);
    if (scan->is_long || scan->goes_on || scan->is_mixed)
        return error_set(err, ERROR_FORMAT, "%s is damaged at byte %" PRId64, path,
                         scan->torn_at_bytes);
    const char *why = scan->torn_bytes > 0                 ? "its end is torn"
                      : !scan->has_manifest                ? "it has no manifest"
                      : !scan->is_complete                 ? "its manifest says so"
                      : scan->n_manifest > scan->n_records ? "it has fewer lines than its manifest"
                                                           : NULL;
    return why == NULL ||
           error_set(err, ERROR_STOPPED, "%s is unfinished, %s; its own command of run goes on",
                     path, why);
}

static bool scan_shards(struct merge *merge, struct error *err)
{
    struct scan scan;
    assert(merge->collate != NULL);
    for (merge->shard = 0; merge->shard < merge->options->n_operands; merge->shard++) {
        const char *path = shard_path(merge, merge->shard);
        merge->has_header = false;
        if (!scan_file(&scan, path, frames_is_zstd(path), take_record, merge, err) ||
            !check_shard(path, &scan, err))
            return false;
        scan_learn_input(&merge->input, &scan.input);
        add_manifest(merge->sums, merge->manifest);
    }
    return true;
}

/* ---- between the passes ---- */

/* The line as JSON, without what differs from run to run. */
static json_t *parse_timeless(struct bytes line)
{
    json_t *root = json_read(line, JSON_ALLOW_NUL, NULL);
    json_t *body = json_object_get(json_object_get(root, "response"), "body");
    json_t *facts = body != NULL ? json_object_get(body, "dllm") : root;
    assert(line.data != NULL);
    json_object_del(facts, "timing");
    return root;
}

/* The line must be the same answer as the one before, which has its index and id. */
static bool check_twins(struct merge *merge, size_t at, struct error *err)
{
    struct bytes line;
    assert(collate_is_twin(merge->collate, at));
    if (!collate_line(merge->collate, at - 1, &line, err)) return false;
    json_t *first = parse_timeless(line);
    bool is_read = collate_line(merge->collate, at, &line, err);
    json_t *second = is_read ? parse_timeless(line) : NULL;
    bool is_same = json_equal(first, second);
    json_decref(first);
    json_decref(second);
    if (!is_read || is_same) return is_read;
    return error_set(err, ERROR_FORMAT, "%s and %s have different answers with index %" PRId64,
                     shard_path(merge, collate_file(merge->collate, at - 1)),
                     shard_path(merge, collate_file(merge->collate, at)),
                     collate_index(merge->collate, at));
}

/* Whether the lines are all of one input. Manifests tell how many it had, and which: then names do
 * not matter, and where it stood in another order for a part of the runs, lines of other ids share
 * an index. Else names tell that a shard is missing. */
static bool check_input(struct merge *merge, int64_t n_lines, int64_t n_shared, struct error *err)
{
    const struct options *options = merge->options;
    const struct scan_input *input = &merge->input;
    int32_t missing, count;
    assert(n_shared <= n_lines);
    if (input->n > 0 && n_lines == input->n && merge->counts.keys == input->keys) {
        if (n_shared > 0)
            report_note(&merge->report,
                        "lines with the index of another, next to which they go: %" PRId64
                        "; the input stood in another order for a part of the runs",
                        n_shared);
        return true;
    }
    if (!shard_are_all(options->operands, options->n_operands, &missing, &count))
        return error_set(err, ERROR_STOPPED, "shard %d of %d is not among the files", missing,
                         count);
    if (n_shared > 0)
        return error_set(err, ERROR_FORMAT,
                         "%" PRId64 " lines have the index of another: these are not outputs of "
                         "one input, or it has changed and stands in another order",
                         n_shared);
    return n_lines >= input->n ||
           error_set(err, ERROR_STOPPED,
                     "%" PRId64 " of %" PRId64 " lines of the input are in none of the files; "
                     "shards of another number may have answered them, name their files too",
                     input->n - n_lines, input->n);
}

/* Repeated lines and gaps, of the sorted ones; `n_lines`: without repeated ones. */
static bool check_order(struct merge *merge, int64_t *n_lines, struct error *err)
{
    size_t n = merge->counts.n;
    int64_t n_twins = 0, n_shared = 0, next = 0, first_gap = -1;
    for (size_t at = 0; at < n; at++) {
        int64_t index = collate_index(merge->collate, at);
        bool is_twin = collate_is_twin(merge->collate, at);
        if (is_twin && !check_twins(merge, at, err)) return false;
        n_twins += is_twin;
        n_shared += index < next && !is_twin;
        if (index > next && first_gap < 0) first_gap = next;
        next = index + 1;
    }
    *n_lines = (int64_t)n - n_twins;
    assert(merge->counts.n_repeated >= n_twins);
    if (merge->counts.n_repeated > n_twins)
        return error_set(err, ERROR_FORMAT,
                         "%" PRId64 " ids have answers with different indices: these are not "
                         "outputs of one input; 'dllm-batch verify' names them",
                         merge->counts.n_repeated - n_twins);
    if (n_twins > 0)
        report_note(&merge->report,
                    "lines that were there more than once, and are kept once: %" PRId64, n_twins);
    if (first_gap >= 0)
        report_note(&merge->report,
                    "indices up to %" PRId64 " that no line has: %" PRId64 ", from %" PRId64
                    " on; blank lines of the input, or a shard is missing",
                    next - 1, next - (*n_lines - n_shared), first_gap);
    return check_input(merge, *n_lines, n_shared, err);
}

/* ---- the second pass ---- */

/* A record in a frame of its own. */
static bool write_apart(struct writer *writer, const char *text, struct error *err)
{
    assert(text[0] == '{');
    return writer_flush(writer, err) && writer_append_line(writer, text, strlen(text), err) &&
           writer_flush(writer, err);
}

static bool write_lines(struct merge *merge, struct writer *writer, struct error *err)
{
    struct bytes line;
    assert(merge->collate != NULL);
    for (size_t at = 0; at < merge->counts.n; at++) {
        if (collate_is_twin(merge->collate, at)) continue;
        if (!collate_line(merge->collate, at, &line, err) ||
            !writer_append_line(writer, line.data, line.n, err))
            return false;
        if (writer_pending_bytes(writer) >= OUTPUT_GROUP_BYTES && !writer_flush(writer, err))
            return false;
    }
    return true;
}

static char *make_manifest(const struct merge *merge, int64_t n_lines)
{
    const char *backend = json_string_value(json_object_get(merge->header, "backend"));
    assert(n_lines >= merge->counts.n_failed);
    json_t *figures = json_pack(
        "{s:s, s:I, s:I, s:I, s:s, s:s, s:i}", "verdict", "complete", "lines", (json_int_t)n_lines,
        "answered", (json_int_t)(n_lines - merge->counts.n_failed), "failed",
        (json_int_t)merge->counts.n_failed, "program", header_program(), "backend",
        backend != NULL ? backend : "", "merged", (int)merge->options->n_operands);
    if (merge->input.n > 0) header_tell_input(figures, merge->input.n, merge->input.keys);
    json_object_update_missing(figures, merge->sums);
    json_t *root = json_pack("{s:o}", "manifest", figures);
    char *line = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return line;
}

static bool write_all(struct merge *merge, int64_t n_lines, struct error *err)
{
    const struct output_place *place = &merge->place;
    const struct writer_options writing = {.path = place->path,
                                           .compress = place->compress,
                                           .overwrite = place->overwrite,
                                           .mark = place->is_file};
    struct writer *writer;
    struct error late = {0};
    char *manifest = make_manifest(merge, n_lines);
    if (manifest == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to merge");
    assert(merge->header_line != NULL);
    bool is_ok = writer_open(&writer, &writing, err);
    if (is_ok) {
        is_ok = (!place->is_file || write_apart(writer, merge->header_line, err)) &&
                write_lines(merge, writer, err) &&
                (place->is_file ? write_apart(writer, manifest, err) : writer_flush(writer, err));
        bool is_broken_pipe = writer_is_broken_pipe(writer);
        /* The first failure is the one to tell; a reader that went away is not worth a message. */
        is_ok = writer_close(writer, is_ok ? err : &late) && is_ok;
        if (is_broken_pipe) err->message[0] = '\0';
    }
    free(manifest);
    return is_ok;
}

/* ---- the command ---- */

/* The output, which must be none of the shards. */
static bool choose_output(struct merge *merge, struct error *err)
{
    struct options options = *merge->options;
    const struct shard whole = {.count = 1};
    assert(options.n_operands > 0);
    for (int32_t i = 0; i < merge->options->n_operands; i++) {
        options.operand = shard_path(merge, i);
        if (!output_choose(&merge->place, &options, &whole, err)) return false;
    }
    return true;
}

static bool merge_all(struct merge *merge, int *status, struct error *err)
{
    const struct options *options = merge->options;
    int64_t n_lines;
    report_init(&merge->report, options, stderr, isatty(STDERR_FILENO) != 0, clock_now_ns());
    assert(merge->sums != NULL);
    if (!choose_output(merge, err) ||
        !collate_open(&merge->collate, options->operands, options->n_operands, err) ||
        !scan_shards(merge, err))
        return false;
    merge->counts = collate_sort(merge->collate);
    if (!check_order(merge, &n_lines, err) || !write_all(merge, n_lines, err)) return false;
    report_note(
        &merge->report,
        "merged %" PRId64 " lines of %" PRId32 " files: %" PRId64 " answered, %" PRId64 " failed",
        n_lines, options->n_operands, n_lines - merge->counts.n_failed, merge->counts.n_failed);
    *status = merge->counts.n_failed > 0;
    return true;
}

bool cmd_merge(const struct options *options, int *status, struct error *err)
{
    assert(status != NULL);
    if (options->n_operands == 0)
        return error_set(err, ERROR_USAGE, "merge needs outputs of run: SHARDS...");
    if (!options_is_set(options, OPTION_output))
        return error_set(err, ERROR_USAGE, "merge needs --output: a file name or '-'");
    struct merge *merge = calloc(1, sizeof *merge);
    if (merge == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to merge");
    merge->options = options;
    merge->sums = json_object();
    bool is_ok = merge_all(merge, status, err);
    collate_close(merge->collate);
    json_decref(merge->header);
    json_decref(merge->manifest);
    json_decref(merge->sums);
    free(merge->header_line);
    free(merge);
    return is_ok;
}
