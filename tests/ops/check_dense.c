/* The ops that look at one row at a time: embed, rms_norm, linear, rope, gated_act, gather_rows. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check_ops.h"

#define COUNT_OF(array) ((int32_t)(sizeof(array) / sizeof(array)[0]))

/* Rows of a list, out of a matrix on the host. */
static float *take_rows(struct check *check, const float *source, int32_t n_cols,
                        const int32_t *rows, int32_t n)
{
    float *taken = check_host(check, (size_t)n * (size_t)n_cols, sizeof *taken);
    for (int32_t i = 0; i < n; i++)
        memcpy(taken + (ptrdiff_t)i * n_cols, source + (ptrdiff_t)rows[i] * n_cols,
               (size_t)n_cols * sizeof *taken);
    return taken;
}

/* Downloads a result's rows to their places in `out`. */
static void give_rows(struct check *check, struct matrix result, const int32_t *rows, float *out)
{
    size_t n_cols = (size_t)result.n_cols;
    float *found = check_host(check, (size_t)result.n_rows * n_cols, sizeof *found);
    check_download(check, found, result);
    for (int32_t i = 0; i < result.n_rows; i++)
        memcpy(out + (size_t)rows[i] * n_cols, found + (size_t)i * n_cols, n_cols * sizeof *found);
}

static double largest(const double *values, int32_t n)
{
    double max = 0;
    for (int32_t i = 0; i < n; i++)
        max = fmax(max, fabs(values[i]));
    return max;
}

/* ---- linear ---- */

struct linear_case {
    int32_t n_rows, n_out, n_in, out_begin;
    enum dtype dtype;
    bool has_bias;
    const float *x, *w, *bias; /* [n_rows, n_in], [n_out, n_in], [n_out] */
    struct weight weight;
    struct matrix bias_matrix;
};

static void run_linear(struct check *check, const void *context, const int32_t *rows, int32_t n,
                       void *out)
{
    const struct linear_case *c = context;
    struct check_mark mark = check_mark(check);
    const float *x = take_rows(check, c->x, c->n_in, rows, n);
    struct linear_args args = {.out = check_output(check, n, c->n_out - c->out_begin),
                               .x = check_input(check, n, c->n_in, x),
                               .weight = c->weight,
                               .bias = c->bias_matrix,
                               .out_begin = c->out_begin};
    check_start(check, NULL);
    backend_linear(&check->backend, &args);
    check_finish(check);
    give_rows(check, args.out, rows, out);
    check_rewind(check, mark);
}

/* Sum of |terms| goes to `size`. */
static double linear_element(const struct linear_case *c, int32_t row, int32_t out, bool naive,
                             double *size)
{
    const float *x = c->x + (ptrdiff_t)row * c->n_in, *w = c->w + (ptrdiff_t)out * c->n_in;
    double sum = 0;
    *size = 0;
    for (int32_t k = 0; k < c->n_in; k++) {
        double term = check_keep(naive, (double)x[k] * (double)w[k]);
        sum = check_keep(naive, sum + term);
        *size += fabs(term);
    }
    if (!c->has_bias) return sum;
    *size += fabs((double)c->bias[out]);
    return check_keep(naive, sum + (double)c->bias[out]);
}

static void judge_linear(struct check *check, const struct linear_case *c, const float *found,
                         struct check_tally *tally)
{
    int32_t n_cols = c->n_out - c->out_begin;
    double *exact = check_host(check, (size_t)n_cols, sizeof *exact);
    double *naive = check_host(check, (size_t)n_cols, sizeof *naive);
    assert(n_cols > 0);
    for (int32_t r = 0; r < c->n_rows; r++) {
        struct check_row row = {.exact = exact, .naive = naive, .n = n_cols};
        for (int32_t j = 0; j < n_cols; j++) {
            double size;
            naive[j] = linear_element(c, r, c->out_begin + j, true, &size);
            exact[j] = linear_element(c, r, c->out_begin + j, false, &size);
            row.scale = fmax(row.scale, size);
        }
        check_tally_row(tally, found + (ptrdiff_t)r * n_cols, &row);
    }
}

