# What a run says that goes on with an output, and one that may not. tests/resume.py has the rest.
run() {
    dllm-batch run -m models/good --gen-length 2 -o out.jsonl "$@" 2>&1 |
        grep -v '^  \(eff\|canv\|forw\|phas\|plan\|lat\)' | sed 's/ in [0-9.]* s:/ in ... s:/'
    echo "exit ${PIPESTATUS[0]}"
}
for i in 1 2 3 4; do echo "{\"id\": \"n$i\", \"prompt\": \"n $i\"}"; done > p.jsonl
run p.jsonl --limit 2
run p.jsonl
run p.jsonl
printf '{"id":"n5","ind' >> out.jsonl
echo bad >> p.jsonl
run p.jsonl
run p.jsonl --seed 7
sed -i 's/n 3/n 4/' p.jsonl
run p.jsonl
run p.jsonl -q --resume=force
sed -i '3s/text/tex\n/' out.jsonl
run p.jsonl
run p.jsonl -q -f
jq -c '.id // .header.settings // .manifest.verdict' out.jsonl
