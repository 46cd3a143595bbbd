#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a request costs, in system calls: neither a busy machine nor a slow disk changes their number.

ALLOWED is the table. A change that raises a number fails here, and has to say why it is worth it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, eq, wait_for
from client import DENY, OK, add, attrs, send_file, send_site
from harness import main, test
from spool import queue_id

# Calls a request, the connection's own included: accept4, recvfrom, sendto, close of it, and
# getsockopt where the journal names the caller.
ALLOWED = {
    "add, the record is there": 11,
    "add, a new record": 13,
    "add, a new site": 17,
    "send_file, moved": 20,
    "send_file, no such message": 31,  # looked for in each layout, twice: doc/reliability.md
    "send_site, nothing recorded": 12,
    "send_site, one message moved": 37,  # the log is locked twice, the message not meanwhile
    "refused": 9,
    "refresh, one more fresh log": 1,
    "refresh, one more stale log": 19,
}

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


if __name__ == "__main__":
    main()
