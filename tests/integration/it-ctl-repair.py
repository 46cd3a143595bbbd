#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl: import, verify, export, and logs in places where nobody looks."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, TIMEOUT, USER, as_stranger, as_user, eq
from client import OK, add
from ctl import backlog, import_from, message, objects, snapshot
from harness import main, test
from postfix import Mailhost


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
                                **as_user()) for c in commands]
    for command, process in zip(commands, running):
        out, err = process.communicate(timeout=TIMEOUT)
        if "nosuch" in command:
            eq((process.returncode, out), (66, ""), (command, err))
            eq(err, "fflushctl: no such instance: /etc/nosuch/main.cf: No such file or directory\n")
        else:
            eq((process.returncode, out), (os.EX_CONFIG, ""), (command, err))
            eq("/postconf" in err and "not guessed" in err, True, err)
    eq(snapshot(spool), before)
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-i", "nosuch", "status"],
                       capture_output=True, text=True, **as_user())
    eq((r.returncode, r.stdout), (66, ""), r.stderr)


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
    wanted = {"type": "import", "messages": 4, "added": 3, "known": 3, "not_eligible": 1, "no_site": 3,
              "failed": 0, "malformed": 0, "removed": 0, "dry_run": False}
    r = import_from(daemon, text, "--json")
    eq((r.returncode, objects(r), r.stderr), (os.EX_OK, [wanted], ""))
    eq(spool.read("flush/example_com"), b"A2\nA1\n")
    eq(spool.files("flush"), ["flush/L192_0_2_1R", "flush/example_com", "flush/xnDDbcherDkva_test"])
    eq(objects(import_from(daemon, text, "--json")), [wanted | {"added": 0, "known": 6}])
    eq(spool.read("flush/example_com"), b"A2\nA1\n")


@test
def a_dry_import_promises_what_the_service_takes(case):
    spool, daemon = case.make(fast_flush_domains="!no.test, test")
    text = message("A1", "x@a.test", "x@no.test", "x@b.example") + message("A2", "x@a.test")
    preview = objects(import_from(daemon, text, "--json", "-n"))
    eq(preview[0]["dry_run"], True)
    eq((preview[0]["added"], preview[0]["not_eligible"]), (2, 2))
    eq(spool.files("flush"), [])
    eq(objects(import_from(daemon, text, "--json")), [preview[0] | {"dry_run": False}])


@test
def import_is_not_for_those_who_cannot_see_what_is_recorded(case):
    if USER is None:
        raise Skip("needs root")
    spool, daemon = case.make()
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "import", "-"],
                       input=message("A1", "x@y.test"), capture_output=True, text=True, **as_stranger())
    eq((r.returncode, r.stdout, r.stderr),
       (os.EX_NOPERM, "", "fflushctl: %s: permission denied (run as root or postfix)\n"
        % spool.join("flush")))


class Hyphens:
    """A real Postfix with mail for a-b.test, a.b.test and both, of which flush(8) kept all records
    in the log of a.b.test."""

    def __init__(self, case):
        nowhere = "smtp:[127.0.0.1]:1"
        self.host = Mailhost(case, transport_maps="inline:{a-b.test=%s, a.b.test=%s}" % (nowhere, nowhere))
        self.spool = self.host.spool
        self.hyphen = self.host.defer("x@a-b.test", n=2)
        self.dot = self.host.defer("x@a.b.test", n=2)
        self.both = self.host.defer("x@a-b.test", "y@a.b.test")
        self.all = set(self.hyphen + self.dot + self.both)

    def reset(self, dots=True):
        for path in self.spool.files("flush"):
            os.unlink(self.spool.join(path))
        ids = self.hyphen + (self.dot + self.both if dots else []) + ["Z1"]
        self.spool.log("a_b_test", "".join(i + "\n" for i in ids).encode())

    def log(self, name):
        path = "flush/" + name
        return self.spool.read(path).decode().split() if path in self.spool.files("flush") else None


