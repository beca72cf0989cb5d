"""Makes data/tokenizer: small byte-level BPE tokenizers, and what Hugging Face makes of texts.

The Hugging Face `tokenizers` library is the oracle. Run it in a virtual environment:

    python3 -m venv /tmp/oracle && /tmp/oracle/bin/pip install tokenizers==0.23.3
    /tmp/oracle/bin/python tools/tokenizer_vectors.py data/tokenizer

Each folder holds one tokenizer.json, trained on the text below, and vectors.json: a list of texts
with their ids, with the added tokens read from the text and, where that differs, without.
A text that repeats is written as [unit, count]. Nothing is random: the output is always the same.
"""

import argparse
import json
import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, trainers

QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BAILING_REGEX = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"]
LLADA_TOKENS = ["<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>", "<|start_header_id|>",
                "<|end_header_id|>", "<|eot_id|>", "[CLS]", "[gMASK]", "<role>", "</role>"]

TRAINING_TEXT = """
The quick brown fox jumps over the lazy dog. It's what they'll say; we've heard it, and I'd agree.
A language model that denoises many tokens at once reads the whole text, left and right of a gap.
def add(first, second):
    # returns the sum of the two numbers
    return first + second

for (int i = 0; i < n; i++) { total += values[i] * weights[i]; }
In 2024 there were 365 + 1 = 366 days; 10 percent of 1,250 is 125. Phone: 555-0199.
Größe, Straße, naïve, café, déjà vu, señor, São Paulo, crème brûlée, Ångström, Øresund.
Привет, мир! Как дела? Хорошо, спасибо. Сегодня прекрасная погода, и мы идём гулять в парк.
你好，世界！今天的天气很好，我们一起去公园散步吧。语言模型可以同时生成许多词。
こんにちは、世界。今日はいい天気ですね。言語モデルは面白いです。カタカナもあります。
안녕하세요 세계. 오늘은 날씨가 좋습니다.
مرحبا بالعالم. كيف حالك اليوم؟ الطقس جميل.
שלום עולם. מה שלומך היום?
नमस्ते दुनिया। आज मौसम अच्छा है।
สวัสดีชาวโลก วันนี้อากาศดี
Καλημέρα κόσμε. Τι κάνεις σήμερα;
\tindented\twith tabs\r\nand a line that ends in the old way\r\n\r\n   three blanks before
😀 😃 👍🏽 👨‍👩‍👧‍👦 🇩🇪 ❤️ math: ∑ α² ≤ ∞, x ∈ ℝ, → ⇒ ∀
"""

# Code points at the edges of the encoding: 1, 2, 3 and 4 bytes, beside surrogates, noncharacters.
EDGES = ("\x00\x01\x7f\x80\u07ff\u0800\ud7ff\ue000\uf8ff\ufdd0\ufffd\ufffe\uffff"
         "\U00010000\U0010ffff")

TEXTS = [
    "", " ", "  ", "\n", "\r\n", "\t", "a", "Hello world", "Hello, world!  How are you?\n",
    "It's we'll THEY'VE i'm I'D 'S 'LL ''ve don't 'tis 'x",
    "'\u017f '\u212a's \u2019s", "ﬁve ofﬁce ST\u00dfe",
    # spaces of every kind
    "trailing   ", "   leading", "a  b   c    d", "a \n b\n\n\nc \r\n\r\n d\r\re", "\n \n  \n   x",
    " \n", "\n ", "x \t\t y\t", "a\u00a0b \u00a0 c\u00a0\u00a0",
    "\u2003em\u3000wide\u1680 \u202fthin",
    "a\x0bb\x0cc\x1cd\x1fe\x85f\u2028g\u2029h", "a\u180eb \u180e c",
    "a\u200bb\u200c\u200d \ufeffc\u2060",
    "   \u00a0\n  x", "!!!\n\n???\r\n", "...\n x", "end.\n\n", "if x:\n\treturn  y  # no\n",
    # numbers in many scripts
    "0123456789 3.14 1,000 007", "x1y22z333", "٠١٢٣٤٥ ०१२३ ௧௨ ०१", "Ⅷ ② ½ ³ ٪ 一二三", "１２３ＡＢＣ",
    # scripts
    "Größe Straße", "Привет, мир! Ёлка", "你好，世界！", "今日は良い天気。カタカナ", "안녕하세요 세계",
    "مرحبا بالعالم، كيف؟", "שָׁלוֹם עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Καλημέρα κόσμε",
    "\u202bRTL\u202c \u200fmark\u200e", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠀀𪛖",
    # emoji
    "😀😃 👍🏽", "👨‍👩‍👧‍👦 family", "🇩🇪🇫🇷 flags", "❤️ 1️⃣ #️⃣", "🏴\U000e0067\U000e0062\U000e007f",
    # composed and decomposed
    "café", "cafe\u0301", "e\u0301\u0301", "a\u0323\u0307 a\u0307\u0323", "\u0301start", "\n\u0301",
    "A\u030a \u212b \u00c5", "\u1100\u1161\u11a8 \uac01 \uac00\u11a8 \u1112\u1161\u11ab",
    "\u0958 \u0915\u093c", "\u0344 \u0390 \u03b9\u0308\u0301", "\u2126 \u00b5 \ufb01",
    "\U0001d15e \U0001d157\U0001d165", "\ufb1d \u05d9\u05b4", "\u1e9b\u0323", "\u0f73\u0f75",
    "o\u0302\u0323\u0301 q\u0307\u0323", "\u2adc \u2add\u0338", "> \u0338", ">\u0338x",
    # edges
    EDGES, " ".join(EDGES), "\ud7ff\ue000" * 3, "a\x00b",
    # added tokens inside of texts
    "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nAdd 1 and 2.<|eot_id|>",
    "<|endoftext|><|endoftext|>", "<|endoftext|", "<|endoftext|>>", "<<|endoftext|>",
    "<|ENDOFTEXT|>", " <|mask|> ", "x  <|mask|>  y", "<role>HUMAN</role>", "[CLS][gMASK]",
    "a\u0301<|mask|>\u0301", "<|mask\u0338|>", "<|endoftext|>\u0338",
    "<tool>", "<tool><tool_call>", "<tool_call>x</tool_call>", "<tool_", "tool_call> <tool_call",
    # code
    "for (int i = 0; i < n; i++) {\n    total += values[i];\n}\n", "x = {'a': [1, 2], \"b\": None}",
    "https://example.org/a?b=c&d=%20#e", "_private __init__ snake_case camelCase", "$$ $1 @x #y",
    "--- *** ___ === ~~~\n", "a-b_c.d/e\\f|g",
    # long runs
    ["a", 1000], [" ", 1000], ["\n", 300], [" \n", 200], ["7", 100], ["!", 500], ["ab", 400],
    ["中", 200], ["e\u0301", 200], ["\u0301", 300], ["\u0323\u0301", 150], ["the ", 200],
    ["👍🏽", 40], ["\r\n", 100], ["\t", 333], ["'s", 50], ["\u00a0", 100], ["=", 777],
]


