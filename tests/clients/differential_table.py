"""The deliberate differences between Vecdis and Redis 8.0: each with its reason and the narrowest condition that was found.

A row's `allows` looks at a case whose replies differ. `diverges` says that the servers' data or transactions now differ too, so
that the sequence cannot go on. Each row has a test of its own in test_differential.py.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from differential_compare import EVERYTHING, Case, integer, vector_in

# What is above this is infinite as an f32.
F32_MAX = 3.4028235677973366e38
DIMENSION_MAX = 65536
EF_MAX = 1000000
ARGUMENTS_MAX = 1 << 20
ATTRIBUTE_BYTES_MAX = 1 << 20
FILTER_BYTES_MAX = 8192
# Commands of Vecdis that Redis does not have.
OWN_COMMANDS = {b"VCREATE", b"VMADD", b"VGET", b"VSCAN", b"VCOUNT", b"VLIST"}
# VINFO's fields that speak of the graph or of this server alone.
GRAPH_FIELDS = {b"max-level", b"vset-uid", b"hnsw-max-node-uid"}
VINFO_FIELDS = 9
# Commands of Redis's other data types that the generator uses.
OTHER_TYPES = {b"GET"}

# Projections of vectors of a few magnitudes are 0 in this share of the components, at most.
ZEROS_SHARE_MAX = 0.3
# Errors that repeat what the client sent.
QUOTING = (b"ERR unknown command", b"ERR unknown subcommand", b"ERR syntax error in FILTER", b"ERR Unsupported option")

BAD_VECTOR = b"ERR invalid vector specification"
ABORTED = b"EXECABORT Transaction discarded because of previous errors."


@dataclass(frozen=True)
class Difference:
    """A row of the table."""

    name: str
    reason: str
    allows: Callable[[Case], bool]
    diverges: bool = False


def refused(reply, text):
    """Whether the reply is that error."""
    return reply.is_error() and reply.value == text


# ---- vectors ----


def vector_of(case):
    if case.name == b"VSIM":
        return vector_in(case.arguments, 2)[0]
    if case.name == b"VADD":
        return vector_in(case.arguments, 4 if reduced(case) else 2)[0]
    return None


def reduced(case):
    return len(case.arguments) > 3 and case.options[2] == b"REDUCE"


def not_finite(case):
    vector = vector_of(case)
    odd = vector is not None and any(not abs(value) <= F32_MAX for value in vector)
    return odd and refused(case.vecdis, BAD_VECTOR)


def larger_projection(case):
    vector = vector_of(case)
    wanted = integer(case.arguments[3]) if case.name == b"VADD" and reduced(case) else None
    return vector is not None and wanted is not None and wanted > len(vector) and refused(case.vecdis, BAD_VECTOR)


def too_many_dimensions(case):
    vector = vector_of(case)
    return vector is not None and len(vector) > DIMENSION_MAX and refused(case.vecdis, BAD_VECTOR)


def values_after(case, word):
    """The arguments that follow that option."""
    options = case.options
    return [case.arguments[at + 1] for at, option in enumerate(options[:-1]) if at > 3 and option == word]


def large_ef(case):
    over = any((integer(value) or 0) > EF_MAX for value in values_after(case, b"EF"))
    return case.name == b"VSIM" and over and refused(case.vecdis, b"ERR invalid EF")


def long_name(case):
    return case.name == b"VADD" and refused(case.vecdis, b"ERR an element's name can have 65536 bytes at most")


def long_attributes(case):
    long = any(len(a) > ATTRIBUTE_BYTES_MAX for a in case.arguments)
    return long and refused(case.vecdis, b"ERR an element's attributes can have 1048576 bytes at most")


# ---- search ----

STRING = re.compile(rb"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)
REPEATED_NOT = re.compile(rb"(?:!|\bnot\b)\s*(?:!|\bnot\b)")
IN_TEXT = re.compile(rb"\bin\s*(?!\s*\[)")
NULL = re.compile(rb"(?<![.\w-])null\b")


def filter_row(found, redis_refuses):
    """A row about FILTERs in which `found` finds the construct (strings are empty in what it gets, unless it asks)."""

    def allows(case):
        expressions = values_after(case, b"FILTER") if case.name == b"VSIM" else []
        if not any(found(STRING.sub(b'""', e), e) for e in expressions):
            return False
        if redis_refuses:
            return case.redis.is_error() and case.redis.value.startswith(b"ERR syntax error in FILTER")
        return case.reason in ("elements", "elements that match", "Redis misses elements")

    return allows


def has_escape(_, expression):
    return any(b"\\" in text for text in STRING.findall(expression))


def quantised_scores(kind):
    def allows(case):
        if case.name != b"VSIM" or case.reason != "score within rounding":
            return False
        found = case.session.quantisation(case.arguments[1])
        # In a transaction the key may be gone since; BIN is then as good a guess as any.
        return found == kind or (found is None and not case.settled and kind == "bin")

    return allows


def chosen_by_bits(case):
    better = case.reason == "better elements than Redis's" and b"TRUTH" not in case.options[4:]
    return better and case.session.quantisation(case.arguments[1]) == "bin"


def misplaced_operator(case):
    """FILTER whose operators and operands are not in the order that the grammar asks for, such as `1 2 +`."""
    expressions = values_after(case, b"FILTER") if case.name == b"VSIM" else []
    refusals = [r.is_error() and r.value.startswith(b"ERR syntax error in FILTER") for r in (case.vecdis, case.redis)]
    return refusals == [True, False] and any(is_misplaced(e) for e in expressions)


TOKEN = re.compile(
    rb"\s*(?:(?P<operand>-?\.?[0-9][0-9.eE]*(?:(?<=[eE])[+-][0-9]+)?|\.[\w-]+|\"\"|\[[^\[\]]*\]|null\b)|(?P<open>\()|(?P<close>\))"
    rb"|(?P<no>!(?!=)|not\b)|(?P<operator>\*\*|[<>=!]=|&&|\|\||[-+*/%<>]|(?:and|or|in)\b))"
)


def is_misplaced(expression):
    """Whether it consists of the right words in a wrong order."""
    text, at, wants_operand, misplaced = STRING.sub(b'""', expression).strip(), 0, True, False
    while at < len(text):
        if not wants_operand and text[at : at + 1] == b"-":
            kind, at = "operator", at + 1
        else:
            token = TOKEN.match(text, at)
            if token is None:
                return False
            kind, at = token.lastgroup, token.end()
        misplaced |= wants_operand != (kind in ("operand", "open", "no"))
        wants_operand = kind in ("open", "operator", "no")
    return misplaced or wants_operand


def lone_dot(case):
    """FILTER that ends with a dot that has no name."""
    expressions = values_after(case, b"FILTER") if case.name == b"VSIM" else []
    found = any(re.search(rb"(?<![\w-])\.$", e) for e in expressions)
    return found and refused(case.vecdis, b"ERR syntax error in FILTER expression near: .")


def large_filter(case):
    expressions = values_after(case, b"FILTER") if case.name == b"VSIM" else []
    long = any(len(e) > FILTER_BYTES_MAX for e in expressions) and b"ERR FILTER expression is longer than 8192 bytes"
    deep = bool(expressions) and b"ERR FILTER expression is nested deeper than 64 levels"
    return any(text and refused(case.vecdis, text) for text in (long, deep))


def misses_elements(filtered):
    def allows(case):
        has_filter = case.name == b"VSIM" and b"FILTER" in case.options[4:]
        return case.reason == "Redis misses elements" and has_filter == filtered

    return allows


# ---- what there is to say about a set ----


def projected_zeros(case):
    """Sets with REDUCE: what is 0 after the projection, a vector or a component of which a BIN set keeps the sign."""
    if case.reason == "projected to zero":
        return True
    count = re.fullmatch(r"(\d+) bits", case.reason) if case.name == b"VEMB" else None
    if not count or not case.session.is_projected(case.arguments[1]):
        return False
    return int(count[1]) <= 1 + case.session.info(case.arguments[1])[b"vector-dim"] * ZEROS_SHARE_MAX


def raw_range(case):
    return case.name == b"VEMB" and case.reason == "range within rounding"


def pairs(reply):
    """A map, or RESP2's flat array, as a list of pairs; None if it is neither."""
    if reply.kind == "%":
        return reply.value
    if reply.kind == "*" and reply.value is not None and len(reply.value) % 2 == 0:
        return list(zip(reply.value[::2], reply.value[1::2]))
    return None


