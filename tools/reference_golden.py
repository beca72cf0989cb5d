"""The project's own golden models and cases: small random weights in every stored type and layout,
and one case per decoding rule. Everything comes from names through the counter-based generator, so
that the files are the same wherever they are made. Cases whose decisions are close are drawn again.
"""

import json
import math
import os
import random

import numpy as np

from reference_caches import SETTINGS
from reference_model import (DEFAULTS, NAMES, Model, decode, fnv1a, uniform, write_safetensors)

# ---- the project's own golden models: small, random, every stored type and layout ----

MODELS = {
    "llada-mha": dict(llada=True, hidden=48, heads=3, kv_heads=3, ffn=96, vocab=160, mask=150,
                      eos=[140], dtype="BF16", n_shards=2),
    "llada-gqa": dict(llada=True, hidden=48, heads=2, kv_heads=1, ffn=70, vocab=301, mask=300,
                      eos=[290, 17], dtype="F16"),
    "llada-tied": dict(llada=True, hidden=32, heads=2, kv_heads=2, ffn=80, vocab=128, mask=127,
                       eos=[120], dtype="F32", tied=True),
    "dream-gqa": dict(llada=False, hidden=48, heads=6, kv_heads=2, ffn=88, vocab=200, mask=5,
                      eos=[190], dtype="BF16"),
}
TORCH_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
N_LAYERS = 2


def llada_config(m):
    return {
        "architectures": ["LLaDAModelLM"], "model_type": "llada", "block_type": "llama",
        "activation_type": "silu", "layer_norm_type": "rms", "rope": True, "d_model": m["hidden"],
        "n_layers": N_LAYERS, "n_heads": m["heads"], "n_kv_heads": m["kv_heads"],
        "mlp_hidden_size": m["ffn"], "vocab_size": m["vocab"], "embedding_size": m["vocab"],
        "max_sequence_length": 512, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "include_bias": False, "include_qkv_bias": False, "weight_tying": m.get("tied", False),
        "mask_token_id": m["mask"], "eos_token_id": m["eos"][0], "pad_token_id": m["eos"][0],
        "torch_dtype": TORCH_DTYPES[m["dtype"]],
    }


def dream_config(m):
    return {
        "architectures": ["DreamModel"], "model_type": "Dream", "hidden_size": m["hidden"],
        "num_hidden_layers": N_LAYERS, "num_attention_heads": m["heads"],
        "num_key_value_heads": m["kv_heads"], "intermediate_size": m["ffn"],
        "vocab_size": m["vocab"], "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "tie_word_embeddings": m.get("tied", False), "hidden_act": "silu",
        "mask_token_id": m["mask"], "eos_token_id": m["eos"][0], "pad_token_id": m["eos"][0],
        "bos_token_id": m["eos"][0], "torch_dtype": TORCH_DTYPES[m["dtype"]],
    }


def normal(name, shape):
    """Standard normal values that depend on the tensor's name alone (Box-Muller over `uniform`)."""
    n_rows, n_cols = shape if len(shape) == 2 else (1, shape[0])
    columns, key = np.arange(n_cols), (2, fnv1a(name))
    rows = []
    for row in range(n_rows):
        u, v = uniform(key, 0, row, columns), uniform(key, 1, row, columns)
        rows.append(np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v))
    return np.stack(rows).reshape(shape)


def random_tensors(model_name, m):
    """Scales are chosen so that rows attend unevenly and the logits spread enough for confidences
    from 0.1 to 0.99: timid logits would make every case a near tie. Stop ids are likelier than
    others, about one token in twenty, so that answers end."""
    name = NAMES["LLaDAModelLM" if m["llada"] else "DreamModel"]
    d, ffn = m["hidden"], m["ffn"]
    kv = d // m["heads"] * m["kv_heads"]
    tensors = {}

    def add(tensor, shape, scale, mean=0.0):
        tensors[tensor] = mean + scale * normal(f"{model_name}/{tensor}", shape)

    add(name["embed"] + ".weight", (m["vocab"], d), 1.0)
    for i in range(N_LAYERS):
        at = name["layer"] % i
        add(at + name["attn_norm"] + ".weight", (d,), 0.1, 1.0)
        for key, n_out in (("q", d), ("k", kv), ("v", kv)):
            add(at + name[key] + ".weight", (n_out, d), 1.5 / math.sqrt(d))
            if not m["llada"]:
                add(at + name[key] + ".bias", (n_out,), 0.3)
        add(at + name["o"] + ".weight", (d, d), 2.0 / math.sqrt(d))
        add(at + name["ffn_norm"] + ".weight", (d,), 0.1, 1.0)
        add(at + name["gate"] + ".weight", (ffn, d), 1.5 / math.sqrt(d))
        add(at + name["up"] + ".weight", (ffn, d), 1.5 / math.sqrt(d))
        add(at + name["down"] + ".weight", (d, ffn), 1.5 / math.sqrt(ffn))
    if m.get("tied"):
        add(name["norm"] + ".weight", (d,), 0.05, 0.5)
    else:
        add(name["norm"] + ".weight", (d,), 0.1, 1.0)
        add(name["head"] + ".weight", (m["vocab"], d), 3.0 / math.sqrt(d))
        tensors[name["head"] + ".weight"][m["eos"]] *= 1.5
    return tensors


