#!/usr/bin/env python3
"""Vecdis and a real Redis 8 side by side: the same requests to both, in turn, in one run.

    python3 benches/compare_redis.py --data FOLDER --redis-port PORT [--bin target/release/vecdis] [--json FILE]
                                     [--rows 20000] [--redis-command 'COMMAND {port}'] [--fresh-rows 50000]
                                     [--only PART ...]

FOLDER holds wordnet59k/ as for acceptance.py. On PORT of 127.0.0.1 runs a Redis with vector sets that nobody else uses
meanwhile; only keys that begin with "compare:" are touched there, and removed at the end. Vecdis is started here.
Parts (all by default):
  recall   wordnet59k, --rows of it, as Q8, NOQUANT, BIN and REDUCE 128: recall@10 at EF 100 and of TRUTH
  load     VADD FP32 of 50,000 x 128, one connection, pipeline 100
  search   VSIM COUNT 10 EF 100 over these: one and eight connections, pipelines of 16 and 256
  filter   VSIM with a FILTER that 50, 10, 1 and 0.1 % of them match
  small    PING, VCARD and VISMEMBER through redis-benchmark, 50 connections
  memory   memory per vector of a fresh server, loaded and after SAVE: --fresh-rows x 128
  restart  time from the start of the process to the first correct answer, with as many
The last two measure a Redis of their own when --redis-command says how to start one in the foreground (options are
appended to it); without it, only Vecdis. There both keep an append-only log; before, Vecdis runs with its defaults (it
logs), and the Redis on PORT as it was started.

Figures are medians of rounds that alternate between the two. "better" is how many times better Vecdis is, "at least"
what it should be. Server CPU is user + system time from INFO cpu, in microseconds a request. Exit code 1 when something
misses. Needs the packages of tests/clients/requirements.txt, and redis-benchmark.
"""

import argparse
import csv
import io
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))

from acceptance import K, machine, wordnet
from load_client import HOST, drive, encode
from support import ANSWER_MAX_S, STOP_MAX_S, Server, clustered, exact_top, free_port, name, recall

PARTS = ("recall", "load", "search", "filter", "small", "memory", "restart")
# These need servers of their own.
FRESH = ("memory", "restart")
KEYS = RECALL_KEY, CLUSTERED_KEY, SMALL_KEY = "compare:recall", "compare:clustered", "compare:small"
ROUNDS = 3
PIPELINE = 100
EF = 100
RECALL_QUERIES = 300
ROWS, DIM, QUERIES = 50_000, 128, 300
SEARCH_S = 0.8
FILTER_QUERIES, FILTER_S = 150, 0.5
# Attribute values are uniform in 0..ATTRIBUTE_END; share of matches -> the filter's bound.
ATTRIBUTE_END = 1000
SHARES = {"50 %": 500, "10 %": 100, "1 %": 10, "0.1 %": 1}
# Label, connections, requests in flight on each, least ratio of the rates.
SEARCHES = (
    ("1 connection", 1, 1, None),
    ("8 connections", 8, 1, 3.0),
    ("pipeline 16", 1, 16, None),
    ("pipeline 256", 1, 256, None),
)
SMALL_ROWS = 100
# Requests of one redis-benchmark run, by pipeline.
SMALL_REQUESTS = {16: 600_000, 1: 60_000}
# What must hold (ratios), where it is not in SEARCHES.
LOAD_MIN, SMALL_MIN, FILTER_RECALL_MIN, FILTER_MIN = 20.0, 0.8, 0.999, 1.0
MEMORY_MIN = 1 / 0.35
POLL_S = 0.001
# Longest wait for a started server's data: Redis makes its graph again from an append-only file.
LOAD_MAX_S = 3600.0


def connect(port):
    """A redis-py client that does not try again by itself."""
    return redis.Redis(host=HOST, port=port, socket_timeout=ANSWER_MAX_S, retry=Retry(NoBackoff(), 0))


class Peer:
    """One of the two servers while it runs."""

    def __init__(self, label, port):
        self.label = label
        self.port = port
        self.client = connect(port)

    def cpu_s(self):
        """CPU time that the server has used so far."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def drive(self, requests, **options):
        """`load_client.drive`, and the server's CPU time of a request in microseconds."""
        before = self.cpu_s()
        run = drive(self.port, requests, **options)
        run.cpu_us = (self.cpu_s() - before) / run.count * 1e6
        return run

    def memory_bytes(self):
        """(used_memory, anonymous resident memory, that and resident pages of files)."""
        memory, pid = self.client.info("memory"), self.client.info("server")["process_id"]
        lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        kinds = {kind: int(value.split()[0]) * 1024 for kind, value in lines if kind in ("RssAnon", "RssFile")}
        return int(memory["used_memory"]), kinds["RssAnon"], sum(kinds.values())


