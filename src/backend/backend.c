/* Backends by name, and the wrappers of the ops: each states with asserts what its op may be called
 * with, then dispatches, so that no implementation checks again. After a failure the rest of the
 * step's ops do nothing. */
#include "backend/backend.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/host.h"

/* ---- life and memory ---- */

static const struct backend_ops *const known_ops[] = {&backend_ref_ops, &backend_cpu_ops,
                                                      &backend_cuda_ops};

static bool open_with(struct backend *backend, const struct backend_ops *ops,
                      const struct backend_limits *limits, struct error *err)
{
    *backend = (struct backend){.ops = ops};
    if (ops->open(backend, limits, err)) return true;
    *backend = (struct backend){0};
    return false;
}

bool backend_open(struct backend *backend, const char *name, const struct backend_limits *limits,
                  struct error *err)
{
    assert(name != NULL);
    assert(limits->n_threads >= 0);
    if (strcmp(name, "auto") == 0) {
        if (open_with(backend, &backend_cuda_ops, limits, NULL)) return true;
        return open_with(backend, &backend_cpu_ops, limits, err);
    }
    for (size_t i = 0; i < sizeof known_ops / sizeof known_ops[0]; i++) {
        if (strcmp(name, known_ops[i]->name) == 0)
            return open_with(backend, known_ops[i], limits, err);
    }
    return error_set(err, ERROR_USAGE, "unknown backend '%s'; there are auto, cuda, cpu and ref",
                     name);
}

const char *backend_code(const char *name)
{
    for (size_t i = 0; i < sizeof known_ops / sizeof known_ops[0]; i++)
        if (strcmp(name, known_ops[i]->name) == 0) return known_ops[i]->code;
    assert(false && "a known name");
    return NULL;
}

void backend_close(struct backend *backend)
{
    assert(backend->batch == NULL);
    if (backend->ops != NULL) backend->ops->close(backend);
    *backend = (struct backend){0};
}

size_t backend_free_bytes(const struct backend *backend)
{
    assert(backend->ops != NULL);
    return backend->ops->free_bytes(backend);
}

bool backend_allocate(struct backend *backend, const size_t region_bytes[REGION_COUNT],
                      struct error *err)
{
    assert(backend->ops != NULL);
    return backend->ops->allocate(backend, region_bytes, err);
}

void *backend_reserve(struct backend *backend, enum region region, size_t size_bytes)
{
    assert(region < REGION_COUNT);
    void *memory = backend->ops->reserve(backend, region, size_bytes);
    assert(memory != NULL);
    return memory;
}

size_t backend_weight_bytes(const struct backend *backend, int32_t n_out, int32_t n_in,
                            enum dtype dtype)
{
    assert(n_out > 0);
    assert(n_in > 0);
    assert(dtype != DTYPE_I32);
    return backend->ops->weight_bytes(backend, n_out, n_in, dtype);
}

void backend_upload(struct backend *backend, struct matrix target, const void *source)
{
    assert(target.n_rows >= 0);
    assert(target.n_cols >= 0);
    backend->ops->upload(backend, target, source);
}

void backend_upload_weight(struct backend *backend, struct weight target, int32_t out_begin,
                           int32_t n_out, const void *source)
{
    assert(out_begin >= 0);
    assert(n_out >= 0);
    assert(n_out <= target.n_out - out_begin);
    assert(target.dtype != DTYPE_I32);
    backend->ops->upload_weight(backend, target, out_begin, n_out, source);
}

void backend_download(struct backend *backend, void *target, struct matrix source)
{
    assert(source.n_rows >= 0);
    assert(source.n_cols >= 0);
    backend->ops->download(backend, target, source);
}

void backend_fill_dummy(struct backend *backend, const struct dummy_args *args)
{
    assert(args->target.dtype == DTYPE_BF16);
    assert(args->target.data != NULL);
    assert(isfinite(args->scale));
    backend->ops->fill_dummy(backend, args);
}

size_t backend_scratch_bytes(const struct backend *backend, int32_t n_rows_max, int32_t n_picks_max)
{
    assert(n_rows_max > 0);
    assert(n_picks_max >= 0);
    return backend->ops->scratch_bytes(backend, n_rows_max, n_picks_max);
}

/* ---- steps ---- */

static void check_visible(const struct batch *batch, const struct sequence *sequence)
{
    int32_t begin = sequence->row_begin, end = begin + sequence->n_rows;
    for (int32_t r = begin; r < end; r++) {
        assert(batch->canvas_index[r] >= 0);
        assert(batch->position[r] >= 0);
        assert(batch->visible_end[r] >= begin);
        assert(batch->visible_end[r] <= end);
        assert(batch->visible_end[r] - begin + sequence->n_cached > 0); /* softmax of something */
    }
}

