/* Each op at the sizes of one layer: of a model with a hidden size of 768 on processors, of
 * LLaDA-8B on GPUs. Work counts what the formulas need, once. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "check_ops.h"

/* Typed ops behind one signature. */
#define ISSUE(op)                                                                                  \
    static void issue_##op(struct backend *backend, const void *args)                              \
    {                                                                                              \
        backend_##op(backend, args);                                                               \
    }

ISSUE(embed)
ISSUE(rms_norm)
ISSUE(linear)
ISSUE(rope)
ISSUE(store_kv)
ISSUE(attend)
ISSUE(gated_act)
ISSUE(gather_rows)
ISSUE(select_kv)
ISSUE(score)
ISSUE(commit)

#define N_ROW_COUNTS 3

struct bench_model {
    int32_t row_counts[N_ROW_COUNTS], hidden, heads, head_dim, ffn, vocab;
    int32_t n_cached; /* of a window step's sequence; its fresh rows are 32 */
};

static const struct bench_model small = {{64, 128, 512}, 768, 12, 64, 2048, 32000, 256};
static const struct bench_model large = {{512, 4096, 8192}, 4096, 32, 128, 12288, 126464, 608};

static const struct bench_model *model_of(const struct check *check)
{
    return check->backend.activation == DTYPE_BF16 ? &large : &small;
}

/* Bytes of n rows of `n_cols` numbers. */
static double row_bytes(const struct check *check, int32_t n, double n_cols)
{
    return n * n_cols * (double)check_row_bytes(check);
}

/* Sequences of n_each rows that all see each other and n_cached more; the later half of all rows is
 * picked. */
struct bench_batch {
    int32_t n_rows, n_each, n_cached;
    struct batch batch;
};

static const struct batch *make_batch(struct check *check, struct bench_batch *made)
{
    int32_t n = made->n_rows, n_sequences = n / made->n_each;
    int32_t *index = check_host(check, (size_t)n, sizeof *index);
    int32_t *visible_end = check_host(check, (size_t)n, sizeof *visible_end);
    struct sequence *sequences = check_host(check, (size_t)n_sequences, sizeof *sequences);
    assert(n % made->n_each == 0);
    for (int32_t r = 0; r < n; r++) {
        index[r] = r;
        visible_end[r] = r - r % made->n_each + made->n_each;
    }
    for (int32_t i = 0; i < n_sequences; i++)
        sequences[i] =
            (struct sequence){.row_begin = i * made->n_each,
                              .n_rows = made->n_each,
                              .pick_begin = i * made->n_each / 2,
                              .n_picks = (i + 1) * made->n_each / 2 - i * made->n_each / 2,
                              .cache_begin = (int64_t)i * made->n_cached,
                              .n_cached = made->n_cached};
    int32_t *picked = check_host(check, (size_t)n, sizeof *picked);
    for (int32_t i = 0; i < n / 2; i++)
        picked[i] = 2 * i;
    made->batch = (struct batch){.n_rows = n,
                                 .canvas_index = index,
                                 .position = index,
                                 .visible_end = visible_end,
                                 .n_sequences = n_sequences,
                                 .sequences = sequences,
                                 .n_picks = n / 2,
                                 .picked_row = picked};
    return &made->batch;
}

static struct matrix make_input(struct check *check, int32_t n_rows, int32_t n_cols)
{
    enum { N_DRAWN = 1 << 16 }; /* numbers that are drawn and then repeated */
    size_t n = (size_t)n_rows * (size_t)n_cols;
    const float *drawn = check_normals(check, 1, N_DRAWN, 1);
    float *rows = check_host(check, n, sizeof *rows);
    for (size_t i = 0; i < n; i++)
        rows[i] = drawn[i % (N_DRAWN - 1)];
    return check_input(check, n_rows, n_cols, rows);
}

static struct matrix make_vector(struct check *check, int32_t n_rows, int32_t n_cols)
{
    return check_vector(check, n_rows, n_cols, check_normals(check, n_rows, n_cols, 1));
}

static struct weight make_weight(struct check *check, int32_t n_out, int32_t n_in, enum dtype dtype)
{
    float *values = check_host(check, (size_t)n_out * (size_t)n_in, sizeof *values);
    struct weight shape = {.n_out = n_out, .n_in = n_in, .dtype = dtype};
    return check_weight(check, shape, values, false);
}

