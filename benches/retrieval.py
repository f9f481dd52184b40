#!/usr/bin/env python3
"""Quality of keyword, vector and hybrid search through the server, and their speed.

    python3 benches/retrieval.py --data FOLDER [--bin target/release/vecdis] [--port PORT] [--speed] [--json FILE]

FOLDER holds scifact/, cranfield/ and cisi/ (corpus.jsonl.gz, queries.jsonl, qrels.tsv, doc_emb_f16.npy,
query_emb_f16.npy, baselines.json), and wordnet59k/ for --speed. A server is started unless PORT names one that runs.

Quality: nDCG@10 as trec_eval computes it, over the queries that have judgements. BM25 is to be within 0.01 of the baseline,
dense within 0.005, reciprocal rank fusion above both. RRF is of BM25 with k1 0.9 and b 0.4 and the dense ranking, 100
deep each, as in the baselines.

Scores: BM25 of random short texts beside tantivy's, which differ by its constant factor k1 + 1: to 1e-4, after changes and
removals (tantivy gets the live texts). Left out when the package tantivy is missing.

Speed: wordnet59k, its texts and vectors; latency of one connection and throughput of pipelines of 16 on eight
connections, for MATCH, dense and both; hybrid is to take at most twice as long as dense and MATCH together. Where tantivy is
there, its search of the same texts in this process, one query after the other, stands beside; MATCH is to take at most
twice as long by the server's CPU time. Where vectlite is there, its searches of all three kinds stand beside in the same way.
Exit code 1 when something misses.
"""

import argparse
import gzip
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import redis

try:
    import tantivy
except ImportError:
    tantivy = None
try:
    import vectlite
except ImportError:
    vectlite = None

SETS = ("scifact", "cranfield", "cisi")
DEPTH = 100
# Queries that vectlite is asked: its keyword search takes a quarter of a second.
VECTLITE_QUERIES = 100
# What baselines.json calls them, and how far below is near enough.
BASELINES = {"bm25 0.9/0.4": "bm25_k1=0.9_b=0.4", "bm25 1.2/0.75": "bm25_k1=1.2_b=0.75", "dense": "dense_exact"}
MARGIN = {"bm25 0.9/0.4": 0.01, "bm25 1.2/0.75": 0.01, "dense": 0.005}


def lines(path):
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with opened as file:
        return [json.loads(line) for line in file]


def judgements(path):
    by_query = {}
    for line in path.read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")[:3]
        by_query.setdefault(query, {})[document] = int(grade)
    return by_query


def ndcg10(run, judged):
    gains = []
    for query, grades in judged.items():
        relevant = {document: grade for document, grade in grades.items() if grade > 0}
        if not relevant:
            continue
        discounted = lambda grades: sum(grade / math.log2(at + 2) for at, grade in enumerate(grades))
        found = [relevant.get(document, 0) for document in run.get(query, [])[:10]]
        best = sorted(relevant.values(), reverse=True)[:10]
        gains.append(discounted(found) / discounted(best))
    return statistics.mean(gains)


def load(client, key, ids, texts, vectors):
    client.delete(key)
    pipe = client.pipeline(transaction=False)
    for at, (element, text) in enumerate(zip(ids, texts)):
        # The rounded vectors of the set are what its baselines were computed on.
        blob = np.ascontiguousarray(vectors[at], dtype="<f4").tobytes()
        pipe.execute_command("VADD", key, "FP32", blob, element, "SETTEXT", text)
        if at % 500 == 499:
            pipe.execute()
    pipe.execute()


def ids_of(reply):
    """Element names of a reply, in either protocol."""
    results = reply[b"results"] if isinstance(reply, dict) else reply[1]
    name = lambda one: one[b"id"] if isinstance(one, dict) else one[1]
    return [name(one).decode() for one in results]


def dense(vector):
    return ["VECTOR", "FP32", np.ascontiguousarray(vector, dtype="<f4").tobytes()]


