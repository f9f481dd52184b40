"""Vecdis against a real Redis 8 if there is one ($REDIS8_PORT; it will be emptied), and each deliberate difference on its own."""

import math
import os
import struct

import pytest

import differential
from differential_table import DIFFERENCES, NOT_SENT
from wire import Connection, encode, show

COMMANDS = 2000
SEED = "ci"
X, Y = (b"VALUES", 2, 1, 0), (b"VALUES", 2, 0, 1)
BAD_VECTOR = "-ERR invalid vector specification"

TESTS = {}


def row(name):
    """Registers the test of a row of the table."""

    def register(test):
        TESTS[name] = test
        return test

    return register


@pytest.mark.skipif("REDIS8_PORT" not in os.environ, reason="needs a Redis 8: set REDIS8_PORT")
def test_replies_equal_those_of_redis(new_server, capsys):
    server = new_server("--enable-debug-command", "yes")
    totals, reduced, kinds = differential.compare_servers(server.port, int(os.environ["REDIS8_PORT"]), SEED, COMMANDS)
    with capsys.disabled():
        differential.report(totals, reduced, kinds)
    assert totals["commands"] >= COMMANDS
    assert totals["different"] == 0


def test_every_difference_has_a_test():
    names = [difference.name for difference in DIFFERENCES] + [name for name, _ in NOT_SENT]
    assert sorted(TESTS) == sorted(names)


@pytest.mark.parametrize("name", [difference.name for difference in DIFFERENCES] + [name for name, _ in NOT_SENT])
def test_difference(name, server):
    connection = Connection(server.port)
    connection.call("HELLO", 3)
    try:
        TESTS[name](connection)
        assert show(connection.call("PING")) == "+PONG"
    finally:
        connection.close()


def answers(connection, *command):
    """The reply as text."""
    return show(connection.call(*command))


def add(connection, key, element, vector=X, *options):
    assert answers(connection, "VADD", key, *vector, element, *options) == "#True"


def found(connection, expression, *more):
    """Elements that a FILTER lets through, or the error."""
    return answers(connection, "VSIM", "k", *X, "FILTER", expression, *more)


# ---- vectors ----


@row("not-finite")
def not_finite(c):
    for odd in (math.nan, math.inf, -math.inf):
        assert answers(c, "VADD", "k", "FP32", struct.pack("<2f", 1, odd), "e") == BAD_VECTOR
    for odd in ("nan", "inf", "1e39"):
        assert answers(c, "VADD", "k", "VALUES", 2, 1, odd, "e") == BAD_VECTOR
    add(c, "k", "e")
    assert answers(c, "VSIM", "k", "FP32", struct.pack("<2f", 1, math.nan)) == BAD_VECTOR


@row("larger-projection")
def larger_projection(c):
    assert answers(c, "VADD", "k", "REDUCE", 3, *X, "e") == BAD_VECTOR
    assert answers(c, "VADD", "k", "REDUCE", 2, *X, "e") == "#True"


@row("dimension-limit")
def dimension_limit(c):
    assert answers(c, "VADD", "k", "FP32", struct.pack("<65537f", *[1.0] * 65537), "e") == BAD_VECTOR
    assert answers(c, "VADD", "k", "FP32", struct.pack("<65536f", *[1.0] * 65536), "e") == "#True"


@row("name-limit")
def name_limit(c):
    assert answers(c, "VADD", "k", *X, "n" * 65537) == "-ERR an element's name can have 65536 bytes at most"
    add(c, "k", "n" * 65536)


@row("attribute-limit")
def attribute_limit(c):
    refusal = "-ERR an element's attributes can have 1048576 bytes at most"
    assert answers(c, "VADD", "k", *X, "e", "SETATTR", "a" * 1048577) == refusal
    add(c, "k", "e", X, "SETATTR", "a" * 1048576)
    assert answers(c, "VSETATTR", "k", "e", "a" * 1048577) == refusal


