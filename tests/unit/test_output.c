/* app/output: where answers go, what a line says in both forms, and when and in which order lines
 * reach the file. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/output.h"
#include "base/stream.h"

static char folder[] = "/tmp/test-output-XXXXXX";
static struct options options;
static struct output_place place;
static struct arena arena;
static struct error err;

static void set_up(void)
{
    options_init(&options, SUBCOMMAND_RUN);
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
    cr_assert(arena_create(&arena, (size_t)1 << 24, &err));
}

static void clean_up(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

static void write_file(const char *name)
{
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file);
    fclose(file);
}

TestSuite(output, .init = set_up, .fini = clean_up);

/* ---- where ---- */

static struct shard shard = {.count = 1};

static bool choose(const char *input, const char *output)
{
    options.operand = input;
    options.output = output;
    options.is_set[OPTION_output] = output != NULL;
    err = (struct error){0};
    return output_choose(&place, &options, &shard, &err);
}

Test(output, the_default_name_replaces_the_suffix_of_the_input)
{
    static const char *const cases[][2] = {
        {"a.jsonl", "a.out.jsonl.zst"},       {"a.jsonl.zst", "a.out.jsonl.zst"},
        {"a.jsonl.gz", "a.out.jsonl.zst"},    {"./b.c/a.json", "./b.c/a.out.jsonl.zst"},
        {"./b.c/a", "./b.c/a.out.jsonl.zst"}, {".hidden", ".hidden.out.jsonl.zst"},
        {"a.zst", "a.out.jsonl.zst"},         {"a.b.jsonl", "a.b.out.jsonl.zst"},
    };
    cr_assert_eq(mkdir("b.c", 0777), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert(choose(cases[i][0], NULL), "%s", err.message);
        cr_assert_str_eq(place.path, cases[i][1]);
        cr_assert(place.compress);
    }
    options.no_compress = true;
    cr_assert(choose("a.jsonl", NULL));
    cr_assert_str_eq(place.path, "a.out.jsonl");
    cr_assert(!place.compress);
}

Test(output, a_shard_has_its_number_in_the_name_of_its_file)
{
    shard = (struct shard){.index = 3, .count = 8};
    cr_assert(choose("a.jsonl", NULL), "%s", err.message);
    cr_assert_str_eq(place.path, "a.out.00003-of-00008.jsonl.zst");
    cr_assert(place.compress);
    cr_assert(choose("a.jsonl", "b.txt"), "%s", err.message);
    cr_assert_str_eq(place.path, "b.00003-of-00008.txt");
    cr_assert(choose("a.jsonl", "-"), "%s", err.message);
    cr_assert_str_eq(place.path, "-");
    cr_assert(choose("a.jsonl", "/dev/null"), "%s", err.message);
    cr_assert_str_eq(place.path, "/dev/null");
    write_file("c.jsonl");
    cr_assert(choose("a.jsonl", "c.jsonl"), "%s", err.message);
    cr_assert(!place.exists);
    write_file("c.00003-of-00008.jsonl");
    cr_assert(choose("a.jsonl", "c.jsonl"), "%s", err.message);
    cr_assert(place.exists);
    char name[OUTPUT_PATH_BYTES_MAX];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    cr_assert(!choose("a.jsonl", name));
    cr_assert_eq(err.code, ERROR_CREATE);
}

Test(output, the_suffix_of_the_given_name_decides_about_compression)
{
    cr_assert(choose("a.jsonl", "x.zst"));
    cr_assert(place.compress);
    cr_assert(choose("a.jsonl", "x.jsonl"));
    cr_assert(!place.compress);
    cr_assert(!choose("a.jsonl", "x.gz"));
    cr_assert_eq(err.code, ERROR_USAGE);
    options.no_compress = true;
    cr_assert(choose("a.jsonl", "x.jsonl"));
    cr_assert(!choose("a.jsonl", "x.zst"));
    cr_assert_eq(err.code, ERROR_USAGE);
}

Test(output, standard_input_goes_to_standard_output)
{
    cr_assert(choose(NULL, NULL));
    cr_assert_str_eq(place.path, "-");
    cr_assert(choose("-", NULL));
    cr_assert_str_eq(place.path, "-");
    cr_assert(choose("a.jsonl", "-"));
    cr_assert_str_eq(place.path, "-");
    options.no_compress = true;
    cr_assert(choose("-", NULL));
    cr_assert(!place.compress);
}

