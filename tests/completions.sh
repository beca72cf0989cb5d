#!/bin/bash
# What the generated completions offer: bash's answers to half-written command lines, and that zsh
# and fish, where installed, can read theirs. Prints TAP. Usage: completions.sh GEN_OPTIONS
generator=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for shell in bash zsh fish; do
    "$generator" $shell > "$folder/$shell" || exit 1
done
# shellcheck disable=SC1091
source "$folder/bash"
mkdir "$folder/here" "$folder/here/models"
touch "$folder/here/prompts.jsonl"
cd "$folder/here" || exit 1

number=0
failed=0

# offers WANTED WORD...: the words of a command line, the last one half-written.
offers() {
    local wanted=$1
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    _dllm_batch
    local offered
    offered=$(printf '%s\n' "${COMPREPLY[@]}" | sort | paste -sd ' ')
    number=$((number + 1))
    if [[ "$offered" == "$wanted" ]]; then
        echo "ok $number - $*"
    else
        echo "not ok $number - $*"
        echo "# offered '$offered', wanted '$wanted'"
        failed=1
    fi
}

# reads SHELL OPTION: the shell's own syntax check.
reads() {
    number=$((number + 1))
    if ! command -v "$1" > /dev/null; then
        echo "ok $number - $1 # SKIP $1 is not installed"
    elif "$1" "$2" "$folder/$1"; then
        echo "ok $number - $1"
    else
        echo "not ok $number - $1"
        failed=1
    fi
}

echo 1..11
offers "run" dllm-batch ru
offers "--gen-length" dllm-batch run --gen-l
offers "cpu cuda" dllm-batch run --backend c
offers "models" dllm-batch run -m mo
offers "prompts.jsonl" dllm-batch run -o pr
offers "" dllm-batch run --seed ""
offers "models prompts.jsonl" dllm-batch run ""
offers "" dllm-batch inspect --gen-l
offers "inspect merge plan profile replay report run verify" dllm-batch help ""
reads zsh -n
reads fish --no-execute
exit $failed
