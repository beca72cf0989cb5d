/* A model opened for a look inside: logits of whole canvases, several in one ragged batch. Only
 * tests see full logits; the program never makes them. */
#ifndef TESTS_GOLDEN_PROBE_H
#define TESTS_GOLDEN_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/error.h"
#include "model/forward.h"
#include "model/model.h"

#define PROBE_ROWS_MAX 2048

struct probe {
    struct backend backend;
    struct model model;
    struct forward forward;
    struct matrix canvas, logits; /* [PROBE_ROWS_MAX, 1], [PROBE_ROWS_MAX, n_vocab] */
    struct arena *run;
};

/* One canvas and where its logits go. */
struct probe_canvas {
    const int32_t *ids; /* [n] */
    int32_t n;
    float *logits; /* [n, n_vocab], row i is of canvas row i (unshifted) */
};

bool probe_open(struct probe *probe, const char *model_dir, const char *backend,
                const struct backend_limits *limits, struct arena *run, struct error *err);
void probe_close(struct probe *probe);

/* All canvases in one forward. */
bool probe_logits(struct probe *probe, const struct probe_canvas *canvases, int32_t n,
                  struct error *err);

#endif
