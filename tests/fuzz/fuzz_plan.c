/* Arbitrary bytes as the numbers of requests and options: what phases_init and planner_check accept
 * can be planned, by every policy, and the checker of plans accepts what comes; what it says of the
 * plan is true of its sums, too. The first bytes pick the options, each further 16 a request. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"
#include "fuzz.h"

enum { REQUESTS_MAX = 24, REQUEST_BYTES = 16, CANVAS_MAX = 256 };

struct bytes_left {
    const uint8_t *data;
    size_t n;
};

static struct arena scratch;
static struct cost_model cost;
static struct phases phases[REQUESTS_MAX];
static uint64_t arrival_ns[REQUESTS_MAX];
static int32_t stop_after[REQUESTS_MAX];

static void open_once(void)
{
    const struct cost_shape shape = FUZZ_SHAPE;
    const struct cost_profile profile = {.base_ns = 1e6,
                                         .bytes_per_s = 1e12,
                                         .attention_flops_per_s = 8e13,
                                         .n_rates = 2,
                                         .rates = {{1, 5e12}, {128, 1e14}}};
    if (scratch.base != NULL) return;
    cost_init(&cost, &profile, &shape);
    require(arena_create(&scratch, (size_t)256 << 20, NULL));
}

/* 0 behind the end. */
static uint8_t take(struct bytes_left *left)
{
    if (left->n == 0) return 0;
    left->n--;
    return *left->data++;
}

static struct decode_settings take_settings(struct bytes_left *left)
{
    struct decode_settings decode = {
        .gen_length = take(left),
        .block_length = take(left),
        .cache = (enum cache_kind)(take(left) % 4),
        .remasking = (enum remasking)(take(left) % REMASKING_COUNT),
        .retention = take(left) / 100.0,
        .delay = take(left) % 16,
        .refresh_every = take(left) % 16,
        .prompt_refresh_every = take(left) % 8,
        .suffix_window = take(left) % 8,
    };
    decode.steps = take(left) * (1 + take(left) % 3);
    uint8_t kind = take(left);
    if (kind & 1) decode.threshold = 0.9;
    if (kind & 2) decode.factor = 0.5;
    if (kind & 4) decode.cfg_scale = 1;
    return decode;
}

/* Those that can be served, in order of arrival. */
static void take_requests(struct plan_input *input, struct bytes_left *left, int32_t shift)
{
    const struct phases_model model = {.n_positions = CANVAS_MAX, .shift = shift};
    uint64_t now_ns = 0;
    while (left->n >= REQUEST_BYTES && input->n_requests < REQUESTS_MAX) {
        struct error err = {0};
        int32_t i = input->n_requests, n_prompt = 1 + take(left);
        uint64_t gap_ns = (uint64_t)take(left) * 1000000;
        int32_t stop = take(left);
        const struct decode_settings decode = take_settings(left);
        bool is_served = decode.gen_length > 0 &&
                         phases_init(&phases[i], n_prompt, false, &decode, &model, &err) &&
                         planner_check(&input->options, &phases[i], &err);
        require(is_served || decode.gen_length == 0 || err.message[0] != '\0');
        if (!is_served) continue;
        now_ns += gap_ns;
        arrival_ns[i] = now_ns;
        stop_after[i] = stop;
        input->n_requests++;
    }
}

/* The sums are those of the requests, which the checker has proved. */
static void check_sums(const struct plan *plan)
{
    int64_t n_tokens = 0;
    uint64_t last_ns = 0;
    for (int32_t i = 0; i < plan->n_requests; i++) {
        n_tokens += plan->requests[i].n_tokens;
        if (plan->requests[i].finished_ns > last_ns) last_ns = plan->requests[i].finished_ns;
    }
    require(plan->n_tokens == n_tokens);
    require(plan->makespan_ns == last_ns);
    require(plan->n_slots_peak <= plan->options.n_slots);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes_left left = {.data = data, .n = size};
    uint8_t kind = take(&left), more = take(&left);
    struct plan_input input = {.cost = &cost,
                               .phases = phases,
                               .arrival_ns = kind & 1 ? arrival_ns : NULL,
                               .stop_after = kind & 2 ? stop_after : NULL,
                               .keeps_runs = true,
                               .is_online = (kind & 5) == 5,
                               .tokens_per_step = 1 + take(&left) / 50.0};
    open_once();
    input.options = (struct planner_options){.objective = (enum objective)(more % 3),
                                             .n_rows_max = 1 + 4 * take(&left),
                                             .n_slots = 4 * take(&left),
                                             .n_running_max = take(&left) % 8,
                                             .n_rows_target = take(&left) % 64,
                                             .tokens_per_step = 1 + take(&left) / 50.0,
                                             .no_backfill = kind & 8,
                                             .no_parking = kind & 16,
                                             .no_promises = kind & 32,
                                             .no_staggering = kind & 64};
    take_requests(&input, &left, more >> 7);
    if (input.n_requests == 0) return 0;
    input.options.n_requests_max = input.n_requests;
    for (int policy = 0; policy < 3; policy++) {
        struct error err = {0};
        struct plan plan = {0};
        input.options.policy = (enum policy)policy;
        require(plan_make(&plan, &input, &err));
        require(plan_check(&plan, &input, &scratch, &err));
        check_sums(&plan);
        plan_clear(&plan);
        arena_rewind(&scratch, 0);
    }
    return 0;
}
