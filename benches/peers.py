"""Contenders of compare_peers.py: libraries in this process, Vecdis's own library in another one, servers."""

import json
import os
import shlex
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import faiss
import numpy as np
from threadpoolctl import threadpool_limits
from usearch.index import MetricKind
from usearch.index import search as usearch_search

from load_client import drive, encode
from peer_sets import K
from support import STOP_MAX_S, Server, free_port, name

TICKS = os.sysconf("SC_CLK_TCK")
# Requests that wait for answers while a set is loaded, and rows encoded at a time.
LOAD_DEPTH = 100
LOAD_ROWS = 50_000
# Redis links new elements to neighbours that threads of its own look for (CAS), one for each connection.
REDIS_LOAD_CONNECTIONS = 4
KEY = "peers"
# Longest wait for a Redis to start: the command may install it first.
REDIS_START_MAX_S = 600.0
# Longest wait for a server to sketch its rows: it does not where that is of no use.
SKETCH_MAX_S = 20.0
# Queries whose scores numpy holds at a time.
NUMPY_QUERIES = 64
# faiss uses BLAS from this many queries x dimensions on.
BLAS_DEFAULT = faiss.cvar.distance_compute_blas_threshold
BLAS_ALWAYS = 1
# Least divisor: a zero vector stays one.
TINY = np.finfo(np.float32).tiny


@dataclass
class Round:
    """What one round gave."""

    count: int
    elapsed_s: float
    cpu_s: float
    # Number of a query -> rows found, best first.
    found: dict
    latencies_s: list = field(default_factory=list)


def cpu_s(pid):
    """CPU time of a process so far, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Library:
    """A function of queries and a number of threads that gives rows, called in this process."""

    def __init__(self, label, queries, search):
        self.label = label
        self.queries = queries
        self.search = search

    def run(self, batch, threads, count):
        """`count` queries, `batch` at a time."""
        found, elapsed_s, cpu_before = {}, 0.0, time.process_time()
        with threadpool_limits(limits=threads):
            for first in range(0, count, batch):
                numbers = [number % len(self.queries) for number in range(first, min(first + batch, count))]
                queries = self.queries[numbers]
                begin = time.perf_counter()
                rows = self.search(queries, threads)
                elapsed_s += time.perf_counter() - begin
                found.update(zip(numbers, rows))
        return Round(count, elapsed_s, time.process_time() - cpu_before, found)


class Worker:
    """Vecdis's library, through `benches/kernels --worker`; with `--codes`, without sketches."""

    label = "Vecdis (library)"

    def __init__(self, program, data, *options):
        if options:
            self.label = f"{Worker.label}, {' '.join(options)}"
        words = [program, "--worker", *options, "--data", data.base_file, "--queries", data.query_file]
        self.queries = len(data.queries)
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.receive()

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self.process.wait()}")
        return json.loads(line)

    def run(self, batch, threads, count):
        before = cpu_s(self.process.pid)
        self.process.stdin.write(f"{threads} {batch} 0 {count}\n")
        self.process.stdin.flush()
        answer = self.receive()
        found = {number % self.queries: rows for number, rows in enumerate(answer["rows"])}
        return Round(count, sum(answer["times_s"]), cpu_s(self.process.pid) - before, found)

    def close(self):
        self.process.stdin.close()
        self.process.wait(STOP_MAX_S)


