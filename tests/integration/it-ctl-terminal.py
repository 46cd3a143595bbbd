#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""fflushctl and whoever sits in front of it: terminals, help, completion, another host."""

import fcntl
import os
import pty
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)) + "/../lib")

from basics import Skip, TIMEOUT, TOP, as_user, eq, wait_for
from ctl import backlog, snapshot, stand_in, write
from harness import main, test
from sshd import Hosts


def on_terminal(daemon, *args, env=None):
    """What fflushctl writes to a terminal."""
    master, slave = pty.openpty()
    p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args],
                         stdout=slave, stderr=slave, stdin=slave,
                         env=dict(os.environ, TERM="xterm", SYSTEMD_PAGER="") | (env or {}), **as_user())
    os.close(slave)
    out = b""
    try:
        while chunk := os.read(master, 65536):
            out += chunk
    except OSError:  # the other end is closed
        pass
    os.close(master)
    return p.wait(TIMEOUT), out


@test
def colour_is_for_terminals_that_want_it(case):
    spool, daemon = case.make()
    backlog(spool)
    eq(b"\033[1m" in on_terminal(daemon, "list")[1], True)
    eq(b"\033" in on_terminal(daemon, "list", env={"NO_COLOR": "1"})[1], False)
    eq(b"\033[1m" in on_terminal(daemon, "list", env={"NO_COLOR": ""})[1], True)
    eq(b"\033" in on_terminal(daemon, "list", env={"TERM": "dumb"})[1], False)
    eq("\033" in daemon.ctl("list").stdout, False)


@test
def a_terminal_sees_that_something_lasts(case):
    spool, daemon = case.make()
    backlog(spool)
    with open(spool.join("flush/a_test"), "w") as log:
        spool.own(spool.join("flush"))
        fcntl.flock(log, fcntl.LOCK_EX)  # the flush waits for it
        for env, args in (({}, ("-t4", "flush", "a.test")), ({}, ("-q", "-t4", "flush", "a.test"))):
            status, out = on_terminal(daemon, *args, env=env)
            eq(status, os.EX_TEMPFAIL)
            eq(b"a.test: 1 s" in out, "-q" not in args, out)
            eq(b"\r\033[Kfflushctl: a.test: no reply in time" in out, "-q" not in args, out)
        r = daemon.ctl("-t1", "flush", "a.test", check=False)
        eq(r.stderr, "fflushctl: a.test: no reply in time\n")


@test
def help_fits_on_a_screen(case):
    _, daemon = case.make()
    lines = daemon.ctl("--help").stdout.splitlines()
    eq([line for line in lines if len(line) > 80], [])
    eq(len(lines) <= 40, True, "%d lines" % len(lines))


@test
def output_that_cannot_be_written_is_an_error(case):
    spool, daemon = case.make()
    backlog(spool)
    for args in (("list",), ("list", "--json"), ("show", "*"), ("flush", "-n", "*"), ("--help",)):
        with open("/dev/full", "w") as full:
            r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-c", daemon.config, *args],
                               stdout=full, stderr=subprocess.PIPE, **as_user())
        eq((r.returncode, r.stderr),
           (74, b"fflushctl: standard output: No space left on device\n"), args)
    ctl = '%s/fflushctl -c %s ' % (daemon.bin, daemon.config)
    r = subprocess.run(["bash", "-c", "set -o pipefail; trap '' PIPE; %s show '*' | true" % ctl],
                       capture_output=True, text=True, **as_user())
    eq((r.returncode, r.stderr) in ((74, "fflushctl: standard output: Broken pipe\n"), (0, "")),
       True, r)
    before = snapshot(spool)
    for closed in (">&-", "<&- >&- 2>&-", "2>&-"):
        subprocess.run(["bash", "-c", "%s show '*' nosuch.test %s" % (ctl, closed)],
                       capture_output=True, **as_user())
        subprocess.run(["bash", "-c", "%s verify %s" % (ctl, closed)],
                       capture_output=True, **as_user())
        eq(snapshot(spool), before, "what is printed went into a file")


