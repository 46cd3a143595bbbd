#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl beside a real Postfix: what becomes of the mail, and what is deferred there."""

import glob
import os
import re
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
from postfix import Mailhost, command, postfix_default, write_config


@test
def waiting_tells_what_became_of_the_mail(case):
    host = Mailhost(case)
    down = host.defer("x@down.test", n=3)
    up = host.defer("x@up.test", n=4)
    host.start_sink()
    r = host.ctl("flush", "--wait", "-t", "20", "*.test", check=False)
    lines = r.stdout.splitlines()
    eq(lines[:3], ["down.test: 3 found, 3 moved", "up.test: 4 found, 4 moved",
                   "7 moved: 4 delivered, 3 deferred again"], r.stderr)
    eq(lines[3:], ["deferred again:",
                   "     3  connect to 127.0.0.1[...]:1: Connection refused   e.g. " + lines[4].split()[-1]])
    eq(lines[4].split()[-1] in down, True)
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
    eq(rows[3], {"type": "outcome", "moved": 2, "delivered": 1, "returned": 0, "expired": 0, "deleted": 0,
                 "deferred": 1, "held": 0, "under_way": 0, "unknown": 0,
                 "recipients": {"delivered": 1, "returned": 0, "expired": 0, "deferred": 1}})
    eq(reasons, [{"outcome": "deferred", "count": 1, "example": down[0],
                  "reason": "connect to 127.0.0.1[...]:1: Connection refused"}])
    eq(r.returncode, os.EX_TEMPFAIL)
    r = host.ctl("deliver", "--wait", "-t", "20", "NOSUCH", check=False)
    eq((r.returncode, r.stdout), (os.EX_NOINPUT, "NOSUCH: no such message in the queue\n"))
    r = host.ctl("deliver", "--wait", host.defer("x@off.test")[0], check=False)
    eq(r.returncode, os.EX_TEMPFAIL)


def mixed(host):
    """Mail of which the sink refuses some, deferred before; by what is going to become of it."""
    gone = host.defer("gone1@up.test") + host.defer("gone2@up.test")
    full = host.defer("full1@up.test") + host.defer("full2@up.test")
    grey = host.defer("grey@up.test")
    several = host.defer("ok1@up.test", "ok2@up.test", "full3@up.test")
    both = host.defer("ok3@up.test", "gone3@up.test", "off@off.test")
    fine = host.defer("ok4@up.test", n=2)
    host.start_sink()
    return gone, full, grey, several, both, fine


@test
def what_is_returned_is_not_delivered(case):
    host = Mailhost(case)
    gone, full, grey, several, both, fine = mixed(host)
    r = host.ctl("flush", "--wait", "-t", "20", "Up.Test", check=False)
    lines = [re.sub("e.g. .*", "e.g.", line) for line in r.stdout.splitlines()]
    eq(lines, ["up.test: 9 found, 9 moved",
               "9 moved: 2 delivered, 3 returned to sender, 4 deferred again",
               "recipients: 5 delivered, 3 returned to sender, 5 deferred again",
               "returned to sender:",
               "     3  550 5.1.1 <...>: Recipient address rejected   e.g.",
               "deferred again:",
               "     3  452 4.2.2 <...>: Mailbox full (quota exceeded)   e.g.",
               "     1  450 4.7.1 <...>: Greylisted for N seconds   e.g."])
    eq((r.returncode, r.stderr), (os.EX_NOUSER, ""))
    eq(r.stdout.splitlines()[-1].split()[-1], grey[0])


@test
def reasons_are_those_of_the_sites_asked_for(case):
    host = Mailhost(case)
    host.write_main_cf(host.conf, transport_maps="inline:{up.test=smtp:[127.0.0.1]:%d, "
                       "off.test=retry:switched-off, sub.off.test=retry:elsewhere}" % host.port)
    subprocess.run([command("postfix"), "-c", host.conf, "reload"], check=True, capture_output=True)
    there = host.defer("x@up.test", "y@off.test") + host.defer("x@up.test", "y@sub.off.test")
    host.start_sink()
    r = host.ctl("flush", "--wait", "-t", "20", "up.test", check=False)
    eq(r.stdout.splitlines()[1:3], ["2 moved: 2 deferred again",
                                    "recipients: 2 delivered, 2 deferred again"])
    eq(r.stdout.splitlines()[4], "     2  (for other destinations only)   e.g. " +
       r.stdout.split()[-1])
    r = host.ctl("flush", "--wait", "-t", "20", "-S", "off.test", check=False)
    eq(sum(int(line.split()[0]) for line in r.stdout.splitlines() if line[:6].strip().isdigit()
           and "e.g." in line), 2, r.stdout)
    eq("other destinations" in r.stdout, False, r.stdout)
    eq(sorted(host.deferred()), sorted(there))


