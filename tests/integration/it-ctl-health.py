#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl: status, check and metrics."""

import os
import re
import socket
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TIMEOUT, TOP, USER, as_stranger, as_user, eq, wait_for
from client import bind
from ctl import backlog, objects, snapshot, write
from harness import main, test
from spool import Spool


@test
def metrics_replace_plain_files_only(case):
    spool, daemon = case.make()
    there = os.path.join(case.base, "1", "out")
    os.mkdir(there)
    Spool.own(spool, there)

    def path(name):
        return os.path.join(there, name)

    os.mkfifo(path("fifo"))
    os.mkdir(path("directory"))
    write(there, "plain", "old")
    os.symlink("plain", path("link"))
    os.symlink("absent", path("dangling"))
    s = socket.socket(socket.AF_UNIX)
    bind(s, path("socket"))
    if os.getuid() == 0:
        os.mknod(path("device"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    for name in sorted(os.listdir(there)):
        if name == "plain":
            continue
        before = os.lstat(path(name))
        # As root, who could.
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "metrics",
                            "-o", path(name)], capture_output=True, text=True)
        after = os.lstat(path(name))
        eq((name, r.returncode, "not a regular file" in r.stderr), (name, 73, True), r.stderr)
        eq((after.st_ino, after.st_mode), (before.st_ino, before.st_mode))
    eq(open(path("plain")).read(), "old")
    eq([n for n in os.listdir(there) if n.startswith(("plain.", "absent", "device."))], [])
    daemon.ctl("metrics", "-o", path("plain"), check=False)
    daemon.ctl("metrics", "-o", path("new"), check=False)
    eq([open(path(n)).read().endswith("# EOF\n") for n in ("plain", "new")], [True, True])


@test
def status_says_who_serves(case):
    spool, daemon = case.make(activation="hold")
    backlog(spool)
    r = daemon.ctl("status", "--json", check=False)
    status = objects(r)[0]
    eq(status["listening"], True)
    eq(status["listener_pid"], os.getpid())  # who called listen(2)
    eq((status["messages"], status["records"], status["sites"], status["deferred"]), (9, 11, 3, 4))
    eq(status["config"], daemon.config)
    eq(set(status["units"]), {"fflush.socket", "fflushd.service", "fflush-refresh.timer",
                              "fflush-refresh.service"})
    eq((status["tested"], status["checks"] > 10), (True, True))
    eq(0 < time.time() - status["oldest"] + 1 < 600, True)  # by when its file was made
    text = daemon.ctl("status", check=False).stdout
    eq("listens on %s" % daemon.socket_path in text, True, text)
    eq("9 messages for 3 destinations, 4 of them deferred" in text, True, text)
    r = daemon.ctl("-s", spool.join("public/nosuch"), "status", check=False)
    eq((r.returncode, re.search("^Socket.*", r.stdout, re.M).group()[:60]),
       (os.EX_UNAVAILABLE, ("Socket    nobody listens on " + spool.join("public/nosuch"))[:60]))
    eq("nobody listens on %s: No such file" % spool.join("public/nosuch") in r.stdout, True, r.stdout)
    r = daemon.ctl("-i", "no-such", "status", "--json", check=False)
    eq("fflush@no-such.socket" in objects(r)[0]["units"], True)


def without_systemd(daemon):
    """What systemd says of the host's units is of no concern to a test's spool."""
    os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = "unix:path=" + os.path.join(daemon.base, "no-bus")


def check(daemon, *options):
    r = daemon.ctl("check", *options, check=False)
    eq(r.stdout.count("\n"), 1, r.stdout + r.stderr)
    return r.returncode, r.stdout


