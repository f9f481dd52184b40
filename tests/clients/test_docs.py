"""The Python examples of README.md and docs/ are run, each page's blocks as one program."""

import re

import pytest

from support import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def program(page, port):
    """The blocks of a page, with the port of a server of ours. What needs another machine is marked `python no-run`."""
    text = "\n".join(BLOCK.findall(page.read_text()))
    return text.replace("redis.Redis(", f"redis.Redis(port={port}, ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples(server, page):
    code = program(page, server.port)
    if not code:
        pytest.skip("no Python on this page")
    assert f"port={server.port}" in code, "the examples connect with redis.Redis()"
    exec(compile(code, str(page), "exec"), {"__name__": "example"})
