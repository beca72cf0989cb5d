typedef int placeholder_forward;
