/* Charts as SVG: panels with axes, stacked areas over bins of time, lines. Colours are CSS
 * classes with a light and a dark value, so one drawing suits both; nothing refers outside itself.
 *
 *     x, y ┌ title ──────────────┐
 *     y_max│▒▒▒  areas: bins     │   A bin is a column of the plot: values that last shorter
 *          │▒▒▒▒▒▒▒  stacked     │   than a bin are averaged, longer ones are exact steps.
 *         0└─────────────────────┘ x_max */
#ifndef APP_CHART_H
#define APP_CHART_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Bins of a panel over time, about one a pixel. */
#define CHART_BINS 1080

/* Classes of colour; more than one run cycles through the last ones. */
enum chart_colour {
    CHART_REFRESH,
    CHART_REUSE,
    CHART_IDLE, /* padding; alive but not at work */
    CHART_MEMORY,
    CHART_SERIES, /* and the three after it */
    CHART_COLOURS = CHART_SERIES + 4,
};

/* One plot inside a drawing. `x`, `y`: upper left corner of the plot itself, below the title. */
struct chart_panel {
    double x, y, width, height;
    double x_max, y_max; /* both axes start at 0; more than 0 */
    const char *title;   /* plain text, escaped here */
    const char *x_label; /* of the numbers below; NULL: no numbers */
    const char *y_label; /* NULL: no numbers */
};

/* The style sheet that all drawings need once: inside a lone SVG, or in the head of a page. */
void chart_style(FILE *out);

/* Begins a drawing of this size; end it with "</svg>". `is_alone`: a file of its own, which brings
 * its style and its ground. */
void chart_begin(FILE *out, double width, double height, bool is_alone);

/* Text as it must stand in markup; control bytes become '?'. */
void chart_escape(FILE *out, const char *text);

/* A line of text, escaped: foreign bytes must not become markup. `classes`: "title", "note" or "" .
 */
__attribute__((format(printf, 5, 6))) void
chart_label(FILE *out, double x, double y, const char *classes, const char *format, ...);

/* Title, grid and numbers. */
void chart_axes(FILE *out, const struct chart_panel *panel);

/* A swatch with its name; returns the x behind it. */
double chart_key(FILE *out, double x, double y, enum chart_colour colour, const char *name);

/* The area between `base` [n] and base + values [n]; adds values to base, so that the next one
 * stacks on it. */
void chart_area(FILE *out, const struct chart_panel *panel, const double *values, double *base,
                int32_t n, enum chart_colour colour);

/* A line through (x, y) [n]; y NULL: a dashed level at x[0]. */
void chart_line(FILE *out, const struct chart_panel *panel, const double *x, const double *y,
                int32_t n, enum chart_colour colour);

/* Adds the share of [begin, end) that lies in each of `n` bins over [0, x_max), times `value`. */
void chart_spread(double *bins, int32_t n, double x_max, double begin, double end, double value);

#endif
