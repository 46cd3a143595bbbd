#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushd under a real systemd, beside a real Postfix, in a booted Debian: the units and the
commands. More cases are in the modules that are imported here; all share one guest (booted.py).
"""

import importlib
import json
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

import guest
from basics import Skip, eq
from booted import (SOCKET, SUITE, TOOLS, active, ask, clean, drop_in, g, journal, load, main_pid, prepare,
                    property_of, readme, records, switch_over)
from harness import main, test

for subject in ("hosts", "health", "history", "layout", "limits", "names", "operating", "operator", "outcome",
                "readme", "reload", "stuck", "switch", "tables"):
    importlib.import_module("booted_" + subject)

OTHER_SUITES = " ".join("tests/integration/it-%s.py" % name for name in (
    "requests", "sends", "limits", "lifetime", "reload", "journal", "health", "vectors", "places"))


@test
def the_other_suites_pass_on_this_release(t):
    if SUITE == "bookworm":
        raise Skip("make check has run them")
    r = g.run("cd /build && FFLUSHD_MANY=50000 make -k -j2 check TESTS=\"$(cd /src && ls tests/unit/check-*.c"
              " | sed 's|\\.c$||') " + OTHER_SUITES + "\" 2>&1",
              check=False, timeout=900)
    if r.returncode != 0:
        raise AssertionError(g.out("cd /build; grep -l ':test-result: FAIL' tests/*/*.trs | sed"
                                   " s/trs$/log/ | xargs grep -hv ^ok | tail -60; tail -20"
                                   " tests/*/*.log", check=False) + r.stdout[-3000:])


# ------------------------------------------------------------------------------------ the units


@test
def units_are_valid_and_the_sandbox_is_tight(t):
    out = g.run("systemd-analyze verify --man=no /lib/systemd/system/ff* 2>&1 | grep ff", check=False)
    eq([line for line in out.stdout.splitlines() if "Failed to prepare" not in line], [])
    score = g.out("systemd-analyze security fflushd.service --no-pager | tail -1")
    assert float(re.search(r"([\d.]+) ", score.split(":")[1].strip()).group(1)) <= 1.0, score


@test
def the_first_request_starts_the_daemon_and_idleness_ends_it(t):
    clean()
    g.write("/etc/fflushd/fflushd.conf", "max_idle = 1s\n")
    eq(active("fflushd"), "inactive")
    eq(ask("add", "site0.test", "A1"), "ok")
    eq(active("fflushd"), "active")
    first = main_pid()
    g.wait("! systemctl is-active -q fflushd", "no idle exit")
    eq(property_of("fflushd", "Result"), "success")
    eq(ask("add", "site0.test", "A2"), "ok")
    assert main_pid() != first
    eq(records(), ["A1", "A2"])
    g.wait("systemctl show -p StatusText fflushd | grep -q '1 requests'", "no status")


@test
def ten_thousand_requests_across_hundreds_of_exits_lose_nothing(t):
    clean()
    g.write("/etc/fflushd/fflushd.conf", "max_use = 15\n")
    # Not told where to notify, it leaves at once.
    drop_in("fflushd.service", "[Service]\nType=exec\nNotifyAccess=none\nWatchdogSec=0\n")
    drop_in("fflush.socket", "[Socket]\nTriggerLimitIntervalSec=0\n")
    g.run("systemctl restart fflush.socket")
    eq(load(10000, 8), {"ok": 10000})
    eq(len(set(records())), 10000)
    starts = int(g.journal("-u fflushd | grep -c 'Started fflushd.service\\|Started Fast flush'"))
    assert starts >= 300, starts


@test
def idle_exits_under_timed_requests_lose_nothing(t):
    clean()
    g.write("/etc/fflushd/fflushd.conf", "max_idle = 1s\n")
    # Not told where to notify, it leaves after one second: requests come just then.
    drop_in("fflushd.service", "[Service]\nType=exec\nNotifyAccess=none\nWatchdogSec=0\n")
    g.run("systemctl restart fflush.socket")
    out = g.out("for i in $(seq 20); do sleep 1.0; sleep 0.0$((i %% 5))$((i %% 7)); "
                "%sload %s 40 8; done" % (TOOLS, SOCKET), timeout=300)
    eq(out.split("\n"), ['{"ok": 40}'] * 20)


@test
def a_burst_trips_no_limit(t):
    clean()
    eq(load(5000, 64, 100), {"ok": 5000})
    eq(active("fflush.socket"), "active")
    for _ in range(8):  # more starts than the defaults of systemd allow
        g.run("systemctl stop fflushd")
        eq(ask("add", "site0.test", "B1"), "ok")
    eq(active("fflush.socket"), "active")


@test
def stop_start_restart_and_reload_lose_no_request(t):
    clean()
    g.run("(%sload %s 6000 4 > /tmp/load 2>&1; touch /tmp/load.done) &" % (TOOLS, SOCKET))
    for command in ("restart", "stop", "reload", "start", "restart", "reload", "stop"):
        g.run("systemctl %s fflushd" % command, check=command != "reload")
        time.sleep(0.2)
    g.run("systemctl daemon-reload; systemctl daemon-reexec")
    g.wait("test -e /tmp/load.done", "the load does not end", timeout=120)
    eq(g.out("cat /tmp/load; rm /tmp/load.done"), '{"ok": 6000}')
    eq(len(set(records())), 6000)


@test
def reload_brings_a_new_configuration(t):
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")
    g.write("/etc/fflushd/fflushd.conf", "fast_flush_domains = 'only.test'\n")
    pid = main_pid()
    g.run("systemctl reload fflushd")
    eq(ask("add", "only.test", "A2"), "ok")
    assert "4" in ask("add", "site0.test", "A2")
    eq(main_pid(), pid)


@test
def a_broken_configuration_is_shown_and_served_around(t):
    clean()
    g.write("/etc/fflushd/fflushd.conf", "\nno_such_option = 1\n")
    eq(ask("add", "site0.test", "A1"), "ok")
    assert "/etc/fflushd/fflushd.conf:2: no such option" in journal("-p err"), journal()
    assert "CONFIGURATION PROBLEM" in g.out("systemctl status fflushd --no-pager", check=False)
    eq(g.run("fflushd --check-config", check=False).returncode, 78)


@test
def the_socket_outlives_a_broken_program_that_is_mended(t):
    clean()
    g.run("mv /usr/sbin/fflushd /usr/sbin/fflushd.good && cp /bin/false /usr/sbin/fflushd")
    try:
        ask("add", "site0.test", "A1", background=True)
        g.wait("journalctl -u fflushd --no-pager | grep -q 'Failed with result'", "no failure seen")
        time.sleep(2)
    finally:
        g.run("mv /usr/sbin/fflushd.good /usr/sbin/fflushd")
    g.wait("grep -q ok /tmp/answer", "the waiting client was not served")
    eq(active("fflush.socket"), "active")


@test
def the_refresh_brings_back_a_failed_socket(t):
    clean()
    drop_in("fflushd.service", "[Unit]\nStartLimitIntervalSec=2s\nStartLimitBurst=2\n"
            "[Service]\nRestartSec=100ms\n")
    g.run("mv /usr/sbin/fflushd /usr/sbin/fflushd.good && cp /bin/false /usr/sbin/fflushd")
    try:
        ask("add", "site0.test", "A1")
        g.wait("systemctl is-failed -q fflush.socket", "the socket has not failed")
    finally:
        g.run("mv /usr/sbin/fflushd.good /usr/sbin/fflushd")
    time.sleep(2)  # the start limit's own time
    g.run("systemctl start fflush-refresh.service")
    eq(active("fflush.socket"), "active")
    eq(ask("add", "site0.test", "A1"), "ok")


@test
def the_watchdog_frees_clients_of_a_hung_daemon(t):
    clean()
    drop_in("fflushd.service", "[Service]\nWatchdogSec=2s\n")
    eq(ask("add", "site0.test", "A1"), "ok")
    pid = main_pid()
    assert pid > 0, "it has left"
    g.run("kill -STOP %d" % pid)
    eq(ask("add", "site0.test", "A2"), "ok")
    assert "Watchdog timeout" in g.journal("-u fflushd -n 50")
    eq(records(), ["A1", "A2"])


@test
def stopping_the_socket_ends_it_all(t):
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")
    g.run("systemctl stop fflush.socket")
    for unit in ("fflush.socket", "fflushd.service", "fflush-refresh.timer"):
        eq((unit, active(unit)), (unit, "inactive"))
    eq(ask("add", "site0.test", "A1"), "ConnectionRefusedError")


# ---------------------------------------------------------------------------------- the sandbox

PROBE = r"""#!/usr/bin/python3
import ctypes, mmap, os, socket
def denied(what, call):
    try:
        call()
        print("ALLOWED " + what)
    except (OSError, PermissionError, ValueError) as e:
        print("denied " + what)
