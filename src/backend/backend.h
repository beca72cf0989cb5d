/* THE contract between the model and the machine: matrices, one iteration's rows, and eleven ops
 * with their formulas. Three implementations: ref (the definition: scalar loops, double
 * accumulators), cpu (threads, blocked kernels) and cuda.
 *
 * Wrappers in backend.c check shapes, types and ranges with asserts and then dispatch; backends
 * trust them. Ops between start_step and submit_step run in order, behind those of the steps
 * before, and cannot fail at the call: the first failure is latched and finish_step tells it.
 *
 * Batch invariance (I3): what an op computes for a row depends on that row's inputs alone, bit for
 * bit; not on the number of rows, the row's place, the threads, nor the other sequences. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/dtype.h"
#include "base/arena.h"
#include "base/error.h"

/* Row-major, no gaps. `data` is the backend's memory: only the backend follows it. */
struct matrix {
    void *data;
    int32_t n_rows, n_cols;
    enum dtype dtype;
};

/* A linear layer's weights, [n_out, n_in] in the mathematical sense; the backend chooses the layout
 * (the cpu backend packs panels). dtype is what is stored: bf16 stays bf16. */
struct weight {
    void *data;
    int32_t n_out, n_in;
    enum dtype dtype;
};

enum region { REGION_WEIGHTS, REGION_CACHE, REGION_SCRATCH, REGION_COUNT };

/* ---- one iteration's rows ---- */

/* Rows of one canvas in one iteration. A canvas is a run of token ids in backend memory, one
 * request's prompt and generated region (or its unconditional twin under CFG). */
struct sequence {
    int32_t row_begin, n_rows;   /* its fresh rows in the batch, contiguous, ascending positions */
    int32_t pick_begin, n_picks; /* its rows that meet the vocabulary, in batch.picked_row */
    int64_t cache_begin;         /* first slot of its extent in the KV cache, see kv_cache; or -1 */
    int32_t n_cached;            /* cached rows per KV head that its rows see; 0 without cache */
};

/* Ragged: sequences lie one after the other, no padding. Host memory, borrowed from start_step to
 * submit_step, as are the arrays of the ops' arguments. */
struct batch {
    int32_t n_rows;
    const int32_t *canvas_index; /* [n_rows] which canvas cell feeds the row */
    const int32_t *position;     /* [n_rows] position for RoPE, >= 0 */
    const int32_t *visible_end;  /* [n_rows] the row sees fresh rows [its sequence's row_begin,
                                    visible_end); the whole mask is this one integer. It sees all
                                    n_cached rows of its sequence's extent besides. */
    int32_t n_sequences;
    const struct sequence *sequences; /* [n_sequences] */
    int32_t n_picks;
    const int32_t *picked_row; /* [n_picks] batch rows that meet the vocabulary, ascending */
};

/* The KV cache of one layer: for a sequence whose extent starts at slot s and has n rows per head,
 * head h's key j (post-RoPE) is at element (s * n_kv_heads + h * n + j) * head_dim of `keys`;
 * values likewise. So the kept rows of a head are contiguous: [kv_head][kept][head_dim]. */
struct kv_cache {
    void *keys, *values; /* [n_slots * n_kv_heads * head_dim], rows */
    int64_t n_slots;
};

/* ---- arguments of the ops; d = hidden size, D = head size ----
 *
 * `rows` are activations: matrices of the type that backend.activation names, f32 on ref and cpu,
 * bf16 on cuda. All sums are in f32 or better; an op rounds what it writes, once. */

/* out[r] = table[canvas[canvas_index[r]]], converted to rows. */
struct embed_args {
    struct matrix out;    /* [n_rows, d] rows */
    struct matrix table;  /* [n_vocab, d] as stored */
    struct matrix canvas; /* [n_cells, 1] i32 */
};

/* sum[r] = x[r] + add[r]; out[r] = sum[r] * weight / sqrt(mean(sum[r]^2) + epsilon). */
struct rms_norm_args {
    struct matrix out;    /* [n, d] rows */
    struct matrix sum;    /* [n, d] rows; may be x itself; data NULL: not stored */
    struct matrix x;      /* [n, d] rows */
    struct matrix add;    /* [n, d] rows; data NULL: nothing is added */
    struct matrix weight; /* [1, d] f32 */
    float epsilon;
};

/* out[r][j] = sum over k of x[r][k] * w[out_begin + j][k] (+ bias[out_begin + j]), summed over k
 * in one fixed order, whatever the number of rows, the row's place and the thread count. */
