/* dllm-batch inspect: what a model folder holds, as text for people, and every problem found in it.
 * A problem does not end the inspection: what can still be read is read. Nothing is computed. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "app/app.h"
#include "base/arena.h"
#include "model/config.h"
#include "model/weights.h"
#include "text/chat.h"
#include "text/tokenizer.h"

/* Address space for configuration, file headers and decoded pieces; pages cost when touched. */
#define INSPECT_BYTES_MAX ((size_t)1 << 30)

struct inspection {
    const char *model_dir;
    struct arena arena;
    struct model_config config;
    bool has_config;
    struct tokenizer *tokenizer; /* NULL: none, or unreadable */
    int32_t n_problems;
};

/* ---- lines of the report ---- */

__attribute__((format(printf, 2, 3))) static void print_fact(const char *name, const char *format,
                                                             ...)
{
    assert(name != NULL);
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error_print(stdout, "%-14s %s", name, text);
}

static void report(void *context, const char *message)
{
    struct inspection *inspection = context;
    inspection->n_problems++;
    print_fact("PROBLEM", "%s", message);
}

/* ---- parts ---- */

static void inspect_config(struct inspection *inspection)
{
    struct error err = {0};
    struct model_config *config = &inspection->config;
    inspection->has_config = config_read(config, inspection->model_dir, &inspection->arena, &err);
    if (!inspection->has_config) {
        report(inspection, err.message);
        return;
    }
    print_fact("family", "%s (%s)", config->family_name, config->architecture);
    print_fact("layers", "%" PRId32, config->n_layers);
    print_fact("hidden", "%" PRId32 ", feed-forward %" PRId32, config->hidden, config->ffn);
    print_fact("heads", "%" PRId32 " of %" PRId32 ", %" PRId32 " for keys and values",
               config->n_heads, config->head_dim, config->n_kv_heads);
    print_fact("vocabulary", "%" PRId32 " rows%s", config->n_vocab,
               config->tied_head ? ", head tied to the embedding" : "");
    print_fact("positions", "%" PRId32 ", RoPE theta %.9g", config->n_positions,
               (double)config->rope_theta);
    print_fact("variant", "RMS epsilon %g, %s bias on q, k and v, logits of a row for %s",
               (double)config->rms_epsilon, config->qkv_bias ? "a" : "no",
               config->shift != 0 ? "the next position" : "its own position");
    print_fact("parameters", "%" PRId64, config_n_parameters(config));
}

/* The weights cannot be checked against shapes that nobody knows. */
static void inspect_weights(struct inspection *inspection)
{
    if (!inspection->has_config) {
        print_fact("weights", "not checked without a configuration");
        return;
    }
    int64_t n_bytes = 0;
    int32_t n_tensors = weights_inspect(&inspection->config, inspection->model_dir,
                                        &inspection->arena, report, inspection, &n_bytes);
    print_fact("weights", "%" PRId32 " tensors as expected, %" PRId64 " bytes", n_tensors, n_bytes);
}

static void inspect_tokenizer(struct inspection *inspection)
{
    struct error err = {0};
    if (!tokenizer_open(&inspection->tokenizer, inspection->model_dir, &err)) {
        inspection->tokenizer = NULL;
        if (err.code != ERROR_NO_INPUT) report(inspection, err.message);
        print_fact("tokenizer", "none: only prompt_token_ids can be answered");
        return;
    }
    if (inspection->has_config) app_learn_turn_end(&inspection->config, inspection->tokenizer);
    struct tokenizer_facts facts = tokenizer_facts(inspection->tokenizer);
    int32_t n_ids = tokenizer_n_ids(inspection->tokenizer);
    print_fact(
        "tokenizer", "%s: %" PRId32 " pieces, %" PRId32 " merges, %" PRId32 " added tokens%s",
        facts.source, facts.n_vocab, facts.n_merges, facts.n_added, facts.nfc ? ", NFC" : "");
    print_fact("split regex", "%s", facts.split_regex[0] != '\0' ? facts.split_regex : "none");
    if (inspection->has_config && n_ids > inspection->config.n_vocab) {
        char message[160];
        snprintf(message, sizeof message,
                 "the tokenizer has ids up to %" PRId32 ", the model's vocabulary %" PRId32 " rows",
                 n_ids - 1, inspection->config.n_vocab);
        report(inspection, message);
    }
}

