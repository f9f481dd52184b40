"""FILTER expressions and attributes for the differential test."""

import json

FIELDS = ["n", "s", "t", "b", "z", "nu", "o", "n-1", "es", "d", "5", "x_y", "missing"]
NUMBERS = ["0", "1", "2", "5", "-1", "2.5", "1e2", ".5", "007", "1E1", "-2.5", "5.", "1e", "1.2.3", "100000000000000000000"]
STRINGS = ['"abc"', "'abc'", '"a"', '""', '"5"', "''", '"b c"', '"x\'y"', '"ü"', '"1e0"', '" 5"', '"0x10"', '"inf"', '"nan"']
TUPLES = [
    "[1,2]",
    '["abc","a"]',
    "[5]",
    "[]",
    '[1,"a",2.5]',
    "[ 1 , 5 , ]",
    "['a']",
    "[0]",
    "[-1,1]",
    "[1,,2]",
    "[1 2]",
    "[[1]]",
    "[.n]",
]
COMPARISONS = ["==", "!=", "<", "<=", ">", ">=", "in"]
ARITHMETIC = ["+", "-", "*", "/", "%", "**"]
LOGIC = ["and", "or", "&&", "||"]
BROKEN = [
    "", " ", "(", ")", "()", ".", ".n ==", "== 1", ".n = 1", ".n & 1", ".a.b", "..n", ". n", ".é", '"open', "'open", "[1", "1 2", ".n .s",
    "not", "!", "and", ".n and", ".n or or .s", "(.n", ".n)", "true", "false", ".n == true", "-.n", "-(1)", ".n @ 1", "1 in", "# x", ".n == 1;",
    ".n AND 1", "NOT .n", ".n IN [1]", "1 <> 2", "1 => 2", "1 =< 2", "+1", "1 + + 1", "1 - -1", "1--1", "(1)-1", ".n-1", ".n -1", "a", "\x00",
    "1 2 +", ".n 5 ==", "== .n 5", "(1)(2)", "1 !", ".n not", "1 (and) 2", "(1 +) 2", "1 + (2 *) 3", "!", "! !", "1()", "(1,2)", "[1](2)",
    "1 === 1", ".n == 'a' 'b'", "1 & & 1", "()1", "2 ** ** 2", "in", "in [1]", ".n in 5", ".n in abc", "[1] in [1]", "1 == [1]",
]  # fmt: skip
SPECIAL = [
    ".n == null", "null", "!!.n", "not not .n", "!not .b", '"b" in "abc"', ".s in .s", '"a" in .s', '.s == "a\\"b"', ".nu == null",
    '"a\\\\b" == .s', ".s in 'xabcx'",
]  # fmt: skip


def expression(random):
    """A FILTER expression: mostly right."""
    kind = random.random()
    if kind < 0.1:
        text = random.choice(BROKEN)
    elif kind < 0.13:
        text = random.choice(SPECIAL)
    elif kind < 0.16:
        text = _cut(random, _logical(random, 2))
    elif kind < 0.17:
        depth = random.choice([5, 20, 60])
        text = "(" * depth + ".n" + ")" * depth
    elif kind < 0.5:
        text = _comparison(random, 1)
    else:
        text = _logical(random, random.choice([1, 2, 2, 3]))
    return text.encode()


def _cut(random, text):
    """The text with one character missing, doubled or changed."""
    if not text:
        return text
    at = random.randrange(len(text))
    return random.choice([text[:at], text[:at] + text[at + 1 :], text[: at + 1] + text[at:], text[:at] + "?" + text[at + 1 :]])


def _spaced(random, left, operator, right):
    """Blanks are only needed around words."""
    if operator.isalpha() or random.random() < 0.7:
        blank = random.choice([" ", " ", "  ", "\t", "\n"])
        return f"{left}{blank}{operator}{blank}{right}"
    return f"{left}{operator}{right}"


