/* Each op at a few sizes: those of one layer of the shipped kind of model (small) and of a hidden
 * size of 768 (dense), for 64 and 512 rows. Work counts what the formulas need, once. */
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

static const int32_t row_counts[] = {64, 512};

enum { N_ROW_COUNTS = 2, HIDDEN = 768, HEADS = 12, HEAD_DIM = 64, FFN = 2048, VOCAB = 32000 };

/* One sequence of n rows that all see each other; the later half is picked. */
struct bench_batch {
    struct batch batch;
    struct sequence sequence;
};

static const struct batch *make_batch(struct check *check, struct bench_batch *made, int32_t n)
{
    int32_t *index = check_host(check, (size_t)n, sizeof *index);
    int32_t *visible_end = check_host(check, (size_t)n, sizeof *visible_end);
    for (int32_t r = 0; r < n; r++) {
        index[r] = r;
        visible_end[r] = n;
    }
    made->sequence = (struct sequence){.n_rows = n, .n_picks = n / 2, .cache_begin = -1};
    made->batch = (struct batch){.n_rows = n,
                                 .canvas_index = index,
                                 .position = index,
                                 .visible_end = visible_end,
                                 .n_sequences = 1,
                                 .sequences = &made->sequence,
                                 .n_picks = n / 2,
                                 .picked_row = index + n / 2};
    return &made->batch;
}

static struct matrix make_input(struct check *check, int32_t n_rows, int32_t n_cols)
{
    return check_input(check, n_rows, n_cols, check_normals(check, n_rows, n_cols, 1));
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
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = row_counts[i];
        struct bench_batch made;
        check_reset(check);
        const struct batch *batch = make_batch(check, &made, n);
        struct embed_args args = {.out = check_output(check, n, HIDDEN),
                                  .table = make_input(check, n, HIDDEN),
                                  .canvas = check_cells(check, n, batch->canvas_index)};
        double work = 8.0 * n * HIDDEN;
        check_time(check, &(struct check_bench){issue_embed, &args, batch, work, gbytes},
                   "embed %d x %d f32", n, HIDDEN);
    }
}

void bench_rms_norm(struct check *check)
{
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = row_counts[i];
        check_reset(check);
        struct rms_norm_args args = {.out = check_output(check, n, HIDDEN),
                                     .sum = check_output(check, n, HIDDEN),
                                     .x = make_input(check, n, HIDDEN),
                                     .add = make_input(check, n, HIDDEN),
                                     .weight = make_input(check, 1, HIDDEN),
                                     .epsilon = 1e-5f};
        double work = 16.0 * n * HIDDEN;
        check_time(check, &(struct check_bench){issue_rms_norm, &args, NULL, work, gbytes},
                   "rms_norm %d x %d with add and sum", n, HIDDEN);
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
    static const int32_t shapes[][2] = {{HIDDEN, HIDDEN}, {2 * FFN, HIDDEN}, {HIDDEN, FFN}};
    time_linear(check, 1, HIDDEN, HIDDEN, DTYPE_BF16);
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        for (int s = 0; s < 3; s++)
            time_linear(check, row_counts[i], shapes[s][0], shapes[s][1], DTYPE_BF16);
    }
    time_linear(check, 512, HIDDEN, HIDDEN, DTYPE_F32);
    time_linear(check, 512, HIDDEN, HIDDEN, DTYPE_F16);
    time_linear(check, 512, 3 * 128, 128, DTYPE_BF16);
}

void bench_rope(struct check *check)
{
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = row_counts[i];
        struct bench_batch made;
        check_reset(check);
        struct rope_args args = {.x = make_input(check, n, 3 * HIDDEN),
                                 .table = make_input(check, n, HEAD_DIM),
                                 .n_heads = 2 * HEADS,
                                 .head_dim = HEAD_DIM};
        const struct batch *batch = make_batch(check, &made, n);
        double work = 16.0 * n * HIDDEN;
        check_time(check, &(struct check_bench){issue_rope, &args, batch, work, gbytes},
                   "rope %d rows, %d heads of %d", n, 2 * HEADS, HEAD_DIM);
    }
}

/* Fresh rows of q, k, v and an empty cache of as many slots. */
static void make_heads(struct check *check, int32_t n, struct kv_rows *fresh,
                       struct kv_cache *cache)
{
    size_t n_bytes = 2 * (size_t)n * HIDDEN * sizeof(float);
    assert(n > 0);
    *fresh = (struct kv_rows){.x = make_input(check, n, 3 * HIDDEN),
                              .key_col = HIDDEN,
                              .value_col = 2 * HIDDEN,
                              .n_kv_heads = HEADS,
                              .head_dim = HEAD_DIM};
    *cache = (struct kv_cache){check_take(check, n_bytes), check_take(check, n_bytes), 2 * n};
}

void bench_store_kv(struct check *check)
{
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = row_counts[i];
        struct bench_batch made;
        check_reset(check);
        struct store_row *rows = check_host(check, (size_t)n, sizeof *rows);
        for (int32_t r = 0; r < n; r++)
            rows[r] = (struct store_row){r, r, n, 0};
        struct store_kv_args args = {.rows = rows, .n = n};
        make_heads(check, n, &args.fresh, &args.cache);
        const struct batch *batch = make_batch(check, &made, n);
        double work = 16.0 * n * HIDDEN;
        check_time(check, &(struct check_bench){issue_store_kv, &args, batch, work, gbytes},
                   "store_kv %d rows, %d heads of %d", n, HEADS, HEAD_DIM);
    }
}

