/* Golden answers end to end, as TAP:
 *
 *     golden BACKEND ISA THREADS FOLDER...
 *
 * Each folder holds a model and golden.json, maybe also golden-caches.json. The cases run all in
 * one batch, then each alone, then (but on ref) shuffled: token ids must equal the expected ones,
 * log-probabilities must be near the expected ones and equal bit for bit between the ways (I3).
 * Whole logits are compared alone and in a batch, and with those that the file carries. ISA "best"
 * leaves the choice to the backend. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "golden/cases.h"
#include "golden/probe.h"

#define LOG_PROB_TOLERANCE 2e-3
#define TIGHT_ROWS         300
#define LOGITS_TOLERANCE   2e-5 /* of the row's largest value; float32 arithmetic */

struct answer_copy {
    int32_t n, steps, refresh_steps, reuse_steps;
    int64_t positions;
    int32_t *ids;
    float *log_probs;
};

struct run {
    struct arena arena;
    const char *folder, *backend;
    char model_dir[4096]; /* the folder itself, or data/models/NAME for one with answers only */
    struct backend_limits limits;
    struct golden_case *cases;
    int32_t n_cases;
};

static int32_t n_tests, n_failed;

static void report(bool ok, const char *folder, const char *what, const char *why)
{
    const char *name = strrchr(folder, '/');
    n_tests++;
    n_failed += !ok;
    printf("%s %d - %s: %s%s%s\n", ok ? "ok" : "not ok", n_tests, name ? name + 1 : folder, what,
           ok ? "" : ": ", ok ? "" : why);
}

static void report_skip(const char *folder, const char *why)
{
    printf("ok %d - %s # SKIP %s\n", ++n_tests, folder, why);
}

/* ---- answers ---- */

struct collector {
    struct arena *arena;
    struct answer_copy *answers; /* by request index */
};

static bool collect(void *context, const struct answer *answer, struct error *err)
{
    struct collector *collector = context;
    struct answer_copy *copy = &collector->answers[answer->request->index];
    (void)err;
    copy->n = answer->n_tokens;
    copy->steps = answer->steps;
    copy->refresh_steps = answer->refresh_steps;
    copy->reuse_steps = answer->reuse_steps;
    copy->positions = answer->positions;
    copy->ids = arena_push(collector->arena, (size_t)copy->n, sizeof *copy->ids);
    copy->log_probs = arena_push(collector->arena, (size_t)copy->n, sizeof *copy->log_probs);
    memcpy(copy->ids, answer->token_ids, (size_t)copy->n * sizeof *copy->ids);
    memcpy(copy->log_probs, answer->log_probs, (size_t)copy->n * sizeof *copy->log_probs);
    return true;
}

static bool go_on(void *context, const struct executor_iteration *iteration)
{
    (void)context;
    (void)iteration;
    return true;
}

/* Runs cases in the given order, `n_together` at a time. */
static struct answer_copy *run_cases(struct run *run, struct executor *executor,
                                     const int32_t *order, int32_t n_together, struct error *err)
{
    struct collector collector = {.arena = &run->arena};
    collector.answers = arena_push(&run->arena, (size_t)run->n_cases, sizeof *collector.answers);
    struct executor_events events = {.context = &collector, .answered = collect, .iterated = go_on};
    struct request *requests = arena_push(&run->arena, (size_t)run->n_cases, sizeof *requests);
    for (int32_t i = 0; i < run->n_cases; i++)
        requests[i] = run->cases[order[i]].request;
    for (int32_t i = 0; i < run->n_cases; i += n_together) {
        int32_t n = run->n_cases - i < n_together ? run->n_cases - i : n_together;
        for (int32_t j = 0; j < n; j++)
            if (!executor_check(executor, &requests[i + j], err)) return NULL;
        if (!executor_run(executor, requests + i, n, &events, err)) return NULL;
    }
    return collector.answers;
}

/* Whether the case expects another count than the answer has; `text` then says so. */
static bool counts_differ(const struct golden_case *golden, const struct answer_copy *answer,
                          char *text, size_t n_bytes)
{
    const struct {
        const char *key;
        int64_t found;
    } counts[] = {{"expect_steps", answer->steps},
                  {"expect_refresh_steps", answer->refresh_steps},
                  {"expect_reuse_steps", answer->reuse_steps},
                  {"expect_positions", answer->positions}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const json_t *expected = json_object_get(golden->json, counts[i].key);
        if (!expected || json_integer_value(expected) == counts[i].found) continue;
        snprintf(text, n_bytes, "%s: %lld, %s is %lld", golden->request.id,
                 (long long)counts[i].found, counts[i].key,
                 (long long)json_integer_value(expected));
        return true;
    }
    return false;
}

