typedef int placeholder_weights;
