/* Arbitrary bytes as a trace, plain or compressed. Whatever comes, each row is a request within the
 * model's limits, an error, or left out; and every token that was read is in one of the sums. The
 * first byte picks the options. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "app/prompts.h"
#include "app/trace.h"
#include "fuzz.h"

enum { N_VOCAB = 720, N_POSITIONS = 256, MASK_ID = 702, LINES_MAX = 1000, STAMPS_MAX = 1000 };

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void check_request(const struct prompt *prompt, bool only_shapes)
{
    const struct request *request = &prompt->request;
    require(request->n_prompt > 0);
    require(request->n_prompt + request->decode.gen_length <= N_POSITIONS);
    require(request->stop_after >= 0);
    require(prompt->n_output >= 0 && prompt->n_output <= request->decode.gen_length);
    if (only_shapes && request->prompt_ids == NULL) return;
    for (int32_t i = 0; i < request->n_prompt; i++)
        require(request->prompt_ids[i] >= 0 && request->prompt_ids[i] < N_VOCAB);
}

static void check_arrivals(uint64_t *stamps, int32_t n, const struct trace_schedule *schedule)
{
    struct error err = {0};
    if (n == 0) return;
    qsort(stamps, (size_t)n, sizeof *stamps, compare);
    if (!trace_arrange(stamps, n, schedule, &err)) return;
    require(stamps[0] == 0);
    for (int32_t i = 1; i < n; i++)
        require(stamps[i] >= stamps[i - 1]);
}

static void read_all(struct prompts *prompts, bool only_shapes,
                     const struct trace_schedule *schedule)
{
    static uint64_t stamps[STAMPS_MAX];
    struct prompts_sum served = {0};
    struct prompt prompt;
    struct error err = {0};
    enum prompts_status status = PROMPTS_READ;
    for (int i = 0; i < LINES_MAX && status == PROMPTS_READ; i++) {
        status = prompts_next(prompts, &prompt, &err);
        if (status != PROMPTS_READ) continue;
        require(prompt.line > 0 && prompt.index >= 0 && prompt.index < prompt.line);
        require((prompt.code == PROMPT_GOOD) == (prompt.message[0] == '\0'));
        if (prompt.code != PROMPT_GOOD) continue;
        check_request(&prompt, only_shapes);
        stamps[served.n_requests++] = prompt.request.arrival_ns;
        served.n_prompt += prompt.request.n_prompt;
        served.n_output += prompt.n_output;
    }
    require((status == PROMPTS_FAILED) == (err.code != ERROR_NONE));
    const struct prompts_trace *sums = prompts_trace(prompts);
    require(sums->read.n_requests ==
            served.n_requests + sums->refused.n_requests + sums->skipped.n_requests);
    require(sums->read.n_prompt ==
            served.n_prompt + sums->refused.n_prompt + sums->skipped.n_prompt + sums->cut.n_prompt);
    require(sums->read.n_output ==
            served.n_output + sums->refused.n_output + sums->skipped.n_output + sums->cut.n_output);
    check_arrivals(stamps, (int32_t)served.n_requests, schedule);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const policies[] = {"reject", "clip", "skip", "clip"};
    static const struct model_config config = {.chat_name = "llada",
                                               .n_vocab = N_VOCAB,
                                               .n_positions = N_POSITIONS,
                                               .mask_id = MASK_ID,
                                               .gen_length = 16,
                                               .block_length = 8,
                                               .remasking = "low_confidence"};
    struct options flags;
    struct prompts *prompts;
    struct error err = {0};
    char path[64];
    if (size < 1) return 0;
    options_init(&flags, SUBCOMMAND_REPLAY);
    flags.over_length = policies[data[0] & 3];
    if ((data[0] & 4) != 0) flags.time_unit = "ms";
    if ((data[0] & 8) != 0) flags.time_column = "t";
    bool only_shapes = (data[0] & 16) != 0;
    const struct trace_schedule schedule = {.spreads = (data[0] & 32) != 0,
                                            .rate = (data[0] & 64) != 0 ? 2.5 : 0};
    int fd = memfd_create("input", 0);
    require(fd >= 0);
    require(write(fd, data + 1, size - 1) == (ssize_t)(size - 1));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const struct prompts_options options = {.path = path,
                                            .flags = &flags,
                                            .config = &config,
                                            .is_trace = true,
                                            .only_shapes = only_shapes};
    if (prompts_open(&prompts, &options, &err)) {
        read_all(prompts, only_shapes, &schedule);
        prompts_close(prompts);
    } else {
        require(err.message[0] != '\0');
    }
    close(fd);
    return 0;
}
