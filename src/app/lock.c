/* Taking over is what has to be exact: two runs that wait may find the same lock stale. Whoever
 * takes over first creates OUT.lock.takeover, with its own facts in it; looks once more whether
 * the lock is the one that was judged; and renames the one over the other. So there is never a
 * moment without a lock, and what was judged is what is replaced. Whoever believes to hold the
 * lock reads it back. */
#include "app/lock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "app/interrupt.h"
#include "base/clock.h"
#include "base/stream.h"

#define LOOK_NS     UINT64_C(1000000000) /* between two looks at a lock that is waited for */
#define TAKEOVER_NS UINT64_C(50000000)   /* another's takeover, which takes no time */
#define STOPPED_NS  UINT64_C(5000000000) /* after which such a one is not at work */
#define GONE_NS     UINT64_C(1000000)    /* a lock that its owner has just removed */

/* What every lock begins with. */
#define START "{\"pid\":"

enum { LINE_BYTES_MAX = 4096 };

struct lock {
    const char *label;                                     /* OUT, borrowed */
    char path[PATH_MAX + 8], takeover_path[PATH_MAX + 24]; /* OUT.lock, OUT.lock.takeover */
    struct lock_facts self;
    _Atomic uint64_t renewed_ns;
    pthread_mutex_t mutex;
    pthread_cond_t ended; /* is_ending has become true */
    bool is_ending, has_thread;
    pthread_t thread;
};

/* A lock file as it was read. */
struct image {
    const char *path;        /* borrowed */
    bool is_foreign;         /* no lock of ours, whatever its name */
    struct lock_facts facts; /* zeros: the owner died before it wrote them, or has not yet */
    struct timespec renewed; /* by the file system's clock */
};

/* ---- judgement ---- */

bool lock_is_local(const struct lock_facts *owner, const struct lock_facts *own)
{
    assert(own->pid > 0);
    return own->boot[0] != '\0' && strcmp(owner->boot, own->boot) == 0 &&
           own->pid_space[0] != '\0' && strcmp(owner->pid_space, own->pid_space) == 0;
}

enum lock_verdict lock_judge(const struct lock_facts *owner, const struct lock_facts *own,
                             const struct lock_sight *sight)
{
    assert(sight->age_ns >= 0);
    if (lock_is_local(owner, own)) return sight->is_alive ? LOCK_REFUSE : LOCK_TAKE;
    bool is_same_job = own->job[0] != '\0' && strcmp(owner->job, own->job) == 0;
    if (is_same_job && own->n_restarts > owner->n_restarts) return LOCK_TAKE;
    if (sight->is_renewed) return LOCK_REFUSE;
    return sight->age_ns >= LOCK_DEAD_NS ? LOCK_TAKE : LOCK_WAIT;
}

/* ---- facts ---- */

/* The text of a small file of the kernel; "": there is none. */
static void read_text(const char *path, char *text, size_t n_max)
{
    assert(n_max > 0);
    int fd = stream_open_fd(path);
    ssize_t n = fd >= 0 ? TEMP_FAILURE_RETRY(read(fd, text, n_max - 1)) : 0;
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
}

/* When a process began; 0: it cannot be read. A zombie is a process that has ended. */
static uint64_t process_start(int64_t pid, bool *is_zombie)
{
    char path[64], text[1024];
    assert(pid > 0);
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    read_text(path, text, sizeof text);
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    *is_zombie = at != NULL && strlen(at) > 2 && (at[2] == 'Z' || at[2] == 'X');
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at != NULL ? strtoull(at, NULL, 10) : 0;
}

/* Whether the process of these facts is here. Where others' processes are hidden, any of its
 * number counts. */
static bool is_alive(const struct lock_facts *facts)
{
    assert(facts->pid >= 0);
    bool is_zombie;
    if (facts->pid <= 0 || (kill((pid_t)facts->pid, 0) != 0 && errno == ESRCH)) return false;
    uint64_t start_ticks = process_start(facts->pid, &is_zombie);
    return !is_zombie && (start_ticks == 0 || start_ticks == facts->start_ticks);
}

static const struct {
    const char *key;
    size_t offset, n_max;
} texts[] = {
#define TEXT(field)                                                                                \
    {                                                                                              \
#field, offsetof(struct lock_facts, field), sizeof((struct lock_facts *)NULL)->field       \
    }
    TEXT(host), TEXT(boot), TEXT(pid_space), TEXT(job)
#undef TEXT
};

enum { TEXTS = sizeof texts / sizeof *texts };

