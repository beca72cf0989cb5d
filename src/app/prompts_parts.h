/* What the files of app/prompts share: the parts of one line on their way from JSON to a request.
 *
 *     line ── jansson ──► prompts_plain ──┐
 *                    └──► prompts_openai ─┴► struct prompt_parts ── prompts_encode ──► ids
 *
 * Only prompts*.c include this. */
#ifndef APP_PROMPTS_PARTS_H
#define APP_PROMPTS_PARTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "app/options.h"
#include "app/prompts.h"
#include "base/arena.h"
#include "base/error.h"
#include "model/config.h"
#include "text/chat.h"
#include "text/tokenizer.h"

/* Why a line is no request; the caller zeroes it. */
struct rejection {
    enum prompt_code code;
    struct error error; /* its message; the code in it plays no part */
};

/* Fills in the rejection and returns false, so that `return prompts_reject(...)` is one line. */
__attribute__((format(printf, 3, 4))) bool
prompts_reject(struct rejection *rejection, enum prompt_code code, const char *format, ...);

/* The same for a line that its scratch memory does not hold. */
bool prompts_reject_memory(struct rejection *rejection);

/* Where the prompt stood, and so what becomes of it. */
enum parts_kind {
    PARTS_NONE,
    PARTS_TEXT,     /* one user message, or raw text */
    PARTS_MESSAGES, /* a conversation */
    PARTS_IDS,      /* token ids, used as they are */
};

/* What a line asks for, checked for types but not yet against the model. Strings are borrowed from
 * the line's JSON value, so they live as long as it does. */
struct prompt_parts {
    enum parts_kind kind;
    struct bytes text;
    struct chat_message *messages; /* [n_messages], in the scratch arena */
    int32_t n_messages;
    int32_t *ids; /* [n_ids], in the scratch arena; NULL: only their number matters */
    int32_t n_ids;
    struct options settings; /* only what is_set says */
    int32_t n_stops;
    struct bytes stops[PROMPTS_STOPS_MAX];
    bool has_ignored;           /* an OpenAI field that does not change the answer */
    const char *overlooked_key; /* of a plain line: ignored, but probably meant; NULL: none */
    enum option_id meant;       /* by it; OPTION_COUNT: more answers than one */
};

/* ---- prompts_plain.c ---- */

/* A plain line. `prompt_key`: the one key to look for, or NULL. `prefers_ids`: token ids come
 * first, because text cannot be encoded. */
struct plain_options {
    const char *prompt_key;
    bool prefers_ids;
    bool has_prompt; /* there is one already: do not look for it */
};
bool prompts_plain_read(const json_t *line, const struct plain_options *options,
                        struct arena *scratch, struct prompt_parts *parts,
                        struct rejection *rejection);

/* One key that both forms have; true also when the key is none of them (then *is_known is false).
 */
bool prompts_plain_setting(const char *key, const json_t *value, struct prompt_parts *parts,
                           bool *is_known, struct rejection *rejection);

/* "messages": roles and contents. `refuses_others`: keys besides role, content and name that are
 * not null are an error instead of being ignored. */
bool prompts_plain_messages(const json_t *value, bool refuses_others, struct arena *scratch,
                            struct prompt_parts *parts, struct rejection *rejection);

/* "stop": a string or a list of at most PROMPTS_STOPS_MAX. */
bool prompts_plain_stops(const json_t *value, struct prompt_parts *parts,
                         struct rejection *rejection);

/* ---- prompts_openai.c ---- */

/* Whether a line has the form of the OpenAI batch API. */
bool prompts_openai_is(const json_t *line);

/* Such a line. The first field that is neither mapped, ignored nor without effect is an error. */
bool prompts_openai_read(const json_t *line, struct arena *scratch, struct prompt_parts *parts,
                         struct rejection *rejection);

/* ---- prompts_encode.c ---- */

/* How text becomes ids in this run. The caller fills in all but the last four fields, which
 * prompts_encode_init learns from the tokenizer. */
struct encoder {
    const struct tokenizer *tokenizer; /* NULL: text is refused */
    const struct chat_template *chat;  /* NULL: prompts are used as they are (--no-chat) */
    struct bytes system;               /* --system; data NULL: none */
    int32_t mask_id, n_vocab, n_positions;
    struct bytes mask_text; /* n 0: none */
    struct bytes *specials; /* [n_specials] spelled-out special tokens, the mask's among them */
    int32_t n_specials;
    size_t piece_bytes_max; /* the longest token's text */
};

/* Learns the special tokens of `encoder->tokenizer`; texts live in `run`. */
bool prompts_encode_init(struct encoder *encoder, struct arena *run, struct error *err);

/* The prompt's ids, in `scratch`, at least one and all below n_vocab. Special tokens come from the
 * template, from masks in a message and, without template, from anywhere. */
bool prompts_encode_ids(const struct encoder *encoder, const struct prompt_parts *parts,
                        struct arena *scratch, int32_t **ids, int32_t *n_ids,
                        struct rejection *rejection);

#endif
