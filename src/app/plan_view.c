/* Three ways to print the same runs and iterations. */
#include "app/plan_view.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "app/chart.h"
#include "app/lanes.h"

static const char *const policy_names[] = {
    [POLICY_STATIC] = "static", [POLICY_FCFS] = "fcfs", [POLICY_PLANNED] = "planned"};
static const char *const objective_names[] = {
    [OBJECTIVE_MAKESPAN] = "makespan", [OBJECTIVE_MEAN] = "mean", [OBJECTIVE_TAIL] = "tail"};

const char *plan_view_policy_name(enum policy policy)
{
    assert((size_t)policy < sizeof policy_names / sizeof *policy_names);
    return policy_names[policy];
}

const char *plan_view_objective_name(enum objective objective)
{
    assert((size_t)objective < sizeof objective_names / sizeof *objective_names);
    return objective_names[objective];
}

/* ---- stretches: steps of one phase in consecutive iterations ---- */

struct stretch {
    const struct plan_run *run;
    enum phase phase;
    int32_t step_begin, n_steps; /* within the block */
    uint64_t start_ns, end_ns;
};

/* The stretch of `run` that begins with its step number `offset`. */
static struct stretch next_stretch(const struct plan_view *view, const struct plan_run *run,
                                   int32_t offset)
{
    const struct phases *phases = &view->input->phases[run->request];
    const struct plan_iteration_record *first =
        &view->plan->iterations[run->iteration_begin + offset];
    struct stretch stretch = {.run = run, .step_begin = run->step_begin + offset};
    struct step_shape shape;
    assert(offset < run->n_steps);
    for (; offset + stretch.n_steps < run->n_steps; stretch.n_steps++) {
        phases_step(phases, run->block, stretch.step_begin + stretch.n_steps, &shape);
        if (stretch.n_steps > 0 && shape.phase != stretch.phase) break;
        stretch.phase = shape.phase;
    }
    stretch.start_ns = first->start_ns;
    stretch.end_ns = first[stretch.n_steps - 1].end_ns;
    return stretch;
}

/* ---- drawing ---- */

enum { LEFT = 72, WIDTH = 1180, TOP = 92, ROWS_HEIGHT = 150, SLOTS_HEIGHT = 80, GAP = 66 };

/* What a drawing is made of; doubles are bins of time. */
struct drawing {
    const struct plan_view *view;
    double span_s;
    double refresh[CHART_BINS], reuse[CHART_BINS], pad[CHART_BINS], slots[CHART_BINS];
    struct lanes lanes;
    int32_t *order; /* [n_requests] by start; heap */
    int32_t *place; /* [n_requests] the reverse; heap */
};

static double seconds(uint64_t ns)
{
    return (double)ns * 1e-9;
}

static void bin_iterations(struct drawing *drawing)
{
    const struct plan *plan = drawing->view->plan;
    assert(plan->iterations != NULL);
    for (int64_t i = 0; i < plan->n_iterations; i++) {
        const struct plan_iteration_record *record = &plan->iterations[i];
        double start = seconds(record->start_ns), end = seconds(record->end_ns);
        int32_t n_reuse = record->n_rows - record->n_refresh_rows;
        double span = drawing->span_s;
        chart_spread(drawing->refresh, CHART_BINS, span, start, end, record->n_refresh_rows);
        chart_spread(drawing->reuse, CHART_BINS, span, start, end, n_reuse);
        chart_spread(drawing->pad, CHART_BINS, span, start, end, record->n_pad_rows);
        chart_spread(drawing->slots, CHART_BINS, span, start, end, (double)record->slots_held);
    }
}

static int compare_starts(const void *left, const void *right, void *context)
{
    const struct plan_request_record *requests = context;
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    assert(requests != NULL);
    uint64_t a_ns = requests[a].first_ns, b_ns = requests[b].first_ns;
    return a_ns != b_ns ? (a_ns > b_ns) - (a_ns < b_ns) : (a > b) - (a < b);
}