def write_json(path, value):
    with open(path, "w") as file:
        file.write(json.dumps(value, indent=1) + "\n")


def write_model(folder, model_name):
    m = MODELS[model_name]
    os.makedirs(folder, exist_ok=True)
    config = llada_config(m) if m["llada"] else dream_config(m)
    write_json(os.path.join(folder, "config.json"), config)
    write_json(os.path.join(folder, "generation_config.json"), {"eos_token_id": m["eos"]})
    tensors, n = random_tensors(model_name, m), m.get("n_shards", 1)
    if n == 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), tensors, m["dtype"])
        return
    # Every n-th tensor to the same shard: the tensors of one layer are spread over all of them.
    weight_map, total = {}, 0
    for i in range(n):
        part = {name: tensors[name] for name in list(tensors)[i::n]}
        file = f"model-{i + 1:05d}-of-{n:05d}.safetensors"
        total += write_safetensors(os.path.join(folder, file), part, m["dtype"])
        weight_map.update({name: file for name in part})
    write_json(os.path.join(folder, "model.safetensors.index.json"),
               {"metadata": {"total_size": total}, "weight_map": weight_map})


# ---- the project's own golden cases ----

# What a drawn prompt must show beyond safe margins: each is (model, case, result) -> bool.


def differs_with(**other):
    """Other settings give other ids."""
    def wish(model, case, result):
        return decode(model, {**case, **other}).token_ids != result.token_ids
    return wish


def differs_without(*keys):
    """Each of the settings decides about the ids."""
    defaults = {**DEFAULTS, **SETTINGS}
    return all_of(*(differs_with(**{key: defaults[key]}) for key in keys))


def equals_with(**other):
    def wish(model, case, result):
        same = decode(model, {**case, **other})
        return (same.token_ids, same.n_steps) == (result.token_ids, result.n_steps)
    return wish


def all_of(*wishes):
    def wish(model, case, result):
        return all(one(model, case, result) for one in wishes)
    return wish


def first_block_ends_before_its_delay(_model, case, result):
    """The block whose opening steps keep the prompt never reaches the last of them."""
    begin = len(case["prompt_token_ids"])
    steps = [result.commit_steps[p] for p in range(begin, begin + case["block_length"])]
    return max(steps) < case["delay"] < result.n_steps


def stops_early(model, case, result):
    """The stop token was there before what precedes it, and steps were saved."""
    whole = decode(model, {**case, "early_stop": False})
    last = len(case["prompt_token_ids"]) + len(result.token_ids) - 1
    return (4 < len(result.token_ids) < case["gen_length"] - 1 and result.n_steps < whole.n_steps
            and result.commit_steps.get(last, 0) + 1 < result.n_steps)


def accepts_failing_last_rank(_model, _case, result):
    return result.last_rank_accepted


def commits_unevenly(_model, _case, result):
    """Some step commits one token, another more."""
    steps = list(result.commit_steps.values())
    counts = {steps.count(step) for step in set(steps)}
    return 1 in counts and max(counts) >= 3


