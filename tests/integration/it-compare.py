#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushd against the original: the same requests go to Postfix's flush(8) and to fflushd.

A private Postfix instance (its own configuration, queue and data directories, no network, master
with nothing but flush and postlog) serves one queue directory, fflushd a twin of it. After every
request the replies, the triggers and the two queue directories are compared. Where fflushd
differs on purpose, a function in the section "deviations" says so; all other differences fail.

Needs root, as master(8) does, and an installed Postfix; else the tests are skipped.
"""

import os
import sys
import collections
import functools
import re
import stat
import threading
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from original import *

REQUESTS = int(os.environ.get("FFLUSHD_COMPARE_REQUESTS", "400"))  # in each stream
HOUR, DAY = 3600, 86400


# ------------------------------------------------------------------------ queue files and logs

LOG_LETTERS = {".": "_", "-": "D", "_": "U", "[": "L", "]": "R", ":": "C"}


def our_log(site):
    name = "".join(LOG_LETTERS.get(c, c) for c in site)
    return name + "Z" if len(name) == 1 else name


def folded_log(site):
    return re.sub("[^a-z0-9]", "_", site)


def fold_log(name):
    """The original's name for one of ours."""
    return re.sub("[%s]" % "".join(LOG_LETTERS.values()), "_", name)


BASE52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


def forest(name, depth):
    key, end = name, name.rfind("z")
    if end >= 10:
        digits = [BASE52.find(c) for c in name[end - 4:end]]
        value = 0
        for d in digits:
            value = value * 52 + d
        key = "%05X" % (0 if -1 in digits else value)
    return [key[i] if i < len(key) else "_" for i in range(depth)]


def records(data):
    """Lines of a log: [(text, has its newline)]."""
    parts = data.split(b"\n")
    return [(p, True) for p in parts[:-1]] + ([(parts[-1], False)] if parts[-1] else [])


def valid_records(data):
    """The IDs of a log, each once, where and as it first occurs."""
    found = {}
    for text, whole in records(data):
        text = text.split(b"\0")[0]
        if re.fullmatch(rb"[A-Za-z0-9_]{1,255}", text):
            found.setdefault(text, whole)
    return list(found.items())


def distinct(data):
    return list(dict.fromkeys(text for text, _ in records(data)))


def join_records(lines):
    return b"".join(text + (b"\n" if whole else b"") for text, whole in lines)


class Entry(NamedTuple):
    kind: int
    mode: int
    owner: tuple
    links: Optional[int]
    data: Optional[bytes]
    mtime: Optional[int]  # nanoseconds
    atime: Optional[int]
    path: str

    def fixed(self):
        return self.kind, oct(self.mode), self.owner, self.links


def make_parents(spool, path):
    """As Postfix does, with mode 0700; and touches nothing else, as Spool.put() would."""
    parts = path.split("/")[:-1]
    for i in range(1, len(parts) + 1):
        directory = spool.join(*parts[:i])
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700)
            os.chown(directory, USER.pw_uid, USER.pw_gid)


def put(spool, path, *args, **kw):
    make_parents(spool, path)
    return spool.put(path, *args, **kw)


def read_quietly(path):
    """Read without a change to the atime, by which the refresh goes."""
    fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
    with open(fd, "rb") as f:
        return f.read()


def look_at(path, is_log):
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    owner = (st.st_uid, st.st_gid)
    if stat.S_ISDIR(kind):
        return Entry(kind, st.st_mode & 0o7777, owner, None, None, None, None, path)
    if stat.S_ISLNK(kind):
        # Deviation "symbolic links": flush(8) sets the time of what the link points to, fflushd
        # that of the link. Time stamps of links mean nothing to qmgr, which ignores links.
        return Entry(kind, 0, owner, st.st_nlink, os.readlink(path).encode(), None, None, path)
    return Entry(kind, st.st_mode & 0o7777, owner, st.st_nlink, read_quietly(path),
                 st.st_mtime_ns, st.st_atime_ns if is_log else None, path)


# ------------------------------------------------------------------------------- requests

def same(reply):
    return reply


@dataclass
class Request:
    data: bytes
    name: str  # what it is, for people
    kind: Optional[str] = None  # add, send_site, send_file, refresh, purge, if answered OK
    log: Optional[str] = None  # the original's name of the site's log
    id: Optional[str] = None
    eof: bool = False
    reply: Callable = same  # the original's answer to ours: see "deviations"
    literal: bool = False
    then_original: Optional[bytes] = None  # sent to it only, afterwards


def talk(server, data, eof=False, pieces=None, pause=0.0):
    """All bytes that come back for a request."""
    with server.connect() as s:
        for piece in cut(data, pieces):
            try:
                s.sendall(piece)
            except (BrokenPipeError, ConnectionResetError):
                break
            if pause:
                time.sleep(pause)
        if eof:
            try:
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        return receive_all(s)


def talk_all(server, requests):
    """All at the same time; the replies in the order of the requests."""
    connections = [server.connect() for _ in requests]
    try:
        for s, r in zip(connections, requests):
            s.sendall(r.data)
        return [receive_all(s) for s in connections]
    finally:
        for s in connections:
            s.close()


# ------------------------------------------------------------------------------- deviations
#
# What fflushd does otherwise, on purpose. First the replies: each function gets the original's
# reply, says what that has to be, and returns ours, or a set if more than one will do.

def one_of(reply, *allowed):
    if reply not in allowed:
        raise AssertionError("the original answers %r, wanted one of %r" % (reply, allowed))


def unknown_request_is_bad(reply):
    """flush(8) hangs up on a request it does not know; its client cannot tell that from a crash.

    So it does for one or two bytes and EOF, which it takes for the name of a request."""
    one_of(reply, b"")
    return BAD


def silence_is_bad(reply):
    """EOF at once: of its BAD, flush(8) sends the last three bytes only."""
    one_of(reply, b"3\0\0", BAD)
    return BAD


def first_string_decides(reply):
    """"W", NUL and more is a wake-up, whatever else has arrived at that moment; flush(8) takes
    more than two bytes for an attribute list. (It then gets its wake-up by itself, so that the
    queues stay twins.)"""
    one_of(reply, BAD)
    return OK


def no_site_at_all_may_be_denied(reply):
    """What is no site is refused as such, and no table is asked for it; flush(8) asks all the same,
    and says FAIL if it cannot. Returns what is right."""
    return {DENY, FAIL} if reply == FAIL else reply


def requests_are_bounded(reply):
    """flush(8) reads lists of any length into its memory, and looks for any site."""
    one_of(reply, DENY, FAIL)
    return BAD


def address_literals_work(reply):
    """flush(8) refuses [192.0.2.1] since it knows internationalised names, by accident."""
    one_of(reply, DENY, OK)
    return OK


