"""A load generator for Redis-protocol servers that costs little: requests encoded beforehand, raw sockets, epoll.

One process and one thread, so that client and server can share a small machine and the server is what is measured.
"""

import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

import hiredis
import numpy as np

HOST = "127.0.0.1"
READ_BYTES = 1 << 18
# Longest silence of a server that owes answers.
SILENCE_MAX_S = 120.0


def encode(*words):
    """A request as bytes: an array of bulk strings. Words are bytes, text or numbers."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


@dataclass
class Run:
    """What a run gave. `answers` has one entry for each request (the last one, when requests were repeated)."""

    answers: list
    latencies_s: list = field(default_factory=list)
    elapsed_s: float = 0.0

    @property
    def count(self):
        """Requests answered."""
        return len(self.latencies_s)

    @property
    def rate(self):
        """Requests answered in a second."""
        return self.count / self.elapsed_s

    def percentile_ms(self, percent):
        """Latency from sending to answer. In a pipeline the wait for the requests before it counts."""
        return float(np.percentile(self.latencies_s, percent) * 1e3)


class Connection:
    """One socket and the requests that wait for answers on it, oldest first."""

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = hiredis.Reader()
        self.waiting = deque()

    def send(self, requests, indexes):
        """Sends some of the requests at once. Their answers must fit the socket buffers: we do not read meanwhile."""
        now = time.perf_counter()
        self.waiting.extend((index, now) for index in indexes)
        self.socket.sendall(b"".join(requests[index] for index in indexes))

    def receive(self, run):
        """Takes the answers that are there."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.reader.feed(data)
        now = time.perf_counter()
        while (answer := self.reader.gets()) is not False:
            if isinstance(answer, hiredis.ReplyError):
                raise answer
            index, sent = self.waiting.popleft()
            run.answers[index] = answer
            run.latencies_s.append(now - sent)


class Source:
    """Which request comes next: each once, or round and round until `duration_s` is over."""

    def __init__(self, count, duration_s):
        self.count = count
        self.next = 0
        self.stop = time.perf_counter() + duration_s if duration_s else None

    def take(self, wanted):
        """Indexes of the next requests, at most `wanted`."""
        if self.stop is None:
            wanted = min(wanted, self.count - self.next)
        elif time.perf_counter() >= self.stop:
            return []
        first, self.next = self.next, self.next + wanted
        return [index % self.count for index in range(first, first + wanted)]


def drive(port, requests, *, connections=1, depth=1, duration_s=None):
    """Sends requests made by `encode`, on each connection up to `depth` without waiting for the answers. Gives a Run.

    Each request goes once, or round and round for `duration_s`. A pipeline is filled up when half of it is answered, as
    clients that send batches do. Raises the first error that the server answers.
    """
    opened = {c.socket.fileno(): c for c in (Connection(port) for _ in range(connections))}
    run = Run([None] * len(requests))
    poll = select.epoll()
    try:
        for number in opened:
            poll.register(number, select.EPOLLIN)
        begin = time.perf_counter()
        source = Source(len(requests), duration_s)
        for connection in opened.values():
            connection.send(requests, source.take(depth))
        while any(connection.waiting for connection in opened.values()):
            ready = poll.poll(SILENCE_MAX_S)
            if not ready:
                raise TimeoutError("the server does not answer")
            for number, _ in ready:
                connection = opened[number]
                connection.receive(run)
                if len(connection.waiting) <= depth // 2:
                    connection.send(requests, source.take(depth - len(connection.waiting)))
        run.elapsed_s = time.perf_counter() - begin
    finally:
        poll.close()
        for connection in opened.values():
            connection.socket.close()
    return run
