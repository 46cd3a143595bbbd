#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The self-test, and what of its findings the refresh says."""

import json
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TIMEOUT, eq, wait_for
from client import Asking, FAIL, OK, add, attrs
from edits import Edits, make_with_postfix, set_config
from harness import main, test

SELF_TEST = b"request\0self_test\0\0"


def findings(reply):
    """Status, and of each finding the check and the reason."""
    strings = [s.decode() for s in reply.split(b"\0")]
    pairs = list(zip(strings[0::2], strings[1::2]))
    checks = [v for k, v in pairs if k == "check"]
    return int(pairs[0][1]), list(zip(checks, [v for k, v in pairs if k == "reason"]))


@test
def a_self_test_changes_nothing_and_does_not_count(t):
    spool, d = t.make()
    spool.log("example_com", b"A1\n")
    before = os.stat(spool.join("flush/example_com"))
    eq(findings(d.exchange(SELF_TEST)), (0, []))
    after = os.stat(spool.join("flush/example_com"))
    eq((after.st_atime_ns, after.st_mtime_ns, after.st_ctime_ns),
       (before.st_atime_ns, before.st_mtime_ns, before.st_ctime_ns))
    eq((spool.triggers(), d.journal()), (b"", []))
    counters = json.loads(d.ctl("-j", "metrics").stdout)["counters"]
    eq(sum(sum(r.values()) for r in counters["requests"].values()), 0)
    eq((counters["self_tests"], counters["healthy"]), (1, True))


@test
def what_breaks_while_nobody_asks_is_seen_by_the_refresh_and_said_once(t):
    spool, d = t.make()

    def healthy(value):
        text = d.ctl("metrics").stdout
        return "\nfflushd_healthy %d\n" % value in text

    def refresh(n):
        eq(d.exchange(attrs("rfrsh")), OK)
        wait_for(lambda: "fflushd_self_tests_total %d\n" % n in d.ctl("metrics").stdout)

    refresh(1)
    eq(healthy(1), True)
    os.rename(spool.join("public/qmgr"), spool.join("public/away"))
    refresh(2)
    eq(healthy(0), True)
    refresh(3)
    os.rename(spool.join("public/away"), spool.join("public/qmgr"))
    refresh(4)
    eq(healthy(1), True)
    eq([line for line in d.journal() if "self-test" in line],
       ["<3>self-test: Postfix is not running: the queue manager does not listen on public/qmgr: "
        "No such file or directory; remedy: systemctl restart postfix, or postfix start if no unit runs it",
        "<5>self-test: all is in order again"])


@test
def a_configuration_that_is_about_to_be_read_is_no_fault(t):
    spool, d = t.make()
    eq(d.exchange(attrs("rfrsh")), OK)
    wait_for(lambda: "fflushd_self_tests_total 1\n" in d.ctl("metrics").stdout)
    set_config(d, queue_directory=spool.path, postfix_config_directory="",
               fast_flush_domains="example.com")
    eq(d.exchange(attrs("rfrsh")), OK)
    wait_for(lambda: "fflushd_self_tests_total 2\n" in d.ctl("metrics").stdout, "it is tested late")
    eq("\nfflushd_healthy 1\n" in d.ctl("metrics").stdout, True)
    eq([line for line in d.journal() if "self-test" in line], [])
    set_config(d, queue_directory=spool.path, postfix_config_directory="", fast_flush_domain="x")
    wait_for(lambda: any("no such option" in line for line in d.journal()))
    eq(d.exchange(attrs("rfrsh")), OK)
    wait_for(lambda: any("self-test: the configuration has changed and cannot be read" in line
                         for line in d.journal()), "one that cannot be read is")


@test
def a_configuration_that_cannot_be_read_is_said_to_be_so_at_once(t):
    spool, d = t.make()
    eq(findings(d.exchange(SELF_TEST)), (0, []))
    set_config(d, queue_directory=spool.path, postfix_config_directory="", fast_flush_domain="x")
    wait_for(lambda: any("no such option" in line for line in d.journal()) or
             d.exchange(SELF_TEST) is None)
    eq([f[0] for f in findings(d.exchange(SELF_TEST))[1]], ["settings"])


@test
def failures_are_counted_by_what_has_to_be_looked_at(t):
    spool, d = t.make(fast_flush_domains="/nonexistent/list")
    eq(d.exchange(add("example.com", "A1")), FAIL)
    text = d.ctl("metrics").stdout
    eq('\nfflushd_failures_total{class="list"} 1\n' in text, True, text)
    eq('\nfflushd_healthy 0\n' in text, True, text)
    code, found = findings(d.exchange(SELF_TEST))
    eq((code, found[0][0], "cannot be used: /nonexistent/list" in found[0][1]),
       (4294967295, "list", True))


@test
def self_tests_of_many_clients_and_a_stop_are_all_answered(t):
    spool, d = t.make(activation="hold")
    d.exchange(add("example.com", "A1"))
    asking = [Asking(d, SELF_TEST) for _ in range(20)]
    for a in asking:
        eq(findings(a.reply())[0], 0)
    asking = [Asking(d, SELF_TEST) for _ in range(20)]
    d.process.send_signal(signal.SIGTERM)
    eq(d.process.wait(TIMEOUT), 0)
    d.start()  # for those that were still in the backlog
    for a in asking:
        code, found = findings(a.reply())
        assert code == 0 or found == [("service", "the service was stopped meanwhile")], found
    eq(d.exchange(add("example.com", "A2")), OK)


@test
def a_self_test_that_waits_for_a_configuration_is_answered_at_a_stop(t):
    spool, d, p = make_with_postfix(t, "fast_flush_domains = example.com")
    eq(findings(d.exchange(SELF_TEST))[1], [])
    edits = Edits(p, "fast_flush_domains = example.org")  # postconf(1) waits
    try:
        asking = [Asking(d, SELF_TEST) for _ in range(3)]
        time.sleep(0.3)
        eq([a.answered() for a in asking], [False] * 3)
        d.process.send_signal(signal.SIGTERM)
        for a in asking:
            eq(findings(a.reply()),
               (4294967295, [("service", "the service was stopped meanwhile")]))
        eq(d.process.wait(TIMEOUT), 0)
    finally:
        edits.end()


if __name__ == "__main__":
    main()
