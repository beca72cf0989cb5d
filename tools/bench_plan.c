/* Planning and the policies on the virtual clock, as Markdown: `bench_plan [SECTION ...] [TRACE]`,
 * all of them without arguments, from the root of the tree. TRACE: the Azure conversation trace,
 * where it is not beside the tree; left out when absent. LLaDA-8B on the devices of data/profiles,
 * the workloads of traces/, the settings of the dLLM-Serve paper (arXiv 2512.17077): 256 tokens,
 * one a step, blocks of 32, retention 0.5, delay 1. No clock of the machine decides about anything
 * but the section `time`. */
#include "tools/bench_scene.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { DEVICES = 3, WORKLOADS = 3, POLICIES = 3 };

static const struct device {
    const char *profile;
    int32_t n_rows_max; /* the paper's token budgets; it had no H200 */
} devices[DEVICES] = {{"rtx4090", 4000}, {"l40s", 16384}, {"h200", 16384}};

static const char *const caches[] = {[CACHE_DUAL] = "dual", [CACHE_SPARSE] = "sparse"};
static const char *const outputs[] = {"256", "stop", "known"};

static struct workload workloads[WORKLOADS], azure[2];
enum { LIVEBENCH, BURST, OSC };

/* ---- bars ---- */

enum {
    BAR_BOUND,
    BAR_BOUND_STOPS,
    BAR_BETTER,
    BAR_BETTER_STOPS,
    BAR_STATIC,
    BAR_STATIC_BURST,
    BAR_STATIC_AZURE,
    BAR_STATIC_FULL,
    BAR_RATE,
    BAR_P99,
    BAR_RATE_LOW,
    BAR_P99_LOW,
    BAR_KNOWN_BURST,
    BAR_KNOWN,
    BAR_UNKNOWN_BURST,
    BAR_UNKNOWN,
    BAR_LADDER_ONE,
    BAR_LADDER_THREE,
    BAR_LADDER_THREE_FULL,
};

/* What is asked, and the worst that was seen. */
static struct bar {
    const char *name;
    bool is_least;
    double limit, worst;
    int32_t n, n_missed;
    char where[80];
} bars[] = {
    [BAR_BOUND] = {.name = "makespan over the bound with memory, outputs of 256",
                   .is_least = false,
                   .limit = 1.02},
    [BAR_BOUND_STOPS] = {.name = "makespan over the bound with memory, stops",
                         .is_least = false,
                         .limit = 1.02},
    [BAR_BETTER] = {.name = "makespan over the better of static and fcfs, outputs of 256",
                    .is_least = false,
                    .limit = 1},
    [BAR_BETTER_STOPS] = {.name = "makespan over the better of static and fcfs, stops",
                          .is_least = false,
                          .limit = 1},
    [BAR_STATIC] = {.name = "planned over static, stops, LiveBench and OSC",
                    .is_least = true,
                    .limit = 1.5},
    [BAR_STATIC_BURST] = {.name = "planned over static, stops, Burst",
                          .is_least = true,
                          .limit = 2.2},
    [BAR_STATIC_AZURE] = {.name = "planned over static, stops, Azure conversation",
                          .is_least = true,
                          .limit = 1.25},
    [BAR_STATIC_FULL] = {.name = "planned over static, outputs of 256",
                         .is_least = true,
                         .limit = 1},
    [BAR_RATE] = {.name = "online at 1.5 x saturation: throughput over fcfs",
                  .is_least = true,
                  .limit = 0.97},
    [BAR_P99] = {.name = "online at 1.5 x saturation: p99 over fcfs",
                 .is_least = false,
                 .limit = 1.05},
    [BAR_RATE_LOW] = {.name = "online at lower rates: throughput over fcfs",
                      .is_least = true,
                      .limit = 0.97},
    [BAR_P99_LOW] = {.name = "online at lower rates: p99 over fcfs",
                     .is_least = false,
                     .limit = 1.05},
    [BAR_KNOWN_BURST] = {.name = "mean latency over fcfs, outputs known, Burst",
                         .is_least = false,
                         .limit = 0.55},
    [BAR_KNOWN] = {.name = "mean latency over fcfs, outputs known, elsewhere",
                   .is_least = false,
                   .limit = 0.75},
    [BAR_UNKNOWN_BURST] = {.name = "mean latency over fcfs, stops unknown, Burst",
                           .is_least = false,
                           .limit = 0.65},
    [BAR_UNKNOWN] = {.name = "mean latency over fcfs, stops unknown, elsewhere",
                     .is_least = false,
                     .limit = 1},
    [BAR_LADDER_ONE] = {.name = "ladder: one token a step, with stops",
                        .is_least = true,
                        .limit = 2.5},
    [BAR_LADDER_THREE] = {.name = "ladder: three tokens a step, with stops",
                          .is_least = true,
                          .limit = 5},
    [BAR_LADDER_THREE_FULL] = {.name = "ladder: three tokens a step, without",
                               .is_least = true,
                               .limit = 3.3},
};

