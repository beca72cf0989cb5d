#!/usr/bin/env python3
"""Runs every example of the documentation: README.md and the man pages. Prints TAP.

Commands are lines `$ command` of a console block, and the displays under EXAMPLES of a man page.
They run in a scratch folder that looks like the source tree after a build. Lines below a command
are what it must print, on both streams, to the letter; but measurements (a number with a unit of
time, size or speed) may differ, a line `...` stands for any lines, and `...` within a line for any
text. JSON in a display of an INPUT section (in Markdown: a block `json input`) must be answered
without an error; that of an OUTPUT section (`json output`) must have the very keys that a real
answer, or a real failure, has.

Usage: docs.py EXECUTABLE DOCUMENT...
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from cases import outside_of_jobs

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMAND_SECONDS_MAX = 120
SHIPPED_MODEL = "tiny-llada"
# Models of the examples in ~/models: the shipped one stands in for them.
MODELS_ELSEWHERE = ["LLaDA-8B-Instruct"]

# Commands that this suite cannot run from inside a build, and who runs them.
RUN_ELSEWHERE = {
    "tools/demo": "tools/check runs it",
    "tools/check": "it runs this suite",
    "tools/setup": "tools/check runs it",
    "meson": "tools/check configures, builds and installs",
    "sudo": "needs a password",
    "man": "needs a terminal",
    "sbatch": "needs a cluster",
    "srun": "needs a cluster",
}

UNITS = r"ns|us|µs|ms|s|min|h|%|[kKMGT]i?B|bytes|[A-Za-z]*tok(?:ens)?/s|GFLOP/s"
MEASUREMENT = re.compile(rf"\d[\d.,]*\s*({UNITS})(?![\w/])")
JSON_MEASUREMENT = re.compile(r'("\w+_(?:ns|ms|s|per_s)":\s*)-?\d[\d.eE+-]*')
OPTIONAL_KEYS = {"token_ids", "logprobs"}  # there when asked for; null in OpenAI's form


class Example:
    """A block of a document, by kind: commands with their output, or JSON objects."""

    def __init__(self, path, line, kind, lines):
        self.name, self.kind, self.lines = f"{path.name}:{line}", kind, lines

    def commands(self):
        """Pairs (command, expected lines); a backslash continues a command."""
        pairs, continues = [], False
        for text in self.lines:
            if continues:
                pairs[-1][0] += "\n" + text
            elif text.startswith("$ "):
                pairs.append([text[2:], []])
            elif not pairs:
                raise ValueError(f"'{text}' stands before the first command; those start with '$ '")
            else:
                pairs[-1][1].append(text)
                continue
            continues = text.endswith("\\")
        return pairs

    def values(self):
        decoder, text, values = json.JSONDecoder(), "\n".join(self.lines).strip(), []
        while text:
            value, end = decoder.raw_decode(text)
            values.append(value)
            text = text[end:].strip()
        return values


# ---- documents to examples ----


def read_markdown(path):
    kinds = {"console": "session", "text": None, "json input": "input", "json output": "output"}
    block = None
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if text.startswith("```") and block is None:
            if text[3:] not in kinds:
                raise ValueError(f"{path.name}:{number}: fence {text}: one of {list(kinds)}")
            block = (kinds[text[3:]], number + 1, [])
        elif text.startswith("```"):
            if block[0]:
                yield Example(path, block[1], block[0], block[2])
            block = None
        elif block is not None:
            block[2].append(text)


ROFF_DISPLAYS = {".Bd": ".Ed", ".EX": ".EE", ".nf": ".fi"}
ROFF_ESCAPES = {
    r"\e": "\\", r"\(rs": "\\", r"\-": "-", r"\(aq": "'", r"\(dq": '"', r"\(ha": "^",
    r"\(ti": "~", r"\(ga": "`", r"\&": "",
}


def unescaped(text):
    return re.sub(r"\\(?:\(..|.)", lambda m: ROFF_ESCAPES.get(m.group(), m.group()), text)


def read_man(path):
    """The displays of the sections that have examples. `$` is implied."""
    kinds = {"EXAMPLES": "session", "INPUT": "input", "OUTPUT": "output"}
    kind, block = None, None
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        word = text.split(" ")[0]
        if block is not None:
            begin, end, lines = block
            if word != end:
                lines.append(unescaped(text))
                continue
            if kind:
                yield Example(path, begin, kind, lines)
            block = None
        elif word == ".Sh":
            kind = kinds.get(text[4:])
        elif word in ROFF_DISPLAYS:
            block = (number + 1, ROFF_DISPLAYS[word], [])
        elif word == ".Dl" and kind == "session":
            yield Example(path, number, kind, ["$ " + unescaped(text[4:]).removeprefix("$ ")])


# ---- running ----


class Sandbox:
    """A scratch folder that looks like the source tree after a build."""

    def __init__(self, folder, executable):
        self.folder = pathlib.Path(folder)
        (self.folder / "build").mkdir()
        (self.folder / "build" / "dllm-batch").symlink_to(executable)
        (self.folder / "data").mkdir()
        for entry in (ROOT / "data").iterdir():
            if entry.name != "prompts":
                (self.folder / "data" / entry.name).symlink_to(entry)
        shutil.copytree(ROOT / "data" / "prompts", self.folder / "data" / "prompts")
        prompts = (ROOT / "data" / "prompts" / "demo.jsonl").read_text(encoding="utf-8")
        lines = prompts.splitlines(keepends=True)[:4]
        (self.folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
        (self.folder / "models").mkdir()
        for name in MODELS_ELSEWHERE:
            (self.folder / "models" / name).symlink_to(ROOT / "data" / "models" / SHIPPED_MODEL)
        self.environment = {
            **outside_of_jobs(),
            "PATH": f"{self.folder / 'build'}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "80",
        }

    def run(self, command):
        """(what it printed, whether each program of the pipeline went well)."""
        # 141: the reader of a pipe went away, as in `... | head`.
        script = f"{command}\ncodes=(${{PIPESTATUS[@]}})\n"
        script += 'for c in ${codes[@]}; do [[ $c = 0 || $c = 141 ]] || exit 1; done\n'
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS_MAX, check=False,
        )
        return done.stdout, done.returncode == 0

    def answers(self, values, *options):
        """The answers to input lines; with -o FILE the records of that file."""
        path = self.folder / "docs-input.jsonl"
        path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
        command = [
            str(self.folder / "build" / "dllm-batch"), "run", "--ordered", "-o", "-",
            "--no-compress", "-q", *options, str(path),
        ]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True,
            timeout=COMMAND_SECONDS_MAX, check=False,
        )
        if done.returncode not in (0, 1):
            raise ValueError(f"exit {done.returncode}: {done.stderr.strip()}")
        is_file = "-o" in options
        text = (self.folder / options[-1]).read_text(encoding="utf-8") if is_file else done.stdout
        return [json.loads(line) for line in text.splitlines()]


def normalised(text):
    text = JSON_MEASUREMENT.sub(r"\1#", text.rstrip())
    return re.sub(r"\s+", " ", MEASUREMENT.sub(r"# \1", text))


def matches(expected, actual):
    """Whether the printed lines are those of the document."""
    pattern = ""
    for line in map(normalised, expected):
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += re.escape(line).replace(re.escape("..."), ".*") + r"\n"
    return re.fullmatch(pattern, "".join(normalised(line) + "\n" for line in actual)) is not None


def check_session(example, sandbox):
    """Problems of a console block."""
    for command, expected in example.commands():
        program = command.split()[0]
        if program in RUN_ELSEWHERE:
            if program.startswith("tools/") and not os.access(ROOT / program, os.X_OK):
                yield f"{program} cannot be executed"
            continue
        printed, went_well = sandbox.run(command)
        if not went_well:
            yield f"fails: {command}"
        if not went_well or expected and not matches(expected, printed.splitlines()):
            yield "printed:"
            yield from printed.splitlines()


def keys(value, prefix=""):
    """All key paths of nested objects and arrays, the optional keys left out."""
    found = set()
    if isinstance(value, list) and value:
        found |= keys(value[0], prefix + "[].")
    elif isinstance(value, dict):
        for key in value.keys() - OPTIONAL_KEYS:
            found |= {prefix + key} | keys(value[key], f"{prefix}{key}.")
    return found


def real_output(like, sandbox):
    """A real record of the form of `like`: an answer or failure, plain or of an OpenAI batch, or
    what begins or ends a file."""
    if "header" in like or "manifest" in like:
        options = ["--threshold", "0.9", "-f", "-o", "docs-output.jsonl"]
        return sandbox.answers([{"prompt": "1 + 1"}], *options)[0 if "header" in like else -1]
    prompt = "" if like.get("error") else "1 + 1"
    if "custom_id" not in like:
        return sandbox.answers([{"id": "a", "prompt": prompt}])[0]
    body = {"messages": [{"role": "user", "content": prompt}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return sandbox.answers([line])[0]


def check_input(example, sandbox):
    values = example.values()
    for value, answer in zip(values, sandbox.answers(values), strict=True):
        if answer.get("error") is not None:
            yield f"{json.dumps(value)}: {answer['error']}"


def check_output(example, sandbox):
    for value in example.values():
        real = keys(real_output(value, sandbox))
        if keys(value) != real:
            yield f"only in the document: {sorted(keys(value) - real)}"
            yield f"only in the answer: {sorted(real - keys(value))}"


CHECKS = {"session": check_session, "input": check_input, "output": check_output}


def check(example, sandbox):
    try:
        return list(CHECKS[example.kind](example, sandbox))
    except (ValueError, KeyError, IndexError, subprocess.TimeoutExpired) as problem:
        return [f"{type(problem).__name__}: {problem}"]


def check_document(examples, is_story, executable):
    """Pairs (example, problems). In a story the examples share one folder, one after the other."""
    for story in [examples] if is_story else [[example] for example in examples]:
        with tempfile.TemporaryDirectory(prefix="dllm-docs-") as folder:
            sandbox = Sandbox(folder, executable)
            for example in story:
                yield example, check(example, sandbox)


def main():
    executable, *documents = [pathlib.Path(word).resolve() for word in sys.argv[1:]]
    results = []
    for document in documents:
        is_story = document.suffix == ".md"
        examples = list((read_markdown if is_story else read_man)(document))
        results += check_document(examples, is_story, executable)
        if not examples:
            results.append((Example(document, 1, "session", []), ["no example found"]))
    print(f"1..{len(results)}")
    for number, (example, problems) in enumerate(results, 1):
        print(f"{'not ok' if problems else 'ok'} {number} - {example.name} {example.kind}")
        for line in problems:
            print(f"# {line}")
    sys.exit(1 if any(problems for _, problems in results) else 0)


if __name__ == "__main__":
    main()
