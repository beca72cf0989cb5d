# The default name, compression by name and by target, and formats of the input.
echo '{"prompt": "a"}' > a.jsonl
gzip -k a.jsonl
zstd -q a.jsonl -o b.jsonl.zst
for input in a.jsonl b.jsonl.zst; do
    dllm-batch run -q -m models/good --gen-length 1 $input
done
dllm-batch run -q -m models/good --gen-length 1 a.jsonl.gz -f
dllm-batch run -q -m models/good --gen-length 1 a.jsonl -o plain.jsonl
dllm-batch run -q -m models/good --gen-length 1 < a.jsonl > piped
ls -d -- *.jsonl*
for file in a.out.jsonl.zst b.out.jsonl.zst piped; do
    zstd -dc < $file | cut -c 1-30
done
cut -c 1-30 plain.jsonl
