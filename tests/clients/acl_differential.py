"""Decisions of Vecdis and a real Redis 8 on generated ACL rules, side by side.

    python tests/clients/acl_differential.py VECDIS_PORT REDIS_PORT [SEED [RULE_SETS]]

Each round makes a user by the same rules on both (the replies must be equal), compares how ACL GETUSER and ACL LIST show it, and
asks both with ACL DRYRUN whether the user may send each of many requests. Vector commands are where Vecdis means to differ:

- they have categories (@read, @write, @fast, @slow, @vector), so rules about categories reach them;
- one that reads needs %R~, one that writes needs %W~; in Redis each needs both.

For these the expected answer is worked out here from Redis's own answer to a request of the same categories and key use.
"""

import random
import sys

from wire import Connection, show

RULE_SETS = 400
USER = "ann"

# Requests on keys of the three kinds that rules speak of, and without keys.
REQUESTS = [
    ["DEL", "{key}"],
    ["UNLINK", "{key}", "{other}"],
    ["EXISTS", "{key}", "{other}"],
    ["TYPE", "{key}"],
    ["TTL", "{key}"],
    ["PTTL", "{key}"],
    ["EXPIRETIME", "{key}"],
    ["EXPIRE", "{key}", "10"],
    ["PEXPIREAT", "{key}", "10"],
    ["PERSIST", "{key}"],
    ["RENAME", "{key}", "{other}"],
    ["COPY", "{key}", "{other}"],
    ["WATCH", "{key}"],
    ["OBJECT", "ENCODING", "{key}"],
    ["OBJECT", "FREQ", "{key}"],
    ["MEMORY", "USAGE", "{key}"],
    ["SCAN", "0"],
    ["KEYS", "*"],
    ["RANDOMKEY"],
    ["DBSIZE"],
    ["FLUSHDB"],
    ["FLUSHALL"],
    ["PING"],
    ["ECHO", "x"],
    ["SELECT", "0"],
    ["SELECT", "1"],
    ["AUTH", "x"],
    ["HELLO"],
    ["RESET"],
    ["QUIT"],
    ["MULTI"],
    ["EXEC"],
    ["DISCARD"],
    ["UNWATCH"],
    ["CLIENT", "ID"],
    ["CLIENT", "INFO"],
    ["CLIENT", "LIST"],
    ["CLIENT", "KILL", "x"],
    ["CLIENT", "SETNAME", "x"],
    ["CLIENT", "SETINFO", "LIB-NAME", "x"],
    ["CLIENT", "NO-EVICT", "on"],
    ["CLIENT", "NO-TOUCH", "on"],
    ["COMMAND"],
    ["COMMAND", "COUNT"],
    ["COMMAND", "DOCS"],
    ["CONFIG", "GET", "x"],
    ["CONFIG", "SET", "x", "y"],
    ["MODULE", "LIST"],
    ["ACL", "WHOAMI"],
    ["ACL", "CAT"],
    ["ACL", "LIST"],
    ["ACL", "SETUSER", "x"],
    ["ACL", "GENPASS"],
    ["INFO"],
    ["TIME"],
    ["LASTSAVE"],
    ["SAVE"],
    ["BGSAVE"],
    ["BGREWRITEAOF"],
    ["SHUTDOWN"],
    ["DEBUG", "SLEEP", "0"],
]
# Vector commands, and the request of Redis that has the same categories and uses its key in the same way.
LIKE = [
    (["VSIM", "{key}", "ELE", "x"], ["PFCOUNT", "{key}"], "a slow read"),
    (["VCARD", "{key}"], ["HGET", "{key}", "x"], "a fast read"),
    (["VSETATTR", "{key}", "x", "{{}}"], ["HSET", "{key}", "x", "y"], "a fast write"),
    (["VREM", "{key}", "x"], ["LSET", "{key}", "0", "x"], "a slow write"),
]
KEYS = ["a:1", "r:1", "w:1", "other"]
RULES = (
    ["~a:*", "~*", "%R~r:*", "%W~w:*", "%RW~a:*", "%R~a:*", "allkeys", "resetkeys", "~r:[0-9]", "%W~r:?"]
    + ["+@all", "-@all", "allcommands", "nocommands", "+@read", "-@read", "+@write", "-@write", "+@keyspace", "-@keyspace"]
    + ["+@admin", "-@admin", "+@dangerous", "-@dangerous", "+@connection", "-@connection", "+@fast", "-@fast", "+@slow"]
    + ["-@slow", "+@transaction", "-@transaction", "+@string", "+@bogus", "+bogus", "+del", "-del", "+DEL", "+client"]
    + ["-client", "+client|id", "-client|id", "+client|list", "-client|kill", "+client|bogus", "+config|get", "-config|set"]
    + ["+config", "+acl|whoami", "-acl", "+acl", "+select|0", "+SELECT|1", "-select", "+select", "-select|0", "+select|"]
    + ["+object|encoding", "-object|freq", "+memory|usage", "+memory", "+ping", "-ping", "+exists", "+rename", "+copy"]
    + [">pw", ">other", "<pw", "<none", "nopass", "resetpass", "on", "off", "#" + "ab" * 32, "!" + "ab" * 32, "#abc"]
    + ["&*", "&ch", "allchannels", "resetchannels", "reset", "clearselectors", "sanitize-payload", "skip-sanitize-payload"]
    + ["(+@read ~a:*)", "(+@all %R~r:*)", "(~w:* +@write -del)", "(+type", "(~* +del +exists)", "(+bogus)", "(%W~a:*", "+keys)"]
    + ["nonsense", "", "~", "%~x", "%X~a", "~a b", "+@", "+", "-", "+flushall", "+info", "-info", "+dbsize", "+scan"]
)


