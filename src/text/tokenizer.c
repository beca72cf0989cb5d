/* The way of a text, each station one function:
 *
 *     text --added tokens cut out--> segments --NFC--> --split regexes--> stretches --BPE--> ids
 *
 * An added token is one id whatever surrounds it, so a segment is encoded as if it stood alone. */
#include "text/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "text/nfc.h"
#include "text/tokenizer_private.h"
#include "text/utf8.h"

/* Texts are prompts: far below. Keeps every count of ids and bytes within 32 bits. */
#define TEXT_BYTES_MAX ((size_t)1 << 28)
static_assert(NFC_GROWTH_MAX * TEXT_BYTES_MAX <= INT32_MAX, "ids are counted in 32 bits");

/* Address space, touched as needed: the largest vocabulary in use takes a few MiB. */
#define TOKENIZER_BYTES_MAX ((size_t)1 << 30)

bool tokenizer_open(struct tokenizer **tokenizer, const char *model_dir, struct error *err)
{
    assert(tokenizer != NULL);
    assert(model_dir != NULL);
    struct tokenizer *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return error_set(err, ERROR_UNAVAILABLE, "no memory for a tokenizer");
    if (!arena_create(&opened->arena, TOKENIZER_BYTES_MAX, err) ||
        !tokenizer_file_read(opened, model_dir, err)) {
        tokenizer_close(opened);
        return false;
    }
    *tokenizer = opened;
    return true;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL) return;
    for (int32_t i = 0; i < tokenizer->n_splits; i++)
        split_clear(&tokenizer->splits[i]);
    arena_destroy(&tokenizer->arena);
    free(tokenizer);
}

/* ---- encoding ---- */

/* What one call of encode works with: thrown away as a whole. */
struct encoder {
    const struct tokenizer *tokenizer;
    struct arena arena;
    struct split_matcher matcher;
    struct bpe_scratch scratch;
    int32_t *ids; /* [n_ids_max] */
    int32_t n_ids, n_ids_max;
};

/* Room for `text`. Every stretch, and all ids, take at most as much as its normal form. Close it
 * whatever comes back. */
static bool encoder_open(struct encoder *encoder, const struct tokenizer *tokenizer,
                         struct bytes text, struct error *err)
{
    assert(text.n <= TEXT_BYTES_MAX);
    bool normalize = tokenizer->facts.nfc && !nfc_is_plain(text);
    size_t n_bytes_max = normalize ? NFC_GROWTH_MAX * text.n : text.n;
    size_t n_arena_bytes = n_bytes_max * (BPE_SCRATCH_BYTES + sizeof(int32_t)) + BPE_SCRATCH_SLACK;
    if (normalize) n_arena_bytes += nfc_arena_bytes(text.n);

    assert(n_bytes_max <= INT32_MAX);
    *encoder = (struct encoder){.tokenizer = tokenizer, .n_ids_max = (int32_t)n_bytes_max};
    if (!arena_create(&encoder->arena, n_arena_bytes, err)) return false;
    encoder->ids = arena_push(&encoder->arena, n_bytes_max, sizeof *encoder->ids);
    bpe_scratch_init(&encoder->scratch, n_bytes_max, &encoder->arena);
    return split_matcher_open(&encoder->matcher, n_bytes_max, err);
}

static void encoder_close(struct encoder *encoder)
{
    split_matcher_close(&encoder->matcher);
    arena_destroy(&encoder->arena);
}

/* Cuts by the regexes from `split_index` on, and encodes what comes out. Recursion ends after
 * SPLITS_MAX levels; a stretch is never empty, so neither is what the next level gets. */
