# SPDX-License-Identifier: MIT
"""How a vector is played: the queue directory before and after, what qmgr is sent, what is logged."""

import os
import re
import shutil
import socket
import stat
import time
from collections import namedtuple

from basics import HOUR, TIMEOUT, USER, eq, wait_for
from client import ANNOUNCEMENT, bind, receive_all, send_file, talk

PAUSE = 0.05
CLOCK_REALTIME_COARSE = 5  # of linux/time.h; the clock of time stamps of files
WATCHED = ("incoming", "active", "deferred", "hold", "flush")

WARNING = "warning"  # exactly one journal line that is a warning or worse
NOTICE = "notice"  # none of these, but one notice
QUIET = ""  # none of these; what is less severe may be there


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
        if len(severe) != (1 if wanted == WARNING else 0):
            raise AssertionError("%s: wanted %s, the journal has %r"
                                 % (what, "one warning" if wanted == WARNING else "no warning", lines))
        if wanted == NOTICE:
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
        talk(self.daemon, send_file("A"))  # starts it; what it says then is not a vector's

    def run(self, v, cuts_of, what):
        """One vector; cuts_of(vector, bytes) says where to cut each of its requests."""
        what = "vector %s, %s" % (v.n, what)
        set_up(self.spool, v.before)
        before = snapshot(self.spool)
        self.qmgr.triggers()
        self.journal.lines()
        start = time.time()
        for request in v.requests:
            cuts, pause = cuts_of(v, request)
            got = talk(self.daemon, request, v.eof, cuts, pause)
            eq(got, self.announcement + v.reply, what + ": reply")
        check_effect(self.spool, before, v.after, start, what)
        wanted = b"".join(bytes([trigger]) + self.nul for trigger in v.trig)
        eq(self.qmgr.triggers(), wanted, what + ": triggers")
        self.journal.check(v.log, what)


def at_once(v, request):
    return None, 0
