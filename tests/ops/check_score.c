/* score and commit: decisions, which must be equal. The oracle has all logits of a row and sorts
 * them; a row whose decision hangs on less than the rounding of its logits is drawn again. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "backend/noise.h"
#include "check_ops.h"

#define COUNT_OF(array) ((int32_t)(sizeof(array) / sizeof(array)[0]))

enum { VOCAB_MAX = 16500 };

struct score_case {
    int32_t n_rows, n_in, n_vocab, n_out, mask_id;
    enum dtype dtype;
    bool exact; /* logits without rounding, so that ties are real */
    struct weight head;
    const float *w;         /* [n_out, n_in] */
    float *hidden, *uncond; /* [n_rows, n_in] */
    struct score_row *rows; /* [n_rows]; uncond_row 0: guided by row r of uncond; -1: not */
};

/* ---- the oracle ---- */

/* A row's logits after guidance and suppression; returns the sum of |terms| of the largest. */
static double make_logits(const struct score_case *c, int32_t r, bool naive, double *logits)
{
    const struct score_row *row = &c->rows[r];
    double largest = 0, weight = (double)row->cfg_scale + 1;
    for (int32_t id = 0; id < c->n_vocab; id++) {
        const float *w = c->w + (ptrdiff_t)id * c->n_in;
        double sum = 0, uncond = 0, size = 0;
        for (int32_t k = 0; k < c->n_in; k++) {
            double x = (double)c->hidden[(ptrdiff_t)r * c->n_in + k];
            double u = (double)c->uncond[(ptrdiff_t)r * c->n_in + k];
            sum = check_keep(naive, sum + check_keep(naive, x * (double)w[k]));
            uncond = check_keep(naive, uncond + check_keep(naive, u * (double)w[k]));
            size += (fabs(x) + fabs(u)) * fabs((double)w[k]);
        }
        if (row->uncond_row >= 0) {
            double step = check_keep(naive, weight * check_keep(naive, sum - uncond));
            sum = check_keep(naive, uncond + step);
            size *= 2 * weight + 1;
        }
        logits[id] = sum;
        largest = fmax(largest, size);
    }
    if (c->mask_id < c->n_vocab) logits[c->mask_id] = -INFINITY;
    for (int32_t i = 0; i < row->n_suppressed; i++)
        if (row->suppressed[i] < c->n_vocab) logits[row->suppressed[i]] = -INFINITY;
    return largest;
}

/* What must be decided: the candidates in order, how many of them stay, and the id. */
struct decision {
    int32_t order[VOCAB_MAX]; /* [n_candidates] */
    int32_t n_candidates, n_kept, id;
    bool is_clear;
};

static void sort_candidates(const double *logits, int32_t n, struct decision *decision)
{
    int32_t *order = decision->order, n_candidates = 0;
    assert(n <= VOCAB_MAX);
    for (int32_t id = 0; id < n; id++) {
        if (logits[id] == -INFINITY) continue;
        int32_t begin = 0, end = n_candidates; /* where the lower ones begin */
        while (begin < end) {
            int32_t middle = (begin + end) / 2;
            if (logits[order[middle]] < logits[id]) end = middle;
            else begin = middle + 1;
        }
        memmove(order + begin + 1, order + begin, (size_t)(n_candidates++ - begin) * sizeof *order);
        order[begin] = id;
    }
    decision->n_candidates = decision->n_kept = n_candidates;
}

/* Candidate i of the order and the next one are apart, or tied for certain. */
static bool is_apart(const double *logits, const struct decision *decision, int32_t i,
                     double tolerance)
{
    if (i < 0 || i + 1 >= decision->n_candidates) return true;
    return logits[decision->order[i]] - logits[decision->order[i + 1]] >= tolerance;
}

static void keep_top_k(const struct score_row *row, const double *logits, double tolerance,
                       struct decision *decision)
{
    int32_t n = row->top_k;
    if (n == 0 || n >= decision->n_kept) return;
    double last = logits[decision->order[n - 1]];
    while (n < decision->n_kept && logits[decision->order[n]] >= last)
        n++;
    decision->n_kept = n;
    if (!is_apart(logits, decision, n - 1, tolerance)) decision->is_clear = false;
}