static bool encode_stretch(struct encoder *encoder, struct bytes text, int32_t split_index,
                           struct error *err)
{
    assert(text.n > 0);
    const struct tokenizer *tokenizer = encoder->tokenizer;
    assert(split_index <= tokenizer->n_splits);
    if (split_index == tokenizer->n_splits) {
        int32_t n_ids = 0;
        int32_t *ids = encoder->ids + encoder->n_ids;
        if (!bpe_encode(&tokenizer->bpe, text, &encoder->scratch, ids, &n_ids, err)) return false;
        encoder->n_ids += n_ids;
        assert(encoder->n_ids <= encoder->n_ids_max);
        return true;
    }
    struct split_cursor cursor = {.split = &tokenizer->splits[split_index], .text = text};
    for (;;) {
        struct bytes stretch;
        switch (split_next(&cursor, &encoder->matcher, &stretch, err)) {
        case SPLIT_END: return true;
        case SPLIT_FAILED: return false;
        case SPLIT_STRETCH: break;
        }
        if (!encode_stretch(encoder, stretch, split_index + 1, err)) return false;
    }
}

/* A segment lies between added tokens. What normalizing takes is given back, so that the arena has
 * room for every segment of a text, however many there are. */
static bool encode_segment(struct encoder *encoder, struct bytes segment, struct error *err)
{
    if (segment.n == 0) return true;
    assert(segment.data != NULL);
    size_t mark = encoder->arena.used_bytes;
    bool normalize = encoder->tokenizer->facts.nfc && !nfc_is_plain(segment);
    if (normalize) segment = nfc_compose(segment, &encoder->arena);
    bool ok = encode_stretch(encoder, segment, 0, err);
    arena_rewind(&encoder->arena, mark);
    return ok;
}

