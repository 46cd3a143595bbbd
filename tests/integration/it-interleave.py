#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Another program does its whole work at every system call: what was promised is kept.

Each scene of traced.py is played again and again, and the daemon stopped one system call later each
time. While it is stopped another program does all that it does: flush(8), postsuper, qmgr,
fflushctl, a second fflushd. Where that one has to wait for the daemon, since the daemon has the lock
or is asked, it goes as far as it can. Then the daemon goes on to its end, qmgr takes what is in
incoming, and a flush of each site has to find all the rest.

The other way round, fflushctl is stopped, and the daemon does its work; or fflushctl is killed and
run again.

FFLUSHD_STRIDE=N stops at every Nth call only, each program at others. 1 is all.
"""

import os
import sys
import dataclasses
import fcntl
import json
import re
import types

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from original import Original
from traced import *

STRIDE = int(os.environ.get("FFLUSHD_STRIDE", "24"))
REAL_STRIDE = 8  # times that, for the real flush(8), which takes a process for each request
LATER = 3600  # seconds, of a message that has been deferred
ASLEEP_LOOKS = 3  # in a row


# ------------------------------------------------------------------------------ other programs

class Process:
    """Another program, of the user of the queue: a function, whose result is kept, or a command."""

    def __init__(self, work=None, command=None, stdin=os.devnull, env=None):
        self.out, self.status = tempfile.TemporaryFile(), None
        self.pid = os.fork()
        if self.pid == 0:
            self.become(work, command, stdin, env)

    def become(self, work, command, stdin, env):
        try:
            if USER:
                os.setgroups([])
                os.setgid(USER.pw_gid)
                os.setuid(USER.pw_uid)
            if command:
                os.dup2(os.open(stdin, os.O_RDONLY), 0)
                os.dup2(self.out.fileno(), 1)
                os.dup2(self.out.fileno(), 2)
                os.execve(command[0], command, dict(os.environ) | (env or {}))
            os.write(self.out.fileno(), json.dumps(work()).encode())
            os._exit(0)
        except BaseException:
            os.write(self.out.fileno(), traceback.format_exc().encode())
        finally:
            os._exit(1)

    def ended(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def wait(self):
        fd = os.pidfd_open(self.pid)
        if not self.ended() and not select.select([fd], [], [], TIMEOUT)[0]:
            raise AssertionError("the other program hangs")
        os.close(fd)
        self.ended()

    def ended_or_asleep(self):
        return self.ended() or all(self.asleep() for _ in range(ASLEEP_LOOKS))

    def asleep(self):
        """Whether it is so for good does not matter: then it goes on when the daemon does."""
        time.sleep(0.0005)
        with open("/proc/%d/stat" % self.pid) as f:
            return f.read().rpartition(")")[2].split()[0] == "S"

    def join(self, allowed=(0,)):
        """What it printed, when it has ended well."""
        if self.status is None:
            self.wait()
        self.out.seek(0)
        text = self.out.read().decode(errors="replace")
        self.out.close()
        if self.status not in allowed:
            raise AssertionError("the other program: status %d: %s" % (self.status, text[-2000:]))
        return text


def holds_lock(pid):
    """A flock(2) or a lease: without looking at the files, which would break the lease."""
    with open("/proc/locks") as f:
        return any(pid == int(line.split()[-4]) for line in f if "->" not in line)


def make_directory(path):
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)


def move(source, target):
    """As qmgr and postsuper do it. False if it is not there."""
    make_directory(target)
    try:
        os.rename(source, target)
        return True
    except (FileNotFoundError, IsADirectoryError):
        return False


def set_times(path, later):
    try:
        os.utime(path, (time.time() + later,) * 2)
        return True
    except FileNotFoundError:
        return False


def ends_line(fd):
    size = os.fstat(fd).st_size
    return size == 0 or os.pread(fd, 1, size - 1) == b"\n"


def flush8_add(path, queue_id):
    """To the letter of its description. False if that made one word with a line of before."""
    make_directory(path)
    fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR, 0o600)  # it does not read
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        whole = ends_line(fd)
        os.write(fd, queue_id.encode() + b"\n")
        fcntl.flock(fd, fcntl.LOCK_UN)
        return whole
    finally:
        os.close(fd)


def flush8_move(q, queue_id):
    """False if that loses the record: it truncates all the same."""
    deferred, incoming = q.path("deferred", queue_id), q.path("incoming", queue_id)
    if not set_times(deferred, 0):
        return os.path.isfile(incoming) and set_times(incoming, 0)
    return move(deferred, incoming) or os.path.isfile(incoming)


def flush8_send(q, path):
    """To the letter of its description; the records that are lost by that."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return []
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with open(fd, closefd=False) as f:
            lines = list(dict.fromkeys(line for line in f.read().split("\n") if line))
        lost = [queue_id for queue_id in lines if not flush8_move(q, queue_id)]
        os.ftruncate(fd, 0)
        os.utime(fd)
        fcntl.flock(fd, fcntl.LOCK_UN)
        return lost
    finally:
        os.close(fd)


