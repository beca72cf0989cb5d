/* app/figures: distributions, and tables and JSON that agree. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "app/figures.h"

static const struct figure figures[] = {{"answers", "answers", 0}, {"p50_s", "  p50 s", 3}};

Test(figures, percentiles_are_values_that_occurred)
{
    double values[101];
    struct figures_spread spread;
    for (int i = 0; i <= 100; i++)
        values[i] = 100 - i;
    figures_spread(&spread, values, 101);
    cr_assert_eq(spread.mean, 50);
    cr_assert_eq(spread.p10, 10);
    cr_assert_eq(spread.p50, 50);
    cr_assert_eq(spread.p90, 90);
    cr_assert_eq(spread.p99, 99);
    cr_assert_eq(spread.most, 100);
    cr_assert_eq(values[0], 0, "sorted");
}

Test(figures, one_value_is_every_percentile)
{
    double value = 7;
    struct figures_spread spread;
    figures_spread(&spread, &value, 1);
    cr_assert_eq(spread.p10, 7);
    cr_assert_eq(spread.p99, 7);
}

Test(figures, a_table_has_a_column_for_each_thing)
{
    const double first[] = {12, 0.5}, second[] = {3, NAN};
    const double *const columns[] = {first, second};
    char *text = NULL;
    size_t n = 0;
    FILE *stream = open_memstream(&text, &n);
    figures_print(figures, 2, columns, 2, stream);
    fclose(stream);
    cr_assert_str_eq(text, "answers                                    12            3\n"
                           "  p50 s                                 0.500            -\n");
    free(text);
}

Test(figures, what_nobody_knows_is_null)
{
    const double values[] = {12345678901234, NAN};
    json_t *object = json_object();
    figures_add(object, figures, 2, values);
    cr_assert_eq(json_integer_value(json_object_get(object, "answers")), 12345678901234);
    cr_assert(json_is_null(json_object_get(object, "p50_s")));
    json_decref(object);
}

/* Random values: sorted, and each percentile has its share of them at or below it. */
Test(figures, percentiles_have_their_share_below_them)
{
    enum { N_MAX = 500 };
    srand(7);
    for (int turn = 0; turn < 100; turn++) {
        double values[N_MAX];
        int64_t n = 1 + rand() % N_MAX, n_below = 0;
        struct figures_spread spread;
        for (int64_t i = 0; i < n; i++)
            values[i] = rand() % 50;
        figures_spread(&spread, values, n);
        for (int64_t i = 0; i < n; i++) {
            cr_assert(i == 0 || values[i] >= values[i - 1]);
            n_below += values[i] < spread.p90;
        }
        cr_assert_leq((double)n_below, 0.9 * (double)n, "seed 7, turn %d", turn);
        cr_assert(spread.p10 <= spread.p50 && spread.p50 <= spread.p90);
        cr_assert(spread.p90 <= spread.p99 && spread.p99 <= spread.most);
        cr_assert(spread.mean >= values[0] && spread.mean <= spread.most);
    }
}

Test(figures, text_has_as_many_decimals_as_the_figure)
{
    char text[32];
    cr_assert_str_eq(figures_text(text, &figures[0], 1234.6), "1235");
    cr_assert_str_eq(figures_text(text, &figures[1], 0.12345), "0.123");
    cr_assert_str_eq(figures_text(text, &figures[1], -0.5), "-0.500");
    cr_assert_str_eq(figures_text(text, &figures[1], NAN), "-");
}
