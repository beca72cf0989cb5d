# Flags that exclude each other.
echo '{"prompt": "a"}' > p.jsonl
for flags in "--threshold 0.9 --factor 1" "--system S --no-chat"; do
    dllm-batch run -q -m models/good p.jsonl $flags
    echo "exit $?"
done
