/* The first record of an output: what the answers below it depend on besides their lines. A run
 * that goes on with the file must have the same: model and settings. One that is forced to go on
 * with others puts another header before its answers. Which backend computed is told, too, but may
 * change: its answers are good ones, if not the same bits. */
#ifndef APP_HEADER_H
#define APP_HEADER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "app/options.h"
#include "base/error.h"

enum { HEADER_FORMAT = 1 };

/* What every header begins with; a file that is torn here is still known as ours. */
#define HEADER_START "{\"header\":{\"format\":"

/* "dllm-batch 0.1.0" */
const char *header_program(void);

/* The header of a run with these options: format, program, model, settings; the caller frees it.
 * The model's hash covers config.json, the tokenizer's files, and of the weights names, sizes,
 * headers and samples; of dummy weights the configuration alone. Settings are the options given
 * that answers depend on, as text. False: a file cannot be read. */
bool header_make(json_t **header, const struct options *options, const char *model_name,
                 struct error *err);

/* The record's line, with the backend's name; heap. NULL: out of memory. */
char *header_line(const json_t *header, const char *backend);

/* Adds to a manifest what it tells of the input: lines, and the sum of their keys (app/ledger.h).
 */
void header_tell_input(json_t *manifest, int64_t n_lines, uint64_t keys);

/* Whether the file `path` that has `found` is of one kind with what has `wanted` (NULL: anything),
 * which messages call `now`. False: ERROR_USAGE with all that differs, or ERROR_FORMAT for a header
 * that this program cannot read. */
bool header_agree(const json_t *found, const json_t *wanted, const char *now, const char *path,
                  struct error *err);

#endif
