#!/usr/bin/env python3
"""Runs shards of a file and puts their answers together again: whatever the launcher, the number of
shards and the way of sharing lines out, the union is what one run answers, line by line. Prints
TAP.

Usage: shards.py EXECUTABLE
"""

import json
import os
import pathlib
import random
import select
import subprocess
import sys
import time

from cases import outside_of_jobs, run_cases

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODEL = ROOT / "data" / "models" / "tiny-llada"
SECONDS_MAX = 60
ARRAY = {"MIN": 4, "MAX": 10, "STEP": 2, "COUNT": 4}


def run(program, folder, *words, status=0, env=None, text=None):
    """Standard output and standard error of `run`."""
    environment = outside_of_jobs()
    done = subprocess.run(
        [str(w) for w in (program, "run", "-m", MODEL, *words)], cwd=folder, input=text,
        env=environment | (env or {}), capture_output=True, timeout=SECONDS_MAX, check=False,
        encoding="utf-8",
        **({} if text is not None else {"stdin": subprocess.DEVNULL}),
    )
    statuses = status if isinstance(status, tuple) else (status,)
    assert done.returncode in statuses, (words, done.returncode, done.stderr)
    return done.stdout, done.stderr


def answers(lines):
    """Lines without what depends on the clock, by index in the input; records apart."""
    found = {}
    for line in lines:
        answer = json.loads(line)
        if "header" in answer or "manifest" in answer:
            continue
        answer.pop("timing", None)
        if "response" in answer:
            answer["response"]["body"].get("dllm", {}).pop("timing", None)
        index = answer["index"] if "index" in answer else answer["id"]
        assert index not in found, f"{index} twice"
        found[index] = answer
    return found


def write_prompts(path):
    """Prompts of many lengths and forms, among them lines that get errors; blank ones, too."""
    rng = random.Random(7)
    lines = []
    for i in range(60):
        line = {"prompt": "word " * rng.randrange(1, 12), "gen_length": 8 * rng.randrange(1, 9)}
        if i % 3 == 0:
            line["id"] = f"request-{i}"
        if i % 7 == 0:
            line |= {"cache": "none", "threshold": 0, "block_length": 8}
        lines.append(json.dumps(line))
    lines[10] = '{"prompt": 7}'
    lines[11] = "{"
    lines[13] = ""
    lines[20] = '{"prompt": "again", "id": "request-0"}'
    lines[21] = '{"prompt": "first of its id", "id": 31}'
    lines[25] = '{"prompt": "a <|mdm_mask|><|mdm_mask|> b"}'
    lines[26] = '{"prompt": "a", "gen_length": 1000000}'
    lines[40] = "   "
    path.write_text("\n".join(lines) + "\n")
    return lines


def fnv(kind, text):
    value = 0xCBF29CE484222325
    for byte in (kind + text).encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


# ---- cases: functions of (program, folder) ----


def shards_make_the_whole(program, folder):
    """by cost and by hash, shards answer every line once, as one run does"""
    lines = write_prompts(folder / "p.jsonl")
    run(program, folder, "-q", "--token-ids", "-o", "whole.jsonl", "p.jsonl", status=1)
    whole = answers((folder / "whole.jsonl").read_text().splitlines())
    assert len(whole) == sum(bool(line.strip()) for line in lines)
    for by in ("cost", "hash"):
        for count in (1, 4, 7):
            union = {}
            for i in range(count):
                words = ["-q", "--token-ids", "--shard", f"{i}/{count}", "--shard-by", by,
                         "--no-compress", "-f", "p.jsonl"]
                environment = outside_of_jobs()
                done = subprocess.run([program, "run", "-m", MODEL, *words], cwd=folder,
                                      env=environment, check=False)
                name = f"p.out.{i:05}-of-{count:05}.jsonl" if count > 1 else "p.out.jsonl"
                part = answers((folder / name).read_text().splitlines())
                assert done.returncode == any("error" in a for a in part.values()), (by, i)
                assert not union.keys() & part.keys()
                union |= part
                if by == "hash":
                    hashed = [a for a in part.values() if a.get("id") == f"request-{3 * count}"]
                    assert all(fnv("s", a["id"]) % count == i for a in hashed)
            assert union == whole, (by, count)
    for index in (20, 31):
        assert whole[index]["error"]["code"] == "duplicate_id", whole[index]


