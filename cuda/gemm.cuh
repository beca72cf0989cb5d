/* Matrix products by cuBLASLt, with an algorithm chosen once per weight shape so that a row's
 * result does not depend on how many rows there are (invariant I3): no split over k, and every
 * candidate must give equal bits for the same row in batches of several sizes before it is taken.
 */
#ifndef CUDA_GEMM_CUH
#define CUDA_GEMM_CUH

#include "cuda/cublas_load.h"
#include "cuda/kernels.cuh"

#define GEMM_PLANS_MAX 256

/* out = x . w^T (+ bias); out [n_rows, n_out], x [n_rows, n_in], w [n_out, n_in]. */
struct gemm_call {
    void *out; /* bf16 or f32 */
    enum dtype out_dtype;
    const bf16 *x, *w;
    const float *bias; /* [n_out] or NULL */
    int32_t n_rows, n_out, n_in;
};

struct gemm_plan {
    int32_t n_out, n_in;
    enum dtype out_dtype;
    bool has_bias;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulAlgo_t algorithm;
};

struct gemm {
    struct cublas cublas;
    cublasLtHandle_t handle;
    void *workspace;        /* device, GEMM_WORKSPACE_BYTES */
    uint8_t *trial;         /* device, GEMM_TRIAL_BYTES: for the choice of algorithms */
    bf16 *bias;             /* device, [n_bias_max]: the bias of a call in bf16 */
    int32_t *n_differences; /* device */
    struct gemm_plan plans[GEMM_PLANS_MAX];
    int32_t n_plans;
};

#define GEMM_WORKSPACE_BYTES ((size_t)32 << 20)
#define GEMM_TRIAL_BYTES     ((size_t)72 << 20) /* rows, and two results */
#define GEMM_BIAS_MAX        (1 << 16)

/* Bytes of device memory, and handing it over. */
size_t gemm_device_bytes(void);
void gemm_take(struct gemm *gemm, uint8_t *memory);

/* False: ERROR_UNAVAILABLE. */
bool gemm_open(struct gemm *gemm, struct error *err);
void gemm_close(struct gemm *gemm);

/* Shapes and pointers that are no multiples of 16 bytes go to a simple kernel. False: a status of
 * cuBLASLt or CUDA, or no algorithm that keeps rows apart. */
bool gemm_run(struct gemm *gemm, const struct gemm_call *call, cudaStream_t stream,
              struct error *err);

#endif
