/* linear. cuBLASLt thinks in columns: its m is n_out, its n the rows, its k n_in; w is transposed,
 * and a row of ours is a column of its. */
#include "cuda/gemm.cuh"

#include <string.h>

#include "cuda/device.cuh"

#define N_CANDIDATES 32
#define TYPICAL_ROWS 2048 /* for which candidates are ranked */
#define TRIAL_ROWS   320
#define ALIGNMENT    16 /* bytes that pointers and rows must keep */

static bool good(cublasStatus_t status, const char *what, struct error *err)
{
    if (status == CUBLAS_STATUS_SUCCESS) return true;
    return error_set(err, ERROR_UNAVAILABLE, "cuBLASLt: %s: status %d", what, (int)status);
}

static bool good(cudaError_t status, const char *what, struct error *err)
{
    if (status == cudaSuccess) return true;
    return error_set(err, ERROR_UNAVAILABLE, "CUDA: %s: %s", what, cudaGetErrorString(status));
}

/* ---- life ---- */

size_t gemm_device_bytes(void)
{
    return GEMM_WORKSPACE_BYTES + GEMM_TRIAL_BYTES + GEMM_BIAS_MAX * sizeof(bf16) + 256;
}

void gemm_take(struct gemm *gemm, uint8_t *memory)
{
    gemm->workspace = memory;
    gemm->trial = memory + GEMM_WORKSPACE_BYTES;
    gemm->bias = (bf16 *)(gemm->trial + GEMM_TRIAL_BYTES);
    gemm->n_differences = (int32_t *)(gemm->bias + GEMM_BIAS_MAX);
}

bool gemm_open(struct gemm *gemm, struct error *err)
{
    memset(gemm, 0, sizeof *gemm);
    return cublas_load(&gemm->cublas, err) &&
           good(gemm->cublas.Create(&gemm->handle), "opening the library", err);
}

void gemm_close(struct gemm *gemm)
{
    for (int32_t i = 0; i < gemm->n_plans; i++) {
        gemm->cublas.MatmulDescDestroy(gemm->plans[i].product);
        gemm->cublas.MatrixLayoutDestroy(gemm->plans[i].w);
        gemm->cublas.MatrixLayoutDestroy(gemm->plans[i].x);
        gemm->cublas.MatrixLayoutDestroy(gemm->plans[i].out);
    }
    if (gemm->handle) gemm->cublas.Destroy(gemm->handle);
    gemm->handle = NULL;
    gemm->n_plans = 0;
}

/* ---- a plan ---- */

static cudaDataType_t type_of(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static bool describe(struct gemm *gemm, struct gemm_plan *plan, struct error *err)
{
    const struct cublas *lt = &gemm->cublas;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue =
        plan->has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    uint64_t n_out = (uint64_t)plan->n_out, n_in = (uint64_t)plan->n_in;
    cudaDataType_t type = type_of(plan->out_dtype), bias_type = CUDA_R_16BF;
    return good(lt->MatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "desc",
                err) &&
           good(lt->MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                           sizeof transposed),
                "transposition", err) &&
           good(lt->MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                           sizeof epilogue),
                "epilogue", err) &&
           (!plan->has_bias ||
            good(lt->MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                                            &bias_type, sizeof bias_type),
                 "type of the bias", err)) &&
           good(lt->MatrixLayoutCreate(&plan->w, CUDA_R_16BF, n_in, n_out, plan->n_in), "w", err) &&
           good(lt->MatrixLayoutCreate(&plan->x, CUDA_R_16BF, n_in, TYPICAL_ROWS, plan->n_in), "x",
                err) &&
           good(lt->MatrixLayoutCreate(&plan->out, type, n_out, TYPICAL_ROWS, plan->n_out), "out",
                err);
}

static cublasStatus_t multiply(struct gemm *gemm, const struct gemm_plan *plan,
                               const struct gemm_call *call, cudaStream_t stream)
{
    const float one = 1, zero = 0;
    const struct cublas *lt = &gemm->cublas;
    uint64_t n_rows = (uint64_t)call->n_rows;
    const void *bias = gemm->bias;
    lt->MatrixLayoutSetAttribute(plan->x, CUBLASLT_MATRIX_LAYOUT_COLS, &n_rows, sizeof n_rows);
    lt->MatrixLayoutSetAttribute(plan->out, CUBLASLT_MATRIX_LAYOUT_COLS, &n_rows, sizeof n_rows);
    if (plan->has_bias)
        lt->MatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                   sizeof bias);
    return lt->Matmul(gemm->handle, plan->product, &one, call->w, plan->w, call->x, plan->x, &zero,
                      call->out, plan->out, call->out, plan->out, &plan->algorithm, gemm->workspace,
                      GEMM_WORKSPACE_BYTES, stream);
}

