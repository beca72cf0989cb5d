/* app/plan_summary: figures of real plans on a made-up machine agree with the plans and with each
 * other, under every policy. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/plan_summary.h"

enum { REQUESTS = 40 };

static struct arena arena;
static struct cost_model cost;
static struct phases phases[REQUESTS];
static struct plan plan;
static struct plan_summary summary;

static void set_up(void)
{
    const struct cost_profile profile = {.base_ns = 1e5,
                                         .bytes_per_s = 1e11,
                                         .attention_flops_per_s = 1e12,
                                         .n_rates = 2,
                                         .rates = {{1, 1e11}, {512, 4e12}}};
    const struct cost_shape shape = {.n_layers = 8,
                                     .hidden = 512,
                                     .n_heads = 8,
                                     .n_kv_heads = 8,
                                     .head_dim = 64,
                                     .ffn = 1376,
                                     .n_vocab = 9000,
                                     .weight_element_bytes = 2,
                                     .kv_element_bytes = 2};
    const struct decode_settings decode = {.gen_length = 32,
                                           .block_length = 16,
                                           .top_p = 1,
                                           .cache = CACHE_DUAL,
                                           .retention = 1,
                                           .prompt_refresh_every = 1};
    const struct phases_model model = {.n_positions = 1000};
    cr_assert(arena_create(&arena, (size_t)1 << 30, NULL));
    cost_init(&cost, &profile, &shape);
    for (int i = 0; i < REQUESTS; i++)
        cr_assert(phases_init(&phases[i], 20 + 11 * i, false, &decode, &model, NULL));
}

static void tear_down(void)
{
    plan_clear(&plan);
    arena_destroy(&arena);
}

TestSuite(plan_summary, .init = set_up, .fini = tear_down);

static void make(enum policy policy)
{
    struct error err = {0};
    struct plan_input input = {.options = {.policy = policy,
                                           .n_rows_max = 1024,
                                           .n_requests_max = REQUESTS,
                                           .n_slots = 4000,
                                           .tokens_per_step = 1},
                               .cost = &cost,
                               .n_requests = REQUESTS,
                               .phases = phases,
                               .tokens_per_step = 1,
                               .keeps_runs = true};
    plan_clear(&plan);
    cr_assert(plan_make(&plan, &input, &err), "%s", err.message);
    cr_assert(plan_summary_take(&summary, &plan, &input, 5000000, &arena));
    cr_assert_eq(arena.used_bytes, 0, "scratch is rewound");
    summary.policy = policy;
    summary.clock = "virtual";
}

/* The figure that goes by `key` in JSON. */
static double figure(const char *key)
{
    json_t *object = plan_summary_json(&summary);
    const json_t *value = json_object_get(object, key);
    cr_assert(json_is_number(value), "%s", key);
    double number = json_number_value(value);
    json_decref(object);
    return number;
}

static void expect_consistent(void)
{
    double shares = figure("refresh_percent") + figure("reuse_percent") + figure("padding_percent");
    cr_assert_float_eq(shares, 100, 1e-6);
    cr_assert_eq(figure("iterations"), (double)plan.n_iterations);
    cr_assert_float_eq(figure("makespan_s"), (double)plan.makespan_ns * 1e-9, 1e-12);
    cr_assert_float_eq(figure("rows_mean") * (double)plan.n_iterations, (double)plan.total.n_rows,
                       1e-3);
    cr_assert_float_eq(figure("positions_per_token") * 32 * REQUESTS, (double)plan.total.n_rows,
                       1e-3);
    cr_assert_float_eq(figure("tokens_per_s") * figure("makespan_s"), 32 * REQUESTS, 1e-6);
    cr_assert_leq(figure("rows_p10"), figure("rows_p50"));
    cr_assert_leq(figure("rows_p90"), figure("rows_max"));
    cr_assert_leq(figure("rows_max"), 1024);
    cr_assert_leq(figure("kv_mean_percent"), figure("kv_max_percent"));
    cr_assert_leq(figure("kv_max_percent"), 100);
    cr_assert_leq(figure("bound_s"), figure("bound_memory_s") * 1.000001);
    cr_assert_leq(figure("bound_memory_s"), figure("makespan_s") * 1.000001);
    cr_assert_float_eq(figure("efficiency_percent"), 100 * summary.efficiency, 1e-9);
    cr_assert_leq(figure("latency_p50_s"), figure("latency_p99_s"));
    cr_assert_leq(figure("latency_p99_s"), figure("makespan_s") * 1.000001);
    cr_assert_float_eq(figure("planning_s"), 0.005, 1e-12);
}

Test(plan_summary, figures_agree_with_the_plan_and_each_other)
{
    const enum policy policies[] = {POLICY_STATIC, POLICY_FCFS, POLICY_PLANNED};
    for (size_t i = 0; i < 3; i++) {
        make(policies[i]);
        expect_consistent();
    }
}

Test(plan_summary, only_lockstep_pads)
{
    make(POLICY_STATIC);
    cr_assert_gt(figure("padding_percent"), 0);
    make(POLICY_PLANNED);
    cr_assert_eq(figure("padding_percent"), 0);
}

Test(plan_summary, the_table_has_a_column_for_each_plan)
{
    char *text = NULL;
    size_t n_text = 0;
    make(POLICY_FCFS);
    struct plan_summary both[] = {summary, summary};
    both[0].policy = POLICY_PLANNED; /* asked for, but fcfs was better */
    FILE *stream = open_memstream(&text, &n_text);
    plan_summary_print(both, 2, stream);
    fclose(stream);
    cr_assert_eq(strncmp(text,
                         "policy                                planned         fcfs\n"
                         "best found by                            fcfs         fcfs\n"
                         "clock                                 virtual      virtual\n",
                         3 * 59),
                 0, "%s", text);
    size_t n_lines = 0;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        n_lines++;
    cr_assert_eq(n_lines, 3 + PLAN_SUMMARY_FIGURES);
    free(text);
}

Test(plan_summary, names_say_what_was_asked_for_and_what_was_best)
{
    make(POLICY_FCFS);
    summary.policy = POLICY_PLANNED;
    json_t *object = plan_summary_json(&summary);
    cr_assert_str_eq(json_string_value(json_object_get(object, "policy")), "planned");
    cr_assert_str_eq(json_string_value(json_object_get(object, "found_by")), "fcfs");
    cr_assert_str_eq(json_string_value(json_object_get(object, "objective")), "makespan");
    cr_assert_eq(json_integer_value(json_object_get(object, "tokens")), 32 * REQUESTS);
    json_decref(object);
}

Test(plan_summary, without_a_cost_model_nobody_knows_a_bound)
{
    make(POLICY_FCFS);
    double makespan_s = figure("makespan_s");
    cr_assert(plan_summary_take(&summary, &plan, &(struct plan_input){.n_requests = REQUESTS}, 0,
                                &arena));
    summary.clock = "real";
    json_t *object = plan_summary_json(&summary);
    cr_assert(json_is_null(json_object_get(object, "bound_s")));
    cr_assert(json_is_null(json_object_get(object, "bound_memory_s")));
    cr_assert(json_is_null(json_object_get(object, "efficiency_percent")));
    cr_assert_str_eq(json_string_value(json_object_get(object, "clock")), "real");
    json_decref(object);
    cr_assert_eq(figure("makespan_s"), makespan_s);
}
