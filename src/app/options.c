/* The table of options in memory, and everything that turns words into fields: values of each type
 * with their limits, long and short options, operands. What goes wrong names the option, the value
 * and what it may be. Printing is in options_help.c. */
#include "app/options.h"

#include <assert.h>
#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ---- */

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

#define ANY                .min = 0
#define RANGE(least, most) .min = (double)(least), .max = (double)(most)
#define ABOVE(bound, most) .min = (double)(bound), .max = (double)(most), .above_min = true
#define ONE_OF(list)       .choices = (list)

static const struct option_info infos[OPTION_COUNT] = {
#define OPTION(id, kind, word, key, meta, standard, limits, places, group, text)                   \
    [OPTION_##id] = {.name = (word),                                                               \
                     .letter = (key),                                                              \
                     .type = OPTION_TYPE_##kind,                                                   \
                     .metavar = (meta),                                                            \
                     .default_text = (standard),                                                   \
                     limits,                                                                       \
                     .where = PLACES(places),                                                      \
                     .in_line = ((places)&IN_LINE) != 0,                                           \
                     .section = (group),                                                           \
                     .help = (text),                                                               \
                     .offset = offsetof(struct options, id)},
#include "app/options.def"
#undef OPTION
};

static const char *const subcommand_names[SUBCOMMAND_COUNT] = {
#define SUBCOMMAND(NAME, word, operand, summary, description) [SUBCOMMAND_##NAME] = #word,
#include "app/options.def"
#undef SUBCOMMAND
};

static const char *const operand_names[SUBCOMMAND_COUNT] = {
#define SUBCOMMAND(NAME, word, operand, summary, description) [SUBCOMMAND_##NAME] = (operand),
#include "app/options.def"
#undef SUBCOMMAND
};

const struct option_info *options_info(enum option_id id)
{
    assert((unsigned)id < OPTION_COUNT);
    return &infos[id];
}

bool options_is_set(const struct options *options, enum option_id id)
{
    assert((unsigned)id < OPTION_COUNT);
    return options->is_set[id];
}

/* ---- values ---- */

/* Decimal digits only, at least one; `end` is what follows them. False: no digit, or too large. */
static bool parse_digits(const char *text, uint64_t *value, const char **end)
{
    uint64_t sum = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(sum, 10u, &sum)) return false;
        if (__builtin_add_overflow(sum, (uint64_t)(*at - '0'), &sum)) return false;
    }
    *end = at;
    *value = sum;
    return at > text;
}

static bool set_flag(bool *field, const char *label, const char *text, struct error *err)
{
    bool is_true = strcmp(text, "true") == 0;
    if (!is_true && strcmp(text, "false") != 0)
        return error_set(err, ERROR_USAGE, "%s: '%s' is neither true nor false", label, text);
    *field = is_true;
    return true;
}

static bool set_count(const struct option_info *info, int32_t *field, const char *label,
                      const char *text, struct error *err)
{
    assert(info->min >= 0 && info->max <= INT32_MAX);
    uint64_t value;
    const char *end;
    if (!parse_digits(text, &value, &end) || *end != '\0' || (double)value < info->min ||
        (double)value > info->max)
        return error_set(err, ERROR_USAGE, "%s: '%s' is not a whole number from %.0f to %.0f",
                         label, text, info->min, info->max);
    *field = (int32_t)value;
    return true;
}

static bool set_seed(uint64_t *field, const char *label, const char *text, struct error *err)
{
    uint64_t value;
    const char *end;
    if (!parse_digits(text, &value, &end) || *end != '\0')
        return error_set(err, ERROR_USAGE, "%s: '%s' is not a whole number from 0 to %llu", label,
                         text, (unsigned long long)UINT64_MAX);
    *field = value;
    return true;
}

/* "K", "MiB", "GB", "" to the power of two that it multiplies by; -1: no such suffix. */
static int size_shift(const char *suffix)
{
    static const char letters[] = "KMGT";
    const char *found = *suffix != '\0' ? strchr(letters, *suffix) : NULL;
    int shift = found != NULL ? 10 * (int)(found - letters + 1) : 0;
    const char *rest = found != NULL ? suffix + 1 : suffix;
    bool is_unit = *rest == '\0' || strcmp(rest, "B") == 0;
    if (found != NULL && strcmp(rest, "iB") == 0) is_unit = true;
    return is_unit ? shift : -1;
}

