"""Redis's protocol in the raw: requests as bytes, replies with their types kept, for tests that compare two servers."""

import socket
from typing import NamedTuple

# Longest wait for one reply.
REPLY_MAX_S = 30.0
# Longest text that `show` gives.
SHOWN_CHARACTERS = 600


class Reply(NamedTuple):
    """One reply: the type byte of the protocol, and the value.

    `+`, `-`, `$`, `=`, `,` hold bytes (a double keeps its text), `:` an int, `#` a bool, `*`, `~`, `>` a list of replies, `%` a
    list of pairs of replies, `_` None. A null bulk string is `$` with None, a null array `*` with None.
    """

    kind: str
    value: object

    def is_error(self):
        return self.kind == "-"


def encode(arguments):
    """The request as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        parts.append(b"$%d\r\n%s\r\n" % (len(argument), argument))
    return b"".join(parts)


class Connection:
    """A client's connection to a server on 127.0.0.1."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_MAX_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def call(self, *arguments):
        """Sends one command and gives its reply. Arguments are bytes, text or numbers."""
        self.send(encode([a if isinstance(a, bytes) else str(a).encode() for a in arguments]))
        return self.read()

    def read(self):
        """The next reply. Raises ConnectionError when the server has closed."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = chr(line[0]), line[1:-2]
        if kind in "+-,":
            return Reply(kind, rest)
        if kind in ":(":
            return Reply(kind, int(rest))
        if kind == "#":
            return Reply(kind, rest == b"t")
        if kind == "_":
            return Reply(kind, None)
        length = int(rest)
        if length < 0:
            return Reply(kind, None)
        if kind in "$=":
            return Reply(kind, self.file.read(length + 2)[:-2])
        if kind == "%":
            return Reply(kind, [(self.read(), self.read()) for _ in range(length)])
        if kind in "*~>":
            return Reply(kind, [self.read() for _ in range(length)])
        raise ConnectionError(f"not a reply: {line!r}")

    def rest_of_stream(self, data):
        """Sends `data`, closes the sending half, and gives all bytes the server answers until it closes."""
        self.send(data)
        try:
            self.socket.shutdown(socket.SHUT_WR)
            return self.file.read()
        except ConnectionResetError:
            return b""

    def close(self):
        self.file.close()
        self.socket.close()


def quoted(data):
    """Bytes as a word in double quotes, as redis-cli reads and shows them."""
    escapes = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
    inside = "".join(escapes.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in data)
    return f'"{inside}"'


def word(data):
    """Bytes as redis-cli would take them: bare where possible."""
    plain = data and all(33 <= b < 127 and b not in b"\"'\\;$`&|<>()*!#?" for b in data)
    return data.decode() if plain else quoted(data)


def show(reply):
    """A reply on one line, its types visible."""
    text = _show(reply)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"


def _show(reply):
    kind, value = reply
    if kind == "bytes":
        return "bytes " + quoted(value)
    if value is None:
        return {"$": "null bulk", "*": "null array"}.get(kind, "null")
    if kind in "+-,":
        return kind + value.decode(errors="backslashreplace")
    if kind in ":(#":
        return f"{kind}{value}"
    if kind in "$=":
        return ("=" if kind == "=" else "") + quoted(value)
    if kind == "%":
        return "%{" + ", ".join(f"{_show(k)}: {_show(v)}" for k, v in value) + "}"
    return ("" if kind == "*" else kind) + "[" + ", ".join(map(_show, value)) + "]"