static void judge(int index, double value, const struct scene *scene, double of_saturation)
{
    struct bar *bar = &bars[index];
    bool misses = bar->is_least ? value < bar->limit : value > bar->limit;
    bool is_worst = bar->n == 0 || (bar->is_least ? value < bar->worst : value > bar->worst);
    bar->n++;
    bar->n_missed += misses;
    if (!is_worst) return;
    bar->worst = value;
    int used = snprintf(bar->where, sizeof bar->where, "%s %s %s", scene->profile,
                        scene->workload->name, caches[scene->cache]);
    if (scene->n_requests > 0)
        used += snprintf(bar->where + used, sizeof bar->where - (size_t)used, ", %d requests",
                         scene->n_requests);
    if (of_saturation > 0)
        snprintf(bar->where + used, sizeof bar->where - (size_t)used, ", rate %.2f", of_saturation);
}

/* ---- scenes ---- */

static struct scene scene_of(int device, const struct workload *workload, enum cache_kind cache,
                             enum outputs what)
{
    return (struct scene){.profile = devices[device].profile,
                          .n_rows_max = devices[device].n_rows_max,
                          .workload = workload,
                          .outputs = what,
                          .cache = cache,
                          .delay = 1};
}

static void play_all(struct scene scene, struct score score[POLICIES])
{
    for (int policy = 0; policy < POLICIES; policy++) {
        scene.options.policy = (enum policy)policy;
        score[policy] = scene_play(&scene);
    }
}

/* Every device, workload, cache, and kind of outputs from `first` to `last`. */
static void for_each(enum outputs first, enum outputs last, void (*visit)(struct scene scene))
{
    for (int device = 0; device < DEVICES; device++)
        for (int w = 0; w < WORKLOADS; w++)
            for (int what = (int)first; what <= (int)last; what++)
                for (int cache = CACHE_DUAL; cache <= CACHE_SPARSE; cache++)
                    visit(scene_of(device, &workloads[w], (enum cache_kind)cache,
                                   (enum outputs)what));
}

static bool is_burst(const struct scene *scene)
{
    return scene->workload == &workloads[BURST];
}

/* Requests per second that fcfs finishes when all are there at once. */
static double saturation_of(struct scene scene)
{
    scene.options = (struct planner_options){.policy = POLICY_FCFS};
    scene.rate = 0;
    return scene.workload->n_requests / scene_play(&scene).makespan_s;
}

static void print_scene(const struct scene *scene)
{
    printf("| %s | %s | %s | %s ", scene->profile, scene->workload->name, caches[scene->cache],
           outputs[scene->outputs]);
}

/* static / fcfs / planned */
static void print_three(double a, double b, double c, int digits)
{
    printf("| %.*f / %.*f / %.*f ", digits, a, digits, b, digits, c);
}

static void print_latency(const struct score s[POLICIES])
{
    print_three(s[0].latency.mean_s, s[1].latency.mean_s, s[2].latency.mean_s, 0);
    print_three(s[0].latency.p50_s, s[1].latency.p50_s, s[2].latency.p50_s, 0);
    print_three(s[0].latency.p99_s, s[1].latency.p99_s, s[2].latency.p99_s, 0);
}