def libraries(data):
    """Everything that searches exactly and comes from PyPI, on the same rows."""
    base, queries = data.base, data.queries
    flat = faiss.IndexFlatIP(base.shape[1])
    flat.add(base)

    def faiss_flat(blas_from):
        def search(some, _):
            faiss.cvar.distance_compute_blas_threshold = blas_from
            return flat.search(some, K)[1]

        return search

    def faiss_quantised(kind, rows, prepare):
        index = faiss.IndexScalarQuantizer(base.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        index.train(rows)
        index.add(rows)
        return lambda some, _: index.search(prepare(some), K)[1]

    as_it_is = lambda some: some
    # The largest component becomes 127. A query's scale does not change the order of its rows.
    row_scales = lambda vectors: 127 / np.maximum(np.abs(vectors).max(axis=1, keepdims=True), TINY)
    # direct_signed takes components as int8, without a scale: one for all rows brings them to that range.
    whole = lambda vectors: np.rint(vectors * row_scales(vectors))
    direct_rows = np.rint(base * np.float32(127 / np.abs(base).max()))
    direct_kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    # usearch divides by the lengths, so each row can have its own scale.
    base_int8 = whole(base).astype(np.int8)

    def usearch(rows, prepare):
        def search(some, threads):
            found = usearch_search(rows, prepare(some), K, MetricKind.Cos, exact=True, threads=threads)
            return np.atleast_2d(found.keys)

        return search

    def numpy_search(some, _):
        parts = (some[first : first + NUMPY_QUERIES] for first in range(0, len(some), NUMPY_QUERIES))
        best = lambda scores: np.argpartition(scores, -K, axis=1)[:, -K:]
        return np.concatenate([best(part @ base.T) for part in parts])

    return [
        Library("faiss FlatIP", queries, faiss_flat(BLAS_DEFAULT)),
        Library("faiss FlatIP, BLAS forced", queries, faiss_flat(BLAS_ALWAYS)),
        Library("faiss SQ QT_8bit", queries, faiss_quantised(faiss.ScalarQuantizer.QT_8bit, base, as_it_is)),
        Library("faiss SQ QT_8bit_direct_signed", queries, faiss_quantised(direct_kind, direct_rows, whole)),
        Library("usearch exact, i8", queries, usearch(base_int8, lambda some: whole(some).astype(np.int8))),
        Library("usearch exact, f32", queries, usearch(base, as_it_is)),
        Library("numpy f32 matmul", queries, numpy_search),
    ]


class Served:
    """A server that holds the set, asked over loopback by this process."""

    def __init__(self, label, port, pid, data, *options):
        self.label = label
        self.port = port
        self.pid = pid
        self.asked = [
            encode("VSIM", KEY, "FP32", query.tobytes(), "COUNT", K, *options) for query in data.queries
        ]

    def run(self, connections, depth, duration_s):
        """As many searches as fit in `duration_s`, `depth` in flight on each connection."""
        before = cpu_s(self.pid)
        run = drive(self.port, self.asked, connections=connections, depth=depth, duration_s=duration_s)
        answers = {number: rows for number, rows in enumerate(run.answers) if rows is not None}
        found = {number: [int(element[1:]) for element in rows] for number, rows in answers.items()}
        return Round(run.count, run.elapsed_s, cpu_s(self.pid) - before, found, run.latencies_s)


def fill(port, data, *options, connections=1):
    """VADD of all rows; gives rows a second."""
    elapsed_s = 0.0
    for first in range(0, len(data.base), LOAD_ROWS):
        rows = range(first, min(first + LOAD_ROWS, len(data.base)))
        requests = [
            encode("VADD", KEY, "FP32", data.base[row].tobytes(), name(row), *options) for row in rows
        ]
        elapsed_s += drive(port, requests, connections=connections, depth=LOAD_DEPTH // connections).elapsed_s
    return len(data.base) / elapsed_s


def vecdis(folder, data, label, *options):
    """A server of ours, loaded: (server, contender)."""
    server = Server(folder, "--appendonly", "no", *options).start()
    # No graph: what is compared is exact search.
    drive(server.port, [encode("VCREATE", KEY, "DIM", data.base.shape[1], "INDEX", "FLAT")])
    fill(server.port, data)
    sketch(server.port, data)
    return server, Served(label, server.port, server.process.pid, data)


def sketch(port, data):
    """Has the rows sketched, as a first search does, and waits for it; not where sketches are of no use."""
    search = encode("VSIM", KEY, "FP32", data.queries[0].astype("<f4").tobytes())
    drive(port, [search])
    end = time.perf_counter() + SKETCH_MAX_S
    rows = 0
    while time.perf_counter() < end and rows < 0.99 * len(data.base):
        time.sleep(0.2)
        fields = drive(port, [encode("VINFO", KEY)]).answers[0]
        rows = fields[fields.index(b"sketch-rows") + 1]


class Redis:
    """A Redis of our own without files, started in the foreground by a command with {port} in it."""

    def __init__(self, command):
        self.port = free_port()
        words = [*shlex.split(command.format(port=self.port)), "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.ask = encode("INFO", "server")
        begin = time.perf_counter()
        while True:
            try:
                lines = drive(self.port, [self.ask]).answers[0].decode().splitlines()
                break
            except ConnectionError:
                if self.process.poll() is not None or time.perf_counter() - begin > REDIS_START_MAX_S:
                    self.close()
                    raise
                time.sleep(0.1)
        about = dict(line.split(":", 1) for line in lines if ":" in line)
        self.version, self.pid = about["redis_version"], int(about["process_id"])

    def load(self, data):
        return fill(self.port, data, "CAS", connections=REDIS_LOAD_CONNECTIONS)

    def close(self):
        self.process.terminate()
        self.process.wait(STOP_MAX_S)
