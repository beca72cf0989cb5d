/* text/tokenizer: ids equal to Hugging Face's on data/tokenizer (its README says what is in there),
 * decoding that gives the text back, and promises that hold for any text, tried on random ones. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/tokenizer.h"

#define ARENA_BYTES ((size_t)1 << 30)

static const char *const folders[] = {"qwen2", "bailing", "gpt2"};
enum { FOLDERS = sizeof folders / sizeof *folders };

/* A tokenizer of data/tokenizer and memory to work in; every test has a process of its own. */
static struct tokenizer *tokenizer;
static struct arena arena;

static void open_folder(const char *name)
{
    struct error err = {0};
    char dir[4096];
    snprintf(dir, sizeof dir, DATA_DIR "/tokenizer/%s", name);
    if (arena.base == NULL) cr_assert(arena_create(&arena, ARENA_BYTES, &err), "%s", err.message);
    cr_assert(tokenizer_open(&tokenizer, dir, &err), "%s", err.message);
}

static void close_all(void)
{
    tokenizer_close(tokenizer);
    arena_destroy(&arena);
}

static struct bytes bytes_of(const char *text)
{
    return (struct bytes){text, strlen(text)};
}

static int32_t encode(struct bytes text, bool parse_added, const int32_t **ids)
{
    struct error err = {0};
    struct token_ids tokens = {NULL, -1};
    bool ok = tokenizer_encode(tokenizer, text, parse_added, &arena, &tokens, &err);
    cr_assert(ok, "%s", err.message);
    *ids = tokens.ids;
    return tokens.n;
}

static struct bytes decode(const int32_t *ids, int32_t n_ids, bool skip_special)
{
    struct error err = {0};
    struct bytes text = {0};
    struct token_ids tokens = {ids, n_ids};
    bool ok = tokenizer_decode(tokenizer, tokens, skip_special, &arena, &text, &err);
    cr_assert(ok, "%s", err.message);
    cr_assert_eq(text.data[text.n], 0);
    return text;
}

/* What decoding should give back: by utf8proc's own NFC where the tokenizer asks for it. */
static struct bytes expected_text(struct bytes text)
{
    if (!tokenizer_facts(tokenizer).nfc || text.n == 0) return text;
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text.data, (utf8proc_ssize_t)text.n,
                                      &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    cr_assert_gt(n, 0);
    char *copy = arena_try_copy(&arena, (const char *)composed, (size_t)n);
    free(composed);
    return (struct bytes){copy, (size_t)n};
}

static bool same_bytes(struct bytes left, struct bytes right)
{
    return left.n == right.n && (left.n == 0 || memcmp(left.data, right.data, left.n) == 0);
}

/* ---- vectors ---- */

/* A vector's text: a string, or a unit and how often it stands there. */
static struct bytes text_of(const json_t *spelled)
{
    const json_t *unit = json_is_array(spelled) ? json_array_get(spelled, 0) : spelled;
    json_int_t count = json_is_array(spelled) ? json_integer_value(json_array_get(spelled, 1)) : 1;
    size_t n_unit = json_string_length(unit);
    char *text = arena_push(&arena, n_unit * (size_t)count + 1, 1);
    for (json_int_t i = 0; i < count; i++)
        memcpy(text + n_unit * (size_t)i, json_string_value(unit), n_unit);
    return (struct bytes){text, n_unit * (size_t)count};
}

static void check_ids(const char *folder, size_t row, struct bytes text, bool parse_added,
                      const json_t *expected)
{
    const int32_t *ids = NULL;
    int32_t n_ids = encode(text, parse_added, &ids);
    cr_expect_eq((size_t)n_ids, json_array_size(expected), "%s[%zu]: %d ids, not %zu", folder, row,
                 n_ids, json_array_size(expected));
    for (int32_t i = 0; i < n_ids; i++) {
        json_int_t id = json_integer_value(json_array_get(expected, (size_t)i));
        cr_assert_eq(ids[i], id, "%s[%zu]: id %d is %d, not %lld", folder, row, i, ids[i],
                     (long long)id);
    }
}

static json_t *load_vectors(const char *folder)
{
    char path[4096];
    snprintf(path, sizeof path, DATA_DIR "/tokenizer/%s/vectors.json", folder);
    json_error_t error;
    json_t *rows = json_load_file(path, JSON_ALLOW_NUL, &error);
    cr_assert_not_null(rows, "%s:%d: %s", path, error.line, error.text);
    cr_assert_gt(json_array_size(rows), 100);
    return rows;
}

