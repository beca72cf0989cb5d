/* Group by group through an existing output. Where the first broken group begins, the answers end.
 */
#include "app/resume.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "app/header.h"
#include "app/shard.h"
#include "base/frames.h"

#define HEADER_BYTES_MAX ((int64_t)64 << 10)

/* The walk through one file. */
struct scan {
    struct resume *resume;
    const char *path;
    const json_t *header; /* of this run */
    bool is_forced;
    bool is_other;    /* a file of another shard */
    bool is_manifest; /* the group holds nothing but one */
    struct error *err;
};

enum verdict {
    VERDICT_OURS,
    VERDICT_BROKEN, /* no record of ours */
    VERDICT_FAILED, /* err says why the run cannot go on */
};

/* ---- records ---- */

static void copy_name(char name[RESUME_NAME_BYTES], const json_t *value)
{
    const char *text = json_string_value(value);
    assert(name != NULL);
    snprintf(name, RESUME_NAME_BYTES, "%s", text != NULL ? text : "");
}

static enum verdict read_header(struct scan *scan, const json_t *header)
{
    struct resume *resume = scan->resume;
    assert(!resume->has_header);
    if (!scan->is_forced && !header_check(header, scan->header, scan->path, scan->err))
        return VERDICT_FAILED;
    resume->has_header = true;
    copy_name(resume->backend, json_object_get(header, "backend"));
    copy_name(resume->program, json_object_get(header, "program"));
    return VERDICT_OURS;
}

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
static bool make_key(const json_t *id, const json_t *error, int64_t index, uint64_t *key)
{
    const char *code = json_string_value(json_object_get(error, "code"));
    bool is_repeated = code != NULL && strcmp(code, "duplicate_id") == 0;
    char number[32];
    assert(index >= 0);
    struct bytes text = {.data = json_string_value(id), .n = json_string_length(id)};
    if (json_is_integer(id))
        text = (struct bytes){.data = number,
                              .n = (size_t)snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT,
                                                    json_integer_value(id))};
    if (is_repeated || json_is_null(id)) *key = ledger_line_key(is_repeated ? 'd' : 'l', index);
    else *key = ledger_hash(json_is_integer(id) ? 'i' : 's', text);
    return is_repeated || json_is_null(id) || text.data != NULL;
}

static enum verdict read_answer(struct scan *scan, const json_t *root)
{
    const json_t *body = json_object_get(json_object_get(root, "response"), "body");
    const json_t *facts = body != NULL ? json_object_get(body, "dllm") : root;
    const json_t *id = json_object_get(root, body != NULL ? "custom_id" : "id");
    const json_t *error = json_object_get(root, "error");
    const json_t *index = json_object_get(facts, "index");
    struct resume *resume = scan->resume;
    uint64_t line_hash = 0, key = 0;
    bool is_new, is_known = json_is_integer(index) && json_integer_value(index) >= 0 &&
                            parse_hash(json_object_get(facts, "line_hash"), &line_hash) &&
                            make_key(id, error, json_integer_value(index), &key);
    assert(resume->has_header);
    if (!is_known) return VERDICT_BROKEN;
    if (!ledger_answer(&resume->ledger, key, line_hash, &is_new, scan->err)) return VERDICT_FAILED;
    if (json_is_object(error)) resume->n_failed += is_new;
    else resume->n_answered += is_new;
    return VERDICT_OURS;
}

static enum verdict read_record(struct scan *scan, struct bytes line)
{
    struct resume *resume = scan->resume;
    enum verdict verdict = VERDICT_BROKEN;
    json_t *root = json_loadb(line.data, line.n, 0, NULL);
    const json_t *header = json_object_get(root, "header");
    const json_t *manifest = json_object_get(root, "manifest");
    assert(line.data != NULL);
    if (json_is_object(header) && !resume->has_header) verdict = read_header(scan, header);
    else if (!json_is_object(root) || !resume->has_header) verdict = VERDICT_BROKEN;
    else if (!json_is_object(manifest)) verdict = read_answer(scan, root);
    else {
        const char *word = json_string_value(json_object_get(manifest, "verdict"));
        resume->is_complete = word != NULL && strcmp(word, "complete") == 0;
        verdict = VERDICT_OURS;
    }
    scan->is_manifest = json_is_object(manifest);
    resume->is_complete = resume->is_complete && scan->is_manifest;
    json_decref(root);
    return verdict;
}

static enum verdict read_group(struct scan *scan, struct bytes content)
{
    enum verdict verdict = VERDICT_OURS;
    int64_t n_lines = 0;
    assert(content.data != NULL || content.n == 0);
    while (content.n > 0 && verdict == VERDICT_OURS) {
        const char *newline = memchr(content.data, '\n', content.n);
        if (newline == NULL) return VERDICT_BROKEN;
        size_t n = (size_t)(newline - content.data);
        verdict = read_record(scan, (struct bytes){.data = content.data, .n = n});
        content.data += n + 1;
        content.n -= n + 1;
        n_lines++;
    }
    /* One among answers is kept with them: somebody packed the file anew. */
    scan->is_manifest = scan->is_manifest && n_lines == 1;
    return verdict;
}

/* ---- damage ---- */

/* Whether nothing else can be read of the broken group than the start of a header, if so much. */
static bool could_be_header(const struct frames_group *broken)
{
    struct bytes text = broken->content;
    size_t n_start = strlen(HEADER_START);
    while (text.n > 0 && text.data[text.n - 1] == '\0')
        text.n--;
    size_t n = text.n < n_start ? text.n : n_start;
    assert(n <= n_start);
    return broken->begin_bytes == 0 && (n == 0 || memcmp(text.data, HEADER_START, n) == 0);
}

