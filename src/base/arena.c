typedef int placeholder_arena;
