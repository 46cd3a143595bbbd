# SPDX-License-Identifier: MIT
"""What random requests are made of: sites, lists of sites, layouts of the queue, IDs."""

import functools

import os
import subprocess
from typing import NamedTuple

from client import ANNOUNCEMENT, send_site, talk
from postfix import command, write_config
from queuefiles import BASE52


class Site(NamedTuple):
    normal: str
    others: tuple = ()  # other spellings


# No two of these share a folded name: the original would put them into one log.
SITES = [
    Site("example.com", ("EXAMPLE.com", "eXaMpLe.CoM", "EXAMPLE\u3002com", "\uff45xample.com")),
    Site("sub.example.com", ("Sub.Example.Com",)),
    Site("bad.example.com", ("BAD.EXAMPLE.COM",)),
    Site("x.bad.example.com"),
    Site("example.net", ("Example.NET",)),
    Site("a.b.example.net"),
    Site("a-b.example", ("A-B.example",)),
    Site("under_score.example", ("UNDER_score.Example",)),
    Site("xn--bcher-kva.example", ("b\u00fccher.example", "B\u00dcCHER.example",
                                   "XN--BCHER-KVA.example", "bu\u0308cher.example")),
    Site("xn--fa-hia.example", ("fa\u00df.example", "Fa\u00df.Example")),
    Site("xn--wgv71a119e.example", ("\u65e5\u672c\u8a9e.example",)),
    Site("k.example", ("\u212a.example", "K.example")),
    Site("dot.example", ("DOT.example",)),
    Site("a.dot.example"),
    Site("file.example", ("FILE.example",)),
    Site("continued.example"),
    Site("y.example"),
    Site("z.example"),
    Site("a.z.example"),
    Site("hash.example", ("HASH.example",)),
    Site("a.b.hash.example"),
    Site("dothash.example"),
    Site("a.dothash.example"),
    Site("mixed.example", ("Mixed.Example",)),
    Site("re1.example", ("RE1.example",)),
    Site("a.re1.example"),
    Site("neg1"),
    Site("one.example"),
    Site("sub.one.example"),
    Site("two.example"),
    Site("first.example", ("FIRST.example",)),
    Site("localhost", ("LocalHost",)),
    Site("ab", ("AB",)),
    Site("nosuch.example"),
    # Traps for a hashed flush directory: names with a "z" at offset 10 or later.
    Site("www.example.zone"),
    Site("a-very-long-bcdfz.example"),
    Site("0123456789zz.example"),
    Site("l" * 63 + ".example.com"),
]

# No site at all, or none that both can record.
ODD_SITES = [
    "", ".", "..", ".example.com", "example.com.", "a..b.example.com", "-x.example.com",
    "x-.example.com", "a b.example.com", "*.example.com", "x@y.example.com", "x/y.example.com",
    "ex\nample.com", "a\nb.example.com", "\tx.example.com", b"x\xff.example.com", b"\xc3.example",
    "1.2.3.4", "123", "*", "::1", "x:25", "a@b", "%", "ab--cd.example", "xn--a.example", "a-",
    "xn--.example.com", "l" * 64 + ".example.com", ("l" * 60 + ".") * 5 + "example.com",
    "example.com\\", "a'b.example.com", "#x.example.com", "{x}.example.com", "!example.com",
    "\u200b", "a\u2260b.example.com", "[", "[]", "[192.0.2.1", "a" * 20000,
]

# For random names: letters of several scripts, width variants, capitals, digits.
NAME_CHARACTERS = ("abcxyzABC0189-_\u00e4\u00d6\u00df\u00e9\u0131"
                   "\u03b1\u03a9\u03c2\u03c3\u0436\u0429"
                   "\u65e5\u672c\u3042\u30a2\uac00\uff41\uff11\u0e01\u0915\u094d\u0301\u0308"
                   "\u00ad\u2460\u2163\u00b7\u3002\u212b\u1e9e\u0345")
RIGHT_NAMES = ["\u05d0\u05d1\u05d2.example", "\u0645\u062b\u0627\u0644.example",
               "\u0915\u094d\u200d\u0937.example", "\u03b2\u03cc\u03bb\u03bf\u03c2.com"]