# Model, case, length of the prompt or (canvas length, masked spans) for infilling, settings, wish.
CASES = [
    ("llada-mha", "one-by-one", 9, dict(gen_length=24, block_length=8, steps=24), None),
    ("llada-mha", "steps-null", 5, dict(gen_length=16, block_length=8), None),
    ("llada-mha", "two-a-step", 31, dict(gen_length=24, block_length=8, steps=12), None),
    ("llada-mha", "uneven-quota", 17, dict(gen_length=30, block_length=10, steps=12), None),
    ("llada-mha", "one-step-a-block", 6, dict(gen_length=16, block_length=4, steps=4), None),
    ("llada-mha", "more-steps-than-tokens", 8, dict(gen_length=12, block_length=4, steps=18), None),
    ("llada-mha", "short-last-block", 12, dict(gen_length=21, block_length=8, steps=12), None),
    ("llada-mha", "one-block", 20, dict(gen_length=16, block_length=16, steps=8), None),
    ("llada-mha", "one-token", 1, dict(gen_length=1, block_length=1, steps=1), None),
    ("llada-mha", "prompt-of-one", 1, dict(gen_length=12, block_length=4, steps=12), None),
    ("llada-mha", "long-prompt", 150, dict(gen_length=8, block_length=4, steps=8), None),
    ("llada-mha", "threshold", 14, dict(gen_length=24, block_length=12, threshold=0.6),
     commits_unevenly),
    ("llada-mha", "threshold-high", 10, dict(gen_length=12, block_length=6, threshold=0.97), None),
    ("llada-mha", "factor", 11, dict(gen_length=24, block_length=8, factor=1.0), commits_unevenly),
    ("llada-mha", "factor-last-rank", 13, dict(gen_length=16, block_length=4, factor=1.0),
     accepts_failing_last_rank),
    ("llada-mha", "cfg", 10, dict(gen_length=16, block_length=8, steps=16, cfg_scale=0.5),
     differs_without("cfg_scale")),
    ("llada-mha", "cfg-threshold", 18, dict(gen_length=16, block_length=8, threshold=0.5,
                                            cfg_scale=1.5), differs_without("cfg_scale")),
    ("llada-mha", "temperature", 9, dict(gen_length=16, block_length=8, steps=8, temperature=0.7,
                                         seed=11), differs_without("temperature")),
    ("llada-mha", "temperature-threshold", 9,
     dict(gen_length=16, block_length=8, threshold=0.4, temperature=1.0, seed=1 << 40), None),
    ("llada-mha", "temperature-top-k", 7, dict(gen_length=16, block_length=8, steps=16,
                                               temperature=1.2, top_k=5, seed=3), None),
    ("llada-mha", "temperature-top-p", 7, dict(gen_length=16, block_length=8, steps=16,
                                               temperature=1.2, top_p=0.8, seed=4), None),
    ("llada-mha", "temperature-cfg", 8, dict(gen_length=12, block_length=6, steps=6, cfg_scale=1.0,
                                             temperature=0.5, seed=5), None),
    ("llada-mha", "random", 10, dict(gen_length=20, block_length=10, steps=10, remasking="random",
                                     seed=6), None),
    ("llada-mha", "random-temperature", 10, dict(gen_length=12, block_length=12, steps=6,
                                                 remasking="random", temperature=0.8, seed=7),
     None),
    ("llada-mha", "logits-eos-inf", 6,
     dict(gen_length=16, block_length=8, steps=16, logits_eos_inf=True),
     differs_without("logits_eos_inf")),
    ("llada-mha", "confidence-eos-eot-inf", 9,
     dict(gen_length=16, block_length=16, steps=8, confidence_eos_eot_inf=True),
     differs_without("confidence_eos_eot_inf")),
    ("llada-mha", "early-stop", 8, dict(gen_length=24, block_length=8, steps=24, early_stop=True),
     stops_early),
    ("llada-mha", "early-stop-one-block", 8, dict(gen_length=16, block_length=16, steps=16,
                                                  early_stop=True), stops_early),
    ("llada-mha", "infill", (40, [(4, 9), (20, 27)]), dict(block_length=16, steps=12), None),
    ("llada-mha", "infill-one-block", (23, [(0, 3), (10, 15)]), dict(block_length=23), None),
    ("llada-mha", "infill-cfg-threshold", (30, [(7, 16)]),
     dict(block_length=8, threshold=0.5, cfg_scale=0.8), differs_without("cfg_scale")),
    ("llada-gqa", "one-by-one", 21, dict(gen_length=16, block_length=8, steps=16), None),
    ("llada-gqa", "threshold-short-last-block", 10, dict(gen_length=19, block_length=8,
                                                         threshold=0.5), None),
    ("llada-gqa", "cfg-factor", 10, dict(gen_length=16, block_length=8, factor=0.8, cfg_scale=0.5),
     differs_without("cfg_scale")),
    ("llada-gqa", "temperature", 10, dict(gen_length=12, block_length=4, steps=6, temperature=1.0,
                                          top_k=20, top_p=0.9, seed=8), None),
    ("llada-gqa", "early-stop-threshold", 10, dict(gen_length=32, block_length=16, threshold=0.7,
                                                   early_stop=True), stops_early),
    ("llada-tied", "one-by-one", 12, dict(gen_length=16, block_length=8, steps=16), None),
    ("llada-tied", "threshold", 5, dict(gen_length=20, block_length=10, threshold=0.5), None),
    ("dream-gqa", "maskgit-plus", 10, dict(gen_length=16, block_length=16, steps=16,
                                           remasking="maskgit_plus"), None),
    ("dream-gqa", "maskgit-plus-blocks", 19, dict(gen_length=24, block_length=8, steps=12,
                                                  remasking="maskgit_plus"), None),
    ("dream-gqa", "maskgit-plus-temperature", 9,
     dict(gen_length=16, block_length=16, steps=8, remasking="maskgit_plus", temperature=0.4,
          top_p=0.95, seed=9), None),
    ("dream-gqa", "topk-margin", 10, dict(gen_length=20, block_length=20, steps=7,
                                          remasking="topk_margin"), None),
    ("dream-gqa", "topk-margin-top-k", 10, dict(gen_length=12, block_length=6, steps=12, top_k=4,
                                                remasking="topk_margin", temperature=0.6, seed=10),
     None),
    ("dream-gqa", "entropy", 33, dict(gen_length=16, block_length=16, steps=8,
                                      remasking="entropy"), None),
    ("dream-gqa", "entropy-steps-null", 6, dict(gen_length=12, block_length=12,
                                                remasking="entropy"), None),
    ("dream-gqa", "entropy-sampled", 12, dict(gen_length=16, block_length=16, steps=16, seed=12,
                                              remasking="entropy", temperature=0.2, top_p=0.9),
     None),
    ("dream-gqa", "entropy-alg-temp", 12, dict(gen_length=16, block_length=16, steps=8, seed=13,
                                               remasking="entropy", alg_temp=0.5),
     differs_without("alg_temp")),
    ("dream-gqa", "maskgit-plus-alg-temp", 8,
     dict(gen_length=12, block_length=6, steps=6, seed=14, remasking="maskgit_plus", alg_temp=0.1,
          temperature=0.5), None),
    ("dream-gqa", "origin", 10, dict(gen_length=16, block_length=16, steps=8, remasking="origin",
                                     seed=15), None),
    ("dream-gqa", "origin-sampled", 10, dict(gen_length=16, block_length=8, steps=12, seed=16,
                                             remasking="origin", temperature=0.8, top_p=0.95),
     None),
    ("dream-gqa", "low-confidence", 10, dict(gen_length=18, block_length=8, steps=12), None),
    ("dream-gqa", "threshold", 10, dict(gen_length=20, block_length=10, threshold=0.5), None),
    ("dream-gqa", "prompt-of-one", 1, dict(gen_length=8, block_length=8, steps=4,
                                           remasking="entropy"), None),
    ("dream-gqa", "cfg", 10, dict(gen_length=12, block_length=12, steps=6, cfg_scale=1.0,
                                  remasking="maskgit_plus"), differs_without("cfg_scale")),
    ("dream-gqa", "early-stop", 10, dict(gen_length=24, block_length=24, steps=24,
                                         remasking="entropy", early_stop=True), stops_early),
    ("dream-gqa", "infill", (26, [(0, 4), (9, 15), (24, 26)]),
     dict(block_length=13, steps=8, remasking="maskgit_plus"), None),
]


