# Every form of prompt, one line each; the answers are the lowest id, since the weights are zeros.
dllm-batch run -q -m models/good --gen-length 4 --ordered --no-compress <<'END' |
{"prompt": "hi"}
{"id": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]}

{"custom_id": 70, "prompt_token_ids": [1, 2, 3]}
{"question_id": 81, "turns": ["hi", "you"]}
{"task_id": "t/1", "question": "hi", "answer": "no"}
{"text": "hi", "gen_length": 2}
{"instruction": "hi", "gen_length": null, "seed": 3, "stop": "!!"}
{"prompt": "a <|mdm_mask|> b"}
END
    sed 's/"timing":{[^}]*}/"timing":{}/'
