/* app/lanes: items share lanes when they are many, and equal neighbours are one bar. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "app/lanes.h"

static char *text;
static size_t n_text;
static FILE *out;

static void set_up(void)
{
    out = open_memstream(&text, &n_text);
}

static void tear_down(void)
{
    fclose(out);
    free(text);
}

TestSuite(lanes, .init = set_up, .fini = tear_down);

static const struct chart_panel panel = {
    .x = 50, .y = 20, .width = 100, .height = 40, .x_max = 10, .y_max = 4, .title = "t"};

Test(lanes, are_shared_when_items_are_many)
{
    struct lanes lanes;
    cr_assert(lanes_create(&lanes, 3, CHART_REFRESH));
    cr_assert_eq(lanes.n_lanes, 3);
    cr_assert_eq(lanes.n_per_lane, 1);
    free(lanes.alive);
    cr_assert(lanes_create(&lanes, 5000, CHART_REFRESH));
    cr_assert_leq(lanes.n_lanes, LANES_MAX);
    cr_assert_geq((int64_t)lanes.n_lanes * lanes.n_per_lane, 5000);
    free(lanes.alive);
}

Test(lanes, equal_neighbours_of_a_lane_are_one_bar)
{
    struct lanes lanes;
    cr_assert(lanes_create(&lanes, 1, CHART_REFRESH));
    chart_spread(lanes.working, CHART_BINS, 10, 0, 5, 1);
    lanes_draw(out, &panel, &lanes);
    fflush(out);
    cr_assert(strstr(text, "fill-opacity=\"1.00\" d=\"M50.0 20.0h50.0v39.0h-50.0z\""), "%s", text);
    free(lanes.alive);
}

Test(lanes, half_of_the_items_is_half_as_opaque)
{
    struct lanes lanes;
    cr_assert(lanes_create(&lanes, 2 * LANES_MAX, CHART_REFRESH));
    cr_assert_eq(lanes.n_per_lane, 2);
    chart_spread(lanes.working, CHART_BINS, 10, 0, 10, 0.5);
    lanes_draw(out, &panel, &lanes);
    fflush(out);
    cr_assert(strstr(text, "class=\"f1\" fill-opacity=\"0.50\" d=\"M50.0 20.0h100.0"), "%s", text);
    free(lanes.alive);
}

Test(lanes, nothing_is_drawn_outside_the_panel)
{
    struct lanes lanes;
    cr_assert(lanes_create(&lanes, 7, CHART_MEMORY));
    for (int i = 0; i < 7; i++)
        chart_spread(lanes.marked + i * CHART_BINS, CHART_BINS, 10, i, i + 20, 1);
    lanes_draw(out, &panel, &lanes);
    fflush(out);
    for (const char *at = text; (at = strchr(at, 'M')) != NULL; at++) {
        double x, y, width, height;
        if (sscanf(at, "M%lf %lfh%lfv%lf", &x, &y, &width, &height) != 4) continue;
        cr_assert(x >= 50 && x + width <= 150.1, "%.40s", at);
        cr_assert(y >= 20 && y + height <= 60.1, "%.40s", at);
    }
    free(lanes.alive);
}

Test(lanes, the_title_says_how_many_share_one)
{
    struct lanes lanes = {.n_per_lane = 1};
    char title[LANES_TITLE_BYTES];
    cr_assert_str_eq(lanes_title(&lanes, title), "Requests, by start");
    lanes.n_per_lane = 625;
    cr_assert_str_eq(lanes_title(&lanes, title), "Requests, 625 to a lane, by start");
}

/* However the cells lie, the bars of one layer cover as much as there is in it. */
Test(lanes, bars_cover_what_is_in_the_cells)
{
    struct lanes lanes;
    double covered = 0, wanted = 0;
    cr_assert(lanes_create(&lanes, 9, CHART_REFRESH));
    srand(11);
    for (size_t i = 0; i < 9 * CHART_BINS; i++) {
        lanes.working[i] = rand() % 10 < 4;
        wanted += lanes.working[i] / (9.0 * CHART_BINS);
    }
    lanes_draw(out, &panel, &lanes);
    fflush(out);
    for (const char *at = text; (at = strchr(at, 'M')) != NULL; at++) {
        double x, y, width, height;
        if (sscanf(at, "M%lf %lfh%lfv%lf", &x, &y, &width, &height) != 4) continue;
        covered += width / 100 / 9;
    }
    /* Widths have one decimal, bins are a tenth of a pixel wide here. */
    cr_assert_float_eq(covered, wanted, 0.12 * wanted, "seed 11: %g of %g", covered, wanted);
    free(lanes.alive);
}
