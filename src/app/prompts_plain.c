/* Plain lines: where the prompt stands, the conversation, stop strings and decode settings. Keys
 * that mean nothing here are a data set's other columns and are ignored. */
#include <assert.h>
#include <string.h>

#include "app/describe.h"
#include "app/prompts_parts.h"
#include "app/settings.h"

/* "messages is 3, must be an array" for every wrong type. */
static bool refuse_type(const char *key, const json_t *value, const char *wish,
                        struct rejection *rejection)
{
    assert(value != NULL);
    char text[DESCRIBE_BYTES_MAX];
    return prompts_reject(rejection, PROMPT_INVALID_REQUEST, "%s is %s, must be %s", key,
                          describe_json(value, text), wish);
}

static struct bytes string_bytes(const json_t *value)
{
    assert(json_is_string(value));
    return (struct bytes){.data = json_string_value(value), .n = json_string_length(value)};
}

/* The value of a key unless it is null. */
static const json_t *find_value(const json_t *line, const char *key)
{
    assert(json_is_object(line));
    const json_t *value = json_object_get(line, key);
    return json_is_null(value) ? NULL : value;
}

/* ---- shared by both forms ---- */

bool prompts_plain_setting(const char *key, const json_t *value, struct prompt_parts *parts,
                           bool *is_known, struct rejection *rejection)
{
    assert(key != NULL);
    enum option_id id = options_find_line_key(key);
    *is_known = id != OPTION_COUNT;
    if (!*is_known) return true;
    if (settings_read(&parts->settings, id, key, value, &rejection->error)) return true;
    rejection->code = PROMPT_INVALID_SETTING;
    return false;
}

bool prompts_plain_stops(const json_t *value, struct prompt_parts *parts,
                         struct rejection *rejection)
{
    static const char wish[] = "a string or an array of at most 4 strings";
    static_assert(PROMPTS_STOPS_MAX == 4, "the wish names the limit");
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    if (n > PROMPTS_STOPS_MAX)
        return prompts_reject(rejection, PROMPT_INVALID_SETTING, "stop has %zu entries, must be %s",
                              n, wish);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        char text[DESCRIBE_BYTES_MAX];
        if (!json_is_string(item))
            return prompts_reject(rejection, PROMPT_INVALID_SETTING, "stop is %s, must be %s",
                                  describe_json(item, text), wish);
        struct bytes stop = string_bytes(item);
        if (stop.n == 0 || stop.n > PROMPTS_STOP_BYTES_MAX)
            return prompts_reject(rejection, PROMPT_INVALID_SETTING,
                                  "a stop string has %zu bytes, must have 1 to %d", stop.n,
                                  PROMPTS_STOP_BYTES_MAX);
        parts->stops[parts->n_stops++] = stop;
    }
    return true;
}

/* ---- conversations ---- */

/* Contents come as a string, or as OpenAI's list of parts, of which we can read text alone. */
static bool read_content(const json_t *value, struct arena *scratch, struct bytes *content,
                         struct rejection *rejection)
{
    static const char wish[] = "a string or an array of text parts";
    assert(content != NULL);
    if (value == NULL)
        return prompts_reject(rejection, PROMPT_INVALID_REQUEST, "a message has no content");
    if (json_is_string(value)) {
        *content = string_bytes(value);
        return true;
    }
    if (!json_is_array(value)) return refuse_type("content", value, wish, rejection);
    size_t n_bytes = 0, index;
    json_t *part;
    json_array_foreach((json_t *)value, index, part)
    {
        const json_t *text = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type"));
        if (type == NULL || strcmp(type, "text") != 0 || !json_is_string(text))
            return prompts_reject(rejection, PROMPT_UNSUPPORTED_FIELD,
                                  "content has a part of type \"%.40s\", only text is supported",
                                  type != NULL ? type : "");
        n_bytes += json_string_length(text);
    }
    char *joined = arena_try_push(scratch, n_bytes + 1, 1);
    if (joined == NULL) return prompts_reject_memory(rejection);
    *content = (struct bytes){.data = joined};
    json_array_foreach((json_t *)value, index, part)
    {
        struct bytes text = string_bytes(json_object_get(part, "text"));
        memcpy(joined + content->n, text.data, text.n);
        content->n += text.n;
    }
    return true;
}

static bool check_message_keys(const json_t *message, struct rejection *rejection)
{
    assert(json_is_object(message));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)message, key, value)
    {
        bool is_ours = strcmp(key, "role") == 0 || strcmp(key, "content") == 0;
        if (is_ours || strcmp(key, "name") == 0 || json_is_null(value)) continue;
        return prompts_reject(rejection, PROMPT_UNSUPPORTED_FIELD,
                              "a message has \"%.80s\", which is not supported", key);
    }
    return true;
}

static bool read_message(const json_t *value, struct arena *scratch, struct chat_message *message,
                         struct rejection *rejection)
{
    assert(value != NULL);
    if (!json_is_object(value))
        return refuse_type("a message", value, "an object with role and content", rejection);
    const json_t *role = json_object_get(value, "role");
    if (!json_is_string(role))
        return prompts_reject(rejection, PROMPT_INVALID_REQUEST,
                              "a message has no role, must be system, user or assistant");
    message->role = string_bytes(role);
    /* OpenAI's newer name for the same thing. */
    if (strcmp(message->role.data, "developer") == 0)
        message->role = (struct bytes){.data = "system", .n = 6};
    return read_content(find_value(value, "content"), scratch, &message->content, rejection);
}