static const char *environment(const char *name)
{
    assert(name[0] != '\0');
    const char *value = getenv(name);
    return value != NULL ? value : "";
}

static void know_job(struct lock_facts *self)
{
    const char *cluster = environment("SLURM_CLUSTER_NAME"), *id = environment("SLURM_JOB_ID");
    const char *array = environment("SLURM_ARRAY_JOB_ID");
    assert(self->job[0] == '\0');
    if (array[0] != '\0')
        snprintf(self->job, sizeof self->job, "%s:%s_%s", cluster, array,
                 environment("SLURM_ARRAY_TASK_ID"));
    else if (id[0] != '\0') snprintf(self->job, sizeof self->job, "%s:%s", cluster, id);
    self->n_restarts = strtol(environment("SLURM_RESTART_COUNT"), NULL, 10);
}

void lock_know_self(struct lock_facts *self)
{
    bool is_zombie;
    *self = (struct lock_facts){.pid = getpid()};
    if (gethostname(self->host, sizeof self->host - 1) != 0) self->host[0] = '\0';
    read_text("/proc/sys/kernel/random/boot_id", self->boot, sizeof self->boot);
    ssize_t n = readlink("/proc/self/ns/pid", self->pid_space, sizeof self->pid_space - 1);
    self->pid_space[n > 0 ? n : 0] = '\0';
    self->start_ticks = process_start(self->pid, &is_zombie);
    know_job(self);
    /* What is written must read back alike, whatever bytes a name has. */
    for (size_t i = 0; i < TEXTS; i++)
        for (char *at = (char *)self + texts[i].offset; *at != '\0'; at++)
            if (*at < ' ' || *at > '~') *at = '?';
    assert(self->pid > 0);
}

static bool is_same_owner(const struct lock_facts *a, const struct lock_facts *b)
{
    assert(b->pid >= 0);
    return a->pid == b->pid && a->start_ticks == b->start_ticks && strcmp(a->boot, b->boot) == 0 &&
           strcmp(a->pid_space, b->pid_space) == 0 && strcmp(a->host, b->host) == 0;
}

/* ---- the file ---- */

static bool write_all(int fd, const char *data, size_t n)
{
    assert(n > 0);
    while (n > 0) {
        ssize_t n_written = TEMP_FAILURE_RETRY(write(fd, data, n));
        if (n_written < 0) return false;
        data += n_written;
        n -= (size_t)n_written;
    }
    return true;
}

/* Creates the file `path`, which must not exist, with our facts. False: errno says why. */
static bool create(const struct lock *lock, const char *path)
{
    const struct lock_facts *self = &lock->self;
    char line[LINE_BYTES_MAX];
    json_t *object =
        json_pack("{s:I, s:I, s:I}", "pid", (json_int_t)self->pid, "start_ticks",
                  (json_int_t)self->start_ticks, "restarts", (json_int_t)self->n_restarts);
    for (size_t i = 0; i < TEXTS; i++)
        json_object_set_new(object, texts[i].key,
                            json_string((const char *)self + texts[i].offset));
    size_t n = json_dumpb(object, line, sizeof line - 1, JSON_COMPACT);
    json_decref(object);
    assert(n < sizeof line);
    if (n == 0) n = strlen(strcpy(line, START)); /* no memory: an unknown owner */
    line[n++] = '\n';
    int fd = (int)TEMP_FAILURE_RETRY(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (fd < 0) return false;
    errno = 0;
    bool is_written = write_all(fd, line, n);
    /* A server may tell only now that there is no room. */
    bool is_closed = close(fd) == 0 || errno == EINTR; /* closes, too, on Linux */
    if (is_closed && is_written) return true;
    int why = errno != 0 ? errno : ENOSPC;
    unlink(path);
    errno = why;
    return false;
}

/* Whether `line` is what create writes, or the start of it, or zeros after a power cut. */
static bool is_ours(const char *line, size_t n, const json_t *object)
{
    assert(n <= LINE_BYTES_MAX);
    while (n > 0 && line[n - 1] == '\0')
        n--;
    bool is_start = memcmp(line, START, n < strlen(START) ? n : strlen(START)) == 0;
    return json_object_get(object, "start_ticks") != NULL || (object == NULL && is_start);
}

/* What does not read as facts are no facts. */
static void parse_facts(struct image *image, const char *line, size_t n)
{
    json_t *object = json_loadb(line, n, JSON_DISABLE_EOF_CHECK, NULL);
    struct lock_facts *facts = &image->facts;
    assert(n <= LINE_BYTES_MAX);
    *facts = (struct lock_facts){0};
    image->is_foreign = !is_ours(line, n, object);
    for (size_t i = 0; i < TEXTS; i++) {
        const char *text = json_string_value(json_object_get(object, texts[i].key));
        if (text != NULL) snprintf((char *)facts + texts[i].offset, texts[i].n_max, "%s", text);
    }
    json_int_t pid = json_integer_value(json_object_get(object, "pid"));
    facts->pid = pid > 0 && pid <= INT32_MAX ? pid : 0;
    facts->start_ticks = (uint64_t)json_integer_value(json_object_get(object, "start_ticks"));
    facts->n_restarts = json_integer_value(json_object_get(object, "restarts"));
    json_decref(object);
}

/* Opening anew is what makes a network file system ask its server. Nobody makes a lock of a link,
 * and one that leads nowhere could neither be read nor created. False: errno says why. */
static bool look(const char *path, struct image *image)
{
    char line[LINE_BYTES_MAX];
    struct stat status;
    int fd = (int)TEMP_FAILURE_RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW));
    assert(path[0] != '\0');
    if (fd < 0) return false;
    ssize_t n = TEMP_FAILURE_RETRY(read(fd, line, sizeof line));
    bool is_read = n >= 0 && fstat(fd, &status) == 0;
    int why = errno;
    close(fd);
    errno = why;
    if (!is_read) return false;
    parse_facts(image, line, (size_t)n);
    image->path = path;
    image->is_foreign = image->is_foreign || !S_ISREG(status.st_mode);
    image->renewed = status.st_mtim;
    return true;
}

