/* dllm-batch verify: whether outputs of run are whole, and with --against, whether every line of
 * the input has its answer. First all files into one ledger, then the input against it; so the
 * memory is the ledger's, at most 24 bytes a line. */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/figures.h"
#include "app/header.h"
#include "app/ledger.h"
#include "app/prompts.h"
#include "app/scan.h"
#include "app/shard.h"
#include "base/frames.h"

enum { NAMED_MAX = 5, NAME_BYTES = 240, ID_SHOWN = 80 };

/* What may be found, the harmless first. */
enum finding {
    FOUND_UNFINISHED,
    FOUND_LOST,
    FOUND_TORN,
    FOUND_MISSING,
    FOUND_DUPLICATE,
    FOUND_CHANGED,
    FOUND_FOREIGN,
    FOUND_MIXED,
    FOUND_DAMAGED,
    FOUND_FORCED,
    FINDINGS,
};

static const struct finding_kind {
    const char *name, *what;
    int rank; /* of verdicts: 0 is told only; 2: the same command of run puts it right; 3: it does
                 not */
} kinds[FINDINGS] = {
    [FOUND_UNFINISHED] = {"unfinished", "files whose run has not ended", 2},
    [FOUND_LOST] = {"lost", "lines that a manifest counts and its file lacks", 2},
    [FOUND_TORN] = {"torn_bytes", "bytes that a broken write left", 2},
    [FOUND_MISSING] = {"missing", "lines of the input without an answer", 2},
    [FOUND_DUPLICATE] = {"duplicate", "answers to what has one already", 3},
    [FOUND_CHANGED] = {"changed", "lines of the input that were others when they got theirs", 3},
    [FOUND_FOREIGN] = {"foreign", "answers to no line of the input", 3},
    [FOUND_MIXED] = {"mixed", "files of another model or other settings, or of no run", 3},
    [FOUND_DAMAGED] = {"damaged", "files that are broken before their end", 3},
    [FOUND_FORCED] = {"forced", "times that --resume=force went past another model or settings", 0},
};

struct verification {
    const struct options *options;
    const char *path; /* of the file that is read */
    struct ledger ledger;
    json_t *header; /* of the first file; NULL: none yet */
    json_t *files;  /* what is told of each */
    json_t *file;   /* the one that is read; borrowed */
    int64_t n_answered, n_failed;
    uint64_t keys; /* sum of the answers', each once */
    struct scan_input input;
    int64_t n_found[FINDINGS];
    char named[FINDINGS][NAMED_MAX][NAME_BYTES]; /* the first of each kind */
    int32_t n_named[FINDINGS];
};

/* Counts, and remembers a name while there is room. */
__attribute__((format(printf, 4, 5))) static void
find(struct verification *found, enum finding kind, int64_t n, const char *format, ...)
{
    struct error name = {0}; /* its setter makes any bytes valid */
    char text[NAME_BYTES];
    va_list arguments;
    assert((unsigned)kind < FINDINGS);
    found->n_found[kind] += n;
    if (found->n_named[kind] == NAMED_MAX) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error_set(&name, ERROR_FORMAT, "%s", text);
    snprintf(found->named[kind][found->n_named[kind]++], NAME_BYTES, "%.*s", NAME_BYTES - 1,
             name.message);
}

/* ---- the files ---- */

static bool take_header(struct verification *found, const json_t *header)
{
    struct error why = {0};
    const json_t *earlier = json_object_get(found->file, "header");
    assert(found->file != NULL);
    if (earlier != NULL) { /* a run that was forced to go on */
        header_agree(header, earlier, "before", found->path, &why);
        find(found, why.code == ERROR_FORMAT ? FOUND_MIXED : FOUND_FORCED, 1, "%s", why.message);
        return true;
    }
    json_object_set(found->file, "header", (json_t *)(uintptr_t)header);
    if (!header_agree(header, found->header, "the first file", found->path, &why))
        find(found, FOUND_MIXED, 1, "%s", why.message);
    else if (found->header == NULL) found->header = json_deep_copy(header);
    return true;
}

static void find_record(struct verification *found, enum finding kind,
                        const struct scan_record *record)
{
    char *id = json_dumps(record->id, JSON_ENCODE_ANY);
    assert(record->kind == SCAN_ANSWER);
    find(found, kind, 1, "%s: index %" PRId64 ", id %.*s", found->path, record->index, ID_SHOWN,
         id != NULL ? id : "?");
    free(id);
}

static bool take_record(void *context, const struct scan_record *record, struct error *err)
{
    struct verification *found = context;
    bool is_new;
    if (record->kind == SCAN_HEADER) return take_header(found, record->value);
    if (record->kind == SCAN_MANIFEST) return true;
    assert(record->index >= 0);
    if (!ledger_answer(&found->ledger, record->key, record->line_hash, &is_new, err)) return false;
    if (is_new) {
        found->keys += record->key;
        found->n_failed += record->is_failed;
        found->n_answered += !record->is_failed;
        return true;
    }
    find_record(found, FOUND_DUPLICATE, record);
    return true;
}