static void linear_once(struct check *check, struct linear_case c, int32_t draw,
                        struct check_tally *tally)
{
    size_t n_weights = (size_t)c.n_out * (size_t)c.n_in;
    float *w, *found;
    check_reset(check);
    w = check_host(check, n_weights, sizeof *w);
    c.weight = check_weight(
        check, (struct weight){.n_out = c.n_out, .n_in = c.n_in, .dtype = c.dtype}, w, false);
    c.w = w;
    c.x = check_rows(check, c.n_rows, c.n_in, draw);
    c.bias = check_normals(check, 1, c.n_out, 1);
    if (c.has_bias) c.bias_matrix = check_vector(check, 1, c.n_out, c.bias);
    size_t n_found = (size_t)c.n_rows * (size_t)(c.n_out - c.out_begin);
    found = check_host(check, n_found, sizeof *found);
    struct check_units units = {run_linear, &c, c.n_rows, n_found * sizeof *found};
    check_draw(check, &units, found, "linear", draw);
    judge_linear(check, &c, found, tally);
}

static void linear_shape(struct check *check, struct linear_case c)
{
    static const char *const dtypes[] = {"f32", "bf16", "f16"};
    struct check_tally tally = {.dtype = check->backend.activation};
    char what[128];
    assert(c.out_begin < c.n_out);
    for (int32_t i = 0; tally.n < CHECK_TALLY_MIN || i == 0; i++)
        linear_once(check, c, i, &tally);
    snprintf(what, sizeof what, "linear %d x %d x %d %s%s, out_begin %d", c.n_rows, c.n_out, c.n_in,
             dtypes[c.dtype], c.has_bias ? " bias" : "", c.out_begin);
    check_tally_end(check, &tally, what);
}

void check_linear(struct check *check)
{
    static const int32_t rows[] = {1, 2, 7, 15, 16, 17, 33}, outs[] = {1, 15, 16, 17, 33, 64, 65};
    static const int32_t ins[] = {1, 3, 16, 31, 33, 64, 130};
    for (int32_t i = 0; i < COUNT_OF(rows) * COUNT_OF(outs) * COUNT_OF(ins); i++) {
        struct linear_case c = {.n_rows = rows[i % COUNT_OF(rows)],
                                .n_out = outs[i / COUNT_OF(rows) % COUNT_OF(outs)],
                                .n_in = ins[i / COUNT_OF(rows) / COUNT_OF(outs)],
                                .dtype = (enum dtype)(i % 3),
                                .has_bias = i % 2 == 0};
        if (i % 4 == 3) c.out_begin = c.n_out / 2;
        linear_shape(check, c);
    }
    for (int32_t dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++) { /* long sums, several panels */
        linear_shape(check,
                     (struct linear_case){
                         .n_rows = 5, .n_out = 130, .n_in = 1031, .dtype = (enum dtype)dtype});
        linear_shape(check, (struct linear_case){.n_rows = 70,
                                                 .n_out = 48,
                                                 .n_in = 520,
                                                 .dtype = (enum dtype)dtype,
                                                 .has_bias = true});
    }
}

/* ---- rms_norm ---- */

enum sum_place { SUM_ABSENT, SUM_APART, SUM_IN_PLACE, SUM_PLACE_COUNT };

struct norm_case {
    int32_t n_rows, n_cols;
    bool has_add;
    enum sum_place sum_place;
    float epsilon;
    const float *x, *add, *weight;
};

