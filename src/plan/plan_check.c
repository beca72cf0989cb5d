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
    struct plan_run *runs; /* [n_runs] by request, then iteration */
    int32_t *n_rows;       /* [n_iterations] */
    struct live *lives;    /* extents, each while it is read or written */
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
    proof->n_rows[index] += shape.n_rows * walk->world.phases->n_twins;
    assert(shape.n_rows > 0);
    return true;
}

/* All runs of one request, the first of them at `at`; returns the next request's first, or -1. */
static int64_t follow_request(struct proof *proof, int64_t at, int32_t request, struct error *err)
{
    const struct plan *plan = proof->plan;
    struct walk walk = {.last = -1};
    enum step_outcome outcome = STEP_GOES_ON;
    world_start(&walk.world, proof->input, request);
    uint64_t arrival_ns = proof->input->arrival_ns ? proof->input->arrival_ns[request] : 0;
    if (at < plan->n_runs && proof->runs[at].request == request &&
        plan->iterations[proof->runs[at].iteration_begin].start_ns < arrival_ns) {
        error_set(err, ERROR_FORMAT, "request %d starts before its arrival", request);
        return -1;
    }
    for (; at < plan->n_runs && proof->runs[at].request == request; at++) {
        const struct plan_run *run = &proof->runs[at];
        for (int32_t step = run->step_begin; step < run->step_begin + run->n_steps; step++) {
            if (outcome == STEP_END) {
                error_set(err, ERROR_FORMAT, "request %d goes on after its end", request);
                return -1;
            }
            if (!take_step(proof, &walk, run, step, err)) return -1;
            outcome = world_step(&walk.world);
            if (outcome != STEP_GOES_ON) end_life(proof, &walk.kept);
        }
    }
    end_life(proof, &walk.prompt);
    assert(walk.kept.until == 0 || outcome == STEP_GOES_ON);
    if (outcome == STEP_END) return at;
    error_set(err, ERROR_FORMAT, "request %d never ends", request);
    return -1;
}

/* ---- rows ---- */

static bool check_rows(const struct proof *proof, struct error *err)
{
    const struct plan *plan = proof->plan;
    assert(plan->options.n_rows_max > 0);
    for (int64_t i = 0; i < plan->n_iterations; i++) {
        int32_t n_rows = proof->n_rows[i] + plan->iterations[i].n_pad_rows;
        if (n_rows > plan->options.n_rows_max)
            return error_set(err, ERROR_FORMAT, "iteration %lld has %d rows, at most %d",
                             (long long)i, n_rows, plan->options.n_rows_max);
        if (proof->n_rows[i] != plan->iterations[i].n_rows)
            return error_set(err, ERROR_FORMAT, "iteration %lld is said to have %d rows, has %d",
                             (long long)i, plan->iterations[i].n_rows, proof->n_rows[i]);
    }
    return true;
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
    proof.n_rows = arena_push(scratch, (size_t)plan->n_iterations, sizeof *proof.n_rows);
    proof.lives = arena_push(scratch, 2 * (n_runs + (size_t)plan->n_requests), sizeof *proof.lives);
    memcpy(proof.runs, plan->runs, n_runs * sizeof *proof.runs);
    qsort(proof.runs, n_runs, sizeof *proof.runs, compare_runs);
    int64_t at = 0;
    for (int32_t i = 0; at >= 0 && i < plan->n_requests; i++)
        at = follow_request(&proof, at, i, err);
    bool ok = at >= 0 && check_rows(&proof, err) && check_extents(&proof, err);
    arena_rewind(scratch, mark);
    return ok;
}
