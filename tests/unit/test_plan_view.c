/* app/plan_view: a plan as drawing, data and trace says the same as the plan. The plan is made by
 * hand: two requests of one block, the second parked for an iteration. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "app/plan_view.h"

static struct phases phases[2];
static struct plan_run runs[] = {
    {.request = 0, .block = 0, .n_steps = 4, .iteration_begin = 0, .kept_begin = 0},
    {.request = 1, .block = 0, .n_steps = 1, .iteration_begin = 0, .kept_begin = 9},
    {.request = 1,
     .block = 0,
     .step_begin = 1,
     .n_steps = 3,
     .iteration_begin = 2,
     .kept_begin = 9},
};
static struct plan_iteration_record iterations[] = {
    {.start_ns = 0,
     .end_ns = 1000,
     .n_rows = 40,
     .n_refresh_rows = 40,
     .n_items = 2,
     .slots_held = 20},
    {.start_ns = 1000, .end_ns = 1500, .n_rows = 4, .n_items = 1, .slots_held = 20},
    {.start_ns = 1500, .end_ns = 2500, .n_rows = 8, .n_items = 2, .slots_held = 20},
    {.start_ns = 2500, .end_ns = 3500, .n_rows = 8, .n_items = 2, .slots_held = 20},
    {.start_ns = 3500, .end_ns = 4000, .n_rows = 4, .n_items = 1, .slots_held = 10},
};
static struct plan_request_record requests[] = {
    {.finished_ns = 3500, .refresh_steps = 1, .reuse_steps = 3, .positions = 32, .n_tokens = 4},
    {.finished_ns = 4000, .refresh_steps = 1, .reuse_steps = 3, .positions = 32, .n_tokens = 4},
};
static struct plan plan;
static struct plan_input input;
static struct plan_view view;
static const struct request served[] = {{.index = 0}, {.index = 7}};
static char *text;
static size_t n_text;

static void set_up(void)
{
    const struct decode_settings decode = {.gen_length = 4,
                                           .block_length = 4,
                                           .top_p = 1,
                                           .cache = CACHE_DUAL,
                                           .retention = 1,
                                           .prompt_refresh_every = 1};
    const struct phases_model model = {.n_positions = 100};
    for (int i = 0; i < 2; i++)
        cr_assert(phases_init(&phases[i], 16, false, &decode, &model, NULL));
    plan = (struct plan){.options = {.policy = POLICY_PLANNED, .n_rows_max = 64, .n_slots = 32},
                         .n_requests = 2,
                         .n_runs = 3,
                         .n_iterations = 5,
                         .runs = runs,
                         .iterations = iterations,
                         .requests = requests,
                         .total = {.n_rows = 64},
                         .n_refresh_rows = 40,
                         .n_tokens = 8,
                         .makespan_ns = 4000};
    input = (struct plan_input){.n_requests = 2, .phases = phases};
    view = (struct plan_view){.plan = &plan,
                              .input = &input,
                              .model = "a<b",
                              .profile = "box",
                              .requests = served,
                              .efficiency = 0.5};
}

static void tear_down(void)
{
    free(text);
}

TestSuite(plan_view, .init = set_up, .fini = tear_down);

static void print(bool (*write)(FILE *, const struct plan_view *))
{
    FILE *out = open_memstream(&text, &n_text);
    cr_assert(write(out, &view));
    fclose(out);
}

static json_t *print_json(bool (*write)(FILE *, const struct plan_view *))
{
    json_error_t where;
    print(write);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    cr_assert_not_null(root, "%d: %s\n%s", where.line, where.text, text);
    return root;
}

static json_int_t cell(const json_t *table, size_t row, size_t column)
{
    return json_integer_value(json_array_get(json_array_get(table, row), column));
}

Test(plan_view, data_has_every_request_iteration_and_run)
{
    json_t *root = print_json(plan_view_json);
    cr_assert_str_eq(json_string_value(json_object_get(root, "format")), "dllm-batch plan 1");
    static const char *const tables[] = {"request", "iteration", "run"};
    static const size_t n_rows[] = {2, 5, 3};
    for (size_t i = 0; i < 3; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s_columns", tables[i]);
        const json_t *columns = json_object_get(root, key);
        snprintf(key, sizeof key, "%ss", tables[i]);
        const json_t *rows = json_object_get(root, key);
        cr_assert_eq(json_array_size(rows), n_rows[i], "%s", key);
        for (size_t row = 0; row < n_rows[i]; row++)
            cr_assert_eq(json_array_size(json_array_get(rows, row)), json_array_size(columns));
    }
    cr_assert_eq(cell(json_object_get(root, "requests"), 1, 0), 7, "the input line");
    cr_assert_eq(cell(json_object_get(root, "iterations"), 0, 3), 40);
    cr_assert_eq(cell(json_object_get(root, "runs"), 2, 4), 2);
    json_decref(root);
}

Test(plan_view, a_trace_has_a_slice_for_each_phase)
{
    json_t *root = print_json(plan_view_perfetto);
    const json_t *events = json_object_get(root, "traceEvents");
    size_t n_refresh = 0, n_reuse = 0, n_counters = 0;
    double reuse_us = 0;
    size_t i;
    json_t *event;
    json_array_foreach(events, i, event)
    {
        const char *kind = json_string_value(json_object_get(event, "ph"));
        const char *name = json_string_value(json_object_get(event, "name"));
        n_counters += strcmp(kind, "C") == 0;
        if (strcmp(kind, "X") != 0) continue;
        n_refresh += strcmp(name, "Refresh") == 0;
        n_reuse += strcmp(name, "Reuse") == 0;
        if (strcmp(name, "Reuse") == 0)
            reuse_us += json_number_value(json_object_get(event, "dur"));
    }
    cr_assert_eq(n_refresh, 2, "the first step of each");
    cr_assert_eq(n_reuse, 2);
    cr_assert_eq(n_counters, 10, "rows and slots of five iterations");
    cr_assert_float_eq(reuse_us, 2.5 + 2.5, 1e-6);
    json_decref(root);
}

Test(plan_view, a_drawing_is_closed_and_escaped)
{
    print(plan_view_svg);
    cr_assert_eq(strncmp(text, "<svg ", 5), 0);
    cr_assert_str_eq(text + n_text - 7, "</svg>\n");
    cr_assert(strstr(text, "Plan (planned): a&lt;b on box"), "%s", text);
    cr_assert(strstr(text, "50.0 % of the lower bound"));
    cr_assert_null(strstr(text, "nan"));
    cr_assert_null(strstr(text, "inf"));
    /* Two lanes of 16 pixels: Refresh covers the first quarter of the time in both. */
    cr_assert(strstr(text, "h270.0v15.0h-270.0zM72.0 "), "%s", text);
}

