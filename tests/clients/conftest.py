"""Fixtures of the client suites. To run them, after cargo build --release:

pip install -r tests/clients/requirements.txt
npm ci --prefix tests/clients/node
pytest tests/clients
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import Server, binary

RUST_PACKAGE = Path(__file__).parent / "rust"
# Longest time of the build of its 140 crates.
RUST_BUILD_MAX_S = 600.0


@pytest.fixture(scope="session", autouse=True)
def built():
    if not binary().is_file():
        pytest.exit(f"{binary()} is missing: run cargo build --release first", returncode=2)


@pytest.fixture(scope="session")
def shared_server(built, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("shared") / "data") as server:
        yield server


@pytest.fixture
def server(shared_server):
    """A running server without data. Tests that stop it or need options take `new_server`."""
    assert shared_server.alive(), f"an earlier test ended the server: {shared_server.log_tail()}"
    with shared_server.client() as client:
        client.flushall()
    return shared_server


@pytest.fixture
def new_server(built, tmp_path):
    """A function that starts a server with the given options; it is killed when the test is over."""
    started = []

    def start(*options, **named):
        server = Server(tmp_path / f"data{len(started)}", *options, **named)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.kill9()


@pytest.fixture(params=[2, 3], ids=["resp2", "resp3"])
def client(request, server):
    """A redis-py client of each protocol version that gives text."""
    with server.client(protocol=request.param, decode_responses=True) as client:
        yield client


@pytest.fixture
def suite_environment(server, new_server):
    """What the suites in other languages need to know: an open server and one with a password."""
    locked = new_server(password="correct-horse")
    return dict(
        os.environ,
        VECDIS_PORT=str(server.port),
        VECDIS_LOCKED_PORT=str(locked.port),
        VECDIS_PASSWORD=locked.password,
    )


def _tool(name, package):
    path = shutil.which(name)
    if path is None and os.environ.get("CI"):
        pytest.fail(f"{name} is not installed")
    return path or pytest.skip(f"{name} is not installed (Debian: {package})")


@pytest.fixture
def redis_cli():
    return _tool("redis-cli", "redis-tools")


@pytest.fixture
def redis_benchmark():
    return _tool("redis-benchmark", "redis-tools")


@pytest.fixture
def node():
    return _tool("node", "nodejs")


@pytest.fixture(scope="session")
def rust_package():
    """The folder of the package with redis-rs and fred, whose tests and examples are built."""
    command = ["cargo", "test", "--locked", "--quiet", "--no-run"]
    done = subprocess.run(command, cwd=RUST_PACKAGE, capture_output=True, text=True, timeout=RUST_BUILD_MAX_S)
    assert done.returncode == 0, done.stderr
    return RUST_PACKAGE
