#!/usr/bin/env python3
"""Vecdis, Redis 8 and exact search of faiss, usearch and numpy on the same vectors, in turn, in one run.

    python3 -m venv target/bench-venv && target/bench-venv/bin/pip install -r benches/requirements.txt
    target/bench-venv/bin/python benches/compare_peers.py [--quick] [--sets NAME ...] [--json FILE]
        [--tools FOLDER] [--data FOLDER] [--redis-command 'COMMAND {port}'] [--redis-sets NAME ...]

Sets: sift1m and text1m (1,000,000 x 128) and text300k (300,000 x 384), made by FOLDER/make_synthetic.py of --tools or
else by a simple generator of our own; wordnet59k (384 dimensions) and mnist60k (784) are read from --data. All are kept
in --cache with their exact neighbours. --quick: twenty times fewer rows, fewer and shorter rounds.

The first table of a set compares libraries inside a process, in queries a second: one query at a time, and blocks of 64
and 256, on one thread and on two. Vecdis is there through its own library, as the server uses it (`benches/kernels`,
--worker), with sketches and, as `--codes`, without. The second table compares servers over loopback, client and server
sharing the machine: one search at a time, 64 and 256 in flight on one connection, and 256 on eight connections. Redis
searches its graph, so its recall counts too. CPU is user + system time of a query, one at a time. Figures are medians of rounds that alternate between all.

Builds what it measures first (cargo). As root, the run is kept from sharing the CPUs with other sessions (autogroup).
Prints Markdown, then what should hold and whether it does; exit code 1 when something misses.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import peer_sets
from acceptance import machine
from peers import Redis, Served, Worker, libraries, vecdis
from support import PROJECT

# Queries to a call, threads.
LIBRARY_CELLS = [(1, 1), (64, 1), (256, 1), (1, 2), (64, 2), (256, 2)]
# Connections, requests in flight on each.
SERVER_CELLS = [(1, 1), (1, 64), (1, 256), (8, 32)]
ROUNDS, QUICK_ROUNDS = 5, 2
# A round of a cell lasts about this long; a call that takes longer is made once.
CELL_S, QUICK_CELL_S = 1.0, 0.2
# After this many rounds, a cell that has taken this long is not measured again.
SLOW_ROUNDS, SLOW_S = 3, 10.0
REDIS_EFS = (100, 500)
RECALL_CELL = (256, 1)
VECDIS, VECDIS_ONE = "Vecdis", "Vecdis, 1 search thread"
OURS = Worker.label
# Set, cell, peer, how many times faster the library should be.
LIBRARY_CLAIMS = [
    *((name, (1, 1), "faiss SQ QT_8bit_direct_signed", 1.8) for name in ("sift1m", "text300k")),
    *((name, (1, 1), "faiss FlatIP", 4.0) for name in ("sift1m", "text300k")),
    *((name, (1, 1), "usearch exact, i8", 12.0) for name in ("sift1m", "text300k")),
    ("sift1m", (64, 1), "faiss SQ QT_8bit_direct_signed", 50.0),
    ("sift1m", (256, 1), "faiss FlatIP, BLAS forced", 14.0),
]
# p99 of one search at a time, at most this many times the library's time of a query on one thread.
LATENCY_MAX = 3.0


class Cell:
    """Rounds of one contender under one load."""

    def __init__(self):
        self.rounds = []

    def tired(self):
        """Whether it has taken long enough."""
        return len(self.rounds) >= SLOW_ROUNDS and sum(each.elapsed_s for each in self.rounds) > SLOW_S

    @property
    def rate(self):
        """Queries a second."""
        return statistics.median(each.count / each.elapsed_s for each in self.rounds)

    @property
    def cpu_ms(self):
        """CPU time of a query."""
        return 1e3 * sum(each.cpu_s for each in self.rounds) / sum(each.count for each in self.rounds)

    @property
    def found(self):
        return {number: rows for each in self.rounds for number, rows in each.found.items()}

    def percentile_ms(self, percent):
        return 1e3 * float(
            np.percentile([time_s for each in self.rounds for time_s in each.latencies_s], percent)
        )


class Measurement:
    """All contenders on one set."""

    def __init__(self, data, in_process, served, options):
        self.data = data
        self.in_process = in_process
        self.served = served
        self.rounds = QUICK_ROUNDS if options.quick else options.rounds
        self.cell_s = QUICK_CELL_S if options.quick else CELL_S
        self.cells = {}
        self.counts = {}

    def run(self):
        for number in range(self.rounds):
            for load in LIBRARY_CELLS:
                for contender in self.in_process:
                    self.measure(contender, load, self.library_round)
            for load in SERVER_CELLS:
                for contender in self.served:
                    self.measure(contender, load, lambda each, load: each.run(*load, self.cell_s))
            progress(f"{self.data.name}: round {number + 1} of {self.rounds}")

    def measure(self, contender, load, measure_round):
        cell = self.cells.setdefault((contender.label, load), Cell())
        if not cell.tired():
            cell.rounds.append(measure_round(contender, load))

    def library_round(self, contender, load):
        """As many calls as fill a round; how many is found out by a first call, which warms up as well."""
        batch, threads = load
        if (contender.label, load) not in self.counts:
            first = contender.run(batch, threads, batch)
            calls = max(1, min(round(self.cell_s / first.elapsed_s), len(self.data.queries)))
            self.counts[contender.label, load] = batch * calls
            if calls == 1:
                return first
        return contender.run(batch, threads, self.counts[contender.label, load])

    def recall(self, label, load):
        return self.data.recall(self.cells[label, load].found)

    def library_table(self):
        head = "recall@10 | 1 query | CPU | block of 64 | block of 256 | 2 threads: 1 query | block of 64 | block of 256"
        rows = []
        for contender in self.in_process:
            rates = [show(self.cells[contender.label, load].rate) for load in LIBRARY_CELLS]
            recall = f"{self.recall(contender.label, RECALL_CELL):.3f}"
            cpu = f"{self.cells[contender.label, (1, 1)].cpu_ms:.3g} ms"
            rows.append([contender.label, recall, rates[0], cpu, *rates[1:]])
        return table(f"{self.data.title}: in process, queries/s", head, rows)

    def server_table(self):
        head = (
            "recall@10 | 1 at a time | p50 | p99 | CPU | 64 in flight | 256 in flight | 256 on 8 connections"
        )
        rows = []
        for contender in self.served:
            cells = [self.cells[contender.label, load] for load in SERVER_CELLS]
            rates = [show(cell.rate) for cell in cells]
            recall = f"{self.recall(contender.label, SERVER_CELLS[2]):.3f}"
            times = [f"{value:.3g} ms" for value in (*map(cells[0].percentile_ms, (50, 99)), cells[0].cpu_ms)]
            rows.append([contender.label, recall, rates[0], *times, *rates[1:]])
        return table(f"{self.data.title}: server over loopback, searches/s", head, rows)

    def claims(self):
        """(text, whether it holds) of what should hold on this set."""
        for name, load, peer, least in LIBRARY_CLAIMS:
            if name == self.data.name:
                ratio = self.cells[OURS, load].rate / self.cells[peer, load].rate
                yield f"{name}, block of {load[0]}: {ratio:.1f}x {peer}, at least {least:g}x", ratio >= least
        if self.data.name == "sift1m":
            ratio = self.cells[VECDIS, (1, 1)].percentile_ms(99) * self.cells[OURS, (1, 1)].rate / 1e3
            text = f"{ratio:.1f}x the time of the library, at most {LATENCY_MAX:g}x"
            yield f"{self.data.name}, p99 of one search at a time: {text}", ratio <= LATENCY_MAX

    def figures(self):
        """Everything, for the JSON file."""
        for contenders, kind in ((self.in_process, "library"), (self.served, "server")):
            for contender in contenders:
                for load in LIBRARY_CELLS if kind == "library" else SERVER_CELLS:
                    cell = self.cells[contender.label, load]
                    names = ("batch", "threads") if kind == "library" else ("connections", "depth")
                    row = {"set": self.data.title, "kind": kind, "contender": contender.label}
                    row |= dict(zip(names, load))
                    row["rates"] = [each.count / each.elapsed_s for each in cell.rounds]
                    row |= {
                        "rate": cell.rate,
                        "cpu_ms": cell.cpu_ms,
                        "recall": self.recall(contender.label, load),
                    }
                    if kind == "server":
                        row |= {"p50_ms": cell.percentile_ms(50), "p99_ms": cell.percentile_ms(99)}
                    yield row


def show(rate):
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def table(title, head, rows):
    """Markdown."""
    columns = [title, *(word.strip() for word in head.split("|"))]
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def progress(text):
    print(f"# {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def build():
    """Builds the server and the worker; gives the worker's executable."""
    cargo = lambda *words: subprocess.run(
        ["cargo", *words], cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True
    )
    cargo("build", "--release", "--quiet")
    lines = cargo(
        "bench", "--bench", "kernels", "--no-run", "--quiet", "--message-format=json"
    ).stdout.splitlines()
    made = (json.loads(line) for line in lines if line.startswith("{"))
    return next(each["executable"] for each in made if each.get("target", {}).get("name") == "kernels")