static const char gflops[] = "GFLOP/s", gbytes[] = "GB/s";

void bench_embed(struct check *check)
{
    const struct bench_model *model = model_of(check);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = model->row_counts[i];
        struct bench_batch made = {n, n, 0, {0}};
        check_reset(check);
        const struct batch *batch = make_batch(check, &made);
        struct embed_args args = {.out = check_output(check, n, model->hidden),
                                  .table = make_input(check, n, model->hidden),
                                  .canvas = check_cells(check, n, batch->canvas_index)};
        double work = row_bytes(check, n, 2.0 * model->hidden);
        check_time(check, &(struct check_bench){issue_embed, &args, batch, work, gbytes},
                   "embed %d x %d f32", n, model->hidden);
    }
}

void bench_rms_norm(struct check *check)
{
    const struct bench_model *model = model_of(check);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = model->row_counts[i];
        check_reset(check);
        struct rms_norm_args args = {.out = check_output(check, n, model->hidden),
                                     .sum = check_output(check, n, model->hidden),
                                     .x = make_input(check, n, model->hidden),
                                     .add = make_input(check, n, model->hidden),
                                     .weight = make_vector(check, 1, model->hidden),
                                     .epsilon = 1e-5f};
        double work = row_bytes(check, n, 4.0 * model->hidden);
        check_time(check, &(struct check_bench){issue_rms_norm, &args, NULL, work, gbytes},
                   "rms_norm %d x %d with add and sum", n, model->hidden);
    }
}

static void time_linear(struct check *check, int32_t n, int32_t n_out, int32_t n_in,
                        enum dtype dtype)
{
    static const char *const names[] = {"f32", "bf16", "f16"};
    check_reset(check);
    struct linear_args args = {.out = check_output(check, n, n_out),
                               .x = make_input(check, n, n_in),
                               .weight = make_weight(check, n_out, n_in, dtype)};
    double work = 2.0 * n * n_out * n_in;
    check_time(check, &(struct check_bench){issue_linear, &args, NULL, work, gflops},
               "linear %d rows, %d x %d %s", n, n_out, n_in, names[dtype]);
}

void bench_linear(struct check *check)
{
    const struct bench_model *model = model_of(check);
    const int32_t shapes[][2] = {{3 * model->hidden, model->hidden},
                                 {model->hidden, model->hidden},
                                 {2 * model->ffn, model->hidden},
                                 {model->hidden, model->ffn}};
    time_linear(check, 1, model->hidden, model->hidden, DTYPE_BF16);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        for (int s = 0; s < 4; s++)
            time_linear(check, model->row_counts[i], shapes[s][0], shapes[s][1], DTYPE_BF16);
    }
    time_linear(check, 512, model->hidden, model->hidden, DTYPE_F32);
    time_linear(check, 512, model->hidden, model->hidden, DTYPE_F16);
    time_linear(check, 512, 3 * 128, 128, DTYPE_BF16);
}

void bench_rope(struct check *check)
{
    const struct bench_model *model = model_of(check);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = model->row_counts[i];
        struct bench_batch made = {n, n, 0, {0}};
        check_reset(check);
        struct rope_args args = {.x = make_input(check, n, 3 * model->hidden),
                                 .table = make_vector(check, n, model->head_dim),
                                 .n_heads = 2 * model->heads,
                                 .head_dim = model->head_dim};
        const struct batch *batch = make_batch(check, &made);
        double work = row_bytes(check, n, 4.0 * model->hidden);
        check_time(check, &(struct check_bench){issue_rope, &args, batch, work, gbytes},
                   "rope %d rows, %d heads of %d", n, 2 * model->heads, model->head_dim);
    }
}

/* Fresh rows of q, k, v and a cache. */
static void make_heads(struct check *check, int32_t n, int32_t n_cached, struct kv_rows *fresh,
                       struct kv_cache *cache)
{
    const struct bench_model *model = model_of(check);
    size_t n_slots = (size_t)(2 * n > n_cached ? 2 * n : n_cached);
    size_t n_bytes = n_slots * (size_t)model->hidden * check_row_bytes(check);
    assert(n > 0);
    *fresh = (struct kv_rows){.x = make_input(check, n, 3 * model->hidden),
                              .key_col = model->hidden,
                              .value_col = 2 * model->hidden,
                              .n_kv_heads = model->heads,
                              .head_dim = model->head_dim};
    *cache =
        (struct kv_cache){check_take(check, n_bytes), check_take(check, n_bytes), (int64_t)n_slots};
}