/* A unit's result is its row of out, then its row of sum (zeros when not asked for). */
static void run_rms_norm(struct check *check, const void *context, const int32_t *rows, int32_t n,
                         void *out)
{
    const struct norm_case *c = context;
    struct check_mark mark = check_mark(check);
    const float *x = take_rows(check, c->x, c->n_cols, rows, n);
    struct rms_norm_args args = {.out = check_output(check, n, c->n_cols),
                                 .x = check_input(check, n, c->n_cols, x),
                                 .weight = check_vector(check, 1, c->n_cols, c->weight),
                                 .epsilon = c->epsilon};
    if (c->has_add)
        args.add = check_input(check, n, c->n_cols, take_rows(check, c->add, c->n_cols, rows, n));
    if (c->sum_place == SUM_APART) args.sum = check_output(check, n, c->n_cols);
    if (c->sum_place == SUM_IN_PLACE) args.sum = args.x;
    check_start(check, NULL);
    backend_rms_norm(&check->backend, &args);
    check_finish(check);
    give_rows(check, args.out, rows, out);
    if (args.sum.data != NULL)
        give_rows(check, args.sum, rows, (float *)out + (ptrdiff_t)c->n_rows * c->n_cols);
    check_rewind(check, mark);
}

static double norm_sum(const struct norm_case *c, int32_t r, int32_t k)
{
    ptrdiff_t i = (ptrdiff_t)r * c->n_cols + k;
    return c->has_add ? (double)(c->x[i] + c->add[i]) : (double)c->x[i];
}

static void norm_row(const struct norm_case *c, int32_t r, bool naive, double *out)
{
    double squares = 0;
    assert(c->n_cols > 0);
    for (int32_t k = 0; k < c->n_cols; k++) {
        double square = check_keep(naive, norm_sum(c, r, k) * norm_sum(c, r, k));
        squares = check_keep(naive, squares + square);
    }
    double mean = check_keep(naive, squares / c->n_cols);
    double root = check_keep(naive, sqrt(check_keep(naive, mean + (double)c->epsilon)));
    for (int32_t k = 0; k < c->n_cols; k++) {
        double normal = check_keep(naive, norm_sum(c, r, k) / root);
        out[k] = check_keep(naive, normal * (double)c->weight[k]);
    }
}

static void judge_norm(struct check *check, const struct norm_case *c, const float *found,
                       struct check_tally *tally)
{
    double *exact = check_host(check, (size_t)c->n_cols, sizeof *exact);
    double *naive = check_host(check, (size_t)c->n_cols, sizeof *naive);
    const float *sums = found + (ptrdiff_t)c->n_rows * c->n_cols;
    for (int32_t r = 0; r < c->n_rows; r++) {
        norm_row(c, r, false, exact);
        norm_row(c, r, true, naive);
        struct check_row row = {exact, naive, c->n_cols, largest(exact, c->n_cols)};
        check_tally_row(tally, found + (ptrdiff_t)r * c->n_cols, &row);
        for (int32_t k = 0; k < c->n_cols && c->sum_place != SUM_ABSENT; k++) {
            double sum = check_round(check, norm_sum(c, r, k));
            if ((double)sums[(ptrdiff_t)r * c->n_cols + k] != sum)
                check_fail(check, "rms_norm: sum is not x + add rounded once");
        }
    }
}

static void norm_shape(struct check *check, struct norm_case c)
{
    struct check_tally tally = {.dtype = check->backend.activation};
    char what[64];
    for (int32_t i = 0; tally.n < CHECK_TALLY_MIN || i == 0; i++) {
        size_t n_found = 2 * (size_t)c.n_rows * (size_t)c.n_cols;
        check_reset(check);
        c.x = check_rows(check, c.n_rows, c.n_cols, i);
        c.add = check_rows(check, c.n_rows, c.n_cols, i);
        c.weight = check_normals(check, 1, c.n_cols, 1);
        float *found = check_host(check, n_found, sizeof *found);
        struct check_units units = {run_rms_norm, &c, c.n_rows, n_found * sizeof *found};
        check_draw(check, &units, found, "rms_norm", i);
        judge_norm(check, &c, found, &tally);
    }
    snprintf(what, sizeof what, "rms_norm %d x %d", c.n_rows, c.n_cols);
    check_tally_end(check, &tally, what);
}

