#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl: list, show, dry runs and patterns; which sites a name stands for."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, USER, eq
from ctl import backlog, import_from, message, objects, snapshot
from harness import main, test


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
    eq(daemon.ctl("list", "--by", "size", check=False).returncode, os.EX_USAGE)
    for wrong in ("0", "-1", "x", "1x", "", " 1", "99999999999999999999"):
        eq(daemon.ctl("list", "--top", wrong, check=False).returncode, os.EX_USAGE, wrong)


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

    def chosen(*args, code=os.EX_OK):
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
    eq(chosen("example.com", "nosuch.test", code=os.EX_NOINPUT), ["example.com"])
    eq(chosen("nosuch*", code=os.EX_NOINPUT), [])
    eq(chosen("a b", code=os.EX_DATAERR), [])


@test
def nothing_recorded_is_no_trouble(case):
    spool, daemon = case.make()
    eq(daemon.ctl("list").stdout, "")
    os.rmdir(spool.join("flush"))
    eq(daemon.ctl("list").stdout, "")
    eq(daemon.ctl("show", "example.com", check=False).returncode, os.EX_NOINPUT)


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
        raise Skip("needs root")
    spool, daemon = case.make()
    os.chown(spool.put("deferred/A/A1"), 0, 0)
    os.link(spool.put("deferred/A/A2"), spool.join("deferred/A/A2x"))
    spool.put("deferred/A/A3", mode=0o600)
    os.symlink("A1", spool.join("deferred/A/A4"))
    spool.log("example_com", b"A1\nA2\n")
    r = daemon.ctl("flush", "-n", "example.com", check=False)
    eq((r.returncode, r.stdout), (os.EX_TEMPFAIL, "example.com: 2 found, 1 would be moved, 1 failed\n"))
    r = daemon.ctl("flush", "example.com", check=False)
    eq((r.returncode, r.stdout), (os.EX_TEMPFAIL, "example.com: 2 found, 1 moved, 1 failed\n"))
    spool.put("deferred/A/A2")
    os.unlink(spool.join("incoming/A2"))
    preview = daemon.ctl("deliver", "-n", "A1", "A2", "A3", "A4", "A5", check=False)
    real = daemon.ctl("deliver", "A1", "A2", "A3", "A4", "A5", check=False)
    eq(preview.returncode, real.returncode)
    eq(preview.stdout.replace("would be ", ""), real.stdout)


@test
def who_may_not_look_is_told_so(case):
    if USER is None:
        raise Skip("needs root")
    spool, daemon = case.make()
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "list"],
                       capture_output=True, text=True, user=65534, group=65534, extra_groups=[])
    eq((r.returncode, r.stderr),
       (os.EX_NOPERM, "fflushctl: %s: Permission denied\n" % spool.join("flush")))


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
                eq((r.returncode, r.stderr), (os.EX_OK, ""), (listed, args))
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
               (os.EX_NOPERM, "fflushctl: xn--bcher-kva.example: not in fast_flush_domains"), args)
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
            eq((r.returncode, r.stdout, r.stderr), (os.EX_DATAERR, "", wanted), (args, text))
        r = daemon.ctl("add", "--", text, "A1", check=False)
        eq((r.returncode, r.stdout, r.stderr), (os.EX_DATAERR, "", wanted), ("add", text))
    eq(spool.files("incoming"), [])  # nor is anything done for those beside it


if __name__ == "__main__":
    main()
