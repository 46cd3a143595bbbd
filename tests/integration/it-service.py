#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The service as a whole: the five requests, long sends, locks, limits, start and stop."""

import os
import sys
import ctypes
import fcntl
import json
import re
import resource
import select
import stat
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from harness import *

MANY = int(os.environ.get("FFLUSHD_MANY", 100000))  # messages in a long send
DETAIL = ("detail", "1")


def counts(reply):
    """The attributes of a detailed reply as a dictionary."""
    strings = reply.split(b"\0")
    return {k.decode(): int(v) for k, v in zip(strings[0::2], strings[1::2]) if k}


def lines(spool, name):
    return spool.read("flush/" + name).decode().split("\n")[:-1]


def queue_id(i):
    return "%05X%X" % (i * 7919 % 1000000, 0x100000 + i)


def fill(spool, site_log, n, first=0):
    """Defer n messages and record them, without the daemon."""
    ids = [queue_id(first + i) for i in range(n)]
    for c in "0123456789ABCDEF":
        os.makedirs(spool.join("deferred", c), 0o700, exist_ok=True)
    for i in ids:
        os.close(os.open(spool.join("deferred", i[0], i), os.O_CREAT | os.O_WRONLY, 0o700))
    spool.log(site_log, "".join(i + "\n" for i in ids).encode())
    spool.own(spool.join("deferred"))
    return ids


def read_text(path):
    with open(path) as f:
        return f.read()


class Asking:
    """A request whose reply is awaited in the background of the test."""

    def __init__(self, daemon, data):
        self.socket = daemon.connect()
        self.socket.sendall(data)

    def answered(self):
        self.socket.setblocking(False)
        try:
            return self.socket.recv(65536, socket.MSG_PEEK) not in (b"", ANNOUNCEMENT)
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(TIMEOUT)

    def reply(self):
        with self.socket:
            return receive_all(self.socket).removeprefix(ANNOUNCEMENT)


# ------------------------------------------------------------------------------ the requests


@test
def adds_are_recorded_once_and_a_send_moves_exactly_that_site(t):
    spool, d = t.make()
    for queue_id_ in ("ABC123", "ABC123", "DEF456", "GONE1"):
        eq(d.exchange(add("Example.COM", queue_id_)), OK)
    eq(d.exchange(add("other.test", "FED321")), OK)
    for i in ("ABC123", "DEF456", "FED321"):
        spool.put("deferred/%s/%s" % (i[0], i))
    eq(lines(spool, "example_com"), ["ABC123", "DEF456", "GONE1"])
    reply = counts(d.exchange(send_site("example.com", DETAIL)))
    eq((reply["status"], reply["found"], reply["moved"], reply["gone"]), (0, 3, 2, 1))
    eq(spool.files("incoming"), ["incoming/ABC123", "incoming/DEF456"])
    eq(spool.files("deferred"), ["deferred/F/FED321"])
    eq(spool.read("flush/example_com"), b"")
    eq(spool.triggers(), b"FI")
    eq(lines(spool, "other_test"), ["FED321"])


@test
def sites_that_flush_8_mixes_are_kept_apart(t):
    spool, d = t.make()
    for site, i in (("a-b.test", "AAA1"), ("a.b.test", "BBB2"), ("a_b.test", "CCC3"), ("x", "D4")):
        eq(d.exchange(add(site, i)), OK)
        spool.put("deferred/%s/%s" % (i[0], i))
    eq(spool.files("flush"), ["flush/aDb_test", "flush/aUb_test", "flush/a_b_test", "flush/xZ"])
    eq(d.exchange(send_site("a-b.test")), OK)
    eq(spool.files("incoming"), ["incoming/AAA1"])


@test
def a_message_on_its_way_stays_recorded(t):
    spool, d = t.make()
    spool.put("active/A1")
    spool.put("hold/B2")
    spool.put("deferred/C/C3")
    spool.log("example_com", b"A1\nB2\nC3\nD4\n")
    reply = counts(d.exchange(send_site("example.com", DETAIL)))
    eq((reply["moved"], reply["busy"], reply["gone"]), (1, 2, 1))
    eq(lines(spool, "example_com"), ["A1", "B2"])


@test
def send_file_marks_and_moves_one_message_and_merges_triggers(t):
    spool, d = t.make()
    spool.put("deferred/A/ABC123", 0o710)
    eq(counts(d.exchange(send_file("ABC123", DETAIL)))["moved"], 1)
    st = os.stat(spool.join("incoming/ABC123"))
    eq(stat.S_IMODE(st.st_mode), 0o750)
    assert abs(st.st_mtime - time.time()) < 5
    eq(spool.triggers(), b"I")
    eq(counts(d.exchange(send_file("ABC999", DETAIL)))["gone"], 1)
    eq(spool.triggers(), b"")


@test
def refresh_flushes_what_is_old_and_removes_what_has_long_been_empty(t):
    spool, d = t.make()
    for i in ("A1", "B2"):
        spool.put("deferred/%s/%s" % (i[0], i))
    spool.log("old_test", b"A1\n", atime=-13 * 3600)
    spool.log("new_test", b"B2\n", atime=-11 * 3600, mtime=-13 * 3600)
    spool.log("empty_old_test", b"", mtime=-8 * 86400)
    spool.log("empty_new_test", b"", mtime=-6 * 86400)
    spool.put("flush/x", 0o600, b"B2\n", mtime=-13 * 3600)  # flush(8) dies of it
    eq(d.exchange(REFRESH), OK)
    eq(spool.files("incoming"), ["incoming/A1"])
    eq(spool.files("flush"),
       ["flush/empty_new_test", "flush/new_test", "flush/old_test", "flush/x"])
    eq(spool.triggers(), b"I")
    eq(d.exchange(PURGE), OK)
    eq(spool.files("incoming"), ["incoming/A1", "incoming/B2"])
    eq(spool.triggers(), b"I")


@test
def refresh_compacts_a_log_full_of_duplicates(t):
    spool, d = t.make()
    ids = [queue_id(i) for i in range(200)]
    spool.log("dups_test", "".join(i + "\n" for i in ids * 3).encode(), atime=-60)
    spool.log("few_test", "".join(i + "\n" for i in ids * 2).encode(), atime=-60)
    before = os.stat(spool.join("flush/dups_test")).st_atime
    eq(d.exchange(REFRESH), OK)
    eq(os.stat(spool.join("flush/dups_test")).st_atime, before, "it was not flushed")
    eq(lines(spool, "dups_test"), ids)
    eq(len(lines(spool, "few_test")), 400)


