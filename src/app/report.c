/* Counting, the progress display, and the summary. */
#include "app/report.h"

#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "app/header.h"
#include "base/error.h"

#define BAR_NS   UINT64_C(100000000)
#define LINES_NS UINT64_C(10000000000)

enum { SUB_BITS = 7, BAR_COLUMNS = 80, BAR_WIDTH_MAX = 30, STATUS_BYTES_MAX = 160 };

/* ---- set-up ---- */

void report_init(struct report *report, const struct options *options, FILE *stream,
                 bool is_terminal, uint64_t now_ns)
{
    assert(stream != NULL);
    const char *terminal = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    bool has_colour = no_colour == NULL || no_colour[0] == '\0';
    bool is_dumb = terminal != NULL && strcmp(terminal, "dumb") == 0;
    bool is_always = strcmp(options->progress, "always") == 0;
    *report = (struct report){
        .stream = stream,
        .is_quiet = options->quiet,
        .is_verbose = options->verbose && !options->quiet,
        .is_json = strcmp(options->log_format, "json") == 0,
        .has_colour = is_terminal && !is_dumb && has_colour,
        .progress = is_always || (is_terminal && !is_dumb) ? PROGRESS_BAR : PROGRESS_LINES,
        .start_ns = now_ns,
        .shown_ns = now_ns,
        .n_safe = -1,
    };
    if (report->is_json) report->progress = PROGRESS_LINES;
    if (report->is_quiet || strcmp(options->progress, "never") == 0)
        report->progress = PROGRESS_NONE;
}

/* ---- lines ---- */

void report_clear(struct report *report)
{
    assert(report->stream != NULL);
    if (report->bar_is_shown) fputs("\r\033[K", report->stream);
    report->bar_is_shown = false;
}

/* Takes the object. */
static void print_json(const struct report *report, json_t *object)
{
    assert(report->is_json);
    char *text = json_dumps(object, JSON_REAL_PRECISION(9));
    if (text != NULL) fprintf(report->stream, "%s\n", text);
    free(text);
    json_decref(object);
}

/* `level`: "info" or "error". */
static void print_line(struct report *report, const char *level, const char *format,
                       va_list arguments)
{
    assert(format != NULL);
    struct error line = {0}; /* its setter makes any bytes one line of valid UTF-8 */
    char text[sizeof line.message];
    vsnprintf(text, sizeof text, format, arguments);
    error_set(&line, ERROR_FORMAT, "%s", text);
    report_clear(report);
    if (report->is_json)
        print_json(report, json_pack("{s:s, s:s}", "level", level, "message", line.message));
    else
        fprintf(report->stream, "dllm-batch: %s%s\n", strcmp(level, "error") == 0 ? "error: " : "",
                line.message);
}

void report_note(struct report *report, const char *format, ...)
{
    assert(format != NULL);
    if (report->is_quiet) return;
    va_list arguments;
    va_start(arguments, format);
    print_line(report, "info", format, arguments);
    va_end(arguments);
}

void report_error(struct report *report, const char *format, ...)
{
    assert(format != NULL);
    va_list arguments;
    va_start(arguments, format);
    print_line(report, "error", format, arguments);
    va_end(arguments);
}

void report_memory(struct report *report, const struct memory_plan *memory)
{
    const double mib = 1024.0 * 1024.0;
    assert(memory->total_bytes >= memory->weights_bytes);
    report->slot_bytes = memory->slot_bytes;
    if (!report->is_verbose) return;
    report_note(report,
                "memory: %.1f MiB = weights %.1f + cache %.1f + activations %.1f + scores %.1f + "
                "canvases %.1f + logits %.1f + backend %.1f",
                (double)memory->total_bytes / mib, (double)memory->weights_bytes / mib,
                (double)memory->cache_bytes / mib, (double)memory->activation_bytes / mib,
                (double)memory->score_bytes / mib, (double)memory->canvas_bytes / mib,
                (double)memory->logits_bytes / mib, (double)memory->backend_bytes / mib);
}

