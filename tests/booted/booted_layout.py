# SPDX-License-Identifier: MIT
"""hash_queue_names and hash_queue_depth change under a running service: no record is lost.

The messages are real ones, which Postfix has deferred and whose records its agents have made.
"""

import json
import time

from basics import eq
from booted import SOCKET, ask, clean, g, journal, records
from harness import test

SPOOL = "/var/spool/postfix"
PORT = 2527  # where nobody listens

# Connections that the daemon has accepted before something happens are served by it, as it was then:
# python3 stale.py COMMAND WANTED REQUEST...; WANTED is what must be true before they are sent.
STALE = r"""
import select, socket, subprocess, sys, time
command, wanted, *requests = sys.argv[1:]
clients = []
for request in requests:
    s = socket.socket(socket.AF_UNIX)
    s.connect("/var/spool/postfix/public/fflushd")
    clients.append((s, request))
select.select([s], [], [], 1)  # all are accepted; Postfix before 3.6 gets no announcement
for s, _ in clients:
    if select.select([s], [], [], 0)[0]:
        s.recv(100)
subprocess.run(command, shell=True, check=True)
end = time.monotonic() + 30
while subprocess.run(wanted, shell=True).returncode != 0:
    assert time.monotonic() < end, wanted
    time.sleep(0.1)
for s, request in clients:
    s.sendall(request.replace(" ", "\0").encode() + b"\0\0")
for s, request in clients:
    reply = b""
    while chunk := s.recv(4096):
        reply += chunk
    print(reply.replace(b"\0", b" ").decode().strip())
"""


def setting(name, value):
    return "postconf -e '%s = %s'" % (name, value)


def fresh(hashed="deferred, defer", depth=1):
    """An empty queue in this layout, and nothing running that knows another."""
    clean()
    g.write("/opt/stale.py", STALE)
    g.run("postconf -e 'hash_queue_names = %s' hash_queue_depth=%d"
          " transport_maps='static:smtp:[127.0.0.1]:%d'; postsuper -d ALL 2>/dev/null;"
          " systemctl stop fflushd; rm -rf %s/flush/*; systemctl restart postfix"
          % (hashed, depth, PORT, SPOOL))


def restore():
    """The next case's daemon would begin with the layout that is kept, and read main.cf then."""
    g.run("postconf -X hash_queue_names hash_queue_depth; postconf -e transport_maps=inline:{down.test"
          "=smtp:[127.0.0.1]:2525,other.test=smtp:[127.0.0.1]:2526,a-b.test=smtp:[127.0.0.1]:2525,"
          "a.b.test=smtp:[127.0.0.1]:2525}; postsuper -d ALL 2>/dev/null; systemctl stop fflushd;"
          " rm -rf %s/flush/* /var/cache/fflushd/*; systemctl restart postfix" % SPOOL)


def layout_test(function):
    def run(t):
        try:
            function(t)
        finally:
            restore()
    run.__name__ = function.__name__
    return test(run)


def mail(site, n):
    """n messages for the site, deferred and recorded."""
    g.run("smtp-source -m %d -s 4 -f from@%s -t user@%s 127.0.0.1:25" % (n, site, site))
    settle(n)


def settle(n):
    """All n messages of the queue are deferred, and each is recorded."""
    # A queue manager that stumbles over what postsuper moves is started again by master(8) a minute later.
    g.wait("""test "$(find %s/deferred -type f | wc -l)" = %d && fflushctl verify --json | tail -1 |"""
           """ grep -q '"unrecorded":0'""" % (SPOOL, n), "%d messages, not all deferred and recorded:\n"
           % n, timeout=150, show="fflushctl verify; date; journalctl --no-pager -p warning -n 20; cd %s;"
           " for q in deferred incoming active hold; do"
           " echo $q $(find $q -type f | wc -l); find $q -type f -printf '%%TT %%p\\n' | tail -2; done;"
           " journalctl --no-pager -n 20 -t postfix/fflushd -t postfix/qmgr -t postfix/master" % SPOOL)


def flush(site):
    return json.loads(g.out("fflushctl flush --json " + site))


def deeper(depth):
    """A command: are all messages so deep in deferred?"""
    return "test -z \"$(find %s/deferred -type f ! -path '%s/deferred%s/*')\"" % (
        SPOOL, SPOOL, "/?" * depth)


