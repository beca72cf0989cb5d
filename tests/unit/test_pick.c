/* From a row's logits to its pick: small examples of every filter and confidence worked by hand,
 * exact sampling by chi-square, ties, and independence of the tile size. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "backend/noise.h"
#include "backend/pick.h"

enum { N_MAX = 64, NO_MASK = 1000 };

static struct pick pick_tiled(const float *logits, int32_t n, const struct score_row *row,
                              int32_t tile)
{
    struct pick_state state;
    pick_init(&state, row, NO_MASK);
    do {
        for (int32_t id = 0; id < n; id += tile) {
            float copy[N_MAX];
            int32_t n_tile = n - id < tile ? n - id : tile;
            memcpy(copy, logits + id, (size_t)n_tile * sizeof copy[0]);
            pick_feed(&state, id, copy, n_tile);
        }
    } while (pick_again(&state));
    return pick_finish(&state);
}

static struct pick pick_of(const float *logits, int32_t n, const struct score_row *row)
{
    return pick_tiled(logits, n, row, N_MAX);
}

/* ln of 0.4, 0.3, 0.2, 0.1 in some order. */
static const float tenths[4] = {-1.2039728f, -2.3025851f, -0.9162907f, -1.6094379f};

Test(pick, greedy_takes_the_largest_logit_and_its_probability)
{
    struct score_row row = {.uncond_row = -1, .top_p = 1};
    struct pick pick = pick_of(tenths, 4, &row);
    cr_assert_eq(pick.id, 2);
    cr_assert_float_eq(pick.confidence, 0.4, 1e-7);
    cr_assert_float_eq((double)pick.log_prob, log(0.4), 1e-6);
}

Test(pick, equal_logits_give_the_lower_id)
{
    const float logits[] = {1, 3, 2, 3, 3};
    struct score_row row = {.uncond_row = -1, .top_p = 1};
    cr_assert_eq(pick_of(logits, 5, &row).id, 1);
}

Test(pick, mask_and_suppressed_ids_are_gone_before_the_softmax)
{
    struct score_row row = {.uncond_row = -1, .top_p = 1, .n_suppressed = 1, .suppressed = {2}};
    struct pick pick = pick_of(tenths, 4, &row);
    cr_assert_eq(pick.id, 0);
    cr_assert_float_eq(pick.confidence, 0.5, 1e-7); /* 0.3 of the 0.6 that is left */

    struct pick_state state;
    float logits[4];
    memcpy(logits, tenths, sizeof logits);
    row.n_suppressed = 0;
    pick_init(&state, &row, 2);
    pick_feed(&state, 0, logits, 4);
    cr_assert_not(pick_again(&state));
    cr_assert_eq(pick_finish(&state).id, 0);
}

Test(pick, ids_suppressed_for_confidence_alone_renormalise_it)
{
    struct score_row row = {
        .uncond_row = -1, .top_p = 1, .n_confidence_suppressed = 1, .confidence_suppressed = {1}};
    struct pick pick = pick_of(tenths, 4, &row);
    cr_assert_eq(pick.id, 2);
    cr_assert_float_eq(pick.confidence, 0.4 / 0.9, 1e-7);
    cr_assert_float_eq((double)pick.log_prob, log(0.4), 1e-6);

    row.confidence_suppressed[0] = 2; /* the candidate itself: surely last */
    pick = pick_of(tenths, 4, &row);
    cr_assert_eq(pick.id, 2);
    cr_assert_eq(pick.confidence, 0);
}

/* The ids that many draws reach, as a bit set. */
static uint32_t support(const float *logits, int32_t n, struct score_row row)
{
    uint32_t seen = 0;
    row.noise_key[0] = 99;
    for (uint32_t i = 0; i < 3000; i++) {
        row.position = i;
        struct pick pick = pick_of(logits, n, &row);
        cr_assert_geq(pick.id, 0);
        seen |= 1u << pick.id;
    }
    return seen;
}

Test(pick, top_k_keeps_the_k_largest_and_all_ties_at_the_last)
{
    const float ties[] = {0, 1, 1, 1, 0.5f};
    struct score_row row = {.uncond_row = -1, .top_p = 1, .temperature = 1};
    for (int32_t k = 1; k <= 3; k++) {
        row.top_k = k;
        cr_assert_eq(support(ties, 5, row), 0x0Eu, "k %d", k);
    }
    row.top_k = 4;
    cr_assert_eq(support(ties, 5, row), 0x1Eu);
    row.top_k = 50;
    cr_assert_eq(support(ties, 5, row), 0x1Fu);
    row.top_k = 2;
    cr_assert_eq(support(tenths, 4, row), 0x05u);
}

Test(pick, top_p_keeps_the_entry_that_crosses_it)
{
    struct score_row row = {.uncond_row = -1, .temperature = 1};
    const struct {
        double top_p;
        uint32_t support;
    } cases[] = {{0, 4}, {0.39, 4}, {0.41, 5}, {0.69, 5}, {0.71, 13}, {0.89, 13}, {0.91, 15}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        row.top_p = cases[i].top_p;
        cr_assert_eq(support(tenths, 4, row), cases[i].support, "top_p %g", row.top_p);
    }
}

