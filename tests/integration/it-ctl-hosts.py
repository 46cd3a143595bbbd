#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl on several hosts at once: three of them, each with an sshd on loopback and a queue."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import TIMEOUT, eq
from ctl import backlog, objects, stand_in, write
from harness import main, test
from sshd import Hosts


class Fleet:
    """mx1, mx2 and mx3, of which each has its own queue."""

    def __init__(self, case):
        self.case = case
        self.hosts = Hosts(case)
        self.daemons, self.spools = [], []
        for i in (1, 2, 3):
            spool, daemon = case.make()
            backlog(spool)
            self.spools.append(spool)
            self.daemons.append(daemon)
            self.hosts.add("mx%d" % i, self.wrap(i, daemon))
        self.path = os.path.join(self.daemons[0].bin, "fflushctl")

    def wrap(self, i, daemon):
        path = os.path.join(self.case.base, "mx%d" % i)
        os.mkdir(path)
        write(path, "fflushctl", '#!/bin/sh\nSTATE_DIRECTORY=%s exec %s/fflushctl -c %s "$@"\n'
              % (daemon.state, daemon.bin, daemon.config), 0o755)
        return path

    def ctl(self, *words, stdin="", env=None):
        r = subprocess.run([self.path, *words], input=stdin, capture_output=True, text=True,
                           timeout=TIMEOUT, env=self.hosts.env | (env or {}))
        eq("Sanitizer" in r.stderr, False, r.stderr)
        return r


@test
def a_table_has_a_column_for_the_host(case):
    fleet = Fleet(case)
    r = fleet.ctl("-H", "mx1,mx2", "-H", "mx3", "list")
    eq((r.returncode, r.stderr), (0, ""))
    lines = [line.split() for line in r.stdout.splitlines()]
    alone = [line.split() for line in fleet.daemons[0].ctl("list").stdout.splitlines()][:-1]
    eq(lines[0], ["HOST"] + alone[0])
    eq([line[:2] for line in lines[1:-1]],
       [[host, row[0]] for host in ("mx1", "mx2", "mx3") for row in alone[1:]])
    columns = [i for i, title in enumerate(alone[0]) if title in ("RECORDS", "MESSAGES", "DEFERRED")]
    eq(lines[-1][:2], ["all", "hosts"])
    for i in columns:
        eq(int(lines[-1][1 + i]), 3 * sum(int(row[i]) for row in alone[1:]), r.stdout)
    # every column begins or ends at one place
    eq(len({line.index(".") > 0 for line in r.stdout.splitlines()[1:-1]}), 1)
    eq([line for line in r.stdout.splitlines() if re.search(r"[\001-\011\037]", line)], [])


@test
def other_lines_have_the_host_in_front_and_are_added_up(case):
    fleet = Fleet(case)
    r = fleet.ctl("-H", "mx1,mx3", "flush", "example.com", "mail.example.com")
    eq((r.returncode, r.stderr), (0, ""))
    lines = r.stdout.splitlines()
    wanted = ["example.com: 8 found, 4 moved, 1 gone, 2 active or on hold, 1 recorded twice",
              "mail.example.com: 1 found, 1 moved"]
    for host in ("mx1", "mx3"):
        eq([line.split(": ", 1)[0] for line in lines[:-1]].count(host), 2, r.stdout)
        eq("%s: %s" % (host, wanted[1]) in lines, True, r.stdout)
    eq(re.match(r"all hosts: \d+ found, \d+ moved", lines[-1]) is not None, True, r.stdout)
    found = sum(int(n) for n in re.findall(r"(\d+) found", "\n".join(lines[:-1])))
    moved = sum(int(n) for n in re.findall(r"(\d+) moved", "\n".join(lines[:-1])))
    eq(lines[-1].startswith("all hosts: %d found, %d moved" % (found, moved)), True, r.stdout)
    # nothing was done on the other one
    eq(sorted(fleet.spools[1].files("deferred")) != sorted(fleet.spools[0].files("deferred")), True)
    r = fleet.ctl("-H", "mx1,mx2", "show", "no'such")
    eq(sorted(r.stderr.splitlines()), ["mx%d: fflushctl: not a domain name: \"no'such\"" % i
                                       for i in (1, 2)])
    eq(r.returncode, os.EX_DATAERR)


