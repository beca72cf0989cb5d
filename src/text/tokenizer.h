/* Bytes to token ids and back: byte-level BPE as in a Hugging Face tokenizer.json (or vocab.json
 * and merges.txt): added tokens cut out first, NFC when the file asks (utf8proc), the file's own
 * split regex (PCRE2, UCP), then merges by rank. Pure after open: a tokenizer may be used from
 * several threads at once. */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct tokenizer; /* opaque: see tokenizer_facts for what a caller may know */

/* Ids that somebody else owns, as struct bytes is for text. */
struct token_ids {
    const int32_t *ids; /* [n] */
    int32_t n;
};

/* Reads tokenizer.json, or vocab.json + merges.txt (then the split regex and NFC of the Qwen2 slow
 * tokenizer), and the added tokens of tokenizer_config.json, from a model folder. Heap; close it.
 * False: ERROR_NO_INPUT when the folder has no tokenizer, ERROR_FORMAT naming file, key and wish
 * when it is not byte-level BPE or is damaged. */
bool tokenizer_open(struct tokenizer **tokenizer, const char *model_dir, struct error *err);
void tokenizer_close(struct tokenizer *tokenizer); /* NULL is fine */

/* Ids of `text`. With `parse_added`, added tokens spelled out in the text become their ids (longest
 * match, left to right); without, they are ordinary text. Invalid UTF-8: ERROR_FORMAT with the byte
 * offset; so is a text or a result that is too long. `tokens` is in `arena` until its next rewind,
 * and stays as it was when the call fails. */
bool tokenizer_encode(const struct tokenizer *tokenizer, struct bytes text, bool parse_added,
                      struct arena *arena, struct token_ids *tokens, struct error *err);

/* Text of `tokens`: always valid UTF-8 (bytes of a character that was cut become U+FFFD). Special
 * tokens are left out with `skip_special`; ids that the vocabulary lacks give nothing.
 * NUL-terminated, in `arena`. False: it does not fit. */
bool tokenizer_decode(const struct tokenizer *tokenizer, struct token_ids tokens, bool skip_special,
                      struct arena *arena, struct bytes *text, struct error *err);

/* Id of a vocabulary piece or added token by its content; -1 when there is none. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *content);

/* One more than the largest id. */
int32_t tokenizer_n_ids(const struct tokenizer *tokenizer);

/* What `inspect` shows and the chat table needs; all texts are borrowed until close. */
struct tokenizer_facts {
    const char *source; /* "tokenizer.json" or "vocab.json + merges.txt" */
    int32_t n_vocab, n_merges, n_added;
    bool nfc;
    const char *split_regex;   /* the first of them; "" when there is none */
    const char *chat_template; /* of tokenizer_config.json (or chat_template.jinja); NULL: none */
    const char *bos_token;     /* content of tokenizer_config's bos_token; NULL: none */
};
struct tokenizer_facts tokenizer_facts(const struct tokenizer *tokenizer);

#endif
