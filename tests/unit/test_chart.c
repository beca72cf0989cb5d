/* app/chart: bins keep what is spread over them, foreign text never becomes markup, shapes stay
 * inside their panel. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/chart.h"

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

TestSuite(chart, .init = set_up, .fini = tear_down);

static const struct chart_panel panel = {.x = 50,
                                         .y = 20,
                                         .width = 100,
                                         .height = 40,
                                         .x_max = 10,
                                         .y_max = 4,
                                         .title = "A < B & \"C\"",
                                         .x_label = "seconds",
                                         .y_label = "rows"};

Test(chart, spreading_keeps_the_area)
{
    double bins[7] = {0}, area = 0;
    chart_spread(bins, 7, 10, 1.3, 8.9, 5);
    chart_spread(bins, 7, 10, 4.0, 4.1, 100);
    for (int i = 0; i < 7; i++)
        area += bins[i] * 10 / 7;
    cr_assert_float_eq(area, 5 * (8.9 - 1.3) + 100 * 0.1, 1e-9);
    cr_assert_eq(bins[0] > 0, true);
    cr_assert_float_eq(bins[1], 5, 1e-9, "a bin that is covered has the value itself");
}

Test(chart, what_lies_outside_the_span_is_cut)
{
    double bins[4] = {0};
    chart_spread(bins, 4, 8, -3, 100, 1);
    for (int i = 0; i < 4; i++)
        cr_assert_float_eq(bins[i], 1, 1e-9);
    chart_spread(bins, 4, 8, 5, 5, 1000);
    cr_assert_float_eq(bins[2], 1, 1e-9, "nothing lasts no time");
}

Test(chart, foreign_text_is_escaped)
{
    chart_label(out, 1, 2, "note", "%s", "</text><script>\"x\"&\x01");
    fflush(out);
    cr_assert(strstr(text, "&lt;/text&gt;&lt;script&gt;&quot;x&quot;&amp;?</text>"), "%s", text);
}

Test(chart, axes_have_round_numbers_and_the_title)
{
    chart_axes(out, &panel);
    fflush(out);
    cr_assert(strstr(text, ">A &lt; B &amp; &quot;C&quot;<"));
    cr_assert(strstr(text, ">seconds<"));
    cr_assert(strstr(text, ">10<"), "%s", text);
    cr_assert(strstr(text, ">4<"), "%s", text);
    cr_assert_null(strstr(text, "nan"));
}

Test(chart, large_and_small_numbers_stay_short)
{
    struct chart_panel wide = panel;
    wide.x_max = 2.5e6;
    wide.y_max = 0.003;
    chart_axes(out, &wide);
    fflush(out);
    cr_assert(strstr(text, ">500k<"), "%s", text);
    cr_assert(strstr(text, ">2.5M<"), "%s", text);
    cr_assert(strstr(text, ">0.001<"), "%s", text);
}

Test(chart, areas_stack_and_end_where_they_began)
{
    const double first[] = {1, 1, 2, 2}, second[] = {1, 0, 0, 9};
    double base[4] = {0};
    chart_area(out, &panel, first, base, 4, CHART_REFRESH);
    cr_assert_eq(base[3], 2);
    chart_area(out, &panel, second, base, 4, CHART_REUSE);
    cr_assert_eq(base[0], 2);
    cr_assert_eq(base[3], 11);
    fflush(out);
    /* 1 of 4 rows is 10 of 40 pixels above the bottom at 60; off the scale stays at the top, 20. */
    cr_assert(strstr(text, "class=\"f0\" d=\"M50.0 60.0H50.0V50.0H100.0V40.0H150.0"), "%s", text);
    cr_assert(strstr(text, "V20.0"), "%s", text);
    char *end = strstr(text, "Z\"/>");
    cr_assert_not_null(end);
}

Test(chart, an_empty_area_draws_nothing)
{
    const double none[] = {0, 0};
    double base[2] = {0};
    chart_area(out, &panel, none, base, 2, CHART_IDLE);
    fflush(out);
    cr_assert_eq(n_text, 0);
}

