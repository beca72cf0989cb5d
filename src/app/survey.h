/* A pass over all lines before the work, or instead of it: --strict asks whether each line is good,
 * --dry-run shows what would run. Nothing is computed and nothing written. */
#ifndef APP_SURVEY_H
#define APP_SURVEY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "app/prompts.h"
#include "app/report.h"
#include "base/arena.h"
#include "base/error.h"
#include "plan/request.h"

enum { SURVEY_COMPLAINTS_MAX = 20 }; /* more are only counted */

/* A bad line. */
struct complaint {
    int64_t line;
    const char *message;
};

/* What a pass over the lines found. Caller's struct; survey_take sets all of it. */
struct survey {
    int64_t n_lines, n_bad;
    int64_t n_prompt_tokens, n_generate; /* of the good lines together */
    int32_t n_prompt_max;                /* the longest prompt, in tokens */
    int32_t n_complaints;                /* the first bad lines; messages in `keep` */
    struct complaint complaints[SURVEY_COMPLAINTS_MAX];
    bool has_first;      /* there is a good line */
    struct prompt first; /* the first good line; id and prompt ids in `keep` */
};

/* Reads `prompts` to their end, lines of other shards apart; `label` names the input in messages.
 * False: the input cannot be read (err), it holds no line, or a signal asked to stop
 * (ERROR_STOPPED). */
bool survey_take(struct survey *survey, struct prompts *prompts, const char *label,
                 struct arena *keep, struct error *err);

/* False (ERROR_FORMAT, with their number) when a line is bad, after an error for each of the first
 * ones: what --strict says before it writes nothing. */
bool survey_check(const struct survey *survey, const char *label, struct report *report,
                  struct error *err);

/* Prints the counts and the first request: its settings, its prompt as the model sees it, its token
 * ids. For people, not a format; control bytes of the input are made visible. */
void survey_print(const struct survey *survey, const char *label, const struct tokenizer *tokenizer,
                  struct arena *scratch, FILE *stream);

#endif