static void keep_top_p(const struct score_row *row, const double *logits, double tolerance,
                       struct decision *decision)
{
    double scale = row->temperature > 0 ? row->temperature : 1;
    double first = logits[decision->order[0]], total = 0, before = 0;
    int32_t n = 0;
    if (row->top_p >= 1) return;
    for (int32_t i = 0; i < decision->n_kept; i++)
        total += exp((logits[decision->order[i]] - first) / scale);
    double limit = row->top_p * total, unsure = total * (4 * tolerance / scale + 1e-9);
    while (n < decision->n_kept && before <= limit) {
        double weight = exp((logits[decision->order[n]] - first) / scale);
        if (n > 0 && fabs(before - limit) < unsure) decision->is_clear = false;
        before += weight;
        n++;
    }
    if (n < decision->n_kept && fabs(before - limit) < unsure) decision->is_clear = false;
    decision->n_kept = n;
    if (!is_apart(logits, decision, n - 1, tolerance)) decision->is_clear = false;
}

static void draw_id(const struct score_row *row, const double *logits, double tolerance,
                    struct decision *decision)
{
    double best = -INFINITY, second = -INFINITY;
    assert(row->temperature > 0);
    for (int32_t i = 0; i < decision->n_kept; i++) {
        int32_t id = decision->order[i];
        double u = noise_uniform(row->noise_key, row->step, row->position, (uint32_t)id);
        double noisy = logits[id] - row->temperature * log(-log(u));
        if (noisy > best) {
            second = best;
            best = noisy;
            decision->id = id;
        } else if (noisy > second) {
            second = noisy;
        }
    }
    if (best - second < tolerance + 1e-9) decision->is_clear = false;
}

static void decide(const struct score_case *c, int32_t r, struct decision *decision)
{
    double logits[VOCAB_MAX];
    const struct score_row *row = &c->rows[r];
    double size = make_logits(c, r, false, logits);
    double tolerance = c->exact ? 0 : size * c->n_in * 0x1p-23;
    decision->is_clear = true;
    sort_candidates(logits, c->n_vocab, decision);
    if (decision->n_candidates == 0) {
        decision->is_clear = false;
        return;
    }
    keep_top_p(row, logits, tolerance, decision);
    keep_top_k(row, logits, tolerance, decision);
    decision->id = decision->order[0];
    if (row->temperature > 0) draw_id(row, logits, tolerance, decision);
    else if (!is_apart(logits, decision, 0, tolerance)) decision->is_clear = false;
}

/* ---- numbers that go with a decision ---- */

struct softmax_args {
    const double *logits; /* by id */
    const int32_t *ids;   /* [n] */
    int32_t n;
    double scale;
    bool naive;
};

/* p[i] of ids[i]; returns the log of the normalising sum, relative to logit 0. */
static double softmax_of(const struct softmax_args *args, double *p)
{
    bool naive = args->naive;
    double max = -INFINITY, sum = 0;
    assert(args->n > 0);
    for (int32_t i = 0; i < args->n; i++)
        max = fmax(max, check_keep(naive, args->logits[args->ids[i]] / args->scale));
    for (int32_t i = 0; i < args->n; i++) {
        double z = check_keep(naive, args->logits[args->ids[i]] / args->scale);
        p[i] = check_keep(naive, exp(check_keep(naive, z - max)));
        sum = check_keep(naive, sum + p[i]);
    }
    for (int32_t i = 0; i < args->n; i++)
        p[i] = check_keep(naive, p[i] / sum);
    return check_keep(naive, max + check_keep(naive, log(sum)));
}

static double confidence_unscaled(const struct score_row *row, const struct decision *decision,
                                  struct softmax_args args)
{
    int32_t ids[VOCAB_MAX], n = 0, place = -1;
    double p[VOCAB_MAX];
    for (int32_t i = 0; i < decision->n_candidates; i++) {
        bool is_suppressed = false;
        for (int32_t j = 0; j < row->n_confidence_suppressed; j++)
            is_suppressed |= row->confidence_suppressed[j] == decision->order[i];
        if (is_suppressed) continue;
        if (decision->order[i] == decision->id) place = n;
        ids[n++] = decision->order[i];
    }
    if (place < 0) return 0;
    args.ids = ids;
    args.n = n;
    softmax_of(&args, p);
    return p[place];
}

