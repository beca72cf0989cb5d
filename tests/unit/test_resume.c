/* app/resume and app/header: what an existing output has, whether a run may go on with it, and what
 * is said if not. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/header.h"
#include "app/resume.h"

static char folder[] = "/tmp/test_resume_XXXXXX";
static struct output_place place = {.path = "x", .is_file = true, .exists = true};
static struct options options;
static struct resume resume;
static struct error err;
static json_t *header;

static void write_file(const char *name, const char *text, size_t n)
{
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file);
    fwrite(text, 1, n, file);
    fclose(file);
}

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
    cr_assert_eq(mkdir("m", 0777), 0);
    write_file("m/config.json", "{}", 2);
    options_init(&options, SUBCOMMAND_RUN);
    options.model = "m";
    cr_assert(header_make(&header, &options, "m", &err), "%s", err.message);
}

static void tear_down(void)
{
    char command[64];
    resume_clear(&resume);
    json_decref(header);
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(resume, .init = set_up, .fini = tear_down);

/* ---- headers ---- */

static void give(const char *name, const char *value)
{
    enum option_id id = options_find_line_key(name);
    if (strcmp(name, "system") == 0) id = OPTION_system;
    if (strcmp(name, "no_chat") == 0) id = OPTION_no_chat;
    cr_assert_lt(id, OPTION_COUNT);
    cr_assert(options_set(&options, id, name, value, &err));
}

static json_t *make_header(void)
{
    json_t *made = NULL;
    cr_assert(header_make(&made, &options, "m", &err), "%s", err.message);
    return made;
}

static const char *hash_of(json_t *of)
{
    static char copy[16][32];
    static int next;
    char *target = copy[next++ % 16];
    strcpy(target, json_string_value(json_object_get(json_object_get(of, "model"), "hash")));
    json_decref(of);
    return target;
}

Test(resume, a_header_says_what_was_given_and_answers_depend_on)
{
    give("threshold", "0.85");
    give("no_early_stop", "true");
    give("seed", "18446744073709551615");
    cr_assert(options_set(&options, OPTION_rows, "rows", "7", &err));
    json_t *made = make_header();
    char *line = header_line(made, "cpu avx2");
    char start[] = "{\"header\":{\"format\":1,\"program\":\"dllm-batch ";
    cr_assert_eq(strncmp(line, HEADER_START, strlen(HEADER_START)), 0);
    cr_assert_eq(strncmp(line, start, strlen(start)), 0, "%s", line);
    cr_assert_not_null(strstr(line, "\"settings\":{\"threshold\":\"0.85\",\"seed\":"
                                    "\"18446744073709551615\",\"no-early-stop\":\"yes\"},"
                                    "\"backend\":\"cpu avx2\"}}"),
                       "%s", line);
    cr_assert_null(json_object_get(made, "backend"));
    free(line);
    json_decref(made);
}

