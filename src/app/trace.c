/* Formats are rows of a table: names of columns and the unit of time. What is read is checked where
 * it is read, since the commonest fault of a replay, a wrong unit, looks perfect in every figure.
 */
#include "app/trace.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "app/describe.h"
#include "base/json.h"

#define NS_PER_S   UINT64_C(1000000000)
#define STAMP_MAX  ((double)(UINT64_C(1) << 62))
#define TOKENS_MAX TRACE_TOKENS_MAX

enum { NUMBER_BYTES_MAX = 64 };

static const struct trace_names formats[] = {
    {"arrival_s", "prompt_tokens", "output_tokens", NS_PER_S},           /* ours */
    {"TIMESTAMP", "ContextTokens", "GeneratedTokens", NS_PER_S},         /* Azure */
    {"Timestamp", "Request tokens", "Response tokens", NS_PER_S},        /* BurstGPT */
    {"timestamp", "input_length", "output_length", 1000000},             /* Mooncake */
    {"arrived_at", "num_prefill_tokens", "num_decode_tokens", NS_PER_S}, /* Vidur */
};

/* ---- the format ---- */

/* Ours needs no lengths: its lines may have prompts. */
static bool try_format(struct trace *trace, const struct trace_names *format, const json_t *row)
{
    struct trace_names names = trace->names;
    bool is_ours = format == formats;
    if (names.time == NULL) names.time = format->time;
    if (names.prompt == NULL) names.prompt = format->prompt;
    if (names.output == NULL) names.output = format->output;
    if (names.unit_ns == 0) names.unit_ns = format->unit_ns;
    assert(names.unit_ns > 0);
    bool has_lengths = json_object_get(row, names.prompt) && json_object_get(row, names.output);
    if (json_object_get(row, names.time) == NULL || !(has_lengths || is_ours)) return false;
    trace->names = names;
    return true;
}

static bool choose_format(struct trace *trace, const json_t *row, struct error *err)
{
    const char *const given[] = {trace->names.time, trace->names.prompt, trace->names.output};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (given[i] != NULL && json_object_get(row, given[i]) == NULL)
            return error_set(err, ERROR_FORMAT, "the first line has no column \"%s\"", given[i]);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (try_format(trace, &formats[i], row)) return true;
    assert(json_is_object(row));
    return error_set(err, ERROR_FORMAT,
                     "the first line is of no known trace: it must have arrival_s, or the columns "
                     "of the Azure, BurstGPT, Mooncake or Vidur traces, or those that "
                     "--time-column, --prompt-column and --output-column name");
}

/* ---- CSV ---- */

/* Cuts the first cell off `rest`, which has one. Quotes around it are taken away. */
static struct bytes take_cell(struct bytes *rest, bool *is_last)
{
    const char *end = rest->data + rest->n, *at = rest->data;
    bool is_quoted = rest->n > 0 && *at == '"';
    const char *quote = is_quoted ? memchr(at + 1, '"', rest->n - 1) : NULL;
    const char *from = quote != NULL ? quote : at;
    const char *comma = memchr(from, ',', (size_t)(end - from));
    const char *stop = comma != NULL ? comma : end;
    assert(stop >= at);
    struct bytes cell = {.data = at, .n = (size_t)(stop - at)};
    if (quote != NULL && quote + 1 == stop)
        cell = (struct bytes){.data = at + 1, .n = (size_t)(quote - at - 1)};
    *is_last = comma == NULL;
    *rest = (struct bytes){.data = comma != NULL ? comma + 1 : end,
                           .n = comma != NULL ? (size_t)(end - comma - 1) : 0};
    return cell;
}

/* NULL: not UTF-8. */
static json_t *make_value(struct bytes cell)
{
    if (cell.n == 0) return json_null();
    if (cell.n < NUMBER_BYTES_MAX) {
        json_t *number = json_loadb(cell.data, cell.n, JSON_DECODE_ANY, NULL);
        if (json_is_number(number)) return number;
        json_decref(number);
    }
    assert(cell.data != NULL);
    return json_stringn(cell.data, cell.n);
}

static bool read_header(struct trace *trace, struct bytes line, struct arena *arena,
                        struct error *err)
{
    bool is_last = false;
    json_t *row = json_object();
    for (assert(trace->n_columns == 0); !is_last && trace->n_columns < TRACE_COLUMNS_MAX;) {
        struct bytes cell = take_cell(&line, &is_last);
        const char *name = arena_try_copy(arena, cell.data, cell.n);
        if (name == NULL || json_object_set_new(row, name, json_true()) != 0) break;
        trace->columns[trace->n_columns++] = name;
    }
    bool is_whole = is_last && json_object_size(row) == (size_t)trace->n_columns;
    bool is_ok = is_whole ? choose_format(trace, row, err)
                          : error_set(err, ERROR_FORMAT,
                                      "the first line is neither JSON nor a CSV header of at most "
                                      "%d different names in UTF-8",
                                      TRACE_COLUMNS_MAX);
    json_decref(row);
    return is_ok;
}

