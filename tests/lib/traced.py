# SPDX-License-Identifier: MIT
"""The daemon under tests/lib/tracer, scenes to play with it, and what must hold after each.

A scene is a state of the queue and requests that arrive together. What has been promised is
known at every moment: the records that were there, and those whose add was answered OK. A promise
is kept as long as the record is in its log, or its message has been moved, or there is none.
"""

import collections
import concurrent.futures
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field

from basics import BUILD, Skip, TIMEOUT, USER, as_user, eq
from client import ANNOUNCEMENT, OK, PURGE, REFRESH, add, send_file, send_site
from daemon import Daemon
from harness import before
from spool import QUEUES, Spool

WORKERS = 2

TRACER = os.path.join(BUILD, "tests/lib/tracer")
MESSAGE = b"message "  # and its queue ID
EX_SKIPPED = 77  # without arguments: it does not know this machine


@before
def the_tracer_knows_this_machine():
    if subprocess.run([TRACER], stderr=subprocess.DEVNULL).returncode == EX_SKIPPED:
        raise Skip("the tracer does not know this machine")


class Client:
    """A connection whose request has been sent, and all that has come back."""

    def __init__(self, daemon, data):
        self.socket = daemon.connect()
        self.fd = self.socket.fileno()
        self.socket.sendall(data)
        self.socket.setblocking(False)
        self.data, self.ended = b"", False

    def pump(self):
        """What has arrived."""
        try:
            while not self.ended:
                chunk = self.socket.recv(65536)
                self.data += chunk
                self.ended = not chunk
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.ended = True

    def wait(self):
        """Until the end."""
        self.pump()
        while not self.ended:
            if not select.select([self.fd], [], [], TIMEOUT)[0]:
                raise AssertionError("no answer")
            self.pump()

    @property
    def reply(self):
        return self.data.removeprefix(ANNOUNCEMENT)

    def close(self):
        self.socket.close()


class Ended(Exception):
    """The process that was to be stopped has ended."""


class Traced(Daemon):
    """fflushd as a child of the tracer. Our end of the socket stays when it is killed."""

    def __init__(self, spool, base, preload=None, **settings):
        self.tracer, self.pid, self.answers = None, None, b""
        self.preload = preload  # a library
        super().__init__(spool, base, activation="hold", **settings)

    def start(self, held=False):
        if self.tracer is None:
            fd = self.listener.fileno()
            env = dict(os.environ) | self.env
            # The leak check of the sanitizers uses ptrace(2) itself.
            env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
            command = [shutil.copy(TRACER, self.bin), str(fd)]
            if self.preload:
                command += ["/usr/bin/env", "LD_PRELOAD=" + shutil.copy(self.preload, self.bin)]
            with open(self.stderr_path, "ab") as err:
                self.tracer = subprocess.Popen(command + self.command, stderr=err,
                                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                               bufsize=0, pass_fds=[fd], env=env, **as_user())
        self.tell("start")
        self.began(self.answer())
        if not held:
            self.tell("free")

    def began(self, answer):
        word, _, number = answer.partition(" ")
        eq(word, "started", self.stderr()[-2000:])
        self.pid = int(number)

    def tell(self, *command):
        self.tracer.stdin.write((" ".join(map(str, command)) + "\n").encode())

    def answer_waits(self):
        """Is a whole answer there?"""
        while b"\n" not in self.answers and select.select([self.tracer.stdout], [], [], 0)[0]:
            self.read_answers()
        return b"\n" in self.answers

    def read_answers(self):
        if not select.select([self.tracer.stdout], [], [], TIMEOUT)[0]:
            raise AssertionError("no answer of the tracer\n" + self.stderr()[-2000:])
        chunk = os.read(self.tracer.stdout.fileno(), 65536)
        if not chunk:
            raise AssertionError("the tracer has ended\n" + self.stderr()[-2000:])
        self.answers += chunk

    def answer(self):
        while b"\n" not in self.answers:
            self.read_answers()
        line, _, self.answers = self.answers.partition(b"\n")
        line = line.decode()
        if line.startswith("exited"):
            self.pid = None
        return line

    def hold(self):
        self.tell("hold")
        return self.answer()

    def step(self, clients, command="step 1000000000"):
        """Go on until the command is done or all clients have their answers; the call it is held
        at then, or None. Ended if it has ended."""
        self.tell(command)
        poll = select.poll()
        poll.register(self.tracer.stdout, select.POLLIN)
        waiting = {}
        for c in clients:
            c.pump()
            if not c.ended:
                poll.register(c.fd, select.POLLIN)
                waiting[c.fd] = c
        end = time.monotonic() + TIMEOUT
        while not self.answer_waits():
            if clients and not waiting:
                self.tell("hold")
                break
            for fd, _ in poll.poll(TIMEOUT * 1000):
                if fd in waiting:
                    waiting[fd].pump()
                    if waiting[fd].ended:
                        poll.unregister(fd)
                        del waiting[fd]
            if time.monotonic() > end:
                raise AssertionError("hangs\n" + self.stderr()[-2000:])
        line = self.answer()
        if line.startswith("exited"):
            raise Ended(line)
        return None if line == "held -" else line.removeprefix("held ")

    def calls(self, clients):
        """Go on until the clients have their answers, or to its end; the calls on the way, as
        arguments of the command "until"."""
        count, made = collections.Counter(), []
        try:
            while held := self.step(clients, "step 1"):
                count[held.split()[0]] += 1
                made.append("%s %d" % (held.split()[0], count[held.split()[0]]))
        except Ended as e:
            eq(str(e), "exited 0")
        return made

    def kill(self):
        self.tell("kill")
        eq(self.answer(), "exited 137")

    def kill_if_alive(self):
        if self.pid:
            self.kill()

    def restart(self):
        self.kill_if_alive()
        self.start()

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.pid))

    def stop(self, sig=signal.SIGTERM):
        os.kill(self.pid, sig)
        return int(self.answer().removeprefix("exited "))

    def close(self):
        try:
            if self.tracer is not None:
                self.tracer.kill()
                self.tracer.wait()
                self.tracer.stdin.close()
                self.tracer.stdout.close()
        finally:
            self.listener.close()
        if "Sanitizer" in self.stderr() or "runtime error" in self.stderr():
            raise AssertionError(self.stderr()[-8000:])


