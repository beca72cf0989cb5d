/* Cells to paths: one for each layer and level of opacity, so that a drawing stays small however
 * many items it shows. */
#include "app/lanes.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { LEVELS = 4 }; /* of opacity */

/* All cells of a layer with this level of opacity, as one path; equal neighbours are one bar. */
static void put_level(FILE *out, const struct chart_panel *panel, const struct lanes *lanes,
                      const double *values, int level)
{
    double width = panel->width / CHART_BINS, height = panel->height / lanes->n_lanes;
    double shown = height > 3 ? height - 1 : height;
    assert(level >= 1 && level <= LEVELS);
    for (int32_t lane = 0; lane < lanes->n_lanes; lane++) {
        const double *row = values + (size_t)lane * CHART_BINS;
        for (int32_t begin = 0, end; begin < CHART_BINS; begin = end) {
            end = begin + 1;
            if ((int)ceil(fmin(row[begin], 1) * LEVELS - 1e-6) != level) continue;
            while (end < CHART_BINS && (int)ceil(fmin(row[end], 1) * LEVELS - 1e-6) == level)
                end++;
            fprintf(out, "M%.1f %.1fh%.1fv%.1fh-%.1fz", panel->x + begin * width,
                    panel->y + lane * height, (end - begin) * width, shown, (end - begin) * width);
        }
    }
}

void lanes_draw(FILE *out, const struct chart_panel *panel, const struct lanes *lanes)
{
    const enum chart_colour layer_colours[] = {CHART_IDLE, CHART_REUSE, lanes->colour};
    const double *layers[] = {lanes->alive, lanes->working, lanes->marked};
    assert(lanes->n_lanes > 0);
    for (int layer = 0; layer < 3; layer++) {
        for (int level = 1; level <= LEVELS; level++) {
            double opacity = (double)level / LEVELS * (layer == 0 ? 0.35 : 1);
            fprintf(out, "<path class=\"f%d\" fill-opacity=\"%.2f\" d=\"",
                    (int)layer_colours[layer], opacity);
            put_level(out, panel, lanes, layers[layer], level);
            fputs("\"/>\n", out);
        }
    }
}

bool lanes_create(struct lanes *lanes, int32_t n_items, enum chart_colour colour)
{
    assert(n_items > 0);
    *lanes = (struct lanes){.n_per_lane = (n_items + LANES_MAX - 1) / LANES_MAX, .colour = colour};
    lanes->n_lanes = (n_items + lanes->n_per_lane - 1) / lanes->n_per_lane;
    size_t n = (size_t)lanes->n_lanes * CHART_BINS;
    lanes->alive = calloc(3 * n, sizeof *lanes->alive); /* one allocation for the three */
    if (lanes->alive == NULL) return false;
    lanes->working = lanes->alive + n;
    lanes->marked = lanes->working + n;
    return true;
}

const char *lanes_title(const struct lanes *lanes, char *text)
{
    assert(lanes->n_per_lane > 0);
    if (lanes->n_per_lane == 1) return "Requests, by start";
    snprintf(text, LANES_TITLE_BYTES, "Requests, %" PRId32 " to a lane, by start",
             lanes->n_per_lane);
    return text;
}
