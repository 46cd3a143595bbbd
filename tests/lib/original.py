# SPDX-License-Identifier: MIT
"""The original: a private Postfix instance with its flush(8), to compare with."""

import functools

from harness import *


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


class Original:
    """A private Postfix master with flush(8) on a spool, and what a client needs to reach it."""

    def __init__(self, t, spool, base, **main_cf):
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
        t.open.append(self)
        self.write_main_cf(self.conf, **main_cf)
        write_config(os.path.join(self.conf, "master.cf"),
                     "flush unix n - n 0 0 flush\npostlog unix-dgram n - n - 1 postlogd\n")

    def write_main_cf(self, directory, **main_cf):
        values = {"compatibility_level": "3.6", "queue_directory": self.spool.path,
                  "data_directory": self.data, "mail_owner": USER.pw_name,
                  "command_directory": postfix_default("command_directory"),
                  "daemon_directory": postfix_default("daemon_directory"),
                  "myhostname": "compare.example.invalid", "mydestination": "",
                  "inet_interfaces": "loopback-only", "inet_protocols": "ipv4",
                  "maillog_file": self.maillog, "maillog_file_prefixes": self.base,
                  "syslog_name": "original", "service_throttle_time": "1s",
                  "fast_flush_domains": "static:all"} | main_cf
        write_config(os.path.join(directory, "main.cf"),
                     "".join("%s = %s\n" % item for item in values.items()))

    def start(self):
        with open(os.path.join(self.base, "master.out"), "ab") as out:
            self.process = subprocess.Popen(
                [os.path.join(postfix_default("daemon_directory"), "master"), "-c", self.conf],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        # Master ends with us, whatever ends us: the pipe is closed then. (It changes its user on
        # the way, and so loses a PR_SET_PDEATHSIG.)
        self.guard = subprocess.Popen(["sh", "-c", 'read x; kill "$0"', str(self.process.pid)],
                                      stdin=subprocess.PIPE, start_new_session=True)
        wait_for(lambda: os.path.exists(self.socket_path) or self.process.poll() is not None,
                 "master makes no socket")
        if self.process.poll() is not None:
            raise AssertionError("master does not run\n" + self.journal())
        return self

    def connect(self):
        return Daemon.connect(self)

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


def make_original(t, **main_cf):
    """(spool, original) with its configuration written, not yet started."""
    t.n += 1
    base = os.path.join(t.base, "%d-original" % t.n)
    os.mkdir(base, 0o755)
    spool = Spool(base)
    t.open.append(spool)
    return spool, Original(t, spool, base, **main_cf)
