#!/usr/bin/env python3
"""What an idle server takes: size of the program, time to start, memory; beside redis-server's.

    python3 benches/footprint.py [--bin target/release/vecdis] [--redis redis-server] [--build]

Each is started ten times on an empty folder; figures are medians. --build also measures a build from nothing in a folder of its own
(cargo build --release; the crates must have been fetched). Needs the packages of tests/clients/requirements.txt.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))

from support import PROJECT, Server, binary

ROUNDS = 10
# Time for what begins after the start to settle.
SETTLE_S = 0.5


def measure(program, options):
    """Medians of start-up time in ms, and of resident and anonymous memory in MB."""
    starts_ms, resident, anonymous = [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "data", *options, program=program) as server:
            starts_ms.append(server.start_s * 1e3)
            time.sleep(SETTLE_S)
            memory = server.memory_bytes()
            resident.append(memory["VmRSS"] / 2**20)
            anonymous.append(memory["RssAnon"] / 2**20)
    return [round(statistics.median(values), 1) for values in (starts_ms, resident, anonymous)]


def build_s():
    """Seconds of a release build from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        environment = dict(os.environ, CARGO_TARGET_DIR=folder)
        subprocess.run(["cargo", "build", "--release", "--bin", "vecdis", "--quiet"], cwd=PROJECT, env=environment, check=True)
        return round(time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=binary())
    parser.add_argument("--redis", default="redis-server")
    parser.add_argument("--build", action="store_true")
    options = parser.parse_args()
    programs = [("vecdis", options.bin, ())]
    if redis := shutil.which(options.redis):
        programs.append(("redis-server", Path(redis), ("--save", "", "--appendonly", "yes")))
    print(f"{'':14}{'size MB':>10}{'start ms':>10}{'RSS MB':>10}{'anonymous MB':>14}")
    for name, program, settings in programs:
        size_mb = round(program.resolve().stat().st_size / 2**20, 1)
        start_ms, resident_mb, anonymous_mb = measure(program, settings)
        print(f"{name:14}{size_mb:>10}{start_ms:>10}{resident_mb:>10}{anonymous_mb:>14}")
    if options.build:
        print(f"build from nothing: {build_s()} s")


if __name__ == "__main__":
    main()