/* ---- counts ---- */

/* Values below 2^SUB_BITS have a bucket each; above, the leading bits choose. */
static size_t bucket_of(uint64_t value)
{
    const uint64_t first = UINT64_C(1) << SUB_BITS;
    if (value < first) return (size_t)value;
    int shift = 63 - __builtin_clzll(value) - SUB_BITS;
    size_t index = ((size_t)shift + 1) * (size_t)first + (size_t)((value >> shift) - first);
    assert(index < REPORT_BUCKETS);
    return index;
}

/* Middle of a bucket's values. */
static uint64_t value_of(size_t bucket)
{
    const uint64_t first = UINT64_C(1) << SUB_BITS;
    assert(bucket < REPORT_BUCKETS);
    if (bucket < first) return bucket;
    int shift = (int)(bucket >> SUB_BITS) - 1;
    uint64_t begin = (first + (bucket & (first - 1))) << shift;
    return begin + ((UINT64_C(1) << shift) >> 1);
}

void report_answered(struct report *report, int32_t n_effective, int32_t n_canvas, uint64_t e2e_ns)
{
    assert(n_effective <= n_canvas);
    report->n_answered++;
    report->n_effective_tokens += n_effective;
    report->n_canvas_tokens += n_canvas;
    report->n_latencies++;
    report->latencies[bucket_of(e2e_ns)]++;
}

uint64_t report_percentile_ns(const struct report *report, double fraction)
{
    assert(fraction >= 0 && fraction <= 1);
    if (report->n_latencies == 0) return 0;
    int64_t rank = (int64_t)(fraction * (double)(report->n_latencies - 1)), n_before = 0;
    size_t bucket = 0;
    while (n_before + report->latencies[bucket] <= rank)
        n_before += report->latencies[bucket++];
    return value_of(bucket);
}

/* ---- progress ---- */

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

static double rate(int64_t n, uint64_t ns)
{
    return ns > 0 ? (double)n / seconds(ns) : 0;
}