class FreshRedis:
    """A Redis of our own that can be stopped and started again. Its files are removed at the end."""

    def __init__(self, command):
        self.port = free_port()
        self.files = [f"compare-{self.port}.rdb", f"compare-{self.port}-aof"]
        names = ["--dbfilename", self.files[0], "--appenddirname", self.files[1]]
        self.command = shlex.split(command.format(port=self.port)) + ["--save", "", *names]
        self.folder = None
        self.process = None

    def start(self, appendonly):
        self.process = subprocess.Popen(
            [*self.command, "--appendonly", appendonly], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def ready(self):
        """Notes where its files are, seen from here: it may run in another root folder."""
        client = connect(self.port)
        root = os.readlink(f"/proc/{client.info('server')['process_id']}/root")
        self.folder = Path(root + "/" + client.config_get("dir")["dir"])

    def stop(self):
        """Ends it without a last save."""
        connect(self.port).shutdown(nosave=True)
        self.process.wait(STOP_MAX_S)

    def remove(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_MAX_S)
        if self.folder is not None:
            for path in [self.folder / self.files[0], *(self.folder / self.files[1]).glob("*")]:
                path.unlink(missing_ok=True)
            if (self.folder / self.files[1]).is_dir():
                (self.folder / self.files[1]).rmdir()


class Table:
    """Prints the rows as they come and keeps them."""

    def __init__(self):
        self.rows = []
        self.failed = []
        print(f"{'':8s} {'':44s} {'Vecdis':>10s} {'Redis':>10s} {'':9s} {'better':>7s} {'at least':>9s}")

    def row(self, part, label, ours, theirs, unit, *, less=False, least=None, fine=None):
        """One figure of both (`theirs` None: not measured). `less`: smaller is better. `least`: the ratio wanted;
        `fine`: whether what must hold does, when it is no ratio."""
        ratio = None
        if ours and theirs:
            ratio = theirs / ours if less else ours / theirs
        if least is not None and ratio is not None:
            fine = ratio >= least
        shown = [show(ours, unit), show(theirs, unit), unit, "" if ratio is None else f"{ratio:.2f}x"]
        bound = "" if least is None else f"{least:.3g}x"
        verdict = {True: "ok", False: "MISS", None: ""}[fine]
        text = f"{shown[0]:>10s} {shown[1]:>10s} {shown[2]:9s} {shown[3]:>7s} {bound:>9s} {verdict}"
        print(f"{part:8s} {label:44s} {text}".rstrip(), flush=True)
        if fine is False:
            self.failed.append(f"{part}: {label}")
        row = {"part": part, "what": label, "vecdis": ours, "redis": theirs, "unit": unit}
        self.rows.append({**row, "better": ratio, "least": least, "fine": fine})


def show(value, unit):
    """A number in at most ten places; recall, which has no unit, with four decimals."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.4f}" if value < 1 or not unit else f"{value:.2f}"


def alternate(peers, measure, rounds=ROUNDS):
    """`measure(peer)` for each in turn, round after round: one list of results for each peer."""
    results = [[] for _ in peers]
    for _ in range(rounds):
        for result, peer in zip(results, peers):
            result.append(measure(peer))
    return results


def median(runs, value):
    return statistics.median(value(run) for run in runs)


def rows_of(answers):
    return [[int(element[1:]) for element in answer] for answer in answers]


def vadds(key, vectors, before=(), after=()):
    """VADD of each row; options stand `before` the vector (REDUCE) and `after` the element."""
    return [
        encode("VADD", key, *before, "FP32", vector.tobytes(), name(row), *after)
        for row, vector in enumerate(vectors)
    ]


def vsims(key, queries, *options):
    return [encode("VSIM", key, "FP32", query.tobytes(), "COUNT", K, *options) for query in queries]


def add(peer, key, requests):
    """A set from nothing, in pipelines."""
    peer.client.delete(key)
    run = peer.drive(requests, depth=PIPELINE)
    if peer.client.execute_command("VCARD", key) != len(requests):
        raise RuntimeError(f"{peer.label}: elements are missing. Does another program use the server?")
    return run


class Comparison:
    """The parts. The clustered set is loaded when the first part needs it."""

    def __init__(self, options, table, ours, theirs, folder):
        self.options = options
        self.table = table
        self.peers = (ours, theirs)
        self.folder = folder
        self.key = CLUSTERED_KEY
        self.vectors = clustered(ROWS, DIM, 1)
        self.queries = clustered(QUERIES, DIM, 2)
        self.loaded = False
        # Of the servers that are started for a part.
        self.fresh = None

    def load(self, rounds=1):
        requests = vadds(self.key, self.vectors)
        runs = alternate(self.peers, lambda peer: add(peer, self.key, requests), rounds)
        self.loaded = True
        return runs

    def rate_rows(self, part, label, ours, theirs, least=None):
        """Throughput and CPU of two lists of runs."""
        pairs = ((median(ours, value), median(theirs, value)) for value in (lambda r: r.rate, lambda r: r.cpu_us))
        self.table.row(part, label, *next(pairs), "/s", least=least)
        self.table.row(part, f"{label}: server CPU", *next(pairs), "us", less=True)

    def part_recall(self):
        base, queries, _ = wordnet(self.options.data)
        base, queries = base[: self.options.rows], queries[:RECALL_QUERIES]
        truth = exact_top(base, queries, K)
        kinds = {
            "Q8": ((), ("Q8",)),
            "NOQUANT": ((), ("NOQUANT",)),
            "BIN": ((), ("BIN",)),
            "REDUCE 128": (("REDUCE", 128), ()),
        }
        for kind, (before, after) in kinds.items():
            requests = vadds(RECALL_KEY, base, before, after)
            loads = alternate(self.peers, lambda peer: add(peer, RECALL_KEY, requests), 1)
            self.table.row("recall", f"{kind}: VADD, pipeline {PIPELINE}", *(run[0].rate for run in loads), "/s")
            for options in (("EF", EF), ("TRUTH",)):
                asked = vsims(RECALL_KEY, queries, *options)
                found = [rows_of(peer.drive(asked).answers) for peer in self.peers]
                ours, theirs = (recall(base, queries, truth, rows) for rows in found)
                label = f"{kind}: recall@{K} {' '.join(map(str, options))}"
                self.table.row("recall", label, ours, theirs, "", fine=ours >= theirs)
            for peer in self.peers:
                peer.client.delete(RECALL_KEY)

    def part_load(self):
        self.rate_rows("load", f"VADD {ROWS:,} x {DIM}, pipeline {PIPELINE}", *self.load(2), least=LOAD_MIN)

    def part_search(self):
        if not self.loaded:
            self.load()
        truth = exact_top(self.vectors, self.queries, K)
        asked = vsims(self.key, self.queries, "EF", EF)
        found = [rows_of(peer.drive(asked).answers) for peer in self.peers]
        ours, theirs = (recall(self.vectors, self.queries, truth, rows) for rows in found)
        self.table.row("search", f"recall@{K} EF {EF}", ours, theirs, "", fine=ours >= theirs)
        for label, connections, depth, least in SEARCHES:
            runs = alternate(
                self.peers,
                lambda peer: peer.drive(asked, connections=connections, depth=depth, duration_s=SEARCH_S),
            )
            self.rate_rows("search", label, *runs, least=least)
            for percent in (50, 99):
                times = (median(each, lambda run: run.percentile_ms(percent)) for each in runs)
                self.table.row("search", f"{label}: p{percent}", *times, "ms", less=True)

    def part_filter(self):
        if not self.loaded:
            self.load()
        values = np.random.default_rng(7).integers(0, ATTRIBUTE_END, ROWS)
        attributes = [encode("VSETATTR", self.key, name(row), f'{{"u":{u}}}') for row, u in enumerate(values)]
        runs = alternate(self.peers, lambda peer: peer.drive(attributes, depth=PIPELINE), 1)
        self.rate_rows("filter", f"VSETATTR, pipeline {PIPELINE}", *runs)
        queries = self.queries[:FILTER_QUERIES]
        for share, bound in SHARES.items():
            matching = np.flatnonzero(values < bound)
            truth = matching[exact_top(self.vectors[matching], queries, K)]
            asked = vsims(self.key, queries, "FILTER", f".u < {bound}")
            found = [rows_of(peer.drive(asked).answers) for peer in self.peers]
            if any(values[row] >= bound for answers in found for rows in answers for row in rows):
                raise RuntimeError(f"an element that does not match was answered ({share})")
            ours, theirs = (recall(self.vectors, queries, truth, rows) for rows in found)
            fine = ours >= max(theirs, FILTER_RECALL_MIN)
            self.table.row("filter", f"{share}: recall@{K}", ours, theirs, "", fine=fine)
            counts = (statistics.mean(map(len, rows)) for rows in found)
            self.table.row("filter", f"{share}: returned of {K}", *counts, "")
            runs = alternate(self.peers, lambda peer: peer.drive(asked, duration_s=FILTER_S))
            times = (median(each, lambda run: run.percentile_ms(50)) for each in runs)
            self.table.row("filter", f"{share}: p50", *times, "ms", less=True, least=FILTER_MIN)
            times = (median(each, lambda run: run.cpu_us) for each in runs)
            self.table.row("filter", f"{share}: server CPU", *times, "us", less=True)

    def part_small(self):
        key = SMALL_KEY
        requests = vadds(key, self.vectors[:SMALL_ROWS])
        alternate(self.peers, lambda peer: add(peer, key, requests), 1)
        lines = {
            "PING (inline)": ("-t", "ping_inline"),
            "PING": ("-t", "ping_mbulk"),
            "VCARD": ("VCARD", key),
            "VISMEMBER": ("VISMEMBER", key, name(7)),
        }
        for label, words in lines.items():
            for depth, count in SMALL_REQUESTS.items():
                runs = alternate(self.peers, lambda peer: self.redis_benchmark(peer, depth, count, words))
                rates, times = ([statistics.median(run[i] for run in each) for each in runs] for i in (0, 1))
                least = SMALL_MIN if depth > 1 else None
                self.table.row("small", f"{label}, pipeline {depth}", *rates, "/s", least=least)
                self.table.row("small", f"{label}, pipeline {depth}: server CPU", *times, "us", less=True)

    def redis_benchmark(self, peer, depth, count, words):
        """(requests a second, CPU microseconds a request) of 50 connections."""
        command = [self.options.redis_benchmark, "-h", HOST, "-p", peer.port, "-n", count, "-P", depth, "--csv"]
        before = peer.cpu_s()
        done = subprocess.run([*map(str, command), *words], capture_output=True, timeout=ANSWER_MAX_S, text=True)
        used = peer.cpu_s() - before
        table = [row for row in csv.reader(io.StringIO(done.stdout)) if len(row) > 1]
        if done.returncode or len(table) != 2:
            raise RuntimeError(f"redis-benchmark against {peer.label}: {done.stdout} {done.stderr}")
        return float(table[1][1]), used / count * 1e6

    def part_fresh(self, shown):
        """Memory and restart, from one pair of fresh servers so that the slow load happens once. Both keep a log."""
        server = Server(self.folder / "fresh", program=self.options.bin).start()
        other = FreshRedis(self.options.redis_command) if self.options.redis_command else None
        try:
            peers = [Peer("Vecdis", server.port)]
            if other:
                other.start("yes")
                wait_for(other.port, lambda client: client.ping())
                other.ready()
                peers.append(Peer("Redis", other.port))
            empty = [peer.memory_bytes() for peer in peers]
            self.fresh = clustered(self.options.fresh_rows, DIM, 1)
            requests = vadds(self.key, self.fresh)
            alternate(peers, lambda peer: add(peer, self.key, requests), 1)
            if "memory" in shown:
                self.memory_rows(peers, empty, "loaded")
            if "restart" in shown:
                # Before SAVE, which empties our log.
                from_log_s = statistics.median(self.restart_vecdis_s(server) for _ in range(ROUNDS))
                peers[0] = Peer("Vecdis", server.port)
            saves = [run[0] for run in alternate(peers, save_s, 1)] + [None]
            if "memory" in shown:
                # All that is on disk then but the originals.
                codes_bytes = server.files()[1] - self.fresh.nbytes
                self.memory_rows(peers, empty, "after SAVE", codes_bytes)
            if "restart" in shown:
                self.table.row("restart", f"SAVE of {len(self.fresh):,} x {DIM}", *saves[:2], "s", less=True)
                self.restart_rows(server, other, from_log_s)
        finally:
            server.kill9()
            if other:
                other.remove()

    def restart_rows(self, server, other, from_log_s):
        """From the log and from the checkpoint; Redis's slow start from its append-only file is measured once."""
        label = "log (Redis: AOF, one start)"
        theirs = self.restart_redis_s(other, "yes") if other else None
        self.table.row("restart", label, from_log_s, theirs, "s", less=True)
        starts = [lambda: self.restart_vecdis_s(server)]
        if other:
            starts.append(lambda: self.restart_redis_s(other, "no"))
        times = [statistics.median(each) for each in alternate(starts, lambda start: start())] + [None]
        self.table.row("restart", "checkpoint (Redis: RDB)", *times[:2], "s", less=True)

    def restart_vecdis_s(self, server):
        """Seconds from the start of the process, after a kill -9, to the first correct answer."""
        server.kill9()
        begin = time.perf_counter()
        server.start()
        wait_for(server.port, self.correct)
        return time.perf_counter() - begin

    def restart_redis_s(self, other, appendonly):
        """The same for Redis: from its append-only file ("yes") or its RDB file ("no")."""
        other.stop()
        begin = time.perf_counter()
        other.start(appendonly)
        wait_for(other.port, self.correct)
        return time.perf_counter() - begin

    def memory_rows(self, peers, empty, when, mapped_bytes=0):
        """Bytes per vector beyond those of the empty server, once searches have touched what they need.

        `mapped_bytes`: what a search reads from Vecdis's mapped files, whether resident now or not. RssFile has the
        pages of originals too, which the system can take back at any time.
        """
        for peer in peers:
            peer.drive(vsims(self.key, self.queries, "EF", EF))
        after = [peer.memory_bytes() for peer in peers]
        for place, label in enumerate(("used_memory", "RssAnon + mapped codes", "RssAnon + RssFile")):
            each = [(now[place] - was[place]) / len(self.fresh) for now, was in zip(after, empty)] + [None]
            if label == "RssAnon + mapped codes":
                each[0] += mapped_bytes / len(self.fresh)
            least = MEMORY_MIN if mapped_bytes and place == 1 else None
            self.table.row("memory", f"{label} per vector, {when}", *each[:2], "bytes", less=True, least=least)

    def correct(self, client):
        """Whether the loaded set answers as it must: all elements there, and each the nearest to its own vector."""
        found = client.execute_command("VSIM", self.key, "FP32", self.fresh[7].tobytes(), "COUNT", 1)
        return found == [name(7).encode()] and client.execute_command("VCARD", self.key) == len(self.fresh)

    def run(self, parts):
        for part in parts:
            if part not in FRESH:
                getattr(self, f"part_{part}")()
        fresh = [part for part in parts if part in FRESH]
        if fresh:
            self.part_fresh(fresh)


def save_s(peer):
    begin = time.perf_counter()
    peer.client.save()
    return time.perf_counter() - begin


def wait_for(port, ask):
    """Asks a starting server until `ask(client)` is true."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < LOAD_MAX_S:
        try:
            with connect(port) as client:
                if ask(client):
                    return
        except (redis.ConnectionError, redis.ResponseError):
            pass
        time.sleep(POLL_S)
    raise RuntimeError(f"no correct answer on port {port} in {LOAD_MAX_S:.0f} s")


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of wordnet59k/")
    parser.add_argument("--redis-port", type=int, required=True, help="port of a running Redis 8")
    parser.add_argument("--bin", type=lambda text: Path(text).resolve(), help="the server's executable")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of wordnet59k for the recall part")
    parser.add_argument("--fresh-rows", type=int, default=ROWS, help="rows for the parts memory and restart")
    parser.add_argument("--redis-command", help="starts a Redis in the foreground; {port} is replaced")
    parser.add_argument("--redis-benchmark", default="redis-benchmark", help="the program")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    return parser.parse_args()


def main():
    options = arguments()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vecdis-compare-") as folder:
        with Server(Path(folder) / "shared", program=options.bin) as server:
            ours, theirs = Peer("Vecdis", server.port), Peer("Redis", options.redis_port)
            about = {
                **machine(),
                "redis": theirs.client.info("server")["redis_version"],
                "kernel": ours.client.info("vectors").get("vector_kernel"),
            }
            print(f"{about}\n")
            table = Table()
            try:
                Comparison(options, table, ours, theirs, Path(folder)).run(options.only)
            finally:
                for key in KEYS:
                    theirs.client.delete(key)
    about["load at the end"], about["elapsed_s"] = os.getloadavg()[0], time.perf_counter() - begin
    if options.json:
        result = {"machine": about, "rows": table.rows, "failed": table.failed}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{about['elapsed_s']:.0f} s, load average {about['load']:.1f} to {about['load at the end']:.1f}")
    print(f"{len(table.failed)} missed" + "".join(f"\n  {line}" for line in table.failed))
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
