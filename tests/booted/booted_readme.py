# SPDX-License-Identifier: MIT
"""What README shows is what an operator sees: each command after a "#", in order, prints what is below it."""

import os
import re

from basics import TOP, eq
from booted import TOOLS, clean, g
from harness import test

DELIVERED, RETURNED, DEFERRED, DELETED = 285, 3, 22, 2
SINK = "systemd-run --quiet --unit=readme-sink /usr/bin/%ssink 2525 /tmp/received" % TOOLS


def screens():
    """[(command, lines)]"""
    found, inside = [], False
    with open(os.path.join(TOP, "README")) as f:
        for line in f.read().splitlines():
            if line.startswith("    # "):
                found.append((line[6:], []))
            elif inside and line.startswith("    "):
                found[-1][1].append(line[4:])
            inside = bool(found) and line.startswith("    # ") or inside and line.startswith("    ")
    return found


def plain(line):
    """Without what differs from run to run: queue IDs, times, ages, process IDs, width of columns."""
    for pattern, word in ((r"\b[0-9A-F]{6,}\b", "ID"), (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
                          (r"\b\d+(s|min|h|d)\b", "AGE"), (r" 3\d\d ", " SIZE "), (r"pid \d+", "pid N"),
                          (" +", " ")):
        line = re.sub(pattern, word, line)
    return line.strip()


def defer(n, user):
    g.run("smtp-source -m %d -s 4 -f shop@example.net -t %s@example.com 127.0.0.1:25" % (n, user))


def deferred():
    return "$(find /var/spool/postfix/deferred -type f -printf '%f\\n' | sort)"


@test
def the_screens_of_the_readme_are_real(t):
    clean()
    before = g.out("postconf -h transport_maps")
    g.run("postsuper -d ALL 2>&1; rm -f /tmp/received; grep -q mx.example.com /etc/hosts ||"
          " echo 127.0.0.1 mx.example.com >> /etc/hosts; cp /etc/hosts /var/spool/postfix/etc/;"
          " postconf -e 'transport_maps=inline:{example.com=smtp:[mx.example.com]:2525,example.net=discard:}'"
          " smtp_host_lookup=native default_destination_concurrency_failed_cohort_limit=0;"
          " systemctl restart postfix")
    try:
        for n, user in (DELIVERED + DELETED, "ok"), (RETURNED, "gone"), (DEFERRED, "full"):
            defer(n, user)
        total = DELIVERED + DELETED + RETURNED + DEFERRED
        g.wait("test $(find /var/spool/postfix/deferred -type f | wc -l) = %d" % total, "not deferred")
        g.run("fflushctl flush --wait example.com", check=False)
        g.run("fflushctl refresh; fflushctl import;"
              " grep -l ok@ -r /var/spool/postfix/deferred | head -n %d | xargs -n1 basename |"
              " postsuper -d -" % DELETED)
        g.run(SINK)
        g.wait("test -e /tmp/received", "no sink")
        for command, lines in screens():
            for example in re.findall(r"\b[0-9A-F]{6,}\b", command):
                command = command.replace(example, "$(set -- %s; echo $1)" % deferred())
            g.wait("test -z \"$(find /var/spool/postfix/incoming /var/spool/postfix/active -type f)\" &&"
                   " journalctl --sync", "mail stays on its way")
            got = g.run(command, check=False).stdout.splitlines()
            eq([plain(line) for line in got], [plain(line) for line in lines], "\n".join([command] + got))
    finally:
        g.run("systemctl stop readme-sink; postsuper -d ALL 2>&1; postconf -X smtp_host_lookup"
              " default_destination_concurrency_failed_cohort_limit; postconf -e 'transport_maps=%s';"
              " systemctl restart postfix" % before, check=False)
