#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How fast is fflushd, beside Postfix's flush(8) and beside the bare system calls?

Both servers run at the same time, each on a spool of its own, and are measured in turns: A, B, then
B, A. What each has done is checked every time: logs that hold exactly what was added, messages that
have moved. A ratio is that of one pair and says how many times better fflushd is: above 1 it is
faster (or smaller). Of these, median, least and greatest are printed.

Needs root (as Postfix's master does) and an installed Postfix; touches neither its configuration
nor its queue. Everything is below a temporary directory in $TMPDIR, which should be on the disk
that matters.
"""

import argparse
import contextlib
import html
import json
import math
import mmap
import os
import platform
import pwd
import re
import resource
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(os.environ.get("FFLUSHD_BUILD", "."))
QUEUES = ("incoming", "active", "deferred", "hold", "flush", "public")
POSTFIX_DIRECTORIES = ("private", "maildrop", "defer", "bounce", "saved", "trace", "corrupt")
HASH = "0123456789ABCDEF"
HOUR = 3600
STALE = 10  # one log of so many
FOREIGN_MAX = 0.20  # CPUs that others may use during a measurement
TRIES = 3


class Problem(Exception):
    """What a user can do something about; no traceback."""


class Wrong(Exception):
    """A server has not done what it said."""


# ------------------------------------------------------------------------------- the machine

def proc(pid, name):
    try:
        with open("/proc/%s/%s" % (pid, name)) as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def processes():
    """{pid: (parent, CPU seconds of it and of its children that have ended)}"""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        fields = proc(pid, "stat").rpartition(")")[2].split()
        if fields:
            ticks = sum(int(f) for f in fields[11:15])
            found[int(pid)] = int(fields[1]), ticks / os.sysconf("SC_CLK_TCK")
    return found


def descendants(pid, table=None):
    children = {}
    for p, (parent, _) in (table or processes()).items():
        children.setdefault(parent, []).append(p)
    found = [pid]
    for p in found:
        found += children.get(p, [])
    return found


def cpu_seconds():
    """(all that the machine has worked, what of it was ours); the kernel's threads work for us."""
    with open("/proc/stat") as f:
        user, nice, system, _, _, irq, softirq, steal = map(int, f.readline().split()[1:9])
    table = processes()
    ours = sum(table[p][1] for top in (os.getpid(), 2) for p in descendants(top, table)
               if p in table)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"), ours


class Foreign:
    """CPUs that others use while it is entered."""

    def __enter__(self):
        self.start, self.before = time.monotonic(), cpu_seconds()
        return self

    def __exit__(self, *_):
        after, seconds = cpu_seconds(), time.monotonic() - self.start
        used, ours = (b - a for a, b in zip(self.before, after))
        self.share = max(0.0, (used - ours) / seconds)


class Patience:
    """Waits for a quiet machine and repeats what was disturbed, as long as there is time for it."""

    def __init__(self, seconds):
        self.left = seconds

    def wait(self):
        while self.left > 0:
            with Foreign() as foreign:
                time.sleep(0.15)
            if foreign.share <= FOREIGN_MAX:
                return
            self.left -= 0.15

    def measure(self, function):
        """(the least disturbed of its results, the share of others in it)"""
        best = None
        for _ in range(TRIES):
            self.wait()
            start = time.monotonic()
            with Foreign() as foreign:
                result = function()
            if best is None or foreign.share < best[1]:
                best = result, foreign.share
            if foreign.share <= FOREIGN_MAX or self.left <= 0:
                break
            self.left -= time.monotonic() - start
        return best


def wait_for(condition, what, timeout=30):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise Problem(what)
        time.sleep(0.005)


def postconf_default(name):
    tool = shutil.which("postconf", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if tool is None:
        raise Problem("needs Postfix: there is no postconf")
    return subprocess.run([tool, "-dh", name], check=True, capture_output=True,
                          text=True).stdout.strip()


def describe(directory, fflushd):
    """What the figures depend on."""
    cpu = re.search(r"model name\s*:\s*(.*)", proc("self", "../cpuinfo"))
    memory = int(re.search(r"MemTotal:\s+(\d+)", proc("self", "../meminfo"))[1])
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', open("/etc/os-release").read(), re.M))
    best = ("", "", "")
    for line in proc("self", "mountinfo").splitlines():
        fields, _, kind = line.partition(" - ")
        point = fields.split()[4]
        if (directory + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = point, kind.split()[0], fields.split()[5] + "," + kind.split()[2]
    version = subprocess.run([fflushd, "--version"], capture_output=True, text=True, check=True)
    return {
        "cpu": "%d x %s" % (os.cpu_count(), cpu[1] if cpu else platform.machine()),
        "memory": "%.0f GiB" % (memory / 2**20),
        "system": "%s, Linux %s" % (release.get("PRETTY_NAME", "?"), os.uname().release),
        "file_system": "%s on %s (%s)" % (best[1], best[0],
                                          ",".join(dict.fromkeys(best[2].split(",")))),
        "original": "Postfix %s flush(8), max_use=100, max_idle=100s" % postconf_default(
            "mail_version"),
        "fflushd": version.stdout.strip(),
        "load_average": proc("self", "../loadavg").split()[0],
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


# ------------------------------------------------------------------------------- spools

def queue_id(i):
    """As in common.h."""
    return "%05X%X" % (i * 7919 % 1000000, 0x100000 + i)


class Spool:
    """A queue directory, messages and logs in it, and somebody in the place of qmgr."""

    def __init__(self, bench, name):
        self.bench, self.user = bench, bench.user
        self.base = os.path.join(bench.base, name)
        self.path = os.path.join(self.base, "queue")
        os.makedirs(self.path, 0o755)
        for queue in QUEUES + POSTFIX_DIRECTORIES:
            os.mkdir(self.join(queue), 0o700)
        for digit in HASH:
            os.mkdir(self.join("deferred", digit), 0o700)
        for root, _, _ in os.walk(self.path):
            os.chown(root, self.user.pw_uid, self.user.pw_gid)
        os.mkdir(self.join("pid"), 0o755)
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

    def join(self, *parts):
        return os.path.join(self.path, *parts)

    def triggers(self):
        """{letter: (when it first came, how many)} since forget_triggers()"""
        numbers = struct.unpack("=4Q", self.state[:])
        return {"F": numbers[:2], "I": numbers[2:]}

    def forget_triggers(self):
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
                os.fchown(fd, self.user.pw_uid, self.user.pw_gid)
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

    def write_log(self, name, data, age=0):
        path = self.join("flush", name)
        fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        os.write(fd, data)
        os.fchown(fd, self.user.pw_uid, self.user.pw_gid)
        os.close(fd)
        then = time.time() - age
        os.utime(path, (then, then))

    def read_log(self, name):
        try:
            with open(self.join("flush", name), "rb") as f:
                return f.read()
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


# ------------------------------------------------------------------------------- servers

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


class Original(Server):
    """flush(8) under a private master; no wake-ups, so that only we cause a refresh."""

    name, comm = "flush(8)", "flush"

    def __init__(self, bench, spool):
        super().__init__(bench, spool)
        self.socket = spool.join("public/flush")
        conf, data = (os.path.join(spool.base, name) for name in ("conf", "data"))
        bench.write_main_cf(conf, spool, data)
        os.mkdir(data, 0o700)
        os.chown(data, bench.user.pw_uid, bench.user.pw_gid)
        with open(os.path.join(conf, "master.cf"), "w") as f:
            f.write("flush unix n - n 0 0 flush\npostlog unix-dgram n - n - 1 postlogd\n")
        tie = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        self.process = bench.start(tie + [os.path.join(postconf_default("daemon_directory"),
                                                       "master"), "-c", conf])
        wait_for(lambda: os.path.exists(self.socket) or self.process.poll() is not None,
                 "master makes no socket")
        if self.process.poll() is not None:
            raise Problem("master does not run: " + bench.errors())

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
        bench.write_main_cf(conf, spool, "/nonexistent")
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
        os.chown(cache, bench.user.pw_uid, bench.user.pw_gid)
        self.commands["postconf kept"] = ["/usr/bin/env", "CACHE_DIRECTORY=" + cache,
                                          *self.commands["postconf"]]
        self.use("self-contained")

    def use(self, configuration, descriptors=None):
        self.close()
        limit = ["prlimit", "--nofile=%d:%d" % (descriptors, descriptors)] if descriptors else []
        user = self.bench.user
        self.process = self.bench.start(
            limit + [self.bench.tool("hold"), "serve", self.socket, *self.commands[configuration]],
            user=user.pw_uid, group=user.pw_gid, extra_groups=[])
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


# ------------------------------------------------------------------------------- figures

class Metric:
    """One line of the table."""

    def __init__(self, key, label, unit, more_is_better=False, ratio_bar=None, most=None):
        self.key, self.label, self.unit, self.more_is_better = key, label, unit, more_is_better
        self.ratio_bar, self.most = ratio_bar, most

    def ratio(self, original, ours):
        a, b = (ours, original) if self.more_is_better else (original, ours)
        return a / b if b else math.inf


class Figure:
    """What is measured together: run(server) and maybe limit(limit), each a dict by metric key."""

    def __init__(self, name, metrics, run, limit=None, before=None, after=None, group=None, x=None):
        self.name, self.metrics, self.run, self.limit = name, metrics, run, limit
        self.before, self.after, self.group, self.x = before, after, group, x
        self.values = {"original": [], "fflushd": [], "limit": []}
        self.foreign = {"original": [], "fflushd": [], "limit": []}
        self.errors = []

    def ratios(self, metric):
        return [metric.ratio(a[metric.key], b[metric.key])
                for a, b in zip(self.values["original"], self.values["fflushd"]) if a and b]

    def median(self, who, key):
        values = [v[key] for v in self.values[who] if v and key in v]
        return statistics.median(values) if values else None

    def verdict(self, metric):
        """None if there is no bar, else whether it is met."""
        ratios = self.ratios(metric)
        if metric.ratio_bar is None and metric.most is None:
            return None
        if not ratios or self.errors:
            return False
        if metric.most is not None:
            return self.median("fflushd", metric.key) <= metric.most
        return statistics.median(ratios) >= metric.ratio_bar


def picked(result, *keys):
    return {k: result[k] for k in keys}


def since_request(result, spool, letter):
    """When a trigger came, in ms."""
    first, n = spool.triggers()[letter]
    if n == 0:
        raise Wrong("qmgr was not woken with " + letter)
    return (first - result["begin_nsec"]) / 1e6


def add_run(clients, sites, seconds):
    def run(server):
        server.spool.empty_logs()
        first = server.ids(2_000_000)
        r = server.load("-c", clients, "-d", sites, "-t", seconds, "-b", first, "add")
        server.spool.check_added(sites, first, r["requests"])
        return picked(r, "rate", "p50_us", "p99_us", "max_us")

    def limit(server):
        with server.serving():
            return run(server)

    return run, limit


def one_cpu(function):
    """Client and server on the last CPU."""
    def run(server):
        all_cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(all_cpus)})
        try:
            if server.process:
                server.pin({max(all_cpus)})
            return function(server)
        finally:
            os.sched_setaffinity(0, all_cpus)
            if server.process:
                server.pin(all_cpus)
    return run


def prepare_send(spool, n, duplicates=1):
    spool.messages(n)
    data = "".join(queue_id(i) + "\n" for i in range(n)).encode()
    spool.write_log("d0_example_com", data * duplicates)
    os.sync()
    spool.forget_triggers()


def check_sent(spool, n, since):
    spool.check_moved(n, since)
    if spool.read_log("d0_example_com") != b"":
        raise Wrong("the log is not empty")
    if spool.triggers()["F"][1] == 0:
        raise Wrong("qmgr was not woken with F")


def send_run(n, duplicates, watch=False):
    def run(server):
        prepare_send(server.spool, n, duplicates)
        since = time.time()
        options = ["-w", server.spool.join("incoming")] if watch else []
        r = server.load(*options, "send_site")
        check_sent(server.spool, n, since)
        woken = since_request(r, server.spool, "I")
        if watch:
            return {"moved_ms": r["moved_ms"], "begun_ms": max(r["moved_ms"], woken)}
        return {"ms": r["max_us"] / 1000}

    def limit(server):
        prepare_send(server.spool, n, duplicates)
        since = time.time()
        seconds = server.run("send", n)
        server.spool.check_moved(n, since)
        return {"ms": seconds * 1000}

    return run, limit


def send_file_run(n, clients):
    def run(server):
        server.spool.messages(n)
        os.sync()
        server.spool.forget_triggers()
        since = time.time()
        r = server.load("-c", clients, "-n", n, "send_file")
        server.spool.check_moved(n, since, unthrottled=True)
        since_request(r, server.spool, "I")
        return picked(r, "rate", "p50_us", "p99_us", "max_us")

    def limit(server):
        server.spool.messages(n)
        os.sync()
        since = time.time()
        seconds = server.run("send_file", n)
        server.spool.check_moved(n, since, unthrottled=True)
        return {"rate": n / seconds}

    return run, limit


def refresh_log(i):
    return "s%06d_example_com" % i


def prepare_refresh(spool, n):
    """Fresh logs are written once and never touched; one in STALE has one message."""
    spool.messages(n // STALE)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(spool.join("flush/warm0_example_com"))
    there = set(os.listdir(spool.join("flush")))
    for i in range(n):
        if i % STALE == 0:
            spool.write_log(refresh_log(i), b"%s\n" % queue_id(i // STALE).encode(), 13 * HOUR)
        elif refresh_log(i) not in there:
            spool.write_log(refresh_log(i), b"%s\n" % queue_id(10_000_000 + i).encode())
    os.sync()
    spool.forget_triggers()


def check_refreshed(spool, n, since):
    spool.check_moved(n // STALE, since)
    sizes = {e.name: e.stat().st_size for e in os.scandir(spool.join("flush"))}
    for i in range(n):
        size = sizes.pop(refresh_log(i), 0)
        if (size == 0) != (i % STALE == 0):
            raise Wrong("log %d has %d bytes after a refresh" % (i, size))
    if any(sizes.values()):
        raise Wrong("logs that were not there before: %s" % list(sizes)[:3])


def refresh_run(n):
    def run(server):
        server.warm_up()
        prepare_refresh(server.spool, n)
        since = time.time()
        r = server.load("-e", "refresh")
        check_refreshed(server.spool, n, since)
        since_request(r, server.spool, "I")
        return {"ms": r["max_us"] / 1000}

    def limit(server):
        prepare_refresh(server.spool, n)
        since = time.time()
        seconds = server.run("refresh", 12 * HOUR)
        check_refreshed(server.spool, n, since)
        return {"ms": seconds * 1000}

    return run, limit


def during_run(n, site, rate):
    """What is added meanwhile is either still in the log, or was sent with it."""
    def run(server):
        prepare_send(server.spool, n)
        first, since = server.ids(1_000_000), time.time()
        r = server.load("-c", 500, "-r", rate, "-s", site, "-b", first, "-S", "d0.example.com",
                        "add")
        server.spool.check_moved(n, since)
        added = [queue_id(first + i) for i in range(r["requests"])]
        log = server.spool.read_log(site + "0_example_com").decode().split()
        if not set(log) <= set(added) or (site != "d" and sorted(log) != sorted(added)):
            raise Wrong("the log is not what was added")
        if server.name != "flush(8)" and set(added[-5:]) - set(log):
            raise Wrong("adds were lost")
        server.spool.no_logs()
        return {"p50_us": r["p50_us"], "p99_ms": r["p99_us"] / 1000, "max_us": r["max_us"],
                "send_ms": r["send_ms"]}
    return run


def memory_run(clients, seconds):
    def run(server):
        server.spool.empty_logs()
        process = server.load_start("-c", clients, "-d", 1000, "-t", seconds, "-b",
                                    server.ids(2_000_000), "add")
        most = [0.0, 0]
        while process.poll() is None:
            most = [max(m) for m in zip(most, server.memory())]
            time.sleep(0.02)
        server.load_result(process)
        return {"pss_mib": most[0], "processes": most[1]}

    def limit(server):
        with server.serving():
            return run(server)

    return run, limit


def cold_run(n):
    def run(server):
        times = []
        for _ in range(n):
            server.sleep()
            time.sleep(0.1)
            times.append(server.load("-n", 1, "-b", server.ids(1), "add")["max_us"] / 1000)
        return {"ms": statistics.median(times)}
    return run


def figures(bench):
    """All of them, cheap ones first."""
    quick = bench.args.quick
    seconds = 0.5 if quick else 3
    ours = bench.fflushd
    found = []

    def add(name, metrics, run, limit=None, **kw):
        found.append(Figure(name, metrics, run, limit, **kw))

    def no_logs():
        for spool in bench.spools:
            spool.no_logs()

    rate_bars = {(8, 1): 3.0, (64, 1): 3.0, (8, 1000): 2.6, (64, 1000): 2.6, (1, 1): 1.0,
                 (1, 1000): 1.0}
    p99_bars = {8: 6.0, 64: 3.5}
    for sites in (1, 1000):
        for clients in (1, 8, 64, 512):
            add("add, %d client%s, %d site%s" % (clients, "s" * (clients > 1), sites,
                                                 "s" * (sites > 1)),
                [Metric("rate", "", "/s", True, rate_bars.get((clients, sites))),
                 Metric("p50_us", "p50", "us"),
                 Metric("p99_us", "p99", "us", ratio_bar=p99_bars.get(clients))],
                *add_run(clients, sites, seconds), before=no_logs,
                group="add, %d site%s" % (sites, "s" * (sites > 1)), x=clients)
    run, limit = add_run(1, 1, seconds)

    def limit_on_one_cpu(server):
        with server.serving():
            return one_cpu(run)(server)

    add("add, 1 client, 1 site, one CPU",
        [Metric("rate", "", "/s", True, 3.5), Metric("p50_us", "p50", "us"),
         Metric("p99_us", "p99", "us")], one_cpu(run), limit_on_one_cpu, before=no_logs)

    for clients in (64, 512):
        small = clients == 64
        add("memory, %d clients" % clients,
            [Metric("pss_mib", "PSS", "MiB", ratio_bar=4.0 if small else None),
             Metric("processes", "processes", "", most=1 if small else None)],
            *memory_run(clients, 1 if quick else 4), before=no_logs)

    for configuration, name, bar in (
            ("self-contained", "self-contained", 2.0),
            ("postconf kept", "values from postconf", 1 / 1.5),
            ("postconf", "values from postconf, none kept", None)):
        add("cold start, " + name, [Metric("ms", "", "ms", ratio_bar=bar)],
            cold_run(3 if quick else 10),
            before=lambda c=configuration: (no_logs(), ours.use(c)),
            after=lambda: ours.use("self-contained"))

    for clients, bar in ((1, 1.2), (8, 1.8)):
        add("send_file, %d client%s" % (clients, "s" * (clients > 1)),
            [Metric("rate", "", "/s", True, bar), Metric("p99_us", "p99", "us")],
            *send_file_run(2000 if quick else 10_000, clients), before=no_logs)

    for n in (1000, 5000) if quick else (1000, 10_000, 100_000, 300_000):
        for duplicates, bar in ((1, 1.15), (5, 2.3)):
            how = "5-fold duplicates" if duplicates > 1 else "no duplicates"
            add("send_site of %d, %s" % (n, how),
                [Metric("ms", "", "ms", ratio_bar=bar if n <= 100_000 else None)],
                *send_run(n, duplicates), before=no_logs, group="send_site, " + how, x=n)
    long = 20_000 if quick else 100_000
    add("send_site of %d" % long,
        [Metric("moved_ms", "first message moved", "ms"),
         Metric("begun_ms", "moved, qmgr woken", "ms", most=20)],
        send_run(long, 1, watch=True)[0], before=no_logs)
    for site, who, rate, bars in (("d", "same site", 200, {"most": 5}),
                                  ("other", "other site", 1000, {"ratio_bar": 1.0})):
        add("add to %s during it" % who,
            [Metric("p50_us", "p50", "us"), Metric("p99_ms", "p99", "ms", **bars),
             Metric("send_ms", "the send", "ms")], during_run(long, site, rate), before=no_logs)

    for n in (1000, 2000) if quick else (1000, 10_000, 100_000):
        bar = Metric("ms", "", "ms", ratio_bar=1.8 if n == 100_000 else 1.3)
        # The logs of a smaller one are the first of a larger one, and removing them is slow.
        add("refresh, %d logs" % n, [bar], *refresh_run(n),
            before=no_logs if n == 1000 else None, group="refresh", x=n)
        add("refresh, %d logs, 1024 descriptors" % n, [bar], *refresh_run(n),
            before=lambda: ours.use("self-contained", 1024),
            after=lambda: ours.use("self-contained"))
    words = bench.args.only or [""]
    return [f for f in found if any(re.search(w, f.name) for w in words)]


# ------------------------------------------------------------------------------- the run

class Bench:
    def __init__(self, args):
        self.args = args
        self.running = []
        if os.getuid() != 0:
            raise Problem("needs root, as Postfix's master does")
        owner = postconf_default("mail_owner")
        try:
            self.user = pwd.getpwnam(owner)
        except KeyError:
            raise Problem("needs Postfix: there is no user " + owner) from None
        for program in (args.fflushd, *map(self.tool, ("load", "limit", "hold"))):
            if not os.access(program, os.X_OK):
                raise Problem("there is no %s; make bench builds it" % program)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.base = os.path.realpath(tempfile.mkdtemp(prefix="fflushd-bench."))
        os.chmod(self.base, 0o755)
        self.log = open(os.path.join(self.base, "errors"), "w+b")
        self.measured = []

    def tool(self, name):
        return os.path.join(BUILD, "bench", name)

    def start(self, command, **kw):
        """In a session of its own: Ctrl-C is ours, and we end them."""
        kw = {"stdout": self.log, "stderr": self.log} | kw
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **kw)
        self.running.append(process)
        return process

    def stop(self, process):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.remove(process)

    def errors(self):
        self.log.seek(0)
        text = self.log.read().decode(errors="replace")
        return text[-2000:]

    def write_main_cf(self, directory, spool, data):
        os.mkdir(directory, 0o755)
        values = {"compatibility_level": "3.6", "queue_directory": spool.path,
                  "data_directory": data, "mail_owner": self.user.pw_name,
                  "command_directory": postconf_default("command_directory"),
                  "daemon_directory": postconf_default("daemon_directory"),
                  "myhostname": "bench.example.invalid", "mydestination": "",
                  "inet_interfaces": "loopback-only", "inet_protocols": "ipv4",
                  "maillog_file": os.path.join(spool.base, "mail.log"),
                  "maillog_file_prefixes": spool.base, "syslog_name": "bench",
                  "fast_flush_domains": "static:all"}
        with open(os.path.join(directory, "main.cf"), "w") as f:
            f.writelines("%s = %s\n" % item for item in values.items())

    def set_up(self):
        self.spools = [Spool(self, name) for name in ("original", "fflushd", "limit")]
        self.original = Original(self, self.spools[0])
        self.fflushd = Fflushd(self, self.spools[1])
        self.bare = Limit(self, self.spools[2])

    def close(self):
        """Leaves nothing behind, and is not to be hurried."""
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sig, signal.SIG_IGN)
        for process in self.running[::-1]:
            if process.poll() is None:
                self.stop(process)
        with contextlib.suppress(AttributeError):
            for spool in self.spools:
                for fd in (spool.incoming, spool.spare, *spool.deferred.values()):
                    os.close(fd)
        self.log.close()
        shutil.rmtree(self.base)

    def measure_all(self):
        """Adds to self.measured, so that an interrupted run has something to show."""
        chosen = figures(self)
        if not chosen:
            raise Problem("no figure has such a name")
        if any(re.match("send|refresh|add to", f.name) for f in chosen):
            progress("making the spools alike")
            for spool in self.spools:
                spool.age(20_000 if self.args.quick else 100_000)
        self.patience = Patience(self.args.patience)
        for k, figure in enumerate(chosen):
            progress("%d/%d %s" % (k + 1, len(chosen), figure.name))
            self.measured.append(figure)
            if figure.before:
                figure.before()
            for pair in range(self.args.pairs):
                self.measure_pair(figure, pair)
            if figure.after:
                figure.after()
        progress(None)

    def measure_pair(self, figure, pair):
        turns = [("original", self.original, figure.run), ("fflushd", self.fflushd, figure.run)]
        if pair % 2 == 1:
            turns.reverse()
        if figure.limit:
            turns.append(("limit", self.bare, figure.limit))
        for who, server, run in turns:
            if who != "limit":
                server.warm_up()
            try:
                value, share = self.patience.measure(lambda s=server, r=run: r(s))
            except Wrong as e:
                figure.errors.append("%s: %s" % (server.name, e))
                value, share = None, 0.0
            figure.values[who].append(value)
            figure.foreign[who].append(round(share, 3))


def progress(text):
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K" + (text or ""))
    elif text:
        sys.stderr.write("# %s\n" % text)
    sys.stderr.flush()


# ------------------------------------------------------------------------------- output

def number(value):
    if value is None:
        return "-"
    if value >= 1000:
        return "%d" % round(value)
    return "%.3g" % value


def with_unit(value, unit):
    return number(value) + (unit if unit == "/s" else " " + unit if unit else "") \
        if value is not None else "-"


def table(chosen):
    rows = [("figure", "flush(8)", "fflushd", "times better [min, max]", "limit", "bar", "")]
    disturbed = False
    for f in chosen:
        dirty = max((s for who in ("original", "fflushd") for s in f.foreign[who]),
                    default=0) > FOREIGN_MAX
        disturbed = disturbed or dirty
        for m in f.metrics:
            ratios = f.ratios(m)
            text = "%.2f [%.2f, %.2f]" % (statistics.median(ratios), min(ratios),
                                          max(ratios)) if ratios else "-"
            bar = ("<= " + with_unit(m.most, m.unit) if m.most is not None else
                   "%.2f" % m.ratio_bar if m.ratio_bar is not None else "")
            verdict = f.verdict(m)
            rows.append((f.name + (": " + m.label if m.label else "") + (" *" if dirty else ""),
                         with_unit(f.median("original", m.key), m.unit),
                         with_unit(f.median("fflushd", m.key), m.unit), text,
                         with_unit(f.median("limit", m.key), m.unit), bar.strip(),
                         "" if verdict is None else "PASS" if verdict else "below"))
    widths = [max(len(r[i]) for r in rows) for i in range(7)]
    lines = []
    for r in rows:
        cells = [r[0].ljust(widths[0])] + [r[i].rjust(widths[i]) for i in range(1, 7)]
        lines.append("  ".join(cells).rstrip())
    for f in chosen:
        lines += ["ERROR in %s: %s" % (f.name, e) for e in f.errors]
    if disturbed:
        lines.append("* others used more than %.1f CPUs meanwhile" % FOREIGN_MAX)
    return "\n".join(lines)


def as_json(facts, chosen, pairs):
    result = {"machine": facts, "pairs": pairs, "figures": []}
    for f in chosen:
        entry = {"name": f.name, "group": f.group, "x": f.x, "errors": f.errors,
                 "values": f.values, "foreign_cpus": f.foreign, "metrics": []}
        for m in f.metrics:
            ratios = f.ratios(m)
            entry["metrics"].append({
                "key": m.key, "unit": m.unit, "better": "more" if m.more_is_better else "less",
                **{who: f.median(who, m.key) for who in f.values},
                "ratio": {"median": statistics.median(ratios), "min": min(ratios),
                          "max": max(ratios)} if ratios else None,
                "bar": {"ratio": m.ratio_bar, "most": m.most}, "passed": f.verdict(m)})
        result["figures"].append(entry)
    return result


COLOURS = {"original": "#b3261e", "fflushd": "#1a5fb4", "limit": "#77767b"}
NAMES = {"original": "flush(8)", "fflushd": "fflushd", "limit": "bare system calls"}
WIDTH, HEIGHT, LEFT, TOP, PLOT_W, PLOT_H = 470, 330, 62, 40, 380, 236


class Panel:
    """One log-log diagram: [(who, [(x, median, least, greatest)])]."""

    def __init__(self, title, x_label, lines):
        self.title, self.x_label, self.lines = title, x_label, lines
        xs = [p[0] for _, points in lines for p in points]
        ys = [y for _, points in lines for p in points for y in p[1:]]
        self.x0, self.x1 = min(xs), max(xs)
        self.y0, self.y1 = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)))
        if self.y0 == self.y1:
            self.y1 *= 10

    def x(self, value):
        share = math.log(value / self.x0) / math.log(self.x1 / self.x0)
        return LEFT + 12 + (PLOT_W - 24) * share

    def y(self, value):
        share = math.log(value / self.y0) / math.log(self.y1 / self.y0)
        return TOP + PLOT_H * (1 - share)

    def svg(self):
        out = ['<text x="%d" y="24" class="title">%s</text>' % (LEFT, html.escape(self.title)),
               '<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#999"/>'
               % (LEFT, TOP, PLOT_W, PLOT_H),
               '<text x="%d" y="%d" text-anchor="middle">%s</text>'
               % (LEFT + PLOT_W / 2, TOP + PLOT_H + 38, html.escape(self.x_label))]
        for decade in range(round(math.log10(self.y0)), round(math.log10(self.y1)) + 1):
            for step in (1, 2, 5):
                value = step * 10.0 ** decade
                if value > self.y1 * 1.001:
                    break
                y = self.y(value)
                out.append('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>'
                           % (LEFT, y, LEFT + PLOT_W, y, "#ccc" if step == 1 else "#eee"))
                if step == 1 or self.y1 / self.y0 < 200:
                    out.append('<text x="%d" y="%.1f" text-anchor="end">%s</text>'
                               % (LEFT - 6, y + 4, short(value)))
        for value in sorted({p[0] for _, points in self.lines for p in points}):
            out.append('<text x="%.1f" y="%d" text-anchor="middle">%s</text>'
                       % (self.x(value), TOP + PLOT_H + 18, short(value)))
        for who, points in self.lines:
            path = " ".join("%.1f,%.1f" % (self.x(p[0]), self.y(p[1])) for p in points)
            dash = ' stroke-dasharray="5 4"' if who == "limit" else ""
            out.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>'
                       % (path, COLOURS[who], dash))
            for x, median, least, greatest in points:
                out.append('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>'
                           % (self.x(x), self.y(least), self.x(x), self.y(greatest), COLOURS[who]))
                out.append('<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>'
                           % (self.x(x), self.y(median), COLOURS[who]))
        return "\n".join(out)


