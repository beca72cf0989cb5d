/* What all checks share: fenced memory, random inputs, the tolerance rule, batch invariance, and
 * the clock of the benchmarks. */
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "check_ops.h"

/* ---- memory ---- */

enum { FENCE_BYTES = 64, CANARY = 0xC5 };

void check_reset(struct check *check)
{
    assert(check->pool != NULL);
    arena_rewind(&check->host, 0);
    check->pool_used = 0;
    check->n_spans = 0;
    check->n_cases++;
}

void check_fail(struct check *check, const char *format, ...)
{
    va_list args;
    if (check->failure[0] != '\0') return;
    va_start(args, format);
    vsnprintf(check->failure, sizeof check->failure, format, args);
    va_end(args);
    assert(check->failure[0] != '\0');
}

void *check_host(struct check *check, size_t count, size_t size)
{
    return arena_push(&check->host, count, size);
}

/* Raw bytes of the pool as a matrix, for copies. */
static struct matrix pool_bytes(const struct check *check, size_t begin, size_t n_bytes)
{
    assert(n_bytes % 2 == 0);
    return (struct matrix){check->pool + begin, 1, (int32_t)(n_bytes / 2), DTYPE_BF16};
}

/* [fence][data, ends where it ends][fence to the next multiple of 64, and one more] */
void *check_take(struct check *check, size_t n_bytes)
{
    uint8_t canaries[2 * FENCE_BYTES];
    size_t begin = check->pool_used + FENCE_BYTES, end = begin + n_bytes;
    size_t next = (end + 2 * FENCE_BYTES - 1) / FENCE_BYTES * FENCE_BYTES;
    assert(next <= check->pool_bytes);
    assert(check->n_spans < CHECK_SPANS_MAX);
    memset(canaries, CANARY, sizeof canaries);
    backend_upload(&check->backend, pool_bytes(check, begin - FENCE_BYTES, FENCE_BYTES), canaries);
    backend_upload(&check->backend, pool_bytes(check, end, next - end), canaries);
    check->spans[check->n_spans++] = (struct check_span){begin, n_bytes};
    check->pool_used = next;
    return check->pool + begin;
}

static bool is_fence(struct check *check, size_t begin)
{
    uint8_t found[FENCE_BYTES];
    backend_download(&check->backend, found, pool_bytes(check, begin, FENCE_BYTES));
    for (int i = 0; i < FENCE_BYTES; i++) {
        if (found[i] != CANARY) return false;
    }
    return true;
}

static void check_fences(struct check *check)
{
    for (int32_t i = 0; i < check->n_spans; i++) {
        const struct check_span *span = &check->spans[i];
        if (!is_fence(check, span->begin - FENCE_BYTES) ||
            !is_fence(check, span->begin + span->n_bytes))
            check_fail(check, "wrote outside buffer %d (%zu bytes)", i, span->n_bytes);
    }
}

struct check_mark check_mark(const struct check *check)
{
    return (struct check_mark){check->pool_used, check->n_spans};
}

void check_rewind(struct check *check, struct check_mark mark)
{
    assert(mark.pool_used <= check->pool_used);
    check->pool_used = mark.pool_used;
    check->n_spans = mark.n_spans;
}

static struct matrix take_matrix(struct check *check, int32_t n_rows, int32_t n_cols,
                                 enum dtype dtype)
{
    size_t n = (size_t)n_rows * (size_t)n_cols;
    return (struct matrix){check_take(check, n * dtype_bytes(dtype)), n_rows, n_cols, dtype};
}

size_t check_row_bytes(const struct check *check)
{
    return dtype_bytes(check->backend.activation);
}

float check_round(const struct check *check, double value)
{
    float single = (float)value;
    if (check->backend.activation == DTYPE_F32) return single;
    assert(check->backend.activation == DTYPE_BF16);
    return dtype_f32_from_bf16(dtype_bf16_from_f32(single));
}

void check_upload(struct check *check, struct matrix target, const float *source)
{
    size_t n = (size_t)target.n_rows * (size_t)target.n_cols;
    if (target.dtype != DTYPE_BF16) {
        backend_upload(&check->backend, target, source);
        return;
    }
    uint16_t *halves = check_host(check, n, sizeof *halves);
    for (size_t i = 0; i < n; i++)
        halves[i] = dtype_bf16_from_f32(source[i]);
    backend_upload(&check->backend, target, halves);
}

void check_download(struct check *check, float *target, struct matrix source)
{
    size_t n = (size_t)source.n_rows * (size_t)source.n_cols;
    if (source.dtype != DTYPE_BF16) {
        backend_download(&check->backend, target, source);
        return;
    }
    uint16_t *halves = check_host(check, n, sizeof *halves);
    backend_download(&check->backend, halves, source);
    for (size_t i = 0; i < n; i++)
        target[i] = dtype_f32_from_bf16(halves[i]);
}

