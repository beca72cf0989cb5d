/* The command line as a struct. Everything here is made from options.def: fields, defaults, limits,
 * parser, --help, the echo of the settings. An option that was not given and has no default leaves
 * its field zero; options_is_set tells that apart from a given zero. That is how settings whose
 * default depends on the model stay open until the model is known. */
#ifndef APP_OPTIONS_H
#define APP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* SUBCOMMAND_RUN, SUBCOMMAND_INSPECT, ...; SUBCOMMAND_COUNT stands for none of them. */
enum subcommand {
#define SUBCOMMAND(NAME, name, operand, summary, description) SUBCOMMAND_##NAME,
#include "app/options.def"
#undef SUBCOMMAND
    SUBCOMMAND_COUNT,
};

/* OPTION_model, OPTION_gen_length, ...: named after the fields of struct options. OPTION_COUNT
 * stands for none of them. */
enum option_id {
#define OPTION(field, type, name, letter, metavar, standard, limits, where, section, help)         \
    OPTION_##field,
#include "app/options.def"
#undef OPTION
    OPTION_COUNT,
};

/* What a value may be. Numbers are decimal and fill the whole word: no blanks, no "inf", and what
 * overflows is refused. */
enum option_type {
    OPTION_TYPE_FLAG,   /* bool; no value on the command line */
    OPTION_TYPE_COUNT,  /* int32_t within [min, max] */
    OPTION_TYPE_SEED,   /* uint64_t */
    OPTION_TYPE_SIZE,   /* uint64_t bytes within [min, max] */
    OPTION_TYPE_REAL,   /* finite double within [min, max], or (min, max] */
    OPTION_TYPE_CHOICE, /* const char *, one of `choices` */
    OPTION_TYPE_TEXT,   /* const char * */
};

/* The C type of each option type, for the fields below; text and choices are borrowed. */
#define OPTION_FIELD_FLAG   bool
#define OPTION_FIELD_COUNT  int32_t
#define OPTION_FIELD_SEED   uint64_t
#define OPTION_FIELD_SIZE   uint64_t
#define OPTION_FIELD_REAL   double
#define OPTION_FIELD_CHOICE const char *
#define OPTION_FIELD_TEXT   const char *

#define OPTIONS_OPERANDS_MAX 256 /* shards of one input */

/* Plain data: copy it freely. Strings are borrowed from argv, or constant. */
struct options {
    enum subcommand subcommand;
    const char *operand; /* PROMPTS of run, MODEL of inspect; NULL: not given; "-" stays "-" */
    int32_t n_operands;  /* more than one only where the operand's name ends in "..." */
    const char *operands[OPTIONS_OPERANDS_MAX];
    bool is_set[OPTION_COUNT];
#define OPTION(field, type, name, letter, metavar, standard, limits, where, section, help)         \
    OPTION_FIELD_##type field;
#include "app/options.def"
#undef OPTION
};

/* One row of options.def: what the parser knows about an option. Others that give settings a value
 * (keys of an input line, say) take names, limits and choices from here, so that a setting means
 * the same wherever it is written. */
struct option_info {
    const char *name; /* "gen-length" */
    char letter;      /* 'm', or 0 */
    enum option_type type;
    const char *metavar;      /* NULL for flags */
    const char *default_text; /* NULL: none */
    double min, max;          /* of COUNT, SIZE and REAL */
    bool above_min;           /* min itself is not allowed */
    const char *choices;      /* "auto|ref|cpu|cuda" for CHOICE, else NULL */
    uint32_t where;           /* bit 1 << subcommand for each that has it */
    bool in_line;             /* an input line may set it */
    const char *section, *help;
    size_t offset; /* of its field in struct options */
};

/* The row of an option; constant, never NULL. */
const struct option_info *options_info(enum option_id id);

/* Caller's struct: all defaults, no option counts as given, no operand. */
void options_init(struct options *options, enum subcommand subcommand);

/* Parses the `argc` words after the subcommand's name, over options_init. --help and --version end
 * the parsing at once. Repeated options: the last one wins. False: ERROR_USAGE naming the option,
 * the value and what it may be, or the option that was probably meant. */
bool options_parse(struct options *options, enum subcommand subcommand, int argc,
                   const char *const *argv, struct error *err);

/* Gives one option a value from its text, as after "--name=" ("true" and "false" for flags), and
 * marks it set. False: ERROR_USAGE; the message starts with `label`: "--gen-length" from the
 * command line, "gen_length" for a key of an input line. `text` is borrowed for TEXT and CHOICE. */
bool options_set(struct options *options, enum option_id id, const char *label, const char *text,
                 struct error *err);

/* Whether the user gave it, be it with the value that is the default. */
bool options_is_set(const struct options *options, enum option_id id);

/* The option that an input line's key sets ("gen_length"); OPTION_COUNT: none. */
enum option_id options_find_line_key(const char *key);

/* The option that was meant by a key that sets none: one with other dashes, underscores or
 * capitals, or one letter away if it is long and begins alike. OPTION_COUNT: none. */
enum option_id options_find_near_key(const char *key);

/* "run", "inspect": whole names only. False: ERROR_USAGE with the name that was probably meant;
 * `subcommand` is untouched. */
bool options_find_subcommand(const char *name, enum subcommand *subcommand, struct error *err);

/* --help of a subcommand, or with SUBCOMMAND_COUNT the list of subcommands. At most 80 columns. */
void options_print_help(enum subcommand subcommand, FILE *stream);

/* The text of an option's value, to the last digit; at most OPTIONS_VALUE_BYTES of it in `text`,
 * which a TEXT or CHOICE does not need: it is returned as it is. */
enum { OPTIONS_VALUE_BYTES = 32 };
const char *options_value(const struct options *options, enum option_id id,
                          char text[OPTIONS_VALUE_BYTES]);

/* The echo: name, value and source ("command line", "default", "not given") of each option of the
 * subcommand, in the order of --help, one a line. What is not given is decided later, by the model
 * or the machine. Only for people: not a format. */
void options_print(const struct options *options, FILE *stream);

#endif