class Deviations:
    """The queues: each function looks at what one request did to both, checks exactly what may
    differ and makes the original's queue like ours, so that they are twins again."""

    def duplicates_are_coalesced(self, r):
        """An ID that is known to be recorded is not written again, so the log's mtime stays. (It
        has a meaning for empty logs only.)"""
        pre, a, b = self.log_entries(r.log)
        if pre is None or r.id.encode() not in distinct(pre.data) or a is None or b is None:
            return
        if b.data == self.pre[1][self.key(r.log)].data:
            eq(b.mtime, self.pre[1][self.key(r.log)].mtime, "mtime without a write")
            eq(a.data, pre.data + r.id.encode() + b"\n", "the original's log")
            self.copy(r.log, data=False)

    def last_line_gets_its_newline(self, r):
        """A last line without newline would become one with the next record."""
        pre, a, b = self.log_entries(r.log)
        if pre is None or pre.data == b"" or pre.data.endswith(b"\n"):
            return
        pre_b = self.pre[1][self.key(r.log)]
        eq(a.data, pre.data + r.id.encode() + b"\n", "the original's log")
        eq(b.data, pre_b.data + b"\n" + r.id.encode() + b"\n", "our log")
        self.copy(r.log)

    def unmoved_records_are_kept(self):
        """flush(8) empties the log whatever became of the messages. fflushd keeps the records
        of those that are in active or on hold, or could not be moved. Returns the logs that were
        sent."""
        sent = set()
        for key, pre in self.pre[0].items():
            a, b = self.post[0].get(key), self.post[1].get(key)
            if not key.startswith("log ") or not pre.data or a is None or a.data:
                continue
            sent.add(key)
            kept = [(text, whole) for text, whole in valid_records(self.pre[1][key].data)
                    if self.is_stuck(text.decode())]
            if b is None:
                raise AssertionError("%s: our log is gone" % key)
            self.check_rewritten(key, kept, b.data)
            self.pure[key] = not kept
            if kept:
                self.check_times(key, a, b)
                self.copy(key.removeprefix("log "))
        return sent

    def check_rewritten(self, key, lines, data):
        """The newline that ends a torn last line first may stay, even as an empty line."""
        old, wanted = self.pre[1][key].data, join_records(lines)
        if lines and not old.endswith(b"\n") and data == wanted + b"\n":
            return
        eq(data, wanted, "%s: records that stay of %r" % (key, old[-1000:]))

    def is_stuck(self, queue_id):
        """Not to be moved, as things were before the request?"""
        at = {queue: self.pre[0].get(self.path(queue, queue_id))
              for queue in ("deferred", "incoming", "active", "hold")}
        if at["deferred"]:
            return at["deferred"].owner[0] != USER.pw_uid
        return not at["incoming"] and bool(at["active"] or at["hold"])

    def refused_messages_are_not_touched(self, r):
        """send_file: flush(8) sets the time of a message that is not ready or has other links
        and then leaves it where it is, due too early."""
        for queue in ("deferred", "incoming"):
            key = self.path(queue, r.id)
            pre, a, b = (side.get(key) for side in (self.pre[1], self.post[0], self.post[1]))
            if pre is None:
                continue
            if (stat.S_ISREG(pre.kind) and pre.owner[0] == USER.pw_uid and a and b
                    and (pre.mode & 0o700 != 0o700 or pre.links != 1)):
                eq(b, pre, "a message that is refused")
                if not self.since - 1.1 <= a.mtime / 1e9 <= time.time():
                    raise AssertionError("the original did not touch %s" % key)
                self.copy_file(key, data=False)
            return

    def long_logs_are_compacted(self, sent):
        """A refresh removes duplicates and rubbish from a long log that it does not send."""
        for key, pre in self.pre[1].items():
            a, b = self.post[0].get(key), self.post[1].get(key)
            if not key.startswith("log ") or key in sent or len(pre.data) < 4096:
                continue
            ids = valid_records(pre.data)
            if len(records(pre.data)) <= 2 * len(ids):
                continue
            self.check_rewritten(key, ids, b.data)
            eq(b.atime, pre.atime, "%s: compaction is no send" % key)
            self.count["compacted"] += 1
            self.copy(key.removeprefix("log "))

    def address_literals_have_logs(self, r):
        """See address_literals_work(). Looked at and taken away: the original has no such log."""
        site = re.search(rb"site\0(\[[^\0]*\])\0", r.data).group(1).decode().lower()
        key = self.key(folded_log(site))
        if r.kind == "add":
            entry = self.post[1].pop(key)
            eq(os.path.basename(entry.path), our_log(site))
            eq(entry.data, r.id.encode() + b"\n", "log of %s" % site)
            os.unlink(entry.path)

    def order_of_concurrent_adds(self, requests):
        """None is right, nor a deviation: requests at the same time may come in any order."""
        added = collections.defaultdict(list)
        for r in requests:
            if r.log:
                added[r.log].append(r.id.encode())
        for log, ids in added.items():
            pre, a, b = self.log_entries(log)
            if a is None or b is None:
                continue
            old = [text for text, _ in records(pre.data)] if pre else []
            old_b = [text for text, _ in records(self.pre[1][self.key(log)].data)] if pre else []
            lines_a, lines_b = ([text for text, _ in records(e.data)] for e in (a, b))
            eq(lines_a[:len(old)], old, "flush(8): old records")
            eq(lines_b[:len(old_b)], old_b, "fflushd: old records")
            eq(sorted(lines_a[len(old):]), sorted(ids), "flush(8): new records")
            new = set(ids) if self.pure.get(self.key(log), True) else set(lines_b[len(old_b):])
            if not new <= set(ids) or set(lines_b) != set(old_b) | set(ids):
                raise AssertionError("fflushd: new records %r, wanted %r" % (lines_b, ids))
            self.copy(log)

    @staticmethod
    def triggers(kind, original, ours):
        """One "I" for a whole refresh, where flush(8) sends one for each log; and in a long
        send more than one, so that delivery starts early. What is to be compared."""
        if kind in ("refresh", "purge"):
            return re.sub(b"^I+$", b"I", original), ours
        if kind == "send_site":
            return original, re.sub(b"^FI+$", b"FI", ours)
        return original, ours


# ------------------------------------------------------------------------------- the twins