struct matrix check_input(struct check *check, int32_t n_rows, int32_t n_cols, const float *source)
{
    struct matrix matrix = take_matrix(check, n_rows, n_cols, check->backend.activation);
    assert(source != NULL);
    check_upload(check, matrix, source);
    return matrix;
}

struct matrix check_vector(struct check *check, int32_t n_rows, int32_t n_cols, const float *source)
{
    struct matrix matrix = take_matrix(check, n_rows, n_cols, DTYPE_F32);
    assert(source != NULL);
    backend_upload(&check->backend, matrix, source);
    return matrix;
}

struct matrix check_output(struct check *check, int32_t n_rows, int32_t n_cols)
{
    struct matrix matrix = take_matrix(check, n_rows, n_cols, check->backend.activation);
    size_t n_bytes = (size_t)n_rows * (size_t)n_cols * check_row_bytes(check);
    float *nans = check_host(check, n_bytes, 1);
    memset(nans, 0xFF, n_bytes); /* every f32 or bf16 of ones is a NaN */
    backend_upload(&check->backend, matrix, nans);
    return matrix;
}

struct matrix check_cells(struct check *check, int32_t n_cells, const int32_t *source)
{
    struct matrix matrix = take_matrix(check, n_cells, 1, DTYPE_I32);
    backend_upload(&check->backend, matrix, source);
    return matrix;
}

/* The f16 that is exactly `value`: a multiple of 1/8 in [-1, 1]. */
static uint16_t f16_of_eighths(double value)
{
    int exponent;
    double fraction = frexp(fabs(value), &exponent);
    if (!(fraction > 0)) return 0;
    int bits = (exponent + 14) << 10 | (int)((2 * fraction - 1) * 1024);
    return (uint16_t)(value < 0 ? bits | 0x8000 : bits);
}

const void *check_elements(struct check *check, enum dtype dtype, size_t n, float *values,
                           bool exact)
{
    uint16_t *halves = check_host(check, n, sizeof *halves);
    assert(dtype != DTYPE_I32);
    for (size_t i = 0; i < n; i++) {
        uint64_t random = check_random(check);
        double value = exact ? (double)(random % 17) / 8 - 1 : check_uniform(check) * 2 - 1;
        values[i] = check_round(check, value);
        if (dtype == DTYPE_BF16) {
            halves[i] = dtype_bf16_from_f32(values[i]);
            values[i] = dtype_f32_from_bf16(halves[i]);
        } else if (dtype == DTYPE_F16) { /* else any f16 below 2 in size, subnormal ones too */
            halves[i] = exact ? f16_of_eighths(value) : (uint16_t)(random & 0xBFFF);
            values[i] = check_round(check, dtype_f32_from_f16(halves[i]));
        }
    }
    return dtype == DTYPE_F32 ? (const void *)values : (const void *)halves;
}

/* Uploads in two parts, as q, k and v fill one weight. */
struct weight check_weight(struct check *check, struct weight shape, float *values, bool exact)
{
    size_t n = (size_t)shape.n_out * (size_t)shape.n_in;
    const uint8_t *source = check_elements(check, shape.dtype, n, values, exact);
    size_t n_bytes = backend_weight_bytes(&check->backend, shape.n_out, shape.n_in, shape.dtype);
    int32_t n_first = shape.n_out / 3;
    assert(n_bytes > 0);
    shape.data = check_take(check, n_bytes);
    backend_upload_weight(&check->backend, shape, 0, n_first, source);
    source += (size_t)n_first * (size_t)shape.n_in * dtype_bytes(shape.dtype);
    backend_upload_weight(&check->backend, shape, n_first, shape.n_out - n_first, source);
    return shape;
}

/* ---- steps ---- */

void check_start(struct check *check, const struct batch *batch)
{
    static const int32_t zero = 0, one = 1;
    static const struct sequence only = {.n_rows = 1, .cache_begin = -1};
    static const struct batch smallest = {.n_rows = 1,
                                          .canvas_index = &zero,
                                          .position = &zero,
                                          .visible_end = &one,
                                          .n_sequences = 1,
                                          .sequences = &only};
    backend_start_step(&check->backend, batch != NULL ? batch : &smallest, check_random(check));
}

uint64_t check_finish(struct check *check)
{
    struct error err = {0};
    uint64_t device_ns = 0;
    if (!backend_finish_step(&check->backend, &device_ns, &err))
        check_fail(check, "finish_step: %s", err.message);
    check_fences(check);
    return device_ns;
}

/* ---- random inputs ---- */

/* splitmix64 */
uint64_t check_random(struct check *check)
{
    uint64_t z = check->random += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

double check_uniform(struct check *check)
{
    return (double)(check_random(check) >> 11) * 0x1p-53;
}

int32_t check_below(struct check *check, int32_t n)
{
    assert(n > 0);
    return (int32_t)(check_random(check) % (uint64_t)n);
}

/* Sum of twelve uniforms: near enough to normal. */
static double normal(struct check *check)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += check_uniform(check);
    return sum;
}

void check_fill_row(struct check *check, float *row, int32_t n, enum row_kind kind)
{
    static const double deviation[ROW_KIND_COUNT] = {
        [ROW_NORMAL] = 1, [ROW_HUGE] = 1e15, [ROW_TINY] = 1e-15};
    float equal = check_round(check, normal(check));
    for (int32_t i = 0; i < n; i++)
        row[i] = kind == ROW_EQUAL ? equal : check_round(check, normal(check) * deviation[kind]);
}

float *check_rows(struct check *check, int32_t n_rows, int32_t n_cols, int32_t first)
{
    float *rows = check_host(check, (size_t)n_rows * (size_t)n_cols, sizeof *rows);
    for (int32_t r = 0; r < n_rows; r++)
        check_fill_row(check, rows + (ptrdiff_t)r * n_cols, n_cols,
                       (enum row_kind)((first + r) % ROW_KIND_COUNT));
    return rows;
}

float *check_normals(struct check *check, int32_t n_rows, int32_t n_cols, double deviation)
{
    size_t n = (size_t)n_rows * (size_t)n_cols;
    float *rows = check_host(check, n, sizeof *rows);
    for (size_t i = 0; i < n; i++)
        rows[i] = check_round(check, normal(check) * deviation);
    return rows;
}

/* ---- the rule ---- */

/* NaN where a number belongs counts as an infinite error. */
static double scaled_error(double found, double exact, double scale)
{
    if (isnan(exact)) return INFINITY;
    double error = fabs(found - exact);
    if (isnan(error)) return INFINITY;
    if (scale > 0) return error / scale;
    return error > 0 ? INFINITY : 0;
}

void check_tally_row(struct check_tally *tally, const float *found, const struct check_row *row)
{
    assert(row->n > 0);
    for (int32_t i = 0; i < row->n; i++) {
        double exact = row->exact[i];
        tally->subject = fmax(tally->subject, scaled_error((double)found[i], exact, row->scale));
        double naive = row->naive[i];
        if (tally->dtype == DTYPE_BF16)
            naive = (double)dtype_f32_from_bf16(dtype_bf16_from_f32((float)naive));
        tally->naive = fmax(tally->naive, scaled_error(naive, exact, row->scale));
    }
    tally->n += row->n;
}

void check_tally_end(struct check *check, const struct check_tally *tally, const char *what)
{
    const double one_rounding = tally->dtype == DTYPE_BF16 ? 0x1p-8 : 0x1p-24;
    assert(isfinite(tally->naive));
    if (tally->subject <= 2 * tally->naive + one_rounding) return;
    check_fail(check, "%s: error %.3g, the naive way has %.3g", what, tally->subject, tally->naive);
}

/* ---- batch invariance ---- */

static void shuffle(struct check *check, int32_t *units, int32_t n)
{
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = check_below(check, i + 1), unit = units[i];
        units[i] = units[j];
        units[j] = unit;
    }
}

static int32_t *list_all(struct check *check, int32_t n)
{
    int32_t *list = check_host(check, (size_t)n, sizeof *list);
    assert(n > 0);
    for (int32_t i = 0; i < n; i++)
        list[i] = i;
    return list;
}

void check_whole(struct check *check, const struct check_units *units, void *whole)
{
    units->run(check, units->context, list_all(check, units->n_units), units->n_units, whole);
}

void check_invariance(struct check *check, const struct check_units *units, void *whole,
                      const char *what)
{
    int32_t n = units->n_units, *list = list_all(check, n);
    uint8_t *again = check_host(check, units->out_bytes, 1);
    check_whole(check, units, whole);

    for (int32_t i = 0; i < n; i++)
        units->run(check, units->context, &list[i], 1, again);
    if (memcmp(whole, again, units->out_bytes) != 0)
        check_fail(check, "%s: a row alone differs from the row in its batch", what);

    memset(again, 0, units->out_bytes);
    shuffle(check, list, n);
    units->run(check, units->context, list, n, again);
    if (memcmp(whole, again, units->out_bytes) != 0)
        check_fail(check, "%s: a shuffled batch differs", what);
}

/* ---- benchmarks ---- */

void check_time(struct check *check, const struct check_bench *bench, const char *format, ...)
{
    const uint64_t enough_ns = 200000000;
    uint64_t best_ns = UINT64_MAX, total_ns = 0;
    char shape[128];
    va_list args;
    va_start(args, format);
    vsnprintf(shape, sizeof shape, format, args);
    va_end(args);
    assert(bench->work > 0);
    for (int i = 0; i < 1000 && (i < 3 || total_ns < enough_ns); i++) {
        check_start(check, bench->batch);
        bench->issue(&check->backend, bench->args);
        uint64_t step_ns = check_finish(check);
        total_ns += step_ns;
        if (step_ns < best_ns) best_ns = step_ns;
    }
    double seconds = (double)(best_ns > 0 ? best_ns : 1) * 1e-9;
    printf("# %-52s %10.1f us  %8.2f %s\n", shape, seconds * 1e6, bench->work / seconds * 1e-9,
           bench->unit);
    fflush(stdout);
}
