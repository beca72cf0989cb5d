/* JSON lines to requests. Every non-blank input line gives exactly one struct prompt: a request
 * ready for the engine, or the reason why there is none (invariant I1: either becomes one output
 * line). Two forms are read: plain lines and those of the OpenAI batch API; dllm-batch(5) specifies
 * both. Memory per line: at most 24 bytes, for the check that ids are unique and not answered yet.
 */
#ifndef APP_PROMPTS_H
#define APP_PROMPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "app/ledger.h"
#include "app/options.h"
#include "app/shard.h"
#include "base/arena.h"
#include "base/error.h"
#include "engine/executor.h"
#include "model/config.h"
#include "plan/request.h"
#include "text/tokenizer.h"

/* What bounds the memory of a line, however long the input. */
#define PROMPTS_LINE_BYTES_MAX ((size_t)16 << 20)
#define PROMPTS_ID_BYTES_MAX   1024
#define PROMPTS_STOPS_MAX      4
#define PROMPTS_STOP_BYTES_MAX 1024

/* Why a line has no request. */
enum prompt_code {
    PROMPT_GOOD,
    PROMPT_INVALID_JSON,
    PROMPT_INVALID_UTF8,
    PROMPT_INVALID_REQUEST,   /* JSON, but not a request: a wrong type, an unknown role */
    PROMPT_MISSING,           /* no prompt, or an empty one */
    PROMPT_DUPLICATE_ID,      /* an earlier line has this id */
    PROMPT_LINE_TOO_LONG,     /* more than PROMPTS_LINE_BYTES_MAX */
    PROMPT_TOO_LONG,          /* does not fit the model, or the rows of a forward */
    PROMPT_UNSUPPORTED_FIELD, /* would change the answer, and we cannot do it */
    PROMPT_INVALID_SETTING,   /* a decode setting out of range, or at odds with another */
    PROMPT_NOT_FINITE,        /* found while it ran: the model gives no token a finite logit */
    PROMPT_CODE_COUNT,
};

/* "invalid_json", ...: the `code` of an error line. */
const char *prompts_code_name(enum prompt_code code);

/* One non-blank input line. Everything pointed to is borrowed from the reader until its next line,
 * or from a window (app/window.h) until that is filled again. */
struct prompt {
    int64_t index, line; /* 0-based and 1-based input line, blank ones counted */
    bool is_foreign;     /* of another shard: gets no answer here, and only its id was looked at */
    bool is_openai;      /* wants OpenAI's envelope */
    bool has_id;         /* false: the line could not be read that far */
    bool id_is_integer;
    struct bytes id; /* as on the line, integers in decimal; without one, the index as an integer */
    uint64_t line_hash; /* FNV-1a of the line's bytes (ledger_hash of kind 't') */
    enum ledger_verdict verdict;
    enum prompt_code code;
    const char *message; /* "" when good; one line of valid UTF-8 otherwise */
    /* The rest only when good. */
    struct request request;
    int32_t n_masks;    /* masks in the prompt: more than 0 is infill */
    int32_t n_generate; /* tokens to generate: gen_length or n_masks */
    int64_t n_cells;    /* canvas cells, twins counted: what it takes of a window */
    int32_t n_output; /* of a trace: tokens that it gave, gen_length at most; 0: it does not say */
    int32_t n_stops;
    struct bytes stops[PROMPTS_STOPS_MAX]; /* the text ends before the first of them */
};

struct prompts; /* the reader; remembers ids, counts lines */

struct prompts_options {
    const char *path;                  /* "-" is standard input */
    const struct options *flags;       /* limit, prompt_key, system, no_chat and decode settings */
    const struct model_config *config; /* all borrowed until close */
    const struct tokenizer *tokenizer; /* NULL: only prompt_token_ids can be read */
    /* The input is a trace (app/trace.h), whose arrivals become request.arrival_ns, as stamped;
     * may_be_prompts: unless its first line is none, and no option is given that only traces have.
     * Prompts of which only the length is known have made-up ids. */
    bool is_trace, may_be_prompts;
    bool only_shapes; /* requests have no ids (NULL) */
    /* No line is read further than to its id, none is read past, and none ends the reading:
     * prompt.verdict says what the ledger knows. `config` is NULL then. */
    bool only_ids;
    struct ledger *ledger; /* lines that it knows as answered are read past; NULL: none is */
    /* NULL: every line is ours. With a partition the input must have the lines that it had then. */
    const struct shard *shard;
};

/* Opens the input and learns the tokenizer's special tokens. Heap; close it. False: ERROR_NO_INPUT,
 * or ERROR_UNAVAILABLE for want of memory. */
bool prompts_open(struct prompts **prompts, const struct prompts_options *options,
                  struct error *err);
void prompts_close(struct prompts *prompts); /* NULL is fine */

/* From here on requests must also pass executor_check. Before, the engine's limits are not known.
 */
void prompts_set_executor(struct prompts *prompts, const struct executor *executor);

enum prompts_status {
    PROMPTS_READ,   /* `prompt` is the next line's */
    PROMPTS_END,    /* end of input, or --limit lines were read */
    PROMPTS_FAILED, /* the input cannot be read on; err says why */
};

/* Times of admission are monotonic nanoseconds. One thread at a time. */
enum prompts_status prompts_next(struct prompts *prompts, struct prompt *prompt, struct error *err);

/* Waits until prompts_next would come back at once. False: `hurry_fd` could be read before the
 * input had another line or its end. Only after the first line. */
bool prompts_wait(struct prompts *prompts, int hurry_fd);

/* Lines of the input so far, blank ones apart; not while another thread reads. */
struct prompts_counts {
    int64_t n;
    uint64_t keys;      /* the sum of what their answers are known by (app/ledger.h) */
    int64_t n_answered; /* read past, because they are answered */
    int64_t n_foreign;  /* left to other shards */
};
struct prompts_counts prompts_counts(const struct prompts *prompts);

/* The 1-based line that first held an OpenAI field which is ignored (model, user, metadata, store);
 * 0: none so far. */
int64_t prompts_ignored_line(const struct prompts *prompts);

/* Tokens and requests of a trace: what was read is what became requests, and the other three. */
struct prompts_sum {
    int64_t n_requests, n_prompt, n_output;
};
struct prompts_trace {
    struct prompts_sum read, skipped, refused; /* refused: error lines */
    struct prompts_sum cut;                    /* tokens of requests that were shortened */
};
const struct prompts_trace *prompts_trace(const struct prompts *prompts); /* NULL: no trace */

/* The first key of a plain line that is ignored like any column, but looks like a setting. */
struct overlooked {
    int64_t line;   /* 1-based; 0: none so far */
    char text[192]; /* what is ignored, and what may be meant; for people */
};
const struct overlooked *prompts_overlooked(const struct prompts *prompts);

#endif
