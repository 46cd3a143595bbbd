#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl: list, show, dry runs and patterns; which sites a name stands for."""

import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, USER, as_stranger, eq
from client import OK, add
from ctl import backlog, import_from, message, objects, results, snapshot
from harness import main, test

LONG = b"3nHh4b2nyxz3V"  # a long queue ID


def young(text):
    """Its lines, with messages that have just been made."""
    return re.sub(r"\b[1-9]s\b", "0s", text).splitlines()


@test
def list_shows_what_waits_where(case):
    spool, daemon = case.make()
    backlog(spool)
    before = snapshot(spool)
    lines = young(daemon.ctl("list").stdout)
    eq([line.split() for line in lines], [
        ["SITE", "DEFERRED", "ACTIVE", "HOLD", "OLDEST", "FLUSHED"],
        ["example.com", "2", "-", "1", "0s", "3d"],
        ["a-b.test", "1", "-", "0", "0s", "10min"],
        ["mail.example.com", "1", "-", "0", "0s", "2h"],
        "3 destinations: 4 deferred, 2 active, 1 on hold".split()])
    eq(len({len(line) for line in lines[:-1]}), 1, "columns are not aligned")
    eq(young(daemon.ctl("list", "--no-legend").stdout), lines[1:-1])
    for queue, name in (("incoming", "B1"), ("active", "C1")):
        os.unlink(spool.join(queue, name))
    eq(daemon.ctl("list").stdout.splitlines()[1].split()[2], "0")  # there can be none
    for queue, name in (("incoming", "B1"), ("active", "C1")):
        spool.put("%s/%s" % (queue, name))
    before = snapshot(spool)
    daemon.ctl("list")
    eq(snapshot(spool), before, "a look has changed something")
    eq(daemon.is_waiting(), True, "a look has started the daemon")


