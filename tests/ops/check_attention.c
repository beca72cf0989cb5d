/* The ops that look at the rows a row sees: store_kv, attend, select_kv. All three work on one kind
 * of case: a ragged batch, its rows [pad | query heads | key heads | value heads], and a cache. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check_ops.h"

#define COUNT_OF(array) ((int32_t)(sizeof(array) / sizeof(array)[0]))

enum { SEQUENCES_MAX = 8, KEYS_MAX = 8300, ROWS_LONG = 1000 };

/* What makes a softmax easy or hard. */
enum score_kind { SCORES_NORMAL, SCORES_EQUAL, SCORES_HUGE, SCORES_TINY, SCORE_KIND_COUNT };

struct heads {
    int32_t n_heads, n_kv_heads, head_dim;
};

struct attention_case {
    struct heads heads;
    int32_t n_cols;
    struct batch batch; /* all sequences, in order */
    struct sequence sequences[SEQUENCES_MAX];
    const float *x;             /* [n_rows, n_cols] */
    const float *keys, *values; /* [n_slots, n_kv_heads * head_dim] */
    int64_t n_slots;
    float scale;
    bool picked;
    /* select_kv */
    struct select_sequence selects[SEQUENCES_MAX];
    bool shared;
};

/* Columns before the heads: unaligned ones, but for the sizes that kernels load in wide words. */
static int32_t query_col(const struct heads *heads)
{
    return heads->head_dim % 64 == 0 ? 8 : 3;
}

static int32_t key_col(const struct heads *heads)
{
    return query_col(heads) + heads->n_heads * heads->head_dim;
}

static int32_t value_col(const struct heads *heads)
{
    return key_col(heads) + heads->n_kv_heads * heads->head_dim;
}

static size_t cache_elements(const struct attention_case *c)
{
    return (size_t)(c->n_slots * c->heads.n_kv_heads * c->heads.head_dim);
}

/* ---- drawing a case ---- */

struct shape {
    int32_t n_rows, n_cached;
};

/* Full, causal, or blocks of 5 (both directions inside, earlier blocks visible). */
static int32_t draw_visible_end(int32_t kind, int32_t r, int32_t n_rows)
{
    int32_t block_end = (r / 5 + 1) * 5;
    if (kind == 0) return n_rows;
    if (kind == 1) return r + 1;
    return block_end < n_rows ? block_end : n_rows;
}

static void draw_sequences(struct check *check, struct attention_case *c,
                           const struct shape *shapes, int32_t n)
{
    int32_t n_rows = 0, n_picks = 0;
    int64_t n_slots = 2;
    assert(n <= SEQUENCES_MAX);
    for (int32_t s = 0; s < n; s++)
        n_rows += shapes[s].n_rows;
    int32_t *visible_end = check_host(check, (size_t)n_rows, sizeof *visible_end);
    int32_t *picked = check_host(check, (size_t)n_rows, sizeof *picked);
    int32_t *zeros = check_host(check, (size_t)n_rows, sizeof *zeros);
    int32_t row = 0;
    for (int32_t s = 0; s < n; s++) {
        struct sequence *sequence = &c->sequences[s];
        int32_t kind = check_below(check, 3), n_for_pick = shapes[s].n_rows > ROWS_LONG ? 50 : 3;
        *sequence = (struct sequence){.row_begin = row,
                                      .n_rows = shapes[s].n_rows,
                                      .pick_begin = n_picks,
                                      .cache_begin = shapes[s].n_cached > 0 ? n_slots : -1,
                                      .n_cached = shapes[s].n_cached};
        n_slots += shapes[s].n_cached + 1;
        for (int32_t r = 0; r < shapes[s].n_rows; r++) {
            visible_end[row + r] = row + draw_visible_end(kind, r, shapes[s].n_rows);
            if (check_below(check, n_for_pick) == 0) picked[n_picks++] = row + r;
        }
        row += shapes[s].n_rows;
        sequence->n_picks = n_picks - sequence->pick_begin;
    }
    c->n_slots = n_slots;
    c->batch = (struct batch){.n_rows = n_rows,
                              .canvas_index = zeros,
                              .position = zeros,
                              .visible_end = visible_end,
                              .n_sequences = n,
                              .sequences = c->sequences,
                              .n_picks = n_picks,
                              .picked_row = picked};
}

