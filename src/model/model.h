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

struct model {
    struct model_config config;
    struct backend *backend; /* borrowed */
    struct weights weights;
};

#endif