# ------------------------------------------------------------------------------------ the queue

class Queue:
    """The queue directory of a daemon under test, and what has been promised."""

    def __init__(self, spool, hashed=("deferred",)):
        self.spool, self.hashed, self.round = spool, hashed, 0
        self.owner = (USER.pw_uid, USER.pw_gid) if USER else (os.getuid(), os.getgid())
        self.reset()

    def reset(self):
        """Empty, and with names that have never been used."""
        for queue in QUEUES:
            if queue != "public":
                for root, directories, files in os.walk(self.spool.join(queue), topdown=False):
                    for name in files:
                        os.unlink(os.path.join(root, name))
                    for name in directories:
                        os.rmdir(os.path.join(root, name))
        self.round += 1
        self.promised = set()  # (site, ID)
        self.gone = set()  # IDs without a message from the start
        self.stuck = set()  # IDs that stay recorded whatever is done
        self.torn = set()  # names of logs that have had a line without its end
        self.taken = {}

    def site(self, name):
        return "%s%d.test" % (name, self.round)

    def log_names(self, site):
        """Of its log, and of others that have its records as well."""
        return [site.replace(".", "_")]

    def log_path(self, site):
        return self.path("flush", self.log_names(site)[0])

    def path(self, queue, name):
        parts = [queue] + ([name[0]] if queue in self.hashed else []) + [name]
        return self.spool.join(*parts)

    def elsewhere(self, queue, name, depth):
        """Where another hash_queue_depth has it; 0: not hashed."""
        return self.spool.join(*[queue] + list(name[:depth]) + [name])

    def places(self, queue, name):
        return {self.path(queue, name)} | {self.elsewhere(queue, name, d) for d in (0, 1, 2)}

    def put(self, path, data, times=None, mode=0o600):
        missing, directory = [], os.path.dirname(path)
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for directory in reversed(missing):
            os.mkdir(directory, 0o700)
            os.chown(directory, *self.owner)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        os.write(fd, data)
        os.fchown(fd, *self.owner)
        os.close(fd)
        if times:
            os.utime(path, times)

    def message(self, queue_id, queue="deferred", depth=None):
        later = time.time() + 3600
        path = self.path(queue, queue_id) if depth is None else self.elsewhere(queue, queue_id, depth)
        self.put(path, MESSAGE + queue_id.encode(), (later, later), 0o700)
        if queue != "deferred":
            self.stuck.add(queue_id)
        return queue_id

    def obstacle(self, queue_id):
        """A message that cannot be moved: something is in its way."""
        self.message(queue_id)
        directory = self.path("incoming", queue_id)
        os.makedirs(directory)
        for d in (directory, os.path.dirname(directory)):
            if d != self.spool.join("incoming"):
                os.chown(d, *self.owner)
        self.stuck.add(queue_id)
        return queue_id

    def log(self, site, lines, end=True, age=0, depth=None):
        """A log with these lines, promised."""
        then = time.time() - age
        data = "\n".join(lines) + ("\n" if end and lines else "")
        name = self.log_names(site)[0]
        path = self.log_path(site) if depth is None else self.elsewhere("flush", name, depth)
        self.put(path, data.encode(), (then, then))
        self.promised |= {(site, line) for line in lines}
        if not end:
            self.torn.add(name)

    def lines(self, site):
        """Of all parts of its log."""
        found = []
        for name in self.log_names(site):
            for path in self.places("flush", name):
                if os.path.isfile(path):
                    with open(path) as f:
                        found += f.read().split("\n")
        return found or [""]

    def find(self, queue_id):
        return [q for q in ("incoming", "active", "deferred", "hold")
                if any(map(os.path.isfile, self.places(q, queue_id)))]

    def check_promises(self):
        logs = {site: set(self.lines(site)) for site, _ in self.promised}
        for site, queue_id in self.promised:
            if queue_id in logs[site]:
                continue
            where = self.find(queue_id)
            if queue_id in self.taken or where == ["incoming"] or (
                    queue_id in self.gone and where == []):
                continue
            raise AssertionError("lost: %s of %s, which is in %s; log %r" %
                                 (queue_id, site, where, self.lines(site)))

    def check_whole_lines(self, known, torn=False):
        """Nothing but whole records, for scenes that only append; or the last one is torn."""
        for path in self.spool.files("flush"):
            with open(self.spool.join(path)) as f:
                text = f.read()
            *lines, last = text.split("\n")
            for line in lines:
                if line and line not in known:
                    raise AssertionError("no record of ours: %r in %r" % (line, text))
            if last and os.path.basename(path) not in self.torn and not torn:
                raise AssertionError("torn: %r" % text)

    def check_messages(self):
        """Each is where it was or in incoming, unchanged and due there, and nowhere twice."""
        seen = set()
        now = time.time() + 1
        for queue in ("deferred", "incoming", "active", "hold"):
            for path in self.spool.files(queue):
                queue_id = os.path.basename(path)
                if queue_id in seen:
                    raise AssertionError("in two queues: " + queue_id)
                seen.add(queue_id)
                st = os.stat(self.spool.join(path))
                eq((st.st_nlink, st.st_mode & 0o7737), (1, 0o700), path)
                eq(self.spool.read(path), MESSAGE + queue_id.encode(), path)
                if queue == "incoming" and st.st_mtime > now:
                    raise AssertionError("in incoming, but not due: " + path)

    def take(self):
        """As qmgr: what is in incoming becomes active."""
        for path in self.spool.files("incoming"):
            queue_id = os.path.basename(path)
            target = self.path("active", queue_id)
            os.rename(self.spool.join(path), target)
            self.taken[queue_id] = os.stat(target)

    def check_taken(self):
        """Nobody has touched what qmgr had taken: a message moved twice would be noticed here."""
        for queue_id, then in self.taken.items():
            now = os.stat(self.path("active", queue_id))
            eq((now.st_ino, now.st_mtime_ns, now.st_ctime_ns, now.st_mode),
               (then.st_ino, then.st_mtime_ns, then.st_ctime_ns, then.st_mode), queue_id)

    def check_files(self):
        """No file but logs and messages."""
        for path in self.spool.files("flush"):
            name = os.path.basename(path)
            if not name.endswith("_test") or name.startswith("."):
                raise AssertionError("stray file " + path)

    def check_flushed(self):
        """After a send of every site: nothing waits but what has to."""
        for site, queue_id in self.promised:
            where = self.find(queue_id)
            if queue_id in self.stuck or queue_id in self.taken:
                if queue_id not in self.lines(site) and queue_id not in self.taken:
                    raise AssertionError("not kept: %s of %s" % (queue_id, site))
            elif where != ["incoming"] and not (queue_id in self.gone and where == []):
                raise AssertionError("not flushed: %s of %s is in %s" % (queue_id, site, where))
        for site in {site for site, _ in self.promised}:
            rest = set(self.lines(site)) - {""} - self.stuck - set(self.taken)
            if rest:
                raise AssertionError("still in the log of %s: %s" % (site, rest))