struct linear_args {
    struct matrix out; /* [n, n_cols] rows or f32 (logits), n_cols <= weight.n_out - out_begin */
    struct matrix x;   /* [n, weight.n_in] rows */
    struct weight weight;
    struct matrix bias; /* [1, weight.n_out] f32; data NULL: none */
    int32_t out_begin;
};

/* Rotates heads [0, n_heads) of each row in place, half-rotate (NeoX): with h = D / 2 and
 * (c, s) = table[position]: x[i] <- x[i] c[i] - x[i+h] s[i]; x[i+h] <- x[i+h] c[i] + x[i] s[i]. */
struct rope_args {
    struct matrix x;     /* [n, n_cols] rows; heads start at column col_begin, D apart */
    struct matrix table; /* [n_positions, D] f32: h cosines, then h sines */
    int32_t col_begin, n_heads, head_dim;
    bool picked; /* false: row r is batch row r; true: row i is batch row picked_row[i] */
};

/* Keys and values of the batch's fresh rows, as columns of one matrix. */
struct kv_rows {
    struct matrix x;            /* [n_rows, n_cols] rows */
    int32_t key_col, value_col; /* n_kv_heads * head_dim columns each */
    int32_t n_kv_heads, head_dim;
};

/* One copy: fresh batch row `row` becomes cached row `index` (of `n` per head) of every head of the
 * extent that starts at slot cache_begin. Dense caches: dual, prefix, prompt reuse. */
struct store_row {
    int32_t row, index, n;
    int64_t cache_begin;
};
struct store_kv_args {
    struct kv_cache cache;
    struct kv_rows fresh;
    const struct store_row *rows; /* [n], host */
    int32_t n;
};

/* out[q] = softmax(scale * q . K^T) V over what q's batch row sees (see batch). Query head i uses
 * KV head i / (n_heads / n_kv_heads). Order of keys: the cached extent first, then the fresh rows.
 * Stretches of them may be summed apart; where they end depends on the row's sequence alone. */
struct attend_args {
    struct matrix out;   /* [n_q, n_heads * D] rows */
    struct matrix query; /* [n_q, n_cols] rows, heads start at query_col */
    int32_t query_col, n_heads;
    struct kv_rows fresh;
    struct kv_cache cache; /* keys NULL: no sequence of the batch has a cache */
    float scale;
    bool picked; /* queries are all batch rows, or the picked ones, in order */
};

/* out[r][j] = silu(x[r][j]) * x[r][n_cols + j]; silu(g) = g / (1 + exp(-g)). */
struct gated_act_args {
    struct matrix out; /* [n, n_cols] rows */
    struct matrix x;   /* [n, 2 n_cols] rows: gate, then up */
};

/* out[i] = x[picked_row[i]]: only rows that meet the vocabulary go on. */
struct gather_rows_args {
    struct matrix out; /* [n_picks, n] rows */
    struct matrix x;   /* [n_rows, n] rows */
};

/* Per sequence and KV head, chooses which rows outside the window stay visible (dLLM-Serve, arXiv
 * 2512.17077, head centric). Window rows are [window_begin, window_end) of the batch, a part of the
 * sequence's fresh rows. Candidates: the sequence's cached rows, then its fresh rows outside the
 * window, in order (n of them). score[j] = max over the group's query heads of (mean over the
 * window of q) . k[j] * scale; max-pool 3, stride 1, -inf padding; keep the n_keep largest, ties to
 * the lower candidate; their K,V go in candidate order to the extent at target_begin with n_keep
 * rows per head. shared: one choice per layer, by the mean of the KV heads' scores (Sparse-dLLM).
 */
struct select_sequence {
    int32_t sequence; /* index in batch.sequences */
    int32_t window_begin, window_end;
    int32_t n_keep; /* 0: nothing to do */
    int64_t target_begin;
};
struct select_kv_args {
    struct kv_cache cache; /* read (the cached extent) and written (the target); no overlap */
    struct kv_rows fresh;
    struct matrix query; /* [n_rows, n_cols] rows, post-RoPE, heads start at query_col */
    int32_t query_col, n_heads;
    const struct select_sequence *sequences; /* [n], host */
    int32_t n;
    float scale;
    bool shared;
};

