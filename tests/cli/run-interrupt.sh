# Ctrl-C while the input is silent: what is done is written, the exit status says "again".
mkfifo input
: > log
exec 3<> input
dllm-batch run -v -m models/good -o out.jsonl --progress never < input 2>> log &
until grep -q memory: log; do sleep 0.05; done
kill -INT $!
wait $!
echo "exit $?"
tail -n 1 log
ls out.jsonl 2>&1
