#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl is stopped at each of its calls, and the daemon does its work; or it is killed and run again.

FFLUSHD_STRIDE=N stops at every Nth call only, each program at others. 1 is all.
"""

import os
import re
import socket
import sys
from dataclasses import dataclass

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)) + d for d in ("/../lib", "/interleave")]

from basics import eq
from client import add, send_site
from daemon import Daemon
from harness import main, test
from others import Other, ask_all
from rounds import Hyphened, STRIDE, Shared, check_round, let_work
from traced import Ended, Scene, Traced, WORKERS, ids, in_workers, mixed_log


class Command(Traced):
    """fflushctl as a child of the tracer."""

    def __init__(self, daemon, command):
        self.tracer, self.pid, self.answers, self.preload = None, None, b"", None
        self.bin, self.command, self.stderr_path = daemon.bin, command, daemon.stderr_path
        self.env = {"STATE_DIRECTORY": daemon.state}
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # of no use to it

    def run(self):
        """To its end, or from where it is held."""
        if not self.pid:
            self.start(held=True)
        self.tell("free")

    def end(self, allowed=("exited 0",)):
        line = self.answer()
        if line not in allowed:
            raise AssertionError("%s: %s\n%s" % (self.command, line, self.stderr()[-2000:]))


@dataclass
class Task:
    """What fflushctl is to do, on which queue."""

    name: str
    prepare: callable  # Queue
    arguments: tuple
    listing: callable = None  # Queue -> records, for its standard input
    stage: type = Shared


def damaged_logs(q):
    """All that verify --repair mends."""
    mixed_log(q, q.site("mixed"), 3)
    q.log(q.site("moved"), [q.message("6A")], depth=1)
    q.log(q.site("parts"), [q.message("6B")])
    q.log(q.site("parts"), [q.message("6C"), "6B"], end=False, depth=2)
    q.log(q.site("torn"), [q.message("7A"), q.message("7B"), "7A"], end=False)
    q.gone.add("7C")
    q.log(q.site("stale"), ["7C", "7C"])
    q.log(q.site("open"), [q.message("7D")])
    os.chmod(q.log_path(q.site("open")), 0o644)


def deferred_mail(q):
    q.log(q.site("known"), [q.message("8A"), q.message("8B")])
    for queue_id in ids("9", 4):
        q.message(queue_id)


def listed(q):
    return [(q.site(s), i) for s in ("known", "new") for i in ["8A", "8B"] + ids("9", 4)]


def hyphenated_logs(q):
    q.log(q.site("plain"), [q.message("7A"), q.message("7B")])
    q.log(q.site("both"), [q.message("7C"), q.message("7D")], end=False)
    q.put(q.path("flush", q.log_names(q.site("both"))[1]), b"7E\n")
    q.message("7E")
    q.promised.add((q.site("both"), "7E"))
    q.log(q.site("moved"), [q.message("7F")], depth=2)
    q.log(q.site("empty"), [])


TASKS = [
    Task("verify --repair", damaged_logs, ("verify", "--repair")),
    Task("import", deferred_mail, ("import", "-"), listing=listed),
    Task("export", hyphenated_logs, ("export",), stage=Hyphened),
]


def task_stage(task):
    """A stage whose daemon nobody traces."""
    class TaskStage(task.stage):
        def make_daemon(self, path, settings):
            return Daemon(self.spool, path, activation="hold", **settings)

        def ask(self, data):
            return self.daemon.exchange(data)

        def open_task(self, command):
            self.queue.reset()
            self.asks, self.clients = [], []
            task.prepare(self.queue)
            self.known = {i for _, i in self.queue.promised}
            if task.listing:
                self.listing(task.listing(self.queue))
            command.start(held=True)

        def command(self):
            command = self.ctl_command(*task.arguments)
            if task.listing:
                path = self.listing([])
                command = ["/bin/sh", "-c", 'exec "$@" <"$0"', path] + command
            return Command(self.daemon, command)

        def state(self):
            """Of the logs, without what is different in each round, and in each order."""
            q, found = self.queue, {}
            for path in q.spool.files("flush"):
                name = re.sub(r"%d_test$" % q.round, "_test", path)
                found[name] = sorted(set(q.spool.read(path).split()))
            return found

    return TaskStage


def points_of(stage, command):
    """All of its calls, and how it leaves the logs."""
    stage.open_task(command)
    points = command.calls(())
    return points, stage.state()


def kill_task(stage, task, command, point, wanted):
    stage.open_task(command)
    try:
        command.step((), "until " + point)
        command.kill()
    except Ended as e:
        eq(str(e), "exited 0")  # one that waits makes a varying number of calls
    stage.check(Scene("", None, appends_only=False))
    command.run()
    command.end()
    if task.listing:
        stage.queue.promised |= set(task.listing(stage.queue))
    eq(stage.state(), wanted, "not as after one whole run")
    stage.check(Scene("", None, appends_only=False))
    stage.check_service()


class Serves(Other):
    """The daemon records and flushes, each site."""

    def prepare(self):
        self.records = self.new_records()
        requests = [add(*r) for r in self.records] + [send_site(s) for s in self.sites()]
        return lambda: ask_all(self.stage.daemon, requests)

    def done(self, result):
        self.promise(self.records)


def serve_task(stage, task, command, point, other):
    stage.open_task(command)
    try:
        command.step((), "until " + point)
    except Ended as e:
        eq(str(e), "exited 0")
        return
    process = let_work(other, command.pid)
    command.run()
    command.end(("exited 0", "exited 65"))  # 65: a lock was waited for in vain
    other.finish(process)
    if task.listing:
        stage.queue.promised |= set(task.listing(stage.queue))
    check_round(stage, Scene("", None, appends_only=False), other)


def work_task(base, worker, number, kills):
    task = TASKS[number]
    stage = task_stage(task)(base, "%d" % worker, {})
    command = stage.command()
    other = Serves(stage)
    try:
        points, wanted = points_of(stage, command)
        points = points[worker::WORKERS * STRIDE]
        for point in points:
            try:
                if kills:
                    kill_task(stage, task, command, point, wanted)
                else:
                    serve_task(stage, task, command, point, other)
            except AssertionError as e:
                raise AssertionError("%s, at %s: %s" % (task.name, point, e)) from e
        return len(points)
    finally:
        command.close()
        stage.close()


def stop_tasks(t, kills, what):
    for number, task in enumerate(TASKS):
        stops = sum(in_workers(t, work_task, number, kills))
        print("ok: %s %s: %d stops" % (task.name, what, stops), flush=True)
        if not stops:
            raise AssertionError("no stops")


@test
def killed_commands(t):
    """Run again, they end where one whole run ends."""
    stop_tasks(t, True, "is killed")


@test
def commands_beside_the_daemon(t):
    stop_tasks(t, False, "while the daemon works")


if __name__ == "__main__":
    main()
