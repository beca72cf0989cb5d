# With a profile every window is planned ahead, and the times are compared; answers are what they are
# without one, and planning says so in either form of the summary.
for i in 1 2 3 4 5 6; do echo '{"prompt": "Add '$i' and 9.", "id": "'$i'"}'; done > p.jsonl
run() { dllm-batch run -f --ordered --no-compress --gen-length 16 --window 4 "$@" p.jsonl; }
run -o plain.jsonl --quiet --iterations plain-times.jsonl
run -o planned.jsonl --profile h200 --log-format json 2>&1 |
    jq -c 'select(.event == "summary") |
           [.planned_ns > 0, .predicted_ns > 0, .planning_ns > 0, .prediction_error_median >= 0]'
cmp <(jq -c '[.id, .text]' plain.jsonl) <(jq -c '[.id, .text]' planned.jsonl) && echo same
run -o planned.jsonl --profile h200 --iterations times.jsonl.zst 2>&1 |
    grep -o -E 'predicted .*|.*datasheet.*' |
    sed -E 's/[+-]?[0-9]+\.[0-9]+/X/g; s/ +/ /g; s/within [0-9]+/within N/'
# Each forward pass has a line, and report reads it beside the answers.
zstdcat times.jsonl.zst | jq -c 'keys_unsorted' | uniq
jq -s -c '[all(.predicted_ns == 0), all(.end_ns > .begin_ns)]' plain-times.jsonl
for times in plain-times.jsonl times.jsonl.zst; do
    dllm-batch report --json planned.jsonl $times |
        jq -c '.runs[0] | [.iterations > 0, .iterations_s > 0, .predicted_s != null,
                           .prediction_error_p50_percent != null]'
done
dllm-batch report times.jsonl.zst planned.jsonl
echo "exit $?"
# Nothing is overwritten unasked; no such profile.
dllm-batch run -q -o - --iterations times.jsonl.zst p.jsonl
echo "exit $?"
run -o - --profile none.json
echo "exit $?"
