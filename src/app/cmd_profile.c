/* dllm-batch profile: runs requests of chosen shapes through the whole engine, times each
 * iteration, and fits the cost model to them. What is measured is what a run does: planner,
 * forward, score and commit.
 */
#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"
#include "app/figures.h"
#include "app/fit.h"
#include "app/profile.h"
#include "app/settings.h"
#include "app/sink.h"
#include "base/clock.h"
#include "engine/engine.h"

#define RUN_BYTES_MAX  ((size_t)64 << 30) /* of address space */
#define BUDGET_NS      UINT64_C(40000000000)
#define POINT_NS       UINT64_C(1000000000) /* a point takes no more turns after this */
#define WEIGHT_ELEMENT 2.0                  /* bytes that plans assume for a weight: bf16 */

enum { REQUESTS_MAX = 256, POINTS_MAX = 200, TURNS_MAX = 9, STEPS = 2, WINDOW = 16 };

/* Requests that are all alike: every one takes STEPS steps of one block, in the same iterations. */
struct point {
    int32_t n_requests, n_prompt, n_generate;
    enum cache_kind cache;
    bool is_held_out;
    int32_t n_turns;
    uint64_t spent_ns;
    struct iteration_load loads[STEPS];
    double times_ns[STEPS][TURNS_MAX];
};

struct profiling {
    const struct options *options;
    struct arena arena;
    struct model_config config;
    struct engine engine;
    struct cost_shape shape;
    int32_t *prompt_ids; /* [n_positions] */
    uint64_t begin_ns;   /* of all measuring */
    double ns_per_row;   /* of the last point: a guess for the next */
    int32_t n_points;
    struct point points[POINTS_MAX];
    struct point *point; /* whose turn it is */
    int32_t step;        /* of it */
    int32_t n_samples;
    struct fit_sample samples[POINTS_MAX * STEPS];
    struct cost_profile profile;
};

/* ---- one point ---- */

static bool handle_iteration(void *context, const struct executor_iteration *iteration)
{
    struct profiling *profiling = context;
    struct point *point = profiling->point;
    int32_t step = profiling->step++;
    assert(point->n_turns < TURNS_MAX);
    if (step < STEPS) {
        point->loads[step] = iteration->load;
        point->times_ns[step][point->n_turns] = (double)(iteration->end_ns - iteration->begin_ns);
    }
    return true;
}

static bool handle_answer(void *context, const struct answer *answer, struct error *err)
{
    assert(context != NULL);
    if (answer->failure == NULL) return true;
    return error_set(err, ERROR_FORMAT, "the model cannot be measured: %s", answer->failure);
}

static struct decode_settings settings_of(const struct point *point)
{
    assert(point->n_generate >= STEPS);
    return (struct decode_settings){.gen_length = point->n_generate,
                                    .block_length = point->n_generate,
                                    .steps = STEPS,
                                    .remasking = REMASKING_LOW_CONFIDENCE,
                                    .top_p = 1,
                                    .cache = point->cache,
                                    .retention = 1,
                                    .prompt_refresh_every = 1};
}

/* One run of the point's requests. */
static bool take_turn(struct profiling *profiling, struct point *point, struct error *err)
{
    struct request requests[REQUESTS_MAX];
    const struct executor_events events = {
        .context = profiling, .answered = handle_answer, .iterated = handle_iteration};
    uint64_t begin_ns = clock_now_ns();
    assert(point->n_requests <= REQUESTS_MAX);
    for (int32_t i = 0; i < point->n_requests; i++)
        requests[i] = (struct request){.index = i,
                                       .id = "",
                                       .id_hash = (uint64_t)i,
                                       .n_prompt = point->n_prompt,
                                       .prompt_ids = profiling->prompt_ids,
                                       .decode = settings_of(point)};
    if (!executor_check(profiling->engine.executor, &requests[0], err)) return false;
    profiling->point = point;
    profiling->step = 0;
    if (!executor_run(profiling->engine.executor, requests, point->n_requests, &events, err))
        return false;
    uint64_t spent_ns = clock_now_ns() - begin_ns;
    point->n_turns++;
    point->spent_ns += spent_ns;
    profiling->ns_per_row = (double)spent_ns / (double)point->loads[0].n_rows;
    return true;
}