/* How the confidence of a pick is measured (LLaDA: arXiv 2502.09992; Dream: 2508.15487). */
enum confidence {
    CONFIDENCE_PROBABILITY, /* softmax(l)[id] of the unscaled, unfiltered logits (LLaDA) */
    CONFIDENCE_RANDOM,      /* uniform noise (LLaDA "random") */
    CONFIDENCE_FILTERED, /* p[id] of the scaled, filtered distribution (Dream maskgit_plus, origin)
                          */
    CONFIDENCE_MARGIN,   /* p(1) - p(2) of that distribution (Dream topk_margin) */
    CONFIDENCE_ENTROPY,  /* sum of p ln(p + 1e-10) of that distribution: negative entropy */
};

#define SCORE_SUPPRESSED_MAX 8

/* How one picked row becomes a token. The logits are l = W_head . hidden; under CFG
 * l = u + (cfg_scale + 1) * (l - u), u from uncond_row. Ids >= n_vocab are no candidates.
 *   1. l[mask_id] = -inf, l[suppressed ids] = -inf.
 *   2. temperature T > 0: z = l / T, else z = l. top_p < 1: in order of z descending, ties by id
 *      ascending, an entry stays while the probability before it (softmax of all z) is <= top_p. Of
 *      what is left, top_k keeps z >= the k-th largest (ties at it stay).
 *   3. id = argmax of z (T = 0), or of l - T ln(-ln u) in double over what stays, u = noise of the
 *      id (T > 0): exact sampling from softmax(z). Ties to the lower id.
 *   4. confidence as the enum says; for CONFIDENCE_PROBABILITY ids in confidence_suppressed count
 * as -inf in its softmax (so such a candidate gets 0). log_prob = ln softmax(l)[id] after 1. */
struct score_row {
    int32_t uncond_row; /* index in hidden, or -1 without CFG */
    float cfg_scale;
    double temperature, top_p; /* 0: greedy; 1: off */
    int32_t top_k;             /* 0: off */
    enum confidence confidence;
    uint64_t noise_key[2]; /* from seed and request id: backend_noise */
    uint32_t step, position;
    int32_t n_suppressed, n_confidence_suppressed;
    int32_t suppressed[SCORE_SUPPRESSED_MAX], confidence_suppressed[SCORE_SUPPRESSED_MAX];
};

/* What score found for a row. */
struct pick {
    int32_t id; /* -1: no logit is finite, or one is NaN or +inf; the rest then means nothing */
    float log_prob;
    double confidence;    /* larger is surer */
    int32_t is_committed; /* by commit: whether its id was written; score leaves 0 */
    int32_t zero;         /* no gap, so that picks can be compared as bytes */
};

struct score_args {
    struct pick *picks;   /* [n], backend memory */
    struct matrix hidden; /* [>= n, d] rows: row i scores row i, rows beyond n are uncond rows */
    struct weight head;   /* [n_vocab rows, d] */
    const struct score_row *rows; /* [n], host */
    int32_t n;
    int32_t n_vocab, mask_id;
};

/* Which picks of a request are committed in this step (LLaDA; Dream; Fast-dLLM:
 * arXiv 2505.22618). */
enum commit_rule {
    COMMIT_TOP,       /* the n_commit most confident */
    COMMIT_THRESHOLD, /* all with confidence >= threshold, at least the best one (Fast-dLLM) */
    COMMIT_FACTOR,    /* Fast-dLLM factor: descending c(1) >= c(2)..; rank n >= 2 passes if c(n) >=
                         1 - factor / (n + 1); accept up to the first failing rank; if only the last
                         rank fails, accept all */
    COMMIT_EACH,      /* each with probability `threshold`, independently (Dream origin) */
};

/* One request's picks [pick_begin, pick_begin + n_picks) of score. Order: confidence descending,
 * then position ascending. order_temperature > 0 (COMMIT_TOP): draws without replacement from
 * softmax(confidence / order_temperature), as confidence / order_temperature + gumbel noise. A
 * chosen pick's id is written to its canvas cell (and to the twin's cell under CFG), and the pick
 * is marked. A request with a pick that has no id commits nothing. A pick whose cell is not masked
 * any more takes no part in any of this: so a step may be asked for before it is known what the
 * last one committed. */
struct commit_request {
    int32_t pick_begin, n_picks;
    enum commit_rule rule;
    int32_t n_commit;
    double threshold, factor, order_temperature;
    uint64_t noise_key[2];
    uint32_t step;
};
struct commit_args {
    struct matrix canvas;                  /* [n_cells, 1] i32 */
    struct pick *picks;                    /* [n_picks of score], backend memory */
    const int32_t *cell, *twin_cell;       /* [n_picks], host; twin -1: none */
    const uint32_t *position;              /* [n_picks], host: the pick's position, for noise */
    const struct commit_request *requests; /* [n], host */
    int32_t n, mask_id;
};

