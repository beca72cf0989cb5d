/* Distributions, tables and JSON. */
#include "app/figures.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/json.h"

static int compare_values(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    assert(a == a && b == b);
    return (a > b) - (a < b);
}

void figures_spread(struct figures_spread *spread, double *values, int64_t n)
{
    assert(n > 0);
    double sum = 0, last = (double)(n - 1);
    qsort(values, (size_t)n, sizeof *values, compare_values);
    for (int64_t i = 0; i < n; i++)
        sum += values[i];
    *spread = (struct figures_spread){.mean = sum / (double)n,
                                      .p10 = values[(int64_t)(0.10 * last)],
                                      .p50 = values[(int64_t)(0.50 * last)],
                                      .p90 = values[(int64_t)(0.90 * last)],
                                      .p99 = values[(int64_t)(0.99 * last)],
                                      .most = values[n - 1]};
}

const char *figures_text(char *text, const struct figure *figure, double value)
{
    assert(figure->decimals >= 0);
    if (isnan(value)) snprintf(text, 32, "-");
    else snprintf(text, 32, "%.*f", figure->decimals, value);
    return text;
}

void figures_print(const struct figure *figures, int32_t n, const double *const *columns,
                   int32_t n_columns, FILE *stream)
{
    assert(n_columns > 0);
    for (int32_t row = 0; row < n; row++) {
        fprintf(stream, "%-32s", figures[row].name);
        for (int32_t i = 0; i < n_columns; i++) {
            char text[32];
            fprintf(stream, "%13s", figures_text(text, &figures[row], columns[i][row]));
        }
        fputc('\n', stream);
    }
}

void figures_add(json_t *object, const struct figure *figures, int32_t n, const double *values)
{
    assert(json_is_object(object));
    for (int32_t i = 0; i < n; i++) {
        double value = values[i];
        json_t *number = json_null();
        if (fabs(value) < 9e15 && value == floor(value)) number = json_integer((json_int_t)value);
        else if (!isnan(value)) number = json_real(value);
        json_object_set_new(object, figures[i].key, number);
    }
}

bool figures_dump(json_t *root, struct error *err)
{
    char *text = json_write(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    bool is_ok = text != NULL;
    assert(root == NULL || root->refcount > 0);
    if (is_ok) puts(text);
    free(text);
    json_decref(root);
    return is_ok || error_set(err, ERROR_UNAVAILABLE, "the figures cannot be printed as JSON");
}
