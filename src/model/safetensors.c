/* Maps safetensors files: 8 bytes of header length, a JSON header, then raw data. Headers come from
 * strangers, so each number is checked against the file's size before it is used. */
#include "model/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/stream.h"

#define HEADER_BYTES_MAX ((uint64_t)100 << 20)
#define INDEX_BYTES_MAX  ((size_t)64 << 20)
#define FILES_MAX        1024

static bool map_file(struct safetensors_file *file, const char *path, struct error *err)
{
    assert(path);
    int fd = stream_open_fd(path);
    struct stat info;
    if (fd < 0) return error_set(err, ERROR_NO_INPUT, "%s: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 8) {
        close(fd);
        return error_set(err, ERROR_FORMAT, "%s: is not a safetensors file (no header)", path);
    }
    size_t n_bytes = (size_t)info.st_size;
    void *map = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    int reason = errno;
    close(fd);
    if (map == MAP_FAILED)
        return error_set(err, ERROR_NO_INPUT, "%s: cannot be mapped: %s", path, strerror(reason));
    *file = (struct safetensors_file){.path = path, .map = map, .n_bytes = n_bytes};
    return true;
}

/* One dtype of the format; size 0 marks an unknown one. */
static size_t type_size(const char *name, enum dtype *dtype, bool *supported)
{
    static const struct {
        const char *name;
        size_t n_bytes;
        bool supported;
        enum dtype dtype;
    } types[] = {
        {"BF16", 2, true, DTYPE_BF16}, {"F16", 2, true, DTYPE_F16}, {"F32", 4, true, DTYPE_F32},
        {"F64", 8, false, 0},          {"I64", 8, false, 0},        {"I32", 4, false, 0},
        {"I16", 2, false, 0},          {"I8", 1, false, 0},         {"U8", 1, false, 0},
        {"U16", 2, false, 0},          {"U32", 4, false, 0},        {"U64", 8, false, 0},
        {"BOOL", 1, false, 0},         {"F8_E4M3", 1, false, 0},    {"F8_E5M2", 1, false, 0},
    };
    assert(name);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) != 0) continue;
        *dtype = types[i].dtype;
        *supported = types[i].supported;
        return types[i].n_bytes;
    }
    return 0;
}

/* Product of the dimensions and the element size; false on overflow or a bad dimension. */
static bool read_shape(const json_t *shape, struct tensor *tensor, size_t *n_bytes)
{
    assert(*n_bytes > 0);
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_DIMS_MAX) return false;
    tensor->n_dims = (int32_t)json_array_size(shape);
    for (int32_t i = 0; i < tensor->n_dims; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) return false;
        tensor->shape[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(*n_bytes, (size_t)tensor->shape[i], n_bytes)) return false;
    }
    return true;
}

static bool read_offset(const json_t *offsets, size_t i, size_t limit, size_t *offset)
{
    const json_t *value = json_array_get(offsets, i);
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *offset = (size_t)json_integer_value(value);
    return *offset <= limit;
}

/* One header entry to a tensor; `data` begins after the header and holds `data_bytes`. */
static bool read_tensor(struct tensor *tensor, const json_t *entry, const char *data,
                        size_t data_bytes, struct error *err)
{
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    size_t begin = 0, end = 0, n_bytes = 0;
    const char *where = tensor->file, *name = tensor->name;
    if (!type || (n_bytes = type_size(type, &tensor->dtype, &tensor->supported)) == 0)
        return error_set(err, ERROR_FORMAT, "%s: tensor %.200s: unknown dtype %.20s", where, name,
                         type ? type : "(none)");
    tensor->type_name = type;
    if (!read_shape(json_object_get(entry, "shape"), tensor, &n_bytes))
        return error_set(err, ERROR_FORMAT, "%s: tensor %.200s: impossible shape", where, name);
    if (!read_offset(offsets, 0, data_bytes, &begin) || !read_offset(offsets, 1, data_bytes, &end))
        return error_set(err, ERROR_FORMAT,
                         "%s: tensor %.200s: data_offsets reach outside the file's %zu data bytes",
                         where, name, data_bytes);
    if (begin > end || end - begin != n_bytes)
        return error_set(
            err, ERROR_FORMAT,
            "%s: tensor %.200s: its shape needs %zu bytes, its offsets give another size", where,
            name, n_bytes);
    assert(end <= data_bytes);
    tensor->data = data + begin;
    tensor->n_bytes = n_bytes;
    return true;
}