@row("projected-zeros")
def projected_zeros(c):
    # The first row of the projection adds all components up.
    add(c, "k", "e", (b"REDUCE", 1, b"VALUES", 2, 1, -1), "BIN")
    assert [component.value for component in c.call("VEMB", "k", "e").value] == [b"-1"]


@row("raw-range")
def raw_range(c):
    add(c, "k", "e", (b"VALUES", 3, 0.3, 0.7, 1.1))
    _, codes, norm, scale = (part.value for part in c.call("VEMB", "k", "e", "RAW").value)
    stored = [code * float(scale) / 127 for code in struct.unpack("3b", codes)]
    assert math.isclose(math.hypot(*stored), 1, rel_tol=1e-6)
    assert math.isclose(float(norm), math.hypot(0.3, 0.7, 1.1), rel_tol=1e-6)


# ---- search ----


@row("filter-limits")
def filter_limits(c):
    add(c, "k", "a", X, "SETATTR", '{"n":1}')
    assert found(c, ".n" + " " * 8190) == '["a"]'
    assert found(c, ".n" + " " * 8191) == "-ERR FILTER expression is longer than 8192 bytes"
    assert found(c, "(" * 60 + ".n" + ")" * 60) == '["a"]'
    assert found(c, "(" * 65 + ".n" + ")" * 65) == "-ERR FILTER expression is nested deeper than 64 levels"


@row("ef-limit")
def ef_limit(c):
    add(c, "k", "e")
    assert answers(c, "VSIM", "k", *X, "EF", 1000001) == "-ERR invalid EF"
    assert answers(c, "VSIM", "k", *X, "EF", 1000000) == '["e"]'


@row("filter-null")
def filter_null(c):
    add(c, "k", "a", X, "SETATTR", '{"n":null}')
    add(c, "k", "b", X, "SETATTR", '{"n":1}')
    assert found(c, ".n == null") == '["a"]'
    assert found(c, ".n != null") == '["b"]'


@row("filter-repeated-not")
def filter_repeated_not(c):
    add(c, "k", "a", X, "SETATTR", '{"n":0}')
    add(c, "k", "b", X, "SETATTR", '{"n":5}')
    assert found(c, "!!.n") == found(c, "not not .n") == '["b"]'
    assert found(c, "!!!.n") == '["a"]'


@row("filter-substring")
def filter_substring(c):
    add(c, "k", "a", X, "SETATTR", '{"s":"a text"}')
    add(c, "k", "b", X, "SETATTR", '{"s":"other"}')
    assert found(c, '"text" in .s') == '["a"]'
    assert found(c, '.s in "an other one"') == '["b"]'


@row("filter-escapes")
def filter_escapes(c):
    add(c, "k", "a", X, "SETATTR", r'{"s":"a\"b"}')
    add(c, "k", "b", X, "SETATTR", '{"s":"ab"}')
    assert found(c, r'.s == "a\"b"') == '["a"]'


@row("filter-order")
def filter_order(c):
    add(c, "k", "a", X, "SETATTR", '{"n":1}')
    for expression in ("1 2 +", "()1", "1 + (2 *) 3", ".n not"):
        assert found(c, expression).startswith("-ERR syntax error in FILTER expression near: ")


@row("filter-lone-dot")
def filter_lone_dot(c):
    add(c, "k", "a", X, "SETATTR", '{"":1}')
    assert found(c, ".") == "-ERR syntax error in FILTER expression near: ."


@row("filter-complete")
def filter_complete(c):
    for number in range(300):
        c.call("VADD", "k", "VALUES", 2, 1, number, f"e{number}", "SETATTR", f'{{"n":{number}}}')
    # The elements that pass are the farthest ones.
    assert len(c.call("VSIM", "k", *X, "FILTER", ".n >= 290", "FILTER-EF", 1, "COUNT", 10).value) == 10