/* Eight equal entries: before entry i lies i / 8, exactly. */
Test(pick, top_p_cuts_ties_by_id_and_keeps_at_equality)
{
    const float equal[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    struct score_row row = {.uncond_row = -1, .temperature = 1, .top_p = 0.25};
    cr_assert_eq(support(equal, 8, row), 0x07u);
    row.top_p = 0.3;
    cr_assert_eq(support(equal, 8, row), 0x07u);
    row.top_p = 0.2;
    cr_assert_eq(support(equal, 8, row), 0x03u);
}

/* Of all, 0.7 lies before the third entry; of what top-k 3 leaves, 7/9 = 0.778 would. */
Test(pick, top_p_looks_at_the_distribution_before_top_k)
{
    struct score_row row = {.uncond_row = -1, .temperature = 1, .top_k = 3, .top_p = 0.76};
    cr_assert_eq(support(tenths, 4, row), 0x0Du);
    row.top_p = 0.69;
    cr_assert_eq(support(tenths, 4, row), 0x05u);
    row.top_k = 1;
    cr_assert_eq(support(tenths, 4, row), 0x04u);
}

/* Of four equal entries top-p keeps two, and top-k 1, with its ties, would keep all four. */
Test(pick, the_stricter_filter_decides_among_ties)
{
    const float equal[4] = {2, 2, 2, 2};
    struct score_row row = {.uncond_row = -1, .temperature = 1, .top_k = 1, .top_p = 0.3};
    cr_assert_eq(support(equal, 4, row), 0x03u);
}

/* At temperature 0.5 the probabilities go with the squares: 16, 9, 4, 1 of 30. */
Test(pick, filters_act_on_the_distribution_scaled_by_the_temperature)
{
    struct score_row row = {.uncond_row = -1, .temperature = 0.5, .top_p = 0.52};
    cr_assert_eq(support(tenths, 4, row), 0x04u);
    row.top_p = 0.54;
    cr_assert_eq(support(tenths, 4, row), 0x05u);
}

Test(pick, confidences_are_those_of_the_filtered_distribution)
{
    struct score_row row = {.uncond_row = -1, .top_p = 0.6, .confidence = CONFIDENCE_FILTERED};
    cr_assert_float_eq(pick_of(tenths, 4, &row).confidence, 4 / 7.0, 1e-7);
    row.confidence = CONFIDENCE_MARGIN;
    cr_assert_float_eq(pick_of(tenths, 4, &row).confidence, 1 / 7.0, 1e-7);
    row.confidence = CONFIDENCE_ENTROPY;
    double entropy = 4 / 7.0 * log(4 / 7.0) + 3 / 7.0 * log(3 / 7.0);
    cr_assert_float_eq(pick_of(tenths, 4, &row).confidence, entropy, 1e-7);
    row.top_p = 0.1; /* one entry is left: sure */
    cr_assert_float_eq(pick_of(tenths, 4, &row).confidence, 0, 1e-7);
    row.confidence = CONFIDENCE_MARGIN;
    cr_assert_float_eq(pick_of(tenths, 4, &row).confidence, 1, 1e-7);
}

Test(pick, unfiltered_entropy_and_margin_see_every_entry)
{
    struct score_row row = {.uncond_row = -1, .top_p = 1, .confidence = CONFIDENCE_ENTROPY};
    double entropy = 0.4 * log(0.4) + 0.3 * log(0.3) + 0.2 * log(0.2) + 0.1 * log(0.1);
    cr_assert_float_eq(pick_of(tenths, 4, &row).confidence, entropy, 1e-7);
    row.confidence = CONFIDENCE_MARGIN;
    cr_assert_float_eq(pick_of(tenths, 4, &row).confidence, 0.1, 1e-7);
    row.temperature = 0.5;
    cr_assert_float_eq(pick_of(tenths, 4, &row).confidence, 7 / 30.0, 1e-7);
}

Test(pick, log_prob_is_of_the_unscaled_unfiltered_distribution)
{
    struct score_row row = {.uncond_row = -1, .top_p = 0.1, .temperature = 0.5, .top_k = 2};
    struct pick pick = pick_of(tenths, 4, &row);
    cr_assert_eq(pick.id, 2);
    cr_assert_float_eq((double)pick.log_prob, log(0.4), 1e-6);
    cr_assert_float_eq(pick.confidence, 0.4, 1e-7);
}

Test(pick, random_confidence_is_the_noise_of_its_own_stream)
{
    struct score_row row = {.uncond_row = -1,
                            .top_p = 1,
                            .confidence = CONFIDENCE_RANDOM,
                            .noise_key = {3, 4},
                            .step = 5,
                            .position = 6};
    struct pick pick = pick_of(tenths, 4, &row);
    cr_assert_eq(pick.id, 2);
    cr_assert_eq(pick.confidence, noise_uniform(row.noise_key, 5, 6, NOISE_CONFIDENCE));
}

/* Draws of ids against expected probabilities; the seed is fixed, so this cannot fail by chance. */
static double chi_square(const float *logits, int32_t n, struct score_row row, const double *p)
{
    enum { N_DRAWS = 20000 };
    int32_t counts[N_MAX] = {0};
    double sum = 0;
    for (uint32_t i = 0; i < N_DRAWS; i++) {
        row.position = i % 100;
        row.step = i / 100;
        counts[pick_of(logits, n, &row).id]++;
    }
    for (int32_t i = 0; i < n; i++) {
        double expected = p[i] * N_DRAWS;
        if (expected > 0) sum += (counts[i] - expected) * (counts[i] - expected) / expected;
        else cr_assert_eq(counts[i], 0);
    }
    return sum;
}

Test(pick, sampling_follows_the_softmax_at_any_temperature)
{
    struct score_row row = {.uncond_row = -1, .top_p = 1, .noise_key = {2024, 77}};
    const double temperatures[] = {0.5, 1, 2};
    for (int t = 0; t < 3; t++) {
        double p[4], total = 0;
        row.temperature = temperatures[t];
        for (int i = 0; i < 4; i++)
            total += p[i] = exp((double)tenths[i] / row.temperature);
        for (int i = 0; i < 4; i++)
            p[i] /= total;
        double found = chi_square(tenths, 4, row, p);
        cr_assert_lt(found, 16.27, "T %g: chi-square %g", row.temperature, found); /* p = 0.001 */
    }
}

Test(pick, sampling_under_filters_follows_the_renormalised_softmax)
{
    const double p[4] = {3 / 9.0, 0, 4 / 9.0, 2 / 9.0};
    struct score_row row = {
        .uncond_row = -1, .top_p = 0.95, .top_k = 3, .temperature = 1, .noise_key = {1, 2}};
    double found = chi_square(tenths, 4, row, p);
    cr_assert_lt(found, 13.82, "chi-square %g", found); /* 2 degrees, p = 0.001 */
}

Test(pick, does_not_depend_on_the_tile_size)
{
    float logits[N_MAX];
    const uint64_t key[2] = {8, 9};
    for (uint32_t i = 0; i < N_MAX; i++)
        logits[i] = (float)(noise_uniform(key, 0, 0, i) * 12 - 6);
    for (int32_t c = CONFIDENCE_PROBABILITY; c <= CONFIDENCE_ENTROPY; c++) {
        struct score_row row = {.uncond_row = -1,
                                .temperature = 0.7,
                                .top_p = 0.9,
                                .top_k = 20,
                                .confidence = (enum confidence)c};
        struct pick whole = pick_tiled(logits, N_MAX, &row, N_MAX);
        for (int32_t tile = 1; tile < N_MAX; tile += 3) {
            struct pick tiled = pick_tiled(logits, N_MAX, &row, tile);
            cr_assert_eq(whole.id, tiled.id);
            cr_assert_eq(whole.confidence, tiled.confidence);
            cr_assert_eq(whole.log_prob, tiled.log_prob);
        }
    }
}

Test(pick, huge_and_tiny_logits_stay_finite)
{
    const float logits[] = {-3e38f, 3e38f, 0, 1e-40f};
    struct score_row row = {.uncond_row = -1, .top_p = 1, .confidence = CONFIDENCE_ENTROPY};
    struct pick pick = pick_of(logits, 4, &row);
    cr_assert_eq(pick.id, 1);
    cr_assert_float_eq(pick.confidence, 0, 1e-9);
    row.temperature = 1e-6;
    row.top_p = 0.5;
    cr_assert_eq(pick_of(logits, 4, &row).id, 1);
}

Test(pick, a_row_without_a_finite_logit_has_no_id)
{
    const float broken[][3] = {
        {-INFINITY, -INFINITY, -INFINITY}, {1, NAN, 0}, {1, INFINITY, 0}, {NAN, NAN, NAN}};
    struct score_row row = {.uncond_row = -1, .top_p = 0.5, .top_k = 2, .temperature = 1};
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pick_of(broken[i], 3, &row).id, -1, "case %d", i);
    struct score_row all = {
        .uncond_row = -1, .top_p = 1, .n_suppressed = 3, .suppressed = {0, 1, 2}};
    cr_assert_eq(pick_of(tenths, 3, &all).id, -1);
}

Test(pick, guidance_extrapolates_from_the_unconditional_logits)
{
    float logits[3] = {1, 2, -1};
    const float uncond[3] = {0, 2, 1};
    pick_guide(logits, uncond, 3, 0.5f);
    cr_assert_eq(logits[0], 1.5f);
    cr_assert_eq(logits[1], 2.0f);
    cr_assert_eq(logits[2], -2.0f);
}
