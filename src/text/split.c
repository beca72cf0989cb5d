/* Regexes: translation from Oniguruma's dialect, compilation, and the walk from match to match.
 * A walk over n bytes gets a budget of steps proportional to n; the engine only tells when a limit
 * was passed, so a match starts with a small limit that is raised, and paid for, while it fails. */
#include "text/split.h"

#include <assert.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/utf8.h"

enum {
    REGEX_BYTES_MAX = 4096,
    /* The longest replacement below, for the two bytes of "\s". */
    TRANSLATED_BYTES_MAX = 8 * REGEX_BYTES_MAX,
    STEPS_FIRST = 4096,
    STEPS_RAISE = 4,
    STEPS_PER_BYTE = 64,
    STEPS_SPARE = 1 << 24,
};

/* ---- translation ---- */

struct translation {
    const char *in; /* the rest of the regex, NUL-terminated */
    char *out;      /* TRANSLATED_BYTES_MAX, with room by construction */
    size_t n_out;
    bool in_class;
    const char *refused; /* what the regex must not have */
};

static void copy(struct translation *t, const char *text, size_t n_in, size_t n_out)
{
    assert(t->n_out + n_out < TRANSLATED_BYTES_MAX);
    memcpy(t->out + t->n_out, text, n_out);
    t->n_out += n_out;
    t->in += n_in;
}

static bool refuse(struct translation *t, const char *construct)
{
    t->refused = construct;
    return false;
}

static bool is_word_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* PCRE2's \s has U+180E, Oniguruma's is the Unicode property. Escapes that agree are copied. */
static bool translate_escape(struct translation *t)
{
    static const char space[] = "\\p{White_Space}", other[] = "\\P{White_Space}";
    char c = t->in[1];
    size_t n = 2;
    if (c == 0) return refuse(t, "a backslash at its end");
    if (c == 'p' || c == 'P' || c == 'x') {
        const char *end = t->in[2] == '{' ? strchr(t->in, '}') : NULL;
        if (end == NULL) return refuse(t, "\\p, \\P or \\x without braces");
        n = (size_t)(end + 1 - t->in);
    } else if (is_word_byte(c) && strchr("sSdDrnt", c) == NULL) {
        return refuse(t, "an escape other than \\s \\S \\d \\D \\p{} \\P{} \\r \\n \\t \\x{}");
    }
    if (c == 's') copy(t, space, n, sizeof space - 1);
    else if (c == 'S') copy(t, other, n, sizeof other - 1);
    else copy(t, t->in, n, n);
    return true;
}

/* Sets of sets are Oniguruma's alone. */
static bool translate_in_class(struct translation *t)
{
    if (t->in[0] == '[') return refuse(t, "a set inside a set");
    if (t->in[0] == '&' && t->in[1] == '&') return refuse(t, "an intersection of sets");
    if (t->in[0] == ']') t->in_class = false;
    copy(t, t->in, 1, 1);
    return true;
}

static bool translate_group(struct translation *t)
{
    static const char *const openers[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    if (t->in[1] == '*') return refuse(t, "a verb");
    if (t->in[1] != '?') {
        copy(t, t->in, 1, 1);
        return true;
    }
    for (size_t i = 0; i < sizeof openers / sizeof *openers; i++) {
        size_t n = strlen(openers[i]);
        if (strncmp(t->in, openers[i], n) != 0) continue;
        copy(t, t->in, n, n);
        return true;
    }
    return refuse(t, "a group other than (?: (?i: (?= (?! (?<= (?<! (?>");
}

static bool translate_plain(struct translation *t)
{
    switch (t->in[0]) {
    case '(': return translate_group(t);
    case '^':
    case '$': return refuse(t, "an anchor");
    case '{':
        if (t->in[1] == ',') return refuse(t, "a repetition without a lower bound");
        break;
    case '}':
        if (t->in[1] != 0 && strchr("+?*", t->in[1])) return refuse(t, "a quantifier after braces");
        break;
    case '[':
        t->in_class = true;
        if (t->in[1] == '^') copy(t, t->in, 1, 1);
        if (t->in[1] == ']') return refuse(t, "an empty set");
        break;
    default: break;
    }
    copy(t, t->in, 1, 1);
    return true;
}

/* Whether `regex` means in PCRE2 what it means in Oniguruma, once written to `out`. */
static bool translate(const char *regex, char *out, size_t *n_out, struct error *err)
{
    assert(strlen(regex) <= REGEX_BYTES_MAX);
    struct translation t = {.in = regex, .out = out};
    bool ok = true;
    while (ok && *t.in != 0) {
        ok = *t.in == '\\' ? translate_escape(&t)
             : t.in_class  ? translate_in_class(&t)
                           : translate_plain(&t);
    }
    if (!ok) {
        return error_set(err, ERROR_FORMAT, "the regex has %s at byte %zu, which is not supported",
                         t.refused, (size_t)(t.in - regex));
    }
    *n_out = t.n_out;
    return true;
}

/* ---- compilation ---- */

bool split_compile(struct split *split, const char *regex, struct error *err)
{
    assert(regex != NULL);
    if (strlen(regex) > REGEX_BYTES_MAX) {
        return error_set(err, ERROR_FORMAT, "the regex has %zu bytes, at most %d are accepted",
                         strlen(regex), REGEX_BYTES_MAX);
    }
    char translated[TRANSLATED_BYTES_MAX];
    size_t n_translated;
    if (!translate(regex, translated, &n_translated, err)) return false;

    int code_error;
    size_t offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)translated, n_translated,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code_error, &offset, NULL);
    if (code == NULL) {
        char why[128];
        pcre2_get_error_message(code_error, (PCRE2_UCHAR *)why, sizeof why);
        return error_set(err, ERROR_FORMAT, "the regex is not valid: %s", why);
    }
    /* Only a matter of speed: matching falls back to the interpreter by itself. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    *split = (struct split){.code = code, .regex = regex};
    return true;
}

void split_clear(struct split *split)
{
    pcre2_code_free(split->code);
    *split = (struct split){0};
}

/* ---- matching ---- */

