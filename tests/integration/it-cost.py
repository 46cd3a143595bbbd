#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a request costs, in system calls and instructions: neither a busy machine nor a slow disk changes
their number.

ALLOWED and INSTRUCTIONS are the tables. A change that raises a number fails here, and has to say why it
is worth it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import BUILD, Skip, eq, wait_for
from client import ANNOUNCEMENT, DENY, OK, add, attrs, send_file, send_site
from harness import main, test
from spool import queue_id

# Calls a request, the connection's own included: accept4, recvfrom, sendto, close of it, and
# getsockopt where the journal names the caller.
ALLOWED = {
    "add, the record is there": 11,
    "add, a new record": 13,
    "add, a new site": 17,
    "add, 8 clients, one site": 6,  # they share one look at the log, and one write
    "add, 64 clients, one site": 5.2,
    "add, 64 clients, 64 sites": 11,
    "send_file, moved": 20,
    "send_file, no such message": 31,  # looked for in each layout, twice: doc/reliability.md
    "send_site, nothing recorded": 12,
    "send_site, one message moved": 37,  # the log is locked twice, the message not meanwhile
    "refused": 9,
    "refresh, one more fresh log": 1,
    "refresh, one more stale log": 20,  # the last one is its entry in the journal
}

# Instructions a request, of the whole process, as built with -O2 by gcc 12; another compiler may need
# MARGIN times as many.
INSTRUCTIONS = {
    "add, the record is there": 5900,
    "add, a new record": 7900,
    "add, 64 clients, one site": 6100,
    "add, 64 clients, 64 sites": 7100,
    "send_file, moved": 11800,
    "send_site, one message moved": 25700,
    "refresh, one more fresh log": 4000,
    "start": 1920000,
}
MARGIN = 1.25

# How often these are called depends on who is faster, the client or the service.
WAITING = {"epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "sched_yield", "poll", "ppoll",
           "restart_syscall", "timerfd_settime", "clock_gettime", "gettimeofday", "brk", "mmap", "munmap",
           "madvise", "futex", "rt_sigreturn", "gettid"}
BATCH = 20  # requests that are counted together
STRAY = 0.5  # calls a request: a buffer that grows, a directory that is read on
BATCHES = 5  # the cheapest counts: now and then a buffer is enlarged, or a status told


class Counter:
    """The calls of a process, from now on."""

    def __init__(self, pid, path):
        self.path = path
        self.strace = subprocess.Popen(["strace", "-f", "-qq", "-p", str(pid), "-o", path],
                                       stderr=subprocess.PIPE)
        wait_for(lambda: self.is_attached(pid), "strace does not attach")

    @staticmethod
    def is_attached(pid):
        with open("/proc/%d/status" % pid) as f:
            return "TracerPid:\t0\n" not in f.read()

    def end(self):
        self.strace.send_signal(signal.SIGINT)
        self.strace.wait()
        with open(self.path, errors="replace") as f:
            calls = re.findall(r"^\d+ +(\w+)\(", f.read(), re.M)
        return [c for c in calls if c not in WAITING]


def cost(t, daemon, requests, reply=OK):
    """Calls a request: of the cheapest of BATCHES. @requests: a function, from a number to bytes."""
    best = None
    for batch in range(BATCHES):
        counter = Counter(daemon.process.pid, os.path.join(t.base, "calls"))
        for i in range(BATCH):
            eq(daemon.exchange(requests(batch * BATCH + i)), reply)
        calls = counter.end()
        if best is None or len(calls) < len(best):
            best = calls
    return best


def together(daemon, requests):
    """Of so many clients, who have all asked before the first is served."""
    os.kill(daemon.process.pid, signal.SIGSTOP)
    clients = [daemon.connect() for _ in requests]
    for client, request in zip(clients, requests):
        client.sendall(request)
    os.kill(daemon.process.pid, signal.SIGCONT)
    for client in clients:
        reply = b""
        while chunk := client.recv(4096):
            reply += chunk
        eq(reply.removeprefix(ANNOUNCEMENT), OK)
        client.close()


