/* attend split into tasks (sequence, KV head, some of its query heads, some queries), and
 * select_kv, one task per sequence and choice. Tasks share nothing that they write. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/cpu.h"

/* The keys and values that a sequence's rows see under a KV head: cached rows, then fresh ones. */
static void find_keys(struct cpu_key_run runs[2], const struct kv_rows *fresh,
                      const struct kv_cache *cache, const struct sequence *sequence,
                      int32_t kv_head)
{
    const ptrdiff_t col = (ptrdiff_t)kv_head * fresh->head_dim;
    assert(kv_head < fresh->n_kv_heads);
    runs[0] = (struct cpu_key_run){.stride = (size_t)fresh->head_dim, .n = sequence->n_cached};
    if (sequence->n_cached > 0) {
        size_t begin = host_cache_index(sequence->cache_begin, fresh->n_kv_heads, fresh->head_dim,
                                        sequence->n_cached, kv_head, 0);
        runs[0].keys = (const float *)cache->keys + begin;
        runs[0].values = (const float *)cache->values + begin;
    }
    const float *first = host_row(fresh->x, sequence->row_begin);
    runs[1] = (struct cpu_key_run){.keys = first + fresh->key_col + col,
                                   .values = first + fresh->value_col + col,
                                   .stride = (size_t)fresh->x.n_cols,
                                   .n = sequence->n_rows};
}

/* ---- attend ---- */

/* Tasks are numbered as a box [sequence][KV head][part of its query heads][chunk of queries]; short
 * sequences leave the box partly empty. */
struct attend_split {
    const struct cpu *cpu;
    const struct batch *batch;
    const struct attend_args *args;
    int32_t group;      /* query heads per KV head */
    int32_t part_heads; /* query heads of a task */
    int32_t chunk;      /* queries of a task */
    int32_t n_parts, n_chunks;
};

static int32_t count_queries(const struct attend_split *split, const struct sequence *sequence)
{
    return split->args->picked ? sequence->n_picks : sequence->n_rows;
}

static int32_t most_queries(const struct attend_split *split)
{
    int32_t most = 0;
    for (int32_t i = 0; i < split->batch->n_sequences; i++) {
        int32_t n = count_queries(split, &split->batch->sequences[i]);
        most = n > most ? n : most;
    }
    return most;
}

/* Few heads of a group at a time, so that many queries fit a task and share its packed keys; fewer
 * queries when there would be too few tasks for the threads. Chunks are whole tiles: which rows
 * share a tile does not change with the split. */
static void choose_chunk(struct attend_split *split)
{
    const int32_t tile = split->cpu->kernels->tile_rows;
    const int32_t n_most = most_queries(split);
    int32_t n_wanted = 4 * workers_count(split->cpu->workers);
    int32_t n_outer = split->batch->n_sequences * split->args->fresh.n_kv_heads;
    split->part_heads = split->group < 4 ? split->group : 4;
    split->n_parts = (split->group + split->part_heads - 1) / split->part_heads;
    split->chunk = CPU_ROW_BLOCK / split->part_heads / tile * tile;
    assert(split->chunk >= tile);
    for (;;) {
        split->n_chunks = (n_most + split->chunk - 1) / split->chunk;
        bool is_enough = n_outer * split->n_parts * split->n_chunks >= n_wanted;
        if (is_enough || split->chunk <= 4 * tile) return;
        split->chunk = split->chunk / 2 / tile * tile;
    }
}

static void attend_task(void *context, int32_t item, int32_t worker)
{
    const struct attend_split *split = context;
    const struct attend_args *args = split->args;
    const struct batch *batch = split->batch;
    int32_t chunk = item % split->n_chunks, rest = item / split->n_chunks;
    int32_t part = rest % split->n_parts, outer = rest / split->n_parts;
    int32_t kv_head = outer % args->fresh.n_kv_heads;
    const struct sequence *sequence = &batch->sequences[outer / args->fresh.n_kv_heads];
    int32_t first = chunk * split->chunk, n = count_queries(split, sequence) - first;
    if (n <= 0) return;
    if (n > split->chunk) n = split->chunk;
    first += args->picked ? sequence->pick_begin : sequence->row_begin;

    int32_t visible[CPU_ROW_BLOCK];
    assert(n <= CPU_ROW_BLOCK);
    for (int32_t i = 0; i < n; i++) {
        int32_t row = args->picked ? batch->picked_row[first + i] : first + i;
        visible[i] = sequence->n_cached + batch->visible_end[row] - sequence->row_begin;
    }
    int32_t head = kv_head * split->group + part * split->part_heads;
    int32_t head_end = (kv_head + 1) * split->group;
    ptrdiff_t col = (ptrdiff_t)head * args->fresh.head_dim;
    struct cpu_attention task = {.out = host_row(args->out, first) + col,
                                 .out_stride = (size_t)args->out.n_cols,
                                 .query = host_row(args->query, first) + args->query_col + col,
                                 .query_stride = (size_t)args->query.n_cols,
                                 .n_queries = n,
                                 .n_heads = head_end - head < split->part_heads ? head_end - head
                                                                                : split->part_heads,
                                 .visible = visible,
                                 .head_dim = args->fresh.head_dim,
                                 .scale = args->scale,
                                 .scratch = cpu_tiles(split->cpu, worker)};
    find_keys(task.runs, &args->fresh, &args->cache, sequence, kv_head);
    split->cpu->kernels->attend(&task);
}

