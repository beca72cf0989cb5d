/* Opens what a run needs, in the order that memory demands: backend, sizes, memory, weights. */
#include "engine/engine.h"

#include <assert.h>

#include "model/forward.h"

#define CELLS_MAX ((int64_t)1 << 20) /* of a window's canvases */
/* KV slots per row of an iteration, when nobody says: as many requests as can fill an iteration
 * with windows of 16 rows keep 256 positions each. */
#define SLOTS_PER_ROW 16

/* Rows below which blocks begin, when nobody says; a plan on a profile knows better. */
static int32_t choose_target(const struct engine_options *options, const struct backend *backend,
                             int32_t n_rows_max)
{
    assert(backend->n_rows_target >= 0);
    return options->n_rows_max > 0 || backend->n_rows_target >= n_rows_max ? 0
                                                                           : backend->n_rows_target;
}

/* Rows of an iteration: a request must fit whole, and a batch should fill the machine. */
static int32_t choose_rows(const struct engine_options *options, const struct model_config *config,
                           const struct backend *backend)
{
    if (options->n_rows_max > 0) return options->n_rows_max;
    assert(config->n_positions > 0);
    if (config->n_positions < backend->n_rows_least) return backend->n_rows_least;
    return config->n_positions < backend->n_rows_most ? config->n_positions : backend->n_rows_most;
}

static void describe(struct memory_shape *shape, const struct engine *engine, size_t weight_bytes)
{
    bool monolithic = engine->limits.monolithic_logits;
    const struct model_config *config = &engine->model.config;
    int32_t rows = engine->limits.planning.n_rows_max;
    *shape = (struct memory_shape){
        .n_layers = config->n_layers,
        .hidden = config->hidden,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .ffn = config->ffn,
        .n_positions = config->n_positions,
        .weight_bytes = weight_bytes,
        .backend_bytes = backend_scratch_bytes(&engine->backend, rows, rows),
        .n_rows_max = rows,
        .n_picks_max = rows,
        .pick_bytes = sizeof(struct pick),
        .n_cells_max = engine->limits.n_cells_max,
        .n_slots = engine->limits.planning.n_slots,
        .n_monolithic_ids = monolithic ? config->n_vocab : 0,
        .element_bytes = (int32_t)dtype_bytes(engine->backend.activation),
        .kv_element_bytes = (double)dtype_bytes(engine->backend.activation),
    };
}

/* Slots of the KV pool: what was asked for, else enough for these rows, but at most half of what
 * everything else (`plan`, without slots) leaves. */
static int64_t choose_slots(const struct engine_options *options, int32_t n_rows_max,
                            const struct memory_plan *plan, size_t limit_bytes)
{
    size_t slot_bytes = plan->slot_bytes;
    assert(plan->cache_bytes == 0);
    if (options->kv_bytes != SIZE_MAX) return (int64_t)(options->kv_bytes / slot_bytes);
    size_t left = limit_bytes > plan->total_bytes ? (limit_bytes - plan->total_bytes) / 2 : 0;
    int64_t wanted = (int64_t)SLOTS_PER_ROW * n_rows_max;
    return (size_t)wanted < left / slot_bytes ? wanted : (int64_t)(left / slot_bytes);
}

/* Sizes everything and takes the memory, or refuses with figures. */
static bool allocate(struct engine *engine, const struct engine_options *options,
                     size_t weight_bytes, struct error *err)
{
    struct memory_shape shape;
    size_t limit = options->memory_bytes_max ? options->memory_bytes_max
                                             : backend_free_bytes(&engine->backend);
    describe(&shape, engine, weight_bytes);
    memory_size(&engine->memory, &shape);
    shape.n_slots = choose_slots(options, shape.n_rows_max, &engine->memory, limit);
    engine->limits.planning.n_slots = shape.n_slots;
    memory_size(&engine->memory, &shape);
    assert(engine->memory.activation_bytes ==
           forward_bytes(&engine->model, engine->limits.planning.n_rows_max));
    if (!memory_check(&engine->memory, limit, err)) return false;
    const struct memory_plan *plan = &engine->memory;
    const size_t regions[REGION_COUNT] = {
        [REGION_WEIGHTS] = plan->weights_bytes,
        [REGION_CACHE] = plan->cache_bytes,
        [REGION_SCRATCH] = plan->activation_bytes + plan->score_bytes + plan->canvas_bytes +
                           plan->logits_bytes + plan->backend_bytes,
    };
    return backend_allocate(&engine->backend, regions, err);
}

static bool load(struct engine *engine, const struct engine_options *options,
                 const struct safetensors *files, struct arena *run, struct error *err)
{
    struct model *model = &engine->model;
    int32_t rows = engine->limits.planning.n_rows_max;
    int32_t n_positions = model->config.n_positions < rows ? model->config.n_positions : rows;
    struct weights_source source = {.config = &model->config,
                                    .files = files,
                                    .backend = &engine->backend,
                                    .n_positions = n_positions};
    size_t weight_bytes;
    if (!weights_plan(&model->weights, &source, run, &weight_bytes, err)) return false;
    if (!allocate(engine, options, weight_bytes, err)) return false;
    weights_load(&model->weights, &source, run);
    return executor_create(&engine->executor, model, &engine->limits, run, err);
}

bool engine_open(struct engine *engine, const struct engine_options *options,
                 const struct model_config *config, struct arena *run, struct error *err)
{
    assert(options->backend);
    assert(options->n_requests_max > 0);
    *engine = (struct engine){
        .model = {.config = *config, .backend = &engine->backend},
        .limits = {.planning = {.policy = options->policy,
                                .objective = options->objective,
                                .n_requests_max = options->n_requests_max,
                                .n_running_max = options->n_running_max,
                                .tokens_per_step = 1},
                   .monolithic_logits = options->monolithic_logits,
                   .cost = options->cost},
    };
    struct backend_limits limits = {.n_threads = options->n_threads,
                                    .cpu_isa = options->cpu_isa,
                                    .device = options->device,
                                    .graphs = options->graphs};
    struct safetensors files = {0};
    if (!backend_open(&engine->backend, options->backend, &limits, err)) return false;
    int32_t n_rows_max = choose_rows(options, config, &engine->backend);
    engine->limits.planning.n_rows_max = n_rows_max;
    engine->limits.planning.n_rows_target = choose_target(options, &engine->backend, n_rows_max);
    int64_t n_cells_max = options->n_cells_max > 0 ? options->n_cells_max : CELLS_MAX;
    engine->limits.n_cells_max = n_cells_max > n_rows_max ? n_cells_max : n_rows_max;
    bool ok = options->dummy_weights || safetensors_open(&files, options->model_dir, run, err);
    if (ok) ok = load(engine, options, options->dummy_weights ? NULL : &files, run, err);
    safetensors_close(&files);
    if (!ok) {
        engine_close(engine);
        return error_wrap(err, "loading model '%s'", options->model_dir);
    }
    return true;
}

void engine_close(struct engine *engine)
{
    backend_close(&engine->backend);
    *engine = (struct engine){0};
}
