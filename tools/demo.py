#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The report of tools/demo: record, flush, leave when idle, come back with the next request."""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../tests/lib")

from basics import TIMEOUT, eq
from client import ANNOUNCEMENT, OK, add, receive_all
from harness import Case
from spool import queue_id

SITES = {"customer.example": 2000, "a-b.test": 400, "a.b.test": 300, "elsewhere.example": 1300}
FOLDERS = "0123456789ABCDEF"


def title(text):
    print("\n== %s" % text)


def defer(spool):
    """Messages as qmgr(8) leaves them: mode 0700, due in an hour."""
    ids, n = {}, 0
    for folder in FOLDERS:
        os.makedirs(spool.join("deferred", folder), 0o700)
    due = time.time() + 3600
    for site, count in SITES.items():
        ids[site] = [queue_id(n + i) for i in range(count)]
        n += count
        for i in ids[site]:
            path = spool.join("deferred", i[0], i)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o700))
            os.utime(path, (due, due))
    spool.own(spool.join("deferred"))
    return ids


def show(spool, d):
    print("   queue     " + "   ".join("%s %5d" % (q, len(spool.files(q)))
                                       for q in ("deferred", "incoming")))
    for path in spool.files("flush"):
        print("   %-28s %6d records" % (path, spool.read(path).count(b"\n")))


def new_lines(d, seen):
    """The journal lines since the last call."""
    all_lines = d.journal()
    for line in all_lines[seen:]:
        print("   " + line)
    return len(all_lines)


def record(d, ids):
    start = time.monotonic()
    n = 0
    for site, site_ids in ids.items():
        for i in site_ids:
            for _ in range(2):  # each delivery attempt reports again
                eq(d.exchange(add(site, i)), OK)
                n += 1
    print("   %d adds answered in %.1f s, each ID twice, one client" % (n, time.monotonic() - start))


def flush(spool, d, site):
    print("   $ fflushctl flush %s" % site)
    print("   " + d.ctl("flush", site).stdout.strip())
    print("   qmgr was sent: " + " ".join(spool.triggers().decode()) +
          "   (F: forget dead destinations, I: look at incoming)")


def first_day(t):
    spool, d = t.make()
    title("A queue directory with %d deferred messages" % sum(SITES.values()))
    ids = defer(spool)
    show(spool, d)
    title("fflushd under systemd-socket-activate records them")
    record(d, ids)
    show(spool, d)
    title("The customer's server is back: flush its mail, and nobody else's")
    flush(spool, d, "customer.example")
    show(spool, d)
    eq(len(spool.files("incoming")), SITES["customer.example"])
    title("a-b.test is not a.b.test, though flush(8) takes them for one")
    flush(spool, d, "a-b.test")
    show(spool, d)
    eq(len(spool.files("incoming")), SITES["customer.example"] + SITES["a-b.test"])
    title("One message by its queue ID, and one that does not exist")
    for i in (ids["elsewhere.example"][0], "DEADBEEF"):
        print("   $ fflushctl deliver %s" % i)
        print("   " + d.ctl("deliver", i, check=False).stdout.strip())
    title("What the journal has of it (as text; in a journal with fields for each value)")
    new_lines(d, 0)


def idle(t):
    spool, d = t.make(activation="hold", max_idle="1s", env={"SYSTEMD_LOG_LEVEL": "debug"})
    title("Idle exit and re-activation (the socket is held as systemd would, max_idle = 1s)")
    eq(d.exchange(add("customer.example", "ABC123")), OK)
    print("   fflushd with pid %d has answered an add" % d.process.pid)
    eq(d.process.wait(TIMEOUT), 0)
    print("   it was idle for a second and left with status 0; the socket stays")
    with d.connect() as waiting:
        waiting.sendall(add("customer.example", "DEF456"))
        print("   the next request waits in the socket's backlog")
        d.start()
        eq(receive_all(waiting).removeprefix(ANNOUNCEMENT), OK)
    print("   fflushd with pid %d was started by it and has answered" % d.process.pid)
    show(spool, d)
    new_lines(d, 0)


def run(function):
    case = Case()
    try:
        function(case)
    finally:
        case.close()


if __name__ == "__main__":
    run(first_day)
    run(idle)
    print("\nAll of this happened in a temporary directory, which is gone now.")
