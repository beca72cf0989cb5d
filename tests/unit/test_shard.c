/* app/shard: each scheduler's variables make the shard they mean, what looks wrong is refused by
 * name, and partitions give every line to one shard, evenly, the same way each time. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/shard.h"

/* The environment of a test: "NAME=value" words, NULL at the end. */
static const char *const *environment;
static struct shard shard;
static struct error err;

static char *look_up(const char *name)
{
    size_t n = strlen(name);
    for (const char *const *word = environment; *word != NULL; word++)
        if (strncmp(*word, name, n) == 0 && (*word)[n] == '=') return (char *)*word + n + 1;
    return NULL;
}

#define WORDS_MAX 12

static void check_shard(int line, const char *value, const char *const words[WORDS_MAX],
                        const char *expected)
{
    char text[64] = "refused";
    environment = words;
    err = (struct error){0};
    bool is_ok = shard_choose(&shard, value, look_up, &err);
    if (is_ok) snprintf(text, sizeof text, "%d/%d", shard.index, shard.count);
    if (expected[0] >= '0' && expected[0] <= '9') {
        cr_assert_str_eq(text, expected, "line %d: %s", line, err.message);
        return;
    }
    cr_assert(!is_ok, "line %d: %s", line, text);
    cr_assert_eq(err.code, ERROR_USAGE);
    cr_assert_not_null(strstr(err.message, expected), "line %d: %s", line, err.message);
}

/* The environment behind `expected`; that is "i/n", or a part of the message that refuses. */
#define CHECK(value, expected, ...)                                                                \
    check_shard(__LINE__, value, (const char *const[WORDS_MAX]){__VA_ARGS__}, expected)
#define AUTO(expected, ...) CHECK("auto", expected, __VA_ARGS__)

#define ARRAY(id, min, max, step, count)                                                           \
    "SLURM_ARRAY_TASK_ID=" id, "SLURM_ARRAY_TASK_MIN=" min, "SLURM_ARRAY_TASK_MAX=" max,           \
        "SLURM_ARRAY_TASK_STEP=" step, "SLURM_ARRAY_TASK_COUNT=" count
#define STEP(id, rank, count)                                                                      \
    "SLURM_STEP_ID=" id, "SLURM_PROCID=" rank, "SLURM_STEP_NUM_TASKS=" count

/* ---- the command line ---- */

