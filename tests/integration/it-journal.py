#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What is told to people and to monitoring: the journal, and metrics."""

import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, eq, read_text
from client import DENY, OK, PURGE, REFRESH, add, send_file, send_site
from harness import Case, main, test


def beside_a_journal(t, work, environment=(), **settings):
    """Do work(spool, daemon, journal) with a journal socket of our own, in a mount namespace; its
    result, by way of JSON."""
    if os.getuid() != 0:
        raise Skip("needs root for a mount namespace")
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(0x00020000) != 0:
                os._exit(77)
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
            os.makedirs("/run/systemd/journal")
            journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            journal.bind("/run/systemd/journal/socket")
            os.chmod("/run/systemd/journal/socket", 0o666)
            with open(os.path.join(t.base, "1-stderr"), "w") as f:
                st = os.fstat(f.fileno())
            case = Case()
            spool, d = case.make(activation="hold", env=dict(environment), **settings)
            d.stop()
            d.stderr_path = f.name
            d.env["JOURNAL_STREAM"] = "%d:%d" % (st.st_dev, st.st_ino)
            d.start()
            result = json.dumps(work(spool, d, journal))
            case.close()
            os.write(write_fd, result.encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as f:
        result = f.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 77:
        raise Skip("no mount namespaces here")
    eq(code, 0)
    return json.loads(result)


def read_journal(journal):
    """What has come: the fields of each entry."""
    entries = []
    while True:
        try:
            entry = journal.recv(65536, socket.MSG_DONTWAIT).decode()
        except BlockingIOError:
            return entries
        entries.append(dict(line.split("=", 1) for line in entry.splitlines()))


def journal_entries(t, requests, environment):
    """Run requests with a journal of our own: fields of each entry."""
    def work(spool, d, journal):
        spool.put("deferred/A/ABC123")
        for request in requests:
            d.exchange(request)
        d.stop()
        return read_journal(journal)
    return beside_a_journal(t, work, environment, fast_flush_domains="example.com")


@test
def a_journal_that_takes_nothing_holds_up_no_request(t):
    n = 6000

    def work(spool, d, journal):
        for i in range(n):
            eq(d.exchange(send_site("no.test")), DENY)
            eq(d.exchange(add("example.com", "A%d" % i)), OK)
        eq(len(spool.lines("example_com")), n)
        entries = read_journal(journal)
        while not any("were lost" in e["MESSAGE"] for e in entries):
            entries += read_journal(journal)
        return entries
    entries = beside_a_journal(t, work, fast_flush_domains="example.com")
    lost = [e for e in entries if "were lost" in e["MESSAGE"]]
    eq(sum(int(e["MESSAGE"].split()[0]) for e in lost) + len(entries) - len(lost), n)
    eq({e["PRIORITY"] for e in lost}, {"4"})


@test
def the_journal_has_a_structured_entry_for_each_decision(t):
    entries = journal_entries(t, [add("example.com", "ABC123"), send_site("EXAMPLE.com"),
                                  send_file("ABC123"), add("no.test", "A1"), b"junk\0", PURGE], {})
    sent, delivered, denied, bad, purged = entries
    for e in entries:
        eq((e["SYSLOG_IDENTIFIER"], e["SYSLOG_FACILITY"], len(e["MESSAGE_ID"])),
           ("postfix/fflushd", "2", 32))
        eq(e["FFLUSHD_CALLER_UID"], str(os.getuid()))
        assert int(e["FFLUSHD_CALLER_PID"]) > 1
    eq((sent["FFLUSHD_SITE"], sent["FFLUSHD_REQUEST"], sent["FFLUSHD_MOVED"], sent["PRIORITY"]),
       ("example.com", "send_site", "1", "6"))
    eq((delivered["FFLUSHD_QUEUE_ID"], delivered["FFLUSHD_MOVED"]), ("ABC123", "1"))
    eq((denied["FFLUSHD_SITE"], denied["FFLUSHD_STATUS"], denied["PRIORITY"]), ("no.test", "4", "5"))
    eq((bad["FFLUSHD_STATUS"], bad["PRIORITY"]), ("3", "4"))
    eq((purged["FFLUSHD_REQUEST"], purged["FFLUSHD_STATUS"]), ("purge", "0"))


@test
def the_journal_tells_who_asked_and_why(t):
    reason = ("reason", "ticket 7: \"Anna\"\n<0>forged")
    shown = 'ticket 7: "Anna"\\x0a<0>forged'
    own = b"reason\0" + reason[1].encode() + b"\0"
    requests = [send_site("example.com", reason), send_file("ABC123", reason), own + REFRESH,
                own + PURGE, send_site("no.test", reason),
                send_site("example.com", ("reason", "x" * 300), ("limit", "1")),
                send_site("example.com", ("reason", ""))]
    entries = journal_entries(t, requests, {})
    eq(len(entries), len(requests))
    for e in entries[:5]:
        eq(e["FFLUSHD_REASON"], shown)
        assert e["MESSAGE"].endswith("(uid %d, pid %s) (reason: %s)" % (
            os.getuid(), e["FFLUSHD_CALLER_PID"], shown)), e
    for e in entries[:4]:
        assert "FFLUSHD_MOVED" in e, e
    eq(entries[5]["FFLUSHD_REASON"], "x" * 200 + "...")
    assert "FFLUSHD_REASON" not in entries[6] and "reason" not in entries[6]["MESSAGE"]


@test
def a_refresh_or_purge_has_an_entry_for_each_destination_that_it_moved_mail_of(t):
    """So that FFLUSHD_SITE finds the last flush, whoever asked for it. None for the others."""
    reason = b"reason\0weekly\0"

    def work(spool, d, journal):
        for name in "A1", "B1":
            spool.put("deferred/%s/%s" % (name[0], name))
        spool.log("a_test", b"A1\nA2\n", atime=-86400)
        spool.log("b_test", b"B1\n", atime=-10)
        spool.log("c_test", b"C1\n", atime=-86400)
        d.exchange(reason + REFRESH)
        d.exchange(reason + PURGE)
        d.exchange(REFRESH)
        d.stop()
        return [e for e in read_journal(journal) if e["PRIORITY"] == "6"]
    entries = beside_a_journal(t, work, fast_flush_domains="static:all")
    eq([(e["FFLUSHD_REQUEST"], e.get("FFLUSHD_SITE"), e["FFLUSHD_MOVED"], e["FFLUSHD_STATUS"])
        for e in entries],
       [("refresh", "a.test", "1", "0"), ("refresh", None, "1", "0"),
        ("purge", "b.test", "1", "0"), ("purge", None, "1", "0")])
    eq({e["FFLUSHD_REASON"] for e in entries}, {"weekly"})
    for e in entries:
        eq(e["FFLUSHD_CALLER_UID"], str(os.getuid()))
    eq(entries[0]["MESSAGE_ID"], entries[2]["MESSAGE_ID"])
    assert entries[0]["MESSAGE"].startswith("refresh a.test: 2 found, 1 moved, 1 gone, "), entries[0]


@test
def adds_are_logged_at_debug_level_only(t):
    requests = [add("example.com", "ABC123")]
    eq(journal_entries(t, requests, {}), [])
    entries = journal_entries(t, requests, {"SYSTEMD_LOG_LEVEL": "debug"})
    eq([(e["FFLUSHD_SITE"], e["FFLUSHD_QUEUE_ID"], e["PRIORITY"]) for e in entries
        if e.get("FFLUSHD_REQUEST") == "add"], [("example.com", "ABC123", "7")])


# ---------------------------------------------------------------------------------- metrics


def samples(text):
    """A dictionary of the samples, whose last line must be the end."""
    lines = text.splitlines()
    eq(lines.pop(), "# EOF")
    found = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    eq(len(dict(found)), len(found), "a sample twice")
    return {k: int(v) for k, v in found}


@test
def metrics_are_what_prometheus_reads(t):
    if shutil.which("promtool") is None:
        raise Skip("needs promtool")
    spool, d = t.make()
    spool.log("a_test", b"A1\nA2\nA1\n")
    for args in ((), ("a.test", "b.test"), ("--top", "1", "--instance", 'x"y\\z')):
        text = d.ctl("metrics", *args).stdout
        r = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                           capture_output=True)
        eq((r.returncode, r.stdout + r.stderr), (0, ""), text)
    eq(text.count('{postfix_instance="x\\"y\\\\z"'), len(samples(text)))
    eq(d.exchange(PURGE), OK)
    text = d.ctl("metrics").stdout
    r = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                       capture_output=True)
    eq((r.returncode, r.stdout + r.stderr), (0, ""), text)


