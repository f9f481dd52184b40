"""The examples of README.md and docs/ in Python, JavaScript and Rust are run, each page's blocks as one program."""

import re
import subprocess
from pathlib import Path

import pytest

from support import ANSWER_MAX_S, PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
CLIENTS = PROJECT / "docs" / "clients.md"
NODE = Path(__file__).parent / "node"


def blocks(page, language):
    """The blocks of a page in one language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(found)


def program(page, port):
    """The blocks of a page, with the port of a server of ours. What needs another machine is marked `python no-run`."""
    return blocks(page, "python").replace("redis.Redis(", f"redis.Redis(port={port}, ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples(server, page):
    code = program(page, server.port)
    if not code:
        pytest.skip("no Python on this page")
    assert f"port={server.port}" in code, "the examples connect with redis.Redis()"
    exec(compile(code, str(page), "exec"), {"__name__": "example"})


def test_javascript_example(server, node):
    assert (NODE / "node_modules").is_dir(), f"the clients are missing: run npm ci in {NODE}"
    code = blocks(CLIENTS, "js").replace("createClient()", f"createClient({{ socket: {{ port: {server.port} }} }})")
    assert str(server.port) in code, "the example connects with createClient()"
    command = [node, "--input-type=module", "--eval", code]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=ANSWER_MAX_S)
    assert (done.returncode, done.stdout) == (0, "[ 'a' ]\n[]\n"), done


def test_rust_example(server, rust_package):
    def lines(text):
        return [line.strip() for line in text.replace('"redis://127.0.0.1/"', "url").splitlines()]

    shown, compiled = lines(blocks(CLIENTS, "rust")), lines((rust_package / "examples" / "docs.rs").read_text())
    first = compiled.index(shown[0])
    assert compiled[first : first + len(shown)] == shown, "examples/docs.rs is not the example of docs/clients.md"
    command = ["cargo", "run", "--locked", "--quiet", "--example", "docs", f"redis://127.0.0.1:{server.port}/"]
    done = subprocess.run(command, cwd=rust_package, capture_output=True, text=True, timeout=ANSWER_MAX_S)
    assert (done.returncode, done.stdout) == (0, '["a"]\n'), done
