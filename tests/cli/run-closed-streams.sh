# A standard stream that is closed stays so: no file that is opened takes its place.
echo '{"prompt": "a"}' > p.jsonl
run="dllm-batch run -m models/good --gen-length 1 -q"
$run <&-
echo "exit $?"
$run p.jsonl -o - >&-
echo "exit $?"
$run p.jsonl -o a.jsonl <&- >&- 2>&-
echo "exit $?"
jq -c '.index // empty' a.jsonl
$run p.jsonl -o missing/x <&- >&- 2>&-
echo "exit $?"
dllm-batch --version >&-
echo "exit $?"
