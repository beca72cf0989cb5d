# Ctrl-C in the middle: every line that is done stands in the output, whole, between header and
# manifest.
for i in {1..400}; do echo "{\"prompt\": \"n $i\", \"gen_length\": 300, \"steps\": 300}"; done > p.jsonl
sed -i '1s/300, "steps": 300/1/' p.jsonl
dllm-batch run -m models/good p.jsonl --backend ref --rows 512 --block-length 300 -o out.jsonl --progress never 2> log &
until grep -q '"id"' out.jsonl 2> /dev/null; do sleep 0.05; done
kill -TERM $!
wait $!
echo "exit $?"
tail -n 1 log
python3 -c 'import json; [json.loads(line) for line in open("out.jsonl")]'
jq -c '.manifest.verdict // empty' out.jsonl
[ "$(grep -c '"id"' out.jsonl)" = "$(sed -n 's/.*done: \([0-9]*\),.*/\1/p' log)" ] && echo as many as said
