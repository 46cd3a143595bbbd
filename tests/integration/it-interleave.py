#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Another program does its whole work at every system call: what was promised is kept.

Each scene of traced.py is played again and again, and the daemon stopped one system call later each
time. While it is stopped another program does all that it does: flush(8), postsuper, qmgr,
fflushctl, a second fflushd. Where that one has to wait for the daemon, since the daemon has the lock
or is asked, it goes as far as it can. Then the daemon goes on to its end, qmgr takes what is in
incoming, and a flush of each site has to find all the rest.

The other way round, fflushctl is stopped, and the daemon does its work: it-ctl-interrupted.py.

FFLUSHD_STRIDE=N stops at every Nth call only, each program at others. 1 is all.
"""

import dataclasses
import os
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)) + d for d in ("/../lib", "/interleave")]

from harness import main, test
from others import (DefersAgain, DefersThen, Exports, Flush8Adds, Flush8Sends, HashesBack, Holds, Imports,
                    RealFlush8, RealFlush8Sends, Reconfigures, Rehashes, Releases, Requeues, SecondDaemon,
                    SecondDaemonRefreshes, Takes, Verifies)
from rounds import Hyphened, REAL_STRIDE, STRIDE, interleave
from traced import SCENES


@test
def flush8(t):
    """To the letter of its description."""
    interleave(t, Flush8Adds, Flush8Sends)


@test
def flush8_opens_a_log_that_is_being_removed(t):
    scenes = [dataclasses.replace(s, calls=("fcntl", "unlinkat")) for s in SCENES
              if s.name == "refresh"]
    interleave(t, Flush8Adds, scenes=scenes, stride=1)


@test
def real_flush8(t):
    interleave(t, RealFlush8, RealFlush8Sends, stride=STRIDE * REAL_STRIDE)


@test
def a_second_daemon(t):
    interleave(t, SecondDaemon, SecondDaemonRefreshes)


@test
def fflushctl(t):
    interleave(t, Verifies, Imports)


@test
def fflushctl_export(t):
    interleave(t, Exports, stage=Hyphened)


@test
def postsuper(t):
    interleave(t, Holds, Releases, Requeues, Rehashes, HashesBack)


@test
def qmgr(t):
    interleave(t, Takes, DefersAgain, DefersThen)


@test
def an_edit_of_the_configuration(t):
    interleave(t, Reconfigures)


if __name__ == "__main__":
    main()
