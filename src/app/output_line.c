/* One output line as JSON: our own form, and the envelope of the OpenAI batch API around the same
 * parts. Everything but `timing` is a function of the line, the model and the settings, so nothing
 * here may look at a clock. */
#include "app/output.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"

/* Floats survive a round trip with nine digits. */
#define DUMP_FLAGS (JSON_COMPACT | JSON_REAL_PRECISION(9))

/* What makes up a line; scratch holds texts. */
struct line {
    const struct output_style *style;
    const struct prompt *prompt;
    const struct answer *answer; /* NULL: an error line */
    struct arena *scratch;
    bool is_stopped; /* by a stop token or a stop string */
};

/* ---- parts ---- */

static json_t *make_id(const struct prompt *prompt)
{
    if (!prompt->has_id) return json_null();
    if (!prompt->id_is_integer) return json_stringn(prompt->id.data, prompt->id.n);
    long long number = 0;
    int n_read = sscanf(prompt->id.data, "%lld", &number);
    assert(n_read == 1);
    (void)n_read;
    return json_integer(number);
}

/* By it a later run knows that this very line is answered. */
static json_t *make_line_hash(const struct prompt *prompt)
{
    char text[17];
    assert(prompt->line > 0);
    snprintf(text, sizeof text, "%016" PRIx64, prompt->line_hash);
    return json_string(text);
}

static json_t *make_error(const struct prompt *prompt)
{
    assert(prompt->code != PROMPT_GOOD);
    return json_pack("{s:s, s:s, s:I}", "code", prompts_code_name(prompt->code), "message",
                     prompt->message, "line", (json_int_t)prompt->line);
}

/* Cuts `text` before the first of the prompt's stop strings. */
static bool cut_at_stops(const struct prompt *prompt, struct bytes *text)
{
    assert(prompt->n_stops <= PROMPTS_STOPS_MAX);
    bool is_cut = false;
    for (int32_t i = 0; i < prompt->n_stops; i++) {
        struct bytes stop = prompt->stops[i];
        const char *found = memmem(text->data, text->n, stop.data, stop.n);
        if (found == NULL) continue;
        text->n = (size_t)(found - text->data);
        is_cut = true;
    }
    return is_cut;
}

/* The answer's text, without stop token and special tokens. Infill: the whole text, filled in. */
static json_t *make_text(struct line *line)
{
    const struct answer *answer = line->answer;
    bool is_infill = line->prompt->n_masks > 0;
    line->is_stopped = answer->finish_reason == FINISH_STOP;
    if (line->style->tokenizer == NULL) return json_null();
    int32_t n = is_infill ? answer->n_tokens : answer->n_effective - (line->is_stopped ? 1 : 0);
    assert(n >= 0);
    assert(n <= answer->n_tokens);
    struct bytes text;
    struct token_ids tokens = {.ids = answer->token_ids, .n = n};
    if (!tokenizer_decode(line->style->tokenizer, tokens, true, line->scratch, &text, NULL))
        return NULL;
    if (cut_at_stops(line->prompt, &text)) line->is_stopped = true;
    return json_stringn(text.data, text.n);
}

static json_t *make_usage(const struct line *line, bool with_total)
{
    assert(line->answer->n_effective >= 0);
    int32_t n_prompt = line->prompt->request.n_prompt, n_done = line->answer->n_effective;
    json_t *usage = json_pack("{s:i, s:i}", "prompt_tokens", n_prompt, "completion_tokens", n_done);
    if (with_total) json_object_set_new(usage, "total_tokens", json_integer(n_prompt + n_done));
    return usage;
}

static json_t *make_decode(const struct answer *answer)
{
    assert(answer->steps >= 0);
    return json_pack("{s:i, s:i, s:i, s:i, s:I}", "steps", answer->steps, "blocks", answer->blocks,
                     "refresh_steps", answer->refresh_steps, "reuse_steps", answer->reuse_steps,
                     "positions", (json_int_t)answer->positions);
}

/* null: one of the two did not happen. */
static json_t *make_span(uint64_t begin_ns, uint64_t end_ns)
{
    if (begin_ns == 0 || end_ns < begin_ns) return json_null();
    return json_integer((json_int_t)(end_ns - begin_ns));
}

static json_t *make_timing(const struct line *line)
{
    const struct output_style *style = line->style;
    const struct answer_times *times = &line->answer->times;
    uint64_t start_ns = style->start_ns, admitted_ns = line->prompt->request.admitted_ns;
    assert(admitted_ns >= start_ns);
    json_t *timing =
        json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "start_unix_ns",
                  (json_int_t)style->start_unix_ns, "admitted_ns", make_span(start_ns, admitted_ns),
                  "first_forward_ns", make_span(start_ns, times->first_forward_ns),
                  "first_commit_ns", make_span(start_ns, times->first_commit_ns), "first_block_ns",
                  make_span(start_ns, times->first_block_ns), "last_commit_ns",
                  make_span(start_ns, times->last_commit_ns), "finished_ns",
                  make_span(start_ns, times->finished_ns), "queue_ns",
                  make_span(admitted_ns, times->first_forward_ns), "e2e_ns",
                  make_span(admitted_ns, times->finished_ns));
    if (line->prompt->request.arrival_ns > 0)
        json_object_set_new(timing, "arrival_ns",
                            make_span(start_ns, line->prompt->request.arrival_ns));
    return timing;
}

static json_t *make_token_ids(const struct answer *answer)
{
    assert(answer->n_tokens >= 0);
    json_t *ids = json_array();
    for (int32_t i = 0; i < answer->n_tokens; i++)
        json_array_append_new(ids, json_integer(answer->token_ids[i]));
    return ids;
}

