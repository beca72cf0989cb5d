# What would run, without running it.
printf '{"prompt": "hi"}\n{"prompt": 3}\n' > p.jsonl
dllm-batch run -m models/good p.jsonl --dry-run --gen-length 8 --steps 2 | sed '/^options/,$d'
echo "exit ${PIPESTATUS[0]}"
ls -d -- *.jsonl*
