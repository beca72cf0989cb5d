#!/usr/bin/env python3
"""Batched block decoding of a LLaDA shape in plain, eager PyTorch, as a careful user writes it.

    tools/torch_baseline.py --shape data/shapes/llada-8b [--batch N] [--prompt N] [--gen N]
                            [--block N] [--steps N] [--loop] [--device cuda|cpu] [--json]
    tools/torch_baseline.py --check BUILD

bf16 weights from a seed, scaled_dot_product_attention, dual cache: a block's first step is a full
forward that keeps all K and V, later steps feed only the block's rows and overwrite theirs. All
requests go in lockstep with prompts of one length, so nothing is padded; only the block's masked
rows meet the vocabulary, in chunks; the most confident ones are committed. --loop is the unbatched
reference loop instead: one request at a time, full forward and full logits in every step.
Prints committed tokens per second, without loading and one warm-up block.

--check shows that it is the same decode: in f32, on the processor, with the weights of the shipped
model, it commits the tokens that BUILD/dllm-batch does, cached and not, some steps of all quotas.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

HEAD_ROWS = 512  # rows that meet the vocabulary together: logits of 126,464 ids are large
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def rms_norm(x, weight, epsilon):
    return F.rms_norm(x, weight.shape, weight, epsilon)


def quota(step, n_steps, length):
    """Tokens of a block's step: as even as can be, the first steps take what is left over."""
    return length // n_steps + (step < length % n_steps)


