# SPDX-License-Identifier: MIT
"""One booted guest with fflushd and a real Postfix, for tests of the units (it-systemd.py).

Everything happens in that guest, g, which has the project built and installed from these sources.
$FFLUSHD_SUITE: the release, bookworm unless it is set. Cases stand in modules beside it-systemd.py,
named booted_*.py, one for each subject; it-systemd.py imports and runs them.
"""

import fcntl
import json
import os
import re
import subprocess

import guest
from basics import TOP
from harness import before

SUITE = os.environ.get("FFLUSHD_SUITE", "bookworm")
SOCKET = "/var/spool/postfix/public/fflushd"
TOOLS = "python3 /opt/mailhost.py "


class Later:
    """Stands for the guest: modules import it before the guest is booted."""

    guest = None

    def boot(self):
        self.guest = guest.Guest(SUITE)

    def __getattr__(self, name):
        return getattr(self.guest, name)


g = Later()


def build():
    """As the README says, but out of the tree and with warnings as errors."""
    tar = subprocess.run(["tar", "-c", "-C", TOP, "--exclude=.git", "--exclude=./build*",
                          "--exclude=./fflushd-*", "."], capture_output=True, check=True)
    g.run("mkdir /src && tar -x -C /src --no-same-owner", input=tar.stdout)
    g.run("cd /src && rm -f config.status config.h Makefile && autoreconf -fi 2>&1 &&"
          " mkdir /build && cd /build && /src/configure -q --prefix=/usr --sysconfdir=/etc"
          " CFLAGS='-O2 -g -Werror' && make -s -j2 2>&1", timeout=600)


def build_once(kept):
    """The guests of one run share what the first of a release has built."""
    path = os.path.join(kept, SUITE + ".tar")
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            build()
            tar = g.run("tar -c -C / src build", text=False)
            with open(path, "wb") as f:
                f.write(tar.stdout)
            return
    with open(path, "rb") as f:
        g.run("tar -x -C / --no-same-owner", input=f.read())


def prepare():
    """Install fflushd, and set Postfix up."""
    kept = os.environ.get("FFLUSHD_GUEST_BUILDS")
    if kept:
        build_once(kept)
    else:
        build()
    g.run("mkdir -p /opt; make -C /build -s install")
    with open(os.path.join(TOP, "tests/lib/mailhost.py")) as f:
        g.write("/opt/mailhost.py", f.read())
    for unit in ("postfix.service", "postfix@.service"):  # we restart it all the time
        g.write("/etc/systemd/system/%s.d/test.conf" % unit, "[Unit]\nStartLimitIntervalSec=0\n")
    g.run("systemctl daemon-reload; journalctl --update-catalog 2>/dev/null || true")
    g.run("postconf -e fast_flush_domains=static:all queue_run_delay=1000s"
          " minimal_backoff_time=1000s maximal_backoff_time=1000s smtp_connect_timeout=5s"
          " transport_maps=inline:{down.test=smtp:[127.0.0.1]:2525,other.test=smtp:[127.0.0.1]:2526,"
          "a-b.test=smtp:[127.0.0.1]:2525,a.b.test=smtp:[127.0.0.1]:2525} && systemctl restart postfix")


def readme(section):
    """The commands of a section of the README, in order."""
    with open(os.path.join(TOP, "README")) as f:
        text = f.read()
    body = re.search(r"\n%s\n-+\n(.*?)\n\n\n" % re.escape(section), text, re.S).group(1)
    return [line.strip() for line in body.split("\n") if line.startswith("    ")]


def switch_over():
    for command in readme("Switch over"):
        if "@" not in command:
            g.run(command)


def drop_in(unit, text):
    g.write("/etc/systemd/system/%s.d/test.conf" % unit, text)
    g.run("systemctl daemon-reload")


@before
def every_destination_is_listed():
    """Whatever a test that failed has left in main.cf."""
    g.run("test \"$(postconf -h fast_flush_domains)\" = static:all ||"
          " { postconf -e fast_flush_domains=static:all && touch -d '1 minute ago' /etc/postfix/main.cf &&"
          " postfix reload; }", check=False)


def clean():
    """As after the switch-over, whatever the last test did."""
    units = "fflush.socket fflushd.service fflush-refresh.timer fflush-refresh.service"
    g.run("rm -rf /etc/systemd/system/ff*.d /etc/fflushd; systemctl daemon-reload;"
          "systemctl stop %s; for u in %s; do systemctl reset-failed $u 2>/dev/null; done;"
          "rm -rf /var/spool/postfix/flush/*; systemctl start fflush.socket fflush-refresh.timer"
          % (units, units))


def load(n, clients, sites=1):
    """Adds of messages that do not exist, whose records a refresh would take out again; the timer asks
    for one as soon as it is started, if the last was long ago."""
    g.run("systemctl stop fflush-refresh.timer fflush-refresh.service")
    return json.loads(g.out(TOOLS + "load %s %d %d %d" % (SOCKET, n, clients, sites), timeout=300))


def ask(*args, background=False):
    command = TOOLS + "ask %s %s" % (SOCKET, " ".join(args))
    if background:
        g.run("(%s) > /tmp/answer 2>&1 &" % command)
        return None
    return g.out(command)


def property_of(unit, name):
    return g.out("systemctl show -P %s %s 2>/dev/null || systemctl show -p %s --value %s"
                 % (name, unit, name, unit))


def active(unit):
    return g.run("systemctl is-active " + unit, check=False).stdout.strip()


def main_pid():
    return int(property_of("fflushd.service", "MainPID"))


def records(name="site0_test"):
    return g.out("cat /var/spool/postfix/flush/%s 2>/dev/null || true" % name).split()


def journal(options=""):
    return g.journal("-o cat -t postfix/fflushd " + options)
