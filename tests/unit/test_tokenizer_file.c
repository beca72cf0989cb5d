/* text/tokenizer_file and tokenizer_json: folders of either kind, and what is refused, by its
 * message. A refusal starts from a file that is good, so that it shows exactly one thing. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text/tokenizer.h"

/* The test's own folder; every test has a process of its own. */
static char folder[] = "/tmp/test_tokenizer_XXXXXX";

static const char *const names[] = {"tokenizer.json", "vocab.json", "merges.txt",
                                    "tokenizer_config.json", "chat_template.jinja"};

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void setup(void)
{
    cr_assert(mkdtemp(folder));
}

static void teardown(void)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    cr_assert_eq(rmdir(folder), 0);
}

TestSuite(tokenizer_file, .init = setup, .fini = teardown);

static void write_file(const char *name, const char *content)
{
    FILE *file = fopen(path_of(name), "w");
    cr_assert_not_null(file);
    cr_assert_geq(fputs(content, file), 0);
    cr_assert_eq(fclose(file), 0);
}

static struct tokenizer *open_good(void)
{
    struct error err = {0};
    struct tokenizer *tokenizer = NULL;
    cr_assert(tokenizer_open(&tokenizer, folder, &err), "%s", err.message);
    return tokenizer;
}

static void check_refused(enum error_code code, const char *wish)
{
    struct error err = {0};
    struct tokenizer *tokenizer = NULL;
    cr_assert_not(tokenizer_open(&tokenizer, folder, &err), "accepted, instead of: %s", wish);
    cr_expect_eq(err.code, code, "%s", err.message);
    cr_expect_not_null(strstr(err.message, wish), "'%s' lacks '%s'", err.message, wish);
    cr_assert_null(tokenizer);
}

/* ---- a good file, and changes to it ---- */

/* Byte pieces for a, b, c and the blank alone: a text with another byte has no ids. */
static const char good[] =
    "{'added_tokens': [{'id': 9, 'content': '<x>', 'special': true, 'normalized': false}],"
    " 'normalizer': {'type': 'NFC'},"
    " 'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': ["
    "  {'type': 'Split', 'pattern': {'Regex': ' ?[a-z]+|[0-9]'}, 'behavior': 'Isolated',"
    "   'invert': false}, {'type': 'ByteLevel', 'add_prefix_space': false, 'use_regex': false}]},"
    " 'decoder': {'type': 'ByteLevel'},"
    " 'model': {'type': 'BPE', 'dropout': null, 'unk_token': null,"
    "  'continuing_subword_prefix': '', 'end_of_word_suffix': null, 'byte_fallback': false,"
    "  'vocab': {'a': 0, 'b': 1, 'c': 2, 'Ġ': 3, 'ab': 4, 'abc': 5, 'Ġa': 6},"
    "  'merges': ['a b', ['ab', 'c'], 'Ġ a']}}";

/* Writes the good file with one part replaced; single quotes stand for double ones. */
static void write_changed(const char *from, const char *to)
{
    static char text[8192];
    const char *at = strstr(good, from);
    cr_assert_not_null(at, "the good file lacks: %s", from);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    for (char *c = text; *c != 0; c++)
        if (*c == '\'') *c = '"';
    write_file("tokenizer.json", text);
}

static void check_ids(const struct tokenizer *tokenizer, const char *text, const int32_t *expected,
                      int32_t n_expected)
{
    struct error err = {0};
    struct arena arena;
    struct token_ids tokens;
    cr_assert(arena_create(&arena, 1 << 20, &err));
    struct bytes bytes = {text, strlen(text)};
    cr_assert(tokenizer_encode(tokenizer, bytes, true, &arena, &tokens, &err), "%s", err.message);
    cr_assert_eq(tokens.n, n_expected, "%s: %d ids", text, tokens.n);
    cr_assert_arr_eq(tokens.ids, expected, (size_t)tokens.n * sizeof *tokens.ids);
    arena_destroy(&arena);
}

Test(tokenizer_file, merges_may_be_strings_or_pairs)
{
    write_changed("", "");
    struct tokenizer *tokenizer = open_good();
    check_ids(tokenizer, "abc ab<x>cab", (int32_t[]){5, 3, 4, 9, 2, 4}, 6);
    cr_assert_eq(tokenizer_facts(tokenizer).n_merges, 3);
    tokenizer_close(tokenizer);
}

