#!/usr/bin/env python3
"""Kills runs and goes on with them: whatever happens to the process or to the end of its output, in
the end every line has exactly one answer, the one that an undisturbed run gives. And what run
refuses to go on with, or says about it. Times and tears are random; the seed is printed.

Usage: resume.py EXECUTABLE [--seed N] [--kills N]
  --kills N   only the killing, until N runs were killed and half of these outputs torn
"""

import argparse
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import time

from cases import run_cases

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROMPTS = ROOT / "data" / "prompts" / "demo.jsonl"
MODEL = ROOT / "data" / "models" / "tiny-llada"
KILLS_MIN = 64
KILLING_SECONDS_MAX = 100  # for builds with sanitizers
RUN_SECONDS_MAX = 60
STOP_SECONDS_MAX = 6  # five are promised where nothing else is at work
LOCK_DEAD_SECONDS = 120  # LOCK_DEAD_NS of src/app/lock.h


def make_lines():
    """60 lines: short prompts, settings of their own, and each kind of bad line."""
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()[:48]
    prompts = [json.loads(line) for line in lines]
    prompts += [{"id": f"count-{i}", "prompt": f"Count: {'a ' * i}"} for i in range(1, 5)]
    for i in (5, 17, 29):
        prompts[i] |= {"gen_length": 8, "seed": i, "temperature": 0.5, "threshold": 0}
    lines = [json.dumps(prompt) for prompt in prompts]
    body = {"messages": [{"role": "user", "content": "Add 1 and 2."}], "max_tokens": 16}
    batch = {"custom_id": "o1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    lines[20:20] = [
        "no JSON", '{"prompt": "Add 3 and 4."}', lines[3], "", "[1]",
        '{"id": "empty", "prompt": ""}',
        json.dumps(batch), json.dumps(batch | {"custom_id": "o2", "body": {"n": 3}}),
        json.dumps(batch),
    ]
    return lines