static void bin_lanes(struct drawing *drawing)
{
    const struct plan *plan = drawing->view->plan;
    struct lanes *lanes = &drawing->lanes;
    double span = drawing->span_s, share = 1.0 / lanes->n_per_lane;
    assert(plan->runs != NULL);
    for (int32_t i = 0; i < plan->n_requests; i++) {
        const struct plan_request_record *record = &plan->requests[drawing->order[i]];
        size_t row = (size_t)(i / lanes->n_per_lane) * CHART_BINS;
        drawing->place[drawing->order[i]] = i;
        chart_spread(lanes->alive + row, CHART_BINS, span, seconds(record->arrival_ns),
                     seconds(record->finished_ns), share);
    }
    for (int64_t i = 0; i < plan->n_runs; i++) {
        const struct plan_run *run = &plan->runs[i];
        int32_t lane = drawing->place[run->request] / lanes->n_per_lane;
        size_t row = (size_t)lane * CHART_BINS;
        for (int32_t step = 0; step < run->n_steps;) {
            struct stretch stretch = next_stretch(drawing->view, run, step);
            double start = seconds(stretch.start_ns), end = seconds(stretch.end_ns);
            step += stretch.n_steps;
            chart_spread(lanes->working + row, CHART_BINS, span, start, end, share);
            if (stretch.phase == PHASE_REFRESH)
                chart_spread(lanes->marked + row, CHART_BINS, span, start, end, share);
        }
    }
}

static void draw_head(FILE *out, const struct plan_view *view)
{
    const struct plan *plan = view->plan;
    double x = LEFT;
    assert(plan->n_requests > 0);
    chart_label(out, LEFT, 30, "title", "Plan (%s): %s on %s",
                plan_view_policy_name(plan->options.policy), view->model, view->profile);
    chart_label(out, LEFT, 49, "note",
                "%" PRId32 " requests, %" PRId64 " tokens in %.4g s, %" PRId64
                " iterations, %.3g positions per token, %.1f %% of the lower bound",
                plan->n_requests, plan->n_tokens, seconds(plan->makespan_ns), plan->n_iterations,
                (double)plan->total.n_rows / (double)(plan->n_tokens > 0 ? plan->n_tokens : 1),
                100 * view->efficiency);
    x = chart_key(out, x + 760, 30, CHART_REFRESH, "Refresh");
    x = chart_key(out, x, 30, CHART_REUSE, "Reuse");
    x = chart_key(out, x, 30, CHART_IDLE, plan->n_pad_rows > 0 ? "padding, waiting" : "waiting");
    chart_key(out, x, 30, CHART_MEMORY, "KV cache");
}

static void draw(FILE *out, struct drawing *drawing)
{
    const struct plan *plan = drawing->view->plan;
    const struct lanes *lanes = &drawing->lanes;
    double lane_height = fmin(fmax(640.0 / lanes->n_lanes, 4), 16);
    double rows_max = plan->options.n_rows_max, slots_max = (double)plan->options.n_slots;
    struct chart_panel rows = {.x = LEFT,
                               .y = TOP,
                               .width = CHART_BINS,
                               .height = ROWS_HEIGHT,
                               .x_max = drawing->span_s,
                               .y_max = rows_max * 1.04,
                               .title = "Rows of an iteration",
                               .y_label = "dashed: most allowed"};
    struct chart_panel slots = rows, requests = rows;
    double bottom[CHART_BINS] = {0}, slots_bottom[CHART_BINS] = {0};
    slots.y += rows.height + GAP - 20;
    slots.height = SLOTS_HEIGHT;
    slots.y_max = fmax(slots_max, 1) * 1.04;
    slots.title = "KV slots held, per layer";
    slots.y_label = "dashed: the pool";
    requests.y = slots.y + slots.height + GAP - 20;
    requests.height = lane_height * lanes->n_lanes;
    char title[LANES_TITLE_BYTES];
    requests.title = lanes_title(lanes, title);
    requests.x_label = "seconds";
    requests.y_label = NULL;
    assert(rows.x_max > 0);
    chart_begin(out, WIDTH, requests.y + requests.height + 48, true);
    draw_head(out, drawing->view);
    chart_axes(out, &rows);
    chart_area(out, &rows, drawing->refresh, bottom, CHART_BINS, CHART_REFRESH);
    chart_area(out, &rows, drawing->reuse, bottom, CHART_BINS, CHART_REUSE);
    chart_area(out, &rows, drawing->pad, bottom, CHART_BINS, CHART_IDLE);
    chart_line(out, &rows, &rows_max, NULL, 1, CHART_IDLE);
    chart_axes(out, &slots);
    chart_area(out, &slots, drawing->slots, slots_bottom, CHART_BINS, CHART_MEMORY);
    chart_line(out, &slots, &slots_max, NULL, 1, CHART_IDLE);
    chart_axes(out, &requests);
    lanes_draw(out, &requests, lanes);
    fputs("</svg>\n", out);
}

