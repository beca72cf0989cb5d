/* What the tokenizer's files share: the tokenizer in memory and its readers. The fuzzer uses one,
 * too, because it needs no folder.
 *
 *     tokenizer.c        open, encode, decode
 *     tokenizer_file.c   folder -> JSON: finds, reads, and rewrites vocab.json + merges.txt
 *     tokenizer_json.c   JSON -> struct tokenizer: checks and fills
 */
#ifndef TEXT_TOKENIZER_PRIVATE_H
#define TEXT_TOKENIZER_PRIVATE_H

#include "text/bpe.h"
#include "text/split.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

/* Pre-tokenizers in a row; files in use have two. */
enum { SPLITS_MAX = 8 };

/* An added token's content must fit: the search for them takes this many steps per byte at worst.
 */
enum { ADDED_BYTES_MAX = 256 };

/* As the search for them wants it; the vocabulary has the same piece by id. */
struct added_token {
    struct bytes content;
    int32_t id;
};

/* Order of use: added tokens cut the text, the splits cut what is left, bpe makes ids of that. */
struct tokenizer {
    struct arena arena; /* holds all that the members point to, but for compiled regexes */
    struct vocabulary vocabulary;
    struct bpe bpe;
    struct added_token *added; /* [n_added], by content in byte order */
    int32_t n_added;
    bool starts_added[256];          /* whether an added token starts with this byte */
    struct split splits[SPLITS_MAX]; /* one after the other */
    int32_t n_splits;
    struct tokenizer_facts facts;
};

/* Fills a tokenizer whose arena is open and all else zero, from the files of `model_dir`. False as
 * tokenizer_open; then the tokenizer may be half full and can only be closed. */
bool tokenizer_file_read(struct tokenizer *tokenizer, const char *model_dir, struct error *err);

/* The same from a tokenizer.json in memory alone, of which nothing is kept: no chat template, no
 * bos_token. For the fuzzer, and for tests that need no folder. */
bool tokenizer_file_parse(struct tokenizer *tokenizer, struct bytes json, struct error *err);

/* The same from JSON values: tokenizer.json, and tokenizer_config.json or NULL. Both stay the
 * caller's; nothing of them is kept. Messages name the key. */
struct json_t;
bool tokenizer_json_read(struct tokenizer *tokenizer, struct json_t *root, struct json_t *config,
                         struct error *err);

#endif