@test
def metrics_tell_what_the_logs_have_and_change_nothing(t):
    spool, d = t.make()
    spool.log("a_test", b"A1\nA2\nA1\n", mtime=-100, atime=-5000)
    spool.log("b_test", b"B1\n!!\nB2\nB3\nB4\n", mtime=-7000, atime=-200)
    spool.log("c_test", b"", mtime=-90000)
    spool.log("xn__bcher_kva_example", b"C1\n", mtime=-60, atime=-60)
    before = [os.stat(spool.join(f)) for f in spool.files("flush")]
    text = d.ctl("metrics", "--top", "2", "nosuch.test", "b.test", "xn--bcher-kva.example").stdout
    got = samples(text)
    eq([(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns) for s in before],
       [(s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)
        for s in (os.stat(spool.join(f)) for f in spool.files("flush"))])
    eq([got["fflushd_" + k] for k in ("logs", "sites", "records", "unreadable_logs")],
       [4, 3, 8, 0])
    now = time.time()
    for key, age in (("change", 7000), ("flush", 5000)):
        assert abs(now - got["fflushd_oldest_%s_timestamp_seconds" % key] - age) < 60, got
    eq({k: v for k, v in got.items() if "site_records" in k or "site_messages" in k},
       {'fflushd_site_%s{site="%s"}' % (kind, site): n
        for site, records, messages in (("a.test", 3, 2), ("b.test", 4, 4), ("nosuch.test", 0, 0),
                                        ("xn--bcher-kva.example", 0, 0))
        for kind, n in (("records", records), ("messages", messages))})
    eq(got['fflushd_site_flushed_timestamp_seconds{site="nosuch.test"}'], 0)
    assert not [k for k in got if k.startswith("fflushd_requests")], "never started"
    eq(d.exchange(send_site("b.test")), OK)
    got = samples(d.ctl("metrics").stdout)
    eq((got['fflushd_requests_total{request="send_site",status="ok"}'],
        got['fflushd_messages_total{result="gone"}'], got["fflushd_starts_total"],
        got["fflushd_invalid_records_total"]), (1, 4, 1, 1))
    eq([k for k in got if "site=" in k], [])
    eq(json.loads(d.ctl("--json", "metrics").stdout)["records"], 4)


