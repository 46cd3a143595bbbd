# SPDX-License-Identifier: MIT
"""What is measured: flush(8), fflushd and the bare system calls, each on a queue directory of its own."""

import contextlib
import json
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import time

from basics import HOUR, USER, as_user, wait_for
from machine import descendants, proc
from original import Original
from spool import Spool, queue_id

HASH = "0123456789ABCDEF"


class Problem(Exception):
    """What a user can do something about; no traceback."""


class Wrong(Exception):
    """A server has not done what it said."""


class Mailqueue(Spool):
    """A queue directory with many messages and logs, and bench/hold in the place of qmgr."""

    def __init__(self, bench, name):
        self.base = os.path.join(bench.base, name)
        os.mkdir(self.base, 0o755)
        super().__init__(self.base, qmgr=None)
        for digit in HASH:
            os.mkdir(self.join("deferred", digit), 0o700)
        self.own(self.join("deferred"))
        self.n_messages = self.n_made = 0
        os.mkdir(os.path.join(self.base, "spare"), 0o700)
        self.spare = os.open(os.path.join(self.base, "spare"), os.O_PATH)
        self.incoming = os.open(self.join("incoming"), os.O_PATH)
        self.deferred = {d: os.open(self.join("deferred", d), os.O_PATH) for d in HASH}
        state = os.path.join(self.base, "qmgr-state")
        bench.start([bench.tool("hold"), "qmgr", self.join("public/qmgr"), state])
        wait_for(lambda: os.path.exists(self.join("public/qmgr")), "no qmgr")
        with open(state, "r+b") as f:
            self.state = mmap.mmap(f.fileno(), 32)

    def wake_ups(self):
        """{letter: (when it first came, how many)} since forget_wake_ups()"""
        numbers = struct.unpack("=4Q", self.state[:])
        return {"F": numbers[:2], "I": numbers[2:]}

    def forget_wake_ups(self):
        self.state[:] = bytes(32)

    def messages(self, n):
        """Exactly @n messages, deferred and not due. Files are made once: that is what is slow."""
        later = time.time() + HOUR
        moved = set(os.listdir(self.join("incoming")))
        for i in range(max(n, self.n_messages)):
            name = queue_id(i)
            deferred = self.deferred[name[0]]
            there = (self.incoming if name in moved else
                     deferred if i < self.n_messages else self.spare)
            if i >= self.n_made:
                fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o700, dir_fd=deferred)
                os.ftruncate(fd, 4096)
                os.fchown(fd, USER.pw_uid, USER.pw_gid)
                os.close(fd)
                self.n_made = i + 1
                there = deferred
            wanted = deferred if i < n else self.spare
            if there != wanted:
                os.rename(name, name, src_dir_fd=there, dst_dir_fd=wanted)
            if i < n:
                os.chmod(name, 0o700, dir_fd=deferred)
                os.utime(name, (later, later), dir_fd=deferred)
        self.n_messages = n

    def age(self, n):
        """Directories never shrink on ext4, and large ones are slower."""
        self.messages(n)
        for i in range(n):
            name = queue_id(i)
            os.rename(name, name, src_dir_fd=self.deferred[name[0]], dst_dir_fd=self.incoming)
        self.messages(0)

    def check_moved(self, n, since, unthrottled=False):
        """All messages, and no others, have been moved and are due."""
        if set(os.listdir(self.join("incoming"))) != {queue_id(i) for i in range(n)}:
            raise Wrong("not all messages were moved")
        for i in range(n):
            st = os.stat(queue_id(i), dir_fd=self.incoming)
            if not since - 2 <= st.st_mtime <= time.time() + 2:
                raise Wrong("the time of a moved message is wrong")
            if unthrottled and not st.st_mode & 0o040:
                raise Wrong("a message was not marked")

    def no_logs(self):
        for entry in os.scandir(self.join("flush")):
            os.unlink(entry.path)

    def empty_logs(self):
        for entry in os.scandir(self.join("flush")):
            os.truncate(entry.path, 0)

    def read_log(self, name):
        try:
            return self.read("flush/" + name)
        except FileNotFoundError:
            return b""

    def check_added(self, n_sites, first, n):
        """Each log has just the IDs that were added to it, once."""
        wanted = {k: [] for k in range(n_sites)}
        for i in range(n):
            wanted[i % n_sites].append(queue_id(first + i))
        for k, ids in wanted.items():
            if sorted(self.read_log("d%d_example_com" % k).decode().split()) != sorted(ids):
                raise Wrong("the log of site %d is not what was added" % k)

    def close(self):
        for fd in (self.incoming, self.spare, *self.deferred.values()):
            os.close(fd)


