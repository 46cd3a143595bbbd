#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Endurance: mixed requests over many activations, against a model (tests/integration/soak.c).

FFLUSHD_SOAK is the number of requests; 10000000 is the long form, with some progress on the way.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import BUILD, as_user, eq, wait_for
from client import REFRESH
from harness import SEED, main, test

N = int(os.environ.get("FFLUSHD_SOAK", 40000))
CLIENTS = 8
ACTIVATIONS = 300 if N >= 1000000 else 8
IDLE = 3  # activations that end because nobody comes
GROWTH_MAX = 4 << 20  # bytes, from the first tenth of a life to its end
SAMPLE_SECONDS = 0.05 if N < 1000000 else 0.5


class Watch:
    """Starts the daemon again whenever it has left, as systemd does; looks at its size meanwhile."""

    def __init__(self, daemon):
        self.daemon, self.lives, self.failures = daemon, [[]], []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.thread.join()
        # A daemon that still starts cannot be told to stop, one that has left does not answer.
        if self.daemon.process.poll() is not None:
            self.daemon.start()
        self.daemon.exchange(REFRESH)

    def run(self):
        last = 0.0
        while not self.ended.is_set():
            code = self.daemon.process.poll()
            if code is None:
                if time.monotonic() - last > SAMPLE_SECONDS:
                    last = time.monotonic()
                    self.sample()
                time.sleep(0.005)
                continue
            if code != 0:
                self.failures.append("exit status %d" % code)
                return
            self.lives.append([])
            self.daemon.start()

    def sample(self):
        proc = "/proc/%d/" % self.daemon.process.pid
        try:
            with open(proc + "comm") as f:
                if f.read() != "fflushd\n":
                    return  # still the shell that starts it
            with open(proc + "smaps_rollup") as f:
                pss = next(int(line.split()[1]) << 10 for line in f if line.startswith("Pss:"))
            self.lives[-1].append((pss, len(os.listdir(proc + "fd"))))
        except (OSError, StopIteration):
            pass  # it has just left


def soak(daemon, spool, n, part):
    program = os.path.join(daemon.bin, "soak")  # of a build that the daemon's user may not reach
    if not os.path.exists(program):
        shutil.copy(os.path.join(BUILD, "tests/integration/soak"), program)
    command = [program, daemon.socket_path, spool.path, str(n),
               str(CLIENTS), str((SEED + part) % (1 << 32))]
    r = subprocess.run(command, capture_output=True, text=True, **as_user())
    eq(r.returncode, 0, r.stderr + daemon.stderr()[-2000:])
    return json.loads(r.stdout)


def in_parts(daemon, spool, watch, n, parts, seed=0):
    """Progress, where it takes long."""
    for i in range(parts):
        told = soak(daemon, spool, n // parts, seed + i)
        eq(watch.failures, [])
        if N >= 1000000:
            print("# %d of %d, activation %d: %s" % ((i + 1) * n // parts, n, len(watch.lives), told),
                  flush=True)


def has_sanitizer(daemon):
    with open("/proc/%d/maps" % daemon.process.pid) as f:
        return "asan" in f.read()


@test
def one_long_life_stays_small(case):
    """Half of all requests, without an exit: memory and descriptors at the end as near the start."""
    spool, daemon = make(case)
    with Watch(daemon) as watch:
        in_parts(daemon, spool, watch, N // 2, 10 if N >= 1000000 else 1)
        sanitizer = has_sanitizer(daemon)
        idle_fds = len(os.listdir("/proc/%d/fd" % daemon.process.pid))
    eq(len(watch.lives), 1)
    life = watch.lives[0]
    early = max(pss for pss, _ in life[:max(len(life) // 10, 3)])
    late = max(pss for pss, _ in life[-max(len(life) // 10, 3):])
    print("# %d requests: %.1f MiB at most early, %.1f MiB at the end; at most %d descriptors, %d idle"
          % (N // 2, early / 2**20, late / 2**20, max(fds for _, fds in life), idle_fds))
    if late > early + GROWTH_MAX and not sanitizer:
        raise AssertionError("it grows")
    if max(fds for _, fds in life) > idle_fds + 2 * CLIENTS + 8:
        raise AssertionError("descriptors: %r" % life[-1:])


@test
def many_activations_lose_nothing(case):
    """The other half, over many lives that end by max_use or because nobody comes."""
    spool, daemon = make(case, max_use=str(max(N // 2 // ACTIVATIONS, 1)), max_idle="1s")
    with Watch(daemon) as watch:
        for i in range(IDLE):
            in_parts(daemon, spool, watch, N // 2 // IDLE, 5 if N >= 1000000 else 1, 100 * i)
            n = len(watch.lives)
            wait_for(lambda: len(watch.lives) > n, "no idle exit")
    eq(watch.failures, [])
    sizes = [max(pss for pss, _ in life) for life in watch.lives if life]
    print("# %d activations; the largest %.1f MiB, the smallest %.1f MiB" %
          (len(watch.lives), max(sizes) / 2**20, min(sizes) / 2**20))
    if len(watch.lives) < ACTIVATIONS * 9 // 10:
        raise AssertionError("%d activations" % len(watch.lives))
    eq(spool.files("incoming") + spool.files("deferred") + spool.files("hold"), [])


def make(case, **settings):
    return case.make(activation="hold", fast_flush_domains="!denied.example static:all",
                     env={"SYSTEMD_LOG_LEVEL": "err"}, **settings)


if __name__ == "__main__":
    if not os.path.exists(os.path.join(BUILD, "tests/integration/soak")):
        sys.exit(77)
    main()
