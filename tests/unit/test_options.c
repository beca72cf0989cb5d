/* app/options: the table is sound, every way to write an option arrives in its field, and what is
 * refused is refused with the option, the value and what it may be. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app/options.h"

enum { WORDS_MAX = 16 };

/* Parses the space-separated words of `line`, which must outlive `options`. */
static bool parse(struct options *options, enum subcommand subcommand, char *line,
                  struct error *err)
{
    const char *argv[WORDS_MAX];
    int argc = 0;
    for (char *word = strtok(line, " "); word != NULL; word = strtok(NULL, " ")) {
        cr_assert_lt(argc, WORDS_MAX);
        argv[argc++] = word;
    }
    return options_parse(options, subcommand, argc, argv, err);
}

static struct options parsed(char *line)
{
    struct options options;
    struct error err = {0};
    cr_assert(parse(&options, SUBCOMMAND_RUN, line, &err), "%s", err.message);
    return options;
}

static void expect_refusal(const char *line, const char *message)
{
    struct options options;
    struct error err = {0};
    char words[256];
    snprintf(words, sizeof words, "%s", line);
    cr_assert_not(parse(&options, SUBCOMMAND_RUN, words, &err), "%s: accepted", line);
    cr_expect_eq(err.code, ERROR_USAGE);
    cr_expect_str_eq(err.message, message);
}

/* ---- the table ---- */

Test(options, names_and_letters_are_unique_within_a_subcommand)
{
    for (enum option_id i = 0; i < OPTION_COUNT; i++) {
        for (enum option_id j = 0; j < i; j++) {
            const struct option_info *a = options_info(i), *b = options_info(j);
            if ((a->where & b->where) == 0) continue;
            cr_expect_str_neq(a->name, b->name);
            cr_expect(a->letter == 0 || a->letter != b->letter, "-%c", a->letter);
        }
    }
}

Test(options, every_row_is_complete_and_used)
{
    for (enum option_id i = 0; i < OPTION_COUNT; i++) {
        const struct option_info *info = options_info(i);
        bool is_flag = info->type == OPTION_TYPE_FLAG;
        size_t n_help = strlen(info->help);
        cr_expect_neq(info->where, 0, "--%s: in no subcommand", info->name);
        cr_expect_eq(info->metavar == NULL, is_flag, "--%s: metavar", info->name);
        cr_expect_eq(info->choices != NULL, info->type == OPTION_TYPE_CHOICE, "--%s", info->name);
        cr_expect_lt(strlen(info->name), 32, "--%s", info->name);
        cr_expect_gt(n_help, 0, "--%s", info->name);
        cr_expect_eq(info->help[n_help - 1], '.', "--%s: help ends without a point", info->name);
        cr_expect_leq(info->min, info->max, "--%s: limits", info->name);
    }
}

Test(options, a_section_stands_in_one_place)
{
    for (enum option_id i = 1; i < OPTION_COUNT; i++) {
        const char *section = options_info(i)->section;
        if (strcmp(section, options_info(i - 1)->section) == 0) continue;
        for (enum option_id j = 0; j < i; j++)
            cr_expect_str_neq(section, options_info(j)->section);
    }
}

Test(options, defaults_are_parsed_and_count_as_not_given)
{
    struct options options;
    options_init(&options, SUBCOMMAND_RUN);
    cr_expect_str_eq(options.backend, "auto");
    cr_expect_null(options.cache);
    cr_expect_eq(options.window, 1024);
    cr_expect_eq(options.seed, 0);
    cr_expect_eq(options.gen_length, 0);
    cr_expect_null(options.output);
    for (enum option_id i = 0; i < OPTION_COUNT; i++)
        cr_expect_not(options_is_set(&options, i), "--%s", options_info(i)->name);
}

Test(options, a_given_zero_differs_from_nothing_given)
{
    char line[] = "--gen-length 0";
    struct options options = parsed(line);
    cr_expect(options_is_set(&options, OPTION_gen_length));
    cr_expect_not(options_is_set(&options, OPTION_steps));
    cr_expect_eq(options.gen_length, options.steps);
}

/* ---- ways to write ---- */

Test(options, a_long_value_follows_an_equals_sign_or_is_the_next_word)
{
    char line[] = "--output=a=b --model dir --backend ref";
    struct options options = parsed(line);
    cr_expect_str_eq(options.output, "a=b");
    cr_expect_str_eq(options.model, "dir");
    cr_expect_str_eq(options.backend, "ref");
}