Test(tokenizer_file, a_byte_without_a_piece_is_an_error_of_the_text)
{
    write_changed("", "");
    struct tokenizer *tokenizer = open_good();
    struct arena arena;
    struct error err = {0};
    struct token_ids tokens;
    cr_assert(arena_create(&arena, 1 << 20, &err));
    struct bytes text = {"abz", 3};
    cr_assert_not(tokenizer_encode(tokenizer, text, true, &arena, &tokens, &err));
    cr_assert_not_null(strstr(err.message, "no piece for byte 0x7A"), "%s", err.message);
    arena_destroy(&arena);
    tokenizer_close(tokenizer);
}

Test(tokenizer_file, a_null_normalizer_and_an_empty_sequence_normalize_nothing)
{
    static const char *const none[] = {"null", "{'type': 'Sequence', 'normalizers': []}"};
    for (size_t i = 0; i < 2; i++) {
        write_changed("{'type': 'NFC'}", none[i]);
        struct tokenizer *tokenizer = open_good();
        cr_assert_not(tokenizer_facts(tokenizer).nfc);
        tokenizer_close(tokenizer);
    }
}

struct change {
    const char *from, *to, *wish;
};

static void check_changes(const struct change *changes, size_t n_changes)
{
    for (size_t i = 0; i < n_changes; i++) {
        write_changed(changes[i].from, changes[i].to);
        check_refused(ERROR_FORMAT, changes[i].wish);
    }
}
#define CHECK_CHANGES(changes) check_changes(changes, sizeof(changes) / sizeof *(changes))

Test(tokenizer_file, other_models_are_refused_by_name)
{
    static const struct change changes[] = {
        {"'type': 'BPE'", "'type': 'Unigram'", "model: type is 'Unigram'; only byte-level 'BPE'"},
        {"'type': 'BPE'", "'type': 'WordPiece'", "model: type is 'WordPiece'"},
        {"'type': 'BPE'", "'type': 3", "model: type is ''"},
        {"'model'", "'Model'", "model: is missing"},
        {"'dropout': null", "'dropout': 0.1", "model: dropout is set"},
        {"'byte_fallback': false", "'byte_fallback': true", "model: byte_fallback is true"},
        {"'byte_fallback': false", "'byte_fallback': 1", "byte_fallback is an integer, not true"},
        {"prefix': ''", "prefix': '##'", "model: continuing_subword_prefix is set"},
        {"'end_of_word_suffix': null", "'end_of_word_suffix': '</w>'", "end_of_word_suffix is set"},
        {"'vocab': {", "'v': {", "model.vocab is missing"},
        {"'merges': [", "'m': [", "model.merges is missing"},
        {"'merges': [", "'ignore_merges': 'yes', 'merges': [", "ignore_merges is a string"},
    };
    CHECK_CHANGES(changes);
}

Test(tokenizer_file, ids_that_make_no_sense_are_refused)
{
    static const struct change changes[] = {
        {"'a': 0", "'a': -1", "model.vocab: the id of 'a' is not an integer from 0 to 4194304"},
        {"'a': 0", "'a': 16777217", "the id of 'a'"},
        {"'a': 0", "'a': 9223372036854775807", "the id of 'a'"},
        {"'a': 0", "'a': 0.5", "the id of 'a'"},
        {"'a': 0", "'a': '0'", "the id of 'a'"},
        {"'a': 0", "'a': 1", "id 1 is given to 'a' and to 'b'"},
        {"'a': 0", "'b': 0", "duplicate object key"},
        {"'id': 9", "'id': -9", "added token: the id of '<x>'"},
        {"'id': 9", "'idx': 9", "added token: the id of '<x>'"},
        {"'id': 9", "'id': 5", "id 5 is given to 'abc' and to '<x>'"},
        {"'content': '<x>'", "'content': 'a'", "'a' has id 0, and id 9 as well"},
    };
    CHECK_CHANGES(changes);
}