Test(shard, the_option_counts_from_zero)
{
    CHECK("0/1", "0/1", NULL);
    CHECK("3/8", "3/8", NULL);
    cr_assert(!shard.is_found);
    CHECK("99998/99999", "99998/99999", NULL);
    CHECK("off", "0/1", "DLLM_SHARD=1/2", "RANK=1", "WORLD_SIZE=2");
    CHECK("1/3", "1/3", "DLLM_SHARD=1/2", "SLURM_ARRAY_TASK_ID=x", "DLLM_SHARDS=9");
    static const char *const bad[] = {"8/8",
                                      "1/0",
                                      "0/0",
                                      "-1/2",
                                      "1/-2",
                                      "1",
                                      "/2",
                                      "1/",
                                      "a/2",
                                      "1/b",
                                      " 1/2",
                                      "1/2 ",
                                      "1/2/3",
                                      "",
                                      "Auto",
                                      "+1/2",
                                      "1.0/2",
                                      "0/100000",
                                      "1/99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(bad[i], "must be i/n with i from 0 to n - 1", NULL);
}

Test(shard, our_own_variable_comes_first)
{
    AUTO("0/1", NULL);
    AUTO("2/5", "DLLM_SHARD=2/5", ARRAY("0", "0", "7", "1", "8"));
    cr_assert(shard.is_found);
    cr_assert_str_eq(shard.origin, "DLLM_SHARD=2/5");
    AUTO("0/1", "DLLM_SHARD=off", "RANK=1", "WORLD_SIZE=2");
    AUTO("1/2", "DLLM_SHARD=", "RANK=1", "WORLD_SIZE=2");
    AUTO("DLLM_SHARD is '5/5', must be", "DLLM_SHARD=5/5");
}

/* ---- Slurm ---- */

Test(shard, slurm_arrays_begin_anywhere_and_have_steps)
{
    AUTO("0/4", ARRAY("4", "4", "10", "2", "4"));
    AUTO("3/4", ARRAY("10", "4", "10", "2", "4"));
    cr_assert_str_eq(shard.origin, "SLURM_ARRAY_TASK_ID=10");
    AUTO("7/8", ARRAY("8", "1", "8", "1", "8"));
    AUTO("0/1", ARRAY("5", "5", "5", "1", "1"));
    AUTO("SLURM_ARRAY_TASK_ID is 5 of 4 tasks", ARRAY("5", "4", "10", "2", "4"));
    AUTO("SLURM_ARRAY_TASK_ID is 11 of 4", ARRAY("11", "4", "10", "2", "4"));
    AUTO("SLURM_ARRAY_TASK_ID is 2 of 4", ARRAY("2", "4", "10", "2", "4"));
    AUTO("SLURM_ARRAY_TASK_ID is 'x', must", ARRAY("x", "4", "10", "2", "4"));
    AUTO("in steps of 0", ARRAY("4", "4", "10", "0", "4"));
    AUTO("SLURM_ARRAY_TASK_MIN is not set, but others", "SLURM_ARRAY_TASK_ID=4");
}

Test(shard, failed_tasks_of_an_array_that_are_started_again_are_no_shards)
{
    /* --array=1,3,7 of what was 0-7 */
    AUTO("which is no shard", ARRAY("1", "1", "7", "1", "3"));
    AUTO("which is no shard", ARRAY("3", "1", "7", "1", "3"));
    /* --array=3 looks like a job of its own, unless the number of shards is known. */
    AUTO("DLLM_SHARDS is 8, but this is shard 0 of 1 by SLURM_ARRAY_TASK_ID=3",
         ARRAY("3", "3", "3", "1", "1"), "DLLM_SHARDS=8");
    AUTO("DLLM_SHARDS is 8, but this is shard 1 of 2 by SLURM_ARRAY_TASK_ID=3",
         ARRAY("3", "2", "3", "1", "2"), "DLLM_SHARDS=8");
    AUTO("1/2", ARRAY("3", "2", "3", "1", "2"), "DLLM_SHARDS=2");
}

Test(shard, a_batch_script_does_all_the_work)
{
    AUTO("0/1", "SLURM_JOB_ID=1", "SLURM_PROCID=0", "SLURM_NTASKS=4", "SLURM_NPROCS=4");
    AUTO("0/1", "SLURM_PROCID=0", "SLURM_NTASKS=4", "SLURM_STEP_NUM_TASKS=4");
    AUTO("0/1", STEP("batch", "0", "4"));
    AUTO("0/1", STEP("4294967291", "0", "4")); /* the batch script's own step */
    AUTO("0/1", STEP("4294967290", "0", "4")); /* an interactive one's */
    AUTO("2/4", ARRAY("6", "4", "7", "1", "4"), "SLURM_PROCID=0", "SLURM_NTASKS=1");
}

Test(shard, slurm_steps_count_under_srun_and_multiply_with_arrays)
{
    AUTO("5/8", STEP("0", "5", "8"), "SLURM_NTASKS=16");
    cr_assert_str_eq(shard.origin, "SLURM_PROCID=5");
    AUTO("0/1", STEP("0", "0", "1"));
    AUTO("7/16", ARRAY("6", "4", "10", "2", "4"), STEP("3", "3", "4"), NULL);
    AUTO("7/16", ARRAY("6", "4", "10", "2", "4"), STEP("3", "3", "4"), "DLLM_SHARDS=16");
    AUTO("SLURM_PROCID is 4, must be from 0 to 3 as SLURM_STEP_NUM_TASKS is 4",
         STEP("0", "4", "4"));
    AUTO("SLURM_STEP_NUM_TASKS is 0", STEP("0", "0", "0"));
    AUTO("SLURM_PROCID is not set, but others", "SLURM_STEP_ID=0");
    AUTO("is of 1000 x 1000 shards", ARRAY("0", "0", "999", "1", "1000"), STEP("0", "0", "1000"));
}

/* ---- the others ---- */

Test(shard, every_launcher_is_understood)
{
    AUTO("2/3", "AWS_BATCH_JOB_ARRAY_INDEX=2", "AWS_BATCH_JOB_ARRAY_SIZE=3");
    AUTO("2/3", "BATCH_TASK_INDEX=2", "BATCH_TASK_COUNT=3");
    AUTO("2/3", "FLUX_TASK_RANK=2", "FLUX_JOB_SIZE=3");
    AUTO("2/3", "OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_SIZE=3");
    AUTO("2/3", "PMI_RANK=2", "PMI_SIZE=3");
    AUTO("2/3", "MV2_COMM_WORLD_RANK=2", "MV2_COMM_WORLD_SIZE=3");
    AUTO("2/3", "RANK=2", "WORLD_SIZE=3");
    cr_assert_str_eq(shard.origin, "RANK=2");
    AUTO("0/1", "RANK=2");
    AUTO("0/1", "WORLD_SIZE=3");
    AUTO("0/1", "RANK=0", "WORLD_SIZE=1");
    AUTO("RANK is 3, must be from 0 to 2 as WORLD_SIZE is 3", "RANK=3", "WORLD_SIZE=3");
    AUTO("PMI_RANK is '-1', must be a whole number", "PMI_RANK=-1", "PMI_SIZE=3");
    AUTO("PMI_SIZE is 'many', must be a whole number", "PMI_RANK=1", "PMI_SIZE=many");
    AUTO("WORLD_SIZE is 100000, must be from 1 to 99999", "RANK=3", "WORLD_SIZE=100000");
}

#define GRID(id, first, last, step)                                                                \
    "SGE_TASK_ID=" id, "SGE_TASK_FIRST=" first, "SGE_TASK_LAST=" last, "SGE_TASK_STEPSIZE=" step

Test(shard, arrays_that_count_from_one_are_understood_and_jobs_without_one_have_none)
{
    AUTO("0/8", GRID("1", "1", "8", "1"));
    AUTO("7/8", GRID("8", "1", "8", "1"));
    AUTO("0/1", GRID("undefined", "undefined", "undefined", "undefined"));
    AUTO("SGE_TASK_FIRST is 5, only 1 tells the shards", GRID("5", "5", "8", "1"));
    AUTO("SGE_TASK_STEPSIZE is 2, only 1 tells the shards", GRID("3", "1", "7", "2"));
    AUTO("SGE_TASK_FIRST is not set", "SGE_TASK_ID=1", "SGE_TASK_LAST=8");
    AUTO("0/1", "LSB_JOBINDEX=0");
    AUTO("LSB_JOBINDEX is set, but nothing says of how many", "LSB_JOBINDEX=1");
    AUTO("0/8", "LSB_JOBINDEX=1", "DLLM_SHARDS=8");
    AUTO("2/8", "LSB_JOBINDEX=3", "LSB_JOBINDEX_STEP=1", "DLLM_SHARDS=8");
    AUTO("LSB_JOBINDEX_STEP is 2, only 1 tells the shards", "LSB_JOBINDEX=3", "LSB_JOBINDEX_STEP=2",
         "DLLM_SHARDS=8");
    AUTO("LSB_JOBINDEX is 9, must be from 1 to 8", "LSB_JOBINDEX=9", "DLLM_SHARDS=8");
}

Test(shard, an_index_without_a_count_is_refused)
{
    AUTO("JOB_COMPLETION_INDEX is set, but nothing says of how many", "JOB_COMPLETION_INDEX=0");
    AUTO("AWS_BATCH_JOB_ARRAY_INDEX is set, but", "AWS_BATCH_JOB_ARRAY_INDEX=2");
    AUTO("6/8", "JOB_COMPLETION_INDEX=6", "DLLM_SHARDS=8");
    AUTO("JOB_COMPLETION_INDEX is 8, must be from 0 to 7 as DLLM_SHARDS is 8",
         "JOB_COMPLETION_INDEX=8", "DLLM_SHARDS=8");
    AUTO("0/1", "JOB_COMPLETION_INDEX=0", "DLLM_SHARDS=1");
    AUTO("DLLM_SHARDS is 8, but this is shard 0 of 1 by default", "DLLM_SHARDS=8");
    AUTO("DLLM_SHARDS is 'all'", "DLLM_SHARDS=all");
    AUTO("0/1", "DLLM_SHARDS=1");
    /* GNU parallel numbers whatever it runs, from 1. */
    AUTO("0/1", "PARALLEL_SEQ=5");
    AUTO("4/5", "PARALLEL_SEQ=5", "DLLM_SHARDS=5");
    AUTO("PARALLEL_SEQ is 6, must be from 1 to 5", "PARALLEL_SEQ=6", "DLLM_SHARDS=5");
    AUTO("PARALLEL_SEQ is 0, must be from 1 to 5", "PARALLEL_SEQ=0", "DLLM_SHARDS=5");
}

Test(shard, launchers_inside_of_each_other_must_agree)
{
    /* srun with PMI, alone and in an array */
    AUTO("5/8", STEP("0", "5", "8"), "PMI_RANK=5", "PMI_SIZE=8");
    AUTO("21/32", ARRAY("2", "0", "3", "1", "4"), STEP("0", "5", "8"), "PMI_RANK=5", "PMI_SIZE=8");
    /* one agent on each node, which starts eight workers */
    AUTO("RANK=9 makes it 9 of 32", STEP("0", "1", "4"), "RANK=9", "WORLD_SIZE=32");
    AUTO("SLURM_PROCID=1 makes this shard 1 of 4", STEP("0", "1", "4"), "OMPI_COMM_WORLD_RANK=9",
         "OMPI_COMM_WORLD_SIZE=32");
    /* what has one task shares nothing out */
    AUTO("3/4", STEP("0", "0", "1"), "RANK=3", "WORLD_SIZE=4");
    cr_assert_str_eq(shard.origin, "RANK=3");
    AUTO("3/4", "JOB_COMPLETION_INDEX=3", "DLLM_SHARDS=4", "RANK=0", "WORLD_SIZE=1");
}

/* ---- names ---- */

Test(shard, the_number_stands_before_the_suffixes)
{
    static const char *const cases[][2] = {
        {"OUT.jsonl.zst", "OUT.00003-of-00008.jsonl.zst"},
        {"OUT.jsonl", "OUT.00003-of-00008.jsonl"},
        {"OUT.txt", "OUT.00003-of-00008.txt"},
        {"OUT.zst", "OUT.00003-of-00008.zst"},
        {"OUT", "OUT.00003-of-00008"},
        {"a.b/OUT", "a.b/OUT.00003-of-00008"},
        {"a.out.jsonl.zst", "a.out.00003-of-00008.jsonl.zst"},
        {".hidden", ".hidden.00003-of-00008"},
        {"-", "-"},
    };
    char name[64];
    const struct shard third = {.index = 3, .count = 8}, whole = {.count = 1};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert(shard_name(&third, cases[i][0], name, sizeof name));
        cr_assert_str_eq(name, cases[i][1]);
        cr_assert(shard_name(&whole, cases[i][0], name, sizeof name));
        cr_assert_str_eq(name, cases[i][0]);
    }
    cr_assert(shard_name(&third, "a.jsonl", name, 22 + 1));
    cr_assert(!shard_name(&third, "a.jsonl", name, 22));
    cr_assert(!shard_name(&whole, "a.jsonl", name, 7));
}

