/* tokenizer.json to a tokenizer. Whatever would tokenize differently here than in the Hugging Face
 * library is refused by name. Nothing of jansson stays behind: strings are copied. */
#include "text/tokenizer_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

/* ByteLevel's own regex, that of GPT-2. */
static const char gpt2_regex[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- values ---- */

/* jansson's texts end with a NUL; tokenizer.json, read without JSON_ALLOW_NUL, has none inside. */
static struct bytes bytes_of(const char *text)
{
    assert(text != NULL);
    return (struct bytes){text, strlen(text)};
}

/* What a value is, for messages, in the order of jansson's json_type. */
static const char *name_of(const json_t *value)
{
    static const char *const names[] = {"an object", "a list", "a string", "an integer",
                                        "a number",  "true",   "false",    "null"};
    if (value == NULL) return "missing";
    assert((size_t)json_typeof(value) < sizeof names / sizeof *names);
    return names[json_typeof(value)];
}

/* The "type" of a component; never NULL. */
static const char *type_of(const json_t *component)
{
    const char *type = json_string_value(json_object_get(component, "type"));
    return type == NULL ? "" : type;
}

/* The boolean object[key], `absent` when it is missing or null. */
static bool read_flag(const json_t *object, const char *key, bool absent, bool *flag,
                      struct error *err)
{
    assert(key != NULL);
    const json_t *value = json_object_get(object, key);
    if (value != NULL && !json_is_null(value) && !json_is_boolean(value)) {
        return error_set(err, ERROR_FORMAT, "%s is %s, not true or false", key, name_of(value));
    }
    *flag = json_is_boolean(value) ? json_is_true(value) : absent;
    return true;
}

/* That object[key] is false, null or missing. */
static bool check_off(const json_t *object, const char *key, struct error *err)
{
    bool on;
    if (!read_flag(object, key, false, &on, err)) return false;
    return !on || error_set(err, ERROR_FORMAT, "%s is true, which is not supported", key);
}

/* ---- normalizer and pre-tokenizer ---- */

/* NFC, alone or in a sequence; null is none. NFC twice is NFC. */
static bool read_normalizer(struct tokenizer *tokenizer, const json_t *normalizer,
                            struct error *err)
{
    assert(!tokenizer->facts.nfc);
    if (normalizer == NULL || json_is_null(normalizer)) return true;
    if (strcmp(type_of(normalizer), "NFC") == 0) {
        tokenizer->facts.nfc = true;
        return true;
    }
    const json_t *list = json_object_get(normalizer, "normalizers");
    if (strcmp(type_of(normalizer), "Sequence") == 0 && json_is_array(list)) {
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *item = json_array_get(list, i);
            if (strcmp(type_of(item), "NFC") != 0) {
                return error_set(err, ERROR_FORMAT,
                                 "normalizer.normalizers[%zu] is '%.60s'; only 'NFC' is supported",
                                 i, type_of(item));
            }
            tokenizer->facts.nfc = true;
        }
        return true;
    }
    return error_set(err, ERROR_FORMAT, "normalizer is '%.60s'; only 'NFC' is supported",
                     type_of(normalizer));
}

/* Appends a regex: a copy, because the tokenizer outlives the JSON. */
static bool add_split(struct tokenizer *tokenizer, const char *regex, struct error *err)
{
    assert(regex != NULL);
    assert(tokenizer->n_splits <= SPLITS_MAX);
    if (tokenizer->n_splits == SPLITS_MAX) {
        return error_set(err, ERROR_FORMAT, "there are more than %d splits", SPLITS_MAX);
    }
    const char *kept = arena_try_copy(&tokenizer->arena, regex, strlen(regex));
    if (kept == NULL) return error_set(err, ERROR_FORMAT, "the regex does not fit in memory");
    if (!split_compile(&tokenizer->splits[tokenizer->n_splits], kept, err)) return false;
    tokenizer->n_splits++;
    return true;
}

