#!/usr/bin/env python3
"""The server's job on real data, measured through redis-py over loopback.

    python3 benches/acceptance.py --data FOLDER [--bin target/release/vecdis] [--json FILE] [--only NAME ...]

FOLDER holds siftsmall/ (siftsmall_base.fvecs, siftsmall_query.fvecs: ANN_SIFT10K of the TEXMEX corpus) and wordnet59k/
(emb_f16.npy 59,000 x 384 f16, query_emb_f16.npy, gt_ids_i32.npy: 100 exact neighbours of each query, best first).
Needs the packages of tests/clients/requirements.txt. Every server is one of its own on a free port of 127.0.0.1, with
its data in a scratch folder. Parts (all by default): siftsmall, wordnet59k, transaction, large, tenants, attributes,
hostile. Prints every figure, and ok or FAIL for what must hold; exit code 1 when something does not.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))

import hostile
from support import (
    HOST,
    Server,
    attribute,
    contents,
    exact_top,
    info_of,
    load,
    name,
    recall,
    same,
    search,
)

MB = 1 << 20
KEY = "set"
K = 10
RECALL_MIN = 0.995
UPDATED = 1_000
BATCH = 500
TRANSACTION = 5_000
TENANTS, TENANT_SIZE = 10_000, 10


class Report:
    """Collects figures and checks, and shows them as they come."""

    def __init__(self):
        self.figures = {}
        self.failed = []
        self.checks = 0
        self.part = None

    def begin(self, part):
        self.part = part
        self.figures[part] = {}
        print(f"\n{part}", flush=True)

    def figure(self, label, value, unit=""):
        self.figures[self.part][label] = value
        shown = f"{value:,.4g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}"
        print(f"  {label:58s} {shown:>12s} {unit}", flush=True)

    def check(self, label, fine, detail=""):
        self.checks += 1
        self.figures[self.part][label] = bool(fine)
        if not fine:
            self.failed.append(f"{self.part}: {label}")
        print(f"  {label:58s} {'ok' if fine else 'FAIL':>12s} {detail}", flush=True)

    def recall(self, label, value):
        self.figure(f"recall@{K} {label}", value)
        self.check(f"recall@{K} {label} >= {RECALL_MIN}", value >= RECALL_MIN)


def fvecs(path):
    """f32 [rows, dim] of a TEXMEX file: each row is its i32 length and its values."""
    rows = np.fromfile(path, dtype="<i4")
    return rows.reshape(-1, rows[0] + 1)[:, 1:].copy().view("<f4")


def siftsmall(data):
    """(base, queries, exact rows): cosine truth computed here in f64."""
    base, queries = (fvecs(data / "siftsmall" / f"siftsmall_{part}.fvecs") for part in ("base", "query"))
    return base, queries, exact_top(base, queries, K)


def wordnet(data):
    """(base, queries, exact rows) with the truth that comes with the set."""
    folder = data / "wordnet59k"
    base, queries = (
        np.load(folder / file).astype(np.float32) for file in ("emb_f16.npy", "query_emb_f16.npy")
    )
    return base, queries, np.load(folder / "gt_ids_i32.npy")[:, :K]


def load_timed(report, client, vectors, label, **options):
    begin = time.perf_counter()
    replies = load(client, KEY, vectors, **options)
    report.figure(label, len(vectors) / (time.perf_counter() - begin), "vectors/s")
    return replies


def restart(report, server, what):
    server.kill9()
    server.start()
    report.figure(f"start-up {what}, to first PONG", server.start_s, "s")


def job(report, server, base, queries, truth):
    """Load, search, crash, compare, update, crash, compare: one set of vectors with attributes."""
    count = len(base)
    with server.client() as client:
        replies = load_timed(report, client, base, f"VADD FP32 SETATTR, pipelines of {BATCH}", batch=BATCH)
        report.check(
            "every VADD adds, VCARD counts all",
            replies == [1] * count and client.execute_command("VCARD", KEY) == count,
        )
        begin = time.perf_counter()
        found = search(client, KEY, queries, K)
        report.figure(
            "VSIM COUNT 10, pipelines of 100, one client",
            len(queries) / (time.perf_counter() - begin),
            "queries/s",
        )
        report.recall("loaded", recall(base, queries, truth, found))
        loaded = contents(client, KEY, count)
    # The originals are kept, so that what VEMB gives is the input but for its stored length.
    gap = np.abs(loaded[0] - base).max() / np.abs(base).max()
    report.figure("VEMB: largest difference from the input, of the largest", float(gap))
    expected = [attribute(row).encode() for row in range(count)]
    report.check("attributes are those that were set", loaded[1] == expected)

    restart(report, server, "after kill -9")
    with server.client() as client:
        report.check("after kill -9: element for element equal", same(contents(client, KEY, count), loaded))
        found = search(client, KEY, queries, K)
        report.recall("after kill -9", recall(base, queries, truth, found))

        # Every row near a query moves, so that stale rows would show.
        rows = np.array(list(dict.fromkeys([*truth.ravel(), *range(count)]))[:UPDATED])
        changed = base.copy()
        changed[rows] = base[np.roll(rows, 1)] * np.float32(1.5) + base[rows] * np.float32(0.25)
        with client.pipeline(transaction=False) as pipe:
            for row in rows:
                pipe.execute_command("VADD", KEY, "FP32", changed[row].tobytes(), name(row))
            report.check(f"{len(rows)} updates answer 0", pipe.execute() == [0] * len(rows))
        changed_truth = exact_top(changed, queries, K)
        report.recall(
            "after updates", recall(changed, queries, changed_truth, search(client, KEY, queries, K))
        )
        updated = contents(client, KEY, count)
        report.check(
            "updates changed vectors and kept attributes",
            not same(updated, loaded) and updated[1] == expected,
        )

    restart(report, server, "after updates and kill -9")
    with server.client() as client:
        report.check(
            "updates after kill -9: element for element equal", same(contents(client, KEY, count), updated)
        )
        report.check("VCARD is unchanged", client.execute_command("VCARD", KEY) == count)
        report.recall(
            "of updates after kill -9",
            recall(changed, queries, changed_truth, search(client, KEY, queries, K)),
        )


def transaction(report, server, base, queries, truth):
    """The same set through redis-py's default pipeline: MULTI/EXEC."""
    with server.client() as client:
        replies = load_timed(
            report, client, base, f"VADD in MULTI/EXEC of {TRANSACTION}", batch=TRANSACTION, transaction=True
        )
        report.check("every VADD adds", replies == [1] * len(base))
        report.recall("loaded", recall(base, queries, truth, search(client, KEY, queries, K)))
        loaded = contents(client, KEY, len(base))
    restart(report, server, "after kill -9")
    with server.client() as client:
        report.check(
            "after kill -9: element for element equal", same(contents(client, KEY, len(base)), loaded)
        )
        report.recall("after kill -9", recall(base, queries, truth, search(client, KEY, queries, K)))