Test(output, an_existing_file_needs_force_and_the_input_is_never_overwritten)
{
    write_file("in.jsonl");
    write_file("there");
    cr_assert_eq(symlink("in.jsonl", "link"), 0);
    cr_assert(choose("in.jsonl", "there"), "run looks whether it is its own");
    cr_assert(place.exists && !place.overwrite);
    options.subcommand = SUBCOMMAND_REPLAY;
    cr_assert(!choose("in.jsonl", "there"));
    cr_assert_eq(err.code, ERROR_CREATE);
    cr_assert_not_null(strstr(err.message, "there exists already; use -f"));
    options.force = true;
    cr_assert(choose("in.jsonl", "there"));
    cr_assert(place.overwrite);
    cr_assert(!choose("in.jsonl", "in.jsonl"));
    cr_assert(!choose("in.jsonl", "link"));
    cr_assert_not_null(strstr(err.message, "is the input"));
}

Test(output, impossible_places_are_refused_before_anything_is_created)
{
    write_file("file");
    cr_assert(!choose("a.jsonl", "missing/x"));
    cr_assert_eq(err.code, ERROR_CREATE);
    cr_assert_not_null(strstr(err.message, "directory"));
    cr_assert(!choose("a.jsonl", "file/x"));
    cr_assert(!choose("a.jsonl", folder));
    cr_assert_eq(err.code, ERROR_CREATE);
    cr_assert(!choose("a.jsonl", ""));
    cr_assert_eq(err.code, ERROR_USAGE);
}

/* ---- lines ---- */

static const struct output_style style = {
    .model_name = "m", .start_unix_ns = 5000, .start_ns = 1000};

static struct prompt make_prompt(void)
{
    return (struct prompt){.index = 6,
                           .line = 7,
                           .line_hash = UINT64_C(0x0123456789ABCDEF),
                           .has_id = true,
                           .id = {.data = "a\"b", .n = 3},
                           .message = "",
                           .n_generate = 4,
                           .request = {.n_prompt = 3, .admitted_ns = 1100}};
}

static struct answer make_answer(void)
{
    static const int32_t ids[] = {4, 5, 6, 7};
    static const float log_probs[] = {-0.5f, 0, -INFINITY, -1};
    return (struct answer){.token_ids = ids,
                           .log_probs = log_probs,
                           .n_tokens = 4,
                           .n_effective = 3,
                           .finish_reason = FINISH_STOP,
                           .steps = 3,
                           .blocks = 1,
                           .refresh_steps = 3,
                           .times = {.first_forward_ns = 1200, .finished_ns = 1500}};
}

/* The line as JSON without spaces; valid until the next call. */
static const char *line_of(const struct output_style *how, const struct prompt *prompt,
                           const struct answer *answer)
{
    static char copy[1 << 16];
    char *line = output_line(how, prompt, answer, &arena);
    cr_assert_not_null(line);
    cr_assert_null(strchr(line, '\n'));
    cr_assert_eq(arena.used_bytes, 0);
    cr_assert_lt(strlen(line), sizeof copy);
    strcpy(copy, line);
    free(line);
    return copy;
}

Test(output, an_answer_has_the_documented_keys_in_order)
{
    struct output_style with_ids = style;
    struct prompt prompt = make_prompt();
    struct answer answer = make_answer();
    with_ids.token_ids = true;
    cr_assert_str_eq(
        line_of(&with_ids, &prompt, &answer),
        "{\"id\":\"a\\\"b\",\"index\":6,\"line_hash\":\"0123456789abcdef\",\"text\":null,\"finish_"
        "reason\":\"stop\","
        "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":3},"
        "\"decode\":{\"steps\":3,\"blocks\":1,\"refresh_steps\":3,\"reuse_steps\":0,\"positions\":"
        "0},"
        "\"timing\":{\"start_unix_ns\":5000,\"admitted_ns\":100,\"first_forward_ns\":200,"
        "\"first_commit_ns\":null,\"first_block_ns\":null,\"last_commit_ns\":null,"
        "\"finished_ns\":500,\"queue_ns\":100,\"e2e_ns\":400},"
        "\"token_ids\":[4,5,6,7],\"logprobs\":[-0.5,0.0,null,-1.0]}");
}

Test(output, ids_and_logprobs_only_stand_there_when_asked_for)
{
    struct prompt prompt = make_prompt();
    struct answer answer = make_answer();
    answer.log_probs = NULL;
    const char *line = line_of(&style, &prompt, &answer);
    cr_assert_null(strstr(line, "token_ids"));
    cr_assert_null(strstr(line, "logprobs"));
}