/* "7:05", "1:02:03". */
static void format_span(char *text, size_t n_max, double span_s)
{
    assert(span_s >= 0);
    long long s = (long long)(span_s + 0.5);
    if (s >= 3600) snprintf(text, n_max, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(text, n_max, "%lld:%02lld", s / 60, s % 60);
}

/* "12 of 40 lines, 1 failed, 123.4 tokens/s, 0:42 left" */
static void format_status(const struct report *report, uint64_t now_ns, bool is_asked, char *text,
                          size_t n_max)
{
    assert(n_max >= STATUS_BYTES_MAX);
    int64_t n_new = report->n_answered + report->n_failed, n_done = report->n_found + n_new;
    uint64_t elapsed_ns = now_ns - report->start_ns;
    size_t n = 0;
    n += (size_t)snprintf(text + n, n_max - n, "%lld", (long long)n_done);
    if (report->n_expected > 0)
        n += (size_t)snprintf(text + n, n_max - n, " of %lld", (long long)report->n_expected);
    n += (size_t)snprintf(text + n, n_max - n, " lines");
    if (report->n_failed > 0)
        n += (size_t)snprintf(text + n, n_max - n, ", %lld failed", (long long)report->n_failed);
    if (is_asked && report->n_safe >= 0)
        n += (size_t)snprintf(text + n, n_max - n, ", %lld safe", (long long)report->n_safe);
    n += (size_t)snprintf(text + n, n_max - n, ", %.1f tokens/s",
                          rate(report->n_effective_tokens, elapsed_ns));
    if (n_new == 0 || report->n_expected < n_done) return;
    char left[32];
    double left_s = seconds(elapsed_ns) / (double)n_new * (double)(report->n_expected - n_done);
    format_span(left, sizeof left, left_s);
    snprintf(text + n, n_max - n, ", %s left", left);
}

static int terminal_columns(FILE *stream)
{
    assert(stream != NULL);
    struct winsize size;
    int fd = fileno(stream);
    bool is_known = fd >= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return is_known ? size.ws_col : BAR_COLUMNS;
}

/* "[#####-----] status", never wider than the terminal: a wrapped line could not be redrawn. */
static void draw_bar(struct report *report, const char *status)
{
    assert(!report->is_json);
    int n_columns = terminal_columns(report->stream) - 1, n_status = (int)strlen(status);
    int width = n_columns - n_status - 3;
    int64_t n_done = report->n_found + report->n_answered + report->n_failed;
    if (width > BAR_WIDTH_MAX) width = BAR_WIDTH_MAX;
    fputs("\r\033[K", report->stream);
    if (width >= 10 && report->n_expected >= n_done && report->n_expected > 0) {
        int n_full = (int)(n_done * width / report->n_expected);
        char bar[BAR_WIDTH_MAX + 1];
        memset(bar, '#', (size_t)n_full);
        memset(bar + n_full, '-', (size_t)(width - n_full));
        fprintf(report->stream, report->has_colour ? "[\033[32m%.*s\033[0m] " : "[%.*s] ", width,
                bar);
        n_columns -= width + 3;
    }
    fprintf(report->stream, "%.*s", n_columns > 0 ? n_columns : 0, status);
    fflush(report->stream);
    report->bar_is_shown = true;
}

static void print_progress_json(const struct report *report, uint64_t now_ns, bool is_asked)
{
    uint64_t elapsed_ns = now_ns - report->start_ns;
    assert(report->is_json);
    json_t *root =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "level", "info", "event", "progress",
                  "resumed", (json_int_t)report->n_found, "answered",
                  (json_int_t)report->n_answered, "failed", (json_int_t)report->n_failed,
                  "expected", (json_int_t)report->n_expected, "elapsed_ns", (json_int_t)elapsed_ns,
                  "effective_tokens_per_s", rate(report->n_effective_tokens, elapsed_ns));
    if (is_asked && report->n_safe >= 0)
        json_object_set_new(root, "safe", json_integer((json_int_t)report->n_safe));
    print_json(report, root);
}

void report_tick(struct report *report, uint64_t now_ns, bool is_asked)
{
    if (now_ns < report->start_ns) now_ns = report->start_ns; /* the watching thread was late */
    uint64_t period_ns = report->progress == PROGRESS_BAR ? BAR_NS : LINES_NS;
    bool is_due = report->progress != PROGRESS_NONE && now_ns - report->shown_ns >= period_ns;
    if (!is_due && !is_asked) return;
    if (!is_asked) report->shown_ns = now_ns;
    char status[STATUS_BYTES_MAX];
    format_status(report, now_ns, is_asked, status, sizeof status);
    if (report->is_json) print_progress_json(report, now_ns, is_asked);
    else if (report->progress == PROGRESS_BAR && !is_asked) draw_bar(report, status);
    else
        fprintf(report->stream, "%sdllm-batch: %s\n", report->bar_is_shown ? "\r\033[K" : "",
                status);
}

/* ---- summary ---- */

/* Positions fed through the layers per token up to the stop token. */
static double positions_per_token(const struct report *report, const struct executor_counts *counts)
{
    assert(report->n_effective_tokens >= 0);
    if (report->n_effective_tokens == 0) return 0;
    return (double)counts->n_positions / (double)report->n_effective_tokens;
}

/* Whole percents that half of the iterations' predictions were off by at most. */
static int median_error(const struct executor_counts *counts)
{
    int64_t n = 0, n_before = 0;
    int percent = 0;
    for (int i = 0; i < EXECUTOR_ERRORS; i++)
        n += counts->n_by_error[i];
    assert(n > 0);
    while ((n_before += counts->n_by_error[percent]) * 2 < n)
        percent++;
    return percent + 1;
}