/* First token of [low, high) whose byte at `depth` is at least `byte`; they agree before it. */
static const struct added_token *lower_bound(const struct added_token *low,
                                             const struct added_token *high, size_t depth, int byte)
{
    while (low < high) {
        const struct added_token *middle = low + (high - low) / 2;
        assert(depth < middle->content.n);
        if ((uint8_t)middle->content.data[depth] < byte) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The longest added token that `text` starts with; NULL: none. The tokens that share the first
 * `depth` bytes with the text are a range of the sorted array, which every byte narrows. */
static const struct added_token *find_added(const struct tokenizer *tokenizer, struct bytes text)
{
    assert(text.n > 0);
    if (!tokenizer->starts_added[(uint8_t)text.data[0]]) return NULL;
    const struct added_token *found = NULL;
    const struct added_token *low = tokenizer->added, *high = low + tokenizer->n_added;
    for (size_t depth = 0; low < high; depth++) {
        if (low->content.n == depth) found = low++;
        if (depth == text.n) break;
        int byte = (uint8_t)text.data[depth];
        low = lower_bound(low, high, depth, byte);
        high = lower_bound(low, high, depth, byte + 1);
    }
    return found;
}

/* Appends the ids of the whole text. Without `parse_added` it is one segment. A byte at which no
 * added token starts costs one look at a table. */
static bool encode_text(struct encoder *encoder, struct bytes text, bool parse_added,
                        struct error *err)
{
    assert(text.data != NULL);
    size_t start = 0; /* of the segment that `at` is in */
    for (size_t at = 0; parse_added && at < text.n;) {
        struct bytes rest = {text.data + at, text.n - at};
        const struct added_token *added = find_added(encoder->tokenizer, rest);
        if (added == NULL) {
            at++;
            continue;
        }
        struct bytes segment = {text.data + start, at - start};
        if (!encode_segment(encoder, segment, err)) return false;
        assert(encoder->n_ids < encoder->n_ids_max);
        encoder->ids[encoder->n_ids++] = added->id;
        start = at += added->content.n;
    }
    return encode_segment(encoder, (struct bytes){text.data + start, text.n - start}, err);
}

bool tokenizer_encode(const struct tokenizer *tokenizer, struct bytes text, bool parse_added,
                      struct arena *arena, struct token_ids *tokens, struct error *err)
{
    assert(arena != NULL);
    assert(tokens != NULL);
    assert(text.data != NULL || text.n == 0);
    if (text.n > TEXT_BYTES_MAX) {
        return error_set(err, ERROR_FORMAT, "the text has %zu bytes, at most %zu are accepted",
                         text.n, TEXT_BYTES_MAX);
    }
    if (text.n == 0) text.data = "";
    size_t n_valid = utf8_valid_prefix(text);
    if (n_valid < text.n) {
        return error_set(err, ERROR_FORMAT, "the text is not valid UTF-8 at byte %zu", n_valid);
    }
    /* The encoder's memory is sized for the worst case; only the ids that came out are kept. */
    struct encoder encoder;
    bool ok = encoder_open(&encoder, tokenizer, text, err) &&
              encode_text(&encoder, text, parse_added, err);
    int32_t *copy = ok ? arena_try_push(arena, (size_t)encoder.n_ids, sizeof *copy) : NULL;
    if (ok && copy == NULL) {
        ok = error_set(err, ERROR_FORMAT, "the text's %d tokens do not fit in memory",
                       encoder.n_ids);
    }
    if (ok) {
        if (encoder.n_ids > 0) memcpy(copy, encoder.ids, (size_t)encoder.n_ids * sizeof *copy);
        *tokens = (struct token_ids){copy, encoder.n_ids};
    }
    encoder_close(&encoder);
    return ok;
}

/* ---- decoding ---- */

/* The bytes of the ids, into `target` with room for all their contents; returns their number. They
 * are UTF-8 only by luck: a piece may be a part of a character. */
static size_t join_pieces(const struct tokenizer *tokenizer, struct token_ids tokens,
                          bool skip_special, char *target)
{
    assert(target != NULL);
    unsigned skipped = skip_special ? PIECE_SPECIAL : 0;
    size_t n = 0;
    for (int32_t i = 0; i < tokens.n; i++) {
        struct piece piece = vocabulary_piece(&tokenizer->vocabulary, tokens.ids[i]);
        if (piece.n_bytes == 0 || piece.flags & skipped) continue;
        if (piece.flags & PIECE_ADDED) {
            memcpy(target + n, piece.content, piece.n_bytes);
            n += piece.n_bytes;
        } else {
            n += bpe_unspell((struct bytes){piece.content, piece.n_bytes}, target + n);
        }
    }
    return n;
}

bool tokenizer_decode(const struct tokenizer *tokenizer, struct token_ids tokens, bool skip_special,
                      struct arena *arena, struct bytes *text, struct error *err)
{
    assert(tokens.n >= 0);
    assert(tokens.ids != NULL || tokens.n == 0);
    assert(text != NULL);
    size_t n_raw_max = 1; /* the NUL; spelling never shortens */
    for (int32_t i = 0; i < tokens.n; i++)
        n_raw_max += vocabulary_piece(&tokenizer->vocabulary, tokens.ids[i]).n_bytes;

    struct bytes decoded = {0};
    char *raw = arena_try_push(arena, n_raw_max, 1);
    if (raw != NULL) {
        decoded = (struct bytes){raw, join_pieces(tokenizer, tokens, skip_special, raw)};
        assert(decoded.n < n_raw_max);
    }
    if (raw != NULL && utf8_valid_prefix(decoded) < decoded.n) {
        size_t n_repaired = utf8_repaired_bytes(decoded);
        char *repaired = arena_try_push(arena, n_repaired + 1, 1);
        if (repaired != NULL) utf8_repair(decoded, repaired);
        decoded = (struct bytes){repaired, n_repaired};
    }
    if (decoded.data == NULL) {
        return error_set(err, ERROR_FORMAT, "the text of %d tokens does not fit in memory",
                         tokens.n);
    }
    *text = decoded;
    return true;
}

/* ---- facts ---- */

int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *content)
{
    assert(tokenizer != NULL);
    assert(content != NULL);
    struct bytes spelled = {content, strlen(content)};
    return vocabulary_find(&tokenizer->vocabulary, spelled, (struct bytes){0});
}

int32_t tokenizer_n_ids(const struct tokenizer *tokenizer)
{
    assert(tokenizer != NULL);
    return tokenizer->vocabulary.n_ids;
}

struct tokenizer_facts tokenizer_facts(const struct tokenizer *tokenizer)
{
    assert(tokenizer != NULL);
    return tokenizer->facts;
}
