# SPDX-License-Identifier: MIT
"""Names of sites, by all ways in: fflushctl, the unit, Postfix's clients and its delivery agents."""

from booted import TOOLS, clean, g, journal
from harness import test

SITE, UNICODE = "xn--bcher-kva.example", "b\u00fccher.example"
IN_DEFERRED = "find /var/spool/postfix/deferred -type f | wc -l"


def list_of_main_cf(listed):
    """In the list of main.cf, and known to the running Postfix and fflushd."""
    g.run("postconf -e 'fast_flush_domains=%s' default_transport=retry:later &&"
          " systemctl restart postfix && systemctl stop fflushd" % listed)


def flush_all(command, listed):
    """Two messages, one to each spelling, whose records import makes: agents ask for what the list
    of main.cf has as it is written."""
    g.wait("test $(%s) = 2" % IN_DEFERRED, "they are not deferred again")
    g.run("fflushctl import")
    since = g.out("date '+%s'; sleep 1")
    r = g.run(command, check=False)
    if r.returncode != 0:
        raise AssertionError("fast_flush_domains = %s: %s: %s" % (listed, command, r))
    said = journal("--since @%s -g 'send_site %s'" % (since, SITE))
    assert "send_site %s: 2 found, 2 moved" % SITE in said, (listed, command, said)


@test
def a_site_has_one_answer_by_all_ways_in(t):
    clean()
    g.run("postsuper -d ALL 2>/dev/null; rm -f /var/spool/postfix/flush/*")
    ways = ["fflushctl flush " + SITE, "fflushctl flush " + UNICODE, "fflushctl flush '*'",
            "fflushctl flush -S " + UNICODE, "fflushctl flush '*%s'" % UNICODE[1:],
            "systemctl start 'fflush-flush@%s'" % SITE]
    clients = ["postqueue -s " + SITE, TOOLS + "etrn %s | grep '^250'" % SITE]
    try:
        for listed in (SITE, UNICODE, "texthash:/etc/postfix/sites"):
            g.write("/etc/postfix/sites", UNICODE + " x\n")
            list_of_main_cf(listed)
            if listed == SITE:
                for address in (SITE, UNICODE):
                    g.run("printf 'Subject: x\\n\\nx\\n' | sendmail user@" + address)
            for command in ways + (clients if listed == SITE else []):
                flush_all(command, listed)
            # Where Postfix's clients do not even ask, and what fflushd.conf(5) says of it.
            for command in (["postqueue -s " + SITE] if listed != SITE else []) + [
                    "postqueue -s " + UNICODE]:
                assert g.run(command, check=False).returncode != 0, (listed, command)
    finally:
        g.run("postsuper -d ALL 2>/dev/null; postconf -e fast_flush_domains=static:all;"
              " postconf -X default_transport; rm /etc/postfix/sites; systemctl restart postfix")
        clean()
