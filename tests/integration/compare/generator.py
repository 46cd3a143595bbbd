# SPDX-License-Identifier: MIT
"""Random requests, and what happens to the queues between them."""

import os
import random
import re
import stat
import time

from basics import DAY, HOUR, USER
from client import ANNOUNCEMENT, OK, PURGE, REFRESH, add, attrs, send_file, send_site
from deviations import (address_literals_work, first_string_decides, no_site_at_all_may_be_denied,
                        requests_are_bounded, same, silence_is_bad, unknown_request_is_bad)
from harness import SEED
from material import LITERALS, ODD_SITES, SITES, allowed_replies, make_ids, table_type, write_tables
from postfix import postfix_default
from queuefiles import folded_log, make_parents, put, read_quietly
from twins import Request, Twins


class Stream:
    """Random requests, and what happens to the queues between them."""

    def __init__(self, twins, style, literals=(), decidable=True):
        self.twins, self.rng = twins, twins.rng
        self.ids = make_ids(self.rng, style)
        # Few enough that they meet again, most of them eligible. With no log to send the
        # question has no effect, and the original answers it fast.
        replies = {site: allowed_replies(twins.original, site) for site in SITES}
        self.all_sites = [site for site in SITES if len(replies[site]) == 1]
        eligible = [site for site in self.all_sites if OK in replies[site]]
        self.sites = (self.rng.sample(eligible, min(len(eligible), 9))
                      + self.rng.sample(self.all_sites, 4))
        self.literals = literals
        self.decidable = decidable

    # requests

    def pick_site(self):
        """(text, the original's log or None)"""
        rng = self.rng
        site = rng.choice(self.sites if rng.random() < 0.85 else self.all_sites)
        if rng.random() < 0.12:
            return rng.choice(ODD_SITES), None
        text = rng.choice((site.normal,) + site.others)
        if text.isascii() and rng.random() < 0.3:
            text = "".join(rng.choice((c.upper(), c.lower())) for c in text)
        return text, folded_log(site.normal)

    def add(self):
        site, log = self.pick_site()
        queue_id = self.rng.choice(self.ids)
        return Request(add(site, queue_id), "add", "add", log, queue_id, reply=self.expect(site))

    def send_site(self):
        site, log = self.pick_site()
        return Request(send_site(site), "send_site", "send_site", log, reply=self.expect(site))

    @staticmethod
    def expect(site):
        return no_site_at_all_may_be_denied if site in ODD_SITES else same

    def send_file(self):
        queue_id = self.rng.choice(self.ids)
        return Request(send_file(queue_id), "send_file", "send_file", id=queue_id)

    def refresh(self):
        data = self.rng.choice((REFRESH, b"W\0", b"request\0rfrsh\0",
                                b"request\0rfrsh\0foo\0bar\0\0"))
        return Request(data, "refresh", "refresh")

    def wake_up_at_eof(self):
        return Request(b"W", "refresh", "refresh", eof=True)

    def purge(self):
        self.settle_times_for_purge()
        return Request(self.rng.choice((PURGE, PURGE, b"request\0purge\0")), "purge", "purge")

    def literal(self):
        site = self.rng.choice(LITERALS)
        works = site in self.literals
        r = self.rng.choice((Request(add(site, self.ids[0]), "literal", "add", id=self.ids[0]),
                             Request(send_site(site), "literal", "send_site")))
        if works:
            r.literal, r.reply = True, address_literals_work
        return r

    def valid(self):
        return self.rng.choice((self.add, self.send_site, self.send_file))()

    def with_extra(self):
        """An unknown attribute behind the last: executed all the same."""
        r = self.valid()
        name = self.rng.choice((b"foo", b"detail", b"site", b"request"))
        r.data = r.data[:-1] + name + b"\0" + self.rng.choice((b"", b"bar", b"0")) + b"\0\0"
        return r

    def with_junk(self):
        r = self.valid()
        r.data += self.rng.randbytes(self.rng.choice((1, 30, 3000))) + r.data
        return r

    def with_half_close(self):
        r = self.valid()
        r.eof = True
        return r

    # malformed ones

    def truncated(self):
        data = self.rng.choice((self.valid().data, REFRESH))
        n = self.rng.randrange(len(data))
        r = Request(data[:n], "truncated", eof=True)
        if n == 0:
            r.reply = silence_is_bad
        elif n <= 2:
            r.reply = unknown_request_is_bad
        elif data == REFRESH and n >= len(b"request\0rfrsh\0"):
            r.kind = "refresh"
        return r

    def bad_id(self):
        q = self.rng.choice(("AB\nCD", "..", "A/B", "A-B", "A\u00e9", "A" * 256, "", " A", "A ",
                             "A" * 5000))
        return Request(self.rng.choice((add(self.pick_site()[0], q), send_file(q))), "bad ID")

    def wrong_attributes(self):
        site, q = self.pick_site()[0], self.rng.choice(self.ids)
        extra = (self.rng.choice(("foo", "sit", "queue", "sites", "Site")), "bar")
        return Request(self.rng.choice((
            attrs("add", ("queue_id", q), ("site", site)),
            attrs("add", ("site", site)),
            attrs("add", ("queue_id", q)),
            attrs("add"),
            attrs("add", extra, ("site", site), ("queue_id", q)),
            attrs("add", ("site", site), extra, ("queue_id", q)),
            attrs("add", ("site", site), ("site", site), ("queue_id", q)),
            attrs("add", ("request", "add"), ("site", site), ("queue_id", q)),
            attrs("add", ("Site", site), ("queue_id", q)),
            attrs("send_site"),
            attrs("send_site", ("nexthop", site)),
            attrs("send_site", ("queue_id", q)),
            attrs("send_site", extra, ("site", site)),
            attrs("send_file"),
            attrs("send_file", ("site", site)),
            attrs("send_file", ("site", site), ("queue_id", q)),
            attrs("send_file", extra, ("queue_id", q)),
            b"foo\0bar\0" + add(site, q),
            b"Request\0" + add(site, q)[8:],
            b"protocol\0queue_flush_protocol\0\0",
            ANNOUNCEMENT + add(site, q),
            b"\0\0\0", b"\0" + add(site, q), b"X\0" + add(site, q), b"W\n\0", b"WX\0\0",
            b"FADI\0",
        )), "wrong attributes")

    def other_encoding(self):
        return Request(self.rng.choice((
            b"request=add\nsite=example.com\nqueue_id=ABC123\n\n",
            b"cmVxdWVzdA==:YWRk\n\n", b"GET / HTTP/1.0\r\n\r\n",
            b"\x16\x03\x01" + self.rng.randbytes(60).replace(b"\0", b"x"))), "other encoding",
            eof=True)

    def unknown(self):
        name = self.rng.choice(("bogus", "refresh", "Add", "ADD", "add ", "", "send", "rfrs", "w",
                                "send_sites", "x" * 3000))
        site, q = self.pick_site()[0], self.rng.choice(self.ids)
        data = self.rng.choice((attrs(name), attrs(name, ("site", site), ("queue_id", q))))
        r = Request(data, "unknown", reply=unknown_request_is_bad)
        if self.rng.random() < 0.3:
            r.data = self.rng.choice((b"\0", b"\0\0", b"X\0", b"XY", b"WW", b"F", b"w\0"))
            r.eof = r.data[-1:] != b"\0" or self.rng.random() < 0.5
        return r

    def wake_up_and_more(self):
        data = self.rng.choice((b"W\0\0", b"W\0x", b"W\0" + add("example.com", self.ids[0])))
        return Request(data, "wake-up and more", "refresh", reply=first_string_decides,
                       then_original=b"W\0")

    def wake_up_by_name(self):
        data = self.rng.choice((attrs("W"), b"request\0W\0", attrs("W", ("foo", "bar"))))
        return Request(data, "wake-up by name", "refresh")

    def too_long(self):
        return Request(send_site(".." + "a" * 70000), "too long", reply=requests_are_bounded)

    KINDS = (("add", 40), ("send_site", 14), ("send_file", 13), ("refresh", 4),
             ("wake_up_at_eof", 1), ("purge", 4), ("literal", 2), ("with_extra", 3),
             ("with_junk", 2), ("with_half_close", 2), ("truncated", 5), ("bad_id", 3),
             ("wrong_attributes", 7), ("other_encoding", 1), ("unknown", 3),
             ("wake_up_and_more", 1), ("wake_up_by_name", 1), ("too_long", 0.5))

    def request(self):
        """Deviation: flush(8) also flushes all while its list cannot be decided; fflushd answers FAIL."""
        names, weights = zip(*self.KINDS)
        while True:
            r = getattr(self, self.rng.choices(names, weights)[0])()
            if self.decidable or r.kind not in ("refresh", "purge"):
                return r

    # what happens to both queue directories

    def everywhere(self, queue_id):
        """Where the message is: the same in both."""
        found = []
        for queue in ("deferred", "incoming", "active", "hold"):
            path = self.twins.path(queue, queue_id)
            if os.path.lexists(self.twins.spools[0].join(path)):
                found.append((queue, path))
        return found

    def appear(self, queue_id, queue=None, mode=None):
        if self.everywhere(queue_id):
            return
        queue = queue or self.rng.choices(("deferred", "incoming", "active", "hold"),
                                          (8, 1, 2, 1))[0]
        mode = mode or self.rng.choice((0o700, 0o700, 0o700, 0o700, 0o600, 0o740, 0o710, 0o777))
        mtime = self.rng.choice((HOUR, HOUR, -HOUR))
        for spool in self.twins.spools:
            put(spool, self.twins.path(queue, queue_id), mode, b"message " + queue_id.encode(), mtime)

    def vanish(self, queue_id):
        for _, path in self.everywhere(queue_id):
            for spool in self.twins.spools:
                os.unlink(spool.join(path))

    def chmod(self, queue_id):
        mode = self.rng.choice((0o600, 0o700, 0o500, 0o640))
        for _, path in self.everywhere(queue_id):
            for spool in self.twins.spools:
                if not os.path.islink(spool.join(path)):
                    os.chmod(spool.join(path), mode)

    def travel(self, queue_id):
        """As qmgr does: incoming to active, and active to deferred or away."""
        at = [queue for queue, _ in self.everywhere(queue_id)]
        if at in (["incoming"], ["active"]):
            self.move(queue_id, at[0], "active" if at == ["incoming"] else "deferred")
        elif at == ["deferred"] and self.rng.random() < 0.3:
            self.move(queue_id, "deferred", "hold")

    def move(self, queue_id, source, target):
        until = time.time() + HOUR
        for spool in self.twins.spools:
            to = spool.join(self.twins.path(target, queue_id))
            make_parents(spool, self.twins.path(target, queue_id))
            os.rename(spool.join(self.twins.path(source, queue_id)), to)
            if not os.path.islink(to):
                os.chmod(to, os.stat(to).st_mode & 0o7737)
                os.utime(to, (until, until))

    def link(self, queue_id):
        if [queue for queue, _ in self.everywhere(queue_id)] not in (["deferred"], ["incoming"]):
            return
        path = self.everywhere(queue_id)[0][1]
        for spool in self.twins.spools:
            if not os.path.lexists(spool.join("saved", queue_id)):
                os.link(spool.join(path), spool.join("saved", queue_id), follow_symlinks=False)

    def symlink(self, queue_id):
        if self.everywhere(queue_id):
            return
        self.appear(queue_id, "deferred")
        path = self.twins.path("deferred", queue_id)
        for spool in self.twins.spools:
            target = put(spool, "saved/target")
            os.unlink(spool.join(path))
            os.symlink(os.path.relpath(target, os.path.dirname(spool.join(path))),
                       spool.join(path))
            os.chown(spool.join(path), USER.pw_uid, USER.pw_gid, follow_symlinks=False)

    def become_foreign(self, queue_id):
        if [queue for queue, _ in self.everywhere(queue_id)] != ["deferred"]:
            return
        for spool in self.twins.spools:
            path = spool.join(self.twins.path("deferred", queue_id))
            st = os.lstat(path)
            # One that we may write to we may touch, and a link anybody may.
            if stat.S_ISREG(st.st_mode) and st.st_nlink == 1 and not st.st_mode & 0o002:
                os.chown(path, 0, 0)

    def appear_twice(self, queue_id):
        """A copy in incoming as well, which the move replaces."""
        if [queue for queue, _ in self.everywhere(queue_id)] != ["deferred"]:
            return
        path = self.twins.spools[0].join(self.twins.path("deferred", queue_id))
        if os.lstat(path).st_uid == USER.pw_uid:
            for spool in self.twins.spools:
                put(spool, self.twins.path("incoming", queue_id), 0o700, b"copy")

    def pick_log(self):
        return folded_log(self.rng.choice(self.sites).normal)

    def set_times(self, log, atime=None, mtime=None):
        """Seconds from now; None leaves it."""
        now = time.time()
        for path in self.twins.log_paths(log):
            if os.path.exists(path):
                st = os.stat(path)
                os.utime(path, (st.st_atime if atime is None else now + atime,
                                st.st_mtime if mtime is None else now + mtime))
        self.twins.pure[self.twins.key(log)] = False

    def age_log(self, _):
        self.set_times(self.pick_log(), self.rng.choice((-13 * HOUR, -13 * HOUR, -11 * HOUR)),
                       self.rng.choice((None, -13 * HOUR, -6 * DAY, -8 * DAY)))

    def settle_times_for_purge(self):
        """A purge passes over what was read in this second: leave no doubt. More than a minute in the
        future would be a clock that was wrong, to fflushd."""
        now = time.time()
        for key, entry in self.twins.look_at_spool(0).items():
            if key.startswith("log ") and abs(entry.atime / 1e9 - now) < 60:
                self.set_times(key.removeprefix("log "), self.rng.choice((-HOUR, 45)))
        self.twins.pre = self.twins.look()

    def write_log(self, log, text, replace=False):
        now = time.time()
        for spool, path in zip(self.twins.spools, self.twins.log_paths(log)):
            old = b"" if replace or not os.path.exists(path) else read_quietly(path)
            put(spool, os.path.relpath(path, spool.path), 0o600, old + text, 0,
                self.rng.choice((0, 0, -13 * HOUR)) if replace else 0)
            os.utime(path, (now, now))
        self.twins.pure[self.twins.key(log)] = False

    def garbage(self, _):
        # No FF at the end of a log: flush(8) takes it for the end of the file.
        rng, ids = self.rng, [q.encode() for q in self.ids]
        lines = [rng.choice((b"../x", b"", b"AB-C", b"A\0B", ids[1] + b"\0junk", ids[2] + b"\r",
                             b"x" * 300, b"\xffx", ids[3], ids[4], b" " + ids[0], b"!!"))
                 for _ in range(rng.randint(1, 5))]
        self.write_log(self.pick_log(), b"\n".join(lines) + rng.choice((b"\n", b"\n", b"")))

    def many_duplicates(self, _):
        text = b"".join(q.encode() + b"\n" for q in self.rng.choices(self.ids[:4], k=600))
        self.write_log(self.pick_log(), text)

    def empty_log(self, _):
        log = self.pick_log()
        self.write_log(log, b"", replace=True)
        self.set_times(log, -8 * DAY, self.rng.choice((-8 * DAY, -6 * DAY)))

    def replace_log(self, _):
        """Another file under the same name."""
        log = self.pick_log()
        for path in self.twins.log_paths(log):
            if os.path.exists(path):
                os.unlink(path)
        if self.rng.random() < 0.7:
            self.write_log(log, self.rng.choice(self.ids).encode() + b"\n", replace=True)

    def stray_files(self, _):
        """No log. (One that is not in its place is not seen by flush(8); fflushd brings it there.)"""
        for spool in self.twins.spools:
            put(spool, "flush/no.log", 0o600, self.ids[0].encode() + b"\n", -13 * HOUR)

    EVENTS = (("appear", 12), ("vanish", 2), ("chmod", 2), ("travel", 8), ("link", 1),
              ("symlink", 0.5), ("become_foreign", 1), ("appear_twice", 1), ("age_log", 4),
              ("garbage", 2), ("many_duplicates", 0.3), ("empty_log", 0.5), ("replace_log", 0.5),
              ("stray_files", 0.2))

    def happen(self):
        names, weights = zip(*self.EVENTS)
        for _ in range(self.rng.choice((0, 0, 0, 1, 1, 2, 3))):
            name, queue_id = self.rng.choices(names, weights)[0], self.rng.choice(self.ids)
            self.twins.history.append("(%s %s)" % (name, queue_id))
            getattr(self, name)(queue_id)
        self.twins.pre = self.twins.look()

    def group(self):
        """Adds at the same time; not to a log whose last line is torn, and not for a site that
        is no UTF-8: no table is asked for it, but ours shares the failure of the other sites."""
        group = [self.add() for _ in range(self.rng.randint(2, 6))]
        group = [r for r in group if r.data.decode(errors="ignore").encode() == r.data] or group[:1]
        for r in group:
            entry = self.twins.pre[0].get(self.twins.key(r.log or ""))
            if entry and entry.data and not entry.data.endswith(b"\n"):
                return [r]
        return group

    def run(self, n):
        while self.twins.count["requests"] < n:
            self.happen()
            if self.rng.random() < 0.05:
                self.twins.step(*self.group())
            else:
                self.twins.step(self.request())


def make_stream(t, i, domains, strict, hashed, depth, style):
    rng = random.Random("%d stream %d" % (SEED, i))
    postfix_default("mail_owner")  # may skip
    domains = domains.replace("$TYPE", table_type())
    twins = Twins(t, rng, domains, strict, hashed, depth, write_tables)
    literals = (LITERALS if domains.endswith(" static:all") or domains == "static:all"
                else [x for x in LITERALS if x in domains])
    return Stream(twins, style, literals, not re.search("fail:|missing", domains))
