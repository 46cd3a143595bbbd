#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl against the real daemon: what it shows, what it does, what it says, how it exits."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

import harness
from harness import eq, test, wait_for


OK, DATAERR, USAGE, NOINPUT, UNAVAILABLE, TEMPFAIL, NOPERM, CONFIG = 0, 65, 64, 66, 69, 75, 77, 78


def objects(completed):
    return [json.loads(line) for line in completed.stdout.splitlines()]


def times(spool, path):
    st = os.stat(spool.join(path))
    return st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns


def snapshot(spool):
    """All files of the queues with everything about them that an operation might change."""
    found = {}
    for queue in harness.QUEUES:
        for path in spool.files(queue):
            if queue != "public":
                st = os.stat(spool.join(path))
                found[path] = (st.st_mode, st.st_uid, st.st_size, st.st_ino, times(spool, path))
    return found


def backlog(spool):
    """Three sites: one with everything that may have become of a message."""
    for name in ("A1", "A2", "A3"):
        spool.put("deferred/A/" + name)
    spool.put("incoming/B1")
    spool.put("active/C1")
    spool.put("hold/D1")
    spool.put("deferred/E/E1")
    spool.log("example_com", b"A1\nA2\nA1\nB1\nC1\nD1\nF1\nA1\n", mtime=-7200, atime=-86400 * 3)
    spool.log("mail_example_com", b"A3\n", mtime=-150, atime=-7200)
    spool.log("aDb_test", b"E1\nE2\n", mtime=-600, atime=-600)


@test
def list_shows_what_waits_where(case):
    spool, daemon = case.make()
    backlog(spool)
    before = snapshot(spool)
    lines = daemon.ctl("list").stdout.splitlines()
    eq([line.split() for line in lines], [
        ["SITE", "RECORDS", "MESSAGES", "DEFERRED", "NEWEST", "FLUSHED"],
        ["example.com", "8", "6", "2", "2h", "3d"],
        ["a-b.test", "2", "2", "1", "10min", "10min"],
        ["mail.example.com", "1", "1", "1", "2min", "2h"]])
    eq(len({len(line) for line in lines}), 1, "columns are not aligned")
    eq(snapshot(spool), before, "a look has changed something")
    eq(daemon.is_waiting(), True, "a look has started the daemon")


@test
def list_is_sorted_by_what_is_asked_for(case):
    spool, daemon = case.make()
    backlog(spool)
    for by, wanted in (("records", "example.com a-b.test mail.example.com"),
                       ("messages", "example.com a-b.test mail.example.com"),
                       ("deferred", "example.com a-b.test mail.example.com"),
                       ("newest", "mail.example.com a-b.test example.com"),
                       ("flushed", "example.com mail.example.com a-b.test"),
                       ("site", "a-b.test example.com mail.example.com")):
        rows = objects(daemon.ctl("list", "--by", by, "--json"))
        eq([row["site"] for row in rows], wanted.split(), by)
    eq([r["site"] for r in objects(daemon.ctl("list", "--by", "newest", "--top", "1", "--json"))],
       ["mail.example.com"])
    eq(daemon.ctl("list", "--by", "size", check=False).returncode, USAGE)
    for wrong in ("0", "-1", "x", "1x", "", " 1", "99999999999999999999"):
        eq(daemon.ctl("list", "--top", wrong, check=False).returncode, USAGE, wrong)


@test
def list_in_json_has_all_of_it(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("xn__bcher_kva_example", b"A1\n")  # flush(8)'s, for xn--bcher-kva.example
    rows = {row["log"]: row for row in objects(daemon.ctl("list", "--json"))}
    st = os.stat(spool.join("flush/example_com"))
    eq(rows["example_com"],
       {"site": "example.com", "log": "example_com", "records": 8, "messages": 6, "deferred": 2,
        "newest": int(st.st_mtime), "flushed": int(st.st_atime)})
    eq(rows["aDb_test"]["site"], "a-b.test")
    eq(rows["xn__bcher_kva_example"]["site"], None)


@test
def patterns_choose_sites(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("L192_0_2_1R", b"A1\n")
    spool.log("notexample_com", b"A1\n")
    spool.log("xn__bcher_kva_example", b"A1\n")
    spool.log("xnDDbcherDkva_test", b"A1\n")

    def chosen(*args, code=OK):
        r = daemon.ctl("list", "--by", "site", "--json", *args, check=False)
        eq(r.returncode, code, args)
        return [row["site"] for row in objects(r)]

    eq(chosen("EXAMPLE.com"), ["example.com"])
    eq(chosen("--subdomains", "example.com"), ["example.com", "mail.example.com"])
    eq(chosen("*.COM"), ["example.com", "mail.example.com", "notexample.com"])
    eq(chosen("?-b.test"), ["a-b.test"])
    eq(chosen("[192.0.2.1]"), ["[192.0.2.1]"])
    eq(chosen("[an]*"), ["a-b.test", "notexample.com"])
    eq(chosen("bücher.test"), ["xn--bcher-kva.test"])
    eq(chosen("(xn__bcher_kva_example)"), [None])
    eq(chosen("example.com", "nosuch.test", code=NOINPUT), ["example.com"])
    eq(chosen("nosuch*", code=NOINPUT), [])
    eq(chosen("a b", code=DATAERR), [])


@test
def nothing_recorded_is_no_trouble(case):
    spool, daemon = case.make()
    eq(daemon.ctl("list").stdout, "")
    os.rmdir(spool.join("flush"))
    eq(daemon.ctl("list").stdout, "")
    eq(daemon.ctl("show", "example.com", check=False).returncode, NOINPUT)


@test
def hashed_directories_are_walked_through(case):
    spool, daemon = case.make(hash_queue_names="deferred, flush", hash_queue_depth="2")
    spool.put("deferred/A/1/A1")
    spool.log("e/x/example_com", b"A1\n")
    spool.log("a/b/wrong_test", b"A1\n")  # where no layout has it
    eq([row["log"] for row in objects(daemon.ctl("list", "--json"))], ["example_com"])
    eq(objects(daemon.ctl("show", "example.com", "--json"))[0]["queue"], "deferred")


@test
def what_another_layout_has_is_found_and_counted_once(case):
    """hash_queue_names or hash_queue_depth changed, and postsuper(1) has not run, or had run before
    flush(8) or a daemon with the old settings wrote once more."""
    spool, daemon = case.make(hash_queue_names="deferred, flush", hash_queue_depth="2")
    for path in ("deferred/A1", "deferred/A/A2", "deferred/A/3/A3", "deferred/A/4/_/_/A4"):
        spool.put(path)
    spool.log("e/x/example_com", b"A1\nA2\n", mtime=-50)
    spool.log("example_com", b"A3\n", mtime=-20)
    spool.log("e/example_com", b"A3\nA4\n", mtime=-90)
    spool.log("lost_test", b"A4\n")
    before = snapshot(spool)
    rows = {row["log"]: row for row in objects(daemon.ctl("list", "--json"))}
    eq({n: (r["records"], r["messages"], r["deferred"]) for n, r in rows.items()},
       {"example_com": (5, 4, 4), "lost_test": (1, 1, 1)})
    eq(sorted(row["queue_id"] for row in objects(daemon.ctl("show", "example.com", "--json"))),
       ["A1", "A2", "A3", "A4"])
    eq(daemon.ctl("flush", "-n", "example.com").stdout,
       "example.com: 5 found, 4 would be moved, 1 recorded twice\n")
    metrics = daemon.ctl("metrics").stdout
    eq("fflushd_logs 2\n" in metrics and "fflushd_records 6\n" in metrics, True, metrics)
    *found, total = objects(daemon.ctl("verify", "--json"))
    eq({(f["path"], f["finding"], f["problem"]) for f in found},
       {("flush/example_com", "place", False), ("flush/e/example_com", "place", False),
        ("flush/lost_test", "place", False)})
    eq((total["logs"], total["records"], total["unrecorded"], total["problems"]), (4, 6, 0, 0))
    eq(snapshot(spool), before, "who only looks has changed something")
    eq(daemon.ctl("flush", "*").stdout,
       "example.com: 5 found, 4 moved, 1 recorded twice\nlost.test: 1 found, 1 moved\n")
    eq(sorted(spool.files("flush")), ["flush/e/x/example_com", "flush/l/o/lost_test"])


@test
def repair_brings_logs_into_their_places(case):
    spool, daemon = case.make(hash_queue_names="deferred, flush", hash_queue_depth="1")
    for path in ("deferred/A1", "deferred/A/A2", "deferred/A/3/A3"):
        spool.put(path)
    spool.log("example_com", b"A1\nZ1\nA2")
    spool.log("e/example_com", b"A3\nno id\n")
    spool.log("z/wrong_test", b"A1\n")
    spool.log("l/o/lost_test", b"A2\n")
    *found, total = objects(daemon.ctl("verify", "--repair", "--json"))
    eq((total["logs"], total["records"], total["unrecorded"]), (3, 6, 0))
    eq(sorted((f["path"], f["repaired"]) for f in found if f["finding"] == "place"),
       [("flush/example_com", True), ("flush/l/o/lost_test", True), ("flush/z/wrong_test", True)])
    eq({p: spool.read(p) for p in spool.files("flush")},
       {"flush/e/example_com": b"A3\nA1\nA2\n", "flush/l/lost_test": b"A2\n",
        "flush/w/wrong_test": b"A1\n"})


@test
def export_finds_logs_in_any_layout(case):
    spool, daemon = case.make(hash_queue_names="deferred, flush", hash_queue_depth="1")
    spool.log("aDb_test", b"A1\n")
    spool.log("a/aDb_test", b"A2\n")
    spool.log("a_b_test", b"A3\n")  # where flush(8) does not look
    eq(daemon.ctl("export", "-n").stdout,
       "a-b.test: 2 records: flush/aDb_test -> flush/a_b_test\n")
    eq(daemon.ctl("export").stdout, "a-b.test: 2 records: flush/aDb_test -> flush/a_b_test\n")
    eq(spool.files("flush"), ["flush/a/a_b_test"])
    eq(sorted(spool.read("flush/a/a_b_test").split()), [b"A1", b"A2", b"A3"])


@test
def nothing_is_done_by_a_guess(case):
    """main.cf says hash_queue_depth = 2 and then has an error, or the instance is not there."""
    spool, daemon = case.make()
    conf = os.path.join(case.base, "conf-guess")
    os.mkdir(conf, 0o755)
    with open(os.path.join(conf, "main.cf"), "w") as f:
        f.write("queue_directory = %s\nhash_queue_depth = 2\n}broken {\n" % spool.path)
    os.utime(f.name, (1, 1))  # postconf waits until it has been quiet for two seconds
    config = os.path.join(case.base, "guess.conf")
    with open(config, "w") as f:
        f.write("postfix_config_directory = '%s'\nqueue_directory = '%s'\n" % (conf, spool.path))
    spool.put("deferred/A/1/A1")
    spool.log("example_com", b"A1\nZ1\n")
    spool.log("aDb_test", b"A1\n")
    before = snapshot(spool)
    verbs = (["verify", "--repair"], ["verify"], ["export"], ["import"], ["list"], ["show", "*"],
             ["metrics"], ["purge"], ["refresh"], ["flush", "example.com"], ["flush", "*"],
             ["flush", "-n", "example.com"], ["deliver", "A1"], ["add", "example.com", "A2"])
    commands = [[os.path.join(daemon.bin, "fflushctl"), *options, *verb]
                for verb in verbs for options in (["-c", config], ["-i", "nosuch"])]
    running = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                **harness.as_user()) for c in commands]
    for command, process in zip(commands, running):
        out, err = process.communicate(timeout=harness.TIMEOUT)
        if "nosuch" in command:
            eq((process.returncode, out), (66, ""), (command, err))
            eq(err, "fflushctl: no such instance: /etc/nosuch/main.cf: No such file or directory\n")
        else:
            eq((process.returncode, out), (CONFIG, ""), (command, err))
            eq("/postconf" in err and "not guessed" in err, True, err)
    eq(snapshot(spool), before)
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-i", "nosuch", "status"],
                       capture_output=True, text=True, **harness.as_user())
    eq((r.returncode, r.stdout), (66, ""), r.stderr)


