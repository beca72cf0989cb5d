/* The proof of a plan: everything is derived again from the runs, the phases and the world; nothing
 * is taken from the planner's own books. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "plan/plan.h"
#include "plan/world.h"

struct proof {
    const struct plan *plan;
    const struct plan_input *input;
    struct arena *scratch;
    struct plan_run *runs;        /* [n_runs] by request, then iteration */
    struct iteration_load *loads; /* [n_iterations] padding not counted */
    struct live *lives;           /* extents, each while it is read or written */
    int64_t n_lives;
};

/* Slots [begin, begin + n) in iterations [from, until). */
struct live {
    int64_t begin, n, from, until;
    int32_t request;
};

static int compare_runs(const void *a, const void *b)
{
    const struct plan_run *x = a, *y = b;
    if (x->request != y->request) return x->request < y->request ? -1 : 1;
    return (x->iteration_begin > y->iteration_begin) - (x->iteration_begin < y->iteration_begin);
}

static int compare_lives(const void *a, const void *b)
{
    const struct live *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

/* ---- steps ---- */

/* One request's walk through its runs. */
struct walk {
    struct world_request world;
    struct live prompt, kept; /* until 0: not live */
    int64_t last;             /* its last iteration */
};

static void end_life(struct proof *proof, struct live *life)
{
    if (life->until > 0) proof->lives[proof->n_lives++] = *life;
    assert(proof->n_lives <= 2 * proof->plan->n_runs + 2 * proof->plan->n_requests);
    life->until = 0;
}

/* The extents that the step writes or reads. */
static void follow_extents(struct proof *proof, struct walk *walk, const struct plan_run *run,
                           const struct step_shape *shape, int64_t index)
{
    const struct phases *phases = walk->world.phases;
    int64_t n_prompt = (int64_t)phases_prompt_slots(phases) * phases->n_twins;
    int64_t n_kept = (int64_t)phases_kept_slots(phases, walk->world.block) * phases->n_twins;
    assert(run->n_steps > 0);
    if (shape->stores_prompt && walk->world.step == 0) { /* all of it is written anew */
        end_life(proof, &walk->prompt);
        walk->prompt = (struct live){run->prompt_begin, n_prompt, index, 0, run->request};
    }
    if (shape->stores_prompt || shape->sees_prompt) walk->prompt.until = index + 1;
    if (shape->n_kept > 0 && run->kept_begin >= 0 && walk->kept.until == 0)
        walk->kept = (struct live){run->kept_begin, n_kept, index, index + 1, run->request};
    if (shape->sees_kept) walk->kept.until = index + 1;
}

/* Whether what the step sees is what was written for it. */
static bool sees_its_own(const struct walk *walk, const struct plan_run *run,
                         const struct step_shape *shape)
{
    assert(run->request >= 0);
    if (shape->sees_prompt && (walk->prompt.until == 0 || walk->prompt.begin != run->prompt_begin))
        return false;
    return !shape->sees_kept || (walk->kept.until > 0 && walk->kept.begin == run->kept_begin);
}

static bool take_step(struct proof *proof, struct walk *walk, const struct plan_run *run,
                      int32_t step, struct error *err)
{
    int64_t index = run->iteration_begin + step - run->step_begin;
    struct step_shape shape;
    if (run->block != walk->world.block || step != walk->world.step)
        return error_set(
            err, ERROR_FORMAT,
            "request %d: block %d step %d in iteration %lld, expected block %d step %d",
            run->request, run->block, step, (long long)index, walk->world.block, walk->world.step);
    if (index <= walk->last || index >= proof->plan->n_iterations)
        return error_set(err, ERROR_FORMAT, "request %d: iteration %lld is out of order",
                         run->request, (long long)index);
    walk->last = index;
    phases_step(walk->world.phases, run->block, step, &shape);
    if (!sees_its_own(walk, run, &shape))
        return error_set(err, ERROR_FORMAT,
                         "request %d: block %d step %d sees no extent of its own", run->request,
                         run->block, step);
    follow_extents(proof, walk, run, &shape, index);
    cost_add_step(&proof->loads[index], walk->world.phases, &shape, walk->world.n_left);
    assert(shape.n_rows > 0);
    return true;
}

/* Whether the request's times are those of its first and its last iteration. */
static bool check_times(const struct proof *proof, int32_t request, int64_t first, int64_t last,
                        struct error *err)
{
    const struct plan_request_record *record = &proof->plan->requests[request];
    const struct plan_iteration_record *iterations = proof->plan->iterations;
    uint64_t arrival_ns = proof->input->arrival_ns ? proof->input->arrival_ns[request] : 0;
    assert(first <= last);
    if (iterations[first].start_ns < arrival_ns)
        return error_set(err, ERROR_FORMAT, "request %d starts before its arrival", request);
    if (record->arrival_ns == arrival_ns && record->first_ns == iterations[first].start_ns &&
        record->finished_ns == iterations[last].end_ns)
        return true;
    return error_set(err, ERROR_FORMAT,
                     "request %d: its times are not those of iterations %lld to %lld", request,
                     (long long)first, (long long)last);
}

/* All runs of one request, the first of them at `at`; returns the next request's first, or -1. */
static int64_t follow_request(struct proof *proof, int64_t at, int32_t request, struct error *err)
{
    const struct plan *plan = proof->plan;
    struct walk walk = {.last = -1};
    enum step_outcome outcome = STEP_GOES_ON;
    int64_t first = at;
    world_start(&walk.world, proof->input, request);
    for (; at < plan->n_runs && proof->runs[at].request == request; at++) {
        const struct plan_run *run = &proof->runs[at];
        if (run->n_steps < 1) {
            error_set(err, ERROR_FORMAT, "request %d: a run of %d steps", request, run->n_steps);
            return -1;
        }
        for (int32_t i = 0; i < run->n_steps; i++) {
            if (outcome == STEP_END) {
                error_set(err, ERROR_FORMAT, "request %d goes on after its end", request);
                return -1;
            }
            if (!take_step(proof, &walk, run, run->step_begin + i, err)) return -1;
            outcome = world_step(&walk.world);
            if (outcome != STEP_GOES_ON) end_life(proof, &walk.kept);
        }
    }
    end_life(proof, &walk.prompt);
    assert(walk.kept.until == 0 || outcome == STEP_GOES_ON);
    if (outcome != STEP_END) {
        error_set(err, ERROR_FORMAT, "request %d never ends", request);
        return -1;
    }
    return check_times(proof, request, proof->runs[first].iteration_begin, walk.last, err) ? at
                                                                                           : -1;
}

static bool follow_requests(struct proof *proof, struct error *err)
{
    const struct plan *plan = proof->plan;
    int64_t at = 0;
    assert(plan->n_requests == proof->input->n_requests);
    for (int32_t i = 0; at >= 0 && i < plan->n_requests; i++)
        at = follow_request(proof, at, i, err);
    if (at < 0) return false;
    if (at == plan->n_runs) return true;
    return error_set(err, ERROR_FORMAT, "request %d has a run, but there are %d requests",
                     proof->runs[at].request, plan->n_requests);
}

/* ---- iterations ---- */

static bool check_rows(const struct proof *proof, int64_t index, struct error *err)
{
    const struct plan_iteration_record *iteration = &proof->plan->iterations[index];
    int64_t n_rows = proof->loads[index].n_rows, n_rows_max = proof->plan->options.n_rows_max;
    assert(n_rows_max > 0);
    if (n_rows == 0 || n_rows != iteration->n_rows)
        return error_set(err, ERROR_FORMAT, "iteration %lld is said to have %d rows, has %lld",
                         (long long)index, iteration->n_rows, (long long)n_rows);
    if (iteration->n_pad_rows < 0 || n_rows + iteration->n_pad_rows > n_rows_max)
        return error_set(err, ERROR_FORMAT,
                         "iteration %lld has %lld rows and %d of padding, at "
                         "most %lld",
                         (long long)index, (long long)n_rows, iteration->n_pad_rows,
                         (long long)n_rows_max);
    return true;
}

/* Iterations follow one another and take as long as the cost model says. */
static bool check_iterations(const struct proof *proof, struct error *err)
{
    const struct plan *plan = proof->plan;
    uint64_t last_ns = 0;
    assert(plan->n_iterations > 0);
    for (int64_t i = 0; i < plan->n_iterations; i++) {
        const struct plan_iteration_record *iteration = &plan->iterations[i];
        struct iteration_load load = proof->loads[i];
        if (!check_rows(proof, i, err)) return false;
        load.n_rows += iteration->n_pad_rows;
        uint64_t ns = cost_iteration_ns(proof->input->cost, &load);
        if (iteration->start_ns < last_ns || iteration->end_ns != iteration->start_ns + ns)
            return error_set(err, ERROR_FORMAT,
                             "iteration %lld goes from %llu to %llu ns, takes %llu after %llu",
                             (long long)i, (unsigned long long)iteration->start_ns,
                             (unsigned long long)iteration->end_ns, (unsigned long long)ns,
                             (unsigned long long)last_ns);
        last_ns = iteration->end_ns;
    }
    if (plan->makespan_ns == last_ns) return true;
    return error_set(err, ERROR_FORMAT, "the plan is said to end at %llu ns, ends at %llu",
                     (unsigned long long)plan->makespan_ns, (unsigned long long)last_ns);
}

/* ---- extents ---- */

/* Puts `life` among the live ones, which are sorted by slot; those that are over leave. */
static bool add_life(const struct live *life, struct live *alive, int64_t *n_alive,
                     struct error *err)
{
    int64_t n = 0, place = 0;
    for (int64_t i = 0; i < *n_alive; i++) {
        if (alive[i].until <= life->from) continue;
        alive[n] = alive[i];
        if (alive[n].begin < life->begin) place = n + 1;
        n++;
    }
    assert(place <= n);
    bool before = place > 0 && alive[place - 1].begin + alive[place - 1].n > life->begin;
    bool after = place < n && life->begin + life->n > alive[place].begin;
    if (before || after)
        return error_set(err, ERROR_FORMAT,
                         "iteration %lld: slots %lld to %lld of request %d are also held by %d",
                         (long long)life->from, (long long)life->begin,
                         (long long)(life->begin + life->n), life->request,
                         alive[before ? place - 1 : place].request);
    memmove(&alive[place + 1], &alive[place], (size_t)(n - place) * sizeof *alive);
    alive[place] = *life;
    *n_alive = n + 1;
    return true;
}

static bool check_extents(struct proof *proof, struct error *err)
{
    int64_t n_alive = 0;
    struct live *alive =
        arena_push(proof->scratch, (size_t)proof->plan->n_requests * 2 + 1, sizeof *alive);
    qsort(proof->lives, (size_t)proof->n_lives, sizeof *proof->lives, compare_lives);
    for (int64_t i = 0; i < proof->n_lives; i++) {
        const struct live *life = &proof->lives[i];
        assert(life->from < life->until);
        if (life->n == 0) continue;
        if (life->begin < 0 || life->begin + life->n > proof->plan->options.n_slots)
            return error_set(err, ERROR_FORMAT,
                             "request %d: slots %lld to %lld are not in the pool", life->request,
                             (long long)life->begin, (long long)(life->begin + life->n));
        if (!add_life(life, alive, &n_alive, err)) return false;
    }
    return true;
}

bool plan_check(const struct plan *plan, const struct plan_input *input, struct arena *scratch,
                struct error *err)
{
    assert(plan->runs);
    size_t mark = scratch->used_bytes, n_runs = (size_t)plan->n_runs;
    struct proof proof = {.plan = plan, .input = input, .scratch = scratch};
    proof.runs = arena_push(scratch, n_runs, sizeof *proof.runs);
    proof.loads = arena_push(scratch, (size_t)plan->n_iterations, sizeof *proof.loads);
    proof.lives = arena_push(scratch, 2 * (n_runs + (size_t)plan->n_requests), sizeof *proof.lives);
    memcpy(proof.runs, plan->runs, n_runs * sizeof *proof.runs);
    qsort(proof.runs, n_runs, sizeof *proof.runs, compare_runs);
    bool ok =
        follow_requests(&proof, err) && check_iterations(&proof, err) && check_extents(&proof, err);
    arena_rewind(scratch, mark);
    return ok;
}
