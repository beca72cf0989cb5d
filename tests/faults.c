/* A library that is loaded before a program (LD_PRELOAD) and makes one of its calls fail: the n-th
 * of a kind, counted from 1, on files whose path holds a text. Kinds are the rows of names[]; what
 * the C library calls inside itself is not counted, but memory is, for whichever library. Calls on
 * pipes, terminals and eventfds pass: no disk is behind them.
 *
 *     FAULTS_KIND=write FAULTS_NTH=3 FAULTS_ERRNO=28 FAULTS_PATH=out.jsonl program
 *
 * FAULTS_ERRNO=0 makes the call short instead: half of its bytes. FAULTS_STICKY=1: all later calls
 * of the kind fail, too, as on a full disk. FAULTS_REPORT names a file that gets "KIND COUNT" lines
 * at the end, and "failed COUNT". */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum kind {
    KIND_READ,
    KIND_PREAD,
    KIND_WRITE,
    KIND_PWRITE,
    KIND_FSYNC,
    KIND_FTRUNCATE,
    KIND_OPEN,
    KIND_CLOSE,
    KIND_MMAP,
    KIND_RENAME,
    KIND_LINK,
    KIND_MEMORY,
    KIND_COUNT,
};

static const char *const names[KIND_COUNT] = {
    [KIND_READ] = "read",     [KIND_PREAD] = "pread", [KIND_WRITE] = "write",
    [KIND_PWRITE] = "pwrite", [KIND_FSYNC] = "fsync", [KIND_FTRUNCATE] = "ftruncate",
    [KIND_OPEN] = "open",     [KIND_CLOSE] = "close", [KIND_MMAP] = "mmap",
    [KIND_RENAME] = "rename", [KIND_LINK] = "link",   [KIND_MEMORY] = "memory",
};

static struct {
    bool is_ready; /* before, everything passes */
    int kind;      /* -1: none fails */
    long nth;
    int error; /* 0: short */
    bool is_sticky;
    const char *path;
} plan = {.kind = -1};
static atomic_long n_calls[KIND_COUNT], n_failed;

/* The C library's own, which it exports for libraries such as this one. */
void *__libc_malloc(size_t n_bytes);
void *__libc_calloc(size_t count, size_t n_bytes);
void *__libc_realloc(void *memory, size_t n_bytes);

/* ---- what is to fail ---- */

static long number_of(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? strtol(text, NULL, 10) : 0;
}

__attribute__((constructor)) static void start(void)
{
    const char *kind = getenv("FAULTS_KIND");
    for (int i = 0; kind != NULL && i < KIND_COUNT; i++)
        if (strcmp(names[i], kind) == 0) plan.kind = i;
    plan.nth = number_of("FAULTS_NTH");
    plan.error = (int)number_of("FAULTS_ERRNO");
    plan.is_sticky = number_of("FAULTS_STICKY") != 0;
    plan.path = getenv("FAULTS_PATH");
}

/* The first call of the program itself. What libraries do before main is none of its own: CUDA's
 * runtime, for one, registers its kernels there and crashes without memory. */
void (*signal(int number, void (*handler)(int)))(int)
{
    void *symbol = dlsym(RTLD_NEXT, "signal");
    void (*(*next)(int, void (*)(int)))(int);
    memcpy(&next, &symbol, sizeof next);
    plan.is_ready = true;
    return next(number, handler);
}

__attribute__((destructor)) static void finish(void)
{
    const char *path = getenv("FAULTS_REPORT");
    plan.is_ready = false;
    FILE *file = path != NULL ? fopen(path, "we") : NULL;
    if (file == NULL) return;
    for (int i = 0; i < KIND_COUNT; i++)
        fprintf(file, "%s %ld\n", names[i], atomic_load(&n_calls[i]));
    fprintf(file, "failed %ld\n", atomic_load(&n_failed));
    fclose(file);
}

