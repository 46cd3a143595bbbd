#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushd among hostile local clients.

Whatever they do: honest clients are served within BOUND seconds meanwhile, memory and descriptors
stay bounded, the service goes on, and nothing outside of the queue directory is touched.

FFLUSHD_SPRAY=1000000 is the long form of the first test; FFLUSHD_RACE is how many seconds files are
swapped under a send; FFLUSHD_HALF=16384 is as many half requests as can be.
"""

import contextlib
import fcntl
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

import client
from basics import BUILD, Skip, USER, eq, wait_for
from client import (ANNOUNCEMENT, BAD, DENY, FAIL, OK, PURGE, REFRESH, add, attrs, bind, receive_all,
                    send_file, send_site)
from harness import SEED, main, test

BOUND = 10  # seconds; generous, as tests run on loaded machines. Ordinary is a millisecond.
MEMORY_MAX = 64 << 20  # bytes, of a daemon with 10,000 connections; without sanitizers
SPRAY = int(os.environ.get("FFLUSHD_SPRAY", 20000))
RACE_SECONDS = float(os.environ.get("FFLUSHD_RACE", 3))
N_IDLE = 10000
N_HALF = int(os.environ.get("FFLUSHD_HALF", 4000))
VALID_LOG = re.compile(r"[0-9a-z_DULRC]{2,253}|[0-9a-zU]Z")


def connect(daemon, bound=BOUND):
    """As Postfix's clients do: wait while the backlog is full, but not for ever."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", bound, 0))
    client.connect(s, daemon.socket_path)
    s.settimeout(bound)
    return s


def ask(daemon, request, bound=BOUND):
    """One honest client: its reply, within the bound."""
    start = time.monotonic()
    with connect(daemon, bound) as s:
        s.sendall(request)
        got = receive_all(s).removeprefix(ANNOUNCEMENT)
    took = time.monotonic() - start
    if took > bound:
        raise AssertionError("answered after %.1f s" % took)
    return got


def serve_honest(daemon, spool, n=20):
    """Adds and a send, each answered in time, each done; the longest time one took."""
    longest = 0.0
    for i in range(n):
        start = time.monotonic()
        eq(ask(daemon, add("honest.example", "B%d" % i)), OK)
        longest = max(longest, time.monotonic() - start)
    start = time.monotonic()
    eq(sorted(spool.read("flush/honest_example").split()), sorted(b"B%d" % i for i in range(n)))
    eq(ask(daemon, send_site("honest.example")), OK)
    eq(spool.read("flush/honest_example"), b"")
    return max(longest, time.monotonic() - start)


def has_sanitizer(daemon):
    with open("/proc/%d/maps" % daemon.process.pid) as f:
        return "asan" in f.read()


def memory(daemon):
    """Proportional set size, in bytes."""
    with open("/proc/%d/smaps_rollup" % daemon.process.pid) as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("Pss:"))


def descriptors(daemon):
    return len(os.listdir("/proc/%d/fd" % daemon.process.pid))


def check_memory(daemon):
    if not has_sanitizer(daemon) and memory(daemon) > MEMORY_MAX:
        raise AssertionError("%d MiB" % (memory(daemon) >> 20))


def check_no_stray(spool):
    """Logs have names that we make and records that are queue IDs; no other file is there."""
    for path in spool.files("."):
        where, _, name = os.path.normpath(path).partition("/")
        if where == "flush":
            if not VALID_LOG.fullmatch(name):
                raise AssertionError("a log with the name %r" % name)
            for line in spool.read(path).splitlines():
                if not re.fullmatch(rb"[0-9A-Za-z_]{1,255}", line):
                    raise AssertionError("%s has the line %r" % (path, line))
        elif os.path.normpath(path) not in ("public/qmgr", "public/fflushd"):
            raise AssertionError("a stray file: %s" % path)


