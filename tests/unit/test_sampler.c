/* The commit schedules against the published vectors, and their invariants on random counts. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "engine/sampler.h"

static void expect_quotas(int32_t n_masked, int32_t n_steps, const int32_t *expected)
{
    for (int32_t step = 0; step < n_steps; step++)
        cr_assert_eq(sampler_quota(n_masked, n_steps, step), expected[step], "(%d, %d) step %d",
                     n_masked, n_steps, step);
}

Test(sampler, quota_gives_the_remainder_to_the_first_steps)
{
    expect_quotas(32, 5, (const int32_t[]){7, 7, 6, 6, 6});
    expect_quotas(5, 8, (const int32_t[]){1, 1, 1, 1, 1, 0, 0, 0});
    expect_quotas(64, 10, (const int32_t[]){7, 7, 7, 7, 6, 6, 6, 6, 6, 6});
}

Test(sampler, quota_commits_every_mask_exactly_once)
{
    srand(1);
    for (int32_t i = 0; i < 1000; i++) {
        int32_t n_masked = rand() % 300, n_steps = 1 + rand() % 300, sum = 0;
        for (int32_t step = 0; step < n_steps; step++)
            sum += sampler_quota(n_masked, n_steps, step);
        cr_assert_eq(sum, n_masked);
    }
}

/* Runs the timestep schedule; returns what the first, the middle and the last step commit. */
static void run_timesteps(int32_t n_masked, int32_t n_steps, int32_t parts[3])
{
    int32_t left = n_masked;
    for (int32_t step = 0; step < n_steps; step++) {
        int32_t n = sampler_timestep_quota(left, n_steps, step);
        parts[step == 0 ? 0 : step == n_steps - 1 ? 2 : 1] = n;
        if (step > 0 && step < n_steps - 1)
            cr_assert_eq(n, parts[1], "(%d, %d) step %d", n_masked, n_steps, step);
        left -= n;
    }
    cr_assert_eq(left, 0);
}

Test(sampler, timesteps_match_the_vectors_of_the_reference)
{
    static const int32_t cases[][5] = {
        {32, 32, 0, 1, 2},   {128, 128, 0, 1, 2}, {256, 256, 0, 1, 2}, {512, 512, 0, 1, 2},
        {768, 768, 0, 1, 2}, {256, 128, 1, 2, 3}, {256, 64, 3, 4, 5},  {256, 32, 7, 8, 9},
        {128, 32, 3, 4, 5},  {512, 128, 3, 4, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t parts[3] = {0};
        run_timesteps(cases[i][0], cases[i][1], parts);
        for (int32_t j = 0; j < 3; j++)
            cr_assert_eq(parts[j], cases[i][2 + j], "(%d, %d): part %d is %d", cases[i][0],
                         cases[i][1], j, parts[j]);
    }
}

Test(sampler, timestep_rate_is_a_probability_and_ends_at_one)
{
    for (int32_t n_steps = 1; n_steps < 200; n_steps += 7) {
        for (int32_t step = 0; step < n_steps; step++) {
            float rate = sampler_timestep_rate(n_steps, step);
            cr_assert(rate > 0 && rate <= 1, "%d of %d: %g", step, n_steps, (double)rate);
        }
        cr_assert_eq(sampler_timestep_rate(n_steps, n_steps - 1), 1.0f);
    }
}

Test(sampler, steps_that_commit_nothing_are_skipped)
{
    struct decode_settings dream = {.remasking = REMASKING_ENTROPY};
    struct decode_settings llada = {.remasking = REMASKING_LOW_CONFIDENCE};
    cr_assert_eq(sampler_next_step(&dream, 32, 32, 32, 0), 1);
    cr_assert_eq(sampler_next_step(&dream, 32, 32, 32, 1), 1);
    cr_assert_eq(sampler_next_step(&llada, 5, 5, 8, 0), 0);
    dream.remasking = REMASKING_ORIGIN;
    cr_assert_eq(sampler_next_step(&dream, 32, 32, 32, 0), 0);
}

Test(sampler, settings_become_the_rule_that_they_name)
{
    struct request request = {.decode = {.threshold = 0.9}};
    struct commit_request commit;
    sampler_commit_request(&commit, &request, 8, 8, 8, 0);
    cr_assert_eq(commit.rule, COMMIT_THRESHOLD);
    cr_assert_eq(commit.threshold, 0.9);
    request.decode = (struct decode_settings){.factor = 1.0};
    sampler_commit_request(&commit, &request, 8, 8, 8, 0);
    cr_assert_eq(commit.rule, COMMIT_FACTOR);
    request.decode = (struct decode_settings){.remasking = REMASKING_ORIGIN};
    sampler_commit_request(&commit, &request, 8, 3, 8, 7);
    cr_assert_eq(commit.rule, COMMIT_EACH);
    cr_assert_eq(commit.threshold, 1.0);
    request.decode = (struct decode_settings){.remasking = REMASKING_ENTROPY, .alg_temp = 0.5};
    sampler_commit_request(&commit, &request, 8, 8, 4, 3);
    cr_assert_eq(commit.rule, COMMIT_TOP);
    cr_assert_eq(commit.n_commit, 8);
    cr_assert_eq(commit.order_temperature, 0.5);
}

Test(sampler, end_tokens_are_suppressed_where_the_settings_say)
{
    struct model_config config = {.eos_id = 7, .eot_id = 9};
    struct request request = {.decode = {.logits_eos_inf = true, .confidence_eos_eot_inf = true}};
    struct score_row row;
    sampler_score_row(&row, &request, &config, 3);
    cr_assert_eq(row.n_suppressed, 1);
    cr_assert_eq(row.suppressed[0], 7);
    cr_assert_eq(row.n_confidence_suppressed, 2);
    cr_assert_eq(row.confidence_suppressed[1], 9);
    cr_assert_eq(row.step, 3);
    cr_assert_eq(row.uncond_row, -1);
}

Test(sampler, any_stop_id_ends_an_answer)
{
    struct model_config config = {.n_stop_ids = 2, .stop_ids = {5, 6}};
    cr_assert(sampler_is_stop(&config, 6));
    cr_assert_not(sampler_is_stop(&config, 7));
}
