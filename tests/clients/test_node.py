"""node-redis and ioredis against the real binary: runs the suites in node/ with node's own test runner.

To have the clients: npm ci, in tests/clients/node.
"""

import re
import subprocess
from pathlib import Path

import pytest

from support import ANSWER_MAX_S

SUITES = Path(__file__).parent / "node"


@pytest.mark.parametrize("suite", ["node-redis", "ioredis"])
def test_suite(node, suite_environment, suite):
    assert (SUITES / "node_modules").is_dir(), f"the clients are missing: run npm ci in {SUITES}"
    command = [node, "--test", "--test-reporter=tap", f"{suite}.test.js"]
    done = subprocess.run(
        command, cwd=SUITES, env=suite_environment, capture_output=True, text=True, timeout=ANSWER_MAX_S
    )
    print(done.stdout, done.stderr)
    # The summary has lines such as "# pass 42".
    counts = {name: int(count) for name, count in re.findall(r"^# (\w+) (\d+)$", done.stdout, re.M)}
    assert done.returncode == 0, f"{suite}: {counts}"
    assert counts["pass"] > 0 and counts["fail"] == counts["skipped"] == counts["cancelled"] == 0, counts
