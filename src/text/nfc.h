/* Unicode normal form C, the one normal form that a supported tokenizer asks for. The tables are
 * utf8proc's; the order of combining marks is our own, because utf8proc sorts them by swapping
 * neighbours and a long run of marks in a text would hold up everything. */
#ifndef TEXT_NFC_H
#define TEXT_NFC_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"

/* The most that NFC makes of one byte (U+1D160: 4 bytes become 12). */
enum { NFC_GROWTH_MAX = 3 };

/* True when a glance shows that `text` is in NFC already: all of it lies below U+0300, the first
 * character that composes. False says nothing. */
bool nfc_is_plain(struct bytes text);

/* Arena bytes that nfc_compose takes at most for `n` bytes of text. */
size_t nfc_arena_bytes(size_t n);

/* `text`, valid UTF-8, in NFC: at most NFC_GROWTH_MAX times as long, in `arena`, which must have
 * room for nfc_arena_bytes. */
struct bytes nfc_compose(struct bytes text, struct arena *arena);

#endif
