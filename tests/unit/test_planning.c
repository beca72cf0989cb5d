/* app/planning: memory is what the profile has or the options say, and a plan is chosen without
 * knowing what its planner could not know. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/planning.h"

enum { N = 40 };

static struct options flags;
static struct planning planning;
static struct phases phases[N];
static uint64_t arrivals_ns[N];
static int32_t stops[N];
static struct error err;

static void open_planning(void)
{
    flags.model = DATA_DIR "/models/tiny-llada";
    flags.profile = DATA_DIR "/profiles/l40s.json";
    cr_assert(planning_open(&planning, &flags, &err), "%s", err.message);
}

static void set_up(void)
{
    options_init(&flags, SUBCOMMAND_REPLAY);
}

static void tear_down(void)
{
    planning_close(&planning);
}

TestSuite(planning, .init = set_up, .fini = tear_down);

/* Requests of many lengths; every third one stops in its first block. */
static void add_requests(bool stop)
{
    const struct phases_model model = executor_phases_model(&planning.config);
    const struct decode_settings decode = {.gen_length = 64,
                                           .block_length = 16,
                                           .top_p = 1,
                                           .cache = CACHE_SPARSE,
                                           .retention = 0.5,
                                           .prompt_refresh_every = 1};
    for (int i = 0; i < N; i++) {
        cr_assert(phases_init(&phases[i], 10 + 7 * (i % 13), false, &decode, &model, &err), "%s",
                  err.message);
        arrivals_ns[i] = (uint64_t)i * 1000000;
        stops[i] = i % 3 == 0 ? 3 : INT32_MAX;
    }
    planning.input.n_requests = N;
    planning.input.phases = phases;
    planning.input.arrival_ns = arrivals_ns;
    planning.input.stop_after = stop ? stops : NULL;
}

/* What was decided by candidates. */
static struct planner_options choose(const char *policy, bool stop, bool is_online)
{
    flags.policy = policy;
    open_planning();
    cr_assert(planning_size(&planning, 10000, &err), "%s", err.message);
    add_requests(stop);
    planning.input.is_online = is_online;
    cr_assert(planning_make(&planning, &err), "%s", err.message);
    struct planner_options chosen = planning.results[0].options;
    cr_expect_eq(planning.n_results, 1);
    planning_close(&planning);
    planning = (struct planning){0};
    return chosen;
}

Test(planning, the_pool_is_what_memory_leaves_or_what_was_asked_for)
{
    open_planning();
    cr_assert(planning_size(&planning, 10000, &err), "%s", err.message);
    int64_t n_slots = planning.input.options.n_slots;
    size_t rest = planning.profile.memory_bytes - planning.memory.total_bytes;
    cr_expect_gt(n_slots, 0);
    cr_expect_lt(rest, planning.memory.slot_bytes + 64);
    flags.kv_memory = 100 * planning.memory.slot_bytes + 1;
    flags.is_set[OPTION_kv_memory] = true;
    cr_assert(planning_size(&planning, 10000, &err), "%s", err.message);
    cr_expect_eq(planning.input.options.n_slots, 100);
    flags.memory = 1 << 20;
    flags.is_set[OPTION_memory] = true;
    cr_expect_not(planning_size(&planning, 10000, &err));
    cr_expect_eq(err.code, ERROR_UNAVAILABLE);
}

Test(planning, rows_are_those_asked_for)
{
    flags.rows = 777;
    flags.is_set[OPTION_rows] = true;
    open_planning();
    cr_assert(planning_size(&planning, 10000, &err), "%s", err.message);
    cr_expect_eq(planning.input.options.n_rows_max, 777);
    cr_expect_eq(planning.shape.n_rows_max, 777);
}

Test(planning, stops_do_not_choose_the_plan_that_could_not_know_them)
{
    struct planner_options blind = choose("planned", false, false);
    struct planner_options stopped = choose("planned", true, false);
    cr_expect_eq(blind.policy, stopped.policy);
    cr_expect_eq(blind.n_rows_target, stopped.n_rows_target);
    cr_expect_eq(blind.n_running_max, stopped.n_running_max);
}

Test(planning, online_nothing_is_chosen_by_looking_ahead)
{
    struct planner_options online = choose("planned", true, true);
    cr_expect_eq(online.policy, POLICY_PLANNED);
    cr_expect_eq(online.n_rows_target, 0);
    cr_expect_eq(choose("fcfs", true, true).policy, POLICY_FCFS);
}

Test(planning, static_gets_the_batch_size_that_is_best_in_hindsight)
{
    struct planner_options chosen = choose("static", true, true);
    cr_expect_eq(chosen.policy, POLICY_STATIC);
    flags.policy = "static";
    open_planning();
    cr_assert(planning_size(&planning, 10000, &err), "%s", err.message);
    add_requests(true);
    planning.input.is_online = true;
    struct plan plan = {0};
    uint64_t best_ns = UINT64_MAX;
    for (int32_t size = 0; size <= 64; size = size > 0 ? 2 * size : 1) { /* 0: all that fit */
        struct plan_input input = planning.input;
        input.options = chosen;
        input.options.n_running_max = size;
        cr_assert(plan_make(&plan, &input, &err), "%s", err.message);
        if (plan.makespan_ns < best_ns) best_ns = plan.makespan_ns;
        plan_clear(&plan);
    }
    cr_assert(planning_make(&planning, &err), "%s", err.message);
    cr_expect_leq(planning.results[0].makespan_ns, best_ns);
}

