/* A scene: LLaDA-8B on a device, a workload, decode settings, arrivals; and what a policy makes of
 * it on the virtual clock. Devices, memory and plans are the program's own (app/planning.h). */
#ifndef TOOLS_BENCH_SCENE_H
#define TOOLS_BENCH_SCENE_H

#include <stdbool.h>
#include <stdint.h>

#include "plan/plan.h"

#define WORKLOAD_ROWS_MAX  2000
#define SCENE_REQUESTS_MAX 100000

/* A trace: lengths, and arrivals that a scene stretches. */
struct workload {
    const char *name;
    int32_t n_output_max;          /* the gen_length of a request */
    int32_t n_requests, n_skipped; /* skipped: too long for the model's canvas */
    int32_t n_prompt[WORKLOAD_ROWS_MAX], n_output[WORKLOAD_ROWS_MAX];
    uint64_t stamp_ns[WORKLOAD_ROWS_MAX];
};

/* Reads at most WORKLOAD_ROWS_MAX rows whose prompt leaves room for n_output_max tokens, at which
 * outputs are cut. False: no such file. Ends the program at a row that is no trace's. */
bool workload_read(struct workload *workload, const char *name, int32_t n_output_max,
                   const char *path);

enum outputs {
    OUTPUTS_FULL,    /* as many tokens as any, nothing stops */
    OUTPUTS_STOP,    /* as many are asked for, each output stops where the trace says */
    OUTPUTS_LENGTHS, /* what the trace says is asked for, in whole blocks */
};

struct scene {
    const char *profile;
    int32_t n_rows_max;
    double half_rows; /* half of the best rate at so many rows; 0: the profile's own curve */
    bool is_monolithic;
    const struct workload *workload;
    int32_t n_requests; /* the first of the workload, again and again; 0: each once */
    enum outputs outputs;
    enum cache_kind cache;
    int32_t delay, prompt_refresh_every, suffix_window;
    double tokens_per_step; /* above 1: with a threshold */
    double rate;            /* arrivals per second, which no planner foresees; 0: all at once */
    /* policy, objective, and mechanisms that are off */
    struct planner_options options;
    bool has_one_candidate; /* plan_make, not plan_make_best */
};

struct score {
    double tokens_per_s;        /* all that were asked for, up to a stop that counts */
    double useful_per_s;        /* up to where the trace says that an output stops */
    double positions_per_token; /* of tokens_per_s */
    double makespan_s;          /* and as a multiple of the lower bounds, all at once: */
    double of_bound_memory, of_bound;
    struct plan_latency latency;
    struct planner_options options; /* of the plan that was chosen */
};

/* Static gets its best batch and its best rows of an iteration, all in hindsight. */
struct score scene_play(const struct scene *scene);

/* What a plan of the scene is made of, for `n_rows_max`; borrowed until the next call. */
struct plan_input scene_input(const struct scene *scene, int32_t n_rows_max);

#endif