static double confidence_of(const struct score_row *row, const struct decision *decision,
                            struct softmax_args args)
{
    double p[VOCAB_MAX], entropy = 0;
    if (row->confidence == CONFIDENCE_RANDOM)
        return noise_uniform(row->noise_key, row->step, row->position, NOISE_CONFIDENCE);
    if (row->confidence == CONFIDENCE_PROBABILITY) return confidence_unscaled(row, decision, args);
    args.n = decision->n_kept;
    args.scale = row->temperature > 0 ? row->temperature : 1;
    softmax_of(&args, p);
    if (row->confidence == CONFIDENCE_MARGIN)
        return args.n > 1 ? check_keep(args.naive, p[0] - p[1]) : p[0];
    for (int32_t i = 0; i < args.n; i++) {
        if (row->confidence == CONFIDENCE_FILTERED && decision->order[i] == decision->id)
            return p[i];
        double information = check_keep(args.naive, log(check_keep(args.naive, p[i] + 1e-10)));
        entropy = check_keep(args.naive, entropy + check_keep(args.naive, p[i] * information));
    }
    return entropy;
}

/* {log_prob, confidence}; returns the size of the terms of the logits. */
static double numbers_of(const struct score_case *c, int32_t r, const struct decision *decision,
                         bool naive, double numbers[2])
{
    double logits[VOCAB_MAX], p[VOCAB_MAX];
    double size = make_logits(c, r, naive, logits);
    struct softmax_args args = {logits, decision->order, decision->n_candidates, 1, naive};
    numbers[0] = check_keep(naive, logits[decision->id] - softmax_of(&args, p));
    numbers[1] = confidence_of(&c->rows[r], decision, args);
    return size;
}

/* ---- drawing ---- */

static void draw_settings(struct check *check, const struct score_case *c, struct score_row *row)
{
    static const double temperatures[] = {0, 0.5, 1, 2}, top_ps[] = {1, 1, 0.93, 0.5, 0.07};
    static const int32_t top_ks[] = {0, 0, 1, 3, 20, 100000};
    static const float cfg_scales[] = {0, 0.5f, 2};
    *row = (struct score_row){.uncond_row = check_below(check, 3) == 0 ? 0 : -1};
    row->cfg_scale = cfg_scales[check_below(check, COUNT_OF(cfg_scales))];
    row->temperature = temperatures[check_below(check, COUNT_OF(temperatures))];
    row->top_p = top_ps[check_below(check, COUNT_OF(top_ps))];
    row->top_k = top_ks[check_below(check, COUNT_OF(top_ks))];
    row->confidence = (enum confidence)check_below(check, CONFIDENCE_ENTROPY + 1);
    row->noise_key[0] = check_random(check);
    row->noise_key[1] = check_random(check);
    row->step = (uint32_t)check_below(check, 100);
    row->position = (uint32_t)check_below(check, 5000);
    row->n_suppressed = check_below(check, 3);
    row->n_confidence_suppressed = check_below(check, SCORE_SUPPRESSED_MAX + 1);
    for (int32_t i = 0; i < SCORE_SUPPRESSED_MAX; i++) {
        row->suppressed[i] = check_below(check, c->n_vocab);
        row->confidence_suppressed[i] = check_below(check, c->n_vocab);
    }
}

static void draw_hidden(struct check *check, const struct score_case *c, float *row)
{
    static const double deviations[] = {0.3, 1, 3};
    double deviation = deviations[check_below(check, COUNT_OF(deviations))];
    if (c->exact) {
        check_elements(check, DTYPE_F32, (size_t)c->n_in, row, true);
    } else {
        check_fill_row(check, row, c->n_in, ROW_NORMAL);
        for (int32_t k = 0; k < c->n_in; k++)
            row[k] = check_round(check, row[k] * deviation);
    }
}

