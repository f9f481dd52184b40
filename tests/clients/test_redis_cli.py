"""Debian's redis-cli and redis-benchmark against the real binary."""

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pytest

from support import ANSWER_MAX_S, HOST

# Longest wait for something to appear on redis-cli's screen.
SCREEN_MAX_S = 20.0
# Size of the terminal: wide enough for the longest hint.
ROWS, COLUMNS = 50, 250


def run(tool, server, *arguments, feed=b"", fails=False):
    """Standard output of a tool that talks to the server; `fails`: it must end with a non-zero code."""
    command = [tool, "-h", HOST, "-p", str(server.port), *map(str, arguments)]
    done = subprocess.run(command, input=feed, capture_output=True, timeout=ANSWER_MAX_S)
    assert (done.returncode != 0) == fails, (command, done)
    return done.stdout.decode() + (done.stderr.decode() if fails else "")


def fill(redis_cli, server, *options):
    for element, vector in (("a", (1, 0)), ("b", (0, 1)), ("c", (2, 1))):
        assert run(redis_cli, server, *options, "VADD", "k", "VALUES", 2, *vector, element) in (
            "1\n",
            "(true)\n",
        )


def test_one_shot(redis_cli, server):
    fill(redis_cli, server)
    assert run(redis_cli, server, "PING") == "PONG\n"
    assert run(redis_cli, server, "VSIM", "k", "VALUES", 2, 1, 0) == "a\nc\nb\n"
    assert run(redis_cli, server, "--no-raw", "VCARD", "k") == "(integer) 3\n"
    assert run(redis_cli, server, "-n", 0, "VDIM", "k") == "2\n"
    assert "ERR" in run(redis_cli, server, "-e", "VDIM", "missing", fails=True)
    assert "redis_version:" in run(redis_cli, server, "INFO", "server")


def test_resp3(redis_cli, server):
    fill(redis_cli, server)
    assert run(redis_cli, server, "-3", "--no-raw", "VISMEMBER", "k", "a") == "(true)\n"
    scores = run(
        redis_cli, server, "-3", "--no-raw", "VSIM", "k", "ELE", "a", "WITHSCORES", "COUNT", 2
    ).splitlines()
    assert scores[0].startswith('1# "a" => (double) ') and scores[1].startswith('2# "c" => (double) ')
    info = json.loads(run(redis_cli, server, "-3", "--json", "VINFO", "k"))
    assert (info["size"], info["vector-dim"]) == (3, 2)
    assert "redis_version:" in run(redis_cli, server, "-3", "INFO")


def test_binary_argument_from_stdin(redis_cli, server):
    blob = struct.pack("<3f", 0.5, -1, 2)
    assert run(redis_cli, server, "-X", "blob", "VADD", "x", "FP32", "blob", "e", feed=blob) == "1\n"
    assert [round(float(line), 1) for line in run(redis_cli, server, "VEMB", "x", "e").split()] == [
        0.5,
        -1.0,
        2.0,
    ]


def test_commands_from_stdin(redis_cli, server):
    lines = (
        "PING",
        'VADD "a key" VALUES 2 1 0 "with \\"quotes\\" and \\x41" SETATTR \'{"n":1}\'',
        'VSIM "a key" VALUES 2 1 0 WITHATTRIBS',
        "MULTI",
        'VCARD "a key"',
        "EXEC",
        "NOSUCH",
        "",
        "ECHO end",
    )
    output = run(redis_cli, server, feed="\n".join(lines).encode() + b"\n").split("\n")
    assert output[:7] == ["PONG", "1", 'with "quotes" and A', '{"n":1}', "OK", "QUEUED", "1"]
    assert output[7].startswith("ERR unknown command") and "end" in output


