/* UTF-8 as bytes: where a text stops being valid, and how to make any bytes valid. Well-formed is
 * what the Unicode standard says (table 3-7): no overlong forms, no surrogates, at most U+10FFFF.
 */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"

/* Length of the longest prefix of `text` that is valid UTF-8; text.n when all of it is. */
size_t utf8_valid_prefix(struct bytes text);

/* Bytes of the character that starts `text`, which is valid UTF-8 and not empty: 1 to 4. */
size_t utf8_char_bytes(struct bytes text);

/* Bytes that utf8_repair writes, without a NUL. */
size_t utf8_repaired_bytes(struct bytes text);

/* Copies `text` to `target` [utf8_repaired_bytes], each longest prefix of a character that was cut,
 * or else each stray byte, as one U+FFFD: what WHATWG and Rust do. */
void utf8_repair(struct bytes text, char *target);

#endif