/* "Isolated" keeps matches and what is between them as stretches of their own; the others drop or
 * join some. A pattern that is no regex is a text to be searched for, which nothing in use has. */
static bool read_split(struct tokenizer *tokenizer, const json_t *split, struct error *err)
{
    assert(strcmp(type_of(split), "Split") == 0);
    const json_t *pattern = json_object_get(split, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    if (regex == NULL) return error_set(err, ERROR_FORMAT, "pattern.Regex is missing");
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    if (behavior == NULL || strcmp(behavior, "Isolated") != 0) {
        return error_set(err, ERROR_FORMAT, "behavior is '%.60s'; only 'Isolated' is supported",
                         behavior == NULL ? "" : behavior);
    }
    return check_off(split, "invert", err) && add_split(tokenizer, regex, err);
}

/* The byte alphabet itself is bpe.c's; here it is only whether the text is split first. The key
 * trim_offsets is about offsets, which nobody asks for. */
static bool read_byte_level(struct tokenizer *tokenizer, const json_t *byte_level,
                            struct error *err)
{
    bool use_regex = true;
    return check_off(byte_level, "add_prefix_space", err) &&
           read_flag(byte_level, "use_regex", true, &use_regex, err) &&
           (!use_regex || add_split(tokenizer, gpt2_regex, err));
}

/* One component; after ByteLevel nothing may come, for it would see the byte alphabet. */
static bool read_pre_tokenizer(struct tokenizer *tokenizer, const json_t *item, bool is_last,
                               struct error *err)
{
    const char *type = type_of(item);
    bool is_split = strcmp(type, "Split") == 0;
    if (!is_split && strcmp(type, "ByteLevel") != 0) {
        return error_set(err, ERROR_FORMAT, "'%.60s' is not 'Split' or 'ByteLevel'", type);
    }
    if (is_split == is_last)
        return error_set(err, ERROR_FORMAT, "'ByteLevel' must come last, once");
    bool ok = is_split ? read_split(tokenizer, item, err) : read_byte_level(tokenizer, item, err);
    return ok || error_wrap(err, "%s", type);
}

/* A sequence of splits that ends with ByteLevel, or ByteLevel alone. */
static bool read_pre_tokenizers(struct tokenizer *tokenizer, const json_t *root, struct error *err)
{
    assert(tokenizer->n_splits == 0);
    const json_t *whole = json_object_get(root, "pre_tokenizer");
    const json_t *list = json_object_get(whole, "pretokenizers");
    if (strcmp(type_of(whole), "Sequence") != 0) {
        if (!json_is_object(whole)) {
            return error_set(err, ERROR_FORMAT, "pre_tokenizer is %s, not 'ByteLevel'",
                             name_of(whole));
        }
        return read_pre_tokenizer(tokenizer, whole, true, err) || error_wrap(err, "pre_tokenizer");
    }
    if (json_array_size(list) == 0) {
        return error_set(err, ERROR_FORMAT, "pre_tokenizer.pretokenizers is empty");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        bool is_last = i + 1 == json_array_size(list);
        if (!read_pre_tokenizer(tokenizer, json_array_get(list, i), is_last, err)) {
            return error_wrap(err, "pre_tokenizer.pretokenizers[%zu]", i);
        }
    }
    return true;
}

/* ---- model ---- */

/* What would make other ids than merging by rank does. */
static bool check_model(const json_t *model, struct error *err)
{
    if (!json_is_object(model)) return error_set(err, ERROR_FORMAT, "is %s", name_of(model));
    const json_t *type = json_object_get(model, "type");
    if (type != NULL && strcmp(type_of(model), "BPE") != 0) {
        return error_set(err, ERROR_FORMAT, "type is '%.60s'; only byte-level 'BPE' is supported",
                         type_of(model));
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout != NULL && !json_is_null(dropout) && json_number_value(dropout) != 0) {
        return error_set(err, ERROR_FORMAT, "dropout is set, which would make ids random");
    }
    /* unk_token never comes up: a byte without a piece is an error (bpe_encode). */
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < sizeof affixes / sizeof *affixes; i++) {
        const json_t *affix = json_object_get(model, affixes[i]);
        bool is_empty = json_is_string(affix) && json_string_length(affix) == 0;
        if (affix != NULL && !json_is_null(affix) && !is_empty) {
            return error_set(err, ERROR_FORMAT, "%s is set, which is not supported", affixes[i]);
        }
    }
    return check_off(model, "byte_fallback", err);
}

