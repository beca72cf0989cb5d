/* Memory that is freed together: one private mapping, handed out front to back. The kernel gives
 * zeroed pages at the first touch, so only bytes that an earlier push handed out need clearing. */
#include "base/arena.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* A cache line, and the widest vector register. */
enum { ALIGNMENT_BYTES = 64 };

size_t arena_round_up(size_t n_bytes)
{
    assert(n_bytes <= SIZE_MAX - (ALIGNMENT_BYTES - 1));
    return (n_bytes + (ALIGNMENT_BYTES - 1)) & ~(size_t)(ALIGNMENT_BYTES - 1);
}

bool arena_create(struct arena *arena, size_t bytes_max, struct error *err)
{
    assert(arena != NULL);
    assert(bytes_max > 0);
    void *base = mmap(NULL, bytes_max, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        int why = errno;
        struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
        getrlimit(RLIMIT_AS, &limit);
        bool is_limited = limit.rlim_cur != RLIM_INFINITY;
        return error_set(err, ERROR_UNAVAILABLE, "cannot reserve %zu bytes of address space: %s%s",
                         bytes_max, strerror(why),
                         is_limited ? "; 'ulimit -v' must be unlimited (Grid Engine: no h_vmem): "
                                      "address space is no memory, which --memory bounds"
                                    : "");
    }
    *arena = (struct arena){.base = base, .bytes_max = bytes_max};
    return true;
}

void arena_destroy(struct arena *arena)
{
    assert(arena != NULL);
    if (arena->base != NULL) {
        int status = munmap(arena->base, arena->bytes_max);
        assert(status == 0);
        (void)status;
    }
    *arena = (struct arena){0};
}

void *arena_push(struct arena *arena, size_t count, size_t size)
{
    void *memory = arena_try_push(arena, count, size);
    assert(memory != NULL);
    return memory;
}

void *arena_try_push(struct arena *arena, size_t count, size_t size)
{
    assert(arena->base != NULL);
    assert(arena->used_bytes <= arena->bytes_max);
    size_t n_bytes;
    if (__builtin_mul_overflow(count, size, &n_bytes)) return NULL;

    /* May point just past bytes_max, yet not past the mapping, which ends with a whole page. */
    size_t start = arena_round_up(arena->used_bytes);
    if (n_bytes == 0) return arena->base + start;
    if (start > arena->bytes_max || n_bytes > arena->bytes_max - start) return NULL;

    size_t end = start + n_bytes;
    if (start < arena->peak_bytes) {
        size_t dirty_end = end < arena->peak_bytes ? end : arena->peak_bytes;
        memset(arena->base + start, 0, dirty_end - start);
    }
    arena->used_bytes = end;
    if (arena->peak_bytes < end) arena->peak_bytes = end;
    return arena->base + start;
}

char *arena_try_copy(struct arena *arena, const char *data, size_t n)
{
    assert(data != NULL || n == 0);
    if (n == SIZE_MAX) return NULL; /* no room for the NUL */
    char *copy = arena_try_push(arena, n + 1, 1);
    if (copy != NULL && n > 0) memcpy(copy, data, n);
    return copy;
}

void arena_rewind(struct arena *arena, size_t mark_bytes)
{
    assert(mark_bytes <= arena->used_bytes);
    arena->used_bytes = mark_bytes;
}
