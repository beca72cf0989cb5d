# Outputs of run, whole and with every kind of fault, alone and as shards.
run() { dllm-batch run -q -m models/good --gen-length 2 "$@" || echo "run: exit $?"; }
verify() {
    echo "--- verify $*"
    dllm-batch verify "$@" 2>&1
    echo "exit $?"
}
for i in 1 2 3 4; do echo "{\"id\": \"n$i\", \"prompt\": \"n $i\"}"; done > p.jsonl
run p.jsonl -o out.jsonl.zst
verify out.jsonl.zst
verify out.jsonl.zst --against p.jsonl
verify out.jsonl.zst --against p.jsonl --json
cp out.jsonl.zst renamed && verify renamed | tail -2

# lines without ids, bad ones and repeated ids; blank lines
{ cat p.jsonl; printf '\nbad\n{"prompt": "x"}\n{"id": 7, "prompt": "y"}\n{"id": 7, "prompt": "z"}\n'; } > q.jsonl
run q.jsonl -o q.out.jsonl
verify q.out.jsonl --against q.jsonl

# an input that grew, was changed, lost a line
{ grep -v n2 p.jsonl | sed 's/n 3/n  3/'; echo '{"id": "n5", "prompt": ""}'; echo bad; } > other.jsonl
verify out.jsonl.zst --against other.jsonl
verify out.jsonl.zst --against other.jsonl --limit 1 | grep -E 'foreign|missing'

# cut at the front and the back: no manifest, torn, damaged
run p.jsonl -o plain.jsonl
lines() { sed -n "$1" plain.jsonl; }
lines 1,3p > cut.jsonl && verify cut.jsonl
verify cut.jsonl --against p.jsonl
printf '{"id":"n3","ind' >> cut.jsonl && verify cut.jsonl | tail -9
lines 6p >> cut.jsonl && verify cut.jsonl | tail -11
lines 4,5p >> cut.jsonl && verify cut.jsonl | tail -9
lines '1p;2p;3p;3p;4p;5p;6p' > twice.jsonl && verify twice.jsonl
lines '1p;2p;3p;4p;6p' > lost.jsonl && verify lost.jsonl
head -c 9 plain.jsonl > start.jsonl && verify start.jsonl
: > empty.jsonl && verify empty.jsonl | tail -2

# shards
head -2 p.jsonl > p2.jsonl
run p2.jsonl -o a.jsonl.zst
lines '1p;4p;5p' > b.jsonl
verify a.jsonl.zst b.jsonl --against p.jsonl
run p.jsonl -o b.jsonl -f --seed 3
verify a.jsonl.zst b.jsonl

# what is no output
echo '{"id": 1}' > foreign.jsonl && verify foreign.jsonl
verify p.jsonl out.jsonl.zst
verify nothing.jsonl
verify .
verify <(cat plain.jsonl) | sed 's/fd.[0-9]*/fd.N/'
verify
verify plain.jsonl --against nothing.jsonl