static int compare_places(const void *left, const void *right)
{
    const struct tensor *a = left, *b = right;
    assert(a->file == b->file);
    uintptr_t a_end = (uintptr_t)a->data + a->n_bytes, b_end = (uintptr_t)b->data + b->n_bytes;
    if (a->data != b->data) return (uintptr_t)a->data < (uintptr_t)b->data ? -1 : 1;
    return (a_end > b_end) - (a_end < b_end);
}

/* The format has no holes and nothing that is shared, so anything else is a file whose numbers are
 * not where its header says. `tensors` [n] are all of the file; they are sorted. */
static bool check_places(struct tensor *tensors, size_t n, const char *path, const char *data,
                         const char *end, struct error *err)
{
    const char *next = data;
    assert(data <= end);
    qsort(tensors, n, sizeof *tensors, compare_places);
    for (size_t i = 0; i < n; i++) {
        if (tensors[i].data != next)
            return error_set(err, ERROR_FORMAT,
                             "%s: tensor %.200s: its data begin at byte %td of the data, must be "
                             "%td, where those before it end",
                             tensors[i].file, tensors[i].name, (const char *)tensors[i].data - data,
                             next - data);
        next += tensors[i].n_bytes;
    }
    if (next == end) return true;
    return error_set(err, ERROR_FORMAT, "%s: %td bytes lie behind its last tensor", path,
                     end - next);
}

/* Adds the tensors of a file, for which there is room up to n_max. */
static bool add_tensors(struct safetensors *files, const struct safetensors_file *file,
                        json_t *header, size_t n_max, struct arena *arena, struct error *err)
{
    assert(header);
    uint64_t header_bytes;
    memcpy(&header_bytes, file->map, 8);
    const char *data = (const char *)file->map + 8 + header_bytes;
    size_t data_bytes = file->n_bytes - 8 - (size_t)header_bytes;
    int32_t n_before = files->n_tensors;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) continue;
        struct tensor tensor = {.name = arena_try_copy(arena, name, strlen(name)),
                                .file = file->path};
        if (!tensor.name || (size_t)files->n_tensors == n_max)
            return error_set(err, ERROR_FORMAT, "%s: too many tensor names", file->path);
        if (!read_tensor(&tensor, entry, data, data_bytes, err)) return false;
        tensor.type_name = arena_try_copy(arena, tensor.type_name, strlen(tensor.type_name));
        if (!tensor.type_name)
            return error_set(err, ERROR_FORMAT, "%s: too many tensors", file->path);
        files->tensors[files->n_tensors++] = tensor;
    }
    return check_places(&files->tensors[n_before], (size_t)(files->n_tensors - n_before),
                        file->path, data, data + data_bytes, err);
}

/* Parses a mapped file's header; NULL with err set when it is damaged. */
static json_t *parse_header(const struct safetensors_file *file, struct error *err)
{
    uint64_t header_bytes;
    assert(file->n_bytes >= 8);
    memcpy(&header_bytes, file->map, 8);
    if (header_bytes > HEADER_BYTES_MAX || header_bytes > file->n_bytes - 8) {
        error_set(err, ERROR_FORMAT,
                  "%s: header says %llu bytes, the file has %zu; truncated or not safetensors",
                  file->path, (unsigned long long)header_bytes, file->n_bytes);
        return NULL;
    }
    json_error_t where;
    struct bytes text = {.data = (const char *)file->map + 8, .n = (size_t)header_bytes};
    json_t *header = json_read(text, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(header)) {
        error_set(err, ERROR_FORMAT, "%s: header is not a JSON object: %s", file->path, where.text);
        json_decref(header);
        return NULL;
    }
    return header;
}

/* Shard names of an index file, each once, in `names` [FILES_MAX]; -1 when it is damaged. */
static int32_t read_index(const char *path, const char **names, struct arena *arena,
                          struct error *err)
{
    json_t *root = json_read_object(path, INDEX_BYTES_MAX, 0, err);
    if (!root) return -1;
    json_t *map = json_object_get(root, "weight_map"), *value;
    const char *key;
    int32_t n = json_is_object(map) ? 0 : -1;
    if (n < 0) error_set(err, ERROR_FORMAT, "%s: \"weight_map\" is no object", path);
    json_object_foreach(map, key, value)
    {
        const char *name = json_string_value(value);
        int32_t i = 0;
        while (name && i < n && strcmp(names[i], name) != 0)
            i++;
        if (n < 0 || (name && i < n)) continue;
        if (n == FILES_MAX) {
            error_set(err, ERROR_FORMAT, "%s: names more than %d shards", path, FILES_MAX);
            n = -1;
        } else if (!name || strchr(name, '/')) {
            error_set(err, ERROR_FORMAT, "%s: tensor %.200s: its shard is no plain file name", path,
                      key);
            n = -1;
        } else {
            names[n++] = arena_try_copy(arena, name, strlen(name));
        }
    }
    json_decref(root);
    if (n == 0) error_set(err, ERROR_FORMAT, "%s: \"weight_map\" names no shard", path);
    return n > 0 ? n : -1;
}