# ------------------------------------------------------------------------------------ the scenes

@dataclass
class Scene:
    name: str
    prepare: callable  # Queue -> list of requests
    warm: callable = None  # Queue -> requests that are answered before
    mark: str = None  # "CALL N": there more arrives,
    more: callable = None  # Queue -> list of requests
    appends_only: bool = True
    calls: tuple = ()  # if not empty, only these are of interest
    ends: bool = False  # the daemon, by itself
    settings: dict = field(default_factory=dict)

    def select(self, made):
        """Those of interest of "CALL N"."""
        return [c for c in made if not self.calls or c.split()[0] in self.calls]


class Ask:
    """A request, and what its OK promises."""

    def __init__(self, data, site=None, queue_id=None):
        self.data, self.site, self.queue_id = data, site, queue_id

    def send(self, daemon):
        self.client = Client(daemon, self.data)
        return self.client


def ask_add(q, site, queue_id, message=True):
    if message and not q.find(queue_id):
        q.message(queue_id)
    return Ask(add(site, queue_id), site, queue_id)


def ids(letter, n):
    return ["%s%04X" % (letter, 0xA000 + i) for i in range(n)]


def add_new_site(q):
    return [ask_add(q, q.site("new"), "A1")]


def add_known_site(q):
    return [ask_add(q, q.site("known"), "B2")]