def stay_ahead_of_the_queue(name, values):
    """Each value is set without a reload: the messages are where Postfix put them before."""
    fresh()
    mail("cust.test", 10)
    for value in values:
        g.run(setting(name, value) + "; systemctl stop fflushd")
        counts = flush("cust.test")
        eq((counts["moved"], counts["gone"], counts["failed"]), (10, 0, 0), value)
        settle(10)


@layout_test
def another_depth_without_a_reload_loses_no_message(t):
    stay_ahead_of_the_queue("hash_queue_depth", (2, 3, 1))


@layout_test
def other_names_without_a_reload_lose_no_message(t):
    # Not active: Postfix's own programs, some with the old and some with the new, lose sight of it.
    stay_ahead_of_the_queue("hash_queue_names", ("defer", "deferred, hold", "flush"))


@layout_test
def postsuper_re_hashes_under_load_and_nothing_is_lost(t):
    """It moves messages and logs while they are looked for, and does so without any lock."""
    fresh()
    mail("cust.test", 200)
    g.run("touch /tmp/load; (while test -e /tmp/load; do fflushctl flush --json cust.test >>"
          " /tmp/flushed 2>&1; fflushctl -q verify; done; touch /tmp/load.done) > /dev/null 2>&1 &")
    try:
        for names, depth in (("deferred, defer", 2), ("defer", 1), ("deferred, flush", 3),
                             ("deferred, defer", 1)):
            g.run("%s; %s; postfix reload" % (setting("hash_queue_names", names),
                                              setting("hash_queue_depth", depth)))
            g.wait(deeper(depth if "deferred" in names else 0), "not re-hashed", timeout=60)
    finally:
        g.run("rm /tmp/load")
        g.wait("test -e /tmp/load.done", "the load does not end", timeout=60)
    flushed = [json.loads(line) for line in g.out("cat /tmp/flushed; rm /tmp/flushed /tmp/load.done")
               .split("\n") if line.startswith("{")]
    assert sum(f.get("moved", 0) for f in flushed) >= 200, flushed
    # A queue manager that is reloaded in the middle of its work may leave mail in incoming or active for its
    # next look, which is 1000 s away here.
    g.run("systemctl restart postfix")
    settle(200)


@layout_test
def a_stale_daemon_finds_what_was_re_hashed(t):
    fresh()
    mail("cust.test", 10)
    out = g.out("python3 /opt/stale.py \"%s; postfix reload\" \"%s\" "
                "'request send_site site cust.test detail 1'"
                % (setting("hash_queue_depth", 2), deeper(2).replace('"', '\\"').replace("$", "\\$")))
    counts = dict(zip(out.split()[::2], out.split()[1::2]))
    eq((counts["status"], counts["moved"], counts["gone"]), ("0", "10", "0"), out)
    settle(10)


@layout_test
def a_daemon_that_cannot_leave_loses_nothing(t):
    """A silent client holds it; a flush that comes meanwhile is served by it, or by the next."""
    fresh()
    mail("cust.test", 10)
    g.run("systemd-run --quiet --unit=silent python3 -c 'import select, socket, time;"
          " s = socket.socket(socket.AF_UNIX); s.connect(\"%s\"); select.select([s], [], [], 1);"
          " open(\"/tmp/silent\", \"w\"); time.sleep(600)'" % SOCKET)
    try:
        g.wait("test -e /tmp/silent", "no silent client")
        g.run("rm -f /tmp/silent; %s; postfix reload" % setting("hash_queue_depth", 2))
        g.wait(deeper(2), "not re-hashed")
        g.run("(fflushctl flush --json cust.test > /tmp/flushed 2>&1; touch /tmp/flushed.done) &")
        time.sleep(3)  # longer than it takes to see that main.cf has changed
    finally:
        g.run("systemctl stop silent")
    g.wait("test -e /tmp/flushed.done", "no answer")
    counts = json.loads(g.out("cat /tmp/flushed; rm /tmp/flushed /tmp/flushed.done"))
    eq((counts["moved"], counts["gone"]), (10, 0))
    settle(10)


SITES = ["site%d.test" % i for i in range(22)]