class Server:
    """Something that answers on a socket, and the spool it works on."""

    def __init__(self, bench, spool):
        self.bench, self.spool = bench, spool
        self.next_id = 10_000_000  # beyond all messages

    def load(self, *args, check=True):
        """Run bench/load on it; what it says."""
        return self.load_result(self.load_start(*args), check)

    def load_start(self, *args):
        command = [self.bench.tool("load"), *map(str, args[:-1]), self.socket, args[-1]]
        return self.bench.start(command, stdout=subprocess.PIPE)

    def load_result(self, process, check=True):
        out = process.communicate()[0]
        self.bench.running.remove(process)
        if process.returncode not in (0, 1) or not out:
            raise Problem("load has ended with status %d" % process.returncode)
        result = json.loads(out)
        if check and not result["ok"]:
            raise Wrong("%s: %s" % (self.name, out.decode().strip()))
        return result

    def warm_up(self):
        """So that a measurement does not begin with the start of a process."""
        self.load("-c", 8, "-n", 400, "-s", "warm", "-b", self.ids(400), "add")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.spool.join("flush/warm0_example_com"))

    def ids(self, n):
        first, self.next_id = self.next_id, self.next_id + n
        return first

    def pids(self):
        return descendants(self.process.pid)

    def pin(self, cpus):
        for pid in self.pids():
            for thread in os.listdir("/proc/%d/task" % pid):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread), cpus)

    def memory(self):
        """(proportional set size in MiB, processes)"""
        pss = n = 0
        for pid in self.pids():
            if proc(pid, "comm").strip() == self.comm:
                found = re.search(r"^Pss:\s+(\d+)", proc(pid, "smaps_rollup"), re.M)
                pss, n = pss + int(found[1] if found else 0), n + 1
        return pss / 1024, n


class Flush8(Server):
    """flush(8) under a private master; no wake-ups, so that only we cause a refresh."""

    name, comm = "flush(8)", "flush"

    def __init__(self, bench, spool):
        super().__init__(bench, spool)
        self.instance = Original(bench, spool, spool.base).start()
        self.socket, self.process = self.instance.socket_path, self.instance.process

    def sleep(self):
        """As after max_idle: its processes leave when the configuration is read again."""
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.memory()[1] == 0, "flush(8) does not leave")


class Fflushd(Server):
    """fflushd as user postfix, started by the first connection."""

    name, comm = "fflushd", "fflushd"

    def __init__(self, bench, spool):
        super().__init__(bench, spool)
        self.socket = spool.join("public/fflushd")
        self.process = None
        program = os.path.join(spool.base, "fflushd")
        shutil.copy(bench.args.fflushd, program)  # where its user can get at it
        conf = os.path.join(spool.base, "conf")
        os.mkdir(conf, 0o755)
        bench.original.instance.write_main_cf(conf, queue_directory=spool.path,
                                              data_directory="/nonexistent")
        self.commands = {}
        for name, text in (("self-contained", "queue_directory = '%s'\nfast_flush_domains = "
                            "'static:all'\npostfix_config_directory = ''\n" % spool.path),
                           ("postconf", "postfix_config_directory = '%s'\n" % conf)):
            path = os.path.join(spool.base, name + ".conf")
            with open(path, "w") as f:
                f.write(text)
            self.commands[name] = [program, "--config", path]
        # As its unit has it, so that what postconf says is kept.
        cache = os.path.join(spool.base, "cache")
        os.mkdir(cache, 0o700)
        os.chown(cache, USER.pw_uid, USER.pw_gid)
        self.commands["postconf kept"] = ["/usr/bin/env", "CACHE_DIRECTORY=" + cache,
                                          *self.commands["postconf"]]
        self.use("self-contained")

    def use(self, configuration, descriptors=None):
        self.close()
        limit = ["prlimit", "--nofile=%d:%d" % (descriptors, descriptors)] if descriptors else []
        self.process = self.bench.start(
            limit + [self.bench.tool("hold"), "serve", self.socket, *self.commands[configuration]],
            **as_user())
        wait_for(lambda: os.path.exists(self.socket), "no socket of fflushd")

    def close(self):
        if self.process is not None:
            self.sleep()
            self.bench.stop(self.process)
            os.unlink(self.socket)
            self.process = None

    def daemons(self):
        return [p for p in self.pids() if proc(p, "comm").strip() == self.comm]

    def sleep(self):
        for pid in self.daemons():
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.daemons(), "fflushd does not leave")


class Limit(Server):
    """The bare system calls, on a spool of their own."""

    name, comm = "limit", "limit"

    def __init__(self, bench, spool):
        super().__init__(bench, spool)
        self.socket = spool.join("public/limit")
        self.process = None

    def run(self, what, argument):
        r = subprocess.run([self.bench.tool("limit"), what, str(argument)], cwd=self.spool.path,
                           stdout=subprocess.PIPE)
        if r.returncode != 0:
            raise Wrong("limit %s: %d" % (what, r.returncode))
        return json.loads(r.stdout)["seconds"]

    @contextlib.contextmanager
    def serving(self):
        self.process = self.bench.start([self.bench.tool("limit"), "serve", self.socket])
        try:
            wait_for(lambda: os.path.exists(self.socket), "no socket of limit")
            yield
        finally:
            self.bench.stop(self.process)
            os.unlink(self.socket)
            self.process = None
