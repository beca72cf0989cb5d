/* Ctrl-C and its relatives (INT, TERM, USR1): the first asks the run to stop, a second one ends the
 * process at once. A pipe makes the request visible to poll, so nobody has to look in turns. A
 * watching thread answers for a main thread that is busy: it ends a process that would take too
 * long to stop, stops one whose time is over, and answers USR2, which asks how far the run is. */
#ifndef APP_INTERRUPT_H
#define APP_INTERRUPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* A request to stop is followed within this time; writing what is done has the rest of 5 s. */
#define INTERRUPT_LATE_NS UINT64_C(4000000000)

/* Installs the handlers, once per process; nothing gives them back. System calls go on afterwards
 * (SA_RESTART), so that reading and writing need not know. False: no pipe is to be had. */
bool interrupt_install(struct error *err);

/* Whether a signal, or time, has asked to stop; stays true. */
bool interrupt_requested(void);

/* Asks to stop because time is over; not counted as a first signal. */
void interrupt_request(void);

/* Whether interrupt_request came before any signal. */
bool interrupt_is_timed(void);

/* Waits until `fd` can be read (-1: no file), or `wait_ns` have passed (UINT64_MAX: forever);
 * false: a signal has arrived first. */
bool interrupt_wait(int fd, uint64_t wait_ns);

struct interrupt_watch {
    void (*late)(void *context);  /* saves what it can; the process then ends with ERROR_STOPPED */
    void (*asked)(void *context); /* by USR2 */
    void *context;
    uint64_t stop_ns; /* monotonic: stop now; UINT64_MAX: never */
    uint64_t end_ns;  /* be over; `late` is called then at the latest */
};

/* Starts the thread, after interrupt_install; both functions are called on it. */
bool interrupt_watch(const struct interrupt_watch *watch, struct error *err);

/* Ends it: from the return on nobody calls them. Does not return if `late` is at work. After a
 * request the process still ends in time, with ERROR_STOPPED, whatever it waits for. Nothing to do
 * if there is no thread. */
void interrupt_unwatch(void);

#endif