def vinfo(free):
    """VINFO: Redis's fields in its order; only those named in `free` may differ."""

    def allows(case):
        ours, theirs = pairs(case.vecdis), pairs(case.redis)
        if case.name != b"VINFO" or not ours or not theirs or len(theirs) != VINFO_FIELDS:
            return False
        for (our_name, our_value), (name, value) in zip(ours, theirs):
            same = our_value == value or (name.value in free and our_value.kind == value.kind)
            if our_name != name or not same:
                return False
        return True

    return allows


def cas_count(case):
    return case.session.cas_attributes and vinfo(GRAPH_FIELDS | {b"attributes-count"})(case)


def empty_graph(case):
    """VLINKS: one layer without neighbours."""
    return (
        case.name == b"VLINKS"
        and case.both("*")
        and bool(case.vecdis.value)
        and all(not layer.value for layer in case.vecdis.value)
    )


def vrange(case):
    """VRANGE: checked against the names that Redis has."""
    if case.name != b"VRANGE" or not case.redis.is_error() or not case.redis.value.startswith(b"ERR unknown command"):
        return False
    names = case.session.probes[1].call("VRANDMEMBER", case.arguments[1], EVERYTHING) if len(case.arguments) > 1 else None
    expected = range_of(case.arguments, sorted(item.value for item in names.value) if names else [])
    if isinstance(expected, bytes):
        return refused(case.vecdis, expected)
    return case.vecdis.kind == "*" and [item.value for item in case.vecdis.value] == expected


