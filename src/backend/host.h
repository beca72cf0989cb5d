/* What the backends that compute in host memory (ref, cpu) share, because it moves or decides and
 * does no arithmetic worth a second version: regions, copies, the step's clock, the commit rules,
 * and where a row of the cache lies. Private to backend/. The shared way from a row's logits to its
 * pick is in pick.h, selection without storing in cut.h. */
#ifndef BACKEND_HOST_H
#define BACKEND_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "backend/backend.h"

/* Head sizes up to this are asserted by the wrappers, so per-head vectors may live on the stack. */
#define HOST_HEAD_DIM_MAX 256

/* ---- ready slots of struct backend_ops ---- */

/* Rows of an iteration that fill a processor. */
#define HOST_ROWS_LEAST 1024
#define HOST_ROWS_MOST  4096

bool host_allocate(struct backend *backend, const size_t region_bytes[REGION_COUNT],
                   struct error *err);
void *host_reserve(struct backend *backend, enum region region, size_t size_bytes);
void host_upload(struct backend *backend, struct matrix target, const void *source);
void host_download(struct backend *backend, void *target, struct matrix source);
void host_fill_dummy(struct backend *backend, const struct dummy_args *args);
/* What the machine has free, but at most what the job's control groups allow in all. */
size_t host_free_bytes(const struct backend *backend);

/* The clock of a step whose ops run at the call: device_ns is the time from start to submit. The
 * wrappers set and clear backend->batch and hand over the failure. */
void host_start_step(struct backend *backend, const struct batch *batch, uint64_t shape_key);
void host_submit_step(struct backend *backend, void *target, struct matrix source);
bool host_finish_step(struct backend *backend, uint64_t *device_ns, struct error *err);

/* Pure copies: the same in any backend. */
void host_store_kv(struct backend *backend, const struct store_kv_args *args);
/* The rules of enum commit_rule; needs no memory beside its arguments. */
void host_commit(struct backend *backend, const struct commit_args *args);

/* ---- parts of ops ---- */

/* Gives the regions back: the end of a close. */
void host_release(struct backend *backend);

/* Element index in kv_cache.keys (and values) of cached row `row` of `n` of a KV head. */
static inline size_t host_cache_index(int64_t cache_begin, int32_t n_kv_heads, int32_t head_dim,
                                      int32_t n, int32_t kv_head, int32_t row)
{
    int64_t row_index = cache_begin * n_kv_heads + (int64_t)kv_head * n + row;
    return (size_t)row_index * (size_t)head_dim;
}

/* Row `row` of an f32 matrix. */
static inline float *host_row(struct matrix matrix, int32_t row)
{
    return (float *)matrix.data + (size_t)row * (size_t)matrix.n_cols;
}

/* Element `index` of an array of f32, bf16 or f16; files do not align their tensors. */
static inline float host_element(const void *data, enum dtype dtype, size_t index)
{
    uint16_t half;
    float single;
    if (dtype == DTYPE_F32) {
        memcpy(&single, (const char *)data + 4 * index, sizeof single);
        return single;
    }
    memcpy(&half, (const char *)data + 2 * index, sizeof half);
    return dtype == DTYPE_BF16 ? dtype_f32_from_bf16(half) : dtype_f32_from_f16(half);
}

#endif