def ask_all(where, requests):
    """Ask one after the other; all are answered OK."""
    for data in requests:
        with Daemon.connect(where) as s:
            s.sendall(data)
            eq(receive_all(s).removeprefix(ANNOUNCEMENT), OK, data)


class Other:
    """A program beside the daemon. What it knows of the queue is as of its start."""

    asks = False  # who is stopped
    locks = True  # waits for locks
    settles = True  # False: what it writes need not be whole lines of ours

    def __init__(self, stage):
        self.stage = stage

    @property
    def queue(self):
        return self.stage.queue

    def sites(self):
        return self.stage.sites()

    def new_records(self, letter="5"):
        """(site, ID) of messages that have just been deferred, one for each site."""
        records = [(site, "%s%04X" % (letter, n)) for n, site in enumerate(self.sites())]
        for _, queue_id in records:
            self.queue.message(queue_id)
        self.stage.known |= {queue_id for _, queue_id in records}
        return records

    def promise(self, records):
        self.queue.promised |= set(records)

    def applies(self):
        """Is there anything for it to do?"""
        return True

    def start(self):
        """The Process."""
        return Process(self.prepare())

    def finish(self, process):
        """What its end has changed of what is promised."""
        self.done(json.loads(process.join()))

    def prepare(self):
        raise NotImplementedError

    def done(self, result):
        pass


class Flush8Adds(Other):
    """flush(8) records a message of each site."""

    def prepare(self):
        self.records = self.new_records()
        q = self.queue
        return lambda: [flush8_add(q.log_path(site), i) for site, i in self.records]

    def done(self, result):
        """It does not end a line that a crash has torn (spec 9.4): both are lost then."""
        for (site, queue_id), whole in zip(self.records, result):
            if whole:
                self.promise([(site, queue_id)])
            else:
                self.settles = False
                self.queue.excused |= {(site, i) for s, i in self.queue.promised if s == site}


class Flush8Sends(Other):
    """flush(8) flushes each site."""

    def prepare(self):
        self.asked, q = self.sites(), self.queue
        return lambda: [flush8_send(q, q.log_path(site)) for site in self.asked]

    def done(self, result):
        """It truncates what it could not move, too (spec 9.2, 9.3)."""
        for site, lost in zip(self.asked, result):
            self.queue.excused |= {(site, i) for i in lost}


class Verifies(Other):
    """fflushctl verify --repair"""

    def start(self):
        return self.stage.ctl("verify", "--repair")

    def finish(self, process):
        process.join((0, 65))  # there may be what it does not repair: another one has the lock


class Imports(Other):
    """fflushctl import; all that is deferred, for each site."""

    asks = True

    def start(self):
        q = self.queue
        self.records = [(site, os.path.basename(path)) for path in q.spool.files("deferred")
                        for site in self.sites()]
        self.stage.known |= {i for _, i in self.records}
        return self.stage.ctl("import", "-", stdin=self.stage.listing(self.records))

    def finish(self, process):
        process.join()
        self.promise(self.records)


