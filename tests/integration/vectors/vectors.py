# SPDX-License-Identifier: MIT
"""What flush(8) of Postfix 3.7 answers and does, vector by vector, and where fflushd means to
differ: bytes in, bytes out, the queue directory before and after, what qmgr is sent, and whether
the journal has a line about it.

Each row of a table is one vector, Vector(number, bytes, reply, after, before=, trig=, log=, ours=...).
Its number is that of the table of vectors that was taken from the real flush(8); where fflushd
differs on purpose, "ours" says from what and why, and the other columns are ours.
"""

from basics import DAY, HOUR, USER
from client import BAD, DENY, FAIL, OK, PURGE, REFRESH, add, attrs, send_file, send_site
from playing import Dir, Fifo, File, Hard, Link, NOTICE, QUIET, WARNING

LISTED = ("example.com, example.net, [192.0.2.1], bücher.example, under_score.example, a-b.example, "
          "a_b.example")
ALL = "static:all"


class Vector:
    """One vector.

    n       its number; letters tell the parts of one number apart
    sent    bytes, or several requests one after the other, each on its own connection
    reply   to each of them
    after   path -> what it is then (None: gone); all that is not named must be as before
    before  path -> what is there
    trig    what qmgr is sent
    log     WARNING, NOTICE or QUIET
    eof     the client half-closes after sending
    on      values of fast_flush_domains, LISTED and ALL
    cuts    where the request is cut when it is sent "whole", with a pause at each cut
    ours    how and why this is not what flush(8) does
    """

    def __init__(self, n, sent, reply, after=None, *, before=None, trig=b"", log=QUIET, eof=False,
                 on=(LISTED,), cuts=None, ours=""):
        self.n, self.reply, self.trig, self.log = str(n), reply, trig, log
        self.requests = sent if isinstance(sent, list) else [sent]
        self.before, self.after = before or {}, after or {}
        self.eof, self.on, self.cuts, self.ours = eof, on, cuts, ours

    def possible(self):
        """Only root can make files of others."""
        return USER is not None or not any(getattr(f, "foreign", False)
                                           for f in self.before.values())


def log(data, name="example_com", mtime=-HOUR, atime=None):
    return {"flush/" + name: File(data, 0o600, mtime, atime)}


def new(data, name="example_com"):
    """A log that has been written to, or been sent, just now."""
    return log(data, name, mtime=0)


def moved(mode=0o700, data=b"message"):
    return {"deferred/A/ABC123": None, "incoming/ABC123": File(data, mode, mtime=0)}


def message(**kw):
    return {"deferred/A/ABC123": File(**kw)}


MESSAGE = message()
RECORD = log(b"ABC123\n")
RECORDED = RECORD | MESSAGE
EMPTIED = new(b"")
FLUSHED = moved() | EMPTIED
OLD = log(b"ABC123\n", atime=-13 * HOUR) | MESSAGE
AN_HOUR = log(b"ABC123\n", atime=-HOUR) | MESSAGE
READ_ONLY = {"incoming/": Dir(0o500)}

ABC = add("example.com", "ABC123")
ADDED = new(b"ABC123\n")
SEND = send_site("example.com")
FILE = send_file("ABC123")
LONG_ID = "3pt2mN2VXxznjll"

LABEL = "a" * 63
TOTAL_253 = ".".join([LABEL, LABEL, LABEL, "b" * 49, "example.com"])
TOTAL_254 = ".".join([LABEL, LABEL, LABEL, "b" * 50, "example.com"])

# Reasons that several vectors share.
UNKNOWN = "BAD and a warning, not EOF without a reply: a client should see why it got nothing"
FIRST_STRING = "the first string alone decides about the form, never how many bytes arrived"
LOGGED = "every malformed request has a line in the journal; flush(8) says nothing of this one"
EXTRA = "a notice, not a warning: later clients may well send more"
SITE_LOG = "log names are reversible, so no two sites share a log"
NO_SITE = "what is no site is said to be none, with a warning, whatever the list"
FAILS = "FAIL and one line at once; flush(8) ends and the client sees EOF a second later"
KEPT = "an ID whose message could not be moved stays recorded"
UNTOUCHED = "a message that is refused keeps its time stamp"
ONE_I = "one trigger for a whole refresh, not one for each log"

