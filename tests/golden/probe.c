/* Opens backend and model by hand, with room for the logits that no run ever holds. */
#include "golden/probe.h"

#include <assert.h>
#include <string.h>

bool probe_open(struct probe *probe, const char *model_dir, const char *backend,
                const struct backend_limits *limits, struct arena *run, struct error *err)
{
    struct safetensors files;
    size_t weight_bytes;
    *probe = (struct probe){.run = run, .model = {.backend = &probe->backend}};
    struct model *model = &probe->model;
    if (!config_read(&model->config, model_dir, run, err)) return false;
    if (!backend_open(&probe->backend, backend, limits, err)) return false;
    if (!safetensors_open(&files, model_dir, run, err)) return false;
    struct weights_source source = {.config = &model->config,
                                    .files = &files,
                                    .backend = &probe->backend,
                                    .n_positions = PROBE_ROWS_MAX};
    bool ok = weights_plan(&model->weights, &source, run, &weight_bytes, err);
    size_t logits_bytes = (size_t)PROBE_ROWS_MAX * (size_t)model->config.n_vocab * sizeof(float);
    const size_t regions[REGION_COUNT] = {
        [REGION_WEIGHTS] = weight_bytes,
        [REGION_SCRATCH] = forward_bytes(model, PROBE_ROWS_MAX) + PROBE_ROWS_MAX * sizeof(int32_t) +
                           backend_scratch_bytes(&probe->backend, PROBE_ROWS_MAX, PROBE_ROWS_MAX) +
                           logits_bytes};
    ok = ok && backend_allocate(&probe->backend, regions, err);
    if (ok) weights_load(&model->weights, &source, run);
    safetensors_close(&files);
    if (!ok) return false;
    forward_init(&probe->forward, model, PROBE_ROWS_MAX, 0);
    probe->canvas = (struct matrix){.n_rows = PROBE_ROWS_MAX, .n_cols = 1, .dtype = DTYPE_I32};
    probe->canvas.data =
        backend_reserve(&probe->backend, REGION_SCRATCH, PROBE_ROWS_MAX * sizeof(int32_t));
    probe->logits = (struct matrix){.n_cols = model->config.n_vocab, .dtype = DTYPE_F32};
    probe->logits.data = backend_reserve(&probe->backend, REGION_SCRATCH, logits_bytes);
    return true;
}

void probe_close(struct probe *probe)
{
    backend_close(&probe->backend);
}

bool probe_logits(struct probe *probe, const struct probe_canvas *canvases, int32_t n,
                  struct error *err)
{
    static int32_t index[PROBE_ROWS_MAX], position[PROBE_ROWS_MAX], visible_end[PROBE_ROWS_MAX];
    static int32_t ids[PROBE_ROWS_MAX];
    static struct sequence sequences[PROBE_ROWS_MAX];
    struct batch batch = {.canvas_index = index,
                          .position = position,
                          .visible_end = visible_end,
                          .sequences = sequences,
                          .picked_row = index,
                          .n_sequences = n};
    for (int32_t i = 0; i < n; i++) {
        int32_t begin = batch.n_rows;
        assert(begin + canvases[i].n <= PROBE_ROWS_MAX);
        for (int32_t j = 0; j < canvases[i].n; j++) {
            int32_t row = begin + j;
            index[row] = row;
            ids[row] = canvases[i].ids[j];
            position[row] = j;
            visible_end[row] = begin + canvases[i].n;
        }
        sequences[i] = (struct sequence){.row_begin = begin,
                                         .n_rows = canvases[i].n,
                                         .pick_begin = begin,
                                         .n_picks = canvases[i].n,
                                         .cache_begin = -1};
        batch.n_rows += canvases[i].n;
    }
    batch.n_picks = batch.n_rows;
    probe->canvas.n_rows = batch.n_rows;
    probe->logits.n_rows = batch.n_rows;
    backend_upload(&probe->backend, probe->canvas, ids);
    uint64_t device_ns;
    backend_start_step(&probe->backend, &batch, 0);
    struct matrix hidden = forward_run(&probe->forward, probe->canvas, &(struct forward_keeps){0});
    backend_linear(&probe->backend, &(struct linear_args){.out = probe->logits,
                                                          .x = hidden,
                                                          .weight = probe->model.weights.head});
    if (!backend_finish_step(&probe->backend, &device_ns, err)) return false;
    for (int32_t i = 0; i < n; i++) {
        struct matrix part = probe->logits;
        part.data = (float *)part.data + (size_t)sequences[i].row_begin * (size_t)part.n_cols;
        part.n_rows = canvases[i].n;
        backend_download(&probe->backend, canvases[i].logits, part);
    }
    return true;
}