def test_interactive_session_with_hints(redis_cli, server):
    """On a terminal redis-cli asks COMMAND DOCS, shows hints from it while one types, and completes commands."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
    environment = dict(os.environ, TERM="xterm", REDISCLI_HISTFILE="/dev/null")
    command = [redis_cli, "-h", HOST, "-p", str(server.port)]
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True
    )
    os.close(slave)
    shown = b""

    def wait_for(text):
        nonlocal shown
        end = time.monotonic() + SCREEN_MAX_S
        while text not in shown:
            ready, _, _ = select.select([master], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} did not appear: {shown!r}"
            shown += os.read(master, 65536)
        shown = shown[shown.index(text) + len(text) :]

    try:
        wait_for(b"> ")
        os.write(master, b"VADD ")
        wait_for(b"key")
        wait_for(b"SETATTR")
        os.write(master, b"k VALUES 2 1 0 e\r")
        wait_for(b"(integer) 1")
        os.write(master, b"VSIM k ELE e\r")
        wait_for(b'1) "e"')
        os.write(master, b"quit\r")
        assert process.wait(SCREEN_MAX_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def resp(*arguments):
    parts = [argument if isinstance(argument, bytes) else str(argument).encode() for argument in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def test_pipe_of_inline_and_resp(redis_cli, server):
    count = 5_000
    feed = b"".join(
        resp("VADD", "k", "FP32", struct.pack("<2f", 1, row), f"e{row}")
        if row % 2
        else b"VADD k VALUES 2 1 %d e%d\r\n" % (row, row)
        for row in range(count)
    )
    output = run(redis_cli, server, "--pipe", feed=feed)
    assert f"errors: 0, replies: {count}" in output
    assert run(redis_cli, server, "VCARD", "k") == f"{count}\n"


def test_pipe_counts_errors(redis_cli, server):
    output = run(redis_cli, server, "--pipe", feed=b"PING\nNOSUCH\nPING\n", fails=True)
    assert "errors: 1, replies: 3" in output


@pytest.mark.parametrize("protocol", [(), ("-3",)], ids=["resp2", "resp3"])
def test_password(redis_cli, new_server, protocol):
    server = new_server(password="correct horse")
    arguments = (*protocol, "--no-auth-warning")
    assert "NOAUTH" in run(redis_cli, server, "PING")
    assert run(redis_cli, server, *arguments, "-a", "correct horse", "PING") == "PONG\n"
    assert (
        run(redis_cli, server, *arguments, "--user", "default", "--pass", "correct horse", "PING") == "PONG\n"
    )
    refused = run(redis_cli, server, *arguments, "-a", "wrong", "PING")
    assert "NOAUTH" in refused
    fill(redis_cli, server, *arguments, "-a", "correct horse")


def test_stat_and_csv(redis_cli, server):
    assert "PONG" in run(redis_cli, server, "-r", 3, "-i", 0, "PING")
    assert run(redis_cli, server, "--csv", "CONFIG", "GET", "appendonly") == '"appendonly","yes"\n'
    seconds = subprocess.Popen(
        [redis_cli, "-p", str(server.port), "--stat", "-i", "0.02"], stdout=subprocess.PIPE
    )
    try:
        lines = [seconds.stdout.readline().decode() for _ in range(4)]
    finally:
        seconds.kill()
        seconds.wait()
    # keys, memory, clients, blocked, requests, connections
    assert "keys" in lines[1] and lines[2].split()[0] == "0"


@pytest.mark.parametrize("options", [(), ("-P", 16), ("-3",)], ids=["one by one", "pipelined", "resp3"])
def test_benchmark_ping(redis_benchmark, server, options):
    output = run(redis_benchmark, server, "-q", "-n", 20_000, "-c", 20, *options, "-t", "ping")
    assert output.count("requests per second") == 2 and "ERR" not in output


def test_benchmark_vectors(redis_benchmark, redis_cli, server):
    add = ("VADD", "k", "VALUES", 3, 1, 2, 3, "e__rand_int__")
    output = run(redis_benchmark, server, "-q", "-n", 10_000, "-P", 10, "-r", 1_000, *add)
    assert "requests per second" in output and "ERR" not in output
    assert 900 <= int(run(redis_cli, server, "VCARD", "k")) <= 1_000
    output = run(redis_benchmark, server, "-q", "-n", 5_000, "VSIM", "k", "VALUES", 3, 1, 2, 3)
    assert "requests per second" in output and "ERR" not in output
    assert run(redis_cli, server, "PING") == "PONG\n"


def fill_many(redis_cli, server, keys=20, elements=30):
    feed = b"".join(
        resp("VADD", f"k{key}", "FP32", struct.pack("<2f", 1, element), f"e{element}")
        for key in range(keys)
        for element in range(elements)
    )
    assert f"errors: 0, replies: {keys * elements}" in run(redis_cli, server, "--pipe", feed=feed)


def test_scan(redis_cli, server):
    fill_many(redis_cli, server)
    assert sorted(run(redis_cli, server, "--scan").split()) == sorted(f"k{key}" for key in range(20))
    assert sorted(run(redis_cli, server, "--scan", "--pattern", "k1?").split()) == [f"k1{n}" for n in range(10)]


@pytest.mark.parametrize("tool", ["--bigkeys", "--memkeys"])
def test_key_statistics(redis_cli, server, tool):
    fill_many(redis_cli, server)
    output = run(redis_cli, server, tool)
    assert "Sampled 20 keys in the keyspace!" in output and "ERR" not in output
    assert "20 vectorsets" in output or "20 vectorset" in output


def test_latency(redis_cli, server):
    tool = subprocess.Popen(
        [redis_cli, "-p", str(server.port), "--latency", "--raw", "-i", "1"], stdout=subprocess.PIPE
    )
    output, _ = tool.communicate(timeout=SCREEN_MAX_S)
    least_ms, most_ms, mean_ms, samples = output.split()[:4]
    assert 0 <= float(least_ms) <= float(mean_ms) <= float(most_ms) and int(samples) > 10
    history = run(redis_cli, server, "LATENCY", "HISTOGRAM", "ping")
    assert "histogram_usec" in history


def test_monitor_and_slow_log(redis_cli, server):
    tool = subprocess.Popen([redis_cli, "-p", str(server.port), "MONITOR"], stdout=subprocess.PIPE)
    try:
        assert tool.stdout.readline() == b"OK\n"
        run(redis_cli, server, "ECHO", "seen")
        lines = [tool.stdout.readline()]
        while b'"ECHO" "seen"' not in lines[-1]:
            lines.append(tool.stdout.readline())
    finally:
        tool.kill()
        tool.wait()
    assert run(redis_cli, server, "SLOWLOG", "LEN").strip().isdigit()