@test
def without_a_log_it_is_not_known(case):
    host = Mailhost(case)
    host.defer("gone@up.test")
    host.start_sink()
    text = open(os.path.join(host.conf, "main.cf")).read()
    other = os.path.join(host.base, "other")
    os.mkdir(other, 0o755)
    write_config(os.path.join(other, "main.cf"),
                 re.sub("maillog_file =.*", "maillog_file = /nonexistent", text))
    config = os.path.join(host.base, "other.conf")
    with open(host.daemon.config) as f:
        write_config(config, f.read().replace(host.conf, other))
    r = subprocess.run([os.path.join(host.daemon.bin, "fflushctl"), "-c", config, "flush", "--wait",
                        "up.test"], capture_output=True, text=True)
    # A journal may be read, and has nothing of this Postfix.
    why = ("" if glob.glob("/run/log/journal/*/*") + glob.glob("/var/log/journal/*/*") else
           "fflushctl: Postfix's log cannot be read: there is neither a journal nor a file of it\n")
    eq((r.returncode, r.stdout, r.stderr),
       (os.EX_TEMPFAIL, "up.test: 1 found, 1 moved\n"
        "1 moved: 1 not known whether delivered or returned\n", why))


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
        under_way = "1 moved: 1 still on their way\n"
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
       "1 moved: 1 still on their way\n")
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
       "40 moved: 10 deferred again, 10 put on hold, 20 not known whether delivered or returned\n"
       "deferred again:\n    10  (no reason is known)   e.g. 1A\n")


class Log:
    """A queue and a log in which the test does what Postfix would do."""

    def __init__(self, case):
        postfix_default("mail_owner")
        conf = os.path.join(case.base, "conf")
        os.mkdir(conf, 0o755)
        self.path = os.path.join(case.base, "fake.log")
        write_config(os.path.join(conf, "main.cf"), "compatibility_level = 3.6\nmaillog_file = %s\n"
                     "maillog_file_prefixes = %s\n" % (self.path, case.base))
        self.spool, self.daemon = case.make(postfix_config_directory=conf)
        self.open()

    def open(self):
        self.file = open(self.path, "w")
        os.chmod(self.path, 0o644)

    def rotate(self):
        os.rename(self.path, self.path + ".1")
        self.file.close()
        self.open()

    def record(self, ids):
        for name in ids:
            self.spool.put("deferred/%s/%s" % (name[0], name))
        self.spool.log("example_com", "".join(i + "\n" for i in ids).encode())

    def say(self, program, text):
        self.file.write("Nov 28 06:02:58 mx postfix/%s[1]: %s\n" % (program, text))
        self.file.flush()

    def recipient(self, name, status, address="a@example.com", why="250 ok"):
        self.say("smtp", "%s: to=<%s>, relay=none, delay=1, delays=0/0/1/0, dsn=2.0.0, status=%s (%s)"
                 % (name, address, status, why))

    def flush(self, n, *args):
        p = subprocess.Popen([os.path.join(self.daemon.bin, "fflushctl"), "-c", self.daemon.config,
                              "flush", "--wait", *args, "example.com"], stdout=subprocess.PIPE,
                             text=True, **as_user())
        eq(p.stdout.readline(), "example.com: %d found, %d moved\n" % (n, n))
        return p

    def leave(self, name, removed=True):
        os.unlink(self.spool.join("incoming", name))
        if removed:
            self.say("qmgr", name + ": removed")


@test
def ten_thousand_messages_and_a_rotation(case):
    log = Log(case)
    ids = ["%X" % (0xA0000 + i) if i % 2 else "4f%07dzABC" % i for i in range(10000)]
    log.record(ids)
    p = log.flush(len(ids))
    for i, name in enumerate(ids):
        log.recipient(name, "sent" if i % 10 else "bounced", why="550 no user %d" % i)
        log.leave(name)
        if i == 6000:
            log.rotate()
    eq(p.communicate(timeout=TIMEOUT)[0].splitlines(),
       ["10000 moved: 9000 delivered, 1000 returned to sender", "returned to sender:",
        "  1000  550 no user N   e.g. " + ids[0]])
    eq(p.returncode, os.EX_NOUSER)


