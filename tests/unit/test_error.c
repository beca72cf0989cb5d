/* base/error: codes, context, and messages that stay one line of UTF-8 whatever goes in. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

Test(error, set_stores_code_and_message_and_returns_false)
{
    struct error err = {0};
    cr_assert_not(error_set(&err, ERROR_FORMAT, "%s:%d: bad %s", "a.jsonl", 7, "number"));
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert_str_eq(err.message, "a.jsonl:7: bad number");
}

Test(error, set_replaces_an_earlier_failure_and_may_quote_it)
{
    struct error err = {0};
    error_set(&err, ERROR_FORMAT, "the first");
    error_set(&err, ERROR_IO, "after '%s'", err.message);
    cr_assert_eq(err.code, ERROR_IO);
    cr_assert_str_eq(err.message, "after 'the first'");
}

Test(error, wrap_puts_context_before_the_message_and_keeps_the_code)
{
    struct error err = {0};
    error_set(&err, ERROR_NO_INPUT, "cannot read x: gone");
    cr_assert_not(error_wrap(&err, "loading model '%s'", "tiny"));
    cr_assert_not(error_wrap(&err, "run"));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
    cr_assert_str_eq(err.message, "run: loading model 'tiny': cannot read x: gone");
}

Test(error, nobody_has_to_listen)
{
    cr_assert_not(error_set(NULL, ERROR_IO, "unheard"));
    cr_assert_not(error_wrap(NULL, "unheard"));
}

Test(error, too_long_a_message_is_cut_and_terminated)
{
    struct error err = {0};
    char text[3000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    error_set(&err, ERROR_IO, "%s", text);
    cr_assert_eq(strlen(err.message), sizeof err.message - 1);

    error_wrap(&err, "%s", "context");
    cr_assert_eq(strlen(err.message), sizeof err.message - 1);
    cr_assert_eq(strncmp(err.message, "context: aaa", 12), 0);

    error_wrap(&err, "%s", text);
    cr_assert_eq(strlen(err.message), sizeof err.message - 1);
    cr_assert_null(strchr(err.message, ':'));
}

Test(error, well_formed_text_is_kept_byte_for_byte)
{
    struct error err = {0};
    const char *text = "\x7E \xC2\xA0 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEF\xBF\xBF "
                       "\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF ";
    error_set(&err, ERROR_IO, "%s", text);
    cr_assert_str_eq(err.message, text);
}

Test(error, control_characters_beyond_ascii_become_blanks_too)
{
    struct error err = {0};
    error_set(&err, ERROR_IO, "%s",
              "a\x1B[m \xC2\x80\xC2\x9B"
              "1m\xC2\xA0.");
    cr_assert_str_eq(err.message, "a [m     1m\xC2\xA0.");
}

Test(error, marks_that_turn_the_direction_or_end_lines_become_blanks)
{
    struct error err = {0};
    error_set(&err, ERROR_IO, "%s",
              "a\xE2\x80\xAE"
              "b\xE2\x81\xA6"
              "c\xE2\x80\xA8"
              "d\xD8\x9C"
              "e\xE2\x80\x8F.\xE2\x80\x90 \xD8\xA7");
    cr_assert_str_eq(err.message, "a   b   c   d  e   .\xE2\x80\x90 \xD8\xA7");
}

Test(error, bytes_that_are_not_utf8_become_question_marks)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"a\xFFz", "a?z"},                          /* never a lead byte */
        {"a\x80z", "a?z"},                          /* a continuation without its lead */
        {"\xC0\xAF\xC1\xBF", "????"},               /* overlong, two bytes */
        {"\xE0\x9F\xBF", "???"},                    /* overlong, three bytes */
        {"\xF0\x8F\xBF\xBF", "????"},               /* overlong, four bytes */
        {"\xED\xA0\x80", "???"},                    /* surrogate */
        {"\xF4\x90\x80\x80\xF5", "?????"},          /* past U+10FFFF */
        {"\xE2\x82", "??"},                         /* torn by the end of the text */
        {"\xE2\x82\xE2\x82\xAC", "??\xE2\x82\xAC"}, /* torn by the next character */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct error err = {0};
        error_set(&err, ERROR_IO, "%s", cases[i].text);
        cr_expect_str_eq(err.message, cases[i].message, "case %zu", i);
    }
}

Test(error, control_bytes_become_blanks)
{
    struct error err = {0};
    error_set(&err, ERROR_IO, "two\nlines\r\tand\x1B[31m red\x7F");
    cr_assert_str_eq(err.message, "two lines  and [31m red ");
}

Test(error, a_character_torn_by_the_cut_does_not_stay_torn)
{
    struct error err = {0};
    char text[1100];
    memset(text, 'a', sizeof text);
    memcpy(text + sizeof err.message - 3, "\xE2\x82\xAC", 4); /* its last byte does not fit */
    error_set(&err, ERROR_IO, "%s", text);
    cr_assert_str_eq(err.message + sizeof err.message - 5, "aa??");
}
