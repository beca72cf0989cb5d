/* Times planning, and compares the policies on LLaDA-8B with the figures of three devices' data
 * sheets: `bench_plan` prints both, as Markdown. No clock of the machine decides about anything but
 * the first table. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "plan/plan.h"

#define N_MAX 100000
#define SEEDS 8

static const struct cost_shape llada = {.n_layers = 32,
                                        .hidden = 4096,
                                        .n_heads = 32,
                                        .n_kv_heads = 32,
                                        .head_dim = 128,
                                        .ffn = 12288,
                                        .n_vocab = 126464,
                                        .weight_element_bytes = 2,
                                        .kv_element_bytes = 2};

/* bf16 peak, bandwidth, memory, and rows of an iteration; half the peak rate at half_rows. */
static const struct device {
    const char *name;
    double flops_per_s, bytes_per_s, memory_bytes;
    int32_t n_rows_max;
} devices[] = {{"RTX 4090", 165e12, 1008e9, 24e9, 4000},
               {"L40S", 362e12, 864e9, 48e9, 16384},
               {"H200", 989e12, 4.8e12, 141e9, 16384}};

static struct phases phases[N_MAX];
static int32_t stop_after[N_MAX];

static double uniform(void)
{
    return (rand() + 0.5) / ((double)RAND_MAX + 1);
}

/* Prompts of about 370 tokens (p50) and 1,500 (p99), 256 tokens in blocks of 32; sparse, delay 1.
 */
static void draw(int32_t n, unsigned seed)
{
    const struct phases_model model = {.n_positions = 4096};
    const struct decode_settings decode = {.gen_length = 256,
                                           .block_length = 32,
                                           .steps = 256,
                                           .cache = CACHE_SPARSE,
                                           .retention = 0.5,
                                           .delay = 1};
    srand(seed);
    for (int32_t i = 0; i < n; i++) {
        double normal = sqrt(-2 * log(uniform())) * cos(6.283185307 * uniform());
        double n_prompt = 370 * exp(0.6 * normal);
        int32_t rows = (int32_t)(n_prompt < 8 ? 8 : n_prompt > 3700 ? 3700 : n_prompt);
        if (!phases_init(&phases[i], rows, false, &decode, &model, NULL)) exit(1);
        stop_after[i] = 1 + (int32_t)(255 * pow(uniform(), 1.5));
    }
}

static void fill_profile(struct cost_profile *profile, const struct device *device,
                         double half_rows)
{
    *profile = (struct cost_profile){.base_ns = 1.5e6,
                                     .bytes_per_s = device->bytes_per_s,
                                     .attention_flops_per_s = device->flops_per_s / 2,
                                     .memory_bytes = (uint64_t)device->memory_bytes};
    for (int32_t rows = 1; rows <= 16384; rows *= 2)
        profile->rates[profile->n_rates++] =
            (struct cost_rate){rows, device->flops_per_s * rows / (rows + half_rows)};
}

/* What weights, activations of bf16 and a reserve of 1 GB leave. */
static int64_t slots_of(const struct device *device, const struct cost_model *cost)
{
    double activations = (double)device->n_rows_max * (4 * 4096 + 3 * 12288) * 2;
    double left = device->memory_bytes - cost->linear_bytes - 2 * cost->head_bytes - activations;
    return (int64_t)((left - 1e9) / cost->slot_bytes);
}

static double seconds_since(uint64_t start_ns)
{
    return (double)(clock_now_ns() - start_ns) * 1e-9;
}

static double time_check(const struct plan *plan, const struct plan_input *input)
{
    struct arena scratch;
    struct error err = {0};
    uint64_t start_ns = clock_now_ns();
    if (!arena_create(&scratch, (size_t)1 << 34, &err) || !plan_check(plan, input, &scratch, &err))
        exit(puts(err.message));
    arena_destroy(&scratch);
    return seconds_since(start_ns);
}

