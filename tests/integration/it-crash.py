#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""SIGKILL at every system call: what was promised is kept.

Each scene of traced.py is played again and again, and the daemon killed one system call later
each time. After each kill the files are looked at, qmgr takes what it finds in incoming, another
daemon is started on the same socket, and it has to flush all the rest.

FFLUSHD_STRIDE=N kills at every Nth call only.
"""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import eq
from client import OK, send_site
from harness import main, test
from traced import Ended, HASHED, SCENES, SYNC, Stage, WORKERS, in_workers

STRIDE = int(os.environ.get("FFLUSHD_STRIDE", "1"))


def begin(stage, scene, start, signal_number):
    """Everything as it is before the first of the calls."""
    d = stage.daemon
    if start == "process" and d.pid:
        d.kill()
    stage.open(scene)
    if start == "process":
        d.start(held=True)
    if signal_number:
        os.kill(d.pid, signal_number)
    stage.play_to_mark(scene)


def list_points(stage, scene, start, signal_number):
    """All calls of the scene; for "write", what of a write is done, too."""
    begin(stage, scene, start, signal_number)
    calls = scene.select(stage.daemon.calls(stage.clients if start != "end" else ()))
    stage.daemon.restart()
    stage.wait_for_replies()
    eq(stage.ask(send_site("none.test")), OK)  # it is there
    if start != "write":
        return calls
    return [call + part for call in calls if call.startswith("pwrite64")
            for part in (" 1", " half", " most")]


def reach(stage, point, start):
    """False if the scene is over before: a daemon that spins does so a varying number of times."""
    d = stage.daemon
    call, n, *part = point.split()
    try:
        held = d.step(stage.clients if start != "end" else (), "until %s %s" % (call, n))
        if held is None:
            return False
        if part:  # the crash of a whole machine cuts a write anywhere
            size = int(held.split()[1])
            d.tell("short", {"1": 1, "half": size // 2, "most": size - 1}[part[0]] or 1)
            d.step(stage.clients, "step 1")
        return True
    except Ended as e:
        eq((str(e), start), ("exited 0", "end"))
        return False


def kill_at(stage, scene, point, start, signal_number):
    """One round. False if there was nothing left to kill."""
    begin(stage, scene, start, signal_number)
    reached = reach(stage, point, start)
    stage.daemon.kill_if_alive()
    stage.note_replies()
    stage.check(scene, torn=start == "write")
    stage.queue.take()
    stage.daemon.start()
    stage.wait_for_replies()
    stage.note_replies()
    stage.check_service()
    return reached


def work(base, worker, scene, settings, start, signal_number):
    """Every kill point whose turn it is; how many there were."""
    stage, reached = Stage(base, "%d" % worker, settings), 0
    try:
        for point in list_points(stage, scene, start, signal_number)[worker::WORKERS * STRIDE]:
            try:
                reached += kill_at(stage, scene, point, start, signal_number)
            except AssertionError as e:
                raise AssertionError("%s, killed at %s: %s" % (scene.name, point, e)) from e
            finally:
                stage.close_clients()
        return reached
    finally:
        stage.close()


def crash(t, scene, settings, start="requests", signal_number=None, what=""):
    """start: from where on the calls are counted: "requests", when they are there; "process",
    when it begins; "end", likewise from the requests on, but until the daemon has ended. "write":
    only writes, which are not completed."""
    what = ", ".join([what + scene.name] + ["%s = %s" % s for s in settings.items()])
    points = sum(in_workers(t, work, scene, settings, start, signal_number))
    print("ok: %s: %d kill points" % (what, points), flush=True)
    # With a stride few are left, and some are not reached: a daemon that spins.
    if points < (1 if STRIDE > 1 else 3 if start == "write" else 10):
        raise AssertionError("%s: only %d kill points" % (what, points))


def crash_all(t, word, *many_settings):
    for scene in SCENES:
        if scene.name.startswith(word):
            for settings in many_settings:
                crash(t, scene, settings)


@test
def adds(t):
    crash_all(t, "add", {}, SYNC, HASHED)


@test
def sends(t):
    crash_all(t, "send", {}, SYNC, HASHED)


@test
def refreshes(t):
    crash_all(t, "refresh", {}, SYNC)
    crash_all(t, "purge", {})


@test
def compactions(t):
    crash_all(t, "compaction", {}, SYNC)


@test
def other_layouts(t):
    """Logs and messages where other values of hash_queue_names and hash_queue_depth had them."""
    crash_all(t, "layout", {}, SYNC, HASHED)


@test
def torn_writes(t):
    for scene in SCENES:
        if scene.name not in ("send", "sends of several clients, and a message", "purge"):
            crash(t, scene, {}, "write", what="torn writes of ")


@test
def the_start(t):
    """With requests in the backlog, as always when systemd starts it."""
    crash(t, SCENES[3], {}, "process", what="start, then ")
    crash(t, SCENES[4], {}, "process", what="start, then ")


@test
def the_end(t):
    """Requests that come meanwhile are the next daemon's."""
    for scene in (SCENES[3], SCENES[6]):
        crash(t, scene, {}, "end", signal.SIGTERM, what="SIGTERM during ")


@test
def a_reload(t):
    crash(t, SCENES[3], {}, "requests", signal.SIGHUP, what="SIGHUP during ")
    crash(t, SCENES[6], {}, "requests", signal.SIGHUP, what="SIGHUP during ")


if __name__ == "__main__":
    main()