Test(planning, compare_adds_the_other_policies_behind_the_chosen_one)
{
    flags.policy = "fcfs";
    flags.compare = true;
    open_planning();
    cr_assert(planning_size(&planning, 10000, &err), "%s", err.message);
    add_requests(true);
    cr_assert(planning_make(&planning, &err), "%s", err.message);
    cr_assert_eq(planning.n_results, PLANNING_POLICIES);
    cr_expect_eq(planning.summaries[0].policy, POLICY_FCFS);
    cr_expect_eq(planning.summaries[1].policy, POLICY_PLANNED);
    cr_expect_eq(planning.summaries[2].policy, POLICY_STATIC);
    for (int i = 1; i < PLANNING_POLICIES; i++)
        cr_expect_eq(planning.results[i].n_tokens, planning.results[0].n_tokens);
}

/* ---- the input ---- */

/* Reads `text` and admits what fits `n_rows_max` rows. */
static bool read_input(const char *text, bool only_traces, int32_t n_rows_max)
{
    char path[] = "/tmp/test-planning-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    flags.operand = path;
    flags.rows = n_rows_max;
    flags.is_set[OPTION_rows] = true;
    open_planning();
    bool is_read = planning_read(&planning, only_traces, true, &err) &&
                   planning_size(&planning, planning.n_cells, &err) &&
                   planning_admit(&planning, 2, &err);
    unlink(path);
    return is_read;
}

static const char trace[] =
    "{\"arrival_s\": 7, \"prompt_tokens\": 20, \"output_tokens\": 5}\n"
    "{\"arrival_s\": 3, \"prompt_tokens\": 10, \"output_tokens\": 9}\n"
    "{\"arrival_s\": 1, \"prompt_tokens\": 500, \"output_tokens\": 9}\n" /* needs many rows */
    "{\"arrival_s\": 4, \"prompt_tokens\": 30}\n"
    "{\"arrival_s\": -4, \"prompt_tokens\": 30}\n";

Test(planning, a_trace_is_put_in_order_and_what_does_not_fit_becomes_a_bad_line)
{
    cr_assert(read_input(trace, true, 100), "%s", err.message);
    cr_expect(planning.is_trace);
    const struct plan_input *input = &planning.input;
    cr_assert_eq(input->n_requests, 3);
    const int64_t indexes[] = {1, 3, 0};
    const uint64_t halved_ns[] = {0, 500000000, 2000000000};
    const int32_t stops_after[] = {9, INT32_MAX, 5};
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(planning.requests[i].index, indexes[i]);
        cr_expect_eq(input->arrival_ns[i], halved_ns[i]);
        cr_expect_eq(planning.stops[i], stops_after[i]);
        cr_expect_eq(input->phases[i].blocks_begin, planning.requests[i].n_prompt);
    }
    cr_expect_null(input->stop_after, "what a planner must not know is nobody's by default");
    cr_expect_eq(input->options.objective, OBJECTIVE_TAIL);
    cr_assert_eq(planning.window.n_prompts, 5);
    cr_expect_eq(planning.window.prompts[2].code, PROMPT_TOO_LONG);
    cr_expect_not_null(strstr(planning.window.prompts[2].message, "--rows"));
    cr_expect_eq(planning.window.prompts[4].code, PROMPT_INVALID_REQUEST);
    cr_expect_eq(planning.sums.read.n_requests, 5);
    cr_expect_eq(planning.sums.refused.n_requests, 2);
    cr_expect_eq(planning.served.n_prompt, 60);
    cr_expect_eq(planning.served.n_output, 14);
}

Test(planning, an_objective_that_was_asked_for_stays)
{
    flags.objective = "mean";
    flags.is_set[OPTION_objective] = true;
    cr_assert(read_input(trace, true, 100), "%s", err.message);
    cr_expect_eq(planning.input.options.objective, OBJECTIVE_MEAN);
}

Test(planning, prompts_are_all_there_at_the_start)
{
    static const char prompts[] = "{\"prompt_token_ids\": [1, 2, 3], \"gen_length\": 8}\n"
                                  "{\"prompt_token_ids\": [1, 2], \"gen_length\": 8}\n";
    cr_assert(read_input(prompts, false, 100), "%s", err.message);
    cr_expect_not(planning.is_trace);
    cr_assert_eq(planning.input.n_requests, 2);
    cr_expect_null(planning.input.arrival_ns);
    cr_expect_eq(planning.input.options.objective, OBJECTIVE_MAKESPAN);
    cr_expect_eq(planning.n_cells, 1 + 11 + 10);
    planning_close(&planning);
    cr_expect_not(read_input(prompts, true, 100));
    cr_expect_eq(err.code, ERROR_FORMAT);
}