static void draw_row(struct check *check, const struct score_case *c, int32_t r,
                     struct decision *decision)
{
    for (int32_t draw = 0; draw == 0 || !decision->is_clear; draw++) {
        assert(draw < 1000);
        draw_settings(check, c, &c->rows[r]);
        draw_hidden(check, c, c->hidden + (ptrdiff_t)r * c->n_in);
        draw_hidden(check, c, c->uncond + (ptrdiff_t)r * c->n_in);
        decide(c, r, decision);
    }
}

static void draw_score(struct check *check, struct score_case *c, struct decision **decisions)
{
    size_t n_hidden = (size_t)c->n_rows * (size_t)c->n_in;
    float *w = check_host(check, (size_t)c->n_out * (size_t)c->n_in, sizeof *w);
    struct weight shape = {.n_out = c->n_out, .n_in = c->n_in, .dtype = c->dtype};
    c->head = check_weight(check, shape, w, c->exact);
    c->w = w;
    c->mask_id = check_below(check, c->n_vocab + 2);
    if (c->n_vocab == 1) c->mask_id = 1;
    c->hidden = check_host(check, n_hidden, sizeof *c->hidden);
    c->uncond = check_host(check, n_hidden, sizeof *c->uncond);
    c->rows = check_host(check, (size_t)c->n_rows, sizeof *c->rows);
    *decisions = check_host(check, (size_t)c->n_rows, sizeof **decisions);
    for (int32_t r = 0; r < c->n_rows; r++)
        draw_row(check, c, r, &(*decisions)[r]);
}

/* ---- running ---- */

/* Hidden rows of the list, then the uncond rows of those that are guided. */
static struct matrix upload_hidden(struct check *check, const struct score_case *c,
                                   const int32_t *units, struct score_row *rows, int32_t n)
{
    size_t n_in = (size_t)c->n_in, row_bytes = n_in * sizeof(float);
    float *hidden = check_host(check, 2 * (size_t)n * n_in, sizeof *hidden);
    int32_t n_hidden = n;
    for (int32_t i = 0; i < n; i++) {
        rows[i] = c->rows[units[i]];
        memcpy(hidden + (size_t)i * n_in, c->hidden + (size_t)units[i] * n_in, row_bytes);
        if (rows[i].uncond_row < 0) continue;
        rows[i].uncond_row = n_hidden;
        memcpy(hidden + (size_t)n_hidden * n_in, c->uncond + (size_t)units[i] * n_in, row_bytes);
        n_hidden++;
    }
    return check_input(check, n_hidden, c->n_in, hidden);
}

static void run_score(struct check *check, const void *context, const int32_t *units, int32_t n,
                      void *out)
{
    const struct score_case *c = context;
    struct check_mark mark = check_mark(check);
    struct score_row *rows = check_host(check, (size_t)n, sizeof *rows);
    size_t n_bytes = (size_t)n * sizeof(struct pick);
    struct pick *found = check_host(check, n_bytes, 1);
    struct score_args args = {.picks = check_take(check, n_bytes),
                              .hidden = upload_hidden(check, c, units, rows, n),
                              .head = c->head,
                              .rows = rows,
                              .n = n,
                              .n_vocab = c->n_vocab,
                              .mask_id = c->mask_id};
    struct matrix picks = {args.picks, n, (int32_t)sizeof(struct pick) / 4, DTYPE_I32};
    memset(found, 0xFF, n_bytes);
    backend_upload(&check->backend, picks, found);
    check_start(check, NULL);
    backend_score(&check->backend, &args);
    check_finish(check);
    backend_download(&check->backend, found, picks);
    for (int32_t i = 0; i < n; i++)
        ((struct pick *)out)[units[i]] = found[i];
    check_rewind(check, mark);
}

struct score_tally {
    struct check_tally log_prob, confidence;
};

