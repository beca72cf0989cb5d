/* Arbitrary bytes as a prompt file, with and without a tokenizer and a chat template. Whatever
 * comes, each line is a request within the model's limits or has an error, errors become lines of
 * valid JSON, and the reading ends. The first byte picks the options. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "app/output.h"
#include "app/prompts.h"
#include "fuzz.h"

enum { N_VOCAB = 720, N_POSITIONS = 256, MASK_ID = 702, LINES_MAX = 1000 };

static struct tokenizer *tokenizer;
static struct arena scratch;

static void open_once(void)
{
    struct error err = {0};
    if (tokenizer != NULL) return;
    require(tokenizer_open(&tokenizer, DATA_DIR "/tokenizer/bailing", &err));
    require(arena_create(&scratch, (size_t)64 << 20, &err));
}

static void check_request(const struct prompt *prompt)
{
    const struct request *request = &prompt->request;
    const struct decode_settings *decode = &request->decode;
    require(request->n_prompt > 0);
    require(request->n_prompt + decode->gen_length <= N_POSITIONS);
    require((prompt->n_masks > 0) == (decode->gen_length == 0));
    require(prompt->n_generate > 0);
    require(decode->top_p > 0 && decode->top_p <= 1);
    require(decode->temperature >= 0 && decode->threshold <= 1);
    require(decode->threshold == 0 || decode->factor == 0);
    for (int32_t i = 0; i < request->n_prompt; i++)
        require(request->prompt_ids[i] >= 0 && request->prompt_ids[i] < N_VOCAB);
}

static void check_failure(const struct prompt *prompt)
{
    const struct output_style style = {.model_name = "m"};
    require(prompt->message[0] != '\0');
    char *line = output_line(&style, prompt, NULL, &scratch);
    require(line != NULL);
    json_t *root = json_loads(line, JSON_ALLOW_NUL, NULL);
    require(json_is_object(root));
    require(json_object_get(root, "error") != NULL);
    json_decref(root);
    free(line);
}

/* `hurry_fd`: can be read; -1: lines are not waited for. */
static void read_all(const char *path, const struct options *flags, bool has_tokenizer,
                     int hurry_fd)
{
    struct error err = {0};
    struct prompts *prompts;
    struct prompt prompt;
    const struct model_config config = {.chat_name = "llada",
                                        .n_vocab = N_VOCAB,
                                        .n_positions = N_POSITIONS,
                                        .mask_id = MASK_ID,
                                        .gen_length = 16,
                                        .block_length = 8,
                                        .remasking = "low_confidence"};
    const struct prompts_options options = {.path = path,
                                            .flags = flags,
                                            .config = &config,
                                            .tokenizer = has_tokenizer ? tokenizer : NULL};
    require(prompts_open(&prompts, &options, &err));
    enum prompts_status status = PROMPTS_READ;
    for (int i = 0; i < LINES_MAX && status == PROMPTS_READ; i++) {
        if (i > 0 && hurry_fd >= 0) require(prompts_wait(prompts, hurry_fd)); /* a file is there */
        status = prompts_next(prompts, &prompt, &err);
        if (status != PROMPTS_READ) continue;
        require(prompt.line > 0 && prompt.index == prompt.line - 1);
        if (prompt.code == PROMPT_GOOD) check_request(&prompt);
        else check_failure(&prompt);
    }
    require((status == PROMPTS_FAILED) == (err.code != ERROR_NONE));
    prompts_close(prompts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    open_once();
    struct options flags;
    options_init(&flags, SUBCOMMAND_RUN);
    flags.no_chat = (data[0] & 1) != 0;
    if ((data[0] & 2) != 0) flags.prompt_key = "p";
    if ((data[0] & 4) != 0 && !flags.no_chat) flags.system = "<|mdm_mask|> S";
    int fd = memfd_create("input", 0);
    require(fd >= 0);
    require(write(fd, data + 1, size - 1) == (ssize_t)(size - 1));
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    read_all(path, &flags, (data[0] & 8) == 0, (data[0] & 16) != 0 ? fd : -1);
    close(fd);
    return 0;
}
