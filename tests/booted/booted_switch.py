# SPDX-License-Identifier: MIT
"""enable-postfix and disable-postfix: killed, interrupted, refused, on hosts that are set up in
other ways; run again they end where one whole run ends. Cases of it-systemd.py.
"""

import json
import re

from basics import eq
from booted import SOCKET, TOOLS, active, clean, drop_in, g, property_of
from harness import test

UNITS = ("fflush.socket", "fflush-refresh.timer")
SPAWN = "clone,clone3,vfork"  # what posix_spawn(3) uses
DROP_IN = r"^# (/etc/systemd/system/\S+)$"


def asks():
    return g.out("postconf -h flush_service_name")


def state():
    """Whom Postfix asks, and the units."""
    words = {verb: g.run("systemctl %s %s" % (verb, " ".join(UNITS)), check=False).stdout.split()
             for verb in ("is-active", "is-enabled")}
    return asks(), words["is-active"], words["is-enabled"]


ON = ("fflushd", ["active"] * 2, ["enabled"] * 2)
OFF = ("flush", ["inactive"] * 2, ["disabled"] * 2)


def off():
    """Postfix as it was before fflushd, with nothing deferred and no old agent."""
    g.run("rm -rf /etc/systemd/system/ff*.d /etc/fflushd; systemctl daemon-reload; postsuper -d ALL;"
          "postconf -X flush_service_name;"
          "touch -d '1 minute ago' /etc/postfix/main.cf;"  # else postconf waits
          "systemctl disable --now %s 2>/dev/null;"
          "systemctl stop fflushd; systemctl reset-failed; rm -rf /var/spool/postfix/flush/* %s;"
          "systemctl start postfix; postfix reload" % (" ".join(UNITS), SOCKET), check=False)


def on():
    off()
    ctl("enable-postfix")


def after(case):
    """The case, and the guest is as other modules want it."""
    def run(t):
        try:
            case(t)
        finally:
            on()
            clean()
    run.__name__ = case.__name__
    return run


def ctl(arguments, status=0):
    r = g.run("fflushctl %s 2>&1" % arguments, check=False)
    eq((arguments, r.returncode, r.stdout if r.returncode != status else ""), (arguments, status, ""))
    return r.stdout


def deferred():
    entries = [json.loads(line) for line in g.out("postqueue -j").split("\n") if line]
    return {e["queue_id"] for e in entries if e["queue_name"] == "deferred"}


def send(recipient="u@a-b.test"):
    """One more message is deferred, and the agent that did it stays, idle."""
    n = len(deferred())
    g.run("printf 'Subject: test\\n\\nhello\\n' | sendmail -f s@guest.test " + recipient)
    g.wait("test $(postqueue -j | grep -c '\"deferred\"') -gt %d" % n, "not deferred")


def recorded(name):
    """All that is deferred is in this log."""
    ids = sorted(deferred())
    g.wait("for i in %s; do grep -qx $i /var/spool/postfix/flush/%s || exit 1; done"
           % (" ".join(ids), name), "%s: %r are not all in it" % (name, ids), timeout=10)


def failures():
    return journal_of_agents().count("flush service failure")


def journal_of_agents():
    return g.journal("-o cat -t postfix/smtp -t postfix/qmgr")


# ------------------------------------------------------------------- killed, and run again


def spawned(verb):
    """How many commands a whole run starts: the last ones change something."""
    g.run("strace -qq -o /tmp/spawned -e trace=%s fflushctl %s" % (SPAWN, verb))
    return int(g.out("grep -c '(' /tmp/spawned"))


RUNS = "epoll_wait,epoll_pwait"  # what it then waits in


def killed(verb, calls, i):
    r = g.run("strace -qq -o /dev/null -e trace=%s -e inject=%s:signal=KILL:when=%d fflushctl %s"
              % (calls, calls, i, verb), check=False)
    return r.returncode == 137


def kill_and_run_again(verb, steps, before, log_before, wanted, log_after):
    """Killed at each of the steps [(calls, which of them)], and run again: it ends where one whole
    run ends. before() is the state to begin with; the logs are those that messages are recorded in."""
    for calls, i in steps:
        before()
        send()
        recorded(log_before)
        assert killed(verb, calls, i), (calls, i)
        ctl(verb)
        eq((calls, i, state()), (calls, i, wanted))
        send()  # also by an agent of before, if it was not told
        recorded(log_after)
        if wanted == OFF:
            left = g.out("ls -ld %s /var/spool/postfix/flush/aDb_test 2>/dev/null" % SOCKET, check=False)
            assert left == "", (calls, i, left, state(), g.journal("-o short-precise -n 60"))