static void fill_columns(float *x, const struct attention_case *c, int32_t begin, int32_t end,
                         float value)
{
    for (int32_t r = 0; r < c->batch.n_rows; r++) {
        for (int32_t k = begin; k < end; k++)
            x[(ptrdiff_t)r * c->n_cols + k] = value;
    }
}

static void draw_numbers(struct check *check, struct attention_case *c, enum score_kind kind)
{
    static const double query_size[SCORE_KIND_COUNT] = {1, 1, 300, 1e-20};
    int32_t n_kv = c->heads.n_kv_heads * c->heads.head_dim;
    c->n_cols = value_col(&c->heads) + n_kv;
    float *x = check_normals(check, c->batch.n_rows, c->n_cols, 1);
    float *keys = check_normals(check, (int32_t)c->n_slots, n_kv, 1);
    for (int32_t r = 0; r < c->batch.n_rows; r++) {
        for (int32_t k = query_col(&c->heads); k < key_col(&c->heads); k++)
            x[(ptrdiff_t)r * c->n_cols + k] =
                check_round(check, query_size[kind] * x[(ptrdiff_t)r * c->n_cols + k]);
    }
    if (kind == SCORES_EQUAL) {
        fill_columns(x, c, key_col(&c->heads), value_col(&c->heads), 0.75f);
        for (size_t i = 0; i < cache_elements(c); i++)
            keys[i] = 0.75f;
    }
    c->x = x;
    c->keys = keys;
    c->values = check_normals(check, (int32_t)c->n_slots, n_kv, 1);
    c->scale = (float)(1 / sqrt(c->heads.head_dim));
}

/* ---- a batch of some of the sequences ---- */

struct part {
    struct batch batch;
    struct sequence sequences[SEQUENCES_MAX];
    const int32_t *row;  /* [batch.n_rows] the row's place in the whole batch */
    const int32_t *pick; /* [batch.n_picks] the pick's place in the whole batch */
};

static void add_sequence(struct part *part, const struct attention_case *c, int32_t unit,
                         int32_t *const arrays[4])
{
    const struct sequence *whole = &c->sequences[unit];
    int32_t *row = arrays[0], *pick = arrays[1], *visible_end = arrays[2], *picked = arrays[3];
    int32_t begin = part->batch.n_rows, shift = begin - whole->row_begin;
    assert(part->batch.n_sequences < SEQUENCES_MAX);
    struct sequence *sequence = &part->sequences[part->batch.n_sequences++];
    *sequence = *whole;
    sequence->row_begin = begin;
    sequence->pick_begin = part->batch.n_picks;
    for (int32_t r = 0; r < whole->n_rows; r++) {
        row[begin + r] = whole->row_begin + r;
        visible_end[begin + r] = c->batch.visible_end[whole->row_begin + r] + shift;
    }
    for (int32_t i = 0; i < whole->n_picks; i++) {
        pick[part->batch.n_picks + i] = whole->pick_begin + i;
        picked[part->batch.n_picks + i] = c->batch.picked_row[whole->pick_begin + i] + shift;
    }
    part->batch.n_rows += whole->n_rows;
    part->batch.n_picks += whole->n_picks;
}

static void part_init(struct check *check, struct part *part, const struct attention_case *c,
                      const int32_t *units, int32_t n)
{
    int32_t *arrays[4];
    assert(n > 0);
    for (int i = 0; i < 4; i++)
        arrays[i] = check_host(check, (size_t)c->batch.n_rows, sizeof *arrays[i]);
    *part = (struct part){.row = arrays[0], .pick = arrays[1]};
    for (int32_t i = 0; i < n; i++)
        add_sequence(part, c, units[i], arrays);
    part->batch.sequences = part->sequences;
    part->batch.canvas_index = part->batch.position = c->batch.position; /* zeros */
    part->batch.visible_end = arrays[2];
    part->batch.picked_row = arrays[3];
}

static float *part_rows(struct check *check, const struct attention_case *c, const int32_t *rows,
                        int32_t n)
{
    size_t n_cols = (size_t)c->n_cols;
    float *taken = check_host(check, (size_t)n * n_cols, sizeof *taken);
    for (int32_t i = 0; i < n; i++)
        memcpy(taken + (size_t)i * n_cols, c->x + (size_t)rows[i] * n_cols, n_cols * sizeof *taken);
    return taken;
}