static void judge_pick(struct check *check, const struct score_case *c, int32_t r,
                       const struct decision *decision, const struct pick *pick,
                       struct score_tally *tally)
{
    const struct score_row *row = &c->rows[r];
    double exact[2], naive[2];
    if (pick->id != decision->id) {
        check_fail(check,
                   "score vocab %d x %d, row %d: id %d, want %d (T %g, top_k %d, top_p %g, cfg %g)",
                   c->n_vocab, c->n_in, r, pick->id, decision->id, row->temperature, row->top_k,
                   row->top_p, row->uncond_row < 0 ? 0 : (double)row->cfg_scale);
        return;
    }
    double size = numbers_of(c, r, decision, false, exact);
    double scaled = row->temperature > 0 ? size / row->temperature : size;
    numbers_of(c, r, decision, true, naive);
    struct check_row log_prob = {&exact[0], &naive[0], 1, 1 + size + fabs(exact[0])};
    struct check_row confidence = {&exact[1], &naive[1], 1, 1 + scaled + fabs(exact[1])};
    float found = (float)pick->confidence;
    if (row->confidence == CONFIDENCE_RANDOM && pick->confidence != exact[1])
        check_fail(check, "score row %d: random confidence is not the noise", r);
    check_tally_row(&tally->log_prob, &pick->log_prob, &log_prob);
    check_tally_row(&tally->confidence, &found, &confidence);
}

static void score_case(struct check *check, struct score_case *c)
{
    struct score_tally tally = {0};
    char what[96];
    assert(c->n_out >= c->n_vocab);
    for (int32_t draw = 0; tally.log_prob.n < CHECK_TALLY_MIN / 4; draw++) {
        struct decision *decisions;
        check_reset(check);
        draw_score(check, c, &decisions);
        struct pick *found = check_host(check, (size_t)c->n_rows, sizeof *found);
        struct check_units units = {run_score, c, c->n_rows, (size_t)c->n_rows * sizeof *found};
        check_draw(check, &units, found, "score", draw);
        for (int32_t r = 0; r < c->n_rows; r++)
            judge_pick(check, c, r, &decisions[r], &found[r], &tally);
        if (check->failure[0] != '\0') return; /* other ids have no numbers to compare */
    }
    snprintf(what, sizeof what, "score %d x %d log_prob", c->n_vocab, c->n_in);
    check_tally_end(check, &tally.log_prob, what);
    snprintf(what, sizeof what, "score %d x %d confidence", c->n_vocab, c->n_in);
    check_tally_end(check, &tally.confidence, what);
}

/* A hidden row that overflowed has no pick, and the others have theirs. */
static void score_overflow(struct check *check)
{
    struct score_case c = {.n_rows = 3, .n_in = 16, .n_vocab = 40, .n_out = 40};
    struct decision *decisions;
    struct error err = {0};
    uint64_t device_ns;
    const int32_t units[] = {0, 1, 2};
    struct score_row rows[3];
    check_reset(check);
    draw_score(check, &c, &decisions);
    for (int32_t r = 0; r < 3; r++)
        c.rows[r].uncond_row = -1;
    c.hidden[16] = NAN;
    struct score_args args = {.picks = check_take(check, 3 * sizeof(struct pick)),
                              .hidden = upload_hidden(check, &c, units, rows, 3),
                              .head = c.head,
                              .rows = rows,
                              .n = 3,
                              .n_vocab = c.n_vocab,
                              .mask_id = c.mask_id};
    check_start(check, NULL);
    backend_score(&check->backend, &args);
    if (!backend_finish_step(&check->backend, &device_ns, &err))
        check_fail(check, "score: a row of NaN logits fails the step: %s", err.message);
    struct pick picks[3];
    struct matrix found = {args.picks, 3, sizeof *picks / sizeof(int32_t), DTYPE_I32};
    backend_download(&check->backend, picks, found);
    for (int32_t r = 0; r < 3; r++)
        if ((picks[r].id < 0) != (r == 1))
            check_fail(check, "score: row %d has id %d beside a row of NaN", r, picks[r].id);
}

