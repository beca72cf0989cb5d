/* Group by group through an output. Where the first broken group begins, the records end. */
#include "app/scan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "app/header.h"
#include "app/ledger.h"
#include "base/frames.h"
#include "base/json.h"
#include "base/stream.h"

#define HEADER_BYTES_MAX ((size_t)1 << 20) /* holds what a command line can */

/* The walk through one file. */
struct walk {
    struct scan *scan;
    bool is_zstd;
    scan_visit *visit;
    void *context;
    json_t *header; /* the last one; NULL: none yet */
    struct error *err;
};

enum verdict {
    VERDICT_OURS,
    VERDICT_BROKEN, /* no record of ours */
    VERDICT_FAILED, /* err says why */
};

/* ---- records ---- */

static bool parse_hash(const json_t *value, uint64_t *hash)
{
    const char *text = json_string_value(value);
    char *end;
    assert(hash != NULL);
    if (text == NULL || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) return false;
    *hash = strtoull(text, &end, 16);
    return *end == '\0';
}

/* What the line's prompt was looked up by (app/prompts.c). */
static bool make_key(struct scan_record *record, const json_t *error)
{
    const json_t *id = record->id;
    const char *code = json_string_value(json_object_get(error, "code"));
    bool is_repeated = code != NULL && strcmp(code, "duplicate_id") == 0;
    char number[32];
    assert(record->index >= 0);
    struct bytes text = {.data = json_string_value(id), .n = json_string_length(id)};
    if (json_is_integer(id))
        text = (struct bytes){.data = number,
                              .n = (size_t)snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT,
                                                    json_integer_value(id))};
    if (is_repeated || json_is_null(id))
        record->key = ledger_line_key(is_repeated ? 'd' : 'l', record->index);
    else record->key = ledger_hash(json_is_integer(id) ? 'i' : 's', text);
    return is_repeated || json_is_null(id) || text.data != NULL;
}

static bool parse_answer(struct scan_record *record, const json_t *root)
{
    const json_t *body = json_object_get(json_object_get(root, "response"), "body");
    const json_t *facts = body != NULL ? json_object_get(body, "dllm") : root;
    const json_t *error = json_object_get(root, "error");
    const json_t *index = json_object_get(facts, "index");
    assert(record->kind == SCAN_ANSWER);
    record->value = root;
    record->id = json_object_get(root, body != NULL ? "custom_id" : "id");
    record->index = json_is_integer(index) ? json_integer_value(index) : -1;
    record->is_failed = json_is_object(error);
    return record->index >= 0 &&
           parse_hash(json_object_get(facts, "line_hash"), &record->line_hash) &&
           make_key(record, error);
}

/* What the record changes in what is known of the file. */
static void count_record(struct scan *scan, const struct scan_record *record)
{
    const char *word = json_string_value(json_object_get(record->value, "verdict"));
    const json_t *lines = json_object_get(record->value, "lines");
    assert(scan->has_header || record->kind == SCAN_HEADER);
    scan->has_header = true;
    scan->n_records += record->kind == SCAN_ANSWER;
    scan->has_manifest = record->kind == SCAN_MANIFEST;
    scan->is_complete = scan->has_manifest && word != NULL && strcmp(word, "complete") == 0;
    scan->n_manifest =
        scan->has_manifest && json_is_integer(lines) ? json_integer_value(lines) : -1;
    if (!scan->has_manifest) return;
    scan->input = (struct scan_input){
        .n = json_integer_value(json_object_get(record->value, "input_lines")),
        .start_unix_ns = json_integer_value(json_object_get(record->value, "start_unix_ns"))};
    parse_hash(json_object_get(record->value, "input_keys"), &scan->input.keys);
}

void scan_learn_input(struct scan_input *newest, const struct scan_input *found)
{
    assert(newest != found);
    if (found->n > 0 && found->start_unix_ns >= newest->start_unix_ns) *newest = *found;
}

/* A run that was forced to go on has another model or other settings; the same header again is that
 * of an output behind an output. */
static bool is_same(const json_t *before, const json_t *header)
{
    assert(json_is_object(header));
    return before != NULL &&
           json_equal(json_object_get(before, "model"), json_object_get(header, "model")) &&
           json_equal(json_object_get(before, "settings"), json_object_get(header, "settings"));
}

