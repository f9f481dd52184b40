"""redis-rs and fred against the real binary: builds the package in rust/ and runs its tests."""

import re
import subprocess
from pathlib import Path

import pytest

from support import ANSWER_MAX_S

PACKAGE = Path(__file__).parent / "rust"
# Longest time of the build of 120 crates.
BUILD_MAX_S = 600.0


@pytest.fixture(scope="module")
def package():
    """The folder of the package, whose tests are built."""
    command = ["cargo", "test", "--locked", "--quiet", "--no-run"]
    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=BUILD_MAX_S)
    assert done.returncode == 0, done.stderr
    return PACKAGE


@pytest.mark.parametrize("suite", ["redis_rs", "fred"])
def test_suite(package, suite_environment, suite):
    command = ["cargo", "test", "--locked", "--quiet", "--test", suite]
    done = subprocess.run(
        command, cwd=package, env=suite_environment, capture_output=True, text=True, timeout=ANSWER_MAX_S
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, f"{suite} failed"
    passed, ignored = re.search(r"(\d+) passed; 0 failed; (\d+) ignored", done.stdout).groups()
    assert int(passed) > 0 and int(ignored) == 0, done.stdout
