"""The systemd unit: its settings are known to systemd, and the server works under the one that forbids code made at run time."""

import ctypes
import os
import shutil
import subprocess
import sys

import pytest

from support import ANSWER_MAX_S, PROJECT, Server, binary

UNIT = PROJECT / "conf" / "vecdis.service"
TOY_MODEL = PROJECT / "tests" / "fixtures" / "toy_model"
# What MemoryDenyWriteExecute=yes sets where the kernel has it (prctl(2)); kept over exec.
PR_SET_MDWE, PR_GET_MDWE, REFUSE_EXEC_GAIN = 65, 66, 1
LAUNCHER = f"""#!{sys.executable}
import ctypes, os, sys
if ctypes.CDLL(None).prctl({PR_SET_MDWE}, {REFUSE_EXEC_GAIN}, 0, 0, 0) != 0:
    sys.exit("the kernel does not know PR_SET_MDWE")
os.execv({str(binary())!r}, ["vecdis", *sys.argv[1:]])
"""


def test_memory_that_is_written_is_never_executed(tmp_path):
    if ctypes.CDLL(None).prctl(PR_GET_MDWE, 0, 0, 0, 0) < 0:
        pytest.skip("the kernel does not know PR_SET_MDWE")
    launcher = tmp_path / "launch"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    folder = tmp_path / "data"
    subprocess.run([binary(), "model", "add", TOY_MODEL, "toy", "--in", folder], check=True, timeout=ANSWER_MAX_S)
    server = Server(folder, program=launcher).start()
    try:
        with server.client(decode_responses=True) as client:
            assert client.execute_command("VADD", "k", "TEXT", "hello world", "e") == 1
            assert client.execute_command("VSIM", "k", "TEXT", "hello world") == ["e"]
            assert client.save()
            if "ORT_DYLIB_PATH" in os.environ:
                assert len(client.execute_command("VEMBED", "MODEL", "toy", "hello world")[0]) > 0
        assert server.terminate() == 0
    finally:
        server.kill9()


def test_systemd_knows_every_setting_of_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    unit = tmp_path / "vecdis.service"
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/vecdis", str(binary())))
    done = subprocess.run(
        [analyze, "verify", "--man=no", unit], capture_output=True, text=True, timeout=ANSWER_MAX_S
    )
    assert "vecdis.service" not in done.stderr and done.returncode == 0, done.stderr
