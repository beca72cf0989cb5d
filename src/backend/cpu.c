/* The backend for processors: the same ops as ref, in blocks that fit the caches, with the kernels
 * of the best instruction set, on a pool of threads. Threads only ever split rows and outputs,
 * never a sum, so results do not depend on their number. attend and select_kv are in cpu_attend.c,
 * linear in cpu_matmul.c, score in cpu_score.c. */
#include "backend/cpu.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

/* From the best to the one that always works. */
static const struct cpu_kernels *const tables[] = {&cpu_kernels_avx512, &cpu_kernels_avx2,
                                                   &cpu_kernels_generic};
#define N_TABLES (sizeof tables / sizeof tables[0])

/* Was it built, and can this processor run it? */
static bool is_available(const struct cpu_kernels *kernels)
{
    if (kernels->panel_width == 0) return false;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (kernels == &cpu_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (kernels == &cpu_kernels_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return true;
}

static const struct cpu_kernels *choose_kernels(const char *isa, struct error *err)
{
    for (size_t i = 0; i < N_TABLES; i++) {
        if (isa != NULL && strcmp(isa, tables[i]->name) != 0) continue;
        if (is_available(tables[i])) return tables[i];
        if (isa == NULL) continue;
        error_set(err, ERROR_UNAVAILABLE,
                  "this processor or build lacks the instruction set '%s'; leave it out to get the "
                  "best one there is",
                  isa);
        return NULL;
    }
    error_set(err, ERROR_UNAVAILABLE,
              "unknown instruction set '%s'; there are generic, avx2 and avx512", isa);
    return NULL;
}

static bool cpu_open(struct backend *backend, const struct backend_limits *limits,
                     struct error *err)
{
    assert(backend->state == NULL);
    const struct cpu_kernels *kernels = choose_kernels(limits->cpu_isa, err);
    if (kernels == NULL) return false;
    struct cpu *cpu = calloc(1, sizeof *cpu);
    if (cpu == NULL) return error_set(err, ERROR_UNAVAILABLE, "no memory for the cpu backend");
    cpu->kernels = kernels;
    int32_t n_threads = limits->n_threads > 0 ? limits->n_threads : workers_available();
    if (!workers_create(&cpu->workers, n_threads, err)) {
        free(cpu);
        return error_wrap(err, "threads of the cpu backend");
    }
    backend->state = cpu;
    backend->n_rows_least = HOST_ROWS_LEAST;
    backend->n_rows_most = HOST_ROWS_MOST;
    backend->n_rows_target = n_threads > 2 ? n_threads * CPU_ROWS_TARGET : 2 * CPU_ROWS_TARGET;
    backend->n_picks_multiple = 1;
    snprintf(backend->machine, sizeof backend->machine, "%d threads, %s", n_threads, kernels->name);
    return true;
}

static void cpu_close(struct backend *backend)
{
    struct cpu *cpu = cpu_of(backend);
    assert(cpu != NULL);
    workers_destroy(cpu->workers);
    free(cpu);
    backend->state = NULL;
    host_release(backend);
}

/* ---- scratch ---- */

static size_t tiles_bytes(const struct cpu *cpu)
{
    return arena_round_up((size_t)workers_count(cpu->workers) * CPU_THREAD_FLOATS * sizeof(float));
}

static size_t states_bytes(void)
{
    return arena_round_up(CPU_SCORE_ROWS * sizeof(struct pick_state));
}

static size_t kept_bytes(void)
{
    return arena_round_up(CPU_SCORE_ROWS * sizeof(struct cpu_kept));
}

static size_t cpu_scratch_bytes(const struct backend *backend, int32_t n_rows_max,
                                int32_t n_picks_max)
{
    assert(n_rows_max > 0);
    assert(n_picks_max >= 0);
    return tiles_bytes(cpu_of(backend)) + states_bytes() + kept_bytes() +
           CPU_SCORE_LOGITS * sizeof(float);
}

static void cpu_start_step(struct backend *backend, const struct batch *batch, uint64_t shape_key)
{
    struct cpu *cpu = cpu_of(backend);
    assert(cpu != NULL);
    host_start_step(backend, batch, shape_key);
    if (cpu->tiles != NULL) return;
    cpu->tiles = host_reserve(backend, REGION_SCRATCH, tiles_bytes(cpu));
    cpu->states = host_reserve(backend, REGION_SCRATCH, states_bytes());
    cpu->kept = host_reserve(backend, REGION_SCRATCH, kept_bytes());
    cpu->logits = host_reserve(backend, REGION_SCRATCH, CPU_SCORE_LOGITS * sizeof(float));
}

/* ---- rows on threads ---- */

/* Floats that make waking another thread worth its while. */
#define PART_FLOATS 32768

struct row_parts {
    void (*run)(void *context, int32_t begin, int32_t end);
    void *context;
    int32_t n_rows, n_parts;
};

static void run_part(void *context, int32_t item, int32_t worker)
{
    (void)worker;
    const struct row_parts *parts = context;
    int64_t n_rows = parts->n_rows;
    parts->run(parts->context, (int32_t)(n_rows * item / parts->n_parts),
               (int32_t)(n_rows * (item + 1) / parts->n_parts));
}

/* Calls run(context, begin, end) for parts of [0, n_rows), on several threads when the whole is at
 * least some ten microseconds of work; row_floats: what a row touches. */
static void for_rows(struct cpu *cpu, int32_t n_rows, size_t row_floats,
                     void (*run)(void *context, int32_t begin, int32_t end), void *context)
{
    assert(n_rows >= 0);
    size_t n_parts = (size_t)n_rows * row_floats / PART_FLOATS;
    size_t n_parts_max = 4 * (size_t)workers_count(cpu->workers);
    if (n_parts > n_parts_max) n_parts = n_parts_max;
    if (n_parts > (size_t)n_rows) n_parts = (size_t)n_rows;
    if (n_parts < 2) {
        run(context, 0, n_rows);
        return;
    }
    struct row_parts parts = {
        .run = run, .context = context, .n_rows = n_rows, .n_parts = (int32_t)n_parts};
    workers_for(cpu->workers, parts.n_parts, run_part, &parts);
}

/* What the row loops below get as context. */
struct row_op {
    const struct cpu_kernels *kernels;
    const struct batch *batch;
    const void *args;
};

static struct row_op row_op_of(const struct backend *backend, const void *args)
{
    return (struct row_op){
        .kernels = cpu_of(backend)->kernels, .batch = backend->batch, .args = args};
}

/* ---- row ops ---- */

static void embed_rows(void *context, int32_t begin, int32_t end)
{
    const struct row_op *op = context;
    const struct embed_args *args = op->args;
    const int32_t *canvas = args->canvas.data;
    int32_t n = args->out.n_cols;
    for (int32_t r = begin; r < end; r++) {
        int32_t id = canvas[op->batch->canvas_index[r]];
        assert(id >= 0);
        assert(id < args->table.n_rows);
        size_t first = (size_t)id * (size_t)n;
        float *out = host_row(args->out, r);
        if (args->table.dtype == DTYPE_F32) {
            memcpy(out, host_row(args->table, id), (size_t)n * sizeof *out);
        } else if (args->table.dtype == DTYPE_BF16) {
            op->kernels->widen(out, (const uint16_t *)args->table.data + first, n);
        } else {
            for (int32_t k = 0; k < n; k++)
                out[k] = host_element(args->table.data, args->table.dtype, first + (size_t)k);
        }
    }
}

static void cpu_embed(struct backend *backend, const struct embed_args *args)
{
    assert(args->out.n_rows == backend->batch->n_rows);
    struct row_op op = row_op_of(backend, args);
    for_rows(cpu_of(backend), args->out.n_rows, (size_t)args->out.n_cols, embed_rows, &op);
}

static void norm_rows(void *context, int32_t begin, int32_t end)
{
    const struct row_op *op = context;
    const struct rms_norm_args *args = op->args;
    for (int32_t r = begin; r < end; r++) {
        struct cpu_norm norm = {.out = host_row(args->out, r),
                                .sum = args->sum.data ? host_row(args->sum, r) : NULL,
                                .x = host_row(args->x, r),
                                .add = args->add.data ? host_row(args->add, r) : NULL,
                                .weight = args->weight.data,
                                .n = args->out.n_cols,
                                .epsilon = args->epsilon};
        op->kernels->normalize(&norm);
    }
}

static void cpu_rms_norm(struct backend *backend, const struct rms_norm_args *args)
{
    assert(args->out.n_cols > 0);
    struct row_op op = row_op_of(backend, args);
    for_rows(cpu_of(backend), args->out.n_rows, 2 * (size_t)args->out.n_cols, norm_rows, &op);
}

static void rope_rows(void *context, int32_t begin, int32_t end)
{
    const struct row_op *op = context;
    const struct rope_args *args = op->args;
    for (int32_t r = begin; r < end; r++) {
        int32_t row = args->picked ? op->batch->picked_row[r] : r;
        const float *angles = host_row(args->table, op->batch->position[row]);
        float *x = host_row(args->x, r) + args->col_begin;
        for (int32_t h = 0; h < args->n_heads; h++, x += args->head_dim)
            op->kernels->rotate(x, angles, args->head_dim / 2);
    }
}

static void cpu_rope(struct backend *backend, const struct rope_args *args)
{
    assert(args->head_dim % 2 == 0);
    struct row_op op = row_op_of(backend, args);
    for_rows(cpu_of(backend), args->x.n_rows, (size_t)(args->n_heads * args->head_dim), rope_rows,
             &op);
}

static void act_rows(void *context, int32_t begin, int32_t end)
{
    const struct row_op *op = context;
    const struct gated_act_args *args = op->args;
    int32_t n = args->out.n_cols;
    for (int32_t r = begin; r < end; r++) {
        const float *gate = host_row(args->x, r);
        op->kernels->activate(host_row(args->out, r), gate, gate + n, n);
    }
}

static void cpu_gated_act(struct backend *backend, const struct gated_act_args *args)
{
    assert(args->x.n_cols == 2 * args->out.n_cols);
    struct row_op op = row_op_of(backend, args);
    for_rows(cpu_of(backend), args->out.n_rows, 4 * (size_t)args->out.n_cols, act_rows, &op);
}

static void copy_rows(void *context, int32_t begin, int32_t end)
{
    const struct row_op *op = context;
    const struct gather_rows_args *args = op->args;
    for (int32_t i = begin; i < end; i++)
        memcpy(host_row(args->out, i), host_row(args->x, op->batch->picked_row[i]),
               (size_t)args->out.n_cols * sizeof(float));
}

static void cpu_gather_rows(struct backend *backend, const struct gather_rows_args *args)
{
    assert(args->out.n_rows == backend->batch->n_picks);
    struct row_op op = row_op_of(backend, args);
    for_rows(cpu_of(backend), args->out.n_rows, (size_t)args->out.n_cols, copy_rows, &op);
}

const struct backend_ops backend_cpu_ops = {
    .name = "cpu",
    .code = "generic avx2 avx512",
    .open = cpu_open,
    .close = cpu_close,
    .allocate = host_allocate,
    .reserve = host_reserve,
    .weight_bytes = cpu_weight_bytes,
    .upload = host_upload,
    .upload_weight = cpu_upload_weight,
    .download = host_download,
    .fill_dummy = host_fill_dummy,
    .free_bytes = host_free_bytes,
    .scratch_bytes = cpu_scratch_bytes,
    .start_step = cpu_start_step,
    .submit_step = host_submit_step,
    .finish_step = host_finish_step,
    .embed = cpu_embed,
    .rms_norm = cpu_rms_norm,
    .linear = cpu_linear,
    .rope = cpu_rope,
    .store_kv = host_store_kv,
    .attend = cpu_attend,
    .gated_act = cpu_gated_act,
    .gather_rows = cpu_gather_rows,
    .select_kv = cpu_select_kv,
    .score = cpu_score,
    .commit = host_commit,
};
