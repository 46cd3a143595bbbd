# SPDX-License-Identifier: MIT
"""flush(8) and fflushd side by side: each request goes to both, and everything is compared."""

import collections
import os
import re
import shutil
import stat
import time
from dataclasses import dataclass
from typing import Callable, Optional

from basics import USER, eq
from client import ANNOUNCEMENT, BAD, DENY, FAIL, OK, random_cuts, receive_all, talk
from deviations import Deviations, same
from material import SITES
from original import make_original
from queuefiles import distinct, fold_log, folded_log, forest, look_at, our_log, records


@dataclass
class Request:
    data: bytes
    name: str  # what it is, for people
    kind: Optional[str] = None  # add, send_site, send_file, refresh, purge, if answered OK
    log: Optional[str] = None  # the original's name of the site's log
    id: Optional[str] = None
    eof: bool = False
    reply: Callable = same  # the original's answer to ours: see "deviations"
    literal: bool = False
    then_original: Optional[bytes] = None  # sent to it only, afterwards


def talk_all(server, requests):
    """All at the same time; the replies in the order of the requests."""
    connections = [server.connect() for _ in requests]
    try:
        for s, r in zip(connections, requests):
            s.sendall(r.data)
        return [receive_all(s) for s in connections]
    finally:
        for s in connections:
            s.close()


