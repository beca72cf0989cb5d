# A trace of ours with prompts, lengths and settings of lines, on the virtual clock of the model that
# ships: records and tables.
cat > t.jsonl <<'TRACE'
{"arrival_s": 10, "prompt": "Add 24 and 90.", "id": "a", "output_tokens": 5}
{"arrival_s": 10.5, "prompt_tokens": 20, "output_tokens": 40, "cache": "none"}
{"arrival_s": 10.25, "prompt_token_ids": [1, 2, 3], "gen_length": 8, "id": 7}
{"arrival_s": 11, "prompt_tokens": 5000, "output_tokens": 4}
{"arrival_s": -1, "prompt_tokens": 5, "output_tokens": 4}
TRACE
dllm-batch replay --profile l40s --ordered --no-compress -o - t.jsonl 2> tables |
    jq -c '[.id, .index, .finish_reason, .usage, .decode.steps, .decode.blocks, .timing.arrival_ns,
            .timing.start_unix_ns, .error.code, .error.line]'
echo "exit ${PIPESTATUS[0]}"
grep -v -E 'planning, s' tables | sed 's/  */ /g' | head -13
# The same trace known by its name, quietly; the arrivals of a second run are the same bytes.
dllm-batch replay -q --profile l40s t.jsonl
dllm-batch replay -q --profile l40s -o again.jsonl.zst t.jsonl
zstdcat t.out.jsonl.zst | cmp - <(zstdcat again.jsonl.zst) && echo same
# From a pipe, compressed, without what is too long and without stops.
head -3 t.jsonl | gzip | dllm-batch replay -q --profile l40s --no-early-stop | zstdcat |
    jq -c '[.id, .finish_reason, .usage.completion_tokens]'
