/* SVG by printf. Numbers have one decimal: a tenth of a pixel. */
#include "app/chart.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Light, then dark; told apart also by those who see red and green alike. */
static const struct {
    const char *light, *dark;
} colours[CHART_COLOURS] = {
    [CHART_REFRESH] = {"#e07b28", "#f0954a"},    [CHART_REUSE] = {"#3b78c8", "#5b9bea"},
    [CHART_IDLE] = {"#b9bfc9", "#565d69"},       [CHART_MEMORY] = {"#2f9488", "#41b3a5"},
    [CHART_SERIES] = {"#3b78c8", "#5b9bea"},     [CHART_SERIES + 1] = {"#e07b28", "#f0954a"},
    [CHART_SERIES + 2] = {"#2f9488", "#41b3a5"}, [CHART_SERIES + 3] = {"#9a5fb5", "#bd86d6"},
};

/* ---- text ---- */

void chart_escape(FILE *out, const char *text)
{
    assert(text != NULL);
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '<') fputs("&lt;", out);
        else if (*at == '>') fputs("&gt;", out);
        else if (*at == '&') fputs("&amp;", out);
        else if (*at == '"') fputs("&quot;", out);
        else fputc(iscntrl((unsigned char)*at) ? '?' : *at, out);
    }
}

void chart_label(FILE *out, double x, double y, const char *classes, const char *format, ...)
{
    assert(classes != NULL);
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, classes);
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) >= 0) chart_escape(out, text);
    va_end(arguments);
    free(text);
    fputs("</text>\n", out);
}

/* ---- drawings ---- */

static void put_colours(FILE *out, bool is_dark)
{
    assert(out != NULL);
    fprintf(out,
            "svg text { fill: %s; } svg .note { fill: %s; } svg .ground { fill: %s; } svg .grid { "
            "stroke: %s; }\n",
            is_dark ? "#e6e9ee" : "#22262d", is_dark ? "#98a1af" : "#6a7280",
            is_dark ? "#14171c" : "#ffffff", is_dark ? "#2b3038" : "#e4e7ec");
    for (int i = 0; i < CHART_COLOURS; i++) {
        const char *colour = is_dark ? colours[i].dark : colours[i].light;
        fprintf(out, "svg .f%d { fill: %s; } svg .s%d { stroke: %s; }\n", i, colour, i, colour);
    }
}

void chart_style(FILE *out)
{
    assert(out != NULL);
    fputs("<style>\nsvg text { font: 12px system-ui, \"DejaVu Sans\", sans-serif; }\n"
          "svg .title { font-size: 18px; font-weight: 600; } svg .head { font-weight: 600; }\n"
          "svg .note { font-size: 11px; } svg .end { text-anchor: end; } svg .mid { text-anchor: "
          "middle; }\nsvg .grid, svg .line { fill: none; } svg .level { stroke-dasharray: 5 4; }\n"
          "svg .line { stroke-width: 1.6; stroke-linejoin: round; }\n",
          out);
    put_colours(out, false);
    fputs("@media (prefers-color-scheme: dark) {\n", out);
    put_colours(out, true);
    fputs("}\n</style>\n", out);
}

void chart_begin(FILE *out, double width, double height, bool is_alone)
{
    assert(width > 0 && height > 0);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
            "height=\"%.0f\">\n",
            width, height, width, height);
    if (!is_alone) return;
    chart_style(out);
    fputs("<rect width=\"100%\" height=\"100%\" class=\"ground\"/>\n", out);
}

double chart_key(FILE *out, double x, double y, enum chart_colour colour, const char *name)
{
    assert((unsigned)colour < CHART_COLOURS);
    fprintf(out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"11\" height=\"11\" rx=\"2\" class=\"f%d\"/>\n", x,
            y - 10, (int)colour);
    chart_label(out, x + 16, y, "", "%s", name);
    return x + 34 + 6.6 * (double)strlen(name);
}

/* ---- axes ---- */

/* The step of 1, 2 or 5 times a power of ten that gives at most `n_max` steps. */
static double tick_step(double most, int n_max)
{
    assert(most > 0 && n_max > 0);
    double rough = most / n_max, power = pow(10, floor(log10(rough)));
    if (rough <= power) return power;
    if (rough <= 2 * power) return 2 * power;
    return rough <= 5 * power ? 5 * power : 10 * power;
}