def warm_known_site(q):
    return [ask_add(q, q.site("known"), "B1")]


def add_torn(q):
    q.log(q.site("torn"), [q.message("C1"), q.message("C2")], end=False)
    return [ask_add(q, q.site("torn"), "C3")]


def add_several(q):
    q.log(q.site("two"), [q.message("D1")])
    return [ask_add(q, q.site(s), i) for s, i in
            (("one", "E1"), ("two", "E2"), ("one", "E3"), ("three", "E4"), ("one", "E1"),
             ("two", "D1"), ("two", "E5"), ("one", "E6"))]


def mixed_log(q, site, n=6):
    """Found in a log after some days: all that may be there. A long record that stays behind a
    short one that goes is where a copy to the front that is torn could lose one."""
    q.gone |= {"B1", "B2"}
    lines = [q.message(i) for i in ids("A", n)]
    stay = [q.message("C1AAAAAAAAAAAAAAA", "active"), q.message("C2", "hold")]
    more = ["B1", lines[0], stay[1], "B2", q.message(ids("D", 1)[0]), "B1", lines[1], q.obstacle("E1")]
    q.log(site, ["B1", stay[0]] + lines + more)


def send_everything(q):
    mixed_log(q, q.site("send"))
    return [Ask(send_site(q.site("send")))]


def send_plain(q):
    q.log(q.site("plain"), [q.message(i) for i in ids("A", 4)])
    return [Ask(send_site(q.site("plain")))]


def send_several(q):
    q.log(q.site("ein"), [q.message(i) for i in ids("A", 3)])
    q.log(q.site("zwei"), [q.message(i) for i in ids("B", 3)] + ids("A", 1))
    q.message("F1")
    q.gone.add("F1")  # not recorded: only the test of where it is
    return [Ask(send_site(q.site("ein"))), Ask(send_site(q.site("zwei"))),
            Ask(send_site(q.site("ein"))), Ask(send_file("F1")), Ask(send_site(q.site("none")))]


def more_adds(q):
    """New ones, one that the send has moved, one that it will, for another site as well."""
    site = q.site("send")
    return [ask_add(q, site, "F1"), ask_add(q, site, ids("A", 1)[0]),
            ask_add(q, site, ids("D", 1)[0]), ask_add(q, q.site("other"), "F2"),
            ask_add(q, site, "F3")]


