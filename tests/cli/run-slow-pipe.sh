# Who writes the next line only when it has read the answer to the last one need not wait: lines
# that are there are answered, be blank lines or half of another one behind them.
coproc dllm-batch run -q -m models/good --gen-length 1 --no-compress
exec 3<&"${COPROC[0]}" 4>&"${COPROC[1]}" {COPROC[1]}>&-
printf '{"prompt": "n 1"}\n' >&4
for i in 2 3 4; do
    read -r -t 50 answer <&3 || echo "no answer"
    jq -c .index <<< "$answer"
    printf '{"prompt": "n %d"}\n\n  \n{"prompt"' "$i" >&4
    read -r -t 50 answer <&3 || echo "no answer"
    jq -c .index <<< "$answer"
    printf ': "n %d again"}\n' "$i" >&4
done
exec 4>&-
jq -c .index <&3
