#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Where hashing wants messages and logs; and which sites are eligible, as Postfix has it."""

import os
import shutil
import subprocess
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)) + d for d in ("/../lib", "/vectors")]

from basics import DAY, HOUR, TIMEOUT, eq
from client import DENY, FAIL, OK, PURGE, REFRESH, add, send_file, send_site
from harness import main, test
from playing import Dir, Failures, File, Journal, QUIET, Service, WARNING, at_once
from vectors import LONG_ID, SEND, Vector

# Name -> the first three hash directories; shorter depths have the first of these.
FORESTS = {"ABC123": "A/B/C", "A": "A/_/_", "AB": "A/B/_", "_abc": "_/a/b", "abc": "a/b/c",
           "4jY8076wjqz8d3T": "E/E/2", "4jY8076vx1z8d3D": "E/D/9", "4jY8076txJz8d2s": "E/C/F",
           LONG_ID: "5/6/3", "12345678zAB": "1/2/3", "1234567A90zAB": "0/0/0"}

# Site -> name and hash directories of its log: there a 'z' far behind counts as in a long ID.
LOG_FORESTS = {"example.com": ("example_com", "e/x/a"),
               "ab": ("ab", "a/b/_"),
               "www.example.zone": ("www_example_zone", "0/0/0"),
               "a.very.long.bcdfz.example": ("a_very_long_bcdfz_example", "4/3/D"),
               "0123456789zz.example": ("0123456789zz_example", "F/5/B"),
               "x": ("xZ", "x/Z/_")}


def place(queue, forest, name, hashed, depth):
    """Path of a file."""
    return "/".join([queue] + forest.split("/")[:depth if queue in hashed else 0] + [name])


def parents(path):
    """The hash directories of a path, which have to be there with mode 0700."""
    parts = path.split("/")
    return {"/".join(parts[:i]) + "/": Dir() for i in range(2, len(parts))}


HASHINGS = [(depth, names) for depth in (1, 2, 3)
            for names in ("deferred, defer", "Deferred INCOMING,\tflush", "flush, active, hold")]


@test
def messages_are_found_and_put_where_hashing_wants_them(t):
    failures = Failures()
    for depth, names in HASHINGS:
        service = Service(t, hash_queue_names=names, hash_queue_depth=depth)
        for queue_id, forest in FORESTS.items():
            def at(queue):
                return place(queue, forest, queue_id, names.lower(), depth)

            recorded = place("flush", "e/x/a", "example_com", names.lower(), depth)
            record = {recorded: File(queue_id.encode() + b"\n", 0o600, -HOUR)}
            empty = {recorded: File(b"", 0o600, 0)}
            made = parents(at("incoming"))
            moved_to = {at("deferred"): None, at("incoming"): File(mtime=0)}
            marked = {at("deferred"): None, at("incoming"): File(mode=0o740, mtime=0)}
            for what, request, before, after, trig in (
                    ("send_file", send_file(queue_id), {at("deferred"): File()}, marked | made,
                     b"I"),
                    ("send_site", SEND, {at("deferred"): File()} | record,
                     moved_to | made | empty, b"FI"),
                    ("send_site, active", SEND, {at("active"): File()} | record,
                     {recorded: File(queue_id.encode() + b"\n", 0o600, 0)}, b"FI"),
                    ("send_site, hold", SEND, {at("hold"): File()} | record,
                     {recorded: File(queue_id.encode() + b"\n", 0o600, 0)}, b"FI")):
                with failures:
                    service.run(Vector("105", request, OK, after, before=before, trig=trig), at_once,
                                "%s %s, depth %d of %r" % (what, queue_id, depth, names))
    failures.end()


