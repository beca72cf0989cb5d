# What cannot be replayed, and why.
echo '{"arrival_s": 1, "prompt_tokens": 5, "output_tokens": 4}' > t.jsonl
try() {
    dllm-batch replay --profile l40s -q -f "$@"
    echo "exit $?"
}
try --clock real --model llada-8b t.jsonl
try --clock real --rows 8 --no-compress -o - t.jsonl
dllm-batch replay --clock real --compare t.jsonl
try --clock scaled=-1 t.jsonl
try --clock scaled= t.jsonl
try --clock sundial t.jsonl
try --json -o - t.jsonl
try --rate 3 t.jsonl
try --time-column when t.jsonl
try --profile nobody t.jsonl
try missing.csv
echo '{"prompt": "1 + 2"}' > prompts.jsonl
try prompts.jsonl
echo 'a,b' > other.csv
try other.csv
: > empty.csv
try empty.csv
echo 'TIMESTAMP,ContextTokens,GeneratedTokens' > header.csv
try header.csv
