# A reader that goes away ends the run without a word.
for i in {1..2000}; do echo "{\"prompt\": \"n $i\"}"; done > p.jsonl
dllm-batch run -m models/good p.jsonl -o - --no-compress --gen-length 2 --window 8 --progress never | head -n 1 | cut -c 1-16
echo "exit ${PIPESTATUS[0]}"
