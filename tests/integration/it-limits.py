#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Bad input, slow clients, and what runs out: the disk, descriptors, the size of a file."""

import os
import re
import resource
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, TIMEOUT, USER, eq, wait_for
from client import (ANNOUNCEMENT, Asking, BAD, DENY, DETAIL, FAIL, OK, PURGE, REFRESH, add, counts,
                    receive_all, send_site)
from harness import main, test
from postfix import needs_postmap


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
    eq(len(spool.lines("example_com")), 20)


@test
def a_dribbling_client_is_closed_by_the_time_for_the_whole_request(t):
    _, d = t.make(request_timeout="1s", ipc_timeout="1s")
    with d.connect() as s:
        start = time.monotonic()
        try:
            for byte in add("example.com", "A" * 2000):
                s.sendall(bytes([byte]))
                time.sleep(0.02)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - start < 20
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
    spool, d = t.make(activation="hold", request_timeout="15s")
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
    time.sleep(16)  # longer than request_timeout
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
             len(spool.lines("example_com")) == 50)
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
        eq(spool.lines("new_test"), ["A1"])
    finally:
        subprocess.run(["umount", "-l", spool.join("flush")], check=True)


@test
def a_log_that_may_not_grow_is_a_failure_and_no_more(t):
    spool, d = t.make(activation="hold")
    d.stop()
    d.command = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash"] + d.command  # 1 KiB
    d.start()
    spool.log("full_test", b"ABCDEF1\n" * 128)
    eq(d.exchange(add("full.test", "A1")), FAIL)
    eq(d.exchange(add("other.test", "A1")), OK)
    eq(len(spool.lines("full_test")), 128)


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
        eq(sum(len(spool.lines("site%d_example" % i)) for i in range(7)), 2 * n)
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


if __name__ == "__main__":
    main()
