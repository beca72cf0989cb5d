#!/usr/bin/env python3
"""Lets system calls and allocations of `run`, `merge` and `verify` fail one at a time
(tests/faults.c, by LD_PRELOAD): whatever fails, the process does not crash, says so by its exit
status unless every answer is there, leaves what was in the file, and the same command ends with the
answers of an undisturbed run. Interrupted calls and short counts must not be seen at all. Many
calls are sampled evenly; the seed is printed.

Usage: faults.py EXECUTABLE LIBRARY [--seed N] [--memory N]
"""

import argparse
import errno
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

from resume import Box

FRAME = b"\x28\xb5\x2f\xfd"
FULL_DISK = [errno.ENOSPC, errno.EIO, errno.EDQUOT]
# What the exit status may be, and the errors that are tried; 0 is only for complete answers.
CALLS = {
    "write": ({74}, FULL_DISK),
    "pwrite": ({74}, FULL_DISK),
    "fsync": ({0, 74}, FULL_DISK),  # 0: of the folder, where not all file systems can
    "ftruncate": ({73}, FULL_DISK),
    "rename": ({73, 74}, FULL_DISK),
    "link": ({0, 73, 74}, FULL_DISK),
    "open": ({0, 66, 73, 74}, [*FULL_DISK, errno.EACCES]),  # 0: what it can do without
    "mmap": ({66, 69}, [*FULL_DISK, errno.ENOMEM]),
    "read": ({0, 66, 74}, [errno.EIO]),  # 0: facts of a lock that it can do without
    "pread": ({66, 74}, [errno.EIO]),
    "close": ({0, 74}, [errno.EIO]),
}
STATUS_OF_MEMORY = {0, 69}
INTERRUPTED = ["read", "pread", "write", "pwrite", "fsync", "ftruncate", "open", "close"]
SHORT = ["read", "pread", "write", "pwrite"]
# CUDA's runtime, which --backend auto asks for a device, crashes where it gets no memory.
OPTIONS = ["--window", "2", "--flush-every", "0.01", "--progress", "never", "--backend", "cpu"]


def make_lines():
    """Six lines that all can be answered, in both forms."""
    lines = [json.dumps({"id": f"p{i}", "prompt": f"Add {i} and 2.", "gen_length": 8})
             for i in range(5)]
    body = {"messages": [{"role": "user", "content": "Add 1 and 2."}], "max_tokens": 8}
    lines.append(json.dumps({"custom_id": "o", "method": "POST", "url": "/v1/chat/completions",
                             "body": body}))
    return lines


class Scene:
    """A run from a given state of the output, and how its calls are made to fail."""

    def __init__(self, program, library, folder, name):
        self.box = Box(program, folder, name)
        self.box.write(make_lines())
        self.report, self.library = folder / "report", library
        self.before, self.kept, self.n_faults = None, b"", 0
        assert self.box.run(*OPTIONS)[0] == 0
        self.expected = self.box.records()[1]
        self.box.output.unlink()

    def tear(self):
        """Lets runs begin with answers to half of the lines and a broken write behind them."""
        output = self.box.output
        assert self.box.run(*OPTIONS, "--limit", "3")[0] == 0
        whole = output.read_bytes()
        end = whole.rfind(FRAME) if output.suffix == ".zst" else whole.rfind(b"\n", 0, -1) + 1
        self.kept = whole[:end]
        self.before = self.kept + whole[end : end + 30] + bytes(20)

    def reset(self):
        self.box.output.unlink(missing_ok=True)
        if self.before is not None:
            self.box.output.write_bytes(self.before)

    def run(self, **faults):
        """Exit status and message of a run from the start, with these faults."""
        self.reset()
        self.report.unlink(missing_ok=True)
        return self.box.run(*OPTIONS, env=self.environment(**faults))

    def environment(self, **faults):
        names = {f"FAULTS_{name.upper()}": str(value) for name, value in faults.items()}
        names |= {"LD_PRELOAD": str(self.library), "FAULTS_REPORT": str(self.report)}
        return os.environ | names

    def counts(self):
        """How often an undisturbed run calls each kind."""
        self.run()
        return self.read_report()

    def read_report(self):
        lines = self.report.read_text(encoding="ascii").splitlines()
        return {kind: int(n) for kind, n in map(str.split, lines)}

    def check_fault(self, statuses, **faults):
        """One call fails: then what is promised holds."""
        status, message = self.run(**faults)
        self.n_faults += 1
        what = f"{self.box.output.name} {faults}: status {status}: {message.strip()}"
        # Later flushes depend on the time that it takes: then there was no such call.
        if status == 0 and self.read_report()["failed"] == 0:
            statuses = {0}
        assert status in statuses, what
        assert status == 0 or "error: " in message, f"no message: {what}"
        if status == 0:
            assert self.box.records()[1] == self.expected, f"answers are missing: {what}"
            return
        if self.before is not None:
            assert self.box.output.read_bytes().startswith(self.kept), f"answers are lost: {what}"
        status, after = self.box.run(*OPTIONS)
        assert status == 0, f"{what}\nthen: {status}: {after}"
        assert self.box.records()[1] == self.expected, f"other answers: {what}"
        if "safe in it: " in message:
            n_safe = int(message.split("safe in it: ")[1].split(",")[0])
            found = re.search(r"the answers to (?:all )?(\d+) lines", after)
            n_found = int(found.group(1)) if found else 0
            # What was written, but not synced, may be there.
            assert n_found >= n_safe, f"{n_safe} were safe: {what}\nthen: {after}"


