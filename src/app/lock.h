/* Who may write an output: whoever holds OUT.lock beside it. A file is what every file system has,
 * also those of clusters where flock does nothing. Its one line of JSON says who the owner is; its
 * time of change is the owner's heartbeat, which a thread renews while the lock is held. */
#ifndef APP_LOCK_H
#define APP_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "app/report.h"
#include "base/error.h"

/* ---- judgement: facts in, verdict out ---- */

#define LOCK_HEARTBEAT_NS INT64_C(5000000000)
#define LOCK_DEAD_NS      INT64_C(120000000000) /* as long without a heartbeat: the owner is gone */

/* A process among all machines; zeros where a fact is not known. */
struct lock_facts {
    char host[256];
    char boot[64];      /* id of the boot: tells machines apart whatever they are called */
    char pid_space[64]; /* in which the pid means something: containers have their own */
    int64_t pid;
    uint64_t start_ticks; /* of the process, since boot: a pid is given again, this is not */
    char job[128];        /* of the scheduler, with its cluster; "": none */
    int64_t n_restarts;   /* of the job */
};

/* What was seen of the owner. */
struct lock_sight {
    bool is_alive;   /* such a process is here; looked for only if lock_is_local */
    bool is_renewed; /* a heartbeat came, or the owner changed, while we looked */
    int64_t age_ns;  /* of the last heartbeat, by the file system's clock */
};

enum lock_verdict {
    LOCK_TAKE,   /* the owner is gone */
    LOCK_WAIT,   /* it may be */
    LOCK_REFUSE, /* it is alive */
};

/* Whether the owner, if it is alive, is a process that can be seen from here. */
bool lock_is_local(const struct lock_facts *owner, const struct lock_facts *own);

/* Pure. An owner that can be seen decides; then the scheduler, which restarts a job only when its
 * former run has ended; then the heartbeat. */
enum lock_verdict lock_judge(const struct lock_facts *owner, const struct lock_facts *own,
                             const struct lock_sight *sight);

/* ---- the file ---- */

struct lock;

/* The facts of this process, its job from the environment. */
void lock_know_self(struct lock_facts *self);

/* Takes the lock of the file `path` (through links), which need not exist, before it is looked at:
 * another run may be changing it. Takes over what a dead run left; waits for another host's run to
 * show whether it is dead, with a note on who is waited for. Heap; release it. False: ERROR_CREATE,
 * an owner is alive or there can be no such file; ERROR_STOPPED, a signal ended the wait. */
bool lock_take(struct lock **lock, const char *path, struct report *report, struct error *err);

/* Before each write: whether the lock is still held. Looks every LOCK_HEARTBEAT_NS, and renews it.
 * False: it was taken over or removed, as after a long sleep of this machine, so nothing may be
 * written any more. From any thread. */
bool lock_renew(struct lock *lock, struct error *err);

/* Removes the file if it is ours, and frees. NULL is fine. */
void lock_release(struct lock *lock);

#endif