void check_rms_norm(struct check *check)
{
    static const int32_t rows[] = {1, 5, 17}, cols[] = {1, 3, 15, 16, 17, 31, 64, 257, 768};
    for (int32_t i = 0; i < COUNT_OF(rows) * COUNT_OF(cols); i++) {
        for (int32_t place = SUM_ABSENT; place < SUM_PLACE_COUNT; place++)
            norm_shape(check, (struct norm_case){.n_rows = rows[i % COUNT_OF(rows)],
                                                 .n_cols = cols[i / COUNT_OF(rows)],
                                                 .has_add = i % 2 == 0 || place == SUM_IN_PLACE,
                                                 .sum_place = (enum sum_place)place,
                                                 .epsilon = i % 3 == 0 ? 1e-6f : 1e-5f});
    }
}

/* ---- gated_act ---- */

struct gated_case {
    int32_t n_rows, n_cols;
    const float *x;
};

static void run_gated_act(struct check *check, const void *context, const int32_t *rows, int32_t n,
                          void *out)
{
    const struct gated_case *c = context;
    struct check_mark mark = check_mark(check);
    const float *x = take_rows(check, c->x, 2 * c->n_cols, rows, n);
    struct gated_act_args args = {.out = check_output(check, n, c->n_cols),
                                  .x = check_input(check, n, 2 * c->n_cols, x)};
    check_start(check, NULL);
    backend_gated_act(&check->backend, &args);
    check_finish(check);
    give_rows(check, args.out, rows, out);
    check_rewind(check, mark);
}

static double gated_element(double gate, double up, bool naive)
{
    double divisor = check_keep(naive, 1 + check_keep(naive, exp(-gate)));
    return check_keep(naive, check_keep(naive, gate / divisor) * up);
}

static void judge_gated_act(struct check *check, const struct gated_case *c, const float *found,
                            struct check_tally *tally)
{
    double *exact = check_host(check, (size_t)c->n_cols, sizeof *exact);
    double *naive = check_host(check, (size_t)c->n_cols, sizeof *naive);
    for (int32_t r = 0; r < c->n_rows; r++) {
        const float *gate = c->x + (ptrdiff_t)r * 2 * c->n_cols, *up = gate + c->n_cols;
        for (int32_t j = 0; j < c->n_cols; j++) {
            exact[j] = gated_element((double)gate[j], (double)up[j], false);
            naive[j] = gated_element((double)gate[j], (double)up[j], true);
        }
        struct check_row row = {exact, naive, c->n_cols, largest(exact, c->n_cols)};
        check_tally_row(tally, found + (ptrdiff_t)r * c->n_cols, &row);
    }
}

/* Where exp(-gate) over- and underflows, and far beyond. */
static void plant_edges(struct check *check, float *x, int32_t n_rows, int32_t n_cols)
{
    static const float edges[] = {0.0f,  -0.0f,  88.0f,  -88.0f, 89.0f, -89.0f,
                                  104.f, -104.f, -127.f, 1e-40f, 1e20f, -1e20f};
    for (int32_t r = 0; r < n_rows; r += 2)
        x[(ptrdiff_t)r * 2 * n_cols + check_below(check, n_cols)] =
            edges[check_below(check, COUNT_OF(edges))];
}

