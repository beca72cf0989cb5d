#!/usr/bin/env python3
"""Checks plans, profiles and reports as somebody would who has only the manuals: reads what `plan
--out`, `--perfetto`, `--svg` and `--json`, `profile` and `report --json` write, and computes it
again. Prompts are random, seeds fixed. Prints TAP.

Usage: plans.py EXECUTABLE DATA_FOLDER
"""

import collections
import json
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

BLOCK, GENERATE = 32, 96
RETENTION, DELAY = 0.5, 1


class Step:
    """What a step of a block feeds, sees of the cache, and leaves in it for the others."""

    def __init__(self, cache, length, block, step):
        begin = length - GENERATE + block * BLOCK
        rest = {"none": 0, "dual": length - BLOCK, "prefix": begin,
                "sparse": max(1, math.floor(RETENTION * (length - BLOCK)))}[cache]
        n_full = {"none": BLOCK, "sparse": DELAY + 1}.get(cache, 1)
        self.is_full = step < n_full
        self.rows = length if self.is_full else length - begin if cache == "prefix" else BLOCK
        self.cached = 0 if self.is_full else rest
        self.picks = BLOCK - step
        # Slots are held from the step that selects them to the block's last.
        self.holds = rest if step >= n_full - 1 else 0



class Shape:
    """What dllm-batch(5) says an iteration costs, for a configuration and a profile."""

    def __init__(self, config, profile):
        self.layers, hidden = config["n_layers"], config["d_model"]
        heads = config["n_heads"] * (hidden // config["n_heads"])
        cached = config["n_kv_heads"] * (hidden // config["n_heads"])
        per_layer = 2 * heads + 2 * cached + 3 * config["mlp_hidden_size"]
        self.weights = per_layer * hidden * self.layers
        self.head = hidden * config["embedding_size"]
        self.attention = 4 * heads * self.layers
        self.slot_bytes = 2 * cached * self.layers * profile["kv_element_bytes"]["value"]
        self.profile = profile

    def rate(self, rows):
        table = [(r["rows"], r["flops_per_s"]) for r in self.profile["rates"]["value"]]
        if rows <= table[0][0]:
            return table[0][1]
        for (a, low), (b, high) in zip(table, table[1:]):
            if rows <= b:
                return low + (rows - a) / (b - a) * (high - low)
        return table[-1][1]

    def product(self, rows, weights):
        if rows == 0:
            return 0
        bandwidth = self.profile["bytes_per_s"]["value"]
        return max(2 * weights * rows / self.rate(rows), 2 * weights / bandwidth)

    def iteration_ns(self, rows, picks, row_keys, cached):
        attention = max(
            self.attention * row_keys / self.profile["attention_flops_per_s"]["value"],
            self.slot_bytes * cached / self.profile["bytes_per_s"]["value"],
        )
        seconds = self.product(rows, self.weights) + attention + self.product(picks, self.head)
        return self.profile["base_ns"]["value"] + 1e9 * seconds


def table(data, name):
    """Rows of a table as objects that have its columns."""
    columns = data[name + "_columns"]
    row = collections.namedtuple(name, columns)
    return [row(*values) for values in data[name + "s"]]


def check_steps(plan, n_requests):
    """Every request takes each step of each block once, in order, in one iteration each."""
    taken = collections.defaultdict(list)
    for run in table(plan, "run"):
        for i in range(run.steps):
            taken[run.request].append((run.iteration_begin + i, run.block, run.step_begin + i))
    wanted = [(block, step) for block in range(GENERATE // BLOCK) for step in range(BLOCK)]
    assert sorted(taken) == list(range(n_requests))
    for steps in taken.values():
        iterations = [iteration for iteration, _, _ in steps]
        assert iterations == sorted(set(iterations)), "two steps in one iteration"
        assert [step[1:] for step in steps] == wanted, "a step is missing or out of order"
    return taken


def check_extents(plan, taken, cache, lengths):
    """What a block keeps lies in the pool, and no two that live at a time share a slot."""
    lives = collections.defaultdict(list)
    places = {}
    for run in table(plan, "run"):
        key = run.request, run.block
        places[key] = max(run.kept_slot, places.get(key, -1))
    for request, steps in taken.items():
        for iteration, block, step in steps:
            n = Step(cache, lengths[request], block, step).holds
            begin = places[request, block]
            assert n == 0 or 0 <= begin and begin + n <= plan["slots"], "outside the pool"
            if n > 0:
                lives[iteration].append((begin, begin + n))
    for extents in lives.values():
        extents.sort()
        assert all(a[1] <= b[0] for a, b in zip(extents, extents[1:])), "extents overlap"


def check_iterations(plan, taken, cache, lengths, shape):
    """Rows and times of each iteration, from the steps that it holds."""
    held = collections.defaultdict(list)
    for request, steps in taken.items():
        for iteration, block, step in steps:
            held[iteration].append(Step(cache, lengths[request], block, step))
    end = 0
    for i, iteration in enumerate(table(plan, "iteration")):
        steps = held[i]
        assert iteration.refresh_rows == sum(step.rows for step in steps if step.is_full)
        assert iteration.rows == sum(step.rows for step in steps) <= plan["rows_max"]
        assert iteration.requests == len(steps)
        took = shape.iteration_ns(
            iteration.rows, sum(step.picks for step in steps),
            sum(step.rows * (step.rows + step.cached) for step in steps),
            sum(step.cached for step in steps),
        )
        assert math.isclose(iteration.end_ns - iteration.start_ns, took, rel_tol=1e-6), took
        assert iteration.start_ns == end, "a hole in time"
        end = iteration.end_ns
    assert end == plan["makespan_ns"]


def check_summary(plan, summary):
    """The printed figures, from the data."""
    requests, iterations = table(plan, "request"), table(plan, "iteration")
    best = summary["plans"][0]
    positions = sum(iteration.rows for iteration in iterations)
    assert best["positions"] == positions == sum(request.positions for request in requests)
    assert best["tokens"] == sum(request.tokens for request in requests)
    ends = sorted(request.finished_ns - request.arrival_ns for request in requests)
    assert math.isclose(best["latency_mean_s"], sum(ends) / len(ends) * 1e-9, rel_tol=1e-6)
    middle = [ends[(len(ends) - 1) // 2] * (1 - 1e-6), ends[len(ends) // 2] * (1 + 1e-6)]
    assert middle[0] <= best["latency_p50_s"] * 1e9 <= middle[1]
    share = sum(iteration.refresh_rows for iteration in iterations) / positions
    assert math.isclose(best["refresh_percent"], 100 * share, rel_tol=1e-6)
    assert best["bound_s"] <= best["bound_memory_s"] * (1 + 1e-6) <= best["makespan_s"] * (1 + 2e-6)


def check_trace(plan, trace):
    """Slices of a request are its runs cut by phase; the counters are the iterations."""
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    counters = [event for event in trace["traceEvents"] if event["ph"] == "C"]
    assert len(counters) == 2 * len(plan["iterations"])
    assert sum(event["args"]["steps"] for event in slices) == sum(run[3] for run in plan["runs"])
    refresh = sum(event["args"]["steps"] for event in slices if event["name"] == "Refresh")
    assert refresh == sum(request.refresh_steps for request in table(plan, "request"))
    assert all(event["dur"] > 0 for event in slices)


def check_drawing(plan, root):
    """Paths lie within the drawing, and the titles name every part."""
    width, height = (float(root.get(side)) for side in ("width", "height"))
    paths = [path.get("d") for path in root.iter() if path.tag.endswith("path")]
    assert len(paths) > 10
    for path in paths:
        for x, y in re.findall(r"M(-?[\d.]+) (-?[\d.]+)", path):
            assert 0 <= float(x) <= width and 0 <= float(y) <= height, path[:60]
        for x in re.findall(r"H(-?[\d.]+)", path):
            assert 0 <= float(x) <= width, path[:60]
    text = " ".join(node.text or "" for node in root.iter() if node.tag.endswith("text"))
    assert f"{len(plan['requests'])} requests" in text
    for title in ("Rows of an iteration", "KV slots held", "Requests", "seconds"):
        assert title in text, title


def check_plan(executable, data, folder, case):
    n_requests, rows, slots, cache, policy, objective, device = case
    source = random.Random(str(case))
    drawn = (min(900, source.lognormvariate(5, 0.8)) for _ in range(n_requests))
    lengths = [int(length) + 8 + GENERATE for length in drawn]
    prompts = ({"prompt_token_ids": [1] * (length - GENERATE)} for length in lengths)
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
    config = json.loads((data / "shapes" / "llada-8b" / "config.json").read_text())
    profile = json.loads((data / "profiles" / f"{device}.json").read_text())
    shape = Shape(config, profile)
    done = subprocess.run(
        [executable, "plan", "-m", "llada-8b", "--profile", device, "--cache", cache,
         "--rows", str(rows), "--kv-memory", str(int(slots * shape.slot_bytes)), "--policy", policy,
         "--objective", objective, "--gen-length", str(GENERATE), "--block-length", str(BLOCK),
         "--json", "-f", "--out", "plan.json", "--perfetto", "trace.json", "--svg", "plan.svg",
         path.name],
        cwd=folder, check=True, capture_output=True,
    )
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["slots"] == slots and plan["rows_max"] == rows
    assert all(row[6] <= slots for row in plan["iterations"]), "more held than there is"
    if plan["policy"] == "static":
        return  # pads, and holds a batch's slots together: the figures above are all it promises
    taken = check_steps(plan, n_requests)
    check_extents(plan, taken, cache, lengths)
    check_iterations(plan, taken, cache, lengths, shape)
    check_summary(plan, json.loads(done.stdout))
    check_trace(plan, json.loads((folder / "trace.json").read_text()))
    check_drawing(plan, xml.etree.ElementTree.parse(folder / "plan.svg").getroot())


def check_profile(executable, data, folder):
    """A measured profile predicts its samples as it says, and its errors are theirs."""
    subprocess.run(
        [executable, "profile", "-m", data / "golden" / "llada-gqa", "box.json"], cwd=folder,
        check=True, capture_output=True,
    )
    profile = json.loads((folder / "box.json").read_text())
    config = json.loads((data / "golden" / "llada-gqa" / "config.json").read_text())
    shape = Shape(config, profile)
    errors = {False: [], True: []}
    for sample in table(profile, "sample"):
        predicted = shape.iteration_ns(
            sample.rows, sample.picks, sample.row_keys, sample.cached_rows
        )
        assert math.isclose(sample.predicted_ns, predicted, rel_tol=0.01), (sample, predicted)
        errors[sample.held_out].append(abs(sample.predicted_ns / sample.measured_ns - 1))
    for name, held_out in (("fit", False), ("held_out", True)):
        told, found = profile[name], sorted(errors[held_out])
        assert told["samples"] == len(found) > 5
        assert math.isclose(told["median_error"], found[(len(found) - 1) // 2], abs_tol=0.001)
        assert math.isclose(told["largest_error"], found[-1], abs_tol=0.001)


def run_timed(executable, data, folder, *options):
    """A run with the profile that was measured: its summary and its iterations."""
    done = subprocess.run(
        [executable, "run", "-m", data / "golden" / "llada-gqa", "--profile", "box.json", "-f",
         "--iterations", "i.jsonl", "--log-format", "json", "--progress", "never",
         "--no-compress", "-o", "a.jsonl", *options, "t.jsonl"],
        cwd=folder, check=True, capture_output=True,
    )
    summary = json.loads(done.stderr.splitlines()[-1])
    return summary, [json.loads(line) for line in open(folder / "i.jsonl", encoding="utf-8")]


def check_times(executable, data, folder):
    """Predicted and actual time of each iteration, their sums, and the plan that was ahead."""
    source = random.Random(3)
    prompts = ({"prompt_token_ids": [source.randrange(5, 50) for _ in range(2 + i % 17)]}
               for i in range(40))
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
    config = json.loads((data / "golden" / "llada-gqa" / "config.json").read_text())
    shape = Shape(config, json.loads((folder / "box.json").read_text()))
    lengths = ["--gen-length", "16", "--block-length", "8", "--window", "15", "--threshold", "0"]
    for options in (["--cache", "dual"], ["--cache", "none", "--policy", "static"],
                    ["--cache", "sparse", "--cfg-scale", "0.5"], ["--threshold", "0.02"]):
        is_open = options[0] == "--threshold"
        summary, iterations = run_timed(
            executable, data, folder, *lengths, "--no-early-stop", *options)
        for i in iterations:
            wanted = shape.iteration_ns(i["rows"], i["picks"], i["row_keys"], i["cached_rows"])
            assert abs(i["predicted_ns"] - wanted) <= 1 + 1e-6 * wanted, (i, wanted)
        assert all(a["end_ns"] <= b["begin_ns"] for a, b in zip(iterations, iterations[1:]))
        took = [i["end_ns"] - i["begin_ns"] for i in iterations]
        assert len(iterations) == summary["forwards"]
        assert sum(took) == summary["iterations_ns"] <= summary["elapsed_ns"]
        assert summary["compute_ns"] + summary["planning_ns"] > 0
        assert sum(i["rows"] for i in iterations) == summary["positions"]
        assert sum(i["picks"] for i in iterations) == summary["picks"]
        assert sum(i["predicted_ns"] for i in iterations) == summary["predicted_ns"]
        off = sorted(abs(i["predicted_ns"] / t - 1) for i, t in zip(iterations, took))
        told, half = summary["prediction_error_median"], off[(len(off) - 1) // 2]
        assert told >= 2 or half <= told + 1e-9 <= half + 0.011, (told, half)
        # What ends as expected runs as planned, to the nanosecond.
        assert (summary["surprises"] > 0) == is_open
        assert (summary["planned_ns"] == summary["predicted_ns"]) != is_open, summary
    shown = subprocess.run([executable, "report", "--json", "a.jsonl", "i.jsonl"], cwd=folder,
                           check=True, capture_output=True)
    run = json.loads(shown.stdout)["runs"][0]
    assert run["iterations"] == len(iterations)
    assert math.isclose(run["iterations_s"] * 1e9, sum(took), rel_tol=1e-6)
    assert math.isclose(run["predicted_s"] * 1e9, summary["predicted_ns"], rel_tol=1e-6)
    assert math.isclose(run["prediction_error_p50_percent"], 100 * half, rel_tol=1e-6)


def check_report(executable, folder):
    """Percentiles of random records."""
    source, lines, waits = random.Random(5), [], []
    for i in range(997):
        start = source.randrange(10**9)
        waits.append(source.randrange(1, 10**10))
        lines.append(json.dumps({
            "id": i, "index": i, "text": "", "finish_reason": "length",
            "usage": {"prompt_tokens": 5, "completion_tokens": 4},
            "decode": {"steps": 4, "blocks": 1, "refresh_steps": 1, "reuse_steps": 3},
            "timing": {"admitted_ns": start, "first_forward_ns": start + waits[-1] // 2,
                       "first_block_ns": None, "finished_ns": start + waits[-1]},
        }))
    (folder / "r.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [executable, "report", "--json", "r.jsonl"], cwd=folder, check=True, capture_output=True
    )
    run = json.loads(done.stdout)["runs"][0]
    waits.sort()
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        wanted = waits[int(share * (len(waits) - 1))] * 1e-9
        assert math.isclose(run[f"latency_{name}_s"], wanted, rel_tol=1e-6), name
    assert math.isclose(run["latency_mean_s"], sum(waits) / len(waits) * 1e-9, rel_tol=1e-6)
    assert run["positions_per_token"] is None and run["refresh_percent"] == 25


def check_page(executable, folder):
    """The page has the figures of --json, a lane for each request, and no foreign markup."""
    name = "<i>&.jsonl"
    (folder / name).write_bytes((folder / "r.jsonl").read_bytes())
    done = subprocess.run(
        [executable, "report", "--json", "--html", "page.html", "r.jsonl", name], cwd=folder,
        check=True, capture_output=True,
    )
    runs, page = json.loads(done.stdout)["runs"], (folder / "page.html").read_text()
    assert len(runs) == 2 and [run["path"] for run in runs] == ["r.jsonl", name]
    assert "<i>" not in page and page.count("&lt;i&gt;&amp;.jsonl") >= 3
    rows = re.findall(r"<tr[^>]*><td>([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td>", page)
    assert len(rows) == len(runs[0]) - 1
    for (_, first, second), (key, value) in zip(rows, list(runs[0].items())[1:]):
        assert first == second, key
        assert first == "-" if value is None else abs(float(first) - value) <= 0.06, key
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 1 + len(runs)
    for drawing in drawings:
        xml.etree.ElementTree.fromstring(drawing)
    assert "7 to a lane" in drawings[1]


def check_lines(executable, folder):
    """Lines bring settings of their own; those that cannot be planned are counted, not fatal."""
    lines = [
        {"prompt_token_ids": [1] * 50, "gen_length": 16, "block_length": 8},
        {"prompt_token_ids": [1] * 50, "gen_length": 16, "block_length": 16, "steps": 4},
        {"prompt_token_ids": [1] * 5000},  # longer than the model
        {"prompt_token_ids": [1, 126336, 2]},  # to be filled in
        {"prompt": "needs a tokenizer"},
        {"prompt_token_ids": [1] * 50, "gen_length": 16, "cache": "sparse", "delay": 0},
    ]
    (folder / "l.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    command = [executable, "plan", "-m", "llada-8b", "--json", "-f", "--out", "plan.json"]
    done = subprocess.run([*command, "l.jsonl"], cwd=folder, check=False, capture_output=True)
    summary, plan = json.loads(done.stdout), json.loads((folder / "plan.json").read_text())
    assert done.returncode == 1 and (summary["requests"], summary["bad_lines"]) == (3, 3)
    assert b"l.jsonl:3" in done.stderr
    requests = table(plan, "request")
    assert [request.line_index for request in requests] == [0, 1, 5]
    assert [request.refresh_steps for request in requests] == [2, 1, 1]
    assert [request.reuse_steps for request in requests] == [14, 3, 15]
    # The first has the defaults: the prompt is fed once.
    assert [request.positions for request in requests] == [66 + 16 + 14 * 8, 66 + 3 * 16, 66 + 240]
    limited = subprocess.run([*command, "--limit", "2", "l.jsonl"], cwd=folder, check=True,
                             capture_output=True)
    assert json.loads(limited.stdout)["requests"] == 2


def check_comparison(executable, folder):
    """Policies side by side: same work, the planner never behind; objectives do what they say."""
    source = random.Random(9)
    prompts = ({"prompt_token_ids": [1] * source.randrange(20, 900),
                "gen_length": 32 * source.randrange(1, 8)} for _ in range(120))
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
    found = {}
    for objective in ("makespan", "mean"):
        done = subprocess.run(
            [executable, "plan", "-m", "llada-8b", "--profile", "rtx4090", "--cache", "sparse",
             "--objective", objective, "--compare", "--json", "c.jsonl"],
            cwd=folder, check=True, capture_output=True,
        )
        planned, fcfs, static = json.loads(done.stdout)["plans"]
        assert [plan["policy"] for plan in (planned, fcfs, static)] == ["planned", "fcfs", "static"]
        assert planned["tokens"] == fcfs["tokens"] == static["tokens"]
        assert planned["positions"] == fcfs["positions"] <= static["positions"]
        assert planned["padding_percent"] == fcfs["padding_percent"] == 0
        key = {"makespan": "makespan_s", "mean": "latency_mean_s"}[objective]
        assert planned[key] <= 1.000001 * min(fcfs[key], static[key]), key
        found[objective] = planned
    assert found["makespan"]["makespan_s"] <= found["mean"]["makespan_s"] * 1.000001
    assert found["mean"]["latency_mean_s"] <= found["makespan"]["latency_mean_s"] * 1.000001


def check_hostile(executable, data, folder):
    """A profile that no machine has ends in a message, not in numbers that overflow."""
    base = json.loads((data / "profiles" / "h200.json").read_text(encoding="utf-8"))
    path = folder / "hostile.json"
    slow = {"rates": [{"rows": 1, "flops_per_s": 1}], "bytes_per_s": 1, "attention_flops_per_s": 1}
    wide = {"rates": [{"rows": n, "flops_per_s": 1e12} for n in (2**24, 2**24 + 1)]}
    for changes, words in ((slow, "more than 73 years"), (wide, "rates[1].rows")):
        fields = {key: {"value": value, "source": "made up"} for key, value in changes.items()}
        path.write_text(json.dumps(base | fields), encoding="utf-8")
        done = subprocess.run([executable, "plan", "-m", "llada-8b", "--profile", path,
                               data.parent / "traces" / "burst.jsonl"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 65 and words in done.stderr, done
    slots = []
    for kv_bytes in (2, 1.5, 0.75, 0.5):
        fields = {"kv_element_bytes": {"value": kv_bytes, "source": "made up"}}
        path.write_text(json.dumps(base | fields), encoding="utf-8")
        done = subprocess.run([executable, "plan", "--json", "-m", "llada-8b", "--profile", path,
                               data.parent / "traces" / "burst.jsonl"],
                              capture_output=True, text=True, check=True)
        slots.append(json.loads(done.stdout)["slots"] * kv_bytes)
    assert max(slots) <= 1.001 * min(slots), slots


def main():
    executable, data = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    cases = [
        (1, 1100, 1000, "dual", "planned", "makespan", "h200"),
        (7, 2048, 1000, "dual", "planned", "mean", "rtx4090"),  # memory for one or two at a time
        (60, 1024, 4000, "dual", "planned", "makespan", "rtx4090"),
        (60, 1024, 4000, "prefix", "planned", "makespan", "rtx4090"),
        (60, 2048, 4000, "sparse", "planned", "makespan", "rtx4090"),
        (60, 2048, 0, "none", "planned", "makespan", "rtx4090"),
        (60, 4096, 13000, "sparse", "fcfs", "makespan", "rtx4090"),
        (60, 2048, 5000, "dual", "static", "makespan", "l40s"),
        (150, 4096, 20000, "dual", "planned", "tail", "l40s"),
        (300, 16384, 100000, "sparse", "planned", "mean", "h200"),
    ]
    n_failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        checks = [(f"plan {' '.join(map(str, case))}", check_plan, (executable, data, folder, case))
                  for case in cases]
        checks.append(("profile", check_profile, (executable, data, folder)))
        checks.append(("times", check_times, (executable, data, folder)))
        checks.append(("hostile", check_hostile, (executable, data, folder)))
        for check in (check_report, check_page, check_lines, check_comparison):
            checks.append((check.__name__.removeprefix("check_"), check, (executable, folder)))
        print(f"1..{len(checks)}")
        for i, (title, check, arguments) in enumerate(checks, 1):
            try:
                check(*arguments)
                print(f"ok {i} - {title}")
            except (AssertionError, subprocess.SubprocessError) as problem:
                n_failed += 1
                where = problem.__traceback__
                while where.tb_next:
                    where = where.tb_next
                print(f"not ok {i} - {title}\n# line {where.tb_lineno}: {problem!r}")
                print(f"# {getattr(problem, 'stderr', b'')!r}")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
