/* Why a line is no request. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "app/prompts_parts.h"

const char *prompts_code_name(enum prompt_code code)
{
    static const char *const names[PROMPT_CODE_COUNT] = {
        [PROMPT_GOOD] = "",
        [PROMPT_INVALID_JSON] = "invalid_json",
        [PROMPT_INVALID_UTF8] = "invalid_utf8",
        [PROMPT_INVALID_REQUEST] = "invalid_request",
        [PROMPT_MISSING] = "missing_prompt",
        [PROMPT_DUPLICATE_ID] = "duplicate_id",
        [PROMPT_LINE_TOO_LONG] = "line_too_long",
        [PROMPT_TOO_LONG] = "prompt_too_long",
        [PROMPT_UNSUPPORTED_FIELD] = "unsupported_field",
        [PROMPT_INVALID_SETTING] = "invalid_setting",
        [PROMPT_NOT_FINITE] = "not_finite",
    };
    assert((unsigned)code < PROMPT_CODE_COUNT);
    return names[code];
}

bool prompts_reject(struct rejection *rejection, enum prompt_code code, const char *format, ...)
{
    assert(code != PROMPT_GOOD);
    char text[sizeof rejection->error.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    rejection->code = code;
    return error_set(&rejection->error, ERROR_FORMAT, "%s", text);
}

bool prompts_reject_memory(struct rejection *rejection)
{
    assert(rejection->code == PROMPT_GOOD);
    return prompts_reject(rejection, PROMPT_TOO_LONG, "the line needs too much memory");
}