def send_large(q):
    """More lines stay than are kept in memory (64 KiB): some are appended before the end comes, and
    they go to the front in more than one step."""
    stay = ["C%03d%s" % (i, "A" * 250) for i in range(300)]
    lines = [q.message(i) for i in ids("A", 2)] + [q.message(i, "hold") for i in stay]
    q.log(q.site("large"), lines + [q.message(ids("D", 1)[0])], end=False)
    return [Ask(send_site(q.site("large")))]


def more_large(q):
    return [ask_add(q, q.site("large"), "F1"), ask_add(q, q.site("large"), ids("A", 1)[0]),
            ask_add(q, q.site("other"), "F2")]


def refresh_all(q):
    q.log(q.site("old"), [q.message(i) for i in ids("F", 4)], age=86400)
    mixed_log(q, q.site("send"), 3)
    os.utime(q.log_path(q.site("send")), (1, 1))
    q.log(q.site("fresh"), [q.message("F2")])
    q.log(q.site("empty"), [], age=86400 * 30)
    q.log(q.site("fat"), [q.message(i) for i in ids("B", 8)] * 120)
    return [Ask(REFRESH)]


def compact(q):
    q.log(q.site("fat"), [q.message(i) for i in ids("B", 8)] * 120)
    return [Ask(REFRESH)]


def compact_adds(q):
    return [ask_add(q, q.site("fat"), "F1"), ask_add(q, q.site("fat"), "F2")]


def purge_all(q):
    q.log(q.site("a"), [q.message(i) for i in ids("A", 3)], age=86400)
    q.log(q.site("b"), [q.message(i) for i in ids("B", 3)], age=3600)
    return [Ask(PURGE)]


def of_another_layout(q, age=0):
    """What is left where other values of hash_queue_names and hash_queue_depth had it: of one log
    all, of another one a part."""
    flush, deferred = 0 if "flush" in q.hashed else 1, 0 if "deferred" in q.hashed else 1
    q.log(q.site("moved"), [q.message(ids("A", 1)[0]), q.message(ids("B", 1)[0], depth=deferred),
                            q.message("F3", depth=2)], age=age, depth=flush)
    q.log(q.site("parts"), [q.message("C1"), q.message("D2", depth=deferred)])
    q.log(q.site("parts"), [q.message("E3"), q.message("D4", depth=2)], end=False, age=age,
          depth=flush)
    q.log(q.site("parts"), [q.message("E5", "active"), "D4"], age=age, depth=2)


def layout_send(q):
    of_another_layout(q)
    return [Ask(send_site(q.site("moved"))), Ask(send_site(q.site("parts")))]


def layout_add(q):
    of_another_layout(q)
    return [ask_add(q, q.site("moved"), "F1"), ask_add(q, q.site("parts"), "F2")]


def layout_refresh(q):
    of_another_layout(q, age=86400)
    return [Ask(REFRESH)]


HASHED = {"hash_queue_names": "deferred, flush, incoming"}
SYNC = {"sync": "yes"}
SCENES = [
    Scene("add, new site", add_new_site),
    Scene("add, known site", add_known_site, warm=warm_known_site),
    Scene("add behind a torn line", add_torn),
    Scene("adds of several clients to several sites", add_several),
    Scene("send", send_plain, appends_only=False),
    Scene("send with duplicates, gone, busy, immovable", send_everything, appends_only=False),
    Scene("send with adds meanwhile", send_everything, mark="renameat 3", more=more_adds,
          appends_only=False),
    Scene("sends of several clients, and a message", send_several, appends_only=False),
    Scene("refresh", refresh_all, appends_only=False),
    Scene("compaction", compact, appends_only=False),
    Scene("compaction with adds meanwhile", compact, mark="pread64 1", more=compact_adds,
          appends_only=False),
    Scene("purge", purge_all, appends_only=False),
    Scene("layout: send", layout_send, appends_only=False),
    Scene("layout: add", layout_add, appends_only=False),
    Scene("layout: refresh", layout_refresh, appends_only=False),
    Scene("send of a large log with adds meanwhile", send_large, mark="pwrite64 1", more=more_large,
          appends_only=False, calls=("pwrite64", "pread64", "ftruncate", "fdatasync", "flock")),
]


