"""Tasks with checkable answers for the shipped model.

Each sampler draws one (prompt, answer) pair of short English text from a random.Random. A pair
belongs to the held-out set when a hash of its prompt says so, and the trainer throws such pairs
away: the two sets are disjoint whatever the seeds (`python3 tasks.py check` proves it on a sample).

    python3 tasks.py heldout --per-task 250 --seed 7 > heldout.jsonl
    python3 tasks.py demo > demo.jsonl
    python3 tasks.py check
"""

import argparse
import hashlib
import json
import random
import sys

# Keys and list items. Values are from a second list, so that a value never looks like a key.
NOUNS = (
    "ant apple bag ball bear bed bird boat book box bread bus cake car cat chair clock cloud coin "
    "corn cup desk dog door duck fish flag fork frog goat hat horse key lamp leaf moon mouse nest "
    "pear pen plate rain ring road rock rose ship shoe snow spoon star stone sun table train tree"
).split()
VALUES = (
    "black blue brown cold dark deep fast flat gold gray green hard high hot huge light long loud "
    "low new old pink purple quick red round sharp short silver slow small soft warm wet white wild"
).split()
NAMES = "Ann Ben Dan Eva Ida Jim Kim Leo Mia Max Sam Tom".split()
THINGS = "apples books cakes coins cups pears pens plates rings shells stamps stones".split()

HELD_OUT_MODULUS = 20  # one prompt in twenty is never trained on


def is_held_out(prompt):
    digest = hashlib.sha256(prompt.encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_MODULUS == 0


def sample_add(rng):
    a, b = rng.randrange(100), rng.randrange(100)
    return f"Add {a} and {b}.", str(a + b)


def sample_lookup(rng, n_asked_max=4, n_pairs_max=12):
    n_pairs = rng.randint(2, n_pairs_max)
    keys = rng.sample(NOUNS, n_pairs)
    pairs = {key: rng.choice(VALUES) for key in keys}
    asked = rng.sample(keys, min(n_pairs, rng.randint(1, n_asked_max)))
    table = "\n".join(f"{key}={value}" for key, value in pairs.items())
    questions = "\n".join(asked)
    answer = "\n".join(f"{key}={pairs[key]}" for key in asked)
    return f"{table}\nLook up:\n{questions}", answer


def sample_sort(rng):
    if rng.random() < 0.5:
        items = [str(rng.randrange(10)) for _ in range(rng.randint(3, 8))]
    else:
        items = rng.sample(NOUNS, rng.randint(3, 8))
    return "Sort: " + " ".join(items), " ".join(sorted(items))


def sample_reverse(rng):
    items = rng.sample(NOUNS, rng.randint(3, 10))
    return "Reverse: " + " ".join(items), " ".join(reversed(items))


def sample_count(rng, n_items_max=9):
    target, *others = rng.sample(NOUNS, rng.randint(2, 4))
    items = [rng.choice([target, rng.choice(others)]) for _ in range(rng.randint(3, n_items_max))]
    return f"Count {target} in: " + " ".join(items), str(items.count(target))


def sample_word_problem(rng):
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    kind = rng.randrange(3)
    if kind == 0:
        a, b = rng.randint(2, 20), rng.randint(2, 20)
        c = rng.randint(1, a + b)
        text = f"{name} has {a} {thing}, buys {b} more and gives away {c}."
        steps = f"{a} + {b} = {a + b}, {a + b} - {c} = {a + b - c}"
    elif kind == 1:
        a, b = sorted((rng.randint(2, 40), rng.randint(2, 40)), reverse=True)
        c = rng.randint(1, 20)
        text = f"{name} has {a} {thing}, loses {b} and finds {c}."
        steps = f"{a} - {b} = {a - b}, {a - b} + {c} = {a - b + c}"
    else:
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        c = rng.randint(1, a * b)
        text = f"{name} has {a} boxes of {b} {thing} and gives away {c}."
        steps = f"{a} * {b} = {a * b}, {a * b} - {c} = {a * b - c}"
    return f"{text} How many {thing} are left?", steps


TASKS = {
    "add": sample_add,
    "lookup": sample_lookup,
    "sort": sample_sort,
    "reverse": sample_reverse,
    "count": sample_count,
    "word_problem": sample_word_problem,
}


def draw(rng, task, held_out, **kwargs):
    """One pair of the wanted set, by rejection."""
    while True:
        prompt, answer = TASKS[task](rng, **kwargs)
        if is_held_out(prompt) == held_out:
            return prompt, answer


def heldout_lines(n_per_task, seed):
    """Distinct held-out prompts, round robin over the tasks, as input lines of dllm-batch."""
    rng = random.Random(seed)
    seen = set()
    for i in range(n_per_task):
        for task in TASKS:
            while True:
                prompt, answer = draw(rng, task, True)
                if prompt not in seen:
                    break
            seen.add(prompt)
            yield {"id": f"{task}-{i}", "prompt": prompt, "task": task, "answer": answer}


def check(n=20000):
    rng = random.Random(1)
    train = {draw(rng, task, False)[0] for task in TASKS for _ in range(n // len(TASKS))}
    held = {line["prompt"] for line in heldout_lines(n // len(TASKS) // 20, 2)}
    assert not train & held, "a held-out prompt is in the training set"
    assert not any(is_held_out(p) for p in train) and all(is_held_out(p) for p in held)
    print(f"{len(train)} training and {len(held)} held-out prompts: disjoint")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["heldout", "demo", "check"])
    parser.add_argument("--per-task", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    if args.command == "check":
        check()
    elif args.command == "heldout":
        for line in heldout_lines(args.per_task, args.seed):
            print(json.dumps(line))
    else:
        for line in heldout_lines(8, args.seed + 1):
            print(json.dumps({"id": line["id"], "prompt": line["prompt"]}))


if __name__ == "__main__":
    sys.exit(main())