/* A heading and the line below it, of the columns "a | b | c". */
static void print_head(const char *title, const char *columns)
{
    printf("\n%s\n\n| %s |\n|", title, columns);
    for (const char *c = columns; c; c = strchr(c + 1, '|'))
        printf("---|");
    printf("\n");
}

/* ---- sections ---- */

static void bench_time(void)
{
    struct scene scene = scene_of(0, &workloads[LIVEBENCH], CACHE_SPARSE, OUTPUTS_FULL);
    scene.options.policy = POLICY_PLANNED;
    print_head(
        "Planning: seconds of one core of this machine.",
        "requests | planning, s | peak memory, MiB | checking, s | iterations | makespan over "
        "the bound with memory");
    for (scene.n_requests = 1000; scene.n_requests <= SCENE_REQUESTS_MAX; scene.n_requests *= 10) {
        struct plan plan;
        struct error err = {0};
        struct plan_bounds bounds;
        struct rusage usage;
        struct arena scratch;
        struct plan_input input = scene_input(&scene, scene.n_rows_max);
        input.keeps_runs = true;
        clock_t start = clock();
        if (!plan_make(&plan, &input, &err)) exit(puts(err.message));
        clock_t made = clock();
        getrusage(RUSAGE_SELF, &usage);
        if (!arena_create(&scratch, (size_t)1 << 34, &err) ||
            !plan_check(&plan, &input, &scratch, &err))
            exit(puts(err.message));
        clock_t end = clock();
        plan_bounds(&bounds, &input);
        printf("| %d | %.2f | %ld | %.2f | %lld | %.3f |\n", scene.n_requests,
               (double)(made - start) / CLOCKS_PER_SEC, usage.ru_maxrss / 1024,
               (double)(end - made) / CLOCKS_PER_SEC, (long long)plan.n_iterations,
               (double)plan.makespan_ns / (double)bounds.memory_ns);
        fflush(stdout);
        arena_destroy(&scratch);
        plan_clear(&plan);
    }
}

static void judge_offline(const struct scene *scene, const struct score s[POLICIES])
{
    bool stops = scene->outputs != OUTPUTS_FULL;
    double better = s[0].makespan_s < s[1].makespan_s ? s[0].makespan_s : s[1].makespan_s;
    double over_static = s[2].tokens_per_s / s[0].tokens_per_s;
    int bar = is_burst(scene) ? BAR_STATIC_BURST : BAR_STATIC;
    for (int i = 0; i < 2; i++)
        if (scene->workload == &azure[i]) bar = BAR_STATIC_AZURE;
    judge(stops ? BAR_BOUND_STOPS : BAR_BOUND, s[2].of_bound_memory, scene, 0);
    judge(stops ? BAR_BETTER_STOPS : BAR_BETTER, s[2].makespan_s / better, scene, 0);
    judge(stops ? bar : BAR_STATIC_FULL, over_static, scene, 0);
}

static void play_offline(struct scene scene)
{
    struct score s[POLICIES];
    play_all(scene, s);
    print_scene(&scene);
    printf("| %d ", scene.n_requests > 0 ? scene.n_requests : scene.workload->n_requests);
    print_three(s[0].tokens_per_s, s[1].tokens_per_s, s[2].tokens_per_s, 0);
    print_three(s[0].positions_per_token, s[1].positions_per_token, s[2].positions_per_token, 1);
    print_latency(s);
    printf("| %.2f | %.3f | %.3f | %.3f | %d of %d |\n", s[2].tokens_per_s / s[0].tokens_per_s,
           s[2].tokens_per_s / s[1].tokens_per_s, s[2].of_bound_memory, s[2].of_bound,
           s[0].options.n_running_max, s[0].options.n_rows_max);
    fflush(stdout);
    judge_offline(&scene, s);
}

static void play_few_and_all(struct scene scene)
{
    scene.n_requests = 200;
    play_offline(scene);
    scene.n_requests = 0;
    play_offline(scene);
}