def range_of(arguments, names):
    """What VRANGE gives for these names in order: a list, or the text of an error."""
    if len(arguments) not in (4, 5):
        return b"ERR wrong number of arguments for 'VRANGE' command"
    start, end = arguments[2], arguments[3]
    if len(arguments) == 5 and not re.fullmatch(rb"0|-?[1-9][0-9]*", arguments[4]):
        return b"ERR invalid COUNT value"
    valid = lambda bound: bound in (b"-", b"+") or (len(bound) > 1 and bound[:1] in b"[(")
    if not valid(start):
        return b"ERR invalid start range format"
    if not valid(end):
        return b"ERR invalid end range format"
    if start == b"+" or end == b"-":
        return b"ERR '-' can only be used as first argument, '+' only as second"
    after = lambda name: start == b"-" or name > start[1:] or (name == start[1:] and start[:1] == b"[")
    before = lambda name: end == b"+" or name < end[1:] or (name == end[1:] and end[:1] == b"[")
    count = int(arguments[4]) if len(arguments) == 5 else -1
    found = [name for name in names if after(name) and before(name)]
    return found if count < 0 else found[:count]


# ---- commands ----


def several_elements(case):
    removed = case.name == b"VREM" and len(case.arguments) > 3 and case.vecdis.kind == ":"
    return removed and refused(case.redis, b"ERR wrong number of arguments for 'VREM' command")


def refused_when_queued(case):
    vector_command = case.name.startswith(b"V") and case.redis == ("+", b"QUEUED")
    return vector_command and refused(case.vecdis, b"ERR wrong number of arguments for '%s' command" % case.name)