/* ---- partitions ---- */

static struct arena arena;

enum { LINES_MAX = 100000 };

/* Shares out `n` lines with these costs among `count` shards: every line goes to exactly one, and
 * nothing changes when it is done again. Loads [count] or NULL. The imbalance. */
static double check_partition(const double *costs, int32_t n, int32_t count, double *loads)
{
    static struct shard_line lines[LINES_MAX];
    static bool is_taken[LINES_MAX];
    double imbalance = -1;
    int64_t n_all = 0;
    for (int32_t i = 0; i < count; i++) {
        struct shard one = {.index = i, .count = count};
        int64_t n_mine = 0;
        for (int32_t k = 0; k < n; k++)
            lines[k] = (struct shard_line){.cost = (float)costs[k], .place = (uint32_t)k};
        cr_assert(shard_partition(&one, lines, n, &arena, &err), "%s", err.message);
        for (int32_t k = 0; k < n; k++) {
            if (!shard_has(&one, k, 99)) continue;
            cr_assert(!is_taken[k], "line %d of %d in %d shards", k, n, count);
            is_taken[k] = true;
            if (costs[k] <= 0) cr_assert_eq(k % count, i);
            if (loads != NULL) loads[i] += costs[k];
            n_mine++;
        }
        cr_assert_eq(n_mine, one.n_mine);
        cr_assert_eq(one.n_lines, n);
        cr_assert(imbalance < 0 || memcmp(&imbalance, &one.imbalance, sizeof imbalance) == 0);
        imbalance = one.imbalance;
        n_all += n_mine;
        arena_rewind(&arena, 0);
    }
    cr_assert_eq(n_all, n);
    memset(is_taken, 0, sizeof is_taken);
    return imbalance;
}