@test
def show_says_where_each_message_is(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.put("deferred/A/A2", mtime=-5)
    before = snapshot(spool)
    lines = [line.split() for line in daemon.ctl("show", "example.com").stdout.splitlines()]
    eq(lines, [["SITE", "MESSAGE", "QUEUE", "DUE", "IN"],
               ["example.com", "A1", "deferred", lines[1][3]],
               ["example.com", "A2", "deferred", "now"],
               ["example.com", "B1", "incoming"],
               ["example.com", "C1", "active"],
               ["example.com", "D1", "hold"],
               ["example.com", "F1", "gone"]])
    eq(lines[1][3] in ("59min", "60min"), True, lines[1])
    rows = objects(daemon.ctl("show", "--json", "example.com"))
    eq([(row["queue_id"], row["queue"]) for row in rows],
       [("A1", "deferred"), ("A2", "deferred"), ("B1", "incoming"), ("C1", "active"),
        ("D1", "hold"), ("F1", "gone")])
    eq(rows[0]["due"], int(os.stat(spool.join("deferred/A/A1")).st_mtime))
    eq("due" in rows[2], False)
    eq(snapshot(spool), before)


@test
def a_dry_run_counts_what_a_flush_then_does(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("torn_test", b"\n\nA3\nnot an id\nA3\nA2\0junk\nE1")
    before = snapshot(spool)
    preview = objects(daemon.ctl("flush", "-n", "--json", "*"))
    eq(snapshot(spool), before, "a dry run has changed something")
    eq(daemon.is_waiting(), True)
    for row in preview:
        eq(row.pop("dry_run"), True)
        if row["site"] in ("example.com", "a-b.test"):  # nothing that the other also has
            eq(objects(daemon.ctl("flush", "--json", row["site"])), [row])
    by_site = {row["site"]: row for row in preview}
    eq(by_site["example.com"],
       {"site": "example.com", "status": "ok", "found": 8, "moved": 3, "gone": 1, "busy": 2,
        "failed": 0, "duplicate": 2, "invalid": 0, "left": 0})
    eq(by_site["torn.test"],
       {"site": "torn.test", "status": "ok", "found": 4, "moved": 3, "gone": 0, "busy": 0,
        "failed": 0, "duplicate": 1, "invalid": 1, "left": 0})


@test
def a_dry_run_knows_what_cannot_be_moved(case):
    if os.getuid() != 0:
        raise harness.Skip("needs root")
    spool, daemon = case.make()
    os.chown(spool.put("deferred/A/A1"), 0, 0)
    os.link(spool.put("deferred/A/A2"), spool.join("deferred/A/A2x"))
    spool.put("deferred/A/A3", mode=0o600)
    os.symlink("A1", spool.join("deferred/A/A4"))
    spool.log("example_com", b"A1\nA2\n")
    r = daemon.ctl("flush", "-n", "example.com", check=False)
    eq((r.returncode, r.stdout), (TEMPFAIL, "example.com: 2 found, 1 would be moved, 1 failed\n"))
    r = daemon.ctl("flush", "example.com", check=False)
    eq((r.returncode, r.stdout), (TEMPFAIL, "example.com: 2 found, 1 moved, 1 failed\n"))
    spool.put("deferred/A/A2")
    os.unlink(spool.join("incoming/A2"))
    preview = daemon.ctl("deliver", "-n", "A1", "A2", "A3", "A4", "A5", check=False)
    real = daemon.ctl("deliver", "A1", "A2", "A3", "A4", "A5", check=False)
    eq(preview.returncode, real.returncode)
    eq(preview.stdout.replace("would be ", ""), real.stdout)


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
    eq((r.returncode, r.stdout), (NOINPUT, ""))
    spool.log("xn__bcher_kva_example", b"A1\n")
    r = daemon.ctl("flush", "*", check=False)
    eq(r.returncode, DATAERR)
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
        eq((wrong, r.returncode, r.stdout), (wrong, DATAERR, ""))


@test
def a_plain_flush_needs_nothing_but_the_socket(case):
    if harness.USER is None:
        raise harness.Skip("needs root")
    spool, daemon = case.make()
    backlog(spool)
    os.chmod(spool.join("public"), 0o711)
    os.chmod(daemon.socket_path, 0o666)
    for args, wanted in ((("flush", "a-b.test"), "a-b.test: 2 found, 1 moved, 1 gone\n"),
                         (("deliver", "A1"), "A1: moved\n")):
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", "/nonexistent", "-s",
                            daemon.socket_path, *args], capture_output=True, text=True,
                           user=65534, group=65534, extra_groups=[])
        eq((r.returncode, r.stdout, r.stderr), (OK, wanted, ""))