def aborted_for_refusal(case):
    return case.name == b"EXEC" and refused(case.vecdis, ABORTED) and case.reason == "queue"


def watched_but_unchanged(case):
    """EXEC after a command that might have changed a watched key and did not."""
    aborted = case.name == b"EXEC" and case.redis.value is None and case.vecdis.kind == "*" and case.vecdis.value is not None
    return aborted and any(keys & case.session.spared for keys in case.session.watched.values())


def quoted_bytes(case):
    """An error that repeats bytes of the command which are no text."""
    if not case.both("-") or not all(r.value.startswith(QUOTING) for r in (case.vecdis, case.redis)):
        return False
    shared = os.path.commonprefix([case.vecdis.value, case.redis.value])
    odd = [
        re.split(rb"[\x00-\x1f\x7f-\xff]", a, maxsplit=1)[0]
        for a in case.arguments
        if not a.isascii() or not a.decode().isprintable()
    ]
    return any(shared.endswith(before) for before in odd)


def many_arguments(case):
    counted = re.match(rb"\*(\d+)\r\n", case.arguments[0]) if case.vecdis.kind == "bytes" else None
    over = counted is not None and int(counted[1]) > ARGUMENTS_MAX
    return over and case.vecdis.value == b"-ERR Protocol error: invalid multibulk length\r\n" and case.redis.value == b""


def one_database(case):
    return case.name == b"SELECT" and case.redis == ("+", b"OK") and refused(case.vecdis, b"ERR DB index is out of range")


def hello_in_multi(case):
    refusal = b"ERR Command not allowed inside a transaction"
    return case.name == b"HELLO" and case.redis == ("+", b"QUEUED") and refused(case.vecdis, refusal)


def other_type(case):
    return case.name in OTHER_TYPES and case.vecdis.is_error() and case.vecdis.value.startswith(b"ERR unknown command")


def own_command(case):
    unknown = case.redis.is_error() and case.redis.value.startswith(b"ERR unknown command")
    return case.name in OWN_COMMANDS and unknown and not (case.vecdis.is_error() and b"unknown command" in case.vecdis.value)


def identity(case):
    """HELLO: version, connection number and the module's place are the server's own."""
    ours, theirs = pairs(case.vecdis), pairs(case.redis)
    if case.name != b"HELLO" or case.vecdis.kind != case.redis.kind or not ours or not theirs or len(ours) != len(theirs):
        return False
    own = (b"version", b"id", b"modules")
    return all(a[0] == b[0] and (a[1] == b[1] or (a[0].value in own and a[1].kind == b[1].kind)) for a, b in zip(ours, theirs))


def description(case):
    about = case.name == b"INFO" or case.options[:2] in ([b"COMMAND", b"DOCS"], [b"COMMAND", b"INFO"])
    return about and case.vecdis.kind == case.redis.kind and not case.vecdis.is_error()


