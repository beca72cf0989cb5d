/* Small functions that host backends and the kernels of cuda compile from one text. Private to
 * backend/. */
#ifndef BACKEND_INLINE_H
#define BACKEND_INLINE_H

#ifdef __CUDACC__
#define BACKEND_INLINE static __host__ __device__ inline
#else
#define BACKEND_INLINE static inline
#endif

#endif
