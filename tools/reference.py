#!/usr/bin/python3
"""Checks answers against an independent float64 forward pass and decoder (reference_model.py;
phases and caches, with their definitions: reference_caches.py), and makes the project's golden
answers (reference_golden.py, data/golden). The interpreter is the system's, for Debian's
python3-torch and python3-numpy; any python3 with both will do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
except ImportError as missing:
    sys.exit(f"{missing} in {sys.executable}; 'tools/setup train' installs it for /usr/bin/python3")

from reference_golden import FILES, counts_of, full_case, with_answer, write_cases, write_golden
from reference_model import Margins, Model, decode, fnv1a, read_json

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GOLDEN = os.path.join(ROOT, "data", "golden")

# ---- golden cases ----


def near(a, b, tolerance):
    return len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b))


def check_case(model, case):
    """What differs between a golden case and its decode; an empty list when nothing does."""
    result, wrong = decode(model, case), []
    if result.token_ids != case["expect"]:
        wrong.append(f"ids {result.token_ids}, expected {case['expect']}")
    for key, count in counts_of(result).items():
        if case.get(key, count) != count:
            wrong.append(f"{key} {count}, expected {case[key]}")
    if not near(result.log_probs, case.get("expect_log_probs", result.log_probs), 2e-6):
        wrong.append("log-probabilities")
    for row in case.get("logits", []):
        positions, logits = result.first_logits
        if relative_error(row["values"], logits[positions.index(row["position"])]) > 1e-6:
            wrong.append(f"logits of position {row['position']}")
    return wrong


def relative_error(actual, expected):
    """Largest difference of a row of logits, relative to the row's largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def golden_folders(paths):
    """Folders that hold a golden.json: the given ones, or the project's and the shared ones."""
    parents = [GOLDEN, os.path.join(os.path.dirname(ROOT), "shared", "golden")]
    found = paths or [os.path.join(parent, name) for parent in parents if os.path.isdir(parent)
                      for name in sorted(os.listdir(parent))]
    return [path for path in found if os.path.exists(os.path.join(path, "golden.json"))]


def model_folder(folder):
    """Where a golden folder's model is: in it, or under the same name in data/models."""
    if os.path.exists(os.path.join(folder, "config.json")):
        return folder
    return os.path.join(ROOT, "data", "models", os.path.basename(os.path.normpath(folder)))


def command_check(args):
    n_right = n_wrong = 0
    for folder in golden_folders(args.folders):
        model = Model(model_folder(folder))
        files = [os.path.join(folder, name) for name in FILES]
        for case in sum((read_json(file) for file in files if os.path.exists(file)), []):
            wrong = check_case(model, case)
            n_right, n_wrong = n_right + (not wrong), n_wrong + bool(wrong)
            print(f"{case['id']}: {'; '.join(wrong) or 'equal'}", flush=True)
    print(f"{n_right} equal, {n_wrong} different")
    return 1 if n_wrong or not n_right else 0


def command_golden(args):
    write_golden(args.out)


# ---- the shipped model: prompts, decode, comparison with the program's output ----


def load_tokenizer(folder):
    """The trainer's byte-level BPE with the merges of the folder's tokenizer.json. ASCII only."""
    sys.path.insert(0, os.path.join(ROOT, "tools", "train"))
    import bpe
    stored, tokenizer = read_json(os.path.join(folder, "tokenizer.json")), bpe.Tokenizer([], 0)
    tokenizer.ids = dict(stored["model"]["vocab"])
    tokenizer.ids.update({t["content"]: t["id"] for t in stored["added_tokens"]})
    pairs = [m.split(" ") if isinstance(m, str) else m for m in stored["model"]["merges"]]
    tokenizer.ranks = {tuple(pair): rank for rank, pair in enumerate(pairs)}
    return tokenizer


