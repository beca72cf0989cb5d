/* --help and the echo of the settings, laid out from options.def in 80 columns: option names on the
 * left, wrapped sentences on the right, one heading for each section. */
#include "app/options.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

enum {
    COLUMNS = 80,
    HELP_INDENT = 28, /* where the sentences of an option start */
    TEXT_BYTES_MAX = 1024,
};

/* Text that is put together piece by piece; NUL-terminated. */
struct help_text {
    char text[TEXT_BYTES_MAX];
    size_t n;
};

struct subcommand_info {
    const char *name, *operand, *summary, *description;
};

static const struct subcommand_info subcommands[SUBCOMMAND_COUNT] = {
#define SUBCOMMAND(NAME, word, argument, line, text)                                               \
    [SUBCOMMAND_##                                                                                 \
        NAME] = {.name = #word, .operand = (argument), .summary = (line), .description = (text)},
#include "app/options.def"
#undef SUBCOMMAND
};

/* Prints `text`, wrapped into columns [indent, COLUMNS); the cursor stands at `column`. */
static void print_wrapped(FILE *stream, const char *text, size_t column, size_t indent)
{
    assert(column <= indent);
    assert(indent < COLUMNS);
    fprintf(stream, "%*s", (int)(indent - column), "");
    column = indent;
    for (const char *word = text; *word != '\0';) {
        size_t n = strcspn(word, " ");
        bool is_first = column == indent;
        if (!is_first && column + 1 + n > COLUMNS) {
            fprintf(stream, "\n%*s", (int)indent, "");
            column = indent;
            is_first = true;
        }
        fprintf(stream, "%s%.*s", is_first ? "" : " ", (int)n, word);
        column += n + (is_first ? 0 : 1);
        word += n + strspn(word + n, " ");
    }
    fputc('\n', stream);
}

/* Appends `text` up to `end`; what does not fit is a mistake in options.def. */
static void append(struct help_text *help, const char *text, size_t n)
{
    assert(help->n + n < sizeof help->text);
    memcpy(help->text + help->n, text, n);
    help->n += n;
    help->text[help->n] = '\0';
}

/* The sentences of an option: those of the table, then what the table's other columns say. */
static void compose(struct help_text *help, const struct option_info *info)
{
    append(help, info->help, strlen(info->help));
    if (info->choices != NULL) {
        append(help, " One of ", 8);
        for (const char *at = info->choices; *at != '\0';) {
            size_t n = strcspn(at, "|");
            append(help, at, n);
            at += n;
            if (*at == '\0') break;
            append(help, ", ", 2);
            at++;
        }
        append(help, ".", 1);
    }
    if (info->default_text != NULL) {
        append(help, " Default: ", 10);
        append(help, info->default_text, strlen(info->default_text));
        append(help, ".", 1);
    }
}

static void print_option(FILE *stream, const struct option_info *info)
{
    assert(info->name != NULL);
    char letter[] = {'-', info->letter, ',', '\0'};
    int n_left =
        fprintf(stream, "  %3s --%s%s%s", info->letter != 0 ? letter : "", info->name,
                info->metavar != NULL ? " " : "", info->metavar != NULL ? info->metavar : "");
    size_t column = n_left > 0 ? (size_t)n_left : 0; /* a full disk is told when all is written */
    if (column + 2 > HELP_INDENT) {
        fputc('\n', stream);
        column = 0;
    }
    struct help_text help = {0};
    compose(&help, info);
    print_wrapped(stream, help.text, column, HELP_INDENT);
}

static void print_subcommands(FILE *stream)
{
    fputs("Usage: dllm-batch SUBCOMMAND [OPTIONS] [OPERAND]\n"
          "       dllm-batch help SUBCOMMAND\n"
          "       dllm-batch --help | --version\n\n"
          "Answers files of prompts with diffusion language models.\n\nSubcommands:\n",
          stream);
    for (enum subcommand i = 0; i < SUBCOMMAND_COUNT; i++)
        fprintf(stream, "  %-9s %s\n", subcommands[i].name, subcommands[i].summary);
    fputs("\n'dllm-batch help SUBCOMMAND' lists its options. Manuals: dllm-batch(1) for the\n"
          "program, dllm-batch(5) for the files that it reads and writes.\n",
          stream);
}

void options_print_help(enum subcommand subcommand, FILE *stream)
{
    assert((unsigned)subcommand <= SUBCOMMAND_COUNT);
    if (subcommand == SUBCOMMAND_COUNT) {
        print_subcommands(stream);
        return;
    }
    const struct subcommand_info *ours = &subcommands[subcommand];
    fprintf(stream, "Usage: dllm-batch %s [OPTIONS] [%s]\n\n", ours->name, ours->operand);
    print_wrapped(stream, ours->description, 0, 0);
    const char *section = "";
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        const struct option_info *info = options_info(id);
        if ((info->where >> subcommand & 1) == 0) continue;
        if (strcmp(section, info->section) != 0) fprintf(stream, "\n%s:\n", info->section);
        section = info->section;
        print_option(stream, info);
    }
}

/* ---- the echo ---- */

const char *options_value(const struct options *options, enum option_id id,
                          char text[OPTIONS_VALUE_BYTES])
{
    const struct option_info *info = options_info(id);
    const void *field = (const char *)options + info->offset;
    size_t n_max = OPTIONS_VALUE_BYTES;
    assert(text != NULL);
    switch (info->type) {
    case OPTION_TYPE_FLAG: snprintf(text, n_max, "%s", *(const bool *)field ? "yes" : "no"); break;
    case OPTION_TYPE_COUNT: snprintf(text, n_max, "%" PRId32, *(const int32_t *)field); break;
    case OPTION_TYPE_SEED:
    case OPTION_TYPE_SIZE: snprintf(text, n_max, "%" PRIu64, *(const uint64_t *)field); break;
    case OPTION_TYPE_REAL: snprintf(text, n_max, "%.15g", *(const double *)field); break;
    case OPTION_TYPE_CHOICE:
    case OPTION_TYPE_TEXT: return *(const char *const *)field;
    }
    return text;
}

void options_print(const struct options *options, FILE *stream)
{
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        const struct option_info *info = options_info(id);
        bool is_setting = id != OPTION_help && id != OPTION_version;
        if (!is_setting || (info->where >> options->subcommand & 1) == 0) continue;
        bool is_known = options_is_set(options, id) || info->default_text != NULL ||
                        info->type == OPTION_TYPE_FLAG;
        char text[OPTIONS_VALUE_BYTES];
        const char *source = is_known ? "default" : "not given";
        if (options_is_set(options, id)) source = "command line";
        error_print(stream, "%-23s %-16s %s", info->name,
                    is_known ? options_value(options, id, text) : "-", source);
    }
}