class Twins(Deviations):
    """flush(8) and fflushd with the same configuration on two equal queue directories."""

    def __init__(self, t, rng, domains="static:all", strict=False, hashed="deferred, defer",
                 depth=1, prepare=None):
        self.rng, self.hashed, self.depth = rng, hashed.lower().replace(",", " ").split(), depth
        spool, self.original = make_original(
            t, hash_queue_names=hashed, hash_queue_depth=depth,
            parent_domain_matches_subdomains="relay_domains" if strict
            else "relay_domains, fast_flush_domains")
        if prepare:
            prepare(self.original)
        domains = domains.replace("$DIR", self.original.base)
        self.original.write_main_cf(
            self.original.conf, fast_flush_domains=domains, hash_queue_names=hashed,
            hash_queue_depth=depth, parent_domain_matches_subdomains="relay_domains" if strict
            else "relay_domains, fast_flush_domains")
        self.original.start()
        # A copy: fflushd leaves when its main.cf changes, and here nobody would start it again.
        conf = os.path.join(self.original.base, "conf-of-ours")
        shutil.copytree(self.original.conf, conf)
        our_spool, self.ours = t.make(postfix_config_directory=conf,
                                      fast_flush_domains=domains)
        os.mkdir(our_spool.join("saved"), 0o700)
        our_spool.own(our_spool.join("saved"))
        self.spools = [spool, our_spool]
        self.reversible = {folded_log(s.normal): our_log(s.normal) for s in SITES}
        self.pure = {}  # logs of which fflushd has written all, without anybody's help
        self.slack = 0.0
        self.count = collections.Counter()
        self.history = collections.deque(maxlen=12)
        self.pre = self.look()

    # places

    def path(self, queue, name):
        dirs = forest(name, self.depth) if queue in self.hashed else []
        return "/".join([queue] + dirs + [name])

    @staticmethod
    def key(log):
        return "log " + log

    def log_paths(self, log):
        """The log in both queue directories, by the original's name."""
        ours = self.reversible.get(log, log)
        return [spool.join(self.path("flush", name))
                for spool, name in zip(self.spools, (log, ours))]

    def log_entries(self, log):
        key = self.key(log)
        return self.pre[0].get(key), self.post[0].get(key), self.post[1].get(key)

    # looking

    def look(self):
        return [self.look_at_spool(side) for side in (0, 1)]

    def look_at_spool(self, side):
        spool, found = self.spools[side], {}
        for queue in ("incoming", "active", "deferred", "hold", "flush"):
            for root, dirs, files in os.walk(spool.join(queue)):
                for name in dirs + files:
                    full = os.path.join(root, name)
                    path = os.path.relpath(full, spool.path)
                    entry = look_at(full, queue == "flush")
                    if queue != "flush":
                        found[path] = entry
                    elif stat.S_ISDIR(entry.kind) and "flush" in self.hashed:
                        # Their names are those of the logs, which differ.
                        eq((entry.mode, entry.owner), (0o700, (USER.pw_uid, USER.pw_gid)), path)
                    else:
                        key = path
                        if not stat.S_ISDIR(entry.kind):
                            key = self.log_key(side, name, path) or path
                        if key in found:
                            raise AssertionError("two logs for %s" % key)
                        found[key] = entry
        return found

    def log_key(self, side, name, path):
        if not re.fullmatch("[A-Za-z0-9_]{2,255}", name) or path != self.path("flush", name):
            return None
        log = fold_log(name) if side == 1 else name
        if side == 1:
            eq(name, self.reversible.setdefault(log, name), "name of our log")
        return self.key(log)

    # making them equal again

    def copy(self, log, data=True):
        self.copy_file(self.key(log), data)

    def copy_file(self, key, data=True):
        a, b = self.post[0][key], self.post[1][key]
        if data:
            with open(a.path, "r+b") as f:
                f.write(b.data)
                f.truncate()
        atime = os.lstat(b.path).st_atime_ns
        os.utime(a.path, ns=(atime, b.mtime))
        self.post[0][key] = look_at(a.path, b.atime is not None)

    # comparing

    def check_times(self, key, a, b):
        for name in ("mtime", "atime"):
            ta, tb = getattr(a, name), getattr(b, name)
            if ta != tb and abs(ta - tb) > self.slack * 1e9:
                raise AssertionError("%s: %s of flush(8)'s %.3f, ours %.3f, it is %.3f" %
                                     (key, name, ta / 1e9, tb / 1e9, time.time()))

    def compare_entry(self, key, a, b):
        eq(b.fixed(), a.fixed(), key)
        if not key.startswith("log "):
            eq(b.data, a.data, key)
        else:
            eq(distinct(b.data), distinct(a.data), key + ": records")
            eq(b.data[-1:] == b"\n", a.data[-1:] == b"\n", key + ": final newline")
            eq(b.data == b"", a.data == b"", key + ": empty")
            if self.pure.get(key) and len(distinct(b.data)) != len(records(b.data)):
                raise AssertionError("%s: we wrote a duplicate: %r" % (key, b.data))
        self.check_times(key, a, b)

    def compare(self):
        a, b = self.post
        if a.keys() != b.keys():
            raise AssertionError("files in the queues:\n" + "\n".join(
                "  only %s has %s" % (who, side[key]) for who, side, other in
                (("flush(8)", a, b), ("fflushd", b, a)) for key in sorted(side.keys() - other)))
        for key in a:
            self.compare_entry(key, a[key], b[key])
            if key.startswith("log ") and key not in self.pre[0]:
                self.pure[key] = True
        for key in [k for k in self.pure if k not in a]:
            del self.pure[key]

    def settle(self, kind, requests, replies):
        """Compare, after what may differ has been dealt with."""
        # The original's clock has whole seconds.
        self.slack = max(self.slack, time.time() - self.since + 1.1)
        self.post = self.look()
        triggers = [spool.triggers() for spool in self.spools]
        original, ours = self.triggers(kind, *triggers)
        eq(ours, original, "triggers")
        if len(requests) > 1:
            self.order_of_concurrent_adds(
                [r for r, reply in zip(requests, replies) if reply == OK])
        else:
            self.apply_deviations(requests[0], kind)
        self.compare()
        self.pre = self.post

    def apply_deviations(self, r, kind):
        if r.literal:
            self.address_literals_have_logs(r)
        elif kind == "add" and r.log:
            self.last_line_gets_its_newline(r)
            self.duplicates_are_coalesced(r)
        elif kind == "send_file":
            self.refused_messages_are_not_touched(r)
        elif kind in ("send_site", "refresh", "purge"):
            sent = self.unmoved_records_are_kept()
            if kind != "send_site":
                self.long_logs_are_compacted(sent)

    def split_reply(self, answers):
        """Without announcements; there is one either from both or from none."""
        announced = [a.startswith(ANNOUNCEMENT) for a in answers]
        eq(announced[1], announced[0], "announcement")
        return [a.removeprefix(ANNOUNCEMENT) for a in answers]

    def step(self, *requests):
        """Send one request to both, or several at the same time, and compare."""
        self.since = time.time()
        text = " | ".join("%s %r%s" % (r.name, r.data[:200], " EOF" if r.eof else "")
                          for r in requests)
        self.history.append(text)
        try:
            if len(requests) > 1:
                answers = [talk_all(server, requests) for server in (self.original, self.ours)]
            else:
                answers = [[self.ask_original(requests[0])], [self.ask_us(requests[0])]]
            replies = []
            for r, a, b in zip(requests, *answers):
                original, ours = self.split_reply((a, b))
                wanted = r.reply(original)
                if not isinstance(wanted, set) or ours not in wanted:
                    eq(ours, wanted, "reply to %s %r" % (r.name, r.data[:200]))
                replies.append(ours)
                self.count["%s %s" % (r.name, NAMES.get(ours, ours))] += 1
            self.count["requests"] += len(requests)
            r = requests[0]
            also = [talk(self.original, r.then_original)] if r.then_original else []
            happened = all(x == OK for x in replies) or also
            self.settle(r.kind if happened else None, requests, replies)
        except Exception as e:
            raise AssertionError("%s\n%s\nflush(8): %s\nfflushd: %s" % (
                e, "\n".join(self.history), self.original.journal()[-1500:],
                self.ours.stderr()[-1500:])) from None

    def ask_original(self, r):
        return talk(self.original, r.data, r.eof)

    def ask_us(self, r):
        # The original goes by how many bytes have arrived, so only ours gets pieces.
        how = self.rng.random()
        if how < 0.7 or not r.data:
            return talk(self.ours, r.data, r.eof)
        if how < 0.95 or len(r.data) > 200:
            return talk(self.ours, r.data, r.eof, random_cuts(self.rng, r.data),
                        self.rng.choice((0, 0, 0.001)))
        return talk(self.ours, r.data, r.eof, "bytes")


NAMES = {OK: "OK", BAD: "BAD", DENY: "DENY", FAIL: "FAIL"}
