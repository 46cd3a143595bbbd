# SPDX-License-Identifier: MIT
"""The recipes of doc/operating.md, as they are in the file, one after the other."""

import os
import re

from basics import TOP, eq
from booted import TOOLS, g
from booted_health import begin
from booted_history import history, now
from harness import test


def recipes():
    """Title and commands of each block that is run."""
    with open(os.path.join(TOP, "doc/operating.md")) as f:
        text = f.read()
    return [(title, block) for title, body in re.findall(r"\n## (.*)\n((?:(?!\n## )[^\0])*)", text)
            for block in re.findall(r"```sh\n(.*?)```", body, re.S)]


def send(*recipients):
    for r in recipients:
        g.run("printf 'Subject: test\\n\\nhello\\n' | sendmail -f sender@guest.test " + r)


def wait_recorded(*names):
    for name in names:
        g.wait("test -s /var/spool/postfix/flush/%s && fflushctl list | grep -q '[1-9]'" % name,
               "nothing is recorded", show="postqueue -j; fflushctl list")


@test
def operating_each_recipe_does_what_it_says(t):
    begin()
    before = g.out("postconf -h transport_maps")
    g.run("postsuper -d ALL 2>&1; rm -f /tmp/kept;"
          " postconf -e 'transport_maps=inline:{customer.example=smtp:[127.0.0.1]:2525,"
          "provider.example=smtp:[127.0.0.1]:2525,"
          "slow.example=smtp:[127.0.0.1]:2526}' && postfix reload")
    try:
        send("u@customer.example", "u@provider.example", "u@slow.example")
        wait_recorded("customer_example", "provider_example", "slow_example")
        g.run("systemd-run -q --unit sink " + TOOLS + "sink 2525 /tmp/kept")
        g.wait("ss -ltn | grep -q :2525", "no sink")
        g.run("fflushctl refresh")
        begun, shown = now(), {}
        for title, block in recipes():
            shown[title] = shown.get(title, "") + g.out("set -e\n" + block)
        eq(sorted(g.out("cat /tmp/kept").split()), ["u@customer.example", "u@provider.example"])
        assert "ticket 4711" in shown["Who flushed what?"], shown
        # Nothing was left for the later ones to ask for.
        eq({f["reason"] for f in history("--since '%s'" % begun)} & {"throttled", "ticket 4711"},
           {"throttled", "ticket 4711"}, shown)
        assert "flush-provider" in shown["A run that goes on after logout"], shown
        assert shown["Alerts"].startswith("FFLUSHD OK"), shown
        assert shown["Icinga"].startswith("FFLUSHD OK"), shown
        moved = shown["Moving the queue to another disk"]
        assert re.search(r"^1 deferred message: ", moved, re.M), moved
        for several in ("*", "a[bc].test", "\\x2a", "-", "--all", ""):
            r = g.run("flush-customer '%s' 1" % several, check=False)
            eq((several, r.returncode, r.stderr), (several, 64, "one destination only\n"))
        send("u@slow.example")
        wait_recorded("slow_example")
    finally:
        g.run("systemctl stop sink; postsuper -d ALL 2>&1; systemctl disable --now fflush-metrics.timer;"
              " postconf -e 'transport_maps=%s'; postfix reload" % before, check=False)
