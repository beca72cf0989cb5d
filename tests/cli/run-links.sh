# A model folder of links, as in a Hugging Face cache, and one whose template is not the built-in one.
echo '{"prompt": "a"}' | dllm-batch run -q -m models/links --gen-length 1 | zstd -dc | cut -c 1-30
echo '{"prompt": "a"}' | dllm-batch run --progress never -m models/other-template --gen-length 1 2>&1 > /dev/null |
    head -n 1
