# Short answers come first, unless --ordered is given.
cat > p.jsonl <<'END'
{"id": "long", "prompt": "a", "gen_length": 9}
{"id": "short", "prompt": "a", "gen_length": 1}
{"id": "bad"}
END
dllm-batch run -q -m models/good p.jsonl -o - --no-compress | cut -d, -f 1
dllm-batch run -q -m models/good p.jsonl -o - --no-compress --ordered | cut -d, -f 1
