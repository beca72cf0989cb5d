# With a profile every window is planned ahead, and the times are compared; answers are what they are
# without one, and planning says so in either form of the summary.
for i in 1 2 3 4 5 6; do echo '{"prompt": "Add '$i' and 9.", "id": "'$i'"}'; done > p.jsonl
run() { dllm-batch run -f --ordered --no-compress --gen-length 16 --window 4 "$@" p.jsonl; }
run -o plain.jsonl --quiet
run -o planned.jsonl --profile h200 --log-format json 2>&1 |
    jq -c 'select(.event == "summary") |
           [.planned_ns > 0, .predicted_ns > 0, .planning_ns > 0, .prediction_error_median >= 0]'
cmp <(jq -c '[.id, .text]' plain.jsonl) <(jq -c '[.id, .text]' planned.jsonl) && echo same
run -o planned.jsonl --profile h200 2>&1 | grep -c -E 'predicted .* s +\(computed in .* s; planned'
# No such profile.
run -o - --profile none.json
echo "exit $?"