def judge(name, calls, n=BATCH):
    got = len(calls) / n
    if got > ALLOWED[name] + STRAY:
        kinds = sorted(set(calls), key=lambda c: -calls.count(c))
        raise AssertionError("%s: %.2f calls instead of %s: %s" % (
            name, got, ALLOWED[name], ", ".join("%s %.2f" % (c, calls.count(c) / n) for c in kinds)))
    print("# %s: %.2f of %s" % (name, got, ALLOWED[name]))


def make(t):
    if not shutil.which("strace"):
        raise Skip("needs strace")
    spool, d = t.make()
    eq(d.exchange(add("known.test", "A1")), OK)
    return spool, d


@test
def adds(t):
    spool, d = make(t)
    judge("add, the record is there", cost(t, d, lambda i: add("known.test", "A1")))
    judge("add, a new record", cost(t, d, lambda i: add("known.test", queue_id(i))))
    judge("add, a new site", cost(t, d, lambda i: add("new%d.test" % i, "A1")))


@test
def adds_of_many_clients(t):
    spool, d = make(t)
    for n, sites in ((8, 1), (64, 1), (64, 64)):
        name = "add, %d clients, %s" % (n, "one site" if sites == 1 else "%d sites" % sites)
        best = None
        for batch in range(BATCHES):
            requests = [add("many%d.test" % (i % sites), queue_id(batch * 1000 + n * 100 + i))
                        for i in range(n)]
            if batch == 0:
                together(d, requests)  # the logs are there
            counter = Counter(d.process.pid, os.path.join(t.base, "calls"))
            together(d, requests)
            calls = counter.end()
            best = calls if best is None or len(calls) < len(best) else best
        judge(name, best, n)


@test
def deliveries(t):
    spool, d = make(t)
    for i in range(BATCH * BATCHES):
        spool.put("deferred/%s/%s" % (queue_id(i)[0], queue_id(i)))
    judge("send_file, moved", cost(t, d, lambda i: send_file(queue_id(i))))
    judge("send_file, no such message", cost(t, d, lambda i: send_file("B%d" % i)))


@test
def flushes(t):
    spool, d = make(t)
    for i in range(BATCH * BATCHES):
        spool.put("deferred/%s/%s" % (queue_id(i)[0], queue_id(i)))
        spool.log("site%d_test" % i, queue_id(i).encode() + b"\n")
    judge("send_site, nothing recorded", cost(t, d, lambda i: send_site("none%d.test" % i)))
    judge("send_site, one message moved", cost(t, d, lambda i: send_site("site%d.test" % i)))


@test
def refusals(t):
    if not shutil.which("strace"):
        raise Skip("needs strace")
    _, d = t.make(fast_flush_domains="known.test")
    eq(d.exchange(add("known.test", "A1")), OK)
    judge("refused", cost(t, d, lambda i: add("other%d.test" % i, "A1"), DENY))


FEW, MANY = 40, 140


def refresh(t, d, n, fill):
    """Calls of a refresh that finds n logs; what it does for one more of them is the difference."""
    best = None
    for _ in range(BATCHES):
        for i in range(n):
            fill(i)
        counter = Counter(d.process.pid, os.path.join(t.base, "calls"))
        eq(d.exchange(attrs("rfrsh", ("detail", "1"))).startswith(OK[:-1]), True)
        calls = counter.end()
        best = calls if best is None or len(calls) < len(best) else best
    return best


@test
def refreshes(t):
    spool, d = make(t)
    os.unlink(spool.join("flush/known_test"))

    def fresh(i):
        spool.log("fresh%d_test" % i, b"A1\n", mtime=-10, atime=-10)

    def stale(i):
        spool.put("deferred/%s/%s" % (queue_id(i)[0], queue_id(i)))
        spool.log("stale%d_test" % i, queue_id(i).encode() + b"\n", mtime=-86400, atime=-86400)

    for name, fill in (("refresh, one more fresh log", fresh), ("refresh, one more stale log", stale)):
        few, many = refresh(t, d, FEW, fill), refresh(t, d, MANY, fill)
        got = (len(many) - len(few)) / (MANY - FEW)
        print("# %s: %.2f of %s" % (name, got, ALLOWED[name]))
        eq(got <= ALLOWED[name] + STRAY, True, "%s: %.2f calls" % (name, got))
        for i in range(MANY):
            if name.endswith("fresh log"):
                os.unlink(spool.join("flush/fresh%d_test" % i))


