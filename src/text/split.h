/* The pre-tokenizer: cuts a text at the matches of the tokenizer's own regex. Matches are
 * stretches, and so is what lies between them ("Isolated"); joined, the stretches are the text.
 *
 * Tokenizer files write their regexes for Oniguruma; ours is PCRE2. Both mean the same by the
 * constructs that are let through; all others are refused rather than understood differently. */
#ifndef TEXT_SPLIT_H
#define TEXT_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct split {
    struct pcre2_real_code_8 *code; /* read-only after compile; shared by threads */
    const char *regex;              /* as in the file, NUL-terminated */
};

/* Compiles `regex`, which is borrowed. ERROR_FORMAT: damaged, too long, or with a construct that
 * the two engines understand differently. Clear it. */
bool split_compile(struct split *split, const char *regex, struct error *err);
void split_clear(struct split *split); /* a zeroed one is fine */

/* What matching needs, for one thread and one text at a time. */
struct split_matcher {
    struct pcre2_real_match_data_8 *data;
    struct pcre2_real_match_context_8 *context;
    size_t budget_bytes; /* what longer looks at the text may still cost */
};

/* For texts of `n_bytes` in all: what matching them may cost is linear in that, so that no regex of
 * a file makes a text take for ever. Heap; close it. */
bool split_matcher_open(struct split_matcher *matcher, size_t n_bytes, struct error *err);
void split_matcher_close(struct split_matcher *matcher); /* a zeroed one is fine */

/* Walks over one text: set `split` and `text` (valid UTF-8), zero the rest. */
struct split_cursor {
    const struct split *split;
    struct bytes text;
    size_t at;                     /* where the next stretch starts */
    size_t search_from;            /* where the next match may start */
    size_t match_start, match_end; /* the last match */
    bool any_match, match_waits;   /* the match is the next stretch */
};

enum split_status { SPLIT_STRETCH, SPLIT_END, SPLIT_FAILED };

/* The next stretch, never empty, in `stretch` (a part of the text). SPLIT_FAILED: `err` says why.
 */
enum split_status split_next(struct split_cursor *cursor, struct split_matcher *matcher,
                             struct bytes *stretch, struct error *err);

#endif