static void bench_offline(void)
{
    print_head("All at once, objective makespan: static / fcfs / planned. Outputs of 256, or that "
               "stop where nobody foresees it.",
               "device | workload | cache | outputs | requests | tokens/s | PPT | mean, s | p50, s "
               "| p99, s | planned over static | over fcfs | makespan over the bound with memory | "
               "over the plain bound | static's batch (0: all that fit), of rows");
    for_each(OUTPUTS_FULL, OUTPUTS_STOP, play_few_and_all);
    for (int i = 0; i < 2 * DEVICES && azure[0].n_requests > 0; i++)
        for (int cache = CACHE_DUAL; cache <= CACHE_SPARSE; cache++)
            play_offline(scene_of(i / 2, &azure[i % 2], (enum cache_kind)cache, OUTPUTS_STOP));
}

static void play_online(struct scene scene)
{
    const double shares[] = {0.5, 0.8, 1, 1.2, 1.5};
    double saturation = saturation_of(scene);
    scene.options.objective = OBJECTIVE_TAIL;
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        struct score s[POLICIES];
        bool is_last = i + 1 == sizeof shares / sizeof *shares;
        scene.rate = shares[i] * saturation;
        play_all(scene, s);
        double rate = s[2].tokens_per_s / s[1].tokens_per_s;
        double p99 = s[2].latency.p99_s / s[1].latency.p99_s;
        print_scene(&scene);
        printf("| %.1f | %.2f ", shares[i], scene.rate);
        print_three(s[0].tokens_per_s, s[1].tokens_per_s, s[2].tokens_per_s, 0);
        print_latency(s);
        printf("| %.3f | %.3f |\n", rate, p99);
        fflush(stdout);
        judge(is_last ? BAR_RATE : BAR_RATE_LOW, rate, &scene, shares[i]);
        judge(is_last ? BAR_P99 : BAR_P99_LOW, p99, &scene, shares[i]);
    }
}

static void bench_online(void)
{
    print_head(
        "Rates of arrival that nobody foresees, 1,000 requests, objective tail: static / "
        "fcfs / planned.",
        "device | workload | cache | outputs | of saturation | requests/s | tokens/s | mean, "
        "s | p50, s | p99, s | throughput over fcfs | p99 over fcfs");
    for_each(OUTPUTS_FULL, OUTPUTS_STOP, play_online);
}

static void play_mean(struct scene scene)
{
    bool knows = scene.outputs == OUTPUTS_LENGTHS;
    scene.rate = 1.5 * saturation_of(scene);
    scene.options.objective = OBJECTIVE_MEAN;
    scene.options.policy = POLICY_FCFS;
    struct score fcfs = scene_play(&scene);
    scene.options.policy = POLICY_PLANNED;
    struct score ours = scene_play(&scene);
    double ratio = ours.latency.mean_s / fcfs.latency.mean_s;
    print_scene(&scene);
    printf("| %.1f | %.1f | %.2f | %.3f | %d |\n", fcfs.latency.mean_s, ours.latency.mean_s, ratio,
           ours.tokens_per_s / fcfs.tokens_per_s, ours.options.n_rows_target);
    fflush(stdout);
    if (is_burst(&scene)) judge(knows ? BAR_KNOWN_BURST : BAR_UNKNOWN_BURST, ratio, &scene, 0);
    else judge(knows ? BAR_KNOWN : BAR_UNKNOWN, ratio, &scene, 0);
}

static void bench_mean(void)
{
    print_head(
        "Objective mean, arrivals at 1.5 x saturation that nobody foresees, 1,000 requests.",
        "device | workload | cache | outputs | fcfs, mean s | planned, mean s | planned over "
        "fcfs | throughput over fcfs | rows aimed at");
    for_each(OUTPUTS_STOP, OUTPUTS_LENGTHS, play_mean);
}

/* ---- the ladder ---- */

/* What tiny-llada commits a step at threshold 0.9 up to the stop, on its own tasks (tools/eval). */
#define MEASURED_TOKENS_PER_STEP 4.7