/* What the summary and the manifest both tell. */
static void add_figures(json_t *root, const struct report *report,
                        const struct executor_counts *counts, uint64_t elapsed_ns)
{
    assert(json_is_object(root));
    const struct {
        const char *key;
        int64_t value;
    } values[] = {
        {"effective_tokens", report->n_effective_tokens},
        {"canvas_tokens", report->n_canvas_tokens},
        {"forwards", counts->n_iterations},
        {"positions", counts->n_positions},
        {"picks", counts->n_picks},
        {"refresh_positions", counts->n_refresh_positions},
        {"pad_positions", counts->n_pad_positions},
        {"kv_bytes_peak", counts->n_slots_peak * (int64_t)report->slot_bytes},
        {"surprises", counts->n_surprises},
        {"iterations_ns", (int64_t)counts->iterations_ns},
        {"compute_ns", (int64_t)counts->compute_ns},
        {"planning_ns", (int64_t)(counts->planning_ns + report->planning_ns)},
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        json_object_set_new(root, values[i].key, json_integer((json_int_t)values[i].value));
    json_object_set_new(root, "effective_tokens_per_s",
                        json_real(rate(report->n_effective_tokens, elapsed_ns)));
    json_object_set_new(root, "canvas_tokens_per_s",
                        json_real(rate(report->n_canvas_tokens, elapsed_ns)));
    json_object_set_new(root, "positions_per_token",
                        json_real(positions_per_token(report, counts)));
    if (counts->predicted_ns > 0) {
        json_object_set_new(root, "planned_ns", json_integer((json_int_t)report->planned_ns));
        json_object_set_new(root, "predicted_ns", json_integer((json_int_t)counts->predicted_ns));
        json_object_set_new(root, "prediction_error_median",
                            json_real(0.01 * (double)median_error(counts)));
    }
    if (report->graphs.is_on) {
        json_object_set_new(root, "steps_replayed", json_integer(report->graphs.n_replayed));
        json_object_set_new(root, "steps_recorded", json_integer(report->graphs.n_recorded));
        json_object_set_new(root, "steps_launched", json_integer(report->graphs.n_eager));
    }
    json_t *latency =
        json_pack("{s:I, s:I, s:I}", "p50", (json_int_t)report_percentile_ns(report, 0.50), "p90",
                  (json_int_t)report_percentile_ns(report, 0.90), "p99",
                  (json_int_t)report_percentile_ns(report, 0.99));
    json_object_set_new(root, "e2e_ns", latency);
}

static void print_summary_json(struct report *report, const struct executor_counts *counts,
                               uint64_t elapsed_ns, bool is_stopped)
{
    assert(report->is_json);
    json_t *root = json_pack(
        "{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I}", "level", "info", "event", "summary", "stopped",
        is_stopped, "requests", (json_int_t)(report->n_answered + report->n_failed), "resumed",
        (json_int_t)report->n_found, "answered", (json_int_t)report->n_answered, "failed",
        (json_int_t)report->n_failed, "elapsed_ns", (json_int_t)elapsed_ns);
    add_figures(root, report, counts, elapsed_ns);
    print_json(report, root);
}

char *report_manifest(const struct report *report, const struct report_manifest *manifest,
                      const struct executor_counts *counts, uint64_t now_ns)
{
    uint64_t wall_ns = now_ns - report->start_ns;
    int64_t n_failed = manifest->n_found_failed + report->n_failed;
    int64_t n_lines = report->n_found + report->n_answered + report->n_failed;
    assert(manifest->n_found_failed <= report->n_found);
    json_t *figures = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:I}", "verdict",
        manifest->is_complete ? "complete" : "incomplete", "lines", (json_int_t)n_lines, "answered",
        (json_int_t)(n_lines - n_failed), "failed", (json_int_t)n_failed, "resumed",
        (json_int_t)report->n_found, "program", manifest->program, "backend", manifest->backend,
        "start_unix_ns", (json_int_t)manifest->start_unix_ns, "wall_ns", (json_int_t)wall_ns);
    if (figures == NULL) return NULL;
    if (manifest->is_complete) header_tell_input(figures, manifest->input.n, manifest->input.keys);
    add_figures(figures, report, counts, wall_ns);
    json_t *root = json_pack("{s:o}", "manifest", figures);
    char *line = root != NULL ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    return line;
}

