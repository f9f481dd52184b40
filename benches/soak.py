#!/usr/bin/env python3
"""A server under mixed load for minutes, compared with a model of what it must hold.

    python3 benches/soak.py [--bin target/release/vecdis] [--seconds 600] [--clients 500] [--json FILE]

Each client owns names of its own in one of a few collections and adds, replaces, removes, edits, looks up and searches them, with one
request under way; now and then it connects anew. Meanwhile a checkpoint is taken every 20 seconds, collections are made and dropped, and
removals keep the compaction busy. Every answer is checked against the model; at the end all elements are read back, once more after
kill -9 and a restart.

Prints requests a second, percentiles of the time of a request (of a client that waits its turn among all others), and resident
memory over the run. Exit code 1 when an answer was wrong, or when the median of anonymous memory in the last quarter is more than 5 % above
that of the second. Needs the packages of tests/clients/requirements.txt.
"""

import argparse
import json
import random
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))

from support import Server

COLLECTIONS, DIM, NAMES = 8, 32, 200
CLIENTS_OF_A_THREAD = 25
CHECKPOINT_PERIOD_S, SAMPLE_PERIOD_S = 20.0, 1.0
RECONNECT_SHARE = 0.002
GROWTH_MAX = 1.05
# What a client does, and how often.
OPERATIONS = {"add": 40, "remove": 15, "attributes": 10, "member": 10, "search": 25}


class Client:
    """One connection, and what it has put into the server."""

    def __init__(self, server, number):
        self.server = server
        self.key = f"soak:{number % COLLECTIONS}"
        self.prefix = f"c{number}-"
        self.random = random.Random(number)
        self.model = {}
        self.expected = None
        self.connect()

    def connect(self):
        self.connection = redis.Connection(host="127.0.0.1", port=self.server.port, socket_timeout=120)
        self.connection.connect()

    def send(self):
        """Sends one request."""
        if self.random.random() < RECONNECT_SHARE:
            self.connection.disconnect()
            self.connect()
        name = f"{self.prefix}{self.random.randrange(NAMES)}"
        operation = self.random.choices(list(OPERATIONS), OPERATIONS.values())[0]
        known = self.model.get(name)
        if operation == "add":
            vector = np.array([self.random.gauss(0, 1) for _ in range(DIM)], dtype="<f4").tobytes()
            self.expected = 0 if known else 1
            self.model[name] = [vector, known[1] if known else None]
            words = ("VADD", self.key, "FP32", vector, name)
        elif operation == "remove":
            self.expected = 1 if known else 0
            self.model.pop(name, None)
            words = ("VREM", self.key, name)
        elif operation == "attributes":
            attributes = json.dumps({"n": self.random.randrange(1000)}).encode()
            self.expected = 1 if known else 0
            if known:
                known[1] = attributes
            words = ("VSETATTR", self.key, name, attributes)
        elif operation == "member" or not known:
            self.expected = 1 if known else 0
            words = ("VISMEMBER", self.key, name)
        else:
            # The best match of an element's own vector is that element.
            self.expected = [name.encode()]
            words = ("VSIM", self.key, "FP32", known[0], "COUNT", 1)
        self.words = words
        self.begun = time.perf_counter()
        self.connection.send_command(*words)

    def receive(self):
        """Reads the answer; its time in seconds, and whether it was right."""
        try:
            answer = self.connection.read_response()
        except redis.ResponseError as error:
            answer = error
        time_s = time.perf_counter() - self.begun
        if answer != self.expected:
            print(f"wrong: {self.words[:2]} {self.words[-1]!r:.60}: {answer!r}, not {self.expected!r}")
        return time_s, answer == self.expected


class Load(threading.Thread):
    """Some clients in turn, until the time is over."""

    def __init__(self, clients, end):
        super().__init__()
        self.clients, self.end = clients, end
        self.times_s, self.wrong, self.failure = [], 0, None

    def run(self):
        try:
            while time.monotonic() < self.end and self.wrong < 10:
                for client in self.clients:
                    client.send()
                for client in self.clients:
                    time_s, right = client.receive()
                    self.times_s.append(time_s)
                    self.wrong += not right
        except Exception as error:  # Told at the end, by the main thread.
            self.failure = error