def rule_set(rng):
    """A few rules, mostly beginning with a wide one so that the others have something to take away."""
    rules = [rng.choice(["+@all", "-@all", "+@read", "+@write", "on", "~*", "~a:*"])]
    return rules + [rng.choice(RULES) for _ in range(rng.randint(1, 7))]


def fill(request, rng_keys):
    key, other = rng_keys
    return [word.format(key=key, other=other) for word in request]


class Comparison:
    """Two connections, and what was found."""

    def __init__(self, vecdis_port, redis_port):
        self.vecdis, self.redis = Connection(vecdis_port), Connection(redis_port)
        self.decisions = self.likened = self.refused = 0
        self.different = []

    def both(self, *command):
        return show(self.vecdis.call(*command)), show(self.redis.call(*command))

    def note(self, rules, command, ours, theirs):
        if ours != theirs:
            self.different.append((" ".join(rules), " ".join(map(str, command)), ours, theirs))

    def round(self, rules, rng):
        self.both("ACL", "DELUSER", USER)
        made = ["ACL", "SETUSER", USER, *rules]
        ours, theirs = self.both(*made)
        self.note(rules, made, ours, theirs)
        if theirs.startswith("-"):
            # All or nothing: there is no user.
            self.refused += 1
            self.note(rules, ["ACL", "GETUSER"], *self.both("ACL", "GETUSER", USER))
            return
        for command in (["ACL", "GETUSER", USER], ["ACL", "LIST"], ["ACL", "USERS"]):
            self.note(rules, command, *self.both(*command))
        for request in REQUESTS:
            command = ["ACL", "DRYRUN", USER, *fill(request, rng.sample(KEYS, 2))]
            self.decisions += 1
            self.note(rules, command, *self.both(*command))
        for request, like, _ in LIKE:
            keys = rng.sample(KEYS, 2)
            if any(rule.lower().lstrip("+-(").startswith(("@", "all", "no", "reset")) or "~" in rule for rule in rules):
                ours = show(self.vecdis.call("ACL", "DRYRUN", USER, *fill(request, keys)))
                theirs = show(self.redis.call("ACL", "DRYRUN", USER, *fill(like, keys)))
                self.likened += 1
                # Of the command only the name may differ.
                theirs = theirs.replace(f"'{like[0].lower()}'", f"'{request[0]}'")
                self.note(rules, request, ours, theirs)


def compare_servers(vecdis_port, redis_port, seed, rule_sets=RULE_SETS):
    """Compares the decisions on that many rule sets."""
    rng = random.Random(seed)
    comparison = Comparison(vecdis_port, redis_port)
    for connection in (comparison.vecdis, comparison.redis):
        for user in connection.call("ACL", "USERS").value:
            if user.value != b"default":
                connection.call("ACL", "DELUSER", user.value)
    for _ in range(rule_sets):
        comparison.round(rule_set(rng), rng)
    comparison.both("ACL", "DELUSER", USER)
    return comparison


def report(comparison, rule_sets):
    print(f"{rule_sets} rule sets ({comparison.refused} refused by both or one), {comparison.decisions} decisions and")
    print(f"{comparison.likened} on vector commands: {len(comparison.different)} different")
    for rules, command, ours, theirs in comparison.different[:20]:
        print(f"  {rules}\n    {command}\n      vecdis {ours}\n      redis  {theirs}")


def main():
    vecdis_port, redis_port = int(sys.argv[1]), int(sys.argv[2])
    seed = sys.argv[3] if len(sys.argv) > 3 else "1"
    rule_sets = int(sys.argv[4]) if len(sys.argv) > 4 else RULE_SETS
    comparison = compare_servers(vecdis_port, redis_port, seed, rule_sets)
    report(comparison, rule_sets)
    sys.exit(bool(comparison.different))


if __name__ == "__main__":
    main()
