/* A model in a backend's memory: configuration, weights, and the one forward pass. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/error.h"
#include "model/config.h"
#include "model/weights.h"

/* Filled by engine/engine.h, which knows the order: config (files), backend (open), weights (after
 * the memory is taken). Nothing in it changes while requests run, so one model serves any number of
 * forward passes, one after the other. */
struct model {
    struct model_config config; /* shapes, special ids, defaults */
    struct backend *backend;    /* borrowed; outlives the model */
    struct weights weights; /* data in the backend's REGION_WEIGHTS, layer table in the run arena */
};

#endif
