# SPDX-License-Identifier: MIT
"""What the integration tests share: a queue directory, the real fflushd on it, its clients.

A test file defines functions under @test and ends in harness.main(). The programs under test come
from $FFLUSHD_BUILD (make check sets it), else from the current directory. Run as root, the daemon
runs as an ordinary user, so that permissions mean something.
"""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.abspath(os.environ.get("FFLUSHD_BUILD", "."))
ANNOUNCEMENT = b"protocol\0queue_flush_protocol\0\0"
TIMEOUT = 30  # seconds; a hung daemon fails a test, it does not hang the suite
QUEUES = ("incoming", "active", "deferred", "hold", "flush", "public")


def test_user():
    """The user that owns the queue and runs the daemon, or None for ourselves."""
    if os.getuid() != 0:
        return None
    for name in ("postfix", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    return None


USER = test_user()


def status(n):
    return b"status\0%d\0\0" % n


OK, BAD, DENY, FAIL = status(0), status(3), status(4), status(4294967295)


def attrs(*pairs):
    """A request: attrs("add", ("site", s), ("queue_id", q)), values str or bytes."""
    out = b"request\0" + _bytes(pairs[0]) + b"\0"
    for name, value in pairs[1:]:
        out += _bytes(name) + b"\0" + _bytes(value) + b"\0"
    return out + b"\0"


def _bytes(s):
    return s if isinstance(s, bytes) else s.encode()


def add(site, queue_id):
    return attrs("add", ("site", site), ("queue_id", queue_id))


def send_site(site, *more):
    return attrs("send_site", ("site", site), *more)


def send_file(queue_id, *more):
    return attrs("send_file", ("queue_id", queue_id), *more)


REFRESH = attrs("rfrsh")
PURGE = attrs("purge")


class Spool:
    """A queue directory with a FIFO in the place of qmgr."""

    def __init__(self, base, qmgr="fifo"):
        self.path = os.path.join(base, "queue")
        os.mkdir(self.path, 0o755)
        for queue in QUEUES:
            os.mkdir(self.join(queue), 0o700)
        if qmgr == "fifo":
            os.mkfifo(self.join("public/qmgr"), 0o622)
            self.qmgr = os.open(self.join("public/qmgr"), os.O_RDONLY | os.O_NONBLOCK)
        else:
            self.qmgr = None
        self.own(self.path)

    def join(self, *parts):
        return os.path.join(self.path, *parts)

    def own(self, top):
        if USER is None:
            return
        os.chown(top, USER.pw_uid, USER.pw_gid)
        for root, dirs, files in os.walk(top):
            for name in dirs + files:
                os.chown(os.path.join(root, name), USER.pw_uid, USER.pw_gid, follow_symlinks=False)

    def triggers(self):
        """What qmgr was sent since the last call."""
        try:
            return os.read(self.qmgr, 65536)
        except BlockingIOError:
            return b""

    def put(self, path, mode=0o700, data=b"message", mtime=3600, atime=None):
        """Make a file; times are seconds from now."""
        full = self.join(path)
        made = os.path.dirname(full)
        if not os.path.isdir(made):
            os.makedirs(made, 0o700)
            self.own(self.join(path.split("/")[0]))
        with open(full, "wb") as f:
            f.write(data)
        os.chmod(full, mode)
        if USER is not None:
            os.chown(full, USER.pw_uid, USER.pw_gid)
        now = time.time()
        os.utime(full, (now + (mtime if atime is None else atime), now + mtime))
        return full

    def log(self, name, data, mtime=-3600, atime=None):
        return self.put("flush/" + name, 0o600, data, mtime, atime)

    def read(self, path):
        with open(self.join(path), "rb") as f:
            return f.read()

    def files(self, queue):
        """Paths of all files of a queue, below the queue directory, sorted."""
        found = []
        for root, _, files in os.walk(self.join(queue)):
            found += [os.path.relpath(os.path.join(root, f), self.path) for f in files]
        return sorted(found)

    def close(self):
        if self.qmgr is not None:
            os.close(self.qmgr)


def as_user():
    """Arguments for subprocess: run as the owner of the queue."""
    if USER is None:
        return {}
    return {"user": USER.pw_uid, "group": USER.pw_gid, "extra_groups": []}


class Daemon:
    """fflushd on a spool.

    activation "sd": under systemd-socket-activate, which becomes the daemon at the first
    connection. activation "hold": start() passes the socket as systemd would, as often as one
    likes; between two daemons the socket and its backlog stay with us.
    """

    def __init__(self, spool, base, activation="sd", config="", env=None, **settings):
        self.spool, self.base, self.env = spool, base, dict(env or {})
        self.socket_path = spool.join("public/fflushd")
        self.config = os.path.join(base, "fflushd.conf")
        self.stderr_path = os.path.join(base, "stderr")
        self.process = None
        self.listener = None
        self.state = os.path.join(base, "state")
        os.mkdir(self.state, 0o755)
        if USER is not None:
            os.chown(self.state, USER.pw_uid, USER.pw_gid)
        self.env = {"STATE_DIRECTORY": self.state} | self.env
        settings = {"queue_directory": spool.path, "postfix_config_directory": "",
                    "fast_flush_domains": "static:all", "max_idle": "1000s"} | settings
        with open(self.config, "w") as f:
            f.write(config)
            for name, value in settings.items():
                f.write("%s = '%s'\n" % (name, value))
        os.chmod(self.config, 0o644)
        self.bin = os.path.join(base, "bin")
        os.mkdir(self.bin)
        for program in ("fflushd", "fflushctl"):
            shutil.copy(os.path.join(BUILD, program), self.bin)
        self.wrapper = os.environ.get("FFLUSHD_WRAPPER", "").split()  # valgrind, strace
        self.command = self.wrapper + [os.path.join(self.bin, "fflushd"), "--config", self.config]
        if activation == "sd":
            self.start_sd()
        else:
            self.listen()
            self.start()

    def start_sd(self):
        variables = {k: v for k, v in os.environ.items()
                     if k.startswith(("ASAN_", "UBSAN_", "LSAN_", "VALGRIND"))} | self.env
        args = ["systemd-socket-activate", "-l", self.socket_path]
        for name, value in variables.items():
            args += ["-E", "%s=%s" % (name, value)]
        with open(self.stderr_path, "ab") as err:
            self.process = subprocess.Popen(args + self.command, stderr=err,
                                            stdin=subprocess.DEVNULL, **as_user())
        wait_for(lambda: is_listening(self.socket_path), "no socket")

    def listen(self, backlog=1024):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bind(self.listener, self.socket_path)
        os.chmod(self.socket_path, 0o666)
        self.listener.listen(backlog)

    def start(self):
        """Pass the socket to a new daemon, as systemd does."""
        fd = self.listener.fileno()
        script = 'exec 3<&"$0"; LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; exec "$@"'
        with open(self.stderr_path, "ab") as err:
            self.process = subprocess.Popen(["bash", "-c", script, str(fd)] + self.command,
                                            stderr=err, stdin=subprocess.DEVNULL, pass_fds=[fd],
                                            env=dict(os.environ) | self.env, **as_user())

    def connect(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(TIMEOUT)
        connect(s, self.socket_path)
        return s

    def exchange(self, data, eof=False, pieces=None, pause=0.0):
        """Send a request and return all that comes back, without the announcement.

        pieces: where to cut the request; eof: half-close after it.
        """
        with self.connect() as s:
            for piece in cut(data, pieces):
                try:
                    s.sendall(piece)
                except (BrokenPipeError, ConnectionResetError):
                    break
                if pause:
                    time.sleep(pause)
            if eof:
                try:
                    s.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            got = receive_all(s)
        return got.removeprefix(ANNOUNCEMENT)

    def stderr(self):
        with open(self.stderr_path, "rb") as f:
            return f.read().decode(errors="replace")

    def journal(self):
        """The journal lines so far, with their <N>."""
        return [line for line in self.stderr().splitlines() if line.startswith("<")]

    def stop(self, sig=signal.SIGTERM):
        """End the daemon; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(TIMEOUT)

    def close(self):
        try:
            if self.process.poll() is None:
                # systemd-socket-activate that was never connected to has no clean way to end
                started = not self.is_waiting()
                code = self.stop()
                if started and code != 0:
                    raise AssertionError("exit status %d\n%s" % (code, self.stderr()[-4000:]))
        finally:
            if self.listener is not None:
                self.listener.close()
        if "Sanitizer" in self.stderr() or "runtime error" in self.stderr():
            raise AssertionError(self.stderr()[-8000:])

    def is_waiting(self):
        try:
            with open("/proc/%d/comm" % self.process.pid) as f:
                return f.read().startswith("systemd-socket")
        except FileNotFoundError:
            return False

    def ctl(self, *args, check=True):
        """Run fflushctl; its completed process."""
        r = subprocess.run([os.path.join(self.bin, "fflushctl"), "--config", self.config, *args],
                           capture_output=True, text=True, timeout=TIMEOUT,
                           env=dict(os.environ) | {"STATE_DIRECTORY": self.state}, **as_user())
        if check and r.returncode != 0:
            raise AssertionError("fflushctl %s: %d\n%s" % (args, r.returncode, r.stderr))
        return r


def is_listening(path):
    """Bound is not enough, and trying it out would activate the daemon."""
    accepting = "00010000"
    with open("/proc/net/unix") as f:
        return any(line.split()[3] == accepting for line in f if line.endswith(path + "\n"))


def in_directory(sock, path, call):
    """sun_path is short, temporary directories may be long."""
    directory = os.open(os.path.dirname(path), os.O_PATH)
    try:
        call("/proc/self/fd/%d/%s" % (directory, os.path.basename(path)))
    finally:
        os.close(directory)


def bind(sock, path):
    in_directory(sock, path, sock.bind)


def connect(sock, path):
    in_directory(sock, path, sock.connect)


def receive_all(s):
    got = b""
    try:
        while chunk := s.recv(65536):
            got += chunk
    except ConnectionResetError:
        pass
    return got


def cut(data, pieces):
    if pieces is None:
        return [data]
    if pieces == "bytes":
        return [data[i:i + 1] for i in range(len(data))]
    ends = sorted(set(pieces) | {len(data)})
    return [data[a:b] for a, b in zip([0] + ends, ends)]


def random_cuts(rng, data):
    return rng.sample(range(len(data) + 1), min(len(data), rng.randint(1, 5)))


def wait_for(condition, what="never happened", timeout=TIMEOUT):
    """Poll instead of sleeping a guessed time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.005)


def has_signal(process, mask, number):
    """Is it in a mask of /proc/PID/status: pending (ShdPnd), caught (SigCgt)?"""
    with open("/proc/%d/status" % process.pid) as f:
        bits = next(line for line in f if line.startswith(mask + ":")).split()[1]
    return bool(int(bits, 16) >> (number - 1) & 1)


class Case:
    """What a test gets: a temporary directory, and spools and daemons that are cleaned up."""

    def __init__(self):
        self.base = tempfile.mkdtemp(prefix="fflushd-test.")
        os.chmod(self.base, 0o755)
        self.rng = random.Random(SEED)
        self.open = []
        self.n = 0

    def make(self, qmgr="fifo", **settings):
        """A new spool with a daemon on it: (spool, daemon)."""
        self.n += 1
        base = os.path.join(self.base, str(self.n))
        os.mkdir(base, 0o755)
        if USER is not None:
            os.chown(base, USER.pw_uid, USER.pw_gid)
        spool = Spool(base, qmgr)
        self.open.append(spool)
        daemon = Daemon(spool, base, **settings)
        self.open.append(daemon)
        return spool, daemon

    def close(self):
        try:
            while self.open:
                self.open.pop().close()
        finally:
            for o in self.open:
                if isinstance(o, Daemon) and o.process.poll() is None:
                    o.process.kill()
            shutil.rmtree(self.base)


class Skip(Exception):
    pass


TESTS = []
BEFORE = []
SEED = int(os.environ.get("FFLUSHD_SEED", random.SystemRandom().randrange(1 << 32)))


def test(function):
    TESTS.append(function)
    return function


def before(function):
    """Called before each test."""
    BEFORE.append(function)
    return function


def eq(got, wanted, what=""):
    if got != wanted:
        raise AssertionError("%s\n  got    %r\n  wanted %r" % (what, got, wanted))


def run_one(function):
    case = Case()
    try:
        for prepare in BEFORE:
            prepare()
        function(case)
    finally:
        case.close()


def main():
    """Run the tests (all, or those whose names contain an argument), say how many passed.
    $FFLUSHD_SHARD: "2/3" for the second third of them."""
    # What a shell has put into the background ignores it, and so would all that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("# seed %d (FFLUSHD_SEED=%d repeats it)" % (SEED, SEED))
    passed = failed = skipped = 0
    shard, n_shards = map(int, os.environ.get("FFLUSHD_SHARD", "1/1").split("/"))
    for function in TESTS[shard - 1::n_shards]:
        name = function.__name__
        if len(sys.argv) > 1 and not any(word in name for word in sys.argv[1:]):
            continue
        start = time.monotonic()
        try:
            run_one(function)
            passed += 1
            outcome = "ok"
        except Skip as e:
            skipped += 1
            outcome = "skipped (%s)" % e
        except Exception:  # a test may fail in any way; the others still run
            traceback.print_exc(file=sys.stdout)
            failed += 1
            outcome = "FAILED"
        print("%s: %s (%.1f s)" % (outcome, name, time.monotonic() - start), flush=True)
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    sys.exit(1 if failed else 77 if passed == 0 else 0)
