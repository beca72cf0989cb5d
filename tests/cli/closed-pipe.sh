# A reader that went away is not worth a message. The named pipe makes sure that it is gone.
mkfifo pipe
exec 3<>pipe 4>pipe 3<&-
dllm-batch help run >&4