def by_trainer(tokenizer, n_vocabulary, tokens):
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2, show_progress=False)
    runs = [" " * 2 ** i for i in range(6)] * 8 + ["=" * 16, "\n\n\n", "aaaa"] * 8
    tokenizer.train_from_iterator(TRAINING_TEXT.split("\n") * 2 + [TRAINING_TEXT] + runs, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in tokens])


def split_then_bytes(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def make_qwen2():
    """NFC, the Qwen2 split, merges as pairs; added tokens that start others, some not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split_then_bytes(QWEN2_REGEX)
    tokenizer.decoder = decoders.ByteLevel()
    by_trainer(tokenizer, 900, CHATML_TOKENS)
    tokenizer.add_tokens([AddedToken(t, normalized=False)
                          for t in ("<tool>", "<tool_call>", "</tool_call>", "<tool>x")])
    return json.loads(tokenizer.to_str())


def make_bailing():
    """No normal form, the split of the LLaDA family, merges as strings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split_then_bytes(BAILING_REGEX)
    tokenizer.decoder = decoders.ByteLevel()
    by_trainer(tokenizer, 700, LLADA_TOKENS)
    root = json.loads(tokenizer.to_str())
    root["model"]["merges"] = [" ".join(pair) for pair in root["model"]["merges"]]
    return root


def make_gpt2():
    """ByteLevel's own split, NFC in a Sequence, ignore_merges and words no merge makes, gaps."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    by_trainer(tokenizer, 500, ["<|endoftext|>"])
    root = json.loads(tokenizer.to_str())
    model = root["model"]
    model["ignore_merges"] = True
    model["vocab"] = {piece: 3 * i for piece, i in model["vocab"].items()}
    model["vocab"].update({"world": 2000, "Ġsnake": 2002, "á": 2004, "<|endoftext|>": 2010})
    root["added_tokens"][0]["id"] = 2010
    return root


MAKERS = {"qwen2": make_qwen2, "bailing": make_bailing, "gpt2": make_gpt2}


def vectors(root):
    """The ids of every text; without added tokens, the oracle is a tokenizer that has none."""
    whole = Tokenizer.from_str(json.dumps(root))
    bare = Tokenizer.from_str(json.dumps({**root, "added_tokens": []}))
    rows = []
    for text in TEXTS:
        spelled = text if isinstance(text, str) else text[0] * text[1]
        row = {"text": text, "ids": whole.encode(spelled, add_special_tokens=False).ids}
        ids = bare.encode(spelled, add_special_tokens=False).ids
        if ids != row["ids"]:
            row["ids_without_added"] = ids
        rows.append(row)
    return rows


def write_rows(path, rows):
    lines = [json.dumps(row, separators=(",", ":")) for row in rows]
    with open(path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(lines) + "\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", help="the folder, data/tokenizer")
    out = parser.parse_args().out
    for name, make in MAKERS.items():
        root = make()
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(root, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        write_rows(os.path.join(folder, "vectors.json"), vectors(root))


if __name__ == "__main__":
    main()
