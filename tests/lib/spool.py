# SPDX-License-Identifier: MIT
"""A queue directory."""

import os
import time

from basics import USER

QUEUES = ("incoming", "active", "deferred", "hold", "flush", "public")


def queue_id(i):
    """The i-th of a million IDs, spread over the hash directories; as in bench/common.h."""
    return "%05X%X" % (i * 7919 % 1000000, 0x100000 + i)


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

    def lines(self, name):
        """The records of a log."""
        return self.read("flush/" + name).decode().split("\n")[:-1]

    def fill(self, log, n, first=0):
        """Defer n messages and record them, without the daemon; their IDs."""
        ids = [queue_id(first + i) for i in range(n)]
        for c in "0123456789ABCDEF":
            os.makedirs(self.join("deferred", c), 0o700, exist_ok=True)
        for i in ids:
            os.close(os.open(self.join("deferred", i[0], i), os.O_CREAT | os.O_WRONLY, 0o700))
        self.log(log, "".join(i + "\n" for i in ids).encode())
        self.own(self.join("deferred"))
        return ids

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