/* False: not an integer, or out of range. */
static bool read_id(const json_t *value, int32_t *id)
{
    assert(id != NULL);
    json_int_t integer = json_integer_value(value);
    if (!json_is_integer(value) || integer < 0 || integer > VOCABULARY_ID_MAX) return false;
    *id = (int32_t)integer;
    return true;
}

/* Always false. */
static bool bad_id(const char *content, struct error *err)
{
    assert(content != NULL);
    return error_set(err, ERROR_FORMAT, "the id of '%.60s' is not an integer from 0 to %d", content,
                     VOCABULARY_ID_MAX);
}

/* Adds a piece to the size; one that comes twice counts twice, which only reserves too much. */
static void widen(struct vocabulary_size *size, size_t n_bytes, int32_t id)
{
    assert(id >= 0);
    assert(id <= VOCABULARY_ID_MAX);
    size->n_pieces++;
    size->text_bytes += n_bytes + 1;
    if (size->n_ids <= id) size->n_ids = id + 1;
}

/* Checks every id on the way, so that read_vocabulary need not. */
static bool measure_vocabulary(json_t *vocab, struct vocabulary_size *size, struct error *err)
{
    assert(json_is_object(vocab));
    const char *content;
    json_t *value;
    json_object_foreach(vocab, content, value)
    {
        int32_t id;
        if (!read_id(value, &id)) return bad_id(content, err);
        widen(size, strlen(content), id);
    }
    return true;
}

/* The base pieces, in the file's order, which does not matter: each has its id. */
static bool read_vocabulary(struct tokenizer *tokenizer, json_t *vocab, struct error *err)
{
    assert(json_is_object(vocab)); /* whose ids were read before */
    const char *content;
    json_t *value;
    json_object_foreach(vocab, content, value)
    {
        int32_t id = (int32_t)json_integer_value(value);
        if (!vocabulary_add(&tokenizer->vocabulary, bytes_of(content), id, PIECE_BASE, err)) {
            return false;
        }
    }
    tokenizer->facts.n_vocab = (int32_t)json_object_size(vocab);
    return true;
}

/* A merge as ["a", "b"] or as "a b"; pieces have no blanks, for the byte alphabet has none. Both
 * sides are borrowed from the JSON. */
static bool read_merge(const json_t *merge, struct bytes *left, struct bytes *right)
{
    assert(left != NULL);
    assert(right != NULL);
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        const char *first = json_string_value(json_array_get(merge, 0));
        const char *second = json_string_value(json_array_get(merge, 1));
        if (first == NULL || second == NULL) return false;
        *left = bytes_of(first);
        *right = bytes_of(second);
        return true;
    }
    const char *both = json_string_value(merge);
    const char *blank = both == NULL ? NULL : strchr(both, ' ');
    if (blank == NULL || strchr(blank + 1, ' ') != NULL) return false;
    *left = (struct bytes){both, (size_t)(blank - both)};
    *right = bytes_of(blank + 1);
    return true;
}

/* The place in the list is the rank. */
static bool read_merges(struct tokenizer *tokenizer, const json_t *merges, struct error *err)
{
    assert(json_is_array(merges));
    assert(tokenizer->bpe.vocabulary == &tokenizer->vocabulary);
    for (size_t i = 0; i < json_array_size(merges); i++) {
        struct bytes left, right;
        if (!read_merge(json_array_get(merges, i), &left, &right)) {
            return error_set(err, ERROR_FORMAT,
                             "model.merges[%zu] is not \"a b\" or [\"a\", \"b\"]", i);
        }
        if (!bpe_add_merge(&tokenizer->bpe, left, right, err)) {
            return error_wrap(err, "model.merges[%zu]", i);
        }
    }
    assert((size_t)tokenizer->bpe.n_merges == json_array_size(merges));
    tokenizer->facts.n_merges = tokenizer->bpe.n_merges;
    return true;
}

