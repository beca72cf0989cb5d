/* dllm-batch report: the records of one or several runs as a table, as JSON, as a page of charts.
 */
#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/app.h"
#include "app/chart.h"
#include "app/figures.h"
#include "app/lanes.h"
#include "app/records.h"
#include "app/sink.h"

enum { LEFT = 72, WIDTH = 1180, LINE_BINS = 120, CURVE_POINTS = 400, SERIES = 4 };

/* ---- figures: one list for table, JSON and page ---- */

static const struct figure figures[] = {
    {"answers", "answers", 0},
    {"failed", "failed lines", 0},
    {"tokens", "tokens, up to the stop", 0},
    {"span_s", "first arrival to last finish, s", 3},
    {"tokens_per_s", "tokens per s", 1},
    {"requests_per_s", "requests per s", 2},
    {"positions_per_token", "positions per token (PPT)", 2},
    {"steps_per_token", "steps per token", 2},
    {"refresh_percent", "steps in Refresh, %", 1},
    {"reuse_percent", "steps in Reuse, %", 1},
    {"prompt_p50", "prompt tokens, p50", 0},
    {"prompt_p99", "  p99", 0},
    {"tokens_p50", "tokens of an answer, p50", 0},
    {"tokens_p99", "  p99", 0},
    {"latency_mean_s", "latency, mean s", 3},
    {"latency_p50_s", "  p50 s", 3},
    {"latency_p90_s", "  p90 s", 3},
    {"latency_p99_s", "  p99 s", 3},
    {"latency_max_s", "  most s", 3},
    {"queue_p50_s", "to the first forward, p50 s", 3},
    {"queue_p99_s", "  p99 s", 3},
    {"first_block_p50_s", "to the first block, p50 s", 3},
    {"first_block_p99_s", "  p99 s", 3},
    {"iterations", "forward passes", 0},
    {"iterations_s", "  took, s", 3},
    {"predicted_s", "  predicted, s", 3},
    {"prediction_error_p50_percent", "  each off by, p50 %", 1},
};

enum { FIGURES = sizeof figures / sizeof *figures };

static double span_s(const struct records *run)
{
    assert(run->n > 0);
    return fmax(run->end_s - run->begin_s, 1e-9);
}

static double refresh_share(const struct records *run)
{
    assert(run->n > 0);
    return run->refresh_steps / fmax(run->refresh_steps + run->reuse_steps, 1);
}

static void take_figures(double values[FIGURES], const struct records *run)
{
    const struct iterations *passes = &run->passes;
    const struct figures_spread *took = &run->latency_s, *queue = &run->queue_s;
    const struct figures_spread *block = &run->block_s, *in = &run->prompt, *out = &run->tokens;
    double span = span_s(run), tokens = fmax(run->n_tokens, 1), n = (double)run->n;
    double refresh = 100 * refresh_share(run), steps = run->refresh_steps + run->reuse_steps;
    double ppt = run->positions < 0 ? NAN : run->positions / tokens, failed = (double)run->n_failed;
    double known = run->passes.n > 0 ? 1 : NAN, foreseen = run->passes.n_errors > 0 ? 1 : NAN;
    struct figures_spread off = {.p50 = NAN};
    if (passes->n_errors > 0) figures_spread(&off, passes->errors, passes->n_errors);
    const double counts[] = {n, failed, run->n_tokens, span, run->n_tokens / span, n / span, ppt};
    const double rest[] = {steps / tokens, refresh,    100 - refresh, in->p50,
                           in->p99,        out->p50,   out->p99,      took->mean,
                           took->p50,      took->p90,  took->p99,     took->most,
                           queue->p50,     queue->p99, block->p50,    block->p99};
    const double forwards[] = {(double)passes->n * known, passes->took_s * known,
                               passes->predicted_s * foreseen, off.p50};
    static_assert(sizeof counts + sizeof rest + sizeof forwards == FIGURES * sizeof *values, "");
    assert(n > 0);
    memcpy(values, counts, sizeof counts);
    memcpy(values + sizeof counts / sizeof *counts, rest, sizeof rest);
    memcpy(values + FIGURES - 4, forwards, sizeof forwards);
}

struct reporting {
    int32_t n_runs;
    struct records runs[OPTIONS_OPERANDS_MAX];
    double values[OPTIONS_OPERANDS_MAX][FIGURES];
};

/* The name without folders. */
static const char *short_name(const struct records *run)
{
    assert(run->path != NULL);
    const char *slash = strrchr(run->path, '/');
    return slash != NULL ? slash + 1 : run->path;
}