/* Why the answer is not the expected one, or NULL. */
static const char *difference(const struct golden_case *golden, const struct answer_copy *answer)
{
    static char text[256];
    if (answer->n != golden->n_expect) {
        snprintf(text, sizeof text, "%s: %d tokens, expected %d", golden->request.id, answer->n,
                 golden->n_expect);
        return text;
    }
    const json_t *log_probs = json_object_get(golden->json, "expect_log_probs");
    for (int32_t i = 0; i < answer->n; i++) {
        double expected = json_number_value(json_array_get(log_probs, (size_t)i));
        if (answer->ids[i] != golden->expect[i])
            snprintf(text, sizeof text, "%s: token %d is %d, expected %d", golden->request.id, i,
                     answer->ids[i], golden->expect[i]);
        else if (log_probs && !json_is_null(json_array_get(log_probs, (size_t)i)) &&
                 !(fabs(answer->log_probs[i] - expected) <= LOG_PROB_TOLERANCE))
            snprintf(text, sizeof text, "%s: log-probability %d is %g, expected %g",
                     golden->request.id, i, (double)answer->log_probs[i], expected);
        else continue;
        return text;
    }
    return counts_differ(golden, answer, text, sizeof text) ? text : NULL;
}

static bool same_ids(const struct golden_case *golden, const struct answer_copy *answer)
{
    if (answer->n != golden->n_expect) return false;
    return memcmp(answer->ids, golden->expect, (size_t)answer->n * sizeof *answer->ids) == 0;
}

/* A backend that rounds activations decides close cases otherwise: forced.c is its test, this one
 * then shows that an answer does not depend on its batch. */
static bool is_rounded(const struct run *run)
{
    return strcmp(run->backend, "cuda") == 0;
}

static bool same_bits(const struct run *run, const struct answer_copy *a,
                      const struct answer_copy *b)
{
    for (int32_t i = 0; i < run->n_cases; i++) {
        if (a[i].n != b[i].n || a[i].positions != b[i].positions) return false;
        if (memcmp(a[i].ids, b[i].ids, (size_t)a[i].n * sizeof *a[i].ids) != 0) return false;
        if (memcmp(a[i].log_probs, b[i].log_probs, (size_t)a[i].n * sizeof(float)) != 0)
            return false;
    }
    return true;
}

/* Reverses halves and interleaves: every case has other neighbours than before. */
static void shuffle(int32_t *order, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        order[i] = i % 2 == 0 ? n - 1 - i / 2 : i / 2;
}

/* Answers of all cases together; NULL: `err`. */
static struct answer_copy *run_in_order(struct run *run, struct executor *executor,
                                        struct error *err)
{
    int32_t *order = arena_push(&run->arena, (size_t)run->n_cases, sizeof *order);
    for (int32_t i = 0; i < run->n_cases; i++)
        order[i] = i;
    return run_cases(run, executor, order, run->n_cases, err);
}

static struct answer_copy *check_answers(struct run *run, struct executor *executor)
{
    struct error err = {0};
    struct answer_copy *together = run_in_order(run, executor, &err);
    int32_t *order = arena_push(&run->arena, (size_t)run->n_cases, sizeof *order);
    for (int32_t i = 0; i < run->n_cases; i++)
        order[i] = i;
    struct answer_copy *alone = together ? run_cases(run, executor, order, 1, &err) : NULL;
    shuffle(order, run->n_cases);
    /* ref has no tiles or threads that a neighbour could move; two ways are enough for it. */
    bool is_ref = strcmp(run->backend, "ref") == 0;
    struct answer_copy *shuffled = alone;
    if (alone && !is_ref) shuffled = run_cases(run, executor, order, run->n_cases, &err);
    if (!shuffled) {
        report(false, run->folder, "runs", err.message);
        return NULL;
    }
    int32_t n_equal = 0;
    for (int32_t i = 0; i < run->n_cases; i++) {
        const char *why = difference(&run->cases[i], &together[i]);
        n_equal += same_ids(&run->cases[i], &together[i]);
        if (!is_rounded(run)) report(!why, run->folder, run->cases[i].request.id, why);
    }
    if (is_rounded(run))
        printf("# %s: %d of %d answers have the expected tokens\n", run->folder, n_equal,
               run->n_cases);
    report(same_bits(run, together, alone), run->folder, "alone, the answers are the same bits",
           "they differ");
    if (!is_ref)
        report(same_bits(run, together, shuffled), run->folder,
               "shuffled, the answers are the same bits", "they differ");
    return together;
}