void cpu_attend(struct backend *backend, const struct attend_args *args)
{
    if (args->out.n_rows == 0) return;
    struct cpu *cpu = cpu_of(backend);
    struct attend_split split = {.cpu = cpu, .batch = backend->batch, .args = args};
    split.group = args->n_heads / args->fresh.n_kv_heads;
    assert(split.group > 0);
    choose_chunk(&split);
    int32_t n_outer = backend->batch->n_sequences * args->fresh.n_kv_heads;
    workers_for(cpu->workers, n_outer * split.n_parts * split.n_chunks, attend_task, &split);
}

/* ---- select_kv ---- */

/* One choice: the candidates of one sequence under one KV head, or under all of them (shared). */
struct choice {
    const struct select_kv_args *args;
    const struct sequence *sequence;
    const struct select_sequence *select;
    int32_t kv_begin, kv_end;
    int32_t n_candidates;
    float *scores; /* [n_candidates] */
};

/* Number of candidate c among the keys that the sequence sees: the window is left out. */
static int32_t key_of_candidate(const struct choice *choice, int32_t candidate)
{
    const struct select_sequence *select = choice->select;
    int32_t window_begin =
        choice->sequence->n_cached + select->window_begin - choice->sequence->row_begin;
    assert(candidate < choice->n_candidates);
    if (candidate < window_begin) return candidate;
    return candidate + select->window_end - select->window_begin;
}

static const float *run_row(const struct cpu_key_run runs[2], int32_t key, const float **value)
{
    const struct cpu_key_run *run = &runs[key >= runs[0].n];
    size_t offset = (size_t)(run == runs ? key : key - runs[0].n) * run->stride;
    *value = run->values + offset;
    return run->keys + offset;
}

static void average_query(const struct choice *choice, int32_t head, float *mean)
{
    const struct select_kv_args *args = choice->args;
    const struct select_sequence *select = choice->select;
    int32_t head_dim = args->fresh.head_dim;
    ptrdiff_t col = args->query_col + (ptrdiff_t)head * head_dim;
    double sum[HOST_HEAD_DIM_MAX] = {0};
    assert(select->window_begin < select->window_end);
    for (int32_t r = select->window_begin; r < select->window_end; r++) {
        const float *query = host_row(args->query, r) + col;
        for (int32_t d = 0; d < head_dim; d++)
            sum[d] += (double)query[d];
    }
    for (int32_t d = 0; d < head_dim; d++)
        mean[d] = (float)(sum[d] / (select->window_end - select->window_begin));
}

/* scores[c] += the KV head's score of candidate c. */
static void add_head_scores(const struct choice *choice, const struct cpu_kernels *kernels,
                            int32_t kv_head)
{
    const struct select_kv_args *args = choice->args;
    const int32_t group = args->n_heads / args->fresh.n_kv_heads, head_dim = args->fresh.head_dim;
    struct cpu_key_run runs[2];
    float mean[HOST_HEAD_DIM_MAX];
    assert(group > 0);
    find_keys(runs, &args->fresh, &args->cache, choice->sequence, kv_head);
    float *scores = choice->scores, *best = scores + choice->n_candidates;
    for (int32_t c = 0; c < choice->n_candidates; c++)
        best[c] = -INFINITY;
    for (int32_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        average_query(choice, h, mean);
        for (int32_t c = 0; c < choice->n_candidates; c++) {
            const float *value, *key = run_row(runs, key_of_candidate(choice, c), &value);
            best[c] = fmaxf(best[c], kernels->dot(mean, key, head_dim) * args->scale);
        }
    }
    for (int32_t c = 0; c < choice->n_candidates; c++)
        scores[c] += best[c];
}

