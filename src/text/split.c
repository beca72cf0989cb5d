/* Regexes: translation from Oniguruma's dialect, compilation, and the walk from match to match.
 *
 * A regex of a file may be made to look far ahead, or to backtrack, again and again. So a match
 * first sees a short window of the text and may take a number of steps in proportion; if it runs
 * into the window's end or out of steps, it is repeated with more, and that is paid for from a
 * budget that is linear in the text. What a window does decide holds for the whole text. */
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
    WINDOW_BYTES_FIRST = 256, /* more than nearly all stretches */
    WINDOW_GROWTH = 4,
    STEPS_PER_BYTE = 16, /* of the window */
    BUDGET_PER_BYTE = 32,
    BUDGET_SPARE = 1 << 20,
};

/* ---- translation ---- */

struct translation {
    const char *in; /* the rest of the regex, NUL-terminated */
    char *out;      /* TRANSLATED_BYTES_MAX, with room by construction */
    size_t n_out;
    bool in_class;
    const char *refused; /* what the regex must not have */
};

/* Takes `n_in` bytes of the regex and writes `n_out` bytes of `text` in their place. */
static void copy(struct translation *t, const char *text, size_t n_in, size_t n_out)
{
    assert(t->n_out + n_out < TRANSLATED_BYTES_MAX);
    memcpy(t->out + t->n_out, text, n_out);
    t->n_out += n_out;
    t->in += n_in;
}

/* Ends the translation; the first construct that is refused is the one that the message names. */
static bool refuse(struct translation *t, const char *construct)
{
    assert(construct != NULL);
    assert(t->refused == NULL);
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
    static_assert(sizeof space - 1 <= 2 * TRANSLATED_BYTES_MAX / REGEX_BYTES_MAX, "it has room");
    assert(t->in[0] == '\\');
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
    assert(t->in_class);
    if (t->in[0] == '[') return refuse(t, "a set inside a set");
    if (t->in[0] == '&' && t->in[1] == '&') return refuse(t, "an intersection of sets");
    if (t->in[0] == ']') t->in_class = false;
    copy(t, t->in, 1, 1);
    return true;
}

/* An opening parenthesis with what belongs to it. Names, conditions, calls and option settings that
 * last to the end of a group are written differently, or mean something else. */