static void check_folder(const char *folder)
{
    json_t *rows = load_vectors(folder);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const json_t *with = json_object_get(row, "ids");
        const json_t *without = json_object_get(row, "ids_without_added");
        struct bytes text = text_of(json_object_get(row, "text"));
        check_ids(folder, i, text, true, with);
        check_ids(folder, i, text, false, without == NULL ? with : without);
        arena_rewind(&arena, 0);
    }
    json_decref(rows);
}

Test(tokenizer, ids_are_those_of_hugging_face)
{
    for (int i = 0; i < FOLDERS; i++) {
        open_folder(folders[i]);
        check_folder(folders[i]);
        tokenizer_close(tokenizer);
    }
    arena_destroy(&arena);
}

Test(tokenizer, decoding_gives_every_vector_back)
{
    for (int i = 0; i < FOLDERS; i++) {
        open_folder(folders[i]);
        json_t *rows = load_vectors(folders[i]);
        for (size_t row = 0; row < json_array_size(rows); row++) {
            struct bytes text = text_of(json_object_get(json_array_get(rows, row), "text"));
            const int32_t *ids;
            int32_t n_ids = encode(text, false, &ids);
            cr_expect(same_bytes(decode(ids, n_ids, false), expected_text(text)), "%s[%zu]",
                      folders[i], row);
            arena_rewind(&arena, 0);
        }
        json_decref(rows);
        tokenizer_close(tokenizer);
    }
    arena_destroy(&arena);
}

/* ---- random texts ---- */

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
    random_state = random_state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)((random_state >> 33) % below);
}

/* Mostly what a split or a normal form could stumble over, now and then any code point. */
static int32_t draw_code(void)
{
    static const int32_t codes[] = {
        ' ',    ' ',    '\n',   '\r',   '\t',   '\'',   's',     'L',    'a',    'b',    '1',
        '9',    '!',    '<',    '|',    '>',    0x85,   0xA0,    0xE9,   0x301,  0x323,  0x345,
        0x390,  0x5D0,  0x660,  0x958,  0x1100, 0x1161, 0x11A8,  0x200B, 0x200D, 0x2028, 0x3000,
        0x4E2D, 0xAC00, 0xD7FF, 0xE000, 0xFB1D, 0xFFFF, 0x1D160, 0,      0x1F44D};
    if (draw(8) != 0) return codes[draw(sizeof codes / sizeof *codes)];
    int32_t code = (int32_t)draw(0x110000);
    return code >= 0xD800 && code < 0xE000 ? 0x10FFFF : code;
}

static struct bytes draw_text(uint32_t n_chars_max)
{
    static const char *const words[] = {"<|endoftext|>", "<tool>", "<tool_call>", "the ", "return"};
    uint32_t n_chars = draw(n_chars_max);
    char *text = arena_push(&arena, 16 * n_chars + 1, 1);
    size_t n = 0;
    for (uint32_t i = 0; i < n_chars; i++) {
        if (draw(16) == 0) {
            struct bytes word = bytes_of(words[draw(sizeof words / sizeof *words)]);
            memcpy(text + n, word.data, word.n);
            n += word.n;
        } else {
            n += (size_t)utf8proc_encode_char(draw_code(), (utf8proc_uint8_t *)text + n);
        }
    }
    return (struct bytes){text, n};
}

Test(tokenizer, any_valid_text_survives_the_round_trip)
{
    random_state = 20240607;
    cr_log_info("seed %llu", (unsigned long long)random_state);
    for (int i = 0; i < FOLDERS; i++) {
        open_folder(folders[i]);
        for (int trial = 0; trial < 5000; trial++) {
            struct bytes text = draw_text(40);
            const int32_t *ids;
            int32_t n_ids = encode(text, false, &ids);
            cr_assert(same_bytes(decode(ids, n_ids, false), expected_text(text)),
                      "%s: trial %d of "
                      "seed 20240607",
                      folders[i], trial);
            for (int32_t k = 0; k < n_ids; k++) {
                cr_assert_geq(ids[k], 0);
                cr_assert_lt(ids[k], tokenizer_n_ids(tokenizer));
            }
            arena_rewind(&arena, 0);
        }
        tokenizer_close(tokenizer);
    }
    arena_destroy(&arena);
}