void bench_store_kv(struct check *check)
{
    const struct bench_model *model = model_of(check);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = model->row_counts[i];
        struct bench_batch made = {n, n, 0, {0}};
        check_reset(check);
        struct store_row *rows = check_host(check, (size_t)n, sizeof *rows);
        for (int32_t r = 0; r < n; r++)
            rows[r] = (struct store_row){r, r, n, 0};
        struct store_kv_args args = {.rows = rows, .n = n};
        make_heads(check, n, 0, &args.fresh, &args.cache);
        const struct batch *batch = make_batch(check, &made);
        double work = row_bytes(check, n, 4.0 * model->hidden);
        check_time(check, &(struct check_bench){issue_store_kv, &args, batch, work, gbytes},
                   "store_kv %d rows, %d heads of %d", n, model->heads, model->head_dim);
    }
}

static void time_attend(struct check *check, struct bench_batch made)
{
    const struct bench_model *model = model_of(check);
    int32_t n = made.n_rows;
    check_reset(check);
    struct attend_args args = {.out = check_output(check, n, model->hidden),
                               .n_heads = model->heads,
                               .scale = (float)(1 / sqrt(model->head_dim))};
    make_heads(check, n, n / made.n_each * made.n_cached, &args.fresh, &args.cache);
    args.query = args.fresh.x;
    const struct batch *batch = make_batch(check, &made);
    double keys = made.n_each + made.n_cached, flops = 4.0 * n * keys * model->hidden;
    double bytes = row_bytes(check, n / made.n_each, 2 * keys * model->hidden);
    bool reads = made.n_cached > 0; /* window steps are bound by reading keys and values */
    check_time(check,
               &(struct check_bench){issue_attend, &args, batch, reads ? bytes : flops,
                                     reads ? gbytes : gflops},
               "attend %d rows, sequences of %d + %d cached", n, made.n_each, made.n_cached);
}

void bench_attend(struct check *check)
{
    const struct bench_model *model = model_of(check);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = model->row_counts[i];
        time_attend(check, (struct bench_batch){n, n, 0, {0}});
        time_attend(check, (struct bench_batch){n, n < 512 ? n : 512, 0, {0}});
        if (n <= 4096) time_attend(check, (struct bench_batch){n, 32, model->n_cached, {0}});
    }
    /* Few requests with many keys and many of them: what cutting over keys gains, and costs. */
    time_attend(check, (struct bench_batch){32, 32, 8 * model->n_cached, {0}});
    time_attend(check, (struct bench_batch){512, 32, 8 * model->n_cached, {0}});
}

void bench_gated_act(struct check *check)
{
    const struct bench_model *model = model_of(check);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = model->row_counts[i];
        check_reset(check);
        struct gated_act_args args = {.out = check_output(check, n, model->ffn),
                                      .x = make_input(check, n, 2 * model->ffn)};
        double work = row_bytes(check, n, 3.0 * model->ffn);
        check_time(check, &(struct check_bench){issue_gated_act, &args, NULL, work, gbytes},
                   "gated_act %d x %d", n, model->ffn);
    }
}

void bench_gather_rows(struct check *check)
{
    const struct bench_model *model = model_of(check);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = model->row_counts[i];
        struct bench_batch made = {n, n, 0, {0}};
        check_reset(check);
        struct gather_rows_args args = {.out = check_output(check, n / 2, model->hidden),
                                        .x = make_input(check, n, model->hidden)};
        const struct batch *batch = make_batch(check, &made);
        double work = row_bytes(check, n, model->hidden);
        check_time(check, &(struct check_bench){issue_gather_rows, &args, batch, work, gbytes},
                   "gather_rows %d x %d", n / 2, model->hidden);
    }
}