/* ---- added tokens ---- */

/* The one kind in use: cut out of the raw text wherever its bytes stand, and nothing around it. */
static bool check_added(const json_t *token, struct error *err)
{
    const json_t *content = json_object_get(token, "content");
    size_t n_bytes = json_string_length(content);
    if (!json_is_string(content) || n_bytes == 0 || n_bytes > ADDED_BYTES_MAX) {
        return error_set(err, ERROR_FORMAT, "content is not a string of 1 to %d bytes",
                         ADDED_BYTES_MAX);
    }
    static const char *const flags[] = {"single_word", "lstrip", "rstrip", "normalized"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (!check_off(token, flags[i], err))
            return error_wrap(err, "%s", json_string_value(content));
    }
    return true;
}

/* Appends a copy of `token` with this id to the list. False: no memory. */
static bool append_with_id(json_t *list, json_t *token, long id)
{
    assert(json_is_array(list));
    json_t *copy = json_copy(token);
    bool ok = json_object_set_new(copy, "id", json_integer(id)) == 0;
    return json_array_append_new(list, copy) == 0 && ok;
}

/* All added tokens as one list of objects with "id" and "content": those of tokenizer.json, and
 * those of tokenizer_config.json, whose keys are the ids. A key that is no number becomes id -1,
 * which measure_added refuses. One that both files have comes twice, which adds up to one. */
static bool list_added(json_t *root, json_t *config, json_t *list, struct error *err)
{
    assert(json_is_object(root));
    bool fits = list != NULL;
    json_t *own = json_object_get(root, "added_tokens");
    for (size_t i = 0; i < json_array_size(own); i++) {
        json_t *token = json_array_get(own, i);
        if (!check_added(token, err)) return error_wrap(err, "added_tokens[%zu]", i);
        fits = fits && json_array_append(list, token) == 0;
    }
    const char *key;
    json_t *token;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, token)
    {
        if (!check_added(token, err)) {
            return error_wrap(err, "tokenizer_config.json: added_tokens_decoder.%.20s", key);
        }
        char *end;
        long id = strtol(key, &end, 10);
        fits = fits && append_with_id(list, token, *end == 0 && end != key ? id : -1);
    }
    return fits || error_set(err, ERROR_UNAVAILABLE, "no memory for a list of added tokens");
}