@test
def metrics_go_to_a_file_in_one_piece(t):
    spool, d = t.make()
    spool.log("a_test", b"A1\n")
    out = os.path.join(d.state, "fflushd.prom")
    with open(out, "w") as f:
        f.write("old")
    old = os.open(out, os.O_RDONLY)
    eq(d.ctl("metrics", "-o", out).stdout, "")
    eq(samples(read_text(out))["fflushd_records"], 1)
    eq(os.pread(old, 100, 0), b"old")  # another file, so nobody reads half of one
    os.close(old)
    eq(stat.S_IMODE(os.stat(out).st_mode), 0o644)
    eq([f for f in os.listdir(d.state) if f.startswith("fflushd.prom")], ["fflushd.prom"])
    os.mkdir(os.path.join(d.state, "dir.prom"))
    for target, code in (("/nosuch/fflushd.prom", 73), (os.path.join(d.state, "dir.prom"), 73)):
        r = d.ctl("metrics", "-o", target, check=False)
        eq(r.returncode, code)
        assert target in r.stderr, r.stderr
    eq(len([f for f in os.listdir(d.state) if f.startswith("dir.prom")]), 1)
    spool.put("flush/bad_test", 0o600, b"B1\n")
    os.remove(spool.join("flush/bad_test"))
    os.symlink("a_test", spool.join("flush/bad_test"))
    r = d.ctl("metrics", check=False)  # one bad log does not hide the others
    eq((r.returncode, samples(r.stdout)["fflushd_records"],
        samples(r.stdout)["fflushd_unreadable_logs"]), (74, 1, 1))
    with open(os.path.join(d.state, "counters"), "wb") as f:
        f.write(b"junk")
    r = d.ctl("metrics", check=False)
    assert "not of this version" in r.stderr and "fflushd_records 1" in r.stdout, r


if __name__ == "__main__":
    main()
