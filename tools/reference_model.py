"""An independent forward pass and decoder in PyTorch, float64: what the C program is measured by.

It shares no code with the program and reads like the formulas: LLaDA and Dream dense models, every
decoding rule, the counter-based random numbers, and how close each decision was. What caches leave
out of a step is in reference_caches.py. Needs torch (1.13 or newer) and numpy.
"""

import json
import math
import os
import struct

import numpy as np
import torch

from reference_caches import SETTINGS, Block, Cache, check_settings

# ---- safetensors ----

# Stored type -> the integer or float type of its bytes. bf16 is the upper half of an f32.
STORED = {"BF16": np.uint16, "F16": np.float16, "F32": np.float32}


def read_safetensors(path):
    """Name -> float64 tensor of every tensor in one file."""
    with open(path, "rb") as file:
        header_bytes, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_bytes))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], STORED[entry["dtype"]])
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = torch.from_numpy(values.astype(np.float64).reshape(entry["shape"]))
    return tensors


def read_weights(folder):
    """All tensors of a model folder: one file, or the shards that its index names."""
    index = os.path.join(folder, "model.safetensors.index.json")
    files = ["model.safetensors"]
    if os.path.exists(index):
        files = sorted(set(read_json(index)["weight_map"].values()))
    tensors = {}
    for name in files:
        tensors.update(read_safetensors(os.path.join(folder, name)))
    return tensors


