/* text/chat: the prompt texts of both families, byte for byte, and which Jinja is recognised. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "text/chat.h"

static struct bytes bytes_of(const char *text)
{
    return (struct bytes){text, strlen(text)};
}

static struct chat_message message(const char *role, const char *content)
{
    return (struct chat_message){bytes_of(role), bytes_of(content)};
}

/* Renders into memory of the test's own process. */
static const char *render(const char *name, const struct chat_message *messages, int32_t n_messages)
{
    static struct arena arena;
    struct error err = {0};
    struct bytes text = {0};
    cr_assert(arena_create(&arena, 1 << 16, &err));
    cr_assert(chat_render(chat_find(name), messages, n_messages, &arena, &text, &err), "%s",
              err.message);
    cr_assert_eq(text.n, strlen(text.data));
    return text.data;
}

Test(chat, rows_are_found_by_name)
{
    cr_assert_str_eq(chat_name(chat_find("llada")), "llada");
    cr_assert_str_eq(chat_name(chat_find("dream")), "dream");
    cr_assert_null(chat_find("gpt"));
    cr_assert_null(chat_find(""));
}

Test(chat, llada_starts_once_and_ends_with_the_assistants_header)
{
    struct chat_message messages[] = {message("user", "Hi"), message("assistant", "Hello"),
                                      message("user", "Bye")};
    cr_assert_str_eq(render("llada", messages, 3),
                     "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                     "<|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>"
                     "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
                     "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

Test(chat, llada_has_no_system_message_of_its_own)
{
    struct chat_message messages[] = {message("system", "Be brief."), message("user", "Hi")};
    cr_assert_str_eq(render("llada", messages, 2),
                     "<|startoftext|><|start_header_id|>system<|end_header_id|>\n\nBe brief."
                     "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                     "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

Test(chat, llada_trims_contents_as_python_does)
{
    struct chat_message messages[] = {
        message("user", " \n\t\x1C\u00A0\u3000\u2009\xC2\x85 a \u00A0 b \v\f\r\u2028\u1680 ")};
    cr_assert_str_eq(render("llada", messages, 1),
                     "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\na \u00A0 b"
                     "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    /* U+200B and U+FEFF are no white space to Python. */
    messages[0] = message("user", " \u200B ");
    cr_assert_not_null(strstr(render("llada", messages, 1), "\n\n\u200B<|eot_id|>"));
    messages[0] = message("user", " \n ");
    cr_assert_not_null(strstr(render("llada", messages, 1), "user<|end_header_id|>\n\n<|eot_id|>"));
}

Test(chat, dream_has_a_default_system_message)
{
    struct chat_message messages[] = {message("user", " Hi ")};
    cr_assert_str_eq(render("dream", messages, 1),
                     "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
                     "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n");
}

Test(chat, dream_leaves_a_given_system_message_alone)
{
    struct chat_message messages[] = {message("system", "S"), message("user", "U"),
                                      message("assistant", "A"), message("system", "T")};
    cr_assert_str_eq(render("dream", messages, 4),
                     "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
                     "<|im_start|>assistant\nA<|im_end|>\n<|im_start|>system\nT<|im_end|>\n"
                     "<|im_start|>assistant\n");
}

Test(chat, empty_contents_and_any_bytes_pass_through)
{
    struct chat_message messages[] = {{bytes_of("user"), {"a\0b", 3}}, {bytes_of("user"), {0}}};
    struct arena arena;
    struct error err = {0};
    struct bytes text;
    cr_assert(arena_create(&arena, 1 << 16, &err));
    cr_assert(chat_render(chat_find("llada"), messages, 2, &arena, &text, &err));
    cr_assert_not_null(memmem(text.data, text.n, "a\0b<|eot_id|>", 13));
    cr_assert_not_null(memmem(text.data, text.n, "\n\n<|eot_id|>", 12));
    arena_destroy(&arena);
}

static void check_refused(const struct chat_message *messages, int32_t n_messages,
                          size_t arena_bytes, const char *wish)
{
    struct arena arena;
    struct error err = {0};
    struct bytes text = {0};
    cr_assert(arena_create(&arena, arena_bytes, &err));
    cr_assert_not(chat_render(chat_find("dream"), messages, n_messages, &arena, &text, &err));
    cr_assert_eq(err.code, ERROR_FORMAT);
    cr_assert_not_null(strstr(err.message, wish), "%s", err.message);
    cr_assert_null(text.data);
    arena_destroy(&arena);
}

Test(chat, other_roles_no_messages_and_no_room_are_refused)
{
    struct chat_message messages[] = {message("user", "Hi"), message("tool", "x")};
    check_refused(messages, 2, 4096, "messages[1].role is 'tool', not 'system', 'user' or");
    messages[1] = message("User", "x");
    check_refused(messages, 2, 4096, "'User'");
    messages[1] = message("", "x");
    check_refused(messages, 2, 4096, "messages[1].role is ''");
    check_refused(messages, 0, 4096, "messages is empty");
    check_refused(messages, 1, 16, "does not fit");
}

/* ---- Jinja ---- */

static const char llada_jinja[] =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}";

Test(chat, lladas_template_is_recognised)
{
    cr_assert(chat_matches(chat_find("llada"), llada_jinja));
    cr_assert_not(chat_matches(chat_find("dream"), llada_jinja));
}

/* The same text with `from` replaced by `to` once. */
static const char *replaced(const char *text, const char *from, const char *to)
{
    static char result[4096];
    const char *at = strstr(text, from);
    cr_assert_not_null(at);
    snprintf(result, sizeof result, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return result;
}

Test(chat, the_variant_that_asks_for_a_generation_prompt_is_recognised)
{
    cr_assert(chat_matches(chat_find("llada"),
                           replaced(llada_jinja,
                                    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
                                    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant"
                                    "<|end_header_id|>\n\n' }}{% endif %}")));
}

Test(chat, white_space_counts_inside_of_strings_alone)
{
    const struct chat_template *llada = chat_find("llada");
    cr_assert(chat_matches(llada, replaced(llada_jinja, "%}{% for", "%}\n  {%  for")));
    cr_assert(chat_matches(llada, replaced(llada_jinja, "| trim", "|trim")));
    cr_assert(chat_matches(llada, replaced(llada_jinja, "|>\n\n'", "|>\\n\\n'")));
    cr_assert_not(chat_matches(llada, replaced(llada_jinja, "|>\n\n'", "|>\n'")));
    cr_assert_not(chat_matches(llada, replaced(llada_jinja, "'<|eot_id|>'", "'<|eot_id|> '")));
}

Test(chat, templates_that_say_something_else_are_not_recognised)
{
    const struct chat_template *llada = chat_find("llada");
    cr_assert_not(chat_matches(llada, ""));
    cr_assert_not(chat_matches(llada, "{{ messages }}"));
    cr_assert_not(chat_matches(llada, replaced(llada_jinja, " | trim", "")));
    cr_assert_not(chat_matches(llada, replaced(llada_jinja, "bos_token + ", "")));
    cr_assert_not(
        chat_matches(llada, replaced(llada_jinja, "{{ content }}", "{{ content }} {{ x }}")));
    cr_assert_not(chat_matches(llada, "{% set loop_messages = messages %}{% for message in"));
}

/* As in the files of Qwen2 and its kin. */
static const char qwen2_jinja[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

Test(chat, dreams_template_is_recognised_and_another_default_is_not)
{
    const struct chat_template *dream = chat_find("dream");
    cr_assert(chat_matches(dream, qwen2_jinja));
    cr_assert_not(chat_matches(dream, replaced(qwen2_jinja, "You are a", "You are Qwen, a")));
    cr_assert_not(chat_matches(chat_find("llada"), qwen2_jinja));
}
