# What cannot be a shard is refused by name and value, before anything is read or written.
echo '{"prompt": "a"}' > p.jsonl
export SLURM_ARRAY_TASK_MIN=4 SLURM_ARRAY_TASK_MAX=10 SLURM_ARRAY_TASK_STEP=2 SLURM_ARRAY_TASK_COUNT=4
for words in "--shard 8/8" "--shard 1" "--shard 0/100000" "--shard -1/4" "--shard-by size" \
    DLLM_SHARD=2/2 SLURM_ARRAY_TASK_ID=5 SLURM_ARRAY_TASK_ID=12 SLURM_ARRAY_TASK_ID=4x SLURM_STEP_ID=0 \
    "SLURM_STEP_ID=0 SLURM_PROCID=4 SLURM_STEP_NUM_TASKS=4" JOB_COMPLETION_INDEX=0 \
    "JOB_COMPLETION_INDEX=3 DLLM_SHARDS=3" DLLM_SHARDS=4 "SLURM_ARRAY_TASK_ID=4 DLLM_SHARDS=8" \
    "PMI_RANK=1 PMI_SIZE=0" "RANK=4 WORLD_SIZE=4" \
    "SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=4 RANK=9 WORLD_SIZE=32"; do
    variables= options=
    case $words in
    -*) options=$words ;;
    *) variables=$words ;;
    esac
    env $variables dllm-batch run -q p.jsonl $options
    echo "exit $?"
done
# Streams: who reads what is the launcher's affair, and costs need two passes.
env RANK=1 WORLD_SIZE=2 dllm-batch run -q < p.jsonl
env RANK=1 WORLD_SIZE=2 dllm-batch run -q <(cat p.jsonl)
dllm-batch run -q --shard 1/2 <(cat p.jsonl)
# A shard goes on with its own file, and leaves out what any file of the output has answered.
printf '{"prompt": "a", "id": "%s"}\n' a b c d e f g h > p.jsonl
dllm-batch run -q --shard 1/2 p.jsonl && dllm-batch run -q --shard 1/2 p.jsonl
echo "exit $?"
dllm-batch run -q --shard 1/2 --shard-by hash p.jsonl
echo "exit $?"
ls
