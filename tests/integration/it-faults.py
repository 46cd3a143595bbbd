#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each system call and each allocation fails once, in turn.

The scenes are those of traced.py. Whatever fails: each request is answered, what was answered OK is
kept, the journal says what failed, no descriptor is left open, the next request is served, by the
same process, and what could not be done is done then. One daemon lives through all of it.

FFLUSHD_STRIDE=N has only every Nth of all faults happen.
"""

import contextlib
import errno
import mmap
import os
import select
import shutil
import signal
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import BUILD, Skip, TIMEOUT, as_user, eq, wait_for
from client import BAD, DENY, FAIL, OK, add, send_site
from daemon import Daemon
from harness import main, test
from spool import Spool
from traced import Ended, HASHED, SCENES, SYNC, Stage, Traced, WORKERS, in_workers

STRIDE = int(os.environ.get("FFLUSHD_STRIDE", "1"))
SHIM = os.path.join(BUILD, "tests/lib/malloc-fail.so")

FILE = "EIO ENOSPC EDQUOT EACCES EMFILE ENFILE EINTR ENOMEM EROFS"
LOOK = "EIO EACCES ENOMEM"
SOCKET = "EMFILE ENFILE ENOBUFS ENOMEM EACCES EINTR"
# What a call may fail with, by its manual page; not those that a program cannot meet (EINVAL,
# EFAULT), and not calls whose failure would be one (epoll_wait fails with EINTR only).
ERRORS = {
    "openat": FILE, "mkdirat": FILE, "renameat": FILE, "renameat2": FILE, "unlinkat": FILE,
    "utimensat": FILE, "fchmod": FILE, "ftruncate": FILE, "fsync": FILE, "fdatasync": FILE,
    "syncfs": FILE, "pwrite64": FILE, "write": FILE, "pwritev": FILE, "pwritev2": FILE,
    "writev": FILE, "flock": "EIO EINTR ENOLCK ENOMEM", "pread64": "EIO EINTR", "read": "EINTR",
    "getdents64": "EIO EACCES ENOMEM", "newfstatat": LOOK, "fstat": LOOK, "stat": LOOK,
    "statx": LOOK, "faccessat": LOOK, "faccessat2": LOOK, "access": LOOK,
    "accept4": SOCKET + " ECONNABORTED EIO", "socket": SOCKET, "connect": "EAGAIN ECONNREFUSED",
    "recvfrom": "ENOMEM EINTR ECONNRESET EIO", "sendto": "ENOMEM ENOBUFS EINTR EPIPE ECONNRESET",
    "shutdown": "ENOTCONN ENOBUFS", "getsockopt": "ENOBUFS", "epoll_ctl": "ENOMEM ENOSPC",
    "epoll_wait": "EINTR", "epoll_pwait": "EINTR", "epoll_pwait2": "EINTR",
    "mmap": "ENOMEM", "mremap": "ENOMEM",
}
if not os.path.exists(SHIM):  # sanitizers end the process when they get no memory
    del ERRORS["mmap"], ERRORS["mremap"]
SHORT = ("pwrite64",)
COSTLY = 5  # only every so many of the faults of a scene with hundreds of messages
FILLS_UP = os.strerror(errno.ENOSPC)  # after one byte, so that there is something to undo
# Whether the configuration has changed is looked at now and then; when that cannot be told the
# daemon leaves, so that the next one reads it. That is no fault of a request.
PASSED_OVER = ("fflushd.conf", "conf.d")
# Faults of a connection, whose client then gets no reply.
CONNECTION = ("recvfrom", "sendto", "epoll_ctl", "shutdown")


NO_MEMORY = [os.strerror(e) for e in (errno.ENOMEM, errno.ENOBUFS)]


def ways_to_fail(call):
    """An errno each, or how many bytes are written."""
    return [getattr(errno, e) for e in ERRORS.get(call, "").split()] + (
        ["short 1", "short half", FILLS_UP] if call in SHORT else [])


class Faulty(Stage):
    """A stage that compares the process before and after."""

    def __init__(self, base, name, settings):
        super().__init__(base, name, settings)
        self.pid = self.daemon.pid
        self.journal_read = 0
        self.descriptors = self.settle()

    def settle(self):
        """Descriptors, when all connections have been closed."""
        eq(self.daemon.exchange(send_site("none.test")), OK)
        eq(self.daemon.exchange(send_site("none.test")), OK)  # the one before is closed now
        return self.daemon.descriptors()

    def new_journal(self):
        lines = self.daemon.journal()
        new, self.journal_read = lines[self.journal_read:], len(lines)
        return new

    def check_round(self, scene, what, error, connection_lost):
        """After a fault: promises, process, journal, and that it serves."""
        self.wait_for_replies()
        unanswered = (b"", BAD) if connection_lost else ()
        self.note_replies((OK, FAIL) + unanswered)
        if len([a for a in self.asks if a.client.reply in unanswered]) > 1:
            raise AssertionError("more than one client was left without an answer")
        if error in NO_MEMORY and any(a.client.data and a.client.reply == a.client.data
                                      for a in self.asks):
            raise AssertionError("a client still waits for the announcement")
        self.check(scene)
        eq(self.daemon.pid, self.pid, "another process")
        failed = [a for a in self.asks if a.client.reply == FAIL]
        said = [line for line in self.new_journal() if line[1] in "01234"]
        if failed and what != "write":
            told = [line for line in said if error in line]
            if not 1 <= len(told) <= len(failed) + 1:
                raise AssertionError("%d requests failed, the journal says %r" %
                                     (len(failed), said))
        self.check_service()
        self.new_journal()
        eq(self.settle(), self.descriptors, "descriptors")
        return bool(failed), bool(said)


def play_fault(stage, scene, call, way):
    """A call fails in one of its ways. False if it was not made this time."""
    d = stage.daemon
    stage.open(scene)
    stage.play_to_mark(scene)
    held = d.step(stage.clients, "until " + call)
    if held is None or held.endswith(PASSED_OVER):
        d.tell("free")
        stage.wait_for_replies()
        return False
    if isinstance(way, int):
        d.tell("error", way)
    else:
        d.tell("short", max(int(held.split()[1]) // 2, 1) if way == "short half" else 1)
    if way is FILLS_UP and d.step(stage.clients, "until pwrite64 1"):
        d.tell("error", errno.ENOSPC)
    d.tell("free")
    error = os.strerror(way) if isinstance(way, int) else way
    try:
        stage.check_round(scene, call.split()[0], error, call.split()[0] in CONNECTION)
    except (AssertionError, Ended) as e:
        raise AssertionError("%s, %s, %s: %s\n%s" % (scene.name, call, error, e,
                                                     d.stderr()[-2000:])) from e
    return True


def list_faults(stage, scene):
    """All that can go wrong in a scene: (call, way)"""
    stage.open(scene)
    stage.play_to_mark(scene)
    calls = scene.select(stage.daemon.calls(stage.clients))
    stage.daemon.tell("free")
    faults = [(call, way) for call in calls for way in ways_to_fail(call.split()[0])]
    return faults[::STRIDE * (COSTLY if scene.calls else 1)]


def work(base, worker, scene, settings):
    """How many faults there were."""
    stage = Faulty(base, "%d" % worker, settings)
    try:
        return sum(play_fault(stage, scene, call, way)
                   for call, way in list_faults(stage, scene)[worker::WORKERS])
    finally:
        stage.close()


def inject(t, scene, settings):
    played = sum(in_workers(t, work, scene, settings))
    what = ", ".join([scene.name] + ["%s = %s" % s for s in settings.items()])
    print("ok: %s: %d faults" % (what, played), flush=True)
    if played * STRIDE < 20:
        raise AssertionError("only %d faults" % played)


def inject_all(t, word, *many_settings):
    for scene in SCENES:
        if scene.name.startswith(word):
            for settings in many_settings:
                inject(t, scene, settings)


@test
def adds(t):
    inject_all(t, "add", {}, SYNC)
    inject(t, SCENES[0], HASHED)


@test
def sends(t):
    inject_all(t, "send", {})
    inject(t, SCENES[5], SYNC)


@test
def refreshes(t):
    inject_all(t, "refresh", {})
    inject_all(t, "compaction", {})


@test
def other_layouts(t):
    """Logs and messages where other values of hash_queue_names and hash_queue_depth had them."""
    inject_all(t, "layout", {})
    inject(t, SCENES[-3], SYNC)
    inject(t, SCENES[-3], HASHED)


# ------------------------------------------------------------------------------------- start

def begin(stage, scene):
    """A new process, with the requests in its backlog."""
    d = stage.daemon
    d.kill_if_alive()
    stage.open(scene)
    d.start(held=True)
    d.step((), "until umask 1")  # before that the dynamic linker is at work


def list_start_faults(stage, scene):
    """Each call in a few of its ways: most are one to the program."""
    begin(stage, scene)
    calls = stage.daemon.calls(stage.clients)
    stage.daemon.tell("free")
    return [(call, way) for n, call in enumerate(calls[::STRIDE])
            for way in ways_to_fail(call.split()[0])[n % 3::3] if isinstance(way, int)]


def fail_at_start(stage, scene, call, way):
    """False if the call was not made this time."""
    d = stage.daemon
    begin(stage, scene)
    held = d.step(stage.clients, "until " + call)
    if held:
        d.tell("error", way)
    d.tell("free")
    return held is not None


def restart_until_served(stage):
    """As systemd does when a service fails. How often it had to."""
    d, restarts = stage.daemon, 0
    for a in stage.asks:
        while not a.client.ended:
            select.select([a.client.fd, d.tracer.stdout], [], [], TIMEOUT)
            a.client.pump()
            if d.pid and d.answer_waits():
                status = int(d.answer().removeprefix("exited "))
                # libconfuse asserts that it has memory.
                confuse = status == 128 + signal.SIGABRT and "lexer.l" in d.stderr()[-300:]
                if status == 0 or status >= 128 and not confuse:
                    raise AssertionError("it ended with status %d" % status)
                restarts += 1
                d.start()
            if not d.pid or restarts > 1:
                raise AssertionError("it does not serve")
    return restarts


def restart_without_configuration(stage):
    """A file of the configuration that cannot be read is reported, and does without."""
    d = stage.daemon
    if not any("fflushd.conf: " in line for line in d.journal()[-30:] if line[1] == "3"):
        if DENY in [a.client.reply for a in stage.asks]:
            raise AssertionError("DENY, and nobody says why")
        return
    d.kill()
    d.start()
    with open(d.stderr_path, "wb"):
        pass


def work_start(base, worker, scene):
    stage, played, restarts = Stage(base, "%d" % worker, {}), 0, 0
    try:
        for call, way in list_start_faults(stage, scene)[worker::WORKERS]:
            try:
                played += fail_at_start(stage, scene, call, way)
                restarts += restart_until_served(stage)
                stage.note_replies((OK, FAIL, BAD, DENY, b""))
                stage.check(scene)
                restart_without_configuration(stage)
                stage.check_service()
            except AssertionError as e:
                raise AssertionError("start, %s, %s: %s\n%s" %
                                     (call, os.strerror(way), e,
                                      stage.daemon.stderr()[-2000:])) from e
        return played, restarts
    finally:
        stage.close()


@test
def the_start(t):
    """May fail, with an error status: then it is started again, and nothing is lost."""
    played, restarts = map(sum, zip(*in_workers(t, work_start, SCENES[3])))
    print("ok: start: %d faults, after %d of them it was started again" % (played, restarts))


# -------------------------------------------------------------------------------- allocation

class Starved(Faulty):
    """A stage whose daemon can be told which of its allocations shall fail."""

    def __init__(self, base, name, settings):
        self.path = os.path.join(base, name + ".counter")
        with open(self.path, "wb") as f:
            f.write(bytes(8))
        os.chmod(self.path, 0o666)
        self.file = open(self.path, "r+b")
        self.counter = mmap.mmap(self.file.fileno(), 8)
        super().__init__(base, name, settings)

    def make_daemon(self, path, settings):
        return Traced(self.spool, path, preload=SHIM, env={"FFLUSHD_MALLOC_FAIL": self.path},
                      **settings)

    def set(self, n):
        self.counter[:] = struct.pack("q", n)

    def left(self):
        return struct.unpack("q", self.counter[:])[0]

    def close(self):
        super().close()
        self.counter.close()
        self.file.close()


def starve(t, scene):
    base = os.path.join(t.base, str(t.n))
    t.n += 1
    os.mkdir(base, 0o755)
    stage = Starved(base, "0", {})
    d, n, left = stage.daemon, 0, 0
    try:
        while left == 0:
            n += 1
            stage.open(scene)
            stage.play_to_mark(scene)
            stage.set(n)
            d.tell("free")
            stage.wait_for_replies()
            left = stage.left()
            stage.set(0)
            try:
                stage.check_round(scene, "malloc", os.strerror(errno.ENOMEM), True)
            except AssertionError as e:
                raise AssertionError("%s, allocation %d: %s\n%s" %
                                     (scene.name, n, e, d.stderr()[-2000:])) from e
    finally:
        stage.close()
    print("ok: %s: %d failed allocations" % (scene.name, n - 1), flush=True)


def need_shim():
    if not os.path.exists(SHIM):
        raise Skip("no tests/lib/malloc-fail.so, as with sanitizers")


@test
def allocations(t):
    need_shim()
    for scene in SCENES:
        starve(t, scene)


@test
def allocations_at_the_start(t):
    need_shim()
    stage = Starved(t.base, "start", {})
    d, n, left, restarts = stage.daemon, 0, 0, 0
    try:
        while left == 0:
            n += 1
            d.kill()
            stage.open(SCENES[0])
            stage.set(n)
            d.start()
            restarts += restart_until_served(stage)
            left = stage.left()
            stage.set(0)
            stage.note_replies((OK, FAIL, BAD, b""))
            stage.check(SCENES[0])
            stage.check_service()
    finally:
        stage.close()
    print("ok: start: %d failed allocations, after %d it was started again" % (n - 1, restarts))


# ------------------------------------------------------------------------- faults that are real

@contextlib.contextmanager
def mounted(t, name, filesystem, megabytes):
    """A file system of its own, that is small."""
    if os.getuid() != 0:
        raise Skip("needs root")
    path = os.path.join(t.base, name)
    os.mkdir(path)
    if filesystem == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=%dm" % megabytes, "none", path]
    elif not shutil.which("mkfs." + filesystem):
        raise Skip("needs mkfs." + filesystem)
    else:
        image = path + ".image"
        with open(image, "wb") as f:
            f.truncate(megabytes << 20)
        subprocess.run(["mkfs." + filesystem, "-q", image], check=True)
        command = ["mount", "-o", "loop", image, path]
    if subprocess.run(command, capture_output=True).returncode != 0:
        raise Skip("cannot mount " + filesystem)
    try:
        os.chmod(path, 0o755)
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def real(t, name, filesystem):
    """(spool on a small file system, daemon beside it), both closed with the test."""
    stack = contextlib.ExitStack()
    t.open.append(stack)
    path = stack.enter_context(mounted(t, name, filesystem, 4))
    spool = Spool(path)
    stack.callback(spool.close)
    beside = os.path.join(t.base, name + ".daemon")
    os.mkdir(beside, 0o755)
    daemon = Daemon(spool, beside)
    stack.callback(daemon.close)
    return spool, daemon


def told(daemon, text):
    return [line for line in daemon.journal() if line[1] in "01234" and text in line]


def fill(spool):
    """Until there is not one byte left, for its owner."""
    fd = os.open(spool.join("filler"), os.O_CREAT | os.O_WRONLY)
    size = 1 << 20
    while size:
        try:
            os.write(fd, bytes(size))
        except OSError:
            size //= 2
    os.close(fd)


@test
def full_file_system(t):
    for filesystem in ("tmpfs", "ext4"):
        spool, d = real(t, filesystem, filesystem)
        whole = "".join("%07X\n" % i for i in range(512)).encode()  # ends with a block
        spool.log("full_test", whole)
        spool.put("deferred/A/A1")
        spool.put("deferred/0/0000001")
        fill(spool)
        eq(d.exchange(add("full.test", "A1")), FAIL, filesystem)
        eq(spool.read("flush/full_test"), whole)
        eq(len(told(d, os.strerror(errno.ENOSPC))), 1, d.stderr())
        eq(d.exchange(send_site("full.test")), OK)
        eq(spool.files("incoming"), ["incoming/0000001"])
        eq(spool.read("flush/full_test"), b"")
        os.unlink(spool.join("filler"))
        eq(d.exchange(add("full.test", "A1")), OK)
        eq(spool.read("flush/full_test"), b"A1\n")
        print("ok: a full %s: refused, said, and recorded when there is space again" % filesystem)


@test
def read_only_file_system(t):
    for filesystem in ("tmpfs", "ext4"):
        spool, d = real(t, filesystem, filesystem)
        spool.put("deferred/A/A1")
        spool.put("deferred/A/A2")
        eq(d.exchange(add("ro.test", "A1")), OK)
        subprocess.run(["mount", "-o", "remount,ro", os.path.dirname(spool.path)], check=True)
        eq(d.exchange(add("ro.test", "A2")), FAIL)
        eq(d.exchange(send_site("ro.test")), FAIL)
        eq(len(told(d, os.strerror(errno.EROFS))), 2, d.stderr())
        subprocess.run(["mount", "-o", "remount,rw", os.path.dirname(spool.path)], check=True)
        eq(spool.read("flush/ro_test"), b"A1\n")
        eq(d.exchange(add("ro.test", "A2")), OK)
        eq(d.exchange(send_site("ro.test")), OK)
        eq(spool.files("incoming"), ["incoming/A1", "incoming/A2"])
        print("ok: a read-only %s: refused, said, and goes on afterwards" % filesystem)


def limit(daemon, option):
    subprocess.run(["prlimit", "--pid", str(daemon.process.pid), option], check=True, **as_user())


@test
def file_size_limit(t):
    spool, d = t.make(activation="hold")
    spool.log("big_test", b"AAAAAAA\n" * 512)
    spool.put("deferred/A/A1")
    eq(d.exchange(send_site("none.test")), OK)
    limit(d, "--fsize=4097:4097")
    eq(d.exchange(add("big.test", "A1")), FAIL)
    eq(spool.read("flush/big_test"), b"AAAAAAA\n" * 512)
    eq(len(told(d, os.strerror(errno.EFBIG))), 1, d.stderr())
    eq(d.exchange(add("small.test", "A1")), OK)


@test
def no_descriptors_left(t):
    """More clients than descriptors: those that there are none for wait."""
    spool, d = t.make(activation="hold")
    eq(d.exchange(send_site("none.test")), OK)
    spool.put("deferred/A/A1")
    used = len(os.listdir("/proc/%d/fd" % d.process.pid))
    limit(d, "--nofile=%d:%d" % (used + 4, used + 4))
    waiting = [d.connect() for _ in range(8)]
    wait_for(lambda: told(d, os.strerror(errno.EMFILE)), "nobody says that descriptors are short")
    for s in waiting:
        s.close()
    eq(d.exchange(add("fd.test", "A1")), OK)
    eq(spool.read("flush/fd_test"), b"A1\n")


if __name__ == "__main__":
    main()