@row("exact-search")
def exact_search(c):
    for number in range(300):
        c.call("VADD", "k", "VALUES", 2, 1, number, f"e{number}", "NOQUANT", "M", 4, "EF", 1)
    names = [item.value for item in c.call("VSIM", "k", *X, "COUNT", 20, "EF", 1).value]
    assert names == [b"e%d" % number for number in range(20)]


@row("bin-scores")
def bin_scores(c):
    add(c, "k", "e", (b"VALUES", 2, 1, 0.5), "BIN")
    score = float(c.call("VSIM", "k", b"VALUES", 2, 1, 1, "WITHSCORES").value[0][1].value)
    assert math.isclose(score, (1 + 1.5 / math.sqrt(2.5)) / 2, abs_tol=1e-6)


@row("q8-scores")
def q8_scores(c):
    add(c, "k", "e", (b"VALUES", 3, 1, 0.0035, -0.0035))
    score = float(c.call("VSIM", "k", b"VALUES", 3, 0.0035, 1, 1, "WITHSCORES").value[0][1].value)
    exact = (1 + 0.0035 / math.sqrt((1 + 2 * 0.0035**2) * (2 + 0.0035**2))) / 2
    assert math.isclose(score, exact, abs_tol=1e-6)


@row("bin-candidates")
def bin_candidates(c):
    # All have the query's bits; the lengths of their components tell them apart.
    for number in range(30):
        c.call("VADD", "k", "VALUES", 2, 1, 1 + number, f"e{number}", "BIN")
    names = [item.value for item in c.call("VSIM", "k", b"VALUES", 2, 1, 1, "COUNT", 5).value]
    assert names == [b"e%d" % number for number in range(5)]


# ---- what there is to say about a set ----


@row("vinfo-fields")
def vinfo_fields(c):
    add(c, "k", "e")
    names = [name.value.decode() for name, _ in c.call("VINFO", "k").value]
    assert names[:9] == [
        "quant-type", "hnsw-m", "vector-dim", "projection-input-dim", "size", "max-level", "attributes-count", "vset-uid",
        "hnsw-max-node-uid",
    ]  # fmt: skip
    assert {"metric", "rows", "dead-rows"} <= set(names[9:])


@row("cas-attributes")
def cas_attributes(c):
    add(c, "k", "a")
    add(c, "k", "b", Y, "CAS", "SETATTR", "{}")
    assert {name.value: value.value for name, value in c.call("VINFO", "k").value}[b"attributes-count"] == 1


@row("no-graph")
def no_graph(c):
    add(c, "k", "a")
    add(c, "k", "b", Y)
    assert answers(c, "VLINKS", "k", "a") == "[[]]"
    assert answers(c, "VLINKS", "k", "a", "WITHSCORES") == "[%{}]"
    assert answers(c, "VLINKS", "k", "missing") == "null"


@row("vrange")
def vrange(c):
    for name in ("b", "a", "c", "ab"):
        add(c, "k", name)
    assert answers(c, "VRANGE", "k", "-", "+") == '["a", "ab", "b", "c"]'
    assert answers(c, "VRANGE", "k", "(a", "[b", 1) == '["ab"]'
    assert answers(c, "VRANGE", "k", "[b", "[a") == answers(c, "VRANGE", "missing", "-", "+") == "[]"
    assert answers(c, "VRANGE", "k", "+", "-") == "-ERR '-' can only be used as first argument, '+' only as second"


# ---- commands ----


@row("several-elements")
def several_elements(c):
    for name in ("a", "b", "c"):
        add(c, "k", name)
    assert answers(c, "VREM", "k", "a", "missing", "b") == ":2"
    assert answers(c, "VREM", "k", "c") == "#True"


@row("arity-when-queued")
def arity_when_queued(c):
    c.call("MULTI")
    assert answers(c, "VCARD") == "-ERR wrong number of arguments for 'VCARD' command"
    assert answers(c, "DISCARD") == "+OK"


