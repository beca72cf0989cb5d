/* Arbitrary bytes as a model's weights: model.safetensors as they are, or, when the first byte says
 * so, a config.json. What is accepted keeps the promises of safetensors.h: each tensor's bytes lie
 * inside the file, and are as many as its shape says; together they are all of its data. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
#include "model/safetensors.h"
#include "fuzz.h"

enum { ARENA_BYTES = 256 << 20 };

static char folder[] = "/tmp/fuzz-model-XXXXXX";
static struct arena arena;

static void remove_folder(void)
{
    static const char *const names[] = {"model.safetensors", "config.json",
                                        "generation_config.json"};
    char path[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void open_once(void)
{
    struct error err = {0};
    if (arena.base != NULL) return;
    require(mkdtemp(folder) != NULL);
    require(atexit(remove_folder) == 0);
    require(arena_create(&arena, ARENA_BYTES, &err));
}

static void write_file(const char *name, const uint8_t *data, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(fd >= 0);
    require(write(fd, data, size) == (ssize_t)size);
    close(fd);
}

static void try_weights(void)
{
    struct safetensors files;
    struct error err = {0};
    if (!safetensors_open(&files, folder, &arena, &err)) {
        require(err.code != ERROR_NONE && err.message[0] != '\0');
        require(files.n_files == 0);
        return;
    }
    require(files.n_files == 1);
    const char *begin = files.files[0].map, *end = begin + files.files[0].n_bytes;
    const char *next = files.n_tensors > 0 ? files.tensors[0].data : end;
    for (int32_t i = 0; i < files.n_tensors; i++) {
        const struct tensor *tensor = &files.tensors[i];
        const char *first = tensor->data;
        uint32_t sum = 0;
        require(first >= begin && first <= end && tensor->n_bytes <= (size_t)(end - first));
        require(first == next); /* tensors join, */
        next += tensor->n_bytes;
        for (size_t byte = 0; byte < tensor->n_bytes; byte++)
            sum += (uint8_t)first[byte]; /* all of it can be read */
        require(sum <= 255 * tensor->n_bytes);
        require(safetensors_find(&files, tensor->name) != NULL);
    }
    require(next == end); /* and nothing is behind them */
    safetensors_close(&files);
}

static void try_config(void)
{
    struct model_config config;
    struct error err = {0};
    if (!config_read(&config, folder, &arena, &err)) {
        require(err.code != ERROR_NONE && err.message[0] != '\0');
        return;
    }
    require(config.n_vocab > 0 && config.n_positions > 0 && config.n_kv_heads > 0);
    require(config.mask_id >= 0 && config.mask_id < config.n_vocab);
    require(config_n_parameters(&config) > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"model.safetensors", "config.json"};
    if (size == 0) return 0;
    open_once();
    write_file(names[data[0] % 2], data + 1, size - 1);
    if (data[0] % 2 == 0) try_weights();
    else try_config();
    arena_rewind(&arena, 0);
    return 0;
}
