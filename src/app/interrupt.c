/* The handler may only touch a flag and a pipe; both live in this file. */
#include "app/interrupt.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t is_requested;
static int pipe_fds[2] = {-1, -1};

static void handle(int signal_number)
{
    if (is_requested) _exit(128 + signal_number);
    is_requested = 1;
    int saved_errno = errno;
    ssize_t n_written = write(pipe_fds[1], "", 1);
    (void)n_written; /* the flag is what counts */
    errno = saved_errno;
}

bool interrupt_install(struct error *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
    assert(pipe_fds[0] < 0);
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return error_set(err, ERROR_UNAVAILABLE, "cannot make a pipe: %s", strerror(errno));
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        sigaction(signals[i], &action, NULL);
    return true;
}

bool interrupt_requested(void)
{
    return is_requested != 0;
}

bool interrupt_wait(int fd, uint64_t wait_ns)
{
    assert(fd >= 0 || wait_ns < UINT64_MAX);
    struct pollfd fds[] = {{.fd = fd, .events = POLLIN}, {.fd = pipe_fds[0], .events = POLLIN}};
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
                                  .tv_nsec = (long)(wait_ns % 1000000000)};
    while (!interrupt_requested()) {
        int n_ready = ppoll(fds, 2, wait_ns < UINT64_MAX ? &wait : NULL, NULL);
        assert(n_ready >= 0 || errno == EINTR);
        if (n_ready == 0 || (n_ready > 0 && fds[0].revents != 0)) return true;
    }
    return false;
}
