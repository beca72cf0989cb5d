#!/usr/bin/env python3
"""Holds the rules of the tree that a machine can check: layers, lengths, names, leftovers.

Prints TAP: one line per rule, its figures as comments, its offenders as diagnostics. Every rule
has a bad snippet in SNIPPETS, and --self-test proves that the rule rejects it. How things are
counted: a comment share is lines with a comment / (lines with code + lines with a comment); a
function runs from its first word to its closing brace; nesting counts control structures, with
or without braces.

Usage: tidy.py [--root DIR] [--self-test]
"""

import argparse
import pathlib
import re
import statistics
import sys

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX, FUNCTION_P90_MAX, FUNCTION_MEDIAN_MAX = 70, 40, 15
PARAMETERS_MAX = 6
NESTING_MAX = 4
COLUMNS_MAX = 100
EXPORTS_MAX = 10
STATIC_SHARE_MIN = 0.60
ASSERTS_PER_FUNCTION_MIN = 1.0
HEADER_COMMENT_MIN = 0.40
COMMENT_GOAL, COMMENT_BAND = (0.15, 0.25), (0.12, 0.30)
TEST_SHARE_MIN = 0.8
LAYER_LINES_MAX = {"src": 22_400, "cuda": 4_000}  # lines with code; ARCHITECTURE.md says why

# What each folder may include (ARCHITECTURE.md, layers). A path names one file.
SOURCE_LAYERS = ["app", "backend", "base", "engine", "model", "plan", "text"]
LAYERS = {
    "base": ["base"],
    "text": ["base", "text"],
    "plan": ["base", "plan"],
    "backend": ["base", "backend"],
    "cuda": ["base", "backend", "cuda"],
    "model": ["base", "backend", "model"],
    "engine": ["base", "backend", "model", "plan", "engine"],
    "app": SOURCE_LAYERS,
    "tools": [*SOURCE_LAYERS, "tools"],
}

# backend.h is one contract: its wrappers, and a backend's entries, are one function per op.
EXPORTS_FREE = {"src/backend/backend.c", "cuda/cuda_ops.cu"}

# The only conditional compilation: include guards, C++ linkage, what the processor or compiler is.
PROCESSOR = r"__(x86_64|aarch64|AVX\w*|FMA|F16C|SSE\w*|ARM_NEON)__"
CONDITIONS = [
    r"ifdef __cplusplus",
    rf"ifn?def {PROCESSOR}|if defined\({PROCESSOR}\)( && defined\({PROCESSOR}\))*",
]
CONDITIONS_OF_FILE = {"src/backend/inline.h": r"ifdef __CUDACC__|if defined\(__CUDACC__\)"}

C_SUFFIXES = {".c", ".h", ".cu", ".cuh", ".def"}
TEXT_SUFFIXES = C_SUFFIXES | {".py", ".md", ".build", ".txt", ".in", ".1", ".5", ".args", ".json"}
# Spelled apart, so that this file does not find itself.
LEFTOVERS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.~>}*-])/(work|root|home|Users|tmp/w)/")

COMMENT_OR_TEXT = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL
)
DIRECTIVE = re.compile(r"(?m)^[ \t]*#(?:[^\n\\]|\\.|\\\n)*")
CONTROL = re.compile(r"\belse\s+if\b|\b(?:if|for|while|switch|do|else)\b|[(){};]")
# A loop macro such as json_object_foreach(...) at the start of a statement.
LOOP_MACRO = re.compile(r"(?:^|[;{}:)])\s*(?!return\b|sizeof\b)\w+\s*$")
TEST_MACROS = {"Test", "ParameterizedTest", "TheoryTest"}


def blanked(text):
    """The text as spaces, line ends kept."""
    return re.sub(r"[^\n]", " ", text)


def closing(code, begin):
    """Index of the parenthesis that closes the one at `begin`."""
    depth = 0
    for i in range(begin, len(code)):
        depth += (code[i] == "(") - (code[i] == ")")
        if depth == 0:
            return i
    return len(code) - 1