Test(tokenizer, an_added_token_cuts_a_text_in_two_that_know_nothing_of_each_other)
{
    random_state = 77;
    open_folder("qwen2");
    int32_t cut = tokenizer_find(tokenizer, "<|im_end|>");
    for (int trial = 0; trial < 2000; trial++) {
        struct bytes left = draw_text(12), right = draw_text(12), middle = bytes_of("<|im_end|>");
        char *joined = arena_push(&arena, left.n + middle.n + right.n + 1, 1);
        memcpy(joined, left.data, left.n);
        memcpy(joined + left.n, middle.data, middle.n);
        memcpy(joined + left.n + middle.n, right.data, right.n);

        const int32_t *left_ids, *right_ids, *ids;
        int32_t n_left = encode(left, true, &left_ids), n_right = encode(right, true, &right_ids);
        int32_t n = encode((struct bytes){joined, left.n + middle.n + right.n}, true, &ids);
        cr_assert_eq(n, n_left + 1 + n_right, "seed 77, trial %d", trial);
        cr_assert_arr_eq(ids, left_ids, (size_t)n_left * sizeof *ids);
        cr_assert_eq(ids[n_left], cut);
        cr_assert_arr_eq(ids + n_left + 1, right_ids, (size_t)n_right * sizeof *ids);
        arena_rewind(&arena, 0);
    }
    close_all();
}

/* ---- long texts ---- */

/* 2 MB each: anything quadratic would take hours. */
Test(tokenizer, long_runs_take_linear_time, .timeout = 120)
{
    static const char *const units[] = {"a", " ", "\n", " \n", "\xCC\xA3\xCC\x81", "<|endoftext|"};
    enum { BYTES = 2000000 };
    for (int i = 0; i < FOLDERS; i++) {
        open_folder(folders[i]);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t n_unit = strlen(units[u]);
            char *text = arena_push(&arena, BYTES + n_unit, 1);
            size_t n = 0;
            for (; n < BYTES; n += n_unit)
                memcpy(text + n, units[u], n_unit);
            const int32_t *ids;
            int32_t n_ids = encode((struct bytes){text, n}, true, &ids);
            struct bytes back = decode(ids, n_ids, false);
            /* Composing only reorders these marks. */
            cr_assert_eq(back.n, n);
            arena_rewind(&arena, 0);
        }
        tokenizer_close(tokenizer);
    }
    arena_destroy(&arena);
}

/* ---- single facts ---- */

Test(tokenizer, the_longest_added_token_wins)
{
    open_folder("qwen2");
    const int32_t *ids;
    cr_assert_eq(encode(bytes_of("<tool><tool_call><tool>x"), true, &ids), 3);
    cr_assert_eq(ids[0], tokenizer_find(tokenizer, "<tool>"));
    cr_assert_eq(ids[1], tokenizer_find(tokenizer, "<tool_call>"));
    cr_assert_eq(ids[2], tokenizer_find(tokenizer, "<tool>x"));
    close_all();
}

Test(tokenizer, added_tokens_are_ordinary_text_unless_asked_for)
{
    open_folder("bailing");
    const int32_t *ids;
    cr_assert_eq(encode(bytes_of("<|eot_id|>"), true, &ids), 1);
    cr_assert_eq(ids[0], tokenizer_find(tokenizer, "<|eot_id|>"));
    int32_t n_ids = encode(bytes_of("<|eot_id|>"), false, &ids);
    cr_assert_gt(n_ids, 1);
    for (int32_t i = 0; i < n_ids; i++)
        cr_assert_lt(ids[i], tokenizer_facts(tokenizer).n_vocab);
    close_all();
}

Test(tokenizer, an_empty_text_has_no_ids_and_no_ids_have_no_text)
{
    open_folder("qwen2");
    const int32_t *ids = NULL;
    cr_assert_eq(encode((struct bytes){0}, true, &ids), 0);
    cr_assert_not_null(ids);
    cr_assert_eq(decode(ids, 0, true).n, 0);
    close_all();
}

