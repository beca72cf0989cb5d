/* The eleven ops as launches: arguments of backend.h become device pointers and shapes. Statuses
 * are latched, so that an op cannot fail at the call. */
#include <assert.h>

#include "cuda/cuda_state.cuh"

/* ---- rows ---- */

void cuda_embed(struct backend *backend, const struct embed_args *args)
{
    struct cuda *cuda = cuda_of(backend);
    struct embed_index index = {(const int32_t *)args->canvas.data, cuda->batch.canvas_index,
                                args->out.n_rows, args->out.n_cols};
    CUDA_ISSUE(backend, args->out.data,
               launch_embed((bf16 *)args->out.data, args->table.data, args->table.dtype, index,
                            cuda->stream),
               "embed");
}

void cuda_rms_norm(struct backend *backend, const struct rms_norm_args *args)
{
    struct norm_shape shape = {(const float *)args->weight.data, args->epsilon, args->out.n_rows,
                               args->out.n_cols};
    CUDA_ISSUE(backend, args->out.data,
               launch_rms_norm(&shape, (bf16 *)args->out.data, (bf16 *)args->sum.data,
                               (const bf16 *)args->x.data, (const bf16 *)args->add.data,
                               cuda_of(backend)->stream),
               "rms_norm");
}

static void multiply(struct backend *backend, const struct gemm_call *call)
{
    struct cuda *cuda = cuda_of(backend);
    if (cuda_issues(backend, call->out))
        gemm_run(&cuda->gemm, call, cuda->stream, &backend->failure);
}

void cuda_linear(struct backend *backend, const struct linear_args *args)
{
    const float *bias = (const float *)args->bias.data;
    size_t begin = (size_t)args->out_begin;
    struct gemm_call call = {.out = args->out.data,
                             .out_dtype = args->out.dtype,
                             .x = (const bf16 *)args->x.data,
                             .w = (const bf16 *)args->weight.data +
                                  begin * (size_t)args->weight.n_in,
                             .bias = bias ? bias + begin : NULL,
                             .n_rows = args->out.n_rows,
                             .n_out = args->out.n_cols,
                             .n_in = args->weight.n_in};
    multiply(backend, &call);
}

void cuda_rope(struct backend *backend, const struct rope_args *args)
{
    struct cuda *cuda = cuda_of(backend);
    struct rope_shape shape = {.table = (const float *)args->table.data,
                               .position = cuda->batch.position,
                               .row_of = args->picked ? cuda->batch.picked_row : NULL,
                               .n_rows = args->x.n_rows,
                               .n_cols = args->x.n_cols,
                               .col_begin = args->col_begin,
                               .n_heads = args->n_heads,
                               .head_dim = args->head_dim};
    CUDA_ISSUE(backend, args->x.data, launch_rope((bf16 *)args->x.data, &shape, cuda->stream),
               "rope");
}

void cuda_gated_act(struct backend *backend, const struct gated_act_args *args)
{
    CUDA_ISSUE(backend, args->out.data,
               launch_gated_act((bf16 *)args->out.data, (const bf16 *)args->x.data,
                                args->out.n_rows, args->out.n_cols, cuda_of(backend)->stream),
               "gated_act");
}

void cuda_gather_rows(struct backend *backend, const struct gather_rows_args *args)
{
    struct cuda *cuda = cuda_of(backend);
    CUDA_ISSUE(backend, args->out.data,
               launch_gather_rows((bf16 *)args->out.data, (const bf16 *)args->x.data,
                                  cuda->batch.picked_row, args->out.n_rows, args->out.n_cols,
                                  cuda->stream),
               "gather_rows");
}

/* ---- keys and values ---- */

static struct fresh_kv fresh_of(const struct kv_rows *rows)
{
    return {(const bf16 *)rows->x.data, rows->x.n_cols, rows->key_col, rows->value_col,
            rows->n_kv_heads,           rows->head_dim};
}

void cuda_store_kv(struct backend *backend, const struct store_kv_args *args)
{
    struct fresh_kv fresh = fresh_of(&args->fresh);
    const struct store_row *rows = STAGE(backend, args->rows, (size_t)args->n);
    CUDA_ISSUE(backend, args->cache.keys,
               launch_store_kv((bf16 *)args->cache.keys, (bf16 *)args->cache.values, &fresh, rows,
                               args->n, cuda_of(backend)->stream),
               "store_kv");
}

