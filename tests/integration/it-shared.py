#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""flush(8) and fflushd on one queue directory: each lives with what the other writes.

Needs root, as master(8) does, and an installed Postfix; else the tests are skipped.
"""

import os
import random
import re
import sys
import threading
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)) + d for d in ("/../lib", "/compare")]

from basics import HOUR, USER, eq, wait_for
from client import ANNOUNCEMENT, OK, REFRESH, add, send_site, talk
from daemon import Daemon
from harness import SEED, main, test
from original import Original
from postfix import postfix_default
from queuefiles import moved, put, records
from spool import Spool


def share(t):
    """(spool, flush(8), fflushd) on one queue directory."""
    base = os.path.join(t.base, "shared")
    os.mkdir(base, 0o755)
    postfix_default("mail_owner")  # may skip
    os.chown(base, USER.pw_uid, USER.pw_gid)
    spool = Spool(base)
    t.open.append(spool)
    original = Original(t, spool, base).start()
    ours = Daemon(spool, os.path.dirname(spool.path))
    t.open.insert(t.open.index(original), ours)
    return spool, original, ours


def in_parallel(*calls):
    errors = []

    def run(call):
        try:
            call()
        except Exception as e:  # told to the main thread
            errors.append(e)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def ask(server, data, wanted=OK):
    eq(talk(server, data).removeprefix(ANNOUNCEMENT), wanted, repr(data))


def numbered_ids(n, start=0):
    return ["%05X%04X" % (i * 7919 % 1000000, i) for i in range(start, start + n)]


def recorded(spool, log="flush/example_com"):
    """The IDs of a log, each of which must be whole."""
    data = spool.read(log)
    for text, whole in records(data):
        if text != b"" and not (whole and re.fullmatch(rb"[0-9A-F]{9}", text)):
            raise AssertionError("a torn record, %r, in %r" % (text, data[:2000]))
    return {text.decode() for text, _ in records(data)} - {""}


@test
def records_of_either_server_are_sent_by_the_other(t):
    spool, *servers = share(t)
    for i, (writer, sender) in enumerate((servers, servers[::-1]) * 2):
        ids = numbered_ids(20, i * 20)
        for queue_id in ids:
            put(spool, "deferred/%s/%s" % (queue_id[0], queue_id))
            ask(writer, add("example.com", queue_id))
        eq(sorted(recorded(spool)), sorted(ids), "records")
        if i < 2:
            ask(sender, send_site("Example.COM"))
        else:
            old = time.time() - 13 * HOUR
            os.utime(spool.join("flush/example_com"), (old, old))
            ask(sender, REFRESH)
        eq(moved(spool) & set(ids), set(ids), "moved")
        eq(spool.read("flush/example_com"), b"")


@test
def fflushctl_refreshes_and_purges_with_either_server(t):
    spool, original, ours = share(t)
    for server in (original, ours):
        for command in ("refresh", "purge"):
            old = time.time() - 13 * HOUR
            queue_id = numbered_ids(1, len(moved(spool)))[0]
            put(spool, "deferred/%s/%s" % (queue_id[0], queue_id))
            ask(server, add("example.com", queue_id))
            os.utime(spool.join("flush/example_com"), (old, old))
            ours.ctl("--socket", server.socket_path, command)
            # flush(8) has no request "purge": it hangs up or refuses, and that is the end of it
            wait_for(lambda: queue_id in moved(spool), command)


@test
def folded_logs_of_flush_are_sent_by_a_refresh(t):
    """a-b.example has another log here, so only a refresh finds what flush(8) recorded."""
    spool, original, ours = share(t)
    put(spool, "deferred/A/ABC123")
    ask(original, add("a-b.example", "ABC123"))
    ask(ours, send_site("a-b.example"))
    eq(spool.read("flush/a_b_example"), b"ABC123\n")
    old = time.time() - 13 * HOUR
    os.utime(spool.join("flush/a_b_example"), (old, old))
    ask(ours, REFRESH)
    eq(moved(spool), {"ABC123"})
    # And the way back: a name that flush(8) never makes is one that its refresh takes.
    put(spool, "deferred/D/DEF456")
    ask(ours, add("a-b.example", "DEF456"))
    os.utime(spool.join("flush/aDb_example"), (old, old))
    ask(original, REFRESH)
    eq(moved(spool), {"ABC123", "DEF456"})
    eq(spool.read("flush/aDb_example"), b"")


@test
def adds_to_both_servers_at_once_lose_nothing(t):
    spool, *servers = share(t)
    ids = numbered_ids(1200)

    def add_some(n):
        rng = random.Random("%d adds %d" % (SEED, n))
        for queue_id in ids[n::6]:
            ask(rng.choice(servers), add("example.com", queue_id))

    in_parallel(*(lambda n=n: add_some(n) for n in range(6)))
    eq(recorded(spool), set(ids), "records")
    eq(len(spool.read("flush/example_com").splitlines()), len(ids), "no duplicates were sent")


def add_while_others_send(t, adders, senders, n=600):
    """Every message is afterwards either moved or still recorded."""
    spool, *servers = share(t)
    ids = numbered_ids(n)
    for queue_id in ids:
        put(spool, "deferred/%s/%s" % (queue_id[0], queue_id))
    adding = threading.Semaphore(0)
    finished = []

    def add_some(k):
        try:
            for i, queue_id in enumerate(ids[k::4]):
                ask(servers[adders[i % len(adders)]], add("example.com", queue_id))
                adding.release()
        finally:
            finished.append(k)
            adding.release()

    def send_again_and_again(server):
        adding.acquire()
        while len(finished) < 4:
            ask(server, send_site("example.com"))

    in_parallel(*(lambda k=k: add_some(k) for k in range(4)),
                *(lambda s=s: send_again_and_again(servers[s]) for s in senders))
    rest = recorded(spool)
    eq(set(ids) - moved(spool) - rest, set(), "messages neither moved nor recorded")
    for server in servers:
        ask(server, send_site("example.com"))
    eq(moved(spool), set(ids), "moved in the end")
    eq(recorded(spool), set(), "left in the log")


@test
def flush_sends_while_fflushd_adds(t):
    add_while_others_send(t, [1], [0])


@test
def fflushd_sends_while_flush_adds(t):
    add_while_others_send(t, [0], [1])


@test
def both_send_while_both_add(t):
    add_while_others_send(t, [0, 1], [0, 1])


if __name__ == "__main__":
    main()
