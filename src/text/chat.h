/* Conversation to prompt text. One row per model family, LLaDA (arXiv 2502.09992) and Dream (arXiv
 * 2508.15487): what stands before, between and after the messages. No Jinja is run: the model's own
 * template is only compared with those that the row was read off, so that a model with another one
 * can be reported.
 *
 *     llada  begin, then (header with role, trimmed content, end of turn) per message, nothing else
 *     dream  ChatML; a default system message goes first when the first message is none
 */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

/* One turn of the conversation; both texts are borrowed for the call and may hold any bytes. */
struct chat_message {
    struct bytes role, content; /* role: "system", "user" or "assistant" */
};

struct chat_template; /* a row of a constant table: nobody frees it */

/* The row with this name, "llada" or "dream"; NULL: no such template. */
const struct chat_template *chat_find(const char *name);

/* Its name, a constant. */
const char *chat_name(const struct chat_template *chat);

/* The prompt text of `messages` [n_messages], ending with the assistant's header, so that the
 * answer goes on from there. A first message that is no system message gets the family's default
 * one put before it. NUL-terminated, in `arena` until its rewind. ERROR_FORMAT: there are no
 * messages, a role is none of the three (names its index), or the text does not fit; `text` stays
 * as it was. */
bool chat_render(const struct chat_template *chat, const struct chat_message *messages,
                 int32_t n_messages, struct arena *arena, struct bytes *text, struct error *err);

/* Whether a model's Jinja template is, white space apart, one that `chat` is known to render.
 * False is no error: the caller says that the folder's template goes unused. */
bool chat_matches(const struct chat_template *chat, const char *jinja);

#endif