static struct attend_partials partials_of(const struct cuda *cuda, int32_t n)
{
    size_t n_max = (size_t)cuda->n_partials_max;
    float *shift = cuda->partials + n_max * ATTEND_SLICED_HEAD_DIM;
    return {cuda->partials, shift, shift + n_max, n};
}

void cuda_attend(struct backend *backend, const struct attend_args *args)
{
    struct cuda *cuda = cuda_of(backend);
    struct attend_cut cut = cuda->batch.cut[args->picked];
    int32_t n_each = heuristics_attend_heads(args->n_heads, cut.n_partials, cuda->n_partials_max);
    struct attend_launch launch = {.out = (bf16 *)args->out.data,
                                   .query = (const bf16 *)args->query.data,
                                   .query_cols = args->query.n_cols,
                                   .query_col = args->query_col,
                                   .n_heads = args->n_heads,
                                   .fresh = fresh_of(&args->fresh),
                                   .cached_keys = (const bf16 *)args->cache.keys,
                                   .cached_values = (const bf16 *)args->cache.values,
                                   .items = cuda->batch.items[args->picked],
                                   .n_items = cut.n_items,
                                   .n_whole = cut.n_whole,
                                   .partials = partials_of(cuda, cut.n_partials),
                                   .visible_end = cuda->batch.visible_end,
                                   .row_of = args->picked ? cuda->batch.picked_row : NULL,
                                   .scale = args->scale};
    for (int32_t head = 0; head < args->n_heads; head += n_each) {
        int32_t left = args->n_heads - head;
        launch.head_begin = head;
        launch.n_heads_now = left < n_each ? left : n_each;
        CUDA_ISSUE(backend, args->out.data, launch_attend(&launch, cuda->stream), "attend");
    }
}

static int32_t most_candidates(const struct batch *batch, const struct select_kv_args *args)
{
    int32_t most = 0;
    for (int32_t i = 0; i < args->n; i++) {
        const struct select_sequence *select = &args->sequences[i];
        const struct sequence *sequence = &batch->sequences[select->sequence];
        int32_t n =
            sequence->n_cached + sequence->n_rows - (select->window_end - select->window_begin);
        if (n > most) most = n;
    }
    return most;
}

void cuda_select_kv(struct backend *backend, const struct select_kv_args *args)
{
    struct cuda *cuda = cuda_of(backend);
    assert(cuda->graphs.key == 0); /* the most candidates are part of the launch */
    struct select_launch launch = {.keys = (bf16 *)args->cache.keys,
                                   .values = (bf16 *)args->cache.values,
                                   .fresh = fresh_of(&args->fresh),
                                   .query = (const bf16 *)args->query.data,
                                   .query_cols = args->query.n_cols,
                                   .query_col = args->query_col,
                                   .n_heads = args->n_heads,
                                   .sequences = cuda->batch.sequences,
                                   .selects = STAGE(backend, args->sequences, (size_t)args->n),
                                   .n = args->n,
                                   .n_candidates_max = most_candidates(backend->batch, args),
                                   .scale = args->scale,
                                   .shared = args->shared};
    nvtxRangePushA("select");
    CUDA_ISSUE(backend, args->cache.keys, launch_select_kv(&launch, cuda->stream), "select_kv");
    nvtxRangePop();
}

/* ---- the vocabulary ---- */

/* Rows of score that go together: those of `hidden` and, under CFG, of their twins. */
struct score_chunk {
    int32_t begin, n_rows;
    int32_t uncond_begin, n_uncond; /* rows of hidden; n_uncond 0: none */
    const struct score_row *rows;   /* device */
    const int32_t *uncond_index;    /* device; NULL: none */
};