void check_score(struct check *check)
{
    static const int32_t vocabs[] = {1, 2, 15, 17, 64, 255, 256, 257, 600};
    static const int32_t ins[] = {4, 16, 33, 64}, rows[] = {1, 5, 17};
    static const int32_t tiled_vocabs[] = {8193, VOCAB_MAX}; /* more than a tile; ties across */
    int32_t n = COUNT_OF(vocabs) * COUNT_OF(ins) * COUNT_OF(rows);
    for (int32_t i = 0; i < n; i++) {
        struct score_case c = {.n_vocab = vocabs[i % COUNT_OF(vocabs)],
                               .n_in = ins[i / COUNT_OF(vocabs) % COUNT_OF(ins)],
                               .n_rows = rows[i / COUNT_OF(vocabs) / COUNT_OF(ins)],
                               .dtype = (enum dtype)(i / 2 % 3),
                               .exact = i % 2 == 1};
        c.n_out = c.n_vocab + i % 4;
        score_case(check, &c);
    }
    for (int32_t i = 0; i < COUNT_OF(tiled_vocabs); i++) {
        struct score_case c = {.n_vocab = tiled_vocabs[i],
                               .n_out = tiled_vocabs[i],
                               .n_in = 4,
                               .n_rows = 5,
                               .dtype = DTYPE_BF16,
                               .exact = true};
        score_case(check, &c);
    }
    score_overflow(check);
}

/* ---- commit ---- */

enum { PICKS_MAX = 200, REQUESTS_MAX = 6, N_CELLS = 500, EMPTY_CELL = -5, GIVEN_CELL = 5000 };

struct commit_case {
    int32_t n_picks, n_requests;
    struct pick picks[PICKS_MAX];
    int32_t cell[PICKS_MAX], twin_cell[PICKS_MAX];
    uint32_t position[PICKS_MAX];
    struct commit_request requests[REQUESTS_MAX];
    int32_t before[N_CELLS], wanted[N_CELLS];
};

static double commit_noise(const struct commit_case *c, const struct commit_request *request,
                           int32_t pick, uint32_t stream)
{
    return noise_uniform(request->noise_key, request->step, c->position[pick], stream);
}

/* Order of a request's picks of masked cells: values descending, ties to the lower position.
 * Returns their number. */
static int32_t order_picks(const struct commit_case *c, const struct commit_request *request,
                           int32_t *order)
{
    double value[PICKS_MAX];
    int32_t n_masked = 0;
    for (int32_t n = 0; n < request->n_picks; n++) {
        int32_t pick = request->pick_begin + n, i = n_masked;
        if (c->before[c->cell[pick]] != EMPTY_CELL) continue;
        n_masked++;
        value[pick] = c->picks[pick].confidence;
        if (request->order_temperature > 0)
            value[pick] = value[pick] / request->order_temperature -
                          log(-log(commit_noise(c, request, pick, NOISE_ORDER)));
        for (; i > 0 && value[order[i - 1]] < value[pick]; i--)
            order[i] = order[i - 1];
        order[i] = pick;
    }
    return n_masked;
}

/* How many of the n ordered picks a factor accepts. */
static int32_t factor_count(const struct commit_case *c, const struct commit_request *request,
                            const int32_t *order, int32_t n)
{
    for (int32_t i = 1; i < n - 1; i++) {
        if (c->picks[order[i]].confidence < 1 - request->factor / (i + 2)) return i;
    }
    return n; /* no rank fails, or only the last */
}

static bool is_committed(const struct commit_case *c, const struct commit_request *request,
                         const int32_t *order, int32_t n, int32_t rank)
{
    switch (request->rule) {
    case COMMIT_TOP: return rank < request->n_commit;
    case COMMIT_THRESHOLD:
        return rank == 0 || c->picks[order[rank]].confidence >= request->threshold;
    case COMMIT_FACTOR: return rank < factor_count(c, request, order, n);
    case COMMIT_EACH: return commit_noise(c, request, order[rank], NOISE_EACH) < request->threshold;
    }
    return false;
}

