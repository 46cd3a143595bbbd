#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The vectors of vectors/vectors.py, each sent in several ways; and those that are more than one exchange."""

import fcntl
import os
import socket
import sys
import threading
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)) + d for d in ("/../lib", "/vectors")]

from basics import HOUR, TIMEOUT, eq, wait_for
from client import ANNOUNCEMENT, BAD, OK, add, bind, cut, random_cuts, receive_all, send_file, talk
from harness import main, test
from playing import (Failures, PAUSE, QUIET, Service, WARNING, at_once, check_effect, clean, is_silent,
                     open_client, receive, set_up, snapshot)
from vectors import ABC, ALL, FLUSHED, LISTED, OLD, RECORDED, SEND, TABLE, log, new


def whole(v, request):
    return v.cuts, PAUSE if v.cuts else 0


def byte_by_byte(v, request):
    """One byte each, as far as the daemon reads at all: it refuses what is longer than 64 KiB."""
    return range(1, min(len(request), 65536 + 100) + 1), 0


def run_table(t, cuts_of, what, vectors, **settings):
    services = {domains: Service(t, fast_flush_domains=domains, **settings) for domains in (LISTED, ALL)}
    failures = Failures()
    for v in vectors:
        for domains in v.on:
            with failures:
                services[domains].run(v, cuts_of, "%s, fast_flush_domains = %s" % (what, domains))
    failures.end()


def vectors():
    possible = [v for v in TABLE if v.possible()]
    if len(possible) < len(TABLE):
        print("# %d vectors left out, only root can set them up" % (len(TABLE) - len(possible)))
    return possible


@test
def each_vector_has_its_reply_and_its_effect(t):
    run_table(t, whole, "sent whole", vectors())


@test
def a_request_that_comes_byte_by_byte_is_the_same_request(t):
    run_table(t, byte_by_byte, "sent byte by byte", vectors())


@test
def a_request_that_comes_in_random_pieces_is_the_same_request(t):
    def anywhere(v, request):
        return random_cuts(t.rng, request), 0

    shuffled = vectors()
    t.rng.shuffle(shuffled)  # nor does a vector depend on those before it
    run_table(t, anywhere, "sent in random pieces", shuffled)


@test
def pieces_may_come_slowly(t):
    def slow_cuts(v, request):
        return random_cuts(t.rng, request), PAUSE

    numbers = {"1", "5", "23", "25a", "54", "66", "83a", "86", "95a", "99a"}
    run_table(t, slow_cuts, "sent slowly", [v for v in TABLE if v.n in numbers])


@test
def without_announcement_the_reply_is_the_first_that_is_sent(t):
    run_table(t, at_once, "old dialect", vectors(), announced=False, protocol_announcement="off")


@test
def qmgr_on_a_socket_gets_a_nul_behind_each_trigger(t):
    run_table(t, at_once, "qmgr on a socket", vectors(), qmgr="socket",
              protocol_announcement="on")


# ---------------------------------------------------------- vectors that are more than one exchange

@test
def the_announcement_comes_before_the_client_has_said_anything(t):
    for dialect in ("auto", "on"):
        _, d = t.make(protocol_announcement=dialect)
        with d.connect() as s:
            eq(receive(s, 31), b"protocol\0queue_flush_protocol\0\0", dialect)
            is_silent(s)
            s.sendall(ABC)
            eq(receive_all(s), OK, dialect)
    _, d = t.make(protocol_announcement="off")
    with d.connect() as s:
        is_silent(s)
        s.sendall(ABC)
        eq(receive_all(s), OK, "off")


@test
def half_a_request_is_waited_for(t):
    service = Service(t)
    spool, d = service.spool, service.daemon
    set_up(spool, OLD | log(b"", "example_net"))
    before = snapshot(spool)
    halves = {"12": (b"request\0add\0site\0example.net\0queue_id\0ABC123\0", b"\0"),
              "26": (b"W", b"\0")}
    clients = {n: open_client(d, first) for n, (first, _) in halves.items()}
    for n, s in clients.items():
        is_silent(s)
        check_effect(spool, before, {}, 0, "vector %s, half of it sent" % n)
    start = time.time()
    for n, s in clients.items():
        s.sendall(halves[n][1])
        with s:
            eq(receive_all(s), OK, "vector %s, all of it sent" % n)
    check_effect(spool, before,
                 FLUSHED | log(b"ABC123\n", "example_net", mtime=0, atime=-HOUR), start,
                 "vectors 12 and 26")


