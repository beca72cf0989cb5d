/* Element types of matrices. Weights stay as the model's files store them (bf16, f16 or f32);
 * everything that is computed is f32; token ids are i32. */
#ifndef BACKEND_DTYPE_H
#define BACKEND_DTYPE_H

#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I32 };

/* Bytes of one element: 2 or 4. */
size_t dtype_bytes(enum dtype dtype);

/* The upper half of an f32: exact. */
float dtype_f32_from_bf16(uint16_t bits);

/* Rounds to nearest, ties to even; a NaN stays a (quiet) NaN. */
uint16_t dtype_bf16_from_f32(float value);

/* IEEE half precision, subnormals and infinities too: exact. */
float dtype_f32_from_f16(uint16_t bits);

#endif
