/* app/profile: the profiles that ship, named models, and every way in which a profile's file can be
 * wrong. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/profile.h"

#define GOOD_RATES                                                                                 \
    "\"rates\": {\"value\": [{\"rows\": 1, \"flops_per_s\": 5e9}, {\"rows\": 64, "                 \
    "\"flops_per_s\": 1e11}], \"source\": \"s\"}"
#define GOOD_HEAD  "\"name\": \"box\", \"measured\": true"
#define GOOD_BASE  "\"base_ns\": {\"value\": 2500, \"source\": \"s\"}"
#define GOOD_BYTES "\"bytes_per_s\": {\"value\": 2e10, \"source\": \"s\"}"
#define GOOD_REST                                                                                  \
    "\"attention_flops_per_s\": {\"value\": 4e9, \"source\": \"s\"}, "                             \
    "\"kv_element_bytes\": {\"value\": 4, \"source\": \"s\"}, "                                    \
    "\"memory_bytes\": {\"value\": 8000000000, \"source\": \"s\"}"

static char path[] = "/tmp/test_profile_XXXXXX.json";
static struct arena arena;

static void setup(void)
{
    int fd = mkstemps(path, 5);
    cr_assert(fd >= 0);
    close(fd);
    cr_assert(arena_create(&arena, (size_t)16 << 20, NULL));
}

static void teardown(void)
{
    unlink(path);
    arena_destroy(&arena);
}

TestSuite(profile, .init = setup, .fini = teardown);

static void write_file(const char *text)
{
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fputs(text, file);
    fclose(file);
}

static void expect_refused(const char *text, const char *words)
{
    struct cost_profile profile;
    struct error err = {0};
    write_file(text);
    cr_assert_not(profile_read(&profile, path, &err), "accepted: %s", text);
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert(strstr(err.message, path), "'%s' does not name the file", err.message);
    cr_assert(strstr(err.message, words), "'%s' lacks '%s'", err.message, words);
}

Test(profile, a_file_is_read_field_by_field)
{
    struct cost_profile profile;
    struct error err = {0};
    write_file("{" GOOD_HEAD ", " GOOD_BASE ", " GOOD_BYTES ", " GOOD_RATES ", " GOOD_REST "}");
    cr_assert(profile_read(&profile, path, &err), "%s", err.message);
    cr_assert_str_eq(profile.name, "box");
    cr_assert(profile.is_measured);
    cr_assert_eq(profile.base_ns, 2500);
    cr_assert_eq(profile.bytes_per_s, 2e10);
    cr_assert_eq(profile.attention_flops_per_s, 4e9);
    cr_assert_eq(profile.memory_bytes, 8000000000u);
    cr_assert_eq(profile.kv_element_bytes, 4);
    cr_assert_eq(profile.n_rates, 2);
    cr_assert_eq(profile.rates[1].n_rows, 64);
    cr_assert_eq(profile.rates[1].flops_per_s, 1e11);
}

Test(profile, what_is_wrong_is_named_with_its_key)
{
    expect_refused("[]", "is not a JSON object");
    expect_refused("{\"name\": \"x\",}", ":1: ");
    expect_refused("{" GOOD_BASE ", " GOOD_BYTES ", " GOOD_RATES ", " GOOD_REST "}", "\"name\"");
    expect_refused("{\"name\": \"x\", " GOOD_BASE "}", "\"measured\" is missing");
    expect_refused("{" GOOD_HEAD ", " GOOD_BYTES ", " GOOD_RATES ", " GOOD_REST "}",
                   "\"base_ns\" is missing");
    expect_refused("{" GOOD_HEAD ", \"base_ns\": 7, " GOOD_BYTES ", " GOOD_RATES ", " GOOD_REST "}",
                   "\"base_ns\" is 7, must be an object with \"value\" and \"source\"");
    expect_refused("{" GOOD_HEAD ", " GOOD_BASE ", \"bytes_per_s\": {\"value\": 0, \"source\": "
                   "\"s\"}, " GOOD_RATES ", " GOOD_REST "}",
                   "\"bytes_per_s\" is 0, must be a number from 1 to 1e+18");
    expect_refused("{" GOOD_HEAD ", " GOOD_BASE ", \"bytes_per_s\": {\"value\": 5}, " GOOD_RATES
                   ", " GOOD_REST "}",
                   "\"source\"");
    expect_refused("{" GOOD_HEAD ", " GOOD_BASE ", " GOOD_BYTES ", " GOOD_REST "}", "\"rates\"");
    expect_refused("{" GOOD_HEAD ", " GOOD_BASE ", " GOOD_BYTES ", " GOOD_REST
                   ", \"rates\": {\"source\": \"s\", \"value\": [{\"rows\": 4, \"flops_per_s\": "
                   "1e9}, {\"rows\": 4, \"flops_per_s\": 1e9}]}}",
                   "\"rates[1].rows\" is 4, must be a number from 5 to");
    expect_refused("{" GOOD_HEAD ", " GOOD_BASE ", " GOOD_BYTES ", " GOOD_REST
                   ", \"rates\": {\"source\": \"s\", \"value\": []}}",
                   "must be a list of 1 to 24 objects");
}

Test(profile, a_name_that_does_not_ship_is_no_input)
{
    struct cost_profile profile;
    struct error err = {0};
    cr_assert_not(profile_read(&profile, "abacus", &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
    cr_assert(strstr(err.message, "'abacus'"));
    cr_assert(strstr(err.message, "rtx4090, l40s, h200"));
    cr_assert_not(profile_read(&profile, "no/such.json", &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
}

/* The shipped ones say that nobody measured them, and their knees are where the datasheets' figures
 * put them or, since the rate falls at few rows, above. */