def quality(client, folder):
    rows, all_good = [], True
    for name in SETS:
        path = folder / name
        corpus, queries = lines(path / "corpus.jsonl.gz"), lines(path / "queries.jsonl")
        judged = judgements(path / "qrels.tsv")
        texts = [f"{one.get('title', '')} {one['text']}".strip() for one in corpus]
        load(client, name, [one["_id"] for one in corpus], texts, np.load(path / "doc_emb_f16.npy"))
        vectors = np.load(path / "query_emb_f16.npy")
        runs = {"bm25 0.9/0.4": {}, "bm25 1.2/0.75": {}, "dense": {}, "rrf": {}}
        for query, vector in zip(queries, vectors):
            if query["_id"] not in judged:
                continue
            limit = ["LIMIT", 0, DEPTH, "WINDOW", DEPTH]
            clauses = {
                "bm25 0.9/0.4": ["MATCH", query["text"], "K1", 0.9, "B", 0.4],
                "bm25 1.2/0.75": ["MATCH", query["text"]],
                "dense": dense(vector),
                "rrf": ["MATCH", query["text"], "K1", 0.9, "B", 0.4, *dense(vector)],
            }
            for kind, clause in clauses.items():
                runs[kind][query["_id"]] = ids_of(client.execute_command("VSEARCH", name, *clause, *limit))
        base = json.loads((path / "baselines.json").read_text())
        found = {kind: ndcg10(run, judged) for kind, run in runs.items()}
        expected = {kind: base[of]["ndcg10"] for kind, of in BASELINES.items()}
        good = all(found[kind] >= expected[kind] - MARGIN[kind] for kind in expected)
        good &= found["rrf"] > max(found["bm25 0.9/0.4"], found["dense"])
        rows.append({"set": name, "expected": expected, **{kind: round(value, 4) for kind, value in found.items()}})
        all_good &= good
        print(f"{name:10}" + "".join(f"  {kind} {value:.4f}" for kind, value in found.items()), "" if good else " MISSED")
    return rows, all_good


def tantivy_index(ids, texts, tokenizer):
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw")
    builder.add_text_field("text", tokenizer_name=tokenizer)
    index = tantivy.Index(builder.build())
    writer = index.writer(num_threads=1)
    for element, text in zip(ids, texts):
        writer.add_document(tantivy.Document(id=element, text=text))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    return index


def plain(text):
    """The words of a query without what tantivy's query language would understand."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def scores(client, documents=3000, queries=300):
    if not tantivy:
        print("scores: the package tantivy is missing")
        return None, True
    rng = random.Random(7)
    word = lambda: f"w{rng.randrange(rng.choice([5, 50, 500]))}"
    # Up to 40 terms, tantivy keeps the lengths of texts exactly.
    text = lambda: " ".join(word() for _ in range(rng.randint(1, 39)))
    live = {}
    client.delete("scores")
    client.execute_command("VCREATE", "scores", "DIM", 1, "ANALYZER", "standard")
    for _ in range(2 * documents):
        element = f"d{rng.randrange(documents)}"
        if rng.random() < 0.2:
            client.execute_command("VREM", "scores", element)
            live.pop(element, None)
        else:
            live[element] = text()
            client.execute_command("VADD", "scores", "VALUES", 1, 1, element, "SETTEXT", live[element])
    index = tantivy_index(live, live.values(), "default")
    searcher, worst = index.searcher(), 0.0
    for _ in range(queries):
        query = " ".join({word() for _ in range(4)})
        found = searcher.search(index.parse_query(query, ["text"]), len(live)).hits
        theirs = {searcher.doc(address)["id"][0]: score / 2.2 for score, address in found}
        reply = client.execute_command("VSEARCH", "scores", "MATCH", query, "LIMIT", 0, len(live))
        results = reply[b"results"] if isinstance(reply, dict) else reply[1]
        pair = lambda one: (one[b"id"], one[b"score"]) if isinstance(one, dict) else (one[1], one[3])
        ours = {name.decode(): float(score) for name, score in map(pair, results)}
        assert ours.keys() == theirs.keys(), query
        worst = max([worst, *(abs(ours[name] - theirs[name]) for name in ours)])
    print(f"scores: at most {worst:.1e} from tantivy's")
    return worst, worst < 1e-4


def tantivy_speed(meta, queries):
    """Median time of a search, in microseconds."""
    index = tantivy_index([str(one["id"]) for one in meta], [one["text"] for one in meta], "en_stem")
    searcher, times = index.searcher(), []
    parsed = [index.parse_query(plain(query["text"]), ["text"]) for query in queries]
    for query in parsed * 2:
        begin = time.perf_counter()
        searcher.search(query, 10, count=False)
        times.append(time.perf_counter() - begin)
    times = times[len(parsed) :]
    row = {"p50_us": round(statistics.median(times) * 1e6), "mean_us": round(statistics.mean(times) * 1e6)}
    print("tantivy ", row)
    return row


def vectlite_speed(meta, embeddings, queries, vectors):
    """Median and mean time of each kind of search, in microseconds."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        database = vectlite.open(f"{folder}/wordnet.vdb", dimension=vectors.shape[1])
        records = [
            {"id": str(one["id"]), "vector": vector.tolist(), "sparse": vectlite.sparse_terms(one["text"])}
            for one, vector in zip(meta, embeddings.astype("<f4"))
        ]
        database.bulk_ingest(records)
        sparse = [vectlite.sparse_terms(query["text"]) for query in queries]
        dense = [vector.tolist() for vector in vectors[: len(queries)].astype("<f4")]
        kinds = {
            "match": lambda at: database.search(None, k=10, sparse=sparse[at]),
            "dense": lambda at: database.search(dense[at], k=10),
            "hybrid": lambda at: database.search(dense[at], k=10, sparse=sparse[at]),
        }
        for kind, search in kinds.items():
            times = []
            for at in range(min(len(queries), VECTLITE_QUERIES)):
                begin = time.perf_counter()
                search(at)
                times.append((time.perf_counter() - begin) * 1e6)
            rows[kind] = {"p50_us": round(statistics.median(times)), "mean_us": round(statistics.mean(times))}
            print(f"vectlite {kind:8}", rows[kind])
        database.close()
    return rows


