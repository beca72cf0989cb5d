/* The program's entry: subcommand, options, the model that ships, and the only place that prints
 * errors (invariant I5). The exit status of a failure is its error code. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/app.h"

enum { PATH_BYTES_MAX = 4096, BLOCK_BYTES = 256 << 10 };

typedef bool subcommand_function(const struct options *options, int *status, struct error *err);

static subcommand_function *const subcommand_functions[SUBCOMMAND_COUNT] = {
#define SUBCOMMAND(NAME, word, operand, summary, description) [SUBCOMMAND_##NAME] = cmd_##word,
#include "app/options.def"
#undef SUBCOMMAND
};

/* ---- the model that ships ---- */

/* Fills in options->model when -m was not given; `folder` [PATH_BYTES_MAX] may hold its text. */
static bool resolve_model(struct options *options, char *folder, struct error *err)
{
    const char *environment = getenv("DLLM_BATCH_MODEL");
    bool is_named = options->subcommand == SUBCOMMAND_INSPECT && options->operand != NULL;
    if (is_named) options->model = options->operand;
    if (options->model != NULL && options->model[0] == '\0')
        return error_set(err, ERROR_USAGE, "--model is empty, must be a folder");
    if (is_named || options_is_set(options, OPTION_model)) return true;
    options->model = folder;
    if (environment != NULL && environment[0] != '\0') options->model = environment;
    else if (!app_find_data("models/" SHIPPED_MODEL "/config.json", folder, PATH_BYTES_MAX))
        return error_set(
            err, ERROR_NO_INPUT,
            "no model: neither a folder on the command line nor DLLM_BATCH_MODEL names "
            "one, and " SHIPPED_MODEL " is not installed beside this program");
    else *strrchr(folder, '/') = '\0'; /* the folder of config.json */
    return true;
}

/* ---- the command line ---- */

static bool run_help(int argc, const char *const *argv, struct error *err)
{
    enum subcommand subcommand = SUBCOMMAND_COUNT;
    if (argc > 1)
        return error_set(err, ERROR_USAGE, "help takes one subcommand, '%s' is too much", argv[1]);
    if (argc == 1 && !options_find_subcommand(argv[0], &subcommand, err)) return false;
    options_print_help(subcommand, stdout);
    return true;
}

static bool run_subcommand(int argc, const char *const *argv, int *status, struct error *err)
{
    struct options options;
    enum subcommand subcommand;
    if (!options_find_subcommand(argv[0], &subcommand, err)) return false;
    if (!options_parse(&options, subcommand, argc - 1, argv + 1, err)) return false;
    if (options.help) {
        options_print_help(subcommand, stdout);
        return true;
    }
    if (options.version) {
        version_print(stdout);
        return true;
    }
    char folder[PATH_BYTES_MAX];
    bool needs_model = subcommand != SUBCOMMAND_REPORT && subcommand != SUBCOMMAND_VERIFY &&
                       subcommand != SUBCOMMAND_MERGE;
    if (needs_model && !resolve_model(&options, folder, err)) return false;
    return subcommand_functions[subcommand](&options, status, err);
}

/* `argv` without the program's name. */
static bool run_words(int argc, const char *const *argv, int *status, struct error *err)
{
    if (argc == 0) {
        fputs("Usage: dllm-batch SUBCOMMAND [OPTIONS] [OPERAND]\n"
              "'dllm-batch --help' lists the subcommands.\n",
              stderr);
        err->code = ERROR_USAGE;
        return false;
    }
    if (strcmp(argv[0], "help") == 0) return run_help(argc - 1, argv + 1, err);
    if (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0) return run_help(0, argv, err);
    if (strcmp(argv[0], "--version") == 0) {
        version_print(stdout);
        return true;
    }
    if (argv[0][0] == '-')
        return error_set(err, ERROR_USAGE,
                         "'%s' stands before the subcommand; try 'dllm-batch run %s'", argv[0],
                         argv[0]);
    return run_subcommand(argc, argv, status, err);
}

/* What printf left in its buffer can still fail. A reader that went away is not worth a message. */
static bool flush_output(struct error *err)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return true;
    err->code = ERROR_IO;
    err->message[0] = '\0';
    if (errno == EPIPE) return false;
    return error_set(err, ERROR_IO, "writing standard output: %s", strerror(errno));
}

/* ---- errors ---- */

/* Looked up apart from the parser, so that a mistake before it on the command line obeys it too. */
static bool wants_json(int argc, const char *const *argv)
{
    bool json = false;
    for (int i = 0; i < argc; i++) {
        const char *value = NULL;
        assert(argv[i] != NULL);
        if (strncmp(argv[i], "--log-format=", 13) == 0) value = argv[i] + 13;
        if (strcmp(argv[i], "--log-format") == 0 && i + 1 < argc) value = argv[i + 1];
        if (value != NULL) json = strcmp(value, "json") == 0;
    }
    return json;
}

/* The message is one line of valid UTF-8 (base/error.h): only two characters need an escape. */
static void print_error(const struct error *err, bool json)
{
    assert(err->code != ERROR_NONE);
    if (err->message[0] == '\0') return;
    if (!json) {
        fprintf(stderr, "dllm-batch: error: %s\n", err->message);
        return;
    }
    fprintf(stderr, "{\"level\": \"error\", \"code\": %d, \"message\": \"", (int)err->code);
    for (const char *at = err->message; *at != '\0'; at++) {
        if (*at == '"' || *at == '\\') fputc('\\', stderr);
        fputc(*at, stderr);
    }
    fputs("\"}\n", stderr);
}

static bool errors_are_json;

/* Memory for jansson, which without it would call a good line no JSON, or leave out a field of an
 * answer. What is in the output stays good wherever a run ends (invariant I13), so here it ends. */
static void *allocate(size_t n_bytes)
{
    struct error err = {0};
    void *memory = malloc(n_bytes);
    if (memory != NULL || n_bytes == 0) return memory;
    error_set(&err, ERROR_UNAVAILABLE, "not enough memory for JSON: %zu bytes more", n_bytes);
    print_error(&err, errors_are_json);
    _exit(ERROR_UNAVAILABLE);
}

/* In the place of a standard stream that is closed, the next file that is opened would be taken for
 * it. What is put there can neither be read nor written, as the caller wished. */
static void hold_places(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) continue;
        int placed = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        assert(placed < 0 || placed == fd);
    }
}

int main(int argc, char **argv)
{
    assert(argc >= 1);
    hold_places();
    const char *const *words = (const char *const *)argv + 1;
    /* Writes to a closed pipe then fail with EPIPE, which their callers expect. */
    signal(SIGPIPE, SIG_IGN);
    errors_are_json = wants_json(argc - 1, words);
    json_set_alloc_funcs(allocate, free);
    mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES); /* what was large and is freed is given back at once */
    struct error err = {0};
    int status = 0;
    bool is_done = run_words(argc - 1, words, &status, &err);
    struct error flush_err = {0};
    bool is_flushed = flush_output(&flush_err);
    if (is_done && is_flushed) return status;
    const struct error *failure = is_done ? &flush_err : &err;
    print_error(failure, errors_are_json);
    return (int)failure->code;
}
