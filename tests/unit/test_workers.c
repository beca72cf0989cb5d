/* base/workers: every item once, never two on one worker, nobody spins; the background task. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/workers.h"

enum { N_WORKERS_MAX = 8, N_ITEMS_MAX = 3000 };

static struct workers *pool_of(int32_t n_threads)
{
    struct workers *workers = NULL;
    struct error err = {0};
    cr_assert(workers_create(&workers, n_threads, &err), "%s", err.message);
    cr_assert_eq(workers_count(workers), n_threads);
    return workers;
}

struct tally {
    atomic_int n_runs[N_ITEMS_MAX];
    atomic_int n_inside[N_WORKERS_MAX]; /* threads that hold this worker number right now */
    atomic_int n_faults;
    int32_t n_workers;
};

static void count_item(void *context, int32_t item, int32_t worker)
{
    struct tally *tally = context;
    if (worker < 0 || worker >= tally->n_workers) {
        tally->n_faults++;
        return;
    }
    if (atomic_fetch_add(&tally->n_inside[worker], 1) != 0) tally->n_faults++;
    tally->n_runs[item]++;
    if (item % 64 == 0) sched_yield(); /* lets the others in */
    atomic_fetch_sub(&tally->n_inside[worker], 1);
}

Test(workers, every_item_runs_once_and_a_worker_is_one_thread, .timeout = 60)
{
    static const int32_t thread_counts[] = {1, 2, 5, 8};
    static const int32_t item_counts[] = {0, 1, 2, 7, 8, 9, N_ITEMS_MAX};
    for (size_t t = 0; t < sizeof thread_counts / sizeof thread_counts[0]; t++) {
        struct workers *workers = pool_of(thread_counts[t]);
        for (size_t n = 0; n < sizeof item_counts / sizeof item_counts[0]; n++) {
            struct tally *tally = calloc(1, sizeof *tally);
            cr_assert_not_null(tally);
            tally->n_workers = thread_counts[t];
            workers_for(workers, item_counts[n], count_item, tally);
            for (int32_t i = 0; i < N_ITEMS_MAX; i++) {
                cr_assert_eq(tally->n_runs[i], i < item_counts[n] ? 1 : 0);
            }
            cr_assert_eq(tally->n_faults, 0);
            free(tally);
        }
        workers_destroy(workers);
    }
}

static void add_item(void *context, int32_t item, int32_t worker)
{
    int64_t *sums = context; /* [N_WORKERS_MAX], each worker writes its own */
    sums[worker] += item;
}

Test(workers, results_of_a_loop_are_seen_by_the_caller_and_the_next_loop, .timeout = 60)
{
    struct workers *workers = pool_of(4);
    int64_t sums[N_WORKERS_MAX] = {0};
    int64_t expected = 0;
    for (int32_t loop = 0; loop < 5000; loop++) {
        int32_t n_items = loop % 13;
        workers_for(workers, n_items, add_item, sums);
        expected += n_items * (n_items - 1) / 2;
        int64_t total = 0;
        for (int i = 0; i < N_WORKERS_MAX; i++)
            total += sums[i];
        cr_assert_eq(total, expected);
    }
    workers_destroy(workers);
}

struct order {
    pthread_t caller;
    int32_t items[64];
    int32_t n_items;
    bool is_elsewhere; /* an item ran on another thread or under another number */
};

static void record_item(void *context, int32_t item, int32_t worker)
{
    struct order *order = context;
    if (!pthread_equal(order->caller, pthread_self()) || worker != 0) order->is_elsewhere = true;
    order->items[order->n_items++] = item;
}

Test(workers, one_thread_runs_all_items_inline_in_order)
{
    struct workers *workers = pool_of(1);
    struct order order = {.caller = pthread_self()};
    workers_for(workers, 64, record_item, &order);
    cr_assert_eq(order.n_items, 64);
    cr_assert_not(order.is_elsewhere);
    for (int32_t i = 0; i < 64; i++)
        cr_assert_eq(order.items[i], i);
    workers_destroy(workers);
}

Test(workers, one_item_runs_inline)
{
    struct workers *workers = pool_of(4);
    struct order order = {.caller = pthread_self()};
    for (int loop = 0; loop < 64; loop++)
        workers_for(workers, 1, record_item, &order);
    cr_assert_eq(order.n_items, 64);
    cr_assert_not(order.is_elsewhere);
    workers_destroy(workers);
}

struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t arrived;
    int32_t n_present, n_expected;
};

/* Returns only when all items are being run at the same time. */
static void meet(void *context, int32_t item, int32_t worker)
{
    struct meeting *meeting = context;
    cr_assert_eq(item < meeting->n_expected && worker < meeting->n_expected, true);
    pthread_mutex_lock(&meeting->lock);
    meeting->n_present++;
    pthread_cond_broadcast(&meeting->arrived);
    while (meeting->n_present < meeting->n_expected) {
        pthread_cond_wait(&meeting->arrived, &meeting->lock);
    }
    pthread_mutex_unlock(&meeting->lock);
}

Test(workers, all_threads_work_at_the_same_time, .timeout = 60)
{
    struct workers *workers = pool_of(5);
    struct meeting meeting = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .arrived = PTHREAD_COND_INITIALIZER, .n_expected = 5};
    workers_for(workers, 5, meet, &meeting);
    cr_assert_eq(meeting.n_present, 5);
    workers_destroy(workers);
}

static uint64_t process_time_ns(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * 1000000000 + (uint64_t)spent.tv_nsec;
}

struct rest {
    struct meeting meeting;
    int32_t slow_worker;
};