Test(tokenizer, invalid_utf8_is_refused_with_its_offset)
{
    open_folder("qwen2");
    static const struct {
        const char *text;
        const char *wish;
    } cases[] = {
        {"ab\xFF", "byte 2"},    {"\xC3", "byte 0"},
        {"a\xC3(", "byte 1"},    {"\xED\xA0\x80", "byte 0"},
        {"x\xC0\x80", "byte 1"}, {"\xF4\x90\x80\x80", "byte 0"},
        {"\xE2\x82", "byte 0"},  {"\xE4\xB8\xAD\x80", "byte 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = {0};
        struct token_ids tokens = {NULL, -1};
        cr_assert_not(
            tokenizer_encode(tokenizer, bytes_of(cases[i].text), true, &arena, &tokens, &err));
        cr_assert_eq(err.code, ERROR_FORMAT);
        cr_assert_not_null(strstr(err.message, cases[i].wish), "%s", err.message);
        cr_assert_null(tokens.ids);
        cr_assert_eq(tokens.n, -1);
    }
    close_all();
}

Test(tokenizer, a_cut_character_decodes_to_one_replacement)
{
    open_folder("bailing");
    const int32_t *ids;
    /* No merge makes these characters, so each id is one byte. */
    int32_t n_ids = encode(bytes_of("\xF0\x90\x8D\x88"), false, &ids);
    cr_assert_eq(n_ids, 4);
    cr_assert_str_eq(decode(ids, 4, false).data, "\xF0\x90\x8D\x88");
    cr_assert_str_eq(decode(ids, 3, false).data, "\xEF\xBF\xBD");
    cr_assert_str_eq(decode(ids + 1, 3, false).data, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    int32_t mixed[] = {tokenizer_find(tokenizer, "a"), ids[0], ids[1],
                       tokenizer_find(tokenizer, "b")};
    cr_assert_str_eq(decode(mixed, 4, false).data, "a\xEF\xBF\xBD"
                                                   "b");
    close_all();
}

Test(tokenizer, decoding_leaves_out_special_tokens_when_asked)
{
    open_folder("qwen2");
    int32_t ids[] = {tokenizer_find(tokenizer, "<|im_start|>"), tokenizer_find(tokenizer, "a"),
                     tokenizer_find(tokenizer, "<tool>"), tokenizer_find(tokenizer, "<|im_end|>")};
    cr_assert_str_eq(decode(ids, 4, false).data, "<|im_start|>a<tool><|im_end|>");
    cr_assert_str_eq(decode(ids, 4, true).data, "a<tool>");
    close_all();
}

Test(tokenizer, ids_that_nobody_has_decode_to_nothing)
{
    open_folder("gpt2");
    int32_t ids[] = {-1, 1, tokenizer_find(tokenizer, "world"), INT32_MAX, INT32_MIN, 2011};
    cr_assert_eq(tokenizer_n_ids(tokenizer), 2011);
    cr_assert_str_eq(decode(ids, 6, true).data, "world");
    close_all();
}

Test(tokenizer, a_whole_piece_goes_before_merges_when_the_file_says_so)
{
    open_folder("gpt2");
    const int32_t *ids;
    cr_assert_eq(encode(bytes_of("world"), true, &ids), 1);
    cr_assert_eq(ids[0], 2000);
    close_all();
}

Test(tokenizer, what_does_not_fit_the_arena_is_an_error)
{
    open_folder("bailing");
    struct arena small;
    struct error err = {0};
    cr_assert(arena_create(&small, 64, &err));
    struct token_ids tokens = {0};
    const char *text = "0123456789012345678901234567890123456789";
    cr_assert_not(tokenizer_encode(tokenizer, bytes_of(text), true, &small, &tokens, &err));
    cr_assert_not_null(strstr(err.message, "40 tokens do not fit"), "%s", err.message);

    tokens.n = encode(bytes_of(text), true, &tokens.ids);
    struct bytes back = {0};
    arena_push(&small, 60, 1);
    cr_assert_not(tokenizer_decode(tokenizer, tokens, true, &small, &back, &err));
    cr_assert_not_null(strstr(err.message, "40 tokens does not fit"), "%s", err.message);
    cr_assert_null(back.data);
    arena_destroy(&small);
    close_all();
}

Test(tokenizer, facts_are_those_of_the_file)
{
    open_folder("qwen2");
    struct tokenizer_facts facts = tokenizer_facts(tokenizer);
    cr_assert_str_eq(facts.source, "tokenizer.json");
    cr_assert_eq(facts.n_vocab, 900);
    cr_assert_eq(facts.n_merges, 900 - 256);
    cr_assert_eq(facts.n_added, 8);
    cr_assert(facts.nfc);
    cr_assert_eq(strncmp(facts.split_regex, "(?i:'s|'t|", 10), 0);
    cr_assert_null(facts.chat_template);
    cr_assert_null(facts.bos_token);
    cr_assert_eq(tokenizer_n_ids(tokenizer), 908);
    cr_assert_eq(tokenizer_find(tokenizer, "no such piece"), -1);
    close_all();
}
