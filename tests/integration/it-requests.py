#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The five requests, one after the other, and what they do; tables that say which sites are eligible."""

import fcntl
import os
import re
import shutil
import socket
import stat
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, TIMEOUT, USER, eq, read_text, wait_for
from client import (ANNOUNCEMENT, Asking, DENY, DETAIL, FAIL, OK, PURGE, REFRESH, add, bind, counts,
                    receive_all, send_file, send_site)
from harness import main, test
from postfix import needs_postmap
from spool import queue_id


@test
def adds_are_recorded_once_and_a_send_moves_exactly_that_site(t):
    spool, d = t.make()
    for queue_id_ in ("ABC123", "ABC123", "DEF456", "GONE1"):
        eq(d.exchange(add("Example.COM", queue_id_)), OK)
    eq(d.exchange(add("other.test", "FED321")), OK)
    for i in ("ABC123", "DEF456", "FED321"):
        spool.put("deferred/%s/%s" % (i[0], i))
    eq(spool.lines("example_com"), ["ABC123", "DEF456", "GONE1"])
    reply = counts(d.exchange(send_site("example.com", DETAIL)))
    eq((reply["status"], reply["found"], reply["moved"], reply["gone"]), (0, 3, 2, 1))
    eq(spool.files("incoming"), ["incoming/ABC123", "incoming/DEF456"])
    eq(spool.files("deferred"), ["deferred/F/FED321"])
    eq(spool.read("flush/example_com"), b"")
    eq(spool.triggers(), b"FI")
    eq(spool.lines("other_test"), ["FED321"])


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
    eq(spool.lines("example_com"), ["A1", "B2"])


@test
def send_file_marks_and_moves_one_message_and_merges_triggers(t):
    spool, d = t.make()
    spool.put("deferred/A/ABC123", 0o710)
    eq(counts(d.exchange(send_file("ABC123", DETAIL)))["moved"], 1)
    st = os.stat(spool.join("incoming/ABC123"))
    eq(stat.S_IMODE(st.st_mode), 0o750)
    assert abs(st.st_mtime - time.time()) < 60
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
    eq(spool.lines("dups_test"), ids)
    eq(len(spool.lines("few_test")), 400)


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
def what_could_not_be_recorded_again_is_not_refreshed(t):
    """Not while the list cannot be decided: deferred again, the messages would lose their records."""
    needs_postmap()
    table = os.path.join(t.base, "table")
    for domains, bad in (("known.test, /nonexistent/list", True), ("known.test, fail:oops", True),
                         ("known.test, texthash:" + table, True), ("texthash:" + table, False)):
        if not bad:
            with open(table, "w") as f:
                f.write("known.test x\n")
        spool, d = t.make(fast_flush_domains=domains)
        spool.put("deferred/A/A1")
        spool.log("known_test", b"A1\n", atime=-13 * 3600)
        for request in (REFRESH, PURGE, b"W\0"):
            eq((domains, request, d.exchange(request)), (domains, request, FAIL if bad else OK))
        if bad:
            eq((spool.lines("known_test"), spool.files("incoming")), (["A1"], []), domains)
            assert "<3>" in d.stderr() and "refresh: failed: " in d.stderr(), d.stderr()
            eq(d.exchange(send_site("known.test")), OK, "decided by what is before the error")
        wait_for(lambda: spool.files("incoming") == ["incoming/A1"], domains)


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
    eq(spool.lines("example_com"), ["ABC1"])


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
def etrn_during_a_refresh_wakes_qmgr_for_what_the_refresh_has_moved(t):
    spool, d = t.make()
    eq(d.exchange(add("warm.test", "B1")), OK)
    for name, i in (("one_test", "A1"), ("two_test", "A2")):
        spool.put("deferred/A/" + i)
        spool.log(name, (i + "\n").encode(), atime=-13 * 3600)
    # In the order of the directory, as the refresh goes through it.
    first, locked = [n for n in os.listdir(spool.join("flush")) if n != "warm_test"]
    with open(spool.join("flush", locked), "rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        refreshing = Asking(d, REFRESH)
        wait_for(lambda: os.path.getsize(spool.join("flush", first)) == 0, "the first is not sent")
        eq(d.exchange(send_site(first.replace("_", "."))), OK)
        eq(set(spool.triggers()), set(b"FI"))
    eq(refreshing.reply(), OK)


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
                             (("flush",), 64, "usage: fflushctl flush PATTERN"),
                             (("frobnicate",), 64, "unknown command"),
                             ((), 64, "no command"),
                             (("--timeout", "1x", "refresh"), 64, "--timeout must be a time")):
        r = d.ctl(*args, check=False)
        eq((args, r.returncode), (args, code))
        assert text in r.stderr, r.stderr
    eq(d.ctl("-q", "flush", "example.com").stdout, "")
    d.stop()
    r = d.ctl("flush", "example.com", check=False)
    eq(r.returncode, 69)
    assert "cannot connect" in r.stderr, r.stderr


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