static const struct rung {
    const char *name;
    enum policy policy;
    int32_t delay, prompt_refresh_every, suffix_window;
    bool stops;
    double tokens_per_step;
    int bar; /* -1: none */
} rungs[] = {
    {"the paper's: fcfs", POLICY_FCFS, 1, 1, 0, false, 1, -1},
    {"alone: planned", POLICY_PLANNED, 1, 1, 0, false, 1, -1},
    {"alone: delay 0", POLICY_FCFS, 0, 1, 0, false, 1, -1},
    {"alone: prompt every 4th block", POLICY_FCFS, 1, 4, 0, false, 1, -1},
    {"alone: suffix window 1", POLICY_FCFS, 1, 1, 1, false, 1, -1},
    {"alone: stops", POLICY_FCFS, 1, 1, 0, true, 1, -1},
    {"alone: three tokens a step", POLICY_FCFS, 1, 1, 0, false, 3, -1},
    {"planned, delay 0", POLICY_PLANNED, 0, 1, 0, false, 1, -1},
    {"and prompt every 4th block", POLICY_PLANNED, 0, 4, 0, false, 1, -1},
    {"and suffix window 1", POLICY_PLANNED, 0, 4, 1, false, 1, -1},
    {"and stops", POLICY_PLANNED, 0, 4, 1, true, 1, BAR_LADDER_ONE},
    {"and three tokens a step: all", POLICY_PLANNED, 0, 4, 1, true, 3, BAR_LADDER_THREE},
    {"all but stops", POLICY_PLANNED, 0, 4, 1, false, 3, BAR_LADDER_THREE_FULL},
    {"all, 4.7 tokens a step", POLICY_PLANNED, 0, 4, 1, true, MEASURED_TOKENS_PER_STEP, -1},
    {"all but stops, 4.7 a step", POLICY_PLANNED, 0, 4, 1, false, MEASURED_TOKENS_PER_STEP, -1},
};

static struct score climb(int device, int workload, const struct rung *rung)
{
    struct scene scene = scene_of(device, &workloads[workload], CACHE_SPARSE,
                                  rung->stops ? OUTPUTS_STOP : OUTPUTS_FULL);
    scene.options.policy = rung->policy;
    scene.delay = rung->delay;
    scene.prompt_refresh_every = rung->prompt_refresh_every;
    scene.suffix_window = rung->suffix_window;
    scene.tokens_per_step = rung->tokens_per_step;
    return scene_play(&scene);
}

static void bench_ladder(void)
{
    double paper[DEVICES][WORKLOADS] = {0};
    print_head(
        "Tokens up to the stop per second, over the paper's configuration (sparse 0.5, delay "
        "1, no stop), all at once, 1,000 requests: LiveBench / Burst / OSC; positions "
        "computed per token up to the stop.",
        "setting | rtx4090 | l40s | h200 | PPT");
    for (size_t i = 0; i < sizeof rungs / sizeof *rungs; i++) {
        double ppt[WORKLOADS];
        printf("| %s ", rungs[i].name);
        for (int device = 0; device < DEVICES; device++) {
            double ratio[WORKLOADS];
            for (int w = 0; w < WORKLOADS; w++) {
                struct scene scene = scene_of(device, &workloads[w], CACHE_SPARSE, OUTPUTS_FULL);
                struct score score = climb(device, w, &rungs[i]);
                if (i == 0) paper[device][w] = score.useful_per_s;
                ratio[w] = score.useful_per_s / paper[device][w];
                ppt[w] = score.positions_per_token * score.tokens_per_s / score.useful_per_s;
                if (rungs[i].bar >= 0) judge(rungs[i].bar, ratio[w], &scene, 0);
            }
            print_three(ratio[0], ratio[1], ratio[2], 2);
        }
        print_three(ppt[0], ppt[1], ppt[2], 1);
        printf("|\n");
        fflush(stdout);
    }
}

/* ---- what the results hang on ---- */

