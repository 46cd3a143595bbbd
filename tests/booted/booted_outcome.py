# SPDX-License-Identifier: MIT
"""What became of the mail: remote ends that deliver, reject, greylist and throttle, and what flush
--wait, watch, history and the journal then say."""

import json
import re

from basics import eq
from booted import SUITE, TOOLS, clean, g, journal
from harness import test

LOG = "/var/log/postfix-test.log"
SINK = "systemd-run --quiet --unit=outcome-sink /usr/bin/%ssink 2525 /tmp/outcome" % TOOLS
NOT_DELIVERED = 67  # EX_NOUSER
TEMPFAIL = 75


class Mail:
    """Mail for down.test that waits for a server that was not there, and then one that is.

    @settings: of main.cf, while it lasts.
    """

    def __init__(self, *settings):
        self.settings = settings

    def __enter__(self):
        clean()
        g.run("systemctl reset-failed outcome-sink 2>/dev/null; systemctl stop outcome-sink 2>/dev/null;"
              " postsuper -d ALL; rm -f /tmp/outcome " + LOG, check=False)
        g.run("fflushctl enable-postfix")
        if self.settings:
            g.run("postconf -e %s && systemctl restart postfix" % " ".join(self.settings))
        return self

    def __exit__(self, *_):
        g.run("systemctl stop outcome-sink; postsuper -d ALL; systemctl start postfix", check=False)
        if self.settings:
            g.run("postconf -X %s && systemctl restart postfix"
                  % " ".join(s.split("=")[0] for s in self.settings))

    def send(self, *recipients):
        """A message; it is deferred."""
        n = len(self.deferred())
        g.run("printf 'Subject: x\\n\\nx\\n' | sendmail -f s@guest.test " +
              " ".join(r + "@down.test" for r in recipients))
        g.wait("test $(find /var/spool/postfix/deferred -type f | wc -l) = %d" % (n + 1), "not deferred")

    def deferred(self):
        return g.out("find /var/spool/postfix/deferred -type f -printf '%f\\n'").split()

    def start_sink(self):
        g.run(SINK)
        g.wait("test -e /tmp/outcome", "no sink")

    def send_all(self):
        for name in "ok1", "ok2", "gone1", "gone2", "grey", "full1", "full2", "busy":
            self.send(name)
        self.send("ok3", "ok4", "gone3")
        self.start_sink()


def flush(options="", status=NOT_DELIVERED, before=""):
    r = g.run("%s fflushctl flush --wait --timeout 60 %s down.test" % (before, options), check=False)
    eq(r.returncode, status, r.stdout + r.stderr)
    return re.sub("e\\.g\\. \\w+", "e.g.", r.stdout).splitlines()


def is_told():
    """Of all that send_all() has sent. A server that throttles may be left alone for the rest."""
    lines = flush()
    eq(lines[0], "down.test: 9 found, 9 moved")
    counts = dict((what, int(n)) for n, what in re.findall(r"(\d+) ([a-z ]+)", lines[1].split(":")[1]))
    eq(sum(counts.values()), 9, lines)
    eq(set(counts) - {"delivered", "returned to sender", "deferred again"}, set(), lines)
    return counts, lines


def is_right(mail, counts, lines):
    """As the server and the queue know it."""
    received = g.out("cat /tmp/outcome").split()
    waiting = json.loads("[%s]" % ",".join(g.out("postqueue -j").splitlines()))
    waiting = [m for m in waiting if m["sender"] == "s@guest.test"]
    eq(counts["deferred again"], len(waiting), lines)
    eq(counts["delivered"], len({"ok1@down.test", "ok2@down.test"} & set(received)), lines)
    text = "\n".join(lines)
    assert "550 5.1.1 <...>: Recipient address rejected   e.g." in text, text
    assert "4.2.2 <...>: Mailbox full (quota exceeded)" in text, text
    assert "recipients: " in text, text
    eq(g.out("grep -c . /tmp/outcome"), str(len(received)))


@test
def outcome_is_taken_from_the_journal(t):
    for settings in (), ("enable_long_queue_ids=yes",):
        with Mail(*settings) as mail:
            mail.send_all()
            is_right(mail, *is_told())


@test
def outcome_is_taken_from_a_file_that_is_rotated(t):
    with Mail("maillog_file=" + LOG) as mail:
        mail.send_all()
        g.run("(sleep 0.3; mv %s %s.1; postfix logrotate >/dev/null 2>&1; postfix reload) "
              ">/dev/null 2>&1 &" % (LOG, LOG))
        is_right(mail, *is_told())


@test
def outcome_of_messages_that_an_operator_deletes_or_holds(t):
    with Mail("default_destination_concurrency_limit=1") as mail:
        for _ in range(3):
            mail.send("ok")
        mail.start_sink()
        g.run("systemctl kill -s STOP outcome-sink")
        g.run("fflushctl flush down.test")
        g.wait("test $(find /var/spool/postfix/active -type f | wc -l) = 3", "not active")
        ids = g.out("find /var/spool/postfix/active -type f -printf '%f\\n'").split()
        g.run("(fflushctl watch -t 60 down.test > /tmp/watch; echo $? >> /tmp/watch) >/dev/null 2>&1 &")
        g.wait("grep -q '3 under way' /tmp/watch", "nothing is watched")
        g.run("postsuper -d %s; systemctl kill -s CONT outcome-sink" % ids[2])
        g.wait("tail -n 1 /tmp/watch | grep -q '^[0-9]*$'", "it does not end")
        lines = g.out("cat /tmp/watch").splitlines()
        eq(lines[1], "3 followed: 2 delivered, 1 deleted", lines)
        eq(lines[-1], "0", lines)


