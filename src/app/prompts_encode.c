/* Text to token ids. What stands in the template becomes special tokens, what stands in a message
 * stays text even if it spells one, with one exception: the mask, which asks for infilling. Most
 * conversations spell none and are encoded in one go; the others piece by piece:
 *
 *     <|im_start|>user\n | hello <|im_end|> | <|im_end|>\n<|im_start|>assistant\n
 *        template             content, as text   template */
#include <assert.h>
#include <string.h>

#include "app/prompts_parts.h"

/* A private-use character: stands for a content where only the template matters. */
static const struct bytes sentinel = {.data = "\xEE\x80\x80", .n = 3};

/* Ids that are being put together, in the scratch arena. */
struct id_list {
    int32_t *ids; /* [n_max] */
    size_t n, n_max;
};

/* ---- the tokenizer's special tokens ---- */

/* What only `skip_special` hides is a special token. False: no memory. */
static bool learn_id(struct encoder *encoder, int32_t id, struct arena *run, size_t n_max)
{
    struct bytes text, shown;
    struct token_ids token = {.ids = &id, .n = 1};
    size_t mark_bytes = run->used_bytes;
    if (!tokenizer_decode(encoder->tokenizer, token, false, run, &text, NULL)) return false;
    if (text.n > encoder->piece_bytes_max) encoder->piece_bytes_max = text.n;
    size_t text_end_bytes = run->used_bytes;
    if (!tokenizer_decode(encoder->tokenizer, token, true, run, &shown, NULL)) return false;
    bool is_special = text.n > 0 && shown.n == 0;
    arena_rewind(run, is_special ? text_end_bytes : mark_bytes);
    if (!is_special) return true;
    if (id == encoder->mask_id) encoder->mask_text = text;
    assert((size_t)encoder->n_specials < n_max);
    encoder->specials[encoder->n_specials++] = text;
    return true;
}

bool prompts_encode_init(struct encoder *encoder, struct arena *run, struct error *err)
{
    assert(encoder->n_specials == 0);
    encoder->piece_bytes_max = 1;
    if (encoder->tokenizer == NULL) return true;
    size_t n_ids = (size_t)tokenizer_n_ids(encoder->tokenizer);
    encoder->specials = arena_try_push(run, n_ids, sizeof *encoder->specials);
    bool is_ok = encoder->specials != NULL;
    for (size_t id = 0; is_ok && id < n_ids; id++)
        is_ok = learn_id(encoder, (int32_t)id, run, n_ids);
    return is_ok || error_set(err, ERROR_UNAVAILABLE, "not enough memory for the special tokens");
}

/* First place in `text` where `part` stands; NULL: nowhere. */
static const char *find_bytes(struct bytes text, struct bytes part)
{
    assert(part.n > 0);
    return memmem(text.data, text.n, part.data, part.n);
}

static bool spells_special(const struct encoder *encoder, struct bytes text)
{
    for (int32_t i = 0; i < encoder->n_specials; i++)
        if (find_bytes(text, encoder->specials[i]) != NULL) return true;
    return false;
}

/* ---- pieces ---- */

static bool encode(const struct encoder *encoder, struct bytes text, bool parse_added,
                   struct arena *scratch, struct id_list *list, struct rejection *rejection)
{
    assert(encoder->tokenizer != NULL);
    struct token_ids tokens;
    if (text.n == 0) return true;
    if (!tokenizer_encode(encoder->tokenizer, text, parse_added, scratch, &tokens,
                          &rejection->error)) {
        bool is_format = rejection->error.code == ERROR_FORMAT; /* a byte without a piece */
        rejection->code = is_format ? PROMPT_INVALID_REQUEST : PROMPT_TOO_LONG;
        return false;
    }
    size_t n = (size_t)tokens.n;
    if (list->n + n > list->n_max) return prompts_reject_memory(rejection);
    memcpy(list->ids + list->n, tokens.ids, n * sizeof *tokens.ids);
    list->n += n;
    return true;
}

/* Text of a user: as text, apart from masks. */
static bool encode_content(const struct encoder *encoder, struct bytes text, struct arena *scratch,
                           struct id_list *list, struct rejection *rejection)
{
    assert(list->n <= list->n_max);
    struct bytes mask = encoder->mask_text;
    for (;;) {
        const char *found = mask.n > 0 ? find_bytes(text, mask) : NULL;
        struct bytes before = text;
        if (found != NULL) before.n = (size_t)(found - text.data);
        if (!encode(encoder, before, false, scratch, list, rejection)) return false;
        if (found == NULL) return true;
        if (list->n == list->n_max) return prompts_reject_memory(rejection);
        list->ids[list->n++] = encoder->mask_id;
        text.data = found + mask.n;
        text.n -= before.n + mask.n;
    }
}

