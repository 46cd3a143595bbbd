# SPDX-License-Identifier: MIT
"""The machine: what it is, what its processes use, and how to wait until others leave it alone."""

import os
import platform
import re
import subprocess
import time

from postfix import postfix_default

FOREIGN_MAX = 0.20  # CPUs that others may use during a measurement
TRIES = 3


def proc(pid, name):
    try:
        with open("/proc/%s/%s" % (pid, name), errors="replace") as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def processes():
    """{pid: (parent, CPU seconds of it and of its children that have ended)}"""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        fields = proc(pid, "stat").rpartition(")")[2].split()
        if fields:
            ticks = sum(int(f) for f in fields[11:15])
            found[int(pid)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")
    return found


def descendants(pid, table=None):
    children = {}
    for p, (parent, _) in (table or processes()).items():
        children.setdefault(parent, []).append(p)
    found = [pid]
    for p in found:
        found += children.get(p, [])
    return found


def cpu_seconds():
    """(all that the machine has worked, what of it was ours); the kernel's threads work for us."""
    with open("/proc/stat") as f:
        user, nice, system, _, _, irq, softirq, steal = map(int, f.readline().split()[1:9])
    table = processes()
    ours = sum(table[p][1] for top in (os.getpid(), 2) for p in descendants(top, table)
               if p in table)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"), ours


class Foreign:
    """CPUs that others use while it is entered."""

    def __enter__(self):
        self.start, self.before = time.monotonic(), cpu_seconds()
        return self

    def __exit__(self, *_):
        after, seconds = cpu_seconds(), time.monotonic() - self.start
        used, ours = (b - a for a, b in zip(self.before, after))
        self.share = max(0.0, (used - ours) / seconds)


class Patience:
    """Waits for a quiet machine and repeats what was disturbed, as long as there is time for it."""

    def __init__(self, seconds):
        self.left = seconds

    def wait(self):
        while self.left > 0:
            with Foreign() as foreign:
                time.sleep(0.15)
            if foreign.share <= FOREIGN_MAX:
                return
            self.left -= 0.15

    def measure(self, function):
        """(the least disturbed of its results, the share of others in it)"""
        best = None
        for _ in range(TRIES):
            self.wait()
            start = time.monotonic()
            with Foreign() as foreign:
                result = function()
            if best is None or foreign.share < best[1]:
                best = result, foreign.share
            if foreign.share <= FOREIGN_MAX or self.left <= 0:
                break
            self.left -= time.monotonic() - start
        return best


def describe(directory, fflushd):
    """What the figures depend on."""
    cpu = re.search(r"model name\s*:\s*(.*)", proc("self", "../cpuinfo"))
    memory = int(re.search(r"MemTotal:\s+(\d+)", proc("self", "../meminfo"))[1])
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', open("/etc/os-release").read(), re.M))
    best = ("", "", "")
    for line in proc("self", "mountinfo").splitlines():
        fields, _, kind = line.partition(" - ")
        point = fields.split()[4]
        if (directory + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = point, kind.split()[0], fields.split()[5] + "," + kind.split()[2]
    version = subprocess.run([fflushd, "--version"], capture_output=True, text=True, check=True)
    return {
        "cpu": "%d x %s" % (os.cpu_count(), cpu[1] if cpu else platform.machine()),
        "memory": "%.0f GiB" % (memory / 2**20),
        "system": "%s, Linux %s" % (release.get("PRETTY_NAME", "?"), os.uname().release),
        "file_system": "%s on %s (%s)" % (best[1], best[0],
                                          ",".join(dict.fromkeys(best[2].split(",")))),
        "original": "Postfix %s flush(8), max_use=100, max_idle=100s" % postfix_default("mail_version"),
        "fflushd": version.stdout.strip(),
        "load_average": proc("self", "../loadavg").split()[0],
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }
