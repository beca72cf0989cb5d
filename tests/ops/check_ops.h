/* One checker for every op of every backend. An op's check draws inputs, evaluates the formulas of
 * backend.h twice on plain arrays (in double, and naively with every result rounded to f32), runs
 * the backend, and holds it to one rule: its error is at most twice the naive error plus one
 * rounding of the type that it writes (so the naive result is rounded to that type, too). Decisions
 * must be equal; inputs whose decision is within tolerance are drawn again. */
#ifndef TESTS_OPS_CHECK_OPS_H
#define TESTS_OPS_CHECK_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"

#define CHECK_SPANS_MAX 64

/* Memory of the backend that a case took; both ends are fenced with canaries. */
struct check_span {
    size_t begin, n_bytes; /* in the pool, without the fences */
};

/* The backend under test, and what the case at hand has taken. */
struct check {
    struct backend backend;
    uint8_t *pool; /* [pool_bytes], backend memory */
    size_t pool_bytes, pool_used;
    struct check_span spans[CHECK_SPANS_MAX];
    int32_t n_spans;
    struct arena host; /* the case's host memory */
    uint64_t random;   /* state of the generator */
    char failure[512]; /* of the op being checked; empty: none yet */
    int64_t n_cases;
};

/* One op of the table. */
struct check_op {
    const char *name;
    void (*check)(struct check *check);
    void (*bench)(struct check *check);
};

void check_embed(struct check *check);
void check_rms_norm(struct check *check);
void check_linear(struct check *check);
void check_rope(struct check *check);
void check_store_kv(struct check *check);
void check_attend(struct check *check);
void check_gated_act(struct check *check);
void check_gather_rows(struct check *check);
void check_select_kv(struct check *check);
void check_score(struct check *check);
void check_commit(struct check *check);

void bench_embed(struct check *check);
void bench_rms_norm(struct check *check);
void bench_linear(struct check *check);
void bench_rope(struct check *check);
void bench_store_kv(struct check *check);
void bench_attend(struct check *check);
void bench_gated_act(struct check *check);
void bench_gather_rows(struct check *check);
void bench_select_kv(struct check *check);
void bench_score(struct check *check);
void bench_commit(struct check *check);

/* ---- a case (check_case.c) ---- */

/* Starts a case: nothing is taken, neither on the host nor in the backend. */
void check_reset(struct check *check);

/* Notes the first failure of the op; later ones are dropped. */
__attribute__((format(printf, 2, 3))) void check_fail(struct check *check, const char *format, ...);

/* Zeroed host memory until the next reset. */
void *check_host(struct check *check, size_t count, size_t size);

/* Matrices in the backend's memory: activations with `source`, or filled with NaN; vectors are f32
 * on every backend. */
struct matrix check_input(struct check *check, int32_t n_rows, int32_t n_cols, const float *source);
struct matrix check_vector(struct check *check, int32_t n_rows, int32_t n_cols,
                           const float *source);
struct matrix check_output(struct check *check, int32_t n_rows, int32_t n_cols);
struct matrix check_cells(struct check *check, int32_t n_cells, const int32_t *source);
void *check_take(struct check *check, size_t n_bytes);

/* Copies between f32 on the host and a matrix of f32 or bf16; to bf16 only what check_round gave.
 */
void check_upload(struct check *check, struct matrix target, const float *source);
void check_download(struct check *check, float *target, struct matrix source);

/* The nearest number that the backend's activations can hold, and the bytes of one. */
float check_round(const struct check *check, double value);
size_t check_row_bytes(const struct check *check);

/* Random rows in a dtype; `values` gets them as the backend holds them [n_rows * n_cols]. In steps
 * of 1/8 when `exact`, so that short sums have no rounding. */
const void *check_elements(struct check *check, enum dtype dtype, size_t n, float *values,
                           bool exact);
struct weight check_weight(struct check *check, struct weight shape, float *values, bool exact);

/* Everything taken since `mark` (an earlier check_mark) goes back; host memory stays. */
struct check_mark {
    size_t pool_used;
    int32_t n_spans;
};
struct check_mark check_mark(const struct check *check);
void check_rewind(struct check *check, struct check_mark mark);

/* A step around ops; batch NULL: for ops that do not look at it. Finish checks all fences and
 * returns the step's time. */
void check_start(struct check *check, const struct batch *batch);
uint64_t check_finish(struct check *check);

/* ---- random inputs ---- */

uint64_t check_random(struct check *check);
int32_t check_below(struct check *check, int32_t n); /* [0, n) */
double check_uniform(struct check *check);           /* [0, 1) */

/* Kinds of rows, so that every batch has some of each; all as check_round has them. */
enum row_kind { ROW_NORMAL, ROW_EQUAL, ROW_HUGE, ROW_TINY, ROW_ZERO, ROW_KIND_COUNT };
void check_fill_row(struct check *check, float *row, int32_t n, enum row_kind kind);
/* Row r is of kind r modulo the number of kinds, from `first` on. */
float *check_rows(struct check *check, int32_t n_rows, int32_t n_cols, int32_t first);
float *check_normals(struct check *check, int32_t n_rows, int32_t n_cols, double deviation);

/* ---- the rule ---- */

/* Naive evaluation rounds every result to f32; the same code without rounding is the truth. For
 * + - * / and sqrt, rounding the double result gives exactly what f32 arithmetic gives. */
static inline double check_keep(bool naive, double value)
{
    return naive ? (double)(float)value : value;
}

/* Largest errors of a case, each divided by the scale of its row. */
struct check_tally {
    double subject, naive;
    int64_t n;
    enum dtype dtype; /* of what is judged: f32, or the backend's activation */
};

/* What one evaluation of a row should be. */
struct check_row {
    const double *exact, *naive; /* [n] */
    int32_t n;
    double scale; /* size of what was summed: max |out|, or sum of |terms| where they cancel */
};

#define CHECK_TALLY_MIN 1024 /* values before the naive error counts as a maximum */

void check_tally_row(struct check_tally *tally, const float *found, const struct check_row *row);
void check_tally_end(struct check *check, const struct check_tally *tally, const char *what);

/* ---- batch invariance ---- */

/* An op over units (rows, sequences, requests) that can be run over any list of them. `run` writes
 * unit u's result to its own place in `out`, whatever the list. */
struct check_units {
    void (*run)(struct check *check, const void *context, const int32_t *units, int32_t n,
                void *out);
    const void *context;
    int32_t n_units;
    size_t out_bytes;
};

/* Runs all units at once into `whole`. */
void check_whole(struct check *check, const struct check_units *units, void *whole);

/* The same; then each alone and all shuffled: equal bit for bit. */
void check_invariance(struct check *check, const struct check_units *units, void *whole,
                      const char *what);

/* A tolerance needs many draws, invariance only the first. */
static inline void check_draw(struct check *check, const struct check_units *units, void *whole,
                              const char *what, int32_t draw)
{
    if (draw == 0) check_invariance(check, units, whole, what);
    else check_whole(check, units, whole);
}

/* ---- benchmarks ---- */

/* Runs `issue` often enough to time it and prints one line; work in FLOP or bytes per call. */
struct check_bench {
    void (*issue)(struct backend *backend, const void *args);
    const void *args;
    const struct batch *batch;
    double work;
    const char *unit; /* "GFLOP/s", "GB/s" */
};
__attribute__((format(printf, 3, 4))) void
check_time(struct check *check, const struct check_bench *bench, const char *format, ...);

#endif
