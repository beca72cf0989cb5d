"""Trains the shipped model's byte-level BPE on the task text; writes a Hugging Face tokenizer.json.

The split regex is the one of the LLaDA family (digits one by one). The task text is ASCII, so the
training here uses its ASCII equivalent; the file carries the Unicode one.
"""

import collections
import re

SPLIT_REGEX = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPLIT_ASCII = re.compile(
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\nA-Za-z0-9]?+[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPECIALS = [
    "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
]


def byte_alphabet():
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in printable}
    spare = 256
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(spare)
            spare += 1
    return table


class Tokenizer:
    def __init__(self, texts, n_merges_max):
        self.alphabet = byte_alphabet()
        words = collections.Counter(w for text in texts for w in SPLIT_ASCII.findall(text))
        pieces = {word: self._spell(word) for word in words}
        self.merges = []
        while len(self.merges) < n_merges_max:
            pairs = collections.Counter()
            for word, count in words.items():
                for pair in zip(pieces[word], pieces[word][1:]):
                    pairs[pair] += count
            if not pairs:
                break
            best = min(pairs, key=lambda pair: (-pairs[pair], pair))
            if pairs[best] < 2:
                break
            self.merges.append(best)
            pieces = {word: self._merge(symbols, best) for word, symbols in pieces.items()}
        alphabet = [self.alphabet[byte] for byte in range(256)]
        vocabulary = alphabet + ["".join(pair) for pair in self.merges]
        self.vocabulary = list(dict.fromkeys(vocabulary))
        self.ids = {piece: i for i, piece in enumerate(self.vocabulary)}
        self.ids.update({s: len(self.vocabulary) + i for i, s in enumerate(SPECIALS)})
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.cache = {}

    def _spell(self, word):
        return [self.alphabet[byte] for byte in word.encode()]

    @staticmethod
    def _merge(symbols, pair):
        out = []
        for symbol in symbols:
            if out and (out[-1], symbol) == pair:
                out[-1] += symbol
            else:
                out.append(symbol)
        return out

    def encode(self, text):
        ids = []
        for word in SPLIT_ASCII.findall(text):
            if word not in self.cache:
                symbols = self._spell(word)
                while True:
                    pairs = [p for p in zip(symbols, symbols[1:]) if p in self.ranks]
                    if not pairs:
                        break
                    symbols = self._merge(symbols, min(pairs, key=self.ranks.get))
                self.cache[word] = [self.ids[s] for s in symbols]
            ids += self.cache[word]
        return ids

    def encode_prompt(self, content):
        """The chat template of LLaDA, with the assistant's header at the end."""
        def header(role):
            return [self.ids["<|start_header_id|>"], *self.encode(role),
                    self.ids["<|end_header_id|>"], *self.encode("\n\n")]
        return [self.ids["<|startoftext|>"], *header("user"), *self.encode(content),
                self.ids["<|eot_id|>"], *header("assistant")]

    def to_json(self):
        return {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [
                {"id": self.ids[s], "content": s, "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False, "special": True} for s in SPECIALS
            ],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": SPLIT_REGEX}, "behavior": "Isolated",
                     "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                     "use_regex": False},
                ],
            },
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                        "use_regex": True},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None,
                "continuing_subword_prefix": None, "end_of_word_suffix": None,
                "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                "vocab": {piece: i for i, piece in enumerate(self.vocabulary)},
                "merges": [list(pair) for pair in self.merges],
            },
        }