static void want_committed(struct commit_case *c, const struct commit_request *request)
{
    int32_t order[PICKS_MAX];
    assert(request->n_picks <= PICKS_MAX);
    int32_t n = order_picks(c, request, order);
    for (int32_t rank = 0; rank < n; rank++) {
        int32_t pick = order[rank];
        if (!is_committed(c, request, order, n, rank)) continue;
        c->wanted[c->cell[pick]] = c->picks[pick].id;
        if (c->twin_cell[pick] >= 0) c->wanted[c->twin_cell[pick]] = c->picks[pick].id;
    }
}

static void draw_request(struct check *check, struct commit_case *c, int32_t i, int32_t n_picks)
{
    static const double values[] = {0, 0.3, 0.5, 0.7, 0.9, 1};
    struct commit_request *request = &c->requests[i];
    *request = (struct commit_request){.pick_begin = c->n_picks,
                                       .n_picks = n_picks,
                                       .rule = (enum commit_rule)check_below(check, 4),
                                       .n_commit = check_below(check, n_picks + 2),
                                       .threshold = values[check_below(check, COUNT_OF(values))],
                                       .factor = values[check_below(check, COUNT_OF(values))],
                                       .noise_key = {check_random(check), check_random(check)},
                                       .step = (uint32_t)check_below(check, 100)};
    if (request->rule == COMMIT_TOP && check_below(check, 2) == 0) request->order_temperature = 0.4;
    for (int32_t n = 0; n < n_picks; n++) {
        int32_t pick = c->n_picks++;
        double confidence =
            check_below(check, 3) == 0 ? check_uniform(check) : values[check_below(check, 6)];
        c->picks[pick] = (struct pick){.id = check_below(check, 1000), .confidence = confidence};
        c->cell[pick] = 2 * pick;
        c->twin_cell[pick] = check_below(check, 3) == 0 ? 2 * pick + 1 : -1;
        c->position[pick] = (uint32_t)(10 * i + 3 * n);
        if (check_below(check, 5) > 0) continue;
        c->before[c->cell[pick]] = c->wanted[c->cell[pick]] = GIVEN_CELL;
        if (check_below(check, 2) == 0) c->picks[pick].id = -1;
    }
}

static void commit_case(struct check *check, int32_t n_requests)
{
    static const int32_t sizes[] = {0, 1, 2, 7, 31, 32};
    check_reset(check);
    struct commit_case *c = check_host(check, 1, sizeof *c);
    int32_t found[N_CELLS];
    for (int32_t i = 0; i < N_CELLS; i++)
        c->before[i] = c->wanted[i] = EMPTY_CELL;
    for (int32_t i = 0; i < n_requests; i++) {
        draw_request(check, c, i, sizes[check_below(check, COUNT_OF(sizes))]);
        want_committed(c, &c->requests[i]);
    }
    if (c->n_picks == 0) return;
    struct pick *picks = check_take(check, (size_t)c->n_picks * sizeof *picks);
    struct matrix raw = {picks, c->n_picks, (int32_t)sizeof *picks / 4, DTYPE_I32};
    backend_upload(&check->backend, raw, c->picks);
    struct commit_args args = {.canvas = check_cells(check, N_CELLS, c->before),
                               .picks = picks,
                               .cell = c->cell,
                               .twin_cell = c->twin_cell,
                               .position = c->position,
                               .requests = c->requests,
                               .n = n_requests,
                               .mask_id = EMPTY_CELL};
    check_start(check, NULL);
    backend_commit(&check->backend, &args);
    check_finish(check);
    backend_download(&check->backend, found, args.canvas);
    backend_download(&check->backend, c->picks, raw);
    for (int32_t i = 0; i < c->n_picks; i++)
        if ((c->picks[i].is_committed != 0) != (found[c->cell[i]] != c->before[c->cell[i]]))
            check_fail(check, "commit: pick %d is marked %d", i, c->picks[i].is_committed);
    if (memcmp(found, c->wanted, sizeof found) != 0)
        check_fail(check, "commit: other cells than wanted were written (%d requests, rule %d..)",
                   n_requests, (int)c->requests[0].rule);
}

void check_commit(struct check *check)
{
    for (int32_t i = 0; i < 600; i++)
        commit_case(check, 1 + i % REQUESTS_MAX);
}
