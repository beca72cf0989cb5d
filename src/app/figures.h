/* Figures of several things side by side: a table for people, an object for programs, made from one
 * list of names so that they cannot disagree. */
#ifndef APP_FIGURES_H
#define APP_FIGURES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* One row. NaN as its value: nobody knows ("-", null). */
struct figure {
    const char *key;  /* in JSON */
    const char *name; /* in tables; a name that starts with a blank belongs to the one above */
    int decimals;     /* in tables */
};

/* Values of a distribution. */
struct figures_spread {
    double mean, p10, p50, p90, p99, most;
};

/* Sorts `values` [n], n at least 1, and takes their figures. */
void figures_spread(struct figures_spread *spread, double *values, int64_t n);

/* "12.345" or "-"; `text` [32]. */
const char *figures_text(char *text, const struct figure *figure, double value);

/* A row for each of `n` figures, a column for each of `n_columns` vectors of values [n]. */
void figures_print(const struct figure *figures, int32_t n, const double *const *columns,
                   int32_t n_columns, FILE *stream);

/* Adds all figures to `object`. */
void figures_add(json_t *object, const struct figure *figures, int32_t n, const double *values);

/* Prints `root` on standard output, indented, and releases it. False (NULL, or no memory):
 * ERROR_UNAVAILABLE. */
bool figures_dump(json_t *root, struct error *err);

#endif
