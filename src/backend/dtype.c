/* Conversions between stored and computed numbers, exact for every bit pattern. */
#include "backend/dtype.h"

#include <assert.h>
#include <math.h>
#include <string.h>

size_t dtype_bytes(enum dtype dtype)
{
    assert(dtype <= DTYPE_I32);
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16 ? 2 : 4;
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float dtype_f32_from_bf16(uint16_t bits)
{
    return float_of_bits((uint32_t)bits << 16);
}

uint16_t dtype_bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value)) return (uint16_t)((bits >> 16) | 0x40); /* quiet, so that it stays a NaN */
    uint32_t is_odd = (bits >> 16) & 1;
    return (uint16_t)((bits + 0x7FFF + is_odd) >> 16);
}

float dtype_f32_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = (bits >> 10) & 0x1F, fraction = bits & 0x3FF;
    if (exponent == 0x1F) return float_of_bits(sign | 0x7F800000 | fraction << 13);
    if (exponent > 0) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f; /* subnormal or zero: exact in f32 */
    return sign != 0 ? -magnitude : magnitude;
}
