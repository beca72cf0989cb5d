#!/usr/bin/python3
"""Trains the shipped LLaDA-style masked-diffusion model and writes it as a Hugging Face folder.

    OMP_NUM_THREADS=1 ./train.py --out ../../data/models/NAME [--workers 2] [--steps N]

Plain mean cross-entropy over masked answer tokens, end-of-text padding at weight 0.15. Look-up
needs a circuit of two layers (find the key, copy what follows it) that is found late and suddenly
from random weights; start_circuits puts its outline there, and it works after 300 steps, not 5,000.
Workers are processes that average their gradients (torch's threads are slow on small matrices).
"""

import argparse
import json
import math
import os
import random
import struct
import sys
import time

try:
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch import nn
except ImportError as missing:
    sys.exit(f"{missing} in {sys.executable}; 'tools/setup train' installs it for /usr/bin/python3")

import bpe
import tasks

EPSILON = 1e-5
ROPE_THETA = 10000.0
PADDING_WEIGHT = 0.15
TASK_SHARES = {"add": 5, "lookup": 3, "sort": 4, "reverse": 2, "count": 5, "word_problem": 5}
LOOKUP_STEPS = 400  # look-up alone, until its circuit holds; then all tasks
PAIRS_FIRST, PAIRS_LAST, PAIRS_STEPS = 4, 12, 2000  # it starts short and grows
ITEMS_FIRST, ITEMS_LAST = 3, 9  # so does counting, over --items-steps