bool split_matcher_open(struct split_matcher *matcher, size_t n_bytes, struct error *err)
{
    assert(n_bytes < SIZE_MAX / STEPS_PER_BYTE / 2);
    *matcher = (struct split_matcher){
        .data = pcre2_match_data_create(1, NULL),
        .context = pcre2_match_context_create(NULL),
        .steps_left = STEPS_PER_BYTE * (uint64_t)n_bytes + STEPS_SPARE,
    };
    if (matcher->data == NULL || matcher->context == NULL) {
        split_matcher_close(matcher);
        return error_set(err, ERROR_UNAVAILABLE, "no memory to match a regex");
    }
    return true;
}

void split_matcher_close(struct split_matcher *matcher)
{
    pcre2_match_context_free(matcher->context);
    pcre2_match_data_free(matcher->data);
    *matcher = (struct split_matcher){0};
}

/* PCRE2's status of the first match at or after cursor->search_from. */
static int match(const struct split_cursor *cursor, struct split_matcher *matcher)
{
    uint32_t options = PCRE2_NO_UTF_CHECK;
    for (uint32_t steps_max = STEPS_FIRST;;) {
        pcre2_set_match_limit(matcher->context, steps_max);
        int status = pcre2_match(cursor->split->code, (PCRE2_SPTR)cursor->text.data, cursor->text.n,
                                 cursor->search_from, options, matcher->data, matcher->context);
        if (status == PCRE2_ERROR_JIT_STACKLIMIT) {
            options |= PCRE2_NO_JIT; /* the interpreter keeps its stack on the heap */
            continue;
        }
        if (status != PCRE2_ERROR_MATCHLIMIT) return status;
        if (steps_max > UINT32_MAX / STEPS_RAISE) return status;
        steps_max *= STEPS_RAISE;
        if (steps_max > matcher->steps_left) return status;
        matcher->steps_left -= steps_max;
    }
}

/* Finds the next match that moves on: an empty one where the last match ended is passed over, as in
 * the reference. At the end of the text the match is empty and lies there. */
static bool find_match(struct split_cursor *cursor, struct split_matcher *matcher,
                       struct error *err)
{
    while (cursor->search_from <= cursor->text.n) {
        int status = match(cursor, matcher);
        if (status == PCRE2_ERROR_NOMATCH) break;
        if (status < 0) {
            char why[128];
            pcre2_get_error_message(status, (PCRE2_UCHAR *)why, sizeof why);
            return error_set(err, ERROR_FORMAT, "the tokenizer's split regex fails at byte %zu: %s",
                             cursor->search_from, why);
        }
        const size_t *ends = pcre2_get_ovector_pointer(matcher->data);
        bool stuck = ends[0] == ends[1] && cursor->any_match && ends[1] == cursor->match_end;
        if (!stuck) {
            assert(ends[0] <= ends[1]);
            cursor->match_start = ends[0];
            cursor->match_end = cursor->search_from = ends[1];
            cursor->any_match = true;
            return true;
        }
        struct bytes rest = {cursor->text.data + ends[1], cursor->text.n - ends[1]};
        cursor->search_from += rest.n == 0 ? 1 : utf8_char_bytes(rest);
    }
    cursor->match_start = cursor->match_end = cursor->text.n;
    return true;
}

enum split_status split_next(struct split_cursor *cursor, struct split_matcher *matcher,
                             struct bytes *stretch, struct error *err)
{
    assert(cursor->at <= cursor->text.n);
    if (cursor->at == cursor->text.n) return SPLIT_END;
    while (!cursor->match_waits) {
        if (!find_match(cursor, matcher, err)) return SPLIT_FAILED;
        cursor->match_waits = true;
        if (cursor->match_start > cursor->at) break;
        cursor->match_waits = cursor->match_end > cursor->at;
    }
    size_t end = cursor->match_start > cursor->at ? cursor->match_start : cursor->match_end;
    cursor->match_waits = cursor->match_end > end;
    *stretch = (struct bytes){cursor->text.data + cursor->at, end - cursor->at};
    cursor->at = end;
    return SPLIT_STRETCH;
}
