#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl against the real daemon: what it shows, what it does, what it says, how it exits."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import harness
from harness import eq, test, wait_for

OK, DATAERR, USAGE, NOINPUT, UNAVAILABLE, TEMPFAIL, NOPERM = 0, 65, 64, 66, 69, 75, 77


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
    spool.log("mail_example_com", b"A3\n", mtime=-60, atime=-7200)
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
        ["mail.example.com", "1", "1", "1", "60s", "2h"]])
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
    spool.log("lost_test", b"A1\n")  # where nobody looks for it since flush is hashed
    eq([row["log"] for row in objects(daemon.ctl("list", "--json"))], ["example_com"])
    eq(objects(daemon.ctl("show", "example.com", "--json"))[0]["queue"], "deferred")


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
        "failed": 0, "duplicate": 2, "invalid": 0})
    eq(by_site["torn.test"],
       {"site": "torn.test", "status": "ok", "found": 4, "moved": 3, "gone": 0, "busy": 0,
        "failed": 0, "duplicate": 1, "invalid": 1})


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
    eq(r.stderr.startswith("fflushctl: nosuch.test: not eligible"), True)


@test
def json_tells_refusals_as_well(case):
    spool, daemon = case.make(fast_flush_domains="example.com")
    r = daemon.ctl("--json", "flush", "example.com", "nosuch.test", check=False)
    eq((r.returncode, objects(r)[1]), (NOPERM, {"site": "nosuch.test", "status": "denied"}))
    r = daemon.ctl("--json", "deliver", "a/b", check=False)
    eq((r.returncode, objects(r)), (DATAERR, [{"queue_id": "a/b", "status": "malformed"}]))
    eq(objects(daemon.ctl("--json", "refresh")), [{"request": "refresh", "status": "ok"}])
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


if __name__ == "__main__":
    harness.main()