static void feed_tile(struct backend *backend, const struct score_args *args,
                      const struct score_chunk *chunk, int32_t first_id)
{
    struct cuda *cuda = cuda_of(backend);
    size_t n_in = (size_t)args->head.n_in;
    const bf16 *hidden = (const bf16 *)args->hidden.data;
    int32_t left = args->n_vocab - first_id, n_ids = left < CUDA_SCORE_IDS ? left : CUDA_SCORE_IDS;
    struct gemm_call call = {.out = cuda->logits,
                             .out_dtype = DTYPE_F32,
                             .x = hidden + (size_t)chunk->begin * n_in,
                             .w = (const bf16 *)args->head.data + (size_t)first_id * n_in,
                             .bias = NULL,
                             .n_rows = chunk->n_rows,
                             .n_out = n_ids,
                             .n_in = args->head.n_in};
    multiply(backend, &call);
    if (chunk->n_uncond > 0) {
        call.out = cuda->uncond;
        call.x = hidden + (size_t)chunk->uncond_begin * n_in;
        call.n_rows = chunk->n_uncond;
        multiply(backend, &call);
    }
    struct score_tile tile = {.logits = cuda->logits,
                              .uncond = chunk->n_uncond > 0 ? cuda->uncond : NULL,
                              .uncond_index = chunk->uncond_index,
                              .ld = n_ids,
                              .first_id = first_id,
                              .n_ids = n_ids,
                              .n_rows = chunk->n_rows};
    CUDA_ISSUE(
        backend, cuda->score_states,
        launch_score_feed(cuda->score_states, chunk->rows, tile, args->mask_id, cuda->stream),
        "score");
}

static void score_chunk(struct backend *backend, const struct score_args *args,
                        const struct score_chunk *chunk)
{
    struct cuda *cuda = cuda_of(backend);
    int32_t n_passes = heuristics_score_passes(args->rows + chunk->begin, chunk->n_rows);
    cudaStream_t stream = cuda->stream;
    void *states = cuda->score_states;
    CUDA_ISSUE(backend, states, launch_score_init(states, chunk->rows, chunk->n_rows, stream),
               "score");
    for (int32_t pass = 0; pass < n_passes; pass++) {
        for (int32_t id = 0; id < args->n_vocab; id += CUDA_SCORE_IDS)
            feed_tile(backend, args, chunk, id);
        CUDA_ISSUE(backend, states, launch_score_next(states, chunk->rows, chunk->n_rows, stream),
                   "score");
    }
    CUDA_ISSUE(
        backend, args->picks,
        launch_score_finish(args->picks + chunk->begin, states, chunk->rows, chunk->n_rows, stream),
        "score");
}

void cuda_score(struct backend *backend, const struct score_args *args)
{
    struct cuda *cuda = cuda_of(backend);
    uint64_t key = heuristics_score_key(cuda->graphs.key, args->rows, args->n, cuda->n_score_rows);
    graphs_cut(backend, key);
    cuda_name_next("score");
    const struct score_row *rows = STAGE(backend, args->rows, (size_t)args->n);
    struct score_chunk chunk = {};
    while (chunk.begin < args->n) {
        int32_t indices[CUDA_SCORE_ROWS];
        chunk.n_rows = heuristics_score_chunk(args->rows, chunk.begin, args->n, cuda->n_score_rows,
                                              &chunk.uncond_begin, &chunk.n_uncond);
        chunk.rows = rows + chunk.begin;
        chunk.uncond_index = NULL;
        for (int32_t i = 0; i < chunk.n_rows; i++) {
            int32_t uncond = args->rows[chunk.begin + i].uncond_row;
            indices[i] = uncond < 0 ? -1 : uncond - chunk.uncond_begin;
        }
        if (chunk.n_uncond > 0)
            chunk.uncond_index = STAGE_ONCE(backend, indices, (size_t)chunk.n_rows);
        score_chunk(backend, args, &chunk);
        chunk.begin += chunk.n_rows;
    }
}

void cuda_commit(struct backend *backend, const struct commit_args *args)
{
    struct cuda *cuda = cuda_of(backend);
    size_t n_picks = 0, n_room = (size_t)backend->batch->n_picks;
    for (int32_t i = 0; i < args->n; i++) {
        size_t end = (size_t)(args->requests[i].pick_begin + args->requests[i].n_picks);
        if (end > n_picks) n_picks = end;
    }
    if (n_room < n_picks) n_room = n_picks;
    cuda_name_next("commit");
    struct commit_launch launch = {.canvas = (int32_t *)args->canvas.data,
                                   .picks = args->picks,
                                   .cell = STAGE_ROOM(backend, args->cell, n_picks, n_room),
                                   .twin_cell =
                                       STAGE_ROOM(backend, args->twin_cell, n_picks, n_room),
                                   .position = STAGE_ROOM(backend, args->position, n_picks, n_room),
                                   .requests = STAGE(backend, args->requests, (size_t)args->n),
                                   .n = args->n,
                                   .mask_id = args->mask_id};
    CUDA_ISSUE(backend, args->canvas.data, launch_commit(&launch, cuda->stream), "commit");
}
