# Where answers may not go.
try() {
    dllm-batch run -q -m models/good --gen-length 1 "$@"
    echo "exit $?"
}
echo '{"prompt": "a"}' > p.jsonl
echo precious > there
try p.jsonl -o there
try p.jsonl -o there -f
grep '"id"' there | sed 's/"timing":{[^}]*}/"timing":{}/'
ln -s p.jsonl link
try p.jsonl -o p.jsonl -f
try p.jsonl -o link -f
try p.jsonl -o missing/x
try p.jsonl -o models
try p.jsonl -o x.gz
try p.jsonl -o x.zst --no-compress
try p.jsonl -o /dev/full
ls -d -- *.jsonl* link missing x* there 2> /dev/null