class Twins(Deviations):
    """flush(8) and fflushd with the same configuration on two equal queue directories."""

    def __init__(self, t, rng, domains="static:all", strict=False, hashed="deferred, defer",
                 depth=1, prepare=None):
        self.rng, self.hashed, self.depth = rng, hashed.lower().replace(",", " ").split(), depth
        spool, self.original = make_original(
            t, hash_queue_names=hashed, hash_queue_depth=depth,
            parent_domain_matches_subdomains="relay_domains" if strict
            else "relay_domains, fast_flush_domains")
        if prepare:
            prepare(self.original)
        domains = domains.replace("$DIR", self.original.base)
        self.original.write_main_cf(
            self.original.conf, fast_flush_domains=domains, hash_queue_names=hashed,
            hash_queue_depth=depth, parent_domain_matches_subdomains="relay_domains" if strict
            else "relay_domains, fast_flush_domains")
        self.original.start()
        # A copy: fflushd leaves when its main.cf changes, and here nobody would start it again.
        conf = os.path.join(self.original.base, "conf-of-ours")
        shutil.copytree(self.original.conf, conf)
        our_spool, self.ours = t.make(postfix_config_directory=conf,
                                      fast_flush_domains=domains)
        os.mkdir(our_spool.join("saved"), 0o700)
        our_spool.own(our_spool.join("saved"))
        self.spools = [spool, our_spool]
        self.reversible = {folded_log(s.normal): our_log(s.normal) for s in SITES}
        self.pure = {}  # logs of which fflushd has written all, without anybody's help
        self.slack = 0.0
        self.count = collections.Counter()
        self.history = collections.deque(maxlen=12)
        self.pre = self.look()

    # places

    def path(self, queue, name):
        dirs = forest(name, self.depth) if queue in self.hashed else []
        return "/".join([queue] + dirs + [name])

    @staticmethod
    def key(log):
        return "log " + log

    def log_paths(self, log):
        """The log in both queue directories, by the original's name."""
        ours = self.reversible.get(log, log)
        return [spool.join(self.path("flush", name))
                for spool, name in zip(self.spools, (log, ours))]

    def log_entries(self, log):
        key = self.key(log)
        return self.pre[0].get(key), self.post[0].get(key), self.post[1].get(key)

    # looking

    def look(self):
        return [self.look_at_spool(side) for side in (0, 1)]

    def look_at_spool(self, side):
        spool, found = self.spools[side], {}
        for queue in ("incoming", "active", "deferred", "hold", "flush"):
            for root, dirs, files in os.walk(spool.join(queue)):
                for name in dirs + files:
                    full = os.path.join(root, name)
                    path = os.path.relpath(full, spool.path)
                    entry = look_at(full, queue == "flush")
                    if queue != "flush":
                        found[path] = entry
                    elif stat.S_ISDIR(entry.kind) and "flush" in self.hashed:
                        # Their names are those of the logs, which differ.
                        eq((entry.mode, entry.owner), (0o700, (USER.pw_uid, USER.pw_gid)), path)
                    else:
                        key = path
                        if not stat.S_ISDIR(entry.kind):
                            key = self.log_key(side, name, path) or path
                        if key in found:
                            raise AssertionError("two logs for %s" % key)
                        found[key] = entry
        return found

    def log_key(self, side, name, path):
        if not re.fullmatch("[A-Za-z0-9_]{2,255}", name) or path != self.path("flush", name):
            return None
        log = fold_log(name) if side == 1 else name
        if side == 1:
            eq(name, self.reversible.setdefault(log, name), "name of our log")
        return self.key(log)

    # making them equal again

    def copy(self, log, data=True):
        self.copy_file(self.key(log), data)

    def copy_file(self, key, data=True):
        a, b = self.post[0][key], self.post[1][key]
        if data:
            with open(a.path, "r+b") as f:
                f.write(b.data)
                f.truncate()
        atime = os.lstat(b.path).st_atime_ns
        os.utime(a.path, ns=(atime, b.mtime))
        self.post[0][key] = look_at(a.path, b.atime is not None)

    # comparing

    def check_times(self, key, a, b):
        for name in ("mtime", "atime"):
            ta, tb = getattr(a, name), getattr(b, name)
            if ta != tb and abs(ta - tb) > self.slack * 1e9:
                raise AssertionError("%s: %s of flush(8)'s %.3f, ours %.3f, it is %.3f" %
                                     (key, name, ta / 1e9, tb / 1e9, time.time()))

    def compare_entry(self, key, a, b):
        eq(b.fixed(), a.fixed(), key)
        if not key.startswith("log "):
            eq(b.data, a.data, key)
        else:
            eq(distinct(b.data), distinct(a.data), key + ": records")
            eq(b.data[-1:] == b"\n", a.data[-1:] == b"\n", key + ": final newline")
            eq(b.data == b"", a.data == b"", key + ": empty")
            if self.pure.get(key) and len(distinct(b.data)) != len(records(b.data)):
                raise AssertionError("%s: we wrote a duplicate: %r" % (key, b.data))
        self.check_times(key, a, b)

    def compare(self):
        a, b = self.post
        if a.keys() != b.keys():
            raise AssertionError("files in the queues:\n" + "\n".join(
                "  only %s has %s" % (who, side[key]) for who, side, other in
                (("flush(8)", a, b), ("fflushd", b, a)) for key in sorted(side.keys() - other)))
        for key in a:
            self.compare_entry(key, a[key], b[key])
            if key.startswith("log ") and key not in self.pre[0]:
                self.pure[key] = True
        for key in [k for k in self.pure if k not in a]:
            del self.pure[key]

    def settle(self, kind, requests, replies):
        """Compare, after what may differ has been dealt with."""
        # The original's clock has whole seconds.
        self.slack = max(self.slack, time.time() - self.since + 1.1)
        self.post = self.look()
        triggers = [spool.triggers() for spool in self.spools]
        original, ours = self.triggers(kind, *triggers)
        eq(ours, original, "triggers")
        if len(requests) > 1:
            self.order_of_concurrent_adds(
                [r for r, reply in zip(requests, replies) if reply == OK])
        else:
            self.apply_deviations(requests[0], kind)
        self.compare()
        self.pre = self.post

    def apply_deviations(self, r, kind):
        if r.literal:
            self.address_literals_have_logs(r)
        elif kind == "add" and r.log:
            self.last_line_gets_its_newline(r)
            self.duplicates_are_coalesced(r)
        elif kind == "send_file":
            self.refused_messages_are_not_touched(r)
        elif kind in ("send_site", "refresh", "purge"):
            sent = self.unmoved_records_are_kept()
            if kind != "send_site":
                self.long_logs_are_compacted(sent)

    def split_reply(self, answers):
        """Without announcements; there is one either from both or from none."""
        announced = [a.startswith(ANNOUNCEMENT) for a in answers]
        eq(announced[1], announced[0], "announcement")
        return [a.removeprefix(ANNOUNCEMENT) for a in answers]

    def step(self, *requests):
        """Send one request to both, or several at the same time, and compare."""
        self.since = time.time()
        text = " | ".join("%s %r%s" % (r.name, r.data[:200], " EOF" if r.eof else "")
                          for r in requests)
        self.history.append(text)
        try:
            if len(requests) > 1:
                answers = [talk_all(server, requests) for server in (self.original, self.ours)]
            else:
                answers = [[self.ask_original(requests[0])], [self.ask_us(requests[0])]]
            replies = []
            for r, a, b in zip(requests, *answers):
                original, ours = self.split_reply((a, b))
                wanted = r.reply(original)
                if not isinstance(wanted, set) or ours not in wanted:
                    eq(ours, wanted, "reply to %s %r" % (r.name, r.data[:200]))
                replies.append(ours)
                self.count["%s %s" % (r.name, NAMES.get(ours, ours))] += 1
            self.count["requests"] += len(requests)
            r = requests[0]
            also = [talk(self.original, r.then_original)] if r.then_original else []
            happened = all(x == OK for x in replies) or also
            self.settle(r.kind if happened else None, requests, replies)
        except Exception as e:
            raise AssertionError("%s\n%s\nflush(8): %s\nfflushd: %s" % (
                e, "\n".join(self.history), self.original.journal()[-1500:],
                self.ours.stderr()[-1500:])) from None

    def ask_original(self, r):
        return talk(self.original, r.data, r.eof)

    def ask_us(self, r):
        # The original goes by how many bytes have arrived, so only ours gets pieces.
        how = self.rng.random()
        if how < 0.7 or not r.data:
            return talk(self.ours, r.data, r.eof)
        if how < 0.95 or len(r.data) > 200:
            return talk(self.ours, r.data, r.eof, random_cuts(self.rng, r.data),
                        self.rng.choice((0, 0, 0.001)))
        return talk(self.ours, r.data, r.eof, "bytes")


NAMES = {OK: "OK", BAD: "BAD", DENY: "DENY", FAIL: "FAIL"}


# ------------------------------------------------------------------------------- the material

class Site(NamedTuple):
    normal: str
    others: tuple = ()  # other spellings


# No two of these share a folded name: the original would put them into one log.
SITES = [
    Site("example.com", ("EXAMPLE.com", "eXaMpLe.CoM", "EXAMPLE\u3002com", "\uff45xample.com")),
    Site("sub.example.com", ("Sub.Example.Com",)),
    Site("bad.example.com", ("BAD.EXAMPLE.COM",)),
    Site("x.bad.example.com"),
    Site("example.net", ("Example.NET",)),
    Site("a.b.example.net"),
    Site("a-b.example", ("A-B.example",)),
    Site("under_score.example", ("UNDER_score.Example",)),
    Site("xn--bcher-kva.example", ("b\u00fccher.example", "B\u00dcCHER.example",
                                   "XN--BCHER-KVA.example", "bu\u0308cher.example")),
    Site("xn--fa-hia.example", ("fa\u00df.example", "Fa\u00df.Example")),
    Site("xn--wgv71a119e.example", ("\u65e5\u672c\u8a9e.example",)),
    Site("k.example", ("\u212a.example", "K.example")),
    Site("dot.example", ("DOT.example",)),
    Site("a.dot.example"),
    Site("file.example", ("FILE.example",)),
    Site("continued.example"),
    Site("y.example"),
    Site("z.example"),
    Site("a.z.example"),
    Site("hash.example", ("HASH.example",)),
    Site("a.b.hash.example"),
    Site("dothash.example"),
    Site("a.dothash.example"),
    Site("mixed.example", ("Mixed.Example",)),
    Site("re1.example", ("RE1.example",)),
    Site("a.re1.example"),
    Site("neg1"),
    Site("one.example"),
    Site("sub.one.example"),
    Site("two.example"),
    Site("first.example", ("FIRST.example",)),
    Site("localhost", ("LocalHost",)),
    Site("ab", ("AB",)),
    Site("nosuch.example"),
    # Traps for a hashed flush directory: names with a "z" at offset 10 or later.
    Site("www.example.zone"),
    Site("a-very-long-bcdfz.example"),
    Site("0123456789zz.example"),
    Site("l" * 63 + ".example.com"),
]