static bool translate_group(struct translation *t)
{
    static const char *const openers[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    assert(t->in[0] == '(');
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

/* A byte outside of sets. ^ and $ see lines in Oniguruma, the text in PCRE2; {,n} is a repetition
 * in the one and ordinary text in the other, and so is a possessive or lazy sign after braces. */
static bool translate_plain(struct translation *t)
{
    assert(!t->in_class);
    assert(t->in[0] != 0);
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

/* Whether `regex` means in PCRE2 what it means in Oniguruma, once written to `out`
 * [TRANSLATED_BYTES_MAX], without a NUL. ERROR_FORMAT: no, naming the construct and its byte. */
static bool translate(const char *regex, char *out, size_t *n_out, struct error *err)
{
    assert(strlen(regex) <= REGEX_BYTES_MAX);
    assert(out != NULL);
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
    assert(t.n_out < TRANSLATED_BYTES_MAX);
    *n_out = t.n_out;
    return true;
}

/* ---- compilation ---- */

bool split_compile(struct split *split, const char *regex, struct error *err)
{
    assert(split != NULL);
    assert(regex != NULL);
    if (strlen(regex) > REGEX_BYTES_MAX) {
        return error_set(err, ERROR_FORMAT, "the regex has %zu bytes, at most %d are accepted",
                         strlen(regex), REGEX_BYTES_MAX);
    }
    char translated[TRANSLATED_BYTES_MAX];
    size_t n_translated;
    if (!translate(regex, translated, &n_translated, err)) return false;

    /* \C would match a part of a character, after which offsets are no longer UTF-8. */
    int code_error;
    size_t offset;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)translated, n_translated,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code_error, &offset, NULL);
    if (code == NULL) {
        char why[128];
        pcre2_get_error_message(code_error, (PCRE2_UCHAR *)why, sizeof why);
        bool is_memory = code_error == PCRE2_ERROR_HEAP_FAILED;
        return error_set(err, is_memory ? ERROR_UNAVAILABLE : ERROR_FORMAT,
                         "the regex is not valid: %s", why);
    }
    /* Only a matter of speed: matching falls back to the interpreter by itself. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
    *split = (struct split){.code = code, .regex = regex};
    return true;
}

void split_clear(struct split *split)
{
    assert(split != NULL);
    pcre2_code_free(split->code);
    *split = (struct split){0};
}

/* ---- matching ---- */

bool split_matcher_open(struct split_matcher *matcher, size_t n_bytes, struct error *err)
{
    assert(matcher != NULL);
    assert(n_bytes < SIZE_MAX / BUDGET_PER_BYTE / 2);
    *matcher = (struct split_matcher){
        .data = pcre2_match_data_create(1, NULL),
        .context = pcre2_match_context_create(NULL),
        .budget_bytes = BUDGET_PER_BYTE * n_bytes + BUDGET_SPARE,
    };
    if (matcher->data == NULL || matcher->context == NULL) {
        split_matcher_close(matcher);
        return error_set(err, ERROR_UNAVAILABLE, "no memory to match a regex");
    }
    return true;
}

void split_matcher_close(struct split_matcher *matcher)
{
    assert(matcher != NULL);
    pcre2_match_context_free(matcher->context);
    pcre2_match_data_free(matcher->data);
    *matcher = (struct split_matcher){0};
}

/* PCRE2's status of a match at or after cursor->search_from that sees `window_bytes` from there.
 * `is_whole`: the window reaches the text's end, so that nothing behind it can change the result.
 */
static int match_in_window(const struct split_cursor *cursor, struct split_matcher *matcher,
                           size_t window_bytes, bool *is_whole)
{
    assert(window_bytes >= WINDOW_BYTES_FIRST);
    struct bytes text = cursor->text;
    size_t end = text.n;
    *is_whole = window_bytes >= text.n - cursor->search_from;
    if (!*is_whole) {
        end = cursor->search_from + window_bytes;
        while (((uint8_t)text.data[end] & 0xC0) == 0x80)
            end--; /* whole characters only */
    }
    size_t n_steps = STEPS_PER_BYTE * window_bytes;
    pcre2_set_match_limit(matcher->context, n_steps < UINT32_MAX ? (uint32_t)n_steps : UINT32_MAX);
    uint32_t options = PCRE2_NO_UTF_CHECK | (*is_whole ? 0 : PCRE2_PARTIAL_HARD);
    int status = pcre2_match(cursor->split->code, (PCRE2_SPTR)text.data, end, cursor->search_from,
                             options, matcher->data, matcher->context);
    if (status != PCRE2_ERROR_JIT_STACKLIMIT) return status;
    /* The interpreter keeps its stack on the heap. */
    return pcre2_match(cursor->split->code, (PCRE2_SPTR)text.data, end, cursor->search_from,
                       options | PCRE2_NO_JIT, matcher->data, matcher->context);
}

/* PCRE2's status of the first match at or after cursor->search_from; PCRE2_ERROR_MATCHLIMIT when
 * the budget is spent. A miss in a window decides nothing: the match may start behind it. */
static int match(const struct split_cursor *cursor, struct split_matcher *matcher)
{
    assert(cursor->search_from <= cursor->text.n);
    for (size_t window_bytes = WINDOW_BYTES_FIRST;;) {
        bool is_whole;
        int status = match_in_window(cursor, matcher, window_bytes, &is_whole);
        bool is_undecided = status == PCRE2_ERROR_PARTIAL || status == PCRE2_ERROR_NOMATCH;
        if (status != PCRE2_ERROR_MATCHLIMIT && (is_whole || !is_undecided)) return status;

        window_bytes *= WINDOW_GROWTH;
        if (window_bytes > matcher->budget_bytes) return PCRE2_ERROR_MATCHLIMIT;
        matcher->budget_bytes -= window_bytes;
    }
}

/* Finds the next match that moves on: an empty one where the last match ended is passed over, as in
 * the reference. At the end of the text the match is empty and lies there. */
static bool find_match(struct split_cursor *cursor, struct split_matcher *matcher,
                       struct error *err)
{
    assert(matcher->data != NULL);
    while (cursor->search_from <= cursor->text.n) {
        int status = match(cursor, matcher);
        if (status == PCRE2_ERROR_NOMATCH) break;
        if (status < 0) {
            char why[128];
            pcre2_get_error_message(status, (PCRE2_UCHAR *)why, sizeof why);
            return error_set(err, status == PCRE2_ERROR_NOMEMORY ? ERROR_UNAVAILABLE : ERROR_FORMAT,
                             "the tokenizer's split regex fails at byte %zu: %s",
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
    assert(cursor->split->code != NULL);
    assert(cursor->at <= cursor->text.n);
    if (cursor->at == cursor->text.n) return SPLIT_END;
    /* A match is kept until its own stretch is due: what lies before it goes first. An empty match
     * with nothing before it is no stretch. */
    while (!cursor->match_waits) {
        if (!find_match(cursor, matcher, err)) return SPLIT_FAILED;
        cursor->match_waits = true;
        if (cursor->match_start > cursor->at) break;
        cursor->match_waits = cursor->match_end > cursor->at;
    }
    size_t end = cursor->match_start > cursor->at ? cursor->match_start : cursor->match_end;
    cursor->match_waits = cursor->match_end > end;
    assert(end > cursor->at);
    assert(end <= cursor->text.n);
    *stretch = (struct bytes){cursor->text.data + cursor->at, end - cursor->at};
    cursor->at = end;
    return SPLIT_STRETCH;
}
