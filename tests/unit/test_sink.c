/* app/sink: printed pieces arrive, compressed by name, and nothing is overwritten unasked. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/sink.h"
#include "base/stream.h"

static char folder[] = "/tmp/test_sink_XXXXXX";
static char path[64];

static void set_up(void)
{
    cr_assert(mkdtemp(folder));
}

static void tear_down(void)
{
    unlink(path);
    rmdir(folder);
}

TestSuite(sink, .init = set_up, .fini = tear_down);

static void print_lines(const char *name, bool overwrite)
{
    struct sink *sink;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/%s", folder, name);
    cr_assert(sink_open(&sink, path, overwrite, &err), "%s", err.message);
    for (int i = 0; i < 5000; i++)
        fprintf(sink_file(sink), "line %d\n", i);
    cr_assert(sink_close(sink, &err), "%s", err.message);
}

static void expect_lines(void)
{
    struct line_reader *reader;
    struct bytes line;
    char wanted[32];
    cr_assert(line_reader_open(&reader, path, 100, NULL));
    for (int i = 0; i < 5000; i++) {
        cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_READ);
        snprintf(wanted, sizeof wanted, "line %d", i);
        cr_assert_str_eq(line.data, wanted);
    }
    cr_assert_eq(line_reader_next(reader, &line, NULL), LINE_END);
    line_reader_close(reader);
}

static int first_byte(void)
{
    FILE *file = fopen(path, "r");
    int byte = fgetc(file);
    fclose(file);
    return byte;
}

Test(sink, what_is_printed_is_in_the_file)
{
    print_lines("plain.json", false);
    expect_lines();
    cr_assert_eq(first_byte(), 'l');
}

Test(sink, a_name_in_zst_is_compressed)
{
    print_lines("small.json.zst", false);
    expect_lines();
    cr_assert_eq(first_byte(), 0x28);
}

Test(sink, an_existing_file_is_refused_unless_allowed)
{
    struct sink *sink;
    struct error err = {0};
    print_lines("twice", false);
    cr_assert_not(sink_open(&sink, path, false, &err));
    cr_assert_eq(err.code, ERROR_CREATE);
    print_lines("twice", true);
    expect_lines();
}

Test(sink, a_full_disk_is_told_by_the_close)
{
    struct sink *sink;
    struct error err = {0};
    snprintf(path, sizeof path, "%s/none", folder);
    cr_assert(sink_open(&sink, "/dev/full", false, &err), "%s", err.message);
    fputs("lost\n", sink_file(sink));
    cr_assert_not(sink_close(sink, &err));
    cr_assert_eq(err.code, ERROR_IO);
}

Test(sink, a_reader_that_went_away_is_no_message)
{
    struct sink *sink;
    struct error err = {0};
    int ends[2];
    char name[64];
    snprintf(path, sizeof path, "%s/none", folder);
    signal(SIGPIPE, SIG_IGN); /* as the program does */
    cr_assert_eq(pipe(ends), 0);
    snprintf(name, sizeof name, "/proc/self/fd/%d", ends[1]);
    cr_assert(sink_open(&sink, name, false, &err), "%s", err.message);
    close(ends[0]);
    for (int i = 0; i < 100000; i++)
        fputs("nobody reads this\n", sink_file(sink));
    cr_assert_not(sink_close(sink, &err));
    cr_assert_eq(err.code, ERROR_IO);
    cr_assert_str_eq(err.message, "");
    close(ends[1]);
}