@test
def who_may_not_look_is_told_so(case):
    if harness.USER is None:
        raise harness.Skip("needs root")
    spool, daemon = case.make()
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "list"],
                       capture_output=True, text=True, user=65534, group=65534, extra_groups=[])
    eq((r.returncode, r.stderr),
       (NOPERM, "fflushctl: %s: Permission denied\n" % spool.join("flush")))


@test
def deliver_reads_ids_from_its_input(case):
    spool, daemon = case.make()
    backlog(spool)
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "deliver",
                        "A1", "-", "B1"], input="A2 \tno/id\n\n\nA3\nZ9", capture_output=True,
                       text=True, **harness.as_user())
    eq(r.stdout, "A1: moved\nA2: moved\nA3: moved\nZ9: no such message in the queue\nB1: moved\n")
    eq((r.returncode, r.stderr), (DATAERR, 'fflushctl: not a queue ID: "no/id"\n'))


@test
def quiet_says_nothing_but_errors(case):
    spool, daemon = case.make(fast_flush_domains="example.com")
    backlog(spool)
    for args in (("flush", "example.com"), ("flush", "-n", "*"), ("deliver", "A1"), ("refresh",),
                 ("flush", "--json", "example.com"), ("add", "example.com", "A1")):
        r = daemon.ctl("-q", *args)
        eq((r.stdout, r.stderr), ("", ""), args)
    r = daemon.ctl("-q", "flush", "nosuch.test", check=False)
    eq((r.returncode, r.stdout), (NOPERM, ""))
    eq(r.stderr.startswith("fflushctl: nosuch.test: not in fast_flush_domains"), True)


@test
def json_tells_refusals_as_well(case):
    spool, daemon = case.make(fast_flush_domains="example.com")
    r = daemon.ctl("--json", "flush", "example.com", "nosuch.test", check=False)
    eq((r.returncode, objects(r)[1]), (NOPERM, {"site": "nosuch.test", "status": "denied"}))
    r = daemon.ctl("--json", "deliver", "a/b", check=False)
    eq((r.returncode, objects(r)), (DATAERR, [{"queue_id": "a/b", "status": "malformed"}]))
    eq(objects(daemon.ctl("--json", "add", "example.com", "A1")),
       [{"site": "example.com", "status": "ok"}])


def on_terminal(daemon, *args, env=None):
    """What fflushctl writes to a terminal."""
    master, slave = pty.openpty()
    p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args],
                         stdout=slave, stderr=slave, stdin=slave,
                         env=dict(os.environ, TERM="xterm") | (env or {}), **harness.as_user())
    os.close(slave)
    out = b""
    try:
        while chunk := os.read(master, 65536):
            out += chunk
    except OSError:  # the other end is closed
        pass
    os.close(master)
    return p.wait(harness.TIMEOUT), out


@test
def colour_is_for_terminals_that_want_it(case):
    spool, daemon = case.make()
    backlog(spool)
    eq(b"\033[1m" in on_terminal(daemon, "list")[1], True)
    eq(b"\033" in on_terminal(daemon, "list", env={"NO_COLOR": "1"})[1], False)
    eq(b"\033[1m" in on_terminal(daemon, "list", env={"NO_COLOR": ""})[1], True)
    eq(b"\033" in on_terminal(daemon, "list", env={"TERM": "dumb"})[1], False)
    eq("\033" in daemon.ctl("list").stdout, False)


@test
def a_terminal_sees_that_something_lasts(case):
    spool, daemon = case.make()
    backlog(spool)
    with open(spool.join("flush/a_test"), "w") as log:
        spool.own(spool.join("flush"))
        fcntl.flock(log, fcntl.LOCK_EX)  # the flush waits for it
        for env, args in (({}, ("-t4", "flush", "a.test")), ({}, ("-q", "-t4", "flush", "a.test"))):
            status, out = on_terminal(daemon, *args, env=env)
            eq(status, TEMPFAIL)
            eq(b"a.test: 1 s" in out, "-q" not in args, out)
            eq(b"\r\033[Kfflushctl: a.test: no reply in time" in out, "-q" not in args, out)
        r = daemon.ctl("-t1", "flush", "a.test", check=False)
        eq(r.stderr, "fflushctl: a.test: no reply in time\n")


@test
def options_are_for_the_commands_that_have_them(case):
    spool, daemon = case.make()
    for args in (("list", "-n"), ("refresh", "--limit", "1"), ("flush", "--top", "1", "x.test"),
                 ("list", "--every", "1s"), ("add", "--wait", "x.test", "A1"), ("flush",),
                 ("refresh", "x"), ("nosuch",), (), ("add", "x.test"), ("flush", "-t", "x", "y.test"),
                 ("--nosuch", "list")):
        r = daemon.ctl(*args, check=False)
        eq((r.returncode, r.stdout), (USAGE, ""), args)
        eq(r.stderr.startswith(("fflushctl: ", os.path.join(daemon.bin, "fflushctl"))), True, r.stderr)
    eq(daemon.is_waiting(), True)


@test
def help_fits_on_a_screen(case):
    _, daemon = case.make()
    lines = daemon.ctl("--help").stdout.splitlines()
    eq([line for line in lines if len(line) > 80], [])
    eq(len(lines) <= 24, True, "%d lines" % len(lines))


@test
def output_that_cannot_be_written_is_an_error(case):
    spool, daemon = case.make()
    backlog(spool)
    for args in (("list",), ("list", "--json"), ("show", "*"), ("flush", "-n", "*"), ("--help",)):
        with open("/dev/full", "w") as full:
            r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args],
                               stdout=full, stderr=subprocess.PIPE, **harness.as_user())
        eq(r.returncode, 74, args)


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
            "a.test: 2 found, 2 moved; 1 left\na.test: 1 found, 1 moved\n")
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
                         **harness.as_user())
    eq(p.stdout.readline(), "a.test: 1 found, 1 moved; 2 left\n")
    p.send_signal(signal.SIGINT)
    eq(p.wait(harness.TIMEOUT), -signal.SIGINT)
    p.stdout.close()
    eq(spool.read("flush/a_test"), b"A2\nA3\n")


@test
def what_cannot_be_combined_is_refused(case):
    spool, daemon = case.make()
    for args in (("--every", "1s"), ("-l", "1", "-e", "1s", "-w"), ("-l", "1", "-e", "1s", "-n"),
                 ("-w", "-n"), ("--limit", "0"), ("--reason", "x" * 201)):
        eq(daemon.ctl("flush", *args, "a.test", check=False).returncode, USAGE, args)
    eq(daemon.ctl("deliver", "-wn", "A1", check=False).returncode, USAGE)
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
       "refresh: 1 sites, 8 found, 3 moved, 1 gone, 2 active or on hold, 2 recorded twice\n")
    spool, daemon = case.make()
    backlog(spool)
    got = objects(daemon.ctl("purge", "--json"))[0]
    eq(got, {"request": "purge", "status": "ok", "sites": 3, "found": 11, "moved": 5, "gone": 2,
             "busy": 2, "failed": 0, "duplicate": 2, "invalid": 0, "left": 0})


def write(directory, name, text, mode=0o644):
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def stand_in(case, name, script):
    """A command in a directory of its own, for PATH."""
    directory = os.path.join(case.base, "path-" + name)
    os.mkdir(directory, 0o755)
    write(directory, name, script, 0o755)
    return directory


@test
def another_host_is_asked_over_ssh(case):
    spool, daemon = case.make()
    spool.log("example_com", b"A1\n")
    spool.put("deferred/A/A1")
    # as ssh does: the words become one line for a shell, standard input and status pass through
    ssh = stand_in(case, "ssh", '#!/bin/sh\n[ "$1 $2 $3" = "-xT -- me@there" ] || exit 99\n'
                                'shift 3\nexec sh -c "$*"\n')
    args = stand_in(case, "fflushctl", "#!/bin/sh\nfor a; do printf '[%s]' \"$a\"; done\ncat\nexit 66\n")

    def there(*words, path=(ssh, args), stdin=""):
        env = dict(os.environ, PATH=":".join((*path, os.environ["PATH"])))
        return subprocess.run([os.path.join(daemon.bin, "fflushctl"), *words], input=stdin, env=env,
                              capture_output=True, text=True, **harness.as_user())

    r = there("-H", "me@there", "-jqt", "5s", "--by=x y", "flush", "it's", "$(id)", "*", "",
              "--limit", "3", "--", "-q", "a\nb\\", stdin="in")
    eq(r.stdout, "[--json][--quiet][--timeout=5s][--by=x y][--limit=3][--][flush][it's][$(id)][*][]"
                 "[-q][a\nb\\]in")
    eq(r.returncode, 66)
    r = there("--host=me@there", "-c", daemon.config, "flush", "example.com",
              path=(ssh, daemon.bin))
    eq((r.returncode, r.stdout, r.stderr), (OK, "example.com: 1 found, 1 moved\n", ""))
    for host in ("", "-oProxyCommand=id"):
        eq(there("-H", host, "list").returncode, USAGE)
    eq(there("-H", "x", "list").returncode, 99)
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-H", "x", "list"],
                       env={"PATH": "/nonexistent"}, capture_output=True, text=True,
                       **harness.as_user())
    eq((r.returncode, r.stderr), (UNAVAILABLE, "fflushctl: ssh: No such file or directory\n"))


