#!/usr/bin/env python3
"""Graph searches through the server, beside Redis 8's, on the same vectors in one run.

    target/bench-venv/bin/python benches/graph_server.py BASE.npy QUERIES.npy [--rows N] [--seconds S]
        --redis-command 'COMMAND {port}'

Loads N rows (500,000) into both, waits until the graph is in use, and sends VSIM COUNT 10 on eight connections, one request in
flight on each, client and server sharing the machine, in rounds that alternate: while nothing else happens, and once more for
ours while the graph is built anew (`VINDEX BUILD`). Redis is asked with its default EF and with 200 and 500. Prints searches a second, p50,
p99, the server's CPU time of a search, and recall@10. Then what should hold: at recall as high, four times Redis's searches, and
p99 no worse, also during a build. At last 256 searches in flight on one connection: which plans are chosen, and the same without
the graph, where they share scans.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from load_client import drive, encode
from peer_sets import K, VectorSet, kth_cosines
from peers import KEY, Redis, Served, fill
from support import PROJECT, Server

CONNECTIONS = 8
# Searches in flight on one connection.
PIPELINED = 256
ROUNDS = 3
REDIS_EFS = (None, 200, 500)
TIMES = 4.0
BUILD_MAX_S = 3600.0


def read(options):
    base = np.array(np.load(options.base, mmap_mode="r")[: options.rows], dtype=np.float32)
    queries = np.load(options.queries).astype(np.float32)
    base, queries = ((rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in (base, queries))
    return VectorSet(options.base.stem, options.base.parent, base, queries, kth_cosines(base, queries))


def status(port):
    answer = drive(port, [encode("VINDEX", KEY, "STATUS")]).answers[0]
    return dict(zip(answer[::2], answer[1::2]))


def wait_for_graph(port):
    begin = time.perf_counter()
    while True:
        now = status(port)
        if now[b"state"] == b"ready" and now[b"unlinked-rows"] == 0:
            return time.perf_counter() - begin
        if time.perf_counter() - begin > BUILD_MAX_S:
            raise TimeoutError(f"no graph: {now}")
        time.sleep(0.5)


class Line:
    """Rounds of one contender."""

    def __init__(self, label, served):
        self.label, self.served, self.rounds = label, served, []

    def run(self, seconds):
        self.rounds.append(self.served.run(CONNECTIONS, 1, seconds))

    def median(self, of):
        return statistics.median(of(each) for each in self.rounds)

    @property
    def rate(self):
        return self.median(lambda each: each.count / each.elapsed_s)

    def percentile_ms(self, percent):
        return self.median(lambda each: float(np.percentile(each.latencies_s, percent)) * 1e3)

    def recall(self, data):
        return self.median(lambda each: data.recall(each.found))

    def show(self, data):
        cpu_us = self.median(lambda each: each.cpu_s / each.count) * 1e6
        p50, p99 = self.percentile_ms(50), self.percentile_ms(99)
        print(f"| {self.label} | {self.rate:,.0f} | {p50:.2f} | {p99:.2f} | {cpu_us:.0f} | {self.recall(data):.4f} |")


def plans(port):
    """Searches so far, by plan."""
    info = drive(port, [encode("INFO", "vectors")]).answers[0].decode()
    pairs = (line.split(":") for line in info.splitlines() if line.startswith("plan_"))
    return {name.removeprefix("plan_"): int(count) for name, count in pairs}


def pipelined(served, port, data, seconds):
    """What the planner makes of many searches at a time, and what a scan that they share would have taken."""
    wait_for_graph(port)
    for label, words in (("as planned", None), ("without a graph", "DROP")):
        if words:
            drive(port, [encode("VINDEX", KEY, words)])
        before = plans(port)
        each = served.run(1, PIPELINED, seconds)
        chosen = {plan: count - before[plan] for plan, count in plans(port).items() if count > before[plan]}
        rate, recall = each.count / each.elapsed_s, data.recall(each.found)
        print(f"{PIPELINED} in flight, {label}: {rate:,.0f} searches/s, recall {recall:.4f}, plans {chosen}")


def compare(options, data, folder):
    server = Server(folder, "--appendonly", "no").start()
    redis = Redis(options.redis_command) if options.redis_command else None
    try:
        fill(server.port, data)
        print(f"graph ready {wait_for_graph(server.port):.0f} s after the last of {len(data.base):,} rows")
        if redis:
            redis.load(data)
        ours = Line("Vecdis", Served("Vecdis", server.port, server.process.pid, data))
        theirs = []
        for ef in REDIS_EFS if redis else ():
            words = ("EF", ef) if ef else ()
            theirs.append(Line(f"Redis {redis.version}{f', EF {ef}' if ef else ''}", Served("", redis.port, redis.pid, data, *words)))
        for _ in range(ROUNDS):
            for line in (ours, *theirs):
                line.run(options.seconds)
        building = Line("Vecdis, graph being built anew", ours.served)
        drive(server.port, [encode("VINDEX", KEY, "BUILD")])
        for _ in range(ROUNDS):
            building.run(options.seconds)
        if status(server.port)[b"state"] != b"building":
            print("the build ended before the last round")
        print("\n| | searches/s | p50 ms | p99 ms | CPU us | recall@10 |\n|---|---|---|---|---|---|")
        for line in (ours, building, *theirs):
            line.show(data)
        if not theirs:
            return pipelined(ours.served, server.port, data, options.seconds)
        as_good = [line for line in theirs if line.recall(data) <= ours.recall(data)]
        best = max(as_good, key=lambda line: line.recall(data), default=theirs[0])
        print(f"\n{ours.rate / best.rate:.1f} times {best.label}, the nearest with no more recall (at least {TIMES})")
        for line in (ours, building):
            print(f"p99 {line.percentile_ms(99):.2f} ms of {line.label}, {best.percentile_ms(99):.2f} of {best.label}")
        pipelined(ours.served, server.port, data, options.seconds)
    finally:
        if redis:
            redis.close()
        server.terminate()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("queries", type=Path)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--redis-command", help="without it only Vecdis is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=PROJECT / "target") as folder:
        compare(options, read(options), Path(folder))


if __name__ == "__main__":
    main()
