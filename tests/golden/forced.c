/* Teacher-forced comparison of a backend whose activations are rounded, as TAP:
 *
 *     forced BACKEND FOLDER...
 *
 * Whole decodes are no test of such a backend: one close decision, and all that follows differs. So
 * every state along the decodes of a folder's golden.json (the most probable token of the block is
 * committed each step, as the exact logits say) is shown to three models: an exact one (cpu), a
 * naive one (ref with every op's result rounded to bf16) and the subject. The subject's logits may
 * be off by twice what the naive one's are; its decision must be the exact one wherever the exact
 * logits decide by more than half a logit. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden/cases.h"
#include "golden/probe.h"

#define MARGIN      0.5
#define STEPS_MAX   24 /* of a decode: later states are like those before */
#define CASES_MAX   8
#define N_DECISIONS 500 /* at least, over all folders */

/* ---- ref, rounded ---- */

static void round_rows(struct matrix matrix, int32_t col_begin, int32_t n_cols)
{
    assert(matrix.dtype == DTYPE_F32);
    for (int32_t r = 0; r < matrix.n_rows; r++) {
        float *row = (float *)matrix.data + (ptrdiff_t)r * matrix.n_cols + col_begin;
        for (int32_t i = 0; i < n_cols; i++)
            row[i] = dtype_f32_from_bf16(dtype_bf16_from_f32(row[i]));
    }
}

static void naive_rms_norm(struct backend *backend, const struct rms_norm_args *args)
{
    backend_ref_ops.rms_norm(backend, args);
    round_rows(args->out, 0, args->out.n_cols);
    if (args->sum.data) round_rows(args->sum, 0, args->sum.n_cols);
}

static void naive_linear(struct backend *backend, const struct linear_args *args)
{
    bool is_logits = args->weight.n_out == args->out.n_cols && args->weight.data == backend->state;
    backend_ref_ops.linear(backend, args);
    if (!is_logits) round_rows(args->out, 0, args->out.n_cols);
}

static void naive_rope(struct backend *backend, const struct rope_args *args)
{
    backend_ref_ops.rope(backend, args);
    round_rows(args->x, args->col_begin, args->n_heads * args->head_dim);
}

static void naive_attend(struct backend *backend, const struct attend_args *args)
{
    backend_ref_ops.attend(backend, args);
    round_rows(args->out, 0, args->out.n_cols);
}

static void naive_gated_act(struct backend *backend, const struct gated_act_args *args)
{
    backend_ref_ops.gated_act(backend, args);
    round_rows(args->out, 0, args->out.n_cols);
}

/* Logits are not rounded: the head's weights are known to naive_linear by way of `state`, which ref
 * has no use for. Embeddings are bf16 as stored. */
static void make_naive(struct probe *probe, struct backend_ops *ops)
{
    *ops = backend_ref_ops;
    ops->rms_norm = naive_rms_norm;
    ops->linear = naive_linear;
    ops->rope = naive_rope;
    ops->attend = naive_attend;
    ops->gated_act = naive_gated_act;
    probe->backend.ops = ops;
    probe->backend.state = probe->model.weights.head.data;
}

/* ---- states ---- */

enum role { EXACT, NAIVE, SUBJECT, N_MODELS };

struct state {
    const struct golden_case *golden;
    int32_t *ids; /* [n] */
    int32_t n;
    float *logits[N_MODELS]; /* [n, n_vocab] */
};

struct forced {
    struct arena arena;
    struct probe probes[N_MODELS];
    struct backend_ops naive_ops;
    struct state states[CASES_MAX];
    int32_t n_states, n_decisions, n_wrong, n_close;
    double error[N_MODELS]; /* largest of a row, over the row's largest logit */
};

static bool is_masked(const struct forced *forced, const struct state *state, int32_t position)
{
    return state->ids[position] == forced->probes[EXACT].model.config.mask_id;
}

/* The first block that has masks; false: none. */
static bool find_block(const struct forced *forced, const struct state *state, int32_t *begin,
                       int32_t *end)
{
    const struct request *request = &state->golden->request;
    int32_t length = request->decode.block_length;
    if (length <= 0) length = state->n;
    for (*begin = request->n_prompt; *begin < state->n; *begin = *end) {
        *end = *begin + length < state->n ? *begin + length : state->n;
        for (int32_t i = *begin; i < *end; i++)
            if (is_masked(forced, state, i)) return true;
    }
    return false;
}

