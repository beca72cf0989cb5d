typedef int placeholder_ref;
