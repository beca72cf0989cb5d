/* The backends as a set: complete tables, opening by name, conversions, the order of life, and the
 * latch that carries an op's failure to the end of its step. */
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

#include "backend/backend.h"

/* ---- tables and names ---- */

Test(backend, every_table_is_complete)
{
    const struct backend_ops *const tables[] = {&backend_ref_ops, &backend_cpu_ops,
                                                &backend_cuda_ops};
    const char *const names[] = {"ref", "cpu", "cuda"};
    size_t n_slots = sizeof(struct backend_ops) / sizeof(void *);
    cr_assert_eq(n_slots * sizeof(void *), sizeof(struct backend_ops));
    for (int i = 0; i < 3; i++) {
        cr_assert_str_eq(tables[i]->name, names[i]);
        for (size_t slot = 0; slot < n_slots; slot++) {
            void *entry;
            memcpy(&entry, (const char *)tables[i] + slot * sizeof entry, sizeof entry);
            cr_assert_not_null(entry, "%s: slot %zu", names[i], slot);
        }
    }
}

Test(backend, an_unknown_name_is_refused_with_the_known_ones)
{
    struct backend backend = {0};
    struct error err = {0};
    cr_assert_not(backend_open(&backend, "tpu", &(struct backend_limits){0}, &err));
    cr_assert_eq(err.code, ERROR_USAGE);
    cr_assert_str_eq(err.message, "unknown backend 'tpu'; there are auto, cuda, cpu and ref");
    cr_assert_null(backend.ops);
    backend_close(&backend);
}

Test(backend, a_missing_cuda_backend_says_what_is_missing)
{
    struct backend backend = {0};
    struct error err = {0};
    if (backend_open(&backend, "cuda", &(struct backend_limits){0}, &err)) {
        backend_close(&backend);
        cr_skip_test("this machine has a CUDA backend");
    }
    cr_assert_eq(err.code, ERROR_UNAVAILABLE);
    cr_assert_not_null(strstr(err.message, "CUDA"));
    cr_assert_null(backend.ops);
}

Test(backend, auto_always_finds_one)
{
    struct backend backend = {0};
    struct error err = {0};
    cr_assert(backend_open(&backend, "auto", &(struct backend_limits){0}, &err), "%s", err.message);
    cr_assert_str_neq(backend.ops->name, "ref");
    backend_close(&backend);
    cr_assert_null(backend.ops);
}

/* ---- conversions ---- */

/* The value of a small binary float, from its fields. */
static double slow_value(uint16_t bits, int exponent_bits, int fraction_bits)
{
    int bias = (1 << (exponent_bits - 1)) - 1, exponent_max = (1 << exponent_bits) - 1;
    int exponent = (bits >> fraction_bits) & exponent_max;
    double fraction = ldexp(bits & ((1 << fraction_bits) - 1), -fraction_bits);
    double sign = bits >> 15 ? -1 : 1;
    if (exponent == exponent_max) return fraction > 0 ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, 1 - bias);
    return sign * ldexp(1 + fraction, exponent - bias);
}

static void assert_same(float found, double wanted, uint32_t bits)
{
    if (isnan(wanted)) {
        cr_assert(isnan(found), "%04x", bits);
        return;
    }
    cr_assert_eq((double)found, wanted, "%04x", bits);
    cr_assert_eq(signbit(found) != 0, signbit(wanted) != 0, "%04x", bits);
}

Test(backend, every_bf16_and_f16_converts_exactly)
{
    for (uint32_t bits = 0; bits <= 0xFFFF; bits++) {
        assert_same(dtype_f32_from_bf16((uint16_t)bits), slow_value((uint16_t)bits, 8, 7), bits);
        assert_same(dtype_f32_from_f16((uint16_t)bits), slow_value((uint16_t)bits, 5, 10), bits);
    }
}

Test(backend, every_bf16_survives_the_way_through_f32)
{
    for (uint32_t bits = 0; bits <= 0xFFFF; bits++) {
        float value = dtype_f32_from_bf16((uint16_t)bits);
        uint16_t back = dtype_bf16_from_f32(value);
        if (isnan(value)) cr_assert(isnan(dtype_f32_from_bf16(back)), "%04x", bits);
        else cr_assert_eq(back, bits, "%04x", bits);
    }
}

