/* Reads what schedulers say, strictly: a shard that is taken for another one computes lines twice
 * and leaves others out, and nobody notices. So whatever looks wrong is refused. */
#include "app/shard.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sort.h"

#define FORM "must be i/n with i from 0 to n - 1 and n from 1 to 99999, auto or off"

struct variable {
    const char *name;
    int32_t value;
};

/* What a launcher says; count 1: it shares nothing out. */
struct part {
    int32_t index, count;
};

struct search {
    shard_lookup *lookup;
    struct part found, step; /* what counts so far; the part of it that a step of srun is */
    char *origin;            /* of what was found [SHARD_ORIGIN_BYTES_MAX] */
};

/* ---- variables ---- */

static const char *find(const struct search *search, const char *name)
{
    const char *text = search->lookup(name);
    assert(name[0] != '\0');
    return text != NULL && text[0] != '\0' ? text : NULL;
}

/* `n` bytes that are digits alone, at most nine; -1: they are something else. */
static int32_t parse_number(const char *text, size_t n)
{
    assert(text != NULL);
    bool is_number = n > 0 && n <= 9 && strspn(text, "0123456789") >= n;
    return is_number ? (int32_t)strtol(text, NULL, 10) : -1;
}

static bool read_variable(const struct search *search, struct variable *variable, struct error *err)
{
    const char *name = variable->name, *text = find(search, name);
    variable->value = text != NULL ? parse_number(text, strlen(text)) : -1;
    assert(variable->value >= -1);
    if (variable->value >= 0) return true;
    if (text == NULL)
        return error_set(err, ERROR_USAGE,
                         "%s is not set, but others of its launcher are; use --shard i/n or off",
                         name);
    return error_set(err, ERROR_USAGE, "%s is '%.80s', must be a whole number", name, text);
}

/* An index that counts from `base`, of a count. */
static bool read_part(const struct search *search, struct variable *index, int32_t base,
                      struct variable *count, struct part *part, struct error *err)
{
    if (!read_variable(search, index, err) || !read_variable(search, count, err)) return false;
    if (count->value < 1 || count->value > SHARD_COUNT_MAX)
        return error_set(err, ERROR_USAGE, "%s is %d, must be from 1 to %d", count->name,
                         count->value, SHARD_COUNT_MAX);
    *part = (struct part){.index = index->value - base, .count = count->value};
    assert(base == 0 || base == 1);
    if (part->index >= 0 && part->index < part->count) return true;
    return error_set(err, ERROR_USAGE, "%s is %d, must be from %d to %d as %s is %d", index->name,
                     index->value, base, base + count->value - 1, count->name, count->value);
}

static void add_origin(const struct search *search, const struct variable *variable)
{
    size_t n = strlen(search->origin);
    assert(n < SHARD_ORIGIN_BYTES_MAX);
    snprintf(search->origin + n, SHARD_ORIGIN_BYTES_MAX - n, "%s%s=%d", n > 0 ? ", " : "",
             variable->name, variable->value);
}

/* ---- Slurm ---- */

/* Ids may begin anywhere and have steps: --array=4-10:2 makes 4 tasks. The ids of a list with gaps,
 * as after some tasks of an array failed, do not tell the shards that they were. */
static bool read_array(const struct search *search, struct part *part, struct error *err)
{
    enum { ID, MIN, MAX, STEP, COUNT };
    struct variable v[] = {[ID] = {.name = "SLURM_ARRAY_TASK_ID"},
                           [MIN] = {.name = "SLURM_ARRAY_TASK_MIN"},
                           [MAX] = {.name = "SLURM_ARRAY_TASK_MAX"},
                           [STEP] = {.name = "SLURM_ARRAY_TASK_STEP"},
                           [COUNT] = {.name = "SLURM_ARRAY_TASK_COUNT"}};
    if (find(search, v[ID].name) == NULL) return true;
    for (int i = ID; i <= COUNT; i++)
        if (!read_variable(search, &v[i], err)) return false;
    add_origin(search, &v[ID]);
    if (v[COUNT].value == 1) return true;
    int32_t above = v[ID].value - v[MIN].value, range = v[MAX].value - v[MIN].value;
    int32_t step = v[STEP].value, count = v[COUNT].value;
    if (step < 1 || above < 0 || above > range || above % step != 0 || range / step + 1 != count)
        return error_set(err, ERROR_USAGE,
                         "%s is %d of %d tasks from %d to %d in steps of %d, which is no shard; "
                         "use --shard i/n",
                         v[ID].name, v[ID].value, count, v[MIN].value, v[MAX].value, step);
    *part = (struct part){.index = above / step, .count = count};
    assert(part->index < part->count);
    return true;
}