/* Costs of mix `kind`: alike, uniform, over six decades, a few giants among dwarfs, half of them
 * nothing. */
static void draw_costs(double *costs, int32_t n, int kind)
{
    for (int32_t i = 0; i < n; i++) {
        double u = (double)rand() / RAND_MAX;
        switch (kind) {
        case 0: costs[i] = 1e15; break;
        case 1: costs[i] = 1e12 + u * 1e15; break;
        case 2: costs[i] = pow(10, 9 + 6 * u); break;
        case 3: costs[i] = i % 1000 == 7 ? 1e15 : 1e12; break;
        default: costs[i] = i % 2 == 0 ? 0 : 1e9 + u; break;
        }
    }
}

static void open_arena(void)
{
    cr_assert(arena_create(&arena, (size_t)1 << 26, &err));
}

static void close_arena(void)
{
    arena_destroy(&arena);
}

Test(shard, every_line_has_one_shard_and_shards_are_even, .init = open_arena, .fini = close_arena)
{
    static const int32_t sizes[] = {1, 2, 7, 100, 1000, LINES_MAX};
    static const int32_t counts[] = {2, 3, 8, 64};
    double *costs = malloc(LINES_MAX * sizeof *costs);
    for (int kind = 0; kind < 5; kind++) {
        for (int k = 0; k < 6 * 4; k++) {
            int32_t n = sizes[k / 4];
            int32_t count = counts[k % 4];
            double loads[64] = {0}, sum = 0, most = 0, fullest = 0;
            if (n == LINES_MAX && count == 64 && kind != 2) continue;
            srand((unsigned)(100 * kind + k));
            draw_costs(costs, n, kind);
            for (int32_t i = 0; i < n; i++) {
                sum += costs[i];
                most = fmax(most, costs[i]);
            }
            double imbalance = check_partition(costs, n, count, loads);
            for (int32_t i = 0; i < count; i++)
                fullest = fmax(fullest, loads[i]);
            double wanted = sum > 0 ? fullest * count / sum - 1 : 0;
            cr_assert_float_eq(imbalance, wanted, 1e-5 * (1 + wanted), "%g %g", imbalance, wanted);
            /* Within 2 %, unless a line is so large that it alone makes more. */
            double least = sum > 0 ? most * count / sum : 0;
            cr_assert_leq(imbalance, fmax(0.02, least), "kind %d, %d lines in %d: %g", kind, n,
                          count, imbalance);
        }
    }
    free(costs);
}

