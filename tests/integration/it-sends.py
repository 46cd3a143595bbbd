#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sends and refreshes that take long, beside other requests, signals and locks of others."""

import fcntl
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TIMEOUT, eq, wait_for
from client import Asking, BAD, DETAIL, FAIL, OK, PURGE, REFRESH, add, counts, send_file, send_site
from daemon import has_signal
from harness import main, test

MANY = int(os.environ.get("FFLUSHD_MANY", 100000))  # messages in a long send


class OverTooSoon(Exception):
    """A send was to last while something else happened, and did not: this machine was busy."""


def while_it_lasts(case):
    def run(t):
        for _ in range(5):
            try:
                return case(t)
            except OverTooSoon:
                pass
        raise AssertionError("the send was over too soon, again and again: a larger FFLUSHD_MANY?")
    run.__name__ = case.__name__
    return run


# -------------------------------------------------------------------------------- long sends


@test
@while_it_lasts
def adds_and_other_sends_go_on_during_a_long_send(t):
    spool, d = t.make()
    spool.fill("big_test", MANY)
    spool.put("deferred/A/A1")
    spool.log("small_test", b"A1\n")
    eq(d.exchange(add("warm.test", "B1")), OK)
    big = Asking(d, send_site("big.test", DETAIL))
    wait_for(lambda: b"I" in spool.triggers(), "no early trigger")
    eq(d.exchange(send_site("small.test")), OK)
    later = Asking(d, send_site("big.test", DETAIL))
    n = 0
    while n < 5 or (n < 100 and not big.answered()):
        eq(d.exchange(add("big.test", "NEW%d" % n)), OK)
        eq(d.exchange(add("other.test", "NEW%d" % n)), OK)
        n += 1
        if n == 5 and big.answered():
            raise OverTooSoon
    reply = counts(big.reply())
    eq((reply["found"], reply["moved"]), (MANY, MANY))
    eq(len(os.listdir(spool.join("incoming"))), MANY + 1)
    # What came during the first send is the second one's, and nobody else's.
    reply = counts(later.reply())
    assert 5 <= reply["gone"] <= n, reply
    eq(reply["found"] + len(spool.lines("big_test")), n)
    eq(len(spool.lines("other_test")), n)