@test
def logs_are_found_and_made_where_hashing_wants_them(t):
    failures = Failures()
    for depth, names in HASHINGS:
        service = Service(t, hash_queue_names=names, hash_queue_depth=depth)
        hashed = names.lower()
        for site, (name, forest) in LOG_FORESTS.items():
            path = place("flush", forest, name, hashed, depth)
            deferred = place("deferred", "A/B/C", "ABC123", hashed, depth)
            incoming = place("incoming", "A/B/C", "ABC123", hashed, depth)
            flushed = {path: File(b"", 0o600, 0), deferred: None,
                       incoming: File(mtime=0)} | parents(incoming)
            recorded = {path: File(b"ABC123\n", 0o600, -HOUR), deferred: File()}
            for number, request, after, before, trig in (
                    ("104", add(site, "ABC123"),
                     {path: File(b"ABC123\n", 0o600, 0)} | parents(path), {}, b""),
                    ("66", send_site(site), flushed, recorded, b"FI"),
                    ("103a", PURGE, flushed, recorded, b"I"),
                    ("97a", REFRESH, {path: None}, {path: File(b"", 0o600, -8 * DAY)}, b"")):
                with failures:
                    service.run(Vector(number, request, OK, after, before=before, trig=trig), at_once,
                                "%s, depth %d of %r" % (site, depth, names))
        if "flush" in hashed:  # ours: flush(8) does not see a log that is not in its place
            path = place("flush", "e/x/a", "example_com", hashed, depth)
            deferred = place("deferred", "A/B/C", "ABC123", hashed, depth)
            incoming = place("incoming", "A/B/C", "ABC123", hashed, depth)
            misplaced = {"flush/example_com": File(b"ABC123\n", 0o600, -HOUR), deferred: File()}
            flushed = {"flush/example_com": None, path: File(b"", 0o600, 0), deferred: None,
                       incoming: File(mtime=0)} | parents(incoming) | parents(path)
            for request, trig in ((PURGE, b"I"), (SEND, b"FI")):
                with failures:
                    service.run(Vector("103b", request, OK, flushed, before=misplaced, trig=trig),
                                at_once, "misplaced log, depth %d of %r" % (depth, names))
    failures.end()


# ------------------------------------------------------------------------------------ eligibility

PARENT, STRICT = "fast_flush_domains, relay_domains", "relay_domains"


class DomainList:
    """A value of fast_flush_domains and what it says to sites; "@" is a directory with tables.

    types   of tables, which must be there; mode: PARENT or STRICT; start: what is logged then
    """

    def __init__(self, domains, answers, types="", mode=PARENT, start=QUIET):
        self.domains, self.answers, self.types = domains, answers, types.split()
        self.mode, self.start = mode, start


HASH_KEYS = "hash.example ok\n.dothash.example ok\n[192.0.2.7] ok\nMixed.Example no\n"
REGEXPS = "/^re[0-9]+\\.example$/ ok\n/^neg/ no\n"
SITES_FILE = """\
file.example
# comment line
  continued.example
x.example, y.example !z.example
"""

FIXED_PARENT = {"hash.example": OK, "a.b.hash.example": OK, "other.example": DENY,
                "dothash.example": DENY, "a.dothash.example": DENY, "Mixed.Example": OK,
                "[192.0.2.7]": OK}  # ours: the literal is eligible; flush(8) refuses all (DENY)
FIXED_STRICT = {"hash.example": OK, "a.hash.example": DENY, "dothash.example": DENY,
                "a.b.dothash.example": OK}

