/* Writes what must agree with the program's options and is not compiled into it: the OPTIONS
 * section of dllm-batch(1) and the completions of bash, zsh and fish. The rows come from the same
 * list as the parser's (src/app/options.def), so that disagreement cannot be written. Usage:
 * gen_options man TEMPLATE | bash | zsh | fish, to standard output. */
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum subcommand {
#define SUBCOMMAND(NAME, word, operand, summary, description) SUBCOMMAND_##NAME,
#include "app/options.def"
#undef SUBCOMMAND
    SUBCOMMAND_COUNT,
};

#define IN_RUN     (1u << SUBCOMMAND_RUN)
#define IN_INSPECT (1u << SUBCOMMAND_INSPECT)
#define IN_PLAN    (1u << SUBCOMMAND_PLAN)
#define IN_REPORT  (1u << SUBCOMMAND_REPORT)
#define IN_PROFILE (1u << SUBCOMMAND_PROFILE)
#define IN_REPLAY  (1u << SUBCOMMAND_REPLAY)
#define IN_VERIFY  (1u << SUBCOMMAND_VERIFY)
#define IN_MERGE   (1u << SUBCOMMAND_MERGE)
#define IN_ALL     ((1u << SUBCOMMAND_COUNT) - 1)
#define IN_LINE    (1u << 31)
/* What a line may set, so may every subcommand that reads lines. */
#define PLACES(bits) (((bits)&IN_LINE) != 0 ? ((bits) & ~IN_LINE) | IN_PLAN | IN_REPLAY : (bits))

#define ANY                .choices = NULL
#define RANGE(least, most) .choices = NULL
#define ABOVE(bound, most) .choices = NULL
#define ONE_OF(list)       .choices = (list)

struct row {
    const char *name;
    char letter;
    const char *metavar;      /* NULL: a flag */
    const char *default_text; /* NULL: none */
    const char *choices;      /* "a|b", or NULL */
    uint32_t where;
    const char *section, *help;
};

static const struct row rows[] = {
#define OPTION(id, kind, word, key, meta, standard, limits, places, group, text)                   \
    {.name = (word),                                                                               \
     .letter = (key),                                                                              \
     .metavar = (meta),                                                                            \
     .default_text = (standard),                                                                   \
     limits,                                                                                       \
     .where = PLACES(places),                                                                      \
     .section = (group),                                                                           \
     .help = (text)},
#include "app/options.def"
#undef OPTION
};

enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

struct subcommand_row {
    const char *name, *operand, *summary;
};

