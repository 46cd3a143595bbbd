#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What flush(8) of Postfix 3.7 answers and does, vector by vector, and where fflushd means to
differ: bytes in, bytes out, the queue directory before and after, what qmgr is sent, and whether
the journal has a line about it.

Each row of a table is one vector, V(number, bytes, reply, after, before=, trig=, log=, ours=...).
Its number is that of the table of vectors that was taken from the real flush(8); where fflushd
differs on purpose, "ours" says from what and why, and the other columns are ours.
"""

import os
import sys
import errno
import fcntl
import re
import stat
import subprocess
import threading
from collections import namedtuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from harness import *

E = ("example.com, example.net, [192.0.2.1], bücher.example, under_score.example, a-b.example, "
     "a_b.example")
S = "static:all"

HOUR, DAY = 3600, 24 * 3600
PAUSE = 0.05
CLOCK_REALTIME_COARSE = 5  # of linux/time.h; the clock of time stamps of files
WATCHED = ("incoming", "active", "deferred", "hold", "flush")

W = "warning"  # exactly one journal line that is a warning or worse
N = "notice"   # none of these, but one notice
QUIET = ""     # none of these; what is less severe may be there


# ---------------------------------------------------------------- the queue directory in a vector

Entry = namedtuple("Entry", "kind mode uid data mtime atime")


class File:
    """A file: how it is made, or how it has to be. Times are seconds from now."""

    def __init__(self, data=b"message", mode=0o700, mtime=HOUR, atime=None, foreign=False):
        self.data, self.mode, self.mtime, self.foreign = data, mode, mtime, foreign
        self.atime = mtime if atime is None else atime

    def make(self, spool, path):
        spool.put(path, self.mode, self.data, self.mtime, self.atime)

    def finish(self, spool, path):
        if self.foreign:
            os.chown(spool.join(path), 0, 0)

    def check(self, entry, start, what):
        if entry is None:
            raise AssertionError("%s: is not there" % what)
        eq((entry.kind, oct(entry.mode), entry.data), ("file", oct(self.mode), self.data), what)
        eq(entry.uid, owner(), what + ": owner")
        near(entry.mtime, self.mtime, start, what + ": mtime")
        near(entry.atime, self.atime, start, what + ": atime")


class Link:
    """A symbolic link, made an hour ago or, where one is wanted, changed now."""

    def __init__(self, target):
        self.data = target

    def make(self, spool, path):
        make_parent(spool, path)
        os.symlink(self.data, spool.join(path))
        old = time.time() - HOUR
        os.utime(spool.join(path), (old, old), follow_symlinks=False)

    def finish(self, spool, path):
        if USER is not None:
            os.chown(spool.join(path), USER.pw_uid, USER.pw_gid, follow_symlinks=False)

    def check(self, entry, start, what):
        if entry is None:
            raise AssertionError("%s: is not there" % what)
        eq((entry.kind, entry.data), ("link", self.data.encode()), what)
        near(entry.mtime, 0, start, what + ": mtime")


class Hard(Link):
    """One more name of a file."""

    def make(self, spool, path):
        os.link(spool.join(self.data), spool.join(path))

    def finish(self, spool, path):
        pass


class Fifo:
    def make(self, spool, path):
        os.mkfifo(spool.join(path), 0o600)

    def finish(self, spool, path):
        spool.own(spool.join(path))


class Dir:
    """A directory, new or there already."""

    def __init__(self, mode=0o700):
        self.mode = mode

    def make(self, spool, path):
        os.makedirs(spool.join(path), exist_ok=True)

    def finish(self, spool, path):
        spool.own(spool.join(path))
        os.chmod(spool.join(path), self.mode)

    def check(self, entry, start, what):
        if entry is None:
            raise AssertionError("%s: is not there" % what)
        eq((entry.kind, oct(entry.mode), entry.uid), ("dir", oct(self.mode), owner()), what)


def owner():
    return os.getuid() if USER is None else USER.pw_uid


def make_parent(spool, path):
    os.makedirs(os.path.dirname(spool.join(path)), 0o700, exist_ok=True)
    spool.own(spool.join(path.split("/")[0]))


def near(got, wanted, start, what):
    """Is a time stamp (ns) that of the vector, which began at @start?"""
    early = start + wanted - 1
    late = time.time() + wanted + 1
    if not early <= got / 1e9 <= late:
        raise AssertionError("%s: got now%+.1f s, wanted now%+d s"
                             % (what, got / 1e9 - start, wanted))


def look(path):
    st = os.lstat(path)
    data, atime = None, st.st_atime_ns
    if stat.S_ISLNK(st.st_mode):
        kind, data = "link", os.readlink(path).encode()
        atime = None  # this has just changed it
    elif stat.S_ISREG(st.st_mode):
        kind = "file"
        try:  # reading must not change the times that are looked at
            with open(os.open(path, os.O_RDONLY | os.O_NOATIME), "rb") as f:
                data = f.read()
        except PermissionError:
            pass
    else:
        kind = "fifo"
    return Entry(kind, stat.S_IMODE(st.st_mode), st.st_uid, data, st.st_mtime_ns, atime)


def snapshot(spool):
    """All that is in the queues, by path; names of directories end in a slash."""
    found = {}
    for queue in WATCHED:
        for root, _, files in os.walk(spool.join(queue)):
            st = os.stat(root)
            found[os.path.relpath(root, spool.path) + "/"] = Entry(
                "dir", stat.S_IMODE(st.st_mode), st.st_uid, None, None, None)
            for name in files:
                path = os.path.join(root, name)
                found[os.path.relpath(path, spool.path)] = look(path)
    return found


def clean(spool):
    for queue in WATCHED:
        top = spool.join(queue)
        os.chmod(top, 0o700)
        for entry in list(os.scandir(top)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    # A file that is made anew may get the old inode number, and the kernel's clock for time stamps
    # ticks slowly: without this the new log could pass for the one of the vector before.
    now = time.clock_gettime(time.CLOCK_REALTIME)
    wait_for(lambda: time.clock_gettime(CLOCK_REALTIME_COARSE) > now, "the clock stands still")


def set_up(spool, before):
    clean(spool)
    for path, thing in before.items():
        thing.make(spool, path)
    for path, thing in before.items():
        thing.finish(spool, path)


def check_effect(spool, before, after, start, what):
    """@after has what must differ from the snapshot @before; all else must be as it was."""
    found = snapshot(spool)
    for path in sorted(set(before) | set(after) | set(found)):
        name = "%s: %s" % (what, path)
        if path not in after:
            eq(found.get(path), before.get(path), name)
        elif after[path] is None:
            eq(found.get(path), None, name)
        else:
            after[path].check(found.get(path), start, name)


# ----------------------------------------------------------------------------- clients, qmgr, log

def talk(daemon, pieces, eof=False, pause=0.0):
    """Send each piece by a send(2) of its own; all bytes that come back."""
    with daemon.connect() as s:
        try:
            for i, piece in enumerate(pieces):
                if i and pause:
                    time.sleep(pause)
                s.sendall(piece)
            if eof:
                s.shutdown(socket.SHUT_WR)
        except OSError as e:  # it has what it wants, and has hung up
            if not isinstance(e, ConnectionError) and e.errno != errno.ENOTCONN:
                raise
        return receive_all(s)


def receive(s, n):
    got = b""
    while len(got) < n and (chunk := s.recv(n - len(got))):
        got += chunk
    return got


def open_client(daemon, data=b""):
    """A connection that has read the announcement and sent @data."""
    s = daemon.connect()
    eq(receive(s, len(ANNOUNCEMENT)), ANNOUNCEMENT, "announcement")
    s.sendall(data)
    return s


def is_silent(s, seconds=0.1):
    s.settimeout(seconds)
    try:
        got = s.recv(1, socket.MSG_PEEK)
    except socket.timeout:
        return True
    finally:
        s.settimeout(TIMEOUT)
    raise AssertionError("got %r instead of silence" % got)


class SocketQmgr:
    """A listening UNIX socket in the place of qmgr."""

    def __init__(self, spool):
        path = spool.join("public/qmgr")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bind(self.listener, path)
        os.chmod(path, 0o666)
        self.listener.listen(128)
        self.listener.setblocking(False)

    def triggers(self):
        got = b""
        while True:
            try:
                client, _ = self.listener.accept()
            except BlockingIOError:
                return got
            with client:
                client.settimeout(TIMEOUT)
                got += receive_all(client)

    def close(self):
        self.listener.close()


class Journal:
    """What the daemon writes to the journal, from one look to the next."""

    def __init__(self, daemon):
        self.path = daemon.stderr_path
        self.offset = 0

    def lines(self):
        """[(level, text)] since the last call."""
        with open(self.path, "rb") as f:
            f.seek(self.offset)
            text = f.read()
        self.offset += len(text)
        return [(int(m[1]), m[2].decode(errors="replace"))
                for m in re.finditer(rb"^<(\d)>(.*)$", text, re.MULTILINE)]

    def check(self, wanted, what):
        lines = self.lines()
        severe = [line for line in lines if line[0] <= 4]
        if len(severe) != (1 if wanted == W else 0):
            raise AssertionError("%s: wanted %s, the journal has %r"
                                 % (what, "one warning" if wanted == W else "no warning", lines))
        if wanted == N:
            eq([level for level, _ in lines if level == 5], [5], what + ": notices, %r" % lines)


class Failures:
    """Vectors are independent: one that fails does not hide the others."""

    def __init__(self):
        self.texts = []

    def __enter__(self):
        return self

    def __exit__(self, kind, value, _):
        if kind is not None and issubclass(kind, (AssertionError, socket.timeout)):
            self.texts.append("%s %s" % ("" if kind is AssertionError else kind.__name__, value))
            return True
        return False

    def end(self):
        if self.texts:
            raise AssertionError("%d failures\n\n%s" % (len(self.texts), "\n\n".join(self.texts)))


# --------------------------------------------------------------------------- the table of vectors

class V:
    """One vector.

    n       its number; letters tell the parts of one number apart
    sent    bytes, or several requests one after the other, each on its own connection
    reply   to each of them
    after   path -> what it is then (None: gone); all that is not named must be as before
    before  path -> what is there
    trig    what qmgr is sent
    log     W, N or QUIET
    eof     the client half-closes after sending
    on      services, E and S
    cuts    where the request is cut when it is sent "whole", with a pause at each cut
    ours    how and why this is not what flush(8) does
    """

    def __init__(self, n, sent, reply, after=None, *, before=None, trig=b"", log=QUIET, eof=False,
                 on="E", cuts=None, ours=""):
        self.n, self.reply, self.trig, self.log = str(n), reply, trig, log
        self.requests = sent if isinstance(sent, list) else [sent]
        self.before, self.after = before or {}, after or {}
        self.eof, self.on, self.cuts, self.ours = eof, on, cuts, ours

    def possible(self):
        """Only root can make files of others."""
        return USER is not None or not any(getattr(f, "foreign", False)
                                           for f in self.before.values())


def log(data, name="example_com", mtime=-HOUR, atime=None):
    return {"flush/" + name: File(data, 0o600, mtime, atime)}


def new(data, name="example_com"):
    """A log that has been written to, or been sent, just now."""
    return log(data, name, mtime=0)


def moved(mode=0o700, data=b"message"):
    return {"deferred/A/ABC123": None, "incoming/ABC123": File(data, mode, mtime=0)}


def message(**kw):
    return {"deferred/A/ABC123": File(**kw)}


M = message()
L = log(b"ABC123\n")
LM = L | M
EMPTIED = new(b"")
FLUSHED = moved() | EMPTIED
OLD = log(b"ABC123\n", atime=-13 * HOUR) | M
AN_HOUR = log(b"ABC123\n", atime=-HOUR) | M
READ_ONLY = {"incoming/": Dir(0o500)}

ABC = add("example.com", "ABC123")
ADDED = new(b"ABC123\n")
SEND = send_site("example.com")
FILE = send_file("ABC123")
LONG_ID = "3pt2mN2VXxznjll"

LABEL = "a" * 63
TOTAL_253 = ".".join([LABEL, LABEL, LABEL, "b" * 49, "example.com"])
TOTAL_254 = ".".join([LABEL, LABEL, LABEL, "b" * 50, "example.com"])

# Reasons that several vectors share.
UNKNOWN = "BAD and a warning, not EOF without a reply: a client should see why it got nothing"
FIRST_STRING = "the first string alone decides about the form, never how many bytes arrived"
LOGGED = "every malformed request has a line in the journal; flush(8) says nothing of this one"
EXTRA = "a notice, not a warning: later clients may well send more"
SITE_LOG = "log names are reversible, so no two sites share a log"
NO_SITE = "what is no site is said to be none, with a warning, whatever the list"
FAILS = "FAIL and one line at once; flush(8) ends and the client sees EOF a second later"
KEPT = "an ID whose message could not be moved stays recorded"
UNTOUCHED = "a message that is refused keeps its time stamp"
ONE_I = "one trigger for a whole refresh, not one for each log"

PLAIN_ENCODING = b"request=add\nsite=example.com\nqueue_id=ABC123\n\n"
BASE64_ENCODING = b"cmVxdWVzdA==:YWRk\n\n"

REQUESTS = [
    # add
    V(1, b"request\0add\0site\0example.com\0queue_id\0ABC123\0\0", OK, ADDED),
    V(2, add("EXAMPLE.COM", "ABC123"), OK, ADDED),
    V(3, add("sub.example.com", "ABC"), OK, new(b"ABC\n", "sub_example_com")),
    V(4, add("nosuch.example", "ABC123"), DENY),
    V(5, b"request\0add\0queue_id\0ABC123\0site\0example.com\0\0", BAD, log=W),
    V(6, b"request\0add\0site\0example.com\0\0", BAD, log=W),
    V(7, b"request\0add\0site\0example.com\0queue_id\0ABC123\0foo\0bar\0\0", OK, ADDED, log=N,
      ours=EXTRA),
    V(8, b"request\0add\0site\0example.com\0foo\0bar\0queue_id\0ABC123\0\0", BAD, log=W),
    V(9, b"foo\0bar\0request\0add\0site\0example.com\0queue_id\0ABC123\0\0", BAD, log=W),
    V(10, b"request\0add\0site\0example.com\0site\0example.net\0queue_id\0ABC123\0\0", BAD, log=W),

    # Requests that end early
    V(11, b"request\0add\0site\0example.com\0queue_id\0ABC123\0", BAD, eof=True, log=W),
    V(13, b"request\0add\0site\0example.com\0queue_id\0ABC123", BAD, eof=True, log=W),
    V(14, b"request\0add\0site\0example.com\0queue_id\0", BAD, eof=True, log=W),
    V(15, b"request\0add\0", BAD, eof=True, log=W, ours=LOGGED),
    V(16, b"request\0add\0\0", BAD, log=W),
    V("17a", b"request", BAD, eof=True, log=W),
    V("17b", b"request\0", BAD, eof=True, log=W),
    V("17c", b"request\0add", BAD, eof=True, log=W),

    # Requests that are none
    V(18, b"request\0\0\0", BAD, log=W, ours=UNKNOWN),
    V("19a", b"request\0bogus\0\0", BAD, log=W, ours=UNKNOWN),
    V("19b", b"request\0refresh\0\0", BAD, log=W, ours=UNKNOWN),
    V("19c", b"request\0Add\0site\0example.com\0queue_id\0ABC123\0\0", BAD, log=W, ours=UNKNOWN),
    V(20, b"Request\0add\0site\0example.com\0queue_id\0ABC123\0\0", BAD, log=W),
    V(21, b"protocol\0queue_flush_protocol\0\0", BAD, log=W),
    V(22, b"request\0add\0request\0add\0\0", BAD, log=W),
    V(23, b"\0\0\0", BAD, log=W),
    V("24a", b"\0", BAD, log=W, ours=UNKNOWN),
    V("24b", b"\0\0", BAD, log=W, ours=UNKNOWN),

    # Wake-ups, and what looks like one
    V("25a", b"W\0", OK, FLUSHED, before=OLD, trig=b"I"),
    V("25b", b"W\0", OK, FLUSHED, before=OLD, trig=b"I", cuts=[1]),
    V("25c", b"W", OK, FLUSHED, before=OLD, trig=b"I", eof=True),
    V("27a", b"X\0", BAD, before=OLD, log=W, ours=UNKNOWN),
    V("27b", b"XY", BAD, before=OLD, eof=True, log=W, ours=UNKNOWN),
    V("27c", b"WW", BAD, before=OLD, eof=True, log=W, ours=UNKNOWN),
    V("28a", b"W\0\0", OK, FLUSHED, before=OLD, trig=b"I", ours=FIRST_STRING + " (flush(8): BAD)"),
    V("28b", b"W\n\0", BAD, before=OLD, log=W),
    V("28c", b"request\0W\0\0", OK, FLUSHED, before=OLD, trig=b"I"),
    V("28d", b"request\0W\0", OK, FLUSHED, before=OLD, trig=b"I"),
    V("28e", b"request\0w\0\0", BAD, before=OLD, log=W, ours=UNKNOWN),
    V(29, b"", BAD, eof=True,
      ours="a whole reply, not its last three bytes; nothing in the journal about a probe"),

    # Requests in pieces
    V(31, ABC, OK, ADDED, cuts=[2], ours=FIRST_STRING + " (flush(8): EOF without a reply)"),
    V(32, ABC, OK, ADDED, cuts=[3]),
    V(33, b"add\0site\0example.com\0queue_id\0ABC\0\0", BAD, cuts=[2], log=W,
      ours=FIRST_STRING + " (flush(8) adds)"),
    V(34, b"rfrsh\0", BAD, before=OLD, cuts=[2], log=W,
      ours=FIRST_STRING + " (flush(8) refreshes)"),
    V(35, ABC, OK, ADDED, cuts=[10, 20, 40]),

    # Sites and IDs
    V("36a", add("", "ABC123"), DENY, log=W, on="ES", ours=NO_SITE),
    V("36b", send_site(""), DENY, log=W, on="ES", ours=NO_SITE),
    V(37, add("example.com", ""), BAD, log=W, ours=LOGGED),
    *[V("38" + part, add("example.com", queue_id), BAD, log=W, ours=LOGGED)
      for part, queue_id in zip("abcdef", ["AB\nCD", "..", "A/B", "A-B", "Aé", 256 * "A"])],
    *[V("39" + part, add("example.com", queue_id), OK, new(queue_id.encode() + b"\n"))
      for part, queue_id in zip("abcd", ["A", "A_B", 255 * "A", LONG_ID])],
    V("40a", add("ex\nample.com", "ABCD"), DENY, log=W, ours=NO_SITE),
    V("40b", add("a\nb.example.com", "X1"), DENY, log=W),
    V(41, add("[192.0.2.1]", "ABC"), OK, new(b"ABC\n", "L192_0_2_1R"),
      ours="address literals that are eligible have logs, as before Postfix 3.0 (flush(8): DENY)"),
    V("42a", [add("bücher.example", "ABC"), add("BÜCHER.example", "ABC")], OK,
      new(b"ABC\n", "xnDDbcherDkva_example"),
      ours=SITE_LOG + "; the second line would say nothing new"),
    V("42b", [add("bücher.example", "ABC"), add("BÜCHER.example", "DEF")], OK,
      new(b"ABC\nDEF\n", "xnDDbcherDkva_example"), ours=SITE_LOG),
    V("43a", add("xn--bcher-kva.example", "ABC"), OK, new(b"ABC\n", "xnDDbcherDkva_example"),
      on="E", ours="a site is eligible however it is written (flush(8): DENY)"),
    V("43b", add("xn--bcher-kva.example", "ABC"), OK, new(b"ABC\n", "xnDDbcherDkva_example"),
      on="S", ours=SITE_LOG),
    V("44a", add("a-b.example", "AB1"), OK, new(b"AB1\n", "aDb_example"), ours=SITE_LOG),
    V("44b", add("a_b.example", "AB2"), OK, new(b"AB2\n", "aUb_example"), ours=SITE_LOG),
    V("44c", [add("a-b.example", "AB1"), add("a_b.example", "AB2")], OK,
      new(b"AB1\n", "aDb_example") | new(b"AB2\n", "aUb_example"), ours=SITE_LOG),
    *[V("45" + part, add(site, "X1"), DENY, log=W)
      for part, site in zip("abcdefgh", ["a..b.example.com", "-x.example.com", ".example.com",
                                         "a b.example.com", "*.example.com", "x@y.example.com",
                                         "x/y.example.com", b"x\xff.example.com"])],
    V(46, add("example.com.", "X1"), DENY, on="ES", log=W, ours=NO_SITE),
    *[V("47" + part, add(site, "ABC123"), DENY, on="S", log=W)
      for part, site in zip("abcdefghijk", ["1.2.3.4", "123", "-a", "a-", "ab--cd.example",
                                            "xn--a.example", "*", "::1", "x:25", "a@b", "%"])],
    *[V("48" + part, add(site, "ABC123"), OK, new(b"ABC123\n", name), on="S", ours=ours)
      for part, site, name, ours in [
          ("a", "localhost", "localhost", ""),
          ("b", "___", "UUU", SITE_LOG),
          ("c", "a_b.c", "aUb_c", SITE_LOG),
          ("d", "a.b", "a_b", ""),
          ("e", "café", "xnDDcafDdma", SITE_LOG),
          ("f", "faß.example", "xnDDfaDhia_example", SITE_LOG),
          ("g", "EXAMPLE\u3002com", "example_com", "")]],
    V("49a", add("x", "ABC123"), OK, new(b"ABC123\n", "xZ"), on="S",
      ours="a log named \"x\" would keep Postfix from starting"),
    V("49b", REFRESH, OK, moved() | new(b"", "xZ"), trig=b"I", on="S",
      before=log(b"ABC123\n", "xZ", atime=-13 * HOUR) | M,
      ours="the refresh works; that of flush(8) dies of its own log \"x\""),
    V("49c", REFRESH, OK, FLUSHED, before=OLD | log(b"DEF456\n", "x", atime=-13 * HOUR),
      trig=b"I", on="S", log=W, ours="a log \"x\" that is there already is passed over"),
    V("50a", add(LABEL + ".example.com", "ABC"), OK, new(b"ABC\n", LABEL + "_example_com")),
    V("50b", add("a" + LABEL + ".example.com", "ABC"), DENY, log=W),
    V("50c", add(TOTAL_253, "ABC"), OK, new(b"ABC\n", TOTAL_253.replace(".", "_"))),
    V("50d", add(TOTAL_254, "ABC"), DENY, log=W),

    # Sizes, other encodings, more than one request
    V("51a", send_site(20000 * "a"), DENY, log=W, ours=NO_SITE),
    V("51b", send_site(1000000 * "a"), BAD, log=W,
      ours="a request has at most 64 KiB; flush(8) reads on and says DENY"),
    V("51c", ABC[:-1] + b"foo\0" + 65000 * b"a" + b"\0\0", OK, ADDED, log=N,
      ours=EXTRA + "; this is within the limit"),
    V("51d", ABC[:-1] + b"foo\0" + 65536 * b"a" + b"\0\0", BAD, log=W,
      ours="a request has at most 64 KiB in all"),
    V(52, 1000000 * b"a" + b"\0\0\0", BAD, log=W),
    V("53a", PLAIN_ENCODING, BAD, eof=True, log=W),
    V("53b", BASE64_ENCODING, BAD, eof=True, log=W),
    V(54, add("example.com", "AAA111") + add("example.com", "BBB222"), OK, new(b"AAA111\n")),
    V("56a", ABC + b"junk", OK, ADDED),
    V("56b", ABC + 8000 * b"x", OK, ADDED),
]

LOGS = [
    # The log as it is found by add
    V("58a", [ABC, ABC], OK, ADDED,
      ours="an ID that is known to be in the log is not written again"),
    V("58b", ABC, OK, log(b"ABC123\nABC123\n", mtime=0, atime=-HOUR), before=L),
    V("58c", [ABC, ABC], OK, log(b"ABC123\nABC123\n", mtime=0, atime=-HOUR), before=L,
      ours="what the log had before is not known, what we wrote is"),
    V(59, add("example.com", "DEF456"), OK, log(b"ABC123\nDEF456\n", mtime=0, atime=-HOUR),
      before=log(b"ABC123"),
      ours="the torn line gets its newline; flush(8) makes one record of two"),
    V("62a", ABC, FAIL, before={"flush/example_com": Link("/dev/full")}, log=W,
      ours="no links are followed, and a record that is not written is not OK"),
    V("62b", ABC, FAIL, before={"hold/X": File(b""), "flush/example_com": Link("../hold/X")},
      log=W, ours="no links are followed"),
    V("62c", ABC, FAIL, before={"flush/example_com": Link("nowhere")}, log=W,
      ours="no links are followed, so nothing is made at their end"),

    # The log is not one
    *[V("63" + part, request, FAIL, before=M | before, log=W, ours=FAILS)
      for request, parts in ((ABC, "abcdefg"), (SEND, "hijklmn"))
      for part, before in zip(parts, [
          {"flush/example_com/": Dir()},
          {"flush/example_com": File(b"ABC123\n", 0o000, -HOUR)},
          {"flush/example_com": File(b"ABC123\n", 0o600, -HOUR, foreign=True)},
          {"flush/example_com": File(b"ABC123\n", 0o666, -HOUR, foreign=True)},
          {"hold/X": File(b"ABC123\n", 0o600), "flush/example_com": Link("../hold/X")},
          {"hold/X": File(b"ABC123\n", 0o600), "flush/example_com": Hard("hold/X")},
          {"flush/example_com": Fifo()}])],
    V("63o", ABC, FAIL, before={"flush/": Dir(0o500)}, log=W, ours=FAILS),

    # send_site
    V(64, SEND, OK, before=M),
    V(65, SEND, OK, EMPTIED, before=log(b""), trig=b"F"),
    V(66, send_site("eXample.COM"), OK, FLUSHED, before=LM, trig=b"FI"),
    V(67, send_site("nosuch.example"), DENY, before=log(b"ABC123\n", "nosuch_example") | M),
    V(68, SEND, OK, EMPTIED, before=L, trig=b"FI"),
    V(69, SEND, OK, FLUSHED, before=log(3 * b"ABC123\n") | M, trig=b"FI"),
    V("70a", SEND, OK, {"incoming/ABC123": File(mtime=0)} | EMPTIED,
      before=L | {"incoming/ABC123": File()}, trig=b"FI"),
    V("70b", SEND, OK, {"incoming/ABC123": File(mtime=0)} | EMPTIED,
      before=L | {"incoming/ABC123": File(mtime=-50)}, trig=b"FI"),
    V(71, SEND, OK, FLUSHED, before=LM | {"incoming/ABC123": File(b"another")}, trig=b"FI"),
    V("72a", SEND, OK, moved(0o600) | EMPTIED, before=L | message(mode=0o600), trig=b"FI"),
    V("72b", SEND, OK, moved(0o740) | EMPTIED, before=L | message(mode=0o740), trig=b"FI"),
    V(73, SEND, OK, FLUSHED | {"deferred/D/DEF456": None, "incoming/DEF456": File(mtime=0)},
      before=log(b"../x\n\nAB-C\nABC123\nDEF456") | M | {"deferred/D/DEF456": File()}, trig=b"FI",
      log=W, ours="one line for all that is wrong with a log, not one for each line of it"),
    V(74, SEND, OK, EMPTIED, before=log(b"!!\n"), trig=b"FI", log=W),
    V(75, SEND, OK, FLUSHED | {"deferred/D/DEF456": None, "incoming/DEF456": File(mtime=0)},
      before=log(b"ABC123\0junk\nDEF456\n") | M | {"deferred/D/DEF456": File()}, trig=b"FI"),
    V(76, SEND, OK, EMPTIED, before=log(b"ABC123\r\n") | M, trig=b"FI", log=W),
    V(77, SEND, OK,
      EMPTIED | {"deferred/5/" + LONG_ID: None, "incoming/" + LONG_ID: File(mtime=0)},
      before=log(LONG_ID.encode() + b"\n") | {"deferred/5/" + LONG_ID: File()}, trig=b"FI"),
    V("78a", SEND, OK, new(b"ABC123\n"), before=L | message(foreign=True), trig=b"FI", log=W,
      ours=KEPT),
    V("78b", SEND, OK,
      new(b"ABC123\n") | {"deferred/D/DEF456": None, "incoming/DEF456": File(mtime=0)},
      before=log(b"GHI789\nABC123\nDEF456\n") | message(foreign=True) |
      {"deferred/D/DEF456": File()}, trig=b"FI", log=W, ours=KEPT + ", and no other"),
    V(79, SEND, OK, {"deferred/A/ABC123": File(mtime=0)} | new(b"ABC123\n"),
      before=LM | READ_ONLY, trig=b"FI", log=W, ours=KEPT),
    V(80, SEND, OK, EMPTIED | {"deferred/A/ABC123": None, "incoming/ABC123": Link("../hold/X")},
      before=L | {"hold/X": File(), "deferred/A/ABC123": Link("../hold/X")}, trig=b"FI",
      ours="the time stamp that is set is that of the link, not that of the file behind it"),
    V(82, send_site("example.com", ("foo", "bar")), OK, FLUSHED, before=LM, trig=b"FI", log=N,
      ours=EXTRA),
    V("83a", SEND[:-1], BAD, before=LM, eof=True, log=W),
    V("83b", b"request\0send_site\0nexthop\0example.com\0\0", BAD, before=LM, log=W),
    V("83c", b"request\0send_site\0\0", BAD, before=LM, log=W),
    V(85, SEND, OK, FLUSHED, before=LM, trig=b"FI"),

    # send_file
    V(86, FILE, OK, moved(0o740), before=M, trig=b"I"),
    V(87, FILE, OK, {"incoming/ABC123": File(mode=0o740, mtime=0)},
      before={"incoming/ABC123": File()}, trig=b"I"),
    V("88a", FILE, OK),
    V("88b", FILE, OK, before={"active/ABC123": File()}),
    V("88c", FILE, OK, before={"hold/ABC123": File()}),
    V("88d", SEND, OK, EMPTIED, before=L, trig=b"FI"),
    V("88e", SEND, OK, new(b"ABC123\n"), before=L | {"active/ABC123": File()}, trig=b"FI",
      ours="the message may be on its way to deferred: its ID stays recorded"),
    V("88f", SEND, OK, new(b"ABC123\n"), before=L | {"hold/ABC123": File()}, trig=b"FI",
      ours="the message may be released: its ID stays recorded"),
    V("89a", FILE, OK, before=message(mode=0o600), ours=UNTOUCHED),
    V("89b", FILE, OK, before=message(mode=0o640), ours=UNTOUCHED),
    V("90a", FILE, OK, moved(0o740), before=message(mode=0o740), trig=b"I"),
    V("90b", FILE, OK, moved(0o750), before=message(mode=0o710), trig=b"I"),
    V("90c", FILE, OK, moved(0o777), before=message(mode=0o777), trig=b"I"),
    V("91a", FILE, OK, before={"hold/X": File(), "deferred/A/ABC123": Link("../../hold/X")}, log=W),
    V("91b", FILE, OK, before=M | {"hold/X": Hard("deferred/A/ABC123")}, log=W, ours=UNTOUCHED),
    V("91c", FILE, OK, before=message(foreign=True), log=W),
    V("91d", FILE, OK, before=message(mode=0o777, foreign=True), log=W),
    V("91e", FILE, OK, before={"deferred/A/ABC123/": Dir()}, log=W),
    V(92, FILE, OK, {"deferred/A/ABC123": File(mode=0o740, mtime=0)}, before=M | READ_ONLY, log=W,
      ours="no trigger: there is nothing new in incoming"),
    V("93a", send_file("AB-C"), BAD, log=W, ours=LOGGED),
    V("93b", send_file(""), BAD, log=W, ours=LOGGED),
    V("93c", b"request\0send_file\0\0", BAD, log=W, ours=LOGGED),
    V("94a", send_file("ABC123", ("foo", "bar")), OK, moved(0o740), before=M, trig=b"I", log=N,
      ours=EXTRA),
    V("94b", attrs("send_file", ("site", "example.com"), ("queue_id", "ABC123")), BAD, before=M,
      log=W),

    # refresh and purge
    V("95a", REFRESH, OK, FLUSHED, before=OLD, trig=b"I"),
    V("95b", b"W\0", OK, FLUSHED, before=OLD, trig=b"I"),
    V("95c", REFRESH, OK, FLUSHED | log(b"", "example_net", mtime=0),
      before=OLD | log(b"DEF456\n", "example_net", atime=-13 * HOUR), trig=b"I", ours=ONE_I),
    V(96, REFRESH, OK, before=log(b"ABC123\n", mtime=-13 * HOUR, atime=-11 * HOUR) | M),
    V("97a", REFRESH, OK, {"flush/example_com": None}, before=log(b"", mtime=-8 * DAY)),
    V("97b", REFRESH, OK, before=log(b"", mtime=-6 * DAY)),
    V("98a", b"request\0rfrsh\0", OK, FLUSHED, before=OLD, trig=b"I"),
    V("98b", b"request\0rfrsh\0foo\0bar\0\0", OK, FLUSHED, before=OLD, trig=b"I"),
    V("98c", b"request\0purge\0", OK, FLUSHED, before=AN_HOUR, trig=b"I"),
    V("99a", PURGE, OK, FLUSHED, before=AN_HOUR, trig=b"I"),
    V("99b", PURGE, OK, before=log(b"ABC123\n", atime=60) | M),
    V(100, PURGE, OK, FLUSHED | log(b"", "example_net", mtime=0),
      before=AN_HOUR | log(b"DEF456\n", "example_net", atime=-HOUR) |
      log(b"", "sub_example_com", mtime=0), trig=b"I", ours=ONE_I),
    V(101, PURGE, OK, moved() | new(b"", "nosuch_example"),
      before=log(b"ABC123\n", "nosuch_example") | M, trig=b"I"),
    V(102, PURGE, OK, before=log(b"ABC123\n", "example.com") | log(b"ABC123\n", "a-b") | M),
]

TABLE = REQUESTS + LOGS


# -------------------------------------------------------------------------- going through the table

class Service:
    """A daemon that serves many vectors."""

    def __init__(self, t, qmgr="fifo", announced=True, **settings):
        self.spool, self.daemon = t.make(qmgr=qmgr, **settings)
        self.announcement = ANNOUNCEMENT if announced else b""
        self.nul = b""
        self.qmgr = self.spool
        if qmgr == "socket":
            self.nul = b"\0"
            self.qmgr = SocketQmgr(self.spool)
            t.open.append(self.qmgr)
        self.journal = Journal(self.daemon)
        talk(self.daemon, [send_file("A")])  # starts it; what it says then is not a vector's

    def run(self, v, pieces_of, what):
        """One vector; pieces_of(vector, bytes) cuts each of its requests."""
        what = "vector %s, %s" % (v.n, what)
        set_up(self.spool, v.before)
        before = snapshot(self.spool)
        self.qmgr.triggers()
        self.journal.lines()
        start = time.time()
        for request in v.requests:
            pieces, pause = pieces_of(v, request)
            got = talk(self.daemon, pieces, v.eof, pause)
            eq(got, self.announcement + v.reply, what + ": reply")
        check_effect(self.spool, before, v.after, start, what)
        wanted = b"".join(bytes([trigger]) + self.nul for trigger in v.trig)
        eq(self.qmgr.triggers(), wanted, what + ": triggers")
        self.journal.check(v.log, what)


def whole(v, request):
    if v.cuts:
        return cut(request, v.cuts), PAUSE
    return [request], 0


def at_once(v, request):
    return [request], 0


def byte_by_byte(v, request):
    """One byte each, as far as the daemon reads at all: it refuses what is longer than 64 KiB."""
    read = 65536 + 100
    return cut(request[:read], "bytes") + [rest for rest in [request[read:]] if rest], 0


def run_table(t, pieces_of, what, vectors, **settings):
    services = {"E": Service(t, fast_flush_domains=E, **settings),
                "S": Service(t, fast_flush_domains=S, **settings)}
    failures = Failures()
    for v in vectors:
        for name in v.on:
            with failures:
                services[name].run(v, pieces_of, "%s, service %s" % (what, name))
    failures.end()


def vectors():
    possible = [v for v in TABLE if v.possible()]
    if len(possible) < len(TABLE):
        print("# %d vectors left out, only root can set them up" % (len(TABLE) - len(possible)))
    return possible


@test
def each_vector_has_its_reply_and_its_effect(t):
    run_table(t, whole, "sent whole", vectors())


@test
def a_request_that_comes_byte_by_byte_is_the_same_request(t):
    run_table(t, byte_by_byte, "sent byte by byte", vectors())


@test
def a_request_that_comes_in_random_pieces_is_the_same_request(t):
    def random_pieces(v, request):
        return cut(request, random_cuts(t.rng, request)), 0

    shuffled = vectors()
    t.rng.shuffle(shuffled)  # nor does a vector depend on those before it
    run_table(t, random_pieces, "sent in random pieces", shuffled)


@test
def pieces_may_come_slowly(t):
    def slow_pieces(v, request):
        return cut(request, random_cuts(t.rng, request)), PAUSE

    numbers = {"1", "5", "23", "25a", "54", "66", "83a", "86", "95a", "99a"}
    run_table(t, slow_pieces, "sent slowly", [v for v in TABLE if v.n in numbers])


@test
def without_announcement_the_reply_is_the_first_that_is_sent(t):
    run_table(t, at_once, "old dialect", vectors(), announced=False, protocol_announcement="off")


@test
def qmgr_on_a_socket_gets_a_nul_behind_each_trigger(t):
    run_table(t, at_once, "qmgr on a socket", vectors(), qmgr="socket",
              protocol_announcement="on")


# ---------------------------------------------------------- vectors that are more than one exchange

@test
def the_announcement_comes_before_the_client_has_said_anything(t):
    for dialect in ("auto", "on"):
        _, d = t.make(protocol_announcement=dialect)
        with d.connect() as s:
            eq(receive(s, 31), b"protocol\0queue_flush_protocol\0\0", dialect)
            is_silent(s)
            s.sendall(ABC)
            eq(receive_all(s), OK, dialect)
    _, d = t.make(protocol_announcement="off")
    with d.connect() as s:
        is_silent(s)
        s.sendall(ABC)
        eq(receive_all(s), OK, "off")


@test
def half_a_request_is_waited_for(t):
    service = Service(t)
    spool, d = service.spool, service.daemon
    set_up(spool, OLD | log(b"", "example_net"))
    before = snapshot(spool)
    halves = {"12": (b"request\0add\0site\0example.net\0queue_id\0ABC123\0", b"\0"),
              "26": (b"W", b"\0")}
    clients = {n: open_client(d, first) for n, (first, _) in halves.items()}
    for n, s in clients.items():
        is_silent(s)
        check_effect(spool, before, {}, 0, "vector %s, half of it sent" % n)
    start = time.time()
    for n, s in clients.items():
        s.sendall(halves[n][1])
        with s:
            eq(receive_all(s), OK, "vector %s, all of it sent" % n)
    check_effect(spool, before,
                 FLUSHED | log(b"ABC123\n", "example_net", mtime=0, atime=-HOUR), start,
                 "vectors 12 and 26")


@test
def a_client_that_hangs_up_early_is_served_all_the_same(t):
    service = Service(t, fast_flush_domains=E)
    spool, d = service.spool, service.daemon

    set_up(spool, LM)
    before = snapshot(spool)
    service.journal.lines()
    service.qmgr.triggers()
    d.connect().close()
    d.exchange(send_file("A"))  # by now the other one has been dealt with
    check_effect(spool, before, {}, 0, "vector 30")
    eq(service.qmgr.triggers(), b"", "vector 30: triggers")
    service.journal.check(QUIET, "vector 30 (ours: a probe is nothing to report)")

    for number, request, after, trig in (
            ("57", add("example.net", "ABC123"), new(b"ABC123\n", "example_net"), b""),
            ("81", SEND, FLUSHED, b"FI")):
        for pieces in ([request], cut(request, "bytes")):
            set_up(spool, LM)
            before = snapshot(spool)
            service.qmgr.triggers()
            start = time.time()
            with d.connect() as s:  # which reads nothing, not even the announcement
                for piece in pieces:
                    s.sendall(piece)
            path = next(iter(after))
            wait_for(lambda: os.path.lexists(spool.join(path)) != (after[path] is None),
                     "vector %s: no effect" % number)
            d.exchange(send_file("A"))
            check_effect(spool, before, after, start, "vector " + number)
            eq(service.qmgr.triggers(), trig, "vector %s: triggers" % number)
            service.journal.check(QUIET, "vector " + number)


@test
def a_connection_has_one_request(t):
    spool, d = t.make()
    with open_client(d, add("example.com", "AAA111")) as s:
        eq(receive(s, len(OK)), OK, "vector 55")
        eq(receive(s, 1), b"", "vector 55: end")
        try:
            s.sendall(add("example.com", "BBB222"))
            raise AssertionError("vector 55: the second request found a reader")
        except ConnectionError:
            pass
    eq(d.exchange(send_file("A")), OK)
    eq(spool.read("flush/example_com"), b"AAA111\n", "vector 55")


@test
def what_a_log_had_before_the_daemon_started_is_not_known(t):
    spool, d = t.make()
    spool.log("example_com", b"ABC123\n")
    eq(d.exchange(ABC), OK, "vector 58")
    eq(spool.read("flush/example_com"), b"ABC123\nABC123\n", "vector 58")
    eq(d.exchange(ABC), OK, "vector 58, again")
    eq(spool.read("flush/example_com"), b"ABC123\nABC123\n", "vector 58: ours is known now")


class Locked:
    """Somebody else has the lock of a log."""

    def __init__(self, spool, path="flush/example_com", lock=fcntl.flock):
        self.fd = os.open(spool.join(path), os.O_RDWR)
        lock(self.fd, fcntl.LOCK_EX)

    def release(self):
        os.close(self.fd)


@test
def an_add_waits_for_the_lock_and_for_no_other(t):
    spool, d = t.make()
    spool.log("example_com", b"ABC123\n")

    lock = Locked(spool)
    with open_client(d, add("example.com", "NEW1")) as s:
        is_silent(s, 0.3)
        eq(spool.read("flush/example_com"), b"ABC123\n", "vector 60, locked")
        lock.release()
        eq(receive_all(s), OK, "vector 60")
    eq(spool.read("flush/example_com"), b"ABC123\nNEW1\n", "vector 60")

    lock = Locked(spool, lock=fcntl.lockf)
    eq(d.exchange(add("example.com", "NEW2")), OK, "vector 60, lock of fcntl")
    eq(spool.read("flush/example_com"), b"ABC123\nNEW1\nNEW2\n", "vector 60, lock of fcntl")
    lock.release()


@test
def a_send_waits_for_the_lock(t):
    spool, d = t.make()
    set_up(spool, LM)
    lock = Locked(spool)
    with open_client(d, SEND) as s:
        is_silent(s, 0.3)
        eq(spool.files("incoming"), [], "locked")
        eq(spool.triggers(), b"", "locked")
        lock.release()
        eq(receive_all(s), OK)
    eq(spool.files("incoming"), ["incoming/ABC123"])
    eq(spool.read("flush/example_com"), b"")
    eq(spool.triggers(), b"FI")


@test
def a_record_is_written_to_the_log_that_has_the_name_then(t):
    spool, d = t.make()
    log_path, other_path = spool.join("flush/example_com"), spool.join("flush/other")

    def remove():
        os.unlink(log_path)

    def rename():
        os.rename(log_path, other_path)

    def replace():
        spool.log("other", b"DEF456\n")
        os.rename(other_path, log_path)

    for what, take_away, wanted in (("removed", remove, b"NEW1\n"), ("renamed", rename, b"NEW1\n"),
                                    ("replaced", replace, b"DEF456\nNEW1\n")):
        clean(spool)
        spool.log("example_com", b"")
        lock = Locked(spool)
        with open_client(d, add("example.com", "NEW1")) as s:
            is_silent(s)
            take_away()
            lock.release()
            eq(receive_all(s), OK, "vector 61, " + what)
        eq(spool.read("flush/example_com"), wanted,
           "vector 61 (flush(8) loses the record), " + what)
        if take_away is rename:
            eq(spool.read("flush/other"), b"", "vector 61, " + what)


@test
def adds_to_a_locked_log_wait_while_others_are_answered(t):
    spool, d = t.make()
    spool.log("example_com", b"")
    lock = Locked(spool)
    waiting = [open_client(d, add("example.com", "ID%d" % i)) for i in range(8)]
    for i in range(20):
        eq(d.exchange(add("other.example.com", "OTHER%d" % i)), OK, "vector 109")
    for s in waiting:
        is_silent(s, 0.01)
    eq(spool.read("flush/example_com"), b"", "vector 109, locked")
    eq(len(spool.read("flush/other_example_com").splitlines()), 20, "vector 109, others")
    lock.release()
    for s in waiting:
        with s:
            eq(receive_all(s), OK, "vector 109")
    eq(sorted(spool.read("flush/example_com").splitlines()), [b"ID%d" % i for i in range(8)],
       "vector 109")


@test
def a_trigger_that_nobody_takes_is_no_failure(t):
    def missing(spool):
        pass

    def no_socket(spool):
        spool.put("public/qmgr", 0o666, b"")

    def nobody_listens(spool):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            bind(s, spool.join("public/qmgr"))
        os.chmod(spool.join("public/qmgr"), 0o666)

    def no_reader(spool):
        os.mkfifo(spool.join("public/qmgr"), 0o666)
        spool.own(spool.join("public/qmgr"))

    # flush(8) warns of the first two at once and says nothing of the others; ours tries again
    # after trigger_timeout and then has a notice for each of F and I.
    services = []
    for what, put in (("missing", missing), ("not a socket", no_socket),
                      ("nobody listens", nobody_listens), ("no reader", no_reader)):
        service = Service(t, qmgr=None, trigger_timeout="3s")
        put(service.spool)
        set_up(service.spool, LM)
        before = snapshot(service.spool)
        service.journal.lines()
        start = time.time()
        eq(service.daemon.exchange(SEND), OK, "vector 84, " + what)
        check_effect(service.spool, before, FLUSHED, start, "vector 84, " + what)
        service.journal.check(QUIET, "vector 84, " + what)
        services.append((what, service))
    for what, service in services:
        lines = []

        def notices():
            lines.extend(service.journal.lines())
            return sum(level == 5 for level, _ in lines) == 2

        wait_for(notices, "vector 84, %s: no notice" % what)
        eq([line for line in lines if line[0] <= 4], [], "vector 84, " + what)
    eq(os.path.getsize(services[1][1].spool.join("public/qmgr")), 0,
       "vector 84: what is neither socket nor FIFO is not written to")


class Timed(threading.Thread):
    """A client in the background: what it got, and after what time."""

    def __init__(self, daemon, pieces, pause=0.0):
        super().__init__(daemon=True)
        self.server, self.pieces, self.pause = daemon, pieces, pause
        self.got = self.seconds = None
        self.start()

    def run(self):
        begin = time.monotonic()
        self.got = talk(self.server, self.pieces, pause=self.pause)
        self.seconds = time.monotonic() - begin

    def check(self, got, least, most, what):
        self.join(TIMEOUT)
        eq(self.got, ANNOUNCEMENT + got, what)
        if not least <= self.seconds <= most:
            raise AssertionError("%s: after %.2f s, wanted %.1f to %.1f s"
                                 % (what, self.seconds, least, most))


@test
def clients_that_take_too_long_are_closed(t):
    late = 4  # what a loaded machine may add
    service = Service(t, fast_flush_domains=E, ipc_timeout="3s", request_timeout="100s")
    spool, d = service.spool, service.daemon
    service.journal.lines()
    first = Timed(d, [])
    wake_up = Timed(d, [b"W"])
    half = Timed(d, [b"request\0add\0site\0exam"])
    slow = Timed(d, cut(ABC, [10, 20, 40]), pause=1.2)
    overall = Service(t, ipc_timeout="3s", request_timeout="4s")
    overall.journal.lines()
    dribble = Timed(overall.daemon, cut(add("example.com", 200 * "A"), "bytes"), pause=0.2)

    first.check(BAD, 2.9, 3 + late, "vector 106: silence")
    wake_up.check(b"", 2.9, 3 + late, "vector 107: W and then silence (ours: with a warning)")
    half.check(b"", 2.9, 3 + late, "vector 107: half an add and then silence")
    slow.check(OK, 3.5, 3.6 + late, "vector 108: the time-out is that of one read")
    eq(spool.read("flush/example_com"), b"ABC123\n", "vector 108")
    dribble.check(b"", 3.9, 4 + late, "vector 108, ours: with a limit for all of it")
    eq(overall.spool.files("flush"), [], "vector 108, ours: with a limit for all of it")
    eq(len([line for line in service.journal.lines() if line[0] <= 4]), 3, "one warning each")
    overall.journal.check(W, "vector 108, ours: with a limit for all of it")


# --------------------------------------------------------------------------------------- hashing

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
        spool, d = service.spool, service.daemon
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
                    service.run(V("105", request, OK, after, before=before, trig=trig), at_once,
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
                    service.run(V(number, request, OK, after, before=before, trig=trig), at_once,
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
                    service.run(V("103b", request, OK, flushed, before=misplaced, trig=trig),
                                at_once, "misplaced log, depth %d of %r" % (depth, names))
    failures.end()


# ------------------------------------------------------------------------------------ eligibility

PARENT, STRICT = "fast_flush_domains, relay_domains", "relay_domains"


class X:
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
    X("", {"example.com": DENY, "a": DENY, "[192.0.2.1]": DENY}),
    X("!bad.example.com,example.com",
      {"example.com": OK, "a.example.com": OK, "bad.example.com": DENY, "x.bad.example.com": DENY,
       "other.com": DENY}),
    X("example.com,!bad.example.com", {"bad.example.com": OK}),
    X("example.com,.example.com,.dot.example",
      {"example.com": OK, "a.b.example.com": OK, "dot.example": DENY, "a.dot.example": OK},
      mode=STRICT),
    X("example.com", {"example.com": OK, "a.example.com": DENY}, mode=STRICT),
    X(".dot.example,Example.NET",
      {"dot.example": DENY, "a.dot.example": DENY, "EXAMPLE.net": OK, "a.example.net": OK}),
    X("@/sites",
      {"file.example": OK, "continued.example": OK, "x.example": OK, "y.example": OK,
       "z.example": DENY, "a.z.example": DENY, "comment": DENY, "line": DENY}),
    X("!@/sites z.example", {"file.example": DENY, "z.example": OK}),
    X("@/sites_and_table",
      {"file.example": OK, "hash.example": OK, "a.hash.example": OK, "other.example": DENY},
      "texthash"),
    *[X(kind + ":@/" + kind, FIXED_PARENT, kind)
      for kind in ("hash", "btree", "lmdb", "cdb", "texthash")],
    *[X(kind + ":@/" + kind, FIXED_STRICT, kind, STRICT)
      for kind in ("hash", "btree", "lmdb", "cdb", "texthash")],
    X("regexp:@/regexp",
      {"re1.example": OK, "RE2.example": OK, "a.re1.example": DENY, "neg1": OK}, "regexp"),
    X("inline:{ { one.example = x }, two.example=y }",
      {"one.example": OK, "two.example": OK, "sub.one.example": OK, "three.example": DENY},
      "inline"),
    X("static:all", {"example.com": OK, "localhost": OK, "": DENY}),
    X("!static:all,example.com", {"example.com": DENY}),
    X("first.example,fail:oops,example.com",
      {"first.example": OK, "example.com": FAIL, "other.com": FAIL}, "fail"),
    X("first.example,hash:@/nonexistent,example.com", {"first.example": OK, "example.com": FAIL},
      "hash"),
    X("first.example,@/nonexistent/file,example.com", {"first.example": OK, "example.com": FAIL},
      start=W),
    X("first.example,nosuchtype:/x,example.com", {"first.example": OK, "example.com": FAIL},
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
                    eq(len([line for line in lines if line[0] <= 4]), 1 if x.start == W else 0,
                       what + ": journal at the start, %r" % lines)
    if left_out:
        print("# left out, postmap is missing or does not know the type: %s" % "; ".join(left_out))
    failures.end()


if __name__ == "__main__":
    main()