class Model:
    """Weights and K, V of one batch; rows are [batch, n, hidden]."""

    def __init__(self, shape, args):
        self.c, self.device = shape, args.device
        d, ffn, n_vocab = shape["d_model"], shape["mlp_hidden_size"], shape["embedding_size"]
        self.n_heads = shape["n_heads"]
        self.head_dim = d // self.n_heads
        self.kv_dim = shape["n_kv_heads"] * self.head_dim
        torch.manual_seed(1)
        self.embedding = self.random(n_vocab, d, 1.0)
        self.head = self.random(n_vocab, d, d ** -0.5)
        self.norm = torch.ones(d, device=self.device, dtype=torch.bfloat16)
        self.layers = [{"qkv": self.random(d + 2 * self.kv_dim, d, d ** -0.5),
                        "out": self.random(d, d, d ** -0.5),
                        "gate_up": self.random(2 * ffn, d, d ** -0.5),
                        "down": self.random(d, ffn, ffn ** -0.5)}
                       for _ in range(shape["n_layers"])]
        length = args.prompt + args.gen
        frequencies = shape["rope_theta"] ** -(torch.arange(0, self.head_dim, 2) / self.head_dim)
        angles = torch.outer(torch.arange(length).float(), frequencies)
        self.cos = torch.cat([angles.cos()] * 2, -1).to(self.device)
        self.sin = torch.cat([angles.sin()] * 2, -1).to(self.device)
        self.keys = [None] * shape["n_layers"]
        self.values = [None] * shape["n_layers"]

    def random(self, n_out, n_in, scale):
        rows = torch.empty(n_out, n_in, device=self.device, dtype=torch.bfloat16)
        return rows.normal_(0, scale)

    def rotate(self, x, begin):
        """x: [batch, heads, n, head_dim], positions from `begin`."""
        n, half = x.shape[2], self.head_dim // 2
        cos, sin = self.cos[begin:begin + n], self.sin[begin:begin + n]
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return (x.float() * cos + turned.float() * sin).to(x.dtype)

    def attend(self, index, layer, x, begin, is_full):
        batch, n, d = x.shape
        q, k, v = F.linear(x, layer["qkv"]).split([d, self.kv_dim, self.kv_dim], -1)
        q, k, v = (t.view(batch, n, -1, self.head_dim).transpose(1, 2) for t in (q, k, v))
        q, k = self.rotate(q, begin), self.rotate(k, begin)
        if is_full:
            self.keys[index], self.values[index] = k, v.contiguous()
        else:
            self.keys[index][:, :, begin:begin + n] = k
            self.values[index][:, :, begin:begin + n] = v
        grouped = self.kv_dim < d
        out = F.scaled_dot_product_attention(q, self.keys[index], self.values[index],
                                             **({"enable_gqa": True} if grouped else {}))
        return F.linear(out.transpose(1, 2).reshape(batch, n, d), layer["out"])

    def forward(self, ids, begin, is_full):
        """The final norm of ids [batch, n], which lie at positions begin.."""
        x, epsilon = F.embedding(ids, self.embedding), self.c["rms_norm_eps"]
        for index, layer in enumerate(self.layers):
            x = x + self.attend(index, layer, rms_norm(x, self.norm, epsilon), begin, is_full)
            gate, up = F.linear(rms_norm(x, self.norm, epsilon), layer["gate_up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer["down"])
        return rms_norm(x, self.norm, epsilon)

    def pick(self, hidden):
        """The best id of each row [n, hidden] and its probability; the mask is no candidate."""
        ids, confidence = [], []
        for rows in hidden.split(HEAD_ROWS):
            logits = F.linear(rows, self.head).float()
            logits[:, self.c["mask_token_id"]] = -torch.inf
            best = logits.max(-1)
            ids.append(best.indices)
            confidence.append(torch.exp(best.values - logits.logsumexp(-1)))
        return torch.cat(ids), torch.cat(confidence)


def commit(block, masked, ids, confidence, n_commit):
    """The n_commit most confident masked cells of every row of the block."""
    sure = torch.full(block.shape, -1.0, device=block.device)
    found = torch.zeros_like(block)
    sure[masked], found[masked] = confidence, ids
    best = sure.topk(n_commit, -1).indices
    block.scatter_(1, best, found.gather(1, best))


def decode_block(model, canvas, begin, end, n_steps):
    block = canvas[:, begin:end]
    for step in range(n_steps):
        masked = block == model.c["mask_token_id"]
        hidden = (model.forward(canvas, 0, True)[:, begin:end] if step == 0
                  else model.forward(block, begin, False))
        ids, confidence = model.pick(hidden[masked])
        commit(block, masked, ids, confidence, quota(step, n_steps, end - begin))


def decode_block_loop(model, canvas, begin, end, n_steps):
    """generate.py of LLaDA: logits of every position, in every step."""
    mask_id, block = model.c["mask_token_id"], canvas[:, begin:end]
    for step in range(n_steps):
        logits = F.linear(model.forward(canvas, 0, True), model.head)
        logits[..., mask_id] = -torch.inf
        probability, ids = (best[:, begin:end] for best in F.softmax(logits.float(), -1).max(-1))
        masked = block == mask_id
        commit(block, masked, ids[masked], probability[masked], quota(step, n_steps, end - begin))


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def measure(model, args):
    """Seconds for all blocks of one batch."""
    n_blocks = args.gen // args.block
    ids = torch.randint(0, model.c["mask_token_id"], (args.batch, args.prompt), device=args.device)
    masks = torch.full((args.batch, args.gen), model.c["mask_token_id"], device=args.device)
    canvas = torch.cat([ids, masks], 1)
    run = decode_block_loop if args.loop else decode_block
    warm_up = min(2, args.steps // n_blocks)
    run(model, canvas.clone(), args.prompt, args.prompt + args.block, warm_up)
    synchronize(args.device)
    start = time.perf_counter()
    for block in range(n_blocks):
        begin = args.prompt + block * args.block
        run(model, canvas, begin, begin + args.block, args.steps // n_blocks)
    synchronize(args.device)
    seconds = time.perf_counter() - start
    assert not (canvas == model.c["mask_token_id"]).any()
    return seconds


# ---- the same decode ----

CHECKED = os.path.join(ROOT, "data", "models", "tiny-llada")
N_PROMPTS, N_PROMPT_IDS, N_GEN, BLOCK = 8, 40, 32, 8


def read_weights(folder):
    """Tensors by name, in f32."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        data = bytearray(file.read())
    begin = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, last = (begin + offset for offset in entry["data_offsets"])
            tensor = torch.frombuffer(data[first:last], dtype=torch.bfloat16)
            found[name.removeprefix("model.transformer.")] = tensor.view(entry["shape"]).float()
    return found


def load(model, weights):
    """Real weights instead of random ones; norms are folded into the matrices behind them."""
    model.norm = torch.ones_like(weights["ln_f.weight"])
    model.embedding = weights["wte.weight"]
    model.head = weights["ff_out.weight"] * weights["ln_f.weight"]
    for index, layer in enumerate(model.layers):
        of = {name.split(".")[2]: weight for name, weight in weights.items()
              if name.startswith(f"blocks.{index}.")}
        layer["qkv"] = torch.cat([of[f"{x}_proj"] for x in "qkv"]) * of["attn_norm"]
        layer["gate_up"] = torch.cat([of["ff_proj"], of["up_proj"]]) * of["ff_norm"]
        layer["out"], layer["down"] = of["attn_out"], of["ff_out"]


def program_decode(build, prompts, cache, steps):
    with tempfile.TemporaryDirectory() as folder:
        path, out = os.path.join(folder, "prompts.jsonl"), os.path.join(folder, "answers.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(json.dumps({"prompt_token_ids": ids}) + "\n" for ids in prompts)
        subprocess.run([os.path.join(build, "dllm-batch"), "run", "-m", CHECKED, "--backend", "cpu",
                        "--cache", cache, "--steps", str(steps), "--gen-length", str(N_GEN),
                        "--block-length", str(BLOCK), "--no-early-stop", "--ordered", "--token-ids",
                        "--no-compress", "-q", "-o", out, path], check=True)
        with open(out, encoding="utf-8") as file:
            records = map(json.loads, file)
            return [record["token_ids"] for record in records if "token_ids" in record]


def baseline_decode(model, prompts, cache, steps):
    masks = torch.full((1, N_GEN), model.c["mask_token_id"])
    rows = [torch.cat([torch.tensor([ids]), masks], 1) for ids in prompts]
    run, batches = ((decode_block_loop, rows) if cache == "none"
                    else (decode_block, [torch.cat(rows)]))
    for canvas in batches:
        for begin in range(N_PROMPT_IDS, N_PROMPT_IDS + N_GEN, BLOCK):
            run(model, canvas, begin, begin + BLOCK, steps // (N_GEN // BLOCK))
    return torch.cat(batches)[:, N_PROMPT_IDS:].tolist()


def check(shape, build):
    """Sums are in another order, so a decision that is close may differ: one answer of each run."""
    args = argparse.Namespace(device="cpu", prompt=N_PROMPT_IDS, gen=N_GEN)
    model, rng, ok = Model(shape, args), random.Random(3), True
    load(model, read_weights(CHECKED))
    prompts = [[rng.randrange(640) for _ in range(N_PROMPT_IDS)] for _ in range(N_PROMPTS)]
    for cache in ("none", "dual"):
        for steps in (32, 16, 12, 4):
            pairs = zip(program_decode(build, prompts, cache, steps),
                        baseline_decode(model, prompts, cache, steps))
            n_same = sum(ours == theirs for ours, theirs in pairs)
            ok = ok and n_same >= N_PROMPTS - 1
            print(f"cache {cache}, {steps} steps: {n_same} of {N_PROMPTS} answers are the same")
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", help="folder with config.json")
    parser.add_argument("--check", metavar="BUILD", help="compare its decodes with dllm-batch's")
    defaults = {"batch": 64, "prompt": 400, "gen": 64, "block": 32, "steps": 64}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--loop", action="store_true", help="the unbatched reference loop")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.shape and not args.check:
        parser.error("say --shape or --check")
    with open(os.path.join(args.shape or CHECKED, "config.json"), encoding="utf-8") as file:
        shape = json.load(file)
    args.batch = 1 if args.loop else args.batch
    with torch.inference_mode():
        if args.check:
            sys.exit(not check(shape, args.check))
        seconds = measure(Model(shape, args), args)
    rate = args.batch * args.gen / seconds
    if args.json:
        print(json.dumps({"tokens_per_s": rate, "seconds": seconds, "batch": args.batch}))
    else:
        print(f"{rate:.1f} tokens/s (batch {args.batch}, {args.gen} tokens in {args.steps} steps)")


if __name__ == "__main__":
    main()