/* Opens an engine with little room (the static policy: for batches of three), or the usual one. */
static bool open_engine(struct run *run, struct engine *engine, enum policy policy, bool is_tight,
                        struct error *err)
{
    struct engine_options options = {.model_dir = run->model_dir,
                                     .backend = run->backend,
                                     .cpu_isa = run->limits.cpu_isa,
                                     .n_threads = run->limits.n_threads,
                                     .n_requests_max = 256,
                                     .kv_bytes = SIZE_MAX,
                                     .policy = policy};
    struct model_config config;
    if (is_tight) options.n_rows_max = TIGHT_ROWS;
    if (is_tight && policy == POLICY_STATIC) options.n_running_max = 3;
    return config_read(&config, run->model_dir, &run->arena, err) &&
           engine_open(engine, &options, &config, &run->arena, err);
}

/* Whatever the policy, and with so little room that requests wait, the answers are the same. */
static void check_policies(struct run *run, const struct answer_copy *expected)
{
    static const char *const names[] = {"static", "fcfs", "planned"};
    for (int i = 0; i < 3; i++) {
        struct engine engine;
        struct error err = {0};
        char what[64];
        snprintf(what, sizeof what, "policy %s, the answers are the same bits", names[i]);
        if (!open_engine(run, &engine, (enum policy)i, true, &err)) {
            report(false, run->folder, what, err.message);
            continue;
        }
        const struct answer_copy *answers = run_in_order(run, engine.executor, &err);
        bool same = answers && same_bits(run, answers, expected);
        report(same, run->folder, what, answers ? "they differ" : err.message);
        engine_close(&engine);
    }
}

static void check_executor(struct run *run)
{
    struct engine engine;
    struct error err = {0};
    size_t mark = run->arena.used_bytes;
    if (!open_engine(run, &engine, POLICY_PLANNED, false, &err)) {
        report(false, run->folder, "opens", err.message);
        return;
    }
    const struct answer_copy *answers = check_answers(run, engine.executor);
    engine_close(&engine);
    /* ref is slow, and what differs between policies is above the backend. */
    if (answers && strcmp(run->backend, "ref") != 0) check_policies(run, answers);
    arena_rewind(&run->arena, mark);
}

/* ---- logits ---- */

/* The canvas of each case before its first step. */
static void make_canvases(struct run *run, const struct model_config *config,
                          struct probe_canvas *canvases)
{
    for (int32_t i = 0; i < run->n_cases; i++) {
        const struct request *request = &run->cases[i].request;
        int32_t n = request->n_prompt + request->decode.gen_length;
        int32_t *ids = arena_push(&run->arena, (size_t)n, sizeof *ids);
        for (int32_t j = 0; j < n; j++)
            ids[j] = j < request->n_prompt ? request->prompt_ids[j] : config->mask_id;
        canvases[i] = (struct probe_canvas){.ids = ids, .n = n};
    }
}

static float *make_room(struct run *run, struct probe_canvas *canvases, int32_t n_vocab)
{
    size_t n_rows = 0;
    for (int32_t i = 0; i < run->n_cases; i++)
        n_rows += (size_t)canvases[i].n;
    float *room = arena_push(&run->arena, n_rows * (size_t)n_vocab, sizeof *room), *at = room;
    for (int32_t i = 0; i < run->n_cases; i++) {
        canvases[i].logits = at;
        at += (size_t)canvases[i].n * (size_t)n_vocab;
    }
    return room;
}

static bool same_logits(const struct run *run, const struct probe_canvas *a,
                        const struct probe_canvas *b, int32_t n_vocab)
{
    for (int32_t i = 0; i < run->n_cases; i++)
        if (memcmp(a[i].logits, b[i].logits, (size_t)a[i].n * (size_t)n_vocab * sizeof(float)) != 0)
            return false;
    return true;
}

/* Largest error of the rows that a case's "logits" gives, relative to the row's largest value. */
static double logits_error(const struct golden_case *golden, const struct probe_canvas *canvas,
                           const struct model_config *config, int32_t *n_rows)
{
    const json_t *rows = json_object_get(golden->json, "logits");
    double worst = 0;
    for (size_t i = 0; i < json_array_size(rows); i++, (*n_rows)++) {
        const json_t *values = json_object_get(json_array_get(rows, i), "values");
        int32_t position =
            (int32_t)json_integer_value(json_object_get(json_array_get(rows, i), "position"));
        int32_t row = position >= config->shift ? position - config->shift : 0;
        const float *logits = canvas->logits + (size_t)row * (size_t)config->n_vocab;
        double largest = 0, error = 0;
        for (size_t j = 0; j < json_array_size(values); j++) {
            double expected = json_number_value(json_array_get(values, j));
            if (fabs(expected) > largest) largest = fabs(expected);
            if (fabs(logits[j] - expected) > error) error = fabs(logits[j] - expected);
        }
        if (error / largest > worst) worst = error / largest;
    }
    return worst;
}

