#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Loss of power with "sync = yes": what has been answered OK is on the disk.

The scenes of traced.py are played once, and every write, truncation, sync, creation, rename and
reply is written down. Then the power fails after each of these calls. What the disk may have at
that moment is worked out by the rules that POSIX gives, not by the kindness of one file system:

  - a write or truncation that no fsync(2) or fdatasync(2) of this file has followed may be there
    or not, whatever came before or after it, and a write may be there in part;
  - a name that was made or removed is as new only after an fsync(2) of its directory, for all
    directories above it as well; a rename happens as a whole, and for certain after an fsync(2)
    of the target's directory (or syncfs(2)).

In each such state each record that was promised must be in its log, or its message moved.
"""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import eq
from client import OK
from harness import main, test
from traced import HASHED, SCENES, SYNC, Stage


class File:
    """Content that is safe, and what may have been added to it."""

    def __init__(self, safe=b""):
        self.safe, self.pending = safe, []
        self._states = None

    def change(self, kind, *args):
        self.pending.append((kind,) + args)
        self._states = None

    def sync(self):
        self.safe, self.pending, self._states = self.now(), [], None

    def now(self):
        data = self.safe
        for op in self.pending:
            data = apply(data, op)
        return data

    def states(self):
        """All that may be found after a loss of power."""
        if self._states is None:
            self._states = {self.safe}
            for op in self.pending:
                self._states |= {apply(s, part) for s in self._states for part in parts(op)}
        return self._states


def apply(data, op):
    if op[0] == "truncate":
        return data[:op[1]].ljust(op[1], b"\0")
    offset, new = op[1:]
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new):]


def parts(op):
    if op[0] == "truncate":
        return [op]
    return [("write", op[1], op[2][:n]) for n in {1, len(op[2]) // 2, len(op[2]) - 1, len(op[2])}]


class Disk:
    """The queue directory as it may be found, by the calls that were made."""

    def __init__(self, queue):
        self.names = {}  # path: what may be there, the safe one first; None for nothing
        self.moves = {}  # ID: is it safe?
        self.directories = {}  # path: is its name safe?
        self.files = {}  # descriptor: (path, File or None)
        self.spool = queue.spool
        for path in queue.spool.files("flush"):
            # Without a change to the time by which the refresh goes.
            with open(os.open(queue.spool.join(path), os.O_RDONLY | os.O_NOATIME), "rb") as f:
                self.names[path] = [File(f.read())]
        for root, directories, _ in os.walk(queue.spool.path):
            for d in directories:
                self.directories[os.path.relpath(os.path.join(root, d), queue.spool.path)] = True

    def open(self, fd, path, flags):
        if flags & os.O_DIRECTORY or not path.startswith("flush/"):
            self.files[fd] = (path, None)
            return
        there = self.names.setdefault(path, [None])
        if there[-1] is None:
            there.append(File())
        self.files[fd] = (path, there[-1])

    def sync(self, fd, of_data):
        path, file = self.files.get(fd, (None, None))
        if file:
            file.sync()
            return
        for name in self.names:
            if os.path.dirname(name) == path:
                self.names[name] = self.names[name][-1:]
        for d in self.directories:
            if os.path.dirname(d) == path or os.path.dirname(d) == "" and path == ".":
                self.directories[d] = True
        for queue_id, (target, _) in self.moves.items():
            if os.path.dirname(target) == path:
                self.moves[queue_id] = (target, True)

    def sync_all(self):
        for name, there in self.names.items():
            if there[-1]:
                there[-1].sync()
            self.names[name] = there[-1:]
        self.directories = dict.fromkeys(self.directories, True)
        self.moves = {i: (target, True) for i, (target, _) in self.moves.items()}

    def contents(self, path):
        """What a reader of this log may find."""
        there = self.names.get(path, [None])
        found = {s for f in there if f for s in f.states()}
        parents = [d for d in self.directories if path.startswith(d + "/")]
        if None in there or not all(self.directories[d] for d in parents):
            found.add(b"")
        return found


def readable(content):
    """The records: a line ends at a newline, an ID at a NUL as well, which is what a part of a
    file has that was never written."""
    return {line.split(b"\0")[0] for line in content.split(b"\n")}


FIELDS = re.compile(r"(-?\d+)\|([-\d ]*)\|([^|]*)\|([0-9a-f]*)$")


class Replay:
    """Goes through a record, and cuts the power after each call."""

    def __init__(self, scene, stage, asks):
        self.scene, self.stage, self.queue = scene, stage, stage.queue
        self.disk = Disk(stage.queue)
        self.promised = set(stage.queue.promised)
        self.waiting = {a.data: a for a in asks}
        self.received = {}
        self.cuts = self.states = self.syncs = 0

    def run(self, path):
        with open(path) as f:
            for line in f:
                result, args, call, data = FIELDS.match(line).groups()
                self.call(int(result), [int(a) for a in args.split()], call.split(),
                          bytes.fromhex(data))

    def call(self, result, args, call, data):
        if result < 0:
            return
        name, *paths = call
        handler = getattr(self, "on_" + name, None)
        if handler and handler(result, args, paths, data) is not False:
            self.cut(" ".join(call))

    def cut(self, where):
        self.cuts += 1
        logs = {}
        for site, queue_id in self.promised:
            if queue_id in self.queue.gone or self.disk.moves.get(queue_id, (0, False))[1]:
                continue
            if site not in logs:
                path = os.path.relpath(self.queue.log_path(site), self.queue.spool.path)
                logs[site] = [(c, readable(c)) for c in self.disk.contents(path)]
                self.states += len(logs[site])
            for content, lines in logs[site]:
                if queue_id.encode() not in lines:
                    raise AssertionError(
                        "%s: power lost after call %d (%s): %s of %s is promised, not moved for "
                        "certain, and the log may be %r" %
                        (self.scene.name, self.cuts, where, queue_id, site, content))

    def on_openat(self, result, args, paths, data):
        self.disk.open(result, paths[0], args[2])

    def on_close(self, result, args, paths, data):
        self.disk.files.pop(args[0], None)
        return False

    def on_mkdirat(self, result, args, paths, data):
        self.disk.directories[paths[0]] = False

    def on_unlinkat(self, result, args, paths, data):
        self.disk.names[paths[0]].append(None)

    def on_renameat(self, result, args, paths, data):
        self.disk.moves[os.path.basename(paths[1])] = (paths[1], False)

    on_renameat2 = on_renameat

    def file(self, args):
        return self.disk.files.get(args[0], (None, None))[1]

    def on_pwrite64(self, result, args, paths, data):
        self.file(args).change("write", args[3], data)

    def on_write(self, result, args, paths, data):
        if self.file(args):
            raise AssertionError("a write without a place")
        return False

    def on_ftruncate(self, result, args, paths, data):
        self.file(args).change("truncate", args[1])

    def on_fsync(self, result, args, paths, data):
        self.disk.sync(args[0], True)
        self.syncs += 1

    def on_fdatasync(self, result, args, paths, data):
        self.disk.sync(args[0], True)
        self.syncs += 1

    def on_syncfs(self, result, args, paths, data):
        self.disk.sync_all()
        self.syncs += 1

    def on_accept4(self, result, args, paths, data):
        self.received[result] = b""
        return False

    def on_recvfrom(self, result, args, paths, data):
        self.received[args[0]] = self.received.get(args[0], b"") + data
        return False

    def on_sendto(self, result, args, paths, data):
        ask = self.waiting.get(self.received.get(args[0]))
        if data != OK or ask is None or ask.queue_id is None:
            return False
        self.promised.add((ask.site, ask.queue_id))


def lose_power(t, scene, settings):
    path = os.path.join(t.base, str(t.n))
    t.n += 1
    stage = Stage(t.base, os.path.basename(path), SYNC | settings)
    t.open.append(stage)
    record = path + ".record"
    with open(record, "w"):
        os.chmod(record, 0o666)
    stage.queue.reset()
    asks = scene.prepare(stage.queue)
    warm = scene.warm(stage.queue) if scene.warm else []
    stage.daemon.hold()
    replay = Replay(scene, stage, asks + warm)
    stage.asks, stage.clients = [], []
    stage.daemon.tell("record", record)
    for some in filter(None, (warm, asks)):
        stage.send(some)
        if some is asks and scene.mark:
            stage.daemon.step(stage.clients, "until " + scene.mark)
            more = scene.more(stage.queue)
            replay.waiting |= {a.data: a for a in more}
            stage.send(more)
        stage.daemon.step(stage.clients)
    stage.note_replies((OK,))
    replay.run(record)
    eq(replay.promised, stage.queue.promised, "the record is not that of what was done")
    for log in stage.spool.files("flush"):
        eq(replay.disk.names[log][-1].now(), stage.spool.read(log), "the record does not tell all")
    what = ", ".join([scene.name] + ["%s = %s" % s for s in settings.items()])
    print("ok: %s: power lost after each of %d calls, %d states of logs, %d syncs" %
          (what, replay.cuts, replay.states, replay.syncs), flush=True)
    if replay.cuts < 5:
        raise AssertionError("only %d calls" % replay.cuts)


@test
def adds(t):
    for scene in SCENES:
        if scene.name.startswith("add"):
            lose_power(t, scene, {})
            lose_power(t, scene, HASHED)


@test
def sends(t):
    for scene in SCENES:
        if scene.name.startswith("send"):
            lose_power(t, scene, {})
            lose_power(t, scene, HASHED)


@test
def refreshes(t):
    for scene in SCENES:
        if not scene.name.startswith(("add", "send", "layout")):
            lose_power(t, scene, {})


if __name__ == "__main__":
    main()
