/* One failure: a code that decides the exit status, and one message that names the thing, the
 * place and the wish. Callers add context on the way up; only main prints (invariant I5). */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Values are the process's exit codes (sysexits.h), so that main needs no table. */
enum error_code {
    ERROR_NONE = 0,
    ERROR_USAGE = 64,       /* a wrong flag or argument */
    ERROR_FORMAT = 65,      /* a file says something we cannot accept */
    ERROR_NO_INPUT = 66,    /* an input is missing or unreadable */
    ERROR_UNAVAILABLE = 69, /* no such device, not enough memory */
    ERROR_CREATE = 73,      /* an output cannot be created, or exists */
    ERROR_IO = 74,          /* reading or writing failed */
    ERROR_STOPPED = 75,     /* stopped on request; run again to go on */
};

/* Caller's struct; zero it with {0} (ERROR_NONE) before the first use. */
struct error {
    enum error_code code;
    char message[1024]; /* one line of valid UTF-8; longer texts are cut */
};

/* Sets `err` and returns false, so that `return error_set(...)` is one line. `err` may be NULL. The
 * arguments may be foreign bytes: control characters come out as blanks, what is not UTF-8 as "?".
 */
__attribute__((format(printf, 3, 4))) bool error_set(struct error *err, enum error_code code,
                                                     const char *format, ...);

/* Puts "context: " before the message that `err` holds; keeps the code. Returns false. */
__attribute__((format(printf, 2, 3))) bool error_wrap(struct error *err, const char *format, ...);

/* Prints what error_set would store, and a newline. */
__attribute__((format(printf, 2, 3))) void error_print(FILE *stream, const char *format, ...);

/* What a terminal, or a line of JSON, may be shown of foreign text. */
enum error_shown {
    ERROR_SHOWN_TEXT,
    ERROR_SHOWN_CONTROL, /* ends lines, moves the cursor, turns the direction of writing, or NUL */
    ERROR_SHOWN_INVALID, /* a byte that is not UTF-8 here */
};

/* The character at `text`, which ends with NUL, and its bytes, at least 1. */
enum error_shown error_next(const char *text, size_t *n_bytes);

#endif
