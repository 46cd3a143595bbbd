#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl: flush, deliver, refresh, purge; limits, options, time-outs and instances."""

import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, TIMEOUT, USER, as_stranger, as_user, eq, wait_for
from client import in_directory
from ctl import backlog, import_from, message, objects, results, write
from harness import main, test


@test
def a_flush_takes_globs_and_subdomains(case):
    spool, daemon = case.make()
    backlog(spool)
    out = daemon.ctl("flush", "--subdomains", "Example.COM", "nothing.test").stdout
    eq(out, "example.com: 8 found, 3 moved, 1 gone, 2 active or on hold, 2 recorded twice\n"
            "mail.example.com: 1 found, 1 moved\n"
            "nothing.test: 0 found, 0 moved\n")
    eq(daemon.ctl("flush", "a-*", "*.test").stdout, "a-b.test: 2 found, 1 moved, 1 gone\n")
    r = daemon.ctl("flush", "nosuch*", check=False)
    eq((r.returncode, r.stdout), (os.EX_NOINPUT, ""))
    spool.log("xn__bcher_kva_example", b"A1\n")
    r = daemon.ctl("flush", "*", check=False)
    eq(r.returncode, os.EX_DATAERR)
    eq("(xn__bcher_kva_example): a log of flush(8)" in r.stderr, True, r.stderr)
    eq(spool.read("flush/xn__bcher_kva_example"), b"A1\n")


@test
def a_flush_reads_what_systemd_escape_writes(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("L192_0_2_1R", b"A1\n")
    both = daemon.ctl("flush", "-n", "\\x5b192.0.2.1\\x5d", "a\\x2db.test").stdout
    eq(both, "[192.0.2.1]: 1 found, 1 would be moved\na-b.test: 2 found, 1 would be moved, 1 gone\n")
    eq(daemon.ctl("flush", "a\\x2db.test").stdout, "a-b.test: 2 found, 1 moved, 1 gone\n")
    for wrong in ("a\\x00b.test", "a\\x2fb.test", "a\\x2", "\\x", "a\\nb.test", "a\\X2db.test",
                  "a\\x2Db.test"):
        r = daemon.ctl("flush", wrong, check=False)
        eq((wrong, r.returncode, r.stdout), (wrong, os.EX_DATAERR, ""))


@test
def a_plain_flush_needs_nothing_but_the_socket(case):
    if USER is None:
        raise Skip("needs root")
    spool, daemon = case.make()
    backlog(spool)
    os.chmod(spool.join("public"), 0o711)
    os.chmod(daemon.socket_path, 0o666)
    for args, wanted in ((("flush", "a-b.test"), "a-b.test: 2 found, 1 moved, 1 gone\n"),
                         (("deliver", "A1"), "A1: moved\n")):
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", "/nonexistent", "-s",
                            daemon.socket_path, *args], capture_output=True, text=True, **as_stranger())
        eq((r.returncode, r.stdout, r.stderr), (os.EX_OK, wanted, ""))


@test
def what_is_left_alone_is_told(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.put("hold/F1")
    spool.put("active/F2")
    r = daemon.ctl("deliver", "F1", "F2")
    eq(r.stdout, "F1: on hold; postsuper -H releases it\nF2: active: it is being delivered\n")


@test
def a_dry_run_promises_nothing_that_the_service_refuses(case):
    spool, daemon = case.make(fast_flush_domains="!a-b.test, static:all")
    backlog(spool)
    ran = [daemon.ctl("flush", *dry, "a-b.test", "example.com", check=False) for dry in (("-n",), ())]
    eq([(r.returncode, r.stderr) for r in ran],
       [(os.EX_NOPERM, "fflushctl: a-b.test: not in fast_flush_domains\n")] * 2)
    eq([r.stdout.replace("would be ", "") for r in ran], [ran[1].stdout] * 2)
    spool, daemon = case.make(fast_flush_domains="example.com, /nonexistent/list")
    backlog(spool)
    r = daemon.ctl("flush", "-n", "a-b.test", "example.com", check=False)
    eq((r.returncode, r.stderr.splitlines()[-1]), (os.EX_TEMPFAIL, "fflushctl: a-b.test: would fail"))
    assert "/nonexistent/list: No such file or directory" in r.stderr, r.stderr
    eq(r.stdout.splitlines()[0].split(":")[0], "example.com")


@test
def deliver_reads_ids_from_its_input(case):
    spool, daemon = case.make()
    backlog(spool)
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "deliver",
                        "A1", "-", "B1"], input="A2 \tno/id\n\n\nA3\nZ9", capture_output=True,
                       text=True, **as_user())
    eq(r.stdout, "A1: moved\nA2: moved\nA3: moved\nZ9: no such message in the queue\nB1: moved\n")
    eq((r.returncode, r.stderr), (os.EX_DATAERR, 'fflushctl: not a queue ID: "no/id"\n'))


