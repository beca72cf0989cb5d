# A line of ten megabytes, and one that is longer than any may be, cost one error line each.
{
    printf '{"prompt": "'
    head -c 10000000 /dev/zero | tr '\0' a
    printf '"}\n'
    head -c 17000000 /dev/zero | tr '\0' b
    printf '\n{"prompt": "a"}\n'
} | dllm-batch run -q -m models/good --gen-length 1 --ordered --no-compress |
    sed 's/"timing":{[^}]*}/"timing":{}/'
exit "${PIPESTATUS[1]}"