class Exports(Other):
    """fflushctl export; Postfix does not ask the daemon any more."""

    def start(self):
        return self.stage.ctl("export")

    def finish(self, process):
        process.join()


class Holds(Other):
    """postsuper -h ALL"""

    locks = False
    source, target = "deferred", "hold"

    def applies(self):
        return bool(self.queue.spool.files(self.source))

    def prepare(self):
        q = self.queue
        return lambda: [i for i in map(os.path.basename, q.spool.files(self.source))
                        if move(self.found(i), q.path(self.target, i))]

    def found(self, queue_id):
        return next(filter(os.path.isfile, sorted(self.queue.places(self.source, queue_id))))

    def done(self, result):
        self.queue.stuck |= set(result)


class Releases(Holds):
    """postsuper -H ALL"""

    source, target = "hold", "deferred"

    def done(self, result):
        self.queue.stuck -= set(result)


class Requeues(Holds):
    """postsuper -r; the message gets another name, and is on its way."""

    def prepare(self):
        """Every other one."""
        def work():
            names = [os.path.basename(p) for p in self.queue.spool.files("deferred")][::2]
            for queue_id in names:
                os.unlink(self.found(queue_id))
            return names
        return work

    def done(self, result):
        self.queue.gone |= set(result)
        self.queue.stuck -= set(result)


class Rehashes(Other):
    """postsuper puts all messages and logs where another layout has them; without a lock, but over
    nothing that is there."""

    locks = False

    def prepare(self):
        def work():
            for queue in ("deferred", "flush"):
                for path in self.queue.spool.files(queue):
                    source, name = self.queue.spool.join(path), os.path.basename(path)
                    target = self.target(queue, name)
                    if not os.path.exists(target):
                        move(source, target)
        return work

    def target(self, queue, name):
        return self.queue.elsewhere(queue, name, 2)


class HashesBack(Rehashes):
    """postsuper puts them where this layout has them."""

    def applies(self):
        q = self.queue
        return any(q.spool.join(p) != q.path(queue, os.path.basename(p))
                   for queue in ("deferred", "flush") for p in q.spool.files(queue))

    def target(self, queue, name):
        return self.queue.path(queue, name)


class Takes(Other):
    """qmgr makes all of incoming active."""

    locks = False

    def applies(self):
        return bool(self.queue.spool.files("incoming"))

    def prepare(self):
        self.queue.take()
        return lambda: None


class DefersAgain(Other):
    """qmgr has deferred what was in incoming and active, and an agent records it."""

    asks = True

    def applies(self):
        self.messages = [os.path.basename(p) for queue in ("incoming", "active")
                         for p in self.queue.spool.files(queue)]
        self.records = sorted(r for r in self.queue.promised if r[1] in self.messages)
        return bool(self.records)

    def prepare(self):
        self.stage.known |= set(self.messages)
        return self.work

    def defer(self):
        for i in self.messages:
            for queue in ("incoming", "active"):
                path = self.queue.path(queue, i)
                if set_times(path, LATER):
                    move(path, self.queue.path("deferred", i))

    def record(self):
        ask_all(self.stage.daemon, [add(*r) for r in self.records])

    def work(self):
        self.defer()
        self.record()

    def done(self, result):
        self.queue.stuck -= set(self.messages)
        self.promise(self.records)


class DefersThen(DefersAgain):
    """an agent records what qmgr has tried again: it is active until then, and deferred."""

    def work(self):
        for i in self.messages:
            move(self.queue.path("incoming", i), self.queue.path("active", i))
        self.record()
        self.defer()


