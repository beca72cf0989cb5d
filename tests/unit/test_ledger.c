/* app/ledger: ids are told apart however many there are, their hash is the documented one, and each
 * line of the input is new, repeated, answered, or not the line that was answered. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "app/ledger.h"

static struct ledger ledger;
static struct error err;

static void tear_down(void)
{
    ledger_clear(&ledger);
}

TestSuite(ledger, .fini = tear_down);

static uint64_t hash_of(char kind, const char *id)
{
    return ledger_hash(kind, (struct bytes){id, strlen(id)});
}

static enum ledger_verdict verdict_on(uint64_t key, uint64_t line_hash)
{
    enum ledger_verdict verdict;
    cr_assert(ledger_read(&ledger, key, line_hash, &verdict, &err), "%s", err.message);
    return verdict;
}

static bool is_first_answer(uint64_t key, uint64_t line_hash)
{
    bool is_new;
    cr_assert(ledger_answer(&ledger, key, line_hash, &is_new, &err), "%s", err.message);
    return is_new;
}

Test(ledger, the_hash_is_fnv_1a_of_type_and_text)
{
    /* FNV-1a, 64 bits, of "s", "sa", "i7" and "srequest-1", computed elsewhere. */
    cr_assert_eq(hash_of('s', ""), UINT64_C(0xAF63EE4C86020B22));
    cr_assert_eq(hash_of('s', "a"), UINT64_C(0x08D92F07B57922D9));
    cr_assert_eq(hash_of('i', "7"), UINT64_C(0x08B70107B55BEE49));
    cr_assert_eq(hash_of('s', "request-1"), UINT64_C(0x0EF992E0C9A9D875));
    cr_assert_neq(hash_of('s', "7"), hash_of('i', "7"));
    cr_assert_neq(hash_of('s', "a"), hash_of('s', "b"));
    cr_assert_eq(ledger_line_key('d', 12), hash_of('d', "12"));
    cr_assert_neq(ledger_line_key('d', 12), ledger_line_key('l', 12));
}

Test(ledger, a_hundred_thousand_ids_are_new_once_and_take_24_bytes_each_at_most)
{
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 100000; i++) {
            char id[32];
            snprintf(id, sizeof id, "request-%d", i);
            enum ledger_verdict expected = round == 0 ? LEDGER_NEW : LEDGER_REPEATED;
            cr_assert_eq(verdict_on(hash_of('s', id), 5), expected, "%s", id);
        }
    }
    size_t n_used = 0, n_slots = 0, n_largest = 0;
    for (int i = 0; i < LEDGER_TABLES; i++) {
        const struct ledger_table *table = &ledger.tables[i];
        n_used += table->n_used;
        n_slots += table->n_slots;
        if (n_largest < table->n_slots) n_largest = table->n_slots;
    }
    cr_assert_eq(n_used, 100000);
    size_t n_most = n_slots + n_largest; /* one grows at a time */
    cr_assert_leq(n_most * (sizeof *ledger.tables->ids + sizeof *ledger.tables->tags), 24 * n_used);
    ledger_clear(&ledger);
    cr_assert_null(ledger.tables[0].ids);
}

Test(ledger, an_answered_line_is_known_by_id_and_text_and_repeated_the_second_time)
{
    const uint64_t line = UINT64_C(0x1234567890ABCDEF);
    cr_assert(is_first_answer(1, line));
    cr_assert_not(is_first_answer(1, line));
    cr_assert_eq(verdict_on(1, line), LEDGER_ANSWERED);
    cr_assert_eq(verdict_on(1, line), LEDGER_REPEATED);
    cr_assert_eq(verdict_on(2, line), LEDGER_NEW, "another id has an answer of its own");
}

Test(ledger, another_line_of_an_answered_id_is_a_change_unless_lines_do_not_count)
{
    for (uint64_t i = 1; i < 1000; i++) {
        uint64_t line = hash_of('t', "line") * i, other = hash_of('t', "enil") * i;
        cr_assert(is_first_answer(i, line));
        cr_assert_eq(verdict_on(i, other), LEDGER_CHANGED);
        cr_assert(is_first_answer(1000 + i, line));
        ledger.any_line = true;
        cr_assert_eq(verdict_on(1000 + i, other), LEDGER_ANSWERED);
        ledger.any_line = false;
    }
}

Test(ledger, answers_outlive_the_growth_of_the_table)
{
    for (uint64_t i = 1; i <= 5000; i++)
        cr_assert(is_first_answer(i * 7919, i << 40));
    for (uint64_t i = 1; i <= 5000; i++)
        cr_assert_eq(verdict_on(i * 7919, i << 40), LEDGER_ANSWERED);
}