static bool set_size(const struct option_info *info, uint64_t *field, const char *label,
                     const char *text, struct error *err)
{
    uint64_t value;
    const char *suffix;
    bool is_valid = parse_digits(text, &value, &suffix);
    int shift = is_valid ? size_shift(suffix) : -1;
    is_valid = shift >= 0 && !__builtin_mul_overflow(value, (uint64_t)1 << shift, &value);
    if (!is_valid || (double)value < info->min || (double)value > info->max)
        return error_set(err, ERROR_USAGE,
                         "%s: '%s' is not a size from %.0f to %.0f bytes, such as 512M or 8G",
                         label, text, info->min, info->max);
    *field = value;
    return true;
}

/* strtod alone would also take white space, "inf", "nan" and hexadecimal. */
static bool parse_real(const char *text, double *value)
{
    if (*text == '\0' || text[strspn(text, "0123456789.eE+-")] != '\0') return false;
    char *end;
    *value = strtod(text, &end);
    return *end == '\0' && isfinite(*value);
}

static bool set_real(const struct option_info *info, double *field, const char *label,
                     const char *text, struct error *err)
{
    assert(info->min <= info->max);
    double value;
    bool is_valid = parse_real(text, &value) && value >= info->min && value <= info->max;
    if (is_valid && info->above_min) is_valid = value > info->min;
    if (!is_valid)
        return error_set(err, ERROR_USAGE,
                         info->above_min ? "%s: '%s' is not a number above %g, at most %g"
                                         : "%s: '%s' is not a number from %g to %g",
                         label, text, info->min, info->max);
    *field = value;
    return true;
}

/* Choices are joined by '|' in the table; messages join them by ", ". */
static bool set_choice(const struct option_info *info, const char **field, const char *label,
                       const char *text, struct error *err)
{
    assert(info->choices != NULL);
    char list[256] = "";
    size_t n_list = 0, n_text = strlen(text);
    for (const char *at = info->choices;; at++) {
        size_t n = strcspn(at, "|");
        if (n == n_text && memcmp(at, text, n) == 0) {
            *field = text;
            return true;
        }
        n_list += (size_t)snprintf(list + n_list, sizeof list - n_list, "%s%.*s",
                                   n_list > 0 ? ", " : "", (int)n, at);
        assert(n_list < sizeof list);
        at += n;
        if (*at == '\0') break;
    }
    return error_set(err, ERROR_USAGE, "%s: '%s' is not one of %s", label, text, list);
}

bool options_set(struct options *options, enum option_id id, const char *label, const char *text,
                 struct error *err)
{
    const struct option_info *info = options_info(id);
    void *field = (char *)options + info->offset;
    bool is_valid = false;
    switch (info->type) {
    case OPTION_TYPE_FLAG: is_valid = set_flag(field, label, text, err); break;
    case OPTION_TYPE_COUNT: is_valid = set_count(info, field, label, text, err); break;
    case OPTION_TYPE_SEED: is_valid = set_seed(field, label, text, err); break;
    case OPTION_TYPE_SIZE: is_valid = set_size(info, field, label, text, err); break;
    case OPTION_TYPE_REAL: is_valid = set_real(info, field, label, text, err); break;
    case OPTION_TYPE_CHOICE: is_valid = set_choice(info, field, label, text, err); break;
    case OPTION_TYPE_TEXT:
        *(const char **)field = text;
        is_valid = true;
        break;
    }
    if (is_valid) options->is_set[id] = true;
    return is_valid;
}

void options_init(struct options *options, enum subcommand subcommand)
{
    assert((unsigned)subcommand < SUBCOMMAND_COUNT);
    *options = (struct options){.subcommand = subcommand};
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (infos[id].default_text == NULL) continue;
        struct error err = {0};
        bool is_valid = options_set(options, id, infos[id].name, infos[id].default_text, &err);
        assert(is_valid); /* options.def contradicts itself */
        options->is_set[id] = false;
    }
}

/* ---- names ---- */

