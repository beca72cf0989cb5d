# What printf buffered can fail as late as the end of the program.
dllm-batch help run > /dev/full
