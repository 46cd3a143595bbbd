#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl list and show beside a real Postfix: what is in delivery, why mail is deferred, what is
recorded nowhere; and how the tables look on a terminal."""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, TIMEOUT, as_user, eq, wait_for
from ctl import backlog, objects, results, stand_in
from harness import main, test
from postfix import Mailhost, needs_postmap, write_config


@contextlib.contextmanager
def silent_server(port):
    """It accepts and says nothing."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen(20)
        yield


def rows(host, *args, key="site"):
    return {row[key]: row for row in objects(host.ctl("list", "--json", *args, check=False))}


@test
def mail_in_delivery_is_active_with_and_without_a_record(case):
    host = Mailhost(case)
    ids = host.defer("x@up.test", n=3)
    host.defer("x@down.test")
    with silent_server(host.port):
        host.ctl("flush", "up.test")
        wait_for(lambda: len(host.spool.files("active")) == 3, "not active")
        found = rows(host)
        eq((found["up.test"]["active"], found["up.test"]["deferred"], found["up.test"]["records"]),
           (3, 0, 0))
        eq(found["down.test"]["active"], 0)
        shown = objects(host.ctl("show", "--json", "up.test"))
        eq(sorted(row["queue_id"] for row in shown), ids)
        eq({row["queue"] for row in shown}, {"active"})
        os.unlink(host.spool.join("flush/up_test"))  # as the refresh does in time
        row = rows(host)["up.test"]
        eq((row["active"], row["log"], row["flushed"]), (3, None, None))
        eq(sorted(host.ctl("show", "--ids", "up.test").stdout.split()), ids)
        eq(host.ctl("list").stdout.splitlines()[-1], "2 destinations: 1 deferred, 3 active")
        r = host.ctl("list", "nosuch.test", check=False)
        eq((r.returncode, r.stderr),
           (os.EX_NOINPUT, "fflushctl: nothing is recorded for nosuch.test\n"))


@test
def reasons_are_counted_by_cause(case):
    host = Mailhost(case)
    ids = host.defer("x@down.test", n=3)
    host.defer("x@off.test")
    found = rows(host)
    eq([(r["count"], "Connection refused" in r["reason"]) for r in found["down.test"]["reasons"]],
       [(3, True)])
    eq([(r["count"], r["reason"]) for r in found["off.test"]["reasons"]], [(1, "switched-off")])
    eq(list(rows(host, "--match", "SWITCHED")), ["off.test"])
    eq(list(rows(host, "--by", "reason")), ["down.test", "off.test"])
    lines = host.ctl("list").stdout.splitlines()
    eq(lines[0].split()[-1], "REASON")
    eq(lines[2].split()[-1], "switched-off")
    item = objects(host.ctl("show", "--json", ids[0]))
    eq(len(item), 1)
    eq((item[0]["site"], item[0]["sender"], item[0]["recipients"][0]["address"]),
       ("down.test", "a@host.test", "x@down.test"))
    eq("Connection refused" in item[0]["recipients"][0]["reason"], True)
    eq(0 <= time.time() - item[0]["arrival"] < 60, True)
    header, line = host.ctl("show", ids[0]).stdout.splitlines()
    eq(header.split(), "SITE MESSAGE QUEUE AGE SIZE DUE IN SENDER RECIPIENT REASON".split())
    eq([line.split()[i] for i in (0, 1, 2, 6, 7)],
       ["down.test", ids[0], "deferred", "a@host.test", "x@down.test"])


@test
def held_mail_is_counted_on_its_own(case):
    host = Mailhost(case)
    ids = host.defer("x@down.test", n=2)
    os.rename(host.spool.join([p for p in host.spool.files("deferred") if p.endswith(ids[0])][0]),
              host.spool.join("hold", ids[0]))
    row = rows(host)["down.test"]
    eq((row["deferred"], row["hold"], row["active"]), (1, 1, 0))
    eq(host.ctl("list").stdout.splitlines()[-1], "1 destination: 1 deferred, 1 on hold")


