/* The cuda backend of builds without nvcc: the same symbol, whose open says what is missing. The
 * other entries exist because every op is mandatory; nothing can reach them, since a backend that
 * did not open has no table. */
#include <assert.h>
#include <stddef.h>

#include "backend/backend.h"

/* ERROR_UNAVAILABLE, always: the message says how to go on without a GPU. */
static bool absent_open(struct backend *backend, const struct backend_limits *limits,
                        struct error *err)
{
    assert(limits != NULL);
    assert(backend->state == NULL);
    return error_set(err, ERROR_UNAVAILABLE,
                     "this build has no CUDA backend (it was configured without nvcc); use "
                     "--backend cpu");
}

static void unreachable(const struct backend *backend)
{
    (void)backend;
    assert(backend == NULL && "the cuda backend cannot have been opened");
}

/* Each entry takes what its contract says and drops it: the table's types are checked here, too, on
 * machines without nvcc. */
static void absent_close(struct backend *backend)
{
    unreachable(backend);
}

static bool absent_allocate(struct backend *backend, const size_t region_bytes[REGION_COUNT],
                            struct error *err)
{
    (void)region_bytes;
    (void)err;
    unreachable(backend);
    return false;
}

static void *absent_reserve(struct backend *backend, enum region region, size_t size_bytes)
{
    (void)region;
    (void)size_bytes;
    unreachable(backend);
    return NULL;
}

static size_t absent_weight_bytes(const struct backend *backend, int32_t n_out, int32_t n_in,
                                  enum dtype dtype)
{
    (void)n_out;
    (void)n_in;
    (void)dtype;
    unreachable(backend);
    return 0;
}

static void absent_upload(struct backend *backend, struct matrix target, const void *source)
{
    (void)target;
    (void)source;
    unreachable(backend);
}

static void absent_upload_weight(struct backend *backend, struct weight target, int32_t out_begin,
                                 int32_t n_out, const void *source)
{
    (void)target;
    (void)out_begin;
    (void)n_out;
    (void)source;
    unreachable(backend);
}

static void absent_download(struct backend *backend, void *target, struct matrix source)
{
    (void)target;
    (void)source;
    unreachable(backend);
}

static void absent_fill_dummy(struct backend *backend, const struct dummy_args *args)
{
    (void)args;
    unreachable(backend);
}

static size_t absent_free_bytes(const struct backend *backend)
{
    unreachable(backend);
    return 0;
}

static size_t absent_scratch_bytes(const struct backend *backend, int32_t n_rows_max,
                                   int32_t n_picks_max)
{
    (void)n_rows_max;
    (void)n_picks_max;
    unreachable(backend);
    return 0;
}

static void absent_start_step(struct backend *backend, const struct batch *batch,
                              uint64_t shape_key)
{
    (void)batch;
    (void)shape_key;
    unreachable(backend);
}

static void absent_submit_step(struct backend *backend, void *target, struct matrix source)
{
    (void)target;
    (void)source;
    unreachable(backend);
}

static bool absent_finish_step(struct backend *backend, uint64_t *device_ns, struct error *err)
{
    (void)device_ns;
    (void)err;
    unreachable(backend);
    return false;
}

/* The eleven ops differ in the type of their arguments alone. */
#define ABSENT_OP(op)                                                                              \
    static void absent_##op(struct backend *backend, const struct op##_args *args)                 \
    {                                                                                              \
        (void)args;                                                                                \
        unreachable(backend);                                                                      \
    }

ABSENT_OP(embed)
ABSENT_OP(rms_norm)
ABSENT_OP(linear)
ABSENT_OP(rope)
ABSENT_OP(store_kv)
ABSENT_OP(attend)
ABSENT_OP(gated_act)
ABSENT_OP(gather_rows)
ABSENT_OP(select_kv)
ABSENT_OP(score)
ABSENT_OP(commit)

const struct backend_ops backend_cuda_ops = {
    .name = "cuda",
    .code = "none",
    .open = absent_open,
    .close = absent_close,
    .allocate = absent_allocate,
    .reserve = absent_reserve,
    .weight_bytes = absent_weight_bytes,
    .upload = absent_upload,
    .upload_weight = absent_upload_weight,
    .download = absent_download,
    .fill_dummy = absent_fill_dummy,
    .free_bytes = absent_free_bytes,
    .scratch_bytes = absent_scratch_bytes,
    .start_step = absent_start_step,
    .submit_step = absent_submit_step,
    .finish_step = absent_finish_step,
    .embed = absent_embed,
    .rms_norm = absent_rms_norm,
    .linear = absent_linear,
    .rope = absent_rope,
    .store_kv = absent_store_kv,
    .attend = absent_attend,
    .gated_act = absent_gated_act,
    .gather_rows = absent_gather_rows,
    .select_kv = absent_select_kv,
    .score = absent_score,
    .commit = absent_commit,
};
