/* One number a line, kept in eight bytes until all are known. */
#include "app/shard_costs.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>

#include "app/interrupt.h"
#include "app/profile.h"
#include "plan/cost.h"
#include "plan/phases.h"
#include "plan/plan.h"

#define GROW_COUNT 4096 /* lines taken at a time: a multiple of 64 bytes */

/* Masks of a block: all its cells, or of a prompt that is filled in those that are masks. */
static int32_t count_masks(const struct prompt *prompt, const struct phases *phases,
                           int32_t block_index, int32_t mask_id)
{
    int32_t begin, end, n = 0;
    phases_block(phases, block_index, &begin, &end);
    if (prompt->n_masks == 0) return end - begin;
    assert(end <= prompt->request.n_prompt);
    for (int32_t i = begin; i < end; i++)
        n += prompt->request.prompt_ids[i] == mask_id;
    return n;
}

static float find_cost(const struct prompt *prompt, const struct prompts_options *options,
                       const struct cost_model *cost)
{
    const struct phases_model model = executor_phases_model(options->config);
    const struct request *request = &prompt->request;
    struct iteration_load load = {0};
    struct phases phases;
    bool is_ok = phases_init(&phases, request->n_prompt, prompt->n_masks > 0, &request->decode,
                             &model, NULL);
    assert(is_ok);
    for (int32_t i = 0; i < phases.n_blocks; i++) {
        int32_t n_masked = count_masks(prompt, &phases, i, options->config->mask_id);
        if (n_masked > 0)
            plan_add_block(&load, &phases, i, n_masked, options->flags->tokens_per_step);
    }
    return (float)cost_flops(cost, &load);
}

/* Pushes onto `arena`, which holds nothing else. */
static bool read_lines(struct arena *arena, int64_t *n_lines, struct prompts *prompts,
                       const struct prompts_options *options, struct error *err)
{
    const struct cost_profile anywhere = {.bytes_per_s = 1, .n_rates = 1, .rates = {{1, 1}}};
    const struct cost_shape shape = profile_shape(options->config, 2, 2);
    struct shard_line *lines = (void *)arena->base;
    struct cost_model cost;
    struct prompt prompt;
    cost_init(&cost, &anywhere, &shape);
    for (int64_t n = *n_lines = 0;; *n_lines = ++n) {
        enum prompts_status status = prompts_next(prompts, &prompt, err);
        if (status != PROMPTS_READ) return status == PROMPTS_END;
        if (interrupt_requested())
            return error_set(err, ERROR_STOPPED, "stopped while sharing out %s", options->path);
        if (n == SHARD_LINES_MAX)
            return error_set(err, ERROR_UNAVAILABLE, "%s has too many lines", options->path);
        if (n % GROW_COUNT == 0) arena_push(arena, GROW_COUNT, sizeof *lines);
        lines[n].place = (uint32_t)n;
        if (prompt.code == PROMPT_GOOD) lines[n].cost = find_cost(&prompt, options, &cost);
        assert(isfinite(lines[n].cost));
    }
}

bool shard_costs_read(struct shard *shard, const struct prompts_options *options,
                      struct arena *keep, struct error *err)
{
    const size_t n_bytes_max = ((size_t)SHARD_LINES_MAX + GROW_COUNT) * sizeof(struct shard_line);
    struct prompts *prompts = NULL;
    struct arena arena = {0};
    int64_t n_lines;
    assert(shard->count > 1);
    assert(options->shard == NULL);
    bool is_ok = arena_create(&arena, n_bytes_max, err) && prompts_open(&prompts, options, err) &&
                 read_lines(&arena, &n_lines, prompts, options, err);
    prompts_close(prompts);
    is_ok = is_ok && shard_partition(shard, (void *)arena.base, n_lines, keep, err);
    arena_destroy(&arena);
    return is_ok;
}
