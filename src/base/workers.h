/* A fixed pool of blocking threads (spinning collapses on shared cores) for data-parallel loops,
 * and one background task with a hand-over. Which thread runs an item never changes a result:
 * items write to disjoint places. */
#ifndef BASE_WORKERS_H
#define BASE_WORKERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct workers;

/* Pool of `n_threads` >= 1 including the caller's own. Heap; destroy joins the threads. */
bool workers_create(struct workers **workers, int32_t n_threads, struct error *err);
void workers_destroy(struct workers *workers); /* NULL is fine */

int32_t workers_count(const struct workers *workers);

/* Calls run(context, item, worker) for every item in [0, n_items), items claimed in order by
 * whoever is free; worker in [0, workers_count) tells apart scratch space. Returns when all are
 * done. Not reentrant: one loop at a time, from one thread. */
void workers_for(struct workers *workers, int32_t n_items,
                 void (*run)(void *context, int32_t item, int32_t worker), void *context);

/* One background thread that runs one task at a time, apart from any pool. */
struct background;
bool background_create(struct background **background, struct error *err);
void background_destroy(struct background *background); /* waits for the task; NULL is fine */
/* Starts `run(context)`; the previous task must have been waited for. */
void background_start(struct background *background, void (*run)(void *context), void *context);
void background_wait(struct background *background);

/* Processors this process may run on (affinity mask), at least 1. */
int32_t workers_available(void);

#endif
