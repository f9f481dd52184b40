"""Compares Vecdis with a real Redis 8, reply by reply, on commands drawn from a seed.

    python tests/clients/differential.py --redis-port 7000 [--seed 1] [--commands 20000]

Both servers get the same commands over raw sockets, with RESP2 and RESP3. Replies must be equal in type and value but for the
table of deliberate differences (differential_table.py). It empties the Redis it is given. Other differences are
reduced to the fewest commands that still show them. The exit code is 0 if there are none.
"""

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from differential_commands import Command, Generator
from differential_compare import Case, Session, compare
from differential_table import allowed
from support import Server
from wire import Connection, Reply, encode, quoted, show, word

# Commands from one empty state on.
EPISODE_COMMANDS = 250
# Kinds of differences that are reduced and shown.
SHOWN_MAX = 80
# What reducing one difference may take: runs of the sequence, and time.
REDUCING_RUNS_MAX = 400
REDUCING_MAX_S = 10.0
# Longest word of a command that is shown whole.
WORD_CHARACTERS = 200
CLIENTS = 2
CLOSED = Reply("closed", None)
# Replies to HELLO in a stream: the version and the connection's number.
OWN = re.compile(rb"(version\r\n\$5\r\n|id\r\n:)[0-9.]+")


@dataclass
class Finding:
    """A difference that no row of the table allows."""

    history: list
    command: Command
    vecdis: object
    redis: object
    reason: str

    def kind(self):
        """Findings of the same kind have one cause, most likely."""
        plain = lambda r: re.sub(rb"[0-9]+|near: .*|option .*|'[^']*'", b"", r.value[:60]) if r.is_error() else r.kind
        words = (
            tuple(a.upper() for a in self.command.arguments[:2])
            if self.command.name in (b"CLIENT", b"COMMAND", b"HELLO")
            else ()
        )
        stream = self.command.arguments[0] if self.command.how == "stream" else self.command.name
        return self.command.how, stream, words, self.reason, plain(self.vecdis), plain(self.redis)