static void report_logits(const struct run *run, const struct probe_canvas *canvases,
                          const struct model_config *config)
{
    double worst = 0;
    int32_t n_rows = 0;
    for (int32_t i = 0; i < run->n_cases; i++) {
        double error = logits_error(&run->cases[i], &canvases[i], config, &n_rows);
        if (error > worst) worst = error;
    }
    if (n_rows == 0) return;
    char why[96];
    snprintf(why, sizeof why, "largest relative error %.2e, allowed %.0e", worst, LOGITS_TOLERANCE);
    printf("# %s: %d rows of logits, largest relative error %.2e\n", run->folder, n_rows, worst);
    if (!is_rounded(run))
        report(worst <= LOGITS_TOLERANCE, run->folder, "logits are near the reference's", why);
}

static bool compare_logits(struct run *run, struct probe *probe, struct error *err)
{
    const struct model_config *config = &probe->model.config;
    size_t n = (size_t)run->n_cases;
    struct probe_canvas *together = arena_push(&run->arena, n, sizeof *together);
    struct probe_canvas *alone = arena_push(&run->arena, n, sizeof *alone);
    make_canvases(run, config, together);
    memcpy(alone, together, n * sizeof *alone);
    make_room(run, together, config->n_vocab);
    make_room(run, alone, config->n_vocab);
    int32_t half = run->n_cases / 2; /* two batches: a ragged one may not hold all */
    if (!probe_logits(probe, together, half, err)) return false;
    if (!probe_logits(probe, together + half, run->n_cases - half, err)) return false;
    for (int32_t i = 0; i < run->n_cases; i++)
        if (!probe_logits(probe, &alone[i], 1, err)) return false;
    report(same_logits(run, together, alone, config->n_vocab), run->folder,
           "logits alone and in a batch are the same bits", "they differ");
    report_logits(run, together, config);
    return true;
}

static void check_logits(struct run *run)
{
    struct probe probe;
    struct error err = {0};
    if (!probe_open(&probe, run->model_dir, run->backend, &run->limits, &run->arena, &err) ||
        !compare_logits(run, &probe, &err))
        report(false, run->folder, "logits", err.message);
    probe_close(&probe);
}

/* ---- */

static bool is_available(const struct run *run, struct error *err)
{
    struct backend backend = {0};
    bool ok = backend_open(&backend, run->backend, &run->limits, err);
    backend_close(&backend);
    return ok || err->code != ERROR_UNAVAILABLE;
}

static void find_model(struct run *run)
{
    char path[4096];
    const char *name = strrchr(run->folder, '/');
    snprintf(path, sizeof path, "%s/config.json", run->folder);
    FILE *file = fopen(path, "r");
    if (file) fclose(file);
    if (file || !name) snprintf(run->model_dir, sizeof run->model_dir, "%s", run->folder);
    else snprintf(run->model_dir, sizeof run->model_dir, "%s/../../models%s", run->folder, name);
}

static void check_file(struct run *run, const char *name, bool is_optional)
{
    char path[4096];
    json_t *root = NULL;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", run->folder, name);
    FILE *file = fopen(path, "r");
    if (!file) {
        if (!is_optional) report_skip(run->folder, "absent");
        return;
    }
    fclose(file);
    if (!is_available(run, &err)) {
        report_skip(run->folder, err.message);
        return;
    }
    if (!cases_read(path, &run->arena, &root, &run->cases, &run->n_cases, &err)) {
        report(false, run->folder, name, err.message);
        return;
    }
    find_model(run);
    report(run->n_cases > 0, run->folder, "has cases", "none");
    check_executor(run);
    if (!is_optional) check_logits(run);
    json_decref(root);
}

int main(int argc, char **argv)
{
    struct run run = {0};
    if (argc < 5) {
        fprintf(stderr, "usage: golden BACKEND ISA THREADS FOLDER...\n");
        return 64;
    }
    if (!arena_create(&run.arena, (size_t)4 << 30, NULL)) return 69;
    run.backend = argv[1];
    run.limits.cpu_isa = strcmp(argv[2], "best") == 0 ? NULL : argv[2];
    run.limits.n_threads = atoi(argv[3]);
    for (int i = 4; i < argc; i++) {
        run.folder = argv[i];
        check_file(&run, "golden.json", false);
        check_file(&run, "golden-caches.json", true);
        arena_rewind(&run.arena, 0);
    }
    printf("1..%d\n", n_tests);
    arena_destroy(&run.arena);
    return n_failed > 0;
}
