/* Everything an instruction set's file compiles, and its table. The file defines LANES, TILE_ROWS,
 * vf, vf_splat and vf_fma before. Private to cpu_kernels_*.c. */
#ifndef BACKEND_CPU_KERNELS_BODY_H
#define BACKEND_CPU_KERNELS_BODY_H

#include "backend/cpu_kernels.h"
#include "backend/cpu_kernels_attend.h"
#include "backend/cpu_kernels_product.h"
#include "backend/cpu_kernels_rows.h"
#include "backend/cpu_kernels_vector.h"

#define CPU_KERNELS_TABLE(isa)                                                                     \
    {                                                                                              \
        .name = (isa), .panel_width = PANEL, .tile_rows = TILE_ROWS, .multiply = product_multiply, \
        .attend = attend_run, .normalize = row_normalize, .rotate = row_rotate,                    \
        .activate = row_activate, .widen = product_widen, .dot = row_dot, .largest = row_largest,  \
        .exp_all = row_exp_all, .sum_exp = row_sum_exp                                             \
    }

#endif