def _atom(random):
    kind = random.random()
    if kind < 0.5:
        return "." + random.choice(FIELDS[:8] if random.random() < 0.9 else FIELDS)
    if kind < 0.75:
        return random.choice(NUMBERS[:9] if random.random() < 0.9 else NUMBERS)
    if kind < 0.92:
        return random.choice(STRINGS)
    return random.choice(TUPLES[:9] if random.random() < 0.9 else TUPLES)


def _value(random, depth):
    if depth > 0 and random.random() < 0.25:
        text = _spaced(random, _value(random, depth - 1), random.choice(ARITHMETIC), _value(random, depth - 1))
        return f"({text})" if random.random() < 0.4 else text
    return _atom(random)


def _comparison(random, depth):
    if random.random() < 0.15:
        return random.choice(["!", "not ", "! ", "not("[:3] + " "]) + _value(random, 0)
    operator = random.choice(COMPARISONS)
    right = random.choice(TUPLES[:9]) if operator == "in" and random.random() < 0.85 else _value(random, depth)
    text = _spaced(random, _value(random, depth), operator, right)
    if random.random() < 0.1:
        text = _spaced(random, text, random.choice(COMPARISONS[:6]), _atom(random))
    return text


def _logical(random, depth):
    if depth == 0:
        return _comparison(random, 1)
    text = _spaced(random, _logical(random, depth - 1), random.choice(LOGIC), _logical(random, depth - 1))
    kind = random.random()
    if kind < 0.25:
        return f"({text})"
    if kind < 0.3:
        return random.choice(["!", "not "]) + f"({text})"
    return text


ODD_ATTRIBUTES = [
    b"", b"{}", b"{", b"not json", b"[1,2]", b"5", b"null", b'"text"', b'{"n":1', b'{"n":1}x', b'{"n":1,"n":2}', b'{"n" : 5 , "s" : "abc" }',
    b'{n:1}', b"{'n':1}", b'{"n":tru}', b'{"n":01}', b'{"n":+1}', b'{"n":1e400}', b'{"n":-}', b'{"s":"a\\"b"}', b'{"s":"\\u0061bc"}',
    b'{"o":{"n":1},"n":2}', b'{"t":[[1],2],"n":1}', b'{"t":[1,{"a":2}],"n":1}', b'{"n":"5"}', b'{"n":true}', b'{"n":null}', b'{"n":[5]}',
    b'{"s":"\xff"}', b'\x00{"n":1}', b' {"n":1}', b'{"n":1,}', b'{"n":.5}', b'{"n":0x10}', b'{"n":5,"b":true', b'{"s":"abc', b'{"n":nan}',
    b'{"t":[1,2', b'{"t":[1,2],"n":5}', b'{"\\u006e":1}', b'{"n":1e2,"d":2.50}', b'{"n":-0}', b'{"n":5 }', b'{"o":{"a":"}"},"n":5}',
    b'{"o":{"a":[1,"]}"]},"n":1}', b'{"x":"{\\"n\\":7}","n":1}', b"{\"n\":\n1,\t\"s\":\r\"a\"}",
]  # fmt: skip


def attributes(random):
    """An element's attributes: mostly a JSON object of the fields that expressions use."""
    if random.random() < 0.15:
        return random.choice(ODD_ATTRIBUTES)
    values = {
        "n": [0, 1, 2, 5, -1, 2.5, 100, "5", None, True],
        "s": ["abc", "a", "", "5", "b c", "ü", 5],
        "t": [[1, 2], ["abc", "a"], [], [5, None, True, "a"], "abc"],
        "b": [True, False, 1, 0],
        "z": [0, 0.0, 1],
        "nu": [None, None, 1],
        "o": [{"a": 1}, {}, 5],
        "n-1": [3, 5],
        "d": [-2.5, 1e20],
        "5": [7],
        "es": [""],
        "x_y": [1, "abc"],
    }
    names = [name for name in values if random.random() < (0.85 if name in "nstb" else 0.5)]
    random.shuffle(names)
    chosen = {name: random.choice(values[name]) for name in names}
    separators = random.choice([(",", ":"), (", ", ": ")])
    return json.dumps(chosen, separators=separators, ensure_ascii=random.random() < 0.3).encode()
