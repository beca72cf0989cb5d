# An operand counts more than DLLM_BATCH_MODEL.
export DLLM_BATCH_MODEL=models/no-config
dllm-batch inspect
dllm-batch inspect models/no-tokenizer | head -n 1