void check_gated_act(struct check *check)
{
    static const int32_t rows[] = {1, 3, 16, 17}, cols[] = {1, 7, 15, 16, 17, 33, 100};
    for (int32_t i = 0; i < COUNT_OF(rows) * COUNT_OF(cols); i++) {
        struct gated_case c = {.n_rows = rows[i % COUNT_OF(rows)],
                               .n_cols = cols[i / COUNT_OF(rows)]};
        struct check_tally tally = {.dtype = check->backend.activation};
        char what[64];
        for (int32_t draw = 0; tally.n < CHECK_TALLY_MIN || draw == 0; draw++) {
            size_t n_found = (size_t)c.n_rows * (size_t)c.n_cols;
            check_reset(check);
            float *x = check_rows(check, c.n_rows, 2 * c.n_cols, draw);
            plant_edges(check, x, c.n_rows, c.n_cols);
            c.x = x;
            float *found = check_host(check, n_found, sizeof *found);
            struct check_units units = {run_gated_act, &c, c.n_rows, n_found * sizeof *found};
            check_draw(check, &units, found, "gated_act", draw);
            judge_gated_act(check, &c, found, &tally);
        }
        snprintf(what, sizeof what, "gated_act %d x %d", c.n_rows, c.n_cols);
        check_tally_end(check, &tally, what);
    }
}

/* ---- ops over a batch's rows ---- */

/* One sequence with random cells and positions; every other row is picked. */
struct row_batch {
    struct batch batch;
    struct sequence sequence;
};

static const struct batch *batch_of_rows(struct check *check, struct row_batch *rows, int32_t n,
                                         int32_t n_cells, int32_t n_positions)
{
    size_t count = (size_t)n;
    int32_t *cell = check_host(check, count, sizeof *cell);
    int32_t *position = check_host(check, count, sizeof *position);
    int32_t *visible_end = check_host(check, count, sizeof *visible_end);
    int32_t *picked = check_host(check, count, sizeof *picked);
    int32_t n_picks = (n + 1) / 2;
    assert(n > 0);
    for (int32_t r = 0; r < n; r++) {
        cell[r] = check_below(check, n_cells);
        position[r] = check_below(check, n_positions);
        visible_end[r] = n;
        picked[r / 2] = r - r % 2;
    }
    rows->sequence = (struct sequence){.n_rows = n, .n_picks = n_picks, .cache_begin = -1};
    rows->batch = (struct batch){.n_rows = n,
                                 .canvas_index = cell,
                                 .position = position,
                                 .visible_end = visible_end,
                                 .n_sequences = 1,
                                 .sequences = &rows->sequence,
                                 .n_picks = n_picks,
                                 .picked_row = picked};
    return &rows->batch;
}

static void embed_case(struct check *check, int32_t n_rows, int32_t n_cols, enum dtype dtype)
{
    enum { N_VOCAB = 37, N_CELLS = 50 };
    struct row_batch rows;
    int32_t cells[N_CELLS];
    check_reset(check);
    const struct batch *batch = batch_of_rows(check, &rows, n_rows, N_CELLS, 1);
    size_t n = (size_t)n_cols * N_VOCAB, n_found = (size_t)n_rows * (size_t)n_cols;
    float *values = check_host(check, n, sizeof *values);
    float *found = check_host(check, n_found, sizeof *found);
    const void *source = check_elements(check, dtype, n, values, false);
    for (int32_t i = 0; i < N_CELLS; i++)
        cells[i] = check_below(check, N_VOCAB);
    struct embed_args args = {
        .out = check_output(check, n_rows, n_cols),
        .table = {check_take(check, n * dtype_bytes(dtype)), N_VOCAB, n_cols, dtype},
        .canvas = check_cells(check, N_CELLS, cells)};
    backend_upload(&check->backend, args.table, source);
    check_start(check, batch);
    backend_embed(&check->backend, &args);
    check_finish(check);
    check_download(check, found, args.out);
    for (int32_t r = 0; r < n_rows; r++) {
        const float *wanted = values + (ptrdiff_t)cells[batch->canvas_index[r]] * n_cols;
        if (memcmp(found + (ptrdiff_t)r * n_cols, wanted, (size_t)n_cols * sizeof *found) != 0)
            check_fail(check, "embed %d x %d: row %d is not its table row", n_rows, n_cols, r);
    }
}