static bool is_same_image(const struct image *a, const struct image *b)
{
    assert(a != b);
    return is_same_owner(&a->facts, &b->facts) && a->renewed.tv_sec == b->renewed.tv_sec &&
           a->renewed.tv_nsec == b->renewed.tv_nsec;
}

static bool refuse_file(const struct lock *lock, const char *path, struct error *err)
{
    assert(errno != 0);
    bool is_full = errno == ENOSPC || errno == EDQUOT || errno == EIO;
    return error_set(err, is_full ? ERROR_IO : ERROR_CREATE,
                     "cannot create %s, which keeps other runs away from %s: %s", path, lock->label,
                     strerror(errno));
}

/* Whether the file was there a moment ago, by errno. */
static bool is_gone(void)
{
    assert(errno != 0);
    return errno == ENOENT || errno == ESTALE;
}

/* How old a heartbeat is, by the clock that dated it: that of a file made now. */
static bool find_age(const struct lock *lock, const struct image *image, int64_t *age_ns,
                     struct error *err)
{
    struct stat status;
    char path[PATH_MAX + 16];
    const double far_s = 1e9; /* dates may be anything */
    snprintf(path, sizeof path, "%s.XXXXXX", lock->path);
    int fd = mkostemp(path, O_CLOEXEC);
    bool is_found = fd >= 0 && fstat(fd, &status) == 0;
    assert(image->renewed.tv_nsec >= 0);
    if (!is_found) refuse_file(lock, path, err);
    else {
        double age_s = (double)status.st_mtim.tv_sec - (double)image->renewed.tv_sec;
        *age_ns = (int64_t)fmin(fmax(age_s, -far_s), far_s) * 1000000000 +
                  (status.st_mtim.tv_nsec - image->renewed.tv_nsec);
    }
    if (fd >= 0) close(fd);
    if (fd >= 0) unlink(path);
    return is_found;
}

/* ---- taking ---- */

/* The lock of somebody else, while we look at it. */
struct watch {
    struct image first; /* as it was seen first, */
    uint64_t first_ns;  /* by our clock; 0: not yet */
    bool is_noted;
};

static bool judge(const struct lock *lock, struct watch *watch, const struct image *image,
                  enum lock_verdict *verdict, int64_t *age_ns, struct error *err)
{
    uint64_t now_ns = clock_now_ns();
    *age_ns = 0;
    if (image->is_foreign)
        return error_set(err, ERROR_CREATE,
                         "%s exists, and is no lock of this program; move it away or name another "
                         "output",
                         image->path);
    if (watch->first_ns == 0) {
        watch->first = *image;
        watch->first_ns = now_ns;
    }
    if (!lock_is_local(&image->facts, &lock->self) && !find_age(lock, image, age_ns, err))
        return false;
    /* A date in the future says nothing, but that nobody renewed it while we looked does. */
    int64_t watched_ns = (int64_t)(now_ns - watch->first_ns);
    if (*age_ns < watched_ns) *age_ns = watched_ns;
    const struct lock_sight sight = {.is_alive = is_alive(&image->facts),
                                     .is_renewed = !is_same_image(image, &watch->first),
                                     .age_ns = *age_ns};
    assert(sight.age_ns >= 0);
    *verdict = lock_judge(&image->facts, &lock->self, &sight);
    return true;
}

