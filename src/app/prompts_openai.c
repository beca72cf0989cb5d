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
    TREAT_PROMPT,      /* read by name */
    TREAT_SETTING,     /* a decode setting under another name */
    TREAT_IGNORE,      /* does not change the answer */
    TREAT_ONLY_ONE,    /* refused unless 1 */
    TREAT_ONLY_ZERO,   /* refused unless 0 */
    TREAT_ONLY_FALSE,  /* refused unless false */
    TREAT_ONLY_EMPTY,  /* refused unless an empty array or object */
    TREAT_ONLY_NONE,   /* refused unless "none" */
    TREAT_ONLY_PLAIN,  /* refused unless {"type": "text"} */
};

struct field {
    const char *name;
    enum treatment treatment;
    enum option_id setting; /* TREAT_SETTING */
};

/* null always counts as absent. Our own settings and stop may stand in the body, too. */
static const struct field fields[] = {
    {"messages", TREAT_PROMPT, OPTION_COUNT},
    {"stop", TREAT_PROMPT, OPTION_COUNT},
    {"max_tokens", TREAT_SETTING, OPTION_gen_length},
    {"max_completion_tokens", TREAT_SETTING, OPTION_gen_length},
    {"model", TREAT_IGNORE, OPTION_COUNT},
    {"user", TREAT_IGNORE, OPTION_COUNT},
    {"metadata", TREAT_IGNORE, OPTION_COUNT},
    {"store", TREAT_IGNORE, OPTION_COUNT},
    {"n", TREAT_ONLY_ONE, OPTION_COUNT},
    {"stream", TREAT_ONLY_FALSE, OPTION_COUNT},
    {"top_logprobs", TREAT_ONLY_ZERO, OPTION_COUNT},
    {"presence_penalty", TREAT_ONLY_ZERO, OPTION_COUNT},
    {"frequency_penalty", TREAT_ONLY_ZERO, OPTION_COUNT},
    {"logit_bias", TREAT_ONLY_EMPTY, OPTION_COUNT},
    {"tools", TREAT_ONLY_EMPTY, OPTION_COUNT},
    {"tool_choice", TREAT_ONLY_NONE, OPTION_COUNT},
    {"response_format", TREAT_ONLY_PLAIN, OPTION_COUNT},
};

bool prompts_openai_is(const json_t *line)
{
    const json_t *body = json_object_get(line, "body");
    bool is_named = json_object_get(line, "method") != NULL && json_object_get(line, "url") != NULL;
    return json_is_object(body) || (is_named && json_object_get(line, "custom_id") != NULL);
}

static bool is_string(const json_t *value, const char *wanted)
{
    return json_is_string(value) && strcmp(json_string_value(value), wanted) == 0;
}

/* Whether a field that we do not support asks for nothing. */
static bool is_neutral(enum treatment treatment, const json_t *value)
{
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
    case TREAT_SETTING:
    case TREAT_IGNORE: break;
    }
    return true;
}

/* Two names of one setting may both be there, as long as they agree. */
static bool read_setting(const struct field *field, const json_t *value,
                         struct prompt_parts *parts, struct rejection *rejection)
{
    assert(field->setting == OPTION_gen_length);
    struct options *settings = &parts->settings;
    bool was_set = options_is_set(settings, field->setting);
    int32_t before = settings->gen_length;
    rejection->code = PROMPT_INVALID_SETTING;
    if (!settings_read(settings, field->setting, field->name, value, &rejection->error))
        return false;
    if (was_set && settings->gen_length != before)
        return prompts_reject(rejection, PROMPT_INVALID_SETTING,
                              "%s is %d, but another field says %d", field->name,
                              settings->gen_length, before);
    rejection->code = PROMPT_GOOD;
    return true;
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
    if (json_is_null(value)) return true;
    const struct field *field = find_field(name);
    static const struct field gen_length = {"gen_length", TREAT_SETTING, OPTION_gen_length};
    if (strcmp(name, gen_length.name) == 0) field = &gen_length;
    if (field == NULL) {
        bool is_known;
        if (!prompts_plain_setting(name, value, parts, &is_known, rejection)) return false;
        if (is_known) return true;
        return prompts_reject(rejection, PROMPT_UNSUPPORTED_FIELD,
                              "body has \"%.80s\", which is not supported", name);
    }
    if (field->treatment == TREAT_SETTING) return read_setting(field, value, parts, rejection);
    if (field->treatment == TREAT_IGNORE) parts->has_ignored = true;
    if (is_neutral(field->treatment, value)) return true;
    char text[DESCRIBE_BYTES_MAX];
    return prompts_reject(rejection, PROMPT_UNSUPPORTED_FIELD, "%s is %s, which is not supported",
                          name, describe_json(value, text));
}

/* What stands around the body. A decode setting there would be overlooked. */
static bool check_envelope(const json_t *line, struct rejection *rejection)
{
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
    json_object_foreach((json_t *)line, key, value) {
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
    json_object_foreach((json_t *)body, name, value)
        if (!read_field(name, value, parts, rejection)) return false;
    const json_t *stop = json_object_get(body, "stop");
    if (stop != NULL && !json_is_null(stop) && !prompts_plain_stops(stop, parts, rejection))
        return false;
    const json_t *messages = json_object_get(body, "messages");
    if (messages == NULL || json_is_null(messages))
        return prompts_reject(rejection, PROMPT_MISSING, "body has no messages");
    return prompts_plain_messages(messages, true, scratch, parts, rejection);
}