Test(tokenizer_file, merges_that_make_no_sense_are_refused)
{
    static const struct change changes[] = {
        {"'a b'", "'a  b'", "model.merges[0] is not \"a b\" or"},
        {"'a b'", "'ab'", "model.merges[0] is not"},
        {"'a b'", "['a']", "model.merges[0] is not"},
        {"'a b'", "['a', 1]", "model.merges[0] is not"},
        {"'a b'", "7", "model.merges[0] is not"},
        {"'a b'", "'z b'", "model.merges[0]: 'z' + 'b': the vocabulary lacks the left part"},
        {"'a b'", "'a z'", "model.merges[0]: 'a' + 'z': the vocabulary lacks the right part"},
        {"'Ġ a'", "'c a'", "model.merges[2]: 'c' + 'a': the vocabulary lacks the result"},
    };
    CHECK_CHANGES(changes);
}

Test(tokenizer_file, other_normalizers_and_decoders_are_refused_by_name)
{
    static const struct change changes[] = {
        {"'NFC'", "'NFKC'", "normalizer is 'NFKC'; only 'NFC'"},
        {"'NFC'", "'Lowercase'", "normalizer is 'Lowercase'"},
        {"{'type': 'NFC'}", "3", "normalizer is ''"},
        {"{'type': 'NFC'}",
         "{'type': 'Sequence', 'normalizers': [{'type': 'NFC'}, {'type': 'Strip'}]}",
         "normalizer.normalizers[1] is 'Strip'"},
        {"'decoder': {'type': 'ByteLevel'", "'decoder': {'type': 'Metaspace'",
         "decoder is 'Metaspace'"},
    };
    CHECK_CHANGES(changes);
}

Test(tokenizer_file, other_pre_tokenizers_are_refused_by_name)
{
    static const struct change changes[] = {
        {"'Split'", "'Digits'", "pre_tokenizer.pretokenizers[0]: 'Digits' is not 'Split' or"},
        {"'type': 'Sequence'", "'type': 'Whitespace'", "pre_tokenizer: 'Whitespace' is not"},
        {"'pre_tokenizer'", "'pre'", "pre_tokenizer is missing, not 'ByteLevel'"},
        {"'pretokenizers'", "'list'", "pre_tokenizer.pretokenizers is empty"},
        {"'Regex'", "'String'", "Split: pattern.Regex is missing"},
        {"'Isolated'", "'Removed'", "Split: behavior is 'Removed'; only 'Isolated'"},
        {"'invert': false", "'invert': true", "Split: invert is true"},
        {"'add_prefix_space': false", "'add_prefix_space': true",
         "ByteLevel: add_prefix_space is true"},
        {"'use_regex': false}", "'use_regex': false}, {'type': 'ByteLevel'}",
         "must come last, once"},
        {", {'type': 'ByteLevel', 'add_prefix_space': false, 'use_regex': false}", "",
         "pretokenizers[0]: 'ByteLevel' must come last, once"},
        {" ?[a-z]+", "(a", "Split: the regex is not valid: "},
        {" ?[a-z]+", "^a", "Split: the regex has an anchor at byte 0"},
    };
    CHECK_CHANGES(changes);
}

Test(tokenizer_file, added_tokens_of_other_kinds_are_refused)
{
    static const struct change changes[] = {
        {"'normalized': false", "'normalized': true", "added_tokens[0]: <x>: normalized is true"},
        {"'normalized': false", "'lstrip': true", "added_tokens[0]: <x>: lstrip is true"},
        {"'normalized': false", "'rstrip': true", "added_tokens[0]: <x>: rstrip is true"},
        {"'normalized': false", "'single_word': true", "added_tokens[0]: <x>: single_word is true"},
        {"'special': true", "'special': 1", "special is an integer, not true or false"},
        {"'<x>'", "''", "added_tokens[0]: content is not a string of 1 to 256 bytes"},
        {"'<x>'", "null", "added_tokens[0]: content is not a string"},
        {"{'id': 9", "4, {'id': 9", "added_tokens[0]: content is not a string"},
    };
    CHECK_CHANGES(changes);
}

Test(tokenizer_file, damaged_json_is_refused_with_its_place)
{
    write_file("tokenizer.json", "{\n \"model\": {,}}");
    check_refused(ERROR_FORMAT, "/tokenizer.json:2: is not a JSON object: ");
    write_file("tokenizer.json", "");
    check_refused(ERROR_FORMAT, "/tokenizer.json:1: is");
    write_file("tokenizer.json", "[1, 2]");
    check_refused(ERROR_FORMAT, "/tokenizer.json: is not a JSON object");
    write_file("tokenizer.json", "{\"model\": \"\xFF\"}");
    check_refused(ERROR_FORMAT, "/tokenizer.json:1: is");
    write_changed("", "");
    write_file("tokenizer_config.json", "{\"a\": 1");
    check_refused(ERROR_FORMAT, "/tokenizer_config.json:1: is");
    write_file("tokenizer_config.json", "[]");
    check_refused(ERROR_FORMAT, "/tokenizer_config.json: is not a JSON object");
}