Test(plan_view, names_are_those_of_the_command_line)
{
    cr_assert_str_eq(plan_view_policy_name(POLICY_STATIC), "static");
    cr_assert_str_eq(plan_view_policy_name(POLICY_FCFS), "fcfs");
    cr_assert_str_eq(plan_view_objective_name(OBJECTIVE_TAIL), "tail");
}

/* ---- many requests, and padding ---- */

enum { MANY = 5000 };

/* Each request takes one step of its own iteration, one after the other. */
static struct plan make_many(struct plan_run *many_runs,
                             struct plan_iteration_record *many_iterations,
                             struct plan_request_record *many_requests, struct phases *many_phases)
{
    for (int32_t i = 0; i < MANY; i++) {
        uint64_t start_ns = (uint64_t)i * 100;
        many_phases[i] = phases[0];
        many_runs[i] = (struct plan_run){
            .request = i, .n_steps = 1, .iteration_begin = i, .prompt_begin = -1, .kept_begin = -1};
        many_iterations[i] = (struct plan_iteration_record){.start_ns = start_ns,
                                                            .end_ns = start_ns + 100,
                                                            .n_rows = 20,
                                                            .n_refresh_rows = 20,
                                                            .n_pad_rows = 12,
                                                            .n_items = 1};
        many_requests[i] =
            (struct plan_request_record){.first_ns = start_ns, .finished_ns = start_ns + 100};
    }
    return (struct plan){.options = {.policy = POLICY_STATIC, .n_rows_max = 64},
                         .n_requests = MANY,
                         .n_runs = MANY,
                         .n_iterations = MANY,
                         .runs = many_runs,
                         .iterations = many_iterations,
                         .requests = many_requests,
                         .total = {.n_rows = 32 * MANY},
                         .n_refresh_rows = 20 * MANY,
                         .n_pad_rows = 12 * MANY,
                         .n_tokens = MANY,
                         .makespan_ns = 100 * MANY};
}

Test(plan_view, five_thousand_requests_share_lanes_and_stay_small)
{
    static struct plan_run many_runs[MANY];
    static struct plan_iteration_record many_iterations[MANY];
    static struct plan_request_record many_requests[MANY];
    static struct phases many_phases[MANY];
    static struct request many_lines[MANY];
    plan = make_many(many_runs, many_iterations, many_requests, many_phases);
    input = (struct plan_input){.n_requests = MANY, .phases = many_phases};
    view.requests = many_lines;
    print(plan_view_svg);
    cr_assert_lt(n_text, 400000, "%zu bytes", n_text);
    cr_assert(strstr(text, "Requests, 32 to a lane, by start"));
    cr_assert(strstr(text, "padding, waiting"), "static pads");
    cr_assert(strstr(text, "32 positions per token"));
    /* Refresh fills 20 of 64 rows all the time, padding 12 more: flat areas across the plot. */
    cr_assert(strstr(text, "<path class=\"f0\" d=\"M72.0 242.0H72.0V"), "%.3000s", text);
    cr_assert_null(strstr(text, "<path class=\"f3\" d="), "no KV slots are held");
}
