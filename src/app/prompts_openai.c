/* Lines of the OpenAI batch API: {custom_id, method, url, body}. Fields of the body are mapped to
 * ours, ignored where they cannot change an answer, or refused: what is asked for and silently not
 * done would be a wrong answer. */
#include <assert.h>
#include <string.h>

#include "app/describe.h"
#include "app/prompts_parts.h"
#include "app/settings.h"

#define CHAT_URL "/v1/chat/completions"

/* What becomes of a field of the body. */
enum treatment {
    TREAT_PROMPT,     /* read by name */
    TREAT_LENGTH,     /* becomes gen_length */
    TREAT_IGNORE,     /* does not change the answer */
    TREAT_ONLY_ONE,   /* refused unless 1 */
    TREAT_ONLY_ZERO,  /* refused unless 0 */
    TREAT_ONLY_FALSE, /* refused unless false */
    TREAT_ONLY_EMPTY, /* refused unless an empty array or object */
    TREAT_ONLY_NONE,  /* refused unless "none" */
    TREAT_ONLY_PLAIN, /* refused unless {"type": "text"} */
};

struct field {
    const char *name;
    enum treatment treatment;
};

/* null always counts as absent. Our own settings may stand in the body, too, and need no row: they
 * are looked up in options.def. */
static const struct field fields[] = {
    {"messages", TREAT_PROMPT},
    {"stop", TREAT_PROMPT},
    {"gen_length", TREAT_LENGTH},
    {"max_tokens", TREAT_LENGTH},
    {"max_completion_tokens", TREAT_LENGTH},
    {"model", TREAT_IGNORE},
    {"user", TREAT_IGNORE},
    {"metadata", TREAT_IGNORE},
    {"store", TREAT_IGNORE},
    {"n", TREAT_ONLY_ONE},
    {"stream", TREAT_ONLY_FALSE},
    {"top_logprobs", TREAT_ONLY_ZERO},
    {"presence_penalty", TREAT_ONLY_ZERO},
    {"frequency_penalty", TREAT_ONLY_ZERO},
    {"logit_bias", TREAT_ONLY_EMPTY},
    {"tools", TREAT_ONLY_EMPTY},
    {"tool_choice", TREAT_ONLY_NONE},
    {"response_format", TREAT_ONLY_PLAIN},
};

bool prompts_openai_is(const json_t *line)
{
    assert(json_is_object(line));
    const json_t *body = json_object_get(line, "body");
    bool has_method = json_object_get(line, "method") != NULL;
    bool has_url = json_object_get(line, "url") != NULL;
    bool has_id = json_object_get(line, "custom_id") != NULL;
    /* A plain file may have a column of that name. */
    if (json_is_object(body)) return has_method || has_url || has_id;
    return has_method && has_url && has_id;
}

static bool is_string(const json_t *value, const char *wanted)
{
    assert(wanted != NULL);
    return json_is_string(value) && strcmp(json_string_value(value), wanted) == 0;
}

/* Whether a field that we do not support asks for nothing. */
static bool is_neutral(enum treatment treatment, const json_t *value)
{
    assert(!json_is_null(value));
    switch (treatment) {
    case TREAT_ONLY_ONE: return json_is_integer(value) && json_integer_value(value) == 1;
    case TREAT_ONLY_ZERO: return json_is_number(value) && json_number_value(value) == 0;
    case TREAT_ONLY_FALSE: return json_is_false(value);
    case TREAT_ONLY_EMPTY:
        return (json_is_array(value) && json_array_size(value) == 0) ||
               (json_is_object(value) && json_object_size(value) == 0);
    case TREAT_ONLY_NONE: return is_string(value, "none");
    case TREAT_ONLY_PLAIN: return is_string(json_object_get(value, "type"), "text");
    case TREAT_PROMPT:
    case TREAT_LENGTH:
    case TREAT_IGNORE: break;
    }
    return true;
}

