/* The background task fills windows[next]; eventfds say that somebody waits for it, and that it is
 * done. */
#include "app/feed.h"

#include <assert.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "app/interrupt.h"
#include "base/workers.h"

struct feed {
    struct window windows[2];
    int next;
    struct intake intake;
    struct background *background;
    bool is_filling;
    int filled_fd; /* readable once it is filled */
};

/* Makes an eventfd readable. */
static void raise_event(int fd)
{
    uint64_t one = 1;
    ssize_t n_written = write(fd, &one, sizeof one);
    assert(n_written == sizeof one);
    (void)n_written;
}

/* Makes it unreadable again. */
static void lower_event(int fd)
{
    uint64_t count;
    ssize_t n_read = read(fd, &count, sizeof count);
    assert(n_read == sizeof count);
    (void)n_read;
}

bool feed_open(struct feed **feed, struct prompts *prompts, const struct window_limits *limits,
               struct error *err)
{
    assert(prompts != NULL);
    struct feed *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return error_set(err, ERROR_UNAVAILABLE, "not enough memory to read");
    *feed = opened;
    opened->intake.prompts = prompts;
    opened->filled_fd = eventfd(0, EFD_CLOEXEC);
    opened->intake.hurry_fd = eventfd(0, EFD_CLOEXEC);
    if (opened->filled_fd < 0 || opened->intake.hurry_fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "cannot make an eventfd");
    return window_create(&opened->windows[0], limits, err) &&
           window_create(&opened->windows[1], limits, err) &&
           background_create(&opened->background, err);
}

void feed_close(struct feed *feed)
{
    if (feed == NULL) return;
    assert(feed_is_filled(feed, 0));
    background_destroy(feed->background);
    if (feed->filled_fd >= 0) close(feed->filled_fd);
    if (feed->intake.hurry_fd >= 0) close(feed->intake.hurry_fd);
    window_destroy(&feed->windows[0]);
    window_destroy(&feed->windows[1]);
    free(feed);
}

static void fill(void *context)
{
    struct feed *feed = context;
    assert(feed->filled_fd >= 0);
    window_fill(&feed->windows[feed->next], &feed->intake);
    raise_event(feed->filled_fd);
}

void feed_start(struct feed *feed)
{
    assert(!feed->is_filling);
    feed->is_filling = true;
    background_start(feed->background, fill, feed);
}

bool feed_is_filled(const struct feed *feed, int wait_ms)
{
    if (feed == NULL || !feed->is_filling) return true;
    assert(feed->filled_fd >= 0);
    struct pollfd fd = {.fd = feed->filled_fd, .events = POLLIN};
    return poll(&fd, 1, wait_ms) == 1;
}

const struct window *feed_take(struct feed *feed)
{
    const struct window *window = &feed->windows[feed->next];
    assert(feed->is_filling);
    raise_event(feed->intake.hurry_fd);
    if (!interrupt_wait(feed->filled_fd, UINT64_MAX)) return NULL;
    lower_event(feed->filled_fd);
    background_wait(feed->background);
    lower_event(feed->intake.hurry_fd);
    feed->is_filling = false;
    feed->next = 1 - feed->next;
    return window;
}
