/* Values of an input line checked against options.def, and the layers merged into one struct
 * decode_settings. Only what concerns several settings at once is written out here. */
#include "app/settings.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/describe.h"
#include "plan/phases.h"

enum { GEN_LENGTH_DEFAULT = 128, BLOCK_LENGTH_DEFAULT = 32 };

/* With the dual cache the fewest positions per token within a point of plain decoding in accuracy
 * (BENCHMARKS.md), where LLaDA's rules decode block by block; Dream's rules and infill, for which
 * nothing was measured, decode as published. Two blocks of 32 are about what DPad keeps of the
 * suffix (arXiv 2508.14148); four are within dLLM-Cache's prompt interval (2506.06295). */
enum { PROMPT_REFRESH_DEFAULT = 4, SUFFIX_WINDOW_DEFAULT = 2 };
static const double THRESHOLD_DEFAULT = 0.9;

static const char *const remasking_names[REMASKING_COUNT] = {
    [REMASKING_LOW_CONFIDENCE] = "low_confidence",
    [REMASKING_RANDOM] = "random",
    [REMASKING_ORIGIN] = "origin",
    [REMASKING_MASKGIT_PLUS] = "maskgit_plus",
    [REMASKING_TOPK_MARGIN] = "topk_margin",
    [REMASKING_ENTROPY] = "entropy",
};

const char *settings_remasking_name(enum remasking remasking)
{
    assert((unsigned)remasking < REMASKING_COUNT);
    return remasking_names[remasking];
}

/* ---- values of a line ---- */

/* "is 3, must be <wish>" for every type. */
static bool refuse(const char *key, const json_t *value, const char *wish, struct error *err)
{
    assert(wish[0] != '\0');
    char text[DESCRIBE_BYTES_MAX];
    return error_set(err, ERROR_FORMAT, "%s is %s, must be %s", key, describe_json(value, text),
                     wish);
}

static bool read_flag(bool *field, const char *key, const json_t *value, struct error *err)
{
    assert(field != NULL);
    if (!json_is_boolean(value)) return refuse(key, value, "true or false", err);
    *field = json_is_true(value);
    return true;
}

static bool read_count(const struct option_info *info, int32_t *field, const char *key,
                       const json_t *value, struct error *err)
{
    assert(info->max <= INT32_MAX);
    json_int_t number = json_integer_value(value);
    bool is_valid = json_is_integer(value) && number >= (json_int_t)info->min &&
                    number <= (json_int_t)info->max;
    char wish[96];
    snprintf(wish, sizeof wish, "an integer from %.0f to %.0f", info->min, info->max);
    if (!is_valid) return refuse(key, value, wish, err);
    *field = (int32_t)number;
    return true;
}

/* Clients send seeds as signed 64-bit numbers; every one of them is a seed. */
static bool read_seed(uint64_t *field, const char *key, const json_t *value, struct error *err)
{
    assert(field != NULL);
    if (!json_is_integer(value)) return refuse(key, value, "an integer of 64 bits", err);
    *field = (uint64_t)json_integer_value(value);
    return true;
}

static bool read_real(const struct option_info *info, double *field, const char *key,
                      const json_t *value, struct error *err)
{
    assert(info->min <= info->max);
    double number = json_number_value(value);
    bool is_valid = json_is_number(value) && number >= info->min && number <= info->max;
    if (info->above_min && number <= info->min) is_valid = false;
    char wish[96];
    snprintf(wish, sizeof wish,
             info->above_min ? "a number above %g, at most %g" : "a number from %g to %g",
             info->min, info->max);
    if (!is_valid) return refuse(key, value, wish, err);
    *field = number;
    return true;
}

/* Which of `choices` ("a|b") `word` [n] is; -1: none. */
static int find_choice(const char *choices, const char *word, size_t n)
{
    assert(choices[0] != '\0');
    for (int i = 0;; i++) {
        size_t n_choice = strcspn(choices, "|");
        if (n_choice == n && memcmp(choices, word, n) == 0) return i;
        if (choices[n_choice] == '\0') return -1;
        choices += n_choice + 1;
    }
}

static bool read_choice(const struct option_info *info, const char **field, const char *key,
                        const json_t *value, struct error *err)
{
    assert(info->choices != NULL);
    if (json_is_string(value) &&
        find_choice(info->choices, json_string_value(value), json_string_length(value)) >= 0) {
        *field = json_string_value(value);
        return true;
    }
    char wish[256];
    size_t n = (size_t)snprintf(wish, sizeof wish, "one of ");
    for (const char *at = info->choices; *at != '\0' && n + 3 < sizeof wish; at++) {
        wish[n++] = *at == '|' ? ',' : *at;
        if (*at == '|') wish[n++] = ' ';
    }
    wish[n] = '\0';
    return refuse(key, value, wish, err);
}