bool plan_view_svg(FILE *out, const struct plan_view *view)
{
    int32_t n = view->plan->n_requests;
    assert(n > 0);
    struct drawing *drawing = calloc(1, sizeof *drawing);
    int32_t *order = calloc((size_t)n, 2 * sizeof *order);
    bool is_ok =
        drawing != NULL && order != NULL && lanes_create(&drawing->lanes, n, CHART_REFRESH);
    if (is_ok) {
        drawing->view = view;
        drawing->span_s = fmax(seconds(view->plan->makespan_ns), 1e-9);
        drawing->order = order;
        drawing->place = order + n;
        for (int32_t i = 0; i < n; i++)
            order[i] = i;
        qsort_r(order, (size_t)n, sizeof *order, compare_starts, view->plan->requests);
        bin_iterations(drawing);
        bin_lanes(drawing);
        draw(out, drawing);
        free(drawing->lanes.alive);
    }
    free(order);
    free(drawing);
    return is_ok;
}

/* ---- data ---- */

/* ",\n" between rows; nothing before the first. */
static const char *separator(int64_t i)
{
    assert(i >= 0);
    return i > 0 ? ",\n" : "\n";
}

static void print_requests(FILE *out, const struct plan_view *view)
{
    fputs("\"request_columns\": [\"line_index\", \"arrival_ns\", \"first_ns\", \"finished_ns\", "
          "\"refresh_steps\", \"reuse_steps\", \"positions\", \"tokens\"],\n\"requests\": [",
          out);
    assert(view->requests != NULL);
    for (int32_t i = 0; i < view->plan->n_requests; i++) {
        const struct plan_request_record *record = &view->plan->requests[i];
        fprintf(out,
                "%s[%" PRId64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRId32 ", %" PRId32
                ", %" PRId64 ", %" PRId32 "]",
                separator(i), view->requests[i].index, record->arrival_ns, record->first_ns,
                record->finished_ns, record->refresh_steps, record->reuse_steps, record->positions,
                record->n_tokens);
    }
    fputs("\n],\n", out);
}

static void print_iterations(FILE *out, const struct plan *plan)
{
    fputs("\"iteration_columns\": [\"start_ns\", \"end_ns\", \"rows\", \"refresh_rows\", "
          "\"pad_rows\", \"requests\", \"slots\"],\n\"iterations\": [",
          out);
    assert(plan->iterations != NULL);
    for (int64_t i = 0; i < plan->n_iterations; i++) {
        const struct plan_iteration_record *record = &plan->iterations[i];
        fprintf(out,
                "%s[%" PRIu64 ", %" PRIu64 ", %" PRId32 ", %" PRId32 ", %" PRId32 ", %" PRId32
                ", %" PRId64 "]",
                separator(i), record->start_ns, record->end_ns, record->n_rows,
                record->n_refresh_rows, record->n_pad_rows, record->n_items, record->slots_held);
    }
    fputs("\n],\n", out);
}

