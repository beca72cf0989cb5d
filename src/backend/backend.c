typedef int placeholder_backend;
