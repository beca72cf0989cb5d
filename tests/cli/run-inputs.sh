# What can be wrong with the input as a whole.
try() {
    dllm-batch run -q -m models/good "$@"
    echo "exit $?"
}
: > empty.jsonl
printf '\n \n' > blank.jsonl
printf '\x28\xb5\x2f\xfd\x04' > torn.jsonl.zst
try empty.jsonl
try blank.jsonl
try missing.jsonl
try torn.jsonl.zst
try models
try < /dev/null
ls -- *.out.* 2>&1
