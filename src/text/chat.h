/* Conversation to prompt text. One row per model family (models.md 2): what stands before, between
 * and after the messages. No Jinja: the model's own template is only compared with the row. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

struct chat_message {
    struct bytes role, content; /* role: "system", "user" or "assistant" */
};

struct chat_template; /* a row of a constant table */

/* "llada" or "dream"; NULL: no such template. */
const struct chat_template *chat_find(const char *name);
const char *chat_name(const struct chat_template *chat);

/* The prompt text, ending with the assistant's header. Roles other than the three are
 * ERROR_FORMAT. NUL-terminated, in `arena`. */
bool chat_render(const struct chat_template *chat, const struct chat_message *messages,
                 int32_t n_messages, struct arena *arena, struct bytes *text, struct error *err);

/* Whether a model's Jinja template is, white space apart, one that `chat` is known to render. */
bool chat_matches(const struct chat_template *chat, const char *jinja);

#endif
