typedef int placeholder_cpu;