denied("write /etc", lambda: open("/etc/x", "w"))
denied("write /var", lambda: open("/var/lib/x", "w"))
denied("write /usr", lambda: open("/usr/x", "w"))
denied("read /root", lambda: os.listdir("/root"))
def send(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (address, 53))
denied("reach this host", lambda: socket.create_connection(("127.0.0.1", 25), timeout=5))
denied("reach others", lambda: send(socket.AF_INET, "192.0.2.1"))
denied("reach others by IPv6", lambda: send(socket.AF_INET6, "2001:db8::1"))
denied("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
denied("executable mapping", lambda: mmap.mmap(-1, 4096, prot=7))
denied("chown", lambda: os.chown("/var/spool/postfix/flush", 0, 0))
def namespace():
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000) != 0:
        raise OSError(ctypes.get_errno())
denied("user namespace", namespace)
def setuid_file():
    path = "/var/spool/postfix/flush/suid"
    open(path, "w").close()
    try:
        os.chmod(path, 0o4700)
    finally:
        os.unlink(path)
denied("setuid file", setuid_file)
denied("see other processes", lambda: os.stat("/proc/1/stat"))
print("uid %d" % os.getuid())
open("/var/spool/postfix/flush/probe", "w").close()
os.unlink("/var/spool/postfix/flush/probe")
print("queue writable")
"""


@test
def what_the_sandbox_denies_is_denied(t):
    clean()
    g.write("/opt/probe", PROBE)
    g.run("chmod 755 /opt/probe")
    drop_in("fflushd.service", "[Service]\nExecStartPre=/opt/probe\nSyslogIdentifier=probe\n")
    eq(ask("add", "site0.test", "A1"), "ok")
    out = g.journal("-o cat -t probe -n 20")
    assert "ALLOWED" not in out and out.count("denied") == 13 and "queue writable" in out, out
    assert "uid 0" not in out, out


@test
def all_requests_and_tables_work_in_the_sandbox(t):
    clean()
    g.write("/etc/postfix/sites", "table.test ok\n")
    g.run("postmap hash:/etc/postfix/sites lmdb:/etc/postfix/sites &&"
          " postconf -e 'fast_flush_domains = literal.test, hash:/etc/postfix/sites,"
          " lmdb:/etc/postfix/sites, proxy:hash:/etc/postfix/sites'"
          " 'proxy_read_maps = $fast_flush_domains, proxy:unix:passwd.byname' && systemctl restart postfix")
    try:
        for site in ("literal.test", "table.test", "sub.table.test"):
            eq((site, ask("add", site, "A1")), (site, "ok"))
        assert "4" in ask("add", "nowhere.test", "A1"), journal()
        eq(records("literal_test"), ["A1"])
        for request in (("send_site", "table.test"), ("send_file", "A1"), ("rfrsh",), ("purge",)):
            eq((request, ask(*request)), (request, "ok"))
        for table in ("hash", "lmdb", "proxy:hash"):  # each by itself
            g.run("postconf -e 'fast_flush_domains = %s:/etc/postfix/sites'; systemctl restart"
                  " postfix; systemctl restart fflushd" % table)
            eq((table, ask("add", "table.test", "A2")), (table, "ok"))
    finally:
        g.run("postconf -X proxy_read_maps; postconf -e fast_flush_domains=static:all;"
              " systemctl restart postfix")


# ------------------------------------------------------------------------------- timers, journal


def age(name):
    g.run("touch -a -d '13 hours ago' /var/spool/postfix/flush/" + name)


@test
def refresh_and_purge_are_units(t):
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")
    age("site0_test")
    g.run("systemctl start fflush-refresh")
    eq(records(), [])
    eq(ask("add", "site0.test", "A2"), "ok")
    g.run("touch -a -d '1 minute ago' /var/spool/postfix/flush/site0_test; "
          "systemctl start fflush-purge")
    eq(records(), [])
    entry = json.loads(g.journal("-o json FFLUSHD_REQUEST=purge -n 1"))
    eq((entry["FFLUSHD_GONE"], entry["FFLUSHD_CALLER_UID"]), ("1", g.out("id -u postfix")))


@test
def metrics_are_written_for_node_exporter(t):
    clean()
    out = "/var/lib/prometheus/node-exporter/fflushd.prom"
    log = "/var/spool/postfix/flush/site0_test"
    g.run("rm -rf /var/lib/prometheus; systemctl start fflush-metrics")  # skipped: nobody reads it
    g.run("! test -e " + out)
    g.run("mkdir -p /var/lib/prometheus/node-exporter")
    eq(ask("add", "site0.test", "A1"), "ok")
    age("site0_test")
    g.run("stat -c %%X %s > /tmp/before; systemctl start fflush-metrics;"
          "stat -c %%X %s | cmp - /tmp/before" % (log, log))
    eq(g.out("stat -c '%%a %%U' %s" % out), "644 root")
    text = g.out("cat " + out)
    assert "\nfflushd_records 1\n" in text and text.endswith("# EOF"), text
    for name in ("up", "listening", "served", "healthy"):  # in a sandbox, and a network of its own
        assert "\nfflushd_%s 1\n" % name in text, (name, text)
    g.run("systemctl stop fflushd.service fflush.socket; systemctl start fflush-metrics")
    text_ = g.out("cat " + out)
    g.run("systemctl start fflush.socket")
    for name in ("up", "listening", "healthy"):
        assert "\nfflushd_%s 0\n" % name in text_, (name, text_)
    starts = int(re.search(r"^fflushd_starts_total (\d+)$", text, re.M).group(1))
    g.run("systemctl kill -s KILL fflushd; systemctl restart fflush.socket")
    eq(ask("add", "site0.test", "A2"), "ok")
    g.run("systemctl start fflush-metrics")
    text = g.out("cat " + out)
    assert int(re.search(r"^fflushd_starts_total (\d+)$", text, re.M).group(1)) > starts, text
    eq(g.out("stat -c '%a %U' /var/lib/fflushd/postfix /var/lib/fflushd/postfix/counters"),
       "755 postfix\n644 postfix")
    drop_in("fflush-metrics.timer", "[Timer]\nOnActiveSec=\nOnActiveSec=1s\nAccuracySec=100ms\n")
    g.run("rm %s; systemctl start fflush-metrics.timer" % out)
    try:
        g.wait("test -e " + out, "the timer does not run it")
    finally:
        g.run("systemctl stop fflush-metrics.timer; rm -r /var/lib/prometheus")


@test
def the_timer_refreshes_and_does_so_after_a_missed_run(t):
    clean()
    drop_in("fflush-refresh.timer", "[Timer]\nOnActiveSec=\nOnUnitActiveSec=\nOnActiveSec=1s\n"
            "OnUnitActiveSec=2s\nAccuracySec=100ms\n")
    eq(ask("add", "site0.test", "A1"), "ok")
    age("site0_test")
    g.run("systemctl restart fflush-refresh.timer")
    g.wait("! test -s /var/spool/postfix/flush/site0_test", "the timer does not refresh")
    g.run("systemctl stop fflush.socket")
    g.run("echo A2 > /var/spool/postfix/flush/site0_test", user="postfix")
    age("site0_test")
    time.sleep(2.5)
    g.run("test -s /var/spool/postfix/flush/site0_test")  # nothing runs while it is stopped
    g.run("systemctl start fflush.socket")  # which starts the timer
    g.wait("! test -s /var/spool/postfix/flush/site0_test", "a missed run is not made up for")


@test
def one_destination_is_flushed_on_a_schedule(t):
    clean()
    eq(ask("add", "a-b.test", "A1"), "ok")
    drop_in("fflush-flush@a-b.test.timer", "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/2\n"
            "RandomizedDelaySec=0\nAccuracySec=100ms\n")
    g.run("systemctl enable --now fflush-flush@a-b.test.timer")
    try:
        g.wait("! test -s /var/spool/postfix/flush/aDb_test", "not flushed")
    finally:
        g.run("systemctl disable --now fflush-flush@a-b.test.timer")


@test
def the_journal_answers_who_what_and_why(t):
    clean()
    eq(ask("add", "site0.test", "A1"), "ok")
    g.run("postqueue -s site0.test", user="nobody")
    entry = json.loads(g.journal("-u fflushd FFLUSHD_SITE=site0.test -o json -n 1"))
    eq((entry["FFLUSHD_CALLER_UID"], entry["FFLUSHD_FOUND"], entry["SYSLOG_IDENTIFIER"]),
       (g.out("id -u nobody"), "1", "postfix/fflushd"))
    text = g.journal("-x -n 1 MESSAGE_ID=" + entry["MESSAGE_ID"])
    assert "site0.test" in text and "Subject:" in text, text
    manual = g.out("cat /src/man/fflushd.8")
    for identifier in re.findall(r'"([0-9a-f]{32})"', g.out("cat /src/src/daemon/journal.h")):
        assert identifier in manual, "message ID missing in fflushd(8): " + identifier
        assert g.run("journalctl --dump-catalog " + identifier, check=False).stdout, identifier


@test
def a_busy_day_stays_within_the_journal_s_rate_limit(t):
    clean()
    g.run("journalctl --rotate; journalctl --vacuum-time=1s")
    eq(load(20000, 16, 1000), {"ok": 20000})
    eq(g.journal("-o cat _COMM=fflushd | wc -l"), "0")
    assert "4" in ask("add", "-bad-", "A1")
    assert "-bad-" in journal("-p warning")
    assert "Suppressed" not in g.journal("-o cat -u systemd-journald || true")


# ---------------------------------------------------------------------------------- real Postfix


def inject(*recipients):
    for r in recipients:
        g.run("printf 'Subject: test\\n\\nhello\\n' | sendmail -f sender@guest.test " + r)


def deferred():
    """Recipient domains of all deferred mail, sorted."""
    out = g.out("postqueue -j")
    entries = [json.loads(line) for line in out.split("\n") if line]
    return sorted(r["address"].split("@")[1] for e in entries for r in e["recipients"]
                  if e["queue_name"] == "deferred")


def wait_deferred(domains):
    end = time.monotonic() + 30
    while deferred() != sorted(domains):
        if time.monotonic() > end:
            raise AssertionError("deferred: %s\n%s" % (deferred(), g.journal("-n 60 -o short")))
        time.sleep(0.2)


class Destination:
    """The server of a destination, up for as long as the with statement runs."""

    def __init__(self, port=2525):
        self.port = port
        self.path = "/tmp/sink.%d" % port

    def __enter__(self):
        g.run("rm -f %s; systemd-run --quiet --unit=sink-%d %ssink %d %s"
              % (self.path, self.port, TOOLS.replace("python3", "/usr/bin/python3"), self.port,
                 self.path))
        g.wait("test -e " + self.path, "no sink")
        return self

    def __exit__(self, *_):
        g.run("systemctl stop sink-%d" % self.port)

    def got(self):
        return sorted(g.out("cat " + self.path).split())

    def wait(self, *recipients):
        end = time.monotonic() + 30
        while self.got() != sorted(recipients):
            if time.monotonic() > end:
                raise AssertionError("delivered: %s\n%s" % (
                    self.got(), g.journal("-n 60")))
            time.sleep(0.1)


def empty_queue():
    g.run("postsuper -d ALL 2>/dev/null; rm -rf /var/spool/postfix/flush/*; systemctl restart postfix")


MAIL = ("u@down.test", "u@other.test", "u@a-b.test", "u@a.b.test")


def flush_and_check(command, recipient):
    """Mail for several dead destinations; one is flushed when it is back: that, and only that."""
    clean()
    empty_queue()
    inject(*MAIL)
    domains = [r.split("@")[1] for r in MAIL]
    wait_deferred(domains)
    site = recipient.split("@")[1]
    with Destination(2525) as d:
        g.run(command.format(site=site, id=queue_id_of(site)))
        d.wait(recipient)
        wait_deferred([x for x in domains if x != site])


def queue_id_of(domain):
    for line in g.out("postqueue -j").split("\n"):
        e = json.loads(line)
        if e["recipients"][0]["address"].endswith("@" + domain):
            return e["queue_id"]
    raise AssertionError("no message for " + domain)


@test
def etrn_delivers_exactly_the_mail_of_that_destination(t):
    flush_and_check(TOOLS + "etrn {site} | grep '^250 Queuing started'", "u@down.test")


@test
def postqueue_s_delivers_exactly_the_mail_of_that_destination(t):
    flush_and_check("postqueue -s {site}", "u@a-b.test")
    flush_and_check("sendmail -qR{site}", "u@a.b.test")


@test
def postqueue_i_delivers_one_message(t):
    flush_and_check("postqueue -i {id}", "u@down.test")


@test
def long_queue_ids_and_hashed_queues_work(t):
    g.run("postconf -e enable_long_queue_ids=yes hash_queue_depth=2"
          " hash_queue_names=deferred,defer,incoming && systemctl restart postfix")
    try:
        flush_and_check(TOOLS + "etrn {site}", "u@down.test")
        flush_and_check("postqueue -i {id}", "u@a-b.test")
    finally:
        g.run("postsuper -d ALL; postconf -X enable_long_queue_ids hash_queue_depth"
              " hash_queue_names && systemctl restart postfix")


@test
def tables_as_relay_domains_work(t):
    """fast_flush_domains as Postfix has it by default, from relay_domains."""
    g.write("/etc/postfix/relay", "down.test ok\na-b.test ok\n")
    for kind in ("hash", "lmdb"):
        g.run("postmap {0}:/etc/postfix/relay && postconf -X fast_flush_domains &&"
              " postconf -e relay_domains={0}:/etc/postfix/relay && systemctl restart postfix"
              .format(kind))
        try:
            flush_and_check(TOOLS + "etrn {site} | grep ^250", "u@down.test")
            eq(g.out(TOOLS + "etrn other.test")[:3], "459")
        finally:
            g.run("postconf -X relay_domains; postconf -e fast_flush_domains=static:all;"
                  " systemctl restart postfix")


@test
def switching_over_and_back_loses_no_record(t):
    clean()
    for command in readme("Switch back"):
        g.run(command)
    empty_queue()
    inject("one@down.test")  # flush(8) records it
    wait_deferred(["down.test"])
    eq(len(set(records("down_test"))), 1)
    switch_over()
    inject("two@down.test")  # fflushd records it
    wait_deferred(["down.test"] * 2)
    eq(len(set(records("down_test"))), 2)
    with Destination() as d:
        g.run("postqueue -s down.test")
        d.wait("one@down.test", "two@down.test")
    inject("three@down.test")
    wait_deferred(["down.test"])
    for command in readme("Switch back"):
        g.run(command)
    with Destination() as d:
        g.run("postqueue -s down.test")  # flush(8) reads what fflushd wrote
        d.wait("three@down.test")
    switch_over()


@test
def postfix_s_own_housekeeping_does_no_harm(t):
    for command in ("postfix set-permissions", "postfix upgrade-configuration", "postfix check",
                    "postfix reload", "systemctl restart postfix"):
        r = g.run(command, check=False, timeout=60)
        assert "fflush" not in r.stdout + r.stderr, r.stderr
    flush_and_check(TOOLS + "etrn {site} | grep ^250", "u@down.test")


@test
def a_second_postfix_instance_has_its_own(t):
    clean()
    g.run("postmulti -e init; postmulti -I postfix-b -G mta -e create;"
          "postconf -c /etc/postfix-b -MX smtp/inet;"
          "postconf -c /etc/postfix-b -e fast_flush_domains=static:all"
          " master_service_disable= authorized_submit_users=root,nobody"
          " flush_service_name=fflushd; postmulti -i postfix-b -e enable;"
          "postmulti -i postfix-b -p start")
    try:
        g.run("systemctl enable --now fflush@postfix-b.socket fflush-refresh@postfix-b.timer")
        g.run("fflushctl --instance postfix-b add one.test A1")
        eq(g.out("cat /var/spool/postfix-b/flush/one_test"), "A1")
        g.run("postqueue -c /etc/postfix-b -s one.test")
        eq(g.out("cat /var/spool/postfix-b/flush/one_test"), "")
        eq(active("fflushd@postfix-b"), "active")
        g.run("systemctl start fflush-purge@postfix-b")
        eq(ask("add", "site0.test", "A1"), "ok")
        assert not g.run("test -e /var/spool/postfix-b/flush/site0_test", check=False).returncode == 0
    finally:
        g.run("systemctl disable --now fflush-refresh@postfix-b.timer fflush@postfix-b.socket;"
              "postmulti -i postfix-b -p stop; postmulti -i postfix-b -e disable;"
              "postmulti -i postfix-b -e destroy; postmulti -e deinit", check=False)


@test
def the_watching_commands_of_the_readme_work(t):
    clean()
    eq(ask("send_site", "example.com"), "ok")
    for command in readme("Watch it"):
        command = re.split(r"  +", command)[0]
        r = g.run(command, check=False)
        assert r.returncode == 0, (command, r.stdout, r.stderr)


@test
def status_says_what_systemd_says(t):
    clean()
    status = json.loads(g.out("fflushctl status --json"))
    eq((status["listener_pid"], status["served"], status["flush_service_name"]), (1, True, "fflushd"))
    assert status["units"]["fflush.socket"].startswith("active ("), status
    eq(status["units"]["fflushd.service"], "inactive (dead)")  # as it was before it was asked
    assert status["units"]["fflush-refresh.timer"] == "active (waiting)", status
    text = g.out("fflushctl status")
    assert "systemd listens on " + SOCKET in text, text
    assert "uses fflushd (flush_service_name = fflushd)" in text, text
    g.run("systemctl start fflush-refresh.service")
    g.run("systemctl stop fflush.socket")
    r = g.run("fflushctl status --json", check=False)
    status = json.loads(r.stdout.splitlines()[0])  # then what is wrong
    eq((r.returncode, status["listening"], status["units"]["fflush.socket"]),
       (69, False, "inactive (dead)"))
    r = g.run("fflushctl -i nosuch status --json", check=False)
    eq((r.returncode, json.loads(r.stdout)["type"]), (66, "error"))
    clean()


@test
def the_fflushctl_commands_of_the_readme_work(t):
    clean()
    empty_queue()
    inject("u@example.com")
    wait_deferred(["example.com"])
    for command in readme("fflushctl"):
        command = re.split(r"  +", command)[0]
        if " -H " in command or " --watch " in command:  # another host, a terminal
            continue
        r = g.run(command, check=False)
        # nobody is there to take the mail: it is deferred again, and then nothing is on its way
        wanted = [75] if "--wait" in command else [0, 75] if " watch " in command else [0]
        assert r.returncode in wanted, (command, r.stdout, r.stderr)
        assert r.stdout, command
        wait_deferred(["example.com"])
    empty_queue()


if __name__ == "__main__":
    if guest.missing():
        print("skipped: " + guest.missing())
        sys.exit(77)
    g.boot()
    try:
        prepare()
        switch_over()
        main()
    finally:
        g.close()