/* "1500", "12k", "0.02": short enough for an axis. */
static void print_tick(char text[32], double value)
{
    double shown = fabs(value);
    const char *unit = shown >= 1e9 ? "G" : shown >= 1e6 ? "M" : shown >= 1e4 ? "k" : "";
    double divisor = shown >= 1e9 ? 1e9 : shown >= 1e6 ? 1e6 : shown >= 1e4 ? 1e3 : 1;
    assert(isfinite(value));
    snprintf(text, 32, "%.6g%s", value / divisor, unit);
}

static double place_x(const struct chart_panel *panel, double value)
{
    assert(panel->x_max > 0);
    return panel->x + value / panel->x_max * panel->width;
}

/* What is off the scale stays at its edge. */
static double place_y(const struct chart_panel *panel, double value)
{
    assert(panel->y_max > 0);
    return panel->y + panel->height * (1 - fmin(value / panel->y_max, 1));
}

void chart_axes(FILE *out, const struct chart_panel *panel)
{
    double bottom = panel->y + panel->height, right = panel->x + panel->width;
    assert(panel->title != NULL);
    char text[32];
    chart_label(out, panel->x, panel->y - 8, "head", "%s", panel->title);
    if (panel->y_label != NULL)
        chart_label(out, right, panel->y - 8, "note end", "%s", panel->y_label);
    double step = tick_step(panel->y_max, panel->height > 90 ? 5 : 3);
    for (int i = 0; panel->y_label != NULL && i * step <= panel->y_max * 1.0001; i++) {
        double y = place_y(panel, i * step);
        fprintf(out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>\n", panel->x, y, right);
        print_tick(text, i * step);
        chart_label(out, panel->x - 7, y + 4, "note end", "%s", text);
    }
    step = tick_step(panel->x_max, 10);
    for (int i = 0; i * step <= panel->x_max * 1.0001; i++) {
        double x = place_x(panel, i * step);
        fprintf(out, "<path class=\"grid\" d=\"M%.1f %.1fV%.1f\"/>\n", x, panel->y, bottom);
        print_tick(text, i * step);
        if (panel->x_label != NULL) chart_label(out, x, bottom + 16, "note mid", "%s", text);
    }
    if (panel->x_label != NULL)
        chart_label(out, right, bottom + 32, "note end", "%s", panel->x_label);
    fprintf(out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>\n", panel->x, bottom, right);
}

/* ---- marks ---- */

void chart_area(FILE *out, const struct chart_panel *panel, const double *values, double *base,
                int32_t n, enum chart_colour colour)
{
    assert(n > 0);
    double width = panel->width / n, last = -1;
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += values[i];
    if (sum <= 0) return;
    fprintf(out, "<path class=\"f%d\" d=\"M%.1f %.1f", (int)colour, panel->x,
            panel->y + panel->height);
    for (int32_t i = 0; i < n; i++) {
        double y = place_y(panel, base[i] + values[i]);
        if (fabs(y - last) < 0.05) continue;
        fprintf(out, "H%.1fV%.1f", panel->x + i * width, y);
        last = y;
    }
    fprintf(out, "H%.1f", panel->x + panel->width);
    last = -1;
    for (int32_t i = n - 1; i >= 0; i--) {
        double y = place_y(panel, base[i]);
        base[i] += values[i];
        if (fabs(y - last) < 0.05) continue;
        fprintf(out, "H%.1fV%.1f", panel->x + (i + 1) * width, y);
        last = y;
    }
    fputs("Z\"/>\n", out);
}

void chart_line(FILE *out, const struct chart_panel *panel, const double *x, const double *y,
                int32_t n, enum chart_colour colour)
{
    assert(n > 0);
    if (y == NULL) {
        fprintf(out, "<path class=\"line level s%d\" d=\"M%.1f %.1fH%.1f\"/>\n", (int)colour,
                panel->x, place_y(panel, x[0]), panel->x + panel->width);
        return;
    }
    fprintf(out, "<path class=\"line s%d\" d=\"", (int)colour);
    for (int32_t i = 0; i < n; i++)
        fprintf(out, "%c%.1f %.1f", i == 0 ? 'M' : 'L', place_x(panel, x[i]), place_y(panel, y[i]));
    fputs("\"/>\n", out);
}

void chart_spread(double *bins, int32_t n, double x_max, double begin, double end, double value)
{
    assert(n > 0 && x_max > 0);
    double width = x_max / n;
    int32_t first = (int32_t)(begin / width), last = (int32_t)(end / width);
    for (int32_t i = first < 0 ? 0 : first; i <= last && i < n; i++) {
        double from = fmax(begin, i * width), to = fmin(end, (i + 1) * width);
        if (to > from) bins[i] += value * (to - from) / width;
    }
}