@test
@after
def enabling_is_killed_at_each_step_and_run_again(t):
    off()
    n = spawned("enable-postfix")
    eq(state(), ON)
    kill_and_run_again("enable-postfix", (
        (RUNS, n - 7), (SPAWN, n - 6),  # systemctl enable: while it runs, and after
        (SPAWN, n - 3),  # after postconf -e
        (RUNS, n - 3), (SPAWN, n - 2),  # postfix reload: while it runs, and after
        (SPAWN, n),  # before the import
    ), off, "a_b_test", ON, "aDb_test")


@test
@after
def disabling_is_killed_at_each_step_and_run_again(t):
    on()
    n = spawned("disable-postfix")
    eq(state(), OFF)
    before = failures()
    kill_and_run_again("disable-postfix", (
        (SPAWN, n - 5),  # after postconf -X
        (RUNS, n - 5), (SPAWN, n - 4),  # postfix reload: while it runs, and after
        (SPAWN, n), (RUNS, n),  # systemctl disable: before, and while it runs
        ("flock", 2), ("flock", 3), ("ftruncate", 1),  # in the middle of the export
    ), on, "aDb_test", OFF, "a_b_test")
    eq(failures(), before)


# ----------------------------------------------------------------------------- interrupted


class SlowReload:
    """postfix reload waits for /tmp/go."""

    def __enter__(self):
        script = g.out("postconf -h daemon_directory") + "/postfix-script"
        self.script = script
        g.run("rm -f /tmp/go /tmp/reloading; mv {0} {0}.real".format(script))
        g.write(script, "#!/bin/sh\nif [ \"$1\" = reload ]; then touch /tmp/reloading;"
                "until [ -e /tmp/go ]; do sleep 0.1; done; fi\nexec %s.real \"$@\"\n" % script)
        g.run("chmod 755 " + script)

    def __exit__(self, *_):
        g.run("touch /tmp/go; mv {0}.real {0}".format(self.script))


def begin(verb):
    """As at a terminal: a session of its own, in which it is the foreground."""
    g.run("systemctl reset-failed switch.service 2>/dev/null; journalctl --rotate --vacuum-time=1s -q;"
          "systemd-run --quiet --unit=switch /usr/sbin/fflushctl " + verb, check=False)


def interrupt(number="INT"):
    g.run("/bin/kill -%s -- -$(systemctl show -p MainPID --value switch)" % number)


def ended():
    """Its exit status and what it said."""
    g.wait("! systemctl is-active -q switch", "it does not end", timeout=60)
    return int(property_of("switch", "ExecMainStatus")), g.journal("-o cat -u switch")


@test
@after
def an_interrupt_leaves_nothing_half_done(t):
    off()
    send()
    with SlowReload():
        begin("enable-postfix")
        g.wait("test -e /tmp/reloading", "no reload")
        eq(asks(), "fflushd")
        interrupt()
        g.run("touch /tmp/go")
        status, out = ended()
    eq(status, 75, out)
    assert "interrupted: rolling back" in out, out
    eq(state(), OFF)
    send()
    recorded("a_b_test")
    ctl("enable-postfix")
    eq(state(), ON)
    recorded("aDb_test")


@test
@after
def an_interrupt_while_agents_are_waited_for(t):
    off()
    with InFlight("u@a-b.test"):
        begin("enable-postfix")
        g.wait("journalctl -u switch | grep -q 'now uses fflushd'", "not switched")
        interrupt("TERM")
        status, out = ended()
        eq(status, 75, out)
        assert "interrupted: run the same command again" in out, out
        eq(state(), ON)
    ctl("enable-postfix")
    retried()


@test
@after
def two_do_not_switch_at_once(t):
    off()
    with SlowReload():
        begin("enable-postfix")
        g.wait("test -e /tmp/reloading", "no reload")
        assert "being switched already" in ctl("disable-postfix", 75)
        g.run("touch /tmp/go")
        eq(ended()[0], 0)
    eq(state(), ON)


# ------------------------------------------------------------------------- agents in flight

TARPIT = ("import socket, time; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET,"
          " socket.SO_REUSEADDR, 1); s.bind(('127.0.0.1', 2525)); s.listen(); c = s.accept();"
          " time.sleep(1000)")