@test
def a_client_that_hangs_up_early_is_served_all_the_same(t):
    service = Service(t, fast_flush_domains=LISTED)
    spool, d = service.spool, service.daemon

    set_up(spool, RECORDED)
    before = snapshot(spool)
    service.journal.lines()
    service.qmgr.triggers()
    d.connect().close()
    d.exchange(send_file("A"))  # by now the other one has been dealt with
    check_effect(spool, before, {}, 0, "vector 30")
    eq(service.qmgr.triggers(), b"", "vector 30: triggers")
    service.journal.check(QUIET, "vector 30 (ours: a probe is nothing to report)")

    for number, request, after, trig in (
            ("57", add("example.net", "ABC123"), new(b"ABC123\n", "example_net"), b""),
            ("81", SEND, FLUSHED, b"FI")):
        for pieces in ([request], cut(request, "bytes")):
            set_up(spool, RECORDED)
            before = snapshot(spool)
            service.qmgr.triggers()
            start = time.time()
            with d.connect() as s:  # which reads nothing, not even the announcement
                for piece in pieces:
                    s.sendall(piece)
            path = next(iter(after))
            wait_for(lambda: os.path.lexists(spool.join(path)) != (after[path] is None),
                     "vector %s: no effect" % number)
            d.exchange(send_file("A"))
            check_effect(spool, before, after, start, "vector " + number)
            eq(service.qmgr.triggers(), trig, "vector %s: triggers" % number)
            service.journal.check(QUIET, "vector " + number)


@test
def a_connection_has_one_request(t):
    spool, d = t.make()
    with open_client(d, add("example.com", "AAA111")) as s:
        eq(receive(s, len(OK)), OK, "vector 55")
        eq(receive(s, 1), b"", "vector 55: end")
        try:
            s.sendall(add("example.com", "BBB222"))
            raise AssertionError("vector 55: the second request found a reader")
        except ConnectionError:
            pass
    eq(d.exchange(send_file("A")), OK)
    eq(spool.read("flush/example_com"), b"AAA111\n", "vector 55")


@test
def what_a_log_had_before_the_daemon_started_is_not_known(t):
    spool, d = t.make()
    spool.log("example_com", b"ABC123\n")
    eq(d.exchange(ABC), OK, "vector 58")
    eq(spool.read("flush/example_com"), b"ABC123\nABC123\n", "vector 58")
    eq(d.exchange(ABC), OK, "vector 58, again")
    eq(spool.read("flush/example_com"), b"ABC123\nABC123\n", "vector 58: ours is known now")


class Locked:
    """Somebody else has the lock of a log."""

    def __init__(self, spool, path="flush/example_com", lock=fcntl.flock):
        self.fd = os.open(spool.join(path), os.O_RDWR)
        lock(self.fd, fcntl.LOCK_EX)

    def release(self):
        os.close(self.fd)


@test
def an_add_waits_for_the_lock_and_for_no_other(t):
    spool, d = t.make()
    spool.log("example_com", b"ABC123\n")

    lock = Locked(spool)
    with open_client(d, add("example.com", "NEW1")) as s:
        is_silent(s, 0.3)
        eq(spool.read("flush/example_com"), b"ABC123\n", "vector 60, locked")
        lock.release()
        eq(receive_all(s), OK, "vector 60")
    eq(spool.read("flush/example_com"), b"ABC123\nNEW1\n", "vector 60")

    lock = Locked(spool, lock=fcntl.lockf)
    eq(d.exchange(add("example.com", "NEW2")), OK, "vector 60, lock of fcntl")
    eq(spool.read("flush/example_com"), b"ABC123\nNEW1\nNEW2\n", "vector 60, lock of fcntl")
    lock.release()


@test
def a_send_waits_for_the_lock(t):
    spool, d = t.make()
    set_up(spool, RECORDED)
    lock = Locked(spool)
    with open_client(d, SEND) as s:
        is_silent(s, 0.3)
        eq(spool.files("incoming"), [], "locked")
        eq(spool.triggers(), b"", "locked")
        lock.release()
        eq(receive_all(s), OK)
    eq(spool.files("incoming"), ["incoming/ABC123"])
    eq(spool.read("flush/example_com"), b"")
    eq(spool.triggers(), b"FI")


@test
def a_record_is_written_to_the_log_that_has_the_name_then(t):
    spool, d = t.make()
    log_path, other_path = spool.join("flush/example_com"), spool.join("flush/other")

    def remove():
        os.unlink(log_path)

    def rename():
        os.rename(log_path, other_path)

    def replace():
        spool.log("other", b"DEF456\n")
        os.rename(other_path, log_path)

    for what, take_away, wanted in (("removed", remove, b"NEW1\n"), ("renamed", rename, b"NEW1\n"),
                                    ("replaced", replace, b"DEF456\nNEW1\n")):
        clean(spool)
        spool.log("example_com", b"")
        lock = Locked(spool)
        with open_client(d, add("example.com", "NEW1")) as s:
            is_silent(s)
            take_away()
            lock.release()
            eq(receive_all(s), OK, "vector 61, " + what)
        eq(spool.read("flush/example_com"), wanted,
           "vector 61 (flush(8) loses the record), " + what)
        if take_away is rename:
            eq(spool.read("flush/other"), b"", "vector 61, " + what)