static struct kv_rows upload_fresh(struct check *check, const struct attention_case *c,
                                   const struct part *part)
{
    const float *x = part_rows(check, c, part->row, part->batch.n_rows);
    return (struct kv_rows){.x = check_input(check, part->batch.n_rows, c->n_cols, x),
                            .key_col = key_col(&c->heads),
                            .value_col = value_col(&c->heads),
                            .n_kv_heads = c->heads.n_kv_heads,
                            .head_dim = c->heads.head_dim};
}

static struct matrix cache_matrix(const struct check *check, const struct attention_case *c,
                                  void *data)
{
    return (struct matrix){data, (int32_t)c->n_slots, c->heads.n_kv_heads * c->heads.head_dim,
                           check->backend.activation};
}

static struct kv_cache upload_cache(struct check *check, const struct attention_case *c)
{
    struct kv_cache cache = {.keys = check_take(check, cache_elements(c) * check_row_bytes(check)),
                             .values =
                                 check_take(check, cache_elements(c) * check_row_bytes(check)),
                             .n_slots = c->n_slots};
    check_upload(check, cache_matrix(check, c, cache.keys), c->keys);
    check_upload(check, cache_matrix(check, c, cache.values), c->values);
    return cache;
}

/* ---- what a row sees, on the host ---- */

/* Element `i` of cached row j of n of an extent. */
static size_t cached_at(const struct heads *heads, int64_t begin, int32_t n, int32_t kv_head,
                        int32_t j)
{
    return (size_t)((begin * heads->n_kv_heads + (int64_t)kv_head * n + j) * heads->head_dim);
}

/* Key j of a sequence (cached first) under a KV head; its value when `value`. */
static const float *key_at(const struct attention_case *c, const struct sequence *sequence,
                           int32_t kv_head, int32_t j, bool value)
{
    const struct heads *heads = &c->heads;
    if (j < sequence->n_cached)
        return (value ? c->values : c->keys) +
               cached_at(heads, sequence->cache_begin, sequence->n_cached, kv_head, j);
    int32_t row = sequence->row_begin + j - sequence->n_cached;
    int32_t col = (value ? value_col(heads) : key_col(heads)) + kv_head * heads->head_dim;
    return c->x + (ptrdiff_t)row * c->n_cols + col;
}

static double product(const float *a, const float *b, int32_t n, bool naive)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum = check_keep(naive, sum + check_keep(naive, (double)a[i] * (double)b[i]));
    return sum;
}

/* ---- attend ---- */

static void run_attend(struct check *check, const void *context, const int32_t *units, int32_t n,
                       void *out)
{
    const struct attention_case *c = context;
    struct check_mark mark = check_mark(check);
    struct part part;
    part_init(check, &part, c, units, n);
    int32_t n_queries = c->picked ? part.batch.n_picks : part.batch.n_rows;
    int32_t n_cols = c->heads.n_heads * c->heads.head_dim;
    struct attend_args args = {.out = check_output(check, n_queries, n_cols),
                               .fresh = upload_fresh(check, c, &part),
                               .query_col = query_col(&c->heads),
                               .n_heads = c->heads.n_heads,
                               .cache = upload_cache(check, c),
                               .scale = c->scale,
                               .picked = c->picked};
    args.query = args.fresh.x;
    if (c->picked) {
        int32_t *rows = check_host(check, (size_t)n_queries, sizeof *rows);
        for (int32_t i = 0; i < n_queries; i++)
            rows[i] = part.row[part.batch.picked_row[i]];
        args.query = check_input(check, n_queries, c->n_cols, part_rows(check, c, rows, n_queries));
    }
    check_start(check, &part.batch);
    backend_attend(&check->backend, &args);
    check_finish(check);
    float *found = check_host(check, (size_t)n_queries * (size_t)n_cols, sizeof *found);
    check_download(check, found, args.out);
    const int32_t *place = c->picked ? part.pick : part.row;
    for (int32_t i = 0; i < n_queries; i++)
        memcpy((float *)out + (ptrdiff_t)place[i] * n_cols, found + (ptrdiff_t)i * n_cols,
               (size_t)n_cols * sizeof *found);
    check_rewind(check, mark);
}

/* One query head; returns the largest |value| that it sees, times what the scores' size does to the
 * rounding of their exponentials. */
