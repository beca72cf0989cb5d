/* What meson.build compiles to find out which GPUs nvcc can make code for. */
__global__ void nothing()
{
}