class RealFlush8(Other):
    """flush(8) of the installed Postfix records a message of each site."""

    def __init__(self, stage):
        super().__init__(stage)
        self.original = stage.beside("original", self.make)

    def make(self, base):
        return Original(types.SimpleNamespace(open=[]), self.stage.spool, base).start()

    def applies(self):
        """It glues its record to a line that a crash has torn."""
        return not self.queue.torn

    def prepare(self):
        self.records = self.new_records()
        requests = [add(*r) for r in self.records]
        return lambda: ask_all(self.original, requests)

    def done(self, result):
        self.promise(self.records)


class RealFlush8Sends(RealFlush8):
    """flush(8) of the installed Postfix flushes each site."""

    def prepare(self):
        requests = [send_site(s) for s in self.sites()]
        return lambda: ask_all(self.original, requests)

    def done(self, result):
        q = self.queue
        q.excused |= {(s, i) for s, i in q.promised if q.find(i) != ["incoming"]}


class Beside(Daemon):
    """A second fflushd on the queue."""

    def __init__(self, spool, base, **settings):
        super().__init__(spool, base, activation="hold", **settings)

    def listen(self, backlog=64):
        self.socket_path = self.spool.join("public/beside")
        super().listen(backlog)


class SecondDaemon(Other):
    """a second fflushd records and flushes, each site; as when one is leaving."""

    def __init__(self, stage):
        super().__init__(stage)
        self.daemon = stage.beside("beside", self.make)
        eq(self.daemon.exchange(send_site("none.test")), OK)  # it is there

    def make(self, base):
        return Beside(self.stage.spool, base, **self.stage.settings)

    def prepare(self):
        self.records = self.new_records()
        requests = [add(*r) for r in self.records] + [send_site(s) for s in self.sites()]
        return lambda: ask_all(self.daemon, requests)

    def done(self, result):
        self.promise(self.records)


class SecondDaemonRefreshes(SecondDaemon):
    """a second fflushd records, refreshes and purges."""

    def prepare(self):
        self.records = self.new_records()
        requests = [add(*r) for r in self.records] + [REFRESH, PURGE]
        return lambda: ask_all(self.daemon, requests)


class Reconfigures(Other):
    """hash_queue_names and hash_queue_depth are edited, and the daemon gets SIGHUP; there and
    back."""

    locks = False

    def __init__(self, stage):
        super().__init__(stage)
        with open(stage.daemon.config) as f:
            text = f.read()
        names = "" if "hash_queue_names" in text else "hash_queue_names = 'deferred, flush'\n"
        self.texts = [text, text + names + "hash_queue_depth = '2'\n"]

    def start(self):
        config = self.stage.daemon.config
        self.texts.reverse()
        with open(config + ".new", "w") as f:
            f.write(self.texts[0])
        os.chmod(config + ".new", 0o644)
        os.rename(config + ".new", config)
        os.kill(self.stage.daemon.pid, signal.SIGHUP)
        return Process(lambda: None)


# ------------------------------------------------------------------------------------ the rounds

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


@test
def flush8(t):
    """To the letter of its description."""
    interleave(t, Flush8Adds, Flush8Sends)


@test
def flush8_opens_a_log_that_is_being_removed(t):
    scenes = [dataclasses.replace(s, calls=("fcntl", "unlinkat")) for s in SCENES
              if s.name == "refresh"]
    interleave(t, Flush8Adds, scenes=scenes, stride=1)


@test
def real_flush8(t):
    interleave(t, RealFlush8, RealFlush8Sends, stride=STRIDE * REAL_STRIDE)


@test
def a_second_daemon(t):
    interleave(t, SecondDaemon, SecondDaemonRefreshes)


@test
def fflushctl(t):
    interleave(t, Verifies, Imports)


@test
def fflushctl_export(t):
    interleave(t, Exports, stage=Hyphened)


@test
def postsuper(t):
    interleave(t, Holds, Releases, Requeues, Rehashes, HashesBack)


@test
def qmgr(t):
    interleave(t, Takes, DefersAgain, DefersThen)


@test
def an_edit_of_the_configuration(t):
    interleave(t, Reconfigures)


# ------------------------------------------------------------- fflushctl is stopped, or killed

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
