"""Debian's prometheus-redis-exporter against the real binary."""

import subprocess
import time
import urllib.request

import pytest

from conftest import _tool
from support import HOST, free_port

START_MAX_S = 20.0


@pytest.fixture
def scrape(server):
    """A function that scrapes the server through the exporter."""
    program = _tool("prometheus-redis-exporter", "prometheus-redis-exporter")
    port = free_port()
    process = subprocess.Popen(
        [program, "-redis.addr", f"redis://{HOST}:{server.port}", "-web.listen-address", f"{HOST}:{port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def scrape():
        end = time.monotonic() + START_MAX_S
        while True:
            try:
                with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=START_MAX_S) as page:
                    return page.read().decode()
            except OSError:
                assert time.monotonic() < end, "the exporter does not answer"
                time.sleep(0.05)

    yield scrape
    process.kill()
    output = process.communicate()[0].decode()
    assert "level=error" not in output and "level=warn" not in output, output


def value(page, name):
    """The value of a metric; a name with labels is taken as it stands."""
    found = [line.rsplit(" ", 1)[1] for line in page.splitlines() if line.startswith(f"{name} ")]
    assert len(found) == 1, f"{name}: {found}"
    return float(found[0])


def test_every_section_is_read(server, scrape):
    with server.client() as client:
        for element in range(10):
            client.execute_command("VADD", "k", "VALUES", 2, 1, element, f"e{element}")
        client.execute_command("VSIM", "k", "ELE", "e1")
        with pytest.raises(Exception):
            client.execute_command("VSIM", "k", "ELE", "nobody")
    page = scrape()
    assert value(page, "redis_up") == 1
    assert value(page, "redis_exporter_last_scrape_error{err=\"\"}") == 0
    assert value(page, "redis_connected_clients") >= 1
    assert value(page, "redis_memory_used_bytes") > 0
    assert value(page, "redis_memory_max_bytes") == 0
    assert value(page, 'redis_db_keys{db="db0"}') == 1
    assert value(page, 'redis_commands_total{cmd="vadd"}') >= 10
    assert value(page, 'redis_commands_failed_calls_total{cmd="vsim"}') >= 1
    assert value(page, 'redis_errors_total{err="ERR"}') >= 1
    assert value(page, "redis_slowlog_length") >= 0
    assert value(page, "redis_start_time_seconds") > 1.6e9
    assert value(page, "redis_uptime_in_seconds") >= 0
    assert value(page, "redis_cpu_user_seconds_total") >= 0
    assert 'redis_instance_info{' in page and 'role="master"' in page
    assert value(page, 'redis_commands_duration_seconds_total{cmd="vadd"}') > 0