class Decoy:
    """A directory beside the queue, of the same owner, so that no permission guards it; but for
    one file, to which a hard link can be made while it is another user's."""

    def __init__(self, case, spool):
        self.path = os.path.join(case.base, "decoy")
        self.kept = os.path.join(self.path, "file")
        self.linked = os.path.join(self.path, "linked")  # a second one, for hard links
        self.foreign = os.path.join(self.path, "foreign")
        self.files = (self.kept, self.linked, self.foreign)
        os.mkdir(self.path, 0o700)
        for path in self.files:
            with open(path, "wb") as f:
                f.write(b"DECOY1\nDECOY2\n")
            os.chmod(path, 0o700)
        spool.own(self.path)
        if os.getuid() == 0:
            os.chown(self.foreign, 1, 1)
            os.chmod(self.foreign, 0o666)  # or fs.protected_hardlinks forbids the link
        for path in self.files:
            os.utime(path, (1000000000, 1000000000))
        os.utime(self.path, (1000000000, 1000000000))
        self.before = self.look()

    def look(self):
        found = {}
        for path in [self.path] + [os.path.join(self.path, n) for n in os.listdir(self.path)]:
            st = os.lstat(path)
            found[path] = (st.st_ino, st.st_mode, st.st_uid, st.st_mtime_ns,
                           st.st_size if path != self.path else 0)
        for path in self.files:
            with open(path, "rb") as f:
                found[path] += (f.read(),)
        return found

    def check(self, how=""):
        eq(self.look(), self.before, "the decoy was touched %s" % how)


@contextlib.contextmanager
def connections(daemon, n, data=b""):
    """So many clients that have sent this much and now do nothing."""
    open_ones = []
    try:
        for _ in range(n):
            s = connect(daemon)
            open_ones.append(s)
            if data:
                s.sendall(data)
        yield open_ones
    finally:
        for s in open_ones:
            s.close()


