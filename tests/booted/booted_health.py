# SPDX-License-Identifier: MIT
"""Never green while broken: each way in which mail is not recorded or not flushed although all
seems well is seen by status and check, which name the reason and what helps; that done, they are
green again. Conditions are those of a booted system: users, sandbox, units, a real Postfix."""

import json
import re
import shlex

from basics import eq
from booted import SOCKET, SUITE, TOOLS, active, ask, clean, drop_in, g
from harness import test

UNAVAILABLE = 69

# netstrings; socketmap_table(5)
SOCKETMAP = r"""
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); s.listen()
while True:
    c, _ = s.accept()
    while True:
        d = c.recv(4096)
        if not d: break
        c.sendall(b"9:NOTFOUND ,")
"""

# "get KEY" -> "500 text"; tcp_table(5)
TCP = r"""
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    with c, c.makefile("rw") as f:
        for line in f:
            f.write("500 no\n"); f.flush()
"""


def status(*options):
    r = g.run("fflushctl --json status " + " ".join(options), check=False)
    return r.returncode, json.loads(r.stdout.splitlines()[0])  # then what is wrong


def check(*options):
    r = g.run("fflushctl check " + " ".join(options), check=False)
    eq(r.stdout.count("\n"), 1, r.stdout)
    return r.returncode, r.stdout


def is_green():
    code, s = status()
    eq((code, s["healthy"], s["findings"]), (0, True, []))
    code, line = check()
    eq((code, line.startswith("FFLUSHD OK - ")), (0, True), line)
    eq(ask("add", "site0.test", "AAA1"), "ok")


def follow(remedy):
    """Do what the text says."""
    m = re.search(r"drop-in for (\S+) with \[Service\] (.*), then (systemctl restart \S+)", remedy)
    if not m:
        g.run(re.split(", or |, and ", remedy)[0])
        return
    unit, directives, command = m.groups()
    lines = re.split(r", (?=[A-Z]\w+=)", directives)
    g.write("/etc/systemd/system/%s.d/zz-remedy.conf" % unit, "[Service]\n%s\n" % "\n".join(lines))
    g.run("systemctl daemon-reload; " + command)


def is_found(name, reason, remedy, level=2):
    """Both say so, follow the remedy, both are green."""
    code, s = status()
    found = [f for f in s["findings"] if reason in f["reason"]]
    eq((code, s["healthy"], len(found), found[0]["check"] if found else None),
       (UNAVAILABLE, False, 1, name), json.dumps(s["findings"], indent=1))
    assert found[0]["remedy"] and remedy in found[0]["remedy"], found
    text = g.run("fflushctl status", check=False).stdout
    assert found[0]["reason"] in text and found[0]["remedy"] in text, text
    code, line = check()
    eq((code, line.startswith("FFLUSHD CRITICAL - "), found[0]["reason"] in line), (level, True, True),
       line)
    follow(found[0]["remedy"])
    is_green()


def begin():
    clean()
    g.run("rm -rf /etc/postfix/ff*; postconf -X proxy_read_maps; systemctl stop ff-map 2>/dev/null;"
          " postconf -e fast_flush_domains=static:all; systemctl start postfix;"
          " systemctl enable -q fflush.socket fflush-refresh.timer; fflushctl -q enable-postfix")
    is_green()


def serve_map(script, address, ready):
    """A server of a table, until the next begin()."""
    g.write("/opt/map.py", script)
    g.run("systemd-run -q --unit ff-map python3 /opt/map.py " + address)
    g.wait(ready, "nobody listens")


def with_list(value):
    g.run("postconf -e " + shlex.quote("fast_flush_domains=" + value))


@test
def health_is_green_and_asking_says_what_it_starts(t):
    begin()
    g.run("systemctl stop fflushd")
    code, s = status("--no-start")
    eq((code, s["tested"], s["listening"], active("fflushd")), (0, False, None, "inactive"))
    assert "not started" in g.out("fflushctl status --no-start")
    eq(active("fflushd"), "inactive")
    text = g.out("fflushctl status")
    assert re.search(r"^Health +OK \(self-test of the service: \d+ checks\)$", text, re.M), text
    eq(active("fflushd"), "active")
    eq(status("--no-start")[0], 0)
    if SUITE == "bullseye":
        return  # no postlogd in its master.cf, so no log of its own to look at
    # The queue manager has nothing to say of somebody who connects and says nothing.
    g.run("postconf -e maillog_file=/var/log/postfix.log; postfix reload")
    for _ in range(5):
        eq(check()[0], 0)
    g.run("fflushctl -q flush site0.test; postqueue -f; postconf -X maillog_file; postfix reload")
    g.wait("grep -q 'reload' /var/log/postfix.log", "no log")
    eq(g.out("grep qmgr /var/log/postfix.log || true"), "")


