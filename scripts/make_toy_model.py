#!/usr/bin/env python3
"""Makes the toy models of the tests: random weights, nothing of anybody else's inside.

usage: make_toy_model.py OUT

Needs onnx, numpy and safetensors. OUT gets two folders: toy_model has model.onnx (a sentence encoder of 32 dimensions and 64
tokens), tokenizer.json, config.json and golden.json: texts with their token ids and what the encoder makes of them in
float64, computed here without ONNX Runtime. toy_cross has a cross-encoder of the same weights, and pairs with their scores.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save_file

from export_onnx import build

DIMS, INNER, LAYERS, HEADS, TOKENS = 32, 64, 2, 4, 64
WORDS = (
    "the a an of to in is and for with on red blue green fast slow car dog cat road tree house king queen man woman river "
    "sea sun moon code data search vector text model"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary():
    signs = [chr(code) for code in range(33, 127) if not 65 <= code <= 90]
    endings = ["##" + chr(code) for code in [*range(97, 123), *range(48, 58)]]
    return list(dict.fromkeys(SPECIAL + signs + endings + WORDS))


def weights(rng, tokens):
    def normal(*shape):
        return rng.normal(0, 0.3, shape).astype(np.float32)

    found = {
        "embeddings.word_embeddings.weight": normal(tokens, DIMS),
        "embeddings.position_embeddings.weight": normal(TOKENS, DIMS) * np.float32(0.1),
        "embeddings.token_type_embeddings.weight": normal(2, DIMS),
    }

    def norm(name):
        found[name + ".weight"], found[name + ".bias"] = np.ones(DIMS, np.float32), np.zeros(DIMS, np.float32)

    def linear(name, rows, columns):
        found[name + ".weight"], found[name + ".bias"] = normal(rows, columns), normal(rows) * np.float32(0.1)

    norm("embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{name}", DIMS, DIMS)
        linear(f"{layer}.attention.output.dense", DIMS, DIMS)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", INNER, DIMS)
        linear(f"{layer}.output.dense", DIMS, INNER)
        norm(f"{layer}.output.LayerNorm")
    linear("pooler.dense", DIMS, DIMS)
    linear("classifier", 1, DIMS)
    return found


def tokenizer(tokens):
    def special(token, at):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        return {"id": at, "special": True, "content": token, **flags}

    def mark(token, kind):
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def part(name, kind):
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [mark("[CLS]", 0), part("A", 0), mark("[SEP]", 0)]
    marks = {token: {"id": token, "ids": [SPECIAL.index(token)], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    return {
        "version": "1.0",
        # Cuts and pads where the model does not, as files in the wild do: the server must not follow.
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": [special(token, at) for at, token in enumerate(SPECIAL)],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
            "strip_accents": None, "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": single,
            "pair": [*single, part("B", 1), mark("[SEP]", 1)], "special_tokens": marks,
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {token: at for at, token in enumerate(tokens)},
        },
    }


def hidden(found, ids, types):
    """What the last layer makes of tokens, in float64."""
    w = {name: value.astype(np.float64) for name, value in found.items()}

    def linear(x, name):
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)

    def heads(x):
        return x.reshape(len(x), HEADS, DIMS // HEADS).transpose(1, 0, 2)

    erf = np.vectorize(__import__("math").erf)
    tables = [w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
    x = norm(tables[0][ids] + tables[1][: len(ids)] + tables[2][types])
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        query, key, value = (heads(linear(x, f"{layer}.attention.self.{name}")) for name in ("query", "key", "value"))
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(DIMS // HEADS)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ value
        x = norm(linear(mixed.transpose(1, 0, 2).reshape(len(ids), DIMS), f"{layer}.attention.output.dense") + x)
        inner = linear(x, f"{layer}.intermediate.dense")
        x = norm(linear(inner * (erf(inner * np.sqrt(0.5)) + 1) / 2, f"{layer}.output.dense") + x)
    return x


def embed(found, ids):
    """The vector of a text."""
    mean = hidden(found, ids, [0] * len(ids)).mean(0)
    return mean / np.linalg.norm(mean)


def score(found, ids, types):
    """How well a text answers a query, says the cross-encoder."""
    w = {name: value.astype(np.float64) for name, value in found.items()}
    first = hidden(found, ids, types)[0]
    pooled = np.tanh(w["pooler.dense.weight"] @ first + w["pooler.dense.bias"])
    return float(w["classifier.weight"][0] @ pooled + w["classifier.bias"][0])


def golden_pairs(found, tokens):
    """Queries and texts of known words; the last text is cut."""
    pairs = [("red car", "a fast red car"), ("red car", "the moon"), ("cat", "dog and cat in the house"), ("sea", "moon " * 80)]
    first, last = tokens.index("[CLS]"), tokens.index("[SEP]")
    entries = []
    for query, text in pairs:
        one = [first, *(tokens.index(word) for word in query.split()), last]
        two = [tokens.index(word) for word in text.split()][: TOKENS - len(one) - 1] + [last]
        types = [0] * len(one) + [1] * len(two)
        entries.append({"query": query, "text": text, "score": round(score(found, one + two, types), 9)})
    return entries


def golden(found, tokens):
    """Texts of known words, one of them longer than the model reads."""
    texts = ["a red car", "the cat", "moon " * 80, "search text and vector data", "king queen man woman river sea sun"]
    entries = []
    for text in texts:
        words = [tokens.index(word) for word in text.split()][: TOKENS - 2]
        ids = [tokens.index("[CLS]"), *words, tokens.index("[SEP]")]
        entries.append({"text": text, "ids": ids, "vector": [round(float(x), 9) for x in embed(found, ids)]})
    return entries


def main():
    encoder, cross = (Path(sys.argv[1]) / name for name in ("toy_model", "toy_cross"))
    tokens = vocabulary()
    found = weights(np.random.default_rng(42), len(tokens))
    config = {
        "hidden_size": DIMS, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "layer_norm_eps": 1e-12,
        "max_position_embeddings": TOKENS, "vocab_size": len(tokens), "model_type": "bert",
    }
    for folder, more in [(encoder, {}), (cross, {"architectures": ["BertForSequenceClassification"]})]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**config, **more}) + "\n")
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer(tokens)) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        save_file(found, folder + "/model.safetensors")
        (Path(folder) / "config.json").write_text(json.dumps(config))
        onnx.save(build(folder), encoder / "model.onnx")
        onnx.save(build(folder, cross=True), cross / "model.onnx")
    (encoder / "golden.json").write_text(json.dumps(golden(found, tokens)) + "\n")
    (cross / "golden.json").write_text(json.dumps(golden_pairs(found, tokens)) + "\n")


if __name__ == "__main__":
    main()
