/* The members' states, whatever the policy: arrivals, items, reports, extents. */
#include "plan/planner.h"

#include <assert.h>
#include <string.h>

#include "plan/planner_parts.h"

struct policy_functions {
    void (*ready)(struct planner *planner, int32_t number);
    void (*choose)(struct planner *planner, struct plan_iteration *iteration);
};

static const struct policy_functions functions[] = {
    [POLICY_STATIC] = {policy_static_ready, policy_static_choose},
    [POLICY_FCFS] = {policy_fcfs_ready, policy_fcfs_choose},
    [POLICY_PLANNED] = {policy_planned_ready, policy_planned_choose},
};

void planner_create(struct planner **planner, const struct planner_options *options,
                    struct arena *arena)
{
    size_t n = (size_t)options->n_requests_max;
    assert(options->n_rows_max > 0);
    assert(options->n_requests_max > 0);
    struct planner *made = arena_push(arena, 1, sizeof *made);
    *made = (struct planner){
        .options = *options,
        .members = arena_push(arena, n, sizeof *made->members),
        .running = arena_push(arena, n, sizeof *made->running),
        .ready = arena_push(arena, n, sizeof *made->ready),
        .aside = arena_push(arena, n, sizeof *made->aside),
        .items = arena_push(arena, n, sizeof *made->items),
        .promised = arena_push(arena, PLANNER_STEPS_MAX, sizeof *made->promised),
    };
    if (!(made->options.tokens_per_step >= 1)) made->options.tokens_per_step = 1;
    /* Whoever passes, or takes the slots of one that is parked, makes the last ones later. */
    if (options->objective == OBJECTIVE_TAIL)
        made->options.no_parking = made->options.no_backfill = true;
    extents_create(&made->extents, options->n_slots, options->n_requests_max, arena);
    *planner = made;
}

void planner_reset(struct planner *planner, const struct planner_options *options)
{
    if (options != NULL) {
        assert(options->n_rows_target <= planner->options.n_rows_max);
        planner->options.policy = options->policy;
        planner->options.objective = options->objective;
        planner->options.n_rows_target = options->n_rows_target;
        planner->options.n_running_max = options->n_running_max;
    }
    assert(planner->members);
    planner->n_members = planner->n_arrived = planner->n_ended = 0;
    planner->n_holding = planner->n_running = planner->n_ready = planner->n_places = 0;
    planner->n_surprises = planner->index = 0;
    memset(planner->promised, 0, PLANNER_STEPS_MAX * sizeof *planner->promised);
    memset(&planner->endings, 0, sizeof planner->endings);
    extents_reset(planner->extents);
}

/* ---- what a request needs ---- */

/* Steps that the block can take at most, all masks left. */
static int32_t block_steps(const struct phases *phases, int32_t block)
{
    int32_t begin, end;
    phases_block(phases, block, &begin, &end);
    assert(begin < end);
    return phases_steps_max(phases, end - begin);
}

bool planner_check(const struct planner_options *options, const struct phases *phases,
                   struct error *err)
{
    int32_t n_rows = phases_full_rows(phases), n_steps = block_steps(phases, 0);
    int64_t n_slots = phases_most_slots(phases);
    assert(n_rows > 0);
    if (n_rows > options->n_rows_max)
        return error_set(err, ERROR_FORMAT, "needs %d rows in one forward, --rows allows %d",
                         n_rows, options->n_rows_max);
    if (n_slots > options->n_slots)
        return error_set(err, ERROR_FORMAT,
                         "keeps %lld positions in the KV cache, --kv-memory allows %lld; cache "
                         "none keeps none",
                         (long long)n_slots, (long long)options->n_slots);
    if (n_steps > PLANNER_STEPS_MAX)
        return error_set(err, ERROR_FORMAT, "a block has %d steps, at most %d", n_steps,
                         PLANNER_STEPS_MAX);
    return true;
}

/* ---- arrivals ---- */

static void become_ready(struct planner *planner, int32_t number)
{
    struct member *member = &planner->members[number];
    member->state = MEMBER_READY;
    member->step = 0;
    member->n_steps = block_steps(member->phases, member->block);
    assert(member->n_steps > 0);
    functions[planner->options.policy].ready(planner, number);
}

int32_t planner_add(struct planner *planner, const struct planner_request *request)
{
    int32_t number = planner->n_members++;
    assert(number < planner->options.n_requests_max);
    assert(number == 0 || planner->members[number - 1].arrival_ns <= request->arrival_ns);
    planner->members[number] = (struct member){.phases = request->phases,
                                               .arrival_ns = request->arrival_ns,
                                               .block = request->first_block};
    return number;
}

static void take_arrivals(struct planner *planner, uint64_t now_ns)
{
    assert(planner->n_arrived <= planner->n_members);
    while (planner->n_arrived < planner->n_members &&
           planner->members[planner->n_arrived].arrival_ns <= now_ns)
        become_ready(planner, planner->n_arrived++);
}

/* ---- iterations ---- */

