/* Byte-level byte-pair encoding: a stretch of text becomes one symbol per byte, then neighbours are
 * merged, the pair of lowest rank first and the leftmost of equals, until no pair is in the list.
 *
 * Vocabulary files cannot hold bytes, so each byte stands there as one printable character (GPT-2's
 * byte alphabet: most stand for themselves, a blank is U+0120). */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "text/vocabulary.h"

struct bpe_merge;

/* The merges of one tokenizer: read-only once all are added, so that threads share it. */
struct bpe {
    const struct vocabulary *vocabulary;
    int32_t byte_ids[256];    /* -1: the vocabulary lacks this byte */
    struct bpe_merge *merges; /* [merge_mask + 1], open addressing by pair of ids */
    uint32_t merge_mask;
    int32_t *merged_ids; /* [n_merges], by rank */
    int32_t n_merges;
    bool ignore_merges; /* a stretch that is a piece as a whole becomes it */
};

/* `n_merges` merges are to come; the tables live in `arena`. `vocabulary` is complete and borrowed.
 */
bool bpe_init(struct bpe *bpe, const struct vocabulary *vocabulary, size_t n_merges,
              struct arena *arena, struct error *err);

/* The merge of the next rank. ERROR_FORMAT: `left`, `right` or both joined are not in the
 * vocabulary. A pair that comes twice has its later rank, as in the reference. */
bool bpe_add_merge(struct bpe *bpe, struct bytes left, struct bytes right, struct error *err);

/* Work space for one thread; in `arena` until its rewind. */
struct bpe_scratch {
    struct bpe_symbol *symbols; /* [n_bytes_max] */
    uint64_t *queue;            /* [2 n_bytes_max] */
    char *spelled;              /* [2 n_bytes_max] */
    size_t n_bytes_max;
};

/* Arena bytes per byte of text that bpe_scratch_init takes at most, and once more for alignment. */
enum { BPE_SCRATCH_BYTES = 32, BPE_SCRATCH_SLACK = 256 };

/* Room for stretches of up to `n_bytes_max`; asserts that it fits. */
void bpe_scratch_init(struct bpe_scratch *scratch, size_t n_bytes_max, struct arena *arena);

/* Writes the ids of `stretch` to `ids` [stretch.n] and their number to `n_ids`. O(n log n).
 * ERROR_FORMAT: the vocabulary lacks a byte of it. */
bool bpe_encode(const struct bpe *bpe, struct bytes stretch, struct bpe_scratch *scratch,
                int32_t *ids, int32_t *n_ids, struct error *err);

/* The bytes that `spelled` stands for, into `target` [spelled.n]; returns their number. A character
 * outside the alphabet: the piece as it stands, as in the reference. */
size_t bpe_unspell(struct bytes spelled, char *target);

#endif