/* A batch script has a step's rank and number of tasks, too, but runs once: there they do not
 * count, nor do they in the steps that Slurm makes for itself, whose numbers have ten digits. */
static bool search_slurm(struct search *search, struct error *err)
{
    struct variable rank = {.name = "SLURM_PROCID"}, count = {.name = "SLURM_STEP_NUM_TASKS"};
    struct part array = {.count = 1}, *step = &search->step;
    const char *id = find(search, "SLURM_STEP_ID");
    bool is_step = id != NULL && parse_number(id, strlen(id)) >= 0;
    assert(step->count == 1);
    if (!read_array(search, &array, err)) return false;
    if (is_step && !read_part(search, &rank, 0, &count, step, err)) return false;
    if (is_step) add_origin(search, &rank);
    if (array.count > SHARD_COUNT_MAX / step->count)
        return error_set(err, ERROR_USAGE, "%s is of %d x %d shards, at most %d are possible",
                         search->origin, array.count, step->count, SHARD_COUNT_MAX);
    search->found = (struct part){.index = array.index * step->count + step->index,
                                  .count = array.count * step->count};
    return true;
}

/* ---- the others ---- */

/* In the order in which they are asked. */
static const struct launcher {
    const char *index, *count; /* count NULL: only DLLM_SHARDS can tell */
    int32_t base;
    bool is_vague;       /* the index alone does not mean that work is shared */
    const char *none;    /* value of an index that is none */
    const char *ones[2]; /* must be 1: the index counts from there, in such steps */
} launchers[] = {
    {.index = "JOB_COMPLETION_INDEX"}, /* Kubernetes */
    {.index = "AWS_BATCH_JOB_ARRAY_INDEX", .count = "AWS_BATCH_JOB_ARRAY_SIZE"},
    {.index = "BATCH_TASK_INDEX", .count = "BATCH_TASK_COUNT"}, /* Google Batch */
    {.index = "SGE_TASK_ID",                                    /* Grid Engine */
     .count = "SGE_TASK_LAST",
     .base = 1,
     .none = "undefined",
     .ones = {"SGE_TASK_FIRST", "SGE_TASK_STEPSIZE"}},
    {.index = "LSB_JOBINDEX", .base = 1, .none = "0", .ones = {"LSB_JOBINDEX_STEP"}}, /* LSF */
    {.index = "FLUX_TASK_RANK", .count = "FLUX_JOB_SIZE"},
    {.index = "OMPI_COMM_WORLD_RANK", .count = "OMPI_COMM_WORLD_SIZE"},
    {.index = "PMI_RANK", .count = "PMI_SIZE"},
    {.index = "MV2_COMM_WORLD_RANK", .count = "MV2_COMM_WORLD_SIZE"},
    {.index = "RANK", .count = "WORLD_SIZE", .is_vague = true}, /* torchrun */
    {.index = "PARALLEL_SEQ", .base = 1, .is_vague = true},     /* GNU parallel */
};

/* The first that shares work counts; others must say the same. Inside of a step of srun, MPI knows
 * the step alone. */
static bool search_launcher(struct search *search, const struct launcher *launcher,
                            struct error *err)
{
    struct variable index = {.name = launcher->index}, count = {.name = launcher->count};
    struct part part, *found = &search->found, *step = &search->step;
    const char *text = find(search, index.name);
    assert(index.name != NULL);
    if (text == NULL || (launcher->none != NULL && strcmp(text, launcher->none) == 0)) return true;
    if (count.name == NULL || find(search, count.name) == NULL) count.name = "DLLM_SHARDS";
    bool has_count = find(search, count.name) != NULL;
    if (!has_count && (launcher->is_vague || found->count > 1)) return true;
    if (!has_count)
        return error_set(err, ERROR_USAGE,
                         "%s is set, but nothing says of how many; set DLLM_SHARDS to the number "
                         "of shards, or use --shard i/n or off",
                         index.name);
    if (!read_part(search, &index, launcher->base, &count, &part, err)) return false;
    for (int i = 0; i < 2 && launcher->ones[i] != NULL; i++) {
        struct variable one = {.name = launcher->ones[i]};
        if (launcher->count == NULL && find(search, one.name) == NULL) continue;
        if (!read_variable(search, &one, err)) return false;
        if (one.value != 1)
            return error_set(err, ERROR_USAGE, "%s is %d, only 1 tells the shards; use --shard i/n",
                             one.name, one.value);
    }
    if (part.count == 1 || (part.index == found->index && part.count == found->count) ||
        (part.index == step->index && part.count == step->count))
        return true;
    if (found->count > 1)
        return error_set(err, ERROR_USAGE,
                         "%s makes this shard %d of %d, but %s=%d makes it %d of %d; use --shard "
                         "i/n or off",
                         search->origin, found->index, found->count, index.name, index.value,
                         part.index, part.count);
    *found = part;
    search->origin[0] = '\0';
    add_origin(search, &index);
    return true;
}

