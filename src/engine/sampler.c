/* Quotas per step and the translation of decode settings to the backend's terms. */
#include "engine/sampler.h"

#include <assert.h>

#define TIMESTEP_LAST 1e-3f

static bool is_dream_rule(enum remasking remasking)
{
    return remasking != REMASKING_LOW_CONFIDENCE && remasking != REMASKING_RANDOM;
}

int32_t sampler_quota(int32_t n_masked, int32_t n_steps, int32_t step)
{
    assert(n_steps > 0);
    assert(step >= 0);
    return n_masked / n_steps + (step < n_masked % n_steps);
}

/* torch.linspace(1, 1e-3, n_steps + 1)[i] in f32: symmetric around the middle. */
static float timestep(int32_t n_steps, int32_t i)
{
    assert(i >= 0);
    assert(i <= n_steps);
    float step = (TIMESTEP_LAST - 1.0f) / (float)n_steps;
    if (i < (n_steps + 1) / 2) return 1.0f + step * (float)i;
    return TIMESTEP_LAST - step * (float)(n_steps - i);
}

float sampler_timestep_rate(int32_t n_steps, int32_t step)
{
    assert(n_steps > 0);
    if (step >= n_steps - 1) return 1.0f;
    return 1.0f - timestep(n_steps, step + 1) / timestep(n_steps, step);
}

int32_t sampler_timestep_quota(int32_t n_masked, int32_t n_steps, int32_t step)
{
    assert(n_masked >= 0);
    if (step >= n_steps - 1) return n_masked;
    return (int32_t)((float)n_masked * sampler_timestep_rate(n_steps, step));
}

static int32_t step_quota(const struct decode_settings *decode, int32_t n_start, int32_t n_masked,
                          int32_t n_steps, int32_t step)
{
    if (decode->threshold > 0 || decode->factor > 0) return 1;
    if (decode->remasking == REMASKING_ORIGIN) return 1;
    if (is_dream_rule(decode->remasking)) return sampler_timestep_quota(n_masked, n_steps, step);
    return sampler_quota(n_start, n_steps, step);
}

int32_t sampler_next_step(const struct decode_settings *decode, int32_t n_start, int32_t n_masked,
                          int32_t n_steps, int32_t step)
{
    assert(n_masked > 0);
    assert(n_masked <= n_start);
    while (step_quota(decode, n_start, n_masked, n_steps, step) == 0)
        step++;
    return step;
}

static enum confidence confidence_of(enum remasking remasking)
{
    switch (remasking) {
    case REMASKING_RANDOM: return CONFIDENCE_RANDOM;
    case REMASKING_ORIGIN:
    case REMASKING_MASKGIT_PLUS: return CONFIDENCE_FILTERED;
    case REMASKING_TOPK_MARGIN: return CONFIDENCE_MARGIN;
    case REMASKING_ENTROPY: return CONFIDENCE_ENTROPY;
    default: return CONFIDENCE_PROBABILITY;
    }
}

void sampler_score_row(struct score_row *row, const struct request *request,
                       const struct model_config *config, int32_t n_forwards)
{
    const struct decode_settings *decode = &request->decode;
    assert(n_forwards >= 0);
    assert(decode->remasking < REMASKING_COUNT);
    *row = (struct score_row){.uncond_row = -1,
                              .cfg_scale = (float)decode->cfg_scale,
                              .temperature = decode->temperature,
                              .top_p = decode->top_p,
                              .top_k = decode->top_k,
                              .confidence = confidence_of(decode->remasking),
                              .noise_key = {decode->seed, request->id_hash},
                              .step = (uint32_t)n_forwards};
    if (decode->logits_eos_inf && config->eos_id >= 0)
        row->suppressed[row->n_suppressed++] = config->eos_id;
    if (!decode->confidence_eos_eot_inf) return;
    if (config->eos_id >= 0)
        row->confidence_suppressed[row->n_confidence_suppressed++] = config->eos_id;
    if (config->eot_id >= 0)
        row->confidence_suppressed[row->n_confidence_suppressed++] = config->eot_id;
}

void sampler_commit_request(struct commit_request *commit, const struct request *request,
                            int32_t n_start, int32_t n_masked, int32_t n_steps, int32_t step)
{
    const struct decode_settings *decode = &request->decode;
    assert(n_masked > 0);
    assert(step >= 0);
    *commit = (struct commit_request){.rule = COMMIT_TOP,
                                      .threshold = decode->threshold,
                                      .factor = decode->factor,
                                      .order_temperature = decode->alg_temp,
                                      .noise_key = {decode->seed, request->id_hash}};
    if (decode->threshold > 0) {
        commit->rule = COMMIT_THRESHOLD;
    } else if (decode->factor > 0) {
        commit->rule = COMMIT_FACTOR;
    } else if (decode->remasking == REMASKING_ORIGIN) {
        commit->rule = COMMIT_EACH;
        commit->threshold = (double)sampler_timestep_rate(n_steps, step);
    } else {
        commit->n_commit = step_quota(decode, n_start, n_masked, n_steps, step);
    }
}

bool sampler_is_stop(const struct model_config *config, int32_t id)
{
    assert(config->n_stop_ids <= MODEL_STOP_IDS_MAX);
    for (int32_t i = 0; i < config->n_stop_ids; i++)
        if (config->stop_ids[i] == id) return true;
    return false;
}