@test
def another_host_with_a_real_sshd(case):
    sshd = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if sshd is None or os.getuid() != 0 or shutil.which("ssh-keygen") is None:
        raise harness.Skip("needs root and sshd")
    spool, daemon = case.make()
    backlog(spool)
    base = os.path.join(case.base, "ssh")
    os.mkdir(base, 0o700)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                        os.path.join(base, key)], check=True)
    port = free_port()
    write(base, "sshd_config", "ListenAddress 127.0.0.1:%d\nHostKey %s/host\nPidFile none\n"
          "AuthorizedKeysFile %s/user.pub\nStrictModes no\nUsePAM no\n"
          "PermitRootLogin prohibit-password\nSetEnv PATH=%s:/usr/bin:/bin\n"
          % (port, base, base, daemon.bin))
    write(base, "ssh_config", "Host there\nHostName 127.0.0.1\nPort %d\nIdentityFile %s/user\n"
          "StrictHostKeyChecking no\nUserKnownHostsFile %s/known\nLogLevel ERROR\n"
          % (port, base, base))
    ssh = stand_in(case, "ssh", '#!/bin/sh\nexec %s -F %s/ssh_config "$@"\n'
                   % (shutil.which("ssh"), base))
    os.makedirs("/run/sshd", exist_ok=True)
    server = subprocess.Popen([sshd, "-D", "-e", "-f", os.path.join(base, "sshd_config")],
                              stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: Mailhost.answers(port), "no sshd")

        def there(*words, stdin=""):
            return subprocess.run(
                [os.path.join(daemon.bin, "fflushctl"), "-H", "root@there", "-c", daemon.config,
                 *words], input=stdin, capture_output=True, text=True, timeout=harness.TIMEOUT,
                env=dict(os.environ, PATH=ssh + ":" + os.environ["PATH"]))

        r = there("flush", "-n", "*.com")
        eq((r.returncode, r.stderr), (OK, ""))
        eq(r.stdout, daemon.ctl("flush", "-n", "*.com").stdout)
        r = there("deliver", "-", stdin="A1 NOSUCH\n")
        eq((r.returncode, r.stdout), (NOINPUT, "A1: moved\nNOSUCH: no such message in the queue\n"))
        eq(there("show", "no'such").stderr,
           "fflushctl: not a domain name: \"no'such\"\n")
    finally:
        server.terminate()
        server.wait(harness.TIMEOUT)


def message(queue_id, *addresses, queue="deferred"):
    return json.dumps({"queue_name": queue, "queue_id": queue_id, "arrival_time": 1,
                       "message_size": 300, "forced_expire": False, "sender": "a@b.test",
                       "recipients": [{"address": a, "delay_reason": "why not"}
                                      for a in addresses]}) + "\n"


def import_from(daemon, text, *args):
    return subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args,
                           "import", "-"], input=text, capture_output=True, text=True,
                          **harness.as_user())


@test
def import_records_each_pair_once(case):
    spool, daemon = case.make(fast_flush_domains="example.com, bücher.test, [192.0.2.1]")
    spool.log("example_com", b"A2\n")
    text = (message("A1", "x@example.com", "y@Example.COM", '"@"@example.com') +
            message("A2", "x@example.com", "x@nosuch.test") +
            message("A3", "x@bücher.test", "x@[192.0.2.1]", "local", "x@", "x@a..b") +
            message("A4", "x@example.com", queue="active") +
            message("A5", "x@example.com", queue="incoming") +
            message("A6", "x@example.com", queue="hold") + message("A7"))
    wanted = {"messages": 4, "added": 3, "known": 3, "not_eligible": 1, "no_site": 3, "failed": 0,
              "malformed": 0, "dry_run": False}
    r = import_from(daemon, text, "--json")
    eq((r.returncode, objects(r), r.stderr), (OK, [wanted], ""))
    eq(spool.read("flush/example_com"), b"A2\nA1\n")
    eq(spool.files("flush"), ["flush/L192_0_2_1R", "flush/example_com", "flush/xnDDbcherDkva_test"])
    eq(objects(import_from(daemon, text, "--json")), [wanted | {"added": 0, "known": 6}])
    eq(spool.read("flush/example_com"), b"A2\nA1\n")


SPELLINGS = ("xn--bcher-kva.example", "XN--BCHER-kva.Example", "b\u00fccher.example",
             "B\u00dcCHER.EXAMPLE", "bu\u0308cher.example", "b\u00fccher\u3002example")


@test
def a_site_has_one_answer_however_it_is_written(case):
    """In the list as to any command."""
    site, log = "xn--bcher-kva.example", "flush/xnDDbcherDkva_example"
    for listed in SPELLINGS[::2] + ("example",):
        spool, daemon = case.make(fast_flush_domains="!other.example, " + listed)
        for text in SPELLINGS[1::2] + (site, "b\u00fccher.example."):
            def check(*args, wanted, record=True):
                if record:
                    spool.put("deferred/A/A1")
                    spool.log("xnDDbcherDkva_example", b"A1\n")
                r = daemon.ctl(*args, check=False)
                eq((r.returncode, r.stderr), (OK, ""), (listed, args))
                if wanted not in r.stdout:
                    raise AssertionError("%s, %s: %s" % (listed, args, r.stdout))

            flushed = site + ": 1 found, 1 moved"
            check("flush", text, wanted=flushed)
            check("flush", "-S", text, wanted=flushed)
            check("flush", "-l", "5", text, wanted=flushed)
            check("flush", "-n", text, wanted=site + ": 1 found, 1 would be moved")
            check("flush", "-j", text, wanted='{"site":"%s","status":"ok"' % site)
            check("list", text, wanted=site)
            check("show", text, wanted=site)
            check("metrics", text, wanted='{site="%s"}' % site)
            os.unlink(spool.join(log))
            check("flush", "-w", text, wanted=site + ": 0 found", record=False)
            check("add", text, "A2", wanted="", record=False)
            eq(spool.read(log), b"A2\n", (listed, text))
            os.unlink(spool.join(log))
            r = import_from(daemon, message("A3", "x@" + text.rstrip(".")))
            eq(r.stdout, "1 deferred messages: 1 records added, 0 already there\n")
            eq(spool.read(log), b"A3\n", (listed, text))
        for pattern in ("*", "*b\u00fccher*", "*xn--bcher*"):
            check("flush", pattern, wanted=flushed)
        journal = [line for line in daemon.journal() if "send_site" in line]
        eq([line for line in journal if " " + site + ":" not in line], [], "in the journal")


@test
def a_site_that_is_refused_is_refused_in_each_spelling(case):
    spool, daemon = case.make(fast_flush_domains="!b\u00fccher.example, example")
    for text in SPELLINGS:
        for args in (("flush", text), ("flush", "-S", text), ("flush", "-w", text),
                     ("add", text, "A1")):
            r = daemon.ctl(*args, check=False)
            eq((r.returncode, r.stderr.splitlines()[0]),
               (NOPERM, "fflushctl: xn--bcher-kva.example: not in fast_flush_domains"), args)
        eq(objects(daemon.ctl("-j", "flush", text, check=False)),
           [{"site": "xn--bcher-kva.example", "status": "denied"}])
    eq(spool.files("flush"), [])


