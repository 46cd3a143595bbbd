# SPDX-License-Identifier: MIT
"""What the suites of fflushctl share."""

import json
import os
import subprocess

from basics import as_user
from spool import QUEUES


def objects(completed):
    return [json.loads(line) for line in completed.stdout.splitlines()]


def results(completed):
    """Without the errors, and without what is null: not known, or not so."""
    return [{k: v for k, v in o.items() if v is not None} for o in objects(completed)
            if o["type"] != "error"]


def times(spool, path):
    st = os.stat(spool.join(path))
    return st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns


def snapshot(spool):
    """All files of the queues with everything about them that an operation might change."""
    found = {}
    for queue in QUEUES:
        for path in spool.files(queue):
            if queue != "public":
                st = os.stat(spool.join(path))
                found[path] = (st.st_mode, st.st_uid, st.st_size, st.st_ino, times(spool, path))
    return found


def backlog(spool):
    """Three sites: one with everything that may have become of a message."""
    for name in ("A1", "A2", "A3"):
        spool.put("deferred/A/" + name)
    spool.put("incoming/B1")
    spool.put("active/C1")
    spool.put("hold/D1")
    spool.put("deferred/E/E1")
    spool.log("example_com", b"A1\nA2\nA1\nB1\nC1\nD1\nF1\nA1\n", mtime=-7200, atime=-86400 * 3)
    spool.log("mail_example_com", b"A3\n", mtime=-150, atime=-7200)
    spool.log("aDb_test", b"E1\nE2\n", mtime=-600, atime=-600)


def write(directory, name, text, mode=0o644):
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def stand_in(case, name, script):
    """A command in a directory of its own, for PATH."""
    directory = os.path.join(case.base, "path-" + name)
    os.mkdir(directory, 0o755)
    write(directory, name, script, 0o755)
    return directory


def message(queue_id, *addresses, queue="deferred"):
    return json.dumps({"queue_name": queue, "queue_id": queue_id, "arrival_time": 1,
                       "message_size": 300, "forced_expire": False, "sender": "a@b.test",
                       "recipients": [{"address": a, "delay_reason": "why not"}
                                      for a in addresses]}) + "\n"


def import_from(daemon, text, *args):
    return subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args,
                           "import", "-"], input=text, capture_output=True, text=True,
                          **as_user())
