"""redis-py against the real binary: what its users do, with RESP2 and RESP3, blocking and asyncio."""

import asyncio
import signal
import time

import numpy as np
import pytest
import redis
import redis.asyncio
from redis.commands.vectorset.commands import QuantizationOptions

from support import HOST, STOP_MAX_S, info_of

X, Y, Z = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
# Score of two vectors at a right angle.
RIGHT_ANGLE = 0.5


def blob(vector):
    return np.asarray(vector, dtype="<f4").tobytes()


def raw(client, *command):
    """The answer as the protocol says it, without redis-py's conversions."""
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command(*command)
        return connection.read_response()
    finally:
        client.connection_pool.release(connection)


def unless_busy(save):
    """Calls it again while the server says that another save is under way."""
    end = time.monotonic() + STOP_MAX_S
    while True:
        try:
            return save()
        except redis.ResponseError as error:
            if "in progress" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.05)


def fill(client):
    """k: a = X with attributes, b = Y, c between them with attributes."""
    vset = client.vset()
    assert vset.vadd("k", X, "a", attributes={"n": 1, "lang": "en"}) == 1
    assert vset.vadd("k", blob(Y), "b") == 1
    assert vset.vadd("k", [2.0, 1.0, 0.0], "c", attributes='{"n":2,"lang":"de"}') == 1
    return vset


# ---- connections ----


@pytest.mark.parametrize(
    "options",
    [{}, {"protocol": 2}, {"protocol": 3}, {"client_name": "suite"}, {"db": 0}, {"health_check_interval": 1}],
    ids=str,
)
def test_connects_with(server, options):
    with server.client(**options) as client:
        assert client.ping() is True
        assert client.echo("hello") == b"hello"