enum { NAME_BYTES_MAX = 32 }; /* longer than any name in options.def */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein distance of the first NAME_BYTES_MAX bytes of two words. */
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t row[NAME_BYTES_MAX + 1]; /* row[j]: from the first i bytes of a to the first j of b */
    n_a = least(n_a, NAME_BYTES_MAX);
    n_b = least(n_b, NAME_BYTES_MAX);
    for (size_t j = 0; j <= n_b; j++)
        row[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least(replaced, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[n_b];
}

/* Farther away, a suggestion would puzzle rather than help. Two letters changed places count 2. */
static bool is_near(size_t distance, size_t n_typed)
{
    size_t distance_max = n_typed / 3 > 2 ? n_typed / 3 : 2;
    return distance <= distance_max && distance < n_typed;
}

static enum option_id find_name(enum subcommand subcommand, const char *name, size_t n)
{
    enum option_id id = 0;
    for (; id < OPTION_COUNT; id++) {
        bool is_ours = (infos[id].where >> subcommand & 1) != 0;
        if (is_ours && strncmp(infos[id].name, name, n) == 0 && infos[id].name[n] == '\0') break;
    }
    return id;
}

static enum option_id find_letter(enum subcommand subcommand, char letter)
{
    enum option_id id = 0;
    for (; id < OPTION_COUNT; id++) {
        bool is_ours = (infos[id].where >> subcommand & 1) != 0;
        if (is_ours && letter != '\0' && infos[id].letter == letter) break;
    }
    return id;
}

static bool unknown_name(enum subcommand subcommand, const char *name, size_t n, struct error *err)
{
    const char *nearest = NULL;
    size_t distance_min = SIZE_MAX;
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if ((infos[id].where >> subcommand & 1) == 0) continue;
        size_t distance = edit_distance(name, n, infos[id].name, strlen(infos[id].name));
        if (distance >= distance_min) continue;
        distance_min = distance;
        nearest = infos[id].name;
    }
    if (nearest != NULL && is_near(distance_min, n))
        return error_set(err, ERROR_USAGE, "unknown option '--%.*s'; did you mean '--%s'?", (int)n,
                         name, nearest);
    return error_set(err, ERROR_USAGE,
                     "unknown option '--%.*s'; 'dllm-batch help %s' lists the options", (int)n,
                     name, subcommand_names[subcommand]);
}

bool options_find_subcommand(const char *name, enum subcommand *subcommand, struct error *err)
{
    assert(name != NULL);
    const char *nearest = NULL;
    size_t distance_min = SIZE_MAX;
    for (enum subcommand i = 0; i < SUBCOMMAND_COUNT; i++) {
        const char *candidate = subcommand_names[i];
        size_t distance = edit_distance(name, strlen(name), candidate, strlen(candidate));
        if (strcmp(name, candidate) == 0) {
            *subcommand = i;
            return true;
        }
        if (distance >= distance_min) continue;
        distance_min = distance;
        nearest = candidate;
    }
    if (is_near(distance_min, strlen(name)))
        return error_set(err, ERROR_USAGE, "unknown subcommand '%s'; did you mean '%s'?", name,
                         nearest);
    return error_set(err, ERROR_USAGE,
                     "unknown subcommand '%s'; 'dllm-batch --help' lists the subcommands", name);
}

/* "gen_length" is the key of "gen-length". */
enum option_id options_find_line_key(const char *key)
{
    assert(key != NULL);
    enum option_id id = 0;
    for (; id < OPTION_COUNT; id++) {
        if (!infos[id].in_line) continue;
        const char *name = infos[id].name, *at = key;
        for (; *at != '\0' && *at == (*name == '-' ? '_' : *name); at++)
            name++;
        if (*at == '\0' && *name == '\0') break;
    }
    return id;
}

/* Columns of data sets shall not be taken for misspelt settings, so less counts as near than on the
 * command line. */
enum option_id options_find_near_key(const char *key)
{
    enum { LONG_NAME_BYTES = 5 };
    char plain[NAME_BYTES_MAX];
    size_t n = strlen(key);
    if (n >= sizeof plain) return OPTION_COUNT;
    for (size_t i = 0; i < n; i++)
        plain[i] = key[i] == '_' ? '-' : (char)tolower((unsigned char)key[i]);
    enum option_id id = 0;
    for (; id < OPTION_COUNT; id++) {
        const char *name = infos[id].name;
        size_t n_name = strlen(name);
        assert(n_name < NAME_BYTES_MAX);
        if (!infos[id].in_line) continue;
        size_t distance = edit_distance(plain, n, name, n_name);
        if (distance == 0) break;
        if (distance == 1 && n_name >= LONG_NAME_BYTES && plain[0] == name[0]) break;
    }
    return id;
}

