"""What the client suites and the measurements in benches/ share: a server of one's own, realistic vectors, exact answers.

The server is the release binary, or the one that the environment variable VECDIS_BIN names. It listens on a free port of
127.0.0.1 only and keeps its data in a folder that the caller gives.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PROJECT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
# Longest wait for a started server to answer PING, and for a stopped one to end.
START_MAX_S = 120.0
STOP_MAX_S = 60.0
# Longest wait for one answer.
ANSWER_MAX_S = 300.0
# Time between two looks at a server that starts: small, because it is the resolution of the start-up time.
POLL_S = 0.001
# Two elements whose exact cosines differ by less than this are equally good: scores are f32.
TIE_COSINE = 1e-7


def binary():
    """The server's executable."""
    return Path(os.environ.get("VECDIS_BIN", PROJECT / "target" / "release" / "vecdis")).resolve()


def free_port():
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


class Server:
    """One server process. `folder` holds its data and outlives it; the log of the process is `folder` + ".log"."""

    def __init__(self, folder, *options, program=None, password=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder.with_name(self.folder.name + ".log")
        self.program = program or binary()
        self.password = password
        self.options = [str(option) for option in options]
        if password is not None:
            self.options += ["--requirepass", password]
        self.process = None
        self.port = None
        self.start_s = None

    def start(self):
        """Starts it and waits for the first answer to PING; `start_s` tells how long that took."""
        self.port = free_port()
        args = [
            self.program,
            "--port",
            str(self.port),
            "--bind",
            HOST,
            "--dir",
            str(self.folder),
            *self.options,
        ]
        with open(self.log, "ab") as log:
            begin = time.perf_counter()
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while not self._answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.log_tail()}")
            if time.perf_counter() - begin > START_MAX_S:
                self.kill9()
                raise RuntimeError(f"the server does not answer: {self.log_tail()}")
            time.sleep(POLL_S)
        self.start_s = time.perf_counter() - begin
        return self

    def _answers(self):
        try:
            with socket.create_connection((HOST, self.port), timeout=5) as s:
                login = f'AUTH "{self.password}"\r\n' if self.password else ""
                s.sendall(f"{login}PING\r\n".encode())
                s.shutdown(socket.SHUT_WR)
                return b"+PONG" in b"".join(iter(lambda: s.recv(64), b""))
        except OSError:
            return False

    def log_tail(self, lines=5):
        """The end of its log, on one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " | ".join(text.splitlines()[-lines:])

    def kill9(self):
        """Ends it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_MAX_S)

    def terminate(self, number=signal.SIGTERM):
        """Asks it to end with a signal and gives its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_MAX_S)

    def restart_after_kill9(self):
        """Crash, and start on the same folder."""
        self.kill9()
        return self.start()

    def alive(self):
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def client(self, **options):
        """A redis-py client; `options` are those of redis.Redis. It does not connect again by itself."""
        options.setdefault("socket_timeout", ANSWER_MAX_S)
        options.setdefault("retry", Retry(NoBackoff(), 0))
        if self.password is not None:
            options.setdefault("password", self.password)
        return redis.Redis(host=HOST, port=self.port, **options)

    def memory_bytes(self):
        """Resident memory by kind, and its highest value (VmHWM), in bytes."""
        names = ("VmRSS", "VmHWM", "RssAnon", "RssFile")
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        rows = (line.split(":", 1) for line in status.splitlines() if ":" in line)
        return {name: int(value.split()[0]) * 1024 for name, value in rows if name in names}

    def reset_peak(self):
        """Makes the highest value of resident memory the present one."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def files(self):
        """Number of files in the data folder, and their bytes."""
        sizes = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        return len(sizes), sum(sizes)

    def __enter__(self):
        return self if self.alive() else self.start()

    def __exit__(self, *_):
        self.kill9()