Test(output, a_request_of_a_trace_has_its_arrival_others_do_not)
{
    struct prompt prompt = make_prompt();
    struct answer answer = make_answer();
    cr_expect_null(strstr(line_of(&style, &prompt, &answer), "arrival_ns"));
    prompt.request.arrival_ns = prompt.request.admitted_ns = 1050;
    const char *line = line_of(&style, &prompt, &answer);
    cr_expect_not_null(strstr(line, "\"queue_ns\":150,\"e2e_ns\":450,\"arrival_ns\":50}"), "%s",
                       line);
}

Test(output, integer_ids_stay_integers)
{
    struct prompt prompt = make_prompt();
    struct answer answer = make_answer();
    prompt.id = (struct bytes){.data = "-9223372036854775808", .n = 20};
    prompt.id_is_integer = true;
    cr_assert_not_null(strstr(line_of(&style, &prompt, &answer), "{\"id\":-9223372036854775808,"));
}

Test(output, a_failure_has_code_message_and_line)
{
    struct prompt prompt = make_prompt();
    prompt.code = PROMPT_MISSING;
    prompt.message = "prompt is empty";
    cr_assert_str_eq(line_of(&style, &prompt, NULL),
                     "{\"id\":\"a\\\"b\",\"index\":6,\"line_hash\":\"0123456789abcdef\",\"error\":{"
                     "\"code\":\"missing_prompt\","
                     "\"message\":\"prompt is empty\",\"line\":7}}");
    prompt.has_id = false;
    cr_assert_not_null(strstr(line_of(&style, &prompt, NULL), "{\"id\":null,"));
}

Test(output, openai_failures_show_in_status_code_body_and_error)
{
    struct prompt prompt = make_prompt();
    prompt.is_openai = true;
    prompt.code = PROMPT_MISSING;
    prompt.message = "m";
    cr_assert_str_eq(line_of(&style, &prompt, NULL),
                     "{\"id\":\"batch_req_6\",\"custom_id\":\"a\\\"b\",\"response\":{"
                     "\"status_code\":400,\"request_id\":\"req_6\",\"body\":{\"error\":{"
                     "\"code\":\"missing_prompt\",\"message\":\"m\",\"line\":7},"
                     "\"dllm\":{\"index\":6,\"line_hash\":\"0123456789abcdef\"}}},"
                     "\"error\":{\"code\":\"missing_prompt\",\"message\":\"m\",\"line\":7}}");
}

/* Opens a tokenizer whose letters are single tokens; "END" has none of its own. */
static struct tokenizer *open_tokenizer(void)
{
    struct tokenizer *tokenizer;
    cr_assert(tokenizer_open(&tokenizer, DATA_DIR "/tokenizer/bailing", &err), "%s", err.message);
    return tokenizer;
}

/* An answer of `text` and the end-of-text token. */
static struct answer answer_of(const struct tokenizer *tokenizer, const char *text)
{
    struct answer answer = make_answer();
    struct token_ids tokens;
    static struct arena texts;
    if (texts.base == NULL) cr_assert(arena_create(&texts, (size_t)1 << 24, &err));
    cr_assert(tokenizer_encode(tokenizer, (struct bytes){text, strlen(text)}, true, &texts, &tokens,
                               &err));
    answer.token_ids = tokens.ids;
    answer.n_tokens = answer.n_effective = tokens.n;
    answer.log_probs = NULL;
    return answer;
}

Test(output, text_ends_before_stop_token_and_stop_strings)
{
    struct output_style with_text = style;
    struct tokenizer *tokenizer = open_tokenizer();
    struct prompt prompt = make_prompt();
    with_text.tokenizer = tokenizer;
    struct answer answer = answer_of(tokenizer, "one two three<|endoftext|>");
    cr_assert_not_null(
        strstr(line_of(&with_text, &prompt, &answer), "\"text\":\"one two three\","));
    prompt.n_stops = 2;
    prompt.stops[0] = (struct bytes){" three", 6};
    prompt.stops[1] = (struct bytes){"two", 3};
    cr_assert_not_null(strstr(line_of(&with_text, &prompt, &answer), "\"text\":\"one \","));
    answer = answer_of(tokenizer, "one two");
    answer.finish_reason = FINISH_LENGTH;
    cr_assert_not_null(strstr(line_of(&with_text, &prompt, &answer),
                              "\"text\":\"one \",\"finish_reason\":\"stop\""));
    prompt.n_stops = 1;
    cr_assert_not_null(strstr(line_of(&with_text, &prompt, &answer),
                              "\"text\":\"one two\",\"finish_reason\":\"length\""));
    tokenizer_close(tokenizer);
}