def spread(n, n_most, chance):
    """At most `n_most` of 1 .. n, evenly, from a random start."""
    if n <= n_most:
        return list(range(1, n + 1))
    stride = n / n_most
    start = chance.random() * stride
    return [1 + int(start + i * stride) for i in range(n_most)]


# ---- the checks ----


def check_unseen(scene, counts, _options, _chance):
    """interrupted calls and short counts are not seen"""
    for kind in INTERRUPTED:
        for nth in range(1, counts[kind] + 1):
            scene.check_fault({0}, kind=kind, nth=nth, errno=errno.EINTR)
    for kind in SHORT:
        for nth in range(1, counts[kind] + 1):
            scene.check_fault({0}, kind=kind, nth=nth, errno=0)


def check_calls(scene, counts, _options, _chance):
    """each call fails in turn: the status tells, and the same command goes on"""
    for kind, (statuses, errors) in CALLS.items():
        for nth in range(1, counts[kind] + 1):
            # Elsewhere an error is as good as another.
            chosen = errors if kind in ("write", "fsync") else [errors[nth % len(errors)]]
            for error in chosen:
                scene.check_fault(statuses, kind=kind, nth=nth, errno=error)


def check_output(scene, counts, _options, _chance):
    """a disk that stays full, from each call on the output on"""
    for kind in ("write", "fsync", "open"):
        for nth in range(1, counts[kind] + 1):
            scene.check_fault({0, 66, 73, 74}, kind=kind, nth=nth, errno=errno.ENOSPC, sticky=1,
                              path=scene.box.output.name)


def check_memory(scene, counts, options, chance):
    """each allocation fails in turn: no crash, and the same command goes on"""
    for nth in spread(counts["memory"], options.memory, chance):
        scene.check_fault(STATUS_OF_MEMORY, kind="memory", nth=nth)