@test
def quiet_says_nothing_but_errors(case):
    spool, daemon = case.make(fast_flush_domains="example.com")
    backlog(spool)
    for args in (("flush", "example.com"), ("flush", "-n", "exam*"), ("deliver", "A1"), ("refresh",),
                 ("flush", "--json", "example.com"), ("add", "example.com", "A1")):
        r = daemon.ctl("-q", *args)
        eq((r.stdout, r.stderr), ("", ""), args)
    r = daemon.ctl("-q", "flush", "nosuch.test", check=False)
    eq((r.returncode, r.stdout), (os.EX_NOPERM, ""))
    eq(r.stderr.startswith("fflushctl: nosuch.test: not in fast_flush_domains"), True)


@test
def json_tells_refusals_as_well(case):
    spool, daemon = case.make(fast_flush_domains="example.com")
    r = daemon.ctl("--json", "flush", "example.com", "nosuch.test", check=False)
    eq((r.returncode, results(r)[1]),
       (os.EX_NOPERM, {"type": "flush", "site": "nosuch.test", "status": "denied", "dry_run": False}))
    r = daemon.ctl("--json", "deliver", "a/b", check=False)
    eq((r.returncode, results(r)),
       (os.EX_DATAERR, [{"type": "deliver", "queue_id": "a/b", "status": "malformed", "dry_run": False}]))
    eq(objects(daemon.ctl("--json", "add", "example.com", "A1")),
       [{"type": "add", "site": "example.com", "queue_id": "A1", "status": "ok"}])


@test
def options_are_for_the_commands_that_have_them(case):
    spool, daemon = case.make()
    for args in (("list", "-n"), ("refresh", "--limit", "1"), ("flush", "--top", "1", "x.test"),
                 ("list", "--every", "1s"), ("add", "--wait", "x.test", "A1"), ("flush",),
                 ("refresh", "x"), ("nosuch",), (), ("add", "x.test"), ("flush", "-t", "x", "y.test"),
                 ("--nosuch", "list")):
        r = daemon.ctl(*args, check=False)
        eq((r.returncode, r.stdout), (os.EX_USAGE, ""), args)
        eq(r.stderr.startswith(("fflushctl: ", os.path.join(daemon.bin, "fflushctl"))), True, r.stderr)
    eq(
        daemon.ctl("list", "--top", "1", "--limit", "1", check=False).stderr.splitlines()[0],
        "fflushctl: list has no option --limit",
    )
    eq(
        daemon.ctl("refresh", "--oldest-warning", "1h", check=False).stderr.splitlines()[0],
        "fflushctl: refresh has no option --oldest-warning",
    )
    eq(daemon.is_waiting(), True)


@test
def a_limit_moves_so_many_and_leaves_the_rest(case):
    spool, daemon = case.make()
    for name in ("A1", "A2", "A3", "A4", "A5"):
        spool.put("deferred/A/" + name)
    spool.put("active/A6")
    spool.log("example_com", b"A1\nA1\nZ1\nA6\nA2\nA3\nno id\nA2\nA4\nA5\n")
    for moved, left in (("A2", 4), ("A3", 2)):  # A2 is still incoming then, and counts again
        preview = objects(daemon.ctl("flush", "-n", "-l", "2", "--json", "example.com"))[0]
        real = objects(daemon.ctl("flush", "-l", "2", "--json", "example.com"))[0]
        for row in (preview, real):
            row.pop("invalid")  # a dry run has seen all of them
        eq(preview, real | {"dry_run": True})
        eq((real["moved"], real["left"]), (2, left))
        eq(os.path.exists(spool.join("incoming", moved)), True)
    eq(spool.read("flush/example_com"), b"A6\nA4\nA5\n")
    eq(daemon.ctl("flush", "--limit=2", "example.com").stdout,
       "example.com: 3 found, 2 moved, 1 active or on hold\n")
    eq(spool.read("flush/example_com"), b"A6\n")