def as_json(attributes):
    """Attributes as a value; redis-py has read them already, or not."""
    return json.loads(attributes) if isinstance(attributes, (bytes, str)) else attributes


def differences(server, clients):
    """How many elements are not as the models say."""
    wrong = 0
    with server.client() as connection:
        sizes = {}
        for client in clients:
            sizes[client.key] = sizes.get(client.key, 0) + len(client.model)
            pipe = connection.pipeline(transaction=False)
            names = [f"{client.prefix}{number}" for number in range(NAMES)]
            for name in names:
                pipe.execute_command("VEMB", client.key, name)
                pipe.execute_command("VGETATTR", client.key, name)
            replies = pipe.execute()
            for name, vector, attributes in zip(names, replies[::2], replies[1::2]):
                held = client.model.get(name)
                if held is None:
                    wrong += vector is not None
                    continue
                expected = struct.unpack(f"<{DIM}f", held[0])
                same = vector is not None and np.allclose(np.array(vector, dtype=float), expected, atol=1e-6)
                wrong += not (same and as_json(attributes) == as_json(held[1]))
        wrong += sum(connection.execute_command("VCARD", key) != size for key, size in sizes.items())
    return wrong


def watch(server, end, samples):
    """Samples memory, takes checkpoints, and makes and drops collections."""
    next_checkpoint = time.monotonic() + CHECKPOINT_PERIOD_S
    with server.client() as connection:
        while time.monotonic() < end:
            samples.append(server.memory_bytes())
            for element in range(50):
                connection.execute_command("VADD", "soak:short", "VALUES", 2, 1, element, f"e{element}")
            connection.delete("soak:short")
            if time.monotonic() >= next_checkpoint:
                connection.bgsave()
                next_checkpoint += CHECKPOINT_PERIOD_S
            time.sleep(SAMPLE_PERIOD_S)
        return connection.info()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = ("--compaction-percentage", 5, "--slowlog-log-slower-than", 100_000)
        with Server(Path(folder) / "data", *settings, program=options.bin) as server:
            clients = [Client(server, number) for number in range(options.clients)]
            end = time.monotonic() + options.seconds
            begun = time.monotonic()
            shares = [clients[at : at + CLIENTS_OF_A_THREAD] for at in range(0, len(clients), CLIENTS_OF_A_THREAD)]
            loads = [Load(share, end) for share in shares]
            for load in loads:
                load.start()
            samples = []
            info = watch(server, end, samples)
            for load in loads:
                load.join()
            elapsed_s = time.monotonic() - begun
            failures = [load.failure for load in loads if load.failure]
            wrong = sum(load.wrong for load in loads)
            unequal = differences(server, clients)
            server.restart_after_kill9()
            unequal_after_kill = differences(server, clients)
    times_s = np.concatenate([load.times_s for load in loads])
    anonymous = [sample["RssAnon"] for sample in samples]
    quarter = max(1, len(anonymous) // 4)
    growth = statistics.median(anonymous[-quarter:]) / statistics.median(anonymous[quarter : 2 * quarter] or anonymous)
    result = {
        "seconds": round(elapsed_s),
        "clients": options.clients,
        "requests": len(times_s),
        "requests_per_s": round(len(times_s) / elapsed_s),
        "p50_ms": round(float(np.percentile(times_s, 50)) * 1e3, 2),
        "p99_ms": round(float(np.percentile(times_s, 99)) * 1e3, 2),
        "max_ms": round(float(times_s.max()) * 1e3, 1),
        "server_errors": {name: value for name, value in info.items() if name.startswith("errorstat")},
        "compactions": info["compactions"],
        "anonymous_mb": [round(bytes_ / 2**20, 1) for bytes_ in (min(anonymous), max(anonymous), anonymous[-1])],
        "growth": round(growth, 3),
        "wrong_answers": wrong,
        "unequal_at_the_end": unequal,
        "unequal_after_kill": unequal_after_kill,
        "failures": [repr(failure) for failure in failures],
    }
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result))
    bad = wrong or unequal or unequal_after_kill or failures or growth > GROWTH_MAX
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