def footprint(report, server, what):
    """Memory of the process and files on disk."""
    for kind, size in server.memory_bytes().items():
        if kind != "VmHWM":
            report.figure(f"{kind} {what}", size / MB, "MB")
    count, size = server.files()
    report.figure(f"files {what}", count)
    report.figure(f"bytes on disk {what}", size / MB, "MB")


def start_to_answer(report, server, what, ask):
    """Start-up after a crash: to the first PONG, and to the first correct answer of `ask(client)`."""
    server.kill9()
    begin = time.perf_counter()
    server.start()
    with server.client() as client:
        while not ask(client):
            if time.perf_counter() - begin > 120:
                break
    report.figure(f"start-up {what}, to first PONG", server.start_s, "s")
    report.figure(f"start-up {what}, to first correct VSIM", time.perf_counter() - begin, "s")
    report.check(f"start-up {what}: the answer is correct", time.perf_counter() - begin <= 120)


def sizes(report, server, fill, ask):
    """Load, checkpoint, start: times, files, memory. First from the log alone, then from a checkpoint."""
    footprint(report, server, "empty")
    with server.client() as client:
        fill(client)
    footprint(report, server, "loaded")
    start_to_answer(report, server, "from the log", ask)
    footprint(report, server, "started from the log")
    with server.client() as client:
        begin = time.perf_counter()
        client.save()
        report.figure("SAVE", time.perf_counter() - begin, "s")
    footprint(report, server, "after SAVE")
    start_to_answer(report, server, "from the checkpoint", ask)
    footprint(report, server, "started from the checkpoint")


def large(report, server, base, queries, truth):
    """One collection, without attributes."""

    def fill(client):
        replies = load_timed(
            report, client, base, f"VADD FP32, pipelines of {BATCH}", batch=BATCH, attributes=False
        )
        report.check("every VADD adds", replies == [1] * len(base))

    def ask(client):
        return set(search(client, KEY, queries[:1], K)[0]) == set(truth[0])

    sizes(report, server, fill, ask)
    with server.client() as client:
        report.recall(
            "started from the checkpoint", recall(base, queries, truth, search(client, KEY, queries, K))
        )


