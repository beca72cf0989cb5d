typedef int placeholder_error;
