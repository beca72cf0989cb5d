/* app/id_set: ids are told apart however many there are, and their hash is the documented one. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "app/id_set.h"

static uint64_t hash_of(bool is_integer, const char *id)
{
    return id_set_hash(is_integer, (struct bytes){id, strlen(id)});
}

Test(id_set, the_hash_is_fnv_1a_of_type_and_text)
{
    /* FNV-1a, 64 bits, of "s", "sa", "i7" and "srequest-1", computed elsewhere. */
    cr_assert_eq(hash_of(false, ""), UINT64_C(0xAF63EE4C86020B22));
    cr_assert_eq(hash_of(false, "a"), UINT64_C(0x08D92F07B57922D9));
    cr_assert_eq(hash_of(true, "7"), UINT64_C(0x08B70107B55BEE49));
    cr_assert_eq(hash_of(false, "request-1"), UINT64_C(0x0EF992E0C9A9D875));
    cr_assert_neq(hash_of(false, "7"), hash_of(true, "7"));
    cr_assert_neq(hash_of(false, "a"), hash_of(false, "b"));
}

Test(id_set, a_hundred_thousand_ids_are_new_once)
{
    struct id_set set = {0};
    struct error err = {0};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 100000; i++) {
            char id[32];
            bool is_new;
            snprintf(id, sizeof id, "request-%d", i);
            cr_assert(id_set_add(&set, hash_of(false, id), &is_new, &err));
            cr_assert_eq(is_new, round == 0, "%s", id);
        }
    }
    cr_assert_eq(set.n_used, 100000);
    cr_assert_leq(set.n_slots * sizeof *set.slots, 22 * set.n_used);
    id_set_clear(&set);
    cr_assert_null(set.slots);
}