def tenants(report, server, base):
    """Many small collections."""
    vectors = base[np.arange(TENANTS * TENANT_SIZE) % len(base)]

    def fill(client):
        begin = time.perf_counter()
        for first in range(0, len(vectors), BATCH):
            with client.pipeline(transaction=False) as pipe:
                for row in range(first, min(first + BATCH, len(vectors))):
                    pipe.execute_command(
                        "VADD", f"tenant:{row // TENANT_SIZE}", "FP32", vectors[row].tobytes(), name(row)
                    )
                pipe.execute()
        report.figure(
            f"VADD FP32 into {TENANTS:,} collections",
            len(vectors) / (time.perf_counter() - begin),
            "vectors/s",
        )

    def ask(client):
        row = TENANT_SIZE * (TENANTS // 2) + 3
        answer = client.execute_command(
            "VSIM", f"tenant:{TENANTS // 2}", "FP32", vectors[row].tobytes(), "COUNT", 1
        )
        return answer == [name(row).encode()]

    sizes(report, server, fill, ask)
    with server.client() as client:
        report.check("every collection is there", client.dbsize() == TENANTS)
        with client.pipeline(transaction=False) as pipe:
            for tenant in range(TENANTS):
                pipe.execute_command("VCARD", f"tenant:{tenant}")
            report.check("every collection has its elements", pipe.execute() == [TENANT_SIZE] * TENANTS)


def attributes(report, server, base):
    """VSETATTR on every element makes no rows."""
    with server.client() as client:
        load(client, KEY, base, attributes=False)
        rows, memory = info_of(client, KEY)["rows"], server.memory_bytes()["RssAnon"]
        report.figure("rows before", rows)
        begin = time.perf_counter()
        for first in range(0, len(base), BATCH):
            with client.pipeline(transaction=False) as pipe:
                for row in range(first, min(first + BATCH, len(base))):
                    pipe.execute_command("VSETATTR", KEY, name(row), attribute(row))
                pipe.execute()
        report.figure("VSETATTR, pipelines of 500", len(base) / (time.perf_counter() - begin), "elements/s")
        info = info_of(client, KEY)
        report.figure("rows after", info["rows"])
        report.check("the number of rows is unchanged", info["rows"] == rows)
        report.check("every element has attributes", info["attributes-count"] == len(base))
        report.figure("RssAnon before", memory / MB, "MB")
        report.figure("RssAnon after", server.memory_bytes()["RssAnon"] / MB, "MB")


def hostile_requests(report, server):
    rows = hostile.run(server)
    report.figures[report.part] = rows
    for label, row in rows.items():
        report.checks += 1
        if not row["passed"]:
            report.failed.append(f"{report.part}: {label}")


def machine():
    """What the figures were taken on."""
    models = [
        line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "host": HOST,
    }


def parts(data):
    """Name -> (options of the server, function of a report and a server)."""
    always = ("--appendfsync", "always")
    sift, words = {}, {}

    def sets(kind, reader):
        if not kind:
            kind["set"] = reader(data)
        return kind["set"]

    return {
        "siftsmall": (always, lambda report, server: job(report, server, *sets(sift, siftsmall))),
        "wordnet59k": (always, lambda report, server: job(report, server, *sets(words, wordnet))),
        "transaction": (always, lambda report, server: transaction(report, server, *sets(words, wordnet))),
        "large": ((), lambda report, server: large(report, server, *sets(words, wordnet))),
        "tenants": ((), lambda report, server: tenants(report, server, sets(words, wordnet)[0])),
        "attributes": ((), lambda report, server: attributes(report, server, sets(words, wordnet)[0])),
        "hostile": ((), hostile_requests),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of siftsmall/ and wordnet59k/")
    parser.add_argument("--bin", type=lambda text: Path(text).resolve(), help="the server's executable")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", nargs="+", choices=sorted(parts(Path())), help="parts to run")
    options = parser.parse_args()
    report = Report()
    print(f"machine: {machine()}")
    with tempfile.TemporaryDirectory(prefix="vecdis-acceptance-") as folder:
        for part, (server_options, measure) in parts(options.data).items():
            if options.only and part not in options.only:
                continue
            report.begin(part)
            with Server(Path(folder) / part, *server_options, program=options.bin) as server:
                try:
                    measure(report, server)
                except Exception as error:  # a part that breaks must not hide the others
                    report.check(
                        f"runs to its end: {type(error).__name__}: {error}", False, server.log_tail()
                    )
    if options.json:
        result = {"machine": machine(), "parts": report.figures, "failed": report.failed}
        options.json.write_text(json.dumps(result, indent=1, default=float) + "\n")
    print(f"\n{report.checks - len(report.failed)} passed, {len(report.failed)} failed")
    for line in report.failed:
        print(f"  FAIL {line}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
