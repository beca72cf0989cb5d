# Who runs it on a terminal learns what it waits for; a name that it chose is told at the end.
cat > terminal.py << 'END'
import os, pty, subprocess, sys
ours, theirs = pty.openpty()
os.write(ours, b'{"prompt": "a"}\n\x04')
subprocess.run(sys.argv[1:], stdin=theirs, check=True)
END
echo '{"prompt": "a"}' > p.jsonl
run="dllm-batch run -m models/good --gen-length 1"
python3 terminal.py $run --no-compress 2>&1 | grep -v '^  ' | sed 's/"text".*/.../'
$run p.jsonl 2>&1 | grep -v '^  '
$run p.jsonl -o named 2>&1 | grep -v '^  '
