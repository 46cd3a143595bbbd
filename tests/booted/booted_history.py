# SPDX-License-Identifier: MIT
"""Who had what flushed, by fflushctl history: root through sudo, a user, ETRN, and the timer."""

import json

from basics import eq
from booted import TOOLS, g
from booted_health import begin
from harness import test

NO_PERMISSION = 77
SUDO = "SUDO_USER=tina SSH_CONNECTION='192.0.2.7 50000 192.0.2.1 22' "


def history(options="", **kwargs):
    out = g.out("journalctl --sync; fflushctl --json history " + options, **kwargs)
    return [json.loads(line) for line in out.splitlines()]


def wait_deferred():
    """Until the one message is deferred, again, and recorded."""
    g.wait("test -s /var/spool/postfix/flush/down_test &&"
           " postqueue -j | grep -q '\"queue_name\": \"deferred\"'", "the message is not deferred",
           show="postqueue -j")


def now():
    """A second that nothing before belongs to."""
    return g.out("sleep 1; date '+%F %T'")


def flush(command, **kwargs):
    wait_deferred()
    g.run(command, **kwargs)


def one_message():
    begin()
    g.run("postsuper -d ALL 2>&1; printf 'Subject: test\\n\\nhello\\n' |"
          " sendmail -f sender@guest.test u@down.test")
    wait_deferred()


@test
def history_tells_who_asked_for_each_flush(t):
    one_message()
    begun = now()
    flush(SUDO + "fflushctl flush --reason ticket-4711 down.test")
    flush("postqueue -s down.test", user="nobody")
    flush(TOOLS + "etrn down.test")
    flush("fflushctl flush nosuch.test")
    g.write("/etc/fflushd/fflushd.conf", "fast_flush_refresh_time = 1s\n")
    wait_deferred()
    g.wait("systemctl start fflush-refresh; journalctl --sync; fflushctl history down.test --since '%s' |"
           " grep refresh" % begun, "no refresh")
    found = history("--since '%s'" % begun)
    eq([(f["request"], f["site"], f["by"], f["reason"], f["moved"]) for f in found][:6],
       [("send_site", "down.test", "tina (sudo, 192.0.2.7)", "ticket-4711", 1),
        ("send_site", "down.test", "nobody", None, 1),
        ("send_site", "down.test", "postfix", None, 1),
        ("send_site", "nosuch.test", "root", None, 0),
        ("refresh", "down.test", "postfix", None, 1),
        ("refresh", None, "postfix", None, 1)])
    eq({(f["type"], f["status"]) for f in found}, {("history", "ok")})
    times = [f["time"] for f in found]
    eq(times, sorted(times))

    text = g.out("fflushctl history --since '%s'" % begun).splitlines()
    eq(text[0].split(), ["TIME", "BY", "COMMAND", "DESTINATION", "MOVED", "OUTCOME", "REASON"])
    assert "  tina (sudo, 192.0.2.7)  flush    down.test " in text[1], text
    assert text[1].endswith("  ticket-4711") and "(1 destination)" in text[6], text


@test
def history_is_of_the_destinations_and_the_time_asked_for(t):
    begin()
    g.run("postsuper -d ALL 2>&1")
    begun = now()
    g.run("fflushctl flush a.one.test b.two.test; fflushctl purge; fflushctl deliver AB12 || test $? = 66")
    since = "--since '%s' " % begun
    eq([f["site"] or f["queue_id"] for f in history(since)], ["a.one.test", "b.two.test", None, "AB12"])
    eq([f["site"] for f in history(since + "'*.one.test'")], ["a.one.test"])
    eq([f["site"] for f in history(since + "-S two.test")], ["b.two.test"])
    eq([f["queue_id"] for f in history(since + "--top 1")], ["AB12"])
    eq(history("--since '2035-01-01'"), [])
    assert len(history("--since yesterday")) >= 4 and len(history("--since 1h")) >= 4
    r = g.run("fflushctl history --since never", check=False)
    eq((r.returncode, "--since: " in r.stderr), (64, True), r.stderr)


@test
def history_is_of_the_service_and_not_of_whoever_writes_like_it(t):
    begin()
    begun = now()
    g.run("printf 'MESSAGE=x\\nFFLUSHD_INSTANCE=postfix\\nFFLUSHD_REQUEST=send_site\\n"
          "FFLUSHD_SITE=forged.test\\nFFLUSHD_MOVED=7\\nFFLUSHD_STATUS=0\\n' | logger --journald",
          user="nobody")
    eq(history("--since '%s'" % begun), [])


@test
def history_says_who_may_read_the_journal(t):
    begin()
    r = g.run("fflushctl history", user="nobody", check=False)
    eq((r.returncode, r.stdout), (NO_PERMISSION, ""))
    assert "cannot read the journal: Permission denied (run as root, or as a member of systemd-journal)" \
        in r.stderr, r.stderr
