/* app/settings: which source of a decode setting wins, which defaults fall away, and what a value
 * on an input line may be. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

#include "app/settings.h"

static struct options flags, line;
static struct model_config config;
static struct decode_settings decode;
static struct error err;

static json_t *held; /* values given so far */

static void set_up(void)
{
    options_init(&flags, SUBCOMMAND_RUN);
    options_init(&line, SUBCOMMAND_RUN);
    config = (struct model_config){.n_positions = 512,
                                   .gen_length = 128,
                                   .block_length = 32,
                                   .remasking = "low_confidence",
                                   .temperature = 0.25};
    err = (struct error){0};
    if (held == NULL) held = json_array();
}

static void tear_down(void)
{
    json_decref(held);
}

/* Gives `layer` what {"key": value} says. */
static bool give(struct options *layer, const char *key, const char *json)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", json);
    enum option_id id = options_find_line_key(key);
    cr_assert_neq(id, OPTION_COUNT, "%s", key);
    json_array_append_new(held, value); /* until the end: a choice borrows its string */
    return settings_read(layer, id, key, value, &err);
}

static void resolve(bool has_masks)
{
    bool is_ok = settings_resolve(&decode, &config, &flags, &line, has_masks, &err);
    cr_assert(is_ok, "%s", err.message);
}

TestSuite(settings, .init = set_up, .fini = tear_down);

/* ---- layers ---- */

Test(settings, without_flags_the_model_decides)
{
    config.top_p = 0.95;
    config.top_k = 20;
    resolve(false);
    cr_assert_eq(decode.gen_length, 128);
    cr_assert_eq(decode.block_length, 32);
    cr_assert_eq(decode.steps, 0);
    cr_assert_eq(decode.remasking, REMASKING_LOW_CONFIDENCE);
    cr_assert_float_eq(decode.temperature, 0.25, 0);
    cr_assert_float_eq(decode.top_p, 0.95, 0);
    cr_assert_eq(decode.top_k, 20);
    cr_assert(decode.early_stop);
}

Test(settings, caches_come_from_the_flags_and_a_line_may_change_them)
{
    resolve(false);
    cr_assert_eq(decode.cache, CACHE_DUAL);
    cr_assert_float_eq(decode.retention, 0.5, 0);
    cr_assert(decode.delay == 1 && !decode.shared_select && decode.refresh_every == 0);
    cr_assert(decode.prompt_refresh_every == 4 && decode.suffix_window == 2);
    give(&flags, "cache", "\"sparse\"");
    give(&flags, "retention", "0.25");
    give(&flags, "head_select", "\"off\"");
    give(&flags, "suffix_window", "2");
    give(&line, "delay", "0");
    give(&line, "refresh_every", "4");
    give(&line, "prompt_refresh_every", "3");
    resolve(false);
    cr_assert_eq(decode.cache, CACHE_SPARSE);
    cr_assert_float_eq(decode.retention, 0.25, 0);
    cr_assert(decode.shared_select && decode.delay == 0 && decode.suffix_window == 2);
    cr_assert(decode.refresh_every == 4 && decode.prompt_refresh_every == 3);
    give(&line, "cache", "\"prefix\"");
    give(&line, "head_select", "\"on\"");
    resolve(false);
    cr_assert(decode.cache == CACHE_PREFIX && !decode.shared_select);
}

Test(settings, a_named_cache_is_that_cache_alone)
{
    static const char *const names[] = {"\"none\"", "\"prefix\"", "\"dual\"", "\"sparse\""};
    for (int i = 0; i < 4; i++) {
        give(i % 2 == 0 ? &flags : &line, "cache", names[i]);
        resolve(false);
        cr_assert_eq((int)decode.cache, i);
        cr_assert(decode.prompt_refresh_every == 1 && decode.suffix_window == 0);
        set_up();
    }
}

