/* How many tokens a step commits, and when an answer is complete: pure functions of counts and
 * canvases. Which tokens are committed is the backend's `score` and `commit`, to which the settings
 * are translated here. */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "model/config.h"
#include "plan/request.h"

/* LLaDA (Nie et al. 2025, arXiv 2502.09992, generate): n_masked tokens over n_steps; the first
 * n_masked % n_steps steps get one more. step in [0, n_steps). */
int32_t sampler_quota(int32_t n_masked, int32_t n_steps, int32_t step);

/* Dream (Ye et al. 2025, arXiv 2508.15487, diffusion_generate): 1 - s/t of step `step` on the
 * timesteps linspace(1, 1e-3, n_steps + 1), in f32 as the reference computes it; 1 in the last
 * step. */
float sampler_timestep_rate(int32_t n_steps, int32_t step);

/* Dream: tokens committed in that step while n_masked are left: all of them in the last step. */
int32_t sampler_timestep_quota(int32_t n_masked, int32_t n_steps, int32_t step);

/* First step >= `step` of a block that commits anything: steps that commit nothing need no forward.
 * n_start: the block's masks at its start; n_masked: now. */
int32_t sampler_next_step(const struct decode_settings *decode, int32_t n_start, int32_t n_masked,
                          int32_t n_steps, int32_t step);

/* What score needs to know of a request; uncond_row is -1, position 0. */
void sampler_score_row(struct score_row *row, const struct request *request,
                       const struct model_config *config, int32_t n_forwards);

/* What commit needs to know for step `step` of n_steps of a block. */
void sampler_commit_request(struct commit_request *commit, const struct request *request,
                            int32_t n_start, int32_t n_masked, int32_t n_steps, int32_t step);

/* Whether `id` ends an answer. */
bool sampler_is_stop(const struct model_config *config, int32_t id);

#endif
