# SPDX-License-Identifier: MIT
"""The original: a private Postfix instance with its flush(8), to compare with."""

import os

from postfix import Instance
from spool import Spool


class Original(Instance):
    """flush(8), and nothing else of Postfix that would do anything by itself."""

    main_cf = {"syslog_name": "original", "service_throttle_time": "1s"}

    def __init__(self, case, spool, base, **main_cf):
        super().__init__(case, spool, base,
                         "flush unix n - n 0 0 flush\npostlog unix-dgram n - n - 1 postlogd\n",
                         **main_cf)


def make_original(t, **main_cf):
    """(spool, original) with its configuration written, not yet started."""
    t.n += 1
    base = os.path.join(t.base, "%d-original" % t.n)
    os.mkdir(base, 0o755)
    spool = Spool(base)
    t.open.append(spool)
    return spool, Original(t, spool, base, **main_cf)
