# SPDX-License-Identifier: MIT
"""The daemon lives through changes of the configuration, of Postfix and of the queue directory."""

import json

from basics import eq
from booted import SOCKET, TOOLS, active, ask, clean, drop_in, g, load, main_pid, records
from harness import test

SPOOL = "/var/spool/postfix"
CACHE = "/var/cache/fflushd/postfix/postconf"

# Adds one after the other until a file appears; prints how many got which reply, and the longest.
STREAM = r"""
import collections, json, os, sys, time
sys.path.insert(0, "/opt")
import mailhost
path, site, end = sys.argv[1:]
counts, longest, n = collections.Counter(), 0, 0
open("/tmp/begun", "w").close()
while not os.path.exists(end):
    start = time.monotonic()
    counts[mailhost.exchange(path, mailhost.request("add", ("site", site), ("queue_id", "B%X" % n)))] += 1
    longest = max(longest, time.monotonic() - start)
    n += 1
    time.sleep(0.02)
print(json.dumps({"counts": counts, "longest": longest}))
"""

# A client that has connected when something happens to the path, and then asks.
HOLD = r"""
import os, socket, sys, time
sys.path.insert(0, "/opt")
import mailhost
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
    s.settimeout(30)
    s.connect(sys.argv[1])
    print("waiting", flush=True)
    while not os.path.exists("/tmp/go"):
        time.sleep(0.01)
    s.sendall(mailhost.request("send_file", ("queue_id", "AAAA")))
    while s.recv(4096):
        pass
"""

# Does the service speak first? "late": a client that waits for that gets it in the end.
DIALECT = r"""
import socket, sys
sys.path.insert(0, "/opt")
import mailhost
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
    s.settimeout(30)
    s.connect(sys.argv[1])
    if sys.argv[2:] == ["late"]:
        print("waiting", flush=True)
    else:
        s.sendall(mailhost.request("send_file", ("queue_id", "AAAA")))
    print("announced" if s.recv(4096).startswith(b"protocol") else "silent")
"""


def serve(domains="one.test"):
    """A daemon that has just served, with this list."""
    clean()
    g.run("rm -f %s /tmp/end /tmp/stream /tmp/begun; postconf -e 'fast_flush_domains = %s'"
          % (CACHE, domains))
    g.run("touch -d '1 hour ago' /etc/postfix/main.cf")
    g.write("/opt/stream.py", STREAM)
    g.write("/opt/dialect.py", DIALECT)
    g.write("/opt/hold.py", HOLD)
    eq(ask("add", "one.test", "A1"), "ok")
    return main_pid()


def restore():
    g.run("postconf -e fast_flush_domains=static:all; touch -d '1 hour ago' /etc/postfix/main.cf")
    clean()


@test
def a_playbook_fails_no_request_and_loses_no_record(t):
    pid = serve()
    try:
        g.run("python3 /opt/stream.py %s one.test /tmp/end > /tmp/stream 2>&1 &" % SOCKET)
        g.wait("test -e /tmp/begun", "no stream")  # it asks postconf, which would wait for the edits
        g.run("postconf -e 'fast_flush_domains = one.test, two.test'")
        ask("add", "two.test", "A1", background=True)  # as an agent that has just read main.cf
        for i in range(12):  # one "postconf -e" a task
            g.run("postconf -e maximal_queue_lifetime=%dd; sleep 1" % (i + 1))
        g.wait("grep -q . /tmp/answer", "the new list is not used after the edits")
        g.run("touch /tmp/end")
        g.wait("grep -q longest /tmp/stream", "the stream does not end")
        got = json.loads(g.out("cat /tmp/stream"))
        eq(list(got["counts"]), ["ok"], got)
        assert got["longest"] < 5, got
        eq(g.out("cat /tmp/answer"), "ok")
        eq(records("two_test"), ["A1"])
        eq(len(set(records("one_test"))), got["counts"]["ok"] + 1)
        assert "4" in ask("add", "three.test", "A1")
        eq(main_pid(), pid, "another process")
        eq(active("fflush.socket"), "active")
    finally:
        g.run("postconf -X maximal_queue_lifetime")
        restore()


@test
def a_cache_that_was_cut_short_is_not_believed(t):
    serve("one.test, two.test, three.test")
    try:
        g.run("systemctl stop fflushd")
        g.wait("grep -q three.test %s" % CACHE, "nothing is kept")
        g.run("cp -p %s /tmp/kept" % CACHE)
        size = int(g.out("stat -c %%s %s" % CACHE))
        at = int(g.out("grep -abo 'two.test' %s" % CACHE).split(":")[0])
        for length in (0, 1, at, at + len("two.test"), size - 20, size - 1):
            g.run("cp -p /tmp/kept %s; truncate -s %d %s" % (CACHE, length, CACHE))
            eq(ask("add", "three.test", "A1"), "ok", "cut to %d of %d" % (length, size))
            g.run("systemctl stop fflushd")
    finally:
        restore()


