# SPDX-License-Identifier: MIT
"""Configurations that change while a daemon reads them."""

import os
import shutil
import threading
import time

from basics import Skip, eq
from client import OK, send_file


def set_config(d, **settings):
    """Write fflushd.conf anew, in one piece."""
    with open(d.config + ".new", "w") as f:
        for name, value in settings.items():
            f.write("%s = '%s'\n" % (name, value))
    os.rename(d.config + ".new", d.config)


class Postfix:
    """A configuration directory for the real postconf(1), which waits for a second or two when
    main.cf has just been changed."""

    def __init__(self, t, spool):
        if not shutil.which("postconf", path="/usr/sbin:/usr/bin"):
            raise Skip("needs Postfix's postconf(1)")
        self.dir = os.path.join(t.base, "etc")
        self.main_cf = os.path.join(self.dir, "main.cf")
        self.spool = spool
        os.mkdir(self.dir, 0o755)
        with open(os.path.join(self.dir, "master.cf"), "w"):
            pass

    def write(self, text, ago=0, queue=None):
        with open(self.main_cf + ".new", "w") as f:
            f.write("queue_directory = %s\n%s\n" % (queue or self.spool.path, text))
        os.utime(self.main_cf + ".new", (time.time() - ago,) * 2)
        os.rename(self.main_cf + ".new", self.main_cf)


def make_with_postfix(t, text, ago=3600, env=None, **settings):
    spool, d = t.make(activation="hold", env=env)
    eq(d.exchange(send_file("AAAA")), OK)  # it handles signals
    eq(d.stop(), 0)
    p = Postfix(t, spool)
    p.write(text, ago)
    set_config(d, postfix_config_directory=p.dir, **({"max_idle": "1000s"} | settings))
    d.start()
    return spool, d, p


class Edits(threading.Thread):
    """main.cf is written over and over, as by a playbook."""

    def __init__(self, postfix, text, every=0.4):
        super().__init__()
        self.postfix, self.text, self.every = postfix, text, every
        self.ended = threading.Event()
        self.edit(0)
        self.start()

    def edit(self, n):
        self.postfix.write("%s\n# edit %d" % (self.text, n))

    def run(self):
        n = 0
        while not self.ended.wait(self.every):
            n += 1
            self.edit(n)

    def end(self):
        self.ended.set()
        self.join()