static void inspect_template(struct inspection *inspection)
{
    const struct chat_template *chat =
        inspection->has_config ? chat_find(inspection->config.chat_name) : NULL;
    if (chat == NULL || inspection->tokenizer == NULL) return;
    struct tokenizer_facts facts = tokenizer_facts(inspection->tokenizer);
    const char *verdict = "none in the folder, the built-in one is used";
    if (facts.chat_template != NULL)
        verdict = chat_matches(chat, facts.chat_template)
                      ? "the folder's agrees with the built-in one"
                      : "the folder's DIFFERS from the built-in one, which is used";
    print_fact("chat template", "%s: %s", chat_name(chat), verdict);
}

/* "mask 5 <|mask|>": the tokenizer's text shows at a glance whether an id is the right one. */
static void print_id(struct inspection *inspection, const char *name, int32_t id)
{
    struct bytes text = {.data = ""};
    struct arena *arena = &inspection->arena;
    size_t mark_bytes = arena->used_bytes;
    if (id < 0) {
        print_fact(name, "not given");
        return;
    }
    if (inspection->tokenizer == NULL ||
        !tokenizer_decode(inspection->tokenizer, (struct token_ids){&id, 1}, false, arena, &text,
                          NULL))
        text.data = "";
    char prefix[16];
    snprintf(prefix, sizeof prefix, "%" PRId32 "%s", id, text.data[0] != '\0' ? " " : "");
    print_fact(name, "%s%s", prefix, text.data);
    arena_rewind(arena, mark_bytes);
}

static void inspect_ids(struct inspection *inspection)
{
    const struct model_config *config = &inspection->config;
    if (!inspection->has_config) return;
    print_id(inspection, "mask id", config->mask_id);
    print_id(inspection, "eos id", config->eos_id);
    print_id(inspection, "eot id", config->eot_id);
    print_id(inspection, "pad id", config->pad_id);
    print_id(inspection, "bos id", config->bos_id);
    for (int32_t i = 0; i < config->n_stop_ids; i++)
        print_id(inspection, "stops at", config->stop_ids[i]);
}

static void inspect_defaults(const struct inspection *inspection)
{
    const struct model_config *config = &inspection->config;
    if (!inspection->has_config) return;
    print_fact("gen length", "%" PRId32, config->gen_length);
    if (config->block_length > 0) print_fact("block length", "%" PRId32, config->block_length);
    else print_fact("block length", "gen length");
    if (config->steps > 0) print_fact("steps", "%" PRId32, config->steps);
    else print_fact("steps", "one for each token");
    print_fact("remasking", "%s", config->remasking);
    print_fact("sampling", "temperature %g, top-p %g, top-k %" PRId32 ", alg-temp %g",
               config->temperature, config->top_p, config->top_k, config->alg_temp);
}

/* ---- the command ---- */

static bool check_folder(const char *model_dir, struct error *err)
{
    struct stat status;
    if (stat(model_dir, &status) != 0)
        return error_set(err, ERROR_NO_INPUT, "model folder '%s': %s", model_dir, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return error_set(err, ERROR_NO_INPUT, "model folder '%s': not a folder", model_dir);
    return true;
}

bool cmd_inspect(const struct options *options, int *status, struct error *err)
{
    assert(options->model != NULL);
    struct inspection inspection = {.model_dir = options->model};
    if (!check_folder(inspection.model_dir, err)) return false;
    if (!arena_create(&inspection.arena, INSPECT_BYTES_MAX, err)) return false;
    print_fact("folder", "%s", inspection.model_dir);
    inspect_config(&inspection);
    inspect_weights(&inspection);
    inspect_tokenizer(&inspection);
    inspect_template(&inspection);
    inspect_ids(&inspection);
    inspect_defaults(&inspection);
    tokenizer_close(inspection.tokenizer);
    arena_destroy(&inspection.arena);
    *status = inspection.n_problems > 0 ? ERROR_FORMAT : 0;
    if (inspection.n_problems == 0) return true;
    return error_set(err, ERROR_FORMAT, "%s: %" PRId32 " problem%s", inspection.model_dir,
                     inspection.n_problems, inspection.n_problems == 1 ? "" : "s");
}