class Differential:
    """Two servers side by side."""

    def __init__(self, vecdis_port, redis_port):
        self.ports = vecdis_port, redis_port
        self.connections = []
        self.probes = ()
        self.begin()

    def begin(self):
        """Both servers empty, all connections new."""
        for connection in [*(c for pair in self.connections for c in pair), *self.probes]:
            connection.close()
        self.connections = [tuple(map(Connection, self.ports)) for _ in range(CLIENTS)]
        self.probes = tuple(map(Connection, self.ports))
        for probe in self.probes:
            probe.call("FLUSHALL")
            probe.call("HELLO", "3")
        self.session = Session(self.probes)

    # ---- sending ----

    def send(self, commands):
        """Both servers' replies to commands that are sent together: a list of (command, vecdis, redis)."""
        first = commands[0]
        if first.how == "pause":
            time.sleep(int(first.arguments[0]) / 1000)
            return []
        if first.how == "stream":
            return [(first, *(self.stream(port, first.arguments[0]) for port in self.ports))]
        if first.how == "scan":
            return [(first, *(self.scan(connection, first.arguments) for connection in self.connections[first.client]))]
        for command in commands:
            self.session.saw(command.arguments)
        data = b"".join(as_inline(c.arguments) if c.how == "inline" else encode(c.arguments) for c in commands)
        replies = []
        for connection in self.connections[first.client]:
            try:
                connection.send(data)
                replies.append([connection.read() for _ in commands])
            except (OSError, ValueError):
                replies.append([CLOSED for _ in commands])
        return list(zip(commands, *replies))

    def stream(self, port, data):
        connection = Connection(port)
        try:
            return Reply("bytes", OWN.sub(rb"\1", connection.rest_of_stream(data)))
        except TimeoutError:
            return Reply("bytes", b"(no close)")
        finally:
            connection.close()

    def scan(self, connection, options):
        """All keys of a whole SCAN in order, or its error."""
        cursor, keys = b"0", []
        while True:
            reply = connection.call("SCAN", cursor, *options)
            if reply.kind != "*" or [part.kind for part in reply.value] != ["$", "*"]:
                return reply
            cursor = reply.value[0].value
            keys += reply.value[1].value
            if cursor == b"0":
                return Reply("*", sorted(set(keys)))

    # ---- judging ----

    def judge(self, command, vecdis, redis, settled):
        """(row that allows it, reason) or (None, None) if equal, (None, reason) if different."""
        client, queued = command.client, self.session.queued
        case = Case(command.arguments, vecdis, redis, self.session, settled=settled)
        body = queued.get(client)
        if command.how == "scan":
            return (None, None) if vecdis == redis else (None, "reply")
        if command.how == "stream":
            return (None, None) if vecdis == redis else (allowed(case), "bytes")
        if body is not None and case.name == b"EXEC" and case.both("*") and vecdis.value is not None is not redis.value:
            queued[client] = None
            return self.judge_body(body, vecdis, redis)
        row, reason = self.judge_case(case, client)
        self.follow_transaction(case, command, row)
        return row, reason

    def judge_case(self, case, client):
        reason = compare(case)
        if reason is None:
            return None, None
        case.reason = reason
        if case.name == b"EXEC" and self.session.disagreed.get(client):
            case.reason = "queue"
        return allowed(case), reason

    def judge_body(self, body, vecdis, redis):
        """EXEC's replies, each as that of its command."""
        if len(vecdis.value) != len(body) or len(redis.value) != len(body):
            return None, "number of replies"
        found = None, None
        for arguments, ours, theirs in zip(body, vecdis.value, redis.value):
            row, reason = self.judge_case(Case(arguments, ours, theirs, self.session, settled=False), None)
            if reason and not row:
                return None, f"{arguments[0].decode(errors='replace').upper()} in EXEC: {reason}"
            if row:
                found = row, reason
                if row.diverges:
                    break
        return found

    def follow_transaction(self, case, command, row):
        """Keeps track of MULTI and what is queued."""
        queued, client = self.session.queued, command.client
        ok = case.vecdis == case.redis == ("+", b"OK")
        if queued.get(client) is None and case.vecdis == case.redis:
            self.session.answered(case.arguments, client, case.vecdis)
        if case.name == b"MULTI" and ok:
            queued[client] = []
            self.session.disagreed[client] = False
        elif case.name in (b"EXEC", b"DISCARD", b"RESET"):
            queued[client] = None
        elif queued.get(client) is not None:
            if row and row.name in ("arity-when-queued", "hello-in-multi"):
                self.session.disagreed[client] = True
            elif case.vecdis == case.redis == ("+", b"QUEUED"):
                queued[client].append(case.arguments)

    def run(self, commands):
        """Runs commands one by one (joined ones together); yields (command, vecdis, redis, row, reason)."""
        together = []
        for command in commands:
            together.append(command)
            if command.joined:
                continue
            settled = len(together) == 1
            for sent, vecdis, redis in self.send(together):
                row, reason = self.judge(sent, vecdis, redis, settled)
                yield sent, vecdis, redis, row, reason
                if CLOSED in (vecdis, redis):
                    return
            together = []

    # ---- the whole ----

    def episode(self, seed, count, totals):
        """Commands of one generator; gives the findings."""
        generator = Generator(random.Random(seed))
        findings, sent = [], 0
        while sent < count:
            self.begin()
            generator.forget()
            history = [Command((b"HELLO", b"3"))] if generator.chance(0.5) else []
            start = list(history)

            def source(start=start, history=history):
                yield from start
                while True:
                    command = generator.next()
                    history.append(command)
                    yield command

            for command, vecdis, redis, row, reason in self.run(source()):
                sent += 1
                totals["commands"] += 1
                totals["equal" if reason is None else f"allowed: {row.name}" if row else "different"] += 1
                if reason and not row:
                    findings.append(Finding(list(history), command, vecdis, redis, reason))
                open_group = bool(history) and history[-1] is not command and history[-1].joined
                if (reason and (not row or row.diverges)) or CLOSED in (vecdis, redis) or (sent >= count and not open_group):
                    break
        return findings

    def last_finding(self, history):
        """The first difference of a sequence from an empty state."""
        self.begin()
        for command, vecdis, redis, row, reason in self.run(history):
            if reason and not row:
                return Finding(history, command, vecdis, redis, reason)
            if row and row.diverges:
                return None
        return None

    def reduce(self, finding):
        """The same kind of difference with fewer commands and arguments."""
        best, runs, end = finding, 0, time.monotonic() + REDUCING_MAX_S

        def better(history):
            nonlocal best, runs
            runs += 1
            if not history or runs > REDUCING_RUNS_MAX or time.monotonic() > end:
                return False
            found = self.last_finding([*history[:-1], replace(history[-1], joined=False)])
            if found and found.kind() == finding.kind():
                best = found
                return True
            return False

        better([command for command in best.history if command.how != "pause"])
        size = max(1, len(best.history) // 2)
        while size >= 1:
            at = 0
            while at < len(best.history):
                if not better(best.history[:at] + best.history[at + size :]):
                    at += size
            size //= 2
        for index in range(len(best.history)):
            at = len(best.history[index].arguments) - 1
            while at > 0:
                words = best.history[index].arguments
                shorter = replace(best.history[index], arguments=words[:at] + words[at + 1 :])
                better([*best.history[:index], shorter, *best.history[index + 1 :]])
                at -= 1
        return best


def as_inline(arguments):
    return " ".join(quoted(a) for a in arguments).encode() + b"\r\n"


def describe(command):
    """A command as one would type it."""
    mark = "" if command.client == 0 else "(other client) "
    if command.how in ("stream", "pause"):
        return f"{mark}{command.how}: {quoted(command.arguments[0])[:200]}"
    name = "SCAN 0 " if command.how == "scan" else ""
    words = [shortened(word(a)) for a in command.arguments]
    return mark + name + " ".join(words) + (" [inline]" if command.how == "inline" else "")


def shortened(text):
    return text if len(text) < WORD_CHARACTERS else text[:WORD_CHARACTERS] + "..."


def compare_servers(vecdis_port, redis_port, seed, commands, progress=lambda text: None):
    """Runs the comparison; gives (totals, one reduced finding of each kind, number of findings of each kind)."""
    pair = Differential(vecdis_port, redis_port)
    totals, kinds, examples = Counter(), Counter(), {}
    episode = 0
    while totals["commands"] < commands:
        left = commands - totals["commands"]
        for finding in pair.episode(f"{seed}:{episode}", min(EPISODE_COMMANDS, left), totals):
            kinds[finding.kind()] += 1
            examples.setdefault(finding.kind(), finding)
        episode += 1
        if episode % 10 == 0:
            progress(f"{totals['commands']} commands, {totals['different']} different of {len(kinds)} kinds")
    reduced = {kind: pair.reduce(finding) for kind, finding in list(examples.items())[:SHOWN_MAX]}
    return totals, reduced, kinds


def report(totals, reduced, kinds, out=sys.stdout):
    for kind, finding in sorted(reduced.items(), key=lambda item: -kinds[item[0]]):
        print(f"\nDIFFERENT ({kinds[kind]} times): {finding.reason}", file=out)
        for command in finding.history:
            print(f"  {describe(command)}", file=out)
        print(f"    to: {describe(finding.command)}", file=out)
        print(f"    vecdis: {show(finding.vecdis) if finding.vecdis != CLOSED else 'closed'}", file=out)
        print(f"    redis:  {show(finding.redis) if finding.redis != CLOSED else 'closed'}", file=out)
    print(file=out)
    for name in ("commands", "equal", *sorted(k for k in totals if k.startswith("allowed")), "different"):
        print(f"{totals[name]:>8} {name}", file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis-port", type=int, required=True, help="a Redis 8 on 127.0.0.1; it will be emptied")
    parser.add_argument("--vecdis-port", type=int, help="a running Vecdis to use; it will be emptied")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--commands", type=int, default=20000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = None if options.vecdis_port else Server(Path(folder) / "data", "--enable-debug-command", "yes").start()
        try:
            port = options.vecdis_port or server.port
            totals, reduced, kinds = compare_servers(
                port, options.redis_port, options.seed, options.commands, lambda t: print(t, flush=True)
            )
        finally:
            if server:
                server.kill9()
    report(totals, reduced, kinds)
    return 1 if totals["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