Test(shard, equal_costs_go_round_from_the_first_line, .init = open_arena, .fini = close_arena)
{
    for (int32_t index = 0; index < 3; index++) {
        struct shard_line lines[10];
        struct shard one = {.index = index, .count = 3};
        for (int i = 0; i < 10; i++)
            lines[i] = (struct shard_line){.cost = 5, .place = (uint32_t)i};
        cr_assert(shard_partition(&one, lines, 10, &arena, &err));
        for (int i = 0; i < 10; i++)
            cr_assert_eq(shard_has(&one, i, 1), i % 3 == index, "line %d", i);
    }
}

Test(shard, a_million_lines_are_shared_out_in_little_memory, .init = open_arena,
     .fini = close_arena)
{
    enum { N = 1000000 };
    struct shard_line *lines = malloc(N * sizeof *lines);
    struct shard one = {.index = 4711, .count = 9999};
    srand(3);
    for (int i = 0; i < N; i++)
        lines[i] = (struct shard_line){.cost = 1e9f + (float)rand(), .place = (uint32_t)i};
    cr_assert(shard_partition(&one, lines, N, &arena, &err));
    cr_assert_leq(one.imbalance, 0.02);
    cr_assert_leq(arena.used_bytes, N / 8 + 128);
    cr_assert_leq(arena.peak_bytes, N);
    free(lines);
}

