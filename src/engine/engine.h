/* Everything between a model folder and a running executor: backend, memory plan, weights. The order
 * matters (bytes are known before anything is allocated), so it is written once, here. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/error.h"
#include "engine/executor.h"
#include "model/model.h"
#include "plan/memory.h"

struct engine_options {
    const char *model_dir;
    const char *backend; /* "ref", "cpu", "cuda", "auto" */
    const char *cpu_isa; /* NULL: best */
    int32_t n_threads;   /* 0: all */
    bool dummy_weights;  /* seeded random weights instead of the folder's */
    int32_t n_rows_max;  /* 0: automatic */
    int32_t n_requests_max;
    size_t memory_bytes_max; /* 0: what the machine has free */
};

struct engine {
    struct backend backend;
    struct model model;
    struct memory_plan memory;
    struct executor_limits limits; /* resolved */
    struct executor *executor;
};

/* Opens the backend, sizes memory, refuses it with figures if it does not fit, loads the weights.
 * Caller's struct; allocations live in `run`. `config` was read by config_read. */
bool engine_open(struct engine *engine, const struct engine_options *options,
                 const struct model_config *config, struct arena *run, struct error *err);
void engine_close(struct engine *engine); /* a zeroed struct is fine */

#endif
