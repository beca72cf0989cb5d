# Small windows change neither answers nor their number, and --limit counts lines.
for i in {1..23}; do
    echo "{\"prompt\": \"n $i\", \"gen_length\": $((i % 7 + 1))}"
done > p.jsonl
run() {
    dllm-batch run -q -m models/good p.jsonl -o - --no-compress --token-ids "$@" |
        sed 's/"timing":{[^}]*}/"timing":{}/' | sort
}
run > all
run --window 4 --rows 128 > small
run --window 1 --ordered --backend ref > single
cmp all small && cmp all single && wc -l < all
run --limit 5 | wc -l