static void bench_knee(void)
{
    const double knees[] = {64, 256, 512};
    print_head("Half of the best rate is reached at so many rows (a smooth curve, not the "
               "profile's); all at once, 400 requests, dual: LiveBench / Burst / OSC.",
               "device | half at | outputs | planned over static | over fcfs | makespan over the "
               "bound with memory");
    for (int i = 0; i < DEVICES * 6; i++) {
        struct score s[WORKLOADS][POLICIES];
        int device = i / 6, what = i % 6 / 3;
        for (int w = 0; w < WORKLOADS; w++) {
            struct scene scene = scene_of(device, &workloads[w], CACHE_DUAL, (enum outputs)what);
            scene.n_requests = 400;
            scene.half_rows = knees[i % 3];
            play_all(scene, s[w]);
        }
        printf("| %s | %.0f | %s ", devices[device].profile, knees[i % 3], outputs[what]);
        print_three(s[0][2].tokens_per_s / s[0][0].tokens_per_s,
                    s[1][2].tokens_per_s / s[1][0].tokens_per_s,
                    s[2][2].tokens_per_s / s[2][0].tokens_per_s, 2);
        print_three(s[0][2].tokens_per_s / s[0][1].tokens_per_s,
                    s[1][2].tokens_per_s / s[1][1].tokens_per_s,
                    s[2][2].tokens_per_s / s[2][1].tokens_per_s, 3);
        print_three(s[0][2].of_bound_memory, s[1][2].of_bound_memory, s[2][2].of_bound_memory, 3);
        printf("|\n");
        fflush(stdout);
    }
}

/* What is off. */
static const struct ablation {
    const char *name;
    bool is_alone, is_monolithic, is_wide;
    enum policy policy;
    struct planner_options options;
} ablations[] = {
    {.name = "as it is", .policy = POLICY_PLANNED},
    {.name = "one candidate", .is_alone = true, .policy = POLICY_PLANNED},
    {.name = "and no parking",
     .is_alone = true,
     .policy = POLICY_PLANNED,
     .options = {.no_parking = true}},
    {.name = "and no backfill",
     .is_alone = true,
     .policy = POLICY_PLANNED,
     .options = {.no_backfill = true}},
    {.name = "and no promises",
     .is_alone = true,
     .policy = POLICY_PLANNED,
     .options = {.no_promises = true}},
    {.name = "and no staggering",
     .is_alone = true,
     .is_wide = true,
     .policy = POLICY_PLANNED,
     .options = {.no_staggering = true}},
    {.name = "and none of the four",
     .is_alone = true,
     .is_wide = true,
     .policy = POLICY_PLANNED,
     .options =
         {.no_parking = true, .no_backfill = true, .no_promises = true, .no_staggering = true}},
    {.name = "rows not aimed at", .is_wide = true, .policy = POLICY_PLANNED},
    {.name = "monolithic logits", .is_monolithic = true, .policy = POLICY_PLANNED},
    {.name = "fcfs", .policy = POLICY_FCFS},
    {.name = "fcfs, monolithic logits", .is_monolithic = true, .policy = POLICY_FCFS},
    {.name = "lockstep and padding: static", .policy = POLICY_STATIC},
};

static struct score ablate(struct scene scene, const struct ablation *ablation)
{
    bool is_mean = scene.rate > 0;
    scene.options = ablation->options;
    scene.options.policy = ablation->policy;
    scene.options.objective = is_mean ? OBJECTIVE_MEAN : OBJECTIVE_MAKESPAN;
    scene.options.n_rows_target = ablation->is_wide ? scene.n_rows_max : 0;
    /* Else the best candidate may be one that has nothing to switch off; online there is but one.
     */
    scene.has_one_candidate = ablation->is_alone && !is_mean;
    scene.is_monolithic = ablation->is_monolithic;
    return scene_play(&scene);
}

static void bench_ablation(void)
{
    static const struct {
        int device;
        enum cache_kind cache;
    } columns[] = {{0, CACHE_DUAL}, {0, CACHE_SPARSE}, {1, CACHE_DUAL}, {2, CACHE_DUAL}};
    print_head("Each mechanism off in turn, 1,000 requests of LiveBench / Burst that stop. Left: "
               "throughput, all at once, over what it is; right: mean latency under the objective "
               "mean, arrivals at 1.5 x saturation, over what it is.",
               "off | rtx4090 dual | rtx4090 sparse | l40s dual | h200 dual | rtx4090 dual | "
               "rtx4090 sparse | l40s dual | h200 dual");
    double whole[2][4][2] = {0}, saturation[4][2] = {0};
    for (size_t i = 0; i < sizeof ablations / sizeof *ablations; i++) {
        printf("| %s ", ablations[i].name);
        for (int column = 0; column < 8; column++) {
            int is_mean = column / 4, c = column % 4;
            for (int w = 0; w < 2; w++) {
                struct scene scene =
                    scene_of(columns[c].device, &workloads[w], columns[c].cache, OUTPUTS_STOP);
                if (i == 0 && !is_mean) saturation[c][w] = saturation_of(scene);
                if (is_mean) scene.rate = 1.5 * saturation[c][w];
                struct score score = ablate(scene, &ablations[i]);
                double value = is_mean ? score.latency.mean_s : score.tokens_per_s;
                if (i == 0) whole[is_mean][c][w] = value;
                printf("%s%.3f ", w == 0 ? "| " : "/ ", value / whole[is_mean][c][w]);
            }
        }
        printf("|\n");
        fflush(stdout);
    }
}

