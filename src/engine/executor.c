typedef int placeholder_executor;
