#!/usr/bin/env python3
"""Adds up what tools/check ran: single steps, and the tests in meson's logs.

The results file has one line per entry, tab-separated: `pass|fail|skip NAME REASON` for a step, or
`log LABEL PATH` for a testlog.json of meson. A test that speaks TAP counts each of its points; any
other counts once. A program that failed although every point it reported passed (it crashed, or
stopped early) counts as one more failure. The last line is `N passed, N failed, N skipped`, alone;
the exit status is 1 unless something passed and nothing failed.

Usage: tally.py RESULTS | tally.py --self-test
"""

import collections
import json
import re
import sys

PLAN = re.compile(r"^1\.\.(\d+)", re.MULTILINE)
POINT = re.compile(r"^(not )?ok\b(.*)$", re.MULTILINE)
WORDS = ("passed", "failed", "skipped")


def count_test(test):
    """Counter of one line of testlog.json."""
    counts = collections.Counter()
    result, out = test["result"], test.get("stdout") or ""
    plan = PLAN.search(out)
    if plan and result != "SKIP":
        points = POINT.findall(out)
        for is_failure, rest in points:
            is_skip = re.search(r"#\s*skip", rest, re.IGNORECASE)
            counts["failed" if is_failure else "skipped" if is_skip else "passed"] += 1
        is_short = len(points) < int(plan.group(1))
        counts["failed"] += not counts["failed"] and (result != "OK" or is_short)
    else:
        word = {"OK": "passed", "EXPECTEDFAIL": "passed", "SKIP": "skipped"}.get(result, "failed")
        counts[word] = 1
    return counts


def count_log(lines):
    """Counters of a testlog.json by suite, such as `unit`."""
    suites = collections.defaultdict(collections.Counter)
    for line in lines:
        test = json.loads(line)
        suite = re.match(r"[^:]+:(\S+) / ", test["name"])
        suites[suite.group(1) if suite else test["name"]] += count_test(test)
    return suites


def count_results(path):
    """Rows (name, counter, reason) of a results file."""
    rows = []
    with open(path, encoding="utf-8") as results:
        entries = [line.rstrip("\n").split("\t") for line in results if line.strip()]
    for kind, name, rest in entries:
        if kind == "log":
            with open(rest, encoding="utf-8") as log:
                suites = count_log(log)
            rows += [(f"{name}: {suite}", counts, "") for suite, counts in sorted(suites.items())]
        else:
            word = {"pass": "passed", "fail": "failed", "skip": "skipped"}[kind]
            rows.append((name, collections.Counter({word: 1}), rest))
    return rows


def self_test():
    tap = {"name": "p:unit / t", "result": "OK", "stdout": "1..3\nok 1 - a\nok - b # SKIP c\nok\n"}
    cases = [
        (tap, (2, 0, 1)),
        ({**tap, "result": "ERROR"}, (2, 1, 1)),
        ({**tap, "stdout": "1..3\nok 1 - a\n"}, (1, 1, 0)),
        ({**tap, "result": "ERROR", "stdout": "1..2\nok 1\nnot ok 2 - b  (0.00s)\n"}, (1, 1, 0)),
        ({**tap, "result": "TIMEOUT", "stdout": ""}, (0, 1, 0)),
        ({**tap, "result": "SKIP", "stdout": "1..0 # SKIP no device\n"}, (0, 0, 1)),
        ({**tap, "stdout": "all is ok\n"}, (1, 0, 0)),
    ]
    print(f"1..{len(cases)}")
    n_failed = 0
    for number, (test, expected) in enumerate(cases, 1):
        found = count_log([json.dumps(test)])["unit"]
        ok = tuple(found[word] for word in WORDS) == expected
        n_failed += not ok
        print(f"{'ok' if ok else 'not ok'} {number} - {test['result']} counts as {expected}")
    sys.exit(1 if n_failed else 0)


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    rows, total = count_results(sys.argv[1]), collections.Counter()
    width = max([len(name) for name, _, _ in rows], default=0)
    for name, counts, reason in rows:
        total += counts
        figures = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
        print(f"{name:<{width}}  {figures or 'nothing ran'}{' (' + reason + ')' if reason else ''}")
    print(", ".join(f"{total[word]} {word}" for word in WORDS))
    sys.exit(0 if total["passed"] and not total["failed"] else 1)


if __name__ == "__main__":
    main()
