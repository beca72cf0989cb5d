#!/usr/bin/env python3
"""Splits outputs of run into shards and joins them again: merged lines are those of the whole, byte
for byte and in the input's order, verify and run accept the file, and neither verify nor merge
takes memory for the answers. Splits are random; the seed is printed.

Usage: merges.py EXECUTABLE [SEED]
"""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

from cases import run_cases
from resume import Box, identity, make_lines

N_SHARDS, N_ROUNDS = 5, 6
N_MANY, MANY_TEXT = 200_000, "an answer of many words " * 40
# Caches, 24 bytes a line, the program and its libraries; a sanitizer's shadow fits, too.
MEMORY_BYTES_MAX = 160 << 20
SECONDS_MAX = 300


def call(program, *words):
    """Exit status and what it said."""
    done = subprocess.run([str(word) for word in (program, *words)], capture_output=True, text=True,
                          timeout=SECONDS_MAX, check=False)
    return done.returncode, done.stdout + done.stderr


def call_measured(program, *words):
    """The same, without what it said but with the most memory it had, in bytes."""
    sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
    child = subprocess.Popen([str(word) for word in (program, *words)], stdout=subprocess.DEVNULL,
                             env=os.environ | {"ASAN_OPTIONS": sanitizer})
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, usage.ru_maxrss * 1024


def packed(text):
    return subprocess.run(["zstd", "-qc"], input=text.encode(), capture_output=True,
                          check=True).stdout


def write_shard(path, header, lines, chance):
    """A finished output: plain, or in frames of one to four lines, or in one frame."""
    manifest = json.dumps({"manifest": {"verdict": "complete", "lines": len(lines)}})
    groups = [header, *lines, manifest]
    if path.suffix != ".zst":
        path.write_text("".join(group + "\n" for group in groups), encoding="utf-8")
        return
    n = chance.choice([1, 4, len(groups)])
    parts = ["\n".join(groups[i : i + n]) + "\n" for i in range(0, len(groups), n)]
    path.write_bytes(b"".join(map(packed, parts)))


def check_splits(program, folder, seed):
    """split at random and merged, an output is the whole in order, and run and verify accept it"""
    chance = random.Random(seed)
    box = Box(program, folder, "whole.jsonl")
    assert box.run("--window", "8")[0] == 1
    header, *lines, _ = box.text().splitlines()
    ordered = sorted(lines, key=lambda line: identity(json.loads(line))[1])
    assert len(lines) == 60
    for number in range(N_ROUNDS):
        shards = [[] for _ in range(N_SHARDS)]
        for line in lines:
            shards[chance.randrange(N_SHARDS)].append(line)
        paths = [folder / f"{number}-{i}.jsonl{chance.choice(['', '.zst'])}"
                 for i in range(N_SHARDS)]
        for path, shard in zip(paths, shards):
            write_shard(path, header, shard, chance)
        assert call(program, "verify", *paths, "--against", box.input)[0] == 1
        box.output = folder / f"{number}.jsonl{chance.choice(['', '.zst'])}"
        status, message = call(program, "merge", "-o", box.output, *paths)
        assert status == 1 and "merged 60 lines of 5 files" in message, message
        first, *merged, _ = box.text().splitlines()
        assert first == header and merged == ordered, number
        _, answers, manifest = box.records()
        assert manifest["lines"] == len(answers) == 60 and manifest["verdict"] == "complete"
        status, message = call(program, "verify", box.output, "--against", box.input)
        assert status == 1 and "verdict: complete, with error lines" in message, message
        status, message = box.run()
        assert status == 1 and "nothing is left to do" in message, message
        status, printed = call(program, "merge", "-q", "--no-compress", "-o", "-", box.output)
        assert status == 1 and printed.splitlines() == ordered
    print(f"# {N_ROUNDS} splits, seed {seed}")


def check_parts(program, folder, _seed):
    """runs of parts of an input are joined, and lines that two of them computed are kept once"""
    parts = []
    for name, limit in (("few.jsonl.zst", 20), ("more.jsonl", 33)):
        box = Box(program, folder, name)
        assert box.run("--limit", limit)[0] in (0, 1)
        parts.append(box.output)
    box.output = folder / "joined.jsonl.zst"
    status, message = call(program, "verify", *parts)
    assert status == 65 and "duplicate             20" in message, message
    status, message = call(program, "merge", "-o", box.output, *parts)
    assert status in (0, 1) and "more than once, and are kept once: 20" in message, message
    status, message = call(program, "verify", box.output, "--against", box.input, "--limit", "33")
    assert status in (0, 1), message
    status, message = call(program, "verify", box.output, "--against", box.input)
    assert status == 75 and "missing               27" in message, message
    assert box.run()[0] == 1
    assert call(program, "verify", box.output, "--against", box.input)[0] == 1
    assert len(box.records()[1]) == len([line for line in make_lines() if line])


def check_memory(program, folder, seed):
    """two hundred thousand long answers are verified and merged in the memory of a few"""
    chance = random.Random(seed)
    start = {"format": 1, "program": "p", "model": {"name": "m", "hash": "0"}, "settings": {}}
    header = json.dumps({"header": start})
    paths = [folder / f"{i}.jsonl" for i in range(3)]
    indices = [list(range(i, N_MANY, 3)) for i in range(3)]
    for path, mine in zip(paths, indices):
        for i in range(0, len(mine), 500):  # the order of completion
            mine[i : i + 500] = chance.sample(mine[i : i + 500], len(mine[i : i + 500]))
        with open(path, "w", encoding="utf-8") as file:
            print(header, file=file)
            for i in mine:
                print(f'{{"id":"n{i}","index":{i},"line_hash":"{i:016x}","text":"{MANY_TEXT}"}}',
                      file=file)
            print(json.dumps({"manifest": {"verdict": "complete", "lines": len(mine)}}), file=file)
    packed_path, merged = folder / "0.jsonl.zst", folder / "merged.jsonl"
    status, message = call(program, "merge", "-q", "-o", packed_path, paths[0])
    assert status == 0, (status, message)
    for words in (["verify", *paths], ["merge", "-q", "-o", merged, packed_path, *paths[1:]]):
        status, n_bytes = call_measured(program, *words)
        assert status == 0 and n_bytes < MEMORY_BYTES_MAX, (words[0], status, n_bytes)
        print(f"# {words[0]}: {n_bytes >> 20} MiB at most")
    with open(merged, encoding="utf-8") as file:
        assert json.loads(next(file)) == json.loads(header)
        for i in range(N_MANY):
            assert next(file).startswith(f'{{"id":"n{i}","index":{i},'), i


CHECKS = [check_splits, check_parts, check_memory]


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    os.environ.pop("DLLM_BATCH_MODEL", None)
    if shutil.which("zstd") is None:
        print("1..0 # SKIP without zstd")
        return
    run_cases(CHECKS, program, seed)


if __name__ == "__main__":
    main()