/* JSON has no infinity: null. */
static json_t *make_log_prob(float log_prob)
{
    return isfinite(log_prob) ? json_real((double)log_prob) : json_null();
}

static json_t *make_log_probs(const struct answer *answer)
{
    assert(answer->log_probs != NULL);
    json_t *log_probs = json_array();
    for (int32_t i = 0; i < answer->n_tokens; i++)
        json_array_append_new(log_probs, make_log_prob(answer->log_probs[i]));
    return log_probs;
}

/* OpenAI's form: each token with its text. */
static json_t *make_openai_log_probs(const struct line *line)
{
    assert(line->prompt->is_openai);
    const struct answer *answer = line->answer;
    if (answer->log_probs == NULL) return json_null();
    json_t *content = json_array();
    for (int32_t i = 0; i < answer->n_tokens; i++) {
        struct bytes text = {.data = ""};
        size_t mark_bytes = line->scratch->used_bytes;
        json_t *token = json_null();
        if (line->style->tokenizer != NULL &&
            tokenizer_decode(line->style->tokenizer,
                             (struct token_ids){.ids = &answer->token_ids[i], .n = 1}, false,
                             line->scratch, &text, NULL))
            token = json_stringn(text.data, text.n);
        arena_rewind(line->scratch, mark_bytes);
        json_array_append_new(content,
                              json_pack("{s:o, s:o, s:[]}", "token", token, "logprob",
                                        make_log_prob(answer->log_probs[i]), "top_logprobs"));
    }
    return json_pack("{s:o}", "content", content);
}

/* ---- lines ---- */

static json_t *make_plain(struct line *line)
{
    assert(!line->prompt->is_openai);
    const struct answer *answer = line->answer;
    json_t *root =
        json_pack("{s:o, s:I, s:o}", "id", make_id(line->prompt), "index",
                  (json_int_t)line->prompt->index, "line_hash", make_line_hash(line->prompt));
    if (answer == NULL) {
        json_object_set_new(root, "error", make_error(line->prompt));
        return root;
    }
    if (json_object_set_new(root, "text", make_text(line)) != 0) {
        json_decref(root);
        return NULL;
    }
    json_object_set_new(root, "finish_reason", json_string(line->is_stopped ? "stop" : "length"));
    json_object_set_new(root, "usage", make_usage(line, false));
    json_object_set_new(root, "decode", make_decode(answer));
    json_object_set_new(root, "timing", make_timing(line));
    if (line->style->token_ids) json_object_set_new(root, "token_ids", make_token_ids(answer));
    if (answer->log_probs != NULL) json_object_set_new(root, "logprobs", make_log_probs(answer));
    return root;
}

/* Ours in the body: what OpenAI's form has no place for. */
static json_t *make_dllm(const struct line *line)
{
    assert(line->prompt->is_openai);
    json_t *dllm = json_pack("{s:I, s:o}", "index", (json_int_t)line->prompt->index, "line_hash",
                             make_line_hash(line->prompt));
    if (line->answer == NULL) return dllm;
    json_object_set_new(dllm, "decode", make_decode(line->answer));
    json_object_set_new(dllm, "timing", make_timing(line));
    if (line->style->token_ids)
        json_object_set_new(dllm, "token_ids", make_token_ids(line->answer));
    return dllm;
}

/* `created` is 0, because a clock must not change an answer; timing tells the time. */
static json_t *make_completion(struct line *line)
{
    assert(line->style->model_name != NULL);
    char id[40];
    snprintf(id, sizeof id, "chatcmpl-%lld", (long long)line->prompt->index);
    json_t *text = make_text(line);
    if (text == NULL) return NULL;
    json_t *message = json_pack("{s:s, s:o}", "role", "assistant", "content", text);
    json_t *choice = json_pack("{s:i, s:o, s:o, s:s}", "index", 0, "message", message, "logprobs",
                               make_openai_log_probs(line), "finish_reason",
                               line->is_stopped ? "stop" : "length");
    return json_pack("{s:s, s:s, s:i, s:s, s:[o], s:o, s:o}", "id", id, "object", "chat.completion",
                     "created", 0, "model", line->style->model_name, "choices", choice, "usage",
                     make_usage(line, true), "dllm", make_dllm(line));
}

/* A failure can be read from the status code as well as from `error`. */
static json_t *make_openai(struct line *line)
{
    assert(line->prompt->is_openai);
    long long index = (long long)line->prompt->index;
    bool is_good = line->answer != NULL;
    char id[40], request_id[40];
    snprintf(id, sizeof id, "batch_req_%lld", index);
    snprintf(request_id, sizeof request_id, "req_%lld", index);
    json_t *body = is_good ? make_completion(line)
                           : json_pack("{s:o, s:o}", "error", make_error(line->prompt), "dllm",
                                       make_dllm(line));
    if (body == NULL) return NULL;
    json_t *response = json_pack("{s:i, s:s, s:o}", "status_code", is_good ? 200 : 400,
                                 "request_id", request_id, "body", body);
    return json_pack("{s:s, s:o, s:o, s:o}", "id", id, "custom_id", make_id(line->prompt),
                     "response", response, "error",
                     is_good ? json_null() : make_error(line->prompt));
}

char *output_line(const struct output_style *style, const struct prompt *prompt,
                  const struct answer *answer, struct arena *scratch)
{
    assert((answer != NULL) == (prompt->code == PROMPT_GOOD));
    struct line line = {.style = style, .prompt = prompt, .answer = answer, .scratch = scratch};
    size_t mark_bytes = scratch->used_bytes;
    json_t *root = prompt->is_openai ? make_openai(&line) : make_plain(&line);
    char *text = json_write(root, DUMP_FLAGS);
    json_decref(root);
    arena_rewind(scratch, mark_bytes);
    return text;
}