@test
def each_object_names_its_host(case):
    fleet = Fleet(case)
    r = fleet.ctl("-j", "-H", "mx1,mx2,mx3", "list")
    eq((r.returncode, r.stderr), (0, ""))
    eq(sorted((o["host"], o["site"]) for o in objects(r)),
       sorted((host, o["site"]) for host in ("mx1", "mx2", "mx3")
              for o in objects(fleet.daemons[0].ctl("-j", "list"))))
    r = fleet.ctl("-j", "-H", "mx1,mx2", "metrics")
    eq([o["logs"] for o in objects(r) if o["type"] == "metrics"], [3, 3])
    r = fleet.ctl("-H", "mx1,mx2", "metrics")
    eq((r.returncode, "--json" in r.stderr), (os.EX_USAGE, True))


@test
def input_is_for_each_of_them(case):
    fleet = Fleet(case)
    r = fleet.ctl("-H", "mx1,mx2,mx3", "deliver", "-", stdin="A1\nNOSUCH\n")
    eq(r.returncode, os.EX_NOINPUT)
    eq(sorted(r.stdout.splitlines()),
       sorted("mx%d: %s" % (i, text) for i in (1, 2, 3)
              for text in ("A1: moved", "NOSUCH: no such message in the queue")))


@test
def a_dead_host_is_named_and_not_waited_for(case):
    fleet = Fleet(case)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fleet.hosts.name("mute", silent.getsockname()[1])
        fleet.hosts.name("dead", 1)
        start = time.monotonic()
        r = fleet.ctl("-t", "2s", "-H", "mx1,mute,dead,mx2", "list", "--by", "site")
        took = time.monotonic() - start
    eq(took < 8, True, "%.1f s" % took)
    eq(r.returncode, os.EX_UNAVAILABLE)
    for host in ("mute", "dead"):
        eq("fflushctl: %s: not reached\n" % host in r.stderr, True, r.stderr)
        eq("\n%s: " % host in "\n" + r.stderr, True, r.stderr)  # and ssh says why
    eq({line.split()[0] for line in r.stdout.splitlines()}, {"HOST", "mx1", "mx2", "all"})


@test
def the_worst_status_counts(case):
    fleet = Fleet(case)
    for i, status in ((1, 0), (2, 2), (3, 1)):
        write(os.path.join(case.base, "mx%d" % i), "fflushctl",
              "#!/bin/sh\nprintf '\\001\\n'; echo state; exit %d\n" % status, 0o755)
    eq(fleet.ctl("-H", "mx1,mx2,mx3", "check").returncode, 2)
    eq(fleet.ctl("-H", "mx1,mx3", "check").returncode, 1)
    fleet.hosts.name("dead", 1)
    eq(fleet.ctl("-H", "mx1,dead", "check").returncode, 3)
    eq(fleet.ctl("-H", "mx1,mx3,dead", "check").returncode, 1)
    for i, status in ((1, os.EX_NOINPUT), (2, os.EX_TEMPFAIL), (3, 0)):
        write(os.path.join(case.base, "mx%d" % i), "fflushctl",
              "#!/bin/sh\nexit %d\n" % status, 0o755)
    eq(fleet.ctl("-H", "mx1,mx2,mx3", "list").returncode, os.EX_TEMPFAIL)
    eq(fleet.ctl("-H", "mx2,mx3,mx1", "list").returncode, os.EX_TEMPFAIL)


@test
def another_version_is_told(case):
    fleet = Fleet(case)
    path = os.path.join(case.base, "mx2")
    write(path, "fflushctl", "#!/bin/sh\nprintf 'SITE  RECORDS\\na.test      1\\n'\n", 0o755)
    r = fleet.ctl("-H", "mx1,mx2", "list")
    eq("mx2: SITE  RECORDS\nmx2: a.test      1\nHOST" in r.stdout, True, r.stdout)
    eq("fflushctl: mx2: its fflushctl is of another version" in r.stderr, True, r.stderr)
    eq(r.returncode, 0)
    # one with another column more
    write(path, "fflushctl", "#!/bin/sh\nprintf '\\001\\n\\002\\037SITE\\037>OTHER\\n"
          "\\003\\037a.test\\0377\\n'\n", 0o755)
    lines = fleet.ctl("-H", "mx1,mx2", "list").stdout.splitlines()
    eq(lines[0].split()[:2] + lines[0].split()[-1:], ["HOST", "SITE", "OTHER"])
    eq([line.split() for line in lines if line.startswith("mx2")], [["mx2", "a.test", "7"]])
    for output in (r"\001\n\003\037row without titles\n", r"\002\037A\037B\n\003\037one\n",
                   r"\002" + r"\037T" * 16 + r"\n", r"\004\037\n", r"\0049\n", r"\002\n",
                   r"\004-1\037x\n", r"\003\n"):
        write(path, "fflushctl", "#!/bin/sh\nprintf '%s'\n" % output, 0o755)
        r = fleet.ctl("-H", "mx2,mx1", "list")
        eq((r.returncode, "mx2: what it prints is not understood" in r.stderr),
           (os.EX_PROTOCOL, True), (output, r))
    write(path, "fflushctl", "#!/bin/sh\necho '{\"host\":\"forged\",\"a\":1}'; echo no object\n", 0o755)
    r = fleet.ctl("-j", "-H", "mx2,mx1", "list")
    eq(r.returncode, os.EX_PROTOCOL)
    eq({o["host"] for o in objects(r)}, {"mx1", "mx2"})