bool settings_read(struct options *layer, enum option_id id, const char *key, const json_t *value,
                   struct error *err)
{
    const struct option_info *info = options_info(id);
    assert(info->in_line);
    if (json_is_null(value)) return true;
    void *field = (char *)layer + info->offset;
    bool is_valid = false;
    switch (info->type) {
    case OPTION_TYPE_FLAG: is_valid = read_flag(field, key, value, err); break;
    case OPTION_TYPE_COUNT: is_valid = read_count(info, field, key, value, err); break;
    case OPTION_TYPE_SEED: is_valid = read_seed(field, key, value, err); break;
    case OPTION_TYPE_REAL: is_valid = read_real(info, field, key, value, err); break;
    case OPTION_TYPE_CHOICE: is_valid = read_choice(info, field, key, value, err); break;
    case OPTION_TYPE_SIZE:
    case OPTION_TYPE_TEXT: assert(false && "no input line has such a setting"); break;
    }
    if (is_valid) layer->is_set[id] = true;
    return is_valid;
}

/* Which member of its enum an option's word is, all in the order of options.def; -1: none. */
static int choice_of(enum option_id id, const char *word)
{
    assert(word != NULL);
    return find_choice(options_info(id)->choices, word, strlen(word));
}

/* ---- layers ---- */

/* The two sources that a user writes. */
struct layers {
    const struct options *flags, *line;
};

/* The field of the strongest source that gives the option; NULL: none does. */
static const void *find_given(const struct layers *layers, enum option_id id)
{
    assert(options_info(id)->in_line);
    const struct options *source = NULL;
    if (options_is_set(layers->flags, id)) source = layers->flags;
    if (options_is_set(layers->line, id)) source = layers->line;
    if (source == NULL) return NULL;
    return (const char *)source + options_info(id)->offset;
}

static int32_t pick_count(const struct layers *layers, enum option_id id, int32_t fallback)
{
    assert(options_info(id)->type == OPTION_TYPE_COUNT);
    const int32_t *given = find_given(layers, id);
    return given != NULL ? *given : fallback;
}

static double pick_real(const struct layers *layers, enum option_id id, double fallback)
{
    assert(options_info(id)->type == OPTION_TYPE_REAL);
    const double *given = find_given(layers, id);
    return given != NULL ? *given : fallback;
}

static bool pick_flag(const struct layers *layers, enum option_id id)
{
    assert(options_info(id)->type == OPTION_TYPE_FLAG);
    const bool *given = find_given(layers, id);
    return given != NULL && *given;
}

/* Whether a source turns the setting on; 0 is off. */
static bool is_on(const struct options *source, enum option_id id)
{
    assert(options_info(id)->type == OPTION_TYPE_REAL);
    const double *field = (const void *)((const char *)source + options_info(id)->offset);
    return options_is_set(source, id) && *field > 0;
}

/* A line that turns one of them on turns off the other, which the flags gave. */
static bool resolve_parallel(struct decode_settings *decode, const struct layers *layers,
                             struct error *err)
{
    assert(!(is_on(layers->flags, OPTION_threshold) && is_on(layers->flags, OPTION_factor)));
    if (is_on(layers->line, OPTION_threshold) && is_on(layers->line, OPTION_factor))
        return error_set(err, ERROR_FORMAT, "threshold and factor exclude each other");
    decode->threshold = pick_real(layers, OPTION_threshold, 0);
    decode->factor = pick_real(layers, OPTION_factor, 0);
    if (is_on(layers->line, OPTION_threshold)) decode->factor = 0;
    if (is_on(layers->line, OPTION_factor)) decode->threshold = 0;
    return true;
}

/* Dream's rules follow one schedule of timesteps over all positions: no blocks. */
static bool has_timesteps(enum remasking remasking)
{
    return remasking != REMASKING_LOW_CONFIDENCE && remasking != REMASKING_RANDOM;
}

