"""Sets of vectors for compare_peers.py: made or read once, kept in a cache folder, with the exact neighbours.

Every vector has length 1, so that inner product, cosine and distance order the rows alike and every contender can be
given the same numbers.
"""

import gzip
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))

from support import TIE_COSINE, clustered

# Neighbours that an answer has.
K = 10
QUERIES = 1000
# Rows handled at a time.
BLOCK_ROWS = 50_000
# Rows of f32 arithmetic's best that are looked at in f64, for K true ones.
CANDIDATES = 4 * K
# `--quick` makes sets this many times smaller.
QUICK = 20


@dataclass
class VectorSet:
    """f32 rows and queries of length 1, in memory and as files, and the cosine of each query's K-th best row."""

    name: str
    folder: Path
    base: np.ndarray
    queries: np.ndarray
    bars: np.ndarray

    @property
    def title(self):
        rows, dim = self.base.shape
        return f"{self.name}, {rows:,} x {dim}"

    @property
    def base_file(self):
        return self.folder / "base.npy"

    @property
    def query_file(self):
        return self.folder / "query.npy"

    def recall(self, found):
        """Mean share of the K best rows that were found; `found`: number of a query -> rows. A row as near as the K-th
        best (to f32's precision) counts."""
        hits = 0
        for number, rows in found.items():
            rows = list(dict.fromkeys(rows))[:K]
            cosines = self.base[rows].astype(np.float64) @ self.queries[number].astype(np.float64)
            hits += int((cosines >= self.bars[number] - TIE_COSINE).sum())
        return hits / (K * len(found))


def synthetic(profile, dim):
    """A set of make_synthetic.py where `--tools` says it is, else of our own generator."""

    def make(options, rows, folder):
        if options.tools:
            program = options.tools / "make_synthetic.py"
            words = ["--profile", profile, "--dim", dim, "--n", rows, "--queries", QUERIES, "--out", folder]
            subprocess.run([sys.executable, program, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
            return np.load(folder / "base.npy"), np.load(folder / "query.npy")
        starts = range(0, rows, BLOCK_ROWS)
        blocks = [clustered(min(BLOCK_ROWS, rows - start), dim, 1 + start) for start in starts]
        return np.concatenate(blocks), clustered(QUERIES, dim, 0)

    return make


def wordnet(options, rows, _):
    """MiniLM embeddings of WordNet glosses."""
    folder = options.data / "wordnet59k"
    return np.load(folder / "emb_f16.npy")[:rows], np.load(folder / "query_emb_f16.npy")


def mnist(options, rows, _):
    """Pixels of handwritten digits."""
    parts = (options.data / "mnist60k" / f"{part}_u8.npy.gz" for part in ("base", "query"))
    base, queries = (np.load(gzip.open(path)) for path in parts)
    return base[:rows], queries


# Name -> (rows, maker, whether it needs --data). A maker gives (base, queries) for options, rows and a scratch folder.
SETS = {
    "sift1m": (1_000_000, synthetic("sift", 128), False),
    "text1m": (1_000_000, synthetic("text", 128), False),
    "text300k": (300_000, synthetic("text", 384), False),
    "wordnet59k": (59_000, wordnet, True),
    "mnist60k": (60_000, mnist, True),
}


def unit(vectors):
    """f32, every row of length 1."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        block /= np.maximum(np.linalg.norm(block, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return vectors


def kth_cosines(base, queries):
    """f64 [queries]: the cosine of the K-th best row of each query."""
    scores = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(base), BLOCK_ROWS):
        block = base[start : start + BLOCK_ROWS]
        numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
        scores = np.concatenate([scores, queries @ block.T], axis=1)
        rows = np.concatenate([rows, numbers], axis=1)
        best = np.argpartition(-scores, CANDIDATES, axis=1)[:, :CANDIDATES]
        scores, rows = (np.take_along_axis(both, best, axis=1) for both in (scores, rows))
    exact = np.einsum("qkd,qd->qk", base[rows].astype(np.float64), queries.astype(np.float64))
    return np.sort(exact, axis=1)[:, -K]


def load(name, options):
    """The set of that name, from the cache or made now. None when it needs --data and that is not given."""
    rows, make, needs_data = SETS[name]
    if needs_data and not options.data:
        return None
    rows = rows // QUICK if options.quick else rows
    source = "" if needs_data or options.tools else "-clustered"
    folder = options.cache / f"{name}{source}-{rows}"
    files = base_file, query_file, bars_file = [
        folder / f"{part}.npy" for part in ("base", "query", "kth_cosine")
    ]
    # Written last.
    if not bars_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        base, queries = map(unit, make(options, rows, folder))
        queries = queries[:QUERIES]
        for file, array in zip(files, (base, queries, kth_cosines(base, queries))):
            np.save(file, array)
    return VectorSet(name, folder, *map(np.load, files))
