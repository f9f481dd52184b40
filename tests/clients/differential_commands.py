"""Commands for the differential test, drawn from a seed: mostly right, often slightly wrong.

`Generator` remembers roughly what its commands did, so that most of them meet keys, elements and dimensions that exist.
It never needs to be right about it: what is expected comes from the other server.
"""

import itertools
import struct
from dataclasses import dataclass, field

from differential_filters import attributes, expression

KEYS = [b"k1", b"k2", b"k3", b"k4", b"vec:set", b"a key", b"\x00\xff\r\n", b"", b"{tag}k"]
ELEMENTS = [b"e%d" % i for i in range(14)] + [b"", b"two words", b"\xff\x00\r\n", "ü".encode(), b"SETATTR", b"COUNT"]
DIMENSIONS = [1, 2, 2, 3, 3, 3, 4, 5, 8, 16, 33, 64, 65, 100, 128]
LARGE_DIMENSIONS = [384, 768, 1536, 3000]
QUANTISATIONS = [b"Q8", b"NOQUANT", b"BIN"]
JUNK = [
    b"", b"0", b"-1", b"1", b"01", b"+1", b"1.5", b"abc", b"nan", b"inf", b"-inf", b"1e400", b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775809", b" 1", b"1 ", b"0x10", b"EF", b"M", b"SETATTR", b"CAS", b"Q8", b"COUNT",
    b"FILTER", b"WITHSCORES", b"ELE", b"VALUES", b"FP32", b"REDUCE", b"\x00", b"none",
]  # fmt: skip
BAD_INTEGERS = [b"0", b"-1", b"abc", b"", b"1.5", b"+5", b"05", b" 5", b"9223372036854775808", b"0x5"]
# Numbers of results or dimensions above this are not sent to Redis.
HUGE = 2_500_000
# Bytes sent on a connection of their own; the whole answer up to the close is compared.
STREAMS = [
    b"PING\r\n", b"ping hello\n", b"PiNg\r\nPING\n", b'ECHO "a\\x41\\n\\t\\"b"\r\n', b"ECHO 'it\\'s'\r\n", b'ECHO "open\r\nPING\r\n',
    b"ECHO 'a'b\r\nPING\r\n", b'ECHO a"b c"\r\n', b"\r\n\r\nPING\r\n", b"  PING  \r\n", b"\n\nECHO   a   b\r\n", b"*0\r\nPING\r\n",
    b"*-1\r\nPING\r\n", b"*-10\r\nPING\r\n", b"*abc\r\nPING\r\n", b"*\r\nPING\r\n", b"*1\r\n+PING\r\n", b"*1\r\nPING\r\n",
    b"*1\r\n$-1\r\n", b"*1\r\n$abc\r\n", b"*1\r\n$\r\n\r\n", b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\n$4\r\nping\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n", b"*1048577\r\n", b"*2147483648\r\n", b"*9223372036854775808\r\n",
    b"*1\r\n$536870913\r\n", b"$9\r\n", b"*1 \r\n$4\r\nPING\r\n", b"*01\r\n$4\r\nPING\r\n", b"*+1\r\n$4\r\nPING\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\nPING\r\n", b"PING\r\nHost: x\r\nPING\r\n", b"QUIT\r\nPING\r\n", b"quit now\r\n",
    b"HELLO 3\r\nPING\r\nVISMEMBER nokey e\r\nVEMB nokey e\r\nHELLO 2\r\nVISMEMBER nokey e\r\nVEMB nokey e\r\n",
    b"ECHO " + b"x" * 65000 + b"\r\n", b"x" * 70000, b"*" + b"1" * 70000, b"*1\r\n$" + b"1" * 70000,
    b"MULTI\r\nPING\r\n*1\r\n$-1\r\nEXEC\r\n", b"VCARD 'a key'\r\n", b'VSIM nokey "ELE" x\r\n', b"VADD k VALUES\r\n",
    b'"PING"\r\n', b'""\r\n', b'"" x\r\n', b"nosuch 'a\\'b' \"c\"\r\n", b"*1\r\n$0\r\n\r\n", b"*2\r\n$3\r\nfoo\r\n$3\r\na\r\n\r\n",
    b"RESET\r\nPING\r\n", b"MULTI\r\nRESET\r\nEXEC\r\n", b"HELLO 3\r\nRESET\r\nVEMB nokey e\r\n", b"CLIENT REPLY OFF\r\nPING\r\n",
    b"CLIENT REPLY SKIP\r\nPING\r\nPING\r\n", b"CLIENT REPLY OFF\r\nPING\r\nCLIENT REPLY ON\r\nPING\r\n",
]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """One thing to do.

    `how`: `array` and `inline` are ways to send `arguments`; `stream` sends arguments[0] as it is, on a new connection;
    `scan` runs SCAN with the arguments until the cursor is 0; `pause` waits for arguments[0] milliseconds.
    """

    arguments: tuple
    how: str = "array"
    # Which of the two clients sends it.
    client: int = 0
    # It is sent together with the command after it, before a reply is read.
    joined: bool = False

    @property
    def name(self):
        return self.arguments[0].upper() if self.arguments else b""