static void print_table(const struct reporting *reporting)
{
    const double *columns[OPTIONS_OPERANDS_MAX];
    assert(reporting->n_runs > 0);
    for (int32_t i = 0; i < reporting->n_runs; i++) {
        columns[i] = reporting->values[i];
        error_print(stdout, "%" PRId32 "  %s", i + 1, reporting->runs[i].path);
    }
    printf("\n%-32s", "");
    for (int32_t i = 0; i < reporting->n_runs; i++)
        printf("%13" PRId32, i + 1);
    putchar('\n');
    figures_print(figures, FIGURES, columns, reporting->n_runs, stdout);
}

static bool print_json(const struct reporting *reporting, struct error *err)
{
    json_t *runs = json_array();
    assert(reporting->n_runs > 0);
    for (int32_t i = 0; i < reporting->n_runs; i++) {
        json_t *run = json_pack("{s:s}", "path", reporting->runs[i].path);
        if (run == NULL) run = json_object(); /* a path that is not UTF-8 */
        figures_add(run, figures, FIGURES, reporting->values[i]);
        json_array_append_new(runs, run);
    }
    json_t *root = json_pack("{s:o}", "runs", runs);
    return figures_dump(root, err);
}

/* ---- page ---- */

static enum chart_colour series_colour(int32_t i)
{
    assert(i >= 0);
    return (enum chart_colour)(CHART_SERIES + i % SERIES);
}

static double draw_keys(FILE *out, const struct reporting *reporting, double y)
{
    double x = LEFT;
    assert(reporting->n_runs > 0);
    for (int32_t i = 0; i < reporting->n_runs; i++) {
        if (x > 900) x = LEFT, y += 20;
        x = chart_key(out, x, y, series_colour(i), short_name(&reporting->runs[i]));
    }
    return y;
}

/* The share of requests that took at most so long, at CURVE_POINTS places. */
static bool draw_latencies(FILE *out, const struct chart_panel *panel, const struct records *run,
                           enum chart_colour colour)
{
    double x[CURVE_POINTS + 1], y[CURVE_POINTS + 1];
    double *values = calloc((size_t)run->n, sizeof *values);
    struct figures_spread ignored;
    assert(run->n > 0);
    if (values == NULL) return false;
    for (int64_t i = 0; i < run->n; i++)
        values[i] = run->items[i].latency_s;
    figures_spread(&ignored, values, run->n); /* sorts */
    for (int i = 0; i <= CURVE_POINTS; i++) {
        double share = (double)i / CURVE_POINTS;
        x[i] = values[(int64_t)(share * (double)(run->n - 1))];
        y[i] = 100 * share;
    }
    chart_line(out, panel, x, y, CURVE_POINTS + 1, colour);
    free(values);
    return true;
}

/* Tokens per second, each answer's spread evenly over its work; returns the most. */
static double bin_rates(const struct records *run, double span, double rates[LINE_BINS])
{
    double most = 0;
    assert(span > 0);
    memset(rates, 0, LINE_BINS * sizeof *rates);
    for (int64_t i = 0; i < run->n; i++) {
        const struct record *record = &run->items[i];
        double begin = record->first_forward_s < 0 ? record->arrival_s : record->first_forward_s;
        double end = fmax(record->finished_s, begin + 1e-9);
        chart_spread(rates, LINE_BINS, span, begin - run->begin_s, end - run->begin_s,
                     record->n_tokens / (end - begin));
    }
    for (int i = 0; i < LINE_BINS; i++)
        most = fmax(most, rates[i]);
    return most;
}

/* A bar for each run: Refresh, then Reuse. */
static void draw_phases(FILE *out, const struct reporting *reporting, double y)
{
    double x = chart_key(out, LEFT, y, CHART_REFRESH, "steps in Refresh");
    chart_key(out, x, y, CHART_REUSE, "steps in Reuse");
    assert(reporting->n_runs > 0);
    for (int32_t i = 0; i < reporting->n_runs; i++) {
        double width = CHART_BINS / 2.0, top = y + 14 + 20 * i;
        double refresh = refresh_share(&reporting->runs[i]) * width;
        fprintf(out,
                "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"13\" class=\"f%d\"/>\n<rect "
                "x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"13\" class=\"f%d\"/>\n",
                LEFT, top, refresh, CHART_REFRESH, LEFT + refresh, top, width - refresh,
                CHART_REUSE);
        chart_label(out, LEFT + width + 12, top + 11, "", "%s", short_name(&reporting->runs[i]));
    }
}