Test(options, an_empty_value_after_the_equals_sign_is_a_value)
{
    char line[] = "--system= in.jsonl";
    struct options options = parsed(line);
    cr_expect_str_eq(options.system, "");
    cr_expect_str_eq(options.operand, "in.jsonl");
}

Test(options, a_short_value_is_attached_or_is_the_next_word)
{
    char line[] = "-oanswers -m dir";
    struct options options = parsed(line);
    cr_expect_str_eq(options.output, "answers");
    cr_expect_str_eq(options.model, "dir");
}

Test(options, short_flags_are_joined_and_the_last_may_take_a_value)
{
    char line[] = "-fqo answers";
    struct options options = parsed(line);
    cr_expect(options.force);
    cr_expect(options.quiet);
    cr_expect_str_eq(options.output, "answers");
}

Test(options, a_dash_alone_is_an_operand_and_a_value)
{
    char line[] = "-o - -";
    struct options options = parsed(line);
    cr_expect_str_eq(options.output, "-");
    cr_expect_str_eq(options.operand, "-");
}

Test(options, two_dashes_end_the_options)
{
    char line[] = "--force -- --strict";
    struct options options = parsed(line);
    cr_expect(options.force);
    cr_expect_not(options.strict);
    cr_expect_str_eq(options.operand, "--strict");
}

Test(options, several_operands_where_the_name_says_so)
{
    const char *const words[] = {"a", "--json", "b", "c"};
    struct options options;
    struct error problem = {0};
    cr_assert(options_parse(&options, SUBCOMMAND_REPORT, 4, words, &problem));
    cr_expect_eq(options.n_operands, 3);
    cr_expect_str_eq(options.operand, "a");
    cr_expect_str_eq(options.operands[2], "c");
    const char *many[OPTIONS_OPERANDS_MAX + 1];
    for (size_t i = 0; i <= OPTIONS_OPERANDS_MAX; i++)
        many[i] = "x";
    cr_assert_not(
        options_parse(&options, SUBCOMMAND_REPORT, OPTIONS_OPERANDS_MAX + 1, many, &problem));
    cr_expect(strstr(problem.message, "takes at most 256 RECORDS..."), "%s", problem.message);
}

Test(options, options_may_follow_the_operand)
{
    char line[] = "in.jsonl --seed 7";
    struct options options = parsed(line);
    cr_expect_str_eq(options.operand, "in.jsonl");
    cr_expect_eq(options.seed, 7);
}

Test(options, the_last_of_a_repeated_option_wins)
{
    char line[] = "--steps 3 --steps=9 --steps 5";
    struct options options = parsed(line);
    cr_expect_eq(options.steps, 5);
}

Test(options, help_ends_the_parsing_before_later_mistakes)
{
    char line[] = "--help --nonsense";
    struct options options = parsed(line);
    cr_expect(options.help);
}

/* ---- values ---- */

Test(options, whole_numbers_are_taken_up_to_their_limits)
{
    char line[] = "--top-k 2147483647 --seed 18446744073709551615 --gen-length 1048576";
    struct options options = parsed(line);
    cr_expect_eq(options.top_k, INT32_MAX);
    cr_expect_eq(options.seed, UINT64_MAX);
    cr_expect_eq(options.gen_length, 1048576);
}

Test(options, sizes_count_in_powers_of_1024)
{
    static const struct {
        const char *text;
        uint64_t n_bytes;
    } cases[] = {
        {"1048576", 1048576},        {"2M", 2u << 20},     {"8G", (uint64_t)8 << 30},
        {"8GiB", (uint64_t)8 << 30}, {"2048KB", 2u << 20}, {"1024T", (uint64_t)1 << 50},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct options options;
        struct error err = {0};
        options_init(&options, SUBCOMMAND_RUN);
        cr_expect(options_set(&options, OPTION_memory, "--memory", cases[i].text, &err), "%s",
                  err.message);
        cr_expect_eq(options.memory, cases[i].n_bytes, "%s", cases[i].text);
    }
}

Test(options, numbers_are_taken_in_every_decimal_form)
{
    char line[] = "--temperature 2.5e-1 --threshold .5 --factor 1. --top-p 1";
    struct options options = parsed(line);
    cr_expect_eq(options.temperature, 0.25);
    cr_expect_eq(options.threshold, 0.5);
    cr_expect_eq(options.factor, 1.0);
    cr_expect_eq(options.top_p, 1.0);
}

