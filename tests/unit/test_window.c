/* app/window: windows hold as much as their limits allow, in order, and lose no line between them.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/window.h"
#include "base/stream.h"

static struct options flags;
static struct model_config config = {.chat_name = "llada",
                                     .n_vocab = 100,
                                     .n_positions = 512,
                                     .mask_id = 99,
                                     .gen_length = 32,
                                     .block_length = 16,
                                     .remasking = "low_confidence"};
static struct intake intake = {.hurry_fd = -1};
static struct window window;
static struct error err;

static void open_text(const char *text)
{
    char path[] = "/tmp/test-window-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    options_init(&flags, SUBCOMMAND_RUN);
    const struct prompts_options options = {.path = path, .flags = &flags, .config = &config};
    cr_assert(prompts_open(&intake.prompts, &options, &err), "%s", err.message);
    unlink(path);
}

/* What a writer has written so far; more may come through the descriptor. */
static int open_pipe(const char *text)
{
    int fds[2];
    char path[64];
    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write(fds[1], text, strlen(text)), (ssize_t)strlen(text));
    snprintf(path, sizeof path, "/dev/fd/%d", fds[0]);
    options_init(&flags, SUBCOMMAND_RUN);
    const struct prompts_options options = {.path = path, .flags = &flags, .config = &config};
    cr_assert(prompts_open(&intake.prompts, &options, &err), "%s", err.message);
    close(fds[0]);
    return fds[1];
}

static void create(int32_t n_prompts_max, int64_t n_cells_max)
{
    const struct window_limits limits = {.n_prompts_max = n_prompts_max,
                                         .n_cells_max = n_cells_max};
    cr_assert(window_create(&window, &limits, &err), "%s", err.message);
}

static void close_all(void)
{
    window_destroy(&window);
    prompts_close(intake.prompts);
}

TestSuite(window, .fini = close_all);

#define LINE(n) "{\"prompt_token_ids\": [1, 2], \"gen_length\": " #n "}\n"

Test(window, a_window_takes_no_more_lines_than_its_limit)
{
    open_text(LINE(1) "bad\n" LINE(2) LINE(3));
    create(3, 1000);
    window_fill(&window, &intake);
    cr_assert_eq(window.n_prompts, 3);
    cr_assert_eq(window.n_requests, 2);
    cr_assert(!window.is_last);
    cr_assert_eq(window.prompts[1].code, PROMPT_INVALID_JSON);
    cr_assert_eq(window.requests[1].index, 2);
    cr_assert_eq(window.requests[1].line_state, &window.prompts[2]);
    window_fill(&window, &intake);
    cr_assert_eq(window.n_prompts, 1);
    cr_assert(window.is_last);
    cr_assert_eq(window.failure.code, ERROR_NONE);
}

Test(window, in_a_hurry_it_takes_the_lines_that_are_there)
{
    int hurry[2];
    int writer = open_pipe(LINE(1) "\n" LINE(2) "\n{\"prom");
    cr_assert_eq(pipe(hurry), 0);
    cr_assert_eq(write(hurry[1], "!", 1), 1);
    intake.hurry_fd = hurry[0];
    create(10, 1000);
    window_fill(&window, &intake);
    cr_assert_eq(window.n_prompts, 2);
    cr_assert(!window.is_last);
    cr_assert_eq(write(writer, "pt\"\n", 4), 4);
    close(writer);
    window_fill(&window, &intake);
    cr_assert_eq(window.n_prompts, 1);
    cr_assert_eq(window.prompts[0].line, 5);
    cr_assert(window.is_last);
}

Test(window, a_line_whose_canvas_does_not_fit_opens_the_next_window)
{
    open_text(LINE(8) LINE(8) LINE(1));
    create(10, 20);
    window_fill(&window, &intake);
    cr_assert_eq(window.n_prompts, 2);
    cr_assert(!window.is_last);
    window_fill(&window, &intake);
    cr_assert_eq(window.n_prompts, 1);
    cr_assert_eq(window.requests[0].index, 2);
    cr_assert_eq(window.requests[0].decode.gen_length, 1);
    cr_assert(window.is_last);
}

Test(window, lines_keep_ids_stops_and_tokens_after_the_reader_went_on)
{
    open_text("{\"id\": \"first\", \"prompt_token_ids\": [1, 2, 3], \"stop\": [\"x\", \"yz\"]}\n"
              "{\"id\": \"other\", \"prompt_token_ids\": [7, 8], \"stop\": \"QQQQ\"}\n");
    create(10, 1000);
    window_fill(&window, &intake);
    const struct prompt *first = &window.prompts[0];
    cr_assert_str_eq(first->id.data, "first");
    cr_assert_str_eq(window.requests[0].id, "first");
    cr_assert_eq(first->n_stops, 2);
    cr_assert_str_eq(first->stops[1].data, "yz");
    cr_assert_eq(window.requests[0].prompt_ids[2], 3);
    cr_assert_eq(window.requests[1].prompt_ids[1], 8);
}

Test(window, the_largest_lines_fit_the_reserved_memory)
{
    enum { LINES = 5, PADDING = 64 };
    static char text[LINES * (PROMPTS_ID_BYTES_MAX + 4 * PROMPTS_STOP_BYTES_MAX + 256)];
    char id[PROMPTS_ID_BYTES_MAX + 1], stop[PROMPTS_STOP_BYTES_MAX + 1];
    memset(id, 'i', sizeof id - 1);
    memset(stop, 's', sizeof stop - 1);
    id[sizeof id - 1] = stop[sizeof stop - 1] = '\0';
    for (int i = 0; i < LINES; i++) {
        id[0] = (char)('a' + i);
        sprintf(text + strlen(text),
                "{\"id\": \"%s\", \"prompt_token_ids\": [1, 1, 1, 1], \"gen_length\": 4, \"stop\": "
                "[\"%s\", \"%s\", \"%s\", \"%s\"]}\n",
                id, stop, stop, stop, stop);
    }
    open_text(text);
    create(LINES, LINES * 8);
    window_fill(&window, &intake);
    cr_assert_eq(window.n_requests, LINES);
}

Test(window, an_empty_input_is_an_empty_last_window)
{
    open_text("\n\n");
    create(4, 100);
    window_fill(&window, &intake);
    cr_assert_eq(window.n_prompts, 0);
    cr_assert(window.is_last);
}

Test(window, damaged_input_ends_with_its_failure_after_what_was_read)
{
    char path[] = "/tmp/test-window-XXXXXX";
    struct writer *writer;
    close(mkstemp(path));
    const struct writer_options whole = {.path = path, .compress = true, .overwrite = true};
    cr_assert(writer_open(&writer, &whole, &err), "%s", err.message);
    cr_assert(writer_append(writer, LINE(1), strlen(LINE(1)), &err));
    cr_assert(writer_close(writer, &err));
    FILE *file = fopen(path, "a");
    fwrite("\x28\xB5\x2F\xFD\x04", 1, 5, file); /* a frame that ends in its header */
    fclose(file);
    options_init(&flags, SUBCOMMAND_RUN);
    const struct prompts_options options = {.path = path, .flags = &flags, .config = &config};
    cr_assert(prompts_open(&intake.prompts, &options, &err), "%s", err.message);
    create(4, 100);
    window_fill(&window, &intake);
    unlink(path);
    cr_assert_eq(window.n_prompts, 1);
    cr_assert(window.is_last);
    cr_assert_eq(window.failure.code, ERROR_FORMAT, "%s", window.failure.message);
}
