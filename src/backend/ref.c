/* The definition of every op but score (ref_score.c): the loops of the formulas in backend.h,
 * floats in memory, doubles while summing, sums in ascending order. No threads, no vector code: the
 * other backends are measured against this one. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/cut.h"
#include "backend/host.h"
#include "backend/ref.h"

static bool ref_open(struct backend *backend, const struct backend_limits *limits,
                     struct error *err)
{
    (void)limits; /* one thread, one instruction set */
    (void)err;
    assert(backend->state == NULL);
    backend->n_rows_least = HOST_ROWS_LEAST;
    backend->n_rows_most = HOST_ROWS_MOST;
    backend->n_picks_multiple = 1;
    snprintf(backend->machine, sizeof backend->machine, "one thread, scalar");
    return true;
}

/* Weights as they come, row-major. */
static size_t ref_weight_bytes(const struct backend *backend, int32_t n_out, int32_t n_in,
                               enum dtype dtype)
{
    (void)backend;
    assert(n_out > 0);
    return (size_t)n_out * (size_t)n_in * dtype_bytes(dtype);
}

static void ref_upload_weight(struct backend *backend, struct weight target, int32_t out_begin,
                              int32_t n_out, const void *source)
{
    size_t row_bytes = ref_weight_bytes(backend, 1, target.n_in, target.dtype);
    assert(target.data != NULL);
    memcpy((uint8_t *)target.data + (size_t)out_begin * row_bytes, source,
           (size_t)n_out * row_bytes);
}

static size_t ref_scratch_bytes(const struct backend *backend, int32_t n_rows_max,
                                int32_t n_picks_max)
{
    (void)backend;
    (void)n_rows_max;
    (void)n_picks_max;
    return 0;
}

/* ---- embed, rms_norm, linear, rope ---- */

static void ref_embed(struct backend *backend, const struct embed_args *args)
{
    const struct batch *batch = backend->batch;
    const int32_t *cells = args->canvas.data;
    int32_t n_cols = args->out.n_cols;
    for (int32_t r = 0; r < batch->n_rows; r++) {
        int32_t id = cells[batch->canvas_index[r]];
        assert(id >= 0);
        assert(id < args->table.n_rows);
        float *out = host_row(args->out, r);
        size_t begin = (size_t)id * (size_t)n_cols;
        for (int32_t k = 0; k < n_cols; k++)
            out[k] = host_element(args->table.data, args->table.dtype, begin + (size_t)k);
    }
}

/* The sum is rounded to f32 before it is squared, as if it had been stored. */
static float row_sum(const struct rms_norm_args *args, int32_t r, int32_t k)
{
    float x = host_row(args->x, r)[k];
    return args->add.data == NULL ? x : x + host_row(args->add, r)[k];
}

static void ref_rms_norm(struct backend *backend, const struct rms_norm_args *args)
{
    (void)backend;
    int32_t n_cols = args->out.n_cols;
    const float *weight = args->weight.data;
    assert(n_cols > 0);
    for (int32_t r = 0; r < args->out.n_rows; r++) {
        float *out = host_row(args->out, r);
        double squares = 0;
        for (int32_t k = 0; k < n_cols; k++) {
            double sum = row_sum(args, r, k);
            squares += sum * sum;
        }
        double factor = 1 / sqrt(squares / n_cols + (double)args->epsilon);
        for (int32_t k = 0; k < n_cols; k++) {
            float sum = row_sum(args, r, k); /* before x[r][k] is overwritten: sum may be x */
            if (args->sum.data != NULL) host_row(args->sum, r)[k] = sum;
            out[k] = (float)(sum * factor * weight[k]);
        }
    }
}

/* Rows that share one reading of a weight. Each has its own sum over k, so nothing but time
 * depends on this number. */
enum { SHARED_ROWS = 8 };

/* sums[i] = x[i] . w[out], of up to SHARED_ROWS rows */
static void dot_rows(double *sums, const float *x, int32_t n_rows, struct weight weight,
                     int32_t out)
{
    size_t begin = (size_t)out * (size_t)weight.n_in;
    assert(n_rows <= SHARED_ROWS);
    for (int32_t i = 0; i < n_rows; i++)
        sums[i] = 0;
    for (int32_t k = 0; k < weight.n_in; k++) {
        double w = (double)host_element(weight.data, weight.dtype, begin + (size_t)k);
        for (int32_t i = 0; i < n_rows; i++)
            sums[i] += (double)x[(ptrdiff_t)i * weight.n_in + k] * w;
    }
}

