/* What the files of the cpu backend share: its state, the product of a whole matrix split among the
 * threads, and where a sequence's keys lie. Private to the cpu backend. */
#ifndef BACKEND_CPU_H
#define BACKEND_CPU_H

#include <stdint.h>

#include "backend/backend.h"
#include "backend/cpu_kernels.h"
#include "backend/pick.h"
#include "base/workers.h"

/* Rows for each thread that stay in its caches from op to op (BENCHMARKS.md, "rows at a time"). */
#define CPU_ROWS_TARGET 256

/* Rows of hidden that `score` takes through the vocabulary together, and how many of their logits
 * exist at once: 2 MB, so that they are still in the last-level cache when they are looked at. */
#define CPU_SCORE_ROWS   256
#define CPU_SCORE_LOGITS (1 << 19)

/* Candidates of a row that a filter (top-k, top-p) can still keep, once its cut is known well
 * enough that they fit: the passes that are left then need no logits. */
#define CPU_KEPT_MAX 1024
struct cpu_kept {
    int32_t n; /* CPU_KEPT_MAX + 1: there were too many */
    int32_t id[CPU_KEPT_MAX];
    float logit[CPU_KEPT_MAX];
};

/* backend->state. */
struct cpu {
    const struct cpu_kernels *kernels;
    struct workers *workers;
    /* REGION_SCRATCH, taken at the first step. */
    float *tiles;              /* [threads][CPU_THREAD_FLOATS] */
    struct pick_state *states; /* [CPU_SCORE_ROWS] */
    struct cpu_kept *kept;     /* [CPU_SCORE_ROWS] */
    float *logits;             /* [CPU_SCORE_LOGITS] */
};

static inline struct cpu *cpu_of(const struct backend *backend)
{
    return backend->state;
}

/* Scratch of one thread, as in workers_for. */
static inline float *cpu_tiles(const struct cpu *cpu, int32_t worker)
{
    return cpu->tiles + (size_t)worker * CPU_THREAD_FLOATS;
}

/* out[i][j] = x[row_index[i]] . w[out_begin + j] (+ bias[out_begin + j]), j in [0, n_out). */
struct cpu_matmul {
    float *out; /* [n_rows, n_out], rows out_stride apart */
    size_t out_stride;
    const float *x;           /* rows of weight.n_in, one after the other */
    const int32_t *row_index; /* [n_rows]; NULL: row i */
    int32_t n_rows;
    struct weight weight;
    int32_t out_begin, n_out;
    const float *bias; /* [weight.n_out]; NULL: none */
};
void cpu_multiply(struct cpu *cpu, const struct cpu_matmul *matmul);

/* Slots of struct backend_ops. */
size_t cpu_weight_bytes(const struct backend *backend, int32_t n_out, int32_t n_in,
                        enum dtype dtype);
void cpu_upload_weight(struct backend *backend, struct weight target, int32_t out_begin,
                       int32_t n_out, const void *source);
void cpu_linear(struct backend *backend, const struct linear_args *args);
void cpu_attend(struct backend *backend, const struct attend_args *args);
void cpu_select_kv(struct backend *backend, const struct select_kv_args *args);
void cpu_score(struct backend *backend, const struct score_args *args);

#endif