def generates(gen_length, block_length, steps=None, **settings):
    return dict(gen_length=gen_length, block_length=block_length, steps=steps, **settings)


def dual(**settings):
    return dict(cache="dual", **settings)


def prefix(**settings):
    return dict(cache="prefix", **settings)


def sparse(retention, delay, **settings):
    return dict(cache="sparse", retention=retention, delay=delay, **settings)


NO_CACHE, NOT_DUAL = differs_without("cache"), differs_with(cache="dual")
NOT_PREFIX, NOT_ONE_CHOICE = differs_with(cache="prefix"), differs_with(head_select=False)
RULES_OF_DREAM = dict(remasking="entropy")

# As CASES, into golden-caches.json: one per rule of reference_caches.py, and mixtures.
CACHE_CASES = [
    ("llada-mha", "prefix", 13, {**generates(24, 8, 24), **prefix()}, all_of(NO_CACHE, NOT_DUAL)),
    ("llada-mha", "prefix-threshold", 9, {**generates(24, 8, threshold=0.6), **prefix()},
     all_of(NO_CACHE, NOT_DUAL, commits_unevenly)),
    ("llada-mha", "prefix-refresh-every", 10,
     {**generates(24, 8, 24), **prefix(refresh_every=3)}, differs_without("cache",
                                                                          "refresh_every")),
    ("llada-mha", "dual", 12, {**generates(24, 8, 24), **dual()}, all_of(NO_CACHE, NOT_PREFIX)),
    ("llada-mha", "dual-two-a-step", 31, {**generates(24, 8, 12), **dual()}, NO_CACHE),
    ("llada-mha", "dual-threshold", 14, {**generates(24, 12, threshold=0.6), **dual()},
     all_of(NO_CACHE, commits_unevenly)),
    ("llada-mha", "dual-factor", 11, {**generates(24, 8, factor=1.0), **dual()},
     all_of(NO_CACHE, commits_unevenly)),
    ("llada-mha", "dual-short-last-block", 12, {**generates(21, 8, 12), **dual()}, NO_CACHE),
    ("llada-mha", "dual-one-block", 20, {**generates(16, 16, 16), **dual()}, NO_CACHE),
    ("llada-mha", "dual-one-step-a-block", 6, {**generates(16, 4, 4), **dual()},
     equals_with(cache="none")),
    ("llada-mha", "dual-more-steps-than-tokens", 8, {**generates(12, 4, 18), **dual()}, None),
    ("llada-mha", "dual-prompt-of-one", 1, {**generates(12, 4, 12), **dual()}, NO_CACHE),
    ("llada-mha", "dual-refresh-every", 9, {**generates(24, 8, 24), **dual(refresh_every=3)},
     differs_without("cache", "refresh_every")),
    ("llada-mha", "dual-refresh-every-step", 9, {**generates(16, 8, 16), **dual(refresh_every=1)},
     equals_with(cache="none")),
    ("llada-mha", "dual-cfg", 10, {**generates(16, 8, 16, cfg_scale=0.5), **dual()},
     differs_without("cache", "cfg_scale")),
    ("llada-mha", "dual-temperature", 9,
     {**generates(16, 8, 16, temperature=0.7, seed=21), **dual()},
     differs_without("cache", "temperature")),
    ("llada-mha", "dual-random", 10, {**generates(20, 10, 10, remasking="random", seed=22),
                                      **dual()}, NO_CACHE),
    ("llada-mha", "dual-early-stop", 8, {**generates(24, 8, 24, early_stop=True), **dual()},
     all_of(NO_CACHE, stops_early)),
    ("llada-mha", "sparse", 21, {**generates(24, 8, 24), **sparse(0.5, 1)},
     all_of(NO_CACHE, NOT_DUAL, NOT_ONE_CHOICE)),
    ("llada-mha", "sparse-delay-0", 15, {**generates(24, 8, 24), **sparse(0.5, 0)},
     all_of(NOT_DUAL, NOT_ONE_CHOICE, differs_without("cache", "delay"))),
    ("llada-mha", "sparse-delay-2", 15, {**generates(24, 8, 24), **sparse(0.25, 2)},
     all_of(NOT_ONE_CHOICE, differs_without("cache", "delay", "retention"))),
    ("llada-mha", "sparse-all-kept", 15, {**generates(24, 8, 24), **sparse(1.0, 0)},
     all_of(NO_CACHE, equals_with(cache="dual"))),
    ("llada-mha", "sparse-one-kept", 19, {**generates(16, 8, 16), **sparse(0.01, 1)},
     all_of(NO_CACHE, NOT_ONE_CHOICE, differs_without("retention"))),
    ("llada-mha", "sparse-delay-past-the-end", 9, {**generates(16, 8, 16), **sparse(0.25, 9)},
     equals_with(cache="none")),
    ("llada-mha", "sparse-one-choice", 21, {**generates(24, 8, 24),
                                            **sparse(0.25, 1, head_select=False)},
     differs_without("cache", "head_select", "retention")),
    ("llada-mha", "sparse-threshold", 17, {**generates(24, 8, threshold=0.7), **sparse(0.25, 0)},
     all_of(NOT_DUAL, differs_without("cache", "delay"), commits_unevenly)),
    ("llada-mha", "sparse-factor", 17, {**generates(24, 8, factor=0.8), **sparse(0.25, 1)},
     all_of(NOT_DUAL, NO_CACHE, commits_unevenly)),
    ("llada-mha", "sparse-refresh-every", 11, {**generates(24, 12, 24),
                                               **sparse(0.25, 2, refresh_every=3)},
     differs_without("cache", "refresh_every", "delay")),
    ("llada-mha", "sparse-cfg", 18, {**generates(16, 8, 16, cfg_scale=1.0), **sparse(0.5, 0)},
     all_of(NOT_DUAL, differs_without("cache", "cfg_scale", "delay"))),
    ("llada-mha", "sparse-early-stop", 18, {**generates(24, 8, 24, early_stop=True),
                                            **sparse(0.5, 0)}, all_of(NO_CACHE, stops_early)),
    ("llada-mha", "prompt-kept", 17, {**generates(32, 8, 32, prompt_refresh_every=3)},
     differs_without("prompt_refresh_every")),
    ("llada-mha", "prompt-kept-dual", 17, {**generates(32, 8, 32), **dual(prompt_refresh_every=2)},
     differs_without("cache", "prompt_refresh_every")),
    ("llada-mha", "prompt-kept-prefix", 17,
     {**generates(24, 8, 24), **prefix(prompt_refresh_every=2)},
     differs_without("cache", "prompt_refresh_every")),
    ("llada-mha", "prompt-kept-sparse", 17,
     {**generates(32, 8, 32), **sparse(0.5, 1, prompt_refresh_every=2)},
     differs_without("cache", "prompt_refresh_every")),
    ("llada-mha", "prompt-kept-for-good", 25,
     {**generates(24, 8, 24), **sparse(0.5, 0, prompt_refresh_every=100)},
     differs_without("cache", "delay", "prompt_refresh_every")),
    ("llada-mha", "prompt-kept-refresh-every", 17,
     {**generates(24, 8, 24), **dual(prompt_refresh_every=2, refresh_every=3)},
     differs_without("cache", "prompt_refresh_every", "refresh_every")),
    ("llada-mha", "prompt-kept-before-the-delay", 14,
     {**generates(16, 4, threshold=0.4), **sparse(0.5, 2, prompt_refresh_every=2)},
     all_of(first_block_ends_before_its_delay, differs_without("prompt_refresh_every"))),
    ("llada-mha", "prompt-kept-cfg", 12,
     {**generates(24, 8, 24, cfg_scale=0.5), **dual(prompt_refresh_every=2)},
     differs_without("cache", "prompt_refresh_every", "cfg_scale")),
    ("llada-mha", "suffix-window", 9, {**generates(40, 8, 40, suffix_window=1)},
     all_of(differs_without("suffix_window"), differs_with(suffix_window=2))),
    ("llada-mha", "suffix-window-dual", 9, {**generates(40, 8, 40), **dual(suffix_window=2)},
     differs_without("cache", "suffix_window")),
    ("llada-mha", "suffix-window-prefix", 9, {**generates(40, 8, 40), **prefix(suffix_window=1)},
     all_of(NOT_DUAL, differs_without("cache", "suffix_window"))),
    ("llada-mha", "suffix-window-sparse-short-last-block", 9,
     {**generates(29, 8, 16), **sparse(0.5, 0, suffix_window=1)},
     differs_without("cache", "suffix_window", "delay")),
    ("llada-mha", "all", 20,
     {**generates(40, 8, 40), **sparse(0.5, 1, prompt_refresh_every=2, refresh_every=4,
                                       suffix_window=1, head_select=False)},
     differs_without("cache", "prompt_refresh_every", "refresh_every", "suffix_window",
                     "head_select")),
    ("llada-mha", "all-threshold", 20,
     {**generates(40, 8, threshold=0.9), **sparse(0.5, 0, prompt_refresh_every=3,
                                                  refresh_every=5, suffix_window=1)},
     differs_without("cache", "prompt_refresh_every", "suffix_window")),
    ("llada-gqa", "prefix", 10, {**generates(16, 8, 16), **prefix()}, all_of(NO_CACHE, NOT_DUAL)),
    ("llada-gqa", "dual-cfg-threshold", 10,
     {**generates(16, 8, threshold=0.6, cfg_scale=0.5), **dual()},
     differs_without("cache", "cfg_scale")),
    ("llada-gqa", "sparse", 21, {**generates(24, 8, 24), **sparse(0.25, 1)},
     all_of(NOT_DUAL, differs_without("cache", "retention"))),
    ("llada-gqa", "sparse-one-kept", 10, {**generates(19, 8, 12), **sparse(0.001, 0)},
     all_of(NOT_DUAL, differs_without("cache", "retention", "delay"))),
    ("llada-gqa", "sparse-early-stop-threshold", 16,
     {**generates(32, 16, threshold=0.8, early_stop=True), **sparse(0.5, 1)},
     all_of(NO_CACHE, stops_early)),
    ("llada-gqa", "all-cfg", 14,
     {**generates(32, 8, 16, cfg_scale=0.5), **sparse(0.5, 0, prompt_refresh_every=2,
                                                      refresh_every=2, suffix_window=1)},
     differs_without("cache", "prompt_refresh_every", "suffix_window", "cfg_scale")),
    ("llada-tied", "dual", 12, {**generates(16, 8, 16), **dual()}, NO_CACHE),
    ("llada-tied", "sparse-factor", 12, {**generates(20, 10, factor=1.0), **sparse(0.5, 0)},
     all_of(NOT_DUAL, NO_CACHE)),
    ("llada-tied", "all", 11,
     {**generates(32, 8, 32), **prefix(prompt_refresh_every=2, refresh_every=3, suffix_window=1)},
     differs_without("cache", "prompt_refresh_every", "refresh_every", "suffix_window")),
    ("dream-gqa", "prefix", 10, {**generates(24, 8, 24), **prefix()}, all_of(NO_CACHE, NOT_DUAL)),
    ("dream-gqa", "prefix-entropy", 10, {**generates(24, 8, 24, **RULES_OF_DREAM), **prefix()},
     all_of(NO_CACHE, NOT_DUAL)),
    ("dream-gqa", "dual", 13, {**generates(24, 8, 24), **dual()}, all_of(NO_CACHE, NOT_PREFIX)),
    ("dream-gqa", "dual-entropy", 13, {**generates(24, 8, 24, **RULES_OF_DREAM), **dual()},
     NO_CACHE),
    ("dream-gqa", "dual-maskgit-plus-temperature", 9,
     {**generates(16, 8, 16, remasking="maskgit_plus", temperature=0.4, seed=23), **dual()},
     NO_CACHE),
    ("dream-gqa", "dual-origin", 10, {**generates(16, 8, 12, remasking="origin", seed=24),
                                      **dual()}, NO_CACHE),
    ("dream-gqa", "dual-threshold", 10, {**generates(20, 10, threshold=0.5), **dual()},
     all_of(NO_CACHE, commits_unevenly)),
    ("dream-gqa", "dual-prompt-of-one", 1, {**generates(16, 8, 16), **dual()}, NO_CACHE),
    ("dream-gqa", "dual-cfg", 10, {**generates(16, 8, 16, cfg_scale=1.0), **dual()},
     differs_without("cache", "cfg_scale")),
    ("dream-gqa", "dual-refresh-every", 11, {**generates(24, 12, 24), **dual(refresh_every=4)},
     differs_without("cache", "refresh_every")),
    ("dream-gqa", "sparse", 22, {**generates(24, 8, 24), **sparse(0.5, 1)},
     all_of(NO_CACHE, NOT_DUAL, NOT_ONE_CHOICE)),
    ("dream-gqa", "sparse-delay-0", 18, {**generates(24, 8, 24), **sparse(0.25, 0)},
     all_of(NOT_DUAL, NOT_ONE_CHOICE, differs_without("cache", "delay", "retention"))),
    ("dream-gqa", "sparse-delay-2", 18, {**generates(24, 8, 24, **RULES_OF_DREAM),
                                         **sparse(0.5, 2)}, differs_without("cache", "delay")),
    ("dream-gqa", "sparse-one-kept", 18, {**generates(16, 8, 16), **sparse(0.01, 0)},
     all_of(NOT_ONE_CHOICE, differs_without("cache", "delay", "retention"))),
    ("dream-gqa", "sparse-nothing-outside", 1, {**generates(8, 8, 8), **sparse(0.5, 0)},
     equals_with(cache="none")),
    ("dream-gqa", "sparse-one-choice", 18, {**generates(24, 8, 24),
                                            **sparse(0.25, 0, head_select=False)},
     differs_without("cache", "delay", "head_select")),
    ("dream-gqa", "sparse-refresh-every", 18, {**generates(24, 12, 24),
                                               **sparse(0.25, 1, refresh_every=3)},
     differs_without("cache", "refresh_every")),
    ("dream-gqa", "sparse-early-stop", 12,
     {**generates(24, 12, 24, early_stop=True, **RULES_OF_DREAM), **sparse(0.5, 0)},
     all_of(NO_CACHE, stops_early)),
    ("dream-gqa", "prompt-kept", 15, {**generates(32, 8, 32, prompt_refresh_every=3)},
     differs_without("prompt_refresh_every")),
    ("dream-gqa", "prompt-kept-dual", 15, {**generates(32, 8, 32), **dual(prompt_refresh_every=2)},
     differs_without("cache", "prompt_refresh_every")),
    ("dream-gqa", "prompt-kept-prefix", 15,
     {**generates(24, 8, 24), **prefix(prompt_refresh_every=2, refresh_every=3)},
     differs_without("cache", "prompt_refresh_every", "refresh_every")),
    ("dream-gqa", "prompt-kept-sparse", 15,
     {**generates(32, 8, 32), **sparse(0.5, 1, prompt_refresh_every=2)},
     differs_without("cache", "prompt_refresh_every")),
    ("dream-gqa", "prompt-of-one-kept", 1,
     {**generates(16, 8, 16), **sparse(0.5, 0, prompt_refresh_every=2)},
     all_of(NO_CACHE, equals_with(prompt_refresh_every=0))),
    ("dream-gqa", "prompt-of-two-kept", 2,
     {**generates(24, 8, 24), **dual(prompt_refresh_every=2, refresh_every=3)}, NO_CACHE),
    ("dream-gqa", "suffix-window", 9, {**generates(40, 8, 40, suffix_window=1)},
     differs_without("suffix_window")),
    ("dream-gqa", "suffix-window-dual-short-last-block", 9,
     {**generates(29, 8, 16), **dual(suffix_window=1)}, differs_without("cache", "suffix_window")),
    ("dream-gqa", "all", 20,
     {**generates(40, 8, 40), **sparse(0.5, 1, prompt_refresh_every=2, refresh_every=4,
                                       suffix_window=1)},
     all_of(NOT_ONE_CHOICE, differs_without("cache", "prompt_refresh_every", "refresh_every",
                                            "suffix_window"))),
    ("dream-gqa", "all-one-choice-threshold", 20,
     {**generates(40, 8, threshold=0.8), **sparse(0.5, 0, prompt_refresh_every=3, suffix_window=1,
                                                  head_select=False)},
     differs_without("cache", "prompt_refresh_every", "suffix_window", "head_select")),
    ("dream-gqa", "all-cfg-prefix", 12,
     {**generates(32, 8, 16, cfg_scale=0.5), **prefix(prompt_refresh_every=2, refresh_every=3,
                                                      suffix_window=1)},
     differs_without("cache", "prompt_refresh_every", "suffix_window", "cfg_scale")),
]
LOGIT_CASES = {"llada-mha-one-by-one", "llada-gqa-one-by-one", "llada-tied-one-by-one",
               "dream-gqa-entropy"}