@test
def what_is_no_site_is_refused_the_same_by_all_commands(case):
    spool, daemon = case.make(fast_flush_domains="example.com, static:all")
    spool.put("deferred/A/A1")
    spool.log("example_com", b"A1\n")
    for text in ("a b", "", ".", "a..b", "example.com..", "1.2.3.4", "xn--a.example", "-a.example",
                 "l" * 64 + ".example", "a" * 5000, "b\udcff.example", "a\u200db.example",
                 "\u2603.test", "x@example.com", "<x@example.com>"):
        shown = {"b\udcff.example": "b\\xff.example",
                 "a\u200db.example": "a\\xe2\\x80\\x8db.example"}.get(text, text)
        hint = " (an address? give what is after the @)" if "@" in text else ""
        wanted = 'fflushctl: not a domain name%s: "%s"%s\n' % (
            hint, shown[:60], " (cut)" if len(text) > 60 else "")
        for args in (("flush", "example.com"), ("flush", "-n"), ("flush", "-S"), ("flush", "-w"),
                     ("flush", "-l", "1"), ("flush", "-j"), ("flush", "*"), ("list",), ("show",),
                     ("metrics",)):
            r = daemon.ctl(*args, "--", text, check=False)
            eq((r.returncode, r.stdout, r.stderr), (DATAERR, "", wanted), (args, text))
        r = daemon.ctl("add", "--", text, "A1", check=False)
        eq((r.returncode, r.stdout, r.stderr), (DATAERR, "", wanted), ("add", text))
    eq(spool.files("incoming"), [])  # nor is anything done for those beside it


@test
def import_goes_on_after_what_it_cannot_read(case):
    spool, daemon = case.make()
    bad = ["nonsense", "{}", "[]", '"x"', "{" * 5000, message("a/b", "x@y.test").strip(),
           '{"queue_name": "deferred", "queue_id": 5, "recipients": []}',
           '{"queue_name": "deferred", "queue_id": "A1", "recipients": {}}', "\x00"]
    odd = ('{"queue_name": "deferred", "queue_id": "A2", '
           '"recipients": [null, 5, {}, {"address": 7}, {"address": "x@y.test"}]}')
    r = import_from(daemon, "\n".join(bad) + "\n" + odd + "\n" + message("A3", "x@y.test"))
    eq((r.returncode, r.stdout), (DATAERR, "2 deferred messages: 2 records added, "
                                           "0 already there\n"))
    eq(r.stderr, "fflushctl: %d lines are not what postqueue -j prints\n" % len(bad))
    eq(spool.read("flush/y_test"), b"A2\nA3\n")


@test
def import_of_very_many(case):
    n = int(os.environ.get("FFLUSHD_MANY", "100000")) // 5
    spool, daemon = case.make()
    text = "".join(message("%010X" % i, "x@site%d.test" % (i % 50)) for i in range(n))
    eq(import_from(daemon, text).stdout,
       "%d deferred messages: %d records added, 0 already there\n" % (n, n))
    eq(sum(row["messages"] for row in objects(daemon.ctl("list", "--json"))), n)
    for i in range(50):
        eq(sorted(spool.read("flush/site%d_test" % i).decode().split()),
           ["%010X" % j for j in range(i, n, 50)])


@test
def import_without_a_service_says_so(case):
    spool, daemon = case.make()
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "-s",
                        spool.join("public/nosuch"), "import", "-"],
                       input=message("A1", "x@y.test") * 3, capture_output=True, text=True,
                       **harness.as_user())
    eq(r.returncode, UNAVAILABLE)
    eq("cannot connect" in r.stderr, True, r.stderr)
    eq(daemon.ctl("import", check=False).returncode, 78)  # there is no Postfix to ask
    eq(daemon.ctl("import", "x", check=False).returncode, USAGE)


@test
def verify_finds_what_is_wrong(case):
    spool, daemon = case.make()
    spool.put("deferred/A/A1")
    spool.put("deferred/A/A2")
    spool.put("active/A3")
    spool.log("fine_test", b"A1\nA3\n")
    eq(daemon.ctl("verify").stdout,
       "1 logs, 2 records: 0 of messages that are gone, 0 twice; 1 deferred messages are recorded "
       "nowhere; 0 problems, 0 repaired\n"
       "\"fflushctl import\" records those of eligible sites\n")
    spool.log("stale_test", b"Z1\nA1\nA1\n")
    spool.log("torn_test", b"A1\n\nno id\n\xff\nA2")
    spool.log("x", b"A1\nA2\n")
    spool.log("9", b"A1\n")
    spool.log(".hidden", b"A1\n")
    spool.log("no-name", b"A1\n")
    spool.log("xn__bcher_kva_example", b"A1\n")
    os.chmod(spool.log("open_test", b"A1\n"), 0o644)
    os.symlink("fine_test", spool.join("flush/link_test"))
    os.link(spool.log("twice_test", b"A1\n"), spool.join("flush/again_test"))
    spool.put("flush/dir_test/A1")
    spool.log("h/o/hashed_test", b"A1\n")
    if harness.USER is not None:
        os.chown(spool.log("root_test", b"A1\n"), 0, 0)
    before = snapshot(spool)
    r = daemon.ctl("verify", "--json", check=False)
    eq(r.returncode, DATAERR)
    eq(snapshot(spool), before, "verify has changed something")
    *found, total = objects(r)
    wanted = {("flush/stale_test", "stale", 1, False), ("flush/stale_test", "duplicate", 1, False),
              ("flush/torn_test", "invalid", 2, True), ("flush/torn_test", "torn", 2, True),
              ("flush/x", "short_name", 1, True), ("flush/9", "short_name", 1, True),
              ("flush/.hidden", "name", 1, True), ("flush/no-name", "name", 1, True),
              ("flush/xn__bcher_kva_example", "foreign", 1, False),
              ("flush/open_test", "mode", 1, True), ("flush/link_test", "type", 1, True),
              ("flush/twice_test", "links", 1, True), ("flush/again_test", "links", 1, True),
              ("flush/dir_test", "type", 1, True), ("flush/h/o/hashed_test", "place", 1, True)}
    if harness.USER is not None:
        wanted.add(("flush/root_test", "owner", 1, True))
    eq({(f["path"], f["finding"], f["count"], f["problem"]) for f in found}, wanted)
    eq(any(f["repaired"] for f in found), False)
    eq((total["problems"], total["repaired"]), (len([w for w in wanted if w[3]]), 0))
    eq((total["stale"], total["duplicate"], total["unrecorded"]), (1, 1, 0))
    text = daemon.ctl("verify", check=False).stdout
    eq("flush/torn_test: 2 lines are no queue IDs\n" in text, True, text)


@test
def repair_loses_no_record(case):
    spool, daemon = case.make()
    for name in ("A1", "A2", "A3", "A4"):
        spool.put("deferred/A/" + name)
    spool.log("torn_test", b"A1\nno id\nZ1\nA1\n\nA2\0x\nA3")
    spool.log("only_torn_test", b"A4")
    spool.log("x", b"A1\nA2\nZ2\n")
    spool.log("xZ", b"A3\n")
    spool.log("9", b"A1\n")
    os.chmod(spool.log("open_test", b"A1\n"), 0o666)
    command = [os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "verify", "--repair"]
    # As root, if we are. Who changes his user cannot be traced, and leaks are looked for by tracing.
    r = subprocess.run(command, capture_output=True, text=True,
                       env=dict(os.environ, ASAN_OPTIONS="detect_leaks=0"))
    eq(r.returncode, DATAERR, r.stderr)  # what to do with "9" nobody knows
    eq(spool.read("flush/torn_test"), b"A1\nA2\nA3\n")
    eq(spool.read("flush/only_torn_test"), b"A4\n")
    eq(spool.read("flush/xZ"), b"A3\nA1\nA2\n")
    eq(os.path.exists(spool.join("flush/x")), False)
    eq(spool.read("flush/9"), b"A1\n")
    eq(os.stat(spool.join("flush/open_test")).st_mode & 0o7777, 0o600)
    eq("flush/x: a name of one character: Postfix does not start with it there (repaired)\n"
       in r.stdout, True, r.stdout)
    owners = {os.stat(spool.join(p)).st_uid for p in spool.files("flush")}
    eq(owners, {os.stat(spool.join("incoming")).st_uid})
    os.unlink(spool.join("flush/9"))
    eq(daemon.ctl("verify", "-q").stdout, "")
    eq(daemon.ctl("flush", "torn.test").stdout, "torn.test: 3 found, 3 moved\n")


