typedef int placeholder_cuda_absent;
