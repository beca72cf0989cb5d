/* check_ops [--backend NAME] [--isa NAME] [--threads N] [--seed N] [--bench] [op...]
 *
 * Checks ops of one backend against the formulas of backend.h on edge shapes (TAP), or times them.
 * A backend or instruction set that this machine lacks skips everything. */
#include "check_ops.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct check_op ops[] = {
    {"embed", check_embed, bench_embed},
    {"rms_norm", check_rms_norm, bench_rms_norm},
    {"linear", check_linear, bench_linear},
    {"rope", check_rope, bench_rope},
    {"store_kv", check_store_kv, bench_store_kv},
    {"attend", check_attend, bench_attend},
    {"gated_act", check_gated_act, bench_gated_act},
    {"gather_rows", check_gather_rows, bench_gather_rows},
    {"select_kv", check_select_kv, bench_select_kv},
    {"score", check_score, bench_score},
    {"commit", check_commit, bench_commit},
};

enum { N_OPS = sizeof ops / sizeof ops[0] };

static const size_t host_bytes = (size_t)1 << 32;

struct options {
    const char *backend;
    struct backend_limits limits;
    uint64_t seed;
    bool is_bench;
    bool wanted[N_OPS];
};

static bool want_op(struct options *options, const char *name)
{
    for (int i = 0; i < N_OPS; i++) {
        if (strcmp(name, ops[i].name) != 0) continue;
        options->wanted[i] = true;
        return true;
    }
    fprintf(stderr, "check_ops: '%s' is neither an option nor an op\n", name);
    return false;
}

static bool parse_options(struct options *options, int argc, char **argv)
{
    bool has_names = false;
    *options = (struct options){.backend = "cpu", .seed = 1};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        bool takes_value = true;
        if (strcmp(name, "--backend") == 0) options->backend = value;
        else if (strcmp(name, "--isa") == 0) options->limits.cpu_isa = value;
        else if (strcmp(name, "--threads") == 0) options->limits.n_threads = atoi(value);
        else if (strcmp(name, "--seed") == 0) options->seed = strtoull(value, NULL, 10);
        else takes_value = false;
        if (takes_value) {
            i++;
        } else if (strcmp(name, "--bench") == 0) {
            options->is_bench = true;
        } else {
            has_names = true;
            if (!want_op(options, name)) return false;
        }
    }
    for (int i = 0; i < N_OPS && !has_names; i++)
        options->wanted[i] = true;
    return true;
}

/* One block of the backend's memory serves all cases, front to back. */
static bool open_check(struct check *check, const struct options *options, struct error *err)
{
    if (!backend_open(&check->backend, options->backend, &options->limits, err)) return false;
    /* Benchmarks of the large model take more. */
    bool is_large = options->is_bench && check->backend.activation == DTYPE_BF16;
    size_t pool_bytes = (size_t)(is_large ? 4 : 1) << 30;
    size_t scratch = backend_scratch_bytes(&check->backend, 4096, 4096);
    const size_t region_bytes[REGION_COUNT] = {
        [REGION_WEIGHTS] = 64, [REGION_CACHE] = 64, [REGION_SCRATCH] = pool_bytes + scratch + 4096};
    if (!backend_allocate(&check->backend, region_bytes, err)) return false;
    check->pool = backend_reserve(&check->backend, REGION_SCRATCH, pool_bytes);
    check->pool_bytes = pool_bytes;
    return arena_create(&check->host, host_bytes, err);
}

static void close_check(struct check *check)
{
    arena_destroy(&check->host);
    backend_close(&check->backend);
}

/* Each op has a seed of its own, so that one alone sees what it sees among all. */
static bool run_op(struct check *check, const struct options *options, int i)
{
    check->random = options->seed * 1000003 + (uint64_t)i;
    check->failure[0] = '\0';
    check->n_cases = 0;
    assert(ops[i].check != NULL);
    if (options->is_bench) {
        ops[i].bench(check);
        return true;
    }
    ops[i].check(check);
    bool is_good = check->failure[0] == '\0';
    printf("%s %d - %s # %" PRId64 " cases\n", is_good ? "ok" : "not ok", i + 1, ops[i].name,
           check->n_cases);
    if (!is_good) printf("# %s\n", check->failure);
    fflush(stdout);
    return is_good;
}

static int run_all(struct check *check, const struct options *options)
{
    int n_failed = 0, n_wanted = 0;
    printf("# backend %s, isa %s, seed %" PRIu64 "\n", check->backend.ops->name,
           options->limits.cpu_isa != NULL ? options->limits.cpu_isa : "best", options->seed);
    for (int i = 0; i < N_OPS; i++)
        n_wanted += options->wanted[i];
    for (int i = 0; i < N_OPS; i++) {
        if (options->wanted[i] && !run_op(check, options, i)) n_failed++;
    }
    if (!options->is_bench) printf("1..%d\n", n_wanted);
    return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static struct check check;
    struct options options;
    struct error err = {0};
    if (!parse_options(&options, argc, argv)) return ERROR_USAGE;
    if (open_check(&check, &options, &err)) {
        int status = run_all(&check, &options);
        close_check(&check);
        return status;
    }
    close_check(&check);
    if (err.code == ERROR_UNAVAILABLE) {
        printf("1..0 # SKIP %s\n", err.message);
        return EXIT_SUCCESS;
    }
    printf("Bail out! %s\n", err.message);
    return EXIT_FAILURE;
}