/* `record` has its line and place. */
static enum verdict read_record(struct walk *walk, struct scan_record *record)
{
    struct scan *scan = walk->scan;
    bool is_short = record->line.n <= HEADER_BYTES_MAX; /* as all but answers are */
    if (!scan->has_header && !is_short) return VERDICT_BROKEN;
    /* An id or a text may hold "\u0000". */
    json_t *root = json_read(record->line, JSON_ALLOW_NUL, NULL);
    json_t *header = json_object_get(root, "header");
    const json_t *manifest = json_object_get(root, "manifest");
    bool is_ours = true;
    assert(record->line.data != NULL);
    if (!scan->has_header || json_is_object(header)) {
        record->kind = SCAN_HEADER;
        record->value = header;
        is_ours = is_short && json_is_object(header) && !is_same(walk->header, header);
        if (is_ours) {
            json_decref(walk->header);
            walk->header = json_incref(header);
        }
    } else if (json_is_object(manifest)) {
        record->kind = SCAN_MANIFEST;
        record->value = manifest;
        is_ours = is_short;
    } else {
        record->kind = SCAN_ANSWER;
        is_ours = json_is_object(root) && parse_answer(record, root);
    }
    enum verdict verdict = is_ours ? VERDICT_OURS : VERDICT_BROKEN;
    if (is_ours && !walk->visit(walk->context, record, walk->err)) verdict = VERDICT_FAILED;
    if (verdict == VERDICT_OURS) count_record(scan, record);
    json_decref(root);
    return verdict;
}

static enum verdict read_group(struct walk *walk, const struct frames_group *group)
{
    struct bytes rest = group->content;
    enum verdict verdict = VERDICT_OURS;
    int64_t n_lines = 0;
    assert(rest.data != NULL || rest.n == 0);
    for (; rest.n > 0 && verdict == VERDICT_OURS; n_lines++) {
        struct scan_record record = {.line = {.data = rest.data},
                                     .group_bytes = group->begin_bytes,
                                     .content_bytes = (int64_t)(group->content.n - rest.n)};
        const char *newline = memchr(rest.data, '\n', rest.n);
        verdict = VERDICT_BROKEN;
        if (newline == NULL) continue;
        record.line.n = (size_t)(newline - rest.data);
        verdict = read_record(walk, &record);
        rest.data += record.line.n + 1;
        rest.n -= record.line.n + 1;
    }
    walk->scan->is_mixed = verdict == VERDICT_BROKEN && n_lines > 1;
    /* A manifest among answers is kept with them: somebody packed the file anew. */
    bool is_manifest = walk->scan->has_manifest && n_lines == 1;
    if (verdict == VERDICT_OURS && !is_manifest) walk->scan->keep_bytes = group->end_bytes;
    return verdict;
}

/* ---- damage ---- */

/* Whether a file without a header was torn before it had one: it is short, and begins like ours, or
 * ends or was zeroed within that beginning. */
static bool is_torn_start(const struct walk *walk, struct bytes start)
{
    struct bytes ours = {.data = FRAMES_MARK, .n = FRAMES_MARK_BYTES};
    if (!walk->is_zstd) ours = (struct bytes){.data = HEADER_START, .n = strlen(HEADER_START)};
    if (start.n == STREAM_CHUNK_BYTES) return false;
    while (start.n > 0 && start.data[start.n - 1] == '\0')
        start.n--;
    assert(!walk->scan->has_header);
    return memcmp(start.data, ours.data, start.n < ours.n ? start.n : ours.n) == 0;
}

/* Whether what lies from the broken group on is what a broken write leaves. */
static bool judge_tail(struct walk *walk, struct frames *frames, const struct frames_group *broken)
{
    struct scan *scan = walk->scan;
    struct bytes start;
    assert(broken->begin_bytes >= scan->keep_bytes);
    scan->has_manifest = scan->is_complete = false;
    scan->n_manifest = -1;
    scan->torn_at_bytes = broken->begin_bytes;
    if (!scan->has_header && !frames_start(frames, &start, walk->err)) return false;
    scan->is_foreign = !scan->has_header && !is_torn_start(walk, start);
    if (scan->is_foreign) return true;
    if (!frames_tail(frames, broken->begin_bytes, &scan->torn_bytes, &scan->goes_on, walk->err))
        return false;
    scan->is_long = scan->torn_bytes > FRAMES_TAIL_BYTES_MAX;
    return true;
}

/* ---- the walk ---- */

static bool walk_groups(struct walk *walk, struct frames *frames)
{
    struct frames_group group;
    enum frames_status status;
    assert(walk->scan->keep_bytes == 0);
    while ((status = frames_next(frames, &group, walk->err)) == FRAMES_GROUP) {
        enum verdict verdict = read_group(walk, &group);
        if (verdict == VERDICT_FAILED) return false;
        if (verdict == VERDICT_BROKEN) break;
    }
    if (status == FRAMES_END || status == FRAMES_FAILED) return status == FRAMES_END;
    return judge_tail(walk, frames, &group);
}

bool scan_file(struct scan *scan, const char *path, bool is_zstd, scan_visit *visit, void *context,
               struct error *err)
{
    struct walk walk = {
        .scan = scan, .is_zstd = is_zstd, .visit = visit, .context = context, .err = err};
    struct frames *frames;
    struct stat status;
    assert(visit != NULL);
    *scan = (struct scan){.n_manifest = -1};
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return error_set(err, ERROR_NO_INPUT, "%s is no regular file, which an output is", path);
    if (!frames_open(&frames, path, is_zstd, err)) return false;
    bool is_ok = walk_groups(&walk, frames);
    json_decref(walk.header);
    frames_close(frames);
    return is_ok;
}
