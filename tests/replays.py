#!/usr/bin/env python3
"""Replays traces and adds them up again: the program's sums against the file as this script reads
it, records against sums, arrivals against stamps, and what options and clocks promise. Traces are
the generated ones of traces/, small ones in every format, and the published ones of
../shared/data/traces where those are. Prints TAP.

Usage: replays.py EXECUTABLE
"""

import csv
import datetime
import gzip
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time

from cases import run_cases

ROOT = pathlib.Path(__file__).resolve().parents[1]
PUBLISHED = ROOT.parent / "shared" / "data" / "traces"
N_POSITIONS, BLOCK = 4096, 32  # of LLaDA-8B
BASE = ["-m", "llada-8b", "--profile", "l40s", "--rows", "16384"]
STOP_SECONDS_MAX = 6  # five are promised where nothing else is at work
ENGINE = ["-m", ROOT / "data" / "models" / "tiny-llada", "--token-ids",
          "--threshold", "0"]


class Replay:
    """A run of the program: exit status, summary, records by index."""

    def __init__(self, program, folder, trace, *options, base=BASE):
        records = folder / "records.jsonl"
        command = [program, "replay", *base, "--json", "-f", "-o", records, *options, trace]
        done = subprocess.run([str(w) for w in command], capture_output=True, check=False)
        self.status, self.message = done.returncode, done.stderr.decode()
        self.summary = json.loads(done.stdout) if done.stdout else None
        lines = records.read_text().splitlines() if self.summary else []
        self.records = {(r := json.loads(line))["index"]: r for line in lines}
        assert len(self.records) == len(lines), "an index twice"

    def plan(self):
        return self.summary["plans"][0]

    def good(self):
        return {i: r for i, r in self.records.items() if "error" not in r}


def seconds(text):
    """Exact nanoseconds of an Azure stamp, as an integer."""
    whole, _, fraction = text.partition(".")
    stamp = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return int(stamp.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))


def read_trace(path):
    """Rows (stamp in ns, prompt tokens, output tokens), by Python's own readers."""
    text = path.read_text()
    if path.suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        return [
            (seconds(r["TIMESTAMP"]), int(r["ContextTokens"]), int(r["GeneratedTokens"]))
            for r in rows
        ]
    rows = [json.loads(line) for line in text.splitlines()]
    if "timestamp" in rows[0]:
        return [(r["timestamp"] * 10**6, r["input_length"], r["output_length"]) for r in rows]
    return [
        (round(r["arrival_s"] * 1e9), r["prompt_tokens"], r["output_tokens"]) for r in rows
    ]