static double attend_head(const struct attention_case *c, const struct sequence *sequence,
                          int32_t row, int32_t head, double *out[2])
{
    double scores[KEYS_MAX], size = 0, steepness = 1;
    int32_t head_dim = c->heads.head_dim, kv_head = head / (c->heads.n_heads / c->heads.n_kv_heads);
    int32_t n_keys = sequence->n_cached + c->batch.visible_end[row] - sequence->row_begin;
    const float *query = c->x + (ptrdiff_t)row * c->n_cols + query_col(&c->heads) + head * head_dim;
    assert(n_keys > 0);
    assert(n_keys <= KEYS_MAX);
    for (int naive = 0; naive < 2; naive++) {
        double max = -INFINITY, total = 0, *sum = out[naive];
        for (int32_t i = 0; i < head_dim; i++)
            sum[i] = 0;
        for (int32_t j = 0; j < n_keys; j++) {
            double dot = product(query, key_at(c, sequence, kv_head, j, false), head_dim, naive);
            scores[j] = check_keep(naive, (double)c->scale * dot);
            max = fmax(max, scores[j]);
            steepness = fmax(steepness, fabs(scores[j]));
        }
        for (int32_t j = 0; j < n_keys; j++) {
            const float *value = key_at(c, sequence, kv_head, j, true);
            double weight = check_keep(naive, exp(check_keep(naive, scores[j] - max)));
            total = check_keep(naive, total + weight);
            for (int32_t i = 0; i < head_dim; i++) {
                double term = check_keep(naive, weight * (double)value[i]);
                sum[i] = check_keep(naive, sum[i] + term);
                size = fmax(size, fabs((double)value[i]));
            }
        }
        for (int32_t i = 0; i < head_dim; i++)
            sum[i] = check_keep(naive, sum[i] / total);
    }
    return size * steepness;
}

static void judge_attend(struct check *check, const struct attention_case *c, const float *found,
                         struct check_tally *tally)
{
    int32_t n_cols = c->heads.n_heads * c->heads.head_dim;
    double *out[2];
    for (int naive = 0; naive < 2; naive++)
        out[naive] = check_host(check, (size_t)c->heads.head_dim, sizeof *out[naive]);
    for (int32_t s = 0; s < c->batch.n_sequences; s++) {
        const struct sequence *sequence = &c->sequences[s];
        int32_t begin = c->picked ? sequence->pick_begin : sequence->row_begin;
        int32_t n = c->picked ? sequence->n_picks : sequence->n_rows;
        for (int32_t q = begin; q < begin + n; q++) {
            int32_t row_index = c->picked ? c->batch.picked_row[q] : q;
            for (int32_t h = 0; h < c->heads.n_heads; h++) {
                struct check_row row = {out[0], out[1], c->heads.head_dim, 0};
                row.scale = attend_head(c, sequence, row_index, h, out);
                check_tally_row(tally, found + (ptrdiff_t)q * n_cols + h * c->heads.head_dim, &row);
            }
        }
    }
}

static const struct shape attend_shapes[][3] = {{{1, 0}},
                                                {{1, 1}},
                                                {{15, 0}, {1, 0}},
                                                {{16, 16}, {17, 0}, {2, 33}},
                                                {{33, 31}, {5, 1}},
                                                {{31, 0}, {32, 0}, {64, 65}},
                                                {{1, 100}, {3, 17}, {70, 0}},
                                                {{129, 63}, {2, 128}}};

static int32_t n_shapes_of(const struct shape shapes[3])
{
    int32_t n = 0;
    while (n < 3 && shapes[n].n_rows > 0)
        n++;
    return n;
}

static void attend_case(struct check *check, struct attention_case *c, const struct shape shapes[3],
                        enum score_kind kind, struct check_tally *tally)
{
    check_reset(check);
    draw_sequences(check, c, shapes, n_shapes_of(shapes));
    draw_numbers(check, c, kind);
    size_t n_out = (size_t)c->batch.n_rows * (size_t)(c->heads.n_heads * c->heads.head_dim);
    float *found = check_host(check, n_out, sizeof *found);
    struct check_units units = {run_attend, c, c->batch.n_sequences, n_out * sizeof *found};
    check_invariance(check, &units, found, "attend");
    judge_attend(check, c, found, tally);
}

