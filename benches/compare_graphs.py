#!/usr/bin/env python3
"""The graph of Vecdis beside those of other libraries: the same rows, one thread, CPU time, in one run.

    python3 -m venv target/bench-venv
    target/bench-venv/bin/pip install -r benches/requirements.txt hnswlib==0.8.0 scalable-vs==0.5.0
    target/bench-venv/bin/python benches/compare_graphs.py BASE.npy QUERIES.npy [--rows N] [--json FILE] [--svg FILE] [--rust-peers]

BASE and QUERIES hold f32 vectors of any length; they are compared by cosine (all are given unit vectors). Every graph has
M = 16 and 128 candidates while it is built; SVS has a degree of 32 and a window of 128. SVS keeps f32 vectors, and on Intel's
CPUs LVQ8 codes once more: that part of it is closed, and ends the process on other CPUs. `--rust-peers` adds the crates hnsw_rs
and hora (`benches/rust_peers/`, on the first 20,000 rows by themselves beside hnswlib on the same: a build by hora takes minutes).
`--svg` draws recall and queries a second. For each, the
CPU time of the build and of a query at recall@10 0.95 and 0.99 (on the line between the two settings around it, in the
logarithm of the time), the best of three rounds, and how many times quicker that is than hnswlib. A result counts as right if it is as
near as the tenth of the truth. Libraries that are not installed are left out. Vecdis runs as `cargo bench --bench graph`.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.update({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")})

import numpy as np

PROJECT = Path(__file__).resolve().parents[1]
K = 10
M, EF_CONSTRUCTION = 16, 128
EFS = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896)
RECALLS = (0.95, 0.99)
# A peer that has reached this recall is asked for no more.
ENOUGH = 0.998
ROUNDS = 3
# Rows for the crates.
RUST_ROWS = 20_000
TIE = 1e-6
BASELINE = "hnswlib"


def cpu_s():
    return time.process_time()


def hnswlib_peer(base):
    import hnswlib

    index = hnswlib.Index("ip", base.shape[1])
    index.init_index(len(base), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
    index.add_items(base, num_threads=1)

    def search(queries, ef):
        index.set_ef(ef)
        return index.knn_query(queries, k=K, num_threads=1)[0]

    return search


def usearch_peer(base):
    from usearch.index import Index

    index = Index(ndim=base.shape[1], metric="ip", dtype="f32", connectivity=M, expansion_add=EF_CONSTRUCTION)
    index.add(np.arange(len(base)), base, threads=1)

    def search(queries, ef):
        index.expansion_search = ef
        return index.search(queries, K, threads=1).keys

    return search


def faiss_peer(quantised):
    def make(base):
        import faiss

        faiss.omp_set_num_threads(1)
        dim = base.shape[1]
        if quantised:
            index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, M, faiss.METRIC_INNER_PRODUCT)
        else:
            index = faiss.IndexHNSWFlat(dim, M, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        index.train(base)
        index.add(base)

        def search(queries, ef):
            index.hnsw.efSearch = ef
            return index.search(queries, K)[1]

        return search

    return make


def is_intel():
    return "GenuineIntel" in Path("/proc/cpuinfo").read_text()


def svs_peer(quantised):
    def make(base):
        import svs

        if quantised and not is_intel():
            raise ImportError("LVQ runs on Intel's CPUs only")
        parameters = svs.VamanaBuildParameters(graph_max_degree=2 * M, window_size=EF_CONSTRUCTION, alpha=0.95)
        with tempfile.TemporaryDirectory() as folder:
            data = base
            if quantised:
                file = f"{folder}/base.fvecs"
                svs.write_vecs(base, file)
                data = svs.LVQLoader(svs.VectorDataLoader(file, svs.DataType.float32, dims=base.shape[1]), primary=8)
            index = svs.Vamana.build(parameters, data, svs.DistanceType.MIP, num_threads=1)

        def search(queries, ef):
            index.search_window_size = ef
            return index.search(queries, K)[0]

        return search

    return make


PEERS = {
    BASELINE: hnswlib_peer,
    "usearch f32": usearch_peer,
    "faiss HNSW": faiss_peer(False),
    "faiss HNSW SQ8": faiss_peer(True),
    "SVS f32": svs_peer(False),
    "SVS LVQ8": svs_peer(True),
}


def measure(make, base, queries, truth):
    """CPU seconds of the build, and (recall, CPU microseconds of a query) for each number of candidates."""
    start_s = cpu_s()
    search = make(base)
    build_s, points = cpu_s() - start_s, []
    for ef in EFS:
        best_s = math.inf
        for _ in range(ROUNDS):
            start_s = cpu_s()
            found = search(queries, ef)
            best_s = min(best_s, cpu_s() - start_s)
        recall = float(np.mean([truth(number, rows) for number, rows in enumerate(found)]))
        points.append((recall, best_s / len(queries) * 1e6))
        if recall > ENOUGH:
            break
    return build_s, points


def vecdis(base_file, query_file, rows):
    command = ["cargo", "bench", "--bench", "graph", "--", base_file, query_file, str(rows), "cosine", str(M), str(EF_CONSTRUCTION)]
    output = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return lines[0]["build_cpu_s"], [(line["recall"], line["query_us"]) for line in lines[1:]]


def rust_peers(base_file, query_file, rows):
    folder = PROJECT / "benches" / "rust_peers"
    command = ["cargo", "run", "--release", "--quiet", "--manifest-path", folder / "Cargo.toml", "--", base_file, query_file, str(rows)]
    output = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout
    results = {}
    for line in map(json.loads, output.splitlines()):
        build_s, points = results.setdefault(line["name"], (line["build_cpu_s"], []))
        points.append((line["recall"], line["query_us"]))
    return results


def query_us(points, recall):
    """The time of a query at a recall; None where it is not reached."""
    before = None
    for found, time_us in points:
        if found >= recall:
            if before is None or found == before[0]:
                return time_us
            part = (recall - before[0]) / (found - before[0])
            return math.exp((1 - part) * math.log(before[1]) + part * math.log(time_us))
        before = (found, time_us)
    return None


def truth_of(base, queries):
    bars = np.concatenate([-np.partition(-(block @ base.T), K - 1, axis=1)[:, K - 1] for block in np.array_split(queries, 20)])

    def truth(number, rows):
        rows = np.unique(rows[rows < len(base)])
        return min(1.0, (base[rows] @ queries[number] >= bars[number] - TIE).sum() / K)

    return truth


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--rust-peers", action="store_true")
    options = parser.parse_args()
    base = np.array(np.load(options.base, mmap_mode="r")[: options.rows], dtype=np.float32)
    queries = np.load(options.queries).astype(np.float32)
    base, queries = ((rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in (base, queries))
    truth = truth_of(base, queries)
    results = {"Vecdis": vecdis(options.base.resolve(), options.queries.resolve(), len(base))}
    for name, make in PEERS.items():
        try:
            results[name] = measure(make, base, queries, truth)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    show(f"{len(base):,} x {base.shape[1]}, {len(queries)} queries, CPU time on one thread", results)
    if options.json:
        options.json.write_text(json.dumps(results))
    if options.svg:
        options.svg.write_text(drawn(f"{options.base.parent.name}, {len(base):,} x {base.shape[1]}", results))
    if options.rust_peers:
        base = base[:RUST_ROWS]
        few = {BASELINE: measure(hnswlib_peer, base, queries, truth_of(base, queries))}
        few |= rust_peers(options.base.resolve(), options.queries.resolve(), len(base))
        show(f"\nThe first {len(base):,} rows", few)


def show(title, results):
    print(f"{title}\n")
    columns = "".join(f" us at {recall} | times {BASELINE} |" for recall in RECALLS)
    print(f"| | build, s |{columns}\n|---|---|{'---|---|' * len(RECALLS)}")
    for name, (build_s, points) in results.items():
        cells = []
        for recall in RECALLS:
            own, other = query_us(points, recall), query_us(results.get(BASELINE, (0, []))[1], recall)
            cells += [f"{own:.1f}" if own else "-", f"{other / own:.2f}" if own and other else "-"]
        print(f"| {name} | {build_s:.1f} | {' | '.join(cells)} |")


def drawn(title, results):
    """Recall and queries a second of CPU time as an SVG: the further to the right and up, the better."""
    lowest, (width, height), (left, right, top, bottom) = 0.85, (760, 460), (70, 170, 40, 50)
    lines = {name: [(recall, 1e6 / time_us) for recall, time_us in points if recall >= lowest] for name, (_, points) in results.items()}
    lines = {name: points for name, points in lines.items() if points}
    rates = [math.log10(rate) for points in lines.values() for _, rate in points]
    low, high = min(rates) - 0.05, max(rates) + 0.05
    # By how much is missing to 1, so that 0.99 and 0.998 do not lie on one another.
    place = lambda recall: -math.log10(max(1.0 - recall, 0.001))
    x = lambda recall: left + (width - left - right) * (place(recall) - place(lowest)) / (place(1.0) - place(lowest))
    y = lambda rate: top + (height - top - bottom) * (high - math.log10(rate)) / (high - low)
    colours = ("#c0392b", "#2c3e50", "#2980b9", "#27ae60", "#8e44ad", "#d35400", "#16a085")
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">']
    out += [f'<rect width="{width}" height="{height}" fill="white"/><text x="{left}" y="22" font-size="14">{title}: queries a second of CPU time, by recall@10</text>']
    for recall in (0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999):
        out.append(f'<path d="M{x(recall):.0f} {top}V{height - bottom}" stroke="#ddd"/><text x="{x(recall):.0f}" y="{height - bottom + 18}" text-anchor="middle">{recall}</text>')
    for rate in (n * 10**power for power in range(1, 7) for n in (1, 2, 5)):
        if low <= math.log10(rate) <= high:
            out.append(f'<path d="M{left} {y(rate):.0f}H{width - right}" stroke="#ddd"/><text x="{left - 6}" y="{y(rate) + 4:.0f}" text-anchor="end">{rate:,}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = colours[number % len(colours)]
        path = " ".join(f"{x(recall):.1f},{y(rate):.1f}" for recall, rate in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{3 if number == 0 else 1.5}"/>')
        at = top + 20 * number + 10
        out.append(f'<path d="M{width - right + 20} {at}h24" stroke="{colour}" stroke-width="3"/><text x="{width - right + 50}" y="{at + 4}">{name}</text>')
    return "\n".join([*out, "</svg>\n"])


if __name__ == "__main__":
    main()
