#!/usr/bin/env python3
"""What hostile requests cost the server: resident memory before, at its peak and after each of them, and whether it lives.

    python3 benches/hostile.py [--bin target/release/vecdis] [--json FILE] [--commands 1000000]

Needs the packages of tests/clients/requirements.txt. Starts a server of its own on a free port of 127.0.0.1.
Exit code 1 when the server ends, stops answering, or takes more memory than a case allows.
"""

import argparse
import json
import select
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "clients"))

from support import HOST, Server, clustered, load

MB = 1 << 20
# Memory that a case may take at its peak, and that may be left when its connections are closed.
PEAK_MAX_BYTES = 64 * MB
# The same where answers wait for a client that does not read: its output may grow to 256 MB.
UNREAD_PEAK_MAX_BYTES = 320 * MB
# A transaction queues its commands, to a limit of 1 GB: 1e6 short ones must cost far less.
QUEUED_PEAK_MAX_BYTES = 512 * MB
# The allocator keeps some of what was freed for later use; that does not add up when cases are repeated.
LEFT_MAX_BYTES = 128 * MB
# A sender gives up when the server has taken nothing for so long.
STALL_S = 3.0
CASE_MAX_S = 120.0
SETTLE_S = 0.5
# The slow reader takes so much, so often.
SLOW_READ_BYTES = 16 * 1024
SLOW_PAUSE_S = 0.005
ANSWER_MAX_S = 30.0
# How often the long pipelines are repeated.
REPEATS = 4


def connect(server):
    return socket.create_connection((HOST, server.port), timeout=ANSWER_MAX_S)


def send(sock, data):
    """Sends as much as the server takes; gives the bytes sent. A closed connection or a stall ends it."""
    view, sent = memoryview(data), 0
    sock.setblocking(False)
    end = time.monotonic() + CASE_MAX_S
    try:
        while sent < len(view) and time.monotonic() < end:
            if not select.select([], [sock], [], STALL_S)[1]:
                break
            sent += sock.send(view[sent : sent + 256 * 1024])
    except OSError:
        pass
    finally:
        sock.settimeout(ANSWER_MAX_S)
    return sent


def outcome(sock):
    """What the server says first, and whether it closed the connection."""
    sock.settimeout(2)
    said = b""
    try:
        while block := sock.recv(65536):
            said = (said + block)[:200]
        closed = True
    except TimeoutError:
        closed = False
    except OSError:
        closed = True
    line = said.split(b"\r\n")[0].decode(errors="replace")
    return f"{line or 'no answer'}, {'closed' if closed else 'kept open'}"


def one(data):
    """A case: these bytes on one connection."""

    def case(server):
        with connect(server) as sock:
            send(sock, data)
            return outcome(sock)

    return case


def many(connections, data):
    """A case: the same begun request on many connections at once, which stay open while memory is looked at."""

    def case(server):
        socks = [connect(server) for _ in range(connections)]
        try:
            for sock in socks:
                send(sock, data)
            time.sleep(SETTLE_S)
            return f"{connections} connections"
        finally:
            for sock in socks:
                sock.close()

    return case


def slow_reader(commands, command=b"PING\r\n", answer_bytes=len("+PONG\r\n")):
    """A case: one pipeline, its answers read in small pieces with pauses while it is still being sent."""

    def case(server):
        request, want, got, sent = memoryview(command * commands), commands * answer_bytes, 0, 0
        with connect(server) as sock:
            sock.setblocking(False)
            end = time.monotonic() + CASE_MAX_S
            while got < want and time.monotonic() < end:
                try:
                    sent += sock.send(request[sent : sent + 256 * 1024])
                except BlockingIOError:
                    pass
                try:
                    block = sock.recv(SLOW_READ_BYTES)
                    if not block:
                        break
                    got += len(block)
                except BlockingIOError:
                    pass
                time.sleep(SLOW_PAUSE_S if sent < len(request) else SLOW_PAUSE_S / 5)
        answer = f"{got // answer_bytes} of {commands} answers read"
        if got != want:
            raise AssertionError(answer)
        return answer

    return case


