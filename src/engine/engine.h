/* Everything between a model folder and a running executor: backend, memory plan, weights. The
 * order matters (bytes are known before anything is allocated), so it is written once, here. */
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

/* What the user chose; all borrowed until engine_open returns. */
struct engine_options {
    const char *model_dir;   /* with model.safetensors or its index; for messages under dummy */
    const char *backend;     /* "ref", "cpu", "cuda", "auto" */
    const char *cpu_isa;     /* NULL: the best this processor has */
    int32_t n_threads;       /* 0: one per available processor */
    int32_t device;          /* as in struct backend_limits, */
    bool graphs;             /* and this */
    bool monolithic_logits;  /* all logits at once, as a baseline; else in tiles */
    bool dummy_weights;      /* seeded random weights instead of the folder's */
    int32_t n_rows_max;      /* rows of an iteration; 0: n_positions within the backend's
                                least and most */
    int32_t n_requests_max;  /* requests of a window, at least 1 */
    int64_t n_cells_max;     /* canvas cells of a window; 0: what is usual */
    size_t memory_bytes_max; /* 0: what the machine, or the job's cgroup, has free */
    size_t kv_bytes;         /* of the KV pool; SIZE_MAX: what is sensible for these rows */
    enum policy policy;
    enum objective objective;
    int32_t n_running_max;         /* as in plan/planner.h */
    const struct cost_model *cost; /* as in executor_limits; outlives the engine */
};

/* Must not move after engine_open: the model points to the backend beside it. */
struct engine {
    struct backend backend;
    struct model model;
    struct memory_plan memory;     /* for -v and refusals: bytes by purpose */
    struct executor_limits limits; /* resolved */
    struct executor *executor;     /* lives in the run arena */
};

/* Opens the backend, sizes memory, refuses it with figures if it does not fit, loads the weights.
 * Caller's struct; host tables live in `run`. `config` was read by config_read (and may have more
 * stop ids since); it is copied. False: ERROR_UNAVAILABLE (backend, memory), ERROR_FORMAT or
 * ERROR_NO_INPUT (weights), wrapped with the model's name; nothing stays open. */
bool engine_open(struct engine *engine, const struct engine_options *options,
                 const struct model_config *config, struct arena *run, struct error *err);
void engine_close(struct engine *engine); /* a zeroed struct is fine */

#endif