static void check_picked(const struct batch *batch, const struct sequence *sequence)
{
    int32_t least = sequence->row_begin, end = least + sequence->n_rows;
    for (int32_t i = 0; i < sequence->n_picks; i++) {
        int32_t row = batch->picked_row[sequence->pick_begin + i];
        assert(row >= least);
        assert(row < end);
        least = row;
    }
}

static void check_batch(const struct batch *batch)
{
    int32_t n_rows = 0, n_picks = 0;
    assert(batch->n_rows > 0);
    for (int32_t i = 0; i < batch->n_sequences; i++) {
        const struct sequence *sequence = &batch->sequences[i];
        assert(sequence->n_rows > 0);
        assert(sequence->n_picks >= 0);
        assert(sequence->row_begin == n_rows);
        assert(sequence->pick_begin == n_picks);
        assert(sequence->n_cached >= 0);
        assert(sequence->n_cached == 0 || sequence->cache_begin >= 0);
        n_rows += sequence->n_rows;
        n_picks += sequence->n_picks;
        assert(n_rows <= batch->n_rows);
        assert(n_picks <= batch->n_picks);
        check_visible(batch, sequence);
        check_picked(batch, sequence);
    }
    assert(n_rows == batch->n_rows);
    assert(n_picks == batch->n_picks);
}

void backend_start_step(struct backend *backend, const struct batch *batch, uint64_t shape_key)
{
    assert(backend->batch == NULL);
    assert(backend->n_submitted < BACKEND_STEPS_MOST);
    check_batch(batch);
    backend->batch = batch;
    backend->ops->start_step(backend, batch, shape_key);
}

void backend_submit_step(struct backend *backend, void *target, struct matrix source)
{
    assert(backend->batch != NULL);
    assert(source.n_rows >= 0);
    assert(target != NULL || source.n_rows == 0);
    backend->ops->submit_step(backend, target, source);
    backend->batch = NULL;
    backend->n_submitted++;
}

bool backend_finish_step(struct backend *backend, uint64_t *device_ns, struct error *err)
{
    struct error late = {0};
    if (backend->batch != NULL) backend_submit_step(backend, NULL, (struct matrix){0});
    assert(backend->n_submitted > 0);
    bool is_done = backend->ops->finish_step(backend, device_ns, &late);
    struct error first = backend->failure.code != ERROR_NONE ? backend->failure : late;
    backend->n_submitted--;
    backend->failure = (struct error){0};
    if (is_done && first.code == ERROR_NONE) return true;
    return error_set(err, first.code, "%s", first.message);
}

/* ---- what ops have in common ---- */

/* An op inside a step; false: a failure is latched and the op must do nothing. */
static bool is_live(const struct backend *backend)
{
    assert(backend->batch != NULL);
    return backend->failure.code == ERROR_NONE;
}

static void check_matrix(struct matrix matrix, enum dtype dtype)
{
    assert(matrix.dtype == dtype);
    assert(matrix.n_rows >= 0);
    assert(matrix.n_cols > 0);
    assert(matrix.data != NULL || matrix.n_rows == 0);
}

/* Activations. */
static void check_rows(const struct backend *backend, struct matrix matrix)
{
    check_matrix(matrix, backend->activation);
}

/* Heads [0, n_heads) from column `col` of a matrix. */
static void check_heads(const struct backend *backend, struct matrix x, int32_t col,
                        int32_t n_heads, int32_t head_dim)
{
    check_rows(backend, x);
    assert(head_dim > 0);
    assert(head_dim <= HOST_HEAD_DIM_MAX);
    assert(n_heads > 0);
    assert(col >= 0);
    assert(n_heads <= (x.n_cols - col) / head_dim);
}

static void check_fresh(const struct backend *backend, const struct kv_rows *fresh)
{
    assert(fresh->x.n_rows == backend->batch->n_rows);
    check_heads(backend, fresh->x, fresh->key_col, fresh->n_kv_heads, fresh->head_dim);
    check_heads(backend, fresh->x, fresh->value_col, fresh->n_kv_heads, fresh->head_dim);
}

/* Slots [begin, begin + n) lie in the cache. */
static void check_extent(const struct kv_cache *cache, int64_t begin, int32_t n)
{
    assert(n >= 0);
    if (n == 0) return;
    assert(cache->keys != NULL);
    assert(cache->values != NULL);
    assert(begin >= 0);
    assert(begin <= cache->n_slots - n);
}

static int32_t n_op_rows(const struct backend *backend, bool picked)
{
    return picked ? backend->batch->n_picks : backend->batch->n_rows;
}

/* ---- the eleven ops ---- */

