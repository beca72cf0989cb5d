#!/usr/bin/env python3
"""Batched block decoding of a LLaDA shape in plain, eager PyTorch, as a careful user writes it.

    tools/torch_baseline.py --shape data/shapes/llada-8b [--batch N] [--prompt N] [--gen N]
                            [--block N] [--steps N] [--loop] [--device cuda|cpu] [--json]

bf16 weights from a seed, scaled_dot_product_attention, dual cache: a block's first step is a full
forward that keeps all K and V, later steps feed only the block's rows and overwrite theirs. All
requests go in lockstep with prompts of one length, so nothing is padded; only the block's masked
rows meet the vocabulary, in chunks; the most confident ones are committed. --loop is the unbatched
reference loop instead: one request at a time, full forward and full logits in every step.
Prints committed tokens per second, without loading and one warm-up block.
"""

import argparse
import json
import os
import time

import torch
import torch.nn.functional as F

HEAD_ROWS = 512  # rows that meet the vocabulary together: logits of 126,464 ids are large


def rms_norm(x, weight, epsilon):
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + epsilon)
    return (x.float() * scale).to(x.dtype) * weight


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


def commit(canvas, begin, end, ids, confidence, n_commit, mask_id):
    """The n_commit most confident masked cells of every row's block."""
    block = canvas[:, begin:end]
    masked = block == mask_id
    sure = torch.full(block.shape, -1.0, device=canvas.device)
    found = torch.zeros_like(block)
    sure[masked], found[masked] = confidence, ids
    best = sure.topk(n_commit, -1).indices
    block.scatter_(1, best, found.gather(1, best))


def decode_block(model, canvas, begin, end, n_steps):
    mask_id = model.c["mask_token_id"]
    for step in range(n_steps):
        left = end - begin - step * (end - begin) // n_steps
        n_commit = left - (end - begin - (step + 1) * (end - begin) // n_steps)
        hidden = (model.forward(canvas, 0, True)[:, begin:end] if step == 0
                  else model.forward(canvas[:, begin:end], begin, False))
        ids, confidence = model.pick(hidden[canvas[:, begin:end] == mask_id])
        commit(canvas, begin, end, ids, confidence, n_commit, mask_id)


def decode_block_loop(model, canvas, begin, end, n_steps):
    """generate.py of LLaDA: logits of every position, in every step."""
    mask_id = model.c["mask_token_id"]
    for step in range(n_steps):
        left = end - begin - step * (end - begin) // n_steps
        n_commit = left - (end - begin - (step + 1) * (end - begin) // n_steps)
        logits = F.linear(model.forward(canvas, 0, True), model.head)
        logits[..., mask_id] = -torch.inf
        probability, ids = F.softmax(logits.float(), -1).max(-1)
        masked = canvas[:, begin:end] == mask_id
        commit(canvas, begin, end, ids[:, begin:end][masked], probability[:, begin:end][masked],
               n_commit, mask_id)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", required=True, help="folder with config.json")
    defaults = {"batch": 64, "prompt": 400, "gen": 64, "block": 32, "steps": 64}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--loop", action="store_true", help="the unbatched reference loop")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with open(os.path.join(args.shape, "config.json"), encoding="utf-8") as file:
        shape = json.load(file)
    args.batch = 1 if args.loop else args.batch
    with torch.inference_mode():
        seconds = measure(Model(shape, args), args)
    rate = args.batch * args.gen / seconds
    if args.json:
        print(json.dumps({"tokens_per_s": rate, "seconds": seconds, "batch": args.batch}))
    else:
        print(f"{rate:.1f} tokens/s (batch {args.batch}, {args.gen} tokens in {args.steps} steps)")


if __name__ == "__main__":
    main()