/* Every thread takes an item; then one sleeps, and the others have nothing left to do. */
static void meet_and_rest(void *context, int32_t item, int32_t worker)
{
    struct rest *rest = context;
    meet(&rest->meeting, item, worker);
    if (worker == rest->slow_worker) usleep(100000);
}

Test(workers, waiting_costs_no_processor_time, .timeout = 60)
{
    struct workers *workers = pool_of(4);
    struct background *background = NULL;
    cr_assert(background_create(&background, NULL));
    uint64_t start_ns = process_time_ns();
    for (int32_t slow_worker = 0; slow_worker < 2; slow_worker++) {
        struct rest rest = {.meeting = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                        .arrived = PTHREAD_COND_INITIALIZER,
                                        .n_expected = 4},
                            .slow_worker = slow_worker};
        workers_for(workers, 4, meet_and_rest, &rest);
        usleep(50000); /* between loops, all threads have been awake */
    }
    /* About 1 ms of the 300; spinning threads would take a good part of them. */
    cr_assert_lt(process_time_ns() - start_ns, 15000000);
    background_destroy(background);
    workers_destroy(workers);
}

static void start_nested_loop(void *context, int32_t item, int32_t worker)
{
    (void)item, (void)worker;
    int64_t sums[N_WORKERS_MAX] = {0};
    workers_for(context, 8, add_item, sums);
}

Test(workers, a_loop_inside_a_loop_is_a_mistake_in_the_program, .signal = SIGABRT, .timeout = 60)
{
    struct workers *workers = pool_of(2);
    workers_for(workers, 2, start_nested_loop, workers);
}

Test(workers, idle_pools_and_nothing_can_be_destroyed)
{
    for (int i = 0; i < 50; i++)
        workers_destroy(pool_of(3));
    workers_destroy(NULL);
}

/* From here on, a new thread asks for more stack than there are addresses. */
static void make_threads_impossible(void)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    cr_assert_eq(pthread_attr_setstacksize(&attributes, (size_t)1 << 47), 0);
    cr_assert_eq(pthread_setattr_default_np(&attributes), 0);
}

Test(workers, threads_that_cannot_be_started_are_an_error)
{
    make_threads_impossible();
    struct workers *workers = NULL;
    struct error err = {0};
    cr_assert_not(workers_create(&workers, 3, &err));
    cr_assert_eq(err.code, ERROR_UNAVAILABLE);
    cr_assert_not_null(strstr(err.message, "thread 2 of 3"), "%s", err.message);
    cr_assert_null(workers);
}

Test(workers, available_follows_the_affinity_mask)
{
    cr_assert_geq(workers_available(), 1);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)sched_getcpu(), &set);
    cr_assert_eq(sched_setaffinity(0, sizeof set, &set), 0);
    cr_assert_eq(workers_available(), 1);
}

/* ---- the background task ---- */

static struct background *background_of(void)
{
    struct background *background = NULL;
    struct error err = {0};
    cr_assert(background_create(&background, &err), "%s", err.message);
    return background;
}

struct task {
    pthread_t caller;
    int32_t n_runs;
    bool is_inline;
};

static void run_task(void *context)
{
    struct task *task = context;
    task->is_inline = pthread_equal(task->caller, pthread_self());
    usleep(1000);
    task->n_runs++;
}

Test(background, each_task_runs_once_elsewhere_and_wait_sees_its_result, .timeout = 60)
{
    struct background *background = background_of();
    struct task task = {.caller = pthread_self()};
    for (int32_t n = 1; n <= 20; n++) {
        background_start(background, run_task, &task);
        background_wait(background);
        cr_assert_eq(task.n_runs, n);
        cr_assert_not(task.is_inline);
    }
    background_destroy(background);
}

Test(background, waiting_without_a_task_returns_at_once, .timeout = 60)
{
    struct background *background = background_of();
    background_wait(background);
    struct task task = {.caller = pthread_self()};
    background_start(background, run_task, &task);
    background_wait(background);
    background_wait(background);
    cr_assert_eq(task.n_runs, 1);
    background_destroy(background);
}

Test(background, destroy_waits_for_the_task, .timeout = 60)
{
    for (int i = 0; i < 20; i++) {
        struct background *background = background_of();
        struct task task = {.caller = pthread_self()};
        background_start(background, run_task, &task);
        background_destroy(background);
        cr_assert_eq(task.n_runs, 1);
    }
    background_destroy(background_of());
    background_destroy(NULL);
}

static void meet_in_background(void *context)
{
    meet(context, 0, 0);
}

Test(background, the_task_runs_beside_the_caller, .timeout = 60)
{
    struct background *background = background_of();
    struct meeting meeting = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .arrived = PTHREAD_COND_INITIALIZER, .n_expected = 2};
    background_start(background, meet_in_background, &meeting);
    meet(&meeting, 1, 1);
    background_wait(background);
    cr_assert_eq(meeting.n_present, 2);
    background_destroy(background);
}

Test(background, starting_before_waiting_is_a_mistake_in_the_program, .signal = SIGABRT)
{
    struct background *background = background_of();
    struct task task = {.caller = pthread_self()};
    background_start(background, run_task, &task);
    usleep(100000); /* done, but nobody has waited for it */
    background_start(background, run_task, &task);
}

Test(background, a_thread_that_cannot_be_started_is_an_error)
{
    make_threads_impossible();
    struct background *background = NULL;
    struct error err = {0};
    cr_assert_not(background_create(&background, &err));
    cr_assert_eq(err.code, ERROR_UNAVAILABLE);
    cr_assert_null(background);
}