/* Whether this call is to fail. */
static bool is_due(enum kind kind)
{
    if (!plan.is_ready) return false;
    long number = atomic_fetch_add(&n_calls[kind], 1) + 1;
    if ((int)kind != plan.kind || plan.nth == 0) return false;
    bool due = plan.is_sticky ? number >= plan.nth : number == plan.nth;
    if (due) atomic_fetch_add(&n_failed, 1);
    return due;
}

static bool is_path_due(enum kind kind, const char *path)
{
    if (plan.path != NULL && strstr(path, plan.path) == NULL) return false;
    return is_due(kind);
}

static bool is_file_due(enum kind kind, int fd)
{
    char link[64], path[4096];
    struct stat file;
    int saved = errno;
    if (!plan.is_ready) return false;
    bool is_file = fstat(fd, &file) == 0 && (S_ISREG(file.st_mode) || S_ISDIR(file.st_mode));
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = is_file ? readlink(link, path, sizeof path - 1) : -1;
    errno = saved;
    if (n < 0) return false;
    path[n] = '\0';
    return is_path_due(kind, path);
}

static int fail(void)
{
    errno = plan.error;
    return -1;
}

/* ---- files ---- */

ssize_t read(int fd, void *target, size_t n)
{
    bool due = is_file_due(KIND_READ, fd);
    if (due && plan.error != 0) return fail();
    return syscall(SYS_read, fd, target, due && n > 1 ? n / 2 : n);
}

ssize_t pread(int fd, void *target, size_t n, off_t at)
{
    bool due = is_file_due(KIND_PREAD, fd);
    if (due && plan.error != 0) return fail();
    return syscall(SYS_pread64, fd, target, due && n > 1 ? n / 2 : n, at);
}

ssize_t write(int fd, const void *data, size_t n)
{
    bool due = is_file_due(KIND_WRITE, fd);
    if (due && plan.error != 0) return fail();
    return syscall(SYS_write, fd, data, due && n > 1 ? n / 2 : n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    bool due = is_file_due(KIND_PWRITE, fd);
    if (due && plan.error != 0) return fail();
    return syscall(SYS_pwrite64, fd, data, due && n > 1 ? n / 2 : n, at);
}

int fsync(int fd)
{
    return is_file_due(KIND_FSYNC, fd) ? fail() : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return is_file_due(KIND_FSYNC, fd) ? fail() : (int)syscall(SYS_fdatasync, fd);
}

int ftruncate(int fd, off_t n_bytes)
{
    return is_file_due(KIND_FTRUNCATE, fd) ? fail() : (int)syscall(SYS_ftruncate, fd, n_bytes);
}

/* A file that could not be closed is closed nevertheless, as Linux does. */
int close(int fd)
{
    bool due = is_file_due(KIND_CLOSE, fd);
    int status = (int)syscall(SYS_close, fd);
    return due ? fail() : status;
}

/* ---- names ---- */

static int open_at(int folder, const char *path, int flags, mode_t mode)
{
    if (is_path_due(KIND_OPEN, path)) return fail();
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments)
{
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_at(folder, path, flags, mode);
}

int rename(const char *from, const char *to)
{
    if (is_path_due(KIND_RENAME, to)) return fail();
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int link(const char *from, const char *to)
{
    if (is_path_due(KIND_LINK, to)) return fail();
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path)
{
    return is_path_due(KIND_LINK, path) ? fail() : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* ---- memory ---- */

void *mmap(void *place, size_t n_bytes, int protection, int flags, int fd, off_t at)
{
    if (is_due(KIND_MMAP)) return (void *)(intptr_t)fail();
    return (void *)syscall(SYS_mmap, place, n_bytes, protection, flags, fd, at);
}

static bool is_memory_due(void)
{
    if (!is_due(KIND_MEMORY)) return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n_bytes)
{
    return is_memory_due() ? NULL : __libc_malloc(n_bytes);
}

void *calloc(size_t count, size_t n_bytes)
{
    return is_memory_due() ? NULL : __libc_calloc(count, n_bytes);
}

void *realloc(void *memory, size_t n_bytes)
{
    return is_memory_due() ? NULL : __libc_realloc(memory, n_bytes);
}