class Stage:
    """A daemon on a queue, on which scenes are played."""

    def __init__(self, base, name, settings):
        path = os.path.join(base, name)
        os.mkdir(path, 0o755)
        if USER:
            os.chown(path, USER.pw_uid, USER.pw_gid)
        self.spool = Spool(path)
        hashed = settings.get("hash_queue_names", "deferred").split(", ")
        self.queue = self.make_queue(hashed)
        self.daemon = self.make_daemon(path, settings)
        self.asks, self.clients = [], []
        eq(self.daemon.exchange(send_site("none.test")), OK)  # it is there

    def make_queue(self, hashed):
        return Queue(self.spool, hashed)

    def make_daemon(self, path, settings):
        return Traced(self.spool, path, **settings)

    def open(self, scene):
        """Everything in place, the requests sent, and the daemon held before it sees them."""
        q = self.queue
        q.reset()
        if scene.warm:
            for a in scene.warm(q):
                eq(self.daemon.exchange(a.data), OK)
                q.promised.add((a.site, a.queue_id))
        asks = scene.prepare(q)
        if self.daemon.pid:
            self.daemon.hold()
        self.close_clients()
        self.asks, self.clients = [], []
        self.send(asks)
        self.known = {i for _, i in q.promised} | {a.queue_id for a in asks}

    def send(self, asks):
        self.clients += [a.send(self.daemon) for a in asks]
        self.asks += asks

    def play_to_mark(self, scene):
        if scene.mark and self.daemon.step(self.clients, "until " + scene.mark) is None:
            raise AssertionError("%s: never came to %s" % (scene.name, scene.mark))
        if scene.more:
            self.send(scene.more(self.queue))

    def note_replies(self, allowed=(OK, b"")):
        """What has been promised up to now."""
        for a in self.asks:
            a.client.pump()
            if a.client.ended and a.client.reply not in allowed:
                raise AssertionError("%r got %r" % (a.data, a.client.reply))
            if a.queue_id and a.client.reply == OK:
                self.queue.promised.add((a.site, a.queue_id))

    def wait_for_replies(self):
        for a in self.asks:
            a.client.wait()

    def ask(self, data):
        """A request; if the daemon ends in peace, another one answers, as under systemd."""
        d, client = self.daemon, Client(self.daemon, data)
        while not client.ended:
            if not select.select([client.fd, d.tracer.stdout], [], [], TIMEOUT)[0]:
                raise AssertionError("no answer\n" + d.stderr()[-2000:])
            if d.answer_waits():
                eq(d.answer(), "exited 0", d.stderr()[-2000:])
                d.start()
            client.pump()
        client.close()
        return client.reply

    def flush(self, site):
        eq(self.ask(send_site(site)), OK)

    def check(self, scene, torn=False):
        """On the disk as it is, with no daemon's help."""
        self.queue.check_promises()
        self.queue.check_messages()
        self.queue.check_files()
        if scene.appends_only:
            self.queue.check_whole_lines(self.known, torn)

    def check_service(self):
        """It serves: one more record for each site, which joins no other, and then all is sent."""
        q = self.queue
        for n, site in enumerate(sorted({s for s, _ in q.promised})):
            a = ask_add(q, site, "CAFE%d" % n)
            eq(self.ask(a.data), OK, self.daemon.stderr()[-2000:])
            if a.queue_id not in q.lines(site):
                raise AssertionError("not a line of its own: %r" % q.lines(site))
            q.promised.add((site, a.queue_id))
        q.check_promises()
        for site in sorted({s for s, _ in q.promised}):
            self.flush(site)
        q.check_flushed()
        q.check_taken()
        q.check_messages()

    def close_clients(self):
        for c in self.clients:
            c.close()

    def close(self):
        self.close_clients()
        self.daemon.close()
        self.spool.close()


def in_workers(t, work, *args):
    """What each work(base, worker, *args) returns, in a process of its own."""
    base = os.path.join(t.base, str(t.n))
    t.n += 1
    os.mkdir(base, 0o755)
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(WORKERS, context) as pool:
        futures = [pool.submit(work, base, worker, *args) for worker in range(WORKERS)]
        return [f.result() for f in futures]
