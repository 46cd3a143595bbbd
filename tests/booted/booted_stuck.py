# SPDX-License-Identifier: MIT
"""What is stuck, for whom, since when, why: list and show beside remote ends that refuse, defer and
keep silent; and a round of switching back and over."""

import json
import time

from basics import eq
from booted import clean, g
from harness import test

# REMOTE PORT MODE: an SMTP server whose mailboxes are full, or that never says a word.
REMOTE = r"""#!/usr/bin/python3
import socketserver, sys, threading
class Remote(socketserver.StreamRequestHandler):
    def handle(self):
        if sys.argv[2] == "silent":
            threading.Event().wait()
        self.wfile.write(b"220 remote ESMTP\r\n")
        for line in self.rfile:
            verb = line.upper()
            self.wfile.write(b"452 4.2.2 <%s>: Mailbox full (quota exceeded)\r\n" % line[9:-3]
                             if verb.startswith(b"RCPT") else b"250 fine\r\n")
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Server(("127.0.0.1", int(sys.argv[1])), Remote).serve_forever()
"""


class Remotes:
    """Mail for down.test and other.test."""

    def __enter__(self):
        clean()
        g.write("/opt/remote", REMOTE)
        g.run("chmod 755 /opt/remote; postsuper -d ALL 2>/dev/null; fflushctl enable-postfix")
        return self

    def __exit__(self, *_):
        g.run("systemctl stop 'remote-*'; postsuper -d ALL; postconf -X enable_long_queue_ids;"
              " systemctl restart postfix", check=False)

    def start(self, port, mode):
        g.run("systemd-run --quiet --collect --unit=remote-%d /opt/remote %d %s" % (port, port, mode))
        g.wait("ss -ltn | grep -q :%d || bash -c '</dev/tcp/127.0.0.1/%d'" % (port, port), "no remote end")

    def send(self, *recipients):
        for recipient in recipients:
            n = int(g.out("find /var/spool/postfix/deferred -type f | wc -l"))
            g.run("printf 'Subject: x\\n\\nx\\n' | sendmail -f s@guest.test " + recipient)
            g.wait("test $(find /var/spool/postfix/deferred -type f | wc -l) = %d" % (n + 1),
                   "not deferred")


def rows(command="list"):
    return {row["site"] or row["type"]: row
            for row in map(json.loads, g.out("fflushctl --json " + command).splitlines())}


@test
def stuck_mail_is_shown_with_its_reasons(t):
    with Remotes() as r:
        r.start(2526, "full")
        r.send("x1@down.test", "x2@down.test", "y1@other.test", "y2@other.test")
        found = rows()
        eq({site: (row["deferred"], row["active"], row["hold"]) for site, row in found.items()},
           {"down.test": (2, 0, 0), "other.test": (2, 0, 0)})
        eq([reason["count"] for reason in found["other.test"]["reasons"]], [2])
        assert found["other.test"]["reasons"][0]["reason"].startswith("452 4.2.2"), found
        assert "Connection refused" in found["down.test"]["reasons"][0]["reason"], found
        eq(list(rows("list --match 'mailbox full'")), ["other.test"])
        eq([row["flushed"] for row in found.values()], [None, None])
        # What one of them does with the output of show.
        g.run("fflushctl show --ids other.test | postsuper -h -")
        found = rows()
        eq((found["other.test"]["deferred"], found["other.test"]["hold"]), (0, 2))
        eq(g.out("fflushctl list").splitlines()[-1], "2 destinations: 2 deferred, 2 on hold")


@test
def stuck_mail_in_delivery_is_active(t):
    with Remotes() as r:
        r.send("x1@down.test", "x2@down.test")
        ids = sorted(g.out("fflushctl show --ids down.test").split())
        r.start(2525, "silent")
        eq(g.out("fflushctl flush down.test"), "down.test: 2 found, 2 moved")
        g.wait("test $(find /var/spool/postfix/active -type f | wc -l) = 2", "not active")
        row = rows()["down.test"]
        eq((row["deferred"], row["active"], row["records"]), (0, 2, 0))
        assert time.time() - 600 < row["flushed"], row
        shown = [json.loads(line) for line in g.out("fflushctl show --json down.test").splitlines()]
        eq(sorted((m["queue_id"], m["queue"]) for m in shown), [(i, "active") for i in ids])
        eq([m["sender"] for m in shown], ["s@guest.test"] * 2)
        shown = json.loads(g.out("fflushctl show --json " + ids[0]))
        eq((shown["site"], shown["queue"]), ("down.test", "active"))


@test
def stuck_mail_has_the_age_of_its_arrival(t):
    """Not that of the log, nor of the last attempt."""
    with Remotes() as r:
        g.run("postconf -e enable_long_queue_ids=yes; systemctl restart postfix")
        before = time.time()
        r.send("x1@down.test")
        g.run("postconf -X enable_long_queue_ids; systemctl restart postfix")
        r.send("x2@down.test")
        oldest = rows()["down.test"]["oldest"]
        assert before - 2 <= oldest <= time.time(), (before, oldest)
        g.run("fflushctl flush down.test")
        g.wait("test $(find /var/spool/postfix/deferred -type f | wc -l) = 2", "not deferred again")
        time.sleep(1.1)
        g.run("fflushctl verify --repair")
        eq(rows()["down.test"]["oldest"], oldest)
        assert "never" not in g.out("fflushctl list")


@test
def stuck_mail_that_is_not_eligible_is_told_of(t):
    with Remotes() as r:
        g.run("postconf -e fast_flush_domains=down.test; systemctl restart postfix; systemctl stop fflushd")
        r.send("x1@down.test", "y1@other.test")
        found = rows()
        eq(sorted(found), ["down.test", "not_eligible"])
        eq(found["not_eligible"]["deferred"], 1)
        eq(json.loads(g.out("fflushctl import -n --json"))["not_eligible"], 1)


@test
def stuck_mail_is_counted_once_after_a_round_of_switching(t):
    with Remotes() as r:
        r.send("x1@a-b.test", "x2@a-b.test")
        g.run("fflushctl disable-postfix")
        eq(g.out("ls /var/spool/postfix/flush"), "a_b_test")
        g.run("fflushctl enable-postfix")
        eq(g.out("ls /var/spool/postfix/flush"), "aDb_test")
        eq(g.out("fflushctl list --no-legend").split()[:2], ["a-b.test", "2"])
        eq(g.out("fflushctl flush '*'"), "a-b.test: 2 found, 2 moved")