@test
def nothing_of_a_host_reaches_the_terminal_as_it_came(case):
    fleet = Fleet(case)
    evil = r"a\033]0;x\007b\302\2332J\342\200\256c\rd"
    write(os.path.join(case.base, "mx1"), "fflushctl", "#!/bin/sh\n"
          "printf '\\001\\n\\002\\037T\\n\\003\\037%s\\n\\002\\037%s\\n"
          "\\0041\\037%s\\n%s\\n%s'; printf '%s\\n' >&2\n"
          % ((evil,) * 6), 0o755)
    r = fleet.ctl("-H", "mx1,mx2", "list")
    for text in (r.stdout, r.stderr):
        eq(re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text), [], text)
        eq(r"a\x1b]0;x\x07b\xc2\x9b2J\xe2\x80\xaec\x0dd" in text, True, text)


@test
def groups_are_in_a_file(case):
    fleet = Fleet(case)
    hosts = write(case.base, "hosts.conf", "# by place\nall: mx1, mx2  mx3 # every one\n"
                  "\nodd : mx1\nodd: mx3\nnone:\nbad: -oProxyCommand=id\n")
    env = {"FFLUSHCTL_HOSTS": hosts}

    def asked(*words):
        r = fleet.ctl(*words, "-j", "list", env=env)
        return r.returncode, list(dict.fromkeys(o.get("host", "?") for o in objects(r))), r.stderr

    for words, wanted in ((("-H", "@all"), {"mx1", "mx2", "mx3"}), (("-H", "@odd"), {"mx1", "mx3"}),
                          (("-H", "@odd,mx2", "-H", "mx1"), {"mx1", "mx2", "mx3"})):
        status, found, errors = asked(*words)
        eq((status, set(found), errors), (0, wanted, ""))
    eq(asked("-H", "@nosuch"), (os.EX_CONFIG, ["?"],
                                "fflushctl: %s: no such group: nosuch\n" % hosts))
    eq(asked("-H", "@none")[0], os.EX_USAGE)
    eq(asked("-H", "@bad")[::2], (os.EX_CONFIG, "fflushctl: %s: not a host: -oProxyCommand=id\n"
                                  % hosts))
    for wrong in ("mx1,", ",", "mx1,-x"):
        eq(asked("-H", wrong)[0], os.EX_USAGE, wrong)
    with open(hosts, "a") as f:
        f.write("mx1 mx2\n")
    eq(asked("-H", "@all,@other")[0], os.EX_CONFIG)
    env["FFLUSHCTL_HOSTS"] = "/nonexistent/hosts"
    eq(asked("-H", "@all")[0], os.EX_NOINPUT)


@test
def many_hosts_have_their_turn(case):
    """More than at once, with an ssh that does not need any of them."""
    _, daemon = case.make()
    ssh = stand_in(case, "ssh", "#!/bin/sh\nfor a; do :; done\n"
                   "[ $(ls %s | wc -l) -le 16 ] || exit 99\n"
                   "touch %s/$$; sleep 0.05; printf '\\001\\n\\0041\\037asked\\n'; rm %s/$$\n"
                   % ((os.path.join(case.base, "now"),) * 3))
    os.mkdir(os.path.join(case.base, "now"))
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-H",
                        ",".join("h%d" % i for i in range(60)), "refresh"], text=True,
                       env=dict(os.environ, PATH=ssh + ":" + os.environ["PATH"]),
                       capture_output=True)
    eq((r.returncode, r.stdout, r.stderr), (0, "all hosts: 60 asked\n", ""))


@test
def an_interrupt_ends_them_and_shows_what_there_is(case):
    fleet = Fleet(case)
    write(os.path.join(case.base, "mx2"), "fflushctl", "#!/bin/sh\nexec sleep 60\n", 0o755)
    p = subprocess.Popen([fleet.path, "-H", "mx1,mx2", "list"], env=fleet.hosts.env,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=TIMEOUT)
    eq("fflushctl: mx2: interrupted\n" in err, True, err)
    eq(re.search("^mx1 +example.com", out, re.M) is not None, True, out)
    eq(p.returncode, -signal.SIGINT)


if __name__ == "__main__":
    main()
