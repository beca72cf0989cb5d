/* A window: the lines that are read, computed and written together, in one arena that is reset when
 * the window is filled again. Its size bounds the memory of a run, whatever the input's size. */
#ifndef APP_WINDOW_H
#define APP_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "app/prompts.h"
#include "base/arena.h"
#include "base/error.h"
#include "plan/request.h"

struct window_limits {
    int32_t n_prompts_max; /* lines, bad ones counted */
    int64_t n_cells_max;   /* canvas cells of its requests together; any one request fits */
};

struct window {
    struct window_limits limits;
    struct arena arena;     /* holds everything below; as large as the limits can need */
    struct prompt *prompts; /* [n_prompts], in input order; good and bad */
    int32_t n_prompts;
    struct request *requests; /* [n_requests], those of the good prompts; line_state: the prompt */
    int32_t n_requests;
    bool is_last;         /* nothing follows; also set when reading failed */
    struct error failure; /* why reading ended early; ERROR_NONE: it did not */
};

/* Where windows come from: the reader, and the line that no longer fitted the window before. Two
 * windows that take turns share one intake, and only one of them may be filled at a time. */
struct intake {
    struct prompts *prompts; /* borrowed */
    struct prompt held;      /* borrowed from `prompts` */
    bool is_held;
    int hurry_fd; /* can be read: someone waits for the window, so it takes no line that is not
                     there yet; -1: it is filled up */
};

/* Reserves the address space that a window of these limits can need at most; pages are taken when
 * they are filled. Caller's struct. False: ERROR_UNAVAILABLE. */
bool window_create(struct window *window, const struct window_limits *limits, struct error *err);
void window_destroy(struct window *window); /* a zeroed struct is fine */

/* Reads lines until the window is full or the input ends, or one line is there, no more are and
 * someone waits for it. What was in the window is gone. A failure
 * of the input is kept in the window, behind the lines that came before it. */
void window_fill(struct window *window, struct intake *intake);

#endif
