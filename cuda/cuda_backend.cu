/* The cuda backend: life, memory and steps. Arrays of the host travel through a pinned buffer of
 * their step, its picks come back through another; ops are enqueued on one stream, and finish_step
 * waits for the last of its step. The ops themselves are in cuda_ops.cu. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda_state.cuh"

#define OLDEST_MAJOR    8 /* compute capability 8.0: bf16 tensor cores */
#define ROWS            8192
#define UPLOAD_BYTES    ((size_t)16 << 20)  /* of each of two pinned buffers */
#define SPARE_BYTES     ((size_t)512 << 20) /* left to the driver and cuBLAS */
#define ALIGNMENT_BYTES ((size_t)1 << 20)   /* of a region: what wider alignment takes */

static const char *const region_names[REGION_COUNT] = {"weights", "KV cache", "scratch"};

/* ---- opening ---- */

static bool good(cudaError_t status, const char *what, struct error *err)
{
    if (status == cudaSuccess) return true;
    return error_set(err, ERROR_UNAVAILABLE, "%s: %s", what, cudaGetErrorString(status));
}

/* The device asked for, else the scheduler's local rank on a node whose GPUs all tasks see. */
static int choose_device(const struct backend_limits *limits, int n_devices)
{
    const char *local = getenv("SLURM_LOCALID");
    if (limits->device >= 0) return limits->device;
    return local ? atoi(local) % n_devices : 0;
}

static bool check_device(struct cuda *cuda, struct error *err)
{
    cudaDeviceProp *properties = &cuda->properties;
    if (!good(cudaGetDeviceProperties(properties, cuda->device), "properties", err)) return false;
    if (properties->major >= OLDEST_MAJOR) return true;
    return error_set(err, ERROR_UNAVAILABLE,
                     "GPU %d (%s) has compute capability %d.%d, %d.0 is the least with bf16; use "
                     "--backend cpu",
                     cuda->device, properties->name, properties->major, properties->minor,
                     OLDEST_MAJOR);
}

static bool open_device(struct cuda *cuda, const struct backend_limits *limits, struct error *err)
{
    int n_devices = 0;
    cudaError_t status = cudaGetDeviceCount(&n_devices);
    if (status != cudaSuccess)
        return error_set(err, ERROR_UNAVAILABLE, "no usable GPU: %s; use --backend cpu",
                         cudaGetErrorString(status));
    cuda->device = choose_device(limits, n_devices);
    if (cuda->device >= n_devices)
        return error_set(err, ERROR_UNAVAILABLE, "GPU %d was asked for, %d visible: 0 to %d",
                         cuda->device, n_devices, n_devices - 1);
    return check_device(cuda, err) && good(cudaSetDevice(cuda->device), "choosing the GPU", err) &&
           good(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "a stream", err) &&
           gemm_open(&cuda->gemm, err);
}

static void cuda_close(struct backend *backend)
{
    struct cuda *cuda = cuda_of(backend);
    if (cuda->stream) cudaStreamSynchronize(cuda->stream); /* nobody waits for its steps */
    graphs_close(&cuda->graphs);
    gemm_close(&cuda->gemm);
    for (int i = 0; i < REGION_COUNT; i++)
        cudaFree(cuda->regions[i].base);
    for (int i = 0; i < 2; i++) {
        cudaFreeHost(cuda->upload[i]);
        if (cuda->uploaded[i]) cudaEventDestroy(cuda->uploaded[i]);
    }
    for (int i = 0; i < BACKEND_STEPS_MOST; i++) {
        cudaFreeHost(cuda->steps[i].arrays);
        if (cuda->steps[i].begin) cudaEventDestroy(cuda->steps[i].begin);
        if (cuda->steps[i].end) cudaEventDestroy(cuda->steps[i].end);
    }
    free(cuda->items);
    if (cuda->stream) cudaStreamDestroy(cuda->stream);
    free(cuda);
    backend->state = NULL;
}

static bool cuda_open(struct backend *backend, const struct backend_limits *limits,
                      struct error *err)
{
    struct cuda *cuda = (struct cuda *)calloc(1, sizeof *cuda);
    if (!cuda) return error_set(err, ERROR_UNAVAILABLE, "no memory for the cuda backend");
    backend->state = cuda;
    backend->activation = DTYPE_BF16;
    backend->n_rows_least = backend->n_rows_most = ROWS;
    backend->learns_shapes = true;
    backend->n_steps_ahead = 1;
    backend->graphs.is_on = limits->graphs;
    backend->n_picks_multiple = limits->graphs ? CUDA_PICKS : 1;
    if (open_device(cuda, limits, err)) {
        const cudaDeviceProp *found = &cuda->properties;
        snprintf(backend->machine, sizeof backend->machine, "GPU %d, %s, compute capability %d.%d",
                 cuda->device, found->name, found->major, found->minor);
        return true;
    }
    cuda_close(backend);
    return false;
}

