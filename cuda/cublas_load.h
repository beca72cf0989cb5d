/* cuBLASLt found at run time, so that one executable starts on every node: a table of the functions
 * that gemm.cu calls, filled by dlopen at the first opening of the cuda backend. */
#ifndef CUDA_CUBLAS_LOAD_H
#define CUDA_CUBLAS_LOAD_H

#include <cublasLt.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/error.h"

/* Name without "cublasLt". The table's entries have the types of cublasLt.h. */
#define CUBLAS_FUNCTIONS(FUNCTION)                                                                 \
    FUNCTION(Create)                                                                               \
    FUNCTION(Destroy)                                                                              \
    FUNCTION(GetVersion)                                                                           \
    FUNCTION(Matmul)                                                                               \
    FUNCTION(MatmulAlgoConfigGetAttribute)                                                         \
    FUNCTION(MatmulAlgoGetHeuristic)                                                               \
    FUNCTION(MatmulDescCreate)                                                                     \
    FUNCTION(MatmulDescDestroy)                                                                    \
    FUNCTION(MatmulDescSetAttribute)                                                               \
    FUNCTION(MatmulPreferenceCreate)                                                               \
    FUNCTION(MatmulPreferenceDestroy)                                                              \
    FUNCTION(MatmulPreferenceSetAttribute)                                                         \
    FUNCTION(MatrixLayoutCreate)                                                                   \
    FUNCTION(MatrixLayoutDestroy)                                                                  \
    FUNCTION(MatrixLayoutSetAttribute)

#define CUBLAS_ENTRY(name) __typeof__(cublasLt##name) *name;

struct cublas {
    void *library;
    CUBLAS_FUNCTIONS(CUBLAS_ENTRY)
};

/* False: ERROR_UNAVAILABLE with the loader's own words for every name that was tried. The library
 * stays loaded until the process ends. */
bool cublas_load(struct cublas *cublas, struct error *err);

#ifdef __cplusplus
}
#endif
#endif
