/* The state of the cuda backend, shared by cuda_backend.cu (life, memory, steps) and cuda_ops.cu.
 */
#ifndef CUDA_CUDA_STATE_CUH
#define CUDA_CUDA_STATE_CUH

#include "cuda/gemm.cuh"
#include "cuda/kernels.cuh"

#define CUDA_SCORE_ROWS                                                                            \
    1024 /* rows and ids of a tile of logits: 32 MiB, which the L2 cache holds */
#define CUDA_SCORE_IDS 8192
#define CUDA_KNOWN_MAX 32
#define CUDA_ALIGNMENT 256 /* of memory in a region */

struct cuda_region {
    uint8_t *base;
    size_t size, used;
};

/* What a step on its way has to itself. There are as many as steps may be unfinished, used in
 * turns: so when a step starts, the one that had its place before is finished. */
struct cuda_step {
    uint8_t *arrays; /* pinned, [staging.size]: the host arrays of its ops */
    uint8_t *result; /* pinned, [result_bytes]: what goes to `target` when it is finished */
    void *target;
    size_t n_bytes;
    cudaEvent_t begin, end; /* around all that it has on the stream */
    bool is_lost;           /* a failure kept ops from being issued */
};

/* Host arrays of the open step, laid out in the order in which ops ask for them and copied to the
 * device before the next launch. An array that was staged in this step is not staged again: callers
 * do not change it before submit_step. On the device one place is enough for all steps: a copy
 * waits on the stream for what the step before launched. */
struct cuda_staging {
    uint8_t *device; /* [size], in REGION_SCRATCH */
    size_t size, used, n_copied;
    struct {
        const void *host;
        size_t n_bytes, at;
    } known[CUDA_KNOWN_MAX];
    int32_t n_known;
};

/* The step's batch on the device; arrays as in struct batch. */
struct cuda_batch {
    const int32_t *canvas_index, *position, *visible_end, *picked_row;
    const struct sequence *sequences;
    const struct attend_item *items[2]; /* of all rows, of the picked ones */
    struct attend_cut cut[2];
};

struct cuda {
    int device;
    cudaDeviceProp properties;
    cudaStream_t stream;
    struct gemm gemm;
    struct cuda_region regions[REGION_COUNT];
    uint8_t *upload[2]; /* pinned */
    cudaEvent_t uploaded[2];
    uint32_t n_uploads;
    int32_t n_rows_max, n_picks_max; /* of the last scratch_bytes */
    struct attend_item *items;       /* host, [heuristics_items_max(n_rows_max)] */
    struct cuda_step steps[BACKEND_STEPS_MOST], *step; /* the open one, or the last */
    uint32_t n_started, n_finished;
    size_t result_bytes;
    struct cuda_staging staging;
    struct cuda_batch batch;
    int32_t n_partials_max; /* partial rows of attend that there is memory for */
    float *partials;        /* [n_partials_max, ATTEND_SLICED_HEAD_DIM + 2] numbers */
    int32_t n_score_rows;
    float *logits, *uncond; /* tiles, [n_score_rows, CUDA_SCORE_IDS] */
    void *score_states;
};

static inline struct cuda *cuda_of(const struct backend *backend)
{
    return (struct cuda *)backend->state;
}

/* Latches a failure of the step (ERROR_STOPPED: another try may find a better device). */
void cuda_check(struct backend *backend, cudaError_t status, const char *what);

/* Whether an op goes on to launch; what was staged before is then on its way to the device. */
bool cuda_issues(struct backend *backend);
#define CUDA_ISSUE(backend, call, what)                                                            \
    do {                                                                                           \
        if (cuda_issues(backend)) cuda_check(backend, call, what);                                 \
    } while (0)

/* The array in device memory, for this step. `lasts`: it stays as it is until submit_step. */
const void *cuda_stage(struct backend *backend, const void *array, size_t n_bytes, bool lasts);
#define STAGE(backend, array, n)                                                                   \
    ((__typeof__(&(array)[0]))cuda_stage(backend, array, (n) * sizeof(array)[0], true))
#define STAGE_ONCE(backend, array, n)                                                              \
    ((__typeof__(&(array)[0]))cuda_stage(backend, array, (n) * sizeof(array)[0], false))

/* The eleven ops. */
void cuda_embed(struct backend *backend, const struct embed_args *args);
void cuda_rms_norm(struct backend *backend, const struct rms_norm_args *args);
void cuda_linear(struct backend *backend, const struct linear_args *args);
void cuda_rope(struct backend *backend, const struct rope_args *args);
void cuda_store_kv(struct backend *backend, const struct store_kv_args *args);
void cuda_attend(struct backend *backend, const struct attend_args *args);
void cuda_gated_act(struct backend *backend, const struct gated_act_args *args);
void cuda_gather_rows(struct backend *backend, const struct gather_rows_args *args);
void cuda_select_kv(struct backend *backend, const struct select_kv_args *args);
void cuda_score(struct backend *backend, const struct score_args *args);
void cuda_commit(struct backend *backend, const struct commit_args *args);

#endif
