typedef int placeholder_cpu_score;