@test
def repair_and_the_daemon_do_not_get_in_each_others_way(case):
    spool, daemon = case.make()
    n = 150
    for i in range(n):
        spool.put("deferred/%X/%X0" % (int(("%X" % i)[0], 16), i), data=b"")
    command = [os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "verify", "-q",
               "--repair"]
    p = None
    for i in range(n):
        eq(daemon.exchange(harness.add("busy.test", "%X0" % i)), harness.OK)
        eq(daemon.exchange(harness.add("busy.test", "Z%X" % i)), harness.OK)  # soon repaired away
        if p is None or p.poll() is not None:
            eq(p is None or p.returncode == 0, True)
            p = subprocess.Popen(command, stdout=subprocess.DEVNULL, **harness.as_user())
    eq(p.wait(harness.TIMEOUT), 0)
    eq(subprocess.run(command, **harness.as_user()).returncode, 0)
    eq(sorted(spool.read("flush/busy_test").decode().split()), sorted("%X0" % i for i in range(n)))


@test
def export_renames_and_merges(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("a_b_test", b"G1")
    spool.log("xZ", b"H1\n")
    spool.log("L192_0_2_1R", b"I1\n", atime=-86400 * 3)
    before = snapshot(spool)
    wanted = ["a-b.test: 2 records: flush/aDb_test -> flush/a_b_test",
              "[192.0.2.1]: 1 records: flush/L192_0_2_1R -> flush/_192_0_2_1_"]
    eq(sorted(daemon.ctl("export", "--dry-run").stdout.splitlines()), sorted(wanted))
    eq(snapshot(spool), before, "a dry run has changed something")
    r = daemon.ctl("export")
    eq(sorted(r.stdout.splitlines()), sorted(wanted))
    eq("1 logs of one-letter sites stay" in r.stderr, True, r.stderr)
    eq(spool.read("flush/a_b_test"), b"G1\nE1\nE2\n")
    st = os.stat(spool.join("flush/_192_0_2_1_"))
    eq(time.time() - st.st_atime > 86400 * 2, True, "the refresh is put off")
    eq(spool.read("flush/_192_0_2_1_"), b"I1\n")
    eq(sorted(spool.files("flush")), sorted("flush/" + n for n in (
        "_192_0_2_1_", "a_b_test", "example_com", "mail_example_com", "xZ")))
    eq(daemon.ctl("export", "-q").stdout, "")


@test
def export_loses_nothing_wherever_it_is_killed(case):
    if not shutil.which("strace"):
        raise harness.Skip("needs strace")
    spool, daemon = case.make()
    program = [os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "export", "-q"]
    # The leak check of the sanitizers uses ptrace(2) itself.
    env = dict(os.environ, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")
    points = 0
    for call in ("openat", "flock", "pread64", "pwrite64", "fdatasync", "utimensat", "ftruncate",
                 "unlinkat", "close"):
        n = status = None
        while status != 0:  # one call later each time, until there is none
            n = (n or 0) + 1
            shutil.rmtree(spool.join("flush"))
            os.mkdir(spool.join("flush"), 0o700)
            spool.own(spool.join("flush"))
            spool.log("aDb_test", b"A1\nA2\n")
            spool.log("a_b_test", b"B1\n")
            status = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e",
                                     "inject=%s:signal=KILL:when=%d" % (call, n)] + program,
                                    env=env, **harness.as_user()).returncode
            points += status != 0
            eq(status in (0, -signal.SIGKILL, 128 + signal.SIGKILL), True, status)
            left = set(b"".join(spool.read(p) for p in spool.files("flush")).split())
            eq((call, n, left), (call, n, {b"A1", b"A2", b"B1"}))
            eq(subprocess.run(program, **harness.as_user()).returncode, 0)
            eq(spool.files("flush"), ["flush/a_b_test"])
            eq(set(spool.read("flush/a_b_test").split()), {b"A1", b"A2", b"B1"})
    eq(points > 30, True, points)


@test
def export_loses_nothing_when_disturbed(case):
    """Somebody records while it is at work, and it is killed now and then."""
    spool, daemon = case.make()
    command = [os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "export", "-q"]
    n, p, kills = 400, None, 0
    for i in range(n):
        eq(daemon.exchange(harness.add("a-b.test", "%X0" % i)), harness.OK)
        if p is None or p.poll() is not None:
            p = subprocess.Popen(command, **harness.as_user())
        elif case.rng.random() < 0.3:
            p.kill()
            kills += p.wait() != 0
    p.wait(harness.TIMEOUT)
    eq(kills > 5, True, "it was hardly ever killed")
    eq(subprocess.run(command, **harness.as_user()).returncode, 0)
    eq(spool.files("flush"), ["flush/a_b_test"])
    eq(set(spool.read("flush/a_b_test").decode().split()), {"%X0" % i for i in range(n)})


@test
def repair_is_for_the_owner(case):
    if harness.USER is None:
        raise harness.Skip("needs root")
    spool, daemon = case.make()
    spool.log("torn_test", b"A1")
    for d in ("flush", "incoming", "deferred"):
        os.chmod(spool.join(d), 0o755)
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "verify",
                        "--repair"], capture_output=True, text=True, user=65534, group=65534,
                       extra_groups=[])
    eq(r.returncode, NOPERM, r.stderr)
    eq(spool.read("flush/torn_test"), b"A1")


def fill_backlog(daemon):
    """Until nobody else can connect; the connections."""
    daemon.listener.listen(0)
    full = []
    while True:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.setblocking(False)
        full.append(s)
        try:
            harness.in_directory(s, daemon.socket_path, s.connect)
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
        eq((args, r.returncode, "takes no connections" in r.stderr), (args, TEMPFAIL, True), r.stderr)
    r = import_from(daemon, message("A1", "x@y.test"), "--timeout", "1s")
    eq((r.returncode, "takes no connections" in r.stderr), (TEMPFAIL, True), r.stderr)
    eq(daemon.ctl("-t", "1s", "status", check=False).returncode, TEMPFAIL)
    for s in full:
        s.close()
    daemon.process.send_signal(signal.SIGCONT)


@test
def metrics_replace_plain_files_only(case):
    spool, daemon = case.make()
    there = os.path.join(case.base, "1", "out")
    os.mkdir(there)
    harness.Spool.own(spool, there)

    def path(name):
        return os.path.join(there, name)

    os.mkfifo(path("fifo"))
    os.mkdir(path("directory"))
    write(there, "plain", "old")
    os.symlink("plain", path("link"))
    os.symlink("absent", path("dangling"))
    s = socket.socket(socket.AF_UNIX)
    harness.bind(s, path("socket"))
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
           (args, NOINPUT, "", "fflushctl: no such instance: /etc/no-such/main.cf: No such file or "
                               "directory\n"))
    for name in ("", "a/b", "../postfix"):
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-i", name, "list"],
                           capture_output=True, text=True)
        eq((name, r.returncode), (name, USAGE), r.stderr)


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
       (UNAVAILABLE, ("Socket    nobody listens on " + spool.join("public/nosuch"))[:60]))
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
        eq(r.returncode, UNAVAILABLE, r.stdout)
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
    eq((r.returncode, "Postfix is not running" in r.stdout), (UNAVAILABLE, True), r.stdout)
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
                     r" 'failures'=0c;;;0\n", line)
    eq((code, m is not None), (0, True), line)
    for options, code, text in ((("--deferred-warning", "4"), 0, "'deferred'=4;4;;0"),
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
    eq((o["state"], o["status"], o["findings"]), ("OK", 0, []))


@test
def check_does_not_call_broken_what_it_could_not_see(case):
    spool, daemon = case.make(activation="hold")
    without_systemd(daemon)
    daemon.stop()
    # the socket listens, and nobody comes
    code, line = check(daemon, "--timeout", "1s")
    eq((code, "the self-test did not end in time" in line), (3, True), line)
    r = daemon.ctl("status", "-t", "1s", check=False)
    eq((r.returncode, "Health    unknown" in r.stdout), (TEMPFAIL, True), r.stdout)
    daemon.start()
    wait_for(lambda: check(daemon)[0] == 0)
    if harness.USER is None:
        return
    os.chmod(spool.join("public"), 0o700)
    for path in "flush", "deferred", "incoming":
        os.chmod(spool.join(path), 0o700)
    for args, code in (("check",), 3), (("status",), NOPERM):
        r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args],
                           capture_output=True, text=True, user=65534, group=65534, extra_groups=[])
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
            harness.bind(s, path)
            s.listen()
            os.chmod(path, 0o666)
            p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "-s",
                                  path, "check"], stdout=subprocess.PIPE, text=True,
                                 **harness.as_user())
            s.accept()[0].close()  # who listens?
            c = s.accept()[0]
            c.recv(100)
            c.sendall(reply)
            c.close()
            line = p.communicate(timeout=harness.TIMEOUT)[0]
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
        harness.bind(s, path)
        s.listen()
        os.chmod(path, 0o666)
        server = threading.Thread(target=serve, args=(s,))
        server.start()
        r = daemon.ctl("-s", path, "--timeout", "1s", "check", check=False)
        s.shutdown(socket.SHUT_RDWR)
        server.join()
    eq((r.returncode, r.stdout.startswith("FFLUSHD WARNING - not yet read")), (1, True), r.stdout)


