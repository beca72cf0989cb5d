/* --version: what somebody needs to know who reads a bug report. Libraries tell the version that is
 * loaded, not the one that was compiled against; backends are opened to see whether they can.
 * DLLM_BATCH_VERSION ("0.1.0") comes from the build, which knows it first. */
#include "app/app.h"

#include <assert.h>
#include <gnu/libc-version.h>
#include <jansson.h>
#include <string.h>
#include <utf8proc.h>
#include <zlib.h>
#include <zstd.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "backend/backend.h"

/* The features that src/backend has kernels for, and those a report about speed needs. */
static void print_processor(FILE *stream)
{
    fputs("processor:", stream);
#if defined(__x86_64__)
    __builtin_cpu_init();
    const struct {
        const char *name;
        bool found;
    } features[] = {
        {"avx", __builtin_cpu_supports("avx")},
        {"avx2", __builtin_cpu_supports("avx2")},
        {"fma", __builtin_cpu_supports("fma")},
        {"avx512f", __builtin_cpu_supports("avx512f")},
        {"avx512bw", __builtin_cpu_supports("avx512bw")},
        {"avx512vl", __builtin_cpu_supports("avx512vl")},
        {"avx512dq", __builtin_cpu_supports("avx512dq")},
    };
    fputs(" x86-64", stream);
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (features[i].found) fprintf(stream, " %s", features[i].name);
#else
    fputs(" other than x86-64", stream);
#endif
    fputc('\n', stream);
}

static void print_backends(FILE *stream)
{
    static const char *const names[] = {"ref", "cpu", "cuda"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct backend backend = {0};
        struct error err = {0};
        bool is_open =
            backend_open(&backend, names[i], &(struct backend_limits){.n_threads = 1}, &err);
        fprintf(stream, "backend %s (%s): %s\n", names[i], backend_code(names[i]),
                is_open ? backend.machine : err.message);
        if (is_open) backend_close(&backend);
    }
}

void version_print(FILE *stream)
{
    assert(stream != NULL);
    char pcre2[64] = "";
    int n_pcre2 = pcre2_config(PCRE2_CONFIG_VERSION, NULL);
    if (n_pcre2 > 0 && (size_t)n_pcre2 <= sizeof pcre2) pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    fprintf(stream, "dllm-batch %s\n", DLLM_BATCH_VERSION);
    /* gcc's __VERSION__ is the bare number, clang's starts with a name. */
    bool is_named = strstr(__VERSION__, "lang") != NULL;
    fprintf(stream, "compiler: %s%s\n", is_named ? "" : "gcc ", __VERSION__);
    fprintf(stream, "C library: glibc %s\n", gnu_get_libc_version());
    print_processor(stream);
    print_backends(stream);
    /* PCRE2 adds its date: "10.42 2022-12-11". */
    fprintf(stream, "libraries: jansson %s, zstd %s, zlib %s, PCRE2 %.*s, utf8proc %s\n",
            jansson_version_str(), ZSTD_versionString(), zlibVersion(), (int)strcspn(pcre2, " "),
            pcre2, utf8proc_version());
}
