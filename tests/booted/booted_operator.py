# SPDX-License-Identifier: MIT
"""What an administrator meets in a day's work: that each message is true, is enough to act on, and
comes when it is asked for."""

import re

from basics import eq
from booted import g, journal
from booted_health import UNAVAILABLE, begin, check, is_green, status
from harness import test


def reasons(found):
    return [(f["check"], f["result"]) for f in found["findings"]]


@test
def operator_a_configuration_that_cannot_be_read_is_named(t):
    """By its reason, and nobody is told to wait for what does not come."""
    begin()
    for prepare in "true", "systemctl stop fflushd":
        g.run(prepare + "; chmod 700 /etc/postfix")
        try:
            code, s = status("--timeout 30")
            eq((code, reasons(s)), (UNAVAILABLE, [("settings", "failed")]), s)
            eq(s["findings"][0]["remedy"], "chmod 755 '/etc/postfix'")
        finally:
            g.run("chmod 755 /etc/postfix")
        is_green()


@test
def operator_an_error_in_main_cf_is_named(t):
    begin()
    g.run("cp -p /etc/postfix/main.cf /root/main.cf")
    for prepare in "true", "systemctl stop fflushd":
        g.run(prepare + "; echo oh >> /etc/postfix/main.cf; echo ' my' >> /etc/postfix/main.cf;"
              "echo word >> /etc/postfix/main.cf")
        try:
            code, s = status("--timeout 30")
            eq((code, reasons(s)), (UNAVAILABLE, [("settings", "failed"), ("postfix", "warning")]), s)
            assert "missing '='" in s["findings"][0]["reason"], s
            assert "postconf -c '/etc/postfix'" in s["findings"][0]["remedy"], s
            code, line = check()
            assert code == 2 and "missing '='" in line, line
        finally:
            g.run("cp -p /root/main.cf /etc/postfix/main.cf")
        is_green()


@test
def operator_an_edit_breaks_nothing(t):
    """A refresh that ends before the new configuration is read tells nothing of the service, which
    would be shown as broken until the next one."""
    begin()
    g.run("postconf -e smtp_helo_timeout=299s; systemctl start fflush-refresh")
    try:
        g.run("fflushctl metrics | grep -qx 'fflushd_healthy 1'")
        assert "not yet read" not in journal(), journal()
    finally:
        g.run("postconf -X smtp_helo_timeout")
    is_green()


@test
def operator_each_thing_is_said_once(t):
    begin()
    g.run("systemctl stop fflush.socket")
    code, s = status()
    eq((code, reasons(s)), (UNAVAILABLE, [("socket", "failed"), ("refresh", "failed")]), s)
    eq(s["findings"][0]["remedy"], "systemctl start fflush.socket")
    g.run(s["findings"][0]["remedy"])
    is_green()
    g.run("fflushctl disable-postfix")
    code, s = status()
    eq((code, reasons(s)), (UNAVAILABLE, [("postfix", "failed")]), s)
    eq(s["findings"][0]["remedy"], "fflushctl enable-postfix")
    g.run(s["findings"][0]["remedy"])
    is_green()


@test
def operator_the_last_refresh_is_whoever_asked_for_it(t):
    begin()
    g.run("systemctl stop fflush-refresh.timer; rm -f /var/lib/fflushd/postfix/counters;"
          " systemctl stop fflushd; systemctl start fflush-refresh.timer")
    assert "not yet run" in g.out("fflushctl status"), g.out("fflushctl status")
    g.run("fflushctl refresh")
    text = g.out("fflushctl status")
    assert re.search("^Refresh .*, last \\S+ ago$", text, re.M), text
    last = status()[1]["last_refresh"]
    assert last > 0
    g.run("systemctl restart fflush-refresh.timer")
    eq(status()[1]["last_refresh"], last)