Test(shard, ids_decide_by_their_hash_and_unknown_ones_by_place)
{
    for (int64_t place = 0; place < 20; place++) {
        for (uint64_t hash = 0; hash < 9; hash++) {
            int32_t n_takers = 0;
            for (int32_t i = 0; i < 4; i++) {
                const struct shard one = {.index = i, .count = 4};
                bool has = shard_has(&one, place, hash);
                n_takers += has;
                if (has) cr_assert_eq(i, (int32_t)((hash > 0 ? (int64_t)hash : place) % 4));
            }
            cr_assert_eq(n_takers, 1);
        }
    }
    cr_assert(shard_has(&(struct shard){.count = 1}, 5, 17));
}

Test(shard, a_missing_file_of_an_output_is_told_by_the_names_of_the_others)
{
    const char *const paths[] = {"a/x.00000-of-00003.jsonl.zst", "a/x.00002-of-00003.jsonl.zst",
                                 "a/x.00001-of-00003.jsonl.zst", "whole.jsonl"};
    const char *const bare[] = {"x.00001-of-00002", "x.00000-of-00002"};
    const char *const grown[] = {"x.00003-of-00004.jsonl", "x.00000-of-00002.jsonl",
                                 "x.00001-of-00002.jsonl"};
    int32_t missing = -1, count = -1;
    cr_assert(shard_are_all(paths, 4, &missing, &count));
    cr_assert(shard_are_all(paths + 3, 1, &missing, &count), "names without numbers");
    cr_assert(shard_are_all(bare, 2, &missing, &count));
    cr_assert(shard_are_all(grown, 3, &missing, &count), "all of a later number");
    cr_assert_eq(missing, -1);
    cr_assert_not(shard_are_all(paths, 2, &missing, &count));
    cr_assert(missing == 1 && count == 3);
    cr_assert_not(shard_are_all(bare, 1, &missing, &count));
    cr_assert(missing == 0 && count == 2);
}