def draw_prompt(rng, model, shape):
    """Ids that are neither the mask nor stop ids; for infilling with masks at the spans."""
    plain = sorted(set(range(model.n_vocab)) - model.stop_ids - {model.mask_id})
    n, spans = shape if isinstance(shape, tuple) else (shape, [])
    ids = [rng.choice(plain) for _ in range(n)]
    for begin, end in spans:
        ids[begin:end] = [model.mask_id] * (end - begin)
    return ids


def full_case(id, prompt, settings, defaults=DEFAULTS):
    case = {"id": id, "prompt_token_ids": prompt, "gen_length": 0, "block_length": None,
            "steps": None, "threshold": None, "cache": "none", "retention": 0.5, "delay": 1}
    case.update({key: value for key, value in defaults.items() if key not in case})
    case.update(settings)
    case["id_hash"] = f"{fnv1a(id):016x}"
    return case


def counts_of(result):
    return {"expect_steps": result.n_steps, "expect_refresh_steps": result.n_refresh,
            "expect_reuse_steps": result.n_reuse, "expect_positions": result.n_positions}


def with_answer(case, result, n_logit_rows=0):
    """The case as it stands in golden.json, or in golden-caches.json if it tells its phases."""
    counts = counts_of(result)
    if "suffix_window" not in case:
        counts = {"expect_steps": result.n_steps}
    case = {**case, "expect": result.token_ids, **counts,
            "expect_log_probs": [round(x, 6) for x in result.log_probs]}
    if n_logit_rows:
        positions, logits = result.first_logits
        picked = np.linspace(0, len(positions) - 1, n_logit_rows).astype(int)
        case["logits"] = [{"position": positions[i],
                           "values": [float(f"{x:.7g}") for x in logits[i]]} for i in picked]
    return case


