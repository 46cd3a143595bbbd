#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What fflushctl --json prints is what the table in section JSON of fflushctl(8) says: each key of
each object, with its type."""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TOP, eq
from ctl import backlog, import_from, message, objects
from harness import main, test

# Of the table, what does not occur here, and why.
UNSEEN = {
    "history": "needs a journal: booted_history.py",
    "recent_flush": "needs a journal: booted_outcome.py",
    "not_eligible": "needs Postfix's listing: booted_stuck.py",
    "not_recorded": "needs Postfix's listing: booted_stuck.py",
    "enable-postfix": "needs systemd and a Postfix: booted_switch.py",
    "disable-postfix": "needs systemd and a Postfix: booted_switch.py",
}


def table():
    """The manual's: what each type of object has, and each key's types."""
    with open(os.path.join(TOP, "man/fflushctl.8")) as f:
        section = re.search(r"\n\.Sh JSON\n(.*?)\n\.Sh ", f.read().replace("\\\n", ""), re.S).group(1)
    columns = [re.search(r'\.Bl -column .*\n((?:\.It .*\n)+?)\.El', part).group(1)
               for part in section.split(".\\\" table\n")[1:]]
    rows = [[[re.sub(r"^(Em|Li|Va) | , ", " ", cell).split() for cell in line[4:].split(" Ta ")]
             for line in text.splitlines() if not line.startswith(".It Em")] for text in columns]
    kinds = {}
    for (name,), keys in rows[0]:
        kinds.setdefault(name, set()).update(keys)
    types = {}
    for names, kind, *_ in rows[1]:
        for name in names:
            eq(name in types, False, name + " is there twice")
            types[name] = set("".join(kind).split("|"))
    return kinds, types


def type_of(value):
    return {bool: "boolean", int: "number", str: "string", list: "array", dict: "object",
            type(None): "null"}[type(value)]


class Checker:
    def __init__(self):
        self.kinds, self.types = table()
        self.seen = {kind: set() for kind in self.kinds}
        self.keys = set()

    def check_keys(self, value, where):
        for key, one in value.items():
            assert key in self.types, "%s: %s is not in the manual" % (where, key)
            assert type_of(one) in self.types[key], "%s: %s is %r, not %s" % (
                where, key, one, self.types[key])
            self.keys.add(key)
            inner = one if isinstance(one, list) else [one] if isinstance(one, dict) else []
            for o in inner:
                if isinstance(o, dict) and key not in ("units", "enabled", "requests") \
                        and not key.endswith("_by_class"):
                    self.check_keys(o, where + "." + key)

    def check(self, found):
        for o in found:
            kind = o["type"]
            assert kind in self.kinds, o
            eq(list(o)[0], "type", o)
            eq(set(o) - {"type"} - self.kinds[kind], set(), kind)
            eq(self.kinds[kind] - set(o), set(), "%s lacks: %s" % (kind, o))
            self.check_keys(o, kind)
            self.seen[kind] |= set(o)


def run(d, checker, *args, **kwargs):
    r = d.ctl("--json", *args, check=False, **kwargs)
    found = objects(r)
    checker.check(found)
    errors = [o for o in found if o["type"] == "error"]
    eq([o["message"] for o in errors],
       [line[len("fflushctl: "):] for line in r.stderr.splitlines() if line.startswith("fflushctl: ")],
       args)
    return r, found


@test
def each_key_that_is_printed_is_in_the_manual_and_the_other_way_round(t):
    checker = Checker()
    spool, d = t.make(fast_flush_domains="example.com, mail.example.com, a-b.test, x.test")
    run(d, checker, "metrics")
    run(d, checker, "status", "--no-start")
    backlog(spool)
    spool.log("bad_test", b"!!\nA1")
    for args in (("list",), ("show", "example.com", "nosuch.test"), ("verify",),
                 ("flush", "-n", "example.com"), ("flush", "example.com", "nosuch.test"),
                 ("flush", "-w", "-t", "1s", "mail.example.com"),
                 ("flush", "--limit", "1", "--every", "10ms", "a-b.test"),
                 ("deliver", "A1", "a/b"), ("add", "x.test", "ABC123"), ("refresh",), ("purge",),
                 ("status",), ("check",), ("metrics", "x.test"), ("export",), ("verify", "--repair")):
        run(d, checker, *args)
    run(d, checker, "-s", spool.join("public/nosuch"), "status")
    r = import_from(d, message("A1", "u@x.test"), "--json")
    checker.check(objects(r))
    seen = {kind for kind, keys in checker.seen.items() if keys}
    eq(set(checker.kinds) - seen, set(UNSEEN))
    unseen = set().union(*(checker.kinds[kind] for kind in UNSEEN))
    eq(set(checker.types) - checker.keys - unseen - {"type", "address"}, set())  # as for not_eligible


@test
def errors_are_objects_with_the_exit_status(t):
    checker = Checker()
    spool, d = t.make(fast_flush_domains="example.com")
    for args, code, status in (
            (("flush", "nosuch.test"), "permission-denied", os.EX_NOPERM),
            (("flush", "a@b.test"), "invalid", os.EX_DATAERR),
            (("flush", "--limit", "0", "b.test"), "usage", os.EX_USAGE),
            (("flush", "--no-such-option"), "usage", os.EX_USAGE),
            (("flush",), "usage", os.EX_USAGE),
            (("list", "-n"), "usage", os.EX_USAGE),
            (("show", "nosuch.test"), "not-found", os.EX_NOINPUT),
            (("-s", "/nonexistent/socket", "purge"), "unavailable", os.EX_UNAVAILABLE)):
        r, found = run(d, checker, *args)
        errors = [o for o in found if o["type"] == "error"]
        eq([(o["code"], o["exit"]) for o in errors], [(code, status)], r)
        eq(r.returncode, status)


@test
def check_prints_one_object_whatever_goes_wrong(t):
    checker = Checker()
    spool, d = t.make()
    for args in (("check",), ("check", "--nosuch"), ("check", "-t", "x"),
                 ("-i", "nosuch", "check")):
        r = d.ctl("-j", *args, check=False)
        o, = objects(r)
        checker.check([o])
        eq((o["type"], o["exit"]), ("check", r.returncode), r)


if __name__ == "__main__":
    main()
