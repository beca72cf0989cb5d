/* The step's clock, copies into the cache, and the commit rules. The rules walk a
 * request's picks in order of confidence without storing an order: each next pick is the best one
 * behind the last. */
#include "backend/host.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/noise.h"
#include "base/clock.h"

void host_start_step(struct backend *backend, const struct batch *batch, uint64_t shape_key)
{
    (void)shape_key; /* nothing to record: ops run at the call */
    assert(batch->n_rows > 0);
    backend->step_begin_ns = clock_now_ns();
}

void host_submit_step(struct backend *backend, void *target, struct matrix source)
{
    assert(backend->step_begin_ns > 0);
    assert(backend->n_submitted < BACKEND_STEPS_MOST);
    if (source.n_rows > 0) host_download(backend, target, source);
    backend->step_ns[backend->n_submitted] = clock_now_ns() - backend->step_begin_ns;
}

bool host_finish_step(struct backend *backend, uint64_t *device_ns, struct error *err)
{
    (void)err; /* no failure comes late */
    assert(backend->n_submitted > 0);
    *device_ns = backend->step_ns[0];
    backend->step_ns[0] = backend->step_ns[1];
    return true;
}

void host_store_kv(struct backend *backend, const struct store_kv_args *args)
{
    (void)backend;
    const struct kv_rows *fresh = &args->fresh;
    assert(fresh->n_kv_heads > 0);
    size_t head_bytes = (size_t)fresh->head_dim * sizeof(float);
    for (int32_t i = 0; i < args->n; i++) {
        const struct store_row *store = &args->rows[i];
        const float *source = host_row(fresh->x, store->row);
        for (int32_t h = 0; h < fresh->n_kv_heads; h++) {
            size_t to = host_cache_index(store->cache_begin, fresh->n_kv_heads, fresh->head_dim,
                                         store->n, h, store->index);
            const float *head = source + (ptrdiff_t)h * fresh->head_dim;
            memcpy((float *)args->cache.keys + to, head + fresh->key_col, head_bytes);
            memcpy((float *)args->cache.values + to, head + fresh->value_col, head_bytes);
        }
    }
}

/* ---- commit ---- */

static bool is_masked(const struct commit_args *args, int32_t pick)
{
    const int32_t *cells = args->canvas.data;
    assert(args->cell[pick] >= 0);
    return cells[args->cell[pick]] == args->mask_id;
}

/* What a request's picks are sorted by, descending. */
static double order_value(const struct commit_args *args, const struct commit_request *request,
                          int32_t pick)
{
    double value = args->picks[pick].confidence;
    if (request->rule != COMMIT_TOP || !(request->order_temperature > 0)) return value;
    double u = noise_uniform(request->noise_key, request->step, args->position[pick], NOISE_ORDER);
    return value / request->order_temperature - log(-log(u));
}

/* Does pick a come before pick b? Equal values: the lower position, which is the lower index. */
static bool is_before(double value_a, int32_t a, double value_b, int32_t b)
{
    return value_a > value_b || (value_a == value_b && a < b);
}

/* The first pick in order behind `last` (-1: the first of all), or -1 when none is left. */
static int32_t next_pick(const struct commit_args *args, const struct commit_request *request,
                         int32_t last)
{
    int32_t best = -1;
    double best_value = 0, last_value = last < 0 ? 0 : order_value(args, request, last);
    for (int32_t i = 0; i < request->n_picks; i++) {
        int32_t pick = request->pick_begin + i;
        double value = order_value(args, request, pick);
        if (!is_masked(args, pick)) continue;
        assert(!isnan(value));
        if (last >= 0 && !is_before(last_value, last, value, pick)) continue;
        if (best >= 0 && !is_before(value, pick, best_value, best)) continue;
        best = pick;
        best_value = value;
    }
    return best;
}

static void write_pick(const struct commit_args *args, int32_t pick)
{
    int32_t *cells = args->canvas.data;
    assert(args->picks[pick].id >= 0);
    cells[args->cell[pick]] = args->picks[pick].id;
    args->picks[pick].is_committed = 1;
    if (args->twin_cell[pick] >= 0) cells[args->twin_cell[pick]] = args->picks[pick].id;
}

static void commit_top(const struct commit_args *args, const struct commit_request *request)
{
    int32_t pick = -1;
    for (int32_t i = 0; i < request->n_commit; i++) {
        pick = next_pick(args, request, pick);
        if (pick < 0) return;
        write_pick(args, pick);
    }
}

static void commit_threshold(const struct commit_args *args, const struct commit_request *request)
{
    int32_t best = next_pick(args, request, -1);
    if (best < 0) return;
    for (int32_t i = 0; i < request->n_picks; i++) {
        int32_t pick = request->pick_begin + i;
        bool passes = pick == best || args->picks[pick].confidence >= request->threshold;
        if (passes && is_masked(args, pick)) write_pick(args, pick);
    }
}

/* Rank n >= 2 needs 1 - factor / (n + 1). The last rank always passes when it is reached: the
 * published rule does so, and published answers depend on it. */
static void commit_factor(const struct commit_args *args, const struct commit_request *request)
{
    int32_t pick = next_pick(args, request, -1);
    for (int32_t rank = 1; pick >= 0; rank++) {
        int32_t next = next_pick(args, request, pick);
        double needed = 1 - request->factor / (rank + 1);
        bool passes = rank == 1 || args->picks[pick].confidence >= needed;
        if (!passes && next >= 0) return;
        write_pick(args, pick);
        pick = next;
    }
}

static void commit_each(const struct commit_args *args, const struct commit_request *request)
{
    for (int32_t i = 0; i < request->n_picks; i++) {
        int32_t pick = request->pick_begin + i;
        double u =
            noise_uniform(request->noise_key, request->step, args->position[pick], NOISE_EACH);
        if (u < request->threshold && is_masked(args, pick)) write_pick(args, pick);
    }
}

static bool has_ids(const struct commit_args *args, const struct commit_request *request)
{
    assert(request->n_picks >= 0);
    for (int32_t i = 0; i < request->n_picks; i++)
        if (args->picks[request->pick_begin + i].id < 0 && is_masked(args, request->pick_begin + i))
            return false;
    return true;
}

void host_commit(struct backend *backend, const struct commit_args *args)
{
    (void)backend;
    assert(args->canvas.dtype == DTYPE_I32);
    for (int32_t i = 0; i < args->n; i++) {
        const struct commit_request *request = &args->requests[i];
        for (int32_t j = 0; j < request->n_picks; j++)
            args->picks[request->pick_begin + j].is_committed = 0;
        if (!has_ids(args, request)) continue;
        switch (request->rule) {
        case COMMIT_TOP: commit_top(args, request); break;
        case COMMIT_THRESHOLD: commit_threshold(args, request); break;
        case COMMIT_FACTOR: commit_factor(args, request); break;
        case COMMIT_EACH: commit_each(args, request); break;
        }
    }
}