/* Several names of the length may be there, as long as they agree. */
static bool read_length(const char *name, const json_t *value, struct prompt_parts *parts,
                        struct rejection *rejection)
{
    struct options *settings = &parts->settings;
    bool was_set = options_is_set(settings, OPTION_gen_length);
    int32_t before = settings->gen_length;
    assert(!json_is_null(value));
    rejection->code = PROMPT_INVALID_SETTING;
    if (!settings_read(settings, OPTION_gen_length, name, value, &rejection->error)) return false;
    rejection->code = PROMPT_GOOD;
    if (!was_set || settings->gen_length == before) return true;
    return prompts_reject(rejection, PROMPT_INVALID_SETTING, "%s is %d, but another field says %d",
                          name, settings->gen_length, before);
}

static const struct field *find_field(const char *name)
{
    assert(name != NULL);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strcmp(fields[i].name, name) == 0) return &fields[i];
    return NULL;
}

static bool read_field(const char *name, const json_t *value, struct prompt_parts *parts,
                       struct rejection *rejection)
{
    assert(value != NULL);
    if (json_is_null(value)) return true;
    const struct field *field = find_field(name);
    if (field == NULL) {
        bool is_known;
        if (!prompts_plain_setting(name, value, parts, &is_known, rejection)) return false;
        if (is_known) return true;
        return prompts_reject(rejection, PROMPT_UNSUPPORTED_FIELD,
                              "body has \"%.80s\", which is not supported", name);
    }
    if (field->treatment == TREAT_LENGTH) return read_length(name, value, parts, rejection);
    if (field->treatment == TREAT_IGNORE) parts->has_ignored = true;
    if (is_neutral(field->treatment, value)) return true;
    char text[DESCRIBE_BYTES_MAX];
    return prompts_reject(rejection, PROMPT_UNSUPPORTED_FIELD, "%s is %s, which is not supported",
                          name, describe_json(value, text));
}

/* What stands around the body. A decode setting there would be overlooked. */
static bool check_envelope(const json_t *line, struct rejection *rejection)
{
    assert(json_is_object(line));
    const json_t *method = json_object_get(line, "method");
    const json_t *url = json_object_get(line, "url");
    char text[DESCRIBE_BYTES_MAX];
    if (method != NULL && !is_string(method, "POST"))
        return prompts_reject(rejection, PROMPT_INVALID_REQUEST, "method is %s, must be \"POST\"",
                              describe_json(method, text));
    if (url != NULL && !is_string(url, CHAT_URL))
        return prompts_reject(rejection, PROMPT_UNSUPPORTED_FIELD,
                              "url is %s, only \"" CHAT_URL "\" is supported",
                              describe_json(url, text));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)line, key, value)
    {
        if (options_find_line_key(key) == OPTION_COUNT || json_is_null(value)) continue;
        return prompts_reject(rejection, PROMPT_UNSUPPORTED_FIELD,
                              "%s stands beside body, must stand in it", key);
    }
    return true;
}

bool prompts_openai_read(const json_t *line, struct arena *scratch, struct prompt_parts *parts,
                         struct rejection *rejection)
{
    assert(prompts_openai_is(line));
    const json_t *body = json_object_get(line, "body");
    if (!json_is_object(body))
        return prompts_reject(rejection, PROMPT_MISSING, "the line has no body, must be an object");
    if (!check_envelope(line, rejection)) return false;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)body, name,
                        value) if (!read_field(name, value, parts, rejection)) return false;
    const json_t *stop = json_object_get(body, "stop");
    if (stop != NULL && !json_is_null(stop) && !prompts_plain_stops(stop, parts, rejection))
        return false;
    const json_t *messages = json_object_get(body, "messages");
    if (messages == NULL || json_is_null(messages))
        return prompts_reject(rejection, PROMPT_MISSING, "body has no messages");
    return prompts_plain_messages(messages, true, scratch, parts, rejection);
}
