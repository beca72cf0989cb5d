/* Two windows that take turns: while one is answered, the other is filled in the background. */
#ifndef APP_FEED_H
#define APP_FEED_H

#include <stdbool.h>

#include "app/prompts.h"
#include "app/window.h"
#include "base/error.h"

/* Longer than this nobody waits for a reader that may hang on a silent pipe. */
enum { FEED_SETTLE_MS = 100 };

struct feed;

/* `prompts` is borrowed until close. Heap; close it. False: ERROR_UNAVAILABLE. */
bool feed_open(struct feed **feed, struct prompts *prompts, const struct window_limits *limits,
               struct error *err);

/* Only when feed_is_filled. NULL is fine. */
void feed_close(struct feed *feed);

/* Starts filling the window that is not taken. Until the next feed_take `prompts` is the reader's.
 */
void feed_start(struct feed *feed);

/* Whether nothing is at work in the background any more, or will not be after `wait_ms`. */
bool feed_is_filled(const struct feed *feed, int wait_ms);

/* Waits for the window that was started; from here on it takes only lines that are there. The one
 * taken before is given back with it. NULL: a signal came first; reading a pipe may take forever.
 */
const struct window *feed_take(struct feed *feed);

#endif
