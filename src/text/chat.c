/* The table of templates, rendering by row, and the comparison with a model's Jinja. The Jinja
 * texts here are those that the rows were read off; with no tools, as here, they all render the
 * same. */
#include "text/chat.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

enum { JINJA_MAX = 3, QUOTED_MAX = 40 };

struct chat_template {
    const char *name;
    const char *begin;       /* before everything */
    const char *role_start;  /* around each message's role */
    const char *role_end;    /*                            */
    const char *message_end; /* after each message */
    /* Content of the system message that is put first when there is none; NULL: none is put. */
    const char *default_system;
    bool trims;                   /* white space around contents goes */
    const char *jinja[JINJA_MAX]; /* what the row is known to render; NULL: no more */
};

/* ---- templates ---- */

/* LLaDA's: the answer's header comes always, or as newer files have it, when asked for. */
#define LLADA_MESSAGES                                                                             \
    "{% set loop_messages = messages %}{% for message in loop_messages %}"                         \
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"           \
    "+ message['content'] | trim + '<|eot_id|>' %}"                                                \
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"                  \
    "{{ content }}{% endfor %}"

#define LLADA_ANSWER "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"

/* Qwen2's, and that of the Qwen2.5 base models, which Dream has. */
static const char qwen2_jinja[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

static const char qwen25_jinja[] =
    "{%- if tools %} {{- '<|im_start|>system\\n' }}"
    "{%- if messages[0]['role'] == 'system' %} {{- messages[0]['content'] }}"
    "{%- else %} {{- 'You are a helpful assistant.' }} {%- endif %}"
    "{{- \"\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user "
    "query.\\n\\n"
    "You are provided with function signatures within <tools></tools> XML tags:\\n<tools>\" }}"
    "{%- for tool in tools %} {{- \"\\n\" }} {{- tool | tojson }} {%- endfor %}"
    "{{- \"\\n</tools>\\n\\nFor each function call, return a json object with function name and "
    "arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\\"name\\\": "
    "<function-name>, \\\"arguments\\\": <args-json-object>}\\n</tool_call><|im_end|>\\n\" }}"
    "{%- else %} {%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %} {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %} {%- endif %}"
    "{%- for message in messages %}"
    "{%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or "
    "(message.role == \"assistant\" and not message.tool_calls) %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- elif message.role == \"assistant\" %} {{- '<|im_start|>' + message.role }}"
    "{%- if message.content %} {{- '\\n' + message.content }} {%- endif %}"
    "{%- for tool_call in message.tool_calls %} {%- if tool_call.function is defined %}"
    "{%- set tool_call = tool_call.function %} {%- endif %}"
    "{{- '\\n<tool_call>\\n{\"name\": \"' }} {{- tool_call.name }} {{- '\", \"arguments\": ' }}"
    "{{- tool_call.arguments | tojson }} {{- '}\\n</tool_call>' }} {%- endfor %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- elif message.role == \"tool\" %}"
    "{%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != \"tool\") %}"
    "{{- '<|im_start|>user' }} {%- endif %} {{- '\\n<tool_response>\\n' }} {{- message.content }}"
    "{{- '\\n</tool_response>' }}"
    "{%- if loop.last or (messages[loop.index0 + 1].role != \"tool\") %}"
    "{{- '<|im_end|>\\n' }} {%- endif %} {%- endif %} {%- endfor %}"
    "{%- if add_generation_prompt %} {{- '<|im_start|>assistant\\n' }} {%- endif %}";

static const struct chat_template templates[] = {
    {.name = "llada",
     .begin = "<|startoftext|>",
     .role_start = "<|start_header_id|>",
     .role_end = "<|end_header_id|>\n\n",
     .message_end = "<|eot_id|>",
     .trims = true,
     .jinja = {LLADA_MESSAGES LLADA_ANSWER,
               LLADA_MESSAGES "{% if add_generation_prompt %}" LLADA_ANSWER "{% endif %}"}},
    {.name = "dream",
     .begin = "",
     .role_start = "<|im_start|>",
     .role_end = "\n",
     .message_end = "<|im_end|>\n",
     .default_system = "You are a helpful assistant.",
     .jinja = {qwen2_jinja, qwen25_jinja}},
};

const struct chat_template *chat_find(const char *name)
{
    assert(name != NULL);
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (strcmp(templates[i].name, name) == 0) return &templates[i];
    return NULL;
}

const char *chat_name(const struct chat_template *chat)
{
    assert(chat != NULL);
    assert(chat->name != NULL);
    return chat->name;
}

/* ---- rendering ---- */

/* Measures when `data` is NULL, else writes: the same walk does both, so that they cannot differ.
 */
struct target {
    char *data;
    size_t n;
};

/* Appends a part, or its length alone. */
static void put(struct target *target, struct bytes text)
{
    assert(text.data != NULL || text.n == 0);
    if (target->data != NULL && text.n > 0) memcpy(target->data + target->n, text.data, text.n);
    target->n += text.n;
}

static struct bytes bytes_of(const char *text)
{
    assert(text != NULL);
    return (struct bytes){text, strlen(text)};
}

static bool equals(struct bytes text, const char *other)
{
    assert(other != NULL);
    return text.n == strlen(other) && (text.n == 0 || memcmp(text.data, other, text.n) == 0);
}

/* Bytes of the white-space character that starts (or ends) `text`; 0: none does. White space is
 * what Python's str.strip() takes, since that is what Jinja's trim is. */
static size_t space_bytes(struct bytes text, bool at_end)
{
    static const char *const spaces[] = {
        " ",      "\n",     "\t",     "\r",       "\v",     "\f",     "\x1C",   "\x1D",
        "\x1E",   "\x1F",   "\u00A0", "\xC2\x85", "\u1680", "\u2000", "\u2001", "\u2002",
        "\u2003", "\u2004", "\u2005", "\u2006",   "\u2007", "\u2008", "\u2009", "\u200A",
        "\u2028", "\u2029", "\u202F", "\u205F",   "\u3000",
    };
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++) {
        size_t n = strlen(spaces[i]);
        if (n > text.n) continue;
        if (memcmp(at_end ? text.data + text.n - n : text.data, spaces[i], n) == 0) return n;
    }
    return 0;
}