Test(settings, what_was_not_measured_decodes_as_published)
{
    static const char *const rules[] = {"\"origin\"", "\"maskgit_plus\"", "\"topk_margin\"",
                                        "\"entropy\""};
    for (int i = 0; i < 5; i++) { /* the last: infill */
        set_up();
        if (i < 4) give(i % 2 == 0 ? &flags : &line, "remasking", rules[i]);
        resolve(i == 4);
        cr_assert(decode.cache == CACHE_NONE && decode.threshold == 0);
        cr_assert(decode.prompt_refresh_every == 1 && decode.suffix_window == 0);
    }
    set_up();
    config.remasking = "entropy";
    resolve(false);
    cr_assert(decode.cache == CACHE_NONE && decode.threshold == 0);
    cr_assert_eq(decode.remasking, REMASKING_ENTROPY);
}

Test(settings, low_confidence_has_a_threshold_unless_something_else_says_how_many)
{
    static const char *const given[][2] = {
        {"threshold", "0"}, {"steps", "0"}, {"steps", "64"}, {"factor", "1"}};
    resolve(false);
    cr_assert_float_eq(decode.threshold, 0.9, 0);
    give(&flags, "factor", "0");
    config.steps = 64;
    config.remasking = "entropy";
    give(&line, "remasking", "\"low_confidence\"");
    resolve(false);
    cr_assert_float_eq(decode.threshold, 0.9, 0);
    for (int i = 0; i < 8; i++) {
        set_up();
        give(i % 2 == 0 ? &flags : &line, given[i / 2][0], given[i / 2][1]);
        resolve(false);
        cr_assert_float_eq(decode.threshold, 0, 0, "%s", given[i / 2][0]);
    }
    set_up();
    give(&line, "remasking", "\"random\"");
    resolve(false);
    cr_assert(decode.threshold == 0 && decode.cache == CACHE_DUAL);
}

Test(settings, infill_falls_back_to_no_cache_unless_the_line_insists)
{
    give(&flags, "cache", "\"dual\"");
    give(&flags, "prompt_refresh_every", "4");
    give(&flags, "suffix_window", "2");
    resolve(true);
    cr_assert_eq(decode.cache, CACHE_NONE);
    cr_assert(decode.prompt_refresh_every == 1 && decode.suffix_window == 0);
    give(&line, "cache", "\"dual\"");
    resolve(true);
    cr_assert_eq(decode.cache, CACHE_DUAL, "to be refused with a reason");
}

Test(settings, policies_and_objectives_are_named_as_in_the_planner)
{
    cr_assert_eq(settings_policy("static"), POLICY_STATIC);
    cr_assert_eq(settings_policy("fcfs"), POLICY_FCFS);
    cr_assert_eq(settings_policy("planned"), POLICY_PLANNED);
    cr_assert_eq(settings_objective("makespan"), OBJECTIVE_MAKESPAN);
    cr_assert_eq(settings_objective("mean"), OBJECTIVE_MEAN);
    cr_assert_eq(settings_objective("tail"), OBJECTIVE_TAIL);
}

Test(settings, flags_beat_the_model_and_the_line_beats_flags)
{
    give(&flags, "gen_length", "64");
    give(&flags, "temperature", "0.5");
    give(&line, "temperature", "0");
    give(&flags, "no_early_stop", "true");
    resolve(false);
    cr_assert_eq(decode.gen_length, 64);
    cr_assert_float_eq(decode.temperature, 0, 0);
    cr_assert(!decode.early_stop);
    give(&line, "no_early_stop", "false");
    resolve(false);
    cr_assert(decode.early_stop);
}

Test(settings, null_is_as_if_absent)
{
    give(&flags, "threshold", "0.9");
    cr_assert(give(&line, "threshold", "null"));
    resolve(false);
    cr_assert_float_eq(decode.threshold, 0.9, 0);
}

Test(settings, a_model_without_defaults_gets_ours)
{
    config = (struct model_config){0};
    resolve(false);
    cr_assert_eq(decode.gen_length, 128);
    cr_assert_eq(decode.block_length, 32);
    cr_assert_float_eq(decode.top_p, 1, 0);
    cr_assert_eq(decode.remasking, REMASKING_LOW_CONFIDENCE);
}