/* The most probable id but the mask's, how sure it is, and by how many logits. */
struct decision {
    int32_t id;
    double margin, probability;
};

static struct decision decide(const struct model_config *config, const float *logits)
{
    struct decision best = {.id = -1};
    double first = -INFINITY, second = -INFINITY, sum = 0;
    for (int32_t id = 0; id < config->n_vocab; id++) {
        double logit = logits[id];
        if (id == config->mask_id) continue;
        if (logit > first) {
            second = first;
            first = logit;
            best.id = id;
        } else if (logit > second) {
            second = logit;
        }
    }
    for (int32_t id = 0; id < config->n_vocab; id++)
        if (id != config->mask_id) sum += exp((double)logits[id] - first);
    best.margin = first - second;
    best.probability = 1 / sum;
    return best;
}

static void compare_row(struct forced *forced, const struct state *state, int32_t row,
                        const struct decision *exact)
{
    const struct model_config *config = &forced->probes[EXACT].model.config;
    size_t at = (size_t)row * (size_t)config->n_vocab;
    const float *truth = state->logits[EXACT] + at;
    double largest = 0;
    for (int32_t i = 0; i < config->n_vocab; i++)
        largest = fmax(largest, fabs((double)truth[i]));
    for (int m = NAIVE; m < N_MODELS; m++) {
        for (int32_t i = 0; i < config->n_vocab; i++) {
            double error = fabs((double)state->logits[m][at + (size_t)i] - (double)truth[i]);
            forced->error[m] = fmax(forced->error[m], isnan(error) ? INFINITY : error / largest);
        }
    }
    if (!(exact->margin > MARGIN)) {
        forced->n_close++;
        return;
    }
    forced->n_decisions++;
    forced->n_wrong += decide(config, state->logits[SUBJECT] + at).id != exact->id;
}

/* Compares the active block's masked rows and commits the surest of them. False: none is left. */
static bool advance(struct forced *forced, struct state *state)
{
    const struct model_config *config = &forced->probes[EXACT].model.config;
    int32_t begin, end, chosen = -1;
    struct decision surest = {.id = -1};
    if (!find_block(forced, state, &begin, &end)) return false;
    for (int32_t i = begin; i < end; i++) {
        int32_t row = i >= config->shift ? i - config->shift : 0;
        if (!is_masked(forced, state, i)) continue;
        struct decision exact =
            decide(config, state->logits[EXACT] + (size_t)row * (size_t)config->n_vocab);
        compare_row(forced, state, row, &exact);
        if (chosen >= 0 && !(exact.probability > surest.probability)) continue;
        chosen = i;
        surest = exact;
    }
    state->ids[chosen] = surest.id;
    return true;
}

/* The logits of all states, by every model. */
static bool look(struct forced *forced, struct error *err)
{
    for (int m = 0; m < N_MODELS; m++) {
        struct probe_canvas canvases[CASES_MAX];
        for (int32_t i = 0; i < forced->n_states; i++) {
            const struct state *state = &forced->states[i];
            canvases[i] = (struct probe_canvas){state->ids, state->n, state->logits[m]};
        }
        if (!probe_logits(&forced->probes[m], canvases, forced->n_states, err)) return false;
    }
    return true;
}

/* ---- a folder ---- */

/* Cases that a decode from left to right can start from: no guidance, no holes in the prompt. */
static void add_states(struct forced *forced, const struct golden_case *cases, int32_t n_cases)
{
    const struct model_config *config = &forced->probes[EXACT].model.config;
    int32_t n_rows = 0;
    for (int32_t c = 0; c < n_cases && forced->n_states < CASES_MAX; c++) {
        const struct request *request = &cases[c].request;
        int32_t n = request->n_prompt + request->decode.gen_length;
        if (request->decode.gen_length == 0 || n_rows + n > PROBE_ROWS_MAX) continue;
        struct state *state = &forced->states[forced->n_states++];
        *state = (struct state){.golden = &cases[c], .n = n};
        state->ids = arena_push(&forced->arena, (size_t)n, sizeof *state->ids);
        for (int32_t i = 0; i < n; i++)
            state->ids[i] = i < request->n_prompt ? request->prompt_ids[i] : config->mask_id;
        for (int m = 0; m < N_MODELS; m++)
            state->logits[m] = arena_push(&forced->arena, (size_t)n * (size_t)config->n_vocab,
                                          sizeof *state->logits[m]);
        n_rows += n;
    }
}

