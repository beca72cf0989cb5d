#!/usr/bin/env python3
"""Runs the program as a user does and compares all it says, to the letter.

A case is NAME.args (one argument a line) or NAME.sh (a bash script, for pipelines and preparations;
the program is `dllm-batch`), with NAME.stdin if it reads. Expected are NAME.stdout, NAME.stderr
(absent: nothing) and NAME.exit (absent: 0). In the expected texts {{regex}} stands for what may
differ, within a line. A case is skipped without the paths, from the source root, that NAME.needs
lists.

Each case runs in a fresh folder with links: data (of the source tree), cli (this folder), shared
(beside the source tree, may be absent) and models (small models made by fixtures.py, with a faulty
one for each fault).

Usage: run.py EXECUTABLE [--update] [NAME...]; --update rewrites what is expected, and keeps lines
whose {{regex}} still fits. Prints TAP.
"""

import difflib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import fixtures

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from cases import outside_of_jobs  # noqa: E402 (found through the line above)

CASES = pathlib.Path(__file__).resolve().parent
ROOT = CASES.parents[1]
CASE_SECONDS_MAX = 120
PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}")


def line_pattern(line):
    """A line with {{regex}} places as one regular expression."""
    pieces = PLACEHOLDER.split(line)
    return "".join(piece if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))


def line_fits(expected, actual):
    return re.fullmatch(line_pattern(expected), actual) is not None


def merged(expected, actual):
    """`actual`, with those lines of `expected` that fit in place of their own."""
    rows = actual.split("\n")
    for i, line in enumerate(expected.split("\n")[: len(rows)]):
        if "{{" in line and line_fits(line, rows[i]):
            rows[i] = line
    return "\n".join(rows)


class Case:
    def __init__(self, name):
        self.name = name

    def path(self, suffix):
        return CASES / (self.name + suffix)

    def text(self, suffix, default=""):
        path = self.path(suffix)
        return path.read_text(encoding="utf-8") if path.exists() else default

    def missing(self):
        """What the case needs and the machine lacks."""
        return [word for word in self.text(".needs").split() if not (ROOT / word).exists()]

    def run(self, executable, scratch):
        """Runs in `scratch`: standard output, standard error, exit status."""
        if self.path(".args").exists():
            command = [executable, *self.text(".args").splitlines()]
        else:
            command = ["bash", str(self.path(".sh"))]
        environment = outside_of_jobs() | {
            "PATH": f"{scratch / 'bin'}:{os.environ['PATH']}",
            "HOME": str(scratch),
            "LC_ALL": "C.UTF-8",
            "DLLM_BATCH_MODEL": "data/models/tiny-llada",
        }
        stdin = self.path(".stdin")
        with open(stdin if stdin.exists() else os.devnull, "rb") as source:
            done = subprocess.run(
                command, cwd=scratch, env=environment, stdin=source, capture_output=True,
                timeout=CASE_SECONDS_MAX, check=False,
            )
        return {
            ".stdout": done.stdout.decode("utf-8", "backslashreplace"),
            ".stderr": done.stderr.decode("utf-8", "backslashreplace"),
            ".exit": f"{done.returncode}\n",
        }

    def differences(self, actual):
        """Diff lines between what is expected and what came."""
        for suffix, text in actual.items():
            wanted = self.text(suffix, "0\n" if suffix == ".exit" else "")
            rows, wanted_rows = merged(wanted, text).split("\n"), wanted.split("\n")
            yield from difflib.unified_diff(
                wanted_rows, rows, f"expected{suffix}", f"actual{suffix}", lineterm="", n=2
            )

    def update(self, actual):
        for suffix, text in actual.items():
            empty = "0\n" if suffix == ".exit" else ""
            path = self.path(suffix)
            if text != empty:
                path.write_text(merged(self.text(suffix), text), encoding="utf-8")
            elif path.exists():
                path.unlink()


def make_scratch(folder, executable, models):
    (folder / "bin").mkdir()
    (folder / "bin" / "dllm-batch").symlink_to(executable)
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "cli").symlink_to(CASES)
    (folder / "models").symlink_to(models)
    (folder / "shared").symlink_to(ROOT.parent / "shared")
    return folder


def check(case, executable, models, update):
    """Lines that explain a failure; none: passed."""
    with tempfile.TemporaryDirectory(prefix="dllm-cli-") as folder:
        scratch = make_scratch(pathlib.Path(folder), executable, models)
        try:
            actual = case.run(executable, scratch)
        except subprocess.TimeoutExpired:
            return [f"runs longer than {CASE_SECONDS_MAX} s"]
    if update:
        case.update(actual)
    return list(case.differences(actual))


def main():
    words = [word for word in sys.argv[1:] if word != "--update"]
    if not words or shutil.which("bash") is None:
        sys.exit("usage: run.py EXECUTABLE [--update] [NAME...] (with bash installed)")
    executable = pathlib.Path(words[0]).resolve()
    names = words[1:] or sorted({p.stem for p in CASES.iterdir() if p.suffix in (".args", ".sh")})
    print(f"1..{len(names)}")
    n_failed = 0
    with tempfile.TemporaryDirectory(prefix="dllm-models-") as folder:
        models = pathlib.Path(folder)
        fixtures.make_models(models)
        for number, name in enumerate(names, 1):
            case = Case(name)
            if case.missing():
                print(f"ok {number} - {name} # SKIP without {' '.join(case.missing())}")
                continue
            problems = check(case, executable, models, "--update" in sys.argv)
            n_failed += bool(problems)
            print(f"{'not ok' if problems else 'ok'} {number} - {name}", flush=True)
            for line in problems:
                print(f"# {line}")
    sys.exit(1 if n_failed else 0)


if __name__ == "__main__":
    main()
