"""Phases and caches: what each step of a request feeds through the layers, sees, keeps and picks.

Terms. A canvas has P prompt positions, then the generated region in n blocks; under CFG there are
two canvases, which have the same phases and a cache each. `shift` is 1 for Dream, whose row i - 1
predicts position i, else 0. Steps of a block are numbered j = 0, 1, .. by the forward passes that
the block has had: a step of the schedule that commits nothing runs no forward and has no number. A
row sees all rows fed with it, and the cached rows; what is neither fed nor cached is not seen. Keys
are kept after RoPE, and positions never change. Both kinds of step commit by the same rules, the
whole of the step's quota (Dream too); thresholds and factors, complete blocks and stop tokens end a
block early, whatever its cache.

Window of a block [begin, end): positions [max(0, begin - shift), end).

Full steps ("Refresh"). d = `delay` if the cache is sparse, else 0. Step j is full when
- the cache is none, or
- j <= d (the opening steps), or
- refresh_every > 0 and (j - d) % refresh_every == 0.
All others are Reuse steps.

Fed by a full step of block b, in ascending order:
- the prompt, or of a kept prompt (see below) only its last `shift` positions: the row of P - 1
  predicts the first generated position, so shifted models feed it in each full step, and never keep
  it. Hence the kept prompt is [0, P - shift), whichever block is active;
- the generated positions before the end of block min(b + w, n - 1), w = suffix_window, and block
  n - 1. With w = 0 the whole generated region.

Kept prompt, with k = prompt_refresh_every > 1 only:
- the opening steps of blocks with b % k == 0 feed the whole prompt, and each of them leaves the K,V
  of [0, P - shift) as the kept prompt, in place of the one before. (Mostly the last of them is what
  later steps find: step d. A block may end before it.)
- every other full step sees the kept prompt and does not feed it: later full steps of such a block,
  all full steps of other blocks, also with cache none.
With k = 0 or 1 every full step feeds the prompt.

Kept rows. A full step with j >= d (d or a later one) replaces the block's kept rows; caches other
than none have them. Candidates are the positions that the step saw, fed or kept prompt, without the
window, in ascending order: n of them.
- dual: all candidates;
- prefix: those before the window;
- sparse: m = min(n, max(1, floor(retention * n))) of them, the product in double; none if n is 0.
  Per layer and KV head: score = (mean over the window's rows of q, post-RoPE) . k / sqrt(D), max
  over the group's query heads; max-pool of 3, stride 1, padded with -inf, over the candidates in
  order; the m largest, ties to the lower position. head_select false: one choice per layer for all
  KV heads, from the mean over the KV heads of their scores, pooled after the mean.

Reuse steps feed the window, with cache prefix also what the block's full steps feed behind it. They
see the kept rows besides. Their fresh K,V are not kept.

Infilling (gen_length 0) has cache none, no kept prompt, no suffix window.
"""

import math

import torch

SETTINGS = {"cache": "none", "retention": 0.5, "delay": 1, "head_select": True, "refresh_every": 0,
            "prompt_refresh_every": 0, "suffix_window": 0}


def keeps_prompt(s):
    return s["prompt_refresh_every"] > 1


def check_settings(s):
    plain = s["cache"] == "none" and not keeps_prompt(s) and s["suffix_window"] == 0
    assert s["cache"] in ("none", "prefix", "dual", "sparse"), s["cache"]
    assert s["gen_length"] > 0 or plain, "infilling knows no cache"
    assert s["cache"] != "sparse" or 0 < s["retention"] <= 1, "retention must be in (0, 1]"


class Block:
    """The phases of block `index`; `bounds`: [begin, end) of every block."""

    def __init__(self, s, bounds, index, shift):
        self.s, self.index, self.infills = s, index, s["gen_length"] == 0
        self.bounds, self.shift = bounds, shift
        self.n_prompt = 0 if self.infills else bounds[0][0]
        begin, end = bounds[index]
        self.window = range(max(0, begin - shift), end)
        self.delay = s["delay"] if s["cache"] == "sparse" else 0

    def opens(self, j):
        return j <= self.delay

    def is_full(self, j):
        every = self.s["refresh_every"]
        again = every > 0 and (j - self.delay) % every == 0
        return self.s["cache"] == "none" or self.opens(j) or again

    def keeps(self, j):
        return self.s["cache"] != "none" and self.is_full(j) and j >= self.delay

    def feeds_prompt(self, j):
        if not keeps_prompt(self.s):
            return True
        return self.index % self.s["prompt_refresh_every"] == 0 and self.opens(j)

    def kept_prompt(self):
        """Positions of the prompt that are kept where it is."""
        return range(max(0, self.n_prompt - self.shift))

    def generated(self):
        """Positions behind the prompt that a full step feeds."""
        first, last = self.bounds[0][0], len(self.bounds) - 1
        near = min(self.index + self.s["suffix_window"], last) if self.s["suffix_window"] else last
        near_end, last_begin = self.bounds[near][1], self.bounds[last][0]
        behind = range(max(near_end, last_begin), self.bounds[last][1])
        return [*range(first, near_end), *behind]

    def fed(self, j):
        """Positions that step j feeds, ascending."""
        if self.is_full(j):
            first = 0 if self.feeds_prompt(j) else len(self.kept_prompt())
            return [*range(first, self.n_prompt), *self.generated()]
        if self.s["cache"] == "prefix":
            begin = self.window.start
            return [*range(begin, self.n_prompt), *(p for p in self.generated() if p >= begin)]
        return list(self.window)