@row("abort-for-refusal")
def abort_for_arity(c):
    c.call("MULTI")
    assert answers(c, "VADD", "k", *X, "e") == "+QUEUED"
    c.call("VADD", "k")
    assert answers(c, "EXEC") == "-EXECABORT Transaction discarded because of previous errors."
    assert answers(c, "EXISTS", "k") == ":0"


@row("watch-unchanged")
def watch_unchanged(c):
    add(c, "k", "e")
    c.call("WATCH", "k")
    assert answers(c, "VREM", "k", "missing") == "#False"
    c.call("MULTI")
    c.call("VCARD", "k")
    assert answers(c, "EXEC") == "[:1]"


@row("quoted-bytes")
def quoted_bytes(c):
    assert c.call(b"nosuch", b"a\xff").value.decode() == "ERR unknown command 'nosuch', with args beginning with: 'a\ufffd' "


@row("argument-limit")
def argument_limit(c):
    other = Connection(c.socket.getpeername()[1])
    assert other.rest_of_stream(b"*1048577\r\n") == b"-ERR Protocol error: invalid multibulk length\r\n"
    other.close()


@row("hello-in-multi")
def hello_in_multi(c):
    c.call("MULTI")
    assert answers(c, "HELLO", 3) == "-ERR Command not allowed inside a transaction"
    assert answers(c, "EXEC") == "-EXECABORT Transaction discarded because of previous errors."


@row("one-database")
def one_database(c):
    assert answers(c, "SELECT", 1) == "-ERR DB index is out of range"
    assert answers(c, "SELECT", 0) == "+OK"


@row("other-types")
def other_types(c):
    assert answers(c, "GET", "k") == "-ERR unknown command 'GET', with args beginning with: 'k' "


@row("own-commands")
def own_commands(c):
    add(c, "k", "e")
    assert answers(c, "VCOUNT", "k") == ":1"


@row("identity")
def identity(c):
    fields = {name.value: value for name, value in c.call("HELLO", 3).value}
    assert fields[b"server"].value == b"redis" and fields[b"proto"] == (":", 3)
    assert fields[b"version"].kind == "$" and fields[b"id"].kind == ":" and fields[b"modules"].kind == "*"


@row("descriptions")
def descriptions(c):
    assert c.call("INFO", "server").kind == "="
    ((name, fields),) = c.call("COMMAND", "DOCS", "VADD").value
    assert name.value == b"VADD" and any(field.value == b"summary" for field, _ in fields.value)
    assert c.call("COMMAND", "INFO", "VADD").value[0].value[1] == (":", -5)


# ---- what Redis 8.0 cannot be sent ----


@row("huge-numbers")
def huge_numbers(c):
    add(c, "k", "e")
    assert answers(c, "VSIM", "k", *X, "COUNT", 99999999999) == '["e"]'
    assert answers(c, "VSIM", "k", *X, "EF", 99999999999) == "-ERR invalid EF"
    assert answers(c, "VADD", "r", "REDUCE", 99999999999, *X, "e") == BAD_VECTOR


@row("failed-login-in-pipeline")
def failed_login_in_pipeline(c):
    c.send(encode([b"PING"]) + encode([b"AUTH", b"nobody", b"pw"]) + encode([b"ECHO", b"x"]))
    replies = [show(c.read()) for _ in range(3)]
    assert replies == ["+PONG", "-WRONGPASS invalid username-password pair or user is disabled.", '"x"']


@row("silence-in-transaction")
def silence_in_transaction(c):
    for command in (["MULTI"], ["CLIENT", "REPLY", "SKIP"], ["ECHO", "inside"], ["EXEC"], ["ECHO", "skipped"], ["ECHO", "end"]):
        c.send(encode([word.encode() for word in command]))
    replies = []
    while not replies or replies[-1] != '"end"':
        replies.append(show(c.read()))
    assert replies[:3] == ["+OK", "+QUEUED", "+QUEUED"]