class InFlight:
    """A delivery to where nobody says a word; it fails at the end."""

    def __init__(self, recipient):
        self.recipient = recipient

    def __enter__(self):
        g.run('systemd-run --quiet --unit=tarpit /usr/bin/python3 -c "%s"' % TARPIT)
        g.wait("ss -ltn | grep -q 127.0.0.1:2525", "no tarpit")
        g.run("printf 'Subject: test\\n\\nhello\\n' | sendmail -f s@guest.test " + self.recipient)
        g.wait("ss -tn | grep -q 127.0.0.1:2525", "no delivery")

    def __exit__(self, *_):
        g.run("systemctl stop tarpit", check=False)
        g.wait("test -s /var/spool/postfix/flush/a_b_test", "not recorded")


@test
@after
def what_agents_of_before_record_is_imported(t):
    """They go on asking flush(8), which has no name of its own for this site."""
    off()
    with InFlight("u@a-b.test"):
        out = ctl("-t 3s enable-postfix", 75)
        assert "1 delivery agents are still busy" in out, out
        eq(state(), ON)
    ctl("enable-postfix")
    retried()


def retried():
    """The queue manager of now does not know how it ended, and tries again: recorded as usual."""
    g.run("postqueue -f")
    g.wait("postqueue -j | grep -q '\"deferred\"'", "not deferred")
    recorded("aDb_test")


@test
@after
def agents_of_before_are_waited_for(t):
    off()
    with InFlight("u@a-b.test"):
        begin("enable-postfix")
        g.wait("journalctl -u switch | grep -q 'now uses fflushd'", "not switched")
        eq(active("switch"), "active")
    eq(ended()[0], 0)
    retried()


@test
@after
def a_reload_is_known_by_who_has_begun_since(t):
    """The setting alone says nothing: somebody has set it and not reloaded."""
    off()
    send()
    g.run("systemctl enable --now fflush.socket fflush-refresh.timer;"
          "postconf -e flush_service_name=fflushd")
    out = ctl("enable-postfix")
    assert "postfix -c /etc/postfix reload" in out and "postconf" not in out, out
    send()
    recorded("aDb_test")
    assert "postfix -c /etc/postfix reload" not in ctl("enable-postfix")
    g.run("postconf -X flush_service_name")
    before = failures()
    out = ctl("disable-postfix")
    assert "postfix -c /etc/postfix reload" in out and "disable --now" in out, out
    send()
    recorded("a_b_test")
    eq(failures(), before)
    g.run("postconf -e queue_run_delay=1001s")  # when that counts is not for us to say
    assert "postfix -c /etc/postfix reload" not in ctl("disable-postfix")


# ----------------------------------------------------------------------- refused, taken back


def untouched(action):
    """It neither changes a file of Postfix nor starts, stops or reloads it."""
    look = ("md5sum /etc/postfix/*.cf; journalctl --sync; journalctl --no-pager -o cat"
            " -t postfix/postfix-script | grep -cE '^(starting|stopping|refreshing)'")
    before = g.out(look)
    out = action()
    eq(g.out(look), before)
    return out


def nothing_left():
    eq(state(), OFF)
    eq(g.out("systemctl list-units --all --no-legend --plain --state=failed 'ff*'"), "")
    eq(g.run("test -e %s" % SOCKET, check=False).returncode, 1)


@test
@after
def a_service_that_fails_its_test_is_taken_back(t):
    off()
    drop_in("fflushd.service", "[Unit]\nStartLimitBurst=2\n[Service]\nExecStart=\n"
            "ExecStart=/bin/false\nRestartSec=100ms\n")
    out = untouched(lambda: g.run("fflushctl enable-postfix 2>&1", check=False))
    assert out.returncode != 0 and "rolling back" in out.stdout, out.stdout
    nothing_left()
    drop_in("fflushd.service", "[Service]\nReadOnlyPaths=/var/spool/postfix/flush\n")
    out = untouched(lambda: ctl("enable-postfix", 69))
    assert "the self-test of fflushd failed" in out and "/flush" in out, out
    nothing_left()
    drop_in("fflushd.service", "[Unit]\nStartLimitBurst=2\n[Service]\nExecStart=\n"
            "ExecStart=/bin/false\nRestartSec=100ms\n")
    # What was so before stays so.
    g.run("systemctl enable fflush-refresh.timer")
    assert g.run("fflushctl enable-postfix", check=False).returncode != 0
    eq(g.out("systemctl is-enabled %s || true" % " ".join(UNITS)).split(), ["disabled", "enabled"])
    g.run("rm -r /etc/systemd/system/fflushd.service.d; systemctl daemon-reload")
    ctl("enable-postfix")
    eq(state(), ON)


