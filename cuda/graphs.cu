/* Recorded steps. The ops of a step with a shape_key come in two parts, which end where the host
 * has to look at what it was given: the forward pass, then score and commit. The first time a
 * part's key is met, its ops are launched one by one; the second time they are recorded as a CUDA
 * graph; from then on they launch nothing, and the graph does it for them:
 *
 *     ops write their host arrays      one copy of them all      one launch of the graph
 *     to the step's pinned memory  ->  to the same place      -> (graphs_end)
 *
 * Nothing in a graph depends on which of two steps it belongs to, because pinned memory is read by
 * the copy alone, which stays outside, as do the events. All that has to happen before something
 * can be recorded (kernels loaded, algorithms chosen) has happened when the key was met first. */
#include <assert.h>

#include "cuda/cuda_state.cuh"

static bool has_failed(const struct backend *backend)
{
    return backend->failure.code != ERROR_NONE;
}

/* The part with that key, or one that is new: in a free place, or the one used longest ago. A graph
 * that still runs may be destroyed; it is freed when it ends. */
static struct cuda_graph *find_part(struct cuda_graphs *graphs, uint64_t key)
{
    struct cuda_graph *oldest = &graphs->parts[0];
    assert(key != 0);
    for (int32_t i = 0; i < CUDA_GRAPHS_MAX; i++) {
        struct cuda_graph *part = &graphs->parts[i];
        if (part->key == key) return part;
        if (part->last_use < oldest->last_use) oldest = part;
    }
    if (oldest->exec) cudaGraphExecDestroy(oldest->exec);
    *oldest = {};
    oldest->key = key;
    return oldest;
}

static void forget_part(struct cuda_graph *part)
{
    assert(part->key != 0);
    if (part->exec) cudaGraphExecDestroy(part->exec);
    *part = {};
}

/* Steps are launched op by op from now on. The status is cleared, or the next launch would be taken
 * for the one that failed. */
static void give_up(struct backend *backend)
{
    assert(has_failed(backend));
    backend->graphs.is_on = false;
    backend->n_picks_multiple = 1;
    cudaGetLastError();
}

static void begin_part(struct backend *backend, uint64_t key)
{
    struct cuda *cuda = cuda_of(backend);
    struct cuda_graphs *graphs = &cuda->graphs;
    assert(graphs->part == NULL);
    graphs->key = backend->graphs.is_on ? key : 0;
    if (graphs->key == 0 || has_failed(backend)) return;
    graphs->signature = heuristics_mix(key, cuda->staging.used);
    struct cuda_graph *part = graphs->part = find_part(graphs, key);
    part->last_use = ++graphs->n_uses;
    if (part->exec) {
        graphs->mode = CUDA_REPLAYS;
    } else if (part->signature != 0) {
        /* ThreadLocal: a call that no graph can hold (a wait, an allocation) is then an error, and
         * what other threads do is theirs. cudaFuncSetAttribute is no such call. */
        cuda_check(backend, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
                   "recording a step");
        if (has_failed(backend)) give_up(backend);
        else graphs->mode = CUDA_RECORDS;
    }
}

static void end_recording(struct backend *backend, struct cuda_graph *part)
{
    cudaGraph_t recorded = NULL;
    assert(part->exec == NULL);
    cuda_check(backend, cudaStreamEndCapture(cuda_of(backend)->stream, &recorded),
               "recording a step");
    if (!has_failed(backend)) {
        cuda_check(backend, cudaGraphInstantiate(&part->exec, recorded, 0), "a recorded step");
        if (has_failed(backend)) part->exec = NULL;
    }
    if (recorded) cudaGraphDestroy(recorded);
    if (has_failed(backend)) give_up(backend);
}

/* Ends the open part; what was recorded or is to be replayed is launched. */
static void end_part(struct backend *backend)
{
    struct cuda *cuda = cuda_of(backend);
    struct cuda_graphs *graphs = &cuda->graphs;
    struct cuda_graph *part = graphs->part;
    enum cuda_mode mode = graphs->mode;
    graphs->was[mode] = true;
    graphs->part = NULL;
    graphs->mode = CUDA_ISSUES;
    assert(part != NULL || mode == CUDA_ISSUES);
    if (part == NULL) return;
    if (mode == CUDA_RECORDS) end_recording(backend, part);
    if (has_failed(backend)) {
        forget_part(part);
        return;
    }
    /* Steps with equal keys issue equal ops. */
    assert(part->signature == 0 || part->signature == graphs->signature);
    part->signature = graphs->signature;
    if (mode == CUDA_ISSUES) return;
    CUDA_ISSUE(backend, part, cudaGraphLaunch(part->exec, cuda->stream), "a recorded step");
    if (has_failed(backend)) give_up(backend);
}

void graphs_start(struct backend *backend, uint64_t key)
{
    struct cuda_graphs *graphs = &cuda_of(backend)->graphs;
    assert(graphs->mode == CUDA_ISSUES);
    graphs->was[CUDA_ISSUES] = graphs->was[CUDA_RECORDS] = graphs->was[CUDA_REPLAYS] = false;
    begin_part(backend, key);
}

void graphs_cut(struct backend *backend, uint64_t key)
{
    end_part(backend);
    begin_part(backend, key);
}

void graphs_end(struct backend *backend)
{
    const bool *was = cuda_of(backend)->graphs.was;
    end_part(backend);
    assert(was[CUDA_ISSUES] || was[CUDA_RECORDS] || was[CUDA_REPLAYS]);
    if (!backend->graphs.is_on) return;
    if (was[CUDA_RECORDS]) backend->graphs.n_recorded++;
    else if (was[CUDA_ISSUES]) backend->graphs.n_eager++;
    else backend->graphs.n_replayed++;
}

void graphs_close(struct cuda_graphs *graphs)
{
    assert(graphs->part == NULL);
    for (int32_t i = 0; i < CUDA_GRAPHS_MAX; i++)
        if (graphs->parts[i].key != 0) forget_part(&graphs->parts[i]);
}
