/* What the files of the program share: the subcommands and the version. A subcommand does the work
 * of one command line from start to end; it prints results, never errors (only main does, I5). */
#ifndef APP_APP_H
#define APP_APP_H

#include <stdbool.h>
#include <stdio.h>

#include "app/options.h"
#include "base/error.h"

struct model_config;
struct tokenizer;

/* Folder name of the model that ships with the program, under data/models in the source tree and
 * share/dllm-batch/models when installed. */
#define SHIPPED_MODEL "tiny-llada"

/* --version: program, compiler, C library, processor, backends that open here, libraries. */
void version_print(FILE *stream);

/* Sets config's end-of-turn id and adds it to the stop ids: answers end with the turn, which only
 * the tokenizer can name. No tokenizer (NULL), or no such token in it: changes nothing. */
void app_learn_turn_end(struct model_config *config, const struct tokenizer *tokenizer);

/* Opens the tokenizer of a model's folder, with the above for `config`. *tokenizer is NULL where
 * the folder has none: prompts must be token ids then. False: err. */
bool app_open_tokenizer(struct tokenizer **tokenizer, const char *folder,
                        struct model_config *config, struct error *err);

/* The path of a file that ships with the program, such as "profiles/h200.json": installed, the
 * program is PREFIX/bin/dllm-batch and the file PREFIX/share/dllm-batch/...; in a build folder of
 * the source tree it is in data/, one or two levels up. `path` [path_bytes_max]. False: nowhere. */
bool app_find_data(const char *relative, char *path, size_t path_bytes_max);

/* Every subcommand: true and *status is the exit status (0, or 1: finished, but some lines
 * failed). False: err's code is the exit status and main prints its message; an empty message means
 * silence (the reader of our output went away). For cmd_run, options->model is always filled in. */
bool cmd_run(const struct options *options, int *status, struct error *err);
bool cmd_inspect(const struct options *options, int *status, struct error *err);
bool cmd_plan(const struct options *options, int *status, struct error *err);
bool cmd_replay(const struct options *options, int *status, struct error *err);
bool cmd_report(const struct options *options, int *status, struct error *err);
bool cmd_verify(const struct options *options, int *status, struct error *err);
bool cmd_merge(const struct options *options, int *status, struct error *err);
bool cmd_profile(const struct options *options, int *status, struct error *err);

#endif