static const struct heads head_shapes[] = {{1, 1, 16}, {4, 4, 32}, {6, 2, 64}, {7, 1, 128},
                                           {3, 3, 80}, {8, 2, 16}, {2, 1, 8}};

static void attend_end(struct check *check, const struct check_tally *tally,
                       const struct heads *heads, enum score_kind kind)
{
    char what[96];
    assert(tally->n >= CHECK_TALLY_MIN);
    snprintf(what, sizeof what, "attend %d/%d heads of %d, scores of kind %d", heads->n_heads,
             heads->n_kv_heads, heads->head_dim, (int)kind);
    check_tally_end(check, tally, what);
}

/* One tolerance for all shapes: a row with one key has no naive error to compare with. */
static void attend_heads(struct check *check, const struct heads *heads, enum score_kind kind)
{
    struct check_tally tally = {.dtype = check->backend.activation};
    for (int32_t i = 0; i < 2 * COUNT_OF(attend_shapes); i++) {
        struct attention_case c = {.heads = *heads, .picked = i % 2 == 1};
        attend_case(check, &c, attend_shapes[i / 2], kind, &tally);
    }
    attend_end(check, &tally, heads, kind);
}

/* Few rows with many keys, which the cuda backend cuts over their keys (cuda/heuristics.h): just
 * enough keys and not quite; a window among others; more rows than it cuts; more keys than its most
 * slices of 1,024; picks of a full step and of a window. */
static const struct {
    struct shape shapes[3];
    bool picked;
} long_cases[] = {{{{1, 1025}, {3, 960}}, false},
                  {{{33, 2100}, {5, 40}, {2, 1000}}, false},
                  {{{129, 1000}, {64, 1100}}, false},
                  {{{1, 8250}}, false},
                  {{{1100, 0}, {40, 1200}}, true}};

static const struct {
    struct heads heads;
    enum score_kind kind;
} long_heads[] = {{{2, 1, 64}, SCORES_NORMAL}, {{1, 1, 128}, SCORES_NORMAL},
                  {{1, 1, 64}, SCORES_HUGE},   {{2, 2, 128}, SCORES_HUGE},
                  {{1, 1, 64}, SCORES_EQUAL},  {{1, 1, 16}, SCORES_NORMAL}};

static void attend_long(struct check *check, const struct heads *heads, enum score_kind kind)
{
    struct check_tally tally = {.dtype = check->backend.activation};
    for (int32_t i = 0; i < COUNT_OF(long_cases); i++) {
        struct attention_case c = {.heads = *heads, .picked = long_cases[i].picked};
        attend_case(check, &c, long_cases[i].shapes, kind, &tally);
    }
    attend_end(check, &tally, heads, kind);
}

void check_attend(struct check *check)
{
    for (int32_t i = 0; i < COUNT_OF(head_shapes) * SCORE_KIND_COUNT; i++)
        attend_heads(check, &head_shapes[i / SCORE_KIND_COUNT],
                     (enum score_kind)(i % SCORE_KIND_COUNT));
    for (int32_t i = 0; i < COUNT_OF(long_heads); i++)
        attend_long(check, &long_heads[i].heads, long_heads[i].kind);
}

/* ---- store_kv ---- */

struct store_case {
    struct attention_case base;
    struct store_row *rows; /* [n] */
    int32_t n;
    float *keys, *values; /* what the cache must hold afterwards */
};

/* Copies fresh row `fresh` of a sequence to its cached row j: on paper, and as an entry of rows. */
static void want_stored(struct store_case *c, const struct sequence *sequence, int32_t fresh,
                        int32_t j)
{
    const struct heads *heads = &c->base.heads;
    size_t n_bytes = (size_t)heads->head_dim * sizeof(float);
    c->rows[c->n++] = (struct store_row){sequence->row_begin + fresh, j, sequence->n_cached,
                                         sequence->cache_begin};
    for (int32_t h = 0; h < heads->n_kv_heads; h++) {
        size_t to = cached_at(heads, sequence->cache_begin, sequence->n_cached, h, j);
        int32_t from = sequence->n_cached + fresh;
        memcpy(c->keys + to, key_at(&c->base, sequence, h, from, false), n_bytes);
        memcpy(c->values + to, key_at(&c->base, sequence, h, from, true), n_bytes);
    }
}

