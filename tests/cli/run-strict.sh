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
# Of many bad lines the first ones are told, each on a line of its own.
for i in {1..25}; do echo "{\"prompt\": $i}"; done > many.jsonl
dllm-batch run -q -m models/good --strict many.jsonl 2> log
echo "exit $?"
sed -n '1p;20,$p' log
dllm-batch run -q -m models/good --strict --log-format json bad.jsonl
dllm-batch run -q -m models/good --dry-run bad.jsonl | grep bad