Test(settings, every_remasking_rule_has_its_name)
{
    for (int i = 0; i < REMASKING_COUNT; i++) {
        char json[64];
        set_up();
        snprintf(json, sizeof json, "\"%s\"", settings_remasking_name((enum remasking)i));
        cr_assert(give(&line, "remasking", json), "%s", err.message);
        resolve(false);
        cr_assert_eq((int)decode.remasking, i);
    }
}

Test(settings, an_unknown_default_rule_of_the_model_is_an_error)
{
    config.remasking = "p2";
    cr_assert(!settings_resolve(&decode, &config, &flags, &line, false, &err));
    cr_assert_not_null(strstr(err.message, "\"p2\""));
}

/* ---- settings that depend on each other ---- */

Test(settings, a_line_with_threshold_turns_off_the_factor_of_the_flags)
{
    give(&flags, "factor", "1");
    give(&line, "threshold", "0.8");
    resolve(false);
    cr_assert_float_eq(decode.threshold, 0.8, 0);
    cr_assert_float_eq(decode.factor, 0, 0);
    set_up();
    give(&flags, "threshold", "0.8");
    give(&line, "factor", "1");
    resolve(false);
    cr_assert_float_eq(decode.threshold, 0, 0);
    cr_assert_float_eq(decode.factor, 1, 0);
}

Test(settings, threshold_and_factor_in_one_source_are_an_error)
{
    give(&line, "factor", "1");
    give(&line, "threshold", "0.8");
    cr_assert(!settings_resolve(&decode, &config, &flags, &line, false, &err));
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert(!settings_check_flags(&line, &config, &err));
    cr_assert_eq(err.code, ERROR_USAGE);
    give(&line, "factor", "0");
    resolve(false);
    cr_assert(settings_check_flags(&line, &config, &err));
}

Test(settings, flags_that_suit_no_bare_line_are_named)
{
    give(&flags, "seed", "5");
    give(&flags, "steps", "7");
    cr_assert(!settings_check_flags(&flags, &config, &err));
    cr_assert_eq(err.code, ERROR_USAGE);
    cr_assert_eq(strncmp(err.message, "--steps: steps is 7, must be", 28), 0, "%s", err.message);
    give(&flags, "gen_length", "0");
    cr_assert(settings_check_flags(&flags, &config, &err), "masks are filled in any steps");
}

Test(settings, what_is_wrong_with_the_model_is_no_mistake_of_the_flags)
{
    config.remasking = "unheard_of";
    give(&flags, "seed", "5");
    cr_assert(settings_check_flags(&flags, &config, &err));
    give(&flags, "remasking", "\"entropy\"");
    cr_assert(settings_check_flags(&flags, &config, &err));
}

Test(settings, threshold_replaces_a_default_rule_but_not_a_given_one)
{
    config.remasking = "entropy";
    give(&line, "threshold", "0.9");
    resolve(false);
    cr_assert_eq(decode.remasking, REMASKING_LOW_CONFIDENCE);
    give(&flags, "remasking", "\"entropy\"");
    resolve(false);
    cr_assert_eq(decode.remasking, REMASKING_ENTROPY);
}

Test(settings, rules_with_timesteps_have_one_block)
{
    give(&line, "remasking", "\"origin\"");
    resolve(false);
    cr_assert_eq(decode.block_length, 128);
    give(&line, "block_length", "16");
    resolve(false);
    cr_assert_eq(decode.block_length, 16);
}

Test(settings, default_alg_temp_needs_a_rule_that_has_an_order)
{
    config.alg_temp = 0.5;
    resolve(false);
    cr_assert_float_eq(decode.alg_temp, 0, 0);
    give(&line, "remasking", "\"topk_margin\"");
    resolve(false);
    cr_assert_float_eq(decode.alg_temp, 0.5, 0);
}

Test(settings, default_steps_belong_to_default_lengths)
{
    config.steps = 64;
    resolve(false);
    cr_assert_eq(decode.steps, 64);
    give(&line, "gen_length", "96");
    resolve(false);
    cr_assert_eq(decode.steps, 0);
    give(&flags, "steps", "12");
    resolve(false);
    cr_assert_eq(decode.steps, 12);
}

