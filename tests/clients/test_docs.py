"""The Python examples of docs/ run as they stand, against a server of their own."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{at}")
    for page in sorted(DOCS.glob("*.md"))
    for at, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(server, code):
    exec(compile(code.replace("6379", str(server.port)), "example", "exec"), {})
