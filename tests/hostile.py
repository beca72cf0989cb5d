#!/usr/bin/env python3
"""Files from someone else: they may make the program refuse, with the reason, and no more. What
the formats themselves get wrong is in the unit tests and the fuzz targets (tests/fuzz).

Usage: hostile.py EXECUTABLE
"""

import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import threading
import time

from cases import outside_of_jobs, run_cases

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = ROOT / "data" / "models" / "tiny-llada"
PROMPTS = ROOT / "data" / "prompts" / "demo.jsonl"
SECONDS_MAX = 60
MEBIBYTES_MAX = 400  # of memory, whatever a file of 60 MB says
# Ends a line, moves the cursor, sets a title, turns the direction of writing.
FORGED = "dllm-batch: forged"  # on a line of its own
TRICKS = f"\x1b]0;title\x07\x1b[2J\x9b1m\u202egnp\u2066\u2028\n{FORGED}"
MODEL_FILES = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
               "model.safetensors", "model.safetensors.index.json"]


def call(program, folder, *words, **more):
    """What the program did, with both outputs as text."""
    return subprocess.run([os.path.abspath(program), *map(str, words)], cwd=folder, check=False,
                          capture_output=True, encoding="utf-8", errors="surrogateescape",
                          timeout=SECONDS_MAX, env=outside_of_jobs(), stdin=subprocess.DEVNULL,
                          **more)


def peak_mib(program, folder, *words, status=65):
    """The most memory that the program had, in MiB."""
    with open(folder / "said", "w", encoding="utf-8") as said:
        child = subprocess.Popen([program, *map(str, words)], cwd=folder, stdout=said, stderr=said,
                                 env=outside_of_jobs(), stdin=subprocess.DEVNULL)
        timer = threading.Timer(SECONDS_MAX, child.kill)
        timer.start()
        _, how, usage = os.wait4(child.pid, 0)
        timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(how)
    assert child.returncode == status, (words, child.returncode, (folder / "said").read_text())
    return usage.ru_maxrss >> 10


def is_sanitized(program):
    """Sanitizers take memory and address space of their own."""
    return b"__asan_" in pathlib.Path(program).read_bytes()


def copy_model(folder, name="model"):
    return pathlib.Path(shutil.copytree(MODEL, folder / name))


def escapes_reach_no_terminal(program, folder):
    """control characters in names, ids and headers are shown as something else"""
    model = copy_model(folder, "m" + TRICKS)
    (folder / "p.jsonl").write_text(json.dumps({"id": TRICKS, "prompt": TRICKS}) + "\n"
                                    + json.dumps({"id": "x" + TRICKS, "gen_length": TRICKS}))
    name = f"o{TRICKS}.jsonl"
    run = ["run", "-m", model, "--limit", "2"]
    (folder / "h.jsonl").write_text(json.dumps(
        {"header": {"format": 1, "program": TRICKS, "backend": TRICKS, "settings": {TRICKS: TRICKS},
                    "model": {"name": TRICKS, "hash": TRICKS}}}) + "\n")
    profile = json.loads((ROOT / "data" / "profiles" / "h200.json").read_text())
    (folder / "t.json").write_text(json.dumps(profile | {"name": TRICKS[:40]}))
    (folder / "t.csv").write_text(f"{TRICKS},b\n1,{TRICKS}\n")
    commands = [
        (1, [*run, "-o", name, "p.jsonl"]), (1, [*run, "-o", name, "p.jsonl"]),
        (1, [*run, "-o", "-", "--no-compress", "p.jsonl"]),
        (1, [*run, "-v", "--dry-run", "-o", name, "p.jsonl"]),
        (64, [*run, "-o", "h.jsonl", "p.jsonl"]),
        (65, ["verify", name, "h.jsonl"]), (65, ["verify", "--json", name, "h.jsonl"]),
        (1, ["verify", name, "--against", "p.jsonl"]),
        (65, ["merge", "-o", "m.jsonl", name, "h.jsonl"]),
        (0, ["report", name]), (0, ["report", "--json", name]), (0, ["inspect", model]),
        (1, ["plan", "-m", model, "--profile", "h200", "p.jsonl"]),
        (1, ["plan", "--json", "-m", model, "--profile", "h200", "p.jsonl"]),
        (1, ["plan", "-m", model, "--profile", "t.json", "p.jsonl"]),
        (65, ["replay", "-m", model, "--profile", "h200", "t.csv"]),
        (0, ["replay", "-m", model, "--profile", "h200", "-o", "r" + TRICKS, "t.jsonl"]),
        (64, [TRICKS]), (64, ["run", "--" + TRICKS]), (66, ["run", "-m", TRICKS, TRICKS]),
    ]
    (folder / "t.jsonl").write_text('{"arrival_s": 1, "prompt_tokens": 5, "output_tokens": 4}\n')
    for status, words in commands:
        done = call(program, folder, *words)
        assert done.returncode == status and done.stdout + done.stderr, (status, words, done)
        for shown in (done.stdout + done.stderr).replace("\n", ""):
            is_obeyed = ord(shown) < 32 or 127 <= ord(shown) < 160
            assert not is_obeyed and shown not in "\u202e\u2066\u2028", (words, done)
        lines = (done.stdout + done.stderr).splitlines()
        assert not any(line.startswith(FORGED) for line in lines), (words, done)
    header = json.loads((folder / name).read_text().splitlines()[0])["header"]
    assert "\x1b" not in header["model"]["name"], header
    ids = [json.loads(line).get("id") for line in (folder / name).read_text().splitlines()]
    assert TRICKS in ids and "x" + TRICKS in ids, ids