@test
def list_is_sorted_by_what_is_asked_for(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("L192_0_2_1R", b"%s\n" % LONG)  # arrived in 2015
    spool.put("deferred/" + LONG.decode())
    for by, wanted in (("records", "example.com a-b.test [192.0.2.1] mail.example.com"),
                       ("messages", "example.com a-b.test [192.0.2.1] mail.example.com"),
                       ("deferred", "example.com [192.0.2.1] a-b.test mail.example.com"),
                       ("hold", "example.com [192.0.2.1] a-b.test mail.example.com"),
                       ("flushed", "example.com mail.example.com [192.0.2.1] a-b.test"),
                       ("site", "[192.0.2.1] a-b.test example.com mail.example.com")):
        rows = objects(daemon.ctl("list", "--by", by, "--json"))
        eq([row["site"] for row in rows], wanted.split(), by)
    rows = objects(daemon.ctl("list", "--by", "oldest", "--json"))
    eq((rows[0]["site"], rows[0]["oldest"]), ("[192.0.2.1]", 1442595055))
    eq(rows[1]["oldest"] > time.time() - 60, True)  # the others: since their files are there
    rows = objects(daemon.ctl("list", "--by", "site", "--reverse", "--top", "1", "--json"))
    eq([row["site"] for row in rows], ["mail.example.com"])
    rows = objects(daemon.ctl("list", "--older-than", "1d", "--json"))
    eq([row["site"] for row in rows], ["[192.0.2.1]"])
    r = daemon.ctl("list", "--by", "size", check=False)
    eq((r.returncode, r.stderr), (os.EX_USAGE, "fflushctl: --by: unknown column \"size\" (site, records,"
                                  " messages, deferred, active, hold, oldest, flushed, reason)\n"))
    for wrong in ("0", "-1", "x", "1x", "", " 1", "99999999999999999999"):
        eq(daemon.ctl("list", "--top", wrong, check=False).returncode, os.EX_USAGE, wrong)


@test
def list_in_json_has_all_of_it(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("xn__bcher_kva_example", b"A1\n")  # flush(8)'s, for xn--bcher-kva.example
    rows = {row["log"]: row for row in objects(daemon.ctl("list", "--json"))}
    st = os.stat(spool.join("flush/example_com"))
    oldest = rows["example_com"].pop("oldest")
    eq(0 <= time.time() - oldest < 60, True, oldest)
    eq(rows["example_com"],
       {"type": "site", "site": "example.com", "log": "example_com", "records": 8, "messages": 6,
        "deferred": 2, "active": None, "hold": 1, "flushed": int(st.st_atime), "reasons": None})
    eq(rows["aDb_test"]["site"], "a-b.test")
    eq(rows["xn__bcher_kva_example"]["site"], None)


@test
def a_log_that_was_never_flushed_is_told_by_its_birth(case):
    spool, daemon = case.make()
    for name in ("A1", "A2"):
        spool.put("deferred/A/" + name)
    eq(daemon.exchange(add("new.test", "A1")), OK)
    eq(daemon.exchange(add("new.test", "A2")), OK)
    eq(objects(daemon.ctl("list", "--json"))[0]["flushed"], None)
    eq(daemon.ctl("list").stdout.splitlines()[1].split()[-1], "never")
    eq(daemon.ctl("flush", "new.test").stdout, "new.test: 2 found, 2 moved\n")
    eq(daemon.exchange(add("new.test", "A1")), OK)
    row = objects(daemon.ctl("list", "--json"))[0]
    eq(0 <= time.time() - row["flushed"] < 60, True, row)
    mtime = os.stat(spool.join("flush/new_test")).st_mtime_ns
    daemon.ctl("list")
    eq(os.stat(spool.join("flush/new_test")).st_mtime_ns, mtime)


@test
def destinations_without_mail_are_shown_on_request(case):
    spool, daemon = case.make()
    spool.put("deferred/A/A1")
    spool.log("a_test", b"A1\n")
    spool.log("empty_test", b"")
    spool.log("stale_test", b"Z1\n")

    def sites(*args):
        return sorted(row["site"] for row in objects(daemon.ctl("list", "--json", *args)))

    eq(sites(), ["a.test"])
    eq(sites("--all"), ["a.test", "empty.test", "stale.test"])
    eq(sites("*e.test"), ["stale.test"])  # who asks gets an answer
    r = daemon.ctl("show", "empty.test", check=False)
    eq((r.returncode, r.stdout, r.stderr),
       (os.EX_NOINPUT, "", "fflushctl: nothing is recorded for empty.test\n"))


@test
def a_message_to_many_is_counted_once(case):
    spool, daemon = case.make()
    spool.put("deferred/A/A1")
    spool.put("deferred/A/A2")
    for name in ("a_test", "b_test", "c_test"):
        spool.log(name, b"A1\nA2\n")
    eq(daemon.ctl("list").stdout.splitlines()[-1], "3 destinations: 2 deferred")
    eq(daemon.ctl("list", "--top", "1").stdout.splitlines()[-1], "1 of 3 destinations: 2 of 2 deferred")


@test
def a_list_of_two_thousand_is_fast(case):
    spool, daemon = case.make()
    for i in range(5500):
        name = "%X" % (0xA0000000 + i * 7919)
        spool.put("deferred/%s/%s" % (name[0], name))
        with open(spool.join("flush/site%d_test" % (i % 2000)), "a") as f:
            f.write(name + "\n")
    spool.own(spool.join("flush"))
    for path in spool.files("flush"):
        spool.own(spool.join(path))
    start = time.monotonic()
    r = daemon.ctl("list")
    seconds = time.monotonic() - start
    eq(r.stdout.splitlines()[-1], "2000 destinations: 5500 deferred")
    eq(seconds < 3, True, seconds)  # 0.08 s without sanitizers on an idle host


@test
def patterns_choose_sites(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("L192_0_2_1R", b"A1\n")
    spool.log("notexample_com", b"A1\n")
    spool.log("xn__bcher_kva_example", b"A1\n")
    spool.log("xnDDbcherDkva_test", b"A1\n")

    def chosen(*args, code=os.EX_OK):
        r = daemon.ctl("list", "--by", "site", "--all", "--json", *args, check=False)
        eq(r.returncode, code, args)
        return [row["site"] for row in objects(r) if row["type"] == "site"]

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
    eq(daemon.ctl("list").stdout, "0 destinations: 0 deferred\n")
    spool.put("deferred/A/A1")
    eq(daemon.ctl("list").stdout, "0 destinations: 0 deferred; 1 more deferred, not recorded (see import)\n")
    eq(daemon.ctl("list", "--json").stdout, "")
    os.rmdir(spool.join("flush"))
    eq(daemon.ctl("list").stdout, "0 destinations: 0 deferred; 1 more deferred, not recorded (see import)\n")
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
    eq(lines, [["SITE", "MESSAGE", "QUEUE", "AGE", "SIZE", "DUE", "IN"],
               ["example.com", "A1", "deferred", lines[1][3], lines[1][4], lines[1][5]],
               ["example.com", "A2", "deferred", "0s", lines[1][4], "now"],
               ["example.com", "B1", "incoming", "0s", lines[1][4], "-"],
               ["example.com", "C1", "active", "0s", lines[1][4], "-"],
               ["example.com", "D1", "hold", "0s", lines[1][4], "-"],
               ["example.com", "F1", "gone", "-", "-", "-"]])
    eq(lines[1][5] in ("59min", "60min"), True, lines[1])
    rows = objects(daemon.ctl("show", "--json", "example.com"))
    eq([(row["queue_id"], row["queue"]) for row in rows],
       [("A1", "deferred"), ("A2", "deferred"), ("B1", "incoming"), ("C1", "active"),
        ("D1", "hold"), ("F1", "gone")])
    eq(rows[0]["due"], int(os.stat(spool.join("deferred/A/A1")).st_mtime))
    arrival = rows[0].pop("arrival")
    eq(0 <= time.time() - arrival < 60, True, arrival)
    eq(rows[0], {"type": "message", "site": "example.com", "queue_id": "A1", "queue": "deferred",
                 "size": os.stat(spool.join("deferred/A/A1")).st_size, "due": rows[0]["due"],
                 "sender": None, "recipients": None})
    eq(rows[2]["due"], None)
    eq((rows[5]["arrival"], rows[5]["size"]), (None, None))
    eq(snapshot(spool), before)
    eq(daemon.ctl("show", "--ids", "example.com", "mail.example.com").stdout, "A1\nA2\nB1\nC1\nD1\nA3\n")
    rows = objects(daemon.ctl("show", "--json", "--by", "due", "--top", "1", "example.com"))
    eq([row["queue_id"] for row in rows], ["A2"])
    rows = objects(daemon.ctl("show", "--json", "--by", "id", "--reverse", "example.com"))
    eq([row["queue_id"] for row in rows], ["F1", "D1", "C1", "B1", "A2", "A1"])
    rows = objects(daemon.ctl("show", "--json", "D1", "a-b.test"))
    eq([(row["site"], row["queue_id"]) for row in rows],
       [("a-b.test", "E1"), ("a-b.test", "E2"), (None, "D1")])
    r = daemon.ctl("show", "--by", "newest", "example.com", check=False)
    eq((r.returncode, "unknown column" in r.stderr), (os.EX_USAGE, True), r.stderr)


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
        eq(row["dry_run"], True)
        row["dry_run"] = False
        if row["site"] in ("example.com", "a-b.test"):  # nothing that the other also has
            eq(objects(daemon.ctl("flush", "--json", row["site"])), [row])
    by_site = {row["site"]: row for row in preview}
    eq(by_site["example.com"],
       {"type": "flush", "dry_run": False, "site": "example.com", "status": "ok",
        "found": 8, "moved": 3, "gone": 1, "busy": 2,
        "failed": 0, "duplicate": 2, "invalid": 0, "left": 0})
    eq(by_site["torn.test"],
       {"type": "flush", "dry_run": False, "site": "torn.test", "status": "ok",
        "found": 4, "moved": 3, "gone": 0, "busy": 0,
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
                       capture_output=True, text=True, **as_stranger())
    eq((r.returncode, r.stderr),
       (os.EX_NOPERM, "fflushctl: %s: permission denied (run as root or postfix)\n" % spool.join("flush")))


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
            check("flush", "-j", text, wanted='"site":"%s","status":"ok"' % site)
            check("list", text, wanted=site)
            check("show", text, wanted=site)
            check("metrics", text, wanted='{site="%s"}' % site)
            os.unlink(spool.join(log))
            check("flush", "-w", text, wanted=site + ": 0 found", record=False)
            check("add", text, "A2", wanted="", record=False)
            eq(spool.read(log), b"A2\n", (listed, text))
            os.unlink(spool.join(log))
            r = import_from(daemon, message("A3", "x@" + text.rstrip(".")))
            eq(r.stdout, "1 deferred message: 1 record added, 0 already there\n")
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
        eq(results(daemon.ctl("-j", "flush", text, check=False)),
           [{"type": "flush", "dry_run": False, "site": "xn--bcher-kva.example", "status": "denied"}])
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
                     ("flush", "-l", "1"), ("flush", "*"), ("list",), ("show",),
                     ("metrics",)):
            r = daemon.ctl(*args, "--", text, check=False)
            eq((r.returncode, r.stdout, r.stderr), (os.EX_DATAERR, "", wanted), (args, text))
        r = daemon.ctl("add", "--", text, "A1", check=False)
        eq((r.returncode, r.stdout, r.stderr), (os.EX_DATAERR, "", wanted), ("add", text))
    eq(spool.files("incoming"), [])  # nor is anything done for those beside it


if __name__ == "__main__":
    main()