Test(backend, f32_rounds_to_the_nearest_bf16_and_ties_to_even)
{
    for (uint32_t bits = 0; bits < 0x7F80; bits++) { /* every finite positive one, and its next */
        uint32_t low = bits << 16;
        const struct {
            uint32_t f32;
            uint32_t bf16;
        } cases[] = {{low | 0x7FFF, bits},
                     {low | 0x8000, bits + (bits & 1)},
                     {low | 0x8001, bits + 1},
                     {low | 0xFFFF, bits + 1}};
        for (int i = 0; i < 4; i++) {
            float value;
            memcpy(&value, &cases[i].f32, sizeof value);
            cr_assert_eq(dtype_bf16_from_f32(value), cases[i].bf16, "%08x", cases[i].f32);
            cr_assert_eq(dtype_bf16_from_f32(-value), cases[i].bf16 | 0x8000, "-%08x",
                         cases[i].f32);
        }
    }
}

/* ---- steps ---- */

enum { N_VOCAB = 5 };

/* One row on the ref backend with an identity head: the hidden row is the logits. */
struct bench {
    struct backend backend;
    struct batch batch;
    struct score_args score;
    struct matrix copy; /* [1, N_VOCAB] */
};

static const int32_t zero = 0, one = 1;
static const struct sequence only = {.n_rows = 1, .n_picks = 1, .cache_begin = -1};

static struct matrix new_matrix(struct backend *backend, int32_t n_cols)
{
    void *data = backend_reserve(backend, REGION_SCRATCH, (size_t)n_cols * sizeof(float));
    return (struct matrix){data, 1, n_cols, DTYPE_F32};
}

static void bench_init(struct bench *bench, const struct score_row *row)
{
    const size_t region_bytes[REGION_COUNT] = {1 << 16, 0, 1 << 16};
    float identity[N_VOCAB * N_VOCAB] = {0};
    struct error err = {0};
    memset(bench, 0, sizeof *bench);
    cr_assert(backend_open(&bench->backend, "ref", &(struct backend_limits){0}, &err));
    cr_assert(backend_allocate(&bench->backend, region_bytes, &err));
    for (int i = 0; i < N_VOCAB; i++)
        identity[i * N_VOCAB + i] = 1;
    size_t head_bytes = backend_weight_bytes(&bench->backend, N_VOCAB, N_VOCAB, DTYPE_F32);
    struct weight head = {backend_reserve(&bench->backend, REGION_WEIGHTS, head_bytes), N_VOCAB,
                          N_VOCAB, DTYPE_F32};
    backend_upload_weight(&bench->backend, head, 0, N_VOCAB, identity);
    bench->batch = (struct batch){.n_rows = 1,
                                  .canvas_index = &zero,
                                  .position = &zero,
                                  .visible_end = &one,
                                  .n_sequences = 1,
                                  .sequences = &only,
                                  .n_picks = 1,
                                  .picked_row = &zero};
    bench->copy = new_matrix(&bench->backend, N_VOCAB);
    bench->score = (struct score_args){
        .picks = backend_reserve(&bench->backend, REGION_SCRATCH, sizeof(struct pick)),
        .hidden = new_matrix(&bench->backend, N_VOCAB),
        .head = head,
        .rows = row,
        .n = 1,
        .n_vocab = N_VOCAB,
        .mask_id = 4};
}

/* A step of score and gather_rows; the copy starts as zeros. */
static bool run_step(struct bench *bench, const float *logits, bool is_broken, struct error *err)
{
    const float zeros[N_VOCAB] = {0};
    uint64_t device_ns = 0;
    backend_upload(&bench->backend, bench->copy, zeros);
    backend_upload(&bench->backend, bench->score.hidden, logits);
    backend_start_step(&bench->backend, &bench->batch, 1);
    backend_score(&bench->backend, &bench->score);
    if (is_broken) error_set(&bench->backend.failure, ERROR_UNAVAILABLE, "the device is lost");
    backend_gather_rows(&bench->backend,
                        &(struct gather_rows_args){.out = bench->copy, .x = bench->score.hidden});
    bool is_done = backend_finish_step(&bench->backend, &device_ns, err);
    cr_assert_null(bench->backend.batch);
    return is_done;
}