bool prompts_plain_messages(const json_t *value, bool refuses_others, struct arena *scratch,
                            struct prompt_parts *parts, struct rejection *rejection)
{
    assert(parts->kind == PARTS_NONE);
    if (!json_is_array(value))
        return refuse_type("messages", value, "an array of objects with role and content",
                           rejection);
    size_t n = json_array_size(value);
    if (n == 0) return prompts_reject(rejection, PROMPT_MISSING, "messages is empty");
    struct chat_message *messages = arena_try_push(scratch, n, sizeof *messages);
    if (messages == NULL || n > INT32_MAX) return prompts_reject_memory(rejection);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(value, i);
        if (!read_message(item, scratch, &messages[i], rejection)) return false;
        if (refuses_others && !check_message_keys(item, rejection)) return false;
    }
    parts->kind = PARTS_MESSAGES;
    parts->messages = messages;
    parts->n_messages = (int32_t)n;
    return true;
}

/* ---- where the prompt stands ---- */

static bool read_text(const char *key, const json_t *value, struct prompt_parts *parts,
                      struct rejection *rejection)
{
    assert(parts->kind == PARTS_NONE);
    if (!json_is_string(value)) return refuse_type(key, value, "a string", rejection);
    if (json_string_length(value) == 0)
        return prompts_reject(rejection, PROMPT_MISSING, "%s is empty", key);
    parts->kind = PARTS_TEXT;
    parts->text = string_bytes(value);
    return true;
}

static bool read_ids(const json_t *value, struct arena *scratch, struct prompt_parts *parts,
                     struct rejection *rejection)
{
    static const char wish[] = "an array of token ids";
    assert(parts->kind == PARTS_NONE);
    if (!json_is_array(value)) return refuse_type("prompt_token_ids", value, wish, rejection);
    size_t n = json_array_size(value);
    if (n == 0) return prompts_reject(rejection, PROMPT_MISSING, "prompt_token_ids is empty");
    int32_t *ids = arena_try_push(scratch, n, sizeof *ids);
    if (ids == NULL) return prompts_reject_memory(rejection);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(value, i);
        json_int_t id = json_integer_value(item);
        char text[DESCRIBE_BYTES_MAX];
        if (!json_is_integer(item) || id < 0 || id > INT32_MAX)
            return prompts_reject(rejection, PROMPT_INVALID_REQUEST,
                                  "prompt_token_ids[%zu] is %s, must be a token id", i,
                                  describe_json(item, text));
        ids[i] = (int32_t)id;
    }
    parts->kind = PARTS_IDS;
    parts->ids = ids;
    parts->n_ids = (int32_t)n;
    return true;
}

/* Questions of several turns: an answer to the second would need the first one's. */
static bool read_turns(const json_t *value, struct prompt_parts *parts, struct rejection *rejection)
{
    assert(value != NULL);
    const json_t *first = json_array_get(value, 0);
    if (!json_is_string(first))
        return refuse_type("turns", value, "an array that starts with a string", rejection);
    return read_text("turns[0]", first, parts, rejection);
}

static bool read_prompt(const json_t *line, const struct plain_options *options,
                        struct arena *scratch, struct prompt_parts *parts,
                        struct rejection *rejection)
{
    static const char *const text_keys[] = {"question", "text", "instruction"};
    const char *own = options->prompt_key;
    const json_t *value = find_value(line, own != NULL ? own : "prompt");
    const json_t *ids = find_value(line, "prompt_token_ids");
    if (own != NULL && value == NULL)
        return prompts_reject(rejection, PROMPT_MISSING, "the line has no \"%.80s\"", own);
    if (own != NULL) return read_text(own, value, parts, rejection);
    if (ids != NULL && options->prefers_ids) return read_ids(ids, scratch, parts, rejection);
    if (value != NULL) return read_text("prompt", value, parts, rejection);
    value = find_value(line, "messages");
    if (value != NULL) return prompts_plain_messages(value, false, scratch, parts, rejection);
    if (ids != NULL) return read_ids(ids, scratch, parts, rejection);
    value = find_value(line, "turns");
    if (value != NULL) return read_turns(value, parts, rejection);
    for (size_t i = 0; i < sizeof text_keys / sizeof text_keys[0]; i++) {
        value = find_value(line, text_keys[i]);
        if (value != NULL) return read_text(text_keys[i], value, parts, rejection);
    }
    return prompts_reject(rejection, PROMPT_MISSING,
                          "the line has no prompt, messages, prompt_token_ids, turns, question, "
                          "text or instruction; --prompt-key may name another key");
}

/* A key that means nothing here, though its writer may think that it does. */
static void note_overlooked(const char *key, const json_t *value, struct prompt_parts *parts)
{
    static const char *const lengths[] = {"max_tokens", "max_completion_tokens", "max_new_tokens"};
    assert(parts->overlooked_key == NULL);
    if (json_is_null(value)) return;
    enum option_id meant = options_find_near_key(key);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        if (strcmp(key, lengths[i]) == 0) meant = OPTION_gen_length;
    bool wants_several = strcmp(key, "n") == 0 && json_integer_value(value) > 1;
    if (meant == OPTION_COUNT && !wants_several) return;
    parts->overlooked_key = key;
    parts->meant = meant;
}

bool prompts_plain_read(const json_t *line, const struct plain_options *options,
                        struct arena *scratch, struct prompt_parts *parts,
                        struct rejection *rejection)
{
    assert(json_is_object(line));
    if (!options->has_prompt && !read_prompt(line, options, scratch, parts, rejection))
        return false;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)line, key, value)
    {
        bool is_known;
        if (!prompts_plain_setting(key, value, parts, &is_known, rejection)) return false;
        bool is_prompt = options->prompt_key != NULL && strcmp(key, options->prompt_key) == 0;
        if (!is_known && !is_prompt && parts->overlooked_key == NULL)
            note_overlooked(key, value, parts);
    }
    const json_t *stop = find_value(line, "stop");
    return stop == NULL || prompts_plain_stops(stop, parts, rejection);
}
