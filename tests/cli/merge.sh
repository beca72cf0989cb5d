# Outputs of one input, joined; and what is refused. tests/shards.py has the rest.
run() { dllm-batch run -q -m models/good --gen-length 2 "$@" || echo "run: exit $?"; }
merge() {
    echo "--- merge $*"
    dllm-batch merge "$@" 2>&1
    echo "exit $?"
}
for i in 1 2 3 4 5 6; do echo "{\"id\": \"n$i\", \"prompt\": \"n $i\"}"; done > p.jsonl
run p.jsonl -o whole.jsonl
shard() { # the header, some lines, a manifest
    sed -n "1p;$1" whole.jsonl
    echo "{\"manifest\":{\"verdict\":\"complete\",\"lines\":$2,\"start_unix_ns\":$2,\"wall_ns\":$2,\"forwards\":$2,\"x_per_s\":0.5}}"
}
shard '7p;3p' 2 | zstd -q > a.jsonl.zst
shard '6p;2p;4,5p' 4 > b.jsonl
merge -o out.jsonl.zst a.jsonl.zst b.jsonl
zstd -qdc out.jsonl.zst | jq -c '.id // .header.model.name // .manifest'
dllm-batch verify out.jsonl.zst --against p.jsonl | tail -1
run p.jsonl -o out.jsonl.zst && dllm-batch run p.jsonl -m models/good --gen-length 2 -o out.jsonl.zst
dllm-batch merge -q -o - --no-compress b.jsonl | jq -r .id

merge -o out.jsonl.zst a.jsonl.zst
merge -o b.jsonl -f a.jsonl.zst b.jsonl
merge -o c.jsonl b.jsonl
merge -f -o c.jsonl b.jsonl b.jsonl

# what is not to be joined
sed '$d' b.jsonl > cut.jsonl && merge -o d.jsonl a.jsonl.zst cut.jsonl
head -c -20 b.jsonl > torn.jsonl && merge -o d.jsonl a.jsonl.zst torn.jsonl
sed '3d' b.jsonl > lost.jsonl && merge -o d.jsonl lost.jsonl
sed 's/complete/incomplete/' b.jsonl > stopped.jsonl && merge -o d.jsonl stopped.jsonl
sed '3s/"index"/"inde/' b.jsonl > damaged.jsonl && merge -o d.jsonl damaged.jsonl
sed '2s/"text":"/"text":"!/' b.jsonl > other.jsonl && merge -o d.jsonl b.jsonl other.jsonl
sed 's/"index":/"index":1/' b.jsonl > moved.jsonl && merge -o d.jsonl b.jsonl moved.jsonl
sed 's/"index":/"index":99999999999/' b.jsonl > far.jsonl && merge -o d.jsonl far.jsonl
sed '1s/"backend":"/"backend":"x/' b.jsonl > backend.jsonl && merge -o d.jsonl a.jsonl.zst backend.jsonl
rm d.jsonl
run p.jsonl -o seed.jsonl --seed 3
merge -o d.jsonl a.jsonl.zst seed.jsonl
merge -o d.jsonl p.jsonl
merge -o d.jsonl a.jsonl.zst nothing.jsonl
merge -o d.jsonl
merge a.jsonl.zst
merge -o no/d.jsonl a.jsonl.zst
[ -e d.jsonl ] || echo "no d.jsonl"
sed '1s/{"header"/ { "header"/' b.jsonl > spaced.jsonl && dllm-batch merge -q -o e.jsonl spaced.jsonl
cmp <(head -1 e.jsonl) <(head -1 b.jsonl) && echo "the header is as ours"
