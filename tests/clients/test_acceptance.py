"""The product's job end to end, on generated vectors: load, search, crash, find everything again."""

import numpy as np
import pytest

from support import attribute, clustered, contents, exact_top, info_of, load, name, recall, same, search

COUNT, DIM, QUERIES, K = 10_000, 96, 200, 10
UPDATED = 1_000
# Commands in one MULTI/EXEC.
TRANSACTION = 5_000
RECALL_MIN = 0.995
KEY = "set"


@pytest.fixture(scope="module")
def vectors():
    return clustered(COUNT, DIM, seed=1)


@pytest.fixture(scope="module")
def queries():
    return clustered(QUERIES, DIM, seed=2)


def recall_of(client, vectors, queries):
    return recall(vectors, queries, exact_top(vectors, queries, K), search(client, KEY, queries, K))


def test_search_crash_update(new_server, vectors, queries):
    server = new_server("--appendfsync", "always")
    with server.client() as client:
        assert load(client, KEY, vectors) == [1] * COUNT
        assert client.execute_command("VCARD", KEY) == COUNT
        assert recall_of(client, vectors, queries) >= RECALL_MIN
        loaded = contents(client, KEY, COUNT)
    assert loaded[1] == [attribute(row).encode() for row in range(COUNT)]

    server.restart_after_kill9()
    with server.client() as client:
        assert client.execute_command("VCARD", KEY) == COUNT
        assert same(contents(client, KEY, COUNT), loaded)
        assert recall_of(client, vectors, queries) >= RECALL_MIN

        changed = vectors.copy()
        changed[:UPDATED] = clustered(UPDATED, DIM, seed=3)
        assert load(client, KEY, changed[:UPDATED], attributes=False) == [0] * UPDATED
        assert recall_of(client, changed, queries) >= RECALL_MIN
        updated = contents(client, KEY, COUNT)
    assert updated[0].tobytes() != loaded[0].tobytes() and updated[1] == loaded[1]

    server.restart_after_kill9()
    with server.client() as client:
        assert client.execute_command("VCARD", KEY) == COUNT
        assert same(contents(client, KEY, COUNT), updated)
        assert recall_of(client, changed, queries) >= RECALL_MIN


def test_transactions_of_5000(new_server, vectors, queries):
    """redis-py's default pipeline is one MULTI/EXEC."""
    server = new_server("--appendfsync", "always")
    with server.client() as client:
        assert load(client, KEY, vectors, batch=TRANSACTION, transaction=True) == [1] * COUNT
        assert recall_of(client, vectors, queries) >= RECALL_MIN
        loaded = contents(client, KEY, COUNT)
    server.restart_after_kill9()
    with server.client() as client:
        assert same(contents(client, KEY, COUNT), loaded)
        assert recall_of(client, vectors, queries) >= RECALL_MIN


@pytest.mark.parametrize("policy", ["always", "everysec", "no"])
@pytest.mark.parametrize("saving", ["SAVE", "BGSAVE", "BGREWRITEAOF", None])
def test_every_kind_of_change_survives(new_server, policy, saving):
    """Changes before, while and after a checkpoint."""
    server = new_server("--appendfsync", policy)
    count, dim = 600, 32
    vectors = clustered(count, dim, seed=4)
    with server.client() as client:
        load(client, KEY, vectors)
        load(client, "other", vectors[:50])
        if saving:
            client.execute_command(saving)
        load(client, KEY, clustered(100, dim, seed=5), attributes=False)
        for row in range(100, 150):
            assert client.execute_command("VSETATTR", KEY, name(row), "") == 1
            assert client.execute_command("VREM", KEY, name(row + 50)) == 1
        assert client.delete("other") == 1
        load(client, KEY, vectors[150:200], first=count)
        rows = [row for row in range(count + 50) if not 150 <= row < 200 or row >= count]
        before = [client.execute_command("VEMB", KEY, name(row)) for row in rows]
        attributes = [client.execute_command("VGETATTR", KEY, name(row)) for row in rows]
        found = search(client, KEY, vectors[:50])
    server.restart_after_kill9()
    with server.client() as client:
        assert client.dbsize() == 1 and client.execute_command("VCARD", KEY) == len(rows)
        assert [client.execute_command("VEMB", KEY, name(row)) for row in rows] == before
        assert [client.execute_command("VGETATTR", KEY, name(row)) for row in rows] == attributes
        assert [client.execute_command("VISMEMBER", KEY, name(row)) for row in range(150, 200)] == [0] * 50
        assert search(client, KEY, vectors[:50]) == found


def test_setting_attributes_makes_no_rows(new_server):
    server = new_server()
    vectors = clustered(2_000, 16, seed=6)
    with server.client() as client:
        load(client, KEY, vectors, attributes=False)
        rows = info_of(client, KEY)["rows"]
        for round in range(3):
            with client.pipeline(transaction=False) as pipe:
                for row in range(len(vectors)):
                    pipe.execute_command("VSETATTR", KEY, name(row), f'{{"round":{round}}}')
                assert pipe.execute() == [1] * len(vectors)
        info = info_of(client, KEY)
        assert (info["rows"], info["attributes-count"]) == (rows, len(vectors))
        found = client.execute_command(
            "VSIM", KEY, "FP32", vectors[0].tobytes(), "COUNT", 5, "FILTER", ".round == 2"
        )
        assert len(found) == 5


def test_many_small_collections_share_their_files(new_server):
    server = new_server("--appendfsync", "no")
    collections, each = 2_000, 10
    vectors = clustered(collections * each, 16, seed=7)
    with server.client() as client:
        with client.pipeline(transaction=False) as pipe:
            for row, vector in enumerate(vectors):
                pipe.execute_command("VADD", f"tenant:{row // each}", "FP32", vector.tobytes(), name(row))
            assert sum(pipe.execute()) == len(vectors)
        client.save()
    assert server.files()[0] < 50
    server.restart_after_kill9()
    with server.client() as client:
        assert client.dbsize() == collections
        for row in np.random.default_rng(8).choice(len(vectors), 200, replace=False):
            found = client.execute_command("VSIM", f"tenant:{row // each}", "ELE", name(row), "COUNT", 1)
            assert found == [name(row).encode()]