@dataclass
class VectorSet:
    """What the generator believes of a key."""

    dim: int
    quantisation: bytes
    m: int | None
    reduce: int | None
    elements: list = field(default_factory=list)


def as_bytes(value):
    return value if isinstance(value, bytes) else str(value).encode()


def ends_redis(words):
    """Whether Redis 8.0 would end for want of memory: it allocates for as many results or dimensions as it is told."""
    options = [word.upper() for word in words]
    name = options[0] if options else b""
    limits = {b"VSIM": (b"COUNT", b"EF"), b"VADD": (b"REDUCE",)}.get(name, ())
    for option, value in itertools.pairwise(options):
        if option in limits and value.isdigit() and int(value) > HUGE:
            return True
    return False


class Generator:
    """An endless source of commands."""

    def __init__(self, random):
        self.random = random
        self.sets = {}
        self.waiting = []

    def next(self):
        """The next command. After `forget` the next one begins a new sequence."""
        while True:
            while not self.waiting:
                self.waiting += self.sequence()
            command = self.waiting.pop(0)
            if not ends_redis(command.arguments):
                return command

    def forget(self):
        """Both servers were emptied."""
        self.sets, self.waiting = {}, []

    # ---- small draws ----

    def chance(self, probability):
        return self.random.random() < probability

    def key(self):
        """A key: one that should exist, usually."""
        if self.sets and self.chance(0.85):
            return self.random.choice(list(self.sets))
        return self.random.choice(KEYS)

    def element(self, key):
        found = self.sets.get(key)
        if found and found.elements and self.chance(0.85):
            return self.random.choice(found.elements)
        return self.random.choice([*ELEMENTS, b"missing"])

    def case(self, word):
        """A keyword in any case."""
        style = self.random.random()
        if style < 0.7:
            return word
        if style < 0.9:
            return word.lower()
        return bytes(self.random.choice([b, b ^ 32]) if chr(b).isalpha() else b for b in word)

    def vector(self, dim, quantisation):
        """A vector. Those with one magnitude only (`signs`, `plain`) survive quantisation, so their scores can be compared
        strictly; BIN keeps signs alone."""
        draw = self.random.random
        scale = self.random.choice([1.0, 1.0, 0.5, 2.0, 3.0, 100.0, 0.001])
        style = draw()
        if style < (0.75 if quantisation == b"BIN" else 0.4):
            return [scale if draw() < 0.5 else -scale for _ in range(dim)]
        if style < 0.65:
            return [self.random.choice([0.0, scale, -scale]) for _ in range(dim)]
        if style < 0.68:
            return [0.0] * dim
        return [self.random.gauss(0, scale) for _ in range(dim)]

    def number(self, value):
        """A float in one of the ways C reads."""
        style = self.random.random()
        if style < 0.7:
            text = repr(value)
        elif style < 0.8:
            text = f"{value:.6e}"
        elif style < 0.86:
            text = value.hex()
        elif style < 0.92:
            text = f"{value:+}"
        else:
            text = f"{value:g}" if abs(value) >= 1 or value == 0 else f"{value:.9f}".replace("0.", ".", 1)
        return text.encode()

    def vector_words(self, vector):
        if self.chance(0.5) or len(vector) > 200:
            return [self.case(b"FP32"), struct.pack(f"<{len(vector)}f", *vector)]
        return [self.case(b"VALUES"), b"%d" % len(vector), *map(self.number, vector)]

    def bad_vector_words(self, dim):
        good = [1.0] * dim
        blob = struct.pack(f"<{dim}f", *good)
        pick = self.random.choice
        odd = pick([b"nan", b"inf", b"-inf", b"abc", b"", b"1e39", b" 1", b"1 ", b"infinity", b"0x", b"1,5", b"NaN"])
        return pick([
            [b"FP32", blob[:-1]],
            [b"FP32", b""],
            [b"FP32", blob[:-4] + struct.pack("<f", pick([float("nan"), float("inf"), -float("inf")]))],
            [b"VALUES", b"%d" % (dim + 1), *[b"1"] * dim],
            [b"VALUES", pick(BAD_INTEGERS), *[b"1"] * dim],
            [b"VALUES", b"%d" % dim, *[b"1"] * (dim - 1), odd],
            [b"VALUES", b"%d" % (dim + 1), *[b"1"] * (dim + 1)],
            [b"FP32", blob + blob[:4]],
            [b"FP16", blob],
            [b"ELE", b"e1"],
            [b"VALUES"],
            [b"FP32"],
        ])  # fmt: skip

    # ---- VADD ----

    def vadd(self):
        pick = self.random.choice
        key = self.random.choice(KEYS[:7]) if self.chance(0.5) else self.key()
        existing = self.sets.get(key)
        if existing is None or self.chance(0.04):
            shape = self.new_shape()
        else:
            shape = existing
        words = [b"VADD", key]
        if shape.reduce is not None and not self.chance(0.03):
            words += [self.case(b"REDUCE"), b"%d" % shape.reduce]
        elif self.chance(0.02):
            words += [b"REDUCE", pick([*BAD_INTEGERS, b"1", b"2", b"100"])]
        good = not self.chance(0.06)
        words += self.vector_words(self.vector(shape.dim, shape.quantisation)) if good else self.bad_vector_words(shape.dim)
        element = self.element(key) if self.chance(0.3) else pick(ELEMENTS)
        words.append(element)
        words += self.vadd_options(shape)
        if good and self.chance(0.96):
            kept = self.sets.setdefault(key, shape)
            if kept is shape and element not in kept.elements:
                kept.elements.append(element)
        else:
            words = self.spoiled(words)
        return words

    def new_shape(self):
        dim = self.random.choice(LARGE_DIMENSIONS if self.chance(0.03) else DIMENSIONS)
        reduce = self.random.randint(1, dim) if self.chance(0.12) else None
        if self.chance(0.004):
            reduce = dim + 3
        m = self.random.choice([4, 8, 17, 64]) if self.chance(0.08) else None
        return VectorSet(dim, self.random.choice(QUANTISATIONS), m, reduce)

    def vadd_options(self, shape):
        options = []
        if shape.quantisation != b"Q8" or self.chance(0.3):
            options.append([self.case(shape.quantisation)])
        if shape.m is not None:
            options.append([self.case(b"M"), b"%d" % shape.m])
        if self.chance(0.5):
            options.append([self.case(b"SETATTR"), attributes(self.random)])
        if self.chance(0.1):
            options.append([self.case(b"EF"), self.random.choice([b"1", b"10", b"200", b"1000", b"1000000"])])
        if self.chance(0.06):
            options.append([self.case(b"CAS")])
        self.random.shuffle(options)
        if options and self.chance(0.06):
            options.append(self.random.choice(options))
        if self.chance(0.08):
            options.insert(self.random.randint(0, len(options)), self.random.choice(self.odd_options()))
        return [word for option in options for word in option]

    def odd_options(self):
        bad = self.random.choice(BAD_INTEGERS)
        return [
            [b"EF", bad], [b"M", bad], [b"M", b"3"], [b"M", b"4097"], [b"M", b"16"], [b"M", b"32"], [b"EF", b"1000001"], [b"EF"],
            [b"M"], [b"SETATTR"], [b"SETATTR", b""], [b"WHAT"], [b"CAS"], [b"Q8"], [b"NOQUANT"], [b"BIN"], [b"REDUCE", b"2"], [b""],
        ]  # fmt: skip

    # ---- VSIM ----

    def vsim(self, strict=False):
        """A search. `strict`: one whose answer must be equal without another look (for use inside MULTI)."""
        key = self.key()
        found = self.sets.get(key)
        words = [b"VSIM", key]
        style = self.random.random()
        if style < 0.4:
            words += [self.case(b"ELE"), self.element(key)]
        elif style < 0.93:
            dim = found.dim if found and self.chance(0.97) else self.random.choice(DIMENSIONS)
            if found and found.reduce is not None and self.chance(0.3):
                dim = found.reduce
            words += self.vector_words(self.vector(dim, found.quantisation if found else b"Q8"))
        else:
            words += self.bad_vector_words(found.dim if found else 3)
        options = self.vsim_options()
        if strict:
            options = [o for o in options if o[0].upper() not in (b"COUNT", b"EPSILON", b"EF", b"FILTER-EF")]
            options += [[b"WITHSCORES"], [b"COUNT", b"1000"], [b"TRUTH"]]
        words += [word for option in options for word in option]
        return self.spoiled(words) if self.chance(0.03) else words

    def vsim_options(self):
        pick = self.random.choice
        options = []
        for word, probability in [(b"WITHSCORES", 0.5), (b"WITHATTRIBS", 0.2), (b"TRUTH", 0.15), (b"NOTHREAD", 0.05)]:
            if self.chance(probability):
                options.append([self.case(word)])
        if self.chance(0.45):
            options.append([self.case(b"FILTER"), expression(self.random)])
        if self.chance(0.4):
            options.append([self.case(b"COUNT"), pick([b"1", b"2", b"3", b"5", b"10", b"100", b"1000000"])])
        if self.chance(0.1):
            options.append([self.case(b"EPSILON"), pick([b"0.1", b"0.5", b".75", b"1", b"inf", b"1e-3", b"0x1"])])
        if self.chance(0.1):
            options.append([self.case(b"EF"), pick([b"1", b"5", b"100", b"500", b"1000000"])])
        if self.chance(0.05):
            options.append([self.case(b"FILTER-EF"), pick([b"1", b"10", b"1000", b"9999999999"])])
        self.random.shuffle(options)
        if options and self.chance(0.06):
            options.append(pick(options))
        if self.chance(0.08):
            bad = pick(BAD_INTEGERS)
            odd = pick([
                [b"COUNT", bad], [b"EF", bad], [b"FILTER-EF", bad], [b"EPSILON", pick([b"0", b"-1", b"nan", b"abc", b"", b" 1"])],
                [b"COUNT"], [b"FILTER"], [b"EF"], [b"EPSILON"], [b"WHAT"], [b""], [b"EF", b"1000001"], [b"WITHSCORE"], [b"SETATTR", b"x"],
            ])  # fmt: skip
            options.insert(self.random.randint(0, len(options)), odd)
        return options

    # ---- everything about elements and keys ----

    def other_vector_command(self):
        pick = self.random.choice
        key = self.key()
        element = self.element(key)
        name = pick([
            b"VREM", b"VREM", b"VCARD", b"VDIM", b"VEMB", b"VEMB", b"VEMB", b"VGETATTR", b"VGETATTR", b"VSETATTR", b"VSETATTR",
            b"VINFO", b"VISMEMBER", b"VLINKS", b"VRANDMEMBER", b"VRANDMEMBER",
        ])  # fmt: skip
        words = [self.case(name), key]
        if name == b"VREM":
            found = self.sets.get(key)
            if found and element in found.elements:
                found.elements.remove(element)
                if not found.elements:
                    del self.sets[key]
        if name not in (b"VCARD", b"VDIM", b"VINFO", b"VRANDMEMBER"):
            words.append(element)
        if name == b"VSETATTR":
            words.append(attributes(self.random))
        if name == b"VEMB" and self.chance(0.4):
            words.append(self.case(pick([b"RAW", b"RAW", b"RAW", b"RAWW", b""])))
        if name == b"VLINKS" and self.chance(0.5):
            words.append(self.case(b"WITHSCORES"))
        if name == b"VRANDMEMBER" and self.chance(0.7):
            words.append(pick([b"1", b"2", b"5", b"100", b"-3", b"-1", b"0", b"abc", b"", b"1.5", b"9223372036854775808"]))
        return self.spoiled(words) if self.chance(0.05) else words

    def vrange(self):
        pick = self.random.choice
        key = self.key()
        words = [
            self.case(b"VRANGE"),
            key,
            pick([b"-", b"-", b"[e1", b"(e1", b"[e", b"[\xff", b"(", b"[", b"e1", b"+", b"(zz"]),
        ]
        words.append(pick([b"+", b"+", b"[e3", b"(e3", b"[e", b"[\xff", b"(", b"", b"e3", b"-"]))
        if self.chance(0.4):
            words.append(pick([b"0", b"1", b"3", b"100", b"-1", b"-5", b"abc", b"1.5"]))
        return words

    def key_command(self):
        pick = self.random.choice
        key = self.key()
        name = pick([
            b"DEL", b"UNLINK", b"EXISTS", b"EXISTS", b"TYPE", b"KEYS", b"KEYS", b"EXPIRE", b"TTL", b"PTTL", b"PERSIST", b"RENAME",
            b"OBJECT", b"DBSIZE", b"SCAN", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT", b"EXPIRETIME", b"PEXPIRETIME",
        ])  # fmt: skip
        words = [self.case(name), key]
        if name in (b"DEL", b"UNLINK", b"EXISTS"):
            if name != b"EXISTS" and self.chance(0.6):
                words[1] = self.random.choice(KEYS)
            words += [self.random.choice(KEYS) for _ in range(pick([0, 0, 1, 2]))]
            if name != b"EXISTS":
                for gone in words[1:]:
                    self.sets.pop(gone, None)
        elif name == b"KEYS":
            words[1] = pick(
                [b"*", b"k*", b"k?", b"k[1-2]", b"k[^1]", b"nomatch", b"", b"[", b"*e*", b"\\k1", b"k[13", b"**", b"?*"]
            )
        elif name in (b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT"):
            far = b"40000000000000" if name.startswith(b"PE") else b"40000000000"
            soon = far if name.endswith(b"AT") else b"1000000"
            odd = [b"0", b"-5", b"abc", b"", b"9223372036854775807", b"-9223372036854775808", b"1.5"]
            words.append(pick([soon, soon, soon, far, far, *odd]))
            if self.chance(0.25):
                words += [self.case(pick([b"NX", b"XX", b"GT", b"LT", b"ZZ"])) for _ in range(pick([1, 1, 1, 2]))]
            if words[2].startswith((b"0", b"-")):
                self.sets.pop(key, None)
        elif name == b"RENAME":
            words.append(pick(KEYS))
            if key in self.sets:
                self.sets[words[2]] = self.sets.pop(key)
        elif name == b"OBJECT":
            words = [words[0], self.case(b"ENCODING"), key]
        elif name == b"DBSIZE":
            words = words[:1]
        elif name == b"SCAN":
            words = [words[0], pick([b"abc", b"-1", b"", b"1.5"])]
            words += pick([[], [b"COUNT", b"0"], [b"WHAT", b"x"], [b"COUNT"], [b"COUNT", b"x"]])
        return self.spoiled(words) if self.chance(0.05) else words

    def connection_command(self):
        pick = self.random.choice
        text = pick([b"hello", b"", b"two words", b"\x00\xff\r\n", b"x" * 300])
        return pick([
            [b"PING"], [b"PING", text], [b"PING", text, text], [b"ECHO", text], [b"ECHO"], [b"ECHO", text, text],
            [b"HELLO"], [b"HELLO", b"2"], [b"HELLO", b"3"], [b"HELLO", pick([b"4", b"1", b"abc", b"", b"03", b"-1"])],
            [b"HELLO", b"3", b"SETNAME", pick([b"me", b"a b", b""])], [b"HELLO", b"2", b"AUTH", b"default", b"pw"],
            [b"HELLO", b"3", b"AUTH", b"nobody", b"pw"], [b"HELLO", b"3", b"AUTH", b"default"], [b"HELLO", b"3", b"WHAT"],
            [b"HELLO", b"3", b"AUTH", b"default", b"x", b"SETNAME", b"both"], [b"HELLO", b"3", b"SETNAME"],
            [b"AUTH", b"pw"], [b"AUTH", b"default", b"pw"], [b"AUTH", b"nobody", b"pw"], [b"AUTH"], [b"AUTH", b"a", b"b", b"c"],
            [b"SELECT", b"0"], [b"SELECT", pick([b"-1", b"abc", b"99999", b"", b"1.5", b"9223372036854775808"])], [b"SELECT"],
            [b"CLIENT", b"SETNAME", pick([b"me", b"a b", b"", b"x\n", b"\xff", b"worker-1"])], [b"CLIENT", b"GETNAME"],
            [b"CLIENT", b"SETINFO", pick([b"LIB-NAME", b"lib-ver", b"LIB-WHAT", b""]), pick([b"me", b"a b", b"", b"1.0"])],
            [b"CLIENT", b"SETINFO", b"LIB-NAME"], [b"CLIENT", b"SETNAME"], [b"CLIENT", b"GETNAME", b"x"], [b"CLIENT", b"ID"],
            [b"CLIENT", b"WHAT"], [b"CLIENT"], [b"CLIENT", b"ID", b"x"], [b"CLIENT", b"NO-EVICT", pick([b"ON", b"off", b"x"])],
            [b"CLIENT", b"NO-TOUCH", pick([b"on", b"OFF", b"x"])], [b"CLIENT", b"REPLY", pick([b"ON", b"x"])], [b"CLIENT", b"KILL"],
            [b"CLIENT", b"KILL", b"ID", pick([b"99999999", b"x", b"0"])], [b"CLIENT", b"KILL", b"1.2.3.4:5"],
            [b"COMMAND", b"COUNT", b"x"], [b"COMMAND", b"WHAT"], [b"COMMAND", b"INFO", b"nosuch"], [b"COMMAND", b"DOCS", b"nosuch"],
            [b"COMMAND", b"GETKEYS", b"VADD", b"k", b"VALUES", b"1", b"1", b"e"], [b"COMMAND", b"GETKEYS", b"DEL", b"a", b"b"],
            [b"COMMAND", b"GETKEYS", b"PING"], [b"COMMAND", b"GETKEYS", b"NOSUCH", b"x"], [b"COMMAND", b"GETKEYS"],
            [b"COMMAND", b"GETKEYS", b"VSIM", b"a b", b"ELE", b"x"], [b"COMMAND", b"GETKEYS", b"RENAME", b"a", b"b"],
            [b"COMMAND", b"GETKEYS", b"EXISTS"], [b"NOSUCH"], [b"nosuch", b"a", b"b c", text], [b"VNOSUCH", b"k"], [b""],
            [b"x" * 200, b"y" * 200], [b"NOSUCH", *[b"argument%d" % i for i in range(20)]], [b"TIME", b"x"], [b"TIME"],
            [b"DEBUG", b"SLEEP", b"0"], [b"MEMORY", b"USAGE", b"missing"], [b"MEMORY", b"WHAT"], [b"MEMORY", b"USAGE"],
            [b"MEMORY", b"USAGE", b"missing", b"SAMPLES", b"x"], [b"CONFIG", b"GET", b"nosuch*"], [b"CONFIG", b"GET"], [b"CONFIG"],
            [b"CONFIG", b"WHAT"], [b"CONFIG", b"SET", b"nosuch", b"1"], [b"CONFIG", b"GET", b"appendfsync"], [b"RESET"],
            [b"OBJECT"], [b"OBJECT", b"ENCODING"], [b"OBJECT", b"WHAT", b"k1"], [b"OBJECT", b"ENCODING", b"missing"],
            [b"EXEC"], [b"DISCARD"], [b"UNWATCH"], [b"WATCH"], [b"MULTI", b"x"], [b"RANDOMKEY", b"x"], [b"FLUSHDB", b"WHAT"],
            [b"FLUSHALL", b"SYNC", b"x"], [b"DBSIZE", b"x"], [b"KEYS"], [b"SCAN"], [b"TYPE"], [b"DEL"], [b"EXISTS"], [b"RENAME", b"a"],
            [b"RENAME", b"missing", b"k1"], [b"EXPIRE", b"missing", b"5"], [b"TTL"], [b"PERSIST", b"missing"], [b"PTTL", b"missing"],
        ])  # fmt: skip

    def spoiled(self, words):
        """The command with one mistake."""
        words = list(words)
        at = self.random.randrange(len(words))
        style = self.random.random()
        if style < 0.3:
            del words[max(at, 1) :]
        elif style < 0.5 and at > 0:
            del words[at]
        elif style < 0.8:
            words.insert(max(at, 1), self.random.choice(JUNK))
        elif at > 1:
            words[at] = self.random.choice(JUNK)
        else:
            words.append(self.random.choice(JUNK))
        return words

    # ---- sequences ----

    def one(self):
        """A command that stands alone."""
        kind = self.random.random()
        if kind < 0.27:
            return self.vadd()
        if kind < 0.53:
            return self.vsim()
        if kind < 0.76:
            return self.other_vector_command()
        if kind < 0.79:
            return self.vrange()
        if kind < 0.9:
            return self.key_command()
        return self.connection_command()

    def sequence(self):
        kind = self.random.random()
        if kind < 0.86:
            return [Command(tuple(self.one()))]
        if kind < 0.9:
            return self.transaction()
        if kind < 0.92:
            return self.together()
        if kind < 0.94:
            return [Command(tuple(self.one()), "inline")]
        if kind < 0.955:
            return [Command((self.random.choice(STREAMS),), "stream")]
        if kind < 0.97:
            return [Command(self.scan(), "scan")]
        if kind < 0.972:
            return self.expiry()
        if kind < 0.98:
            return self.known_difference()
        if kind < 0.995:
            return self.many()
        return [Command((b"FLUSHALL",)), *self.emptied()]

    def emptied(self):
        self.sets = {}
        return [Command((b"DBSIZE",))]

    def scan(self):
        pick = self.random.choice
        options = pick([[], [], [b"COUNT", b"1"], [b"COUNT", b"1000"]]) + pick([[], [], [b"MATCH", b"k*"], [b"match", b"*e*"]])
        return tuple(options + pick([[], [], [b"TYPE", b"vectorset"], [b"TYPE", b"string"], [b"type", b"VECTORSET"]]))

    def expiry(self):
        """A key that goes by itself."""
        key = self.key()
        self.sets.pop(key, None)
        looks = [[b"EXISTS", key], [b"VCARD", key], [b"TTL", key], [b"VSIM", key, b"ELE", b"e1"], [b"DBSIZE"], [b"VINFO", key]]
        pause = Command((b"1200",), "pause")
        return [Command((b"EXPIRE", key, b"1")), Command((b"WATCH", key)), pause] + [Command(tuple(w)) for w in looks]

    def many(self):
        """A set of a few hundred elements, removed and searched."""
        key = b"many%d" % self.random.randrange(3)
        dim = self.random.choice([2, 3, 8, 32])
        option = self.random.choice([[], [b"NOQUANT"], [b"BIN"]])
        quantisation = option[0] if option else b"Q8"
        names = [b"m%d" % i for i in range(self.random.choice([40, 90]))]
        words = []
        for name in names:
            vector = self.vector_words(self.vector(dim, quantisation))
            words.append([b"VADD", key, *vector, name, *option, b"SETATTR", attributes(self.random)])
        self.sets[key] = VectorSet(dim, quantisation, None, None, names)
        return [Command((b"DEL", key))] + [Command(tuple(w), joined=i + 1 < len(words)) for i, w in enumerate(words)]

    def together(self):
        """Several commands in one write."""
        words = []
        for _ in range(self.random.randint(2, 12)):
            kind = self.random.random()
            if kind < 0.4:
                words.append(self.vadd())
            elif kind < 0.6:
                words.append([self.random.choice([b"VCARD", b"VDIM", b"TYPE"]), self.key()])
            elif kind < 0.75:
                key = self.key()
                words.append([self.random.choice([b"VISMEMBER", b"VGETATTR", b"VREM"]), key, self.element(key)])
            elif kind < 0.85:
                words.append([b"HELLO", self.random.choice([b"2", b"3"])])
            else:
                words.append(self.connection_command())
        # Redis 8.0 loses the reply to a failed log-in that is not the first command of its batch.
        words = [w for w in words if b"AUTH" not in [a.upper() for a in w]] or [[b"PING"]]
        return [Command(tuple(w), joined=i + 1 < len(words)) for i, w in enumerate(words)]

    def transaction(self):
        commands = []
        watch = self.chance(0.4)
        if watch:
            commands.append(Command((b"WATCH", *[self.key() for _ in range(self.random.choice([1, 1, 2]))])))
            if self.chance(0.5):
                commands.append(Command(tuple(self.change()), client=1))
            if self.chance(0.15):
                commands.append(Command(tuple(self.change())))
            if self.chance(0.15):
                commands.append(Command((b"UNWATCH",)))
        commands.append(Command((self.case(b"MULTI"),)))
        for _ in range(self.random.randint(0, 8)):
            commands.append(Command(tuple(self.queued())))
        if watch and self.chance(0.3):
            commands.append(Command(tuple(self.change()), client=1))
        commands.append(Command((self.random.choice([b"EXEC"] * 5 + [b"DISCARD", b"exec", b"RESET"]),)))
        return commands

    def change(self):
        """A command that may change a watched key."""
        key = self.key()
        return self.random.choice([
            self.vadd(), [b"VREM", key, self.element(key)], [b"VSETATTR", key, self.element(key), b"{}"], [b"DEL", key], [b"VCARD", key],
            [b"EXPIRE", key, b"1000"], [b"PERSIST", key], [b"RENAME", key, self.random.choice(KEYS)],
            [b"VADD", key, b"VALUES", b"1", b"x", b"e"],
        ])  # fmt: skip

    def queued(self):
        """A command for the inside of MULTI."""
        kind = self.random.random()
        if kind < 0.3:
            return self.vadd()
        if kind < 0.5:
            return self.vsim(strict=True)
        if kind < 0.7:
            return self.other_vector_command()
        if kind < 0.85:
            return self.key_command()
        if kind < 0.87:
            return self.random.choice([[b"MULTI"], [b"WATCH", b"k1"], [b"UNWATCH"], [b"NOSUCH", b"x"], [b"ECHO"], [b"EXISTS"]])
        return self.random.choice([
            [b"PING"], [b"ECHO", b"x"], [b"HELLO", b"3"], [b"HELLO", b"2"], [b"CLIENT", b"GETNAME"], [b"CLIENT", b"SETNAME", b"inside"],
            [b"SELECT", b"0"], [b"SELECT", b"abc"], [b"DBSIZE"], [b"CLIENT", b"WHAT"], [b"TIME"],
        ])  # fmt: skip

    def known_difference(self):
        """Things that are answered differently on purpose, seldom drawn otherwise."""
        key = self.key()
        pick = self.random.choice
        choice = pick([
            [b"VADD", key, b"FP32", b"\x00\x00\xc0\x7f" * 3, b"e1"],
            [b"VADD", key, b"VALUES", b"2", b"inf", b"1", b"e1"],
            [b"VADD", b"wide", b"FP32", b"\x00\x00\x80\x3f" * 65537, b"e1"],
            [b"VADD", b"long", b"VALUES", b"1", b"1", b"n" * 70000],
            [b"VSIM", key, b"ELE", self.element(key), b"EF", b"2000000"],
            [b"SELECT", b"1"],
            [b"GET", b"missing"],
            [b"INFO", b"server"],
            [b"COMMAND", b"DOCS", b"VADD"],
            [b"COMMAND", b"INFO", b"VADD"],
            [b"VREM", key, b"e1", b"e2"],
            [b"VLINKS", key, self.element(key), b"WITHSCORES"],
            [b"VSETATTR", key, self.element(key), b"x" * ((1 << 20) + 1)],
            [b"VSIM", key, b"ELE", self.element(key), b"FILTER", b"(" * 70 + b".n" + b")" * 70],
            [b"VSIM", key, b"ELE", self.element(key), b"FILTER", b".n" + b" " * 9000],
            [b"VCOUNT", key],
        ])  # fmt: skip
        after = [Command((b"SELECT", b"0"))] if choice[0] == b"SELECT" else []
        return [Command(tuple(choice)), *after]