def stored_bytes(values, dtype):
    """float64 values as bytes of the stored type, rounded to nearest even."""
    if dtype == "BF16":
        bits = values.astype(np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype(np.dtype(STORED[dtype]).newbyteorder("<")).tobytes()


def write_safetensors(path, tensors, dtype):
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, values in tensors.items():
        blob = stored_bytes(values, dtype)
        header[name] = {"dtype": dtype, "shape": list(values.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    return offset


def read_json(path):
    with open(path) as file:
        return json.load(file)


# ---- the model ----

# Tensor names of the two families; `layer` is the prefix of a layer.
NAMES = {
    "LLaDAModelLM": dict(
        layer="model.transformer.blocks.%d.", embed="model.transformer.wte",
        norm="model.transformer.ln_f", head="model.transformer.ff_out", attn_norm="attn_norm",
        q="q_proj", k="k_proj", v="v_proj", o="attn_out", ffn_norm="ff_norm", gate="ff_proj",
        up="up_proj", down="ff_out"),
    "DreamModel": dict(
        layer="model.layers.%d.", embed="model.embed_tokens", norm="model.norm", head="lm_head",
        attn_norm="input_layernorm", q="self_attn.q_proj", k="self_attn.k_proj",
        v="self_attn.v_proj", o="self_attn.o_proj", ffn_norm="post_attention_layernorm",
        gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj"),
}


class Model:
    """A LLaDA or Dream dense transformer: pre-norm, RoPE, full attention, SwiGLU."""

    def __init__(self, folder, dtype=torch.float64):
        config = read_json(os.path.join(folder, "config.json"))
        self.dtype = dtype
        self.architecture = config["architectures"][0]
        self.names = NAMES[self.architecture]
        self.dream = self.architecture == "DreamModel"

        def value(llada_key, dream_key, default=None):
            found = config.get(dream_key if self.dream else llada_key)
            return default if found is None else found

        self.hidden = value("d_model", "hidden_size")
        self.n_layers = value("n_layers", "num_hidden_layers")
        self.n_heads = value("n_heads", "num_attention_heads")
        self.n_kv_heads = value("n_kv_heads", "num_key_value_heads", self.n_heads)
        self.head_dim = config.get("head_dim") or self.hidden // self.n_heads
        self.n_vocab = value("embedding_size", "vocab_size", config["vocab_size"])
        self.tied = value("weight_tying", "tie_word_embeddings", False)
        self.epsilon = config["rms_norm_eps"]
        self.theta = config["rope_theta"]
        self.mask_id = config["mask_token_id"]
        self._read_stop_ids(folder, config)
        self.weights = {name: w.to(dtype) for name, w in read_weights(folder).items()}

    def _read_stop_ids(self, folder, config):
        """Stop ids: both files' eos ids. The end of turn is known by its name in the tokenizer."""
        generation = os.path.join(folder, "generation_config.json")
        lists = [config.get("eos_token_id")]
        if os.path.exists(generation):
            lists.append(read_json(generation).get("eos_token_id"))
        lists = [ids if isinstance(ids, list) else [ids] for ids in lists if ids is not None]
        ids = sum(lists, [])
        self.eos_id, self.eot_id = ids[0], None
        tokenizer = os.path.join(folder, "tokenizer.json")
        if os.path.exists(tokenizer):
            added = {t["content"]: t["id"] for t in read_json(tokenizer)["added_tokens"]}
            self.eot_id = added.get("<|im_end|>" if self.dream else "<|eot_id|>")
        self.stop_ids = set(ids) | ({self.eot_id} - {None})

    def _norm(self, x, name):
        scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + self.epsilon)
        return x * scale * self.weights[name + ".weight"]

    def _linear(self, x, name):
        y = x @ self.weights[name + ".weight"].T
        bias = self.weights.get(name + ".bias")
        return y if bias is None else y + bias

    def _rope(self, positions):
        """cos and sin [n, D / 2] of n positions. Frequency and angle are rounded to float32, as in
        the published code: at position 1000 the rounding moves an angle by up to 3e-5, which is
        part of what the model learned, so it is no error to be computed away."""
        even = np.arange(0, self.head_dim, 2, dtype=np.float32)
        exponent = even / np.float32(self.head_dim)
        frequency = np.float32(1) / np.power(np.float32(self.theta), exponent, dtype=np.float32)
        angle = np.asarray(positions, dtype=np.float32)[:, None] * frequency
        angle = torch.from_numpy(angle.astype(np.float64))
        return angle.cos().to(self.dtype), angle.sin().to(self.dtype)

    def _heads(self, x, n_heads, rope=None):
        x = x.view(x.shape[0], n_heads, self.head_dim).transpose(0, 1)
        if rope is None:
            return x
        (cos, sin), half = rope, self.head_dim // 2
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def _attend(self, x, prefix, rope, cached):
        """The attention's output for x [n, hidden], and (q, k, v) [heads, n, D] of these rows. They
        see `cached`, a pair (k, v) or None, and one another."""
        name = self.names
        q = self._heads(self._linear(x, prefix + name["q"]), self.n_heads, rope)
        k = self._heads(self._linear(x, prefix + name["k"]), self.n_kv_heads, rope)
        v = self._heads(self._linear(x, prefix + name["v"]), self.n_kv_heads)
        group, keys, values = self.n_heads // self.n_kv_heads, k, v
        if cached is not None:
            keys, values = torch.cat((cached[0], k), 1), torch.cat((cached[1], v), 1)
        keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
        out = torch.softmax(q @ keys.transpose(1, 2) / math.sqrt(self.head_dim), -1) @ values
        out = out.transpose(0, 1).reshape(x.shape[0], -1)
        return self._linear(out, prefix + name["o"]), (q, k, v)

    @torch.no_grad()
    def forward(self, ids, positions, rows, cached=None):
        """Feeds the ids of some positions of a canvas; cached: per layer (k, v) that they see
        besides one another. Returns logits [len(rows), n_vocab] of the wanted rows (indices in
        ids), and per layer (q, k, v) of all, after RoPE."""
        name, layers = self.names, []
        x = self.weights[name["embed"] + ".weight"][torch.tensor(ids)]
        rope = self._rope(positions)
        for i in range(self.n_layers):
            prefix = name["layer"] % i
            out, heads = self._attend(self._norm(x, prefix + name["attn_norm"]), prefix, rope,
                                      cached and cached[i])
            x = x + out
            layers.append(heads)
            n = self._norm(x, prefix + name["ffn_norm"])
            gate = self._linear(n, prefix + name["gate"])
            gated = gate / (1 + torch.exp(-gate)) * self._linear(n, prefix + name["up"])
            x = x + self._linear(gated, prefix + name["down"])
        x = self._norm(x[rows], name["norm"])
        out = self._linear(x, name["embed"] if self.tied else name["head"])
        return out.double().numpy(), layers

    def row_of(self, position):
        """The position whose row predicts `position`: Dream's row i - 1 predicts position i, and
        row 0 also position 0."""
        return max(0, position - 1) if self.dream else position

    def logits(self, ids, positions):
        """[n_positions, n_vocab]: what a full forward predicts for the wanted positions."""
        everywhere = range(len(ids))
        return self.forward(ids, everywhere, [self.row_of(p) for p in positions])[0]


# ---- random numbers: Philox4x32-10 keyed by request, counted by step, position and stream ----

STREAM_CONFIDENCE, STREAM_ORDER, STREAM_EACH = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


def uniform(key, step, position, stream):
    """Uniform in (0, 1) from 52 random bits, one per stream. key = (seed, hash of request id)."""
    seed, id_hash = key
    c0 = np.atleast_1d(np.asarray(stream, dtype=np.uint64))
    c1, c2 = np.full_like(c0, position), np.full_like(c0, step)
    c3 = np.full_like(c0, id_hash >> 32)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) ^ (id_hash & 0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = ((p1 >> SHIFT) ^ c1 ^ np.uint64(k0), p1 & LOW,
                          (p0 >> SHIFT) ^ c3 ^ np.uint64(k1), p0 & LOW)
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    bits = ((c0 << SHIFT) | c1) >> np.uint64(12)
    return (bits.astype(np.float64) + 0.5) * 2.0 ** -52


def gumbel(u):
    return -np.log(-np.log(u))


def fnv1a(text):
    """FNV-1a, 64 bits: the hash of a request's id."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


# ---- from logits to a pick ----

class Margins:
    """The closest calls of a decode: how far from another outcome every decision was."""

    LIMITS = {"logit": 2e-4, "filter": 2e-4, "top_p": 2e-5, "cut": 2e-5, "odds": 2e-4,
              "threshold": 2e-5, "each": 1e-6, "select": 2e-4}

    def __init__(self):
        self.smallest = {}

    def note(self, kind, distance):
        self.smallest[kind] = min(self.smallest.get(kind, math.inf), float(distance))

    def is_safe(self, judge_cuts_by="cut"):
        """A trained model's confidences crowd near 1, where an error of the logits moves them the
        less the nearer they are: there `odds` judges the cuts between them, not `cut`."""
        ignored = {"cut": "odds", "odds": "cut"}[judge_cuts_by]
        return all(d >= self.LIMITS[kind] for kind, d in self.smallest.items() if kind != ignored)


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def note_top_two(margins, kind, z):
    if len(z) > 1:
        second, first = np.partition(z, -2)[-2:]
        margins.note(kind, first - second)


def apply_filters(z, top_p, top_k, margins):
    """-inf where top_p, then top_k remove an entry. Ties at the k-th value stay."""
    z = z.copy()
    if top_p < 1:
        order = np.argsort(-z, kind="stable")
        p = softmax(z)[order]
        before = np.cumsum(p) - p
        stays = before <= top_p
        stays[0] = True
        finite = np.isfinite(z[order])
        margins.note("top_p", np.abs(before[finite] - top_p)[1:].min(initial=math.inf))
        n = int((stays & finite).sum())
        if n < finite.sum():
            margins.note("filter", z[order[n - 1]] - z[order[n]])
        z[order[~stays]] = -np.inf
    if 0 < top_k < np.isfinite(z).sum():
        ordered = np.sort(z)[::-1]
        margins.note("filter", ordered[top_k - 1] - ordered[top_k])
        z[z < ordered[top_k - 1]] = -np.inf
    return z


class Pick:
    """id, confidence and log-probability of a position; `exact`: the confidence has no rounding."""

    def __init__(self, id, confidence, log_prob, exact=False):
        self.id, self.confidence, self.log_prob, self.exact = id, confidence, log_prob, exact


def score(l, s, model, position, step, margins):
    """The pick of one position from its logits [n_vocab] under the settings s."""
    l = l.copy()
    l[model.mask_id] = -np.inf
    if s["logits_eos_inf"]:
        l[model.eos_id] = -np.inf
    t = s["temperature"]
    z = apply_filters(l / t if t > 0 else l, s["top_p"], s["top_k"], margins)
    kept = np.isfinite(z)
    drawn = np.where(kept, l, -np.inf)
    if t > 0:
        drawn = drawn + t * gumbel(uniform(s["key"], step, position, np.arange(len(l))))
    note_top_two(margins, "logit", drawn[kept])
    id = int(np.argmax(drawn))
    log_prob = math.log(softmax(l)[id])
    rule = s["remasking"]
    if rule == "low_confidence":
        c = l.copy()
        if s["confidence_eos_eot_inf"]:
            c[[i for i in (model.eos_id, model.eot_id) if i is not None]] = -np.inf
        return Pick(id, softmax(c)[id], log_prob, exact=c[id] == -np.inf)
    if rule == "random":
        confidence = uniform(s["key"], step, position, STREAM_CONFIDENCE)[0]
        return Pick(id, confidence, log_prob, exact=True)
    p = softmax(z)
    if rule == "topk_margin":
        second, first = np.partition(p, -2)[-2:]
        confidence = first - second
    elif rule == "entropy":
        confidence = np.sum(p * np.log(p + 1e-10))
    else:
        confidence = p[id]
    return Pick(id, confidence, log_prob, exact=kept.sum() == 1)


# ---- schedules: how many tokens a step of a block commits ----

def num_transfer(n_masked, n_steps):
    """LLaDA: equal parts, the remainder first."""
    return [n_masked // n_steps + (j < n_masked % n_steps) for j in range(n_steps)]


def timesteps(n_steps, epsilon=1e-3):
    """Dream: linspace(1, epsilon, n_steps + 1) in float32, from both ends towards the middle."""
    start, end, n = np.float32(1), np.float32(epsilon), n_steps + 1
    step = (end - start) / np.float32(n - 1)
    return [start + step * np.float32(i) if i < n // 2 else end - step * np.float32(n - 1 - i)
            for i in range(n)]


def transfer_fraction(ts, j):
    """1 - s / t in float32; everything in the last step."""
    return np.float32(1) - ts[j + 1] / ts[j] if j < len(ts) - 2 else np.float32(1)


DREAM_RULES = ("origin", "maskgit_plus", "topk_margin", "entropy")


class Schedule:
    """Tells each step of one block how many tokens to commit; None: the rule decides by itself."""

    def __init__(self, s, n_masked, n_steps):
        self.s, self.dream = s, s["remasking"] in DREAM_RULES
        self.quotas = num_transfer(n_masked, n_steps)
        self.times = timesteps(n_steps)

    def quota(self, j, n_masked):
        if self.s["threshold"] is not None or self.s["factor"] is not None:
            return None
        if self.s["remasking"] == "origin":
            return None
        if self.dream:
            return int(np.float32(n_masked) * transfer_fraction(self.times, j))
        return min(self.quotas[j], n_masked)


# ---- from picks to commits ----

def odds_gap(p, q):
    """Distance of two probabilities in log-odds; 0, that is unsafe, where a key is none."""
    if not (0 < p < 1 and 0 < q < 1):
        return 0.0
    return abs(math.log(p / (1 - p)) - math.log(q / (1 - q)))


def commit_top(keys, n, exact, margins):
    """The n largest, ties to the earlier one."""
    order = sorted(range(len(keys)), key=lambda i: (-keys[i], i))
    if 0 < n < len(keys):
        last, first_out = order[n - 1], order[n]
        if not (exact[last] and exact[first_out]):
            margins.note("cut", keys[last] - keys[first_out])
            margins.note("odds", odds_gap(keys[last], keys[first_out]))
    return order[:n]


def commit_threshold(keys, threshold, exact, margins):
    for key in keys:
        margins.note("threshold", abs(key - threshold))
    n = sum(key >= threshold for key in keys)
    return commit_top(keys, max(n, 1), exact, margins)


def commit_factor(keys, factor, exact, margins):
    """Ranks pass while c(n) >= 1 - factor / (n + 1), the first always; a failing rank is accepted
    when it alone fails at the very end (as published)."""
    order = sorted(range(len(keys)), key=lambda i: (-keys[i], i))
    accepted = len(keys)
    for n in range(2, len(keys) + 1):
        bound = 1 - factor / (n + 1)
        margins.note("threshold", abs(keys[order[n - 1]] - bound))
        if keys[order[n - 1]] < bound:
            accepted = n - 1 if n < len(keys) else len(keys)
            break
    return commit_top(keys, accepted, exact, margins)


def choose(picks, positions, s, quota, probability, step, margins):
    """Indices of the picks that this step commits."""
    keys, exact = [pick.confidence for pick in picks], [pick.exact for pick in picks]
    if s["threshold"] is not None:
        return commit_threshold(keys, s["threshold"], exact, margins)
    if s["factor"] is not None:
        return commit_factor(keys, s["factor"], exact, margins)
    if s["remasking"] == "origin":
        u = [uniform(s["key"], step, p, STREAM_EACH)[0] for p in positions]
        for x in u:
            margins.note("each", abs(x - probability))
        return [i for i, x in enumerate(u) if x < probability]
    if s["alg_temp"] > 0:
        noise = [gumbel(uniform(s["key"], step, p, STREAM_ORDER))[0] for p in positions]
        keys = [key / s["alg_temp"] + g for key, g in zip(keys, noise)]
    return commit_top(keys, quota, exact, margins)


# ---- decoding ----

DEFAULTS = {
    "steps": None, "remasking": "low_confidence", "temperature": 0.0, "top_p": 1.0, "top_k": 0,
    "alg_temp": 0.0, "cfg_scale": 0.0, "threshold": None, "factor": None, "seed": 0,
    "early_stop": False, "logits_eos_inf": False, "confidence_eos_eot_inf": False,
}


class Canvas:
    """A request's token ids and those of its unconditional twin, and what both keep of steps."""

    def __init__(self, model, s):
        prompt = s["prompt_token_ids"]
        self.n_prompt = len(prompt)
        self.ids = list(prompt) + [model.mask_id] * s["gen_length"]
        self.given = [i for i, id in enumerate(self.ids) if id != model.mask_id]
        self.log_probs = [0.0] * len(self.ids)
        self.mask_id = model.mask_id
        self.caches = [Cache(), Cache()][:1 + (s["cfg_scale"] > 0)]

    def masked(self, begin, end):
        return [i for i in range(begin, end) if self.ids[i] == self.mask_id]

    def twin(self):
        """The same with every token that was known at the start masked."""
        ids = list(self.ids)
        for i in self.given:
            ids[i] = self.mask_id
        return ids

    def stop_index(self, stop_ids):
        """Where the first stop token stands when everything generated before it is committed."""
        for i in range(self.n_prompt, len(self.ids)):
            if self.ids[i] == self.mask_id:
                return None
            if self.ids[i] in stop_ids:
                return i
        return None


class Result:
    def __init__(self):
        self.n_steps, self.margins = 0, Margins()
        self.n_refresh = self.n_reuse = self.n_positions = 0  # steps; rows of all steps and twins
        self.commit_steps = {}     # position -> step
        self.first_logits = None   # (positions, [n_positions, n_vocab]) of the first step
        self.last_rank_accepted = False
        self.token_ids = self.log_probs = None


def settle(case):
    s = {**DEFAULTS, **SETTINGS, **{key: value for key, value in case.items() if value is not None}}
    s["key"] = (s["seed"], int(case.get("id_hash") or "0", 16))
    return s


def block_bounds(s, n_canvas):
    """Blocks start at the prompt's end; infilling cuts the whole canvas. The last may be short."""
    begin = 0 if s["gen_length"] == 0 else len(s["prompt_token_ids"])
    starts = list(range(begin, n_canvas, s["block_length"]))
    return [(start, min(start + s["block_length"], n_canvas)) for start in starts]


def steps_per_block(s, n_blocks):
    """None: as many as the block has masks."""
    if s["steps"] is None:
        return None
    if s["gen_length"] == 0:
        return -(-s["steps"] // n_blocks)
    assert s["steps"] % n_blocks == 0, "steps must divide over the blocks"
    return s["steps"] // n_blocks


def step_logits(model, canvas, block, j, positions, result):
    """What step j of the block predicts for the positions; [n_canvases, n_positions, n_vocab]."""
    fed, logits = block.fed(j), []
    rows = [fed.index(model.row_of(p)) for p in positions]
    for ids, cache in zip([canvas.ids, canvas.twin()], canvas.caches):
        l, layers = model.forward([ids[p] for p in fed], fed, rows, cache.seen(block, j))
        cache.update(block, j, layers, result.margins)
        result.n_positions += len(fed)
        logits.append(l)
    result.n_refresh += block.is_full(j)
    result.n_reuse += not block.is_full(j)
    return logits


def decode_step(model, canvas, block, j, positions, quota, probability, result):
    """One forward pass, the picks of the block's masked positions, and the commits."""
    s = block.s
    l = step_logits(model, canvas, block, j, positions, result)
    if s["cfg_scale"] > 0:
        l[0] = l[1] + (s["cfg_scale"] + 1) * (l[0] - l[1])
    if result.first_logits is None:
        result.first_logits = (positions, l[0])
    step = result.n_steps
    picks = [score(row, s, model, p, step, result.margins) for row, p in zip(l[0], positions)]
    chosen = choose(picks, positions, s, quota, probability, step, result.margins)
    for i in chosen:
        canvas.ids[positions[i]] = picks[i].id
        canvas.log_probs[positions[i]] = picks[i].log_prob
        result.commit_steps[positions[i]] = step
    if s["factor"] is not None and len(chosen) == len(picks) > 1:
        worst = min(pick.confidence for pick in picks)
        result.last_rank_accepted |= worst < 1 - s["factor"] / (len(picks) + 1)
    result.n_steps += 1


def decode(model, case):
    """Runs a case to its answer. A step of the schedule that commits nothing runs no forward and is
    not counted, so `step` (also of the noise) numbers the forward passes."""
    s, result = settle(case), Result()
    check_settings(s)
    canvas = Canvas(model, s)
    bounds = block_bounds(s, len(canvas.ids))
    n_steps, stop = steps_per_block(s, len(bounds)), None
    for index, (begin, end) in enumerate(bounds):
        if stop is not None:
            break
        block = Block(s, bounds, index, int(model.dream))
        positions = canvas.masked(begin, end)
        schedule = Schedule(s, len(positions), n_steps or max(1, len(positions)))
        j, n_before = 0, result.n_steps
        while positions and stop is None:
            quota = schedule.quota(j, len(positions))
            if quota != 0:
                fraction = 0.0
                if s["remasking"] == "origin":
                    fraction = float(transfer_fraction(schedule.times, j))
                decode_step(model, canvas, block, result.n_steps - n_before, positions, quota,
                            fraction, result)
                positions = canvas.masked(begin, end)
                stop = canvas.stop_index(model.stop_ids) if s["early_stop"] else None
            j += 1
    first = 0 if s["gen_length"] == 0 else canvas.n_prompt
    last = len(canvas.ids) if stop is None else stop + 1
    result.token_ids, result.log_probs = canvas.ids[first:last], canvas.log_probs[first:last]
    return result
