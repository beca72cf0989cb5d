# A bad line becomes an error line, and the run goes on.
dllm-batch run -q -m models/good --gen-length 2 --ordered --no-compress <<END | sed 's/"timing":{[^}]*}/"timing":{}/'
no json
[]
{"id": 1}
{"id": 2, "prompt": ""}
{"id": 3, "prompt": ["a"]}
{"id": 4, "prompt": "$(printf 'a\377b')"}
{"id": 5, "prompt": "a", "temperature": "hot"}
{"id": 6, "prompt": "a", "steps": 3, "block_length": 1}
{"id": 7, "prompt": "a", "gen_length": 5000}
{"id": 8, "prompt": "$(printf 'a%.0s' {1..600})"}
{"id": 9, "prompt": "a"}
{"id": 9, "prompt": "a"}
{"id": 10, "prompt_token_ids": [300]}
{"id": 11, "messages": [{"role": "robot", "content": "a"}]}
{"id": "$(printf '\\u001b')[31m", "prompt": "a", "cache": "all"}
END
exit "${PIPESTATUS[0]}"