/* All points in turns, so that what disturbs the machine for a while disturbs none of them in all
 * its turns. */
static bool measure_all(struct profiling *profiling, struct error *err)
{
    assert(profiling->n_points > 0);
    profiling->begin_ns = clock_now_ns();
    for (int turn = 0; turn < TURNS_MAX; turn++) {
        for (int32_t i = 0; i < profiling->n_points; i++) {
            struct point *point = &profiling->points[i];
            double n_rows = point->n_requests * (point->n_prompt + point->n_generate);
            double left_ns = (double)BUDGET_NS - (double)(clock_now_ns() - profiling->begin_ns);
            bool is_done = point->n_turns < turn || point->spent_ns > POINT_NS;
            if (is_done || profiling->ns_per_row * n_rows > left_ns) continue;
            if (!take_turn(profiling, point, err)) return false;
        }
    }
    return true;
}

/* Undisturbed times become samples. */
static void take_samples(struct profiling *profiling)
{
    for (int32_t i = 0; i < profiling->n_points; i++) {
        struct point *point = &profiling->points[i];
        for (int step = 0; step < STEPS && point->n_turns > 0; step++) {
            struct figures_spread spread;
            figures_spread(&spread, point->times_ns[step], point->n_turns);
            profiling->samples[profiling->n_samples++] =
                (struct fit_sample){.load = point->loads[step],
                                    .measured_ns = point->times_ns[step][(point->n_turns - 1) / 4],
                                    .is_held_out = point->is_held_out};
        }
    }
}

/* ---- which points ---- */

/* Only if its requests fit one iteration. */
static void add_point(struct profiling *profiling, struct point point)
{
    int32_t n_canvas = point.n_prompt + point.n_generate;
    const struct planner_options *room = &profiling->engine.limits.planning;
    assert(n_canvas > 0);
    bool is_kept = point.cache == CACHE_NONE || point.n_requests * point.n_prompt <= room->n_slots;
    if (is_kept && point.n_requests <= REQUESTS_MAX &&
        point.n_requests * n_canvas <= room->n_rows_max &&
        n_canvas <= profiling->config.n_positions && profiling->n_points < POINTS_MAX)
        profiling->points[profiling->n_points++] = point;
}

/* Whole canvases of at most `n_canvas` cells that together have about `n_rows` rows. */
static void add_full(struct profiling *profiling, int32_t n_rows, int32_t n_canvas)
{
    int32_t n_requests = (n_rows + n_canvas - 1) / n_canvas, length = n_rows / n_requests;
    int32_t n_generate = length / 2 < 2 * WINDOW ? length / 2 : 2 * WINDOW;
    n_generate -= n_generate % STEPS;
    assert(n_rows >= 4);
    /* Rates are fitted at powers of two; what lies between shows how well they interpolate. */
    bool is_held_out = (n_rows & (n_rows - 1)) != 0;
    add_point(profiling, (struct point){.n_requests = n_requests,
                                        .n_prompt = length - n_generate,
                                        .n_generate = n_generate,
                                        .cache = CACHE_NONE,
                                        .is_held_out = is_held_out});
}

/* Few rows, then many; canvases short and long; windows that see a cache. */
static void list_points(struct profiling *profiling)
{
    static const int32_t canvases[] = {48, 320, 1024};
    static const int32_t prompts[] = {48, 112, 496, 1008};
    int32_t n_rows_max = profiling->engine.limits.planning.n_rows_max;
    assert(n_rows_max > 4);
    for (int32_t n_rows = 4; n_rows <= n_rows_max; n_rows *= 2) {
        for (size_t i = 0; i < sizeof canvases / sizeof *canvases; i++) {
            if (i > 0 && n_rows <= canvases[i - 1]) continue;
            add_full(profiling, n_rows, canvases[i]);
            add_full(profiling, n_rows + n_rows / 2, canvases[i]);
        }
    }
    for (int32_t n = 1; n <= REQUESTS_MAX; n *= 2)
        for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++)
            add_point(profiling, (struct point){.n_requests = n,
                                                .n_prompt = prompts[i],
                                                .n_generate = WINDOW,
                                                .cache = CACHE_DUAL,
                                                .is_held_out = i == 1});
}