@test
def a_long_queue_is_listed_on_request_only(case):
    """Which takes postqueue(1) seconds. What is in delivery is then not known."""
    host = Mailhost(case)
    host.defer("x@down.test")
    host.spool.log("many_test", b"".join(b"A%05X\n" % i for i in range(10000)))
    os.close(os.open(host.spool.join("active/BCDF1"), os.O_CREAT | os.O_WRONLY, 0o700))
    row = rows(host)["down.test"]
    eq((row["deferred"], row["active"], row["reasons"]), (1, None, None))
    row = rows(host, "--long")["down.test"]
    eq((row["deferred"], row["active"], row["reasons"][0]["count"]), (1, 0, 1))
    host.spool.log("many_test", b"A1\n")
    eq(rows(host)["down.test"]["active"], 0)


def mailhost_for(case, domains):
    host = Mailhost(case, fast_flush_domains=domains)
    with open(host.daemon.config) as f:
        text = f.read()
    with open(host.daemon.config, "w") as f:
        f.write(text.replace("'static:all'", "'%s'" % domains))
    return host


@test
def deferred_mail_without_a_record_is_listed(case):
    host = mailhost_for(case, "down.test")
    host.defer("x@down.test")
    host.defer("x@off.test", n=2)
    os.unlink(host.spool.join("flush/down_test"))
    found = rows(host, key="type")
    eq(sorted(found), ["not_eligible", "not_recorded"])
    eq((found["not_eligible"]["deferred"], found["not_eligible"]["site"]), (2, None))
    eq(found["not_recorded"]["deferred"], 1)
    lines = host.ctl("list").stdout.splitlines()
    eq([line.split()[:3] for line in lines[1:3]],
       [["(not", "eligible)", "2"], ["(not", "recorded)", "1"]])
    host.ctl("import")
    found = rows(host, key="type")
    eq(sorted(found), ["not_eligible", "site"])


@test
def a_table_tells_what_is_eligible(case):
    table = os.path.join(case.base, "sites")
    with open(table, "w") as f:
        f.write("down.test ok\n")
    host = mailhost_for(case, "texthash:" + table)
    host.defer("x@off.test", n=2)
    host.defer("x@down.test")
    found = rows(host, key="type")
    eq((found["not_eligible"]["deferred"], found["site"]["deferred"]), (2, 1))
    with open(host.daemon.config, "a") as f:
        f.write("fast_flush_domains = 'texthash:%s.missing'\n" % table)
    r = host.ctl("list", "--json", check=False)
    eq((r.returncode, "sites.missing" in r.stderr), (os.EX_CONFIG, True), r.stderr)
    eq(sorted(row["type"] for row in results(r)), ["not_recorded", "site"])


@test
def flushing_many_destinations_asks_a_table_together(case):
    """And says what came of each in their order, also if one is refused."""
    needs_postmap()
    table = os.path.join(case.base, "many")
    n = 600
    with open(table, "w") as f:
        f.write("".join("s%04d.test ok\n" % i for i in range(n)))
    conf = os.path.join(case.base, "conf-many")
    os.mkdir(conf, 0o755)
    write_config(os.path.join(conf, "main.cf"), "")
    spool, daemon = case.make(fast_flush_domains="texthash:" + table, postfix_config_directory=conf,
                              hash_queue_names="deferred, defer")
    for i in range(n):
        spool.put("deferred/A/A%d" % i)
        spool.log("s%04d_test" % i, b"A%d\n" % i)
    spool.log("refused_test", b"A1\n")
    start = time.monotonic()
    r = daemon.ctl("flush", "*", check=False)
    seconds = time.monotonic() - start
    eq((r.returncode, r.stderr),
       (os.EX_NOPERM, "fflushctl: refused.test: not in fast_flush_domains\n"))
    eq(r.stdout.splitlines(), ["s%04d.test: 1 found, 1 moved" % i for i in range(n)])
    eq(seconds < 10, True, seconds)  # one postmap(1) for each takes 10 ms and more


# ----------------------------------------------------------------------------- on a terminal