def never_reads(commands, command):
    """A case: one pipeline whose answers nobody reads."""

    def case(server):
        with connect(server) as sock:
            sent = send(sock, command * commands)
            time.sleep(SETTLE_S)
            return f"server took {sent // len(command)} of {commands} commands"

    return case


def queued(commands):
    """A case: a transaction that is never executed, and whose answers are read."""

    def case(server):
        data = memoryview(b"MULTI\r\n" + b"VCARD k\r\n" * commands)
        answer_bytes = len("+QUEUED\r\n")
        want, got, sent = len("+OK\r\n") + commands * answer_bytes, 0, 0
        with connect(server) as sock:
            sock.setblocking(False)
            end = time.monotonic() + CASE_MAX_S
            while got < want and time.monotonic() < end:
                readable, writable, _ = select.select([sock], [sock] if sent < len(data) else [], [], STALL_S)
                if not readable and not writable:
                    break
                if writable:
                    sent += sock.send(data[sent : sent + 256 * 1024])
                if readable:
                    block = sock.recv(1 << 18)
                    if not block:
                        break
                    got += len(block)
            return f"{got // answer_bytes} of {commands} answers read"

    return case


def again(rows, times):
    """A case: others, repeatedly; what each leaves would add up."""

    def case(server):
        for _ in range(times):
            for _, _, other in rows:
                other(server)
        return f"{times} times"

    return case


def cases(commands):
    """(name, memory allowed at the peak, case) of each."""
    arrays = lambda *parts: b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
    framing = [
        ("arrays nested 1,000,000 deep", one(b"*1\r\n" * 1_000_000)),
        ("argument that is an array", one(b"*2\r\n*1\r\n$4\r\nPING\r\n$1\r\na\r\n")),
        ("array of 2,147,483,648", one(b"*2147483648\r\n")),
        ("array of 99999999999999999999", one(b"*99999999999999999999\r\n")),
        ("array of -2", one(b"*-2\r\nPING\r\n")),
        ("bulk of 9,999,999,999", one(b"*2\r\n$4\r\nECHO\r\n$9999999999\r\n")),
        ("bulk of -1", one(b"*2\r\n$4\r\nECHO\r\n$-1\r\n")),
        ("bulk without its end of line", one(b"*2\r\n$4\r\nECHO\r\n$1\r\naXY*1\r\n$4\r\nPING\r\n")),
        ("inline line of 16 MB without an end", one(b"A" * (16 * MB))),
        ("inline line with open quotes", one(b'ECHO "abc\r\n')),
        ("1 MB of random bytes", one(bytes((i * 2654435761 >> 13) & 255 for i in range(MB)))),
        ("1,048,576 empty arguments", one(b"*1048576\r\n" + b"$0\r\n\r\n" * 1_048_576)),
        ("500 x announced 1,048,576 arguments of 512 MB", many(500, b"*1048576\r\n$536870912\r\nabc")),
        ("500 x half a VADD", many(500, b"*5\r\n$4\r\nVADD\r\n$1\r\nk\r\n$4\r\nFP32\r\n$4000\r\nabc")),
        ("500 x half a line", many(500, b"VADD k VALUES 3 1 2")),
        ("64 MB of blank lines", one(b"\r\n" * (32 * MB) + b"PING\r\n")),
        ("64 MB of bare line ends", one(b"\n" * (64 * MB) + b"PING\r\n")),
        ("32 MB of empty arrays", one(b"*0\r\n" * (8 * MB) + b"PING\r\n")),
        ("VSIM COUNT 2^62", one(arrays(b"VSIM", b"k", b"ELE", b"e0", b"COUNT", b"4611686018427387904"))),
        ("VADD VALUES of 2^62", one(arrays(b"VADD", b"k", b"VALUES", b"4611686018427387904", b"1", b"e"))),
        (
            "FILTER of 100,000 parentheses",
            one(arrays(b"VSIM", b"k", b"ELE", b"e0", b"FILTER", b"(" * 100_000)),
        ),
    ]
    rows = [(name, PEAK_MAX_BYTES, case) for name, case in framing]
    long = [
        (f"pipeline of {commands:,} PING, read slowly", UNREAD_PEAK_MAX_BYTES, slow_reader(commands)),
        (
            f"pipeline of {commands:,} PING, never read",
            UNREAD_PEAK_MAX_BYTES,
            never_reads(commands, b"PING\r\n"),
        ),
        (
            f"pipeline of {commands:,} VEMB, never read",
            UNREAD_PEAK_MAX_BYTES,
            never_reads(commands, b"VEMB k e1\r\n"),
        ),
        (
            f"pipeline of {commands:,} VSIM, never read",
            UNREAD_PEAK_MAX_BYTES,
            never_reads(commands, b"VSIM k ELE e1 COUNT 1000 WITHSCORES\r\n"),
        ),
        (f"{commands:,} commands queued in MULTI, connection lost", QUEUED_PEAK_MAX_BYTES, queued(commands)),
    ]
    repeated = ("the long pipelines again", QUEUED_PEAK_MAX_BYTES, again(long, REPEATS))
    return [*rows, *long, repeated]


