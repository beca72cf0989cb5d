#!/usr/bin/env python3
"""Opens what the program draws in a headless browser: the page of `report --html` and the drawing
of `plan --svg`, in light and in dark. Each must load without a word on the console and give a
screenshot with the right ground and all colours of its charts. Prints TAP; without chromium every
test is skipped.

Usage: pages.py EXECUTABLE
"""

import collections
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
SECONDS_MAX = 120
WIDTH, HEIGHT = 1240, 1400
# Ground, Refresh, Reuse, KV cache or first block: src/app/chart.c.
LIGHT = ["#ffffff", "#e07b28", "#3b78c8", "#2f9488"]
DARK = ["#14171c", "#f0954a", "#5b9bea", "#41b3a5"]
PIXELS_MIN = 200  # of each colour


def colours(path):
    """How often each colour occurs in an 8-bit RGB or RGBA file, which is what chromium writes."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", f"{path} is no PNG"
    at, packed = 8, b""
    while at < len(data):
        (n,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + n]
        if kind == b"IHDR":
            width, height, depth, form = struct.unpack(">IIBB", body[:10])
            assert depth == 8 and form in (2, 6), (depth, form)
        elif kind == b"IDAT":
            packed += body
        at += 12 + n
    n_channels = 3 if form == 2 else 4
    raw, stride, rows = zlib.decompress(packed), width * n_channels, []
    above = bytearray(stride)
    for y in range(height):
        begin = y * (stride + 1)
        above = unfiltered(raw[begin], raw[begin + 1 : begin + 1 + stride], above, n_channels)
        rows.append(above)
    counts = collections.Counter()
    for row in rows:
        counts.update(bytes(row[i : i + 3]).hex() for i in range(0, stride, n_channels))
    return counts


def unfiltered(kind, line, above, n):
    """One line of a PNG file; `above` is the line before it."""
    row = bytearray(line)
    if kind == 1:
        for i in range(n, len(row)):
            row[i] = row[i] + row[i - n] & 255
    elif kind == 2:
        row = bytearray(a + b & 255 for a, b in zip(row, above))
    elif kind == 3:
        for i in range(len(row)):
            row[i] = row[i] + ((row[i - n] if i >= n else 0) + above[i]) // 2 & 255
    elif kind == 4:
        for i in range(len(row)):
            left, corner = (row[i - n], above[i - n]) if i >= n else (0, 0)
            guess = left + above[i] - corner
            row[i] = row[i] + min((left, above[i], corner), key=lambda v: abs(v - guess)) & 255
    return row


def shoot(browser, page, dark):
    """A screenshot of `page`, and what the console said."""
    target = page.with_suffix(".png")
    target.unlink(missing_ok=True)
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={page.parent / 'browser'}", "--enable-logging=stderr",
         f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={target}",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}", page.as_uri()],
        capture_output=True, timeout=SECONDS_MAX, check=False,
    )
    said = [text for text in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in text]
    assert target.exists(), f"no screenshot: {done.stderr.decode(errors='replace')[-500:]}"
    return target, said


def check(browser, page, dark, wanted):
    target, said = shoot(browser, page, dark)
    found = colours(target)
    problems = [f"console: {text}" for text in said]
    for colour in wanted:
        if found[colour[1:]] < PIXELS_MIN:
            problems.append(f"{colour} has {found[colour[1:]]} pixels, at least {PIXELS_MIN}")
    # A lone drawing does not fill the window, so what is around it may be white.
    most = ["#" + colour for colour, _ in found.most_common(3)]
    if wanted[0] not in most:
        problems.append(f"the ground is one of {most}, not {wanted[0]}")
    return problems


def record(i):
    """A line of output: requests that start one after the other."""
    keys = ("admitted_ns", "first_forward_ns", "first_block_ns", "finished_ns")
    times = dict(zip(keys, (0, i, i + 20, i + 60)))
    return json.dumps({
        "id": i, "index": i, "text": "x", "finish_reason": "stop",
        "usage": {"prompt_tokens": 9, "completion_tokens": 8},
        "decode": {"steps": 8, "blocks": 2, "refresh_steps": 2, "reuse_steps": 6},
        "timing": {"start_unix_ns": 1} | {k: t * 10**7 for k, t in times.items()},
    })


def make_pages(executable, folder):
    for name in ("a.jsonl", "<b>&.jsonl"):
        (folder / name).write_text("".join(record(i) + "\n" for i in range(40)), encoding="utf-8")
    prompts = (json.dumps({"prompt_token_ids": [1] * (20 + 30 * i)}) for i in range(24))
    (folder / "p.jsonl").write_text("\n".join(prompts), encoding="utf-8")
    commands = [
        ["report", "--html", "page.html", "a.jsonl", "<b>&.jsonl"],
        ["plan", "-m", "llada-8b", "--profile", "rtx4090", "--cache", "dual", "--svg", "plan.svg",
         "p.jsonl"],
    ]
    for command in commands:
        subprocess.run([executable, *command], cwd=folder, check=True, capture_output=True)


def main():
    executable = os.path.abspath(sys.argv[1])
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print("1..0 # SKIP no chromium")
        return 0
    print("1..4")
    n_failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_pages(executable, folder)
        cases = [(page, dark) for page in ("page.html", "plan.svg") for dark in (False, True)]
        for i, (page, dark) in enumerate(cases, 1):
            problems = check(browser, folder / page, dark, DARK if dark else LIGHT)
            n_failed += bool(problems)
            print(f"{'not ' if problems else ''}ok {i} - {page} in {'dark' if dark else 'light'}")
            for problem in problems:
                print(f"# {problem}")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