# ---------------------------------------------------------------------------------- instructions


def is_optimised():
    with open(os.path.join(BUILD, "config.status")) as f:
        flags = re.search(r"^S\[\"CFLAGS\"\]=\"(.*)\"", f.read(), re.M).group(1)
    return "-O2" in flags and "-fsanitize" not in flags and "--coverage" not in flags


def instructions(t, work, *args):
    """All of a daemon's life, from its start to its end, in which work(spool, daemon, *args) is done."""
    out = os.path.join(t.base, "callgrind.out")
    os.environ["FFLUSHD_WRAPPER"] = "valgrind -q --tool=callgrind --callgrind-out-file=%s" % out
    try:
        spool, d = t.make()
    finally:
        del os.environ["FFLUSHD_WRAPPER"]
    os.chmod(t.base, 0o777)
    eq(d.exchange(add("known.test", "A1")), OK)
    work(spool, d, *args)
    eq(d.stop(), 0)
    with open(out) as f:
        count = int(re.search(r"^(?:summary|totals): (\d+)", f.read(), re.M).group(1))
    os.unlink(out)
    return count


def add_known(spool, d, n):
    for _ in range(n):
        eq(d.exchange(add("known.test", "A1")), OK)


def add_new(spool, d, n):
    for i in range(n):
        eq(d.exchange(add("known.test", queue_id(i))), OK)


def add_together(spool, d, n, sites):
    for i in range(0, n, 64):
        together(d, [add("s%d.test" % (k % sites), queue_id(i + k)) for k in range(64)])


def move(spool, d, n):
    for i in range(n):
        spool.put("deferred/%s/%s" % (queue_id(i)[0], queue_id(i)))
        eq(d.exchange(send_file(queue_id(i))), OK)


def flush(spool, d, n):
    for i in range(n):
        spool.put("deferred/%s/%s" % (queue_id(i)[0], queue_id(i)))
        spool.log("site%d_test" % i, queue_id(i).encode() + b"\n")
        eq(d.exchange(send_site("site%d.test" % i)), OK)


def refresh_fresh(spool, d, n):
    for i in range(n):
        spool.log("fresh%d_test" % i, b"A1\n", mtime=-10, atime=-10)
    eq(d.exchange(attrs("rfrsh", ("detail", "1"))).startswith(OK[:-1]), True)


def each(t, name, work, few, many, args):
    """Of one request. A client that is late, on a busy machine, makes the service look for it once more:
    that only adds, so the least of a few counts is taken."""
    for _ in range(3):
        count = (instructions(t, work, many, *args) - instructions(t, work, few, *args)) / (many - few)
        if count <= INSTRUCTIONS[name] * MARGIN:
            break
    return count


@test
def instructions_of_a_request(t):
    if not shutil.which("valgrind") or not is_optimised():
        raise Skip("needs valgrind, and a build with -O2 alone")
    counts = {"start": instructions(t, lambda spool, d: None)}
    for name, work, few, many, *args in (
            ("add, the record is there", add_known, 50, 150), ("add, a new record", add_new, 50, 150),
            ("add, 64 clients, one site", add_together, 128, 384, 1),
            ("add, 64 clients, 64 sites", add_together, 128, 384, 64),
            ("send_file, moved", move, 50, 150), ("send_site, one message moved", flush, 50, 150),
            ("refresh, one more fresh log", refresh_fresh, 50, 150)):
        counts[name] = each(t, name, work, few, many, args)
    for name, count in counts.items():
        print("# %s: %d of %d" % (name, count, INSTRUCTIONS[name]))
    eq({name: int(count) for name, count in counts.items() if count > INSTRUCTIONS[name] * MARGIN}, {})


if __name__ == "__main__":
    main()
