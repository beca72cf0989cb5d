/* What all targets share: how they are called, how they complain, and one small model. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* One input; what libFuzzer calls. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Not assert: it has to hold in every build. */
static inline void require(bool holds)
{
    if (!holds) abort();
}

/* A struct cost_shape (plan/cost.h). */
#define FUZZ_SHAPE                                                                                 \
    {                                                                                              \
        .n_layers = 2, .hidden = 64, .n_heads = 2, .n_kv_heads = 1, .head_dim = 32, .ffn = 96,     \
        .n_vocab = 300, .weight_element_bytes = 2, .kv_element_bytes = 2                           \
    }

#endif