@test
def status_and_check_name_what_is_broken(case):
    spool, daemon = case.make()
    without_systemd(daemon)
    backlog(spool)
    before = snapshot(spool)
    r = daemon.ctl("status", "--json", check=False)
    eq((r.returncode, objects(r)[0]["healthy"], objects(r)[0]["findings"]), (0, True, []))
    eq(check(daemon)[0], 0)
    eq(snapshot(spool), before)
    eq(spool.triggers(), b"")
    os.rename(spool.join("public/qmgr"), spool.join("public/away"))
    os.rename(spool.join("hold"), spool.join("gone"))
    for args in ("status",), ("-j", "status"):
        r = daemon.ctl(*args, check=False)
        eq(r.returncode, os.EX_UNAVAILABLE, r.stdout)
    eq([(f["check"], f["result"]) for f in objects(r)[0]["findings"]],
       [("queue", "failed"), ("qmgr", "failed")])
    text = daemon.ctl("status", check=False).stdout
    eq("Health    2 problems, see below" in text, True, text)
    eq("failed: queue: the service has no access to %s: No such file" % spool.join("hold") in text,
       True, text)
    eq("\n  remedy: systemctl restart postfix, or postfix start if " in text, True, text)
    code, line = check(daemon)
    eq((code, line.startswith("FFLUSHD CRITICAL - the service has no access to ")), (2, True), line)
    r = daemon.ctl("status", "--no-start", check=False)
    eq((r.returncode, "Postfix is not running" in r.stdout), (os.EX_UNAVAILABLE, True), r.stdout)
    os.rename(spool.join("gone"), spool.join("hold"))
    os.rename(spool.join("public/away"), spool.join("public/qmgr"))
    eq(check(daemon)[0], 0)


@test
def check_has_thresholds_and_performance_data(case):
    spool, daemon = case.make()
    without_systemd(daemon)
    backlog(spool)
    code, line = check(daemon)
    m = re.fullmatch(r"FFLUSHD OK - 4 deferred for 3 destinations, \d+ checks passed \| 'deferred'=4;;;0"
                     r" 'oldest'=(\d+)s;;;0 'last_refresh'=U;;;0 'destinations'=3;;;0"
                     r" 'failures'=0c;;;0 'unrecorded'=0;;;0\n", line)
    eq((code, m is not None), (0, True), line)
    for options, code, text in ((("--deferred-warning", "4"), 0, "'deferred'=4;4;;0"),
                                (("--unrecorded-critical", "1"), 0, "'unrecorded'=0;;1;0"),
                                (("--deferred-warning", "3"), 1, "deferred messages: 4, more than 3"),
                                (("--deferred-warning", "2", "--deferred-critical", "3"), 2,
                                 "'deferred'=4;2;3;0"),
                                (("--oldest-critical", "1d"), 0, ";;86400;0"),
                                (("--refresh-warning", "1h"), 3, "last refresh: not known"),
                                (("--deferred-warning", "x"), 3, "UNKNOWN"),
                                (("--nosuch",), 3, "UNKNOWN")):
        got, line = check(daemon, *options)
        eq((options, got, text in line), (options, code, True), line)
    spool.put("deferred/E/E1")
    wait_for(lambda: check(daemon, "--oldest-warning", "1s")[0] == 1)
    daemon.ctl("refresh")
    code, line = check(daemon, "--refresh-warning", "1h")
    eq((code, re.search(r"'last_refresh'=\d+s;3600;;0", line) is not None), (0, True), line)
    o = objects(daemon.ctl("check", "-j"))[0]
    eq((o["state"], o["exit"], o["findings"]), ("OK", 0, []))


@test
def mail_that_is_not_recorded_is_told(case):
    spool, daemon = case.make()
    without_systemd(daemon)
    backlog(spool)
    for name in "F8", "F9":
        spool.put("deferred/F/" + name)
    assert ' 2 more deferred messages are not recorded: "fflushctl import" records those' in \
        daemon.ctl("status").stdout
    eq([objects(daemon.ctl("-j", verb))[0]["unrecorded"] for verb in ("status", "check")], [2, 2])
    code, line = check(daemon)
    eq((code, "3 destinations, 2 more not recorded, " in line), (0, True), line)
    code, line = check(daemon, "--unrecorded-warning", "1")
    eq((code, "deferred messages that are not recorded: 2, more than 1" in line), (1, True), line)


