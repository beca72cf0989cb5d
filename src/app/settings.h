/* Decode settings of a request, resolved from their sources, the later ones stronger:
 *
 *     the family's defaults < generation_config.json < flags < the input line
 *
 * Flags and line are each a struct options of which only is_set and the IN_LINE fields count, so
 * names, types and limits are those of options.def and nowhere else. */
#ifndef APP_SETTINGS_H
#define APP_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>

#include "app/options.h"
#include "base/error.h"
#include "engine/engine.h"
#include "model/config.h"
#include "plan/planner.h"
#include "plan/request.h"

/* Takes the value of an input line's key into `layer`. `key` is the name for messages ("max_tokens"
 * may set gen_length). null counts as absent. Strings are borrowed from `value`. False: a wrong
 * type or an impossible value, ERROR_FORMAT with what it is and what it may be. */
bool settings_read(struct options *layer, enum option_id id, const char *key, const json_t *value,
                   struct error *err);

/* False (ERROR_USAGE, naming them): the flags exclude each other, or with the model's defaults they
 * can answer no line that brings no settings of its own, be its prompt one token. With --gen-length
 * 0 that is a line with masks. What is wrong without any flag is no mistake of theirs. */
bool settings_check_flags(const struct options *flags, const struct model_config *config,
                          struct error *err);

/* What a request decodes with. Two settings that exclude each other: the stronger source wins, in
 * the same source it is an error. With `has_masks` (infill) gen_length is 0 unless the line gives
 * it. A default that does not suit what was given falls away: the number of steps when a length is
 * given, blocks and alg_temp when the remasking rule has none. */
bool settings_resolve(struct decode_settings *decode, const struct model_config *config,
                      const struct options *flags, const struct options *line, bool has_masks,
                      struct error *err);

/* The values that --policy and --objective name. */
enum policy settings_policy(const char *name);
enum objective settings_objective(const char *name);

/* What the flags say about the engine; requests and cells of a window are the caller's. */
void settings_engine(struct engine_options *engine, const struct options *flags);

/* "low_confidence", ...: for printing. */
const char *settings_remasking_name(enum remasking remasking);

#endif