def raise_limit(wanted):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise Skip("no more than %d descriptors" % hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def program(name):
    path = os.path.join(BUILD, "tests/integration", name)
    if not os.path.exists(path):
        raise Skip("%s is not built" % name)
    return path


@test
def malformed_requests_are_answered_and_leave_nothing(case):
    spool, daemon = case.make(activation="hold")
    decoy = Decoy(case, spool)
    serve_honest(daemon, spool)
    pid, fds = daemon.process.pid, descriptors(daemon)
    r = subprocess.run([program("spray"), daemon.socket_path, str(SPRAY), "200",
                        str(SEED)], capture_output=True, text=True)
    eq(r.returncode, 0, r.stdout + r.stderr)
    print("#", r.stdout.strip())
    told = json.loads(r.stdout)
    eq(told["requests"], SPRAY)
    if told["bad"] < SPRAY / 3 or told["silent"] > SPRAY / 3:
        raise AssertionError(r.stdout)
    serve_honest(daemon, spool)
    wait_for(lambda: descriptors(daemon) <= fds, "descriptors are left open")
    eq(daemon.process.poll(), None)
    eq(daemon.process.pid, pid)
    check_memory(daemon)
    check_no_stray(spool)
    decoy.check()


@test
def ten_thousand_idle_connections_do_not_disturb(case):
    raise_limit(N_IDLE + 100)
    spool, daemon = case.make(activation="hold")
    serve_honest(daemon, spool)
    fds, before = descriptors(daemon), memory(daemon)
    with connections(daemon, N_IDLE):
        wait_for(lambda: descriptors(daemon) >= fds + N_IDLE - 100)
        longest = serve_honest(daemon, spool, 100)
        check_memory(daemon)
        print("# longest wait %.1f ms, %.1f KiB for each connection" %
              (longest * 1e3, (memory(daemon) - before) / N_IDLE / 1024))
    wait_for(lambda: descriptors(daemon) <= fds, "descriptors are left open")


@test
def more_connections_than_are_taken_delay_others_for_no_longer_than_the_time_out(case):
    spool, daemon = case.make(activation="hold", request_timeout="2s")
    daemon.stop()
    daemon.command = ["prlimit", "--nofile=300:300"] + daemon.command
    daemon.start()
    with connections(daemon, 400):
        start = time.monotonic()
        eq(ask(daemon, add("honest.example", "A1")), OK)
        took = time.monotonic() - start
    print("# served after %.1f s" % took)
    eq(spool.read("flush/honest_example"), b"A1\n")


def send_what_is_taken(s, data):
    """Without waiting for long, to a service that may hang up."""
    s.settimeout(BOUND)
    try:
        s.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


@test
def half_requests_share_one_budget(case):
    raise_limit(N_HALF + 100)
    spool, daemon = case.make(activation="hold")
    serve_honest(daemon, spool)
    fds, before = descriptors(daemon), memory(daemon)
    half = b"request\0add\0site\0" + b"x" * 64000
    mine = connect(daemon)  # began first and sends little: that is no reason to close it
    mine.sendall(b"request\0add\0site\0")
    with contextlib.ExitStack() as stack:
        for i in range(N_HALF):
            s = stack.enter_context(connect(daemon))
            send_what_is_taken(s, half)
            if i % (N_HALF // 20) == 0:
                eq(ask(daemon, add("honest.example", "C%d" % i)), OK)
                eq(ask(daemon, send_site("honest.example", ("reason", "y" * 60000))), OK)
                check_memory(daemon)
        print("# %.1f MiB with %d half requests" % (memory(daemon) / (1 << 20), N_HALF))
        serve_honest(daemon, spool, 100)
        check_memory(daemon)
        # The newest are there, and may still end.
        s.sendall(b"\0queue_id\0A1\0\0")
        eq(receive_all(s).removeprefix(ANNOUNCEMENT), DENY)
        mine.sendall(b"mine.example\0queue_id\0A1\0\0")
        eq(receive_all(mine).removeprefix(ANNOUNCEMENT), OK)
        mine.close()
    wait_for(lambda: descriptors(daemon) <= fds, "descriptors are left open")
    if not has_sanitizer(daemon):
        wait_for(lambda: memory(daemon) < before + (4 << 20), "memory is not returned")
        print("# %.1f MiB before, %.1f MiB after" % (before / (1 << 20), memory(daemon) / (1 << 20)))
    lines = [line for line in daemon.journal() if "half a request" in line]
    eq(len(lines) > 0, True)
    if len(lines) > N_HALF / 4:
        raise AssertionError("%d lines" % len(lines))
    daemon.stop()
    told = [line for line in daemon.journal() if "half" in line]
    more = sum(int(m.group(1)) for line in told
               if (m := re.search(r">(\d+) more half requests were closed", line)))
    n_closed = more + sum("half a request" in line for line in told)
    if not N_HALF - 256 - 20 <= n_closed <= N_HALF:  # 256 of 64 KiB stay
        raise AssertionError("%d of %d are told to have been closed" % (n_closed, N_HALF))


@test
def long_requests_that_wait_cost_no_more_than_short_ones(case):
    """Complete, with a reason of 60,000 bytes, for a log that somebody has locked."""
    n = 2000
    raise_limit(n + 100)
    spool, daemon = case.make(activation="hold")
    serve_honest(daemon, spool)
    spool.log("locked_example", b"A1\n")
    with open(spool.join("flush/locked_example"), "rb") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        with contextlib.ExitStack() as stack:
            waiting = []
            for _ in range(n):
                s = stack.enter_context(connect(daemon))
                s.sendall(send_site("locked.example", ("reason", "y" * 60000)))
                waiting.append(s)
            serve_honest(daemon, spool, 100)
            check_memory(daemon)
            print("# %.1f MiB" % (memory(daemon) / (1 << 20)))
            fcntl.flock(f, fcntl.LOCK_UN)
            for s in waiting:
                eq(receive_all(s).removeprefix(ANNOUNCEMENT), OK)


@test
def slow_senders_wait_alone(case):
    spool, daemon = case.make(activation="hold")
    request = add("slow.example", "A1")
    with connections(daemon, 200) as slow:
        for i in range(len(request)):
            for s in slow:
                s.sendall(request[i:i + 1])
            if i % 5 == 0:
                serve_honest(daemon, spool, 5)
        for s in slow:
            eq(receive_all(s).removeprefix(ANNOUNCEMENT), OK)
    eq(spool.read("flush/slow_example"), b"A1\n")


@test
def clients_that_never_read_cost_nothing(case):
    raise_limit(3000)
    spool, daemon = case.make(activation="hold")
    serve_honest(daemon, spool)
    fds = descriptors(daemon)
    requests = [add("deaf.example", "A1"), send_site("deaf.example", ("detail", "1")), b"no request\0",
                attrs("rfrsh"), send_file("NONE")]
    with contextlib.ExitStack() as stack:
        for request in requests:
            stack.enter_context(connections(daemon, 500, request))
        serve_honest(daemon, spool)
        wait_for(lambda: descriptors(daemon) <= fds, "descriptors are left open")
        check_memory(daemon)


@test
def a_request_is_done_though_its_client_has_gone(case):
    spool, daemon = case.make(activation="hold")
    n = 3000
    for i in range(n):
        with connect(daemon) as s:
            s.sendall(add("gone.example", "A%d" % i))
    for _ in range(n):
        connect(daemon).close()
    serve_honest(daemon, spool)
    eq(sorted(spool.read("flush/gone_example").split()), sorted(b"A%d" % i for i in range(n)))


@test
def a_flood_leaves_room_for_others(case):
    spool, daemon = case.make(activation="hold")
    floods = [subprocess.Popen([program("spray"), daemon.socket_path, "1000000000", "500", str(i)],
                               stdout=subprocess.DEVNULL) for i in range(2)]
    try:
        longest = 0.0
        for i in range(30):  # there are purges in the flood: what is recorded does not stay
            start = time.monotonic()
            eq(ask(daemon, add("honest.example", "C%d" % i) if i % 10 else
                   send_site("honest.example")), OK)
            longest = max(longest, time.monotonic() - start)
        for flood in floods:
            eq(flood.poll(), None, "the flood has ended by itself")
        check_memory(daemon)
        print("# longest wait %.1f ms" % (longest * 1e3))
    finally:
        for flood in floods:
            flood.kill()
            flood.wait()
    eq(ask(daemon, send_site("honest.example")), OK)
    serve_honest(daemon, spool)


@test
def names_cannot_leave_the_queue(case):
    spool, daemon = case.make(activation="hold")
    decoy = Decoy(case, spool)
    up = os.path.relpath(decoy.kept, spool.join("flush"))
    sites = ["", ".", "..", "../x", up, decoy.kept, "a/b", "/", "a\nb", "%s", "a" * 254, "a" * 60000,
             "a." * 126 + "aa", b"a\xff", "-", "[", "[]", "[../x]", "[" + "1" * 5000 + "]", "*", "~"]
    for site in sites:
        for request in (add(site, "A1"), send_site(site)):
            eq(ask(daemon, request), DENY, repr(site))
    ids = ["", ".", "..", "../x", up, decoy.kept, "A/B", "A.B", "A\nB", "A B", "A" * 256, "A" * 60000,
           b"\xff", "-", "*"]
    for queue_id in ids:
        for request in (add("a.example", queue_id), send_file(queue_id)):
            eq(ask(daemon, request), BAD, repr(queue_id))
    # A NUL ends a value, and what is behind it is the next name.
    eq(ask(daemon, b"request\0add\0site\0a.example\0../x\0queue_id\0A1\0\0"), BAD)
    eq(ask(daemon, b"request\0add\0site\0a.example\0queue_id\0A1\0../x\0y\0\0"), OK)
    eq(ask(daemon, add("a.example", "A" * 255)), OK)
    eq(spool.read("flush/a_example"), b"A1\n" + b"A" * 255 + b"\n")
    serve_honest(daemon, spool)
    check_no_stray(spool)
    decoy.check()


def in_place_of_log(kind, path, decoy):
    """Put something else where the log of a site belongs."""
    if kind == "directory":
        os.mkdir(path, 0o700)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "socket":
        s = socket.socket(socket.AF_UNIX)
        bind(s, path)
        s.close()
    elif kind == "symbolic link":
        os.symlink(decoy.kept, path)
    elif kind == "dangling link":
        os.symlink(os.path.join(decoy.path, "new"), path)
    elif kind == "link to a directory":
        os.symlink(decoy.path, path)
    elif kind == "hard link":
        os.link(decoy.linked, path)
    elif kind == "hard link to a foreign file":
        os.link(decoy.foreign, path)
    else:
        with open(path, "wb") as f:
            f.write(b"A1\n")
        os.chmod(path, 0o666)
        if kind == "foreign owner":
            os.chown(path, 1, 1)


KINDS = ("directory", "fifo", "socket", "symbolic link", "dangling link", "link to a directory",
         "hard link", "foreign owner")


@test
def what_is_no_log_is_refused_and_left_alone(case):
    if os.getuid() != 0:
        raise Skip("only root can give files away")
    spool, daemon = case.make(activation="hold")
    decoy = Decoy(case, spool)
    for i, kind in enumerate(KINDS):
        in_place_of_log(kind, spool.join("flush/bad%d_example" % i), decoy)
        if kind not in ("foreign owner", "hard link"):
            os.chown(spool.join("flush/bad%d_example" % i), USER.pw_uid, -1,
                     follow_symlinks=False)
    before = {i: os.lstat(spool.join("flush/bad%d_example" % i)) for i in range(len(KINDS))}
    for i, kind in enumerate(KINDS):
        site = "bad%d.example" % i
        for request in (add(site, "A1"), send_site(site)):
            eq(ask(daemon, request), FAIL, kind)
    eq(ask(daemon, REFRESH), OK)
    eq(ask(daemon, PURGE), OK)
    serve_honest(daemon, spool)
    for i, kind in enumerate(KINDS):
        now = os.lstat(spool.join("flush/bad%d_example" % i))
        eq((now.st_ino, now.st_mode, now.st_size, now.st_mtime_ns),
           (before[i].st_ino, before[i].st_mode, before[i].st_size, before[i].st_mtime_ns), kind)
    decoy.check()


@test
def what_is_no_message_is_not_expedited(case):
    """send_file sets a mode, so it goes by descriptors, and only to plain files of ours."""
    if os.getuid() != 0:
        raise Skip("only root can give files away")
    spool, daemon = case.make(activation="hold")
    decoy = Decoy(case, spool)
    for i, kind in enumerate(KINDS):
        os.makedirs(spool.join("deferred/A"), exist_ok=True)
        in_place_of_log(kind, spool.join("deferred/A/A%d" % i), decoy)
    spool.own(spool.join("deferred"))
    os.chown(spool.join("deferred/A/A%d" % KINDS.index("foreign owner")), 1, 1)
    for i, kind in enumerate(KINDS):
        eq(ask(daemon, send_file("A%d" % i)), OK, kind)
        eq(os.path.lexists(spool.join("incoming/A%d" % i)), False, kind)
    decoy.check()
    serve_honest(daemon, spool)


def swap(spool, decoy, end):
    """In a second process: put links to the decoy, and the real thing back, without a pause."""
    n = 0
    temporary = spool.join("deferred/A/TMP")
    targets = [spool.join(path) for path in ("flush/race_example", "deferred/A/A1", "deferred/A/A2")]
    while time.monotonic() < end:
        for path in targets:
            # No hard links to postfix's own files: see doc/reliability.md.
            for kind in ("file", "symbolic link", "file", "hard link to a foreign file", "fifo",
                         "file", "directory"):
                with contextlib.suppress(OSError):
                    if os.path.isdir(path) and not os.path.islink(path):
                        os.rmdir(path)
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                if kind == "file":  # empty: a disk would have to be waited for
                    os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o700))
                elif kind == "directory":
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                        os.mkdir(path, 0o700)
                    continue
                else:
                    in_place_of_log(kind, temporary, decoy)
                with contextlib.suppress(OSError):
                    os.rename(temporary, path)
                    n += 1
    return n