Test(backend, a_failed_op_stops_the_step_and_the_next_step_runs)
{
    struct bench bench;
    struct error err = {0};
    const struct score_row row = {.uncond_row = -1, .top_p = 1};
    const float good[N_VOCAB] = {1, 7, 2, 3, 9};
    float copy[N_VOCAB];
    bench_init(&bench, &row);

    cr_assert_not(run_step(&bench, good, true, &err));
    cr_assert_eq(err.code, ERROR_UNAVAILABLE);
    cr_assert_str_eq(err.message, "the device is lost");
    backend_download(&bench.backend, copy, bench.copy);
    cr_assert_eq(copy[2], 0, "ops after a failure must do nothing");

    cr_assert(run_step(&bench, good, false, &err));
    backend_download(&bench.backend, copy, bench.copy);
    cr_assert_eq(copy[2], 2);
    cr_assert_eq(bench.score.picks[0].id, 1, "the mask (4) is no candidate");
    backend_close(&bench.backend);
}

Test(backend, two_steps_can_be_submitted_before_the_first_is_finished)
{
    struct bench bench;
    struct error err = {0};
    const struct score_row row = {.uncond_row = -1, .top_p = 1};
    const float logits[2][N_VOCAB] = {{1, 7, 2, 3, 9}, {8, 1, 2, 3, 9}};
    struct pick picks[2];
    uint64_t device_ns;
    bench_init(&bench, &row);
    struct matrix raw = {bench.score.picks, 1, (int32_t)sizeof picks[0] / 4, DTYPE_I32};
    for (int i = 0; i < 2; i++) {
        backend_upload(&bench.backend, bench.score.hidden, logits[i]);
        backend_start_step(&bench.backend, &bench.batch, 1);
        backend_score(&bench.backend, &bench.score);
        backend_submit_step(&bench.backend, &picks[i], raw);
        cr_assert_null(bench.backend.batch);
    }
    for (int i = 0; i < 2; i++) {
        cr_assert(backend_finish_step(&bench.backend, &device_ns, &err));
        cr_assert_eq(picks[i].id, i == 0 ? 1 : 0);
    }
    cr_assert_eq(bench.backend.n_submitted, 0);
    backend_close(&bench.backend);
}

Test(backend, a_row_whose_candidates_are_all_suppressed_has_no_pick)
{
    struct bench bench;
    struct error err = {0};
    const struct score_row row = {.uncond_row = -1,
                                  .top_p = 0.9,
                                  .top_k = 3,
                                  .temperature = 1,
                                  .n_suppressed = 4,
                                  .suppressed = {0, 1, 2, 3}};
    const float logits[N_VOCAB] = {1, 2, 3, 4, 5};
    bench_init(&bench, &row);
    cr_assert(run_step(&bench, logits, false, &err));
    cr_assert_eq(bench.score.picks[0].id, -1);
    backend_close(&bench.backend);
}

Test(backend, shapes_that_do_not_match_are_caught_by_the_wrapper, .signal = SIGABRT)
{
    struct bench bench;
    const struct score_row row = {.uncond_row = -1, .top_p = 1};
    bench_init(&bench, &row);
    backend_start_step(&bench.backend, &bench.batch, 1);
    bench.copy.n_cols = N_VOCAB - 1;
    backend_gather_rows(&bench.backend,
                        &(struct gather_rows_args){.out = bench.copy, .x = bench.score.hidden});
}

Test(backend, a_row_that_sees_nothing_is_caught_at_the_start, .signal = SIGABRT)
{
    struct bench bench;
    const struct score_row row = {.uncond_row = -1, .top_p = 1};
    bench_init(&bench, &row);
    bench.batch.visible_end = &zero;
    backend_start_step(&bench.backend, &bench.batch, 1);
}

Test(backend, ops_outside_a_step_are_caught, .signal = SIGABRT)
{
    struct bench bench;
    const struct score_row row = {.uncond_row = -1, .top_p = 1};
    bench_init(&bench, &row);
    backend_score(&bench.backend, &bench.score);
}