def check_commands(scene, _counts, options, chance):
    """merge and verify: shards stay, no output is taken for whole, and the status tells"""
    box, folder = scene.box, scene.box.folder
    box.output.unlink(missing_ok=True)
    for i in range(2):
        assert box.run(*OPTIONS, "--shard", f"{i}/2")[0] == 0
    shards = sorted(folder.glob("fresh.*-of-*.zst"))
    assert len(shards) == 2
    kept = [path.read_bytes() for path in shards]
    merged = folder / "merged.jsonl.zst"
    merge = [box.program, "merge", "-q", "-f", "-o", merged, *shards]
    verify = [box.program, "verify", *shards, "--against", box.input]

    def call(command, **faults):
        scene.report.unlink(missing_ok=True)
        done = subprocess.run([str(word) for word in command], env=scene.environment(**faults),
                              capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    for command in (merge, verify):
        merged.unlink(missing_ok=True)
        status, message = call(command)
        assert status == 0, f"{command[1]}: status {status}: {message}"
        whole = merged.read_bytes() if command is merge else b""
        counts = scene.read_report()
        cases = [(kind, nth, error) for kind, (_, errors) in CALLS.items()
                 for nth in range(1, counts[kind] + 1) for error in errors[:2]]
        cases += [("memory", nth, 0) for nth in spread(counts["memory"], options.memory, chance)]
        for kind, nth, error in cases:
            status, message = call(command, kind=kind, nth=nth, errno=error)
            scene.n_faults += 1
            what = f"{command[1]} {kind} {nth} {error}: status {status}: {message.strip()}"
            assert [path.read_bytes() for path in shards] == kept, f"a shard was changed: {what}"
            if status == 0:  # it did not matter: the same bytes, or a verdict by what was read
                assert command is verify or merged.read_bytes() == whole, what
                continue
            assert status in (66, 69, 73, 74), what
            assert "error: " in message, f"no message: {what}"
            assert "verdict: complete" not in message or kind == "write", what
            if command is merge and merged.exists():
                after, _ = call([box.program, "verify", merged])
                assert after != 0 or merged.read_bytes() == whole, what
        status, message = call(command)
        assert status == 0, f"{command[1]}: status {status}: {message}"


CHECKS = [check_unseen, check_calls, check_output, check_memory]
SCENES = [("fresh.jsonl.zst", False), ("torn.jsonl.zst", True), ("torn.jsonl", True)]


def make_scene(program, library, folder, place):
    name, is_torn = place
    scene = Scene(program, library, folder, name)
    if is_torn:
        scene.tear()
    return scene, scene.counts()


def run_check(number, check, options, place):
    """One line of TAP; true: it failed."""
    program, library = options.program.resolve(), options.library.resolve()
    problem, begin, scene = None, time.monotonic(), None
    with tempfile.TemporaryDirectory(prefix="dllm-faults-") as folder:
        try:
            scene, counts = make_scene(program, library, pathlib.Path(folder), place)
            check(scene, counts, options, random.Random(options.seed))
        except (AssertionError, KeyError, ValueError, OSError,
                subprocess.SubprocessError) as failure:
            problem = failure
    name = f"{place[0]}: {check.__doc__}"
    print(f"{'ok' if problem is None else 'not ok'} {number} - {name}")
    n_faults = scene.n_faults if scene is not None else 0
    print(f"# {n_faults} faults in {time.monotonic() - begin:.1f} s", flush=True)
    if problem is not None:
        print("# " + f"{type(problem).__name__}: {str(problem)[:2000]}".replace("\n", "\n# "))
    return problem is not None


def is_loaded(program, library):
    """Whether the program takes the library."""
    with tempfile.TemporaryDirectory(prefix="dllm-faults-") as folder:
        report = pathlib.Path(folder) / "report"
        names = {"LD_PRELOAD": str(library), "FAULTS_REPORT": str(report)}
        subprocess.run([program, "--version"], env=os.environ | names, capture_output=True,
                       check=False)
        return report.exists()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", type=int, default=100, help="allocations that fail, per scene")
    options = parser.parse_args()
    os.environ.pop("DLLM_BATCH_MODEL", None)
    if shutil.which("zstd") is None:
        print("1..0 # SKIP without zstd")
        return
    if not is_loaded(options.program.resolve(), options.library.resolve()):
        print("1..0 # SKIP the program takes no LD_PRELOAD: static, or with sanitizers")
        return
    runs = [(check, place) for place in SCENES for check in CHECKS]
    runs.append((check_commands, SCENES[0]))
    print(f"1..{len(runs)}")
    print(f"# seed {options.seed}")
    n_failed = sum(run_check(number, check, options, place)
                   for number, (check, place) in enumerate(runs, 1))
    sys.exit(1 if n_failed else 0)


if __name__ == "__main__":
    main()