@pytest.mark.parametrize("protocol", [2, 3])
def test_password(new_server, protocol):
    server = new_server(password="correct horse")
    with server.client(protocol=protocol) as client:
        assert client.ping() is True
        assert "correct horse" not in str(client.config_get("*"))
    with server.client(protocol=protocol, username="default") as client:
        assert client.ping() is True
    with (
        server.client(protocol=protocol, password="wrong") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    with server.client(protocol=protocol, password=None) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_client_and_select(client):
    assert client.client_setname("one") is True
    assert client.client_getname() == "one"
    number = client.client_id()
    info = client.client_info()
    assert (info["id"], info["name"], info["lib-name"]) == (number, "one", "redis-py")
    assert client.select(0) is True
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        client.select(1)


def test_hello_gives_the_map_of_the_contract(client):
    protocol = client.connection_pool.connection_kwargs["protocol"]
    answer = raw(client, "HELLO", protocol)
    if protocol == 2:
        answer = dict(zip(answer[::2], answer[1::2]))
    assert answer["server"] == "redis" and answer["proto"] == protocol
    assert set(answer) == {"server", "version", "proto", "id", "mode", "role", "modules"}
    with pytest.raises(redis.ResponseError, match="NOPROTO"):
        raw(client, "HELLO", 4)


def test_command_table(client):
    names = (
        "VADD",
        "VSIM",
        "VREM",
        "VCARD",
        "VDIM",
        "VEMB",
        "VGETATTR",
        "VSETATTR",
        "VINFO",
        "VISMEMBER",
        "MULTI",
        "PING",
    )
    assert client.command_count() >= len(names)
    assert len(client.execute_command("COMMAND INFO", *names)) == len(names)
    docs = client.execute_command("COMMAND DOCS", "VADD")
    docs = docs if isinstance(docs, dict) else dict(zip(docs[::2], docs[1::2]))
    assert [name.lower() for name in docs] == ["vadd"]
    assert "summary" in str(docs) and "arguments" in str(docs)


def test_info_and_config(client):
    info = client.info()
    for field in ("redis_version", "used_memory", "connected_clients", "total_commands_processed"):
        assert field in info
    assert info["loading"] == 0
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert client.config_get("no-such-option") == {}


def test_unknown_command_and_arity_are_errors_and_the_connection_goes_on(client):
    with pytest.raises(redis.ResponseError, match="unknown command 'NOSUCH'"):
        client.execute_command("NOSUCH", "x")
    with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'VCARD' command"):
        client.execute_command("vcard")
    assert client.ping() is True


def test_quit_closes(client):
    connection = client.connection_pool.get_connection()
    connection.send_command("QUIT")
    assert connection.read_response() == "OK"
    with pytest.raises(redis.ConnectionError):
        connection.read_response()
    connection.disconnect()


# ---- vectors ----


def test_vset_search(client):
    vset = fill(client)
    assert vset.vsim("k", X) == ["a", "c", "b"]
    assert vset.vsim("k", blob(Y), count=2) == ["b", "c"]
    assert vset.vsim("k", "a", count=1) == ["a"]
    scores = vset.vsim("k", X, with_scores=True)
    assert list(scores) == ["a", "c", "b"]
    assert scores["a"] == pytest.approx(1, abs=1e-3) and scores["b"] == pytest.approx(RIGHT_ANGLE, abs=1e-3)
    attributes = {"a": {"n": 1, "lang": "en"}, "b": None, "c": {"n": 2, "lang": "de"}}
    assert vset.vsim("k", X, with_attribs=True) == attributes
    both = vset.vsim("k", X, with_scores=True, with_attribs=True)
    assert {name: row["attributes"] for name, row in both.items()} == attributes
    assert {name: row["score"] for name, row in both.items()} == scores


def test_vset_search_options(client):
    vset = fill(client)
    assert vset.vsim("k", X, filter=".n >= 1", filter_ef=50) == ["a", "c"]
    assert vset.vsim("k", X, filter='.lang in ["de", "fr"]', truth=True, no_thread=True, ef=20) == ["c"]
    assert vset.vsim("k", X, filter=".n > 5", with_scores=True) == {}
    assert vset.vsim("k", X, epsilon=0.2) == ["a", "c"]
    assert vset.vsim("missing", X) == []
    with pytest.raises(redis.ResponseError, match="syntax error in FILTER expression near"):
        vset.vsim("k", X, filter=".n ==")
    with pytest.raises(redis.ResponseError, match="element not found in set"):
        vset.vsim("k", "missing")
    with pytest.raises(redis.ResponseError, match="Vector dimension mismatch - got 2 but set has 3"):
        vset.vsim("k", [1.0, 0.0])


def test_vset_elements(client):
    vset = fill(client)
    assert (vset.vcard("k"), vset.vdim("k"), vset.vcard("missing")) == (3, 3, 0)
    with pytest.raises(redis.ResponseError, match="key does not exist"):
        vset.vdim("missing")
    assert vset.vemb("k", "c") == pytest.approx([2.0, 1.0, 0.0], abs=0.02)
    assert vset.vemb("k", "missing") is None
    raw_form = vset.vemb("k", "c", raw=True)
    assert (raw_form["quantization"], len(raw_form["raw"])) == ("int8", 3)
    assert raw_form["l2"] == pytest.approx(5**0.5, rel=1e-4) and raw_form["range"] > 0
    assert client.execute_command("VISMEMBER", "k", "a") == 1
    assert client.execute_command("VISMEMBER", "k", "missing") == 0
    assert client.execute_command("VISMEMBER", "missing", "a") == 0
    info = vset.vinfo("k")
    assert (info["quant-type"], info["vector-dim"], info["size"], info["attributes-count"]) == (
        "int8",
        3,
        3,
        2,
    )
    assert vset.vinfo("missing") is None


def test_vset_attributes(client):
    vset = fill(client)
    assert vset.vgetattr("k", "a") == {"n": 1, "lang": "en"}
    assert vset.vgetattr("k", "b") is None and vset.vgetattr("k", "missing") is None
    assert vset.vsetattr("k", "b", {"n": 3}) == 1
    assert vset.vsim("k", X, filter=".n == 3") == ["b"]
    assert client.execute_command("VSETATTR", "k", "b", "") == 1
    assert vset.vgetattr("k", "b") is None
    assert vset.vsetattr("k", "missing", {"n": 3}) == 0


def test_an_update_is_seen_at_once_and_keeps_the_attributes(client):
    vset = fill(client)
    assert vset.vadd("k", Z, "a") == 0
    assert vset.vsim("k", Z, count=1) == ["a"]
    assert vset.vgetattr("k", "a") == {"n": 1, "lang": "en"}
    assert vset.vcard("k") == 3


def test_removing_the_last_element_removes_the_key(client):
    vset = fill(client)
    assert [vset.vrem("k", name) for name in ("a", "b", "missing", "a")] == [1, 1, 0, 0]
    assert (client.exists("k"), client.type("k")) == (1, "vectorset")
    assert vset.vrem("k", "c") == 1
    assert (client.exists("k"), client.type("k"), client.dbsize()) == (0, "none", 0)


@pytest.mark.parametrize(
    ("options", "quantisation"),
    [
        ({}, "int8"),
        ({"quantization": QuantizationOptions.Q8}, "int8"),
        ({"quantization": QuantizationOptions.NOQUANT}, "f32"),
        ({"quantization": QuantizationOptions.BIN}, "bin"),
        ({"cas": True, "ef": 50, "numlinks": 8}, "int8"),
    ],
    ids=str,
)
def test_vadd_options(client, options, quantisation):
    vset = client.vset()
    for element, vector in (("x", X), ("y", Y), ("z", Z)):
        assert vset.vadd("o", vector, element, attributes={"of": element}, **options) == 1
    info = vset.vinfo("o")
    assert (info["quant-type"], info["hnsw-m"]) == (quantisation, options.get("numlinks", 16))
    assert vset.vsim("o", Y, count=1) == ["y"]
    assert vset.vgetattr("o", "z") == {"of": "z"}


def test_vadd_reduce(client):
    vset = client.vset()
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((20, 32)).astype(np.float32)
    for row, vector in enumerate(vectors):
        assert vset.vadd("r", vector.tobytes(), f"e{row}", reduce_dim=16) == 1
    assert (vset.vdim("r"), vset.vinfo("r")["projection-input-dim"]) == (16, 32)
    assert vset.vsim("r", vectors[7].tobytes(), count=1) == ["e7"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("VALUES", 2, 1, 2, "e"), "Vector dimension mismatch - got 2 but set has 3"),
        (("FP32", b"12345", "e"), "invalid vector specification"),
        (("VALUES", 3, 1, "x", 2, "e"), "invalid vector specification"),
        (("FP32", blob([1, float("nan"), 0]), "e"), "invalid vector specification"),
        (("VALUES", 3, 1, 2, 3, "e", "NOQUANT"), "asked quantization mismatch with existing vector set"),
        (("VALUES", 3, 1, 2, 3, "e", "M", 20), "asked M value mismatch with existing vector set"),
        (("VALUES", 3, 1, 2, 3, "e", "M", 1), "invalid M"),
        (("VALUES", 3, 1, 2, 3, "e", "EF", 0), "invalid EF"),
        (("VALUES", 3, 1, 2, 3, "e", "NOSUCH"), "invalid option after element"),
        (("VALUES", 3, 1, 2, 3), "wrong number of arguments for 'VADD' command"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_vadd_errors_change_nothing(client, arguments, error):
    fill(client)
    with pytest.raises(redis.ResponseError, match=error):
        client.execute_command("VADD", "k", *arguments)
    assert client.vset().vcard("k") == 3


def test_names_are_bytes(server):
    with server.client() as client:
        element, attributes = bytes(range(256)), b"\xff not JSON \x00"
        assert (
            client.execute_command("VADD", b"k\x00\xff", "FP32", blob(X), element, "SETATTR", attributes) == 1
        )
        assert client.execute_command("VADD", b"k\x00\xff", "FP32", blob(Y), b"") == 1
        assert client.execute_command("VSIM", b"k\x00\xff", "ELE", element) == [element, b""]
        assert raw(client, "VGETATTR", b"k\x00\xff", element) == attributes


def test_reply_types_of_each_protocol(client):
    fill(client)
    three = client.connection_pool.connection_kwargs["protocol"] == 3
    added = raw(client, "VADD", "k", "FP32", blob(X), "a")
    assert added is False if three else added == 0 and not isinstance(added, bool)
    scores = raw(client, "VSIM", "k", "ELE", "b", "WITHSCORES", "COUNT", 1)
    assert type(scores) is (dict if three else list)
    score = scores["b"] if three else scores[1]
    assert type(score) is (float if three else str)
    embedded = raw(client, "VEMB", "k", "b")
    assert type(embedded[0]) is (float if three else str) or embedded[0] == 0
    assert type(raw(client, "VINFO", "k")) is (dict if three else list)
    assert raw(client, "VSIM", "missing", "ELE", "b", "WITHSCORES") == []
    assert raw(client, "VSIM", "k", "ELE", "b", "WITHSCORES", "FILTER", ".n == 77") == ({} if three else [])


# ---- keys and the server ----


def test_keys(client):
    vset = client.vset()
    for key in ("one", "two", "three", "four"):
        vset.vadd(key, X, "e")
    assert (client.dbsize(), client.exists("one", "two", "one", "none")) == (4, 3)
    assert client.delete("one", "none") == 1
    assert client.unlink("two") == 1
    assert client.dbsize() == 2
    assert client.flushdb() is True and client.dbsize() == 0
    vset.vadd("five", X, "e")
    assert client.flushall(asynchronous=True) is True and client.dbsize() == 0


def test_saving(client):
    fill(client)
    before = client.lastsave()
    assert client.save() is True
    assert client.lastsave() >= before
    assert unless_busy(client.bgsave)
    assert unless_busy(client.bgrewriteaof)
    assert client.vset().vcard("k") == 3


@pytest.mark.parametrize(
    "end", [{}, {"nosave": True}, {"save": True}, signal.SIGTERM, signal.SIGINT], ids=str
)
def test_a_clean_end_keeps_everything_and_exits_with_0(new_server, end):
    server = new_server()
    with server.client() as client:
        fill(client)
        if isinstance(end, dict):
            # redis-py takes any answer for a failure: the connection has to end without one.
            client.shutdown(**end)
            code = server.process.wait(STOP_MAX_S)
        else:
            code = server.terminate(end)
    assert code == 0
    server.start()
    with server.client() as client:
        assert client.vset().vcard("k") == 3
        assert client.vset().vgetattr("k", "c") == {"n": 2, "lang": "de"}


def test_maxmemory_refuses_writes_and_keeps_reading(new_server):
    server = new_server("--maxmemory", "1mb")
    vectors = np.random.default_rng(2).standard_normal((20_000, 64)).astype(np.float32)
    with server.client() as client:
        with pytest.raises(redis.OutOfMemoryError):
            for row, vector in enumerate(vectors):
                client.execute_command("VADD", "k", "FP32", vector.tobytes(), f"e{row}")
        card = client.execute_command("VCARD", "k") if client.exists("k") else 0
        assert card < len(vectors)
        assert len(client.execute_command("VSIM", "k", "FP32", vectors[0].tobytes())) == min(card, 10)
        assert client.delete("k") == (1 if card else 0)


# ---- pipelines and transactions ----


@pytest.mark.parametrize("transaction", [True, False], ids=["multi", "plain"])
def test_pipeline(client, transaction):
    with client.pipeline(transaction=transaction) as pipe:
        pipe.vset().vadd("k", X, "a")
        pipe.vset().vadd("k", Y, "b")
        pipe.execute_command("VSIM", "k", "VALUES", 3, *X)
        pipe.vset().vrem("k", "a")
        pipe.vset().vcard("k")
        assert pipe.execute() == [1, 1, ["a", "b"], 1, 1]


@pytest.mark.parametrize("transaction", [True, False], ids=["multi", "plain"])
def test_an_error_in_a_pipeline_does_not_stop_the_rest(client, transaction):
    with client.pipeline(transaction=transaction) as pipe:
        pipe.execute_command("VADD", "k", "FP32", blob(X), "a")
        pipe.execute_command("VADD", "k", "FP32", blob([1.0]), "b")
        pipe.execute_command("VCARD", "k")
        answers = pipe.execute(raise_on_error=False)
    assert (answers[0], answers[2]) == (1, 1)
    assert isinstance(answers[1], redis.ResponseError)


def test_an_unknown_command_in_multi_aborts_all(client):
    with client.pipeline(transaction=True) as pipe:
        pipe.execute_command("VADD", "k", "FP32", blob(X), "a")
        pipe.execute_command("NOSUCH")
        with pytest.raises((redis.ResponseError, redis.exceptions.ExecAbortError)):
            pipe.execute()
    assert client.exists("k") == 0


def test_a_long_pipeline_answers_in_order(client):
    with client.pipeline(transaction=False) as pipe:
        for number in range(20_000):
            pipe.echo(str(number)) if number % 3 else pipe.ping()
        answers = pipe.execute()
    assert answers == [str(number) if number % 3 else True for number in range(20_000)]


def test_watch_sees_what_others_change(server, client):
    fill(client)
    with server.client() as other, client.pipeline() as pipe:
        for change in (
            ("VADD", "k", "FP32", blob(Z), "a"),
            ("VSETATTR", "k", "a", "{}"),
            ("VREM", "k", "b"),
            ("DEL", "k"),
            ("VADD", "k", "FP32", blob(Z), "a"),
            ("FLUSHALL",),
        ):
            pipe.watch("k")
            other.execute_command(*change)
            pipe.multi()
            pipe.execute_command("VADD", "mark", "FP32", blob(X), "m")
            with pytest.raises(redis.WatchError):
                pipe.execute()
            assert client.exists("mark") == 0, change


def test_watch_lets_through_what_nobody_changed(server, client):
    fill(client)
    with server.client() as other, client.pipeline() as pipe:
        pipe.watch("k", "missing")
        other.execute_command("VADD", "elsewhere", "FP32", blob(X), "e")
        assert pipe.execute_command("VCARD", "k") == 3
        pipe.multi()
        pipe.execute_command("VREM", "k", "a")
        assert pipe.execute() == [1]
        pipe.watch("k")
        other.execute_command("VREM", "k", "b")
        pipe.unwatch()
        pipe.multi()
        pipe.execute_command("VCARD", "k")
        assert pipe.execute() == [1]


def test_transaction_helper_and_discard(client):
    fill(client)
    assert client.transaction(lambda pipe: pipe.multi() or pipe.execute_command("VCARD", "k"), "k") == [3]
    assert raw(client, "MULTI") == "OK"
    assert raw(client, "VREM", "k", "a") == "QUEUED"
    assert raw(client, "DISCARD") == "OK"
    assert client.vset().vcard("k") == 3
    with pytest.raises(redis.ResponseError, match="EXEC without MULTI"):
        raw(client, "EXEC")


# ---- asyncio ----


@pytest.mark.parametrize("protocol", [2, 3])
def test_asyncio(server, protocol):
    async def run():
        async with redis.asyncio.Redis(
            host=HOST, port=server.port, protocol=protocol, decode_responses=True
        ) as client:
            vset = client.vset()
            assert await client.ping() is True
            assert await vset.vadd("k", X, "a", attributes={"n": 1}) == 1
            assert await vset.vadd("k", blob(Y), "b") == 1
            assert await vset.vsim("k", X) == ["a", "b"]
            assert await vset.vsim("k", "b", with_scores=True, count=1) == {"b": pytest.approx(1, abs=1e-3)}
            assert await vset.vgetattr("k", "a") == {"n": 1}
            assert (await vset.vinfo("k"))["size"] == 2
            async with client.pipeline(transaction=True) as pipe:
                pipe.vset().vrem("k", "a")
                pipe.vset().vcard("k")
                assert await pipe.execute() == [1, 1]
            async with client.pipeline(transaction=True) as pipe:
                await pipe.watch("k")
                await vset.vadd("k", Z, "c")
                pipe.multi()
                pipe.vset().vcard("k")
                with pytest.raises(redis.WatchError):
                    await pipe.execute()

    asyncio.run(run())


def test_asyncio_many_at_once(server):
    async def run():
        pool = redis.asyncio.BlockingConnectionPool(
            host=HOST, port=server.port, max_connections=20, timeout=60
        )
        async with redis.asyncio.Redis(connection_pool=pool) as client:
            vectors = np.random.default_rng(3).standard_normal((500, 16)).astype(np.float32)
            add = [
                client.execute_command("VADD", "k", "FP32", v.tobytes(), f"e{row}")
                for row, v in enumerate(vectors)
            ]
            assert await asyncio.gather(*add) == [1] * len(vectors)
            find = [client.execute_command("VSIM", "k", "FP32", v.tobytes(), "COUNT", 1) for v in vectors]
            assert await asyncio.gather(*find) == [[f"e{row}".encode()] for row in range(len(vectors))]
        await pool.aclose()

    asyncio.run(run())


def test_several_clients_read_while_one_updates(server):
    """An element that is only ever updated is always there."""
    with server.client() as writer, server.client() as reader:
        writer.execute_command("VADD", "k", "FP32", blob(X), "e")
        end = time.monotonic() + 2
        updates = 0
        while time.monotonic() < end:
            with writer.pipeline(transaction=False) as pipe:
                for number in range(50):
                    pipe.execute_command("VADD", "k", "FP32", blob([1, number, updates]), "e")
                updates += 1
                pipe.execute()
            with reader.pipeline(transaction=False) as pipe:
                for _ in range(20):
                    pipe.execute_command("VSIM", "k", "FP32", blob(X))
                    pipe.execute_command("VISMEMBER", "k", "e")
                assert pipe.execute() == [[b"e"], 1] * 20
        assert info_of(reader, "k")["size"] == 1