DIFFERENCES = [
    Difference("not-finite", "NaN and infinite components make every score meaningless; Redis takes them", not_finite, True),
    Difference(
        "larger-projection",
        "REDUCE to more dimensions than the vector has makes no sense; later Redis refuses it too",
        larger_projection,
        True,
    ),
    Difference("dimension-limit", "65,536 dimensions at most, as later Redis", too_many_dimensions, True),
    Difference("name-limit", "an element's name has 65,536 bytes at most", long_name, True),
    Difference("attribute-limit", "an element's attributes have 1,048,576 bytes at most", long_attributes, True),
    Difference("filter-limits", "a FILTER has 8,192 bytes and 64 levels at most", large_filter),
    Difference("ef-limit", "EF above 1,000,000 is refused, as in later Redis", large_ef),
    Difference("filter-null", "`null` in FILTER, as in later Redis", filter_row(lambda bare, _: NULL.search(bare), True)),
    Difference(
        "filter-repeated-not", "`!!x` in FILTER, as in later Redis", filter_row(lambda bare, _: REPEATED_NOT.search(bare), True)
    ),
    Difference(
        "filter-substring",
        "`in` looks for a text within a text, as in later Redis",
        filter_row(lambda bare, _: IN_TEXT.search(bare), False),
    ),
    Difference(
        "filter-escapes", "backslash escapes in FILTER's strings are decoded, as in later Redis", filter_row(has_escape, False)
    ),
    Difference(
        "filter-lone-dot", "a dot without a name is a syntax error; Redis takes it as a field at the very end", lone_dot
    ),
    Difference(
        "filter-order", "operators stand between operands; Redis takes some that do not, such as `1 2 +`", misplaced_operator
    ),
    Difference(
        "filter-complete", "a FILTER never costs results; Redis gives up after FILTER-EF candidates", misses_elements(True)
    ),
    Difference("exact-search", "all elements are looked at; Redis looks at those its graph leads to", misses_elements(False)),
    Difference("bin-scores", "scores of BIN sets come from the originals", quantised_scores("bin")),
    Difference(
        "q8-scores", "scores of Q8 sets come from the originals; Redis rounds vectors and queries", quantised_scores("int8")
    ),
    Difference(
        "bin-candidates", "BIN sets: candidates are chosen by their bits, then ordered by the originals", chosen_by_bits
    ),
    Difference(
        "projected-zeros", "what a projection makes 0 is 0; Redis keeps the rounding error and its sign", projected_zeros
    ),
    Difference("raw-range", "VEMB RAW of Q8: the range makes the codes a vector of length 1", raw_range),
    Difference("vinfo-fields", "VINFO has more fields, and no graph to tell of", vinfo(GRAPH_FIELDS)),
    Difference("cas-attributes", "attributes set with CAS count; Redis 8.0 forgets to count them", cas_count),
    Difference("no-graph", "VLINKS: there is no graph, so nobody has neighbours", empty_graph),
    Difference("vrange", "VRANGE is of a later Redis", vrange),
    Difference("several-elements", "VREM takes several elements", several_elements, True),
    Difference(
        "arity-when-queued",
        "V commands with a wrong number of arguments are refused when queued, as other commands",
        refused_when_queued,
    ),
    Difference("abort-for-refusal", "after a command that only we refuse to queue, EXEC refuses the transaction", aborted_for_refusal, True),
    Difference(
        "watch-unchanged",
        "EXEC fails only if a watched key changed; in Redis an attempt is enough",
        watched_but_unchanged,
        True,
    ),
    Difference("quoted-bytes", "errors that repeat a command show bytes that are no text as U+FFFD", quoted_bytes),
    Difference("argument-limit", "1,048,576 arguments at most", many_arguments),
    Difference("hello-in-multi", "HELLO cannot change the protocol in the middle of EXEC's replies", hello_in_multi),
    Difference("one-database", "there is database 0 only", one_database),
    Difference("other-types", "there are no other data types", other_type),
    Difference("own-commands", "commands that Redis does not have", own_command),
    Difference("identity", "HELLO tells the server's own version", identity),
    Difference("descriptions", "INFO and COMMAND tell about this server", description),
]


# Differences that cannot be shown by sending the same commands to both, because Redis 8.0 goes wrong.
NOT_SENT = [
    ("huge-numbers", "COUNT, EF and REDUCE of billions end Redis, which allocates for them"),
    (
        "failed-login-in-pipeline",
        "Redis loses the reply to a failed AUTH or HELLO AUTH that is not the first command of a read",
    ),
    (
        "silence-in-transaction",
        "CLIENT REPLY SKIP or OFF queued by MULTI: Redis then sends an array that is shorter than it says",
    ),
]


def allowed(case):
    """The row that allows the case, or None."""
    return next((row for row in DIFFERENCES if row.allows(case)), None)