@test
def health_a_table_that_only_root_can_read(t):
    begin()
    for kind in "hash", "lmdb":
        suffix = {"hash": ".db", "lmdb": ".lmdb"}[kind]
        g.run("echo 'site0.test x' > /etc/postfix/ff-map && postmap %s:/etc/postfix/ff-map &&"
              " chmod 600 /etc/postfix/ff-map%s" % (kind, suffix))
        with_list("%s:/etc/postfix/ff-map" % kind)
        is_found("table", "table %s:/etc/postfix/ff-map cannot be asked" % kind,
                 "chgrp postfix '/etc/postfix/ff-map%s'" % suffix)
    g.run("rm -f /etc/postfix/ff-map.db")
    with_list("hash:/etc/postfix/ff-map")
    is_found("table", "cannot be asked", "postmap 'hash:/etc/postfix/ff-map'")
    g.run("mkdir -m 0750 /etc/postfix/ff.d; mv /etc/postfix/ff-map* /etc/postfix/ff.d")
    with_list("hash:/etc/postfix/ff.d/ff-map")
    is_found("table", "cannot be asked", "chgrp postfix '/etc/postfix/ff.d'")
    g.run("rm -r /etc/postfix/ff.d")


@test
def health_a_list_that_only_root_can_read(t):
    begin()
    g.run("rm -f /etc/postfix/ff-list; echo site0.test > /etc/postfix/ff-list;"
          " chmod 600 /etc/postfix/ff-list")
    with_list("/etc/postfix/ff-list")
    is_found("list", "fast_flush_domains cannot be used: /etc/postfix/ff-list",
             "chgrp postfix '/etc/postfix/ff-list'")
    g.run("rm /etc/postfix/ff-list")


@test
def health_main_cf_that_only_root_can_read(t):
    begin()
    g.run("chmod 700 /etc/postfix")
    is_found("settings", "/etc/postfix/main.cf cannot be read", "chmod 755 '/etc/postfix'")
    g.run("chmod 600 /etc/postfix/main.cf")
    is_found("settings", "/etc/postfix/main.cf cannot be read", "chmod 644 '/etc/postfix/main.cf'")


@test
def health_a_table_below_home(t):
    begin()
    g.run("mkdir -p /home/maps; echo 'site0.test x' > /home/maps/ff")
    with_list("texthash:/home/maps/ff")
    is_found("table", "table texthash:/home/maps/ff cannot be asked", "ProtectHome=read-only")
    g.run("rm -r /home/maps")


@test
def health_a_socketmap_in_tmp(t):
    begin()
    g.run("rm -f /tmp/ff-socket")
    serve_map(SOCKETMAP, "/tmp/ff-socket", "ss -lx | grep -q /tmp/ff-socket")
    with_list("!socketmap:unix:/tmp/ff-socket:x static:all")
    is_found("table", "table socketmap:unix:/tmp/ff-socket:x cannot be asked", "PrivateTmp=no")
    g.run("systemctl stop ff-map; rm -f /tmp/ff-socket")


@test
def health_a_table_that_needs_the_network(t):
    begin()
    serve_map(TCP, "7777", "ss -ltn | grep -q :7777")
    with_list("!tcp:127.0.0.1:7777 static:all")
    is_found("table", "table tcp:127.0.0.1:7777 cannot be asked", "PrivateNetwork=no")
    g.run("systemctl stop ff-map")


@test
def health_a_table_of_proxymap_is_what_the_remedy_says(t):
    begin()
    g.run("echo 'site0.test x' > /etc/postfix/ff-map && postmap hash:/etc/postfix/ff-map &&"
          " chmod 600 /etc/postfix/ff-map*; chown postfix /etc/postfix/ff-map*")
    g.run("postconf -e \"proxy_read_maps=$(postconf -dh proxy_read_maps) \\$fast_flush_domains\";"
          " postconf -e fast_flush_domains=proxy:hash:/etc/postfix/ff-map; postfix reload")
    is_green()
    g.run("postconf -X proxy_read_maps; postfix reload")


