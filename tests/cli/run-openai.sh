# The OpenAI batch form gets OpenAI's envelope, also around failures.
dllm-batch run -m models/good --progress never --log-format json --ordered --no-compress <<'END' 2>log |
{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "any", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0, "logprobs": true}}
{"custom_id": "b", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "hi"}], "n": 2}}
{"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "hi"}], "max_new": 2}}
{"custom_id": "d", "method": "POST", "url": "/v1/embeddings", "body": {"input": "hi"}}
oops
END
    sed 's/"timing":{[^}]*}/"timing":{}/'
grep -c ignored log