static bool draw_overview(FILE *out, const struct reporting *reporting)
{
    double latency_most = 1e-9, span = 1e-9, rate_most = 1e-9, rates[LINE_BINS], x[LINE_BINS];
    assert(reporting->n_runs > 0);
    for (int32_t i = 0; i < reporting->n_runs; i++) {
        latency_most = fmax(latency_most, reporting->runs[i].latency_s.most);
        span = fmax(span, span_s(&reporting->runs[i]));
    }
    for (int32_t i = 0; i < reporting->n_runs; i++)
        rate_most = fmax(rate_most, bin_rates(&reporting->runs[i], span, rates));
    double height = 350 + 20 * (reporting->n_runs + reporting->n_runs / 4);
    chart_begin(out, WIDTH, height, false);
    double y = draw_keys(out, reporting, 20);
    draw_phases(out, reporting, y + 308);
    struct chart_panel latency = {.x = LEFT,
                                  .y = y + 50,
                                  .width = 480,
                                  .height = 190,
                                  .x_max = latency_most,
                                  .y_max = 100,
                                  .title = "Requests that took at most this long",
                                  .x_label = "seconds since arrival",
                                  .y_label = "%"};
    struct chart_panel speed = latency;
    speed.x += 560;
    speed.width = 520;
    speed.x_max = span;
    speed.y_max = rate_most * 1.05;
    speed.title = "Speed over time";
    speed.x_label = "seconds since the first arrival";
    speed.y_label = "tokens per second, spread over each request's work";
    chart_axes(out, &latency);
    chart_axes(out, &speed);
    for (int32_t i = 0; i < reporting->n_runs; i++) {
        const struct records *run = &reporting->runs[i];
        if (!draw_latencies(out, &latency, run, series_colour(i))) return false;
        bin_rates(run, span, rates);
        for (int bin = 0; bin < LINE_BINS; bin++)
            x[bin] = (bin + 0.5) * span / LINE_BINS;
        chart_line(out, &speed, x, rates, LINE_BINS, series_colour(i));
    }
    fputs("</svg>\n", out);
    return true;
}

static int compare_starts(const void *left, const void *right)
{
    const struct record *a = left, *b = right;
    assert(a != NULL && b != NULL);
    return (a->first_forward_s > b->first_forward_s) - (a->first_forward_s < b->first_forward_s);
}

static void bin_run(struct records *run, struct lanes *lanes, double waiting[CHART_BINS],
                    double working[CHART_BINS])
{
    double span = span_s(run), share = 1.0 / lanes->n_per_lane;
    assert(run->n > 0);
    qsort(run->items, (size_t)run->n, sizeof *run->items, compare_starts);
    for (int64_t i = 0; i < run->n; i++) {
        const struct record *record = &run->items[i];
        size_t row = (size_t)(i / lanes->n_per_lane) * CHART_BINS;
        double begin = record->arrival_s - run->begin_s, end = record->finished_s - run->begin_s;
        double first = record->first_forward_s < 0 ? begin : record->first_forward_s - run->begin_s;
        double block = record->first_block_s < 0 ? end : record->first_block_s - run->begin_s;
        chart_spread(waiting, CHART_BINS, span, begin, first, 1);
        chart_spread(working, CHART_BINS, span, first, end, 1);
        chart_spread(lanes->alive + row, CHART_BINS, span, begin, first, share);
        chart_spread(lanes->working + row, CHART_BINS, span, first, end, share);
        chart_spread(lanes->marked + row, CHART_BINS, span, first, block, share);
    }
}

/* Requests in the system over time, and each as a lane. */
static bool draw_run(FILE *out, struct records *run)
{
    struct lanes lanes;
    double *bins = calloc(3 * CHART_BINS, sizeof *bins), *working = NULL, most = 1;
    int32_t n = run->n < INT32_MAX ? (int32_t)run->n : INT32_MAX;
    assert(n > 0);
    if (bins == NULL || !lanes_create(&lanes, n, CHART_MEMORY)) {
        free(bins);
        return false;
    }
    working = bins + CHART_BINS;
    bin_run(run, &lanes, bins, working);
    for (int i = 0; i < CHART_BINS; i++)
        most = fmax(most, bins[i] + working[i]);
    struct chart_panel load = {.x = LEFT,
                               .y = 62,
                               .width = CHART_BINS,
                               .height = 90,
                               .x_max = span_s(run),
                               .y_max = most * 1.04,
                               .title = "Requests in the system",
                               .y_label = "waiting, in work"};
    struct chart_panel requests = load;
    requests.y = 200;
    requests.height = fmin(fmax(400.0 / lanes.n_lanes, 3), 16) * lanes.n_lanes;
    char title[LANES_TITLE_BYTES];
    requests.title = lanes_title(&lanes, title);
    requests.x_label = "seconds since the first arrival";
    requests.y_label = NULL;
    chart_begin(out, WIDTH, requests.y + requests.height + 48, false);
    double x = chart_key(out, LEFT, 20, CHART_IDLE, "waiting");
    x = chart_key(out, x, 20, CHART_MEMORY, "up to the first block");
    chart_key(out, x, 20, CHART_REUSE, "in work");
    chart_axes(out, &load);
    chart_area(out, &load, working, bins + 2 * CHART_BINS, CHART_BINS, CHART_REUSE);
    chart_area(out, &load, bins, bins + 2 * CHART_BINS, CHART_BINS, CHART_IDLE);
    chart_axes(out, &requests);
    lanes_draw(out, &requests, &lanes);
    fputs("</svg>\n", out);
    free(lanes.alive);
    free(bins);
    return true;
}