@test
@after
def a_client_that_gets_no_answer_is_set_back(t):
    off()
    send()
    g.run("mount --bind /bin/false /usr/sbin/postqueue")
    try:
        r = g.run("fflushctl enable-postfix 2>&1", check=False)
    finally:
        g.run("umount /usr/sbin/postqueue")
    assert r.returncode == 69 and "rolling back" in r.stdout, r.stdout
    nothing_left()
    send()
    recorded("a_b_test")


@test
@after
def with_postfix_stopped_it_imports_as_well(t):
    off()
    send()
    recorded("a_b_test")
    g.run("postfix stop")
    out = ctl("enable-postfix")
    assert "1 record added" in out and "Postfix is not running" in out, out
    assert "1 already there" in ctl("enable-postfix")
    g.run("systemctl restart postfix")
    recorded("aDb_test")
    send()
    recorded("aDb_test")
    g.run("postfix stop")
    ctl("disable-postfix")
    eq(state(), OFF)
    g.run("systemctl restart postfix")
    recorded("a_b_test")


# --------------------------------------------------------------------------------- odd hosts


def write_what_it_says(out):
    """The drop-ins of a refusal, to the letter."""
    parts = re.split(DROP_IN, out, flags=re.M)
    for path, text in zip(parts[1::2], parts[2::2]):
        g.write(path, text.lstrip("\n"))
    g.run("systemctl daemon-reload")
    return parts[1::2]


def works(queue):
    """The switch, an add, a refresh, and back."""
    send()
    ctl("enable-postfix")
    ids = deferred()
    eq(set(g.out("cat %s/flush/aDb_test" % queue).split()), ids)
    g.run("systemctl start fflush-refresh.service fflush-purge.service")
    g.run("postqueue -s a-b.test")
    ctl("disable-postfix")
    eq(state(), OFF)


class Moved:
    """The queue is elsewhere; @link: what main.cf names leads there."""

    def __init__(self, place, link):
        self.place, self.link = place, link

    def __enter__(self):
        off()
        g.run("postfix stop; rm -rf {0}; mkdir -p $(dirname {0}); cp -a /var/spool/postfix {0}; "
              "mv /var/spool/postfix /var/spool/kept".format(self.place))
        g.run("ln -s %s /var/spool/postfix" % self.place if self.link else
              "postconf -e queue_directory=" + self.place)
        g.run("systemctl restart postfix")

    def __exit__(self, *_):
        g.run("postfix stop; postconf -X queue_directory; rm -rf %s; rm -f /var/spool/postfix;"
              "mv /var/spool/kept /var/spool/postfix; systemctl restart postfix" % self.place)


@test
@after
def a_queue_directory_may_be_written_in_any_way(t):
    for written in ("/var/spool/postfix/", "/var/spool//postfix", "//var/spool/./postfix//"):
        off()
        g.run("postconf -e queue_directory=%s; postfix reload" % written)
        try:
            works("/var/spool/postfix")
        finally:
            g.run("postconf -X queue_directory; postfix reload")
    with Moved("/srv/mail/spool", link=True):
        works("/srv/mail/spool")


@test
@after
def a_queue_that_the_units_do_not_fit_is_refused_with_what_to_write(t):
    for place, link, words in (
            ("/home/mail/spool", True, ["ProtectHome= hides /home/mail/spool from fflushd.service",
                                        "ProtectHome= hides /home/mail/spool from fflush-refresh"]),
            ("/var/tmp/a/spool", True, ["PrivateTmp= hides /var/tmp/a/spool from fflushd.service"]),
            ("/srv/queue", False, ["fflush.socket does not listen on /srv/queue/public/fflushd",
                                   "fflushd.service may not write /srv/queue"]),
            ("/home/queue", False, ["ProtectHome= hides /home/queue from fflushd.service",
                                    "fflush.socket does not listen on /home/queue/public"])):
        with Moved(place, link):
            out = untouched(lambda: ctl("enable-postfix", 78))
            for text in words:
                assert text in out, (text, out)
            eq(state(), OFF)
            assert write_what_it_says(out), out
            works(place)


def give_mail(user, group, to_user, to_group):
    """As "postfix set-permissions", which fails here for want of manual pages."""
    g.run("postfix stop; postconf -e mail_owner={2} setgid_group={3};"
          "touch -d '1 minute ago' /etc/postfix/main.cf;"
          "for d in /var/spool/postfix /var/lib/postfix /usr/sbin/postdrop /usr/sbin/postqueue; do"
          " find $d -user {0} -exec chown -h {2} {{}} +; find $d -group {1} -exec chgrp -h {3} {{}} +;"
          " done; chmod g+s /usr/sbin/postdrop /usr/sbin/postqueue;"
          "systemctl restart postfix; postfix status".format(user, group, to_user, to_group))


