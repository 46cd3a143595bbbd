# SPDX-License-Identifier: MIT
"""The real fflushd on a queue directory."""

import os
import shutil
import signal
import socket
import subprocess
import time

from basics import BUILD, TIMEOUT, USER, as_user, wait_for
from client import ANNOUNCEMENT, bind, connect_to, talk


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
        return connect_to(self.socket_path)

    def exchange(self, data, eof=False, pieces=None, pause=0.0):
        """As client.talk(); without the announcement."""
        return talk(self, data, eof, pieces, pause).removeprefix(ANNOUNCEMENT)

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
                if started:
                    self.await_handlers()
                code = self.stop()
                if started and code != 0:
                    raise AssertionError("exit status %d\n%s" % (code, self.stderr()[-4000:]))
        finally:
            if self.listener is not None:
                self.listener.close()
        if "Sanitizer" in self.stderr() or "runtime error" in self.stderr():
            raise AssertionError(self.stderr()[-8000:])

    def await_handlers(self):
        """One that has just been activated would be killed by SIGTERM, and look as if it had crashed."""
        for _ in range(500):
            if self.process.poll() is not None or has_signal(self.process, "SigBlk", signal.SIGTERM):
                return
            time.sleep(0.01)

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


def has_signal(process, mask, number):
    """Is it in a mask of /proc/PID/status: pending (ShdPnd), caught (SigCgt)?"""
    with open("/proc/%d/status" % process.pid) as f:
        bits = next(line for line in f if line.startswith(mask + ":")).split()[1]
    return bool(int(bits, 16) >> (number - 1) & 1)