/* "host n1, pid 12, job :7". */
static void name_owner(const struct lock_facts *owner, char *text, size_t n_max)
{
    assert(n_max > 0);
    bool has_job = owner->job[0] != '\0';
    if (owner->pid == 0) snprintf(text, n_max, "which does not say who it is");
    else
        snprintf(text, n_max, "host %s, pid %lld%s%s", owner->host, (long long)owner->pid,
                 has_job ? ", job " : "", owner->job + (has_job && owner->job[0] == ':'));
}

static bool wait_for_owner(const struct lock *lock, struct watch *watch, int64_t age_ns,
                           struct report *report, struct error *err)
{
    char owner[512];
    assert(age_ns < LOCK_DEAD_NS);
    name_owner(&watch->first.facts, owner, sizeof owner);
    if (!watch->is_noted)
        report_note(report,
                    "%s is locked by another run (%s) whose last sign of life is %lld s old; "
                    "waiting up to %lld s for the next",
                    lock->label, owner, (long long)(age_ns / 1000000000),
                    (long long)((LOCK_DEAD_NS - age_ns + 999999999) / 1000000000));
    watch->is_noted = true;
    if (interrupt_wait(-1, LOOK_NS)) return true;
    return error_set(err, ERROR_STOPPED, "stopped while waiting for the lock of %s (%s)",
                     lock->label, owner);
}

/* Puts our lock in the place of the one that was judged. Whether that worked, the next look
 * tells. `watch` is of another's takeover. */
static bool take_over(const struct lock *lock, const struct image *judged, struct watch *watch,
                      struct report *report, struct error *err)
{
    struct image image;
    if (create(lock, lock->takeover_path)) {
        bool is_judged = look(lock->path, &image) && is_same_image(&image, judged) &&
                         look(lock->takeover_path, &image) &&
                         is_same_owner(&image.facts, &lock->self);
        if (!is_judged || rename(lock->takeover_path, lock->path) != 0) unlink(lock->takeover_path);
        return true;
    }
    assert(errno != 0);
    if (errno != EEXIST) return refuse_file(lock, lock->takeover_path, err);
    /* Somebody else is at it, or died there. */
    enum lock_verdict verdict = LOCK_WAIT;
    int64_t age_ns;
    bool is_seen = look(lock->takeover_path, &image);
    if (!is_seen && !is_gone()) return refuse_file(lock, lock->takeover_path, err);
    bool is_own = is_seen && is_same_owner(&image.facts, &lock->self); /* it could not be removed */
    if (is_own && unlink(lock->takeover_path) != 0)
        return refuse_file(lock, lock->takeover_path, err);
    if (is_own) return true;
    if (is_seen && !is_same_image(&image, &watch->first)) watch->first_ns = 0;
    if (is_seen && !judge(lock, watch, &image, &verdict, &age_ns, err)) return false;
    if (verdict == LOCK_TAKE && unlink(lock->takeover_path) != 0 && errno != ENOENT)
        return refuse_file(lock, lock->takeover_path, err);
    if (verdict == LOCK_TAKE) return true;
    char owner[512];
    uint64_t watched_ns = watch->first_ns != 0 ? clock_now_ns() - watch->first_ns : 0;
    bool is_long = watched_ns > LOOK_NS;
    name_owner(&watch->first.facts, owner, sizeof owner);
    if (verdict == LOCK_REFUSE && watched_ns > STOPPED_NS)
        return error_set(err, ERROR_CREATE, "%s is being taken over by another run: %s",
                         lock->label, owner);
    if (is_long && !watch->is_noted)
        report_note(report, "%s is there: waiting for the run that takes the lock over (%s)",
                    lock->takeover_path, owner);
    watch->is_noted = watch->is_noted || is_long;
    if (interrupt_wait(-1, TAKEOVER_NS)) return true;
    return error_set(err, ERROR_STOPPED, "stopped while waiting for %s", lock->takeover_path);
}

