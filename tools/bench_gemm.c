/* Measures the cpu backend's `linear` against OpenBLAS sgemm on the matrix shapes of a dummy LLaDA
 * (hidden 768, ffn 2048, vocabulary 32,000), both in the same run and in turns, so that a change of
 * clock or load meets both. Prints the best of the turns, in GFLOP/s, and the ratio.
 *
 *     bench_gemm [THREADS [TURNS [ISA]]]                                  defaults: 1 and 2, 5,
 * best */
#include <assert.h>
#include <cblas.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/backend.h"
#include "base/clock.h"

/* In libopenblas but not in every cblas.h. */
void openblas_set_num_threads(int n_threads);

#define ROWS_MAX 4096

struct shape {
    const char *name;
    int32_t n_out, n_in, rows_max;
};

static const struct shape shapes[] = {{"qkv", 2304, 768, ROWS_MAX},
                                      {"out", 768, 768, ROWS_MAX},
                                      {"gate+up", 4096, 768, ROWS_MAX},
                                      {"down", 768, 2048, ROWS_MAX},
                                      {"head", 32000, 768, 512}};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

static const int32_t row_counts[] = {32, 128, 256, 512, 2048, 4096};
#define N_ROW_COUNTS (sizeof row_counts / sizeof row_counts[0])

/* Both sides compute out = x . W^T; sgemm gets W in f32, the backend in bf16 as a model would. */
struct operands {
    struct backend backend;
    struct matrix x, out; /* rows up to ROWS_MAX */
    struct weight weight;
    float *blas_weight; /* [n_out, n_in] */
};

static void fail(const char *message)
{
    fprintf(stderr, "bench_gemm: %s\n", message);
    exit(1);
}

static void *take(size_t n_bytes)
{
    void *memory = calloc(1, n_bytes);
    if (memory == NULL) fail("out of memory");
    return memory;
}

/* Small values of both signs, the same in every run. */
static float value_at(size_t i)
{
    uint32_t hash = (uint32_t)i * 2654435761u;
    return (float)(int32_t)(hash >> 20) / 2048.0f - 1.0f;
}

static void open_operands(struct operands *operands, const struct shape *shape,
                          const struct backend_limits *limits)
{
    struct error err = {0};
    if (!backend_open(&operands->backend, "cpu", limits, &err)) fail(err.message);
    struct backend *backend = &operands->backend;
    size_t n_weights = (size_t)shape->n_out * (size_t)shape->n_in;
    size_t x_bytes = (size_t)ROWS_MAX * (size_t)shape->n_in * sizeof(float);
    size_t out_bytes = (size_t)shape->rows_max * (size_t)shape->n_out * sizeof(float);
    size_t region_bytes[REGION_COUNT] = {
        [REGION_WEIGHTS] =
            backend_weight_bytes(backend, shape->n_out, shape->n_in, DTYPE_BF16) + 64,
        [REGION_SCRATCH] = backend_scratch_bytes(backend, ROWS_MAX, 0) + x_bytes + out_bytes + 192};
    if (!backend_allocate(backend, region_bytes, &err)) fail(err.message);

    operands->weight = (struct weight){
        .data = backend_reserve(backend, REGION_WEIGHTS, region_bytes[REGION_WEIGHTS] - 64),
        .n_out = shape->n_out,
        .n_in = shape->n_in,
        .dtype = DTYPE_BF16};
    operands->x = (struct matrix){.data = backend_reserve(backend, REGION_SCRATCH, x_bytes),
                                  .n_cols = shape->n_in};
    operands->out = (struct matrix){.data = backend_reserve(backend, REGION_SCRATCH, out_bytes),
                                    .n_cols = shape->n_out};

    operands->blas_weight = take(n_weights * sizeof(float));
    uint16_t *narrow = take(n_weights * sizeof *narrow);
    for (size_t i = 0; i < n_weights; i++) {
        narrow[i] = dtype_bf16_from_f32(value_at(i));
        operands->blas_weight[i] = dtype_f32_from_bf16(narrow[i]);
    }
    backend_upload_weight(backend, operands->weight, 0, shape->n_out, narrow);
    free(narrow);
    float *x = operands->x.data;
    for (size_t i = 0; i < x_bytes / sizeof *x; i++)
        x[i] = value_at(i + 7);
}