/* Max-pool 3, stride 1, nothing beyond the ends. */
static float pooled_score(const struct choice *choice, int32_t c)
{
    float pooled = choice->scores[c];
    assert(c < choice->n_candidates);
    if (c > 0) pooled = fmaxf(pooled, choice->scores[c - 1]);
    if (c + 1 < choice->n_candidates) pooled = fmaxf(pooled, choice->scores[c + 1]);
    return pooled;
}

static void keep_candidate(const struct choice *choice, int32_t candidate, int32_t index)
{
    const struct select_kv_args *args = choice->args;
    const struct kv_rows *fresh = &args->fresh;
    int32_t key_index = key_of_candidate(choice, candidate);
    size_t head_bytes = (size_t)fresh->head_dim * sizeof(float);
    assert(index < choice->select->n_keep);
    for (int32_t h = choice->kv_begin; h < choice->kv_end; h++) {
        struct cpu_key_run runs[2];
        find_keys(runs, fresh, &args->cache, choice->sequence, h);
        size_t to = host_cache_index(choice->select->target_begin, fresh->n_kv_heads,
                                     fresh->head_dim, choice->select->n_keep, h, index);
        const float *value, *key = run_row(runs, key_index, &value);
        memcpy((float *)args->cache.keys + to, key, head_bytes);
        memcpy((float *)args->cache.values + to, value, head_bytes);
    }
}

static void keep_all(const struct choice *choice)
{
    assert(choice->select->n_keep == choice->n_candidates);
    for (int32_t c = 0; c < choice->n_candidates; c++)
        keep_candidate(choice, c, c);
}

static void keep_largest(const struct choice *choice)
{
    struct cut cut;
    cut_init(&cut, choice->select->n_keep - 1);
    do {
        for (int32_t c = 0; c < choice->n_candidates; c++)
            cut_add(&cut, cut_key(pooled_score(choice, c)), 1);
    } while (cut_narrow(&cut));
    int32_t n_kept = 0, n_ties = cut_n_ties(&cut, 1);
    for (int32_t c = 0; c < choice->n_candidates; c++) {
        uint32_t key = cut_key(pooled_score(choice, c));
        if (key < cut.key || (key == cut.key && n_ties == 0)) continue;
        if (key == cut.key) n_ties--;
        keep_candidate(choice, c, n_kept++);
    }
    assert(n_kept == choice->select->n_keep);
}

struct select_split {
    const struct cpu *cpu;
    const struct batch *batch;
    const struct select_kv_args *args;
    int32_t n_choices; /* per sequence */
};

static void select_task(void *context, int32_t item, int32_t worker)
{
    const struct select_split *split = context;
    const struct select_kv_args *args = split->args;
    const struct select_sequence *select = &args->sequences[item / split->n_choices];
    if (select->n_keep == 0) return;
    int32_t n_heads = args->fresh.n_kv_heads / split->n_choices;
    struct choice choice = {.args = args,
                            .sequence = &split->batch->sequences[select->sequence],
                            .select = select,
                            .kv_begin = item % split->n_choices * n_heads,
                            .scores = cpu_tiles(split->cpu, worker)};
    choice.kv_end = choice.kv_begin + n_heads;
    choice.n_candidates = choice.sequence->n_cached + choice.sequence->n_rows -
                          (select->window_end - select->window_begin);
    if (select->n_keep == choice.n_candidates) {
        keep_all(&choice);
        return;
    }
    assert(choice.n_candidates <= CPU_THREAD_FLOATS / 2);
    memset(choice.scores, 0, (size_t)choice.n_candidates * sizeof *choice.scores);
    for (int32_t h = choice.kv_begin; h < choice.kv_end; h++)
        add_head_scores(&choice, split->cpu->kernels, h);
    for (int32_t c = 0; c < choice.n_candidates; c++)
        choice.scores[c] /= (float)n_heads;
    keep_largest(&choice);
}

void cpu_select_kv(struct backend *backend, const struct select_kv_args *args)
{
    struct cpu *cpu = cpu_of(backend);
    struct select_split split = {.cpu = cpu, .batch = backend->batch, .args = args};
    split.n_choices = args->shared ? 1 : args->fresh.n_kv_heads;
    assert(split.n_choices > 0);
    if (args->n > 0) workers_for(cpu->workers, args->n * split.n_choices, select_task, &split);
}
