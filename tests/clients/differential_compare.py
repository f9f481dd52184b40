"""Whether two servers' replies to a command say the same.

Replies must be equal in type and value. Where a value depends on rounding, on chance or on the clock, `compare` checks what can
be checked. It gives None when the replies agree, and else the reason in a few words.
"""

import math
import struct
from dataclasses import dataclass, field

from wire import Reply

# Scores and norms of unquantised vectors are f32s: they may differ by this.
F32_SCORE = 2e-5
# Where quantisation differs, scores may differ by this.
SCORE = 1e-3
# Seconds and milliseconds that may pass between the two servers' looks at the clock.
CLOCK_S = 2
CLOCK_MS = 2000
# More than any set here has.
EVERYTHING = b"1000000"

# How much of a vector is left by quantisation.
ROUGH, TERNARY, SIGNS = 0, 1, 2


@dataclass
class Case:
    """One command and what both servers answered."""

    arguments: tuple
    vecdis: Reply
    redis: Reply
    session: "Session"
    # What the comparison found; a row of the table may allow it.
    reason: str = ""
    # Whether the servers' state is still what it was, so that they can be asked more.
    settled: bool = True

    @property
    def name(self):
        return self.arguments[0].upper() if self.arguments else b""

    @property
    def options(self):
        """The arguments in upper case."""
        return [a.upper() for a in self.arguments]

    def both(self, kinds):
        return self.vecdis.kind == self.redis.kind and self.vecdis.kind in kinds


@dataclass
class Session:
    """What is known of the sequence so far."""

    # (vecdis, redis) connections for questions beside the sequence, in RESP3.
    probes: tuple
    # Element name to the worst kind of vector it was ever given.
    kinds: dict = field(default_factory=dict)
    # CAS and SETATTR were used together.
    cas_attributes: bool = False
    # Commands queued by each client, or None outside MULTI.
    queued: dict = field(default_factory=dict)
    # A transaction of that client in which the servers disagreed about queueing, for a reason that is allowed.
    disagreed: dict = field(default_factory=dict)
    # Keys that each client watches.
    watched: dict = field(default_factory=dict)
    # Keys that a command would have changed but did not, since they were watched.
    spared: set = field(default_factory=set)

    def ask(self, *arguments):
        """Both servers' answers to a question."""
        for connection in self.probes:
            connection.call("PING")
        return tuple(connection.call(*arguments) for connection in self.probes)

    def info(self, key):
        """Redis's VINFO as a dictionary; empty if there is no such key."""
        info = self.probes[1].call("VINFO", key)
        return {name.value: value.value for name, value in info.value} if info.kind == "%" else {}

    def quantisation(self, key):
        """`f32`, `int8` or `bin` as Redis says, or None."""
        return self.info(key).get(b"quant-type", b"").decode() or None

    def is_projected(self, key):
        """Whether the set was made with REDUCE."""
        return self.info(key).get(b"projection-input-dim", 0) > 0

    def saw(self, arguments):
        """Takes note of a command that is about to be sent."""
        if not arguments or arguments[0].upper() != b"VADD":
            return
        at = 2
        if len(arguments) > 3 and arguments[2].upper() == b"REDUCE":
            at = 4
        vector, after = vector_in(arguments, at)
        if vector is None or after >= len(arguments):
            return
        kind = kind_of(vector) if at == 2 else ROUGH
        element = arguments[after]
        self.kinds[element] = min(self.kinds.get(element, SIGNS), kind)
        options = [a.upper() for a in arguments[after + 1 :]]
        self.cas_attributes |= b"CAS" in options and b"SETATTR" in options

    def answered(self, arguments, client, reply):
        """Takes note of a reply that both servers gave."""
        name = arguments[0].upper() if arguments else b""
        if name == b"WATCH" and reply == ("+", b"OK"):
            self.watched.setdefault(client, set()).update(arguments[1:])
            self.spared -= set(arguments[1:])
        elif name in (b"EXEC", b"DISCARD", b"UNWATCH", b"RESET"):
            self.watched[client] = set()
        elif name in (b"VADD", b"VREM", b"VSETATTR") and len(arguments) > 1 and (reply.is_error() or not reply.value):
            self.spared.add(arguments[1])


def integer(text):
    """An integer argument, or None."""
    try:
        return int(text)
    except ValueError:
        return None