static void close_operands(struct operands *operands)
{
    free(operands->blas_weight);
    backend_close(&operands->backend);
}

static double time_backend(struct operands *operands, int32_t n_rows)
{
    operands->x.n_rows = operands->out.n_rows = n_rows;
    struct linear_args args = {.out = operands->out, .x = operands->x, .weight = operands->weight};
    uint64_t begin = clock_now_ns();
    backend_linear(&operands->backend, &args);
    return (double)(clock_now_ns() - begin);
}

static double time_blas(const struct operands *operands, int32_t n_rows)
{
    int n_out = operands->weight.n_out, n_in = operands->weight.n_in;
    uint64_t begin = clock_now_ns();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n_rows, n_out, n_in, 1, operands->x.data,
                n_in, operands->blas_weight, n_in, 0, operands->out.data, n_out);
    return (double)(clock_now_ns() - begin);
}

/* Turns of the two, at least 20 ms each so that short products are not at the mercy of one tick. */
static void measure(struct operands *operands, int32_t n_rows, int n_turns, double best_ns[2])
{
    assert(n_turns > 0);
    best_ns[0] = best_ns[1] = 1e18;
    double flop = 2.0 * n_rows * operands->weight.n_out * operands->weight.n_in;
    int n_calls = 1 + (int)(1e9 / flop);
    for (int i = 0; i < n_turns * n_calls; i++) {
        double ours_ns = time_backend(operands, n_rows), blas_ns = time_blas(operands, n_rows);
        if (ours_ns < best_ns[0]) best_ns[0] = ours_ns;
        if (blas_ns < best_ns[1]) best_ns[1] = blas_ns;
    }
}

static void bench_shape(const struct shape *shape, const struct backend_limits *limits, int n_turns)
{
    struct operands operands = {0};
    open_operands(&operands, shape, limits);
    openblas_set_num_threads(limits->n_threads);
    struct sequence sequence = {.n_rows = 1};
    struct batch batch = {.n_rows = 1,
                          .canvas_index = (int32_t[]){0},
                          .position = (int32_t[]){0},
                          .visible_end = (int32_t[]){1},
                          .n_sequences = 1,
                          .sequences = &sequence};
    backend_start_step(&operands.backend, &batch, 0);
    for (size_t i = 0; i < N_ROW_COUNTS && row_counts[i] <= shape->rows_max; i++) {
        double best_ns[2];
        double flop = 2.0 * row_counts[i] * shape->n_out * shape->n_in;
        measure(&operands, row_counts[i], n_turns, best_ns);
        printf("%7d  %-8s %5d x %4d  %5d  %8.1f  %8.1f  %5.2f\n", limits->n_threads, shape->name,
               shape->n_out, shape->n_in, row_counts[i], flop / best_ns[0], flop / best_ns[1],
               best_ns[1] / best_ns[0]);
        fflush(stdout);
    }
    uint64_t device_ns;
    struct error err = {0};
    if (!backend_finish_step(&operands.backend, &device_ns, &err)) fail(err.message);
    close_operands(&operands);
}

int main(int argc, char **argv)
{
    int n_threads = argc > 1 ? atoi(argv[1]) : 0, n_turns = argc > 2 ? atoi(argv[2]) : 5;
    if (n_turns < 1 || n_threads < 0) fail("usage: bench_gemm [THREADS [TURNS [ISA]]]");
    struct backend_limits limits = {.cpu_isa = argc > 3 ? argv[3] : NULL};
    printf("threads  matrix   weight         rows   backend    sgemm   ratio\n");
    printf("                                        GFLOP/s  GFLOP/s\n");
    for (int threads = n_threads ? n_threads : 1; threads <= (n_threads ? n_threads : 2);
         threads++) {
        limits.n_threads = threads;
        for (size_t i = 0; i < N_SHAPES; i++)
            bench_shape(&shapes[i], &limits, n_turns);
    }
    return 0;
}