@test
def import_takes_away_what_flush_had_under_another_name(case):
    h = Hyphens(case)
    h.reset()
    r = h.host.ctl("import", "-n")
    eq("removed" in r.stdout, False, r.stdout)
    eq(len(h.log("a_b_test")), 6)
    r = h.host.ctl("import")
    eq(r.stdout, "5 deferred messages: 3 records added, 3 already there, 3 of flush(8) removed\n")
    eq(sorted(h.log("a_b_test")), sorted(h.dot + h.both))
    eq(sorted(h.log("aDb_test")), sorted(h.hyphen + h.both))
    eq(h.host.ctl("list").stdout.splitlines()[-1], "2 destinations: 5 deferred")
    h.reset(dots=False)
    h.spool.log("xn__bcher_kva_test", b"Z1\n")  # of nothing that is listed: stays
    eq(objects(h.host.ctl("import", "--json"))[0]["removed"], 3)
    eq(sorted(h.log("a_b_test")), sorted(h.dot + h.both))
    eq(objects(h.host.ctl("import", "--json"))[0]["removed"], 0)
    # Mail for nobody but a-b.test: then the log goes.
    for name in h.dot + h.both:
        for path in h.spool.files("deferred"):
            if path.endswith("/" + name):
                os.unlink(h.spool.join(path))
    h.reset(dots=False)
    eq(objects(h.host.ctl("import", "--json"))[0]["removed"], 3)
    eq((h.log("a_b_test"), sorted(h.log("aDb_test"))), (None, sorted(h.hyphen)))
    # While flush(8) may still be asked, its logs are its own.
    h.reset(dots=False)
    h.host.write_main_cf(h.host.conf, flush_service_name="flush")
    eq(objects(h.host.ctl("import", "--json"))[0]["removed"], 0)


@test
def import_loses_nothing_wherever_it_is_killed(case):
    if not shutil.which("strace"):
        raise Skip("needs strace")
    h = Hyphens(case)
    program = [os.path.join(h.host.daemon.bin, "fflushctl"), "-c", h.host.daemon.config, "import", "-q"]
    env = dict(os.environ, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")
    points = 0
    for call in ("flock", "pwrite64", "fdatasync", "ftruncate", "unlinkat", "fcntl"):
        n = status = None
        while status != 0 and (n or 0) < 60:
            n = (n or 0) + 1
            h.reset(dots=n % 2)
            status = subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e",
                                     "inject=%s:signal=KILL:when=%d" % (call, n)] + program,
                                    env=env, stderr=subprocess.DEVNULL).returncode
            points += status != 0
            kept = set(h.log("a_b_test") or []) | set(h.log("aDb_test") or [])
            eq((call, n, set(h.hyphen) - kept), (call, n, set()))
            eq((call, n, set(h.dot if n % 2 else []) - kept), (call, n, set()))
            eq(subprocess.run(program).returncode, 0)
            eq(sorted(h.log("a_b_test")), sorted(h.dot + h.both))
            eq(sorted(h.log("aDb_test")), sorted(h.hyphen + h.both))
    eq(points > 15, True, points)


@test
def import_loses_nothing_when_disturbed(case):
    """It is killed now and then, while flush(8) goes on to record under the old name."""
    h = Hyphens(case)
    program = [os.path.join(h.host.daemon.bin, "fflushctl"), "-c", h.host.daemon.config, "import", "-q"]
    h.reset()
    p, kills = None, 0
    for i in range(150):
        name = (h.hyphen + h.dot)[i % 4]
        with open(h.spool.join("flush/a_b_test"), "a") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            if os.fstat(f.fileno()).st_nlink == 0:
                continue  # flush(8) would be rescued from that: see it-interleave.py
            f.write(name + "\n")
        h.spool.own(h.spool.join("flush"))
        if p is None or p.poll() is not None:
            p = subprocess.Popen(program)
        elif case.rng.random() < 0.3:
            p.kill()
            kills += p.wait() != 0
        kept = set(h.log("a_b_test") or []) | set(h.log("aDb_test") or [])
        eq(set(h.hyphen + h.dot) - kept, set())
    p.wait(TIMEOUT)
    eq(kills > 5, True, "it was hardly ever killed")
    eq(subprocess.run(program).returncode, 0)
    eq(sorted(h.log("a_b_test")), sorted(h.dot + h.both))
    eq(sorted(h.log("aDb_test")), sorted(h.hyphen + h.both))