def short(value):
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return "%g%s" % (value / factor, letter)
    return "%g" % value


def panels(chosen):
    found = []
    for group, key, title, x_label in (
            ("add, 1 site", "rate", "add to 1 site: requests/s (more is better)", "clients"),
            ("add, 1000 sites", "rate", "add to 1,000 sites: requests/s (more is better)",
             "clients"),
            ("add, 1 site", "p99_us", "add to 1 site: p99 latency, us", "clients"),
            ("add, 1000 sites", "p99_us", "add to 1,000 sites: p99 latency, us", "clients"),
            ("send_site, no duplicates", "ms", "send_site, no duplicates: ms", "messages"),
            ("send_site, 5-fold duplicates", "ms", "send_site, 5-fold duplicates: ms", "messages"),
            ("refresh", "ms", "refresh, one log in ten is stale: ms", "logs")):
        lines = []
        for who in COLOURS:
            points = []
            for f in chosen:
                values = [v[key] for v in f.values[who] if v and v.get(key)]
                if f.group == group and values:
                    points.append((f.x, statistics.median(values), min(values), max(values)))
            if len(points) > 1:
                lines.append((who, points))
        if lines:
            found.append(Panel(title, x_label, lines))
    return found


def as_svg(facts, chosen):
    """None if nothing was measured in more than one size."""
    drawn = panels(chosen)
    if not drawn:
        return None
    rows = (len(drawn) + 1) // 2
    width, height = 2 * WIDTH, 46 + rows * HEIGHT + 40
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">'
           % (width, height, width, height),
           "<style>text { font: 12px sans-serif; fill: #222 } .title { font-weight: bold; "
           "font-size: 13px }</style>",
           '<rect width="100%" height="100%" fill="white"/>']
    for i, (who, colour) in enumerate(COLOURS.items()):
        x = LEFT + i * 130
        dash = ' stroke-dasharray="5 4"' if who == "limit" else ""
        out.append('<line x1="%d" y1="24" x2="%d" y2="24" stroke="%s" stroke-width="2"%s/>'
                   '<text x="%d" y="28">%s</text>' % (x, x + 28, colour, dash, x + 34, NAMES[who]))
    out.append('<text x="%d" y="28" text-anchor="end">points: medians; bars: least to greatest'
               '</text>' % (width - 28))
    for i, panel in enumerate(drawn):
        out.append('<g transform="translate(%d %d)">\n%s\n</g>'
                   % (i % 2 * WIDTH, 46 + i // 2 * HEIGHT, panel.svg()))
    for i, keys in enumerate((("cpu", "system", "file_system"), ("original", "fflushd"))):
        note = "; ".join(facts[k] for k in keys)
        out.append('<text x="%d" y="%d" style="font-size: 9px">%s</text>'
                   % (LEFT, height - 22 + 12 * i, html.escape(note)))
    return "\n".join(out) + "\n</svg>\n"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0],
                                     epilog="Needs root and Postfix.")
    parser.add_argument("--quick", action="store_true", help="small sizes, 3 pairs: 2 minutes")
    parser.add_argument("--pairs", type=int, metavar="N", help="5; 3 with --quick")
    parser.add_argument("--only", action="append", metavar="PATTERN",
                        help="figures whose names match this; may be repeated")
    parser.add_argument("--fflushd", metavar="PATH", default=os.path.join(BUILD, "fflushd"))
    parser.add_argument("--output", metavar="DIRECTORY", default=".",
                        help="where bench.json and bench.svg go")
    parser.add_argument("--patience", type=float, metavar="SECONDS",
                        help="how long in all to wait for a quiet machine and repeat what was "
                        "disturbed (600; 20 with --quick)")
    args = parser.parse_args()
    args.fflushd = os.path.abspath(args.fflushd)
    args.pairs = args.pairs or (3 if args.quick else 5)
    if args.patience is None:
        args.patience = 20 if args.quick else 600
    return args


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    args = parse_arguments()
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    bench = None
    try:
        bench = Bench(args)
        facts = describe(bench.base, args.fflushd)
        for name, value in facts.items():
            print("%-13s %s" % (name + ":", value), flush=True)
        bench.set_up()
        bench.measure_all()
    except Problem as e:
        sys.exit("bench: %s" % e)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        if not bench or not bench.measured:
            sys.exit(1)
    finally:
        if bench:
            progress("cleaning up")
            bench.close()
            progress(None)
    chosen = bench.measured
    print("\n" + table(chosen))
    os.makedirs(args.output, exist_ok=True)
    with open(os.path.join(args.output, "bench.json"), "w") as f:
        json.dump(as_json(facts, chosen, args.pairs), f, indent=1)
        f.write("\n")
    picture = as_svg(facts, chosen)
    if picture:
        with open(os.path.join(args.output, "bench.svg"), "w") as f:
            f.write(picture)
    sys.exit(1 if any(f.errors for f in chosen) else 0)


if __name__ == "__main__":
    main()