Test(settings, default_steps_that_do_not_divide_fall_away)
{
    config.steps = 63;
    resolve(false);
    cr_assert_eq(decode.steps, 0);
}

Test(settings, blocks_are_never_longer_than_the_generation)
{
    give(&line, "gen_length", "20");
    give(&flags, "block_length", "32");
    resolve(false);
    cr_assert_eq(decode.block_length, 20);
}

Test(settings, infill_generates_nothing_behind_the_prompt)
{
    config.steps = 128;
    give(&flags, "gen_length", "64");
    resolve(true);
    cr_assert_eq(decode.gen_length, 0);
    cr_assert_eq(decode.block_length, 0);
    cr_assert_eq(decode.steps, 0);
    give(&line, "gen_length", "8"); /* for plan/phases to refuse */
    resolve(true);
    cr_assert_eq(decode.gen_length, 8);
}

/* ---- values ---- */

Test(settings, wrong_values_name_key_value_and_wish)
{
    static const struct {
        const char *key, *json, *message;
    } cases[] = {
        {"temperature", "\"hot\"", "temperature is \"hot\", must be a number from 0 to 100"},
        {"temperature", "-0.5", "temperature is -0.5, must be a number from 0 to 100"},
        {"temperature", "true", "temperature is true, must be a number from 0 to 100"},
        {"top_p", "0", "top_p is 0, must be a number above 0, at most 1"},
        {"top_p", "1.01", "top_p is 1.01, must be a number above 0, at most 1"},
        {"threshold", "[]", "threshold is an array, must be a number from 0 to 1"},
        {"gen_length", "64.0", "gen_length is 64.0, must be an integer from 0 to 1048576"},
        {"gen_length", "-1", "gen_length is -1, must be an integer from 0 to 1048576"},
        {"block_length", "0", "block_length is 0, must be an integer from 1 to 1048576"},
        {"steps", "{}", "steps is an object, must be an integer from 0 to 1048576"},
        {"top_k", "9999999999", "top_k is 9999999999, must be an integer from 0 to 2147483647"},
        {"seed", "1.5", "seed is 1.5, must be an integer of 64 bits"},
        {"no_early_stop", "1", "no_early_stop is 1, must be true or false"},
        {"cache", "\"all\"", "cache is \"all\", must be one of none, prefix, dual, sparse"},
        {"remasking", "\"low\"",
         "remasking is \"low\", must be one of low_confidence, random, origin, maskgit_plus, "
         "topk_margin, entropy"},
        {"remasking", "\"low_confidence|random\"",
         "remasking is \"low_confidence|random\", must be one of low_confidence, random, origin, "
         "maskgit_plus, topk_margin, entropy"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        set_up();
        cr_assert(!give(&line, cases[i].key, cases[i].json), "%s", cases[i].message);
        cr_assert_str_eq(err.message, cases[i].message);
        cr_assert_eq(err.code, ERROR_FORMAT);
        cr_assert(!line.is_set[options_find_line_key(cases[i].key)]);
    }
}

Test(settings, long_strings_are_cut_in_messages)
{
    cr_assert(!give(&line, "cache", "\"1234567890123456789012345678901234567890123\""));
    cr_assert_str_eq(err.message, "cache is \"123456789012345678901234567890123456789..., must be "
                                  "one of none, prefix, dual, sparse");
    /* Between characters, even where the limit falls into one. */
    cr_assert(!give(&line, "cache", "\"12345678901234567890123456789012345678\\u00e9xy\""));
    cr_assert_str_eq(err.message, "cache is \"12345678901234567890123456789012345678..., must be "
                                  "one of none, prefix, dual, sparse");
}

Test(settings, limits_themselves_are_allowed)
{
    cr_assert(give(&line, "temperature", "100"));
    cr_assert(give(&line, "temperature", "0"));
    cr_assert(give(&line, "top_p", "1"));
    cr_assert(give(&line, "gen_length", "1048576"));
    cr_assert(give(&line, "threshold", "1"));
    cr_assert(give(&line, "seed", "-9223372036854775808"));
    cr_assert_eq(line.seed, UINT64_C(1) << 63);
}