@test
def the_manual_names_every_finding(case):
    with open(os.path.join(harness.TOP, "man/fflushd.8")) as f:
        text = f.read()
    text = text[text.index(".Sh HEALTH"):text.index(".Sh LIMITS")]
    # what a reader sees of it, in one line
    page = " ".join(re.sub(r"^\.\w+ |\b(Li|Ar|Pa|Va|Ns|Xr) ", "", line) for line in text.split("\n"))
    found = 0
    for source in "daemon/selftest.c", "daemon/service.c", "ctl/ctl-health.c":
        with open(os.path.join(harness.TOP, "src", source)) as f:
            code = re.sub(r'"\s*"', "", f.read())
        for check_, reason in re.findall(r'(?:failed|warning|findings_add|no_answer)\((?:&?[\w>-]+, )+?'
                                         r'(?:"(\w+)",\s*(?:FINDING_\w+,\s*)?)?"([^"]{8,})"', code):
            found += 1
            parts = [part.strip(" :,()") for part in re.split(r"%\.?\*?\w+|: $| \(", reason)]
            part = max(parts, key=len)
            eq((source, part, part in page), (source, part, True))
    eq(found > 30, True, found)


def complete(daemon, *words):
    """What bash offers for the last word."""
    script = 'PATH=$1:$PATH; . "$2"; shift 2; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); ' \
             '_fflushctl; printf "%s\\n" "${COMPREPLY[@]}"'
    # a fflushctl that knows the test's configuration
    directory = os.path.join(daemon.base, "path")
    os.makedirs(directory, exist_ok=True)
    write(directory, "fflushctl",
          '#!/bin/sh\nexec "%s/fflushctl" -c "%s" "$@"\n' % (daemon.bin, daemon.config), 0o755)
    r = subprocess.run(["bash", "-c", script, "bash", directory,
                        os.path.join(harness.TOP, "completions/fflushctl.bash"), "fflushctl", *words],
                       capture_output=True, text=True, check=True)
    eq(r.stderr, "")
    return sorted(r.stdout.split())


@test
def bash_completes_what_help_knows(case):
    spool, daemon = case.make()
    backlog(spool)
    eq(complete(daemon, "st"), ["status"])
    eq(complete(daemon, "-c", "x", "--json", "f"), ["flush"])
    eq(complete(daemon, "flush", ""), ["a-b.test", "example.com", "mail.example.com"])
    eq(complete(daemon, "list", "exa"), ["example.com"])
    eq(complete(daemon, "list", "--by", "ne"), ["newest"])
    eq(complete(daemon, "verify", "--re"), ["--repair"])
    eq(complete(daemon, "refresh", "x"), [])
    # all commands and long options are completed for some command
    text = daemon.ctl("--help").stdout
    verbs = complete(daemon, "")
    rows = text[text.index("Commands:\n"):text.index("Options:\n")].splitlines()[1:]
    # a command and what it does, twice in most rows
    named = {words.split()[0] for row in rows for words in re.split("  +", row.strip())[0::2]}
    eq(named - set(verbs), set(), "in --help, but not completed")
    for verb in verbs:
        eq("  %s " % verb in text, True, "%s is not in --help" % verb)
        r = daemon.ctl(verb, "--nosuch", check=False)
        eq("unknown command" in r.stderr, False, verb)
    offered = {o for verb in verbs for o in complete(daemon, verb, "--")}
    wanted = {word.strip(",") for word in text.split() if word.startswith("--")}
    eq(offered - wanted, set())
    eq(wanted - offered, set())


@test
def zsh_understands_the_completion(case):
    zsh = shutil.which("zsh")
    if not zsh:
        raise harness.Skip("needs zsh")
    path = os.path.join(harness.TOP, "completions/_fflushctl")
    subprocess.run([zsh, "-n", path], check=True)
    with open(path) as f:
        text = f.read()
    _, daemon = case.make()
    for verb in complete(daemon, ""):
        eq("'%s:" % verb in text, True, verb)
        for option in complete(daemon, verb, "--"):
            eq(option in text, True, option)


# ------------------------------------------------------------------------------ a real Postfix

MASTER_CF = """
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
showq unix n - n - - showq
smtp unix - - n - 9 smtp
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
local unix - n n - - local
postlog unix-dgram n - n - 1 postlogd
"""


