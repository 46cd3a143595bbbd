# SPDX-License-Identifier: MIT
"""Private Postfix instances, each on a queue directory of its own; nothing of the host's is touched."""

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from basics import Skip, TIMEOUT, TOP, USER, wait_for
from client import connect_to
from daemon import Daemon
from spool import Spool


@functools.cache
def postfix_default(name):
    """A built-in default of the installed Postfix; skips the test if there is none."""
    postconf = shutil.which("postconf", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if os.getuid() != 0:
        raise Skip("needs root")
    if postconf is None:
        raise Skip("needs Postfix")
    return subprocess.run([postconf, "-dh", name], check=True, capture_output=True,
                          text=True).stdout.strip()


def command(name):
    return os.path.join(postfix_default("command_directory"), name)


def write_config(path, text):
    """An old file: Postfix waits before it reads one that has just been changed."""
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o644)
    old = time.time() - 60
    os.utime(path, (old, old))


class Instance:
    """A private Postfix master on a spool, and what a client needs to reach its flush service.

    It runs what @master_cf names. @case closes it.
    """

    main_cf = {}  # what a kind of instance has in common

    def __init__(self, case, spool, base, master_cf, **main_cf):
        self.spool, self.base = spool, base
        owner = postfix_default("mail_owner")
        if USER is None or USER.pw_name != owner:
            raise Skip("the queue's owner is not Postfix's")
        self.socket_path = spool.join("public/flush")
        self.maillog = os.path.join(base, "mail.log")
        self.conf = os.path.join(base, "conf")
        os.mkdir(self.conf, 0o755)
        self.data = os.path.join(base, "data")
        os.mkdir(self.data, 0o700)
        os.chown(self.data, USER.pw_uid, USER.pw_gid)
        for name in ("private", "maildrop", "defer", "bounce", "saved", "trace", "corrupt"):
            if not os.path.isdir(spool.join(name)):
                os.mkdir(spool.join(name), 0o700)
        os.mkdir(spool.join("pid"), 0o755)
        spool.own(spool.path)
        os.chown(spool.join("pid"), 0, 0)
        self.process = self.guard = None
        case.open.append(self)
        self.write_main_cf(self.conf, **main_cf)
        write_config(os.path.join(self.conf, "master.cf"), master_cf)

    def write_main_cf(self, directory, **main_cf):
        values = {"compatibility_level": "3.6", "queue_directory": self.spool.path,
                  "data_directory": self.data, "mail_owner": USER.pw_name,
                  "command_directory": postfix_default("command_directory"),
                  "daemon_directory": postfix_default("daemon_directory"),
                  "inet_interfaces": "loopback-only", "inet_protocols": "ipv4",
                  "myhostname": "private.example.invalid", "mydestination": "",
                  "maillog_file": self.maillog, "maillog_file_prefixes": self.base,
                  "fast_flush_domains": "static:all"} | self.main_cf | main_cf
        write_config(os.path.join(directory, "main.cf"),
                     "".join("%s = %s\n" % item for item in values.items()))

    def start(self, ready="public/flush"):
        """Returns when the socket or FIFO @ready is there."""
        with open(os.path.join(self.base, "master.out"), "ab") as out:
            self.process = subprocess.Popen(
                [os.path.join(postfix_default("daemon_directory"), "master"), "-c", self.conf],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        # Master ends with us, whatever ends us: the pipe is closed then. (It changes its user on
        # the way, and so loses a PR_SET_PDEATHSIG.)
        self.guard = subprocess.Popen(["sh", "-c", 'read x; kill "$0"', str(self.process.pid)],
                                      stdin=subprocess.PIPE, start_new_session=True)
        wait_for(lambda: os.path.exists(self.spool.join(ready)) or self.process.poll() is not None,
                 "master makes no " + ready)
        if self.process.poll() is not None:
            raise AssertionError("master does not run\n" + self.journal())
        return self

    def connect(self):
        return connect_to(self.socket_path)

    def journal(self):
        text = ""
        for name in (self.maillog, os.path.join(self.base, "master.out")):
            if os.path.exists(name):
                with open(name, errors="replace") as f:
                    text += f.read()
        return text

    def close(self):
        if self.process is None:
            return
        # While nobody has waited for master, its number is nobody else's.
        self.guard.kill()
        self.guard.wait()
        self.guard.stdin.close()
        try:
            self.process.terminate()
            self.process.wait(TIMEOUT)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process = None


MASTER_CF = """
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
showq unix n - n - - showq
smtp unix - - n - 9 smtp
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
local unix - n n - - local
postlog unix-dgram n - n - 1 postlogd
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def answers(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Mailhost(Instance):
    """A private Postfix with a real queue manager on a spool that fflushd serves.

    Mail for up.test goes to an SMTP server of ours, once start_sink() has been called; mail for
    down.test to port 1, where nobody listens.
    """

    main_cf = {"myhostname": "host.test", "alias_maps": "", "alias_database": "",
               "local_recipient_maps": "", "disable_dns_lookups": "yes",
               "flush_service_name": "fflushd", "bounce_queue_lifetime": "1d"}

    def __init__(self, case, **main_cf):
        case.n += 1
        base = os.path.join(case.base, "host%d" % case.n)
        os.mkdir(base, 0o755)
        self.port = free_port()
        self.received = os.path.join(base, "received")
        self.sink = None
        super().__init__(case, Spool(base, qmgr=None), base, MASTER_CF, **(
            {"transport_maps": "inline:{up.test=smtp:[127.0.0.1]:%d, down.test=smtp:[127.0.0.1]:1, "
                               "off.test=retry:switched-off}" % self.port} | main_cf))
        os.chown(base, USER.pw_uid, USER.pw_gid)
        self.start("public/qmgr")
        self.daemon = Daemon(self.spool, base, postfix_config_directory=self.conf,
                             hash_queue_names="deferred, defer")
        case.open.append(self.daemon)

    def start_sink(self):
        self.sink = subprocess.Popen(
            [sys.executable, os.path.join(TOP, "tests/lib/mailhost.py"), "sink", str(self.port),
             self.received], stderr=subprocess.DEVNULL, start_new_session=True)
        wait_for(lambda: answers(self.port), "no SMTP server")

    def send(self, *recipients, n=1):
        for _ in range(n):
            subprocess.run([command("sendmail"), "-C", self.conf, "-f", "a@host.test",
                            *recipients], input="Subject: x\n\nx\n", text=True, check=True,
                           env=dict(os.environ, MAIL_CONFIG=self.conf))

    def ctl(self, *args, check=True):
        """As root: an ordinary user may not run postqueue for such an instance."""
        r = subprocess.run([os.path.join(self.daemon.bin, "fflushctl"), "-c", self.daemon.config,
                            *args], capture_output=True, text=True, timeout=TIMEOUT)
        if check and r.returncode != 0:
            raise AssertionError("fflushctl %s: %d\n%s" % (args, r.returncode, r.stderr))
        return r

    def defer(self, *recipients, n=1, ignore=()):
        """Mail that waits in the deferred queue, and is recorded; the IDs."""
        before = set(self.deferred())
        self.send(*recipients, n=n)
        wait_for(lambda: len(set(self.deferred()) - before) == n and
                 set(self.under_way()) <= set(ignore), "not deferred")
        return sorted(set(self.deferred()) - before)

    def deferred(self):
        return [os.path.basename(p) for p in self.spool.files("deferred")]

    def under_way(self):
        return [os.path.basename(p) for name in ("incoming", "active", "maildrop")
                for p in self.spool.files(name)]

    def close(self):
        try:
            if self.sink is not None:
                self.sink.kill()
                self.sink.wait()
        finally:
            super().close()


def needs_postmap():
    if not shutil.which("postmap", path="/usr/sbin:/usr/bin"):
        raise Skip("needs Postfix's postmap(1)")