Test(tokenizer_file, a_folder_without_tokenizer_is_no_input)
{
    check_refused(ERROR_NO_INPUT,
                  "has no tokenizer: neither tokenizer.json nor vocab.json + merges.txt");
    write_file("vocab.json", "{}");
    check_refused(ERROR_NO_INPUT, "has no tokenizer");
}

Test(tokenizer_file, a_folder_in_place_of_a_file_is_an_error)
{
    cr_assert_eq(mkdir(path_of("tokenizer.json"), 0700), 0);
    check_refused(ERROR_IO, "tokenizer.json"); /* no ERROR_NO_INPUT: a run would do without */
    rmdir(path_of("tokenizer.json"));
}

/* ---- tokenizer_config.json ---- */

Test(tokenizer_file, the_configuration_adds_tokens_and_facts)
{
    write_changed("", "");
    write_file("tokenizer_config.json",
               "{\"model_max_length\": 1000000000000000019884624838656,"
               " \"bos_token\": {\"content\": \"<x>\", \"lstrip\": false},"
               " \"chat_template\": [{\"name\": \"rag\", \"template\": \"R\"},"
               "  {\"name\": \"default\", \"template\": \"D\"}],"
               " \"added_tokens_decoder\": {\"9\": {\"content\": \"<x>\", \"special\": true},"
               "  \"12\": {\"content\": \"<y>\", \"special\": false}}}");
    struct tokenizer *tokenizer = open_good();
    check_ids(tokenizer, "<x><y>a", (int32_t[]){9, 12, 0}, 3);
    struct tokenizer_facts facts = tokenizer_facts(tokenizer);
    cr_assert_str_eq(facts.bos_token, "<x>");
    cr_assert_str_eq(facts.chat_template, "D");
    cr_assert_eq(facts.n_added, 2);
    cr_assert_eq(tokenizer_n_ids(tokenizer), 13);
    tokenizer_close(tokenizer);

    write_file("chat_template.jinja", "J\n");
    write_file("tokenizer_config.json", "{\"bos_token\": \"<x>\", \"chat_template\": \"D\"}");
    tokenizer = open_good();
    cr_assert_str_eq(tokenizer_facts(tokenizer).chat_template, "J\n");
    cr_assert_str_eq(tokenizer_facts(tokenizer).bos_token, "<x>");
    tokenizer_close(tokenizer);
}

Test(tokenizer_file, a_configuration_that_contradicts_is_refused)
{
    static const struct {
        const char *config, *wish;
    } cases[] = {
        {"{'8': {'content': '<x>'}}", "'<x>' has id 9, and id 8 as well"},
        {"{'5': {'content': '<y>'}}", "id 5 is given to 'abc' and to '<y>'"},
        {"{'ten': {'content': '<y>'}}", "added token: the id of '<y>' is not an integer"},
        {"{'99999999999999999999': {'content': '<y>'}}", "the id of '<y>' is not an integer"},
        {"{'10': {'content': '<y>', 'rstrip': true}}",
         "tokenizer_config.json: added_tokens_decoder.10: <y>: rstrip is true"},
        {"{'10': 5}", "added_tokens_decoder.10: content is not a string"},
    };
    write_changed("", "");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        snprintf(text, sizeof text, "{'added_tokens_decoder': %s}", cases[i].config);
        for (char *c = text; *c != 0; c++)
            if (*c == '\'') *c = '"';
        write_file("tokenizer_config.json", text);
        check_refused(ERROR_FORMAT, cases[i].wish);
    }
}

/* ---- vocab.json and merges.txt ---- */