/* What lies from the broken group on must be what a broken write leaves. */
static bool check_tail(const struct scan *scan, struct frames *frames,
                       const struct frames_group *broken)
{
    const char *path = scan->path;
    struct resume *resume = scan->resume;
    int64_t n_tail = 0;
    bool goes_on = false, is_header = !resume->has_header && could_be_header(broken);
    assert(broken->begin_bytes >= resume->keep_bytes);
    if (!frames_tail(frames, broken->begin_bytes, &n_tail, &goes_on, scan->err)) return false;
    resume->torn_bytes = n_tail;
    resume->is_complete = false;
    if (!resume->has_header && (!is_header || n_tail > HEADER_BYTES_MAX))
        return error_set(scan->err, ERROR_CREATE, "%s exists already; use -f to overwrite it",
                         path);
    if (scan->is_forced) return true;
    if (n_tail > FRAMES_TAIL_BYTES_MAX)
        return error_set(scan->err, ERROR_FORMAT,
                         "%s is damaged at byte %" PRId64 ", and the %" PRId64
                         " bytes from there on are more than a broken write leaves; "
                         "--resume=force cuts them off, -f begins anew",
                         path, broken->begin_bytes, n_tail);
    if (!goes_on) return true;
    return error_set(scan->err, ERROR_FORMAT,
                     "%s is damaged at byte %" PRId64 ", and whole answers follow; --resume=force "
                     "cuts it there and answers them again, -f begins anew",
                     path, broken->begin_bytes);
}

/* ---- the walk ---- */

static bool walk(struct scan *scan, struct frames *frames)
{
    struct frames_group group;
    enum frames_status status;
    assert(scan->resume->keep_bytes == 0);
    while ((status = frames_next(frames, &group, scan->err)) == FRAMES_GROUP) {
        enum verdict verdict = read_group(scan, group.content);
        if (verdict == VERDICT_FAILED) return false;
        if (verdict == VERDICT_BROKEN) break;
        if (!scan->is_manifest) scan->resume->keep_bytes = group.end_bytes;
    }
    if (status == FRAMES_END || status == FRAMES_FAILED) return status == FRAMES_END;
    return scan->is_other || check_tail(scan, frames, &group);
}

bool resume_scan(struct resume *resume, const struct output_place *place, const json_t *header,
                 bool is_forced, struct error *err)
{
    struct scan scan = {.resume = resume,
                        .path = place->path,
                        .header = header,
                        .is_forced = is_forced,
                        .err = err};
    struct frames *frames;
    assert(place->exists);
    *resume = (struct resume){.ledger = {.any_line = is_forced}};
    if (!frames_open(&frames, place->path, place->compress, err)) return false;
    bool is_ok = walk(&scan, frames);
    frames_close(frames);
    return is_ok;
}

/* ---- other files of the output ---- */

/* ".00003-of-00008" */
static bool is_number(const char *text, size_t n)
{
    static const char pattern[] = ".00000-of-00000";
    assert(text != NULL);
    if (n != sizeof pattern - 1) return false;
    for (size_t i = 0; i < n; i++)
        if (pattern[i] == '0' ? !isdigit((unsigned char)text[i]) : text[i] != pattern[i])
            return false;
    return true;
}

/* Whether `name`, in the same directory, is that of `whole` or of one of its shards. */
static bool is_of_output(const char *whole, const char *name)
{
    size_t n_stem = shard_stem_bytes(whole), n_name = strlen(name);
    size_t n_suffix = strlen(whole + n_stem);
    assert(strchr(whole, '/') == NULL);
    if (strcmp(name, whole) == 0) return true;
    return n_name > n_stem + n_suffix && memcmp(name, whole, n_stem) == 0 &&
           strcmp(name + n_name - n_suffix, whole + n_stem) == 0 &&
           is_number(name + n_stem, n_name - n_stem - n_suffix);
}

static bool scan_other(struct resume *resume, const struct output_place *place,
                       const json_t *header, bool is_forced, struct error *err)
{
    struct resume other = {.ledger = resume->ledger};
    struct scan scan = {.resume = &other,
                        .path = place->path,
                        .header = header,
                        .is_forced = is_forced,
                        .is_other = true,
                        .err = err};
    struct frames *frames;
    assert(header != NULL);
    if (!frames_open(&frames, place->path, place->compress, err)) return false;
    bool is_ok = walk(&scan, frames);
    frames_close(frames);
    resume->ledger = other.ledger;
    return is_ok;
}

bool resume_scan_others(struct resume *resume, const struct output_place *place,
                        const json_t *header, bool is_forced, struct error *err)
{
    struct output_place other = *place;
    const char *slash = strrchr(place->whole, '/');
    size_t n_folder = slash != NULL ? (size_t)(slash + 1 - place->whole) : 0;
    const char *base = place->whole + n_folder;
    memcpy(other.path, place->whole, n_folder);
    strcpy(other.path + n_folder, ".");
    DIR *folder = opendir(other.path);
    bool is_ok = true;
    resume->ledger.any_line = is_forced;
    if (folder == NULL) return true; /* the output has told, or will, what is wrong */
    for (struct dirent *entry; is_ok && (entry = readdir(folder)) != NULL;) {
        if (!is_of_output(base, entry->d_name) ||
            n_folder + strlen(entry->d_name) >= sizeof other.path)
            continue;
        strcpy(other.path + n_folder, entry->d_name);
        if (strcmp(other.path, place->path) != 0)
            is_ok = scan_other(resume, &other, header, is_forced, err);
    }
    closedir(folder);
    return is_ok;
}

void resume_clear(struct resume *resume)
{
    assert(resume->n_answered >= 0);
    ledger_clear(&resume->ledger);
    *resume = (struct resume){0};
}
