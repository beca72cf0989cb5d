/* Threads that sleep until there is work. A loop is open while it may have unclaimed items; whoever
 * first finds none closes it, and the caller then waits only for helpers that have joined. So a
 * helper that the system wakes late delays nobody: it finds the loop closed and sleeps on. */
#include "base/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct helper {
    struct workers *workers;
    pthread_t thread;
    int32_t worker; /* 1 .. n_threads - 1; the caller is worker 0 */
};

struct workers {
    pthread_mutex_t lock;
    pthread_cond_t opened;   /* is_open or is_stopping became true */
    pthread_cond_t finished; /* n_joined became 0 */

    /* Under the lock. */
    bool is_open;
    bool is_stopping;
    int32_t n_joined; /* helpers inside the loop */

    /* The loop; written under the lock while nobody is inside. */
    void (*run)(void *context, int32_t item, int32_t worker); /* NULL: between loops */
    void *context;
    int32_t n_items;
    _Atomic int64_t item_next; /* every thread overshoots by one: wider than an item */

    int32_t n_threads;
    int32_t n_helpers;       /* threads that were started: n_threads - 1 after create */
    struct helper helpers[]; /* [n_threads - 1] */
};

/* Relaxed is enough: the lock orders an item's results before the caller's return. */
static void claim_items(struct workers *workers, int32_t worker)
{
    assert(worker < workers->n_threads);
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&workers->item_next, 1, memory_order_relaxed);
        if (item >= workers->n_items) return;
        workers->run(workers->context, (int32_t)item, worker);
    }
}

static void *helper_main(void *argument)
{
    struct helper *helper = argument;
    struct workers *workers = helper->workers;
    assert(helper->worker > 0);

    pthread_mutex_lock(&workers->lock);
    for (;;) {
        while (!workers->is_open && !workers->is_stopping) {
            pthread_cond_wait(&workers->opened, &workers->lock);
        }
        if (workers->is_stopping) break;
        workers->n_joined++;
        pthread_mutex_unlock(&workers->lock);

        claim_items(workers, helper->worker);

        pthread_mutex_lock(&workers->lock);
        workers->is_open = false;
        workers->n_joined--;
        if (workers->n_joined == 0) pthread_cond_signal(&workers->finished);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

bool workers_create(struct workers **workers, int32_t n_threads, struct error *err)
{
    assert(workers != NULL);
    assert(n_threads >= 1);
    size_t helper_bytes = (size_t)(n_threads - 1) * sizeof(struct helper);
    struct workers *created = calloc(1, sizeof *created + helper_bytes);
    if (created == NULL) {
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for %d threads", n_threads);
    }
    created->n_threads = n_threads;
    pthread_mutex_init(&created->lock, NULL);
    pthread_cond_init(&created->opened, NULL);
    pthread_cond_init(&created->finished, NULL);

    for (int32_t i = 0; i < n_threads - 1; i++) {
        struct helper *helper = &created->helpers[i];
        *helper = (struct helper){.workers = created, .worker = i + 1};
        int status = pthread_create(&helper->thread, NULL, helper_main, helper);
        if (status != 0) {
            workers_destroy(created);
            return error_set(err, ERROR_UNAVAILABLE, "cannot start thread %d of %d: %s", i + 2,
                             n_threads, strerror(status));
        }
        created->n_helpers++;
    }
    *workers = created;
    return true;
}

void workers_destroy(struct workers *workers)
{
    if (workers == NULL) return;
    pthread_mutex_lock(&workers->lock);
    assert(workers->run == NULL);
    workers->is_stopping = true;
    pthread_mutex_unlock(&workers->lock);
    pthread_cond_broadcast(&workers->opened);
    for (int32_t i = 0; i < workers->n_helpers; i++)
        pthread_join(workers->helpers[i].thread, NULL);

    pthread_cond_destroy(&workers->finished);
    pthread_cond_destroy(&workers->opened);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
}

int32_t workers_count(const struct workers *workers)
{
    assert(workers->n_threads >= 1);
    return workers->n_threads;
}

/* Opens the loop to the helpers. */
static void loop_open(struct workers *workers, int32_t n_items,
                      void (*run)(void *context, int32_t item, int32_t worker), void *context)
{
    pthread_mutex_lock(&workers->lock);
    assert(workers->run == NULL);
    assert(workers->n_joined == 0);
    workers->run = run;
    workers->context = context;
    workers->n_items = n_items;
    atomic_store_explicit(&workers->item_next, 0, memory_order_relaxed);
    workers->is_open = true;
    pthread_mutex_unlock(&workers->lock);
    pthread_cond_broadcast(&workers->opened);
}

/* Closes the loop, whose items are all claimed, and waits for those still being run. */
static void loop_finish(struct workers *workers)
{
    assert(atomic_load_explicit(&workers->item_next, memory_order_relaxed) > workers->n_items);
    pthread_mutex_lock(&workers->lock);
    workers->is_open = false;
    while (workers->n_joined > 0)
        pthread_cond_wait(&workers->finished, &workers->lock);
    workers->run = NULL;
    pthread_mutex_unlock(&workers->lock);
}

void workers_for(struct workers *workers, int32_t n_items,
                 void (*run)(void *context, int32_t item, int32_t worker), void *context)
{
    assert(n_items >= 0);
    assert(run != NULL);
    if (workers->n_threads == 1 || n_items <= 1) {
        for (int32_t item = 0; item < n_items; item++)
            run(context, item, 0);
        return;
    }
    loop_open(workers, n_items, run, context);
    claim_items(workers, 0);
    loop_finish(workers);
}

int32_t workers_available(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    /* The call fails where the kernel knows more processors than the fixed set can name. */
    long n_processors = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                                    : sysconf(_SC_NPROCESSORS_ONLN);
    assert(n_processors <= INT32_MAX);
    return n_processors >= 1 ? (int32_t)n_processors : 1;
}
