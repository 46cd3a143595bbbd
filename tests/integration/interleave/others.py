# SPDX-License-Identifier: MIT
"""The other programs: each does its whole work while the daemon, or fflushctl, is stopped."""

import fcntl
import json
import os
import select
import signal
import tempfile
import time
import traceback
import types

from basics import TIMEOUT, USER, eq
from client import ANNOUNCEMENT, OK, PURGE, REFRESH, add, receive_all, send_site
from daemon import Daemon
from original import Original

LATER = 3600  # seconds, of a message that has been deferred
ASLEEP_LOOKS = 3  # in a row


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
