/* Memory of the backends that compute in host memory: what is free, regions as arenas, copies by
 * memcpy, weights from nothing. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "backend/host.h"
#include "backend/noise.h"

static const char *const region_names[REGION_COUNT] = {
    [REGION_WEIGHTS] = "weights",
    [REGION_CACHE] = "KV cache",
    [REGION_SCRATCH] = "scratch",
};

/* The number after `prefix` at the start of a line of a file; 0 when there is none. */
static size_t read_amount(const char *path, const char *prefix)
{
    assert(path);
    FILE *file = fopen(path, "re");
    char line[256];
    size_t amount = 0;
    if (!file) return 0;
    while (amount == 0 && fgets(line, sizeof line, file)) {
        unsigned long long number;
        if (strncmp(line, prefix, strlen(prefix)) != 0) continue;
        if (sscanf(line + strlen(prefix), "%llu", &number) == 1) amount = (size_t)number;
    }
    fclose(file);
    return amount;
}

/* The smallest limit of a control group and those above it; SIZE_MAX without one. `path` is cut. */
static size_t read_group(const char *mount, char *path, const char *limit_name)
{
    size_t least = SIZE_MAX;
    assert(limit_name);
    for (;;) {
        char file[512];
        snprintf(file, sizeof file, "%s%s/%s", mount, path, limit_name);
        size_t limit = read_amount(file, ""); /* "max" is no number */
        if (limit > 0 && limit < least) least = limit;
        char *slash = strrchr(path, '/');
        if (!slash) return least;
        *slash = '\0';
    }
}

/* One line of /proc/self/cgroup: "0::/path" (version 2) or "4:memory:/path" (version 1). */
static size_t read_group_line(char *line)
{
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'),
         *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path) return SIZE_MAX;
    if (path == controllers + 1) return read_group("/sys/fs/cgroup", path + 1, "memory.max");
    if (strncmp(controllers, ":memory:", 8) != 0) return SIZE_MAX;
    return read_group("/sys/fs/cgroup/memory", path + 1, "memory.limit_in_bytes");
}

/* What the machine has free, but at most what the job's control groups allow in all. */
size_t host_free_bytes(const struct backend *backend)
{
    (void)backend;
    size_t available = read_amount("/proc/meminfo", "MemAvailable:") * 1024;
    if (available == 0) available = SIZE_MAX;
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[320];
    while (file && fgets(line, sizeof line, file)) {
        size_t limit = read_group_line(line);
        if (limit < available) available = limit;
    }
    if (file) fclose(file);
    return available;
}

bool host_allocate(struct backend *backend, const size_t region_bytes[REGION_COUNT],
                   struct error *err)
{
    for (int i = 0; i < REGION_COUNT; i++) {
        assert(backend->regions[i].base == NULL);
        size_t n_bytes = region_bytes[i] > 0 ? region_bytes[i] : 1; /* no cache is fine */
        if (arena_create(&backend->regions[i], n_bytes, err)) continue;
        host_release(backend);
        return error_wrap(err, "memory for %s", region_names[i]);
    }
    return true;
}

void host_release(struct backend *backend)
{
    for (int i = 0; i < REGION_COUNT; i++) {
        arena_destroy(&backend->regions[i]);
        backend->regions[i] = (struct arena){0};
    }
}

void *host_reserve(struct backend *backend, enum region region, size_t size_bytes)
{
    assert(region < REGION_COUNT);
    return arena_push(&backend->regions[region], 1, size_bytes);
}

static size_t matrix_bytes(struct matrix matrix)
{
    return (size_t)matrix.n_rows * (size_t)matrix.n_cols * dtype_bytes(matrix.dtype);
}

void host_upload(struct backend *backend, struct matrix target, const void *source)
{
    (void)backend;
    assert(target.data != NULL);
    memcpy(target.data, source, matrix_bytes(target));
}

void host_download(struct backend *backend, void *target, struct matrix source)
{
    (void)backend;
    assert(source.data != NULL);
    memcpy(target, source.data, matrix_bytes(source));
}

void host_fill_dummy(struct backend *backend, const struct dummy_args *args)
{
    enum { N_NUMBERS = 1 << 16 };
    uint16_t numbers[N_NUMBERS];
    struct weight target = args->target;
    int32_t n_rows = N_NUMBERS / target.n_in;
    uint64_t number = args->first;
    assert(n_rows > 0);
    for (int32_t begin = 0; begin < target.n_out; begin += n_rows) {
        int32_t n = target.n_out - begin < n_rows ? target.n_out - begin : n_rows;
        for (int32_t i = 0; i < n * target.n_in; i++)
            numbers[i] = dtype_bf16_from_f32(noise_dummy(args->seed, number++, args->scale));
        size_t at = (size_t)begin * (size_t)target.n_in;
        struct matrix part = {(uint16_t *)target.data + at, n, target.n_in, DTYPE_BF16};
        if (args->is_matrix) backend->ops->upload(backend, part, numbers);
        else backend->ops->upload_weight(backend, target, begin, n, numbers);
    }
}