/* Room for the ids of a text: a token stands for at least one byte, and NFC triples at worst. */
static bool list_start(struct id_list *list, size_t n_bytes, struct arena *scratch,
                       struct rejection *rejection)
{
    assert(scratch->base != NULL);
    *list = (struct id_list){.n_max = 3 * n_bytes + 1};
    list->ids = arena_try_push(scratch, list->n_max, sizeof *list->ids);
    return list->ids != NULL || prompts_reject_memory(rejection);
}

/* ---- conversations ---- */

static struct bytes rest_of(struct bytes text, size_t n)
{
    assert(n <= text.n);
    return (struct bytes){.data = text.data + n, .n = text.n - n};
}

/* A message's content as the template writes it: trimmed, say. What surrounds it when the message
 * stands alone is as long as around a sentinel. */
static bool render_content(const struct encoder *encoder, const struct chat_message *message,
                           struct arena *scratch, struct bytes *content)
{
    assert(encoder->chat != NULL);
    struct chat_message blank = {.role = message->role, .content = sentinel};
    struct bytes frame, text;
    if (!chat_render(encoder->chat, &blank, 1, scratch, &frame, NULL)) return false;
    if (!chat_render(encoder->chat, message, 1, scratch, &text, NULL)) return false;
    assert(text.n + sentinel.n >= frame.n);
    size_t n_before = (size_t)(find_bytes(frame, sentinel) - frame.data);
    *content = rest_of(text, n_before);
    content->n = text.n + sentinel.n - frame.n;
    return true;
}

/* Encodes template and contents apart. The pieces of the template are learned by rendering
 * sentinels in place of the contents. */
static bool encode_pieces(const struct encoder *encoder, const struct prompt_parts *parts,
                          struct arena *scratch, struct id_list *list, struct rejection *rejection)
{
    assert(parts->n_messages > 0);
    size_t n = (size_t)parts->n_messages;
    struct chat_message *blanks = arena_try_push(scratch, n, sizeof *blanks);
    struct bytes frame, content;
    if (blanks == NULL) return prompts_reject_memory(rejection);
    for (size_t i = 0; i < n; i++)
        blanks[i] = (struct chat_message){.role = parts->messages[i].role, .content = sentinel};
    if (!chat_render(encoder->chat, blanks, parts->n_messages, scratch, &frame, NULL))
        return prompts_reject_memory(rejection);
    for (size_t i = 0; i < n; i++) {
        struct bytes piece = {.data = frame.data};
        piece.n = (size_t)(find_bytes(frame, sentinel) - frame.data);
        if (!encode(encoder, piece, true, scratch, list, rejection)) return false;
        if (!render_content(encoder, &parts->messages[i], scratch, &content))
            return prompts_reject_memory(rejection);
        if (!encode_content(encoder, content, scratch, list, rejection)) return false;
        frame = rest_of(frame, piece.n + sentinel.n);
    }
    return encode(encoder, frame, true, scratch, list, rejection);
}

static bool encode_chat(const struct encoder *encoder, const struct prompt_parts *parts,
                        struct arena *scratch, struct id_list *list, struct rejection *rejection)
{
    struct bytes text;
    assert(encoder->chat != NULL);
    if (!chat_render(encoder->chat, parts->messages, parts->n_messages, scratch, &text,
                     &rejection->error)) {
        bool is_ours = rejection->error.code == ERROR_FORMAT;
        rejection->code = is_ours ? PROMPT_INVALID_REQUEST : PROMPT_TOO_LONG;
        return false;
    }
    bool is_clean = true;
    for (int32_t i = 0; i < parts->n_messages; i++)
        if (spells_special(encoder, parts->messages[i].content)) is_clean = false;
    if (!list_start(list, text.n, scratch, rejection)) return false;
    if (is_clean) return encode(encoder, text, true, scratch, list, rejection);
    return encode_pieces(encoder, parts, scratch, list, rejection);
}

