/* The plain data that crosses the pipeline: a request with its resolved decode settings, and the
 * answer to it. No behaviour here. */
#ifndef PLAN_REQUEST_H
#define PLAN_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"

/* Which masked position is committed first, and by which schedule (LLaDA: arXiv
 * 2502.09992; Dream: arXiv 2508.15487). */
enum remasking {
    REMASKING_LOW_CONFIDENCE, /* LLaDA: blocks, exact quotas, probability of the argmax */
    REMASKING_RANDOM,         /* LLaDA: the same with random order */
    REMASKING_ORIGIN,         /* Dream: each position with probability 1 - s/t */
    REMASKING_MASKGIT_PLUS,   /* Dream: timestep schedule, probability */
    REMASKING_TOPK_MARGIN,    /* Dream: p(1) - p(2) */
    REMASKING_ENTROPY,        /* Dream: negative entropy */
    REMASKING_COUNT,
};

/* What later steps of a block may reuse of an earlier one (Fast-dLLM: arXiv 2505.22618;
 * Sparse-dLLM: 2508.02558; dLLM-Serve: 2512.17077). plan/phases.h defines the steps. */
enum cache_kind {
    CACHE_NONE,   /* every step is a full one */
    CACHE_PREFIX, /* the K,V of everything before the window */
    CACHE_DUAL,   /* the K,V of everything outside the window */
    CACHE_SPARSE, /* of that, the share that the window's queries look at most */
};

/* Resolved: no "default" values are left when a request enters the engine. */
struct decode_settings {
    int32_t gen_length;   /* tokens to generate; 0: infill the masks inside the prompt */
    int32_t block_length; /* tokens denoised together; the last block may be shorter */
    int32_t steps;        /* over all blocks; 0: one token a step */
    enum remasking remasking;
    double temperature, top_p, alg_temp, cfg_scale;
    double threshold, factor; /* 0: off; at most one of them */
    int32_t top_k;            /* 0: off */
    uint64_t seed;
    bool early_stop; /* stop when everything before the first stop token is committed */
    bool logits_eos_inf, confidence_eos_eot_inf;
    enum cache_kind cache;
    double retention;             /* sparse: share of the candidates that is kept, (0, 1] */
    int32_t delay;                /* sparse: full steps of a block before the one that selects */
    bool shared_select;           /* sparse: one choice for all KV heads of a layer */
    int32_t refresh_every;        /* every N-th step of a block is a full one again; 0: none */
    int32_t prompt_refresh_every; /* the prompt's K,V are new in every k-th block; 0, 1: in all */
    int32_t suffix_window;        /* masked blocks fed behind the active one; 0: all */
};

/* One prompt to answer. Plain data, copied freely; what it points to is borrowed from the window
 * that it belongs to. */
struct request {
    int64_t index;    /* 0-based input line */
    int64_t line;     /* 1-based input line, for messages */
    const char *id;   /* as on the line */
    uint64_t id_hash; /* with the seed, the key of its noise: the same id gives the same answer */
    int32_t n_prompt; /* at least 1 */
    const int32_t *prompt_ids; /* [n_prompt], borrowed from the window's arena */
    struct decode_settings decode;
    bool want_logprobs;   /* answers then carry log_probs */
    uint64_t admitted_ns; /* when the line was read, or has arrived by its trace */
    uint64_t arrival_ns;  /* not to be run before (base/clock.h); 0: at once */
    int32_t stop_after;   /* a trace: the generated token that ends the answer, instead of stop
                             tokens; beyond gen_length: nothing does; 0: stop tokens do */
    void *line_state;     /* the app's own, untouched by plan and engine */
};

/* Why an answer ends: a stop token in its complete prefix, or gen_length tokens without one. */
enum finish_reason { FINISH_STOP, FINISH_LENGTH };

/* Monotonic times (base/clock.h); 0: did not happen. */
struct answer_times {
    uint64_t first_forward_ns; /* start of the first iteration it took part in */
    uint64_t first_commit_ns;  /* end of the iteration that fixed its first token */
    uint64_t first_block_ns;   /* its first block was complete: what a reader could see first */
    uint64_t last_commit_ns;
    uint64_t finished_ns; /* its last iteration's end; queue = first_forward - admitted */
};

/* Borrowed until the callback that receives it returns. */
struct answer {
    const struct request *request;
    /* The generated ids; with early stop up to the first stop token, inclusive. Infill: the whole
     * canvas, prompt included. */
    const int32_t *token_ids; /* [n_tokens] */
    const float *log_probs;   /* [n_tokens] at the committing step (0 for given tokens); or NULL */
    int32_t n_tokens;
    int32_t n_effective; /* generated tokens up to and including the first stop token */
    enum finish_reason finish_reason;
    int32_t steps;         /* forward passes it took part in; refresh_steps + reuse_steps */
    int32_t blocks;        /* blocks that were entered */
    int32_t refresh_steps; /* full forwards */
    int32_t reuse_steps;   /* forwards of the window alone */
    int64_t positions;     /* rows computed for it in the layers */
    struct answer_times times;
    const char *failure; /* NULL: fine. Else why there is no answer; only `request` counts then */
};

#endif