class Terminal:
    def __init__(self, daemon, *args, columns=80, lines=24, env=None, user=None):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.p = subprocess.Popen(
            [os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args],
            stdout=slave, stderr=slave, stdin=slave,
            env=dict(os.environ, TERM="xterm", NO_COLOR="1", SYSTEMD_PAGER="") | (env or {}),
            **(as_user() if user is None else user))
        os.close(slave)
        self.out = b""

    def read(self):
        try:
            chunk = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            chunk = b""
        self.out += chunk
        return bool(chunk)

    def screens(self):
        """What has been drawn, with --watch, as lists of lines; the last one may not be complete."""
        text = re.sub(r"\033\[[KJ]", "", self.out.decode().replace("\r\n", "\n"))
        return [re.sub(r"\033\[\d+H", "\n", screen).splitlines() for screen in text.split("\033[H")[1:]]

    def wait_for_screen(self, is_wanted):
        """Of those that are still to be drawn."""
        n = max(len(self.screens()), 1)
        while not any(is_wanted(screen) for screen in self.screens()[n - 1:-1]):
            if not self.read():
                raise AssertionError(self.out)
        return [screen for screen in self.screens()[n - 1:-1] if is_wanted(screen)][0]

    def interrupt(self):
        self.p.send_signal(signal.SIGINT)
        eq(self.finish()[0], -signal.SIGINT)

    def finish(self):
        while self.read():
            pass
        os.close(self.master)
        return self.p.wait(TIMEOUT), self.out.decode().replace("\r\n", "\n")


def undated(text):
    """Without ages in seconds, which may be others in the next table."""
    return re.sub("[0-9]+s ", "Ns ", text)


@test
def rows_end_at_the_edge_of_the_terminal(case):
    spool, daemon = case.make()
    backlog(spool)
    spool.log("f" * 60 + "_test", b"A1\n")
    spool.log("xn__bcher_kva_example", b"A1\n")
    wide = daemon.ctl("list").stdout
    status, at_200 = Terminal(daemon, "list", columns=200).finish()
    eq((status, undated(at_200)), (os.EX_OK, undated(wide)))
    status, narrow = Terminal(daemon, "list", columns=70).finish()
    lines = narrow.splitlines()
    eq({len(line) for line in lines[:-1]}, {70})  # the name gives way to what is right of it
    eq([re.sub(r"f+(\.\.\.|\.test) ", " ", undated(line)).split() for line in lines],
       [re.sub(r"f+\.test ", " ", undated(line)).split() for line in wide.splitlines()])
    status, narrow = Terminal(daemon, "list", columns=40).finish()
    lines = narrow.splitlines()
    eq([line[-3:] for line in lines[:-1]], ["..."] * (len(lines) - 1))
    eq({len(line) for line in lines[:-1]}, {40})


@test
def show_begins_the_reason_with_what_was_said(case):
    said = "host mx.off.test[192.0.2.1] said: 452 4.2.2 Mailbox full"
    host = Mailhost(case, transport_maps="inline:{{off.test=retry:%s}}" % said)
    host.defer("x@off.test")
    lines = host.ctl("show", "off.test").stdout.splitlines()
    eq(re.split("  +", lines[1])[-1], "452 4.2.2 Mailbox full")
    item = objects(host.ctl("show", "--json", "off.test"))[0]
    eq(item["recipients"][0]["reason"], said)


@test
def a_pager_is_for_terminals(case):
    spool, daemon = case.make()
    backlog(spool)
    plain = undated(daemon.ctl("list").stdout)

    def shown(*args, env):
        status, text = Terminal(daemon, *args, columns=200, env=env).finish()
        return status, undated(text)

    pager = stand_in(case, "pager", "#!/bin/sh\necho \"paged, $LESS, secure $LESSSECURE\"; cat\n") + "/pager"
    env = {"SYSTEMD_PAGER": pager}
    eq(shown("list", env=env), (os.EX_OK, "paged, FRSXMK, secure 1\n" + plain))
    eq(shown("list", "--no-pager", env=env), (os.EX_OK, plain))
    status, text = Terminal(daemon, "list", columns=30, env=env).finish()
    eq(undated(text), "paged, FRSXMK, secure 1\n" + plain)  # less(1) scrolls to the right
    eq(shown("show", "a-b.test", env=env)[1].splitlines()[0], "paged, FRSXMK, secure 1")
    # By way of sudo(8), nobody starts what he likes.
    less = stand_in(case, "less", "#!/bin/sh\necho less; cat\n")
    env = {"SYSTEMD_PAGER": pager, "SUDO_UID": "1000", "PATH": less + ":" + os.environ["PATH"]}
    eq(shown("list", env=env), (os.EX_OK, "less\n" + plain))
    # Who has seen enough ends the pager.
    env = {"SYSTEMD_PAGER": stand_in(case, "true", "#!/bin/sh\nexit 0\n") + "/true"}
    eq(Terminal(daemon, "list", env=env).finish(), (os.EX_OK, ""))


