#!/usr/bin/env python3
"""Makes the arrival traces of traces/, which README.md there describes.

Only Python's uniform random numbers and elementary functions are used, so a seed gives the same
bytes everywhere. A length is drawn from quantiles: between two of them its logarithm grows evenly.

Usage: traces.py [--count N] [--seed N] [--output-max N] DIR; traces.py --check DIR compares DIR
with what the default arguments make, and the made with what it imitates, and prints TAP.
"""

import argparse
import json
import math
import pathlib
import random
import statistics
import sys

COUNT, SEED, OUTPUT_MAX = 1000, 1, 256


def exponential(rng, mean):
    return -mean * math.log(1 - rng.random())


def poisson_gap(rng):
    return exponential(rng, 1)


def steady_gap(rng):
    """The mean of 16 exponential gaps: coefficient of variation 0.25."""
    return sum(exponential(rng, 1) for _ in range(16)) / 16


BURST_CV = 3.0
BURST_QUICK = (1 + math.sqrt((BURST_CV**2 - 1) / (BURST_CV**2 + 1))) / 2  # share of gaps in a burst


def burst_gap(rng):
    """Two exponentials with the same total time: runs of quick gaps, pauses between them."""
    share = BURST_QUICK if rng.random() < BURST_QUICK else 1 - BURST_QUICK
    return exponential(rng, 1 / (2 * share))


class Shape:
    """Quantiles (share, tokens) of prompts and answers, the longest prompt, and gaps of mean 1."""

    def __init__(self, gap, gap_cv, prompt, prompt_max, output):
        self.gap, self.gap_cv, self.prompt, self.output = gap, gap_cv, prompt, output
        self.prompt_max = prompt_max


SHAPES = {
    "livebench": Shape(
        poisson_gap,
        1.0,
        [(0, 40), (0.5, 370), (0.9, 670), (0.99, 1500), (1, 2022)],
        2022,
        [(0, 20), (0.5, 190), (0.9, 420), (1, 1200)],
    ),
    "burst": Shape(
        burst_gap,
        BURST_CV,
        [(0, 1), (0.5, 74), (0.9, 1291), (0.95, 1697), (0.99, 3023), (1, 6142)],
        3584,
        [(0, 1), (0.5, 14), (0.9, 401), (0.95, 510), (0.99, 757), (1, 7315)],
    ),
    "osc": Shape(
        steady_gap,
        0.25,
        [(0, 60), (0.5, 330), (0.9, 520), (0.95, 600), (1, 1200)],
        550,
        [(0, 12), (0.5, 48), (0.9, 90), (1, 220)],
    ),
}


def quantile(table, share):
    for (low, a), (high, b) in zip(table, table[1:]):
        if share <= high:
            return a * math.exp(math.log(b / a) * (share - low) / (high - low))
    raise ValueError(share)


def draw(table, rng, most):
    return min(most, max(1, round(quantile(table, rng.random()))))


def make(name, count=COUNT, seed=SEED, output_max=OUTPUT_MAX):
    """The rows (arrival in ms, prompt tokens, output tokens) of a trace."""
    shape, rng, clock, rows = SHAPES[name], random.Random(f"{name}-{seed}"), 0.0, []
    for _ in range(count):
        prompt = draw(shape.prompt, rng, shape.prompt_max)
        rows.append((round(clock * 1000), prompt, draw(shape.output, rng, output_max)))
        clock += shape.gap(rng)
    return rows


def text_of(rows):
    return "".join(
        f'{{"arrival_s": {ms // 1000}.{ms % 1000:03}, "prompt_tokens": {prompt}, '
        f'"output_tokens": {output}}}\n'
        for ms, prompt, output in rows
    )


# ---- the check ----


def within(got, wanted, share):
    return abs(got - wanted) <= share * wanted


def share_below(values, tokens):
    """Of those that are as large, half: lengths are rounded."""
    return sum((v < tokens) + (v <= tokens) for v in values) / (2 * len(values))


def imitation_faults(name):
    """What a long trace of this shape has wrong; quantiles may be off by 4 standard deviations."""
    shape, faults = SHAPES[name], []
    rows = make(name, count=20_000, output_max=10**6)
    for what, table, most, column in (
        ("prompt", shape.prompt, shape.prompt_max, 1),
        ("output", shape.output, 10**6, 2),
    ):
        values = [row[column] for row in rows]
        for share, tokens in table[1:-1]:
            got, error = share_below(values, tokens), math.sqrt(share * (1 - share) / len(values))
            if tokens < most and abs(got - share) > 4 * error:
                faults.append(f"{what}: a share of {got:.3f} is below {tokens}, wanted {share}")
        if max(values) > most:
            faults.append(f"{what}: {max(values)} tokens, at most {most}")
    gaps = [(b[0] - a[0]) / 1000 for a, b in zip(rows, rows[1:])]
    mean = statistics.fmean(gaps)
    variation = statistics.pstdev(gaps) / mean
    if not within(mean, 1, 0.1) or not within(variation, shape.gap_cv, 0.1):
        faults.append(f"gaps: mean {mean:.3f} s, coefficient of variation {variation:.2f}")
    return faults


def published_mean_faults():
    """BurstGPT's means were not put in: that they come out says that the quantiles suffice."""
    table = SHAPES["burst"]
    rng, faults = random.Random(0), []
    for what, quantiles, wanted in (("prompt", table.prompt, 374), ("output", table.output, 122)):
        got = statistics.fmean(quantile(quantiles, rng.random()) for _ in range(50_000))
        if not within(got, wanted, 0.1):
            faults.append(f"mean {what} length {got:.0f}, published {wanted}")
    return faults


def check(folder):
    points = []
    for name in SHAPES:
        made, path = text_of(make(name)), folder / f"{name}.jsonl"
        is_same = path.exists() and path.read_bytes() == made.encode()
        difference = [] if is_same else [f"{path} is not what the generator makes"]
        points.append((f"{name}: the generator makes the bytes in the tree", difference))
        is_whole = all(len(json.loads(line)) == 3 for line in made.splitlines())
        points.append((f"{name}: each line is JSON", [] if is_whole else ["a line has other keys"]))
        points.append((f"{name}: lengths and gaps are the stated ones", imitation_faults(name)))
    points.append(("burst: means agree with the published ones", published_mean_faults()))
    print(f"1..{len(points)}")
    for number, (title, faults) in enumerate(points, 1):
        print(f"{'not ok' if faults else 'ok'} {number} - {title}")
        for fault in faults:
            print(f"# {fault}")
    return any(faults for _, faults in points)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--count", type=int, default=COUNT, help="requests of each trace")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--output-max", type=int, default=OUTPUT_MAX, help="outputs are cut at so many tokens"
    )
    options = parser.parse_args()
    if options.check:
        sys.exit(check(options.folder))
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in SHAPES:
        rows = make(name, options.count, options.seed, options.output_max)
        (options.folder / f"{name}.jsonl").write_text(text_of(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
