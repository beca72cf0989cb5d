/* Arbitrary bytes as a tokenizer.json and a text, parted by a NUL: most files are refused, and the
 * others must keep the promises of tokenizer.h for any text. Without a NUL the bytes are a text for
 * a small tokenizer that is good. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_private.h"
#include "text/utf8.h"
#include "fuzz.h"

/* Splits at spaces and digits; has three byte pieces and two merges. */
static const char good[] =
    "{\"added_tokens\":[{\"id\":9,\"content\":\"<x>\"},{\"id\":8,\"content\":\"<x>y\"}],"
    "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\" ?\\\\p{L}+|\\\\p{N}|\\\\s+(?!\\\\S)\"},"
    "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\"}]},\"model\":{\"type\":\"BPE\",\"vocab\":"
    "{\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"ab\":3,\"\xC4\xA0"
    "ab\":4},\"merges\":[\"a b\",\"\xC4\xA0 ab\"]}}";

static void check_text(const struct tokenizer *tokenizer, struct bytes text, bool parse_added,
                       struct arena *arena)
{
    struct error err = {0};
    struct token_ids tokens = {NULL, -1};
    if (!tokenizer_encode(tokenizer, text, parse_added, arena, &tokens, &err)) {
        require(err.message[0] != 0);
        require(tokens.ids == NULL);
        return;
    }
    require(tokens.n >= 0);
    require(utf8_valid_prefix(text) == text.n);
    for (int32_t i = 0; i < tokens.n; i++)
        require(tokens.ids[i] >= 0 && tokens.ids[i] < tokenizer_n_ids(tokenizer));

    struct bytes back;
    require(tokenizer_decode(tokenizer, tokens, false, arena, &back, &err));
    require(utf8_valid_prefix(back) == back.n);
    require(back.data[back.n] == 0);
    if (!tokenizer_facts(tokenizer).nfc) {
        require(back.n == text.n);
        require(text.n == 0 || memcmp(back.data, text.data, text.n) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes json = {good, sizeof good - 1}, text = {(const char *)data, size};
    const char *nul = size > 0 ? memchr(data, 0, size) : NULL;
    if (nul != NULL) {
        json = (struct bytes){(const char *)data, (size_t)(nul - (const char *)data)};
        text = (struct bytes){nul + 1, size - json.n - 1};
    }

    enum { ARENA_BYTES = 1 << 30 };
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    struct arena arena;
    struct error err = {0};
    require(tokenizer != NULL);
    require(arena_create(&tokenizer->arena, ARENA_BYTES, &err));
    require(arena_create(&arena, ARENA_BYTES, &err));
    if (tokenizer_file_parse(tokenizer, json, &err)) {
        check_text(tokenizer, text, false, &arena);
        check_text(tokenizer, text, true, &arena);
    } else {
        require(nul != NULL);
        require(err.message[0] != 0);
    }
    arena_destroy(&arena);
    tokenizer_close(tokenizer);
    return 0;
}
