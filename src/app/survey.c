/* Counts lines and keeps the first good one and the first bad ones' complaints. */
#include "app/survey.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "app/interrupt.h"
#include "app/settings.h"

static bool note_bad(struct survey *survey, const struct prompt *prompt, struct arena *keep,
                     struct error *err)
{
    assert(prompt->code != PROMPT_GOOD);
    survey->n_bad++;
    if (survey->n_complaints == SURVEY_COMPLAINTS_MAX) return true;
    const char *copy = arena_try_copy(keep, prompt->message, strlen(prompt->message));
    if (copy == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for line %" PRId64,
                         prompt->line);
    survey->complaints[survey->n_complaints++] =
        (struct complaint){.line = prompt->line, .message = copy};
    return true;
}

static bool keep_first(struct survey *survey, const struct prompt *prompt, struct arena *keep,
                       struct error *err)
{
    assert(!survey->has_first);
    size_t n_ids = (size_t)prompt->request.n_prompt;
    int32_t *ids = arena_try_push(keep, n_ids, sizeof *ids);
    char *id = arena_try_copy(keep, prompt->id.data, prompt->id.n);
    if (ids == NULL || id == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for line %" PRId64,
                         prompt->line);
    memcpy(ids, prompt->request.prompt_ids, n_ids * sizeof *ids);
    survey->first = *prompt;
    survey->first.id.data = id;
    survey->first.request.prompt_ids = ids;
    survey->has_first = true;
    return true;
}

static bool count(struct survey *survey, const struct prompt *prompt, struct arena *keep,
                  struct error *err)
{
    survey->n_lines++;
    if (prompt->code != PROMPT_GOOD) return note_bad(survey, prompt, keep, err);
    assert(prompt->request.n_prompt > 0);
    survey->n_prompt_tokens += prompt->request.n_prompt;
    survey->n_generate += prompt->n_generate;
    if (prompt->request.n_prompt > survey->n_prompt_max)
        survey->n_prompt_max = prompt->request.n_prompt;
    return survey->has_first || keep_first(survey, prompt, keep, err);
}

bool survey_take(struct survey *survey, struct prompts *prompts, const char *label,
                 struct arena *keep, struct error *err)
{
    assert(label != NULL);
    *survey = (struct survey){0};
    for (;;) {
        struct prompt prompt;
        if (interrupt_requested())
            return error_set(err, ERROR_STOPPED, "stopped while checking %s", label);
        enum prompts_status status = prompts_next(prompts, &prompt, err);
        if (status == PROMPTS_FAILED) return false;
        if (status == PROMPTS_END) break;
        if (prompt.is_foreign) continue;
        if (!count(survey, &prompt, keep, err)) return false;
    }
    if (survey->n_lines > 0 || prompts_counts(prompts).n_foreign > 0) return true;
    return error_set(err, ERROR_FORMAT, "%s has no prompts", label);
}

bool survey_check(const struct survey *survey, const char *label, struct report *report,
                  struct error *err)
{
    assert(survey->n_bad <= survey->n_lines);
    if (survey->n_bad == 0) return true;
    for (int32_t i = 0; i < survey->n_complaints; i++)
        report_error(report, "%s:%" PRId64 ": %s", label, survey->complaints[i].line,
                     survey->complaints[i].message);
    if (survey->n_bad > survey->n_complaints)
        report_error(report, "... and %" PRId64 " more", survey->n_bad - survey->n_complaints);
    return error_set(err, ERROR_FORMAT,
                     "%s: %" PRId64 " of %" PRId64 " lines are bad, nothing is written", label,
                     survey->n_bad, survey->n_lines);
}

/* ---- printing ---- */

static void print_settings(const struct prompt *prompt, FILE *stream)
{
    const struct decode_settings *decode = &prompt->request.decode;
    assert(decode->gen_length >= 0);
    fprintf(stream, "  gen_length %" PRId32 ", block_length %" PRId32 ", ", decode->gen_length,
            decode->block_length);
    if (decode->steps > 0) fprintf(stream, "steps %" PRId32, decode->steps);
    else fputs("one step a token", stream);
    fprintf(stream, ", remasking %s\n", settings_remasking_name(decode->remasking));
    fprintf(stream,
            "  temperature %g, top_p %g, top_k %" PRId32 ", alg_temp %g, cfg_scale %g, threshold "
            "%g, factor %g\n",
            decode->temperature, decode->top_p, decode->top_k, decode->alg_temp, decode->cfg_scale,
            decode->threshold, decode->factor);
    fprintf(stream,
            "  seed %" PRIu64 ", early stop %s, logits_eos_inf %s, "
            "confidence_eos_eot_inf %s\n",
            decode->seed, decode->early_stop ? "yes" : "no", decode->logits_eos_inf ? "yes" : "no",
            decode->confidence_eos_eot_inf ? "yes" : "no");
}

/* Lines of the prompt, indented; a terminal shall not obey them. */
static void print_text(struct bytes text, FILE *stream)
{
    assert(text.data != NULL);
    const char *prefix = "  |";
    size_t n;
    for (size_t i = 0; i < text.n; i += n) {
        const char *at = text.data + i;
        bool is_text = error_next(at, &n) == ERROR_SHOWN_TEXT;
        fputs(prefix, stream);
        if (prefix[0] != '\0' && *at != '\n') fputc(' ', stream);
        prefix = *at == '\n' ? "  |" : "";
        if (is_text || *at == '\n') fwrite(at, 1, n, stream);
        else
            for (size_t j = 0; j < n; j++)
                fprintf(stream, "\\x%02x", (unsigned char)at[j]);
    }
    if (prefix[0] == '\0') fputc('\n', stream);
}

static void print_first(const struct prompt *prompt, const struct tokenizer *tokenizer,
                        struct arena *scratch, FILE *stream)
{
    const struct request *request = &prompt->request;
    struct bytes text;
    fprintf(stream, "first request: line %" PRId64 ", %" PRId32 " prompt tokens\n", prompt->line,
            request->n_prompt);
    print_settings(prompt, stream);
    struct token_ids tokens = {.ids = request->prompt_ids, .n = request->n_prompt};
    if (tokenizer != NULL && tokenizer_decode(tokenizer, tokens, false, scratch, &text, NULL))
        print_text(text, stream);
    fputs("  token ids:", stream);
    for (int32_t i = 0; i < request->n_prompt; i++)
        fprintf(stream, " %" PRId32, request->prompt_ids[i]);
    fputc('\n', stream);
}

void survey_print(const struct survey *survey, const char *label, const struct tokenizer *tokenizer,
                  struct arena *scratch, FILE *stream)
{
    assert(survey->n_lines >= 0);
    error_print(stream,
                "%s: %" PRId64 " lines, %" PRId64 " bad; %" PRId64
                " prompt tokens (at most %" PRId32 " in a line), %" PRId64 " to generate",
                label, survey->n_lines, survey->n_bad, survey->n_prompt_tokens,
                survey->n_prompt_max, survey->n_generate);
    for (int32_t i = 0; i < survey->n_complaints; i++)
        error_print(stream, "bad: %s:%" PRId64 ": %s", label, survey->complaints[i].line,
                    survey->complaints[i].message);
    if (survey->n_bad > survey->n_complaints)
        fprintf(stream, "bad: ... and %" PRId64 " more\n", survey->n_bad - survey->n_complaints);
    if (survey->has_first) print_first(&survey->first, tokenizer, scratch, stream);
}
