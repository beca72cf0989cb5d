/* What a run makes of the scan of its output: which lines are answered, and whether it may go on.
 */
#include "app/resume.h"

#include <assert.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "app/header.h"
#include "app/scan.h"
#include "app/shard.h"
#include "base/frames.h"

/* What the records are read into, and held against. */
struct reading {
    struct resume *resume;
    const char *path;
    const json_t *header;  /* of this run */
    int64_t n_repeated;    /* answers to what has one already */
    struct error mismatch; /* what tells it from the last header that was read */
    bool is_forced;
};

static void copy_name(char name[RESUME_NAME_BYTES], const json_t *value)
{
    const char *text = json_string_value(value);
    assert(name != NULL);
    snprintf(name, RESUME_NAME_BYTES, "%s", text != NULL ? text : "");
}

static bool take_record(void *context, const struct scan_record *record, struct error *err)
{
    struct reading *reading = context;
    struct resume *resume = reading->resume;
    bool is_new;
    assert(record->value != NULL);
    if (record->kind == SCAN_HEADER) {
        copy_name(resume->backend, json_object_get(record->value, "backend"));
        copy_name(resume->program, json_object_get(record->value, "program"));
        reading->mismatch = (struct error){0};
        header_agree(record->value, reading->header, "now", reading->path, &reading->mismatch);
        return true;
    }
    if (record->kind == SCAN_MANIFEST) return true;
    if (!ledger_answer(&resume->ledger, record->key, record->line_hash, &is_new, err)) return false;
    if (record->is_failed) resume->n_failed += is_new;
    else resume->n_answered += is_new;
    reading->n_repeated += !is_new;
    return true;
}

/* What a file was gone on with last (--resume=force) is what it must be gone on with. */
static bool check_header(const struct reading *reading, const char *advice, struct error *err)
{
    const struct error *mismatch = &reading->mismatch;
    assert(advice != NULL);
    if (reading->is_forced || mismatch->code == ERROR_NONE) return true;
    return error_set(err, mismatch->code, "%s; %s, --resume=force goes on regardless",
                     mismatch->message, advice);
}

/* What lies from the broken group on must be what a broken write leaves. */
static bool check_tail(const struct reading *reading, const struct scan *scan, struct error *err)
{
    const char *path = reading->path;
    assert(scan->torn_bytes >= 0);
    if (scan->is_foreign)
        return error_set(err, ERROR_CREATE, "%s exists already; use -f to overwrite it", path);
    if (scan->is_mixed)
        return error_set(err, ERROR_FORMAT,
                         "%s holds at byte %" PRId64 " lines of others among answers, which only "
                         "-f gets over: it begins anew",
                         path, scan->torn_at_bytes);
    if (reading->is_forced) return true;
    if (reading->n_repeated > 0)
        return error_set(err, ERROR_FORMAT,
                         "%s holds answers to what has one already: %" PRId64 "; %s'dllm-batch "
                         "merge' of the complete file keeps one of each, -f begins anew",
                         path, reading->n_repeated,
                         scan->is_complete ? "" : "--resume=force goes on regardless, ");
    if (scan->is_long)
        return error_set(err, ERROR_FORMAT,
                         "%s is damaged at byte %" PRId64 ", and the %" PRId64
                         " bytes from there on are more than a broken write leaves; "
                         "--resume=force cuts them off, -f begins anew",
                         path, scan->torn_at_bytes, scan->torn_bytes);
    if (!scan->goes_on) return true;
    return error_set(err, ERROR_FORMAT,
                     "%s is damaged at byte %" PRId64 ", and whole answers follow; --resume=force "
                     "cuts it there and answers them again, -f begins anew",
                     path, scan->torn_at_bytes);
}

bool resume_scan(struct resume *resume, const struct output_place *place, const json_t *header,
                 bool is_forced, struct error *err)
{
    struct reading reading = {
        .resume = resume, .path = place->path, .header = header, .is_forced = is_forced};
    struct scan scan;
    assert(place->exists);
    *resume = (struct resume){.ledger = {.any_line = is_forced}};
    if (!scan_file(&scan, place->path, place->compress, take_record, &reading, err)) return false;
    resume->keep_bytes = scan.keep_bytes;
    resume->torn_bytes = scan.torn_bytes;
    resume->has_header = scan.has_header;
    resume->is_complete = scan.is_complete;
    resume->is_otherwise = reading.mismatch.code != ERROR_NONE;
    return check_header(&reading, "-f begins anew", err) && check_tail(&reading, &scan, err);
}

/* ---- other files of the output ---- */

/* Whether `name`, in the same directory, is that of `whole` or of one of its shards. */
static bool is_of_output(const char *whole, const char *name)
{
    struct shard shard = {.count = 1};
    char numbered[OUTPUT_PATH_BYTES_MAX];
    assert(strchr(whole, '/') == NULL);
    shard_read_name(name, &shard.index, &shard.count);
    return shard_name(&shard, whole, numbered, sizeof numbered) && strcmp(name, numbered) == 0;
}

static bool scan_other(struct resume *resume, const struct output_place *place,
                       const json_t *header, bool is_forced, struct error *err)
{
    struct resume other = {.ledger = resume->ledger};
    struct reading reading = {
        .resume = &other, .path = place->path, .header = header, .is_forced = is_forced};
    struct scan scan;
    assert(header != NULL);
    bool is_ok = scan_file(&scan, place->path, place->compress, take_record, &reading, err) &&
                 check_header(&reading, "move it away or name another output", err);
    resume->ledger = other.ledger;
    resume->n_elsewhere += other.n_answered + other.n_failed;
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