class Block(nn.Module):
    def __init__(self, width, n_heads, ffn):
        super().__init__()
        self.n_heads = n_heads
        self.attn_norm = nn.Parameter(torch.ones(width))
        self.ff_norm = nn.Parameter(torch.ones(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * ffn, bias=False)
        self.ff_out = nn.Linear(ffn, width, bias=False)

    def forward(self, x, cos, sin):
        n, t, width = x.shape
        q, k, v = self.qkv(rms_norm(x, self.attn_norm)).chunk(3, dim=-1)
        q, k, v = (y.view(n, t, self.n_heads, -1).transpose(1, 2) for y in (q, k, v))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        a = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        x = x + self.attn_out(a.transpose(1, 2).reshape(n, t, width))
        gate, up = self.gate_up(rms_norm(x, self.ff_norm)).chunk(2, dim=-1)
        return x + self.ff_out(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, n_vocab, width, n_layers, n_heads, ffn):
        super().__init__()
        self.width, self.n_heads, self.ffn = width, n_heads, ffn
        self.wte = nn.Embedding(n_vocab, width)
        self.blocks = nn.ModuleList(Block(width, n_heads, ffn) for _ in range(n_layers))
        self.ln_f = nn.Parameter(torch.ones(width))
        self.head = nn.Linear(width, n_vocab, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                scale = 0.5 / math.sqrt(n_layers) if "out" in name else 1.0
                nn.init.normal_(p, std=scale / math.sqrt(p.shape[1] if "wte" not in name else 16))
        self.start_circuits()

    @torch.no_grad()
    def start_circuits(self, n_sharp=4, sharpness=57.0):
        """Every head of the first two layers starts by attending to what is alike (k = q) and
        copying it (out = v transposed, head = embedding); later layers start at random. Heads 0
        and 1 of the first layer look one token back: their q and k are constants (of the
        embedding's constant column) whose RoPE angles agree at that distance. Heads 0 and 1 of the
        second layer compare what those wrote: which token stands before."""
        d = self.width // self.n_heads
        half = d // 2
        self.wte.weight[:, 0] = 1.0
        constant = math.sqrt(self.width / (1 + self.wte.weight[:, 1:].pow(2).sum(1).mean().item()))
        first, second = self.blocks[0], self.blocks[1]
        for block in (first, second):
            q, k, v = block.qkv.weight.chunk(3)
            k.copy_(q)
            block.attn_out.weight.copy_(v.T * 0.5)
        for head in (0, 1):
            at = slice(head * d, head * d + d)
            q, k, v = first.qkv.weight.chunk(3)
            q[at], k[at] = 0, 0
            for i in range(n_sharp):
                angle, size = ROPE_THETA ** (-i / half), math.sqrt(sharpness) / constant
                q[head * d + i, 0] = size
                k[head * d + i, 0] = size * math.cos(angle)
                k[head * d + half + i, 0] = size * math.sin(angle)
            first.attn_out.weight[:, at] = v[at].T * 2
            q, k, _ = second.qkv.weight.chunk(3)
            q[at] = k[at] = first.attn_out.weight[:, at].T
        self.head.weight.copy_(self.wte.weight * 4 / math.sqrt(self.width))

    def forward(self, ids, wanted):
        """Logits of the rows where `wanted` is true."""
        half = self.width // self.n_heads // 2
        frequency = ROPE_THETA ** (-torch.arange(half) / half)
        angle = torch.arange(ids.shape[1])[:, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        x = self.wte(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.head(rms_norm(x[wanted], self.ln_f))


def rms_norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def train_tokenizer():
    rng = random.Random(0)
    texts = ["user", "assistant", "system", "\n\n"] * 1000
    for i in range(20000):
        texts += tasks.draw(rng, list(tasks.TASKS)[i % len(tasks.TASKS)], False)
    return bpe.Tokenizer(texts, 2000)


class Batches:
    """Endless (ids, targets' mask, weights, targets), grouped by length: nothing is padded."""

    def __init__(self, tokenizer, seed, n_tokens, shares):
        self.tokenizer, self.n_tokens = tokenizer, n_tokens
        self.rng = random.Random(seed)
        self.torch_rng = torch.Generator().manual_seed(seed)
        self.ready = []
        self.n_pairs_max, self.n_items_max, self.lookup_only = PAIRS_FIRST, ITEMS_FIRST, True
        self.values = {tokenizer.ids["=" + value] for value in tasks.VALUES}
        self.task_names = [t for t, share in shares.items() for _ in range(share)]

    def sample(self):
        rng, tk = self.rng, self.tokenizer
        task = "lookup" if self.lookup_only else rng.choice(self.task_names)
        kwargs = {}
        if task == "lookup":
            kwargs = {"n_asked_max": rng.choice((4, 8)), "n_pairs_max": self.n_pairs_max}
        if task == "count":
            kwargs = {"n_items_max": self.n_items_max}
        prompt, answer = tasks.draw(rng, task, False, **kwargs)
        prompt_ids = tk.encode_prompt(prompt)
        answer_ids = tk.encode(answer) + [tk.ids["<|eot_id|>"]]
        n_answer = len(answer_ids)
        gen = n_answer + -n_answer % 8  # often as short as it can be: padding teaches little
        if rng.random() < 0.4:
            gen = rng.choice([g for g in (8, 16, 24, 32, 32, 32, 48) if g >= n_answer])
        gen += -(len(prompt_ids) + gen) % 8
        ids = prompt_ids + answer_ids + [tk.ids["<|endoftext|>"]] * (gen - n_answer)
        weights = [1.0] * (len(prompt_ids) + n_answer) + [PADDING_WEIGHT] * (gen - n_answer)
        rate, p, total = rng.random(), len(prompt_ids), len(ids)
        masked = [False] * p + [rng.random() < rate for _ in range(gen)]
        style = rng.random()
        if style < 0.35:  # blocks, as in semi-autoregressive decoding: before clear, after masked
            block = rng.choice((4, 8, 16))
            start = p + block * rng.randrange(-(-n_answer // block))
            for i in range(p, total):
                if not start <= i < start + block:
                    masked[i] = i >= start
        elif style < 0.7 and task == "lookup":  # values only: keys tell where to look
            masked = [i >= p and id in self.values and rng.random() < 0.5 + rate / 2
                      for i, id in enumerate(ids)]
        elif style > 0.9:
            masked = [i >= p for i in range(total)]
        if not any(masked):
            masked[p + rng.randrange(n_answer)] = True
        return ids, masked, weights, task

    def __next__(self):
        if not self.ready:
            by_length = {}
            for _ in range(512):
                item = self.sample()
                by_length.setdefault(len(item[0]), []).append(item)
            for length, items in by_length.items():
                n = max(1, self.n_tokens // length)
                self.ready += [items[i:i + n] for i in range(0, len(items), n)]
            self.rng.shuffle(self.ready)
        items = self.ready.pop()
        ids = torch.tensor([item[0] for item in items])
        masked = torch.tensor([item[1] for item in items])
        weights = torch.tensor([item[2] for item in items])[masked]
        tasks_of = torch.tensor([[list(TASK_SHARES).index(item[3])] for item in items])
        return (ids.masked_fill(masked, self.tokenizer.ids["<|mdm_mask|>"]), masked, weights,
                ids[masked], tasks_of.expand_as(ids)[masked])


def save(model, tokenizer, out):
    os.makedirs(out, exist_ok=True)
    width, ffn = model.width, model.ffn
    tensors = {"model.transformer.wte.weight": model.wte.weight,
               "model.transformer.ln_f.weight": model.ln_f,
               "model.transformer.ff_out.weight": model.head.weight}
    for i, block in enumerate(model.blocks):
        prefix = f"model.transformer.blocks.{i}."
        q, k, v = block.qkv.weight.split(width)
        gate, up = block.gate_up.weight.split(ffn)
        for name, tensor in {"attn_norm": block.attn_norm, "q_proj": q, "k_proj": k, "v_proj": v,
                             "attn_out": block.attn_out.weight, "ff_norm": block.ff_norm,
                             "ff_proj": gate, "up_proj": up,
                             "ff_out": block.ff_out.weight}.items():
            tensors[prefix + name + ".weight"] = tensor
    write_safetensors(os.path.join(out, "model.safetensors"), tensors)
    special = tokenizer.ids
    config = {
        "architectures": ["LLaDAModelLM"], "model_type": "llada", "block_type": "llama",
        "activation_type": "silu", "layer_norm_type": "rms", "rope": True,
        "d_model": width, "n_layers": len(model.blocks), "n_heads": model.n_heads,
        "n_kv_heads": model.n_heads, "mlp_hidden_size": ffn,
        "vocab_size": model.wte.weight.shape[0], "embedding_size": model.wte.weight.shape[0],
        "max_sequence_length": 4096, "rms_norm_eps": EPSILON, "rope_theta": ROPE_THETA,
        "include_bias": False, "include_qkv_bias": False, "weight_tying": False,
        "mask_token_id": special["<|mdm_mask|>"], "eos_token_id": special["<|endoftext|>"],
        "pad_token_id": special["<|endoftext|>"], "torch_dtype": "bfloat16",
    }
    template = (
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
        "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
        "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    )
    files = {
        "config.json": config,
        "generation_config.json": {
            "bos_token_id": special["<|startoftext|>"],
            "eos_token_id": [special["<|endoftext|>"], special["<|eot_id|>"]],
            "pad_token_id": special["<|endoftext|>"],
            "gen_length": 32, "block_length": 8, "steps": 32, "temperature": 0.0,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
            "mask_token": "<|mdm_mask|>", "model_max_length": 4096, "chat_template": template,
        },
        "tokenizer.json": tokenizer.to_json(),
    }
    for name, content in files.items():
        with open(os.path.join(out, name), "w") as f:
            json.dump(content, f, indent=1, ensure_ascii=False)
            f.write("\n")


@torch.no_grad()
def load(model, folder):
    """Takes the weights that save() wrote there: a run goes on from another's."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()

    def tensor(name):
        begin, end = header[name]["data_offsets"]
        raw = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.int16)
        return raw.view(torch.bfloat16).view(header[name]["shape"]).float()

    model.wte.weight.copy_(tensor("model.transformer.wte.weight"))
    model.ln_f.copy_(tensor("model.transformer.ln_f.weight"))
    model.head.weight.copy_(tensor("model.transformer.ff_out.weight"))
    for i, block in enumerate(model.blocks):
        parts = {name: tensor(f"model.transformer.blocks.{i}.{name}.weight")
                 for name in ("attn_norm", "q_proj", "k_proj", "v_proj", "attn_out", "ff_norm",
                              "ff_proj", "up_proj", "ff_out")}
        block.attn_norm.copy_(parts["attn_norm"])
        block.ff_norm.copy_(parts["ff_norm"])
        block.qkv.weight.copy_(torch.cat([parts[n] for n in ("q_proj", "k_proj", "v_proj")]))
        block.attn_out.weight.copy_(parts["attn_out"])
        block.gate_up.weight.copy_(torch.cat([parts["ff_proj"], parts["up_proj"]]))
        block.ff_out.weight.copy_(parts["ff_out"])


def write_safetensors(path, tensors):
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        blob = tensor.detach().bfloat16().contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


@torch.no_grad()
def accuracy(model, tokenizer, n_per_task, gen=32, block=8):
    """Exact match per task under plain decoding, one token a step; for the log's progress."""
    mask_id, eot = tokenizer.ids["<|mdm_mask|>"], tokenizer.ids["<|eot_id|>"]
    right = dict.fromkeys(tasks.TASKS, 0)
    for line in tasks.heldout_lines(n_per_task, 99):
        prompt = tokenizer.encode_prompt(line["prompt"])
        ids = torch.tensor([prompt + [mask_id] * gen])
        for start in range(len(prompt), len(prompt) + gen, block):
            for _ in range(block):
                masked = ids == mask_id
                masked[:, start + block:] = False
                confidence, token = model(ids, masked).softmax(-1).max(-1)
                position = masked[0].nonzero()[confidence.argmax(), 0]
                ids[0, position] = token[confidence.argmax()]
            if eot in ids[0, len(prompt):]:
                break
        answer = ids[0, len(prompt):].tolist()
        wanted = tokenizer.encode(line["answer"]) + [eot]
        right[line["task"]] += answer[:len(wanted)] == wanted
    return {task: n / n_per_task for task, n in right.items()}


def work(rank, args):
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    if args.workers > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(args.port))
        dist.init_process_group("gloo", rank=rank, world_size=args.workers)
    tokenizer = train_tokenizer()
    n_vocab = -(-len(tokenizer.ids) // 64) * 64
    model = Model(n_vocab, args.width, args.layers, args.heads, args.ffn)
    if args.go_on_from:
        load(model, args.go_on_from)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": norms, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.98))
    shares = {**TASK_SHARES, **dict(pair.split("=") for pair in args.share)}
    batches = Batches(tokenizer, args.seed * 1000 + rank, args.tokens // args.workers,
                      {task: int(share) for task, share in shares.items()})
    start, running, hits = time.time(), 0.0, [0.0] * len(TASK_SHARES)
    if rank == 0:
        n_parameters = sum(p.numel() for p in model.parameters())
        print(f"{n_parameters} parameters, vocabulary {n_vocab}", flush=True)
    for step in range(args.steps):
        warm, rest = min(1.0, (step + 1) / 200), step / args.steps
        rate = warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * rest)))
        for group in optimizer.param_groups:
            group["lr"] = args.lr * rate
        grown = 1.0 if args.go_on_from else min(1.0, step / PAIRS_STEPS)
        batches.n_pairs_max = round(PAIRS_FIRST + grown * (PAIRS_LAST - PAIRS_FIRST))
        grown = min(1.0, step / args.items_steps)
        batches.n_items_max = round(ITEMS_FIRST + grown * (ITEMS_LAST - ITEMS_FIRST))
        batches.lookup_only = step < LOOKUP_STEPS and not args.go_on_from
        ids, masked, weights, targets, task = next(batches)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # matrix products only
            logits = model(ids, masked)
        logits = logits.float()
        loss = F.cross_entropy(logits, targets, reduction="none")
        for i in range(len(hits)):  # of answer tokens, guessed from what is left of the answer
            mine = (task == i) & (weights == 1)
            if mine.any():
                hit = (logits[mine].argmax(-1) == targets[mine]).float().mean().item()
                hits[i] += (hit - hits[i]) * 0.02
        loss = (loss * weights).sum() / weights.sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        if args.workers > 1:
            flat = torch.cat([p.grad.view(-1) for p in model.parameters()])
            dist.all_reduce(flat)
            offset = 0
            for p in model.parameters():
                p.grad.copy_(flat[offset:offset + p.numel()].view_as(p) / args.workers)
                offset += p.numel()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep = min(0.999, step / (step + 10))
        for key, value in model.state_dict().items():
            average[key].lerp_(value, 1 - keep)
        running += (loss.item() - running) * (0.01 if step else 1.0)
        last = step + 1 == args.steps
        if rank == 0 and ((step + 1) % args.log_every == 0 or last):
            shown = " ".join(f"{name} {hit:.2f}" for name, hit in zip(TASK_SHARES, hits))
            seconds = (time.time() - start) / (step + 1)
            print(f"step {step + 1} loss {running:.3f} hits {shown} {seconds:.2f} s", flush=True)
        if rank == 0 and ((step + 1) % args.evaluate_every == 0 or last):
            current = {k: v.detach().clone() for k, v in model.state_dict().items()}
            model.load_state_dict({k: v.bfloat16().float() for k, v in average.items()})
            print("  accuracy", accuracy(model, tokenizer, 100 if last else 20), flush=True)
            save(model, tokenizer, args.out)
            model.load_state_dict(current)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--go-on-from", metavar="DIR", help="start from this folder's weights")
    parser.add_argument("--share", metavar="TASK=N", action="append", default=[],
                        help="draw N of so many samples from TASK")
    parser.add_argument("--items-steps", type=int, default=2500,
                        help="steps until counting has lists of full length")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--ffn", type=int, default=352)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--tokens", type=int, default=4096, help="positions a step, all workers")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--port", type=int, default=29511)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--evaluate-every", type=int, default=1000)
    args = parser.parse_args()
    if args.workers == 1:
        work(0, args)
    else:
        torch.multiprocessing.spawn(work, (args,), nprocs=args.workers)


if __name__ == "__main__":
    main()