/* ---- memory ---- */

static size_t cuda_free_bytes(const struct backend *backend)
{
    size_t n_free = 0, n_total = 0;
    (void)backend;
    if (cudaMemGetInfo(&n_free, &n_total) != cudaSuccess) return 0;
    return n_free > SPARE_BYTES ? n_free - SPARE_BYTES : 0;
}

/* Bytes of a step's arrays, at most; what follows them stays aligned. */
static size_t staging_bytes(int32_t n_rows_max, int32_t n_picks_max)
{
    size_t rows = (size_t)n_rows_max, picks = (size_t)n_picks_max;
    size_t n_items = (size_t)heuristics_items_max(n_rows_max);
    size_t per_row = 3 * sizeof(int32_t) + sizeof(struct sequence) + sizeof(struct store_row) +
                     2 * sizeof(struct select_sequence);
    size_t per_pick =
        5 * sizeof(int32_t) + sizeof(struct score_row) + sizeof(struct commit_request);
    return arena_round_up(rows * per_row + picks * per_pick +
                          2 * n_items * sizeof(struct attend_item) +
                          CUDA_KNOWN_MAX * 2 * CUDA_ALIGNMENT);
}

static bool step_create(const struct cuda *cuda, struct cuda_step *step, struct error *err)
{
    size_t n_bytes = cuda->staging.size + cuda->result_bytes;
    if (!good(cudaMallocHost((void **)&step->arrays, n_bytes), "pinned memory", err)) return false;
    step->result = step->arrays + cuda->staging.size;
    return good(cudaEventCreate(&step->begin), "an event", err) &&
           good(cudaEventCreate(&step->end), "an event", err);
}

static bool host_arrays_create(struct cuda *cuda, struct error *err)
{
    size_t n_items = (size_t)heuristics_items_max(cuda->n_rows_max);
    cuda->items = (struct attend_item *)calloc(n_items, sizeof *cuda->items);
    if (!cuda->items) return error_set(err, ERROR_UNAVAILABLE, "no memory for the batch");
    for (int i = 0; i < 2; i++)
        if (!good(cudaMallocHost((void **)&cuda->upload[i], UPLOAD_BYTES), "pinned memory", err) ||
            !good(cudaEventCreate(&cuda->uploaded[i]), "an event", err))
            return false;
    cuda->staging.size = staging_bytes(cuda->n_rows_max, cuda->n_picks_max);
    cuda->result_bytes = (size_t)cuda->n_picks_max * sizeof(struct pick);
    for (int i = 0; i < BACKEND_STEPS_MOST; i++)
        if (!step_create(cuda, &cuda->steps[i], err)) return false;
    return true;
}

static bool cuda_allocate(struct backend *backend, const size_t region_bytes[REGION_COUNT],
                          struct error *err)
{
    struct cuda *cuda = cuda_of(backend);
    for (int i = 0; i < REGION_COUNT; i++) {
        struct cuda_region *region = &cuda->regions[i];
        region->size = region_bytes[i] + ALIGNMENT_BYTES;
        if (region_bytes[i] == 0) continue;
        if (!good(cudaMalloc((void **)&region->base, region->size), region_names[i], err))
            return error_wrap(err, "%.1f MiB of device memory",
                              (double)region->size / (1024.0 * 1024.0));
    }
    return host_arrays_create(cuda, err);
}

static void *cuda_reserve(struct backend *backend, enum region region, size_t size_bytes)
{
    struct cuda_region *taken = &cuda_of(backend)->regions[region];
    size_t n_bytes = (size_bytes + CUDA_ALIGNMENT - 1) / CUDA_ALIGNMENT * CUDA_ALIGNMENT;
    if (taken->used + n_bytes > taken->size) return NULL; /* the wrapper asserts */
    void *memory = taken->base + taken->used;
    taken->used += n_bytes;
    return memory;
}

static size_t cuda_weight_bytes(const struct backend *backend, int32_t n_out, int32_t n_in,
                                enum dtype dtype)
{
    (void)backend;
    (void)dtype; /* bf16, row by row, whatever the file has */
    return (size_t)n_out * (size_t)n_in * sizeof(bf16);
}