Test(profile, what_ships_is_complete_and_not_measured)
{
    static const struct {
        const char *name;
        double knee_rows; /* rate x 2 bytes / (2 FLOP x bandwidth) at the full rate */
    } shipped[] = {{"rtx4090", 164}, {"l40s", 419}, {"h200", 184}};
    for (size_t i = 0; i < 3; i++) {
        struct cost_profile profile;
        struct error err = {0};
        cr_assert(profile_read(&profile, shipped[i].name, &err), "%s", err.message);
        cr_assert_str_eq(profile.name, shipped[i].name);
        cr_assert_not(profile.is_measured);
        double best = 0;
        for (int32_t j = 0; j < profile.n_rates; j++)
            best = fmax(best, profile.rates[j].flops_per_s);
        double knee_rows = best / profile.bytes_per_s;
        cr_assert_float_eq(knee_rows, shipped[i].knee_rows, 0.02 * shipped[i].knee_rows);
        cr_assert_lt(profile.rates[0].flops_per_s, 0.02 * best);
    }
}

Test(profile, named_models_have_the_published_numbers_of_parameters)
{
    struct model_config config;
    struct error err = {0};
    cr_assert(profile_read_model(&config, "llada-8b", &arena, &err));
    cr_assert_eq(config_n_parameters(&config), 8015581184);
    cr_assert(profile_read_model(&config, "dream-7b", &arena, &err));
    cr_assert_eq(config_n_parameters(&config), 7615616512);
    struct cost_shape shape = profile_shape(&config, 2, 2);
    cr_assert_eq(shape.n_kv_heads * shape.head_dim * 2 * 2 * shape.n_layers, 57344);
    cr_assert_not(profile_read_model(&config, "./llada-8b", &arena, &err), "that is a folder");
    cr_assert_not(profile_read_model(&config, "no/such/model", &arena, &err));
    cr_assert_eq(err.code, ERROR_NO_INPUT);
}

/* ---- every field, one at a time ---- */

/* The file with `key` replaced by `text`; NULL: without it. */
static void write_changed(const char *key, const char *text)
{
    static const struct {
        const char *key, *text;
    } fields[] = {
        {"name", "\"box\""},
        {"measured", "true"},
        {"base_ns", "{\"value\": 1, \"source\": \"s\"}"},
        {"bytes_per_s", "{\"value\": 1e9, \"source\": \"s\"}"},
        {"attention_flops_per_s", "{\"value\": 1e9, \"source\": \"s\"}"},
        {"kv_element_bytes", "{\"value\": 2, \"source\": \"s\"}"},
        {"memory_bytes", "{\"value\": 1e9, \"source\": \"s\"}"},
        {"rates", "{\"value\": [{\"rows\": 1, \"flops_per_s\": 1e9}], \"source\": \"s\"}"},
    };
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fputs("{\"comment\": \"other keys are for people\"", file);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        bool is_changed = strcmp(fields[i].key, key) == 0;
        const char *value = is_changed ? text : fields[i].text;
        if (value != NULL) fprintf(file, ", \"%s\": %s", fields[i].key, value);
    }
    fputs("}\n", file);
    fclose(file);
}

Test(profile, each_field_is_needed_and_has_its_type_and_range)
{
    static const char *const keys[] = {"base_ns", "bytes_per_s", "attention_flops_per_s",
                                       "kv_element_bytes", "memory_bytes"};
    static const char *const wrong[] = {NULL,
                                        "5",
                                        "{\"value\": \"5\", \"source\": \"s\"}",
                                        "{\"value\": -1, \"source\": \"s\"}",
                                        "{\"value\": 1e30, \"source\": \"s\"}",
                                        "{\"source\": \"s\"}",
                                        "{\"value\": 3}",
                                        "null"};
    struct cost_profile profile;
    struct error err = {0};
    write_changed("", NULL);
    cr_assert(profile_read(&profile, path, &err), "%s", err.message);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        for (size_t j = 0; j < sizeof wrong / sizeof *wrong; j++) {
            char quoted[64];
            write_changed(keys[i], wrong[j]);
            cr_assert_not(profile_read(&profile, path, &err), "%s: %s", keys[i], wrong[j]);
            snprintf(quoted, sizeof quoted, "\"%s\"", keys[i]);
            cr_assert(strstr(err.message, quoted), "'%s' lacks %s", err.message, quoted);
            cr_assert_eq(err.code, ERROR_FORMAT);
        }
    }
}

Test(profile, as_many_rates_as_fit_and_no_more)
{
    struct cost_profile profile;
    struct error err = {0};
    for (int n = COST_RATES_MAX; n <= COST_RATES_MAX + 1; n++) {
        char text[4096] = "{\"source\": \"s\", \"value\": [";
        for (int i = 0; i < n; i++)
            snprintf(text + strlen(text), sizeof text - strlen(text),
                     "%s{\"rows\": %d, \"flops_per_s\": 1e9}", i > 0 ? ", " : "", i + 1);
        strcat(text, "]}");
        write_changed("rates", text);
        bool is_read = profile_read(&profile, path, &err);
        cr_assert_eq(is_read, n == COST_RATES_MAX, "%d: %s", n, err.message);
    }
    cr_assert(strstr(err.message, "1 to 24"), "%s", err.message);
}
