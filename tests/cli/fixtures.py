"""Small model folders for the command-line tests: a sound one, and one for each fault.

The weights are zeros, so every logit is equal and every answer "!!!", the lowest id: what matters
here is what the program says about a folder. Written anew for each run: no binaries are kept.
"""

import json
import shutil
import struct

LAYERS, HIDDEN, HEADS, FFN, VOCABULARY = 1, 16, 2, 32, 300
EOS, EOT, MASK = 257, 258, 259

LLADA_CONFIG = {
    "architectures": ["LLaDAModelLM"],
    "model_type": "llada",
    "d_model": HIDDEN,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "n_kv_heads": HEADS,
    "mlp_hidden_size": FFN,
    "vocab_size": VOCABULARY,
    "embedding_size": VOCABULARY,
    "max_sequence_length": 512,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-05,
    "eos_token_id": EOS,
    "pad_token_id": EOS,
    "mask_token_id": MASK,
    "weight_tying": False,
}

LLADA_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)


def llada_shapes():
    block = "model.transformer.blocks.0."
    return {
        "model.transformer.wte.weight": [VOCABULARY, HIDDEN],
        block + "attn_norm.weight": [HIDDEN],
        block + "q_proj.weight": [HIDDEN, HIDDEN],
        block + "k_proj.weight": [HIDDEN, HIDDEN],
        block + "v_proj.weight": [HIDDEN, HIDDEN],
        block + "attn_out.weight": [HIDDEN, HIDDEN],
        block + "ff_norm.weight": [HIDDEN],
        block + "ff_proj.weight": [FFN, HIDDEN],
        block + "up_proj.weight": [FFN, HIDDEN],
        block + "ff_out.weight": [HIDDEN, FFN],
        "model.transformer.ln_f.weight": [HIDDEN],
        "model.transformer.ff_out.weight": [VOCABULARY, HIDDEN],
    }


def safetensors(shapes):
    """A file of bf16 zeros."""
    header, n_bytes = {}, 0
    for name, shape in shapes.items():
        size = 2
        for n in shape:
            size *= n
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [n_bytes, n_bytes + size]}
        n_bytes += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(n_bytes)


def byte_letters():
    """The printable stand-ins of the bytes in byte-level BPE, in GPT-2's order: "!" is id 0."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    n_others = 256 - len(printable)
    return [chr(code) for code in [*printable, *range(256, 256 + n_others)]]


def tokenizer():
    vocabulary = {letter: i for i, letter in enumerate(byte_letters())}
    vocabulary["he"] = 256
    special = ["<|endoftext|>", "<|eot_id|>", "<|mdm_mask|>", "<|startoftext|>",
               "<|start_header_id|>", "<|end_header_id|>"]
    added = [
        {"id": EOS + i, "content": content, "special": True, "normalized": False, "lstrip": False,
         "rstrip": False, "single_word": False}
        for i, content in enumerate(special)
    ]
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                    "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": vocabulary,
                  "merges": ["h e"]},
    }


class Folder:
    """A model folder, sound until a fault is made."""

    def __init__(self, path):
        self.path = path
        path.mkdir(parents=True)
        self.config = dict(LLADA_CONFIG)
        self.shapes = llada_shapes()
        self.tokenizer = tokenizer()
        self.template = LLADA_TEMPLATE

    def write(self):
        self.write_json("config.json", self.config)
        self.write_json("generation_config.json", {"eos_token_id": [EOS, EOT]})
        (self.path / "model.safetensors").write_bytes(safetensors(self.shapes))
        if self.tokenizer is None:
            return
        self.write_json("tokenizer.json", self.tokenizer)
        tokens = {"bos_token": "<|startoftext|>", "chat_template": self.template}
        self.write_json("tokenizer_config.json", tokens)

    def write_json(self, name, value):
        (self.path / name).write_text(json.dumps(value), encoding="utf-8")


def make_models(folder):
    """Writes all model folders into `folder`."""

    def make(name, change=lambda model: None):
        model = Folder(folder / name)
        change(model)
        model.write()
        return model.path

    def change(attribute, **values):
        def apply(model):
            getattr(model, attribute).update(values)
        return apply

    def drop(attribute, key):
        def apply(model):
            del getattr(model, attribute)[key]
        return apply

    def replace(attribute, value):
        return lambda model: setattr(model, attribute, value)

    good = make("good")
    block = "model.transformer.blocks.0."
    make("no-tokenizer", replace("tokenizer", None))
    make("other-template", replace("template", "{{ messages }}"))
    make("config-without-key", drop("config", "n_heads"))
    make("other-architecture", change("config", architectures=["LlamaForCausalLM"]))
    make("missing-tensors", lambda model: [model.shapes.pop(block + "attn_norm.weight"),
                                           model.shapes.pop("model.transformer.ln_f.weight")])
    make("wrong-shape", change("shapes", **{block + "q_proj.weight": [HIDDEN, HIDDEN // 2]}))
    make("wordpiece", change("tokenizer", model={"type": "WordPiece", "vocab": {}}))
    (make("no-config") / "config.json").unlink()
    weights = make("truncated") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (make("lying-header") / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    make_links(folder / "links", good)
    make("tokenizer-too-large", lambda model: shrink_vocabulary(model, MASK + 1))


def shrink_vocabulary(model, n_rows):
    """Fewer rows than the tokenizer has ids."""
    model.config.update(vocab_size=n_rows, embedding_size=n_rows)
    for name in ("wte", "ff_out"):
        model.shapes[f"model.transformer.{name}.weight"] = [n_rows, HIDDEN]


def make_links(path, target):
    """A folder of links to files, as in a Hugging Face cache."""
    path.mkdir()
    blobs = path.with_name(path.name + "-blobs")
    shutil.copytree(target, blobs)
    for file in blobs.iterdir():
        (path / file.name).symlink_to(file)
