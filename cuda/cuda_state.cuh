/* The state of the cuda backend, shared by cuda_backend.cu (life, memory, steps) and cuda_ops.cu.
 */
#ifndef CUDA_CUDA_STATE_CUH
#define CUDA_CUDA_STATE_CUH

#include <nvtx3/nvToolsExt.h>

#include "cuda/gemm.cuh"
#include "cuda/kernels.cuh"

#define CUDA_SCORE_ROWS                                                                            \
    1024 /* rows and ids of a tile of logits: 32 MiB, which the L2 cache holds */
#define CUDA_SCORE_IDS 8192
#define CUDA_KNOWN_MAX 32
#define CUDA_ALIGNMENT 256 /* of memory in a region */

#define CUDA_GRAPHS_MAX 64 /* parts of steps that are remembered: two of a step */
#define CUDA_PICKS      32 /* of which a step's picks are then a multiple */

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

/* A part of a step that may come again (graphs.cu). */
struct cuda_graph {
    uint64_t key;         /* 0: a free place */
    uint64_t signature;   /* of its ops; 0: not met before */
    uint64_t last_use;    /* n_uses then */
    cudaGraphExec_t exec; /* NULL: not recorded */
};

/* What ops do in the open part. */
enum cuda_mode { CUDA_ISSUES, CUDA_RECORDS, CUDA_REPLAYS, CUDA_MODES };

struct cuda_graphs {
    struct cuda_graph parts[CUDA_GRAPHS_MAX];
    uint64_t n_uses;
    /* Of the open step. */
    struct cuda_graph *part; /* the open one; NULL: it is not to be recorded */
    enum cuda_mode mode;
    bool was[CUDA_MODES]; /* of its parts that have ended */
    uint64_t key;         /* of the open part, also if it is not to be recorded; 0: none */
    uint64_t signature;   /* of what its ops have staged and written so far */
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
    struct cuda_graphs graphs;
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

/* Whether an op goes on to launch (which writes `out`): not after a failure, nor when a recorded
 * graph does it. What was staged before is then on its way to the device, unless it is recorded. */
bool cuda_issues(struct backend *backend, const void *out);
#define CUDA_ISSUE(backend, out, call, what)                                                       \
    do {                                                                                           \
        if (cuda_issues(backend, out)) cuda_check(backend, call, what);                            \
    } while (0)

/* The array in device memory, for this step. It takes `room_bytes` there, which, other than
 * n_bytes, do not depend on what host arrays hold. `lasts`: it stays as it is until submit_step. */
const void *cuda_stage(struct backend *backend, const void *array, size_t n_bytes,
                       size_t room_bytes, bool lasts);
#define STAGE_AS(backend, array, n, n_room, lasts)                                                 \
    ((__typeof__(&(array)[0]))cuda_stage(backend, array, (n) * sizeof(array)[0],                   \
                                         (n_room) * sizeof(array)[0], lasts))
#define STAGE(backend, array, n)              STAGE_AS(backend, array, n, n, true)
#define STAGE_ONCE(backend, array, n)         STAGE_AS(backend, array, n, n, false)
#define STAGE_ROOM(backend, array, n, n_room) STAGE_AS(backend, array, n, n_room, true)

/* Names for a profiler, on the time line of the thread that issues: a step by its phase, in it the
 * layers, score and commit, one after the other, and each select. Without a profiler a name costs a
 * test of a pointer, and there is nothing to link with. */
static inline void cuda_name_next(const char *name)
{
    nvtxRangePop();
    nvtxRangePushA(name);
}

/* Recorded steps: the first part of a step begins, another one begins, the last one ends. A key
 * that comes again promises the same ops. */
void graphs_start(struct backend *backend, uint64_t key);
void graphs_cut(struct backend *backend, uint64_t key);
void graphs_end(struct backend *backend);
void graphs_close(struct cuda_graphs *graphs);

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
