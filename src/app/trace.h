/* Traces: logs of requests with times of arrival, as others publish them, and our own. A row is a
 * JSON object; that of a CSV file is made of its header and cells. Which columns mean what is
 * recognised by their names. dllm-batch(5) lists the formats. */
#ifndef APP_TRACE_H
#define APP_TRACE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

#define TRACE_COLUMNS_MAX 64
#define TRACE_TOKENS_MAX  (1 << 20) /* more, and the row is an error */

struct trace_names {
    const char *time, *prompt, *output;
    uint64_t unit_ns; /* of times that are numbers */
};

struct trace {
    struct trace_names names;               /* those of the format unless given; 0, NULL: not */
    int32_t n_columns;                      /* of the CSV header; 0: JSON lines */
    const char *columns[TRACE_COLUMNS_MAX]; /* [n_columns] */
};

/* Learns the format from the first line; `names` may be given in part before. Column names are
 * copied to `arena`. False (ERROR_FORMAT): no trace, or a column that was named is missing. */
bool trace_learn(struct trace *trace, struct bytes line, struct arena *arena, struct error *err);

/* The object that a CSV row stands for: numbers where cells are numbers, else strings, null for
 * empty cells; a new reference. NULL: ERROR_FORMAT, what is wrong with the row. */
json_t *trace_parse(const struct trace *trace, struct bytes line, struct error *err);

struct trace_row {
    uint64_t stamp_ns;          /* as written: from whatever the trace counts from, or since 1970 */
    int32_t n_prompt, n_output; /* tokens; -1: the row does not say; n_output 0: no answer came */
};

/* Reads a row's columns. False (ERROR_FORMAT): which column, what it is and what it must be. */
bool trace_read(const struct trace *trace, const json_t *row, struct trace_row *out,
                struct error *err);

/* How arrivals are made of stamps. */
struct trace_schedule {
    bool spreads; /* equal stamps are spread evenly until the next one */
    double rate;  /* requests per second on average; 0: as in the trace */
    double speed; /* all times are divided by it; 0: not */
};

/* Makes stamps [n], n > 0, in ascending order nanoseconds since the first one. False
 * (ERROR_FORMAT): all are equal, so there is no rate to change; or they would not fit. */
bool trace_arrange(uint64_t *stamps_ns, int32_t n, const struct trace_schedule *schedule,
                   struct error *err);

/* Made-up prompt ids [n] below `n_vocab` without `mask_id`: a function of `key` and the place. */
void trace_fill_prompt(int32_t *ids, int32_t n, uint64_t key, int32_t n_vocab, int32_t mask_id);

#endif
