/* text/split, and what it stands on: stretches join to the text, regexes of the other dialect are
 * refused where the dialects differ, and no regex makes a text take for ever. */
#include <criterion/criterion.h>
#include <string.h>

#include "text/split.h"

/* The stretches of `text`, each followed by a bar. */
static const char *cut(const char *regex, const char *text)
{
    static char result[512];
    struct error err = {0};
    struct split split;
    struct split_matcher matcher;
    cr_assert(split_compile(&split, regex, &err), "%s", err.message);
    cr_assert(split_matcher_open(&matcher, strlen(text), &err));
    struct split_cursor cursor = {.split = &split, .text = {text, strlen(text)}};
    struct bytes stretch;
    size_t n = 0;
    enum split_status status;
    while ((status = split_next(&cursor, &matcher, &stretch, &err)) == SPLIT_STRETCH) {
        cr_assert_gt(stretch.n, 0);
        memcpy(result + n, stretch.data, stretch.n);
        n += stretch.n;
        result[n++] = '|';
    }
    result[n] = 0;
    cr_assert_eq(status, SPLIT_END, "%s", err.message);
    split_matcher_close(&matcher);
    split_clear(&split);
    return result;
}

Test(split, matches_and_what_lies_between_are_stretches)
{
    cr_assert_str_eq(cut("[0-9]+", "ab12c3"), "ab|12|c|3|");
    cr_assert_str_eq(cut("[0-9]+", "12ab"), "12|ab|");
    cr_assert_str_eq(cut("[0-9]+", "ab"), "ab|");
    cr_assert_str_eq(cut("[0-9]+", ""), "");
    cr_assert_str_eq(cut("a", "aaa"), "a|a|a|");
}

/* As in the reference: they cut, but make no stretch. */
Test(split, empty_matches_cut_without_a_stretch)
{
    cr_assert_str_eq(cut("x*", "abxc"), "a|b|x|c|");
    cr_assert_str_eq(cut("(?=\\p{Lu})", "abCdEf"), "ab|Cd|Ef|");
    cr_assert_str_eq(cut("x*", "\u00E9\u4E2D"), "\u00E9|\u4E2D|");
}

Test(split, white_space_is_the_unicode_property)
{
    /* U+180E is white space to PCRE2's \s, U+001C to Python's; neither has the property. */
    cr_assert_str_eq(cut("\\s", "a\u180Eb"), "a\u180Eb|");
    cr_assert_str_eq(cut("\\s", "a\x1C"
                                "b"),
                     "a\x1C"
                     "b|");
    cr_assert_str_eq(cut("\\s", "a\xC2\x85"
                                "b\u00A0c\u3000d\ve"),
                     "a|\xC2\x85|b|\u00A0|c|\u3000|d|\v|e|");
    cr_assert_str_eq(cut("[^\\S\\n]", "a \n"), "a| |\n|");
    cr_assert_str_eq(cut("\\S+", "a\u180Eb c"), "a\u180Eb| |c|");
}

Test(split, the_constructs_in_use_work)
{
    cr_assert_str_eq(cut("(?i:'s|'ll)|\\p{L}+", "it'S we'LL x"), "it|'S| |we|'LL| |x|");
    cr_assert_str_eq(cut(" ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*", "a !!\r\n\nb"), "a| !!\r\n\n|b|");
    cr_assert_str_eq(cut("[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+", "!ab-c"), "!ab|-c|");
    cr_assert_str_eq(cut("\\s+(?!\\S)|\\s+", "a   b"), "a|  | |b|");
    cr_assert_str_eq(cut("\\p{N}{1,3}", "12345"), "123|45|");
    cr_assert_str_eq(cut("[\\-\\]]|\\$|\\x{e9}", "a]$\u00E9"), "a|]|$|\u00E9|");
}