@test
@after
def the_mail_may_be_of_another_user_and_group(t):
    off()
    g.run("groupadd maildrop; useradd -r -s /bin/false mailman")
    give_mail("postfix", "postdrop", "mailman", "maildrop")
    g.run("groupmod -n nopostdrop postdrop")
    try:
        out = untouched(lambda: ctl("enable-postfix", 78))
        for text in ("fflushd.service runs as postfix (User=), but the mail is"
                     " mailman's", "fflush.socket makes its socket for postfix (SocketUser=)"):
            assert text in out, out
        eq(state(), OFF)
        write_what_it_says(out)
        works("/var/spool/postfix")
    finally:
        off()
        g.run("groupmod -n postdrop nopostdrop")
        give_mail("mailman", "maildrop", "postfix", "postdrop")
        g.run("userdel mailman; groupdel maildrop", check=False)


# ---------------------------------------------------------------------------------- instances


@test
@after
def hints_name_the_instance(t):
    off()
    g.run("postmulti -e init; rm -rf /etc/postfix-b /var/spool/postfix-b /var/lib/postfix-b;"
          "postmulti -I postfix-b -G mta -e create;"
          "postconf -c /etc/postfix-b -MX smtp/inet; postconf -c /etc/postfix-b -e"
          " master_service_disable= fast_flush_domains=; postmulti -i postfix-b -e enable;"
          "postmulti -i postfix-b -p start")
    try:
        out = ctl("-i postfix-b enable-postfix", 69)
        assert "fast_flush_domains is empty" in out, out
        eq(ctl("-n -i postfix-b enable-postfix", 69), out)
        g.run("! systemctl -q is-enabled fflush@postfix-b.socket")
        assert re.search("postconf -c '?/etc/postfix-b'? -e fast_flush_domains=static:all", out), out
        g.run("postconf -c /etc/postfix-b -e fast_flush_domains=static:all")
        out = ctl("-i postfix-b enable-postfix")
        assert "To switch back: fflushctl -i postfix-b disable-postfix\n" in out, out
        eq(asks(), "flush")
        of_b = "cat /proc/$(pgrep -P $(cat /var/spool/postfix-b/pid/master.pid) -x qmgr)/stat"
        before = g.out(of_b)
        ctl("enable-postfix")  # which has Postfix reload this one only
        eq(g.out(of_b), before)
        g.run("postmulti -i postfix-b -p stop")
        ctl("disable-postfix")  # and is not kept from it by one that does not run
        eq((asks(), state()), ("flush", OFF))
        ctl("-i postfix-b disable-postfix")
        g.run("postconf -c /etc/postfix-b -e flush_service_name=other")
        assert "(postconf -c /etc/postfix-b -X flush_service_name)" in ctl(
            "-i postfix-b enable-postfix", 78)
        g.run("systemctl stop fflush@postfix-b.socket")
        assert "is fflush@postfix-b.socket started?" in ctl("-i postfix-b flush x.test", 69)
    finally:
        g.run("postmulti -i postfix-b -p stop; postmulti -i postfix-b -e disable;"
              "postmulti -i postfix-b -e destroy; postmulti -e deinit; rm -rf /var/spool/postfix-b;"
              "touch -d '1 minute ago' /etc/postfix/main.cf; postfix reload",
              check=False)


@test
@after
def a_daemon_of_no_instance_serves_nothing(t):
    clean()
    before = g.out("find /var/spool/postfix -newer /etc/hostname -path '*/flush/*' | sort")
    g.run("rm -f /tmp/nosuch.sock; systemd-run --quiet --unit=nosuch -p User=postfix systemd-socket-activate"
          " -l /tmp/nosuch.sock fflushd --instance nosuch")
    try:
        g.wait("test -S /tmp/nosuch.sock", "no socket")
        for words in ("add x.test A1", "send_site x.test"):
            assert "4294967295" in g.out(TOOLS + "ask /tmp/nosuch.sock " + words)
    finally:
        g.run("systemctl stop nosuch", check=False)
    eq(g.out("find /var/spool/postfix -newer /etc/hostname -path '*/flush/*' | sort"), before)
    for words in ("flush x.test", "purge", "list", "status", "verify", "metrics", "enable-postfix"):
        assert "no such instance: /etc/nosuch/main.cf" in ctl("-i nosuch " + words, 66)