void backend_embed(struct backend *backend, const struct embed_args *args)
{
    bool live = is_live(backend);
    const struct batch *batch = backend->batch;
    check_rows(backend, args->out);
    assert(args->out.n_rows == batch->n_rows);
    assert(args->out.n_cols == args->table.n_cols);
    assert(args->table.dtype != DTYPE_I32);
    assert(args->canvas.dtype == DTYPE_I32);
    assert(args->canvas.n_cols == 1);
    for (int32_t r = 0; r < batch->n_rows; r++)
        assert(batch->canvas_index[r] < args->canvas.n_rows);
    if (live) backend->ops->embed(backend, args);
}

void backend_rms_norm(struct backend *backend, const struct rms_norm_args *args)
{
    bool live = is_live(backend);
    check_rows(backend, args->out);
    check_rows(backend, args->x);
    check_matrix(args->weight, DTYPE_F32);
    assert(args->x.n_rows == args->out.n_rows);
    assert(args->x.n_cols == args->out.n_cols);
    assert(args->weight.n_rows == 1);
    assert(args->weight.n_cols == args->out.n_cols);
    assert(args->epsilon >= 0);
    if (args->add.data != NULL) {
        check_rows(backend, args->add);
        assert(args->add.n_rows == args->out.n_rows);
        assert(args->add.n_cols == args->out.n_cols);
    }
    if (args->sum.data != NULL) {
        check_rows(backend, args->sum);
        assert(args->sum.n_rows == args->out.n_rows);
        assert(args->sum.n_cols == args->out.n_cols);
    }
    if (live) backend->ops->rms_norm(backend, args);
}

void backend_linear(struct backend *backend, const struct linear_args *args)
{
    bool live = is_live(backend);
    check_matrix(args->out, args->out.dtype == DTYPE_F32 ? DTYPE_F32 : backend->activation);
    check_rows(backend, args->x);
    assert(args->out.n_rows == args->x.n_rows);
    assert(args->out.data != args->x.data || args->out.n_rows == 0);
    assert(args->x.n_cols == args->weight.n_in);
    assert(args->weight.dtype != DTYPE_I32);
    assert(args->out_begin >= 0);
    assert(args->out.n_cols <= args->weight.n_out - args->out_begin);
    if (args->bias.data != NULL) {
        check_matrix(args->bias, DTYPE_F32);
        assert(args->bias.n_rows == 1);
        assert(args->bias.n_cols == args->weight.n_out);
    }
    if (live) backend->ops->linear(backend, args);
}

void backend_rope(struct backend *backend, const struct rope_args *args)
{
    bool live = is_live(backend);
    const struct batch *batch = backend->batch;
    check_heads(backend, args->x, args->col_begin, args->n_heads, args->head_dim);
    assert(args->head_dim % 2 == 0);
    assert(args->x.n_rows == n_op_rows(backend, args->picked));
    check_matrix(args->table, DTYPE_F32);
    assert(args->table.n_cols == args->head_dim);
    for (int32_t r = 0; r < batch->n_rows; r++)
        assert(batch->position[r] < args->table.n_rows);
    if (live) backend->ops->rope(backend, args);
}

void backend_store_kv(struct backend *backend, const struct store_kv_args *args)
{
    bool live = is_live(backend);
    check_fresh(backend, &args->fresh);
    assert(args->n >= 0);
    for (int32_t i = 0; i < args->n; i++) {
        const struct store_row *store = &args->rows[i];
        assert(store->row >= 0);
        assert(store->row < backend->batch->n_rows);
        assert(store->index >= 0);
        assert(store->index < store->n);
        check_extent(&args->cache, store->cache_begin, store->n);
    }
    if (live) backend->ops->store_kv(backend, args);
}

void backend_attend(struct backend *backend, const struct attend_args *args)
{
    bool live = is_live(backend);
    const struct batch *batch = backend->batch;
    check_fresh(backend, &args->fresh);
    check_heads(backend, args->query, args->query_col, args->n_heads, args->fresh.head_dim);
    check_rows(backend, args->out);
    assert(args->out.n_rows == n_op_rows(backend, args->picked));
    assert(args->query.n_rows == args->out.n_rows);
    assert(args->out.n_cols == args->n_heads * args->fresh.head_dim);
    assert(args->n_heads % args->fresh.n_kv_heads == 0);
    assert(args->out.data != args->query.data || args->out.n_rows == 0);
    for (int32_t i = 0; i < batch->n_sequences; i++)
        check_extent(&args->cache, batch->sequences[i].cache_begin, batch->sequences[i].n_cached);
    if (live) backend->ops->attend(backend, args);
}

void backend_gated_act(struct backend *backend, const struct gated_act_args *args)
{
    bool live = is_live(backend);
    check_rows(backend, args->out);
    check_rows(backend, args->x);
    assert(args->x.n_rows == args->out.n_rows);
    assert(args->x.n_cols == 2 * args->out.n_cols);
    assert(args->x.data != args->out.data || args->out.n_rows == 0);
    if (live) backend->ops->gated_act(backend, args);
}