/* One piece through a pinned buffer, converted on the way where `to` differs. */
static void upload_piece(struct backend *backend, uint8_t *target, const uint8_t *source, size_t n,
                         enum dtype from, enum dtype to)
{
    struct cuda *cuda = cuda_of(backend);
    int at = cuda->n_uploads++ & 1;
    uint8_t *pinned = cuda->upload[at];
    cuda_check(backend, cudaEventSynchronize(cuda->uploaded[at]), "uploading");
    if (from == to) {
        memcpy(pinned, source, n * dtype_bytes(from));
    } else {
        for (size_t i = 0; i < n; i++) {
            uint16_t half;
            float single;
            memcpy(&half, source + 2 * i, sizeof half);
            if (from == DTYPE_F32) memcpy(&single, source + 4 * i, sizeof single);
            else single = dtype_f32_from_f16(half);
            ((uint16_t *)pinned)[i] = dtype_bf16_from_f32(single);
        }
    }
    cuda_check(
        backend,
        cudaMemcpyAsync(target, pinned, n * dtype_bytes(to), cudaMemcpyHostToDevice, cuda->stream),
        "uploading");
    cuda_check(backend, cudaEventRecord(cuda->uploaded[at], cuda->stream), "uploading");
}

/* n numbers of type `from`, which become `to` (the same, or bf16). */
static void upload(struct backend *backend, void *target, const void *source, size_t n,
                   enum dtype from, enum dtype to)
{
    size_t n_piece = UPLOAD_BYTES / sizeof(float);
    for (size_t begin = 0; begin < n; begin += n_piece) {
        size_t n_now = n - begin < n_piece ? n - begin : n_piece;
        upload_piece(backend, (uint8_t *)target + begin * dtype_bytes(to),
                     (const uint8_t *)source + begin * dtype_bytes(from), n_now, from, to);
    }
}

static void cuda_upload(struct backend *backend, struct matrix target, const void *source)
{
    size_t n = (size_t)target.n_rows * (size_t)target.n_cols;
    upload(backend, target.data, source, n, target.dtype, target.dtype);
}

static void cuda_upload_weight(struct backend *backend, struct weight target, int32_t out_begin,
                               int32_t n_out, const void *source)
{
    bf16 *rows = (bf16 *)target.data + (size_t)out_begin * (size_t)target.n_in;
    upload(backend, rows, source, (size_t)n_out * (size_t)target.n_in, target.dtype, DTYPE_BF16);
}

static void cuda_download(struct backend *backend, void *target, struct matrix source)
{
    struct cuda *cuda = cuda_of(backend);
    size_t n = (size_t)source.n_rows * (size_t)source.n_cols;
    cuda_check(backend,
               cudaMemcpyAsync(target, source.data, n * dtype_bytes(source.dtype),
                               cudaMemcpyDeviceToHost, cuda->stream),
               "downloading");
    cuda_check(backend, cudaStreamSynchronize(cuda->stream), "downloading");
}

static void cuda_fill_dummy(struct backend *backend, const struct dummy_args *args)
{
    int64_t n = (int64_t)args->target.n_out * args->target.n_in;
    cuda_check(backend, launch_dummy((bf16 *)args->target.data, n, args, cuda_of(backend)->stream),
               "dummy weights");
}

/* ---- steps ---- */

static size_t score_bytes(int32_t n_picks_max)
{
    int32_t n = n_picks_max < CUDA_SCORE_ROWS ? n_picks_max : CUDA_SCORE_ROWS;
    return 2 * arena_round_up((size_t)n * CUDA_SCORE_IDS * sizeof(float)) +
           arena_round_up(score_state_bytes(n));
}

/* Of a partial row: its sums, their shift and their number. */
static size_t partial_bytes(int32_t n_rows_max)
{
    return (size_t)heuristics_partials_max(n_rows_max) * (ATTEND_SLICED_HEAD_DIM + 2) *
           sizeof(float);
}

static size_t cuda_scratch_bytes(const struct backend *backend, int32_t n_rows_max,
                                 int32_t n_picks_max)
{
    struct cuda *cuda = cuda_of(backend);
    cuda->n_rows_max = n_rows_max; /* allocate takes pinned memory to match */
    cuda->n_picks_max = n_picks_max > 0 ? n_picks_max : 1;
    return arena_round_up(staging_bytes(cuda->n_rows_max, cuda->n_picks_max)) +
           arena_round_up(gemm_device_bytes()) + arena_round_up(partial_bytes(n_rows_max)) +
           score_bytes(cuda->n_picks_max);
}

