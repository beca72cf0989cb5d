# Flags that exclude each other, or that suit no line without settings of its own: nothing is written.
echo '{"prompt": "a"}' > p.jsonl
for flags in "--threshold 0.9 --factor 1" "--system S --no-chat" "--steps 7 --gen-length 32 --block-length 8" \
    "--threshold 0.5 --remasking random" "--alg-temp 1 --seed 3" "--gen-length 1000000"; do
    dllm-batch run -q -m models/good p.jsonl $flags
    echo "exit $?"
done
# Steps need not divide over what is filled in.
printf '{"prompt": "a <|mdm_mask|><|mdm_mask|>"}\n' > masks.jsonl
dllm-batch run -q -m models/good --gen-length 0 --block-length 1 --steps 7 masks.jsonl
echo "exit $?"
ls -- *.out.*
