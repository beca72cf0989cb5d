# What can be wrong with a model.
echo '{"prompt": "a"}' > p.jsonl
for model in truncated lying-header missing-tensors wrong-shape wordpiece config-without-key \
    other-architecture no-config; do
    dllm-batch run -q -m models/$model p.jsonl --gen-length 1
    echo "exit $?"
done
dllm-batch run -q -m missing p.jsonl
echo "exit $?"
ls -d -- *.jsonl*