/* threshold and factor are ways of low_confidence; a model's default rule gives way to them. */
static bool resolve_remasking(struct decode_settings *decode, const struct model_config *config,
                              const struct layers *layers, struct error *err)
{
    assert(decode->threshold == 0 || decode->factor == 0);
    const char *const *given = find_given(layers, OPTION_remasking);
    const char *name = given != NULL ? *given : config->remasking;
    bool gives_way = given == NULL && (decode->threshold > 0 || decode->factor > 0);
    if (gives_way || name == NULL) name = "low_confidence";
    int choice = choice_of(OPTION_remasking, name);
    decode->remasking = (enum remasking)choice;
    if (choice >= 0) return true;
    return error_set(err, ERROR_FORMAT, "the model's default remasking \"%s\" is unknown; give one",
                     name);
}

/* 0 stands for one block over everything that is generated. */
static int32_t default_block_length(const struct model_config *config, enum remasking remasking,
                                    bool has_masks)
{
    assert(config->block_length >= 0);
    if (has_masks || has_timesteps(remasking)) return 0;
    return config->block_length > 0 ? config->block_length : BLOCK_LENGTH_DEFAULT;
}

static int32_t divide_up(int32_t a, int32_t b)
{
    assert(b > 0);
    return a / b + (a % b != 0);
}

/* A model's default number of steps belongs to its default lengths. */
static int32_t default_steps(const struct model_config *config, const struct layers *layers,
                             const struct decode_settings *decode)
{
    assert(decode->gen_length >= 0);
    if (find_given(layers, OPTION_gen_length) != NULL) return 0;
    if (find_given(layers, OPTION_block_length) != NULL || decode->gen_length == 0) return 0;
    return config->steps % divide_up(decode->gen_length, decode->block_length) ? 0 : config->steps;
}

static void resolve_lengths(struct decode_settings *decode, const struct model_config *config,
                            const struct layers *layers, bool has_masks)
{
    assert((unsigned)decode->remasking < REMASKING_COUNT);
    int32_t standard = config->gen_length > 0 ? config->gen_length : GEN_LENGTH_DEFAULT;
    decode->gen_length = pick_count(layers, OPTION_gen_length, standard);
    if (has_masks)
        decode->gen_length =
            options_is_set(layers->line, OPTION_gen_length) ? layers->line->gen_length : 0;
    standard = default_block_length(config, decode->remasking, has_masks);
    decode->block_length = pick_count(layers, OPTION_block_length, standard);
    if (decode->gen_length > 0 &&
        (decode->block_length == 0 || decode->block_length > decode->gen_length))
        decode->block_length = decode->gen_length;
    decode->steps = pick_count(layers, OPTION_steps, default_steps(config, layers, decode));
}

enum policy settings_policy(const char *name)
{
    return (enum policy)choice_of(OPTION_policy, name);
}

enum objective settings_objective(const char *name)
{
    return (enum objective)choice_of(OPTION_objective, name);
}

void settings_engine(struct engine_options *engine, const struct options *flags)
{
    assert(flags->model != NULL);
    *engine = (struct engine_options){
        .model_dir = flags->model,
        .backend = flags->backend,
        .cpu_isa = strcmp(flags->cpu_isa, "auto") == 0 ? NULL : flags->cpu_isa,
        .n_threads = flags->threads,
        .device = options_is_set(flags, OPTION_device) ? flags->device : -1,
        .graphs = strcmp(flags->graphs, "on") == 0,
        .monolithic_logits = strcmp(flags->logits, "monolithic") == 0,
        .dummy_weights = strcmp(flags->load_format, "dummy") == 0,
        .n_rows_max = flags->rows,
        .memory_bytes_max = (size_t)flags->memory,
        .kv_bytes = options_is_set(flags, OPTION_kv_memory) ? (size_t)flags->kv_memory : SIZE_MAX,
        .policy = settings_policy(flags->policy),
        .objective = settings_objective(flags->objective),
        .n_running_max = flags->batch_size,
    };
}

/* Infill knows no cache: there only the line itself can ask for one, and is then refused. A cache
 * that is named is that cache alone. The fields of the flags hold defaults, too. */
static void resolve_cache(struct decode_settings *decode, const struct layers *layers,
                          bool has_masks)
{
    struct layers found = *layers;
    if (has_masks) found.flags = layers->line;
    assert(found.line != NULL);
    const char *const *cache = find_given(&found, OPTION_cache);
    const char *const *head_select = find_given(&found, OPTION_head_select);
    bool is_ours = cache == NULL && !has_masks && !has_timesteps(decode->remasking);
    decode->cache = is_ours ? CACHE_DUAL : CACHE_NONE;
    if (cache != NULL) decode->cache = (enum cache_kind)choice_of(OPTION_cache, *cache);
    decode->retention = pick_real(&found, OPTION_retention, layers->flags->retention);
    decode->delay = pick_count(&found, OPTION_delay, layers->flags->delay);
    decode->shared_select = head_select != NULL && strcmp(*head_select, "off") == 0;
    decode->refresh_every = pick_count(&found, OPTION_refresh_every, 0);
    decode->prompt_refresh_every =
        pick_count(&found, OPTION_prompt_refresh_every, is_ours ? PROMPT_REFRESH_DEFAULT : 1);
    decode->suffix_window =
        pick_count(&found, OPTION_suffix_window, is_ours ? SUFFIX_WINDOW_DEFAULT : 0);
}

