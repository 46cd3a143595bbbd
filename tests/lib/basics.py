# SPDX-License-Identifier: MIT
"""What all the others stand on: where things are, who runs them, how to wait and to compare."""

import os
import pwd
import time

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.abspath(os.environ.get("FFLUSHD_BUILD", "."))
HOUR, DAY = 3600, 24 * 3600
TIMEOUT = 30  # seconds; a hung daemon fails a test, it does not hang the suite


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
# Somebody else, also where "nobody" is the owner; it needs no account.
STRANGER = 65533 if USER is not None and USER.pw_uid == 65534 else 65534


def as_user():
    """Arguments for subprocess: run as the owner of the queue."""
    if USER is None:
        return {}
    return {"user": USER.pw_uid, "group": USER.pw_gid, "extra_groups": []}


def as_stranger():
    """Arguments for subprocess: run as somebody who may nothing. Root only."""
    return {"user": STRANGER, "group": STRANGER, "extra_groups": []}


def wait_for(condition, what="never happened", timeout=TIMEOUT):
    """Poll instead of sleeping a guessed time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.005)


class Skip(Exception):
    pass


def eq(got, wanted, what=""):
    if got != wanted:
        raise AssertionError("%s\n  got    %r\n  wanted %r" % (what, got, wanted))


def read_text(path):
    with open(path) as f:
        return f.read()