ELIGIBILITY = [
    DomainList("", {"example.com": DENY, "a": DENY, "[192.0.2.1]": DENY}),
    DomainList("!bad.example.com,example.com",
               {"example.com": OK, "a.example.com": OK, "bad.example.com": DENY, "x.bad.example.com": DENY,
                "other.com": DENY}),
    DomainList("example.com,!bad.example.com", {"bad.example.com": OK}),
    DomainList("example.com,.example.com,.dot.example",
               {"example.com": OK, "a.b.example.com": OK, "dot.example": DENY, "a.dot.example": OK},
               mode=STRICT),
    DomainList("example.com", {"example.com": OK, "a.example.com": DENY}, mode=STRICT),
    DomainList(".dot.example,Example.NET",
               {"dot.example": DENY, "a.dot.example": DENY, "EXAMPLE.net": OK, "a.example.net": OK}),
    DomainList("@/sites",
               {"file.example": OK, "continued.example": OK, "x.example": OK, "y.example": OK,
                "z.example": DENY, "a.z.example": DENY, "comment": DENY, "line": DENY}),
    DomainList("!@/sites z.example", {"file.example": DENY, "z.example": OK}),
    DomainList("@/sites_and_table",
               {"file.example": OK, "hash.example": OK, "a.hash.example": OK, "other.example": DENY},
               "texthash"),
    *[DomainList(kind + ":@/" + kind, FIXED_PARENT, kind)
      for kind in ("hash", "btree", "lmdb", "cdb", "texthash")],
    *[DomainList(kind + ":@/" + kind, FIXED_STRICT, kind, STRICT)
      for kind in ("hash", "btree", "lmdb", "cdb", "texthash")],
    DomainList("regexp:@/regexp",
               {"re1.example": OK, "RE2.example": OK, "a.re1.example": DENY, "neg1": OK}, "regexp"),
    DomainList("inline:{ { one.example = x }, two.example=y }",
               {"one.example": OK, "two.example": OK, "sub.one.example": OK, "three.example": DENY},
               "inline"),
    DomainList("static:all", {"example.com": OK, "localhost": OK, "": DENY}),
    DomainList("!static:all,example.com", {"example.com": DENY}),
    DomainList("first.example,fail:oops,example.com",
               {"first.example": OK, "example.com": FAIL, "other.com": FAIL}, "fail"),
    DomainList("first.example,hash:@/nonexistent,example.com", {"first.example": OK, "example.com": FAIL},
               "hash"),
    DomainList("first.example,@/nonexistent/file,example.com", {"first.example": OK, "example.com": FAIL},
               start=WARNING),
    DomainList("first.example,nosuchtype:/x,example.com", {"first.example": OK, "example.com": FAIL},
               "postmap"),
]


def table_types():
    """The types that the postmap of this system can read; none without Postfix."""
    if not shutil.which("postmap", path="/usr/sbin:/usr/bin"):
        return set()
    r = subprocess.run(["postconf", "-m"], capture_output=True, text=True, timeout=TIMEOUT)
    return set(r.stdout.split()) | {"postmap"} if r.returncode == 0 else set()


def make_tables(directory, types):
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    files = {"sites": SITES_FILE, "regexp": REGEXPS,
             "sites_and_table": "file.example\ntexthash:%s/texthash\n" % directory}
    indexed = [kind for kind in ("hash", "btree", "lmdb", "cdb") if kind in types]
    for name in indexed + ["texthash"]:
        files[name] = HASH_KEYS
    if "texthash" in types:  # folds nothing itself: all look-ups are for lower case
        files["texthash"] = HASH_KEYS.lower()
    for name, text in files.items():
        path = os.path.join(directory, name)
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, 0o644)
        if name in indexed:
            subprocess.run(["postmap", "%s:%s" % (name, path)], check=True, timeout=TIMEOUT)
    for name in os.listdir(directory):
        os.chmod(os.path.join(directory, name), 0o644)


@test
def eligibility_is_that_of_postfix(t):
    types = table_types()
    tables = os.path.join(t.base, "tables")
    make_tables(tables, types)
    failures = Failures()
    left_out = []
    for x in ELIGIBILITY:
        if not set(x.types) <= types:
            left_out.append(x.domains)
            continue
        spool, d = t.make(fast_flush_domains=x.domains.replace("@", tables),
                          parent_domain_matches_subdomains=x.mode)
        journal = Journal(d)
        for i, (site, wanted) in enumerate(x.answers.items()):
            what = "fast_flush_domains = %s (%s), site %r" % (x.domains, x.mode, site)
            with failures:
                eq(d.exchange(send_site(site)), wanted, what)
            lines = journal.lines()
            about = [line for line in lines if line[1].startswith("send_site ")]
            severe = [line for line in about if line[0] <= 4]
            with failures:
                eq(len(severe), 1 if wanted == FAIL or site == "" else 0, what + ": journal, %r" % lines)
            if i == 0:
                with failures:
                    eq(len([line for line in lines if line[0] <= 4]), 1 if x.start == WARNING else 0,
                       what + ": journal at the start, %r" % lines)
    if left_out:
        print("# left out, postmap is missing or does not know the type: %s" % "; ".join(left_out))
    failures.end()


if __name__ == "__main__":
    main()
