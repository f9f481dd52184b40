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


def assert_same(ours, theirs, error=1e-5):
    for one, other in zip(ours, theirs, strict=True):
        assert len(one) == len(other)
        for (name, score), (_, wanted) in zip(one, other, strict=True):
            assert abs(score - wanted) < error, name
        if error < 1e-4:
            # Equally good elements may change places.
            assert len({name for name, _ in one} & {name for name, _ in other}) >= len(one) - 1


def exact(client, key, queries):
    """What `answers` is by the vectors that a server tells."""
    pipe = client.pipeline(transaction=False)
    for at in range(COUNT):
        pipe.execute_command("VEMB", key, f"e{at}")
    vectors = np.array(pipe.execute()).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.arange(COUNT)
    matching = numbers[(numbers > 1000) & (numbers % 3 < 2)]
    found = []
    for query in queries.astype(np.float64):
        scores = (1 + vectors @ (query / np.linalg.norm(query))) / 2
        for among in (numbers, matching):
            best = among[np.argsort(-scores[among])[:10]]
            found.append([(b"e%d" % at, scores[at]) for at in best])
    return found


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
        here = answers(ours, "here", queries)
        by_vectors = exact(theirs, "from", queries)
        assert_same(here, by_vectors)
        # With Q8 Redis quantises the query too and takes no account of what quantising does to a vector's length, which moves
        # its scores by some thousandths.
        error = 1e-5 if quantization == "NOQUANT" else 3e-3
        assert_same(here, wanted, error)
        run("export", "here", f"redis://{HOST}:{port}/back", "--server", f"{HOST}:{server.port}")
        assert_same(answers(theirs, "back", queries), wanted, error)
        assert_same(exact(theirs, "back", queries), by_vectors)
        assert theirs.execute_command("VCARD", "back") == COUNT
        for at in (0, 7, COUNT - 1):
            pair = [theirs.execute_command("VGETATTR", key, f"e{at}") for key in ("from", "back")]
            assert pair[0] == pair[1]
        info = theirs.execute_command("VINFO", "back")
        assert info[1] == (b"f32" if quantization == "NOQUANT" else b"int8")