/* ---- is a row's result its own? ---- */

/* A thread compares words a grid apart. */
static __global__ void count_differences(int32_t *n_differences, const uint32_t *a,
                                         const uint32_t *b, int64_t n)
{
    int32_t found = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x)
        found += a[i] != b[i];
    if (found > 0) atomicAdd(n_differences, found);
}

/* The same rows, multiplied again as a part of another batch, must have the same bits. */
static bool repeat_part(struct gemm *gemm, const struct gemm_plan *plan,
                        const struct gemm_call *whole, int32_t begin, int32_t n,
                        cudaStream_t stream)
{
    size_t element = dtype_bytes(plan->out_dtype), row_bytes = element * (size_t)plan->n_out;
    uint8_t *out = (uint8_t *)whole->out, *again = out + (size_t)whole->n_rows * row_bytes;
    struct gemm_call part = *whole;
    part.x += (int64_t)begin * plan->n_in;
    part.n_rows = n;
    part.out = again;
    if (multiply(gemm, plan, &part, stream) != CUBLAS_STATUS_SUCCESS) return false;
    count_differences<<<64, 256, 0, stream>>>(
        gemm->n_differences, (const uint32_t *)(out + (size_t)begin * row_bytes),
        (const uint32_t *)again, (int64_t)((size_t)n * row_bytes / 4));
    return true;
}

/* Batches of 1 row, of parts of a tile, of more than one, and of all but the first. */
static bool keeps_rows_apart(struct gemm *gemm, const struct gemm_plan *plan,
                             const struct gemm_call *call, cudaStream_t stream)
{
    struct gemm_call whole = *call;
    size_t x_bytes = (size_t)TRIAL_ROWS * (size_t)plan->n_in * sizeof(bf16);
    size_t row_bytes = (size_t)plan->n_out * dtype_bytes(plan->out_dtype);
    size_t n_fit = x_bytes < GEMM_TRIAL_BYTES ? (GEMM_TRIAL_BYTES - x_bytes) / row_bytes / 2 : 0;
    int32_t n = n_fit < TRIAL_ROWS ? (int32_t)n_fit : TRIAL_ROWS, differences = 0;
    const struct dummy_args numbers = {{}, false, 1, 0, 4};
    if (n < 2) return false;
    whole.x = (const bf16 *)gemm->trial;
    whole.out = gemm->trial + x_bytes;
    whole.n_rows = n;
    cudaMemsetAsync(gemm->n_differences, 0, sizeof *gemm->n_differences, stream);
    launch_dummy((bf16 *)gemm->trial, (int64_t)n * plan->n_in, &numbers, stream);
    if (multiply(gemm, plan, &whole, stream) != CUBLAS_STATUS_SUCCESS) return false;
    bool ok = repeat_part(gemm, plan, &whole, 0, 1, stream) &&
              repeat_part(gemm, plan, &whole, n - 1, 1, stream) &&
              repeat_part(gemm, plan, &whole, n / 3, n / 3, stream) &&
              repeat_part(gemm, plan, &whole, n / 5, n / 2, stream) &&
              repeat_part(gemm, plan, &whole, 1, n - 1, stream);
    cudaMemcpyAsync(&differences, gemm->n_differences, sizeof differences, cudaMemcpyDeviceToHost,
                    stream);
    return cudaStreamSynchronize(stream) == cudaSuccess && ok && differences == 0;
}

/* ---- choosing ---- */

static bool set_preference(struct gemm *gemm, cublasLtMatmulPreference_t preference,
                           struct error *err)
{
    const struct cublas *lt = &gemm->cublas;
    const uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = ALIGNMENT;
    const uint64_t workspace = GEMM_WORKSPACE_BYTES;
    const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++)
        if (!good(lt->MatmulPreferenceSetAttribute(preference, sides[i], &alignment,
                                                   sizeof alignment),
                  "alignment", err))
            return false;
    return good(lt->MatmulPreferenceSetAttribute(preference,
                                                 CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                 &no_reduction, sizeof no_reduction),
                "reduction", err) &&
           good(lt->MatmulPreferenceSetAttribute(preference,
                                                 CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                 &workspace, sizeof workspace),
                "workspace", err);
}

static int32_t n_splits(const struct gemm *gemm, const cublasLtMatmulAlgo_t *algorithm)
{
    int32_t n = 1;
    size_t written;
    gemm->cublas.MatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &n,
                                              sizeof n, &written);
    return n;
}

/* The first of the library's candidates for a typical number of rows that keeps rows apart: the
 * same one on every run of the same library on the same device. */
