/* The arithmetic of commits, without a model. Dream's timestep schedule and its draws by chance are
 * taken as even quotas: their sums are the same. */
#include "plan/world.h"

#include <assert.h>

static void enter_block(struct world_request *request)
{
    int32_t begin, end;
    phases_block(request->phases, request->block, &begin, &end);
    request->step = 0;
    request->n_start = request->n_left = end - begin;
    request->n_before = begin - request->phases->blocks_begin;
    request->credit = 0;
    assert(request->n_start > 0);
}

void world_start(struct world_request *request, const struct plan_input *input, int32_t index)
{
    assert(index < input->n_requests);
    *request = (struct world_request){
        .phases = &input->phases[index],
        .stop_after = input->stop_after ? input->stop_after[index] : INT32_MAX,
        .tokens_per_step = input->tokens_per_step > 1 ? input->tokens_per_step : 1,
    };
    enter_block(request);
}

/* LLaDA's quota (arXiv 2502.09992): n over s steps, the first n % s steps one more. */
static int32_t quota(const struct world_request *request)
{
    int32_t n = request->n_start, s = request->phases->steps_per_block;
    if (s == 0 || s > n) return 1;
    assert(request->step < s);
    return n / s + (request->step < n % s);
}

static int32_t earned(struct world_request *request)
{
    request->credit += request->tokens_per_step;
    int32_t n = (int32_t)request->credit;
    assert(n >= 1);
    request->credit -= n;
    return n;
}

enum step_outcome world_step(struct world_request *request)
{
    int32_t n = request->phases->is_open_ended ? earned(request) : quota(request);
    request->n_left -= n < request->n_left ? n : request->n_left;
    request->step++;
    assert(request->n_left >= 0);
    if (request->n_before + request->n_start - request->n_left >= request->stop_after)
        return STEP_END;
    if (request->n_left > 0) return STEP_GOES_ON;
    if (request->block + 1 == request->phases->n_blocks) return STEP_END;
    request->block++;
    enter_block(request);
    return STEP_BLOCK;
}

int32_t world_tokens(const struct world_request *request)
{
    int32_t n = request->phases->n_canvas - request->phases->blocks_begin;
    assert(n > 0);
    return request->stop_after < n ? request->stop_after : n;
}