def nul_bytes_are_characters(program, folder):
    """an id with a NUL is answered, found again, merged and reported"""
    (folder / "p.jsonl").write_text('{"id": "a\\u0000b", "prompt": "1+2"}\n'
                                    '{"id": "a\\u0000c", "prompt": "1+2"}\n')
    run = ["run", "-m", MODEL, "-o", "o.jsonl", "p.jsonl"]
    assert call(program, folder, *run).returncode == 0
    assert "nothing is left to do" in call(program, folder, *run).stderr
    for words in (["verify", "o.jsonl", "--against", "p.jsonl"], ["merge", "-o", "m", "o.jsonl"],
                  ["report", "o.jsonl"]):
        done = call(program, folder, *words)
        assert done.returncode == 0, done


def many_values_take_no_memory(program, folder):
    """a text of 60 million letters that would be gigabytes of values is refused"""
    if is_sanitized(program):
        return "memory is the sanitizer's"
    many = '{"header":{"format":1,"x":[' + "{}," * 20_000_000 + "{}]}}"
    (folder / "o.jsonl").write_text(many + "\n")
    subprocess.run(["zstd", "-q", folder / "o.jsonl"], check=True)
    model = copy_model(folder)
    prompts = folder / "p.jsonl"
    prompts.write_text('{"prompt": "1+2"}\n' + many[:12_000_000] + "\n")
    peaks = [
        peak_mib(program, folder, "verify", "o.jsonl.zst"),
        peak_mib(program, folder, "report", "o.jsonl.zst"),
        peak_mib(program, folder, "merge", "-o", "m", "o.jsonl"),
        peak_mib(program, folder, "run", "-m", model, "-o", "o.jsonl", "p.jsonl", status=73),
        peak_mib(program, folder, "run", "-m", model, "-o", "new.jsonl", "p.jsonl", status=1),
        peak_mib(program, folder, "replay", "-m", model, "--profile", "h200", "o.jsonl"),
    ]
    (model / "tokenizer.json").write_text(many)
    peaks.append(peak_mib(program, folder, "inspect", model))
    (model / "tokenizer.json").unlink()
    text = many.encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    peaks.append(peak_mib(program, folder, "inspect", model))
    assert max(peaks) < MEBIBYTES_MAX, peaks


def many_names_and_merges_take_no_memory(program, folder):
    """merges of 80 MB, headers of 300 shards and a cell of 16 MB are refused, or read, in little"""
    if is_sanitized(program):
        return "memory is the sanitizer's"
    model = copy_model(folder)
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    (model / "vocab.json").write_text("{}")
    (model / "merges.txt").write_text("a\n" * 40_000_000)
    peaks = [peak_mib(program, folder, "inspect", model)]
    assert "merges.txt: more than 4194304 merges" in (folder / "said").read_text()
    header = b'{"__metadata__":{"x":[' + b"{}," * 87_000 + b"{}]}}"
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    for i in range(300):
        (model / f"s{i}").hardlink_to(model / "model.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps(
        {"weight_map": {str(i): f"s{i}" for i in range(300)}}))
    peaks.append(peak_mib(program, folder, "inspect", model))
    cell = '"[' + "{}," * 5_500_000 + '{}]"'
    (folder / "t.csv").write_text(f"arrival_s,prompt_tokens,output_tokens,x\n0,10,10,{cell}\n")
    peaks.append(peak_mib(program, folder, "replay", "-m", MODEL, "--profile", "h200", "-o",
                          "r.jsonl", "t.csv", status=0))
    assert max(peaks) < 2 * MEBIBYTES_MAX, peaks


def a_search_behind_damage_ends(program, folder):
    """28 MB that would be a terabyte are not unpacked behind a broken start, nor at the start"""
    block = struct.pack("<I", 131072 << 3 | 2)[:3] + b"a"  # of 128 KiB in four bytes
    endless = b"X\x28\xb5\x2f\xfd\x00\x38" + block * 7_000_000
    assert call(program, folder, "run", "-m", MODEL, "--limit", "2", "-o", "o.jsonl.zst",
                PROMPTS).returncode == 0
    (folder / "d.jsonl.zst").write_bytes((folder / "o.jsonl.zst").read_bytes() + endless)
    (folder / "f.jsonl.zst").write_bytes(endless)
    begin_s = time.monotonic()
    for name, words in (("d", "files that are broken before their end"), ("f", "has no header")):
        done = call(program, folder, "verify", f"{name}.jsonl.zst")
        assert done.returncode == 65 and words in done.stdout, done
    assert time.monotonic() - begin_s < 10, "the search took too long"