@test
def portions_follow_each_other_until_nothing_is_left(case):
    spool, daemon = case.make()
    ids = ["A%d" % i for i in range(7)]
    for name in ids:
        spool.put("deferred/A/" + name)
    spool.log("a_test", "".join(i + "\n" for i in ids[:5]).encode())
    spool.log("b_test", "".join(i + "\n" for i in ids[5:]).encode())
    start = time.monotonic()
    out = daemon.ctl("flush", "--limit", "2", "--every", "1s", "a.test", "b.test").stdout
    eq(out, "a.test: 2 found, 2 moved; 3 left\nb.test: 2 found, 2 moved\n"
            "a.test: 2 found, 2 moved; 1 left\na.test: 1 found, 1 moved\n7 of 7 tried\n")
    eq(time.monotonic() - start >= 2, True)
    eq(spool.files("deferred"), [])


@test
def an_interrupt_leaves_the_rest_recorded(case):
    spool, daemon = case.make()
    for name in ("A1", "A2", "A3"):
        spool.put("deferred/A/" + name)
    spool.log("a_test", b"A1\nA2\nA3\n")
    p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "flush",
                          "-l1", "-e", "1000s", "a.test"], stdout=subprocess.PIPE, text=True,
                         **as_user())
    eq(p.stdout.readline(), "a.test: 1 found, 1 moved; 2 left\n")
    p.send_signal(signal.SIGINT)
    eq(p.communicate(timeout=TIMEOUT)[0], "1 of 3 tried; 2 left, run it again to go on\n")
    eq(p.returncode, os.EX_TEMPFAIL)
    eq(spool.read("flush/a_test"), b"A2\nA3\n")


@test
def what_cannot_be_combined_is_refused(case):
    spool, daemon = case.make()
    for args in (("--every", "1s"), ("-l", "1", "-e", "1s", "-n"),
                 ("-l", "1", "-e", "1s", "--stop-if-deferred", "50"), ("-w", "--stop-if-deferred", "50"),
                 ("-l", "1", "-e", "1s", "-w", "--stop-if-deferred", "101"),
                 ("-w", "-n"), ("--limit", "0"), ("--reason", "x" * 201)):
        eq(daemon.ctl("flush", *args, "a.test", check=False).returncode, os.EX_USAGE, args)
    eq(daemon.ctl("deliver", "-wn", "A1", check=False).returncode, os.EX_USAGE)
    eq(daemon.is_waiting(), True)


@test
def a_reason_goes_to_the_journal(case):
    spool, daemon = case.make()
    spool.log("a_test", b"A1\n")
    long_one = "x" * 200
    for args in (("flush", "a.test"), ("flush", "-l", "5", "a.test"), ("deliver", "A1"),
                 ("refresh",), ("purge",)):
        for reason in ("ticket 7", long_one):
            before = len(daemon.journal())
            daemon.ctl(*args, "-r", reason, check=False)
            wait_for(lambda: any("(reason: " + reason[:20] in line
                                 for line in daemon.journal()[before:]), "%s: no reason" % (args,))
    daemon.ctl("flush", "-r", "bell \a\nline", "a.test")
    eq(any("bell \\x07\\x0aline" in line for line in daemon.journal()), True)


@test
def refresh_and_purge_tell_what_they_have_done(case):
    spool, daemon = case.make()
    backlog(spool)
    eq(daemon.ctl("refresh").stdout,  # of the one that is older than half a day
       "refresh: 1 site, 8 found, 3 moved, 1 gone, 2 active or on hold, 2 recorded twice\n")
    spool, daemon = case.make()
    backlog(spool)
    got = objects(daemon.ctl("purge", "--json"))[0]
    eq(got, {"type": "purge", "request": "purge", "status": "ok", "dry_run": False,
             "sites": 3, "found": 11, "moved": 5, "gone": 2,
             "busy": 2, "failed": 0, "duplicate": 2, "invalid": 0, "left": 0})


