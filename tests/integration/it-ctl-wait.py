#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl beside a real Postfix: what becomes of the mail, and what is deferred there."""

import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TIMEOUT, as_user, eq, wait_for
from ctl import backlog, objects
from daemon import has_signal
from harness import main, test
from postfix import Mailhost


@test
def waiting_tells_what_became_of_the_mail(case):
    host = Mailhost(case)
    down = host.defer("x@down.test", n=3)
    up = host.defer("x@up.test", n=4)
    host.start_sink()
    r = host.ctl("flush", "--wait", "-t", "20", "*.test", check=False)
    lines = r.stdout.splitlines()
    eq(lines[:3], ["down.test: 3 found, 3 moved", "up.test: 4 found, 4 moved",
                   "7 moved: 4 left the queue, 3 deferred again"], r.stderr)
    eq(len(lines), 4, lines)
    eq(lines[3].split()[0], "3")
    eq("Connection refused" in lines[3], True, lines)
    eq((r.returncode, r.stderr), (os.EX_TEMPFAIL, ""))
    eq(host.deferred(), down)
    eq(len(open(host.received).read().splitlines()), len(up))
    # recorded again, as they were deferred again
    rows = objects(host.ctl("show", "--json", "down.test"))
    eq(sorted(row["queue_id"] for row in rows), down)


@test
def waiting_for_single_messages(case):
    host = Mailhost(case)
    down = host.defer("x@down.test", n=2)
    up = host.defer("x@up.test")
    host.start_sink()
    r = host.ctl("deliver", "--wait", "--json", "-t", "20", up[0], down[0], "NOSUCH", check=False)
    rows = objects(r)
    eq([(row["queue_id"], row["moved"]) for row in rows[:3]],
       [(up[0], 1), (down[0], 1), ("NOSUCH", 0)])
    reasons = rows[3].pop("reasons")
    eq(rows[3], {"type": "outcome", "moved": 2, "left_queue": 1, "deferred": 1, "held": 0, "under_way": 0})
    eq([(x["count"], "Connection refused" in x["reason"]) for x in reasons], [(1, True)])
    eq(r.returncode, os.EX_TEMPFAIL)
    r = host.ctl("deliver", "--wait", "-t", "20", "NOSUCH", check=False)
    eq(r.stdout, "NOSUCH: no such message in the queue\n"
                 "0 moved: 0 left the queue, 0 deferred again\n")


@test
def waiting_ends_in_time_or_when_interrupted(case):
    host = Mailhost(case)
    host.defer("x@up.test")
    with socket.socket() as s:  # an SMTP server that accepts and says nothing
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", host.port))
        s.listen(5)
        start = time.monotonic()
        r = host.ctl("flush", "--wait", "-t", "5", "up.test", check=False)
        under_way = "1 moved: 0 left the queue, 0 deferred again, 1 still on their way\n"
        eq((r.returncode, r.stdout),
           (os.EX_TEMPFAIL, "up.test: 1 found, 1 moved\n" + under_way))
        eq(time.monotonic() - start >= 5, True)
        down = host.defer("x@down.test", ignore=host.under_way())
        eq(len(down), 1)


@test
def an_interrupt_ends_the_watching_not_the_delivery(case):
    spool, daemon = case.make()
    backlog(spool)
    p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "flush",
                          "--wait", "mail.example.com"], stdout=subprocess.PIPE, text=True,
                         **as_user())
    eq(p.stdout.readline(), "mail.example.com: 1 found, 1 moved\n")
    # It says nothing when it begins to wait.
    wait_for(lambda: has_signal(p, "SigCgt", signal.SIGINT))
    p.send_signal(signal.SIGINT)
    eq(p.communicate(timeout=TIMEOUT)[0],
       "1 moved: 0 left the queue, 0 deferred again, 1 still on their way\n")
    eq(p.returncode, os.EX_TEMPFAIL)
    eq(spool.files("incoming"), ["incoming/A3", "incoming/B1"])


@test
def waiting_sees_all_ways_out_of_the_queue(case):
    spool, daemon = case.make(hash_queue_names="deferred, active", hash_queue_depth="2")
    n = 40
    for i in range(n):
        spool.put("deferred/%X/A/%XA" % (i % 16, i) if i >= 16 else "deferred/%X/A/%XA" % (i, i))
    ids = ["%XA" % i for i in range(n)]
    for name in ids:  # where they belong
        path = "deferred/%s/%s/%s" % (name[0], name[1], name)
        if not os.path.exists(spool.join(path)):
            spool.put(path)
    spool.log("example_com", "".join(i + "\n" for i in ids).encode())
    p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "flush",
                          "--wait", "example.com"], stdout=subprocess.PIPE, text=True,
                         **as_user())
    eq(p.stdout.readline(), "example.com: %d found, %d moved\n" % (n, n))

    def travel(name, queue):
        """As qmgr does it, which makes missing directories."""
        path = "active/%s/%s" % (name[0], name[1])
        os.makedirs(spool.join(path), exist_ok=True)
        os.rename(spool.join("incoming", name), spool.join(path, name))
        if queue == "deferred":
            os.makedirs(spool.join("deferred/X/Y"), exist_ok=True)
            os.rename(spool.join(path, name), spool.join("deferred", name[0], name[1], name))
        elif queue == "hold":
            os.rename(spool.join(path, name), spool.join("hold", name))
        elif queue == "elsewhere":
            os.rename(spool.join(path, name), spool.join("public", name))
        else:
            os.unlink(spool.join(path, name))

    for i, name in enumerate(ids):
        travel(name, ("left", "deferred", "hold", "elsewhere")[i % 4])
    eq(p.communicate(timeout=TIMEOUT)[0],
       "40 moved: 20 left the queue, 10 deferred again, 10 put on hold\n")


@test
def import_asks_postfix_what_is_deferred(case):
    host = Mailhost(case, fast_flush_domains="")
    down = host.defer("x@down.test", "y@Down.TEST", "z@off.test", n=2)
    eq(host.spool.files("flush"), [])
    eq(objects(host.ctl("import", "-n", "--json")),
       [{"type": "import", "messages": 2, "added": 4, "known": 2, "not_eligible": 0, "no_site": 0,
         "failed": 0, "malformed": 0, "removed": 0, "dry_run": True}])
    eq(host.spool.files("flush"), [])
    eq(host.ctl("import").stdout,
       "2 deferred messages: 4 records added, 2 already there\n")
    eq(host.ctl("import").stdout,
       "2 deferred messages: 0 records added, 6 already there\n")
    eq(sorted(host.spool.read("flush/down_test").decode().split()), down)


if __name__ == "__main__":
    main()
