/* The commit rules on host memory, with the vectors of the published algorithms, and the copies. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "backend/host.h"

enum { N_MAX = 16, EMPTY = -7 };

/* Commits one request's picks with the given confidences; bit i of the result: pick i was chosen.
 */
static uint32_t committed(const double *confidence, int32_t n, struct commit_request request)
{
    struct pick picks[N_MAX];
    int32_t cell[N_MAX], twin_cell[N_MAX], canvas[2 * N_MAX];
    uint32_t position[N_MAX], chosen = 0;
    struct backend backend = {0};
    for (int32_t i = 0; i < n; i++) {
        picks[i] = (struct pick){.id = 100 + i, .confidence = confidence[i]};
        cell[i] = i;
        twin_cell[i] = i % 2 == 0 ? N_MAX + i : -1;
        position[i] = (uint32_t)(10 + i);
    }
    for (int32_t i = 0; i < 2 * N_MAX; i++)
        canvas[i] = EMPTY;
    request.n_picks = n;
    host_commit(&backend, &(struct commit_args){.canvas = {canvas, 2 * N_MAX, 1, DTYPE_I32},
                                                .picks = picks,
                                                .cell = cell,
                                                .twin_cell = twin_cell,
                                                .position = position,
                                                .requests = &request,
                                                .n = 1,
                                                .mask_id = EMPTY});
    for (int32_t i = 0; i < N_MAX; i++) {
        bool is_chosen = canvas[i] != EMPTY;
        cr_assert_eq(canvas[i], is_chosen ? 100 + i : EMPTY);
        cr_assert_eq(canvas[N_MAX + i], is_chosen && i % 2 == 0 ? 100 + i : EMPTY);
        if (is_chosen) chosen |= 1u << i;
    }
    return chosen;
}

Test(host, equal_confidence_commits_the_lower_position)
{
    const double confidence[] = {1, 1, 0.5, 1};
    struct commit_request request = {.rule = COMMIT_TOP, .n_commit = 2};
    cr_assert_eq(committed(confidence, 4, request), 0x3u);
    request.n_commit = 3;
    cr_assert_eq(committed(confidence, 4, request), 0xBu);
}

Test(host, top_commits_the_quota_and_never_more_than_there_is)
{
    const double confidence[] = {0.1, 0.9, -1, 0.3};
    struct commit_request request = {.rule = COMMIT_TOP, .n_commit = 0};
    cr_assert_eq(committed(confidence, 4, request), 0u);
    request.n_commit = 1;
    cr_assert_eq(committed(confidence, 4, request), 0x2u);
    request.n_commit = 9;
    cr_assert_eq(committed(confidence, 4, request), 0xFu);
    cr_assert_eq(committed(confidence, 0, request), 0u);
}

Test(host, threshold_is_inclusive_and_takes_at_least_one)
{
    const double confidence[] = {0.5, 0.9, 0.89, 0.95};
    struct commit_request request = {.rule = COMMIT_THRESHOLD, .threshold = 0.9};
    cr_assert_eq(committed(confidence, 4, request), 0xAu);
    request.threshold = 0.99;
    cr_assert_eq(committed(confidence, 4, request), 0x8u);
    request.threshold = 0;
    cr_assert_eq(committed(confidence, 4, request), 0xFu);
    cr_assert_eq(committed(confidence, 0, request), 0u);
}

/* Descending: .99 .74 | .70 .2, where rank 3 needs .75; .99 .80 .76 | .2, where only the last
 * fails. */
Test(host, factor_stops_at_the_first_failing_rank_unless_it_is_the_last)
{
    struct commit_request request = {.rule = COMMIT_FACTOR, .factor = 1};
    const double third_fails[] = {0.99, 0.70, 0.74, 0.2};
    const double last_fails[] = {0.99, 0.80, 0.76, 0.2};
    cr_assert_eq(committed(third_fails, 4, request), 0x5u);
    cr_assert_eq(committed(last_fails, 4, request), 0xFu);
}

/* By rank from 2: 1 - 1 / (n + 1) and 1 - 0.5 / (n + 1). */
Test(host, factor_thresholds_by_rank_are_the_published_ones)
{
    const double needed[2][7] = {{.6667, .75, .8, .8333, .8571, .875, .8889},
                                 {.8333, .875, .9, .9167, .9286, .9375, .9444}};
    for (int f = 0; f < 2; f++) {
        struct commit_request request = {.rule = COMMIT_FACTOR, .factor = f == 0 ? 1 : 0.5};
        for (int32_t rank = 2; rank <= 8; rank++) {
            double confidence[10] = {0};
            for (int32_t i = 0; i < rank; i++)
                confidence[i] = needed[f][rank - 2] + 1e-4;
            uint32_t all = (1u << rank) - 1;
            cr_assert_eq(committed(confidence, 10, request), all, "rank %d", rank);
            confidence[rank - 1] -= 2e-4;
            cr_assert_eq(committed(confidence, 10, request), all >> 1, "rank %d", rank);
        }
    }
}

