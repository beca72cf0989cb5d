# A column that looks like a setting is told once, also before the run.
printf '{"prompt": "a"}\n{"prompt": "a", "gen-length": 8}\n{"prompt": "a", "max_tokens": 8}\n' > p.jsonl
dllm-batch run -m models/good --gen-length 1 --window 1 p.jsonl 2>&1 | grep -v '^  \|done,'
dllm-batch run -m models/good --gen-length 1 --dry-run p.jsonl 2>&1 >/dev/null
dllm-batch run -m models/good --gen-length 1 -q -f p.jsonl
