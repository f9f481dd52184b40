#!/usr/bin/env python3
"""Trains the static embedding model that is built into Vecdis. Run it through run.sh, which fetches what it reads.

usage: train.py MODEL WORDNET OUT

MODEL is a folder with the teacher (model.int8.onnx and tokenizer.json of all-MiniLM-L6-v2), WORDNET the folder with the
data.* files of WordNet. A text's vector is to be the mean of the vectors of its tokens, made unit length. The vectors
are found by ridge regression onto the teacher's sentence vectors, starting from the teacher's vectors of the single
tokens, weighted by rank; then rotated to the 256 strongest principal components and rounded to 8 bits.

Training texts: glosses and usage examples of WordNet, passages of several glosses, and random bags of tokens. None comes
from a retrieval benchmark. The ridge strength is chosen on one in twenty of these texts, which are held out.
"""

import random
import re
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import scipy.sparse as sparse
from tokenizers import Tokenizer

DIMS = 256
SEED = 20260101
GLOSSES, EXAMPLES, PASSAGES, BAGS = 60_000, 20_000, 6_000, 15_000
MAX_TOKENS = 128
# Tokens of a padded batch that the teacher embeds at a time.
BATCH_TOKENS = 1024
RIDGES = (0.003, 0.01, 0.03, 0.1)
ITERATIONS = 50
FIRST_WORD_TOKEN = 999


def read_wordnet(folder):
    """Lines "lemma, lemma: definition", and usage examples, in the order of the files (neighbours are related)."""
    glosses, examples = [], []
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        for line in (folder / name).read_text(encoding="utf8").splitlines():
            if line.startswith("  "):
                continue
            fields, _, gloss = line.partition(" | ")
            words = fields.split()
            lemmas = [re.sub(r"\(.*\)", "", words[4 + 2 * i]).replace("_", " ") for i in range(int(words[3], 16))]
            examples += re.findall(r'"([^"]{15,})"', gloss)
            definition = gloss.split('; "')[0].strip()
            glosses.append((", ".join(lemmas), definition))
    return glosses, examples


def training_texts(wordnet, vocabulary, rng):
    glosses, examples = read_wordnet(wordnet)
    texts = []
    for lemmas, definition in rng.sample(glosses, GLOSSES):
        # With and without the word, so that the definition alone is learned too.
        texts.append(f"{lemmas}: {definition}" if rng.random() < 0.6 else definition)
    texts += rng.sample(examples, min(EXAMPLES, len(examples)))
    for _ in range(PASSAGES):
        at, length = rng.randrange(len(glosses) - 8), rng.randrange(3, 8)
        texts.append(" ".join(f"{lemmas} is {definition}." for lemmas, definition in glosses[at : at + length]))
    words = [token for token in vocabulary if re.fullmatch(r"[a-z0-9]+", token)]
    texts += [" ".join(rng.choices(words, k=rng.randrange(2, 9))) for _ in range(BAGS)]
    rng.shuffle(texts)
    return texts


class Teacher:
    """The ONNX model whose vectors are learned."""

    def __init__(self, folder):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / "model.int8.onnx"), options)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)

    def embed_ids(self, lists):
        """Unit vectors of token lists (with the special tokens), embedded in the order of their lengths."""
        order = sorted(range(len(lists)), key=lambda at: len(lists[at]))
        vectors, start = np.empty((len(lists), 384), np.float32), 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end - start + 1) * len(lists[order[end]]) <= BATCH_TOKENS:
                end += 1
            batch = [lists[at] for at in order[start:end]]
            width = len(batch[-1])
            ids = np.array([row + [0] * (width - len(row)) for row in batch])
            mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in batch])
            inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            vectors[order[start:end]] = self.session.run(None, inputs)[0]
            start = end
        return vectors


def bag_matrix(lists, tokens):
    """Row i: how large a share of text i each token has."""
    rows = np.repeat(np.arange(len(lists)), [len(ids) for ids in lists])
    columns = np.concatenate([np.array(ids, dtype=np.int64) for ids in lists])
    shares = np.concatenate([np.full(len(ids), 1 / len(ids)) for ids in lists])
    return sparse.csr_matrix((shares, (rows, columns)), shape=(len(lists), tokens))


def ridge(bags, targets, start, strength):
    """The token vectors X that minimise |bags X - targets|^2 + strength |X - start|^2, by conjugate gradients."""
    difference = np.zeros_like(start)
    residual = bags.T @ (targets - bags @ start)
    direction, size = residual.copy(), (residual**2).sum(0)
    for _ in range(ITERATIONS):
        product = bags.T @ (bags @ direction) + strength * direction
        step = size / np.maximum((direction * product).sum(0), 1e-30)
        difference += direction * step
        residual -= product * step
        new_size = (residual**2).sum(0)
        direction = residual + direction * (new_size / np.maximum(size, 1e-30))
        size = new_size
    return start + difference


def mean_cosine(a, b):
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / np.maximum(norms, 1e-12)).mean())


def fit(bags, targets, start):
    """The best token vectors over the ridge strengths, by the cosine on the texts held out."""
    held = np.arange(bags.shape[0]) % 20 == 0
    tried = []
    for strength in RIDGES:
        vectors = ridge(bags[~held], targets[~held], start, strength)
        score = mean_cosine(bags[held] @ vectors, targets[held])
        print(f"ridge {strength}: held-out cosine {score:.4f}", flush=True)
        tried.append((score, strength))
    print(f"before learning: {mean_cosine(bags[held] @ start, targets[held]):.4f}")
    return ridge(bags, targets, start, max(tried)[1])


def write(vectors, out):
    """Rounds each row to int8 with a scale of its own: scales.f32 and codes.i8, both little-endian."""
    scales = np.abs(vectors).max(1) / 127
    codes = np.rint(vectors / np.maximum(scales, 1e-30)[:, None]).astype(np.int8)
    scales.astype("<f4").tofile(out / "scales.f32")
    codes.tofile(out / "codes.i8")


def main():
    model, wordnet, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    rng, teacher, began = random.Random(SEED), Teacher(model), time.process_time()
    vocabulary = teacher.tokenizer.get_vocab()
    tokens = len(vocabulary)
    texts = training_texts(wordnet, sorted(vocabulary, key=vocabulary.get), rng)
    encoded = [encoding.ids for encoding in teacher.tokenizer.encode_batch(texts)]
    single = teacher.embed_ids([[101, token, 102] for token in range(tokens)])
    print(f"tokens embedded, {time.process_time() - began:.0f} CPU-s", flush=True)
    targets = teacher.embed_ids(encoded).astype(np.float64)
    print(f"{len(texts)} texts embedded, {time.process_time() - began:.0f} CPU-s", flush=True)

    # A text without tokens has no vector.
    bags = bag_matrix([ids[1:-1] or [100] for ids in encoded], tokens)
    targets -= targets.mean(0)
    single = single.astype(np.float64) - single[FIRST_WORD_TOKEN:].mean(0)
    # The vocabulary is sorted by how common a token is: the rank stands for its frequency.
    start = single * (np.log(1 + np.arange(tokens)) / np.log(tokens))[:, None]
    predicted = bags @ start
    start *= (predicted * targets).sum() / (predicted**2).sum()
    vectors = fit(bags, targets, start)

    _, _, components = np.linalg.svd(targets[:20_000], full_matrices=False)
    vectors = vectors @ components[:DIMS].T
    write(vectors, out)
    print(f"done, {time.process_time() - began:.0f} CPU-s")


if __name__ == "__main__":
    main()