/* Weights from nothing: numbers first, first + 1, .. of the SplitMix64 sequence of `seed`, each as
 * ((top 53 bits) * 2^-53 - 0.5) * scale in f32, rounded to the target's bf16. */
struct dummy_args {
    struct weight target;
    bool is_matrix; /* target is laid out as a matrix (the embedding), not as a weight */
    uint64_t seed, first;
    float scale;
};

/* ---- the table ---- */

struct backend;

struct backend_limits {
    int32_t n_threads;   /* cpu; 0: one per available processor */
    const char *cpu_isa; /* "generic", "avx2", "avx512"; NULL: the best this processor has */
    int32_t device;      /* cuda: which of the visible GPUs; -1: the scheduler's, else the first */
    bool graphs;         /* cuda: steps that recur are recorded and replayed */
};

/* Recorded steps. is_on: what comes may be; set by open, and cleared by a backend that finds that
 * it cannot. A step that a failure of that kind meets fails. */
struct backend_graphs {
    bool is_on;
    int64_t n_recorded, n_replayed, n_eager; /* steps so far, while it was on */
};

struct backend_ops {
    const char *name;
    const char *code; /* what machines it was built for */
    /* Life and memory: these can fail at the call. */
    bool (*open)(struct backend *backend, const struct backend_limits *limits, struct error *err);
    void (*close)(struct backend *backend);
    size_t (*free_bytes)(const struct backend *backend);
    bool (*allocate)(struct backend *backend, const size_t region_bytes[REGION_COUNT],
                     struct error *err);
    void *(*reserve)(struct backend *backend, enum region region, size_t size_bytes);
    size_t (*weight_bytes)(const struct backend *backend, int32_t n_out, int32_t n_in,
                           enum dtype dtype);
    void (*upload)(struct backend *backend, struct matrix target, const void *source);
    void (*upload_weight)(struct backend *backend, struct weight target, int32_t out_begin,
                          int32_t n_out, const void *source);
    void (*download)(struct backend *backend, void *target, struct matrix source);
    void (*fill_dummy)(struct backend *backend, const struct dummy_args *args);
    size_t (*scratch_bytes)(const struct backend *backend, int32_t n_rows_max, int32_t n_picks_max);
    /* Steps with equal shape_key issue equal ops, so a backend may record and replay. */
    void (*start_step)(struct backend *backend, const struct batch *batch, uint64_t shape_key);
    void (*submit_step)(struct backend *backend, void *target, struct matrix source);
    bool (*finish_step)(struct backend *backend, uint64_t *device_ns, struct error *err);
    /* The eleven ops. */
    void (*embed)(struct backend *backend, const struct embed_args *args);
    void (*rms_norm)(struct backend *backend, const struct rms_norm_args *args);
    void (*linear)(struct backend *backend, const struct linear_args *args);
    void (*rope)(struct backend *backend, const struct rope_args *args);
    void (*store_kv)(struct backend *backend, const struct store_kv_args *args);
    void (*attend)(struct backend *backend, const struct attend_args *args);
    void (*gated_act)(struct backend *backend, const struct gated_act_args *args);
    void (*gather_rows)(struct backend *backend, const struct gather_rows_args *args);
    void (*select_kv)(struct backend *backend, const struct select_kv_args *args);
    void (*score)(struct backend *backend, const struct score_args *args);
    void (*commit)(struct backend *backend, const struct commit_args *args);
};

#define BACKEND_STEPS_MOST 2 /* unfinished at a time */

/* Shared head of every backend; `state` is the implementation's own. */
struct backend {
    const struct backend_ops *ops;
    void *state;
    const struct batch *batch;          /* between start_step and submit_step, else NULL */
    int32_t n_submitted;                /* steps between submit_step and finish_step */
    int32_t n_steps_ahead;              /* submitted steps that it pays not to wait for: 0 where
                                           submit_step computes, else 1; set by open */
    struct arena regions[REGION_COUNT]; /* host backends; cuda keeps device regions in state */
    enum dtype activation;              /* of rows and of the KV cache; set by open */
    int32_t n_rows_least, n_rows_most;  /* rows of an iteration, when nobody says; set by open */
    int32_t n_rows_target;              /* rows from which on an iteration has its best rate, as far
                                           as is known unmeasured; 0: n_rows_most; set by open */
    int32_t n_picks_multiple;           /* picks of a step are padded to it, so that shapes recur;
                                           1: no need; set by open */
    struct backend_graphs graphs;
    bool learns_shapes;     /* chooses algorithms at a shape's first use; set by open */
    char machine[128];      /* what it computes on, for people; set by open */
    struct error failure;   /* first failure of an op, latched until finish_step */
    uint64_t step_begin_ns; /* host backends: when the open step started, */
    uint64_t step_ns[BACKEND_STEPS_MOST]; /* and how long the submitted ones took */
};