def number(text):
    """A float argument, or None."""
    try:
        return float(text) if b"_" not in text else None
    except ValueError:
        try:
            return float.fromhex(text.decode())
        except (ValueError, OverflowError, UnicodeDecodeError):
            return None


def vector_in(arguments, at):
    """The vector at an argument, and where the next argument is; None if there is none. Components may be NaN or infinite."""
    if at + 1 >= len(arguments):
        return None, at
    form, first = arguments[at].upper(), arguments[at + 1]
    if form == b"FP32":
        if not first or len(first) % 4:
            return None, at
        return list(struct.unpack(f"<{len(first) // 4}f", first)), at + 2
    if form == b"VALUES":
        count = integer(first)
        if count is None or count < 1 or at + 2 + count > len(arguments):
            return None, at
        values = [number(text) for text in arguments[at + 2 : at + 2 + count]]
        return (None if None in values else values), at + 2 + count
    return None, at


def kind_of(vector):
    """What of the vector survives quantisation: all of it in BIN (one magnitude), in Q8 (that and zero), or a part."""
    sizes = {abs(value) for value in vector}
    if 0.0 in sizes:
        sizes.remove(0.0)
        return TERNARY if len(sizes) <= 1 else ROUGH
    return SIGNS if len(sizes) == 1 else ROUGH


# ---- comparison ----


def compare(case):
    """None if the replies agree, else why not."""
    if case.vecdis == case.redis:
        return None
    if case.vecdis.kind != case.redis.kind:
        return "type"
    if case.vecdis.is_error():
        return "error text"
    special = SPECIAL.get(case.name)
    return special(case) if special else "value"


def same_when_sorted(case):
    """KEYS: in any order."""
    if not case.both("*~"):
        return "value"
    return None if sorted(case.vecdis.value) == sorted(case.redis.value) else "keys"


def clock(slack):
    """A time that runs."""

    def check(case):
        values = [case.vecdis.value, case.redis.value]
        near = case.both(":") and min(values) > 0 and abs(values[0] - values[1]) <= slack
        return None if near else "time"

    return check


def any_integer(case):
    """CLIENT ID: every server counts for itself."""
    is_id = case.options[1:] == [b"ID"]
    return None if is_id and case.both(":") else "value"


def any_time(case):
    """TIME: two numbers."""
    texts = [[part.kind == "$" and part.value.isdigit() for part in reply.value] for reply in (case.vecdis, case.redis)]
    return None if texts[0] == texts[1] == [True, True] else "value"


def random_elements(case):
    """VRANDMEMBER: as many, all members, distinct unless asked otherwise."""
    key = case.arguments[1]
    if case.both("$"):
        return None if None not in (case.vecdis.value, case.redis.value) and is_member(case, key, case.vecdis) else "element"
    if not case.both("*") or len(case.vecdis.value) != len(case.redis.value):
        return "number of elements"
    names = [item.value for item in case.vecdis.value]
    if integer(case.arguments[2]) > 0 and len(set(names)) != len(names):
        return "elements repeated"
    return None if all(is_member(case, key, item) for item in case.vecdis.value) else "not an element"


def is_member(case, key, item):
    return not case.settled or case.session.probes[1].call("VISMEMBER", key, item.value).value is True


def vector_reply(case):
    """VEMB: within the quantisation error."""
    if len(case.arguments) == 4:
        return raw_vector(case)
    if not case.both("*") or not case.vecdis.value or len(case.vecdis.value) != len(case.redis.value):
        return "value"
    ours, theirs = doubles(case.vecdis.value), doubles(case.redis.value)
    if ours is None or theirs is None:
        return "type of component"
    if not any(ours) and case.session.is_projected(case.arguments[1]):
        return "projected to zero"
    quantisation = case.session.quantisation(case.arguments[1]) if case.settled else "int8"
    largest = max(map(abs, theirs))
    slack = {"f32": 4e-6, "int8": 0.51 / 127 + 1e-5}.get(quantisation, 0.0) * largest
    if all(abs(a - b) <= slack for a, b in zip(ours, theirs)):
        return None
    return f"{sum(a != b for a, b in zip(ours, theirs))} bits" if quantisation == "bin" else "component"