/* The first step takes what ops need inside. */
static void take_scratch(struct backend *backend)
{
    struct cuda *cuda = cuda_of(backend);
    int32_t n = cuda->n_picks_max < CUDA_SCORE_ROWS ? cuda->n_picks_max : CUDA_SCORE_ROWS;
    size_t tile_bytes = (size_t)n * CUDA_SCORE_IDS * sizeof(float);
    cuda->staging.device = (uint8_t *)cuda_reserve(backend, REGION_SCRATCH, cuda->staging.size);
    gemm_take(&cuda->gemm, (uint8_t *)cuda_reserve(backend, REGION_SCRATCH, gemm_device_bytes()));
    cuda->n_partials_max = heuristics_partials_max(cuda->n_rows_max);
    cuda->partials =
        (float *)cuda_reserve(backend, REGION_SCRATCH, partial_bytes(cuda->n_rows_max));
    cuda->n_score_rows = n;
    cuda->logits = (float *)cuda_reserve(backend, REGION_SCRATCH, tile_bytes);
    cuda->uncond = (float *)cuda_reserve(backend, REGION_SCRATCH, tile_bytes);
    cuda->score_states = cuda_reserve(backend, REGION_SCRATCH, score_state_bytes(n));
}

static void stage_batch(struct backend *backend, const struct batch *batch)
{
    struct cuda *cuda = cuda_of(backend);
    size_t n_rows = (size_t)batch->n_rows, n_picks = (size_t)batch->n_picks;
    struct cuda_batch *on_device = &cuda->batch;
    on_device->canvas_index = STAGE(backend, batch->canvas_index, n_rows);
    on_device->position = STAGE(backend, batch->position, n_rows);
    on_device->visible_end = STAGE(backend, batch->visible_end, n_rows);
    on_device->sequences = STAGE(backend, batch->sequences, (size_t)batch->n_sequences);
    on_device->picked_row = STAGE(backend, batch->picked_row, n_picks);
    for (int picked = 0; picked < 2; picked++) {
        struct attend_cut cut = heuristics_attend_items(cuda->items, batch, picked == 1);
        on_device->cut[picked] = cut;
        on_device->items[picked] = STAGE_ONCE(backend, cuda->items, (size_t)cut.n_items);
    }
}

/* A step is named by what its sequences see of the cache: as good as the caller's phases, except
 * that full steps beside a cached prompt count as reuse. */
static void name_step(const struct batch *batch)
{
    char name[96];
    int32_t n_reuse = 0;
    for (int32_t i = 0; i < batch->n_sequences; i++)
        n_reuse += batch->sequences[i].n_cached > 0;
    const char *phase =
        n_reuse == 0 ? "refresh" : (n_reuse == batch->n_sequences ? "reuse" : "mixed");
    snprintf(name, sizeof name, "%s: %d rows, %d picks", phase, batch->n_rows, batch->n_picks);
    nvtxRangePushA(name);
    nvtxRangePushA("layers");
}

static void cuda_start_step(struct backend *backend, const struct batch *batch, uint64_t shape_key)
{
    struct cuda *cuda = cuda_of(backend);
    if (!cuda->staging.device) take_scratch(backend);
    name_step(batch);
    cuda->step = &cuda->steps[cuda->n_started++ % BACKEND_STEPS_MOST];
    assert(cuda->n_started - cuda->n_finished <= BACKEND_STEPS_MOST);
    cuda->staging.used = cuda->staging.n_copied = 0;
    cuda->staging.n_known = 0;
    stage_batch(backend, batch);
    graphs_start(backend, heuristics_graph_key(shape_key, batch, cuda->batch.cut));
}

/* The last event is recorded in any case, and nothing else is waited for: a step that failed on its
 * way here ends as soon as those before it. */
static void cuda_submit_step(struct backend *backend, void *target, struct matrix source)
{
    struct cuda *cuda = cuda_of(backend);
    struct cuda_step *step = cuda->step;
    step->target = target;
    step->n_bytes = (size_t)source.n_rows * (size_t)source.n_cols * dtype_bytes(source.dtype);
    assert(step->n_bytes <= cuda->result_bytes);
    graphs_end(backend);
    if (cuda_issues(backend, step->result) && step->n_bytes > 0)
        cuda_check(backend,
                   cudaMemcpyAsync(step->result, source.data, step->n_bytes, cudaMemcpyDeviceToHost,
                                   cuda->stream),
                   "a step's picks");
    cuda_check(backend, cudaEventRecord(step->end, cuda->stream), "a step");
    step->is_lost = backend->failure.code != ERROR_NONE;
    nvtxRangePop();
    nvtxRangePop();
}

