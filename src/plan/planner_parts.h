/* What the policies share: members (requests on their way), and what a policy is. Private to plan/.
 */
#ifndef PLAN_PLANNER_PARTS_H
#define PLAN_PLANNER_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "plan/extents.h"
#include "plan/planner.h"

/* Most blocks whose endings are counted apart. */
#define PLANNER_BLOCKS_MAX 64

enum member_state {
    MEMBER_AWAITED, /* has not arrived */
    MEMBER_READY,   /* waits for its turn, or to be admitted */
    MEMBER_RUNNING, /* in a block */
    MEMBER_ENDED,
};

struct member {
    const struct phases *phases;
    uint64_t arrival_ns;
    enum member_state state;
    int32_t block, step;     /* steps of the block that are done */
    int32_t n_steps;         /* most that the block can take */
    int64_t begin, n;        /* its extent, prompt's rows first; n 0: none */
    struct extent_time time; /* as promised */
    bool is_held_over; /* the extent outlives the block: kept prompts, policies that do not park */
    double key;        /* order of turns, least first */
};

/* How often requests ended in their b-th block, of those that came so far: what is known about
 * stops. */
struct endings {
    int64_t n_entered[PLANNER_BLOCKS_MAX], n_stopped[PLANNER_BLOCKS_MAX];
    int64_t n_entered_all, n_stopped_all;
    int64_t n_known; /* entered, when keys were renewed */
};

struct planner {
    struct planner_options options;
    struct extents *extents;
    struct endings endings;
    int32_t n_members, n_arrived, n_ended;
    struct member *members; /* [n_requests_max] */
    int32_t n_holding;      /* members with an extent */
    int32_t n_running;
    int32_t *running; /* [n_requests_max] in the order in which they began */
    int32_t n_ready;
    int32_t *ready;          /* [n_requests_max], a heap by key, then number */
    int32_t *aside;          /* [n_requests_max] scratch */
    struct plan_item *items; /* [n_requests_max] */
    int32_t *promised;       /* [PLANNER_STEPS_MAX] rows of coming iterations, by index modulo */
    int64_t index;           /* of the iteration that is decided next */
    int64_t n_surprises;
    int32_t n_places;    /* static: of the batch in work, and */
    int32_t batch_begin; /* its first member in `running` */
};

/* Blocks, from `block` on, that it takes on average to bring one request like it to its end: those
 * expected within the horizon that is best for it, over the chance to end in there, by the endings
 * so far. Least first is Gittins' order. */
double planner_blocks_ahead(const struct planner *planner, const struct phases *phases,
                            int32_t block);

/* The member's next step becomes item `iteration->n_items`. */
void planner_add_item(struct planner *planner, int32_t number, struct plan_iteration *iteration);

/* Makes the member, whose key is set, one of those that are ready; takes the first of them out. */
void planner_push(struct planner *planner, int32_t number);
int32_t planner_pop(struct planner *planner);
/* Takes one out that is not the first. */
void planner_withdraw(struct planner *planner, int32_t number);

/* Lets the member run, with `n` slots for that time unless it has been held over: until it ends if
 * the time is open. False: there is no room. for_good: with the slots of its largest block until it
 * ends. */
bool planner_admit(struct planner *planner, int32_t number, int64_t n, struct extent_time time);
bool planner_admit_for_good(struct planner *planner, int32_t number);

/* Takes the member out of `running`, whose order stays. */
void planner_drop(struct planner *planner, int32_t number);

/* Each policy: a member is ready (it has arrived, or its block is complete); and the choice of the
 * members of an iteration, none if nothing can run. */
void policy_static_ready(struct planner *planner, int32_t number);
void policy_static_choose(struct planner *planner, struct plan_iteration *iteration);
void policy_fcfs_ready(struct planner *planner, int32_t number);
void policy_fcfs_choose(struct planner *planner, struct plan_iteration *iteration);
void policy_planned_ready(struct planner *planner, int32_t number);
void policy_planned_choose(struct planner *planner, struct plan_iteration *iteration);
/* The member's block is complete: steps that were promised to it may be left. */
void policy_planned_shorten(struct planner *planner, int32_t number);

#endif