@test
def hashed_queues_and_long_ids(t):
    for depth in (1, 2, 3):
        spool, d = t.make(hash_queue_names="deferred, INCOMING, flush, active",
                          hash_queue_depth=depth)
        forest = {"4jY8076wjqz8d3T": "EE2", "AB": "AB_"}
        for i, key in forest.items():
            directory = "/".join(key[:depth])
            spool.put("deferred/%s/%s" % (directory, i))
            eq(d.exchange(add("example.com", i)), OK)
        eq(spool.files("flush"), ["flush/%s/example_com" % "/".join("exa"[:depth])])
        eq(d.exchange(send_site("example.com")), OK)
        eq(spool.files("incoming"),
           sorted("incoming/%s/%s" % ("/".join(k[:depth]), i) for i, k in forest.items()))


@test
def qmgr_on_a_socket_gets_its_bytes_with_a_nul(t):
    spool, d = t.make(qmgr=None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as qmgr:
        bind(qmgr, spool.join("public/qmgr"))
        os.chmod(spool.join("public/qmgr"), 0o666)
        qmgr.listen()
        qmgr.settimeout(TIMEOUT)
        spool.log("example_com", b"A1\n")
        eq(d.exchange(send_site("example.com")), OK)
        for byte in (b"F\0", b"I\0"):
            connection, _ = qmgr.accept()
            with connection:
                eq(receive_all(connection), byte)


@test
def a_lost_trigger_is_sent_again(t):
    spool, d = t.make(qmgr=None, trigger_timeout="3s")
    spool.log("example_com", b"A1\n")
    eq(d.exchange(send_site("example.com")), OK)
    os.mkfifo(spool.join("public/qmgr"), 0o622)
    os.chmod(spool.join("public/qmgr"), 0o622)
    spool.qmgr = os.open(spool.join("public/qmgr"), os.O_RDONLY | os.O_NONBLOCK)
    got = b""
    end = time.monotonic() + TIMEOUT
    while len(got) < 2 and time.monotonic() < end:
        time.sleep(0.01)
        got += spool.triggers()
    eq(got, b"FI")


# -------------------------------------------------------------------------------- long sends


@test
def adds_and_other_sends_go_on_during_a_long_send(t):
    spool, d = t.make()
    fill(spool, "big_test", MANY)
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
        if n == 5:
            assert not big.answered(), "the send was over before: a larger FFLUSHD_MANY?"
    reply = counts(big.reply())
    eq((reply["found"], reply["moved"]), (MANY, MANY))
    eq(len(os.listdir(spool.join("incoming"))), MANY + 1)
    # What came during the first send is the second one's, and nobody else's.
    reply = counts(later.reply())
    assert 5 <= reply["gone"] <= n, reply
    eq(reply["found"] + len(lines(spool, "big_test")), n)
    eq(len(lines(spool, "other_test")), n)


@test
def sends_of_one_site_that_wait_share_one_more_run(t):
    spool, d = t.make()
    fill(spool, "big_test", MANY // 10)
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
    ids = fill(spool, "example_com", 1000)
    reply = counts(d.exchange(send_site("example.com", ("limit", "200"), DETAIL)))
    eq((reply["found"], reply["moved"], reply["left"]), (200, 200, 800))
    eq(sorted(os.path.basename(f) for f in spool.files("incoming")), sorted(ids[:200]))
    eq(lines(spool, "example_com"), ids[200:])
    eq(d.exchange(send_site("example.com", ("limit", "799"))), OK)
    eq(lines(spool, "example_com"), ids[999:])
    eq(d.exchange(add("example.com", ids[0])), OK)  # is not known any more
    reply = counts(d.exchange(send_site("example.com", ("limit", "5"), DETAIL)))
    eq((reply["moved"], reply["busy"] + reply["gone"], "left" in reply), (2, 0, False))
    for value in ("0", "-1", "", "1x", "1 "):
        eq(d.exchange(send_site("example.com", ("limit", value))), BAD)
    eq(d.exchange(send_file("ABC", ("limit", "1"))), BAD)


@test
def a_portion_does_not_hide_a_wish_for_all(t):
    spool, d = t.make()
    ids = fill(spool, "big_test", MANY // 5)
    eq(d.exchange(add("warm.test", "B1")), OK)
    first = Asking(d, send_site("big.test", ("limit", str(len(ids) - 50)), DETAIL))
    wait_for(lambda: b"F" in spool.triggers())
    small = [Asking(d, send_site("big.test", ("limit", str(i)), DETAIL)) for i in (3, 20, 7)]
    eq(counts(first.reply())["left"], 50)
    for s in small:  # together they get what the largest asked for
        reply = counts(s.reply())
        eq((reply["moved"], reply["left"]), (20, 30))
    fill(spool, "big_test", MANY // 5)
    for i in range(10):
        spool.put("deferred/L/LATE%d" % i)
    spool.triggers()
    first = Asking(d, send_site("big.test", DETAIL))
    wait_for(lambda: b"F" in spool.triggers())
    for i in range(10):
        eq(d.exchange(add("big.test", "LATE%d" % i)), OK)
    others = [Asking(d, send_site("big.test", ("limit", "3"), DETAIL)),
              Asking(d, send_site("big.test", DETAIL))]
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
def a_refresh_that_is_cut_short_says_so(t):
    spool, d = t.make(activation="hold")
    fill(spool, "big_test", MANY // 2)
    eq(d.exchange(add("warm.test", "B1")), OK)
    purge = Asking(d, b"detail\0001\0" + PURGE)
    wait_for(lambda: os.listdir(spool.join("incoming")), "nothing moved")
    terminate_and_pause(d)
    first, second = purge.reply().split(b"\0\0", 1)
    eq((first + b"\0\0", counts(second)["status"]), (OK, 4294967295))


@test
def sigterm_during_a_long_send_loses_no_record(t):
    spool, d = t.make(activation="hold")
    ids = fill(spool, "big_test", MANY)
    eq(d.exchange(add("warm.test", "B1")), OK)
    big = Asking(d, send_site("big.test"))
    wait_for(lambda: b"I" in spool.triggers(), "no early trigger")
    terminate_and_pause(d)
    eq(d.process.wait(TIMEOUT), 0)
    eq(big.reply(), FAIL, "the send was over before the signal: a larger FFLUSHD_MANY?")
    moved = {os.path.basename(f) for f in spool.files("incoming")}
    recorded = set(lines(spool, "big_test"))
    eq(moved | recorded, set(ids))
    d.start()
    eq(d.exchange(send_site("big.test")), OK)
    eq(len(spool.files("incoming")), MANY)


@test
def sigkill_during_a_long_send_loses_no_record(t):
    spool, d = t.make(activation="hold")
    ids = fill(spool, "big_test", MANY // 5)
    eq(d.exchange(add("big.test", "LAST1")), OK)
    big = Asking(d, send_site("big.test"))
    wait_for(lambda: b"F" in spool.triggers())
    d.stop(signal.SIGKILL)
    eq(big.reply(), b"")
    moved = {os.path.basename(f) for f in spool.files("incoming")}
    assert moved | set(lines(spool, "big_test")) >= set(ids) | {"LAST1"}
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
    eq(found + len(lines(spool, "example_com")), 9)


@test
def a_lock_that_is_never_released_is_a_failure_in_the_end(t):
    spool, d = t.make(request_timeout="1s")
    spool.log("example_com", b"OLD1\n")
    with open(spool.join("flush/example_com"), "rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        eq(d.exchange(add("example.com", "NEW1")), FAIL)
        eq(d.exchange(send_site("example.com")), FAIL)
    eq(d.exchange(add("example.com", "NEW1")), OK)
    eq(lines(spool, "example_com"), ["OLD1", "NEW1"])


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
    eq(lines(spool, "example_com"), ["NEW1"])


@test
def records_of_another_process_during_a_send_stay(t):
    spool, d = t.make()
    fill(spool, "big_test", MANY // 10)
    eq(d.exchange(add("warm.test", "B1")), OK)
    big = Asking(d, send_site("big.test"))
    wait_for(lambda: b"F" in spool.triggers())
    # flush(8) sends as well, empties the log, and records a message anew.
    with open(spool.join("flush/big_test"), "rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        f.truncate(0)
        f.write(b"FRESH1\n" * (MANY // 10))
    eq(big.reply(), OK)
    eq(set(lines(spool, "big_test")), {"FRESH1"})


@test
def an_id_that_another_process_removed_is_recorded_again(t):
    spool, d = t.make()
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(lines(spool, "example_com"), ["A1"])
    os.truncate(spool.join("flush/example_com"), 0)
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(lines(spool, "example_com"), ["A1"])
    eq(d.exchange(send_site("example.com")), OK)
    eq(d.exchange(add("example.com", "A1")), OK, "deferred again after the send")
    eq(lines(spool, "example_com"), ["A1"])


# --------------------------------------------------------------------------------- bad input


@test
def logs_that_are_no_plain_files_of_ours_are_refused(t):
    spool, d = t.make(request_timeout="2s")
    eq(d.exchange(add("warm.test", "B1")), OK)
    outside = os.path.join(t.base, "outside")
    with open(outside, "w"):
        pass
    os.chmod(outside, 0o666)
    os.mkdir(spool.join("flush/dir_test"))
    os.symlink(outside, spool.join("flush/link_test"))
    os.symlink(spool.join("nowhere"), spool.join("flush/dangling_test"))
    os.mkfifo(spool.join("flush/fifo_test"))
    os.link(spool.log("one_test", b""), spool.join("flush/two_test"))
    spool.own(spool.join("flush"))
    sites = ["dir.test", "link.test", "dangling.test", "fifo.test", "two.test"]
    if USER is not None:
        with open(spool.join("flush/foreign_test"), "w"):
            pass
        os.chmod(spool.join("flush/foreign_test"), 0o666)
        sites.append("foreign.test")
    for site in sites:
        for request in (add(site, "A1"), send_site(site)):
            before = len(d.journal())
            eq(d.exchange(request), FAIL, site)
            eq(len(d.journal()) - before, 1, d.stderr())
    eq(os.path.getsize(outside), 0)
    assert not os.path.exists(spool.join("nowhere"))
    eq(d.exchange(REFRESH), OK)
    eq(d.exchange(PURGE), OK)
    eq(d.exchange(add("warm.test", "B2")), OK)


@test
def a_damaged_log_gives_what_is_good_in_it(t):
    spool, d = t.make()
    for i in ("A1", "B2", "C3"):
        spool.put("deferred/%s/%s" % (i[0], i))
    garbage = b"../x\n\nA1\n" + b"z" * 10_000_000 + b"\nB2\0junk\nA-B\n\xff\xfe\nA1\nC3"
    spool.log("example_com", garbage)
    eq(d.exchange(add("warm.test", "B1")), OK)
    before = len(d.journal())
    reply = counts(d.exchange(send_site("example.com", DETAIL)))
    eq((reply["moved"], reply["duplicate"], reply["invalid"]), (3, 1, 4))
    eq(spool.read("flush/example_com"), b"")
    eq(len(d.journal()) - before, 2, "the send, and one line about all that is invalid")


@test
def requests_too_long_are_refused_and_the_refusal_arrives(t):
    spool, d = t.make()
    eq(d.exchange(send_site("a" * 1_000_000)), BAD)
    eq(d.exchange(b"a" * 1_000_000 + b"\0\0\0"), BAD)
    eq(d.exchange(add("x" * 60000, "A1")), DENY)
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(spool.files("flush"), ["flush/example_com"])


@test
def what_a_client_sent_is_escaped_and_cut_in_the_journal(t):
    _, d = t.make(fast_flush_domains="example.com")
    eq(d.exchange(add("evil\n<0>forged\x1b[2J.test" + "y" * 100, "A1")), DENY)
    eq(d.exchange(b"GET / HTTP/1.0\r\n\r\n\0"), BAD)
    deny, bad = d.journal()
    assert deny.startswith("<4>") and r"evil\x0a<0>forged\x1b[2J.test" in deny, deny
    assert "y" * 10 not in deny and "..." in deny and "uid %d" % os.getuid() in deny, deny
    assert bad.startswith("<4>") and r"GET / HTTP/1.0\x0d" in bad, bad


@test
def silent_clients_are_closed_and_cost_nobody_anything(t):
    spool, d = t.make(request_timeout="2s")
    eq(d.exchange(add("warm.test", "B1")), OK)
    idle = [d.connect() for _ in range(500)]
    half = d.connect()
    half.sendall(b"request\0add\0site\0exam")
    for i in range(20):
        eq(d.exchange(add("example.com", "A%d" % i)), OK)
    got = [receive_all(s) for s in idle]
    eq(set(got), {ANNOUNCEMENT + BAD})
    eq(receive_all(half), ANNOUNCEMENT)
    for s in idle + [half]:
        s.close()
    eq(len(lines(spool, "example_com")), 20)


@test
def a_dribbling_client_is_closed_by_the_time_for_the_whole_request(t):
    _, d = t.make(request_timeout="1s", ipc_timeout="1s")
    with d.connect() as s:
        start = time.monotonic()
        try:
            for byte in add("example.com", "A" * 200):
                s.sendall(bytes([byte]))
                time.sleep(0.02)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - start < 4
        eq(receive_all(s).removeprefix(ANNOUNCEMENT), b"")


def connect_when_there_is_room(d):
    """In the backlog, which one thousand clients can fill."""
    while True:
        try:
            return d.connect()
        except BlockingIOError:
            time.sleep(0.001)


@test
def what_came_while_the_daemon_was_frozen_is_not_too_late(t):
    """So many that they are not all read in one turn, after which deadlines are looked at."""
    n = 3000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < n + 100:
        raise Skip("no more than %d descriptors" % hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n + 100, hard))
    spool, d = t.make(activation="hold", request_timeout="8s")
    request = add("frozen.example", "A1")
    clients = []
    for _ in range(n):
        s = connect_when_there_is_room(d)
        s.sendall(request[:20])
        clients.append(s)
    eq(d.exchange(add("other.example", "A1")), OK)  # all of them have been accepted
    os.kill(d.process.pid, signal.SIGSTOP)
    for s in clients:
        s.sendall(request[20:])
    time.sleep(10)  # longer than request_timeout
    os.kill(d.process.pid, signal.SIGCONT)
    for s in clients:
        with s:
            eq(receive_all(s).removeprefix(ANNOUNCEMENT), OK)


@test
def clients_that_hang_up_early_are_served_all_the_same(t):
    spool, d = t.make()
    for i in range(50):
        with d.connect() as s:
            s.sendall(add("example.com", "A%d" % i))
    wait_for(lambda: os.path.exists(spool.join("flush/example_com")) and
             len(lines(spool, "example_com")) == 50)
    for _ in range(20):
        d.connect().close()
    eq(d.exchange(add("example.com", "B1")), OK)
    eq([line for line in d.journal() if not line.startswith("<7>")], [])


@test
def a_full_disk_is_a_failure_and_leaves_no_partial_line(t):
    if os.getuid() != 0:
        raise Skip("needs root to mount")
    spool, d = t.make()
    eq(d.exchange(add("warm.test", "B1")), OK)
    size = ["-o", "size=64k,mode=0700,uid=%d,gid=%d" % (USER.pw_uid, USER.pw_gid)]
    if subprocess.run(["mount", "-t", "tmpfs", *size, "none", spool.join("flush")]).returncode:
        raise Skip("cannot mount here")
    try:
        eq(d.exchange(add("example.com", "A1")), OK)
        with open(spool.join("flush/filler"), "wb") as f:
            try:
                while f.write(b"x" * 4096):
                    f.flush()
            except OSError:
                pass
            try:
                f.close()
            except OSError:
                pass
        eq(d.exchange(add("new.test", "A1")), FAIL)
        good = 1
        for i in range(1000):  # the rest of the page that the log has
            reply = d.exchange(add("example.com", "B%05d" % i))
            if reply == FAIL:
                break
            good += 1
        eq(reply, FAIL)
        got = spool.read("flush/example_com")
        eq((got.count(b"\n"), got[-1:]), (good, b"\n"))
        assert "No space left" in d.stderr()
        os.unlink(spool.join("flush/filler"))
        eq(d.exchange(add("new.test", "A1")), OK)
        eq(lines(spool, "new_test"), ["A1"])
    finally:
        subprocess.run(["umount", "-l", spool.join("flush")], check=True)


# ------------------------------------------------------------------------------- eligibility


def needs_postmap():
    if not shutil.which("postmap", path="/usr/sbin:/usr/bin"):
        raise Skip("needs Postfix's postmap(1)")


@test
def tables_are_asked_through_postmap(t):
    needs_postmap()
    table = os.path.join(t.base, "table")
    with open(table, "w") as f:
        f.write("hash.example ok\n.dot.example ok\n")
    os.utime(table, (0, 0))  # postmap(1) waits for a second when a file has just been changed
    spool, d = t.make(fast_flush_domains="first.example, texthash:%s, inline:{ { last.example = x } }"
                      % table)
    waiting = [Asking(d, add("%s.hash.example" % i, "A1")) for i in range(20)]
    for w in waiting:
        eq(w.reply(), OK)
    eq(d.exchange(add("dot.example", "A1")), DENY)
    eq(d.exchange(add("a.dot.example", "A1")), DENY, "never tried in parent mode")
    eq(d.exchange(add("Sub.Last.Example", "A1")), OK)
    eq(d.exchange(add("no.example", "A1")), DENY)


@test
def a_table_that_fails_is_a_failure_and_the_journal_says_why(t):
    needs_postmap()
    _, d = t.make(fast_flush_domains="first.example, texthash:/nonexistent/map, last.example")
    eq(d.exchange(add("first.example", "A1")), OK)
    eq(d.exchange(add("other.example", "A1")), FAIL)
    eq(d.exchange(send_site("last.example")), FAIL)
    assert re.search("table texthash:/nonexistent/map.*No such file", d.stderr()), d.stderr()


@test
def a_table_that_prints_too_much_is_a_failure(t):
    needs_postmap()
    table = os.path.join(t.base, "table")
    with open(table, "w") as f:
        f.write("/^large/ %s\n/^small/ ok\n" % ("x" * (9 << 20)))
    os.utime(table, (0, 0))
    _, d = t.make(fast_flush_domains="regexp:%s" % table)
    eq(d.exchange(add("small.example", "A1")), OK)
    eq(d.exchange(add("large.example", "A1")), FAIL)
    assert re.search("table regexp:.*: /.*/postmap printed more than 8 MiB", d.stderr()), d.stderr()
    eq(d.exchange(add("small.example", "A2")), OK)


@test
def a_slow_table_holds_up_only_who_needs_it(t):
    needs_postmap()
    fifo = os.path.join(t.base, "table")
    os.mkfifo(fifo)
    if USER is not None:
        os.chown(fifo, USER.pw_uid, USER.pw_gid)
    _, d = t.make(fast_flush_domains="first.example, regexp:" + fifo)
    slow = Asking(d, add("slow.example", "A1"))
    for i in range(20):
        eq(d.exchange(add("first.example", "A%d" % i)), OK)
    assert not slow.answered()
    with open(fifo, "w") as f:
        f.write("/^slow/ ok\n")
    eq(slow.reply(), OK)
    eq(d.exchange(send_site("slow.example")), OK, "remembered, or it would wait for the FIFO")


@test
def without_postfix_s_word_all_is_refused_and_nothing_dropped(t):
    spool, d = t.make()
    with open(d.config, "w") as f:
        f.write("queue_directory = '%s'\npostfix_config_directory = '/nonexistent'\n"
                % spool.path)
    spool.put("deferred/A/B/ABC1")  # where only hash_queue_depth = 2 finds it
    spool.log("example_com", b"ABC1\n", atime=-13 * 3600)
    for request in (add("example.com", "A1"), send_site("example.com"), send_file("ABC1"), REFRESH,
                    PURGE, b"W\0"):
        eq((request, d.exchange(request)), (request, FAIL))
    assert "<3>" in d.stderr() and "postconf(1) has not told" in d.stderr(), d.stderr()
    eq(lines(spool, "example_com"), ["ABC1"])


# ----------------------------------------------------------------------------- start and stop


@test
def idle_exit_and_reactivation_lose_nothing(t):
    spool, d = t.make(activation="hold", max_idle="1s")
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(d.process.wait(TIMEOUT), 0)
    waiting = Asking(d, add("example.com", "A2"))  # in the backlog, nobody there
    d.start()
    eq(waiting.reply(), OK)
    eq(lines(spool, "example_com"), ["A1", "A2"])


def counters(d):
    """What fflushctl tells of the counters."""
    return json.loads(d.ctl("--json", "metrics").stdout)["counters"]


@test
def counters_outlive_the_daemon_however_it_ends(t):
    spool, d = t.make(activation="hold", max_idle="1s", fast_flush_domains="example.com")
    spool.put("deferred/A/A1")
    for i in ("A1", "A1", "A2"):
        eq(d.exchange(add("example.com", i)), OK)
    eq(d.exchange(add("no.test", "A1")), DENY)
    eq(d.exchange(b"junk\0"), BAD)
    eq(d.process.wait(TIMEOUT), 0)  # idle
    d.start()
    eq(d.exchange(send_site("example.com")), OK)
    d.process.kill()
    d.process.wait(TIMEOUT)
    d.start()
    eq(d.exchange(PURGE), OK)
    eq(d.exchange(REFRESH), OK)
    eq(d.exchange(send_file("A1")), OK)
    got = counters(d)
    eq((got["starts"], got["bad_requests"], got["appended"], got["coalesced"]), (3, 1, 2, 1))
    eq(got["requests"]["add"], {"ok": 3, "failed": 0, "denied": 1})
    eq([got["requests"][r]["ok"] for r in ("send_site", "send_file", "refresh", "purge")], [1] * 4)
    eq((got["moved"], got["gone"], got["refreshes"]), (2, 1, 2))
    for key in ("last_refresh", "last_purge"):
        assert abs(got[key] - time.time()) < 60, got
    st = os.stat(os.path.join(d.state, "counters"))
    eq(stat.S_IMODE(st.st_mode), 0o644)
    eq(d.journal(), [line for line in d.journal() if "counted" not in line])


@test
def without_a_place_for_counters_it_serves_and_says_so_once(t):
    spool, d = t.make(env={"STATE_DIRECTORY": "/nosuch"})
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(d.exchange(add("example.com", "A2")), OK)
    eq(len([line for line in d.journal() if "/nosuch/counters" in line and "<4>" in line]), 1)
    eq(lines(spool, "example_com"), ["A1", "A2"])


@test
def max_use_ends_the_daemon_between_requests(t):
    spool, d = t.make(activation="hold", max_use=20)
    replies = []

    def client(k):
        for i in range(100):
            replies.append(d.exchange(add("example.com", "C%dN%d" % (k, i))))

    clients = [threading.Thread(target=client, args=[k]) for k in range(8)]
    for c in clients:
        c.start()
    starts = 1
    while any(c.is_alive() for c in clients):
        if d.process.poll() is not None:
            eq(d.process.returncode, 0)
            d.start()
            starts += 1
        time.sleep(0.001)
    for c in clients:
        c.join()
    eq(len(replies), 800)
    eq(set(replies), {OK})
    eq(len(set(lines(spool, "example_com"))), 800)
    assert starts > 10, starts


@test
def a_silent_client_keeps_neither_others_nor_a_daemon_that_leaves(t):
    _, d = t.make(activation="hold", request_timeout="1000s", max_use=1)
    with d.connect() as silent:
        eq(silent.recv(100), ANNOUNCEMENT)
        for i in range(20):
            eq(d.exchange(add("example.com", "B%d" % i)), OK)
    with d.connect() as silent:
        silent.sendall(b"request\0")
        eq(d.exchange(add("example.com", "B0")), OK)
        eq(d.process.wait(TIMEOUT), 0)


# ---------------------------------------------------------------------- a changed configuration


def set_config(d, **settings):
    """Write fflushd.conf anew, in one piece."""
    with open(d.config + ".new", "w") as f:
        for name, value in settings.items():
            f.write("%s = '%s'\n" % (name, value))
    os.rename(d.config + ".new", d.config)


class Postfix:
    """A configuration directory for the real postconf(1), which waits for a second or two when
    main.cf has just been changed."""

    def __init__(self, t, spool):
        if not shutil.which("postconf", path="/usr/sbin:/usr/bin"):
            raise Skip("needs Postfix's postconf(1)")
        self.dir = os.path.join(t.base, "etc")
        self.main_cf = os.path.join(self.dir, "main.cf")
        self.spool = spool
        os.mkdir(self.dir, 0o755)
        with open(os.path.join(self.dir, "master.cf"), "w"):
            pass

    def write(self, text, ago=0, queue=None):
        with open(self.main_cf + ".new", "w") as f:
            f.write("queue_directory = %s\n%s\n" % (queue or self.spool.path, text))
        os.utime(self.main_cf + ".new", (time.time() - ago,) * 2)
        os.rename(self.main_cf + ".new", self.main_cf)


def make_with_postfix(t, text, ago=3600, env=None, **settings):
    spool, d = t.make(activation="hold", env=env)
    eq(d.exchange(send_file("AAAA")), OK)  # it handles signals
    eq(d.stop(), 0)
    p = Postfix(t, spool)
    p.write(text, ago)
    set_config(d, postfix_config_directory=p.dir, **({"max_idle": "1000s"} | settings))
    d.start()
    return spool, d, p


class Edits(threading.Thread):
    """main.cf is written over and over, as by a playbook."""

    def __init__(self, postfix, text, every=0.4):
        super().__init__()
        self.postfix, self.text, self.every = postfix, text, every
        self.ended = threading.Event()
        self.edit(0)
        self.start()

    def edit(self, n):
        self.postfix.write("%s\n# edit %d" % (self.text, n))

    def run(self):
        n = 0
        while not self.ended.wait(self.every):
            n += 1
            self.edit(n)

    def end(self):
        self.ended.set()
        self.join()


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
    eq(lines(spool, "c/c_test"), ["A1"])
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
    eq(len(lines(spool, "one_test")), n + 1)
    eq(lines(spool, "two_test"), ["A1"])
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
    eq(lines(spool, "one_test"), ["A1", "A2", "A3"])


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
    eq(lines(spool, "one_test"), ["A1"])
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
    eq(lines(spool, "one_test"), ["A1"])


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


@test
def a_wake_up_counts_though_its_client_has_not_read_the_announcement(t):
    spool, d = t.make()
    eq(d.exchange(add("warm.test", "B1")), OK)
    spool.log("old_test", b"A1\n", atime=-13 * 3600)
    with d.connect() as s:
        wait_for(lambda: s.recv(100, socket.MSG_PEEK) == ANNOUNCEMENT)
        s.sendall(b"W")
    wait_for(lambda: os.path.getsize(spool.join("flush/old_test")) == 0, "the wake-up was dropped")


@test
def a_log_that_may_not_grow_is_a_failure_and_no_more(t):
    spool, d = t.make(activation="hold")
    d.stop()
    d.command = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash"] + d.command  # 1 KiB
    d.start()
    spool.log("full_test", b"ABCDEF1\n" * 128)
    eq(d.exchange(add("full.test", "A1")), FAIL)
    eq(d.exchange(add("other.test", "A1")), OK)
    eq(len(lines(spool, "full_test")), 128)


@test
def etrn_during_a_refresh_wakes_qmgr_for_what_the_refresh_has_moved(t):
    spool, d = t.make()
    eq(d.exchange(add("warm.test", "B1")), OK)
    spool.put("deferred/A/A1")
    spool.log("first_test", b"A1\n", atime=-13 * 3600)
    spool.log("locked_test", b"A2\n", atime=-13 * 3600)
    with open(spool.join("flush/locked_test"), "rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        refreshing = Asking(d, REFRESH)
        try:
            wait_for(lambda: os.path.getsize(spool.join("flush/first_test")) == 0, timeout=2)
        except AssertionError:
            raise Skip("the locked log came first in the directory")
        eq(d.exchange(send_site("first.test")), OK)
        eq(set(spool.triggers()), set(b"FI"))
    eq(refreshing.reply(), OK)


@test
def a_connection_keeps_an_idle_daemon(t):
    _, d = t.make(activation="hold", max_idle="1s", request_timeout="3s")
    start = time.monotonic()
    with d.connect() as s:
        eq(s.recv(100), ANNOUNCEMENT)
        eq(receive_all(s), BAD)
        assert time.monotonic() - start > 2, "it left before the connection was done"
    eq(d.process.wait(TIMEOUT), 0)


def limited(d, n):
    """Restart it with so many descriptors at most."""
    d.stop()
    d.command = ["prlimit", "--nofile=%d:%d" % (n, n)] + d.command
    d.start()


@test
def with_few_descriptors_whoever_is_accepted_is_served(t):
    for n in (34, 40, 64, 128):
        spool, d = t.make(activation="hold")
        limited(d, n)
        d.exchange(REFRESH)
        clients = [d.connect() for _ in range(2 * n)]  # silent at first: some in the backlog
        for i, s in enumerate(clients):
            s.sendall(add("site%d.example" % (i % 7), "A%d" % i))
        for s in clients:
            with s:
                eq(receive_all(s).removeprefix(ANNOUNCEMENT), OK, "%d descriptors" % n)
        eq(sum(len(lines(spool, "site%d_example" % i)) for i in range(7)), 2 * n)
        eq([line for line in d.journal() if line[1] in "01234"], [])


@test
def with_few_descriptors_sends_and_refreshes_work_as_well(t):
    needs_postmap()
    table = os.path.join(t.base, "table")
    with open(table, "w") as f:
        f.write("/example$/ ok\n")
    os.utime(table, (0, 0))
    for n in (44, 64, 128):
        spool, d = t.make(activation="hold", hash_queue_names="deferred, flush", hash_queue_depth="2",
                          fast_flush_domains="regexp:" + table)
        limited(d, n)
        names = ["site%d_example" % i for i in range(2 * n)]
        for name in names:
            spool.put("flush/s/i/" + name, 0o600, b"A1\nA2\n", mtime=-14 * 3600)
        silent = [d.connect() for _ in range(n)]
        clients = [d.connect() for _ in names]
        for name, s in zip(names, clients):
            s.sendall(send_site(name.replace("_", ".")) if name[4] in "13579" else
                      add(name.replace("_", "."), "A3"))
        refresh = Asking(d, REFRESH)
        for s in silent:
            s.close()
        for s in clients:
            with s:
                eq(receive_all(s).removeprefix(ANNOUNCEMENT), OK, "%d descriptors" % n)
        eq(refresh.reply(), OK)
        wait_for(lambda: any("refresh: " in line for line in d.journal()), "no end of the refresh")
        eq([line for line in d.journal() if line[1] in "01234"], [])


@test
def too_few_descriptors_are_refused_at_the_start(t):
    spool, d = t.make(activation="hold")
    d.stop()
    d.command = ["prlimit", "--nofile=20:20"] + d.command
    d.start()
    eq(d.process.wait(TIMEOUT), 71)
    said = re.search(r"20 descriptors are allowed \(LimitNOFILE=\), at least (\d+) are needed",
                     d.stderr())
    assert said and int(said.group(1)) <= 32, d.stderr()
    d.command[1] = "--nofile=%s:%s" % (said.group(1), said.group(1))
    d.start()
    eq(d.exchange(add("example.com", "A1")), OK)


@test
def systemd_is_told(t):
    path = os.path.join(t.base, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        os.chmod(path, 0o666)
        notify.settimeout(TIMEOUT)
        _, d = t.make(activation="hold", max_idle="1s", env={
            "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"})
        told = set()
        start = time.monotonic()
        while not {"WATCHDOG=1", "READY=1", "STATUS=0 requests, 0 open connections"} <= told:
            told |= set(notify.recv(4096).decode().split("\n"))
        while time.monotonic() < start + 2.5:
            notify.recv(4096)
        assert d.process.poll() is None, "idle exit before five seconds trips systemd's limits"
        d.process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in told:
            told |= set(notify.recv(4096).decode().split("\n"))
        eq(d.process.wait(TIMEOUT), 0)


@test
def a_notify_socket_that_takes_nothing_holds_up_nobody(t):
    path = os.path.join(t.base, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        os.chmod(path, 0o666)
        notify.settimeout(TIMEOUT)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            try:
                while True:
                    other.sendto(b"X=1", path)
            except BlockingIOError:
                pass
            _, d = t.make(activation="hold", env={
                "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"})
            start = time.monotonic()
            while time.monotonic() < start + 2.5:  # two pings and two lines of status
                eq(d.exchange(add("example.com", "A1")), OK)
        told = set()
        while not {"WATCHDOG=1", "READY=1"} <= told:  # READY=1 is not lost: the start waits for it
            told |= set(notify.recv(4096).decode().split("\n"))


@test
def a_broken_configuration_is_reported_and_served_around(t):
    _, d = t.make(config="no_such_option = 1\n")
    r = subprocess.run([d.bin + "/fflushd", "--config", d.config, "--check-config"],
                       capture_output=True, text=True)
    eq(r.returncode, 78)
    assert "fflushd.conf:1: no such option 'no_such_option'" in r.stderr, r.stderr


@test
def a_daemon_without_sockets_says_so(t):
    _, d = t.make()
    r = subprocess.run([d.bin + "/fflushd", "--config", d.config], capture_output=True, text=True)
    eq(r.returncode, 64)
    assert "no listening stream sockets" in r.stderr, r.stderr


@test
def group_commit_writes_to_the_disk_before_it_answers(t):
    if not shutil.which("strace"):
        raise Skip("needs strace")
    trace = os.path.join(t.base, "trace")
    # Leaks cannot be looked for under strace.
    spool, d = t.make(activation="hold", sync="yes", env={"ASAN_OPTIONS": "detect_leaks=0"})
    d.stop()
    d.command = ["strace", "-D", "-o", trace, "-e", "trace=fdatasync,fsync,sendto,pwrite64"] + d.command
    if USER is not None:
        open(trace, "w").close()
        os.chown(trace, USER.pw_uid, USER.pw_gid)
    d.start()
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(d.exchange(add("example.com", "A2")), OK)
    d.stop()
    wait_for(lambda: "exited with" in read_text(trace))
    calls = re.findall(r"^(\w+)\((?:\d+, \"(\w+))?", read_text(trace), re.M)
    order = [name if name != "sendto" else text for name, text in calls
             if name != "sendto" or text in ("status",)]
    eq(order, ["pwrite64", "fdatasync", "fsync", "status", "pwrite64", "fdatasync", "status"],
       "the name of a new log is made durable as well")


# ------------------------------------------------------------------------------- the journal


def beside_a_journal(t, work, environment=(), **settings):
    """Do work(spool, daemon, journal) with a journal socket of our own, in a mount namespace; its
    result, by way of JSON."""
    if os.getuid() != 0:
        raise Skip("needs root for a mount namespace")
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(0x00020000) != 0:
                os._exit(77)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
            os.makedirs("/run/systemd/journal")
            journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            journal.bind("/run/systemd/journal/socket")
            os.chmod("/run/systemd/journal/socket", 0o666)
            with open(os.path.join(t.base, "1-stderr"), "w") as f:
                st = os.fstat(f.fileno())
            case = Case()
            spool, d = case.make(activation="hold", env=dict(environment), **settings)
            d.stop()
            d.stderr_path = f.name
            d.env["JOURNAL_STREAM"] = "%d:%d" % (st.st_dev, st.st_ino)
            d.start()
            result = json.dumps(work(spool, d, journal))
            case.close()
            os.write(write_fd, result.encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as f:
        result = f.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 77:
        raise Skip("no mount namespaces here")
    eq(code, 0)
    return json.loads(result)


def read_journal(journal):
    """What has come: the fields of each entry."""
    entries = []
    while True:
        try:
            entry = journal.recv(65536, socket.MSG_DONTWAIT).decode()
        except BlockingIOError:
            return entries
        entries.append(dict(line.split("=", 1) for line in entry.splitlines()))


def journal_entries(t, requests, environment):
    """Run requests with a journal of our own: fields of each entry."""
    def work(spool, d, journal):
        spool.put("deferred/A/ABC123")
        for request in requests:
            d.exchange(request)
        d.stop()
        return read_journal(journal)
    return beside_a_journal(t, work, environment, fast_flush_domains="example.com")


@test
def a_journal_that_takes_nothing_holds_up_no_request(t):
    n = 6000

    def work(spool, d, journal):
        for i in range(n):
            eq(d.exchange(send_site("no.test")), DENY)
            eq(d.exchange(add("example.com", "A%d" % i)), OK)
        eq(len(lines(spool, "example_com")), n)
        entries = read_journal(journal)
        while not any("were lost" in e["MESSAGE"] for e in entries):
            entries += read_journal(journal)
        return entries
    entries = beside_a_journal(t, work, fast_flush_domains="example.com")
    lost = [e for e in entries if "were lost" in e["MESSAGE"]]
    eq(sum(int(e["MESSAGE"].split()[0]) for e in lost) + len(entries) - len(lost), n)
    eq({e["PRIORITY"] for e in lost}, {"4"})


@test
def the_journal_has_a_structured_entry_for_each_decision(t):
    entries = journal_entries(t, [add("example.com", "ABC123"), send_site("EXAMPLE.com"),
                                  send_file("ABC123"), add("no.test", "A1"), b"junk\0", PURGE], {})
    sent, delivered, denied, bad, purged = entries
    for e in entries:
        eq((e["SYSLOG_IDENTIFIER"], e["SYSLOG_FACILITY"], len(e["MESSAGE_ID"])),
           ("postfix/fflushd", "2", 32))
        eq(e["FFLUSHD_CALLER_UID"], str(os.getuid()))
        assert int(e["FFLUSHD_CALLER_PID"]) > 1
    eq((sent["FFLUSHD_SITE"], sent["FFLUSHD_REQUEST"], sent["FFLUSHD_MOVED"], sent["PRIORITY"]),
       ("example.com", "send_site", "1", "6"))
    eq((delivered["FFLUSHD_QUEUE_ID"], delivered["FFLUSHD_MOVED"]), ("ABC123", "1"))
    eq((denied["FFLUSHD_SITE"], denied["FFLUSHD_STATUS"], denied["PRIORITY"]), ("no.test", "4", "5"))
    eq((bad["FFLUSHD_STATUS"], bad["PRIORITY"]), ("3", "4"))
    eq((purged["FFLUSHD_REQUEST"], purged["FFLUSHD_STATUS"]), ("purge", "0"))


@test
def the_journal_tells_who_asked_and_why(t):
    reason = ("reason", "ticket 7: \"Anna\"\n<0>forged")
    shown = 'ticket 7: "Anna"\\x0a<0>forged'
    own = b"reason\0" + reason[1].encode() + b"\0"
    requests = [send_site("example.com", reason), send_file("ABC123", reason), own + REFRESH,
                own + PURGE, send_site("no.test", reason),
                send_site("example.com", ("reason", "x" * 300), ("limit", "1")),
                send_site("example.com", ("reason", ""))]
    entries = journal_entries(t, requests, {})
    eq(len(entries), len(requests))
    for e in entries[:5]:
        eq(e["FFLUSHD_REASON"], shown)
        assert e["MESSAGE"].endswith("(uid %d, pid %s) (reason: %s)" % (
            os.getuid(), e["FFLUSHD_CALLER_PID"], shown)), e
    for e in entries[:4]:
        assert "FFLUSHD_MOVED" in e, e
    eq(entries[5]["FFLUSHD_REASON"], "x" * 200 + "...")
    assert "FFLUSHD_REASON" not in entries[6] and "reason" not in entries[6]["MESSAGE"]


@test
def adds_are_logged_at_debug_level_only(t):
    requests = [add("example.com", "ABC123")]
    eq(journal_entries(t, requests, {}), [])
    entries = journal_entries(t, requests, {"SYSTEMD_LOG_LEVEL": "debug"})
    eq([(e["FFLUSHD_SITE"], e["FFLUSHD_QUEUE_ID"], e["PRIORITY"]) for e in entries
        if e.get("FFLUSHD_REQUEST") == "add"], [("example.com", "ABC123", "7")])


# ---------------------------------------------------------------------------------- metrics


def samples(text):
    """A dictionary of the samples, whose last line must be the end."""
    lines = text.splitlines()
    eq(lines.pop(), "# EOF")
    found = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    eq(len(dict(found)), len(found), "a sample twice")
    return {k: int(v) for k, v in found}


@test
def metrics_are_what_prometheus_reads(t):
    if shutil.which("promtool") is None:
        raise Skip("needs promtool")
    spool, d = t.make()
    spool.log("a_test", b"A1\nA2\nA1\n")
    for args in ((), ("a.test", "b.test"), ("--top", "1", "--instance", 'x"y\\z')):
        text = d.ctl("metrics", *args).stdout
        r = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                           capture_output=True)
        eq((r.returncode, r.stdout + r.stderr), (0, ""), text)
    eq(text.count('{postfix_instance="x\\"y\\\\z"'), len(samples(text)))
    eq(d.exchange(PURGE), OK)
    text = d.ctl("metrics").stdout
    r = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                       capture_output=True)
    eq((r.returncode, r.stdout + r.stderr), (0, ""), text)


@test
def metrics_tell_what_the_logs_have_and_change_nothing(t):
    spool, d = t.make()
    spool.log("a_test", b"A1\nA2\nA1\n", mtime=-100, atime=-5000)
    spool.log("b_test", b"B1\n!!\nB2\nB3\nB4\n", mtime=-7000, atime=-200)
    spool.log("c_test", b"", mtime=-90000)
    spool.log("xn__bcher_kva_example", b"C1\n", mtime=-60, atime=-60)
    before = [os.stat(spool.join(f)) for f in spool.files("flush")]
    text = d.ctl("metrics", "--top", "2", "nosuch.test", "b.test", "xn--bcher-kva.example").stdout
    got = samples(text)
    eq([(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns) for s in before],
       [(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)
        for s in (os.stat(spool.join(f)) for f in spool.files("flush"))])
    eq([got["fflushd_" + k] for k in ("logs", "sites", "records", "unreadable_logs")],
       [4, 3, 8, 0])
    now = time.time()
    for key, age in (("change", 7000), ("flush", 5000)):
        assert abs(now - got["fflushd_oldest_%s_timestamp_seconds" % key] - age) < 60, got
    eq({k: v for k, v in got.items() if "site_records" in k or "site_messages" in k},
       {'fflushd_site_%s{site="%s"}' % (kind, site): n
        for site, records, messages in (("a.test", 3, 2), ("b.test", 4, 4), ("nosuch.test", 0, 0),
                                        ("xn--bcher-kva.example", 0, 0))
        for kind, n in (("records", records), ("messages", messages))})
    eq(got['fflushd_site_flushed_timestamp_seconds{site="nosuch.test"}'], 0)
    assert not [k for k in got if k.startswith("fflushd_requests")], "never started"
    eq(d.exchange(send_site("b.test")), OK)
    got = samples(d.ctl("metrics").stdout)
    eq((got['fflushd_requests_total{request="send_site",status="ok"}'],
        got['fflushd_messages_total{result="gone"}'], got["fflushd_starts_total"],
        got["fflushd_invalid_records_total"]), (1, 4, 1, 1))
    eq([k for k in got if "site=" in k], [])
    eq(json.loads(d.ctl("--json", "metrics").stdout)["records"], 4)


@test
def metrics_go_to_a_file_in_one_piece(t):
    spool, d = t.make()
    spool.log("a_test", b"A1\n")
    out = os.path.join(d.state, "fflushd.prom")
    with open(out, "w") as f:
        f.write("old")
    old = os.open(out, os.O_RDONLY)
    eq(d.ctl("metrics", "-o", out).stdout, "")
    eq(samples(read_text(out))["fflushd_records"], 1)
    eq(os.pread(old, 100, 0), b"old")  # another file, so nobody reads half of one
    os.close(old)
    eq(stat.S_IMODE(os.stat(out).st_mode), 0o644)
    eq([f for f in os.listdir(d.state) if f.startswith("fflushd.prom")], ["fflushd.prom"])
    os.mkdir(os.path.join(d.state, "dir.prom"))
    for target, code in (("/nosuch/fflushd.prom", 73), (os.path.join(d.state, "dir.prom"), 73)):
        r = d.ctl("metrics", "-o", target, check=False)
        eq(r.returncode, code)
        assert target in r.stderr, r.stderr
    eq(len([f for f in os.listdir(d.state) if f.startswith("dir.prom")]), 1)
    spool.put("flush/bad_test", 0o600, b"B1\n")
    os.remove(spool.join("flush/bad_test"))
    os.symlink("a_test", spool.join("flush/bad_test"))
    r = d.ctl("metrics", check=False)  # one bad log does not hide the others
    eq((r.returncode, samples(r.stdout)["fflushd_records"],
        samples(r.stdout)["fflushd_unreadable_logs"]), (74, 1, 1))
    with open(os.path.join(d.state, "counters"), "wb") as f:
        f.write(b"junk")
    r = d.ctl("metrics", check=False)
    assert "not of this version" in r.stderr and "fflushd_records 1" in r.stdout, r


# -------------------------------------------------------------------------------- fflushctl


@test
def fflushctl_says_what_happened(t):
    spool, d = t.make(fast_flush_domains="example.com")
    eq(d.ctl("add", "example.com", "ABC123").stdout, "")
    spool.put("deferred/A/ABC123")
    spool.put("deferred/D/DEF456")
    eq(d.ctl("flush", "example.com").stdout, "example.com: 1 found, 1 moved\n")
    eq(d.ctl("deliver", "DEF456").stdout, "DEF456: moved\n")
    eq(d.ctl("refresh").stdout, "refresh: 0 found, 0 moved\n")
    for args, code, text in ((("flush", "no.test"), 77, "not in fast_flush_domains"),
                             (("deliver", "DEAD1"), 66, ""),
                             (("add", "example.com", "../x"), 65, "not a queue ID"),
                             (("flush",), 64, "wrong number of arguments"),
                             (("frobnicate",), 64, "unknown command"),
                             ((), 64, "no command"),
                             (("--timeout", "1x", "refresh"), 64, "not a time")):
        r = d.ctl(*args, check=False)
        eq((args, r.returncode), (args, code))
        assert text in r.stderr, r.stderr
    eq(d.ctl("-q", "flush", "example.com").stdout, "")
    d.stop()
    r = d.ctl("flush", "example.com", check=False)
    eq(r.returncode, 69)
    assert "cannot connect" in r.stderr, r.stderr


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


@test
def fflushctl_speaks_the_old_dialect_as_well(t):
    spool, d = t.make(protocol_announcement="off")
    with d.connect() as s:
        s.sendall(add("example.com", "ABC123"))
        eq(receive_all(s), OK)
    eq(d.ctl("flush", "example.com").stdout, "example.com: 1 found, 0 moved, 1 gone\n")
    eq(spool.read("flush/example_com"), b"")


if __name__ == "__main__":
    main()
