/* What meson.build compiles to find out which GPUs nvcc can make code for, and whether the toolkit
 * has the header of its profilers. */
#include <nvtx3/nvToolsExt.h>

__global__ void nothing()
{
}
