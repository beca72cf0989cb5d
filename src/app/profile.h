/* What the cost model needs from outside: a device profile (a JSON file, dllm-batch(5)) and the
 * shape of a model, which may be a folder without weights or one of the names known here. */
#ifndef APP_PROFILE_H
#define APP_PROFILE_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/error.h"
#include "model/config.h"
#include "plan/cost.h"

/* Reads the profile `name`: a file, or "rtx4090", "l40s", "h200", ... for data/profiles/NAME.json
 * beside the program (app_find_data). A word without '/' and without ".json" is a name. Every field
 * is checked. False: ERROR_NO_INPUT, or ERROR_FORMAT naming file, key, value and wish. */
bool profile_read(struct cost_profile *profile, const char *name, struct error *err);

/* Reads the configuration of the model `name`: "llada-8b", "dream-7b", ... for data/shapes/NAME
 * beside the program, else a folder with config.json. Nothing but shapes, ids and defaults is known
 * after it; no weights are looked for. Strings may point into `arena`. */
bool profile_read_model(struct model_config *config, const char *name, struct arena *arena,
                        struct error *err);

/* The model's shape as the cost model sees it; bytes of one weight and of one cached number. */
struct cost_shape profile_shape(const struct model_config *config, double weight_element_bytes,
                                double kv_element_bytes);

#endif