def heldout_requests(folder, n):
    """The first n held-out prompts as token ids, with plain decoding spelled out."""
    tokenizer = load_tokenizer(folder)
    import tasks
    generation = read_json(os.path.join(folder, "generation_config.json"))
    settings = {key: generation[key] for key in ("gen_length", "block_length", "steps")}
    lines = tasks.heldout_lines(-(-n // len(tasks.TASKS)), 7)
    return [{"id": line["id"], "prompt_token_ids": tokenizer.encode_prompt(line["prompt"]),
             **settings, "cache": "none"} for line, _ in zip(lines, range(n))]


def write_lines(path, lines):
    with open(path, "w") as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")


def read_lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def command_prompts(args):
    write_lines(args.out, heldout_requests(args.model, args.n))


def decode_lines(model, lines):
    """Answers with the program's output names, and the closest calls of each."""
    answers = []
    for line in lines:
        case = {**line, "early_stop": not line.get("no_early_stop", False),
                "id_hash": f"{fnv1a(str(line['id'])):016x}"}
        result = decode(model, case)
        answers.append({"id": line["id"], "token_ids": result.token_ids,
                        "logprobs": result.log_probs, "decode": {"steps": result.n_steps},
                        "margins": result.margins.smallest})
        print(f"\r{len(answers)} of {len(lines)} decoded", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return answers


def command_tokens(args):
    write_lines(args.out, decode_lines(Model(args.model), read_lines(args.prompts)))


def compare_answers(expected, actual):
    """Prints each difference with the decisions that were closest, and a summary. True: all token
    ids are equal. Steps are counted apart: near ties may swap two commits of the same tokens."""
    found = {answer["id"]: answer for answer in actual}
    n_equal = n_steps_equal = 0
    worst_log_prob, closest = 0.0, Margins()
    for answer in expected:
        other = found.get(answer["id"], {})
        for kind, distance in answer["margins"].items():
            closest.note(kind, distance)
        if other.get("token_ids") != answer["token_ids"]:
            print(f"{answer['id']}: {other.get('error') or other.get('token_ids')}, expected "
                  f"{answer['token_ids']}; closest calls {answer['margins']}")
            continue
        n_equal += 1
        n_steps_equal += other["decode"]["steps"] == answer["decode"]["steps"]
        if other.get("logprobs"):
            differences = np.abs(np.subtract(other["logprobs"], answer["logprobs"]))
            worst_log_prob = max(worst_log_prob, float(differences.max()))
    print(f"{n_equal} of {len(expected)} equal ({n_steps_equal} also in steps); closest calls of "
          "all: " + ", ".join(f"{kind} {d:.2g}" for kind, d in sorted(closest.smallest.items()))
          + f"; largest difference of a log-probability {worst_log_prob:.2g}")
    return n_equal == len(expected)


def command_compare(args):
    return 0 if compare_answers(read_lines(args.expected), read_lines(args.actual)) else 1


# What dllm-batch(1) says of lines and options that say nothing, for LLaDA's rule.
DEFAULTS = {"cache": "dual", "prompt_refresh_every": 4, "suffix_window": 2, "threshold": 0.9}


def agree_on(args, model, lines, asked):
    """Whether the program, asked, answers as the reference does to the lines."""
    with tempfile.TemporaryDirectory() as folder:
        prompts, out = os.path.join(folder, "prompts.jsonl"), os.path.join(folder, "out.jsonl")
        write_lines(prompts, asked)
        subprocess.run([os.path.join(args.build, "dllm-batch"), "run", "-q", "-m", args.model,
                        "--backend", args.backend, "--token-ids", "--logprobs", "-o", out, prompts],
                       check=True)
        actual = read_lines(out)
    return compare_answers(decode_lines(model, lines), actual)


def command_agree(args):
    """Held-out prompts through both, in one go: plain decoding, and the defaults unsaid."""
    model, lines = Model(args.model), heldout_requests(args.model, args.n)
    bare = [{key: line[key] for key in ("id", "prompt_token_ids")} for line in lines]
    is_plain_equal = agree_on(args, model, lines, lines)
    are_defaults_equal = agree_on(args, model, [{**line, **DEFAULTS} for line in lines], bare)
    return 0 if is_plain_equal and are_defaults_equal else 1


def command_logits(args):
    """Rows of logits as JSON: the masked positions of the given ids, or all when none is masked."""
    model = Model(args.model)
    positions = [i for i, id in enumerate(args.ids) if id == model.mask_id]
    positions = positions or list(range(len(args.ids)))
    for position, row in zip(positions, model.logits(args.ids, positions)):
        print(json.dumps({"position": position, "values": [float(f"{x:.9g}") for x in row]}))


def command_logits_golden(args):
    """Golden cases of a model whose folder is elsewhere: answers and rows of logits, of the first
    held-out prompts whose decode has no close call."""
    model, cases = Model(args.model), []
    for line in heldout_requests(args.model, 50 * args.n):
        settings = {key: line[key] for key in ("gen_length", "block_length", "steps")}
        case = full_case(line["id"], line["prompt_token_ids"], {**settings, "early_stop": True})
        result = decode(model, case)
        if result.margins.is_safe(judge_cuts_by="odds"):
            cases.append(with_answer(case, result, args.rows))
            print(f"{case['id']}: {result.n_steps} steps", flush=True)
        if len(cases) == args.n:
            break
    write_cases(args.out, cases)
    return 0 if len(cases) == args.n else 1


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name, function, help):
        command = commands.add_parser(name, help=help)
        command.set_defaults(function=function)
        return command

    check = add("check", command_check, "decode golden cases and compare")
    check.add_argument("folders", nargs="*", help="default: data/golden/* and ../shared/golden/*")
    golden = add("golden", command_golden, "make the project's golden models and answers")
    golden.add_argument("--out", default=GOLDEN)
    prompts = add("prompts", command_prompts, "write held-out prompts as token ids")
    tokens = add("tokens", command_tokens, "decode such prompts")
    agree = add("agree", command_agree, "decode held-out prompts and compare with the program")
    logits = add("logits", command_logits, "print rows of logits of one canvas")
    rows = add("logits-golden", command_logits_golden, "write golden cases with logits for MODEL")
    for command in (prompts, tokens, agree, logits, rows):
        command.add_argument("model", metavar="MODEL")
    tokens.add_argument("prompts", metavar="PROMPTS")
    for command in (prompts, tokens, rows):
        command.add_argument("out", metavar="OUT")
    for command, n in ((prompts, 50), (agree, 50), (rows, 2)):
        command.add_argument("-n", type=int, default=n, help=f"prompts (default {n})")
    rows.add_argument("--rows", type=int, default=3, help="rows of logits a case (default 3)")
    agree.add_argument("--build", default=os.path.join(ROOT, "build"))
    agree.add_argument("--backend", default="ref")
    logits.add_argument("ids", metavar="ID", type=int, nargs="+")
    compare = add("compare", command_compare, "compare the output of tokens with the program's")
    compare.add_argument("expected", metavar="EXPECTED", help="written by tokens")
    compare.add_argument("actual", metavar="ACTUAL", help="written by dllm-batch --token-ids")
    return parser.parse_args()


def main():
    # Threads cost more than they give on matrices this small.
    torch.set_num_threads(1)
    args = parse_arguments()
    return args.function(args)


if __name__ == "__main__":
    sys.exit(main())