# No site at all, or none that both can record.
ODD_SITES = [
    "", ".", "..", ".example.com", "example.com.", "a..b.example.com", "-x.example.com",
    "x-.example.com", "a b.example.com", "*.example.com", "x@y.example.com", "x/y.example.com",
    "ex\nample.com", "a\nb.example.com", "\tx.example.com", b"x\xff.example.com", b"\xc3.example",
    "1.2.3.4", "123", "*", "::1", "x:25", "a@b", "%", "ab--cd.example", "xn--a.example", "a-",
    "xn--.example.com", "l" * 64 + ".example.com", ("l" * 60 + ".") * 5 + "example.com",
    "example.com\\", "a'b.example.com", "#x.example.com", "{x}.example.com", "!example.com",
    "\u200b", "a\u2260b.example.com", "[", "[]", "[192.0.2.1", "a" * 20000,
]

# For random names: letters of several scripts, width variants, capitals, digits.
NAME_CHARACTERS = ("abcxyzABC0189-_\u00e4\u00d6\u00df\u00e9\u0131"
                   "\u03b1\u03a9\u03c2\u03c3\u0436\u0429"
                   "\u65e5\u672c\u3042\u30a2\uac00\uff41\uff11\u0e01\u0915\u094d\u0301\u0308"
                   "\u00ad\u2460\u2163\u00b7\u3002\u212b\u1e9e\u0345")
RIGHT_NAMES = ["\u05d0\u05d1\u05d2.example", "\u0645\u062b\u0627\u0644.example",
               "\u0915\u094d\u200d\u0937.example", "\u03b2\u03cc\u03bb\u03bf\u03c2.com"]
# Deviation "IDNA 2008": libidn2 keeps its rules, against names that look like others; flush(8)
# has those of UTS 46 only. Joiners where the script has none, mixed directions, symbols.
WRONG_NAMES = ["a\u200db.example", "a\u200cb.example", "a\u05d0.example", "\u0661.example",
               "\u2603.example", "\U0001f600.example"]

LITERALS = ("[192.0.2.1]", "[198.51.100.7]", "[IPv6:2001:db8::1]")

LISTS = [  # fast_flush_domains, strict?
    ("!bad.example.com, example.com Example.NET,[192.0.2.1]\tb\u00fccher.example,"
     " under_score.example a-b.example k.example \u65e5\u672c\u8a9e.example", False),
    ("example.com,!bad.example.com,.example.com,.dot.example b\u00fccher.example !!ab"
     " xn--fa-hia.example", True),
    ("$DIR/domains, example.net", False),
    ("!$DIR/excluded .example.com $DIR/domains", True),
    ("texthash:$DIR/table, example.com", False),
    ("!re1.example, $TYPE:$DIR/table, example.com", True),
    ("regexp:$DIR/patterns, inline:{ { one.example = x }, two.example=y }", False),
    ("pipemap:{regexp:$DIR/patterns}, unionmap:{texthash:$DIR/table,inline:{k.example=x}}", False),
    ("inline:{ { one.example = x }, { .example.com = y }, two.example=y }, !regexp:$DIR/patterns,"
     " static:all", True),
    ("static:all", False),
    ("!static:all, example.com", True),
    ("first.example, fail:oops, example.com", False),
    ("first.example, $DIR/missing, example.com", True),
    ("", False),
]

HASHES = [
    ("deferred, defer", 1, "short"),
    ("deferred, incoming", 2, "both"),
    ("deferred incoming flush", 3, "long"),
    ("FLUSH, Incoming", 2, "both"),
    ("active,hold,deferred,incoming,flush", 1, "short"),
    ("deferred, hold", 3, "long"),
]


def answers(server, site):
    """What it says to a flush of a site in each of its spellings; case makes no difference to it.
    Deviation "one answer": flush(8) compares what it is sent, U-label or A-label, with the list."""
    texts = {site.normal} | {text for text in site.others if not text.isascii()}
    return {talk(server, send_site(text)).removeprefix(ANNOUNCEMENT) for text in texts}


def write_tables(original):
    """The files that LISTS name."""
    files = {
        "domains": "file.example\n# comment.example line\n  continued.example\n"
                   "x.example, y.example !z.example\n\n%s:$DIR/table\nz.example\n",
        "excluded": "bad.example.com\n",
        "table": "hash.example 1\n.dothash.example no\nMixed.Example 1\nexample.com yes\n"
                 "two.example 2\n",
        "patterns": "/^re[0-9]+\\.example$/ ok\n/^neg/ no\n/^bad\\./ x\n",
    }
    for name, text in files.items():
        write_config(os.path.join(original.base, name),
                     text.replace("%s:", table_type() + ":").replace("$DIR", original.base))
    subprocess.run([command("postmap"), "-c", original.conf,
                    "%s:%s" % (table_type(), os.path.join(original.base, "table"))], check=True)


@functools.cache
def table_type():
    """One that is kept in a file of its own."""
    types = subprocess.run([command("postconf"), "-m"], check=True, capture_output=True,
                           text=True).stdout.split()
    return next((x for x in ("hash", "lmdb", "cdb", "btree") if x in types), "texthash")


def long_id(rng, usec=None):
    seconds = "".join(rng.choice(BASE52) for _ in range(6))
    micro = "".join(rng.choice(BASE52) for _ in range(4)) if usec is None else usec
    inode = "".join(rng.choice(BASE52[:-1]) for _ in range(rng.randint(1, 5)))
    return seconds + micro + "z" + inode


