/* Items (requests) over time as bars below each other, several to a lane when they are many:
 * legible for fifty and for fifty thousand.
 *
 *     lane 0  ░░░▓▓▓████████░░▓▓▓█████       alive, working, marked: layers over each other; a cell
 *     lane 1  ░░░░░░▓▓▓████████░░░░▓▓▓██     of several items shows shares as opacity */
#ifndef APP_LANES_H
#define APP_LANES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "app/chart.h"

#define LANES_MAX         160
#define LANES_TITLE_BYTES 64

/* Cells are shares of a bin and of the lane's items, 0 to 1; filled by the caller with
 * chart_spread, row by row. All three are one piece of heap: free(alive). */
struct lanes {
    int32_t n_lanes, n_per_lane; /* item i belongs to lane i / n_per_lane */
    double *alive;               /* [n_lanes, CHART_BINS] arrived, not finished */
    double *working;             /* same: taking a step */
    double *marked;              /* same: the part of that which has a colour of its own */
    enum chart_colour colour;    /* that one */
};

/* Zeroed lanes for `n_items`. False: out of memory. */
bool lanes_create(struct lanes *lanes, int32_t n_items, enum chart_colour colour);

/* One bar for equal neighbours; alive is pale. */
void lanes_draw(FILE *out, const struct chart_panel *panel, const struct lanes *lanes);

/* "Requests, 32 to a lane, by start"; `text` [LANES_TITLE_BYTES]. */
const char *lanes_title(const struct lanes *lanes, char *text);

#endif