@test
def no_sequence_of_reloads_exits_and_restarts_fails_the_socket(t):
    serve()
    try:
        for command in ("reload", "restart"):  # 40 of each in well under a minute
            out = g.out("for i in $(seq 40); do systemctl %s fflushd 2>/dev/null; %s ask %s add one.test"
                        " %s$i; done" % (command, TOOLS, SOCKET, command.upper()), timeout=300)
            eq(out.split(), ["ok"] * 40)
        g.write("/etc/fflushd/fflushd.conf", "max_use = 1\nfast_flush_domains = 'site0.test'\n")
        g.run("systemctl restart fflushd")
        eq(load(100, 2), {"ok": 100})
        g.wait("! systemctl is-active -q fflushd", "max_use does not end it")
        eq(active("fflush.socket"), "active")
        eq(len(records("one_test")), 81)
    finally:
        restore()


@test
def a_crash_loop_does_not_fail_the_socket(t):
    serve()
    try:
        g.run("systemctl stop fflushd")
        drop_in("fflushd.service", "[Service]\nRestartSec=100ms\n")  # as if it went on for a minute
        g.run("mv /usr/sbin/fflushd /usr/sbin/fflushd.good && cp /bin/false /usr/sbin/fflushd")
        try:
            ask("add", "one.test", "A2", background=True)
            g.wait("test $(systemctl show -P NRestarts fflushd || systemctl show -p NRestarts"
                   " --value fflushd) -gt 35", "it is not started again")
        finally:
            g.run("mv /usr/sbin/fflushd.good /usr/sbin/fflushd")
        g.wait("grep -q ok /tmp/answer", "the waiting client was not served")
        eq(active("fflush.socket"), "active")
    finally:
        restore()


@test
def another_release_of_postfix_is_noticed(t):
    ours = g.out("python3 -c 'import sys; sys.path.insert(0, \"/opt\"); import mailhost;"
                 " print(mailhost.ANNOUNCED)'") == "True"
    old, new = ("announced", "silent") if ours else ("silent", "announced")
    pid = serve()
    try:
        eq(g.out("python3 /opt/dialect.py " + SOCKET), old)
        g.run("mv /usr/sbin/postconf /usr/sbin/postconf.ours")
        g.write("/usr/sbin/postconf.new", "#!/bin/sh\n/usr/sbin/postconf.ours \"$@\" | sed"
                " 's/^mail_version = .*/mail_version = %s/'\n" % ("3.5.25" if ours else "3.9.1"))
        g.run("chmod 755 /usr/sbin/postconf.new; mv /usr/sbin/postconf.new /usr/sbin/postconf")
        g.wait("test $(python3 /opt/dialect.py %s) = %s" % (SOCKET, new), "it speaks as before")
        if ours:  # a client of the new one, which waits for the service to speak
            g.run("python3 /opt/dialect.py %s late > /tmp/late 2>&1 &" % SOCKET)
            g.wait("grep -q waiting /tmp/late", "not connected")
        g.run("mv /usr/sbin/postconf.ours /usr/sbin/postconf")
        if ours:
            g.wait("grep -q announced /tmp/late", "it would wait for request_timeout")
        g.wait("test $(python3 /opt/dialect.py %s) = %s" % (SOCKET, old), "it speaks as before")
        eq(main_pid(), pid, "another process")
    finally:
        g.run("test ! -e /usr/sbin/postconf.ours || mv /usr/sbin/postconf.ours /usr/sbin/postconf")
        restore()


def replace_queue(script):
    """What a client that is connected meanwhile makes the daemon see."""
    pid = serve()
    g.run("rm -f /tmp/go; python3 /opt/hold.py %s > /tmp/hold 2>&1 &" % SOCKET)
    g.wait("grep -q waiting /tmp/hold", "not connected")
    g.run(script)
    g.run("touch /tmp/go")
    g.wait("test \"$(systemctl show -p MainPID --value fflushd)\" != %d" % pid, "it does not leave")
    g.run("systemctl restart fflush.socket")
    eq(ask("add", "one.test", "A2"), "ok")


@test
def another_directory_in_the_place_of_the_queue_is_noticed(t):
    try:
        replace_queue("cd /var/spool && cp -a postfix postfix.new && rm -f postfix.new/public/fflushd"
                      " && mv postfix postfix.old && mv postfix.new postfix")
        eq(records("one_test"), ["A1", "A2"])
    finally:
        g.run("systemctl stop fflush.socket fflushd; postfix stop 2>/dev/null; cd /var/spool &&"
              " rm -rf postfix.old postfix.new; systemctl restart postfix", check=False)
        restore()


@test
def a_file_system_mounted_over_the_queue_is_noticed(t):
    try:
        replace_queue("cp -a /var/spool/postfix /tmp/copy && rm -f /tmp/copy/public/fflushd &&"
                      " mount --bind /tmp/copy /var/spool/postfix")
        eq(records("one_test"), ["A1", "A2"])
    finally:
        g.run("systemctl stop fflush.socket fflushd; umount -l /var/spool/postfix; rm -rf /tmp/copy",
              check=False)
        restore()
