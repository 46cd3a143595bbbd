#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl flush --limit --every, beside a real Postfix: each message once, and then it ends."""

import collections
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TIMEOUT, eq, wait_for
from ctl import objects
from daemon import has_signal
from harness import main, test
from postfix import Mailhost


def attempts(host, since):
    """How often each message was tried, by Postfix's log."""
    with open(host.maillog) as f:
        f.seek(since)
        return collections.Counter(re.findall(r"/(?:smtp|error)\[\d+\]: (\w+): to=", f.read()))


def tried_once(host, ids, *args, status=os.EX_TEMPFAIL):
    """A flush in portions tries each of them once; its output."""
    since = os.path.getsize(host.maillog)
    r = host.ctl("flush", "--every", "1s", *args, check=False)
    eq((r.returncode, r.stderr), (status, ""), r.stdout)
    wait_for(lambda: len(attempts(host, since)) == len(ids), "not tried")
    eq(attempts(host, since), collections.Counter(ids))
    return r.stdout.splitlines()


@test
def a_site_that_refuses_is_asked_once_for_each_message(case):
    host = Mailhost(case)
    ids = host.defer("x@down.test", n=5)
    lines = tried_once(host, ids, "--wait", "--limit", "2", "down.test")
    # How many are left depends on which of them are deferred again already.
    eq([re.sub("e.g. .*|[0-9]+ left$", "", line) for line in lines],
       ["down.test: 2 found, 2 moved; ", "down.test: 2 found, 2 moved; ", "down.test: 1 found, 1 moved; ",
        "deferred again:", "     5  connect to 127.0.0.1[...]:1: Connection refused   ",
        "5 of 5 tried: 5 deferred again"])
    eq(sorted(host.spool.read("flush/down_test").decode().split()), ids)
    lines = tried_once(host, ids, "--limit", "3", "down.test", status=os.EX_OK)
    eq(lines[-1], "5 of 5 tried")


@test
def records_that_are_there_twice_do_not_make_it_try_twice(case):
    host = Mailhost(case)
    a, b, c, d = host.defer("x@down.test", n=4)
    for order in (a, a, a, b, a, c, d, b, c), (a, b, a, b, c, d, c, d), (a, a, a, a, d, c, b):
        host.daemon.stop()
        host.spool.log("down_test", "".join(i + "\n" for i in order).encode())
        host.daemon.start_sd()
        for limit in "1", "3", "100":
            lines = tried_once(host, (a, b, c, d), "--wait", "--limit", limit, "down.test")
            eq(lines[-1], "4 of 4 tried: 4 deferred again")


@test
def mail_for_two_sites_is_tried_once(case):
    host = Mailhost(case)
    ids = host.defer("x@down.test", "y@off.test", n=3) + host.defer("y@off.test")
    since = os.path.getsize(host.maillog)
    r = host.ctl("flush", "--every", "1s", "--wait", "--limit", "1", "*.test", check=False)
    eq(r.stdout.splitlines()[-1], "4 of 4 tried: 4 deferred again")
    eq(attempts(host, since), collections.Counter(ids + ids[:3]))  # each for all recipients


@test
def it_stops_when_too_much_is_deferred(case):
    host = Mailhost(case)
    host.defer("x@down.test", n=6)
    r = host.ctl("flush", "-w", "--every", "1s", "--limit", "2", "--stop-if-deferred", "50", "down.test",
                 check=False)
    eq(r.stdout.splitlines()[-1],
       "2 of 6 tried: 2 deferred again; stopped, as 100% were deferred again; "
       "4 left, run it again to go on")
    eq((r.returncode, r.stderr), (os.EX_TEMPFAIL, ""))
    r = host.ctl("-j", "flush", "-w", "--every", "1s", "--limit", "2", "--stop-if-deferred", "50",
                 "down.test", check=False)
    eq(objects(r)[-1], {"type": "run", "recorded": 6, "tried": 2, "left": 4, "stopped": "deferred"})


@test
def it_goes_on_while_mail_is_taken(case):
    host = Mailhost(case)
    ids = host.defer("ok@up.test", n=5) + host.defer("grey@up.test")
    host.start_sink()
    lines = tried_once(host, ids, "-w", "--limit", "2", "--stop-if-deferred", "50", "up.test")
    eq(lines[-1], "6 of 6 tried: 5 delivered, 1 deferred again")
    ids = host.deferred()
    host.sink.kill()
    host.sink.wait()
    eq(tried_once(host, ids, "-w", "--limit", "2", "up.test")[-1], "1 of 1 tried: 1 deferred again")


@test
def an_interrupt_is_followed_by_the_last_line(case):
    host = Mailhost(case)
    host.defer("ok@up.test", n=3)
    host.start_sink()
    p = subprocess.Popen([os.path.join(host.daemon.bin, "fflushctl"), "-c", host.daemon.config, "flush",
                          "-w", "-l1", "-e", "1000s", "up.test"], stdout=subprocess.PIPE, text=True)
    eq(p.stdout.readline(), "up.test: 1 found, 1 moved; 2 left\n")
    wait_for(lambda: len(host.deferred()) == 2 and not host.under_way(), "not delivered")
    eq(has_signal(p, "SigCgt", signal.SIGINT), True)
    p.send_signal(signal.SIGINT)
    eq(p.communicate(timeout=TIMEOUT)[0],
       "1 of 3 tried: 1 delivered; 2 left, run it again to go on\n")
    eq(p.returncode, os.EX_TEMPFAIL)


if __name__ == "__main__":
    main()