/* ---- the file ---- */

static bool is_on_gpu(const struct profiling *profiling)
{
    assert(profiling->engine.backend.ops != NULL);
    return strcmp(profiling->engine.backend.ops->name, "cuda") == 0;
}

static void add_field(json_t *root, const char *key, json_t *value, const char *source)
{
    assert(source[0] != '\0');
    json_object_set_new(root, key, json_pack("{s:o, s:s}", "value", value, "source", source));
}

/* "model name" of the first processor; `text` [COST_NAME_MAX]. */
static const char *name_processor(char *text)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    strcpy(text, "unknown processor");
    assert(text[0] != '\0');
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        snprintf(text, COST_NAME_MAX, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file != NULL) fclose(file);
    return text;
}

static json_t *make_samples(const struct profiling *profiling, const struct cost_model *model)
{
    json_t *list = json_array();
    assert(profiling->n_samples > 0);
    for (int32_t i = 0; i < profiling->n_samples; i++) {
        const struct fit_sample *sample = &profiling->samples[i];
        const struct iteration_load *load = &sample->load;
        json_array_append_new(
            list, json_pack("[I, I, I, I, I, I, b]", (json_int_t)load->n_rows,
                            (json_int_t)load->n_picks, (json_int_t)load->row_keys,
                            (json_int_t)load->cached_rows, (json_int_t)sample->measured_ns,
                            (json_int_t)cost_iteration_ns(model, load), sample->is_held_out));
    }
    return list;
}

static json_t *make_errors(const struct fit_errors *errors)
{
    assert(errors->n >= 0);
    return json_pack("{s:i, s:f, s:f}", "samples", (int)errors->n, "median_error", errors->median,
                     "largest_error", errors->most);
}

static json_t *make_file(const struct profiling *profiling, const struct fit_errors errors[2])
{
    const struct cost_profile *profile = &profiling->profile;
    const char *fitted = "fitted to the samples below";
    struct cost_model model;
    char processor[COST_NAME_MAX];
    json_t *rates = json_array(), *root = json_object();
    cost_init(&model, profile, &profiling->shape);
    assert(profile->n_rates > 0);
    for (int32_t i = 0; i < profile->n_rates; i++)
        json_array_append_new(rates, json_pack("{s:i, s:f}", "rows", (int)profile->rates[i].n_rows,
                                               "flops_per_s", profile->rates[i].flops_per_s));
    json_object_update_new(
        root, json_pack("{s:s, s:s, s:b, s:s, s:s, s:{s:s, s:s}}", "name", profile->name, "device",
                        is_on_gpu(profiling) ? profiling->engine.backend.machine
                                             : name_processor(processor),
                        "measured", 1, "model", profiling->options->model, "backend",
                        profiling->engine.backend.ops->name, "versions", "dllm-batch",
                        DLLM_BATCH_VERSION, "compiler", __VERSION__));
    add_field(root, "base_ns", json_real(profile->base_ns), fitted);
    add_field(root, "bytes_per_s", json_real(profile->bytes_per_s), fitted);
    add_field(root, "attention_flops_per_s", json_real(profile->attention_flops_per_s), fitted);
    add_field(root, "kv_element_bytes", json_real(profile->kv_element_bytes),
              "the backend's cache");
    add_field(root, "memory_bytes", json_integer((json_int_t)profile->memory_bytes),
              is_on_gpu(profiling) ? "free memory of the device" : "memory of the machine");
    add_field(root, "rates", rates, fitted);
    json_object_set_new(root, "fit", make_errors(&errors[0]));
    json_object_set_new(root, "held_out", make_errors(&errors[1]));
    json_object_set_new(root, "sample_columns",
                        json_pack("[s, s, s, s, s, s, s]", "rows", "picks", "row_keys",
                                  "cached_rows", "measured_ns", "predicted_ns", "held_out"));
    json_object_set_new(root, "samples", make_samples(profiling, &model));
    return root;
}