class Function:
    """One definition: name, static or not, first line, lines, parameters, nesting."""

    def __init__(self, head, line, body):
        head = re.sub(r"__\w+__\s*\(\(?[^()]*\)?\)", "", head)
        open_ = head.index("(")
        self.name = re.search(r"(\w+)\s*$", head[:open_]).group(1)
        parameters = head[open_ + 1 : closing(head, open_)].strip()
        self.is_test = self.name in TEST_MACROS
        self.static = self.is_test or re.search(r"\b(static|__global__)\b", head) is not None
        self.n_parameters = 0 if parameters in ("", "void") else top_level_commas(parameters) + 1
        if self.is_test:
            self.n_parameters = 0
        self.line = line
        self.n_lines = head.count("\n") + body.count("\n") + 1
        self.nesting = nesting(body[1:-1])
        self.body = body


def top_level_commas(text):
    depth = commas = 0
    for char in text:
        depth += (char in "([") - (char in ")]")
        commas += char == "," and depth == 0
    return commas


def nesting(body):
    """Deepest level of control structures; an unbraced statement counts like a block."""
    stack, deepest, skip_to = [], 0, 0
    for token in CONTROL.finditer(body):
        word, end = token.group(), token.end()
        if token.start() < skip_to:
            continue
        if word[0] in "iefwsd":
            if word not in ("else", "do"):
                end = closing(body, body.index("(", end)) + 1
            skip_to, following = end, body[end:].lstrip()[:1]
            if following == "{":
                skip_to = body.index("{", end) + 1
                stack.append("block")
            elif following != ";":
                stack.append("statement")
        elif word == "(":
            skip_to = closing(body, token.start()) + 1
            is_loop = LOOP_MACRO.search(body[: token.start()]) is not None
            if is_loop and body[skip_to:].lstrip()[:1] == "{":
                skip_to = body.index("{", skip_to) + 1
                stack.append("block")
        elif word == "{":
            before = body[: token.start()].rstrip()[-1:]
            stack.append("block" if before in ("", ";", ":", "{", "}") else "initializer")
        elif word == "}":
            if stack.pop() != "initializer":
                end_statements(stack, body[end:])
        elif "initializer" not in stack:
            end_statements(stack, body[end:])
        deepest = max(deepest, sum(entry != "initializer" for entry in stack))
    return deepest


def end_statements(stack, rest):
    """A statement has ended: so have the unbraced ones around it, up to an if with an else."""
    has_else = re.match(r"\s*else\b", rest) is not None
    while stack and stack[-1] == "statement":
        stack.pop()
        if has_else:
            return


def functions_of(code):
    """Function definitions in code without comments, texts and preprocessor lines."""
    found, stack, head_begin, body_begin = [], [], 0, 0
    for match in re.finditer(r"[{};]", code):
        position, char = match.start(), match.group()
        outside = all(kind == "linkage" for kind in stack)
        if char == "{":
            head = code[head_begin:position] if outside else ""
            kind = head_kind(head) if outside else "inner"
            stack.append(kind)
            if kind == "function":
                body_begin = position
        elif char == "}" and stack:
            if stack.pop() == "function":
                head = code[head_begin:body_begin]
                first = head_begin + len(head) - len(head.lstrip())
                line = code.count("\n", 0, first) + 1
                found.append(Function(head.strip(), line, code[body_begin : position + 1]))
            outside = all(kind == "linkage" for kind in stack)
        if outside and (char != "{" or stack and stack[-1] == "linkage"):
            head_begin = position + 1
    return found


def head_kind(head):
    """What a brace outside of functions opens."""
    if re.search(r'(\bextern\s*"\s*"|\bnamespace\b[\s\w]*)\s*$', head):
        return "linkage"
    head = re.sub(r"__\w+__\s*\(\(?[^()]*\)?\)", "", head)
    flat = re.sub(r"\([^()]*\)", "()", re.sub(r"\([^()]*\)", "", head))
    is_function = head.rstrip().endswith(")") and re.search(r"\w\s*\(", head) and "=" not in flat
    return "function" if is_function else "other"


