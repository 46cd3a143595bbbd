# SPDX-License-Identifier: MIT
"""Postfix 3.11 and later can send who asks for hash: or btree: to tables of another kind."""

from basics import Skip, eq
from booted import ask, clean, g, journal
from harness import test

SITES = "/etc/postfix/redirected"
DENY, FAIL = repr(b"status\x004\0\0"), repr(b"status\x004294967295\0\0")


def at_level(level):
    """Seen by the running Postfix, and by a fflushd that remembers no answers."""
    g.run("postconf -e non_bdb_migration_level=%s fast_flush_domains=hash:%s;"
          " systemctl restart postfix; systemctl stop fflushd" % (level, SITES))


def expect(level, what, site, wanted):
    eq((level, what, site, ask("add", site, "A1")), (level, what, site, wanted))


def expect_failure(level, what, reason):
    """Not "not listed", which would be the end of it: the client tries again."""
    for site in ("table.test", "other.test"):
        expect(level, what, site, FAIL)
    assert "table hash:%s: " % SITES in journal("-p warning") and reason in journal("-p warning"), journal()
    status = g.out("fflushctl status", check=False)
    assert "table hash:%s cannot be asked" % SITES in status and reason in status, status


@test
def a_hash_table_answers_rightly_or_the_request_fails(t):
    if not g.out("postconf -d non_bdb_migration_level 2>/dev/null"):
        raise Skip("its Postfix redirects nothing")
    clean()
    g.write(SITES, "table.test ok\n")
    kind = g.out("postconf -h default_database_type 2>/dev/null")
    try:
        if "hash" in g.out("postconf -m 2>/dev/null").split():
            at_level("disable")
            g.run("postmap hash:" + SITES)
            expect("disable", "Berkeley DB", "table.test", "ok")
            expect("disable", "Berkeley DB", "other.test", DENY)
        at_level("enable-redirect")
        expect_failure("enable-redirect", "no table of the other kind", "%s.%s" % (SITES, kind))
        g.run("postmap hash:" + SITES)
        g.run("systemctl stop fflushd")
        expect("enable-redirect", "redirected", "table.test", "ok")
        expect("enable-redirect", "redirected", "other.test", DENY)
        at_level("enable-reindex")
        g.run("rm %s.%s" % (SITES, kind))
        expect_failure("enable-reindex", "no table of the other kind", SITES)
    finally:
        g.run("rm -f %s*; postconf -X non_bdb_migration_level; postconf -e fast_flush_domains=static:all;"
              " systemctl restart postfix" % SITES)
