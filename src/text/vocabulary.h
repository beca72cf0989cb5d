/* The pieces of a tokenizer: id to content and back. Contents stay as the file spells them. Built
 * once from a file that nobody vouches for: ids and contents that contradict each other are
 * refused, and so is a file made to collide in the hash table, so that building takes linear time.
 */
#ifndef TEXT_VOCABULARY_H
#define TEXT_VOCABULARY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

/* Largest id that is accepted: ten times the vocabularies in use. */
enum { VOCABULARY_ID_MAX = 1 << 22 };

/* What a piece is; several may hold. 0: no piece has this id. */
enum piece_flags {
    PIECE_BASE = 1,    /* of the base vocabulary: spelled in the byte alphabet (bpe.h) */
    PIECE_ADDED = 2,   /* added token: spelled as it stands in texts */
    PIECE_SPECIAL = 4, /* added token that is no part of an answer's text */
};

/* One of them. Contents are borrowed from the vocabulary. */
struct piece {
    const char *content; /* [n_bytes], NUL-terminated */
    uint32_t n_bytes;
    unsigned flags; /* enum piece_flags */
};

/* Read it through the functions; it lives as long as its arena. Read-only once all pieces are
 * added, so that threads may share it. */
struct vocabulary {
    struct piece *pieces; /* [n_ids] */
    int32_t n_ids;
    int32_t *slots; /* [slot_mask + 1], id + 1, 0: empty; open addressing by content */
    uint32_t slot_mask;
    char *text; /* [text_bytes_max]: the contents, one after the other */
    size_t text_bytes, text_bytes_max;
};

/* What is to come, measured before anything is added: nothing grows later. */
struct vocabulary_size {
    int32_t n_ids;     /* one more than the largest id */
    size_t n_pieces;   /* at most this many adds */
    size_t text_bytes; /* sum of the contents' lengths, each with a NUL */
};

/* Reserves room in `arena`, where the vocabulary lives. ERROR_FORMAT: it does not fit. */
bool vocabulary_init(struct vocabulary *vocabulary, struct vocabulary_size size,
                     struct arena *arena, struct error *err);

/* Adds a piece within the announced size. The same content under the same id may come again and
 * adds its flags. ERROR_FORMAT: another id has the content, or the id another content. */
bool vocabulary_add(struct vocabulary *vocabulary, struct bytes content, int32_t id, unsigned flags,
                    struct error *err);

/* Id of the piece spelled `left` followed by `right`; -1: none. */
int32_t vocabulary_find(const struct vocabulary *vocabulary, struct bytes left, struct bytes right);

/* The piece; all zero when there is none, whatever the id. */
struct piece vocabulary_piece(const struct vocabulary *vocabulary, int32_t id);

#endif
