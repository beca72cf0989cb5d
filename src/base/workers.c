typedef int placeholder_workers;
