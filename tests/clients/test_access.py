"""API keys and passwords through the clients people use, over TCP, TLS and a Unix socket; and ACL decisions beside a real Redis 8."""

import os
import subprocess
from pathlib import Path

import pytest
import redis

import acl_differential
from support import ANSWER_MAX_S, HOST, PROJECT, free_port

CERTIFICATES = PROJECT / "tests" / "fixtures" / "tls"
AUTHORITY = str(CERTIFICATES / "ca.pem")
NODE = Path(__file__).parent / "node"
RULE_SETS = 300
SEED = "ci"
TRANSPORTS = ["tcp", "tls", "unix"]


@pytest.fixture
def doors(new_server, tmp_path):
    """A server with all three doors, a user `ann` with a password, and a user `customer` with an API key."""
    socket, tls_port = str(tmp_path / "vecdis.sock"), free_port()
    server = new_server(
        *("--unixsocket", socket, "--tls-port", tls_port, "--tls-auth-clients", "no"),
        *("--tls-cert-file", CERTIFICATES / "server.pem", "--tls-key-file", CERTIFICATES / "server.key"),
        password="correct-horse",
    )
    with server.client(decode_responses=True) as admin:
        admin.execute_command("ACL", "SETUSER", "ann", "on", ">pass word", "~*", "+@all", "-@dangerous")
        key = admin.execute_command("APIKEY", "CREATE", "customer")
    server.socket, server.tls_port = socket, tls_port
    server.logins = {
        "password only": (None, "correct-horse", "default"),
        "key only": (None, key, "customer"),
        "key and default": ("default", key, "customer"),
        "key and user": ("customer", key, "customer"),
        "user and password": ("ann", "pass word", "ann"),
    }
    return server


def connect(server, transport, **options):
    """A redis-py client through one of the doors."""
    if transport == "unix":
        return redis.Redis(unix_socket_path=server.socket, decode_responses=True, **options)
    if transport == "tls":
        options |= {"ssl": True, "ssl_ca_certs": AUTHORITY}
        return redis.Redis("localhost", server.tls_port, decode_responses=True, **options)
    return redis.Redis(HOST, server.port, decode_responses=True, **options)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(doors, transport, protocol):
    for name, (username, password, user) in doors.logins.items():
        with connect(doors, transport, username=username, password=password, protocol=protocol) as client:
            assert client.acl_whoami() == user, name
            assert client.execute_command("VADD", "k", "VALUES", 2, 1, 0, "e") in (0, 1, False, True)
            assert client.exists("k") == 1
    with pytest.raises(redis.AuthenticationError), connect(doors, transport, password="wrong") as client:
        client.ping()
    with connect(doors, transport, username="customer", password=doors.logins["key only"][1]) as client:
        assert client.dbsize() == 1
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.acl_list()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_redis_cli(doors, redis_cli, transport):
    door = {
        "tcp": ["-h", HOST, "-p", doors.port],
        "tls": ["-h", "localhost", "-p", doors.tls_port, "--tls", "--cacert", AUTHORITY],
        "unix": ["-s", doors.socket],
    }[transport]
    for name, (username, password, user) in doors.logins.items():
        login = [*(["--user", username] if username else []), "--pass", password, "--no-auth-warning"]
        command = [redis_cli, *map(str, door), *login, "ACL", "WHOAMI"]
        done = subprocess.run(command, capture_output=True, timeout=ANSWER_MAX_S, text=True)
        assert done.stdout.strip() == user, (name, done)


def check_logins(doors, transport, command, folder, **environment):
    """Runs a small program that logs in as its environment says, and prints the user, for each way to log in."""
    for name, (username, password, user) in doors.logins.items():
        variables = dict(
            os.environ,
            **environment,
            VECDIS_TRANSPORT=transport,
            VECDIS_PORT=str(doors.tls_port if transport == "tls" else doors.port),
            VECDIS_SOCKET=doors.socket,
            VECDIS_AUTHORITY=AUTHORITY,
            VECDIS_USER=username or "",
            VECDIS_PASSWORD=password,
        )
        done = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=ANSWER_MAX_S
        )
        assert done.stdout.strip() == user, (name, done)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("package", ["redis", "ioredis"])
def test_node(doors, node, package, transport):
    assert (NODE / "node_modules").is_dir(), f"the clients are missing: run npm ci in {NODE}"
    check_logins(doors, transport, [node, "whoami.js"], NODE, VECDIS_PACKAGE=package)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_redis_rs(doors, rust_package, transport):
    check_logins(doors, transport, ["cargo", "run", "--locked", "--quiet", "--example", "whoami"], rust_package)


@pytest.mark.skipif("REDIS8_PORT" not in os.environ, reason="needs a Redis 8: set REDIS8_PORT")
def test_decisions_equal_those_of_redis(new_server, capsys):
    server = new_server()
    comparison = acl_differential.compare_servers(server.port, int(os.environ["REDIS8_PORT"]), SEED, RULE_SETS)
    with capsys.disabled():
        acl_differential.report(comparison, RULE_SETS)
    assert comparison.different == []
