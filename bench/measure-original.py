#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What becomes of the records of Postfix's flush(8) in the tests of it-crash.py and it-faults.py.

Not a test: it prints what it finds, for the table in doc/reliability.md. Needs root and Postfix.
A record is lost if its add was answered OK, or it was in the log before, and it is in no log while
its message still waits in the deferred queue.
"""

import errno
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../tests/lib")

from basics import eq
from client import OK, send_site
from harness import main, test
from original import make_original
from traced import Client, Queue, SCENES, TRACER, Traced

WAYS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES)
CALLS = ("openat", "open", "write", "pwrite64", "flock", "ftruncate", "rename", "renameat",
         "utimensat", "fsync")
PLAYED = [s for s in SCENES if s.name in (
    "add, new site", "add, known site", "add behind a torn line", "send",
    "send with duplicates, gone, busy, immovable")]


class Theirs(Traced):
    """flush(8), attached to when it is there."""

    def __init__(self, original):
        self.original, self.socket_path = original, original.socket_path
        self.pid, self.answers = None, b""
        self.tracer = subprocess.Popen([TRACER, "0", "none"], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, bufsize=0)

    def stderr(self):
        return self.original.journal()

    def ask(self, data):
        """Again and again: master makes us wait after a process has died."""
        for _ in range(20):
            c = Client(self, data)
            c.wait()
            c.close()
            if c.reply:
                return c.reply
            time.sleep(0.3)
        raise AssertionError("flush(8) does not come back\n" + self.stderr()[-1000:])

    def attach(self):
        """To the one process that answers."""
        while self.pid is None:
            eq(self.ask(send_site("none.test")), OK)
            pids = []
            for line in subprocess.run(["ps", "--ppid", str(self.original.process.pid), "-o",
                                        "pid=,comm="], capture_output=True,
                                       text=True).stdout.splitlines():
                pid, name = line.split(None, 1)
                pids += [int(pid)] if name == "flush" else []
            if len(pids) != 1:  # which will be the next to answer?
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                continue
            self.tell("attach", pids[0])
            self.began(self.answer())

    def kill(self):
        self.tell("kill")
        self.answer()  # "exited": it may have been quicker

    def close(self):
        self.tracer.kill()
        self.tracer.wait()


class Round:
    def __init__(self, queue, daemon, scene):
        self.queue, self.daemon = queue, daemon
        queue.reset()
        if daemon.pid:
            daemon.tell("free")
        for a in scene.warm(queue) if scene.warm else []:
            eq(daemon.ask(a.data), OK)
            queue.promised.add((a.site, a.queue_id))
        self.asks = scene.prepare(queue)
        if daemon.pid is None:
            daemon.attach()
        else:
            daemon.hold()
        self.clients = [a.send(daemon) for a in self.asks]

    def lost(self):
        """How many records, and how many requests got no answer or not OK."""
        unserved = 0
        for a in self.asks:
            a.client.pump()
            if a.client.reply != OK:
                unserved += 1
            elif a.queue_id:
                self.queue.promised.add((a.site, a.queue_id))
            a.client.close()
        lost = [(site, i) for site, i in self.queue.promised
                if i not in self.queue.gone and i not in self.queue.lines(site)
                and self.queue.find(i) not in (["incoming"], [])]
        return len(lost), unserved


def calls_of(queue, daemon, scene):
    r = Round(queue, daemon, scene)
    calls = daemon.calls(r.clients)
    r.lost()
    daemon.kill_if_alive()
    return calls


def measure_kills(queue, daemon, scene):
    points = lost = bad = 0
    for call in calls_of(queue, daemon, scene):
        r = Round(queue, daemon, scene)
        reached = daemon.step(r.clients, "until " + call) is not None
        daemon.kill_if_alive()
        n, _ = r.lost()
        points, lost, bad = points + reached, lost + n, bad + (n > 0)
    print("flush(8), killed, %s: %d kill points, records lost after %d of them, %d in all" %
          (scene.name, points, bad, lost), flush=True)


def measure_faults(queue, daemon, scene):
    points = lost = bad = dead = unserved = 0
    for call in calls_of(queue, daemon, scene):
        for way in WAYS if call.split()[0] in CALLS else ():
            r = Round(queue, daemon, scene)
            if daemon.step(r.clients, "until " + call) is None:
                daemon.kill_if_alive()
                continue
            daemon.tell("error", way)
            daemon.tell("free")
            for c in r.clients:
                c.wait()
            n, u = r.lost()
            points, lost, bad, unserved = points + 1, lost + n, bad + (n > 0), unserved + (u > 0)
            end = time.monotonic() + (3 if u else 0)  # it is about to die
            while daemon.pid and time.monotonic() < end:
                if daemon.answer_waits():
                    daemon.answer()
                    dead += 1
                time.sleep(0.01)
            daemon.kill_if_alive()
    print("flush(8), faults, %s: %d faults, records lost after %d of them, %d in all; %d requests "
          "without OK, %d times the process ended" % (scene.name, points, bad, lost, unserved, dead),
          flush=True)


@test
def original(t):
    spool, original_ = make_original(t)
    original_.start()
    daemon = Theirs(original_)
    t.open.append(daemon)
    queue = Queue(spool)
    for scene in PLAYED:
        measure_kills(queue, daemon, scene)
        measure_faults(queue, daemon, scene)


if __name__ == "__main__":
    main()