Test(split, what_the_dialects_understand_differently_is_refused)
{
    static const struct {
        const char *regex, *wish;
    } cases[] = {
        {"a\\w+", "an escape other than \\s"},
        {"\\bfoo", "an escape other than"},
        {"\\h", "an escape other than"},
        {"(a)\\1", "an escape other than"},
        {"a\\K", "an escape other than"},
        {"\\pL", "without braces at byte 0"},
        {"\\x41", "without braces"},
        {"abc\\", "a backslash at its end at byte 3"},
        {"[a[b]]", "a set inside a set"},
        {"[a&&b]", "an intersection of sets"},
        {"[]a]", "an empty set"},
        {"ab^", "an anchor at byte 2"},
        {"a$", "an anchor"},
        {"a{,3}", "a repetition without a lower bound"},
        {"a{2}+", "a quantifier after braces"},
        {"a{2}?", "a quantifier after braces"},
        {"(?i)a", "a group other than"},
        {"(?R)", "a group other than"},
        {"(?(1)a)", "a group other than"},
        {"(*COMMIT)a", "a verb"},
        {"(?m:a)", "a group other than"},
        {"(?<n>a)", "a group other than"},
        {"(a", "is not valid: missing closing parenthesis"},
        {"[a", "is not valid"},
        {"\\p{Nonsense}", "is not valid: unknown property"},
        {"a**", "is not valid"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct split split = {0};
        struct error err = {0};
        cr_assert_not(split_compile(&split, cases[i].regex, &err), "%s", cases[i].regex);
        cr_assert_eq(err.code, ERROR_FORMAT);
        cr_expect_not_null(strstr(err.message, cases[i].wish), "%s: %s", cases[i].regex,
                           err.message);
        cr_assert_null(split.code);
    }
}

Test(split, a_regex_of_any_length_is_translated_or_refused)
{
    static char regex[5001];
    struct split split = {0};
    struct error err = {0};
    memset(regex, 'a', 5000);
    cr_assert_not(split_compile(&split, regex, &err));
    cr_assert_not_null(strstr(err.message, "has 5000 bytes, at most 4096"), "%s", err.message);
    /* The longest translation there is. */
    for (size_t i = 0; i < 4096; i += 2)
        memcpy(regex + i, "\\s", 2);
    regex[4096] = 0;
    cr_assert(split_compile(&split, regex, &err), "%s", err.message);
    split_clear(&split);
}

static enum split_status walk(const char *regex, struct bytes text, struct error *err)
{
    struct split split;
    struct split_matcher matcher;
    cr_assert(split_compile(&split, regex, err), "%s", err->message);
    cr_assert(split_matcher_open(&matcher, text.n, err));
    struct split_cursor cursor = {.split = &split, .text = text};
    struct bytes stretch;
    enum split_status status;
    do {
        status = split_next(&cursor, &matcher, &stretch, err);
    } while (status == SPLIT_STRETCH);
    split_matcher_close(&matcher);
    split_clear(&split);
    return status;
}

/* The first backtracks exponentially from one place, the second through the whole text from each.
 */
Test(split, a_regex_that_crawls_fails_instead, .timeout = 120)
{
    enum { BYTES = 1000000 };
    static char text[BYTES];
    static const char *const regexes[] = {"(?:a+)+[bc]", "a*b|a", "(?=a*)a"};
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++) {
        struct error err = {0};
        cr_assert_eq(walk(regexes[i], (struct bytes){text, BYTES}, &err), SPLIT_FAILED, "%s",
                     regexes[i]);
        cr_assert_eq(err.code, ERROR_FORMAT);
        cr_assert_not_null(strstr(err.message, "the tokenizer's split regex fails at byte"), "%s",
                           err.message);
    }
}

Test(split, long_runs_of_white_space_stay_within_the_budget)
{
    enum { BYTES = 3000000 };
    static char text[BYTES];
    static const char regex[] = "[^\\r\\n\\p{L}]?+\\p{L}+|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+";
    memset(text, ' ', sizeof text);
    struct error err = {0};
    cr_assert_eq(walk(regex, (struct bytes){text, BYTES}, &err), SPLIT_END, "%s", err.message);
    /* Runs just beyond the first limit, which are the dearest. */
    for (size_t i = 0; i < BYTES; i += 4200)
        text[i] = 'x';
    cr_assert_eq(walk(regex, (struct bytes){text, BYTES}, &err), SPLIT_END, "%s", err.message);
}