@test
def adds_to_a_locked_log_wait_while_others_are_answered(t):
    spool, d = t.make()
    spool.log("example_com", b"")
    lock = Locked(spool)
    waiting = [open_client(d, add("example.com", "ID%d" % i)) for i in range(8)]
    for i in range(20):
        eq(d.exchange(add("other.example.com", "OTHER%d" % i)), OK, "vector 109")
    for s in waiting:
        is_silent(s, 0.01)
    eq(spool.read("flush/example_com"), b"", "vector 109, locked")
    eq(len(spool.read("flush/other_example_com").splitlines()), 20, "vector 109, others")
    lock.release()
    for s in waiting:
        with s:
            eq(receive_all(s), OK, "vector 109")
    eq(sorted(spool.read("flush/example_com").splitlines()), [b"ID%d" % i for i in range(8)],
       "vector 109")


@test
def a_trigger_that_nobody_takes_is_no_failure(t):
    def missing(spool):
        pass

    def no_socket(spool):
        spool.put("public/qmgr", 0o666, b"")

    def nobody_listens(spool):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            bind(s, spool.join("public/qmgr"))
        os.chmod(spool.join("public/qmgr"), 0o666)

    def no_reader(spool):
        os.mkfifo(spool.join("public/qmgr"), 0o666)
        spool.own(spool.join("public/qmgr"))

    # flush(8) warns of the first two at once and says nothing of the others; ours tries again
    # after trigger_timeout and then has a notice for each of F and I.
    services = []
    for what, put in (("missing", missing), ("not a socket", no_socket),
                      ("nobody listens", nobody_listens), ("no reader", no_reader)):
        service = Service(t, qmgr=None, trigger_timeout="3s")
        put(service.spool)
        set_up(service.spool, RECORDED)
        before = snapshot(service.spool)
        service.journal.lines()
        start = time.time()
        eq(service.daemon.exchange(SEND), OK, "vector 84, " + what)
        check_effect(service.spool, before, FLUSHED, start, "vector 84, " + what)
        service.journal.check(QUIET, "vector 84, " + what)
        services.append((what, service))
    for what, service in services:
        lines = []

        def notices():
            lines.extend(service.journal.lines())
            return sum(level == 5 for level, _ in lines) == 2

        wait_for(notices, "vector 84, %s: no notice" % what)
        eq([line for line in lines if line[0] <= 4], [], "vector 84, " + what)
    eq(os.path.getsize(services[1][1].spool.join("public/qmgr")), 0,
       "vector 84: what is neither socket nor FIFO is not written to")


class Timed(threading.Thread):
    """A client in the background: what it got, and after what time."""

    def __init__(self, daemon, data, pieces=None, pause=0.0):
        super().__init__(daemon=True)
        self.server, self.data, self.pieces, self.pause = daemon, data, pieces, pause
        self.got = self.seconds = None
        self.start()

    def run(self):
        begin = time.monotonic()
        self.got = talk(self.server, self.data, pieces=self.pieces, pause=self.pause)
        self.seconds = time.monotonic() - begin

    def check(self, got, least, most, what):
        self.join(TIMEOUT)
        eq(self.got, ANNOUNCEMENT + got, what)
        if not least <= self.seconds <= most:
            raise AssertionError("%s: after %.2f s, wanted %.1f to %.1f s"
                                 % (what, self.seconds, least, most))


@test
def clients_that_take_too_long_are_closed(t):
    late = 20  # what a loaded machine may add
    service = Service(t, fast_flush_domains=LISTED, ipc_timeout="5s", request_timeout="100s")
    spool, d = service.spool, service.daemon
    service.journal.lines()
    first = Timed(d, b"")
    wake_up = Timed(d, b"W")
    half = Timed(d, b"request\0add\0site\0exam")
    slow = Timed(d, ABC, [10, 20, 40], pause=2)
    overall = Service(t, ipc_timeout="5s", request_timeout="6s")
    overall.journal.lines()
    dribble = Timed(overall.daemon, add("example.com", 200 * "A"), "bytes", pause=0.3)

    first.check(BAD, 4.9, 5 + late, "vector 106: silence")
    wake_up.check(b"", 4.9, 5 + late, "vector 107: W and then silence (ours: with a warning)")
    half.check(b"", 4.9, 5 + late, "vector 107: half an add and then silence")
    slow.check(OK, 5.9, 6 + late, "vector 108: the time-out is that of one read")
    eq(spool.read("flush/example_com"), b"ABC123\n", "vector 108")
    dribble.check(b"", 5.9, 6 + late, "vector 108, ours: with a limit for all of it")
    eq(overall.spool.files("flush"), [], "vector 108, ours: with a limit for all of it")
    eq(len([line for line in service.journal.lines() if line[0] <= 4]), 3, "one warning each")
    overall.journal.check(WARNING, "vector 108, ours: with a limit for all of it")


if __name__ == "__main__":
    main()
