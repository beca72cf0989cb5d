# Each refusal names the option, the value and what it may be.
try() { dllm-batch run "$@" || echo "exit $?"; }
try --threads 0
try --threads=-1
try --gen-length 99999999999999999999
try --gen-length 3.5
try --block-length 0
try --temperature hot
try --top-p 0
try --threshold 1.5
try --seed -1
try --remasking best
try --cache all
try --memory 8Q
try --memory 1K
try --force=yes
try --model
try -fo
try -xf
try one.jsonl two.jsonl
try --limit 0
try ''
try -m ''
