#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A configuration that changes while the daemon runs."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TIMEOUT, USER, eq, wait_for
from client import ANNOUNCEMENT, Asking, DENY, FAIL, OK, REFRESH, add, receive_all, send_file, send_site
from edits import Edits, make_with_postfix, set_config
from harness import main, test


@test
def a_busy_daemon_takes_a_new_configuration_without_leaving(t):
    spool, d = t.make(activation="hold", fast_flush_domains="old.test")
    eq(d.exchange(add("new.test", "A1")), DENY)
    eq(d.exchange(add("old.test", "A1")), OK)
    common = {"queue_directory": spool.path, "postfix_config_directory": ""}
    for i in range(5):
        names = ["a%d.test" % i, "b%d.test" % i]
        set_config(d, fast_flush_domains=names[0] + " " + names[1], **common)
        eq(d.exchange(add(names[1], "A1")), OK, "not denied by a list that is out of date")
        eq(d.exchange(add("old.test", "A1")), DENY)
    set_config(d, fast_flush_domains="c.test", hash_queue_names="deferred flush", **common)
    wait_for(lambda: d.exchange(add("b4.test", "A1")) == DENY, "seen within seconds")
    eq(d.exchange(add("c.test", "A1")), OK)
    eq(spool.lines("c/c_test"), ["A1"])
    eq(d.process.poll(), None)


@test
def hangups_have_it_read_anew_and_nothing_else(t):
    spool, d, p = make_with_postfix(t, "fast_flush_domains = one.test")
    eq(d.exchange(add("one.test", "A1")), OK)
    for i in range(40):
        d.process.send_signal(signal.SIGHUP)
        eq(d.exchange(add("one.test", "B%d" % i)), OK)
    wait_for(lambda: "was read anew" in d.stderr())
    eq(d.process.poll(), None)
    d.process.send_signal(signal.SIGHUP)
    eq(d.exchange(send_site("one.test")), OK)


@test
def edits_of_main_cf_hold_up_nobody_and_lose_nothing(t):
    spool, d, p = make_with_postfix(t, "fast_flush_domains = one.test")
    eq(d.exchange(add("one.test", "A1")), OK)
    edits = Edits(p, "fast_flush_domains = one.test two.test")
    longest = 0
    try:
        new = Asking(d, add("two.test", "A1"))  # as an agent that has just read main.cf
        end = time.monotonic() + 5
        n = 0
        while time.monotonic() < end:
            start = time.monotonic()
            eq(d.exchange(add("one.test", "B%d" % n)), OK)
            eq(d.exchange(send_file("AAAA")), OK)
            longest = max(longest, time.monotonic() - start)
            n += 1
            time.sleep(0.02)
    finally:
        edits.end()
    eq(new.reply(), OK)
    assert longest < 5, longest
    eq(len(spool.lines("one_test")), n + 1)
    eq(spool.lines("two_test"), ["A1"])
    eq(d.exchange(add("three.test", "A1")), DENY)
    eq(d.process.poll(), None)


@test
def edits_without_end_are_a_failure_of_new_sites_in_the_end(t):
    spool, d, p = make_with_postfix(t, "fast_flush_domains = one.test", request_timeout="3s")
    eq(d.exchange(add("one.test", "A1")), OK)
    edits = Edits(p, "fast_flush_domains = one.test two.test")
    try:
        eq(d.exchange(add("two.test", "A1")), FAIL)  # that ends before the edits do
        eq(d.exchange(add("one.test", "A2")), OK)
    finally:
        edits.end()
    wait_for(lambda: d.exchange(add("two.test", "A1")) == OK)


@test
def a_start_in_the_middle_of_edits_serves_with_what_was_last_known(t):
    cache = os.path.join(t.base, "cache")
    os.mkdir(cache)
    if USER is not None:
        os.chown(cache, USER.pw_uid, USER.pw_gid)
    spool, d, p = make_with_postfix(t, "fast_flush_domains = one.test",
                                    env={"CACHE_DIRECTORY": cache})
    eq(d.exchange(add("one.test", "A1")), OK)
    eq(d.stop(), 0)
    assert os.path.exists(os.path.join(cache, "postconf"))
    edits = Edits(p, "fast_flush_domains = one.test two.test")
    try:
        d.start()
        eq(d.exchange(add("one.test", "A2")), OK)  # not after the edits: they end when this is done
        new = Asking(d, add("two.test", "A1"))
        eq(d.exchange(add("one.test", "A3")), OK)
        assert not new.answered()
    finally:
        edits.end()
    eq(new.reply(), OK)
    eq(spool.lines("one_test"), ["A1", "A2", "A3"])