class File:
    """A file of the tree; for C, split into code and comments."""

    def __init__(self, path, text):
        self.path, self.text = path, text
        self.lines = text.splitlines()
        self.suffix = pathlib.PurePosixPath(path).suffix
        self.stem = pathlib.PurePosixPath(path).stem
        self.top = path.split("/")[0]
        self.layer = path.split("/")[1] if self.top == "src" else self.top
        self.is_c = self.suffix in C_SUFFIXES
        self.is_header = self.suffix in (".h", ".cuh")
        self.is_script = self.suffix == ".py" or text.startswith("#!")
        self.functions = []
        if self.is_c:
            self._split()

    def _split(self):
        comment_lines = set()

        def blank(match):
            token = match.group()
            if token[0] != "/":
                return token[0] + blanked(token[1:-1]) + token[-1]
            first = self.text.count("\n", 0, match.start())
            comment_lines.update(range(first, first + token.count("\n") + 1))
            return blanked(token)

        code = COMMENT_OR_TEXT.sub(blank, self.text)
        self.n_comment_lines = len(comment_lines)
        self.n_code_lines = sum(bool(line.strip()) for line in code.splitlines())
        self.directives = DIRECTIVE.findall(code)
        self.code = DIRECTIVE.sub(lambda match: blanked(match.group()), code)
        self.functions = functions_of(self.code)
        for function in self.functions:
            function.static |= self.is_header

    def at(self, line, message):
        return f"{self.path}:{line}: {message}"


class Tree:
    def __init__(self, texts):
        self.files = [File(path, text) for path, text in sorted(texts.items())]

    def c_files(self, *tops):
        return [f for f in self.files if f.is_c and (not tops or f.top in tops)]

    def functions(self, *tops):
        return [(f, function) for f in self.c_files(*tops) for function in f.functions]


def read_tree(root):
    """All text of the project; built, hidden and foreign folders are left out."""
    texts = {}
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in parts[:-1])
        if hidden or parts[0] == ".git" or parts[0].startswith("build"):
            continue
        if {"subprojects", "__pycache__"} & set(parts):
            continue
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 1_000_000:
            continue
        is_text = path.suffix in TEXT_SUFFIXES or path.suffix == "" and parts[-1] != "LICENSE"
        if is_text:
            texts["/".join(parts)] = path.read_text(encoding="utf-8", errors="replace")
    return Tree(texts)


# ---- the rules: tree -> (offenders, figures) ----


def rule_layers(tree):
    """a folder includes only itself and the folders below it"""
    offenders = []
    for file in tree.c_files("src", "cuda", "tools"):
        allowed = LAYERS.get(file.layer)
        if allowed is None:
            offenders.append(file.at(1, f"src/{file.layer} is no layer"))
            continue
        for number, line in enumerate(file.lines, 1):
            include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if not include:
                continue
            target = include.group(1)
            if target not in allowed and target.split("/")[0] not in allowed:
                offenders.append(file.at(number, f'{file.layer} may not include "{target}"'))
    return offenders, []


def rule_file_lengths(tree):
    """files are short"""
    own = [f for f in tree.files if f.is_c or f.is_script]
    offenders = [
        f.at(len(f.lines), f"{len(f.lines)} lines, at most {FILE_LINES_MAX}")
        for f in own
        if len(f.lines) > FILE_LINES_MAX
    ]
    lengths = [len(f.lines) for f in tree.c_files("src", "cuda")] or [0]
    return offenders, [f"median {statistics.median(lengths):.0f}, longest {max(lengths)} lines"]


