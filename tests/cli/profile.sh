# Measured on this machine with a small model; then a plan that uses it.
dllm-batch profile -m models/good --threads 1 box.json
echo "exit $?"
dllm-batch profile -m models/good --threads 1 box.json
echo "exit $?"
cat > check.py <<'PYTHON'
import json
p = json.load(open("box.json"))
print(p["name"], p["measured"], p["backend"], sorted(p["versions"]))
assert all(p[k]["value"] > 0 for k in ("base_ns", "bytes_per_s", "memory_bytes"))
print("cache of", p["kv_element_bytes"]["value"], "bytes a number")
rows = [r["rows"] for r in p["rates"]["value"]]
print(rows)
assert all(len(s) == len(p["sample_columns"]) for s in p["samples"])
assert len(p["samples"]) == p["fit"]["samples"] + p["held_out"]["samples"]
assert p["held_out"]["samples"] > 5 and 0 <= p["held_out"]["median_error"]
PYTHON
python3 check.py
echo '{"prompt": "hi"}' | dllm-batch plan -m models/good --profile box.json | grep -E '^profile'
