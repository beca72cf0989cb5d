/* base/json: what is read, and what is refused before it takes the memory of the machine. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* `start`, `item` as often as fits into n bytes, `end`; heap. */
static struct bytes make(const char *start, const char *item, const char *end, size_t n)
{
    char *text = malloc(n + 64), *at = stpcpy(text, start);
    size_t n_item = strlen(item);
    while ((size_t)(at - text) + n_item < n)
        at = mempcpy(at, item, n_item);
    at = stpcpy(at, end);
    return (struct bytes){.data = text, .n = (size_t)(at - text)};
}

static bool is_read(const char *start, const char *item, const char *end, size_t n)
{
    json_error_t where = {0};
    struct bytes text = make(start, item, end, n);
    json_t *value = json_read(text, 0, &where);
    bool is_value = value != NULL;
    if (!is_value) cr_assert(strstr(where.text, "more values than"), "%s", where.text);
    json_decref(value);
    free((char *)(uintptr_t)text.data);
    return is_value;
}

Test(json, a_text_is_refused_when_its_values_would_take_many_times_its_length)
{
    size_t mib = (size_t)1 << 20;
    cr_assert(is_read("[", "{},", "{}]", mib / 8));
    cr_assert_not(is_read("[", "{},", "{}]", 2 * mib));
    cr_assert_not(is_read("[", "[],", "[]]", 2 * mib));
    cr_assert_not(is_read("[", "\"\",", "\"\"]", 20 * mib));
    cr_assert_not(is_read("[", "1,", "1]", 40 * mib));
    /* Merges of a tokenizer, and letters that are no signs. */
    cr_assert(is_read("[", "[\"Ġthere\",\"fore\"],", "[]]", 4 * mib));
    cr_assert(is_read("[\"", "{},[\\\"", "\"]", 4 * mib));
}

Test(json, what_is_wrong_is_told)
{
    json_error_t where;
    cr_assert_null(json_read((struct bytes){"{\n]", 3}, 0, &where));
    cr_assert_eq(where.line, 2);
    cr_assert_null(json_read((struct bytes){"", 0}, 0, NULL));
    json_t *value = json_read((struct bytes){"[7]trailing", 3}, 0, &where);
    cr_assert_eq(json_integer_value(json_array_get(value, 0)), 7);
    json_decref(value);
}

Test(json, what_a_terminal_would_obey_is_escaped)
{
    json_t *value = json_pack("{s:s}", "k\xC2\x9B", "\x1B a\x7F\u202eb\u2069\u2070é\n");
    char *text = json_write(value, JSON_COMPACT);
    cr_assert_str_eq(text, "{\"k\\u009b\":\"\\u001B a\\u007f\\u202eb\\u2069\u2070é\\n\"}");
    json_t *again = json_loads(text, 0, NULL);
    cr_assert(json_equal(value, again));
    json_decref(again);
    json_decref(value);
    free(text);
    cr_assert_null(json_write(NULL, 0));
}