static void draw_store(struct check *check, struct store_case *c, const struct shape shapes[3])
{
    struct attention_case *base = &c->base;
    check_reset(check);
    draw_sequences(check, base, shapes, n_shapes_of(shapes));
    draw_numbers(check, base, SCORES_NORMAL);
    c->n = 0;
    c->rows = check_host(check, (size_t)base->n_slots, sizeof *c->rows);
    c->keys = check_host(check, cache_elements(base), sizeof *c->keys);
    c->values = check_host(check, cache_elements(base), sizeof *c->values);
    memcpy(c->keys, base->keys, cache_elements(base) * sizeof *c->keys);
    memcpy(c->values, base->values, cache_elements(base) * sizeof *c->values);
    for (int32_t s = 0; s < base->batch.n_sequences; s++) {
        const struct sequence *sequence = &base->sequences[s];
        for (int32_t j = 0; j < sequence->n_cached; j += 1 + check_below(check, 2))
            want_stored(c, sequence, check_below(check, sequence->n_rows), j);
    }
}

static void store_case(struct check *check, struct store_case *c, const struct shape shapes[3])
{
    static const int32_t in_order[SEQUENCES_MAX] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct part part;
    draw_store(check, c, shapes);
    part_init(check, &part, &c->base, in_order, c->base.batch.n_sequences);
    struct store_kv_args args = {.cache = upload_cache(check, &c->base),
                                 .fresh = upload_fresh(check, &c->base, &part),
                                 .rows = c->rows,
                                 .n = c->n};
    check_start(check, &part.batch);
    backend_store_kv(&check->backend, &args);
    check_finish(check);
    size_t n_elements = cache_elements(&c->base);
    float *found = check_host(check, n_elements, sizeof *found);
    check_download(check, found, cache_matrix(check, &c->base, args.cache.keys));
    if (memcmp(found, c->keys, n_elements * sizeof *found) != 0)
        check_fail(check, "store_kv: keys differ");
    check_download(check, found, cache_matrix(check, &c->base, args.cache.values));
    if (memcmp(found, c->values, n_elements * sizeof *found) != 0)
        check_fail(check, "store_kv: values differ");
}

void check_store_kv(struct check *check)
{
    for (int32_t i = 0; i < COUNT_OF(attend_shapes) * COUNT_OF(head_shapes); i++) {
        struct store_case c = {.base.heads = head_shapes[i / COUNT_OF(attend_shapes)]};
        store_case(check, &c, attend_shapes[i % COUNT_OF(attend_shapes)]);
    }
}

/* ---- select_kv ---- */

static int32_t n_candidates(const struct attention_case *c, int32_t unit)
{
    const struct select_sequence *select = &c->selects[unit];
    const struct sequence *sequence = &c->sequences[unit];
    return sequence->n_cached + sequence->n_rows - (select->window_end - select->window_begin);
}

/* Candidate to key of the sequence: the window is left out. */
static int32_t key_of(const struct attention_case *c, int32_t unit, int32_t candidate)
{
    const struct select_sequence *select = &c->selects[unit];
    const struct sequence *sequence = &c->sequences[unit];
    int32_t window = sequence->n_cached + select->window_begin - sequence->row_begin;
    if (candidate < window) return candidate;
    return candidate + select->window_end - select->window_begin;
}

/* Windows, quotas and targets; the targets lie behind all extents. */
static void draw_selects(struct check *check, struct attention_case *c)
{
    for (int32_t s = 0; s < c->batch.n_sequences; s++) {
        const struct sequence *sequence = &c->sequences[s];
        struct select_sequence *select = &c->selects[s];
        int32_t begin = check_below(check, sequence->n_rows);
        int32_t n_window = 1 + check_below(check, sequence->n_rows - begin);
        select->sequence = s;
        select->window_begin = sequence->row_begin + begin;
        select->window_end = select->window_begin + n_window;
        select->n_keep = check_below(check, n_candidates(c, s) + 1);
        select->target_begin = c->n_slots;
        c->n_slots += select->n_keep + 1;
    }
}