def measure_set(name, options, worker_program):
    """The Measurement of a set, or None when the set is not there."""
    data = peer_sets.load(name, options)
    if data is None:
        return None
    progress(f"{data.title}: loading")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vecdis-peers-")))
        workers = [Worker(worker_program, data), Worker(worker_program, data, "--codes")]
        for worker in workers:
            stack.callback(worker.close)
        served = []
        for number, (label, words) in enumerate({VECDIS: (), VECDIS_ONE: ("--search-threads", "1")}.items()):
            server, contender = vecdis(folder / str(number), data, label, *words)
            stack.callback(server.kill9)
            served.append(contender)
        if options.redis_command and name in options.redis_sets:
            other = Redis(options.redis_command)
            stack.callback(other.close)
            progress(f"{data.name}: Redis loaded at {other.load(data):,.0f} rows/s")
            label = f"Redis {other.version}, EF {{}}"
            served += [Served(label.format(ef), other.port, other.pid, data, "EF", ef) for ef in REDIS_EFS]
        measurement = Measurement(data, [*workers, *libraries(data)], served, options)
        measurement.run()
    return measurement


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = lambda text: Path(text).resolve()
    names = list(peer_sets.SETS)
    parser.add_argument("--quick", action="store_true", help="small sets and short rounds")
    parser.add_argument("--sets", nargs="+", choices=names, default=names, help="sets to measure")
    parser.add_argument(
        "--cache", type=folder, default=PROJECT / "target" / "bench-sets", help="where sets are kept"
    )
    parser.add_argument("--tools", type=folder, help="folder of make_synthetic.py")
    parser.add_argument("--data", type=folder, help="folder of wordnet59k/ and mnist60k/")
    parser.add_argument("--redis-command", help="starts a Redis in the foreground; {port} is replaced")
    parser.add_argument(
        "--redis-sets", nargs="+", choices=names, default=names, help="sets that Redis is given"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each measurement")
    parser.add_argument("--json", type=folder, help="file for the figures")
    return parser.parse_args()


def in_own_session():
    """Goes on in a session of its own, with that session's share of the CPUs raised when root; gives the exit code.

    The scheduler divides CPUs between sessions first (autogroup), so that `nice` does nothing for a program against
    programs of other sessions.
    """
    if os.getsid(0) != os.getpid():
        child = subprocess.Popen([sys.executable, *sys.argv], start_new_session=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: child.send_signal(number))
        return child.wait()
    # What was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    group = Path("/proc/self/autogroup")
    if os.geteuid() == 0 and group.exists():
        group.write_text("-20")
    return main()


def main():
    options = arguments()
    begin = time.perf_counter()
    worker_program = build()
    about = machine()
    print(f"{about}\n", flush=True)
    rows, claims = [], []
    for name in options.sets:
        measurement = measure_set(name, options, worker_program)
        if measurement is None:
            progress(f"{name} is left out: it needs --data")
            continue
        print(f"{measurement.library_table()}\n\n{measurement.server_table()}\n", flush=True)
        rows += measurement.figures()
        # What should hold is said of the whole sets.
        claims += [] if options.quick else measurement.claims()
    for text, fine in claims:
        print(f"{'ok  ' if fine else 'MISS'} {text}")
    about["load at the end"], about["elapsed_s"] = os.getloadavg()[0], time.perf_counter() - begin
    print(f"\n{about['elapsed_s']:.0f} s, load average {about['load']:.1f} to {about['load at the end']:.1f}")
    if options.json:
        result = {
            "machine": about,
            "rows": rows,
            "claims": [{"claim": text, "fine": fine} for text, fine in claims],
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(fine for _, fine in claims) else 1


if __name__ == "__main__":
    sys.exit(in_own_session())