Test(options, what_is_no_whole_number_in_range_is_refused)
{
    static const char *const values[] = {
        "0",   "1025", "-1", "+1", "1.0",  "1e2",        "0x10",
        "1 2", "",     " 4", "4 ", "four", "4294967297", "99999999999999999999999999"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct options options;
        struct error err = {0};
        char message[128];
        options_init(&options, SUBCOMMAND_RUN);
        cr_expect_not(options_set(&options, OPTION_threads, "--threads", values[i], &err), "'%s'",
                      values[i]);
        snprintf(message, sizeof message, "--threads: '%s' is not a whole number from 1 to 1024",
                 values[i]);
        cr_expect_str_eq(err.message, message);
        cr_expect_eq(options.threads, 0, "changed by '%s'", values[i]);
        cr_expect_not(options_is_set(&options, OPTION_threads));
    }
}

Test(options, what_is_no_finite_number_in_range_is_refused)
{
    static const char *const values[] = {"nan", "inf",  "1e999", "0x1p-1", "",   ".",
                                         "1e",  "0.5 ", "1.5",   "-0.1",   "1,5"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct options options;
        struct error err = {0};
        options_init(&options, SUBCOMMAND_RUN);
        cr_expect_not(options_set(&options, OPTION_threshold, "threshold", values[i], &err), "'%s'",
                      values[i]);
        cr_expect(strstr(err.message, "is not a number from 0 to 1") != NULL, "%s", err.message);
    }
}

Test(options, what_is_no_size_in_range_is_refused)
{
    static const char *const values[] = {
        "1",           "1K",  "8X",   "8GG",   "8Gi",
        "G",           "-8G", "1.5G", "1025T", "18446744073709551616",
        "17179869184T"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct options options;
        struct error err = {0};
        options_init(&options, SUBCOMMAND_RUN);
        cr_expect_not(options_set(&options, OPTION_memory, "--memory", values[i], &err), "'%s'",
                      values[i]);
        cr_expect(strstr(err.message, "such as 512M or 8G") != NULL, "%s", err.message);
    }
}

Test(options, each_refusal_names_the_option_the_value_and_the_wish)
{
    expect_refusal("--top-p 0", "--top-p: '0' is not a number above 0, at most 1");
    expect_refusal("--backend gpu", "--backend: 'gpu' is not one of auto, ref, cpu, cuda");
    expect_refusal("--cache all", "--cache: 'all' is not one of none, prefix, dual, sparse");
    expect_refusal("--seed -1",
                   "--seed: '-1' is not a whole number from 0 to 18446744073709551615");
    expect_refusal("--force=yes", "--force takes no value, 'yes' was given");
    expect_refusal("--output", "--output needs a value: --output FILE");
    expect_refusal("-fo", "-o needs a value: -o FILE");
    expect_refusal("a b", "unexpected argument 'b': run takes one PROMPTS, 'a'");
}

Test(options, an_unknown_option_is_answered_with_the_nearest_one)
{
    expect_refusal("--gen-lenght 3", "unknown option '--gen-lenght'; did you mean '--gen-length'?");
    expect_refusal("--outptu=x", "unknown option '--outptu'; did you mean '--output'?");
    expect_refusal("--zzzzzzzzzz",
                   "unknown option '--zzzzzzzzzz'; 'dllm-batch help run' lists the options");
    expect_refusal("-fx", "unknown option '-x' in '-fx'; 'dllm-batch help run' lists the options");
}

Test(options, a_name_longer_than_any_is_refused_whole)
{
    char word[2002];
    memset(word, 'g', sizeof word - 1);
    word[0] = word[1] = '-';
    word[sizeof word - 1] = '\0';
    struct options options;
    struct error err = {0};
    const char *const argv[] = {word};
    cr_expect_not(options_parse(&options, SUBCOMMAND_RUN, 1, argv, &err));
    cr_expect_eq(err.code, ERROR_USAGE);
}

Test(options, an_option_of_another_subcommand_is_unknown)
{
    struct options options;
    struct error err = {0};
    char line[] = "--strict";
    cr_expect_not(parse(&options, SUBCOMMAND_INSPECT, line, &err));
    cr_expect_eq(err.code, ERROR_USAGE);
}

/* ---- subcommands and keys of input lines ---- */

