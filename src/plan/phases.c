typedef int placeholder_phases;
