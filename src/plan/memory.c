typedef int placeholder_memory;