def raw_vector(case):
    """VEMB RAW: type, bytes, norm, and range for int8."""
    if not case.both("*") or len(case.vecdis.value) != len(case.redis.value):
        return "value"
    ours, theirs = case.vecdis.value, case.redis.value
    if ours[0] != theirs[0] or [r.kind for r in ours] != [r.kind for r in theirs]:
        return "type of element"
    form, a, b = ours[0].value, ours[1].value, theirs[1].value
    if len(a) != len(b):
        return "number of bytes"
    numbers, others = doubles(ours[2:]), doubles(theirs[2:])
    if numbers[0] == 0 and others[0] != 0 and case.session.is_projected(case.arguments[1]):
        return "projected to zero"
    if not math.isclose(numbers[0], others[0], rel_tol=1e-5):
        return "norm"
    if form == b"f32":
        pairs = zip(struct.unpack(f"<{len(a) // 4}f", a), struct.unpack(f"<{len(b) // 4}f", b))
        return None if all(abs(x - y) <= 1e-6 for x, y in pairs) else "component"
    if form == b"bin":
        return None if a == b else f"{changed_bits(a, b)} bits"
    pairs = zip(struct.unpack(f"{len(a)}b", a), struct.unpack(f"{len(b)}b", b))
    if any(abs(x - y) > 1 for x, y in pairs):
        return "component"
    if math.isclose(numbers[1], others[1], rel_tol=1e-5):
        return None
    # Each code is off by half a step at most; so is the length of the vector they stand for, at most.
    rounding = math.sqrt(len(a)) / 254
    return "range within rounding" if math.isclose(numbers[1], others[1], rel_tol=rounding) else "range"


def changed_bits(a, b):
    return sum((x ^ y).bit_count() for x, y in zip(a, b))


def doubles(replies):
    """Numbers of `,` or bulk replies; None if one is something else. RESP2's bulks must be texts of numbers."""
    values = []
    for reply in replies:
        if reply.kind not in ",$" or reply.value is None:
            return None
        values.append(float(reply.value))
    return values


# ---- VSIM ----


@dataclass
class Hits:
    """A VSIM reply taken apart."""

    names: list
    scores: list | None
    attributes: list | None


def hits(reply, options):
    """The parts of a VSIM reply, or None if its shape is wrong."""
    scored, attributed = b"WITHSCORES" in options, b"WITHATTRIBS" in options
    width = 1 + scored + attributed
    if reply.kind == "%":
        if scored and attributed:
            if any(value.kind != "*" or len(value.value) != 2 for _, value in reply.value):
                return None
            rows = [(name, *value.value) for name, value in reply.value]
        else:
            rows = reply.value
    elif reply.kind == "*" and len(reply.value) % width == 0:
        rows = [tuple(reply.value[at : at + width]) for at in range(0, len(reply.value), width)]
    else:
        return None
    scores = doubles([row[1] for row in rows]) if scored else None
    if scored and scores is None:
        return None
    return Hits([row[0].value for row in rows], scores, [row[-1] for row in rows] if attributed else None)


def parse_search(arguments):
    """(options in upper case, count, epsilon) of a well-formed VSIM."""
    at = 4 if arguments[2].upper() == b"ELE" else vector_in(arguments, 2)[1]
    words, count, epsilon = [], 10, math.inf
    while at < len(arguments):
        word = arguments[at].upper()
        words.append(word)
        if word == b"COUNT":
            count = int(arguments[at + 1])
        elif word == b"EPSILON":
            epsilon = number(arguments[at + 1])
        at += 1 if word in (b"WITHSCORES", b"WITHATTRIBS", b"TRUTH", b"NOTHREAD") else 2
    return words, count, epsilon


def score_slack(case, names):
    """How far the scores of each element may be apart. (strict, allowed by rounding)"""
    quantisation = case.session.quantisation(case.arguments[1])
    if case.arguments[2].upper() == b"ELE":
        query = case.session.kinds.get(case.arguments[3], ROUGH)
        dim = case.session.probes[1].call("VDIM", case.arguments[1]).value
    else:
        vector = vector_in(case.arguments, 2)[0]
        query, dim = kind_of(vector), len(vector)
        if case.session.probes[1].call("VDIM", case.arguments[1]).value != dim:
            query = ROUGH
    slack = {}
    for name in names:
        kind = min(query, case.session.kinds.get(name, ROUGH))
        if quantisation == "f32" or (quantisation == "int8" and kind >= TERNARY) or (quantisation == "bin" and kind == SIGNS):
            slack[name] = F32_SCORE, F32_SCORE
        elif quantisation == "int8":
            # Each component of a unit vector is off by 1/254 of the largest at most.
            slack[name] = SCORE, SCORE + math.sqrt(dim if isinstance(dim, int) else 1) / 254
        else:
            slack[name] = SCORE, 1.0
    return slack