static bool open_probes(struct forced *forced, const char *folder, const char *subject,
                        struct error *err)
{
    const char *const backends[N_MODELS] = {"cpu", "ref", subject};
    for (int m = 0; m < N_MODELS; m++)
        if (!probe_open(&forced->probes[m], folder, backends[m], &(struct backend_limits){0},
                        &forced->arena, err))
            return false;
    make_naive(&forced->probes[NAIVE], &forced->naive_ops);
    return true;
}

static bool walk(struct forced *forced, const char *folder, const char *subject, struct error *err)
{
    char path[4096];
    json_t *root = NULL;
    struct golden_case *cases;
    int32_t n_cases;
    snprintf(path, sizeof path, "%s/golden.json", folder);
    if (!open_probes(forced, folder, subject, err)) return false;
    if (!cases_read(path, &forced->arena, &root, &cases, &n_cases, err)) return false;
    add_states(forced, cases, n_cases);
    bool ok = true, goes_on = true;
    for (int32_t step = 0; step < STEPS_MAX && ok && goes_on; step++) {
        ok = look(forced, err);
        goes_on = false;
        for (int32_t i = 0; i < forced->n_states && ok; i++)
            goes_on = advance(forced, &forced->states[i]) || goes_on;
    }
    json_decref(root);
    return ok;
}

static int32_t n_tests, n_failed;

static void report(bool ok, const char *folder, const char *what)
{
    const char *name = strrchr(folder, '/');
    n_tests++;
    n_failed += !ok;
    printf("%s %d - %s: %s\n", ok ? "ok" : "not ok", n_tests, name ? name + 1 : folder, what);
    fflush(stdout);
}

/* Returns the decisions that were compared. */
static int32_t check_folder(const char *folder, const char *subject)
{
    static struct forced forced;
    struct error err = {0};
    char what[256];
    forced = (struct forced){0};
    if (!arena_create(&forced.arena, (size_t)4 << 30, NULL)) exit(69);
    bool ok = walk(&forced, folder, subject, &err);
    if (ok) {
        snprintf(what, sizeof what, "logits are off by %.2e, naive ones by %.2e",
                 forced.error[SUBJECT], forced.error[NAIVE]);
        report(forced.error[SUBJECT] <= 2 * forced.error[NAIVE], folder, what);
        snprintf(what, sizeof what, "%d of %d clear decisions are equal (%d are close)",
                 forced.n_decisions - forced.n_wrong, forced.n_decisions, forced.n_close);
        report(forced.n_wrong == 0, folder, what);
    } else {
        report(false, folder, err.message);
    }
    for (int m = 0; m < N_MODELS; m++) {
        if (m == NAIVE) forced.probes[m].backend.state = NULL;
        probe_close(&forced.probes[m]);
    }
    arena_destroy(&forced.arena);
    return forced.n_decisions;
}

int main(int argc, char **argv)
{
    struct backend backend = {0};
    struct error err = {0};
    int32_t n_decisions = 0;
    char what[64];
    if (argc < 3) {
        fprintf(stderr, "usage: forced BACKEND FOLDER...\n");
        return 64;
    }
    if (!backend_open(&backend, argv[1], &(struct backend_limits){0}, &err)) {
        printf("1..0 # SKIP %s\n", err.message);
        return 0;
    }
    backend_close(&backend);
    for (int i = 2; i < argc; i++)
        n_decisions += check_folder(argv[i], argv[1]);
    snprintf(what, sizeof what, "%d clear decisions are enough", n_decisions);
    report(n_decisions >= N_DECISIONS, "all", what);
    printf("1..%d\n", n_tests);
    return n_failed > 0;
}