@test
def another_host_is_asked_over_ssh(case):
    spool, daemon = case.make()
    spool.log("example_com", b"A1\n")
    spool.put("deferred/A/A1")
    # as ssh does: the words become one line for a shell, standard input and status pass through
    ssh = stand_in(case, "ssh", '#!/bin/sh\n[ "$1 $2 $3" = "-xT -- me@there" ] || exit 99\n'
                                'shift 3\nexec sh -c "$*"\n')
    args = stand_in(case, "fflushctl", "#!/bin/sh\nfor a; do printf '[%s]' \"$a\"; done\ncat\nexit 66\n")

    def there(*words, path=(ssh, args), stdin=""):
        env = dict(os.environ, PATH=":".join((*path, os.environ["PATH"])))
        return subprocess.run([os.path.join(daemon.bin, "fflushctl"), *words], input=stdin, env=env,
                              capture_output=True, text=True, **as_user())

    r = there("-H", "me@there", "-jqt", "5s", "--by=x y", "flush", "it's", "$(id)", "*", "",
              "--limit", "3", "--", "-q", "a\nb\\", stdin="in")
    eq(r.stdout, "[--json][--quiet][--timeout=5s][--by=x y][--limit=3][--][flush][it's][$(id)][*][]"
                 "[-q][a\nb\\]in")
    eq(r.returncode, 66)
    r = there("--host=me@there", "-c", daemon.config, "flush", "example.com",
              path=(ssh, daemon.bin))
    eq((r.returncode, r.stdout, r.stderr), (os.EX_OK, "example.com: 1 found, 1 moved\n", ""))
    for host in ("", "-oProxyCommand=id"):
        eq(there("-H", host, "list").returncode, os.EX_USAGE)
    eq(there("-H", "x", "list").returncode, 99)
    r = subprocess.run([os.path.join(daemon.bin, "fflushctl"), "-H", "x", "list"],
                       env={"PATH": "/nonexistent"}, capture_output=True, text=True,
                       **as_user())
    eq((r.returncode, r.stderr), (os.EX_UNAVAILABLE, "fflushctl: ssh: No such file or directory\n"))


@test
def another_host_with_a_real_sshd(case):
    hosts = Hosts(case)
    spool, daemon = case.make()
    backlog(spool)
    hosts.add("there", daemon.bin)

    def there(*words, stdin=""):
        return subprocess.run(
            [os.path.join(daemon.bin, "fflushctl"), "-H", "root@there", "-c", daemon.config,
             *words], input=stdin, capture_output=True, text=True, timeout=TIMEOUT, env=hosts.env)

    r = there("flush", "-n", "*.com")
    eq((r.returncode, r.stderr), (os.EX_OK, ""))
    eq(r.stdout, daemon.ctl("flush", "-n", "*.com").stdout)
    r = there("deliver", "-", stdin="A1 NOSUCH\n")
    eq((r.returncode, r.stdout), (os.EX_NOINPUT, "A1: moved\nNOSUCH: no such message in the queue\n"))
    eq(there("show", "no'such").stderr,
       "fflushctl: not a domain name: \"no'such\"\n")


def deferred(spool):
    return len(list(spool.files("deferred")))


@test
def what_goes_on_remotely_ends_with_the_connection(case):
    hosts = Hosts(case)
    spool, daemon = case.make()
    names = ["A%d" % i for i in range(60)]
    for name in names:
        spool.put("deferred/A/" + name)
    spool.log("example_com", "".join(n + "\n" for n in names).encode())
    hosts.add("there", daemon.bin)
    for words in (("-q", "flush", "--limit", "1", "--every", "200ms", "example.com"),
                  ("-q", "flush", "--wait", "example.com")):
        p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-H", "there", "-c",
                              daemon.config, *words], stdin=subprocess.DEVNULL, env=hosts.env,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        start = deferred(spool)
        wait_for(lambda: deferred(spool) < start, "nothing is moved")
        eq(p.poll(), None)
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=TIMEOUT)
        eq(p.returncode, -signal.SIGINT)
        wait_for(lambda: not running(os.path.join(daemon.bin, "fflushctl")), "it goes on")
        eq(deferred(spool) > 0, "--every" in words, "it has ended by itself")