def draw_case(model, id, shape, settings, wish, defaults=DEFAULTS, n_draws_max=400):
    """Draws prompts until no decision is close and the wish is met."""
    for attempt in range(n_draws_max):
        prompt = draw_prompt(random.Random(fnv1a(f"{id}/{attempt}")), model, shape)
        case = full_case(id, prompt, settings, defaults)
        result = decode(model, case)
        if result.margins.is_safe() and (wish is None or wish(model, case, result)):
            return case, result, attempt
    raise SystemExit(f"{id}: no prompt out of {n_draws_max} gives a safe case")


def write_cases(path, cases):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as file:
        file.write("[" + ",\n ".join(json.dumps(case) for case in cases) + "]\n")


def draw_cases(model, model_name, table, defaults):
    cases = []
    for case_model, name, shape, settings, wish in table:
        if case_model != model_name:
            continue
        id = f"{model_name}-{name}"
        case, result, attempt = draw_case(model, id, shape, settings, wish, defaults)
        cases.append(with_answer(case, result, 3 if id in LOGIT_CASES else 0))
        print(f"{id}: {result.n_steps} steps, prompt of draw {attempt}", flush=True)
    return cases


FILES = ("golden.json", "golden-caches.json")


def write_golden(out):
    """Models, golden.json and golden-caches.json files under the folder `out`."""
    for model_name in MODELS:
        folder = os.path.join(out, model_name)
        write_model(folder, model_name)
        model = Model(folder)
        tables = (CASES, DEFAULTS), (CACHE_CASES, {**DEFAULTS, **SETTINGS})
        for file, (table, defaults) in zip(FILES, tables):
            cases = draw_cases(model, model_name, table, defaults)
            write_cases(os.path.join(folder, file), cases)
