# What cannot be planned, and why.
try() {
    dllm-batch plan --profile h200 "$@"
    echo "exit $?"
}
echo '{"prompt_token_ids": [1, 2, 3]}' > p.jsonl
try -m llada-8b --memory 8G p.jsonl
try -m llada-8b --profile h300 p.jsonl
try -m llada-9b p.jsonl
try -m llada-8b missing.jsonl
try -m llada-8b --rows 100 p.jsonl
echo '{"prompt": "words without a tokenizer"}' > words.jsonl
try -m llada-8b words.jsonl
echo '{"name": "x"}' > broken.json
try -m llada-8b --profile broken.json p.jsonl
# One line too many does not spoil the others.
try -m llada-8b --json words.jsonl p.jsonl
cat p.jsonl words.jsonl | try -m llada-8b --json | grep -E 'exit|bad_lines|"requests"'