def rule_function_lengths(tree):
    """functions are short"""
    at_most = f"at most {FUNCTION_LINES_MAX}"
    offenders = [
        f.at(function.line, f"{function.name}: {function.n_lines} lines, {at_most}")
        for f, function in tree.functions()
        if function.n_lines > FUNCTION_LINES_MAX
    ]
    lengths = sorted(function.n_lines for _, function in tree.functions("src", "cuda")) or [0]
    median, p90 = statistics.median(lengths), lengths[(len(lengths) * 9) // 10]
    if median > FUNCTION_MEDIAN_MAX:
        offenders.append(f"median function of src and cuda: {median:.0f} lines")
    if p90 > FUNCTION_P90_MAX:
        offenders.append(f"90th percentile of src and cuda: {p90} lines")
    figures = f"{len(lengths)} functions: median {median:.0f} (at most {FUNCTION_MEDIAN_MAX}), "
    return offenders, [figures + f"p90 {p90} (at most {FUNCTION_P90_MAX}), longest {lengths[-1]}"]


def rule_parameters(tree):
    """functions take few parameters"""
    return [
        f.at(function.line, f"{function.name}: {function.n_parameters} parameters")
        for f, function in tree.functions()
        if function.n_parameters > PARAMETERS_MAX
    ], []


def rule_nesting(tree):
    """control structures nest little"""
    return [
        f.at(function.line, f"{function.name}: {function.nesting} levels, at most {NESTING_MAX}")
        for f, function in tree.functions()
        if function.nesting > NESTING_MAX
    ], []


def rule_columns(tree):
    """lines fit, without tabs or blanks at the end"""
    offenders = []
    for file in tree.files:
        if not (file.is_c or file.is_script or file.suffix == ".build"):
            continue
        for number, line in enumerate(file.lines, 1):
            if len(line) > COLUMNS_MAX:
                offenders.append(file.at(number, f"{len(line)} columns, at most {COLUMNS_MAX}"))
            if "\t" in line:
                offenders.append(file.at(number, "tab"))
            if line != line.rstrip():
                offenders.append(file.at(number, "blank at the end of the line"))
    return offenders, []


def rule_leftovers(tree):
    """nothing is left for later"""
    return [
        file.at(number, found.group())
        for file in tree.files
        if file.suffix != ".json"
        for number, line in enumerate(file.lines, 1)
        if (found := LEFTOVERS.search(line))
    ], []


def rule_machine_paths(tree):
    """no path of one particular machine"""
    return [
        file.at(number, found.group())
        for file in tree.files
        for number, line in enumerate(file.lines, 1)
        if (found := MACHINE_PATHS.search(line))
    ], []


def rule_conditions(tree):
    """conditional compilation only for guards, linkage and processors"""
    offenders = []
    for file in tree.c_files("src", "cuda", "tools"):
        allowed = list(CONDITIONS)
        if file.path in CONDITIONS_OF_FILE:
            allowed.append(CONDITIONS_OF_FILE[file.path])
        if file.suffix == ".def":
            allowed.append(r"ifn?def [A-Z]+")
        if file.is_header:
            allowed.append(r"ifndef \w+_" + file.suffix[1:].upper())
        for number, line in enumerate(file.lines, 1):
            directive = re.match(r"\s*#\s*((?:if|elif)\w*\b.*?)\s*(?:/\*.*)?$", line)
            if directive and not any(re.fullmatch(a, directive.group(1)) for a in allowed):
                offenders.append(file.at(number, "#" + directive.group(1)))
    return offenders, []


def rule_names(tree):
    """exported functions are named after their module"""
    offenders = []
    for file, function in tree.functions("src", "cuda"):
        parts = file.stem.split("_")
        modules = {"_".join(parts[: i + 1]) for i in range(len(parts))}
        if file.suffix == ".cu":
            modules.add("launch")
        named = any(function.name == m or function.name.startswith(m + "_") for m in modules)
        if not (function.static or named or function.name == "main"):
            offenders.append(file.at(function.line, f"{function.name} is not of {file.stem}"))
    return offenders, []


def rule_exports(tree):
    """modules are deep: few exported functions, most are static"""
    offenders, every = [], tree.functions("src", "cuda")
    for file in tree.c_files("src", "cuda"):
        n = sum(not function.static for function in file.functions)
        if n > EXPORTS_MAX and file.path not in EXPORTS_FREE:
            offenders.append(file.at(1, f"{n} exported functions, at most {EXPORTS_MAX}"))
    share = sum(function.static for _, function in every) / max(1, len(every))
    if every and share < STATIC_SHARE_MIN:
        offenders.append(f"{share:.0%} of the functions static, at least {STATIC_SHARE_MIN:.0%}")
    return offenders, [f"{share:.0%} of {len(every)} functions are static"]


def rule_dead_functions(tree):
    """every exported function has a caller outside its own file"""
    words, pasted = {}, set()
    for file in tree.c_files():
        bodies = [function.body for function in file.functions] if file.is_header else [file.code]
        used = "\n".join([*file.directives, *bodies])
        words[file.path] = set(re.findall(r"\w+", used))
        pasted |= set(re.findall(r"(\w+_)\s*##", used))
    offenders = []
    for file, function in tree.functions("src", "cuda"):
        name = function.name
        called = any(name in used for path, used in words.items() if path != file.path)
        is_free = function.static or name == "main" or name.startswith(tuple(pasted))
        if not (called or is_free):
            offenders.append(file.at(function.line, f"{name} is called from no other file"))
    return offenders, []


def rule_asserts(tree):
    """the code states what it holds for true"""
    files = tree.c_files("src")
    n_asserts = sum(len(re.findall(r"\b(?:static_|_Static_)?assert\s*\(", f.code)) for f in files)
    n_functions = sum(len(f.functions) for f in files)
    average = n_asserts / max(1, n_functions)
    wish = f"{average:.2f} asserts per function, at least {ASSERTS_PER_FUNCTION_MIN}"
    is_low = n_functions > 0 and average < ASSERTS_PER_FUNCTION_MIN
    return [wish] if is_low else [], [f"{n_asserts} asserts in {n_functions} functions: {wish}"]


def rule_comments(tree):
    """headers are manuals, sources say why"""

    def share(files):
        comments = sum(f.n_comment_lines for f in files)
        return comments / max(1, comments + sum(f.n_code_lines for f in files))

    files = tree.c_files("src", "cuda")
    # A header with function bodies is a source that several files compile.
    headers = [f for f in files if f.is_header and not f.functions]
    overall, of_headers = share(files), share(headers)
    offenders = []
    if headers and of_headers < HEADER_COMMENT_MIN:
        offenders.append(f"headers: {of_headers:.0%} comment, at least {HEADER_COMMENT_MIN:.0%}")
    if files and not COMMENT_BAND[0] <= overall <= COMMENT_BAND[1]:
        offenders.append(f"overall: {overall:.0%} comment, {band(COMMENT_BAND)}")
    thin = [f"{f.path}: {share([f]):.0%}" for f in headers if share([f]) < HEADER_COMMENT_MIN]
    figures = [f"headers {of_headers:.0%}, overall {overall:.0%} (goal {band(COMMENT_GOAL)})"]
    return offenders, figures + [f"thin header {line}" for line in thin]


def band(limits):
    return f"{limits[0]:.0%} to {limits[1]:.0%}"


def rule_opening(tree):
    """every file opens with what it is for"""
    offenders = []
    for file in tree.files:
        text = re.sub(r"\A#!.*\n", "", file.text)
        opens = r'/\*' if file.is_c else r'""".' if file.suffix == ".py" else r"# \S"
        if (file.is_c or file.is_script) and not re.match(r"\s*" + opens, text):
            offenders.append(file.at(1, "opens without a comment"))
    return offenders, []


def rule_printing(tree):
    """only the program prints and ends the process (I5)"""
    offenders = []
    ends = r"\b(?:exit|_exit|quick_exit|abort)\s*\("
    prints = r"\b(?:stdout|stderr|(?<!format\()printf|puts|putchar|perror)\b|" + ends
    for file in tree.c_files("src", "cuda"):
        if file.path == "src/app/main.c":
            continue
        # The second interrupt may end the process at once: app/interrupt.c calls _exit.
        pattern = ends.replace("|_exit", "") if file.layer == "app" else prints
        for number, line in enumerate(file.code.splitlines(), 1):
            if found := re.search(pattern, line):
                offenders.append(file.at(number, found.group()))
    return offenders, []


def rule_allocation(tree):
    """the computing layers allocate when they open, then never again (I4)"""
    offenders = []
    allocates = r"\b(?:malloc|calloc|realloc|aligned_alloc|posix_memalign|strdup|free)\s*\("
    for file in tree.c_files("src", "cuda"):
        if file.layer not in ("plan", "backend", "model", "engine", "cuda"):
            continue
        for function in file.functions:
            opens = re.search(r"(?:^|_)(?:open|close|create|destroy)(?:_|$)", function.name)
            if not opens and (found := re.search(allocates, function.body)):
                offenders.append(file.at(function.line, f"{function.name}: {found.group()}"))
    return offenders, []


def rule_references(tree):
    """documents that are referred to exist, and so does what holds an invariant"""
    paths = {f.path for f in tree.files}
    known = {path.split("/")[-1] for path in paths} | paths
    known |= {"tidy." + rule.__name__[5:] for rule in RULES}
    for file in tree.c_files("tests"):
        known |= {".".join(pair) for pair in re.findall(r"\bTest\((\w+), (\w+)", file.text)}
    offenders, n_invariants = [], 0
    for file in tree.files:
        for number, line in enumerate(file.lines, 1):
            named = re.findall(r"\b[\w/-]+\.md\b", line) if file.is_c or file.is_script else []
            if file.path == "ARCHITECTURE.md" and re.match(r"\| I\d+ \|", line):
                named, n_invariants = re.findall(r"`([\w/]+\.\w+)`", line), n_invariants + 1
                if not named:
                    offenders.append(file.at(number, "an invariant that nothing holds"))
            missing = [name for name in named if name not in known]
            offenders += [file.at(number, f"{name} does not exist") for name in missing]
    return offenders, [f"{n_invariants} invariants"]


def code_lines(file):
    """Lines that hold code: comments and blank lines cost a reader nothing."""
    return sum(1 for line in file.code.splitlines() if line.strip())


def rule_sizes(tree):
    """the whole stays small, its tests grow with it"""
    offenders, figures = [], []
    lines = {top: sum(code_lines(f) for f in tree.c_files(top)) for top in LAYER_LINES_MAX}
    for top, n in lines.items():
        if n > LAYER_LINES_MAX[top]:
            offenders.append(f"{top}: {n} lines, at most {LAYER_LINES_MAX[top]}")
        figures.append(f"{top} {n} lines (at most {LAYER_LINES_MAX[top]})")
    tests = [f for f in tree.files if f.top == "tests" and (f.is_c or f.is_script)]
    tests += [f for f in tree.files if f.suffix == ".args"]
    n_tests = sum(code_lines(f) if f.is_c else len(f.lines) for f in tests)
    n_source = lines["src"]  # every backend, cuda too, is held by the same suites
    if n_tests < TEST_SHARE_MIN * n_source:
        offenders.append(f"tests: {n_tests} lines for {n_source}, at least {TEST_SHARE_MIN} a line")
    figures.append(f"tests {n_tests} lines, {n_tests / max(1, n_source):.2f} per line of source")
    return offenders, figures


def rule_dead_files(tree):
    """every source is built, every header included, every script named"""
    built = "\n".join(f.text for f in tree.files if f.path.endswith("meson.build"))
    named = set(re.findall(r"[\w./@-]+", built))
    named |= {name.split("/")[-1] for name in named}
    included = set()
    for file in tree.c_files():
        found = re.findall(r'#\s*include\s+"([^"]+)"', file.text)
        included |= {target.split("/")[-1] for target in found}
    offenders = []
    for file in tree.c_files("src", "cuda", "tests", "tools"):
        name = file.path.split("/")[-1]
        if file.suffix in (".h", ".cuh", ".def"):
            if name not in included:
                offenders.append(file.at(1, "is included nowhere"))
        elif name not in named and not {file.stem, file.stem.split("_", 1)[-1]} & named:
            offenders.append(file.at(1, "is built by no meson.build"))
    return offenders, []


RULES = [value for name, value in list(globals().items()) if name.startswith("rule_")]


# ---- TAP ----


def report(number, ok, rule, offenders, figures):
    print(f"{'ok' if ok else 'not ok'} {number} - {rule.__name__[5:]}: {rule.__doc__}")
    for line in [*figures, *([] if ok else offenders)]:
        print(f"# {line}")


def check(tree):
    print(f"1..{len(RULES)}")
    n_failed = 0
    for number, rule in enumerate(RULES, 1):
        offenders, figures = rule(tree)
        n_failed += bool(offenders)
        report(number, not offenders, rule, offenders, figures)
    return n_failed


# ---- self-test: a good tree, and for each rule the files that break it ----

GOOD = {
    "meson.build": "files('src/base/list.c', 'tests/unit/test_list.c')\n",
    "src/base/list.h": "/* A list. */\n/* True when full. */\nbool list_add(int);\n",
    "src/base/list.c": (
        '/* Adds to a list. */\n#include "base/list.h"\n\n'
        "static int list_size(const int *list)\n{\n    assert(list);\n    return *list;\n}\n\n"
        "static void grow(int n)\n{\n    assert(n > 0);\n    /* Doubling keeps it cheap. */\n"
        "    for (int i = 0; i < n; i++)\n        if (i > 2) list[i] = (struct pair){1, 2};\n}\n\n"
        "bool list_add(int value)\n{\n    assert(value);\n    return list_size(&value);\n}\n"
    ),
    "tests/unit/test_list.c": "/* Proves. */\n" + "Test(list, adds)\n{\n    list_add(1);\n}\n" * 6,
}
DEEP = "for (;;)\n        if (a) {\n            while (b) switch (c) { case 1: f(); }\n            "
DEEP += "list_foreach(a, b) {\n            do if (c) d = (struct e){1}; while (f);\n            } }"
SNIPPETS = {
    "layers": {"src/base/bad.c": '/* Bad. */\n#include "plan/request.h"\n'},
    "file_lengths": {"tests/bad.c": "/* Bad. */\n" * (FILE_LINES_MAX + 1)},
    "function_lengths": {
        "tests/bad.c": "/* Bad. */\nstatic void f(void)\n{\n" + "    f();\n" * 80 + "}\n"
    },
    "parameters": {"tests/bad.c": "/* Bad. */\nstatic int f(int a, int b, int c, int d, int e, "
                   "int (*g)(int, int), int h)\n{\n}\n"},
    "nesting": {"tests/bad.c": f"/* Bad. */\nstatic void f(void)\n{{\n    {DEEP}\n}}\n"},
    "columns": {"tests/bad.c": "/* Bad. */\n\tint tab;\n"},
    "leftovers": {"tests/bad.c": "/* FIX" "ME: bad. */\n"},
    "machine_paths": {"README.md": "Look into /ho" "me/me/models.\n"},
    "conditions": {"src/base/list.h": GOOD["src/base/list.h"] + "#if defined(DEBUG)\n#endif\n"},
    "names": {"src/base/bad.c": "/* Bad. */\nint get_next(int x)\n{\n    return x;\n}\n"},
    "exports": {
        "src/base/bad.c": "/* Bad. */\n" + "".join(f"int bad_{i}(int)\n{{\n}}\n" for i in range(11))
    },
    "dead_functions": {"src/base/bad.c": "/* Bad. */\nint bad_unused(int x)\n{\n}\n"},
    "asserts": {"src/base/bad.c": "/* Bad. */\nstatic int f(int x)\n{\n    return x;\n}\n"},
    "comments": {"src/base/bad.h": "/* Bad. */\n" + "int bad;\n" * 9},
    "opening": {"tools/bad": "#!/bin/bash\necho bad\n"},
    "printing": {"src/base/bad.c": '/* Bad. */\nvoid f(void)\n{\n    fprintf(stderr, "x");\n}\n'},
    "allocation": {"src/plan/bad.c": "/* Bad. */\nstatic int f(void)\n{\n    free(0);\n}\n"},
    "references": {"ARCHITECTURE.md": "| I1 | always | `list.never_proved` |\n"},
    "sizes": {"src/base/bad.c": "/* Bad. */\n" + "int x;\n" * 200},
    "dead_files": {"src/base/bad.c": "/* Built by nobody. */\n"},
}


def self_test():
    print(f"1..{len(RULES) + 1}")
    wrongly = [f"{rule.__name__}: {o}" for rule in RULES for o in rule(Tree(GOOD))[0]]
    n_failed = bool(wrongly)
    print(f"{'not ok' if wrongly else 'ok'} 1 - a good tree breaks no rule")
    for line in wrongly:
        print(f"# {line}")
    for number, rule in enumerate(RULES, 2):
        offenders, _ = rule(Tree({**GOOD, **SNIPPETS[rule.__name__[5:]]}))
        n_failed += not offenders
        report(number, bool(offenders), rule, ["its bad snippet passes"], [])
    return n_failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).parents[1])
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    n_failed = self_test() if options.self_test else check(read_tree(options.root.resolve()))
    sys.exit(1 if n_failed else 0)


if __name__ == "__main__":
    main()
