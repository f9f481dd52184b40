"""`vecdis import` and `export` with a real Redis 8: there and back again.

Needs one ($REDIS8_PORT; it will be emptied); without it the test is skipped. VECDIS_MOVE_ELEMENTS says how many elements move.
"""

import json
import os
import subprocess
import time

import numpy as np
import pytest
import redis

from support import HOST, binary

COUNT, DIMS = int(os.environ.get("VECDIS_MOVE_ELEMENTS", "3000")), 48


def run(*arguments):
    begin = time.perf_counter()
    done = subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    print(f"{arguments[0]}: {COUNT / (time.perf_counter() - begin):.0f} elements a second")
    return done.stdout


def answers(client, key, queries):
    pipe = client.pipeline(transaction=False)
    for query in queries:
        words = ["VSIM", key, "FP32", query.tobytes(), "COUNT", 10, "WITHSCORES", "TRUTH"]
        pipe.execute_command(*words)
        pipe.execute_command(*words, "FILTER", ".number > 1000 and .tag in ['a', 'b']")
    return [[(reply[at], float(reply[at + 1])) for at in range(0, len(reply), 2)] for reply in pipe.execute()]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert len(one) == len(other)
        for (name, score), (_, wanted) in zip(one, other, strict=True):
            assert abs(score - wanted) < 1e-5, name
        # Equally good elements may change places.
        assert len({name for name, _ in one} & {name for name, _ in other}) >= len(one) - 1


@pytest.mark.skipif("REDIS8_PORT" not in os.environ, reason="needs a Redis 8: set REDIS8_PORT")
@pytest.mark.parametrize("quantization", ["NOQUANT", "Q8"])
def test_a_set_moves_from_redis_and_back_with_equal_answers(server, quantization):
    random = np.random.default_rng(3)
    vectors = random.normal(size=(COUNT, DIMS)).astype("<f4")
    port = int(os.environ["REDIS8_PORT"])
    with redis.Redis(HOST, port, protocol=2) as theirs, server.client(protocol=2) as ours:
        theirs.flushall()
        pipe = theirs.pipeline(transaction=False)
        for at, vector in enumerate(vectors):
            attributes = json.dumps({"number": at, "tag": "abc"[at % 3], "title": f"é {at}"})
            pipe.execute_command("VADD", "from", "FP32", vector.tobytes(), f"e{at}", quantization, "SETATTR", attributes)
        pipe.execute()
        queries = vectors[:20] + 0.3 * random.normal(size=(20, DIMS)).astype("<f4")
        wanted = answers(theirs, "from", queries)

        said = run("import", f"redis://{HOST}:{port}/from", "--key", "here", "--server", f"{HOST}:{server.port}")
        assert f"{COUNT} elements" in said
        assert_same(answers(ours, "here", queries), wanted)
        run("export", "here", f"redis://{HOST}:{port}/back", "--server", f"{HOST}:{server.port}")
        assert_same(answers(theirs, "back", queries), wanted)
        assert theirs.execute_command("VCARD", "back") == COUNT
        for at in (0, 7, COUNT - 1):
            pair = [theirs.execute_command("VGETATTR", key, f"e{at}") for key in ("from", "back")]
            assert pair[0] == pair[1]
        info = theirs.execute_command("VINFO", "back")
        assert info[1] == (b"f32" if quantization == "NOQUANT" else b"int8")
