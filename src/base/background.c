/* One thread that sleeps until it is given a task, and a caller that sleeps until it is done. The
 * lock hands over what either has written before. */
#include "base/workers.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct background {
    pthread_mutex_t lock;
    pthread_cond_t changed;     /* any of the fields below */
    void (*run)(void *context); /* NULL: no task is running */
    void *context;
    bool is_started; /* from start until wait */
    bool is_stopping;
    pthread_t thread;
};

static void *background_main(void *argument)
{
    struct background *background = argument;
    assert(background != NULL);
    pthread_mutex_lock(&background->lock);
    for (;;) {
        while (background->run == NULL && !background->is_stopping) {
            pthread_cond_wait(&background->changed, &background->lock);
        }
        if (background->run == NULL) break;
        pthread_mutex_unlock(&background->lock);

        background->run(background->context);

        pthread_mutex_lock(&background->lock);
        background->run = NULL;
        pthread_cond_broadcast(&background->changed);
    }
    pthread_mutex_unlock(&background->lock);
    return NULL;
}

bool background_create(struct background **background, struct error *err)
{
    assert(background != NULL);
    struct background *created = calloc(1, sizeof *created);
    if (created == NULL) {
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for the background thread");
    }
    pthread_mutex_init(&created->lock, NULL);
    pthread_cond_init(&created->changed, NULL);
    int status = pthread_create(&created->thread, NULL, background_main, created);
    if (status != 0) {
        pthread_cond_destroy(&created->changed);
        pthread_mutex_destroy(&created->lock);
        free(created);
        return error_set(err, ERROR_UNAVAILABLE, "cannot start the background thread: %s",
                         strerror(status));
    }
    *background = created;
    return true;
}

void background_destroy(struct background *background)
{
    if (background == NULL) return;
    pthread_mutex_lock(&background->lock);
    assert(!background->is_stopping);
    background->is_stopping = true;
    pthread_cond_broadcast(&background->changed);
    pthread_mutex_unlock(&background->lock);
    pthread_join(background->thread, NULL); /* ends the task first */

    pthread_cond_destroy(&background->changed);
    pthread_mutex_destroy(&background->lock);
    free(background);
}

void background_start(struct background *background, void (*run)(void *context), void *context)
{
    assert(run != NULL);
    pthread_mutex_lock(&background->lock);
    assert(!background->is_started);
    background->is_started = true;
    background->run = run;
    background->context = context;
    pthread_cond_broadcast(&background->changed);
    pthread_mutex_unlock(&background->lock);
}

void background_wait(struct background *background)
{
    assert(background != NULL);
    pthread_mutex_lock(&background->lock);
    while (background->run != NULL)
        pthread_cond_wait(&background->changed, &background->lock);
    background->is_started = false;
    pthread_mutex_unlock(&background->lock);
}