bool plan_view_json(FILE *out, const struct plan_view *view)
{
    const struct plan *plan = view->plan;
    assert(plan->runs != NULL);
    fprintf(out,
            "{\"format\": \"dllm-batch plan 1\", \"policy\": \"%s\", \"objective\": \"%s\",\n"
            "\"rows_max\": %" PRId32 ", \"slots\": %" PRId64 ", \"makespan_ns\": %" PRIu64 ",\n",
            plan_view_policy_name(plan->options.policy),
            plan_view_objective_name(plan->options.objective), plan->options.n_rows_max,
            plan->options.n_slots, plan->makespan_ns);
    print_requests(out, view);
    print_iterations(out, plan);
    fputs("\"run_columns\": [\"request\", \"block\", \"step_begin\", \"steps\", "
          "\"iteration_begin\", \"prompt_slot\", \"kept_slot\"],\n\"runs\": [",
          out);
    for (int64_t i = 0; i < plan->n_runs; i++) {
        const struct plan_run *run = &plan->runs[i];
        fprintf(out,
                "%s[%" PRId32 ", %" PRId32 ", %" PRId32 ", %" PRId32 ", %" PRId64 ", %" PRId64
                ", %" PRId64 "]",
                separator(i), run->request, run->block, run->step_begin, run->n_steps,
                run->iteration_begin, run->prompt_begin, run->kept_begin);
    }
    fputs("\n]}\n", out);
    return true;
}

/* ---- trace events ---- */

static void print_counters(FILE *out, const struct plan_iteration_record *record)
{
    double start_us = (double)record->start_ns * 1e-3;
    assert(record->end_ns >= record->start_ns);
    fprintf(out,
            ",\n{\"ph\": \"C\", \"pid\": 2, \"ts\": %.3f, \"name\": \"rows\", \"args\": "
            "{\"refresh\": %" PRId32 ", \"reuse\": %" PRId32 ", \"padding\": %" PRId32 "}}",
            start_us, record->n_refresh_rows, record->n_rows - record->n_refresh_rows,
            record->n_pad_rows);
    fprintf(out,
            ",\n{\"ph\": \"C\", \"pid\": 2, \"ts\": %.3f, \"name\": \"KV slots\", \"args\": "
            "{\"held\": %" PRId64 "}}",
            start_us, record->slots_held);
}

bool plan_view_perfetto(FILE *out, const struct plan_view *view)
{
    const struct plan *plan = view->plan;
    assert(plan->runs != NULL);
    fputs("{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n{\"ph\": \"M\", \"pid\": 1, \"name\": "
          "\"process_name\", \"args\": {\"name\": \"requests\"}},\n{\"ph\": \"M\", \"pid\": 2, "
          "\"name\": \"process_name\", \"args\": {\"name\": \"iterations\"}}",
          out);
    for (int32_t i = 0; i < plan->n_requests; i++)
        fprintf(out,
                ",\n{\"ph\": \"M\", \"pid\": 1, \"tid\": %" PRId32
                ", \"name\": \"thread_name\", \"args\": {\"name\": \"line %" PRId64 "\"}}",
                i + 1, view->requests[i].index + 1);
    for (int64_t i = 0; i < plan->n_iterations; i++)
        print_counters(out, &plan->iterations[i]);
    for (int64_t i = 0; i < plan->n_runs; i++) {
        const struct plan_run *run = &plan->runs[i];
        for (int32_t step = 0; step < run->n_steps;) {
            struct stretch stretch = next_stretch(view, run, step);
            step += stretch.n_steps;
            fprintf(out,
                    ",\n{\"ph\": \"X\", \"pid\": 1, \"tid\": %" PRId32
                    ", \"ts\": %.3f, \"dur\": %.3f, \"name\": \"%s\", \"args\": {\"block\": "
                    "%" PRId32 ", \"first_step\": %" PRId32 ", \"steps\": %" PRId32 "}}",
                    run->request + 1, (double)stretch.start_ns * 1e-3,
                    (double)(stretch.end_ns - stretch.start_ns) * 1e-3,
                    stretch.phase == PHASE_REFRESH ? "Refresh" : "Reuse", run->block,
                    stretch.step_begin, stretch.n_steps);
        }
    }
    fputs("\n]}\n", out);
    return true;
}