@test
def with_a_broken_main_cf_it_goes_on_as_before_and_says_so_once(t):
    spool, d, p = make_with_postfix(t, "fast_flush_domains = one.test")
    eq(d.exchange(add("one.test", "A1")), OK)
    p.write("fast_flush_domains = one.test two.test\nno parameter\n", ago=3600)
    eq(d.exchange(add("two.test", "A1")), FAIL, "nobody knows")
    for i in range(30):
        eq(d.exchange(add("one.test", "B%d" % i)), OK)
        eq(d.exchange(add("two.test", "B%d" % i)), FAIL)
        time.sleep(0.1)
    eq(d.stderr().count("missing '=' after attribute name"), 1, d.stderr())
    p.write("fast_flush_domains = one.test two.test\n", ago=1800)
    wait_for(lambda: d.exchange(add("two.test", "A1")) == OK)
    eq(d.exchange(add("three.test", "A1")), DENY)
    eq(d.process.poll(), None)


@test
def with_a_broken_fflushd_conf_it_goes_on_as_before(t):
    spool, d, p = make_with_postfix(t, "", fast_flush_domains="one.test")
    eq(d.exchange(add("two.test", "A1")), DENY)
    set_config(d, postfix_config_directory=p.dir, fast_flush_domains="two.test", nonsense="yes")
    eq(d.exchange(add("two.test", "A1")), FAIL)
    eq(d.exchange(add("one.test", "A1")), OK)
    set_config(d, postfix_config_directory=p.dir, fast_flush_domains="two.test")
    eq(d.exchange(add("two.test", "A1")), OK)
    eq(d.exchange(add("one.test", "A1")), DENY)


@test
def what_postconf_did_not_tell_at_the_start_is_asked_for_until_it_does(t):
    spool, d, p = make_with_postfix(t, "no parameter\n")
    for request in (add("one.test", "A1"), send_file("A1"), REFRESH):
        eq(d.exchange(request), FAIL)
    p.write("fast_flush_domains = one.test\n", ago=1800)
    wait_for(lambda: d.exchange(add("one.test", "A1")) == OK)
    eq(spool.lines("one_test"), ["A1"])
    eq(d.process.poll(), None)


@test
def another_dialect_of_postfix_is_noticed(t):
    spool, d, p = make_with_postfix(t, "fast_flush_domains = one.test\nmail_version = 3.5.25\n",
                                    request_timeout="1000s")

    def announces():
        with d.connect() as s:
            s.sendall(add("one.test", "A1"))
            got = receive_all(s)
        eq(got.removeprefix(ANNOUNCEMENT), OK)
        return got != OK

    eq(announces(), False)
    with d.connect() as waiting:  # as a client of 3.6 and later: it does not speak first
        p.write("fast_flush_domains = one.test\nmail_version = 3.6.0\n", ago=1800)
        eq(waiting.recv(100), ANNOUNCEMENT)
        waiting.sendall(add("one.test", "A2"))
        eq(receive_all(waiting), OK)
    eq(announces(), True)
    p.write("fast_flush_domains = one.test\nmail_version = 3.5.25\n", ago=900)
    wait_for(lambda: not announces())
    eq(d.process.poll(), None)


@test
def it_leaves_when_its_queue_directory_is_another_one(t):
    spool, d = t.make(activation="hold", request_timeout="1000s")
    with d.connect() as silent:
        eq(silent.recv(100), ANNOUNCEMENT)
        with d.connect() as s:
            os.rename(spool.path, spool.path + ".old")
            os.mkdir(spool.path, 0o755)
            s.sendall(send_file("AAAA"))
            eq(receive_all(s), ANNOUNCEMENT + OK)
        eq(d.process.wait(TIMEOUT), 0)
    os.rmdir(spool.path)
    os.rename(spool.path + ".old", spool.path)
    d.start()
    eq(d.exchange(add("one.test", "A1")), OK)
    eq(spool.lines("one_test"), ["A1"])


@test
def it_leaves_for_another_queue_directory_that_is_there(t):
    spool, d = t.make(activation="hold")
    common = {"postfix_config_directory": "", "fast_flush_domains": "static:all"}
    eq(d.exchange(add("one.test", "A1")), OK)
    os.symlink(spool.path, os.path.join(t.base, "link"))
    for path in (spool.path + "/", os.path.join(t.base, "link"), "/nonexistent"):
        set_config(d, queue_directory=path, **common)
        d.process.send_signal(signal.SIGHUP)
        wait_for(lambda: d.stderr().count("was read anew") + d.stderr().count("/nonexistent") > 0)
        eq(d.exchange(add("one.test", "A2")), OK)
    wait_for(lambda: "/nonexistent: No such file or directory" in d.stderr())
    eq(d.process.poll(), None)
    other = os.path.join(t.base, "other")
    os.mkdir(other)
    with d.connect() as s:
        eq(s.recv(100), ANNOUNCEMENT)
        set_config(d, queue_directory=other, **common)
        s.sendall(send_file("AAAA"))
        eq(receive_all(s), OK)
    eq(d.process.wait(TIMEOUT), 0)


if __name__ == "__main__":
    main()
