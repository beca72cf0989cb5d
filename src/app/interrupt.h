/* Ctrl-C and its relatives (INT, TERM, USR1): the first asks the run to stop, a second one ends the
 * process at once. A pipe makes the request visible to poll, so nobody has to look in turns. */
#ifndef APP_INTERRUPT_H
#define APP_INTERRUPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Installs the handlers, once per process; nothing gives them back. System calls go on afterwards
 * (SA_RESTART), so that reading and writing need not know. False: no pipe is to be had. */
bool interrupt_install(struct error *err);

/* Whether a signal has arrived; stays true. */
bool interrupt_requested(void);

/* Waits until `fd` can be read (-1: no file), or `wait_ns` have passed (UINT64_MAX: forever);
 * false: a signal has arrived first. */
bool interrupt_wait(int fd, uint64_t wait_ns);

#endif