def speed(client, port, folder, queries_count=500):
    path = folder / "wordnet59k"
    meta, queries = lines(path / "meta.jsonl.gz"), lines(path / "query_meta.jsonl.gz")[:queries_count]
    load(client, "wordnet", [str(one["id"]) for one in meta], [one["text"] for one in meta], np.load(path / "emb_f16.npy"))
    vectors = np.load(path / "query_emb_f16.npy")
    kinds = {
        "match": lambda at: ["MATCH", queries[at]["text"]],
        "dense": lambda at: dense(vectors[at]),
        "hybrid": lambda at: ["MATCH", queries[at]["text"], *dense(vectors[at])],
    }
    rows = {}
    for kind, clause in kinds.items():
        commands = [["VSEARCH", "wordnet", *clause(at)] for at in range(len(queries))]
        times = []
        for command in commands:
            begin = time.perf_counter()
            client.execute_command(*command)
            times.append(time.perf_counter() - begin)

        def work(part):
            own = redis.Redis(port=port)
            for at in range(0, len(part), 16):
                pipe = own.pipeline(transaction=False)
                for command in part[at : at + 16]:
                    pipe.execute_command(*command)
                pipe.execute()

        threads = [threading.Thread(target=work, args=(commands[at::8] * 2,)) for at in range(8)]
        cpu, begin = cpu_s(client), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed, used = time.perf_counter() - begin, cpu_s(client) - cpu
        count = 2 * len(commands)
        rows[kind] = {
            "p50_us": round(statistics.median(times) * 1e6),
            "per_second": round(count / elapsed),
            "cpu_us": round(used / count * 1e6),
        }
        print(f"{kind:8}", rows[kind])
    ratio = rows["hybrid"]["p50_us"] / (rows["match"]["p50_us"] + rows["dense"]["p50_us"])
    print(f"hybrid / (dense + match): {ratio:.2f}")
    good = ratio <= 2
    if tantivy:
        rows["tantivy"] = tantivy_speed(meta, queries)
        times = rows["match"]["cpu_us"] / rows["tantivy"]["mean_us"]
        print(f"MATCH / tantivy, CPU time: {times:.2f}")
        good &= times <= 2
    if vectlite:
        embeddings = np.load(path / "emb_f16.npy")
        rows["vectlite"] = vectlite_speed(meta, embeddings, queries, vectors)
        for kind in kinds:
            print(f"{kind} / vectlite, CPU time: {rows[kind]['cpu_us'] / rows['vectlite'][kind]['mean_us']:.2f}")
    return rows, good


def cpu_s(client):
    info = client.info("cpu")
    return info["used_cpu_sys"] + info["used_cpu_user"]


def serve(binary, data):
    options = ["--port", "0", "--dir", data, "--appendonly", "no"]
    server = subprocess.Popen([binary, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in server.stdout:
        if "ready to accept connections on port" in line:
            port = int(line.rsplit(" ", 1)[1])
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return server, port
    sys.exit("the server did not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bin", default="target/release/vecdis")
    parser.add_argument("--port", type=int)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        server, port = (None, arguments.port) if arguments.port else serve(arguments.bin, data)
        try:
            client = redis.Redis(port=port)
            result, good = quality(client, arguments.data)
            result = {"quality": result}
            result["scores"], equal = scores(client)
            good &= equal
            if arguments.speed:
                result["speed"], fast = speed(client, port, arguments.data)
                good &= fast
        finally:
            if server:
                server.terminate()
                server.wait()
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