def clustered(count, dim, seed, clusters=64):
    """f32 [count, dim] as embeddings are: clusters of uneven size in a subspace, with noise; lengths differ.

    The clusters depend on `dim` alone, so that vectors of two seeds belong together.
    """
    shape = np.random.default_rng(dim)
    rank = min(24, dim)
    basis = shape.standard_normal((rank, dim)) / np.sqrt(dim)
    centres = shape.standard_normal((clusters, rank))
    weights = 1.0 / (np.arange(clusters) + 5.0)

    draw = np.random.default_rng(seed)
    chosen = draw.choice(clusters, size=count, p=weights / weights.sum())
    inner = centres[chosen] + 0.5 * draw.standard_normal((count, rank))
    vectors = inner @ basis + 0.05 * draw.standard_normal((count, dim)) / np.sqrt(dim)
    return (vectors * draw.uniform(0.5, 4.0, (count, 1))).astype(np.float32)


def unit(vectors):
    """The vectors in f64 with length 1; zero vectors stay."""
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths == 0, 1, lengths)


def exact_top(base, queries, k):
    """int [queries, k]: rows of the k highest cosines of each query, best first, computed in f64."""
    cosines = unit(queries) @ unit(base).T
    best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(cosines, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def recall(base, queries, truth, answers):
    """Mean share of the k true rows that were answered. A row as near as the k-th true one (to f32's precision) counts."""
    k = truth.shape[1]
    base, queries = unit(base), unit(queries)
    found = 0
    for query, true_rows, rows in zip(queries, truth, answers):
        bar = (base[true_rows] @ query).min() - TIE_COSINE
        rows = list(dict.fromkeys(rows))[:k]
        found += int((base[rows] @ query >= bar).sum()) if rows else 0
    return found / (k * len(truth))


def name(row):
    """The element's name for a row."""
    return f"e{row}"


def attribute(row):
    """The attribute that tests set on the element of a row."""
    return f'{{"row":{row},"third":{row % 3},"tag":"t{row % 7}"}}'


def load(client, key, vectors, *, first=0, batch=500, transaction=False, attributes=True):
    """VADD FP32 of all rows in pipelines of `batch`; gives the replies, one for each."""
    replies = []
    for begin in range(0, len(vectors), batch):
        with client.pipeline(transaction=transaction) as pipe:
            for offset in range(begin, min(begin + batch, len(vectors))):
                row = first + offset
                extra = ("SETATTR", attribute(row)) if attributes else ()
                pipe.execute_command("VADD", key, "FP32", vectors[offset].tobytes(), name(row), *extra)
            replies += pipe.execute()
    return replies


def search(client, key, queries, count=10, *options, batch=100):
    """Rows answered by VSIM for each query, best first."""
    rows = []
    for begin in range(0, len(queries), batch):
        with client.pipeline(transaction=False) as pipe:
            for query in queries[begin : begin + batch]:
                pipe.execute_command("VSIM", key, "FP32", query.tobytes(), "COUNT", count, *options)
            rows += [[int(element[1:]) for element in answer] for answer in pipe.execute()]
    return rows


def contents(client, key, count, batch=500):
    """(f32 [count, dim], list of attributes) of the elements 0..count: what must be equal after a restart.

    VEMB's doubles are f32s widened, so nothing is lost here.
    """
    vectors, attributes = [], []
    for begin in range(0, count, batch):
        names = [name(row) for row in range(begin, min(begin + batch, count))]
        with client.pipeline(transaction=False) as pipe:
            for element in names:
                pipe.execute_command("VEMB", key, element)
            for element in names:
                pipe.execute_command("VGETATTR", key, element)
            answers = pipe.execute()
        vectors.append(np.array(answers[: len(names)], dtype=np.float64).astype(np.float32))
        attributes += answers[len(names) :]
    return np.concatenate(vectors), attributes


def same(before, after):
    """Whether two results of `contents` are equal, bit for bit."""
    return before[0].tobytes() == after[0].tobytes() and before[1] == after[1]


def info_of(client, key):
    """VINFO as a dictionary of text to value, whatever the protocol."""
    answer = client.execute_command("VINFO", key)
    if not isinstance(answer, dict):
        answer = dict(zip(answer[::2], answer[1::2]))
    text = lambda value: value.decode() if isinstance(value, bytes) else value
    return {text(field): text(value) for field, value in answer.items()}