@test
def import_goes_on_after_what_it_cannot_read(case):
    spool, daemon = case.make()
    bad = ["nonsense", "{}", "[]", '"x"', "{" * 5000, message("a/b", "x@y.test").strip(),
           '{"queue_name": "deferred", "queue_id": 5, "recipients": []}',
           '{"queue_name": "deferred", "queue_id": "A1", "recipients": {}}', "\x00"]
    odd = ('{"queue_name": "deferred", "queue_id": "A2", '
           '"recipients": [null, 5, {}, {"address": 7}, {"address": "x@y.test"}]}')
    r = import_from(daemon, "\n".join(bad) + "\n" + odd + "\n" + message("A3", "x@y.test"))
    eq((r.returncode, r.stdout),
       (os.EX_DATAERR, "2 deferred messages: 2 records added, 0 already there\n"))
    eq(r.stderr, "fflushctl: %d lines are not what postqueue -j prints\n" % len(bad))
    eq(spool.read("flush/y_test"), b"A2\nA3\n")


@test
def import_of_very_many(case):
    n = int(os.environ.get("FFLUSHD_MANY", "100000")) // 5
    spool, daemon = case.make()
    text = "".join(message("%010X" % i, "x@site%d.test" % (i % 50)) for i in range(n))
    eq(import_from(daemon, text).stdout,
       "%d deferred messages: %d records added, 0 already there\n" % (n, n))
    eq(sum(row["messages"] for row in objects(daemon.ctl("list", "--all", "--json"))), n)
    for i in range(50):
        eq(sorted(spool.read("flush/site%d_test" % i).decode().split()),
           ["%010X" % j for j in range(i, n, 50)])


@test
def import_without_a_service_says_so(case):
    spool, daemon = case.make()
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "-s",
                        spool.join("public/nosuch"), "import", "-"],
                       input=message("A1", "x@y.test") * 3, capture_output=True, text=True,
                       **as_user())
    eq(r.returncode, os.EX_UNAVAILABLE)
    eq("cannot connect" in r.stderr, True, r.stderr)
    eq(daemon.ctl("import", check=False).returncode, 78)  # there is no Postfix to ask
    eq(daemon.ctl("import", "x", check=False).returncode, os.EX_USAGE)