void planner_add_item(struct planner *planner, int32_t number, struct plan_iteration *iteration)
{
    const struct member *member = &planner->members[number];
    const struct phases *phases = member->phases;
    int64_t n_prompt = (int64_t)phases_prompt_slots(phases) * phases->n_twins;
    assert(member->state == MEMBER_RUNNING);
    struct plan_item *item = &iteration->items[iteration->n_items++];
    *item = (struct plan_item){.request = number,
                               .block = member->block,
                               .step = member->step,
                               .prompt_begin = member->n > 0 && n_prompt > 0 ? member->begin : -1,
                               .kept_begin = member->n > n_prompt ? member->begin + n_prompt : -1};
    phases_step(phases, member->block, member->step, &item->shape);
    if (item->kept_begin < 0) item->shape.n_kept = 0; /* no step is left that would see it */
    iteration->n_rows += item->shape.n_rows * phases->n_twins;
}

enum planner_status planner_next(struct planner *planner, uint64_t now_ns,
                                 struct plan_iteration *iteration, uint64_t *next_arrival_ns)
{
    take_arrivals(planner, now_ns);
    if (planner->n_ended == planner->n_members) return PLANNER_DONE;
    *iteration =
        (struct plan_iteration){.index = planner->index,
                                .items = planner->items,
                                .awaits_arrivals = planner->n_arrived < planner->n_members};
    functions[planner->options.policy].choose(planner, iteration);
    assert(iteration->n_rows + iteration->n_pad_rows <= planner->options.n_rows_max);
    if (iteration->n_items > 0) {
        planner->index++;
        return PLANNER_ITERATION;
    }
    assert(planner->n_arrived < planner->n_members); /* else nothing would ever run again */
    *next_arrival_ns = planner->members[planner->n_arrived].arrival_ns;
    return PLANNER_IDLE;
}

/* ---- reports ---- */

static void release(struct planner *planner, struct member *member)
{
    assert(member->n >= 0);
    if (member->n > 0 && member->time.until > planner->index)
        extents_release(planner->extents, member->begin, member->n, member->time, planner->index);
    planner->n_holding -= member->n > 0;
    /* Slots that were promised for later are free later only, but with no holder all are free now:
     * else an idle machine would wait for an iteration that never comes. */
    if (planner->n_holding == 0) extents_reset(planner->extents);
    member->n = 0;
    member->is_held_over = false;
}

static void count_ending(struct planner *planner, const struct member *member, bool stopped)
{
    int32_t i = member->block < PLANNER_BLOCKS_MAX ? member->block : PLANNER_BLOCKS_MAX - 1;
    assert(member->block >= 0);
    planner->endings.n_entered[i]++;
    planner->endings.n_stopped[i] += stopped;
    planner->endings.n_entered_all++;
    planner->endings.n_stopped_all += stopped;
}

void planner_report(struct planner *planner, int32_t request, enum step_outcome outcome,
                    int32_t next_block)
{
    struct member *member = &planner->members[request];
    assert(request < planner->n_members);
    assert(member->state == MEMBER_RUNNING);
    member->step++;
    if (outcome == STEP_GOES_ON) {
        assert(member->step < member->n_steps);
        return;
    }
    bool stopped = outcome == STEP_END && member->block < member->phases->n_blocks - 1;
    planner->n_surprises += stopped || member->step < member->n_steps;
    count_ending(planner, member, stopped);
    if (planner->options.policy == POLICY_PLANNED) policy_planned_shorten(planner, request);
    if (outcome == STEP_END) {
        if (planner->options.policy == POLICY_FCFS) planner_drop(planner, request);
        release(planner, member);
        member->state = MEMBER_ENDED;
        planner->n_ended++;
        return;
    }
    assert(next_block > member->block);
    bool goes_over = member->is_held_over &&
                     (planner->options.policy != POLICY_PLANNED || planner->options.no_parking ||
                      !phases_is_free_start(member->phases, next_block));
    if (!goes_over) release(planner, member);
    member->block = next_block;
    become_ready(planner, request);
}

/* The block in which it stopped was counted as entered if the member has moved on since. */
static void count_late_stop(struct planner *planner, const struct member *member, int32_t block)
{
    int32_t i = block < PLANNER_BLOCKS_MAX ? block : PLANNER_BLOCKS_MAX - 1;
    assert(block >= 0);
    assert(block <= member->block);
    if (block == member->block) {
        count_ending(planner, member, block < member->phases->n_blocks - 1);
    } else {
        planner->endings.n_stopped[i]++;
        planner->endings.n_stopped_all++;
    }
}

void planner_end(struct planner *planner, int32_t request, int32_t block, bool has_item)
{
    struct member *member = &planner->members[request];
    enum policy policy = planner->options.policy;
    assert(member->state == MEMBER_RUNNING || (member->state == MEMBER_READY && !has_item));
    count_late_stop(planner, member, block);
    planner->n_surprises++;
    member->step += has_item;
    if (member->state == MEMBER_RUNNING) {
        if (policy == POLICY_PLANNED) policy_planned_shorten(planner, request);
        if (policy == POLICY_FCFS) planner_drop(planner, request);
    } else if (policy == POLICY_PLANNED) {
        planner_withdraw(planner, request);
    }
    release(planner, member);
    member->state = MEMBER_ENDED;
    planner->n_ended++;
}

int64_t planner_surprises(const struct planner *planner)
{
    return planner->n_surprises;
}

int64_t planner_slots_held(const struct planner *planner)
{
    assert(planner->extents);
    return extents_held(planner->extents, planner->index);
}
