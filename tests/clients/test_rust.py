"""redis-rs and fred against the real binary: builds the package in rust/ and runs its tests."""

import re
import subprocess

import pytest

from support import ANSWER_MAX_S


@pytest.mark.parametrize("suite", ["redis_rs", "fred"])
def test_suite(rust_package, suite_environment, suite):
    command = ["cargo", "test", "--locked", "--quiet", "--test", suite]
    done = subprocess.run(
        command, cwd=rust_package, env=suite_environment, capture_output=True, text=True, timeout=ANSWER_MAX_S
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{suite} failed"
    passed, ignored = re.search(r"(\d+) passed; 0 failed; (\d+) ignored", done.stdout).groups()
    assert int(passed) > 0 and int(ignored) == 0, done.stdout