/* What the scan says besides the records. */
static void judge_file(struct verification *found, const struct scan *scan)
{
    const char *path = found->path;
    bool is_damaged = scan->is_long || scan->goes_on || scan->is_mixed;
    assert(scan->torn_bytes >= 0);
    const char *verdict = !scan->has_manifest ? "none"
                          : scan->is_complete ? "complete"
                                              : "incomplete";
    json_object_set_new(found->file, "manifest", json_string(verdict));
    json_object_set_new(found->file, "records", json_integer(scan->n_records));
    if (scan->is_foreign) {
        find(found, FOUND_MIXED, 1, "%s is no output file of run: it has no header", path);
        return;
    }
    if (is_damaged)
        find(found, FOUND_DAMAGED, 1,
             "%s at byte %" PRId64 ", with %" PRId64 " bytes from there on", path,
             scan->torn_at_bytes, scan->torn_bytes);
    else if (scan->torn_bytes > 0)
        find(found, FOUND_TORN, scan->torn_bytes, "%s from byte %" PRId64 " on", path,
             scan->torn_at_bytes);
    scan_learn_input(&found->input, &scan->input);
    /* Where the input is there, it knows better. */
    if (found->options->against != NULL) return;
    if (scan->n_manifest > scan->n_records)
        find(found, FOUND_LOST, scan->n_manifest - scan->n_records, "%s", path);
    if (!scan->is_complete)
        find(found, FOUND_UNFINISHED, 1, "%s: %s", path,
             scan->has_manifest ? "its manifest says so" : "it has no manifest");
}

static bool read_files(struct verification *found, struct error *err)
{
    const struct options *options = found->options;
    assert(options->n_operands > 0);
    for (int32_t i = 0; i < options->n_operands; i++) {
        struct scan scan;
        found->path = options->operands[i];
        found->file = json_pack("{s:s}", "path", found->path);
        if (found->file == NULL) found->file = json_object(); /* a path that is not UTF-8 */
        if (json_array_append_new(found->files, found->file) != 0)
            return error_set(err, ERROR_UNAVAILABLE, "not enough memory to verify");
        if (!scan_file(&scan, found->path, frames_is_zstd(found->path), take_record, found, err))
            return false;
        judge_file(found, &scan);
    }
    return true;
}

/* ---- the input ---- */

static void take_line(struct verification *found, const char *label, const struct prompt *prompt,
                      int64_t *n_matched)
{
    char id[ID_SHOWN + 8];
    int n_shown = prompt->id.n < ID_SHOWN ? (int)prompt->id.n : ID_SHOWN;
    const char *quote = prompt->id_is_integer ? "" : "\"";
    assert(prompt->line > 0);
    snprintf(id, sizeof id, "%s%.*s%s", quote, n_shown, prompt->id.data, quote);
    bool is_known = prompt->verdict == LEDGER_ANSWERED || prompt->verdict == LEDGER_CHANGED;
    *n_matched += is_known;
    if (prompt->verdict == LEDGER_ANSWERED) return;
    find(found, is_known ? FOUND_CHANGED : FOUND_MISSING, 1, "%s:%" PRId64 ", id %s", label,
         prompt->line, prompt->has_id ? id : "null");
}

static bool take_foreign(void *context, const struct scan_record *record, struct error *err)
{
    struct verification *found = context;
    (void)err;
    assert(found->options->against != NULL);
    if (record->kind == SCAN_ANSWER && !ledger_was_read(&found->ledger, record->key))
        find_record(found, FOUND_FOREIGN, record);
    return true;
}

/* Answers to no line of the input: the files are read once more. */
static bool name_foreign(struct verification *found, struct error *err)
{
    const struct options *options = found->options;
    struct scan scan;
    bool is_ok = true;
    assert(options->against != NULL);
    for (int32_t i = 0; is_ok && i < options->n_operands; i++) {
        found->path = options->operands[i];
        is_ok =
            scan_file(&scan, found->path, frames_is_zstd(found->path), take_foreign, found, err);
    }
    return is_ok;
}

static bool read_input(struct verification *found, struct error *err)
{
    const struct options *options = found->options;
    const struct prompts_options reading = {
        .path = options->against, .flags = options, .only_ids = true, .ledger = &found->ledger};
    const char *label = strcmp(options->against, "-") == 0 ? "standard input" : options->against;
    int64_t n_matched = 0, n_known = found->n_answered + found->n_failed;
    struct prompts *prompts;
    struct prompt prompt;
    enum prompts_status status;
    assert(options->against != NULL);
    if (!prompts_open(&prompts, &reading, err)) return false;
    while ((status = prompts_next(prompts, &prompt, err)) == PROMPTS_READ)
        take_line(found, label, &prompt, &n_matched);
    prompts_close(prompts);
    return status == PROMPTS_END && (n_known == n_matched || name_foreign(found, err));
}

/* ---- what is told ---- */

/* Without --against nobody knows what only the input can tell. */
static bool is_known(const struct verification *found, enum finding kind)
{
    assert((unsigned)kind < FINDINGS);
    bool is_of_input = kind == FOUND_CHANGED || kind == FOUND_FOREIGN ||
                       (kind == FOUND_MISSING && found->input.n == 0);
    return found->options->against != NULL ? kind > FOUND_LOST : !is_of_input;
}