def postfix_default(name):
    postconf = shutil.which("postconf", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if os.getuid() != 0:
        raise harness.Skip("needs root")
    if postconf is None:
        raise harness.Skip("needs Postfix")
    return subprocess.run([postconf, "-dh", name], check=True, capture_output=True,
                          text=True).stdout.strip()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Mailhost:
    """A private Postfix with a real queue manager on a spool that fflushd serves.

    Mail for up.test goes to an SMTP server of ours, once start_sink() has been called; mail for
    down.test to a port that nobody listens on.
    """

    def __init__(self, case, **main_cf):
        owner = postfix_default("mail_owner")
        if harness.USER is None or harness.USER.pw_name != owner:
            raise harness.Skip("the queue's owner is not Postfix's")
        case.n += 1
        self.base = os.path.join(case.base, "host%d" % case.n)
        os.mkdir(self.base, 0o755)
        os.chown(self.base, harness.USER.pw_uid, harness.USER.pw_gid)
        self.spool = harness.Spool(self.base, qmgr=None)
        for name in ("private", "maildrop", "defer", "bounce", "saved", "trace", "corrupt"):
            os.mkdir(self.spool.join(name), 0o700)
        os.mkdir(self.spool.join("pid"), 0o755)
        os.mkdir(os.path.join(self.base, "data"), 0o700)
        self.spool.own(self.spool.path)
        self.spool.own(os.path.join(self.base, "data"))
        os.chown(self.spool.join("pid"), 0, 0)
        self.conf = os.path.join(self.base, "conf")
        os.mkdir(self.conf, 0o755)
        self.port = free_port()
        self.maillog = os.path.join(self.base, "mail.log")
        self.received = os.path.join(self.base, "received")
        self.write_config(main_cf)
        self.processes = []
        case.open.append(self)
        self.start_master()
        self.daemon = harness.Daemon(self.spool, self.base, postfix_config_directory=self.conf,
                                     hash_queue_names="deferred, defer")
        case.open.append(self.daemon)

    def write_config(self, main_cf):
        # Nobody listens on port 1.
        values = {"compatibility_level": "3.6", "queue_directory": self.spool.path,
                  "data_directory": os.path.join(self.base, "data"),
                  "mail_owner": harness.USER.pw_name,
                  "command_directory": postfix_default("command_directory"),
                  "daemon_directory": postfix_default("daemon_directory"),
                  "myhostname": "host.test", "mydestination": "", "alias_maps": "",
                  "alias_database": "", "local_recipient_maps": "", "disable_dns_lookups": "yes",
                  "inet_interfaces": "loopback-only", "inet_protocols": "ipv4",
                  "maillog_file": self.maillog, "maillog_file_prefixes": self.base,
                  "flush_service_name": "fflushd", "fast_flush_domains": "static:all",
                  "bounce_queue_lifetime": "1d",
                  "transport_maps": "inline:{up.test=smtp:[127.0.0.1]:%d, "
                                    "down.test=smtp:[127.0.0.1]:1, "
                                    "off.test=retry:switched-off}"
                                    % self.port,
                  } | main_cf
        for name, text in (("main.cf", "".join("%s = %s\n" % i for i in values.items())),
                           ("master.cf", MASTER_CF)):
            path = os.path.join(self.conf, name)
            with open(path, "w") as f:
                f.write(text)
            os.chmod(path, 0o644)
            os.utime(path, (time.time() - 60,) * 2)  # Postfix waits with a new one

    def start_master(self):
        with open(os.path.join(self.base, "master.out"), "ab") as out:
            master = subprocess.Popen(
                [os.path.join(postfix_default("daemon_directory"), "master"), "-c", self.conf],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        # It ends with us, whatever ends us: the pipe is closed then.
        guard = subprocess.Popen(["sh", "-c", 'read x; kill "$0"', str(master.pid)],
                                 stdin=subprocess.PIPE, start_new_session=True)
        self.processes += [guard, master]
        wait_for(lambda: os.path.exists(self.spool.join("public/qmgr")), "master does not run")

    def start_sink(self):
        self.processes.append(subprocess.Popen(
            [sys.executable, os.path.join(harness.TOP, "tests/lib/mailhost.py"), "sink", str(self.port),
             self.received], stderr=subprocess.DEVNULL, start_new_session=True))
        wait_for(lambda: self.answers(self.port), "no SMTP server")

    @staticmethod
    def answers(port):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    def command(self, name):
        return os.path.join(postfix_default("command_directory"), name)

    def send(self, *recipients, n=1):
        for _ in range(n):
            subprocess.run([self.command("sendmail"), "-C", self.conf, "-f", "a@host.test",
                            *recipients], input="Subject: x\n\nx\n", text=True, check=True,
                           env=dict(os.environ, MAIL_CONFIG=self.conf))

    def ctl(self, *args, check=True):
        """As root: an ordinary user may not run postqueue for such an instance."""
        r = subprocess.run([os.path.join(self.daemon.bin, "fflushctl"), "-c", self.daemon.config,
                            *args], capture_output=True, text=True, timeout=harness.TIMEOUT)
        if check and r.returncode != 0:
            raise AssertionError("fflushctl %s: %d\n%s" % (args, r.returncode, r.stderr))
        return r

    def defer(self, *recipients, n=1, ignore=()):
        """Mail that waits in the deferred queue, and is recorded; the IDs."""
        before = set(self.deferred())
        self.send(*recipients, n=n)
        wait_for(lambda: len(set(self.deferred()) - before) == n and
                 set(self.under_way()) <= set(ignore), "not deferred")
        return sorted(set(self.deferred()) - before)

    def deferred(self):
        return [os.path.basename(p) for p in self.spool.files("deferred")]

    def under_way(self):
        return [os.path.basename(p) for name in ("incoming", "active", "maildrop")
                for p in self.spool.files(name)]

    def close(self):
        for p in reversed(self.processes):
            if p.stdin:
                p.kill()
                p.stdin.close()
            p.terminate()
            try:
                p.wait(harness.TIMEOUT)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()


@test
def waiting_tells_what_became_of_the_mail(case):
    host = Mailhost(case)
    down = host.defer("x@down.test", n=3)
    up = host.defer("x@up.test", n=4)
    host.start_sink()
    r = host.ctl("flush", "--wait", "-t", "20", "*.test", check=False)
    lines = r.stdout.splitlines()
    eq(lines[:3], ["down.test: 3 found, 3 moved", "up.test: 4 found, 4 moved",
                   "7 moved: 4 left the queue, 3 deferred again"], r.stderr)
    eq(len(lines), 4, lines)
    eq(lines[3].split()[0], "3")
    eq("Connection refused" in lines[3], True, lines)
    eq((r.returncode, r.stderr), (TEMPFAIL, ""))
    eq(host.deferred(), down)
    eq(len(open(host.received).read().splitlines()), len(up))
    # recorded again, as they were deferred again
    rows = objects(host.ctl("show", "--json", "down.test"))
    eq(sorted(row["queue_id"] for row in rows), down)


@test
def waiting_for_single_messages(case):
    host = Mailhost(case)
    down = host.defer("x@down.test", n=2)
    up = host.defer("x@up.test")
    host.start_sink()
    r = host.ctl("deliver", "--wait", "--json", "-t", "20", up[0], down[0], "NOSUCH", check=False)
    rows = objects(r)
    eq([(row["queue_id"], row["moved"]) for row in rows[:3]],
       [(up[0], 1), (down[0], 1), ("NOSUCH", 0)])
    reasons = rows[3].pop("reasons")
    eq(rows[3], {"moved": 2, "left": 1, "deferred": 1, "held": 0, "under_way": 0})
    eq([(x["count"], "Connection refused" in x["reason"]) for x in reasons], [(1, True)])
    eq(r.returncode, TEMPFAIL)
    r = host.ctl("deliver", "--wait", "-t", "20", "NOSUCH", check=False)
    eq(r.stdout, "NOSUCH: no such message in the queue\n"
                 "0 moved: 0 left the queue, 0 deferred again\n")


@test
def waiting_ends_in_time_or_when_interrupted(case):
    host = Mailhost(case)
    host.defer("x@up.test")
    with socket.socket() as s:  # an SMTP server that accepts and says nothing
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", host.port))
        s.listen(5)
        start = time.monotonic()
        r = host.ctl("flush", "--wait", "-t", "5", "up.test", check=False)
        under_way = "1 moved: 0 left the queue, 0 deferred again, 1 still on their way\n"
        eq((r.returncode, r.stdout),
           (TEMPFAIL, "up.test: 1 found, 1 moved\n" + under_way))
        eq(time.monotonic() - start >= 5, True)
        down = host.defer("x@down.test", ignore=host.under_way())
        eq(len(down), 1)


@test
def an_interrupt_ends_the_watching_not_the_delivery(case):
    spool, daemon = case.make()
    backlog(spool)
    p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "flush",
                          "--wait", "mail.example.com"], stdout=subprocess.PIPE, text=True,
                         **harness.as_user())
    eq(p.stdout.readline(), "mail.example.com: 1 found, 1 moved\n")
    # It says nothing when it begins to wait.
    wait_for(lambda: harness.has_signal(p, "SigCgt", signal.SIGINT))
    p.send_signal(signal.SIGINT)
    eq(p.communicate(timeout=harness.TIMEOUT)[0],
       "1 moved: 0 left the queue, 0 deferred again, 1 still on their way\n")
    eq(p.returncode, TEMPFAIL)
    eq(spool.files("incoming"), ["incoming/A3", "incoming/B1"])


@test
def waiting_sees_all_ways_out_of_the_queue(case):
    spool, daemon = case.make(hash_queue_names="deferred, active", hash_queue_depth="2")
    n = 40
    for i in range(n):
        spool.put("deferred/%X/A/%XA" % (i % 16, i) if i >= 16 else "deferred/%X/A/%XA" % (i, i))
    ids = ["%XA" % i for i in range(n)]
    for name in ids:  # where they belong
        path = "deferred/%s/%s/%s" % (name[0], name[1], name)
        if not os.path.exists(spool.join(path)):
            spool.put(path)
    spool.log("example_com", "".join(i + "\n" for i in ids).encode())
    p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "flush",
                          "--wait", "example.com"], stdout=subprocess.PIPE, text=True,
                         **harness.as_user())
    eq(p.stdout.readline(), "example.com: %d found, %d moved\n" % (n, n))

    def travel(name, queue):
        """As qmgr does it, which makes missing directories."""
        path = "active/%s/%s" % (name[0], name[1])
        os.makedirs(spool.join(path), exist_ok=True)
        os.rename(spool.join("incoming", name), spool.join(path, name))
        if queue == "deferred":
            os.makedirs(spool.join("deferred/X/Y"), exist_ok=True)
            os.rename(spool.join(path, name), spool.join("deferred", name[0], name[1], name))
        elif queue == "hold":
            os.rename(spool.join(path, name), spool.join("hold", name))
        elif queue == "elsewhere":
            os.rename(spool.join(path, name), spool.join("public", name))
        else:
            os.unlink(spool.join(path, name))

    for i, name in enumerate(ids):
        travel(name, ("left", "deferred", "hold", "elsewhere")[i % 4])
    eq(p.communicate(timeout=harness.TIMEOUT)[0],
       "40 moved: 20 left the queue, 10 deferred again, 10 put on hold\n")


@test
def import_asks_postfix_what_is_deferred(case):
    host = Mailhost(case, fast_flush_domains="")
    down = host.defer("x@down.test", "y@Down.TEST", "z@off.test", n=2)
    eq(host.spool.files("flush"), [])
    eq(objects(host.ctl("import", "-n", "--json")),
       [{"messages": 2, "added": 4, "known": 2, "not_eligible": 0, "no_site": 0, "failed": 0,
         "malformed": 0, "dry_run": True}])
    eq(host.spool.files("flush"), [])
    eq(host.ctl("import").stdout,
       "2 deferred messages: 4 records added, 2 already there\n")
    eq(host.ctl("import").stdout,
       "2 deferred messages: 0 records added, 6 already there\n")
    eq(sorted(host.spool.read("flush/down_test").decode().split()), down)


if __name__ == "__main__":
    harness.main()