/* Also against a part of a job that is started again alone: DLLM_SHARDS knows better. */
static bool search_environment(struct shard *shard, shard_lookup *lookup, struct error *err)
{
    const struct part whole = {.count = 1};
    struct search search = {
        .lookup = lookup, .found = whole, .step = whole, .origin = shard->origin};
    struct variable count = {.name = "DLLM_SHARDS"};
    if (!search_slurm(&search, err)) return false;
    for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++)
        if (!search_launcher(&search, &launchers[i], err)) return false;
    shard->index = search.found.index;
    shard->count = search.found.count;
    assert(shard->index < shard->count);
    if (find(&search, count.name) == NULL) return true;
    if (!read_variable(&search, &count, err)) return false;
    if (count.value == shard->count) return true;
    return error_set(err, ERROR_USAGE,
                     "%s is %d, but this is shard %d of %d by %s; use --shard i/n", count.name,
                     count.value, shard->index, shard->count,
                     shard->origin[0] != '\0' ? shard->origin : "default");
}

/* "i/n" or "off". */
static bool parse_shard(struct shard *shard, const char *name, const char *value, struct error *err)
{
    assert(shard->count == 1);
    if (strcmp(value, "off") == 0) return true;
    size_t n = strcspn(value, "/");
    int32_t index = parse_number(value, n);
    int32_t count = value[n] == '/' ? parse_number(value + n + 1, strlen(value + n + 1)) : -1;
    if (index < 0 || count < 1 || count > SHARD_COUNT_MAX || index >= count)
        return error_set(err, ERROR_USAGE, "%s is '%.80s', " FORM, name, value);
    shard->index = index;
    shard->count = count;
    return true;
}

bool shard_choose(struct shard *shard, const char *value, shard_lookup *lookup, struct error *err)
{
    const char *name = "DLLM_SHARD", *text = lookup(name);
    assert(value != NULL);
    *shard = (struct shard){.count = 1, .is_found = strcmp(value, "auto") == 0};
    if (!shard->is_found) return parse_shard(shard, "--shard", value, err);
    if (text == NULL || text[0] == '\0' || strcmp(text, "auto") == 0)
        return search_environment(shard, lookup, err);
    snprintf(shard->origin, sizeof shard->origin, "%s=%.20s", name, text);
    return parse_shard(shard, name, text, err);
}

/* ---- names ---- */

size_t shard_stem_bytes(const char *path)
{
    size_t n = strlen(path);
    assert(n > 0);
    if (n > 4 && memcmp(path + n - 4, ".zst", 4) == 0) n -= 4;
    else if (n > 3 && memcmp(path + n - 3, ".gz", 3) == 0) n -= 3;
    const char *slash = strrchr(path, '/');
    size_t name_index = slash != NULL ? (size_t)(slash + 1 - path) : 0;
    for (size_t i = n; i > name_index + 1; i--)
        if (path[i - 1] == '.') return i - 1;
    return n;
}

bool shard_name(const struct shard *shard, const char *path, char *name, size_t name_bytes_max)
{
    bool is_whole = shard->count == 1 || strcmp(path, "-") == 0 || path[0] == '\0';
    size_t n_stem = is_whole ? strlen(path) : shard_stem_bytes(path), n;
    char number[32] = "";
    assert(path != name);
    if (!is_whole) snprintf(number, sizeof number, ".%05d-of-%05d", shard->index, shard->count);
    n = strlen(path) + strlen(number);
    if (n >= name_bytes_max) return false;
    snprintf(name, name_bytes_max, "%.*s%s%s", (int)n_stem, path, number, path + n_stem);
    return true;
}

