# The summary, as text and as JSON.
printf '{"prompt": "a"}\n{"prompt": "b"}\nbad\n' > p.jsonl
dllm-batch run -m models/good p.jsonl -o a --gen-length 4 --progress never
dllm-batch run -m models/good p.jsonl -o b --gen-length 4 --progress never --log-format json