static void ref_linear(struct backend *backend, const struct linear_args *args)
{
    (void)backend;
    const float *bias = args->bias.data;
    int32_t n_rows = args->out.n_rows;
    assert(args->x.n_cols == args->weight.n_in);
    for (int32_t j = 0; j < args->out.n_cols; j++) {
        int32_t out = args->out_begin + j;
        for (int32_t r = 0; r < n_rows; r += SHARED_ROWS) {
            double sums[SHARED_ROWS];
            int32_t n = n_rows - r < SHARED_ROWS ? n_rows - r : SHARED_ROWS;
            dot_rows(sums, host_row(args->x, r), n, args->weight, out);
            for (int32_t i = 0; i < n; i++) {
                if (bias != NULL) sums[i] += (double)bias[out];
                host_row(args->out, r + i)[j] = (float)sums[i];
            }
        }
    }
}

static void rotate_head(float *x, const float *cosines, const float *sines, int32_t half)
{
    assert(half > 0);
    for (int32_t i = 0; i < half; i++) {
        double low = x[i], high = x[i + half], c = cosines[i], s = sines[i];
        x[i] = (float)(low * c - high * s);
        x[i + half] = (float)(high * c + low * s);
    }
}

static void ref_rope(struct backend *backend, const struct rope_args *args)
{
    const struct batch *batch = backend->batch;
    int32_t half = args->head_dim / 2;
    assert(args->head_dim == 2 * half);
    for (int32_t r = 0; r < args->x.n_rows; r++) {
        int32_t row = args->picked ? batch->picked_row[r] : r;
        const float *angles = host_row(args->table, batch->position[row]);
        float *heads = host_row(args->x, r) + args->col_begin;
        for (int32_t h = 0; h < args->n_heads; h++)
            rotate_head(heads + (ptrdiff_t)h * args->head_dim, angles, angles + half, half);
    }
}

/* ---- attend ---- */

/* What one row sees under one KV head: key j of [0, n_cached + n_fresh). */
struct keys {
    struct kv_rows fresh;
    struct kv_cache cache;
    size_t cached_begin; /* element of the head's first cached row */
    int32_t n_cached, fresh_begin, n_fresh, kv_head;
};

static const float *key_at(const struct keys *keys, int32_t j)
{
    size_t head_dim = (size_t)keys->fresh.head_dim;
    if (j < keys->n_cached)
        return (const float *)keys->cache.keys + keys->cached_begin + (size_t)j * head_dim;
    const float *row = host_row(keys->fresh.x, keys->fresh_begin + j - keys->n_cached);
    return row + keys->fresh.key_col + (size_t)keys->kv_head * head_dim;
}

static const float *value_at(const struct keys *keys, int32_t j)
{
    size_t head_dim = (size_t)keys->fresh.head_dim;
    if (j < keys->n_cached)
        return (const float *)keys->cache.values + keys->cached_begin + (size_t)j * head_dim;
    const float *row = host_row(keys->fresh.x, keys->fresh_begin + j - keys->n_cached);
    return row + keys->fresh.value_col + (size_t)keys->kv_head * head_dim;
}