@test
def watching_goes_on_until_it_is_interrupted(case):
    spool, daemon = case.make()
    backlog(spool)
    eq(daemon.ctl("list", "--watch", "1s", check=False).returncode, os.EX_USAGE)
    t = Terminal(daemon, "list", "--watch", "1s", columns=200)
    while t.out.count(b"\033[H") < 2 or t.out.count(b"\033[J") < 1:
        eq(t.read(), True, t.out)
    spool.log("new_test", b"A1\n")
    while b"new.test" not in t.out or b"deferred" not in t.out.split(b"new.test")[-1]:  # the whole screen
        eq(t.read(), True, t.out)
    t.p.send_signal(signal.SIGINT)
    eq(t.finish()[0], -signal.SIGINT)
    screen = re.sub(r"\033\[[KJ]", "", t.out.decode().split("\033[H")[-1])
    eq("destinations: 4 deferred" in screen, True, screen)
    t = Terminal(daemon, "list", "--watch", "1s", columns=200, lines=4)
    while t.out.count(b"\033[J") < 2:
        eq(t.read(), True, t.out)
    t.p.send_signal(signal.SIGINT)
    t.finish()
    screen = t.out.decode().split("\033[H")[2].split("\033[J")[0]
    eq(screen.count("\n"), 3, screen)


@test
def a_watched_list_tells_that_it_is_alive(case):
    spool, daemon = case.make()
    backlog(spool)
    t = Terminal(daemon, "list", "--older-than", "4h", "--watch", "1s", columns=200)
    first = t.wait_for_screen(lambda _: True)
    when, host, command = first[0].split("  ")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", when), first
    eq((host, command), (socket.gethostname(),
                         "fflushctl -c %s list --older-than 4h --watch 1s" % daemon.config))
    eq(first[1:], ["0 destinations: 0 deferred", "", ""])  # no error
    t.wait_for_screen(lambda screen: screen[0] > first[0])
    t.interrupt()
    r = Terminal(daemon, "list", "--by", "size", "--watch", "1s").finish()
    eq((r[0], "unknown column" in r[1], "\033" in r[1]), (os.EX_USAGE, True, False), r)


@test
def a_watched_list_says_how_much_is_below_the_screen(case):
    spool, daemon = case.make()
    spool.put("deferred/A/A1")
    for i in range(60):
        spool.log("s%02d_test" % i, b"A1\n")
    t = Terminal(daemon, "list", "--watch", "1s", columns=200, lines=17)
    screen = t.wait_for_screen(lambda _: True)
    eq(screen[1].split()[0], "SITE")
    eq([line.split()[0] for line in screen[2:14]], ["s%02d.test" % i for i in range(12)])
    eq(screen[14:], ["+48 more", "60 destinations: 1 deferred", "", ""])
    t.interrupt()


@test
def a_watched_list_goes_on_after_errors(case):
    host = Mailhost(case)
    host.defer("x@down.test")
    main_cf = os.path.join(host.conf, "main.cf")
    with open(main_cf) as f:
        text = f.read()

    def is_well(screen):
        return any("Connection refused" in line for line in screen[1:])

    def is_ill(screen):
        return "main.cf" in screen[-1]

    for first, second, n in (is_well, is_ill, 1), (is_ill, is_well, 0):
        write_config(main_cf, text + "garbage\n" * (1 - n))
        t = Terminal(host.daemon, "list", "--watch", "1s", columns=300, user={})
        t.wait_for_screen(first)
        write_config(main_cf, text + "garbage\n" * n)
        screen = t.wait_for_screen(second)
        eq(len([line for line in screen[1:] if line.startswith("down.test")]), 1)  # what is known is shown
        write_config(main_cf, text)
        screen = t.wait_for_screen(is_well)
        assert is_ill(screen), screen  # what was wrong, and when, stays
        assert re.match(r"\d\d:\d\d:\d\d fflushctl: ", screen[-1]), screen
        t.interrupt()


@test
def less_shows_it_too(case):
    if not shutil.which("less"):
        raise Skip("needs less")
    spool, daemon = case.make()
    backlog(spool)
    status, out = Terminal(daemon, "list", columns=200, env={"SYSTEMD_PAGER": "less"}).finish()
    eq((status, "example.com" in out), (os.EX_OK, True), out)


if __name__ == "__main__":
    main()