static bool choose(struct gemm *gemm, struct gemm_plan *plan, const struct gemm_call *call,
                   cudaStream_t stream, struct error *err)
{
    const struct cublas *lt = &gemm->cublas;
    cublasLtMatmulHeuristicResult_t found[N_CANDIDATES];
    cublasLtMatmulPreference_t preference;
    int n_found = 0;
    if (!good(lt->MatmulPreferenceCreate(&preference), "preference", err)) return false;
    bool ok =
        set_preference(gemm, preference, err) &&
        good(lt->MatmulAlgoGetHeuristic(gemm->handle, plan->product, plan->w, plan->x, plan->out,
                                        plan->out, preference, N_CANDIDATES, found, &n_found),
             "candidates", err);
    lt->MatmulPreferenceDestroy(preference);
    if (!ok) return false;
    for (int i = 0; i < n_found; i++) {
        plan->algorithm = found[i].algo;
        if (n_splits(gemm, &plan->algorithm) > 1) continue;
        if (keeps_rows_apart(gemm, plan, call, stream)) return true;
    }
    return error_set(err, ERROR_UNAVAILABLE,
                     "cuBLASLt: none of %d algorithms for %d outputs of %d inputs gives a row the "
                     "same bits in every batch",
                     n_found, plan->n_out, plan->n_in);
}

static bool is_plan_of(const struct gemm_plan *plan, const struct gemm_call *call)
{
    return plan->n_out == call->n_out && plan->n_in == call->n_in &&
           plan->out_dtype == call->out_dtype && plan->has_bias == (call->bias != NULL);
}

static struct gemm_plan *find_plan(struct gemm *gemm, const struct gemm_call *call,
                                   cudaStream_t stream, struct error *err)
{
    for (int32_t i = 0; i < gemm->n_plans; i++)
        if (is_plan_of(&gemm->plans[i], call)) return &gemm->plans[i];
    if (gemm->n_plans == GEMM_PLANS_MAX) {
        error_set(err, ERROR_UNAVAILABLE, "more than %d shapes of weights", GEMM_PLANS_MAX);
        return NULL;
    }
    struct gemm_plan *plan = &gemm->plans[gemm->n_plans++];
    *plan = {};
    plan->n_out = call->n_out;
    plan->n_in = call->n_in;
    plan->out_dtype = call->out_dtype;
    plan->has_bias = call->bias != NULL;
    if (describe(gemm, plan, err) && choose(gemm, plan, call, stream, err)) return plan;
    plan->n_out = 0; /* matches no call */
    return NULL;
}

/* ---- any shape ---- */

/* A thread makes one number of linear (backend.h), in order of k. For shapes that no model has. */
template <typename number> static __global__ void linear_any(gemm_call call)
{
    int32_t col = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), row = (int32_t)blockIdx.y;
    if (col >= call.n_out) return;
    const bf16 *x = call.x + (int64_t)row * call.n_in, *w = call.w + (int64_t)col * call.n_in;
    float sum = 0;
    for (int32_t k = 0; k < call.n_in; k++)
        sum += __bfloat162float(x[k]) * __bfloat162float(w[k]);
    if (call.bias) sum += call.bias[col];
    ((number *)call.out)[(int64_t)row * call.n_out + col] = (number)sum;
}

static bool run_any(const struct gemm_call *call, cudaStream_t stream, struct error *err)
{
    dim3 grid((unsigned)(call->n_out + 127) / 128, (unsigned)call->n_rows);
    if (call->out_dtype == DTYPE_F32) linear_any<float><<<grid, 128, 0, stream>>>(*call);
    else linear_any<bf16><<<grid, 128, 0, stream>>>(*call);
    return good(cudaGetLastError(), "linear", err);
}

static bool is_aligned(const struct gemm_call *call)
{
    return (size_t)call->n_in * sizeof(bf16) % ALIGNMENT == 0 &&
           (size_t)call->n_out * dtype_bytes(call->out_dtype) % ALIGNMENT == 0 &&
           (uintptr_t)call->w % ALIGNMENT == 0 && (uintptr_t)call->x % ALIGNMENT == 0 &&
           (uintptr_t)call->out % ALIGNMENT == 0;
}

bool gemm_run(struct gemm *gemm, const struct gemm_call *call, cudaStream_t stream,
              struct error *err)
{
    if (call->n_rows == 0) return true;
    if (!is_aligned(call) || (call->bias && call->n_out > GEMM_BIAS_MAX))
        return run_any(call, stream, err);
    if (call->bias && !good(launch_round(gemm->bias, call->bias, call->n_out, stream), "bias", err))
        return false;
    struct gemm_plan *plan = find_plan(gemm, call, stream, err);
    return plan && good(multiply(gemm, plan, call, stream), "product", err);
}