static bool print_json(struct verification *found, const char *verdict, struct error *err)
{
    json_t *root =
        json_pack("{s:s, s:O, s:I, s:I}", "verdict", verdict, "files", found->files, "answered",
                  (json_int_t)found->n_answered, "failed", (json_int_t)found->n_failed);
    json_t *first = json_object();
    assert(found->files != NULL);
    for (enum finding kind = 0; kind < FINDINGS; kind++) {
        json_t *names = json_array(), *n = json_integer((json_int_t)found->n_found[kind]);
        for (int32_t i = 0; i < found->n_named[kind]; i++)
            json_array_append_new(names, json_string(found->named[kind][i]));
        if (!is_known(found, kind)) {
            json_decref(n);
            n = json_null();
        }
        json_object_set_new(root, kinds[kind].name, n);
        if (found->n_named[kind] > 0) json_object_set(first, kinds[kind].name, names);
        json_decref(names);
    }
    json_object_set_new(root, "first", first);
    return figures_dump(root, err);
}

static void print_text(const struct verification *found, const char *verdict)
{
    size_t i;
    json_t *file;
    assert(found->files != NULL);
    json_array_foreach(found->files, i, file)
    {
        const json_t *model = json_object_get(json_object_get(file, "header"), "model");
        const char *name = json_string_value(json_object_get(model, "name"));
        error_print(stdout, "%s: model %s, %" JSON_INTEGER_FORMAT " lines, manifest: %s",
                    found->options->operands[i], name != NULL ? name : "unknown",
                    json_integer_value(json_object_get(file, "records")),
                    json_string_value(json_object_get(file, "manifest")));
    }
    printf("%-12s%12" PRId64 "\n%-12s%12" PRId64 "  error lines\n", "answered", found->n_answered,
           "failed", found->n_failed);
    for (enum finding kind = 0; kind < FINDINGS; kind++) {
        bool is_shown = kind <= FOUND_FOREIGN || found->n_found[kind] > 0;
        if (!is_shown || !is_known(found, kind)) continue;
        printf("%-12s%12" PRId64 "  %s\n", kinds[kind].name, found->n_found[kind],
               kinds[kind].what);
        for (int32_t n = 0; n < found->n_named[kind]; n++)
            printf("              %s\n", found->named[kind][n]);
        if (found->n_named[kind] == NAMED_MAX && found->n_found[kind] > NAMED_MAX)
            puts("              ...");
    }
    printf("verdict: %s\n", verdict);
}

/* Without the input, manifests tell how many lines it had, and which; then names do not matter, and
 * shards of any number may have answered them. Else names tell that a shard is missing. */
static void find_shards(struct verification *found)
{
    const struct options *options = found->options;
    int64_t n_left = found->input.n - found->n_answered - found->n_failed;
    int32_t missing, count;
    assert(options->n_operands > 0);
    bool is_proved = found->input.n > 0 && n_left == 0 && found->keys == found->input.keys;
    if (options->against != NULL || is_proved) return;
    if (!shard_are_all(options->operands, options->n_operands, &missing, &count))
        find(found, FOUND_UNFINISHED, 1, "shard %d of %d is not among the files", missing, count);
    else if (n_left > 0)
        find(found, FOUND_MISSING, n_left, "of %" PRId64 " that the newest run read",
             found->input.n);
}

static bool conclude(struct verification *found, int *status, struct error *err)
{
    static const char *const verdicts[] = {"complete", "complete, with error lines", "incomplete",
                                           "wrong"};
    int rank = found->n_failed > 0;
    assert(*status == 0);
    find_shards(found);
    for (enum finding kind = 0; kind < FINDINGS; kind++) {
        if (found->n_found[kind] > 0 && kinds[kind].rank > rank) rank = kinds[kind].rank;
    }
    if (!found->options->json) print_text(found, verdicts[rank]);
    else if (!print_json(found, verdicts[rank], err)) return false;
    *status = rank == 1;
    if (rank < 2) return true;
    if (rank == 2)
        return error_set(err, ERROR_STOPPED,
                         "incomplete: the same command of run goes on with it%s",
                         found->options->against == NULL && found->n_found[FOUND_MISSING] > 0
                             ? "; if it finds nothing to do, name the files of all shards"
                             : "");
    return error_set(
        err, ERROR_FORMAT,
        "wrong: the same command of run does not put that right; damage, and lines that "
        "changed: --resume=force; duplicates: merge; the rest: -f begins anew");
}

bool cmd_verify(const struct options *options, int *status, struct error *err)
{
    assert(status != NULL);
    if (options->n_operands == 0)
        return error_set(err, ERROR_USAGE, "verify needs the output of a run: FILE...");
    struct verification *found = calloc(1, sizeof *found);
    if (found == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to verify");
    found->options = options;
    found->files = json_array();
    bool is_ok = read_files(found, err) && (options->against == NULL || read_input(found, err)) &&
                 conclude(found, status, err);
    json_decref(found->files);
    json_decref(found->header);
    ledger_clear(&found->ledger);
    free(found);
    return is_ok;
}