@test
def flush_all_is_purge(case):
    spool, daemon = case.make()
    backlog(spool)
    preview = daemon.ctl("flush", "--all", "-n").stdout
    eq(preview.splitlines(), daemon.ctl("flush", "-n", "*").stdout.splitlines())
    eq(daemon.ctl("flush", "--all").stdout,
       "purge: 3 sites, 11 found, 5 moved, 2 gone, 2 active or on hold, 2 recorded twice\n")
    for args in ("--all", "example.com"), ():
        r = daemon.ctl("flush", *args, check=False)
        eq((r.returncode, r.stdout), (os.EX_USAGE, ""))
    spool, daemon = case.make()
    backlog(spool)
    r = daemon.ctl("flush", "--all", "--wait", "-t", "1s", check=False)
    eq(r.stdout.splitlines()[0].split(":")[0], "purge")
    assert r.stdout.splitlines()[1].startswith("5 moved: "), r.stdout


@test
def destinations_come_from_standard_input(case):
    spool, daemon = case.make()
    backlog(spool)
    for text, wanted in (("A-B.test\n\n example.com", ["a-b.test", "example.com"]), ("", [])):
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "flush", "-"],
                           input=text, capture_output=True, text=True, **as_user())
        eq((r.returncode, [line.split(":")[0] for line in r.stdout.splitlines()]), (0, wanted), r.stderr)


def fill_backlog(daemon):
    """Until nobody else can connect; the connections."""
    daemon.listener.listen(0)
    full = []
    while True:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.setblocking(False)
        full.append(s)
        try:
            in_directory(s, daemon.socket_path, s.connect)
        except BlockingIOError:
            return full


@test
def the_timeout_counts_for_the_connection_too(case):
    """connect(2) waits while the backlog of who hangs is full."""
    _, daemon = case.make(activation="hold")
    daemon.ctl("flush", "x.test")  # it runs
    daemon.process.send_signal(signal.SIGSTOP)
    full = fill_backlog(daemon)
    for args in (("flush", "x.test"), ("deliver", "A1"), ("add", "x.test", "A1"), ("refresh",)):
        r = daemon.ctl("--timeout", "1s", *args, check=False)
        eq((args, r.returncode, "takes no connections" in r.stderr), (args, os.EX_TEMPFAIL, True), r.stderr)
    r = import_from(daemon, message("A1", "x@y.test"), "--timeout", "1s")
    eq((r.returncode, "takes no connections" in r.stderr), (os.EX_TEMPFAIL, True), r.stderr)
    eq(daemon.ctl("-t", "1s", "status", check=False).returncode, os.EX_TEMPFAIL)
    for s in full:
        s.close()
    daemon.process.send_signal(signal.SIGCONT)


@test
def an_instance_that_does_not_exist_is_not_the_default(case):
    _, daemon = case.make()
    running = [(args, subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-i", "no-such", *args],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True))
               for args in (("list",), ("show", "*"), ("flush", "x.test"), ("deliver", "A1"),
                            ("add", "x.test", "A1"), ("refresh",), ("purge",), ("import",),
                            ("import", "-"), ("verify",), ("verify", "--repair"), ("status",),
                            ("metrics",), ("export",), ("-n", "flush", "x.test"),
                            ("-n", "enable-postfix"), ("-n", "disable-postfix"))]
    for args, process in running:
        out, err = process.communicate()
        eq((args, process.returncode, out, err),
           (args, os.EX_NOINPUT, "",
            "fflushctl: no such instance: /etc/no-such/main.cf: No such file or directory\n"))
    for name in ("", "a/b", "../postfix"):
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-i", name, "list"],
                           capture_output=True, text=True)
        eq((name, r.returncode), (name, os.EX_USAGE), r.stderr)


@test
def who_does_not_know_the_queue_takes_no_other(case):
    """main.cf does not say, and the queue of the default may be another's."""
    _, daemon = case.make()
    there = os.path.join(case.base, "postfix")
    os.mkdir(there, 0o755)
    write(there, "main.cf", "= what\n")
    config = os.path.join(case.base, "unsure.conf")
    write(case.base, "unsure.conf", "postfix_config_directory = '%s'\n" % there)
    for args in (("list",), ("flush", "x.test"), ("add", "x.test", "A1"), ("purge",), ("verify",),
                 ("status",), ("metrics",)):
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", config, *args],
                           capture_output=True, text=True)
        eq((args, r.returncode, r.stdout), (args, 78, ""), r.stderr)
        eq("not known, and not guessed" in r.stderr, True, r.stderr)


if __name__ == "__main__":
    main()