bool trace_learn(struct trace *trace, struct bytes line, struct arena *arena, struct error *err)
{
    assert(trace->n_columns == 0);
    json_error_t where;
    size_t n_blank = line.n > 0 ? strspn(line.data, " \t") : 0;
    if (n_blank >= line.n || line.data[n_blank] != '{') return read_header(trace, line, arena, err);
    json_t *row = json_read(line, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    bool is_ok = row != NULL
                     ? choose_format(trace, row, err)
                     : error_set(err, ERROR_FORMAT, "the first line is not JSON: %s (byte %d)",
                                 where.text, where.position);
    json_decref(row);
    return is_ok;
}

json_t *trace_parse(const struct trace *trace, struct bytes line, struct error *err)
{
    json_t *row = json_object();
    bool is_last = false, is_utf8 = true;
    int32_t n = 0;
    assert(trace->n_columns > 0);
    for (; !is_last && n < trace->n_columns && is_utf8; n++)
        is_utf8 = json_object_set_new(row, trace->columns[n],
                                      make_value(take_cell(&line, &is_last))) == 0;
    if (is_utf8 && is_last && n == trace->n_columns) return row;
    if (!is_utf8) error_set(err, ERROR_FORMAT, "%s is not UTF-8", trace->columns[n - 1]);
    else
        error_set(err, ERROR_FORMAT, "the row has %s columns than the header, which has %d",
                  is_last ? "fewer" : "more", trace->n_columns);
    json_decref(row);
    return NULL;
}

/* ---- values ---- */

static bool refuse(const char *name, const json_t *value, const char *wish, struct error *err)
{
    char text[DESCRIBE_BYTES_MAX];
    assert(wish[0] != '\0');
    if (value == NULL) return error_set(err, ERROR_FORMAT, "the row has no %s", name);
    return error_set(err, ERROR_FORMAT, "%s is %s, must be %s", name, describe_json(value, text),
                     wish);
}

/* Days since 1970-01-01 in the Gregorian calendar; `month` from 1. */
static int64_t count_days(int64_t year, int64_t month, int64_t day)
{
    assert(month >= 1);
    assert(month <= 12);
    int64_t y = month > 2 ? year : year - 1, m = month > 2 ? month - 3 : month + 9;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

/* Digits after the point as nanoseconds; `text` then stands behind them. False: more than 9. */
static bool read_fraction(const char **text, int64_t *ns)
{
    int n_digits = 0;
    assert(*ns == 0);
    if (**text != '.') return true;
    for ((*text)++; **text >= '0' && **text <= '9' && n_digits < 9; (*text)++, n_digits++)
        *ns = 10 * *ns + (**text - '0');
    for (int i = n_digits; i < 9; i++)
        *ns *= 10;
    return n_digits > 0;
}

/* "2023-11-16 18:17:03.9799600", also with T, Z or +01:00. */
static bool read_calendar(const char *text, uint64_t *stamp_ns)
{
    int year, month, day, hour, minute, second, n = 0, zone_hour = 0, zone_minute = 0;
    char between, sign = '+';
    int64_t ns = 0;
    if (sscanf(text, "%4d-%2d-%2d%c%2d:%2d:%2d%n", &year, &month, &day, &between, &hour, &minute,
               &second, &n) != 7)
        return false;
    assert(n > 0);
    bool is_valid = (between == ' ' || between == 'T') && year >= 1970 && month >= 1 &&
                    month <= 12 && day >= 1 && day <= 31 && hour >= 0 && hour < 24 && minute >= 0 &&
                    minute < 60 && second >= 0 && second <= 60;
    text += n;
    if (!is_valid || year > 2199 || !read_fraction(&text, &ns)) return false;
    int64_t next_month = count_days(year + month / 12, month % 12 + 1, 1);
    if (count_days(year, month, day) >= next_month) return false;
    if (*text == '+' || *text == '-') {
        sign = *text;
        bool is_zone = sscanf(text + 1, "%2d:%2d%n", &zone_hour, &zone_minute, &n) == 2 && n == 5 &&
                       zone_hour >= 0 && zone_hour < 24 && zone_minute >= 0 && zone_minute < 60;
        if (!is_zone) return false;
        text += 1 + n;
    } else if (*text == 'Z') {
        text++;
    }
    int64_t zone = (int64_t)zone_hour * 3600 + (int64_t)zone_minute * 60;
    int64_t seconds = count_days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second +
                      (sign == '+' ? -zone : zone);
    *stamp_ns = (uint64_t)seconds * NS_PER_S + (uint64_t)ns;
    return *text == '\0' && seconds >= 0;
}

static bool read_time(const struct trace *trace, const json_t *row, uint64_t *stamp_ns,
                      struct error *err)
{
    static const char wish[] =
        "a number that is not negative, or a time like 2023-11-16 18:17:03.97";
    const json_t *value = json_object_get(row, trace->names.time);
    assert(trace->names.unit_ns > 0);
    const char *text = json_string_value(value);
    bool is_text = text != NULL && strlen(text) == json_string_length(value);
    if (is_text && read_calendar(text, stamp_ns)) return true;
    double number = json_number_value(value), unit_ns = (double)trace->names.unit_ns;
    if (!json_is_number(value) || !(number >= 0))
        return refuse(trace->names.time, value, wish, err);
    if (number * unit_ns >= STAMP_MAX)
        return refuse(trace->names.time, value, "less than 146 years; is --time-unit right?", err);
    /* Whole numbers stay exact beyond 2^53. */
    *stamp_ns = json_is_integer(value) ? (uint64_t)json_integer_value(value) * trace->names.unit_ns
                                       : (uint64_t)llround(number * unit_ns);
    return true;
}

static bool read_length(const char *name, const json_t *row, int32_t least, int32_t *length,
                        struct error *err)
{
    const json_t *value = json_object_get(row, name);
    double number = json_number_value(value);
    char wish[64];
    assert(least >= 0);
    *length = -1;
    if (value == NULL || json_is_null(value)) return true;
    snprintf(wish, sizeof wish, "a whole number from %d to %d", least, TOKENS_MAX);
    if (!json_is_number(value) || number != floor(number) || number < least || number > TOKENS_MAX)
        return refuse(name, value, wish, err);
    *length = (int32_t)number;
    return true;
}

bool trace_read(const struct trace *trace, const json_t *row, struct trace_row *out,
                struct error *err)
{
    assert(trace->names.time != NULL);
    return read_time(trace, row, &out->stamp_ns, err) &&
           read_length(trace->names.prompt, row, 1, &out->n_prompt, err) &&
           read_length(trace->names.output, row, 0, &out->n_output, err);
}

/* ---- arrivals ---- */

/* The last group has no next stamp: it is spread like the one before. */
static void spread(uint64_t *stamps_ns, int32_t n)
{
    uint64_t gap_ns = 0;
    int32_t begin = 0;
    assert(n > 0);
    for (int32_t end = 1; end <= n; end++) {
        if (end < n && stamps_ns[end] == stamps_ns[begin]) continue;
        if (end < n) gap_ns = stamps_ns[end] - stamps_ns[begin];
        for (int32_t i = begin + 1; i < end; i++)
            stamps_ns[i] += (uint64_t)((double)gap_ns * (i - begin) / (end - begin));
        begin = end;
    }
}

bool trace_arrange(uint64_t *stamps_ns, int32_t n, const struct trace_schedule *schedule,
                   struct error *err)
{
    assert(n > 0);
    if (schedule->spreads) spread(stamps_ns, n);
    uint64_t first_ns = stamps_ns[0];
    for (int32_t i = 0; i < n; i++) {
        assert(stamps_ns[i] >= first_ns);
        stamps_ns[i] -= first_ns;
    }
    double last_s = (double)stamps_ns[n - 1] / (double)NS_PER_S;
    if (schedule->rate > 0 && last_s <= 0)
        return error_set(err, ERROR_FORMAT, "all requests arrive at once, so --rate has no effect");
    double factor = (schedule->rate > 0 ? (n - 1) / last_s / schedule->rate : 1);
    if (schedule->speed > 0) factor /= schedule->speed;
    if (!(last_s * factor * (double)NS_PER_S < STAMP_MAX))
        return error_set(err, ERROR_FORMAT, "the trace lasts %.3g s, must be less than 146 years",
                         last_s * factor);
    for (int32_t i = 0; factor != 1 && i < n; i++)
        stamps_ns[i] = (uint64_t)((double)stamps_ns[i] * factor);
    return true;
}

/* ---- prompts ---- */

/* splitmix64's finalizer. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void trace_fill_prompt(int32_t *ids, int32_t n, uint64_t key, int32_t n_vocab, int32_t mask_id)
{
    assert(n_vocab > 1);
    for (int32_t i = 0; i < n; i++) {
        uint64_t random = mix(mix(key + UINT64_C(0x9e3779b97f4a7c15)) + (uint64_t)i);
        ids[i] = (int32_t)(random % (uint64_t)n_vocab);
        if (ids[i] == mask_id) ids[i] = (mask_id + 1) % n_vocab;
    }
}
