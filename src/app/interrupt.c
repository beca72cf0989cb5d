/* The handlers may only touch flags, a pipe and an eventfd; all live in this file. */
#include "app/interrupt.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"

/* Written by a handler on one thread and read on others; a handler may touch what needs no lock. */
static_assert(ATOMIC_BOOL_LOCK_FREE == 2, "handlers take no lock");
static atomic_bool is_signalled, is_timed;
static int pipe_fds[2] = {-1, -1}; /* readable for good once a stop is asked for */
static int asked_fd = -1;          /* readable after USR2, until it is answered */

static struct {
    struct interrupt_watch task;
    pthread_t thread;
    int end_fd;
    bool is_started;
    uint64_t late_ns; /* UINT64_MAX until a stop is asked for */
} watching;

/* ---- signals ---- */

static void tell(int fd)
{
    const uint64_t one = 1; /* what an eventfd takes, and a pipe as well */
    int saved_errno = errno;
    ssize_t n_written = write(fd, &one, sizeof one);
    (void)n_written; /* the flag is what counts */
    errno = saved_errno;
}

static void handle_stop(int signal_number)
{
    if (atomic_exchange(&is_signalled, true)) _exit(128 + signal_number);
    tell(pipe_fds[1]);
}

static void handle_alarm(int signal_number)
{
    (void)signal_number;
    _exit(ERROR_STOPPED);
}

static void handle_asked(int signal_number)
{
    (void)signal_number;
    tell(asked_fd);
}

bool interrupt_install(struct error *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
    assert(pipe_fds[0] < 0);
    asked_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (asked_fd < 0 || pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "cannot make a pipe: %s", strerror(errno));
    struct sigaction action = {.sa_handler = handle_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
    action.sa_handler = handle_asked;
    sigaction(SIGUSR2, &action, NULL);
    action.sa_handler = handle_alarm;
    sigaction(SIGALRM, &action, NULL);
    return true;
}

bool interrupt_requested(void)
{
    return is_signalled || is_timed;
}

void interrupt_request(void)
{
    assert(pipe_fds[1] >= 0);
    if (interrupt_requested()) return;
    is_timed = true;
    tell(pipe_fds[1]);
}

bool interrupt_is_timed(void)
{
    return is_timed;
}

/* ---- waiting ---- */

/* "wait" of ppoll until a time; NULL: forever. */
static const struct timespec *span(struct timespec *wait, uint64_t wait_ns)
{
    assert(wait != NULL);
    *wait = (struct timespec){.tv_sec = (time_t)(wait_ns / 1000000000),
                              .tv_nsec = (long)(wait_ns % 1000000000)};
    return wait_ns < UINT64_MAX ? wait : NULL;
}

bool interrupt_wait(int fd, uint64_t wait_ns)
{
    assert(fd >= 0 || wait_ns < UINT64_MAX);
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = pipe_fds[0], .events = POLLIN}};
    struct timespec wait;
    while (!interrupt_requested()) {
        int n_ready = ppoll(fds, 2, span(&wait, wait_ns), NULL);
        assert(n_ready >= 0 || errno == EINTR);
        if (n_ready == 0 || (n_ready > 0 && fds[0].revents != 0)) return true;
    }
    return false;
}

/* ---- watching ---- */

static void *watch_main(void *argument)
{
    const struct interrupt_watch *task = &watching.task;
    assert(argument == NULL);
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        if (now_ns >= task->stop_ns) interrupt_request();
        if (interrupt_requested() && watching.late_ns == UINT64_MAX) {
            watching.late_ns = now_ns + INTERRUPT_LATE_NS;
            if (watching.late_ns > task->end_ns) watching.late_ns = task->end_ns;
        }
        if (now_ns >= watching.late_ns) {
            alarm(1); /* a pipe that nobody reads, or a disk that hangs, must not hold us */
            task->late(task->context);
            _exit(ERROR_STOPPED);
        }
        uint64_t next_ns = watching.late_ns < UINT64_MAX ? watching.late_ns : task->stop_ns;
        struct pollfd fds[] = {{.fd = watching.end_fd, .events = POLLIN},
                               {.fd = asked_fd, .events = POLLIN},
                               {.fd = pipe_fds[0], .events = POLLIN}};
        struct timespec wait;
        /* The pipe says one thing, once. */
        nfds_t n_fds = interrupt_requested() ? 2 : 3;
        int n_ready = ppoll(
            fds, n_fds, span(&wait, next_ns < UINT64_MAX ? next_ns - now_ns : UINT64_MAX), NULL);
        if (n_ready > 0 && fds[0].revents != 0) return NULL;
        uint64_t count;
        if (n_ready > 0 && fds[1].revents != 0 && read(asked_fd, &count, sizeof count) > 0)
            task->asked(task->context);
    }
}

bool interrupt_watch(const struct interrupt_watch *watch, struct error *err)
{
    assert(pipe_fds[0] >= 0);
    assert(!watching.is_started);
    watching.task = *watch;
    watching.late_ns = UINT64_MAX;
    watching.end_fd = eventfd(0, EFD_CLOEXEC);
    watching.is_started =
        watching.end_fd >= 0 && pthread_create(&watching.thread, NULL, watch_main, NULL) == 0;
    if (watching.is_started) return true;
    return error_set(err, ERROR_UNAVAILABLE, "cannot start a thread that watches for signals");
}

void interrupt_unwatch(void)
{
    if (!watching.is_started) return;
    assert(watching.end_fd >= 0);
    tell(watching.end_fd);
    pthread_join(watching.thread, NULL);
    close(watching.end_fd);
    watching.is_started = false;
    if (!interrupt_requested()) return;
    uint64_t now_ns = clock_now_ns(), left_ns = INTERRUPT_LATE_NS;
    if (watching.late_ns != UINT64_MAX)
        left_ns = watching.late_ns > now_ns ? watching.late_ns - now_ns : 0;
    alarm((unsigned)(left_ns / 1000000000) + 1);
}
