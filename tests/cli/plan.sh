# A plan of a named model on a profile that ships: what the summary, the files and the bounds say.
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"prompt_token_ids\": [$(seq -s, 1 $((i * 40)))], \"gen_length\": 64}"
done > p.jsonl
dllm-batch plan -m llada-8b --profile rtx4090 --cache dual --compare --json --svg p.svg \
    --out p.json --perfetto p.trace p.jsonl > summary.json
echo "exit $?"
cat > check.py <<'PYTHON'
import json
import xml.dom.minidom
s, plan, trace = (json.load(open(name)) for name in ("summary.json", "p.json", "p.trace"))
print(s["model"], s["profile"], "measured" if s["measured"] else "not measured")
print(s["requests"], "requests,", s["tokens_to_generate"], "tokens, bad lines:", s["bad_lines"])
memory = s["memory"]
parts = sum(memory[k] for k in ("weights", "cache", "activations", "scores", "canvases", "logits"))
print("memory adds up:", parts == memory["total"], "and fits:", parts <= memory["limit"])
for p in s["plans"]:
    shares = p["refresh_percent"] + p["reuse_percent"] + p["padding_percent"]
    assert abs(shares - 100) < 1e-6, shares
    assert p["bound_s"] <= p["bound_memory_s"] * 1.000001 <= p["makespan_s"] * 1.0001, p
    assert p["latency_p50_s"] <= p["latency_p99_s"] <= p["makespan_s"] * 1.000001
    assert abs(p["positions_per_token"] - p["positions"] / p["tokens"]) < 1e-6
print([p["policy"] for p in s["plans"]], {p["tokens"] for p in s["plans"]})
assert s["plans"][0]["makespan_s"] <= 1.000001 * min(p["makespan_s"] for p in s["plans"])
print(len(plan["requests"]), "requests, the last of line", plan["requests"][-1][0])
assert plan["makespan_ns"] == max(row[3] for row in plan["requests"])
assert abs(s["plans"][0]["makespan_s"] - plan["makespan_ns"] * 1e-9) < 1e-6
steps = [0] * 8
for request, block, begin, n, *_ in plan["runs"]:
    steps[request] += n
print("steps", steps)
assert sum(row[5] for row in plan["iterations"]) == sum(steps)
assert sum(e["ph"] == "M" for e in trace["traceEvents"]) == 8 + 2
xml.dom.minidom.parse("p.svg")
PYTHON
python3 check.py
# What it costs to have all logits at once: 4096 rows of 126464 numbers of 4 bytes, in MiB.
for logits in tiled monolithic; do
    dllm-batch plan -m llada-8b --profile h200 --rows 4096 --logits $logits p.jsonl | grep '^logits'
done
# The table; nothing is overwritten unasked.
dllm-batch plan -m llada-8b --profile rtx4090 --svg p.svg p.jsonl
echo "exit $?"
dllm-batch plan -m llada-8b --profile rtx4090 --svg p.svg -f p.jsonl |
    grep -c -E '^(weights|KV cache|iterations|makespan|efficiency|latency)'