/* Until the lock is ours. */
static bool acquire(const struct lock *lock, struct report *report, struct error *err)
{
    struct watch watch = {.first_ns = 0}, takeover = {.first_ns = 0};
    assert(lock->self.pid > 0);
    for (;;) {
        struct image image;
        enum lock_verdict verdict;
        int64_t age_ns;
        if (create(lock, lock->path)) return true;
        if (errno != EEXIST) return refuse_file(lock, lock->path, err);
        if (!look(lock->path, &image)) {
            if (!is_gone()) return refuse_file(lock, lock->path, err);
            if (interrupt_wait(-1, GONE_NS)) continue;
            return error_set(err, ERROR_STOPPED, "stopped while waiting for %s", lock->path);
        }
        if (is_same_owner(&image.facts, &lock->self)) return true;
        if (!judge(lock, &watch, &image, &verdict, &age_ns, err)) return false;
        if (verdict == LOCK_TAKE && !take_over(lock, &image, &takeover, report, err)) return false;
        if (verdict == LOCK_WAIT && !wait_for_owner(lock, &watch, age_ns, report, err))
            return false;
        if (verdict != LOCK_REFUSE) continue;
        char owner[512];
        name_owner(&image.facts, owner, sizeof owner);
        return error_set(err, ERROR_CREATE, "%s is being written by another run: %s", lock->label,
                         owner);
    }
}

/* ---- holding ---- */

bool lock_renew(struct lock *lock, struct error *err)
{
    struct image image;
    uint64_t now_ns = clock_now_ns();
    assert(lock->self.pid > 0);
    if (now_ns - lock->renewed_ns < LOCK_HEARTBEAT_NS) return true;
    bool is_seen = look(lock->path, &image);
    /* A server that does not answer well takes no lock away. */
    if (!is_seen && errno != ENOENT) return true;
    if (!is_seen)
        return error_set(err, ERROR_IO, "%s was removed while this run was writing %s", lock->path,
                         lock->label);
    if (is_same_owner(&image.facts, &lock->self)) {
        if (utimensat(AT_FDCWD, lock->path, NULL, 0) == 0) lock->renewed_ns = now_ns;
        return true;
    }
    char owner[512];
    name_owner(&image.facts, owner, sizeof owner);
    return error_set(err, ERROR_IO,
                     "%s was taken over by another run (%s), as this one gave no sign of life",
                     lock->label, owner);
}

/* The heartbeat does not wait for a forward pass, or a model that loads. */
static void *keep_alive(void *argument)
{
    struct lock *lock = argument;
    struct timespec until;
    pthread_mutex_lock(&lock->mutex);
    assert(lock->has_thread);
    while (!lock->is_ending) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += LOCK_HEARTBEAT_NS / 1000000000 + 1;
        pthread_cond_timedwait(&lock->ended, &lock->mutex, &until);
        pthread_mutex_unlock(&lock->mutex);
        lock_renew(lock, NULL); /* who writes next is told */
        pthread_mutex_lock(&lock->mutex);
    }
    pthread_mutex_unlock(&lock->mutex);
    return NULL;
}

bool lock_take(struct lock **lock, const char *path, struct report *report, struct error *err)
{
    struct lock *taken = calloc(1, sizeof *taken);
    pthread_condattr_t attributes;
    char target[PATH_MAX];
    assert(report != NULL);
    if (taken == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory to lock %s", path);
    taken->label = path;
    snprintf(taken->path, sizeof taken->path, "%s.lock", realpath(path, target) ? target : path);
    snprintf(taken->takeover_path, sizeof taken->takeover_path, "%s.takeover", taken->path);
    lock_know_self(&taken->self);
    if (!acquire(taken, report, err)) {
        free(taken);
        return false;
    }
    taken->renewed_ns = clock_now_ns();
    pthread_mutex_init(&taken->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&taken->ended, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_lock(&taken->mutex);
    taken->has_thread = pthread_create(&taken->thread, NULL, keep_alive, taken) == 0;
    pthread_mutex_unlock(&taken->mutex);
    *lock = taken;
    if (taken->has_thread) return true;
    lock_release(taken);
    return error_set(err, ERROR_UNAVAILABLE, "cannot start the thread that keeps a lock");
}

void lock_release(struct lock *lock)
{
    struct image image;
    if (lock == NULL) return;
    assert(lock->path[0] != '\0');
    pthread_mutex_lock(&lock->mutex);
    lock->is_ending = true;
    pthread_cond_signal(&lock->ended);
    pthread_mutex_unlock(&lock->mutex);
    if (lock->has_thread) pthread_join(lock->thread, NULL);
    lock->has_thread = false;
    pthread_cond_destroy(&lock->ended);
    pthread_mutex_destroy(&lock->mutex);
    if (look(lock->path, &image) && is_same_owner(&image.facts, &lock->self)) unlink(lock->path);
    free(lock);
}