Test(host, factor_commits_the_first_and_a_reached_last_rank_whatever_they_are)
{
    struct commit_request request = {.rule = COMMIT_FACTOR, .factor = 1};
    const double low[] = {0.1, 0.05, 0.01};
    cr_assert_eq(committed(low, 1, request), 0x1u);
    cr_assert_eq(committed(low, 2, request), 0x3u);
    cr_assert_eq(committed(low, 3, request), 0x1u);
}

Test(host, each_commits_independently_with_its_probability)
{
    const double confidence[N_MAX] = {0};
    struct commit_request request = {.rule = COMMIT_EACH, .threshold = 0.25, .noise_key = {5, 6}};
    int32_t n_chosen = 0, n_steps = 2000;
    for (int32_t step = 0; step < n_steps; step++) {
        request.step = (uint32_t)step;
        n_chosen += __builtin_popcount(committed(confidence, N_MAX, request));
    }
    /* Mean 8000, deviation sqrt(32000 * 0.25 * 0.75) = 77; the seed is fixed. */
    cr_assert_lt(abs(n_chosen - 8000), 3 * 77, "%d", n_chosen);
    request.threshold = 1;
    cr_assert_eq(committed(confidence, N_MAX, request), 0xFFFFu);
    request.threshold = 0;
    cr_assert_eq(committed(confidence, N_MAX, request), 0u);
}

/* First draws of softmax({0, ln 2, ln 3} / 1): 1/6, 2/6, 3/6. */
Test(host, order_temperature_draws_from_the_softmax_of_confidence)
{
    const double confidence[] = {0, 0.6931471805599453, 1.0986122886681098};
    struct commit_request request = {
        .rule = COMMIT_TOP, .n_commit = 1, .order_temperature = 1, .noise_key = {7, 8}};
    int32_t counts[3] = {0}, n = 12000;
    double chi_square = 0;
    for (int32_t step = 0; step < n; step++) {
        request.step = (uint32_t)step;
        counts[__builtin_ctz(committed(confidence, 3, request))]++;
    }
    for (int32_t i = 0; i < 3; i++) {
        double expected = n * (i + 1) / 6.0;
        chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    cr_assert_lt(chi_square, 13.82, "chi-square %g", chi_square); /* 2 degrees, p = 0.001 */
}

Test(host, drawing_without_replacement_commits_each_pick_once)
{
    const double confidence[] = {0.2, 0.2, 0.9, 0.1, 0.4};
    struct commit_request request = {.rule = COMMIT_TOP, .order_temperature = 0.5};
    for (int32_t k = 0; k <= 5; k++) {
        request.n_commit = k;
        cr_assert_eq(__builtin_popcount(committed(confidence, 5, request)), k);
    }
}

/* Two heads of two, extent at slot 3 with 4 rows a head: [head][kept][head_dim]. */
Test(host, stored_rows_of_a_head_are_contiguous)
{
    float keys[64], values[64];
    const float fresh[2][8] = {{1, 2, 3, 4, 5, 6, 7, 8}, {11, 12, 13, 14, 15, 16, 17, 18}};
    const struct store_row store = {.row = 1, .index = 2, .n = 4, .cache_begin = 3};
    struct backend backend = {0};
    memset(keys, 0, sizeof keys);
    memset(values, 0, sizeof values);
    host_store_kv(&backend, &(struct store_kv_args){.cache = {keys, values, 16},
                                                    .fresh = {.x = {(void *)fresh, 2, 8, DTYPE_F32},
                                                              .key_col = 0,
                                                              .value_col = 4,
                                                              .n_kv_heads = 2,
                                                              .head_dim = 2},
                                                    .rows = &store,
                                                    .n = 1});
    int32_t head_0 = (3 * 2 + 0 * 4 + 2) * 2, head_1 = (3 * 2 + 1 * 4 + 2) * 2;
    cr_assert_eq(keys[head_0], 11);
    cr_assert_eq(keys[head_0 + 1], 12);
    cr_assert_eq(keys[head_1], 13);
    cr_assert_eq(values[head_0], 15);
    cr_assert_eq(values[head_1 + 1], 18);
    for (int32_t i = 0; i < 64; i++) {
        bool is_target = i / 2 == head_0 / 2 || i / 2 == head_1 / 2;
        cr_assert_eq(keys[i] != 0, is_target, "%d", i);
    }
}