/* data/tokenizer/qwen2 as the slow tokenizer would store it. */
static void write_slow(const char *tokenizer_class)
{
    json_t *root = json_load_file(DATA_DIR "/tokenizer/qwen2/tokenizer.json", 0, NULL);
    cr_assert_not_null(root);
    json_t *model = json_object_get(root, "model");
    cr_assert_eq(json_dump_file(json_object_get(model, "vocab"), path_of("vocab.json"), 0), 0);

    FILE *merges = fopen(path_of("merges.txt"), "w");
    fputs("#version: 0.2\n", merges);
    size_t i;
    json_t *pair, *token;
    json_array_foreach(json_object_get(model, "merges"), i, pair)
    {
        fprintf(merges, "%s %s%s\n", json_string_value(json_array_get(pair, 0)),
                json_string_value(json_array_get(pair, 1)),
                i == 3   ? "\r"
                : i == 5 ? "\n"
                         : "");
    }
    cr_assert_eq(fclose(merges), 0);

    json_t *decoder = json_object();
    json_array_foreach(json_object_get(root, "added_tokens"), i, token)
    {
        char id[16];
        snprintf(id, sizeof id, "%d", (int)json_integer_value(json_object_get(token, "id")));
        json_object_set(decoder, id, token);
    }
    json_t *config = json_pack("{s:s, s:o, s:s}", "tokenizer_class", tokenizer_class,
                               "added_tokens_decoder", decoder, "bos_token", "<|endoftext|>");
    cr_assert_eq(json_dump_file(config, path_of("tokenizer_config.json"), 0), 0);
    json_decref(config);
    json_decref(root);
}

Test(tokenizer_file, vocab_and_merges_make_the_same_ids_as_tokenizer_json)
{
    write_slow("DreamTokenizer");
    struct tokenizer *slow = open_good(), *fast = NULL;
    struct error err = {0};
    cr_assert(tokenizer_open(&fast, DATA_DIR "/tokenizer/qwen2", &err), "%s", err.message);
    cr_assert_str_eq(tokenizer_facts(slow).source, "vocab.json + merges.txt");
    cr_assert_str_eq(tokenizer_facts(slow).split_regex, tokenizer_facts(fast).split_regex);
    cr_assert(tokenizer_facts(slow).nfc);
    cr_assert_eq(tokenizer_facts(slow).n_merges, tokenizer_facts(fast).n_merges);
    cr_assert_eq(tokenizer_facts(slow).n_added, tokenizer_facts(fast).n_added);
    cr_assert_eq(tokenizer_n_ids(slow), tokenizer_n_ids(fast));

    json_t *rows = json_load_file(DATA_DIR "/tokenizer/qwen2/vectors.json", JSON_ALLOW_NUL, NULL);
    struct arena arena;
    cr_assert(arena_create(&arena, 1 << 24, &err));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *text = json_object_get(row, "text");
        if (!json_is_string(text)) continue;
        struct token_ids tokens;
        struct bytes bytes = {json_string_value(text), json_string_length(text)};
        cr_assert(tokenizer_encode(slow, bytes, true, &arena, &tokens, &err));
        const json_t *expected = json_object_get(row, "ids");
        cr_assert_eq((size_t)tokens.n, json_array_size(expected));
        for (int32_t k = 0; k < tokens.n; k++)
            cr_assert_eq(tokens.ids[k], json_integer_value(json_array_get(expected, (size_t)k)));
    }
    arena_destroy(&arena);
    json_decref(rows);
    tokenizer_close(slow);
    tokenizer_close(fast);
}

Test(tokenizer_file, slow_tokenizers_that_split_in_unknown_ways_are_refused)
{
    write_slow("GPT2Tokenizer");
    check_refused(ERROR_FORMAT, "tokenizer_class is 'GPT2Tokenizer', which needs a tokenizer.json");
}

Test(tokenizer_file, damaged_merges_are_refused_with_their_place)
{
    write_file("vocab.json", "{\"a\": 0, \"b\": 1, \"ab\": 2}");
    write_file("merges.txt", "#version: 0.2\na b\nb\xFF a\n");
    check_refused(ERROR_FORMAT, "/merges.txt: line 3 is not valid UTF-8");
    write_file("merges.txt", "#version: 0.2\na b\na b c\n");
    check_refused(ERROR_FORMAT, "vocab.json + merges.txt: model.merges[1] is not \"a b\"");
    write_file("merges.txt", "a b");
    struct tokenizer *tokenizer = open_good();
    check_ids(tokenizer, "abb", (int32_t[]){2, 1}, 2);
    tokenizer_close(tokenizer);
    write_file("vocab.json", "[]");
    check_refused(ERROR_FORMAT, "vocab.json: is not a JSON object");
}