/* Fields a line each, lists of lists closed up: for people to read. */
static bool write_file(const struct profiling *profiling, struct error *err)
{
    struct cost_model model;
    struct sink *sink;
    const char *path = profiling->options->operand != NULL ? profiling->options->operand : "-";
    cost_init(&model, &profiling->profile, &profiling->shape);
    const struct fit_errors errors[2] = {
        fit_errors(&model, profiling->samples, profiling->n_samples, false),
        fit_errors(&model, profiling->samples, profiling->n_samples, true)};
    assert(errors[0].n > 0);
    if (!sink_open(&sink, path, profiling->options->force, err)) return false;
    json_t *root = make_file(profiling, errors);
    const char *key;
    json_t *value;
    const char *before = "{\n  ";
    json_object_foreach(root, key, value)
    {
        fprintf(sink_file(sink), "%s\"%s\": ", before, key);
        json_dumpf(value, sink_file(sink), JSON_ENCODE_ANY | JSON_REAL_PRECISION(5));
        before = ",\n  ";
    }
    fputs("\n}\n", sink_file(sink));
    json_decref(root);
    if (!sink_close(sink, err)) return false;
    fprintf(stderr,
            "dllm-batch: %" PRId32 " kinds of iterations fitted, off by %.1f %% (median); %" PRId32
            " others predicted, off by %.1f %%, at most %.1f %%\n",
            errors[0].n, 100 * errors[0].median, errors[1].n, 100 * errors[1].median,
            100 * errors[1].most);
    return true;
}

/* ---- the command ---- */

static bool open_engine(struct profiling *profiling, struct error *err)
{
    const struct options *options = profiling->options;
    assert(options->model != NULL);
    struct engine_options engine_options;
    settings_engine(&engine_options, options);
    engine_options.n_requests_max = REQUESTS_MAX;
    engine_options.policy = POLICY_FCFS;
    if (!config_read(&profiling->config, options->model, &profiling->arena, err)) return false;
    return engine_open(&profiling->engine, &engine_options, &profiling->config, &profiling->arena,
                       err);
}

static bool profile_all(struct profiling *profiling, struct error *err)
{
    if (!arena_create(&profiling->arena, RUN_BYTES_MAX, err)) return false;
    if (!open_engine(profiling, err)) return false;
    const struct model_config *config = &profiling->config;
    struct cost_profile *profile = &profiling->profile;
    double slot_numbers = 2.0 * config->n_layers * config->n_kv_heads * config->head_dim;
    assert(slot_numbers > 0);
    profiling->prompt_ids =
        arena_push(&profiling->arena, (size_t)config->n_positions, sizeof *profiling->prompt_ids);
    for (int32_t i = 0; i < config->n_positions; i++)
        profiling->prompt_ids[i] = config->mask_id > 0 ? i * 7 % config->mask_id : 1;
    snprintf(profile->name, sizeof profile->name, "%s", profiling->engine.backend.ops->name);
    profile->is_measured = true;
    /* Until they are fitted: cost_init accepts no zeros. */
    profile->bytes_per_s = profile->attention_flops_per_s = 1;
    profile->n_rates = 1;
    profile->rates[0] = (struct cost_rate){.n_rows = 1, .flops_per_s = 1};
    profile->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (is_on_gpu(profiling)) /* what was free when the engine opened */
        profile->memory_bytes =
            backend_free_bytes(&profiling->engine.backend) + profiling->engine.memory.total_bytes;
    profile->kv_element_bytes = (double)profiling->engine.memory.slot_bytes / slot_numbers;
    profiling->shape = profile_shape(config, WEIGHT_ELEMENT, profile->kv_element_bytes);
    list_points(profiling);
    if (!measure_all(profiling, err)) return false;
    take_samples(profiling);
    if (profiling->n_samples < 2 * STEPS)
        return error_set(err, ERROR_UNAVAILABLE,
                         "no iteration of '%s' is short enough to be measured in %d s",
                         profiling->options->model, (int)(BUDGET_NS / 1000000000));
    fit_profile(profile, &profiling->shape, profiling->samples, profiling->n_samples);
    return write_file(profiling, err);
}

bool cmd_profile(const struct options *options, int *status, struct error *err)
{
    assert(status != NULL);
    struct profiling *profiling = calloc(1, sizeof *profiling);
    if (profiling == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory");
    profiling->options = options;
    bool is_ok = profile_all(profiling, err);
    engine_close(&profiling->engine);
    arena_destroy(&profiling->arena);
    free(profiling);
    return is_ok;
}