def start_swapping(spool, decoy):
    end = time.monotonic() + RACE_SECONDS
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if USER is not None:
                os.setgid(USER.pw_gid)
                os.setuid(USER.pw_uid)
            os.write(w, b"%d" % swap(spool, decoy, end))
            os._exit(0)
        except BaseException as e:
            os.write(w, repr(e).encode())
            os._exit(1)
    os.close(w)
    return pid, r, end


@test
def files_swapped_under_a_send_lead_nowhere(case):
    if os.getuid() != 0:  # the decoy has to be another user's
        raise Skip("only root can give files away")
    spool, daemon = case.make(activation="hold")
    decoy = Decoy(case, spool)
    os.mkdir(spool.join("deferred/A"), 0o700)
    spool.own(spool.join("deferred"))
    pid, r, end = start_swapping(spool, decoy)
    answers = {OK: 0, FAIL: 0}
    while time.monotonic() < end:
        for request in (send_site("race.example"), send_file("A1"), add("race.example", "A1"),
                        add("race.example", "A2"), send_file("A2")):
            answers[ask(daemon, request)] += 1
        serve_honest(daemon, spool, 2)
    _, status = os.waitpid(pid, 0)
    told = os.read(r, 4096).decode()
    os.close(r)
    eq(status, 0, told)
    print("# %s swaps, %d answered OK, %d FAIL" % (told, answers[OK], answers[FAIL]))
    if int(told) < 100 or answers[OK] == 0 or answers[FAIL] == 0:
        raise AssertionError("no race took place")
    with contextlib.suppress(OSError):  # what links the race left
        os.unlink(spool.join("flush/race_example"))
    decoy.check("by %d swaps" % int(told))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    main()