def running(path):
    """Processes of this program."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found += [pid] if os.readlink("/proc/%s/exe" % pid) == path else []
        except OSError:
            pass
    return found


@test
def a_terminal_is_one_at_the_far_end_too(case):
    hosts = Hosts(case)
    spool, daemon = case.make()
    backlog(spool)
    hosts.add("there", daemon.bin)
    master, slave = pty.openpty()
    p = subprocess.Popen([os.path.join(daemon.bin, "fflushctl"), "-H", "there", "-c",
                          daemon.config, "flush", "--wait", "mail.example.com"],
                         stdin=slave, stdout=slave, stderr=slave, env=hosts.env | {"TERM": "xterm"})
    os.close(slave)
    out = b""
    while b"\r\033[K0 of 1: 0 left the queue" not in out:  # no queue manager is there to take it
        out += os.read(master, 65536)
    os.write(master, b"\x03")
    try:
        while chunk := os.read(master, 65536):
            out += chunk
    except OSError:
        pass
    os.close(master)
    eq(p.wait(TIMEOUT), os.EX_TEMPFAIL)
    eq(b"mail.example.com: 1 found, 1 moved\r\n" in out, True, out)
    eq(b"1 moved: 1 still on their way\r\n" in out, True, out)
    eq(b"onnection to" in out, False, out)


def complete(daemon, *words):
    """What bash offers for the last word."""
    script = 'PATH=$1:$PATH; . "$2"; shift 2; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); ' \
             '_fflushctl; printf "%s\\n" "${COMPREPLY[@]}"'
    # a fflushctl that knows the test's configuration
    directory = os.path.join(daemon.base, "path")
    os.makedirs(directory, exist_ok=True)
    write(directory, "fflushctl",
          '#!/bin/sh\nexec "%s/fflushctl" -c "%s" "$@"\n' % (daemon.bin, daemon.config), 0o755)
    r = subprocess.run(["bash", "-c", script, "bash", directory,
                        os.path.join(TOP, "completions/fflushctl.bash"), "fflushctl", *words],
                       capture_output=True, text=True, check=True)
    eq(r.stderr, "")
    return sorted(r.stdout.split())


@test
def bash_completes_what_help_knows(case):
    spool, daemon = case.make()
    backlog(spool)
    eq(complete(daemon, "st"), ["status"])
    eq(complete(daemon, "-c", "x", "--json", "f"), ["flush"])
    eq(complete(daemon, "flush", ""), ["a-b.test", "example.com", "mail.example.com"])
    eq(complete(daemon, "list", "exa"), ["example.com"])
    eq(complete(daemon, "list", "--by", "ol"), ["oldest"])
    eq(complete(daemon, "verify", "--re"), ["--repair"])
    eq(complete(daemon, "refresh", "x"), [])
    os.environ["FFLUSHCTL_HOSTS"] = write(case.base, "hosts.conf", "# x: y\nedge : mx1,mx2 # z\n"
                                          "lists: mx1\troot@lists\n")
    eq(complete(daemon, "-H", ""), ["@edge", "@lists", "mx1", "mx2", "root@lists"])
    eq(complete(daemon, "--host", "@e"), ["@edge"])
    # all commands and long options are completed for some command
    text = daemon.ctl("--help").stdout
    verbs = complete(daemon, "")
    commands = text[:text.index("Options of all commands:\n")]
    named = set(re.findall(r"^  (\S+)", commands, re.M))
    verbs.remove("help")
    eq(named, set(verbs), "in --help, and completed")
    for verb in verbs:
        r = daemon.ctl(verb, "--nosuch", check=False)
        eq("unknown command" in r.stderr, False, verb)
        own = daemon.ctl("help", verb).stdout
        eq(own, daemon.ctl(verb, "--help").stdout)
        assert own.startswith("Usage: fflushctl [OPTION...] %s" % verb), own
        wanted = set(re.findall(r"^  (?:-., |    )(--\S+)", text + own, re.M))
        eq(set(complete(daemon, verb, "--")), wanted, verb)
    eq(set(complete(daemon, "help", "")), set(verbs) | {"help"})
    eq(complete(daemon, "deliver", "A"), ["A1", "A2", "A3"])
    for words in ("--by=ol",), ("--by", "=", "ol"):
        eq(complete(daemon, "list", *words), ["oldest"])


@test
def help_is_of_a_command_and_guesses(case):
    _, daemon = case.make()
    text = daemon.ctl("help").stdout
    eq(text, daemon.ctl("--help").stdout)
    for wrong, guess in ("flsh", " (flush?)"), ("lsit", " (list?)"), ("frobnicate", ""), ("x", ""):
        for args in (wrong,), ("help", wrong), (wrong, "--help"):
            r = daemon.ctl(*args, check=False)
            eq((r.returncode, r.stderr.splitlines()[0]),
               (os.EX_USAGE, "fflushctl: unknown command: %s%s" % (wrong, guess)))


@test
def zsh_understands_the_completion(case):
    zsh = shutil.which("zsh")
    if not zsh:
        raise Skip("needs zsh")
    path = os.path.join(TOP, "completions/_fflushctl")
    subprocess.run([zsh, "-n", path], check=True)
    with open(path) as f:
        text = f.read()
    _, daemon = case.make()
    for verb in complete(daemon, ""):
        eq("'%s:" % verb in text, True, verb)
        for option in complete(daemon, verb, "--"):
            eq(option in text, True, option)


if __name__ == "__main__":
    main()