@test
def verify_finds_what_is_wrong(case):
    spool, daemon = case.make()
    spool.put("deferred/A/A1")
    spool.put("deferred/A/A2")
    spool.put("active/A3")
    spool.log("fine_test", b"A1\nA3\n")
    eq(daemon.ctl("verify").stdout,
       "1 log, 2 records: 0 gone, 0 duplicate; 1 deferred message without a record; 0 problems\n"
       "\"fflushctl import\" records deferred messages of eligible sites\n")
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
    if USER is not None:
        os.chown(spool.log("root_test", b"A1\n"), 0, 0)
    before = snapshot(spool)
    r = daemon.ctl("verify", "--json", check=False)
    eq(r.returncode, os.EX_DATAERR)
    eq(snapshot(spool), before, "verify has changed something")
    *found, total = objects(r)
    wanted = {("flush/stale_test", "gone", 1, False), ("flush/stale_test", "duplicate", 1, False),
              ("flush/torn_test", "invalid", 2, True), ("flush/torn_test", "torn", 2, True),
              ("flush/x", "short_name", 1, True), ("flush/9", "short_name", 1, True),
              ("flush/.hidden", "name", 1, True), ("flush/no-name", "name", 1, True),
              ("flush/xn__bcher_kva_example", "foreign", 1, False),
              ("flush/open_test", "mode", 1, True), ("flush/link_test", "type", 1, True),
              ("flush/twice_test", "links", 1, True), ("flush/again_test", "links", 1, True),
              ("flush/dir_test", "type", 1, True), ("flush/h/o/hashed_test", "place", 1, True)}
    if USER is not None:
        wanted.add(("flush/root_test", "owner", 1, True))
    eq({(f["path"], f["finding"], f["count"], f["problem"]) for f in found}, wanted)
    eq(any(f["repaired"] for f in found), False)
    eq((total["problems"], total["repairs"]), (len([w for w in wanted if w[3]]), 0))
    eq((total["gone"], total["duplicate"], total["unrecorded"]), (1, 1, 0))
    text = daemon.ctl("verify", check=False).stdout
    for line in ("flush/torn_test: 2 lines are not queue IDs",
                 "flush/torn_test: incomplete last line (2 bytes)",
                 "flush/stale_test: 1 message is no longer in the queue",
                 "flush/stale_test: 1 record is a duplicate",
                 "flush/open_test: mode is 0644, should be 0600",
                 "flush/no-name: not the name of a log: move it elsewhere",
                 "flush/twice_test: has other hard links: replace it by a copy",
                 "\"fflushctl verify --repair\" mends 7 of these findings"):
        eq(line + "\n" in text, True, (line, text))
    if USER is not None:
        path = spool.join("flush/root_test")
        remedy = "chown -h %s '%s'" % (USER.pw_name, path)
        eq("flush/root_test: owned by root, should be %s: %s\n" % (USER.pw_name, remedy) in text,
           True, text)
        eq([f["remedy"] for f in found if f["finding"] == "owner"], [remedy])
        subprocess.run(remedy, shell=True, check=True)
        eq("flush/root_test" in daemon.ctl("verify", check=False).stdout, False)


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
    eq(r.returncode, os.EX_DATAERR, r.stderr)  # what to do with "9" nobody knows
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
    eq(r.stdout.splitlines()[-1].split("; ")[-2:], ["6 problems", "7 findings repaired"])
    eq(len([line for line in r.stdout.splitlines() if line.endswith("(repaired)")]), 7, r.stdout)
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
        eq(daemon.exchange(add("busy.test", "%X0" % i)), OK)
        eq(daemon.exchange(add("busy.test", "Z%X" % i)), OK)  # soon repaired away
        if p is None or p.poll() is not None:
            eq(p is None or p.returncode == 0, True)
            p = subprocess.Popen(command, stdout=subprocess.DEVNULL, **as_user())
    eq(p.wait(TIMEOUT), 0)
    eq(subprocess.run(command, **as_user()).returncode, 0)
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
              "[192.0.2.1]: 1 record: flush/L192_0_2_1R -> flush/_192_0_2_1_"]
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
        raise Skip("needs strace")
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
                                    env=env, **as_user()).returncode
            points += status != 0
            eq(status in (0, -signal.SIGKILL, 128 + signal.SIGKILL), True, status)
            left = set(b"".join(spool.read(p) for p in spool.files("flush")).split())
            eq((call, n, left), (call, n, {b"A1", b"A2", b"B1"}))
            eq(subprocess.run(program, **as_user()).returncode, 0)
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
        eq(daemon.exchange(add("a-b.test", "%X0" % i)), OK)
        if p is None or p.poll() is not None:
            p = subprocess.Popen(command, **as_user())
        elif case.rng.random() < 0.3:
            p.kill()
            kills += p.wait() != 0
    p.wait(TIMEOUT)
    eq(kills > 5, True, "it was hardly ever killed")
    eq(subprocess.run(command, **as_user()).returncode, 0)
    eq(spool.files("flush"), ["flush/a_b_test"])
    eq(set(spool.read("flush/a_b_test").decode().split()), {"%X0" % i for i in range(n)})


@test
def repair_is_for_the_owner(case):
    if USER is None:
        raise Skip("needs root")
    spool, daemon = case.make()
    spool.log("torn_test", b"A1")
    for d in ("flush", "incoming", "deferred"):
        os.chmod(spool.join(d), 0o755)
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, "verify",
                        "--repair"], capture_output=True, text=True, **as_stranger())
    eq(r.returncode, os.EX_NOPERM, r.stderr)
    eq(spool.read("flush/torn_test"), b"A1")


if __name__ == "__main__":
    main()
