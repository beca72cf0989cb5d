/* What the executor's files share: requests on their way, iterations in flight, and the executor.
 * Private to engine/. */
#ifndef ENGINE_EXECUTOR_PARTS_H
#define ENGINE_EXECUTOR_PARTS_H

#include "engine/executor.h"
#include "model/forward.h"

/* A request on its way from prompt to answer. */
struct running {
    const struct request *request;
    struct phases phases;
    int32_t canvas_begin, twin_begin; /* cells; twin -1: none */
    int32_t n_masks_given;            /* masks at the start: what is to be generated */
    /* What was asked of the backend; while steps are in flight, ahead of what is known. */
    int32_t block_index, block_begin, block_end, n_block_start, n_block_masked, step;
    int32_t n_asked, n_in_flight; /* forwards */
    /* What is known. */
    int32_t prefix_end; /* cells before it are all committed */
    int32_t stop_cell;  /* first stop token of the complete prefix, or -1 */
    int32_t n_forwards, n_refreshes, n_blocks;
    int64_t n_positions;
    bool is_over;      /* its answer is given; if it stopped, */
    int32_t end_block; /* in a step of this block */
    char failure[160]; /* why it cannot go on; "": it can */
    struct answer_times times;
};

/* A request's step in an iteration. */
struct flight_item {
    int32_t request, block, n_positions;
    int32_t pick_begin, n_picks; /* the masked cells of its block, as far as was known */
    int32_t n_commits;           /* that the step will make, if its flight is certain */
    bool is_refresh, begins_block;
    enum step_outcome outcome; /* as reported */
};

/* An iteration from its submission until somebody looks at what came of it. */
struct flight {
    struct executor_iteration done;
    int32_t n_items;
    struct flight_item *items; /* [n_requests_max] */
    int32_t *pick_cell;        /* [n_rows_max] */
    struct pick *picks;        /* [n_rows_max], filled when the step is finished */
    bool is_certain;           /* how many tokens each step commits follows from the settings */
    bool is_reported;          /* the planner has heard, ahead of the results */
};

struct executor {
    struct model *model;
    struct forward forward;
    struct executor_limits limits;
    struct executor_counts counts;
    struct matrix canvas; /* [n_cells_max, 1], backend memory */
    struct pick *device_picks;
    float *logits; /* monolithic: [n_rows_max, n_vocab]; else NULL */
    struct planner *planner;
    struct running *running; /* [n_requests_max], by the planner's numbers */
    int32_t n_running;       /* requests without an answer */
    struct flight flights[BACKEND_STEPS_MOST];
    struct flight *pending; /* submitted and reported, not looked at; NULL: none */
    int32_t next_flight;
    uint64_t looked_ns; /* when the last iteration was over */
    /* Host copies, cell by cell. */
    int32_t *cells;   /* [n_cells_max] */
    float *log_probs; /* [n_cells_max] */
    /* The batch being built; arrays of n_rows_max. */
    struct batch batch;
    int32_t *canvas_index, *position, *visible_end, *picked_row;
    struct sequence *sequences; /* n_rows_max: a sequence has at least one row */
    struct store_row *stores;
    struct select_sequence *by_head, *shared;
    struct forward_keeps keeps;
    struct score_row *score_rows;
    int32_t *pick_twin_cell;
    uint32_t *pick_position;
    struct commit_request *commits;
    int32_t n_commits, n_score;
};

/* The request's canvas, [phases.n_canvas] ids on the host. */
int32_t *executor_canvas(const struct executor *executor, const struct running *running);

/* Writes the iteration's rows, its picks and what becomes of them, as the executor's batch and as
 * `flight`. */
void executor_build(struct executor *executor, const struct plan_iteration *iteration,
                    struct flight *flight);

/* The key of the batch that was built (backend_start_step); pads its picks where shapes are to
 * recur. 0: an iteration with a Refresh, with twins, or with monolithic logits. */
uint64_t executor_shape_key(struct executor *executor);

#endif