@test
def a_service_that_does_not_answer_is_critical_and_what_cannot_be_seen_unknown(case):
    spool, daemon = case.make(activation="hold")
    without_systemd(daemon)
    daemon.stop()
    # the socket listens, and nobody comes
    code, line = check(daemon, "--timeout", "1s")
    eq((code, "the self-test did not end in time" in line), (2, True), line)
    r = daemon.ctl("status", "-t", "1s", check=False)
    eq((r.returncode, "Health    unknown" in r.stdout), (os.EX_TEMPFAIL, True), r.stdout)
    daemon.start()
    wait_for(lambda: check(daemon)[0] == 0)
    if USER is None:
        return
    os.chmod(spool.join("public"), 0o700)
    for path in "flush", "deferred", "incoming":
        os.chmod(spool.join(path), 0o700)
    for args, code in (("check",), 3), (("status",), os.EX_NOPERM):
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args],
                           capture_output=True, text=True, **as_stranger())
        eq((r.returncode, "permission denied" in r.stdout), (code, True), r.stdout)
        eq("nobody listens" in r.stdout, False, r.stdout)


@test
def other_servers_are_told_from_a_service_that_is_broken(case):
    _, daemon = case.make()
    without_systemd(daemon)
    path = os.path.join(daemon.base, "other")
    for reply, code, text in ((b"status\0003\0\0", 3, "knows no self-test"),
                              (b"", 2, "closed the connection without a reply"),
                              (b"status\0000\0\0", 3, "the reply makes no sense"),
                              (b"nonsense\0\0\0", 3, "the reply makes no sense")):
        with socket.socket(socket.AF_UNIX) as s:
            bind(s, path)
            s.listen()
            os.chmod(path, 0o666)
            p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "-s",
                                  path, "check"], stdout=subprocess.PIPE, text=True,
                                 **as_user())
            s.accept()[0].close()  # who listens?
            c = s.accept()[0]
            c.recv(100)
            c.sendall(reply)
            c.close()
            line = p.communicate(timeout=TIMEOUT)[0]
        os.unlink(path)
        eq((reply, p.returncode, text in line), (reply, code, True), line)


@test
def a_service_that_is_about_to_read_its_configuration_is_no_alarm(case):
    """It stays so while a playbook edits main.cf, for longer than a check may take."""
    _, daemon = case.make()
    without_systemd(daemon)
    path = os.path.join(daemon.base, "other")
    reply = b""
    for name, value in (("status", "4294967295"), ("checks", "1"), ("check", "outdated"),
                        ("result", "failed"), ("reason", "not yet read"), ("remedy", "ask again")):
        reply += b"%s\0%s\0" % (name.encode(), value.encode())

    def serve(s):
        while True:
            try:
                c = s.accept()[0]
            except OSError:
                return
            with c:
                if c.recv(100):  # else it asked who listens
                    c.sendall(reply + b"\0")

    with socket.socket(socket.AF_UNIX) as s:
        bind(s, path)
        s.listen()
        os.chmod(path, 0o666)
        server = threading.Thread(target=serve, args=(s,))
        server.start()
        r = daemon.ctl("-s", path, "--timeout", "10s", "check", check=False)
        s.shutdown(socket.SHUT_RDWR)
        server.join()
    eq((r.returncode, r.stdout.startswith("FFLUSHD WARNING - not yet read")), (1, True), r.stdout)


@test
def the_manual_names_every_finding(case):
    with open(os.path.join(TOP, "man/fflushd.8")) as f:
        text = f.read()
    text = text[text.index(".Sh HEALTH"):text.index(".Sh LIMITS")]
    # what a reader sees of it, in one line
    page = " ".join(re.sub(r"^\.\w+ |\b(Li|Ar|Pa|Va|Ns|Xr) ", "", line) for line in text.split("\n"))
    found = 0
    for source in "daemon/selftest.c", "daemon/service.c", "ctl/ctl-health.c":
        with open(os.path.join(TOP, "src", source)) as f:
            code = re.sub(r'"\s*"', "", f.read())
        for check_, reason in re.findall(r'(?:failed|warning|findings_add|no_answer)\((?:&?[\w>-]+, )+?'
                                         r'(?:"(\w+)",\s*(?:FINDING_\w+,\s*)?)?"([^"]{8,})"', code):
            found += 1
            parts = [part.strip(" :,()") for part in re.split(r"%\.?\*?\w+|: $| \(", reason)]
            part = max(parts, key=len)
            eq((source, part, part in page), (source, part, True))
    eq(found > 30, True, found)


if __name__ == "__main__":
    main()