/* File names to open: the index's shards, or the single file. */
static int32_t list_files(const char *model_dir, const char **names, struct arena *arena,
                          struct error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", model_dir);
    if (stream_is_named(path)) return read_index(path, names, arena, err);
    names[0] = "model.safetensors";
    return 1;
}

static int compare_names(const void *left, const void *right)
{
    const struct tensor *a = *(const struct tensor *const *)left;
    const struct tensor *b = *(const struct tensor *const *)right;
    assert(a->name && b->name);
    int order = strcmp(a->name, b->name);
    return order != 0 ? order : (a > b) - (a < b);
}

/* Whether each name is that of one tensor. */
static bool check_names(const struct safetensors *files, struct arena *arena, struct error *err)
{
    size_t n = (size_t)files->n_tensors;
    const struct tensor **order = arena_try_push(arena, n, sizeof(struct tensor *));
    if (!order) return error_set(err, ERROR_FORMAT, "too many tensors (%zu)", n);
    for (size_t i = 0; i < n; i++)
        order[i] = &files->tensors[i];
    qsort(order, n, sizeof(struct tensor *), compare_names);
    for (size_t i = 1; i < n; i++) {
        assert(order[i] != order[i - 1]);
        if (strcmp(order[i]->name, order[i - 1]->name) == 0)
            return error_set(err, ERROR_FORMAT, "%s: tensor %.200s: %s has one of this name too",
                             order[i]->file, order[i]->name, order[i - 1]->file);
    }
    return true;
}

/* Parses each header twice, to count the tensors and to fill the table, so that one at a time is
 * in memory: they come from strangers. */
static bool read_headers(struct safetensors *files, struct arena *arena, struct error *err)
{
    size_t n_tensors = 0;
    bool ok = true;
    assert(files->n_files > 0);
    for (int32_t i = 0; i < 2 * files->n_files && ok; i++) {
        const struct safetensors_file *file = &files->files[i % files->n_files];
        json_t *header = parse_header(file, err);
        ok = header != NULL;
        if (i < files->n_files) n_tensors += json_object_size(header);
        else if (ok) ok = add_tensors(files, file, header, n_tensors, arena, err);
        json_decref(header);
        if (i != files->n_files - 1 || !ok) continue;
        files->tensors = arena_try_push(arena, n_tensors, sizeof *files->tensors);
        if (!files->tensors) ok = error_set(err, ERROR_FORMAT, "too many tensors (%zu)", n_tensors);
    }
    return ok && check_names(files, arena, err);
}

bool safetensors_open(struct safetensors *files, const char *model_dir, struct arena *arena,
                      struct error *err)
{
    assert(files);
    assert(model_dir);
    *files = (struct safetensors){0};
    const char **names = arena_push(arena, FILES_MAX, sizeof *names);
    int32_t n = list_files(model_dir, names, arena, err);
    if (n < 0) return false;
    files->files = arena_push(arena, (size_t)n, sizeof *files->files);
    for (int32_t i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", model_dir, names[i]);
        const char *copy = arena_try_copy(arena, path, strlen(path));
        if (!copy || !map_file(&files->files[i], copy, err)) {
            safetensors_close(files);
            return false;
        }
        files->n_files++;
    }
    if (read_headers(files, arena, err)) return true;
    safetensors_close(files);
    return false;
}

void safetensors_close(struct safetensors *files)
{
    for (int32_t i = 0; i < files->n_files; i++)
        munmap(files->files[i].map, files->files[i].n_bytes);
    *files = (struct safetensors){0};
}

const struct tensor *safetensors_find(const struct safetensors *files, const char *name)
{
    assert(name);
    for (int32_t i = 0; i < files->n_tensors; i++)
        if (strcmp(files->tensors[i].name, name) == 0) return &files->tensors[i];
    return NULL;
}