/* A part of `text`, without white space at either end; empty when it has nothing else. */
static struct bytes trim(struct bytes text)
{
    for (size_t n; (n = space_bytes(text, false)) > 0;)
        text = (struct bytes){text.data + n, text.n - n};
    for (size_t n; (n = space_bytes(text, true)) > 0;)
        text.n -= n;
    return text;
}

/* Header, content, end. The role has been checked; the content may be empty. */
static void put_message(struct target *target, const struct chat_template *chat,
                        const struct chat_message *message)
{
    assert(message->role.n > 0);
    put(target, bytes_of(chat->role_start));
    put(target, message->role);
    put(target, bytes_of(chat->role_end));
    put(target, chat->trims ? trim(message->content) : message->content);
    put(target, bytes_of(chat->message_end));
}

/* The whole prompt. Special tokens are spelled out: the tokenizer reads them from the text. */
static void put_all(struct target *target, const struct chat_template *chat,
                    const struct chat_message *messages, int32_t n_messages)
{
    assert(n_messages > 0);
    assert(target->n == 0);
    put(target, bytes_of(chat->begin));
    if (chat->default_system != NULL && !equals(messages[0].role, "system")) {
        struct chat_message system = {bytes_of("system"), bytes_of(chat->default_system)};
        put_message(target, chat, &system);
    }
    for (int32_t i = 0; i < n_messages; i++)
        put_message(target, chat, &messages[i]);
    put(target, bytes_of(chat->role_start));
    put(target, bytes_of("assistant"));
    put(target, bytes_of(chat->role_end));
}

/* Anything else would be put into the header as it is, and could end it. */
static bool check_role(struct bytes role, int32_t index, struct error *err)
{
    assert(index >= 0);
    if (equals(role, "system") || equals(role, "user") || equals(role, "assistant")) return true;
    return error_set(err, ERROR_FORMAT,
                     "messages[%d].role is '%.*s', not 'system', 'user' or 'assistant'", index,
                     role.n < QUOTED_MAX ? (int)role.n : QUOTED_MAX, role.n > 0 ? role.data : "");
}

bool chat_render(const struct chat_template *chat, const struct chat_message *messages,
                 int32_t n_messages, struct arena *arena, struct bytes *text, struct error *err)
{
    assert(chat != NULL);
    assert(arena != NULL);
    assert(text != NULL);
    if (n_messages <= 0) return error_set(err, ERROR_FORMAT, "messages is empty");
    for (int32_t i = 0; i < n_messages; i++)
        if (!check_role(messages[i].role, i, err)) return false;

    struct target target = {0};
    put_all(&target, chat, messages, n_messages);
    size_t n = target.n;
    target = (struct target){.data = arena_try_push(arena, n + 1, 1)};
    if (target.data == NULL) {
        return error_set(err, ERROR_FORMAT, "a prompt of %zu bytes does not fit in memory", n);
    }
    put_all(&target, chat, messages, n_messages);
    assert(target.n == n);
    *text = (struct bytes){target.data, n};
    return true;
}

/* ---- comparison ---- */

/* Reads Jinja character by character: white space outside of strings does not count, and inside of
 * strings an escaped line feed is the same as a real one. */
struct jinja_reader {
    const char *at;
    char quote; /* that the string around `at` started with; 0: outside */
};

/* The next character that counts; 0 at the end. */
static char next_char(struct jinja_reader *reader)
{
    assert(reader->at != NULL);
    while (reader->quote == 0 && *reader->at != 0 && strchr(" \t\r\n", *reader->at) != NULL)
        reader->at++;
    char c = *reader->at;
    if (c == 0) return 0;
    reader->at++;
    if (reader->quote != 0 && c == '\\' && *reader->at != 0) {
        char escaped = *reader->at++;
        return escaped == 'n' ? '\n' : escaped;
    }
    bool is_quote = c == '\'' || c == '"';
    if (c == reader->quote) reader->quote = 0;
    else if (reader->quote == 0 && is_quote) reader->quote = c;
    return c;
}

/* Both are NUL-terminated. Linear in the shorter one. */
static bool same_jinja(const char *left, const char *right)
{
    assert(left != NULL);
    assert(right != NULL);
    struct jinja_reader a = {.at = left}, b = {.at = right};
    char c;
    do {
        c = next_char(&a);
        if (c != next_char(&b)) return false;
    } while (c != 0);
    return true;
}

bool chat_matches(const struct chat_template *chat, const char *jinja)
{
    assert(chat != NULL);
    assert(jinja != NULL);
    assert(chat->jinja[0] != NULL);
    for (size_t i = 0; i < JINJA_MAX && chat->jinja[i] != NULL; i++)
        if (same_jinja(chat->jinja[i], jinja)) return true;
    return false;
}