Test(output, without_early_stop_the_text_still_ends_at_the_stop_token)
{
    struct output_style with_text = style;
    struct tokenizer *tokenizer = open_tokenizer();
    struct prompt prompt = make_prompt();
    with_text.tokenizer = tokenizer;
    with_text.token_ids = true;
    struct answer answer = answer_of(tokenizer, "a<|endoftext|>b<|endoftext|>");
    cr_assert_eq(answer.n_tokens, 4);
    answer.n_effective = 2;
    const char *line = line_of(&with_text, &prompt, &answer);
    cr_assert_not_null(strstr(line, "\"text\":\"a\","), "%s", line);
    cr_assert_not_null(strstr(line, "\"completion_tokens\":2}"));
    json_t *root = json_loads(line, 0, NULL);
    cr_assert_eq(json_array_size(json_object_get(root, "token_ids")), 4);
    json_decref(root);
    tokenizer_close(tokenizer);
}

Test(output, infilled_text_is_the_whole_canvas)
{
    struct output_style with_text = style;
    struct tokenizer *tokenizer = open_tokenizer();
    struct prompt prompt = make_prompt();
    with_text.tokenizer = tokenizer;
    struct answer answer = answer_of(tokenizer, "a b c");
    prompt.n_masks = answer.n_effective = 1;
    answer.finish_reason = FINISH_LENGTH;
    cr_assert_not_null(strstr(line_of(&with_text, &prompt, &answer), "\"text\":\"a b c\","));
    tokenizer_close(tokenizer);
}

Test(output, openai_answers_are_chat_completions_with_ours_beside)
{
    struct output_style with_text = style;
    struct tokenizer *tokenizer = open_tokenizer();
    struct prompt prompt = make_prompt();
    struct answer answer = answer_of(tokenizer, "a<|endoftext|>");
    static const float log_probs[] = {-0.5f, -0.25f};
    prompt.is_openai = true;
    answer.log_probs = log_probs;
    with_text.tokenizer = tokenizer;
    json_t *root = json_loads(line_of(&with_text, &prompt, &answer), 0, NULL);
    const char *id, *object, *model, *role, *content, *finish, *token;
    int status, created, total, steps, index;
    double log_prob;
    json_t *error, *choice, *entry;
    cr_assert_eq(json_unpack(root,
                             "{s:s, s:o, s:{s:i, s:{s:s, s:i, s:s, s:[o], s:{s:i}, s:{s:i, "
                             "s:{s:i}}}}}",
                             "custom_id", &id, "error", &error, "response", "status_code", &status,
                             "body", "object", &object, "created", &created, "model", &model,
                             "choices", &choice, "usage", "total_tokens", &total, "dllm", "index",
                             &index, "decode", "steps", &steps),
                 0);
    cr_assert_eq(json_unpack(choice, "{s:{s:s, s:s}, s:{s:[o, o!]}, s:s}", "message", "role", &role,
                             "content", &content, "logprobs", "content", &entry, &error,
                             "finish_reason", &finish),
                 0);
    cr_assert_eq(json_unpack(entry, "{s:s, s:F}", "token", &token, "logprob", &log_prob), 0);
    cr_assert_eq(status, 200);
    cr_assert_eq(total, 5);
    cr_assert_eq(created, 0);
    cr_assert_eq(index, 6);
    cr_assert_str_eq(object, "chat.completion");
    cr_assert_str_eq(role, "assistant");
    cr_assert_str_eq(content, "a");
    cr_assert_str_eq(finish, "stop");
    cr_assert_str_eq(token, "a");
    cr_assert_str_eq(json_string_value(json_object_get(error, "token")), "<|endoftext|>");
    cr_assert_float_eq(log_prob, -0.5, 0);
    json_decref(root);
    tokenizer_close(tokenizer);
}

/* ---- writing ---- */

static void check_file(const char *name, const char *expected)
{
    struct bytes content;
    cr_assert(stream_read_file(name, 1 << 20, &arena, &content, &err), "%s", err.message);
    cr_assert_str_eq(content.data, expected);
    arena_rewind(&arena, 0);
}

static void put(struct output *output, int32_t slot, const char *line)
{
    cr_assert(output_put(output, slot, strdup(line), &err), "%s", err.message);
}

static void close_output(struct output *output)
{
    bool is_broken_pipe;
    cr_assert(output_close(output, NULL, &is_broken_pipe, &err), "%s", err.message);
    cr_assert(!is_broken_pipe);
}

/* At `place`. */
static struct output *open_output(void)
{
    struct output *output;
    cr_assert(output_open(&output, &place, &options, NULL, &err), "%s", err.message);
    return output;
}

static off_t file_bytes(const char *name)
{
    struct stat status;
    cr_assert_eq(stat(name, &status), 0);
    return status.st_size;
}