/* Score of a candidate under one KV head; adds the size of what was summed to `size`. */
static double head_score(const struct attention_case *c, int32_t unit, int32_t kv_head,
                         int32_t candidate, double *size)
{
    const struct select_sequence *select = &c->selects[unit];
    int32_t head_dim = c->heads.head_dim, group = c->heads.n_heads / c->heads.n_kv_heads;
    const float *key = key_at(c, &c->sequences[unit], kv_head, key_of(c, unit, candidate), false);
    double best = -INFINITY;
    for (int32_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        double score = 0, terms = 0;
        for (int32_t i = 0; i < head_dim; i++) {
            double mean = 0;
            for (int32_t r = select->window_begin; r < select->window_end; r++)
                mean +=
                    (double)
                        c->x[(ptrdiff_t)r * c->n_cols + query_col(&c->heads) + h * head_dim + i];
            mean /= select->window_end - select->window_begin;
            score += mean * (double)key[i];
            terms += fabs(mean * (double)key[i]) + fabs((double)key[i]);
        }
        best = fmax(best, score * (double)c->scale);
        *size = fmax(*size, terms * (double)c->scale);
    }
    return best;
}

/* Pooled scores of all candidates under the KV heads [begin, end), and their tolerance. */
static double pooled_scores(const struct attention_case *c, int32_t unit, const int32_t kv_heads[2],
                            double *pooled)
{
    double scores[KEYS_MAX], size = 0;
    int32_t n = n_candidates(c, unit), n_heads = kv_heads[1] - kv_heads[0];
    assert(n <= KEYS_MAX);
    for (int32_t j = 0; j < n; j++) {
        scores[j] = 0;
        for (int32_t h = kv_heads[0]; h < kv_heads[1]; h++)
            scores[j] += head_score(c, unit, h, j, &size);
        scores[j] /= n_heads;
    }
    for (int32_t j = 0; j < n; j++) {
        double before = j > 0 ? scores[j - 1] : -INFINITY;
        double after = j + 1 < n ? scores[j + 1] : -INFINITY;
        pooled[j] = fmax(fmax(before, scores[j]), after);
    }
    return size * 0x1p-22 * sqrt(c->heads.head_dim);
}

/* Marks what is kept; false: some candidate is too close to the cut to tell. */
static bool choose(const double *pooled, int32_t n, int32_t n_keep, double tolerance, bool *kept)
{
    double cut = 0;
    assert(n_keep > 0);
    for (int32_t j = 0; j < n; j++) {
        int32_t n_before = 0;
        for (int32_t i = 0; i < n; i++)
            n_before += pooled[i] > pooled[j] || (pooled[i] == pooled[j] && i < j);
        kept[j] = n_before < n_keep;
        if (n_before == n_keep - 1) cut = pooled[j];
    }
    for (int32_t j = 0; j < n; j++) {
        if (pooled[j] != cut && fabs(pooled[j] - cut) < tolerance) return false;
    }
    return true;
}

/* Writes what a unit's target must hold into both images of the cache. */
static bool want_selected(const struct attention_case *c, int32_t unit, float *wanted[2])
{
    const struct select_sequence *select = &c->selects[unit];
    const struct sequence *sequence = &c->sequences[unit];
    int32_t n = n_candidates(c, unit), n_kv_heads = c->heads.n_kv_heads;
    for (int32_t h = 0; h < n_kv_heads && select->n_keep > 0; h++) {
        double pooled[KEYS_MAX];
        bool kept[KEYS_MAX];
        const int32_t one[2] = {h, h + 1}, all[2] = {0, n_kv_heads};
        double tolerance = pooled_scores(c, unit, c->shared ? all : one, pooled);
        if (!choose(pooled, n, select->n_keep, tolerance, kept)) return false;
        for (int32_t j = 0, index = 0; j < n; j++) {
            if (!kept[j]) continue;
            size_t to = cached_at(&c->heads, select->target_begin, select->n_keep, h, index++);
            for (int v = 0; v < 2; v++)
                memcpy(wanted[v] + to, key_at(c, sequence, h, key_of(c, unit, j), v == 1),
                       (size_t)c->heads.head_dim * sizeof(float));
        }
    }
    return true;
}

