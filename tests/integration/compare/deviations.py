# SPDX-License-Identifier: MIT
"""All that fflushd does otherwise than flush(8), on purpose: one function for each difference.

First the replies: each function gets the original's reply, says what that has to be, and returns
fflushd's, or a set if more than one will do. Then what is in the queues.
"""

import collections
import os
import re
import stat
import time

from basics import USER, eq
from client import BAD, DENY, FAIL, OK
from queuefiles import distinct, folded_log, join_records, our_log, records, valid_records


def same(reply):
    return reply


def one_of(reply, *allowed):
    if reply not in allowed:
        raise AssertionError("the original answers %r, wanted one of %r" % (reply, allowed))


def unknown_request_is_bad(reply):
    """flush(8) hangs up on a request it does not know; its client cannot tell that from a crash.

    So it does for one or two bytes and EOF, which it takes for the name of a request."""
    one_of(reply, b"")
    return BAD


def silence_is_bad(reply):
    """EOF at once: of its BAD, flush(8) sends the last three bytes only."""
    one_of(reply, b"3\0\0", BAD)
    return BAD


def first_string_decides(reply):
    """"W", NUL and more is a wake-up, whatever else has arrived at that moment; flush(8) takes
    more than two bytes for an attribute list. (It then gets its wake-up by itself, so that the
    queues stay twins.)"""
    one_of(reply, BAD)
    return OK


def no_site_at_all_may_be_denied(reply):
    """What is no site is refused as such, and no table is asked for it; flush(8) asks all the same,
    and says FAIL if it cannot. Returns what is right."""
    return {DENY, FAIL} if reply == FAIL else reply


def requests_are_bounded(reply):
    """flush(8) reads lists of any length into its memory, and looks for any site."""
    one_of(reply, DENY, FAIL)
    return BAD


def address_literals_work(reply):
    """flush(8) refuses [192.0.2.1] since it knows internationalised names, by accident."""
    one_of(reply, DENY, OK)
    return OK


