#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""From the start to the exit: activation, idle exit, counters that outlive it, what systemd is told."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TIMEOUT, eq
from client import ANNOUNCEMENT, Asking, BAD, DENY, OK, PURGE, REFRESH, add, receive_all, send_file, send_site
from harness import main, test


@test
def idle_exit_and_reactivation_lose_nothing(t):
    spool, d = t.make(activation="hold", max_idle="1s")
    eq(d.exchange(add("example.com", "A1")), OK)
    eq(d.process.wait(TIMEOUT), 0)
    waiting = Asking(d, add("example.com", "A2"))  # in the backlog, nobody there
    d.start()
    eq(waiting.reply(), OK)
    eq(spool.lines("example_com"), ["A1", "A2"])


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
    eq(spool.lines("example_com"), ["A1", "A2"])


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
    eq(len(set(spool.lines("example_com"))), 800)
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


@test
def a_connection_keeps_an_idle_daemon(t):
    _, d = t.make(activation="hold", max_idle="1s", request_timeout="3s")
    start = time.monotonic()
    with d.connect() as s:
        eq(s.recv(100), ANNOUNCEMENT)
        eq(receive_all(s), BAD)
        assert time.monotonic() - start > 2, "it left before the connection was done"
    eq(d.process.wait(TIMEOUT), 0)


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
        left = d.process.poll() is not None
        assert not left or time.monotonic() > start + 5, "idle exit before that trips systemd's limits"
        d.process.send_signal(signal.SIGTERM)
        while "STOPPING=1" not in told:
            told |= set(notify.recv(4096).decode().split("\n"))
        eq(d.process.wait(TIMEOUT), 0)


@test
def a_young_daemon_drains_when_it_is_old_enough_and_not_before(t):
    """A timer counts from the start of a turn, so it comes too early by the time the turn had taken. A
    daemon that drained then could not leave, and would keep clients waiting in vain."""
    path = os.path.join(t.base, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(path)
        os.chmod(path, 0o666)
        notify.settimeout(TIMEOUT)
        _, d = t.make(activation="hold", max_use=64, env={"NOTIFY_SOCKET": path})
        while b"READY=1" not in notify.recv(4096):
            pass
        start = time.monotonic()
        d.process.send_signal(signal.SIGSTOP)
        clients = [Asking(d, add("site%d.test" % i, "A%d" % i)) for i in range(64)]
        while not all(c.answered() for c in clients):  # in one turn, which takes long this way
            d.process.send_signal(signal.SIGCONT)
            time.sleep(0.0002)
            d.process.send_signal(signal.SIGSTOP)
            time.sleep(0.01)
        d.process.send_signal(signal.SIGCONT)
        eq({c.reply() for c in clients}, {OK})
        eq(d.process.poll(), None)
        time.sleep(max(0, start + 4.8 - time.monotonic()))
        while d.process.poll() is None and time.monotonic() < start + 6:
            with d.connect() as s:
                s.settimeout(0.05)
                s.sendall(add("example.com", "B1"))
                try:
                    receive_all(s)
                except socket.timeout:
                    break
        eq(d.process.wait(TIMEOUT), 0)
        took = time.monotonic() - start
        assert 4.5 < took < 7, "it left after %.1f s" % took


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
def each_value_names_the_file_that_it_is_from(t):
    _, d = t.make()
    extra = os.path.join(os.path.dirname(d.config), "conf.d/10-more.conf")
    os.mkdir(os.path.dirname(extra), 0o755)
    with open(extra, "w") as f:
        f.write("max_idle = 7s\n")
    r = subprocess.run([d.bin + "/fflushd", "--config", d.config, "--check-config"],
                       capture_output=True, text=True)
    eq(r.returncode, 0, r.stderr)
    for line in ("max_idle = '7s' # " + extra, "fast_flush_domains = 'static:all' # " + d.config,
                 "max_use = '0' # default"):
        assert line + "\n" in r.stdout, (line, r.stdout)


@test
def a_daemon_without_sockets_says_so(t):
    _, d = t.make()
    r = subprocess.run([d.bin + "/fflushd", "--config", d.config], capture_output=True, text=True)
    eq(r.returncode, 64)
    assert "no listening stream sockets" in r.stderr, r.stderr


if __name__ == "__main__":
    main()
