/* From options to cost model and memory, and from requests to a plan by each policy. */
#include "app/planning.h"

#include <assert.h>
#include <string.h>

#include "app/app.h"
#include "app/profile.h"
#include "app/settings.h"
#include "backend/backend.h"
#include "base/clock.h"

#define ARENA_BYTES_MAX ((size_t)16 << 30) /* of address space */

enum { ROWS_MIN = 1024, ROWS_MAX = 4096 };

/* ---- what is planned for ---- */

/* An engine's clock needs none. */
static bool open_profile(struct planning *planning, struct error *err)
{
    const char *name = planning->options->profile;
    if (name == NULL && strcmp(planning->options->clock, "virtual") != 0) return true;
    if (!profile_read(&planning->profile, name != NULL ? name : "h200", err)) return false;
    struct cost_shape shape =
        profile_shape(&planning->config, sizeof(uint16_t), planning->profile.kv_element_bytes);
    cost_init(&planning->cost, &planning->profile, &shape);
    return true;
}

static bool open_model(struct planning *planning, struct error *err)
{
    const char *model = planning->options->model;
    assert(model != NULL);
    return profile_read_model(&planning->config, model, &planning->arena, err) &&
           open_profile(planning, err) &&
           app_open_tokenizer(&planning->tokenizer, model, &planning->config, err);
}

static int32_t choose_rows(const struct planning *planning)
{
    int32_t n_positions = planning->config.n_positions;
    assert(n_positions > 0);
    if (options_is_set(planning->options, OPTION_rows)) return planning->options->rows;
    if (n_positions < ROWS_MIN) return ROWS_MIN;
    return n_positions < ROWS_MAX ? n_positions : ROWS_MAX;
}

bool planning_size(struct planning *planning, int64_t n_cells, struct error *err)
{
    const struct options *options = planning->options;
    const struct model_config *config = &planning->config;
    int32_t n_rows_max = planning->input.options.n_rows_max = choose_rows(planning);
    struct memory_shape *shape = &planning->shape;
    bool is_limited = options_is_set(options, OPTION_memory);
    planning->memory_limit = is_limited ? options->memory : planning->profile.memory_bytes;
    *shape = (struct memory_shape){
        .n_layers = config->n_layers,
        .hidden = config->hidden,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .ffn = config->ffn,
        .n_positions = config->n_positions,
        .weight_bytes = (size_t)config_n_parameters(config) * sizeof(uint16_t),
        .n_rows_max = n_rows_max,
        .n_picks_max = n_rows_max,
        .pick_bytes = sizeof(struct pick),
        .n_cells_max = n_cells,
        .n_monolithic_ids = strcmp(options->logits, "monolithic") == 0 ? config->n_vocab : 0,
        .element_bytes = planning->profile.kv_element_bytes > 2 ? 4 : 2,
        .kv_element_bytes = planning->profile.kv_element_bytes,
    };
    assert(n_cells > 0);
    memory_size(&planning->memory, shape);
    if (!memory_check(&planning->memory, planning->memory_limit, err)) return false;
    size_t pool = planning->memory_limit - planning->memory.total_bytes;
    if (options_is_set(options, OPTION_kv_memory)) pool = options->kv_memory;
    shape->n_slots = (int64_t)(pool / planning->memory.slot_bytes);
    planning->input.options.n_slots = shape->n_slots;
    memory_size(&planning->memory, shape);
    return memory_check(&planning->memory, planning->memory_limit, err);
}

bool planning_open(struct planning *planning, const struct options *options, struct error *err)
{
    assert(options->model != NULL);
    bool is_file = options->operand != NULL && strcmp(options->operand, "-") != 0;
    *planning = (struct planning){.options = options,
                                  .label = is_file ? options->operand : "standard input"};
    planning->input =
        (struct plan_input){.options = {.objective = settings_objective(options->objective),
                                        .n_running_max = options->batch_size,
                                        .tokens_per_step = options->tokens_per_step},
                            .cost = &planning->cost,
                            .tokens_per_step = options->tokens_per_step,
                            .keeps_runs = true};
    return arena_create(&planning->arena, ARENA_BYTES_MAX, err) && open_model(planning, err) &&
           settings_check_flags(options, &planning->config, err);
}

void planning_close(struct planning *planning)
{
    assert(planning->n_results <= PLANNING_RESULTS);
    prompts_close(planning->prompts);
    window_destroy(&planning->window);
    tokenizer_close(planning->tokenizer);
    for (int32_t i = 0; i < planning->n_results; i++)
        plan_clear(&planning->results[i]);
    arena_destroy(&planning->arena);
}

/* ---- plans ---- */

static bool make_plan(struct planning *planning, enum policy policy, struct error *err)
{
    int32_t i = planning->n_results;
    struct plan *plan = &planning->results[i];
    struct plan_input input = planning->input;
    uint64_t begin_ns = clock_now_ns();
    assert(i < PLANNING_RESULTS);
    input.options.policy = policy;
    planning->n_results++;
    bool is_ok = plan_make_best(plan, &input, err);
    uint64_t spent_ns = clock_now_ns() - begin_ns;
    if (!is_ok) return false;
    input.options = plan->options;
    if (!plan_check(plan, &input, &planning->arena, err)) return false;
    planning->summaries[i] = (struct plan_summary){.policy = policy, .clock = "virtual"};
    return plan_summary_take(&planning->summaries[i], plan, &input, spent_ns, &planning->arena) ||
           error_set(err, ERROR_UNAVAILABLE, "not enough memory to summarise the plan");
}

bool planning_make(struct planning *planning, struct error *err)
{
    enum policy chosen = settings_policy(planning->options->policy);
    assert(planning->n_results <= 1);
    planning->input.options.n_requests_max = planning->input.n_requests;
    if (!make_plan(planning, chosen, err)) return false;
    for (int i = PLANNING_POLICIES - 1; planning->options->compare && i >= 0; i--)
        if (i != (int)chosen && !make_plan(planning, (enum policy)i, err)) return false;
    return true;
}