bool shard_read_name(const char *path, int32_t *index, int32_t *count)
{
    static const size_t n_number = sizeof ".00003-of-00008" - 1;
    const size_t ends[] = {shard_stem_bytes(path), strlen(path)};
    assert(index != count);
    for (int i = 0; i < 2; i++) {
        if (ends[i] < n_number) continue;
        const char *text = path + ends[i] - n_number;
        int32_t found = parse_number(text + 1, 5), of = parse_number(text + 10, 5);
        if (text[0] != '.' || memcmp(text + 6, "-of-", 4) != 0 || found < 0 || of < 2) continue;
        *index = found;
        *count = of;
        return true;
    }
    return false;
}

static bool has_shard(const char *const *paths, int32_t n_paths, int32_t index, int32_t count)
{
    int32_t found = -1, of = -1, i = 0;
    assert(index < count);
    while (i < n_paths &&
           !(shard_read_name(paths[i], &found, &of) && found == index && of == count))
        i++;
    return i < n_paths;
}

bool shard_are_all(const char *const *paths, int32_t n_paths, int32_t *missing, int32_t *count)
{
    int32_t first_missing = -1, first_count = -1, looked_at = -1;
    assert(n_paths >= 0);
    for (int32_t i = 0; i < n_paths; i++) {
        int32_t index, n, wanted = 0;
        if (!shard_read_name(paths[i], &index, &n) || n == looked_at) continue;
        while (wanted < n && has_shard(paths, n_paths, wanted, n))
            wanted++;
        if (wanted == n) return true;
        looked_at = n;
        if (first_count >= 0) continue;
        first_missing = wanted;
        first_count = n;
    }
    if (first_count < 0) return true;
    *missing = first_missing;
    *count = first_count;
    return false;
}

/* ---- which lines ---- */

static int compare_lines(const void *a, const void *b)
{
    const struct shard_line *x = a, *y = b;
    assert(x != NULL && y != NULL);
    if (x->cost < y->cost || x->cost > y->cost) return x->cost < y->cost ? 1 : -1;
    return (x->place > y->place) - (x->place < y->place);
}

/* A shard with its load; the least one is at the root of a binary heap. */
struct load {
    double cost;
    int32_t shard;
};

static bool is_less(const struct load *a, const struct load *b)
{
    assert(a != NULL && b != NULL);
    return a->cost < b->cost || (a->cost <= b->cost && a->shard < b->shard);
}

/* The root has become heavier. */
static void sink_root(struct load *heap, int32_t n)
{
    struct load moved = heap[0];
    int32_t i = 0;
    assert(n > 0);
    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_less(&heap[child + 1], &heap[child])) child++;
        if (is_less(&moved, &heap[child])) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

bool shard_partition(struct shard *shard, struct shard_line *lines, int64_t n_lines,
                     struct arena *keep, struct error *err)
{
    assert(n_lines >= 0 && n_lines <= SHARD_LINES_MAX);
    uint64_t *mine = arena_try_push(keep, (size_t)n_lines / 64 + 1, sizeof *mine);
    size_t mark = keep->used_bytes;
    double sum = 0, most = 0;
    struct load *heap = arena_try_push(keep, (size_t)shard->count, sizeof *heap);
    if (mine == NULL || heap == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "not enough memory for %" PRId64 " lines",
                         n_lines);
    for (int32_t i = 0; i < shard->count; i++)
        heap[i] = (struct load){.shard = i};
    sort_in_place(lines, (size_t)n_lines, sizeof *lines, compare_lines);
    shard->n_lines = n_lines;
    shard->n_mine = 0;
    for (int64_t i = 0; i < n_lines; i++) {
        uint32_t place = lines[i].place;
        double cost = (double)lines[i].cost;
        int32_t taker = cost > 0 ? heap[0].shard : (int32_t)(place % (uint32_t)shard->count);
        heap[0].cost += cost;
        sum += cost;
        if (heap[0].cost > most) most = heap[0].cost;
        sink_root(heap, shard->count);
        if (taker != shard->index) continue;
        mine[place / 64] |= UINT64_C(1) << place % 64;
        shard->n_mine++;
    }
    shard->mine = mine;
    shard->imbalance = sum > 0 ? most * shard->count / sum - 1 : 0;
    arena_rewind(keep, mark);
    return true;
}

bool shard_has(const struct shard *shard, int64_t place, uint64_t id_hash)
{
    assert(place >= 0);
    uint64_t count = (uint64_t)shard->count;
    if (count == 1) return true;
    if (shard->mine == NULL)
        return (id_hash != 0 ? id_hash : (uint64_t)place) % count == (uint64_t)shard->index;
    assert(place < shard->n_lines);
    return (shard->mine[place / 64] >> place % 64 & 1) != 0;
}