@test
def sends_of_one_site_that_wait_share_one_more_run(t):
    spool, d = t.make()
    spool.fill("big_test", MANY // 10)
    eq(d.exchange(add("warm.test", "B1")), OK)
    first = Asking(d, send_site("big.test", DETAIL))
    wait_for(lambda: b"F" in spool.triggers())
    others = [Asking(d, send_site("big.test", DETAIL)) for _ in range(10)]
    eq(counts(first.reply())["moved"], MANY // 10)
    for o in others:
        eq(counts(o.reply())["found"], 0)


@test
def a_portion_is_moved_and_the_rest_stays_recorded(t):
    spool, d = t.make()
    ids = spool.fill("example_com", 1000)
    reply = counts(d.exchange(send_site("example.com", ("limit", "200"), DETAIL)))
    eq((reply["found"], reply["moved"], reply["left"]), (200, 200, 800))
    eq(sorted(os.path.basename(f) for f in spool.files("incoming")), sorted(ids[:200]))
    eq(spool.lines("example_com"), ids[200:])
    eq(d.exchange(send_site("example.com", ("limit", "799"))), OK)
    eq(spool.lines("example_com"), ids[999:])
    eq(d.exchange(add("example.com", ids[0])), OK)  # is not known any more
    reply = counts(d.exchange(send_site("example.com", ("limit", "5"), DETAIL)))
    eq((reply["moved"], reply["busy"] + reply["gone"], "left" in reply), (2, 0, False))
    for value in ("0", "-1", "", "1x", "1 "):
        eq(d.exchange(send_site("example.com", ("limit", value))), BAD)
    eq(d.exchange(send_file("ABC", ("limit", "1"))), BAD)


@test
@while_it_lasts
def a_portion_does_not_hide_a_wish_for_all(t):
    spool, d = t.make()
    ids = spool.fill("big_test", MANY // 5)
    eq(d.exchange(add("warm.test", "B1")), OK)
    first = Asking(d, send_site("big.test", ("limit", str(len(ids) - 50)), DETAIL))
    wait_for(lambda: b"F" in spool.triggers())
    small = [Asking(d, send_site("big.test", ("limit", str(i)), DETAIL)) for i in (3, 20, 7)]
    if first.answered():
        raise OverTooSoon
    eq(counts(first.reply())["left"], 50)
    for s in small:  # together they get what the largest asked for
        reply = counts(s.reply())
        eq((reply["moved"], reply["left"]), (20, 30))
    spool.fill("big_test", MANY // 5)
    for i in range(10):
        spool.put("deferred/L/LATE%d" % i)
    spool.triggers()
    first = Asking(d, send_site("big.test", DETAIL))
    wait_for(lambda: b"F" in spool.triggers())
    for i in range(10):
        eq(d.exchange(add("big.test", "LATE%d" % i)), OK)
    others = [Asking(d, send_site("big.test", ("limit", "3"), DETAIL)),
              Asking(d, send_site("big.test", DETAIL))]
    if first.answered():
        raise OverTooSoon
    eq(counts(first.reply())["moved"], MANY // 5)
    for o in others:
        reply = counts(o.reply())
        eq((reply["moved"], "left" in reply), (10, False))
    eq(spool.read("flush/big_test"), b"")


@test
def refresh_and_purge_tell_in_the_end_what_they_did(t):
    spool, d = t.make(fast_flush_refresh_time="1h")
    spool.log("old_test", b"A1\nA2\nA2\n", atime=-7200)
    spool.log("new_test", b"B1\n", atime=-60)
    for i in ("A1", "B1"):
        spool.put("deferred/%s/%s" % (i[0], i))
    first, second = d.exchange(b"detail\0001\0" + REFRESH).split(b"\0\0", 1)
    eq(first + b"\0\0", OK)
    reply = counts(second)
    eq((reply["status"], reply["found"], reply["moved"], reply["gone"], reply["duplicate"],
        reply["sites"]), (0, 3, 1, 1, 1, 1))
    assert second.endswith(b"\0\0")
    eq(d.exchange(REFRESH), OK)  # one reply for who does not ask
    first, second = d.exchange(b"reason\0why\0detail\0001\0" + PURGE).split(b"\0\0", 1)
    reply = counts(second)
    eq((reply["status"], reply["moved"], reply["sites"]), (0, 1, 1))
    spool.log("bad_test", b"C1\n")
    os.link(spool.join("flush/bad_test"), spool.join("flush/worse_test"))
    first, second = d.exchange(b"detail\0001\0" + PURGE).split(b"\0\0", 1)
    eq((first + b"\0\0", counts(second)["status"]), (OK, 4294967295))
    eq(d.exchange(b"detail\0001\0\0"), BAD)


def terminate_and_pause(d):
    """Two seconds of work are a lot: have them pass while it does none."""
    d.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not has_signal(d.process, "ShdPnd", signal.SIGTERM))
    d.process.send_signal(signal.SIGSTOP)
    time.sleep(2.2)
    d.process.send_signal(signal.SIGCONT)


@test
@while_it_lasts
def a_refresh_that_is_cut_short_says_so(t):
    spool, d = t.make(activation="hold")
    spool.fill("big_test", MANY // 2)
    eq(d.exchange(add("warm.test", "B1")), OK)
    purge = Asking(d, b"detail\0001\0" + PURGE)
    wait_for(lambda: os.listdir(spool.join("incoming")), "nothing moved")
    terminate_and_pause(d)
    first, second = purge.reply().split(b"\0\0", 1)
    if len(os.listdir(spool.join("incoming"))) == MANY // 2:
        raise OverTooSoon
    eq((first + b"\0\0", counts(second)["status"]), (OK, 4294967295))


@test
@while_it_lasts
def sigterm_during_a_long_send_loses_no_record(t):
    spool, d = t.make(activation="hold")
    ids = spool.fill("big_test", MANY)
    eq(d.exchange(add("warm.test", "B1")), OK)
    big = Asking(d, send_site("big.test"))
    wait_for(lambda: b"I" in spool.triggers(), "no early trigger")
    terminate_and_pause(d)
    eq(d.process.wait(TIMEOUT), 0)
    moved = {os.path.basename(f) for f in spool.files("incoming")}
    if len(moved) == MANY:
        raise OverTooSoon
    eq(big.reply(), FAIL)
    recorded = set(spool.lines("big_test"))
    eq(moved | recorded, set(ids))
    d.start()
    eq(d.exchange(send_site("big.test")), OK)
    eq(len(spool.files("incoming")), MANY)


@test
@while_it_lasts
def sigkill_during_a_long_send_loses_no_record(t):
    spool, d = t.make(activation="hold")
    ids = spool.fill("big_test", MANY // 5)
    eq(d.exchange(add("big.test", "LAST1")), OK)
    big = Asking(d, send_site("big.test"))
    wait_for(lambda: b"F" in spool.triggers())
    d.stop(signal.SIGKILL)
    moved = {os.path.basename(f) for f in spool.files("incoming")}
    if len(moved) == MANY // 5:
        raise OverTooSoon
    eq(big.reply(), b"")
    assert moved | set(spool.lines("big_test")) >= set(ids) | {"LAST1"}
    d.start()
    eq(d.exchange(send_site("big.test")), OK)
    eq(len(spool.files("incoming")), MANY // 5)


# ------------------------------------------------------------------------------------- locks


@test
def a_log_that_another_process_has_locked_holds_up_nobody_else(t):
    spool, d = t.make()
    spool.log("example_com", b"OLD1\n")
    with open(spool.join("flush/example_com"), "rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        waiting = [Asking(d, add("example.com", "NEW%d" % i)) for i in range(8)]
        sending = Asking(d, send_site("example.com", DETAIL))
        eq(d.exchange(add("other.test", "NEW1")), OK)
        eq(d.exchange(send_site("other.test")), OK)
        assert not any(w.answered() for w in waiting + [sending])
    for w in waiting:
        eq(w.reply(), OK)
    found = counts(sending.reply())["found"]
    eq(found + len(spool.lines("example_com")), 9)


@test
def a_lock_that_is_never_released_is_a_failure_in_the_end(t):
    spool, d = t.make(request_timeout="1s")
    spool.log("example_com", b"OLD1\n")
    with open(spool.join("flush/example_com"), "rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        eq(d.exchange(add("example.com", "NEW1")), FAIL)
        eq(d.exchange(send_site("example.com")), FAIL)
    eq(d.exchange(add("example.com", "NEW1")), OK)
    eq(spool.lines("example_com"), ["OLD1", "NEW1"])


@test
def a_log_that_was_removed_while_its_lock_was_awaited_is_made_anew(t):
    spool, d = t.make()
    path = spool.log("example_com", b"")
    with open(path, "rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        waiting = Asking(d, add("example.com", "NEW1"))
        eq(d.exchange(add("other.test", "NEW1")), OK)  # the first one has met the lock by now
        os.unlink(path)
    eq(waiting.reply(), OK)
    eq(spool.lines("example_com"), ["NEW1"])


@test
def records_of_another_process_during_a_send_stay(t):
    spool, d = t.make()
    spool.fill("big_test", MANY // 10)
    eq(d.exchange(add("warm.test", "B1")), OK)
    big = Asking(d, send_site("big.test"))
    wait_for(lambda: b"F" in spool.triggers())
    # flush(8) sends as well, empties the log, and records a message anew.
    with open(spool.join("flush/big_test"), "rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.truncate(0)
        f.write(b"FRESH1\n" * (MANY // 10))
    eq(big.reply(), OK)
    eq(set(spool.lines("big_test")), {"FRESH1"})


@test
def an_id_that_another_process_removed_is_recorded_again(t):
    spool, d = t.make()
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(spool.lines("example_com"), ["A1"])
    os.truncate(spool.join("flush/example_com"), 0)
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(spool.lines("example_com"), ["A1"])
    eq(d.exchange(send_site("example.com")), OK)
    eq(d.exchange(add("example.com", "A1")), OK, "deferred again after the send")
    eq(spool.lines("example_com"), ["A1"])


if __name__ == "__main__":
    main()