void check_embed(struct check *check)
{
    static const int32_t rows[] = {1, 2, 17, 33}, cols[] = {1, 15, 16, 17, 64, 100};
    for (int32_t i = 0; i < COUNT_OF(rows) * COUNT_OF(cols); i++) {
        for (int32_t dtype = DTYPE_F32; dtype <= DTYPE_F16; dtype++)
            embed_case(check, rows[i % COUNT_OF(rows)], cols[i / COUNT_OF(rows)],
                       (enum dtype)dtype);
    }
}

static void gather_case(struct check *check, int32_t n_rows, int32_t n_cols)
{
    struct row_batch rows;
    check_reset(check);
    const struct batch *batch = batch_of_rows(check, &rows, n_rows, 1, 1);
    const float *x = check_rows(check, n_rows, n_cols, n_rows);
    size_t n_found = (size_t)batch->n_picks * (size_t)n_cols;
    float *found = check_host(check, n_found, sizeof *found);
    struct gather_rows_args args = {.out = check_output(check, batch->n_picks, n_cols),
                                    .x = check_input(check, n_rows, n_cols, x)};
    check_start(check, batch);
    backend_gather_rows(&check->backend, &args);
    check_finish(check);
    check_download(check, found, args.out);
    const float *wanted = take_rows(check, x, n_cols, batch->picked_row, batch->n_picks);
    if (memcmp(found, wanted, n_found * sizeof *found) != 0)
        check_fail(check, "gather_rows %d x %d: not the picked rows", n_rows, n_cols);
}

void check_gather_rows(struct check *check)
{
    static const int32_t rows[] = {1, 2, 17, 32, 33}, cols[] = {1, 15, 16, 17, 100};
    for (int32_t i = 0; i < COUNT_OF(rows) * COUNT_OF(cols); i++)
        gather_case(check, rows[i % COUNT_OF(rows)], cols[i / COUNT_OF(rows)]);
}

/* ---- rope ---- */

struct rope_case {
    int32_t n_rows, head_dim, n_heads, col_begin, n_cols;
    bool picked;
    const float *x, *table;
    struct batch batch; /* of all rows */
};

enum { N_POSITIONS = 300 };

/* Units are rows of x; the list becomes a batch of its own. Unpicked batches have a row for each
 * unit, picked ones an idle row before each. */
static void run_rope(struct check *check, const void *context, const int32_t *units, int32_t n,
                     void *out)
{
    const struct rope_case *c = context;
    struct check_mark mark = check_mark(check);
    struct row_batch rows;
    int32_t stride = c->picked ? 2 : 1;
    batch_of_rows(check, &rows, n * stride, 1, N_POSITIONS);
    int32_t *position = check_host(check, (size_t)(n * stride), sizeof *position);
    int32_t *picked = check_host(check, (size_t)n, sizeof *picked);
    for (int32_t i = 0; i < n; i++) {
        picked[i] = i * stride + stride - 1;
        position[picked[i]] = c->batch.position[units[i]];
    }
    rows.batch.position = position;
    rows.batch.picked_row = picked;
    rows.batch.n_picks = rows.sequence.n_picks = n;
    const float *x = take_rows(check, c->x, c->n_cols, units, n);
    struct rope_args args = {.x = check_input(check, n, c->n_cols, x),
                             .table = check_vector(check, N_POSITIONS, c->head_dim, c->table),
                             .col_begin = c->col_begin,
                             .n_heads = c->n_heads,
                             .head_dim = c->head_dim,
                             .picked = c->picked};
    check_start(check, &rows.batch);
    backend_rope(&check->backend, &args);
    check_finish(check);
    give_rows(check, args.x, units, out);
    check_rewind(check, mark);
}