static void print_summary_text(struct report *report, const struct executor_counts *counts,
                               uint64_t elapsed_ns, bool is_stopped)
{
    FILE *stream = report->stream;
    assert(!report->is_json);
    fprintf(stream, "dllm-batch: %s %lld requests in %.2f s: %lld answered, %lld failed\n",
            is_stopped ? "stopped after" : "done,",
            (long long)(report->n_answered + report->n_failed), seconds(elapsed_ns),
            (long long)report->n_answered, (long long)report->n_failed);
    if (report->n_found > 0)
        fprintf(stream, "  resumed    %10lld lines      (answered before)\n",
                (long long)report->n_found);
    if (report->n_answered == 0) return;
    fprintf(stream, "  effective  %10.1f tokens/s  (%lld tokens, up to the stop token)\n",
            rate(report->n_effective_tokens, elapsed_ns), (long long)report->n_effective_tokens);
    fprintf(stream, "  canvas     %10.1f tokens/s  (%lld tokens)\n",
            rate(report->n_canvas_tokens, elapsed_ns), (long long)report->n_canvas_tokens);
    fprintf(stream,
            "  forwards   %10lld           (%lld positions, %.1f per token up to the stop)\n",
            (long long)counts->n_iterations, (long long)counts->n_positions,
            positions_per_token(report, counts));
    double share = counts->n_positions > 0 ? 100.0 / (double)counts->n_positions : 0;
    fprintf(stream,
            "  phases     %10.1f %% refresh, %.1f %% reuse, %.1f %% padding; KV peak %.1f MiB\n",
            share * (double)counts->n_refresh_positions,
            share * (double)(counts->n_positions - counts->n_refresh_positions -
                             counts->n_pad_positions),
            share * (double)counts->n_pad_positions,
            (double)counts->n_slots_peak * (double)report->slot_bytes / (1024.0 * 1024.0));
    fprintf(stream, "  planning   %10.3f s           (%lld steps ended otherwise than planned)\n",
            seconds(counts->planning_ns + report->planning_ns), (long long)counts->n_surprises);
    if (counts->predicted_ns > 0)
        fprintf(
            stream,
            "  predicted  %10.2f s           (took %.2f s: off by %+.1f %%; planned ahead %.2f s; "
            "half of the forwards within %d %%)\n",
            seconds(counts->predicted_ns), seconds(counts->iterations_ns),
            100 * ((double)counts->predicted_ns / (double)counts->iterations_ns - 1),
            seconds(report->planned_ns), median_error(counts));
    if (report->graphs.is_on)
        fprintf(stream, "  graphs     %10lld steps replayed, %lld recorded, %lld launched singly\n",
                (long long)report->graphs.n_replayed, (long long)report->graphs.n_recorded,
                (long long)report->graphs.n_eager);
    fprintf(stream, "  latency    p50 %.3f s, p90 %.3f s, p99 %.3f s\n",
            seconds(report_percentile_ns(report, 0.50)),
            seconds(report_percentile_ns(report, 0.90)),
            seconds(report_percentile_ns(report, 0.99)));
}

void report_summary(struct report *report, const struct executor_counts *counts, uint64_t now_ns,
                    bool is_stopped)
{
    assert(now_ns >= report->start_ns);
    report_clear(report);
    if (report->is_quiet) return;
    uint64_t elapsed_ns = now_ns - report->start_ns;
    if (report->is_json) print_summary_json(report, counts, elapsed_ns, is_stopped);
    else print_summary_text(report, counts, elapsed_ns, is_stopped);
    fflush(report->stream);
}