def gen_length(output):
    return -(-output // BLOCK) * BLOCK


def fits(row):
    return row[1] + gen_length(row[2]) <= N_POSITIONS


def near(a, b, share=1e-6):
    return abs(a - b) <= share * max(abs(a), abs(b), 1e-9)


def check_sums(replay, rows, policy):
    """The file's tokens are all in the sums, and the records have those that were served."""
    trace = replay.summary["trace"]
    served = [r for r in rows if policy == "clip" or fits(r)]
    assert trace["read"] == {
        "requests": len(rows),
        "prompt_tokens": sum(r[1] for r in rows),
        "output_tokens": sum(r[2] for r in rows),
    }, trace
    assert trace["served"]["requests"] == len(served), trace
    assert trace["served"]["output_tokens"] == sum(r[2] for r in served), trace
    prompts = sum(min(r[1], N_POSITIONS - gen_length(r[2])) for r in served)
    assert trace["served"]["prompt_tokens"] == prompts, trace
    key = {"reject": "refused", "clip": "cut", "skip": "skipped"}[policy]
    assert trace[key]["requests"] == sum(not fits(r) for r in rows), trace
    good = replay.good()
    assert len(good) == len(served)
    assert sum(r["usage"]["prompt_tokens"] for r in good.values()) == prompts
    assert sum(r["usage"]["completion_tokens"] for r in good.values()) == sum(
        r[2] for r in served
    )
    assert len(replay.records) == (len(served) if policy == "skip" else len(rows))
    assert replay.status == (1 if len(good) < len(replay.records) else 0), replay.status


def check_records(replay, rows):
    """Each record by itself, and the plan's figures from the records."""
    plan, good = replay.plan(), replay.good()
    first = min(rows[i][0] for i in good)
    for i, record in good.items():
        timing, decode = record["timing"], record["decode"]
        assert near(timing["arrival_ns"], rows[i][0] - first, 1e-12), (i, record)
        assert timing["queue_ns"] == timing["first_forward_ns"] - timing["arrival_ns"] >= 0
        assert timing["e2e_ns"] == timing["finished_ns"] - timing["arrival_ns"] > 0
        assert timing["first_forward_ns"] < timing["first_commit_ns"] <= timing["first_block_ns"]
        assert timing["first_block_ns"] <= timing["finished_ns"]
        assert decode["steps"] == decode["refresh_steps"] + decode["reuse_steps"]
        assert record["finish_reason"] == "stop"
        assert record["usage"]["completion_tokens"] == rows[i][2]
        # One token a step, from left to right: what the trace stops is not computed on.
        assert decode["steps"] == rows[i][2], (i, record)
        assert decode["blocks"] == -(-rows[i][2] // BLOCK)
    latencies = sorted(r["timing"]["e2e_ns"] * 1e-9 for r in good.values())
    queues = [r["timing"]["queue_ns"] * 1e-9 for r in good.values()]
    assert near(plan["latency_mean_s"], statistics.fmean(latencies))
    assert near(plan["latency_p99_s"], latencies[round(0.99 * (len(latencies) - 1))])
    assert near(plan["queue_mean_s"], statistics.fmean(queues))
    positions = sum(r["decode"]["positions"] for r in good.values())
    assert positions == plan["positions"], "planned and fcfs compute no padding"
    assert near(plan["positions_per_token"], positions / plan["tokens"])
    end = max(r["timing"]["finished_ns"] for r in good.values()) * 1e-9
    assert near(plan["makespan_s"], end) and end >= plan["bound_memory_s"] >= plan["bound_s"]
    last = max(r["timing"]["arrival_ns"] for r in good.values()) * 1e-9
    assert plan["bound_s"] > last, "nothing ends before all have arrived"


# ---- cases: functions of (program, folder) ----


def generated_traces_reconcile(program, folder):
    """the generated traces, offline and online, reconcile row by row"""
    for name in ("livebench", "burst", "osc"):
        path = ROOT / "traces" / f"{name}.jsonl"
        rows = read_trace(path)
        for options in ([], ["--online", "--policy", "fcfs"]):
            replay = Replay(program, folder, path, *options)
            assert replay.summary["online"] == ("--online" in options)
            check_sums(replay, rows, "reject")
            check_records(replay, rows)


def published_case(name, policy):
    def case(program, folder):
        path = PUBLISHED / name
        if not path.exists():
            return "the trace is not here"
        rows = read_trace(path)
        replay = Replay(program, folder, path, "--over-length", policy, "--policy", "fcfs")
        check_sums(replay, rows, policy)
        if policy != "clip":
            check_records(replay, rows)
        return None

    case.__doc__ = f"{name} reconciles, --over-length {policy}"
    return case


def outputs_are_free_of_the_canvas(program, folder):
    """--gen-length: a longer answer is cut, a shorter one stops; without stops all is computed"""
    path = ROOT / "traces" / "burst.jsonl"
    rows = read_trace(path)
    replay = Replay(program, folder, path, "--gen-length", "64", "--policy", "fcfs")
    for i, record in replay.good().items():
        assert record["usage"]["completion_tokens"] == min(64, rows[i][2])
        assert record["finish_reason"] == ("stop" if rows[i][2] <= 64 else "length")
    cut = sum(max(0, r[2] - 64) for r in rows)
    assert replay.summary["trace"]["cut"]["output_tokens"] == cut > 0
    replay = Replay(program, folder, path, "--gen-length", "64", "--no-early-stop")
    assert {r["usage"]["completion_tokens"] for r in replay.good().values()} == {64}
    assert replay.plan()["tokens"] == 64 * len(rows)


def formats_mean_the_same(program, folder):
    """the same requests give the same records in every format, plain, gzip and zstd"""
    rng = random.Random(5)
    rows = [(ms, rng.randrange(1, 900), rng.randrange(1, 200)) for ms in range(0, 40000, 250)]
    day = datetime.datetime(2023, 11, 16, 23, 59, 40)
    stamps = [day + datetime.timedelta(milliseconds=ms) for ms, _, _ in rows]
    azure = [f"{t:%Y-%m-%d %H:%M:%S}.{t.microsecond:06}0,{p},{o}"
             for t, (_, p, o) in zip(stamps, rows)]
    burst = [f"{ms / 1000},ChatGPT,{p},{o},{p + o},API log" for ms, p, o in rows]
    sessions = [f"{ms / 1000},{i},1.5,GPT-4,{p},{o},{p + o},Conversation log"
                for i, (ms, p, o) in enumerate(rows)]
    mooncake = [json.dumps({"timestamp": ms, "input_length": p, "output_length": o,
                            "hash_ids": [1]}) for ms, p, o in rows]
    ours = [json.dumps({"arrival_s": ms / 1000, "prompt_tokens": p, "output_tokens": o})
            for ms, p, o in rows]
    other = [f"{o};{p}".replace(";", ",") + f",{ms * 1000}" for ms, p, o in rows]
    names = "Request tokens,Response tokens,Total tokens,Log Type"
    texts = {
        "azure.csv": "\r\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *azure]),
        "burst.csv": "\n".join([f"Timestamp,Model,{names}", *burst, ""]),
        "sessions.csv": "\n".join([f"Timestamp,Session ID,Elapsed time,Model,{names}", *sessions]),
        "mooncake.jsonl": "\n".join(mooncake),
        "ours.jsonl": "\n".join(ours) + "\n\n",
        "other.csv": "\n".join(["out,in,when", *other]),
    }
    wanted = None
    for name, text in texts.items():
        path = folder / name
        path.write_bytes(text.encode())
        (folder / (name + ".gz")).write_bytes(gzip.compress(text.encode()))
        subprocess.run(["zstd", "-q", "-f", str(path)], check=True)
        columns = ["--time-column", "when", "--prompt-column", "in", "--output-column", "out",
                   "--time-unit", "us"] if name == "other.csv" else []
        for suffix in ("", ".gz", ".zst"):
            replay = Replay(program, folder, folder / (name + suffix), *columns)
            assert replay.status == 0, (name, replay.message)
            got = {i: {k: v for k, v in r.items() if k not in ("id", "line_hash")}
                   for i, r in replay.records.items()}
            wanted = wanted or got
            assert got == wanted, (name, suffix)
    assert len(wanted) == len(rows)


def arrivals_are_spread_and_scaled(program, folder):
    """--spread parts equal stamps, --rate sets the mean, rows out of order are put in order"""
    path = folder / "t.jsonl"
    stamps = [3000, 0, 0, 0, 3000]
    path.write_text("".join(json.dumps({"timestamp": t, "input_length": 9, "output_length": 4})
                            + "\n" for t in stamps))
    def arrivals(*options):
        replay = Replay(program, folder, path, *options)
        assert replay.status == 0, replay.message
        return [replay.records[i]["timing"]["arrival_ns"] / 1e9 for i in range(len(stamps))], replay
    assert arrivals()[0] == [3, 0, 0, 0, 3]
    assert arrivals("--spread")[0] == [3, 0, 1, 2, 4.5]
    got, replay = arrivals("--spread", "--rate", "8")
    assert near(max(got), 4 / 8) and near(replay.plan()["arrivals_per_s"], 8)


def goodput_counts_what_was_in_time(program, folder):
    """--slo: the share and the rate of records whose latency is at most that"""
    path = ROOT / "traces" / "livebench.jsonl"
    replay = Replay(program, folder, path, "--slo", "4", "--rate", "3", "--online")
    latencies = [r["timing"]["e2e_ns"] * 1e-9 for r in replay.good().values()]
    n = sum(latency <= 4 for latency in latencies)
    assert 0 < n < len(latencies), n
    plan = replay.plan()
    assert near(plan["slo_percent"], 100 * n / len(latencies))
    assert near(plan["goodput_per_s"], n / plan["makespan_s"])
    assert Replay(program, folder, path).plan()["slo_percent"] is None


def policies_are_compared_on_the_same_work(program, folder):
    """--compare: three policies, the same tokens, the same bounds; online is not better informed"""
    path = ROOT / "traces" / "osc.jsonl"
    options = ["--compare", "--gen-length", "256", "--cache", "sparse", "--rate", "4"]
    plans = Replay(program, folder, path, *options).summary["plans"]
    assert {p["policy"] for p in plans} == {"planned", "fcfs", "static"}
    assert len({(p["tokens"], p["bound_s"]) for p in plans}) == 1
    planned, fcfs, static = (next(p for p in plans if p["policy"] == name)
                             for name in ("planned", "fcfs", "static"))
    assert planned["padding_percent"] == fcfs["padding_percent"] == 0
    assert planned["tokens_per_s"] > static["tokens_per_s"]


def a_plan_is_the_replay_without_stops(program, folder):
    """plan TRACE: what replay --no-early-stop says, policy by policy; files know the arrivals"""
    path = ROOT / "traces" / "osc.jsonl"
    options = ["--compare", "--rate", "5", "--cache", "dual", "--limit", "60"]
    replay = Replay(program, folder, path, "--no-early-stop", *options)
    command = [program, "plan", *BASE, *options, "--json", "-f", "--out", "p.json", "--svg",
               "p.svg", "--perfetto", "p.trace", path]
    done = subprocess.run([str(w) for w in command], capture_output=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    summary, data = json.loads(done.stdout), json.loads((folder / "p.json").read_text())
    assert len(summary["plans"]) == len(replay.summary["plans"]) == 3
    for plan, replayed in zip(summary["plans"], replay.summary["plans"]):
        for key, value in plan.items():
            assert key == "planning_s" or near_or_equal(value, replayed[key]), key
    rows = read_trace(path)[:60]
    column = data["request_columns"].index
    for row in data["requests"]:
        timing = replay.records[row[column("line_index")]]["timing"]
        assert row[column("arrival_ns")] == timing["arrival_ns"]
        assert row[column("finished_ns")] == timing["finished_ns"]
    assert summary["tokens_to_generate"] == sum(gen_length(r[2]) for r in rows)
    assert (folder / "p.svg").read_text().startswith("<svg") and (folder / "p.trace").exists()
    # Prompts have no arrivals to be spread or scaled.
    (folder / "p.jsonl").write_text('{"prompt_token_ids": [1]}')
    command = [program, "plan", *BASE, "--rate", "3", folder / "p.jsonl"]
    done = subprocess.run([str(w) for w in command], capture_output=True, check=False)
    assert done.returncode == 65 and b"of no known trace" in done.stderr, done.stderr


def near_or_equal(a, b):
    return near(a, b) if isinstance(a, float) else a == b


def bad_rows_are_records_with_a_reason(program, folder):
    """each bad row is an error record that names line and column; failures of old are left out"""
    path = folder / "bad.csv"
    path.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                    "1,a,10,5,15,x\n-2,a,10,5,15,x\nnan,a,10,5,15,x\n3,a,10,0,10,x\n"
                    "4,a,ten,5,15,x\n5,a,10\n6,a,9000,5,15,x\n")
    replay = Replay(program, folder, path)
    assert replay.status == 1
    errors = {i: r["error"] for i, r in replay.records.items() if "error" in r}
    assert sorted(errors) == [1, 2, 4, 5, 6] and sorted(replay.good()) == [0]
    assert all(error["line"] == i + 2 for i, error in errors.items())
    assert "Timestamp is -2" in errors[1]["message"]
    assert 'Timestamp is "nan"' in errors[2]["message"]
    assert "Request tokens" in errors[4]["message"]
    assert "fewer columns" in errors[5]["message"]
    assert errors[6]["code"] == "prompt_too_long"
    assert f"{path}:3: Timestamp" in replay.message
    trace = replay.summary["trace"]
    assert [trace[k]["requests"] for k in ("read", "served", "refused", "skipped")] == [7, 1, 5, 1]


def write_trace(path, n, step_s):
    """A trace of ours, rows out of order, with requests for the shipped model. Three come at once,
    so that a batch in lockstep has lengths to pad, however fast the machine."""
    rng = random.Random(11)
    rows = [(i // 3 * 3 * step_s, rng.randrange(1, 60), rng.randrange(1, 40)) for i in range(n)]
    rng.shuffle(rows)
    path.write_text("".join(json.dumps({"arrival_s": s, "prompt_tokens": p, "output_tokens": o})
                            + "\n" for s, p, o in rows))
    return rows


def check_engine(replay, rows, speed):
    """Each request is answered once, to its stop, after its arrival; sums are the records'."""
    assert replay.status == 0, replay.message
    assert sorted(replay.good()) == list(range(len(rows)))
    for i, record in replay.records.items():
        timing, decode, output = record["timing"], record["decode"], rows[i][2]
        assert near(timing["arrival_ns"], rows[i][0] * 1e9 / speed, 1e-9), record
        assert timing["queue_ns"] == timing["first_forward_ns"] - timing["arrival_ns"] >= 0
        assert timing["e2e_ns"] == timing["finished_ns"] - timing["arrival_ns"] > 0
        assert timing["first_commit_ns"] <= timing["last_commit_ns"] <= timing["finished_ns"]
        assert timing["start_unix_ns"] > 1.6e18
        assert record["finish_reason"] == "stop" and isinstance(record["text"], str)
        assert record["usage"]["completion_tokens"] == len(record["token_ids"]) == output
        # One token a step, but not from left to right: all up to the stop must be there.
        assert output <= decode["steps"] <= -(-output // 8) * 8, record
    ran = replay.plan()
    assert ran["clock"] == replay.summary["clock"] != "virtual"
    assert ran["tokens"] == sum(r[2] for r in rows)
    padding = ran["positions"] - sum(r["decode"]["positions"] for r in replay.records.values())
    assert near(ran["padding_percent"], 100 * padding / ran["positions"])
    assert (padding > 0) == (ran["policy"] == "static")
    latencies = [r["timing"]["e2e_ns"] * 1e-9 for r in replay.records.values()]
    assert near(ran["latency_mean_s"], statistics.fmean(latencies))
    assert near(ran["makespan_s"], max(r["timing"]["finished_ns"] for r in
                                       replay.records.values()) * 1e-9)


def the_engine_answers_when_requests_arrive(program, folder):
    """--clock scaled: every policy, online or not, gives the same answers, none before its time"""
    rows, texts = write_trace(folder / "t.jsonl", 24, 0.5), set()
    for options in (["--policy", "fcfs"], ["--policy", "planned"], ["--policy", "static"],
                    ["--policy", "planned", "--online", "--profile", "l40s"],
                    ["--policy", "planned", "--profile", "rtx4090", "--threads", "1"]):
        replay = Replay(program, folder, folder / "t.jsonl", "--clock", "scaled=20", "--cache",
                        "dual", *options, base=ENGINE)
        check_engine(replay, rows, 20)
        plans, has_profile = replay.summary["plans"], "--profile" in options
        assert [p["clock"] for p in plans] == ["scaled=20", "virtual"][: 1 + has_profile]
        assert all((p["bound_s"] is not None) == has_profile for p in plans)
        assert replay.summary["online"] == (not has_profile or "--online" in options)
        if options[1] == "fcfs":
            order = sorted(range(len(rows)), key=lambda i: (rows[i][0], i))
            assert order == sorted(replay.records, key=lambda i: (
                replay.records[i]["timing"]["first_forward_ns"], rows[i][0], i))
        texts.add(json.dumps([replay.records[i]["token_ids"] for i in range(len(rows))]))
    assert len(texts) == 1, "an answer depends on the schedule"


def the_real_clock_is_that_of_the_trace(program, folder):
    """--clock real with weights made up: arrivals as stamped; --no-early-stop ends nothing"""
    rows = write_trace(folder / "t.jsonl", 4, 0.1)
    program = shutil.copy(program, folder)  # no profile ships beside it, and none is needed
    base = [*ENGINE, "--load-format", "dummy", "--clock", "real"]
    check_engine(Replay(program, folder, folder / "t.jsonl", base=base), rows, 1)
    replay = Replay(program, folder, folder / "t.jsonl", "--no-early-stop", base=base)
    for i, record in replay.good().items():
        assert record["usage"]["completion_tokens"] == -(-rows[i][2] // 8) * 8
        assert record["finish_reason"] == "length"


def an_interrupt_keeps_what_is_done(program, folder):
    """a signal while nothing has arrived: status 75, done answers on disk, the rest has none"""
    trace, records = folder / "t.jsonl", folder / "r.jsonl"
    trace.write_text("".join(json.dumps({"arrival_s": s, "prompt_tokens": 5, "output_tokens": 4})
                             + "\n" for s in (0, 0, 3600)))
    command = [program, "replay", *ENGINE, "--clock", "real", "-o", records, trace]
    with subprocess.Popen([str(w) for w in command], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (records.exists() and records.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        message = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 75, (process.returncode, message)
    done = [json.loads(line) for line in records.read_text().splitlines()]
    assert sorted(r["index"] for r in done) == [0, 1]
    assert "stopped; answers done: 2 of 3" in message and "makespan" in message, message


def a_long_iteration_is_not_waited_for(program, folder):
    """a signal in an iteration that takes long: status 75 within five seconds; USR2 is answered"""
    trace, records = folder / "t.jsonl", folder / "r.jsonl"
    row = {"arrival_s": 0, "prompt_tokens": 1500, "output_tokens": 500}
    trace.write_text(40 * (json.dumps(row) + "\n"))
    command = [program, "replay", *ENGINE, "--clock", "real", "--backend", "ref", "--rows", "16384",
               "-o", records, trace]
    with subprocess.Popen([str(w) for w in command], stderr=subprocess.PIPE) as process:
        while not records.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(1)
        process.send_signal(signal.SIGUSR2)
        while b"0 of 40 lines" not in (line := process.stderr.readline()):
            assert line, "USR2 was not answered during the iteration"
        begin = time.monotonic()
        process.terminate()
        message = process.communicate(timeout=60)[1].decode()
        took_s = time.monotonic() - begin
    assert process.returncode == 75, (process.returncode, message)
    assert "stopped; answers done: 0" in message and took_s < STOP_SECONDS_MAX, (took_s, message)
    assert not (folder / "r.jsonl.lock").exists()


CASES = [
    generated_traces_reconcile,
    *(published_case(name, policy) for name, policy in (
        ("AzureLLMInferenceTrace_code.csv", "reject"),
        ("AzureLLMInferenceTrace_conv.csv", "skip"),
        ("mooncake_conversation.first2000.jsonl", "clip"),
        ("mooncake_synthetic_trace.jsonl", "reject"),
    )),
    outputs_are_free_of_the_canvas,
    formats_mean_the_same,
    arrivals_are_spread_and_scaled,
    goodput_counts_what_was_in_time,
    policies_are_compared_on_the_same_work,
    a_plan_is_the_replay_without_stops,
    bad_rows_are_records_with_a_reason,
    the_engine_answers_when_requests_arrive,
    the_real_clock_is_that_of_the_trace,
    an_interrupt_keeps_what_is_done,
    a_long_iteration_is_not_waited_for,
]


def main():
    run_cases(CASES, os.path.abspath(sys.argv[1]))


if __name__ == "__main__":
    main()