void backend_gather_rows(struct backend *backend, const struct gather_rows_args *args)
{
    bool live = is_live(backend);
    check_rows(backend, args->out);
    check_rows(backend, args->x);
    assert(args->x.n_rows == backend->batch->n_rows);
    assert(args->out.n_rows == backend->batch->n_picks);
    assert(args->out.n_cols == args->x.n_cols);
    assert(args->x.data != args->out.data || args->out.n_rows == 0);
    if (live) backend->ops->gather_rows(backend, args);
}

static void check_select(const struct batch *batch, const struct select_kv_args *args,
                         const struct select_sequence *select)
{
    assert(select->sequence >= 0);
    assert(select->sequence < batch->n_sequences);
    const struct sequence *sequence = &batch->sequences[select->sequence];
    int32_t n_window = select->window_end - select->window_begin;
    assert(n_window > 0);
    assert(select->window_begin >= sequence->row_begin);
    assert(select->window_end <= sequence->row_begin + sequence->n_rows);
    assert(select->n_keep >= 0);
    assert(select->n_keep <= sequence->n_cached + sequence->n_rows - n_window);
    check_extent(&args->cache, select->target_begin, select->n_keep);
    check_extent(&args->cache, sequence->cache_begin, sequence->n_cached);
    if (select->n_keep == 0 || sequence->n_cached == 0) return;
    bool is_apart = select->target_begin >= sequence->cache_begin + sequence->n_cached ||
                    select->target_begin + select->n_keep <= sequence->cache_begin;
    assert(is_apart);
}

void backend_select_kv(struct backend *backend, const struct select_kv_args *args)
{
    bool live = is_live(backend);
    check_fresh(backend, &args->fresh);
    check_heads(backend, args->query, args->query_col, args->n_heads, args->fresh.head_dim);
    assert(args->query.n_rows == backend->batch->n_rows);
    assert(args->n_heads % args->fresh.n_kv_heads == 0);
    assert(args->n >= 0);
    for (int32_t i = 0; i < args->n; i++)
        check_select(backend->batch, args, &args->sequences[i]);
    if (live) backend->ops->select_kv(backend, args);
}

static void check_score_row(const struct score_args *args, const struct score_row *row)
{
    assert(row->uncond_row >= -1);
    assert(row->uncond_row < args->hidden.n_rows);
    assert(isfinite(row->cfg_scale));
    assert(row->temperature >= 0);
    assert(isfinite(row->temperature));
    assert(row->top_p >= 0);
    assert(row->top_p <= 1);
    assert(row->top_k >= 0);
    assert(row->n_suppressed >= 0);
    assert(row->n_suppressed <= SCORE_SUPPRESSED_MAX);
    assert(row->n_confidence_suppressed >= 0);
    assert(row->n_confidence_suppressed <= SCORE_SUPPRESSED_MAX);
}

void backend_score(struct backend *backend, const struct score_args *args)
{
    bool live = is_live(backend);
    check_rows(backend, args->hidden);
    assert(args->n >= 0);
    assert(args->n <= args->hidden.n_rows);
    assert(args->hidden.n_cols == args->head.n_in);
    assert(args->head.dtype != DTYPE_I32);
    assert(args->n_vocab > 0);
    assert(args->n_vocab <= args->head.n_out);
    for (int32_t i = 0; i < args->n; i++)
        check_score_row(args, &args->rows[i]);
    if (live) backend->ops->score(backend, args);
}

static void check_commit(const struct commit_args *args, const struct commit_request *request)
{
    assert(request->pick_begin >= 0);
    assert(request->n_picks >= 0);
    assert(request->n_commit >= 0);
    assert(request->order_temperature >= 0);
    for (int32_t i = 0; i < request->n_picks; i++) {
        int32_t pick = request->pick_begin + i;
        assert(args->cell[pick] >= 0);
        assert(args->cell[pick] < args->canvas.n_rows);
        assert(args->twin_cell[pick] >= -1);
        assert(args->twin_cell[pick] < args->canvas.n_rows);
        /* Ties go to the lower position, and backends read that off the index. */
        assert(i == 0 || args->position[pick] > args->position[pick - 1]);
    }
}

void backend_commit(struct backend *backend, const struct commit_args *args)
{
    bool live = is_live(backend);
    assert(args->canvas.dtype == DTYPE_I32);
    assert(args->canvas.n_cols == 1);
    assert(args->n >= 0);
    for (int32_t i = 0; i < args->n; i++)
        check_commit(args, &args->requests[i]);
    if (live) backend->ops->commit(backend, args);
}