static bool cuda_finish_step(struct backend *backend, uint64_t *device_ns, struct error *err)
{
    struct cuda *cuda = cuda_of(backend);
    struct cuda_step *step = &cuda->steps[cuda->n_finished++ % BACKEND_STEPS_MOST];
    float ms = 0;
    cudaError_t status = cudaEventSynchronize(step->end);
    if (status == cudaSuccess && !step->is_lost)
        status = cudaEventElapsedTime(&ms, step->begin, step->end);
    *device_ns = (uint64_t)((double)ms * 1e6);
    if (status != cudaSuccess)
        return error_set(err, ERROR_STOPPED, "GPU %d: %s", cuda->device,
                         cudaGetErrorString(status));
    if (step->is_lost)
        return error_set(err, ERROR_STOPPED, "GPU %d: a failure came before the step",
                         cuda->device);
    if (step->n_bytes > 0) memcpy(step->target, step->result, step->n_bytes);
    return true;
}

/* ---- what the ops share ---- */

void cuda_check(struct backend *backend, cudaError_t status, const char *what)
{
    if (status == cudaSuccess || backend->failure.code != ERROR_NONE) return;
    error_set(&backend->failure, ERROR_STOPPED, "GPU: %s: %s", what, cudaGetErrorString(status));
}

/* What was staged and is not on its way yet. The first of it (a step has at least one row) begins
 * the step's time: in the order of the stream, so that the step before is not counted. */
static void copy_staged(struct backend *backend)
{
    struct cuda *cuda = cuda_of(backend);
    struct cuda_staging *staging = &cuda->staging;
    size_t begin = staging->n_copied;
    if (begin == staging->used || backend->failure.code != ERROR_NONE) return;
    if (begin == 0) cuda_check(backend, cudaEventRecord(cuda->step->begin, cuda->stream), "a step");
    cuda_check(backend,
               cudaMemcpyAsync(staging->device + begin, cuda->step->arrays + begin,
                               staging->used - begin, cudaMemcpyHostToDevice, cuda->stream),
               "a step's arrays");
    staging->n_copied = staging->used;
}

bool cuda_issues(struct backend *backend, const void *out)
{
    struct cuda_graphs *graphs = &cuda_of(backend)->graphs;
    graphs->signature = heuristics_mix(graphs->signature, (uintptr_t)out);
    if (graphs->mode == CUDA_ISSUES) copy_staged(backend);
    return graphs->mode != CUDA_REPLAYS && backend->failure.code == ERROR_NONE;
}

const void *cuda_stage(struct backend *backend, const void *array, size_t n_bytes,
                       size_t room_bytes, bool lasts)
{
    struct cuda *cuda = cuda_of(backend);
    struct cuda_staging *staging = &cuda->staging;
    assert(n_bytes <= room_bytes);
    for (int32_t i = 0; i < staging->n_known && lasts; i++)
        if (staging->known[i].host == array && staging->known[i].n_bytes >= n_bytes)
            return staging->device + staging->known[i].at;
    size_t at = staging->used;
    if (room_bytes == 0 || backend->failure.code != ERROR_NONE) return staging->device;
    if (at + room_bytes > staging->size) {
        error_set(&backend->failure, ERROR_UNAVAILABLE,
                  "a step's arrays outgrow their %zu bytes of device memory", staging->size);
        return staging->device;
    }
    memcpy(cuda->step->arrays + at, array, n_bytes);
    staging->used = arena_round_up(at + room_bytes);
    cuda->graphs.signature = heuristics_mix(cuda->graphs.signature, staging->used);
    if (lasts && staging->n_known < CUDA_KNOWN_MAX)
        staging->known[staging->n_known++] = {array, n_bytes, at};
    return staging->device + at;
}

const struct backend_ops backend_cuda_ops = {
    .name = "cuda",
    .code = CUDA_TARGETS,
    .open = cuda_open,
    .close = cuda_close,
    .free_bytes = cuda_free_bytes,
    .allocate = cuda_allocate,
    .reserve = cuda_reserve,
    .weight_bytes = cuda_weight_bytes,
    .upload = cuda_upload,
    .upload_weight = cuda_upload_weight,
    .download = cuda_download,
    .fill_dummy = cuda_fill_dummy,
    .scratch_bytes = cuda_scratch_bytes,
    .start_step = cuda_start_step,
    .submit_step = cuda_submit_step,
    .finish_step = cuda_finish_step,
    .embed = cuda_embed,
    .rms_norm = cuda_rms_norm,
    .linear = cuda_linear,
    .rope = cuda_rope,
    .store_kv = cuda_store_kv,
    .attend = cuda_attend,
    .gated_act = cuda_gated_act,
    .gather_rows = cuda_gather_rows,
    .select_kv = cuda_select_kv,
    .score = cuda_score,
    .commit = cuda_commit,
};