def search_results(case):
    """VSIM: the same elements, scores within the slack, order free among equals."""
    words, count, epsilon = parse_search(case.arguments)
    ours, theirs = hits(case.vecdis, words), hits(case.redis, words)
    if ours is None or theirs is None:
        return "shape"
    if len(set(ours.names)) != len(ours.names):
        return "an element twice"
    if ours.scores and any(a < b for a, b in zip(ours.scores, ours.scores[1:])):
        return "order of scores"
    if ours.attributes and not attributes_agree(ours, theirs):
        return "attributes"
    slack = score_slack(case, set(ours.names) | set(theirs.names))
    if set(ours.names) == set(theirs.names) and ours.scores is not None:
        return scores_agree(case, dict(zip(ours.names, ours.scores)), dict(zip(theirs.names, theirs.scores)), slack)
    if ours.names == theirs.names:
        return None
    if not case.settled:
        return "elements"
    return compare_with_truth(case, ours, theirs, count, epsilon)


def attributes_agree(ours, theirs):
    known = dict(zip(theirs.names, theirs.attributes))
    return all(known.get(name, attribute) == attribute for name, attribute in zip(ours.names, ours.attributes))


def scores_agree(case, ours, theirs, slack):
    """None, "score", or why the scores differ by more than they should."""
    reason = None
    for name, score in ours.items():
        apart = abs(score - theirs[name])
        if apart <= slack[name][0]:
            continue
        if score == 0.5 and case.session.is_projected(case.arguments[1]):
            reason = "projected to zero"
        elif apart <= slack[name][1]:
            reason = reason or "score within rounding"
        else:
            return "score"
    return reason


def compare_with_truth(case, ours, theirs, count, epsilon):
    """Asks both servers for the scores of everything, and judges the replies by them."""
    tail = (b"COUNT", EVERYTHING, b"EPSILON", b"inf", b"TRUTH", b"WITHSCORES")
    arguments = tuple(a for a in case.arguments)
    answers = case.session.ask(*arguments, *tail)
    words = [*parse_search(arguments)[0], b"WITHSCORES"]
    truths = []
    for answer in answers:
        found = hits(answer, words)
        if found is None:
            return "no truth"
        truths.append(dict(zip(found.names, found.scores)))
    if set(truths[0]) != set(truths[1]):
        return "elements that match"
    reason = scores_agree(case, truths[0], truths[1], score_slack(case, truths[0]))
    if reason == "score":
        return reason
    if not is_best(ours, truths[0], count, epsilon):
        return "better elements than Redis's" if is_better(ours, theirs, truths[0]) else "not the best elements"
    if not is_best(theirs, truths[1], count, epsilon):
        return "Redis misses elements"
    return reason


def is_better(ours, theirs, truth):
    """Whether these are as many elements and, one by one, at least as good."""
    pairs = zip(*(sorted((truth.get(name, -1.0) for name in found.names), reverse=True) for found in (ours, theirs)))
    return len(ours.names) >= len(theirs.names) and all(a >= b - F32_SCORE for a, b in pairs)


def is_best(found, truth, count, epsilon):
    """Whether these are the `count` best of `truth` within epsilon; equals may stand for each other."""
    slack = 2 * F32_SCORE
    best = sorted((score for score in truth.values()), reverse=True)[:count]
    surely = sum(1 - score <= epsilon - slack for score in best)
    at_most = sum(1 - score <= epsilon + slack for score in best)
    if not surely <= len(found.names) <= at_most or any(name not in truth for name in found.names):
        return False
    return all(abs(truth[name] - score) <= slack for name, score in zip(found.names, best))


SPECIAL = {
    b"KEYS": same_when_sorted,
    b"TTL": clock(CLOCK_S),
    b"PTTL": clock(CLOCK_MS),
    b"EXPIRETIME": clock(CLOCK_S),
    b"PEXPIRETIME": clock(CLOCK_MS),
    b"CLIENT": any_integer,
    b"TIME": any_time,
    b"VRANDMEMBER": random_elements,
    b"VEMB": vector_reply,
    b"VSIM": search_results,
}
