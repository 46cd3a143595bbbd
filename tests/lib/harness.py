# SPDX-License-Identifier: MIT
"""What makes a suite of a file: its cases, what each of them gets, and how they are run.

A test file defines functions under @test and ends in main(). The programs under test come from
$FFLUSHD_BUILD (make check sets it), else from the current directory. Run as root, the daemon runs
as an ordinary user, so that permissions mean something.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

from basics import Skip, USER
from daemon import Daemon
from spool import Spool


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


def run_one(function):
    case = Case()
    try:
        for prepare in BEFORE:
            prepare()
        function(case)
    finally:
        case.close()


def in_a_line(error):
    """What failed and where, for the list of failures that tools/check ends with."""
    calls = " < ".join("%s:%d" % (os.path.basename(f.filename), f.lineno)
                       for f in reversed(traceback.extract_tb(error.__traceback__)[1:]))
    said = " ".join(str(error).split())
    shown = said if len(said) < 500 else said[:250] + "..." + said[-250:]
    return "%s: %s (%s)" % (type(error).__name__, shown, calls)


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
        except Exception as e:  # a test may fail in any way; the others still run
            traceback.print_exc(file=sys.stdout)
            failed += 1
            outcome = "FAILED"
            name += ": " + in_a_line(e)
        print("%s: %s (%.1f s)" % (outcome, name, time.monotonic() - start), flush=True)
    print("%d passed, %d failed%s" % (passed, failed, ", %d skipped" % skipped if skipped else ""))
    sys.exit(1 if failed else 77 if passed == 0 else 0)