PLAIN_ENCODING = b"request=add\nsite=example.com\nqueue_id=ABC123\n\n"
BASE64_ENCODING = b"cmVxdWVzdA==:YWRk\n\n"

REQUESTS = [
    # add
    Vector(1, b"request\0add\0site\0example.com\0queue_id\0ABC123\0\0", OK, ADDED),
    Vector(2, add("EXAMPLE.COM", "ABC123"), OK, ADDED),
    Vector(3, add("sub.example.com", "ABC"), OK, new(b"ABC\n", "sub_example_com")),
    Vector(4, add("nosuch.example", "ABC123"), DENY),
    Vector(5, b"request\0add\0queue_id\0ABC123\0site\0example.com\0\0", BAD, log=WARNING),
    Vector(6, b"request\0add\0site\0example.com\0\0", BAD, log=WARNING),
    Vector(7, b"request\0add\0site\0example.com\0queue_id\0ABC123\0foo\0bar\0\0", OK, ADDED, log=NOTICE,
           ours=EXTRA),
    Vector(8, b"request\0add\0site\0example.com\0foo\0bar\0queue_id\0ABC123\0\0", BAD, log=WARNING),
    Vector(9, b"foo\0bar\0request\0add\0site\0example.com\0queue_id\0ABC123\0\0", BAD, log=WARNING),
    Vector(10, b"request\0add\0site\0example.com\0site\0example.net\0queue_id\0ABC123\0\0", BAD, log=WARNING),

    # Requests that end early
    Vector(11, b"request\0add\0site\0example.com\0queue_id\0ABC123\0", BAD, eof=True, log=WARNING),
    Vector(13, b"request\0add\0site\0example.com\0queue_id\0ABC123", BAD, eof=True, log=WARNING),
    Vector(14, b"request\0add\0site\0example.com\0queue_id\0", BAD, eof=True, log=WARNING),
    Vector(15, b"request\0add\0", BAD, eof=True, log=WARNING, ours=LOGGED),
    Vector(16, b"request\0add\0\0", BAD, log=WARNING),
    Vector("17a", b"request", BAD, eof=True, log=WARNING),
    Vector("17b", b"request\0", BAD, eof=True, log=WARNING),
    Vector("17c", b"request\0add", BAD, eof=True, log=WARNING),

    # Requests that are none
    Vector(18, b"request\0\0\0", BAD, log=WARNING, ours=UNKNOWN),
    Vector("19a", b"request\0bogus\0\0", BAD, log=WARNING, ours=UNKNOWN),
    Vector("19b", b"request\0refresh\0\0", BAD, log=WARNING, ours=UNKNOWN),
    Vector("19c", b"request\0Add\0site\0example.com\0queue_id\0ABC123\0\0", BAD, log=WARNING, ours=UNKNOWN),
    Vector(20, b"Request\0add\0site\0example.com\0queue_id\0ABC123\0\0", BAD, log=WARNING),
    Vector(21, b"protocol\0queue_flush_protocol\0\0", BAD, log=WARNING),
    Vector(22, b"request\0add\0request\0add\0\0", BAD, log=WARNING),
    Vector(23, b"\0\0\0", BAD, log=WARNING),
    Vector("24a", b"\0", BAD, log=WARNING, ours=UNKNOWN),
    Vector("24b", b"\0\0", BAD, log=WARNING, ours=UNKNOWN),

    # Wake-ups, and what looks like one
    Vector("25a", b"W\0", OK, FLUSHED, before=OLD, trig=b"I"),
    Vector("25b", b"W\0", OK, FLUSHED, before=OLD, trig=b"I", cuts=[1]),
    Vector("25c", b"W", OK, FLUSHED, before=OLD, trig=b"I", eof=True),
    Vector("27a", b"X\0", BAD, before=OLD, log=WARNING, ours=UNKNOWN),
    Vector("27b", b"XY", BAD, before=OLD, eof=True, log=WARNING, ours=UNKNOWN),
    Vector("27c", b"WW", BAD, before=OLD, eof=True, log=WARNING, ours=UNKNOWN),
    Vector("28a", b"W\0\0", OK, FLUSHED, before=OLD, trig=b"I", ours=FIRST_STRING + " (flush(8): BAD)"),
    Vector("28b", b"W\n\0", BAD, before=OLD, log=WARNING),
    Vector("28c", b"request\0W\0\0", OK, FLUSHED, before=OLD, trig=b"I"),
    Vector("28d", b"request\0W\0", OK, FLUSHED, before=OLD, trig=b"I"),
    Vector("28e", b"request\0w\0\0", BAD, before=OLD, log=WARNING, ours=UNKNOWN),
    Vector(29, b"", BAD, eof=True,
           ours="a whole reply, not its last three bytes; nothing in the journal about a probe"),

    # Requests in pieces
    Vector(31, ABC, OK, ADDED, cuts=[2], ours=FIRST_STRING + " (flush(8): EOF without a reply)"),
    Vector(32, ABC, OK, ADDED, cuts=[3]),
    Vector(33, b"add\0site\0example.com\0queue_id\0ABC\0\0", BAD, cuts=[2], log=WARNING,
           ours=FIRST_STRING + " (flush(8) adds)"),
    Vector(34, b"rfrsh\0", BAD, before=OLD, cuts=[2], log=WARNING,
           ours=FIRST_STRING + " (flush(8) refreshes)"),
    Vector(35, ABC, OK, ADDED, cuts=[10, 20, 40]),

    # Sites and IDs
    Vector("36a", add("", "ABC123"), DENY, log=WARNING, on=(LISTED, ALL), ours=NO_SITE),
    Vector("36b", send_site(""), DENY, log=WARNING, on=(LISTED, ALL), ours=NO_SITE),
    Vector(37, add("example.com", ""), BAD, log=WARNING, ours=LOGGED),
    *[Vector("38" + part, add("example.com", queue_id), BAD, log=WARNING, ours=LOGGED)
      for part, queue_id in zip("abcdef", ["AB\nCD", "..", "A/B", "A-B", "Aé", 256 * "A"])],
    *[Vector("39" + part, add("example.com", queue_id), OK, new(queue_id.encode() + b"\n"))
      for part, queue_id in zip("abcd", ["A", "A_B", 255 * "A", LONG_ID])],
    Vector("40a", add("ex\nample.com", "ABCD"), DENY, log=WARNING, ours=NO_SITE),
    Vector("40b", add("a\nb.example.com", "X1"), DENY, log=WARNING),
    Vector(41, add("[192.0.2.1]", "ABC"), OK, new(b"ABC\n", "L192_0_2_1R"),
           ours="address literals that are eligible have logs, as before Postfix 3.0 (flush(8): DENY)"),
    Vector("42a", [add("bücher.example", "ABC"), add("BÜCHER.example", "ABC")], OK,
           new(b"ABC\n", "xnDDbcherDkva_example"),
           ours=SITE_LOG + "; the second line would say nothing new"),
    Vector("42b", [add("bücher.example", "ABC"), add("BÜCHER.example", "DEF")], OK,
           new(b"ABC\nDEF\n", "xnDDbcherDkva_example"), ours=SITE_LOG),
    Vector("43a", add("xn--bcher-kva.example", "ABC"), OK, new(b"ABC\n", "xnDDbcherDkva_example"),
           on=(LISTED,), ours="a site is eligible however it is written (flush(8): DENY)"),
    Vector("43b", add("xn--bcher-kva.example", "ABC"), OK, new(b"ABC\n", "xnDDbcherDkva_example"),
           on=(ALL,), ours=SITE_LOG),
    Vector("44a", add("a-b.example", "AB1"), OK, new(b"AB1\n", "aDb_example"), ours=SITE_LOG),
    Vector("44b", add("a_b.example", "AB2"), OK, new(b"AB2\n", "aUb_example"), ours=SITE_LOG),
    Vector("44c", [add("a-b.example", "AB1"), add("a_b.example", "AB2")], OK,
           new(b"AB1\n", "aDb_example") | new(b"AB2\n", "aUb_example"), ours=SITE_LOG),
    *[Vector("45" + part, add(site, "X1"), DENY, log=WARNING)
      for part, site in zip("abcdefgh", ["a..b.example.com", "-x.example.com", ".example.com",
                                         "a b.example.com", "*.example.com", "x@y.example.com",
                                         "x/y.example.com", b"x\xff.example.com"])],
    Vector(46, add("example.com.", "X1"), DENY, on=(LISTED, ALL), log=WARNING, ours=NO_SITE),
    *[Vector("47" + part, add(site, "ABC123"), DENY, on=(ALL,), log=WARNING)
      for part, site in zip("abcdefghijk", ["1.2.3.4", "123", "-a", "a-", "ab--cd.example",
                                            "xn--a.example", "*", "::1", "x:25", "a@b", "%"])],
    *[Vector("48" + part, add(site, "ABC123"), OK, new(b"ABC123\n", name), on=(ALL,), ours=ours)
      for part, site, name, ours in [
          ("a", "localhost", "localhost", ""),
          ("b", "___", "UUU", SITE_LOG),
          ("c", "a_b.c", "aUb_c", SITE_LOG),
          ("d", "a.b", "a_b", ""),
          ("e", "café", "xnDDcafDdma", SITE_LOG),
          ("f", "faß.example", "xnDDfaDhia_example", SITE_LOG),
          ("g", "EXAMPLE\u3002com", "example_com", "")]],
    Vector("49a", add("x", "ABC123"), OK, new(b"ABC123\n", "xZ"), on=(ALL,),
           ours="a log named \"x\" would keep Postfix from starting"),
    Vector("49b", REFRESH, OK, moved() | new(b"", "xZ"), trig=b"I", on=(ALL,),
           before=log(b"ABC123\n", "xZ", atime=-13 * HOUR) | MESSAGE,
           ours="the refresh works; that of flush(8) dies of its own log \"x\""),
    Vector("49c", REFRESH, OK, FLUSHED, before=OLD | log(b"DEF456\n", "x", atime=-13 * HOUR),
           trig=b"I", on=(ALL,), log=WARNING, ours="a log \"x\" that is there already is passed over"),
    Vector("50a", add(LABEL + ".example.com", "ABC"), OK, new(b"ABC\n", LABEL + "_example_com")),
    Vector("50b", add("a" + LABEL + ".example.com", "ABC"), DENY, log=WARNING),
    Vector("50c", add(TOTAL_253, "ABC"), OK, new(b"ABC\n", TOTAL_253.replace(".", "_"))),
    Vector("50d", add(TOTAL_254, "ABC"), DENY, log=WARNING),

    # Sizes, other encodings, more than one request
    Vector("51a", send_site(20000 * "a"), DENY, log=WARNING, ours=NO_SITE),
    Vector("51b", send_site(1000000 * "a"), BAD, log=WARNING,
           ours="a request has at most 64 KiB; flush(8) reads on and says DENY"),
    Vector("51c", ABC[:-1] + b"foo\0" + 65000 * b"a" + b"\0\0", OK, ADDED, log=NOTICE,
           ours=EXTRA + "; this is within the limit"),
    Vector("51d", ABC[:-1] + b"foo\0" + 65536 * b"a" + b"\0\0", BAD, log=WARNING,
           ours="a request has at most 64 KiB in all"),
    Vector(52, 1000000 * b"a" + b"\0\0\0", BAD, log=WARNING),
    Vector("53a", PLAIN_ENCODING, BAD, eof=True, log=WARNING),
    Vector("53b", BASE64_ENCODING, BAD, eof=True, log=WARNING),
    Vector(54, add("example.com", "AAA111") + add("example.com", "BBB222"), OK, new(b"AAA111\n")),
    Vector("56a", ABC + b"junk", OK, ADDED),
    Vector("56b", ABC + 8000 * b"x", OK, ADDED),
]