Test(options, subcommands_are_found_by_their_whole_name)
{
    enum subcommand subcommand;
    struct error err = {0};
    cr_expect(options_find_subcommand("inspect", &subcommand, &err));
    cr_expect_eq(subcommand, SUBCOMMAND_INSPECT);
    cr_expect_not(options_find_subcommand("inspec", &subcommand, &err));
    cr_expect_str_eq(err.message, "unknown subcommand 'inspec'; did you mean 'inspect'?");
    cr_expect_not(options_find_subcommand("", &subcommand, &err));
}

Test(options, a_line_key_is_the_name_with_underscores)
{
    cr_expect_eq(options_find_line_key("gen_length"), OPTION_gen_length);
    cr_expect_eq(options_find_line_key("confidence_eos_eot_inf"), OPTION_confidence_eos_eot_inf);
    static const char *const others[] = {"gen-length", "gen_lengt", "gen_length_", "model",
                                         "output",     "",          "threads"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        cr_expect_eq(options_find_line_key(others[i]), OPTION_COUNT, "%s", others[i]);
}

Test(options, keys_near_a_setting_are_told_from_columns)
{
    static const struct {
        const char *key;
        enum option_id meant;
    } keys[] = {
        {"gen-length", OPTION_gen_length},
        {"genLength", OPTION_gen_length},
        {"GEN_LENGTH", OPTION_gen_length},
        {"block_lenth", OPTION_block_length},
        {"temprature", OPTION_temperature},
        {"topP", OPTION_top_p},
        {"Seed", OPTION_seed},
        {"step", OPTION_steps},
        {"seeds", OPTION_COUNT},
        {"actor", OPTION_COUNT},
        {"answer", OPTION_COUNT},
        {"stop", OPTION_COUNT},
        {"temperature_c", OPTION_COUNT},
        {"", OPTION_COUNT},
        {"model", OPTION_COUNT},
        {"a_column_with_a_very_long_name_of_its_own", OPTION_COUNT},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        cr_expect_eq(options_find_near_key(keys[i].key), keys[i].meant, "%s", keys[i].key);
}

/* ---- printing ---- */

static char *printed_help(enum subcommand subcommand)
{
    char *text = NULL;
    size_t n = 0;
    FILE *stream = open_memstream(&text, &n);
    cr_assert_not_null(stream);
    options_print_help(subcommand, stream);
    fclose(stream);
    return text;
}

Test(options, help_has_every_option_once_and_fits_80_columns)
{
    for (enum subcommand subcommand = 0; subcommand <= SUBCOMMAND_COUNT; subcommand++) {
        char *text = printed_help(subcommand);
        for (const char *line = text; *line != '\0';) {
            size_t n = strcspn(line, "\n");
            cr_expect_leq(n, 80, "%.*s", (int)n, line);
            cr_expect(n == 0 || line[n - 1] != ' ', "'%.*s' ends in a blank", (int)n, line);
            line += n + 1;
        }
        for (enum option_id i = 0; subcommand < SUBCOMMAND_COUNT && i < OPTION_COUNT; i++) {
            char name[48];
            snprintf(name, sizeof name, " --%s%s", options_info(i)->name,
                     options_info(i)->metavar != NULL ? " " : "");
            bool is_ours = (options_info(i)->where >> subcommand & 1) != 0;
            cr_expect_eq(strstr(text, name) != NULL, is_ours, "%s", name);
        }
        free(text);
    }
}

Test(options, the_echo_tells_each_value_and_its_source)
{
    char line[] = "--gen-length 64 --temperature 0.5 --force", *text = NULL;
    size_t n = 0;
    struct options options = parsed(line);
    FILE *stream = open_memstream(&text, &n);
    cr_assert_not_null(stream);
    options_print(&options, stream);
    fclose(stream);
    cr_expect_not_null(strstr(text, "gen-length              64               command line\n"));
    cr_expect_not_null(strstr(text, "temperature             0.5              command line\n"));
    cr_expect_not_null(strstr(text, "force                   yes              command line\n"));
    cr_expect_not_null(strstr(text, "backend                 auto             default\n"));
    cr_expect_not_null(strstr(text, "steps                   -                not given\n"));
    free(text);
}

/* What an input line may set, plan takes as a flag, since it reads lines as run does. */
Test(options, plan_has_every_setting_of_a_line)
{
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        const struct option_info *info = options_info(id);
        if (!info->in_line) continue;
        cr_expect(info->where >> SUBCOMMAND_PLAN & 1, "%s", info->name);
        cr_expect(info->where >> SUBCOMMAND_RUN & 1, "%s", info->name);
        cr_expect_not(info->where >> SUBCOMMAND_REPORT & 1, "%s", info->name);
    }
}
