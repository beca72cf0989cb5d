/* The pass over an input that shares its lines out by cost: each line becomes a request without an
 * engine and without weights, and its steps are counted in operations of the model. No device is
 * asked, so every shard of a job finds the same costs. */
#ifndef APP_SHARD_COSTS_H
#define APP_SHARD_COSTS_H

#include <stdbool.h>

#include "app/prompts.h"
#include "app/shard.h"
#include "base/arena.h"
#include "base/error.h"

/* Reads the input that `options` name to its end (their shard is NULL) and makes the
 * partition in `shard`, whose bits are pushed on `keep`. Lines that get an error cost nothing; one
 * with --threshold or --factor commits --tokens-per-step tokens a step, and none stops early. At
 * most 16 bytes a line, one bit afterwards. False: the input cannot be read, has more than
 * SHARD_LINES_MAX lines, or a signal asked to stop (ERROR_STOPPED). */
bool shard_costs_read(struct shard *shard, const struct prompts_options *options,
                      struct arena *keep, struct error *err);

#endif