static void put_table(FILE *out, const struct reporting *reporting)
{
    fputs("<table>\n<tr><th></th>", out);
    assert(reporting->n_runs > 0);
    for (int32_t i = 0; i < reporting->n_runs; i++) {
        fputs("<th>", out);
        chart_escape(out, short_name(&reporting->runs[i]));
        fputs("</th>", out);
    }
    for (int row = 0; row < FIGURES; row++) {
        bool is_part = figures[row].name[0] == ' ';
        fprintf(out, "</tr>\n<tr%s><td>%s</td>", is_part ? " class=\"part\"" : "",
                figures[row].name);
        for (int32_t i = 0; i < reporting->n_runs; i++) {
            char text[32];
            fprintf(out, "<td>%s</td>",
                    figures_text(text, &figures[row], reporting->values[i][row]));
        }
    }
    fputs("</tr>\n</table>\n", out);
}

static bool write_page(FILE *out, struct reporting *reporting)
{
    assert(reporting->n_runs > 0);
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta "
          "name=\"viewport\" content=\"width=device-width\">\n<meta name=\"color-scheme\" "
          "content=\"light dark\">\n<title>dllm-batch report</title>\n<link rel=\"icon\" "
          "href=\"data:,\">\n",
          out);
    chart_style(out);
    fputs(
        "<style>\nbody { font: 14px system-ui, \"DejaVu Sans\", sans-serif; margin: 24px auto; "
        "max-width: 1180px; background: #ffffff; color: #22262d; }\nh1 { font-size: 22px; } h2 { "
        "font-size: 16px; margin-top: 32px; }\nsvg { max-width: 100%; height: auto; }\ntable { "
        "border-collapse: collapse; }\nth, td { padding: 3px 14px; text-align: right; "
        "font-variant-numeric: tabular-nums; }\ntd:first-child { text-align: left; padding-left: "
        "0; }\ntr:not(.part) td { border-top: 1px solid #8884; }\n.part td:first-child { "
        "padding-left: 18px; }\n@media (prefers-color-scheme: dark) { body { background: #14171c; "
        "color: #e6e9ee; } }\n</style>\n</head>\n<body>\n<h1>dllm-batch report</h1>\n",
        out);
    put_table(out, reporting);
    fputs("<h2>Latency and speed</h2>\n", out);
    if (!draw_overview(out, reporting)) return false;
    for (int32_t i = 0; i < reporting->n_runs; i++) {
        fputs("<h2>", out);
        chart_escape(out, reporting->runs[i].path);
        fputs("</h2>\n", out);
        if (!draw_run(out, &reporting->runs[i])) return false;
    }
    fputs("</body>\n</html>\n", out);
    return true;
}

/* ---- the command ---- */

static bool report_all(struct reporting *reporting, const struct options *options,
                       struct error *err)
{
    struct sink *sink;
    assert(options->n_operands > 0);
    for (int32_t i = 0; i < options->n_operands; i++) {
        struct records *read = &reporting->runs[reporting->n_runs++];
        if (!records_read(read, options->operands[i], err)) return false;
        if (read->n > 0) continue;
        if (reporting->n_runs == 1 || read[-1].passes.n > 0)
            return error_set(err, ERROR_USAGE, "%s: iterations belong behind their run's answers",
                             options->operands[i]);
        reporting->n_runs--;
        read[-1].passes = read->passes;
    }
    for (int32_t i = 0; i < reporting->n_runs; i++)
        take_figures(reporting->values[i], &reporting->runs[i]);
    if (options->json && !print_json(reporting, err)) return false;
    if (!options->json) print_table(reporting);
    if (options->html == NULL) return true;
    if (!sink_open(&sink, options->html, options->force, err)) return false;
    bool is_ok = write_page(sink_file(sink), reporting);
    if (!is_ok) error_set(err, ERROR_UNAVAILABLE, "not enough memory to draw '%s'", options->html);
    return sink_close(sink, is_ok ? err : NULL) && is_ok;
}

bool cmd_report(const struct options *options, int *status, struct error *err)
{
    assert(status != NULL);
    if (options->n_operands == 0)
        return error_set(err, ERROR_USAGE, "report needs the output of a run: RECORDS...");
    struct reporting *reporting = calloc(1, sizeof *reporting);
    if (reporting == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to report");
    bool is_ok = report_all(reporting, options, err);
    for (int32_t i = 0; i < reporting->n_runs; i++)
        records_free(&reporting->runs[i]);
    free(reporting);
    return is_ok;
}