Test(resume, all_that_changed_is_told)
{
    static const struct {
        const char *before[2], *after[2], *message;
    } cases[] = {
        {{"threshold", "0.9"}, {"threshold", "0.8"}, "x was begun with --threshold 0.9, now 0.8"},
        {{"threshold", "0.9"}, {NULL}, "x was begun with --threshold 0.9, now without"},
        {{NULL}, {"threshold", "0.9"}, "x was begun without --threshold, now 0.9"},
        {{"no_chat", "true"}, {NULL}, "x was begun with --no-chat, now without"},
        {{NULL}, {"no_chat", "true"}, "x was begun without --no-chat, now with it"},
        {{"threshold", "0.9"},
         {"steps", "3"},
         "x was begun with --threshold 0.9, now without, and without --steps, now 3"},
        {{"system", "abc"}, {"system", "abd"}, "x was begun with --system abc, now abd"},
        {{"temperature", "0.1"},
         {"temperature", "0.1000001"},
         "x was begun with --temperature 0.1, now 0.1000001"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        options_init(&options, SUBCOMMAND_RUN);
        options.model = "m";
        if (cases[i].before[0] != NULL) give(cases[i].before[0], cases[i].before[1]);
        json_t *before = make_header();
        options_init(&options, SUBCOMMAND_RUN);
        options.model = "m";
        if (cases[i].after[0] != NULL) give(cases[i].after[0], cases[i].after[1]);
        json_t *after = make_header();
        cr_expect(header_agree(before, before, "now", "x", &err));
        cr_expect_not(header_agree(before, after, "now", "x", &err));
        cr_expect_eq(err.code, ERROR_USAGE);
        cr_expect_eq(strncmp(err.message, cases[i].message, strlen(cases[i].message)), 0, "%s",
                     err.message);
        json_decref(before);
        json_decref(after);
    }
}

Test(resume, another_model_or_format_is_told)
{
    write_file("m/config.json", "{} ", 3);
    json_t *other = make_header();
    cr_assert_not(header_agree(header, other, "now", "x", &err));
    cr_assert_not_null(strstr(err.message, "x was begun with the model m ("), "%s", err.message);
    json_object_set_new(other, "format", json_integer(2));
    cr_assert_not(header_agree(other, header, "now", "x", &err));
    cr_assert_eq(err.code, ERROR_FORMAT);
    json_decref(other);
}

Test(resume, the_models_hash_sees_every_file_and_of_dummy_weights_none)
{
    static char weights[300000];
    const char *empty = hash_of(make_header());
    memset(weights, 'w', sizeof weights);
    memcpy(weights, "\x10\0\0\0\0\0\0\0", 8);
    write_file("m/model.safetensors", weights, sizeof weights);
    const char *full = hash_of(make_header());
    cr_assert_str_neq(full, empty);
    /* Header, start, middle and end. */
    static const size_t places[] = {8, 24, 150012, 299999};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        weights[places[i]]++;
        write_file("m/model.safetensors", weights, sizeof weights);
        cr_assert_str_neq(hash_of(make_header()), full, "byte %zu", places[i]);
        weights[places[i]]--;
    }
    write_file("m/model.safetensors", weights, sizeof weights);
    cr_assert_str_eq(hash_of(make_header()), full);
    write_file("m/tokenizer.json", "{}", 2);
    cr_assert_str_neq(hash_of(make_header()), full);
    cr_assert(options_set(&options, OPTION_load_format, "load-format", "dummy", &err));
    cr_assert_str_eq(hash_of(make_header()), empty);
}

/* ---- outputs ---- */

#define HASH "\"line_hash\":\"00000000000000ab\""
static const char answers[] =
    "{\"id\":\"a\",\"index\":0," HASH ",\"text\":\"x\"}\n"
    "{\"id\":7,\"index\":1," HASH ",\"text\":\"x\"}\n"
    "{\"id\":7,\"index\":2," HASH ",\"error\":{\"code\":\"duplicate_id\"}}\n"
    "{\"id\":null,\"index\":3," HASH ",\"error\":{\"code\":\"invalid_json\"}}\n"
    "{\"id\":\"r\",\"custom_id\":\"o\",\"response\":{\"body\":{\"dllm\":{\"index\":4," HASH
    "}}},\"error\":null}\n"
    "{\"id\":\"r\",\"custom_id\":null,\"response\":{\"body\":{\"error\":{},\"dllm\":{\"index\":"
    "5," HASH "}}},\"error\":{\"code\":\"invalid_json\"}}\n";
static const char manifest[] = "{\"manifest\":{\"verdict\":\"complete\",\"lines\":6}}\n";

/* Header and parts as a plain output. */
static size_t write_output(const char *first, const char *second)
{
    char *line = header_line(header, "cpu generic"), text[4096];
    size_t n = (size_t)snprintf(text, sizeof text, "%s\n%s%s", line, first, second);
    write_file("x", text, n);
    free(line);
    return n;
}

static bool scan(bool is_forced)
{
    resume_clear(&resume);
    err = (struct error){0};
    return resume_scan(&resume, &place, header, is_forced, &err);
}

static enum ledger_verdict verdict_on(uint64_t key)
{
    enum ledger_verdict verdict;
    cr_assert(ledger_read(&resume.ledger, key, 0xAB, &verdict, &err));
    return verdict;
}

