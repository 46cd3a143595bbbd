# SPDX-License-Identifier: MIT
"""Queue files and logs as the comparison sees them: names, places, records, everything about one."""

import os
import re
import stat
from typing import NamedTuple, Optional

from basics import USER

LOG_LETTERS = {".": "_", "-": "D", "_": "U", "[": "L", "]": "R", ":": "C"}


def our_log(site):
    name = "".join(LOG_LETTERS.get(c, c) for c in site)
    return name + "Z" if len(name) == 1 else name


def folded_log(site):
    return re.sub("[^a-z0-9]", "_", site)


def fold_log(name):
    """The original's name for one of ours."""
    return re.sub("[%s]" % "".join(LOG_LETTERS.values()), "_", name)


BASE52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


def forest(name, depth):
    key, end = name, name.rfind("z")
    if end >= 10:
        digits = [BASE52.find(c) for c in name[end - 4:end]]
        value = 0
        for d in digits:
            value = value * 52 + d
        key = "%05X" % (0 if -1 in digits else value)
    return [key[i] if i < len(key) else "_" for i in range(depth)]


def records(data):
    """Lines of a log: [(text, has its newline)]."""
    parts = data.split(b"\n")
    return [(p, True) for p in parts[:-1]] + ([(parts[-1], False)] if parts[-1] else [])


def valid_records(data):
    """The IDs of a log, each once, where and as it first occurs."""
    found = {}
    for text, whole in records(data):
        text = text.split(b"\0")[0]
        if re.fullmatch(rb"[A-Za-z0-9_]{1,255}", text):
            found.setdefault(text, whole)
    return list(found.items())


def distinct(data):
    return list(dict.fromkeys(text for text, _ in records(data)))


def join_records(lines):
    return b"".join(text + (b"\n" if whole else b"") for text, whole in lines)


class Entry(NamedTuple):
    kind: int
    mode: int
    owner: tuple
    links: Optional[int]
    data: Optional[bytes]
    mtime: Optional[int]  # nanoseconds
    atime: Optional[int]
    path: str

    def fixed(self):
        return self.kind, oct(self.mode), self.owner, self.links


def make_parents(spool, path):
    """As Postfix does, with mode 0700; and touches nothing else, as Spool.put() would."""
    parts = path.split("/")[:-1]
    for i in range(1, len(parts) + 1):
        directory = spool.join(*parts[:i])
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700)
            os.chown(directory, USER.pw_uid, USER.pw_gid)


def put(spool, path, *args, **kw):
    make_parents(spool, path)
    return spool.put(path, *args, **kw)


def read_quietly(path):
    """Read without a change to the atime, by which the refresh goes."""
    fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
    with open(fd, "rb") as f:
        return f.read()


def look_at(path, is_log):
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    owner = (st.st_uid, st.st_gid)
    if stat.S_ISDIR(kind):
        return Entry(kind, st.st_mode & 0o7777, owner, None, None, None, None, path)
    if stat.S_ISLNK(kind):
        # Deviation "symbolic links": flush(8) sets the time of what the link points to, fflushd
        # that of the link. Time stamps of links mean nothing to qmgr, which ignores links.
        return Entry(kind, 0, owner, st.st_nlink, os.readlink(path).encode(), None, None, path)
    return Entry(kind, st.st_mode & 0o7777, owner, st.st_nlink, read_quietly(path),
                 st.st_mtime_ns, st.st_atime_ns if is_log else None, path)


def moved(spool):
    """The IDs of what has come into the incoming queue."""
    return {path.split("/")[-1] for path in spool.files("incoming")}
