#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What does a mail host gain? A booted Debian with a real Postfix, which asks flush(8), fflushd, or
nobody (an empty fast_flush_domains), in turns: A B C, C B A, ...

Needs what tests/booted needs: root, mmdebstrap and systemd-container. The queue is in memory, so the
times are Postfix's own, without a disk. CPU is that of all of the guest, and of the flush service.
"""

import argparse
import json
import os
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../tests/booted"), os.path.join(HERE, "../tests/lib")]

import guest
from booted import g, prepare

MODES = {"none": "fast_flush_domains=", "flush(8)": "flush_service_name=flush", "fflushd":
         "flush_service_name=fflushd"}
STORMS = [(3000, 10), (3000, 1000), (20000, 10), (20000, 1000)]  # messages, destinations
WAITING = 10000  # for the destination that is back, and as many for those that are not
SINGLE = 500  # postqueue -i


def choose(mode):
    g.run("postconf -e fast_flush_domains=static:all; postconf -e '%s';"
          " systemctl stop postfix fflushd; rm -rf /var/spool/postfix/flush/*;"
          " systemctl start postfix" % MODES[mode])


def ask(*words):
    return json.loads(g.out("python3 /opt/mailload.py " + " ".join(map(str, words)), timeout=900))


class Results:
    def __init__(self):
        self.values = {}  # (figure, unit): {mode: [values]}

    def add(self, mode, figure, unit, value):
        self.values.setdefault((figure, unit), {}).setdefault(mode, []).append(value)

    def table(self):
        lines = ["%-58s %10s %10s %10s" % ("figure", *MODES)]
        for (figure, unit), by_mode in self.values.items():
            cells = ["%.3g %s" % (statistics.median(by_mode[m]), unit) if m in by_mode else "-"
                     for m in MODES]
            lines.append("%-58s %10s %10s %10s" % (figure, *cells))
        return "\n".join(lines)


def in_turns(rounds, modes):
    for n in range(rounds):
        yield from modes if n % 2 == 0 else reversed(modes)


def measure_storms(results, rounds, storms):
    """All are deferred already; they are tried, refused, and deferred again."""
    for messages, destinations in storms:
        choose("none")
        ask("fill", messages, destinations)
        name = "storm, %d messages for %d destinations" % (messages, destinations)
        for mode in in_turns(rounds, list(MODES)):
            choose(mode)
            got = ask("storm", messages)
            results.add(mode, name + ": all deferred", "s", got["wall"])
            results.add(mode, name + ": CPU, host", "s", got["host"])
            if mode != "none":
                results.add(mode, name + ": CPU, flush service", "s", got["service"])
        g.run("postsuper -d ALL 2>/dev/null")


def measure_returns(results, rounds, waiting):
    for mode in in_turns(rounds, ["flush(8)", "fflushd"]):
        for how in ("ETRN", "postqueue -f"):
            choose(mode)
            ask("fill", waiting, 10)
            ask("fill-back", waiting)
            got = ask("return", how.split()[0], waiting)
            name = "%d wait, and as many for others: %s" % (waiting, how)
            results.add(mode, name + ", first", "s", got["first"])
            results.add(mode, name + ", last", "s", got["last"])
            g.run("postsuper -d ALL 2>/dev/null")


def measure_single(results, rounds, n):
    for mode in in_turns(rounds, ["flush(8)", "fflushd"]):
        choose(mode)
        ask("fill", n, 10)
        results.add(mode, "postqueue -i for %d messages" % n, "s", ask("single", n)["wall"])
        g.run("postsuper -d ALL 2>/dev/null")


def set_up():
    prepare()
    with open(os.path.join(HERE, "mailload.py")) as f:
        g.write("/opt/mailload.py", f.read())
    g.run("python3 /opt/mailload.py set-up; systemctl start fflush.socket", timeout=300)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if guest.missing():
        print("bench: no real Postfix is measured: " + guest.missing())
        return
    rounds, scale = (1, 10) if args.quick else (args.rounds, 1)
    results = Results()
    g.boot()
    try:
        set_up()
        measure_storms(results, rounds, STORMS[:2] if args.quick else STORMS)
        measure_returns(results, rounds, WAITING // scale)
        measure_single(results, rounds, SINGLE // scale)
    finally:
        g.close()
        print(results.table())


if __name__ == "__main__":
    main()