def envelopes_are_those_of_the_whole(program, folder):
    """an unreadable line of an OpenAI batch has its envelope, whoever has the lines before it"""
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 8}
    (folder / "p.jsonl").write_text("".join(
        "{\n" if i == 3 else json.dumps({"custom_id": f"c{i}", "method": "POST",
                                         "url": "/v1/chat/completions", "body": body}) + "\n"
        for i in range(8)))
    words = ["-q", "--no-compress", "-o", "-", "p.jsonl"]
    whole = answers(run(program, folder, *words, status=1)[0].splitlines())
    for by in ("cost", "hash"):
        union = {}
        for i in range(3):  # the line without id is the shard's of its place
            output, _ = run(program, folder, *words, "--shard", f"{i}/3", "--shard-by", by,
                            status=int(i == 0))
            union |= answers(output.splitlines())
        assert union == whole and len(whole) == 8, by


def shards_are_even(program, folder):
    """by cost: what shards compute differs by little, and what -v expects is told"""
    rng = random.Random(3)
    (folder / "p.jsonl").write_text("".join(
        json.dumps({"prompt": "a " * rng.randrange(1, 90), "gen_length": 8 * rng.randrange(1, 13)})
        + "\n" for _ in range(240)))
    positions = []
    for i in range(4):
        output, said = run(program, folder, "-v", "--threshold", "0", "--no-early-stop", "--shard",
                           f"{i}/4", "-o", "-", "--no-compress", "p.jsonl")
        line = next(row for row in said.splitlines() if "predicted imbalance" in row)
        assert f"shard {i} of 4 has " in line and " of 240 lines" in line, line
        imbalance = float(line.split("imbalance ")[1].split(" %")[0])
        assert 0 <= imbalance <= 2, line
        n_others = 240 - len(output.splitlines())
        assert f"without an answer when this one began: {n_others}\n" in said, said
        found = answers(output.splitlines())
        positions.append(sum(answer["decode"]["positions"] for answer in found.values()))
    assert max(positions) < 1.05 * sum(positions) / 4, positions


def launchers_are_announced(program, folder):
    """auto: variables make shards and are named; without srun a batch script does all the work"""
    (folder / "p.jsonl").write_text('{"prompt": "a", "gen_length": 8}\n' * 9)
    array = {f"SLURM_ARRAY_TASK_{k}": str(v) for k, v in ARRAY.items()}
    batch = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    step = batch | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
    cases = [
        (array | batch | {"SLURM_ARRAY_TASK_ID": "8"}, (2, 4), "SLURM_ARRAY_TASK_ID=8"),
        (array | step | {"SLURM_ARRAY_TASK_ID": "8"}, (5, 8),
         "SLURM_ARRAY_TASK_ID=8, SLURM_PROCID=1"),
        (step, (1, 2), "SLURM_PROCID=1"),
        ({"JOB_COMPLETION_INDEX": "2", "DLLM_SHARDS": "3"}, (2, 3), "JOB_COMPLETION_INDEX=2"),
        ({"RANK": "2", "WORLD_SIZE": "3"}, (2, 3), "RANK=2"),
        ({"DLLM_SHARD": "2/3"}, (2, 3), "DLLM_SHARD=2/3"),
        (batch, None, ""), ({"RANK": "2"}, None, ""), ({"PARALLEL_SEQ": "2"}, None, ""),
    ]
    for number, (env, shard, origin) in enumerate(cases):
        name = f"{number}.jsonl"
        _, said = run(program, folder, "-o", name, "p.jsonl", env=env)
        if shard is None:
            assert len(answers((folder / name).read_text().splitlines())) == 9, env
            assert "shard" not in said, said
            continue
        index, count = shard
        assert f"shard {index} of {count}, counted from 0, by {origin}\n" in said, said
        lines = (folder / f"{number}.{index:05}-of-{count:05}.jsonl").read_text().splitlines()
        assert len(answers(lines)) == 9 // count + (index < 9 % count), (env, lines)
        _, said = run(program, folder, "-f", "--shard", "off", "-o", name, "p.jsonl", env=env)
        assert "shard" not in said, said
        assert len(answers((folder / name).read_text().splitlines())) == 9