LOGS = [
    # The log as it is found by add
    Vector("58a", [ABC, ABC], OK, ADDED,
           ours="an ID that is known to be in the log is not written again"),
    Vector("58b", ABC, OK, log(b"ABC123\nABC123\n", mtime=0, atime=-HOUR), before=RECORD),
    Vector("58c", [ABC, ABC], OK, log(b"ABC123\nABC123\n", mtime=0, atime=-HOUR), before=RECORD,
           ours="what the log had before is not known, what we wrote is"),
    Vector(59, add("example.com", "DEF456"), OK, log(b"ABC123\nDEF456\n", mtime=0, atime=-HOUR),
           before=log(b"ABC123"),
           ours="the torn line gets its newline; flush(8) makes one record of two"),
    Vector("62a", ABC, FAIL, before={"flush/example_com": Link("/dev/full")}, log=WARNING,
           ours="no links are followed, and a record that is not written is not OK"),
    Vector("62b", ABC, FAIL, before={"hold/X": File(b""), "flush/example_com": Link("../hold/X")},
           log=WARNING, ours="no links are followed"),
    Vector("62c", ABC, FAIL, before={"flush/example_com": Link("nowhere")}, log=WARNING,
           ours="no links are followed, so nothing is made at their end"),

    # The log is not one
    *[Vector("63" + part, request, FAIL, before=MESSAGE | before, log=WARNING, ours=FAILS)
      for request, parts in ((ABC, "abcdefg"), (SEND, "hijklmn"))
      for part, before in zip(parts, [
          {"flush/example_com/": Dir()},
          {"flush/example_com": File(b"ABC123\n", 0o000, -HOUR)},
          {"flush/example_com": File(b"ABC123\n", 0o600, -HOUR, foreign=True)},
          {"flush/example_com": File(b"ABC123\n", 0o666, -HOUR, foreign=True)},
          {"hold/X": File(b"ABC123\n", 0o600), "flush/example_com": Link("../hold/X")},
          {"hold/X": File(b"ABC123\n", 0o600), "flush/example_com": Hard("hold/X")},
          {"flush/example_com": Fifo()}])],
    Vector("63o", ABC, FAIL, before={"flush/": Dir(0o500)}, log=WARNING, ours=FAILS),

    # send_site
    Vector(64, SEND, OK, before=MESSAGE),
    Vector(65, SEND, OK, EMPTIED, before=log(b""), trig=b"F"),
    Vector(66, send_site("eXample.COM"), OK, FLUSHED, before=RECORDED, trig=b"FI"),
    Vector(67, send_site("nosuch.example"), DENY, before=log(b"ABC123\n", "nosuch_example") | MESSAGE),
    Vector(68, SEND, OK, EMPTIED, before=RECORD, trig=b"FI"),
    Vector(69, SEND, OK, FLUSHED, before=log(3 * b"ABC123\n") | MESSAGE, trig=b"FI"),
    Vector("70a", SEND, OK, {"incoming/ABC123": File(mtime=0)} | EMPTIED,
           before=RECORD | {"incoming/ABC123": File()}, trig=b"FI"),
    Vector("70b", SEND, OK, {"incoming/ABC123": File(mtime=0)} | EMPTIED,
           before=RECORD | {"incoming/ABC123": File(mtime=-50)}, trig=b"FI"),
    Vector(71, SEND, OK, FLUSHED, before=RECORDED | {"incoming/ABC123": File(b"another")}, trig=b"FI"),
    Vector("72a", SEND, OK, moved(0o600) | EMPTIED, before=RECORD | message(mode=0o600), trig=b"FI"),
    Vector("72b", SEND, OK, moved(0o740) | EMPTIED, before=RECORD | message(mode=0o740), trig=b"FI"),
    Vector(73, SEND, OK, FLUSHED | {"deferred/D/DEF456": None, "incoming/DEF456": File(mtime=0)},
           before=log(b"../x\n\nAB-C\nABC123\nDEF456") | MESSAGE | {"deferred/D/DEF456": File()}, trig=b"FI",
           log=WARNING, ours="one line for all that is wrong with a log, not one for each line of it"),
    Vector(74, SEND, OK, EMPTIED, before=log(b"!!\n"), trig=b"FI", log=WARNING),
    Vector(75, SEND, OK, FLUSHED | {"deferred/D/DEF456": None, "incoming/DEF456": File(mtime=0)},
           before=log(b"ABC123\0junk\nDEF456\n") | MESSAGE | {"deferred/D/DEF456": File()}, trig=b"FI"),
    Vector(76, SEND, OK, EMPTIED, before=log(b"ABC123\r\n") | MESSAGE, trig=b"FI", log=WARNING),
    Vector(77, SEND, OK,
           EMPTIED | {"deferred/5/" + LONG_ID: None, "incoming/" + LONG_ID: File(mtime=0)},
           before=log(LONG_ID.encode() + b"\n") | {"deferred/5/" + LONG_ID: File()}, trig=b"FI"),
    Vector("78a", SEND, OK, new(b"ABC123\n"), before=RECORD | message(foreign=True), trig=b"FI", log=WARNING,
           ours=KEPT),
    Vector("78b", SEND, OK,
           new(b"ABC123\n") | {"deferred/D/DEF456": None, "incoming/DEF456": File(mtime=0)},
           before=log(b"GHI789\nABC123\nDEF456\n") | message(foreign=True) |
           {"deferred/D/DEF456": File()}, trig=b"FI", log=WARNING, ours=KEPT + ", and no other"),
    Vector(79, SEND, OK, {"deferred/A/ABC123": File(mtime=0)} | new(b"ABC123\n"),
           before=RECORDED | READ_ONLY, trig=b"FI", log=WARNING, ours=KEPT),
    Vector(80, SEND, OK, EMPTIED | {"deferred/A/ABC123": None, "incoming/ABC123": Link("../hold/X")},
           before=RECORD | {"hold/X": File(), "deferred/A/ABC123": Link("../hold/X")}, trig=b"FI",
           ours="the time stamp that is set is that of the link, not that of the file behind it"),
    Vector(82, send_site("example.com", ("foo", "bar")), OK, FLUSHED, before=RECORDED, trig=b"FI", log=NOTICE,
           ours=EXTRA),
    Vector("83a", SEND[:-1], BAD, before=RECORDED, eof=True, log=WARNING),
    Vector("83b", b"request\0send_site\0nexthop\0example.com\0\0", BAD, before=RECORDED, log=WARNING),
    Vector("83c", b"request\0send_site\0\0", BAD, before=RECORDED, log=WARNING),
    Vector(85, SEND, OK, FLUSHED, before=RECORDED, trig=b"FI"),

    # send_file
    Vector(86, FILE, OK, moved(0o740), before=MESSAGE, trig=b"I"),
    Vector(87, FILE, OK, {"incoming/ABC123": File(mode=0o740, mtime=0)},
           before={"incoming/ABC123": File()}, trig=b"I"),
    Vector("88a", FILE, OK),
    Vector("88b", FILE, OK, before={"active/ABC123": File()}),
    Vector("88c", FILE, OK, before={"hold/ABC123": File()}),
    Vector("88d", SEND, OK, EMPTIED, before=RECORD, trig=b"FI"),
    Vector("88e", SEND, OK, new(b"ABC123\n"), before=RECORD | {"active/ABC123": File()}, trig=b"FI",
           ours="the message may be on its way to deferred: its ID stays recorded"),
    Vector("88f", SEND, OK, new(b"ABC123\n"), before=RECORD | {"hold/ABC123": File()}, trig=b"FI",
           ours="the message may be released: its ID stays recorded"),
    Vector("89a", FILE, OK, before=message(mode=0o600), ours=UNTOUCHED),
    Vector("89b", FILE, OK, before=message(mode=0o640), ours=UNTOUCHED),
    Vector("90a", FILE, OK, moved(0o740), before=message(mode=0o740), trig=b"I"),
    Vector("90b", FILE, OK, moved(0o750), before=message(mode=0o710), trig=b"I"),
    Vector("90c", FILE, OK, moved(0o777), before=message(mode=0o777), trig=b"I"),
    Vector("91a", FILE, OK, before={"hold/X": File(), "deferred/A/ABC123": Link("../../hold/X")},
           log=WARNING),
    Vector("91b", FILE, OK, before=MESSAGE | {"hold/X": Hard("deferred/A/ABC123")}, log=WARNING,
           ours=UNTOUCHED),
    Vector("91c", FILE, OK, before=message(foreign=True), log=WARNING),
    Vector("91d", FILE, OK, before=message(mode=0o777, foreign=True), log=WARNING),
    Vector("91e", FILE, OK, before={"deferred/A/ABC123/": Dir()}, log=WARNING),
    Vector(92, FILE, OK, {"deferred/A/ABC123": File(mode=0o740, mtime=0)}, before=MESSAGE | READ_ONLY,
           log=WARNING, ours="no trigger: there is nothing new in incoming"),
    Vector("93a", send_file("AB-C"), BAD, log=WARNING, ours=LOGGED),
    Vector("93b", send_file(""), BAD, log=WARNING, ours=LOGGED),
    Vector("93c", b"request\0send_file\0\0", BAD, log=WARNING, ours=LOGGED),
    Vector("94a", send_file("ABC123", ("foo", "bar")), OK, moved(0o740), before=MESSAGE, trig=b"I",
           log=NOTICE, ours=EXTRA),
    Vector("94b", attrs("send_file", ("site", "example.com"), ("queue_id", "ABC123")), BAD, before=MESSAGE,
           log=WARNING),

    # refresh and purge
    Vector("95a", REFRESH, OK, FLUSHED, before=OLD, trig=b"I"),
    Vector("95b", b"W\0", OK, FLUSHED, before=OLD, trig=b"I"),
    Vector("95c", REFRESH, OK, FLUSHED | log(b"", "example_net", mtime=0),
           before=OLD | log(b"DEF456\n", "example_net", atime=-13 * HOUR), trig=b"I", ours=ONE_I),
    Vector(96, REFRESH, OK, before=log(b"ABC123\n", mtime=-13 * HOUR, atime=-11 * HOUR) | MESSAGE),
    Vector("97a", REFRESH, OK, {"flush/example_com": None}, before=log(b"", mtime=-8 * DAY)),
    Vector("97b", REFRESH, OK, before=log(b"", mtime=-6 * DAY)),
    Vector("98a", b"request\0rfrsh\0", OK, FLUSHED, before=OLD, trig=b"I"),
    Vector("98b", b"request\0rfrsh\0foo\0bar\0\0", OK, FLUSHED, before=OLD, trig=b"I"),
    Vector("98c", b"request\0purge\0", OK, FLUSHED, before=AN_HOUR, trig=b"I"),
    Vector("99a", PURGE, OK, FLUSHED, before=AN_HOUR, trig=b"I"),
    Vector("99b", PURGE, OK, before=log(b"ABC123\n", atime=60) | MESSAGE),
    Vector(100, PURGE, OK, FLUSHED | log(b"", "example_net", mtime=0),
           before=AN_HOUR | log(b"DEF456\n", "example_net", atime=-HOUR) |
           log(b"", "sub_example_com", mtime=0), trig=b"I", ours=ONE_I),
    Vector(101, PURGE, OK, moved() | new(b"", "nosuch_example"),
           before=log(b"ABC123\n", "nosuch_example") | MESSAGE, trig=b"I"),
    Vector(102, PURGE, OK, before=log(b"ABC123\n", "example.com") | log(b"ABC123\n", "a-b") | MESSAGE),
]

TABLE = REQUESTS + LOGS