@test
def outcome_is_in_the_journal_with_who_it_was(t):
    with Mail() as mail:
        mail.send("ok")
        mail.send("grey")
        mail.start_sink()
        who = "SUDO_USER=tina SSH_CONNECTION='192.0.2.7 1 192.0.2.1 22'"
        flush("--reason ticket-4711", TEMPFAIL, who)
        entry = json.loads(g.journal("-o json -n 1 MESSAGE_ID=389eef67b59741f889320f7251c53c05"))
        eq({k: v for k, v in entry.items() if k.startswith("FFLUSHD_")},
           {"FFLUSHD_INSTANCE": "postfix", "FFLUSHD_REQUEST": "send_site", "FFLUSHD_SITE": "down.test",
            "FFLUSHD_REASON": "ticket-4711", "FFLUSHD_LOGIN": "tina", "FFLUSHD_SUDO": "1",
            "FFLUSHD_REMOTE": "192.0.2.7", "FFLUSHD_MOVED": "2", "FFLUSHD_DELIVERED": "1",
            "FFLUSHD_RETURNED": "0", "FFLUSHD_EXPIRED": "0", "FFLUSHD_DELETED": "0",
            "FFLUSHD_DEFERRED": "1", "FFLUSHD_HELD": "0", "FFLUSHD_UNDER_WAY": "0",
            "FFLUSHD_UNKNOWN": "0"})
        eq(entry["MESSAGE"],
           "send_site down.test by tina (sudo, 192.0.2.7): 1 delivered, 1 deferred again")
        row = g.out("fflushctl history down.test").splitlines()[-1]
        assert re.search(r"tina \(sudo, 192\.0\.2\.7\) +flush +down\.test +2 +1 delivered, 1 deferred again +"
                         "ticket-4711", row), row
        one = mail.deferred()[0]
        g.run("%s fflushctl deliver --wait %s" % (who, one), check=False)
        row = g.out("fflushctl history").splitlines()[-1]
        assert re.search("deliver +%s +1 +1 deferred again" % one, row), row
        assert "What became of mail" in g.journal("-x -n 1 MESSAGE_ID=389eef67b59741f889320f7251c53c05") \
            or SUITE == "bullseye"


@test
def outcome_of_a_run_in_portions_is_that_of_the_whole_run(t):
    with Mail() as mail:
        for name in "ok1", "ok2", "full1":
            mail.send(name)
        mail.start_sink()
        begun = g.out("sleep 1; date '+%F %T'")  # a second that nothing before belongs to
        flush("--limit 2 --every 1s", TEMPFAIL)
        rows = g.out("journalctl --sync; fflushctl history --since '%s' down.test" % begun).splitlines()[1:]
        eq([re.split("  +", row)[4:] for row in rows],
           [["2", ""], ["1", "2 delivered, 1 deferred again (whole run)"]])


@test
def outcome_a_timer_writes_no_second_entry(t):
    with Mail() as mail:
        mail.send("ok")
        before = g.journal("-o cat -t fflushctl")
        g.run("systemctl start fflush-flush@down.test fflush-refresh")
        eq(g.journal("-o cat -t fflushctl"), before)
        assert "send_site down.test: 1 found, 1 moved" in journal(), journal()


@test
def outcome_what_nobody_has_done_is_not_in_the_journal(t):
    with Mail() as mail:
        mail.send("ok")
        before = g.journal("-o cat -t fflushctl")
        g.run("systemctl stop fflush.socket fflushd")
        eq(g.run("SUDO_USER=tina fflushctl flush --all --wait", check=False).returncode, 69)
        eq(g.journal("-o cat -t fflushctl"), before)


@test
def outcome_a_second_operator_learns_who_was_first(t):
    with Mail() as mail:
        mail.send("ok")
        mail.start_sink()
        g.run("systemctl kill -s STOP outcome-sink")
        g.run("SUDO_USER=tina fflushctl flush -r ticket-4711 down.test")
        out = g.out("fflushctl flush down.test").splitlines()
        eq(out[0], "down.test: 0 found, 0 moved")
        assert re.match(r'flushed \d+s ago by tina \(sudo\) \(ticket-4711\); "fflushctl watch down.test" '
                        "follows it$", out[1]), out
        recent = json.loads(g.out("fflushctl -j flush down.test").splitlines()[1])
        eq((recent["type"], recent["site"], recent["by"], recent["reason"]),
           ("recent_flush", "down.test", "tina (sudo)", "ticket-4711"))
        g.run("systemctl kill -s CONT outcome-sink")
        r = g.run("fflushctl watch -t 60 down.test", check=False)
        assert r.returncode == 0 and r.stdout.splitlines()[0] in ("0 under way", "1 under way"), r.stdout
        g.wait("grep -q ok@down.test /tmp/outcome", "not delivered")


@test
def outcome_postfix_that_is_stopped_is_named(t):
    with Mail() as mail:
        mail.send("ok")
        mail.send("ok")
        g.run("systemctl stop postfix postfix@-")
        r = g.run("fflushctl flush --limit 1 down.test")
        eq(r.stderr, "fflushctl: Postfix is not running: nothing is delivered before it is started\n")
        r = g.run("fflushctl flush --wait down.test", check=False)
        eq((r.returncode, r.stderr),
           (TEMPFAIL, "fflushctl: Postfix is not running: nothing is delivered before it is started\n"))
        assert "1 moved: 1 still on their way" in r.stdout, r.stdout
        g.run("systemctl start postfix")