void bench_select_kv(struct check *check)
{
    const struct bench_model *model = model_of(check);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = model->row_counts[i], n_window = 32;
        struct bench_batch made = {n, n, 0, {0}};
        check_reset(check);
        struct select_sequence select = {.window_begin = n - n_window,
                                         .window_end = n,
                                         .n_keep = (n - n_window) / 2,
                                         .target_begin = 0};
        struct select_kv_args args = {
            .n_heads = model->heads, .sequences = &select, .n = 1, .scale = 1};
        make_heads(check, n, 0, &args.fresh, &args.cache);
        args.query = args.fresh.x;
        const struct batch *batch = make_batch(check, &made);
        double work = 2.0 * n * model->hidden;
        check_time(check, &(struct check_bench){issue_select_kv, &args, batch, work, gflops},
                   "select_kv %d rows, %d heads of %d", n, model->heads, model->head_dim);
    }
}

static void time_score(struct check *check, int32_t n, const struct score_row *settings,
                       const char *what)
{
    const struct bench_model *model = model_of(check);
    struct score_row *rows;
    check_reset(check);
    rows = check_host(check, (size_t)n, sizeof *rows);
    for (int32_t r = 0; r < n; r++) {
        rows[r] = *settings;
        rows[r].position = (uint32_t)r;
    }
    struct score_args args = {.picks = check_take(check, (size_t)n * sizeof(struct pick)),
                              .hidden = make_input(check, n, model->hidden),
                              .head = make_weight(check, model->vocab, model->hidden, DTYPE_BF16),
                              .rows = rows,
                              .n = n,
                              .n_vocab = model->vocab,
                              .mask_id = model->vocab - 1};
    double work = 2.0 * n * model->vocab * model->hidden;
    check_time(check, &(struct check_bench){issue_score, &args, NULL, work, gflops},
               "score %d x %d, vocabulary %d, %s", n, model->hidden, model->vocab, what);
}

void bench_score(struct check *check)
{
    const struct bench_model *model = model_of(check);
    const struct score_row greedy = {.uncond_row = -1, .top_p = 1};
    const struct score_row sampled = {.uncond_row = -1, .top_p = 1, .temperature = 1};
    const struct score_row nucleus = {
        .uncond_row = -1, .top_p = 0.95, .temperature = 0.2, .confidence = CONFIDENCE_ENTROPY};
    time_score(check, 1, &greedy, "greedy");
    time_score(check, 32, &greedy, "greedy");
    time_score(check, model->row_counts[0], &greedy, "greedy");
    time_score(check, 32, &sampled, "sampled");
    time_score(check, 32, &nucleus, "top-p, entropy");
}

void bench_commit(struct check *check)
{
    enum { N = 512, N_EACH = 32, MASK = 7 }; /* ids are the mask, so that calls find it again */
    struct commit_request requests[N / N_EACH];
    struct pick *picks = NULL;
    check_reset(check);
    int32_t *cell = check_host(check, N, sizeof *cell), *twin = check_host(check, N, sizeof *twin);
    int32_t *before = check_host(check, N, sizeof *before);
    uint32_t *position = check_host(check, N, sizeof *position);
    struct pick *found = check_host(check, N, sizeof *found);
    for (int32_t i = 0; i < N; i++) {
        cell[i] = i;
        twin[i] = -1;
        position[i] = (uint32_t)i;
        before[i] = MASK;
        found[i] = (struct pick){.id = MASK, .confidence = check_uniform(check)};
    }
    for (int32_t i = 0; i < N / N_EACH; i++)
        requests[i] = (struct commit_request){
            .pick_begin = i * N_EACH, .n_picks = N_EACH, .rule = COMMIT_TOP, .n_commit = 2};
    picks = check_take(check, N * sizeof *picks);
    struct matrix raw = {picks, N, (int32_t)sizeof *picks / 4, DTYPE_I32};
    backend_upload(&check->backend, raw, found);
    struct commit_args args = {.canvas = check_cells(check, N, before),
                               .picks = picks,
                               .cell = cell,
                               .twin_cell = twin,
                               .position = position,
                               .requests = requests,
                               .n = N / N_EACH,
                               .mask_id = MASK};
    double work = (double)N * (double)sizeof *picks;
    check_time(check, &(struct check_bench){issue_commit, &args, NULL, work, gbytes},
               "commit %d picks of %d requests", N, N / N_EACH);
}