static double dot(const float *a, const float *b, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* Two passes over the keys instead of a row of scores: the largest score, then the weighted sum. */
static void attend_head(float *out, const float *query, const struct keys *keys, double scale)
{
    int32_t n_keys = keys->n_cached + keys->n_fresh, head_dim = keys->fresh.head_dim;
    double sum[HOST_HEAD_DIM_MAX] = {0};
    double total = 0, largest = -INFINITY;
    assert(n_keys > 0);
    for (int32_t j = 0; j < n_keys; j++)
        largest = fmax(largest, scale * dot(query, key_at(keys, j), head_dim));
    for (int32_t j = 0; j < n_keys; j++) {
        double weight = exp(scale * dot(query, key_at(keys, j), head_dim) - largest);
        const float *value = value_at(keys, j);
        total += weight;
        for (int32_t i = 0; i < head_dim; i++)
            sum[i] += weight * (double)value[i];
    }
    for (int32_t i = 0; i < head_dim; i++)
        out[i] = (float)(sum[i] / total);
}

static struct keys keys_of(const struct kv_rows *fresh, const struct kv_cache *cache,
                           const struct sequence *sequence, int32_t kv_head)
{
    struct keys keys = {.fresh = *fresh,
                        .cache = *cache,
                        .n_cached = sequence->n_cached,
                        .fresh_begin = sequence->row_begin,
                        .n_fresh = sequence->n_rows,
                        .kv_head = kv_head};
    assert(kv_head < fresh->n_kv_heads);
    if (sequence->n_cached > 0)
        keys.cached_begin = host_cache_index(sequence->cache_begin, fresh->n_kv_heads,
                                             fresh->head_dim, sequence->n_cached, kv_head, 0);
    return keys;
}

/* Query row q, which is batch row `row`. */
static void attend_row(const struct attend_args *args, const struct sequence *sequence, int32_t q,
                       int32_t visible_end)
{
    int32_t head_dim = args->fresh.head_dim;
    int32_t group = args->n_heads / args->fresh.n_kv_heads;
    assert(visible_end <= sequence->row_begin + sequence->n_rows);
    for (int32_t h = 0; h < args->n_heads; h++) {
        struct keys keys = keys_of(&args->fresh, &args->cache, sequence, h / group);
        ptrdiff_t col = (ptrdiff_t)h * head_dim;
        keys.n_fresh = visible_end - sequence->row_begin;
        attend_head(host_row(args->out, q) + col, host_row(args->query, q) + args->query_col + col,
                    &keys, (double)args->scale);
    }
}

static void ref_attend(struct backend *backend, const struct attend_args *args)
{
    const struct batch *batch = backend->batch;
    assert(args->n_heads % args->fresh.n_kv_heads == 0);
    for (int32_t i = 0; i < batch->n_sequences; i++) {
        const struct sequence *sequence = &batch->sequences[i];
        int32_t begin = args->picked ? sequence->pick_begin : sequence->row_begin;
        int32_t n = args->picked ? sequence->n_picks : sequence->n_rows;
        for (int32_t q = begin; q < begin + n; q++) {
            int32_t row = args->picked ? batch->picked_row[q] : q;
            attend_row(args, sequence, q, batch->visible_end[row]);
        }
    }
}

/* ---- gated_act, gather_rows ---- */

static void ref_gated_act(struct backend *backend, const struct gated_act_args *args)
{
    (void)backend;
    int32_t n_cols = args->out.n_cols;
    assert(args->x.n_cols == 2 * n_cols);
    for (int32_t r = 0; r < args->out.n_rows; r++) {
        const float *gate = host_row(args->x, r), *up = gate + n_cols;
        float *out = host_row(args->out, r);
        for (int32_t j = 0; j < n_cols; j++) {
            double g = gate[j];
            out[j] = (float)(g / (1 + exp(-g)) * (double)up[j]);
        }
    }
}

static void ref_gather_rows(struct backend *backend, const struct gather_rows_args *args)
{
    const struct batch *batch = backend->batch;
    assert(args->out.n_cols == args->x.n_cols);
    for (int32_t i = 0; i < batch->n_picks; i++)
        memcpy(host_row(args->out, i), host_row(args->x, batch->picked_row[i]),
               (size_t)args->out.n_cols * sizeof(float));
}

/* ---- select_kv ---- */

/* One choice: the candidates of one sequence under one KV head, or under all of them (shared). */
struct choice {
    const struct select_kv_args *args;
    const struct sequence *sequence;
    const struct select_sequence *select;
    int32_t kv_begin, kv_end; /* the KV heads whose mean score decides */
    int32_t n_candidates;
};

/* Candidate c to index of what the sequence sees: the window is left out. */
static int32_t key_of_candidate(const struct choice *choice, int32_t candidate)
{
    int32_t window_begin =
        choice->sequence->n_cached + choice->select->window_begin - choice->sequence->row_begin;
    int32_t n_window = choice->select->window_end - choice->select->window_begin;
    assert(candidate < choice->n_candidates);
    return candidate < window_begin ? candidate : candidate + n_window;
}

/* score[candidate] under one KV head. The mean over the window moves out of the scalar product, so
 * that no mean query need be kept. */
static double head_score(const struct choice *choice, int32_t kv_head, int32_t candidate)
{
    const struct select_kv_args *args = choice->args;
    const struct select_sequence *select = choice->select;
    int32_t group = args->n_heads / args->fresh.n_kv_heads, head_dim = args->fresh.head_dim;
    struct keys keys = keys_of(&args->fresh, &args->cache, choice->sequence, kv_head);
    const float *key = key_at(&keys, key_of_candidate(choice, candidate));
    double best = -INFINITY;
    assert(group > 0);
    for (int32_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        ptrdiff_t col = args->query_col + (ptrdiff_t)h * head_dim;
        double sum = 0;
        for (int32_t r = select->window_begin; r < select->window_end; r++)
            sum += dot(host_row(args->query, r) + col, key, head_dim);
        double mean = sum / (select->window_end - select->window_begin);
        best = fmax(best, mean * (double)args->scale);
    }
    return best;
}

/* -inf outside [0, n_candidates): the padding of the max-pool. */
static float score_at(const struct choice *choice, int32_t candidate)
{
    if (candidate >= choice->n_candidates) return -INFINITY;
    double sum = 0;
    assert(choice->kv_begin < choice->kv_end);
    for (int32_t h = choice->kv_begin; h < choice->kv_end; h++)
        sum += head_score(choice, h, candidate);
    return (float)(sum / (choice->kv_end - choice->kv_begin));
}

/* The pooled scores from candidate 0 on, one a call; each score is computed once a walk. */
struct walk {
    const struct choice *choice;
    int32_t next;
    float before, at; /* scores of candidates next - 1 and next */
};

static struct walk walk_from_start(const struct choice *choice)
{
    return (struct walk){.choice = choice, .before = -INFINITY, .at = score_at(choice, 0)};
}

static float walk_pooled(struct walk *walk)
{
    assert(walk->next < walk->choice->n_candidates);
    walk->next++;
    float after = score_at(walk->choice, walk->next);
    float pooled = fmaxf(fmaxf(walk->before, walk->at), after);
    walk->before = walk->at;
    walk->at = after;
    return pooled;
}

static void keep_candidate(const struct choice *choice, int32_t candidate, int32_t index)
{
    const struct select_kv_args *args = choice->args;
    const struct kv_rows *fresh = &args->fresh;
    int32_t j = key_of_candidate(choice, candidate);
    size_t head_bytes = (size_t)fresh->head_dim * sizeof(float);
    assert(index < choice->select->n_keep);
    for (int32_t h = choice->kv_begin; h < choice->kv_end; h++) {
        struct keys keys = keys_of(fresh, &args->cache, choice->sequence, h);
        size_t to = host_cache_index(choice->select->target_begin, fresh->n_kv_heads,
                                     fresh->head_dim, choice->select->n_keep, h, index);
        memcpy((float *)args->cache.keys + to, key_at(&keys, j), head_bytes);
        memcpy((float *)args->cache.values + to, value_at(&keys, j), head_bytes);
    }
}

static void choose(const struct choice *choice)
{
    struct cut cut;
    if (choice->select->n_keep == choice->n_candidates) {
        for (int32_t c = 0; c < choice->n_candidates; c++)
            keep_candidate(choice, c, c);
        return;
    }
    cut_init(&cut, choice->select->n_keep - 1);
    do {
        struct walk walk = walk_from_start(choice);
        for (int32_t c = 0; c < choice->n_candidates; c++)
            cut_add(&cut, cut_key(walk_pooled(&walk)), 1);
    } while (cut_narrow(&cut));

    struct walk walk = walk_from_start(choice);
    int32_t n_kept = 0, n_ties = cut_n_ties(&cut, 1);
    for (int32_t c = 0; c < choice->n_candidates; c++) {
        uint32_t key = cut_key(walk_pooled(&walk));
        if (key < cut.key || (key == cut.key && n_ties == 0)) continue;
        if (key == cut.key) n_ties--;
        keep_candidate(choice, c, n_kept++);
    }
    assert(n_kept == choice->select->n_keep);
}

static void ref_select_kv(struct backend *backend, const struct select_kv_args *args)
{
    int32_t n_kv_heads = args->fresh.n_kv_heads;
    assert(args->n_heads % n_kv_heads == 0);
    for (int32_t i = 0; i < args->n; i++) {
        const struct select_sequence *select = &args->sequences[i];
        const struct sequence *sequence = &backend->batch->sequences[select->sequence];
        if (select->n_keep == 0) continue;
        struct choice choice = {.args = args, .sequence = sequence, .select = select};
        choice.n_candidates =
            sequence->n_cached + sequence->n_rows - (select->window_end - select->window_begin);
        int32_t n_shared = args->shared ? n_kv_heads : 1;
        for (int32_t h = 0; h < n_kv_heads; h += n_shared) {
            choice.kv_begin = h;
            choice.kv_end = h + n_shared;
            choose(&choice);
        }
    }
}

const struct backend_ops backend_ref_ops = {
    .name = "ref",
    .code = "any processor",
    .open = ref_open,
    .close = host_release,
    .allocate = host_allocate,
    .reserve = host_reserve,
    .weight_bytes = ref_weight_bytes,
    .upload = host_upload,
    .upload_weight = ref_upload_weight,
    .download = host_download,
    .fill_dummy = host_fill_dummy,
    .free_bytes = host_free_bytes,
    .scratch_bytes = ref_scratch_bytes,
    .start_step = host_start_step,
    .submit_step = host_submit_step,
    .finish_step = host_finish_step,
    .embed = ref_embed,
    .rms_norm = ref_rms_norm,
    .linear = ref_linear,
    .rope = ref_rope,
    .store_kv = host_store_kv,
    .attend = ref_attend,
    .gated_act = ref_gated_act,
    .gather_rows = ref_gather_rows,
    .select_kv = ref_select_kv,
    .score = ref_score,
    .commit = host_commit,
};