static const struct subcommand_row subcommands[SUBCOMMAND_COUNT] = {
#define SUBCOMMAND(NAME, word, argument, line, description)                                        \
    {.name = #word, .operand = (argument), .summary = (line)},
#include "app/options.def"
#undef SUBCOMMAND
};

static bool has_option(enum subcommand subcommand, const struct row *row)
{
    return (row->where >> subcommand & 1) != 0;
}

/* ---- the manual ---- */

/* Sentences as mdoc text: a new line for each, so that the formatter can space them, and nothing
 * that roff would take as a request or an escape. */
static void print_roff(const char *text)
{
    bool is_line_start = true;
    for (const char *at = text; *at != '\0'; at++) {
        bool is_sentence_end = *at == '.' && at[1] == ' ';
        if (is_line_start && (*at == '.' || *at == '\'')) fputs("\\&", stdout);
        is_line_start = false;
        if (*at == '-' && at[1] == '-') fputs("\\-", stdout);
        else if (*at == '\\') fputs("\\e", stdout);
        else putchar(*at);
        if (!is_sentence_end) continue;
        putchar('\n');
        is_line_start = true;
        at++;
    }
    putchar('\n');
}

static void print_man_option(const struct row *row)
{
    assert(row->help != NULL);
    fputs(".It", stdout);
    if (row->letter != 0 && row->metavar != NULL)
        printf(" Fl %c Ar %s ,", row->letter, row->metavar);
    else if (row->letter != 0) printf(" Fl %c ,", row->letter);
    printf(" Fl \\-%s", row->name);
    if (row->metavar != NULL) printf(" Ar %s", row->metavar);
    putchar('\n');
    print_roff(row->help);
    if (row->choices != NULL) {
        fputs("One of\n.Cm ", stdout);
        for (const char *at = row->choices; *at != '\0'; at++) {
            if (*at == '|') fputs(" ,\n.Cm ", stdout);
            else putchar(*at);
        }
        fputs(" .\n", stdout);
    }
    if (row->default_text != NULL) printf("Default:\n.Cm %s .\n", row->default_text);
}

/* Options that `is_common` for all subcommands, or the others that `subcommand` has. */
static void print_man_options(enum subcommand subcommand, bool is_common)
{
    const char *section = NULL;
    for (int i = 0; i < ROW_COUNT; i++) {
        const struct row *row = &rows[i];
        if (!has_option(subcommand, row) || (row->where == IN_ALL) != is_common) continue;
        if (section == NULL || strcmp(section, row->section) != 0) {
            if (section != NULL) puts(".El");
            if (is_common) puts(".Ss Every subcommand");
            else printf(".Ss %s: %s\n", subcommands[subcommand].name, row->section);
            puts(".Bl -tag -width Ds");
        }
        section = row->section;
        print_man_option(row);
    }
    if (section != NULL) puts(".El");
}

/* Copies the template; a line "@OPTIONS@" becomes the section's text. */
static bool print_man(const char *template_path)
{
    FILE *template = fopen(template_path, "r");
    char line[1024];
    bool found = false;
    if (template == NULL) return false;
    while (fgets(line, sizeof line, template) != NULL) {
        if (strcmp(line, "@OPTIONS@\n") != 0) {
            fputs(line, stdout);
            continue;
        }
        found = true;
        for (enum subcommand i = 0; i < SUBCOMMAND_COUNT; i++)
            print_man_options(i, false);
        print_man_options(0, true);
    }
    bool is_read = !ferror(template);
    fclose(template);
    return found && is_read;
}

/* ---- completions ---- */

/* The first sentence of the help, with each character of `special` behind a backslash. */
static void print_summary(const char *help, const char *special)
{
    for (const char *at = help; *at != '\0'; at++) {
        if (*at == '.' && (at[1] == ' ' || at[1] == '\0')) break;
        if (strchr(special, *at) != NULL) putchar('\\');
        putchar(*at);
    }
}

static void print_choices(const char *choices)
{
    for (const char *at = choices; *at != '\0'; at++)
        putchar(*at == '|' ? ' ' : *at);
}

static void print_subcommand_names(void)
{
    for (enum subcommand i = 0; i < SUBCOMMAND_COUNT; i++)
        printf("%s ", subcommands[i].name);
}

/* One `case` arm for the word after an option that takes a value. */
static void print_bash_value(const struct row *row)
{
    if (row->metavar == NULL) return;
    printf("    --%s", row->name);
    if (row->letter != 0) printf(" | -%c", row->letter);
    fputs(") ", stdout);
    if (row->choices != NULL) {
        fputs("COMPREPLY=($(compgen -W '", stdout);
        print_choices(row->choices);
        puts("' -- \"$word\")) ; return ;;");
    } else if (strcmp(row->metavar, "DIR") == 0) {
        puts("COMPREPLY=($(compgen -d -- \"$word\")) ; return ;;");
    } else if (strcmp(row->metavar, "FILE") == 0) {
        puts("COMPREPLY=($(compgen -f -- \"$word\")) ; return ;;");
    } else {
        puts("return ;;");
    }
}

static void print_bash(void)
{
    fputs("# bash completion of dllm-batch; generated from its table of options.\n"
          "_dllm_batch()\n{\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} names=\n"
          "    if ((COMP_CWORD == 1)); then\n"
          "        COMPREPLY=($(compgen -W '",
          stdout);
    print_subcommand_names();
    fputs("help --help --version' -- \"$word\"))\n        return\n    fi\n    case $previous in\n",
          stdout);
    for (int i = 0; i < ROW_COUNT; i++)
        print_bash_value(&rows[i]);
    puts("    esac\n    case ${COMP_WORDS[1]} in");
    fputs("    help) COMPREPLY=($(compgen -W '", stdout);
    print_subcommand_names();
    puts("' -- \"$word\")) ; return ;;");
    for (enum subcommand i = 0; i < SUBCOMMAND_COUNT; i++) {
        printf("    %s) names='", subcommands[i].name);
        for (int j = 0; j < ROW_COUNT; j++)
            if (has_option(i, &rows[j])) printf("--%s ", rows[j].name);
        puts("' ;;");
    }
    fputs("    esac\n    if [[ $word == -* ]]; then\n"
          "        COMPREPLY=($(compgen -W \"$names\" -- \"$word\"))\n"
          "    else\n        COMPREPLY=($(compgen -f -- \"$word\"))\n    fi\n}\n"
          "complete -o filenames -F _dllm_batch dllm-batch\n",
          stdout);
}

/* _arguments: '(-m --model)'{-m+,--model=}'[Model folder]:DIR:_files -/'. */
static void print_zsh_option(const struct row *row)
{
    bool has_value = row->metavar != NULL;
    if (row->letter != 0)
        printf("    '(-%c --%s)'{-%c%s,--%s%s}'[", row->letter, row->name, row->letter,
               has_value ? "+" : "", row->name, has_value ? "=" : "");
    else printf("    '--%s%s[", row->name, has_value ? "=" : "");
    /* Within single quotes an apostrophe cannot be escaped: the typographic one stands in. */
    for (const char *at = row->help; *at != '\0'; at++) {
        if (*at == '.' && (at[1] == ' ' || at[1] == '\0')) break;
        if (strchr("[]:\\", *at) != NULL) putchar('\\');
        fputs(*at == '\'' ? "\u2019" : (char[]){*at, '\0'}, stdout);
    }
    putchar(']');
    if (has_value) {
        printf(":%s:", row->metavar);
        if (row->choices != NULL) {
            putchar('(');
            print_choices(row->choices);
            putchar(')');
        } else if (strcmp(row->metavar, "DIR") == 0) {
            fputs("_files -/", stdout);
        } else if (strcmp(row->metavar, "FILE") == 0) {
            fputs("_files", stdout);
        }
    }
    puts("' \\");
}

static void print_zsh(void)
{
    puts("#compdef dllm-batch\n# Generated from the table of options of dllm-batch.\n"
         "local -a subcommands\nsubcommands=(");
    for (enum subcommand i = 0; i < SUBCOMMAND_COUNT; i++)
        printf("    '%s:%s'\n", subcommands[i].name, subcommands[i].summary);
    puts("    'help:Lists the options of a subcommand'\n)\n"
         "if ((CURRENT == 2)); then\n"
         "    _describe subcommand subcommands\n"
         "    _arguments '--help[Lists the subcommands]' '--version[Prints the version]'\n"
         "    return\nfi\nlocal subcommand=$words[2]\nshift words\n((CURRENT--))\n"
         "case $subcommand in\nhelp)\n    _describe subcommand subcommands\n    ;;");
    for (enum subcommand i = 0; i < SUBCOMMAND_COUNT; i++) {
        printf("%s)\n    _arguments -s -S \\\n", subcommands[i].name);
        for (int j = 0; j < ROW_COUNT; j++)
            if (has_option(i, &rows[j])) print_zsh_option(&rows[j]);
        printf("    ':%s:_files'\n    ;;\n", subcommands[i].operand);
    }
    puts("esac");
}

static void print_fish_option(enum subcommand subcommand, const struct row *row)
{
    printf("complete -c dllm-batch -n '__fish_seen_subcommand_from %s' -l %s",
           subcommands[subcommand].name, row->name);
    if (row->letter != 0) printf(" -s %c", row->letter);
    if (row->choices != NULL) {
        fputs(" -x -a '", stdout);
        print_choices(row->choices);
        putchar('\'');
    } else if (row->metavar != NULL) {
        bool is_path = strcmp(row->metavar, "DIR") == 0 || strcmp(row->metavar, "FILE") == 0;
        fputs(is_path ? " -r -F" : " -x", stdout);
    }
    fputs(" -d '", stdout);
    print_summary(row->help, "'\\");
    puts("'");
}

static void print_fish(void)
{
    puts("# fish completion of dllm-batch; generated from its table of options.\n"
         "complete -c dllm-batch -n __fish_use_subcommand -f -l help -d 'Lists the subcommands'\n"
         "complete -c dllm-batch -n __fish_use_subcommand -f -l version -d 'Prints the version'\n"
         "complete -c dllm-batch -n __fish_use_subcommand -f -a help "
         "-d 'Lists the options of a subcommand'");
    for (enum subcommand i = 0; i < SUBCOMMAND_COUNT; i++) {
        printf("complete -c dllm-batch -n __fish_use_subcommand -f -a %s -d '%s'\n",
               subcommands[i].name, subcommands[i].summary);
        for (int j = 0; j < ROW_COUNT; j++)
            if (has_option(i, &rows[j])) print_fish_option(i, &rows[j]);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc >= 2 ? argv[1] : "";
    bool is_done = true;
    if (strcmp(what, "man") == 0 && argc == 3) is_done = print_man(argv[2]);
    else if (strcmp(what, "bash") == 0) print_bash();
    else if (strcmp(what, "zsh") == 0) print_zsh();
    else if (strcmp(what, "fish") == 0) print_fish();
    else is_done = false;
    if (is_done && fflush(stdout) == 0) return 0;
    fputs("gen_options: expected 'man TEMPLATE' (with a line @OPTIONS@), 'bash', 'zsh' or 'fish', "
          "and "
          "a standard output that takes the text\n",
          stderr);
    return 1;
}