/* The line's conversation, or the one user message, with --system before it. */
static bool complete_messages(const struct encoder *encoder, const struct prompt_parts *parts,
                              struct arena *scratch, struct prompt_parts *complete,
                              struct rejection *rejection)
{
    assert(parts->kind == PARTS_TEXT || parts->n_messages > 0);
    static const struct bytes system = {.data = "system", .n = 6}, user = {.data = "user", .n = 4};
    size_t n_given = parts->kind == PARTS_MESSAGES ? (size_t)parts->n_messages : 1;
    struct chat_message *messages = arena_try_push(scratch, n_given + 1, sizeof *messages);
    if (messages == NULL) return prompts_reject_memory(rejection);
    bool has_system = false;
    for (int32_t i = 0; i < parts->n_messages; i++)
        if (strcmp(parts->messages[i].role.data, system.data) == 0) has_system = true;
    size_t n = 0;
    if (encoder->system.data != NULL && !has_system)
        messages[n++] = (struct chat_message){.role = system, .content = encoder->system};
    if (parts->kind == PARTS_TEXT)
        messages[n++] = (struct chat_message){.role = user, .content = parts->text};
    for (int32_t i = 0; i < parts->n_messages; i++)
        messages[n++] = parts->messages[i];
    *complete = (struct prompt_parts){
        .kind = PARTS_MESSAGES, .messages = messages, .n_messages = (int32_t)n};
    return true;
}

/* ---- kinds of prompts ---- */

/* Without a template: a conversation of one message is its content. */
static bool encode_raw(const struct encoder *encoder, const struct prompt_parts *parts,
                       struct arena *scratch, struct id_list *list, struct rejection *rejection)
{
    assert(parts->kind != PARTS_IDS);
    struct bytes text = parts->text;
    if (parts->kind == PARTS_MESSAGES && parts->n_messages > 1)
        return prompts_reject(rejection, PROMPT_INVALID_REQUEST,
                              "%d messages need the chat template, but --no-chat is given",
                              parts->n_messages);
    if (parts->kind == PARTS_MESSAGES) text = parts->messages[0].content;
    if (!list_start(list, text.n, scratch, rejection)) return false;
    return encode(encoder, text, true, scratch, list, rejection);
}

/* Refuses early what no tokenizer could fit: a prompt of many megabytes takes long to encode. */
static bool check_size(const struct encoder *encoder, const struct prompt_parts *parts,
                       struct rejection *rejection)
{
    assert(encoder->piece_bytes_max > 0);
    size_t n_bytes = parts->text.n;
    for (int32_t i = 0; i < parts->n_messages; i++)
        n_bytes += parts->messages[i].content.n;
    /* NFC may shorten a text to a third; a message has at least its role. */
    size_t n_tokens_min = n_bytes / 3 / encoder->piece_bytes_max + (size_t)parts->n_messages;
    if (n_tokens_min <= (size_t)encoder->n_positions) return true;
    return prompts_reject(rejection, PROMPT_TOO_LONG,
                          "the prompt has %zu bytes, too many for the model's %d positions",
                          n_bytes, encoder->n_positions);
}

static bool encode_text(const struct encoder *encoder, const struct prompt_parts *parts,
                        struct arena *scratch, struct id_list *list, struct rejection *rejection)
{
    assert(parts->kind != PARTS_IDS);
    if (encoder->tokenizer == NULL)
        return prompts_reject(rejection, PROMPT_INVALID_REQUEST,
                              "the model folder has no tokenizer, so a line must have "
                              "prompt_token_ids");
    if (!check_size(encoder, parts, rejection)) return false;
    if (encoder->chat == NULL) return encode_raw(encoder, parts, scratch, list, rejection);
    bool is_infill = parts->kind == PARTS_TEXT && encoder->mask_text.n > 0 &&
                     find_bytes(parts->text, encoder->mask_text) != NULL;
    if (is_infill)
        return list_start(list, parts->text.n, scratch, rejection) &&
               encode_content(encoder, parts->text, scratch, list, rejection);
    struct prompt_parts complete = {.kind = PARTS_NONE};
    return complete_messages(encoder, parts, scratch, &complete, rejection) &&
           encode_chat(encoder, &complete, scratch, list, rejection);
}

bool prompts_encode_ids(const struct encoder *encoder, const struct prompt_parts *parts,
                        struct arena *scratch, int32_t **ids, int32_t *n_ids,
                        struct rejection *rejection)
{
    assert(parts->kind != PARTS_NONE);
    struct id_list list = {.ids = parts->ids, .n = (size_t)parts->n_ids};
    if (parts->kind != PARTS_IDS && !encode_text(encoder, parts, scratch, &list, rejection))
        return false;
    if (list.n == 0) return prompts_reject(rejection, PROMPT_MISSING, "the prompt is empty");
    if (list.n > INT32_MAX) return prompts_reject_memory(rejection);
    for (size_t i = 0; i < list.n && list.ids != NULL; i++)
        if (list.ids[i] >= encoder->n_vocab)
            return prompts_reject(rejection, PROMPT_INVALID_REQUEST,
                                  "prompt token %zu is %d, must be below the model's %d", i,
                                  list.ids[i], encoder->n_vocab);
    *ids = list.ids;
    *n_ids = (int32_t)list.n;
    return true;
}