def answers(server):
    """Whether a new connection gets an answer."""
    try:
        with connect(server) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(16) == b"+PONG\r\n"
    except OSError:
        return False


def measure(server, case, peak_max):
    """One row of the report. Memory is that of the whole process; a case is charged with what it adds."""
    before = server.memory_bytes()["VmRSS"]
    server.reset_peak()
    begin = time.monotonic()
    try:
        said, fine = case(server), True
    except (AssertionError, OSError) as error:
        said, fine = f"{type(error).__name__}: {error}", False
    seconds = time.monotonic() - begin
    alive = server.alive() and answers(server)
    row = {"seconds": round(seconds, 1), "before_bytes": before, "alive": alive, "said": said}
    if not alive:
        return row | {"peak_bytes": None, "after_bytes": None, "passed": False}
    peak = server.memory_bytes()["VmHWM"]
    time.sleep(SETTLE_S)
    after = server.memory_bytes()["VmRSS"]
    passed = fine and peak - before <= peak_max and after - before <= LEFT_MAX_BYTES
    return row | {"peak_bytes": peak, "after_bytes": after, "passed": passed}


def run(server, commands=1_000_000, show=print):
    """All cases one after another; a server that ended is started anew. Gives name -> row."""
    report = {}
    show(f"{'hostile request':54s} {'before':>7s} {'peak':>7s} {'after':>7s}  MB")
    with server.client() as client:
        load(client, "k", clustered(2_000, 384, seed=1))
    for name, peak_max, case in cases(commands):
        row = report[name] = measure(server, case, peak_max)
        sizes = [row[f"{when}_bytes"] for when in ("before", "peak", "after")]
        text = " ".join(f"{'-' if size is None else round(size / MB, 1):>7}" for size in sizes)
        show(
            f"{name:54s} {text}  {'ok  ' if row['passed'] else 'FAIL'} {row['seconds']:5.1f} s  {row['said']}"
        )
        if not row["alive"]:
            show(f"  the server does not answer: {server.log_tail()}")
            server.restart_after_kill9()
    return report


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bin", type=lambda text: Path(text).resolve(), help="the server's executable")
    parser.add_argument("--commands", type=int, default=1_000_000, help="length of the pipelines")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vecdis-hostile-") as folder:
        with Server(Path(folder) / "data", program=options.bin) as server:
            report = run(server, options.commands)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    failed = [name for name, row in report.items() if not row["passed"]]
    print(f"{len(report) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