def what_no_shard_may_have_is_refused(program, folder):
    """a bad line of any shard stops --strict; a shard without lines has a file without answers"""
    (folder / "p.jsonl").write_text('{"prompt": "a", "gen_length": 8}\n' * 3)
    for by in ("cost", "hash"):
        n_lines = 0
        for i in range(5):
            run(program, folder, "--shard", f"{i}/5", "--shard-by", by, "--strict", "p.jsonl")
            name = f"p.out.{i:05}-of-00005.jsonl.zst"
            text = subprocess.run(["zstd", "-dcq", name], cwd=folder, check=True,
                                  capture_output=True).stdout
            n_lines += len(answers(text.splitlines()))
            run(program, folder, "--shard", f"{i}/5", "--shard-by", by, "p.jsonl")
            (folder / name).unlink()
            output, _ = run(program, folder, "--shard", f"{i}/5", "--dry-run", "p.jsonl")
            assert f"output: {name}, zstd\n" in output, output
        assert n_lines == 3
    with (folder / "p.jsonl").open("a") as file:
        file.write('{"prompt": 1}\n')
    for i in range(2):
        run(program, folder, "-q", "--shard", f"{i}/2", "--strict", "p.jsonl", status=65)
    assert not list(folder.glob("*.out.*"))
    (folder / "empty.jsonl").write_text("\n")
    _, said = run(program, folder, "--shard", "0/2", "empty.jsonl", status=65)
    assert "has no prompts" in said, said


def limits_count_the_whole_input(program, folder):
    """--limit: the lines of all shards together; --ordered and --iterations are a shard's own"""
    write_prompts(folder / "p.jsonl")
    for by in ("cost", "hash"):
        found = []
        for i in range(3):
            output, _ = run(program, folder, "-q", "--limit", "9", "--shard", f"{i}/3",
                            "--shard-by", by, "--ordered", "-o", "-", "--no-compress",
                            "--iterations", "i.jsonl", "-f", "p.jsonl")
            part = list(answers(output.splitlines()))
            assert part == sorted(part)
            found += part
            text = (folder / f"i.{i:05}-of-00003.jsonl").read_text()
            assert bool(text) == bool(part)
        assert sorted(found) == list(range(9)), by