def hash_flush(names, placed):
    """Records before and after flush/ gets another layout, some of them by a daemon that does not
    know of it yet: all are found, shown and flushed, each once."""
    for site in SITES:
        eq(ask("add", site, "A1"), "ok")
    adds = " ".join("'request add site %s queue_id B1'" % s for s in SITES[:-2] + ["new.test"])
    out = g.out("python3 /opt/stale.py \"%s; postfix reload\" 'test -e %s/flush/%s' %s"
                % (setting("hash_queue_names", names), SPOOL, placed, adds))
    eq(set(out.split("\n")), {"status 0"})
    g.run("systemctl stop fflushd")
    rows = [json.loads(line) for line in g.out("fflushctl list --all --json").split("\n")]
    wanted = {s: 2 for s in SITES[:-2]} | {s: 1 for s in SITES[-2:]} | {"new.test": 1}
    eq({r["site"]: r["messages"] for r in rows}, wanted)
    counts = {json.loads(line)["site"]: json.loads(line)["gone"]
              for line in g.out("fflushctl flush --json '*'").split("\n")}
    eq(counts, wanted)
    eq(g.out("fflushctl verify -q"), "")
    eq(g.out("find %s/flush -type f -size +0" % SPOOL), "")


@layout_test
def logs_are_found_when_flush_is_hashed_and_when_it_is_not_any_more(t):
    fresh()
    hash_flush("deferred, defer, flush", "s/site0_test")
    g.run("rm -rf %s/flush/*" % SPOOL)
    hash_flush("deferred, defer", "site0_test")


@layout_test
def a_refresh_brings_logs_into_their_places(t):
    fresh()
    mail("cust.test", 5)
    g.run("install -d -o postfix -m 700 %s/flush/c/u; mv %s/flush/cust_test %s/flush/c/u/;"
          " touch -a -d '13 hours ago' %s/flush/c/u/cust_test; fflushctl refresh" % ((SPOOL,) * 4))
    g.run("test -e %s/flush/cust_test && ! test -e %s/flush/c/u/cust_test" % (SPOOL, SPOOL))
    settle(5)
    assert "5 messages moved" in journal("FFLUSHD_REQUEST=refresh -n 1"), journal("-n 5")


@layout_test
def repair_and_export_do_nothing_by_a_guess(t):
    fresh(depth=2)
    mail("cust.test", 5)
    before = g.out("cat %s/flush/cust_test" % SPOOL)
    g.run("cp /etc/postfix/main.cf /tmp/main.cf; printf '}broken {\\n' >> /etc/postfix/main.cf")
    try:
        for command in ("verify --repair", "verify", "export", "import", "list", "purge",
                        "flush cust.test", "-i postfix-nosuch purge", "-i postfix-nosuch list"):
            r = g.run("fflushctl %s < /dev/null" % command, check=False)
            missing = "nosuch" in command
            eq(r.returncode, 66 if missing else 78, (command, r.stdout, r.stderr))
            assert ("/etc/postfix-nosuch/main.cf" if missing else "postconf -c /etc/postfix") in r.stderr, (
                r.stdout, r.stderr)
    finally:
        g.run("cp /tmp/main.cf /etc/postfix/main.cf")
    eq(g.out("cat %s/flush/cust_test" % SPOOL), before)
    settle(5)
    eq(g.out("fflushctl verify --repair -q"), "")
    settle(5)


# flush(8) opens a log, then asks for its lock; at that moment it is stopped here.
OPENER = r"""
import fcntl, os, signal, sys
fd = os.open("/var/spool/postfix/flush/" + sys.argv[1], os.O_WRONLY | os.O_APPEND)
open("/tmp/opened", "w").close()
signal.sigwait({signal.SIGUSR1})
fcntl.flock(fd, fcntl.LOCK_EX)
os.write(fd, b"C1\n")
"""


@layout_test
def an_old_empty_log_that_is_open_is_not_removed(t):
    fresh()
    g.write("/opt/opener.py", "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK,"
            " {signal.SIGUSR1})\n" + OPENER)
    log = SPOOL + "/flush/cust_test"
    g.run("install -o postfix -g postfix -m 600 /dev/null %s; touch -d '30 days ago' %s;"
          " rm -f /tmp/opened; systemd-run --quiet --unit=opener python3 /opt/opener.py cust_test"
          % (log, log))
    g.wait("test -e /tmp/opened", "not opened")
    g.run("fflushctl refresh; test -e %s; systemctl kill -s USR1 opener" % log)
    g.wait("! systemctl is-active -q opener", "the other one does not end")
    eq(records("cust_test"), ["C1"])
    g.run("truncate -s 0 %s; touch -d '30 days ago' %s; fflushctl refresh; ! test -e %s"
          % (log, log, log))