static void bench_time(struct plan_input *input)
{
    printf("| requests | planning, s | peak memory, MiB | checking, s | iterations | makespan / "
           "bound |\n|---|---|---|---|---|---|\n");
    for (int32_t n = 1000; n <= N_MAX; n *= 10) {
        struct plan plan;
        struct error err = {0};
        struct plan_bounds bounds;
        struct rusage usage;
        input->n_requests = n;
        uint64_t start_ns = clock_now_ns();
        if (!plan_make(&plan, input, &err)) exit(puts(err.message));
        double taken_s = seconds_since(start_ns);
        getrusage(RUSAGE_SELF, &usage);
        double checked_s = time_check(&plan, input);
        plan_bounds(&bounds, input);
        printf("| %d | %.2f | %ld | %.2f | %lld | %.3f |\n", n, taken_s, usage.ru_maxrss / 1024,
               checked_s, (long long)plan.n_iterations,
               (double)plan.makespan_ns / (double)bounds.memory_ns);
        fflush(stdout);
        plan_clear(&plan);
    }
}

static void print_row(const char *device, unsigned seed, const struct plan_input *input,
                      const struct plan *plan)
{
    static const char *const names[] = {"static", "fcfs", "planned"};
    struct plan_bounds bounds;
    struct arena scratch;
    if (!arena_create(&scratch, (size_t)1 << 24, NULL)) exit(1);
    plan_bounds(&bounds, input);
    double s = (double)plan->makespan_ns * 1e-9;
    struct plan_latency latency = plan_latency(plan, &scratch);
    printf("| %s | %u | %s | %s%s | %.1f | %.1f | %.3f | %.3f | %.0f | %.0f |\n", device, seed,
           input->stop_after ? "stops" : "256 tokens", names[input->options.policy],
           plan->options.policy != input->options.policy ? " (fell back)" : "",
           (double)plan->n_tokens / s, (double)plan->total.n_rows / (double)plan->n_tokens,
           1e9 * s / (double)bounds.memory_ns, 1e9 * s / (double)bounds.plain_ns, latency.mean_s,
           latency.p99_s);
    arena_destroy(&scratch);
}

static void bench_policies(struct plan_input *input, const struct device *device, unsigned seed)
{
    for (int stops = 0; stops < 2; stops++) {
        input->stop_after = stops ? stop_after : NULL;
        for (int policy = 0; policy < 3; policy++) {
            struct plan plan;
            struct error err = {0};
            input->options.policy = (enum policy)policy;
            if (!plan_make_best(&plan, input, &err)) exit(puts(err.message));
            print_row(device->name, seed, input, &plan);
            plan_clear(&plan);
        }
    }
}

int main(int argc, char **argv)
{
    double half_rows = argc > 1 ? strtod(argv[1], NULL) : 64;
    struct cost_model cost;
    struct cost_profile profile;
    struct plan_input input = {.cost = &cost, .phases = phases, .n_requests = 200};
    draw(N_MAX, 1);
    fill_profile(&profile, &devices[0], half_rows);
    cost_init(&cost, &profile, &llada);
    input.options = (struct planner_options){.policy = POLICY_PLANNED,
                                             .n_rows_max = devices[0].n_rows_max,
                                             .n_slots = slots_of(&devices[0], &cost)};
    input.keeps_runs = true;
    bench_time(&input);
    input.keeps_runs = false;
    input.n_requests = 200;
    printf("\n| device | seed | outputs | policy | tokens/s | PPT | of the bound with memory | of "
           "the plain "
           "bound | mean, s | p99, s |\n|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        fill_profile(&profile, &devices[i], half_rows);
        cost_init(&cost, &profile, &llada);
        input.options = (struct planner_options){.n_rows_max = devices[i].n_rows_max,
                                                 .n_slots = slots_of(&devices[i], &cost)};
        for (unsigned seed = 1; seed <= SEEDS; seed++) {
            draw(200, seed);
            bench_policies(&input, &devices[i], seed);
        }
    }
    return 0;
}
