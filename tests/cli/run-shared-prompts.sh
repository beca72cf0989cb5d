# Real prompt files, as they are: the first 20 lines of each are answered, or too long for this model.
for file in HumanEval gsm8k_test mbpp mt_bench_question livebench/reasoning_spatial livebench/math_AMPS_Hard; do
    echo "$file"
    dllm-batch run -q -m models/good shared/data/prompts/$file.jsonl --limit 20 --gen-length 4 --steps 1 -o - --no-compress |
        sed 's/.*"code":"\([a-z_]*\)".*/\1/; s/.*"finish_reason":"\([a-z]*\)".*/\1/' | sort -u
done