Test(resume, answers_of_every_form_are_known_again)
{
    size_t n = write_output(answers, "");
    cr_assert(scan(false), "%s", err.message);
    cr_assert_eq(resume.n_answered, 3);
    cr_assert_eq(resume.n_failed, 3);
    cr_assert(resume.has_header);
    cr_assert_not(resume.is_complete);
    cr_assert_str_eq(resume.backend, "cpu generic");
    cr_assert_eq(resume.keep_bytes, (int64_t)n);
    cr_assert_eq(resume.torn_bytes, 0);
    cr_assert_eq(verdict_on(ledger_hash('s', (struct bytes){"a", 1})), LEDGER_ANSWERED);
    cr_assert_eq(verdict_on(ledger_hash('i', (struct bytes){"7", 1})), LEDGER_ANSWERED);
    cr_assert_eq(verdict_on(ledger_line_key('d', 2)), LEDGER_ANSWERED);
    cr_assert_eq(verdict_on(ledger_line_key('l', 3)), LEDGER_ANSWERED);
    cr_assert_eq(verdict_on(ledger_hash('s', (struct bytes){"o", 1})), LEDGER_ANSWERED);
    cr_assert_eq(verdict_on(ledger_line_key('l', 5)), LEDGER_ANSWERED);
    cr_assert_eq(verdict_on(ledger_line_key('l', 2)), LEDGER_NEW);
}

Test(resume, the_last_manifest_is_cut_off_and_says_whether_the_run_was_complete)
{
    size_t n = write_output(answers, "");
    write_output(answers, manifest);
    cr_assert(scan(false), "%s", err.message);
    cr_assert(resume.is_complete);
    cr_assert_eq(resume.keep_bytes, (int64_t)n);
    cr_assert_eq(resume.n_answered, 3);
    cr_assert_eq(truncate("x", (off_t)(n + 20)), 0);
    cr_assert(scan(false), "%s", err.message);
    cr_assert_not(resume.is_complete);
    cr_assert_eq(resume.keep_bytes, (int64_t)n);
    cr_assert_eq(resume.torn_bytes, 20);
}

Test(resume, a_file_cut_anywhere_is_ours_and_keeps_its_whole_lines)
{
    size_t n = write_output(answers, manifest);
    for (size_t i = n; i-- > 0;) {
        cr_assert_eq(truncate("x", (off_t)i), 0);
        cr_assert(scan(false), "cut at %zu: %s", i, err.message);
        cr_assert_leq(resume.keep_bytes, (int64_t)i);
        cr_assert_eq(resume.has_header, resume.keep_bytes > 0);
    }
}

Test(resume, files_of_others_are_refused_even_by_force)
{
    static const char *const files[] = {
        "precious\n", "{\"id\":1}\n",        "{\"header\":1}\n",
        "{",          "{\"header\":{\"for}", "{\"manifest\":{\"verdict\":\"complete\"}}\n",
        "\n",         "{\"id\":1}",
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        bool is_start = i == 3; /* of anything, and nothing is lost with it */
        write_file("x", files[i], strlen(files[i]));
        cr_assert_eq(scan(i % 2 == 1), is_start, "%s", files[i]);
        if (is_start) continue;
        cr_assert_eq(err.code, ERROR_CREATE, "%s", files[i]);
        cr_assert_str_eq(err.message, "x exists already; use -f to overwrite it");
    }
}

Test(resume, damage_before_whole_answers_is_refused_with_its_place_and_cut_by_force)
{
    size_t n = write_output("", "");
    char expected[64];
    write_output("{\"id\":\"torn\n", answers);
    snprintf(expected, sizeof expected, "x is damaged at byte %zu, and whole answers", n);
    cr_assert_not(scan(false));
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert_eq(strncmp(err.message, expected, strlen(expected)), 0, "%s", err.message);
    cr_assert(scan(true), "%s", err.message);
    cr_assert_eq(resume.keep_bytes, (int64_t)n);
    cr_assert_eq(resume.torn_bytes, (int64_t)(strlen(answers) + 12));
}

Test(resume, a_tail_longer_than_a_write_is_refused_and_cut_by_force)
{
    size_t n = write_output(answers, "");
    cr_assert_eq(truncate("x", (off_t)n + (33 << 20)), 0);
    cr_assert_not(scan(false));
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert_not_null(strstr(err.message, "more than a broken write leaves"), "%s", err.message);
    cr_assert(scan(true), "%s", err.message);
    cr_assert_eq(resume.keep_bytes, (int64_t)n);
}

Test(resume, a_changed_setting_is_refused_unless_forced)
{
    write_output(answers, "");
    json_object_set_new(json_object_get(header, "settings"), "steps", json_string("3"));
    cr_assert_not(scan(false));
    cr_assert_eq(err.code, ERROR_USAGE);
    cr_assert(scan(true), "%s", err.message);
    cr_assert_eq(resume.n_answered, 3);
    cr_assert(resume.ledger.any_line);
}