/* Downloads the targets to their places in two images; the rest of the cache must be as before. */
static void take_targets(struct check *check, const struct attention_case *c,
                         const struct select_kv_args *args, float *images)
{
    size_t n = cache_elements(c), slot = (size_t)(c->heads.n_kv_heads * c->heads.head_dim);
    float *found = check_host(check, n, sizeof *found),
          *wanted = check_host(check, n, sizeof *wanted);
    for (int v = 0; v < 2; v++) {
        check_download(check, found,
                       cache_matrix(check, c, v == 0 ? args->cache.keys : args->cache.values));
        memcpy(wanted, v == 0 ? c->keys : c->values, n * sizeof *wanted);
        for (int32_t i = 0; i < args->n; i++) {
            size_t begin = (size_t)args->sequences[i].target_begin * slot;
            size_t n_bytes = (size_t)args->sequences[i].n_keep * slot * sizeof *found;
            memcpy(images + (size_t)v * n + begin, found + begin, n_bytes);
            memcpy(wanted + begin, found + begin, n_bytes);
        }
        if (memcmp(found, wanted, n * sizeof *found) != 0)
            check_fail(check, "select_kv: wrote outside the targets");
    }
}

/* A unit's result is its target extent, in images of keys and values. */
static void run_select(struct check *check, const void *context, const int32_t *units, int32_t n,
                       void *out)
{
    const struct attention_case *c = context;
    struct check_mark mark = check_mark(check);
    struct part part;
    part_init(check, &part, c, units, n);
    struct select_sequence selects[SEQUENCES_MAX];
    for (int32_t i = 0; i < n; i++) {
        int32_t shift = part.sequences[i].row_begin - c->sequences[units[i]].row_begin;
        selects[i] = c->selects[units[i]];
        selects[i].sequence = i;
        selects[i].window_begin += shift;
        selects[i].window_end += shift;
    }
    struct select_kv_args args = {.cache = upload_cache(check, c),
                                  .fresh = upload_fresh(check, c, &part),
                                  .query_col = query_col(&c->heads),
                                  .n_heads = c->heads.n_heads,
                                  .sequences = selects,
                                  .n = n,
                                  .scale = c->scale,
                                  .shared = c->shared};
    args.query = args.fresh.x;
    check_start(check, &part.batch);
    backend_select_kv(&check->backend, &args);
    check_finish(check);
    take_targets(check, c, &args, out);
    check_rewind(check, mark);
}

/* Draws until every choice is clear; the images then hold the targets, zeros elsewhere. */
static void draw_clear_case(struct check *check, struct attention_case *c,
                            const struct shape shapes[3], float *wanted[2])
{
    bool is_clear = false;
    for (int32_t draw = 0; !is_clear; draw++) {
        assert(draw < 50);
        check_reset(check);
        draw_sequences(check, c, shapes, n_shapes_of(shapes));
        draw_selects(check, c);
        draw_numbers(check, c, check_below(check, 5) == 0 ? SCORES_EQUAL : SCORES_NORMAL);
        for (int v = 0; v < 2; v++)
            wanted[v] = check_host(check, cache_elements(c), sizeof(float));
        is_clear = true;
        for (int32_t s = 0; s < c->batch.n_sequences; s++)
            is_clear = want_selected(c, s, wanted) && is_clear;
    }
}

static void select_case(struct check *check, struct attention_case *c, const struct shape shapes[3])
{
    float *wanted[2];
    draw_clear_case(check, c, shapes, wanted);
    size_t n_elements = cache_elements(c);
    float *found = check_host(check, 2 * n_elements, sizeof *found);
    struct check_units units = {run_select, c, c->batch.n_sequences,
                                2 * n_elements * sizeof *found};
    check_invariance(check, &units, found, "select_kv");
    for (int v = 0; v < 2; v++) {
        if (memcmp(found + (size_t)v * n_elements, wanted[v], n_elements * sizeof *found) != 0)
            check_fail(check, "select_kv %d/%d heads of %d%s: other %s kept", c->heads.n_heads,
                       c->heads.n_kv_heads, c->heads.head_dim, c->shared ? ", shared" : "",
                       v == 0 ? "keys" : "values");
    }
}

void check_select_kv(struct check *check)
{
    int32_t n = COUNT_OF(attend_shapes) * COUNT_OF(head_shapes) * 4;
    for (int32_t i = 0; i < n; i++) {
        struct attention_case c = {.heads = head_shapes[i / 4 % COUNT_OF(head_shapes)],
                                   .shared = i % 4 == 3};
        select_case(check, &c, attend_shapes[i / 4 / COUNT_OF(head_shapes)]);
    }
}
