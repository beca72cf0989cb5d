# --strict writes nothing when a line is bad.
printf '{"prompt": "a"}\nbad\n{"prompt": 3}\n' > bad.jsonl
echo '{"prompt": "a"}' > good.jsonl
dllm-batch run -q -m models/good --gen-length 1 --strict bad.jsonl
echo "exit $?"
dllm-batch run -q -m models/good --gen-length 1 --strict good.jsonl
echo "exit $?"
dllm-batch run -q -m models/good --gen-length 1 --strict < good.jsonl
echo "exit $?"
ls -d -- *.jsonl*
