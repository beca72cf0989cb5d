# Whoever goes first and whatever is kept: the same answers; and each kind of refusal of a cache.
{
    for i in 1 2 3 4 5 6 7; do
        echo "{\"id\": $i, \"prompt\": \"$(printf 'word %.0s' $(seq $((i * 5))))\"}"
    done
    echo '{"id": "wide", "prompt": "hi", "gen_length": 12, "cache": "prefix", "refresh_every": 2}'
    echo '{"id": "own", "prompt": "hi", "gen_length": 12, "cache": "dual", "suffix_window": 1}'
} > prompts.jsonl
answers() {
    dllm-batch run -m models/good --gen-length 8 --block-length 4 --cache sparse --rows 128 \
        --ordered --no-compress -o - --log-format json --progress never "$@" prompts.jsonl \
        2>log | sed 's/"timing":{[^}]*}/"timing":{}/'
    grep -o '"pad_positions": [1-9]' log | sed 's/[1-9]/some/'
}
for policy in planned fcfs static; do
    answers --policy $policy > $policy.txt
done
grep -v pad planned.txt > expected.txt
for policy in planned fcfs static; do
    grep -v pad $policy.txt | cmp - expected.txt && echo "$policy: the same answers"
    grep pad $policy.txt
done
answers --policy planned --kv-memory 1K --limit 2
answers --policy planned --prompt-refresh-every 2 --limit 1 | cut -c1-120
echo '{"prompt": "a <|mdm_mask|> b", "cache": "dual"}' |
    dllm-batch run -q -m models/good --no-compress || true