class Deviations:
    """The queues: each function looks at what one request did to both, checks exactly what may
    differ and makes the original's queue like ours, so that they are twins again."""

    def duplicates_are_coalesced(self, r):
        """An ID that is known to be recorded is not written again, so the log's mtime stays. (It
        has a meaning for empty logs only.)"""
        pre, a, b = self.log_entries(r.log)
        if pre is None or r.id.encode() not in distinct(pre.data) or a is None or b is None:
            return
        if b.data == self.pre[1][self.key(r.log)].data:
            eq(b.mtime, self.pre[1][self.key(r.log)].mtime, "mtime without a write")
            eq(a.data, pre.data + r.id.encode() + b"\n", "the original's log")
            self.copy(r.log, data=False)

    def last_line_gets_its_newline(self, r):
        """A last line without newline would become one with the next record."""
        pre, a, b = self.log_entries(r.log)
        if pre is None or pre.data == b"" or pre.data.endswith(b"\n"):
            return
        pre_b = self.pre[1][self.key(r.log)]
        eq(a.data, pre.data + r.id.encode() + b"\n", "the original's log")
        eq(b.data, pre_b.data + b"\n" + r.id.encode() + b"\n", "our log")
        self.copy(r.log)

    def unmoved_records_are_kept(self):
        """flush(8) empties the log whatever became of the messages. fflushd keeps the records
        of those that are in active or on hold, or could not be moved. Returns the logs that were
        sent."""
        sent = set()
        for key, pre in self.pre[0].items():
            a, b = self.post[0].get(key), self.post[1].get(key)
            if not key.startswith("log ") or not pre.data or a is None or a.data:
                continue
            sent.add(key)
            kept = [(text, whole) for text, whole in valid_records(self.pre[1][key].data)
                    if self.is_stuck(text.decode())]
            if b is None:
                raise AssertionError("%s: our log is gone" % key)
            self.check_rewritten(key, kept, b.data)
            self.pure[key] = not kept
            if kept:
                self.check_times(key, a, b)
                self.copy(key.removeprefix("log "))
        return sent

    def check_rewritten(self, key, lines, data):
        """The newline that ends a torn last line first may stay, even as an empty line."""
        old, wanted = self.pre[1][key].data, join_records(lines)
        if lines and not old.endswith(b"\n") and data == wanted + b"\n":
            return
        eq(data, wanted, "%s: records that stay of %r" % (key, old[-1000:]))

    def is_stuck(self, queue_id):
        """Not to be moved, as things were before the request?"""
        at = {queue: self.pre[0].get(self.path(queue, queue_id))
              for queue in ("deferred", "incoming", "active", "hold")}
        if at["deferred"]:
            return at["deferred"].owner[0] != USER.pw_uid
        return not at["incoming"] and bool(at["active"] or at["hold"])

    def refused_messages_are_not_touched(self, r):
        """send_file: flush(8) sets the time of a message that is not ready or has other links
        and then leaves it where it is, due too early."""
        for queue in ("deferred", "incoming"):
            key = self.path(queue, r.id)
            pre, a, b = (side.get(key) for side in (self.pre[1], self.post[0], self.post[1]))
            if pre is None:
                continue
            if (stat.S_ISREG(pre.kind) and pre.owner[0] == USER.pw_uid and a and b
                    and (pre.mode & 0o700 != 0o700 or pre.links != 1)):
                eq(b, pre, "a message that is refused")
                if not self.since - 1.1 <= a.mtime / 1e9 <= time.time():
                    raise AssertionError("the original did not touch %s" % key)
                self.copy_file(key, data=False)
            return

    def long_logs_are_compacted(self, sent):
        """A refresh removes duplicates and rubbish from a long log that it does not send."""
        for key, pre in self.pre[1].items():
            b = self.post[1].get(key)
            if not key.startswith("log ") or key in sent or len(pre.data) < 4096:
                continue
            ids = valid_records(pre.data)
            if len(records(pre.data)) <= 2 * len(ids):
                continue
            self.check_rewritten(key, ids, b.data)
            eq(b.atime, pre.atime, "%s: compaction is no send" % key)
            self.count["compacted"] += 1
            self.copy(key.removeprefix("log "))

    def address_literals_have_logs(self, r):
        """See address_literals_work(). Looked at and taken away: the original has no such log."""
        site = re.search(rb"site\0(\[[^\0]*\])\0", r.data).group(1).decode().lower()
        key = self.key(folded_log(site))
        if r.kind == "add":
            entry = self.post[1].pop(key)
            eq(os.path.basename(entry.path), our_log(site))
            eq(entry.data, r.id.encode() + b"\n", "log of %s" % site)
            os.unlink(entry.path)

    def order_of_concurrent_adds(self, requests):
        """None is right, nor a deviation: requests at the same time may come in any order."""
        added = collections.defaultdict(list)
        for r in requests:
            if r.log:
                added[r.log].append(r.id.encode())
        for log, ids in added.items():
            pre, a, b = self.log_entries(log)
            if a is None or b is None:
                continue
            old = [text for text, _ in records(pre.data)] if pre else []
            old_b = [text for text, _ in records(self.pre[1][self.key(log)].data)] if pre else []
            lines_a, lines_b = ([text for text, _ in records(e.data)] for e in (a, b))
            eq(lines_a[:len(old)], old, "flush(8): old records")
            eq(lines_b[:len(old_b)], old_b, "fflushd: old records")
            eq(sorted(lines_a[len(old):]), sorted(ids), "flush(8): new records")
            new = set(ids) if self.pure.get(self.key(log), True) else set(lines_b[len(old_b):])
            if not new <= set(ids) or set(lines_b) != set(old_b) | set(ids):
                raise AssertionError("fflushd: new records %r, wanted %r" % (lines_b, ids))
            self.copy(log)

    @staticmethod
    def triggers(kind, original, ours):
        """One "I" for a whole refresh, where flush(8) sends one for each log; and in a long
        send more than one, so that delivery starts early. What is to be compared."""
        if kind in ("refresh", "purge"):
            return re.sub(b"^I+$", b"I", original), ours
        if kind == "send_site":
            return original, re.sub(b"^FI+$", b"FI", ours)
        return original, ours


def hanging_up_is_fail(reply):
    one_of(reply, b"")
    return FAIL