void bench_attend(struct check *check)
{
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = row_counts[i];
        struct bench_batch made;
        check_reset(check);
        struct attend_args args = {.out = check_output(check, n, HIDDEN),
                                   .n_heads = HEADS,
                                   .scale = (float)(1 / sqrt(HEAD_DIM))};
        make_heads(check, n, &args.fresh, &args.cache);
        args.query = args.fresh.x;
        const struct batch *batch = make_batch(check, &made, n);
        double work = 4.0 * n * n * HIDDEN;
        check_time(check, &(struct check_bench){issue_attend, &args, batch, work, gflops},
                   "attend %d rows, %d heads of %d", n, HEADS, HEAD_DIM);
    }
}

void bench_gated_act(struct check *check)
{
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = row_counts[i];
        check_reset(check);
        struct gated_act_args args = {.out = check_output(check, n, FFN),
                                      .x = make_input(check, n, 2 * FFN)};
        double work = 12.0 * n * FFN;
        check_time(check, &(struct check_bench){issue_gated_act, &args, NULL, work, gbytes},
                   "gated_act %d x %d", n, FFN);
    }
}

void bench_gather_rows(struct check *check)
{
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = row_counts[i];
        struct bench_batch made;
        check_reset(check);
        struct gather_rows_args args = {.out = check_output(check, n / 2, HIDDEN),
                                        .x = make_input(check, n, HIDDEN)};
        const struct batch *batch = make_batch(check, &made, n);
        double work = 4.0 * n * HIDDEN;
        check_time(check, &(struct check_bench){issue_gather_rows, &args, batch, work, gbytes},
                   "gather_rows %d x %d", n / 2, HIDDEN);
    }
}

void bench_select_kv(struct check *check)
{
    for (int i = 0; i < N_ROW_COUNTS; i++) {
        int32_t n = row_counts[i], n_window = 32;
        struct bench_batch made;
        check_reset(check);
        struct select_sequence select = {.window_begin = n - n_window,
                                         .window_end = n,
                                         .n_keep = (n - n_window) / 2,
                                         .target_begin = 0};
        struct select_kv_args args = {.n_heads = HEADS, .sequences = &select, .n = 1, .scale = 1};
        make_heads(check, n, &args.fresh, &args.cache);
        args.query = args.fresh.x;
        const struct batch *batch = make_batch(check, &made, n);
        double work = 2.0 * n * HIDDEN;
        check_time(check, &(struct check_bench){issue_select_kv, &args, batch, work, gflops},
                   "select_kv %d rows, %d heads of %d", n, HEADS, HEAD_DIM);
    }
}

static void time_score(struct check *check, int32_t n, const struct score_row *settings,
                       const char *what)
{
    struct score_row *rows;
    check_reset(check);
    rows = check_host(check, (size_t)n, sizeof *rows);
    for (int32_t r = 0; r < n; r++) {
        rows[r] = *settings;
        rows[r].position = (uint32_t)r;
    }
    struct score_args args = {.picks = check_take(check, (size_t)n * sizeof(struct pick)),
                              .hidden = make_input(check, n, HIDDEN),
                              .head = make_weight(check, VOCAB, HIDDEN, DTYPE_BF16),
                              .rows = rows,
                              .n = n,
                              .n_vocab = VOCAB,
                              .mask_id = VOCAB - 1};
    double work = 2.0 * n * VOCAB * HIDDEN;
    check_time(check, &(struct check_bench){issue_score, &args, NULL, work, gflops},
               "score %d x %d, vocabulary %d, %s", n, HIDDEN, VOCAB, what);
}

void bench_score(struct check *check)
{
    const struct score_row greedy = {.uncond_row = -1, .top_p = 1};
    const struct score_row sampled = {.uncond_row = -1, .top_p = 1, .temperature = 1};
    const struct score_row nucleus = {
        .uncond_row = -1, .top_p = 0.95, .temperature = 0.2, .confidence = CONFIDENCE_ENTROPY};
    time_score(check, 1, &greedy, "greedy");
    time_score(check, 32, &greedy, "greedy");
    time_score(check, 32, &sampled, "sampled");
    time_score(check, 32, &nucleus, "top-p, entropy");
}

void bench_commit(struct check *check)
{
    enum { N = 512, N_EACH = 32 };
    struct commit_request requests[N / N_EACH];
    struct pick *picks = NULL;
    check_reset(check);
    int32_t *cell = check_host(check, N, sizeof *cell), *twin = check_host(check, N, sizeof *twin);
    uint32_t *position = check_host(check, N, sizeof *position);
    struct pick *found = check_host(check, N, sizeof *found);
    for (int32_t i = 0; i < N; i++) {
        cell[i] = i;
        twin[i] = -1;
        position[i] = (uint32_t)i;
        found[i] = (struct pick){.id = i, .confidence = check_uniform(check)};
    }
    for (int32_t i = 0; i < N / N_EACH; i++)
        requests[i] = (struct commit_request){
            .pick_begin = i * N_EACH, .n_picks = N_EACH, .rule = COMMIT_TOP, .n_commit = 2};
    picks = check_take(check, N * sizeof *picks);
    struct matrix raw = {picks, N, (int32_t)sizeof *picks / 4, DTYPE_I32};
    backend_upload(&check->backend, raw, found);
    struct commit_args args = {.canvas = check_cells(check, N, cell),
                               .picks = picks,
                               .cell = cell,
                               .twin_cell = twin,
                               .position = position,
                               .requests = requests,
                               .n = N / N_EACH};
    double work = (double)N * (double)sizeof *picks;
    check_time(check, &(struct check_bench){issue_commit, &args, NULL, work, gbytes},
               "commit %d picks of %d requests", N, N / N_EACH);
}