Test(chart, a_line_without_y_is_a_dashed_level)
{
    const double level = 2, x[] = {0, 10}, y[] = {0, 4};
    chart_line(out, &panel, &level, NULL, 1, CHART_IDLE);
    chart_line(out, &panel, x, y, 2, CHART_SERIES);
    fflush(out);
    cr_assert(strstr(text, "level s2\" d=\"M50.0 40.0H150.0\""), "%s", text);
    cr_assert(strstr(text, "s4\" d=\"M50.0 60.0L150.0 20.0\""), "%s", text);
}

Test(chart, both_schemes_name_every_colour)
{
    chart_style(out);
    fflush(out);
    const char *dark = strstr(text, "prefers-color-scheme: dark");
    cr_assert_not_null(dark);
    for (int i = 0; i < CHART_COLOURS; i++) {
        char rule[32];
        snprintf(rule, sizeof rule, "svg .f%d {", i);
        const char *first = strstr(text, rule);
        cr_assert(first != NULL && first < dark, "%s", rule);
        cr_assert_not_null(strstr(dark, rule), "%s", rule);
    }
    cr_assert_null(strstr(text, "http"), "nothing outside itself");
    cr_assert_null(strstr(text, "url("));
}

/* Any values over any span: each bin gets what an integral over it gives. */
Test(chart, spreading_agrees_with_an_integral)
{
    srand(3);
    for (int turn = 0; turn < 200; turn++) {
        enum { STEPS = 4000 };
        int n = 1 + rand() % 50;
        double span = 0.1 + rand() % 1000, bins[50] = {0}, wanted[50] = {0};
        double begin = span * (rand() % 140 - 20) / 100, end = begin + span * (rand() % 90) / 100;
        double value = rand() % 7;
        chart_spread(bins, n, span, begin, end, value);
        for (int i = 0; i < STEPS; i++) {
            double at = (i + 0.5) * span / STEPS;
            int bin = (int)(at / span * n);
            if (at >= begin && at < end) wanted[bin] += value * n / STEPS;
        }
        for (int i = 0; i < n; i++)
            cr_assert_float_eq(bins[i], wanted[i], 0.02 * (value + 1) * n / 4, "seed 3, turn %d",
                               turn);
    }
}

/* Numbers on an axis: not too many, not too few, whatever the scale. */
Test(chart, every_scale_has_a_handful_of_numbers)
{
    for (double most = 1e-6; most < 1e13; most *= 1.7) {
        struct chart_panel any = panel;
        any.x_max = any.y_max = most;
        rewind(out);
        chart_axes(out, &any);
        fputc('\0', out);
        fflush(out);
        int n_grid = 0;
        for (const char *at = text; (at = strstr(at, "class=\"grid\"")) != NULL; at++)
            n_grid++;
        cr_assert(n_grid >= 6 && n_grid <= 3 + 11 + 6, "%g: %d", most, n_grid);
        cr_assert_null(strstr(text, "nan"));
        cr_assert_null(strstr(text, "e+"), "%g: %s", most, strstr(text, "e+"));
    }
}

Test(chart, keys_stand_beside_each_other)
{
    double x = chart_key(out, 10, 20, CHART_REUSE, "one");
    double behind = chart_key(out, x, 20, CHART_IDLE, "a longer one");
    fflush(out);
    cr_assert_gt(x, 10 + 16 + 15);
    cr_assert_gt(behind - x, x - 10);
    cr_assert(strstr(text, "class=\"f1\""));
    cr_assert(strstr(text, ">a longer one<"));
}

Test(chart, only_a_lone_drawing_brings_its_ground)
{
    chart_begin(out, 300, 200, false);
    fflush(out);
    cr_assert(strstr(text, "viewBox=\"0 0 300 200\""), "%s", text);
    cr_assert_null(strstr(text, "<style>"));
    chart_begin(out, 300, 200, true);
    fflush(out);
    cr_assert(strstr(text, "<style>"));
    cr_assert(strstr(text, "class=\"ground\""));
}
