/* Looks for cuBLASLt by the names of the releases that this build can use. */
#include "cuda/cublas_load.h"

#include <assert.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* The loader's own search first, then where the toolkit installs itself. */
static const char *const names[] = {
    "libcublasLt.so.13",
    "libcublasLt.so.12",
    "/usr/local/cuda/lib64/libcublasLt.so.13",
    "/usr/local/cuda/lib64/libcublasLt.so.12",
};

static bool find_function(const struct cublas *cublas, const char *name, void *entry,
                          struct error *err)
{
    void *found = dlsym(cublas->library, name);
    assert(cublas->library != NULL);
    if (found == NULL)
        return error_set(err, ERROR_UNAVAILABLE, "cuBLASLt lacks %s: %s", name, dlerror());
    memcpy(entry, &found, sizeof found); /* C has no cast from data to function */
    return true;
}

bool cublas_load(struct cublas *cublas, struct error *err)
{
    char reasons[512] = "";
    *cublas = (struct cublas){0};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && cublas->library == NULL; i++) {
        cublas->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (cublas->library != NULL) break;
        size_t used = strlen(reasons);
        assert(used < sizeof reasons);
        snprintf(reasons + used, sizeof reasons - used, "%s%s", i > 0 ? "; " : "", dlerror());
    }
    if (cublas->library == NULL)
        return error_set(err, ERROR_UNAVAILABLE,
                         "cuBLASLt of CUDA 12 or 13 is missing (%s); put its folder into "
                         "LD_LIBRARY_PATH, or use --backend cpu",
                         reasons);
#define CUBLAS_FIND(name)                                                                          \
    if (!find_function(cublas, "cublasLt" #name, &cublas->name, err)) return false;
    CUBLAS_FUNCTIONS(CUBLAS_FIND)
    return true;
}
