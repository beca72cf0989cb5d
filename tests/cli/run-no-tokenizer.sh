# Token ids can be answered without a tokenizer, text cannot.
dllm-batch run -q -m models/no-tokenizer --gen-length 2 --token-ids --logprobs --ordered --no-compress <<'END' |
{"prompt": "a", "prompt_token_ids": [1, 2]}
{"prompt": "a"}
{"prompt_token_ids": [1, 259, 2]}
END
    sed 's/"timing":{[^}]*}/"timing":{}/'
