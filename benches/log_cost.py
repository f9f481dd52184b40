#!/usr/bin/env python3
"""What the append log costs and how quickly it is replayed, over loopback.

    python3 benches/log_cost.py [--rows 200000] [--rounds 5] [--bin target/release/vecdis] [--json FILE]

Loads --rows x 128 by VADD FP32 on one connection, pipeline 100, into servers with `appendonly no`, `appendfsync
everysec` and `always`, in turn, round after round; shows the medians, the cost against `no` of the median of each
round's ratio, and the server's CPU time of a VADD. Then starts a server whose whole data is its log, after a kill -9.
Exit code 1 when everysec costs more than 15 %. Needs the packages of tests/clients/requirements.txt.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))

from acceptance import machine
from compare_redis import PIPELINE, Peer, vadds
from support import Server, clustered

DIM = 128
KEY = "set"
EVERYSEC_COST_MAX = 0.15
# The log stays as it is: no checkpoint while a round runs.
GROW = ("--auto-aof-rewrite-percentage", "0")
POLICIES = {
    "no log": ("--appendonly", "no"),
    "everysec": ("--appendfsync", "everysec"),
    "always": ("--appendfsync", "always"),
}


def load(folder, options, requests, binary):
    """(rate, CPU microseconds of a VADD) of a fresh server."""
    with Server(folder, *options, *GROW, program=binary) as server:
        run = Peer("Vecdis", server.port).drive(requests, depth=PIPELINE)
        return run.rate, run.cpu_us


def replay(folder, requests, binary):
    """(seconds from the start of the process until all is there, bytes of the log's files)."""
    server = Server(folder, *POLICIES["everysec"], *GROW, program=binary).start()
    try:
        Peer("Vecdis", server.port).drive(requests, depth=PIPELINE)
        log_bytes = sum(path.stat().st_size for path in server.folder.glob("log-*"))
        server.kill9()
        begin = time.perf_counter()
        server.start()
        client = server.client()
        while client.info("persistence").get("loading"):
            time.sleep(0.001)
        elapsed_s = time.perf_counter() - begin
        if client.execute_command("VCARD", KEY) != len(requests):
            raise RuntimeError("elements are missing after the start")
        return elapsed_s, log_bytes
    finally:
        server.kill9()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000, help="vectors of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the policies")
    parser.add_argument("--bin", type=lambda text: Path(text).resolve(), help="the server's executable")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    requests = vadds(KEY, clustered(options.rows, DIM, 1))
    figures = {"machine": machine()}
    print(figures["machine"])
    with tempfile.TemporaryDirectory(prefix="vecdis-log-") as folder:
        folder = Path(folder)
        rounds = {policy: [] for policy in POLICIES}
        for number in range(options.rounds):
            for policy, words in POLICIES.items():
                place = folder / f"{number}-{policy.replace(' ', '-')}"
                rounds[policy].append(load(place, words, requests, options.bin))
        for policy, runs in rounds.items():
            rate, cpu_us = (statistics.median(run[place] for run in runs) for place in (0, 1))
            cost = 1 - statistics.median(run[0] / base[0] for run, base in zip(runs, rounds["no log"]))
            figures[policy] = {"rate": rate, "cpu_us": cpu_us, "cost": cost}
            print(f"{policy:10s} {rate:10,.0f} VADD/s  {cpu_us:6.2f} us CPU  {cost:+7.1%} against no log")
        elapsed_s, log_bytes = replay(folder / "replay", requests, options.bin)
    figures["replay"] = {"elapsed_s": elapsed_s, "bytes": log_bytes}
    rate, megabytes = options.rows / elapsed_s, log_bytes / elapsed_s / 1e6
    print(f"replay     {rate:10,.0f} records/s  {megabytes:6.0f} MB/s  ({elapsed_s:.2f} s, {log_bytes / 1e6:.0f} MB)")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if figures["everysec"]["cost"] > EVERYSEC_COST_MAX else 0


if __name__ == "__main__":
    sys.exit(main())
