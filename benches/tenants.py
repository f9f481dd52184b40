#!/usr/bin/env python3
"""What many tenants cost: users with an API key and a few vectors each.

    python3 benches/tenants.py [--bin target/release/vecdis] [--users 10000] [--vectors 100] [--dim 64] [--seconds 3]

Measures start-up, memory and disk for each user; what AUTH by a key costs; how fast one tenant is while another is held at its limit, and
while others guess passwords, each in proportion to the same tenant alone in the same run. Needs the packages of
tests/clients/requirements.txt. Starts a server of its own on a free port of 127.0.0.1.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))

from support import Server
from wire import Connection, encode

PIPELINE = 200
# Pauses and rounds of the comparisons: alone and beside others in turn, so that drift of the machine meets both.
ROUNDS = 3
AUTHS = 20_000
FLOODERS = 8


def pipelined(connection, requests):
    """Sends requests in one go and gives their replies."""
    connection.send(b"".join(encode([part if isinstance(part, bytes) else str(part).encode() for part in r]) for r in requests))
    return [connection.read() for _ in requests]


def fill(server, users, vectors, dim):
    """Makes the users, each with its vectors; gives their keys."""
    admin = Connection(server.port)
    keys = []
    for begin in range(0, users, PIPELINE):
        names = range(begin, min(begin + PIPELINE, users))
        keys += [reply.value.decode() for reply in pipelined(admin, [["APIKEY", "CREATE", f"user{n}"] for n in names])]
    rng = np.random.default_rng(1)
    for key in keys:
        connection = Connection(server.port)
        blob = rng.standard_normal((vectors, dim)).astype("<f4").tobytes()
        names = [f"e{n}" for n in range(vectors)]
        replies = pipelined(connection, [["AUTH", key], ["VMADD", "docs", vectors, "DIM", dim, "FP32", blob, *names]])
        assert not any(reply.is_error() for reply in replies), replies
        connection.close()
    admin.close()
    return keys


def info(server, field):
    admin = Connection(server.port)
    text = admin.call("INFO").value.decode()
    admin.close()
    return int(next(line for line in text.splitlines() if line.startswith(field + ":")).split(":")[1])


def searches_per_s(port, key, dim, seconds):
    """Searches of one connection, pipelined."""
    connection = Connection(port)
    connection.call("AUTH", key)
    query = np.ones(dim, dtype="<f4").tobytes()
    requests = [["VSIM", "docs", "FP32", query, "COUNT", 10]] * 50
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        done += sum(not reply.is_error() for reply in pipelined(connection, requests))
    rate = done / (time.perf_counter() - begin)
    connection.close()
    return rate


def held(port, key, stop):
    """A tenant that sends as many commands as its limit lets through, and honours what it is told to wait."""
    connection = Connection(port)
    connection.call("AUTH", key)
    while not stop.is_set():
        reply = connection.call("VCARD", "docs")
        if reply.is_error():
            time.sleep(int(reply.value.split()[-2]) / 1000)


def guess(port, stop):
    """Somebody who guesses, on a new connection each time."""
    while not stop.is_set():
        try:
            connection = Connection(port)
            connection.send(encode([b"AUTH", b"user1", b"wrong"]))
            connection.read()
            connection.close()
        except OSError:
            pass


def beside(target, arguments, count, measure):
    """What is measured while that many processes do something else."""
    stop = multiprocessing.Event()
    others = [multiprocessing.Process(target=target, args=(*arguments, stop), daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    time.sleep(0.3)
    measured = measure()
    stop.set()
    for other in others:
        other.join(5)
        other.kill()
    return measured


def compared(alone, together):
    """The medians of rounds in turn, and their ratio."""
    pairs = [(alone(), together()) for _ in range(ROUNDS)]
    a, b = (float(np.median(side)) for side in zip(*pairs))
    return {"alone_per_s": round(a), "beside_per_s": round(b), "ratio": round(b / a, 3)}


def auth_us(server, key, command):
    """CPU time of the server and wall time of one command in a long pipeline."""

    def cpu_s():
        fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    connection = Connection(server.port)
    cpu, wall = cpu_s(), time.perf_counter()
    for _ in range(AUTHS // PIPELINE):
        pipelined(connection, [command] * PIPELINE)
    wall, cpu = time.perf_counter() - wall, cpu_s() - cpu
    connection.close()
    return {"wall_us": round(wall / AUTHS * 1e6, 2), "server_cpu_us": round(cpu / AUTHS * 1e6, 2)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin")
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--vectors", type=int, default=100)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    found = {"users": options.users, "vectors": options.vectors, "dim": options.dim}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        server = Server(data, program=options.bin).start()
        empty = info(server, "used_memory")
        keys = fill(server, options.users, options.vectors, options.dim)
        found["memory_per_user_bytes"] = (info(server, "used_memory") - empty) // options.users
        found["vector_bytes_per_user"] = options.vectors * options.dim * 5
        server.restart_after_kill9()
        found["start_from_log_s"] = round(server.start_s, 3)
        admin = Connection(server.port)
        admin.call("SAVE")
        server.restart_after_kill9()
        found["start_from_checkpoint_s"] = round(server.start_s, 3)
        files = [path for path in data.rglob("*") if path.is_file()]
        found["files"] = len(files)
        found["disk_per_user_bytes"] = sum(path.stat().st_size for path in files) // options.users
        found["auth"] = auth_us(server, keys[0], ["AUTH", keys[0]])
        found["echo"] = auth_us(server, keys[0], ["ECHO", "x"])
        admin = Connection(server.port)
        admin.call("APIKEY", "LIMIT", "user0", "RPS", 100)
        alone = lambda: searches_per_s(server.port, keys[1], options.dim, options.seconds)
        found["beside_a_tenant_at_its_limit"] = compared(alone, lambda: beside(held, (server.port, keys[0]), 1, alone))
        found["beside_a_flood_of_wrong_passwords"] = compared(alone, lambda: beside(guess, (server.port,), FLOODERS, alone))
        server.kill9()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