/* The same as measure_vocabulary for the list of added tokens. */
static bool measure_added(const json_t *list, struct vocabulary_size *size, struct error *err)
{
    assert(json_is_array(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *token = json_array_get(list, i);
        const json_t *content = json_object_get(token, "content");
        int32_t id;
        if (!read_id(json_object_get(token, "id"), &id)) {
            bad_id(json_string_value(content), err);
            return error_wrap(err, "added token");
        }
        widen(size, json_string_length(content), id);
    }
    return true;
}

/* Byte order, a prefix before what it starts: find_added narrows a range by it. */
static int compare_added(const void *left, const void *right)
{
    const struct bytes *a = &((const struct added_token *)left)->content;
    const struct bytes *b = &((const struct added_token *)right)->content;
    int order = memcmp(a->data, b->data, a->n < b->n ? a->n : b->n);
    return order != 0 ? order : (a->n > b->n) - (a->n < b->n);
}

/* Adds them to the vocabulary, then lists them from there, where each is once. */
static bool read_added(struct tokenizer *tokenizer, const json_t *list, struct error *err)
{
    assert(json_is_array(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *token = json_array_get(list, i);
        const char *content = json_string_value(json_object_get(token, "content"));
        int32_t id = (int32_t)json_integer_value(json_object_get(token, "id"));
        bool special = false;
        if (!read_flag(token, "special", false, &special, err) ||
            !vocabulary_add(&tokenizer->vocabulary, bytes_of(content), id,
                            special ? PIECE_ADDED | PIECE_SPECIAL : PIECE_ADDED, err)) {
            return error_wrap(err, "added token");
        }
    }
    tokenizer->added =
        arena_try_push(&tokenizer->arena, json_array_size(list), sizeof *tokenizer->added);
    if (tokenizer->added == NULL) {
        return error_set(err, ERROR_FORMAT, "the added tokens do not fit in memory");
    }
    int32_t n = 0;
    for (int32_t id = 0; id < tokenizer->vocabulary.n_ids; id++) {
        struct piece piece = vocabulary_piece(&tokenizer->vocabulary, id);
        if (!(piece.flags & PIECE_ADDED)) continue;
        struct bytes content = {piece.content, piece.n_bytes};
        assert(content.n > 0);
        assert((size_t)n < json_array_size(list));
        tokenizer->added[n++] = (struct added_token){content, id};
        tokenizer->starts_added[(uint8_t)content.data[0]] = true;
    }
    if (n > 1) qsort(tokenizer->added, (size_t)n, sizeof *tokenizer->added, compare_added);
    tokenizer->n_added = tokenizer->facts.n_added = n;
    return true;
}

/* ---- the whole ---- */

/* Measures first, over both kinds of pieces, because the vocabulary does not grow. */
static bool read_model(struct tokenizer *tokenizer, json_t *model, const json_t *added,
                       struct error *err)
{
    assert(tokenizer->vocabulary.n_ids == 0);
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges");
    if (!check_model(model, err)) return error_wrap(err, "model");
    if (!json_is_object(vocab) || !json_is_array(merges)) {
        return error_set(err, ERROR_FORMAT,
                         "model.vocab is %s and model.merges is %s, not an object and a list",
                         name_of(vocab), name_of(merges));
    }
    struct vocabulary_size size = {0};
    if (!measure_vocabulary(vocab, &size, err)) return error_wrap(err, "model.vocab");
    return measure_added(added, &size, err) &&
           vocabulary_init(&tokenizer->vocabulary, size, &tokenizer->arena, err) &&
           (read_vocabulary(tokenizer, vocab, err) || error_wrap(err, "model.vocab")) &&
           read_added(tokenizer, added, err) &&
           bpe_init(&tokenizer->bpe, &tokenizer->vocabulary, json_array_size(merges),
                    &tokenizer->arena, err) &&
           read_merges(tokenizer, merges, err) &&
           read_flag(model, "ignore_merges", false, &tokenizer->bpe.ignore_merges, err);
}

/* The others join pieces in their own ways; without one, pieces are joined as ByteLevel does. */
static bool check_decoder(const json_t *decoder, struct error *err)
{
    if (decoder == NULL || json_is_null(decoder)) return true;
    if (strcmp(type_of(decoder), "ByteLevel") == 0) return true;
    return error_set(err, ERROR_FORMAT, "decoder is '%.60s'; only 'ByteLevel' is supported",
                     type_of(decoder));
}

bool tokenizer_json_read(struct tokenizer *tokenizer, json_t *root, json_t *config,
                         struct error *err)
{
    assert(tokenizer->n_splits == 0);
    assert(tokenizer->arena.base != NULL);
    if (!json_is_object(root)) {
        return error_set(err, ERROR_FORMAT, "it holds %s, not an object", name_of(root));
    }
    json_t *added = json_array();
    bool ok = list_added(root, config, added, err) &&
              read_model(tokenizer, json_object_get(root, "model"), added, err) &&
              read_normalizer(tokenizer, json_object_get(root, "normalizer"), err) &&
              read_pre_tokenizers(tokenizer, root, err) &&
              check_decoder(json_object_get(root, "decoder"), err);
    json_decref(added);
    tokenizer->facts.split_regex = tokenizer->n_splits > 0 ? tokenizer->splits[0].regex : "";
    return ok;
}