def a_shard_goes_on_where_it_ended(program, folder):
    """a broken file gets the rest of its shard, also of an input that has grown"""
    write_prompts(folder / "p.jsonl")
    for by in ("cost", "hash"):
        words = ["-q", "--shard", "1/3", "--shard-by", by, "--no-compress", "-o", f"{by}.jsonl",
                 "p.jsonl"]
        run(program, folder, *words, status=1)
        path = folder / f"{by}.00001-of-00003.jsonl"
        data = path.read_bytes()
        whole = answers(data.decode().splitlines())
        path.write_bytes(data[: len(data) * 2 // 3])
        run(program, folder, *words, status=1)
        assert answers(path.read_text().splitlines()) == whole, by
    with (folder / "p.jsonl").open("a") as file:
        file.write('{"prompt": "more", "gen_length": 200}\n' * 9)
    for by in ("cost", "hash"):
        path = folder / f"{by}.00001-of-00003.jsonl"
        before = answers(path.read_text().splitlines())
        run(program, folder, *[by if w == "hash" else w.replace("hash.", f"{by}.") for w in words],
            status=1)
        assert answers(path.read_text().splitlines()).items() >= before.items(), by


def the_number_of_shards_may_change(program, folder):
    """what a shard of any earlier number answered is not asked again"""
    write_prompts(folder / "p.jsonl")
    words = ["-q", "--no-compress", "-o", "x.jsonl", "p.jsonl"]
    whole = answers(run(program, folder, "-q", "--no-compress", "-o", "-", "p.jsonl",
                        status=1)[0].splitlines())

    def found():
        lines = [line for path in sorted(folder.glob("x*.jsonl"))
                 for line in path.read_text().splitlines()]
        return answers(lines)  # none is there twice

    for shard in ("0/3", "2/3", "1/2"):
        run(program, folder, "--shard", shard, *words, status=(0, 1))
    part = found()
    assert part.items() < whole.items()
    for i in range(4):
        run(program, folder, "--shard", f"{i}/4", "--shard-by", "hash", *words, status=(0, 1))
    assert found() == whole
    # The last shards alone lack what was answered before; all files together do not.
    last, every = sorted(folder.glob("x*-of-00004.jsonl")), sorted(folder.glob("x*.jsonl"))
    for command in (["merge", "-o", "m.jsonl"], ["verify"]):
        done = subprocess.run([program, *command, *last], cwd=folder, env=outside_of_jobs(),
                              capture_output=True, text=True, check=False)
        assert done.returncode == 75, done
        advice = ("lines of the input are in none", "name the files of all shards")
        assert any(text in done.stderr for text in advice), done
    assert not (folder / "m.jsonl").exists()
    done = subprocess.run([program, "merge", "-o", "m.jsonl", *every], cwd=folder, check=False,
                          env=outside_of_jobs(), capture_output=True, text=True)
    assert done.returncode == 1, done
    assert answers((folder / "m.jsonl").read_text().splitlines()) == whole
    run(program, folder, *words, status=(0, 1))
    assert found() == whole
    (folder / "x.00000-of-00003.jsonl").unlink()
    run(program, folder, *words, status=(0, 1))
    assert found() == whole
    # Without shards, over shards of which not all were run.
    for path in folder.glob("*.jsonl"):
        if path.name != "p.jsonl":
            path.unlink()
    run(program, folder, "--shard", "1/3", *words, status=(0, 1))
    run(program, folder, *words, status=(0, 1))
    assert found() == whole
    every = sorted(folder.glob("x*.jsonl"))
    assert len(every) == 2, every
    for command in (["merge", "-o", "m.jsonl"], ["verify"]):
        done = subprocess.run([program, *command, *every], cwd=folder, env=outside_of_jobs(),
                              capture_output=True, text=True, check=False)
        assert done.returncode == 1, done
    assert answers((folder / "m.jsonl").read_text().splitlines()) == whole


def the_input_may_change(program, folder):
    """the newest shard knows how many lines the input has; merge takes another order, and tells"""
    lines = [json.dumps({"id": i, "prompt": f"Add {i} and 1."}) for i in range(14)]
    words = ["-q", "--no-compress", "--gen-length", "8", "-o", "x.jsonl", "p.jsonl"]

    def merge(status):
        done = subprocess.run([program, "merge", "-f", "-o", "m.jsonl",
                               *sorted(folder.glob("x*.jsonl"))], cwd=folder, capture_output=True,
                              env=outside_of_jobs(), text=True, check=False)
        assert done.returncode == status, done
        return done.stderr

    for shard, n in (("0/2", 14), ("1/2", 10)):
        (folder / "p.jsonl").write_text("\n".join(lines[:n]))
        run(program, folder, "--shard", shard, *words)
    merge(0)
    (folder / "p.jsonl").write_text("\n".join(lines))
    run(program, folder, "--shard", "0/2", *words)
    run(program, folder, "--shard", "1/2", *words)
    merge(0)
    for path in folder.glob("x*.jsonl"):
        path.unlink()
    run(program, folder, "--limit", "6", *words)
    (folder / "p.jsonl").write_text("\n".join(reversed(lines)))
    run(program, folder, *words)
    assert "the input stood in another order" in merge(0)
    found = [json.loads(line) for line in (folder / "m.jsonl").read_text().splitlines()[1:-1]]
    assert sorted(answer["id"] for answer in found) == list(range(14)), found
    # Outputs of two inputs share indices, too, and are more lines than one had.
    (folder / "p.jsonl").write_text("\n".join(lines).replace('"id": ', '"id": 1'))
    run(program, folder, *[w.replace("x.", "xy.") for w in words])
    assert "these are not outputs of one input" in merge(65)
    # As many lines as one input had, and of two.
    for path in folder.glob("x*.jsonl"):
        path.unlink()
    (folder / "p.jsonl").write_text("\n".join(lines[:7]).replace('"id": ', '"id": 7'))
    run(program, folder, *[w.replace("x.", "xy.") for w in words])
    (folder / "p.jsonl").write_text("\n".join(lines))
    run(program, folder, "--shard", "0/2", *words)
    done = subprocess.run([program, "verify", *sorted(folder.glob("x*.jsonl"))], cwd=folder,
                          capture_output=True, env=outside_of_jobs(), text=True, check=False)
    assert done.returncode == 75 and "shard 1 of 2 is not among the files" in done.stdout, done
    assert "shard 1 of 2 is not among the files" in merge(75)


def a_pipe_is_shared_out_by_ids(program, folder):
    """--shard-by hash: a stream is answered as it comes, be the next line another shard's"""
    environment = outside_of_jobs()
    command = [program, "run", "-q", "-m", MODEL, "--shard", "1/2", "--shard-by", "hash",
               "--no-compress", "--gen-length", "8"]
    ours = [i for i in range(20) if fnv("i", str(i)) % 2 == 1]
    others = [i for i in range(20) if fnv("i", str(i)) % 2 == 0]
    with subprocess.Popen([str(w) for w in command], stdin=subprocess.PIPE, env=environment,
                          stdout=subprocess.PIPE, cwd=folder) as process:
        for id_ in (others[0], ours[0], others[1]):
            process.stdin.write(f'{{"prompt": "a", "id": {id_}}}\n'.encode())
        process.stdin.flush()
        deadline = time.monotonic() + SECONDS_MAX
        ready, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        assert ready, "no answer while the pipe was silent"
        assert json.loads(process.stdout.readline())["id"] == ours[0]
        process.stdin.write(f'{{"prompt": "a", "id": {ours[1]}}}\n'.encode())
        rest, _ = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == 0
    assert [json.loads(line)["id"] for line in rest.splitlines()] == [ours[1]]
    text = '{"prompt": "a", "gen_length": 8}\n'
    for env in ({"RANK": "1", "WORLD_SIZE": "2"}, {"DLLM_SHARD": "1/2"}):
        _, said = run(program, folder, "-", text=text, env=env, status=64)
        assert "needs a file, not standard input" in said, said
        assert run(program, folder, "-q", "--shard", "off", "--no-compress", text=text, env=env)[0]
    _, said = run(program, folder, "-", "--shard", "1/2", text=text, status=64)
    assert "shard 1 of 2 by cost needs a file" in said, said
    assert run(program, folder, "-q", "--no-compress", text=text, env={"RANK": "0",
                                                                       "WORLD_SIZE": "1"})[0]


CASES = [
    shards_make_the_whole,
    envelopes_are_those_of_the_whole,
    shards_are_even,
    launchers_are_announced,
    what_no_shard_may_have_is_refused,
    limits_count_the_whole_input,
    a_shard_goes_on_where_it_ended,
    the_number_of_shards_may_change,
    the_input_may_change,
    a_pipe_is_shared_out_by_ids,
]


def main():
    run_cases(CASES, os.path.abspath(sys.argv[1]))


if __name__ == "__main__":
    main()