def repacked_files_are_not_unpacked_for_every_line(program, folder):
    """merge refuses frames that would be unpacked again and again; verify reads them"""
    lines = [{"header": {"format": 1, "model": {"name": "a", "hash": "b"}, "settings": {}}}]
    lines += [{"id": i, "index": i, "line_hash": "d033d81812aefbab", "text": "a" * 100_000}
              for i in range(60)]
    lines.append({"manifest": {"verdict": "complete", "lines": 60, "input_lines": 60}})
    (folder / "o.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    subprocess.run(["zstd", "-q", folder / "o.jsonl"], check=True)
    assert call(program, folder, "verify", "o.jsonl.zst").returncode == 0
    done = call(program, folder, "merge", "-o", "m.jsonl", "o.jsonl.zst")
    assert done.returncode == 65 and "'zstd -d' makes a file of it that can" in done.stderr, done
    assert call(program, folder, "merge", "-o", "m.jsonl", "o.jsonl").returncode == 0


def later_headers_must_be_readable(program, folder):
    """what run and merge refuse for a header that nobody can read is not complete for verify"""
    assert call(program, folder, "run", "-m", MODEL, "--limit", "2", "-o", "o.jsonl",
                PROMPTS).returncode == 0
    lines = (folder / "o.jsonl").read_text().splitlines(keepends=True)
    for odd in ({"header": {}}, {"header": {"x": "a" * (1 << 20)}}):
        (folder / "o.jsonl").write_text("".join([lines[0], json.dumps(odd) + "\n", *lines[1:]]))
        for words in (["verify", "o.jsonl"], ["merge", "-o", "m.jsonl", "o.jsonl"],
                      ["run", "-m", MODEL, "--limit", "2", "-o", "o.jsonl", PROMPTS]):
            done = call(program, folder, *words)
            assert done.returncode == 65, done


def lines_of_many_runs_are_refused(program, folder):
    """report does not compare each line with 10,000 runs before it"""
    with (folder / "o.jsonl").open("w") as file:
        for i in range(30_000):
            file.write(json.dumps({
                "id": i, "usage": {"prompt_tokens": 1, "completion_tokens": 1},
                "decode": {"refresh_steps": 1, "reuse_steps": 0},
                "timing": {"start_unix_ns": i, "admitted_ns": 1, "finished_ns": 2}}) + "\n")
    done = call(program, folder, "report", "o.jsonl")
    assert done.returncode == 69 and "more than 10000 runs" in done.stderr, done


def links_that_lead_nowhere_are_no_missing_files(program, folder):
    """a dangling link in a model folder, or in place of an output's lock, is refused"""
    for name in MODEL_FILES:
        model = copy_model(folder)
        (model / name).unlink(missing_ok=True)
        (model / name).symlink_to("nowhere")
        for words in (["inspect", model],
                      ["run", "-m", model, "--limit", "1", "-o", "-", PROMPTS]):
            done = call(program, folder, *words)
            assert done.returncode in (65, 66, 74) and name in done.stdout + done.stderr, done
        shutil.rmtree(model)
    (folder / "o.jsonl.lock").symlink_to("nowhere")
    done = call(program, folder, "run", "-m", MODEL, "-o", "o.jsonl", PROMPTS)
    assert done.returncode == 73 and "o.jsonl.lock" in done.stderr, done


def pipes_are_not_waited_for(program, folder):
    """a pipe in a model folder is refused at once: nobody will ever write to it"""
    for name in MODEL_FILES:
        model = copy_model(folder)
        if name.endswith("index.json"):
            (model / "model.safetensors").unlink()
        (model / name).unlink(missing_ok=True)
        os.mkfifo(model / name)
        for words in (["inspect", model], ["run", "-m", model, "-o", "-", PROMPTS]):
            done = call(program, folder, *words)
            assert done.returncode in (65, 66, 74) and name in done.stdout + done.stderr, done
        shutil.rmtree(model)


def a_limit_of_address_space_is_named(program, folder):
    """ulimit -v, which reservations cannot bear, is named when they fail"""
    if is_sanitized(program):
        return "address space is the sanitizer's"

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))

    done = call(program, folder, "run", "-m", MODEL, "-o", "o.jsonl", PROMPTS, preexec_fn=limit)
    assert done.returncode == 69 and "'ulimit -v' must be unlimited" in done.stderr, done


CASES = [
    escapes_reach_no_terminal,
    nul_bytes_are_characters,
    many_values_take_no_memory,
    many_names_and_merges_take_no_memory,
    a_search_behind_damage_ends,
    repacked_files_are_not_unpacked_for_every_line,
    later_headers_must_be_readable,
    lines_of_many_runs_are_refused,
    links_that_lead_nowhere_are_no_missing_files,
    pipes_are_not_waited_for,
    a_limit_of_address_space_is_named,
]

if __name__ == "__main__":
    run_cases(CASES, os.path.abspath(sys.argv[1]))