# ---- what is kept ----

def pool(scores):
    """Max of each score and its neighbours."""
    padded = [-math.inf, *scores, -math.inf]
    return [max(padded[i:i + 3]) for i in range(len(scores))]


def note_cut(margins, scores, pooled, order, m):
    """How far the choice is from another one. Pooling spreads one score over up to three places:
    equal there means equal in any arithmetic, so a cut between them is as safe as that score is far
    from all others."""
    if m == len(order):
        return
    last, first_out = pooled[order[m - 1]], pooled[order[m]]
    distance = last - first_out
    if distance == 0:
        others = list(scores)
        others.remove(last)
        distance = min((abs(x - last) for x in others), default=math.inf)
    margins.note("select", distance)


def select(scores, m, margins):
    """Indices of the candidates that are kept, ascending."""
    pooled = pool(scores)
    order = sorted(range(len(pooled)), key=lambda i: (-pooled[i], i))
    note_cut(margins, scores, pooled, order, m)
    return sorted(order[:m])


def head_scores(q, k):
    """[n_kv_heads, n]: score of each candidate. q [n_heads, window, D], k [n_kv_heads, n, D]."""
    n_kv_heads, _, head_dim = k.shape
    mean = q.mean(1).view(n_kv_heads, -1, head_dim)
    return (mean @ k.transpose(1, 2) / math.sqrt(head_dim)).max(1).values


def select_rows(q, k, v, s, margins):
    """The kept share of one layer's candidates, as (k, v) of equally many rows per KV head."""
    n_kv_heads, n = k.shape[:2]
    m = min(n, max(1, math.floor(s["retention"] * n)))
    scores = head_scores(q, k) if n else torch.empty(n_kv_heads, 0)
    if not s["head_select"]:
        scores = scores.mean(0, keepdim=True)
    chosen = [select(row.tolist(), m, margins) for row in scores]
    chosen = chosen if s["head_select"] else chosen * n_kv_heads
    return (torch.stack([k[h, rows] for h, rows in enumerate(chosen)]),
            torch.stack([v[h, rows] for h, rows in enumerate(chosen)]))


class Cache:
    """What one canvas keeps: per layer (k, v), each [n_kv_heads, n, D]."""

    def __init__(self):
        self.prompt = self.rows = None

    def seen(self, block, j):
        """What step j sees besides the rows that it feeds; None: nothing."""
        if not block.is_full(j):
            return self.rows
        return None if block.feeds_prompt(j) else self.prompt

    def update(self, block, j, layers, margins):
        """After step j; `layers`: each layer's (q, k, v) of the fed rows, post-RoPE."""
        s, fed = block.s, block.fed(j)
        if not block.is_full(j):
            return
        cached = self.seen(block, j)
        if keeps_prompt(s) and block.feeds_prompt(j):
            n = len(block.kept_prompt())
            self.prompt = [(k[:, :n], v[:, :n]) for _, k, v in layers]
        if not block.keeps(j):
            return
        positions = fed if cached is None else [*block.kept_prompt(), *fed]
        outside = [i for i, p in enumerate(positions) if p not in block.window]
        if s["cache"] == "prefix":
            outside = [i for i in outside if positions[i] < block.window.start]
        window = [i for i, p in enumerate(fed) if p in block.window]
        self.rows = []
        for i, (q, k, v) in enumerate(layers):
            if cached is not None:
                k, v = torch.cat((cached[i][0], k), 1), torch.cat((cached[i][1], v), 1)
            k, v = k[:, outside], v[:, outside]
            if s["cache"] == "sparse":
                k, v = select_rows(q[:, window], k, v, s, margins)
            self.rows.append((k, v))
