#!/usr/bin/env python3
"""What tools/gpu-check says of programs that pass, fail, crash, hang or are not there: stand-ins
take the place of the programs, the GPU and its sanitizer. Prints TAP.

Usage: gpu_check.py
"""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAMS = ("dllm-batch", "check_ops", "golden", "forced")
GOOD = "echo ok 1 - attend; echo ok 2 - score; echo 1..2"
SKIP = "echo '1..0 # SKIP no usable GPU'"
CLEAN = """case $2 in
racecheck) echo '========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)' ;;
*) echo '========= ERROR SUMMARY: 0 errors' ;;
esac
shift 2; "$@" """
HAZARDS = """echo '========= RACECHECK SUMMARY: 10 hazards displayed (10 errors, 0 warnings)'
shift 2; "$@" """
DEAF = "echo '========= Error: cannot attach'; exit 1"
RUN = "echo 'dllm-batch: memory: 100.0 MiB = weights 90' >&2; sleep 0.2"
# Answers and a summary; the second one's answers depend on --graphs.
ANSWERS = """for argument; do
    case $last in -o) out=$argument ;; --graphs) graphs=$argument ;; esac
    last=$argument
done
echo '{"text": "a", "timing": '$RANDOM'}' >"$out"
echo '{"event": "summary", "iterations_ns": 9, "forwards": 3, "steps_replayed": 2}'"""
APART = ANSWERS.replace('"a"', '"'"'$graphs'"'"')
EAGER = ANSWERS.replace("_replayed", "_launched")
USES_102, USES_110 = "echo 102", "echo 110"

# Name; stand-ins; arguments; sections and what is said of them; exit status.
CASES = [
    ("all points", {"check_ops": GOOD}, ["ops"], ["PASS ops"], 0),
    ("a failed point", {"check_ops": "echo not ok 1; echo 1..1; exit 1"}, ["ops"], ["FAIL ops"], 1),
    ("a crash after good points", {"check_ops": "echo ok 1; kill -ABRT $$"}, ["ops"],
     ["FAIL ops"], 1),
    ("a missing plan", {"check_ops": "echo ok 1"}, ["ops"], ["FAIL ops"], 1),
    ("fewer points than planned", {"golden": "echo 1..3; echo ok 1; echo ok 2"}, ["golden"],
     ["FAIL golden"], 1),
    ("a good status without points", {"forced": "exit 0"}, ["forced"], ["FAIL forced"], 1),
    ("no GPU", {"check_ops": SKIP, "dllm-batch": "echo no; exit 69"},
     ["ops", "bench", "refresh", "memory"],
     ["NOT RUN ops", "NOT RUN bench", "NOT RUN refresh", "NOT RUN memory"], 1),
    ("a GPU that does not open", {"check_ops": SKIP, "dllm-batch": "echo no; exit 69",
                                  "nvidia-smi": USES_102}, ["ops", "bench", "refresh"],
     ["FAIL ops", "FAIL bench", "FAIL refresh"], 1),
    ("a failure hides no other section", {"check_ops": "exit 1", "forced": GOOD},
     ["ops", "forced"], ["FAIL ops", "PASS forced"], 1),
    ("sanitizers find nothing", {"compute-sanitizer": CLEAN, "check_ops": GOOD, "golden": GOOD},
     ["sanitizer"], ["PASS sanitizer"], 0),
    ("ten hazards are not none", {"compute-sanitizer": HAZARDS, "check_ops": GOOD, "golden": GOOD},
     ["sanitizer"], ["FAIL sanitizer"], 1),
    ("wrong under a sanitizer that finds nothing",
     {"compute-sanitizer": CLEAN, "check_ops": "echo not ok 1; echo 1..1; exit 1", "golden": GOOD},
     ["sanitizer"], ["FAIL sanitizer"], 1),
    ("a sanitizer that cannot attach", {"compute-sanitizer": DEAF}, ["sanitizer"],
     ["NOT RUN sanitizer"], 1),
    ("memory as printed", {"nvidia-smi": USES_102, "dllm-batch": RUN}, ["memory"],
     ["PASS memory"], 0),
    ("memory that nobody printed", {"nvidia-smi": USES_110, "dllm-batch": RUN}, ["memory"],
     ["FAIL memory"], 1),
    ("memory of a run that fails", {"nvidia-smi": USES_102, "dllm-batch": RUN + "; exit 75"},
     ["memory"], ["FAIL memory"], 1),
    ("graphs that change nothing", {"dllm-batch": ANSWERS}, ["graphs"], ["PASS graphs"], 0),
    ("graphs that change an answer", {"dllm-batch": APART}, ["graphs"], ["FAIL graphs"], 1),
    ("graphs that nothing uses", {"dllm-batch": EAGER}, ["graphs"], ["FAIL graphs"], 1),
    ("no time", {"check_ops": "echo ok 1 - early; exec sleep 30", "golden": GOOD},
     ["--minutes", "0.05", "ops", "golden"], ["NOT RUN ops", "NOT RUN golden"], 1),
]


def write_program(path, text):
    path.write_text("#!/bin/bash\n" + text + "\n")
    path.chmod(0o755)


def run_case(folder, programs, arguments):
    """Exit status, the lines after the report's last empty one, and the log."""
    for name in PROGRAMS:
        write_program(folder / name, "exit 1")
    for name, text in programs.items():
        write_program(folder / name, text)
    environment = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "OUT": str(folder / "out")}
    done = subprocess.run([sys.executable, ROOT / "tools" / "gpu-check", "--bin", folder,
                           *arguments], env=environment, stdout=subprocess.DEVNULL, timeout=60,
                          check=False)
    report = (folder / "out" / "report.txt").read_text()
    return (done.returncode, report.rpartition("\n\n")[2].splitlines(), report,
            (folder / "out" / "log.txt").read_text())


def main():
    print(f"1..{len(CASES) + 1}")
    n_failed, log = 0, ""
    for number, (what, programs, arguments, verdicts, status) in enumerate(CASES, 1):
        with tempfile.TemporaryDirectory() as folder:
            *found, report, log = run_case(pathlib.Path(folder), programs, arguments)
        ok = found == [status, verdicts]
        n_failed += not ok
        print(f"{'ok' if ok else 'not ok'} {number} - {what}")
        if not ok:
            print("\n".join(f"# {line}" for line in [str(found), *report.splitlines()]))
    is_kept = "ok 1 - early" in log  # the last case was cut off
    print(f"{'ok' if is_kept else 'not ok'} {len(CASES) + 1} - what came before the cut is kept")
    sys.exit(1 if n_failed or not is_kept else 0)


if __name__ == "__main__":
    main()