bool settings_resolve(struct decode_settings *decode, const struct model_config *config,
                      const struct options *flags, const struct options *line, bool has_masks,
                      struct error *err)
{
    assert(decode != NULL);
    struct layers layers = {.flags = flags, .line = line};
    struct decode_settings found = {0};
    if (!resolve_parallel(&found, &layers, err)) return false;
    if (!resolve_remasking(&found, config, &layers, err)) return false;
    bool is_open = found.remasking == REMASKING_LOW_CONFIDENCE && found.factor == 0;
    if (is_open && !has_masks && find_given(&layers, OPTION_steps) == NULL)
        found.threshold = pick_real(&layers, OPTION_threshold, THRESHOLD_DEFAULT);
    resolve_lengths(&found, config, &layers, has_masks);
    bool has_order = has_timesteps(found.remasking) && found.remasking != REMASKING_ORIGIN;
    found.temperature = pick_real(&layers, OPTION_temperature, config->temperature);
    found.top_p = pick_real(&layers, OPTION_top_p, config->top_p > 0 ? config->top_p : 1);
    found.top_k = pick_count(&layers, OPTION_top_k, config->top_k);
    found.alg_temp = pick_real(&layers, OPTION_alg_temp, has_order ? config->alg_temp : 0);
    found.cfg_scale = pick_real(&layers, OPTION_cfg_scale, 0);
    const uint64_t *seed = find_given(&layers, OPTION_seed);
    found.seed = seed != NULL ? *seed : 0;
    found.early_stop = !pick_flag(&layers, OPTION_no_early_stop);
    found.logits_eos_inf = pick_flag(&layers, OPTION_logits_eos_inf);
    found.confidence_eos_eot_inf = pick_flag(&layers, OPTION_confidence_eos_eot_inf);
    resolve_cache(&found, &layers, has_masks);
    *decode = found;
    return true;
}

/* ---- flags alone ---- */

/* Whether a line with a short prompt and no settings of its own could be answered. */
static bool check_bare_line(const struct options *flags, const struct model_config *config,
                            struct error *err)
{
    assert(config->n_positions > 0);
    struct options line;
    struct decode_settings decode;
    struct phases phases;
    const struct phases_model model = executor_phases_model(config);
    bool has_masks = options_is_set(flags, OPTION_gen_length) && flags->gen_length == 0;
    options_init(&line, SUBCOMMAND_RUN);
    return settings_resolve(&decode, config, flags, &line, has_masks, err) &&
           phases_init(&phases, 1, has_masks, &decode, &model, err);
}

/* "--steps, --block-length": each flag without which the others would do. */
static void name_culprits(const struct options *flags, const struct model_config *config,
                          char *names, size_t n_max)
{
    size_t n = 0;
    names[0] = '\0';
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        struct options others = *flags;
        assert(n < n_max);
        if (!options_info(id)->in_line || !options_is_set(flags, id)) continue;
        others.is_set[id] = false;
        if (!check_bare_line(&others, config, NULL) || n + 64 > n_max) continue;
        n += (size_t)snprintf(names + n, n_max - n, "%s--%s", n > 0 ? ", " : "",
                              options_info(id)->name);
    }
}

bool settings_check_flags(const struct options *flags, const struct model_config *config,
                          struct error *err)
{
    assert(flags != NULL);
    if (is_on(flags, OPTION_threshold) && is_on(flags, OPTION_factor))
        return error_set(err, ERROR_USAGE, "--threshold and --factor exclude each other");
    struct options none;
    struct error problem = {0};
    char names[512];
    options_init(&none, SUBCOMMAND_RUN);
    if (check_bare_line(flags, config, &problem)) return true;
    if (!check_bare_line(&none, config, NULL)) return true; /* the model is to blame */
    name_culprits(flags, config, names, sizeof names);
    return error_set(err, ERROR_USAGE, "%s: %s", names[0] != '\0' ? names : "the options together",
                     problem.message);
}