def make_ids(rng, style, n=12):
    short = ["%05X%X" % (rng.randrange(1000000), rng.randrange(1 << 24)) for _ in range(n)]
    short[-3:] = ["A", "AB", "_x1"]
    long = [long_id(rng) for _ in range(n)]
    long[-3:] = [long_id(rng, "1AEI"), "12345678zAB", long_id(rng, "zzzz")]
    return {"short": short, "long": long, "both": short[n // 2:] + long[n // 2:]}[style]


# ------------------------------------------------------------------------------- the generator

class Stream:
    """Random requests, and what happens to the queues between them."""

    def __init__(self, twins, style, literals=()):
        self.twins, self.rng = twins, twins.rng
        self.ids = make_ids(self.rng, style)
        # Few enough that they meet again, most of them eligible. With no log to send the
        # question has no effect, and the original answers it fast.
        replies = {site: answers(twins.original, site) for site in SITES}
        self.all_sites = [site for site in SITES if len(replies[site]) == 1]
        eligible = [site for site in self.all_sites if OK in replies[site]]
        self.sites = (self.rng.sample(eligible, min(len(eligible), 9))
                      + self.rng.sample(self.all_sites, 4))
        self.literals = literals

    # requests

    def pick_site(self):
        """(text, the original's log or None)"""
        rng = self.rng
        site = rng.choice(self.sites if rng.random() < 0.85 else self.all_sites)
        if rng.random() < 0.12:
            return rng.choice(ODD_SITES), None
        text = rng.choice((site.normal,) + site.others)
        if text.isascii() and rng.random() < 0.3:
            text = "".join(rng.choice((c.upper(), c.lower())) for c in text)
        return text, folded_log(site.normal)

    def add(self):
        site, log = self.pick_site()
        queue_id = self.rng.choice(self.ids)
        return Request(add(site, queue_id), "add", "add", log, queue_id, reply=self.expect(site))

    def send_site(self):
        site, log = self.pick_site()
        return Request(send_site(site), "send_site", "send_site", log, reply=self.expect(site))

    @staticmethod
    def expect(site):
        return no_site_at_all_may_be_denied if site in ODD_SITES else same

    def send_file(self):
        queue_id = self.rng.choice(self.ids)
        return Request(send_file(queue_id), "send_file", "send_file", id=queue_id)

    def refresh(self):
        data = self.rng.choice((REFRESH, b"W\0", b"request\0rfrsh\0",
                                b"request\0rfrsh\0foo\0bar\0\0"))
        return Request(data, "refresh", "refresh")

    def wake_up_at_eof(self):
        return Request(b"W", "refresh", "refresh", eof=True)

    def purge(self):
        self.settle_times_for_purge()
        return Request(self.rng.choice((PURGE, PURGE, b"request\0purge\0")), "purge", "purge")

    def literal(self):
        site = self.rng.choice(LITERALS)
        works = site in self.literals
        r = self.rng.choice((Request(add(site, self.ids[0]), "literal", "add", id=self.ids[0]),
                             Request(send_site(site), "literal", "send_site")))
        if works:
            r.literal, r.reply = True, address_literals_work
        return r

    def valid(self):
        return self.rng.choice((self.add, self.send_site, self.send_file))()

    def with_extra(self):
        """An unknown attribute behind the last: executed all the same."""
        r = self.valid()
        name = self.rng.choice((b"foo", b"detail", b"site", b"request"))
        r.data = r.data[:-1] + name + b"\0" + self.rng.choice((b"", b"bar", b"0")) + b"\0\0"
        return r

    def with_junk(self):
        r = self.valid()
        r.data += self.rng.randbytes(self.rng.choice((1, 30, 3000))) + r.data
        return r

    def with_half_close(self):
        r = self.valid()
        r.eof = True
        return r

    # malformed ones

    def truncated(self):
        data = self.rng.choice((self.valid().data, REFRESH))
        n = self.rng.randrange(len(data))
        r = Request(data[:n], "truncated", eof=True)
        if n == 0:
            r.reply = silence_is_bad
        elif n <= 2:
            r.reply = unknown_request_is_bad
        elif data == REFRESH and n >= len(b"request\0rfrsh\0"):
            r.kind = "refresh"
        return r

    def bad_id(self):
        q = self.rng.choice(("AB\nCD", "..", "A/B", "A-B", "A\u00e9", "A" * 256, "", " A", "A ",
                             "A" * 5000))
        return Request(self.rng.choice((add(self.pick_site()[0], q), send_file(q))), "bad ID")

    def wrong_attributes(self):
        site, q = self.pick_site()[0], self.rng.choice(self.ids)
        extra = (self.rng.choice(("foo", "sit", "queue", "sites", "Site")), "bar")
        return Request(self.rng.choice((
            attrs("add", ("queue_id", q), ("site", site)),
            attrs("add", ("site", site)),
            attrs("add", ("queue_id", q)),
            attrs("add"),
            attrs("add", extra, ("site", site), ("queue_id", q)),
            attrs("add", ("site", site), extra, ("queue_id", q)),
            attrs("add", ("site", site), ("site", site), ("queue_id", q)),
            attrs("add", ("request", "add"), ("site", site), ("queue_id", q)),
            attrs("add", ("Site", site), ("queue_id", q)),
            attrs("send_site"),
            attrs("send_site", ("nexthop", site)),
            attrs("send_site", ("queue_id", q)),
            attrs("send_site", extra, ("site", site)),
            attrs("send_file"),
            attrs("send_file", ("site", site)),
            attrs("send_file", ("site", site), ("queue_id", q)),
            attrs("send_file", extra, ("queue_id", q)),
            b"foo\0bar\0" + add(site, q),
            b"Request\0" + add(site, q)[8:],
            b"protocol\0queue_flush_protocol\0\0",
            ANNOUNCEMENT + add(site, q),
            b"\0\0\0", b"\0" + add(site, q), b"X\0" + add(site, q), b"W\n\0", b"WX\0\0",
            b"FADI\0",
        )), "wrong attributes")

    def other_encoding(self):
        return Request(self.rng.choice((
            b"request=add\nsite=example.com\nqueue_id=ABC123\n\n",
            b"cmVxdWVzdA==:YWRk\n\n", b"GET / HTTP/1.0\r\n\r\n",
            b"\x16\x03\x01" + self.rng.randbytes(60).replace(b"\0", b"x"))), "other encoding",
            eof=True)

    def unknown(self):
        name = self.rng.choice(("bogus", "refresh", "Add", "ADD", "add ", "", "send", "rfrs", "w",
                                "send_sites", "x" * 3000))
        site, q = self.pick_site()[0], self.rng.choice(self.ids)
        data = self.rng.choice((attrs(name), attrs(name, ("site", site), ("queue_id", q))))
        r = Request(data, "unknown", reply=unknown_request_is_bad)
        if self.rng.random() < 0.3:
            r.data = self.rng.choice((b"\0", b"\0\0", b"X\0", b"XY", b"WW", b"F", b"w\0"))
            r.eof = r.data[-1:] != b"\0" or self.rng.random() < 0.5
        return r

    def wake_up_and_more(self):
        data = self.rng.choice((b"W\0\0", b"W\0x", b"W\0" + add("example.com", self.ids[0])))
        return Request(data, "wake-up and more", "refresh", reply=first_string_decides,
                       then_original=b"W\0")

    def wake_up_by_name(self):
        data = self.rng.choice((attrs("W"), b"request\0W\0", attrs("W", ("foo", "bar"))))
        return Request(data, "wake-up by name", "refresh")

    def too_long(self):
        return Request(send_site(".." + "a" * 70000), "too long", reply=requests_are_bounded)

    KINDS = (("add", 40), ("send_site", 14), ("send_file", 13), ("refresh", 4),
             ("wake_up_at_eof", 1), ("purge", 4), ("literal", 2), ("with_extra", 3),
             ("with_junk", 2), ("with_half_close", 2), ("truncated", 5), ("bad_id", 3),
             ("wrong_attributes", 7), ("other_encoding", 1), ("unknown", 3),
             ("wake_up_and_more", 1), ("wake_up_by_name", 1), ("too_long", 0.5))

    def request(self):
        names, weights = zip(*self.KINDS)
        return getattr(self, self.rng.choices(names, weights)[0])()

    # what happens to both queue directories

    def everywhere(self, queue_id):
        """Where the message is: the same in both."""
        found = []
        for queue in ("deferred", "incoming", "active", "hold"):
            path = self.twins.path(queue, queue_id)
            if os.path.lexists(self.twins.spools[0].join(path)):
                found.append((queue, path))
        return found

    def appear(self, queue_id, queue=None, mode=None):
        if self.everywhere(queue_id):
            return
        queue = queue or self.rng.choices(("deferred", "incoming", "active", "hold"),
                                          (8, 1, 2, 1))[0]
        mode = mode or self.rng.choice((0o700, 0o700, 0o700, 0o700, 0o600, 0o740, 0o710, 0o777))
        mtime = self.rng.choice((HOUR, HOUR, -HOUR))
        for spool in self.twins.spools:
            put(spool, self.twins.path(queue, queue_id), mode, b"message " + queue_id.encode(),
                      mtime)

    def vanish(self, queue_id):
        for _, path in self.everywhere(queue_id):
            for spool in self.twins.spools:
                os.unlink(spool.join(path))

    def chmod(self, queue_id):
        mode = self.rng.choice((0o600, 0o700, 0o500, 0o640))
        for _, path in self.everywhere(queue_id):
            for spool in self.twins.spools:
                if not os.path.islink(spool.join(path)):
                    os.chmod(spool.join(path), mode)

    def travel(self, queue_id):
        """As qmgr does: incoming to active, and active to deferred or away."""
        at = [queue for queue, _ in self.everywhere(queue_id)]
        if at in (["incoming"], ["active"]):
            self.move(queue_id, at[0], "active" if at == ["incoming"] else "deferred")
        elif at == ["deferred"] and self.rng.random() < 0.3:
            self.move(queue_id, "deferred", "hold")

    def move(self, queue_id, source, target):
        until = time.time() + HOUR
        for spool in self.twins.spools:
            to = spool.join(self.twins.path(target, queue_id))
            make_parents(spool, self.twins.path(target, queue_id))
            os.rename(spool.join(self.twins.path(source, queue_id)), to)
            if not os.path.islink(to):
                os.chmod(to, os.stat(to).st_mode & 0o7737)
                os.utime(to, (until, until))

    def link(self, queue_id):
        if [queue for queue, _ in self.everywhere(queue_id)] not in (["deferred"], ["incoming"]):
            return
        path = self.everywhere(queue_id)[0][1]
        for spool in self.twins.spools:
            if not os.path.lexists(spool.join("saved", queue_id)):
                os.link(spool.join(path), spool.join("saved", queue_id), follow_symlinks=False)

    def symlink(self, queue_id):
        if self.everywhere(queue_id):
            return
        self.appear(queue_id, "deferred")
        path = self.twins.path("deferred", queue_id)
        for spool in self.twins.spools:
            target = put(spool, "saved/target")
            os.unlink(spool.join(path))
            os.symlink(os.path.relpath(target, os.path.dirname(spool.join(path))),
                       spool.join(path))
            os.chown(spool.join(path), USER.pw_uid, USER.pw_gid, follow_symlinks=False)

    def become_foreign(self, queue_id):
        if [queue for queue, _ in self.everywhere(queue_id)] != ["deferred"]:
            return
        for spool in self.twins.spools:
            path = spool.join(self.twins.path("deferred", queue_id))
            st = os.lstat(path)
            # One that we may write to we may touch, and a link anybody may.
            if stat.S_ISREG(st.st_mode) and st.st_nlink == 1 and not st.st_mode & 0o002:
                os.chown(path, 0, 0)

    def appear_twice(self, queue_id):
        """A copy in incoming as well, which the move replaces."""
        if [queue for queue, _ in self.everywhere(queue_id)] != ["deferred"]:
            return
        path = self.twins.spools[0].join(self.twins.path("deferred", queue_id))
        if os.lstat(path).st_uid == USER.pw_uid:
            for spool in self.twins.spools:
                put(spool, self.twins.path("incoming", queue_id), 0o700, b"copy")

    def pick_log(self):
        return folded_log(self.rng.choice(self.sites).normal)

    def set_times(self, log, atime=None, mtime=None):
        """Seconds from now; None leaves it."""
        now = time.time()
        for path in self.twins.log_paths(log):
            if os.path.exists(path):
                st = os.stat(path)
                os.utime(path, (st.st_atime if atime is None else now + atime,
                                st.st_mtime if mtime is None else now + mtime))
        self.twins.pure[self.twins.key(log)] = False

    def age_log(self, _):
        self.set_times(self.pick_log(), self.rng.choice((-13 * HOUR, -13 * HOUR, -11 * HOUR)),
                       self.rng.choice((None, -13 * HOUR, -6 * DAY, -8 * DAY)))

    def settle_times_for_purge(self):
        """A purge passes over what was read in this second: leave no doubt. More than a minute in the
        future would be a clock that was wrong, to fflushd."""
        now = time.time()
        for key, entry in self.twins.look_at_spool(0).items():
            if key.startswith("log ") and abs(entry.atime / 1e9 - now) < 60:
                self.set_times(key.removeprefix("log "), self.rng.choice((-HOUR, 45)))
        self.twins.pre = self.twins.look()

    def write_log(self, log, text, replace=False):
        now = time.time()
        for spool, path in zip(self.twins.spools, self.twins.log_paths(log)):
            old = b"" if replace or not os.path.exists(path) else read_quietly(path)
            put(spool, os.path.relpath(path, spool.path), 0o600, old + text, 0,
                      self.rng.choice((0, 0, -13 * HOUR)) if replace else 0)
            os.utime(path, (now, now))
        self.twins.pure[self.twins.key(log)] = False

    def garbage(self, _):
        # No FF at the end of a log: flush(8) takes it for the end of the file.
        rng, ids = self.rng, [q.encode() for q in self.ids]
        lines = [rng.choice((b"../x", b"", b"AB-C", b"A\0B", ids[1] + b"\0junk", ids[2] + b"\r",
                             b"x" * 300, b"\xffx", ids[3], ids[4], b" " + ids[0], b"!!"))
                 for _ in range(rng.randint(1, 5))]
        self.write_log(self.pick_log(), b"\n".join(lines) + rng.choice((b"\n", b"\n", b"")))

    def many_duplicates(self, _):
        text = b"".join(q.encode() + b"\n" for q in self.rng.choices(self.ids[:4], k=600))
        self.write_log(self.pick_log(), text)

    def empty_log(self, _):
        log = self.pick_log()
        self.write_log(log, b"", replace=True)
        self.set_times(log, -8 * DAY, self.rng.choice((-8 * DAY, -6 * DAY)))

    def replace_log(self, _):
        """Another file under the same name."""
        log = self.pick_log()
        for path in self.twins.log_paths(log):
            if os.path.exists(path):
                os.unlink(path)
        if self.rng.random() < 0.7:
            self.write_log(log, self.rng.choice(self.ids).encode() + b"\n", replace=True)

    def stray_files(self, _):
        """No log. (One that is not in its place is not seen by flush(8); fflushd brings it there.)"""
        for spool in self.twins.spools:
            put(spool, "flush/no.log", 0o600, self.ids[0].encode() + b"\n", -13 * HOUR)

    EVENTS = (("appear", 12), ("vanish", 2), ("chmod", 2), ("travel", 8), ("link", 1),
              ("symlink", 0.5), ("become_foreign", 1), ("appear_twice", 1), ("age_log", 4),
              ("garbage", 2), ("many_duplicates", 0.3), ("empty_log", 0.5), ("replace_log", 0.5),
              ("stray_files", 0.2))

    def happen(self):
        names, weights = zip(*self.EVENTS)
        for _ in range(self.rng.choice((0, 0, 0, 1, 1, 2, 3))):
            name, queue_id = self.rng.choices(names, weights)[0], self.rng.choice(self.ids)
            self.twins.history.append("(%s %s)" % (name, queue_id))
            getattr(self, name)(queue_id)
        self.twins.pre = self.twins.look()

    def group(self):
        """Adds at the same time; not to a log whose last line is torn, and not for a site that
        is no UTF-8: no table is asked for it, but ours shares the failure of the other sites."""
        group = [self.add() for _ in range(self.rng.randint(2, 6))]
        group = [r for r in group if r.data.decode(errors="ignore").encode() == r.data] or group[:1]
        for r in group:
            entry = self.twins.pre[0].get(self.twins.key(r.log or ""))
            if entry and entry.data and not entry.data.endswith(b"\n"):
                return [r]
        return group

    def run(self, n):
        while self.twins.count["requests"] < n:
            self.happen()
            if self.rng.random() < 0.05:
                self.twins.step(*self.group())
            else:
                self.twins.step(self.request())


def make_stream(t, i, domains, strict, hashed, depth, style):
    rng = random.Random("%d stream %d" % (SEED, i))
    postfix_default("mail_owner")  # may skip
    domains = domains.replace("$TYPE", table_type())
    twins = Twins(t, rng, domains, strict, hashed, depth, write_tables)
    literals = (LITERALS if domains.endswith(" static:all") or domains == "static:all"
                else [x for x in LITERALS if x in domains])
    return Stream(twins, style, literals)


# ------------------------------------------------------------------------------- the tests

@test
def random_requests_have_the_same_replies_and_effects(t):
    total = collections.Counter()
    for i, (domains, strict) in enumerate(LISTS):
        hashed, depth, style = HASHES[(i + SEED) % len(HASHES)]
        case = Case()
        try:
            stream = make_stream(case, i, domains, strict, hashed, depth, style)
            try:
                # postmap(1) sleeps for a second before it fails.
                stream.run(40 if domains == "" or "fail:" in domains else REQUESTS)
            except AssertionError as e:
                raise AssertionError("stream %d: fast_flush_domains = %s, strict %s, "
                                     "hash_queue_names = %s, depth %d\n%s" %
                                     (i, domains, strict, hashed, depth, e)) from None
            total += stream.twins.count
            accident = re.search(r"/flush\[\d+\]: (fatal|panic): .*",
                                 stream.twins.original.journal())
            if accident:
                raise AssertionError("the original had an accident: " + accident.group())
        finally:
            case.close()
    print("# %d requests: %s" % (total.pop("requests"), ", ".join(
        "%s %d" % item for item in sorted(total.items()))))


@test
def a_site_has_one_answer_however_it_is_written(t):
    """That of flush(8), if it has one; where it has two, the site is in these lists."""
    two = 0
    for i, (domains, strict) in enumerate(LISTS):
        if "fail:" in domains:  # a second each
            continue
        case = Case()
        try:
            stream = make_stream(case, i, domains, strict, "deferred", 1, "short")
            for site in SITES:
                original, ours = (answers(server, site)
                                  for server in (stream.twins.original, stream.twins.ours))
                eq(ours, original if len(original) == 1 else {OK}, (domains, site))
                two += len(original) > 1
        finally:
            case.close()
    if two == 0:
        raise AssertionError("the original has always one answer: is this still a deviation?")


@test
def internationalised_names_are_the_same(t):
    """Random characters: eligible or not, and under which name they are recorded."""
    rng = random.Random("%d names" % SEED)
    twins = Twins(t, rng)

    def replies(site):
        return [NAMES.get(talk(server, add(site, "ABC123")).removeprefix(ANNOUNCEMENT))
                for server in (twins.original, twins.ours)]

    def labels(most):
        return ".".join("".join(rng.choice(NAME_CHARACTERS) for _ in range(rng.randint(1, 6)))
                        for _ in range(rng.randint(1, most)))

    for site in [labels(2) + rng.choice((".example", ".com")) for _ in range(300)] + RIGHT_NAMES:
        original, ours = replies(site)
        eq(ours, original, ascii(site))
        if site in RIGHT_NAMES:
            eq(ours, "OK", ascii(site))
    names = [[os.path.basename(path) for path in spool.files("flush")] for spool in twins.spools]
    eq({fold_log(name) for name in names[1]}, set(names[0]), "names of logs")
    for site in WRONG_NAMES:
        eq(replies(site), ["OK", "DENY"], ascii(site))


@test
def clients_that_hang_up_do_not_stop_the_work(t):
    twins = Twins(t, random.Random(SEED))
    wanted = b""
    for i in range(40):
        queue_id = "%05X1" % i
        for spool in twins.spools:
            put(spool, twins.path("deferred", queue_id))
        hang_up(twins, add("example.com", queue_id))
        wanted += queue_id.encode() + b"\n"
        wait_for_logs(twins, wanted)
        if i % 3 == 1:
            hang_up(twins, send_site("example.com"))
            wanted = b""
            wait_for_logs(twins, wanted)
        if i % 3 == 2:
            hang_up(twins, send_file(queue_id))
            for spool in twins.spools:
                wait_for(lambda: os.path.exists(spool.join("incoming", queue_id)), "not moved")
    eq(twins.spools[1].files("incoming"), twins.spools[0].files("incoming"))
    # Not even the announcement was read: flush(8) may give up then.
    with twins.ours.connect() as s:
        s.sendall(add("other.example", "ABC123"))
    wait_for(lambda: os.path.exists(twins.spools[1].join("flush/other_example")), "not added")


def hang_up(twins, data):
    for server in (twins.original, twins.ours):
        with server.connect() as s:
            s.recv(len(ANNOUNCEMENT))
            s.sendall(data)


def wait_for_logs(twins, wanted):
    for spool in twins.spools:
        log = spool.join("flush/example_com")
        wait_for(lambda: os.path.exists(log) and read_quietly(log) == wanted, "not as wanted")


@test
def what_kills_flush_is_answered_fail(t):
    """A log that cannot be used: flush(8) hangs up and dies, fflushd says FAIL."""
    twins = Twins(t, random.Random("%d fail" % SEED))
    for spool in twins.spools:
        put(spool, "flush/example_com", 0o600, b"ABC123\n")
        os.chown(spool.join("flush/example_com"), 0, 0)
        put(spool, "flush/dir_example/x", 0o600, b"")
    twins.pre = twins.look()
    for data in (add("example.com", "DEF456"), send_site("example.com"),
                 add("dir.example", "DEF456"), send_site("dir.example")):
        twins.step(Request(add("other.example", "ABC123"), "add", "add", "other_example",
                           "ABC123"))
        twins.step(Request(data, "unusable log", reply=hanging_up_is_fail))


def hanging_up_is_fail(reply):
    one_of(reply, b"")
    return FAIL


@test
def records_survive_an_incoming_queue_that_cannot_be_written(t):
    """flush(8) empties the log and leaves the messages, due but unrecorded."""
    twins = Twins(t, random.Random("%d incoming" % SEED))
    for spool in twins.spools:
        for queue_id in ("ABC123", "BCD234"):
            put(spool, twins.path("deferred", queue_id))
        put(spool, "incoming/CDE345")
        put(spool, "flush/example_com", 0o600, b"ABC123\nCDE345\nBCD234\nABC123\nDEF456\n")
        os.chmod(spool.join("incoming"), 0o500)
    eq([talk(server, send_site("example.com")).removeprefix(ANNOUNCEMENT)
        for server in (twins.original, twins.ours)], [OK, OK])
    eq([spool.read("flush/example_com") for spool in twins.spools], [b"", b"ABC123\nBCD234\n"])
    eq([spool.triggers() for spool in twins.spools], [b"FI", b"FI"])
    for spool in twins.spools:
        os.chmod(spool.join("incoming"), 0o700)
    eq([talk(server, send_site("example.com")).removeprefix(ANNOUNCEMENT)
        for server in (twins.original, twins.ours)], [OK, OK])
    eq([spool.files("incoming") for spool in twins.spools],
       [["incoming/CDE345"], ["incoming/ABC123", "incoming/BCD234", "incoming/CDE345"]])


# ------------------------------------------------------------ both servers on one queue directory

def share(t):
    """(spool, flush(8), fflushd) on one queue directory."""
    base = os.path.join(t.base, "shared")
    os.mkdir(base, 0o755)
    postfix_default("mail_owner")  # may skip
    os.chown(base, USER.pw_uid, USER.pw_gid)
    spool = Spool(base)
    t.open.append(spool)
    original = Original(t, spool, base).start()
    ours = Daemon(spool, os.path.dirname(spool.path))
    t.open.insert(t.open.index(original), ours)
    return spool, original, ours


def in_parallel(*calls):
    errors = []

    def run(call):
        try:
            call()
        except Exception as e:  # told to the main thread
            errors.append(e)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def ask(server, data, wanted=OK):
    eq(talk(server, data).removeprefix(ANNOUNCEMENT), wanted, repr(data))


def numbered_ids(n, start=0):
    return ["%05X%04X" % (i * 7919 % 1000000, i) for i in range(start, start + n)]


def moved(spool):
    return {path.split("/")[-1] for path in spool.files("incoming")}


def recorded(spool, log="flush/example_com"):
    """The IDs of a log, each of which must be whole."""
    data = spool.read(log)
    for text, whole in records(data):
        if text != b"" and not (whole and re.fullmatch(rb"[0-9A-F]{9}", text)):
            raise AssertionError("a torn record, %r, in %r" % (text, data[:2000]))
    return {text.decode() for text, _ in records(data)} - {""}


@test
def records_of_either_server_are_sent_by_the_other(t):
    spool, *servers = share(t)
    for i, (writer, sender) in enumerate((servers, servers[::-1]) * 2):
        ids = numbered_ids(20, i * 20)
        for queue_id in ids:
            put(spool, "deferred/%s/%s" % (queue_id[0], queue_id))
            ask(writer, add("example.com", queue_id))
        eq(sorted(recorded(spool)), sorted(ids), "records")
        if i < 2:
            ask(sender, send_site("Example.COM"))
        else:
            old = time.time() - 13 * HOUR
            os.utime(spool.join("flush/example_com"), (old, old))
            ask(sender, REFRESH)
        eq(moved(spool) & set(ids), set(ids), "moved")
        eq(spool.read("flush/example_com"), b"")


@test
def fflushctl_refreshes_and_purges_with_either_server(t):
    spool, original, ours = share(t)
    for server in (original, ours):
        for command in ("refresh", "purge"):
            old = time.time() - 13 * HOUR
            queue_id = numbered_ids(1, len(moved(spool)))[0]
            put(spool, "deferred/%s/%s" % (queue_id[0], queue_id))
            ask(server, add("example.com", queue_id))
            os.utime(spool.join("flush/example_com"), (old, old))
            ours.ctl("--socket", server.socket_path, command)
            # flush(8) has no request "purge": it hangs up or refuses, and that is the end of it
            wait_for(lambda: queue_id in moved(spool), command)


@test
def folded_logs_of_flush_are_sent_by_a_refresh(t):
    """a-b.example has another log here, so only a refresh finds what flush(8) recorded."""
    spool, original, ours = share(t)
    put(spool, "deferred/A/ABC123")
    ask(original, add("a-b.example", "ABC123"))
    ask(ours, send_site("a-b.example"))
    eq(spool.read("flush/a_b_example"), b"ABC123\n")
    old = time.time() - 13 * HOUR
    os.utime(spool.join("flush/a_b_example"), (old, old))
    ask(ours, REFRESH)
    eq(moved(spool), {"ABC123"})
    # And the way back: a name that flush(8) never makes is one that its refresh takes.
    put(spool, "deferred/D/DEF456")
    ask(ours, add("a-b.example", "DEF456"))
    os.utime(spool.join("flush/aDb_example"), (old, old))
    ask(original, REFRESH)
    eq(moved(spool), {"ABC123", "DEF456"})
    eq(spool.read("flush/aDb_example"), b"")


@test
def adds_to_both_servers_at_once_lose_nothing(t):
    spool, *servers = share(t)
    ids = numbered_ids(1200)

    def add_some(n):
        rng = random.Random("%d adds %d" % (SEED, n))
        for queue_id in ids[n::6]:
            ask(rng.choice(servers), add("example.com", queue_id))

    in_parallel(*(lambda n=n: add_some(n) for n in range(6)))
    eq(recorded(spool), set(ids), "records")
    eq(len(spool.read("flush/example_com").splitlines()), len(ids), "no duplicates were sent")


def add_while_others_send(t, adders, senders, n=600):
    """Every message is afterwards either moved or still recorded."""
    spool, *servers = share(t)
    ids = numbered_ids(n)
    for queue_id in ids:
        put(spool, "deferred/%s/%s" % (queue_id[0], queue_id))
    adding = threading.Semaphore(0)
    finished = []

    def add_some(k):
        try:
            for i, queue_id in enumerate(ids[k::4]):
                ask(servers[adders[i % len(adders)]], add("example.com", queue_id))
                adding.release()
        finally:
            finished.append(k)
            adding.release()

    def send_again_and_again(server):
        adding.acquire()
        while len(finished) < 4:
            ask(server, send_site("example.com"))

    in_parallel(*(lambda k=k: add_some(k) for k in range(4)),
                *(lambda s=s: send_again_and_again(servers[s]) for s in senders))
    rest = recorded(spool)
    eq(set(ids) - moved(spool) - rest, set(), "messages neither moved nor recorded")
    for server in servers:
        ask(server, send_site("example.com"))
    eq(moved(spool), set(ids), "moved in the end")
    eq(recorded(spool), set(), "left in the log")


@test
def flush_sends_while_fflushd_adds(t):
    add_while_others_send(t, [1], [0])


@test
def fflushd_sends_while_flush_adds(t):
    add_while_others_send(t, [0], [1])


@test
def both_send_while_both_add(t):
    add_while_others_send(t, [0, 1], [0, 1])


# ------------------------------------------------------------------------------- real clients

@test
def postqueue_and_sendmail_say_the_same(t):
    """They reach us by flush_service_name, and tell the user the same as with flush(8)."""
    twins = Twins(t, random.Random("%d clients" % SEED),
                  "example.com, fail:oops, other.example", strict=True)
    configs = [twins.original.conf, os.path.join(twins.ours.base, "conf")]
    os.mkdir(configs[1])
    twins.original.write_main_cf(
        configs[1], queue_directory=twins.spools[1].path, flush_service_name="fflushd",
        fast_flush_domains="example.com, fail:oops, other.example",
        parent_domain_matches_subdomains="relay_domains")
    shutil.copy(os.path.join(configs[0], "master.cf"), configs[1])

    def run(*args):
        """The same command with both configurations."""
        results = []
        for config in configs:
            r = subprocess.run([command(args[0]), "-C" if args[0] == "sendmail" else "-c", config,
                                *args[1:]], capture_output=True, text=True, timeout=TIMEOUT,
                               stdin=subprocess.DEVNULL)
            text = r.stderr.replace(config, "CONF").replace("public/fflushd", "public/flush")
            results.append((r.returncode, r.stdout, text))
        eq(results[1], results[0], args)
        return results[0]

    def deliver(argument):
        """Record and defer a message, then have a client send it."""
        for spool in twins.spools:
            put(spool, "deferred/A/ABC123")
        twins.pre = twins.look()
        twins.step(Request(add("example.com", "ABC123"), "add", "add", "example_com", "ABC123"))
        twins.since = time.time()
        eq(run(*argument), (0, "", ""), argument)
        kind = "send_file" if "-i" in argument or "-qIABC123" in argument else "send_site"
        twins.settle(kind, [Request(b"", "client", kind, "example_com", "ABC123")], [OK])
        eq([moved(spool) for spool in twins.spools], [{"ABC123"}] * 2)
        for spool in twins.spools:
            os.unlink(spool.join("incoming/ABC123"))

    deliver(("postqueue", "-s", "example.com"))
    deliver(("postqueue", "-s", "EXAMPLE.com"))
    deliver(("postqueue", "-i", "ABC123"))
    deliver(("sendmail", "-qRexample.com"))
    deliver(("sendmail", "-qIABC123"))
    eq(run("postqueue", "-i", "NOSUCH1"), (0, "", ""))
    for args in (("postqueue", "-s", "a b"), ("postqueue", "-i", "a-b"),
                 ("postqueue", "-s", "[192.0.2.1]"), ("postqueue", "-s", "other.example"),
                 ("postqueue", "-s", "example.com."), ("sendmail", "-qRother.example"),
                 ("sendmail", "-qIa-b")):
        code, _, text = run(*args)
        if code == 0 or text == "":
            raise AssertionError("%s has succeeded" % (args,))

    # What only the servers refuse: the clients believe everything to be eligible.
    for config, spool, service in zip(configs, twins.spools, ("flush", "fflushd")):
        twins.original.write_main_cf(config, queue_directory=spool.path,
                                     flush_service_name=service)
    for site in ("nosuch.example", "other.example", "sub.example.com"):
        code, _, text = run("postqueue", "-s", site)
        if code == 0 or text == "":
            raise AssertionError("%s was sent" % site)

    twins.original.close()
    twins.ours.stop()
    for args in (("postqueue", "-s", "example.com"), ("postqueue", "-i", "ABC123"),
                 ("sendmail", "-qRexample.com")):
        code, _, text = run(*args)
        if code == 0 or "mail system is down" not in text:
            raise AssertionError("%s with nobody there: %d %s" % (args, code, text))


if __name__ == "__main__":
    main()