Test(output, lines_go_out_as_they_come)
{
    cr_assert(choose("a.jsonl", "x.zst"));
    struct output *output = open_output();
    cr_assert(output_start_window(output, 2, &err));
    put(output, 1, "b");
    put(output, 0, "a");
    close_output(output);
    check_file("x.zst", "b\na\n");
}

Test(output, ordered_lines_wait_for_earlier_ones)
{
    cr_assert(choose("a.jsonl", "x"));
    options.ordered = true;
    struct output *output = open_output();
    cr_assert(output_start_window(output, 3, &err));
    put(output, 2, "c");
    put(output, 0, "a");
    put(output, 1, "b");
    cr_assert(output_start_window(output, 5, &err));
    put(output, 3, "g");
    put(output, 0, "d");
    put(output, 2, "f");
    close_output(output); /* stopped: slot 1 and 4 never came */
    check_file("x", "a\nb\nc\nd\nf\ng\n");
}

Test(output, a_group_is_flushed_at_64_kib)
{
    static char line[33000];
    memset(line, 'x', sizeof line - 1);
    struct stat status;
    cr_assert(choose("a.jsonl", "x.zst"));
    struct output *output = open_output();
    put(output, 0, line);
    cr_assert_eq(stat("x.zst", &status), 0);
    cr_assert_eq(status.st_size, 0);
    put(output, 0, line);
    struct bytes content;
    cr_assert(stream_read_file("x.zst", 1 << 20, &arena, &content, &err), "%s", err.message);
    cr_assert_eq(content.n, 2 * sizeof line);
    close_output(output);
}

Test(output, a_waiting_line_is_flushed_after_two_seconds_or_as_said)
{
    static const struct {
        double said_s;
        useconds_t wait_us;
    } cases[] = {{2, 2100000}, {0.25, 300000}, {0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        options.flush_every = cases[i].said_s;
        options.force = true;
        cr_assert(choose("a.jsonl", "x"));
        struct output *output = open_output();
        put(output, 0, "a");
        cr_assert_eq(file_bytes("x"), cases[i].said_s > 0 ? 0 : 2);
        cr_assert(output_tick(output, &err));
        usleep(cases[i].wait_us);
        cr_assert(output_tick(output, &err));
        cr_assert_eq(file_bytes("x"), 2);
        close_output(output);
    }
}

Test(output, header_and_manifest_stand_in_frames_of_their_own)
{
    struct output *output;
    bool is_broken_pipe;
    cr_assert(choose("a.jsonl", "x.zst"));
    cr_assert(output_open(&output, &place, &options, "{\"header\":1}", &err));
    off_t header_bytes = file_bytes("x.zst");
    check_file("x.zst", "{\"header\":1}\n");
    put(output, 0, "a");
    put(output, 0, "b");
    cr_assert(output_flush(output, &err));
    off_t answers_bytes = file_bytes("x.zst");
    cr_assert(output_close(output, "{\"manifest\":1}", &is_broken_pipe, &err));
    cr_assert_eq(place.n_safe, 2);
    check_file("x.zst", "{\"header\":1}\na\nb\n{\"manifest\":1}\n");
    cr_assert_eq(truncate("x.zst", answers_bytes), 0);
    check_file("x.zst", "{\"header\":1}\na\nb\n");
    cr_assert_eq(truncate("x.zst", header_bytes), 0);
    check_file("x.zst", "{\"header\":1}\n");
}

Test(output, a_file_is_gone_on_with_behind_what_is_kept)
{
    for (int i = 0; i < 2; i++) {
        const char *name = i == 0 ? "x" : "x.zst";
        cr_assert(choose("a.jsonl", name));
        cr_assert(place.is_file && !place.exists);
        struct output *output = open_output();
        put(output, 0, "a");
        cr_assert(output_flush(output, &err));
        off_t kept_bytes = file_bytes(name);
        put(output, 0, "torn");
        close_output(output);
        cr_assert(choose("a.jsonl", name));
        cr_assert(place.is_file && place.exists);
        place.keep_bytes = kept_bytes;
        output = open_output();
        cr_assert_eq(file_bytes(name), kept_bytes);
        put(output, 0, "b");
        close_output(output);
        check_file(name, "a\nb\n");
    }
}

Test(output, a_full_disk_is_told)
{
    bool is_broken_pipe;
    cr_assert(choose("a.jsonl", "/dev/full"));
    cr_assert(!place.is_file);
    struct output *output = open_output();
    put(output, 0, "a");
    cr_assert(!output_close(output, NULL, &is_broken_pipe, &err));
    cr_assert_eq(err.code, ERROR_IO);
    cr_assert(!is_broken_pipe);
    cr_assert_eq(place.n_safe, 0);
}