static void rope_row(const struct rope_case *c, int32_t r, bool naive, double *out)
{
    const float *x = c->x + (ptrdiff_t)r * c->n_cols;
    const float *cosines = c->table + (ptrdiff_t)c->batch.position[r] * c->head_dim;
    int32_t half = c->head_dim / 2;
    for (int32_t k = 0; k < c->n_cols; k++)
        out[k] = (double)x[k];
    for (int32_t h = 0; h < c->n_heads; h++) {
        for (int32_t i = 0; i < half; i++) {
            int32_t low = c->col_begin + h * c->head_dim + i, high = low + half;
            double cosine = (double)cosines[i], sine = (double)cosines[half + i];
            double a = (double)x[low], b = (double)x[high];
            out[low] =
                check_keep(naive, check_keep(naive, a * cosine) - check_keep(naive, b * sine));
            out[high] =
                check_keep(naive, check_keep(naive, b * cosine) + check_keep(naive, a * sine));
        }
    }
}

static void judge_rope(struct check *check, const struct rope_case *c, const float *found,
                       struct check_tally *tally)
{
    double *exact = check_host(check, (size_t)c->n_cols, sizeof *exact);
    double *naive = check_host(check, (size_t)c->n_cols, sizeof *naive);
    int32_t end = c->col_begin + c->n_heads * c->head_dim;
    for (int32_t r = 0; r < c->n_rows; r++) {
        const float *row_found = found + (ptrdiff_t)r * c->n_cols;
        rope_row(c, r, false, exact);
        rope_row(c, r, true, naive);
        struct check_row row = {exact, naive, c->n_cols, largest(exact, c->n_cols)};
        check_tally_row(tally, row_found, &row);
        for (int32_t k = 0; k < c->n_cols; k++) {
            bool is_outside = k < c->col_begin || k >= end;
            if (is_outside && (double)row_found[k] != exact[k])
                check_fail(check, "rope: column %d outside the heads changed", k);
        }
    }
}

static void rope_shape(struct check *check, struct rope_case c)
{
    struct check_tally tally = {.dtype = check->backend.activation};
    char what[64];
    c.n_cols = c.col_begin + c.n_heads * c.head_dim + 5;
    for (int32_t i = 0; tally.n < CHECK_TALLY_MIN || i == 0; i++) {
        struct row_batch rows;
        size_t n_found = (size_t)c.n_rows * (size_t)c.n_cols;
        check_reset(check);
        c.batch = *batch_of_rows(check, &rows, c.n_rows, 1, N_POSITIONS);
        c.x = check_rows(check, c.n_rows, c.n_cols, i);
        float *table = check_host(check, N_POSITIONS * (size_t)c.head_dim, sizeof *table);
        for (int32_t k = 0; k < N_POSITIONS * c.head_dim; k++) {
            double angle = check_uniform(check) * 6.3;
            table[k] = (float)(k % c.head_dim < c.head_dim / 2 ? cos(angle) : sin(angle));
        }
        c.table = table;
        float *found = check_host(check, n_found, sizeof *found);
        struct check_units units = {run_rope, &c, c.n_rows, n_found * sizeof *found};
        check_draw(check, &units, found, "rope", i);
        judge_rope(check, &c, found, &tally);
    }
    snprintf(what, sizeof what, "rope %d rows, %d heads of %d", c.n_rows, c.n_heads, c.head_dim);
    check_tally_end(check, &tally, what);
}

void check_rope(struct check *check)
{
    static const int32_t rows[] = {1, 5, 17}, dims[] = {2, 16, 32, 64, 80, 128};
    static const int32_t heads[] = {1, 3, 12};
    for (int32_t i = 0; i < COUNT_OF(rows) * COUNT_OF(dims) * COUNT_OF(heads); i++)
        rope_shape(check, (struct rope_case){.n_rows = rows[i % COUNT_OF(rows)],
                                             .head_dim = dims[i / COUNT_OF(rows) % COUNT_OF(dims)],
                                             .n_heads = heads[i / COUNT_OF(rows) / COUNT_OF(dims)],
                                             .col_begin = i % 2 == 0 ? 0 : 7,
                                             .picked = i % 3 == 0});
}