class Box:
    """A folder with an input, and the program in it."""

    def __init__(self, program, folder, name="out.jsonl.zst"):
        self.program, self.folder = program, folder
        self.input, self.output = folder / "in.jsonl", folder / name
        self.lock = folder / (name + ".lock")
        self.write(make_lines())

    def write(self, lines):
        self.lines = lines
        self.input.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def command(self, *options):
        words = [self.program, "run", "-m", MODEL, "--threads", "1", "--cpu-isa", "generic",
                 "-o", self.output, *options, self.input]
        return [str(word) for word in words]

    def start(self, *options):
        return subprocess.Popen(self.command(*options), stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def run(self, *options, **rest):
        """Exit status and what it said."""
        done = subprocess.run(self.command(*options), capture_output=True, text=True,
                              timeout=RUN_SECONDS_MAX, check=False, **rest)
        return done.returncode, done.stderr

    def verify(self, *options):
        """Exit status and standard output."""
        done = subprocess.run([self.program, "verify", *options, self.output],
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def text(self):
        data = self.output.read_bytes()
        if self.output.suffix == ".zst":
            done = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr
            data = done.stdout
        return data.decode()

    def records(self):
        """(header, answers by id and index, manifest); each once, in this order."""
        header, *answers, manifest = map(json.loads, self.text().splitlines())
        assert list(header) == ["header"] and list(manifest) == ["manifest"], (header, manifest)
        found = {}
        for answer in answers:
            if "header" in answer:  # of a run that was forced to go on
                continue
            key, plain = identity(answer), without_timing(answer)
            assert key not in found, f"{key} is answered twice"
            found[key] = plain
        return header["header"], found, manifest["manifest"]


def identity(answer):
    index = answer["response"]["body"]["dllm"]["index"] if "response" in answer else answer["index"]
    return answer.get("custom_id", answer.get("id")), index


def without_timing(value):
    if isinstance(value, list):
        return [without_timing(entry) for entry in value]
    if isinstance(value, dict):
        return {k: without_timing(entry) for k, entry in value.items() if k != "timing"}
    return value


def texts(answers):
    return {key[0]: answer.get("text") for key, answer in answers.items()}


def tear(path, chance):
    """What a power cut, or a disk, may leave behind the last answers; the header stays."""
    data = path.read_bytes() if path.exists() else b""
    kind = chance.randrange(4)
    if kind == 0:
        path.write_bytes(data[: max(600, len(data) - chance.randrange(1, 300))])
    elif kind == 1:
        path.write_bytes(data + bytes(chance.randrange(1, 9000)))
    elif kind == 2:
        path.write_bytes(data + chance.randbytes(chance.randrange(1, 5000)))
    else:
        cut = data[: max(600, len(data) - chance.randrange(1, 300))]
        path.write_bytes(cut + bytes(chance.randrange(1, 300)))


class Kills:
    """What was done to runs so far. `whole_s`: what an undisturbed one takes."""

    def __init__(self, seed):
        self.chance, self.whole_s = random.Random(seed), 0.0
        self.n, self.n_torn, self.n_rounds = 0, 0, 0

    def tear(self, output):
        """Every second kill in the long run leaves a broken write behind, header apart."""
        is_due = 2 * self.n_torn < self.n or self.chance.random() < 0.25
        if is_due and output.exists() and output.stat().st_size > 900:
            tear(output, self.chance)
            self.n_torn += 1


def kill_until_complete(box, options, kills):
    """Goes on with the same command until it is left to end."""
    n_before = kills.n
    while True:
        child = box.start("--window", "4", "--flush-every", "0.01", *options)
        try:
            share = kills.chance.uniform(0.02, 0.25) * 1.02 ** (kills.n - n_before)
            child.wait(share * kills.whole_s)
        except subprocess.TimeoutExpired:
            child.kill()
        message = child.communicate()[1]
        if child.returncode != -signal.SIGKILL:
            assert child.returncode == 1, (child.returncode, message)
            return
        kills.n += 1
        kills.tear(box.output)


# ---- the checks: each gets the program, a folder of its own and the options ----


def check_kills(program, folder, options):
    """killed and torn at random, runs still end with the answers of an undisturbed one"""
    kills, n_least = Kills(options.seed), options.kills or KILLS_MIN
    box = Box(program, folder, "whole.jsonl")
    begin = time.monotonic()
    assert box.run("--window", "4", "--flush-every", "0.01")[0] == 1
    kills.whole_s = time.monotonic() - begin
    _, expected, manifest = box.records()
    assert manifest["verdict"] == "complete" and manifest["resumed"] == 0, manifest
    assert len(expected) == manifest["lines"] == 60, manifest
    assert manifest["answered"] == sum("error" not in a or a["error"] is None
                                       for a in expected.values())
    rounds = [("a.jsonl.zst", []), ("b.jsonl", []), ("c.jsonl.zst", ["--ordered"])]
    while kills.n < n_least or options.kills and 2 * kills.n_torn < n_least:
        if not options.kills and time.monotonic() > begin + KILLING_SECONDS_MAX:
            break
        name, words = rounds[kills.n_rounds % len(rounds)]
        box = Box(program, folder, f"{kills.n_rounds}{name}")
        kill_until_complete(box, words, kills)
        kills.n_rounds += 1
        _, answers, manifest = box.records()
        assert answers == expected, f"round {kills.n_rounds}: {set(answers) ^ set(expected)}"
        assert manifest["verdict"] == "complete" and manifest["lines"] == 60, manifest
        before = box.output.read_bytes()
        status, message = box.run()
        assert status == 1 and "nothing is left to do" in message, message
        assert box.output.read_bytes() == before, "a run without work changed the file"
    print(f"# {kills.n} kills, {kills.n_torn} of them torn, in {kills.n_rounds} rounds and "
          f"{time.monotonic() - begin:.0f} s, seed {options.seed}")


def check_stop(program, folder, _options):
    """SIGTERM ends with a manifest that says incomplete, and the same command goes on"""
    box = Box(program, folder)
    child = box.start("--window", "2", "--flush-every", "0")
    while not box.output.exists() or box.output.stat().st_size < 900:
        time.sleep(0.002)
    child.terminate()
    message = child.communicate()[1]
    assert child.returncode == 75 and "the same command goes on" in message, message
    _, answers, manifest = box.records()
    assert 0 < manifest["lines"] == len(answers) < 60, manifest
    assert manifest["verdict"] == "incomplete", manifest
    n_first = manifest["lines"]
    status, message = box.run("--log-format", "json", "--progress", "never")
    assert status == 1, message
    _, answers, manifest = box.records()
    assert len(answers) == manifest["lines"] == 60 and manifest["resumed"] == n_first, manifest
    assert manifest["verdict"] == "complete"
    summary = json.loads(message.splitlines()[-1])
    assert summary["resumed"] == n_first and summary["requests"] == 60 - n_first, summary


LONG = {"prompt_token_ids": [5] * 1500, "gen_length": 500, "block_length": 500, "steps": 500}


def start_long(box, *options):
    """A run whose every iteration takes long, once its first one is at work; lines that failed are
    done before."""
    box.write(["bad", *(json.dumps(LONG | {"id": f"long-{i}"}) for i in range(40)), "worse"])
    child = box.start("--backend", "ref", "--rows", "16384", "--progress", "never", "--flush-every",
                      "3600", *options)
    while not box.output.exists() or box.output.stat().st_size < 100:
        time.sleep(0.002)
    time.sleep(1)
    return child


def check_five_seconds(program, folder, _options):
    """a signal ends even an iteration that takes longer within five seconds, and all is safe"""
    box = Box(program, folder)
    for options in ([], ["--ordered"]):
        child = start_long(box, *options)
        child.send_signal(signal.SIGUSR2)
        while "2 lines, 2 failed" not in (line := child.stderr.readline()):
            assert line, "USR2 was not answered during the iteration"
        begin = time.monotonic()
        child.terminate()
        message = child.communicate()[1]
        took_s = time.monotonic() - begin
        assert child.returncode == 75 and "stopped; lines done: 2" in message, message
        assert 3 < took_s < STOP_SECONDS_MAX, took_s
        assert not box.lock.exists()
        header, *answers = map(json.loads, box.text().splitlines())
        assert "header" in header and [a["error"]["line"] for a in answers] == [1, 42], answers
        box.output.unlink()


def check_second_signal(program, folder, _options):
    """a second signal ends the run at once"""
    box = Box(program, folder)
    child = start_long(box)
    child.terminate()
    time.sleep(0.2)
    begin = time.monotonic()
    child.send_signal(signal.SIGINT)
    assert child.wait() == 128 + signal.SIGINT and time.monotonic() - begin < 1
    child.communicate()
    box.write(box.lines[:1])
    assert box.run()[0] == 1 and len(box.records()[1]) == 1


def check_time_limit(program, folder, _options):
    """a run stops before its time is over, by an option or the job's end, and is gone on with"""
    box = Box(program, folder)
    slow = [json.dumps(json.loads(line) | {"steps": 32, "threshold": 0})
            for line in PROMPTS.read_text(encoding="utf-8").splitlines()[:20]]
    box.write([json.dumps(json.loads(line) | {"id": f"{i}-{n}"})
               for n, line in enumerate(slow) for i in range(200)])
    for options, job_end, origin in ((["--time-limit", "2s"], None, "--time-limit"),
                                     ([], 3, "SLURM_JOB_END_TIME")):
        ends = {"SLURM_JOB_END_TIME": str(int(time.time()) + job_end)} if job_end else {}
        begin = time.monotonic()
        status, message = box.run("--window", "64", *options, env=os.environ | ends)
        took_s = time.monotonic() - begin
        assert status == 75 and f"stopped by {origin}; lines done: " in message, message
        assert 0.7 < took_s < 4, took_s
        _, answers, manifest = box.records()
        assert manifest["verdict"] == "incomplete" and 0 < len(answers) < 4000, manifest
    assert manifest["resumed"] > 0, manifest
    child = start_long(Box(program, folder, "long.jsonl"), "--time-limit", "4")
    assert "stopped by --time-limit" in child.communicate()[1] and child.returncode == 75


def check_failures_count(program, folder, _options):
    """lines that failed before count in the exit status of a run without work"""
    box = Box(program, folder)
    box.write(box.lines[:8])
    assert box.run()[0] == 0
    status, message = box.run()
    assert status == 0 and "nothing is left to do" in message, message
    status, message = box.run("-v")
    assert status == 0 and "memory: " not in message, "a model was loaded to see it"
    box.write(box.lines + ["bad"])
    assert box.run()[0] == 1
    box.write(box.lines[:8] + ["bad", *make_lines()[8:10]])
    assert box.run()[0] == 1
    assert len(box.records()[1]) == 11


def check_settings(program, folder, _options):
    """a changed setting is refused by name; -f begins anew, --resume=force goes on"""
    box = Box(program, folder)
    assert box.run("--limit", "10", "--threshold", "0.9")[0] == 0
    before = box.output.read_bytes()
    status, message = box.run("--threshold", "0.8")
    assert status == 64 and "was begun with --threshold 0.9, now 0.8; -f begins anew" in message
    status, message = box.run("--threshold", "0.9", "--no-chat")
    assert status == 64 and "begun without --no-chat, now with it" in message, message
    assert box.output.read_bytes() == before, "a refused run changed the file"
    assert box.run("--threshold", "0.9", "--rows", "256", "--limit", "11")[0] == 0
    assert box.run("--threshold", "0.8", "--resume", "force", "--limit", "12")[0] == 0
    header, answers, manifest = box.records()
    assert len(answers) == 12 and header["settings"] == {"threshold": "0.9"}
    assert manifest["resumed"] == 11, manifest
    headers = [json.loads(line)["header"]["settings"] for line in box.text().splitlines()
               if line.startswith('{"header"')]
    assert [settings["threshold"] for settings in headers] == ["0.9", "0.8"], headers
    status, said = box.verify("--json")
    assert status == 0 and json.loads(said)["forced"] == 1, said
    assert "was begun with --threshold 0.8, before 0.9" in box.verify()[1]
    # From here on the later settings are those of the file.
    assert box.run("--threshold", "0.8", "--limit", "13")[0] == 0
    status, message = box.run("--threshold", "0.9")
    assert status == 64 and "was begun with --threshold 0.8, now 0.9" in message, message
    merged = folder / "merged.jsonl"
    done = subprocess.run([program, "merge", "-o", merged, box.output], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 65 and "answers of both kinds are not merged" in done.stderr
    assert box.run("--threshold", "0.8", "-f", "--limit", "3")[0] == 0
    header, answers, _ = box.records()
    assert len(answers) == 3 and header["settings"] == {"threshold": "0.8"}


def check_lines(program, folder, _options):
    """a changed line is refused with its place, unless forced; grown and re-ordered input is not"""
    box = Box(program, folder)
    prompts = [line for line in make_lines() if line.startswith('{"id"')][:12]
    box.write(prompts[:6])
    assert box.run()[0] == 0
    first = box.records()[1]
    box.write(prompts[11:5:-1] + prompts[5::-1])
    status, message = box.run()
    assert status == 0 and "has the answers to 6 lines already" in message, message
    second = texts(box.records()[1])
    assert len(second) == 12
    assert all(second[key[0]] == answer["text"] for key, answer in first.items())
    changed = json.loads(prompts[2])
    box.write([*prompts[:2], json.dumps(changed | {"prompt": "Add 1 and 1."}), *prompts[3:]])
    before = box.output.read_bytes()
    status, message = box.run()
    assert status == 65 and f"in.jsonl:3: " in message and changed["id"] in message, message
    assert box.output.read_bytes() == before, "a refused run changed the file"
    status, message = box.run("--resume=force")
    assert status == 0 and "nothing is left" in message, message
    assert texts(box.records()[1]) == second


def check_foreign(program, folder, _options):
    """files of others are refused; empty ones and those torn inside the header are ours"""
    box = Box(program, folder)
    box.write(box.lines[:4])
    foreign = subprocess.run(["zstd", "-qc", box.input], capture_output=True, check=True).stdout
    box.run("-f")
    whole = box.output.read_bytes()
    plain = subprocess.run(["zstd", "-dqc"], input=whole, capture_output=True, check=True).stdout
    wide = subprocess.run(["zstd", "-qc", "--long=31"], input=plain, capture_output=True,
                          check=True).stdout
    for content in (b"precious", foreign, foreign[:99], b"\x1f\x8b\x08", plain, wide,
                    bytes(30) + b"x"):
        box.output.write_bytes(content)
        for options in ([], ["--resume=force"]):
            status, message = box.run(*options)
            assert status == 73 and "exists already; use -f to overwrite it" in message, message
        assert box.output.read_bytes() == content
    assert box.run("-f")[0] == 0
    whole = box.output.read_bytes()
    expected = box.records()[1]
    for content in (b"", whole[:2], whole[:8], whole[:10] + bytes(9), whole[:24], whole[:27],
                    whole[:60], whole[:120], bytes(300), whole[:60] + bytes(40)):
        box.output.write_bytes(content)
        status, message = box.run()
        assert status == 0, message
        assert box.records()[1] == expected


def check_damage(program, folder, _options):
    """damage before whole answers is refused with its byte, and cut there by force"""
    box = Box(program, folder)
    box.write(make_lines()[:12])
    assert box.run("--flush-every", "0", "--window", "2")[0] == 0
    expected = box.records()[1]
    damaged = bytearray(box.output.read_bytes())
    damaged[len(damaged) // 2] ^= 0x55
    box.output.write_bytes(damaged)
    status, message = box.run()
    assert status == 65 and "is damaged at byte" in message and "--resume=force" in message, message
    assert box.output.read_bytes() == damaged, "a refused run changed the file"
    status, message = box.run("--resume=force")
    assert status == 0 and "left from a broken write" in message, message
    assert box.records()[1] == expected


def check_twice(program, folder, _options):
    """an answer that is there twice is told, not taken; merge keeps one"""
    box = Box(program, folder, "out.jsonl")
    box.write(make_lines()[:4])
    assert box.run("-q")[0] == 0
    lines = box.text().splitlines(keepends=True)
    box.output.write_text("".join(lines[:-1] + lines[2:3] + lines[-1:]), encoding="utf-8")
    status, message = box.run()
    assert status == 65 and "holds answers to what has one already: 1" in message, message
    assert box.verify()[0] == 65
    done = subprocess.run([program, "merge", "-o", folder / "one.jsonl", box.output], check=True,
                          capture_output=True, text=True)
    assert "kept once: 1" in done.stderr, done
    box.output = folder / "one.jsonl"
    assert box.verify("--against", box.input)[0] == 0
    status, message = box.run()
    assert status == 0 and "nothing is left to do" in message, message


def check_full_disk(program, folder, _options):
    """a full disk says how many answers are safe, and the run goes on when there is room"""
    for name in ("full.jsonl.zst", "full.jsonl"):
        box = Box(program, folder, name)

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

        status, message = box.run("--window", "4", "--flush-every", "0", preexec_fn=limit,
                                  restore_signals=False)
        assert status == 74 and "writing " in message, (status, message)
        n_safe = int(message.split("lines that are safe in it: ")[1].split(",")[0])
        assert box.output.stat().st_size == 6000, (box.output.stat(), message)
        status, message = box.run()
        assert status == 1, message
        assert f"has the answers to {n_safe} lines already" in message, (n_safe, message)
        assert len(box.records()[1]) == 60


def check_pipes(program, folder, _options):
    """standard output, pipes and devices get lines of answers only"""
    box = Box(program, folder)
    box.write(make_lines()[:3])
    command = [*box.command("-q", "--no-compress")]
    command[command.index("-o") + 1] = "-"
    with open(folder / "redirected", "wb") as target:
        subprocess.run(command, stdout=target, check=True)
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    for text in ((folder / "redirected").read_text(), piped.decode()):
        assert ["id" in json.loads(line) for line in text.splitlines()] == 3 * [True]


def check_strict_and_preview(program, folder, _options):
    """--dry-run changes nothing, --strict checks answered lines as well"""
    box = Box(program, folder)
    box.write(make_lines()[:6])
    assert box.run("--limit", "3", "--strict")[0] == 0
    before = box.output.read_bytes()
    assert box.run("--dry-run", "--threshold", "0.1")[0] == 0
    assert box.output.read_bytes() == before
    box.write([*make_lines()[:6], "bad"])
    assert box.run("--strict")[0] == 65
    assert box.output.read_bytes() == before
    box.write(make_lines()[:6])
    assert box.run("--strict")[0] == 0
    assert len(box.records()[1]) == 6


def check_two(program, folder, _options):
    """while one run writes the output, a second is refused and leaves it alone"""
    box = Box(program, folder)
    child = box.start("--window", "1", "--flush-every", "0", "--cache", "none", "--threshold", "0")
    while not box.output.exists() or box.output.stat().st_size < 600:
        time.sleep(0.002)
    owner = json.loads(box.lock.read_text())
    assert owner["pid"] == child.pid and owner["host"] == socket.gethostname(), owner
    for options in ([], ["-f"]):
        status, message = box.run("--cache", "none", "--threshold", "0", *options)
        assert status == 73 and "is being written by another run" in message, message
        assert f"pid {child.pid}" in message, message
    assert child.communicate() and child.returncode == 1
    assert not box.lock.exists(), "the lock outlived its run"
    assert len(box.records()[1]) == 60


def check_dead_owner(program, folder, _options):
    """a killed run leaves its lock, a stopped one does not, and both are gone on with at once"""
    box = Box(program, folder)
    for number, is_left in ((signal.SIGKILL, True), (signal.SIGTERM, False)):
        child = box.start("--window", "1", "--flush-every", "0")
        while not box.output.exists() or box.output.stat().st_size < 700:
            time.sleep(0.002)
        child.send_signal(number)
        child.communicate()
        assert box.lock.exists() == is_left, number
        begin = time.monotonic()
        status, message = box.run("--limit", "8")
        assert status == 0 and "waiting" not in message, message
        assert time.monotonic() - begin < LOCK_DEAD_SECONDS / 4
        box.output.unlink()
    assert [path.name for path in folder.iterdir()] == ["in.jsonl"]


def check_other_host(program, folder, _options):
    """another host's run is waited for until it is known to be alive or dead; signals end that"""
    box = Box(program, folder)
    box.write(box.lines[:4])
    owner = {"pid": 41, "start_ticks": 5, "host": "moon", "boot": "b", "pid_space": "p",
             "job": "sun:7"}

    def lock(age_s, **facts):
        box.lock.write_text(json.dumps(owner | facts) + "\n")
        os.utime(box.lock, (time.time() - age_s,) * 2)

    lock(10_000)
    takeover = pathlib.Path(f"{box.lock}.takeover")
    takeover.write_text(json.dumps(owner) + "\n")
    os.utime(takeover, (time.time() + 86_400,) * 2)
    child = box.start("--limit", "1")
    said = child.stderr.readline()
    assert "waiting for the run that takes the lock over (host moon" in said, said
    child.send_signal(signal.SIGTERM)
    assert child.wait(STOP_SECONDS_MAX) == 75, child.returncode
    takeover.unlink()
    status, message = box.run("--limit", "1")
    assert status == 0 and "waiting" not in message, message
    lock(LOCK_DEAD_SECONDS - 3)
    status, message = box.run("--limit", "2")
    assert status == 0 and "locked by another run (host moon, pid 41, job sun:7)" in message
    assert "waiting up to 3 s" in message or "waiting up to 4 s" in message, message
    lock(60)
    child = box.start()
    assert "waiting up to" in child.stderr.readline()
    os.utime(box.lock)
    assert "is being written by another run: host moon, pid 41" in child.communicate()[1]
    assert child.returncode == 73
    lock(60)
    child = box.start()
    assert "waiting up to" in child.stderr.readline()
    child.terminate()
    assert "stopped while waiting" in child.communicate()[1] and child.returncode == 75
    slurm = {"SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "sun", "SLURM_RESTART_COUNT": "1"}
    status, message = box.run(env=os.environ | slurm)
    assert status == 0 and "waiting" not in message, message
    assert len(box.records()[1]) == 4 and not box.lock.exists()


def check_backend(program, folder, _options):
    """another backend goes on, with a note"""
    box = Box(program, folder)
    box.write(make_lines()[:4])
    assert box.run("--limit", "2")[0] == 0
    status, message = box.run("--backend", "ref")
    assert status == 0 and "was begun by dllm-batch" in message and "on cpu generic" in message
    assert len(box.records()[1]) == 4


CHECKS = [check_kills, check_stop, check_five_seconds, check_second_signal,
          check_time_limit, check_failures_count, check_settings, check_lines, check_foreign,
          check_damage, check_twice, check_full_disk, check_pipes, check_strict_and_preview,
          check_two, check_dead_owner, check_other_host, check_backend]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    program, checks = options.program.resolve(), CHECKS[:1] if options.kills else CHECKS
    os.environ.pop("DLLM_BATCH_MODEL", None)
    if shutil.which("zstd") is None:
        print("1..0 # SKIP without zstd")
        return
    run_cases(checks, program, options)


if __name__ == "__main__":
    main()