/* ---- words ---- */

/* The command line while it is read. */
struct words {
    const char *const *argv; /* [argc], borrowed */
    int argc, index;         /* index: the word in hand */
};

/* The value of an option that needs one: what is attached to the word, else the next word. */
static const char *take_value(struct words *words, const char *attached)
{
    if (attached != NULL) return attached;
    if (words->index + 1 >= words->argc) return NULL;
    words->index++;
    return words->argv[words->index];
}

static bool parse_long(struct options *options, struct words *words, struct error *err)
{
    const char *word = words->argv[words->index], *name = word + 2;
    size_t n = strcspn(name, "=");
    const char *attached = name[n] == '=' ? name + n + 1 : NULL;
    enum option_id id = find_name(options->subcommand, name, n);
    if (id == OPTION_COUNT) return unknown_name(options->subcommand, name, n, err);
    char label[NAME_BYTES_MAX + 3];
    snprintf(label, sizeof label, "--%s", infos[id].name);
    if (infos[id].type == OPTION_TYPE_FLAG) {
        if (attached != NULL)
            return error_set(err, ERROR_USAGE, "%s takes no value, '%s' was given", label,
                             attached);
        return options_set(options, id, label, "true", err);
    }
    const char *value = take_value(words, attached);
    if (value == NULL)
        return error_set(err, ERROR_USAGE, "%s needs a value: %s %s", label, label,
                         infos[id].metavar);
    return options_set(options, id, label, value, err);
}

/* A cluster: flags, the last letter may be an option with its value attached or in the next word.
 */
static bool parse_short(struct options *options, struct words *words, struct error *err)
{
    const char *word = words->argv[words->index];
    for (const char *at = word + 1; *at != '\0'; at++) {
        enum option_id id = find_letter(options->subcommand, *at);
        if (id == OPTION_COUNT)
            return error_set(err, ERROR_USAGE,
                             "unknown option '-%c' in '%s'; 'dllm-batch help %s' lists the options",
                             *at, word, subcommand_names[options->subcommand]);
        char label[] = {'-', *at, '\0'};
        if (infos[id].type == OPTION_TYPE_FLAG) {
            if (!options_set(options, id, label, "true", err)) return false;
            continue;
        }
        const char *value = take_value(words, at[1] != '\0' ? at + 1 : NULL);
        if (value == NULL)
            return error_set(err, ERROR_USAGE, "%s needs a value: %s %s", label, label,
                             infos[id].metavar);
        return options_set(options, id, label, value, err);
    }
    return true;
}

static bool take_operand(struct options *options, const char *word, struct error *err)
{
    const char *name = operand_names[options->subcommand];
    bool is_list = strlen(name) > 3 && strcmp(name + strlen(name) - 3, "...") == 0;
    if (options->n_operands >= (is_list ? OPTIONS_OPERANDS_MAX : 1))
        return error_set(err, ERROR_USAGE, "unexpected argument '%s': %s takes %s%s, '%s'", word,
                         subcommand_names[options->subcommand], is_list ? "at most 256 " : "one ",
                         name, options->operand);
    if (word[0] == '\0') return error_set(err, ERROR_USAGE, "%s is empty, must be a name", name);
    options->operands[options->n_operands++] = word;
    options->operand = options->operands[0];
    return true;
}

bool options_parse(struct options *options, enum subcommand subcommand, int argc,
                   const char *const *argv, struct error *err)
{
    assert(argc >= 0);
    options_init(options, subcommand);
    struct words words = {.argv = argv, .argc = argc};
    bool only_operands = false;
    for (; words.index < argc; words.index++) {
        const char *word = argv[words.index];
        bool is_operand = only_operands || word[0] != '-' || word[1] == '\0';
        bool is_valid = true;
        if (is_operand) is_valid = take_operand(options, word, err);
        else if (strcmp(word, "--") == 0) only_operands = true;
        else if (word[1] == '-') is_valid = parse_long(options, &words, err);
        else is_valid = parse_short(options, &words, err);
        if (!is_valid) return false;
        if (options->help || options->version) return true;
    }
    return true;
}