extern const struct backend_ops backend_ref_ops;
extern const struct backend_ops backend_cpu_ops;
extern const struct backend_ops backend_cuda_ops; /* cuda_absent.c: open says why not */

/* Opens "ref", "cpu", "cuda" or "auto" (cuda when it opens, else cpu). Caller's struct, caller
 * closes. False: ERROR_UNAVAILABLE with what is missing, ERROR_USAGE for an unknown name. */
bool backend_open(struct backend *backend, const char *name, const struct backend_limits *limits,
                  struct error *err);
/* What machines the backend of that name was built for, also where it does not open. */
const char *backend_code(const char *name);
void backend_close(struct backend *backend); /* a zeroed struct is fine */

/* Memory that can still be taken: the machine's or the job's for host backends, the device's. */
size_t backend_free_bytes(const struct backend *backend);

/* Takes all memory, once, after open: the sizes come from plan/memory.h. False: ERROR_UNAVAILABLE.
 */
bool backend_allocate(struct backend *backend, const size_t region_bytes[REGION_COUNT],
                      struct error *err);

/* Memory of a region: lives until close; alignment 64; asserts that the region's size holds it. */
void *backend_reserve(struct backend *backend, enum region region, size_t size_bytes);

/* Bytes that a weight takes in this backend's layout and type. */
size_t backend_weight_bytes(const struct backend *backend, int32_t n_out, int32_t n_in,
                            enum dtype dtype);

/* Copies row-major host data in. Matrix: source has target's dtype. Weight: rows [out_begin,
 * out_begin + n_out), source has the weight's dtype; so q, k and v can fill one weight. */
void backend_upload(struct backend *backend, struct matrix target, const void *source);
void backend_upload_weight(struct backend *backend, struct weight target, int32_t out_begin,
                           int32_t n_out, const void *source);
void backend_download(struct backend *backend, void *target, struct matrix source);
void backend_fill_dummy(struct backend *backend, const struct dummy_args *args);

/* Scratch that ops of this backend need inside themselves for batches up to these sizes; the
 * backend takes it from REGION_SCRATCH at its first step. Host backends: per-thread tiles. */
size_t backend_scratch_bytes(const struct backend *backend, int32_t n_rows_max,
                             int32_t n_picks_max);

/* Opens a step; at most BACKEND_STEPS_MOST are unfinished, this one counted. shape_key: 0, or equal
 * for steps that select nothing and whose ops differ in nothing but the contents of host arrays. */
void backend_start_step(struct backend *backend, const struct batch *batch, uint64_t shape_key);
/* Closes it: behind its ops, source (at most n_picks_max picks) is copied to `target`, which is
 * filled when the step is finished; no row: nothing. Does not wait for any of it. */
void backend_submit_step(struct backend *backend, void *target, struct matrix source);
/* Waits for the oldest submitted step (or the open one, which it submits). device_ns: the time of
 * its ops. False: the latched failure, which is thereby taken; the results of all unfinished steps
 * are then undefined. */
bool backend_finish_step(struct backend *backend, uint64_t *device_ns, struct error *err);

void backend_embed(struct backend *backend, const struct embed_args *args);
void backend_rms_norm(struct backend *backend, const struct rms_norm_args *args);
void backend_linear(struct backend *backend, const struct linear_args *args);
void backend_rope(struct backend *backend, const struct rope_args *args);
void backend_store_kv(struct backend *backend, const struct store_kv_args *args);
void backend_attend(struct backend *backend, const struct attend_args *args);
void backend_gated_act(struct backend *backend, const struct gated_act_args *args);
void backend_gather_rows(struct backend *backend, const struct gather_rows_args *args);
void backend_select_kv(struct backend *backend, const struct select_kv_args *args);
void backend_score(struct backend *backend, const struct score_args *args);
void backend_commit(struct backend *backend, const struct commit_args *args);

#endif
