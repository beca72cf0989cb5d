# Records with known times, plain and compressed, in both forms; then what is no record.
answer() { # id admitted first_forward first_block finished, in ms
    python3 -c '
import json, sys
i, *times = map(int, sys.argv[1:])
names = ("admitted_ns", "first_forward_ns", "first_block_ns", "finished_ns")
print(json.dumps({
    "id": i, "index": i, "text": "x", "finish_reason": "stop",
    "usage": {"prompt_tokens": 10 * i, "completion_tokens": 8},
    "decode": {"steps": 8, "blocks": 1, "refresh_steps": 2, "reuse_steps": 6, "positions": 96},
    "timing": {"start_unix_ns": 1} | {n: t * 10**6 for n, t in zip(names, times)}}))' "$@"
}
{ answer 1 0 10 500 1000; answer 2 0 20 600 2000; answer 3 1000 1100 1500 2000
  echo '{"id":4,"index":4,"error":{"code":"invalid_json","message":"m","line":5}}'; } > a.jsonl
{ answer 1 0 0 400 800; answer 2 0 0 400 1600; } | zstd -q > b.jsonl.zst
dllm-batch report a.jsonl b.jsonl.zst
echo "exit $?"
dllm-batch report --json a.jsonl | grep -E 'tokens_per_s|latency_p50|queue_p99|positions'
dllm-batch report --html page.html a.jsonl b.jsonl.zst > /dev/null
echo "exit $?"
grep -c '<svg' page.html
grep -c -E '(src|href)="(http|/)|url\(|@import' page.html
dllm-batch report --html page.html a.jsonl > /dev/null
echo "exit $?"
echo '{"prompt": "x"}' > p.jsonl
dllm-batch report p.jsonl
echo "exit $?"
dllm-batch report
echo "exit $?"