@test
def each_way_out_of_the_queue_is_told_by_the_log(case):
    log = Log(case)
    log.say("qmgr", "A1: removed")  # of an earlier message with that ID
    log.recipient("A1", "bounced")
    ids = ["A%d" % i for i in range(1, 8)]
    log.record(ids)
    p = log.flush(len(ids))
    log.recipient("A1", "sent")
    log.leave("A1")
    log.recipient("A1", "bounced")  # of a later one
    log.recipient("A2", "deferred", why="450 later")
    log.say("qmgr", "A2: from=<s@x.test>, status=expired, returned to sender")
    log.leave("A2")
    log.leave("A3", removed=False)
    log.say("postsuper", "A3: removed")
    log.recipient("A4", "sent")
    log.recipient("A4", "bounced", "b@example.com", "550 no")
    log.recipient("A4", "sent", "c@other.test")
    log.leave("A4")
    log.leave("A5", removed=False)
    os.rename(log.spool.join("incoming/A6"), log.spool.join("hold/A6"))
    log.leave("A7")  # removed, and nobody has told of a recipient
    eq(p.communicate(timeout=TIMEOUT)[0],
       "7 moved: 1 delivered, 1 returned to sender, 1 expired and returned to sender, 1 deleted, "
       "1 put on hold, 2 not known whether delivered or returned\n"
       "recipients: 3 delivered, 1 returned to sender, 1 expired and returned to sender\n"
       "returned to sender:\n     1  450 later   e.g. A2\n     1  550 no   e.g. A4\n")
    eq(p.returncode, os.EX_NOUSER)


@test
def a_log_that_lags_behind_is_waited_for(case):
    log = Log(case)
    log.record(["A1", "A2"])
    p = log.flush(2)
    for name in ("A1", "A2"):
        os.unlink(log.spool.join("incoming", name))
    time.sleep(0.5)
    for name in ("A1", "A2"):
        log.recipient(name, "sent")
        log.say("qmgr", name + ": removed")
    eq((p.communicate(timeout=TIMEOUT)[0], p.returncode), ("2 moved: 2 delivered\n", os.EX_OK))


@test
def what_an_operator_took_out_does_not_count_as_failure(case):
    log = Log(case)
    log.record(["A1", "A2"])
    p = log.flush(2)
    os.rename(log.spool.join("incoming/A1"), log.spool.join("hold/A1"))
    log.leave("A2", removed=False)
    log.say("postsuper", "A2: removed")
    eq((p.communicate(timeout=TIMEOUT)[0], p.returncode), ("2 moved: 1 deleted, 1 put on hold\n", os.EX_OK))


@test
def what_is_on_its_way_can_be_watched(case):
    host = Mailhost(case)
    ids = host.defer("ok@up.test", "grey@Up.test") + host.defer("ok@up.test")
    other = host.defer("x@down.test")
    host.start_sink()
    host.sink.send_signal(signal.SIGSTOP)
    host.ctl("flush", "up.test")
    wait_for(lambda: len(host.spool.files("active")) == 2, "not active")
    r = host.ctl("watch", "-t", "1", ids[1], other[0], "NOSUCH", check=False)
    eq((r.returncode, r.stdout), (os.EX_TEMPFAIL, "1 under way\n1 followed: 1 still on their way\n"))
    eq(r.stderr, "fflushctl: %s: not on its way: it is in the queue deferred\n"
                 "fflushctl: NOSUCH: no such message in the queue\n" % other[0])
    p = subprocess.Popen([os.path.join(host.daemon.bin, "fflushctl"), "-c", host.daemon.config, "watch",
                          "UP.test"], stdout=subprocess.PIPE, text=True)
    eq(p.stdout.readline(), "2 under way\n")
    host.sink.send_signal(signal.SIGCONT)
    lines = p.communicate(timeout=TIMEOUT)[0].splitlines()
    eq(lines[:2], ["2 followed: 1 delivered, 1 deferred again",
                   "recipients: 2 delivered, 1 deferred again"])
    eq("Greylisted for N seconds   e.g. " + ids[0] in lines[3], True, lines)
    eq(p.returncode, os.EX_TEMPFAIL)
    r = host.ctl("watch", "up.test", "nosuch.test")
    eq((r.returncode, r.stdout), (os.EX_OK, "0 under way\n"))


@test
def nobody_waits_for_a_postfix_that_is_stopped(case):
    spool, daemon = case.make()
    backlog(spool)
    os.close(spool.qmgr)
    spool.qmgr = None
    warning = "fflushctl: Postfix is not running: nothing is delivered before it is started\n"
    r = daemon.ctl("flush", "mail.example.com")
    eq((r.stdout, r.stderr), ("mail.example.com: 1 found, 1 moved\n", warning))
    r = daemon.ctl("flush", "a-b.test", "--wait", check=False)
    eq((r.returncode, r.stdout, r.stderr),
       (os.EX_TEMPFAIL, "a-b.test: 2 found, 1 moved, 1 gone\n1 moved: 1 still on their way\n", warning))
    r = daemon.ctl("deliver", "A1")
    eq((r.stdout, r.stderr), ("A1: moved\n", warning))
    r = daemon.ctl("flush", "--wait", "-l1", "-e1000s", "example.com", check=False)
    eq((r.returncode, r.stderr), (os.EX_TEMPFAIL, warning))
    r = daemon.ctl("flush", "nothing.test")
    eq(r.stderr, "")


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
