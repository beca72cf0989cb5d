/* Tensors of a Hugging Face folder, memory-mapped: model.safetensors, or the shards that
 * model.safetensors.index.json names. Every header is checked before use: lengths, types, shapes
 * and offsets with overflow-safe arithmetic; a file that lies is refused, never followed. */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/arena.h"
#include "base/error.h"

#define TENSOR_DIMS_MAX 4

/* One tensor of a file, checked: its bytes lie inside the mapping and are as many as its shape and
 * type ask for. Valid until safetensors_close. */
struct tensor {
    const char *name, *file; /* borrowed from the arena */
    const char *type_name;   /* as the file spells it: "BF16" */
    enum dtype dtype;        /* meaningful when supported */
    bool supported;          /* BF16, F16 or F32 */
    int32_t n_dims;          /* 0: a scalar */
    int64_t shape[TENSOR_DIMS_MAX];
    const void *data; /* mapped, n_bytes; may be unaligned */
    size_t n_bytes;
};

/* One mapped file: 8 bytes of header length (little endian), the JSON header, the data. */
struct safetensors_file {
    const char *path; /* borrowed from the arena */
    void *map;        /* the whole file, read-only and private */
    size_t n_bytes;   /* of the file */
};

/* All files of a model. A name stands for one tensor: the same name in two shards is refused. */
struct safetensors {
    struct safetensors_file *files; /* [n_files] */
    struct tensor *tensors;         /* [n_tensors] */
    int32_t n_files, n_tensors;
};

/* Maps and checks all files of `model_dir`. Names and tables live in `arena`. False:
 * ERROR_NO_INPUT (nothing there), ERROR_FORMAT (file, tensor, what is wrong). Caller closes. */
bool safetensors_open(struct safetensors *files, const char *model_dir, struct arena *arena,
                      struct error *err);
void safetensors_close(struct safetensors *files); /* a zeroed struct is fine */

/* The tensor of that name, or NULL. */
const struct tensor *safetensors_find(const struct safetensors *files, const char *name);

#endif