static void bench_published(void)
{
    /* arXiv 2512.17077v2, read by others; "-": not reached. */
    static const struct {
        int device, workload;
        double rate;
        const char *tokens_per_s, *mean_s;
    } rows[] = {{0, BURST, 0.5, "76.6 (near saturation)", "1,370"},
                {1, BURST, 1, "106.95", "1,551"},
                {1, LIVEBENCH, 1, "90.17", "-"},
                {1, OSC, 1, "94.32", "1,850"}};
    print_head("The paper's figures for dLLM-Serve, on its own lengths, number of requests and "
               "engine, beside ours: sparse, outputs of 256, 1,000 requests, fcfs / planned "
               "(objective mean).",
               "device | workload | requests/s | published tokens/s | ours | ours, all at once | "
               "published mean, s | ours");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct scene scene =
            scene_of(rows[i].device, &workloads[rows[i].workload], CACHE_SPARSE, OUTPUTS_FULL);
        struct score s[2], all[POLICIES];
        play_all(scene, all);
        scene.rate = rows[i].rate;
        scene.options.objective = OBJECTIVE_MEAN;
        for (int k = 0; k < 2; k++) {
            scene.options.policy = k == 0 ? POLICY_FCFS : POLICY_PLANNED;
            s[k] = scene_play(&scene);
        }
        printf("| %s | %s | %.1f | %s | %.0f / %.0f | %.0f / %.0f | %s | %.0f / %.0f |\n",
               scene.profile, scene.workload->name, scene.rate, rows[i].tokens_per_s,
               s[0].tokens_per_s, s[1].tokens_per_s, all[1].tokens_per_s, all[2].tokens_per_s,
               rows[i].mean_s, s[0].latency.mean_s, s[1].latency.mean_s);
    }
}

static void print_bars(void)
{
    print_head("Bars.", "bar | asked | worst | where | missed in");
    for (size_t i = 0; i < sizeof bars / sizeof *bars; i++)
        if (bars[i].n > 0)
            printf("| %s | %s %.2f | %.3f | %s | %d of %d |\n", bars[i].name,
                   bars[i].is_least ? ">=" : "<=", bars[i].limit, bars[i].worst, bars[i].where,
                   bars[i].n_missed, bars[i].n);
}

int main(int argc, char **argv)
{
    static const struct section {
        const char *name;
        void (*run)(void);
    } sections[] = {
        {"time", bench_time},         {"offline", bench_offline},     {"online", bench_online},
        {"mean", bench_mean},         {"ladder", bench_ladder},       {"knee", bench_knee},
        {"ablation", bench_ablation}, {"published", bench_published}, {"bars", print_bars}};
    static const char *const names[WORKLOADS] = {"livebench", "burst", "osc"};
    const char *path = "../shared/data/traces/AzureLLMInferenceTrace_conv.csv";
    for (int i = 0; i < WORKLOADS; i++) {
        char trace[64];
        snprintf(trace, sizeof trace, "traces/%s.jsonl", names[i]);
        if (!workload_read(&workloads[i], names[i], 256, trace)) exit(puts("no traces/ here"));
    }
    if (argc > 1 && strchr(argv[argc - 1], '/')) path = argv[--argc];
    workload_read(&azure[0], "azure-256", 256, path);
    workload_read(&azure[1], "azure-512", 512, path);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted = wanted || strcmp(argv[a], sections[i].name) == 0;
        if (wanted) sections[i].run();
    }
    return 0;
}
