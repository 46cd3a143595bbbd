# SPDX-License-Identifier: MIT
"""A round: one program is stopped at one call, another one works meanwhile, and what must hold then."""

import collections
import dataclasses
import json
import os

from basics import wait_for
from others import Process, holds_lock
from traced import HASHED, Queue, SCENES, Stage, WORKERS, in_workers

STRIDE = int(os.environ.get("FFLUSHD_STRIDE", "24"))
REAL_STRIDE = 8  # times that, for the real flush(8), which takes a process for each request


class SharedQueue(Queue):
    """What others lose by their own rules is not promised."""

    def reset(self):
        super().reset()
        self.excused = set()
        self.logged = set()  # sites that have a log, which may be empty

    def log(self, site, *args, **more):
        super().log(site, *args, **more)
        self.logged.add(site)

    def excuse(self):
        self.promised -= self.excused


class HyphenQueue(SharedQueue):
    """Of sites that flush(8) gives logs of other names."""

    def site(self, name):
        return "%s-%d.test" % (name, self.round)

    def log_names(self, site):
        name = site.replace(".", "_")
        return [name.replace("-", "D"), name.replace("-", "_")]


class Shared(Stage):
    """A stage on which somebody else is at work."""

    queue_type = SharedQueue

    def __init__(self, base, name, settings):
        self.settings, self.known, self.services = settings, set(), {}
        super().__init__(base, name, settings)

    def make_queue(self, hashed):
        return self.queue_type(self.spool, hashed)

    def beside(self, name, make):
        """Another service, one for all that ask it."""
        if name not in self.services:
            base = os.path.join(os.path.dirname(self.spool.path), name)
            os.mkdir(base, 0o755)
            self.services[name] = make(base)
        return self.services[name]

    def close(self):
        for service in self.services.values():
            service.close()
        super().close()

    def sites(self):
        return sorted({a.site for a in self.asks if a.site} | self.queue.logged |
                      {site for site, _ in self.queue.promised})

    def listing(self, records):
        """The path of a file as postqueue -j prints it."""
        path = os.path.join(self.daemon.base, "listing")
        with open(path, "w") as f:
            for site, queue_id in records:
                f.write(json.dumps({"queue_name": "deferred", "queue_id": queue_id,
                                    "recipients": [{"address": "x@" + site}]}) + "\n")
        os.chmod(path, 0o644)
        return path

    def ctl_command(self, *args):
        return [os.path.join(self.daemon.bin, "fflushctl"), "--config", self.daemon.config, *args]

    def ctl(self, *args, stdin=os.devnull):
        return Process(command=self.ctl_command(*args), stdin=stdin,
                       env={"STATE_DIRECTORY": self.daemon.state})


class Hyphened(Shared):
    """A stage for export; what it has exported is flushed by the name that flush(8) gave it."""

    queue_type = HyphenQueue

    def flush(self, site):
        super().flush(site)
        super().flush(site.replace("-", "."))


def begin(stage, scene):
    stage.open(scene)
    stage.play_to_mark(scene)


def list_points(stage, scene):
    begin(stage, scene)
    calls = scene.select(stage.daemon.calls(stage.clients))
    stage.daemon.tell("free")
    stage.wait_for_replies()
    return calls


def let_work(other, pid):
    """While the process is stopped: to its end, or as far as it gets without it."""
    process = other.start()
    if other.asks or other.locks and holds_lock(pid):
        wait_for(process.ended_or_asleep, "the other program hangs")
    else:
        process.wait()
    return process


def check_round(stage, scene, other):
    stage.queue.excuse()
    if not other.settles:
        scene = dataclasses.replace(scene, appends_only=False)
    stage.check(scene)
    stage.queue.take()
    stage.check_service()


def stop_at(stage, scene, point, other):
    """One round. False if there was nothing to stop, or nothing to do."""
    d = stage.daemon
    begin(stage, scene)
    held = d.step(stage.clients, "until " + point)
    stage.note_replies()
    process = let_work(other, d.pid) if held and other.applies() else None
    d.tell("free")
    stage.wait_for_replies()
    if process:
        other.finish(process)
    stage.note_replies()
    check_round(stage, scene, other)
    return process is not None


def stop_everywhere(stage, scene, others, worker, stride):
    """How often each one worked."""
    points, count = list_points(stage, scene), collections.Counter()
    for n, other in enumerate(others):
        for point in points[(worker + n * WORKERS) % (WORKERS * stride)::WORKERS * stride]:
            other.settles = True
            try:
                count[type(other).__doc__.split(";")[0].rstrip(".")] += stop_at(stage, scene, point, other)
            except AssertionError as e:
                raise AssertionError("%s, stopped at %s, %s: %s\n%s" % (
                    scene.name, point, type(other).__name__, e,
                    stage.daemon.stderr()[-2000:])) from e
            finally:
                stage.close_clients()
    return count


def work(base, worker, scenes, settings, stage_type, types_of_others, stride):
    stage, count = stage_type(base, "%d" % worker, settings), collections.Counter()
    try:
        others = [other(stage) for other in types_of_others]
        for scene in scenes:
            count += stop_everywhere(stage, scene, others, worker, stride)
        return count
    finally:
        stage.close()


def say(count):
    for name, n in sorted(count.items()):
        print("ok: %s: %d stops" % (name, n), flush=True)


def interleave(t, *others, stage=Shared, scenes=None, stride=STRIDE):
    total = collections.Counter()
    for settings in ({}, HASHED) if stride == 1 else ({},):
        for count in in_workers(t, work, scenes or SCENES, settings, stage, others, stride):
            total += count
    say(total)
    if not all(total.values()) or not total:
        raise AssertionError("some did nothing")
