# SPDX-License-Identifier: MIT
"""What the service does when others hang, and how instances are told apart (it-systemd.py)."""

import json
import time

from basics import eq
from booted import ask, clean, drop_in, g, load, main_pid, property_of, records
from harness import test

FREEZE_SECONDS = 45  # a snapshot, a SAN that fails over: more than WatchdogSec= once was
REQUESTS = 6000  # more lines than journald's socket and 1 MiB hold


@test
def a_hung_journald_holds_up_no_request_and_what_was_lost_is_told(t):
    clean()
    drop_in("fflushd.service", "[Service]\nEnvironment=SYSTEMD_LOG_LEVEL=debug\n"
            "LogRateLimitIntervalSec=0\n")
    eq(ask("add", "site0.test", "B1"), "ok")
    pid = main_pid()
    journald = int(property_of("systemd-journald.service", "MainPID"))
    g.run("kill -STOP %d" % journald)
    try:
        eq(load(REQUESTS, 8), {"ok": REQUESTS})
        eq(main_pid(), pid)
    finally:
        g.run("kill -CONT %d" % journald)
    eq(len(set(records())), REQUESTS + 1)
    g.wait("journalctl --sync; journalctl -t postfix/fflushd _PID=%d | grep -q 'entries were lost'" % pid,
           "it does not say that entries were lost")
    entries = [json.loads(line) for line in
               g.journal("-o json --output-fields=MESSAGE,MESSAGE_ID _PID=%d" % pid).splitlines()]
    lost = [e["MESSAGE"] for e in entries if "entries were lost" in e["MESSAGE"]]
    added = [e for e in entries if e["MESSAGE"].startswith("add ")]
    eq(sum(int(m.split()[0]) for m in lost) + len(added), REQUESTS + 1)
    assert "did not take" in g.journal("-x -n 1 MESSAGE_ID=%s" % next(
        e["MESSAGE_ID"] for e in entries if e["MESSAGE"] == lost[0]))


@test
def a_freeze_is_no_hang(t):
    clean()
    assert int(g.out("systemctl show -p WatchdogUSec --value fflushd.service"
                     " | sed 's/min/*60+/; s/s$//; s/+$//' | xargs -I{} sh -c 'echo $(({}))'")) >= 90
    eq(ask("add", "site0.test", "A1"), "ok")
    pid = main_pid()
    g.run("systemctl freeze fflushd.service")
    ask("add", "site0.test", "A2", background=True)
    time.sleep(FREEZE_SECONDS)
    g.run("systemctl thaw fflushd.service")
    g.wait("grep -q ok /tmp/answer", "who asked meanwhile has no answer")
    eq(main_pid(), pid)
    eq(property_of("fflushd", "NRestarts"), "0")
    eq(records(), ["A1", "A2"])


@test
def the_journal_tells_instances_apart(t):
    clean()
    g.run("mkdir -p /etc/postfix-c /var/spool/postfix-c/public && cp /etc/postfix/main.cf /etc/postfix-c"
          " && postconf -c /etc/postfix-c -e multi_instance_name=postfix-c"
          " queue_directory=/var/spool/postfix-c data_directory=/var/lib/postfix-c"
          " && chown postfix:root /var/spool/postfix-c"
          " && install -d -o postfix -g postdrop -m 710 /var/spool/postfix-c/public"
          " && install -d -o postfix -m 700 /var/spool/postfix-c/flush /var/spool/postfix-c/deferred"
          " /var/spool/postfix-c/incoming /var/spool/postfix-c/active /var/spool/postfix-c/hold"
          " && systemctl start fflush@postfix-c.socket")
    try:
        eq(g.out("fflushctl -i postfix-c deliver ABC123", check=False),
           "ABC123: no such message in the queue")
        entry = json.loads(g.journal("-o json FFLUSHD_INSTANCE=postfix-c -n 1"))
        eq((entry["SYSLOG_IDENTIFIER"], entry["MESSAGE"].split(":")[0]),
           ("postfix-c/fflushd", "send_file ABC123"))
        eq(ask("send_file", "DEF456"), "ok")
        entry = json.loads(g.journal("-o json FFLUSHD_QUEUE_ID=DEF456 -n 1"))
        eq((entry["SYSLOG_IDENTIFIER"], entry["FFLUSHD_INSTANCE"]), ("postfix/fflushd", "postfix"))
        # Another name in main.cf.
        g.run("postconf -c /etc/postfix-c -e syslog_name=relay; systemctl stop fflushd@postfix-c")
        g.run("fflushctl -i postfix-c deliver GHI789", check=False)
        assert "send_file GHI789" in g.journal("-o cat -t relay/fflushd FFLUSHD_QUEUE_ID=GHI789")
    finally:
        g.run("systemctl stop fflush@postfix-c.socket fflushd@postfix-c.service;"
              "rm -rf /etc/postfix-c /var/spool/postfix-c")