# Deviation "IDNA 2008": libidn2 keeps its rules, against names that look like others; flush(8)
# has those of UTS 46 only. Joiners where the script has none, mixed directions, symbols.
WRONG_NAMES = ["a\u200db.example", "a\u200cb.example", "a\u05d0.example", "\u0661.example",
               "\u2603.example", "\U0001f600.example"]

LITERALS = ("[192.0.2.1]", "[198.51.100.7]", "[IPv6:2001:db8::1]")

LISTS = [  # fast_flush_domains, strict?
    ("!bad.example.com, example.com Example.NET,[192.0.2.1]\tb\u00fccher.example,"
     " under_score.example a-b.example k.example \u65e5\u672c\u8a9e.example", False),
    ("example.com,!bad.example.com,.example.com,.dot.example b\u00fccher.example !!ab"
     " xn--fa-hia.example", True),
    ("$DIR/domains, example.net", False),
    ("!$DIR/excluded .example.com $DIR/domains", True),
    ("texthash:$DIR/table, example.com", False),
    ("!re1.example, $TYPE:$DIR/table, example.com", True),
    ("regexp:$DIR/patterns, inline:{ { one.example = x }, two.example=y }", False),
    ("pipemap:{regexp:$DIR/patterns}, unionmap:{texthash:$DIR/table,inline:{k.example=x}}", False),
    ("inline:{ { one.example = x }, { .example.com = y }, two.example=y }, !regexp:$DIR/patterns,"
     " static:all", True),
    ("static:all", False),
    ("!static:all, example.com", True),
    ("first.example, fail:oops, example.com", False),
    ("first.example, $DIR/missing, example.com", True),
    ("", False),
]

HASHES = [
    ("deferred, defer", 1, "short"),
    ("deferred, incoming", 2, "both"),
    ("deferred incoming flush", 3, "long"),
    ("FLUSH, Incoming", 2, "both"),
    ("active,hold,deferred,incoming,flush", 1, "short"),
    ("deferred, hold", 3, "long"),
]


def allowed_replies(server, site):
    """What it says to a flush of a site in each of its spellings; case makes no difference to it.
    Deviation "one answer": flush(8) compares what it is sent, U-label or A-label, with the list."""
    texts = {site.normal} | {text for text in site.others if not text.isascii()}
    return {talk(server, send_site(text)).removeprefix(ANNOUNCEMENT) for text in texts}


def write_tables(original):
    """The files that LISTS name."""
    files = {
        "domains": "file.example\n# comment.example line\n  continued.example\n"
                   "x.example, y.example !z.example\n\n%s:$DIR/table\nz.example\n",
        "excluded": "bad.example.com\n",
        "table": "hash.example 1\n.dothash.example no\nMixed.Example 1\nexample.com yes\n"
                 "two.example 2\n",
        "patterns": "/^re[0-9]+\\.example$/ ok\n/^neg/ no\n/^bad\\./ x\n",
    }
    for name, text in files.items():
        write_config(os.path.join(original.base, name),
                     text.replace("%s:", table_type() + ":").replace("$DIR", original.base))
    subprocess.run([command("postmap"), "-c", original.conf,
                    "%s:%s" % (table_type(), os.path.join(original.base, "table"))], check=True)


@functools.cache
def table_type():
    """One that is kept in a file of its own."""
    types = subprocess.run([command("postconf"), "-m"], check=True, capture_output=True,
                           text=True).stdout.split()
    return next((x for x in ("hash", "lmdb", "cdb", "btree") if x in types), "texthash")


def long_id(rng, usec=None):
    seconds = "".join(rng.choice(BASE52) for _ in range(6))
    micro = "".join(rng.choice(BASE52) for _ in range(4)) if usec is None else usec
    inode = "".join(rng.choice(BASE52[:-1]) for _ in range(rng.randint(1, 5)))
    return seconds + micro + "z" + inode


def make_ids(rng, style, n=12):
    short = ["%05X%X" % (rng.randrange(1000000), rng.randrange(1 << 24)) for _ in range(n)]
    short[-3:] = ["A", "AB", "_x1"]
    long = [long_id(rng) for _ in range(n)]
    long[-3:] = [long_id(rng, "1AEI"), "12345678zAB", long_id(rng, "zzzz")]
    return {"short": short, "long": long, "both": short[n // 2:] + long[n // 2:]}[style]