@test
def health_units_that_are_stopped_or_will_be(t):
    begin()
    g.run("systemctl stop fflush-refresh.timer")
    is_found("refresh", "fflush-refresh.timer is stopped", "systemctl enable --now")
    g.run("systemctl disable -q fflush-refresh.timer")
    is_found("refresh", "fflush-refresh.timer is not enabled", "systemctl enable fflush-refresh.timer")
    g.run("systemctl disable -q fflush.socket")
    is_found("socket", "fflush.socket is not enabled", "systemctl enable fflush.socket")
    g.run("systemctl stop fflush.socket")
    code, s = status("--no-start")
    eq((code, s["healthy"]), (UNAVAILABLE, False))
    is_found("socket", "fflush.socket is not started", "systemctl start fflush.socket")
    drop_in("fflush-refresh.service", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    g.run("systemctl start fflush-refresh.service", check=False)
    g.run("rm -r /etc/systemd/system/fflush-refresh.service.d; systemctl daemon-reload")
    is_found("refresh", "the last refresh failed", "journalctl -u fflush-refresh.service")


@test
def health_postfix_asks_somebody_else(t):
    begin()
    g.run("postconf -X flush_service_name; postfix reload")
    is_found("postfix", "Postfix uses another flush service (flush_service_name = flush)",
             "fflushctl enable-postfix")
    g.run("postconf -P smtp/unix/flush_service_name=flush")
    is_found("postfix", "a service of master.cf asks another flush service",
             "-PX 'smtp/unix/flush_service_name'")
    for value in "", "!x.test", " , ":
        with_list(value)
        is_found("list", "fast_flush_domains is empty", "postconf -e")


@test
def health_postfix_is_stopped(t):
    begin()
    # Debian 13 has one unit, those before it one more for each instance.
    unit = g.out("systemctl list-units --plain --no-legend | grep -o '^postfix@-[.]service' ||"
                 " echo postfix.service")
    g.run("systemctl stop " + unit)
    is_found("qmgr", "Postfix is not running", "systemctl restart postfix, or postfix start")
    g.run("systemctl is-active " + unit)  # and nothing is in its way


@test
def health_logs_and_queues_that_are_closed_to_the_service(t):
    begin()
    eq(ask("add", "site0.test", "A1"), "ok")
    g.run("systemctl stop fflushd; chown root /var/spool/postfix/flush/site0_test")
    is_found("logs", "logs that cannot be opened: 1, the first is /var/spool/postfix/flush/site0_test",
             "chown postfix")
    g.run("chmod 500 /var/spool/postfix/incoming")
    is_found("queue", "the service has no access to /var/spool/postfix/incoming", "chmod 700")
    g.run("chown root /var/spool/postfix/flush")
    is_found("queue", "the service has no access to /var/spool/postfix/flush", "chown postfix")
    g.run("mkdir /var/spool/postfix/mnt; mount --bind /var/spool/postfix/incoming"
          " /var/spool/postfix/incoming; systemctl restart fflushd")
    code, s = status()
    eq((code, [f["check"] for f in s["findings"]]), (UNAVAILABLE, ["queue"]))
    assert "different mounts" in s["findings"][0]["reason"], s
    g.run("systemctl stop fflushd; umount /var/spool/postfix/incoming")
    is_green()


@test
def health_a_spool_that_the_sandbox_may_not_write(t):
    begin()
    drop_in("fflushd.service", "[Service]\nReadWritePaths=\n")
    g.run("systemctl restart fflushd")
    is_found("disk", "/var/spool/postfix is read-only for the service",
             "ReadWritePaths=/var/spool/postfix")


@test
def health_thresholds_and_who_may_ask(t):
    begin()
    g.run("(%sload %s 20 1) >/dev/null" % (TOOLS, SOCKET))
    code, line = check("--deferred-warning 1")
    eq(code, 0, line)  # nothing of it is in the queue
    code, line = check("--refresh-critical 1s")
    eq((code in (2, 3), "refresh" in line), (True, True), line)
    g.run("systemctl start fflush-refresh.service")
    code, line = check("--refresh-warning 1h")
    eq(code, 0, line)
    assert re.search(r"\| 'deferred'=0;;;0 'oldest'=0s;;;0 'last_refresh'=\d+s;3600;;0 "
                     r"'destinations'=1;;;0 'failures'=\d+c;;;0$", line.strip()), line
    for user, code in ("postfix", 0), ("nobody", 3):
        r = g.run("fflushctl check", user=user, check=False)
        eq((user, r.returncode), (user, code), r.stdout)
        assert code == 0 or "permission denied" in r.stdout, r.stdout
    r = g.run("fflushctl status", user="nobody", check=False)
    eq(r.returncode, 77)
    assert "permission denied (run as root or postfix)" in r.stdout, r.stdout
    assert "nobody listens" not in r.stdout, r.stdout
